//! One core, one ring, one of everything.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ring::{Now, Receiver, Sender};

use crate::afxdp;
use crate::exchange::{Desk, Door, Splicing};
use crate::limits;
use crate::listen::{self, Gate};
use crate::qos::{self, Qos};
use crate::quic;
use crate::samehost::Switch;
use crate::session::Sessions;
use crate::snapshot::{Bind, ListenerId, ListenerProtocol, PoolId, ProxyProtocol, RouteId, Snapshot};
use crate::steer::{self, Inbox, Neighbours, Seat, Sockets};
use crate::telemetry::WorkerCells;
use crate::telemetry::access_log::Writer;
use crate::telemetry::qlog::Qlog;
use crate::tls::{Originations, ServerConfig};
use crate::upstream::{
    self, Approach, Breakers, Cluster, Homes, Lending, Members, RouteBreaker, Selecting, Selection, Selections,
    policy_now,
};

/// What a worker is made from.
pub struct Plan {
    pub snapshot: Arc<Snapshot>,
    pub cells: Arc<WorkerCells>,
    /// Who is in each pool at the start.
    pub members: Vec<Members>,
    /// Whether requests of each pool skip TCP on this host, where they could.
    pub switches: Vec<Option<Arc<Switch>>>,
    pub log: Option<Writer>,
    /// Writes connections of HTTP/3 down.
    pub qlog: Option<Arc<Qlog>>,
    pub qos: Arc<qos::Shared>,
    /// What each listener offers by TLS at the start.
    pub tls: Vec<Option<Arc<ServerConfig>>>,
    /// How each pool's endpoints are met by TLS.
    pub originations: Originations,
    /// What workers have in common for QUIC.
    pub quic: quic::Keys,
    /// Its queues of the interface whose datagrams go past the kernel.
    pub afxdp: Option<afxdp::Share>,
    pub selections: Arc<Selections>,
    pub breakers: Arc<Breakers>,
    /// How workers lend each other idle connections.
    pub lending: Arc<Lending>,
    pub homes: Arc<Homes>,
    /// When tunnels are spliced; `None`: never.
    pub splicing: Option<Splicing>,
    /// Its lines in what connections are steered by, one for each listening socket.
    pub seats: Vec<Seat>,
    /// It hands connections over to others, and they to it.
    pub hands_over: bool,
    pub index: usize,
    pub count: usize,
    /// Of all chance on this worker.
    pub seed: u64,
}

/// What the control thread says to a worker.
#[derive(Clone, Debug)]
pub enum Message {
    /// A pool has these members from now on.
    Members { pool: PoolId, members: Members },
    /// A listener shows these to clients from now on.
    Certificates { listener: ListenerId, config: Arc<ServerConfig> },
    /// How datagrams reach the other workers.
    Ways(quic::Ways),
    /// Publish what the ring keeps to itself.
    Publish,
    /// Finish what has begun, within this time, and end.
    Drain(Duration),
    /// End now, whatever is cut off.
    Cut,
}

/// A worker at work on the ring of this thread.
pub struct Worker {
    snapshot: Arc<Snapshot>,
    cells: Arc<WorkerCells>,
    clusters: Rc<[Rc<Cluster>]>,
    qos: Rc<Qos>,
    selections: Rc<[Option<Selection>]>,
    breakers: Rc<[Option<RouteBreaker>]>,
    homes: Arc<Homes>,
    sessions: Rc<Sessions>,
    gates: Vec<Rc<Gate>>,
    /// QUIC's ends, and the listener of each.
    endpoints: Vec<(ListenerId, Rc<quic::Endpoint>)>,
    quic: quic::Keys,
    place: quic::Place,
    /// For programs to choose among.
    sockets: Sockets,
    steer: Rc<steer::Local>,
    accepting: Rc<Cell<usize>>,
    desk: Rc<Desk>,
    log: Option<Rc<RefCell<Writer>>>,
    qlog: Option<Arc<Qlog>>,
}

impl Worker {
    /// Binds every listener and begins to accept.
    ///
    /// # Errors
    /// The first address that cannot be bound, named.
    pub fn open(plan: Plan) -> io::Result<Self> {
        let Plan {
            snapshot,
            cells,
            members,
            switches,
            log,
            qlog,
            qos,
            selections,
            breakers,
            lending,
            homes,
            splicing,
            seats,
            tls,
            originations,
            quic,
            afxdp,
            index,
            count,
            seed,
            ..
        } = plan;
        let place = quic.place(index as u16);
        let caller = Rc::new(quic::Caller::new(quic.clone(), place));
        let approach = |pool| originations.of(pool).map(|tls| Approach { tls, caller: Rc::clone(&caller) });
        let clusters = make_clusters(&snapshot, &members, switches, approach, (index, count), seed);
        let qos = Rc::new(Qos::new(qos, &snapshot, index, seed));
        attend(&qos, &snapshot, &clusters);
        let rooms = Rc::clone(&qos);
        upstream::join(&lending, index, &clusters, &snapshot, &cells, move |pool| {
            if let Some(room) = rooms.room(pool) {
                room.serve(policy_now(ring::now()));
            }
        });
        let selections: Rc<[Option<Selection>]> = (0..snapshot.routes.len())
            .map(|at| RouteId(at as u16))
            .map(|route| {
                Selection::new(
                    &snapshot,
                    route,
                    &clusters,
                    &selections,
                    index,
                    seed.rotate_left(u32::from(route.0) + 1),
                )
            })
            .collect();
        let breakers = (0..snapshot.routes.len())
            .map(|at| RouteId(at as u16))
            .map(|route| {
                RouteBreaker::new(
                    &snapshot,
                    route,
                    &breakers,
                    (index, count),
                    seed ^ u64::from(route.0).wrapping_add(1) << 32,
                )
            })
            .collect();
        let mut worker = Self {
            snapshot,
            cells,
            clusters,
            qos,
            selections,
            breakers,
            homes,
            sessions: Rc::default(),
            gates: Vec::new(),
            endpoints: Vec::new(),
            quic,
            place,
            sockets: Sockets::default(),
            steer: Rc::new(steer::Local::new(seats)),
            accepting: Rc::default(),
            desk: Rc::new(Desk::new(seed, splicing)),
            log: log.map(|log| Rc::new(RefCell::new(log))),
            qlog,
        };
        for (at, tls) in tls.into_iter().enumerate() {
            worker.open_listener(ListenerId(at as u16), tls, count)?;
        }
        if let Some(share) = afxdp {
            quic::go_by(&afxdp::Lane::new(share, Arc::clone(&worker.cells)), &worker.ends());
        }
        ring::spawn(housekeeping(
            Arc::clone(&worker.snapshot),
            Arc::clone(&worker.cells),
            Rc::clone(&worker.clusters),
            Rc::clone(&worker.selections),
            Rc::clone(&worker.steer),
            worker.log.clone(),
        ));
        let (steer, cells) = (Rc::clone(&worker.steer), Arc::clone(&worker.cells));
        ring::each_turn(move || steer.turned(&cells.counters));
        Ok(worker)
    }

    fn open_listener(&mut self, id: ListenerId, tls: Option<Arc<ServerConfig>>, count: usize) -> io::Result<()> {
        let listener = &self.snapshot[id];
        let log = self.log.clone().filter(|_| listener.log);
        let logs_connections = log.is_some() && listener.protocol != ListenerProtocol::Http;
        let door = Rc::new(Door {
            snapshot: Arc::clone(&self.snapshot),
            listener: id,
            clusters: Rc::clone(&self.clusters),
            cells: Arc::clone(&self.cells),
            qos: Rc::clone(&self.qos),
            selections: Rc::clone(&self.selections),
            breakers: Rc::clone(&self.breakers),
            homes: Arc::clone(&self.homes),
            log,
            desk: Rc::clone(&self.desk),
            tls: RefCell::new(tls),
            alternative: listener.alternative().map(|text| text.into_bytes().into()),
            open: Cell::new(0),
            tells_certificate: self
                .snapshot
                .listeners
                .iter()
                .any(|one| one.tls.as_ref().is_some_and(|tls| tls.client_cert_field)),
            tells_path: logs_connections
                || self.snapshot.pools.iter().any(|pool| pool.proxy_protocol != ProxyProtocol::Off),
        });
        let quic = door.tls.borrow().as_ref().and_then(|tls| self.offer_quic(id, tls)).transpose()?;
        let share = (listener.max_connections as usize).div_ceil(count.max(1));
        if let ListenerProtocol::Udp { .. } = listener.protocol {
            for socket in listen::udp::bind(listener)? {
                let gate = Rc::new(Gate::new(Rc::clone(&door), Rc::clone(&self.sessions), share, None));
                self.gates.push(Rc::clone(&gate));
                ring::spawn(listen::udp::serve(gate, socket));
            }
            return Ok(());
        }
        for (address, socket) in listener.addresses.iter().zip(listen::bind(listener)?) {
            let in_group = !matches!(address, Bind::Unix(_));
            let descriptor = socket.descriptor().filter(|_| in_group);
            let at = self.sockets.listening.len();
            self.sockets.listening.push(descriptor.map(|socket| socket.try_clone_to_owned()).transpose()?);
            let (door, sessions, steer) = (Rc::clone(&door), Rc::clone(&self.sessions), Rc::clone(&self.steer));
            let gate = Rc::new(Gate::new(door, sessions, share, Some((at, steer))));
            self.gates.push(Rc::clone(&gate));
            let accepting = Rc::clone(&self.accepting);
            accepting.set(accepting.get() + 1);
            ring::spawn(async move {
                listen::accept(gate, socket).await;
                accepting.set(accepting.get() - 1);
            });
        }
        let Some(server) = quic else { return Ok(()) };
        for endpoint in listen::quic::bind(listener, self.endpoints.len(), &self.quic, self.place, &server)? {
            let gate = Rc::new(Gate::new(Rc::clone(&door), Rc::clone(&self.sessions), share, None));
            self.gates.push(Rc::clone(&gate));
            let socket = endpoint.socket();
            if let Some(descriptor) = socket.descriptor() {
                let name = format!("{} over UDP (`{}`)", socket.local()?, listener.name);
                self.sockets.datagrams.push((name, descriptor.try_clone_to_owned()?));
            }
            if let (Some(qlog), Some(http3)) = (&self.qlog, &listener.http3) {
                let (qlog, cells) = (Arc::clone(qlog), Arc::clone(&self.cells));
                endpoint.record(quic::Recorder { qlog, http3: http3.clone(), cells });
            }
            self.endpoints.push((id, Rc::clone(&endpoint)));
            ring::spawn(listen::quic::serve(gate, endpoint));
        }
        Ok(())
    }

    /// What a listener shows to clients of QUIC; `None` where it does not speak it.
    fn offer_quic(&self, id: ListenerId, tls: &ServerConfig) -> Option<io::Result<Arc<quic::ServerConfig>>> {
        let http3 = self.snapshot[id].http3.as_ref()?;
        let server = quic::server(tls, http3, &self.quic);
        Some(server.map_err(|error| io::Error::other(format!("listener `{}`: {error}", self.snapshot[id].name))))
    }

    /// Opens the ways by which the other workers, of which there are `count` with this one, bring what belongs here.
    #[must_use]
    pub fn ways_from_others(&self, count: usize) -> Vec<Option<Sender<quic::Astray>>> {
        quic::receive_from_all(usize::from(self.place.worker), count, &self.ends())
    }

    fn ends(&self) -> Vec<Rc<quic::Endpoint>> {
        self.endpoints.iter().map(|(_, endpoint)| Rc::clone(endpoint)).collect()
    }

    fn carry(&self, ways: quic::Ways) {
        let carrier = ways.carrier(Arc::clone(&self.cells));
        self.endpoints.iter().for_each(|(_, endpoint)| endpoint.carry(Rc::clone(&carrier)));
    }

    /// What programs choose among; it is given away.
    pub fn sockets(&mut self) -> Sockets {
        std::mem::take(&mut self.sockets)
    }

    /// From now on connections may go to other workers and come from them.
    pub fn meet(&self, neighbours: Neighbours, inboxes: Vec<Inbox>) {
        self.steer.meet(neighbours);
        for mut inbox in inboxes {
            let gates: Vec<_> = self.gates.iter().filter(|gate| gate.steer.is_some()).map(Rc::clone).collect();
            ring::spawn(async move {
                while let Some(handed) = inbox.recv().await {
                    if let Some(gate) = gates.get(handed.gate) {
                        listen::take_over(gate, handed.socket);
                    }
                }
            });
        }
    }

    /// Works until it has been told to drain, and has.
    pub async fn run(self, mut mail: Receiver<Message>) {
        let deadline = loop {
            match mail.recv().await {
                Some(Message::Members { pool, members }) => self.follow(pool, &members),
                Some(Message::Certificates { listener, config }) => self.show(listener, &config),
                Some(Message::Ways(ways)) => self.carry(ways),
                Some(Message::Publish) => self.cells.publish(),
                Some(Message::Drain(patience)) => break ring::now() + patience,
                Some(Message::Cut) | None => break ring::now(),
            }
        };
        self.drain(deadline, &mut mail).await;
        if let Some(log) = &self.log {
            let dropped = log.borrow_mut().flush();
            self.cells.counters.log_lines_dropped_total.add(dropped);
        }
        self.cells.publish();
    }

    /// Closes the doors, lets exchanges finish, and gives idle connections a last chance.
    pub async fn drain(&self, deadline: Now, mail: &mut Receiver<Message>) {
        self.desk.drain();
        for gate in &self.gates {
            gate.close();
        }
        self.sessions.drain(deadline.min(ring::now() + limits::DRAIN_IDLE));
        while (self.accepting.get() > 0 || self.sessions.open() > 0) && ring::now() < deadline {
            while let Some(message) = mail.try_recv() {
                match message {
                    Message::Publish => self.cells.publish(),
                    Message::Cut => return,
                    Message::Members { pool, members } => self.follow(pool, &members),
                    Message::Drain(_) | Message::Certificates { .. } | Message::Ways(_) => {}
                }
            }
            ring::sleep(Duration::from_millis(5)).await;
        }
        for cluster in self.clusters.iter() {
            cluster.close_idle(&self.cells.counters);
        }
        // Closed sockets leave with the coming turns.
        ring::yield_now().await;
    }

    fn show(&self, listener: ListenerId, config: &Arc<ServerConfig>) {
        for gate in self.gates.iter().filter(|gate| gate.door.listener == listener) {
            gate.door.tls.replace(Some(Arc::clone(config)));
        }
        // A configuration that was tried out when it was loaded is not refused now.
        if let Some(Ok(server)) = self.offer_quic(listener, config) {
            let ours = self.endpoints.iter().filter(|(of, _)| *of == listener);
            ours.for_each(|(_, endpoint)| endpoint.show(Arc::clone(&server)));
        }
    }

    fn follow(&self, pool: PoolId, members: &Members) {
        if let Some(cluster) = self.clusters.get(usize::from(pool.0)) {
            cluster.follow(&self.snapshot[pool], members, &self.cells.counters);
        }
    }
}

/// A cluster for each pool, met as `approach` says.
fn make_clusters(
    snapshot: &Snapshot,
    members: &[Members],
    switches: Vec<Option<Arc<Switch>>>,
    approach: impl Fn(PoolId) -> Option<Approach>,
    place: (usize, usize),
    seed: u64,
) -> Rc<[Rc<Cluster>]> {
    let pools = snapshot.pools.iter().zip(members).zip(switches).enumerate();
    pools
        .map(|(at, ((pool, members), switch))| {
            let approach = approach(PoolId(at as u16));
            let cluster = Cluster::new(pool, approach, members, place, seed.wrapping_add(at as u64));
            Rc::new(cluster.with_switch(switch))
        })
        .collect()
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

/// What must be done now and then, whatever the load.
async fn housekeeping(
    snapshot: Arc<Snapshot>,
    cells: Arc<WorkerCells>,
    clusters: Rc<[Rc<Cluster>]>,
    selections: Rc<[Option<Selection>]>,
    steer: Rc<steer::Local>,
    log: Option<Rc<RefCell<Writer>>>,
) {
    loop {
        for (cluster, pool) in clusters.iter().zip(&snapshot.pools) {
            cluster.sweep(pool, &cells.counters);
            Cluster::warm(cluster, pool, &cells);
        }
        let asked = Selecting { now: policy_now(ring::now()), repeatable: true, waits: &|_| false };
        selections.iter().flatten().for_each(|selection| selection.look(&asked));
        steer.forgive();
        ring::sleep(limits::HOUSEKEEPING).await;
        if let Some(log) = &log {
            let dropped = log.borrow_mut().flush();
            cells.counters.log_lines_dropped_total.add(dropped);
        }
        cells.publish();
    }
}
