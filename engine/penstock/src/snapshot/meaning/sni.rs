//! What `[[listen.sni]]` must mean.

use std::net::Ipv4Addr;

use super::Meaning;
use crate::limits;
use crate::snapshot::report::Code;
use crate::snapshot::route::HostPattern;
use crate::snapshot::schema::{ListenDoc, Protocol, SniDoc};

impl Meaning<'_> {
    pub(super) fn sni(&mut self, at: usize, door: &ListenDoc) {
        if door.sni.is_empty() {
            return;
        }
        let place = path!["listen", at, "sni"];
        if door.protocol == Protocol::Http {
            let message = "an http listener leads nobody by `sni`: requests are routed";
            self.report(Code::Conflict, place, message, "write protocol = \"tcp\", or [[route]] with a `host`");
        }
        if door.tls.is_on() {
            let message = "`sni` is for TLS that is passed through, and this listener ends it";
            self.report(Code::Conflict, place, message, "leave out `tls`, or `sni`");
        }
        if door.sni.len() > limits::SNI_RULES_MAX {
            let (message, advice) = (format!("{} rules", door.sni.len()), limits::SNI_RULES_MAX);
            self.report(Code::BadValue, place, message, format!("at most {advice} are supported"));
        }
        for (number, rule) in door.sni.iter().enumerate() {
            self.sni_rule(at, number, rule);
        }
        let each = door.sni.iter().enumerate().flat_map(|(number, rule)| {
            rule.host.0.iter().enumerate().flat_map(move |(index, host)| {
                let path = path!["listen", at, "sni", number, "host", index].to_vec();
                keys(host, rule).map(move |key| (key, path.clone()))
            })
        });
        self.twice("the name", each.collect::<Vec<_>>());
    }

    fn sni_rule(&mut self, at: usize, number: usize, rule: &SniDoc) {
        let of = |key| path!["listen", at, "sni", number, key].to_vec();
        if rule.pool.is_empty() {
            self.report(Code::MissingKey, &of("pool"), "it leads nowhere", "name a `pool`");
        } else {
            self.pool_exists(&rule.pool, &of("pool"));
        }
        if rule.host.0.is_empty() && self.is_empty_list(&of("host")) {
            self.report(Code::BadValue, &of("host"), "it takes nobody", "write a name, or `*`");
        }
        for (index, host) in rule.host.0.iter().enumerate() {
            let path = path!["listen", at, "sni", number, "host", index];
            match host {
                HostPattern::Any if rule.alpn.0.is_empty() => {
                    let advice = "write the listener's `pool` for those that no name takes";
                    self.report(Code::Conflict, path, "it takes everybody", advice);
                }
                HostPattern::Exact(name) if name.starts_with('[') || name.parse::<Ipv4Addr>().is_ok() => {
                    let message = "nobody asks for an address by SNI (RFC 6066 §3)";
                    self.report(Code::NoEffect, path, message, "write the listener's `pool` for those without a name");
                }
                _ => {}
            }
        }
    }
}

/// What no two rules may take.
fn keys<'a>(host: &'a HostPattern, rule: &'a SniDoc) -> impl Iterator<Item = String> + 'a {
    let alone = rule.alpn.0.is_empty().then(|| host.to_string());
    alone.into_iter().chain(rule.alpn.0.iter().map(move |name| format!("{host} with {}", name.0)))
}

#[cfg(test)]
mod tests {
    use crate::snapshot;

    /// What is said of a tcp listener with these lines; nothing, if it is sound.
    fn told(lines: &str) -> String {
        let text = format!(
            "[[listen]]\nname = \"l\"\naddr = \":1\"\nprotocol = \"tcp\"\n{lines}\n[[pool]]\nname = \"web\"\nendpoints = [\"a:1\"]\n"
        );
        report(&text)
    }

    fn report(text: &str) -> String {
        snapshot::read("test", text).map_or_else(|report| report, |compiled| compiled.report).render()
    }

    #[test]
    fn rules_that_are_sound() {
        for lines in [
            "[[listen.sni]]\nhost = \"a.b\"\npool = \"web\"",
            "pool = \"web\"\nsni = { host = [\"a.b\", \"*.a.b\"], pool = \"web\" }",
            "sni = [{ alpn = \"h2\", pool = \"web\" }, { alpn = [\"h3\", \"http/1.1\"], pool = \"web\" }]",
            "sni = [{ host = \"a.b\", pool = \"web\" }, { host = \"a.b\", alpn = \"h2\", pool = \"web\" }]",
        ] {
            assert_eq!(told(lines), "", "{lines}");
        }
    }

    #[test]
    fn rules_that_are_not() {
        for (lines, problem, advice) in [
            ("sni = { host = \"a.b\", pool = \"wet\" }", "there is no pool `wet`", "did you mean `web`?"),
            ("sni = { host = \"a.b\" }", "it leads nowhere", "name a `pool`"),
            ("sni = { pool = \"web\" }", "it takes everybody", "the listener's `pool`"),
            ("sni = { host = [], pool = \"web\" }", "it takes nobody", "write a name"),
            ("sni = { host = \"10.0.0.1\", pool = \"web\" }", "nobody asks for an address by SNI", "without a name"),
            ("sni = { host = \"[::1]\", pool = \"web\" }", "nobody asks for an address by SNI", "without a name"),
            ("sni = { host = \"a b\", pool = \"web\" }", "`a b` is not a host", "`*.example.net`"),
            ("sni = { alpn = \"h 2\", pool = \"web\" }", "is no protocol's name", "`acme-tls/1`"),
            ("sni = { host = \"a.b\", pools = \"web\" }", "`pools`", "pool"),
            (
                "sni = [{ host = \"*.a.b\", pool = \"web\" }, { host = [\"c\", \"*.a.b\"], pool = \"web\" }]",
                "the name `*.a.b` is there twice",
                "line 5",
            ),
            (
                "sni = [{ host = \"c\", alpn = \"h2\", pool = \"web\" }, { host = \"c\", alpn = [\"h3\", \"h2\"], pool = \"web\" }]",
                "the name `c with h2` is there twice",
                "line 5",
            ),
            (
                "sni = { host = \"a.b\", pool = \"web\" }\ntls = { cert = \"a\", key = \"b\" }",
                "this listener ends it",
                "leave out `tls`",
            ),
        ] {
            let told = told(lines);
            assert!(told.contains(problem) && told.contains(advice), "{lines}:\n{told}");
        }
        let text = "[[listen]]\nname = \"l\"\naddr = \":1\"\nsni = { host = \"a.b\", pool = \"web\" }\n\
                    [[pool]]\nname = \"web\"\nendpoints = [\"a:1\"]\n";
        let told = report(text);
        assert!(told.contains("an http listener leads nobody by `sni`"), "{told}");
    }
}
