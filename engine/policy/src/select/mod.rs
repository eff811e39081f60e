//! Which of several pools a route's requests go to now: near and far regions, a dear one for bursts.
//!
//! Ten times a second a [`Selector`] looks at its candidates and gives each a score, the time that a request would take there, times
//! what the operator says it costs (`estimate.rs` has the law). Each request is then a comparison or two. Four things stand between the
//! scores and the choice:
//!
//! - **Hysteresis.** The present choice stays until another one has been better by a margin, without interruption, for a hold time.
//!   Each change of mind doubles the hold time of the next one, up to sixteenfold, and five quiet minutes halve it again (route flap
//!   damping, RFC 2439): however latency swings, changes are few.
//! - **Health and limits are obeyed at once.** A request whose pool has nobody ready, or is at its limits, goes to the next best one that
//!   can take it. For the first reason the choice itself moves; for the second it stays, so that only what is too much spills over.
//! - **A ramp.** A pool that becomes the choice by its score gets a tenth of the requests at first and all of them at the end of a time, and
//!   what it does under that load is in its score meanwhile. So nobody is overrun: neither one that returns, nor one that was only
//!   fast because nobody was there.
//! - **Exploration.** What is known of a pool that gets no requests grows old. A small share of those that may be sent twice
//!   goes there, at most ten a second, and none where others have just been. A pool that was never asked, or has come back, gets its
//!   first three as soon as may be.
//!
//! State is a worker's own; what it is told ([`Seen`]) are sums over all workers, so that workers come to the same choice within a
//! few looks.
//!
//! Deliberately absent: a share for each of several good pools by their scores. Requests that wander between regions lose their
//! warm connections and caches, and nobody can say why one went where; to divide is what [`crate::Split`] is for.

mod estimate;

pub use estimate::Seen;

use crate::{Now, Random, Standing, time::nanos};
use estimate::Estimate;
use std::time::Duration;

/// Candidates of one selector: a set of them is 16 bits.
pub const CANDIDATES_MAX: usize = 16;

/// Between two looks. Detection costs a hold time of seconds, to which this adds nothing; and reading the cells of hundreds of endpoints
/// ten times a second is nothing next to the requests that they take.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Between two explorations, and as old as an answer must be to be worth another one: ten answers a second are enough for a mean.
const EXPLORE_EVERY: Duration = Duration::from_millis(100);

/// Explorations that do not wait for their lot, of a candidate that nothing is known of.
const EAGER: u8 = 3;

/// The share that a new choice begins with: less would warm nothing.
const RAMP_FROM: f64 = 0.1;

/// Half-life of what changes of mind cost, and the most that they cost: 2 to the power of this.
const FLAPS_HALVE_IN: Duration = Duration::from_secs(300);
const FLAPS_MAX: f64 = 4.0;

/// How a choice is made. Defaults are for pools that are tens of milliseconds apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SelectSettings {
    /// How much better another one must be, in percent of its score.
    pub margin_percent: u16,
    /// For how long it must be.
    pub hold: Duration,
    /// How long a new choice takes to its full share.
    pub ramp: Duration,
    /// Requests in a hundred that explore, at most.
    pub explore_percent: u8,
}

impl Default for SelectSettings {
    /// A quarter is more than a mean of a hundred answers swings by itself; five seconds outlast a garbage collection and a deployment's
    /// hand-over; ten are enough for connections and caches to warm; one request in a hundred is nobody's budget.
    fn default() -> Self {
        let (hold, ramp) = (Duration::from_secs(5), Duration::from_secs(10));
        Self { margin_percent: 25, hold, ramp, explore_percent: 1 }
    }
}

/// Candidates as a selector sees them, by index.
pub trait Candidates {
    /// What is known of one. Asked at looks.
    fn seen(&self, at: usize) -> Seen;
    /// The pool as a whole, for this request: `Ready` as long as one endpoint is and there is a place, `Full` when all that would do
    /// are at their limits, `Suspect` when it would be asked in panic only.
    fn standing(&self, at: usize) -> Standing;
}

/// Why a request goes where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Reason {
    /// It has the best score, and would be the fastest too.
    #[default]
    Best,
    /// It has the best score, because a faster one costs more.
    Cheaper,
    /// Another one has the better score: not by the margin, or not for long enough yet.
    Held,
    /// The others have nobody ready.
    Only,
    /// The choice is another one, which is new and gets its share step by step.
    Ramping,
    /// The choice is another one, which is at its limits.
    Full,
    /// The choice was another one, which has nobody ready.
    Unhealthy,
    /// It was sent to another one, which could not have it.
    Failover,
    /// To learn how it fares.
    Exploring,
    /// Nobody is ready anywhere.
    Panic,
}

impl Reason {
    /// Each at the place of its number.
    pub const ALL: [Self; 10] = [
        Self::Best,
        Self::Cheaper,
        Self::Held,
        Self::Only,
        Self::Ramping,
        Self::Full,
        Self::Unhealthy,
        Self::Failover,
        Self::Exploring,
        Self::Panic,
    ];

    /// For counters and tables.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Best => "best",
            Self::Cheaper => "cheaper",
            Self::Held => "held",
            Self::Only => "only",
            Self::Ramping => "ramping",
            Self::Full => "full",
            Self::Unhealthy => "unhealthy",
            Self::Failover => "failover",
            Self::Exploring => "exploring",
            Self::Panic => "panic",
        }
    }
}

/// A choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selected {
    pub index: usize,
    pub reason: Reason,
}

/// What a look made of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Score {
    /// What is compared, in nanoseconds times cost; infinite with nobody ready.
    pub score: f64,
    /// What a request is expected to take, failures and waiting included, in nanoseconds.
    pub expected_ns: f64,
    /// Mean latency of what was answered, in nanoseconds. Zero when nothing was.
    pub latency_ns: f64,
    /// Share of what was not answered well, in [0, 1].
    pub failing: f64,
    /// Requests out, in parts of what it takes; zero where there is no limit.
    pub load: f64,
    /// Share of its endpoints that are ready, in [0, 1].
    pub ready: f64,
}

/// The choices of one route on one worker.
#[derive(Debug, Clone)]
pub struct Selector {
    settings: SelectSettings,
    seats: Box<[Seat]>,
    /// The choice, and why it is the choice.
    current: usize,
    reason: Reason,
    /// Who gives way to it step by step, and since when.
    ramp: Option<(usize, Now)>,
    /// Since when there has been a better one without interruption.
    beaten_since: Option<Now>,
    looked: Option<Now>,
    explored: Now,
    /// What changes of mind have cost so far.
    flaps: f64,
}

#[derive(Debug, Clone)]
struct Seat {
    cost: f64,
    estimate: Estimate,
    score: Score,
    /// Explorations that did not wait for their lot.
    eager: u8,
}

impl Selector {
    /// For candidates of these costs, at most [`CANDIDATES_MAX`] of them. A cost that is no positive number counts as 1.
    pub fn new(settings: SelectSettings, costs: impl IntoIterator<Item = f64>) -> Self {
        let seat = |cost: f64| Seat {
            cost: if cost.is_finite() && cost > 0.0 { cost } else { 1.0 },
            estimate: Estimate::default(),
            score: Score::default(),
            eager: 0,
        };
        Self {
            settings,
            seats: costs.into_iter().take(CANDIDATES_MAX).map(seat).collect(),
            current: 0,
            reason: Reason::Best,
            ramp: None,
            beaten_since: None,
            looked: None,
            explored: Now::ZERO,
            flaps: 0.0,
        }
    }

    /// The choice as of the last look, and why it is the choice.
    #[must_use]
    pub const fn current(&self) -> Selected {
        Selected { index: self.current, reason: self.reason }
    }

    /// What the last look made of a candidate.
    #[must_use]
    pub fn score(&self, at: usize) -> Score {
        self.seats.get(at).map_or_else(Score::default, |seat| seat.score)
    }

    /// Whether it is time for a [`look`](Self::look).
    #[must_use]
    pub fn is_due(&self, now: Now) -> bool {
        // A clock that went back is a reason to look, too.
        self.looked.is_none_or(|looked| now < looked || now.since(looked) >= LOOK_EVERY)
    }

    /// Takes in what has become of the candidates, and thinks again.
    pub fn look(&mut self, now: Now, of: &impl Candidates) {
        let before = self.looked.replace(now).unwrap_or(now);
        let first = self.seats.iter().all(|seat| seat.estimate.is_new());
        for (at, seat) in self.seats.iter_mut().enumerate() {
            if seat.estimate.look(now, of.seen(at), at == self.current) {
                // It is back: what was known of it is from before.
                seat.eager = 0;
            }
        }
        self.flaps *= (-(now.since(before).as_secs_f64() / FLAPS_HALVE_IN.as_secs_f64())).exp2();
        // Nothing is known of it: nothing speaks for it but its cost.
        let slowest = self.seats.iter().map(|seat| seat.estimate.latency_ns()).fold(0.0, f64::max);
        for seat in &mut self.seats {
            seat.score = seat.estimate.score(slowest, seat.cost);
        }
        self.ramp = self.ramp.filter(|&(_, since)| now.since(since) < self.settings.ramp);
        let Some(best) = self.best() else { return };
        if first {
            self.current = best;
        } else if self.is_out(self.current) {
            self.move_to(best);
        } else {
            self.think(now, best);
        }
        self.reason = self.why(best);
    }

    /// Whether the best one is to be the choice.
    fn think(&mut self, now: Now, best: usize) {
        let margin = 1.0 + f64::from(self.settings.margin_percent) / 100.0;
        if best == self.current || self.seats[best].score.score * margin >= self.seats[self.current].score.score {
            self.beaten_since = None;
            return;
        }
        let since = *self.beaten_since.get_or_insert(now);
        let hold = self.settings.hold.mul_f64(self.flaps.min(FLAPS_MAX).exp2());
        if now.since(since) >= hold {
            let before = self.current;
            self.move_to(best);
            self.ramp = Some((before, now));
            self.flaps = (self.flaps + 1.0).min(FLAPS_MAX + 1.0);
        }
    }

    fn move_to(&mut self, at: usize) {
        self.current = at;
        (self.beaten_since, self.ramp) = (None, None);
    }

    fn why(&self, best: usize) -> Reason {
        let mut others = (0..self.seats.len()).filter(|&at| at != self.current && !self.is_out(at)).peekable();
        let expected = self.seats[self.current].score.expected_ns;
        if others.peek().is_none() {
            Reason::Only
        } else if best != self.current {
            Reason::Held
        } else if others.any(|at| self.seats[at].score.expected_ns < expected) {
            Reason::Cheaper
        } else {
            Reason::Best
        }
    }

    /// Where the next request goes. `repeatable`: it may be sent twice, so it may be the one to learn something by.
    pub fn choose(&mut self, now: Now, repeatable: bool, of: &impl Candidates, random: &mut Random) -> Selected {
        if self.is_due(now) {
            self.look(now, of);
        }
        if repeatable && let Some(index) = self.explore(now, of, random) {
            return Selected { index, reason: Reason::Exploring };
        }
        let first = self.in_turn(now, of, random);
        match of.standing(first.index) {
            Standing::Ready => first,
            standing => self.instead(first, standing, of),
        }
    }

    /// The best candidate that can take a request, none of those that it has been to (a bit each): [`Reason::Failover`].
    #[must_use]
    pub fn next(&self, been: u16, of: &impl Candidates) -> Option<usize> {
        self.best_of(|at| been & 1 << at == 0 && of.standing(at) == Standing::Ready)
    }

    /// The choice, or the one that gives way to it.
    fn in_turn(&self, now: Now, of: &impl Candidates, random: &mut Random) -> Selected {
        if let Some((before, since)) = self.ramp {
            let share = now.since(since).as_secs_f64() / self.settings.ramp.as_secs_f64();
            if random.unit() >= share.max(RAMP_FROM) && of.standing(before) == Standing::Ready {
                return Selected { index: before, reason: Reason::Ramping };
            }
        }
        self.current()
    }

    /// Where a request goes whose place is not ready.
    fn instead(&self, first: Selected, standing: Standing, of: &impl Candidates) -> Selected {
        if let Some(index) = self.next(0, of) {
            let reason = if standing == Standing::Full { Reason::Full } else { Reason::Unhealthy };
            return Selected { index, reason };
        }
        // It waits for a place rather than be refused.
        if standing == Standing::Full {
            return first;
        }
        if let Some(index) = self.best_of(|at| of.standing(at) == Standing::Full) {
            return Selected { index, reason: Reason::Unhealthy };
        }
        let suspect = self.best_of(|at| of.standing(at) == Standing::Suspect);
        Selected { index: suspect.unwrap_or(first.index), reason: Reason::Panic }
    }

    /// Whom to ask for the sake of knowing: the one of whom was heard least lately.
    fn explore(&mut self, now: Now, of: &impl Candidates, random: &mut Random) -> Option<usize> {
        if now.since(self.explored) < EXPLORE_EVERY || self.seats.len() < 2 || self.settings.explore_percent == 0 {
            return None;
        }
        let ramping = self.ramp.map(|(before, _)| before);
        let eager = |seat: &Seat| seat.eager < EAGER;
        let idle = |&at: &usize| {
            let heard = self.seats[at].estimate.heard();
            at != self.current && Some(at) != ramping && heard.is_none_or(|heard| now.since(heard) >= EXPLORE_EVERY)
        };
        let stalest = |at: &usize| (!eager(&self.seats[*at]), self.seats[*at].estimate.heard());
        let at =
            (0..self.seats.len()).filter(idle).filter(|&at| of.standing(at) == Standing::Ready).min_by_key(stalest)?;
        let seat = &mut self.seats[at];
        if eager(seat) {
            seat.eager += 1;
        } else if random.below(100) >= u64::from(self.settings.explore_percent) {
            return None;
        }
        self.explored = now;
        Some(at)
    }

    fn is_out(&self, at: usize) -> bool {
        !self.seats[at].score.score.is_finite()
    }

    fn best(&self) -> Option<usize> {
        self.best_of(|at| !self.is_out(at))
    }

    /// The best score of some. Of equals the first in the operator's order; where nobody is ready, the fastest.
    fn best_of(&self, may: impl Fn(usize) -> bool) -> Option<usize> {
        let rank = |at: usize| (self.seats[at].score.score, self.seats[at].score.expected_ns * self.seats[at].cost);
        let better = |a: &usize, b: &usize| rank(*a).0.total_cmp(&rank(*b).0).then(rank(*a).1.total_cmp(&rank(*b).1));
        (0..self.seats.len()).filter(|&at| may(at)).min_by(better)
    }
}

const _: () = assert!(nanos(LOOK_EVERY) <= nanos(EXPLORE_EVERY), "what was explored is heard of before the next time");
