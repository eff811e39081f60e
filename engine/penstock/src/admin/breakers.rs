//! The breakers of routes, as operators see them.

use serde_json::{Value, json};

use crate::engine::Engine;
use crate::oversight::{Breaker, Note};
use crate::snapshot::RouteId;
use crate::telemetry::prometheus;
use crate::upstream::{BreakerOrder, RouteSums, policy_now};

/// One route that has a breaker.
struct View<'a> {
    route: &'a str,
    order: BreakerOrder,
    sums: RouteSums,
    last: Option<Note>,
}

fn all(engine: &Engine) -> impl Iterator<Item = View<'_>> {
    let routes = engine.snapshot().routes.iter().enumerate().map(|(at, route)| (RouteId(at as u16), route));
    routes.filter_map(|(id, route)| {
        let shared = engine.breakers().of(id)?;
        let last = engine.oversight().last_of_route(id);
        Some(View { route: &route.name, order: shared.order(), sums: shared.sums(), last })
    })
}

impl View<'_> {
    /// An operator's order first.
    fn state(&self) -> &'static str {
        match self.order {
            BreakerOrder::Auto => Breaker::of(self.sums.open, self.sums.half_open).text(),
            BreakerOrder::Open => "forced open",
            BreakerOrder::Closed => "forced closed",
        }
    }
}

/// For `penstock show breakers`.
pub(super) fn rows(engine: &Engine) -> Vec<Value> {
    let row = |of: View<'_>| {
        json!({
            "route": of.route,
            "breaker": of.state(),
            "workers": of.sums.workers,
            "open": of.sums.open,
            "half_open": of.sums.half_open,
            "requests": of.sums.requests,
            "failures": of.sums.failures,
            "kept_out": of.sums.kept_out,
            "since_s": of.last.as_ref().map(|note| policy_now(ring::now()).since(note.at).as_secs()),
            "last": of.last.as_ref().map(|note| &note.text),
        })
    };
    all(engine).map(row).collect()
}

/// For `/status`.
pub(super) fn status(engine: &Engine) -> Vec<Value> {
    let row = |of: View<'_>| {
        json!({
            "route": of.route,
            "breaker": of.state(),
            "requests": of.sums.requests,
            "failures": of.sums.failures,
            "kept_out": of.sums.kept_out,
        })
    };
    all(engine).map(row).collect()
}

/// Name, kind, help and value of what is told of each.
type Family = (&'static str, &'static str, &'static str, fn(&View<'_>) -> u64);

const FAMILIES: &[Family] = &[
    ("breakers_open", "gauge", "Workers whose breaker for the route is open.", |of| of.sums.open as u64),
    ("breaker_order", "gauge", "The operator's: 0 none, 1 forced open, 2 forced closed.", |of| of.order as u64),
    ("breaker_requests_total", "counter", "Requests let through that have ended.", |of| of.sums.requests),
    ("breaker_failures_total", "counter", "Of those, the ones that count against it.", |of| of.sums.failures),
    ("breaker_kept_out_total", "counter", "Requests that were not let through.", |of| of.sums.kept_out),
];

pub(super) fn metrics(engine: &Engine, out: &mut String) {
    let views: Vec<_> = all(engine).collect();
    for (name, kind, help, value) in FAMILIES.iter().filter(|_| !views.is_empty()) {
        let rows = views.iter().map(|of| (format!("route={}", prometheus::label(of.route)), value(of)));
        prometheus::family(out, &format!("penstock_route_{name}"), kind, help, rows);
    }
}
