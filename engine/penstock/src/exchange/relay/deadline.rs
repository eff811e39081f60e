//! When a relay has waited long enough, and for whom.

use std::task::{Context, Poll};
use std::time::Duration;

use policy::{Class, Outcome, Stop};
use proto::http::Framing;
use ring::Now;

use super::{Exchange, Phase, Relay, Relayed};
use crate::exchange::half::{Going, Out, Piece};
use crate::exchange::{Reason, grpc, respond};
use crate::limits;

impl Relay<'_, '_, '_> {
    pub(super) fn poll_deadline(&mut self, cx: &Context<'_>) -> Poll<Relayed> {
        let idle = self.idle_limit();
        let mut at = match self.phase {
            // Content still going up moves the moment from which the answer is awaited.
            Phase::Head => self.head_by.max(self.moved + self.exchange.way.timeouts.head),
            Phase::Content => self.moved + idle,
        };
        if self.phase == Phase::Head {
            if self.upload.state == Going::On {
                at = at.min(self.moved + idle);
            }
            if let Some(enough) = self.enough_until() {
                if enough <= ring::now() {
                    return Poll::Ready(self.client_stopped());
                }
                at = at.min(enough);
            }
            if let Some(relayed) = self.lose_patience() {
                return Poll::Ready(relayed);
            }
            at = at.min(self.impatient_at.unwrap_or(at)).min(self.hedge.at().unwrap_or(at));
        }
        if let Some(deadline) = self.exchange.way.deadline {
            at = at.min(deadline);
        }
        at = self.turn().map_or(at, |turn| at.min(turn));
        if let Some(whole) = self.whole {
            if whole <= ring::now() {
                self.whole = None;
                self.download.release(&mut Out { lane: self.down });
            } else {
                at = at.min(whole);
            }
        }
        self.timer.set(at);
        if !self.timer.poll_expired() {
            return Poll::Pending;
        }
        let thinks = [self.impatient_at, self.hedge.at()].into_iter().flatten().any(|at| at <= ring::now());
        if self.whole.is_some() || thinks {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(self.timed_out())
    }

    /// When content that keeps to a pace may go on, if that is what it waits for.
    pub(super) fn turn(&self) -> Option<Now> {
        let turns = [self.upload.turn(), self.download.turn()].into_iter().flatten();
        turns.filter(|turn| *turn > ring::now()).min()
    }

    /// The endpoint is slower than its pool ever is: the request goes elsewhere, if it may. If it may not, it waits on, for an answer that may still
    /// come; but not for one from the dead.
    fn lose_patience(&mut self) -> Option<Relayed> {
        if self.impatient_at.is_none_or(|at| at > ring::now()) {
            return None;
        }
        // What was learnt meanwhile counts too.
        let patience = self.tries.impatience(self.attempt);
        if patience.is_some_and(|at| at > ring::now()) {
            self.impatient_at = patience;
            return None;
        }
        self.impatient_at = self.tries.silence(self.attempt);
        if patience.is_some()
            && let Some(outcome) = self.go_elsewhere()
        {
            return Some(Relayed::GivenUp(outcome));
        }
        self.tries.is_lost(self.attempt).then_some(Relayed::Unanswered(Class::TimedOut))
    }

    /// This try is given up for another one, if one is granted.
    fn go_elsewhere(&mut self) -> Option<Outcome> {
        let look_again = Some(ring::now() + limits::LOOK_ELSEWHERE_EVERY);
        if !self.tries.has_other_than(self.attempt) {
            self.impatient_at = look_again;
            return None;
        }
        let outcome = self.attempt.outcome(Class::TimedOut);
        match self.tries.moves_on(self.attempt, &outcome) {
            Ok(()) => return Some(outcome),
            // There will be retries again before its time is over.
            Err(Stop::Budget) => self.impatient_at = look_again,
            Err(_) => {}
        }
        None
    }

    /// Until when the content that the client has sent is enough for its listener's least rate, if nothing more comes. It runs from the
    /// beginning, or from when it was last the endpoint or a pace that held the client up. Content whose length nobody has told
    /// may be a stream that has nothing to say.
    fn enough_until(&mut self) -> Option<Now> {
        let rate = self.exchange.door.listener().body_rate?;
        let told = matches!(self.exchange.request.head.framing, Framing::Length(_));
        if !told || self.upload.state != Going::On {
            return None;
        }
        let now = ring::now();
        if self.up.unsent() > limits::UNSENT_BYTES_MAX || self.upload.turn().is_some() {
            self.uploaded = (now, self.upload.bytes);
        }
        let (since, before) = self.uploaded;
        let nanos = u128::from(self.upload.bytes - before) * 1_000_000_000 / u128::from(rate.get());
        let covered = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        Some(since + limits::BODY_RATE_GRACE.saturating_add(covered))
    }

    /// The client stopped sending, or sends next to nothing.
    fn client_stopped(&mut self) -> Relayed {
        let Exchange { door, request, .. } = self.exchange;
        self.refused = Some(Reason::ClientTimedOut);
        self.status = respond::answer(door, self.down, request, Reason::ClientTimedOut);
        self.down.close_after();
        Relayed::Done(Class::Abandoned)
    }

    /// How long content may stand still: the stricter of the two sides'.
    fn idle_limit(&self) -> Duration {
        self.exchange.door.listener().body_timeout.min(self.exchange.way.timeouts.idle)
    }

    /// The caller of a call that is under way does not wait any longer: it is told so, as far as the wire has words for it.
    pub(super) fn call_is_over(&mut self) -> Relayed {
        let end = Piece { last: true, trailers: grpc::deadline_passed(), data: None };
        if self.download.pass(end, &mut Out { lane: self.down }).is_err() {
            self.cut_response();
        }
        self.refused = Some(Reason::DeadlinePassed);
        Relayed::Done(Class::TimedOut)
    }

    fn timed_out(&mut self) -> Relayed {
        match self.phase {
            Phase::Content if self.exchange.way.grpc && self.exchange.way.is_over() => self.call_is_over(),
            Phase::Content if self.down.unsent() > 0 => self.client_left(),
            Phase::Content => {
                self.cut_response();
                Relayed::Done(Class::Truncated)
            }
            Phase::Head if self.exchange.way.is_over() => Relayed::Unanswered(Class::TimedOut),
            Phase::Head if self.upload.state == Going::On && self.up.unsent() == 0 => self.client_stopped(),
            Phase::Head => Relayed::Unanswered(Class::TimedOut),
        }
    }
}
