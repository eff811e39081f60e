//! What is said of a handful of rounds: the minimum, the median, and ratios of each to each.

/// The smallest value; none of none.
pub(crate) fn min(values: &[f64]) -> Option<f64> {
    values.iter().copied().reduce(f64::min)
}

/// The middle value, or the mean of the two in the middle; none of none.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.is_empty() {
        None
    } else if sorted.len() % 2 == 1 {
        Some(sorted[middle])
    } else {
        Some(f64::midpoint(sorted[middle - 1], sorted[middle]))
    }
}

/// `ours` to `theirs`; none when either is missing or theirs is nothing to divide by.
pub(crate) fn ratio(ours: Option<f64>, theirs: Option<f64>) -> Option<f64> {
    let (ours, theirs) = (ours?, theirs?);
    (theirs > 0.0).then(|| ours / theirs)
}

/// Chance that a seed decides (SplitMix64).
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to 100.
    pub(crate) fn percent(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1u64 << 53) as f64 * 100.0
    }
}

/// An order of `0..count` drawn from a seed (Fisher–Yates): rounds must not always run in the same company.
pub(crate) fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut chance = Chance::new(seed);
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        let other = (chance.draw() % (last as u64 + 1)) as usize;
        order.swap(last, other);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minimum_and_median() {
        assert_eq!((min(&[]), median(&[])), (None, None));
        assert_eq!((min(&[3.0]), median(&[3.0])), (Some(3.0), Some(3.0)));
        assert_eq!((min(&[9.0, 1.0, 2.0]), median(&[9.0, 1.0, 2.0])), (Some(1.0), Some(2.0)));
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }

    #[test]
    fn ratios_need_both_sides() {
        assert_eq!(ratio(Some(17.0), Some(20.0)), Some(0.85));
        assert_eq!(ratio(None, Some(1.0)), None);
        assert_eq!(ratio(Some(1.0), None), None);
        assert_eq!(ratio(Some(1.0), Some(0.0)), None);
    }

    #[test]
    fn an_order_is_a_permutation_that_its_seed_tells() {
        let order = shuffled(7, 42);
        assert_eq!(order, shuffled(7, 42));
        let mut sorted = order;
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 1, 2, 3, 4, 5, 6]);
        assert!((0..20).any(|seed| shuffled(7, seed) != shuffled(7, seed + 1)));
        assert!(shuffled(0, 1).is_empty());
    }
}
