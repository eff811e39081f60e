//! Field blocks as they are read (RFC 7541 §3.2, §6).
//!
//! Fields come out as lines, `name: value` and CRLF, laid one behind the other in the caller's text: what HTTP/1 would have sent, so that
//! everything that works on a head's bytes works on these. Two bounds hold while a block is read and not after: no field is written
//! that exceeds the list's limit, so one byte on the wire cannot become a kilobyte of memory more often than the limit allows
//! (CVE-2026-49975), and what is left of such a block is read for the table's sake only.

use super::huffman::{self, Decoded};
use super::table::{self, ENTRY_OVERHEAD, STATIC_LEN, Table};
use super::{Corrupt, integer};

/// How much one block may come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListLimits {
    /// Names, values and 32 bytes a field (RFC 9113 §6.5.2, `SETTINGS_MAX_HEADER_LIST_SIZE`).
    pub bytes: usize,
    /// Fields, crumbs of cookies and repeated names counted each.
    pub fields: usize,
}

/// Where a field lies in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    pub start: usize,
    pub name_len: usize,
    pub value_len: usize,
    /// Must be coded so again on the next hop (RFC 7541 §6.2.3).
    pub never_indexed: bool,
}

impl Line {
    pub fn name<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        &text[self.start..self.start + self.name_len]
    }

    pub fn value<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        &text[self.value_start()..self.value_start() + self.value_len]
    }

    pub fn value_start(&self) -> usize {
        self.start + self.name_len + COLON.len()
    }
}

/// Whether a block kept to its limits. One that did not has been read to its end, and the table is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    Whole,
    TooLong,
    TooManyFields,
}

/// Reads one direction's blocks, in their order.
#[derive(Debug, Clone)]
pub struct Decoder {
    table: Table,
    /// What the table may be set to: our `SETTINGS_HEADER_TABLE_SIZE`.
    allowed: usize,
    /// The peer has agreed to less than its table has, and must say so at the start of its next block (RFC 9113 §4.3.1).
    must_shrink: bool,
}

impl Decoder {
    /// The table's size until the peer has read our settings is the default one.
    pub fn new() -> Self {
        let table = Table::new(super::TABLE_SIZE_DEFAULT);
        Self { table, allowed: super::TABLE_SIZE_DEFAULT, must_shrink: false }
    }

    /// The peer has acknowledged our `SETTINGS_HEADER_TABLE_SIZE`.
    pub fn set_table_max(&mut self, size: usize) {
        self.allowed = size;
        self.must_shrink = self.table.size_max() > size;
    }

    /// Reads one whole block. Each field's line is appended to `text` and told to `take`, which may change or remove it.
    ///
    /// # Errors
    /// The block is corrupt, and so is every one that follows: the connection ends with `COMPRESSION_ERROR`.
    pub fn decode(
        &mut self,
        block: &[u8],
        limits: &ListLimits,
        text: &mut Vec<u8>,
        mut take: impl FnMut(&mut Vec<u8>, Line),
    ) -> Result<Fit, Corrupt> {
        let mut budget = Budget { bytes: limits.bytes, fields: limits.fields, fit: Fit::Whole };
        let mut rest = self.read_updates(block)?;
        while let Some(&first) = rest.first() {
            let start = text.len();
            let line = match first {
                0x80.. => self.read_indexed(&mut rest, text, &mut budget)?,
                0x40..0x80 => {
                    let line = self.read_literal(&mut rest, 6, text, &mut budget)?;
                    self.store(line.as_ref(), text);
                    line
                }
                0x20..0x40 => return Err(Corrupt::SizeUpdate),
                _ => self.read_literal(&mut rest, 4, text, &mut budget)?,
            };
            match line {
                Some(line) if budget.fit == Fit::Whole => {
                    take(text, Line { never_indexed: first & 0xf0 == 0x10, ..line });
                }
                _ => text.truncate(start),
            }
        }
        Ok(budget.fit)
    }

    /// Gives back memory that the table does not need.
    pub fn trim(&mut self) {
        self.table.trim();
    }

    pub fn memory(&self) -> usize {
        self.table.memory()
    }

    /// Size updates stand at the start of a block (RFC 7541 §4.2). There are two at most: the least size since the last block, and
    /// the present one.
    fn read_updates<'a>(&mut self, mut rest: &'a [u8]) -> Result<&'a [u8], Corrupt> {
        let mut updates = 0;
        while let Some(0x20..0x40) = rest.first() {
            let (size, after) = integer::decode(rest, 5).ok_or(Corrupt::Integer)?;
            rest = after;
            updates += 1;
            if size > self.allowed || updates > 2 {
                return Err(Corrupt::SizeUpdate);
            }
            self.table.set_size_max(size);
            self.must_shrink = false;
        }
        if self.must_shrink { Err(Corrupt::SizeUpdate) } else { Ok(rest) }
    }

    #[inline]
    fn read_indexed(&self, rest: &mut &[u8], text: &mut Vec<u8>, budget: &mut Budget) -> Result<Option<Line>, Corrupt> {
        let (index, after) = integer::decode(rest, 7).ok_or(Corrupt::Integer)?;
        *rest = after;
        let (name, value) = self.entry(index)?;
        if !budget.spend(name.len() + value.len()) {
            return Ok(None);
        }
        let start = text.len();
        text.extend_from_slice(name);
        text.extend_from_slice(COLON);
        text.extend_from_slice(value);
        text.extend_from_slice(LINE_END);
        Ok(Some(Line { start, name_len: name.len(), value_len: value.len(), never_indexed: false }))
    }

    /// `None` if the field is longer than the budget and the table: it was passed over.
    #[inline]
    fn read_literal(
        &self,
        rest: &mut &[u8],
        prefix: u32,
        text: &mut Vec<u8>,
        budget: &mut Budget,
    ) -> Result<Option<Line>, Corrupt> {
        let start = text.len();
        let room = budget.room().max(if prefix == 6 { self.table.size_max() } else { 0 });
        let (index, after) = integer::decode(rest, prefix).ok_or(Corrupt::Integer)?;
        *rest = after;
        let mut whole = true;
        if index == 0 {
            whole = read_string(rest, text, room)?;
        } else {
            text.extend_from_slice(self.entry(index)?.0);
        }
        let name_len = text.len() - start;
        text.extend_from_slice(COLON);
        let value_start = text.len();
        whole &= read_string(rest, text, room.saturating_sub(name_len))?;
        let value_len = text.len() - value_start;
        text.extend_from_slice(LINE_END);
        if !whole {
            budget.exceed();
            return Ok(None);
        }
        budget.spend(name_len + value_len);
        Ok(Some(Line { start, name_len, value_len, never_indexed: false }))
    }

    /// Adds a literal to the table; one that was too long to be kept is larger than the table, and empties it.
    fn store(&mut self, line: Option<&Line>, text: &[u8]) {
        match line {
            Some(line) => self.table.insert(line.name(text), line.value(text)),
            None => {
                let size = self.table.size_max();
                self.table.set_size_max(0);
                self.table.set_size_max(size);
            }
        }
    }

    #[inline]
    fn entry(&self, index: usize) -> Result<(&[u8], &[u8]), Corrupt> {
        let entry =
            if index > STATIC_LEN { self.table.get(index - STATIC_LEN - 1) } else { table::static_entry(index) };
        entry.ok_or(Corrupt::Index)
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

/// What is left of the limits.
struct Budget {
    bytes: usize,
    fields: usize,
    fit: Fit,
}

impl Budget {
    /// Pays for a field of that many bytes of text, or says that it is too much.
    #[inline]
    fn spend(&mut self, text: usize) -> bool {
        if self.fit != Fit::Whole {
            return false;
        }
        if self.fields == 0 {
            self.fit = Fit::TooManyFields;
            return false;
        }
        match self.bytes.checked_sub(text + ENTRY_OVERHEAD) {
            Some(left) => (self.bytes, self.fields) = (left, self.fields - 1),
            None => self.fit = Fit::TooLong,
        }
        self.fit == Fit::Whole
    }

    fn exceed(&mut self) {
        if self.fit == Fit::Whole {
            self.fit = if self.fields == 0 { Fit::TooManyFields } else { Fit::TooLong };
        }
    }

    /// Bytes of text that the next field may have.
    #[inline]
    fn room(&self) -> usize {
        if self.fit == Fit::Whole && self.fields > 0 { self.bytes.saturating_sub(ENTRY_OVERHEAD) } else { 0 }
    }
}

/// A string literal (RFC 7541 §5.2). False, and nothing appended, if it has more than `room` bytes.
#[inline]
fn read_string(rest: &mut &[u8], text: &mut Vec<u8>, room: usize) -> Result<bool, Corrupt> {
    let coded = rest.first().is_some_and(|first| first & 0x80 != 0);
    let (length, after) = integer::decode(rest, 7).ok_or(Corrupt::Integer)?;
    let (string, after) = after.split_at_checked(length).ok_or(Corrupt::Truncated)?;
    *rest = after;
    let start = text.len();
    if !coded {
        if length <= room {
            text.extend_from_slice(string);
        }
        return Ok(length <= room);
    }
    match huffman::decode(string, text, room) {
        Decoded::Whole => Ok(true),
        Decoded::TooLong => {
            text.truncate(start);
            Ok(false)
        }
        Decoded::Invalid => Err(Corrupt::Huffman),
    }
}

const COLON: &[u8] = b": ";
const LINE_END: &[u8] = b"\r\n";
