//! `/status`: the engine in one JSON document.

use serde_json::{Value, json};

use super::view::{self, EndpointView};
use crate::engine::Engine;
use crate::snapshot::PoolId;
use crate::steer::Further;
use crate::telemetry::{Summary, WorkerCells};
use crate::upstream::{Discovery, Report};

pub(super) fn status(engine: &Engine) -> Value {
    let cells = engine.cells();
    let sum = |value: fn(&WorkerCells) -> u64| cells.iter().map(|cells| value(cells)).sum::<u64>();
    let mut latency = Summary::default();
    cells.iter().for_each(|cells| latency.add(&cells.latency));
    let reused = sum(|cells| cells.counters.upstream_reused_total.get());
    let connects = sum(|cells| cells.counters.upstream_connects_total.get());
    let connecting = sum(|cells| cells.counters.upstream_connect_nanoseconds_total.get());
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": engine.uptime().as_secs(),
        "driver": engine.granted().driver,
        "features": engine.granted().features,
        "goes_without": goes_without(engine),
        "steering": engine.steering().mode().name(),
        "draining": engine.is_draining(),
        "configuration": super::reload::status(engine),
        "connections": sum(|cells| cells.counters.connections_open.get()),
        "requests": sum(|cells| cells.counters.requests_total.get()),
        "requests_open": sum(|cells| cells.counters.requests_open.get()),
        "errors": sum(|cells| cells.counters.responses_server_error_total.get()),
        "broken_responses": sum(|cells| cells.counters.responses_broken_total.get()),
        "malformed_requests": sum(|cells| cells.counters.requests_malformed_total.get()),
        "retries": sum(|cells| cells.counters.retries_total.get()),
        "reuse_percent": (reused * 100).checked_div(reused + connects).unwrap_or(0),
        "upstream": {
            "reused": reused,
            "connects": connects,
            "connect_mean_us": (connecting / 1_000).checked_div(connects).unwrap_or(0),
            "discarded": sum(|cells| cells.counters.upstream_discarded_total.get()),
        },
        "latency": {
            "p50_us": latency.quantile(0.50) / 1_000,
            "p99_us": latency.quantile(0.99) / 1_000,
            "p999_us": latency.quantile(0.999) / 1_000,
        },
        "cores": cores(engine),
        "listeners": listeners(engine),
        "programs": super::steering::rows(engine),
        "interfaces": interfaces(engine),
        "shield": super::shield::interfaces(engine),
        "same_host": super::samehost::rows(engine),
        "balance": super::balance::interfaces(engine),
        "af_xdp": super::afxdp::interfaces(engine),
        "classes": super::qos::classes(engine),
        "routes": super::selection::routes(engine),
        "breakers": super::breakers::status(engine),
        "pools": pools(engine),
    })
}

/// What was wanted and not granted.
fn goes_without(engine: &Engine) -> Vec<String> {
    let steering = engine.steering().refused().map(|why| format!("eBPF steering ({why})"));
    let balance = engine.balance().refused().iter().cloned();
    let shield = engine.shield().refused().iter().map(|why| format!("XDP shield ({why})"));
    let further = engine.steering().further().map(Further::missing).unwrap_or_default();
    let afxdp = engine.afxdp().refused().map(|why| format!("AF_XDP ({why})"));
    let same_host = engine.same_host().refused().map(|why| format!("same-host shortcut ({why})"));
    engine
        .granted()
        .missing
        .iter()
        .cloned()
        .chain(steering)
        .chain(further)
        .chain(shield)
        .chain(balance)
        .chain(same_host)
        .chain(afxdp)
        .collect()
}

/// Which programs of XDP stand where, the first to see a packet first.
fn interfaces(engine: &Engine) -> Vec<Value> {
    let rows = engine.interfaces().rows().into_iter();
    rows.map(|(name, mode, programs)| json!({ "interface": name, "mode": mode, "programs": programs })).collect()
}

fn cores(engine: &Engine) -> Vec<Value> {
    engine
        .cpus()
        .iter()
        .zip(engine.cells())
        .map(|(cpu, cells)| {
            let counters = &cells.counters;
            json!({
                "cpu": cpu,
                "connections": counters.connections_open.get(),
                "requests_open": counters.requests_open.get(),
                "requests": counters.requests_total.get(),
                "tunnels": counters.tunnels_open.get(),
                "upstream_idle": counters.upstream_idle.get(),
                "enters": counters.ring_enters_total.get(),
                "sends": counters.ring_sends_total.get(),
                "buffers_bytes": counters.buffers_lent_bytes.get(),
                "cpu_ms": counters.cpu_nanoseconds_total.get() / 1_000_000,
                "panics": counters.panics_total.get(),
            })
        })
        .collect()
}

fn listeners(engine: &Engine) -> Vec<Value> {
    let listener = |listener: &crate::snapshot::Listener| {
        let addresses: Vec<String> = listener.addresses.iter().map(ToString::to_string).collect();
        json!({ "name": listener.name, "addresses": addresses })
    };
    engine.snapshot().listeners.iter().map(listener).collect()
}

fn pools(engine: &Engine) -> Vec<Value> {
    let reports = reports(engine);
    let named = |(id, pool): (PoolId, &crate::snapshot::Pool)| {
        let endpoints: Vec<Value> =
            view::endpoints(engine).filter(|of| of.pool == &*pool.name).map(|of| endpoint(&of)).collect();
        let mut shown = json!({ "name": pool.name, "endpoints": endpoints });
        let sources: Vec<Value> = reports.iter().filter(|report| report.pool == id).map(source).collect();
        if !sources.is_empty() {
            shown["sources"] = sources.into();
        }
        shown
    };
    (0..).map(PoolId).zip(&engine.snapshot().pools).map(named).collect()
}

/// How the entries fare that stand for something else.
pub(super) fn reports(engine: &Engine) -> Vec<Report> {
    engine.discovery().map(Discovery::reports).unwrap_or_default()
}

fn source(report: &Report) -> Value {
    let state = match (&report.trouble, report.endpoints) {
        (None, _) => "fresh",
        (Some(_), 0) => "nothing found",
        (Some(_), _) => "stale",
    };
    json!({
        "source": &*report.entry,
        "state": state,
        "endpoints": report.endpoints,
        "failures": report.failures_total,
        "trouble": report.trouble,
    })
}

fn endpoint(of: &EndpointView<'_>) -> Value {
    json!({
        "address": of.name,
        "state": of.state(),
        "admin": of.admin.state.text(),
        "health": of.health(),
        "breaker": of.breaker(),
        "protocol": of.spoken,
        "weight": of.weight,
        "in_flight": of.sums.in_flight,
        "ewma_us": of.sums.latency_nanos / 1_000,
        "requests": of.sums.requests,
        "failures": of.sums.failures,
        "probes": of.probes().map_or(0, |probes| probes.sent()),
        "probe": of.last_probe(),
    })
}
