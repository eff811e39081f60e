//! Peak-sensitive moving average of latency.
//!
//! A plain average is slow to notice that an endpoint has become slow, and that is the moment that matters. This one
//! jumps to a sample above it at once, and comes down exponentially as time passes, with or without samples: an endpoint
//! that nobody asks any more becomes attractive again, and so is tried again.
//! Source: Finagle's `PeakEwma` (Twitter, 2014), as also used by linkerd and tower-load.

use crate::{Class, Fault, Now, Outcome, Verdict, time::nanos};
use std::time::Duration;

/// Time after which an old value weighs 1/e. Finagle's and linkerd's default: long against a pause in traffic, short
/// against an operator's patience.
pub const DECAY: Duration = Duration::from_secs(10);

/// What a failed try counts as, at least. A refused connection fails in microseconds; without this a dead endpoint would
/// be the fastest one, and draw all traffic to itself until its breaker opens.
pub const FAILURE_COST: Duration = Duration::from_millis(250);

/// What it counts as at the most. Each failure costs twice what the endpoint cost before, so that a few of them make it dearer
/// than the others of however slow a pool; a minute without failures then brings it back.
pub const FAILURE_COST_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, Default)]
pub struct PeakEwma {
    nanos: f64,
    stamp: Now,
}

impl PeakEwma {
    /// Takes in one latency.
    pub fn observe(&mut self, now: Now, latency: Duration) {
        let sample = nanos(latency) as f64;
        let old = self.nanos;
        self.nanos = if sample >= old {
            sample
        } else {
            let keep = decay(now.nanos_since(self.stamp));
            old * keep + sample * (1.0 - keep)
        };
        // Two samples out of order (another core's clock) must not move time back.
        self.stamp = self.stamp.max(now);
    }

    /// Takes in an outcome: its latency, or the price of a failure. Neutral outcomes teach nothing.
    pub fn record(&mut self, now: Now, outcome: &Outcome) {
        match outcome.verdict() {
            // It would have taken longer: known to be at least as slow as that, and never quicker.
            Verdict::Neutral if outcome.class == Class::Overtaken => {
                if nanos(outcome.latency) as f64 > self.nanos(now) {
                    self.observe(now, outcome.latency);
                }
            }
            Verdict::Neutral => {}
            // Any server error: a breaker must not open for one failing address of an application, but an endpoint that fails
            // where others do not should be asked less, and where all fail all cost the same.
            Verdict::Success if outcome.fault() != Some(Fault::Upstream) => self.observe(now, outcome.latency),
            Verdict::Success | Verdict::Failure => self.observe(now, self.failure_cost(now).max(outcome.latency)),
        }
    }

    fn failure_cost(&self, now: Now) -> Duration {
        let doubled = Duration::from_nanos((self.nanos(now) * 2.0) as u64);
        doubled.clamp(FAILURE_COST, FAILURE_COST_MAX)
    }

    /// Nanoseconds, decayed up to `now`. Zero when nothing was ever observed.
    #[must_use]
    pub fn nanos(&self, now: Now) -> f64 {
        self.nanos * decay(now.nanos_since(self.stamp))
    }
}

fn decay(elapsed_nanos: u64) -> f64 {
    (-(elapsed_nanos as f64) / DECAY.as_nanos() as f64).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: f64 = 1e6;

    #[test]
    fn peaks_at_once_and_decays_slowly() {
        let mut ewma = PeakEwma::default();
        assert_eq!(ewma.nanos(Now::from_secs(5)), 0.0);
        ewma.observe(Now::from_secs(1), Duration::from_millis(10));
        ewma.observe(Now::from_secs(1), Duration::from_millis(100));
        assert_eq!(ewma.nanos(Now::from_secs(1)), 100.0 * MS);
        ewma.observe(Now::from_secs(2), Duration::from_millis(10));
        let after = ewma.nanos(Now::from_secs(2));
        assert!((91.0 * MS..92.0 * MS).contains(&after), "{after}");
        let idle = ewma.nanos(Now::from_secs(62));
        assert!(idle < 0.3 * MS, "{idle}");
    }

    #[test]
    fn time_that_goes_back_does_no_harm() {
        let mut ewma = PeakEwma::default();
        ewma.observe(Now::from_secs(10), Duration::from_millis(10));
        ewma.observe(Now::from_secs(9), Duration::from_millis(5));
        assert_eq!(ewma.nanos(Now::from_secs(8)), 10.0 * MS);
    }

    #[test]
    fn what_was_overtaken_is_at_least_so_slow() {
        let mut ewma = PeakEwma::default();
        ewma.observe(Now::ZERO, Duration::from_millis(20));
        ewma.record(Now::ZERO, &Outcome::new(Duration::from_millis(5), Class::Overtaken));
        assert_eq!(ewma.nanos(Now::ZERO), 20.0 * MS);
        ewma.record(Now::ZERO, &Outcome::new(Duration::from_millis(50), Class::Overtaken));
        assert_eq!(ewma.nanos(Now::ZERO), 50.0 * MS);
    }

    #[test]
    fn failures_outbid_however_slow_a_pool() {
        let mut ewma = PeakEwma::default();
        let mut costs = Vec::new();
        for _ in 0..8 {
            ewma.record(Now::ZERO, &Outcome::answered(Duration::from_millis(1), 500));
            costs.push(ewma.nanos(Now::ZERO) / MS);
        }
        assert_eq!(costs, [250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0, 10_000.0, 10_000.0]);
        assert!(ewma.nanos(Now::from_secs(60)) < 30.0 * MS, "and a minute brings it back");
    }

    #[test]
    fn a_fast_failure_is_not_a_fast_endpoint() {
        let mut ewma = PeakEwma::default();
        ewma.record(Now::ZERO, &Outcome::new(Duration::from_micros(20), Class::Refused));
        assert_eq!(ewma.nanos(Now::ZERO), 250.0 * MS);
        ewma.record(Now::ZERO, &Outcome::new(Duration::from_secs(9), Class::Abandoned));
        assert_eq!(ewma.nanos(Now::ZERO), 250.0 * MS);
        for (status, cost) in [(500, 250.0), (503, 250.0), (404, 1.0), (200, 1.0)] {
            let mut ewma = PeakEwma::default();
            ewma.record(Now::ZERO, &Outcome::answered(Duration::from_millis(1), status));
            assert_eq!(ewma.nanos(Now::ZERO), cost * MS, "{status}");
        }
    }
}
