//! Origins, a proxy or none, and several loads at the same time; and of what they saw, what ended within the window that counts.

use std::time::Duration;

use xtask::Outcome;

use crate::chaos::contender::{Behind, Contender};
use crate::echo::client::{End, Load, Plan, Seen};
use crate::echo::fleet::{Fleet, Journal};
use crate::echo::id::BODY_BYTES;
use crate::process::{Cpus, Scratch};
use crate::rivals::Kind;

/// What all parts of a run have in common.
pub(super) struct Ground<'a> {
    pub(super) scratch: &'a Scratch,
    pub(super) proxy_cpus: &'a Cpus,
    pub(super) load_cpus: &'a Cpus,
    /// Until queues, pools and averages have settled.
    pub(super) warm_up: Duration,
    pub(super) window: Duration,
}

/// One kind of client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clients {
    pub(super) connections: usize,
    pub(super) think: Duration,
    pub(super) host: &'static str,
    pub(super) answer_bytes: usize,
}

impl Clients {
    pub(super) fn new(connections: usize, think_ms: u64) -> Self {
        Self { connections, think: Duration::from_millis(think_ms), host: "qos.test", answer_bytes: BODY_BYTES }
    }
}

/// Origins and who stands before them.
pub(super) struct Bed {
    fleet: Fleet,
    contender: Contender,
}

/// What one kind of client saw within the window.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    /// Microseconds of the answers that came, in order.
    pub(super) answered: Vec<u32>,
    /// Refused with 429 or a 5xx.
    pub(super) refused: u64,
    /// Anything else that is no answer.
    pub(super) failed: u64,
}

impl Bed {
    /// `configuration` is Penstock's; without one clients go straight to the origins.
    pub(super) fn start(
        ground: &Ground<'_>,
        origins: u8,
        options: &[&str],
        configuration: Option<&str>,
    ) -> Outcome<Self> {
        let fleet = Fleet::start(ground.scratch, origins, ground.load_cpus, options)?;
        let kind = if configuration.is_some() { Kind::Penstock } else { Kind::Direct };
        let contender = Contender::start(
            kind,
            Behind::Addresses(&fleet.addresses()),
            ground.proxy_cpus,
            ground.scratch,
            configuration,
        )?;
        Ok(Self { fleet, contender })
    }

    /// Runs all kinds of client at once; what each saw.
    pub(super) fn under(&self, ground: &Ground<'_>, kinds: &[Clients]) -> Outcome<Vec<Window>> {
        let mut loads = Vec::new();
        for (number, clients) in kinds.iter().enumerate() {
            loads.push(Load::start(Plan {
                to: self.contender.to.clone(),
                host: clients.host,
                answer_bytes: clients.answer_bytes,
                connections: clients.connections,
                think: clients.think,
                post_every: None,
                seed: number as u64,
                // Tells the kinds' ids apart.
                phase: number as u8,
            })?);
        }
        std::thread::sleep(ground.warm_up + ground.window);
        // All stop asking before the first is waited for.
        for load in &loads {
            load.stop();
        }
        let mut windows = Vec::new();
        for load in loads {
            windows.push(Window::of(&load.finish()?, ground.warm_up, ground.window));
        }
        Ok(windows)
    }

    /// What the origins saw, from the beginning.
    pub(super) fn journals(&self) -> Outcome<Vec<Journal>> {
        self.fleet.journals()
    }
}

impl Window {
    fn of(all: &[Seen], from: Duration, length: Duration) -> Self {
        let mut window = Self::default();
        for seen in all.iter().filter(|seen| seen.ended >= from && seen.ended < from + length) {
            match seen.end {
                End::Answered => window.answered.push(seen.micros),
                End::Status => window.refused += 1,
                End::Connection | End::Corrupt | End::Hung => window.failed += 1,
            }
        }
        window.answered.sort_unstable();
        window
    }

    /// Milliseconds within which this share was answered.
    pub(super) fn quantile(&self, share: f64) -> f64 {
        let rank = (share * self.answered.len() as f64).ceil() as usize;
        self.answered.get(rank.saturating_sub(1)).map_or(f64::NAN, |micros| f64::from(*micros) / 1e3)
    }

    /// Answers a second.
    pub(super) fn rate(&self, length: Duration) -> f64 {
        self.answered.len() as f64 / length.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::echo::id::Id;

    #[test]
    fn only_what_ended_in_the_window_counts() {
        let seen = |ended_ms, end, micros| {
            let id = Id::new(0, false, 0, ended_ms);
            Seen { id, end, micros, ended: Duration::from_millis(ended_ms) }
        };
        let all = [
            seen(999, End::Answered, 1),
            seen(1_000, End::Answered, 3_000),
            seen(1_500, End::Status, 1),
            seen(2_000, End::Answered, 1_000),
            seen(2_500, End::Hung, 1),
            seen(3_000, End::Answered, 1),
        ];
        let window = Window::of(&all, Duration::from_secs(1), Duration::from_secs(2));
        assert_eq!((window.answered.as_slice(), window.refused, window.failed), (&[1_000, 3_000][..], 1, 1));
        assert_eq!((window.quantile(0.5), window.quantile(0.99), window.rate(Duration::from_secs(2))), (1.0, 3.0, 1.0));
        assert!(Window::default().quantile(0.5).is_nan());
    }
}
