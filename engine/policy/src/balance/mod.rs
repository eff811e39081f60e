//! Which endpoint of a pool gets the next request.
//!
//! A balancer sees endpoints by index, through [`Endpoints`]: it reads only those it considers, so a choice costs
//! the same in a pool of three and of three thousand (round robin apart, which must look at all). It is told what to
//! stay away from: endpoints that are not available (breaker, health, drain), and those a retry has already tried.
//!
//! One balancer belongs to one worker. A further policy is one more file here, one variant of [`Balancer`], and, for those
//! that hash, one more field of [`Ask`].

mod adaptive;
mod round_robin;

pub use adaptive::{Adaptive, cost};
pub use round_robin::RoundRobin;

use crate::Random;

/// A pool's endpoints as a balancer sees them. Indexes run from 0 to `len`, and mean the same endpoint until
/// [`Balancer::reweigh`].
pub trait Endpoints {
    fn len(&self) -> usize;
    /// Whether the endpoint may be asked at all.
    fn available(&self, index: usize) -> bool;
    fn load(&self, index: usize) -> Load;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What is known of an endpoint's work at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Load {
    /// Peak-EWMA of its latency, decayed to now; zero when never measured.
    pub latency_ns: f64,
    /// Requests out at it and not yet answered, over all workers.
    pub in_flight: u32,
}

/// What one request asks of the choice.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ask {
    /// Endpoints that this request has already failed at.
    pub avoid: Avoid,
}

/// A few endpoints to stay away from: as many as a request may have tries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Avoid {
    tried: [u16; Self::MAX],
    len: u8,
}

impl Avoid {
    pub const MAX: usize = 7;

    /// Remembers one more; beyond [`Avoid::MAX`] the oldest is forgotten.
    pub fn add(&mut self, index: usize) {
        if usize::from(self.len) == Self::MAX {
            self.tried.copy_within(1.., 0);
            self.len -= 1;
        }
        self.tried[usize::from(self.len)] = index as u16;
        self.len += 1;
    }

    #[must_use]
    pub fn contains(&self, index: usize) -> bool {
        self.tried[..usize::from(self.len)].iter().any(|&tried| usize::from(tried) == index)
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The balancer of one pool on one worker.
#[derive(Debug, Clone)]
pub enum Balancer {
    Adaptive(Adaptive),
    RoundRobin(RoundRobin),
}

impl Balancer {
    /// The next endpoint, or `None` when none is both available and untried.
    pub fn pick(&mut self, endpoints: &impl Endpoints, ask: &Ask, random: &mut Random) -> Option<usize> {
        match self {
            Self::Adaptive(adaptive) => adaptive.pick(endpoints, ask, random),
            Self::RoundRobin(round_robin) => round_robin.pick(endpoints, ask),
        }
    }

    /// The pool has other endpoints, or other weights. Allocates: not for the request path.
    pub fn reweigh(&mut self, weights: &[u32]) {
        match self {
            Self::Adaptive(adaptive) => *adaptive = Adaptive::new(weights),
            Self::RoundRobin(round_robin) => *round_robin = RoundRobin::new(weights),
        }
    }
}

fn eligible(endpoints: &impl Endpoints, ask: &Ask, index: usize) -> bool {
    !ask.avoid.contains(index) && endpoints.available(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn avoid_keeps_the_youngest() {
        let mut avoid = Avoid::default();
        assert!(avoid.is_empty());
        (0..9).for_each(|index| avoid.add(index));
        let kept: Vec<_> = (0..9).filter(|&index| avoid.contains(index)).collect();
        assert_eq!(kept, [2, 3, 4, 5, 6, 7, 8]);
    }
}
