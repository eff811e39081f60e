//! Turns at a rate: each comer is told when it may go, and the next one's turn is so much later.
//!
//! The memory of a rate is one moment: until when everything is taken. Who wants some units takes the time that they are worth from there,
//! or from now if that is later, and goes when its time begins. So comers go in the order in which they came, at exactly the rate, and
//! among those that always come back for more it divides evenly, a quantum each (who wakes late gets in line late: some
//! percent over ten seconds). It is virtual scheduling (ITU-T I.371, annex A), as in
//! [`limit`](crate::limit), with waiting in place of refusal; Linux's fq paces by such times of departure too.
//!
//! What this is for: rates that all workers share. One moment fits one atomic word, and [`Spacing::reserve`] is a function of its
//! arguments: load, reserve, compare-exchange, and again from the start if somebody else was first. So the rate is exact over
//! all workers at every moment, wherever the load is. Rates that belong to one worker have [`Pacer`](crate::Pacer).
//!
//! What holds: in any time `t` at most `rate × t`, a quantum, and the slack are granted. Whoever reserves and then leaves has taken its turn
//! with it.

use crate::{Now, time::nanos};
use std::time::Duration;

/// Bytes may catch up so much: timers fire late, and a flow asks for its next quantum only when it has passed the last one on.
const SLACK: Duration = Duration::from_millis(8);
/// A quantum of bytes: what the rate is in this time.
const QUANTUM: Duration = Duration::from_millis(2);
/// Bytes of a TCP segment: less is dearer to send than it is worth.
const QUANTUM_MIN: u64 = 1_400;
/// More at once buys nothing.
const QUANTUM_MAX: u64 = 256 << 10;
/// Emission intervals are kept in 2⁻³² ns.
const SCALE: u32 = 32;

/// A turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserved {
    /// When it comes.
    pub at: Now,
    /// Until when everything is taken now, ns: what the cell holds from here on.
    pub taken: u64,
}

/// A rate, ready to give turns: the same for all keys that have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spacing {
    /// 2⁻³² ns a unit.
    interval: u128,
    slack_ns: u64,
    quantum: u64,
}

impl Spacing {
    /// Bytes a second. Zero counts as one.
    #[must_use]
    pub const fn bytes(per_second: u64) -> Self {
        let worth = (per_second as u128 * QUANTUM.as_nanos() / 1_000_000_000) as u64;
        let quantum = if worth < QUANTUM_MIN {
            QUANTUM_MIN
        } else if worth > QUANTUM_MAX {
            QUANTUM_MAX
        } else {
            worth
        };
        Self::new(per_second, 1_000_000_000, nanos(SLACK), quantum)
    }

    /// So many requests in each `period`, one by one and without a burst.
    #[must_use]
    pub const fn requests(count: u32, period: Duration) -> Self {
        Self::new(count as u64, nanos(period), 0, 1)
    }

    const fn new(count: u64, period_ns: u64, slack_ns: u64, quantum: u64) -> Self {
        let count = if count == 0 { 1 } else { count };
        Self { interval: ((period_ns as u128) << SCALE) / count as u128, slack_ns, quantum }
    }

    /// The most units to reserve at once, so that nobody's turn is long.
    #[must_use]
    pub const fn quantum(&self) -> u64 {
        self.quantum
    }

    /// A turn of `units`, if it comes by `latest`. `taken` is what the cell holds; zero in a new one.
    #[must_use]
    pub const fn reserve(&self, taken: u64, now: Now, units: u64, latest: Now) -> Option<Reserved> {
        let now_ns = now.nanos();
        let start = if taken > now_ns { taken } else { now_ns };
        if start > latest.nanos() {
            return None;
        }
        let forgotten = now_ns.saturating_sub(self.slack_ns);
        let from = if taken > forgotten { taken } else { forgotten };
        Some(Reserved { at: Now::from_nanos(start), taken: from.saturating_add(self.worth(units)) })
    }

    /// How long the units take at this rate, ns; at least one, so that rounding never grants for nothing.
    const fn worth(&self, units: u64) -> u64 {
        let worth = self.interval.saturating_mul(units as u128) >> SCALE;
        if worth > u64::MAX as u128 {
            u64::MAX
        } else if worth == 0 {
            (units > 0) as u64
        } else {
            worth as u64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    const NEVER: Now = Now::from_nanos(u64::MAX);

    #[test]
    fn requests_go_one_by_one_in_the_order_in_which_they_came() {
        let spacing = Spacing::requests(200, Duration::from_secs(1));
        let (now, mut taken) = (Now::from_secs(5), 0);
        for turn in 0..1000 {
            let reserved = spacing.reserve(taken, now, 1, NEVER).unwrap();
            assert_eq!(reserved.at, now.plus_nanos(turn * 5_000_000));
            taken = reserved.taken;
        }
        let late = now.plus(Duration::from_secs(60));
        assert_eq!(spacing.reserve(taken, late, 1, NEVER).unwrap().at, late, "who comes to nobody goes at once");
    }

    #[test]
    fn who_would_have_to_wait_too_long_takes_nothing() {
        let spacing = Spacing::requests(10, Duration::from_secs(1));
        let (now, mut taken, mut went) = (Now::from_secs(5), 0, 0);
        while let Some(reserved) = spacing.reserve(taken, now, 1, now.plus(Duration::from_secs(2))) {
            (taken, went) = (reserved.taken, went + 1);
        }
        assert_eq!(went, 21);
    }

    /// Flows that pass a quantum on when their turn comes, as late as timers are, and then ask for the next.
    fn bytes_passed(rate: u64, flows: usize, late_ns_max: u64) -> Vec<u64> {
        let spacing = Spacing::bytes(rate);
        let (begun, mut random) = (Now::from_secs(9), Random::new(rate));
        let end = begun.plus(Duration::from_secs(10));
        let (mut wakes, mut passed, mut taken) = (vec![begun; flows], vec![0; flows], 0);
        while let Some((flow, &now)) = wakes.iter().enumerate().min_by_key(|(_, wake)| **wake)
            && now < end
        {
            passed[flow] += spacing.quantum();
            let reserved = spacing.reserve(taken, now, spacing.quantum(), NEVER).unwrap();
            taken = reserved.taken;
            wakes[flow] = if reserved.at > now { reserved.at.plus_nanos(random.below(late_ns_max + 1)) } else { now };
        }
        passed
    }

    #[test]
    fn ten_seconds_hold_within_two_percent_whatever_the_number_of_flows() {
        for rate in [100_000, 1_000_000, 25_000_000, 1_000_000_000] {
            for flows in [1, 3, 64] {
                let passed = bytes_passed(rate, flows, 1_500_000);
                let (all, wanted) = (passed.iter().sum::<u64>() as f64, rate as f64 * 10.0);
                let ahead = (flows as u64 * Spacing::bytes(rate).quantum()) as f64;
                let above = all - ahead <= wanted * 1.02;
                assert!(all >= wanted * 0.98 && above, "{rate} B/s, {flows} flows: {all}");
                let (least, most) = (passed.iter().min().unwrap(), passed.iter().max().unwrap());
                // Who wakes late gets in line late: some quanta, and not more in proportion as time goes on.
                assert!(most - least <= most / 16 + 8 * Spacing::bytes(rate).quantum(), "{least} to {most}");
            }
        }
    }

    #[test]
    fn odd_rates_and_clocks() {
        let fast = Spacing::bytes(u64::MAX);
        assert!(fast.reserve(0, Now::from_secs(1), u64::MAX, NEVER).is_some());
        let slow = Spacing::requests(1, Duration::MAX);
        assert_eq!(slow.reserve(0, Now::from_secs(1), 5, NEVER).unwrap().taken, u64::MAX);
        assert_eq!(Spacing::bytes(0), Spacing { quantum: QUANTUM_MIN, ..Spacing::bytes(1) });
        let spacing = Spacing::bytes(1_000_000);
        let ahead = spacing.reserve(0, Now::from_secs(100), 1000, NEVER).unwrap();
        assert_eq!(spacing.reserve(ahead.taken, Now::from_secs(50), 1, Now::from_secs(60)), None);
    }
}
