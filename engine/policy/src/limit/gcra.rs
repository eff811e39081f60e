//! The generic cell rate algorithm: a rate limit whose whole memory is one time.
//!
//! A key's *theoretical arrival time* (TAT) is when all that it was granted is paid for. A request of cost `c` moves it on by
//! `c` emission intervals from itself or from now, whichever is later, and is granted if it then lies at most a burst
//! ahead. So there is no counter to refill, no window whose edge lets twice the rate through, and a TAT that has passed says the same as none at all.
//! Source: ITU-T I.371 (03/2004), annex A, virtual scheduling; ATM Forum TM 4.1.
//!
//! Arithmetic: emission intervals are kept in 2⁻³² ns, times in whole ns, rounded to the granting side and to at least
//! one, so a key gets at most 1 ns a request more than its rate: 0.1 % at a million requests a second.

use crate::{Now, time::nanos};
use std::time::Duration;

/// Clocks of workers differ by a turn or two. A TAT that lies ahead by two bursts and this much more was not written under these
/// settings on this clock: the clock was set back, or a reload made the burst smaller. It is forgotten, since keeping it could
/// lock a key out for as long as the clock is wrong.
const SKEW_NS_MAX: u64 = 1_000_000_000;

const SCALE: u32 = 32;

/// As written in a configuration: "100 per minute, at most 20 at once".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateSettings {
    /// Units granted each `period`. Zero: nothing is ever granted.
    pub quota: u32,
    /// Zero: no limit but the burst.
    pub period: Duration,
    /// Units that may come at once. Zero counts as one.
    pub burst: u32,
}

/// Why a request may not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// It will pass after this long, if nothing else is granted before.
    For(Duration),
    /// It costs more than the burst, or the rate is zero.
    Never,
}

/// What became of a request, in the terms of the fields `RateLimit` and `Retry-After`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    /// The largest cost that would pass now: `r` of `RateLimit`.
    pub remaining: u32,
    /// When the whole burst is there again: `t` of `RateLimit`.
    pub reset_after: Duration,
    /// When this request would pass; `None` if it did, or never will.
    pub retry_after: Option<Duration>,
}

impl Decision {
    /// `r` and `t` (s, rounded up) of `RateLimit: "name";r=…;t=…` (draft-ietf-httpapi-ratelimit-headers-10, section 4).
    #[must_use]
    pub const fn field(&self) -> (u32, u64) {
        (self.remaining, seconds_up(self.reset_after))
    }
}

/// A rate, ready to decide: the same for all keys of a limit.
#[derive(Debug, Clone)]
pub struct Rate {
    /// 2⁻³² ns a unit.
    interval: u128,
    burst_ns: u64,
    settings: RateSettings,
}

const _: () = assert!(size_of::<Rate>() == 48);

impl Rate {
    #[must_use]
    pub fn new(settings: RateSettings) -> Self {
        let settings = RateSettings { burst: settings.burst.max(1), ..settings };
        let interval = (u128::from(nanos(settings.period)) << SCALE) / u128::from(settings.quota.max(1));
        let mut rate = Self { interval, burst_ns: 0, settings };
        rate.burst_ns = rate.nanos(settings.burst);
        rate
    }

    /// `q` and `w` (s, rounded up) of `RateLimit-Policy: "name";q=…;w=…` (draft-ietf-httpapi-ratelimit-headers-10, section 3).
    #[must_use]
    pub const fn field(&self) -> (u32, u64) {
        (self.settings.quota, seconds_up(self.settings.period))
    }

    /// The TAT that replaces `tat` if a request of `cost` is granted now. A function of its arguments: over a shared cell, load,
    /// step, compare-exchange, and again from the start if somebody else was first.
    ///
    /// # Errors
    /// How long to wait; the TAT stays as it is.
    pub fn step(&self, tat: u64, now: Now, cost: u32) -> Result<u64, Wait> {
        self.draw(tat, now, cost, cost).map(|(tat, _)| tat)
    }

    /// Grants as much as there is of `most`, and nothing if that is less than `least`: how a worker fills its
    /// [`Lease`](super::Lease). Gives the new TAT and the units granted.
    ///
    /// # Errors
    /// How long to wait for `least`; the TAT stays as it is.
    pub fn draw(&self, tat: u64, now: Now, least: u32, most: u32) -> Result<(u64, u32), Wait> {
        let level = self.level(tat, now);
        let wanted = self.nanos(least);
        if self.settings.quota == 0 || least > self.settings.burst {
            return Err(Wait::Never);
        }
        let over = level.saturating_add(wanted).saturating_sub(self.burst_ns);
        if over > 0 {
            return Err(Wait::For(Duration::from_nanos(over)));
        }
        let units = if most > least { most.min(self.units(level)).max(least) } else { least };
        Ok((now.nanos().saturating_add(level).saturating_add(self.nanos(units)), units))
    }

    /// [`Rate::step`] on a TAT of one's own, with everything that a response would want to say.
    pub fn check(&self, tat: &mut u64, now: Now, cost: u32) -> Decision {
        let (allowed, retry_after) = match self.step(*tat, now, cost) {
            Ok(next) => {
                *tat = next;
                (true, None)
            }
            Err(Wait::For(time)) => (false, Some(time)),
            Err(Wait::Never) => (false, None),
        };
        let level = self.level(*tat, now);
        Decision { allowed, remaining: self.units(level), reset_after: Duration::from_nanos(level), retry_after }
    }

    /// How far ahead of now a TAT lies: what is granted and not yet paid for, in ns.
    const fn level(&self, tat: u64, now: Now) -> u64 {
        let ahead = tat.saturating_sub(now.nanos());
        if ahead > self.burst_ns.saturating_mul(2).saturating_add(SKEW_NS_MAX) { 0 } else { ahead }
    }

    /// The largest cost that `level` leaves room for: exactly those up to it pass [`Rate::step`].
    fn units(&self, level: u64) -> u32 {
        let room = u128::from(self.burst_ns.saturating_sub(level));
        if self.settings.quota == 0 || (room == 0 && self.interval > 0) {
            return 0;
        }
        // cost × interval, rounded down, fits the room ⇔ cost × interval < room + 1.
        let units = (((room + 1) << SCALE) - 1).checked_div(self.interval).unwrap_or(u128::MAX);
        u32::try_from(units).unwrap_or(u32::MAX).min(self.settings.burst)
    }

    fn nanos(&self, cost: u32) -> u64 {
        if cost == 0 || self.interval == 0 {
            return 0;
        }
        // 2⁹⁶ × 2³² at most: no overflow.
        let nanos = (self.interval * u128::from(cost)) >> SCALE;
        u64::try_from(nanos).unwrap_or(u64::MAX).max(1)
    }
}

const fn seconds_up(time: Duration) -> u64 {
    time.as_secs().saturating_add((time.subsec_nanos() > 0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    const fn settings(quota: u32, period_ms: u64, burst: u32) -> RateSettings {
        RateSettings { quota, period: Duration::from_millis(period_ms), burst }
    }

    #[test]
    fn a_burst_then_the_rate() {
        let rate = Rate::new(settings(10, 1000, 3));
        let (mut tat, now) = (0, Now::from_secs(50));
        let left: Vec<_> = (0..3).map(|_| rate.check(&mut tat, now, 1)).map(|d| (d.allowed, d.remaining)).collect();
        assert_eq!(left, [(true, 2), (true, 1), (true, 0)]);
        let refused = rate.check(&mut tat, now, 1);
        let ms = Duration::from_millis;
        assert_eq!(
            refused,
            Decision { allowed: false, remaining: 0, reset_after: ms(300), retry_after: Some(ms(100)) }
        );
        assert_eq!(refused.field(), (0, 1));
        assert_eq!(rate.field(), (10, 1));
        assert!(!rate.check(&mut tat, now.plus(ms(99)), 1).allowed);
        assert!(rate.check(&mut tat, now.plus(ms(100)), 1).allowed);
        assert!(rate.check(&mut tat, now.plus(ms(900)), 3).allowed, "all of the burst is back");
    }

    #[test]
    fn what_is_told_is_what_happens() {
        let mut random = Random::new(1);
        for _ in 0..20_000 {
            let mut draw = |bits| 1 + (random.next_u64() >> (63 - random.below(bits))) as u32;
            let (quota, burst) = (draw(31), draw(20));
            let rate = Rate::new(settings(quota, 1 + random.below(100_000), burst));
            let now = Now::from_secs(1000);
            let mut tat = now.nanos() + random.below(rate.burst_ns + 1);
            let told = rate.check(&mut tat, now, 0).remaining;
            assert!(rate.step(tat, now, told).is_ok(), "{rate:?} {told}");
            match rate.step(tat, now, told + 1) {
                Ok(_) => panic!("{rate:?} granted more than {told}"),
                Err(Wait::Never) => assert_eq!(told, burst),
                Err(Wait::For(time)) => assert!(rate.step(tat, now.plus(time), told + 1).is_ok()),
            }
        }
    }

    #[test]
    fn a_whole_burst_passes_in_any_pieces() {
        let mut random = Random::new(2);
        for (quota, period, burst) in [(3, 1000, 3), (7, 1000, 100), (700_000, 1000, 1000), (1, 86_400_000, 5)] {
            let rate = Rate::new(settings(quota, period, burst));
            let (mut tat, mut left) = (0, burst);
            while left > 0 {
                let cost = 1 + random.below(u64::from(left)) as u32;
                assert!(rate.check(&mut tat, Now::from_secs(9), cost).allowed);
                left -= cost;
            }
            assert!(!rate.check(&mut tat, Now::from_secs(9), 1).allowed);
        }
    }

    #[test]
    fn long_run_rates_are_exact() {
        for quota in [3, 1_000, 333_333, 1_000_000] {
            let rate = Rate::new(settings(quota, 1000, 10));
            let (mut tat, mut granted, step) = (0, 0_u32, 900_000_000 / u64::from(quota));
            let mut now = Now::from_secs(1);
            while now < Now::from_secs(4) {
                granted += u32::from(rate.check(&mut tat, now, 1).allowed);
                now = now.plus_nanos(step);
            }
            let wanted = f64::from(quota) * 3.0;
            assert!((wanted * 0.999 - 1.0..wanted * 1.002 + 11.0).contains(&f64::from(granted)), "{granted}/{wanted}");
        }
    }

    #[test]
    fn odd_settings() {
        let now = Now::from_secs(1);
        assert_eq!(Rate::new(settings(0, 1000, 5)).step(0, now, 1), Err(Wait::Never));
        assert_eq!(Rate::new(settings(5, 1000, 5)).step(0, now, 6), Err(Wait::Never));
        assert!(Rate::new(settings(5, 1000, 0)).step(0, now, 1).is_ok());
        let unlimited = Rate::new(settings(1, 0, 5));
        assert_eq!((unlimited.step(0, now, 5), unlimited.step(0, now, 6)), (Ok(now.nanos()), Err(Wait::Never)));
        let fast = Rate::new(settings(u32::MAX, 1, u32::MAX));
        let (mut tat, mut granted) = (0, 0_u64);
        (0..100).for_each(|_| granted += u64::from(fast.check(&mut tat, now, u32::MAX).allowed));
        assert_eq!(granted, 1, "the burst, once");
        let slow = Rate::new(RateSettings { quota: 1, period: Duration::MAX, burst: u32::MAX });
        assert!(slow.step(0, Now::from_nanos(u64::MAX), 1).is_ok());
        assert!(slow.step(u64::MAX, Now::from_nanos(u64::MAX), u32::MAX).is_ok());
    }

    #[test]
    fn a_clock_set_back_locks_nobody_out_for_long() {
        let rate = Rate::new(settings(10, 1000, 10));
        let mut tat = 0;
        (0..10).for_each(|_| assert!(rate.check(&mut tat, Now::from_secs(10_000), 1).allowed));
        assert!(rate.check(&mut tat, Now::from_secs(5), 1).allowed, "hours back: forgotten");
        (0..9).for_each(|_| assert!(rate.check(&mut tat, Now::from_secs(5), 1).allowed));
        let skewed = rate.check(&mut tat, Now::from_nanos(4_999_000_000), 1);
        assert!(!skewed.allowed, "a worker that is a turn behind gets no second burst");
        assert!(skewed.retry_after < Some(Duration::from_millis(200)));
    }

    #[test]
    fn draws_take_what_there_is() {
        let rate = Rate::new(settings(100, 1000, 50));
        let now = Now::from_secs(1);
        let (tat, units) = rate.draw(0, now, 1, 30).unwrap();
        assert_eq!(units, 30);
        let (tat, units) = rate.draw(tat, now, 1, 30).unwrap();
        assert_eq!(units, 20);
        assert_eq!(rate.draw(tat, now, 2, 30), Err(Wait::For(Duration::from_millis(20))));
    }
}
