//! A histogram of fixed size with one writer: eight buckets to each doubling, so a quantile is at most 12.5 % too high.

use super::Cell;

/// Buckets to a doubling, as a power of two.
const FINE_BITS: u32 = 3;
/// Up to 2^40 ns, 18 minutes; longer counts as that.
const BUCKETS: usize = (40 << FINE_BITS) as usize;

/// Nanoseconds, or bytes, counted by magnitude. 2.5 KiB.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Cell; BUCKETS],
    sum: Cell,
}

/// Several histograms added up.
#[derive(Clone, Debug)]
pub struct Summary {
    buckets: Vec<u64>,
    pub count: u64,
    /// Of all values, in nanoseconds.
    pub sum: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [const { Cell(std::sync::atomic::AtomicU64::new(0)) }; BUCKETS], sum: Cell::default() }
    }
}

impl Histogram {
    #[inline]
    pub fn record(&self, nanos: u64) {
        self.record_all(nanos, 1);
    }

    /// So many of the same.
    #[inline]
    pub fn record_all(&self, nanos: u64, count: u64) {
        self.buckets[bucket(nanos)].add(count);
        self.sum.add(nanos.saturating_mul(count));
    }
}

impl Default for Summary {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, sum: 0 }
    }
}

impl Summary {
    pub fn add(&mut self, histogram: &Histogram) {
        for (total, cell) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *total += cell.get();
            self.count += cell.get();
        }
        self.sum += histogram.sum.get();
    }

    /// What has been added since `earlier` was taken of the same histograms.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let buckets: Vec<u64> = self.buckets.iter().zip(&earlier.buckets).map(|(now, then)| now - then).collect();
        Self { count: buckets.iter().sum(), buckets, sum: self.sum.wrapping_sub(earlier.sum) }
    }

    /// The value below which `share` of the values lie, in nanoseconds: the upper edge of its bucket. 0 when empty.
    #[must_use]
    pub fn quantile(&self, share: f64) -> u64 {
        let rank = (self.count as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank && *count > 0 {
                return upper_edge(index);
            }
        }
        0
    }

    /// How many values are at most `nanos`, to the bucket's accuracy.
    #[must_use]
    pub fn at_most(&self, nanos: u64) -> u64 {
        self.buckets
            .iter()
            .enumerate()
            .take_while(|(index, _)| upper_edge(*index) <= nanos)
            .map(|(_, count)| count)
            .sum()
    }
}

fn bucket(nanos: u64) -> usize {
    let fine = 1 << FINE_BITS;
    if nanos < fine {
        return nanos as usize;
    }
    let magnitude = nanos.ilog2();
    let within = (nanos >> (magnitude - FINE_BITS)) & (fine - 1);
    ((((magnitude - FINE_BITS + 1) as u64) << FINE_BITS | within) as usize).min(BUCKETS - 1)
}

fn upper_edge(bucket: usize) -> u64 {
    let fine = 1_u64 << FINE_BITS;
    let bucket = bucket as u64;
    if bucket < fine {
        return bucket;
    }
    let magnitude = (bucket >> FINE_BITS) - 1 + u64::from(FINE_BITS);
    let within = bucket & (fine - 1);
    ((fine + within + 1) << (magnitude - u64::from(FINE_BITS))) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket_within_an_eighth() {
        for nanos in (0..2_000).chain((11..40).flat_map(|bits| [(1_u64 << bits) - 1, 1 << bits, (1 << bits) + 77])) {
            let edge = upper_edge(bucket(nanos));
            assert!(edge >= nanos, "{nanos} above {edge}");
            assert!(edge as f64 <= nanos as f64 * 1.126 + 1.0, "{nanos} far below {edge}");
        }
    }

    #[test]
    fn quantiles_of_what_came_since() {
        let histogram = Histogram::default();
        (1..=1_000).for_each(|micros| histogram.record(micros * 1_000));
        let mut before = Summary::default();
        before.add(&histogram);
        assert!((500_000..570_000).contains(&before.quantile(0.5)), "{}", before.quantile(0.5));
        (0..10).for_each(|_| histogram.record(5_000_000));
        let mut after = Summary::default();
        after.add(&histogram);
        let since = after.since(&before);
        assert_eq!(since.count, 10);
        assert!((5_000_000..5_700_000).contains(&since.quantile(0.5)));
        assert_eq!(Summary::default().quantile(0.99), 0);
    }
}
