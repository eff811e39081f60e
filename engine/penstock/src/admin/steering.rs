//! How connections and datagrams find their worker: which way, and how often each program said what.

use serde_json::{Value, json};

use crate::engine::Engine;
use crate::steer::{Further, Group};
use crate::telemetry::prometheus;

/// Groups that have a program, with what it said.
fn programs(engine: &Engine) -> Vec<(&Group, Vec<(&'static str, u64)>)> {
    engine.steering().groups().iter().filter_map(|group| Some((group, group.verdicts()?))).collect()
}

/// A row for each program.
pub(super) fn rows(engine: &Engine) -> Vec<Value> {
    let row = |(group, verdicts): (&Group, Vec<(&'static str, u64)>)| {
        let mut row = json!({ "group": group.name, "program": group.kind().map(|kind| kind.name()) });
        for (verdict, count) in verdicts.into_iter().filter(|(_, count)| *count > 0) {
            row[verdict] = count.into();
        }
        row
    };
    programs(engine).into_iter().map(row).collect()
}

pub(super) fn metrics(engine: &Engine, out: &mut String) {
    let mode = std::iter::once((format!("mode=\"{}\"", engine.steering().mode().name()), 1));
    let help = "How connections find their worker: program, hand-over, hash, or alone.";
    prometheus::family(out, "penstock_steering", "gauge", help, mode);
    if let Some(found) = engine.steering().further().and_then(Further::found) {
        let rows = found.into_iter().map(|(found, count)| (format!("found=\"{found}\""), count));
        let help = "Connections and datagrams to further addresses of listeners, by what became of them.";
        prometheus::family(out, "penstock_lookups_total", "counter", help, rows);
    }
    let programs = programs(engine);
    if programs.is_empty() {
        return;
    }
    let rows = programs.iter().flat_map(|(group, verdicts)| {
        let name = prometheus::label(group.name.as_deref().unwrap_or_default());
        verdicts.iter().map(move |(verdict, count)| (format!("group={name},verdict=\"{verdict}\""), *count))
    });
    let help = "Connections and datagrams that a steering program was asked about, by what became of them.";
    prometheus::family(out, "penstock_steering_verdicts_total", "counter", help, rows);
}
