//! Seeded chance: the one source of everything that is not decided by code.

use std::ops::RangeInclusive;
use std::time::Duration;

/// A reproducible sequence of numbers (SplitMix64: Steele, Lea, Flood 2014). Not for secrets.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        // One step apart, neighbouring seeds would share their sequences; the odd factor spreads them.
        Self(seed.wrapping_mul(0xd129_0b2c_6ab6_4d4d) ^ 0x5bf0_3635_ad5f_7c11)
    }

    /// 64 bits.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.roll()) * u128::from(bound)) >> 64) as u64
    }

    /// A number within `range`, both ends included.
    pub fn within(&mut self, range: RangeInclusive<usize>) -> usize {
        let (low, high) = (*range.start(), *range.end());
        low + self.below((high.saturating_sub(low) as u64).saturating_add(1)) as usize
    }

    /// True with this probability (0 never, 1 always).
    pub fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && ((self.roll() >> 11) as f64) < probability * (1u64 << 53) as f64
    }

    /// Nanoseconds from 0 to `max`, both included.
    pub(super) fn span(&mut self, max: Duration) -> u64 {
        match max.as_nanos() as u64 {
            0 => 0,
            max => self.below(max + 1),
        }
    }
}
