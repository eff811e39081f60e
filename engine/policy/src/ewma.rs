//! Peak-sensitive moving average of latency, and of failures beside it.
//!
//! A plain average is slow to notice that an endpoint has become slow, and that is the moment that matters. This one
//! jumps to a sample above it at once, and comes down exponentially as time passes, with or without samples: an endpoint
//! that nobody asks any more becomes attractive again, and so is tried again.
//!
//! Failures have a share of their own, and are no latency: a refused connection fails in microseconds, and its endpoint would be the
//! fastest of all; a price in milliseconds would be nothing in a slow pool, and in a fast one so much that it outlives the fault by a
//! minute, so that after some faults in turn the endpoint that fails now is no dearer than those that are long well again. The share
//! steps up with each failure and down with each success, and fades while nobody asks.
//! Source: Finagle's `PeakEwma` (Twitter, 2014), as also used by linkerd and tower-load; Finagle divides by the share of successes
//! (`failureAccrual`), for the reason given here.

use crate::{Class, Fault, Now, Outcome, Verdict, time::nanos};
use std::time::Duration;

/// Time after which an old value weighs 1/e. Finagle's and linkerd's default: long against a pause in traffic, short
/// against an operator's patience.
pub const DECAY: Duration = Duration::from_secs(10);

/// What one outcome moves the share of failures by, of what is left of the way. A quarter: two failures in a row count as much as
/// half of all, and eight successes make good what was wholly broken.
const FAILING_GAIN: f64 = 0.25;

#[derive(Debug, Clone, Copy, Default)]
pub struct PeakEwma {
    nanos: f64,
    failing: f64,
    stamp: Now,
}

impl PeakEwma {
    /// Takes in one latency.
    pub fn observe(&mut self, now: Now, latency: Duration) {
        let sample = nanos(latency) as f64;
        let old = self.nanos;
        let keep = decay(now.nanos_since(self.stamp));
        self.nanos = if sample >= old { sample } else { old * keep + sample * (1.0 - keep) };
        self.failing *= keep;
        // Two samples out of order (another core's clock) must not move time back.
        self.stamp = self.stamp.max(now);
    }

    /// Takes in an outcome: its latency if it was good, and whether it was. Neutral outcomes teach nothing.
    pub fn record(&mut self, now: Now, outcome: &Outcome) {
        let good = match outcome.verdict() {
            // It would have taken longer: known to be at least as slow as that, and never quicker.
            Verdict::Neutral if outcome.class == Class::Overtaken => {
                if nanos(outcome.latency) as f64 > self.nanos(now) {
                    self.observe(now, outcome.latency);
                }
                return;
            }
            Verdict::Neutral => return,
            // Any server error: a breaker must not open for one failing address of an application, but an endpoint that fails
            // where others do not should be asked less, and where all fail all cost the same.
            Verdict::Success => outcome.fault() != Some(Fault::Upstream),
            Verdict::Failure => false,
        };
        if good {
            self.observe(now, outcome.latency);
        }
        let failing = self.failing(now);
        self.nanos = self.nanos(now);
        self.stamp = self.stamp.max(now);
        self.failing = failing + (f64::from(u8::from(!good)) - failing) * FAILING_GAIN;
    }

    /// Nanoseconds, decayed up to `now`. Zero when nothing was ever observed.
    #[must_use]
    pub fn nanos(&self, now: Now) -> f64 {
        self.nanos * decay(now.nanos_since(self.stamp))
    }

    /// The share of failures among the last few outcomes, in [0, 1], faded up to `now`.
    #[must_use]
    pub fn failing(&self, now: Now) -> f64 {
        self.failing * decay(now.nanos_since(self.stamp))
    }
}

fn decay(elapsed_nanos: u64) -> f64 {
    if elapsed_nanos == 0 {
        return 1.0;
    }
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
    fn failures_are_a_share_that_steps_and_fades() {
        let (mut ewma, bad, good) = (
            PeakEwma::default(),
            Outcome::answered(Duration::from_millis(1), 500),
            Outcome::answered(Duration::from_millis(1), 200),
        );
        let mut shares = Vec::new();
        for outcome in [bad, bad, good, good] {
            ewma.record(Now::ZERO, &outcome);
            shares.push(ewma.failing(Now::ZERO));
        }
        assert_eq!(shares, [0.25, 0.4375, 0.328_125, 0.246_093_75]);
        (0..99).for_each(|_| ewma.record(Now::ZERO, &bad));
        assert!(ewma.failing(Now::ZERO) > 0.999 && ewma.failing(Now::from_secs(60)) < 0.003);
        (0..8).for_each(|_| ewma.record(Now::ZERO, &good));
        assert!(ewma.failing(Now::ZERO) < 0.11, "whoever is well again is soon believed: {ewma:?}");
    }

    #[test]
    fn a_fast_failure_is_not_a_fast_endpoint() {
        let mut ewma = PeakEwma::default();
        ewma.record(Now::ZERO, &Outcome::answered(Duration::from_millis(8), 200));
        ewma.record(Now::ZERO, &Outcome::new(Duration::from_micros(20), Class::Refused));
        ewma.record(Now::ZERO, &Outcome::new(Duration::from_secs(9), Class::Abandoned));
        assert_eq!((ewma.nanos(Now::ZERO), ewma.failing(Now::ZERO)), (8.0 * MS, 0.25));
        ewma.record(Now::ZERO, &Outcome::new(Duration::from_secs(60), Class::TimedOut));
        assert_eq!(ewma.nanos(Now::ZERO), 8.0 * MS, "nor is a hang a latency, which would take minutes to fade");
        for (status, failing) in [(500, 0.25), (503, 0.25), (404, 0.0), (200, 0.0)] {
            let mut ewma = PeakEwma::default();
            ewma.record(Now::ZERO, &Outcome::answered(Duration::from_millis(1), status));
            assert_eq!(ewma.failing(Now::ZERO), failing, "{status}");
        }
    }
}
