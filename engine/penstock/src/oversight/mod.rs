//! What the control thread knows of each endpoint beyond its cells: what its probes say, how it compares with its pool, what
//! was last decided of it, why, and when.
//!
//! What holds here: it follows the roster's lists, endpoint for endpoint and in their order; each endpoint of a probed pool has one
//! prober, for the whole process, from when it joins to when it leaves; a decision is noted, and said on standard error, once.
//! Deliberately absent: anything that a request waits for. Workers see verdicts in the endpoint's shared words, never this room.

mod outliers;
mod probe;
mod prober;
mod routes;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use policy::Now;
use ring::{Address, TaskRef};

use self::outliers::Jury;
pub use self::prober::Probes;
use self::routes::Guarded;
use crate::quic::{Caller, Keys, Place};
use crate::snapshot::{Kin, Pool, PoolId, RouteId, Snapshot};
use crate::tls::Originations;
use crate::upstream::{Approach, Breakers, EndpointShared, Member, Members};

/// Every pool's endpoints, watched.
pub struct Oversight {
    /// How each pool is met and probed: all of it but its endpoints.
    settings: Box<[Rc<Pool>]>,
    tls: Originations,
    /// Makes the connections of probes that go over QUIC.
    caller: Rc<Caller>,
    pools: Box<[Vec<Rc<Watched>>]>,
    /// By pool; `None` where nobody is compared.
    juries: Box<[Option<Jury>]>,
    /// Routes that have a breaker.
    guarded: Box<[Guarded]>,
    /// Who joins is probed from then on: there is a ring to do it on.
    begun: bool,
}

/// One endpoint.
pub struct Watched {
    pub name: Arc<str>,
    pool: Box<str>,
    shared: Arc<EndpointShared>,
    addresses: RefCell<Box<[Address]>>,
    last: RefCell<Note>,
    breaker: Cell<Breaker>,
    probes: Probes,
    ejections: Cell<u64>,
    prober: Cell<Option<TaskRef>>,
    /// Its pool has it no longer.
    retired: Cell<bool>,
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
    /// Of the pools of a snapshot, with nobody in them yet.
    #[must_use]
    pub fn new(snapshot: &Snapshot, tls: Originations, keys: Keys, now: Now) -> Self {
        let pools = snapshot.pools.iter().map(|_| Vec::new()).collect();
        let jury = |settings| Jury::new(settings, now);
        let juries = snapshot.pools.iter().map(|pool| pool.outlier.map(jury)).collect();
        let guarded = Guarded::all(snapshot, now);
        let caller = Rc::new(Caller::new(keys, Place::default()));
        let settings = |pool: &Pool| Rc::new(Pool { endpoints: Box::default(), ..pool.clone() });
        let settings = snapshot.pools.iter().map(settings).collect();
        Self { settings, tls, caller, pools, juries, guarded, begun: false }
    }

    /// From now on a new configuration holds. Pools that go on are watched and probed as before; others have nobody in them until they are followed.
    pub fn succeed(&mut self, snapshot: &Snapshot, kin: &[Kin], tls: Originations, keys: Keys, now: Now) {
        let mut before = std::mem::replace(self, Self::new(snapshot, tls, keys, now));
        self.begun = before.begun;
        for (at, of) in kin.iter().enumerate().filter_map(|(at, kin)| Some((at, usize::from(kin.same()?.0)))) {
            self.pools[at] = std::mem::take(&mut before.pools[of]);
            self.juries[at] = before.juries[of].take();
            self.settings[at] = Rc::clone(&before.settings[of]);
        }
        before.pools.iter().flatten().for_each(|watched| watched.retire());
    }

    fn approach(&self, pool: PoolId) -> Option<Approach> {
        Some(Approach { tls: self.tls.of(pool)?, caller: Rc::clone(&self.caller) })
    }

    /// Begins to probe, on the ring of this thread.
    pub fn begin(&mut self) {
        self.begun = true;
        for (at, watched) in self.pools.iter().enumerate() {
            let pool = PoolId(at as u16);
            let settings = &self.settings[at];
            watched.iter().for_each(|watched| prober::start(watched, settings, self.approach(pool)));
        }
    }

    /// From now on the pool has these members. What is known of those that stay, stays.
    pub fn follow(&mut self, pool: PoolId, members: &Members, now: Now) {
        let approach = self.approach(pool);
        let Some(settings) = self.settings.get(usize::from(pool.0)) else { return };
        let Some(list) = self.pools.get_mut(usize::from(pool.0)) else { return };
        let before = std::mem::take(list);
        let mut known: HashMap<_, _> = before.iter().map(|watched| (Arc::as_ptr(&watched.shared), watched)).collect();
        for member in members.iter() {
            let watched = match known.remove(&Arc::as_ptr(&member.shared)) {
                Some(watched) => Rc::clone(watched),
                None => Rc::new(Watched::new(&settings.name, member, now)),
            };
            watched.addresses.borrow_mut().clone_from(&member.addresses);
            if self.begun {
                prober::start(&watched, settings, approach.clone());
            }
            list.push(watched);
        }
        if let Some(jury) = &mut self.juries[usize::from(pool.0)] {
            jury.follow(&before, list);
        }
        known.into_values().for_each(|watched| watched.retire());
    }

    /// A pool's endpoints, in the order of its list.
    #[must_use]
    pub fn pool(&self, pool: PoolId) -> &[Rc<Watched>] {
        self.pools.get(usize::from(pool.0)).map_or(&[], Vec::as_slice)
    }

    /// Notes what workers have decided since the last look.
    pub fn look(&self, breakers: &Breakers, now: Now) {
        self.pools.iter().flatten().for_each(|watched| watched.look(now));
        self.guarded.iter().for_each(|route| route.look(breakers, now));
    }

    /// What was last decided of a route's breaker, if it has one.
    #[must_use]
    pub fn last_of_route(&self, route: RouteId) -> Option<Note> {
        self.guarded.iter().find(|guarded| guarded.is_of(route)).map(Guarded::last)
    }

    /// Notes what was decided of a route's breaker, and says so.
    pub fn note_route(&self, route: RouteId, text: String, now: Now) {
        if let Some(guarded) = self.guarded.iter().find(|guarded| guarded.is_of(route)) {
            guarded.note(text, now);
        }
    }

    /// Compares the endpoints of each pool that is due.
    pub fn judge(&mut self, now: Now) {
        for (jury, list) in self.juries.iter_mut().zip(&self.pools) {
            if let Some(jury) = jury {
                jury.judge(list, now);
            }
        }
    }

    /// Notes what was decided of an endpoint, and says so.
    pub fn note(&self, pool: PoolId, name: &str, text: String, now: Now) {
        if let Some(watched) = self.pool(pool).iter().find(|watched| &*watched.name == name) {
            watched.note(text, now);
        }
    }
}

impl Watched {
    fn new(pool: &str, member: &Member, now: Now) -> Self {
        Self {
            name: Arc::clone(&member.name),
            pool: pool.into(),
            shared: Arc::clone(&member.shared),
            addresses: RefCell::default(),
            last: RefCell::new(Note { at: now, text: "in the pool".into() }),
            breaker: Cell::default(),
            probes: Probes::default(),
            ejections: Cell::default(),
            prober: Cell::new(None),
            retired: Cell::new(false),
        }
    }

    /// What was last decided of it.
    #[must_use]
    pub fn last(&self) -> Note {
        self.last.borrow().clone()
    }

    /// What its prober has found.
    #[must_use]
    pub const fn probes(&self) -> &Probes {
        &self.probes
    }

    /// How often it was ejected.
    #[must_use]
    pub const fn ejections(&self) -> u64 {
        self.ejections.get()
    }

    fn note(&self, text: String, now: Now) {
        eprintln!("penstock: endpoint `{}` of pool `{}`: {text}", self.name, self.pool);
        self.note_quietly(text, now);
    }

    fn note_quietly(&self, text: String, now: Now) {
        self.last.replace(Note { at: now, text });
    }

    fn look(&self, now: Now) {
        let sums = self.shared.sums();
        let breaker = Breaker::of(sums.open, sums.half_open);
        if self.breaker.replace(breaker) != breaker {
            self.note(breaker.told(sums.open, sums.workers), now);
        }
    }

    fn retire(&self) {
        self.retired.set(true);
        if let Some(prober) = self.prober.take() {
            ring::wake(prober);
        }
    }
}

impl Breaker {
    /// At so many workers it is open, and half-open.
    #[must_use]
    pub const fn of(open: usize, half_open: usize) -> Self {
        match (open, half_open) {
            (1.., _) => Self::Open,
            (_, 1..) => Self::HalfOpen,
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

    fn told(self, open: usize, workers: usize) -> String {
        match self {
            Self::Closed => "breaker closed: the trials went well".into(),
            Self::HalfOpen => "breaker half-open: a few requests try it".into(),
            Self::Open => format!("breaker open (at {open} of {workers} workers)"),
        }
    }
}
