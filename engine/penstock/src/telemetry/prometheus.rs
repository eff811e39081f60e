//! The text that Prometheus scrapes (exposition format 0.0.4).

use std::fmt::Write;

use super::{Summary, WorkerCells};

/// Upper edges of the latency histogram told, in nanoseconds: from what a cached answer takes to what a person leaves for.
const EDGES: [u64; 12] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
    1_000_000_000,
    10_000_000_000,
];

/// Writes every counter of every worker, and the latency of all of them.
pub fn workers(out: &mut String, workers: &[&WorkerCells]) {
    let Some(first) = workers.first() else { return };
    let mut names = Vec::new();
    first.counters.each(|name, kind, help, _| names.push((name, kind, help)));
    let values: Vec<Vec<u64>> = workers
        .iter()
        .map(|cells| {
            let mut values = Vec::with_capacity(names.len());
            cells.counters.each(|_, _, _, value| values.push(value));
            values
        })
        .collect();
    for (at, (name, kind, help)) in names.into_iter().enumerate() {
        let _ = writeln!(out, "# HELP penstock_{name} {}\n# TYPE penstock_{name} {kind}", help.trim());
        for (worker, values) in values.iter().enumerate() {
            let _ = writeln!(out, "penstock_{name}{{worker=\"{worker}\"}} {}", values[at]);
        }
    }
    latency(out, workers);
}

fn latency(out: &mut String, workers: &[&WorkerCells]) {
    let mut summary = Summary::default();
    workers.iter().for_each(|cells| summary.add(&cells.latency));
    let name = "penstock_request_duration_seconds";
    let _ = writeln!(out, "# HELP {name} From a request's head to the end of its response.\n# TYPE {name} histogram");
    for edge in EDGES {
        let _ = writeln!(out, "{name}_bucket{{le=\"{}\"}} {}", edge as f64 / 1e9, summary.at_most(edge));
    }
    let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {}", summary.count);
    let _ = writeln!(out, "{name}_sum {}\n{name}_count {}", summary.sum as f64 / 1e9, summary.count);
}

/// Writes one gauge or counter with labels; `rows` are the labels' text and the value.
pub fn family(out: &mut String, name: &str, kind: &str, help: &str, rows: impl Iterator<Item = (String, u64)>) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in rows {
        let _ = writeln!(out, "{name}{{{labels}}} {value}");
    }
}

/// A label's value, quoted.
pub fn label(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
