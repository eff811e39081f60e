//! A second copy of a request that is slower than most, sent elsewhere while the first one is still out.
//!
//! When the 95th percentile has passed, an answer from another endpoint is likely to come sooner than the one waited for.
//! The price is known beforehand: as a share of 5 % exceeds the 95th percentile, so 5 % more requests; the budget makes it
//! the most that they can ever be, also when everything is slow, and then hedges would only feed the fire.
//! At most one copy, only of what may be sent twice, and only to another endpoint. The loser is cancelled by whoever sent it
//! and recorded as [`Class::Overtaken`](crate::Class::Overtaken): no failure of its endpoint, and a sample that was cut short, so
//! that hedging does not talk the quantile down that it goes by.
//! Off unless asked for. Source: Dean and Barroso, "The Tail at Scale" (CACM 2013), hedged requests; gRPC's hedging policy (A6).

use crate::{Latencies, Now, Replay, RetryBudget, RetryBudgetSettings};
use std::time::Duration;

/// How long the first copy is alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HedgeAfter {
    /// The quantile of recent latency, in thousandths.
    Permille(u16),
    Fixed(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HedgeSettings {
    pub after: HedgeAfter,
    /// The first copy is given at least this, whatever was learnt: below it, a hedge costs more than it saves.
    pub floor: Duration,
    /// Hedges per hundred requests of the last ten seconds.
    pub percent: u8,
}

impl Default for HedgeSettings {
    fn default() -> Self {
        Self { after: HedgeAfter::Permille(950), floor: Duration::from_millis(10), percent: 5 }
    }
}

/// The hedging of one pool as one worker sees it.
#[derive(Debug, Clone)]
pub struct Hedge {
    settings: HedgeSettings,
    budget: RetryBudget,
}

impl Hedge {
    #[must_use]
    pub const fn new(settings: HedgeSettings) -> Self {
        // No floor by the second: a pool too quiet to have a quantile has no use for hedges either.
        let budget = RetryBudgetSettings { percent: settings.percent, per_second_min: 0 };
        Self { settings, budget: RetryBudget::new(budget) }
    }

    /// A request came. Gives the time after which [`fire`](Self::fire) should be asked; `None`: this one is not hedged.
    pub fn begin(&mut self, now: Now, replay: Replay, elsewhere: bool, latencies: &Latencies) -> Option<Duration> {
        self.budget.request(now);
        let repeatable = matches!(replay, Replay::Unsent | Replay::Idempotent);
        if !repeatable || !elsewhere {
            return None;
        }
        match self.settings.after {
            HedgeAfter::Permille(permille) => Some(latencies.quantile(now, permille)?.max(self.settings.floor)),
            HedgeAfter::Fixed(delay) => Some(delay),
        }
    }

    /// The delay has passed, and there is no answer: whether to send the one copy now. Charged if so.
    #[must_use]
    pub fn fire(&mut self, now: Now) -> bool {
        self.budget.withdraw(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latencies() -> Latencies {
        let mut latencies = Latencies::new(50);
        for sample in 0..1000 {
            latencies.record(Now::from_secs(1), Duration::from_millis(if sample % 20 == 0 { 900 } else { 20 }));
        }
        latencies
    }

    #[test]
    fn waits_for_the_quantile_or_the_floor() {
        let (mut hedge, now) = (Hedge::new(HedgeSettings::default()), Now::from_secs(1));
        let delay = hedge.begin(now, Replay::Idempotent, true, &latencies()).unwrap();
        assert!((20..26).contains(&delay.as_millis()), "{delay:?}");
        let floor = Duration::from_millis(70);
        let mut patient = Hedge::new(HedgeSettings { floor, ..HedgeSettings::default() });
        assert_eq!(patient.begin(now, Replay::Unsent, true, &latencies()), Some(floor));
        let after = HedgeAfter::Fixed(Duration::from_millis(3));
        let mut told = Hedge::new(HedgeSettings { after, ..HedgeSettings::default() });
        assert_eq!(told.begin(now, Replay::Idempotent, true, &Latencies::new(50)), Some(Duration::from_millis(3)));
    }

    #[test]
    fn not_what_must_not_be_sent_twice_nor_without_samples_nor_without_another_endpoint() {
        let (mut hedge, now) = (Hedge::new(HedgeSettings::default()), Now::from_secs(1));
        assert_eq!(hedge.begin(now, Replay::Never, true, &latencies()), None);
        assert_eq!(hedge.begin(now, Replay::NotIdempotent, true, &latencies()), None);
        assert_eq!(hedge.begin(now, Replay::Idempotent, false, &latencies()), None);
        assert_eq!(hedge.begin(now, Replay::Idempotent, true, &Latencies::new(50)), None);
    }

    #[test]
    fn never_more_than_its_share() {
        let (mut hedge, latencies, mut fired) = (Hedge::new(HedgeSettings::default()), latencies(), 0);
        for tick in 0..100_000_u64 {
            let now = Now::from_nanos(1_000_000_000 + tick * 1_000_000);
            hedge.begin(now, Replay::Idempotent, true, &latencies);
            fired += u32::from(hedge.fire(now));
        }
        assert!((4_500..=5_500).contains(&fired), "{fired}");
    }
}
