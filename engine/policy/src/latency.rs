//! The latencies of the last while, as a histogram that forgets.
//!
//! Four buckets an octave from 64 µs to 67 s (as HdrHistogram divides an octave), so that a quantile is right to a quarter
//! upwards and never too small. Two such windows: the present one, and the one before, so that there is always one
//! full window to ask. A window ends after its time, if it holds enough to stand alone; a quiet pool keeps
//! what it has up to a minute.
//! Source: Tene, HdrHistogram (log-linear buckets); Dean and Barroso, "The Tail at Scale" (CACM 2013), on what quantiles of
//! recent latency are good for.

use crate::{Now, time::nanos};
use std::time::Duration;

const SUB_BITS: u32 = 2;
const OCTAVE_MIN: u32 = 16;
const OCTAVES: u32 = 20;
/// The first bucket holds all that is shorter than 2^16 ns, the last one all that is longer than the others hold.
const BUCKETS: usize = (OCTAVES << SUB_BITS) as usize + 1;

/// Time for a window when traffic is steady.
const WINDOW: Duration = Duration::from_secs(5);
/// A window that has not filled ends all the same, and what is older is forgotten.
const WINDOW_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
struct Histogram {
    counts: [u16; BUCKETS],
    total: u32,
}

impl Histogram {
    const EMPTY: Self = Self { counts: [0; BUCKETS], total: 0 };

    fn add(&mut self, bucket: usize) {
        if self.counts[bucket] == u16::MAX {
            self.halve();
        }
        self.counts[bucket] += 1;
        self.total += 1;
    }

    /// Keeps the shape when a counter is full.
    fn halve(&mut self) {
        self.counts.iter_mut().for_each(|count| *count /= 2);
        self.total = self.counts.iter().map(|&count| u32::from(count)).sum();
    }
}

/// Recent latencies of one pool as one worker sees them. 352 bytes; recording is one increment.
#[derive(Debug, Clone)]
pub struct Latencies {
    present: Histogram,
    past: Histogram,
    /// When the present window began.
    turned: Now,
    /// Samples after which a window can stand alone.
    enough: u32,
}

const _: () = assert!(size_of::<Latencies>() <= 360);

impl Latencies {
    #[must_use]
    pub const fn new(enough: u16) -> Self {
        Self { present: Histogram::EMPTY, past: Histogram::EMPTY, turned: Now::ZERO, enough: enough as u32 }
    }

    /// Takes in one latency. True when a window has ended with it.
    pub fn record(&mut self, now: Now, latency: Duration) -> bool {
        let turned = self.turn(now);
        self.present.add(bucket_of(nanos(latency)));
        turned
    }

    /// The latency that `permille` of a thousand requests did not exceed, and no more than one of any number, rounded up to its bucket's end; of the
    /// present window alone where that is longer, because bad news is news. `None` as long as there are not enough samples.
    #[must_use]
    pub fn quantile(&self, now: Now, permille: u16) -> Option<Duration> {
        if now.since(self.turned) > WINDOW_MAX * 2 {
            return None;
        }
        let both = self.past.total + self.present.total;
        let recent = |bucket: usize| u32::from(self.present.counts[bucket]);
        let all = |bucket: usize| recent(bucket) + u32::from(self.past.counts[bucket]);
        let longer = quantile_of(all, both, self.enough, permille)?;
        let fresh = quantile_of(recent, self.present.total, self.enough, permille).unwrap_or(0);
        Some(Duration::from_nanos(end_of(longer.max(fresh))))
    }

    fn turn(&mut self, now: Now) -> bool {
        let age = now.since(self.turned);
        // A clock that has gone back by more than a window would keep this one for as long.
        let jumped = self.turned.since(now) > WINDOW;
        let over = age >= WINDOW && self.present.total >= self.enough || age >= WINDOW_MAX || jumped;
        if over {
            self.past = std::mem::replace(&mut self.present, Histogram::EMPTY);
            self.turned = now;
        }
        over
    }
}

fn quantile_of(count: impl Fn(usize) -> u32, total: u32, enough: u32, permille: u16) -> Option<usize> {
    if total < enough.max(1) {
        return None;
    }
    // The longest of a few is an accident, and no quantile: one alone never decides.
    let above = (u64::from(total) * u64::from(1000 - permille.min(1000)) / 1000).max(1);
    let mut seen = 0;
    // From the far end: the tail is short.
    (0..BUCKETS).rev().find(|&bucket| {
        seen += u64::from(count(bucket));
        seen > above
    })
}

fn bucket_of(nanos: u64) -> usize {
    let octave = nanos.max(1).ilog2();
    if octave < OCTAVE_MIN {
        return 0;
    }
    let within = (nanos >> (octave - SUB_BITS)) as usize & ((1 << SUB_BITS) - 1);
    ((((octave - OCTAVE_MIN) << SUB_BITS) as usize) + within + 1).min(BUCKETS - 1)
}

/// The least latency, in nanoseconds, that lies beyond the bucket.
fn end_of(bucket: usize) -> u64 {
    let (octave, within) = (OCTAVE_MIN + (bucket >> SUB_BITS) as u32, (bucket & ((1 << SUB_BITS) - 1)) as u64);
    ((1 << SUB_BITS) + within) << (octave - SUB_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn each_latency_is_in_its_bucket_and_the_end_is_less_than_a_quarter_away() {
        let mut random = Random::new(1);
        for _ in 0..100_000 {
            let nanos = random.next_u64() >> random.below(64);
            let (bucket, end) = (bucket_of(nanos), end_of(bucket_of(nanos)));
            assert!(bucket < BUCKETS);
            if bucket < BUCKETS - 1 {
                assert!(nanos < end, "{nanos} {end}");
            }
            if bucket > 0 {
                assert!(end_of(bucket - 1) <= nanos);
                assert!(bucket == BUCKETS - 1 || end - nanos <= nanos / 4 + 1);
            }
        }
    }

    #[test]
    fn quantiles_agree_with_the_sorted_list() {
        let mut random = Random::new(2);
        let mut latencies = Latencies::new(50);
        let mut list: Vec<_> =
            (0..10_000).map(|_| Duration::from_secs_f64(0.001 * (random.unit() * 6.0).exp())).collect();
        for &latency in &list {
            latencies.record(Now::from_secs(1), latency);
        }
        list.sort();
        for permille in [500, 900, 950, 990, 995, 999] {
            let exact = list[10_000 * usize::from(permille) / 1000 - 1];
            let found = latencies.quantile(Now::from_secs(1), permille).unwrap();
            assert!(found >= exact && found <= exact.mul_f64(1.27), "{permille}: {found:?} {exact:?}");
        }
    }

    #[test]
    fn one_alone_decides_nothing() {
        let mut latencies = Latencies::new(50);
        (0..100).for_each(|_| _ = latencies.record(Now::from_secs(10), MS));
        latencies.record(Now::from_secs(10), MS * 20_000);
        assert!(latencies.quantile(Now::from_secs(10), 995).unwrap() < MS * 2);
        latencies.record(Now::from_secs(10), MS * 20_000);
        assert!(latencies.quantile(Now::from_secs(10), 995).unwrap() >= MS * 20_000);
    }

    #[test]
    fn says_nothing_on_few_samples_and_forgets_the_old() {
        let mut latencies = Latencies::new(50);
        (0..49).for_each(|_| _ = latencies.record(Now::from_secs(10), MS * 100));
        assert_eq!(latencies.quantile(Now::from_secs(10), 990), None);
        for second in 10..16 {
            (0..100).for_each(|_| _ = latencies.record(Now::from_secs(second), MS * 100));
        }
        assert!(latencies.quantile(Now::from_secs(16), 990).unwrap() >= MS * 100);
        for second in 16..30 {
            (0..100).for_each(|_| _ = latencies.record(Now::from_secs(second), MS));
        }
        assert!(latencies.quantile(Now::from_secs(30), 990).unwrap() < MS * 2);
        assert_eq!(latencies.quantile(Now::from_secs(3000), 990), None);
    }

    #[test]
    fn a_full_counter_and_a_clock_that_goes_back_do_no_harm() {
        let mut latencies = Latencies::new(50);
        for turn in 0..1_000_000_u32 {
            latencies.record(Now::from_secs(100), if turn % 10 == 0 { MS * 50 } else { MS });
        }
        let high = latencies.quantile(Now::from_secs(100), 990).unwrap();
        assert!((MS * 50..MS * 70).contains(&high), "{high:?}");
        for second in 0..20 {
            (0..100).for_each(|_| _ = latencies.record(Now::from_secs(second), MS));
        }
        assert!(latencies.quantile(Now::from_secs(20), 990).unwrap() < MS * 2);
    }
}
