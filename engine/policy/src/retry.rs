//! Whether a failed try is followed by another one, and when.
//!
//! One function decides, and answers with the reason when it refuses. It asks, in this order: is there a cause; does the
//! operator want it retried; may this request be sent again (RFC 9110 §9.2.2); are tries left; did the endpoint ask for more
//! patience than there is (`Retry-After`, RFC 9110 §10.2.3); does the wait fit before the deadline; and last of all, so that
//! nothing is taken that is not used, the budget. A granted retry is counted there and then: one that sits out its back-off is
//! load already.
//!
//! The first retry at another endpoint after a failure to connect, a reset or a timeout is immediate: what failed was that
//! endpoint, and nobody gains by waiting. Everything else backs off.

use crate::{Backoff, Now, Outcome, Random, Replay, RetryBudget, RetryOn};
use std::time::Duration;

/// The lowest and the highest status code that can be chosen.
const STATUS_MIN: u16 = 400;
const STATUS_MAX: u16 = 599;

/// A set of status codes from 400 to 599, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StatusSet([u64; 4]);

impl StatusSet {
    /// Codes outside 400–599 are no errors, and are left out.
    #[must_use]
    pub fn of(codes: &[u16]) -> Self {
        codes.iter().filter_map(|&code| place(code)).fold(Self::default(), |mut set, (word, bit)| {
            set.0[word] |= bit;
            set
        })
    }

    #[must_use]
    pub fn contains(&self, code: u16) -> bool {
        place(code).is_some_and(|(word, bit)| self.0[word] & bit != 0)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The codes in it, the lowest first.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        let set = *self;
        (STATUS_MIN..=STATUS_MAX).filter(move |&code| set.contains(code))
    }
}

fn place(code: u16) -> Option<(usize, u64)> {
    let index = (STATUS_MIN..=STATUS_MAX).contains(&code).then(|| usize::from(code - STATUS_MIN))?;
    Some((index / 64, 1 << (index % 64)))
}

/// The causes that an operator wants retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryCauses {
    pub connect: bool,
    pub reset: bool,
    pub timed_out: bool,
    pub statuses: StatusSet,
}

impl RetryCauses {
    fn wants(&self, cause: RetryOn, outcome: &Outcome) -> bool {
        match cause {
            RetryOn::Connect => self.connect,
            RetryOn::Reset => self.reset,
            RetryOn::TimedOut => self.timed_out,
            RetryOn::Status => self.statuses.contains(outcome.status),
        }
    }
}

impl Default for RetryCauses {
    /// What says that this endpoint did not answer. Status codes are an application's language: its operator chooses them.
    fn default() -> Self {
        Self { connect: true, reset: true, timed_out: true, statuses: StatusSet::default() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    pub on: RetryCauses,
    /// Tries in all, the first one included.
    pub tries: u8,
    /// A fixed time for each try but the last; `None`: learnt ([`Patience`](crate::Patience)).
    pub per_try: Option<Duration>,
    pub backoff: Backoff,
    /// Whether requests whose method is not idempotent may be sent twice.
    pub non_idempotent: bool,
    /// The longest `Retry-After` that is waited for; beyond it the answer goes to the client, who can wait better.
    pub retry_after_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            on: RetryCauses::default(),
            tries: 2,
            per_try: None,
            backoff: Backoff::default(),
            non_idempotent: false,
            retry_after_max: Duration::from_secs(1),
        }
    }
}

/// What has been done for a request so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tried {
    /// Tries begun, the one that has just ended included.
    pub tries: u8,
    pub replay: Replay,
    /// When the request as a whole must be over.
    pub deadline: Option<Now>,
    /// The last wait between two tries.
    pub waited: Duration,
    /// Whether there is an endpoint that it has not been to.
    pub elsewhere: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryDecision {
    /// Try again after this time. The budget has been charged for a try that an endpoint has [borne](Outcome::cost_nobody).
    Retry {
        after: Duration,
    },
    Stop(Stop),
}

/// Why there is no other try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stop {
    /// Nothing that another try could mend.
    NoCause,
    /// The operator has not chosen this cause.
    NotWanted(RetryOn),
    /// The request may have been seen, and must not be seen twice.
    Unsafe,
    TriesSpent,
    /// The endpoint asked for a longer pause than there is time or patience for.
    RetryAfter,
    /// The next try could not begin before the deadline.
    Deadline,
    /// The pool has spent its retries.
    Budget,
}

impl RetryPolicy {
    /// What follows from `outcome`.
    pub fn decide(
        &self,
        now: Now,
        outcome: &Outcome,
        tried: &Tried,
        budget: &mut RetryBudget,
        random: &mut Random,
    ) -> RetryDecision {
        match self.judge(now, outcome, tried, random) {
            Ok(_) if !outcome.cost_nobody() && !budget.withdraw(now) => RetryDecision::Stop(Stop::Budget),
            Ok(after) => RetryDecision::Retry { after },
            Err(why) => RetryDecision::Stop(why),
        }
    }

    /// Everything but the budget: the wait, or the reason against it.
    fn judge(&self, now: Now, outcome: &Outcome, tried: &Tried, random: &mut Random) -> Result<Duration, Stop> {
        let cause = outcome.retry_on().ok_or(Stop::NoCause)?;
        if !self.on.wants(cause, outcome) {
            return Err(Stop::NotWanted(cause));
        }
        let trusted = self.non_idempotent && tried.replay == Replay::NotIdempotent;
        if !trusted && !outcome.retryable(tried.replay) {
            return Err(Stop::Unsafe);
        }
        if tried.tries >= self.tries {
            return Err(Stop::TriesSpent);
        }
        let fits = |wait: Duration| tried.deadline.is_none_or(|deadline| now.plus(wait) < deadline);
        let asked = outcome.retry_after.unwrap_or_default();
        if asked > self.retry_after_max || !asked.is_zero() && !fits(asked) {
            return Err(Stop::RetryAfter);
        }
        let after = self.pause(cause, tried, random).max(asked);
        if fits(after) { Ok(after) } else { Err(Stop::Deadline) }
    }

    fn pause(&self, cause: RetryOn, tried: &Tried, random: &mut Random) -> Duration {
        let first = tried.tries <= 1;
        if first && tried.elsewhere && cause != RetryOn::Status {
            return Duration::ZERO;
        }
        self.backoff.delay(tried.tries.saturating_sub(1), tried.waited, random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Class, RetryBudgetSettings};

    const RESET: Outcome = Outcome::new(Duration::from_millis(1), Class::Reset);
    const TIMED_OUT: Outcome = Outcome::new(Duration::from_millis(1), Class::TimedOut);
    const REFUSED: Outcome = Outcome::new(Duration::from_millis(1), Class::Refused);
    const BUSY: Outcome = Outcome::answered(Duration::from_millis(1), 503);
    const NOW: Now = Now::from_secs(100);

    fn first() -> Tried {
        Tried { tries: 1, replay: Replay::Idempotent, deadline: None, waited: Duration::ZERO, elsewhere: true }
    }

    fn policy() -> RetryPolicy {
        let on = RetryCauses { statuses: StatusSet::of(&[429, 502, 503, 504]), ..RetryCauses::default() };
        RetryPolicy { on, tries: 3, ..RetryPolicy::default() }
    }

    fn decide(policy: &RetryPolicy, outcome: Outcome, tried: Tried) -> RetryDecision {
        let mut budget = RetryBudget::new(RetryBudgetSettings::default());
        policy.decide(NOW, &outcome, &tried, &mut budget, &mut Random::new(1))
    }

    #[test]
    fn statuses_are_a_set() {
        let set = StatusSet::of(&[429, 503, 599, 400, 200, 600, 0]);
        let found: Vec<_> = (0..=u16::MAX).filter(|&code| set.contains(code)).collect();
        assert_eq!(found, [400, 429, 503, 599]);
        assert!(StatusSet::of(&[200]).is_empty() && !set.is_empty());
    }

    #[test]
    fn each_refusal_has_its_reason() {
        let answered = Outcome::answered(Duration::ZERO, 200);
        let late = Tried { deadline: Some(NOW), ..first() };
        let never = Tried { replay: Replay::Never, ..first() };
        let post = Tried { replay: Replay::NotIdempotent, ..first() };
        let spent = Tried { tries: 3, ..first() };
        let table = [
            (answered, first(), Stop::NoCause),
            (Outcome::new(Duration::ZERO, Class::Abandoned), first(), Stop::NoCause),
            (Outcome::answered(Duration::ZERO, 500), first(), Stop::NotWanted(RetryOn::Status)),
            (RESET, never, Stop::Unsafe),
            (TIMED_OUT, post, Stop::Unsafe),
            (BUSY, post, Stop::Unsafe),
            (RESET, spent, Stop::TriesSpent),
            (RESET, late, Stop::Deadline),
            (BUSY.with_retry_after(Some(Duration::from_secs(2))), first(), Stop::RetryAfter),
        ];
        for (outcome, tried, why) in table {
            assert_eq!(decide(&policy(), outcome, tried), RetryDecision::Stop(why), "{outcome:?} {tried:?}");
        }
    }

    #[test]
    fn the_first_retry_elsewhere_is_immediate_and_the_others_wait() {
        for outcome in [REFUSED, RESET, TIMED_OUT] {
            assert_eq!(decide(&policy(), outcome, first()), RetryDecision::Retry { after: Duration::ZERO });
        }
        for tried in [Tried { tries: 2, ..first() }, Tried { elsewhere: false, ..first() }] {
            let RetryDecision::Retry { after } = decide(&policy(), RESET, tried) else { panic!("{tried:?}") };
            assert!(after > Duration::ZERO && after < Duration::from_millis(50), "{after:?}");
        }
    }

    #[test]
    fn retry_after_is_kept() {
        let wait = Duration::from_millis(700);
        let asked = BUSY.with_retry_after(Some(wait));
        assert_eq!(decide(&policy(), asked, first()), RetryDecision::Retry { after: wait });
        let deadline = Some(NOW.plus(Duration::from_millis(600)));
        assert_eq!(decide(&policy(), asked, Tried { deadline, ..first() }), RetryDecision::Stop(Stop::RetryAfter));
    }

    #[test]
    fn an_operator_may_trust_the_application() {
        let trusting = RetryPolicy { non_idempotent: true, ..policy() };
        let post = Tried { replay: Replay::NotIdempotent, ..first() };
        assert!(matches!(decide(&trusting, RESET, post), RetryDecision::Retry { .. }));
        let gone = Tried { replay: Replay::Never, ..first() };
        assert_eq!(
            decide(&trusting, RESET, gone),
            RetryDecision::Stop(Stop::Unsafe),
            "what is gone cannot be sent again"
        );
        assert!(matches!(decide(&policy(), REFUSED, gone), RetryDecision::Retry { .. }), "nobody has seen it");
    }

    #[test]
    fn only_a_retry_that_happens_is_charged() {
        let mut budget = RetryBudget::new(RetryBudgetSettings { percent: 0, per_second_min: 1 });
        let (policy, mut random) = (policy(), Random::new(1));
        let spent = Tried { tries: 3, ..first() };
        for _ in 0..100 {
            let _ = policy.decide(NOW, &RESET, &spent, &mut budget, &mut random);
        }
        assert_eq!(budget.left(NOW), 10);
        for _ in 0..10 {
            assert!(matches!(
                policy.decide(NOW, &RESET, &first(), &mut budget, &mut random),
                RetryDecision::Retry { .. }
            ));
        }
        assert_eq!(policy.decide(NOW, &RESET, &first(), &mut budget, &mut random), RetryDecision::Stop(Stop::Budget));
    }

    #[test]
    fn what_reached_nobody_is_repeated_without_a_charge() {
        let mut budget = RetryBudget::new(RetryBudgetSettings { percent: 0, per_second_min: 1 });
        let (policy, mut random) = (policy(), Random::new(1));
        let mut decide = |class| {
            let outcome = Outcome::new(Duration::ZERO, class);
            policy.decide(NOW, &outcome, &first(), &mut budget, &mut random)
        };
        for class in [Class::Refused, Class::ConnectTimedOut, Class::Unresolved].repeat(20) {
            assert!(matches!(decide(class), RetryDecision::Retry { .. }), "{class:?}");
        }
        for _ in 0..10 {
            assert!(matches!(decide(Class::Untrusted), RetryDecision::Retry { .. }));
        }
        assert_eq!(decide(Class::Untrusted), RetryDecision::Stop(Stop::Budget), "a handshake has been borne");
        assert!(matches!(decide(Class::Refused), RetryDecision::Retry { .. }), "with nothing left");
    }
}
