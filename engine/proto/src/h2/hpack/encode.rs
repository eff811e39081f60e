//! Field blocks as they are written (RFC 7541 §6).

use super::TABLE_SIZE_DEFAULT;
use super::static_table::{STATIC_LEN, find_static, is_static};
use crate::compression::table::{ENTRY_OVERHEAD, Table, digest};
use crate::compression::{Compress, Indexing, NAME_FOLDED_MAX, SHARE_MAX, in_lower_case, integer, string};

/// Writes one direction's blocks, in the order in which they are sent.
#[derive(Debug, Clone)]
pub struct Encoder {
    table: Table,
    /// The least and the last size since the last block, to be told with the next one (RFC 7541 §4.2).
    resized: Option<(usize, usize)>,
    /// Where the fields of the last blocks were found, by their place: most blocks have the same fields there as the one before.
    hints: [Hint; HINTS],
    /// The place of the next field.
    at: u8,
    /// What has happened to the table.
    changes: u64,
}

/// Where a field was found.
#[derive(Debug, Clone, Copy)]
enum Hint {
    Nowhere,
    /// At a static index.
    Static(u8),
    /// In the entry of that number.
    Entry(u8),
    /// Nowhere, and its value has that digest.
    Said(u8),
}

/// Places that are remembered: those of a head, and behind them those of trailers.
const HINTS: usize = 20;
const HEAD_HINTS: usize = 16;

impl Encoder {
    pub fn new() -> Self {
        Self { table: Table::new(TABLE_SIZE_DEFAULT), resized: None, hints: [Hint::Nowhere; HINTS], at: 0, changes: 0 }
    }

    /// The peer's `SETTINGS_HEADER_TABLE_SIZE`. More than [`TABLE_SIZE_DEFAULT`] is not made use of, whatever the peer would keep: it
    /// would be our memory too.
    pub fn set_table_max(&mut self, size: usize) {
        let size = size.min(TABLE_SIZE_DEFAULT);
        if size != self.table.size_max() {
            let least = self.resized.map_or(size, |(least, _)| least.min(size));
            self.resized = Some((least, size));
            self.changes += 1;
            self.table.set_size_max(size);
        }
    }

    /// Begins a block of trailers.
    #[inline]
    pub fn begin_trailers(&mut self, out: &mut Vec<u8>) {
        self.begin(out);
        self.at = HEAD_HINTS as u8;
    }

    /// Begins a block.
    #[inline]
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        self.at = 0;
        if let Some((least, last)) = self.resized.take() {
            if least < last {
                integer::encode(0x20, 5, least, out);
            }
            integer::encode(0x20, 5, last, out);
        }
    }

    /// Appends one field. The name may be in any case and goes out in lower case (RFC 9113 §8.2).
    #[inline]
    pub fn field(&mut self, name: &[u8], value: &[u8], indexing: Indexing, out: &mut Vec<u8>) {
        let place = usize::from(self.at);
        self.at = self.at.saturating_add(1);
        if indexing != Indexing::Never
            && let Some(index) = self.hints.get(place).and_then(|hint| self.follow(*hint, name, value))
        {
            return integer::encode(0x80, 7, index, out);
        }
        match in_lower_case(name, &mut [0; NAME_FOLDED_MAX]) {
            Some(name) => {
                let again =
                    || matches!(self.hints.get(place), Some(Hint::Said(said)) if *said == digest(name, value) as u8);
                let store = indexing == Indexing::Store || indexing == Indexing::Again && again();
                let found = self.lower_case_field(name, value, indexing, store, out);
                if let Some(hint) = self.hints.get_mut(place) {
                    *hint = found;
                }
            }
            None => {
                out.push(if indexing == Indexing::Never { 0x10 } else { 0x00 });
                string::put(0, 7, name.iter().map(u8::to_ascii_lowercase), name.len(), out);
                string::put(0, 7, value.iter().copied(), value.len(), out);
            }
        }
    }

    /// How often anything has happened to the table: what has been written twice since the last time, becomes the same bytes again.
    pub(in crate::h2) fn changes(&self) -> u64 {
        self.changes
    }

    /// Gives back memory that the table does not need.
    pub fn trim(&mut self) {
        self.table.trim();
    }

    pub fn memory(&self) -> usize {
        self.table.memory()
    }

    /// The index of the entry that a hint means, if it is this field's.
    #[inline]
    fn follow(&self, hint: Hint, name: &[u8], value: &[u8]) -> Option<usize> {
        match hint {
            Hint::Nowhere | Hint::Said(_) => None,
            Hint::Static(index) => is_static(index.into(), name, value).then_some(index.into()),
            Hint::Entry(number) => self.table.is_still(number, name, value).map(behind_static),
        }
    }

    /// Appends one field, which may be kept, if it is to be kept; says where it is to be found now.
    fn lower_case_field(
        &mut self,
        name: &[u8],
        value: &[u8],
        indexing: Indexing,
        store: bool,
        out: &mut Vec<u8>,
    ) -> Hint {
        let (fixed, whole) = find_static(name, value).map_or((None, None), |(first, whole)| (Some(first), whole));
        if indexing != Indexing::Never {
            if let Some(index) = whole {
                integer::encode(0x80, 7, index, out);
                return Hint::Static(index as u8);
            }
            if let Some(age) = self.table.find_same(name, value) {
                integer::encode(0x80, 7, behind_static(age), out);
                return Hint::Entry(self.table.number(age));
            }
        }
        let named = fixed.or_else(|| self.table.find_name(name).map(behind_static));
        let cost = name.len() + value.len() + ENTRY_OVERHEAD;
        let store = store && cost <= self.table.size_max() / SHARE_MAX;
        let (pattern, prefix) = match indexing {
            Indexing::Never => (0x10, 4),
            _ if store => (0x40, 6),
            _ => (0x00, 4),
        };
        integer::encode(pattern, prefix, named.unwrap_or(0), out);
        if named.is_none() {
            string::put(0, 7, name.iter().copied(), name.len(), out);
        }
        string::put(0, 7, value.iter().copied(), value.len(), out);
        if !store {
            return if indexing == Indexing::Again { Hint::Said(digest(name, value) as u8) } else { Hint::Nowhere };
        }
        self.changes += 1;
        self.table.insert(name, value);
        Hint::Entry(self.table.number(0))
    }
}

/// The index of the entry of that age.
#[inline]
fn behind_static(age: usize) -> usize {
    STATIC_LEN + 1 + age
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Compress for Encoder {
    #[inline]
    fn field(&mut self, name: &[u8], value: &[u8], indexing: Indexing, out: &mut Vec<u8>) {
        Self::field(self, name, value, indexing, out);
    }
}
