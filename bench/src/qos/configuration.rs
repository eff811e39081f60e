//! What Penstock is told in each part of `bench qos`. Here and nowhere else: when a key's name changes, this file does.
//!
//! `{listen}`, `{admin}`, `{origins}` and `{cores}` are filled in when the proxy is started.

/// Hosts that stand for the two kinds of traffic.
pub(super) const INTERACTIVE_HOST: &str = "interactive.test";
pub(super) const BULK_HOST: &str = "bulk.test";

/// Requests that the scarce origin serves at one time, and microseconds that each takes: together its capacity.
pub(super) const SLOTS: &str = "8";
pub(super) const SERVICE_US: &str = "5000";

/// Configured rates, which measured ones are held against.
pub(super) const SHAPED_BYTES_A_SECOND: f64 = 10e6;
pub(super) const SHAPED_REQUESTS_A_SECOND: f64 = 200.0;
pub(super) const LIMIT_A_SECOND: f64 = 100.0;

/// A configuration: classes, if any, then the door and the pool that every part has, then what is its own.
macro_rules! configuration {
    (classes: $classes:literal, then: $rest:literal) => {
        concat!(
            r#"
[engine]
cores = "{cores}"
admin = "{admin}"
"#,
            $classes,
            r#"
[[listen]]
name = "door"
addr = "{listen}"

[[pool]]
name = "origins"
endpoints = [{origins}]
"#,
            $rest
        )
    };
}

/// One kind of traffic for everybody: what classes are measured against.
pub(super) const PLAIN: &str = configuration!(classes: "", then: "");

/// Two classes before a pool that lets no more through than its origin serves at one time.
pub(super) const CLASSES: &str = configuration!(
    classes: r#"
[classes]
interactive = { weight = 8 }
bulk = { weight = 1 }
"#,
    then: r#"concurrency = "8"
queue = { for = "200ms", len = 1000 }

[[route]]
host = ["interactive.test", "*"]
class = "interactive"
pool = "origins"

[[route]]
host = "bulk.test"
class = "bulk"
pool = "origins"
"#
);

/// A class that may move so many bytes a second.
pub(super) const SHAPED_BYTES: &str = configuration!(
    classes: r#"
[classes]
bulk = { weight = 1, bandwidth = "10MB/s" }
"#,
    then: r#"
[[route]]
class = "bulk"
pool = "origins"
"#
);

/// A class that may ask so often.
pub(super) const SHAPED_REQUESTS: &str = configuration!(
    classes: r#"
[classes]
bulk = { weight = 1, rate = "200/s" }
"#,
    then: r#"
[[route]]
class = "bulk"
pool = "origins"
"#
);

/// A client that may ask so often; the rest is refused. A burst of ten bridges 100 ms: with a burst of one, each grant
/// is late by the time until somebody asks next, which is the clients' doing and no error of the limit.
pub(super) const LIMITED: &str = configuration!(
    classes: "",
    then: r#"
[[route]]
pool = "origins"
limit = { key = "client-address", rate = "100/s", burst = 10 }
"#
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_their_places_and_say_what_is_measured() {
        for text in [PLAIN, CLASSES, SHAPED_BYTES, SHAPED_REQUESTS, LIMITED] {
            for place in ["{listen}", "{admin}", "{origins}", "{cores}"] {
                assert_eq!(text.matches(place).count(), 1, "{place} in {text}");
            }
        }
        assert!(CLASSES.contains(INTERACTIVE_HOST) && CLASSES.contains(BULK_HOST));
        assert!(CLASSES.contains(&format!("concurrency = \"{SLOTS}\"\n")));
        assert!(SHAPED_BYTES.contains(&format!("\"{}MB/s\"", SHAPED_BYTES_A_SECOND / 1e6)));
        assert!(SHAPED_REQUESTS.contains(&format!("\"{SHAPED_REQUESTS_A_SECOND}/s\"")));
        assert!(LIMITED.contains(&format!("\"{LIMIT_A_SECOND}/s\"")));
    }
}
