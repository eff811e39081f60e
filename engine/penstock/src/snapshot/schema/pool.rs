//! `[[pool]]`: endpoints that can stand in for each other, and how they are treated.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::QueueDoc;
use super::balance::{Balance, LimitsDoc, SpreadDoc, StickyDoc};
use super::breaker::BreakerDoc;
use super::health::HealthDoc;
use super::outlier::OutlierDoc;
use super::route::RespondDoc;
use super::tls::PoolTlsDoc;
use crate::limits;
use crate::snapshot::division::HashKey;
use crate::snapshot::endpoint::{Endpoint, Source};
use crate::snapshot::limit::ConcurrencyLimit;
use crate::snapshot::literal::{HostPolicy, Listed, Percent, Text, Time};
use crate::snapshot::quantity::Size;
use crate::snapshot::repetition::{CopyAfter, PerTry, RetryCause};
use crate::snapshot::rewrite::HeaderLine;

/// A pool of endpoints that can stand in for each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "endpoints"]))]
pub struct PoolDoc {
    /// What routes, logs and metrics call it.
    pub name: String,
    /// Where its endpoints are: addresses, names (each A and AAAA record is an endpoint), SRV records, or files that are watched.
    /// `weight` (1 unless given) is a share; 0 gets nothing. Endpoints of a higher `tier` (0 unless given) are asked when the lower ones fail.
    /// `requests` and `connections` are limits of each, in place of the pool's `limits`.
    pub endpoints: Vec<Text<Endpoint>>,
    /// What endpoints speak. `http/1.1`. `h2`: HTTP/2, which over TLS they must choose by ALPN. `h3`: HTTP/3, which needs `https://` endpoints.
    /// `auto`: over TLS what they choose of the first two, and HTTP/3 where they say that they have it (`Alt-Svc`), for as long as that
    /// works; HTTP/1.1 without TLS. Requests share connections of HTTP/2 and HTTP/3, a worker's those of that worker.
    pub protocol: PoolProtocol,
    /// TLS with endpoints. On where they are written `https://…`, or `ca` says whom to trust.
    pub tls: PoolTlsDoc,
    /// Which endpoint is next. `adaptive`: the better of two by latency and work in flight, right for nearly all.
    /// `least-requests`: the one of `spread.choices` with the least work in flight, for requests of very unequal length.
    /// `round-robin`: in turn, for exact shares. `random`: by weight alone. `ring`, `maglev`: the same `hash` goes to the same
    /// endpoint, for caches and sessions behind it; `maglev` is more even, `ring` moves less when weights change. Every
    /// machine with the same list chooses the same.
    pub balance: Balance,
    /// What `ring` and `maglev` tell requests by; one that lacks it goes to any endpoint.
    pub hash: Option<Text<HashKey>>,
    /// How strictly requests are divided.
    pub spread: SpreadDoc,
    /// Which requests of a client go to the same endpoint again.
    pub sticky: StickyDoc,
    /// How long an endpoint that joins or comes back takes to its full share, from a tenth on. For those that must warm up;
    /// others it only delays: nothing herds on them.
    pub slow_start: Text<Time>,
    /// What each endpoint is given at the most, over all workers, unless its entry says otherwise.
    pub limits: LimitsDoc,
    /// The `Host` that endpoints see: the client's (`keep`), their own address (`endpoint`), or the one given.
    pub host: Text<HostPolicy>,
    /// When to stop asking an endpoint.
    pub breaker: BreakerDoc,
    /// What becomes of requests that no endpoint can have, because all are out or none is found: answered so, or sent to another pool. They
    /// do not wait for `breaker.wait` then. Unless given, they are answered 503.
    pub fallback: FallbackDoc,
    /// Asks each endpoint by itself whether it is well. Off unless `http`, `tcp` or `expect` says how.
    pub health: HealthDoc,
    /// Leaves out endpoints that are worse than the others of the pool, judged by what all workers saw. Off unless `on` says by what.
    pub outlier: OutlierDoc,
    /// Which connections are kept for the next request.
    pub reuse: ReuseDoc,
    /// Which requests are tried again, at another endpoint where there is one.
    pub retry: RetryDoc,
    /// A second copy of a request that is slower than most, to another endpoint; the first answer wins. Off unless `after` is given.
    pub hedge: HedgeDoc,
    /// Requests that the pool works on at one time, over all workers; further ones wait in its `queue`. `auto`: as many as its
    /// endpoints answer without slowing down, found by each worker for itself.
    pub concurrency: ConcurrencyLimit,
    /// Who may wait for a place in the pool, where it has a limit.
    pub queue: QueueDoc,
    /// How long an endpoint may take.
    pub timeout: PoolTimeouts,
    /// Tells endpoints who the client is, with a PROXY header on each connection, before TLS where there is TLS. Connections are then not
    /// shared by clients.
    pub proxy_protocol: ProxyProtocol,
    /// Whether requests to endpoints on this host skip TCP, by eBPF programs where they can be loaded. `auto`: requests that are short and here as
    /// a whole do, where answers are mostly short as well; others take a plain connection. For endpoints of HTTP/1.1 in the clear.
    pub same_host: SameHost,
    /// The longest that a name is believed: it is resolved again when its records' time to live ends, and no later than this.
    pub resolve_every: Text<Time>,
}

impl Default for PoolDoc {
    fn default() -> Self {
        Self {
            name: String::new(),
            endpoints: Vec::new(),
            protocol: PoolProtocol::default(),
            tls: PoolTlsDoc::default(),
            balance: Balance::default(),
            hash: None,
            spread: SpreadDoc::default(),
            sticky: StickyDoc::default(),
            slow_start: Text::secs(0),
            limits: LimitsDoc::default(),
            host: Text::default(),
            breaker: BreakerDoc::default(),
            fallback: FallbackDoc::default(),
            health: HealthDoc::default(),
            outlier: OutlierDoc::default(),
            reuse: ReuseDoc::default(),
            retry: RetryDoc::default(),
            hedge: HedgeDoc::default(),
            concurrency: ConcurrencyLimit::default(),
            queue: QueueDoc::default(),
            timeout: PoolTimeouts::default(),
            proxy_protocol: ProxyProtocol::default(),
            same_host: SameHost::default(),
            resolve_every: Text::secs(10),
        }
    }
}

impl PoolDoc {
    /// Some endpoint has a limit, or may get one: by a line of a file.
    pub fn limits_endpoints(&self) -> bool {
        let may_have = |endpoint: &Endpoint| !endpoint.limits.is_none() || matches!(endpoint.source, Source::File(_));
        self.limits != LimitsDoc::default() || self.endpoints.iter().any(|endpoint| may_have(&endpoint.0))
    }
}

/// What endpoints speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub enum PoolProtocol {
    #[default]
    #[serde(rename = "http/1.1")]
    Http11,
    #[serde(rename = "h2")]
    Http2,
    #[serde(rename = "h3")]
    Http3,
    #[serde(rename = "auto")]
    Auto,
}

/// What becomes of requests that no endpoint of a pool can have.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FallbackDoc {
    /// They go to this pool. It may have a fallback itself.
    pub pool: Option<String>,
    /// Or they are answered with this status, 200 to 599.
    pub status: Option<u16>,
    /// Fields of that answer. `Content-Type: text/plain; charset=utf-8` unless it is among them.
    pub headers: Listed<HeaderLine>,
    /// That answer's content.
    pub body: Option<String>,
    /// A file with that answer's content, read once at the start; relative to the configuration's folder.
    pub body_file: Option<String>,
}

impl FallbackDoc {
    /// The answer that it gives: as a route's.
    pub fn answer(&self) -> RespondDoc {
        let Self { pool: _, status, headers, body, body_file } = self.clone();
        RespondDoc { status, headers, body, body_file }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyProtocol {
    #[default]
    Off,
    V1,
    V2,
}

/// Whether endpoints on this host are reached without TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SameHost {
    #[default]
    Off,
    Auto,
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
    /// Age at which a connection is closed, when it is idle or comes back: so that load follows what stands behind a name.
    /// None unless given.
    pub max_age: Option<Text<Time>>,
    /// Connections to each endpoint that a worker makes ready ahead of requests; of those that requests share (HTTP/2, HTTP/3), one. For handshakes
    /// that are dear, and bursts.
    pub warm: u32,
}

impl Default for ReuseDoc {
    fn default() -> Self {
        Self {
            idle: Text::secs(60),
            max_idle: limits::IDLE_UPSTREAM_DEFAULT,
            max_requests: None,
            max_age: None,
            warm: 0,
        }
    }
}

/// Which requests are tried again, at another endpoint where there is one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetryDoc {
    /// `connect`: no connection came about. `reset`: it ended before an answer. `timeout`: no answer in `per_try`. A status code:
    /// that answer. All but `connect` only for requests that may be sent twice.
    pub on: Vec<Text<RetryCause>>,
    /// Tries in all, the first one included. One that is left for its endpoint's silence (`per_try`) may be followed by one more. Up to three do not
    /// count: those that reached nobody, and those at endpoints that had failed before and were asked for want of better ones, or to find out about
    /// them.
    pub tries: u8,
    /// How long to wait for an answer's head before asking another endpoint, where there is one: a time, `auto` for three times
    /// what nearly all answers of the pool have lately taken, or `off`. Where nothing can follow, a try has `timeout.head`.
    pub per_try: Text<PerTry>,
    /// The step of the pause before a second retry, or one after a status: a random part of it, doubled each time.
    pub backoff: Text<Time>,
    /// The longest such pause.
    pub backoff_max: Text<Time>,
    /// The longest `Retry-After` of an answer that is waited for; one that asks for more is passed to the client.
    pub retry_after_max: Text<Time>,
    /// Whether POST, PATCH and their like may be sent twice. Only for applications that recognise a repetition.
    pub non_idempotent: bool,
    /// How much of a request's content is kept to be sent again. Larger ones are not tried again once they have begun to leave.
    pub buffer: Text<Size>,
    /// Retries as a share of the requests of the last ten seconds; three a second are always allowed. Who is not connected to costs nothing of it.
    pub budget: Text<Percent>,
}

impl Default for RetryDoc {
    fn default() -> Self {
        let percent = policy::RetryBudgetSettings::default().percent;
        let policy::RetryPolicy { backoff, retry_after_max, .. } = policy::RetryPolicy::default();
        let statuses = [500, 502, 503, 504].map(RetryCause::Status);
        let causes = [RetryCause::Connect, RetryCause::Reset, RetryCause::Timeout].into_iter().chain(statuses);
        Self {
            on: causes.map(Text).collect(),
            tries: 3,
            per_try: Text(PerTry::Auto),
            backoff: Text(Time(backoff.base)),
            backoff_max: Text(Time(backoff.cap)),
            retry_after_max: Text(Time(retry_after_max)),
            non_idempotent: false,
            buffer: Text(Size(64 << 10)),
            budget: Text(Percent(percent)),
        }
    }
}

/// When a second copy of a request is sent elsewhere. Only of requests without content that may be sent twice; it counts as one of
/// `retry.tries`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HedgeDoc {
    /// When this share of the pool's answers would have come: `95%`; or after a time. Unless given, nothing is sent twice.
    pub after: Option<Text<CopyAfter>>,
    /// No copy is sent sooner because of a share: below this a copy costs more than it saves.
    pub at_least: Text<Time>,
    /// Copies as a share of the requests of the last ten seconds: all that hedging can add to the load when everything is slow.
    pub budget: Text<Percent>,
}

impl Default for HedgeDoc {
    fn default() -> Self {
        let policy::HedgeSettings { floor, percent, .. } = policy::HedgeSettings::default();
        Self { after: None, at_least: Text(Time(floor)), budget: Text(Percent(percent)) }
    }
}

/// How long an endpoint may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PoolTimeouts {
    /// To accept a connection.
    pub connect: Text<Time>,
    /// From the end of the request to the end of the answer's head.
    pub head: Text<Time>,
    /// The same, where nothing but a refusal can follow (a POST, the last try) and the endpoint has died meanwhile: it takes no new requests, a later
    /// one of those or a probe had no answer, and none has succeeded. Never less than nine times what nearly all answers of the pool take. Not before
    /// `head` if it is as long.
    pub silent: Text<Time>,
    /// Between two pieces of a body, in either direction.
    pub idle: Text<Time>,
}

impl Default for PoolTimeouts {
    fn default() -> Self {
        Self { connect: Text::secs(1), head: Text::secs(60), silent: Text::secs(3), idle: Text::secs(60) }
    }
}
