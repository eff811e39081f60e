//! The Huffman code for strings (RFC 7541 §5.2, Appendix B).
//!
//! The code is canonical: codes of one length follow each other in the order of their symbols. So the appendix's table is all that is
//! written down, and what decoding needs is computed from it by the compiler: one look into 1 KiB for the codes that text is made
//! of, and a comparison a length for the others.

/// Bytes that `text` takes when coded, padding included.
#[inline]
pub(crate) fn coded_length(text: impl Iterator<Item = u8>) -> usize {
    text.map(|byte| CODES[byte as usize].1 as usize).sum::<usize>().div_ceil(8)
}

/// Appends `text`, coded and padded with the beginning of EOS: so many bytes as [`coded_length`] says.
#[inline]
pub(crate) fn encode(text: impl Iterator<Item = u8>, length: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + length, 0);
    let room = &mut out[start..];
    let (mut word, mut bits, mut at) = (0_u64, 0_u32, 0);
    for byte in text {
        // 31 bits that wait, and a code of 30.
        let (code, length) = CODES[byte as usize];
        word = word << length | u64::from(code);
        bits += u32::from(length);
        if bits >= 32 {
            bits -= 32;
            room[at..at + 4].copy_from_slice(&((word >> bits) as u32).to_be_bytes());
            at += 4;
        }
    }
    let padded = (word << (32 - bits)) as u32 | u32::MAX.checked_shr(bits).unwrap_or(0);
    room[at..].copy_from_slice(&padded.to_be_bytes()[..bits.div_ceil(8) as usize]);
}

/// What a coded string turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decoded {
    /// It was appended.
    Whole,
    /// It has more than `room` bytes, of which some may have been appended.
    TooLong,
    /// It holds EOS, or its padding is none (RFC 7541 §5.2): longer than seven bits, or not all ones.
    Invalid,
}

/// Appends the text of `coded` to `out`, `room` bytes at most.
#[inline]
pub(crate) fn decode(coded: &[u8], out: &mut Vec<u8>, room: usize) -> Decoded {
    let start = out.len();
    // The shortest codes have five bits.
    out.resize(start + room.min(coded.len() * 8 / 5), 0);
    let (decoded, length) = decode_to(coded, &mut out[start..]);
    out.truncate(start + length);
    decoded
}

/// The same, into so much memory as there is room for, or as can be needed; returns how much of it holds text now.
#[inline]
fn decode_to(coded: &[u8], text: &mut [u8]) -> (Decoded, usize) {
    let (mut word, mut bits, mut rest, mut at) = (0_u64, 0_u32, coded, 0);
    loop {
        // As many bits as the longest code has, and none of them padding: nothing else can be wrong but that it is EOS.
        while let Some((&next_bytes, after)) = rest.split_first_chunk::<4>() {
            word |= u64::from(u32::from_be_bytes(next_bytes)) << (32 - bits);
            (bits, rest) = (bits + 32, after);
            while bits > 32 {
                let Some((symbol, length)) = next(word) else { return (Decoded::Invalid, at) };
                let Some(place) = text.get_mut(at) else { return (Decoded::TooLong, at) };
                *place = symbol;
                at += 1;
                word <<= length;
                bits -= length;
            }
        }
        while bits <= 56
            && let Some((&byte, after)) = rest.split_first()
        {
            word |= u64::from(byte) << (56 - bits);
            bits += 8;
            rest = after;
        }
        // Beyond the input there are ones: what is left of valid padding then looks like EOS.
        let padded = word | u64::MAX.checked_shr(bits).unwrap_or(0);
        let Some((symbol, length)) = next(padded) else {
            return (if bits < 8 { Decoded::Whole } else { Decoded::Invalid }, at);
        };
        if length > bits {
            // A symbol that the padding would complete: what there is of it is not all ones.
            return (Decoded::Invalid, at);
        }
        let Some(place) = text.get_mut(at) else { return (Decoded::TooLong, at) };
        *place = symbol;
        at += 1;
        word <<= length;
        bits -= length;
    }
}

/// The symbol that `word` begins with, and the length of its code; `None` for EOS.
#[inline]
fn next(word: u64) -> Option<(u8, u32)> {
    let fast = FAST[(word >> (64 - FAST_BITS)) as usize];
    if fast != 0 {
        return Some((fast as u8, u32::from(fast >> 8)));
    }
    let mut length = FAST_BITS as usize + 1;
    loop {
        let code = (word >> (64 - length)) as u32;
        let above = code.wrapping_sub(FIRST[length].0);
        let (_, count, place) = FIRST[length];
        if above < u32::from(count) {
            let symbol = SORTED[place as usize + above as usize];
            return u8::try_from(symbol).ok().map(|symbol| (symbol, length as u32));
        }
        length += 1;
        if length > LENGTH_MAX {
            return None;
        }
    }
}

const LENGTH_MAX: usize = 30;

/// Codes of up to nine bits: letters, digits and what URIs and dates are made of.
const FAST_BITS: u32 = 9;

/// By the next bits: length and symbol of the code that they begin with, or 0 if it is longer.
const FAST: [u16; 1 << FAST_BITS] = {
    let mut fast = [0; 1 << FAST_BITS];
    let mut symbol = 0;
    while symbol < 256 {
        let (code, length) = CODES[symbol];
        if length as u32 <= FAST_BITS {
            let free = FAST_BITS - length as u32;
            let mut low = 0;
            while low < 1 << free {
                fast[(code << free | low) as usize] = (length as u16) << 8 | symbol as u16;
                low += 1;
            }
        }
        symbol += 1;
    }
    fast
};

/// All symbols by length of their codes, and among equals by value.
const SORTED: [u16; 257] = {
    let mut sorted = [0; 257];
    let (mut place, mut length) = (0, 1);
    while length <= LENGTH_MAX {
        let mut symbol = 0;
        while symbol < 257 {
            if CODES[symbol].1 as usize == length {
                sorted[place] = symbol as u16;
                place += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    sorted
};

/// By length: the first code, how many there are, and where their symbols begin in `SORTED`.
const FIRST: [(u32, u16, u16); LENGTH_MAX + 1] = {
    let mut first = [(0, 0, 0); LENGTH_MAX + 1];
    let mut place = 0;
    while place < 257 {
        let (code, length) = CODES[SORTED[place] as usize];
        let (start, count, begin) = first[length as usize];
        if count == 0 {
            first[length as usize] = (code, 1, place as u16);
        } else {
            assert!(code == start + count as u32, "the code is canonical");
            first[length as usize] = (start, count + 1, begin);
        }
        place += 1;
    }
    first
};

/// RFC 7541 Appendix B: code, aligned to its least significant bit, and length in bits, of each byte and of EOS.
#[rustfmt::skip]
const CODES: [(u32, u8); 257] = [
    (0x1ff8, 13), (0x7fffd8, 23), (0xfffffe2, 28), (0xfffffe3, 28), (0xfffffe4, 28), (0xfffffe5, 28),
    (0xfffffe6, 28), (0xfffffe7, 28), (0xfffffe8, 28), (0xffffea, 24), (0x3ffffffc, 30), (0xfffffe9, 28),
    (0xfffffea, 28), (0x3ffffffd, 30), (0xfffffeb, 28), (0xfffffec, 28), (0xfffffed, 28), (0xfffffee, 28),
    (0xfffffef, 28), (0xffffff0, 28), (0xffffff1, 28), (0xffffff2, 28), (0x3ffffffe, 30), (0xffffff3, 28),
    (0xffffff4, 28), (0xffffff5, 28), (0xffffff6, 28), (0xffffff7, 28), (0xffffff8, 28), (0xffffff9, 28),
    (0xffffffa, 28), (0xffffffb, 28), (0x14, 6), (0x3f8, 10), (0x3f9, 10), (0xffa, 12),
    (0x1ff9, 13), (0x15, 6), (0xf8, 8), (0x7fa, 11), (0x3fa, 10), (0x3fb, 10),
    (0xf9, 8), (0x7fb, 11), (0xfa, 8), (0x16, 6), (0x17, 6), (0x18, 6),
    (0x0, 5), (0x1, 5), (0x2, 5), (0x19, 6), (0x1a, 6), (0x1b, 6),
    (0x1c, 6), (0x1d, 6), (0x1e, 6), (0x1f, 6), (0x5c, 7), (0xfb, 8),
    (0x7ffc, 15), (0x20, 6), (0xffb, 12), (0x3fc, 10), (0x1ffa, 13), (0x21, 6),
    (0x5d, 7), (0x5e, 7), (0x5f, 7), (0x60, 7), (0x61, 7), (0x62, 7),
    (0x63, 7), (0x64, 7), (0x65, 7), (0x66, 7), (0x67, 7), (0x68, 7),
    (0x69, 7), (0x6a, 7), (0x6b, 7), (0x6c, 7), (0x6d, 7), (0x6e, 7),
    (0x6f, 7), (0x70, 7), (0x71, 7), (0x72, 7), (0xfc, 8), (0x73, 7),
    (0xfd, 8), (0x1ffb, 13), (0x7fff0, 19), (0x1ffc, 13), (0x3ffc, 14), (0x22, 6),
    (0x7ffd, 15), (0x3, 5), (0x23, 6), (0x4, 5), (0x24, 6), (0x5, 5),
    (0x25, 6), (0x26, 6), (0x27, 6), (0x6, 5), (0x74, 7), (0x75, 7),
    (0x28, 6), (0x29, 6), (0x2a, 6), (0x7, 5), (0x2b, 6), (0x76, 7),
    (0x2c, 6), (0x8, 5), (0x9, 5), (0x2d, 6), (0x77, 7), (0x78, 7),
    (0x79, 7), (0x7a, 7), (0x7b, 7), (0x7ffe, 15), (0x7fc, 11), (0x3ffd, 14),
    (0x1ffd, 13), (0xffffffc, 28), (0xfffe6, 20), (0x3fffd2, 22), (0xfffe7, 20), (0xfffe8, 20),
    (0x3fffd3, 22), (0x3fffd4, 22), (0x3fffd5, 22), (0x7fffd9, 23), (0x3fffd6, 22), (0x7fffda, 23),
    (0x7fffdb, 23), (0x7fffdc, 23), (0x7fffdd, 23), (0x7fffde, 23), (0xffffeb, 24), (0x7fffdf, 23),
    (0xffffec, 24), (0xffffed, 24), (0x3fffd7, 22), (0x7fffe0, 23), (0xffffee, 24), (0x7fffe1, 23),
    (0x7fffe2, 23), (0x7fffe3, 23), (0x7fffe4, 23), (0x1fffdc, 21), (0x3fffd8, 22), (0x7fffe5, 23),
    (0x3fffd9, 22), (0x7fffe6, 23), (0x7fffe7, 23), (0xffffef, 24), (0x3fffda, 22), (0x1fffdd, 21),
    (0xfffe9, 20), (0x3fffdb, 22), (0x3fffdc, 22), (0x7fffe8, 23), (0x7fffe9, 23), (0x1fffde, 21),
    (0x7fffea, 23), (0x3fffdd, 22), (0x3fffde, 22), (0xfffff0, 24), (0x1fffdf, 21), (0x3fffdf, 22),
    (0x7fffeb, 23), (0x7fffec, 23), (0x1fffe0, 21), (0x1fffe1, 21), (0x3fffe0, 22), (0x1fffe2, 21),
    (0x7fffed, 23), (0x3fffe1, 22), (0x7fffee, 23), (0x7fffef, 23), (0xfffea, 20), (0x3fffe2, 22),
    (0x3fffe3, 22), (0x3fffe4, 22), (0x7ffff0, 23), (0x3fffe5, 22), (0x3fffe6, 22), (0x7ffff1, 23),
    (0x3ffffe0, 26), (0x3ffffe1, 26), (0xfffeb, 20), (0x7fff1, 19), (0x3fffe7, 22), (0x7ffff2, 23),
    (0x3fffe8, 22), (0x1ffffec, 25), (0x3ffffe2, 26), (0x3ffffe3, 26), (0x3ffffe4, 26), (0x7ffffde, 27),
    (0x7ffffdf, 27), (0x3ffffe5, 26), (0xfffff1, 24), (0x1ffffed, 25), (0x7fff2, 19), (0x1fffe3, 21),
    (0x3ffffe6, 26), (0x7ffffe0, 27), (0x7ffffe1, 27), (0x3ffffe7, 26), (0x7ffffe2, 27), (0xfffff2, 24),
    (0x1fffe4, 21), (0x1fffe5, 21), (0x3ffffe8, 26), (0x3ffffe9, 26), (0xffffffd, 28), (0x7ffffe3, 27),
    (0x7ffffe4, 27), (0x7ffffe5, 27), (0xfffec, 20), (0xfffff3, 24), (0xfffed, 20), (0x1fffe6, 21),
    (0x3fffe9, 22), (0x1fffe7, 21), (0x1fffe8, 21), (0x7ffff3, 23), (0x3fffea, 22), (0x3fffeb, 22),
    (0x1ffffee, 25), (0x1ffffef, 25), (0xfffff4, 24), (0xfffff5, 24), (0x3ffffea, 26), (0x7ffff4, 23),
    (0x3ffffeb, 26), (0x7ffffe6, 27), (0x3ffffec, 26), (0x3ffffed, 26), (0x7ffffe7, 27), (0x7ffffe8, 27),
    (0x7ffffe9, 27), (0x7ffffea, 27), (0x7ffffeb, 27), (0xffffffe, 28), (0x7ffffec, 27), (0x7ffffed, 27),
    (0x7ffffee, 27), (0x7ffffef, 27), (0x7fffff0, 27), (0x3ffffee, 26), (0x3fffffff, 30),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn coded(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(text.iter().copied(), coded_length(text.iter().copied()), &mut out);
        out
    }

    fn decoded(coded: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        (decode(coded, &mut out, usize::MAX >> 1) == Decoded::Whole).then_some(out)
    }

    #[test]
    fn rfc7541_c_4_strings() {
        assert_eq!(coded(b"www.example.com"), b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff");
        assert_eq!(coded(b"no-cache"), b"\xa8\xeb\x10\x64\x9c\xbf");
        assert_eq!(coded(b"302"), b"\x64\x02");
    }

    #[test]
    fn every_byte_alone_and_beside_every_other() {
        for first in 0..=255_u8 {
            for second in 0..=255_u8 {
                let text = [first, second, first];
                assert_eq!(decoded(&coded(&text)).as_deref(), Some(&text[..]));
            }
        }
    }

    #[test]
    fn rfc7541_5_2_padding_and_eos() {
        assert_eq!(decoded(b"").as_deref(), Some(&b""[..]));
        // `0` is 00000: three bits of padding.
        assert_eq!(decoded(&[0b0000_0111]).as_deref(), Some(&b"0"[..]));
        assert_eq!(decoded(&[0b0000_0110]), None, "padding must be ones");
        assert_eq!(decoded(&[0b0000_0000]), None, "padding must be ones");
        assert_eq!(decoded(&[0b0000_0111, 0xff]), None, "eleven bits of padding");
        assert_eq!(decoded(&[0xff]), None, "eight bits of padding");
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff]), None, "EOS");
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xfc]), None, "EOS and nothing");
        // `&` is 11111000: a whole byte and no padding.
        assert_eq!(decoded(&[0xf8]).as_deref(), Some(&b"&"[..]));
    }

    #[test]
    fn texts_of_all_lengths_are_coded_and_read() {
        for length in 0..200_usize {
            for kind in [&b"a0/"[..], b"~{\\\x00\xff", b"aZ&\n|"] {
                let text: Vec<u8> = (0..length).map(|at| kind[at * 7 % kind.len()]).collect();
                let coded = coded(&text);
                assert_eq!(decoded(&coded).as_deref(), Some(&text[..]));
                for room in [length.saturating_sub(1), length / 2] {
                    let mut out = b"x".to_vec();
                    let whole = if room < length { Decoded::TooLong } else { Decoded::Whole };
                    assert_eq!(decode(&coded, &mut out, room), whole);
                    assert!(out.len() <= 1 + room);
                }
                // EOS behind it, wherever that is.
                let broken = [&coded[..], &[0xff; 4]].concat();
                assert_eq!(decoded(&broken), None);
            }
        }
    }

    #[test]
    fn room_is_never_exceeded() {
        let coded = coded(b"0123456789");
        for room in 0..10 {
            let mut out = b"x".to_vec();
            assert_eq!(decode(&coded, &mut out, room), Decoded::TooLong);
            assert!(out.len() <= 1 + room);
        }
        assert_eq!(decode(&coded, &mut Vec::new(), 10), Decoded::Whole);
    }

    #[test]
    fn whatever_decodes_is_the_only_coding_of_its_text() {
        let mut random = 7_u64;
        for round in 0..20_000 {
            let bytes: Vec<u8> = (0..round % 19)
                .map(|_| {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (random >> 40) as u8
                })
                .collect();
            if let Some(text) = decoded(&bytes) {
                assert_eq!(coded(&text), bytes);
            }
        }
    }
}
