//! `[[pool]]`: endpoints that can stand in for each other, and how they are treated.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::health::HealthDoc;
use crate::limits;
use crate::snapshot::endpoint::Endpoint;
use crate::snapshot::literal::{HostPolicy, Percent, Text, Time};

/// A pool of endpoints that can stand in for each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "endpoints"]))]
pub struct PoolDoc {
    /// What routes, logs and metrics call it.
    pub name: String,
    /// Where its endpoints are: addresses, names (each A and AAAA record is an endpoint), SRV records, or files that are watched.
    /// `weight` (1 unless given) is a share; 0 gets nothing. Endpoints of a higher `tier` (0 unless given) are asked when the lower ones fail.
    pub endpoints: Vec<Text<Endpoint>>,
    /// `adaptive`: the better of two by latency and work in flight. `round-robin`: in turn.
    pub balance: Balance,
    /// The `Host` that endpoints see: the client's (`keep`), their own address (`endpoint`), or the one given.
    pub host: Text<HostPolicy>,
    /// When to stop asking an endpoint.
    pub breaker: BreakerDoc,
    /// Asks each endpoint by itself whether it is well. Off unless `http`, `tcp` or `expect` says how.
    pub health: HealthDoc,
    /// Which connections are kept for the next request.
    pub reuse: ReuseDoc,
    /// Which requests are tried again, at another endpoint where there is one.
    pub retry: RetryDoc,
    /// How long an endpoint may take.
    pub timeout: PoolTimeouts,
    /// Tells endpoints who the client is, with a PROXY header on each connection. Connections are then not shared by clients.
    pub proxy_protocol: ProxyProtocol,
    /// The longest that a name is believed: it is resolved again when its records' time to live ends, and no later than this.
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
            health: HealthDoc::default(),
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
        let policy::BreakerSettings { failures, open_for, trials, .. } = policy::BreakerSettings::default();
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
