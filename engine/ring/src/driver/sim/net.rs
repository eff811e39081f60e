//! The simulated network of streams: sockets, their buffers, and what travels between them.
//!
//! What holds here: within one direction of a connection, bytes and FIN keep their order; nothing is lost but by RST,
//! which drops what has not arrived yet. A direction holds a bounded number of bytes, on the way or unread. A close
//! with unread bytes sends RST instead of FIN, and bytes that reach a closed socket are answered with RST, as in TCP.
//!
//! Deliberately absent: packets, congestion, Nagle, addresses that take time to resolve.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::datagrams::Mailbox;
use super::kernel::{Event, Got, Kernel};
use super::script::ScriptId;
use crate::driver::Token;
use crate::net::Address;

/// Seconds until a SYN that nobody answered is repeated; doubled each time.
const SYN_REPEATED: u64 = 1_000_000_000;
/// Repetitions after which a connect ends with `ETIMEDOUT` (`net.ipv4.tcp_syn_retries`): 127 s in all.
const SYN_TRIES: u32 = 6;
const SYN_GIVES_UP: u64 = 127 * SYN_REPEATED;

/// Names a socket of either side for the whole life of a world.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct SocketId(pub(super) u32);

impl From<SocketId> for i64 {
    fn from(id: SocketId) -> Self {
        Self::from(id.0)
    }
}

#[derive(Debug)]
pub(super) enum Kind {
    /// Neither connected nor listening.
    Fresh,
    Connecting,
    Stream,
    Listener {
        queue: VecDeque<SocketId>,
        backlog: usize,
    },
    Datagrams(Box<Mailbox>),
}

#[derive(Clone, Copy, Debug)]
enum Segment {
    Bytes(usize),
    Fin,
}

/// One direction of a connection, kept at its receiving end.
#[derive(Debug, Default)]
struct Inbox {
    bytes: VecDeque<u8>,
    /// How many of `bytes` can be read; the others are on their way.
    arrived: usize,
    flight: VecDeque<Segment>,
    last_arrival: u64,
    capacity: usize,
    fin: bool,
}

#[derive(Debug)]
pub(super) struct Socket {
    pub(super) kind: Kind,
    pub(super) local: Address,
    pub(super) remote: Option<Address>,
    pub(super) peer: Option<SocketId>,
    inbox: Inbox,
    /// Its owner has closed it.
    pub(super) closed: bool,
    /// FIN went out.
    write_ended: bool,
    /// Its owner does not want to receive any more.
    read_ended: bool,
    /// Broken by RST or by a connect that failed.
    dead: bool,
    /// What broke it, until somebody is told.
    error: Option<i32>,
    /// When a send that was told so, or that it is broken, completes.
    pub(super) told_at: u64,
    /// Operations of the node that wait for this socket.
    pub(super) read_op: Option<Token>,
    pub(super) write_op: Option<Token>,
    /// Scripts that wait for this socket.
    pub(super) watchers: Vec<ScriptId>,
}

impl Socket {
    fn new(kind: Kind, local: Address) -> Self {
        Self {
            kind,
            local,
            remote: None,
            peer: None,
            inbox: Inbox::default(),
            closed: false,
            write_ended: false,
            read_ended: false,
            dead: false,
            error: None,
            told_at: 0,
            read_op: None,
            write_op: None,
            watchers: Vec::new(),
        }
    }

    /// A receive or an accept would not wait.
    pub(super) fn readable(&self) -> bool {
        match &self.kind {
            Kind::Listener { queue, .. } => !queue.is_empty(),
            Kind::Datagrams(mailbox) => !mailbox.is_empty(),
            _ => self.arrived() > 0 || self.inbox.fin || self.read_ended || self.dead,
        }
    }

    pub(super) fn arrived(&self) -> usize {
        self.inbox.arrived
    }

    /// Connected, refused or broken: a script's connect need not wait any longer.
    pub(super) fn connecting(&self) -> bool {
        matches!(self.kind, Kind::Connecting)
    }
}

/// Calls of a socket's owner.
impl Kernel {
    pub(super) fn open(&mut self, local: Address) -> SocketId {
        self.push(Socket::new(Kind::Fresh, local))
    }

    /// A listening socket; `EADDRINUSE` if there is one already. Port 0 stands for a free one.
    pub(super) fn listen_at(&mut self, address: &Address, backlog: usize) -> Result<SocketId, i32> {
        let mut address = address.clone();
        if let Address::Inet(inet) = &mut address
            && inet.port() == 0
        {
            inet.set_port(self.fresh_port());
        }
        if self.listeners.iter().any(|id| self.socket(*id).local == address) {
            return Err(libc::EADDRINUSE);
        }
        let id = self.push(Socket::new(Kind::Listener { queue: VecDeque::new(), backlog: backlog.max(1) }, address));
        self.listeners.push(id);
        Ok(id)
    }

    /// Sends SYN; the answer comes as [`Event::Answer`].
    pub(super) fn connect_to(&mut self, id: SocketId, address: Address) {
        self.event("syn from socket", id, 0);
        let (refused, timeout) = (self.faults.connect_refused, self.faults.connect_timeout);
        let delay = self.travel();
        let socket = self.socket_mut(id);
        socket.kind = Kind::Connecting;
        socket.remote = Some(address);
        if self.dice.chance(refused) {
            self.schedule(2 * delay, Event::Answer { to: id, error: libc::ECONNREFUSED });
        } else if self.dice.chance(timeout) {
            self.schedule(SYN_GIVES_UP, Event::Answer { to: id, error: libc::ETIMEDOUT });
        } else {
            self.schedule(delay, Event::Syn { from: id, tries: 0 });
        }
    }

    /// The error of a connect that has been answered.
    pub(super) fn connect_outcome(&mut self, id: SocketId) -> i32 {
        self.socket_mut(id).error.take().unwrap_or(0)
    }

    pub(super) fn accept_one(&mut self, id: SocketId) -> Option<SocketId> {
        match &mut self.socket_mut(id).kind {
            Kind::Listener { queue, .. } => queue.pop_front(),
            _ => None,
        }
    }

    /// Offers `bytes`; takes as many as there is room for.
    pub(super) fn transmit(&mut self, id: SocketId, bytes: &[u8]) -> Result<usize, i32> {
        let socket = self.socket_mut(id);
        if let Some(error) = socket.error.take() {
            return Err(error);
        }
        if socket.dead || socket.write_ended || socket.closed {
            return Err(libc::EPIPE);
        }
        let Some(peer) = socket.peer.filter(|_| !socket.connecting()) else { return Err(libc::ENOTCONN) };
        let inbox = &mut self.socket_mut(peer).inbox;
        let taken = bytes.len().min(inbox.capacity.saturating_sub(inbox.bytes.len()));
        inbox.bytes.extend(&bytes[..taken]);
        // What is sent together need not arrive together.
        let cut = if taken > 1 && self.dice.chance(self.faults.short_receive) {
            self.dice.within(1..=taken - 1)
        } else {
            taken
        };
        for part in [cut, taken - cut] {
            if part > 0 {
                self.travel_to(peer, Segment::Bytes(part));
            }
        }
        Ok(taken)
    }

    /// How many bytes [`transmit`](Self::transmit) would take.
    pub(super) fn room(&self, id: SocketId) -> usize {
        let peer = self.socket(id).peer.map(|peer| &self.socket(peer).inbox);
        peer.map_or(0, |inbox| inbox.capacity.saturating_sub(inbox.bytes.len()))
    }

    /// A send would not wait: there is room, or it would be told why not.
    pub(super) fn writable(&self, id: SocketId) -> bool {
        let socket = self.socket(id);
        self.room(id) > 0 || socket.dead || socket.write_ended || socket.closed
    }

    /// Takes up to `max` bytes that have arrived.
    pub(super) fn take(&mut self, id: SocketId, max: usize) -> Got {
        let socket = self.socket_mut(id);
        if socket.inbox.arrived > 0 {
            let count = max.min(socket.inbox.arrived);
            socket.inbox.arrived -= count;
            let bytes = socket.inbox.bytes.drain(..count).collect();
            if let Some(peer) = socket.peer {
                self.notify(peer);
            }
            return Got::Bytes(bytes);
        }
        if let Some(error) = socket.error.take() {
            return Got::Failed(error);
        }
        if socket.inbox.fin || socket.read_ended || socket.dead {
            return Got::End;
        }
        if matches!(socket.kind, Kind::Stream) { Got::Nothing } else { Got::Failed(libc::ENOTCONN) }
    }

    /// FIN behind what was sent, and with `both` no receiving either.
    pub(super) fn end(&mut self, id: SocketId, both: bool) {
        self.event(if both { "shutdown both on socket" } else { "shutdown of writing on socket" }, id, 0);
        let socket = self.socket_mut(id);
        socket.read_ended |= both;
        self.send_fin(id);
        self.notify(id);
    }

    pub(super) fn close_socket(&mut self, id: SocketId, reset: bool) {
        self.event(if reset { "close with reset of socket" } else { "close of socket" }, id, 0);
        let socket = self.socket_mut(id);
        socket.closed = true;
        let unread = socket.inbox.arrived > 0;
        let peer = socket.peer;
        if let Kind::Listener { queue, .. } = &mut socket.kind {
            let waiting: Vec<SocketId> = queue.drain(..).collect();
            self.listeners.retain(|listener| *listener != id);
            waiting.into_iter().for_each(|connection| self.close_socket(connection, true));
        } else if let Some(peer) = peer.filter(|_| reset || unread) {
            let delay = self.travel();
            self.schedule(delay, Event::Reset { to: peer });
        } else {
            self.send_fin(id);
        }
        let inbox = &mut self.socket_mut(id).inbox;
        inbox.bytes = VecDeque::new();
        inbox.arrived = 0;
    }

    /// Both ends of the connection are gone at once.
    pub(super) fn break_connection(&mut self, id: SocketId) {
        let peer = self.socket(id).peer;
        for end in [Some(id), peer].into_iter().flatten() {
            self.reset_arrives(end);
        }
    }

    /// An address for a script's next connection.
    pub(super) fn client_address(&mut self, host: u16) -> Address {
        let [high, low] = host.to_be_bytes();
        Address::Inet(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 1, high, low)), self.fresh_port()))
    }

    /// An address for the node's next connection.
    pub(super) fn node_address(&mut self) -> Address {
        Address::Inet(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), self.fresh_port()))
    }

    #[inline]
    pub(super) fn socket(&self, id: SocketId) -> &Socket {
        &self.sockets[id.0 as usize]
    }

    #[inline]
    pub(super) fn socket_mut(&mut self, id: SocketId) -> &mut Socket {
        &mut self.sockets[id.0 as usize]
    }

    pub(super) fn fresh_port(&mut self) -> u16 {
        self.ports = self.ports.checked_add(1).unwrap_or(20_000);
        self.ports
    }

    fn push(&mut self, socket: Socket) -> SocketId {
        self.sockets.push(socket);
        SocketId(self.sockets.len() as u32 - 1)
    }
}

/// What arrives.
impl Kernel {
    pub(super) fn arrive(&mut self, to: SocketId) {
        let socket = self.socket_mut(to);
        let Some(segment) = socket.inbox.flight.pop_front() else { return };
        let closed = socket.closed;
        match segment {
            Segment::Bytes(_) if closed => self.answer_with_reset(to),
            Segment::Bytes(_) if self.dice.chance(self.faults.reset) => self.break_connection(to),
            Segment::Bytes(count) => {
                self.socket_mut(to).inbox.arrived += count;
                self.notify(to);
            }
            Segment::Fin => {
                self.socket_mut(to).inbox.fin = true;
                self.notify(to);
            }
        }
    }

    pub(super) fn reset_arrives(&mut self, to: SocketId) {
        let socket = self.socket_mut(to);
        if socket.dead {
            return;
        }
        socket.dead = true;
        if !(socket.inbox.fin && socket.write_ended) {
            socket.error = Some(libc::ECONNRESET);
        }
        socket.inbox.flight.clear();
        socket.inbox.bytes.truncate(socket.inbox.arrived);
        self.event("reset at socket", to, 0);
        self.notify(to);
    }

    pub(super) fn syn_arrives(&mut self, from: SocketId, tries: u32) {
        let connector = self.socket(from);
        if connector.closed {
            return;
        }
        let address = connector.remote.clone().expect("a connector knows where to");
        let client = connector.local.clone();
        let Some(listener) = self.listener_of(&address) else {
            let delay = self.travel();
            return self.schedule(delay, Event::Answer { to: from, error: libc::ECONNREFUSED });
        };
        let Kind::Listener { queue, backlog } = &self.socket(listener).kind else { unreachable!("in the list") };
        if queue.len() >= *backlog {
            let again = match tries {
                SYN_TRIES.. => Event::Answer { to: from, error: libc::ETIMEDOUT },
                _ => Event::Syn { from, tries: tries + 1 },
            };
            return self.schedule(SYN_REPEATED << tries, again);
        }
        let mut accepted = Socket::new(Kind::Stream, address);
        accepted.remote = Some(client);
        accepted.peer = Some(from);
        accepted.inbox.capacity = self.capacity();
        let accepted = self.push(accepted);
        let back = self.now + self.travel();
        let capacity = self.capacity();
        let connector = self.socket_mut(from);
        connector.peer = Some(accepted);
        connector.inbox.capacity = capacity;
        connector.inbox.last_arrival = back;
        self.schedule_at(back, Event::Answer { to: from, error: 0 });
        if let Kind::Listener { queue, .. } = &mut self.socket_mut(listener).kind {
            queue.push_back(accepted);
        }
        self.event("connection waits at listener", listener, accepted);
        self.notify(listener);
    }

    pub(super) fn answer_arrives(&mut self, to: SocketId, error: i32) {
        self.event("connect answered at socket", to, -error);
        let socket = self.socket_mut(to);
        if !socket.connecting() {
            return;
        }
        if error == 0 {
            socket.kind = Kind::Stream;
        } else {
            socket.kind = Kind::Fresh;
            socket.error = Some(error);
        }
        self.notify(to);
    }

    /// Something changed at `id`: whoever waits for it looks again.
    pub(super) fn notify(&mut self, id: SocketId) {
        let socket = self.socket_mut(id);
        let (read, write) = (socket.read_op, socket.write_op);
        let mut watchers = std::mem::take(&mut socket.watchers);
        for token in [read, write].into_iter().flatten() {
            self.attempt_soon(token);
        }
        for script in watchers.drain(..) {
            let delay = self.dice.span(self.faults.script_delay);
            self.schedule(delay, Event::Wake { script });
        }
        self.socket_mut(id).watchers = watchers;
    }

    fn send_fin(&mut self, id: SocketId) {
        let socket = self.socket_mut(id);
        if socket.write_ended || socket.dead {
            return;
        }
        socket.write_ended = true;
        if let Some(peer) = socket.peer {
            self.travel_to(peer, Segment::Fin);
        }
    }

    /// Bytes came for a socket that nobody has any more.
    fn answer_with_reset(&mut self, to: SocketId) {
        if let Some(peer) = self.socket(to).peer {
            let delay = self.travel();
            self.schedule(delay, Event::Reset { to: peer });
        }
    }

    fn travel_to(&mut self, to: SocketId, segment: Segment) {
        let delay = self.travel();
        let earliest = self.now + delay;
        let inbox = &mut self.socket_mut(to).inbox;
        inbox.flight.push_back(segment);
        inbox.last_arrival = inbox.last_arrival.max(earliest);
        let at = inbox.last_arrival;
        self.schedule_at(at, Event::Arrive { to });
    }

    pub(super) fn travel(&mut self) -> u64 {
        // Even a fast network takes its time: 1 µs keeps cause and effect apart.
        1_000 + self.dice.span(self.faults.network_delay)
    }

    fn capacity(&mut self) -> usize {
        let (least, most) = self.faults.buffer;
        self.dice.within(least.max(1)..=most.max(1))
    }

    /// The listener of `address`: its own, or the wildcard's with the same port.
    fn listener_of(&self, address: &Address) -> Option<SocketId> {
        let matches = |id: &&SocketId| {
            let local = &self.socket(**id).local;
            match (local.inet(), address.inet()) {
                (Some(local), Some(wanted)) => {
                    local == wanted || (local.ip().is_unspecified() && local.port() == wanted.port())
                }
                _ => local == address,
            }
        };
        self.listeners.iter().find(matches).copied()
    }
}
