//! Our own answers: when there is nothing to forward.

use policy::Class;
use proto::Malformed;
use proto::h1::{Respond, Server};
use proto::http::{Known, Method, Status};

use super::admit::Limited;
use super::bridge::Web;
use super::headers::{Added, Place, ensure_parsed, write_values};
use super::route::Matched;
use super::{Door, Peer, Request, grpc};
use crate::conn::Lane;
use crate::limits;
use crate::qos::Refused;
use crate::snapshot::{Action, Fixed, HeaderRule, Limit, LimitFields, Redirect};

/// Why the engine answers itself, or why an exchange did not end well.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    NoRoute,
    /// The endpoint might read the path differently from our routes.
    AmbiguousPath,
    NoEndpoint,
    /// All endpoints that would do have as much as they may.
    EndpointsFull,
    /// The route's breaker is open; when it will not be, s.
    BreakerOpen(Option<u32>),
    ConnectFailed,
    ConnectTimedOut,
    /// TLS was not agreed upon with the endpoint.
    Untrusted,
    Unresolved,
    UpstreamClosed,
    UpstreamTimedOut,
    /// It answers nobody any more, and what it was sent may not be sent again.
    UpstreamSilent,
    /// The route's time for a whole exchange is over.
    DeadlinePassed,
    UpstreamMalformed,
    /// The endpoint answered as if no other protocol had been asked for, to a client that cannot be told so.
    UpgradeIgnored,
    /// The endpoint's connections of HTTP/2 or 3 carry nothing but HTTP, as it says itself.
    UpgradeUnsupported,
    /// The response broke off after its head was sent.
    UpstreamTruncated,
    OutOfResources,
    /// The client's handshake did not come to its end.
    TooEarly,
    /// A limit of the route.
    Limited(Limited),
    /// Its turn would come too late.
    Crowded,
    /// No place in the pool in time.
    Overloaded(Refused),
    ClientMalformed(Malformed),
    ClientTimedOut,
    ClientGone,
    /// The time of a drain is up. Nobody is told but the log.
    Drained,
}

impl Reason {
    /// A word for logs.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::NoRoute => "no-route",
            Self::AmbiguousPath => "ambiguous-path",
            Self::NoEndpoint => "no-endpoint",
            Self::EndpointsFull => "endpoints-full",
            Self::BreakerOpen(_) => "breaker-open",
            Self::ConnectFailed => "connect-failed",
            Self::ConnectTimedOut => "connect-timeout",
            Self::Untrusted => "tls-failed",
            Self::Unresolved => "unresolved",
            Self::UpstreamClosed => "upstream-closed",
            Self::UpstreamTimedOut => "upstream-timeout",
            Self::UpstreamSilent => "upstream-silent",
            Self::DeadlinePassed => "deadline",
            Self::UpstreamMalformed => "upstream-malformed",
            Self::UpgradeIgnored => "upgrade-ignored",
            Self::UpgradeUnsupported => "upgrade-unsupported",
            Self::UpstreamTruncated => "upstream-truncated",
            Self::OutOfResources => "out-of-resources",
            Self::TooEarly => "too-early",
            Self::Limited(_) => "rate-limited",
            Self::Crowded => "turn-too-late",
            Self::Overloaded(refused) => match refused.reason {
                policy::Reason::Full => "queue-full",
                policy::Reason::Codel => "queue-too-slow",
                policy::Reason::Deadline => "queue-timeout",
            },
            Self::ClientMalformed(_) => "client-malformed",
            Self::ClientTimedOut => "client-timeout",
            Self::ClientGone => "client-gone",
            Self::Drained => "drained",
        }
    }

    fn status(self) -> Status {
        match self {
            Self::NoRoute => Status::NOT_FOUND,
            Self::AmbiguousPath => Status::BAD_REQUEST,
            Self::NoEndpoint
            | Self::EndpointsFull
            | Self::BreakerOpen(_)
            | Self::OutOfResources
            | Self::Crowded
            | Self::Drained
            | Self::Overloaded(_) => Status::SERVICE_UNAVAILABLE,
            Self::TooEarly => Status::TOO_EARLY,
            Self::Limited(limited) => Status::new(limited.status).unwrap_or(Status::TOO_MANY_REQUESTS),
            Self::ConnectTimedOut | Self::UpstreamTimedOut | Self::UpstreamSilent | Self::DeadlinePassed => {
                Status::GATEWAY_TIMEOUT
            }
            Self::ClientMalformed(malformed) => malformed.status(),
            Self::ClientTimedOut => Status::REQUEST_TIMEOUT,
            Self::ConnectFailed
            | Self::Untrusted
            | Self::Unresolved
            | Self::UpstreamClosed
            | Self::UpstreamMalformed
            | Self::UpgradeIgnored
            | Self::UpgradeUnsupported
            | Self::UpstreamTruncated
            | Self::ClientGone => Status::BAD_GATEWAY,
        }
    }

    /// When it would be worth to ask again, s (RFC 9110 §10.2.3).
    fn retry_secs(self) -> Option<u32> {
        match self {
            Self::Limited(limited) => limited.told.retry_secs,
            Self::Overloaded(refused) => Some(refused.retry_secs),
            Self::BreakerOpen(retry_secs) => retry_secs,
            Self::Crowded => Some(limits::PACE_WAIT_MAX.as_secs() as u32),
            Self::NoEndpoint | Self::EndpointsFull | Self::OutOfResources => Some(1),
            _ => None,
        }
    }

    /// What it says about those who were to serve the request.
    pub(super) const fn class(self) -> Class {
        match self {
            Self::NoEndpoint | Self::ConnectFailed => Class::Refused,
            Self::ConnectTimedOut => Class::ConnectTimedOut,
            Self::Untrusted => Class::Untrusted,
            Self::Unresolved => Class::Unresolved,
            Self::UpstreamClosed => Class::Reset,
            Self::UpstreamTimedOut | Self::UpstreamSilent => Class::TimedOut,
            Self::UpstreamMalformed | Self::UpgradeIgnored => Class::Malformed,
            Self::UpstreamTruncated => Class::Truncated,
            Self::NoRoute
            | Self::AmbiguousPath
            | Self::ClientMalformed(_)
            | Self::ClientTimedOut
            | Self::TooEarly
            | Self::ClientGone => Class::Abandoned,
            Self::EndpointsFull
            | Self::BreakerOpen(_)
            | Self::DeadlinePassed
            | Self::OutOfResources
            | Self::UpgradeUnsupported
            | Self::Limited(_)
            | Self::Crowded
            | Self::Drained
            | Self::Overloaded(_) => Class::Shed,
        }
    }

    fn body(self) -> &'static [u8] {
        match self {
            Self::NoRoute => b"404: no route takes this request\n",
            Self::AmbiguousPath => b"400: the path is ambiguous\n",
            Self::NoEndpoint => b"503: no endpoint is available\n",
            Self::BreakerOpen(_) => b"503: requests like this one have failed, and are not tried now\n",
            Self::EndpointsFull => b"503: every endpoint has as much as it may have\n",
            Self::ConnectFailed => b"502: no endpoint accepts a connection\n",
            Self::ConnectTimedOut => b"504: no endpoint accepts a connection in time\n",
            Self::Untrusted => b"502: no TLS with the endpoint: its certificate is not trusted, or nothing in common\n",
            Self::Unresolved => b"502: the endpoint's name has no address\n",
            Self::UpstreamClosed => b"502: the endpoint closed the connection before it answered\n",
            Self::UpstreamTimedOut => b"504: the endpoint did not answer in time\n",
            Self::UpstreamSilent => {
                b"504: the endpoint has stopped answering; whether it did what was asked is not known\n"
            }
            Self::DeadlinePassed => b"504: the time for this request is over\n",
            Self::UpstreamMalformed => b"502: the endpoint's answer is not valid HTTP\n",
            Self::UpgradeIgnored => b"502: the endpoint does not switch to the protocol that was asked for\n",
            Self::UpgradeUnsupported => b"502: the endpoint takes no WebSockets over the HTTP that it speaks\n",
            Self::UpstreamTruncated => b"502: the endpoint's answer broke off\n",
            Self::OutOfResources => b"503: out of resources\n",
            Self::TooEarly => b"425: the TLS handshake was not finished in time\n",
            Self::Limited(_) => b"too many requests: slow down\n",
            Self::Crowded => b"503: too many requests are ahead of this one\n",
            Self::Overloaded(_) => b"503: too many requests at once\n",
            Self::ClientMalformed(_) => b"the request is not valid HTTP\n",
            Self::ClientTimedOut => b"408: the request did not arrive in time\n",
            Self::ClientGone | Self::Drained => b"",
        }
    }
}

/// Answers a request whose head was read. Returns the status sent.
pub(super) fn answer(door: &Door, lane: &mut Lane<'_, Server>, request: &Request, reason: Reason) -> u16 {
    if reason == Reason::ClientGone {
        return 0;
    }
    if door.desk.draining.get() {
        lane.close_after();
    }
    let mut value = door.desk.value.borrow_mut();
    let fields = limit_fields(door, reason, &mut value);
    let mut respond = respond_to(lane, request, reason.status());
    ours(&mut respond, reason);
    if let Some(web) = call(door, request) {
        let fields = grpc::refusal(reason, reason.body().trim_ascii_end());
        grpc::as_grpc(&mut respond, web);
        respond.add = &fields;
        return send(door, lane, &respond);
    }
    if let Some(fields) = &fields {
        respond.add = fields;
    }
    send(door, lane, &respond)
}

/// Whether a request is a call of gRPC, and how one of gRPC-Web says so. Its caller understands nothing else, whoever speaks it behind us.
fn call(door: &Door, request: &Request) -> Option<Option<Web>> {
    let mut fields = door.desk.request_fields.borrow_mut();
    ensure_parsed(door, request, &mut fields);
    let bytes = request.bytes.bytes();
    grpc::web(&fields, bytes).map(Some).or_else(|| grpc::is_grpc(&fields, bytes).then_some(None))
}

/// The answer of a route that asks no endpoint: a redirect, or what the configuration says. Returns the status sent.
pub(super) fn of_route(
    door: &Door,
    lane: &mut Lane<'_, Server>,
    request: &Request,
    peer: &Peer,
    matched: &Matched<'_>,
) -> u16 {
    match &matched.route.action {
        Action::Redirect(redirect) => {
            let own = Own { status: redirect.status, headers: &[], body: &[], redirect: Some(redirect) };
            configured(door, lane, request, peer, matched, &own)
        }
        Action::Respond(answer) => fixed(door, lane, request, peer, matched, answer),
        Action::Pool(_) | Action::Split { .. } | Action::Candidates(_) => {
            answer(door, lane, request, Reason::NoEndpoint)
        }
    }
}

/// An answer that the configuration gives in an endpoint's stead. Returns the status sent.
pub(super) fn fixed(
    door: &Door,
    lane: &mut Lane<'_, Server>,
    request: &Request,
    peer: &Peer,
    matched: &Matched<'_>,
    fixed: &Fixed,
) -> u16 {
    let own = Own { status: fixed.status, headers: &fixed.headers, body: &fixed.body, redirect: None };
    configured(door, lane, request, peer, matched, &own)
}

/// An answer of the configuration's.
struct Own<'a> {
    status: Status,
    headers: &'a [HeaderRule],
    body: &'a [u8],
    redirect: Option<&'a Redirect>,
}

fn configured(
    door: &Door,
    lane: &mut Lane<'_, Server>,
    request: &Request,
    peer: &Peer,
    matched: &Matched<'_>,
    own: &Own<'_>,
) -> u16 {
    let Own { status, headers, body, redirect } = *own;
    if door.desk.draining.get() {
        lane.close_after();
    }
    let more = &*matched.route.rewrite.response.add;
    let mut value = door.desk.value.borrow_mut();
    value.clear();
    let mut places = [[Place::default(); limits::HEADER_RULES_MAX]; 2];
    let mut fields = door.desk.request_fields.borrow_mut();
    ensure_parsed(door, request, &mut fields);
    let location = door.with_facts(request, &fields, peer, matched, |facts| {
        write_values(headers, facts, &mut value, &mut places[0]);
        write_values(more, facts, &mut value, &mut places[1]);
        let start = value.len();
        if let Some(redirect) = redirect {
            redirect.to.write(facts, redirect.keep_query, &mut value);
        }
        start
    });
    let mut added = Added::<{ 1 + 2 * limits::HEADER_RULES_MAX }>::default();
    let rules = headers.iter().zip(places[0]).chain(more.iter().zip(places[1]));
    for (rule, place) in rules {
        added.add(rule.name.as_bytes(), place.of(&value));
    }
    if location < value.len() {
        added.add(b"location", &value[location..]);
    }
    let mut respond = respond_to(lane, request, status);
    respond.body = body;
    let typed = headers.iter().chain(more).any(|rule| rule.known == Known::ContentType);
    respond.content_type = if typed || body.is_empty() { b"" } else { b"text/plain; charset=utf-8" };
    respond.add = added.as_slice();
    send(door, lane, &respond)
}

/// An answer to a request whose head was read, still without anything in it.
fn respond_to<'a>(lane: &Lane<'_, Server>, request: &Request, status: Status) -> Respond<'a> {
    let mut respond = Respond::new(status);
    // Content that nobody reads would be taken for the next request.
    respond.persistent = lane.is_persistent() && lane.is_body_read();
    respond.head_only = request.head.method == Method::Head;
    respond.peer = request.head.version;
    respond
}

/// `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10), for a request that a limit has turned away.
fn limit_fields<'a>(door: &Door, reason: Reason, value: &'a mut Vec<u8>) -> Option<[(&'static [u8], &'a [u8]); 2]> {
    let Reason::Limited(limited) = reason else { return None };
    value.clear();
    let at = usize::from(limited.at);
    let Limit { name, fields, .. } = &door.snapshot[limited.route].qos.limits[at];
    if *fields == LimitFields::Off {
        return None;
    }
    limited.told.write_limit(name, value);
    let middle = value.len();
    value.extend_from_slice(door.qos.limits(limited.route)[at].policy());
    let (limit, policy) = value.split_at(middle);
    Some([(b"ratelimit", limit), (b"ratelimit-policy", policy)])
}

/// Answers a client whose request could not even be read, and ends the connection.
pub(super) fn refuse(door: &Door, lane: &mut Lane<'_, Server>, reason: Reason) -> u16 {
    let mut respond = Respond::new(reason.status());
    ours(&mut respond, reason);
    send(door, lane, &respond)
}

/// Says why.
fn ours(respond: &mut Respond<'_>, reason: Reason) {
    respond.content_type = b"text/plain";
    respond.body = reason.body();
    respond.retry_after = reason.retry_secs();
}

fn send(door: &Door, lane: &mut Lane<'_, Server>, respond: &Respond<'_>) -> u16 {
    let sent = lane.respond(respond, &mut door.desk.head.borrow_mut());
    sent.map_or(0, |()| respond.status.code())
}
