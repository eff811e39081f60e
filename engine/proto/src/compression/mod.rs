//! What HPACK (RFC 7541) and QPACK (RFC 9204) share: integers, strings, the table that grows, and the bounds that hold while a list of
//! fields is read.
//!
//! Fields come out as lines, `name: value` and CRLF, laid one behind the other in the caller's text: what HTTP/1 would have sent, so that
//! everything that works on a head's bytes works on these. Two bounds hold while a block is read and not after: no field is written
//! that exceeds the list's limit, so one byte on the wire cannot become a kilobyte of memory more often than the limit allows
//! (CVE-2026-49975), and what is left of such a block is passed over.

pub(crate) mod huffman;
pub(crate) mod integer;
pub(crate) mod string;
pub(crate) mod table;

use table::ENTRY_OVERHEAD;

use crate::http::{HIGH, Known, between};

/// Why a block could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Corrupt {
    /// An integer is cut off, or larger than anything that could be meant (RFC 7541 §5.1).
    Integer,
    /// An index means no entry that there is (RFC 7541 §2.3.3, RFC 9204 §2.2.3).
    Index,
    /// A string is longer than the block.
    Truncated,
    /// A Huffman code holds EOS, or is padded wrongly (RFC 7541 §5.2).
    Huffman,
    /// HPACK: a size update that is too large, late, missing, or one of too many (RFC 7541 §4.2, §6.3).
    SizeUpdate,
    /// QPACK: a Required Insert Count that cannot be, or a Base below 0 (RFC 9204 §4.5.1).
    Prefix,
}

/// How much one block may come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListLimits {
    /// Names, values and 32 bytes a field (RFC 9113 §6.5.2, `SETTINGS_MAX_HEADER_LIST_SIZE`; RFC 9114 §4.2.2).
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
    /// Must be coded so again on the next hop (RFC 7541 §6.2.3, RFC 9204 §4.5.4).
    pub never_indexed: bool,
    /// As of [`Judged`].
    pub known: Option<Known>,
}

/// The line of an entry, as a table keeps it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Judged<'a> {
    pub(crate) line: &'a [u8],
    pub(crate) name_len: usize,
    /// Which field it is, if name and value were found to be well-formed when it was added: nobody needs to look at them again.
    pub(crate) known: Option<Known>,
}

impl<'a> Judged<'a> {
    #[inline]
    pub(crate) fn name(&self) -> &'a [u8] {
        &self.line[..self.name_len]
    }
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

/// What the next hop's table is to make of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Indexing {
    /// It will probably be sent again.
    Store,
    /// It says whose the message is, among many: worth a place where one message after the other says the same.
    Again,
    /// It will not.
    Pass,
    /// It is a secret that compression could betray: nobody on the path may index it (RFC 7541 §7.1.3, RFC 9204 §7.1.3).
    Never,
}

/// One whole field block, to be read once.
pub(crate) trait Block {
    /// Each field's line is appended to `text` and told to `take`, which may change or remove it.
    fn read(
        self,
        limits: &ListLimits,
        text: &mut Vec<u8>,
        take: impl FnMut(&mut Vec<u8>, Line),
    ) -> Result<Fit, Corrupt>;
}

/// Where fields are written to.
pub(crate) trait Compress {
    /// Appends one field. The name may be in any case and goes out in lower case (RFC 9113 §8.2, RFC 9114 §4.2).
    fn field(&mut self, name: &[u8], value: &[u8], indexing: Indexing, out: &mut Vec<u8>);
}

/// What is left of a list's limits.
pub(crate) struct Budget {
    bytes: usize,
    fields: usize,
    pub(crate) fit: Fit,
}

impl Budget {
    pub(crate) fn new(limits: &ListLimits) -> Self {
        Self { bytes: limits.bytes, fields: limits.fields, fit: Fit::Whole }
    }

    /// Pays for a field of that many bytes of text, or says that it is too much.
    #[inline]
    pub(crate) fn spend(&mut self, text: usize) -> bool {
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

    pub(crate) fn exceed(&mut self) {
        if self.fit == Fit::Whole {
            self.fit = if self.fields == 0 { Fit::TooManyFields } else { Fit::TooLong };
        }
    }

    /// Bytes of text that the next field may have.
    #[inline]
    pub(crate) fn room(&self) -> usize {
        if self.fit == Fit::Whole && self.fields > 0 { self.bytes.saturating_sub(ENTRY_OVERHEAD) } else { 0 }
    }
}

/// Appends the line of an entry; `None` if it exceeds the budget.
#[inline]
pub(crate) fn put_entry((name, value): (&[u8], &[u8]), text: &mut Vec<u8>, budget: &mut Budget) -> Option<Line> {
    if !budget.spend(name.len() + value.len()) {
        return None;
    }
    let start = text.len();
    text.extend_from_slice(name);
    text.extend_from_slice(COLON);
    text.extend_from_slice(value);
    text.extend_from_slice(LINE_END);
    Some(Line { start, name_len: name.len(), value_len: value.len(), never_indexed: false, known: None })
}

/// The same, of an entry whose line lies ready.
#[inline]
pub(crate) fn put_judged(entry: Judged<'_>, text: &mut Vec<u8>, budget: &mut Budget) -> Option<Line> {
    let Judged { line, name_len, known } = entry;
    let value_len = line.len() - name_len - COLON.len() - LINE_END.len();
    if !budget.spend(name_len + value_len) {
        return None;
    }
    let start = text.len();
    text.extend_from_slice(line);
    Some(Line { start, name_len, value_len, never_indexed: false, known })
}

/// A name in lower case, in `storage` if it is not so already; `None` if it is too long for the tables.
#[inline]
pub(crate) fn in_lower_case<'a>(name: &'a [u8], storage: &'a mut [u8; NAME_FOLDED_MAX]) -> Option<&'a [u8]> {
    if !has_capitals(name) {
        return Some(name);
    }
    let folded = storage.get_mut(..name.len())?;
    folded.copy_from_slice(name);
    folded.make_ascii_lowercase();
    Some(folded)
}

/// Whether there is a capital letter, or, in bytes that are no names, perhaps none.
#[inline]
fn has_capitals(name: &[u8]) -> bool {
    match name.last_chunk::<8>() {
        Some(last) => word_has_capitals(*last) || name.as_chunks::<8>().0.iter().any(|word| word_has_capitals(*word)),
        None => name.iter().any(u8::is_ascii_uppercase),
    }
}

/// The same, of eight bytes at once. Those above ASCII are taken for capitals.
#[inline]
const fn word_has_capitals(word: [u8; 8]) -> bool {
    let word = u64::from_ne_bytes(word);
    (between(word, b'A', b'Z') | word) & HIGH != 0
}

/// A name with capitals that is longer than this is not looked for in the tables.
pub(crate) const NAME_FOLDED_MAX: usize = 64;

/// An entry that is larger than one in so many parts of the table would evict more than it saves.
pub(crate) const SHARE_MAX: usize = 4;

/// Of a table, in bytes as RFC 7541 §4.1 and RFC 9204 §3.2.1 count them: never more in ours, whatever the peer would keep.
pub(crate) const TABLE_SIZE_MAX: usize = 4096;

pub(crate) const COLON: &[u8] = b": ";
pub(crate) const LINE_END: &[u8] = b"\r\n";
