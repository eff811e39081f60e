//! What workers tell each other about an endpoint, in one machine word.
//!
//! Each worker has a breaker of its own, and decides by it without asking anybody. When one of them learns something (it
//! opens, a trial succeeds, it closes), it publishes the word; the others adopt it before their next choice.
//!
//! ```text
//! 63        42 41   40      38 37                    6 5         0
//! │ generation │open│ doublings │ until, in 2²⁶ ns    │ successes │
//! ```
//!
//! **The merge law is: the greater number wins.** The fields stand in the order in which they decide: a later generation
//! (each opening and each closing begins one) over an earlier one; in the same generation, open over closed, a
//! longer sentence over a shorter one, more good trials over fewer. The maximum is commutative, associative and
//! idempotent, so it matters neither in which order words arrive nor how often, and two workers cannot push each other to
//! and fro: every change of mind costs a generation, and a generation costs evidence. One atomic cell updated with
//! `fetch_max` is enough (a transition is rare, so no cache line is fought over on the request path), and so is a
//! cell for each worker, of which readers take the maximum.
//!
//! Bounds: 2²² generations are half a century of an endpoint that fails its trials for ever at the default times, and
//! a year at an open time of one second; `until` reaches 9 years past the clock's zero. Past either, the breaker still decides, but
//! workers no longer agree on more than that the endpoint is on trial.

use crate::Now;

const SUCCESSES_BITS: u32 = 6;
const UNTIL_BITS: u32 = 32;
const DOUBLINGS_BITS: u32 = 3;
const GENERATION_BITS: u32 = 22;

const UNTIL_AT: u32 = SUCCESSES_BITS;
const DOUBLINGS_AT: u32 = UNTIL_AT + UNTIL_BITS;
const OPEN_AT: u32 = DOUBLINGS_AT + DOUBLINGS_BITS;
const GENERATION_AT: u32 = OPEN_AT + 1;
const _: () = assert!(GENERATION_AT + GENERATION_BITS == u64::BITS);

/// `until` counts units of 2²⁶ ns, 67 ms: below the jitter of any open time worth having.
const UNIT_SHIFT: u32 = 26;

pub(super) const SUCCESSES_MAX: u16 = mask(SUCCESSES_BITS) as u16;
pub(super) const GENERATION_MAX: u32 = mask(GENERATION_BITS) as u32;

/// One worker's word on one endpoint. The order of the words is the merge law; the default is "closed, nothing ever happened".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct BreakerVerdict(u64);

impl BreakerVerdict {
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Counts openings and closings, over all workers.
    #[must_use]
    pub const fn generation(self) -> u32 {
        self.field(GENERATION_AT, GENERATION_BITS) as u32
    }

    /// Open or half-open: which of the two, the reader's clock says.
    #[must_use]
    pub const fn is_tripped(self) -> bool {
        self.field(OPEN_AT, 1) == 1
    }

    /// Until when it is open; rounded up to 67 ms.
    #[must_use]
    pub const fn until(self) -> Now {
        Now::from_nanos(self.field(UNTIL_AT, UNTIL_BITS) << UNIT_SHIFT)
    }

    pub(super) const fn doublings(self) -> u8 {
        self.field(DOUBLINGS_AT, DOUBLINGS_BITS) as u8
    }

    pub(super) const fn successes(self) -> u16 {
        self.field(0, SUCCESSES_BITS) as u16
    }

    pub(super) fn closed(generation: u32, doublings: u8) -> Self {
        Self(u64::from(generation) << GENERATION_AT | u64::from(doublings) << DOUBLINGS_AT)
    }

    pub(super) fn tripped(generation: u32, doublings: u8, until: Now, successes: u16) -> Self {
        let units = until.nanos().div_ceil(1 << UNIT_SHIFT).min(mask(UNTIL_BITS));
        let successes = u64::from(successes.min(SUCCESSES_MAX));
        Self(Self::closed(generation, doublings).0 | 1 << OPEN_AT | units << UNTIL_AT | successes)
    }

    const fn field(self, at: u32, bits: u32) -> u64 {
        self.0 >> at & mask(bits)
    }
}

const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_as_they_went_in() {
        let until = Now::from_nanos(1_234 << UNIT_SHIFT);
        let word = BreakerVerdict::tripped(77, 4, until, 9);
        let found = (word.generation(), word.is_tripped(), word.doublings(), word.until(), word.successes());
        assert_eq!(found, (77, true, 4, until, 9));
        assert_eq!(BreakerVerdict::from_bits(word.bits()), word);
        let extreme = BreakerVerdict::tripped(GENERATION_MAX, 7, Now::from_nanos(u64::MAX), u16::MAX);
        assert_eq!((extreme.generation(), extreme.bits()), (GENERATION_MAX, u64::MAX));
    }

    #[test]
    fn the_order_is_the_law() {
        let at = Now::from_secs;
        let ascending = [
            BreakerVerdict::default(),
            BreakerVerdict::closed(3, 4),
            BreakerVerdict::tripped(3, 0, at(10), 0),
            BreakerVerdict::tripped(3, 0, at(10), 1),
            BreakerVerdict::tripped(3, 0, at(11), 0),
            BreakerVerdict::tripped(3, 1, at(5), 0),
            BreakerVerdict::closed(4, 0),
            BreakerVerdict::tripped(4, 0, at(1), 0),
        ];
        assert!(ascending.is_sorted());
    }
}
