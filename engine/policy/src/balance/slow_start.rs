//! A slow start for endpoints that have just become ready.
//!
//! A process with cold caches, an empty connection pool and an uncompiled hot path is slow for its first seconds, and its
//! full share at once can bring it down again. Its weight therefore grows over a window.
//! Source: Envoy's slow start, whose law this is: `max(least, (time ready ÷ window) ^ (1 ÷ aggression))`.
//!
//! Off unless asked for: no policy here herds on an endpoint that comes back (`tests/balancing.rs` shows it), so it is for
//! endpoints that need warming, and would only delay the others.

use crate::{Now, time::nanos};
use std::time::Duration;

/// Envoy counts the first second as one whole: a share of nothing would never warm anything.
const FIRST_NS: u64 = 1_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowStart {
    /// How long it takes to the full weight. Zero: off.
    pub window: Duration,
    /// 1 grows evenly; more of it grows faster at first. Not positive, or not a number: as 1.
    pub aggression: f32,
    /// The share of its weight that an endpoint begins with, in (0, 1].
    pub least: f32,
}

impl Default for SlowStart {
    fn default() -> Self {
        Self { window: Duration::ZERO, aggression: 1.0, least: 0.1 }
    }
}

impl SlowStart {
    /// What part of its weight counts, in (0, 1], for an endpoint that is ready since `since`.
    /// Meant for [`Endpoints::ramp`](super::Endpoints::ramp).
    #[must_use]
    pub fn factor(&self, since: Now, now: Now) -> f32 {
        let (ready, window) = (now.nanos_since(since), nanos(self.window));
        if ready >= window {
            return 1.0;
        }
        let part = (ready.max(FIRST_NS) as f64 / window as f64).min(1.0) as f32;
        let grown = if self.aggression > 0.0 { part.powf(self.aggression.recip()) } else { part };
        grown.max(self.least).clamp(f32::MIN_POSITIVE, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_by_its_law() {
        let law = |aggression| SlowStart { window: Duration::from_secs(100), aggression, least: 0.1 };
        let since = Now::from_secs(1000);
        let table = [
            (1.0, 0, 0.1),
            (1.0, 5, 0.1),
            (1.0, 50, 0.5),
            (1.0, 99, 0.99),
            (1.0, 100, 1.0),
            (1.0, 5000, 1.0),
            (2.0, 25, 0.5),
            (2.0, 0, 0.1),
            (0.5, 50, 0.25),
            (0.0, 50, 0.5),
            (f32::NAN, 50, 0.5),
        ];
        for (aggression, seconds, wanted) in table {
            let found = law(aggression).factor(since, since.plus(Duration::from_secs(seconds)));
            assert!((found - wanted).abs() < 1e-5, "{aggression} after {seconds} s: {found}");
        }
    }

    #[test]
    fn off_by_default_and_never_nothing() {
        assert_eq!(SlowStart::default().factor(Now::from_secs(9), Now::from_secs(9)), 1.0);
        for least in [0.0, -1.0, f32::NAN, 7.0] {
            let law = SlowStart { window: Duration::from_secs(u64::MAX), aggression: 0.01, least };
            let factor = law.factor(Now::from_secs(9), Now::ZERO);
            assert!(factor > 0.0 && factor <= 1.0, "{least}: {factor}");
        }
    }
}
