//! The seam to the kernel: requests go in, completions come out.
//!
//! Three drivers speak this one language: [`uring`] (the product), [`epoll`] (hosts whose seccomp profile refuses
//! io_uring) and [`sim`] (a seeded kernel for tests). The reactor above never asks which one it has.
//!
//! What holds here:
//! * Every pointer in a [`Request`] stays valid until that request's *last* completion: the op table owns buffer and
//!   file descriptor until then. A driver may read and write through it up to that moment and not after.
//! * Every request that was accepted by `submit` completes at least once, cancelled ones included; the last completion
//!   has `more == false`. A cancelled receive that already holds bytes delivers them.
//! * Completions are handed to the reactor's `sink` during `turn` only; no task runs inside it.
//!
//! Deliberately absent: links, fixed files, zero-copy sends, timeouts (they live in the reactor's wheel).

#[cfg(test)]
mod conformance;
mod datagram;
pub(crate) mod epoll;
mod pipe;
pub mod sim;
mod sys;
pub(crate) mod uring;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::net::{Address, ListenOptions, Transmit, UdpGranted, UdpOptions};

#[cfg(test)]
pub(crate) use datagram::pretended;
pub(crate) use datagram::{Batch, SEGMENTS_MAX, SEND_BYTES_MAX};
pub(crate) use pipe::Pipe;

/// A file descriptor as its driver knows it: a real one, or a number in a simulated world.
pub(crate) type Fd = i32;

/// Names one operation: slot and generation in the op table (see `op.rs`). Drivers pass it through untouched.
pub(crate) type Token = u64;

/// Tokens from here up never name an operation: drivers use them for their own requests.
pub(crate) const RESERVED_TOKENS: Token = 0xff00_0000_0000_0000;

/// What the kernel is asked to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Request {
    /// Accepts connections until cancelled; each completion's result is a new descriptor.
    AcceptMulti { fd: Fd },
    /// Receives once into `len` bytes at `ptr`. Result: bytes, 0 at the end of the stream, or `-errno`.
    Recv { fd: Fd, ptr: *mut u8, len: u32 },
    /// Receives until cancelled, into memory of the driver's own: the bytes ride on the completion and are copied out
    /// by the sink. Ends (`more == false`) at any time, for instance with `-ENOBUFS`; the reactor arms it again.
    RecvMulti { fd: Fd },
    /// Sends all `len` bytes at `ptr` (`MSG_WAITALL | MSG_NOSIGNAL`): one completion, the whole or an error.
    /// A short count means that the peer went away in between.
    Send { fd: Fd, ptr: *const u8, len: u32 },
    /// As `Send`, gathering from the `msghdr` at `msg`.
    SendMsg { fd: Fd, msg: *const libc::msghdr },
    /// Connects to the `len` bytes of socket address at `addr`. Result 0 or `-errno`.
    Connect { fd: Fd, addr: *const libc::sockaddr_storage, len: u32 },
    /// Completes once when `fd` is readable (signalfd, eventfd, datagrams).
    PollIn { fd: Fd },
    /// Completes once when datagrams can be sent on `fd`.
    PollOut { fd: Fd },
    /// Completes once when a receive on the stream `fd` would not wait: bytes, the end, or an error.
    Readable { fd: Fd },
    /// Completes once when a send on the stream `fd` would not wait: room, or an error.
    Writable { fd: Fd },
    /// Cancels the operation `target`. Its own completion is of no interest to anybody; the target still completes.
    Cancel { target: Token },
    /// Wakes another reactor that sleeps in its own ring (only for the uring driver; see `mailbox.rs`).
    Doorbell { ring: Fd },
}

/// What the kernel answered.
#[derive(Debug)]
pub(crate) struct Completion<'a> {
    pub(crate) token: Token,
    /// Bytes, descriptor or 0; `-errno` on failure.
    pub(crate) result: i32,
    /// More completions of this operation follow.
    pub(crate) more: bool,
    /// The received bytes of a `RecvMulti`, valid only during the call of the sink.
    pub(crate) bytes: &'a [u8],
}

/// How long a turn may sleep when nothing is ready.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wait {
    /// Not at all: there are tasks to run.
    None,
    /// At most this long: the next timer's deadline.
    AtMost(Duration),
    /// Until something completes.
    Forever,
}

/// Which driver a ring should use.
#[derive(Clone, Debug, Default)]
pub enum DriverChoice {
    /// io_uring if the kernel grants it, else epoll.
    #[default]
    Auto,
    /// io_uring or an error.
    Uring,
    /// epoll.
    Epoll,
    /// A simulated kernel: the node of a seeded world.
    Sim(sim::Node),
}

/// What the driver was granted, as text for people: printed at start, shown by `doctor` and `status`.
#[derive(Clone, Debug, Default)]
pub struct Granted {
    /// `uring`, `epoll` or `sim`.
    pub driver: &'static str,
    /// Features in use, for example `DEFER_TASKRUN`.
    pub features: Vec<&'static str>,
    /// What was asked for and refused, each with its reason.
    pub missing: Vec<String>,
}

/// Counts kept by a driver since its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct DriverCounts {
    /// System calls that entered the kernel to submit or wait (`io_uring_enter`, `epoll_wait`).
    pub enters: u64,
    /// Send operations submitted (io_uring) or sent (epoll).
    pub sends: u64,
    /// Receive completions.
    pub receives: u64,
    /// Other system calls on the data path (epoll: recv, send, epoll_ctl; all: those of datagrams).
    pub calls: u64,
    /// Times a receive ended because the provided buffers had run out.
    pub no_buffers: u64,
    /// Times the completion queue overflowed.
    pub overflows: u64,
    /// Times that a spin before blocking found work / did not.
    pub spins_won: u64,
    /// See `spins_won`.
    pub spins_lost: u64,
    /// Whether it spins before it blocks, where it may choose.
    pub spinning: bool,
    /// What it has moved: messages received, and each 4 KiB received or sent besides. What two ways to wait are compared by.
    pub(crate) work: u64,
}

/// What so many bytes add to [`DriverCounts::work`].
#[inline]
fn worth(bytes: usize) -> u64 {
    bytes as u64 >> 12
}

#[allow(clippy::large_enum_variant, reason = "one per thread, never moved after set-up")]
pub(crate) enum Driver {
    Uring(uring::Uring),
    Epoll(epoll::Epoll),
    Sim(sim::Sim),
}

macro_rules! each {
    ($self:expr, $driver:ident => $body:expr) => {
        match $self {
            Driver::Uring($driver) => $body,
            Driver::Epoll($driver) => $body,
            Driver::Sim($driver) => $body,
        }
    };
}

impl Driver {
    /// Asks for `request`; its completions carry `token`. Never blocks and never fails: what cannot be handed to the
    /// kernel now is kept and handed over in a later turn, cancels first.
    #[inline]
    pub(crate) fn submit(&mut self, token: Token, request: Request) {
        each!(self, driver => driver.submit(token, request));
    }

    /// One turn: hands over what was submitted, sleeps as `wait` allows, and passes every completion to `sink`.
    #[inline]
    pub(crate) fn turn(&mut self, wait: Wait, sink: impl FnMut(Completion<'_>)) -> io::Result<()> {
        each!(self, driver => driver.turn(wait, sink))
    }

    /// A listening socket, bound as `options` say.
    pub(crate) fn listen(&mut self, address: &Address, options: &ListenOptions) -> io::Result<Fd> {
        each!(self, driver => driver.listen(address, options))
    }

    /// A fresh socket fit to connect to `address`.
    pub(crate) fn socket(&mut self, address: &Address) -> io::Result<Fd> {
        each!(self, driver => driver.socket(address))
    }

    /// A bound datagram socket, and what the kernel granted it.
    pub(crate) fn bind_datagrams(&mut self, address: SocketAddr, options: &UdpOptions) -> io::Result<(Fd, UdpGranted)> {
        match self {
            Self::Uring(_) | Self::Epoll(_) => datagram::bind(address, options),
            Self::Sim(sim) => sim.bind_datagrams(address, options),
        }
    }

    /// Receives into `batch` what has arrived, at once; nothing is no error.
    pub(crate) fn receive_datagrams(&mut self, fd: Fd, batch: &mut Batch) -> io::Result<()> {
        match self {
            Self::Uring(uring::Uring { counts, .. }) | Self::Epoll(epoll::Epoll { counts, .. }) => {
                counts.calls += 1;
                let received = batch.receive(fd);
                counts.receives += batch.len() as u64;
                counts.work += batch.datagrams();
                received
            }
            Self::Sim(sim) => sim.receive_datagrams(fd, batch),
        }
    }

    /// The destinations at which nobody listens, as ICMP has told since this was last asked; a simulation has no ICMP.
    pub(crate) fn refused_datagrams(&mut self, fd: Fd) -> Vec<SocketAddr> {
        match self {
            Self::Uring(uring::Uring { counts, .. }) | Self::Epoll(epoll::Epoll { counts, .. }) => {
                counts.calls += 1;
                datagram::refused(fd)
            }
            Self::Sim(_) => Vec::new(),
        }
    }

    /// Sends at once, in one call. `EAGAIN`: there is no room; `PollOut` says when there is.
    ///
    /// `dual` tells a socket of IPv6, to which IPv4 destinations are mapped.
    pub(crate) fn send_datagrams(&mut self, fd: Fd, dual: bool, transmit: &Transmit<'_>) -> io::Result<()> {
        match self {
            Self::Uring(uring::Uring { counts, .. }) | Self::Epoll(epoll::Epoll { counts, .. }) => {
                counts.calls += 1;
                datagram::send(fd, dual, transmit).inspect(|()| counts.sends += 1)
            }
            Self::Sim(sim) => sim.send_datagrams(fd, transmit),
        }
    }

    /// A pipe for streams of this driver, of at most `most` bytes and at least `least`.
    pub(crate) fn pipe(&self, least: usize, most: usize) -> io::Result<Pipe> {
        match self {
            Self::Uring(_) | Self::Epoll(_) => Pipe::open(least, most),
            Self::Sim(_) => Ok(Pipe::simulated(most)),
        }
    }

    /// Takes into `pipe` what has arrived at a stream, at once. `EAGAIN`: nothing has; `Readable` says when something does. 0: the end, or what can
    /// be received only.
    pub(crate) fn fill(&mut self, pipe: &mut Pipe, from: Fd) -> io::Result<usize> {
        match self {
            Self::Uring(uring) => {
                uring.counts.calls += 1;
                pipe.fill(from, true).inspect(|&count| uring.counts.work += worth(count))
            }
            Self::Epoll(epoll) => {
                epoll.counts.calls += 1;
                pipe.fill(from, false)
            }
            Self::Sim(sim) => sim.fill(pipe, from),
        }
    }

    /// Gives a stream what is in `pipe`, at once. `EAGAIN`: there is no room; `Writable` says when there is.
    pub(crate) fn drain(&mut self, pipe: &mut Pipe, to: Fd) -> io::Result<usize> {
        match self {
            Self::Uring(uring) => {
                uring.counts.calls += 1;
                pipe.drain(to, true)
            }
            Self::Epoll(epoll) => {
                epoll.counts.calls += 1;
                pipe.drain(to, false)
            }
            Self::Sim(sim) => sim.drain(pipe, to),
        }
    }

    /// Whether its descriptors are the kernel's.
    pub(crate) fn is_real(&self) -> bool {
        !matches!(self, Self::Sim(_))
    }

    /// The address of the other end.
    pub(crate) fn peer(&self, fd: Fd) -> io::Result<Address> {
        each!(self, driver => driver.peer(fd))
    }

    /// Whose process is at the other end of a Unix socket.
    pub(crate) fn peer_user(&self, fd: Fd) -> Option<u32> {
        each!(self, driver => driver.peer_user(fd))
    }

    /// The address of this end.
    pub(crate) fn local(&self, fd: Fd) -> io::Result<Address> {
        each!(self, driver => driver.local(fd))
    }

    /// Ends the sending side (FIN) or both (`both`), which completes pending receives.
    pub(crate) fn shutdown(&mut self, fd: Fd, both: bool) {
        each!(self, driver => driver.shutdown(fd, both));
    }

    /// Closes `fd`, on which no operation is in flight any more. With `reset`, the peer sees RST instead of FIN.
    pub(crate) fn close(&mut self, fd: Fd, reset: bool) {
        each!(self, driver => driver.close(fd, reset));
    }

    /// `fd`, on which no operation is in flight any more, is another ring's from now on.
    pub(crate) fn forget(&mut self, fd: Fd) {
        if let Self::Epoll(epoll) = self {
            epoll.forget(fd);
        }
    }

    /// Nanoseconds of the driver's monotonic clock (virtual in a simulation).
    #[inline]
    pub(crate) fn clock(&self) -> u64 {
        each!(self, driver => driver.clock())
    }

    /// The descriptor of the ring, for doorbells; `None` where there is none.
    pub(crate) fn ring_fd(&self) -> Option<Fd> {
        match self {
            Self::Uring(uring) => Some(uring.ring_fd()),
            Self::Epoll(_) | Self::Sim(_) => None,
        }
    }

    pub(crate) fn granted(&self) -> Granted {
        each!(self, driver => driver.granted())
    }

    pub(crate) fn counts(&self) -> DriverCounts {
        each!(self, driver => driver.counts())
    }
}
