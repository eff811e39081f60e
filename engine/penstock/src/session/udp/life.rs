//! A flow from its beginning to its end: replies go to the client, and when it is over it is told of.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use ring::{Received, Timer};

use super::joined::{Leaving, count};
use super::{Flow, Path, Shared};
use crate::exchange::{Door, Reason};
use crate::limits;
use crate::qos::{Direction, HeldClient};
use crate::snapshot::{self, PoolId};
use crate::upstream::policy_now;

/// A flow that is told of in the end, also when it is cut because the time of a drain is up.
struct Told<'a> {
    door: &'a Door,
    path: Path,
    flow: &'a Flow,
    pool: PoolId,
    replies: Option<u32>,
    /// It has come to an end of its own.
    is_over: bool,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let silent = self.flow.owes(self.replies).is_some_and(|owes| owes > 0);
        let ended = match (self.is_over, silent) {
            (false, _) => (200, Reason::Drained.text()),
            (true, true) => (504, "no-reply"),
            (true, false) => (200, ""),
        };
        self.flow.tell(self.door, self.path, self.pool, ended);
    }
}

/// Serves a flow until it is over.
pub(super) async fn run(
    shared: Rc<Shared>,
    door: Rc<Door>,
    path: Path,
    flow: Rc<Flow>,
    (pool, settings): (PoolId, snapshot::Flows),
    held: Option<HeldClient>,
) {
    shared.sessions.enter(&door);
    let mut timer = Timer::new();
    let mut told = Told { door: &door, path, flow: &flow, pool, replies: settings.replies, is_over: false };
    poll_fn(|cx| flow.poll(&shared, path, &settings, &mut timer, cx)).await;
    told.is_over = true;
    // Another one may have its place already.
    let mut open = shared.open.borrow_mut();
    if open.get(&path).is_some_and(|known| Rc::ptr_eq(known, &flow)) {
        open.remove(&path);
        if let Some(owned) = &shared.owned {
            owned.forget(path);
        }
    }
    drop(open);
    door.cluster(pool).record(&flow.endpoint, policy_now(ring::now()), &flow.outcome(settings.replies));
    drop(told);
    shared.sessions.leave(&door, held);
}

impl Flow {
    /// Passes replies on. Ready when the flow is over.
    fn poll(
        self: &Rc<Self>,
        shared: &Shared,
        path: Path,
        settings: &snapshot::Flows,
        timer: &mut Timer,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        self.task.set(Some(ring::current_task()));
        let door = shared.door();
        let counters = &door.cells.counters;
        shared.let_replies_go();
        let mut joined = shared.spare();
        let back = |leaving: Leaving<'_>| shared.reply(path, leaving);
        let received = self.socket.poll_receive(cx, &mut |mut received| {
            let count = count(received.bytes.len(), received.stride);
            // Whoever guesses the port is not the endpoint.
            if received.from != self.to {
                return counters.datagrams_stray_total.add(count);
            }
            self.hear(count, received.bytes.len());
            shared.hear_names(self, received.bytes);
            let put = |piece: &Received<'_>, _| joined.put(piece, back);
            counters.datagrams_dropped_total.add(shared.pace(self, path, Direction::Down, &mut received, put));
        });
        counters.datagrams_dropped_total.add(joined.leave(back));
        shared.give_back(joined);
        if received.is_ready() {
            // There may be more, but first others have their turn.
            cx.waker().wake_by_ref();
        }
        // What waits for its turn is still to be replied to.
        let asks_more = self.waits[Direction::Up as usize].get() > 0;
        if self.owes(settings.replies) == Some(0) && self.replied.get() > 0 && !asks_more {
            return Poll::Ready(());
        }
        let draining = shared.sessions.draining().is_some();
        let patience = match (draining, self.replied.get()) {
            (true, _) => settings.idle.min(limits::DRAIN_IDLE),
            (false, 0) => settings.idle.min(limits::FLOW_UNREPLIED),
            (false, _) => settings.idle,
        };
        let mut due = self.active.get() + patience;
        if asks_more {
            due = due.max(ring::now() + limits::PACED_DATAGRAM_WAIT);
        }
        if due <= ring::now() || self.replaced.get() || !self.endpoint.takes_flows() {
            return Poll::Ready(());
        }
        timer.set(due);
        if timer.poll_expired() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
