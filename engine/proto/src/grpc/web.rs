//! gRPC-Web (PROTOCOL-WEB.md): gRPC for clients that see no trailers, and perhaps nothing but text.
//!
//! Messages are gRPC's. What follows them as trailers stands in the content as a message of its own, with a flag that says so; and where a
//! client wants text, all of it is in base64. What holds here: text is decoded in place, for no digit gives more than a byte; a message that
//! is complete is so in text, too, padded if need be, because its reader shall not wait for the next one.

use super::prefix;
use crate::http::list;

/// How a client writes content, or wants to read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Binary,
    /// Base64, padded anywhere between two messages.
    Text,
}

impl Coding {
    /// The media type, without what follows it.
    #[must_use]
    pub const fn media_type(self) -> &'static [u8] {
        match self {
            Self::Binary => b"application/grpc-web",
            Self::Text => b"application/grpc-web-text",
        }
    }

    /// Reads a media type, and returns what follows: `+proto`, parameters, or nothing.
    #[must_use]
    pub fn of(value: &[u8]) -> Option<(Self, &[u8])> {
        // The longer one first: it begins as the other does.
        [Self::Text, Self::Binary].into_iter().find_map(|coding| {
            let (begin, rest) = value.split_at_checked(coding.media_type().len())?;
            let ends = matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'\t'));
            (ends && begin.eq_ignore_ascii_case(coding.media_type())).then_some((coding, rest))
        })
    }

    /// What a client hears, by the values of its `accept`: the first of them that is one.
    pub fn accepted<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        values.into_iter().flat_map(list).find_map(Self::of).map(|(coding, _)| coding)
    }
}

/// Set in the prefix of what are trailers.
const TRAILERS: u8 = 0x80;

/// Writes trailers as the message that ends a response: lines as HTTP/1.1 has them, names in lower case.
pub fn write_trailers<'a>(trailers: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone, out: &mut Vec<u8>) {
    let length: usize = trailers.clone().map(|(name, value)| name.len() + value.len() + 4).sum();
    out.extend_from_slice(&prefix(TRAILERS, length as u32));
    for (name, value) in trailers {
        out.extend(name.iter().map(u8::to_ascii_lowercase));
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
}

/// What is no base64 (RFC 4648 §4), or ends in the middle of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotBase64;

/// Base64 becomes bytes, in whatever pieces it comes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Decoder {
    /// Bits that have come and are no byte yet, fewer than eight.
    bits: u32,
    /// Digits of the group that have come, padding included.
    digits: u8,
    padded: bool,
}

impl Decoder {
    /// Decodes where the text lies. Returns how many bytes there are, from the start.
    ///
    /// # Errors
    /// It is no base64.
    pub fn decode(&mut self, text: &mut [u8]) -> Result<usize, NotBase64> {
        let mut length = 0;
        for at in 0..text.len() {
            if let Some(byte) = self.next(text[at])? {
                text[length] = byte;
                length += 1;
            }
        }
        Ok(length)
    }

    fn next(&mut self, digit: u8) -> Result<Option<u8>, NotBase64> {
        if digit == b'=' {
            // One or two of them end a group, and what the last digit has too many of is zero.
            let ends = self.digits == 3 || self.digits == 2;
            if !ends || self.bits != 0 {
                return Err(NotBase64);
            }
            self.digits += 1;
            self.padded = self.digits != 4;
            self.digits %= 4;
            return Ok(None);
        }
        let value = VALUES[usize::from(digit)];
        if value == NO_DIGIT || self.padded {
            return Err(NotBase64);
        }
        let bits = self.bits << 6 | u32::from(value);
        // After the first digit there are six, after the second twelve, then ten, then eight.
        let over = [6, 4, 2, 0][usize::from(self.digits)];
        let byte = (self.digits > 0).then_some((bits >> over) as u8);
        self.bits = bits & ((1 << over) - 1);
        self.digits = (self.digits + 1) % 4;
        Ok(byte)
    }

    /// Whether it may end here.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.digits == 0
    }
}

/// Bytes become base64, in whatever pieces they come.
#[derive(Debug, Clone, Copy, Default)]
pub struct Encoder {
    held: [u8; 2],
    count: u8,
}

impl Encoder {
    /// Digits that so many bytes may become, with what is held.
    #[must_use]
    pub const fn room(bytes: usize) -> usize {
        (bytes + 2).div_ceil(3) * 4
    }

    /// Writes what `bytes` become, and returns how many digits that are. What is less than a group is held back, or padded where the text
    /// shall be `whole` with it.
    ///
    /// # Panics
    /// `out` has less than [`room`](Self::room).
    pub fn encode(&mut self, bytes: &[u8], whole: bool, out: &mut [u8]) -> usize {
        let mut length = 0;
        let mut put = |group: [u8; 4]| {
            out[length..length + 4].copy_from_slice(&group);
            length += 4;
        };
        let mut rest = bytes;
        if self.count > 0 {
            let mut group = [self.held[0], self.held[1], 0];
            let taken = rest.len().min(3 - usize::from(self.count));
            group[usize::from(self.count)..][..taken].copy_from_slice(&rest[..taken]);
            rest = &rest[taken..];
            let count = usize::from(self.count) + taken;
            if count < 3 {
                (self.held, self.count) = ([group[0], group[1]], count as u8);
            } else {
                put(digits(group, 3));
                self.count = 0;
            }
        }
        let mut groups = rest.chunks_exact(3);
        groups.by_ref().for_each(|group| put(digits([group[0], group[1], group[2]], 3)));
        for &byte in groups.remainder() {
            self.held[usize::from(self.count)] = byte;
            self.count += 1;
        }
        if whole && self.count > 0 {
            let second = if self.count == 2 { self.held[1] } else { 0 };
            put(digits([self.held[0], second, 0], self.count));
            self.count = 0;
        }
        length
    }
}

/// The digits of a group of which `count` bytes count.
fn digits(group: [u8; 3], count: u8) -> [u8; 4] {
    let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
    let digit = |shift: u32| DIGITS[(bits >> shift & 63) as usize];
    let mut digits = [digit(18), digit(12), digit(6), digit(0)];
    digits[usize::from(count) + 1..].fill(b'=');
    digits
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const NO_DIGIT: u8 = u8::MAX;

/// What each byte counts as a digit.
const VALUES: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < DIGITS.len() {
        values[DIGITS[value] as usize] = value as u8;
        value += 1;
    }
    values
};
