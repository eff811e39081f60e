//! The document: what a configuration file may say, with every default.
//!
//! The comments on the fields below are the configuration reference (`docs/configuration.md`) and the descriptions in
//! the JSON Schema: they are written for the operator.

use super::{
    address::{Bind, Cidr, Endpoint},
    literal::{Cores, HostPolicy, Listed, Percent, ServerPolicy, Spin, Text, Time, ViaName},
    route::{HostPattern, Method, PathPattern},
};
use crate::{limits, snapshot::address::Address};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A Penstock configuration: doors (`listen`), pools of endpoints (`pool`), and routes between them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["listen"]))]
pub struct Document {
    /// The process as a whole.
    pub engine: EngineDoc,
    /// What is written down.
    pub log: LogDoc,
    /// A door: where connections come in. At least one.
    pub listen: Vec<ListenDoc>,
    /// A pool of endpoints that can stand in for each other.
    pub pool: Vec<PoolDoc>,
    /// Which requests go to which pool. The most specific route wins, wherever it stands: an exact host before a wildcard
    /// before any, then an exact path before the longest prefix, then one that names the method. Without any route,
    /// everything goes to the only HTTP pool. A request that no route matches is answered 404.
    pub route: Vec<RouteDoc>,
}

/// The process as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct EngineDoc {
    /// The CPUs to work on, one worker each. `auto`: every CPU the process may use, as taskset, cpuset and systemd left it.
    pub cores: Text<Cores>,
    /// How to talk to the kernel. `auto`: io_uring where it is allowed, else epoll.
    pub driver: Driver,
    /// Where `/metrics` and `/status` are served, to whoever can reach it. None unless given.
    pub admin: Listed<Address>,
    /// How long exchanges may go on after SIGTERM before they are cut.
    pub drain_timeout: DrainTimeout,
    /// What a worker does before it blocks for want of work: `auto` spins a little when that has lately paid off.
    pub spin: Text<Spin>,
    /// Our name in the `Via` field of what we forward, or `off` for no such field.
    pub via: Text<ViaName>,
    /// What becomes of a response's `Server` field.
    pub server: Text<ServerPolicy>,
}

/// A time whose default is 30 s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct DrainTimeout(pub Text<Time>);

impl Default for DrainTimeout {
    fn default() -> Self {
        Self(Text::secs(30))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Driver {
    #[default]
    Auto,
    Uring,
    Epoll,
}

/// What is written down.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogDoc {
    /// The access log: a line an exchange.
    pub access: AccessDoc,
}

/// The access log: a line an exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AccessDoc {
    /// The file to append to, `-` for standard output, or `off`.
    pub path: String,
    /// `json`: an object a line. `common`: the Common Log Format of Apache and nginx.
    pub format: AccessFormat,
}

impl Default for AccessDoc {
    fn default() -> Self {
        Self { path: "off".into(), format: AccessFormat::default() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AccessFormat {
    #[default]
    Json,
    Common,
}

/// A door: where connections come in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "addr"]))]
pub struct ListenDoc {
    /// What logs, metrics and errors call it.
    pub name: String,
    /// Where to listen: one address or several. `:8080` is every address of the host, IPv4 and IPv6.
    pub addr: Listed<Bind>,
    /// `http`: requests are routed. `tcp`: bytes are passed through to `pool`.
    pub protocol: Protocol,
    /// The pool that a `tcp` door leads to.
    pub pool: Option<String>,
    /// Connections at one time; beyond that new ones wait in the backlog.
    pub max_connections: u32,
    /// Connections that may wait to be accepted; the kernel clips it to net.core.somaxconn.
    pub backlog: u32,
    /// Who may say on whose behalf it connects.
    pub proxy_protocol: ProxyProtocolFrom,
    /// Proxies whose `X-Forwarded-*` and `Forwarded` fields are kept and added to. From anybody else they are replaced.
    pub trusted: Listed<Cidr>,
    /// How long a client may take.
    pub timeout: ListenTimeouts,
}

impl Default for ListenDoc {
    fn default() -> Self {
        Self {
            name: String::new(),
            addr: Listed::default(),
            protocol: Protocol::default(),
            pool: None,
            max_connections: limits::CONNECTIONS_DEFAULT,
            backlog: limits::BACKLOG_DEFAULT,
            proxy_protocol: ProxyProtocolFrom::default(),
            trusted: Listed::default(),
            timeout: ListenTimeouts::default(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    #[default]
    Http,
    Tcp,
}

/// Who may say on whose behalf it connects.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyProtocolFrom {
    /// Networks whose connections must begin with a PROXY header (v1 or v2). From elsewhere none is accepted.
    pub from: Listed<Cidr>,
}

/// How long a client may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ListenTimeouts {
    /// From the first byte of a request, or from accepting the connection, to the end of its head.
    pub head: Text<Time>,
    /// Between two requests of one connection.
    pub keep_alive: Text<Time>,
    /// Between two pieces of a body, or of a `tcp` connection's bytes, in either direction.
    pub body: Text<Time>,
}

impl Default for ListenTimeouts {
    fn default() -> Self {
        Self { head: Text::secs(10), keep_alive: Text::secs(75), body: Text::secs(60) }
    }
}

/// A pool of endpoints that can stand in for each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "endpoints"]))]
pub struct PoolDoc {
    /// What routes, logs and metrics call it.
    pub name: String,
    /// Where its endpoints are. A name stands for all its addresses. `weight` (1 unless given) is a share; 0 gets nothing.
    pub endpoints: Vec<Text<Endpoint>>,
    /// `adaptive`: the better of two by latency and work in flight. `round-robin`: in turn.
    pub balance: Balance,
    /// The `Host` that endpoints see: the client's (`keep`), their own address (`endpoint`), or the one given.
    pub host: Text<HostPolicy>,
    /// When to stop asking an endpoint.
    pub breaker: BreakerDoc,
    /// Which connections are kept for the next request.
    pub reuse: ReuseDoc,
    /// Which requests are tried again, at another endpoint where there is one.
    pub retry: RetryDoc,
    /// How long an endpoint may take.
    pub timeout: PoolTimeouts,
    /// Tells endpoints who the client is, with a PROXY header on each connection. Connections are then not shared by clients.
    pub proxy_protocol: ProxyProtocol,
    /// How often the names of endpoints are resolved again.
    pub resolve_every: Text<Time>,
}

impl Default for PoolDoc {
    fn default() -> Self {
        Self {
            name: String::new(),
            endpoints: Vec::new(),
            balance: Balance::default(),
            host: Text::default(),
            breaker: BreakerDoc::default(),
            reuse: ReuseDoc::default(),
            retry: RetryDoc::default(),
            timeout: PoolTimeouts::default(),
            proxy_protocol: ProxyProtocol::default(),
            resolve_every: Text::secs(10),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    #[default]
    Adaptive,
    RoundRobin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyProtocol {
    #[default]
    Off,
    V1,
    V2,
}

/// When to stop asking an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerDoc {
    /// Failures in a row that open it: no connection, a reset, a timeout, a broken answer, 502, 503, 504. 0: it never opens.
    pub failures: u16,
    /// How long it stays open the first time, ±10 %; each failed trial doubles it, up to 16 times.
    pub open_for: Text<Time>,
    /// Requests let through afterwards to see whether the endpoint is back.
    pub trials: u16,
}

impl Default for BreakerDoc {
    fn default() -> Self {
        let policy::BreakerSettings { failures, open_for, trials } = policy::BreakerSettings::default();
        Self { failures, open_for: Text(Time(open_for)), trials }
    }
}

/// Which connections are kept for the next request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReuseDoc {
    /// How long an idle connection is kept. Keep it below the endpoint's own keep-alive time.
    pub idle: Text<Time>,
    /// Idle connections kept to one endpoint by one worker. 0: each request gets a new connection.
    pub max_idle: u32,
    /// Requests after which a connection is closed. None unless given.
    pub max_requests: Option<u32>,
}

impl Default for ReuseDoc {
    fn default() -> Self {
        Self { idle: Text::secs(60), max_idle: limits::IDLE_UPSTREAM_DEFAULT, max_requests: None }
    }
}

/// Which requests are tried again, at another endpoint where there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetryDoc {
    /// `connect`: no connection came about. `reset`: it ended before an answer; only requests that may be sent twice.
    pub on: Vec<RetryCause>,
    /// Tries in all, the first one included.
    pub tries: u8,
    /// Retries as a share of the requests of the last ten seconds; three a second are always allowed.
    pub budget: Text<Percent>,
}

impl Default for RetryDoc {
    fn default() -> Self {
        let percent = policy::RetryBudgetSettings::default().percent;
        Self { on: vec![RetryCause::Connect, RetryCause::Reset], tries: 2, budget: Text(Percent(percent)) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RetryCause {
    Connect,
    Reset,
}

/// How long an endpoint may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PoolTimeouts {
    /// To accept a connection.
    pub connect: Text<Time>,
    /// From the end of the request to the end of the answer's head.
    pub head: Text<Time>,
    /// Between two pieces of a body, in either direction.
    pub idle: Text<Time>,
}

impl Default for PoolTimeouts {
    fn default() -> Self {
        Self { connect: Text::secs(1), head: Text::secs(60), idle: Text::secs(60) }
    }
}

/// Which requests go to which pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["pool"]))]
pub struct RouteDoc {
    /// What logs and `check --explain` call it; `host` and `path` unless given.
    pub name: Option<String>,
    /// The request's host, without its port: `api.example.net`, `*.example.net` for everything below, or `*` for any. One or several.
    pub host: Listed<HostPattern>,
    /// The request's path: `/login` for that one, `/v1/*` for `/v1` and everything below it. One or several.
    pub path: Listed<PathPattern>,
    /// The request's method, one or several. Any unless given.
    pub method: Listed<Method>,
    /// Where such requests go.
    pub pool: String,
    /// Times that differ from the pool's.
    pub timeout: RouteTimeouts,
    /// Which fields tell endpoints about the client: `X-Forwarded-For`, `-Proto` and `-Host`, or RFC 7239's `Forwarded`.
    pub forwarded: Forwarded,
}

impl Default for RouteDoc {
    fn default() -> Self {
        Self {
            name: None,
            host: Listed(vec![HostPattern::Any]),
            path: Listed(vec![PathPattern::everything()]),
            method: Listed::default(),
            pool: String::new(),
            timeout: RouteTimeouts::default(),
            forwarded: Forwarded::default(),
        }
    }
}

/// Times that differ from the pool's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RouteTimeouts {
    /// To accept a connection; the pool's unless given.
    pub connect: Option<Text<Time>>,
    /// From the end of the request to the end of the answer's head; the pool's unless given.
    pub head: Option<Text<Time>>,
    /// Between two pieces of a body; the pool's unless given.
    pub idle: Option<Text<Time>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Forwarded {
    #[default]
    XForwarded,
    Forwarded,
    Both,
    Off,
}

/// The JSON Schema of [`Document`], every type in its place. A key that must be given has no default.
#[must_use]
pub fn json_schema() -> serde_json::Value {
    let settings =
        schemars::generate::SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Document>().to_value();
    schema["title"] = "Penstock configuration".into();
    drop_defaults_of_required(&mut schema);
    schema
}

fn drop_defaults_of_required(schema: &mut serde_json::Value) {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    if let Some(properties) = schema.get_mut("properties").and_then(|properties| properties.as_object_mut()) {
        for (name, property) in properties {
            // A table's default is that of its keys; saying it twice invites them to differ.
            if (required.iter().any(|required| required == name) || property.get("properties").is_some())
                && let Some(property) = property.as_object_mut()
            {
                property.remove("default");
            }
            drop_defaults_of_required(property);
        }
    }
    if let Some(items) = schema.get_mut("items") {
        drop_defaults_of_required(items);
    }
}
