//! When to stop asking an endpoint, and how to find out that it is back.
//!
//! ```text
//! closed ──(failures in a row, too many failed or slow)──► open ──(time passes)──► half-open ──(trials good)──► closed
//!                                                            ▲                         │
//!                                                            └──(one trial bad: twice as long)
//! ```
//!
//! Counting failures in a row needs no rate and no minimum volume, and one success clears it: it sees a dead
//! endpoint in a handful of requests and never mistakes a busy one for dead. Shares of a window (`rate.rs`) see what it cannot,
//! and are asked for. The time open is jittered, so that the workers and machines that saw the same death do not all come
//! back in the same instant, and doubles while trials fail.
//!
//! Workers share what they learn (`verdict.rs`): [`Breaker::verdict`] goes out, [`Breaker::adopt`] takes in. Half-open, each
//! of W workers lets ⌈trials ÷ W⌉ requests through at a time, so that no worker is without a way to the endpoint; the good ones
//! are counted together, and `trials` of them close it for all.
//!
//! Who has nobody else to ask need not wait for the end of a sentence (`hurry.rs`).
//!
//! What holds here: a clock that jumps ahead ends an open time early, and so costs a few trials; one that jumps back cannot make
//! it longer than twice its length, nor lose a trial for longer than that. An order ([`Breaker::force_open`],
//! [`Breaker::force_closed`]) stands above evidence until [`Breaker::auto`]; it is not part of the verdict, because a
//! race of evidence must not undo what an operator said: each worker is told.
//!
//! Sources: Nygard, "Release It!" (circuit breaker); linkerd's consecutive-failures policy; Envoy's outlier ejection, from
//! which the growing time comes.

mod hurry;
mod rate;
mod verdict;

pub use hurry::Need;
pub use rate::{RateTrip, SlowTrip};
pub use verdict::BreakerVerdict;

use crate::{Now, Outcome, Random, Verdict, time::nanos};
use rate::Rates;
use std::time::Duration;
use verdict::{GENERATION_MAX, SUCCESSES_MAX};

/// The open time doubles at most this often: 60 s becomes 16 min, after which an endpoint is an operator's matter.
const DOUBLINGS_MAX: u8 = 4;

/// What `trials` may be: a verdict has six bits for it.
pub const TRIALS_MAX: u16 = SUCCESSES_MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Failures in a row that open it. Zero: never for that.
    pub failures: u16,
    /// Whether any server error counts as a failure, and not only 502, 503 and 504.
    pub count_500: bool,
    /// The share of failed calls that opens it; `None`: never for that.
    pub rate: Option<RateTrip>,
    /// The share of slow calls that opens it; `None`: never for that.
    pub slow: Option<SlowTrip>,
    /// What the two shares are taken over.
    pub window: Duration,
    /// How long it stays open the first time.
    pub open_for: Duration,
    /// Requests let through at a time when half-open, and successes that close it. 1–63.
    pub trials: u16,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            failures: 5,
            count_500: false,
            rate: None,
            slow: None,
            window: Duration::from_secs(10),
            open_for: Duration::from_secs(60),
            trials: 3,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    Open,
    HalfOpen,
}

/// Why a breaker is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trip {
    /// Failures in a row.
    Consecutive,
    /// The share of failures.
    Rate,
    /// The share of slow calls.
    Slow,
    /// A trial failed, or was slow where that counts.
    Trial,
    /// Another worker, or another judge, said so.
    Told,
    /// An operator said so.
    Forced,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Closed,
    /// Open until `edge`, half-open from then on: time alone makes that step, so no timer is needed.
    Tripped(Trip),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Open,
    Closed,
}

/// One endpoint's breaker as one worker sees it. 64 bytes, and 208 more when it watches a share.
#[derive(Debug, Clone)]
pub struct Breaker {
    open_for_ns: u64,
    /// Closed: since when. Tripped: until when it is open.
    edge: Now,
    /// When the eldest of the trials under way began; with none yet, since when it is open. Closed: when the youngest try began that succeeded.
    trials_since: Now,
    random: Random,
    rates: Option<Box<Rates>>,
    /// Openings and closings so far, over all workers.
    generation: u32,
    failures_max: u16,
    /// Closed: failures in a row. Half-open: this worker's trials under way.
    count: u16,
    /// Half-open: trials that succeeded, over all workers.
    successes: u16,
    /// Successes that close it.
    trials: u8,
    /// Trials that this worker may have under way.
    share: u8,
    doublings: u8,
    phase: Phase,
    order: Option<Order>,
    count_500: bool,
    /// Half-open before its time.
    hurried: bool,
}

const _: () = assert!(size_of::<Breaker>() <= 64);

impl Breaker {
    /// `seed` decides the jitter: give each breaker its own.
    #[must_use]
    pub fn new(settings: BreakerSettings, seed: u64) -> Self {
        let trials = settings.trials.clamp(1, SUCCESSES_MAX) as u8;
        Self {
            open_for_ns: nanos(settings.open_for),
            edge: Now::ZERO,
            trials_since: Now::ZERO,
            random: Random::new(seed),
            rates: Rates::new(&settings).map(Box::new),
            generation: 0,
            failures_max: settings.failures,
            count: 0,
            successes: 0,
            trials,
            share: trials,
            doublings: 0,
            phase: Phase::Closed,
            order: None,
            count_500: settings.count_500,
            hurried: false,
        }
    }

    /// This breaker is one of `workers` that share their verdicts, and so divide the trials.
    #[must_use]
    pub fn shared_by(mut self, workers: u16) -> Self {
        self.share = u16::from(self.trials).div_ceil(workers.max(1)) as u8;
        self
    }

    #[must_use]
    pub fn state(&self, now: Now) -> BreakerState {
        match (self.order, self.phase) {
            (Some(Order::Open), _) => BreakerState::Open,
            (Some(Order::Closed), _) | (None, Phase::Closed) => BreakerState::Closed,
            (None, Phase::Tripped(_)) if self.is_waiting(now) && !self.hurried => BreakerState::Open,
            (None, Phase::Tripped(_)) => BreakerState::HalfOpen,
        }
    }

    /// Whether a request may go to this endpoint now. Asking changes nothing; [`Breaker::begin`] takes the place.
    #[must_use]
    pub fn admits(&self, now: Now) -> bool {
        match self.state(now) {
            BreakerState::Closed => true,
            BreakerState::Open => false,
            BreakerState::HalfOpen => self.count < self.places(now) || self.trials_are_stale(now),
        }
    }

    /// A request that was admitted goes out. Its outcome must come back through [`Breaker::record`], a neutral one too.
    pub fn begin(&mut self, now: Now) {
        if self.state(now) == BreakerState::HalfOpen {
            if self.count == 0 || self.trials_are_stale(now) {
                (self.trials_since, self.count) = (now, 0);
            }
            self.count = self.count.saturating_add(1);
        }
    }

    /// Takes in how a request ended.
    pub fn record(&mut self, now: Now, outcome: &Outcome) {
        if self.order.is_some() {
            return;
        }
        let verdict = outcome.verdict_with(self.count_500);
        match self.state(now) {
            _ if verdict == Verdict::Failure && self.is_former(now, outcome) => {}
            BreakerState::Closed => self.judge(now, outcome, verdict),
            // Nothing is on trial: this answers a request from before it opened.
            BreakerState::HalfOpen if self.count == 0 => {}
            BreakerState::HalfOpen => self.judge_trial(now, outcome, verdict),
            // Too late to count either way.
            BreakerState::Open => {}
        }
    }

    /// What the other workers should know. It changes only when this breaker learns something: publish it when it does.
    #[must_use]
    pub fn verdict(&self) -> BreakerVerdict {
        match self.phase {
            Phase::Closed => BreakerVerdict::closed(self.generation, self.doublings),
            Phase::Tripped(_) => BreakerVerdict::tripped(self.generation, self.doublings, self.edge, self.successes),
        }
    }

    /// Takes over what another worker published, if by the merge law it says more than what is known here. True if so.
    pub fn adopt(&mut self, now: Now, heard: BreakerVerdict) -> bool {
        let mine = self.verdict();
        if heard <= mine {
            return false;
        }
        let (doublings, turned) = (self.doublings, heard.generation() != mine.generation());
        if turned || heard.is_tripped() != mine.is_tripped() {
            self.begin_phase(now, heard.generation());
        }
        self.doublings = heard.doublings().min(DOUBLINGS_MAX);
        self.successes = heard.successes();
        let sentenced = turned || !mine.is_tripped() || self.doublings != doublings;
        if !heard.is_tripped() {
            (self.phase, self.edge) = (Phase::Closed, now);
        } else if !self.is_plausible(now, heard.until()) {
            // Their clock is not ours: the length of the sentence holds, and its end is our own affair.
            if sentenced {
                (self.phase, self.edge) = (Phase::Tripped(Trip::Told), now.plus_nanos(self.sentence_ns()));
            }
        } else if sentenced || heard.until() != mine.until() {
            (self.phase, self.edge) = (Phase::Tripped(Trip::Told), heard.until());
        }
        true
    }

    /// Another judge than this breaker (an outlier detector, a probe) wants the endpoint left alone until then. No longer
    /// than twice the present open time from now: what is to last is [`force_open`](Self::force_open)'s business.
    pub fn told_open(&mut self, now: Now, until: Now) {
        self.begin_phase(now, self.generation.saturating_add(1).min(GENERATION_MAX));
        let longest = now.plus_nanos(self.sentence_ns().saturating_mul(2));
        (self.phase, self.edge) = (Phase::Tripped(Trip::Told), until.min(longest));
    }

    /// Lets nothing through until [`auto`](Self::auto).
    pub const fn force_open(&mut self) {
        self.order = Some(Order::Open);
    }

    /// Lets everything through until [`auto`](Self::auto), and counts nothing meanwhile.
    pub const fn force_closed(&mut self) {
        self.order = Some(Order::Closed);
    }

    /// Evidence decides again: what the workers had found, and may have found since.
    pub fn auto(&mut self) {
        if self.order.take().is_some() {
            self.count = 0;
            self.forget_rates();
        }
    }

    /// Why it lets nothing or little through; `None` when closed.
    #[must_use]
    pub fn reason(&self) -> Option<Trip> {
        match (self.order, self.phase) {
            (Some(Order::Open), _) => Some(Trip::Forced),
            (Some(Order::Closed), _) | (None, Phase::Closed) => None,
            (None, Phase::Tripped(why)) => Some(why),
        }
    }

    /// When it will be half-open, for whoever wants to wake then. `None` unless it is open and time alone will end that.
    #[must_use]
    pub fn reopens_at(&self, now: Now) -> Option<Now> {
        (self.order.is_none() && self.state(now) == BreakerState::Open).then_some(self.edge)
    }

    fn judge(&mut self, now: Now, outcome: &Outcome, verdict: Verdict) {
        match verdict {
            Verdict::Success => self.row_ends(now, outcome),
            Verdict::Failure if self.is_overtaken(now, outcome) => {}
            Verdict::Failure => self.count = self.count.saturating_add(1),
            Verdict::Neutral => return,
        }
        let share = self.rates.as_mut().and_then(|rates| rates.record(now, outcome, verdict));
        let in_a_row = self.failures_max > 0 && self.count >= self.failures_max;
        if let Some(why) = in_a_row.then_some(Trip::Consecutive).or(share) {
            // An endpoint that was well for longer than its last sentence starts anew; a flapping one does not.
            let relapse = self.generation > 0 && now.nanos_since(self.edge) < self.sentence_ns();
            self.trip(now, why, relapse);
        }
    }

    fn judge_trial(&mut self, now: Now, outcome: &Outcome, verdict: Verdict) {
        let slow = self.rates.as_ref().is_some_and(|rates| rates.is_slow(outcome));
        match verdict {
            Verdict::Neutral => self.count -= 1,
            Verdict::Success if !slow => {
                self.count -= 1;
                self.successes += 1;
                if self.successes >= u16::from(self.trials) {
                    self.close(now);
                }
            }
            // Nothing that was not known: the sentence that is being served was for this.
            Verdict::Success | Verdict::Failure if self.hurried && self.successes == 0 && self.is_waiting(now) => {
                (self.hurried, self.trials_since, self.count) = (false, now, 0);
            }
            Verdict::Success | Verdict::Failure => self.trip(now, Trip::Trial, true),
        }
    }

    /// Trials that may be under way here. Before its time there is one, until it was good.
    fn places(&self, now: Now) -> u16 {
        if self.hurried && self.successes == 0 && self.is_waiting(now) { 1 } else { u16::from(self.share) }
    }

    fn trip(&mut self, now: Now, why: Trip, again: bool) {
        self.begin_phase(now, self.generation.saturating_add(1).min(GENERATION_MAX));
        self.doublings = if again { (self.doublings + 1).min(DOUBLINGS_MAX) } else { 0 };
        let sentence = self.sentence_ns();
        // ±10 %: a uniform draw from [0.9, 1.1) of the sentence.
        let jittered = sentence - sentence / 10 + self.random.below(sentence / 5);
        (self.phase, self.edge) = (Phase::Tripped(why), now.plus_nanos(jittered));
    }

    fn close(&mut self, now: Now) {
        self.begin_phase(now, self.generation.saturating_add(1).min(GENERATION_MAX));
        (self.phase, self.edge) = (Phase::Closed, now);
    }

    fn begin_phase(&mut self, now: Now, generation: u32) {
        (self.generation, self.count, self.successes) = (generation, 0, 0);
        (self.trials_since, self.hurried) = (now, false);
        self.forget_rates();
    }

    fn forget_rates(&mut self) {
        if let Some(rates) = &mut self.rates {
            rates.clear();
        }
    }

    /// Still open: the end is ahead, and not so far ahead that the clock must have gone back since it was set.
    fn is_waiting(&self, now: Now) -> bool {
        now < self.edge && self.is_plausible(now, self.edge)
    }

    fn is_plausible(&self, now: Now, until: Now) -> bool {
        until.nanos_since(now) <= self.sentence_ns().saturating_mul(2)
    }

    fn sentence_ns(&self) -> u64 {
        self.open_for_ns.saturating_mul(1 << self.doublings).min(u64::MAX / 2)
    }

    /// A trial whose outcome never came back must not keep the endpoint out for ever: after one more open time its place
    /// is free again. So it is when the clock has gone back by as much.
    fn trials_are_stale(&self, now: Now) -> bool {
        away_ns(now, self.trials_since) >= self.open_for_ns.max(1)
    }
}

const fn away_ns(one: Now, other: Now) -> u64 {
    one.nanos_since(other) + other.nanos_since(one)
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
    fn a_verdict_by_another_clock_is_a_sentence_by_ones_own() {
        let (ahead, mut breaker, now) = (tripped(Now::from_secs(5000)), breaker(), Now::from_secs(1));
        assert!(breaker.adopt(now, ahead.verdict()));
        for second in 1..=60 {
            breaker.adopt(Now::from_secs(second), ahead.verdict());
            assert_eq!(breaker.state(Now::from_secs(second)), BreakerState::Open);
        }
        assert_eq!(breaker.state(Now::from_secs(61)), BreakerState::HalfOpen, "hearing it again begins nothing anew");
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
            for _ in 0..3 {
                breaker.begin(now);
                breaker.record(now, &GOOD);
            }
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

    #[test]
    fn a_share_of_failures_opens_where_a_run_never_comes() {
        let rate = Some(RateTrip { percent: 50, calls_min: 20 });
        let mut breaker = Breaker::new(BreakerSettings { rate, ..BreakerSettings::default() }, 1);
        let mut plain = self::breaker();
        for call in 1..=20_u64 {
            let (now, outcome) = (Now::from_nanos(call * 400_000_000), if call % 2 == 0 { BAD } else { GOOD });
            assert_eq!(breaker.state(now), BreakerState::Closed, "{call}");
            breaker.record(now, &outcome);
            plain.record(now, &outcome);
        }
        let now = Now::from_secs(8);
        assert_eq!((breaker.state(now), breaker.reason()), (BreakerState::Open, Some(Trip::Rate)));
        assert_eq!((plain.state(now), plain.reason()), (BreakerState::Closed, None));
    }

    #[test]
    fn slow_calls_open_and_a_slow_trial_opens_again() {
        let slow = Some(SlowTrip { slower_than: Duration::from_millis(100), percent: 60, calls_min: 10 });
        let mut breaker = Breaker::new(BreakerSettings { slow, ..BreakerSettings::default() }, 1);
        let crawl = Outcome::answered(Duration::from_millis(101), 200);
        let mut now = Now::from_secs(1);
        for _ in 0..5 {
            breaker.record(now, &GOOD);
            breaker.record(now, &crawl);
        }
        assert_eq!(breaker.state(now), BreakerState::Closed, "half of them");
        (0..3).for_each(|_| breaker.record(now, &crawl));
        assert_eq!((breaker.state(now), breaker.reason()), (BreakerState::Open, Some(Trip::Slow)));
        now = breaker.reopens_at(now).unwrap();
        breaker.begin(now);
        breaker.record(now, &crawl);
        assert_eq!((breaker.state(now), breaker.reason()), (BreakerState::Open, Some(Trip::Trial)));
    }

    #[test]
    fn orders_stand_above_evidence_and_end_with_auto() {
        let (mut breaker, now) = (tripped(Now::from_secs(1)), Now::from_secs(2));
        breaker.force_closed();
        assert!(breaker.admits(now) && breaker.reason().is_none());
        (0..100).for_each(|_| breaker.record(now, &BAD));
        assert!(breaker.admits(now));
        breaker.auto();
        assert_eq!((breaker.state(now), breaker.reason()), (BreakerState::Open, Some(Trip::Consecutive)));
        breaker.force_open();
        let later = Now::from_secs(1_000_000);
        assert_eq!((breaker.admits(later), breaker.reason()), (false, Some(Trip::Forced)));
        assert_eq!(breaker.reopens_at(later), None);
        breaker.auto();
        assert!(breaker.admits(later));
    }

    #[test]
    fn told_open_is_bounded() {
        let mut breaker = breaker();
        breaker.told_open(Now::from_secs(1), Now::from_secs(31));
        assert_eq!(breaker.state(Now::from_secs(30)), BreakerState::Open);
        assert_eq!(breaker.reason(), Some(Trip::Told));
        assert_eq!(breaker.state(Now::from_secs(31)), BreakerState::HalfOpen);
        breaker.told_open(Now::from_secs(100), Now::from_secs(1_000_000));
        assert_eq!(breaker.reopens_at(Now::from_secs(100)), Some(Now::from_secs(220)));
    }

    #[test]
    fn an_answer_from_before_it_opened_is_no_trial() {
        let (mut breaker, now) = (tripped(Now::from_secs(1)), Now::from_secs(70));
        (0..10).for_each(|_| breaker.record(now, &GOOD));
        assert_eq!(breaker.state(now), BreakerState::HalfOpen);
        breaker.record(now, &BAD);
        assert_eq!(breaker.state(now), BreakerState::HalfOpen);
    }
}
