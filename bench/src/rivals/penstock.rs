//! Penstock: the release binary, with an admin endpoint for its own counters of what strace cannot see.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use xtask::{Outcome, place};

use super::{Launch, Site};
use crate::process::{free_address, get, words, write_file};
use crate::scenario::Over;
use crate::tls::Identity;

/// `PENSTOCK_BINARY`, or the release build.
pub(super) fn program() -> Outcome<PathBuf> {
    let path = match std::env::var_os("PENSTOCK_BINARY") {
        Some(path) => PathBuf::from(path),
        None => place::target_directory()?.join("release/penstock"),
    };
    if path.is_file() {
        Ok(path)
    } else {
        Err(format!("{} is not there: cargo build --release, or --without-penstock", path.display()))
    }
}

pub(super) fn launch(program: &Path, site: &Site<'_>) -> Outcome<Launch> {
    let admin = free_address()?;
    let scheme = if site.identity.is_some() { "https://" } else { "" };
    let towards = if site.over == Over::Grpc { "h2c://" } else { "" };
    let (listen, to) = (format!("{scheme}{}", site.listen), format!("{towards}{}", site.to));
    let cpu = site.cpu.to_string();
    let mut line = words([
        &program,
        &"serve",
        &"--listen",
        &listen,
        &"--to",
        &to,
        &"--cores",
        &cpu,
        &"--admin",
        &admin.to_string(),
    ]);
    if let Some(Identity { cert, key, .. }) = site.identity {
        line.extend(words([&"--cert", cert, &"--key", key]));
    }
    Ok(Launch { words: line, environment: Vec::new(), admin: Some(admin) })
}

/// Behind the pool's own lines: decisions that a proxy of one origin can do without are left out.
pub(super) const BARE: &str = "\
balance = \"round-robin\"
breaker = { failures = 0 }
retry = { tries = 1 }

[[route]]
pool = \"origin\"
";

/// What `serve` stands for, and requests that skip TCP.
pub(super) const NEAR: &str = "\
same_host = \"auto\"

[[route]]
pool = \"origin\"
";

/// The same with all that protects origins: shared load, a breaker by counts and rates, retries, outliers, probes, limits of the
/// pool, of endpoints and of clients, and a class.
pub(super) const FULL: &str = "\
balance = \"adaptive\"
breaker = { failures = 5, failure_rate = \"50%\" }
concurrency = 100000
limits = { requests = 100000, connections = 100000 }
health = { tcp = true, every = \"1s\" }
outlier = { on = [\"gateway\", \"5xx\"] }

[[route]]
pool = \"origin\"
class = \"interactive\"
limit = [{ key = \"client-address\", rate = \"100000000/s\" }]

[classes.interactive]
weight = 8
";

/// With a configuration of its own instead of what `serve` stands for.
pub(super) fn launch_with(program: &Path, site: &Site<'_>, more: &str) -> Outcome<Launch> {
    let admin = free_address()?;
    let file = site.folder.join("penstock.toml");
    write_file(&file, configuration(site, admin, more))?;
    Ok(Launch { words: words([&program, &"run", &"-c", &file]), environment: Vec::new(), admin: Some(admin) })
}

fn configuration(site: &Site<'_>, admin: SocketAddr, more: &str) -> String {
    let Site { listen, to, cpu, .. } = site;
    format!(
        "\
[engine]
cores = \"{cpu}\"
admin = \"{admin}\"

[[listen]]
name = \"door\"
addr = \"{listen}\"

[[pool]]
name = \"origin\"
endpoints = [\"{to}\"]
{more}"
    )
}

/// Counters of the ring, all workers together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Counters {
    pub(crate) enters: f64,
    pub(crate) sends: f64,
    pub(crate) requests: f64,
}

pub(super) fn counters(admin: SocketAddr) -> Outcome<Counters> {
    let text = get(admin, "/metrics").map_err(|error| format!("{admin}/metrics: {error}"))?;
    parse(&text).ok_or_else(|| {
        format!(
            "{admin}/metrics tells no penstock_ring_enters_total, penstock_ring_sends_total or penstock_requests_total"
        )
    })
}

/// Sums of the Prometheus text's samples, whatever their labels.
fn parse(text: &str) -> Option<Counters> {
    let sum = |name: &str| {
        let samples = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            if !rest.starts_with(['{', ' ']) {
                return None;
            }
            let after = rest.rsplit_once('}').map_or(rest, |(_, after)| after);
            after.split_whitespace().next()?.parse::<f64>().ok()
        });
        samples.fold(None, |sum: Option<f64>, value| Some(sum.unwrap_or(0.0) + value))
    };
    Some(Counters {
        enters: sum("penstock_ring_enters_total")?,
        sends: sum("penstock_ring_sends_total")?,
        requests: sum("penstock_requests_total")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_their_labels() {
        let text = "\
HTTP/1.1 200 OK\r
\r
# TYPE penstock_ring_enters_total counter
penstock_ring_enters_total{worker=\"0\"} 10
penstock_ring_enters_total{worker=\"1\"} 5
penstock_ring_sends_total 40
penstock_ring_sends_total_other 1000
penstock_requests_total{class=\"a b}\"} 2e1
";
        assert_eq!(parse(text), Some(Counters { enters: 15.0, sends: 40.0, requests: 20.0 }));
        assert_eq!(parse("penstock_ring_enters_total 1\n"), None);
    }

    #[test]
    fn its_command_line() {
        let launch = launch(Path::new("/opt/penstock"), &super::super::test_site()).unwrap();
        let line: Vec<&str> = launch.words.iter().filter_map(|word| word.to_str()).collect();
        assert_eq!(
            line[..8],
            ["/opt/penstock", "serve", "--listen", "127.0.0.1:8001", "--to", "127.0.0.1:9001", "--cores", "1"]
        );
        assert_eq!(line[8], "--admin");
        let launch = super::launch(Path::new("/opt/penstock"), &super::super::test_site_with_grpc()).unwrap();
        assert!(launch.words.iter().any(|word| word == "h2c://127.0.0.1:9001"), "{:?}", launch.words);
    }
}
