//! How long to wait for one endpoint before asking another: learnt from what the pool does, not set by hand.
//!
//! An endpoint that hangs (a stopped process, a lost machine behind a live address) accepts requests and answers none. A fixed
//! timeout long enough for the slowest report is of no help to the request that would take 5 ms anywhere else; one
//! short enough to help kills the report. So each try has two times:
//!
//! - the **hard** one is the configured timeout, or what is left of the request's own: when it passes, the try has failed;
//! - the **soft** one is learnt: when it passes without a byte of an answer, [`RetryPolicy::decide`](crate::RetryPolicy::decide)
//!   is asked as if the try had timed out. If it grants a retry, this try is given up for one elsewhere, and is recorded as
//!   [`Class::TimedOut`]; if it refuses (tries, method), **the try goes on** until its hard time, and if it is the budget that has none, until it
//!   has one again. Impatience so never fails a request: all that it can cost is the retry budget.
//!
//! The law of the soft time:
//!
//! ```text
//! soft = max(floor, factor × q(pool), 2 × factor × mean(endpoint))      capped by hard
//! q = the 99.5th percentile of the successes of the last two windows, or of the present one where that is longer; never the longest of all
//! ```
//!
//! - The endpoint's own mean speaks for one that is far from the others and seldom asked: it is slow, and well.
//! - As long as the pool has too few samples, `start` stands for `factor × q(pool)`.
//! - At an endpoint on trial it is no more than `start`, or twice the endpoint's mean: that most of them hang is what a trial is for.
//! - No soft time for the last try, for a request that must not be sent twice, and where there is no other endpoint.
//! - When it passes it is asked for again, and only if it has not grown meanwhile is it over. It grows threefold when the endpoint has
//!   answered another request since this one was sent: it is alive, and this request is probably just a slow one.
//!
//! **Everything slows down together** (a database, a garbage collection): the successes of slow tries are lost to the
//! estimate if they are given up, which would hold it down for ever. So a try that was given up is a censored sample, "at least
//! this long". It waits at its endpoint until that endpoint answers anything, which proves it slow and not hung,
//! and then counts; half a percent of such samples moves the quantile, which multiplies by `factor` at each step. An endpoint
//! that is hung answers nothing, and teaches nothing: its timeouts only count against its breaker.
//!
//! **What cannot move** (it may not be sent twice, or there is nobody else) waits on, and where its endpoint has died over it, in vain until the
//! configured timeout. [`Patience::silence`] is when that is worth finding out: no sooner than `DOUBT × soft`, so that it says nothing to slow answers.
//!
//! When half of the endpoints, and two at least, have been given up since they last answered, it may be the pool and not an
//! endpoint: for five seconds the soft time is three times as long, so that their breakers hear less of what no endpoint did.
//!
//! Sources: Dean and Barroso, "The Tail at Scale" (CACM 2013); Jacobson, "Congestion Avoidance and Control" (1988), for a timeout
//! learnt from what is timed; Karn and Partridge (1987), for the trap of samples that the timeout itself cuts off.

use crate::{Class, Latencies, Now, Outcome, Replay, Verdict, time::nanos};
use std::time::Duration;

/// Records between two looks at the histogram.
const REFRESH_EVERY: u8 = 32;

/// The endpoint's mean takes in an eighth of each sample (RFC 6298 §2 smooths a round-trip time so).
const MEAN_GAIN: f32 = 0.125;

/// How much longer to wait for an endpoint that is alive, or one of a pool that is slow. Three: with the floor, what hangs on a live
/// endpoint moves on within a third of a second.
const DOUBT: u32 = 3;

/// For how long that is believed: time for the quantile to learn how slow.
const POOL_IS_SLOW_FOR: Duration = Duration::from_secs(5);

/// Censored samples that an endpoint keeps until it answers.
const PENDING_MAX: u16 = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatienceSettings {
    /// The quantile of recent successes, in thousandths.
    pub permille: u16,
    /// How many times that is too long.
    pub factor: u8,
    /// No soft time is shorter: below it a pause of the scheduler or a lost packet (200 ms until TCP sends it again) would look
    /// like a hang.
    pub floor: Duration,
    /// Stands for the learnt time until there are samples.
    pub start: Duration,
    /// Samples before the pool's quantile counts.
    pub samples_min: u16,
}

impl Default for PatienceSettings {
    fn default() -> Self {
        Self {
            permille: 995,
            factor: 3,
            floor: Duration::from_millis(100),
            start: Duration::from_millis(500),
            samples_min: 50,
        }
    }
}

/// What is known of one endpoint. 40 bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct EndpointPatience {
    /// The longest of the tries given up since the last answer.
    given_up_ns: u64,
    /// When it last answered.
    answered_at: Now,
    /// When its last silence ended.
    woke_at: Now,
    mean_ns: f32,
    /// How many of them have not counted yet.
    pending: u16,
    /// How many more there were, while it answered nobody.
    silent: u16,
    /// Given up, and not heard of since.
    suspect: bool,
}

const _: () = assert!(size_of::<EndpointPatience>() == 40);

/// One try, as far as the answer depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Try {
    /// When the try began.
    pub sent: Now,
    /// Whether this is the last try that the policy allows.
    pub last: bool,
    pub replay: Replay,
    /// Whether there is an endpoint that the request has not been to.
    pub elsewhere: bool,
    /// The configured timeout.
    pub configured: Duration,
    /// What is left of the request's own time.
    pub remaining: Option<Duration>,
    /// The operator's soft time, in place of the learnt one.
    pub fixed: Option<Duration>,
    /// The endpoint is on trial: what it took before it failed is no promise.
    pub on_trial: bool,
}

/// How long a try may take, from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// When to ask whether it should go on.
    pub soft: Option<Duration>,
    /// When it has failed.
    pub hard: Duration,
}

/// The patience of one worker with one pool. 424 bytes.
#[derive(Debug, Clone)]
pub struct Patience {
    settings: PatienceSettings,
    latencies: Latencies,
    quantile: Option<Duration>,
    refreshed: Now,
    endpoints: u32,
    /// How many of them are suspects.
    suspects: u32,
    /// When the pool itself was last found slow.
    slow_at: Option<Now>,
    since_refresh: u8,
}

const _: () = assert!(size_of::<Patience>() <= 448);

impl Patience {
    /// For a pool of so many endpoints, none of them suspect; [`follow`](Self::follow) tells of a change.
    #[must_use]
    pub const fn new(settings: PatienceSettings, endpoints: u32) -> Self {
        Self {
            settings,
            endpoints,
            suspects: 0,
            slow_at: None,
            latencies: Latencies::new(settings.samples_min),
            quantile: None,
            refreshed: Now::ZERO,
            since_refresh: 0,
        }
    }

    /// The pool has so many endpoints now, of which so many are [suspects](EndpointPatience::is_suspect).
    pub const fn follow(&mut self, endpoints: u32, suspects: u32) {
        (self.endpoints, self.suspects) = (endpoints, suspects);
    }

    /// Takes in how a try at `endpoint` ended.
    pub fn record(&mut self, now: Now, endpoint: &mut EndpointPatience, outcome: &Outcome) {
        match (outcome.class, outcome.verdict()) {
            (Class::TimedOut, _) => {
                self.suspects += u32::from(endpoint.give_up(now, outcome.latency));
                if self.suspects >= 2 && self.suspects * 2 >= self.endpoints {
                    self.slow_at = Some(now);
                }
            }
            // Censored as one that was given up, and no reason to suspect anybody.
            (Class::Overtaken, _) => endpoint.cut_short(now, outcome.latency),
            // Nobody is there, or not any more: that is no pool which has become slow.
            (Class::Refused | Class::Reset, _) => self.acquit(endpoint),
            (Class::Answered(_), Verdict::Success) => {
                self.acquit(endpoint);
                let known = endpoint.ends_silence(now, outcome.latency, self.pool_time(now));
                let silence = now.since(endpoint.answered_at);
                endpoint.answered_at = now;
                if known == Silence::Over {
                    return;
                }
                if known == Silence::None {
                    self.take_pending(now, endpoint, outcome.latency, silence);
                }
                endpoint.learn(outcome.latency);
                let turned = self.latencies.record(now, outcome.latency);
                self.since_refresh = self.since_refresh.saturating_add(1);
                if turned || self.quantile.is_none() || self.since_refresh >= REFRESH_EVERY {
                    self.refresh(now);
                }
            }
            _ => {}
        }
    }

    const fn acquit(&mut self, endpoint: &mut EndpointPatience) {
        if std::mem::replace(&mut endpoint.suspect, false) {
            self.suspects = self.suspects.saturating_sub(1);
        }
    }

    /// How long a try at `endpoint` may take.
    #[must_use]
    pub fn limit(&self, now: Now, endpoint: &EndpointPatience, waiting: &Try) -> Limit {
        let hard = waiting.remaining.map_or(waiting.configured, |left| left.min(waiting.configured));
        let repeatable = matches!(waiting.replay, Replay::Unsent | Replay::Idempotent);
        let movable = !waiting.last && repeatable && waiting.elsewhere;
        let own = || waiting.fixed.unwrap_or_else(|| self.soft(now, endpoint, waiting));
        let soft = movable.then(own).filter(|&soft| soft < hard);
        Limit { soft, hard }
    }

    /// For how long a try at `endpoint` is out before its silence is worth a question, whatever else could be done about it: `least`, or many
    /// times what nearly no answer takes.
    #[must_use]
    pub fn silence(&self, now: Now, endpoint: &EndpointPatience, waiting: &Try, least: Duration) -> Duration {
        self.soft(now, endpoint, &Try { on_trial: false, ..*waiting }).saturating_mul(DOUBT).max(least)
    }

    /// The latencies that it has learnt from, for whoever wants another quantile of them ([`Hedge`](crate::Hedge)).
    #[must_use]
    pub const fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    fn soft(&self, now: Now, endpoint: &EndpointPatience, waiting: &Try) -> Duration {
        let own = Duration::from_nanos(endpoint.mean_ns as u64).saturating_mul(2);
        let soft = match waiting.on_trial {
            true => self.pool_time(now).min(self.settings.start).max(own),
            false => self.pool_time(now).max(own.saturating_mul(self.factor())),
        };
        let doubtful = self.is_pool_slow(now) || endpoint.answered_at > waiting.sent;
        if doubtful { soft.saturating_mul(DOUBT) } else { soft }
    }

    /// What nearly no answer of the pool takes.
    fn pool_time(&self, now: Now) -> Duration {
        // What has not been refreshed for two minutes is forgotten, as the histogram forgets it.
        let known = self.quantile.filter(|_| now.since(self.refreshed) <= Duration::from_secs(120));
        let learnt = known.map_or(self.settings.start, |quantile| quantile.saturating_mul(self.factor()));
        learnt.max(self.settings.floor)
    }

    fn factor(&self) -> u32 {
        self.settings.factor.max(1).into()
    }

    fn is_pool_slow(&self, now: Now) -> bool {
        self.slow_at.is_some_and(|at| now.since(at).max(at.since(now)) < POOL_IS_SLOW_FOR)
    }

    /// `silence`: for how long it had answered nobody.
    fn take_pending(&mut self, now: Now, endpoint: &mut EndpointPatience, latency: Duration, silence: Duration) {
        // Those given up in a silence before an answer that is as slow were slow ones; before a faster one, the endpoint hung. So it did for those
        // that were out when a long silence began.
        let slow = nanos(latency) >= endpoint.given_up_ns / 2;
        let hung = nanos(silence) >= endpoint.given_up_ns.saturating_mul(DOUBT.into());
        let pending = match (slow, hung) {
            (true, _) => endpoint.pending + endpoint.silent,
            (false, true) => 0,
            (false, false) => endpoint.pending,
        };
        if pending > 0 {
            for _ in 0..pending {
                self.latencies.record(now, Duration::from_nanos(endpoint.given_up_ns));
            }
            self.refresh(now);
        }
        (endpoint.given_up_ns, endpoint.pending, endpoint.silent) = (0, 0, 0);
    }

    fn refresh(&mut self, now: Now) {
        self.quantile = self.latencies.quantile(now, self.settings.permille);
        (self.refreshed, self.since_refresh) = (now, 0);
    }
}

/// Whether an endpoint had been silent before an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Silence {
    /// It was not, or not for longer than is usual.
    None,
    /// Until this answer.
    Ends,
    /// Another answer ended it, while this request was out.
    Over,
}

impl EndpointPatience {
    /// Given up, and not heard of since.
    #[must_use]
    pub const fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// True when it has become a suspect by this.
    fn give_up(&mut self, now: Now, waited: Duration) -> bool {
        self.cut_short(now, waited);
        !std::mem::replace(&mut self.suspect, true)
    }

    /// A sample of which it is known only that it is no shorter.
    fn cut_short(&mut self, now: Now, waited: Duration) {
        self.given_up_ns = self.given_up_ns.max(nanos(waited));
        let count = if now.since(self.answered_at) < waited { &mut self.pending } else { &mut self.silent };
        *count = (*count + 1).min(PENDING_MAX);
    }

    /// What an answer that comes now says of the time before it. `long`: what nearly no answer takes.
    fn ends_silence(&mut self, now: Now, latency: Duration, long: Duration) -> Silence {
        if latency <= long {
            Silence::None
        } else if now.since(self.answered_at) >= latency / 2 {
            self.woke_at = now;
            Silence::Ends
        } else if self.woke_at <= now && now.since(self.woke_at) < latency {
            Silence::Over
        } else {
            Silence::None
        }
    }

    fn learn(&mut self, latency: Duration) {
        let sample = nanos(latency) as f32;
        self.mean_ns = if self.mean_ns == 0.0 { sample } else { self.mean_ns + MEAN_GAIN * (sample - self.mean_ns) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const HARD: Duration = Duration::from_secs(60);
    const ASK: Try = Try {
        sent: NOW,
        last: false,
        replay: Replay::Idempotent,
        elsewhere: true,
        configured: HARD,
        remaining: None,
        fixed: None,
        on_trial: false,
    };
    const NOW: Now = Now::from_secs(100);

    fn taught(latency: Duration) -> (Patience, EndpointPatience) {
        let (mut patience, mut endpoint) = (Patience::new(PatienceSettings::default(), 4), EndpointPatience::default());
        for step in 0..1000 {
            let now = Now::from_nanos(NOW.nanos() - 4_000_000_000 + step * 4_000_000);
            patience.record(now, &mut endpoint, &Outcome::answered(latency, 200));
        }
        (patience, endpoint)
    }

    fn timed_out(after: Duration) -> Outcome {
        Outcome::new(after, Class::TimedOut)
    }

    #[test]
    fn starts_safe_and_then_follows_the_pool() {
        let fresh = Patience::new(PatienceSettings::default(), 4);
        assert_eq!(fresh.limit(NOW, &EndpointPatience::default(), &ASK), Limit { soft: Some(MS * 500), hard: HARD });
        for (latency, least, most) in [(1, 100, 100), (100, 300, 700), (2000, 6000, 15_000)] {
            let (patience, _) = taught(MS * latency);
            let soft = patience.limit(NOW, &EndpointPatience::default(), &ASK).soft.unwrap();
            assert!((MS * least..=MS * most).contains(&soft), "{latency} ms: {soft:?}");
        }
    }

    #[test]
    fn only_a_try_that_can_move_is_impatient() {
        let (patience, endpoint) = taught(MS);
        for waiting in [
            Try { last: true, ..ASK },
            Try { elsewhere: false, ..ASK },
            Try { replay: Replay::Never, ..ASK },
            Try { replay: Replay::NotIdempotent, ..ASK },
            Try { configured: MS * 50, ..ASK },
        ] {
            assert_eq!(patience.limit(NOW, &endpoint, &waiting).soft, None, "{waiting:?}");
        }
        let short = Try { remaining: Some(MS * 700), ..ASK };
        assert_eq!(patience.limit(NOW, &endpoint, &short), Limit { soft: Some(MS * 100), hard: MS * 700 });
    }

    #[test]
    fn a_hung_endpoint_teaches_nothing_and_a_slow_one_teaches_when_it_answers() {
        let (mut patience, endpoint) = taught(MS * 40);
        patience.endpoints = 8;
        let soft = |patience: &Patience| patience.limit(NOW, &EndpointPatience::default(), &ASK).soft.unwrap();
        let before = soft(&patience);
        let (mut hung, mut slow) = (endpoint, endpoint);
        for _ in 0..500 {
            patience.record(NOW, &mut hung, &timed_out(before));
        }
        assert_eq!(soft(&patience), before);
        for _ in 0..10 {
            patience.record(NOW, &mut slow, &timed_out(before));
        }
        assert_eq!(soft(&patience), before);
        patience.record(NOW, &mut slow, &Outcome::answered(before, 200));
        assert!(soft(&patience) >= before * 3, "{before:?} {:?}", soft(&patience));
    }

    #[test]
    fn the_end_of_a_hang_is_one_event_however_many_waited_for_it() {
        let (mut patience, endpoint) = taught(MS);
        let ask = Try { sent: NOW.plus(MS * 9000), ..ASK };
        let soft = |patience: &Patience, endpoint: &EndpointPatience| patience.limit(NOW, endpoint, &ask).soft.unwrap();
        let (mut hung, end) = (endpoint, NOW.plus(MS * 3000));
        (0..50).for_each(|_| patience.record(NOW.plus(MS * 150), &mut hung, &timed_out(MS * 100)));
        // Those that were sent just before its last answer are no others.
        (0..50).for_each(|early| patience.record(end, &mut hung, &Outcome::answered(MS * (3050 - early), 200)));
        for step in 1..=40 {
            patience.record(end.plus(MS * step), &mut hung, &Outcome::answered(MS, 200));
        }
        assert_eq!(soft(&patience, &endpoint), MS * 100, "the others have nothing to do with it");
        assert!(soft(&patience, &hung) < MS * 120, "and it is soon believed: {:?}", soft(&patience, &hung));
        let (mut slow, mut at) = (endpoint, end);
        for _ in 0..50 {
            at = at.plus(MS * 100);
            patience.record(at, &mut slow, &Outcome::answered(MS * 3000, 200));
        }
        assert!(soft(&patience, &endpoint) > MS * 3000, "who answers all the time is slow");
    }

    #[test]
    fn a_silence_is_longer_than_what_is_usual() {
        let (quick, endpoint) = taught(MS);
        let never = Try { replay: Replay::NotIdempotent, last: true, elsewhere: false, on_trial: true, ..ASK };
        assert_eq!(quick.silence(NOW, &endpoint, &never, MS * 3000), MS * 3000);
        assert_eq!(quick.silence(NOW, &endpoint, &never, MS * 10), MS * 300, "an operator cannot make it rash");
        let (slow, endpoint) = taught(MS * 2000);
        let silence = slow.silence(NOW, &endpoint, &never, MS * 3000);
        assert!(silence >= MS * 18_000, "{silence:?}");
    }

    #[test]
    fn an_operators_time_stands_in_place_of_what_was_learnt() {
        let (patience, endpoint) = taught(MS * 30_000);
        assert_eq!(patience.limit(NOW, &endpoint, &ASK).soft, None, "what is usual takes longer than it may");
        let fixed = Try { fixed: Some(MS * 250), ..ASK };
        assert_eq!(patience.limit(NOW, &endpoint, &fixed).soft, Some(MS * 250));
        assert_eq!(patience.limit(NOW, &endpoint, &Try { last: true, ..fixed }).soft, None);
        assert_eq!(patience.limit(NOW, &endpoint, &Try { configured: MS * 200, ..fixed }).soft, None);
    }

    #[test]
    fn an_endpoint_that_answers_others_is_alive() {
        let (patience, endpoint) = taught(MS);
        let before = Try { sent: Now::from_secs(99), ..ASK };
        assert_eq!(patience.limit(NOW, &endpoint, &before).soft, Some(MS * 300));
        assert_eq!(patience.limit(NOW, &endpoint, &ASK).soft, Some(MS * 100));
    }

    #[test]
    fn when_most_are_given_up_it_is_the_pool() {
        let (mut patience, endpoint) = taught(MS);
        let soft = |patience: &Patience| patience.limit(NOW, &EndpointPatience::default(), &ASK).soft.unwrap();
        let mut suspects = [endpoint; 2];
        (0..9).for_each(|_| patience.record(NOW, &mut suspects[0], &timed_out(MS * 100)));
        assert_eq!(soft(&patience), MS * 100, "one of four");
        patience.record(NOW, &mut suspects[1], &timed_out(MS * 100));
        let slow = soft(&patience);
        assert!(slow >= MS * 300, "{slow:?}");
        let later = NOW.plus(Duration::from_secs(5));
        assert!(patience.limit(later, &EndpointPatience::default(), &ASK).soft.unwrap() <= slow / 3);
    }

    #[test]
    fn who_is_gone_is_no_sign_of_a_slow_pool() {
        let (mut patience, endpoint) = taught(MS);
        let soft = |patience: &Patience| patience.limit(NOW, &EndpointPatience::default(), &ASK).soft.unwrap();
        for gone in [Class::Refused, Class::Reset] {
            let mut suspects = [endpoint; 3];
            patience.record(NOW, &mut suspects[0], &timed_out(MS * 100));
            patience.record(NOW, &mut suspects[0], &Outcome::new(MS, gone));
            patience.record(NOW, &mut suspects[1], &timed_out(MS * 100));
            assert_eq!(soft(&patience), MS * 100, "one of four hangs, and one is gone");
            patience.record(NOW, &mut suspects[1], &Outcome::answered(MS, 200));
        }
    }

    #[test]
    fn what_was_out_when_a_hang_began_is_not_slow() {
        let (mut patience, endpoint) = taught(MS);
        let mut hung = endpoint;
        let ask = Try { sent: NOW.plus(MS * 9000), ..ASK };
        (0..50).for_each(|_| patience.record(NOW.plus(MS * 90), &mut hung, &timed_out(MS * 100)));
        let end = NOW.plus(MS * 5000);
        patience.record(end, &mut hung, &Outcome::answered(MS * 20, 200));
        patience.record(end, &mut hung, &Outcome::answered(MS * 20, 200));
        assert_eq!(patience.limit(end, &endpoint, &ask).soft, Some(MS * 100));
    }

    #[test]
    fn an_endpoint_on_trial_has_no_more_than_start_or_twice_its_own_time() {
        let (patience, slow) = taught(MS * 400);
        let trial = Try { on_trial: true, ..ASK };
        let soft = |endpoint: &EndpointPatience, waiting: &Try| patience.limit(NOW, endpoint, waiting).soft.unwrap();
        assert!(soft(&EndpointPatience::default(), &ASK) > MS * 1000);
        assert_eq!(soft(&EndpointPatience::default(), &trial), MS * 500);
        assert!((MS * 790..MS * 810).contains(&soft(&slow, &trial)), "{:?}", soft(&slow, &trial));
    }

    #[test]
    fn a_far_endpoint_is_given_its_own_time() {
        let (mut patience, _) = taught(MS);
        let mut far = EndpointPatience::default();
        patience.record(NOW, &mut far, &Outcome::answered(MS * 90, 200));
        let soft = patience.limit(NOW, &far, &ASK).soft.unwrap();
        assert!((MS * 530..MS * 550).contains(&soft), "{soft:?}");
    }

    #[test]
    fn what_was_overtaken_counts_once_its_endpoint_answers_and_makes_no_suspect() {
        let (mut patience, mut endpoint) = taught(MS * 10);
        let before = patience.latencies().quantile(NOW, 950);
        for _ in 0..200 {
            patience.record(NOW, &mut endpoint, &Outcome::new(MS * 40, Class::Overtaken));
        }
        assert!(!endpoint.is_suspect());
        assert_eq!(patience.latencies().quantile(NOW, 950), before);
        patience.record(NOW, &mut endpoint, &Outcome::answered(MS * 10, 200));
        assert!(patience.latencies().quantile(NOW, 950) >= Some(MS * 40));
    }

    #[test]
    fn failures_are_no_latencies() {
        let (mut patience, mut endpoint) = taught(MS * 40);
        let before = patience.limit(NOW, &endpoint, &ASK);
        for _ in 0..1000 {
            patience.record(NOW, &mut endpoint, &Outcome::answered(MS * 9000, 503));
            patience.record(NOW, &mut endpoint, &Outcome::new(MS * 9000, Class::Abandoned));
        }
        assert_eq!(patience.limit(NOW, &endpoint, &ASK), before);
    }
}
