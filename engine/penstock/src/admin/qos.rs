//! What limits, classes, queues and paces tell the operator.

use serde_json::{Value, json};

use super::show::limit;
use crate::engine::Engine;
use crate::qos::{ClassCells, PoolCells};
use crate::snapshot::{ConcurrencyLimit, Pool, PoolId};
use crate::telemetry::{Summary, prometheus};

type OfClass = fn(&ClassCells) -> u64;

/// Label and value of what became of a class's requests that were not served at once.
const FATES: &[(&str, OfClass)] = &[
    ("queue-full", |of| of.full.get()),
    ("queue-too-slow", |of| of.codel.get()),
    ("queue-timeout", |of| of.deadline.get()),
    ("turn-too-late", |of| of.crowded.get()),
    ("client-left", |of| of.left.get()),
];

/// What is told of each class: name, help and value.
const CLASSES: &[(&str, &str, OfClass)] = &[
    ("requests_total", "Requests of the class.", |of| of.requests.get()),
    ("paced_total", "Requests that waited for their turn at a pace.", |of| of.paced.get()),
    ("paced_bytes_total", "Content bytes that went at a pace.", |of| of.paced_bytes.get()),
];

type OfPool = fn(&PoolCells) -> u64;

/// Name, help and value of what is told of each limited pool.
const POOLS: &[(&str, &str, OfPool)] = &[
    ("in_flight", "Requests that have a place in the pool.", |of| of.in_flight.get()),
    ("waiting", "Requests that wait for a place in the pool.", |of| of.waiting.get()),
];

fn of_class(engine: &Engine, class: usize, value: OfClass) -> u64 {
    engine.qos().cells().iter().map(|cells| value(&cells.classes[class])).sum()
}

fn of_pool(engine: &Engine, pool: usize, value: OfPool) -> u64 {
    engine.qos().cells().iter().map(|cells| value(&cells.pools[pool])).sum()
}

/// The limit of a pool as it is now: of one that is found, all workers' together.
fn limit_now(engine: &Engine, at: usize, pool: &Pool) -> Option<u64> {
    match pool.admission.concurrency {
        ConcurrencyLimit::Off => None,
        ConcurrencyLimit::Fixed(limit) => Some(limit.into()),
        ConcurrencyLimit::Auto => Some(of_pool(engine, at, |of| of.limit.get())),
    }
}

fn limited_pools(engine: &Engine) -> impl Iterator<Item = (usize, &Pool)> {
    engine.snapshot().pools.iter().enumerate().filter(|(_, pool)| pool.admission.is_limited())
}

pub(super) fn metrics(engine: &Engine, out: &mut String) {
    let snapshot = engine.snapshot();
    let classes = || snapshot.classes.iter().enumerate();
    let class_label = |name: &str| format!("class={}", prometheus::label(name));
    for (name, help, value) in CLASSES {
        let rows = classes().map(|(at, class)| (class_label(&class.name), of_class(engine, at, *value)));
        prometheus::family(out, &format!("penstock_class_{name}"), "counter", help, rows);
    }
    let fates = classes().flat_map(|(at, class)| {
        let label = class_label(&class.name);
        FATES.iter().map(move |(why, value)| (format!("{label},why=\"{why}\""), of_class(engine, at, *value)))
    });
    let help = "Requests that were turned away or left while they waited.";
    prometheus::family(out, "penstock_class_unserved_total", "counter", help, fates);
    let routes = snapshot.routes.iter().enumerate().map(|(at, route)| {
        let sum = engine.qos().cells().iter().map(|cells| cells.limited[at].get()).sum();
        (format!("route={}", prometheus::label(&route.name)), sum)
    });
    let help = "Requests that a rate limit of the route turned away.";
    prometheus::family(out, "penstock_route_limited_total", "counter", help, routes);
    let pool_label = |pool: &Pool| format!("pool={}", prometheus::label(&pool.name));
    for (name, help, value) in POOLS {
        let rows = limited_pools(engine).map(|(at, pool)| (pool_label(pool), of_pool(engine, at, *value)));
        prometheus::family(out, &format!("penstock_pool_{name}"), "gauge", help, rows);
    }
    let now = limited_pools(engine).filter_map(|(at, pool)| Some((pool_label(pool), limit_now(engine, at, pool)?)));
    let help = "Requests that the pool works on at one time, at most.";
    prometheus::family(out, "penstock_pool_limit", "gauge", help, now);
}

/// For `/status`.
pub(super) fn classes(engine: &Engine) -> Vec<Value> {
    let row = |(at, class): (usize, &crate::snapshot::Class)| {
        let mut waits = Summary::default();
        engine.qos().cells().iter().for_each(|cells| waits.add(&cells.classes[at].waits));
        let fates = FATES.iter().map(|(why, value)| ((*why).to_owned(), of_class(engine, at, *value).into()));
        json!({
            "name": class.name,
            "requests": of_class(engine, at, |of| of.requests.get()),
            "waited": waits.count,
            "wait_p50_us": waits.quantile(0.50) / 1_000,
            "wait_p99_us": waits.quantile(0.99) / 1_000,
            "unserved": fates.collect::<serde_json::Map<_, _>>(),
            "paced": of_class(engine, at, |of| of.paced.get()),
            "paced_bytes": of_class(engine, at, |of| of.paced_bytes.get()),
        })
    };
    engine.snapshot().classes.iter().enumerate().map(row).collect()
}

/// For `penstock show limits`.
pub(super) fn limits(engine: &Engine, only: Option<PoolId>) -> Vec<Value> {
    let mut rows = Vec::new();
    for (at, pool) in limited_pools(engine).filter(|(at, _)| only.is_none_or(|only| usize::from(only.0) == *at)) {
        if let Some(most) = limit_now(engine, at, pool) {
            rows.push(limit(
                "requests in a pool",
                &pool.name,
                Some(of_pool(engine, at, |of| of.in_flight.get())),
                most,
                None,
            ));
        }
        let seats = u64::from(pool.admission.queue.length_max) * engine.cpus().len() as u64;
        rows.push(limit(
            "waiting requests of a class",
            &pool.name,
            Some(of_pool(engine, at, |of| of.waiting.get())),
            seats,
            None,
        ));
    }
    if only.is_none() {
        for (at, route) in engine.snapshot().routes.iter().enumerate().filter(|(_, route)| !route.qos.limits.is_empty())
        {
            let met: u64 = engine.qos().cells().iter().map(|cells| cells.limited[at].get()).sum();
            let most = route.qos.limits.iter().map(|limit| u64::from(limit.rate.quota)).min().unwrap_or(0);
            rows.push(limit("requests of a route, a key and period", &route.name, None, most, Some(met)));
        }
    }
    rows
}
