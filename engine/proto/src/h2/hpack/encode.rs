//! Field blocks as they are written (RFC 7541 §6).

use super::table::{self, ENTRY_OVERHEAD, STATIC_LEN, Table};
use super::{TABLE_SIZE_DEFAULT, huffman, integer};

/// What the next hop's table is to make of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Indexing {
    /// It will probably be sent again.
    Store,
    /// It will not.
    Pass,
    /// It is a secret that compression could betray: nobody on the path may index it (RFC 7541 §7.1.3).
    Never,
}

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
        // All of it is looked at, because that is many bytes at a time.
        if !name.iter().fold(false, |capitals, byte| capitals | byte.is_ascii_uppercase()) {
            return self.lower_case_field(name, value, indexing, out);
        }
        let mut lower = [0; NAME_FOLDED_MAX];
        let Some(folded) = lower.get_mut(..name.len()) else {
            out.push(if indexing == Indexing::Never { 0x10 } else { 0x00 });
            put_string(name.iter().map(u8::to_ascii_lowercase), name.len(), out);
            return put_string(value.iter().copied(), value.len(), out);
        };
        folded.copy_from_slice(name);
        folded.make_ascii_lowercase();
        self.lower_case_field(folded, value, indexing, out);
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
        let (known, whole) =
            table::find_static(name, value).map_or((None, None), |(first, whole)| (Some(first), whole));
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
            put_string(name.iter().copied(), name.len(), out);
        }
        put_string(value.iter().copied(), value.len(), out);
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

/// A name with capitals that is longer than this is not looked for in the tables.
const NAME_FOLDED_MAX: usize = 64;

/// An entry that is larger than one in so many parts of the table would evict more than it saves.
const SHARE_MAX: usize = 4;

/// A string literal (RFC 7541 §5.2), in the shorter of its two forms.
#[inline]
fn put_string(text: impl Iterator<Item = u8> + Clone, length: usize, out: &mut Vec<u8>) {
    let coded = huffman::coded_length(text.clone());
    if coded < length {
        integer::encode(0x80, 7, coded, out);
        huffman::encode(text, out);
    } else {
        integer::encode(0x00, 7, length, out);
        out.extend(text);
    }
}
