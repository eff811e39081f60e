//! Traffic divided among a few by weight, so that who was given to one stays there.
//!
//! Weighted rendezvous hashing: each of them draws a number from the key, and the highest one wins. The draw depends on the
//! key and the name alone, so that every worker and every machine gives the same answer, and raising a weight raises
//! one draw and no other: clients move to that one, and none elsewhere (Thaler, Ravishankar: "Using name-based mappings to
//! increase hit rates", 1998; with weights: Schindelhauer, Schomaker: "Weighted distributed hash tables", SPAA 2005). With
//! stacked intervals, as cookies of 1 to 100 are mostly divided, a third one's clients would move too.

use crate::hash;

/// Names and weights, ready to be drawn from.
#[derive(Debug, Clone, PartialEq)]
pub struct Split(Box<[Part]>);

#[derive(Debug, Clone, PartialEq)]
struct Part {
    /// Of its name.
    seed: u64,
    weight: f64,
}

impl Split {
    pub fn new<'a>(parts: impl IntoIterator<Item = (&'a [u8], u32)>) -> Self {
        let part = |(name, weight)| Part { seed: key_of(name), weight: f64::from(weight) };
        Self(parts.into_iter().map(part).collect())
    }

    /// Which of them a key belongs to; `None` when none has a weight.
    #[must_use]
    pub fn pick(&self, key: u64) -> Option<usize> {
        let drawn = |part: &Part| {
            // In (0, 1]: its logarithm is finite.
            let drawn = 1.0 - hash::unit(hash::mix(key ^ part.seed));
            -drawn.ln() / part.weight
        };
        let weighty = self.0.iter().enumerate().filter(|(_, part)| part.weight > 0.0);
        weighty.min_by(|(_, a), (_, b)| drawn(a).total_cmp(&drawn(b))).map(|(at, _)| at)
    }
}

/// A number for a text. No secret is in it: who chooses the text chooses the number.
#[must_use]
pub fn key_of(text: &[u8]) -> u64 {
    hash::xxh64(text, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENTS: u64 = 100_000;

    fn split(weights: &[u32]) -> Split {
        let names: [&[u8]; 4] = [b"stable", b"canary", b"blue", b"green"];
        Split::new(names.into_iter().zip(weights.iter().copied()))
    }

    fn client(number: u64) -> u64 {
        key_of(format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255).as_bytes())
    }

    #[test]
    fn shares_are_the_weights() {
        for weights in [&[99, 1][..], &[1, 1], &[50, 30, 20], &[3, 0, 1]] {
            let split = split(weights);
            let mut counts = vec![0_u32; weights.len()];
            (0..CLIENTS).for_each(|number| counts[split.pick(client(number)).unwrap()] += 1);
            let total: u32 = weights.iter().sum();
            for (count, weight) in counts.iter().zip(weights) {
                let (found, wanted) = (f64::from(*count) / CLIENTS as f64, f64::from(*weight) / f64::from(total));
                assert!((found - wanted).abs() < 0.005, "{weights:?} {counts:?}");
            }
        }
    }

    #[test]
    fn raising_a_weight_moves_clients_to_it_and_none_elsewhere() {
        for (raised, before, after) in
            [(1, [99, 1, 10], [99, 5, 10]), (2, [50, 30, 20], [50, 30, 40]), (0, [0, 1, 1], [1, 1, 1])]
        {
            let (before, after) = (split(&before), split(&after));
            let mut moved = 0;
            for number in 0..CLIENTS {
                let (was, is) = (before.pick(client(number)), after.pick(client(number)));
                assert!(was == is || is == Some(raised), "{number}: {was:?} to {is:?}");
                moved += u32::from(was != is);
            }
            assert!(moved > 0);
        }
    }

    /// The numbers are part of the promise: another version must not deal clients anew.
    #[test]
    fn the_deal_does_not_change() {
        assert_eq!(key_of(b"192.0.2.1"), key_of(b"192.0.2.1"));
        let split = split(&[1, 1, 1, 1]);
        let dealt: Vec<_> = (0..12).map(|number| split.pick(client(number)).unwrap()).collect();
        assert_eq!(dealt, DEALT);
    }

    const DEALT: [usize; 12] = [2, 0, 0, 2, 1, 1, 1, 3, 1, 1, 1, 3];

    #[test]
    fn nobody_to_give_to() {
        assert_eq!(split(&[0, 0]).pick(1), None);
        assert_eq!(Split::new([]).pick(1), None);
        assert_eq!(split(&[0, 1]).pick(u64::MAX), Some(1));
    }
}
