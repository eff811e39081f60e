//! Finding the endpoint that is worse than its neighbours, and leaving it out for a while.
//!
//! A breaker judges an endpoint by itself. Looking at the whole pool tells what no single endpoint shows: 3 % of errors are an
//! outlier where the others have none, and nothing special where all have them. So, once an interval and over the sums of all
//! workers, in this order:
//!
//! 1. gateway errors in a row (502, 503, 504, no answer),
//! 2. server errors in a row (any 5xx and the above),
//! 3. a success rate below `mean − factor × standard deviation` of the pool's,
//! 4. a mean latency above `median + factor × MAD`, and at least twice the median: the median and the median absolute
//!    deviation are not moved by the very endpoint that is looked for, as mean and deviation would be.
//!
//! Who is found is ejected for `base × times`, longer each time, and the count goes down by one for every `base` that
//! it then stays well. The worst are taken first, and never more than the cap. **The cap is half of the pool**, rounded down, and
//! one endpoint always stays: if more than half are outliers then they are the norm, and the trouble lies behind
//! them; and the rest would not carry twice their load. (Envoy's default of 10 % ejects one of 19, and suits pools of hundreds.)
//!
//! The same input gives the same output; nothing is allocated after the pool is known.
//! Sources: Envoy, "Outlier detection" (its consecutive and success-rate algorithms, 1.9 deviations, 5 hosts, 100 requests); Leys et al.,
//! "Detecting outliers: Do not use standard deviation around the mean, use absolute deviation around the median" (2013).

use crate::{Now, time::nanos};
use std::time::Duration;

/// MAD × 1.4826 estimates the standard deviation of what is normally distributed.
const MAD_TO_DEVIATION: f64 = 1.4826;

/// No slower than this is ever an outlier: where all answer in a few hundred microseconds, twice as slow is noise.
const LATENCY_MARGIN_NS: f64 = 5e6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutlierSettings {
    /// Between two evaluations.
    pub interval: Duration,
    /// Gateway errors in a row; zero: off.
    pub consecutive_gateway: u32,
    /// Server errors in a row; zero: off.
    pub consecutive_5xx: u32,
    /// Deviations below the mean success rate, in thousandths; zero: off.
    pub success_rate_factor: u16,
    /// Deviations above the median latency, in thousandths; zero: off.
    pub latency_factor: u16,
    /// Endpoints with enough calls before the pool is compared.
    pub hosts_min: u16,
    /// Calls in an interval before an endpoint is compared.
    pub calls_min: u32,
    /// The first ejection lasts this long, the n-th n times as long.
    pub base: Duration,
    /// No ejection is longer.
    pub longest: Duration,
    /// Endpoints ejected at a time, of a hundred.
    pub share_max: u8,
}

impl Default for OutlierSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            consecutive_gateway: 5,
            consecutive_5xx: 10,
            success_rate_factor: 1900,
            latency_factor: 5000,
            hosts_min: 5,
            calls_min: 100,
            base: Duration::from_secs(30),
            longest: Duration::from_secs(300),
            share_max: 50,
        }
    }
}

/// What one endpoint did since the last evaluation, over all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sums {
    pub calls: u32,
    /// Of those, 5xx and failures to answer.
    pub failures: u32,
    /// The latencies of those that succeeded, added up, in nanoseconds.
    pub latency_ns: u64,
    /// The longest run of gateway errors that any worker saw.
    pub gateway_in_a_row: u32,
    /// The longest run of server errors of any kind.
    pub failures_in_a_row: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Oddity {
    ConsecutiveGateway,
    Consecutive5xx,
    SuccessRate,
    Latency,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Out of the choice until then.
    Eject { why: Oddity, until: Now },
    /// Back in it.
    Return,
}

#[derive(Debug, Clone, Copy, Default)]
struct Member {
    /// Ejected: until when. In the choice: since when it has been well, as the count goes down.
    edge: Now,
    ejected: bool,
    times: u16,
}

/// The outlier detector of one pool, for the whole process.
#[derive(Debug, Clone)]
pub struct Outliers {
    settings: OutlierSettings,
    members: Box<[Member]>,
    scratch: Vec<f64>,
    last: Now,
}

impl Outliers {
    #[must_use]
    pub fn new(settings: OutlierSettings, endpoints: usize, now: Now) -> Self {
        Self {
            settings,
            members: vec![Member::default(); endpoints].into(),
            scratch: Vec::with_capacity(endpoints),
            last: now,
        }
    }

    /// When [`evaluate`](Self::evaluate) is due.
    #[must_use]
    pub fn next_at(&self, now: Now) -> Now {
        let wanted = self.last.plus(self.settings.interval);
        // The clock has gone back: an interval from now at most.
        wanted.min(now.plus(self.settings.interval))
    }

    #[must_use]
    pub fn is_ejected(&self, index: usize) -> bool {
        self.members.get(index).is_some_and(|member| member.ejected)
    }

    /// The endpoints have changed: for each of now the place that it had before, `None` for one that has joined. What is known
    /// of those that stay moves with them. Allocates.
    pub fn rearrange(&mut self, places: &[Option<usize>]) {
        let known = |place: &Option<usize>| place.and_then(|place| self.members.get(place).copied());
        self.members = places.iter().map(|place| known(place).unwrap_or_default()).collect();
        self.scratch.reserve(places.len());
    }

    /// Looks at the sums of one interval, one for each endpoint, and tells each change as it decides it.
    pub fn evaluate(&mut self, now: Now, sums: &[Sums], mut tell: impl FnMut(usize, Change)) {
        debug_assert_eq!(sums.len(), self.members.len(), "a pool that changes is rearranged");
        self.last = now;
        self.let_back(now, &mut tell);
        for why in [Oddity::ConsecutiveGateway, Oddity::Consecutive5xx, Oddity::SuccessRate, Oddity::Latency] {
            // One bound for all: ejecting one must not make another one odd.
            let Some(bound) = self.bound(why, sums) else { continue };
            while self.may_eject()
                && let Some(worst) = self.worst(why, sums, bound)
            {
                let until = self.eject(worst, now);
                tell(worst, Change::Eject { why, until });
            }
        }
        self.forgive(now);
    }

    fn let_back(&mut self, now: Now, tell: &mut impl FnMut(usize, Change)) {
        let longest = nanos(self.settings.longest).saturating_mul(2);
        for (index, member) in self.members.iter_mut().enumerate() {
            // Further ahead than any ejection: the clock has gone back.
            let over = now >= member.edge || member.edge.nanos_since(now) > longest;
            if member.ejected && over {
                (member.ejected, member.edge) = (false, now);
                tell(index, Change::Return);
            }
        }
    }

    /// The badness from which on an endpoint is odd; `None`: this kind is off, or there is too little to compare.
    fn bound(&mut self, why: Oddity, sums: &[Sums]) -> Option<f64> {
        let (settings, whole) = (self.settings, |factor: u16| f64::from(factor) / 1000.0);
        match why {
            Oddity::ConsecutiveGateway => on(settings.consecutive_gateway).map(f64::from),
            Oddity::Consecutive5xx => on(settings.consecutive_5xx).map(f64::from),
            Oddity::SuccessRate => {
                let factor = whole(on(settings.success_rate_factor)?);
                self.gather(why, sums)?;
                let (mean, deviation) = mean_and_deviation(&self.scratch);
                // A hundredth at least, or one error among none would be an outlier.
                Some(mean + (factor * deviation).max(0.01))
            }
            Oddity::Latency => {
                let factor = whole(on(settings.latency_factor)?);
                self.gather(why, sums)?;
                let median = median(&mut self.scratch);
                self.scratch.iter_mut().for_each(|value| *value = (*value - median).abs());
                let mad = self::median(&mut self.scratch);
                Some((median + factor * MAD_TO_DEVIATION * mad).max(2.0 * median).max(median + LATENCY_MARGIN_NS))
            }
        }
    }

    /// The badness of all that can be compared, in the scratch space; `None` if they are too few.
    fn gather(&mut self, why: Oddity, sums: &[Sums]) -> Option<()> {
        self.scratch.clear();
        for (member, sums) in self.members.iter().zip(sums).filter(|(member, _)| !member.ejected) {
            debug_assert!(!member.ejected);
            self.scratch.extend(badness(why, sums, self.settings.calls_min));
        }
        (self.scratch.len() >= usize::from(self.settings.hosts_min.max(2))).then_some(())
    }

    /// The worst endpoint at or beyond the bound; of equals, the first.
    fn worst(&self, why: Oddity, sums: &[Sums], bound: f64) -> Option<usize> {
        let mut worst = None;
        for (index, sums) in sums.iter().enumerate().take(self.members.len()) {
            let Some(bad) = badness(why, sums, self.settings.calls_min) else { continue };
            if !self.members[index].ejected && bad >= bound && worst.is_none_or(|(_, most)| bad > most) {
                worst = Some((index, bad));
            }
        }
        worst.map(|(index, _)| index)
    }

    fn may_eject(&self) -> bool {
        let (all, ejected) = (self.members.len(), self.members.iter().filter(|member| member.ejected).count());
        let most = (all * usize::from(self.settings.share_max.min(100)) / 100).min(all.saturating_sub(1));
        ejected < most
    }

    fn eject(&mut self, index: usize, now: Now) -> Now {
        let member = &mut self.members[index];
        member.times = member.times.saturating_add(1);
        let time = nanos(self.settings.base).saturating_mul(u64::from(member.times)).min(nanos(self.settings.longest));
        (member.ejected, member.edge) = (true, now.plus_nanos(time));
        member.edge
    }

    /// One time less for each `base` that an endpoint has been well.
    fn forgive(&mut self, now: Now) {
        let base = nanos(self.settings.base).max(1);
        for member in self.members.iter_mut().filter(|member| !member.ejected && member.times > 0) {
            let periods = now.nanos_since(member.edge) / base;
            member.times = member.times.saturating_sub(u16::try_from(periods).unwrap_or(u16::MAX));
            member.edge = member.edge.plus_nanos(periods.saturating_mul(base)).min(now);
        }
    }
}

/// How bad an endpoint is in this respect; `None` when there is too little to say.
fn badness(why: Oddity, sums: &Sums, calls_min: u32) -> Option<f64> {
    let compared = sums.calls >= calls_min.max(1);
    let successes = sums.calls.saturating_sub(sums.failures);
    match why {
        Oddity::ConsecutiveGateway => Some(f64::from(sums.gateway_in_a_row)),
        Oddity::Consecutive5xx => Some(f64::from(sums.failures_in_a_row)),
        Oddity::SuccessRate => compared.then(|| f64::from(sums.calls - successes) / f64::from(sums.calls)),
        Oddity::Latency => (compared && successes > 0).then(|| sums.latency_ns as f64 / f64::from(successes)),
    }
}

/// `None` for zero, which means off.
fn on<T: PartialEq + Default>(setting: T) -> Option<T> {
    (setting != T::default()).then_some(setting)
}

fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let count = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

/// The upper median; sorts. Zero of nothing.
fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Sums {
        Sums { calls: 1000, latency_ns: 1000 * 2_000_000, ..Sums::default() }
    }

    fn changes(outliers: &mut Outliers, secs: u64, sums: &[Sums]) -> Vec<(usize, Change)> {
        let mut list = Vec::new();
        outliers.evaluate(Now::from_secs(secs), sums, |index, change| list.push((index, change)));
        list
    }

    fn outliers(endpoints: usize) -> Outliers {
        Outliers::new(OutlierSettings::default(), endpoints, Now::ZERO)
    }

    #[test]
    fn each_oddity_is_found_and_named() {
        let table = [
            (Sums { gateway_in_a_row: 5, failures_in_a_row: 5, ..well() }, Oddity::ConsecutiveGateway),
            (Sums { failures_in_a_row: 10, ..well() }, Oddity::Consecutive5xx),
            (Sums { failures: 100, ..well() }, Oddity::SuccessRate),
            (Sums { latency_ns: 1000 * 40_000_000, ..well() }, Oddity::Latency),
        ];
        for (odd, why) in table {
            let mut sums = [well(); 6];
            sums[4] = odd;
            let until = Now::from_secs(40);
            assert_eq!(changes(&mut outliers(6), 10, &sums), [(4, Change::Eject { why, until })]);
        }
        assert_eq!(changes(&mut outliers(6), 10, &[well(); 6]), []);
    }

    #[test]
    fn what_all_have_is_no_oddity() {
        let bad = Sums { failures: 300, latency_ns: 1000 * 900_000_000, ..well() };
        assert_eq!(changes(&mut outliers(6), 10, &[bad; 6]), []);
        let sums: Vec<_> = (0..8_u32).map(|index| Sums { failures: 20 + index, ..well() }).collect();
        assert_eq!(changes(&mut outliers(8), 10, &sums), [], "a spread is none either");
    }

    #[test]
    fn few_calls_and_few_hosts_say_nothing() {
        let odd = Sums { failures: 40, ..Sums { calls: 99, latency_ns: 99 * 2_000_000, ..well() } };
        let mut sums = [well(); 6];
        sums[0] = odd;
        assert_eq!(changes(&mut outliers(6), 10, &sums), []);
        let mut sums = [well(); 4];
        sums[0].failures = 900;
        assert_eq!(changes(&mut outliers(4), 10, &sums), []);
    }

    #[test]
    fn half_of_the_pool_stays_and_the_worst_go_first() {
        for (endpoints, most) in [(1, 0), (2, 1), (3, 1), (5, 2), (8, 4)] {
            let sums: Vec<_> = (0..endpoints).map(|run| Sums { gateway_in_a_row: 5 + run as u32, ..well() }).collect();
            let found = changes(&mut outliers(endpoints), 10, &sums);
            let wanted: Vec<_> = (0..endpoints).rev().take(most).collect();
            assert_eq!(found.iter().map(|change| change.0).collect::<Vec<_>>(), wanted);
        }
        let all = OutlierSettings { share_max: 100, ..OutlierSettings::default() };
        let sums = [Sums { gateway_in_a_row: 9, ..well() }; 4];
        assert_eq!(changes(&mut Outliers::new(all, 4, Now::ZERO), 10, &sums).len(), 3, "one always stays");
    }

    #[test]
    fn a_repeated_outlier_is_out_longer_and_is_forgiven_in_time() {
        let (mut outliers, mut odd) = (outliers(2), [well(); 2]);
        odd[1].gateway_in_a_row = 9;
        let (mut now, mut times) = (10, Vec::new());
        for _ in 0..12 {
            let found = changes(&mut outliers, now, &odd);
            let Some(&(1, Change::Eject { until, .. })) = found.last() else { panic!("{found:?}") };
            times.push(until.since(Now::from_secs(now)).as_secs());
            now += times.last().unwrap();
        }
        assert_eq!(times, [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]);
        for step in 0..40 {
            changes(&mut outliers, now + 10 * step, &[well(); 2]);
        }
        let found = changes(&mut outliers, now + 400, &odd);
        assert_eq!(found, [(1, Change::Eject { why: Oddity::ConsecutiveGateway, until: Now::from_secs(now + 430) })]);
    }

    #[test]
    fn what_is_known_moves_with_its_endpoint() {
        let (mut outliers, mut odd) = (outliers(3), [well(); 3]);
        odd[1].gateway_in_a_row = 9;
        assert_eq!(changes(&mut outliers, 10, &odd).len(), 1);
        outliers.rearrange(&[None, Some(2), Some(1), Some(0)]);
        let ejected: Vec<_> = (0..4).map(|index| outliers.is_ejected(index)).collect();
        assert_eq!(ejected, [false, false, true, false]);
        assert_eq!(changes(&mut outliers, 40, &[well(); 4]), [(2, Change::Return)]);
        outliers.rearrange(&[None]);
        assert!(!outliers.is_ejected(0));
    }

    #[test]
    fn a_clock_that_goes_back_keeps_nobody_out() {
        let (mut outliers, mut odd) = (outliers(2), [well(); 2]);
        odd[0].gateway_in_a_row = 9;
        assert_eq!(changes(&mut outliers, 1_000_000, &odd).len(), 1);
        assert_eq!(changes(&mut outliers, 100, &[well(); 2]), [(0, Change::Return)]);
        assert!(outliers.next_at(Now::from_secs(100)) <= Now::from_secs(110));
    }
}
