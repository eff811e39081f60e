//! Strings (RFC 7541 §5.2): their length behind a flag that says whether they are Huffman coded.

use super::huffman::{self, Decoded};
use super::{Corrupt, integer};

/// Reads the string whose length has `prefix` bits of its first byte. False, and nothing appended, if it has more than `room` bytes.
#[inline]
pub(crate) fn read(rest: &mut &[u8], prefix: u32, text: &mut Vec<u8>, room: usize) -> Result<bool, Corrupt> {
    let coded = rest.first().is_some_and(|first| first >> prefix & 1 != 0);
    let (length, after) = integer::decode(rest, prefix).ok_or(Corrupt::Integer)?;
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

/// Appends a string in the shorter of its two forms, behind the bits of `pattern`.
#[inline]
pub(crate) fn put(pattern: u8, prefix: u32, text: impl Iterator<Item = u8> + Clone, length: usize, out: &mut Vec<u8>) {
    let coded = huffman::coded_length(text.clone());
    if coded < length {
        integer::encode(pattern | 1 << prefix, prefix, coded, out);
        huffman::encode(text, coded, out);
    } else {
        integer::encode(pattern, prefix, length, out);
        out.extend(text);
    }
}
