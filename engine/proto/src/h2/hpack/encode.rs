//! Field blocks as they are written (RFC 7541 §6).

use super::TABLE_SIZE_DEFAULT;
use super::static_table::{STATIC_LEN, find_static};
use crate::compression::table::{ENTRY_OVERHEAD, Table};
use crate::compression::{Compress, Indexing, NAME_FOLDED_MAX, SHARE_MAX, in_lower_case, integer, string};

/// Writes one direction's blocks, in the order in which they are sent.
#[derive(Debug, Clone)]
pub struct Encoder {
    table: Table,
    /// The least and the last size since the last block, to be told with the next one (RFC 7541 §4.2).
    resized: Option<(usize, usize)>,
}

impl Encoder {
    pub fn new() -> Self {
        Self { table: Table::new(TABLE_SIZE_DEFAULT), resized: None }
    }

    /// The peer's `SETTINGS_HEADER_TABLE_SIZE`. More than [`TABLE_SIZE_DEFAULT`] is not made use of, whatever the peer would keep: it
    /// would be our memory too.
    pub fn set_table_max(&mut self, size: usize) {
        let size = size.min(TABLE_SIZE_DEFAULT);
        if size != self.table.size_max() {
            let least = self.resized.map_or(size, |(least, _)| least.min(size));
            self.resized = Some((least, size));
            self.table.set_size_max(size);
        }
    }

    /// Begins a block.
    #[inline]
    pub fn begin(&mut self, out: &mut Vec<u8>) {
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
        match in_lower_case(name, &mut [0; NAME_FOLDED_MAX]) {
            Some(name) => self.lower_case_field(name, value, indexing, out),
            None => {
                out.push(if indexing == Indexing::Never { 0x10 } else { 0x00 });
                string::put(0, 7, name.iter().map(u8::to_ascii_lowercase), name.len(), out);
                string::put(0, 7, value.iter().copied(), value.len(), out);
            }
        }
    }

    /// Gives back memory that the table does not need.
    pub fn trim(&mut self) {
        self.table.trim();
    }

    pub fn memory(&self) -> usize {
        self.table.memory()
    }

    #[inline]
    fn lower_case_field(&mut self, name: &[u8], value: &[u8], indexing: Indexing, out: &mut Vec<u8>) {
        let (known, whole) = find_static(name, value).map_or((None, None), |(first, whole)| (Some(first), whole));
        let (mut named, mut same) = (known, whole);
        if same.is_none() && self.table.len() > 0 {
            let (name_age, age) = self.table.find(name, value);
            named = named.or(name_age.map(|age| age + STATIC_LEN + 1));
            same = age.map(|age| age + STATIC_LEN + 1);
        }
        if let Some(index) = same
            && indexing != Indexing::Never
        {
            return integer::encode(0x80, 7, index, out);
        }
        let cost = name.len() + value.len() + ENTRY_OVERHEAD;
        let store = indexing == Indexing::Store && cost <= self.table.size_max() / SHARE_MAX;
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
        if store {
            self.table.insert(name, value);
        }
    }
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
