//! Consistent hashing by table.
//!
//! Every endpoint has its own order of all slots, and the endpoints take turns, by weight, in taking the first free one of
//! theirs: shares are even to a fraction of a percent, a lookup is one read, and when one of `n` leaves, little more than
//! its own keys move. Source: Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, §3.4.
//!
//! The table depends on names and weights alone: every machine builds the same, whatever the order of its list.
//! Two bytes a slot, 128 KiB by default; clones share it. Building takes some milliseconds (`size × ln size` steps) and
//! belongs off the request path: build one balancer, and hand each worker a clone.
//! An endpoint lighter than 1/size of all may get no slot at all.

use std::sync::Arc;

use super::affinity::{Ranks, choose};
use super::{Endpoints, candidates::Candidates, candidates::Seat};
use crate::hash::mix;

/// Prime, and more than a hundred times the endpoints of all but the largest pools, as the paper's §5.3 asks for.
pub const SIZE_DEFAULT: u32 = 65_537;

/// The paper's larger table, 1.3 MB.
pub const SIZE_MAX: u32 = 655_373;

const FREE: u16 = u16::MAX;

#[derive(Debug, Clone)]
pub(super) struct Maglev {
    ranks: Ranks,
    table: Arc<[u16]>,
    bound_percent: u16,
}

impl Maglev {
    pub(super) fn new(seats: &[Seat], size: u32, bound_percent: u16) -> Self {
        let ranks = Ranks::new(seats);
        let size = next_prime(size.clamp(ranks.by_id().len() as u32, SIZE_MAX));
        Self { table: build(ranks.by_id(), size), ranks, bound_percent }
    }

    /// Builds anew only what differs.
    pub(super) fn reseat(&mut self, seats: &[Seat], size: u32) {
        if Ranks::new(seats).by_id() == self.ranks.by_id() {
            self.ranks = Ranks::new(seats);
        } else {
            *self = Self::new(seats, size, self.bound_percent);
        }
    }

    pub(super) fn pick(&self, candidates: &Candidates<'_, impl Endpoints>, key: u64) -> Option<usize> {
        // The next choice of a key is another slot, so a missing endpoint's keys spread over all that are left.
        let slots = (0_u64..).map(|attempt| {
            let spread = u128::from(mix(key ^ mix(attempt)));
            ((spread * self.table.len() as u128) >> 64) as usize
        });
        let ranks = slots.map_while(|slot| self.table.get(slot).copied().filter(|&rank| rank != FREE));
        choose(candidates, key, self.bound_percent, ranks.map(|rank| self.ranks.seat(rank)))
    }
}

/// The table of [`SIZE_DEFAULT`] slots for those who look keys up themselves: the place in `members` of who has each slot, in the order of slots.
/// Each member is a hash of its name, and its weight. `None` where nobody has weight.
#[must_use]
pub fn slots(members: &[(u64, u32)]) -> Option<Vec<u16>> {
    let seats: Vec<_> = members.iter().enumerate().map(|(index, &(id, weight))| Seat { id, index, weight }).collect();
    let ranks = Ranks::new(&seats);
    if ranks.by_id().is_empty() {
        return None;
    }
    let table = build(ranks.by_id(), SIZE_DEFAULT);
    Some(table.iter().map(|&rank| ranks.seat(rank) as u16).collect())
}

/// An endpoint's walk over the slots: every one once, because the size is prime.
struct Walk {
    at: u32,
    skip: u32,
    weight: u64,
    /// Earned in turns not yet taken.
    earned: u64,
}

fn build(members: &[(u64, u32)], size: u32) -> Arc<[u16]> {
    let heaviest = members.iter().map(|&(_, weight)| u64::from(weight)).max().unwrap_or(0);
    let mut walks: Vec<_> = members.iter().map(|&(id, weight)| Walk::new(id, weight, size)).collect();
    let mut table = vec![FREE; size as usize];
    let mut free = if members.is_empty() { 0 } else { size };
    while free > 0 {
        for (rank, walk) in walks.iter_mut().enumerate() {
            walk.earned += walk.weight;
            if free > 0 && walk.earned >= heaviest {
                walk.earned -= heaviest;
                let slot = walk.next_free(&table, size);
                table[slot] = rank as u16;
                free -= 1;
            }
        }
    }
    table.into()
}

impl Walk {
    fn new(id: u64, weight: u32, size: u32) -> Self {
        let size = u64::from(size);
        Self {
            at: (mix(id) % size) as u32,
            skip: (mix(!id) % (size - 1).max(1) + 1) as u32,
            weight: u64::from(weight),
            earned: 0,
        }
    }

    /// There must be one.
    fn next_free(&mut self, table: &[u16], size: u32) -> usize {
        while table[self.at as usize] != FREE {
            self.step(size);
        }
        let found = self.at as usize;
        self.step(size);
        found
    }

    fn step(&mut self, size: u32) {
        self.at += self.skip;
        self.at -= if self.at >= size { size } else { 0 };
    }
}

fn next_prime(from: u32) -> u32 {
    let is_prime = |number: u32| {
        (2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| !number.is_multiple_of(divisor))
    };
    (from.max(2)..).find(|&number| is_prime(number)).unwrap_or(SIZE_DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::xxh64;

    fn table(names: &[(&str, u32)], size: u32) -> (Arc<[u16]>, Ranks) {
        let seat =
            |(index, &(name, weight)): (usize, &(&str, u32))| Seat { id: xxh64(name.as_bytes(), 0), index, weight };
        let seats: Vec<_> = names.iter().enumerate().map(seat).collect();
        let maglev = Maglev::new(&seats, size, 0);
        (maglev.table, maglev.ranks)
    }

    #[test]
    fn every_machine_builds_this_table() {
        let bytes = |names: &[(&str, u32)]| {
            let (table, _) = table(names, SIZE_DEFAULT);
            assert_eq!(table.len(), 65_537);
            xxh64(&table.iter().flat_map(|rank| rank.to_le_bytes()).collect::<Vec<_>>(), 0)
        };
        let golden = bytes(&[("10.0.0.1:80", 1), ("10.0.0.2:80", 1), ("10.0.0.3:80", 2), ("a.example:443", 5)]);
        assert_eq!(golden, bytes(&[("a.example:443", 5), ("10.0.0.3:80", 2), ("10.0.0.1:80", 1), ("10.0.0.2:80", 1)]));
        assert_eq!(golden, GOLDEN, "a fleet with two versions of this table would tear its clients' sessions");
        let (small, _) = table(&[("a", 1), ("b", 1), ("c", 1)], 13);
        assert_eq!(small.as_ref(), SMALL);
    }

    /// From an independent program.
    const GOLDEN: u64 = 0x382f_d2a2_a2d8_3301;
    const SMALL: [u16; 13] = [2, 0, 2, 2, 0, 1, 1, 0, 0, 2, 1, 0, 1];

    #[test]
    fn slots_are_as_the_weights() {
        let (table, ranks) = table(&[("a", 1), ("b", 3), ("c", 6), ("d", 0)], SIZE_DEFAULT);
        let mut counts = [0_u32; 4];
        table.iter().for_each(|&rank| counts[ranks.seat(rank)] += 1);
        for (count, wanted) in counts.into_iter().zip([0.1, 0.3, 0.6, 0.0]) {
            assert!((f64::from(count) / 65_537.0 - wanted).abs() < 1e-4, "{counts:?}");
        }
    }

    #[test]
    fn slots_name_members_by_their_place() {
        let of = |members: &[(u64, u32)]| slots(members).expect("somebody has weight");
        let (ab, ba) = (of(&[(7, 1), (9, 3)]), of(&[(9, 3), (7, 1)]));
        assert_eq!(ab.len(), 65_537);
        assert!(ab.iter().zip(&ba).all(|(here, there)| *here == 1 - *there), "whatever the order of the list");
        let (three, two) = (of(&[(1, 1), (2, 1), (3, 1)]), of(&[(1, 1), (2, 1), (3, 0)]));
        let moved = three.iter().zip(&two).filter(|(before, after)| **before != 2 && before != after).count();
        assert!(moved * 100 < 65_537, "{moved} slots of others have moved");
        assert_eq!(slots(&[(1, 0)]), None);
        assert_eq!(slots(&[]), None);
    }

    #[test]
    fn sizes_are_prime_and_hold_all() {
        for (asked, wanted) in [(0, 2), (2, 2), (14, 17), (65_536, 65_537), (SIZE_DEFAULT, 65_537), (SIZE_MAX, 655_373)]
        {
            assert_eq!(next_prime(asked), wanted);
        }
        assert_eq!(table(&[("a", 1), ("b", 1), ("c", 1)], 1).0.len(), 3);
        assert!(table(&[], 7).0.iter().all(|&rank| rank == FREE));
    }
}
