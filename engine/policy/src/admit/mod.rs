//! How many requests a pool may have in flight.
//!
//! A fixed number, or one that is found ([`Gradient`]). Beyond it a request waits ([`crate::WaitingRoom`]) or is turned
//! away: a queue in front of the proxy can be ordered, bounded and left; one inside the origin cannot.

mod gradient;

pub use gradient::{Gradient, GradientSettings};

use crate::{Now, Verdict};

#[derive(Debug, Clone)]
enum Limit {
    Fixed(u32),
    Found(Box<Gradient>),
}

/// One pool's or route's requests in flight, as one worker sees them, and how many there may be. Workers that share a pool
/// divide a fixed limit between them; found limits need no dividing, since each worker finds its own knee.
#[derive(Debug, Clone)]
pub struct Concurrency {
    limit: Limit,
    in_flight: u32,
    /// The place beside them is taken.
    is_beside: bool,
}

/// A request in flight. Give it back with [`Concurrency::end`], once.
#[derive(Debug)]
#[must_use = "a place that is never given back is lost to the pool"]
pub struct Begun {
    at: Now,
    epoch: u32,
    is_beside: bool,
}

impl Concurrency {
    /// At most `limit`; zero lets nothing through.
    #[must_use]
    pub const fn fixed(limit: u32) -> Self {
        Self { limit: Limit::Fixed(limit), in_flight: 0, is_beside: false }
    }

    /// Allocates some 1.1 KiB, once. `seed` decides which latencies are sampled.
    #[must_use]
    pub fn found(settings: GradientSettings, seed: u64) -> Self {
        Self { limit: Limit::Found(Box::new(Gradient::new(settings, seed))), in_flight: 0, is_beside: false }
    }

    #[must_use]
    pub fn limit(&self) -> u32 {
        match &self.limit {
            Limit::Fixed(limit) => *limit,
            Limit::Found(gradient) => gradient.limit(),
        }
    }

    #[must_use]
    pub const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Takes a place, or none if all are taken.
    pub fn begin(&mut self, now: Now) -> Option<Begun> {
        if self.in_flight >= self.limit() {
            if let Limit::Found(gradient) = &mut self.limit {
                gradient.refused();
            }
            return None;
        }
        self.in_flight += 1;
        Some(Begun { at: now, epoch: self.epoch(now), is_beside: false })
    }

    /// As [`begin`](Self::begin), for who goes before all others: where all places are taken there is one beside them.
    pub fn begin_first(&mut self, now: Now) -> Option<Begun> {
        self.begin(now).or_else(|| {
            let is_free = !std::mem::replace(&mut self.is_beside, true);
            is_free.then(|| Begun { at: now, epoch: self.epoch(now), is_beside: true })
        })
    }

    fn epoch(&mut self, now: Now) -> u32 {
        match &mut self.limit {
            Limit::Fixed(_) => 0,
            Limit::Found(gradient) => gradient.begin(now),
        }
    }

    /// Gives a place back, and learns from how long the request took. Neutral verdicts (the client left) teach nothing.
    pub fn end(&mut self, now: Now, begun: Begun, verdict: Verdict) {
        if begun.is_beside {
            self.is_beside = false;
        } else {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        if let Limit::Found(gradient) = &mut self.limit {
            gradient.end(now, begun.epoch, now.nanos_since(begun.at), verdict);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_limit_is_kept() {
        let mut pool = Concurrency::fixed(2);
        let first = pool.begin(Now::ZERO).unwrap();
        let _second = pool.begin(Now::ZERO).unwrap();
        assert!(pool.begin(Now::ZERO).is_none());
        pool.end(Now::ZERO, first, Verdict::Neutral);
        assert_eq!((pool.in_flight(), pool.limit()), (1, 2));
        assert!(pool.begin(Now::ZERO).is_some());
        assert!(Concurrency::fixed(0).begin(Now::ZERO).is_none());
    }

    #[test]
    fn who_goes_first_has_one_place_beside_the_others() {
        let mut pool = Concurrency::fixed(1);
        let within = pool.begin_first(Now::ZERO).unwrap();
        let beside = pool.begin_first(Now::ZERO).unwrap();
        assert!(pool.begin_first(Now::ZERO).is_none() && pool.begin(Now::ZERO).is_none());
        pool.end(Now::ZERO, beside, Verdict::Neutral);
        assert!(pool.begin(Now::ZERO).is_none(), "it is nobody else's");
        let beside = pool.begin_first(Now::ZERO).unwrap();
        pool.end(Now::ZERO, within, Verdict::Neutral);
        assert_eq!(pool.in_flight(), 0);
        assert!(pool.begin(Now::ZERO).is_some());
        pool.end(Now::ZERO, beside, Verdict::Neutral);
        assert_eq!(pool.in_flight(), 1);
    }
}
