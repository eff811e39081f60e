//! Which endpoint of a pool gets the next request.
//!
//! A [`Balancer`] sees endpoints by index, through [`Endpoints`]: it reads only those it considers, so a choice costs nearly
//! the same in a pool of three and of three thousand (round robin apart, which must look at all). Each endpoint has a
//! [`Standing`]; each request says in its [`Ask`] what to stay away from, what it sticks to, and which key it hashes by.
//!
//! | policy | what it knows | when |
//! |---|---|---|
//! | adaptive | latency and requests out | unless there is a reason for another |
//! | least requests | requests out | requests of very unequal length |
//! | round robin | whose turn it is | equal requests, equal endpoints, exact shares |
//! | random | nothing | very many workers, very many endpoints |
//! | ring, Maglev | a key of the request | caches and sessions behind it |
//!
//! All take weights, which may change live, slow start ([`SlowStart`]), and tiers. A key that a client can make up lets that
//! client choose its endpoint: see [`crate::hash`] for keyed hashes, and bound the load.
//! A further policy is one more file here, one variant of [`Policy`] and one of `balancer.rs`'s laws.

mod adaptive;
mod affinity;
mod balancer;
mod candidates;
mod duel;
mod hearsay;
mod least_requests;
mod lots;
mod maglev;
mod ring;
mod round_robin;
mod slow_start;

pub use balancer::Balancer;
pub use hearsay::Hearsay;
pub use maglev::{SIZE_DEFAULT as MAGLEV_SIZE_DEFAULT, SIZE_MAX as MAGLEV_SIZE_MAX, slots as maglev_slots};
pub use slow_start::SlowStart;

/// A pool's endpoints as a balancer sees them. Indexes run from 0 to `len`, and mean the same endpoint until
/// [`Balancer::update`].
pub trait Endpoints {
    fn len(&self) -> usize;
    fn standing(&self, index: usize) -> Standing;
    fn load(&self, index: usize) -> Load;

    /// What part of its weight an endpoint counts with, in (0, 1]: its slow start.
    fn ramp(&self, _index: usize) -> f32 {
        1.0
    }

    /// Requests out at all endpoints. A hashing policy with bounded load asks this for each choice: whoever has many
    /// endpoints had better keep the sum.
    fn in_flight(&self) -> u64 {
        (0..self.len()).map(|index| u64::from(self.load(index).in_flight)).sum()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whether an endpoint may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Ready,
    /// Somebody's verdict is against it: a prober's, a statistic's. Verdicts can be wrong, above all about many at once, so it
    /// is asked in panic.
    Suspect,
    /// Our own tries fail there: an open breaker, a name without address. It counts as ill, and is not asked in panic
    /// either: that is no opinion but what asking it just did, its half-open trials are its way back, and a pool that
    /// refuses connections must fail fast and not once per request.
    Down,
    /// Being emptied: only for those who stick to it.
    Draining,
    /// Well, and at a hard limit of requests or connections. A place may become free.
    Full,
    /// Taken out by the operator. Neither asked nor counted.
    Out,
}

/// From this share of failures on it is worth to look for another endpoint: one failure among the last four outcomes.
const DOUBTFUL: f64 = 0.1;

/// What is known of an endpoint's work at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Load {
    /// Peak-EWMA of its latency, decayed to now; zero when never measured.
    pub latency_ns: f64,
    /// The share of failures among what it did lately, in [0, 1].
    pub failing: f64,
    /// Requests out at it and not yet answered, over all workers; of others than the caller a moment ago ([`Hearsay`]).
    pub in_flight: u32,
}

impl Load {
    /// It has failed so often lately that it is worth to look for another one.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        self.failing > DOUBTFUL
    }
}

/// One endpoint of a pool, as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    /// What it is known by, here after an update and on other machines: stable and unique.
    pub name: &'a str,
    /// A share. 0 gets nothing new.
    pub weight: u32,
    /// 0 is asked first; the next ones when it lacks health.
    pub tier: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    #[default]
    Adaptive,
    RoundRobin,
    Random,
    LeastRequests {
        /// How many of a large tier are compared; two at least.
        choices: u8,
    },
    Ring {
        /// Most requests out at an endpoint, in percent of the mean. Zero: no bound.
        bound_percent: u16,
    },
    Maglev {
        /// Slots; made prime. At most [`MAGLEV_SIZE_MAX`].
        size: u32,
        /// As for the ring.
        bound_percent: u16,
    },
}

impl Policy {
    pub const LEAST_REQUESTS: Self = Self::LeastRequests { choices: 2 };
    /// 125 %: the paper's trade between evenness and keys that leave home, and HAProxy's and Envoy's usual choice.
    pub const RING: Self = Self::Ring { bound_percent: 125 };
    /// Unbounded: connections that may not move are what Maglev is for.
    pub const MAGLEV: Self = Self::Maglev { size: MAGLEV_SIZE_DEFAULT, bound_percent: 0 };

    /// Whether it looks at [`Ask::key`].
    #[must_use]
    pub const fn hashes(self) -> bool {
        matches!(self, Self::Ring { .. } | Self::Maglev { .. })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BalanceSettings {
    pub policy: Policy,
    /// Below this health of a tier its [`Standing::Suspect`] endpoints are asked too. Zero: never. Values above
    /// 100 ÷ overprovisioning (71) have no more effect than that.
    pub panic_percent: u8,
    /// How much of its usual load an endpoint can take: at 140 a tier spills when less than 71 % of it is well.
    /// Below 100 counts as 100.
    pub overprovision_percent: u16,
}

impl Default for BalanceSettings {
    /// Envoy's numbers.
    fn default() -> Self {
        Self { policy: Policy::default(), panic_percent: 50, overprovision_percent: 140 }
    }
}

impl From<Policy> for BalanceSettings {
    fn from(policy: Policy) -> Self {
        Self { policy, ..Self::default() }
    }
}

/// What one request asks of the choice.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ask {
    /// Endpoints that this request has already failed at.
    pub avoid: Avoid,
    /// Hash of what the request is to be told by: client address, header, cookie, path ([`crate::hash`]). Without one a
    /// hashing policy chooses at random.
    pub key: Option<u64>,
    /// The endpoint that it sticks to. Taken whenever it is ready or draining, whatever the policy, weight and tier.
    pub prefer: Option<usize>,
    /// It has failed before: an endpoint that is [doubtful](Load::is_doubtful) comes after all that are not, however busy they are.
    pub wary: bool,
    /// It cannot be sent twice. Where failures decide at all ([`Policy::Adaptive`]) it is wary from the start.
    pub once: bool,
}

/// A choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    pub index: usize,
    /// It is the one that was preferred.
    pub sticky: bool,
    /// It was made with health verdicts set aside: worth counting.
    pub panic: bool,
}

/// Why there is no choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoPick {
    /// Some would do and are at their limit: waiting may help.
    Full,
    /// There is none, or all have been tried.
    None,
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
