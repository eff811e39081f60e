//! A concurrency limit that is found: as many requests as the origin works on at a time, and few that wait inside it.
//!
//! Below its knee an origin answers in its base time however many requests it has; above it, each further one makes all
//! slower. So the limit climbs while it is used and the median latency stays within a quarter of the base, and is cut to three quarters when
//! it does not. That is TCP Vegas's idea (Brakmo, Peterson 1995), as in Netflix's concurrency-limits and Envoy's adaptive concurrency; what we do
//! otherwise comes from their troubles:
//!
//! - **The base is measured in the troughs, and never probed for.** Envoy lowers the limit to 3 now and then to see the unloaded latency, and refuses
//!   bursts of requests meanwhile (envoy#8582). A limit that climbs and is cut does that by itself: 1.25 × 0.75 < 1, so right after a
//!   cut the origin has no queue, and what is seen then is its base. Were the base too high by a factor `b`, the trough would
//!   show `max(1, 0.94 b)`: it comes down by itself. A minimum over a time instead is the luckiest window's, and jumps when it is forgotten.
//! - **25 %** above the base are noise (envoy#9038: 20 to 25 ms made it overreact).
//! - **Only requests that began under the present limit are looked at** (envoy#11579), and for at least four times their
//!   median: a shorter look would see only the quick ones.
//! - **Cuts that do not help are taken back.** If three of them leave the latency where it was, it is not our doing (a deploy made the
//!   origin five times slower): it becomes the base, and the limit returns to where it stood.
//! - A limit that is not used says nothing about what lies above it, and does not grow.

use crate::{Now, Random, Verdict};

/// Latencies kept of one window; of more, a fair sample (Vitter: "Random Sampling with a Reservoir", 1985). The median of 256
/// exponentially distributed times is within 9 % of the true one two times out of three.
const SAMPLES: usize = 256;
/// A median of fewer (12 %) would be taken for a knee too often.
const SAMPLES_MIN: u32 = 128;
/// Shortest window: long against the jitter of timers and of our own turns.
const WINDOW_NS_MIN: u64 = 100_000_000;
/// After this long a window of few requests counts too, so that a quiet pool learns of a change at all.
const WINDOW_NS_MAX: u64 = 5_000_000_000;
const SAMPLES_FEW: u32 = 16;

const TOLERANCE: f64 = 1.25;
const CUT: f64 = 0.75;
const _: () = assert!(TOLERANCE * CUT < 1.0);
/// Growth a window: the overshoot over the knee's tolerance stays below this.
const GROWTH: f64 = 1.1;
/// Cuts that must have helped, and by how much.
const CUTS: u8 = 3;
const HELPED: f64 = 0.9;
/// Weight of a new trough in the base.
const TROUGH_WEIGHT: f64 = 0.3;
/// Weight of a median that is below the base without a cut: the origin has become faster. Small, since noise alone puts half
/// of all medians there, and they pull one way only.
const BELOW_WEIGHT: f64 = 0.05;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GradientSettings {
    pub initial: u32,
    /// Never below this. The number of cores is a good one: with less in flight an origin idles.
    pub floor: u32,
    /// Never above this.
    pub ceiling: u32,
}

impl Default for GradientSettings {
    fn default() -> Self {
        Self { initial: 20, floor: 2, ceiling: 1000 }
    }
}

/// What was seen of the requests that began under the present limit.
#[derive(Debug, Clone)]
struct Window {
    epoch: u32,
    /// When its first request began.
    since: Option<Now>,
    /// Not looked at before then.
    check_at: Now,
    seen: u32,
    /// Whether the limit was reached.
    used: bool,
    samples: [u64; SAMPLES],
}

/// A row of cuts, from the first one on.
#[derive(Debug, Clone, Copy)]
struct Cuts {
    count: u8,
    median_before: f64,
    limit_before: f64,
}

#[derive(Debug, Clone)]
pub struct Gradient {
    window: Window,
    floor: f64,
    ceiling: f64,
    limit: f64,
    /// ns; zero until the first window closes.
    base: f64,
    cuts: Option<Cuts>,
    random: Random,
}

impl Gradient {
    #[must_use]
    pub fn new(settings: GradientSettings, seed: u64) -> Self {
        let floor = f64::from(settings.floor.max(1));
        let ceiling = f64::from(settings.ceiling).max(floor);
        Self {
            window: Window { epoch: 0, since: None, check_at: Now::ZERO, seen: 0, used: false, samples: [0; SAMPLES] },
            floor,
            ceiling,
            limit: f64::from(settings.initial).clamp(floor, ceiling),
            base: 0.0,
            cuts: None,
            random: Random::new(seed),
        }
    }

    #[must_use]
    pub const fn limit(&self) -> u32 {
        self.limit as u32
    }

    /// The latency that counts as unloaded, ns; zero before anything was seen.
    #[must_use]
    pub const fn base_ns(&self) -> f64 {
        self.base
    }

    /// A request goes out. Gives the epoch that it belongs to.
    pub fn begin(&mut self, now: Now) -> u32 {
        if self.window.since.is_none() {
            self.window.since = Some(now);
            self.window.check_at = now.plus_nanos(WINDOW_NS_MIN);
        }
        self.window.epoch
    }

    /// A request found no place.
    pub const fn refused(&mut self) {
        self.window.used = true;
    }

    /// A request of `epoch` came back after `latency_ns`.
    pub fn end(&mut self, now: Now, epoch: u32, latency_ns: u64, verdict: Verdict) {
        let teaches = match verdict {
            Verdict::Success => true,
            // One that fails at once tells nothing of the load; one that took longer than usual was waited for.
            Verdict::Failure => latency_ns as f64 > self.base,
            Verdict::Neutral => false,
        };
        if epoch != self.window.epoch || !teaches {
            return;
        }
        self.sample(latency_ns);
        if now >= self.window.check_at {
            self.look(now);
        }
    }

    fn sample(&mut self, latency_ns: u64) {
        let window = &mut self.window;
        window.seen = window.seen.saturating_add(1);
        let place = if (window.seen as usize) <= SAMPLES {
            window.seen as usize - 1
        } else {
            self.random.below(u64::from(window.seen)) as usize
        };
        if let Some(slot) = window.samples.get_mut(place) {
            *slot = latency_ns;
        }
    }

    /// Closes the window if it has lasted long enough.
    fn look(&mut self, now: Now) {
        let elapsed = now.nanos_since(self.window.since.unwrap_or(now));
        let enough = self.window.seen >= SAMPLES_MIN || (self.window.seen >= SAMPLES_FEW && elapsed >= WINDOW_NS_MAX);
        let median = self.window.median();
        if !enough || (elapsed as f64) < 4.0 * median {
            // A quarter later at the earliest: medians are not taken for each request.
            self.window.check_at = now.plus_nanos(elapsed / 4);
            return;
        }
        self.close(median);
        self.window.reset();
    }

    fn close(&mut self, median: f64) {
        if self.base <= 0.0 {
            self.base = median;
        }
        if median > self.base * TOLERANCE {
            self.slower(median);
            return;
        }
        if self.cuts.take().is_some() {
            self.base += (median - self.base) * TROUGH_WEIGHT;
        } else if median < self.base {
            self.base += (median - self.base) * BELOW_WEIGHT;
        }
        if self.window.used {
            self.set((self.limit * GROWTH).max(self.limit + 1.0));
        }
    }

    /// Cuts, unless cutting was in vain.
    fn slower(&mut self, median: f64) {
        let fresh = Cuts { count: 0, median_before: median, limit_before: self.limit };
        let mut cuts = self.cuts.unwrap_or(fresh);
        if cuts.count >= CUTS {
            if median > cuts.median_before * HELPED {
                self.base = median;
                self.cuts = None;
                self.set(cuts.limit_before);
                return;
            }
            cuts = fresh;
        }
        cuts.count += 1;
        self.cuts = Some(cuts);
        self.set(self.limit * CUT);
    }

    fn set(&mut self, limit: f64) {
        self.limit = limit.clamp(self.floor, self.ceiling);
    }
}

impl Window {
    /// ns. Sorting the samples in part does them no harm: each is as good as another.
    fn median(&mut self) -> f64 {
        let len = (self.seen as usize).min(SAMPLES);
        if len == 0 {
            return 0.0;
        }
        *self.samples[..len].select_nth_unstable(len / 2).1 as f64
    }

    const fn reset(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        (self.since, self.seen, self.used) = (None, 0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Windows of requests that all take `latency_ms`, with the limit in use.
    fn windows(gradient: &mut Gradient, now: &mut Now, count: u32, latency_ms: u64) {
        let epoch = gradient.window.epoch;
        while gradient.window.epoch.wrapping_sub(epoch) < count {
            let begun = gradient.begin(*now);
            gradient.refused();
            *now = now.plus_nanos(MS);
            gradient.end(*now, begun, latency_ms * MS, Verdict::Success);
        }
    }

    #[test]
    fn climbs_while_used_and_is_cut_when_slow() {
        let (mut gradient, mut now) = (Gradient::new(GradientSettings::default(), 1), Now::from_secs(1));
        windows(&mut gradient, &mut now, 5, 10);
        assert_eq!(gradient.limit(), 32);
        windows(&mut gradient, &mut now, 1, 13);
        assert_eq!(gradient.limit(), 24);
    }

    #[test]
    fn a_slowness_that_cuts_do_not_heal_becomes_the_base() {
        let (mut gradient, mut now) = (Gradient::new(GradientSettings::default(), 1), Now::from_secs(1));
        windows(&mut gradient, &mut now, 5, 10);
        windows(&mut gradient, &mut now, 3, 50);
        assert_eq!(gradient.limit(), 13);
        windows(&mut gradient, &mut now, 1, 50);
        assert_eq!((gradient.limit(), gradient.base_ns()), (32, 50e6));
    }

    #[test]
    fn old_epochs_and_quick_failures_teach_nothing() {
        let (mut gradient, mut now) = (Gradient::new(GradientSettings::default(), 1), Now::from_secs(1));
        let old = gradient.begin(now);
        windows(&mut gradient, &mut now, 1, 10);
        gradient.end(now, old, 900 * MS, Verdict::Success);
        let young = gradient.begin(now);
        gradient.end(now, young, MS, Verdict::Failure);
        gradient.end(now, young, 900 * MS, Verdict::Neutral);
        assert_eq!(gradient.window.seen, 0);
        gradient.end(now, young, 900 * MS, Verdict::Failure);
        assert_eq!(gradient.window.seen, 1);
    }

    #[test]
    fn an_unused_limit_stays() {
        let (mut gradient, mut now) = (Gradient::new(GradientSettings::default(), 1), Now::from_secs(1));
        for _ in 0..10_000 {
            let begun = gradient.begin(now);
            now = now.plus_nanos(MS);
            gradient.end(now, begun, 10 * MS, Verdict::Success);
        }
        assert_eq!(gradient.limit(), 20);
        assert!(gradient.window.epoch > 10);
    }

    #[test]
    fn settings_that_contradict_one_another() {
        let gradient = Gradient::new(GradientSettings { initial: 0, floor: 0, ceiling: 0 }, 1);
        assert_eq!(gradient.limit(), 1);
        let gradient = Gradient::new(GradientSettings { initial: 5, floor: 50, ceiling: 10 }, 1);
        assert_eq!(gradient.limit(), 50);
    }
}
