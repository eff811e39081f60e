//! The table that grows with a connection, of HPACK (RFC 7541 §2.3.2) or QPACK (RFC 9204 §3.2).
//!
//! It keeps its text in one run of bytes, newest last, as the lines that a head has, so that an entry is a slice of it and is put into a
//! head by one copy. Nothing is allocated before the first entry, and what was evicted is given up a kilobyte at a time.

use std::collections::VecDeque;

use super::{COLON, Judged, LINE_END};
use crate::http::Known;

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
    /// Entries that there ever were, modulo 256: twice as many as there can be.
    added: u8,
    /// Nothing while there has been no entry.
    chains: Option<Box<Chains>>,
}

/// By digest of name, and of name and value: the number, modulo 256, of the newest entry that has it, if there is one.
#[derive(Debug, Clone, Copy, Default)]
struct Chains {
    named: [u8; DIGESTS],
    same: [u8; DIGESTS],
}

/// Chains in which entries are looked for: a quarter of what the largest table holds, so a chain has one entry of a table that is half full.
const DIGESTS: usize = 32;

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// In all that was ever added, modulo 2^32.
    start: u32,
    name_len: u16,
    value_len: u16,
    name_mark: u16,
    mark: u16,
    /// How many entries further back the next one of the same chain is; 0 if there was none.
    older_named: u8,
    older: u8,
    known: Option<Known>,
}

impl Entry {
    fn cost(&self) -> usize {
        self.name_len as usize + self.value_len as usize + ENTRY_OVERHEAD
    }

    /// Bytes of its line.
    fn length(&self) -> usize {
        self.name_len as usize + COLON.len() + self.value_len as usize + LINE_END.len()
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
        let chains = if self.chains.is_some() { size_of::<Chains>() } else { 0 };
        self.text.capacity() + self.entries.capacity() * size_of::<Entry>() + chains
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

    /// What tells an entry from others, while it is there.
    #[inline]
    pub(crate) fn number(&self, age: usize) -> u8 {
        self.added.wrapping_sub(1).wrapping_sub(age as u8)
    }

    /// The age of the entry of that number, if it is there and has this name and value.
    #[inline]
    pub(crate) fn is_still(&self, number: u8, name: &[u8], value: &[u8]) -> Option<usize> {
        let age = usize::from(self.added.wrapping_sub(1).wrapping_sub(number));
        let at = self.entries.len().checked_sub(age + 1)?;
        (self.parts(&self.entries[at]) == (name, value)).then_some(age)
    }

    /// The line of the entry of that age, and what was found out about it when it was added.
    #[inline]
    pub(crate) fn line(&self, age: usize) -> Option<Judged<'_>> {
        let at = self.entries.len().checked_sub(age + 1)?;
        let entry = &self.entries[at];
        let start = entry.start.wrapping_sub(self.base) as usize;
        let line = &self.text[start..start + entry.length()];
        Some(Judged { line, name_len: entry.name_len as usize, known: entry.known })
    }

    /// Adds an entry, and evicts what has to go. One that is larger than the table empties it, which is no error (RFC 7541 §4.4).
    #[inline]
    pub(crate) fn insert(&mut self, name: &[u8], value: &[u8]) {
        self.insert_judged(name, value, None);
    }

    /// As [`insert`](Self::insert), of a field that has been looked at.
    pub(crate) fn insert_judged(&mut self, name: &[u8], value: &[u8], known: Option<Known>) {
        let cost = name.len() + value.len() + ENTRY_OVERHEAD;
        self.evict(cost);
        if cost > self.size_max {
            return;
        }
        let (name_mark, mark) = marks(name, value);
        self.give_up();
        let needed = self.text.len() + name.len() + COLON.len() + value.len() + LINE_END.len();
        if needed > self.text.capacity() {
            self.text.reserve_exact(needed.next_multiple_of(GROWTH) - self.text.len());
        }
        let start = self.base.wrapping_add(self.text.len() as u32);
        for part in [name, COLON, value, LINE_END] {
            self.text.extend_from_slice(part);
        }
        let chains = self.chains.get_or_insert_default();
        let (named, same) = (&mut chains.named[chain(name_mark)], &mut chains.same[chain(mark)]);
        let number = self.added;
        // One that is not there any more is further back than the table has entries, and is so found out.
        let (older_named, older) = (number.wrapping_sub(*named), number.wrapping_sub(*same));
        (*named, *same, self.added) = (number, number, number.wrapping_add(1));
        let (name_len, value_len) = (name.len() as u16, value.len() as u16);
        self.entries.push_back(Entry { start, name_len, value_len, name_mark, mark, older_named, older, known });
        self.size += cost;
    }

    /// The ages of the newest entry of that name, and of that name and value.
    #[inline]
    pub(crate) fn find(&self, name: &[u8], value: &[u8]) -> (Option<usize>, Option<usize>) {
        (self.find_name(name), self.find_same(name, value))
    }

    /// The age of the newest entry of that name and value.
    #[inline]
    pub(crate) fn find_same(&self, name: &[u8], value: &[u8]) -> Option<usize> {
        let (_, mark) = marks(name, value);
        let same = |entry: &Entry| entry.mark == mark && self.parts(entry) == (name, value);
        self.follow(self.chains.as_ref()?.same[chain(mark)], same, |entry| entry.older)
    }

    /// The age of the newest entry of that name.
    #[inline]
    pub(crate) fn find_name(&self, name: &[u8]) -> Option<usize> {
        let name_mark = short(mix(0, name));
        let same = |entry: &Entry| entry.name_mark == name_mark && self.parts(entry).0 == name;
        self.follow(self.chains.as_ref()?.named[chain(name_mark)], same, |entry| entry.older_named)
    }

    /// The age of the first entry of a chain that is meant. Each step leads further back, so there are as many as entries at most.
    #[inline]
    fn follow(&self, newest: u8, is_meant: impl Fn(&Entry) -> bool, older: impl Fn(&Entry) -> u8) -> Option<usize> {
        let count = self.entries.len();
        let mut age = usize::from(self.added.wrapping_sub(newest).wrapping_sub(1));
        while age < count {
            let entry = &self.entries[count - 1 - age];
            if is_meant(entry) {
                return Some(age);
            }
            match older(entry) {
                0 => return None,
                step => age += usize::from(step),
            }
        }
        None
    }

    /// Gives back memory that the entries do not need.
    pub(crate) fn trim(&mut self) {
        self.drop_evicted();
        self.text.shrink_to_fit();
        self.entries.shrink_to_fit();
        self.chains = self.chains.take().filter(|_| !self.entries.is_empty());
    }

    #[inline]
    fn parts(&self, entry: &Entry) -> (&[u8], &[u8]) {
        let start = entry.start.wrapping_sub(self.base) as usize;
        let line = &self.text[start..start + entry.length()];
        let (name, rest) = line.split_at(entry.name_len as usize);
        (name, &rest[COLON.len()..COLON.len() + entry.value_len as usize])
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
    let named = mix(0, name);
    (short(named), short(mix(named, value)))
}

/// Of a product, its highest bits have something of every bit of both factors: they come where they are looked at.
#[inline]
fn short(mixed: u64) -> u16 {
    (mixed ^ mixed >> 23) as u16
}

#[inline]
fn mix(seed: u64, bytes: &[u8]) -> u64 {
    let step = |state: u64, word: u64| (state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
    let state = seed ^ bytes.len() as u64;
    let (words, _) = bytes.as_chunks::<8>();
    // The last bytes are looked at once more, because that is a word at a time.
    match (bytes.last_chunk::<8>(), bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        (Some(last), _, _) => {
            let state = words.iter().fold(state, |state, word| step(state, u64::from_le_bytes(*word)));
            step(state, u64::from_le_bytes(*last))
        }
        (None, Some(first), Some(last)) => {
            let word = u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last));
            step(state, word)
        }
        _ => step(state, bytes.iter().fold(0, |word, &byte| word << 8 | u64::from(byte))),
    }
}

/// The chain of those with that digest.
#[inline]
fn chain(mark: u16) -> usize {
    mark as usize % DIGESTS
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

    /// Whatever comes and goes, more often than numbers of entries can tell apart, and into the same chains.
    #[test]
    fn what_is_found_is_what_a_look_at_every_entry_finds() {
        let (mut table, mut random) = (Table::new(4096), 1_u64);
        for round in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (name, value) = (format!("n{}", random >> 33 & 7), format!("{}", random >> 40 & 31));
            let (name, value) = (name.as_bytes(), value.as_bytes());
            let all: Vec<_> = (0..table.len()).filter_map(|age| table.get(age)).collect();
            let named = all.iter().position(|entry| entry.0 == name);
            let same = all.iter().position(|entry| *entry == (name, value));
            assert_eq!(table.find(name, value), (named, same), "round {round}");
            if round % 1_000 == 999 {
                table.set_size_max([0, 64, 1_000, 4_096][round / 1_000 % 4]);
            }
            // A full table of the smallest entries there are has 128.
            if round % 3_000 < 200 {
                table.insert(b"", b"")
            } else {
                table.insert(name, value)
            }
            let line = table.line(0).map_or(&b""[..], |judged| judged.line);
            assert!(table.len() <= 128 && (table.len() == 0 || line.ends_with(b"\r\n")));
        }
    }

    /// Numbers and names that differ in one place, whichever, do not all meet in one chain.
    #[test]
    fn digests_tell_similar_texts_apart() {
        for length in 1..30_usize {
            for at in 0..length {
                let mut value = vec![b'1'; length];
                let digests = (b'0'..=b'9').map(|byte| {
                    value[at] = byte;
                    digest(b"name", &value) as u8
                });
                let distinct: std::collections::BTreeSet<u8> = digests.collect();
                assert!(distinct.len() >= 8, "{length} bytes, the one at {at}: {distinct:?}");
            }
        }
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
