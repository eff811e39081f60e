//! One rate for each of many keys, in one worker's own memory.

use super::{Decision, KeyTable, Rate, RateSettings, WAYS};
use crate::Now;

#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    key: u64,
    tat: u64,
}

/// A set is two cache lines and begins at one.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Set([Cell; WAYS]);

const _: () = assert!(size_of::<Set>() == 128);

/// 16 bytes a cell, taken at construction. The law of a full table is [`KeyTable`]'s.
#[derive(Debug, Clone)]
pub struct RateTable {
    rate: Rate,
    table: KeyTable,
    sets: Box<[Set]>,
}

impl RateTable {
    /// See [`KeyTable::new`] for `capacity` and `seed`.
    #[must_use]
    pub fn new(settings: RateSettings, capacity: usize, seed: u64) -> Self {
        let table = KeyTable::new(capacity, seed);
        Self { rate: Rate::new(settings), table, sets: vec![Set::default(); table.sets()].into() }
    }

    #[must_use]
    pub const fn rate(&self) -> &Rate {
        &self.rate
    }

    /// Decides about a request of `key` that costs `cost` units. A refusal changes nothing but who has the cell.
    pub fn check(&mut self, now: Now, key: u64, cost: u32) -> Decision {
        let Set(ways) = &mut self.sets[self.table.set(key)];
        let index = KeyTable::way(key, ways.iter().map(|cell| (cell.key, cell.tat))).index();
        let cell = &mut ways[index];
        cell.key = key;
        self.rate.check(&mut cell.tat, now, cost)
    }

    /// A reload: TATs stay, so a new rate starts from what is owed.
    pub fn set_rate(&mut self, settings: RateSettings) {
        self.rate = Rate::new(settings);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const TEN_A_SECOND: RateSettings = RateSettings { quota: 10, period: Duration::from_secs(1), burst: 10 };

    fn granted(table: &mut RateTable, now: Now, key: u64, tries: u32) -> u32 {
        (0..tries).map(|_| u32::from(table.check(now, key, 1).allowed)).sum()
    }

    #[test]
    fn keys_do_not_touch_one_another_while_there_is_room() {
        let mut table = RateTable::new(TEN_A_SECOND, 8, 1);
        for key in 0..8 {
            assert_eq!(granted(&mut table, Now::from_secs(1), key, 20), 10);
        }
        for key in 0..8 {
            assert_eq!(granted(&mut table, Now::from_secs(2), key, 20), 10);
        }
    }

    #[test]
    fn who_has_paid_makes_room() {
        let mut table = RateTable::new(TEN_A_SECOND, 8, 1);
        for second in 1..100 {
            for key in 0..8 {
                assert_eq!(granted(&mut table, Now::from_secs(second), second * 100 + key, 20), 10);
            }
        }
    }

    #[test]
    fn a_full_set_grants_no_more_than_its_ways_would() {
        let mut table = RateTable::new(TEN_A_SECOND, 8, 1);
        let all: u32 = (0..1000).map(|key| granted(&mut table, Now::from_secs(1), key, 20)).sum();
        assert_eq!(all, 80);
        assert_eq!(granted(&mut table, Now::from_secs(1), 0, 20), 0, "coming back buys nothing");
    }

    #[test]
    fn a_reload_keeps_what_is_owed() {
        let mut table = RateTable::new(TEN_A_SECOND, 8, 1);
        assert_eq!(granted(&mut table, Now::from_secs(1), 1, 20), 10);
        table.set_rate(RateSettings { quota: 20, ..TEN_A_SECOND });
        assert_eq!(granted(&mut table, Now::from_secs(1), 1, 20), 0);
        assert_eq!(table.rate().field(), (20, 1));
    }
}
