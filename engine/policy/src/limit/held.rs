//! How many things a client may hold at the same time: connections, streams, waiting requests.
//!
//! A count cannot be taken over as a TAT can: what it counts is still held. When all ways of a set are in use, further keys of
//! that set are counted together, as if they were one client. So memory stays bounded, nobody is
//! refused for the table's sake before strangers together hold what one client may, and nobody holds more than twice
//! its limit (once in a cell of its own, once among strangers). With twice as many cells as the worker has connections this
//! needs a set that nine clients share, and eight of them connected.

use super::{KeyTable, WAYS, Way};

/// Two cache lines: eight keys, their counts, and the strangers'.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Set {
    keys: [u64; WAYS],
    counts: [u32; WAYS],
    strangers: u32,
}

const _: () = assert!(size_of::<Set>() == 128);

/// A place that was taken, and where it was counted. Give it back with [`HeldTable::release`], once.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a place that is never released is held for ever"]
pub struct Held {
    set: u32,
    /// [`WAYS`]: among the strangers.
    way: u8,
}

/// Counts of one worker, 16 bytes a cell, taken at construction.
#[derive(Debug, Clone)]
pub struct HeldTable {
    table: KeyTable,
    sets: Box<[Set]>,
    each_max: u32,
}

impl HeldTable {
    /// `each_max` for each key; see [`KeyTable::new`] for `capacity` and `seed`.
    #[must_use]
    pub fn new(each_max: u32, capacity: usize, seed: u64) -> Self {
        let table = KeyTable::new(capacity.min(u32::MAX as usize), seed);
        Self { table, sets: vec![Set::default(); table.sets()].into(), each_max }
    }

    /// Takes one more for `key`, or none if it has as many as it may.
    pub fn acquire(&mut self, key: u64) -> Option<Held> {
        let index = self.table.set(key);
        let set = &mut self.sets[index];
        let way = match KeyTable::way(key, set.keys.into_iter().zip(set.counts.map(u64::from))) {
            Way::Takes(way) if set.counts[way] > 0 => WAYS,
            Way::Takes(way) | Way::Has(way) => {
                set.keys[way] = key;
                way
            }
        };
        let count = set.counts.get_mut(way).unwrap_or(&mut set.strangers);
        if *count >= self.each_max {
            return None;
        }
        *count += 1;
        // At most 2²⁹ sets: the capacity was cut to 32 bits.
        Some(Held { set: index as u32, way: way as u8 })
    }

    pub fn release(&mut self, held: Held) {
        let Some(set) = self.sets.get_mut(held.set as usize) else { return };
        let count = set.counts.get_mut(held.way as usize).unwrap_or(&mut set.strangers);
        *count = count.saturating_sub(1);
    }

    /// What `key` holds in a cell of its own.
    #[must_use]
    pub fn count(&self, key: u64) -> u32 {
        let set = &self.sets[self.table.set(key)];
        match KeyTable::way(key, set.keys.into_iter().zip(set.counts.map(u64::from))) {
            Way::Has(way) => set.counts[way],
            Way::Takes(_) => 0,
        }
    }

    /// A reload. Who holds more keeps it, and gets no more until below.
    pub const fn set_max(&mut self, each_max: u32) {
        self.each_max = each_max;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_up_to_the_limit_and_back() {
        let mut table = HeldTable::new(3, 100, 1);
        let mut held: Vec<_> = (0..5).filter_map(|_| table.acquire(7)).collect();
        assert_eq!((held.len(), table.count(7), table.count(8)), (3, 3, 0));
        table.release(held.pop().unwrap());
        assert!(table.acquire(7).is_some());
        assert!(table.acquire(7).is_none());
        table.set_max(4);
        assert!(table.acquire(7).is_some());
        assert!(HeldTable::new(0, 100, 1).acquire(7).is_none());
    }

    #[test]
    fn strangers_of_a_full_set_share_one_limit() {
        let mut table = HeldTable::new(3, 8, 1);
        let mut own: Vec<_> = (0..8).filter_map(|key| table.acquire(key)).collect();
        let strangers: Vec<_> = (100..200).filter_map(|key| table.acquire(key)).collect();
        assert_eq!((own.len(), strangers.len()), (8, 3));
        assert!(table.acquire(0).is_some(), "who has a cell is not touched by strangers");
        table.release(own.pop().unwrap());
        assert_eq!((0..5).filter_map(|_| table.acquire(100)).count(), 3, "a cell of its own: six in all, twice three");
        strangers.into_iter().for_each(|held| table.release(held));
        assert!(table.acquire(999).is_some());
    }
}
