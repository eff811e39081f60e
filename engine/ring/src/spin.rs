//! Whether to spin before blocking: a wake-up costs a halt, an interrupt and a schedule, which is more than a short
//! wait; a long spin costs a core.

use std::time::Duration;

/// How a ring waits when there is nothing to do.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SpinPolicy {
    /// Spin only while completions have lately come faster than a sleep and a wake-up take.
    #[default]
    Auto,
    /// Always block at once.
    Off,
    /// Spin this long before each block.
    Fixed(Duration),
}

/// The longest spin of `Auto`, and the mean gap up to which it spins at all. A halt, interrupt and wake-up of a virtual
/// core take 30 to 60 µs; a gap longer than twice that is cheaper slept through.
const WINDOW_NANOS: u64 = 100_000;

/// The state of the decision: a moving average of how long waits have been.
#[derive(Clone, Debug)]
pub(crate) struct Spin {
    policy: SpinPolicy,
    gap_nanos: u64,
}

impl Spin {
    pub(crate) fn new(policy: SpinPolicy) -> Self {
        // Starts as if idle: the first waits block.
        Self { policy, gap_nanos: 10 * WINDOW_NANOS }
    }

    /// Whether to spin before this wait.
    #[inline]
    pub(crate) fn worthwhile(&self) -> bool {
        match self.policy {
            SpinPolicy::Auto => self.gap_nanos < WINDOW_NANOS,
            SpinPolicy::Off => false,
            SpinPolicy::Fixed(_) => true,
        }
    }

    /// The longest spin, in nanoseconds.
    #[inline]
    pub(crate) fn window(&self) -> u64 {
        match self.policy {
            SpinPolicy::Auto => WINDOW_NANOS,
            SpinPolicy::Off => 0,
            SpinPolicy::Fixed(span) => span.as_nanos() as u64,
        }
    }

    /// A wait, spun or slept, took this long.
    #[inline]
    pub(crate) fn waited(&mut self, nanos: u64) {
        // One long gap must not end the spinning of a busy worker, nor one short one begin it: weight 1/8, and a gap
        // counts at most ten windows.
        let gap = nanos.min(10 * WINDOW_NANOS);
        self.gap_nanos = self.gap_nanos - self.gap_nanos / 8 + gap / 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_gaps_begin_a_spin_and_idleness_ends_it() {
        let mut spin = Spin::new(SpinPolicy::Auto);
        assert!(!spin.worthwhile());
        (0..40).for_each(|_| spin.waited(20_000));
        assert!(spin.worthwhile());
        (0..3).for_each(|_| spin.waited(5_000_000_000));
        assert!(!spin.worthwhile());
        assert!(!Spin::new(SpinPolicy::Off).worthwhile());
    }
}
