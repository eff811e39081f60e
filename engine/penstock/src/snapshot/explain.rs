//! What would become of a request: `penstock check --explain URL`.

use super::{
    address::Bind,
    compile::{HealthProbe, Listener, ListenerProtocol, Pool, PoolId, ProbeAsk, Snapshot},
    endpoint::{Endpoint, Source},
    literal::{Percent, Time},
    route::RouteId,
};
use policy::RetryPolicy;
use serde_json::{Value, json};
use std::{fmt::Write, time::Duration};

/// A request and where it would go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub method: String,
    pub host: String,
    pub path: String,
    /// `None`: 404.
    pub route: Option<(RouteId, PoolId)>,
    lines: Vec<(&'static str, String)>,
}

/// Explains a URL: `http://host[:port]/path`, the scheme may be left out.
///
/// # Errors
/// A sentence, when it is no such URL.
pub fn explain(snapshot: &Snapshot, method: &str, url: &str) -> Result<Explanation, String> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    if scheme != "http" && scheme != "https" {
        return Err(format!("`{url}`: `{scheme}://` is not routed; write http://host/path"));
    }
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let port_at = authority.rfind(':').filter(|&colon| !authority[colon..].contains(']'));
    let (host, port) = port_at.map_or((authority, None), |colon| (&authority[..colon], Some(&authority[colon + 1..])));
    let port: Option<u16> = match port.map(str::parse) {
        None => None,
        Some(Ok(port)) => Some(port),
        Some(Err(_)) => return Err(format!("`{url}`: the port is not a number")),
    };
    if host.is_empty() {
        return Err(format!("`{url}`: there is no host; write http://host/path"));
    }
    let found = snapshot.route(host.as_bytes(), path.as_bytes(), method.as_bytes());
    let mut lines = vec![("request", format!("{method} {path}, host {host}")), ("listener", doors(snapshot, port))];
    match found {
        None => lines.push(("route", "none: answered 404".into())),
        Some((_, route)) => {
            lines.push(("route", route.name.to_string()));
            pool_lines(snapshot, route.pool, &mut lines);
            let timeouts = &route.timeouts;
            lines.push((
                "timeouts",
                format!(
                    "connect {}, head {}, idle {}",
                    time(timeouts.connect),
                    time(timeouts.head),
                    time(timeouts.idle)
                ),
            ));
            lines.push(("forwarded", serialised(&route.forwarded)));
        }
    }
    Ok(Explanation {
        method: method.into(),
        host: host.into(),
        path: path.into(),
        route: found.map(|(id, route)| (id, route.pool)),
        lines,
    })
}

impl Explanation {
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        for (name, value) in &self.lines {
            let _ = writeln!(out, "{name:<10} {}", value.replace('\n', "\n           "));
        }
        out
    }

    #[must_use]
    pub fn to_json(&self) -> Value {
        let lines = self.lines.iter().map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str())));
        json!({ "matched": self.route.is_some(), "explanation": lines.collect::<serde_json::Map<_, _>>() })
    }
}

/// The doors a request to this port can come in at.
fn doors(snapshot: &Snapshot, port: Option<u16>) -> String {
    let http = |listener: &&Listener| listener.protocol == ListenerProtocol::Http;
    let at_port = |bind: &Bind| match (bind, port) {
        (_, None) => true,
        (Bind::Any { port: bound }, Some(port)) => *bound == port,
        (Bind::Tcp(address), Some(port)) => address.port() == port,
        (Bind::Unix(_), Some(_)) => false,
    };
    let doors: Vec<_> = snapshot
        .listeners
        .iter()
        .filter(http)
        .filter_map(|listener| {
            let addresses: Vec<_> =
                listener.addresses.iter().filter(|bind| at_port(bind)).map(ToString::to_string).collect();
            (!addresses.is_empty()).then(|| format!("{} ({})", listener.name, addresses.join(", ")))
        })
        .collect();
    match (doors.is_empty(), port) {
        (false, _) => doors.join(", "),
        (true, Some(port)) => format!("none at port {port}: such a request would not reach us"),
        (true, None) => "none speaks http: such a request would not reach us".into(),
    }
}

fn pool_lines(snapshot: &Snapshot, id: PoolId, lines: &mut Vec<(&'static str, String)>) {
    let pool = &snapshot[id];
    lines.push(("pool", format!("{} ({})", pool.name, serialised(&pool.balance))));
    let found_later = |endpoint: &&Endpoint| matches!(endpoint.source, Source::Srv(_) | Source::File(_));
    let total: u64 = pool.endpoints.iter().map(|endpoint| u64::from(endpoint.weight)).sum();
    let endpoints = pool.endpoints.iter().map(|endpoint| {
        if found_later(&endpoint) {
            return format!("{}  (found when it runs)", endpoint.source);
        }
        if pool.endpoints.iter().any(|endpoint| found_later(&endpoint)) {
            return format!("{}  weight {}", endpoint.source, endpoint.weight);
        }
        let share = f64::from(endpoint.weight) / total.max(1) as f64 * 100.0;
        format!("{}  weight {} ({share:.0} %)", endpoint.source, endpoint.weight)
    });
    lines.push(("endpoints", endpoints.collect::<Vec<_>>().join("\n")));
    lines.push(("host", pool.host.to_string()));
    lines.push(("retry", retry(pool)));
    lines.extend(pool.health.as_ref().map(|probe| ("health", health(probe))));
    let breaker = &pool.breaker;
    lines.push((
        "breaker",
        if breaker.failures == 0 {
            "off".into()
        } else {
            format!(
                "{} failures in a row, open for {}, then {} trials",
                breaker.failures,
                time(breaker.open_for),
                breaker.trials
            )
        },
    ));
}

fn health(probe: &HealthProbe) -> String {
    let ask = match &probe.ask {
        ProbeAsk::Http { target, status, .. } => format!("GET {target}, {status} is good"),
        ProbeAsk::Tcp => "a connection".into(),
        ProbeAsk::Bytes { expect, .. } => format!("it says {expect:?}"),
    };
    let settings = &probe.settings;
    format!("{ask}; every {}, within {}", time(settings.interval), time(settings.timeout))
}

fn retry(pool: &Pool) -> String {
    let RetryPolicy { on, tries, .. } = pool.retry.policy;
    let named = [(on.connect, "connect"), (on.reset, "reset"), (on.timed_out, "timeout")];
    let causes = named.into_iter().filter(|(on, _)| *on).map(|(_, cause)| cause.to_owned());
    let causes: Vec<_> = causes.chain(on.statuses.iter().map(|code| code.to_string())).collect();
    if tries < 2 || causes.is_empty() {
        return "none".into();
    }
    format!("{tries} tries, on {}, budget {}", causes.join(", "), Percent(pool.retry.budget.percent))
}

fn time(duration: Duration) -> Time {
    Time(duration)
}

/// The word that the configuration has for an enumeration's value.
fn serialised(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
