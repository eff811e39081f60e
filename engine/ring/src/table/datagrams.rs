//! Datagram sockets: who waits for them, and what could not be sent at once.
//!
//! What holds here:
//! * Only polls are in flight, which own no memory. Receiving and sending are calls, made by the task that asks for them; what
//!   had to wait is sent by the turn, as soon as the kernel says that there is room.
//! * Sends leave in the order in which they were asked for.
//! * What waits is bounded: [`QUEUED_MAX`] sends of [`QUEUED_BYTES_MAX`] bytes.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};

use super::Table;
use crate::buf::Buf;
use crate::driver::{Batch, Driver, Fd, Request, SEND_BYTES_MAX};
use crate::exec::{Exec, TaskRef};
use crate::net::{Sent, Transmit, UdpCounts, UdpGranted};
use crate::op::{OpId, Owned, Purpose};

/// Bytes that wait to be sent on one socket: four of the largest sends. The kernel's own buffer of 4 MiB is full before any
/// waits, so more would only be older when it leaves.
const QUEUED_BYTES_MAX: usize = 256 << 10;

/// Sends that wait on one socket: with the smallest buffer of 4 KiB each, as much memory as the bytes above.
const QUEUED_MAX: usize = 64;

pub(super) struct DatagramSlot {
    fd: Fd,
    /// A socket of IPv6.
    dual: bool,
    /// What does not fit goes in fragments.
    fragments: bool,
    recv_op: OpId,
    room_op: OpId,
    recv_task: TaskRef,
    room_tasks: Vec<TaskRef>,
    outbox: VecDeque<Outgoing>,
    queued_bytes: usize,
    granted: UdpGranted,
    counts: UdpCounts,
    /// The turn in which it was last seen empty.
    empty_in: u64,
    owned: bool,
}

/// A send that waits.
struct Outgoing {
    to: SocketAddr,
    from: Option<IpAddr>,
    ecn: u8,
    segment: Option<usize>,
    buf: Buf,
    /// Bytes that have left already.
    sent: usize,
}

impl Outgoing {
    fn rest(&self) -> Transmit<'_> {
        let Self { to, from, ecn, segment, .. } = *self;
        Transmit { to, from, ecn, segment, bytes: &self.buf.bytes()[self.sent..] }
    }
}

impl Table {
    pub(crate) fn add_datagrams(&mut self, fd: Fd, dual: bool, fragments: bool, granted: UdpGranted) -> u32 {
        self.datagrams.insert(DatagramSlot {
            fd,
            dual,
            fragments,
            recv_op: OpId::NONE,
            room_op: OpId::NONE,
            recv_task: TaskRef::NONE,
            room_tasks: Vec::new(),
            outbox: VecDeque::new(),
            queued_bytes: 0,
            granted,
            counts: UdpCounts::default(),
            empty_in: u64::MAX,
            owned: true,
        })
    }

    pub(crate) fn datagrams_fd(&self, socket: u32) -> Fd {
        self.datagrams.get(socket).fd
    }

    pub(crate) fn datagrams_granted(&self, socket: u32) -> UdpGranted {
        self.datagrams.get(socket).granted.clone()
    }

    pub(crate) fn datagrams_counts(&self, socket: u32) -> UdpCounts {
        self.datagrams.get(socket).counts
    }

    /// The handle is gone: cancels what is in flight and closes when it has come to rest.
    pub(crate) fn abandon_datagrams(&mut self, socket: u32) {
        let slot = self.datagrams.get_mut(socket);
        slot.owned = false;
        slot.recv_task = TaskRef::NONE;
        slot.room_tasks = Vec::new();
        slot.outbox = VecDeque::new();
        for op in [slot.recv_op, slot.room_op] {
            if !op.is_none() {
                self.todo.requests.push((0, Request::Cancel { target: op.token() }));
            }
        }
        self.close_datagrams_at_rest(socket);
    }

    fn close_datagrams_at_rest(&mut self, socket: u32) {
        let slot = self.datagrams.get(socket);
        if !slot.owned && slot.recv_op.is_none() && slot.room_op.is_none() {
            self.todo.closes.push((slot.fd, false));
            self.datagrams.remove(socket);
        }
    }

    // --- receiving -----------------------------------------------------------------------------------------------

    /// The descriptor to receive from; `None` while the kernel has yet to say that something came, or where this turn has seen
    /// it empty.
    pub(crate) fn worth_receiving(&self, socket: u32, turn: u64) -> Option<Fd> {
        let slot = self.datagrams.get(socket);
        (slot.recv_op.is_none() && slot.empty_in != turn).then_some(slot.fd)
    }

    /// Takes note of what was received in `turn`.
    pub(crate) fn datagrams_came(&mut self, socket: u32, batch: &Batch, turn: u64) {
        let slot = self.datagrams.get_mut(socket);
        slot.counts.received += batch.datagrams();
        slot.counts.batches += batch.len() as u64;
        slot.counts.overflowed = batch.overflowed().unwrap_or(slot.counts.overflowed);
        if !batch.is_full() {
            slot.empty_in = turn;
        }
    }

    /// Wakes `task` when there is something to receive.
    pub(crate) fn await_datagrams(&mut self, socket: u32, task: TaskRef) {
        let slot = self.datagrams.get_mut(socket);
        slot.recv_task = task;
        if slot.recv_op.is_none() {
            slot.recv_op = self.ops.begin(Purpose::Readable { socket }, Owned::Nothing);
            self.todo.requests.push((slot.recv_op.token(), Request::PollIn { fd: slot.fd }));
        }
    }

    pub(super) fn datagrams_readable(&mut self, socket: u32, exec: &Exec) {
        let slot = self.datagrams.get_mut(socket);
        slot.recv_op = OpId::NONE;
        // Whatever the poll says: a receive tells it better.
        exec.wake(std::mem::replace(&mut slot.recv_task, TaskRef::NONE));
        self.close_datagrams_at_rest(socket);
    }

    // --- sending -------------------------------------------------------------------------------------------------

    /// Sends at once, or keeps a copy of what the kernel has no room for.
    pub(crate) fn send_datagrams(&mut self, socket: u32, transmit: &Transmit<'_>, driver: &mut Driver) -> Sent {
        let slot = self.datagrams.get_mut(socket);
        let transmit = Transmit { segment: Some(segment_of(transmit)), ..*transmit };
        if segment_of(&transmit) > SEND_BYTES_MAX {
            slot.counts.too_large += 1;
            return Sent::Done;
        }
        let mut sent = 0;
        if slot.outbox.is_empty() {
            match slot.offer(&transmit, driver) {
                Ok(()) => return Sent::Done,
                Err(part) => sent = part,
            }
        } else if !slot.has_room_for(&transmit) {
            return Sent::Full;
        }
        slot.keep(&transmit, sent);
        self.await_room(socket);
        Sent::Queued
    }

    /// Whether there is room for more sends; remembers `task` for when there is.
    pub(crate) fn datagrams_room(&mut self, socket: u32, task: TaskRef) -> bool {
        let slot = self.datagrams.get_mut(socket);
        if slot.has_room() {
            return true;
        }
        if !slot.room_tasks.contains(&task) {
            slot.room_tasks.push(task);
        }
        false
    }

    pub(super) fn datagrams_writable(&mut self, socket: u32) {
        let slot = self.datagrams.get_mut(socket);
        slot.room_op = OpId::NONE;
        if slot.owned {
            self.writable.push(socket);
        } else {
            self.close_datagrams_at_rest(socket);
        }
    }

    /// Sends what waited, where the kernel has said that there is room.
    pub(crate) fn send_what_waited(&mut self, driver: &mut Driver, exec: &Exec) {
        while let Some(socket) = self.writable.pop() {
            // Its handle may be gone since.
            if !self.datagrams.try_get(socket).is_some_and(|slot| slot.owned) {
                continue;
            }
            let slot = self.datagrams.get_mut(socket);
            let all_left = slot.offer_what_waits(driver);
            if slot.has_room() {
                slot.room_tasks.drain(..).for_each(|task| exec.wake(task));
            }
            if !all_left {
                self.await_room(socket);
            }
        }
    }

    fn await_room(&mut self, socket: u32) {
        let slot = self.datagrams.get_mut(socket);
        if slot.room_op.is_none() {
            slot.room_op = self.ops.begin(Purpose::Writable { socket }, Owned::Nothing);
            self.todo.requests.push((slot.room_op.token(), Request::PollOut { fd: slot.fd }));
        }
    }
}

impl DatagramSlot {
    /// Sends all of `transmit`, but for what the kernel has no room for: then the bytes that have left are the error.
    fn offer(&mut self, transmit: &Transmit<'_>, driver: &mut Driver) -> Result<(), usize> {
        let (all, segment) = (transmit.bytes.len(), segment_of(transmit));
        let mut sent = 0;
        loop {
            let end = all.min(sent + self.bytes_a_send(segment));
            let piece = Transmit { bytes: &transmit.bytes[sent..end], ..*transmit };
            match self.attempt(&piece, driver) {
                Ok(taken) => sent += taken,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return Err(sent),
                    Some(libc::EINTR) => continue,
                    refused => {
                        match refused {
                            Some(libc::EMSGSIZE) => self.counts.too_large += datagrams_in(&piece),
                            _ => self.counts.failed += 1,
                        }
                        sent = end;
                    }
                },
            }
            if sent >= all {
                return Ok(());
            }
        }
    }

    /// One send. If the kernel refuses to cut it, as it does for a device without checksum offload (`EIO`) and where it does not
    /// know how (`EINVAL`), the first datagram goes alone, as all do from then on. It goes alone too where none fits but in fragments, which the kernel
    /// makes of one datagram and not of several (`EMSGSIZE`). Returns the bytes that left.
    fn attempt(&mut self, piece: &Transmit<'_>, driver: &mut Driver) -> io::Result<usize> {
        let segment = segment_of(piece);
        let (sent, outcome) = match driver.send_datagrams(self.fd, self.dual, piece) {
            Err(error) if piece.bytes.len() > segment && (is_about_cutting(&error) || self.would_fragment(&error)) => {
                let alone = Transmit { bytes: &piece.bytes[..segment], ..*piece };
                // If that fails too, it was not about cutting.
                driver.send_datagrams(self.fd, self.dual, &alone)?;
                if is_about_cutting(&error) {
                    self.granted.gso_segments = 1;
                    self.granted.missing.push(format!("UDP_SEGMENT ({error}): each datagram is sent alone"));
                }
                (alone, Ok(()))
            }
            outcome => (*piece, outcome),
        };
        outcome?;
        self.counts.sends += 1;
        self.counts.sent += datagrams_in(&sent);
        Ok(sent.bytes.len())
    }

    fn would_fragment(&self, error: &io::Error) -> bool {
        self.fragments && error.raw_os_error() == Some(libc::EMSGSIZE)
    }

    /// Sends what waits, in order; false if the kernel is full again.
    fn offer_what_waits(&mut self, driver: &mut Driver) -> bool {
        while let Some(mut outgoing) = self.outbox.pop_front() {
            if let Err(sent) = self.offer(&outgoing.rest(), driver) {
                outgoing.sent += sent;
                self.outbox.push_front(outgoing);
                return false;
            }
            self.queued_bytes -= outgoing.buf.len();
        }
        true
    }

    /// Keeps what is behind the first `sent` bytes, in pieces that a buffer holds.
    fn keep(&mut self, transmit: &Transmit<'_>, sent: usize) {
        let Transmit { to, from, ecn, segment, bytes } = *transmit;
        self.counts.queued += 1;
        let rest = &bytes[sent..];
        let whole = segment_of(transmit) * (SEND_BYTES_MAX / segment_of(transmit)).max(1);
        // An empty datagram is a piece, too.
        for piece in rest.chunks(whole).chain(rest.is_empty().then_some(rest)) {
            self.queued_bytes += piece.len();
            self.outbox.push_back(Outgoing { to, from, ecn, segment, buf: Buf::copy_of(piece), sent: 0 });
        }
    }

    fn has_room_for(&self, transmit: &Transmit<'_>) -> bool {
        let pieces = transmit.bytes.len() / (SEND_BYTES_MAX / 2) + 1;
        self.outbox.len() + pieces <= QUEUED_MAX && self.queued_bytes + transmit.bytes.len() <= QUEUED_BYTES_MAX
    }

    /// Half empty: so that a waker is worth its while.
    fn has_room(&self) -> bool {
        self.outbox.len() <= QUEUED_MAX / 2 && self.queued_bytes <= QUEUED_BYTES_MAX / 2
    }

    /// Bytes of datagrams of `segment` bytes that one send can carry: bounded by their number and by their sum.
    fn bytes_a_send(&self, segment: usize) -> usize {
        segment * self.granted.gso_segments.min(SEND_BYTES_MAX / segment).max(1)
    }
}

/// Bytes of each datagram; at least 1, for an empty one.
fn segment_of(transmit: &Transmit<'_>) -> usize {
    transmit.segment.filter(|&segment| segment > 0).unwrap_or(transmit.bytes.len()).max(1)
}

fn datagrams_in(transmit: &Transmit<'_>) -> u64 {
    transmit.bytes.len().div_ceil(segment_of(transmit)).max(1) as u64
}

fn is_about_cutting(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL))
}
