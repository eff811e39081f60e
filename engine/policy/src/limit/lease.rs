//! A worker's handful of units out of a rate that all workers share.
//!
//! The shared cell holds one TAT. A worker draws a batch with [`Rate::draw`] and a compare-exchange, and spends it without touching
//! anything shared. Units are drawn by who needs them, when it needs them: it does not matter whether the traffic is on one
//! worker or on all, and nothing has to be rebalanced. A lease does not expire, so a worker with little traffic wastes nothing.
//!
//! What holds: in any time `t` all workers together grant at most `rate × t + burst`, because the leases are taken out of the burst;
//! and what lies unspent while another worker has to refuse is at most a batch a worker: 10 ms of the rate, or 0.1 % of what passes in 10 s.

use super::{Rate, RateSettings};
use crate::time::nanos;
use std::time::Duration;

/// A batch is what the rate grants in this time: a hundred compare-exchanges a second on the shared line, whatever the traffic.
const BATCH_TIME: Duration = Duration::from_millis(10);

/// One worker's share. 8 bytes.
#[derive(Debug, Clone, Default)]
pub struct Lease {
    units: u32,
    batch: u32,
}

impl Lease {
    /// The rate for the shared cell, and the empty lease that each of `workers` starts with. Small limits get batches of one:
    /// each request then asks the cell.
    #[must_use]
    pub fn share(settings: RateSettings, workers: u32) -> (Rate, Self) {
        let workers = workers.max(1);
        let in_time = u128::from(settings.quota) * BATCH_TIME.as_nanos() / u128::from(nanos(settings.period).max(1));
        // Half of the burst stays in the cell, so that a worker that starts finds something.
        let batch = u32::try_from(in_time).unwrap_or(u32::MAX).min(settings.burst / 2 / workers).max(1);
        // After a draw at least one unit is spent at once: a batch of one is never left over.
        let left_over = (batch - 1) * workers;
        let burst = settings.burst.saturating_sub(left_over);
        (Rate::new(RateSettings { burst, ..settings }), Self { units: 0, batch })
    }

    /// Pays `cost` from what is here. If that does not suffice, [`Lease::wants`] says what to draw.
    #[must_use]
    pub const fn spend(&mut self, cost: u32) -> bool {
        let enough = self.units >= cost;
        if enough {
            self.units -= cost;
        }
        enough
    }

    /// `least` and `most` for [`Rate::draw`], so that `cost` can be paid and at most a batch less one is left.
    #[must_use]
    pub const fn wants(&self, cost: u32) -> (u32, u32) {
        let least = cost.saturating_sub(self.units);
        let most = least.saturating_add(self.batch - 1);
        (least, most)
    }

    /// Units that were drawn.
    pub const fn put(&mut self, units: u32) {
        self.units = self.units.saturating_add(units);
    }

    #[must_use]
    pub const fn units(&self) -> u32 {
        self.units
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Now;

    #[test]
    fn batches_and_bursts() {
        for (quota, burst, workers, batch, in_cell) in [
            (1000, 1000, 2, 10, 982),
            (10, 10, 2, 1, 10),
            (1_000_000, 100, 4, 12, 56),
            (1000, 1, 2, 1, 1),
            (0, 0, 0, 1, 1),
        ] {
            let (rate, lease) = Lease::share(RateSettings { quota, period: Duration::from_secs(1), burst }, workers);
            assert_eq!(lease.batch, batch);
            if quota > 0 {
                assert_eq!(rate.draw(0, Now::from_secs(1), 1, u32::MAX).unwrap().1, in_cell);
            }
        }
    }

    #[test]
    fn spends_what_it_has_and_says_what_it_wants() {
        let mut lease = Lease { units: 3, batch: 10 };
        assert!(lease.spend(2));
        assert!(!lease.spend(2));
        assert_eq!(lease.wants(2), (1, 10));
        lease.put(10);
        assert!(lease.spend(2));
        assert_eq!(lease.units(), 9);
        assert_eq!(lease.wants(1000), (991, 1000));
    }
}
