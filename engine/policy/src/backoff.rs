//! How long to wait before another try.
//!
//! Waiting twice as long each time gives an endpoint room; waiting by chance keeps the requests that failed together from
//! coming back together. Sources: AWS Architecture Blog, "Exponential Backoff and Jitter" (Brooker, 2015), whose measurements
//! show that full and decorrelated jitter do the least work in all; Envoy's retry back-off, from which 25 ms to 250 ms come.

use crate::{Random, time::nanos};
use std::time::Duration;

/// How chance enters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Jitter {
    /// Anything between nothing and the whole step.
    #[default]
    Full,
    /// Anything between the base and three times the last wait.
    Decorrelated,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first step; each later one is twice as long.
    pub base: Duration,
    /// No wait is longer.
    pub cap: Duration,
    pub jitter: Jitter,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { base: Duration::from_millis(25), cap: Duration::from_millis(250), jitter: Jitter::Full }
    }
}

impl Backoff {
    /// The wait before retry number `nth` (the first is 0), after a last wait of `last`. At most `cap`.
    #[must_use]
    pub fn delay(&self, nth: u8, last: Duration, random: &mut Random) -> Duration {
        let (base, cap) = (nanos(self.base), nanos(self.cap));
        let drawn = match self.jitter {
            Jitter::Full => random.below(step(base, nth).min(cap)),
            Jitter::Decorrelated => {
                base.saturating_add(random.below(nanos(last).saturating_mul(3).saturating_sub(base)))
            }
        };
        Duration::from_nanos(drawn.min(cap))
    }
}

fn step(base: u64, nth: u8) -> u64 {
    base.saturating_mul(1_u64.checked_shl(u32::from(nth)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_jitter_fills_each_doubled_step_up_to_the_cap() {
        let (backoff, mut random) = (Backoff::default(), Random::new(1));
        for (nth, step_ms) in [(0, 25), (1, 50), (2, 100), (3, 200), (4, 250), (200, 250)] {
            let waits: Vec<_> = (0..2000).map(|_| backoff.delay(nth, Duration::ZERO, &mut random)).collect();
            let step = Duration::from_millis(step_ms);
            assert!(waits.iter().all(|&wait| wait < step), "{nth}");
            assert!(waits.iter().any(|&wait| wait > step * 9 / 10) && waits.iter().any(|&wait| wait < step / 10));
        }
    }

    #[test]
    fn decorrelated_jitter_grows_from_the_last_wait() {
        let backoff = Backoff { jitter: Jitter::Decorrelated, ..Backoff::default() };
        let mut random = Random::new(2);
        assert_eq!(backoff.delay(0, Duration::ZERO, &mut random), backoff.base);
        for _ in 0..2000 {
            let mut last = Duration::ZERO;
            for nth in 0..10 {
                let next = backoff.delay(nth, last, &mut random);
                assert!((backoff.base..=backoff.cap).contains(&next) && next <= (last * 3).max(backoff.base));
                last = next;
            }
        }
    }

    #[test]
    fn any_settings_will_do() {
        for jitter in [Jitter::Full, Jitter::Decorrelated] {
            for (base, cap) in
                [(Duration::MAX, Duration::MAX), (Duration::ZERO, Duration::MAX), (Duration::MAX, Duration::ZERO)]
            {
                let delay = Backoff { base, cap, jitter }.delay(u8::MAX, Duration::MAX, &mut Random::new(3));
                assert!(delay <= cap);
            }
        }
    }
}
