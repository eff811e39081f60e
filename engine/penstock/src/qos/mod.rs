//! Who comes in, whose turn it is, and how fast it goes: the decisions of `policy`, over cells that workers share.
//!
//! ```text
//! listen:    held      connections a client has                        → closed at once
//! exchange:  rate      requests a key may make                         → 429
//!            pace      when a request's turn comes, and a piece's      → waits
//!            room      places in a pool, and who waits for one         → waits, 503
//! ```
//!
//! What holds here:
//! * **Limits are the process's, not a worker's.** A limit is one word (or a table of words) that all workers step with a
//!   compare-exchange, so it holds exactly whichever way connections fall. Nothing that is not configured touches a shared line, and
//!   there is no lock.
//! * **Memory is what the start took.** Tables of keys, waiting rooms and counters have their size from the configuration; a flood
//!   changes what is in them, and nothing else.
//! * A place in a pool and a seat in its row are given back by being dropped: whoever leaves, in whatever way, holds nothing.
//!
//! Deliberately absent: requests and their fields (`exchange::admit` turns them into keys), and endpoints.

mod cells;
mod held;
mod keyed;
mod overrun;
mod pace;
mod places;
mod rate;
mod room;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use policy::Now;

pub use self::cells::{ClassCells, PoolCells, QosCells};
pub use self::held::HeldClient;
pub use self::pace::{Direction, Turns};
pub use self::rate::{Grant, Limiter, Told};
pub use self::room::{Entering, Place, Refused, Room};

use self::held::HeldClients;
use self::overrun::Overrun;
use self::pace::Paced;
use self::places::Places;
use self::rate::SharedLimit;
use crate::snapshot::{Admission, ClassId, ConcurrencyLimit, Diff, ListenerId, PoolId, RouteId, Snapshot};

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    cells: Box<[QosCells]>,
    /// Where one is, it stays: who is held in it is released from it.
    listeners: Box<[Option<Arc<HeldClients>>]>,
    limits: Box<[Box<[Arc<SharedLimit>]>]>,
    classes: Box<[Option<Paced>]>,
    routes: Box<[Option<Paced>]>,
    /// Of each pool with a limit of its own, or whose endpoints have one while there is a strict class.
    pools: Box<[Option<Arc<Places>>]>,
    /// `None`: nobody asks who does not heed a limit.
    overrun: Option<Overrun>,
    /// Of every hash of what clients say: none of them can aim at a cell.
    secret: [u64; 2],
}

/// One worker's view.
#[derive(Debug)]
pub struct Qos {
    shared: Arc<Shared>,
    worker: usize,
    limits: Box<[Box<[Limiter]>]>,
    rooms: Box<[Option<Rc<Room>>]>,
}

impl Shared {
    #[must_use]
    pub fn new(snapshot: &Snapshot, workers: usize) -> Arc<Self> {
        Arc::new(Self::parts(snapshot, workers, &|_| None, &|_| None))
    }

    /// For a new configuration, of which `diff` tells what goes on: clients' connections are counted on, and so is what a limit that says the same has
    /// let through. Counters and paces begin anew.
    #[must_use]
    pub fn succeed(&self, before: &Snapshot, after: &Snapshot, diff: &Diff) -> Arc<Self> {
        let held = |at: usize| self.listeners.get(usize::from(diff.listeners[at]?.0))?.clone();
        let limits = |at: usize| {
            let of = diff.routes[at]?;
            let same = before[of].qos.limits == after.routes[at].qos.limits;
            self.limits.get(usize::from(of.0)).filter(|_| same).cloned()
        };
        let mut shared = Self::parts(after, self.cells.len(), &held, &limits);
        // Hashes of what clients say name them in tables that go on.
        shared.secret = self.secret;
        for (at, (pool, kin)) in shared.pools.iter_mut().zip(&diff.pools).enumerate() {
            // What is under way in a pool that goes on has its places.
            if let Some(of) = kin.same().filter(|of| before[*of].admission == after.pools[at].admission)
                && let (Some(pool), Some(same)) = (pool, &self.pools[usize::from(of.0)])
            {
                *pool = Arc::clone(same);
            }
        }
        Arc::new(shared)
    }

    fn parts(
        snapshot: &Snapshot,
        workers: usize,
        held: &dyn Fn(usize) -> Option<Arc<HeldClients>>,
        limits: &dyn Fn(usize) -> Option<Box<[Arc<SharedLimit>]>>,
    ) -> Self {
        let seed = || RandomState::new().build_hasher().finish();
        let is_strict = workers > 1 && snapshot.classes.iter().any(|class| class.strict);
        let places = |admission: &Admission| match admission.concurrency {
            ConcurrencyLimit::Fixed(limit) => Some(Arc::new(Places::new(Some(limit), workers))),
            ConcurrencyLimit::Off if admission.by_endpoint && is_strict => Some(Arc::new(Places::new(None, workers))),
            ConcurrencyLimit::Auto | ConcurrencyLimit::Off => None,
        };
        Self {
            cells: (0..workers).map(|_| QosCells::new(snapshot)).collect(),
            listeners: snapshot
                .listeners
                .iter()
                .enumerate()
                .map(|(at, door)| {
                    let most = door.max_connections_per_client;
                    let make = |most| Arc::new(HeldClients::new(most, 2 * door.max_connections as usize, seed()));
                    let table = held(at).or_else(|| most.map(make))?;
                    table.allow(most);
                    Some(table)
                })
                .collect(),
            limits: snapshot
                .routes
                .iter()
                .enumerate()
                .map(|(at, route)| {
                    let limit = |limit| Arc::new(SharedLimit::new(limit, workers, seed()));
                    limits(at).unwrap_or_else(|| route.qos.limits.iter().map(limit).collect())
                })
                .collect(),
            classes: snapshot.classes.iter().map(|class| Paced::new(&class.pace, seed())).collect(),
            routes: snapshot.routes.iter().map(|route| Paced::new(&route.qos.pace, seed())).collect(),
            pools: snapshot.pools.iter().map(|pool| places(&pool.admission)).collect(),
            overrun: snapshot.shield.as_ref().and_then(|shield| Some(Overrun::new(shield.over_limit?.rate, seed()))),
            secret: [seed(), seed()],
        }
    }

    /// What each worker counts.
    #[must_use]
    pub fn cells(&self) -> &[QosCells] {
        &self.cells
    }

    /// Clients that went on though they were turned away, since the last call. For the control thread.
    #[must_use]
    pub fn overrunning(&self) -> Vec<IpAddr> {
        self.overrun.as_ref().map(Overrun::told).unwrap_or_default()
    }
}

impl Qos {
    /// `seed` decides which latencies a found limit looks at.
    #[must_use]
    pub fn new(shared: Arc<Shared>, snapshot: &Snapshot, worker: usize, seed: u64) -> Self {
        let limits =
            shared.limits.iter().map(|limits| limits.iter().map(|limit| Limiter::new(Arc::clone(limit))).collect());
        let rooms = snapshot.pools.iter().zip(&shared.pools).enumerate().map(|(at, (pool, places))| {
            let admission = &pool.admission;
            admission.is_limited().then(|| {
                let gate = room::Gate::new(admission, places.clone(), worker, seed.wrapping_add(at as u64));
                Rc::new(Room::new(gate, &snapshot.classes, admission.queue, room::Told::new(&shared, worker, at)))
            })
        });
        Self { limits: limits.collect(), rooms: rooms.collect(), worker, shared }
    }

    /// What this worker counts.
    #[must_use]
    pub fn cells(&self) -> &QosCells {
        &self.shared.cells[self.worker]
    }

    /// One more connection of a client; `None` if it has as many as it may. Where there is no limit nobody is held.
    #[must_use]
    pub fn hold(&self, listener: ListenerId, client: Option<IpAddr>) -> Option<Option<HeldClient>> {
        match (&self.shared.listeners[usize::from(listener.0)], client) {
            (Some(held), Some(client)) => held.hold(self.client_key(client)).map(Some),
            _ => Some(None),
        }
    }

    /// A connection that was [held](Self::hold) has ended.
    pub fn release(&self, listener: ListenerId, held: Option<HeldClient>) {
        if let (Some(clients), Some(held)) = (&self.shared.listeners[usize::from(listener.0)], held) {
            clients.release(held);
        }
    }

    /// The limits of a route, in the configuration's order.
    #[must_use]
    pub fn limits(&self, route: RouteId) -> &[Limiter] {
        &self.limits[usize::from(route.0)]
    }

    /// A request has been turned away by a limit of its client's, whose packets come from `client` itself.
    pub fn refused(&self, client: impl FnOnce() -> Option<IpAddr>) {
        if let Some(overrun) = &self.shared.overrun
            && let Some(client) = client()
        {
            overrun.refused(self.client_key(client), client);
        }
    }

    /// Whose turn it is where requests of this kind, or connections that have no route, have a pace; `None` where they have none.
    #[must_use]
    pub fn turns(&self, class: ClassId, route: Option<RouteId>, client: impl FnOnce() -> u64) -> Option<Turns<'_>> {
        let class = self.shared.classes[usize::from(class.0)].as_ref();
        let route = route.and_then(|route| self.shared.routes[usize::from(route.0)].as_ref());
        if class.is_none() && route.is_none() {
            return None;
        }
        Some(Turns::new(class, route, client()))
    }

    /// Where requests wait for a pool; `None` for one without limits.
    #[must_use]
    pub fn room(&self, pool: PoolId) -> Option<&Rc<Room>> {
        self.rooms[usize::from(pool.0)].as_ref()
    }

    /// The key of what a client says.
    #[must_use]
    pub fn key(&self, text: &[u8]) -> u64 {
        policy::hash::siphash13(self.shared.secret, text)
    }

    /// The same for names in which case says nothing. Of longer ones than DNS has, the first 255 bytes count.
    #[must_use]
    pub fn key_without_case(&self, text: &[u8]) -> u64 {
        let mut lower = [0; 255];
        let length = text.len().min(lower.len());
        lower[..length].copy_from_slice(&text[..length]);
        lower[..length].make_ascii_lowercase();
        self.key(&lower[..length])
    }

    /// The key of a client: its IPv4 address, or the /64 of its IPv6 address, which is what one subscriber has (RFC 6177).
    #[must_use]
    pub fn client_key(&self, client: IpAddr) -> u64 {
        // NUL first: no field's value has it, so nobody can pose as another's address.
        let mut bytes = [0; 9];
        let length = match client.to_canonical() {
            IpAddr::V4(address) => {
                bytes[1..5].copy_from_slice(&address.octets());
                5
            }
            IpAddr::V6(address) => {
                bytes[1..].copy_from_slice(&address.octets()[..8]);
                9
            }
        };
        self.key(&bytes[..length])
    }
}

/// The ring's time as the policy's.
fn now() -> Now {
    Now::from_nanos(ring::now().as_nanos())
}
