//! A connection that carries many exchanges at a time: one task that pumps it, and one for each exchange on it.
//!
//! The pump ends an idle connection in time, one that is half said, and, when the engine drains, takes leave in two steps, so that requests
//! which are on their way are still served (RFC 9113 §6.8, RFC 9114 §5.2).

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use proto::h1::Server;
use ring::{Now, Timer};

use super::Sessions;
use crate::conn::{Arrival, Ended, Multiplexed};
use crate::exchange::{self, Door, Peer, Reason, Request};
use crate::limits;
use crate::telemetry::Counters;

/// What the connection's task holds.
struct Pump<M> {
    door: Rc<Door>,
    sessions: Rc<Sessions>,
    connection: M,
    peer: Rc<Peer>,
    timer: Timer,
    state: State,
    /// When it became so.
    since: Now,
    /// It has carried a request.
    served: bool,
    /// What an idle connection does not need has been given back.
    trimmed: bool,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum State {
    /// Something was begun, and is no request yet.
    HalfSaid,
    Busy,
    Idle,
    /// It has been idle for too long, and the client is being told.
    Leaving,
}

/// Serves a connection until it is over; gives back the door that stands there then.
pub(super) async fn run<M: Multiplexed<Role = Server>>(
    door: Rc<Door>,
    sessions: &Rc<Sessions>,
    connection: M,
    peer: Peer,
) -> (Ended, Rc<Door>) {
    let mut pump = Pump {
        door,
        sessions: Rc::clone(sessions),
        connection,
        peer: Rc::new(peer),
        timer: Timer::new(),
        state: State::HalfSaid,
        since: ring::now(),
        served: false,
        trimmed: false,
    };
    let ended = poll_fn(|cx| pump.poll(cx)).await;
    pump.connection.close(ended);
    // The client is told why, and what it still sends is heard out, so that no RST overtakes our last words.
    if ended != Ended::Gone {
        pump.connection.linger(limits::LINGER, limits::LINGER_BYTES_MAX).await;
    }
    (ended, pump.door)
}

impl<M: Multiplexed<Role = Server>> Pump<M> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        loop {
            if self.sessions.draining().is_some() {
                self.connection.drain();
            }
            if let Some(door) = self.door.newer() {
                self.door = door;
            }
            let Self { door, peer, connection, served, .. } = self;
            let mut refused = Vec::new();
            let moved = connection.poll(cx, &mut |arrival| {
                *served = true;
                refused.extend(begin::<M>(door, peer, arrival));
            });
            refused.into_iter().for_each(M::refuse);
            if let Poll::Ready(ended) = moved {
                return Poll::Ready(ended);
            }
            self.look();
            let patience = match self.state {
                State::Busy => None,
                State::HalfSaid => Some(self.door.listener().head_timeout),
                // Who connects and says nothing is granted a head's time; who has been served, a pause.
                State::Idle if self.served => Some(self.door.listener().keep_alive_timeout),
                State::Idle => Some(self.door.listener().head_timeout),
                State::Leaving => Some(limits::LINGER),
            };
            let given_up = patience.map(|patience| self.since + patience);
            if given_up.is_some_and(|at| at <= ring::now()) {
                if self.state != State::Idle {
                    return Poll::Ready(Ended::Finished);
                }
                self.connection.drain();
                (self.state, self.since) = (State::Leaving, ring::now());
                continue;
            }
            let due = [given_up, self.trim_at(), self.connection.deadline()].into_iter().flatten().min();
            let Some(due) = due else { return Poll::Pending };
            self.timer.set(due);
            if !self.timer.poll_expired() {
                return Poll::Pending;
            }
        }
    }

    /// Notes what the connection is at now.
    fn look(&mut self) {
        let state = if self.connection.is_busy() {
            State::Busy
        } else if self.connection.is_idle() {
            if self.state == State::Leaving { State::Leaving } else { State::Idle }
        } else {
            State::HalfSaid
        };
        if state != self.state {
            (self.state, self.since, self.trimmed) = (state, ring::now(), false);
        }
        if self.trim_at().is_some_and(|at| at <= ring::now()) {
            self.connection.trim();
            self.trimmed = true;
        }
    }

    /// When what an idle connection does not need is given back: not between two requests.
    fn trim_at(&self) -> Option<Now> {
        (self.state == State::Idle && !self.trimmed).then(|| self.since + limits::HTTP2_TRIM_AFTER)
    }
}

/// The worker has as many requests under way as it may.
fn is_full(counters: &Counters) -> bool {
    counters.requests_open.get() >= limits::EXCHANGES_MAX
}

/// A request becomes a task of its own. One that the worker has no room for comes back, to be refused when the connection has been polled.
fn begin<M: Multiplexed<Role = Server>>(door: &Rc<Door>, peer: &Rc<Peer>, arrival: Arrival<M>) -> Option<M::Stream> {
    let (door, peer) = (Rc::clone(door), Rc::clone(peer));
    match arrival {
        Arrival::Request(stream, ..) if is_full(&door.cells.counters) => {
            door.cells.counters.requests_refused_total.add(1);
            return Some(stream);
        }
        Arrival::Request(stream, head, bytes, index) => {
            let request = Request { head, bytes, index: Some(index), begun: ring::now(), early: false, key: None };
            ring::spawn(serve::<M>(door, peer, stream, request));
        }
        Arrival::Refused(stream, malformed) => {
            door.cells.counters.requests_malformed_total.add(1);
            if let Some(stream) = stream {
                ring::spawn(refuse::<M>(door, peer, stream, Reason::ClientMalformed(malformed)));
            }
        }
    }
    None
}

async fn serve<M: Multiplexed<Role = Server>>(door: Rc<Door>, peer: Rc<Peer>, mut stream: M::Stream, request: Request) {
    let mut timer = Timer::new();
    if is_given_up::<M>(&door.cells.counters, &mut stream, &mut timer).await {
        door.cells.counters.requests_total.add(1);
        door.cells.counters.requests_abandoned_total.add(1);
        return;
    }
    exchange::serve(&door, &mut M::lane(&mut stream), request, &peer, &mut timer).await;
}

/// Whether a request is given up before it costs an endpoint anything: in the breath that made it (CVE-2023-44487); or a moment later, by who has
/// done so again and again.
async fn is_given_up<M: Multiplexed<Role = Server>>(
    counters: &Counters,
    stream: &mut M::Stream,
    timer: &mut Timer,
) -> bool {
    if poll_fn(|cx| Poll::Ready(M::lane(stream).poll_broken(cx).is_ready())).await {
        return true;
    }
    if !M::is_doubtful(stream) {
        return false;
    }
    counters.requests_doubted_total.add(1);
    counters.requests_open.add(1);
    timer.set(ring::now() + limits::DOUBT);
    let given_up = poll_fn(|cx| match M::lane(stream).poll_broken(cx) {
        Poll::Ready(()) => Poll::Ready(true),
        Poll::Pending if timer.poll_expired() => Poll::Ready(false),
        Poll::Pending => Poll::Pending,
    });
    let given_up = given_up.await;
    counters.requests_open.sub(1);
    timer.clear();
    given_up
}

async fn refuse<M: Multiplexed<Role = Server>>(door: Rc<Door>, peer: Rc<Peer>, mut stream: M::Stream, reason: Reason) {
    exchange::refuse(&door, &mut M::lane(&mut stream), &peer, &[], reason);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::WorkerCells;

    #[test]
    fn a_worker_has_so_many_requests_and_no_more() {
        let cells = WorkerCells::default();
        cells.counters.requests_open.add(limits::EXCHANGES_MAX - 1);
        assert!(!is_full(&cells.counters));
        cells.counters.requests_open.add(1);
        assert!(is_full(&cells.counters));
        cells.counters.requests_open.sub(1);
        assert!(!is_full(&cells.counters));
    }
}
