//! What a worker has to do, as one number, and who is to take a connection that is too much for another. Pure.

use abi::{CONNECTION_LOAD, EXCHANGE_LOAD, NEWCOMER_LOAD};

use crate::telemetry::Counters;

/// A difference that is not worth a hand-over: four connections that do something. Below it a worker is merely between two turns.
const SLACK: u64 = 4 * NEWCOMER_LOAD;

/// The part of the least load that is not worth one either: a sixteenth, so that loads stay within some 7 % of one another.
const SLACK_SHIFT: u32 = 4;

/// What a worker has to do: its connections, and sixteen times as much its exchanges under way.
#[must_use]
pub fn burden(counters: &Counters) -> u64 {
    counters.connections_open.get() * CONNECTION_LOAD + counters.requests_open.get() * EXCHANGE_LOAD
}

/// Who takes a connection that `own` has accepted, of all workers by their loads: the least loaded one, if it has so much less to do; `None` to keep it.
#[must_use]
pub fn receiver(loads: impl Iterator<Item = u64>, own: usize) -> Option<usize> {
    let (mut here, mut least, mut at) = (0, u64::MAX, own);
    for (worker, load) in loads.enumerate() {
        if worker == own {
            here = load;
        } else if load < least {
            (least, at) = (load, worker);
        }
    }
    let bound = least.saturating_add(SLACK).saturating_add(least >> SLACK_SHIFT);
    (at != own && here > bound).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(loads: &[u64], own: usize) -> Option<usize> {
        receiver(loads.iter().copied(), own)
    }

    #[test]
    fn the_least_loaded_takes_what_is_too_much() {
        assert_eq!(of(&[1_000, 200, 100], 0), Some(2));
        assert_eq!(of(&[100, 1_000, 200], 1), Some(0));
        assert_eq!(of(&[100, 1_000, 200], 0), None);
    }

    #[test]
    fn a_little_more_is_kept() {
        assert_eq!(of(&[SLACK, 0], 0), None);
        assert_eq!(of(&[SLACK + 1, 0], 0), Some(1));
        assert_eq!(of(&[1_600 + 100 + SLACK, 1_600], 0), None);
        assert_eq!(of(&[1_600 + 101 + SLACK, 1_600], 0), Some(1));
    }

    #[test]
    fn alone_one_keeps_everything() {
        assert_eq!(of(&[u64::MAX], 0), None);
        assert_eq!(of(&[], 0), None);
    }

    /// However connections fall, and whatever they do, handing over keeps loads together: the bound is the slack and a sixteenth.
    #[test]
    fn loads_stay_together() {
        let mut random = policy::Random::new(7);
        let mut loads = [0_u64; 4];
        for _ in 0..20_000 {
            // Three of four fall on the first worker; one in ten is heavy.
            let fell = if random.below(4) == 0 { 1 + random.below(3) as usize } else { 0 };
            let weight = if random.below(10) == 0 { NEWCOMER_LOAD } else { CONNECTION_LOAD };
            loads[fell] += weight;
            if let Some(to) = of(&loads, fell) {
                loads[fell] -= weight;
                loads[to] += weight;
            }
        }
        let (least, most) = (*loads.iter().min().unwrap(), *loads.iter().max().unwrap());
        assert!(most <= least + (least >> SLACK_SHIFT) + SLACK + NEWCOMER_LOAD, "{loads:?}");
    }
}
