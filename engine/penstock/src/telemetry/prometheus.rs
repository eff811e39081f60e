//! The text that Prometheus scrapes (exposition format 0.0.4).

use std::fmt::Write;

use super::{Summary, WorkerCells};

/// The upper edges of a histogram that are told, and how many of what was recorded make one of what is told.
#[derive(Debug)]
pub struct Scale<'a> {
    pub edges: &'a [u64],
    pub unit: f64,
}

/// In nanoseconds: from what a cached answer takes to what a person leaves for.
const LATENCIES: Scale<'_> = Scale {
    edges: &[
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
    ],
    unit: 1e9,
};

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
    let mut latency = Summary::default();
    workers.iter().for_each(|cells| latency.add(&cells.latency));
    let help = "From a request's head to the end of its response.";
    let series = std::iter::once((String::new(), latency));
    histogram(out, "penstock_request_duration_seconds", help, &LATENCIES, series);
}

/// Writes one histogram with labels; `rows` are the labels' text, which may be empty, and what was recorded.
pub fn histogram(
    out: &mut String,
    name: &str,
    help: &str,
    scale: &Scale<'_>,
    rows: impl Iterator<Item = (String, Summary)>,
) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
    for (labels, summary) in rows {
        let comma = if labels.is_empty() { "" } else { "," };
        for &edge in scale.edges {
            let (told, count) = (edge as f64 / scale.unit, summary.at_most(edge));
            let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{told}\"}} {count}");
        }
        let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {}", summary.count);
        let braced = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
        let sum = summary.sum as f64 / scale.unit;
        let _ = writeln!(out, "{name}_sum{braced} {sum}\n{name}_count{braced} {}", summary.count);
    }
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
