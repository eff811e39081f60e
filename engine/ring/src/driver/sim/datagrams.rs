//! The simulated network's datagrams: lost, doubled, late and out of order as the seed says, between sockets of the node and of
//! scripts alike.
//!
//! What holds here: a datagram arrives whole or not at all, and at nobody but at whom it was sent to when it arrives. Between two
//! sockets the order is kept but for those that [`Faults::datagram_reorder`](super::Faults) picks. A socket holds a bounded number
//! of bytes; what arrives beyond that is dropped and counted, as Linux does.
//!
//! Between a socket and the network there may stand a box that rewrites its address ([`World::rebind`](super::World::rebind)).
//!
//! Deliberately absent: fragments, path MTU below the loopback's, ICMP.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::kernel::{Event, Kernel};
use super::net::{Kind, Socket, SocketId};
use crate::driver::datagram::{Batch, SEGMENTS_MAX, SEND_BYTES_MAX};
use crate::net::{Address, Transmit, UdpOptions};

/// How much later than others a datagram arrives that is out of order.
const REORDERED: Duration = Duration::from_millis(5);

/// How long a full send buffer stays full.
const FULL: Duration = Duration::from_millis(2);

/// Bytes that a receive joined from several can have.
const JOINED_BYTES_MAX: usize = 64 << 10;

/// One datagram on its way, or waiting to be received.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) ecn: u8,
    pub(super) bytes: Vec<u8>,
}

/// What a datagram socket has beyond other sockets.
#[derive(Debug)]
pub(super) struct Mailbox {
    arrived: VecDeque<Packet>,
    bytes: usize,
    bytes_max: usize,
    overflowed: u32,
    reuse_port: bool,
    /// When the latest datagram in order arrives.
    last_arrival: u64,
    /// Until when it takes nothing to be sent.
    full_until: u64,
}

impl Mailbox {
    /// Nothing waits to be received.
    pub(super) fn is_empty(&self) -> bool {
        self.arrived.is_empty()
    }
}

/// Calls of a socket's owner.
impl Kernel {
    /// A bound socket; `EADDRINUSE` if there is one already and not both share. Port 0 stands for a free one.
    pub(super) fn bind_datagrams(&mut self, mut address: SocketAddr, options: &UdpOptions) -> Result<SocketId, i32> {
        if address.port() == 0 {
            address.set_port(self.fresh_port());
        }
        let local = Address::Inet(address);
        let taken = self
            .mailboxes()
            .any(|(_, socket, other)| socket.local == local && !(other.reuse_port && options.reuse_port));
        if taken {
            return Err(libc::EADDRINUSE);
        }
        let mailbox = Mailbox {
            arrived: VecDeque::new(),
            bytes: 0,
            bytes_max: options.receive_buffer,
            overflowed: 0,
            reuse_port: options.reuse_port,
            last_arrival: 0,
            full_until: 0,
        };
        let id = self.open(local);
        self.socket_mut(id).kind = Kind::Datagrams(Box::new(mailbox));
        self.mailboxes.retain(|other| !self.sockets[other.0 as usize].closed);
        self.mailboxes.push(id);
        Ok(id)
    }

    /// Sends each datagram of `transmit` on its way.
    pub(super) fn send_datagrams(&mut self, id: SocketId, transmit: &Transmit<'_>) -> Result<(), i32> {
        let Transmit { to, from, ecn, segment, bytes } = *transmit;
        let segment = segment.unwrap_or(bytes.len()).max(1);
        if bytes.len() > SEND_BYTES_MAX || bytes.len().div_ceil(segment) > SEGMENTS_MAX {
            return Err(libc::EMSGSIZE);
        }
        if bytes.len() > segment && self.dice.chance(self.faults.gso_refused) {
            return Err(libc::EIO);
        }
        if !self.takes_datagrams(id) || self.dice.chance(self.faults.datagram_full) {
            self.fill(id);
            return Err(libc::EAGAIN);
        }
        let source = SocketAddr::new(self.source(id, from, to), self.port_of(id));
        let source = self.outside_of(source);
        for piece in bytes.chunks(segment).chain(bytes.is_empty().then_some(bytes)) {
            self.send_packet(&Packet { from: source, to, ecn: ecn & 0b11, bytes: piece.to_vec() });
        }
        Ok(())
    }

    /// Whether there is room to send.
    pub(super) fn takes_datagrams(&self, id: SocketId) -> bool {
        self.mailbox(id).is_none_or(|mailbox| mailbox.full_until <= self.now)
    }

    /// The next datagram.
    pub(super) fn take_datagram(&mut self, id: SocketId) -> Option<Packet> {
        let mailbox = self.mailbox_mut(id)?;
        let packet = mailbox.arrived.pop_front()?;
        mailbox.bytes -= packet.bytes.len();
        Some(packet)
    }

    /// Receives what there is, neighbours of one length joined (GRO), though not always.
    pub(super) fn receive_datagrams(&mut self, id: SocketId, batch: &mut Batch) {
        batch.clear();
        let mut joined = std::mem::take(&mut self.scratch);
        while !batch.is_full() {
            let Some(Packet { from, to, ecn, bytes }) = self.take_datagram(id) else { break };
            let stride = bytes.len();
            joined.clear();
            joined.extend(bytes);
            while let Some(next) = self.mailbox(id).and_then(|mailbox| mailbox.arrived.front()) {
                let fits = (next.from, next.to, next.ecn) == (from, to, ecn)
                    && joined.len().is_multiple_of(stride.max(1))
                    && (1..=stride).contains(&next.bytes.len())
                    && joined.len() + next.bytes.len() <= JOINED_BYTES_MAX;
                if !fits || self.dice.chance(self.faults.short_receive) {
                    break;
                }
                joined.extend(self.take_datagram(id).into_iter().flat_map(|packet| packet.bytes));
            }
            batch.put(from, to.ip(), ecn, stride, &joined);
        }
        joined.clear();
        self.scratch = joined;
        batch.set_overflowed(self.mailbox(id).map(|mailbox| mailbox.overflowed));
    }

    /// From now on the network knows the socket at `inside` as `outside`; under its former name nobody is there any more.
    pub(super) fn rebind(&mut self, inside: SocketAddr, outside: SocketAddr) {
        self.rebound.retain(|(other, _)| *other != inside);
        self.rebound.push((inside, outside));
    }
}

/// What travels.
impl Kernel {
    fn send_packet(&mut self, packet: &Packet) {
        self.counts.sends += 1;
        let copies = if self.dice.chance(self.faults.datagram_loss) {
            0
        } else {
            1 + usize::from(self.dice.chance(self.faults.datagram_duplicate))
        };
        for _ in 0..copies {
            let at = self.arrival_of(packet);
            let packet = self.packets.insert(packet.clone());
            self.schedule_at(at, Event::Datagram { packet });
        }
    }

    fn arrival_of(&mut self, packet: &Packet) -> u64 {
        let at = self.now + self.travel();
        if self.dice.chance(self.faults.datagram_reorder) {
            return at + self.dice.span(REORDERED);
        }
        let Some(mailbox) = self.receiver_of(packet).and_then(|id| self.mailbox_mut(id)) else { return at };
        mailbox.last_arrival = mailbox.last_arrival.max(at);
        mailbox.last_arrival
    }

    pub(super) fn datagram_arrives(&mut self, packet: u32) {
        let Some(mut packet) = self.packets.remove(packet) else { return };
        let Some(id) = self.receiver_of(&packet) else { return };
        packet.to = self.inside_of(packet.to);
        self.event("datagram at socket", id, packet.bytes.len() as i64);
        let Some(mailbox) = self.mailbox_mut(id) else { return };
        if mailbox.bytes + packet.bytes.len() > mailbox.bytes_max {
            mailbox.overflowed += 1;
            return;
        }
        mailbox.bytes += packet.bytes.len();
        mailbox.arrived.push_back(packet);
        self.notify(id);
    }

    fn fill(&mut self, id: SocketId) {
        let until = self.now + 1 + self.dice.span(FULL);
        let Some(mailbox) = self.mailbox_mut(id) else { return };
        if mailbox.full_until < until {
            mailbox.full_until = until;
            self.schedule_at(until, Event::Room { of: id });
        }
    }

    /// The socket that a datagram goes to: of several that share the address, always the same one for a sender.
    fn receiver_of(&self, packet: &Packet) -> Option<SocketId> {
        let inside = self.inside_of(packet.to);
        if inside == packet.to && self.rebound.iter().any(|(hidden, _)| *hidden == inside) {
            return None;
        }
        let bound = |takes: &dyn Fn(SocketAddr) -> bool| -> Vec<SocketId> {
            let bound = self.mailboxes().filter(|(_, socket, _)| socket.local.inet().is_some_and(takes));
            bound.map(|(id, _, _)| id).collect()
        };
        // Who is bound to the very address goes before who takes any.
        let mut sharing = bound(&|local| local == inside);
        if sharing.is_empty() {
            sharing = bound(&|local| local.port() == inside.port() && takes_any(local, inside));
        }
        sharing.get(usize::from(packet.from.port()) % sharing.len().max(1)).copied()
    }

    fn source(&self, id: SocketId, from: Option<IpAddr>, to: SocketAddr) -> IpAddr {
        let local = self.socket(id).local.inet().map(|local| local.ip());
        let chosen = from.or(local).filter(|ip| !ip.is_unspecified());
        chosen.unwrap_or_else(|| match to.ip() {
            IpAddr::V4(to) if to.is_loopback() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(to) if to.is_loopback() => Ipv6Addr::LOCALHOST.into(),
            IpAddr::V4(_) => Ipv4Addr::new(10, 0, 0, 1).into(),
            IpAddr::V6(_) => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1).into(),
        })
    }

    fn port_of(&self, id: SocketId) -> u16 {
        self.socket(id).local.inet().map_or(0, |local| local.port())
    }

    fn outside_of(&self, inside: SocketAddr) -> SocketAddr {
        self.rebound.iter().find(|(other, _)| *other == inside).map_or(inside, |(_, outside)| *outside)
    }

    fn inside_of(&self, outside: SocketAddr) -> SocketAddr {
        self.rebound.iter().find(|(_, other)| *other == outside).map_or(outside, |(inside, _)| *inside)
    }

    /// Every open datagram socket.
    fn mailboxes(&self) -> impl Iterator<Item = (SocketId, &Socket, &Mailbox)> {
        self.mailboxes.iter().filter_map(|&id| {
            let socket = self.socket(id);
            Some((id, socket, self.mailbox(id).filter(|_| !socket.closed)?))
        })
    }

    fn mailbox(&self, id: SocketId) -> Option<&Mailbox> {
        match &self.socket(id).kind {
            Kind::Datagrams(mailbox) => Some(mailbox),
            _ => None,
        }
    }

    fn mailbox_mut(&mut self, id: SocketId) -> Option<&mut Mailbox> {
        match &mut self.socket_mut(id).kind {
            Kind::Datagrams(mailbox) => Some(mailbox),
            _ => None,
        }
    }
}

/// A wildcard takes its own family, and IPv6's both.
fn takes_any(local: SocketAddr, to: SocketAddr) -> bool {
    local.ip().is_unspecified() && (local.is_ipv6() || to.is_ipv4())
}
