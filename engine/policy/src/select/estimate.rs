//! What a candidate is expected to cost.
//!
//! ```text
//! score    = cost × expected ÷ health
//! expected = (latency + failing ÷ (1 − failing) × 250 ms) × waiting
//! latency  = mean of what was answered, recent answers counting more (e-folding in 5 s; in 1 s where it is not the choice), 1 ms at least
//! failing  = share of what was not answered well, over the same time
//! waiting  = 1 + load^(√(2(c + 1)) − 1) ÷ (c (1 − load))      of c places, load of them taken; 1 where there is no limit
//! health   = ready endpoints ÷ endpoints × 1.4, 1 at most
//! ```
//!
//! - The mean is taken of sums that workers keep anyway and not of the balancer's peak-EWMA, which decays while nobody asks and jumps
//!   at a single slow answer: right for choosing among neighbours a million times an hour, wrong for moving a region's traffic.
//! - A failure is tried again until it succeeds, `failing ÷ (1 − failing)` times on average, and each costs
//!   [`FAILURE_COST`].
//! - The share that waits is Sakasegawa's approximation for a queue with c servers ("An approximation formula Lq ≃ α·ρ^β/(1−ρ)", 1977): a pool
//!   of a hundred places is as good as empty until nine of ten are taken, one of two places is not.
//! - Endpoints are thought to bear 1.4 times their usual load, as between a balancer's tiers.
//! - Below a millisecond everybody is near: between two pools in the same rack the cost decides.

use super::Score;
use crate::{Now, time::nanos};
use std::time::Duration;

/// What a failed try costs beside its time: the pause before the next one, and some of what a client's patience is made of.
const FAILURE_COST: Duration = Duration::from_millis(250);

/// Time after which an answer weighs 1/e. A step of ten times shows within a second, and a spike of a second is forgotten in ten.
const MEMORY: Duration = Duration::from_secs(5);

/// The same for one that is not the choice: its answers are few, and most of those that it had as the choice are old.
const MEMORY_IDLE: Duration = Duration::from_secs(1);

/// But no answer counts for more than a fifth while older ones are known, however old: of a candidate that gets one a minute, a single slow one
/// would be all that is known.
const ANSWERS_KEPT: f64 = 4.0;

/// The e-folding of how many places are taken, which is a number of the moment.
const LOAD_MEMORY: Duration = Duration::from_secs(1);

/// Nobody is nearer.
const LATENCY_MIN: Duration = Duration::from_millis(1);

/// At least one in a hundred is taken to succeed, and one place in a thousand to be free: scores stay finite.
const FAILING_MAX: f64 = 0.99;
const LOAD_MAX: f64 = 0.999;

/// How much of its usual load an endpoint can bear ([`crate::BalanceSettings::overprovision_percent`]).
const OVERPROVISION: f64 = 1.4;

/// What is seen of a pool, over all workers. Sums only grow, until `generation` says that they are others'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen {
    /// Counts changes of who is in the pool.
    pub generation: u64,
    /// Tries that tell something of the pool.
    pub calls: u64,
    /// Of those, what was not answered well.
    pub errors: u64,
    /// The latencies of the others, added up, in nanoseconds.
    pub latency_ns: u64,
    /// Endpoints that are ready, and all that the operator has not taken out.
    pub ready: u32,
    pub endpoints: u32,
    /// Requests out.
    pub in_flight: u32,
    /// How many it takes at a time; `None`: there is no limit.
    pub places: Option<u32>,
}

/// What is known of one candidate.
#[derive(Debug, Clone, Default)]
pub(super) struct Estimate {
    /// As of the last look.
    seen: Option<Seen>,
    looked: Now,
    /// When something was heard of it last.
    heard: Option<Now>,
    /// Weights of what was answered, and of all that was heard.
    answers: f64,
    calls: f64,
    latency_ns: f64,
    failing: f64,
    load: f64,
}

impl Estimate {
    pub(super) const fn is_new(&self) -> bool {
        self.seen.is_none()
    }

    pub(super) const fn heard(&self) -> Option<Now> {
        self.heard
    }

    /// Mean latency of what was answered; zero when nothing was.
    pub(super) const fn latency_ns(&self) -> f64 {
        self.latency_ns
    }

    /// Takes in what has come since the last look. True when the candidate had nobody ready, and has now.
    pub(super) fn look(&mut self, now: Now, seen: Seen, chosen: bool) -> bool {
        let elapsed = now.since(self.looked);
        self.looked = self.looked.max(now);
        let before = self.seen.replace(seen);
        let load = seen.places.map_or(0.0, |places| f64::from(seen.in_flight) / f64::from(places.max(1)));
        let keep = decay(elapsed, LOAD_MEMORY);
        self.load = if before.is_none() { load } else { load + (self.load - load) * keep };
        let Some(before) = before else { return false };
        let (calls, errors, latency_ns) = if before.generation == seen.generation {
            let grown = |of: fn(&Seen) -> u64| of(&seen).saturating_sub(of(&before));
            (grown(|seen| seen.calls), grown(|seen| seen.errors), grown(|seen| seen.latency_ns))
        } else {
            (0, 0, 0)
        };
        let keep = decay(elapsed, if chosen { MEMORY } else { MEMORY_IDLE });
        self.learn(now, keep, (calls, errors.min(calls), latency_ns));
        let returns = before.ready == 0 && seen.ready > 0;
        if returns {
            // What was is no more than a guess.
            (self.answers, self.calls) = (0.0, 0.0);
        }
        returns
    }

    fn learn(&mut self, now: Now, keep: f64, (calls, errors, latency_ns): (u64, u64, u64)) {
        let fade = |count: f64| (count * keep).max(count.min(ANSWERS_KEPT));
        (self.answers, self.calls) = (fade(self.answers), fade(self.calls));
        if calls == 0 {
            return;
        }
        self.heard = Some(now);
        let answers = (calls - errors) as f64;
        if answers > 0.0 {
            self.answers += answers;
            self.latency_ns += (latency_ns as f64 / answers - self.latency_ns) * (answers / self.answers);
        }
        self.calls += calls as f64;
        self.failing += (errors as f64 / calls as f64 - self.failing) * (calls as f64 / self.calls);
    }

    /// `unknown_ns` is the latency of one of which nothing is known.
    pub(super) fn score(&self, unknown_ns: f64, cost: f64) -> Score {
        let seen = self.seen.unwrap_or_default();
        let latency = if self.latency_ns > 0.0 { self.latency_ns } else { unknown_ns };
        let failing = self.failing.clamp(0.0, FAILING_MAX);
        let failures = failing / (1.0 - failing) * nanos(FAILURE_COST) as f64;
        let expected_ns = (latency.max(nanos(LATENCY_MIN) as f64) + failures) * self.waiting(seen.places);
        let ready = f64::from(seen.ready.min(seen.endpoints)) / f64::from(seen.endpoints.max(1));
        let score = cost * expected_ns / (ready * OVERPROVISION).min(1.0);
        Score { score, expected_ns, latency_ns: self.latency_ns, failing, load: self.load, ready }
    }

    fn waiting(&self, places: Option<u32>) -> f64 {
        let Some(places) = places else { return 1.0 };
        let (places, load) = (f64::from(places.max(1)), self.load.clamp(0.0, LOAD_MAX));
        1.0 + load.powf((2.0 * (places + 1.0)).sqrt() - 1.0) / (places * (1.0 - load))
    }
}

fn decay(elapsed: Duration, memory: Duration) -> f64 {
    (-(elapsed.as_secs_f64() / memory.as_secs_f64())).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: f64 = 1e6;

    fn at(millis: u64) -> Now {
        Now::from_nanos(millis * 1_000_000)
    }

    fn well(calls: u64, errors: u64, latency_ms: u64) -> Seen {
        let latency_ns = latency_ms * 1_000_000;
        Seen { generation: 0, calls, errors, latency_ns, ready: 4, endpoints: 4, in_flight: 0, places: None }
    }

    /// An estimate that has seen these, 100 ms apart.
    fn after(looks: impl IntoIterator<Item = Seen>) -> Estimate {
        let mut estimate = Estimate::default();
        for (number, seen) in looks.into_iter().enumerate() {
            estimate.look(at(number as u64 * 100), seen, true);
        }
        estimate
    }

    #[test]
    fn latency_is_that_of_what_came_between_two_looks() {
        let estimate = after([well(100, 0, 1_000_000), well(110, 0, 1_000_200)]);
        assert_eq!(estimate.latency_ns(), 20.0 * MS);
        let silent = after([well(100, 0, 7), well(110, 0, 207), well(110, 0, 207)]);
        assert_eq!(silent.latency_ns(), 20.0 * MS, "silence changes nothing");
    }

    #[test]
    fn a_step_shows_in_a_second_and_one_slow_answer_among_many_does_not() {
        let looks = |step: fn(u64) -> u64| {
            let mut sums = (0, 0);
            after((0..210).map(move |look| {
                let sum = sums;
                sums = (sum.0 + 10, sum.1 + 10 * step(look));
                well(sum.0, 0, sum.1)
            }))
        };
        let stepped = looks(|look| if look < 200 { 10 } else { 100 }).latency_ns();
        assert!(stepped > 20.0 * MS, "{stepped}");
        let spiked = looks(|look| if look == 200 { 30 } else { 10 }).latency_ns();
        assert!(spiked < 11.0 * MS, "{spiked}");
    }

    #[test]
    fn other_members_bring_other_sums() {
        for moved in [well(5, 0, 1), well(5_000_000, 9, 1 << 40)] {
            let changed = Seen { generation: 1, ..moved };
            let estimate =
                after([well(100, 0, 0), well(110, 0, 100), changed, Seen { calls: changed.calls + 1, ..changed }]);
            assert!(estimate.latency_ns() <= 10.0 * MS && estimate.failing == 0.0, "{estimate:?}");
        }
        let backwards = after([well(100, 50, 900), well(90, 60, 800), well(95, 80, 1)]);
        assert!(backwards.score(0.0, 1.0).score.is_finite(), "{backwards:?}");
    }

    #[test]
    fn failures_cost_what_they_cost_the_balancer() {
        let half = after([well(0, 0, 0), well(20, 10, 100)]).score(0.0, 1.0);
        assert_eq!((half.latency_ns, half.failing), (10.0 * MS, 0.5));
        assert!((half.expected_ns - 260.0 * MS).abs() < 1.0);
        let dead = after([well(0, 0, 0), well(20, 20, 0)]).score(30.0 * MS, 1.0);
        assert!(dead.expected_ns > 20_000.0 * MS && dead.score.is_finite());
    }

    #[test]
    fn health_counts_when_it_is_scarce_and_nobody_ready_is_no_candidate() {
        let score = |ready| after([Seen { ready, ..well(0, 0, 0) }]).score(10.0 * MS, 2.0).score / MS;
        assert_eq!((score(4), score(3)), (20.0, 20.0));
        assert!((score(2) - 20.0 / 0.7).abs() < 1e-6);
        assert!(score(0).is_infinite());
        let nobody = after([Seen { ready: 0, endpoints: 0, ..well(0, 0, 0) }]).score(10.0 * MS, 1.0);
        assert!(nobody.score.is_infinite() && nobody.ready == 0.0);
    }

    #[test]
    fn many_places_fill_before_they_cost() {
        let waiting = |in_flight, places| {
            let seen = Seen { in_flight, places: Some(places), ..well(0, 0, 0) };
            after([seen]).score(10.0 * MS, 1.0).expected_ns / (10.0 * MS)
        };
        for (in_flight, places, least, most) in [
            (0, 100, 1.0, 1.0),
            (90, 100, 1.0, 1.05),
            (99, 100, 1.5, 3.0),
            (1, 2, 1.3, 1.5),
            (200, 100, 5.0, 20.0),
            (5, 0, 100.0, 2000.0),
        ] {
            let found = waiting(in_flight, places);
            assert!((least..=most).contains(&found), "{in_flight} of {places}: {found}");
        }
    }

    #[test]
    fn unknown_is_as_slow_as_the_slowest_and_nobody_is_nearer_than_near() {
        let unknown = after([well(0, 0, 0)]);
        assert_eq!(unknown.score(40.0 * MS, 1.0).expected_ns, 40.0 * MS);
        assert_eq!(unknown.score(0.0, 1.0).expected_ns, 1.0 * MS);
    }

    #[test]
    fn coming_back_is_told_once() {
        let mut estimate = Estimate::default();
        let (down, up) = (Seen { ready: 0, ..well(0, 0, 0) }, well(0, 0, 0));
        let told: Vec<_> = [down, down, up, up, down, up]
            .into_iter()
            .enumerate()
            .map(|(at_look, seen)| estimate.look(at(at_look as u64), seen, true))
            .collect();
        assert_eq!(told, [false, false, true, false, false, true]);
    }
}
