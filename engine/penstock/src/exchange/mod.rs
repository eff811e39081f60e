//! The straight line: what happens to a request, from top to bottom.
//!
//! admit → route → pick → lease → forward and relay → settle. Read [`serve`] to know the product. What holds here: a
//! request is answered exactly once; it is tried again only while nothing has gone downstream; every try that picked an
//! endpoint is recorded there once, whatever became of it.

mod door;
mod half;
mod headers;
mod relay;
mod replay;
mod respond;
mod tries;
mod tunnel;

use std::rc::Rc;

use proto::h1::{RequestHead, Server};
use ring::{Buf, Now, Timer};

pub use self::door::{Desk, Door, Peer};
use self::relay::{Exchange, Relayed};
pub use self::respond::{Reason, refuse};
use self::tries::Tries;
pub use self::tunnel::{Tunnelled, tunnel};
use crate::conn::Conn;
use crate::telemetry::access_log::Line;
use crate::upstream::{Endpoint, Wanted, policy_now};

/// A request whose head has been read.
pub struct Request {
    pub head: RequestHead,
    /// The head's bytes.
    pub bytes: Buf,
    pub begun: Now,
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
}

/// Serves one request on `conn`. What the connection may do afterwards, its machine knows.
pub async fn serve(door: &Door, conn: &mut Conn<Server>, request: Request, peer: &Peer, timer: &mut Timer) {
    door.cells.counters.requests_total.add(1);
    door.cells.counters.requests_open.add(1);
    let mut settled = Settled::default();
    attempt(door, conn, &request, peer, timer, &mut settled).await;
    settle(door, &request, peer, &settled);
}

/// Routes, and tries until there is an answer or a reason why there is none.
async fn attempt(
    door: &Door,
    conn: &mut Conn<Server>,
    request: &Request,
    peer: &Peer,
    timer: &mut Timer,
    settled: &mut Settled,
) {
    let Some((id, route)) = door.route(request) else {
        door.cells.counters.requests_unrouted_total.add(1);
        return settled.refused(door, conn, request, Reason::NoRoute);
    };
    let pool = &door.snapshot[route.pool];
    let cluster = door.cluster(route.pool);
    settled.route = Some(usize::from(id.0));
    cluster.count_request(policy_now(ring::now()));
    let mut tries = Tries::new(door, request, route);
    let exchange = Exchange { door, request, peer, route };
    loop {
        if !tries.pause().is_zero() {
            ring::sleep(tries.pause()).await;
        }
        let Some(mut attempt) = tries.pick() else {
            return settled.refused(door, conn, request, tries.last_reason());
        };
        settled.tried(&attempt.endpoint);
        let wanted = Wanted {
            endpoint: &attempt.endpoint,
            pool,
            connect: route.timeouts.connect,
            fresh: attempt.fresh,
            path: peer.path(),
        };
        let mut lease = match cluster.lease(wanted, timer, &door.cells.counters).await {
            Ok(lease) => lease,
            Err(error) => {
                if tries.failed(&attempt, &attempt.outcome((&error).into())) {
                    continue;
                }
                return settled.refused(door, conn, request, tries.last_reason());
            }
        };
        attempt.reused = lease.reused;
        match relay::run(exchange, conn, &mut lease, &mut tries, &mut attempt, timer, settled).await {
            Relayed::Done(class) => {
                tries.ended(&attempt, &attempt.outcome(class));
                cluster.give_back(lease, pool, &door.cells.counters);
                return;
            }
            Relayed::Upgraded => {
                let switched = policy::Class::Answered(policy::StatusClass::Informational);
                tries.ended(&attempt, &attempt.outcome(switched));
                settled.bytes += tunnel::upgraded(door, conn, lease, timer, route.timeouts.idle).await;
                return;
            }
            Relayed::GivenUp(outcome) => {
                tries.given_up(&attempt, &outcome);
                cluster.give_back(lease, pool, &door.cells.counters);
            }
            Relayed::Unanswered(class) => {
                drop(lease);
                if !tries.failed(&attempt, &attempt.outcome(class)) {
                    return settled.refused(door, conn, request, tries.last_reason());
                }
            }
        }
    }
}

impl Settled {
    fn refused(&mut self, door: &Door, conn: &mut Conn<Server>, request: &Request, reason: Reason) {
        self.reason = Some(reason);
        self.status = respond::answer(door, conn, request, reason);
    }

    fn tried(&mut self, endpoint: &Rc<Endpoint>) {
        self.endpoint = Some(Rc::clone(endpoint));
        self.tries = self.tries.saturating_add(1);
    }
}

/// Counts the exchange and tells the access log.
fn settle(door: &Door, request: &Request, peer: &Peer, settled: &Settled) {
    let duration = ring::now().since(request.begun);
    let cells = &door.cells;
    cells.counters.requests_open.sub(1);
    cells.counters.bytes_out_total.add(settled.bytes);
    cells.latency.record(duration.as_nanos() as u64);
    if settled.status > 0 {
        cells.responded(settled.status);
    }
    let Some(log) = &door.log else { return };
    let bytes = request.bytes.bytes();
    let (user_agent, referer) = headers::for_log(door, request);
    let line = Line {
        client: peer.text(),
        method: request.head.method_text.of(bytes),
        target: request.head.target.of(bytes),
        host: request.head.authority.of(bytes),
        user_agent: user_agent.of(bytes),
        referer: referer.of(bytes),
        version: if request.head.version == proto::http::Version::Http10 { "HTTP/1.0" } else { "HTTP/1.1" },
        status: settled.status,
        bytes: settled.bytes,
        duration,
        route: settled.route.map_or("", |route| &door.snapshot.routes[route].name),
        upstream: settled.endpoint.as_ref().map_or("", |endpoint| &endpoint.name),
        tries: settled.tries,
        reason: settled.reason.map_or("", Reason::text),
    };
    let dropped = log.borrow_mut().write(&line);
    cells.counters.log_lines_dropped_total.add(dropped);
}
