//! The five measurements. Each starts what it needs, measures, and says what it saw beside what was promised.

use serde_json::{Value, json};
use xtask::Outcome;

use super::bed::{Bed, Clients, Ground, Window};
use super::configuration::{
    BULK_HOST, CLASSES, INTERACTIVE_HOST, LIMIT_A_SECOND, LIMITED, PLAIN, SERVICE_US, SHAPED_BYTES,
    SHAPED_BYTES_A_SECOND, SHAPED_REQUESTS, SHAPED_REQUESTS_A_SECOND, SLOTS,
};
use crate::echo::fleet::Journal;

/// Origins behind a pool that is shared out.
const ORIGINS: u8 = 5;
/// Large enough that heads are no part worth counting, small enough that the window's edges are none either.
const SHAPED_ANSWER_BYTES: usize = 16 << 10;

/// A line of the report.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) text: String,
    pub(super) figures: Value,
    pub(super) verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Kept,
    Broken,
    /// Stands beside another line, and promises nothing.
    Beside,
    Unmeasured,
}

impl Verdict {
    fn of(kept: bool) -> Self {
        if kept { Self::Kept } else { Self::Broken }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Broken => "NOT KEPT",
            Self::Beside => "",
            Self::Unmeasured => "not measured",
        }
    }
}

impl Line {
    /// What stands in place of a measurement that could not be made.
    pub(super) fn unmeasured(name: &str, why: &str) -> Self {
        Self {
            text: format!("{name:<22} {why}"),
            figures: json!({"name": name, "why": why}),
            verdict: Verdict::Unmeasured,
        }
    }
}

/// A measurement by its name.
pub(super) type Part = (&'static str, &'static str, fn(&Ground<'_>) -> Vec<Line>);

pub(super) const PARTS: &[Part] = &[
    ("classes", "interactive p99 beside a bulk class that saturates the pool: at most twice the unloaded", classes),
    ("shaping", "shaped rates: within 2 % of what is configured", shaping),
    ("limits", "rate limits with every worker at it: within 1 % of what is configured", limits),
    ("spread", "requests per endpoint, however connections fall on workers: most to least at most 1.1", spread),
    ("reuse", "64 keep-alive connections: at least 99 % of requests on a connection that was there", reuse),
];

/// A line, or what kept it from being measured: the other lines are worth having all the same.
fn measured(name: &str, line: Outcome<Line>) -> Line {
    line.unwrap_or_else(|why| Line::unmeasured(name, &why))
}

fn classes(ground: &Ground<'_>) -> Vec<Line> {
    [("no proxy", None), ("penstock, one class", Some(PLAIN)), ("penstock, two classes", Some(CLASSES))]
        .map(|(name, configuration)| measured(name, beside_bulk(ground, name, configuration)))
        .to_vec()
}

fn beside_bulk(ground: &Ground<'_>, name: &str, configuration: Option<&str>) -> Outcome<Line> {
    let interactive = Clients { host: INTERACTIVE_HOST, ..Clients::new(8, 50) };
    let bulk = Clients { host: BULK_HOST, ..Clients::new(64, 0) };
    let bed = Bed::start(ground, 1, &["--slots", SLOTS, "--service-us", SERVICE_US], configuration)?;
    let alone = &bed.under(ground, &[interactive])?[0];
    let [beside, bulk] = &bed.under(ground, &[interactive, bulk])?[..] else {
        return Err("two kinds of client saw other than two windows".to_owned());
    };
    let ratio = beside.quantile(0.99) / alone.quantile(0.99);
    let kept = ratio <= 2.0 && beside.refused + beside.failed == 0;
    Ok(Line {
        text: format!(
            "{name:<22} alone p50 {:.1} p99 {:.1} ms, beside bulk p50 {:.1} p99 {:.1} ms: ratio {ratio:.2}, refused {}; bulk {:.0}/s, refused {}; failed {}",
            alone.quantile(0.5),
            alone.quantile(0.99),
            beside.quantile(0.5),
            beside.quantile(0.99),
            beside.refused,
            bulk.rate(ground.window),
            bulk.refused,
            alone.failed + beside.failed + bulk.failed
        ),
        figures: json!({
            "name": name, "p99_ratio": ratio, "bulk_per_second": bulk.rate(ground.window),
            "alone": figures(alone), "beside": figures(beside), "bulk": figures(bulk),
        }),
        verdict: if configuration == Some(CLASSES) { Verdict::of(kept) } else { Verdict::Beside },
    })
}

fn figures(window: &Window) -> Value {
    json!({
        "answered": window.answered.len(), "refused": window.refused, "failed": window.failed,
        "p50_ms": window.quantile(0.5), "p99_ms": window.quantile(0.99), "max_ms": window.quantile(1.0),
    })
}

fn shaping(ground: &Ground<'_>) -> Vec<Line> {
    let bytes = Clients { answer_bytes: SHAPED_ANSWER_BYTES, ..Clients::new(16, 0) };
    let requests = Clients::new(16, 0);
    let mut lines = Vec::new();
    for (name, configuration, clients, each, due) in [
        ("bytes/s", SHAPED_BYTES, bytes, SHAPED_ANSWER_BYTES as f64, SHAPED_BYTES_A_SECOND),
        ("requests/s", SHAPED_REQUESTS, requests, 1.0, SHAPED_REQUESTS_A_SECOND),
    ] {
        let seen = |configuration| -> Outcome<Window> {
            Ok(Bed::start(ground, ORIGINS, &[], configuration)?.under(ground, &[clients])?.remove(0))
        };
        for (beside, configuration) in [("no proxy", None), ("penstock, unshaped", Some(PLAIN))] {
            let line = seen(configuration).map(|seen| {
                let rate = seen.rate(ground.window) * each;
                Line {
                    text: format!("{beside:<22} {rate:.0} {name}"),
                    figures: json!({"name": beside, "measured": rate, "unit": name}),
                    verdict: Verdict::Beside,
                }
            });
            lines.push(measured(beside, line));
        }
        let line =
            seen(Some(configuration)).map(|seen| against(name, seen.rate(ground.window) * each, due, 0.02, &seen));
        lines.push(measured(name, line));
    }
    lines
}

fn limits(ground: &Ground<'_>) -> Vec<Line> {
    uneven(1, 5).map(|(name, kinds)| measured(name, limited(ground, name, &kinds))).to_vec()
}

fn limited(ground: &Ground<'_>, name: &str, kinds: &[Clients]) -> Outcome<Line> {
    let windows = Bed::start(ground, ORIGINS, &[], Some(LIMITED))?.under(ground, kinds)?;
    let allowed: f64 = windows.iter().map(|window| window.rate(ground.window)).sum();
    let refused = windows.iter().map(|window| window.refused).sum();
    let failed = windows.iter().map(|window| window.failed).sum();
    Ok(against(name, allowed, LIMIT_A_SECOND, 0.01, &Window { refused, failed, ..Window::default() }))
}

/// Traffic that falls evenly on workers, and traffic of which a few connections, and so perhaps one worker, have the most.
fn uneven(busy: usize, think_ms: u64) -> [(&'static str, Vec<Clients>); 2] {
    [
        ("even connections", vec![Clients::new(16, think_ms)]),
        ("uneven connections", vec![Clients::new(busy, 0), Clients::new(15, 200)]),
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
        verdict: Verdict::of(off.abs() <= tolerance && seen.failed == 0),
    }
}

fn spread(ground: &Ground<'_>) -> Vec<Line> {
    uneven(5, 1).map(|(name, kinds)| measured(name, spread_over(ground, name, &kinds))).to_vec()
}

fn spread_over(ground: &Ground<'_>, name: &str, kinds: &[Clients]) -> Outcome<Line> {
    let bed = Bed::start(ground, ORIGINS, &[], Some(PLAIN))?;
    bed.under(ground, kinds)?;
    let counts: Vec<u64> = bed.journals()?.iter().map(Journal::requests).collect();
    let (most, least) = (counts.iter().max().copied().unwrap_or(0), counts.iter().min().copied().unwrap_or(0));
    let ratio = most as f64 / least as f64;
    Ok(Line {
        text: format!("{name:<22} {counts:?}: most to least {ratio:.3}"),
        figures: json!({"name": name, "requests": counts, "ratio": ratio}),
        verdict: Verdict::of(ratio <= 1.1),
    })
}

fn reuse(ground: &Ground<'_>) -> Vec<Line> {
    vec![measured("64 connections", reused(ground))]
}

fn reused(ground: &Ground<'_>) -> Outcome<Line> {
    let bed = Bed::start(ground, ORIGINS, &[], Some(PLAIN))?;
    let window = &bed.under(ground, &[Clients::new(64, 2)])?[0];
    let journals = bed.journals()?;
    let connections: u64 = journals.iter().map(|journal| journal.connections).sum();
    let requests: u64 = journals.iter().map(Journal::requests).sum();
    let share = 1.0 - connections as f64 / requests as f64;
    let failed = window.failed + window.refused;
    Ok(Line {
        text: format!(
            "{:<22} {requests} requests on {connections} connections: {:.3} % reused; failed {failed}",
            "64 connections",
            100.0 * share
        ),
        figures: json!({"requests": requests, "connections": connections, "reused": share, "failed": failed}),
        verdict: Verdict::of(share >= 0.99 && failed == 0),
    })
}
