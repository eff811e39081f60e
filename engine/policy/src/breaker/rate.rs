//! Opening by share: how many of the last calls failed, or were slow.
//!
//! A run of failures never comes about when every second call succeeds, and a slow endpoint does not fail at all: both
//! want a share of a window. A share of few calls says nothing, hence a minimum volume for each.
//! Source: Resilience4j's time-based sliding window (failure rate, slow-call rate, minimum number of calls).

use super::{BreakerSettings, Trip};
use crate::{Now, Outcome, Verdict, Window, time::nanos};
use std::time::Duration;

/// A tenth of the window is forgotten at a time.
const BUCKETS: usize = 10;
const CALLS: usize = 0;
const FAILURES: usize = 1;
const SLOW: usize = 2;

/// Opens when `percent` of at least `calls_min` calls of the window failed. Typical: 50 % of 20 in 10 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateTrip {
    pub percent: u8,
    pub calls_min: u32,
}

/// Opens when `percent` of at least `calls_min` calls of the window took longer than `slower_than`, timeouts included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowTrip {
    pub slower_than: Duration,
    pub percent: u8,
    pub calls_min: u32,
}

/// The window of one breaker that wants one. 208 bytes, apart from the breaker so that those without it stay small.
#[derive(Debug, Clone)]
pub(super) struct Rates {
    window: Window<BUCKETS, 3>,
    rate: Option<RateTrip>,
    slow: Option<SlowTrip>,
}

const _: () = assert!(size_of::<Rates>() <= 208);

impl Rates {
    /// `None` when the settings ask for neither share.
    pub(super) fn new(settings: &BreakerSettings) -> Option<Self> {
        let wanted = settings.rate.is_some() || settings.slow.is_some();
        wanted.then(|| Self { window: Window::new(settings.window), rate: settings.rate, slow: settings.slow })
    }

    /// Counts a call, and says whether the endpoint has now failed or dawdled too often.
    pub(super) fn record(&mut self, now: Now, outcome: &Outcome, verdict: Verdict) -> Option<Trip> {
        if verdict == Verdict::Neutral {
            return None;
        }
        let (failed, slow) = (verdict == Verdict::Failure, self.is_slow(outcome));
        self.window.add(now, CALLS);
        if failed {
            self.window.add(now, FAILURES);
        }
        if slow {
            self.window.add(now, SLOW);
        }
        let sums = self.window.sums(now);
        let over = |kind: usize, percent: u8, calls_min: u32| {
            sums[CALLS] >= calls_min.max(1)
                && u64::from(sums[kind]) * 100 >= u64::from(percent) * u64::from(sums[CALLS])
        };
        match (self.rate, self.slow) {
            (Some(rate), _) if failed && over(FAILURES, rate.percent, rate.calls_min) => Some(Trip::Rate),
            (_, Some(limit)) if slow && over(SLOW, limit.percent, limit.calls_min) => Some(Trip::Slow),
            _ => None,
        }
    }

    pub(super) fn is_slow(&self, outcome: &Outcome) -> bool {
        self.slow.is_some_and(|slow| nanos(outcome.latency) > nanos(slow.slower_than))
    }

    pub(super) fn clear(&mut self) {
        self.window.clear();
    }
}
