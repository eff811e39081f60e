//! What the control thread knows of each endpoint beyond its cells: what was last decided of it, why, and when.
//!
//! What holds here: it follows the roster's lists, endpoint for endpoint and in their order; a decision is noted, and said on
//! standard error, once. Deliberately absent: anything that a request waits for. Workers see verdicts in the endpoint's shared
//! words, never this room.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use policy::Now;

use crate::snapshot::{PoolId, Snapshot};
use crate::upstream::{EndpointShared, EndpointSums, Members};

/// Every pool's endpoints, watched.
pub struct Oversight {
    pools: Box<[Ward]>,
}

/// One pool's.
struct Ward {
    name: Box<str>,
    watched: Vec<Rc<Watched>>,
}

/// One endpoint.
pub struct Watched {
    pub name: Arc<str>,
    shared: Arc<EndpointShared>,
    last: RefCell<Note>,
    breaker: Cell<Breaker>,
}

/// What was decided of an endpoint.
#[derive(Clone, Debug)]
pub struct Note {
    pub at: Now,
    pub text: String,
}

/// What the workers' breakers make of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Breaker {
    #[default]
    Closed,
    HalfOpen,
    Open,
}

impl Oversight {
    #[must_use]
    pub fn new(snapshot: &Snapshot) -> Self {
        let ward = |pool: &crate::snapshot::Pool| Ward { name: pool.name.clone(), watched: Vec::new() };
        Self { pools: snapshot.pools.iter().map(ward).collect() }
    }

    /// From now on the pool has these members. What is known of those that stay, stays.
    pub fn follow(&mut self, pool: PoolId, members: &Members, now: Now) {
        let Some(ward) = self.pools.get_mut(usize::from(pool.0)) else { return };
        let before = std::mem::take(&mut ward.watched);
        let known: HashMap<_, _> = before.iter().map(|watched| (Arc::as_ptr(&watched.shared), watched)).collect();
        ward.watched = members
            .iter()
            .map(|member| match known.get(&Arc::as_ptr(&member.shared)) {
                Some(&watched) => Rc::clone(watched),
                None => Rc::new(Watched::new(Arc::clone(&member.name), Arc::clone(&member.shared), now)),
            })
            .collect();
    }

    /// A pool's endpoints, in the order of its list.
    #[must_use]
    pub fn pool(&self, pool: PoolId) -> &[Rc<Watched>] {
        self.pools.get(usize::from(pool.0)).map_or(&[], |ward| &ward.watched)
    }

    /// Notes what workers have decided since the last look.
    pub fn look(&self, now: Now) {
        for ward in &self.pools {
            for watched in &ward.watched {
                watched.look(&ward.name, now);
            }
        }
    }

    /// Notes what was decided of an endpoint, and says so.
    pub fn note(&self, pool: PoolId, name: &str, text: String, now: Now) {
        let Some(ward) = self.pools.get(usize::from(pool.0)) else { return };
        if let Some(watched) = ward.watched.iter().find(|watched| &*watched.name == name) {
            watched.note(&ward.name, text, now);
        }
    }
}

impl Watched {
    fn new(name: Arc<str>, shared: Arc<EndpointShared>, now: Now) -> Self {
        let last = RefCell::new(Note { at: now, text: "in the pool".into() });
        Self { name, shared, last, breaker: Cell::default() }
    }

    /// What was last decided of it.
    #[must_use]
    pub fn last(&self) -> Note {
        self.last.borrow().clone()
    }

    fn note(&self, pool: &str, text: String, now: Now) {
        eprintln!("penstock: endpoint `{}` of pool `{pool}`: {text}", self.name);
        self.last.replace(Note { at: now, text });
    }

    fn look(&self, pool: &str, now: Now) {
        let sums = self.shared.sums();
        let breaker = Breaker::of(&sums);
        let before = self.breaker.replace(breaker);
        if before != breaker {
            self.note(pool, breaker.told(&sums), now);
        }
    }
}

impl Breaker {
    #[must_use]
    pub fn of(sums: &EndpointSums) -> Self {
        match sums {
            EndpointSums { open: 1.., .. } => Self::Open,
            EndpointSums { half_open: 1.., .. } => Self::HalfOpen,
            _ => Self::Closed,
        }
    }

    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }

    fn told(self, sums: &EndpointSums) -> String {
        match self {
            Self::Closed => "breaker closed: the trials went well".into(),
            Self::HalfOpen => "breaker half-open: a few requests try it".into(),
            Self::Open => format!("breaker open (at {} of {} workers)", sums.open, sums.workers),
        }
    }
}
