//! `/show/…`: what an operator asks at three in the morning, as lists of flat objects that `penstock show` makes tables of.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::view::{self, EndpointView};
use crate::engine::Engine;
use crate::snapshot::{PoolId, Route, RouteId, Target};
use crate::telemetry::Counters;
use crate::upstream::policy_now;

/// A page: one object a row.
type Page = fn(&Engine, Option<PoolId>) -> Vec<Value>;

/// Every page, by its name.
const PAGES: &[(&str, Page)] = &[
    ("endpoints", endpoints),
    ("pools", pools),
    ("breakers", breakers),
    ("routes", routes),
    ("limits", limits),
    ("shield", |engine, _| super::shield::rows(engine)),
    ("denied", |engine, _| super::shield::denied(engine)),
    ("vips", |engine, _| super::balance::rows(engine)),
    ("websockets", |engine, _| super::websocket::rows(engine)),
    ("grpc", |engine, _| super::grpc::rows(engine)),
    ("tls", |engine, _| super::tls::rows(engine)),
    ("handshakes", |engine, _| super::tls::handshakes(engine)),
];

/// The page of a name, of one pool if `query` names one.
///
/// # Errors
/// What there is instead.
pub(super) fn show(engine: &Engine, name: &str, query: &str) -> Result<Vec<Value>, String> {
    let Some((_, page)) = PAGES.iter().find(|(known, _)| *known == name) else {
        let known: Vec<_> = PAGES.iter().map(|(name, _)| *name).collect();
        return Err(format!("there is no page `{name}`; there are: {}", known.join(", ")));
    };
    let pool = match query.strip_prefix("pool=") {
        None => None,
        Some(name) => Some(view::pool_named(engine, name)?),
    };
    engine.look();
    Ok(page(engine, pool))
}

fn endpoints_of(engine: &Engine, pool: Option<PoolId>) -> impl Iterator<Item = EndpointView<'_>> {
    let only = pool.map(|pool| &*engine.snapshot()[pool].name);
    view::endpoints(engine).filter(move |of| only.is_none_or(|only| of.pool == only))
}

fn endpoints(engine: &Engine, pool: Option<PoolId>) -> Vec<Value> {
    let row = |of: EndpointView<'_>| {
        let last = of.watched.map(|watched| watched.last());
        json!({
            "pool": of.pool,
            "endpoint": of.name,
            "state": of.state(),
            "admin": of.admin.state.text(),
            "health": of.health(),
            "breaker": of.breaker(),
            "protocol": of.spoken,
            "weight": of.weight,
            "in_flight": of.sums.in_flight,
            "requests": of.sums.requests,
            "failures": of.sums.failures,
            "errors": of.errors,
            "latency_us": of.sums.latency_nanos / 1_000,
            "since_s": last.as_ref().map(|note| now().since(note.at).as_secs()),
            "last": last.map(|note| note.text),
            "probe": of.last_probe(),
        })
    };
    endpoints_of(engine, pool).map(row).collect()
}

fn pools(engine: &Engine, only: Option<PoolId>) -> Vec<Value> {
    let row = |(id, pool): (PoolId, &crate::snapshot::Pool)| {
        let endpoints: Vec<_> = endpoints_of(engine, Some(id)).collect();
        let sum = |value: fn(&EndpointView<'_>) -> u64| endpoints.iter().map(value).sum::<u64>();
        let serving = sum(|of| of.serves().into());
        json!({
            "pool": pool.name,
            "state": if serving > 0 { "serving" } else { "nobody serves" },
            "endpoints": endpoints.len(),
            "serving": serving,
            "drained": sum(|of| matches!(of.state(), "drain" | "maint").into()),
            "down": sum(|of| (of.state() == "down").into()),
            "ejected": sum(|of| (of.state() == "ejected").into()),
            "open": sum(|of| (of.state() == "open").into()),
            "in_flight": sum(|of| of.sums.in_flight),
            "requests": sum(|of| of.sums.requests),
            "failures": sum(|of| of.sums.failures),
            "idle": sum(|of| of.sums.idle),
            "borrowed": sum(|of| of.sums.borrowed),
        })
    };
    view::pools(engine).filter(|(id, _)| only.is_none_or(|only| only == *id)).map(row).collect()
}

/// A row an endpoint, and a row a route that has one.
fn breakers(engine: &Engine, pool: Option<PoolId>) -> Vec<Value> {
    let row = |of: EndpointView<'_>| {
        let last = of.watched.map(|watched| watched.last());
        json!({
            "pool": of.pool,
            "endpoint": of.name,
            "breaker": of.breaker(),
            "workers": of.sums.workers,
            "open": of.sums.open,
            "half_open": of.sums.half_open,
            "requests": of.sums.requests,
            "failures": of.sums.failures,
            "since_s": last.as_ref().map(|note| now().since(note.at).as_secs()),
            "last": last.map(|note| note.text),
        })
    };
    let routes = if pool.is_none() { super::breakers::rows(engine) } else { Vec::new() };
    endpoints_of(engine, pool).map(row).chain(routes).collect()
}

/// A row a route and pool; one that asks no pool has a row too. Candidates show what they are chosen by.
fn routes(engine: &Engine, only: Option<PoolId>) -> Vec<Value> {
    let snapshot = engine.snapshot();
    let row = |route: &Route, does: &str, target: Option<&Target>, factors: Map<String, Value>| {
        let serving = |target: &Target| endpoints_of(engine, Some(target.pool)).filter(EndpointView::serves).count();
        let millis = |time: fn(&Target) -> Duration| target.map(|target| time(target).as_millis() as u64);
        let mut row = json!({
            "route": route.name,
            "does": does,
            "pool": target.map(|target| &*snapshot[target.pool].name),
            "serving": target.map(serving),
            "connect_ms": millis(|target| target.timeouts.connect),
            "head_ms": millis(|target| target.timeouts.head),
            "idle_ms": millis(|target| target.timeouts.idle),
        });
        if let Some(row) = row.as_object_mut() {
            row.extend(factors);
        }
        row
    };
    let rows = snapshot.routes.iter().enumerate().flat_map(|(id, route)| {
        let asked = |target: &Target| only.is_none_or(|only| only == target.pool);
        let targets = route.targets().iter().enumerate().filter(|(_, target)| asked(target));
        let factors = |at| super::selection::factors(engine, RouteId(id as u16), at);
        let own =
            (only.is_none() && route.targets().is_empty()).then(|| row(route, route.action.word(), None, Map::new()));
        let mirror = route.mirror.iter().map(|mirror| &mirror.target).filter(|target| asked(target));
        targets
            .map(|(at, target)| row(route, route.action.word(), Some(target), factors(at)))
            .chain(own)
            .chain(mirror.map(|target| row(route, "mirror", Some(target), Map::new())))
            .collect::<Vec<_>>()
    });
    rows.collect()
}

/// What is bounded, how far it is used, and how often the bound was met. A room that bounds something adds rows here.
fn limits(engine: &Engine, only: Option<PoolId>) -> Vec<Value> {
    let mut rows = Vec::new();
    if only.is_none() {
        rows.extend(connection_limits(engine));
    }
    rows.extend(super::qos::limits(engine, only));
    for (_, pool) in view::pools(engine).filter(|(id, _)| only.is_none_or(|only| only == *id)) {
        let idle = u64::from(pool.reuse.max_idle) * engine.cpus().len() as u64;
        rows.push(limit("idle connections to an endpoint", &pool.name, None, idle, None));
        rows.push(limit("tries of a request", &pool.name, None, pool.retry.policy.tries.into(), None));
    }
    rows
}

/// Connections are counted for all listeners together: with one listener they are its own.
fn connection_limits(engine: &Engine) -> impl Iterator<Item = Value> {
    let sum = |value: fn(&Counters) -> u64| engine.cells().iter().map(|cells| value(&cells.counters)).sum::<u64>();
    let listeners = &engine.snapshot().listeners;
    let alone = listeners.len() == 1;
    let used = alone.then(|| sum(|counters| counters.connections_open.get()));
    let met = alone.then(|| sum(|counters| counters.accept_pauses_total.get()));
    listeners.iter().map(move |of| limit("connections", &of.name, used, of.max_connections.into(), met))
}

pub(super) fn limit(what: &str, of: &str, used: Option<u64>, most: u64, met: Option<u64>) -> Value {
    json!({ "limit": what, "of": of, "used": used, "most": most, "met": met })
}

fn now() -> policy::Now {
    policy_now(ring::now())
}
