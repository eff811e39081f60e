//! The table that grows with a connection, of HPACK (RFC 7541 §2.3.2) or QPACK (RFC 9204 §3.2).
//!
//! It keeps its text in one run of bytes, newest last, so that an entry is a slice of it. Nothing is allocated before the first
//! entry, and what was evicted is given up a kilobyte at a time.

use std::collections::VecDeque;

/// What an entry costs beside its text (RFC 7541 §4.1).
pub(crate) const ENTRY_OVERHEAD: usize = 32;

/// The table that both ends of a direction keep alike.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    text: Vec<u8>,
    /// Oldest first.
    entries: VecDeque<Entry>,
    /// Bytes of `text` that were given up: where it begins, in all that was ever added.
    base: u32,
    /// As RFC 7541 §4.1 counts.
    size: usize,
    size_max: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// In all that was ever added, modulo 2^32.
    start: u32,
    name_len: u16,
    value_len: u16,
    name_mark: u16,
    mark: u16,
}

impl Entry {
    fn cost(&self) -> usize {
        self.name_len as usize + self.value_len as usize + ENTRY_OVERHEAD
    }
}

impl Table {
    pub(crate) fn new(size_max: usize) -> Self {
        Self { size_max, ..Self::default() }
    }

    pub(crate) fn size_max(&self) -> usize {
        self.size_max
    }

    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of memory that it holds.
    pub(crate) fn memory(&self) -> usize {
        self.text.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    /// Changes the bound, and evicts what exceeds it (RFC 7541 §4.3).
    pub(crate) fn set_size_max(&mut self, size_max: usize) {
        self.size_max = size_max;
        self.evict(0);
    }

    /// The entry of that age; 0 is the newest.
    #[inline]
    pub(crate) fn get(&self, age: usize) -> Option<(&[u8], &[u8])> {
        let at = self.entries.len().checked_sub(age + 1)?;
        Some(self.parts(&self.entries[at]))
    }

    /// How many entries, from the oldest, an entry of that text would evict; `None` if it is larger than the table.
    pub(crate) fn evictions(&self, text: usize) -> Option<usize> {
        let cost = text + ENTRY_OVERHEAD;
        let mut excess = (self.size + cost).saturating_sub(self.size_max);
        let mut oldest = self.entries.iter();
        let mut count = 0;
        while excess > 0 {
            let entry = oldest.next()?;
            excess = excess.saturating_sub(entry.cost());
            count += 1;
        }
        Some(count)
    }

    /// Adds an entry, and evicts what has to go. One that is larger than the table empties it, which is no error (RFC 7541 §4.4).
    #[inline]
    pub(crate) fn insert(&mut self, name: &[u8], value: &[u8]) {
        let cost = name.len() + value.len() + ENTRY_OVERHEAD;
        self.evict(cost);
        if cost > self.size_max {
            return;
        }
        let (name_mark, mark) = marks(name, value);
        self.give_up();
        let entry = Entry {
            start: self.base.wrapping_add(self.text.len() as u32),
            name_len: name.len() as u16,
            value_len: value.len() as u16,
            name_mark,
            mark,
        };
        let needed = self.text.len() + name.len() + value.len();
        if needed > self.text.capacity() {
            self.text.reserve_exact(needed.next_multiple_of(GROWTH) - self.text.len());
        }
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(value);
        self.entries.push_back(entry);
        self.size += cost;
    }

    /// The ages of the newest entry of that name, and of that name and value.
    #[inline]
    pub(crate) fn find(&self, name: &[u8], value: &[u8]) -> (Option<usize>, Option<usize>) {
        let (name_mark, mark) = marks(name, value);
        let mut named = None;
        for (age, entry) in self.entries.iter().rev().enumerate() {
            if entry.name_mark != name_mark || self.parts(entry).0 != name {
                continue;
            }
            if entry.mark == mark && self.parts(entry).1 == value {
                return (named.or(Some(age)), Some(age));
            }
            named = named.or(Some(age));
        }
        (named, None)
    }

    /// Gives back memory that the entries do not need.
    pub(crate) fn trim(&mut self) {
        self.drop_evicted();
        self.text.shrink_to_fit();
        self.entries.shrink_to_fit();
    }

    #[inline]
    fn parts(&self, entry: &Entry) -> (&[u8], &[u8]) {
        let start = entry.start.wrapping_sub(self.base) as usize;
        let middle = start + entry.name_len as usize;
        (&self.text[start..middle], &self.text[middle..middle + entry.value_len as usize])
    }

    /// Makes room for an entry of that cost.
    #[inline]
    fn evict(&mut self, cost: usize) {
        while self.size + cost > self.size_max
            && let Some(entry) = self.entries.pop_front()
        {
            self.size -= entry.cost();
        }
    }

    #[inline]
    fn give_up(&mut self) {
        let first = self.entries.front().map_or(self.text.len(), |entry| entry.start.wrapping_sub(self.base) as usize);
        if first >= EVICTED_MAX || self.entries.is_empty() {
            self.drop_evicted();
        }
    }

    fn drop_evicted(&mut self) {
        let first = self.entries.front().map_or(self.text.len(), |entry| entry.start.wrapping_sub(self.base) as usize);
        self.text.drain(..first);
        self.base = self.base.wrapping_add(first as u32);
    }
}

/// Evicted text that may lie before the entries: moving a full table is then at most four bytes moved for one added.
const EVICTED_MAX: usize = 1024;

/// The text's storage grows by so much: ten steps to a full table, and little to spare in a small one.
const GROWTH: usize = 512;

/// Short digests of a name and of name and value, so that a search compares almost nothing else.
#[inline]
fn marks(name: &[u8], value: &[u8]) -> (u16, u16) {
    let mix = |seed: u64, bytes: &[u8]| {
        let (words, rest) = bytes.as_chunks::<8>();
        let step = |state: u64, word: u64| (state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        let state = words.iter().fold(seed ^ bytes.len() as u64, |state, word| step(state, u64::from_le_bytes(*word)));
        rest.iter().fold(state, |state, &byte| step(state, u64::from(byte)))
    };
    let named = mix(0, name);
    (named as u16, mix(named, value) as u16)
}

/// Tells one field from another, mostly.
#[inline]
pub(crate) fn digest(name: &[u8], value: &[u8]) -> u32 {
    let (name_mark, mark) = marks(name, value);
    u32::from(name_mark) << 16 | u32::from(mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc7541_4_4_entries_are_evicted_oldest_first_and_a_giant_empties_the_table() {
        let mut table = Table::new(100);
        table.insert(b"a", b"1");
        table.insert(b"b", b"2");
        assert_eq!(
            (table.size(), table.get(0), table.get(1)),
            (68, Some((&b"b"[..], &b"2"[..])), Some((&b"a"[..], &b"1"[..])))
        );
        table.insert(b"c", b"3");
        assert_eq!((table.size(), table.get(1), table.get(2)), (68, Some((&b"b"[..], &b"2"[..])), None));
        table.set_size_max(40);
        assert_eq!((table.len(), table.get(0)), (1, Some((&b"c"[..], &b"3"[..]))));
        table.insert(b"name", &[b'x'; 60]);
        assert_eq!((table.len(), table.size()), (0, 0));
    }

    #[test]
    fn memory_is_bounded_and_nothing_until_it_is_used() {
        let mut table = Table::new(4096);
        assert_eq!(table.memory(), 0);
        for round in 0..20_000_u32 {
            let value = vec![b'v'; round as usize * 7 % 300];
            table.insert(format!("n{round}").as_bytes(), &value);
            assert_eq!(table.get(0), Some((format!("n{round}").as_bytes(), &value[..])));
            assert!(table.size() <= 4096 && table.memory() <= 8 * 1024, "{}", table.memory());
        }
        table.trim();
        assert!(table.memory() <= 5 * 1024);
        table.set_size_max(0);
        table.trim();
        assert_eq!(table.memory(), 0);
    }

    #[test]
    fn the_newest_of_a_name_is_found() {
        let mut table = Table::new(4096);
        for (name, value) in [("a", "1"), ("b", "1"), ("a", "2"), ("a", "1")] {
            table.insert(name.as_bytes(), value.as_bytes());
        }
        assert_eq!(table.find(b"a", b"1"), (Some(0), Some(0)));
        assert_eq!(table.find(b"a", b"2"), (Some(0), Some(1)));
        assert_eq!(table.find(b"b", b"2"), (Some(2), None));
        assert_eq!(table.find(b"c", b"1"), (None, None));
    }
}
