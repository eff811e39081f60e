//! Datagrams passed through: a client's address and port are a flow, which goes to one endpoint, and what that says goes back.
//!
//! ```text
//! client → the door's socket → Flows::take (by the client's address) → Flow::pass → the flow's own socket → endpoint
//! client ← the door's socket ←───────────────────── Flow's task ←─────────────────────┘
//! ```
//!
//! What holds here:
//! * A flow is bounded three times: flows by the listener's connections, their time by `udp.idle` (ten seconds for one that was never replied to), and
//!   what waits by the sockets' buffers. What finds no room is dropped and counted, as a network would.
//! * Each flow has a port of its own towards its endpoint, and hears nobody else on it.
//! * Datagrams that arrived joined leave joined, in the memory in which they came; those of one flow that are received at once leave at once.
//! * Where clients speak QUIC (`udp.quic`), one that comes from elsewhere has another flow to the same endpoint, by the id of its connection.
//! * Where their class has a pace, datagrams wait for their turns ([`paced`]), for a moment and in a bounded queue.
//! * Where there is a way past the kernel (`afxdp`), clients' datagrams come by it beside the socket, and replies go by it as far as it knows where to. Of one path both are one flow:
//!   what comes to another worker than the flow's is brought to that one ([`owners`]).
//! * An endpoint that is taken for down, or is no longer in its pool, loses its flows: the client's next datagram goes elsewhere.

mod joined;
mod life;
mod owners;
mod paced;
mod reach;

use std::cell::{Cell, OnceCell, Ref, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use policy::{Class, Outcome, StatusClass};
use ring::{Now, Received, Sent, TaskRef, Timer, UdpSocket};

use self::joined::{Joined, Leaving, count};
use self::life::run;
use self::owners::Owned;
pub use self::owners::Owners;
use self::paced::{Line, Pace, Whose};
use self::reach::{flow_to, reach};
use super::Sessions;
use crate::afxdp::{Lane, Port, Way};
use crate::exchange::{Door, Reason};
use crate::limits;
use crate::qos::Direction;
use crate::quic::{self, Astray, Carrier, ConnectionId, End};
use crate::snapshot::{ListenerProtocol, PoolId};
use crate::telemetry::access_log::Passed;
use crate::upstream::{Endpoint, Held, policy_now};

/// Whose datagrams belong together: those from a client to one of our addresses.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Path {
    client: SocketAddr,
    /// Where it sent them to: what it hears comes from there.
    to: Option<IpAddr>,
}

/// How datagrams come beside the socket.
pub struct Beside {
    /// The way past the kernel.
    pub lane: Rc<Lane>,
    /// Which worker has a flow; `None`: there is one worker.
    pub owners: Option<Arc<Owners>>,
    /// This one.
    pub worker: u16,
    /// Which of its ends this is.
    pub end: usize,
}

/// The flows of one socket of a worker.
pub struct Flows(Rc<Shared>);

struct Shared {
    /// What new flows go through; those under way keep to the one by which they began.
    door: RefCell<Rc<Door>>,
    sessions: Rc<Sessions>,
    socket: UdpSocket,
    local: SocketAddr,
    /// The way past the kernel, while it is open.
    lane: Rc<Lane>,
    /// Which worker has a flow, and which of the ends of all workers this is.
    owned: Option<Owned>,
    end: usize,
    /// For what belongs to other workers.
    carrier: OnceCell<Carrier>,
    /// So many flows there may be.
    most: Cell<usize>,
    open: RefCell<HashMap<Path, Rc<Flow>>>,
    /// Flows to whose endpoints something leaves when all that is here has been received.
    leaving: RefCell<Vec<Rc<Flow>>>,
    /// Memory for what leaves, which flows give back.
    spare: RefCell<Vec<Joined>>,
    /// What waits for its turn, down and up.
    lines: [RefCell<Line<Whose>>; 2],
    /// When the first of them has it.
    turn: RefCell<Timer>,
    /// Who takes in what clients send, and lets go what has waited.
    server: Cell<Option<TaskRef>>,
}

struct Flow {
    /// The client's way to its endpoint, and nobody else's.
    socket: UdpSocket,
    endpoint: Rc<Endpoint>,
    to: SocketAddr,
    /// Whose pace it keeps to; `None`: nobody's.
    pace: Option<Pace>,
    /// Bytes that wait for their turns, down and up.
    waits: [Cell<usize>; 2],
    /// When the endpoint was first asked.
    begun: Cell<Now>,
    /// When a datagram last went in either direction.
    active: Cell<Now>,
    /// Datagrams to the endpoint, and replies of it.
    asked: Cell<u64>,
    replied: Cell<u64>,
    /// Bytes that came from the client, and from the endpoint.
    came: [Cell<u64>; 2],
    /// How long the first reply took.
    latency: Cell<Option<Duration>>,
    /// What the endpoint has last called itself, where that matters.
    called: Cell<Option<ConnectionId>>,
    /// The beginning of another id that a client of it has used since, and that leads nowhere else.
    other: Cell<[u8; 8]>,
    /// What leaves to the endpoint when all that is here has been received.
    joined: Cell<Option<Joined>>,
    /// Another flow has its path.
    replaced: Cell<bool>,
    /// Who passes replies on.
    task: Cell<Option<TaskRef>>,
    _held: Held,
}

impl Flows {
    /// Those of a socket, and of what comes to its address by a lane.
    ///
    /// # Errors
    /// The socket's.
    pub fn new(door: &Rc<Door>, sessions: &Rc<Sessions>, socket: UdpSocket, beside: Beside) -> io::Result<Rc<Self>> {
        let Beside { lane, owners, worker, end } = beside;
        let local = socket.local()?;
        let flows = Rc::new(Self(Rc::new(Shared {
            door: RefCell::new(Rc::clone(door)),
            sessions: Rc::clone(sessions),
            local,
            socket,
            lane: Rc::clone(&lane),
            owned: owners.map(|owners| Owned { owners, worker, local }),
            end,
            carrier: OnceCell::new(),
            most: Cell::default(),
            open: RefCell::default(),
            leaving: RefCell::default(),
            spare: RefCell::default(),
            lines: Default::default(),
            turn: RefCell::default(),
            server: Cell::default(),
        })));
        lane.join(&flows);
        Ok(flows)
    }

    /// Passes on what clients have sent; flows begin while there are fewer than `most`. To be polled by one task.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_clients(&self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        self.0.server.set(Some(ring::current_task()));
        self.0.most.set(most);
        let newer = self.0.door().newer();
        if let Some(door) = newer {
            self.0.door.replace(door);
        }
        self.0.let_go();
        let received = self.0.socket.poll_receive(cx, &mut |mut received| self.receive(&mut received, None));
        self.0.leave();
        self.0.await_turn(cx);
        received
    }

    /// Flows under way.
    pub fn is_empty(&self) -> bool {
        self.0.open.borrow().is_empty()
    }

    /// What has come to this worker, which may be another one's.
    fn receive(&self, received: &mut Received<'_>, way: Option<Way>) {
        let path = path_of(received);
        let known = self.known(path, received);
        if known.is_some() || !self.0.pass_on(path, received, way) {
            self.hear(path, received, known);
        }
    }

    /// The flow of a path, if there is one here that this may be of.
    fn known(&self, path: Path, received: &Received<'_>) -> Option<Rc<Flow>> {
        let known = self.0.open.borrow().get(&path).cloned();
        known.filter(|flow| flow.goes_on() && self.0.is_meant(flow, received.bytes))
    }

    fn hear(&self, path: Path, received: &mut Received<'_>, known: Option<Rc<Flow>>) {
        let shared = &self.0;
        let door = shared.door();
        let counters = &door.cells.counters;
        let count = count(received.bytes.len(), received.stride);
        counters.datagrams_in_total.add(count);
        counters.bytes_in_total.add(received.bytes.len() as u64);
        let flow = known.or_else(|| self.begin(path, received.bytes));
        match flow {
            Some(flow) => {
                flow.active.set(ring::now());
                let came = &flow.came[0];
                came.set(came.get() + received.bytes.len() as u64);
                let pass = |piece: &Received<'_>, count| shared.pass(&flow, piece, count);
                counters.datagrams_dropped_total.add(shared.pace(&flow, path, Direction::Up, received, pass));
            }
            None => counters.datagrams_dropped_total.add(count),
        }
    }

    /// A client that has no flow, and what it says first; `None` where it cannot have one.
    fn begin(&self, path: Path, said: &[u8]) -> Option<Rc<Flow>> {
        let door = &*self.0.door();
        if self.0.open.borrow().len() >= self.0.most.get() {
            return None;
        }
        let ListenerProtocol::Udp { pool, flows } = door.listener().protocol else { return None };
        let counters = &door.cells.counters;
        let Some(held) = door.qos.hold(door.listener, Some(path.client.ip())) else {
            counters.connections_refused_total.add(1);
            return None;
        };
        let Ok(pace) = self.0.admit(path.client.ip()) else {
            door.qos.release(door.listener, held);
            return None;
        };
        let Some(mut flow) = self.0.resume(pool, said).or_else(|| reach(door, pool, path.client.ip())) else {
            counters.no_endpoint_total.add(1);
            door.qos.release(door.listener, held);
            return None;
        };
        counters.connections_total.add(1);
        counters.udp_flows_total.add(1);
        flow.pace = pace;
        let flow = Rc::new(flow);
        let before = self.0.open.borrow_mut().insert(path, Rc::clone(&flow));
        if let Some(before) = before {
            before.give_way();
        }
        if let Some(owned) = &self.0.owned {
            owned.learn(path);
        }
        ring::spawn(run(Rc::clone(&self.0), Rc::clone(door), path, Rc::clone(&flow), (pool, flows), held));
        Some(flow)
    }
}

impl Port for Flows {
    fn local(&self) -> SocketAddr {
        self.0.local
    }

    fn take(&self, mut received: Received<'_>, way: Way) {
        self.receive(&mut received, Some(way));
    }

    fn settle(&self) {
        self.0.leave();
        // Who lets go what waits for its turn has not seen it come.
        if let (Some(_), Some(server)) = (self.0.next_turn(), self.0.server.get()) {
            ring::wake(server);
        }
    }
}

impl End for Flows {
    fn carry(&self, carrier: Carrier) {
        let _ = self.0.carrier.set(carrier);
    }

    fn take_over(&self, astray: Astray) {
        astray.tell(Some(&self.0.lane));
        let Astray { from, to, ecn, mut bytes, .. } = astray;
        let mut received = Received { from, to, ecn, stride: bytes.len().max(1), bytes: &mut bytes };
        let path = path_of(&received);
        let known = self.known(path, &received);
        // Wherever else its flow is by now: it has been on its way once.
        self.hear(path, &mut received, known);
        self.settle();
    }
}

fn path_of(received: &Received<'_>) -> Path {
    Path { client: canonical(received.from), to: received.to }
}

/// A client of IPv4 as such, whatever the socket's family: by a lane it comes in its own.
fn canonical(client: SocketAddr) -> SocketAddr {
    match client.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::new(v4.into(), client.port()),
        IpAddr::V6(_) => client,
    }
}

impl Shared {
    fn door(&self) -> Ref<'_, Rc<Door>> {
        self.door.borrow()
    }

    /// Whose pace a client's new flow keeps to, if anybody's.
    ///
    /// # Errors
    /// Its turn is too far off.
    fn admit(&self, client: IpAddr) -> Result<Option<Pace>, Reason> {
        let door = self.door();
        let begins = door.admit_flow(client)?;
        let client = door.qos.client_key(client);
        Ok(begins.map(|(class, turn)| Pace { qos: Rc::clone(&door.qos), class, client, turn }))
    }

    /// Brings datagrams to the worker that has their flow. False: that is nobody else.
    fn pass_on(&self, path: Path, received: &Received<'_>, way: Option<Way>) -> bool {
        let (Some(owned), Some(carrier)) = (&self.owned, self.carrier.get()) else { return false };
        let Some(worker) = owned.elsewhere(path) else { return false };
        let (from, to, ecn) = (path.client, path.to, received.ecn);
        let bring = |bytes: &[u8]| carrier(worker, Astray { end: self.end, from, to, ecn, bytes: bytes.into(), way });
        match &*received.bytes {
            [] => bring(&[]),
            bytes => bytes.chunks(received.stride.max(1)).for_each(bring),
        }
        true
    }

    /// Sends to endpoints what was received for them.
    fn leave(&self) {
        for flow in self.leaving.borrow_mut().drain(..) {
            let Some(mut joined) = flow.joined.take() else { continue };
            let dropped = joined.leave(|leaving| flow.send(leaving));
            self.door().cells.counters.datagrams_dropped_total.add(dropped);
            self.give_back(joined);
        }
    }

    /// Lets those go that have waited until now.
    fn let_go(&self) {
        let door = self.door();
        let counters = &door.cells.counters;
        while let Some(mut due) = self.due(Direction::Up) {
            let (flow, count) = (Rc::clone(&due.whose.flow), due.count());
            let dropped = if flow.goes_on() { self.pass(&flow, &due.received(), count) } else { count };
            counters.datagrams_dropped_total.add(dropped);
        }
        self.let_replies_go();
    }

    fn let_replies_go(&self) {
        let Some(mut due) = self.due(Direction::Down) else { return };
        let (mut joined, mut dropped) = (self.spare(), 0);
        loop {
            let path = due.whose.path;
            dropped += joined.put(&due.received(), |leaving| self.reply(path, leaving));
            let next = self.due(Direction::Down);
            if next.as_ref().is_none_or(|next| next.whose.path != path) {
                dropped += joined.leave(|leaving| self.reply(path, leaving));
            }
            let Some(next) = next else { break };
            due = next;
        }
        self.door().cells.counters.datagrams_dropped_total.add(dropped);
        self.give_back(joined);
    }

    /// Has the present task woken when the next turn comes.
    fn await_turn(&self, cx: &Context<'_>) {
        let Some(turn) = self.next_turn() else { return };
        let mut timer = self.turn.borrow_mut();
        timer.set(turn);
        if timer.poll_expired() {
            cx.waker().wake_by_ref();
        }
    }

    /// Sends to a client. False: there was no room.
    fn reply(&self, path: Path, leaving: Leaving<'_>) -> bool {
        let (count, bytes) = leaving.amount();
        let transmit = leaving.to(path.client, path.to);
        let sent = self.lane.send(self.local.port(), &transmit) || self.socket.send(&transmit) != Sent::Full;
        if sent {
            let door = self.door();
            door.cells.counters.datagrams_out_total.add(count);
            door.cells.counters.bytes_out_total.add(bytes);
        }
        sent
    }

    /// A flow to the endpoint that knows a client's connection, if it has one.
    fn resume(&self, pool: PoolId, said: &[u8]) -> Option<Flow> {
        let door = self.door();
        let at = door.homes.of(door.listener)?.find(said)?;
        let (cluster, begun) = (door.cluster(pool), ring::now());
        let endpoint = cluster.resume(at, policy_now(begun))?;
        let flow = flow_to(cluster, &endpoint, begun, door.listener().protocol.fragments())?;
        door.cells.counters.udp_flows_moved_total.add(1);
        Some(flow)
    }

    /// A datagram belongs to the flow of its path. One of QUIC may be another client's, that a NAT has given the port of one that is gone.
    fn is_meant(&self, flow: &Flow, said: &[u8]) -> bool {
        let door = self.door();
        let Some(homes) = door.homes.of(door.listener) else { return true };
        let Some(id) = flow.called.get() else { return true };
        let beginning = said.get(1..9).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
        if quic::is_called_in(id, said) || beginning == flow.other.get() {
            return true;
        }
        let elsewhere = homes.find(said).is_some_and(|at| at != flow.to);
        if !elsewhere {
            flow.other.set(beginning);
        }
        !elsewhere
    }

    /// An endpoint has told a client what it wants to be called by.
    fn hear_names(&self, flow: &Flow, said: &[u8]) {
        let door = self.door();
        if let Some(homes) = door.homes.of(door.listener)
            && let Some(id) = quic::told_in(said)
            && flow.called.replace(Some(id)) != Some(id)
        {
            homes.learn(id, flow.to);
        }
    }

    /// Passes a client's datagrams on, now or with those that follow: how many of them were dropped.
    fn pass(&self, flow: &Rc<Flow>, received: &Received<'_>, count: u64) -> u64 {
        flow.active.set(ring::now());
        if flow.asked.get() == 0 {
            flow.begun.set(ring::now());
        }
        flow.asked.set(flow.asked.get() + count);
        let mut joined = flow.joined.take().unwrap_or_else(|| {
            self.leaving.borrow_mut().push(Rc::clone(flow));
            self.spare()
        });
        let dropped = joined.put(received, |leaving| flow.send(leaving));
        flow.joined.set(Some(joined));
        dropped
    }

    /// Memory for what leaves.
    fn spare(&self) -> Joined {
        self.spare.borrow_mut().pop().unwrap_or_default()
    }

    fn give_back(&self, joined: Joined) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < limits::JOINED_SPARE_MAX {
            spare.push(joined);
        }
    }
}

impl Flow {
    fn new(endpoint: Rc<Endpoint>, (socket, to, held): (UdpSocket, SocketAddr, Held), begun: Now) -> Self {
        Self {
            socket,
            endpoint,
            to,
            pace: None,
            waits: Default::default(),
            begun: Cell::new(begun),
            active: Cell::new(begun),
            asked: Cell::default(),
            replied: Cell::default(),
            came: Default::default(),
            latency: Cell::default(),
            called: Cell::default(),
            other: Cell::default(),
            joined: Cell::default(),
            replaced: Cell::default(),
            task: Cell::default(),
            _held: held,
        }
    }

    /// Another flow has its path. It ends now and not in its time: a client that says two connections' ids by turns would have any number of them.
    fn give_way(&self) {
        self.replaced.set(true);
        if let Some(task) = self.task.get() {
            ring::wake(task);
        }
    }

    /// Its endpoint is there for it. If not, it is told to end.
    fn goes_on(&self) -> bool {
        let goes_on = self.endpoint.takes_flows();
        if !goes_on && let Some(task) = self.task.get() {
            ring::wake(task);
        }
        goes_on
    }

    /// Sends to the endpoint. False: there was no room.
    fn send(&self, leaving: Leaving<'_>) -> bool {
        self.socket.send(&leaving.to(self.to, None)) != Sent::Full
    }

    /// Takes a reply's measure.
    fn hear(&self, count: u64, bytes: usize) {
        let now = ring::now();
        self.came[1].set(self.came[1].get() + bytes as u64);
        self.active.set(now);
        self.replied.set(self.replied.get() + count);
        if self.latency.get().is_none() {
            self.latency.set(Some(now.since(self.begun.get())));
        }
    }

    /// Replies that are still to come, where it is known how many do.
    fn owes(&self, replies: Option<u32>) -> Option<u64> {
        let wanted = self.asked.get().saturating_mul(replies?.into());
        Some(wanted.saturating_sub(self.replied.get()))
    }

    /// Tells the access log.
    fn tell(&self, door: &Door, path: Path, pool: PoolId, (status, reason): (u16, &'static str)) {
        let [bytes_in, bytes_out] = &self.came;
        door.tell_passed(&Passed {
            protocol: "udp",
            listener: &door.listener().name,
            client: Some(path.client.ip()),
            port: Some(path.client.port()),
            pool: &door.snapshot[pool].name,
            upstream: &self.endpoint.name,
            tries: 1,
            bytes_in: bytes_in.get(),
            bytes_out: bytes_out.get(),
            datagrams: Some((self.asked.get(), self.replied.get())),
            duration: ring::now().since(self.begun.get()),
            status,
            reason,
            ..Passed::default()
        });
    }

    /// What the endpoint has shown of itself.
    fn outcome(&self, replies: Option<u32>) -> Outcome {
        let owes = self.owes(replies).is_some_and(|owes| owes > 0);
        let class = if owes { Class::TimedOut } else { Class::Answered(StatusClass::Success) };
        Outcome::new(self.latency.get().unwrap_or_default(), class)
    }
}
