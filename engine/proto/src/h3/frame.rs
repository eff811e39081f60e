//! Frames (RFC 9114 §7) and the integers that they are made of (RFC 9000 §16).

use super::error::Fault;

/// What stands before every frame: two integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    pub kind: Kind,
    /// Of the payload, in bytes.
    pub length: u64,
}

/// Types of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Data,
    Headers,
    CancelPush,
    Settings,
    PushPromise,
    GoAway,
    MaxPushId,
    /// Of a request (RFC 9218 §7.2).
    PriorityUpdate,
    /// Of a push.
    PriorityUpdatePush,
    /// One of HTTP/2, which must not be sent (RFC 9114 §7.2.8).
    Http2(u64),
    /// To be ignored (RFC 9114 §9).
    Unknown(u64),
}

impl Kind {
    pub const fn from_number(number: u64) -> Self {
        match number {
            0x0 => Self::Data,
            0x1 => Self::Headers,
            0x3 => Self::CancelPush,
            0x4 => Self::Settings,
            0x5 => Self::PushPromise,
            0x7 => Self::GoAway,
            0xd => Self::MaxPushId,
            0xf0700 => Self::PriorityUpdate,
            0xf0701 => Self::PriorityUpdatePush,
            0x2 | 0x6 | 0x8 | 0x9 => Self::Http2(number),
            other => Self::Unknown(other),
        }
    }

    pub const fn number(self) -> u64 {
        match self {
            Self::Data => 0x0,
            Self::Headers => 0x1,
            Self::CancelPush => 0x3,
            Self::Settings => 0x4,
            Self::PushPromise => 0x5,
            Self::GoAway => 0x7,
            Self::MaxPushId => 0xd,
            Self::PriorityUpdate => 0xf0700,
            Self::PriorityUpdatePush => 0xf0701,
            Self::Http2(other) | Self::Unknown(other) => other,
        }
    }
}

impl FrameHead {
    /// Bytes of the longest.
    pub const LEN_MAX: usize = 16;

    /// The head at the start of `bytes` and how many bytes it has, if it is all there.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let (number, first) = read_integer(bytes)?;
        let (length, second) = read_integer(&bytes[first..])?;
        Some((Self { kind: Kind::from_number(number), length }, first + second))
    }
}

/// The integer at the start of `bytes` and how many bytes it has, if it is all there.
#[inline]
pub fn read_integer(bytes: &[u8]) -> Option<(u64, usize)> {
    let &first = bytes.first()?;
    let length = 1 << (first >> 6);
    let rest = bytes.get(1..length)?;
    let value = rest.iter().fold(u64::from(first & 0x3f), |value, &byte| value << 8 | u64::from(byte));
    Some((value, length))
}

/// The integer that a payload is, and nothing else.
///
/// # Errors
/// It is cut off, or something follows it (RFC 9114 §7.1).
pub(super) fn only_integer(payload: &[u8]) -> Result<u64, Fault> {
    match read_integer(payload) {
        Some((value, length)) if length == payload.len() => Ok(value),
        _ => Err(Fault::frame("a frame is not as long as what it holds (RFC 9114 7.1)")),
    }
}

/// Integers have 62 bits.
pub const INTEGER_MAX: u64 = (1 << 62) - 1;

/// Appends an integer, in the fewest bytes that hold it. What is above [`INTEGER_MAX`] goes as that.
#[inline]
pub fn put_integer(value: u64, out: &mut Vec<u8>) {
    let value = value.min(INTEGER_MAX);
    match value {
        0..0x40 => out.push(value as u8),
        0x40..0x4000 => out.extend_from_slice(&(value as u16 | 1 << 14).to_be_bytes()),
        0x4000..0x4000_0000 => out.extend_from_slice(&(value as u32 | 2 << 30).to_be_bytes()),
        _ => out.extend_from_slice(&(value | 3 << 62).to_be_bytes()),
    }
}

/// Appends a frame.
pub fn put(out: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
    put_integer(kind.number(), out);
    put_integer(payload.len() as u64, out);
    out.extend_from_slice(payload);
}

/// The head of a DATA frame, to be written before its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataHead {
    bytes: [u8; Self::LEN_MAX],
    len: u8,
}

impl DataHead {
    /// Type and length.
    pub const LEN_MAX: usize = 9;

    /// Of a frame with so many bytes of content. No content needs no frame, and has an empty head.
    #[inline]
    pub(super) fn new(content: u64) -> Self {
        let content = content.min(INTEGER_MAX);
        // The two bits that tell an integer's length, and how many bytes it has.
        let (sort, size) = match content {
            0 => return Self { bytes: [0; Self::LEN_MAX], len: 0 },
            1..0x40 => (0, 1),
            0x40..0x4000 => (1, 2),
            0x4000..0x4000_0000 => (2, 4),
            _ => (3, 8),
        };
        let word = (content | sort << (size * 8 - 2)).to_be_bytes();
        let mut bytes = [0; Self::LEN_MAX];
        bytes[1..=size].copy_from_slice(&word[8 - size..]);
        Self { bytes, len: 1 + size as u8 }
    }
}

impl std::ops::Deref for DataHead {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc9000_a_1_integers() {
        for (bytes, value) in [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
        ] {
            let mut out = Vec::new();
            put_integer(value, &mut out);
            assert_eq!(out, bytes);
            assert_eq!(read_integer(bytes), Some((value, bytes.len())));
            assert_eq!(read_integer(&bytes[..bytes.len() - 1]), None);
        }
        assert_eq!(read_integer(&[0x40, 0x25]), Some((37, 2)), "longer than it must be");
    }

    #[test]
    fn every_length_of_content_has_its_head() {
        for shift in 0..62 {
            for content in [(1_u64 << shift) - 1, 1 << shift, (1 << shift) + 1] {
                let mut out = Vec::new();
                put(&mut out, Kind::Data, &[]);
                out.pop();
                put_integer(content, &mut out);
                let expected = if content == 0 { &[][..] } else { &out };
                assert_eq!(&*DataHead::new(content), expected, "{content}");
            }
        }
    }

    #[test]
    fn kinds_read_as_they_were_written() {
        for number in (0..0x100).chain([0xf0700, 0xf0701, INTEGER_MAX]) {
            assert_eq!(Kind::from_number(number).number(), number);
        }
    }
}
