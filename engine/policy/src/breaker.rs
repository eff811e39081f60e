//! When to stop asking an endpoint, and how to find out that it is back.
//!
//! ```text
//! closed ──(failures in a row)──► open ──(time passes)──► half-open ──(all trials good)──► closed
//!                                   ▲                         │
//!                                   └──(one trial bad: twice as long)
//! ```
//!
//! Counting failures in a row needs no rate and no minimum volume, and one success clears it: it sees a dead
//! endpoint in a handful of requests and never mistakes a busy one for dead. The time open is jittered, so that the
//! workers and machines that saw the same death do not all come back in the same instant, and doubles while trials fail.
//! Sources: Nygard, "Release It!" (circuit breaker); linkerd's consecutive-failures policy; Envoy's outlier ejection, from
//! which the growing time comes.

use crate::{Now, Outcome, Random, Verdict, time::nanos};
use std::time::Duration;

/// The open time doubles at most this often: 60 s becomes 16 min, after which an endpoint is an operator's matter.
const DOUBLINGS_MAX: u8 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Failures in a row that open it. Zero: it never opens.
    pub failures: u16,
    /// How long it stays open the first time.
    pub open_for: Duration,
    /// Requests let through at a time when half-open, and successes that close it.
    pub trials: u16,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self { failures: 5, open_for: Duration::from_secs(60), trials: 3 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    Open,
    HalfOpen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed,
    /// Open until `edge`, half-open from then on: time alone makes that step, so no timer is needed.
    Tripped,
}

/// One endpoint's breaker as one worker sees it. 40 bytes.
#[derive(Debug, Clone)]
pub struct Breaker {
    open_for_ns: u64,
    /// Closed: since when. Tripped: until when it is open.
    edge: Now,
    random: Random,
    failures_max: u16,
    trials: u16,
    /// Closed: failures in a row. Half-open: trials under way.
    count: u16,
    /// Half-open: trials that succeeded.
    successes: u16,
    doublings: u8,
    phase: Phase,
}

const _: () = assert!(size_of::<Breaker>() <= 48);

impl Breaker {
    /// `seed` decides the jitter: give each breaker its own.
    #[must_use]
    pub fn new(settings: BreakerSettings, seed: u64) -> Self {
        Self {
            open_for_ns: nanos(settings.open_for),
            edge: Now::ZERO,
            random: Random::new(seed),
            failures_max: settings.failures,
            trials: settings.trials.max(1),
            count: 0,
            successes: 0,
            doublings: 0,
            phase: Phase::Closed,
        }
    }

    #[must_use]
    pub fn state(&self, now: Now) -> BreakerState {
        match self.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Tripped if now < self.edge => BreakerState::Open,
            Phase::Tripped => BreakerState::HalfOpen,
        }
    }

    /// Whether a request may go to this endpoint now. Asking changes nothing; [`Breaker::begin`] takes the place.
    #[must_use]
    pub fn admits(&self, now: Now) -> bool {
        match self.state(now) {
            BreakerState::Closed => true,
            BreakerState::Open => false,
            BreakerState::HalfOpen => self.count < self.trials || self.trials_are_stale(now),
        }
    }

    /// A request that was admitted goes out. Its outcome must come back through [`Breaker::record`], a neutral one too.
    pub fn begin(&mut self, now: Now) {
        if self.state(now) == BreakerState::HalfOpen {
            if self.trials_are_stale(now) {
                self.edge = now;
                self.count = 0;
            }
            self.count = self.count.saturating_add(1);
        }
    }

    /// Takes in how a request ended.
    pub fn record(&mut self, now: Now, outcome: &Outcome) {
        match (self.state(now), outcome.verdict()) {
            (BreakerState::Closed, Verdict::Success) => self.count = 0,
            (BreakerState::Closed, Verdict::Failure) => {
                self.count = self.count.saturating_add(1);
                if self.failures_max > 0 && self.count >= self.failures_max {
                    let kept_closed = now.nanos_since(self.edge);
                    // An endpoint that was well for longer than its last sentence starts anew; a flapping one does not.
                    let relapse = self.edge != Now::ZERO && kept_closed < self.sentence_ns();
                    self.trip(now, relapse);
                }
            }
            (BreakerState::HalfOpen, Verdict::Success) => {
                self.count = self.count.saturating_sub(1);
                self.successes += 1;
                if self.successes >= self.trials {
                    (self.phase, self.edge, self.count, self.successes) = (Phase::Closed, now, 0, 0);
                }
            }
            (BreakerState::HalfOpen, Verdict::Failure) => self.trip(now, true),
            (BreakerState::HalfOpen, Verdict::Neutral) => self.count = self.count.saturating_sub(1),
            // An answer to a request from before it opened: too late to count either way.
            (BreakerState::Open, _) | (BreakerState::Closed, Verdict::Neutral) => {}
        }
    }

    /// When it will be half-open, for whoever wants to wake then. `None` unless open.
    #[must_use]
    pub fn reopens_at(&self, now: Now) -> Option<Now> {
        (self.state(now) == BreakerState::Open).then_some(self.edge)
    }

    fn trip(&mut self, now: Now, again: bool) {
        self.doublings = if again { (self.doublings + 1).min(DOUBLINGS_MAX) } else { 0 };
        let sentence = self.sentence_ns();
        // ±10 %: a uniform draw from [0.9, 1.1) of the sentence.
        let jittered = sentence - sentence / 10 + self.random.below(sentence / 5);
        (self.phase, self.edge, self.count, self.successes) = (Phase::Tripped, now.plus_nanos(jittered), 0, 0);
    }

    fn sentence_ns(&self) -> u64 {
        self.open_for_ns.saturating_mul(1 << self.doublings).min(u64::MAX / 2)
    }

    /// A trial whose outcome never came back must not keep the endpoint out for ever: after one more open time its place
    /// is free again.
    fn trials_are_stale(&self, now: Now) -> bool {
        now.nanos_since(self.edge) >= self.open_for_ns.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Class;

    const GOOD: Outcome = Outcome::answered(Duration::from_millis(1), 200);
    const BAD: Outcome = Outcome::new(Duration::from_millis(1), Class::Refused);
    const LEFT: Outcome = Outcome::new(Duration::from_millis(1), Class::Abandoned);

    fn breaker() -> Breaker {
        Breaker::new(BreakerSettings::default(), 1)
    }

    fn tripped(now: Now) -> Breaker {
        let mut breaker = breaker();
        for _ in 0..5 {
            breaker.begin(now);
            breaker.record(now, &BAD);
        }
        breaker
    }

    #[test]
    fn opens_on_failures_in_a_row_only() {
        let (mut breaker, now) = (breaker(), Now::from_secs(1));
        for outcome in [BAD, BAD, BAD, BAD, GOOD, BAD, BAD, LEFT, BAD, BAD] {
            breaker.record(now, &outcome);
            assert_eq!(breaker.state(now), BreakerState::Closed);
        }
        breaker.record(now, &BAD);
        assert_eq!(breaker.state(now), BreakerState::Open);
        assert!(!breaker.admits(now));
    }

    #[test]
    fn stays_open_for_its_jittered_time() {
        let mut ends = Vec::new();
        for seed in 0..100 {
            let mut breaker = Breaker::new(BreakerSettings::default(), seed);
            (0..5).for_each(|_| breaker.record(Now::ZERO, &BAD));
            let until = breaker.reopens_at(Now::ZERO).unwrap();
            assert!((Now::from_secs(54)..Now::from_secs(66)).contains(&until), "{until:?}");
            ends.push(until);
        }
        ends.sort();
        ends.dedup();
        assert!(ends.len() > 90, "the jitter spreads them");
    }

    #[test]
    fn half_open_lets_few_through_and_closes_when_all_are_good() {
        let mut breaker = tripped(Now::from_secs(1));
        let now = Now::from_secs(70);
        assert_eq!(breaker.state(now), BreakerState::HalfOpen);
        let mut sent = 0;
        while breaker.admits(now) {
            breaker.begin(now);
            sent += 1;
        }
        assert_eq!(sent, 3);
        breaker.record(now, &LEFT);
        assert!(breaker.admits(now), "a neutral outcome gives its place back");
        breaker.begin(now);
        for _ in 0..3 {
            assert_eq!(breaker.state(now), BreakerState::HalfOpen);
            breaker.record(now, &GOOD);
        }
        assert_eq!(breaker.state(now), BreakerState::Closed);
    }

    #[test]
    fn failed_trials_double_the_time_up_to_a_bound() {
        let mut now = Now::from_secs(1);
        let mut breaker = tripped(now);
        let mut minutes = Vec::new();
        for _ in 0..7 {
            let until = breaker.reopens_at(now).unwrap();
            minutes.push((until.since(now).as_secs_f64() / 60.0).round() as u64);
            now = until;
            breaker.begin(now);
            breaker.record(now, &BAD);
        }
        for (found, wanted) in minutes.iter().zip([1, 2, 4, 8, 16, 16, 16]) {
            assert!(found.abs_diff(wanted) * 10 <= wanted + 9, "{minutes:?}");
        }
    }

    #[test]
    fn a_flapping_endpoint_is_kept_out_longer_and_a_healed_one_is_not() {
        for (well_for, wanted) in [(10, 120), (600, 60)] {
            let mut breaker = tripped(Now::from_secs(1));
            let mut now = Now::from_secs(70);
            (0..3).for_each(|_| breaker.record(now, &GOOD));
            assert_eq!(breaker.state(now), BreakerState::Closed);
            now = now.plus(Duration::from_secs(well_for));
            (0..5).for_each(|_| breaker.record(now, &BAD));
            let open = breaker.reopens_at(now).unwrap().since(now).as_secs();
            assert!(open.abs_diff(wanted) <= wanted / 10, "well for {well_for} s, then open for {open} s");
        }
    }

    #[test]
    fn a_lost_trial_does_not_lock_the_endpoint_out() {
        let mut breaker = tripped(Now::from_secs(1));
        let now = Now::from_secs(70);
        (0..3).for_each(|_| breaker.begin(now));
        assert!(!breaker.admits(now));
        let later = Now::from_secs(200);
        assert!(breaker.admits(later));
        (0..3).for_each(|_| breaker.begin(later));
        assert!(!breaker.admits(later));
    }

    #[test]
    fn zero_failures_means_never() {
        let mut breaker = Breaker::new(BreakerSettings { failures: 0, ..BreakerSettings::default() }, 1);
        (0..1000).for_each(|_| breaker.record(Now::ZERO, &BAD));
        assert!(breaker.admits(Now::ZERO));
    }
}
