//! How often a request is tried, and where: what the policy is asked, in one place.

use std::rc::Rc;

use policy::{Class, Outcome, Replay, RetryOn};
use ring::Now;

use super::{Reason, Request};
use crate::snapshot::Pool;
use crate::telemetry::Counters;
use crate::upstream::{Cluster, Endpoint, Tried, policy_now};

/// The tries of one request.
pub(super) struct Tries<'a> {
    pool: &'a Pool,
    left: u8,
    tried: Tried,
    /// How often the request may be repeated once its bytes have left.
    replay: Replay,
    last: Option<Class>,
    /// Ask this endpoint once more, on a fresh connection: the pooled one had died of old age.
    again_at: Option<Rc<Endpoint>>,
}

/// One of them.
pub(super) struct Attempt {
    pub(super) endpoint: Rc<Endpoint>,
    /// Not on a pooled connection.
    pub(super) fresh: bool,
    pub(super) reused: bool,
    begun: Now,
}

impl<'a> Tries<'a> {
    pub(super) fn new(request: &Request, pool: &'a Pool) -> Self {
        // Content that has left is gone: it is not kept to be sent again.
        let repeatable = request.head.method.is_idempotent() && !request.head.framing.has_body();
        Self {
            pool,
            left: pool.retry.tries,
            tried: Tried::default(),
            replay: if repeatable { Replay::Idempotent } else { Replay::Never },
            last: None,
            again_at: None,
        }
    }

    /// Chooses an endpoint for the next try; `None` when there is none.
    pub(super) fn pick(&mut self, cluster: &Cluster, counters: &Counters) -> Option<Attempt> {
        let begun = ring::now();
        let now = policy_now(begun);
        let again = self.again_at.take().and_then(|endpoint| cluster.pick_again(endpoint));
        let fresh = again.is_some();
        let endpoint = again.or_else(|| cluster.pick(&self.tried, now)).or_else(|| {
            // All have been tried. The only endpoint of a pool may get a second chance; a known failure may not.
            (self.tried.is_empty() || self.last == Some(Class::Reset)).then(|| cluster.pick(&Tried::default(), now))?
        });
        if endpoint.is_none() {
            counters.no_endpoint_total.add(1);
            self.last = self.last.or_else(|| cluster.is_unresolved().then_some(Class::Unresolved));
        }
        Some(Attempt { endpoint: endpoint?, fresh, reused: false, begun })
    }

    /// Something of a try has gone downstream: there will be no other one.
    pub(super) fn forbid_repetition(&mut self) {
        self.replay = Replay::Never;
    }

    /// A try has ended without an answer; true when another one may follow.
    pub(super) fn failed(&mut self, cluster: &Cluster, attempt: &Attempt, class: Class, counters: &Counters) -> bool {
        let now = policy_now(ring::now());
        let stale = attempt.reused && class == Class::Reset;
        let outcome = Outcome::new(ring::now().since(attempt.begun), class);
        // A pooled connection that died before it answered says nothing about the endpoint.
        let recorded = if stale { Outcome::new(outcome.latency, Class::Shed) } else { outcome };
        cluster.record(&attempt.endpoint, now, &recorded);
        self.last = Some(class);
        if !outcome.retryable(self.replay) {
            return false;
        }
        if stale {
            self.again_at = Some(Rc::clone(&attempt.endpoint));
            return true;
        }
        let wanted = match outcome.retry_on() {
            Some(RetryOn::Connect) => self.pool.retry.on_connect,
            Some(RetryOn::Reset) => self.pool.retry.on_reset,
            // Not asked for by any configuration yet.
            Some(RetryOn::TimedOut | RetryOn::Status) | None => false,
        };
        self.left = self.left.saturating_sub(1);
        if !wanted || self.left == 0 {
            return false;
        }
        if !cluster.withdraw_retry(now) {
            counters.retries_refused_total.add(1);
            return false;
        }
        self.tried.add(&attempt.endpoint);
        counters.retries_total.add(1);
        true
    }

    /// A try was answered, or ended in a way that leaves nothing to try.
    pub(super) fn ended(&self, cluster: &Cluster, attempt: &Attempt, class: Class) {
        let outcome = Outcome::new(ring::now().since(attempt.begun), class);
        cluster.record(&attempt.endpoint, policy_now(ring::now()), &outcome);
    }

    /// What to tell the client when there is nothing left to try.
    pub(super) fn last_reason(&self) -> Reason {
        match self.last {
            None => Reason::NoEndpoint,
            Some(Class::Refused) => Reason::ConnectFailed,
            Some(Class::ConnectTimedOut) => Reason::ConnectTimedOut,
            Some(Class::Unresolved) => Reason::Unresolved,
            Some(Class::TimedOut) => Reason::UpstreamTimedOut,
            Some(Class::Malformed) => Reason::UpstreamMalformed,
            Some(Class::Shed) => Reason::OutOfResources,
            Some(_) => Reason::UpstreamClosed,
        }
    }
}
