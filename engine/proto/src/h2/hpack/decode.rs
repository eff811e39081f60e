//! Field blocks as they are read (RFC 7541 §3.2, §6). What is left of a block that exceeds its limits is read for the table's sake only.

use super::Corrupt;
use super::static_table::{STATIC_LEN, static_line};
use crate::compression::table::Table;
use crate::compression::{Block, Budget, COLON, Fit, Judged, LINE_END, Line, ListLimits, integer, put_judged, string};
use crate::multiplexed::head::field_of;

/// Reads one direction's blocks, in their order.
#[derive(Debug, Clone)]
pub struct Decoder {
    table: Table,
    /// What the table may be set to: our `SETTINGS_HEADER_TABLE_SIZE`.
    allowed: usize,
    /// The peer has agreed to less than its table has, and must say so at the start of its next block (RFC 9113 §4.3.1).
    must_shrink: bool,
    /// What has happened to the table.
    changes: u64,
}

impl Decoder {
    /// The table's size until the peer has read our settings is the default one.
    pub fn new() -> Self {
        let table = Table::new(super::TABLE_SIZE_DEFAULT);
        Self { table, allowed: super::TABLE_SIZE_DEFAULT, must_shrink: false, changes: 0 }
    }

    /// The peer has acknowledged our `SETTINGS_HEADER_TABLE_SIZE`.
    pub fn set_table_max(&mut self, size: usize) {
        self.allowed = size;
        self.must_shrink = self.table.size_max() > size;
        self.changes += 1;
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
        let mut budget = Budget::new(limits);
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

    /// How often anything has happened to what blocks mean: while that stays, the same bytes mean the same.
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
            self.changes += 1;
        }
        if self.must_shrink { Err(Corrupt::SizeUpdate) } else { Ok(rest) }
    }

    #[inline]
    fn read_indexed(&self, rest: &mut &[u8], text: &mut Vec<u8>, budget: &mut Budget) -> Result<Option<Line>, Corrupt> {
        let (index, after) = integer::decode(rest, 7).ok_or(Corrupt::Integer)?;
        *rest = after;
        Ok(put_judged(self.entry(index)?, text, budget))
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
            whole = string::read(rest, 7, text, room)?;
        } else {
            text.extend_from_slice(self.entry(index)?.name());
        }
        let name_len = text.len() - start;
        text.extend_from_slice(COLON);
        let value_start = text.len();
        whole &= string::read(rest, 7, text, room.saturating_sub(name_len))?;
        let value_len = text.len() - value_start;
        text.extend_from_slice(LINE_END);
        if !whole {
            budget.exceed();
            return Ok(None);
        }
        budget.spend(name_len + value_len);
        Ok(Some(Line { start, name_len, value_len, never_indexed: false, known: None }))
    }

    /// Adds a literal to the table; one that was too long to be kept is larger than the table, and empties it.
    fn store(&mut self, line: Option<&Line>, text: &[u8]) {
        self.changes += 1;
        match line {
            Some(line) => {
                let (name, value) = (line.name(text), line.value(text));
                self.table.insert_judged(name, value, field_of(name, value).ok());
            }
            None => {
                let size = self.table.size_max();
                self.table.set_size_max(0);
                self.table.set_size_max(size);
            }
        }
    }

    #[inline]
    fn entry(&self, index: usize) -> Result<Judged<'_>, Corrupt> {
        let entry = if index > STATIC_LEN { self.table.line(index - STATIC_LEN - 1) } else { static_line(index) };
        entry.ok_or(Corrupt::Index)
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

/// A block, and who reads it.
pub(in crate::h2) struct Encoded<'a> {
    pub(in crate::h2) decoder: &'a mut Decoder,
    pub(in crate::h2) bytes: &'a [u8],
}

impl Block for Encoded<'_> {
    fn read(
        self,
        limits: &ListLimits,
        text: &mut Vec<u8>,
        take: impl FnMut(&mut Vec<u8>, Line),
    ) -> Result<Fit, Corrupt> {
        self.decoder.decode(self.bytes, limits, text, take)
    }
}
