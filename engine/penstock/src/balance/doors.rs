//! The table that programs find VIPs in, by address, protocol and port. Pure.
//!
//! A program reads one bucket of two doors and follows no chain, so the table is made such that no bucket has three: by looking for a multiplier,
//! and by growing where there is none. Doors never change while a program stands.

use abi::balance::{BUCKET_WORDS, DOOR_WORDS, Door, bucket_of};
use policy::hash::xxh64;

/// Multipliers that are tried before the table grows.
const TRIES: u64 = 64;

/// The buckets, and how one is found.
#[derive(Debug)]
pub(super) struct Doors {
    pub(super) buckets: Vec<[u32; BUCKET_WORDS]>,
    pub(super) multiplier: u64,
    /// 64 less the bits of a bucket's number.
    pub(super) shift: u32,
}

impl Doors {
    /// The smallest table that is at least half empty and has no bucket with three doors; `None` where there is none because two doors are the same.
    pub(super) fn build(doors: &[Door]) -> Option<Self> {
        const MOST_BITS: u32 = 24;
        let least = doors.len().next_power_of_two().trailing_zeros().max(1);
        (least..=MOST_BITS).find_map(|bits| (0..TRIES).find_map(|at| Self::try_with(doors, bits, at)))
    }

    fn try_with(doors: &[Door], bits: u32, at: u64) -> Option<Self> {
        let (multiplier, shift) = (xxh64(&at.to_le_bytes(), bits.into()) | 1, 64 - bits);
        let mut buckets = vec![[0; BUCKET_WORDS]; 1 << bits];
        for (door, number) in doors.iter().zip(0..) {
            let bucket = &mut buckets[bucket_of(door.address, door.protocol_port, multiplier, shift) as usize];
            let free = bucket.chunks_exact_mut(DOOR_WORDS).find(|place| place[4] == 0)?;
            free.copy_from_slice(&door.words(number));
        }
        Some(Self { buckets, multiplier, shift })
    }
}

#[cfg(test)]
mod tests {
    use abi::balance::{Forward, Vip, mapped, protocol_port};

    use super::*;

    fn door(number: u32) -> Door {
        let address =
            if number.is_multiple_of(2) { mapped(0xc000_0200 + number / 8) } else { [0x20, 1, number / 8, 7] };
        let vip = Vip { number, forward: Forward::Gue, quic: false };
        Door { address, protocol_port: protocol_port(6 + number % 3, (number % 8) as u16), vip }
    }

    #[test]
    fn each_door_is_found_in_its_bucket() {
        for count in [0, 1, 2, 3, 16, 512, 4_096] {
            let doors: Vec<_> = (0..count).map(door).collect();
            let table = Doors::build(&doors).unwrap();
            assert!(table.buckets.len() >= doors.len() && table.buckets.len() <= 2 + 64 * doors.len(), "{count}");
            for (door, number) in doors.iter().zip(0..) {
                let at = bucket_of(door.address, door.protocol_port, table.multiplier, table.shift);
                let bucket = table.buckets[at as usize];
                assert!(bucket.chunks_exact(DOOR_WORDS).any(|place| place == door.words(number)), "{count}: {door:?}");
            }
        }
    }

    #[test]
    fn the_same_door_thrice_has_no_table() {
        assert!(Doors::build(&[door(1); 2]).is_some());
        assert!(Doors::try_with(&[door(1); 3], 8, 0).is_none());
    }
}
