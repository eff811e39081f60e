//! `[[route]]`: which requests go where, and what becomes of them on the way.

use policy::SelectSettings;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LimitDoc, PaceDoc, RouteBreakerDoc, WebSocketDoc};
use crate::snapshot::address::Cidr;
use crate::snapshot::literal::{HostPolicy, Listed, Percent, Text, Time};
use crate::snapshot::quantity::{Bandwidth, Rate};
use crate::snapshot::rewrite::{HeaderLine, HeaderName, Location, PathFormat};
use crate::snapshot::route::{HeaderCondition, HostPattern, Method, PathPattern, QueryCondition};
use crate::snapshot::share::{Candidate, Share, Sticky};

/// Which requests go to which pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RouteDoc {
    /// What logs and `check --explain` call it; `host` and `path` unless given.
    pub name: Option<String>,
    /// The request's host, without its port: `api.example.net`, `*.example.net` for everything below, or `*` for any. One or several.
    pub host: Listed<HostPattern>,
    /// The request's path: `/login` for that one, `/v1/*` for `/v1` and everything below it, `/users/{id}/{rest...}` with names for a
    /// segment and for what follows. One or several.
    pub path: Listed<PathPattern>,
    /// The request's method, one or several. Any unless given.
    pub method: Listed<Method>,
    /// What must hold of the request's fields, all of it: `X-Beta`, `!X-Beta`, `X-Env: staging`, `User-Agent: curl/*`. Values are compared in
    /// their case, and field by field where one is repeated.
    pub header: Listed<HeaderCondition>,
    /// What must hold of the query's parameters, all of it: `debug`, `!debug`, `version=2`, `version=2*`. Compared decoded.
    pub query: Listed<QueryCondition>,
    /// Networks of which the client's address must be in one. Behind trusted proxies it is the last address of `X-Forwarded-For` that
    /// is none of theirs. Any unless given.
    pub client: Listed<Cidr>,
    /// Where such requests go. A route has this, or `split`, `candidates`, `redirect` or `respond`.
    pub pool: Option<String>,
    /// Divides such requests among pools by weight, for canaries: `["stable weight=99", "canary weight=1"]`. A client stays with its pool;
    /// raising a weight moves clients to that pool and none elsewhere.
    pub split: Vec<Text<Share>>,
    /// By what `split` knows a client again: its address, a request field, or a cookie that the application sets.
    pub sticky: Text<Sticky>,
    /// Pools of which such requests go to the best one at present, by latency, failures, health, load and cost: `["near", "far", "burst cost=3"]`.
    /// Of equals the first.
    pub candidates: Vec<Text<Candidate>>,
    /// How `candidates` are chosen from.
    pub adaptive: AdaptiveDoc,
    /// Answers with a redirect instead of asking a pool.
    pub redirect: RedirectDoc,
    /// Answers by itself instead of asking a pool.
    pub respond: RespondDoc,
    /// What endpoints get in place of what came.
    pub rewrite: RewriteDoc,
    /// What becomes of the request's fields on their way to endpoints.
    pub request_headers: HeadersDoc,
    /// What becomes of the response's fields on their way to clients.
    pub response_headers: HeadersDoc,
    /// Sends copies of requests to another pool, whose answers nobody sees.
    pub mirror: MirrorDoc,
    /// Forwards paths as they came, even those that origins may read differently from routes. Otherwise, where routes tell paths apart, a
    /// path goes on in its normal form, and an ambiguous one (`%2f`, `%5c`, `..;`, a broken escape) is answered 400.
    pub raw_path: bool,
    /// The class of such requests: whose turn it is when they wait.
    pub class: Option<String>,
    /// Rates beyond which such requests are turned away; all of several must grant one.
    pub limit: Vec<LimitDoc>,
    /// Content of all such exchanges together, over all workers: responses, and requests on their own.
    pub bandwidth: Option<Text<Bandwidth>>,
    /// Such requests begin no faster than this: those that come sooner wait for their turn.
    pub rate: Option<Text<Rate>>,
    /// The same for each client (IPv6: each /64) by itself.
    pub per_client: PaceDoc,
    /// Times that differ from the pool's.
    pub timeout: RouteTimeouts,
    /// When to stop asking any endpoint for such requests.
    pub breaker: RouteBreakerDoc,
    /// Bridges gRPC-Web: calls as browsers make them (`application/grpc-web`, `application/grpc-web-text`) reach endpoints as gRPC, and other
    /// requests as they came. The pools need `protocol = "h2"`, or `auto`.
    pub grpc_web: bool,
    /// What is asked of WebSockets, and what becomes of them.
    pub websocket: WebSocketDoc,
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
            header: Listed::default(),
            query: Listed::default(),
            client: Listed::default(),
            pool: None,
            split: Vec::new(),
            sticky: Text::default(),
            candidates: Vec::new(),
            adaptive: AdaptiveDoc::default(),
            redirect: RedirectDoc::default(),
            respond: RespondDoc::default(),
            rewrite: RewriteDoc::default(),
            request_headers: HeadersDoc::default(),
            response_headers: HeadersDoc::default(),
            mirror: MirrorDoc::default(),
            raw_path: false,
            class: None,
            limit: Vec::new(),
            bandwidth: None,
            rate: None,
            per_client: PaceDoc::default(),
            timeout: RouteTimeouts::default(),
            breaker: RouteBreakerDoc::default(),
            grpc_web: false,
            websocket: WebSocketDoc::default(),
            forwarded: Forwarded::default(),
        }
    }
}

impl RouteDoc {
    /// The pools that its requests may go to. Mirrors are none of them.
    pub fn pools(&self) -> impl Iterator<Item = &str> {
        let shares = self.split.iter().map(|share| &*share.0.pool);
        let candidates = self.candidates.iter().map(|candidate| &*candidate.0.pool);
        self.pool.as_deref().into_iter().chain(shares).chain(candidates)
    }
}

/// How `candidates` are chosen from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdaptiveDoc {
    /// How much better than the present pool another one must be: more than means swing by themselves.
    pub margin: Text<Percent>,
    /// For how long it must be, without interruption: longer than a garbage collection. Each change doubles it, up to sixteenfold, and five quiet
    /// minutes halve it again.
    pub hold: Text<Time>,
    /// How long a pool that is chosen anew takes to its full share: connections and caches warm meanwhile.
    pub ramp: Text<Time>,
    /// How many of the requests that may be sent twice go to another pool to learn how it fares, at most 20%; never more than ten a second and worker.
    /// Without any, other pools are known only by what came there last.
    pub explore: Text<Percent>,
}

impl Default for AdaptiveDoc {
    fn default() -> Self {
        let SelectSettings { margin_percent, hold, ramp, explore_percent } = SelectSettings::default();
        Self {
            margin: Text(Percent(margin_percent as u8)),
            hold: Text(Time(hold)),
            ramp: Text(Time(ramp)),
            explore: Text(Percent(explore_percent)),
        }
    }
}

/// Answers with a redirect instead of asking a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RedirectDoc {
    /// Where to: `https://{host}{path}`, `/new/{rest}`. The request cannot choose the host, but for its own.
    pub to: Option<Text<Location>>,
    /// 301 and 308 are remembered by clients for good; 307 and 308 keep the method.
    pub status: u16,
    /// What becomes of the request's query.
    pub query: RedirectQuery,
}

impl Default for RedirectDoc {
    fn default() -> Self {
        Self { to: None, status: 302, query: RedirectQuery::default() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RedirectQuery {
    #[default]
    Keep,
    Drop,
}

/// Answers by itself instead of asking a pool.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RespondDoc {
    /// The answer's status, 200 to 599.
    pub status: Option<u16>,
    /// Fields of the answer. `Content-Type: text/plain; charset=utf-8` unless it is among them.
    pub headers: Listed<HeaderLine>,
    /// The answer's content.
    pub body: Option<String>,
    /// A file with the answer's content, read once at the start; relative to the configuration's folder.
    pub body_file: Option<String>,
}

/// What endpoints get in place of what came.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RewriteDoc {
    /// The path: `/v2/*` where the route's path is `/v1/*`, or with names: `/u/{id}/{rest}`. The query goes on as it came.
    pub path: Option<Text<PathFormat>>,
    /// The `Host`, instead of what the pool says: `keep`, `endpoint`, or a host.
    pub host: Option<Text<HostPolicy>>,
}

/// What becomes of a head's fields. What frames a message or concerns a connection is not theirs to change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HeadersDoc {
    /// Fields that take the place of all of their name.
    pub set: Listed<HeaderLine>,
    /// Fields that join those of their name.
    pub add: Listed<HeaderLine>,
    /// Names whose fields all go.
    pub remove: Listed<HeaderName>,
}

/// Sends copies of requests to another pool, whose answers nobody sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MirrorDoc {
    /// The pool. It can neither slow nor spoil the original: copies that it does not take in time are dropped, and counted.
    pub pool: Option<String>,
    /// How many of the requests are copied. Those with more content than 64 KiB are not.
    pub share: Text<Percent>,
}

impl Default for MirrorDoc {
    fn default() -> Self {
        Self { pool: None, share: Text(Percent(100)) }
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
    /// The same from an endpoint that has died meanwhile; the pool's unless given.
    pub silent: Option<Text<Time>>,
    /// Between two pieces of a body; the pool's unless given.
    pub idle: Option<Text<Time>>,
    /// For a whole exchange, retries included: 504 where nothing has been sent yet, else the response breaks off. None unless given: a
    /// download may take its time.
    pub total: Option<Text<Time>>,
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
