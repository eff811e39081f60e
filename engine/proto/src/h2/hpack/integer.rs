//! Integers with a prefix (RFC 7541 §5.1).

/// Appends `value` behind the `prefix` low bits of a byte whose other bits are `pattern`'s.
#[inline]
pub(super) fn encode(pattern: u8, prefix: u32, value: usize, out: &mut Vec<u8>) {
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
pub(super) fn decode(bytes: &[u8], prefix: u32) -> Option<(usize, &[u8])> {
    let (&first, mut rest) = bytes.split_first()?;
    let full = (1_usize << prefix) - 1;
    let mut value = first as usize & full;
    if value < full {
        return Some((value, rest));
    }
    for shift in [0, 7, 14, 21] {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        value += (byte as usize & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return (value <= INTEGER_MAX).then_some((value, rest));
        }
    }
    None
}

/// Far beyond every index and length that a field block has room for.
pub(super) const INTEGER_MAX: usize = 1 << 24;

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
