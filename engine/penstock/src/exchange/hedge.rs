//! A second copy of a request that is slower than most, and which of the two the client gets.
//!
//! The law is `policy::Hedge`. What holds here: a copy is only of a request without content that may be sent twice, and at most one;
//! whoever's final head is here first has won, and the other one is dropped with its connection; each is recorded at its
//! endpoint once, whatever became of it. An answer that would be tried again anyway wins only when there is no other one. Half a head wins nothing:
//! if it breaks off, the other copy's answer would have been thrown away for it.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use policy::{Class, Outcome, StatusClass};
use proto::h1::Trailers;
use ring::{Now, Timer};

use super::relay::{Exchange, write_head};
use super::tries::{Attempt, Tries};
use crate::limits;
use crate::upstream::{Cluster, Lease, Wanted, policy_now};

/// The second copy's connection, on which the head of its answer is to be read.
pub(super) struct Ahead {
    pub(super) lease: Lease,
    pub(super) attempt: Attempt,
    /// No other answer could be better.
    wins: bool,
}

type Copy<'a> = Pin<Box<dyn Future<Output = Option<Ahead>> + 'a>>;

/// What is known of a request's second copy.
pub(super) enum Hedge<'a> {
    /// There will be none.
    Off,
    /// To be thought about then.
    At(Now),
    /// It is out.
    Out(Copy<'a>),
    /// It has an answer, which is better than none.
    Answered(Box<Ahead>),
}

impl<'a> Hedge<'a> {
    /// When to look at it again, if that is a matter of time.
    pub(super) const fn at(&self) -> Option<Now> {
        match self {
            Self::At(at) => Some(*at),
            Self::Off | Self::Out(_) | Self::Answered(_) => None,
        }
    }

    /// Whether an answer may still come of it.
    pub(super) const fn is_out(&self) -> bool {
        matches!(self, Self::Out(_) | Self::Answered(_))
    }

    /// Its answer, if it has one that is not good enough to win.
    pub(super) fn take_answered(&mut self) -> Option<Box<Ahead>> {
        match std::mem::replace(self, Self::Off) {
            Self::Answered(ahead) => Some(ahead),
            other => {
                *self = other;
                None
            }
        }
    }

    /// Sends the copy when it is time, and waits for its answer; it is over when there is none to be had. `alone`: there will be no other answer.
    pub(super) fn poll(
        &mut self,
        exchange: Exchange<'a>,
        tries: &mut Tries<'_>,
        first: &Attempt,
        alone: bool,
        cx: &mut Context<'_>,
    ) -> Option<Box<Ahead>> {
        if self.at().is_some_and(|at| at <= ring::now()) {
            *self = match tries.second(first) {
                Some(attempt) => Self::Out(Box::pin(run(exchange, Out::new(exchange, attempt)))),
                None => Self::Off,
            };
        }
        if let Self::Out(copy) = self
            && let Poll::Ready(ahead) = copy.as_mut().poll(cx)
        {
            *self = match ahead.map(Box::new) {
                None => Self::Off,
                Some(ahead) if ahead.wins => {
                    *self = Self::Off;
                    return Some(ahead);
                }
                Some(ahead) => Self::Answered(ahead),
            };
        }
        if alone { self.take_answered() } else { None }
    }
}

/// A copy that is out: recorded as overtaken, unless something else became of it.
struct Out<'a> {
    cluster: &'a Cluster,
    attempt: Option<Attempt>,
}

impl<'a> Out<'a> {
    fn new(exchange: Exchange<'a>, attempt: Attempt) -> Self {
        Self { cluster: exchange.door.cluster(exchange.way.pool), attempt: Some(attempt) }
    }

    fn ended(mut self, class: Class) {
        self.record(class);
    }

    fn record(&mut self, class: Class) {
        if let Some(attempt) = self.attempt.take() {
            let class = if attempt.is_stale(class) { Class::Shed } else { class };
            self.cluster.record(&attempt.endpoint, policy_now(ring::now()), &attempt.outcome(class));
        }
    }
}

impl Drop for Out<'_> {
    fn drop(&mut self) {
        self.record(Class::Overtaken);
    }
}

/// Sends the copy, and waits for the head of its answer.
async fn run(exchange: Exchange<'_>, mut out: Out<'_>) -> Option<Ahead> {
    let (door, way) = (exchange.door, exchange.way);
    let mut timer = Timer::new();
    let attempt = out.attempt.as_mut()?;
    let wanted = Wanted {
        endpoint: &attempt.endpoint,
        pool: &door.snapshot[way.pool],
        connect: way.connect(),
        fresh: false,
        upgrade: false,
        short: exchange.request.bytes.len() as u64 <= limits::SAME_HOST_REQUEST_MAX,
        path: exchange.peer.path(),
    };
    let mut lease = match out.cluster.lease(wanted, &mut timer, &door.cells).await {
        Ok(lease) => lease,
        Err(error) => {
            out.ended((&error).into());
            return None;
        }
    };
    attempt.reused = lease.reused;
    if !send(exchange, &mut lease) {
        out.ended(Class::Shed);
        return None;
    }
    attempt.sent();
    let status = match poll_fn(|cx| lease.lane().poll_status(cx)).await {
        Ok(Some(status)) => status,
        Ok(None) | Err(_) => {
            out.ended(Class::Reset);
            return None;
        }
    };
    let mut attempt = out.attempt.take()?;
    let wins = !door.snapshot[way.pool].retry.policy.on.statuses.contains(status);
    if !wins {
        attempt.answered();
        attempt.is_recorded = true;
        let outcome = Outcome { status, ..attempt.outcome(Class::Answered(StatusClass::of(status))) };
        out.cluster.record(&attempt.endpoint, policy_now(ring::now()), &outcome);
    }
    Some(Ahead { lease, attempt, wins })
}

/// The whole request in one piece: it has no content.
fn send(exchange: Exchange<'_>, lease: &mut Lease) -> bool {
    let Some(lead) = write_head(exchange, lease) else { return false };
    let mut lane = lease.lane();
    let ended = lane.end(Trailers::default(), &mut Vec::new()).is_ok();
    if let Some(lead) = lead.filter(|_| ended) {
        lane.send(lead);
    }
    ended
}
