//! Each transition of a breaker, as its specification has it, whatever the clock does: beside the breaker runs a model that is
//! written for being read, and after each step both must say the same.
//!
//! The clock goes on as clocks do, stands still, leaps ahead by hours, and steps back by a little or by hours. What the breaker
//! draws by lot (how long exactly it is open) the model only bounds.

use policy::{Breaker, BreakerSettings, BreakerState, Class, Need, Now, Outcome, Random};
use std::collections::BTreeMap;
use std::time::Duration;

use crate::report;
use crate::settings::{MS, SECOND};
use BreakerState::{Closed, HalfOpen, Open};

const SEEDS: u64 = 200;
const STEPS: usize = 3_000;
const FAILURES: u32 = 5;
const TRIALS: u32 = 3;
const OPEN_FOR: u64 = 60 * SECOND;
const DOUBLINGS_MAX: u32 = 4;

/// How the clock got to where it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Clock {
    Stands,
    Runs,
    LeapsAhead,
    StepsBack,
    LeapsBack,
}

const CLOCKS: [Clock; 5] = [Clock::Stands, Clock::Runs, Clock::LeapsAhead, Clock::StepsBack, Clock::LeapsBack];

/// What made a breaker change its state.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Cause {
    Time,
    Failure,
    Success,
    Hurry,
    Told,
}

/// One way from a state to another.
type Turn = (Clock, Cause, &'static str);

#[derive(Clone, Copy)]
enum Phase {
    Closed { failures: u32 },
    Tripped { until: u64, out: u32, good: u32, hurried: bool },
}

/// The specification: what `breaker/mod.rs` and `breaker/hurry.rs` say before their code.
struct Model {
    phase: Phase,
    /// Closed: since when. Tripped: when the eldest trial began, or since when it is so.
    since: u64,
    /// Closed: when the youngest of those that succeeded began, if that is known.
    young: Option<u64>,
    doublings: u32,
    /// It has been open before.
    known: bool,
}

impl Model {
    fn sentence(&self) -> u64 {
        OPEN_FOR << self.doublings
    }

    /// A clock that has gone back by more than twice the sentence means nothing any more.
    fn waits(&self, now: u64, until: u64) -> bool {
        now < until && until - now <= 2 * self.sentence()
    }

    fn state(&self, now: u64) -> BreakerState {
        match self.phase {
            Phase::Closed { .. } => Closed,
            Phase::Tripped { until, hurried, .. } if self.waits(now, until) && !hurried => Open,
            Phase::Tripped { .. } => HalfOpen,
        }
    }

    /// Trials that did not come back within the time open are given up.
    fn is_stale(&self, now: u64) -> bool {
        now.abs_diff(self.since) >= OPEN_FOR
    }

    fn admits(&self, now: u64) -> bool {
        match (self.state(now), self.phase) {
            (HalfOpen, Phase::Tripped { until, out, good, hurried }) => {
                let alone = hurried && good == 0 && self.waits(now, until);
                out < if alone { 1 } else { TRIALS } || self.is_stale(now)
            }
            (state, _) => state == Closed,
        }
    }

    fn begin(&mut self, now: u64) {
        let (state, stale) = (self.state(now), self.is_stale(now));
        if let (HalfOpen, Phase::Tripped { out, .. }) = (state, &mut self.phase) {
            if *out == 0 || stale {
                (self.since, *out) = (now, 0);
            }
            *out += 1;
        }
    }

    fn hurry(&mut self, now: u64, pause: u64) -> bool {
        let due = !self.admits(now) && now.abs_diff(self.since) >= pause;
        if let (true, Phase::Tripped { out, hurried, .. }) = (due, &mut self.phase) {
            (*hurried, *out, self.since) = (true, 0, now);
        }
        due
    }

    /// It failed, but more than a second older than the phase it would count in.
    fn is_former(&self, now: u64, latency: u64) -> bool {
        (self.known || matches!(self.phase, Phase::Tripped { .. }))
            && now >= self.since
            && latency > now - self.since + SECOND
    }

    /// It failed, but one that began more than a second later has succeeded.
    fn is_overtaken(&self, now: u64, latency: u64) -> bool {
        self.young.is_some_and(|young| now >= young && latency > now - young + SECOND)
    }

    /// Takes in an end; `until` is what the breaker has drawn, should it open by this.
    fn record(&mut self, now: u64, end: End, latency: u64, until: Option<u64>) {
        if end == End::Bad && self.is_former(now, latency) {
            return;
        }
        let (state, sentence, overtaken) = (self.state(now), self.sentence(), self.is_overtaken(now, latency));
        let waits = matches!(self.phase, Phase::Tripped { until, .. } if self.waits(now, until));
        match (state, &mut self.phase, end) {
            (Closed, Phase::Closed { failures }, End::Good) => {
                *failures = 0;
                let begun = now - latency.min(now);
                self.young = self.young.filter(|&young| young <= now && young > begun).or(Some(begun));
            }
            (Closed, Phase::Closed { .. }, End::Bad) if overtaken => {}
            (Closed, Phase::Closed { failures }, End::Bad) => {
                *failures += 1;
                if *failures >= FAILURES {
                    let relapses = self.known && now.saturating_sub(self.since) < sentence;
                    self.trip(now, relapses, until);
                }
            }
            (HalfOpen, Phase::Tripped { out: 0, .. }, _) => {}
            (HalfOpen, Phase::Tripped { out, .. }, End::Neither) => *out -= 1,
            (HalfOpen, Phase::Tripped { out, good, .. }, End::Good) => {
                (*out, *good) = (*out - 1, *good + 1);
                if *good == TRIALS {
                    (self.phase, self.since, self.young) = (Phase::Closed { failures: 0 }, now, Some(now));
                }
            }
            (HalfOpen, Phase::Tripped { out, good: 0, hurried, .. }, End::Bad) if *hurried && waits => {
                (*hurried, *out, self.since) = (false, 0, now);
            }
            (HalfOpen, Phase::Tripped { .. }, End::Bad) => self.trip(now, true, until),
            _ => {}
        }
    }

    fn trip(&mut self, now: u64, again: bool, until: Option<u64>) {
        self.doublings = if again { (self.doublings + 1).min(DOUBLINGS_MAX) } else { 0 };
        let until = until.expect("it opens");
        let (sentence, drawn) = (self.sentence(), until - now);
        let spread = sentence - sentence / 10..sentence + sentence / 10;
        assert!(spread.contains(&drawn), "open for {drawn} ns, and {sentence} were due");
        self.open(now, until);
    }

    fn told_open(&mut self, now: u64, until: u64) {
        self.open(now, until.min(now + 2 * self.sentence()));
    }

    fn open(&mut self, now: u64, until: u64) {
        (self.phase, self.since) = (Phase::Tripped { until, out: 0, good: 0, hurried: false }, now);
        self.known = true;
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Good,
    Bad,
    /// The client left.
    Neither,
}

/// A breaker and its model on one clock.
struct Pair {
    breaker: Breaker,
    model: Model,
    random: Random,
    clock: Clock,
    at: u64,
    /// Tries that have begun and not ended.
    out: Vec<u64>,
    state: BreakerState,
    seen: BTreeMap<Turn, u32>,
}

impl Pair {
    fn new(seed: u64) -> Self {
        Self {
            breaker: Breaker::new(BreakerSettings::default(), seed),
            model: Model { phase: Phase::Closed { failures: 0 }, since: 0, young: None, doublings: 0, known: false },
            random: Random::new(seed),
            clock: Clock::Runs,
            // Room to step back.
            at: 100 * 3600 * SECOND,
            out: Vec::new(),
            state: Closed,
            seen: BTreeMap::new(),
        }
    }

    fn chance(&mut self, share: f64) -> bool {
        self.random.unit() < share
    }

    fn now(&self) -> Now {
        Now::from_nanos(self.at)
    }

    /// Both say the same; notes how they came to it.
    fn agree(&mut self, cause: Cause) {
        let (now, at) = (self.now(), self.at);
        let (state, admits) = (self.breaker.state(now), self.breaker.admits(now));
        let wanted = (self.model.state(at), self.model.admits(at));
        assert_eq!((state, admits), wanted, "after {cause:?}, while the clock {:?}", self.clock);
        if let (Open, Phase::Tripped { until, .. }) = (state, self.model.phase) {
            assert_eq!(self.breaker.reopens_at(now), Some(Now::from_nanos(until)), "after {cause:?}");
        }
        let turn = match (std::mem::replace(&mut self.state, state), state) {
            (Closed, Open) => "closed to open",
            (Open, HalfOpen) => "open to half-open",
            (HalfOpen, Open) => "half-open to open",
            (HalfOpen, Closed) => "half-open to closed",
            (from, to) => {
                assert_eq!(from, to, "there is no way from {from:?} to {to:?}: {cause:?}");
                return;
            }
        };
        *self.seen.entry((self.clock, cause, turn)).or_default() += 1;
    }

    fn pass_time(&mut self) {
        let (kind, hour) = (self.random.below(40), 3600 * SECOND);
        (self.clock, self.at) = match kind {
            0 => (Clock::LeapsAhead, self.at + hour + self.random.below(9 * hour)),
            1 => (Clock::LeapsBack, self.at.saturating_sub(hour + self.random.below(9 * hour)).max(hour)),
            2..6 => (Clock::StepsBack, self.at.saturating_sub(1 + self.random.below(100 * SECOND)).max(hour)),
            6..22 => (Clock::Stands, self.at),
            22..26 => (Clock::Runs, self.at + self.random.below(40 * SECOND)),
            _ => (Clock::Runs, self.at + self.random.below(100 * MS)),
        };
        self.agree(Cause::Time);
    }

    fn step(&mut self, ill: bool) {
        self.pass_time();
        if self.chance(0.002) {
            let until = self.at + self.random.below(600 * SECOND);
            self.breaker.told_open(self.now(), Now::from_nanos(until));
            self.model.told_open(self.at, until);
            // Half-open to open, or from one sentence to another.
            self.agree(Cause::Told);
        }
        if self.chance(0.05) {
            let (need, pause) = if self.chance(0.5) { (Need::All, SECOND / 4) } else { (Need::Some, SECOND) };
            assert_eq!(self.breaker.hurry(self.now(), need), self.model.hurry(self.at, pause));
            self.agree(Cause::Hurry);
        }
        if self.breaker.admits(self.now()) && self.chance(0.8) {
            self.breaker.begin(self.now());
            self.model.begin(self.at);
            self.out.push(self.at);
            self.agree(Cause::Time);
        }
        while !self.out.is_empty() && self.chance(0.6) {
            self.end(ill);
        }
    }

    /// One of the tries ends; a few never do.
    fn end(&mut self, ill: bool) {
        let which = self.random.below(self.out.len() as u64) as usize;
        let begun = self.out.swap_remove(which);
        if self.chance(0.02) {
            return;
        }
        let end = match self.random.unit() {
            draw if draw < 0.1 => End::Neither,
            draw if draw < if ill { 0.95 } else { 0.15 } => End::Bad,
            _ => End::Good,
        };
        // How long it took is measured by another clock than this, which does not jump.
        let latency = self.at.saturating_sub(begun).min(60 * SECOND);
        let outcome = match end {
            End::Good => Outcome::answered(Duration::from_nanos(latency), 200),
            End::Bad => Outcome::new(Duration::from_nanos(latency), Class::Refused),
            End::Neither => Outcome::new(Duration::from_nanos(latency), Class::Abandoned),
        };
        self.breaker.record(self.now(), &outcome);
        let until = self.breaker.reopens_at(self.now()).map(Now::nanos);
        self.model.record(self.at, end, latency, until);
        self.agree(if end == End::Good { Cause::Success } else { Cause::Failure });
    }
}

#[test]
fn breakers_turn_as_specified_whatever_the_clock_does() {
    let (mut seen, mut seeds) = (BTreeMap::new(), 0);
    for seed in report::seeds(SEEDS) {
        let mut pair = Pair::new(seed.number);
        for step in 0..STEPS {
            // Ill and well for a while each.
            pair.step(step / 50 % 2 == 0);
        }
        for (turn, count) in pair.seen {
            *seen.entry(turn).or_insert(0) += count;
        }
        seeds += 1;
    }
    for (turn, count) in &seen {
        println!("{turn:?}: {count}");
    }
    if seeds >= SEEDS {
        assert_all_were_met(&seen);
    }
}

/// No agreement about what never happened.
fn assert_all_were_met(seen: &BTreeMap<Turn, u32>) {
    for clock in CLOCKS {
        for turn in [
            (Cause::Failure, "closed to open"),
            (Cause::Failure, "half-open to open"),
            (Cause::Success, "half-open to closed"),
        ] {
            assert!(seen.contains_key(&(clock, turn.0, turn.1)), "the clock {clock:?}: never {turn:?}");
        }
    }
    for turn in [
        (Clock::Runs, Cause::Time, "open to half-open"),
        (Clock::LeapsAhead, Cause::Time, "open to half-open"),
        (Clock::LeapsBack, Cause::Time, "open to half-open"),
        // A sentence that was over has its end ahead again; or, after hours, comes near it for the second time.
        (Clock::StepsBack, Cause::Time, "half-open to open"),
        (Clock::Runs, Cause::Time, "half-open to open"),
        (Clock::Stands, Cause::Hurry, "open to half-open"),
        (Clock::StepsBack, Cause::Hurry, "open to half-open"),
        (Clock::Runs, Cause::Told, "closed to open"),
        (Clock::Runs, Cause::Told, "half-open to open"),
    ] {
        assert!(seen.contains_key(&turn), "never {turn:?}");
    }
    assert!(!seen.keys().any(|turn| turn.0 == Clock::Stands && turn.1 == Cause::Time), "time that stands does nothing");
}
