//! Configuration: text → document → checked → compiled, immutable [`Snapshot`].
//!
//! ```text
//! TOML ──text──► tree with places ──shape──► Document ──meaning, compile──► Snapshot ──Arc──► workers
//!                        └── problems, all of them, with places (report)
//! ```
//!
//! What holds here: a snapshot exists only if every check passed, its references are indexes that cannot dangle, and it
//! never changes. Deliberately absent: files, sockets and name resolution; this room turns text into values.

mod address;
mod alpn;
mod also;
mod compile;
mod diff;
mod division;
mod endpoint;
mod explain;
mod limit;
mod literal;
mod meaning;
mod pin;
mod print;
mod probing;
mod quantity;
mod reference;
mod repetition;
mod report;
mod rewrite;
mod route;
mod schema;
mod shape;
mod share;
mod text;

pub use address::{Address, Bind, Cidr, Host, read_networks};
pub use also::Also;
pub use compile::{
    AccessLog, Action, Admission, AfXdp, Balancer, Candidates, Certificate, Class, ClassId, CookieRule, Decap,
    Division, EngineSettings, Fallback, Fixed, Flows, HeaderRule, HeaderRules, HealthProbe, Http3, Limit, Listener,
    ListenerId, ListenerProtocol, ListenerTls, Mirror, Networks, OuterSource, OverLimit, Pace, Paces, Pool, PoolId,
    PoolTls, PoolTransparency, ProbeAsk, QlogSettings, QuicSettings, Redirect, Retry, Reuse, Rewrite, Route,
    RouteBreaker, RouteQos, Shield, Snapshot, SniTable, Stickiness, Target, Timeouts, Trust, Vip, WebSockets,
};
pub use diff::{Diff, Kin};
pub use division::{HashKey, Secret};
pub use endpoint::{Endpoint, EndpointLimits, Nameserver, Source};
pub use explain::{Explanation, Question, explain};
pub use limit::{ConcurrencyLimit, LimitKey};
pub use literal::{
    Cores, HostPolicy, Listed, Literal, Percent, ServerPolicy, Spin, Text, Time, Unreadable, ViaName, cpu_list,
};
pub use pin::SpkiPin;
pub use print::{complete, print};
pub use probing::{ProbeTarget, Statuses};
pub use quantity::{Bandwidth, LeastRate, Rate, Size};
pub use reference::reference;
pub use repetition::{CopyAfter, PerTry, RetryCause};
pub use report::{Code, Problem, Report, nearest};
pub use rewrite::{Facts, Format, HeaderLine, HeaderName, Location, PathFormat};
pub use route::{
    Asked, Conditions, Found, HeaderCondition, HostPattern, Method, PathPattern, QueryCondition, RouteId, RouteTable,
    Rule, normal,
};
pub use schema::{
    AccessFormat, Balance, ClassDoc, ClientAuth, Congestion, Document, Driver, Forward, Forwarded, LimitDoc,
    LimitFields, ListenDoc, PaceDoc, PoolDoc, PoolProtocol, Protocol, ProxyProtocol, QueueDoc, RouteDoc, SameHost,
    Splice, Steering, SynCookies, TlsVersion, Transport, XdpMode, json_schema,
};
pub use share::{Candidate, Share, Sticky};

/// What a text came to: a snapshot and warnings, or errors.
#[derive(Debug)]
pub struct Compiled {
    pub document: Document,
    pub snapshot: Snapshot,
    /// Warnings only.
    pub report: Report,
}

/// How files that a configuration names are read; see [`read_with`].
pub type Files<'a> = dyn Fn(&str) -> std::io::Result<Vec<u8>> + 'a;

/// Reads a configuration that names no files. `origin` is what reports call it.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn read(origin: &str, text: &str) -> Result<Compiled, Report> {
    read_with(origin, text, &|_| Err(std::io::Error::other("no files are read here")))
}

/// Reads a configuration, and through `files` what it names by path.
///
/// # Errors
/// Everything that is wrong with it, at once.
pub fn read_with(origin: &str, text: &str, files: &Files<'_>) -> Result<Compiled, Report> {
    let (tree, mut problems) = text::parse(text);
    let document = shape::shape(&tree, &mut problems);
    meaning::meaning(&document, &tree, text, files, &mut problems);
    report::drop_echoes(text, &mut problems);
    let report = Report::new(origin, text, problems);
    if report.has_errors() {
        return Err(report);
    }
    let snapshot = compile::compile(&document, files);
    Ok(Compiled { document, snapshot, report })
}
