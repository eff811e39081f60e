//! A datagram socket: one per worker and listen address in a reuseport group, or a client's on a port of its own.
//!
//! What holds here:
//! * Datagrams arrive in memory that is lent for the length of a call, and leave from memory that is the caller's: nothing is
//!   copied and nothing allocated, unless the kernel's send buffer is full.
//! * Neighbours of one length travel as one: `UDP_SEGMENT` (Linux 4.18) cuts a send into datagrams, `UDP_GRO` (5.0) hands over
//!   joined what came in a row. Where the kernel refuses to cut, each datagram is sent alone, and none is lost.
//! * What a network may do to a datagram, sending may do too: what cannot be sent is dropped and counted, never an error.
//! * Addresses are canonical on both sides: IPv4 is IPv4 on a dual-stack socket, too.
//!
//! Receiving is a poll on the ring, and `recvmmsg` when it says so; sending is one `sendmsg` at once. docs/decisions/0024 says why
//! neither is an operation of the ring, with figures.
//!
//! * Who asks for that is told which destinations nobody listens at, as ICMP tells (`IP_RECVERR`).
//!
//! Deliberately absent: connected sockets, what else ICMP tells (path MTU is probed by QUIC itself, RFC 9000 §14.3), time stamps.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::task::{Context, Poll};

use crate::driver::Batch;
use crate::reactor::{self, Reactor};

/// Receives of one call of [`UdpSocket::poll_receive`] at the most: 64 batches are up to 4 MiB, after which others have
/// their turn.
const BATCHES_A_CALL: usize = 64;

/// What a socket has to do with addresses that no interface has, as those of a network that a route makes the host's (`IP_FREEBIND`, ip(7)).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Foreign {
    /// It is not bound to one, and answers leave from none but where IPv4's routes say that it is ours.
    #[default]
    Refused,
    /// Answers leave from them.
    Answers,
    /// And it may be bound to one.
    Bound,
}

/// How a datagram socket is bound.
#[derive(Clone, Debug)]
pub struct UdpOptions {
    /// Joins the reuseport group of the address: one socket a worker. Default: true.
    pub reuse_port: bool,
    /// [`UdpSocket::take_refused`] tells at which destinations nobody listens. Default: false.
    pub refusals: bool,
    /// An IPv6 wildcard takes no IPv4 datagrams. Default: false.
    pub only_v6: bool,
    /// What is larger than the path takes goes in fragments. Default: false: it carries "don't fragment", and is dropped where it does not fit.
    pub fragments: bool,
    /// Addresses that no interface has. Default: refused.
    pub foreign: Foreign,
    /// Bytes of datagrams that may wait to be received. Default: 4 MiB, which is 34 ms of 1 Gbit/s.
    pub receive_buffer: usize,
    /// Bytes of datagrams that may wait to be sent. Default: 4 MiB.
    pub send_buffer: usize,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self {
            reuse_port: true,
            refusals: false,
            only_v6: false,
            fragments: false,
            foreign: Foreign::Refused,
            receive_buffer: 4 << 20,
            send_buffer: 4 << 20,
        }
    }
}

/// What the kernel granted a socket.
#[derive(Clone, Debug, Default)]
pub struct UdpGranted {
    /// Datagrams that one send can be cut into; 1 where the kernel does not cut, or has once refused to.
    pub gso_segments: usize,
    /// Datagrams in a row arrive joined.
    pub gro: bool,
    /// Bytes, as asked for and not doubled as the kernel tells them.
    pub receive_buffer: usize,
    /// See `receive_buffer`.
    pub send_buffer: usize,
    /// What was asked for and refused, each with its reason.
    pub missing: Vec<String>,
}

/// Counts of a socket since it was bound.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct UdpCounts {
    /// Datagrams received.
    pub received: u64,
    /// Batches that they came in: one each, or several joined.
    pub batches: u64,
    /// Datagrams that the kernel has dropped because the receive buffer was full, as it last told (a counter of 32 bits).
    pub overflowed: u32,
    /// Datagrams that the kernel has taken.
    pub sent: u64,
    /// Sends that they went in.
    pub sends: u64,
    /// Sends that found the kernel's buffer full and were kept.
    pub queued: u64,
    /// Datagrams dropped because they were larger than the path or the interface takes (`EMSGSIZE`): probes of the MTU.
    pub too_large: u64,
    /// Sends dropped because the kernel refused them: no route, a firewall's rule, an address that is not ours.
    pub failed: u64,
}

/// One datagram, or several in a row from one sender.
#[derive(Debug)]
pub struct Received<'a> {
    /// Who sent it.
    pub from: SocketAddr,
    /// The local address that it was sent to (`IP_PKTINFO`): on a wildcard socket, the source address of answers.
    pub to: Option<IpAddr>,
    /// The ECN codepoint: two bits (RFC 3168 §5).
    pub ecn: u8,
    /// Bytes of each datagram but the last, which may be shorter; at least 1. `bytes.chunks(stride)` are the datagrams.
    pub stride: usize,
    /// The datagrams, one behind the other.
    pub bytes: &'a mut [u8],
}

/// What is to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Transmit<'a> {
    /// To whom.
    pub to: SocketAddr,
    /// The source address: one of the host's; `None` for the one that routing chooses.
    pub from: Option<IpAddr>,
    /// The ECN codepoint: two bits.
    pub ecn: u8,
    /// Bytes of each datagram; the last may be shorter. `None`: all is one datagram.
    pub segment: Option<usize>,
    /// The datagrams, one behind the other.
    pub bytes: &'a [u8],
}

/// What became of a send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use = "a send that found no room was not taken"]
pub enum Sent {
    /// The kernel has it, or it was dropped and counted.
    Done,
    /// The kernel's buffer is full: a copy is kept, and leaves by itself. Ask [`UdpSocket::poll_room`] before sending more.
    Queued,
    /// As much is kept as may be: nothing was taken.
    Full,
}

/// A datagram socket of this thread's ring. Dropping it closes it, whatever is still queued.
///
/// All of it works through a shared reference, so that it can stand in an `Rc`: one task receives (the one that polled last is
/// woken), any number of tasks send.
#[derive(Debug)]
pub struct UdpSocket {
    index: u32,
}

impl UdpSocket {
    /// Binds a socket; port 0 stands for a free one.
    pub fn bind(address: SocketAddr, options: &UdpOptions) -> io::Result<Self> {
        reactor::with(|reactor| {
            let (fd, granted) = reactor.driver.borrow_mut().bind_datagrams(address, options)?;
            let fragments = options.fragments;
            Ok(Self { index: reactor.table.borrow_mut().add_datagrams(fd, address.is_ipv6(), fragments, granted) })
        })
    }

    /// The address bound, with the port that the kernel chose for port 0.
    pub fn local(&self) -> io::Result<SocketAddr> {
        reactor::with(|reactor| {
            let fd = reactor.table.borrow().datagrams_fd(self.index);
            let address = reactor.driver.borrow().local(fd)?;
            address.inet().ok_or_else(|| io::ErrorKind::Unsupported.into())
        })
    }

    /// What the kernel granted; of GSO, as of now.
    pub fn granted(&self) -> UdpGranted {
        reactor::with(|reactor| reactor.table.borrow().datagrams_granted(self.index))
    }

    /// What it has done.
    pub fn counts(&self) -> UdpCounts {
        reactor::with(|reactor| reactor.table.borrow().datagrams_counts(self.index))
    }

    /// The socket itself, to attach a program or set an option; `None` in a simulation.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        reactor::with(|reactor| {
            let fd = reactor.table.borrow().datagrams_fd(self.index);
            // SAFETY: open while the handle exists, which the borrow is of: the table closes it after `abandon_datagrams`.
            reactor.driver.borrow().is_real().then(|| unsafe { BorrowedFd::borrow_raw(fd) })
        })
    }

    /// Hands what has arrived to `take`, batch by batch, up to 64 of them. `Ready` with their number, at least 1; `Pending`
    /// when there is nothing, and the task is woken when there is.
    ///
    /// Under a flood it is always ready: a task lets others run between two calls ([`yield_now`](crate::yield_now)).
    ///
    /// `take` may send on this socket and on others. An error is the socket's own, and rare (`ENOMEM`); what ICMP tells of
    /// some destination is none.
    pub fn poll_receive(&self, _cx: &mut Context<'_>, take: &mut dyn FnMut(Received<'_>)) -> Poll<io::Result<usize>> {
        reactor::with(|reactor| receive(reactor, self.index, take))
    }

    /// Hands to `take` each destination of which ICMP has told that nobody listens there (port unreachable), where that was
    /// [asked for](UdpOptions::refusals). Whoever sees a datagram of ours can say so of its destination. To be called when
    /// [`poll_receive`](Self::poll_receive) was woken and has handed nothing over: what is not taken wakes it again.
    pub fn take_refused(&self, take: &mut dyn FnMut(SocketAddr)) {
        reactor::with(|reactor| {
            let fd = reactor.table.borrow().datagrams_fd(self.index);
            reactor.driver.borrow_mut().refused_datagrams(fd)
        })
        .into_iter()
        .for_each(take);
    }

    /// Sends at once. Never waits: see [`Sent`].
    ///
    /// Several datagrams are cut as the kernel can: at most 64 and 65,507 bytes in one call.
    pub fn send(&self, transmit: &Transmit<'_>) -> Sent {
        reactor::with(|reactor| {
            let mut table = reactor.table.borrow_mut();
            table.send_datagrams(self.index, transmit, &mut reactor.driver.borrow_mut())
        })
    }

    /// Ready when there is room for several more sends. Any number of tasks may wait.
    pub fn poll_room(&self, _cx: &mut Context<'_>) -> Poll<()> {
        reactor::with(|reactor| {
            let task = reactor.exec.current();
            let has_room = reactor.table.borrow_mut().datagrams_room(self.index, task);
            if has_room { Poll::Ready(()) } else { Poll::Pending }
        })
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        reactor::try_with(|reactor| reactor.table.borrow_mut().abandon_datagrams(self.index));
    }
}

/// Receives and hands over. Nothing of the reactor's is borrowed while `take` runs.
fn receive(reactor: &Reactor, index: u32, take: &mut dyn FnMut(Received<'_>)) -> Poll<io::Result<usize>> {
    let mut batch = reactor.batch.take().unwrap_or_else(Batch::new);
    let mut handed = 0;
    let outcome = loop {
        let Some(fd) = reactor.table.borrow_mut().worth_receiving(index, reactor.turns()) else { break Ok(()) };
        if let Err(error) = reactor.driver.borrow_mut().receive_datagrams(fd, &mut batch) {
            break Err(error);
        }
        reactor.table.borrow_mut().datagrams_came(index, &batch, reactor.turns());
        if batch.is_empty() {
            break Ok(());
        }
        handed += batch.len();
        batch.each(&mut *take);
        if handed >= BATCHES_A_CALL {
            break Ok(());
        }
    };
    reactor.batch.set(Some(batch));
    match outcome {
        _ if handed > 0 => Poll::Ready(Ok(handed)),
        Err(error) => Poll::Ready(Err(error)),
        Ok(()) => {
            reactor.table.borrow_mut().await_datagrams(index, reactor.exec.current());
            Poll::Pending
        }
    }
}

#[cfg(test)]
mod tests;
