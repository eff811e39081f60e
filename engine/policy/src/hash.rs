//! Hashes of bytes that are the same on every machine and in every version.
//!
//! A key that chooses an endpoint is hashed here, and not by `std`, whose hash may change with the compiler: two proxies of
//! one fleet, and one proxy before and after an upgrade, must send the same client to the same place.
//!
//! [`xxh64`] is for names and for keys nobody would forge. Whoever knows an unkeyed hash can look for keys that fall to
//! the endpoint of his choice, and load it alone; where that matters take [`siphash13`] with a secret that the fleet shares.
//! A bound on the load (see [`crate::balance`]) limits the harm either way.

const PRIME_1: u64 = 0x9e37_79b1_85eb_ca87;
const PRIME_2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const PRIME_3: u64 = 0x1656_67b1_9e37_79f9;
const PRIME_4: u64 = 0x85eb_ca77_c2b2_ae63;
const PRIME_5: u64 = 0x27d4_eb2f_1656_67c5;

/// XXH64 (Collet, "xxHash fast digest algorithm", specification 0.1.1): every bit of the input moves half of the output.
#[must_use]
pub fn xxh64(bytes: &[u8], seed: u64) -> u64 {
    let (stripes, rest) = bytes.as_chunks::<32>();
    let mut hash = if stripes.is_empty() { seed.wrapping_add(PRIME_5) } else { xxh64_stripes(stripes, seed) };
    hash = hash.wrapping_add(bytes.len() as u64);
    let (words, rest) = rest.as_chunks::<8>();
    for word in words {
        hash ^= xxh64_round(0, u64::from_le_bytes(*word));
        hash = hash.rotate_left(27).wrapping_mul(PRIME_1).wrapping_add(PRIME_4);
    }
    let (halves, rest) = rest.as_chunks::<4>();
    for half in halves {
        hash ^= u64::from(u32::from_le_bytes(*half)).wrapping_mul(PRIME_1);
        hash = hash.rotate_left(23).wrapping_mul(PRIME_2).wrapping_add(PRIME_3);
    }
    for &byte in rest {
        hash ^= u64::from(byte).wrapping_mul(PRIME_5);
        hash = hash.rotate_left(11).wrapping_mul(PRIME_1);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(PRIME_2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(PRIME_3);
    hash ^ (hash >> 32)
}

fn xxh64_stripes(stripes: &[[u8; 32]], seed: u64) -> u64 {
    let mut lanes = [
        seed.wrapping_add(PRIME_1).wrapping_add(PRIME_2),
        seed.wrapping_add(PRIME_2),
        seed,
        seed.wrapping_sub(PRIME_1),
    ];
    for stripe in stripes {
        for (lane, word) in lanes.iter_mut().zip(stripe.as_chunks::<8>().0) {
            *lane = xxh64_round(*lane, u64::from_le_bytes(*word));
        }
    }
    let turned = [1, 7, 12, 18].into_iter().zip(lanes).map(|(turn, lane)| lane.rotate_left(turn));
    let sum = turned.fold(0, u64::wrapping_add);
    lanes.into_iter().fold(sum, |hash, lane| (hash ^ xxh64_round(0, lane)).wrapping_mul(PRIME_1).wrapping_add(PRIME_4))
}

const fn xxh64_round(lane: u64, word: u64) -> u64 {
    lane.wrapping_add(word.wrapping_mul(PRIME_2)).rotate_left(31).wrapping_mul(PRIME_1)
}

/// SipHash-1-3 (Aumasson, Bernstein, "SipHash: a fast short-input PRF", 2012; the one-three rounds are its authors'
/// later advice for hash tables): who does not know `key` cannot aim.
#[must_use]
pub fn siphash13(key: [u64; 2], bytes: &[u8]) -> u64 {
    siphash::<1, 3>(key, bytes)
}

/// SipHash-2-4, of the same paper: as an authenticator of short messages, which is what its authors made it for.
#[must_use]
pub fn siphash24(key: [u64; 2], bytes: &[u8]) -> u64 {
    siphash::<2, 4>(key, bytes)
}

fn siphash<const EACH: usize, const LAST: usize>(key: [u64; 2], bytes: &[u8]) -> u64 {
    let mut state = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    let (words, rest) = bytes.as_chunks::<8>();
    let mut tail = [0; 8];
    tail[..rest.len()].copy_from_slice(rest);
    tail[7] = bytes.len() as u8;
    for word in words.iter().chain([&tail]) {
        let word = u64::from_le_bytes(*word);
        state[3] ^= word;
        (0..EACH).for_each(|_| sip_round(&mut state));
        state[0] ^= word;
    }
    state[2] ^= 0xff;
    (0..LAST).for_each(|_| sip_round(&mut state));
    state[0] ^ state[1] ^ state[2] ^ state[3]
}

const fn sip_round(state: &mut [u64; 4]) {
    let [a, b, c, d] = state;
    *a = a.wrapping_add(*b);
    *b = b.rotate_left(13) ^ *a;
    *a = a.rotate_left(32);
    *c = c.wrapping_add(*d);
    *d = d.rotate_left(16) ^ *c;
    *a = a.wrapping_add(*d);
    *d = d.rotate_left(21) ^ *a;
    *c = c.wrapping_add(*b);
    *b = b.rotate_left(17) ^ *c;
    *c = c.rotate_left(32);
}

/// Spreads a number over all 64 bits, one to one: SplitMix64's last step (Steele, Lea, Flood 2014).
#[must_use]
pub const fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A hash as a number in `[0, 1)`.
#[must_use]
pub const fn unit(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xxh64_is_what_the_world_calls_so() {
        let table: &[(&[u8], u64, u64)] = &[
            (b"", 0, 0xef46_db37_51d8_e999),
            (b"a", 0, 0xd24e_c4f1_a98c_6e5b),
            (b"abc", 0, 0x44bc_2cf5_ad77_0999),
            (b"Nobody inspects the spammish repetition", 0, 0xfbce_a83c_8a37_8bf1),
            (b"xxhash", 20_141_025, 0xb559_b98d_844e_0635),
        ];
        for &(bytes, seed, wanted) in table {
            assert_eq!(xxh64(bytes, seed), wanted, "{bytes:?}");
        }
    }

    #[test]
    fn siphash_is_the_papers() {
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        let bytes: Vec<u8> = (0..15).collect();
        assert_eq!(siphash24(key, &bytes), 0xa129_ca61_49be_45e5, "appendix A");
        assert_eq!(siphash13(key, b""), 0xabac_0158_050f_c4dc);
        assert_ne!(siphash13(key, &bytes), siphash13([key[0] ^ 1, key[1]], &bytes));
    }

    #[test]
    fn one_bit_moves_half_of_them() {
        for len in [1, 3, 4, 8, 13, 32, 45, 64] {
            let bytes = vec![0x5a; len];
            let (mut moved, mut flips) = ([0_u32; 3], 0);
            for bit in 0..len * 8 {
                let mut other = bytes.clone();
                other[bit / 8] ^= 1 << (bit % 8);
                moved[0] += (xxh64(&bytes, 7) ^ xxh64(&other, 7)).count_ones();
                moved[1] += (siphash13([1, 2], &bytes) ^ siphash13([1, 2], &other)).count_ones();
                moved[2] += (mix(bit as u64) ^ mix(bit as u64 ^ 1)).count_ones();
                flips += 1;
            }
            for moved in moved {
                let mean = f64::from(moved) / f64::from(flips);
                assert!((25.0..39.0).contains(&mean), "{len} bytes: {mean} of 64");
            }
        }
    }
}
