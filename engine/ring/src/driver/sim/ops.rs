//! The node's operations: from submission through attempts to completions, with the faults of a kernel in between.
//!
//! What holds here:
//! * Received bytes are written to the owner's memory only when the completion is handed out, and the rest of that
//!   memory is scribbled on: whoever releases or reads a buffer earlier finds out.
//! * Sent bytes are read some time after submission, and must still be the same when the completion is handed out.
//! * Completions of one operation keep their order; those of different operations need not. But a receive that finds an end where a
//!   send was told of a break completes behind that send: one queue holds both, in the order in which they were told.
//! * What an owner may never do is noted as a violation and survived: closing a descriptor with an operation in flight,
//!   a second receive or send on a socket beside the first, a token in use, an unknown descriptor.

use std::cmp::{Ordering, Reverse};
use std::time::Duration;

use super::kernel::{Event, Got, Kernel};
use super::net::SocketId;
use crate::driver::{Completion, Fd, Request, Token};
use crate::net::Address;

/// The lowest descriptor: high enough that a real one is not met by mistake.
pub(super) const FIRST_FD: Fd = 10_000;

/// Bytes that one completion of a multishot receive can carry: a provided buffer's worth.
const MULTISHOT_BYTES: usize = 16 * 1024;

/// Bytes at either end of a receive's unused memory that are overwritten.
const SCRIBBLED: usize = 64;

/// Operations remembered for stale completions.
const OVER_KEPT: usize = 16;

/// How much later than usual a late cancel takes effect, and a late send completes.
const CANCEL_LATE: Duration = Duration::from_millis(2);
const SEND_LATE: Duration = Duration::from_millis(20);

/// An operation in flight.
pub(super) struct Op {
    pub(super) request: Request,
    socket: Option<SocketId>,
    /// An attempt is scheduled.
    scheduled: bool,
    /// Its last completion is on its way.
    finished: bool,
    /// When its latest completion is due.
    due: u64,
    /// Bytes that a send has passed on; 1 for a connect that is under way.
    progress: usize,
    /// What a send's bytes were when it was submitted.
    sum: u64,
}

/// A completion on its way to the node.
pub(super) struct Finished {
    pub(super) due: u64,
    number: u64,
    token: Token,
    result: i32,
    more: bool,
    bytes: Vec<u8>,
}

impl Finished {
    pub(super) fn completion(&self) -> Completion<'_> {
        Completion { token: self.token, result: self.result, more: self.more, bytes: &self.bytes }
    }
}

impl PartialEq for Finished {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.number) == (other.due, other.number)
    }
}

impl Eq for Finished {}

impl PartialOrd for Finished {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Finished {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due, self.number).cmp(&(other.due, other.number))
    }
}

/// Submission.
impl Kernel {
    pub(super) fn submit(&mut self, token: Token, request: Request) {
        let (fd, reads) = match request {
            Request::Cancel { target } => return self.cancel_soon(target),
            Request::Doorbell { .. } => return self.violation("a doorbell in a world of one node".into()),
            Request::AcceptMulti { fd }
            | Request::Recv { fd, .. }
            | Request::RecvMulti { fd }
            | Request::PollIn { fd }
            | Request::Readable { fd } => (fd, true),
            Request::Send { fd, .. }
            | Request::SendMsg { fd, .. }
            | Request::Connect { fd, .. }
            | Request::PollOut { fd }
            | Request::Writable { fd } => (fd, false),
        };
        let socket = self.lookup(fd);
        if self.ops.contains_key(&token) {
            return self.violation(format!("token {token:#x} is in flight already: {request:?}"));
        }
        let sum = sum_of(&request);
        let op = Op { request, socket, scheduled: false, finished: false, due: 0, progress: 0, sum };
        self.ops.insert(token, op);
        self.event(name_of(&request), token as i64, fd);
        match (socket, request) {
            (Some(socket), _) => self.attach(socket, token, reads),
            (None, Request::PollIn { .. }) => return self.real_polls.push((token, fd)),
            (None, _) => {
                self.violation(format!("descriptor {fd} is not open: {request:?}"));
                return self.finish(token, -libc::EBADF, Vec::new(), 0);
            }
        }
        self.attempt_soon(token);
    }

    /// The socket remembers who waits for it.
    fn attach(&mut self, socket: SocketId, token: Token, reads: bool) {
        let entry = self.socket_mut(socket);
        let place = if reads { &mut entry.read_op } else { &mut entry.write_op };
        if let Some(first) = place.replace(token) {
            let (old, new) = (self.ops.get(&first).map(|op| op.request), self.ops[&token].request);
            self.violation(format!("{new:?} submitted while {old:?} is in flight on the same socket"));
        }
    }

    pub(super) fn attempt_soon(&mut self, token: Token) {
        let Some(op) = self.ops.get_mut(&token) else { return };
        if op.scheduled || op.finished {
            return;
        }
        op.scheduled = true;
        let delay = self.dice.span(self.faults.completion_delay);
        self.schedule(delay, Event::Attempt { token });
    }

    fn cancel_soon(&mut self, token: Token) {
        self.event("cancel of", token as i64, 0);
        let late = self.dice.chance(self.faults.cancel_late / 2.0);
        let most = if late { CANCEL_LATE } else { self.faults.completion_delay };
        let delay = self.dice.span(most);
        self.schedule(delay, Event::Cancel { token });
    }
}

/// Attempts.
impl Kernel {
    pub(super) fn attempt(&mut self, token: Token) {
        let Some(op) = self.ops.get_mut(&token) else { return };
        op.scheduled = false;
        let (request, finished, socket) = (op.request, op.finished, op.socket);
        let Some(socket) = socket.filter(|_| !finished) else { return };
        match request {
            Request::Recv { len, .. } => self.attempt_recv(token, socket, len as usize),
            Request::RecvMulti { .. } => self.attempt_recv_multi(token, socket, false),
            Request::AcceptMulti { .. } => self.attempt_accept(token, socket),
            Request::Send { .. } | Request::SendMsg { .. } => self.attempt_send(token, socket),
            Request::Connect { addr, len, .. } => self.attempt_connect(token, socket, addr, len),
            Request::PollIn { .. } | Request::Readable { .. } => {
                if self.socket(socket).readable() {
                    self.finish(token, libc::POLLIN.into(), Vec::new(), 0);
                }
            }
            Request::PollOut { .. } => {
                if self.takes_datagrams(socket) {
                    self.finish(token, libc::POLLOUT.into(), Vec::new(), 0);
                }
            }
            Request::Writable { .. } => {
                if self.writable(socket) {
                    self.finish(token, libc::POLLOUT.into(), Vec::new(), 0);
                }
            }
            Request::Cancel { .. } | Request::Doorbell { .. } => unreachable!("not kept"),
        }
    }

    fn attempt_recv(&mut self, token: Token, socket: SocketId, len: usize) {
        let len = self.shortened(socket, len);
        match self.take(socket, len) {
            Got::Bytes(bytes) => self.finish(token, bytes.len() as i32, bytes, 0),
            Got::End => self.finish(token, 0, Vec::new(), 0),
            Got::Failed(error) => self.finish(token, -error, Vec::new(), 0),
            Got::Nothing => {}
        }
    }

    /// Takes what there is; with `last`, at most one completion, which ends the operation.
    fn attempt_recv_multi(&mut self, token: Token, socket: SocketId, last: bool) {
        loop {
            if self.socket(socket).arrived() > 0 && self.dice.chance(self.faults.no_buffers) {
                self.counts.no_buffers += 1;
                return self.finish(token, -libc::ENOBUFS, Vec::new(), 0);
            }
            let len = self.shortened(socket, MULTISHOT_BYTES);
            match self.take(socket, len) {
                Got::Bytes(bytes) if last || self.dice.chance(self.faults.multishot_end) => {
                    return self.finish(token, bytes.len() as i32, bytes, 0);
                }
                Got::Bytes(bytes) => self.complete(token, bytes.len() as i32, true, bytes, 0),
                Got::End => return self.finish(token, 0, Vec::new(), 0),
                Got::Failed(error) => return self.finish(token, -error, Vec::new(), 0),
                Got::Nothing => return,
            }
        }
    }

    fn attempt_accept(&mut self, token: Token, listener: SocketId) {
        while self.socket(listener).readable() {
            if self.emfile_burst == 0 && self.dice.chance(self.faults.accept_emfile) {
                self.emfile_burst = 2 + self.dice.below(4);
            }
            if self.emfile_burst > 1 {
                self.emfile_burst -= 1;
                return self.finish(token, -libc::EMFILE, Vec::new(), 0);
            }
            self.emfile_burst = 0;
            let connection = self.accept_one(listener).expect("readable");
            if self.dice.chance(self.faults.accept_aborted) {
                self.break_connection(connection);
                self.close_socket(connection, true);
                return self.finish(token, -libc::ECONNABORTED, Vec::new(), 0);
            }
            let fd = self.give_descriptor(connection);
            if self.dice.chance(self.faults.multishot_end) {
                return self.finish(token, fd, Vec::new(), 0);
            }
            self.complete(token, fd, true, Vec::new(), 0);
        }
    }

    fn attempt_connect(&mut self, token: Token, id: SocketId, addr: *const libc::sockaddr_storage, len: u32) {
        let socket = self.socket(id);
        if socket.connecting() {
            return;
        }
        if self.ops[&token].progress == 0 {
            self.ops.get_mut(&token).expect("in flight").progress = 1;
            // SAFETY: the op table keeps the address valid until this operation's last completion.
            let address = unsafe { address_at(addr, len) };
            return self.connect_to(id, address);
        }
        let error = self.connect_outcome(id);
        self.finish(token, -error, Vec::new(), 0);
    }

    fn attempt_send(&mut self, token: Token, socket: SocketId) {
        let op = &self.ops[&token];
        let (request, sent) = (op.request, op.progress);
        let total = len_of(&request);
        let broken = self.dice.chance(self.faults.send_broken);
        let mut part = total - sent;
        if part > 0 && (broken || self.dice.chance(self.faults.send_in_parts)) {
            part = self.dice.within(usize::from(!broken)..=part);
        }
        let mut bytes = std::mem::take(&mut self.scratch);
        // SAFETY: the op table keeps the bytes valid until this operation's last completion.
        unsafe { gather(&request, sent, part.min(self.room(socket)), &mut bytes) };
        let transmitted = self.transmit(socket, &bytes);
        bytes.clear();
        self.scratch = bytes;
        let taken = match transmitted {
            Ok(taken) => taken,
            Err(error) => {
                self.finish_send(token, sent, -error);
                self.socket_mut(socket).told_at = self.ops[&token].due;
                return;
            }
        };
        let sent = sent + taken;
        self.ops.get_mut(&token).expect("in flight").progress = sent;
        if broken {
            self.break_connection(socket);
            self.finish_send(token, sent, -libc::ECONNRESET);
        } else if sent == total {
            self.finish_send(token, sent, 0);
        } else if taken == part {
            self.attempt_soon(token);
        }
    }

    /// A send's last completion: what went, or the error if nothing did.
    fn finish_send(&mut self, token: Token, sent: usize, error: i32) {
        let late = self.dice.chance(self.faults.send_late);
        let delay = if late { self.dice.span(SEND_LATE) } else { 0 };
        self.finish(token, if sent > 0 { sent as i32 } else { error }, Vec::new(), delay);
    }

    /// A cancel takes effect. If the target is finished already, its completions come as they are.
    pub(super) fn cancel_now(&mut self, token: Token) {
        let racing = self.dice.chance(self.faults.cancel_late);
        let Some(op) = self.ops.get(&token) else { return };
        let (request, sent, socket) = (op.request, op.progress, op.socket);
        match (request, socket) {
            _ if op.finished => return,
            (Request::RecvMulti { .. }, Some(socket)) if racing => self.attempt_recv_multi(token, socket, true),
            (Request::Recv { len, .. }, Some(socket)) if racing => self.attempt_recv(token, socket, len as usize),
            (Request::AcceptMulti { .. }, Some(socket)) if racing => self.attempt_accept(token, socket),
            _ => {}
        }
        let sends = matches!(request, Request::Send { .. } | Request::SendMsg { .. });
        let result = if sends && sent > 0 { sent as i32 } else { -libc::ECANCELED };
        self.finish(token, result, Vec::new(), 0);
    }

    pub(super) fn shortened(&mut self, socket: SocketId, len: usize) -> usize {
        let there = len.min(self.socket(socket).arrived());
        if there > 1 && self.dice.chance(self.faults.short_receive) { self.dice.within(1..=there) } else { len }
    }
}

/// Completions.
impl Kernel {
    /// The last completion, unless it is on its way already.
    fn finish(&mut self, token: Token, result: i32, bytes: Vec<u8>, delay: u64) {
        self.complete(token, result, false, bytes, delay);
    }

    fn complete(&mut self, token: Token, result: i32, more: bool, bytes: Vec<u8>, delay: u64) {
        let delay = delay + self.dice.span(self.faults.completion_delay);
        let Some(op) = self.ops.get_mut(&token).filter(|op| !op.finished) else { return };
        let told_at = op.socket.map_or(0, |socket| self.sockets[socket.0 as usize].told_at);
        op.finished = !more;
        op.due = op.due.max(self.now + delay).max(told_at);
        self.completed += 1;
        let finished = Finished { due: op.due, number: self.completed, token, result, more, bytes };
        self.completions.push(Reverse(finished));
    }

    /// How many completions this turn may hand out.
    pub(super) fn reaped(&mut self) -> u64 {
        if self.dice.chance(self.faults.partial_reap) { 1 + self.dice.below(3) } else { u64::MAX }
    }

    /// The next completion that is due, its effects on the owner's memory done.
    pub(super) fn next_completion(&mut self) -> Option<Finished> {
        if self.completions.peek()?.0.due > self.now {
            return None;
        }
        let Reverse(mut finished) = self.completions.pop()?;
        self.event(
            if finished.more { "completion of" } else { "last completion of" },
            finished.token as i64,
            finished.result,
        );
        self.deliver(&mut finished);
        if !finished.more {
            self.retire(finished.token, finished.result);
        }
        Some(finished)
    }

    /// A completion of an operation that is over, now and then.
    pub(super) fn stale_completion(&mut self) -> Option<(Token, i32)> {
        if self.over.is_empty() || !self.dice.chance(self.faults.stale_completion) {
            return None;
        }
        let index = self.dice.below(self.over.len() as u64) as usize;
        let (token, result) = self.over[index];
        if self.ops.contains_key(&token) {
            return None;
        }
        self.event("stale completion of", token as i64, result);
        Some((token, result))
    }

    fn deliver(&mut self, finished: &mut Finished) {
        let request = self.ops[&finished.token].request;
        match request {
            Request::Recv { ptr, len, .. } => {
                self.counts.receives += 1;
                // SAFETY: this is the operation's last completion, until which the op table keeps `ptr` valid for `len`.
                unsafe { fill(ptr, len as usize, &finished.bytes) };
                finished.bytes.clear();
            }
            Request::RecvMulti { .. } => self.counts.receives += 1,
            Request::Send { .. } | Request::SendMsg { .. } => {
                self.counts.sends += 1;
                if sum_of(&request) != self.ops[&finished.token].sum {
                    self.violation(format!("the bytes of {request:?} changed while it was in flight"));
                }
            }
            _ => {}
        }
    }

    fn retire(&mut self, token: Token, result: i32) {
        let Some(op) = self.ops.remove(&token) else { return };
        self.real_polls.retain(|(poll, _)| *poll != token);
        if let Some(socket) = op.socket {
            let socket = self.socket_mut(socket);
            for place in [&mut socket.read_op, &mut socket.write_op] {
                if *place == Some(token) {
                    *place = None;
                }
            }
        }
        if self.over.len() == OVER_KEPT {
            self.over.pop_front();
        }
        self.over.push_back((token, result));
    }
}

/// Descriptors.
impl Kernel {
    /// The lowest free descriptor, as Unix has it: a descriptor used after its close meets another connection.
    pub(super) fn give_descriptor(&mut self, socket: SocketId) -> Fd {
        let fd = match self.free.pop() {
            Some(Reverse(fd)) => fd,
            None => {
                self.descriptors.push(None);
                FIRST_FD + self.descriptors.len() as Fd - 1
            }
        };
        self.descriptors[(fd - FIRST_FD) as usize] = Some(socket);
        fd
    }

    pub(super) fn lookup(&self, fd: Fd) -> Option<SocketId> {
        *self.descriptors.get(usize::try_from(fd - FIRST_FD).ok()?)?
    }

    pub(super) fn close_descriptor(&mut self, fd: Fd, reset: bool) {
        let Some(socket) = self.lookup(fd) else { return self.violation(format!("close of {fd}, which is not open")) };
        let (read, write) = (self.socket(socket).read_op, self.socket(socket).write_op);
        for token in [read, write].into_iter().flatten() {
            let request = self.ops[&token].request;
            self.violation(format!("close of {fd} with {request:?} in flight"));
        }
        self.descriptors[(fd - FIRST_FD) as usize] = None;
        self.free.push(Reverse(fd));
        self.close_socket(socket, reset);
        self.notify(socket);
    }

    pub(super) fn open_descriptors(&self) -> usize {
        self.descriptors.iter().flatten().count()
    }

    /// Asks the real kernel for those descriptors that are not ours: an eventfd of a mailbox, a signalfd.
    pub(super) fn poll_real(&mut self) {
        for index in 0..self.real_polls.len() {
            let (token, fd) = self.real_polls[index];
            let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            // SAFETY: `poll` is one valid pollfd; the call does not wait.
            if unsafe { libc::poll(&mut poll, 1, 0) } > 0 {
                self.finish(token, poll.revents.into(), Vec::new(), 0);
            }
        }
    }
}

fn name_of(request: &Request) -> &'static str {
    match request {
        Request::AcceptMulti { .. } => "accept",
        Request::Recv { .. } => "recv",
        Request::RecvMulti { .. } => "recv multishot",
        Request::Send { .. } | Request::SendMsg { .. } => "send",
        Request::Connect { .. } => "connect",
        Request::PollIn { .. } | Request::PollOut { .. } | Request::Readable { .. } | Request::Writable { .. } => {
            "poll"
        }
        Request::Cancel { .. } => "cancel",
        Request::Doorbell { .. } => "doorbell",
    }
}

/// Calls `with` for each piece of memory that a send is to bring over.
///
/// # Safety
/// The request's memory is valid: it is being submitted, or its last completion has not been handed out.
unsafe fn each_piece(request: &Request, mut with: impl FnMut(&[u8])) {
    match *request {
        // SAFETY: as the caller says.
        Request::Send { ptr, len, .. } if len > 0 => with(unsafe { std::slice::from_raw_parts(ptr, len as usize) }),
        Request::SendMsg { msg, .. } => {
            // SAFETY: as the caller says; `msg_iov` holds `msg_iovlen` entries (sendmsg(2)).
            let (msg, count) = unsafe { (&*msg, (*msg).msg_iovlen) };
            for index in 0..count {
                // SAFETY: `index` is within the entries, each of which names valid memory.
                let piece = unsafe { &*msg.msg_iov.add(index) };
                if piece.iov_len > 0 {
                    // SAFETY: as above.
                    with(unsafe { std::slice::from_raw_parts(piece.iov_base.cast(), piece.iov_len) });
                }
            }
        }
        _ => {}
    }
}

/// Appends up to `max` of a send's bytes behind the first `skip` to `out`.
///
/// # Safety
/// As [`each_piece`].
unsafe fn gather(request: &Request, mut skip: usize, max: usize, out: &mut Vec<u8>) {
    let with = |piece: &[u8]| {
        let rest = &piece[skip.min(piece.len())..];
        skip -= piece.len() - rest.len();
        out.extend_from_slice(&rest[..rest.len().min(max - out.len())]);
    };
    // SAFETY: as the caller says.
    unsafe { each_piece(request, with) };
}

fn len_of(request: &Request) -> usize {
    let mut total = 0;
    // SAFETY: only called for operations in flight.
    unsafe { each_piece(request, |piece| total += piece.len()) };
    total
}

/// A sum over a send's bytes that changes when any of them does (FNV-1a over words).
fn sum_of(request: &Request) -> u64 {
    let mut sum: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |word: u64| sum = (sum ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    let with = |piece: &[u8]| {
        let (words, rest) = piece.as_chunks::<8>();
        words.iter().for_each(|word| add(u64::from_le_bytes(*word)));
        rest.iter().for_each(|byte| add(u64::from(*byte)));
    };
    // SAFETY: called when the operation is submitted, and before its last completion is handed out.
    unsafe { each_piece(request, with) };
    sum
}

/// Writes `bytes` to `ptr` and scribbles on what they leave of `len`.
///
/// # Safety
/// `ptr` is valid for writing `len` bytes.
unsafe fn fill(ptr: *mut u8, len: usize, bytes: &[u8]) {
    debug_assert!(bytes.len() <= len);
    let unused = len - bytes.len();
    let edge = unused.min(SCRIBBLED);
    // SAFETY: all three ranges lie within the `len` bytes at `ptr`; `bytes` is memory of ours.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), ptr, bytes.len());
        std::ptr::write_bytes(ptr.add(bytes.len()), 0xdb, edge);
        std::ptr::write_bytes(ptr.add(len - edge), 0xdb, edge);
    }
}

/// Reads a socket address in the kernel's form.
///
/// # Safety
/// `addr` is valid for `len` bytes.
unsafe fn address_at(addr: *const libc::sockaddr_storage, len: u32) -> Address {
    let mut storage = socket2::SockAddrStorage::zeroed();
    let len = len.min(storage.size_of());
    // SAFETY: the source is valid as the caller says, the destination is as large as any address, and `len` fits both.
    let parsed = unsafe {
        let to = std::ptr::from_mut(storage.view_as::<libc::sockaddr_storage>());
        std::ptr::copy_nonoverlapping(addr.cast::<u8>(), to.cast::<u8>(), len as usize);
        socket2::SockAddr::new(storage, len)
    };
    Address::from_socket2(&parsed)
}
