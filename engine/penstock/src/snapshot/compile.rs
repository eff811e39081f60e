//! The snapshot: what workers read, with indexes for names and numbers for texts.

use super::{
    address::{Bind, Cidr, Endpoint},
    literal::{Cores, HostPolicy, Listed, ServerPolicy, Spin, Text, Time, ViaName},
    route::{RouteId, RouteTable, Rule},
    schema::{
        AccessFormat, Balance, Document, Driver, Forwarded, ListenDoc, PoolDoc, Protocol, ProxyProtocol, RetryCause,
        RouteDoc,
    },
};
use crate::{limits, snapshot::Address};
use policy::{BreakerSettings, RetryBudgetSettings};
use std::{net::IpAddr, ops::Index, path::PathBuf, time::Duration};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u16);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolId(pub u16);

/// A configuration that passed every check. It never changes: workers share it behind an `Arc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub engine: EngineSettings,
    pub access_log: Option<AccessLog>,
    pub listeners: Box<[Listener]>,
    pub pools: Box<[Pool]>,
    pub routes: Box<[Route]>,
    pub table: RouteTable,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineSettings {
    pub cores: Cores,
    pub driver: Driver,
    pub admin: Box<[Address]>,
    pub drain_timeout: Duration,
    pub spin: Spin,
    pub via: ViaName,
    pub server: ServerPolicy,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// `None`: standard output.
    pub path: Option<PathBuf>,
    pub format: AccessFormat,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub name: Box<str>,
    pub addresses: Box<[Bind]>,
    pub protocol: ListenerProtocol,
    pub max_connections: u32,
    pub backlog: u32,
    /// Peers whose connections begin with a PROXY header.
    pub proxy_protocol_from: Networks,
    /// Peers whose forwarding fields are kept.
    pub trusted: Networks,
    pub head_timeout: Duration,
    pub keep_alive_timeout: Duration,
    pub body_timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerProtocol {
    /// Each request is routed.
    Http,
    /// Bytes go to this pool.
    Tcp { pool: PoolId },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    pub name: Box<str>,
    pub endpoints: Box<[Endpoint]>,
    pub balance: Balance,
    pub host: HostPolicy,
    pub breaker: BreakerSettings,
    pub reuse: Reuse,
    pub retry: Retry,
    pub timeouts: Timeouts,
    pub proxy_protocol: ProxyProtocol,
    pub resolve_every: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reuse {
    pub idle: Duration,
    /// A worker, an endpoint. Zero: none are kept.
    pub max_idle: u32,
    pub max_requests: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    pub on_connect: bool,
    pub on_reset: bool,
    /// The first one included: at least 1, at most [`limits::TRIES_MAX`].
    pub tries: u8,
    /// For the whole process: a worker takes its share of `per_second_min`.
    pub budget: RetryBudgetSettings,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    pub head: Duration,
    pub idle: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub name: Box<str>,
    pub pool: PoolId,
    /// The route's own, or else the pool's.
    pub timeouts: Timeouts,
    pub forwarded: Forwarded,
}

/// A set of networks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Networks(Box<[Cidr]>);

impl Networks {
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Cidr> {
        self.0.iter()
    }
}

impl Snapshot {
    /// The route of a request, or `None`: 404. See [`RouteTable::find`].
    #[must_use]
    pub fn route(&self, host: &[u8], path: &[u8], method: &[u8]) -> Option<(RouteId, &Route)> {
        let id = self.table.find(host, path, method)?;
        Some((id, &self[id]))
    }

    #[must_use]
    pub fn pool_named(&self, name: &str) -> Option<PoolId> {
        self.pools.iter().position(|pool| &*pool.name == name).map(|at| PoolId(at as u16))
    }
}

impl Index<PoolId> for Snapshot {
    type Output = Pool;
    fn index(&self, id: PoolId) -> &Pool {
        &self.pools[usize::from(id.0)]
    }
}

impl Index<ListenerId> for Snapshot {
    type Output = Listener;
    fn index(&self, id: ListenerId) -> &Listener {
        &self.listeners[usize::from(id.0)]
    }
}

impl Index<RouteId> for Snapshot {
    type Output = Route;
    fn index(&self, id: RouteId) -> &Route {
        &self.routes[usize::from(id.0)]
    }
}

/// Compiles a document that `meaning` found no error in.
pub(super) fn compile(document: &Document) -> Snapshot {
    let pools: Box<[Pool]> = document.pool.iter().map(pool).collect();
    let pool_id = |name: &str| {
        let at = pools.iter().position(|pool| &*pool.name == name);
        PoolId(at.expect("`meaning` found the pool") as u16)
    };
    let mut routes: Vec<Route> = Vec::new();
    let mut rules = Vec::new();
    for doc in &document.route {
        let id = RouteId(routes.len() as u16);
        routes.push(route(doc, pool_id(&doc.pool), &pools));
        rules.extend(rules_of(doc, id));
    }
    if let Some(only) = only_http_pool(document).filter(|_| document.route.is_empty()) {
        let doc = RouteDoc { name: Some("everything".into()), pool: only.name.clone(), ..RouteDoc::default() };
        routes.push(route(&doc, pool_id(&doc.pool), &pools));
        rules.extend(rules_of(&doc, RouteId(0)));
    }
    let listeners = document.listen.iter().map(|doc| listener(doc, pool_id)).collect();
    Snapshot {
        engine: EngineSettings {
            cores: document.engine.cores.0.clone(),
            driver: document.engine.driver,
            admin: document.engine.admin.0.as_slice().into(),
            drain_timeout: time(&document.engine.drain_timeout.0),
            spin: document.engine.spin.0,
            via: document.engine.via.0.clone(),
            server: document.engine.server.0.clone(),
        },
        access_log: access_log(document),
        listeners,
        pools,
        routes: routes.into(),
        table: RouteTable::new(rules),
    }
}

/// The pool that everything goes to when there is no route: the only one that no `tcp` door leads to.
pub(super) fn only_http_pool(document: &Document) -> Option<&PoolDoc> {
    let mut candidates = http_pools(document);
    candidates.next().filter(|_| candidates.next().is_none())
}

pub(super) fn http_pools(document: &Document) -> impl Iterator<Item = &PoolDoc> {
    let behind_tcp = |name: &str| {
        document.listen.iter().any(|door| door.protocol == Protocol::Tcp && door.pool.as_deref() == Some(name))
    };
    document.pool.iter().filter(move |pool| !behind_tcp(&pool.name))
}

/// Every combination of the route's hosts, paths and methods.
pub(super) fn rules_of(doc: &RouteDoc, route: RouteId) -> Vec<Rule> {
    let methods: Vec<_> =
        if doc.method.0.is_empty() { vec![None] } else { doc.method.0.iter().cloned().map(Some).collect() };
    let mut rules = Vec::new();
    for host in &doc.host.0 {
        for path in &doc.path.0 {
            for method in &methods {
                rules.push(Rule { host: host.clone(), path: path.clone(), method: method.clone(), route });
            }
        }
    }
    rules
}

fn route(doc: &RouteDoc, pool: PoolId, pools: &[Pool]) -> Route {
    let inherited = pools[usize::from(pool.0)].timeouts;
    let or = |own: &Option<Text<Time>>, inherited| own.as_ref().map_or(inherited, time);
    Route {
        name: doc.name.clone().unwrap_or_else(|| default_route_name(doc)).into(),
        pool,
        timeouts: Timeouts {
            connect: or(&doc.timeout.connect, inherited.connect),
            head: or(&doc.timeout.head, inherited.head),
            idle: or(&doc.timeout.idle, inherited.idle),
        },
        forwarded: doc.forwarded,
    }
}

/// `api.example.net/v1/*`, of the first host and path.
pub(super) fn default_route_name(doc: &RouteDoc) -> String {
    let first = |texts: Option<String>| texts.unwrap_or_default();
    let host = first(doc.host.0.first().map(ToString::to_string));
    let path = first(doc.path.0.first().map(ToString::to_string));
    format!("{host}{path}")
}

fn listener(doc: &ListenDoc, pool_id: impl Fn(&str) -> PoolId) -> Listener {
    Listener {
        name: doc.name.as_str().into(),
        addresses: doc.addr.0.as_slice().into(),
        protocol: match (doc.protocol, &doc.pool) {
            (Protocol::Tcp, Some(pool)) => ListenerProtocol::Tcp { pool: pool_id(pool) },
            _ => ListenerProtocol::Http,
        },
        max_connections: doc.max_connections,
        backlog: doc.backlog,
        proxy_protocol_from: networks(&doc.proxy_protocol.from),
        trusted: networks(&doc.trusted),
        head_timeout: time(&doc.timeout.head),
        keep_alive_timeout: time(&doc.timeout.keep_alive),
        body_timeout: time(&doc.timeout.body),
    }
}

fn pool(doc: &PoolDoc) -> Pool {
    Pool {
        name: doc.name.as_str().into(),
        endpoints: doc.endpoints.iter().map(|endpoint| endpoint.0.clone()).collect(),
        balance: doc.balance,
        host: doc.host.0.clone(),
        breaker: BreakerSettings {
            failures: doc.breaker.failures,
            open_for: time(&doc.breaker.open_for),
            trials: doc.breaker.trials,
        },
        reuse: Reuse {
            idle: time(&doc.reuse.idle),
            max_idle: doc.reuse.max_idle,
            max_requests: doc.reuse.max_requests,
        },
        retry: Retry {
            on_connect: doc.retry.on.contains(&RetryCause::Connect),
            on_reset: doc.retry.on.contains(&RetryCause::Reset),
            tries: doc.retry.tries,
            budget: RetryBudgetSettings {
                percent: doc.retry.budget.0.0,
                per_second_min: limits::RETRIES_PER_SECOND_MIN,
            },
        },
        timeouts: Timeouts {
            connect: time(&doc.timeout.connect),
            head: time(&doc.timeout.head),
            idle: time(&doc.timeout.idle),
        },
        proxy_protocol: doc.proxy_protocol,
        resolve_every: time(&doc.resolve_every),
    }
}

fn access_log(document: &Document) -> Option<AccessLog> {
    let access = &document.log.access;
    let path = match access.path.as_str() {
        "off" => return None,
        "-" => None,
        path => Some(PathBuf::from(path)),
    };
    Some(AccessLog { path, format: access.format })
}

const fn time(text: &Text<Time>) -> Duration {
    text.0.0
}

fn networks(listed: &Listed<Cidr>) -> Networks {
    Networks(listed.0.as_slice().into())
}
