//! How many retries a pool may spend.
//!
//! Retries are kind to one request and cruel to an overloaded pool: three tries each turn an outage into three times the
//! load. So retries are a share of the requests of the last seconds, or a small floor where that is more, so that a quiet
//! pool can retry at all: the greater of the two and not their sum, so that a fifth means a fifth. A retry is counted when it is decided, not when it ends: in a storm nothing ends. One that follows a try which reached nobody is none:
//! no endpoint gets more requests for it ([`Outcome::cost_nobody`](crate::Outcome::cost_nobody)).
//! Source: Finagle's `RetryBudget` (20 % and 10/s over 10 s), linkerd's `retryBudget`, gRPC's retry throttling.

use crate::{Now, Window};
use std::time::Duration;

/// The window, in buckets of one second.
const SECONDS: usize = 10;
const REQUESTS: usize = 0;
const RETRIES: usize = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBudgetSettings {
    /// Retries per hundred requests of the window.
    pub percent: u8,
    /// Retries allowed each second where the share is less.
    pub per_second_min: u16,
}

impl Default for RetryBudgetSettings {
    fn default() -> Self {
        Self { percent: 20, per_second_min: 3 }
    }
}

/// The budget of one pool as one worker sees it. 128 bytes.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    settings: RetryBudgetSettings,
    window: Window<SECONDS, 2>,
}

const _: () = assert!(size_of::<RetryBudget>() <= 128);

impl RetryBudget {
    #[must_use]
    pub const fn new(settings: RetryBudgetSettings) -> Self {
        Self { settings, window: Window::new(Duration::from_secs(SECONDS as u64)) }
    }

    /// A request came: its first try, not its retries.
    pub fn request(&mut self, now: Now) {
        self.window.add(now, REQUESTS);
    }

    /// Asks for one retry, and counts it if it is granted.
    #[must_use]
    pub fn withdraw(&mut self, now: Now) -> bool {
        let granted = self.left(now) > 0;
        if granted {
            self.window.add(now, RETRIES);
        }
        granted
    }

    /// Retries that could be had at this moment.
    #[must_use]
    pub fn left(&mut self, now: Now) -> u32 {
        let [requests, retries] = self.window.sums(now);
        self.allowance(requests).saturating_sub(retries)
    }

    fn allowance(&self, requests: u32) -> u32 {
        let share = u64::from(requests) * u64::from(self.settings.percent) / 100;
        let floor = u32::from(self.settings.per_second_min) * SECONDS as u32;
        floor.max(u32::try_from(share).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_pool_has_its_floor() {
        let mut budget = RetryBudget::new(RetryBudgetSettings::default());
        let granted = (0..100).filter(|_| budget.withdraw(Now::from_secs(1))).count();
        assert_eq!(granted, 30);
        assert_eq!(budget.left(Now::from_secs(10)), 0);
        assert_eq!(budget.left(Now::from_secs(11)), 30, "ten seconds later the window is clear");
    }

    #[test]
    fn none_at_all_when_set_to_none() {
        let mut budget = RetryBudget::new(RetryBudgetSettings { percent: 0, per_second_min: 0 });
        (0..1000).for_each(|_| budget.request(Now::ZERO));
        assert!(!budget.withdraw(Now::ZERO));
    }

    #[test]
    fn a_storm_adds_a_fifth_and_no_more() {
        // An hour at 1,000 requests a second in which every try fails and asks for two more.
        let mut budget = RetryBudget::new(RetryBudgetSettings::default());
        let (mut requests, mut retries) = (0_u64, 0_u64);
        for tick in 0..3_600_000_u64 {
            let now = Now::from_nanos(tick * 1_000_000);
            budget.request(now);
            requests += 1;
            retries += u64::from(budget.withdraw(now)) + u64::from(budget.withdraw(now));
        }
        let share = retries as f64 / requests as f64;
        assert!((0.19..=0.2).contains(&share), "{share}");
    }

    #[test]
    fn time_may_stand_still_or_jump() {
        let mut budget = RetryBudget::new(RetryBudgetSettings::default());
        for second in [5, 5, 4, 1_000_000, 3, 1_000_001] {
            budget.request(Now::from_secs(second));
            let _ = budget.withdraw(Now::from_secs(second));
        }
        assert!(budget.left(Now::from_secs(2_000_000)) == 30);
    }
}
