//! The streams of a connection: slots, found by identifier. They are used again, so that a connection that serves its thousandth request
//! allocates nothing for it.

use std::cell::Cell;

/// Streams `T` by identifiers `K`, of which there are 65,535 at most.
#[derive(Debug)]
pub(crate) struct Slab<K, T> {
    slots: Vec<T>,
    free: Vec<u16>,
    /// Identifier and slot of those that are there, by identifier.
    index: Vec<(K, u16)>,
    /// Where the identifier stood that was found last: most of the time it is the one that is looked for.
    last: Cell<usize>,
}

impl<K, T> Default for Slab<K, T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), index: Vec::new(), last: Cell::new(0) }
    }
}

impl<K: Ord + Copy, T> Slab<K, T> {
    /// How many there are.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    #[inline]
    pub(crate) fn find(&self, id: K) -> Option<usize> {
        let at = self.place(id)?;
        Some(self.index[at].1 as usize)
    }

    /// Where in the index it stands.
    #[inline]
    fn place(&self, id: K) -> Option<usize> {
        let last = self.last.get();
        if self.index.get(last).is_some_and(|entry| entry.0 == id) {
            return Some(last);
        }
        let at = self.index.binary_search_by_key(&id, |entry| entry.0).ok()?;
        self.last.set(at);
        Some(at)
    }

    /// The slot of the stream with the so manieth lowest identifier.
    #[inline]
    pub(crate) fn slot_at(&self, at: usize) -> usize {
        self.index[at].1 as usize
    }

    /// The slots of all, by identifier.
    pub(crate) fn all(&self) -> impl DoubleEndedIterator<Item = usize> {
        self.index.iter().map(|entry| entry.1 as usize)
    }

    /// Takes in a stream that is not there. The cheapest place for its identifier is above all others'.
    pub(crate) fn insert(&mut self, id: K, stream: T) -> usize {
        let above = self.index.last().is_none_or(|last| last.0 < id);
        let at = if above { self.index.len() } else { self.index.partition_point(|entry| entry.0 < id) };
        debug_assert!(self.index.get(at).is_none_or(|entry| entry.0 != id), "a stream is there already");
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = stream;
                slot
            }
            None => {
                self.slots.push(stream);
                (self.slots.len() - 1) as u16
            }
        };
        self.index.insert(at, (id, slot));
        self.last.set(at);
        slot as usize
    }

    /// Frees the slot of a stream that is there. What is in it stays until it is used again.
    pub(crate) fn remove(&mut self, id: K) {
        if let Some(at) = self.place(id) {
            let (_, slot) = self.index.remove(at);
            self.free.push(slot);
        }
    }

    /// Gives back memory that nobody uses.
    pub(crate) fn trim(&mut self) {
        if self.index.is_empty() {
            *self = Self::default();
        }
    }

    pub(crate) fn memory(&self) -> usize {
        self.slots.capacity() * size_of::<T>()
            + self.free.capacity() * size_of::<u16>()
            + self.index.capacity() * size_of::<(K, u16)>()
    }
}

impl<K, T> std::ops::Index<usize> for Slab<K, T> {
    type Output = T;

    #[inline]
    fn index(&self, slot: usize) -> &T {
        &self.slots[slot]
    }
}

impl<K, T> std::ops::IndexMut<usize> for Slab<K, T> {
    #[inline]
    fn index_mut(&mut self, slot: usize) -> &mut T {
        &mut self.slots[slot]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_comes_and_goes_is_found_and_slots_are_used_again() {
        let (mut slab, mut there, mut random) = (Slab::default(), std::collections::BTreeMap::new(), 1_u64);
        for round in 0..20_000_u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let id = (random >> 40) % 64;
            match there.remove(&id) {
                Some(value) => {
                    assert_eq!(slab.find(id).map(|slot| slab[slot]), Some(value));
                    slab.remove(id);
                }
                None => {
                    there.insert(id, round);
                    slab.insert(id, round);
                }
            }
            assert_eq!(slab.find(id).is_some(), there.contains_key(&id));
            assert!(slab.all().map(|slot| slab[slot]).eq(there.values().copied()));
        }
        assert!(slab.memory() <= 4096, "{}", slab.memory());
        there.keys().for_each(|&id| slab.remove(id));
        slab.trim();
        assert_eq!((slab.len(), slab.memory()), (0, 0));
    }
}
