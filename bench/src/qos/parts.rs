//! The five measurements. Each starts what it needs, measures, and says what it saw beside what was promised.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use xtask::Outcome;

use super::bed::{Bed, Clients, Ground, Window};
use super::configuration::{
    BULK_HOST, CLASSES, INTERACTIVE_HOST, LIMIT_A_SECOND, LIMITED, PLAIN, SERVICE_US, SHAPED_BYTES,
    SHAPED_BYTES_A_SECOND, SHAPED_REQUESTS, SHAPED_REQUESTS_A_SECOND, SLOTS,
};

/// Origins behind a pool that is shared out.
const ORIGINS: u8 = 5;
/// Large enough that heads are no part worth counting, small enough that the window's edges are none either.
const SHAPED_ANSWER_BYTES: usize = 16 << 10;

/// A line of the report.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) figures: Value,
    /// Whether the promise is kept; none for a line that only stands beside another.
    pub(super) kept: Option<bool>,
}

/// A measurement by its name.
pub(super) type Part = (&'static str, &'static str, fn(&Ground<'_>) -> Outcome<Vec<Line>>);

pub(super) const PARTS: &[Part] = &[
    ("classes", "interactive p99 beside a bulk class that saturates the pool: at most twice the unloaded", classes),
    ("shaping", "shaped rates: within 2 % of what is configured", shaping),
    ("limits", "rate limits with every worker at it: within 1 % of what is configured", limits),
    ("spread", "requests per endpoint, however connections fall on workers: most to least at most 1.1", spread),
    ("reuse", "64 keep-alive connections: at least 99 % of requests on a connection that was there", reuse),
];

fn classes(ground: &Ground<'_>) -> Outcome<Vec<Line>> {
    let interactive = Clients { host: INTERACTIVE_HOST, ..Clients::new(8, 50) };
    let bulk = Clients { host: BULK_HOST, ..Clients::new(64, 0) };
    let mut lines = Vec::new();
    for (name, configuration) in
        [("no proxy", None), ("penstock, one class", Some(PLAIN)), ("penstock, two classes", Some(CLASSES))]
    {
        let bed = Bed::start(ground, 1, &["--slots", SLOTS, "--service-us", SERVICE_US], configuration)?;
        let alone = &bed.under(ground, &[interactive])?[0];
        let [beside, bulk] = &bed.under(ground, &[interactive, bulk])?[..] else {
            return Err("two kinds of client saw other than two windows".to_owned());
        };
        let ratio = beside.quantile(0.99) / alone.quantile(0.99);
        lines.push(Line {
            text: format!(
                "{name:<22} alone p50 {:.1} p99 {:.1} ms, beside bulk p50 {:.1} p99 {:.1} ms: ratio {ratio:.2}; bulk {:.0}/s, refused {}, failed {}",
                alone.quantile(0.5),
                alone.quantile(0.99),
                beside.quantile(0.5),
                beside.quantile(0.99),
                bulk.rate(ground.window),
                beside.refused + bulk.refused,
                alone.failed + beside.failed + bulk.failed
            ),
            figures: json!({
                "name": name, "p99_ratio": ratio, "bulk_per_second": bulk.rate(ground.window),
                "alone": figures(alone), "beside": figures(beside), "bulk": figures(bulk),
            }),
            kept: (configuration == Some(CLASSES)).then_some(ratio <= 2.0 && beside.refused + beside.failed == 0),
        });
    }
    Ok(lines)
}

fn figures(window: &Window) -> Value {
    json!({
        "answered": window.answered.len(), "refused": window.refused, "failed": window.failed,
        "p50_ms": window.quantile(0.5), "p99_ms": window.quantile(0.99), "max_ms": window.quantile(1.0),
    })
}

fn shaping(ground: &Ground<'_>) -> Outcome<Vec<Line>> {
    let bytes = Clients { answer_bytes: SHAPED_ANSWER_BYTES, ..Clients::new(16, 0) };
    let requests = Clients::new(16, 0);
    let mut lines = Vec::new();
    for (name, configuration, clients, each, due) in [
        ("bytes/s", SHAPED_BYTES, bytes, SHAPED_ANSWER_BYTES as f64, SHAPED_BYTES_A_SECOND),
        ("requests/s", SHAPED_REQUESTS, requests, 1.0, SHAPED_REQUESTS_A_SECOND),
    ] {
        let unshaped = Bed::start(ground, ORIGINS, &[], Some(PLAIN))?.under(ground, &[clients])?[0].rate(ground.window);
        let seen = &Bed::start(ground, ORIGINS, &[], Some(configuration))?.under(ground, &[clients])?[0];
        let rate = seen.rate(ground.window) * each;
        lines.push(Line {
            text: format!("{name:<22} without shaping {:.0}", unshaped * each),
            figures: json!({"name": name, "unshaped": unshaped * each}),
            kept: None,
        });
        lines.push(against(name, rate, due, 0.02, seen));
    }
    Ok(lines)
}

fn limits(ground: &Ground<'_>) -> Outcome<Vec<Line>> {
    let mut lines = Vec::new();
    for (name, kinds) in uneven(5) {
        let windows = Bed::start(ground, ORIGINS, &[], Some(LIMITED))?.under(ground, &kinds)?;
        let allowed: f64 = windows.iter().map(|window| window.rate(ground.window)).sum();
        let refused = windows.iter().map(|window| window.refused).sum();
        let failed = windows.iter().map(|window| window.failed).sum();
        lines.push(against(name, allowed, LIMIT_A_SECOND, 0.01, &Window { refused, failed, ..Window::default() }));
    }
    Ok(lines)
}

/// Traffic that falls evenly on workers, and traffic of which one connection, so one worker, has the most.
fn uneven(think_ms: u64) -> [(&'static str, Vec<Clients>); 2] {
    [
        ("even connections", vec![Clients::new(16, think_ms)]),
        ("uneven connections", vec![Clients::new(1, 0), Clients::new(15, 200)]),
    ]
}

/// A measured rate beside the configured one.
fn against(name: &str, rate: f64, due: f64, tolerance: f64, seen: &Window) -> Line {
    let off = rate / due - 1.0;
    Line {
        text: format!(
            "{name:<22} measured {rate:.1}, configured {due:.0}: {:+.2} %; refused {}, failed {}",
            100.0 * off,
            seen.refused,
            seen.failed
        ),
        figures: json!({"name": name, "measured": rate, "configured": due, "refused": seen.refused, "failed": seen.failed}),
        kept: Some(off.abs() <= tolerance && seen.failed == 0),
    }
}

fn spread(ground: &Ground<'_>) -> Outcome<Vec<Line>> {
    let mut lines = Vec::new();
    for (name, kinds) in uneven(1) {
        let bed = Bed::start(ground, ORIGINS, &[], Some(PLAIN))?;
        bed.under(ground, &kinds)?;
        let counts: Vec<u64> =
            bed.journals()?.iter().map(|journal| journal.tries.values().map(|count| u64::from(*count)).sum()).collect();
        let (most, least) = (counts.iter().max().copied().unwrap_or(0), counts.iter().min().copied().unwrap_or(0));
        let ratio = most as f64 / least as f64;
        lines.push(Line {
            text: format!("{name:<22} {counts:?}: most to least {ratio:.3}"),
            figures: json!({"name": name, "requests": counts, "ratio": ratio}),
            kept: Some(ratio <= 1.1),
        });
    }
    Ok(lines)
}

fn reuse(ground: &Ground<'_>) -> Outcome<Vec<Line>> {
    let bed = Bed::start(ground, ORIGINS, &[], Some(PLAIN))?;
    let window = &bed.under(ground, &[Clients { think: Duration::from_millis(2), ..Clients::new(64, 0) }])?[0];
    let journals = bed.journals()?;
    let connections: u64 = journals.iter().map(|journal| journal.connections).sum();
    let mut tries = HashMap::new();
    for (id, count) in journals.iter().flat_map(|journal| &journal.tries) {
        *tries.entry(*id).or_insert(0_u64) += u64::from(*count);
    }
    let requests: u64 = tries.values().sum();
    let share = 1.0 - connections as f64 / requests as f64;
    Ok(vec![Line {
        text: format!(
            "{:<22} {requests} requests on {connections} connections: {:.3} % reused; failed {}",
            "64 connections",
            100.0 * share,
            window.failed + window.refused
        ),
        figures: json!({"requests": requests, "connections": connections, "reused": share}),
        kept: Some(share >= 0.99 && window.failed + window.refused == 0),
    }])
}
