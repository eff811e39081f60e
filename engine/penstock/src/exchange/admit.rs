//! What a request passes before anybody works on it: the limits of its route, its turn, and a place in its pool.
//!
//! [`crate::qos`] decides; here requests become classes and keys, and a wait is ended by whatever ends it first. What holds: a
//! client that leaves while it waits is gone in that moment, and what it waited for goes to the next one.

use std::future::poll_fn;
use std::net::IpAddr;
use std::task::Poll;
use std::time::Duration;

use policy::Outcome;
use proto::h1::Server;
use proto::http::{Fields, Known, authority};
use ring::{Now, Timer};

use super::half::Pacing;
use super::headers::ensure_parsed;
use super::route::Way;
use super::{Door, Peer, Reason, Request};
use crate::conn::{Lane, Speaks, Transport};
use crate::limits;
use crate::qos::{ClassCells, Direction, Entering, Grant, Place, Told, Turns};
use crate::snapshot::{ClassId, Limit, LimitFields, LimitKey, Route, RouteId};
use crate::telemetry::Cell;
use crate::upstream::policy_now;

/// The pace of a request's content, or of a tunnel's bytes.
pub struct Paced<'a> {
    pub(super) turns: Turns<'a>,
    /// The most that goes at once.
    pub(super) quantum: usize,
    /// Counts what has gone.
    pub(super) gone: &'a Cell,
}

/// A request's place in its pool, where that has a limit.
#[derive(Default)]
pub(super) struct InPool<'a>(Option<Place<'a>>);

/// What lets a request in.
pub(super) struct Admitted<'a> {
    pub(super) paced: Option<Paced<'a>>,
    pub(super) place: InPool<'a>,
    pub(super) counted: Counted,
}

/// Where a request was counted, by the limits of its route in their order: for its answer to tell what is left.
#[derive(Clone, Copy, Default)]
pub(super) struct Counted([Grant; limits::ROUTE_LIMITS_MAX]);

/// A limit that a request has met.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limited {
    pub(super) route: RouteId,
    pub(super) at: u8,
    pub(super) status: u16,
    pub(super) told: Told,
}

impl Door {
    /// Lets a request in: at once, when its turn has come and there is a place, or not.
    pub(super) async fn admit(
        &self,
        lane: &mut Lane<'_, Server>,
        request: &Request,
        peer: &Peer,
        way: &Way<'_>,
        timer: &mut Timer,
    ) -> Result<Admitted<'_>, Reason> {
        let (id, route) = (RouteId(way.matched.index() as u16), way.matched.route);
        let class = self.class(request, peer, route);
        let cells = &self.qos.cells().classes[usize::from(class.0)];
        cells.requests.add(1);
        let counted = self.within_limits(request, peer, id, route)?;
        let turns = self.qos.turns(class, Some(id), || self.client_key(request, peer));
        if let Some(turns) = &turns
            && let Some(turn) = turn(turns, limits::PACE_WAIT_MAX, cells)?
        {
            wait_for(turn, lane, timer).await?;
        }
        let place = self.room(class, way, lane, timer).await?;
        let paced = turns.and_then(|turns| Paced::new(turns, cells));
        Ok(Admitted { paced, place, counted })
    }

    /// Lets a flow of datagrams begin: the class whose pace it keeps to, and when its turn comes, in a moment; `None` where it has no pace.
    ///
    /// # Errors
    /// Its turn is too far off for a datagram to wait for it.
    pub fn admit_flow(&self, client: IpAddr) -> Result<Option<(ClassId, Now)>, Reason> {
        let class = self.class_of_bytes(Some(client));
        let cells = &self.qos.cells().classes[usize::from(class.0)];
        cells.requests.add(1);
        let Some(turns) = self.qos.turns(class, None, || self.qos.client_key(client)) else { return Ok(None) };
        let turn = turn(&turns, limits::PACED_DATAGRAM_WAIT, cells)?;
        Ok(Some((class, turn.unwrap_or_else(ring::now))))
    }

    /// The class of what nobody reads: its listener's, or else that of its client's network.
    fn class_of_bytes(&self, client: Option<IpAddr>) -> ClassId {
        self.listener().class.or_else(|| client.and_then(|client| self.class_of(client))).unwrap_or_default()
    }

    /// Lets a connection in whose bytes nobody reads, when its turn has come.
    ///
    /// # Errors
    /// Its turn is too far off, or its client has gone before it came.
    pub async fn admit_bytes(
        &self,
        stream: &mut Transport,
        client: Option<IpAddr>,
        timer: &mut Timer,
    ) -> Result<Option<Paced<'_>>, Reason> {
        let class = self.class_of_bytes(client);
        let cells = &self.qos.cells().classes[usize::from(class.0)];
        cells.requests.add(1);
        let key = || client.map_or(0, |client| self.qos.client_key(client));
        let Some(turns) = self.qos.turns(class, None, key) else { return Ok(None) };
        if let Some(turn) = turn(&turns, limits::PACE_WAIT_MAX, cells)? {
            timer.set(turn);
            let waited = poll_fn(|cx| match timer.poll_expired() {
                true => Poll::Ready(Ok(())),
                false => stream.poll_broken(cx).map(|()| Err(Reason::ClientGone)),
            });
            waited.await?;
        }
        Ok(Paced::new(turns, cells))
    }

    /// Lets a request that has been admitted into another pool.
    pub(super) async fn enter(
        &self,
        lane: &mut Lane<'_, Server>,
        request: &Request,
        peer: &Peer,
        way: &Way<'_>,
        timer: &mut Timer,
    ) -> Result<InPool<'_>, Reason> {
        self.room(self.class(request, peer, way.matched.route), way, lane, timer).await
    }

    async fn room(
        &self,
        class: ClassId,
        way: &Way<'_>,
        lane: &mut Lane<'_, Server>,
        timer: &mut Timer,
    ) -> Result<InPool<'_>, Reason> {
        Ok(InPool(match self.qos.room(way.pool) {
            None => None,
            Some(room) => Some(enter(room.enter(class, way.deadline.map(policy_now)), lane, timer).await?),
        }))
    }

    /// Whose request it is: what a believed field says, or its route, or its client's network.
    fn class(&self, request: &Request, peer: &Peer, route: &Route) -> ClassId {
        let named = self.believed_class(request, peer).or(route.qos.class);
        named.or_else(|| self.class_of_network(request, peer)).unwrap_or_default()
    }

    fn believed_class(&self, request: &Request, peer: &Peer) -> Option<ClassId> {
        let name = self.listener().class_header.as_ref().filter(|_| peer.trusted)?;
        let mut fields = self.desk.request_fields.borrow_mut();
        ensure_parsed(self, request, &mut fields);
        let bytes = request.bytes.bytes();
        self.snapshot.class_named(fields.find(name.as_bytes(), bytes)?.value.of(bytes))
    }

    fn class_of_network(&self, request: &Request, peer: &Peer) -> Option<ClassId> {
        if self.snapshot.classes.iter().all(|class| class.clients.is_empty()) {
            return None;
        }
        self.class_of(self.client_of(request, peer)?)
    }

    fn class_of(&self, client: IpAddr) -> Option<ClassId> {
        let at = self.snapshot.classes.iter().position(|class| class.clients.contains(client))?;
        Some(ClassId(at as u8))
    }

    fn within_limits(&self, request: &Request, peer: &Peer, id: RouteId, route: &Route) -> Result<Counted, Reason> {
        let mut counted = Counted::default();
        for (at, (limiter, limit)) in self.qos.limits(id).iter().zip(&route.qos.limits).enumerate() {
            counted.0[at] = limiter.grant(|| self.counted_by(limit, request, peer)).map_err(|told| {
                self.qos.cells().limited[usize::from(id.0)].add(1);
                if limit.key == LimitKey::Client {
                    self.qos.refused(|| self.sender(request, peer));
                }
                Reason::Limited(Limited { route: id, at: at as u8, status: limit.status, told })
            })?;
        }
        Ok(counted)
    }

    /// Writes `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10) for the answer to a request that the limits of
    /// its route have let in, behind what `out` holds. Gives where either begins; nothing where nothing is told.
    pub(super) fn write_limits(&self, way: &Way<'_>, counted: &Counted, out: &mut Vec<u8>) -> Option<(usize, usize)> {
        let route = way.matched.route;
        let told = || {
            let limits = self.qos.limits(RouteId(way.matched.index() as u16)).iter().zip(&route.qos.limits);
            limits.zip(counted.0).filter(|((_, limit), _)| limit.fields == LimitFields::Always)
        };
        told().next()?;
        let first = out.len();
        for ((limiter, limit), grant) in told() {
            separate(first, out);
            limiter.told(grant).write_limit(&limit.name, out);
        }
        let second = out.len();
        for ((limiter, _), _) in told() {
            separate(second, out);
            out.extend_from_slice(limiter.policy());
        }
        Some((first, second))
    }

    /// What a request is counted by.
    fn counted_by(&self, limit: &Limit, request: &Request, peer: &Peer) -> u64 {
        let mut fields = self.desk.request_fields.borrow_mut();
        let bytes = request.bytes.bytes();
        let text = match &limit.key {
            LimitKey::Route => return 0,
            LimitKey::Client => None,
            LimitKey::Host => {
                return self.qos.key_without_case(authority::split_port(request.head.authority.of(bytes)).0);
            }
            // In its normal form: spelling one path in many ways makes it no other one.
            LimitKey::Path => return self.qos.key(self.path(request, &mut self.desk.path.borrow_mut()).0),
            LimitKey::Header(name) => {
                ensure_parsed(self, request, &mut fields);
                fields.find(name.as_bytes(), bytes).map(|field| field.value.of(bytes))
            }
            LimitKey::Cookie(name) => {
                ensure_parsed(self, request, &mut fields);
                cookie(&fields, bytes, name)
            }
        };
        match text {
            Some(text) if !text.is_empty() => self.qos.key(text),
            _ => {
                drop(fields);
                self.client_key(request, peer)
            }
        }
    }

    fn client_of(&self, request: &Request, peer: &Peer) -> Option<IpAddr> {
        let mut fields = self.desk.request_fields.borrow_mut();
        ensure_parsed(self, request, &mut fields);
        self.client(request, &fields, peer)
    }

    /// The client, where it is the one whose packets come in: nobody has told us of it.
    fn sender(&self, request: &Request, peer: &Peer) -> Option<IpAddr> {
        let is_told = peer.trusted || !self.listener().proxy_protocol_from.is_empty();
        if is_told { None } else { self.client_of(request, peer) }
    }

    fn client_key(&self, request: &Request, peer: &Peer) -> u64 {
        self.client_of(request, peer).map_or(0, |client| self.qos.client_key(client))
    }
}

/// When a turn comes that has to be waited for, at most for `patience`.
fn turn(turns: &Turns<'_>, patience: Duration, cells: &ClassCells) -> Result<Option<Now>, Reason> {
    let Some(turn) = turns.request(patience) else {
        cells.crowded.add(1);
        return Err(Reason::Crowded);
    };
    let later = turn > ring::now();
    cells.paced.add(u64::from(later));
    Ok(later.then_some(turn))
}

impl<'a> Paced<'a> {
    /// `None`: content has no pace.
    fn new(turns: Turns<'a>, cells: &'a ClassCells) -> Option<Self> {
        Some(Self { quantum: turns.quantum()?, turns, gone: &cells.paced_bytes })
    }

    /// Bytes that have to go at once have their turn all the same, and those after them theirs behind it.
    pub(super) fn gone(&self, direction: Direction, bytes: usize) {
        let _ = self.turns.content(direction, bytes);
        self.gone.add(bytes as u64);
    }

    /// Of one direction.
    pub(super) fn pacing(&'a self, direction: Direction) -> Pacing<'a> {
        Pacing::new(self, direction)
    }

    /// Receives no more at once than will go soon: what waits for its turn waits at its source.
    pub(super) fn curb<R: Speaks>(&self, lane: &mut Lane<'_, R>, expected: u64) {
        if expected < limits::BULK_FROM {
            return;
        }
        let bytes = self.quantum.clamp(limits::PACED_BYTES_MIN, limits::UNSENT_BYTES_MAX);
        lane.curb(bytes);
    }
}

impl InPool<'_> {
    /// There is somewhere to wait.
    pub(super) const fn can_wait(&self) -> bool {
        self.0.is_some()
    }

    /// All endpoints turned out to be full: waits for one of them, no longer than at first.
    pub(super) async fn again(
        &mut self,
        lane: &mut Lane<'_, Server>,
        request: &Request,
        timer: &mut Timer,
    ) -> Result<(), Reason> {
        // Whoever came between has its endpoint by now: so nobody asks twice in one turn.
        ring::yield_now().await;
        if let Some(place) = self.0.take() {
            self.0 = Some(enter(place.wait_again(policy_now(request.begun)), lane, timer).await?);
        }
        Ok(())
    }

    /// It has an endpoint.
    pub(super) fn has_endpoint(&self) {
        self.0.iter().for_each(Place::has_endpoint);
    }

    /// Its last try has ended: the pool's limit learns from it.
    pub(super) fn end(self, outcome: &Outcome) {
        if let Some(place) = self.0 {
            place.end(outcome.latency, outcome.verdict());
        }
    }
}

/// Between two members of a list that begins at `start` (RFC 9651 §3.1).
fn separate(start: usize, out: &mut Vec<u8>) {
    if out.len() > start {
        out.extend_from_slice(b", ");
    }
}

/// Waits for a place in a pool, for as long as the client does.
async fn enter<'a>(
    mut entering: Entering<'a>,
    lane: &mut Lane<'_, Server>,
    timer: &mut Timer,
) -> Result<Place<'a>, Reason> {
    timer.set(entering.latest());
    poll_fn(|cx| match entering.poll(ring::current_task()) {
        Poll::Ready(entered) => Poll::Ready(entered.map_err(Reason::Overloaded)),
        Poll::Pending if lane.poll_ended(cx).is_ready() => Poll::Ready(Err(gone(lane))),
        Poll::Pending => {
            if timer.poll_expired() {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        }
    })
    .await
}

/// Waits for the request's turn, for as long as the client does.
pub(super) async fn wait_for(turn: Now, lane: &mut Lane<'_, Server>, timer: &mut Timer) -> Result<(), Reason> {
    timer.set(turn);
    poll_fn(|cx| {
        if timer.poll_expired() {
            Poll::Ready(Ok(()))
        } else if lane.poll_broken(cx).is_ready() {
            Poll::Ready(Err(gone(lane)))
        } else {
            Poll::Pending
        }
    })
    .await
}

pub(super) fn gone(lane: &mut Lane<'_, Server>) -> Reason {
    lane.abort_written();
    Reason::ClientGone
}

fn cookie<'a>(fields: &Fields, bytes: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let pairs = fields.all(Known::Cookie).flat_map(|field| field.value.of(bytes).split(|&byte| byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}
