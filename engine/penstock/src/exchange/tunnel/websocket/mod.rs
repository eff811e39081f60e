//! A WebSocket in a tunnel: its frames pass untouched, and each is looked at as it passes (RFC 6455).
//!
//! What holds here:
//! * Bytes go on in the memory in which they came, and nothing of a message is kept: what a WebSocket holds is what any tunnel holds.
//! * A frame of ours stands between two frames of whoever else sends in that direction, and a Close of ours is the last thing in it.
//! * Whoever breaks the rules is told so with a Close, and so is the other side. One that is within a frame, whose rest will not come, can
//!   only be cut off.
//! * It ends in order when each side has been told Close and has said it, and else when the time for that is over: a time in which nobody takes any of
//!   what is still to be sent.

mod flow;
mod ping;

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use proto::ws::{CloseCode, Echo, Inspector, MaskingKey, Rules, Sender, Violation};
use ring::{Now, Timer};

use self::flow::Flow;
use self::ping::KeepAlive;
use super::{Cuts, Pipe, both_sent};
use crate::exchange::Door;
use crate::exchange::admit::Paced;
use crate::exchange::route::Way;
use crate::limits;
use crate::snapshot::WebSockets;
use crate::telemetry::WebSocketCells;

/// What went through.
pub(super) struct Passed {
    pub(super) down: u64,
    pub(super) cut: Cuts,
}

/// Passes frames both ways until the WebSocket has ended.
pub(super) async fn pass(
    door: &Door,
    down: &mut impl Pipe,
    up: &mut impl Pipe,
    timer: &mut Timer,
    way: &Way<'_>,
    deflate: bool,
    paced: Option<&Paced<'_>>,
) -> Passed {
    let counters = &door.cells.counters;
    counters.tunnels_total.add(1);
    counters.tunnels_open.add(1);
    door.desk.tunnels.enter();
    let mut socket = Socket::new(door, way, deflate, paced);
    let cut = poll_fn(|cx| socket.poll(down, up, timer, cx)).await;
    door.desk.tunnels.leave();
    counters.tunnels_open.sub(1);
    counters.bytes_in_total.add(socket.upward.bytes);
    socket.common.cells.inspect(|cells| cells.closed(socket.common.closed));
    Passed { down: socket.downward.bytes, cut }
}

struct Socket<'a> {
    upward: Flow<'a>,
    downward: Flow<'a>,
    common: Common<'a>,
    idle: Duration,
    /// When a frame, or a part of one, last passed.
    moved: Now,
}

/// What both directions need to know.
struct Common<'a> {
    door: &'a Door,
    settings: &'a WebSockets,
    cells: Option<&'a WebSocketCells>,
    ending: Option<Ending>,
    /// The code of the first Close.
    closed: Option<CloseCode>,
    ping: Option<KeepAlive>,
}

/// How it ends, once that is decided.
#[derive(Clone, Copy)]
struct Ending {
    /// What the client is told.
    client: CloseCode,
    /// What the endpoint is told.
    endpoint: CloseCode,
    why: &'static str,
    /// Who has not answered by then is not waited for, unless it has taken some of what it was owed; then for as long again.
    until: Now,
    within: Duration,
    /// What both were owed, once somebody has looked.
    owed: Option<usize>,
}

impl Ending {
    /// Its time is over, and none of what was owed has been taken meanwhile.
    fn is_over(&mut self, owed: usize) -> bool {
        if self.until > ring::now() {
            return false;
        }
        let before = self.owed.replace(owed);
        self.until = ring::now() + self.within;
        before.is_none_or(|before| owed >= before)
    }
}

/// One side has gone without a word.
struct Gone;

impl<'a> Socket<'a> {
    fn new(door: &'a Door, way: &Way<'a>, deflate: bool, paced: Option<&'a Paced<'a>>) -> Self {
        let settings = &way.matched.route.websockets;
        let rules = |sender| Rules {
            sender,
            deflate,
            utf8: settings.utf8,
            frame_bytes_max: settings.frame_bytes_max,
            message_bytes_max: settings.message_bytes_max,
        };
        Self {
            upward: Flow::new(Inspector::new(rules(Sender::Client)), Sender::Client, settings.rate, paced),
            downward: Flow::new(Inspector::new(rules(Sender::Server)), Sender::Server, None, paced),
            common: Common {
                door,
                settings,
                cells: door.websockets.open(way.matched.index()),
                ending: None,
                closed: None,
                ping: settings.ping.map(|every| KeepAlive::new(every, door.desk.random.borrow_mut().next_u64())),
            },
            idle: settings.idle.unwrap_or(way.timeouts.idle),
            moved: ring::now(),
        }
    }

    /// Moves both directions; ready when it is over, with who is to be cut off.
    fn poll(
        &mut self,
        down: &mut impl Pipe,
        up: &mut impl Pipe,
        timer: &mut Timer,
        cx: &mut Context<'_>,
    ) -> Poll<Cuts> {
        loop {
            let was_ending = self.common.ending.is_some();
            if self.common.door.desk.draining.get() {
                self.common.end(CloseCode::GOING_AWAY, CloseCode::GOING_AWAY, "the proxy is about to stop");
            }
            let before = self.upward.bytes + self.downward.bytes;
            let upward = self.upward.poll(&mut self.common, down, up, cx);
            let downward = self.downward.poll(&mut self.common, up, down, cx);
            if upward.is_err() || downward.is_err() {
                return Poll::Ready(Cuts { client: true, endpoint: true });
            }
            let held_up = self.upward.is_held_up() || self.downward.is_held_up();
            if held_up || self.upward.bytes + self.downward.bytes != before {
                self.moved = ring::now();
            }
            if self.is_over() && both_sent(down, up, cx).is_ready() {
                return Poll::Ready(self.cuts(down, up, cx));
            }
            if self.upward.inspector.is_closed() && self.downward.inspector.is_closed() {
                // Both have said their last: nobody has to wait for who closes first.
                self.common.end(CloseCode::NORMAL, CloseCode::NORMAL, "");
            }
            let owed = down.unsent() + up.unsent();
            if let Some(ending) = &mut self.common.ending {
                ending.owed.get_or_insert(owed);
            }
            let due = self.due();
            timer.set(due);
            if timer.poll_expired() {
                if self.common.ending.as_mut().is_some_and(|ending| ending.is_over(owed)) {
                    return Poll::Ready(self.cuts(down, up, cx));
                }
                self.expire(down);
            } else if self.common.ending.is_some() == was_ending {
                return Poll::Pending;
            }
        }
    }

    /// All has been said on both sides, or cannot be.
    fn is_over(&self) -> bool {
        let [upward, downward] = [&self.upward, &self.downward];
        upward.told && downward.told && (upward.heard || downward.cut) && (downward.heard || upward.cut)
    }

    /// When something has to be done at the latest.
    fn due(&self) -> Now {
        let at = match self.common.ending {
            Some(ending) => ending.until,
            None => self.common.ping.as_ref().map_or(Now::NEVER, KeepAlive::due).min(self.moved + self.idle),
        };
        [self.upward.turn(), self.downward.turn()].into_iter().flatten().fold(at, Now::min)
    }

    fn expire(&mut self, down: &mut impl Pipe) {
        let now = ring::now();
        if self.common.ending.is_some() {
            return;
        }
        if self.moved + self.idle <= now {
            return self.common.end(CloseCode::GOING_AWAY, CloseCode::GOING_AWAY, "nothing was said for too long");
        }
        let Some(ping) = self.common.ping.as_mut().filter(|ping| ping.due() <= now) else { return };
        if ping.is_unanswered() {
            self.common.end(CloseCode::INTERNAL_ERROR, CloseCode::GOING_AWAY, "a Ping was not answered");
        } else if self.downward.is_open() {
            ping.send(down);
        } else {
            ping.postpone();
        }
    }

    /// Who has been told all, and has taken it, is not cut off, also where it has not answered in time.
    fn cuts(&self, down: &mut impl Pipe, up: &mut impl Pipe, cx: &mut Context<'_>) -> Cuts {
        let left = |flow: &Flow<'_>, sent: Poll<std::io::Result<()>>| {
            flow.cut || !flow.told || !matches!(sent, Poll::Ready(Ok(())))
        };
        Cuts { client: left(&self.downward, down.poll_sent(cx)), endpoint: left(&self.upward, up.poll_sent(cx)) }
    }
}

impl Common<'_> {
    /// For a frame towards an endpoint: none foretells it (RFC 6455 §10.3), and each frame has another.
    fn masking_key(&self) -> MaskingKey {
        (self.door.desk.random.borrow_mut().next_u64() as u32).to_ne_bytes()
    }

    /// Whether a Pong answers a Ping of ours.
    fn takes_pong(&mut self, sender: Sender, echo: &Echo) -> bool {
        sender == Sender::Client && self.ping.as_mut().is_some_and(|ping| ping.takes(echo))
    }

    /// It is to end, unless it does already.
    fn end(&mut self, client: CloseCode, endpoint: CloseCode, why: &'static str) {
        self.end_within(self.settings.drain, [client, endpoint], why);
    }

    /// Somebody has broken the rules: it is heard out for no longer than anybody else who did.
    fn violated(&mut self, violation: Violation) {
        self.cells.inspect(|cells| cells.violated(violation));
        let within = self.settings.drain.min(limits::LINGER);
        self.end_within(within, [violation.close_code(); 2], violation.why());
    }

    fn end_within(&mut self, within: Duration, [client, endpoint]: [CloseCode; 2], why: &'static str) {
        self.closed.get_or_insert(client);
        let until = ring::now() + within;
        self.ending.get_or_insert(Ending { client, endpoint, why, until, within, owed: None });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an open WebSocket holds beside its two connections, buffers apart.
    #[test]
    fn a_socket_is_small() {
        assert!(size_of::<Socket<'_>>() <= 576, "{}", size_of::<Socket<'_>>());
    }
}
