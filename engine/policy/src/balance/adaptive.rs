//! Power of two choices over latency and work in flight.
//!
//! Two endpoints are drawn, and the cheaper one is taken. That is nearly as even as looking at all of them
//! (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 1996/2001), reads only two cells, and does not
//! herd: workers with the same stale view do not all run to the same best endpoint.
//! The cost is Finagle's peak-EWMA balancer's: expected time = latency × (requests before me + me).
//!
//! Weights steer the draw, and scale what counts as full. An idle pool so divides its traffic as the weights say; were the
//! weight a plain divisor of the cost instead, the heaviest idle endpoint would win every draw and a 1 % canary
//! would see nothing.

use super::{Ask, Endpoints, Load, eligible};
use crate::Random;

/// What an unmeasured endpoint with work in flight costs for each of its requests: it gets one request to show itself,
/// and no more until it has answered. 1 s: above any endpoint one would want.
const UNKNOWN_NS: f64 = 1e9;

/// Draws before the choice falls back to looking at all endpoints: with half of them away, four pairs miss
/// both ways once in 256.
const DRAWS: usize = 4;

#[derive(Debug, Clone)]
pub struct Adaptive {
    /// `weight ÷ mean weight` of each endpoint.
    relative: Box<[f64]>,
    /// Running sums of the weights, for drawing by them; empty when all weigh the same.
    sums: Box<[u64]>,
}

impl Adaptive {
    #[must_use]
    pub fn new(weights: &[u32]) -> Self {
        let total: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        let mean = (total as f64 / weights.len().max(1) as f64).max(f64::MIN_POSITIVE);
        let even = weights.windows(2).all(|pair| pair[0] == pair[1]);
        let sums = weights.iter().scan(0, |sum, &weight| {
            *sum += u64::from(weight);
            Some(*sum)
        });
        Self {
            relative: weights.iter().map(|&weight| f64::from(weight) / mean).collect(),
            sums: if even { Box::default() } else { sums.collect() },
        }
    }

    pub fn pick(&self, endpoints: &impl Endpoints, ask: &Ask, random: &mut Random) -> Option<usize> {
        let len = endpoints.len();
        debug_assert_eq!(self.relative.len(), len, "reweigh() when the endpoints change");
        match len.min(self.relative.len()) {
            0 => return None,
            1 => return self.usable(endpoints, ask, 0).then_some(0),
            _ => {}
        }
        for _ in 0..DRAWS {
            let first = self.draw(random);
            let second = self.draw_other(first, random);
            match (self.usable(endpoints, ask, first), self.usable(endpoints, ask, second)) {
                (true, true) => {
                    let dearer = self.cost(endpoints, first) > self.cost(endpoints, second);
                    return Some(if dearer { second } else { first });
                }
                // The other of the pair alone would get all of the missing one's share: only a fresh pair is fair.
                _ => continue,
            }
        }
        self.cheapest(endpoints, ask, random)
    }

    /// Looks at all; equals share by chance.
    fn cheapest(&self, endpoints: &impl Endpoints, ask: &Ask, random: &mut Random) -> Option<usize> {
        let (mut best, mut least, mut equals) = (None, f64::INFINITY, 0);
        for index in (0..self.relative.len().min(endpoints.len())).filter(|&index| self.usable(endpoints, ask, index)) {
            let cost = self.cost(endpoints, index);
            equals = if cost < least { 1 } else { equals + u64::from(cost == least) };
            if cost < least || (cost == least && random.below(equals) == 0) {
                (best, least) = (Some(index), cost);
            }
        }
        best
    }

    fn usable(&self, endpoints: &impl Endpoints, ask: &Ask, index: usize) -> bool {
        self.relative[index] > 0.0 && eligible(endpoints, ask, index)
    }

    fn cost(&self, endpoints: &impl Endpoints, index: usize) -> f64 {
        cost(endpoints.load(index), self.relative[index])
    }

    fn draw(&self, random: &mut Random) -> usize {
        match self.sums.last() {
            None => random.below(self.relative.len() as u64) as usize,
            Some(&total) => {
                let point = random.below(total);
                self.sums.partition_point(|&sum| sum <= point)
            }
        }
    }

    /// A second one, different from the first, by weight too.
    fn draw_other(&self, first: usize, random: &mut Random) -> usize {
        if self.sums.is_empty() {
            let other = random.below(self.relative.len() as u64 - 1) as usize;
            return other + usize::from(other >= first);
        }
        let other = self.draw(random);
        if other != first { other } else { (first + 1 + self.step(random)) % self.relative.len() }
    }

    fn step(&self, random: &mut Random) -> usize {
        random.below(self.relative.len() as u64 - 1) as usize
    }
}

/// Expected time of one more request: `latency × (in flight ÷ relative weight + 1)`.
#[must_use]
pub fn cost(load: Load, relative_weight: f64) -> f64 {
    let before_me = f64::from(load.in_flight) / relative_weight;
    if load.latency_ns > 0.0 { load.latency_ns * (before_me + 1.0) } else { UNKNOWN_NS * before_me }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Avoid;

    struct Pool(Vec<(bool, Load)>);

    impl Pool {
        fn even(len: usize) -> Self {
            Self(vec![(true, Load { latency_ns: 1e6, in_flight: 0 }); len])
        }
    }

    impl Endpoints for Pool {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn available(&self, index: usize) -> bool {
            self.0[index].0
        }
        fn load(&self, index: usize) -> Load {
            self.0[index].1
        }
    }

    fn shares(weights: &[u32], pool: &Pool, ask: &Ask) -> Vec<f64> {
        let (balancer, mut random) = (Adaptive::new(weights), Random::new(42));
        let mut counts = vec![0_u32; weights.len()];
        let picks = 100_000;
        for _ in 0..picks {
            if let Some(index) = balancer.pick(pool, ask, &mut random) {
                counts[index] += 1;
            }
        }
        counts.iter().map(|&count| f64::from(count) / f64::from(picks)).collect()
    }

    #[test]
    fn costs() {
        let load = |latency_ns, in_flight| Load { latency_ns, in_flight };
        assert_eq!(cost(load(1e6, 0), 1.0), 1e6);
        assert_eq!(cost(load(1e6, 3), 1.0), 4e6);
        assert_eq!(cost(load(1e6, 3), 3.0), 2e6);
        assert_eq!(cost(load(0.0, 0), 1.0), 0.0);
        assert_eq!(cost(load(0.0, 2), 1.0), 2e9);
    }

    #[test]
    fn idle_pools_divide_by_weight() {
        for share in shares(&[1, 1, 1, 1], &Pool::even(4), &Ask::default()) {
            assert!((0.24..0.26).contains(&share), "{share}");
        }
        let canary = shares(&[99, 1], &Pool::even(2), &Ask::default());
        assert!((0.005..0.02).contains(&canary[1]), "{canary:?}");
        let double = shares(&[2, 1, 1], &Pool::even(3), &Ask::default());
        assert!((0.47..0.53).contains(&double[0]), "{double:?}");
    }

    #[test]
    fn the_cheaper_of_two_wins() {
        let mut pool = Pool::even(2);
        pool.0[0].1.in_flight = 1;
        assert_eq!(shares(&[1, 1], &pool, &Ask::default()), [0.0, 1.0]);
    }

    #[test]
    fn unavailable_and_tried_endpoints_get_nothing_and_the_rest_share() {
        let mut pool = Pool::even(5);
        pool.0[1].0 = false;
        let mut ask = Ask { avoid: Avoid::default() };
        ask.avoid.add(3);
        let found = shares(&[1; 5], &pool, &ask);
        assert_eq!((found[1], found[3]), (0.0, 0.0));
        for index in [0, 2, 4] {
            assert!((0.32..0.35).contains(&found[index]), "{found:?}");
        }
        pool.0.iter_mut().for_each(|endpoint| endpoint.0 = false);
        assert_eq!(shares(&[1; 5], &pool, &ask), [0.0; 5]);
    }

    #[test]
    fn one_and_none() {
        assert_eq!(shares(&[7], &Pool::even(1), &Ask::default()), [1.0]);
        assert!(shares(&[], &Pool::even(0), &Ask::default()).is_empty());
        assert_eq!(shares(&[0], &Pool::even(1), &Ask::default()), [0.0]);
    }
}
