//! How much of its own a connection may hold: what waits, and what was sent and is not acknowledged.
//!
//! As much as is under way has to be kept, and that is what is sent in one round trip. Twice as much keeps ahead of a congestion window that
//! doubles with each (RFC 9002 §7.3.1), and a little more than that lets a short path be used before anything is known of it. What goes beyond
//! would wait here instead of at its source, and be cold when its turn comes.
//!
//! The round trip is the shortest that the path has shown: one that our own queues have made longer would ask for longer queues.

use std::time::Duration;

use ring::Now;

use crate::limits;

/// At most so often, and not more than once a round trip, is a window fitted.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A connection's window, and what it is fitted by.
pub(super) struct SendWindow {
    bytes: u64,
    looked: Now,
    /// Bytes that had been sent then.
    sent: u64,
}

impl SendWindow {
    pub(super) const fn new(now: Now) -> Self {
        Self { bytes: limits::QUIC_SEND_WINDOW_MIN, looked: now, sent: 0 }
    }

    /// Whether a round trip has passed since the last look.
    pub(super) fn is_due(&self, now: Now, round_trip: Duration) -> bool {
        now.since(self.looked) >= round_trip.max(LOOK_EVERY)
    }

    /// The window from now on, in bytes, when so many have been sent altogether. It grows at once, and shrinks by half at most.
    pub(super) fn fit(&mut self, now: Now, sent: u64, shortest: Duration) -> u64 {
        let elapsed = now.since(self.looked).max(LOOK_EVERY).as_nanos();
        let under_way = u128::from(sent.saturating_sub(self.sent)) * shortest.as_nanos() / elapsed;
        let fitting = u64::try_from(2 * under_way).unwrap_or(u64::MAX).saturating_add(limits::QUIC_SEND_WINDOW_MIN);
        self.bytes = fitting.max(self.bytes / 2).min(limits::QUIC_SEND_WINDOW_MAX);
        self.looked = now;
        self.sent = sent;
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: u64 = limits::QUIC_SEND_WINDOW_MIN;
    const MAX: u64 = limits::QUIC_SEND_WINDOW_MAX;

    /// Sends as much as the window and the path let through in each round trip; the windows that were had.
    fn carried(round_trip: Duration, path: u64, rounds: u32) -> Vec<u64> {
        let start = ring::monotonic();
        let mut window = SendWindow::new(start);
        let (mut had, mut sent) = (vec![MIN], 0);
        for round in 1..=rounds {
            let now = start + round_trip * round;
            assert!(window.is_due(now, round_trip), "a round trip has passed");
            sent += path.min(*had.last().expect("there is the first"));
            had.push(window.fit(now, sent, round_trip));
        }
        had
    }

    #[test]
    fn a_long_path_is_filled() {
        let path = 3 << 20;
        let had = carried(Duration::from_millis(100), path, 8);
        assert!(had.windows(2).take_while(|pair| pair[0] < path).all(|pair| pair[1] >= 2 * pair[0]), "{had:?}");
        assert!(had[8] >= 2 * path, "{had:?}");
    }

    #[test]
    fn a_window_has_its_bounds() {
        let endless = carried(Duration::from_millis(100), u64::MAX, 40);
        assert_eq!(endless[40], MAX);
        assert!(carried(Duration::from_millis(100), 0, 8).iter().all(|window| *window == MIN));
    }

    #[test]
    fn queues_of_our_own_do_not_widen_it() {
        let start = ring::monotonic();
        let mut window = SendWindow::new(start);
        // 250 MB/s over a path of 200 µs, on which everything takes 10 ms because so much waits.
        let fitted = window.fit(start + Duration::from_millis(10), 2_500_000, Duration::from_micros(200));
        assert_eq!(fitted, MIN + 2 * 50_000);
    }

    #[test]
    fn a_pause_halves_it() {
        let start = ring::monotonic();
        let mut window = SendWindow::new(start);
        let second = Duration::from_secs(1);
        let wide = window.fit(start + second, 2 * MIN, second);
        assert_eq!(wide, 5 * MIN);
        assert_eq!(window.fit(start + second * 60, 2 * MIN, second), wide / 2);
        assert!(!window.is_due(start + second * 60, Duration::ZERO), "too soon");
    }
}
