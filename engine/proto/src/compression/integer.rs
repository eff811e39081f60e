//! Integers with a prefix (RFC 7541 §5.1).

/// Appends `value` behind the `prefix` low bits of a byte whose other bits are `pattern`'s.
#[inline]
pub(crate) fn encode(pattern: u8, prefix: u32, value: usize, out: &mut Vec<u8>) {
    let full = (1_usize << prefix) - 1;
    if value < full {
        out.push(pattern | value as u8);
        return;
    }
    out.push(pattern | full as u8);
    let mut rest = value - full;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// The integer at the start of `bytes`, and what follows it. `None` if it is cut off, or exceeds [`INTEGER_MAX`], or is written with
/// more bytes than that can take.
#[inline]
pub(crate) fn decode(bytes: &[u8], prefix: u32) -> Option<(usize, &[u8])> {
    match read(bytes, prefix, INTEGER_MAX as u64) {
        Read::Whole(value, rest) => Some((value as usize, rest)),
        Read::Partial | Read::TooLarge => None,
    }
}

/// What an integer turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read<'a> {
    /// Its value, and what follows it.
    Whole(u64, &'a [u8]),
    /// It is cut off.
    Partial,
    /// It is above the most, or written with more bytes than that can take.
    TooLarge,
}

/// The integer at the start of `bytes`, `most` at most, which is below 2^63.
#[inline]
pub(crate) fn read(bytes: &[u8], prefix: u32, most: u64) -> Read<'_> {
    let Some((&first, mut rest)) = bytes.split_first() else { return Read::Partial };
    let full = (1_u64 << prefix) - 1;
    let mut value = u64::from(first) & full;
    if value < full {
        return Read::Whole(value, rest);
    }
    let (mut shift, bits) = (0, u64::BITS - most.leading_zeros());
    while shift < bits {
        let Some((&byte, after)) = rest.split_first() else { return Read::Partial };
        rest = after;
        value += u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return if value <= most { Read::Whole(value, rest) } else { Read::TooLarge };
        }
        shift += 7;
    }
    Read::TooLarge
}

/// Far beyond every index and length that a field block has room for.
pub(crate) const INTEGER_MAX: usize = 1 << 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc7541_c_1_examples() {
        for (value, prefix, bytes) in [(10, 5, &[10][..]), (1337, 5, &[31, 154, 10]), (42, 8, &[42])] {
            let mut out = Vec::new();
            encode(0, prefix, value, &mut out);
            assert_eq!(out, bytes);
            assert_eq!(decode(bytes, prefix), Some((value, &[][..])));
        }
    }

    #[test]
    fn every_value_reads_as_it_was_written() {
        for prefix in 1..=7 {
            for value in (0..70_000).chain([INTEGER_MAX - 1, INTEGER_MAX]) {
                let mut out = Vec::new();
                encode(0x80, prefix, value, &mut out);
                out.push(9);
                assert_eq!(decode(&out, prefix), Some((value, &[9][..])));
            }
        }
    }

    #[test]
    fn rfc7541_5_1_overflow_is_refused() {
        for bytes in [
            &[][..],
            &[0x7f],
            &[0x7f, 0x80],
            &[0x7f, 0xff, 0xff, 0xff, 0x7f],
            &[0x7f, 0x80, 0x80, 0x80, 0x80, 0x00],
            &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        ] {
            assert_eq!(decode(bytes, 7), None, "{bytes:?}");
        }
    }
}
