//! Breakers of routes: whether requests of a route are let through at all.
//!
//! [`policy::Breaker`] decides, one a route and worker, by how whole requests end: after their retries, wherever they went. As with endpoints,
//! what a worker finds reaches the others through one word of the route, of which the greater counts, and an operator's word stands above it. What
//! holds: who is let through is recorded once, a request that is dropped too; a route without a breaker costs a look into a list.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use policy::{Breaker, BreakerState, BreakerVerdict, Class, Now, Outcome, Verdict};

use super::policy_now;
use super::shared::BreakerOrder;
use crate::snapshot::{RouteId, Snapshot};
use crate::telemetry::Cell;

/// What workers and the control thread share of all routes' breakers; nothing of routes that have none.
#[derive(Debug, Default)]
pub struct Breakers(Box<[Option<Arc<RouteShared>>]>);

/// Of one route.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct RouteShared {
    order: AtomicU32,
    verdict: AtomicU64,
    workers: Box<[RouteCells]>,
}

/// What one worker tells. Alone on its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct RouteCells {
    /// 0 closed, 1 half-open, 2 open.
    state: Cell,
    requests: Cell,
    failures: Cell,
    kept_out: Cell,
}

/// One breaker, summed over the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteSums {
    /// Requests let through that have ended, and those of them that failed.
    pub requests: u64,
    pub failures: u64,
    /// Requests that were not let through.
    pub kept_out: u64,
    /// Workers at which it is open, half-open, and all of them.
    pub open: usize,
    pub half_open: usize,
    pub workers: usize,
}

/// The breaker of one route on one worker.
pub struct RouteBreaker {
    breaker: RefCell<Breaker>,
    shared: Arc<Breakers>,
    route: RouteId,
    worker: usize,
}

/// A request that was let through. One that ends without a word says nothing about its route.
#[derive(Default)]
pub struct Passage<'a>(Option<&'a RouteBreaker>);

impl Breakers {
    #[must_use]
    pub fn new(snapshot: &Snapshot, workers: usize) -> Arc<Self> {
        Self::default().succeed(snapshot, workers, |_| None)
    }

    /// For a new configuration. What is known of a route that goes on is its `before`; an open breaker stays open.
    #[must_use]
    pub fn succeed(
        &self,
        snapshot: &Snapshot,
        workers: usize,
        before: impl Fn(RouteId) -> Option<RouteId>,
    ) -> Arc<Self> {
        let shared = || {
            let workers = (0..workers).map(|_| RouteCells::default()).collect();
            Arc::new(RouteShared { workers, ..RouteShared::default() })
        };
        let known = |route| self.0.get(usize::from(before(route)?.0))?.clone();
        let routes = (0..).map(RouteId).zip(&snapshot.routes);
        let of = |(at, route): (_, &crate::snapshot::Route)| {
            route.breaker.as_ref().map(|_| known(at).unwrap_or_else(shared))
        };
        Arc::new(Self(routes.map(of).collect()))
    }

    /// None of a route without a breaker.
    #[must_use]
    pub fn of(&self, route: RouteId) -> Option<&RouteShared> {
        self.0.get(usize::from(route.0))?.as_deref()
    }
}

impl RouteShared {
    #[must_use]
    pub fn order(&self) -> BreakerOrder {
        match self.order.load(Ordering::Relaxed) {
            1 => BreakerOrder::Open,
            2 => BreakerOrder::Closed,
            _ => BreakerOrder::Auto,
        }
    }

    /// Only the control thread may.
    pub fn set_order(&self, order: BreakerOrder) {
        self.order.store(order as u32, Ordering::Relaxed);
    }

    #[must_use]
    pub fn sums(&self) -> RouteSums {
        let mut sums = RouteSums { workers: self.workers.len(), ..RouteSums::default() };
        for cells in &self.workers {
            sums.requests += cells.requests.get();
            sums.failures += cells.failures.get();
            sums.kept_out += cells.kept_out.get();
            sums.half_open += usize::from(cells.state.get() == 1);
            sums.open += usize::from(cells.state.get() == 2);
        }
        sums
    }
}

impl RouteBreaker {
    /// Of a route, if it has one.
    #[must_use]
    pub fn new(
        snapshot: &Snapshot,
        route: RouteId,
        shared: &Arc<Breakers>,
        (worker, workers): (usize, usize),
        seed: u64,
    ) -> Option<Self> {
        let settings = snapshot[route].breaker.as_ref()?.settings;
        let breaker = Breaker::new(settings, seed).shared_by(workers as u16);
        let shared = Arc::clone(shared);
        shared.of(route)?;
        Some(Self { breaker: RefCell::new(breaker), shared, route, worker })
    }

    /// Lets a request through, or says when it will be worth to ask again; `None` when only an operator knows.
    ///
    /// # Errors
    /// It is open, or has as many trials under way as it may.
    pub fn admit(&self, now: Now) -> Result<Passage<'_>, Option<Now>> {
        let Some(shared) = self.route() else { return Ok(Passage::default()) };
        self.hear(shared, now);
        let mut breaker = self.breaker.borrow_mut();
        let admits = match shared.order() {
            BreakerOrder::Auto => breaker.admits(now),
            BreakerOrder::Open => false,
            BreakerOrder::Closed => true,
        };
        let cells = &shared.workers[self.worker];
        cells.state.set(number(breaker.state(now)));
        if !admits {
            cells.kept_out.add(1);
            let forced = shared.order() == BreakerOrder::Open;
            return Err(if forced { None } else { Some(breaker.reopens_at(now).unwrap_or(now)) });
        }
        breaker.begin(now);
        Ok(Passage(Some(self)))
    }

    /// Takes over what another worker's breaker has found.
    fn hear(&self, shared: &RouteShared, now: Now) {
        let heard = BreakerVerdict::from_bits(shared.verdict.load(Ordering::Relaxed));
        let mut breaker = self.breaker.borrow_mut();
        if heard > breaker.verdict() {
            breaker.adopt(now, heard);
        }
    }

    fn record(&self, outcome: &Outcome) {
        let Some(shared) = self.route() else { return };
        let now = policy_now(ring::now());
        let mut breaker = self.breaker.borrow_mut();
        breaker.record(now, outcome);
        let verdict = breaker.verdict().bits();
        // A read-modify-write when its fate turns, and not otherwise.
        if verdict > shared.verdict.load(Ordering::Relaxed) {
            shared.verdict.fetch_max(verdict, Ordering::Relaxed);
        }
        let cells = &shared.workers[self.worker];
        cells.requests.add(1);
        cells.failures.add(u64::from(outcome.verdict() == Verdict::Failure));
        cells.state.set(number(breaker.state(now)));
    }

    fn route(&self) -> Option<&RouteShared> {
        self.shared.of(self.route)
    }
}

impl Passage<'_> {
    /// How it ended. What comes later changes nothing.
    pub fn end(&mut self, outcome: &Outcome) {
        if let Some(breaker) = self.0.take() {
            breaker.record(outcome);
        }
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        self.end(&Outcome::new(std::time::Duration::ZERO, Class::Abandoned));
    }
}

const fn number(state: BreakerState) -> u64 {
    match state {
        BreakerState::Closed => 0,
        BreakerState::HalfOpen => 1,
        BreakerState::Open => 2,
    }
}
