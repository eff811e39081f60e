//! `/metrics`: everything that is counted, for Prometheus.

use super::status;
use super::view::{self, EndpointView};
use crate::engine::Engine;
use crate::snapshot::PoolId;
use crate::telemetry::prometheus;
use crate::upstream::{Health, Report};

/// Name, kind, help and value of what is told of each endpoint.
type Family = (&'static str, &'static str, &'static str, fn(&EndpointView<'_>) -> u64);

const FAMILIES: &[Family] = &[
    ("requests_total", "counter", "Tries that ended.", |of| of.sums.requests),
    ("failures_total", "counter", "Tries that count against it.", |of| of.sums.failures),
    ("errors_total", "counter", "Answers with a 5xx, and failures to answer.", |of| of.errors),
    ("in_flight", "gauge", "Tries in progress.", |of| of.sums.in_flight),
    ("breakers_open", "gauge", "Workers whose breaker is open.", |of| of.sums.open as u64),
    ("breaker_order", "gauge", "The operator's: 0 none, 1 forced open, 2 forced closed.", |of| of.admin.breaker as u64),
    ("admin_state", "gauge", "The operator's: 0 ready, 1 drain, 2 maint.", |of| of.admin.state as u64),
    ("weight", "gauge", "Its share.", |of| of.weight.into()),
    ("probes_total", "counter", "Probes sent.", |of| of.probes().map_or(0, |probes| probes.sent())),
    ("probe_failures_total", "counter", "Without a good answer.", |of| of.probes().map_or(0, |probes| probes.failed())),
    ("down", "gauge", "Whether its probes fail.", |of| u64::from(of.health == Health::Down)),
    ("ejected", "gauge", "Whether it is left out as worse than its pool.", |of| of.ejected.into()),
    ("ejections_total", "counter", "How often it was.", |of| of.watched.map_or(0, |watched| watched.ejections())),
    ("serving", "gauge", "Whether new requests may go to it.", |of| of.serves().into()),
];

pub(super) fn metrics(engine: &Engine) -> String {
    let mut out = String::with_capacity(32 << 10);
    let cells: Vec<_> = engine.cells().iter().map(|cells| &**cells).collect();
    prometheus::workers(&mut out, &cells);
    let endpoints: Vec<_> = view::endpoints(engine).collect();
    for (name, kind, help, value) in FAMILIES {
        let labels = |of: &EndpointView<'_>| {
            format!("pool={},endpoint={}", prometheus::label(of.pool), prometheus::label(of.name))
        };
        let rows = endpoints.iter().map(|of| (labels(of), value(of)));
        prometheus::family(&mut out, &format!("penstock_endpoint_{name}"), kind, help, rows);
    }
    discovery(&mut out, engine);
    transparency(&mut out, engine);
    super::qos::metrics(engine, &mut out);
    super::selection::metrics(engine, &mut out);
    super::breakers::metrics(engine, &mut out);
    super::websocket::metrics(engine, &mut out);
    super::grpc::metrics(engine, &mut out);
    super::steering::metrics(engine, &mut out);
    super::shield::metrics(engine, &mut out);
    super::samehost::metrics(engine, &mut out);
    super::balance::metrics(engine, &mut out);
    super::afxdp::metrics(engine, &mut out);
    super::reload::metrics(engine, &mut out);
    let uptime =
        std::iter::once(("version=\"".to_owned() + env!("CARGO_PKG_VERSION") + "\"", engine.uptime().as_secs()));
    prometheus::family(&mut out, "penstock_uptime_seconds", "counter", "Since the start.", uptime);
    out
}

/// Of pools that look at it.
fn transparency(out: &mut String, engine: &Engine) {
    let pools = engine.snapshot().pools.iter().enumerate();
    let rows: Vec<_> = pools
        .filter_map(|(at, pool)| {
            let short = engine.originations().of(PoolId(at as u16))?.untransparent()?;
            Some((format!("pool={}", prometheus::label(&pool.name)), short))
        })
        .collect();
    if !rows.is_empty() {
        let help = "TLS handshakes with endpoints whose certificate too few Certificate Transparency logs have promised to publish.";
        prometheus::family(out, "penstock_pool_untransparent_total", "counter", help, rows.into_iter());
    }
}

fn discovery(out: &mut String, engine: &Engine) {
    let reports = status::reports(engine);
    if reports.is_empty() {
        return;
    }
    let mut family = |name, kind, help, value: &dyn Fn(&Report) -> u64| {
        let labels = |of: &Report| {
            let pool = &engine.snapshot()[of.pool].name;
            format!("pool={},source={}", prometheus::label(pool), prometheus::label(&of.entry))
        };
        prometheus::family(out, name, kind, help, reports.iter().map(|of| (labels(of), value(of))));
    };
    family("penstock_discovery_endpoints", "gauge", "Endpoints that it stands for.", &|of| of.endpoints as u64);
    family("penstock_discovery_stale", "gauge", "1 when the last look failed: what was found before is kept.", &|of| {
        of.trouble.is_some().into()
    });
    family("penstock_discovery_failures_total", "counter", "Looks that failed.", &|of| of.failures_total);
}
