//! One core, one ring, one of everything.

mod entrance;
mod gates;
mod generation;

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use ring::{Now, Receiver, Sender};

use self::entrance::{Bound, Entrance};
use self::gates::Gates;
pub use self::generation::{Draft, Generation};
use self::generation::{Seat, World};
use crate::afxdp;
use crate::exchange::{Desk, Door, Splicing};
use crate::limits;
use crate::listen::{self, Gate};
use crate::quic::{self, End};
use crate::session::Sessions;
use crate::session::udp::{Beside, Flows, Owners};
use crate::snapshot::{Listener, ListenerId, PoolId};
use crate::steer::{self, Inbox, Neighbours, Place, Sockets};
use crate::telemetry::WorkerCells;
use crate::telemetry::access_log::Writer;
use crate::telemetry::qlog::Qlog;
use crate::tls::ServerConfig;
use crate::upstream::{Cluster, Members, Selecting, policy_now};

/// What a worker is made from.
pub struct Plan {
    /// The first one.
    pub generation: Arc<Generation>,
    pub cells: Arc<WorkerCells>,
    pub log: Option<Writer>,
    /// Writes connections of HTTP/3 down.
    pub qlog: Option<Arc<Qlog>>,
    /// What workers have in common for QUIC.
    pub quic: quic::Keys,
    /// Its queues of the interface whose datagrams go past the kernel.
    pub afxdp: Option<afxdp::Share>,
    /// Which worker has a flow of datagrams; `None`: there is one worker.
    pub owners: Option<Arc<Owners>>,
    /// When tunnels are spliced; `None`: never.
    pub splicing: Option<Splicing>,
    /// By listener, of each address at which connections are accepted.
    pub places: Vec<Vec<Place>>,
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
    /// Datagrams go past the kernel by these queues from now on, or by none; to be said when that is so.
    Lane { share: afxdp::Shares, done: mpsc::Sender<()> },
    /// Bind what a new configuration asks for, and say whether that went well.
    Prepare { draft: Arc<Draft>, bound: mpsc::Sender<Answer> },
    /// Go on by the configuration that was prepared, and say when that is so.
    Adopt { generation: Arc<Generation>, done: mpsc::Sender<()> },
    /// What was prepared is not to be.
    Abandon,
    /// Publish what the ring keeps to itself.
    Publish,
    /// Finish what has begun, within this time, and end.
    Drain(Duration),
    /// End now, whatever is cut off.
    Cut,
}

/// A worker, by its number, and what it has bound for a new configuration.
pub type Answer = (usize, io::Result<Prepared>);

/// What is new in a configuration, as one worker has it.
#[derive(Default)]
pub struct Prepared {
    /// What programs choose among.
    pub sockets: Sockets,
    /// How the other workers bring what belongs here, where none of them has such a way yet.
    pub ways: Vec<Option<Sender<quic::Astray>>>,
}

/// Of what is to hold next, what is new in it.
struct Coming {
    draft: Arc<Draft>,
    /// By listener that is new.
    bound: Vec<Option<Bound>>,
}

/// Clusters of configurations that hold no longer, for as long as something goes on in them.
type Superseded = RefCell<Vec<Rc<Cluster>>>;

/// A worker at work on the ring of this thread.
pub struct Worker {
    seat: Seat,
    /// What holds now.
    world: Rc<RefCell<Rc<World>>>,
    superseded: Rc<Superseded>,
    coming: Option<Coming>,
    /// By listener.
    entrances: Vec<Entrance>,
    /// Those of listeners that are no more, until their last connection is over.
    leaving: Vec<Entrance>,
    sessions: Rc<Sessions>,
    /// QUIC's ends, and those of flows: those of one number have the same address on all workers.
    ends: quic::Ends,
    quic: quic::Keys,
    place: quic::Place,
    /// How datagrams reach the other workers.
    carrier: Option<quic::Carrier>,
    /// The way past the kernel, which is closed where there is none.
    lane: Rc<afxdp::Lane>,
    owners: Option<Arc<Owners>>,
    /// For programs to choose among.
    sockets: Sockets,
    steer: Rc<steer::Local>,
    gates: Rc<Gates>,
    accepting: Rc<Cell<usize>>,
    /// Writes connections down, of whom that is asked.
    recorder: Option<quic::Recorder>,
}

impl Worker {
    /// Binds every listener and begins to accept.
    ///
    /// # Errors
    /// The first address that cannot be bound, named.
    pub fn open(plan: Plan) -> io::Result<Self> {
        let Plan { generation, cells, log, qlog, splicing, places, quic, afxdp, owners, index, count, seed, .. } = plan;
        let place = quic.place(index as u16);
        let recorder = qlog.map(|qlog| quic::Recorder { qlog, cells: Arc::clone(&cells) });
        let seat = Seat {
            index,
            count,
            seed,
            caller: Rc::new(quic::Caller::new(quic.clone(), place).recorded(recorder.clone())),
            cells,
            desk: Rc::new(Desk::new(seed, splicing)),
            log: log.map(|log| Rc::new(RefCell::new(log))),
        };
        let lane = afxdp::Lane::new(Arc::clone(&seat.cells));
        let world = Rc::new(World::new(Arc::clone(&generation), &seat, None));
        let mut worker = Self {
            seat,
            world: Rc::new(RefCell::new(Rc::clone(&world))),
            superseded: Rc::default(),
            coming: None,
            entrances: Vec::new(),
            leaving: Vec::new(),
            sessions: Rc::default(),
            ends: quic::Ends::default(),
            quic,
            place,
            carrier: None,
            lane,
            owners,
            sockets: Sockets::default(),
            steer: Rc::default(),
            gates: Rc::default(),
            accepting: Rc::default(),
            recorder,
        };
        for id in (0..generation.snapshot.listeners.len()).map(|at| ListenerId(at as u16)) {
            let (listener, at) = (&generation.snapshot[id], usize::from(id.0));
            let tls = generation.tls[at].clone();
            let bound = worker.bind(listener, tls.as_deref(), worker.ends.next())?;
            bound.show(id, listener, &mut worker.sockets)?;
            let entrance = worker.enter(&world, id, tls, bound, places.get(at).map_or(&[][..], Vec::as_slice));
            worker.entrances.push(entrance);
        }
        afxdp.into_iter().for_each(|share| worker.lane.open(share));
        ring::spawn(housekeeping(
            Rc::clone(&worker.world),
            Rc::clone(&worker.superseded),
            Arc::clone(&worker.seat.cells),
            Rc::clone(&worker.steer),
            worker.seat.log.clone(),
        ));
        let (steer, cells) = (Rc::clone(&worker.steer), Arc::clone(&worker.seat.cells));
        ring::each_turn(move || steer.turned(&cells.counters));
        Ok(worker)
    }

    fn bind(&self, listener: &Listener, tls: Option<&ServerConfig>, first: usize) -> io::Result<Bound> {
        Bound::new(listener, tls, &self.quic, self.place, first)
    }

    /// Lets clients in by a listener's sockets, those at which connections are accepted having these `places`.
    fn enter(
        &self,
        world: &World,
        id: ListenerId,
        tls: Option<Arc<ServerConfig>>,
        bound: Bound,
        places: &[Place],
    ) -> Entrance {
        let listener = &world.generation.snapshot[id];
        let mut entrance = Entrance::new(listener, Rc::default());
        let door = world.door(id, &entrance.way, tls, &self.seat);
        let gate = |steered| Rc::new(Gate::new(Rc::clone(&door), Rc::clone(&self.sessions), self.seat.count, steered));
        for socket in bound.datagrams {
            let gate = gate(None);
            entrance.add_port(&gate);
            let beside = Beside {
                lane: Rc::clone(&self.lane),
                owners: self.owners.clone(),
                worker: self.seat.index as u16,
                end: self.ends.next(),
            };
            // A bound socket knows its address.
            let Ok(flows) = Flows::new(&gate.door(), &self.sessions, socket, beside) else { continue };
            if let Some(carrier) = &self.carrier {
                flows.carry(Rc::clone(carrier));
            }
            self.ends.push(&flows);
            ring::spawn(listen::udp::serve(gate, flows));
        }
        for (at, socket) in bound.listening.into_iter().enumerate() {
            let place = places.get(at);
            let gate = gate(place.map(|place| self.steer.sit(place, self.seat.index)));
            if let Some(place) = place {
                self.gates.add(place.gate, &gate);
            }
            entrance.gates.push(Rc::clone(&gate));
            let accepting = Rc::clone(&self.accepting);
            accepting.set(accepting.get() + 1);
            ring::spawn(async move {
                listen::accept(gate, socket).await;
                accepting.set(accepting.get() - 1);
            });
        }
        for endpoint in bound.quic {
            let gate = gate(None);
            entrance.add_port(&gate);
            if let Some(recorder) = &self.recorder {
                endpoint.record(recorder.clone());
            }
            if let Some(carrier) = &self.carrier {
                endpoint.carry(Rc::clone(carrier));
            }
            endpoint.go_by(&self.lane);
            self.ends.push(&endpoint);
            entrance.quic.push(Rc::clone(&endpoint));
            ring::spawn(listen::quic::serve(gate, endpoint));
        }
        entrance
    }

    /// Datagrams of clients may come, or could.
    #[must_use]
    pub fn has_had_datagrams(&self) -> bool {
        self.ends.next() > 0
    }

    /// Opens the ways by which the other workers bring what belongs here.
    #[must_use]
    pub fn ways_from_others(&self) -> Vec<Option<Sender<quic::Astray>>> {
        quic::receive_from_all(self.seat.index, self.seat.count, &self.ends)
    }

    fn carry(&mut self, ways: quic::Ways) {
        let carrier = ways.carrier(Arc::clone(&self.seat.cells));
        self.ends.all().iter().for_each(|endpoint| endpoint.carry(Rc::clone(&carrier)));
        self.carrier = Some(carrier);
    }

    /// What programs choose among; it is given away.
    pub fn sockets(&mut self) -> Sockets {
        std::mem::take(&mut self.sockets)
    }

    /// From now on connections may go to other workers and come from them.
    pub fn meet(&self, neighbours: Neighbours, inboxes: Vec<Inbox>) {
        self.steer.meet(neighbours);
        for inbox in inboxes {
            ring::spawn(Rc::clone(&self.gates).take_over(inbox));
        }
    }

    /// Works until it has been told to drain, and has.
    pub async fn run(mut self, mut mail: Receiver<Message>) {
        let deadline = loop {
            match mail.recv().await {
                Some(Message::Drain(patience)) => break ring::now() + patience,
                Some(Message::Cut) | None => break ring::now(),
                Some(message) => self.hear(message),
            }
        };
        self.drain(deadline, &mut mail).await;
        if let Some(log) = &self.seat.log {
            let dropped = log.borrow_mut().flush();
            self.seat.cells.counters.log_lines_dropped_total.add(dropped);
        }
        self.seat.cells.publish();
    }

    fn hear(&mut self, message: Message) {
        match message {
            Message::Members { pool, members } => self.world.borrow().follow(pool, &members, &self.seat.cells),
            Message::Certificates { listener, config } => self.show(listener, &config),
            Message::Ways(ways) => self.carry(ways),
            Message::Lane { share, done } => {
                match share.take(self.seat.index) {
                    Some(share) => self.lane.open(share),
                    None => self.lane.close(),
                }
                let _ = done.send(());
            }
            Message::Prepare { draft, bound } => drop(bound.send((self.seat.index, self.prepare(draft)))),
            Message::Adopt { generation, done } => {
                self.adopt(generation);
                // Who asked may have stopped to wait.
                let _ = done.send(());
            }
            Message::Abandon => self.coming = None,
            Message::Publish => self.seat.cells.publish(),
            // Who works hears these where it waits for them; who drains has heard them.
            Message::Drain(_) | Message::Cut => {}
        }
    }

    /// Binds the listeners that are new in a generation. Nothing has changed when that fails.
    fn prepare(&mut self, draft: Arc<Draft>) -> io::Result<Prepared> {
        if draft.number != self.world.borrow().generation.number + 1 {
            return Err(io::Error::other("it does not follow the configuration that holds here"));
        }
        self.leaving.retain(|entrance| !entrance.is_over());
        let mut sockets = Sockets::default();
        let mut first = self.ends.next();
        let mut all = Vec::new();
        for (at, of) in draft.diff.listeners.iter().enumerate() {
            let listener = &draft.snapshot.listeners[at];
            if of.is_some() {
                all.push(None);
                continue;
            }
            if self.leaving.iter().any(|entrance| entrance.holds(listener)) {
                let why = "its UDP addresses are those of a listener that has left, and still has connections";
                return Err(io::Error::other(format!("listener `{}`: {why}", listener.name)));
            }
            let bound = self.bind(listener, draft.tls[at].as_deref(), first)?;
            bound.show(ListenerId(at as u16), listener, &mut sockets)?;
            first += bound.quic.len() + bound.datagrams.len();
            all.push(Some(bound));
        }
        let is_first = !self.has_had_datagrams() && first > 0;
        let ways = if is_first { self.ways_from_others() } else { Vec::new() };
        self.coming = Some(Coming { draft, bound: all });
        Ok(Prepared { sockets, ways })
    }

    /// Goes on by what was prepared: who comes now, and every next request of those who are here.
    fn adopt(&mut self, generation: Arc<Generation>) {
        let prepared = self.coming.take().filter(|coming| coming.draft.number == generation.number);
        let Some(Coming { draft, bound }) = prepared else { return };
        let before = Rc::clone(&self.world.borrow());
        let world = Rc::new(World::new(Arc::clone(&generation), &self.seat, Some(&before)));
        self.world.replace(Rc::clone(&world));
        let mut entrances: Vec<_> = std::mem::take(&mut self.entrances).into_iter().map(Some).collect();
        for (at, bound) in bound.into_iter().enumerate() {
            let (id, tls) = (ListenerId(at as u16), generation.tls[at].clone());
            let of = generation.diff.listeners[at].and_then(|of| entrances.get_mut(usize::from(of.0))?.take());
            let entrance = match of {
                Some(entrance) => {
                    let door = world.door(id, &entrance.way, tls, &self.seat);
                    entrance.lead_to(&door, &self.quic);
                    entrance
                }
                None => self.enter(&world, id, tls, bound.unwrap_or_default(), &draft.places[at]),
            };
            self.entrances.push(entrance);
        }
        for entrance in entrances.into_iter().flatten() {
            self.leaving.push(entrance.leave());
        }
        self.superseded.borrow_mut().extend(before.give_way(&world, &self.seat.cells));
    }

    /// Closes the doors, lets exchanges finish, and gives idle connections a last chance.
    pub async fn drain(&mut self, deadline: Now, mail: &mut Receiver<Message>) {
        self.coming = None;
        self.seat.desk.drain();
        self.entrances.iter().for_each(Entrance::close);
        self.sessions.drain(deadline.min(ring::now() + limits::DRAIN_IDLE));
        while (self.accepting.get() > 0 || self.sessions.open() > 0) && ring::now() < deadline {
            while let Some(message) = mail.try_recv() {
                match message {
                    Message::Cut => return,
                    Message::Prepare { bound, .. } => {
                        drop(bound.send((self.seat.index, Err(io::Error::other("it drains")))));
                    }
                    Message::Publish | Message::Members { .. } => self.hear(message),
                    _ => {}
                }
            }
            ring::sleep(Duration::from_millis(5)).await;
        }
        let world = Rc::clone(&self.world.borrow());
        for cluster in world.clusters.iter() {
            cluster.close_idle(&self.seat.cells.counters);
        }
        close_superseded(&self.superseded, &self.seat.cells);
        // Closed sockets leave with the coming turns.
        ring::yield_now().await;
    }

    fn show(&self, listener: ListenerId, config: &Arc<ServerConfig>) {
        let Some(entrance) = self.entrances.get(usize::from(listener.0)) else { return };
        let doors: Vec<Rc<Door>> = entrance.gates.iter().map(|gate| gate.door()).collect();
        doors.iter().for_each(|door| drop(door.tls.replace(Some(Arc::clone(config)))));
        entrance.show(&self.world.borrow().generation.snapshot[listener], Some(config), &self.quic);
    }
}

/// A connection that was being made when its cluster was superseded is nobody's by now.
fn close_superseded(superseded: &Superseded, cells: &WorkerCells) {
    superseded.borrow_mut().retain(|cluster| {
        cluster.close_idle(&cells.counters);
        // Somebody's door leads to it, or what was said last is still on its way.
        Rc::strong_count(cluster) > 1 || cluster.is_connected()
    });
}

/// What must be done now and then, whatever the load.
async fn housekeeping(
    world: Rc<RefCell<Rc<World>>>,
    superseded: Rc<Superseded>,
    cells: Arc<WorkerCells>,
    steer: Rc<steer::Local>,
    log: Option<Rc<RefCell<Writer>>>,
) {
    loop {
        let present = Rc::clone(&world.borrow());
        for (cluster, pool) in present.clusters.iter().zip(&present.generation.snapshot.pools) {
            cluster.sweep(pool, &cells.counters);
            Cluster::warm(cluster, pool, &cells);
        }
        let asked = Selecting { now: policy_now(ring::now()), repeatable: true, waits: &|_| false };
        present.selections.iter().flatten().for_each(|selection| selection.look(&asked));
        drop(present);
        close_superseded(&superseded, &cells);
        steer.forgive();
        ring::sleep(limits::HOUSEKEEPING).await;
        if let Some(log) = &log {
            let dropped = log.borrow_mut().flush();
            cells.counters.log_lines_dropped_total.add(dropped);
        }
        cells.publish();
    }
}
