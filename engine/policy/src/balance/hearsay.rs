//! What the other workers have out at an endpoint, as it was a moment ago.
//!
//! A worker tells its own number by a store, and whoever reads it after that fetches the line from the core that wrote it: a hundred nanoseconds or
//! more, and the writer waits in turn to have it back. A choice looks at two endpoints, and each changes with every request of every worker: read
//! anew for each choice, two of two lines have changed.
//!
//! So the number is kept for a tenth of a millisecond. A worker chooses some ten times in that, of a hundred requests or so that it and the others have out: what
//! it knows too late is a few requests, and what it has out itself it knows at once, which is what keeps it from running to one endpoint. Where a
//! number decides and does not weigh (a limit of requests), it is asked for and not heard of.

use crate::Now;

/// How long a number is good for: some ten requests of a busy worker, and a hundredth of what an endpoint takes for one that is worth balancing.
const KEPT_NS: u64 = 100_000;

/// A number that others change, kept for a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hearsay {
    number: u32,
    heard_at: Option<Now>,
}

impl Hearsay {
    /// The number as it was a tenth of a millisecond ago at the most. A clock that went back knows nothing of it.
    #[inline]
    pub fn number(&mut self, now: Now, ask: impl FnOnce() -> u32) -> u32 {
        let is_good = |heard_at: Now| now >= heard_at && now.nanos_since(heard_at) < KEPT_NS;
        if !self.heard_at.is_some_and(is_good) {
            *self = Self { number: ask(), heard_at: Some(now) };
        }
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_good_for_a_moment_and_for_no_other_clock() {
        let mut heard = Hearsay::default();
        // (when, what it is by then, what is heard)
        let table = [
            (Now::ZERO, 7, 7),
            (Now::from_nanos(1), 8, 7),
            (Now::from_nanos(KEPT_NS - 1), 9, 7),
            (Now::from_nanos(KEPT_NS), 10, 10),
            (Now::from_secs(3600), 11, 11),
            (Now::from_secs(1), 12, 12),
            (Now::from_nanos(u64::MAX), 13, 13),
            (Now::from_nanos(u64::MAX), 14, 13),
        ];
        for (now, is, wanted) in table {
            assert_eq!(heard.number(now, || is), wanted, "{now:?}");
        }
    }
}
