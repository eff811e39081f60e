//! What the peer's encoder says: instructions that change the table (RFC 9204 §4.3), and sections that refer to it (§4.5).

use super::static_table::static_entry;
use crate::compression::table::{ENTRY_OVERHEAD, Table};
use crate::compression::{
    Block, Budget, COLON, Corrupt, Fit, LINE_END, Line, ListLimits, TABLE_SIZE_MAX, integer, put_entry, string,
};
use crate::h3::frame::INTEGER_MAX;

/// Reads what one peer compresses.
#[derive(Debug, Clone)]
pub struct Decoder {
    table: Table,
    /// Our `SETTINGS_QPACK_MAX_TABLE_CAPACITY`.
    allowed: usize,
    /// Entries that there ever were.
    inserted: u64,
    /// Of those, the ones that the peer knows of our having.
    acknowledged: u64,
    /// How often the table's size was set.
    resized: u64,
}

/// A field section, whole, whose references have arrived.
pub struct Section<'a> {
    decoder: &'a Decoder,
    required: u64,
    base: u64,
    lines: &'a [u8],
}

impl Decoder {
    /// `table_max` is the table's size at most, in bytes as §3.2.1 counts; above 4096 it is that. The peer begins with none of it (§3.2.3).
    pub fn new(table_max: usize) -> Self {
        Self { table: Table::new(0), allowed: table_max.min(TABLE_SIZE_MAX), inserted: 0, acknowledged: 0, resized: 0 }
    }

    /// Entries that there ever were.
    pub fn inserted(&self) -> u64 {
        self.inserted
    }

    /// How often anything has happened to what sections mean: while that stays, the same bytes mean the same.
    pub(in crate::h3) fn changes(&self) -> u64 {
        self.inserted + self.resized
    }

    /// Takes the instruction at the start of the encoder stream's bytes. Returns how many bytes it has; `None` if it is not all there, which
    /// is less than four times the table and a few. `space` is room for text, whose content is lost.
    ///
    /// # Errors
    /// It cannot be followed: the connection ends with `QPACK_ENCODER_STREAM_ERROR`.
    pub fn instruct(&mut self, bytes: &[u8], space: &mut Vec<u8>) -> Result<Option<usize>, Corrupt> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        space.clear();
        let rest = match first {
            0x80.. => {
                let Some((index, rest)) = number(bytes, 6)? else { return Ok(None) };
                let name = if first & 0x40 != 0 {
                    static_entry(index).map(|entry| entry.0)
                } else {
                    self.relative_name(index)
                };
                space.extend_from_slice(name.ok_or(Corrupt::Index)?);
                let name_len = space.len();
                let Some(rest) = self.take_string(rest, 7, space)? else { return Ok(None) };
                self.insert(space, name_len)?;
                rest
            }
            0x40..0x80 => {
                let Some(rest) = self.take_string(bytes, 5, space)? else { return Ok(None) };
                let name_len = space.len();
                let Some(rest) = self.take_string(rest, 7, space)? else { return Ok(None) };
                self.insert(space, name_len)?;
                rest
            }
            0x20..0x40 => {
                let Some((size, rest)) = number(bytes, 5)? else { return Ok(None) };
                if size > self.allowed {
                    return Err(Corrupt::SizeUpdate);
                }
                self.table.set_size_max(size);
                self.resized += 1;
                rest
            }
            _ => {
                let Some((index, rest)) = number(bytes, 5)? else { return Ok(None) };
                let (name, value) = self.table.get(index).ok_or(Corrupt::Index)?;
                space.extend_from_slice(name);
                space.extend_from_slice(value);
                let name_len = name.len();
                self.insert(space, name_len)?;
                rest
            }
        };
        Ok(Some(bytes.len() - rest.len()))
    }

    /// Entries that a section needs which there were not yet, if it needs any more than there are: `Err` with their number. `Ok` if it can
    /// be read now.
    ///
    /// # Errors
    /// The section is corrupt: the connection ends with `QPACK_DECOMPRESSION_FAILED`.
    pub fn section<'a>(&'a self, bytes: &'a [u8]) -> Result<Result<Section<'a>, u64>, Corrupt> {
        let integer::Read::Whole(coded, rest) = integer::read(bytes, 8, INTEGER_MAX) else {
            return Err(Corrupt::Integer);
        };
        let required = self.required(coded)?;
        let below = rest.first().is_some_and(|first| first & 0x80 != 0);
        let integer::Read::Whole(delta, lines) = integer::read(rest, 7, INTEGER_MAX) else {
            return Err(Corrupt::Integer);
        };
        let base = if below { required.checked_sub(delta + 1) } else { required.checked_add(delta) };
        let base = base.ok_or(Corrupt::Prefix)?;
        Ok(if required > self.inserted { Err(required) } else { Ok(Section { decoder: self, required, base, lines }) })
    }

    /// Tells that a section has been read (§4.4.1), if it referred to anything that arrives.
    pub fn acknowledge(&mut self, stream: u64, required: u64, out: &mut Vec<u8>) {
        if required > 0 {
            integer::encode(0x80, 7, stream as usize, out);
            self.acknowledged = self.acknowledged.max(required);
        }
    }

    /// Tells that the sections of a stream will not be read (§2.2.2.2), unless there is nothing that they could refer to.
    pub fn cancel(&self, stream: u64, out: &mut Vec<u8>) {
        if self.allowed > 0 {
            integer::encode(0x40, 6, stream as usize, out);
        }
    }

    /// Tells of entries that have arrived (§4.4.3), if the peer does not know.
    pub fn tell_inserted(&mut self, out: &mut Vec<u8>) {
        let more = self.inserted - self.acknowledged;
        if more > 0 {
            integer::encode(0x00, 6, more as usize, out);
            self.acknowledged = self.inserted;
        }
    }

    /// Gives back memory that the table does not need.
    pub fn trim(&mut self) {
        self.table.trim();
    }

    pub fn memory(&self) -> usize {
        self.table.memory()
    }

    /// The name of the entry that is so many before the newest.
    fn relative_name(&self, age: usize) -> Option<&[u8]> {
        self.table.get(age).map(|entry| entry.0)
    }

    /// Appends a string of an instruction; returns what follows it, or `None` if it is not all there.
    fn take_string<'a>(&self, bytes: &'a [u8], prefix: u32, space: &mut Vec<u8>) -> Result<Option<&'a [u8]>, Corrupt> {
        let Some((length, rest)) = number(bytes, prefix)? else { return Ok(None) };
        // What does not fit into the table is refused before it has arrived.
        if length > CODED_RATIO_MAX * self.table.size_max() {
            return Err(Corrupt::SizeUpdate);
        }
        if rest.len() < length {
            return Ok(None);
        }
        let mut rest = bytes;
        let whole = string::read(&mut rest, prefix, space, self.table.size_max())?;
        if whole { Ok(Some(rest)) } else { Err(Corrupt::SizeUpdate) }
    }

    /// An entry that is larger than the table is an error (§3.2.2).
    fn insert(&mut self, text: &[u8], name_len: usize) -> Result<(), Corrupt> {
        if text.len() + ENTRY_OVERHEAD > self.table.size_max() {
            return Err(Corrupt::SizeUpdate);
        }
        let (name, value) = text.split_at(name_len);
        self.table.insert(name, value);
        self.inserted += 1;
        Ok(())
    }

    /// §4.5.1.1: the count is told modulo twice the entries that the table can have.
    fn required(&self, coded: u64) -> Result<u64, Corrupt> {
        if coded == 0 {
            return Ok(0);
        }
        let entries_max = (self.allowed / ENTRY_OVERHEAD) as u64;
        let full = 2 * entries_max;
        if coded > full {
            return Err(Corrupt::Prefix);
        }
        let most = self.inserted + entries_max;
        let required = most / full * full + coded - 1;
        let required = if required > most { required.checked_sub(full) } else { Some(required) };
        required.filter(|&required| required > 0).ok_or(Corrupt::Prefix)
    }
}

impl Section<'_> {
    /// Entries that there must have been: what [`Decoder::acknowledge`] wants to know.
    pub fn required(&self) -> u64 {
        self.required
    }

    /// Reads it. Each field's line is appended to `text` and told to `take`, which may change or remove it. One that exceeds its limits is
    /// not read to its end: nothing depends on it.
    ///
    /// # Errors
    /// As [`Decoder::section`].
    pub fn decode(
        self,
        limits: &ListLimits,
        text: &mut Vec<u8>,
        mut take: impl FnMut(&mut Vec<u8>, Line),
    ) -> Result<Fit, Corrupt> {
        let mut budget = Budget::new(limits);
        let mut rest = self.lines;
        while let Some(&first) = rest.first() {
            let start = text.len();
            let line = match first {
                0x80.. => {
                    let index = index(&mut rest, 6)?;
                    put_entry(self.entry(first & 0x40 != 0, index)?, text, &mut budget)
                }
                0x40..0x80 => {
                    let index = index(&mut rest, 4)?;
                    text.extend_from_slice(self.entry(first & 0x10 != 0, index)?.0);
                    self.take_value(&mut rest, text, start, &mut budget)?
                }
                0x20..0x40 => match string::read(&mut rest, 3, text, budget.room())? {
                    true => self.take_value(&mut rest, text, start, &mut budget)?,
                    false => None,
                },
                0x10..0x20 => {
                    let index = index(&mut rest, 4)?;
                    put_entry(self.post_base(index)?, text, &mut budget)
                }
                _ => {
                    let index = index(&mut rest, 3)?;
                    text.extend_from_slice(self.post_base(index)?.0);
                    self.take_value(&mut rest, text, start, &mut budget)?
                }
            };
            let never = match first {
                0x40..0x80 => 0x20,
                0x20..0x40 => 0x10,
                0x00..0x10 => 0x08,
                _ => 0,
            };
            let Some(line) = line else {
                budget.exceed();
                text.truncate(start);
                break;
            };
            take(text, Line { never_indexed: first & never != 0, ..line });
        }
        Ok(budget.fit)
    }

    /// The value of a literal whose name stands in `text` from `start` on; `None` if the field exceeds the budget.
    #[inline]
    fn take_value(
        &self,
        rest: &mut &[u8],
        text: &mut Vec<u8>,
        start: usize,
        budget: &mut Budget,
    ) -> Result<Option<Line>, Corrupt> {
        let name_len = text.len() - start;
        text.extend_from_slice(COLON);
        let value_start = text.len();
        let whole = string::read(rest, 7, text, budget.room().saturating_sub(name_len))?;
        let value_len = text.len() - value_start;
        text.extend_from_slice(LINE_END);
        if !whole || !budget.spend(name_len + value_len) {
            return Ok(None);
        }
        Ok(Some(Line { start, name_len, value_len, never_indexed: false, known: None }))
    }

    #[inline]
    fn entry(&self, fixed: bool, index: usize) -> Result<(&[u8], &[u8]), Corrupt> {
        if fixed {
            return static_entry(index).ok_or(Corrupt::Index);
        }
        self.absolute(self.base.checked_sub(index as u64 + 1))
    }

    fn post_base(&self, index: usize) -> Result<(&[u8], &[u8]), Corrupt> {
        self.absolute(self.base.checked_add(index as u64))
    }

    /// The entry before which there were so many. What the section did not say that it needs is not there for it (§2.2.1).
    #[inline]
    fn absolute(&self, place: Option<u64>) -> Result<(&[u8], &[u8]), Corrupt> {
        let place = place.filter(|&place| place < self.required).ok_or(Corrupt::Index)?;
        let age = self.decoder.inserted - 1 - place;
        self.decoder.table.get(age as usize).ok_or(Corrupt::Index)
    }
}

impl Block for Section<'_> {
    fn read(
        self,
        limits: &ListLimits,
        text: &mut Vec<u8>,
        take: impl FnMut(&mut Vec<u8>, Line),
    ) -> Result<Fit, Corrupt> {
        self.decode(limits, text, take)
    }
}

/// A coded string may be so many times as long as its text: 30 bits a byte.
const CODED_RATIO_MAX: usize = 4;

/// An integer of an instruction, and what follows it; `None` if it is cut off.
fn number(bytes: &[u8], prefix: u32) -> Result<Option<(usize, &[u8])>, Corrupt> {
    match integer::read(bytes, prefix, integer::INTEGER_MAX as u64) {
        integer::Read::Whole(value, rest) => Ok(Some((value as usize, rest))),
        integer::Read::Partial => Ok(None),
        integer::Read::TooLarge => Err(Corrupt::Integer),
    }
}

#[inline]
fn index(rest: &mut &[u8], prefix: u32) -> Result<usize, Corrupt> {
    let (index, after) = integer::decode(rest, prefix).ok_or(Corrupt::Integer)?;
    *rest = after;
    Ok(index)
}
