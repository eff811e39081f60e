//! Where a try goes: as the engine's clusters and tries decide it.

use super::{DARE_NS, Request, Shared, Worker, World, is_doubtful};
use crate::settings::{Fault, MS, SECOND, Settings};
use policy::{Ask, Avoid, Breaker, BreakerState, Class, Endpoints, Load, Need, Now, PeakEwma, Standing};

/// The engine's pauses between two looks for endpoints that want a trial: where some breaker is open, and where none is.
pub(super) const TRIALS_EVERY_NS: u64 = 10 * MS;
const HOUSEKEEPING_NS: u64 = SECOND;

struct View<'a> {
    worker: &'a Worker,
    number: usize,
    shared: &'a Shared,
    settings: &'a Settings,
    faults: &'a [Option<Fault>],
    at: u64,
    now: Now,
    /// The request may find out whether an endpoint is back.
    trial: bool,
}

impl View<'_> {
    fn in_flight(&self, index: usize) -> u32 {
        let of = |worker: &Vec<u32>| worker[index];
        let (own, heard) = (of(&self.shared.in_flight[self.number]), &self.worker.others[index]);
        let mut others = heard.get();
        let number = others.number(self.now, || self.shared.in_flight.iter().map(of).sum::<u32>() - own);
        heard.set(others);
        own + number
    }
}

impl Endpoints for View<'_> {
    fn len(&self) -> usize {
        self.settings.endpoints
    }
    fn standing(&self, index: usize) -> Standing {
        if self.faults[index].is_none() {
            return Standing::Out;
        }
        let breaker = &self.worker.breakers[index];
        if !breaker.admits(self.now) || !self.trial && breaker.state(self.now) == BreakerState::HalfOpen {
            return Standing::Down;
        }
        let ill = self.settings.health && !self.shared.checks[index].is_ready();
        let odd = self.settings.outliers && self.shared.outliers.is_ejected(index);
        if ill || odd { Standing::Suspect } else { Standing::Ready }
    }
    fn load(&self, index: usize) -> Load {
        let latency = &self.worker.latencies[index];
        Load {
            latency_ns: latency.nanos(self.now),
            failing: latency.failing(self.now),
            in_flight: self.in_flight(index),
        }
    }
    fn ramp(&self, index: usize) -> f32 {
        let since = self.shared.ready_since[index].map_or(Now::ZERO, Now::from_nanos);
        self.settings.slow_start.factor(since, Now::from_nanos(self.at))
    }
}

impl<F: Fn(usize, u64) -> Option<Fault>> World<F> {
    pub(super) fn pick(&mut self, at: u64, number: u32) -> Option<usize> {
        let (worker, avoid, last, trial) = {
            let request = &self.played.requests[number as usize];
            let repeatable = request.idempotent && request.counted() + 1 < self.retry.tries;
            (request.worker, request.avoid, request.last, repeatable || request.waited_for_endpoint(at) >= DARE_NS)
        };
        let now = self.clock(worker, at);
        self.hear(worker, now);
        let once = !self.played.requests[number as usize].idempotent;
        let safe = if trial && !avoid.is_empty() { self.pick_but(at, worker, avoid, false, once) } else { None };
        let first = safe.or_else(|| if trial { self.trial(at, worker, avoid) } else { None });
        let untried = first.or_else(|| self.pick_but(at, worker, avoid, trial, once)).or_else(|| {
            self.workers[usize::from(worker)].look_at = at;
            if trial { self.trial(at, worker, avoid) } else { None }
        });
        // As the engine does: an endpoint that failed may get a second chance, once others are given up that may be back. A known failure may not.
        let request = &self.played.requests[number as usize];
        let fits = request.waited_for_endpoint(at) >= DARE_NS
            || !self.has_hope(request, at) && matches!(last, Some(Class::Reset | Class::Answered(_)));
        untried.or_else(|| if fits { self.pick_but(at, worker, Avoid::default(), trial, once) } else { None })
    }

    /// An endpoint that it has not been to may be back at any moment.
    fn has_hope(&self, request: &Request, at: u64) -> bool {
        let (worker, now) = (&self.workers[usize::from(request.worker)], self.clock(request.worker, at));
        (0..self.settings.endpoints).any(|index| {
            let is_there = self.faults[index].is_some() && !request.avoid.contains(index);
            is_there && worker.breakers[index].state(now) != BreakerState::Closed
        })
    }

    fn pick_but(&mut self, at: u64, worker: u8, avoid: Avoid, trial: bool, once: bool) -> Option<usize> {
        let now = self.clock(worker, at);
        let Self { workers, balancers, shared, settings, faults, random, .. } = self;
        let number = usize::from(worker);
        let view = View { worker: &workers[number], number, shared, settings, faults, at, now, trial };
        let ask = Ask { avoid, key: Some(random.next_u64()), prefer: None, wary: !avoid.is_empty(), once };
        balancers[usize::from(worker)].pick(&view, &ask, random).ok().map(|pick| pick.index)
    }

    /// Takes over what other workers have published.
    fn hear(&mut self, worker: u8, now: Now) {
        let Worker { breakers, latencies, .. } = &mut self.workers[usize::from(worker)];
        for ((breaker, latency), &verdict) in breakers.iter_mut().zip(latencies).zip(&self.shared.verdicts) {
            if breaker.adopt(now, verdict) && breaker.state(now) == BreakerState::Closed {
                *latency = PeakEwma::default();
            }
        }
    }

    /// An endpoint that is to be found out about, as the engine's clusters do.
    fn trial(&mut self, at: u64, worker: u8, avoid: Avoid) -> Option<usize> {
        let now = self.clock(worker, at);
        let Worker { breakers, latencies, look_at, .. } = &mut self.workers[usize::from(worker)];
        if at < *look_at {
            return None;
        }
        let is_there = |index: usize| self.faults[index].is_some();
        if breakers.iter().all(|breaker| breaker.state(now) == BreakerState::Closed) {
            *look_at = at + HOUSEKEEPING_NS;
            return None;
        }
        *look_at = at + TRIALS_EVERY_NS;
        let untried = |index: usize| is_there(index) && !avoid.contains(index);
        let waits = |breaker: &Breaker| breaker.state(now) == BreakerState::HalfOpen && breaker.admits(now);
        if let Some(index) = (0..breakers.len()).find(|&index| untried(index) && waits(&breakers[index])) {
            return Some(index);
        }
        let trusted = |index: usize| breakers[index].admits(now) && !is_doubtful(&latencies[index], now);
        let ready = (0..breakers.len()).filter(|&index| is_there(index) && trusted(index)).count();
        let need = if ready == 0 { Need::All } else { Need::Some };
        let scarce = ready * 2 < breakers.len();
        (0..breakers.len()).find(|&index| scarce && untried(index) && breakers[index].hurry(now, need))
    }

    /// Nobody is left to ask. True if that changes by it.
    pub(super) fn hurry(&mut self, worker: u8, now: Now, avoid: Avoid) -> bool {
        let breakers = self.workers[usize::from(worker)].breakers.iter_mut().enumerate();
        breakers
            .filter(|&(index, _)| !avoid.contains(index))
            .fold(false, |any, (_, breaker)| breaker.hurry(now, Need::All) | any)
    }
}
