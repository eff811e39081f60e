//! Which way a request goes, and what is known of it for rewriting.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use policy::split;
use proto::Malformed;
use proto::http::authority::{Form, split_port};
use proto::http::{Fields, Known, Method};
use ring::Now;

use super::bridge::Web;
use super::headers::ensure_parsed;
use super::{Door, Peer, Reason, Request, grpc};
use crate::limits;
use crate::snapshot::{
    Action, Asked, Facts, Fallback, Fixed, Found, PathPattern, PoolId, Route, Sticky, Target, Timeouts, normal,
};
use crate::upstream::{Passage, Selecting, Selection, policy_now};

/// The route that a request has matched.
#[derive(Clone, Copy)]
pub(super) struct Matched<'a> {
    pub(super) route: &'a Route,
    found: Found,
}

/// The way to an endpoint.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) matched: Matched<'a>,
    pub(super) pool: PoolId,
    pub(super) timeouts: &'a Timeouts,
    /// Of the whole exchange.
    pub(super) deadline: Option<Now>,
    /// It is a call of gRPC.
    pub(super) grpc: bool,
    /// It came as gRPC-Web, and leaves as gRPC.
    pub(super) web: Option<Web>,
    /// Of several candidates those that the request has been to, a bit each; none where there was no choice.
    pub(super) been: u16,
}

impl Way<'_> {
    /// The exchange has no time left.
    pub(super) fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= ring::now())
    }

    /// How long connecting may take now.
    pub(super) fn connect(&self) -> Duration {
        let left = self.deadline.map_or(Duration::MAX, |deadline| deadline.since(ring::now()));
        self.timeouts.connect.min(left)
    }
}

/// Where a request goes.
pub(super) enum Routed<'a> {
    To(Way<'a>),
    /// The route answers by itself.
    Here(Matched<'a>),
}

/// What the breaker of its route makes of a request.
pub(super) enum Passed<'a> {
    Through(Passage<'a>),
    /// To the pool that stands in.
    Instead(Way<'a>),
    /// It is answered so.
    Answered(&'a Fixed),
}

impl<'a> Way<'a> {
    /// The same request's to another target, where there is no choice.
    pub(super) const fn only(&self, target: &'a Target) -> Self {
        Self { pool: target.pool, timeouts: &target.timeouts, deadline: None, been: 0, ..*self }
    }
}

impl<'a> Matched<'a> {
    /// The route's number.
    pub(super) fn index(&self) -> usize {
        usize::from(self.found.route.0)
    }

    /// What the request's path was matched by.
    fn pattern(&self) -> &'a PathPattern {
        &self.route.paths[usize::from(self.found.path)]
    }
}

impl Door {
    /// Where a request goes; that it goes nowhere is an answer too.
    pub(super) fn route(&self, request: &Request, peer: &Peer) -> Result<Routed<'_>, Reason> {
        let bytes = request.bytes.bytes();
        let mut fields = self.desk.request_fields.borrow_mut();
        ensure_parsed(self, request, &mut fields);
        let mut normal = self.desk.path.borrow_mut();
        let (path, ambiguous) = self.path(request, &mut normal);
        let asked = Asked {
            host: split_port(request.head.authority.of(bytes)).0,
            path,
            query: request.head.query.of(bytes),
            method: request.head.method_text.of(bytes),
            client: if self.snapshot.table.asks_client { self.client(request, &fields, peer) } else { None },
            fields: &fields,
            bytes,
        };
        let (found, route) = self.snapshot.route(&asked).ok_or(Reason::NoRoute)?;
        if ambiguous && !route.raw_path {
            return Err(Reason::AmbiguousPath);
        }
        let matched = Matched { route, found };
        let mut been = 0;
        let Target { pool, timeouts } = match &route.action {
            Action::Pool(target) => target,
            Action::Split { targets, split, sticky } => {
                let part = split.pick(self.key(request, &fields, peer, sticky));
                part.and_then(|part| targets.get(part)).ok_or(Reason::NoEndpoint)?
            }
            Action::Candidates(candidates) => {
                let selection = self.selections[matched.index()].as_ref().ok_or(Reason::NoEndpoint)?;
                // A tunnel would stay where it was only to look around, and content may be too long to keep.
                let head = &request.head;
                let repeatable = head.method.is_idempotent() && !head.framing.has_body() && head.upgrade.is_empty();
                let at = self.selecting(repeatable, |asked| selection.choose(asked));
                been = 1 << at;
                &candidates.targets[at]
            }
            Action::Redirect(redirect) if asked.host.is_empty() && redirect.to.needs_host() => {
                return Err(Reason::ClientMalformed(Malformed::HostMissing));
            }
            Action::Redirect(_) | Action::Respond(_) => return Ok(Routed::Here(matched)),
        };
        let web = if route.grpc_web { grpc::web(&fields, bytes) } else { None };
        let grpc = web.is_some() || grpc::is_grpc(&fields, bytes);
        let waits = if grpc { grpc::timeout(&fields, bytes) } else { None };
        let total = waits.into_iter().chain(route.total).min();
        let deadline = total.map(|total| request.begun + total.min(limits::TIME_MAX));
        Ok(Routed::To(Way { matched, pool: *pool, timeouts, deadline, grpc, web, been }))
    }

    /// Asks the breaker of a request's route, if it has one.
    pub(super) fn pass<'a>(&'a self, way: &Way<'a>) -> Result<Passed<'a>, Reason> {
        let rule = way.matched.route.breaker.as_ref();
        let Some((rule, breaker)) = rule.zip(self.breakers[way.matched.index()].as_ref()) else {
            return Ok(Passed::Through(Passage::default()));
        };
        let now = policy_now(ring::now());
        let shut_until = match breaker.admit(now) {
            Ok(passage) => return Ok(Passed::Through(passage)),
            Err(until) => until,
        };
        match &rule.fallback {
            Some(Fallback::Pool(Target { pool, timeouts })) => {
                Ok(Passed::Instead(Way { pool: *pool, timeouts, been: 0, ..*way }))
            }
            Some(Fallback::Answer(fixed)) => Ok(Passed::Answered(fixed)),
            None => Err(Reason::BreakerOpen(shut_until.map(|until| secs_until(until, now)))),
        }
    }

    fn selecting<T>(&self, repeatable: bool, then: impl FnOnce(&Selecting<'_>) -> T) -> T {
        let waits = |pool| self.qos.room(pool).is_some_and(|room| room.is_full());
        then(&Selecting { now: policy_now(ring::now()), repeatable, waits: &waits })
    }

    /// Whether another pool would have a request.
    pub(super) fn has_another(&self, way: &Way<'_>, repeatable: bool) -> bool {
        self.next(way, repeatable).is_some()
    }

    /// The way to another pool that would have a request, when this one has nobody for it.
    pub(super) fn another<'a>(&self, way: &Way<'a>, repeatable: bool) -> Option<Way<'a>> {
        let (selection, at) = self.next(way, repeatable)?;
        let Target { pool, timeouts } = way.matched.route.targets().get(at)?;
        selection.moved(at);
        Some(Way { pool: *pool, timeouts, been: way.been | 1 << at, ..*way })
    }

    fn next(&self, way: &Way<'_>, repeatable: bool) -> Option<(&Selection, usize)> {
        let selection = self.selections[way.matched.index()].as_ref().filter(|_| way.been != 0)?;
        let at = self.selecting(repeatable, |asked| selection.next(way.been, asked))?;
        Some((selection, at))
    }

    /// The request's path in the form in which routes are matched, and whether it is ambiguous.
    pub(super) fn path<'a>(&self, request: &'a Request, normal: &'a mut Vec<u8>) -> (&'a [u8], bool) {
        let head = &request.head;
        let path = head.path.of(request.bytes.bytes());
        if path.is_empty() && head.form == Form::Absolute && (head.method != Method::Options || !head.query.is_empty())
        {
            return (b"/", false);
        }
        if !self.snapshot.table.tells_paths_apart || normal::is_plain(path) {
            return (path, false);
        }
        let ambiguous = normal::normalise(path, normal);
        (normal, ambiguous)
    }

    /// Tells `then` what is known of a request.
    pub(super) fn with_facts<T>(
        &self,
        request: &Request,
        fields: &Fields,
        peer: &Peer,
        matched: &Matched<'_>,
        then: impl FnOnce(&Facts<'_>) -> T,
    ) -> T {
        let bytes = request.bytes.bytes();
        let mut normal = self.desk.path.borrow_mut();
        let mut client = [0; 45];
        then(&Facts {
            client: self.client_text(request, fields, peer, &mut client),
            host: split_port(request.head.authority.of(bytes)).0,
            path: self.path(request, &mut normal).0,
            query: request.head.query.of(bytes),
            method: request.head.method_text.of(bytes),
            pattern: matched.pattern(),
        })
    }

    /// The client's address: the peer's, unless the peer is a trusted proxy, which says for whom it asks. Proxies append,
    /// so the last address of `X-Forwarded-For` that is no trusted proxy's is the first one that nobody can make up.
    pub(super) fn client(&self, request: &Request, fields: &Fields, peer: &Peer) -> Option<IpAddr> {
        let mut client = peer.address()?;
        if !peer.trusted || !fields.has(Known::XForwardedFor) {
            return Some(client);
        }
        let bytes = request.bytes.bytes();
        let lines = fields.iter().rev().filter(|field| field.known == Known::XForwardedFor);
        for hop in lines.flat_map(|field| field.value.of(bytes).rsplit(|&byte| byte == b',')) {
            let Some(address) = address(hop) else { break };
            client = address;
            if !self.listener().trusted.contains(address) {
                break;
            }
        }
        Some(client)
    }

    pub(super) fn client_text<'a>(
        &self,
        request: &Request,
        fields: &Fields,
        peer: &'a Peer,
        out: &'a mut [u8; 45],
    ) -> &'a [u8] {
        use std::io::Write;
        if !peer.trusted || !fields.has(Known::XForwardedFor) {
            return peer.text();
        }
        let Some(client) = self.client(request, fields, peer) else { return peer.text() };
        let mut rest = &mut out[..];
        // 45 bytes hold the longest IPv6 text.
        let _ = write!(rest, "{}", client.to_canonical());
        let length = 45 - rest.len();
        &out[..length]
    }

    /// What a client is known by.
    fn key(&self, request: &Request, fields: &Fields, peer: &Peer, sticky: &Sticky) -> u64 {
        let bytes = request.bytes.bytes();
        let value = match sticky {
            Sticky::Client => None,
            Sticky::Header(name) => fields.find(name.as_bytes(), bytes).map(|field| field.value.of(bytes)),
            Sticky::Cookie(name) => fields
                .all(Known::Cookie)
                .flat_map(|field| field.value.of(bytes).split(|&byte| byte == b';'))
                .find_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=")),
        };
        let mut client = [0; 45];
        split::key_of(match value {
            Some(value) if !value.is_empty() => value,
            _ => self.client_text(request, fields, peer, &mut client),
        })
    }
}

/// In whole seconds, and no less than one: `Retry-After` knows no others (RFC 9110 §10.2.3).
fn secs_until(until: policy::Now, now: policy::Now) -> u32 {
    u32::try_from(until.nanos_since(now).div_ceil(1_000_000_000).max(1)).unwrap_or(u32::MAX)
}

/// An element of `X-Forwarded-For`; some proxies add the port.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop.trim_ascii()).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}
