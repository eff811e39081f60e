//! What would become of a request: `penstock check --explain URL`.
//!
//! The request is written down and read by the parser that reads those of clients, and looked up in the table that
//! workers use: what is explained is what happens.

use super::{
    address::Bind,
    compile::{
        Action, Candidates, Fallback, HeaderRule, HealthProbe, Listener, ListenerProtocol, Pool, PoolId, ProbeAsk,
        Route, RouteBreaker, Snapshot, Target,
    },
    endpoint::{Endpoint, Source},
    limit::ConcurrencyLimit,
    literal::{HostPolicy, Percent, Time},
    rewrite::Facts,
    route::{Asked, Found, normal},
    share::Sticky,
};
use crate::limits;
use policy::{BreakerSettings, HedgeAfter, RetryPolicy};
use proto::h1::{HeadLimits, RequestHead};
use proto::http::Fields;
use proto::http::authority::split_port;
use serde_json::{Value, json};
use std::{fmt::Write, net::IpAddr, time::Duration};

/// A request to explain.
#[derive(Debug, Clone, Default)]
pub struct Question {
    pub method: String,
    /// `http://host[:port]/path?query`; the scheme may be left out.
    pub url: String,
    /// `Name: value`
    pub headers: Vec<String>,
    /// Where it comes from.
    pub client: Option<IpAddr>,
}

/// A request and where it would go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The request's route; `None` when there is none, or the request is refused before.
    pub route: Option<Found>,
    lines: Vec<(&'static str, String)>,
}

/// Explains what becomes of a request.
///
/// # Errors
/// A sentence, when it is no request.
pub fn explain(snapshot: &Snapshot, question: &Question) -> Result<Explanation, String> {
    let Question { method, url, headers, client } = question;
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    if scheme != "http" && scheme != "https" {
        return Err(format!("`{url}`: `{scheme}://` is not routed; write http://host/path"));
    }
    let rest = rest.split('#').next().unwrap_or_default();
    let (authority, target) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
    if authority.is_empty() {
        return Err(format!("`{url}`: there is no host; write http://host/path"));
    }
    let slash = if target.starts_with('/') { "" } else { "/" };
    let mut text = format!("{method} {slash}{target} HTTP/1.1\r\nHost: {authority}\r\n");
    headers.iter().for_each(|header| text += &format!("{header}\r\n"));
    text += "\r\n";
    let limits = HeadLimits { fields: limits::FIELDS_MAX as u8, ..HeadLimits::DEFAULT };
    let mut fields = Fields::with_limit(limits::FIELDS_MAX);
    let head = match proto::h1::parse_request(text.as_bytes(), &limits, &mut fields) {
        Ok(Some(head)) if usize::from(head.length) == text.len() => head,
        Ok(_) => return Err("that is more than one request".into()),
        Err(malformed) => return Err(format!("`{url}`: such a request is refused: {malformed:?}")),
    };
    let (host, port) = split_port(authority.as_bytes());
    let port = port.or((scheme == "https").then_some(443));
    let mut lines = vec![
        ("request", format!("{method} {}, host {}", lossy(head.path.of(text.as_bytes())), lossy(host))),
        ("listener", doors(snapshot, port.filter(|_| authority.as_bytes() != host))),
    ];
    let route = answer(snapshot, &text, &head, &fields, *client, &mut lines);
    Ok(Explanation { route, lines })
}

fn answer(
    snapshot: &Snapshot,
    text: &str,
    head: &RequestHead,
    fields: &Fields,
    client: Option<IpAddr>,
    lines: &mut Vec<(&'static str, String)>,
) -> Option<Found> {
    let bytes = text.as_bytes();
    let sent = head.path.of(bytes);
    let mut path = Vec::new();
    let ambiguous = normal::normalise(sent, &mut path) && snapshot.table.tells_paths_apart;
    if !snapshot.table.tells_paths_apart {
        path = sent.to_vec();
    }
    if path != sent {
        lines.push(("path", format!("{} in normal form", lossy(&path))));
    }
    let asked = Asked {
        host: split_port(head.authority.of(bytes)).0,
        path: &path,
        query: head.query.of(bytes),
        method: head.method_text.of(bytes),
        client,
        fields,
        bytes,
    };
    if snapshot.table.asks_client && client.is_none() {
        lines.push(("client", "not given (--client): routes for networks are passed over".into()));
    }
    let Some((found, route)) = snapshot.route(&asked) else {
        lines.push(("route", "none: answered 404".into()));
        return None;
    };
    lines.push(("route", route.name.to_string()));
    lines.push(("why", why(route, found, &asked)));
    if ambiguous && !route.raw_path {
        lines.push(("answer", "400: the path is ambiguous, and the route has no raw_path".into()));
        return Some(found);
    }
    let client = client.map_or_else(|| "unknown".to_owned(), |ip| ip.to_string());
    let facts = Facts {
        client: client.as_bytes(),
        host: asked.host,
        path: asked.path,
        query: asked.query,
        method: asked.method,
        pattern: &route.paths[usize::from(found.path)],
    };
    route_lines(snapshot, route, &facts, lines);
    Some(found)
}

/// What made the route match.
fn why(route: &Route, found: Found, asked: &Asked<'_>) -> String {
    let host = lossy(asked.host).to_ascii_lowercase();
    let host = route.hosts.iter().filter(|pattern| pattern.takes(host.trim_end_matches('.'))).max();
    let pattern = &route.paths[usize::from(found.path)];
    let mut reasons = vec![
        format!("host {}", host.map_or_else(String::new, ToString::to_string)),
        format!("path {pattern}"),
        if route.methods.is_empty() { "any method".into() } else { format!("method {}", lossy(asked.method)) },
    ];
    for name in pattern.capture_names() {
        reasons.push(format!("{{{name}}} is `{}`", lossy(pattern.capture(name, asked.path))));
    }
    if let Some(conditions) = &route.conditions {
        reasons.extend(conditions.headers.iter().map(|condition| format!("header {condition}")));
        reasons.extend(conditions.query.iter().map(|condition| format!("query {condition}")));
        let networks: Vec<_> = conditions.clients.iter().map(ToString::to_string).collect();
        reasons.extend((!networks.is_empty()).then(|| format!("client in {}", networks.join(", "))));
    }
    reasons.join(", ")
}

/// What becomes of the request on this route.
fn route_lines(snapshot: &Snapshot, route: &Route, facts: &Facts<'_>, lines: &mut Vec<(&'static str, String)>) {
    match &route.action {
        Action::Redirect(redirect) => {
            let mut to = Vec::new();
            redirect.to.write(facts, redirect.keep_query, &mut to);
            lines.push((
                "answer",
                format!("{} {}, to {}", redirect.status.code(), redirect.status.reason(), lossy(&to)),
            ));
        }
        Action::Respond(fixed) => {
            lines.push((
                "answer",
                format!("{} {}, {} bytes", fixed.status.code(), fixed.status.reason(), fixed.body.len()),
            ));
            lines.extend(added(&fixed.headers, facts).map(|header| ("answer", header)));
        }
        Action::Pool(target) => target_lines(snapshot, route, target, facts, lines),
        Action::Split { targets, split, sticky } => {
            let key = matches!(sticky, Sticky::Client).then(|| policy::split::key_of(facts.client));
            let part = key.filter(|_| facts.client != b"unknown").and_then(|key| split.pick(key));
            let names: Vec<_> = targets.iter().map(|target| &*snapshot[target.pool].name).collect();
            let by = format!("{}, by {sticky}", names.join(" | "));
            lines.push(("split", part.map_or_else(|| by.clone(), |part| format!("{by}: {}", names[part]))));
            for target in targets.iter().enumerate().filter(|(at, _)| part.is_none_or(|part| part == *at)) {
                target_lines(snapshot, route, target.1, facts, lines);
            }
        }
        Action::Candidates(candidates) => {
            candidate_lines(snapshot, candidates, lines);
            for target in &candidates.targets {
                target_lines(snapshot, route, target, facts, lines);
            }
        }
    }
    lines.extend(added(&route.rewrite.response.add, facts).map(|header| ("response", header)));
    lines.extend(route.rewrite.response.remove.iter().map(|(_, name)| ("response", format!("without {name}"))));
}

/// What stands in for a pool.
fn fallback_line(snapshot: &Snapshot, target: &Target) -> Option<String> {
    let fallback = snapshot[target.pool].fallback.as_ref()?;
    Some(format!("if all are out: {}", stand_in(snapshot, fallback)))
}

fn stand_in(snapshot: &Snapshot, fallback: &Fallback) -> String {
    match fallback {
        Fallback::Pool(other) => format!("pool {}", snapshot[other.pool].name),
        Fallback::Answer(fixed) => format!("{} {}", fixed.status.code(), fixed.status.reason()),
    }
}

/// How candidates are chosen from, and what it would take for each of the others to be chosen.
fn candidate_lines(snapshot: &Snapshot, candidates: &Candidates, lines: &mut Vec<(&'static str, String)>) {
    let Candidates { targets, costs, settings } = candidates;
    let first = (0..costs.len()).min_by(|a, b| costs[*a].total_cmp(&costs[*b])).unwrap_or(0);
    let name = |at: usize| &*snapshot[targets[at].pool].name;
    let margin = 1.0 + f64::from(settings.margin_percent) / 100.0;
    let told = (0..targets.len()).map(|at| {
        let own = format!("{}  cost {}, {}", name(at), costs[at], places(&snapshot[targets[at].pool]));
        if at == first {
            return format!("{own}: the choice while all fare alike");
        }
        let factor = costs[at] / costs[first] * margin;
        let full = "or at once, for what is too much, when that is full";
        format!("{own}: the choice once it is {factor:.2} times faster than {}, {full}", name(first))
    });
    lines.push(("candidates", told.collect::<Vec<_>>().join("\n")));
    lines.push((
        "adaptive",
        format!(
            "better by {}% for {}, full share after {}, {}% to learn; left at once when nobody is ready",
            settings.margin_percent,
            time(settings.hold),
            time(settings.ramp),
            settings.explore_percent
        ),
    ));
    lines.push(("score", "cost × (latency + failures) × waiting ÷ health; now: `penstock show routes`".into()));
}

/// How many requests a pool takes at a time.
fn places(pool: &Pool) -> String {
    match (pool.admission.concurrency, pool.division.requests_max) {
        (ConcurrencyLimit::Fixed(limit), _) => format!("{limit} at a time"),
        (_, Some(each)) => format!("{each} at a time and endpoint"),
        (ConcurrencyLimit::Auto, None) => "as many at a time as it bears".into(),
        (ConcurrencyLimit::Off, None) => "no limit".into(),
    }
}

fn target_lines(
    snapshot: &Snapshot,
    route: &Route,
    target: &Target,
    facts: &Facts<'_>,
    lines: &mut Vec<(&'static str, String)>,
) {
    if let Some(path) = &route.rewrite.path {
        let mut rewritten = Vec::new();
        path.write(facts, &mut rewritten);
        lines.push(("rewrite", format!("path {}", lossy(&rewritten))));
    }
    lines.extend(added(&route.rewrite.request.add, facts).map(|header| ("rewrite", header)));
    lines.extend(route.rewrite.request.remove.iter().map(|(_, name)| ("rewrite", format!("without {name}"))));
    pool_lines(snapshot, target.pool, route.rewrite.host.as_ref(), lines);
    lines.extend(fallback_line(snapshot, target).map(|line| ("fallback", line)));
    let timeouts = &target.timeouts;
    let mut times =
        format!("connect {}, head {}, idle {}", time(timeouts.connect), time(timeouts.head), time(timeouts.idle));
    if let Some(total) = route.total {
        let _ = write!(times, ", total {}", time(total));
    }
    lines.extend(route.breaker.as_ref().map(|of| ("breaker", route_breaker(snapshot, of))));
    lines.push(("timeouts", times));
    lines.push(("forwarded", serialised(&route.forwarded)));
    if let Some(mirror) = &route.mirror {
        lines.push(("mirror", format!("{} of the requests to {}", mirror.share, snapshot[mirror.target.pool].name)));
    }
}

fn added(rules: &[HeaderRule], facts: &Facts<'_>) -> impl Iterator<Item = String> {
    rules.iter().map(|rule| {
        let mut value = Vec::new();
        rule.value.write(facts, &mut value);
        format!("{}: {}", rule.name, lossy(&value))
    })
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
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
        let mut explanation = serde_json::Map::new();
        for (name, value) in &self.lines {
            // What is said several times is one text of several lines.
            let entry = explanation.entry(*name).or_insert_with(|| Value::from(""));
            let before = entry.as_str().unwrap_or_default();
            *entry = if before.is_empty() { value.as_str().into() } else { format!("{before}\n{value}").into() };
        }
        json!({ "matched": self.route.is_some(), "explanation": explanation })
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

fn pool_lines(snapshot: &Snapshot, id: PoolId, host: Option<&HostPolicy>, lines: &mut Vec<(&'static str, String)>) {
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
    lines.push(("host", host.unwrap_or(&pool.host).to_string()));
    lines.push(("retry", retry(pool)));
    lines.extend(pool.health.as_ref().map(|probe| ("health", health(probe))));
    lines.push(("breaker", breaker(&pool.breaker)));
}

fn breaker(settings: &BreakerSettings) -> String {
    let BreakerSettings { failures, rate, slow, open_for, trials, .. } = settings;
    let causes: Vec<String> = [
        (*failures > 0).then(|| format!("{failures} failures in a row")),
        rate.map(|rate| format!("{} of failures", Percent(rate.percent))),
        slow.map(|slow| format!("{} slower than {}", Percent(slow.percent), time(slow.slower_than))),
    ]
    .into_iter()
    .flatten()
    .collect();
    if causes.is_empty() {
        return "off".into();
    }
    format!("{}, open for {}, then {trials} trials", causes.join(" or "), time(*open_for))
}

/// The breaker of a route, and what serves while it is open.
fn route_breaker(snapshot: &Snapshot, of: &RouteBreaker) -> String {
    let meanwhile = of.fallback.as_ref().map_or_else(|| "refused".into(), |fallback| stand_in(snapshot, fallback));
    format!("of the route: {}; meanwhile: {meanwhile}", breaker(&of.settings))
}

fn health(probe: &HealthProbe) -> String {
    let ask = match &probe.ask {
        ProbeAsk::Http { target, status, .. } => format!("GET {target}, {status} is good"),
        ProbeAsk::Grpc { service, .. } if service.is_empty() => "gRPC health, SERVING is good".into(),
        ProbeAsk::Grpc { service, .. } => format!("gRPC health of {service}, SERVING is good"),
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
    let hedge = pool.hedge.map_or_else(String::new, |hedge| match hedge.after {
        HedgeAfter::Permille(permille) => {
            format!("; a second copy after {} of answers", Percent((permille / 10) as u8))
        }
        HedgeAfter::Fixed(after) => format!("; a second copy after {}", time(after)),
    });
    format!("{tries} tries, on {}, budget {}{hedge}", causes.join(", "), Percent(pool.retry.budget.percent))
}

fn time(duration: Duration) -> Time {
    Time(duration)
}

/// The word that the configuration has for an enumeration's value.
fn serialised(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
