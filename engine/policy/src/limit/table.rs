//! Where a key's cell is, and whose it takes when there is none left.
//!
//! The table is set-associative: a key may live in the eight ways of one set, found by a seeded hash that an attacker cannot aim.
//! A key that has no cell takes over the way with the least in it. For a rate that is the earliest TAT, and *the TAT stays*: the
//! newcomer inherits the debt. This is Space-Saving (Metwally, Agrawal, El Abbadi: "Efficient Computation of Frequent and
//! Top-k Elements in Data Streams", ICDT 2005), whose counters never come down, with time as the counter. It follows:
//!
//! - A passed TAT is worth nothing, so a way whose key has paid is free, and taking it over loses nothing.
//! - The least TAT of a set never falls. A key that was evicted and comes back therefore inherits at least what it owed: cycling
//!   keys buys nobody a second burst, and one set grants at most eight rates and bursts to all of its keys together.
//! - To evict a heavily used key, seven others of its set must be made to owe more than it does, each within its own limit.
//! - The price: while all eight owe, a new key of that set starts with the least of these debts and may have to wait for that long.
//! - A takeover writes the key and nothing else. Over shared atomics it is one store; who still steps the old key's TAT in that
//!   moment adds to a debt, and takes nothing away.

use std::ops::Range;

/// Keys that share a set. Eight pairs of key and TAT are two cache lines; with the table half full of live keys, more than eight
/// want one set in 2 % of the sets (Poisson, mean 4).
pub const WAYS: usize = 8;

/// Which way of its set a key uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It has this one.
    Has(usize),
    /// It has none, and takes this one over: write the key, leave the rest.
    Takes(usize),
}

impl Way {
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Has(index) | Self::Takes(index) => index,
        }
    }
}

/// The arithmetic of a table, without its storage. Keys are 64-bit hashes that the caller makes (with a secret of its
/// own, if clients can choose what is hashed): two clients share a cell with a chance of 2⁻⁶⁴.
#[derive(Debug, Clone, Copy)]
pub struct KeyTable {
    seed: u64,
    sets: usize,
}

impl KeyTable {
    /// Room for at least `capacity` keys, and a power of two of sets. For keys that come at random choose twice as many as will be
    /// live at a time. `seed` must be hard to guess.
    #[must_use]
    pub const fn new(capacity: usize, seed: u64) -> Self {
        let wanted = capacity.div_ceil(WAYS);
        // Above this the power of two would not exist; no machine has the memory for it either.
        let sets = if wanted <= 1 {
            1
        } else if wanted > 1 << 48 {
            1 << 48
        } else {
            wanted.next_power_of_two()
        };
        Self { seed, sets }
    }

    #[must_use]
    pub const fn sets(&self) -> usize {
        self.sets
    }

    /// Cells that the storage must have.
    #[must_use]
    pub const fn cells(&self) -> usize {
        self.sets * WAYS
    }

    /// The set of a key, below [`KeyTable::sets`].
    #[must_use]
    pub const fn set(&self, key: u64) -> usize {
        (self.mix(key) as usize) & (self.sets - 1)
    }

    /// The same as a range of cells.
    #[must_use]
    pub const fn cells_of(&self, key: u64) -> Range<usize> {
        let first = self.set(key) * WAYS;
        first..first + WAYS
    }

    /// Which of `workers` is responsible for a key, when each has a table of its own. Independent of the set.
    #[must_use]
    pub const fn home(&self, key: u64, workers: usize) -> usize {
        (((self.mix(key) >> 32) * workers as u64) >> 32) as usize
    }

    /// Chooses among the ways of `key`'s set, given as pairs of key and what is in it (TAT, count): its own, or the
    /// one with the least.
    #[must_use]
    pub fn way(key: u64, ways: impl IntoIterator<Item = (u64, u64)>) -> Way {
        let (mut least, mut victim) = (u64::MAX, 0);
        for (index, (held, amount)) in ways.into_iter().enumerate() {
            // Key 0 is a key like others; that unused cells bear it too does no harm, since they owe nothing.
            if held == key {
                return Way::Has(index);
            }
            if amount < least {
                (least, victim) = (amount, index);
            }
        }
        Way::Takes(victim)
    }

    /// The finaliser of SplitMix64, over key and seed.
    const fn mix(&self, key: u64) -> u64 {
        crate::Random::new(key ^ self.seed).next_u64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (capacity, cells) in [(0, 8), (1, 8), (8, 8), (9, 16), (1000, 1024), (1025, 2048)] {
            assert_eq!(KeyTable::new(capacity, 1).cells(), cells);
        }
        assert_eq!(KeyTable::new(usize::MAX, 1).sets(), 1 << 48);
    }

    #[test]
    fn sets_and_homes_are_even_and_independent() {
        let table = KeyTable::new(64, 5);
        let mut counts = [[0_u32; 3]; 8];
        for key in 0..240_000_u64 {
            counts[table.set(key)][table.home(key, 3)] += 1;
            assert_eq!(table.cells_of(key).len(), WAYS);
        }
        for count in counts.as_flattened() {
            assert!((9_500..10_500).contains(count), "{counts:?}");
        }
    }

    #[test]
    fn another_seed_is_another_layout() {
        let (one, two) = (KeyTable::new(8192, 1), KeyTable::new(8192, 2));
        let same = (0..10_000).filter(|&key| one.set(key) == two.set(key)).count();
        assert!(same < 50, "{same} of 10 000 keys in the same of 1024 sets");
    }

    #[test]
    fn own_way_first_then_the_one_with_least() {
        let ways = [(1, 50), (2, 10), (3, 40), (4, 10)];
        assert_eq!(KeyTable::way(3, ways), Way::Has(2));
        assert_eq!(KeyTable::way(9, ways), Way::Takes(1));
        assert_eq!(KeyTable::way(9, [(1, u64::MAX); 8]), Way::Takes(0));
    }
}
