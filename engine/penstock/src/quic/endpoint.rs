//! A socket, and the connections that it carries.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use abi::{ConnectionIds, Place, Route};
use bytes::BytesMut;
use quinn_proto::{
    ClientConfig, ConnectError, ConnectionHandle, ConnectionId, ConnectionIdGenerator, DatagramEvent, EcnCodepoint,
    EndpointEvent, Incoming, QlogStream, RandomConnectionIdGenerator, ServerConfig, Side, Transmit,
};
use ring::{Foreign, Now, Received, Sent, TaskRef, UdpOptions, UdpSocket};

use super::config::{Offer, Reach};
use super::farewell::Farewell;
use super::ids::called_in;
use super::link::{Inbox, Link};
use super::proof::Proof;
use super::{Keys, Trace, config, instant};
use crate::afxdp::{Lane, Port, Way};
use crate::limits;
use crate::telemetry::WorkerCells;
use crate::telemetry::qlog::Qlog;

/// A datagram that came to another worker than its connection's: a client has moved, and the kernel chooses by addresses.
#[derive(Debug)]
pub struct Astray {
    /// Which of the workers' ends it came to: they have the same, in the same order.
    pub end: usize,
    pub from: SocketAddr,
    pub to: Option<IpAddr>,
    pub ecn: u8,
    pub bytes: BytesMut,
    /// How answers get back, if it came past the kernel.
    pub way: Option<Way>,
}

impl Astray {
    #[cfg(test)]
    pub(super) fn to(end: usize, from: SocketAddr, bytes: BytesMut) -> Self {
        Self { end, from, to: None, ecn: 0, bytes, way: None }
    }

    /// Its answers leave by the lane of the worker that it is brought to, if it came by one.
    pub fn tell(&self, lane: Option<&Rc<Lane>>) {
        if let (Some(way), Some(to), Some(lane)) = (self.way, self.to, lane) {
            lane.learn(self.from, to, way);
        }
    }
}

/// Brings a datagram to its worker.
pub type Carrier = Rc<dyn Fn(u16, Astray)>;

/// Octets of the id that an endpoint is called by, before it chooses one (RFC 9000 §7.2: no fewer than 8).
const CALLED_ID_OCTETS: usize = 8;

/// One worker's end of all QUIC connections of an address.
pub struct Endpoint {
    machine: RefCell<quinn_proto::Endpoint>,
    pub(super) socket: UdpSocket,
    /// The way past the kernel, where there is one.
    lane: OnceCell<Rc<Lane>>,
    pub(super) local: SocketAddr,
    /// The task that polls for newcomers.
    task: Cell<Option<TaskRef>>,
    /// Where datagrams of a connection go, by its handle.
    ends: RefCell<Vec<Option<End>>>,
    /// Connections of which only the last words are left; and those of which the peer has said the last.
    leaving: Cell<usize>,
    draining: Cell<usize>,
    /// Who wants to connect and has not been looked at.
    newcomers: RefCell<VecDeque<Newcomer>>,
    /// What the machine writes for the wire, for the length of a call.
    wire: RefCell<Vec<u8>>,
    /// Connections whose handshake has not been finished.
    handshaking: Cell<usize>,
    ids: Arc<[ConnectionIds]>,
    place: Place,
    /// Which of its worker's endpoints it is.
    at: usize,
    /// For what belongs to other workers, where there are any.
    carrier: OnceCell<Carrier>,
    /// Something was received since there was last nothing: it was that which woke.
    receiving: Cell<bool>,
    /// What is shown to clients.
    shown: RefCell<Option<Arc<Offer>>>,
    /// Writes connections down, where that may be asked for.
    recorder: OnceCell<Recorder>,
}

/// Whom datagrams of a connection are for.
enum End {
    Inbox(Rc<Inbox>),
    Farewell(Farewell),
    /// Nobody: the peer has ended it, and what it had sent before is heard in silence (RFC 9000 §10.2.2).
    Silence,
}

/// What is needed to write a worker's connections down.
#[derive(Clone, Debug)]
pub struct Recorder {
    pub qlog: Arc<Qlog>,
    pub cells: Arc<WorkerCells>,
}

/// A client that wants to connect.
pub struct Newcomer {
    incoming: Incoming,
    /// Bytes of it that have come.
    heard: u64,
}

impl Newcomer {
    /// Its address, which may be somebody else's unless it is [proved](Self::is_proved).
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        canonical(self.incoming.remote_address())
    }

    /// It has shown that it receives what is sent to its address.
    #[must_use]
    pub fn is_proved(&self) -> bool {
        self.incoming.remote_address_validated() || !self.incoming.may_retry()
    }
}

impl super::End for Endpoint {
    fn carry(&self, carrier: Carrier) {
        let _ = self.carrier.set(carrier);
    }

    fn take_over(&self, astray: Astray) {
        astray.tell(self.lane.get());
        let Astray { from, to, ecn, bytes, .. } = astray;
        self.hand_out(from, to, ecn, bytes);
    }
}

impl Port for Endpoint {
    fn local(&self) -> SocketAddr {
        self.local
    }

    fn take(&self, received: Received<'_>, way: Way) {
        self.receive(received, Some(way));
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl Endpoint {
    /// An endpoint at an address, as one of its reuseport group.
    ///
    /// # Errors
    /// The socket's.
    pub fn bind(
        address: SocketAddr,
        foreign: Foreign,
        at: usize,
        keys: &Keys,
        place: Place,
        shown: Arc<Offer>,
    ) -> io::Result<Rc<Self>> {
        let socket = UdpSocket::bind(address, &UdpOptions { foreign, ..UdpOptions::default() })?;
        Self::new(socket, at, keys, place, Some(shown))
    }

    /// An endpoint that lets nobody in, and [calls](Self::call), at an address of its own.
    ///
    /// # Errors
    /// The socket's.
    pub(super) fn calling(address: SocketAddr, keys: &Keys, place: Place) -> io::Result<Rc<Self>> {
        // A port that others shared would be given what is ours.
        let socket =
            UdpSocket::bind(address, &UdpOptions { reuse_port: false, refusals: true, ..UdpOptions::default() })?;
        Self::new(socket, 0, keys, place, None)
    }

    fn new(socket: UdpSocket, at: usize, keys: &Keys, place: Place, shown: Option<Arc<Offer>>) -> io::Result<Rc<Self>> {
        let config = Arc::new(config::endpoint(keys, place));
        let far = shown.as_deref().map(|shown| Arc::clone(shown.to(Reach::Far)));
        Ok(Rc::new(Self {
            local: socket.local()?,
            machine: RefCell::new(quinn_proto::Endpoint::new(config, far, true, None)),
            socket,
            lane: OnceCell::new(),
            task: Cell::new(None),
            ends: RefCell::default(),
            leaving: Cell::new(0),
            draining: Cell::new(0),
            newcomers: RefCell::default(),
            wire: RefCell::default(),
            handshaking: Cell::new(0),
            ids: Arc::clone(&keys.ids),
            place,
            at,
            carrier: OnceCell::new(),
            receiving: Cell::new(false),
            shown: RefCell::new(shown),
            recorder: OnceCell::new(),
        }))
    }

    /// Begins a connection to a peer that has to prove this name. Its handshake is still to come.
    ///
    /// # Errors
    /// Why there cannot be one.
    pub(super) fn call(
        self: &Rc<Self>,
        config: ClientConfig,
        to: SocketAddr,
        name: &str,
    ) -> Result<Link, ConnectError> {
        let (config, trace) = self.calls(config, to);
        let called = self.machine.borrow_mut().connect(instant(ring::now()), config, to, name);
        called.map(|(handle, connection)| Link::new(self, handle, connection, Proof::given()).traced(trace))
    }

    /// The socket, to attach programs to.
    #[must_use]
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Shows something else to clients from now on.
    pub fn show(&self, shown: Arc<Offer>) {
        self.machine.borrow_mut().set_server_config(Some(Arc::clone(shown.to(Reach::Far))));
        self.shown.replace(Some(shown));
    }

    /// Connections whose handshake has not been finished.
    #[must_use]
    pub fn handshaking(&self) -> usize {
        self.handshaking.get()
    }

    /// Hands out some of what has come; ready when there may be more, or a client wants to connect. To be polled by one task, for as long as there are
    /// connections, and in each turn: the handshakes of a crowd take many, and who has been let in is not to wait for all of them.
    ///
    /// # Errors
    /// The socket's.
    pub fn poll_carry(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.task.set(Some(ring::current_task()));
        let received = self.socket.poll_receive(cx, &mut |received| {
            self.receiving.set(true);
            self.receive(received, None);
        });
        if received.is_pending() && !self.receiving.replace(false) {
            self.socket.take_refused(&mut |peer| self.refused(peer));
        }
        match received {
            Poll::Pending if self.newcomers.borrow().is_empty() => Poll::Pending,
            Poll::Pending => Poll::Ready(Ok(())),
            Poll::Ready(received) => Poll::Ready(received.map(drop)),
        }
    }

    /// The client that has wanted to connect for the longest time.
    pub fn newcomer(&self) -> Option<Newcomer> {
        self.newcomers.borrow_mut().pop_front()
    }

    /// Nobody listens there, ICMP says: whoever calls need not wait. One that has answered is believed more than that (RFC 9000 §21.1).
    fn refused(&self, peer: SocketAddr) {
        let ends = self.ends.borrow();
        let inboxes = ends.iter().filter_map(|end| if let Some(End::Inbox(inbox)) = end { Some(inbox) } else { None });
        inboxes.for_each(|inbox| inbox.refuse(peer));
    }

    /// Connections are written down from now on, of whom that is asked.
    pub fn record(&self, recorder: Recorder) {
        let _ = self.recorder.set(recorder);
    }

    /// What a client is served with, and what is written of its connection: nothing of most.
    fn served(&self, newcomer: &Newcomer) -> (Option<Arc<ServerConfig>>, Option<Trace>) {
        let Some(shown) = &*self.shown.borrow() else { return (None, None) };
        let reach = Reach::between(newcomer.address().ip(), newcomer.incoming.local_ip());
        match self.trace(Side::Server, newcomer.address(), || *newcomer.incoming.orig_dst_cid()) {
            Some((_, trace, stream)) => (Some(shown.recorded(reach, stream)), Some(trace)),
            None => (Some(Arc::clone(shown.to(reach))), None),
        }
    }

    /// What an endpoint is called with, and what is written of the connection.
    fn calls(&self, config: ClientConfig, to: SocketAddr) -> (ClientConfig, Option<Trace>) {
        let chosen = || RandomConnectionIdGenerator::new(CALLED_ID_OCTETS).generate_cid();
        match self.trace(Side::Client, canonical(to), chosen) {
            Some((id, trace, stream)) => (config::recorded(config, id, stream), Some(trace)),
            None => (config, None),
        }
    }

    /// Begins to write a connection down, where that was asked for: its client's first id for the server, and what is written there.
    fn trace(
        &self,
        side: Side,
        peer: SocketAddr,
        id: impl FnOnce() -> ConnectionId,
    ) -> Option<(ConnectionId, Trace, Option<QlogStream>)> {
        let Recorder { qlog, cells } = self.recorder.get()?;
        if !qlog.wants(peer.ip()) {
            return None;
        }
        let id = id();
        let (trace, stream) = Trace::begin(qlog.begin(&id.to_string(), cells)?, side, id, peer, ring::now());
        Some((id, trace, stream))
    }

    /// Where there is a way past the kernel, datagrams go out by it from now on, as far as it knows where to.
    pub fn go_by(self: &Rc<Self>, lane: &Rc<Lane>) {
        let _ = self.lane.set(Rc::clone(lane));
        lane.join(self);
    }

    /// Hands out one batch of datagrams.
    fn receive(&self, received: Received<'_>, way: Option<Way>) {
        let Received { from, to, ecn, stride, bytes } = received;
        let mut batch = BytesMut::from(&*bytes);
        while !batch.is_empty() {
            let bytes = batch.split_to(stride.min(batch.len()));
            if let Some(carrier) = self.carrier.get()
                && let Some(worker) = self.owner(&bytes)
            {
                carrier(worker, Astray { end: self.at, from, to, ecn, bytes, way });
            } else {
                self.hand_out(from, to, ecn, bytes);
            }
        }
    }

    /// The worker that a datagram belongs to, if it is another one.
    fn owner(&self, datagram: &[u8]) -> Option<u16> {
        let place = self.ids.iter().find_map(|ids| match ids.route(datagram) {
            Route::Place(place) => Some(place),
            Route::Hash(_) | Route::Stranger => None,
        })?;
        (place.worker != self.place.worker && Place { worker: self.place.worker, ..place } == self.place)
            .then_some(place.worker)
    }

    fn hand_out(&self, from: SocketAddr, to: Option<IpAddr>, ecn: u8, datagram: BytesMut) {
        let wire = &mut *self.wire.borrow_mut();
        wire.clear();
        let (now, ecn) = (instant(ring::now()), EcnCodepoint::from_bits(ecn));
        let (id, bytes) = (called_in(&datagram), datagram.len() as u64);
        let event = self.machine.borrow_mut().handle(now, from, to, ecn, datagram, wire);
        match event {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                match self.ends.borrow().get(handle.0).and_then(Option::as_ref) {
                    Some(End::Inbox(inbox)) => inbox.put(event, id, bytes),
                    Some(End::Farewell(farewell)) => {
                        if let Some((transmit, words)) = farewell.answer(from, bytes as usize) {
                            self.answer(&transmit, words);
                        }
                    }
                    Some(End::Silence) | None => {}
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                self.newcomers.borrow_mut().push_back(Newcomer { incoming, heard: bytes });
                self.announce();
            }
            Some(DatagramEvent::Response(transmit)) => self.answer(&transmit, wire),
            // The second datagram of a ClientHello comes right behind the first.
            None => {
                if let Some(newcomer) = self.newcomers.borrow_mut().back_mut()
                    && Some(*newcomer.incoming.orig_dst_cid()) == id
                {
                    newcomer.heard += bytes;
                }
            }
        }
    }

    /// Wakes who polls for newcomers, where another task has found one.
    fn announce(&self) {
        if let Some(task) = self.task.get()
            && task != ring::current_task()
        {
            ring::wake(task);
        }
    }

    /// Lets a client in. `None` when its handshake cannot even begin; it has been told.
    pub fn accept(self: &Rc<Self>, newcomer: Newcomer) -> Option<Link> {
        let wire = &mut *self.wire.borrow_mut();
        wire.clear();
        let proof = match newcomer.is_proved() {
            true => Proof::given(),
            false => Proof::wanted(*newcomer.incoming.orig_dst_cid(), newcomer.heard),
        };
        let (server, trace) = self.served(&newcomer);
        let accepted = self.machine.borrow_mut().accept(newcomer.incoming, instant(ring::now()), wire, server);
        match accepted {
            Ok((handle, connection)) => Some(Link::new(self, handle, connection, proof).traced(trace)),
            Err(error) => {
                if let Some(transmit) = error.response {
                    self.answer(&transmit, wire);
                }
                None
            }
        }
    }

    /// Tells a client that it is not let in (CONNECTION_REFUSED).
    pub fn refuse(&self, newcomer: Newcomer) {
        let wire = &mut *self.wire.borrow_mut();
        wire.clear();
        let transmit = self.machine.borrow_mut().refuse(newcomer.incoming, wire);
        self.answer(&transmit, wire);
    }

    /// Asks a client to show that it receives what is sent to its address (Retry, RFC 9000 §8.1.2).
    pub fn ask_for_proof(&self, newcomer: Newcomer) {
        let wire = &mut *self.wire.borrow_mut();
        wire.clear();
        if let Ok(transmit) = self.machine.borrow_mut().retry(newcomer.incoming, wire) {
            self.answer(&transmit, wire);
        }
    }

    /// Sends what belongs to no connection. What finds no room is not worth waiting for: the client asks again.
    fn answer(&self, transmit: &Transmit, wire: &[u8]) {
        let _ = self.send(transmit, wire);
    }

    pub(super) fn send(&self, transmit: &Transmit, wire: &[u8]) -> Sent {
        let transmit = ring::Transmit {
            to: transmit.destination,
            from: transmit.src_ip,
            ecn: transmit.ecn.map_or(0, |ecn| ecn as u8),
            segment: transmit.segment_size,
            bytes: &wire[..transmit.size],
        };
        match self.lane.get() {
            Some(lane) if lane.send(self.local.port(), &transmit) => Sent::Done,
            _ => self.socket.send(&transmit),
        }
    }

    pub(super) fn open(&self, handle: ConnectionHandle, inbox: &Rc<Inbox>) {
        let mut ends = self.ends.borrow_mut();
        if ends.len() <= handle.0 {
            ends.resize_with(handle.0 + 1, || None);
        }
        ends[handle.0] = Some(End::Inbox(Rc::clone(inbox)));
        self.handshaking.set(self.handshaking.get() + 1);
    }

    pub(super) fn handshaken(&self) {
        self.handshaking.set(self.handshaking.get().saturating_sub(1));
    }

    pub(super) fn close(&self, handle: ConnectionHandle, drained: bool) {
        self.ends.borrow_mut()[handle.0] = None;
        if !drained {
            self.machine.borrow_mut().handle_event(handle, EndpointEvent::drained());
        }
    }

    /// Says a connection's last words again where they are missed, until then; nothing where the peer has said them. False: there are too many of those
    /// already.
    pub(super) fn see_off(self: &Rc<Self>, handle: ConnectionHandle, farewell: Option<Farewell>, until: Now) -> bool {
        let ours = farewell.is_some();
        let before = self.over(ours).get();
        if before >= limits::QUIC_FAREWELLS_MAX {
            return false;
        }
        self.over(ours).set(before + 1);
        self.ends.borrow_mut()[handle.0] = Some(farewell.map_or(End::Silence, End::Farewell));
        let endpoint = Rc::clone(self);
        ring::spawn(async move {
            ring::sleep_until(until).await;
            let over = endpoint.over(ours);
            over.set(over.get() - 1);
            endpoint.close(handle, false);
        });
        true
    }

    /// How many connections are over and not forgotten, by who has said the last words.
    const fn over(&self, ours: bool) -> &Cell<usize> {
        if ours { &self.leaving } else { &self.draining }
    }

    /// What a connection has to say to its endpoint, and the endpoint's answer.
    pub(super) fn hear(&self, handle: ConnectionHandle, event: EndpointEvent) -> Option<quinn_proto::ConnectionEvent> {
        self.machine.borrow_mut().handle_event(handle, event)
    }

    /// Room that a connection's task writes its datagrams in, for the length of a call.
    pub(super) fn with_wire<T>(&self, act: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        act(&mut self.wire.borrow_mut())
    }

    /// Connections, with those that are over and still hear what is late.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.machine.borrow().open_connections()
    }
}

#[cfg(test)]
mod tests;
