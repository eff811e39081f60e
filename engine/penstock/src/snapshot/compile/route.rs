//! Routes, compiled, and the rules that find them.

use super::{Class, Pool, PoolId, RouteBreaker, RouteQos, Timeouts, WebSockets, breaker, qos, time, websocket};
use crate::snapshot::Files;
use crate::snapshot::literal::{HostPolicy, Percent, Text, Time};
use crate::snapshot::rewrite::{Format, HeaderLine, Location, PathFormat};
use crate::snapshot::route::{Conditions, Found, HostPattern, Method, PathPattern, RouteId, Rule};
use crate::snapshot::schema::{AdaptiveDoc, Forwarded, HeadersDoc, RedirectQuery, RespondDoc, RouteDoc};
use crate::snapshot::share::Sticky;
use policy::{SelectSettings, Split};
use proto::http::{Known, Status};
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    pub name: Box<str>,
    pub action: Action,
    pub hosts: Box<[HostPattern]>,
    /// Found by the second number of [`Found`].
    pub paths: Box<[PathPattern]>,
    pub methods: Box<[Method]>,
    pub conditions: Option<Arc<Conditions>>,
    pub rewrite: Rewrite,
    pub mirror: Option<Mirror>,
    /// For a whole exchange.
    pub total: Option<Duration>,
    pub breaker: Option<RouteBreaker>,
    /// Ambiguous paths go on as they came.
    pub raw_path: bool,
    /// Calls of gRPC-Web become calls of gRPC.
    pub grpc_web: bool,
    pub qos: RouteQos,
    pub websockets: WebSockets,
    pub forwarded: Forwarded,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    Pool(Target),
    Split { targets: Box<[Target]>, split: Split, sticky: Sticky },
    Candidates(Candidates),
    Redirect(Redirect),
    Respond(Fixed),
}

/// Pools of which the best one at present is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidates {
    pub targets: Box<[Target]>,
    /// Of each, as a factor.
    pub costs: Box<[f64]>,
    pub settings: SelectSettings,
}

/// A pool and the times that hold there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub pool: PoolId,
    /// The route's own, or else the pool's.
    pub timeouts: Timeouts,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    pub status: Status,
    pub to: Location,
    pub keep_query: bool,
}

/// An answer of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fixed {
    pub status: Status,
    pub headers: Box<[HeaderRule]>,
    pub body: Box<[u8]>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rewrite {
    pub path: Option<PathFormat>,
    /// Instead of the pool's.
    pub host: Option<HostPolicy>,
    pub request: HeaderRules,
    pub response: HeaderRules,
}

/// What becomes of the fields of a head.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderRules {
    /// Names whose fields go, for good or because `add` replaces them.
    pub remove: Box<[(Known, Box<str>)]>,
    pub add: Box<[HeaderRule]>,
}

/// A field that is added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderRule {
    pub known: Known,
    pub name: Box<str>,
    pub value: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mirror {
    pub target: Target,
    pub share: Percent,
}

impl Route {
    /// The pools that its requests may go to.
    pub fn targets(&self) -> &[Target] {
        match &self.action {
            Action::Pool(target) => std::slice::from_ref(target),
            Action::Split { targets, .. } | Action::Candidates(Candidates { targets, .. }) => targets,
            Action::Redirect(_) | Action::Respond(_) => &[],
        }
    }

    /// It makes something of the path that came, which must be in normal form for that.
    pub(super) fn uses_path(&self) -> bool {
        let rules = [&self.rewrite.request.add, &self.rewrite.response.add];
        let own = match &self.action {
            Action::Redirect(redirect) => redirect.to.0.needs_path(),
            Action::Respond(fixed) => fixed.headers.iter().any(|rule| rule.value.needs_path()),
            Action::Pool(_) | Action::Split { .. } | Action::Candidates(_) => false,
        };
        own || self.rewrite.path.is_some() || rules.into_iter().flatten().any(|rule| rule.value.needs_path())
    }
}

impl Action {
    /// Its key in the configuration.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Pool(_) => "pool",
            Self::Split { .. } => "split",
            Self::Candidates(_) => "candidates",
            Self::Redirect(_) => "redirect",
            Self::Respond(_) => "respond",
        }
    }
}

impl HeaderRules {
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }
}

/// Every combination of the route's hosts, paths and methods.
pub(in crate::snapshot) fn rules_of(doc: &RouteDoc, route: RouteId) -> Vec<Rule> {
    let methods: Vec<_> =
        if doc.method.0.is_empty() { vec![None] } else { doc.method.0.iter().cloned().map(Some).collect() };
    let conditions = conditions(doc);
    let mut rules = Vec::new();
    for host in &doc.host.0 {
        for (at, path) in doc.path.0.iter().enumerate() {
            for method in &methods {
                rules.push(Rule {
                    host: host.clone(),
                    path: path.clone(),
                    method: method.clone(),
                    conditions: conditions.clone(),
                    to: Found { route, path: at as u16 },
                });
            }
        }
    }
    rules
}

fn conditions(doc: &RouteDoc) -> Option<Arc<Conditions>> {
    let conditions = Conditions {
        headers: doc.header.0.as_slice().into(),
        query: doc.query.0.as_slice().into(),
        clients: doc.client.0.as_slice().into(),
    };
    (!conditions.is_empty()).then(|| Arc::new(conditions))
}

pub(super) fn route(
    doc: &RouteDoc,
    pool_id: impl Fn(&str) -> PoolId,
    pools: &[Pool],
    classes: &[Class],
    files: &Files<'_>,
) -> Route {
    let target = |name: &str| target(doc, pool_id(name), pools);
    let action = match (&doc.redirect.to, doc.respond.status) {
        (Some(to), _) => Action::Redirect(Redirect {
            status: Status::new(doc.redirect.status).unwrap_or(Status::FOUND),
            to: to.0.clone(),
            keep_query: doc.redirect.query == RedirectQuery::Keep,
        }),
        (None, Some(status)) => Action::Respond(fixed(&doc.respond, status, files)),
        (None, None) if !doc.split.is_empty() => Action::Split {
            targets: doc.split.iter().map(|share| target(&share.0.pool)).collect(),
            split: Split::new(doc.split.iter().map(|share| (share.0.pool.as_bytes(), share.0.weight))),
            sticky: doc.sticky.0.clone(),
        },
        (None, None) if !doc.candidates.is_empty() => Action::Candidates(Candidates {
            targets: doc.candidates.iter().map(|candidate| target(&candidate.0.pool)).collect(),
            costs: doc.candidates.iter().map(|candidate| candidate.0.factor()).collect(),
            settings: select_settings(&doc.adaptive),
        }),
        (None, None) => Action::Pool(target(doc.pool.as_deref().unwrap_or_default())),
    };
    Route {
        name: doc.name.clone().unwrap_or_else(|| default_route_name(doc)).into(),
        action,
        hosts: doc.host.0.as_slice().into(),
        paths: doc.path.0.as_slice().into(),
        methods: doc.method.0.as_slice().into(),
        conditions: conditions(doc),
        rewrite: Rewrite {
            path: doc.rewrite.path.as_ref().map(|path| path.0.clone()),
            host: doc.rewrite.host.as_ref().map(|host| host.0.clone()),
            request: header_rules(&doc.request_headers),
            response: header_rules(&doc.response_headers),
        },
        mirror: doc.mirror.pool.as_deref().map(|pool| Mirror { target: target(pool), share: doc.mirror.share.0 }),
        total: doc.timeout.total.as_ref().map(time),
        breaker: breaker::route_breaker(&doc.breaker, target, files),
        raw_path: doc.raw_path,
        grpc_web: doc.grpc_web,
        qos: qos::route(doc, classes),
        websockets: websocket::websockets(&doc.websocket),
        forwarded: doc.forwarded,
    }
}

fn target(doc: &RouteDoc, pool: PoolId, pools: &[Pool]) -> Target {
    let inherited = pools[usize::from(pool.0)].timeouts;
    let or = |own: &Option<Text<Time>>, inherited| own.as_ref().map_or(inherited, time);
    let timeouts = Timeouts {
        connect: or(&doc.timeout.connect, inherited.connect),
        head: or(&doc.timeout.head, inherited.head),
        silent: or(&doc.timeout.silent, inherited.silent),
        idle: or(&doc.timeout.idle, inherited.idle),
    };
    Target { pool, timeouts }
}

fn select_settings(doc: &AdaptiveDoc) -> SelectSettings {
    SelectSettings {
        margin_percent: doc.margin.0.0.into(),
        hold: time(&doc.hold),
        ramp: time(&doc.ramp),
        explore_percent: doc.explore.0.0,
    }
}

pub(super) fn fixed(doc: &RespondDoc, status: u16, files: &Files<'_>) -> Fixed {
    let read = |path: &String| files(path).expect("`meaning` read the file");
    let body = doc.body_file.as_ref().map_or_else(|| doc.body.clone().unwrap_or_default().into_bytes(), read);
    Fixed {
        status: Status::new(status).unwrap_or(Status::OK),
        headers: doc.headers.0.iter().map(header_rule).collect(),
        body: body.into(),
    }
}

fn header_rules(doc: &HeadersDoc) -> HeaderRules {
    let named = |name: &str| (Known::from_name(name.as_bytes()), name.to_ascii_lowercase().into());
    let removed = doc.remove.0.iter().map(|name| named(&name.0));
    let replaced = doc.set.0.iter().map(|line| named(&line.name));
    HeaderRules {
        remove: removed.chain(replaced).collect(),
        add: doc.set.0.iter().chain(&doc.add.0).map(header_rule).collect(),
    }
}

fn header_rule(line: &HeaderLine) -> HeaderRule {
    let known = Known::from_name(line.name.as_bytes());
    HeaderRule { known, name: line.name.to_ascii_lowercase().into(), value: line.value.clone() }
}

/// `api.example.net/v1/*`, of the first host and path.
pub(in crate::snapshot) fn default_route_name(doc: &RouteDoc) -> String {
    let first = |texts: Option<String>| texts.unwrap_or_default();
    let host = first(doc.host.0.first().map(ToString::to_string));
    let path = first(doc.path.0.first().map(ToString::to_string));
    format!("{host}{path}")
}
