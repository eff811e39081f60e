//! The two tables that an index may mean (RFC 7541 §2.3): the static one, and one that grows with the connection.
//!
//! The dynamic table keeps its text in one run of bytes, newest last, so that an entry is a slice of it. Nothing is allocated before
//! the first entry, and what was evicted is given up a kilobyte at a time.

use std::collections::VecDeque;

/// What an entry costs beside its text (RFC 7541 §4.1).
pub(super) const ENTRY_OVERHEAD: usize = 32;

/// Entries of the static table; the dynamic one begins behind them.
pub(super) const STATIC_LEN: usize = STATIC.len();

/// The static entry of that index, from 1.
#[inline]
pub(super) fn static_entry(index: usize) -> Option<(&'static [u8], &'static [u8])> {
    STATIC.get(index.wrapping_sub(1)).copied()
}

/// The first static index of a name in lower case, and of that name with that value if there is one.
#[inline]
pub(super) fn find_static(name: &[u8], value: &[u8]) -> Option<(usize, Option<usize>)> {
    let first = name_index(name)?;
    let same = STATIC[first - 1..].iter().take_while(|(other, _)| *other == name);
    // An empty value in the table means that the entry is for its name, unless that is the value.
    let whole = same.enumerate().find(|(_, (_, other))| *other == value).map(|(at, _)| first + at);
    Some((first, whole))
}

/// The first static index of a name in lower case.
#[inline]
pub(super) fn name_index(name: &[u8]) -> Option<usize> {
    if name.is_empty() {
        return None;
    }
    let candidate = BY_NAME[slot(name)] as usize;
    (candidate != 0 && STATIC[candidate - 1].0 == name).then_some(candidate)
}

/// The table that both ends of a direction keep alike.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
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

impl Table {
    pub(super) fn new(size_max: usize) -> Self {
        Self { size_max, ..Self::default() }
    }

    pub(super) fn size_max(&self) -> usize {
        self.size_max
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of memory that it holds.
    pub(super) fn memory(&self) -> usize {
        self.text.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    /// Changes the bound, and evicts what exceeds it (RFC 7541 §4.3).
    pub(super) fn set_size_max(&mut self, size_max: usize) {
        self.size_max = size_max;
        self.evict(0);
    }

    /// The entry of that age; 0 is the newest.
    #[inline]
    pub(super) fn get(&self, age: usize) -> Option<(&[u8], &[u8])> {
        let at = self.entries.len().checked_sub(age + 1)?;
        Some(self.parts(&self.entries[at]))
    }

    /// Adds an entry, and evicts what has to go. One that is larger than the table empties it, which is no error (RFC 7541 §4.4).
    #[inline]
    pub(super) fn insert(&mut self, name: &[u8], value: &[u8]) {
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
    pub(super) fn find(&self, name: &[u8], value: &[u8]) -> (Option<usize>, Option<usize>) {
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
    pub(super) fn trim(&mut self) {
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
            self.size -= entry.name_len as usize + entry.value_len as usize + ENTRY_OVERHEAD;
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

/// Perfect over the names of `STATIC`, with multipliers found by search.
#[inline]
const fn slot(name: &[u8]) -> usize {
    let len = name.len();
    (len * 143 + name[len - 1] as usize * 215 + name[len * 2 / 3] as usize * 235 + name[len / 3] as usize) % 256
}

const BY_NAME: [u8; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    let mut distinct = 0;
    while at < STATIC.len() {
        let slot = slot(STATIC[at].0);
        // Entries of one name follow each other.
        if table[slot] == 0 {
            table[slot] = at as u8 + 1;
            distinct += 1;
        }
        at += 1;
    }
    assert!(distinct == 52, "two names share a slot: search for other multipliers");
    table
};

/// RFC 7541 Appendix A.
#[rustfmt::skip]
const STATIC: [(&[u8], &[u8]); 61] = [
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_static_entry_is_found() {
        for index in 1..=STATIC_LEN {
            let (name, value) = static_entry(index).unwrap();
            assert_eq!(find_static(name, value).and_then(|(_, whole)| whole), Some(index));
            assert_eq!(static_entry(name_index(name).unwrap()).unwrap().0, name);
        }
        assert_eq!((static_entry(0), static_entry(STATIC_LEN + 1)), (None, None));
        assert_eq!(find_static(b":method", b"PUT"), Some((2, None)));
        for unknown in [&b""[..], b"x", b":pathx", b"Accept", b"content_length"] {
            assert_eq!(find_static(unknown, b""), None);
        }
    }

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
