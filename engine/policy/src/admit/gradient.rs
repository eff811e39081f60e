//! A concurrency limit that is found: as many requests as the origin works on at a time, and few that wait inside it.
//!
//! Below its knee an origin answers in its base time however many requests it has; above it, each further one makes all
//! slower. So the limit climbs while it is used and the median latency stays within a quarter of the base, and is cut to seven tenths when
//! it does not. That is TCP Vegas's idea (Brakmo, Peterson 1995), as in Netflix's concurrency-limits and Envoy's adaptive concurrency; what we do
//! otherwise comes from their troubles:
//!
//! - **The base is measured in the troughs, and never probed for.** Envoy lowers the limit to 3 now and then to see the unloaded latency, and refuses
//!   bursts of requests meanwhile (envoy#8582). A limit that climbs and is cut does that by itself: 1.25 × 0.7 < 1, so right after a
//!   cut the origin has no queue, and what is seen then is its base. Were the base too high by a factor `b`, the trough would
//!   show `max(1, 0.88 b)`: it comes down by itself. A minimum over a time instead is the luckiest window's, and jumps when it is forgotten.
//! - **25 %** above the base are noise (envoy#9038: 20 to 25 ms made it overreact), and so is what the spread of the samples explains.
//! - **Only requests that began under the present limit are looked at** (envoy#11579), and for at least four times their
//!   median: a shorter look would see only the quick ones.
//! - **Cuts that do not help are taken back.** If three of them leave the latency where it was, it is not our doing (a deploy made the
//!   origin five times slower): it becomes the base, and the limit returns to where it stood.
//! - **It starts at the floor**, so that the first base seen is one, and doubles until the origin becomes slower: TCP's slow start.
//! - A limit that is not used says nothing about what lies above it, and does not grow.
//!
//! What to expect (`tests/admission.rs`: 4 to 100 servers, 5 to 200 ms, constant and exponential service times, up to three times the load): a limit of
//! 0.9 to 1.5 × the servers, a mean latency of 1.0 to 1.4 × the base, and most often over 90 % of what the origin can do, 70 % in the least
//! lucky half minute of a thousand. A change is followed within 15 s at 1000 requests a second, 40 s at 200: it takes samples.

use crate::{Now, Random, Verdict};

/// Latencies kept of one window; of more, a fair sample (Vitter: "Random Sampling with a Reservoir", 1985). The standard error of the
/// median of 256 exponentially distributed times is 9 % of it.
const SAMPLES: usize = 256;
/// 13 %: half of the tolerance.
const SAMPLES_MIN: u32 = 128;
/// Shortest window: long against the jitter of timers and of our own turns.
const WINDOW_NS_MIN: u64 = 100_000_000;
/// After this long a window of few requests counts too, so that a quiet pool learns of a change at all.
const WINDOW_NS_MAX: u64 = 5_000_000_000;
const SAMPLES_FEW: u32 = 16;
/// At the start the limit is small and answers come slowly: fewer suffice (21 %), and more must be seen in them before it ends.
const SAMPLES_START: u32 = 48;

const TOLERANCE: f64 = 1.25;
const CUT: f64 = 0.7;
const _: () = assert!(TOLERANCE * CUT < 1.0);
/// Growth a window: the overshoot over the knee's tolerance stays below this.
const GROWTH: f64 = 1.1;
/// From trough to knee it takes five windows or six. After more than that without a cut the knee is far away.
const CALM: u8 = 8;
const GROWTH_CALM: f64 = 1.3;
const GROWTH_START: f64 = 2.0;
const TOLERANCE_START: f64 = 1.5;
const ERRORS_START: f64 = 2.0;
/// Cuts that must have helped, and by how much.
const CUTS: u8 = 3;
const HELPED: f64 = 0.9;
/// Weight of a new trough in the base.
const TROUGH_WEIGHT: f64 = 0.5;
/// A median below the base by so many standard errors is no chance (1 in 700): the origin has become faster.
const FASTER_ERRORS: f64 = 3.0;
/// Standard error of a median, in interquartile ranges over √n: 1.253 ÷ 1.349, as for a normal distribution; for an exponential one
/// it is 0.91.
const ERROR_OF_SPREAD: f64 = 0.93;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GradientSettings {
    /// Never below this, and where it starts. The number of cores is a good one: with less in flight an origin idles.
    pub floor: u32,
    /// Never above this.
    pub ceiling: u32,
}

impl Default for GradientSettings {
    fn default() -> Self {
        Self { floor: 2, ceiling: 1000 }
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

/// A window's median latency and its standard error, ns.
#[derive(Debug, Clone, Copy)]
struct Seen {
    median: f64,
    error: f64,
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
    /// Windows since the last cut.
    calm: u8,
    /// No knee was met yet.
    starts: bool,
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
            limit: floor,
            calm: 0,
            starts: true,
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
        // A clock that was set back begins the window anew: it could not end before the clock is right again.
        if self.window.since.is_none_or(|since| since > now) {
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
        let wanted = match (elapsed >= WINDOW_NS_MAX, self.starts) {
            (true, _) => SAMPLES_FEW,
            (false, true) => SAMPLES_START,
            (false, false) => SAMPLES_MIN,
        };
        let enough = self.window.seen >= wanted;
        let seen = self.window.median();
        if !enough || (elapsed as f64) < 4.0 * seen.median {
            // A quarter later at the earliest: medians are not taken for each request.
            self.window.check_at = now.plus_nanos(elapsed / 4);
            return;
        }
        self.close(seen);
        self.window.reset();
    }

    fn close(&mut self, seen: Seen) {
        if self.base <= 0.0 || seen.median + FASTER_ERRORS * seen.error < self.base {
            self.base = seen.median;
        }
        let (tolerance, errors) = if self.starts { (TOLERANCE_START, ERRORS_START) } else { (TOLERANCE, 1.0) };
        if seen.median > self.base * tolerance + seen.error * errors {
            (self.starts, self.calm) = (false, 0);
            self.slower(seen.median);
            return;
        }
        if self.cuts.take().is_some() || self.starts {
            self.base += (seen.median - self.base) * TROUGH_WEIGHT;
        }
        if self.window.used {
            let growth = match (self.starts, self.calm >= CALM) {
                (true, _) => GROWTH_START,
                (false, true) => GROWTH_CALM,
                (false, false) => GROWTH,
            };
            self.calm = self.calm.saturating_add(1);
            self.set((self.limit * growth).max(self.limit + 1.0));
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
    /// Sorting the samples in part does them no harm: each is as good as another.
    fn median(&mut self) -> Seen {
        let len = (self.seen as usize).min(SAMPLES);
        if len < 4 {
            return Seen { median: self.samples[0] as f64, error: 0.0 };
        }
        let (below, &mut median, above) = self.samples[..len].select_nth_unstable(len / 2);
        let (_, &mut lower, _) = below.select_nth_unstable(len / 4);
        let (_, &mut upper, _) = above.select_nth_unstable(len / 4 - 1);
        let error = ERROR_OF_SPREAD * upper.saturating_sub(lower) as f64 / (len as f64).sqrt();
        Seen { median: median as f64, error }
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
        assert_eq!(gradient.limit(), 64, "twice a window at the start");
        windows(&mut gradient, &mut now, 1, 16);
        assert_eq!(gradient.limit(), 44);
        windows(&mut gradient, &mut now, 2, 12);
        assert_eq!(gradient.limit(), 54);
        windows(&mut gradient, &mut now, 1, 14);
        assert_eq!(gradient.limit(), 37);
    }

    #[test]
    fn a_slowness_that_cuts_do_not_heal_becomes_the_base() {
        let (mut gradient, mut now) = (Gradient::new(GradientSettings::default(), 1), Now::from_secs(1));
        windows(&mut gradient, &mut now, 5, 10);
        windows(&mut gradient, &mut now, 3, 50);
        assert_eq!(gradient.limit(), 21);
        windows(&mut gradient, &mut now, 1, 50);
        assert_eq!((gradient.limit(), gradient.base_ns()), (64, 50e6));
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
        assert_eq!(gradient.limit(), 2);
        assert!(gradient.window.epoch > 10);
    }

    #[test]
    fn a_clock_set_back_stops_nothing() {
        let (mut gradient, mut now) = (Gradient::new(GradientSettings::default(), 1), Now::from_secs(1_000_000));
        windows(&mut gradient, &mut now, 2, 10);
        let stale = gradient.begin(now);
        now = Now::from_secs(1);
        gradient.end(now, stale, 10 * MS, Verdict::Success);
        windows(&mut gradient, &mut now, 3, 10);
        assert!(gradient.limit() == 64 && now < Now::from_secs(3));
    }

    #[test]
    fn settings_that_contradict_one_another() {
        let gradient = Gradient::new(GradientSettings { floor: 0, ceiling: 0 }, 1);
        assert_eq!(gradient.limit(), 1);
        let gradient = Gradient::new(GradientSettings { floor: 50, ceiling: 10 }, 1);
        assert_eq!(gradient.limit(), 50);
    }
}
