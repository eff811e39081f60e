//! The straight line: what happens to a request, from top to bottom.
//!
//! route → admit → pick → lease → forward and relay → settle. Read [`serve`] to know the product. What holds here: a
//! request is answered exactly once; it is tried again only while nothing has gone downstream; every try that picked an
//! endpoint is recorded there once, whatever became of it.

mod admit;
mod affinity;
mod bridge;
mod door;
mod early;
mod grpc;
mod half;
mod headers;
mod hedge;
mod held;
mod mirror;
mod relay;
mod replay;
mod respond;
mod route;
mod tries;
mod tunnel;
mod upgrade;

use std::rc::Rc;
use std::time::Duration;

use policy::Outcome;
use proto::h1::{RequestHead, Server};
use proto::http::{Framing, Method, Version};
use proto::ws;
use ring::{Buf, Now, Timer};

use self::admit::{Admitted, InPool};
pub use self::affinity::affinity_of_bytes;
pub use self::door::{Desk, Door, Doorway, Peer, Roll};
use self::relay::{Exchange, Relayed};
pub use self::respond::Reason;
use self::route::{Passed, Routed, Way};
use self::tries::Tries;
pub use self::tunnel::{Splicer, Splicing, Tunnelled, tunnel};
use crate::conn::{Index, Lane};
use crate::limits;
use crate::snapshot::{Fallback, Target};
use crate::telemetry::access_log::{Agreed, Line};
use crate::tls::Secured;
use crate::upstream::{Endpoint, Passage, Wanted};

/// A request whose head has been read.
pub struct Request {
    pub head: RequestHead,
    /// The head's bytes.
    pub bytes: Buf,
    /// The index of its fields, where it cannot be had from the bytes.
    pub index: Option<Index>,
    pub begun: Now,
    /// It goes on although it may be somebody's who only repeats it: endpoints are told.
    pub early: bool,
    /// What it asks for a WebSocket with, if it does: its own key, or ours where HTTP/2 has none.
    pub key: Option<Box<ws::Key>>,
}

/// How an exchange ended, for the log.
#[derive(Debug, Default)]
struct Settled {
    status: u16,
    bytes: u64,
    reason: Option<Reason>,
    endpoint: Option<Rc<Endpoint>>,
    route: Option<usize>,
    tries: u8,
    /// Whether it is copied to a mirror has been decided.
    mirrored: bool,
    /// What stands in for a pool has served it.
    fell_back: bool,
    /// It is a call of gRPC.
    call: bool,
    /// How that ended, as its endpoint says.
    grpc_status: Option<u8>,
    /// It has come to an end of its own, and been told of.
    is_told: bool,
}

/// An exchange that is told of in the end, also when it is cut because the time of a drain is up.
struct Told<'a> {
    door: &'a Door,
    peer: &'a Peer,
    request: Request,
    settled: Settled,
}

impl Told<'_> {
    /// It has ended. What TLS agreed upon may be known only now, after early data.
    fn ends(&mut self, secured: Option<Secured>) {
        self.settled.is_told = true;
        settle(self.door, &self.request, self.peer, secured.map(Into::into).unwrap_or_default(), &self.settled);
    }
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if self.settled.is_told || std::thread::panicking() {
            return;
        }
        self.settled.reason = Some(Reason::Drained);
        // Its connection is out of reach, and what TLS agreed upon there is not kept in every exchange for this.
        settle(self.door, &self.request, self.peer, Agreed::default(), &self.settled);
    }
}

/// Serves one request on `lane`. What the connection may do afterwards, its machine knows.
#[allow(clippy::manual_async_fn, reason = "an `async fn` would keep the request twice")]
pub fn serve<'a>(
    door: &'a Door,
    lane: &mut Lane<'_, Server>,
    request: Request,
    peer: &'a Peer,
    timer: &mut Timer,
) -> impl Future<Output = ()> {
    door.cells.counters.requests_total.add(1);
    door.cells.counters.requests_open.add(1);
    let mut told = Told { door, peer, request, settled: Settled::default() };
    async move {
        upgrade::prepare(told.door, &mut told.request);
        match early::pass(told.door, lane, &mut told.request, timer).await {
            Ok(()) => attempt(told.door, lane, &told.request, told.peer, timer, &mut told.settled).await,
            Err(reason) => drop(told.settled.refused(told.door, lane, &told.request, reason)),
        }
        told.ends(lane.secured());
    }
}

/// Routes, and answers at once where nobody is to be asked.
async fn attempt(
    door: &Door,
    lane: &mut Lane<'_, Server>,
    request: &Request,
    peer: &Peer,
    timer: &mut Timer,
    settled: &mut Settled,
) {
    // Nothing of this lives on but the way: it would be held as long as the exchange.
    let way = match door.route(request, peer) {
        Ok(Routed::To(way)) => way,
        Ok(Routed::Here(matched)) => {
            settled.route = Some(matched.index());
            settled.status = respond::of_route(door, lane, request, peer, &matched);
            return;
        }
        Err(reason) => {
            door.cells.counters.requests_unrouted_total.add(u64::from(reason == Reason::NoRoute));
            settled.refused(door, lane, request, reason);
            return;
        }
    };
    settled.route = Some(way.matched.index());
    settled.call = way.grpc;
    let passed = match door.pass(&way) {
        Ok(passed) => passed,
        Err(reason) => {
            settled.refused(door, lane, request, reason);
            return;
        }
    };
    let instead = !matches!(passed, Passed::Through(_));
    settled.fell_back = instead;
    door.cells.counters.fallbacks_total.add(u64::from(instead));
    let (way, mut passage) = match passed {
        Passed::Through(passage) => (way, passage),
        Passed::Instead(way) => (way, Passage::default()),
        Passed::Answered(fixed) => {
            settled.status = respond::fixed(door, lane, request, peer, &way.matched, fixed);
            return;
        }
    };
    let outcome = ask(door, lane, request, peer, timer, settled, way, &mut passage).await;
    passage.end(&outcome);
}

/// Tries until there is an answer or a reason why there is none. Returns how the last try ended.
#[allow(clippy::too_many_arguments, reason = "what it is given is what an exchange is")]
#[allow(clippy::manual_async_fn, reason = "an `async fn` would keep the way twice")]
fn ask<'a>(
    door: &'a Door,
    lane: &mut Lane<'_, Server>,
    request: &'a Request,
    peer: &'a Peer,
    timer: &mut Timer,
    settled: &mut Settled,
    way: Way<'a>,
    passage: &mut Passage<'_>,
) -> impl Future<Output = Outcome> {
    async move {
        let Admitted { paced, mut place, counted } = match door.admit(lane, request, peer, &way, timer).await {
            Ok(admitted) => admitted,
            Err(reason) => return settled.refused(door, lane, request, reason),
        };
        let mut tries = Tries::new(door, request, peer, way, counted);
        let mut exchange = Exchange { door, request, peer, way, paced: paced.as_ref() };
        loop {
            let (mut lease, mut attempt);
            if let Some(held) = tries.take_due(request, peer) {
                (lease, attempt, exchange.way) = (held.lease, held.attempt, held.way);
                settled.endpoint = Some(Rc::clone(&attempt.endpoint));
            } else {
                if let Some(pause) = tries.pause() {
                    ring::sleep(pause).await;
                }
                attempt = match tries.pick() {
                    Some(attempt) => attempt,
                    None => match without_endpoint(&mut exchange, &mut tries, &mut place, lane, timer, settled).await {
                        Ok(true) => continue,
                        Ok(false) => return unserved(settled),
                        Err(reason) if tries.resorts(reason) => continue,
                        Err(reason) => return settled.refused(door, lane, request, reason),
                    },
                };
                place.has_endpoint();
                settled.tried(&attempt.endpoint);
                let wanted = Wanted {
                    endpoint: &attempt.endpoint,
                    pool: tries.pool(),
                    connect: exchange.way.connect(),
                    fresh: attempt.fresh,
                    upgrade: !request.head.upgrade.is_empty(),
                    short: is_short(request, lane),
                    path: peer.path(),
                };
                lease = match tries.cluster().lease(wanted, timer, &door.cells).await {
                    Ok(lease) => lease,
                    Err(error) => {
                        let again = tries.unconnected(&attempt, &error) && !exchange.way.is_over();
                        if again || tries.resorts(tries.reason()) {
                            continue;
                        }
                        return settled.refused(door, lane, request, tries.reason());
                    }
                };
                attempt.reused = lease.reused;
            }
            match relay::run(&exchange, lane, &mut lease, &mut tries, &mut attempt, timer, settled).await {
                Relayed::Done(class) => {
                    let outcome = attempt.outcome(class);
                    tries.ended(&attempt, &outcome);
                    place.end(&outcome);
                    tries.give_back(lease, settled.bytes, &door.cells.counters);
                    return outcome;
                }
                Relayed::Upgraded(agreed) => {
                    let switched = attempt.outcome(policy::Class::Answered(policy::StatusClass::Informational));
                    tries.ended(&attempt, &switched);
                    // A tunnel says nothing more, and may last.
                    passage.end(&switched);
                    let bytes = &mut settled.bytes;
                    tunnel::upgraded(door, lane, &mut lease, timer, &exchange.way, agreed, exchange.paced, bytes).await;
                    return switched;
                }
                Relayed::GivenUp(outcome) => {
                    tries.given_up(&mut attempt, &outcome);
                    if attempt.answer.is_some() {
                        tries.hold(lease, attempt, exchange.way);
                    } else {
                        tries.give_back(lease, settled.bytes, &door.cells.counters);
                    }
                }
                Relayed::Unanswered(class) => {
                    drop(lease);
                    let outcome = attempt.outcome(class);
                    let again = tries.failed(&attempt, &outcome) && !exchange.way.is_over();
                    if !again && !tries.resorts(tries.reason()) {
                        place.end(&outcome);
                        settled.refused(door, lane, request, tries.reason());
                        return outcome;
                    }
                }
            }
        }
    }
}

/// The whole request is here, and little enough to be sent without waiting for anybody.
fn is_short(request: &Request, lane: &Lane<'_, Server>) -> bool {
    let content = match request.head.framing {
        Framing::None => 0,
        Framing::Length(length) => length,
        Framing::Chunked | Framing::UntilClose => return false,
    };
    let here = content == 0 || lane.is_body_read() || lane.here() as u64 >= content;
    let leaves = !request.head.upgrade.is_empty() || request.head.method == Method::Connect;
    here && !leaves && content.saturating_add(request.bytes.len() as u64) <= limits::SAME_HOST_REQUEST_MAX
}

/// No endpoint can have the request. True when one may after this: it has waited, or what stands in for the pool has its own. False: what stands in for
/// it has answered.
///
/// # Errors
/// Why it is to be refused.
async fn without_endpoint<'a>(
    exchange: &mut Exchange<'a>,
    tries: &mut Tries<'a>,
    place: &mut InPool<'a>,
    lane: &mut Lane<'_, Server>,
    timer: &mut Timer,
    settled: &mut Settled,
) -> Result<bool, Reason> {
    let Exchange { door, request, peer, way, .. } = *exchange;
    if let Some(other) = tries.elsewhere(request, peer) {
        exchange.way = other;
        *place = InPool::default();
        *place = door.enter(lane, request, peer, &exchange.way, timer).await?;
    } else if tries.found_all_full() && place.can_wait() {
        place.again(lane, request, timer).await?;
    } else if tries.is_in_its_own_way() {
        tries.make_room().await;
    } else if let Some(look) = tries.wait() {
        admit::wait_for(look, lane, timer).await?;
    } else {
        door.cells.counters.no_endpoint_total.add(1);
        let fallback = tries.fallback();
        settled.fell_back |= fallback.is_some();
        door.cells.counters.fallbacks_total.add(u64::from(fallback.is_some()));
        match fallback {
            None => return Err(tries.reason()),
            Some(Fallback::Answer(fixed)) => {
                settled.status = respond::fixed(door, lane, request, peer, &way.matched, fixed);
                return Ok(false);
            }
            Some(Fallback::Pool(Target { pool, timeouts })) => {
                exchange.way = Way { pool: *pool, timeouts, ..way };
                // Whoever waits for a place in the other pool keeps none in this one.
                *place = InPool::default();
                *place = door.enter(lane, request, peer, &exchange.way, timer).await?;
                tries.enter(door, request, peer, exchange.way);
            }
        }
    }
    Ok(true)
}

/// A request that no endpoint could have: refused, or served by what stands in.
fn unserved(settled: &Settled) -> Outcome {
    Outcome::new(Duration::ZERO, settled.reason.unwrap_or(Reason::NoEndpoint).class())
}

impl Settled {
    /// Answers so, and tells what that says of those who were to serve it.
    fn refused(&mut self, door: &Door, lane: &mut Lane<'_, Server>, request: &Request, reason: Reason) -> Outcome {
        self.reason = Some(reason);
        self.status = respond::answer(door, lane, request, reason);
        Outcome::new(Duration::ZERO, reason.class())
    }

    fn tried(&mut self, endpoint: &Rc<Endpoint>) {
        self.endpoint = Some(Rc::clone(endpoint));
        self.tries = self.tries.saturating_add(1);
    }
}

/// Refuses what is no request, and tells the access log: of what was `said`, its first line as far as it came.
pub fn refuse(door: &Door, lane: &mut Lane<'_, Server>, peer: &Peer, said: &[u8], reason: Reason) {
    let status = respond::refuse(door, lane, reason);
    if status > 0 {
        door.cells.responded(status);
    }
    let version = match lane {
        Lane::H1(_) => "HTTP/1.1",
        Lane::H2(_) => "HTTP/2.0",
        Lane::H3(_) => "HTTP/3.0",
    };
    tell_refused(door, peer, said, Refused { status, reason: reason.text(), version, secured: lane.secured() });
}

/// How something that is no request was refused.
pub struct Refused {
    pub status: u16,
    pub reason: &'static str,
    pub version: &'static str,
    pub secured: Option<Secured>,
}

/// Tells the access log of it: of what was `said`, the first words of its first line.
pub fn tell_refused(door: &Door, peer: &Peer, said: &[u8], refused: Refused) {
    let Some(log) = &door.log else { return };
    let line = said.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let mut words = line[..line.len().min(limits::REFUSED_SAID_MAX)].splitn(3, |byte| *byte == b' ');
    let dropped = log.borrow_mut().write(&Line {
        client: peer.text(),
        method: words.next().unwrap_or_default(),
        target: words.next().unwrap_or_default(),
        version: refused.version,
        status: refused.status,
        tls: refused.secured.map(Into::into).unwrap_or_default(),
        reason: refused.reason,
        ..Line::default()
    });
    door.cells.counters.log_lines_dropped_total.add(dropped);
}

/// Counts the exchange and tells the access log.
fn settle(door: &Door, request: &Request, peer: &Peer, tls: Agreed, settled: &Settled) {
    let duration = ring::now().since(request.begun);
    let cells = &door.cells;
    cells.counters.requests_open.sub(1);
    cells.counters.bytes_out_total.add(settled.bytes);
    cells.latency.record(duration.as_nanos() as u64);
    if settled.status > 0 {
        cells.responded(settled.status);
    }
    let bytes = request.bytes.bytes();
    if settled.call {
        let (code, known) = grpc::outcome(settled.grpc_status, settled.reason);
        cells.calls.ended(request.head.path.of(bytes), code, known, duration.as_nanos() as u64);
    }
    let Some(log) = &door.log else { return };
    let (user_agent, referer) = headers::for_log(door, request);
    let line = Line {
        client: peer.text(),
        method: request.head.method_text.of(bytes),
        target: request.head.target.of(bytes),
        host: request.head.authority.of(bytes),
        user_agent: user_agent.of(bytes),
        referer: referer.of(bytes),
        version: match request.head.version {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2.0",
            Version::Http3 => "HTTP/3.0",
        },
        status: settled.status,
        bytes: settled.bytes,
        duration,
        route: settled.route.map_or("", |route| &door.snapshot.routes[route].name),
        upstream: settled.endpoint.as_ref().map_or("", |endpoint| &endpoint.name),
        tries: settled.tries,
        tls,
        reason: settled.reason.map_or(if settled.fell_back { "fallback" } else { "" }, Reason::text),
    };
    let dropped = log.borrow_mut().write(&line);
    cells.counters.log_lines_dropped_total.add(dropped);
}
