//! Counts of the last while, in a ring of buckets.
//!
//! A window that slides by whole buckets forgets evenly, costs one increment a count, and holds its sums ready: asking is
//! free. What it gives up is one bucket's width of exactness at its far edge.
//!
//! What holds here: whatever the clock does, a sum never holds more than what was added within the last `BUCKETS` buckets
//! of *some* clock. A clock that steps back by less than the window counts on in the newest bucket; one that steps back
//! by more empties the window, or it would stand still until the old time came round again.

use crate::{Now, time::nanos};
use std::time::Duration;

/// `KINDS` counters over `BUCKETS` buckets. `24 + 4 × KINDS × (BUCKETS + 1)` bytes, rounded up.
#[derive(Debug, Clone)]
pub struct Window<const BUCKETS: usize, const KINDS: usize> {
    width_ns: u64,
    /// The number of the youngest bucket, counted from the clock's zero.
    newest: u64,
    buckets: [[u32; KINDS]; BUCKETS],
    sums: [u32; KINDS],
}

impl<const BUCKETS: usize, const KINDS: usize> Window<BUCKETS, KINDS> {
    /// A window of `span`, which is divided evenly.
    #[must_use]
    pub const fn new(span: Duration) -> Self {
        let width_ns = nanos(span) / BUCKETS as u64;
        Self {
            width_ns: if width_ns == 0 { 1 } else { width_ns },
            newest: 0,
            buckets: [[0; KINDS]; BUCKETS],
            sums: [0; KINDS],
        }
    }

    /// Counts one of `kind`.
    pub fn add(&mut self, now: Now, kind: usize) {
        self.advance(now);
        let counter = &mut self.buckets[slot::<BUCKETS>(self.newest)][kind];
        // A full counter stays full, and the sum with it: both must go down by the same amount later.
        if *counter < u32::MAX && self.sums[kind] < u32::MAX {
            *counter += 1;
            self.sums[kind] += 1;
        }
    }

    /// What is in the window now.
    #[must_use]
    pub fn sums(&mut self, now: Now) -> [u32; KINDS] {
        self.advance(now);
        self.sums
    }

    pub fn clear(&mut self) {
        self.buckets = [[0; KINDS]; BUCKETS];
        self.sums = [0; KINDS];
    }

    fn advance(&mut self, now: Now) {
        let (current, len) = (now.nanos() / self.width_ns, BUCKETS as u64);
        if current.abs_diff(self.newest) >= len {
            self.clear();
            self.newest = current;
            return;
        }
        while self.newest < current {
            self.newest += 1;
            let bucket = &mut self.buckets[slot::<BUCKETS>(self.newest)];
            for (sum, counter) in self.sums.iter_mut().zip(bucket) {
                *sum -= *counter;
                *counter = 0;
            }
        }
    }
}

const fn slot<const BUCKETS: usize>(number: u64) -> usize {
    (number % BUCKETS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;
    use std::collections::VecDeque;

    #[test]
    fn agrees_with_a_list_of_what_was_added() {
        let mut random = Random::new(5);
        let mut window = Window::<10, 2>::new(Duration::from_secs(10));
        let (mut now, mut list) = (0_u64, VecDeque::new());
        for _ in 0..20_000 {
            now += random.below(900_000_000);
            let kind = random.below(2) as usize;
            window.add(Now::from_nanos(now), kind);
            list.push_back((now / 1_000_000_000, kind));
            list.retain(|&(second, _)| second + 10 > now / 1_000_000_000);
            let wanted = [0, 1].map(|kind| list.iter().filter(|item| item.1 == kind).count() as u32);
            assert_eq!(window.sums(Now::from_nanos(now)), wanted);
        }
    }

    #[test]
    fn a_small_step_back_counts_on_and_a_large_one_starts_anew() {
        let mut window = Window::<10, 1>::new(Duration::from_secs(10));
        for second in [100, 95, 99] {
            window.add(Now::from_secs(second), 0);
        }
        assert_eq!(window.sums(Now::from_secs(100)), [3]);
        window.add(Now::from_secs(5), 0);
        assert_eq!(window.sums(Now::from_secs(5)), [1]);
        assert_eq!(window.sums(Now::from_secs(16)), [0], "and it slides on from there");
    }

    #[test]
    fn the_ends_of_time_are_in_bounds() {
        let mut window = Window::<3, 1>::new(Duration::ZERO);
        for nanos in [0, u64::MAX, 0, u64::MAX - 1, u64::MAX] {
            window.add(Now::from_nanos(nanos), 0);
        }
        assert_eq!(window.sums(Now::from_nanos(u64::MAX)), [2]);
    }
}
