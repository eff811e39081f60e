//! What a configuration is made into: once for all workers, and by each of them for itself.
//!
//! ```text
//! Snapshot ──control thread──► Generation ──Message──► World (on each worker) ──a Door a listener──► exchanges
//!               └── Diff: what goes on of the generation before
//! ```
//!
//! What holds here: a generation never changes; what it and the one before have in common is the same object in both: a pool's cluster with its
//! connections, a limit's count, a route's breaker. The one before lives until the last exchange behind its doors has ended.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use crate::exchange::{Desk, Door, Doorway};
use crate::qos::{self, Qos};
use crate::quic;
use crate::samehost::Switch;
use crate::snapshot::{Diff, ListenerId, ListenerProtocol, PoolId, ProxyProtocol, RouteId, Snapshot};
use crate::steer::Place;
use crate::telemetry::access_log::Writer;
use crate::telemetry::{WebSockets, WorkerCells};
use crate::tls::{Originations, ServerConfig};
use crate::upstream::{
    self, Approach, Breakers, Cluster, Homes, Lending, Members, RouteBreaker, Selection, Selections, policy_now,
};

/// A configuration that workers are to bind sockets for, and may go on by then.
#[derive(Debug)]
pub struct Draft {
    /// Of its generation.
    pub number: u64,
    pub snapshot: Arc<Snapshot>,
    /// What goes on of the generation before.
    pub diff: Arc<Diff>,
    /// What each listener offers by TLS.
    pub tls: Vec<Option<Arc<ServerConfig>>>,
    /// By listener that is new, of each address at which connections are accepted.
    pub places: Vec<Vec<Place>>,
}

/// What all workers share of a configuration.
pub struct Generation {
    /// Counts them: 1 is what the process began with.
    pub number: u64,
    pub snapshot: Arc<Snapshot>,
    /// What goes on of the one before; of the first one nothing.
    pub diff: Arc<Diff>,
    /// Who is in each pool when it begins.
    pub members: Vec<Members>,
    /// Whether requests of each pool skip TCP on this host, where they could.
    pub switches: Vec<Option<Arc<Switch>>>,
    pub qos: Arc<qos::Shared>,
    /// What each listener offers by TLS when it begins.
    pub tls: Vec<Option<Arc<ServerConfig>>>,
    /// How each pool's endpoints are met by TLS.
    pub originations: Originations,
    pub selections: Arc<Selections>,
    pub breakers: Arc<Breakers>,
    /// How workers lend each other idle connections.
    pub lending: Arc<Lending>,
    pub homes: Arc<Homes>,
    /// By worker.
    pub websockets: Vec<Arc<WebSockets>>,
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Generation({})", self.number)
    }
}

impl Generation {
    /// The first one, for so many workers; `members` are those of the pools.
    #[must_use]
    pub fn first(
        snapshot: &Arc<Snapshot>,
        workers: usize,
        members: Vec<Members>,
        tls: Vec<Option<Arc<ServerConfig>>>,
        originations: Originations,
    ) -> Self {
        Self {
            number: 1,
            diff: Arc::default(),
            members,
            switches: snapshot.pools.iter().map(|_| None).collect(),
            qos: qos::Shared::new(snapshot, workers),
            tls,
            originations,
            selections: Selections::new(snapshot, workers),
            breakers: Breakers::new(snapshot, workers),
            lending: Lending::new(workers),
            homes: Homes::new(snapshot),
            websockets: (0..workers).map(|_| Arc::new(WebSockets::new(snapshot.routes.len()))).collect(),
            snapshot: Arc::clone(snapshot),
        }
    }

    /// What the one after this begins as.
    #[must_use]
    pub fn draft(
        &self,
        snapshot: &Arc<Snapshot>,
        diff: Diff,
        tls: Vec<Option<Arc<ServerConfig>>>,
        places: Vec<Vec<Place>>,
    ) -> Draft {
        Draft { number: self.number + 1, snapshot: Arc::clone(snapshot), diff: Arc::new(diff), tls, places }
    }

    /// The one after this.
    #[must_use]
    pub fn succeed(
        &self,
        draft: &Draft,
        members: Vec<Members>,
        switches: Vec<Option<Arc<Switch>>>,
        originations: Originations,
    ) -> Self {
        let Draft { number, snapshot, diff, tls, .. } = draft;
        let workers = self.websockets.len();
        let route = |route: RouteId| diff.routes.get(usize::from(route.0)).copied().flatten();
        let listener = |listener: ListenerId| diff.listeners.get(usize::from(listener.0)).copied().flatten();
        let routes = || diff.routes.iter().map(|of| of.map(|of| usize::from(of.0)));
        Self {
            number: *number,
            members,
            switches,
            qos: self.qos.succeed(&self.snapshot, snapshot, diff),
            tls: tls.clone(),
            originations,
            selections: Selections::new(snapshot, workers),
            breakers: self.breakers.succeed(snapshot, workers, route),
            lending: Lending::new(workers),
            homes: self.homes.succeed(snapshot, listener),
            websockets: self.websockets.iter().map(|one| Arc::new(one.succeed(routes()))).collect(),
            snapshot: Arc::clone(snapshot),
            diff: Arc::clone(diff),
        }
    }

    /// The pool that goes on in this one.
    fn before(&self, pool: PoolId) -> Option<PoolId> {
        self.diff.pools.get(usize::from(pool.0))?.same()
    }
}

/// A worker among those of its process.
pub(super) struct Seat {
    pub(super) index: usize,
    pub(super) count: usize,
    /// Of all chance on it.
    pub(super) seed: u64,
    pub(super) caller: Rc<quic::Caller>,
    pub(super) cells: Arc<WorkerCells>,
    pub(super) desk: Rc<Desk>,
    pub(super) log: Option<Rc<RefCell<Writer>>>,
}

/// A generation on one worker.
pub(super) struct World {
    pub(super) generation: Arc<Generation>,
    pub(super) clusters: Rc<[Rc<Cluster>]>,
    pub(super) selections: Rc<[Option<Selection>]>,
    qos: Rc<Qos>,
    breakers: Rc<[Option<RouteBreaker>]>,
}

impl World {
    /// Makes what the worker needs of it; clusters of pools that go on are those of `before`.
    pub(super) fn new(generation: Arc<Generation>, seat: &Seat, before: Option<&Self>) -> Self {
        let snapshot = &generation.snapshot;
        let routes = || (0..snapshot.routes.len()).map(|at| RouteId(at as u16));
        // A generation has chances of its own.
        let seed = seat.seed.wrapping_add((generation.number - 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let clusters = clusters(&generation, seat, seed, before);
        let qos = Rc::new(Qos::new(Arc::clone(&generation.qos), snapshot, seat.index, seed));
        attend(&qos, snapshot, &clusters);
        let rooms = Rc::clone(&qos);
        upstream::join(&generation.lending, seat.index, &clusters, snapshot, &seat.cells, move |pool| {
            if let Some(room) = rooms.room(pool) {
                room.serve(policy_now(ring::now()));
            }
        });
        let selection = |route: RouteId| {
            let seed = seed.rotate_left(u32::from(route.0) + 1);
            Selection::new(snapshot, route, &clusters, &generation.selections, seat.index, seed)
        };
        let breaker = |route: RouteId| {
            let seed = seed ^ u64::from(route.0).wrapping_add(1) << 32;
            RouteBreaker::new(snapshot, route, &generation.breakers, (seat.index, seat.count), seed)
        };
        let (selections, breakers) = (routes().map(selection).collect(), routes().map(breaker).collect());
        Self { clusters, selections, qos, breakers, generation }
    }

    /// The door of a listener, in its doorway.
    pub(super) fn door(
        &self,
        listener: ListenerId,
        way: &Rc<Doorway>,
        tls: Option<Arc<ServerConfig>>,
        seat: &Seat,
    ) -> Rc<Door> {
        let snapshot = &self.generation.snapshot;
        let settings = &snapshot[listener];
        let log = seat.log.clone().filter(|_| settings.log);
        let logs_connections = log.is_some() && settings.protocol != ListenerProtocol::Http;
        let shows_certificates = |tls: &crate::snapshot::ListenerTls| tls.client_cert_field;
        let door = Rc::new(Door {
            snapshot: Arc::clone(snapshot),
            listener,
            clusters: Rc::clone(&self.clusters),
            cells: Arc::clone(&seat.cells),
            websockets: Arc::clone(&self.generation.websockets[seat.index]),
            qos: Rc::clone(&self.qos),
            selections: Rc::clone(&self.selections),
            breakers: Rc::clone(&self.breakers),
            homes: Arc::clone(&self.generation.homes),
            log,
            desk: Rc::clone(&seat.desk),
            tls: RefCell::new(tls),
            way: Rc::clone(way),
            alternative: settings.alternative().map(|text| text.into_bytes().into()),
            tells_certificate: snapshot.listeners.iter().any(|one| one.tls.as_ref().is_some_and(shows_certificates)),
            tells_path: logs_connections || snapshot.pools.iter().any(|pool| pool.proxy_protocol != ProxyProtocol::Off),
        });
        way.put(&door);
        door
    }

    /// A pool has these members from now on.
    pub(super) fn follow(&self, pool: PoolId, members: &Members, cells: &WorkerCells) {
        if let Some(cluster) = self.clusters.get(usize::from(pool.0)) {
            cluster.follow(&self.generation.snapshot[pool], members, &cells.counters);
        }
    }

    /// Another one has its place: clusters that are not in that one serve to its end what they have begun. They are given back, for connections
    /// that have been made by then must not outlive them.
    pub(super) fn give_way(&self, to: &Self, cells: &WorkerCells) -> impl Iterator<Item = Rc<Cluster>> {
        let goes_on = |cluster: &Rc<Cluster>| to.clusters.iter().any(|one| Rc::ptr_eq(one, cluster));
        let over = self.clusters.iter().filter(move |cluster| !goes_on(cluster));
        over.map(|cluster| {
            cluster.supersede(&cells.counters);
            Rc::clone(cluster)
        })
    }
}

/// A cluster for each pool.
fn clusters(generation: &Generation, seat: &Seat, seed: u64, before: Option<&World>) -> Rc<[Rc<Cluster>]> {
    let Generation { snapshot, members, switches, originations, .. } = generation;
    let make = |(at, members): (u16, &Members)| {
        let (id, settings) = (PoolId(at), &snapshot[PoolId(at)]);
        if let (Some(of), Some(before)) = (generation.before(id), before)
            && let Some(cluster) = before.clusters.get(usize::from(of.0))
        {
            cluster.follow(settings, members, &seat.cells.counters);
            return Rc::clone(cluster);
        }
        let approach = originations.of(id).map(|tls| Approach { tls, caller: Rc::clone(&seat.caller) });
        let seed = seed.wrapping_add(u64::from(at));
        let cluster = Cluster::new(settings, approach, members, (seat.index, seat.count), seed);
        Rc::new(cluster.with_switch(switches.get(usize::from(at)).cloned().flatten()))
    };
    (0..).zip(members).map(make).collect()
}

/// Lets those who wait for an endpoint know when one has a place.
fn attend(qos: &Qos, snapshot: &Snapshot, clusters: &[Rc<Cluster>]) {
    for (at, (pool, cluster)) in snapshot.pools.iter().zip(clusters).enumerate() {
        if let Some(room) = qos.room(PoolId(at as u16)).filter(|_| pool.admission.by_endpoint) {
            let cluster = Rc::clone(cluster);
            room.attend(move || !cluster.is_full(policy_now(ring::now())));
        }
    }
}
