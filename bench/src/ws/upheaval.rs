//! Five minutes of our own with an upheaval in them: a certificate is swapped and one of two endpoints drained, and nobody must notice.
//!
//! Beside the WebSockets that stay, a visitor comes ten times a second, opens one, sends a message and leaves: it would notice a door that shuts.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use xtask::Outcome;

use super::contender::{Contender, Ground};
use super::load::{self, Process, Seen, Spread};
use super::start_origin;
use crate::meter;
use crate::process::{Running, free_address, get, words, write_file};
use crate::report::{aligned, figure_text};
use crate::rivals::Kind;
use crate::tls::Identity;

/// What the issue promises: one way, 99.9 % of messages; opening with TLS, 99 % of connections.
const DELIVERY_US: f64 = 25_000.0;
const OPENING_US: f64 = 100_000.0;
/// How long a new certificate may take to be shown: it is looked at each second, and must have stood still for one.
const SHOWN_WITHIN: Duration = Duration::from_secs(10);
const VISITS_EVERY: Duration = Duration::from_millis(100);

pub(super) fn run(ground: &Ground<'_>, load_cpu: usize) -> Outcome<Value> {
    let (first, drained) = start_origin(ground.scratch, load_cpu)?;
    let (second, kept) = start_origin(ground.scratch, load_cpu)?;
    let program = Kind::Penstock.program()?;
    let (listen, admin) = (free_address()?, free_address()?);
    let folder = ground.scratch.folder("penstock")?;
    let file = folder.join("penstock.toml");
    write_file(&file, configuration(ground, listen, admin, [drained, kept]))?;
    let line = words([&program, &"run", &"-c", &file]);
    let running = Running::start("penstock", ground.cpus.clone(), &line, &[], &folder.join("log"))?;
    let mut contender = Contender::of(Kind::Penstock, Kind::Penstock.version(&program), listen, running);
    contender.wait_until_it_answers(ground)?;
    println!("  {}: {}; endpoints {drained}, {kept}", contender.kind.name(), contender.version);

    let proxy = contender.processes();
    let before = meter::cpu_ns(&proxy);
    let mut load = Process::start(ground.plan, listen, &ground.identity.cert, load_cpu)?;
    load.wait_until_open()?;
    let (begun, opened) = (Instant::now(), meter::cpu_ns(&proxy));
    let old = ground.scratch.folder("tls-before")?.join("cert.pem");
    std::fs::copy(&ground.identity.cert, &old).map_err(|error| format!("{}: {error}", old.display()))?;
    let third = Duration::from_secs(ground.plan.seconds) / 3;
    let over = AtomicBool::new(false);
    let trust = [old.as_path(), ground.identity.cert.as_path()];
    let (visits, upheaval) = std::thread::scope(|scope| {
        let visitor = scope.spawn(|| visit_until(&over, listen, trust));
        let upheaval = (|| {
            wait_until(begun + third);
            let swapped = swap(ground, listen)?;
            println!(
                "  after {:.0} s: the new certificate is shown, {:.1} s after its files were written",
                begun.elapsed().as_secs_f64(),
                swapped.as_secs_f64()
            );
            wait_until(begun + 2 * third);
            let told = drain(&program, admin, drained)?;
            println!("  after {:.0} s: {}", begun.elapsed().as_secs_f64(), told.trim());
            load.wait_until_sent()
        })();
        over.store(true, Ordering::Relaxed);
        (visitor.join().unwrap_or_default(), upheaval)
    });
    upheaval?;
    let ended = meter::cpu_ns(&proxy);
    let metrics = get(admin, "/metrics").map_err(|error| format!("{admin}/metrics: {error}"))?;
    let seen = load.finish()?;
    drop((first, second));
    let result = Verdict { seen, visits: visits.seen(), opening_ns: opened - before, passing_ns: ended - opened };
    print!("\n{}", result.table());
    let sum = |name: &str| samples(&metrics, name);
    println!(
        "  of its own counters: {} WebSockets, {} violations, {} panics",
        sum("penstock_websockets_total"),
        sum("penstock_websocket_violations_total"),
        sum("penstock_panics_total")
    );
    result.judge(ground.plan.connections)?;
    Ok(result.to_json())
}

/// The sum of a counter's samples, whatever their labels.
fn samples(metrics: &str, name: &str) -> f64 {
    let of = |line: &str| line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once(' ')?.1.parse::<f64>().ok();
    metrics.lines().filter_map(of).sum()
}

fn configuration(ground: &Ground<'_>, listen: SocketAddr, admin: SocketAddr, to: [SocketAddr; 2]) -> String {
    let (cores, Identity { cert, key, .. }, [one, other]) = (ground.cpus, ground.identity, to);
    format!(
        "\
[engine]
cores = \"{cores}\"
admin = \"{admin}\"

[[listen]]
name = \"door\"
addr = \"{listen}\"
tls = {{ cert = {cert:?}, key = {key:?} }}

[[pool]]
name = \"origins\"
endpoints = [\"{one}\", \"{other}\"]

[[route]]
pool = \"origins\"
"
    )
}

fn wait_until(at: Instant) {
    std::thread::sleep(at.saturating_duration_since(Instant::now()));
}

/// Puts another certificate into the place of the one that is shown; how long it took to be shown.
fn swap(ground: &Ground<'_>, listen: SocketAddr) -> Outcome<Duration> {
    let new = Identity::make_in(&ground.scratch.folder("tls-after")?)?;
    let begun = Instant::now();
    for (from, to) in [(&new.cert, &ground.identity.cert), (&new.key, &ground.identity.key)] {
        std::fs::rename(from, to).map_err(|error| format!("{}: {error}", to.display()))?;
    }
    while begun.elapsed() < SHOWN_WITHIN {
        if load::visit(listen, &ground.identity.cert).is_ok() {
            return Ok(begun.elapsed());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err("the new certificate is not shown".to_owned())
}

fn drain(program: &Path, admin: SocketAddr, endpoint: SocketAddr) -> Outcome<String> {
    let asked = Command::new(program)
        .args(["set", "endpoint", &endpoint.to_string(), "drain", "--admin", &admin.to_string()])
        .output()
        .map_err(|error| format!("penstock set: {error}"))?;
    if asked.status.success() {
        Ok(String::from_utf8_lossy(&asked.stdout).into_owned())
    } else {
        Err(format!("penstock set: {}", String::from_utf8_lossy(&asked.stderr).trim()))
    }
}

/// Visits, by how long each took to open, in microseconds; and those that failed.
#[derive(Debug, Default)]
struct Visits {
    opening: Vec<u32>,
    failed: u64,
    why: Option<String>,
}

#[derive(Debug, Clone)]
struct VisitsSeen {
    opening: Spread,
    made: usize,
    failed: u64,
    why: Option<String>,
}

impl Visits {
    fn seen(mut self) -> VisitsSeen {
        VisitsSeen {
            made: self.opening.len(),
            opening: Spread::of(&mut self.opening),
            failed: self.failed,
            why: self.why,
        }
    }
}

/// Comes until it is over; expects the old certificate or the new one.
fn visit_until(over: &AtomicBool, listen: SocketAddr, trust: [&Path; 2]) -> Visits {
    let mut visits = Visits::default();
    let mut next = Instant::now();
    while !over.load(Ordering::Relaxed) {
        match load::visit(listen, trust[0]).or_else(|_| load::visit(listen, trust[1])) {
            Ok(opening) => visits.opening.push(opening.as_micros() as u32),
            Err(error) => {
                visits.failed += 1;
                visits.why.get_or_insert_with(|| error.to_string());
            }
        }
        next += VISITS_EVERY;
        wait_until(next);
    }
    visits
}

struct Verdict {
    seen: Seen,
    visits: VisitsSeen,
    opening_ns: u64,
    passing_ns: u64,
}

impl Verdict {
    fn table(&self) -> String {
        let Seen { opened, failed, lost, sent, answered, opening, delivery, late } = self.seen;
        let spread = |name: &str, spread: Spread| {
            let figures =
                [spread.p50, spread.p99, spread.p999, spread.max].map(|value| figure_text(Some(value / 1e3), 2));
            std::iter::once(name.to_owned()).chain(figures).collect::<Vec<_>>()
        };
        let rows = [
            ["ms", "p50", "p99", "p99.9", "max"].map(str::to_owned).to_vec(),
            spread("delivery, one way", delivery),
            spread("opening, TLS included", opening),
            spread("opening of visitors", self.visits.opening),
            spread("sent late by the load", late),
        ];
        let each = |ns: u64, count: u64| ns as f64 / 1e3 / count.max(1) as f64;
        let why = self.visits.why.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
        format!(
            "{}  {opened} opened, {failed} not, {lost} lost; {sent} messages sent, {} unanswered\n  {} visits, {} failed{why}\n  \
             CPU: {:.2} µs a message, {:.0} µs an opening (visits are in it)\n",
            aligned(&rows),
            sent - answered,
            self.visits.made,
            self.visits.failed,
            each(self.passing_ns, self.seen.messages()),
            each(self.opening_ns, opened),
        )
    }

    fn to_json(&self) -> Value {
        json!({
            "seen": self.seen.to_json(), "visits": self.visits.made, "visits_failed": self.visits.failed,
            "opening_cpu_ns": self.opening_ns, "passing_cpu_ns": self.passing_ns,
        })
    }

    /// What was promised.
    fn judge(&self, connections: usize) -> Outcome {
        let Seen { opened, lost, sent, answered, opening, delivery, .. } = self.seen;
        let mut broken = Vec::new();
        if opened != connections as u64 || lost > 0 || answered != sent || self.visits.failed > 0 {
            broken.push("somebody noticed".to_owned());
        }
        if delivery.p999 >= DELIVERY_US {
            broken.push(format!("99.9 % of messages took up to {:.1} ms", delivery.p999 / 1e3));
        }
        if opening.p99 >= OPENING_US {
            broken.push(format!("99 % of connections took up to {:.1} ms to open", opening.p99 / 1e3));
        }
        if broken.is_empty() { Ok(()) } else { Err(format!("promises not kept: {}", broken.join("; "))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed() {
        let text = "# HELP a b\na{worker=\"0\"} 2\na{worker=\"1\",x=\"y z\"} 3\nab{worker=\"0\"} 7\n";
        assert_eq!(samples(text, "a"), 5.0);
    }

    #[test]
    fn what_is_promised() {
        let spread = Spread { p50: 1.0, p99: 20.0, p999: 300.0, max: 90_000.0 };
        let seen = Seen { opened: 5, sent: 9, answered: 9, opening: spread, delivery: spread, ..Seen::default() };
        let visits = VisitsSeen { opening: spread, made: 3, failed: 0, why: None };
        let kept = Verdict { seen, visits, opening_ns: 1, passing_ns: 1 };
        assert_eq!(kept.judge(5), Ok(()));
        assert!(kept.judge(6).is_err());
        let wrong: [fn(&mut Verdict); 5] = [
            |result| result.seen.lost = 1,
            |result| result.seen.answered = 8,
            |result| result.visits.failed = 1,
            |result| result.seen.delivery.p999 = DELIVERY_US,
            |result| result.seen.opening.p99 = OPENING_US,
        ];
        for make in wrong {
            let mut result = Verdict { seen, visits: kept.visits.clone(), opening_ns: 1, passing_ns: 1 };
            make(&mut result);
            assert!(result.judge(5).is_err());
        }
    }
}
