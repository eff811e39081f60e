//! What is told of calls of gRPC, by method.

use std::collections::BTreeMap;

use proto::grpc::code_text;
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::telemetry::prometheus::{self, Scale};
use crate::telemetry::{CODES, MethodCells, Summary};

/// Upper edges of the histogram of latencies, in nanoseconds: from a call that costs nothing to a stream.
const LATENCIES: Scale<'_> = Scale {
    edges: &[
        500_000,
        1_000_000,
        2_500_000,
        5_000_000,
        10_000_000,
        25_000_000,
        50_000_000,
        100_000_000,
        250_000_000,
        1_000_000_000,
        10_000_000_000,
        60_000_000_000,
    ],
    unit: 1e9,
};

/// A method, and what all workers tell of it.
#[derive(Default)]
struct Method {
    codes: [u64; CODES],
    latency: Summary,
}

/// In the order of their names.
fn all(engine: &Engine) -> BTreeMap<&str, Method> {
    let mut methods = BTreeMap::<_, Method>::new();
    for cells in engine.cells().iter().flat_map(|cells| cells.calls.methods()) {
        methods.entry(&*cells.name).or_default().add(cells);
    }
    methods
}

impl Method {
    fn add(&mut self, cells: &MethodCells) {
        for (code, count) in (0..).zip(&mut self.codes) {
            *count += cells.ended(code);
        }
        self.latency.add(&cells.latency);
    }

    /// Those codes that calls have ended with.
    fn told(&self) -> impl Iterator<Item = (&'static str, u64)> + Clone {
        let codes = (0..).zip(self.codes).filter(|(_, count)| *count > 0);
        codes.map(|(code, count)| (code_text(code), count))
    }
}

/// A row a method that has been called.
pub(super) fn rows(engine: &Engine) -> Vec<Value> {
    let row = |(name, method): (&str, Method)| {
        let failed = method.told().filter(|(code, _)| *code != "OK");
        json!({
            "method": name,
            "calls": method.codes.iter().sum::<u64>(),
            "failed": failed.clone().map(|(_, count)| count).sum::<u64>(),
            "p50_us": method.latency.quantile(0.5) / 1_000,
            "p99_us": method.latency.quantile(0.99) / 1_000,
            "failures": failed.map(|(code, count)| format!("{code} {count}")).collect::<Vec<_>>().join(", "),
        })
    };
    all(engine).into_iter().map(row).collect()
}

pub(super) fn metrics(engine: &Engine, out: &mut String) {
    let methods = all(engine);
    if methods.is_empty() {
        return;
    }
    let label = |name: &str| format!("method={}", prometheus::label(name));
    let calls = methods.iter().flat_map(|(name, method)| {
        method.told().map(move |(code, count)| (format!("{},code=\"{code}\"", label(name)), count))
    });
    prometheus::family(out, "penstock_grpc_calls_total", "counter", "Calls of gRPC, by how they ended.", calls);
    let series = methods.into_iter().map(|(name, method)| (label(name), method.latency));
    let help = "From the head of a call to the end of its answer.";
    prometheus::histogram(out, "penstock_grpc_call_seconds", help, &LATENCIES, series);
}
