//! An answer that is not passed on as long as there may be a better one.
//!
//! That a status may be tried again is a hope: the other endpoints may be gone when it is their turn, or break off. So the answer stays where it is, unread
//! on its connection, with its head's index beside it, until another one begins. If none does, it is what the client gets: what an endpoint has answered
//! is not replaced by an error of ours, unless its connection is all that its endpoint has room for: another try is made on that one. What holds here: a request holds one at the most; its try was recorded when it was put aside, and is not again.

use std::future::poll_fn;
use std::task::{Context, Poll};

use proto::h1::{Client, ResponseHead};
use ring::Now;

use super::route::Way;
use super::tries::{Attempt, Tries};
use super::{Door, Peer, Reason, Request};
use crate::conn::{Index, Lane, Read};
use crate::limits;
use crate::upstream::Lease;

/// The head of such an answer. Its text is still on its connection.
pub(super) struct Answer {
    pub(super) head: ResponseHead,
    pub(super) index: Index,
}

/// The answer, and all that it takes to pass it on.
pub(super) struct Held<'a> {
    pub(super) lease: Lease,
    pub(super) attempt: Attempt,
    pub(super) way: Way<'a>,
    /// There will be no better one.
    due: bool,
}

impl<'a> Tries<'a> {
    /// An answer was given up for another try that has been granted.
    pub(super) fn hold(&mut self, lease: Lease, attempt: Attempt, way: Way<'a>) {
        self.held = Some(Box::new(Held { lease, attempt, way, due: false }));
    }

    /// No try will come to anything, for this reason. True when there is an answer to pass on for all that: the next one to be [taken](Self::take_due).
    pub(super) fn resorts(&mut self, reason: Reason) -> bool {
        // Whoever has left gets nothing.
        let held = self.held.as_mut().filter(|_| !matches!(reason, Reason::ClientGone));
        held.map(|held| held.due = true).is_some()
    }

    /// The answer that is to be passed on because nothing else is left.
    pub(super) fn take_due(&mut self, request: &Request, peer: &Peer) -> Option<Box<Held<'a>>> {
        let mut held = self.held.take_if(|held| held.due)?;
        // It came in time, and it has no other time to keep to than its content's.
        held.way.deadline = None::<Now>;
        self.turn_to(request, peer, held.way);
        Some(held)
    }

    /// Another try may be made, and would find room if the answer's connection were not held.
    pub(super) fn is_in_its_own_way(&self) -> bool {
        let of_here = self.held.as_ref().filter(|held| !held.due && held.way.pool == self.way.pool);
        self.full && of_here.is_some_and(|held| held.lease.is_all_there_may_be())
    }

    /// Makes that room. The next try follows at once, or somebody else has it.
    pub(super) async fn make_room(&mut self) {
        poll_fn(|cx| {
            self.let_go(cx);
            Poll::Ready(())
        })
        .await;
        self.pause_ns = 0;
    }

    /// Another answer has begun, or is about to: the one that was held is nobody's.
    pub(super) fn let_go(&mut self, cx: &mut Context<'_>) {
        let Some(held) = self.held.take() else { return };
        let Held { mut lease, attempt, way, .. } = *held;
        let mut lane = lease.lane();
        lane.skip_head(attempt.answer.map_or(0, |answer| answer.head.length.into()));
        discard(self.door, &mut lane, cx);
        let (cluster, pool) = (self.door.cluster(way.pool), &self.door.snapshot[way.pool]);
        cluster.give_back(lease, pool, 0, &self.door.cells.counters);
    }
}

/// Takes in the content of an answer that nobody gets, as far as it is here: a connection with nothing left on it can be used again.
pub(super) fn discard(door: &Door, lane: &mut Lane<'_, Client>, cx: &mut Context<'_>) {
    let mut fields = door.desk.response_fields.borrow_mut();
    let mut left = limits::DISCARD_BYTES_MAX;
    while let Poll::Ready(Ok(Read::Data(data))) = lane.poll_read(cx, &mut fields) {
        left = left.saturating_sub(data.len());
        if left == 0 {
            return;
        }
    }
    lane.settle(&mut fields);
}
