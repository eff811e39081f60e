//! SipHash-2-4: a keyed pseudo-random function made of additions, rotations and xors of 64-bit words.
//!
//! It stands here because an eBPF program has neither AES nor 128-bit multiplication. Two rounds a word and four at the end are what
//! its authors ask for where a forgery counts, and what Linux makes its SYN cookies with.
//!
//! Source: Aumasson and Bernstein, SipHash: a fast short-input PRF (2012), §2.

/// A key for one purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Key(pub [u64; 2]);

impl Key {
    /// Sixteen bytes as the paper reads them: two little-endian words.
    #[must_use]
    pub const fn from_bytes(bytes: &[u8; 16]) -> Self {
        let number = u128::from_le_bytes(*bytes);
        Self([number as u64, (number >> 64) as u64])
    }
}

/// SipHash-2-4 of a message that is cut into words already: eight bytes each, little-endian, the last word with the message's length (modulo
/// 256) in its highest byte and zeros between.
#[inline(always)]
#[must_use]
pub fn siphash<const WORDS: usize>(key: Key, message: [u64; WORDS]) -> u64 {
    let Key([k0, k1]) = key;
    let mut state = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    for word in message {
        state[3] ^= word;
        state = round(round(state));
        state[0] ^= word;
    }
    state[2] ^= 0xff;
    let [a, b, c, d] = round(round(round(round(state))));
    a ^ b ^ c ^ d
}

#[inline(always)]
const fn round([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    [a, b, c, d]
}
