//! Asking an endpoint whether it is well, before requests find out.
//!
//! ```text
//! unknown ──(first good)──► healthy ──(`fall` bad in a row)──► unhealthy ──(`rise` good in a row)──► healthy
//!    └──────────────(`fall` bad in a row)─────────────────────────►┘
//! ```
//!
//! Two thresholds make it steady: one lost probe takes nothing away, one lucky one gives nothing back. While it is in doubt
//! (a run has begun that may end in a change, or nothing is known yet) it asks more often, so that the thresholds do not make it
//! slow. What counts as a good answer (status, body, time) is the caller's business; a probe that takes longer than
//! `timeout` is a bad one.
//! Before the first verdict an endpoint is used unless the settings say otherwise: a proxy that starts beside healthy endpoints must
//! not refuse its first second of traffic. Sources: HAProxy's `check inter/fastinter/rise/fall`; Envoy's health checking.

use crate::{Now, Random, time::nanos};
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthSettings {
    /// Between two probes when all is clear.
    pub interval: Duration,
    /// Between two probes when it is not.
    pub interval_in_doubt: Duration,
    /// The time that a probe has. It is also the least time between two beginnings, so probes never overlap.
    pub timeout: Duration,
    /// Good probes in a row that bring an unhealthy endpoint back.
    pub rise: u8,
    /// Bad probes in a row that take a healthy one away.
    pub fall: u8,
    /// Whether an endpoint is used before anything is known of it.
    pub ready_when_unknown: bool,
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            interval_in_doubt: Duration::from_secs(1),
            timeout: Duration::from_secs(2),
            rise: 2,
            fall: 3,
            ready_when_unknown: true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Health {
    Unknown,
    Healthy,
    Unhealthy,
}

/// What came of one probe, by the caller's expectations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeResult {
    Good,
    Bad,
}

/// The probing of one endpoint.
#[derive(Debug, Clone)]
pub struct HealthCheck {
    settings: HealthSettings,
    health: Health,
    /// Results in a row that speak against the present verdict.
    streak: u8,
    next: Now,
    /// When the probe under way began.
    begun: Option<Now>,
    random: Random,
}

impl HealthCheck {
    /// `seed` spreads the probes of many endpoints: give each its own. The first probe comes within `interval_in_doubt`.
    #[must_use]
    pub fn new(settings: HealthSettings, now: Now, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let next = now.plus_nanos(random.below(nanos(settings.interval_in_doubt)));
        Self { settings, health: Health::Unknown, streak: 0, next, begun: None, random }
    }

    #[must_use]
    pub const fn health(&self) -> Health {
        self.health
    }

    /// Whether requests may go to the endpoint, as far as probes can tell.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        match self.health {
            Health::Healthy => true,
            Health::Unhealthy => false,
            Health::Unknown => self.settings.ready_when_unknown,
        }
    }

    /// When to look again: the next probe, or the end of the one under way. Never further away than the longest pause
    /// of the settings, however the clock has jumped.
    #[must_use]
    pub fn next_at(&self, now: Now) -> Now {
        let wanted = self.begun.map_or(self.next, |begun| begun.plus(self.settings.timeout));
        if self.is_out_of_reach(wanted, now) { now } else { wanted }
    }

    /// Whether to send a probe now. If so it counts as under way, until [`record`](Self::record) or its timeout.
    #[must_use]
    pub fn begin(&mut self, now: Now) -> bool {
        if self.begun.is_some_and(|_| self.next_at(now) <= now) {
            self.record(now, ProbeResult::Bad);
        }
        let due = self.begun.is_none() && self.next_at(now) <= now;
        if due {
            self.begun = Some(now);
        }
        due
    }

    /// Takes in what came of the probe under way; without one, nothing happens: its time was over. True when the verdict has changed.
    pub fn record(&mut self, now: Now, result: ProbeResult) -> bool {
        let Some(begun) = self.begun.take() else { return false };
        let late = now.since(begun) > self.settings.timeout;
        let result = if late { ProbeResult::Bad } else { result };
        let before = self.health;
        self.judge(result);
        self.next = now.plus_nanos(self.pause_ns());
        self.health != before
    }

    /// The probe under way could not be sent, for a reason that is not the endpoint's: it says nothing, and the next one has
    /// its turn.
    pub fn withdraw(&mut self, now: Now) {
        if self.begun.take().is_some() {
            self.next = now.plus_nanos(self.pause_ns());
        }
    }

    fn judge(&mut self, result: ProbeResult) {
        let (wanted, needed) = match (self.health, result) {
            (Health::Unknown, ProbeResult::Good) => (Health::Healthy, 1),
            (Health::Unhealthy, ProbeResult::Good) => (Health::Healthy, self.settings.rise),
            (Health::Unknown | Health::Healthy, ProbeResult::Bad) => (Health::Unhealthy, self.settings.fall),
            (Health::Healthy, ProbeResult::Good) | (Health::Unhealthy, ProbeResult::Bad) => {
                self.streak = 0;
                return;
            }
        };
        self.streak = self.streak.saturating_add(1);
        if self.streak >= needed {
            (self.health, self.streak) = (wanted, 0);
        }
    }

    /// ±10 %, so that probes from many machines, and to many endpoints, do not fall into step.
    fn pause_ns(&mut self) -> u64 {
        let doubt = self.streak > 0 || self.health == Health::Unknown;
        let pause = nanos(if doubt { self.settings.interval_in_doubt } else { self.settings.interval });
        (pause - pause / 10).saturating_add(self.random.below(pause / 5))
    }

    /// Further ahead than anything is ever set: the clock has gone back since.
    fn is_out_of_reach(&self, at: Now, now: Now) -> bool {
        let longest = self.settings.interval.max(self.settings.interval_in_doubt).max(self.settings.timeout);
        at.nanos_since(now) > nanos(longest).saturating_mul(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Health::{Healthy, Unhealthy, Unknown};
    use ProbeResult::{Bad, Good};

    fn check() -> (HealthCheck, Now) {
        let now = Now::from_secs(100);
        (HealthCheck::new(HealthSettings::default(), now, 7), now)
    }

    /// Probes once, as soon as it is due; gives the time since the last one.
    fn probe(check: &mut HealthCheck, now: &mut Now, result: ProbeResult) -> f64 {
        let before = *now;
        *now = check.next_at(*now);
        assert!(check.begin(*now) && !check.begin(*now), "one at a time");
        check.record(*now, result);
        now.since(before).as_secs_f64()
    }

    #[test]
    fn thresholds_make_it_steady() {
        let (mut check, mut now) = check();
        assert!(check.is_ready(), "until something is known");
        for (result, wanted) in [
            (Bad, Unknown),
            (Bad, Unknown),
            (Good, Healthy),
            (Bad, Healthy),
            (Bad, Healthy),
            (Good, Healthy),
            (Bad, Healthy),
            (Bad, Healthy),
            (Bad, Unhealthy),
            (Good, Unhealthy),
            (Bad, Unhealthy),
            (Good, Unhealthy),
            (Good, Healthy),
        ] {
            probe(&mut check, &mut now, result);
            assert_eq!((check.health(), check.is_ready()), (wanted, wanted != Unhealthy));
        }
    }

    #[test]
    fn asks_more_often_in_doubt() {
        let (mut check, mut now) = check();
        assert!(probe(&mut check, &mut now, Good) < 1.0, "the first one is soon");
        for (result, least, most) in
            [(Good, 4.5, 5.5), (Bad, 4.5, 5.5), (Bad, 0.9, 1.1), (Good, 0.9, 1.1), (Good, 4.5, 5.5)]
        {
            let pause = probe(&mut check, &mut now, result);
            assert!((least..most).contains(&pause), "{pause}");
        }
    }

    #[test]
    fn a_probe_without_an_answer_is_a_bad_one() {
        let settings = HealthSettings { fall: 1, ready_when_unknown: false, ..HealthSettings::default() };
        let mut check = HealthCheck::new(settings, Now::ZERO, 1);
        assert!(!check.is_ready());
        let begun = check.next_at(Now::ZERO);
        assert!(check.begin(begun));
        let timeout = begun.plus(settings.timeout);
        assert_eq!(check.next_at(begun), timeout);
        assert!(!check.begin(timeout), "the next probe waits for its turn");
        assert_eq!(check.health(), Unhealthy);
        assert!(!check.record(timeout, Good), "what comes later is too late");
        assert_eq!(check.health(), Unhealthy);
    }

    #[test]
    fn a_probe_that_was_not_sent_says_nothing() {
        let (mut check, mut now) = check();
        for result in [Bad, Bad] {
            probe(&mut check, &mut now, result);
        }
        for _ in 0..10 {
            now = check.next_at(now);
            assert!(check.begin(now));
            check.withdraw(now);
            assert!(!check.begin(now), "the next one has its turn");
        }
        assert_eq!(check.health(), Unknown);
        probe(&mut check, &mut now, Bad);
        assert_eq!(check.health(), Unhealthy, "and the run goes on");
    }

    #[test]
    fn clock_jumps_delay_nothing() {
        let (mut check, now) = check();
        let ahead = now.plus(Duration::from_secs(1_000_000));
        assert!(check.begin(ahead));
        check.record(ahead, Good);
        assert!(check.next_at(now) <= now && check.begin(now), "back again, and due");
        check.record(now, Good);
        assert!(check.next_at(now) < now.plus(Duration::from_secs(6)));
    }

    #[test]
    fn seeds_spread_the_first_probes() {
        let mut firsts: Vec<_> = (0..100)
            .map(|seed| HealthCheck::new(HealthSettings::default(), Now::ZERO, seed).next_at(Now::ZERO))
            .collect();
        firsts.sort();
        firsts.dedup();
        assert!(firsts.len() > 90);
    }
}
