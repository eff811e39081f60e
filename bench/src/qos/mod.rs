//! `bench qos`: whether classes, shaping, limits, shared load and connection reuse do what they say, with the real binary and two workers.
//!
//! Everything is measured from outside: by clients that check every answer and by origins that write down every request ([`crate::echo`]). The
//! origin that classes compete for has a capacity of its own (so many requests at one time, so long each), so that it is scarce by construction
//! and not by what the machine happens to manage. Where a figure could be the load generator's or the origin's, a line without the proxy, or without
//! the feature, stands beside it.

mod bed;
mod configuration;
mod parts;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use xtask::Outcome;

use crate::calendar;
use crate::flags::Flags;
use crate::process::{self, Cpus, Scratch};
use bed::Ground;
use parts::{Line, PARTS, Part, Verdict};

const VALUED: &[&str] = &["--parts", "--seconds", "--proxy-cpus", "--load-cpus", "--json"];
const BARE: &[&str] = &["--strict", "--smoke"];

struct Settings {
    parts: Vec<Part>,
    window: Duration,
    warm_up: Duration,
    proxy_cpus: Cpus,
    load_cpus: Cpus,
    json: Option<PathBuf>,
    strict: bool,
}

impl Settings {
    fn read(words: &[String]) -> Outcome<Self> {
        let flags = Flags::parse(words, VALUED, BARE)?;
        let smoke = flags.has("--smoke");
        let names = flags.list("--parts", "");
        if let Some(unknown) = names.iter().find(|name| PARTS.iter().all(|(known, ..)| known != *name)) {
            return Err(format!("there is no part `{unknown}`"));
        }
        let seconds = flags.read("--seconds", if smoke { 0.3 } else { 10.0 })?;
        let settings = Self {
            parts: PARTS.iter().filter(|(name, ..)| names.is_empty() || names.contains(name)).copied().collect(),
            window: Duration::try_from_secs_f64(seconds).map_err(|_| "--seconds is no length of time")?,
            warm_up: Duration::from_millis(if smoke { 100 } else { 1_000 }),
            proxy_cpus: flags.read("--proxy-cpus", all_cpus()?)?,
            load_cpus: flags.read("--load-cpus", all_cpus()?)?,
            json: flags.text("--json").map(PathBuf::from),
            strict: flags.has("--strict"),
        };
        if settings.window.is_zero() { Err("--seconds must be more than nothing".to_owned()) } else { Ok(settings) }
    }
}

/// The two CPUs that two workers, the load and the origins share.
fn all_cpus() -> Outcome<Cpus> {
    "0,1".parse().map_err(|()| "no CPUs".to_owned())
}

pub(crate) fn run(words: &[String]) -> Outcome {
    let settings = Settings::read(words)?;
    process::pin_here(&settings.load_cpus)?;
    let scratch = Scratch::new()?;
    let ground = Ground {
        scratch: &scratch,
        proxy_cpus: &settings.proxy_cpus,
        load_cpus: &settings.load_cpus,
        warm_up: settings.warm_up,
        window: settings.window,
    };
    println!("$ cargo xtask bench qos {}", words.join(" "));
    println!(
        "{}; {} workers on CPUs {}, load and origins on {}; {:?} each after {:?}",
        calendar::now(),
        settings.proxy_cpus.count(),
        settings.proxy_cpus,
        settings.load_cpus,
        settings.window,
        settings.warm_up
    );
    let (mut results, mut unmeasured, mut broken) = (Vec::new(), Vec::new(), Vec::new());
    for (name, promise, part) in &settings.parts {
        println!("\n{name}: {promise}");
        let lines = part(&ground);
        for line in &lines {
            println!("  {} {}", line.text, line.verdict.name());
        }
        let has = |verdict| lines.iter().any(|line: &Line| line.verdict == verdict);
        if has(Verdict::Unmeasured) {
            unmeasured.push(*name);
        }
        if has(Verdict::Broken) {
            broken.push(*name);
        }
        let figures: Vec<_> =
            lines.iter().map(|line| json!({"figures": line.figures, "verdict": line.verdict.name()})).collect();
        results.push(json!({"name": name, "promise": promise, "lines": figures}));
    }
    if let Some(file) = &settings.json {
        let command = format!("cargo xtask bench qos {}", words.join(" "));
        let all = json!({"command": command.trim_end(), "date": calendar::now(), "parts": results});
        process::write_file(file, format!("{all:#}\n"))?;
    }
    if !unmeasured.is_empty() {
        return Err(format!("could not be measured: {}", unmeasured.join(", ")));
    }
    if settings.strict && !broken.is_empty() {
        return Err(format!("promises not kept: {}", broken.join(", ")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Outcome<Settings> {
        Settings::read(&crate::flags::words(text))
    }

    #[test]
    fn settings() {
        let all = read("").unwrap();
        assert_eq!((all.parts.len(), all.window, all.proxy_cpus.count()), (PARTS.len(), Duration::from_secs(10), 2));
        let some = read("--parts reuse,spread --seconds 0.5 --strict").unwrap();
        assert_eq!(some.parts.iter().map(|(name, ..)| *name).collect::<Vec<_>>(), ["spread", "reuse"]);
        assert!(some.strict);
        assert!(read("--parts fairness").is_err() && read("--seconds 0").is_err());
    }
}
