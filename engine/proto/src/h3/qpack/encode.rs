//! Sections as they are written (RFC 9204 §4.5), the instructions that go with them (§4.3), and what the peer's decoder says of both
//! (§4.4).

use super::static_table::find_static;
use crate::compression::table::{ENTRY_OVERHEAD, Table, digest};
use crate::compression::{
    Compress, Indexing, NAME_FOLDED_MAX, SHARE_MAX, TABLE_SIZE_MAX, in_lower_case, integer, string,
};
use crate::h3::frame::INTEGER_MAX;

/// Writes what one peer reads.
#[derive(Debug, Clone)]
pub struct Encoder {
    table: Table,
    /// Entries that the peer's table can have, by its setting: the modulus of what sections tell.
    entries_max: u64,
    /// Entries that there ever were.
    inserted: u64,
    /// Of those, the ones that the peer certainly has: its Known Received Count.
    known: u64,
    /// Sections that refer to entries and are not acknowledged, in their order.
    open: Vec<Open>,
    /// How often anything has happened that may make the same fields other lines.
    changes: u64,
    /// Digests of fields that were said lately: an entry is made for what is said again.
    said: [u32; SAID_MAX],
}

#[derive(Debug, Clone, Copy)]
struct Open {
    stream: u64,
    /// The number of entries that must have arrived.
    required: u64,
    /// The oldest that it refers to.
    least: u64,
}

/// Sections that may be unacknowledged; further ones refer to nothing that arrives.
const OPEN_MAX: usize = 128;

/// Fields of which it is remembered that they were said: those of a few heads.
const SAID_MAX: usize = 64;

impl Encoder {
    /// Until the peer has said what it keeps, it keeps nothing (RFC 9204 §5).
    pub fn new() -> Self {
        Self {
            table: Table::new(0),
            entries_max: 0,
            inserted: 0,
            known: 0,
            open: Vec::new(),
            changes: 0,
            said: [0; SAID_MAX],
        }
    }

    /// The peer's `SETTINGS_QPACK_MAX_TABLE_CAPACITY`, once. More than 4096 bytes are not made use of: they would be our memory too.
    pub fn set_table_max(&mut self, size: u64, instructions: &mut Vec<u8>) {
        self.entries_max = size.min(INTEGER_MAX) / ENTRY_OVERHEAD as u64;
        let size = usize::try_from(size).unwrap_or(usize::MAX).min(TABLE_SIZE_MAX);
        // Less than an entry is not worth a word.
        if size > ENTRY_OVERHEAD {
            integer::encode(0x20, 5, size, instructions);
            self.table.set_size_max(size);
            self.changes += 1;
        }
    }

    /// How often anything has happened that may make the same fields other lines: what has been written twice since the last time becomes the same
    /// lines again. `None` while so much is unacknowledged that sections refer to nothing.
    pub(in crate::h3) fn changes(&self) -> Option<u64> {
        (self.open.len() < OPEN_MAX).then_some(self.changes)
    }

    /// A section is said again on that stream that refers to these, since which nothing has [changed](Self::changes).
    pub(in crate::h3) fn refer_again(&mut self, stream: u64, references: References) {
        self.open.extend(references.open(stream));
    }

    /// Begins a section on that stream. What it has to say to the table is appended to `instructions`.
    #[inline]
    pub fn section<'a>(&'a mut self, stream: u64, instructions: &'a mut Vec<u8>) -> Writer<'a> {
        let base = if self.open.len() < OPEN_MAX { self.known } else { 0 };
        Writer { encoder: self, instructions, stream, base, references: References::NONE }
    }

    /// Takes the instruction at the start of the decoder stream's bytes. Returns how many bytes it has; `None` if it is not all there, which
    /// is less than ten.
    ///
    /// # Errors
    /// It speaks of what never was: the connection ends with `QPACK_DECODER_STREAM_ERROR`.
    pub fn hear(&mut self, bytes: &[u8]) -> Result<Option<usize>, &'static str> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        let (value, rest) = match integer::read(bytes, if first & 0x80 != 0 { 7 } else { 6 }, INTEGER_MAX) {
            integer::Read::Whole(value, rest) => (value, rest),
            integer::Read::Partial => return Ok(None),
            integer::Read::TooLarge => return Err("an integer is too large (RFC 9204 4.1.1)"),
        };
        match first {
            0x80.. => {
                let at = self.open.iter().position(|open| open.stream == value);
                let at = at.ok_or("an acknowledgment of no section (RFC 9204 4.4.1)")?;
                self.learn(self.open[at].required);
                self.open.remove(at);
            }
            0x40..0x80 => self.open.retain(|open| open.stream != value),
            _ => {
                let known = self.known.checked_add(value).filter(|&known| value > 0 && known <= self.inserted);
                self.learn(known.ok_or("an increment that cannot be (RFC 9204 4.4.3)")?);
            }
        }
        Ok(Some(bytes.len() - rest.len()))
    }

    /// The peer has so many entries.
    fn learn(&mut self, known: u64) {
        if known > self.known {
            self.known = known;
            self.changes += 1;
        }
    }

    /// Gives back memory that is not needed.
    pub fn trim(&mut self) {
        self.table.trim();
        self.open.shrink_to_fit();
    }

    pub fn memory(&self) -> usize {
        self.table.memory() + self.open.capacity() * size_of::<Open>()
    }

    /// The place of the entry of that age.
    fn place(&self, age: usize) -> u64 {
        self.inserted - 1 - age as u64
    }

    /// Whether an entry of that text finds room without anything being given up that somebody may refer to (§2.1.1). `least` is the
    /// oldest that is being referred to at the moment.
    fn can_insert(&mut self, text: usize, least: u64) -> bool {
        if text + ENTRY_OVERHEAD > self.table.size_max() / SHARE_MAX {
            return false;
        }
        let Some(evicted) = self.table.evictions(text) else { return false };
        if evicted == 0 {
            return true;
        }
        let oldest_left = self.inserted - self.table.len() as u64 + evicted as u64;
        if oldest_left > self.known.min(least) {
            return false;
        }
        let needed = self.open.iter().map(|open| open.least).min().unwrap_or(u64::MAX);
        // What is needed now may not be the next time, with nothing else having happened.
        self.changes += u64::from(oldest_left > needed);
        oldest_left <= needed
    }

    /// Whether the field was said before, lately.
    fn is_said_again(&mut self, name: &[u8], value: &[u8]) -> bool {
        let digest = digest(name, value);
        let said = &mut self.said[digest as usize % SAID_MAX];
        std::mem::replace(said, digest) == digest
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

/// A section while it is written.
pub struct Writer<'a> {
    encoder: &'a mut Encoder,
    instructions: &'a mut Vec<u8>,
    stream: u64,
    /// Entries before this may be referred to.
    base: u64,
    references: References,
}

/// What a section refers to.
#[derive(Debug, Clone, Copy)]
pub(in crate::h3) struct References {
    required: u64,
    least: u64,
}

impl References {
    const NONE: Self = Self { required: 0, least: u64::MAX };

    /// What is to be acknowledged of a section with these.
    fn open(self, stream: u64) -> Option<Open> {
        (self.required > 0).then_some(Open { stream, required: self.required, least: self.least })
    }
}

/// What stands before a section's lines (§4.5.1).
#[derive(Debug, Clone, Copy)]
pub struct Prefix {
    bytes: [u8; Self::LEN_MAX],
    len: u8,
}

impl Prefix {
    /// Two integers of 62 bits.
    pub const LEN_MAX: usize = 20;
}

impl std::ops::Deref for Prefix {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }
}

impl Writer<'_> {
    /// Appends one field's line. The name may be in any case and goes out in lower case (RFC 9114 §4.2).
    #[inline]
    pub fn field(&mut self, name: &[u8], value: &[u8], indexing: Indexing, out: &mut Vec<u8>) {
        match in_lower_case(name, &mut [0; NAME_FOLDED_MAX]) {
            Some(name) => self.lower_case_field(name, value, indexing, out),
            None => put_literal(name, value, indexing, out),
        }
    }

    /// What it refers to so far.
    pub(in crate::h3) fn references(&self) -> References {
        self.references
    }

    /// The section is complete: what has to stand before its lines.
    pub fn finish(self) -> Prefix {
        let mut prefix = Prefix { bytes: [0; Prefix::LEN_MAX], len: 2 };
        let required = self.references.required;
        if required > 0 {
            let coded = required % (2 * self.encoder.entries_max) + 1;
            let mut at = 0;
            at += put_integer(8, coded, &mut prefix.bytes[at..]);
            at += put_integer(7, self.base - required, &mut prefix.bytes[at..]);
            prefix.len = at as u8;
        }
        self.encoder.open.extend(self.references.open(self.stream));
        prefix
    }

    #[inline]
    fn lower_case_field(&mut self, name: &[u8], value: &[u8], indexing: Indexing, out: &mut Vec<u8>) {
        let (fixed, whole) = find_static(name, value).map_or((None, None), |(first, whole)| (Some(first), whole));
        if let Some(index) = whole
            && indexing != Indexing::Never
        {
            return integer::encode(0xc0, 6, index, out);
        }
        let (mut named, mut same) = (None, None);
        if self.encoder.table.len() > 0 {
            (named, same) = self.encoder.table.find(name, value);
        }
        let store = indexing == Indexing::Store && same.is_none();
        if let Some(age) = same
            && indexing != Indexing::Never
            && let Some(index) = self.refer(age)
        {
            return integer::encode(0x80, 6, index, out);
        }
        let never = u8::from(indexing == Indexing::Never);
        if let Some(index) = fixed {
            integer::encode(0x50 | never << 5, 4, index, out);
            string::put(0, 7, value.iter().copied(), value.len(), out);
        } else if let Some(index) = named.and_then(|age| self.refer(age)) {
            integer::encode(0x40 | never << 5, 4, index, out);
            string::put(0, 7, value.iter().copied(), value.len(), out);
        } else {
            put_literal(name, value, indexing, out);
        }
        if store {
            self.store(name, value, fixed, named);
        }
    }

    /// Refers to the entry of that age, if the peer certainly has it; returns its index in this section.
    #[inline]
    fn refer(&mut self, age: usize) -> Option<usize> {
        let place = self.encoder.place(age);
        if place >= self.base {
            return None;
        }
        let References { required, least } = &mut self.references;
        (*required, *least) = ((*required).max(place + 1), (*least).min(place));
        Some((self.base - 1 - place) as usize)
    }

    /// Makes an entry of a field for the sections to come, if it is worth one and there is room.
    fn store(&mut self, name: &[u8], value: &[u8], fixed: Option<usize>, named: Option<usize>) {
        let encoder = &mut *self.encoder;
        let text = name.len() + value.len();
        if encoder.table.size_max() == 0
            || !encoder.is_said_again(name, value)
            || !encoder.can_insert(text, self.references.least)
        {
            return;
        }
        match (fixed, named) {
            (Some(index), _) => integer::encode(0xc0, 6, index, self.instructions),
            (None, Some(age)) => integer::encode(0x80, 6, age, self.instructions),
            (None, None) => string::put(0x40, 5, name.iter().copied(), name.len(), self.instructions),
        }
        string::put(0, 7, value.iter().copied(), value.len(), self.instructions);
        encoder.table.insert(name, value);
        encoder.inserted += 1;
        encoder.changes += 1;
    }
}

impl Compress for Writer<'_> {
    #[inline]
    fn field(&mut self, name: &[u8], value: &[u8], indexing: Indexing, out: &mut Vec<u8>) {
        Self::field(self, name, value, indexing, out);
    }
}

/// A line that refers to nothing (§4.5.6).
fn put_literal(name: &[u8], value: &[u8], indexing: Indexing, out: &mut Vec<u8>) {
    let never = u8::from(indexing == Indexing::Never);
    string::put(0x20 | never << 4, 3, name.iter().map(u8::to_ascii_lowercase), name.len(), out);
    string::put(0, 7, value.iter().copied(), value.len(), out);
}

/// Puts an integer at the start of `place`, and says how many bytes it took.
fn put_integer(prefix: u32, value: u64, place: &mut [u8]) -> usize {
    let full = (1 << prefix) - 1;
    if value < full {
        place[0] = value as u8;
        return 1;
    }
    place[0] = full as u8;
    let (mut rest, mut at) = (value - full, 1);
    while rest >= 0x80 {
        place[at] = rest as u8 | 0x80;
        rest >>= 7;
        at += 1;
    }
    place[at] = rest as u8;
    at + 1
}
