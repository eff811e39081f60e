//! Spreading bytes or requests over time, so that a rate holds without bursts and without drift.
//!
//! A [`Pacer`] is a token bucket (RFC 2697's, with one rate and one burst) that is only some milliseconds deep: what may be sent at once is a quantum
//! of about 2 ms, and the rest of the depth makes up for timers that fire late. Credit is counted in exact integers from the time that passed,
//! whenever one looks, so nothing is lost by looking often, rarely or late, up to [`LATE_MS`]. Linux's fq and BBR
//! pace by quanta of a millisecond or two for the same reason (`sk_pacing_shift`).
//!
//! In any time `t` a pacer grants at most `rate × t` and its depth (18 ms of the rate, or a grain and 8 ms of it), and, while there is always
//! something to send and timers are at most [`LATE_MS`] late, not less than `rate × t` by more than the same: 2 % of a second.
//!
//! [`Flows`] lets many flows share one pacer, a quantum each in turn. [`split`] divides one rate between workers.

use crate::Now;
use std::collections::VecDeque;

/// Timers may be this late before anything is lost.
pub const LATE_MS: u64 = 8;
const QUANTUM_MS: u64 = 2;
/// A quantum is raised to a grain only up to this: 1 % of a second.
const QUANTUM_MS_MAX: u64 = 10;
/// Bytes of a TCP segment on Ethernet with timestamps and room for a tunnel: less is dearer to send than it is worth.
const SEGMENT: u64 = 1_400;
/// One unit, in the fractions that credit is counted in: so `ns × units/s` needs no division.
const UNIT: u128 = 1_000_000_000;
/// A clock that went back further was set; less is two workers' clocks being read in turn.
const SKEW_NS_MAX: u64 = 1_000_000_000;
/// Of an equal share, the part that a worker without demand keeps: a hundredth. What comes to it first can start at once, and no more than
/// 1 % of the rate lies idle.
const IDLE_SHARE: u64 = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// This much may go now.
    Units(u64),
    /// Nothing may go before then. The end of time, if the rate is zero.
    Until(Now),
}

/// One rate, as one worker sees it.
#[derive(Debug, Clone)]
pub struct Pacer {
    rate: u64,
    grain: u64,
    quantum: u64,
    /// In 1/[`UNIT`].
    depth: u128,
    credit: u128,
    stamp: Now,
}

const _: () = assert!(size_of::<Pacer>() == 64);

impl Pacer {
    /// Bytes a second.
    #[must_use]
    pub fn bytes(rate: u64) -> Self {
        Self::new(rate, SEGMENT)
    }

    /// Requests, or other things that cannot be divided, a second.
    #[must_use]
    pub fn requests(rate: u64) -> Self {
        Self::new(rate, 1)
    }

    fn new(rate: u64, grain: u64) -> Self {
        let mut pacer = Self { rate, grain, quantum: 0, depth: 0, credit: 0, stamp: Now::ZERO };
        pacer.size();
        pacer
    }

    #[must_use]
    pub const fn rate(&self) -> u64 {
        self.rate
    }

    /// The most that is granted at once.
    #[must_use]
    pub const fn quantum(&self) -> u64 {
        self.quantum
    }

    /// From now on another rate. What was earned stays, up to the new depth.
    pub fn set_rate(&mut self, now: Now, rate: u64) {
        self.earn(now);
        self.rate = rate;
        self.size();
    }

    /// Takes up to `wanted` units, at most a quantum; fewer than both only if the wait for them would be for less than a grain.
    pub fn grant(&mut self, now: Now, wanted: u64) -> Grant {
        self.earn(now);
        let wanted = wanted.min(self.quantum);
        let there = (self.credit / UNIT) as u64;
        if there >= wanted || (there >= self.grain && there * 2 >= wanted) {
            let units = there.min(wanted);
            self.credit -= u128::from(units) * UNIT;
            return Grant::Units(units);
        }
        let missing = u128::from(wanted) * UNIT - self.credit;
        match missing.checked_div(u128::from(self.rate)) {
            None => Grant::Until(Now::from_nanos(u64::MAX)),
            // Up: a wake-up a nanosecond early would be for nothing.
            Some(wait) => Grant::Until(now.plus_nanos(u64::try_from(wait + 1).unwrap_or(u64::MAX))),
        }
    }

    /// Gives back what was granted and not used.
    pub fn put_back(&mut self, units: u64) {
        self.credit = self.credit.saturating_add(u128::from(units) * UNIT).min(self.depth);
    }

    fn earn(&mut self, now: Now) {
        if now >= self.stamp {
            let earned = u128::from(now.nanos_since(self.stamp)).saturating_mul(u128::from(self.rate));
            self.credit = self.credit.saturating_add(earned).min(self.depth);
            self.stamp = now;
        } else if self.stamp.nanos_since(now) > SKEW_NS_MAX {
            self.stamp = now;
        }
    }

    fn size(&mut self) {
        let worth = |ms: u64| (u128::from(self.rate) * u128::from(ms) / 1000) as u64;
        self.quantum = worth(QUANTUM_MS).max(self.grain.min(worth(QUANTUM_MS_MAX))).max(1);
        self.depth = u128::from(self.quantum) * UNIT + u128::from(self.rate) * u128::from(LATE_MS) * (UNIT / 1000);
        self.credit = self.credit.min(self.depth);
    }
}

/// Whose turn it is among the flows that share a pacer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// This flow may send so much. If it wanted more, it is in line again.
    Units { flow: u32, units: u64 },
    /// Nobody may before then.
    Until(Now),
    /// Nobody wants anything.
    Idle,
}

#[derive(Debug, Clone, Copy, Default)]
struct Flow {
    wanted: u64,
    in_line: bool,
}

/// Flows that share one pacer: a quantum each in turn, so that among those that always want more the rate divides evenly, and what one
/// does not want the others get. Flows are numbers below the capacity, chosen by the caller.
#[derive(Debug, Clone)]
pub struct Flows {
    pacer: Pacer,
    flows: Box<[Flow]>,
    /// Each flow is in it once at most: it never grows.
    line: VecDeque<u32>,
}

impl Flows {
    #[must_use]
    pub fn new(pacer: Pacer, capacity: u32) -> Self {
        let capacity = capacity as usize;
        Self { pacer, flows: vec![Flow::default(); capacity].into(), line: VecDeque::with_capacity(capacity) }
    }

    #[must_use]
    pub const fn pacer(&mut self) -> &mut Pacer {
        &mut self.pacer
    }

    /// What a flow wants to send from now on, in place of what it wanted before; zero when it leaves. Its place in line stays.
    /// `false`: there is no such flow.
    pub fn want(&mut self, flow: u32, units: u64) -> bool {
        let Some(state) = self.flows.get_mut(flow as usize) else { return false };
        state.wanted = units;
        if units > 0 && !state.in_line {
            state.in_line = true;
            self.line.push_back(flow);
        }
        true
    }

    /// The next flow that may send. Ask until there is none.
    pub fn next(&mut self, now: Now) -> Turn {
        while let Some(&flow) = self.line.front() {
            let state = &mut self.flows[flow as usize];
            if state.wanted == 0 {
                state.in_line = false;
                self.line.pop_front();
                continue;
            }
            // All of a quantum or nothing: pieces would make turns uneven.
            let units = match self.pacer.grant(now, state.wanted) {
                Grant::Units(units) => units,
                Grant::Until(time) => return Turn::Until(time),
            };
            state.wanted -= units;
            self.line.rotate_left(1);
            return Turn::Units { flow, units };
        }
        Turn::Idle
    }
}

/// Divides `rate` between workers in proportion to their demand (what each sent and could not send lately, in any unit), for the next 100 ms
/// or so. A hundredth of an equal share stays with each, whatever it asked for. The shares add up to `rate` exactly. Without
/// any demand they are equal.
///
/// Rates so divided react within a period; where that is too slow, or the rate is counted in requests, share a cell
/// ([`crate::limit::Lease`]).
pub fn split(rate: u64, demands: &[u64], shares: &mut [u64]) {
    let workers = demands.len().min(shares.len());
    let (demands, shares) = (&demands[..workers], &mut shares[..workers]);
    let idle = rate.checked_div(workers as u64 * IDLE_SHARE).unwrap_or(0);
    let rest = u128::from(rate - idle * workers as u64);
    let demand: u128 = demands.iter().map(|&demand| u128::from(demand)).sum();
    let (mut before, mut given) = (0_u128, 0_u128);
    for (index, share) in shares.iter_mut().enumerate() {
        // Differences of a running sum that ends at `rest`: roundings cannot add up.
        let until = if demand == 0 {
            rest * (index as u128 + 1) / workers as u128
        } else {
            before += u128::from(demands[index]);
            portion(rest, before, demand)
        };
        *share = idle + (until - given) as u64;
        given = until;
    }
}

/// `rest × part ÷ whole`. Of sums beyond 64 bits the low ones are let go, of both alike.
const fn portion(rest: u128, part: u128, whole: u128) -> u128 {
    let excess = (u128::BITS - whole.leading_zeros()).saturating_sub(u64::BITS);
    rest * (part >> excess) / (whole >> excess)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    const fn at(us: u64) -> Now {
        Now::from_nanos(1_000_000_000 + us * 1000)
    }

    #[test]
    fn quanta() {
        for (rate, quantum) in
            [(10_000, 100), (100_000, 1000), (500_000, 1400), (1_000_000, 2000), (125_000_000, 250_000)]
        {
            assert_eq!(Pacer::bytes(rate).quantum(), quantum);
        }
        for (rate, quantum) in [(0, 1), (1, 1), (100, 1), (10_000, 20)] {
            assert_eq!(Pacer::requests(rate).quantum(), quantum);
        }
    }

    #[test]
    fn grants_a_quantum_then_says_when() {
        let mut pacer = Pacer::bytes(1_000_000);
        for _ in 0..5 {
            assert_eq!(pacer.grant(at(0), u64::MAX), Grant::Units(2000));
        }
        assert_eq!(pacer.grant(at(0), u64::MAX), Grant::Until(at(2000).plus_nanos(1)));
        assert_eq!(
            pacer.grant(at(1500), u64::MAX),
            Grant::Units(1500),
            "a segment, and more than half of what was wanted"
        );
        assert_eq!(pacer.grant(at(1600), 10), Grant::Units(10));
        pacer.put_back(10);
        assert_eq!(pacer.grant(at(1600), 100), Grant::Units(100));
    }

    #[test]
    fn requests_come_one_by_one() {
        let mut pacer = Pacer::requests(50);
        assert_eq!(pacer.grant(at(0), 3), Grant::Units(1));
        let Grant::Until(next) = pacer.grant(at(0), 3) else { panic!("no burst") };
        assert!(next <= at(20_001), "{next:?}");
        assert_eq!(pacer.grant(next, 3), Grant::Units(1));
    }

    #[test]
    fn odd_rates_and_clocks() {
        let mut none = Pacer::bytes(0);
        assert_eq!(none.grant(at(0), 1), Grant::Until(Now::from_nanos(u64::MAX)));
        let mut all = Pacer::bytes(u64::MAX);
        assert!(matches!(all.grant(Now::from_nanos(u64::MAX), u64::MAX), Grant::Units(units) if units > 1 << 50));
        let mut pacer = Pacer::bytes(1_000_000);
        let mut ask = |now| {
            let mut granted = 0;
            while let Grant::Units(units) = pacer.grant(now, 5000) {
                granted += units;
            }
            granted
        };
        assert_eq!(ask(Now::from_secs(500)), 10_000);
        for turn in 0..100 {
            assert_eq!(
                ask(Now::from_secs(500)) + ask(Now::from_secs(3)) + ask(Now::from_nanos(3_000_000_000 - turn % 2)),
                0
            );
            assert_eq!(ask(Now::from_secs(500)), 10_000);
        }
    }

    #[test]
    fn flows_take_turns() {
        let mut flows = Flows::new(Pacer::bytes(1_000_000), 3);
        assert!(flows.want(0, 3000) && flows.want(2, 10_000) && !flows.want(3, 1));
        let mut turns = Vec::new();
        while let Turn::Units { flow, units } = flows.next(at(0)) {
            turns.push((flow, units));
        }
        assert_eq!(turns, [(0, 2000), (2, 2000), (0, 1000), (2, 2000), (2, 2000)]);
        assert!(flows.want(2, 0));
        assert_eq!(flows.next(at(0)), Turn::Idle);
    }

    #[test]
    fn shares_add_up_and_follow_demand() {
        let mut random = Random::new(3);
        for _ in 0..10_000 {
            let mut draw = |bits| random.next_u64() >> (63 - bits);
            let (rate, workers) = (draw(63), 1 + draw(5) as usize);
            let demands: Vec<_> = (0..workers).map(|worker| draw(63 - worker as u64)).collect();
            let mut shares = vec![0; workers];
            split(rate, &demands, &mut shares);
            assert_eq!(shares.iter().map(|&share| u128::from(share)).sum::<u128>(), u128::from(rate));
            assert!(shares.iter().all(|&share| share >= rate / (workers as u64 * IDLE_SHARE)));
        }
        let mut shares = [0; 4];
        split(1000, &[0, 0, 0, 0], &mut shares);
        assert_eq!(shares, [250; 4]);
        split(1000, &[30, 10, 0, 0], &mut shares);
        assert_eq!(shares, [746, 250, 2, 2]);
        split(3, &[7, 7], &mut shares[..2]);
        assert_eq!(shares[0] + shares[1], 3);
        split(5, &[], &mut []);
    }
}
