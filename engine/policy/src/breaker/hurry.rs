//! Before a sentence ends, and after a phase has ended.
//!
//! Sentences are passed endpoint by endpoint, and so can put away a whole pool: a rolling restart finds the last endpoint down
//! while those before it are well and still sentenced. Whoever finds nobody to ask therefore says so ([`Breaker::hurry`]), and
//! trials go through at once, a second apart. If one fails, the sentence stands as it was; good ones close the breaker as
//! ever. An outage so ends with the pool's first good second and not with the last sentence, and costs a few tries a second.
//!
//! A failure counts for the time in which its try began: what hung in an outage and times out a minute after it is
//! no news of the endpoint. Where the breaker had not opened in that outage, tries that began later and succeeded tell so: failures that they
//! have overtaken are not in a row with others. Of all tries in a window they are a part all the same.

use super::{Breaker, Phase, away_ns};
use crate::{Now, Outcome, time::nanos};

/// How much depends on an endpoint whose breaker is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Others are ready, and few: a trial a second is next to no load.
    Some,
    /// Nobody else is ready, and requests wait: the pause is a part of each one's latency. What it costs is four tries a second at an
    /// endpoint that would otherwise have all of its share.
    All,
}

impl Need {
    /// Between two trials before their time.
    const fn pause_ns(self) -> u64 {
        match self {
            Self::Some => 1_000_000_000,
            Self::All => 250_000_000,
        }
    }
}

/// A try must be so much older than the present phase to be none of its business: more than clocks of workers and the rounding of
/// a verdict make, less than a timeout.
const FORMER_NS: u64 = 1_000_000_000;

impl Breaker {
    /// There are few others to ask, or none: a trial may go through now, whatever the time open and the trials under way say, unless the
    /// last one began just now. True if so.
    pub fn hurry(&mut self, now: Now, need: Need) -> bool {
        let due = self.order.is_none() && !self.admits(now) && away_ns(now, self.trials_since) >= need.pause_ns();
        if due {
            (self.hurried, self.trials_since, self.count) = (true, now, 0);
        }
        due
    }

    /// Whether a try that ends now began before the present phase, or before the trials under way. One whose clock has gone
    /// back since counts.
    pub(super) fn is_former(&self, now: Now, outcome: &Outcome) -> bool {
        let since = match self.phase {
            Phase::Closed if self.generation == 0 => return false,
            Phase::Closed => self.edge,
            Phase::Tripped(_) => self.trials_since,
        };
        is_older(now, outcome, since)
    }

    /// Whether a try that ends now began before one that has succeeded while this breaker was closed: how it failed is no news of the endpoint.
    #[must_use]
    pub fn is_overtaken(&self, now: Now, outcome: &Outcome) -> bool {
        matches!(self.phase, Phase::Closed)
            && self.trials_since > Now::ZERO
            && is_older(now, outcome, self.trials_since)
    }

    /// A try of another worker that began then has succeeded.
    pub fn hear_well(&mut self, now: Now, began: Now) {
        if matches!(self.phase, Phase::Closed) && began <= now {
            self.trials_since = self.trials_since.max(began);
        }
    }

    /// Whether an outcome is so late that it may be no news: worth asking others of theirs.
    #[must_use]
    pub const fn is_late(outcome: &Outcome) -> bool {
        nanos(outcome.latency) > FORMER_NS
    }

    /// A success while closed. A clock that has gone back begins anew.
    pub(super) fn row_ends(&mut self, now: Now, outcome: &Outcome) {
        let begun = Now::from_nanos(now.nanos().saturating_sub(nanos(outcome.latency)));
        if begun > self.trials_since || self.trials_since > now {
            self.trials_since = begun;
        }
        self.count = 0;
    }
}

fn is_older(now: Now, outcome: &Outcome, than: Now) -> bool {
    now >= than && nanos(outcome.latency) > now.nanos_since(than).saturating_add(FORMER_NS)
}

#[cfg(test)]
mod tests {
    use super::super::{BreakerSettings, BreakerState};
    use super::*;
    use crate::Class;
    use std::time::Duration;

    const GOOD: Outcome = Outcome::answered(Duration::from_millis(1), 200);
    const BAD: Outcome = Outcome::new(Duration::from_millis(1), Class::Refused);

    fn tripped(now: Now) -> Breaker {
        let mut breaker = Breaker::new(BreakerSettings::default(), 1);
        (0..5).for_each(|_| breaker.record(now, &BAD));
        breaker
    }

    #[test]
    fn who_has_nobody_else_hurries_and_the_sentence_stands() {
        let mut breaker = tripped(Now::from_secs(1));
        let until = breaker.reopens_at(Now::from_secs(1)).unwrap();
        assert!(!breaker.hurry(Now::from_nanos(1_999_999_999), Need::Some), "it has only just opened");
        assert!(!breaker.hurry(Now::from_nanos(1_249_999_999), Need::All), "it has only just opened");
        for step in 8..36 {
            let now = Now::from_nanos(step * 250_000_000);
            assert!(step % 4 == 0 || !breaker.clone().hurry(now, Need::Some), "{step}");
            assert!(breaker.hurry(now, Need::All) && breaker.admits(now) && !breaker.hurry(now, Need::All));
            breaker.begin(now);
            assert!(!breaker.admits(now), "one at a time, until one is good");
            breaker.record(now, &BAD);
            assert_eq!(breaker.reopens_at(now), Some(until), "neither shorter nor longer");
        }
        let hung = Now::from_secs(10);
        assert!(breaker.hurry(hung, Need::Some));
        breaker.begin(hung);
        let now = Now::from_secs(11);
        assert!(breaker.hurry(now, Need::Some), "trials that do not come back do not block the next ones");
        breaker.begin(now);
        breaker.record(now, &GOOD);
        (0..3).for_each(|_| breaker.begin(now));
        assert!(!breaker.admits(now), "then as many as ever");
        (0..2).for_each(|_| breaker.record(now, &GOOD));
        assert_eq!(breaker.state(now), BreakerState::Closed);
        breaker.force_open();
        assert!(!breaker.hurry(Now::from_secs(99), Need::All), "an operator's word stands");
    }

    #[test]
    fn what_an_outage_left_behind_is_not_held_against_who_is_back() {
        let late = Outcome::new(Duration::from_secs(60), Class::TimedOut);
        let mut breaker = tripped(Now::from_secs(1));
        let now = Now::from_secs(70);
        breaker.begin(now);
        breaker.record(now, &late);
        assert_eq!(breaker.state(now), BreakerState::HalfOpen, "it is not that trial's end");
        breaker.record(now, &GOOD);
        for _ in 0..2 {
            breaker.begin(now);
            breaker.record(now, &GOOD);
        }
        assert_eq!(breaker.state(now), BreakerState::Closed);
        (0..9).for_each(|_| breaker.record(Now::from_secs(80), &late));
        assert_eq!(breaker.state(Now::from_secs(80)), BreakerState::Closed);
        (0..5).for_each(|_| breaker.record(Now::from_secs(140), &late));
        assert_eq!(breaker.state(Now::from_secs(140)), BreakerState::Open, "these began when it was closed");
    }

    #[test]
    fn what_others_have_overtaken_is_in_no_row() {
        let late = |secs| Outcome::new(Duration::from_secs(secs), Class::TimedOut);
        let mut breaker = Breaker::new(BreakerSettings::default(), 1);
        let now = Now::from_secs(100);
        breaker.record(now, &GOOD);
        (0..50).for_each(|_| breaker.record(now, &late(60)));
        assert_eq!(breaker.state(now), BreakerState::Closed, "it was well since");
        (0..4).for_each(|_| breaker.record(now, &BAD));
        (0..50).for_each(|_| breaker.record(now, &late(60)));
        assert_eq!(breaker.state(now), BreakerState::Closed, "nor with others");
        breaker.record(now, &BAD);
        assert_eq!(breaker.state(now), BreakerState::Open);

        let mut breaker = Breaker::new(BreakerSettings::default(), 1);
        breaker.record(now, &GOOD);
        let later = Now::from_secs(160);
        (0..5).for_each(|_| breaker.record(later, &late(60)));
        assert_eq!(breaker.state(later), BreakerState::Open, "they began when it did");

        let mut breaker = Breaker::new(BreakerSettings::default(), 1);
        breaker.record(now, &GOOD);
        let back = Now::from_secs(20);
        breaker.record(back, &GOOD);
        (0..5).for_each(|_| breaker.record(back, &BAD));
        assert_eq!(breaker.state(back), BreakerState::Open, "a clock that went back keeps nobody in");

        let mut breaker = Breaker::new(BreakerSettings::default(), 1);
        breaker.hear_well(now, Now::from_secs(99));
        (0..50).for_each(|_| breaker.record(now, &late(60)));
        assert_eq!(breaker.state(now), BreakerState::Closed, "another worker's was well");
        breaker.hear_well(now, Now::from_secs(200));
        (0..5).for_each(|_| breaker.record(now, &BAD));
        breaker.hear_well(now, Now::from_secs(99));
        assert_eq!(breaker.state(now), BreakerState::Open, "that does not close it, nor does what has not been yet");
    }
}
