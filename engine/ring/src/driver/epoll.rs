//! The epoll driver: completions made of readiness, for hosts whose seccomp profile refuses io_uring.
//!
//! What holds here:
//! * A descriptor joins the epoll set when an operation on it first has to wait, edge-triggered and once; what it said
//!   since is kept as two hints, so that a system call which could only answer `EAGAIN` is not made.
//! * All reading and writing happens in `turn`. A cancel finds its target either waiting (nothing was consumed, so
//!   nothing is lost) or finished.
//! * One descriptor moves a bounded number of bytes or connections a turn, then waits for the next turn behind the others.
//! * No allocation for an operation once the tables have grown.
//!
//! Deliberately absent: doorbells (a mailbox wakes this driver through an eventfd and `PollIn`), spinning.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::{Completion, DriverCounts, Fd, Granted, RESERVED_TOKENS, Request, Token, Wait, sys};
use crate::net::{Address, ListenOptions};

/// Events fetched by one `epoll_wait`: a busy core's worth; what does not fit is fetched in the next turn.
const EVENTS: usize = 256;

/// Memory that multishot receives read into, one after another: as much as one recv call is worth.
const SCRATCH: usize = 64 * 1024;

/// Receives of one descriptor in a turn (256 KiB) before the others have theirs.
const RECEIVES_A_TURN: u32 = 4;

/// Connections accepted from one listener in a turn before the others have theirs.
const ACCEPTS_A_TURN: u32 = 64;

/// What every stream and listener is watched for. `EPOLLPRI` and `EPOLLRDHUP` say that a short read may not be the last.
const WATCHED: u32 = (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLPRI | libc::EPOLLET) as u32;
const READS: u32 = (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLPRI | libc::EPOLLHUP | libc::EPOLLERR) as u32;
const WRITES: u32 = (libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR) as u32;
const CAREFUL: u32 = (libc::EPOLLRDHUP | libc::EPOLLPRI | libc::EPOLLHUP | libc::EPOLLERR) as u32;

/// Which of a descriptor's two places an operation takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Side {
    Read,
    Write,
}

#[derive(Clone, Copy, Debug)]
struct Op {
    token: Token,
    request: Request,
    /// Bytes that a send has passed to the kernel; for a connect, 1 once it is under way.
    progress: usize,
}

/// What the driver knows of one descriptor.
#[derive(Clone, Copy, Debug)]
struct Descriptor {
    read: Option<Op>,
    write: Option<Op>,
    /// Reading may yield something; false once it has been seen empty.
    readable: bool,
    /// Writing may take something; false once it has been seen full.
    writable: bool,
    /// A short read does not mean empty: the end, an error or urgent data may stand behind it.
    careful: bool,
    /// In the epoll set.
    watched: bool,
    /// In the queue of descriptors to try in the coming turn.
    queued: bool,
}

impl Default for Descriptor {
    fn default() -> Self {
        Self { read: None, write: None, readable: true, writable: true, careful: false, watched: false, queued: false }
    }
}

/// What became of one attempt.
enum Tried {
    /// The operation's last completion.
    Done(i32),
    /// It has to wait for the kernel to report the descriptor.
    Waits,
    /// It had its share of this turn.
    Again,
}

pub(crate) struct Epoll {
    poll: OwnedFd,
    /// Indexed by descriptor.
    descriptors: Vec<Descriptor>,
    /// Where the operation of a token is: for cancels.
    places: HashMap<Token, (Fd, Side), BuildHasherDefault<TokenHasher>>,
    /// Operations whose place was taken when they came: rare, kept in order.
    behind: VecDeque<(Fd, Side, Op)>,
    /// Descriptors to try in the coming turn.
    queue: VecDeque<Fd>,
    /// Last completions that came about outside of a turn.
    finished: VecDeque<(Token, i32)>,
    events: Vec<libc::epoll_event>,
    scratch: Box<[u8]>,
    gather: Vec<libc::iovec>,
    /// The turn before this one did not ask the kernel for events.
    skipped: bool,
    counts: DriverCounts,
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: a plain system call without pointers.
        let poll = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        Ok(Self {
            // SAFETY: `poll` was opened just now and nobody else has it.
            poll: unsafe { OwnedFd::from_raw_fd(poll) },
            descriptors: Vec::new(),
            places: HashMap::default(),
            behind: VecDeque::new(),
            queue: VecDeque::new(),
            finished: VecDeque::new(),
            events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS],
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            gather: Vec::new(),
            skipped: false,
            counts: DriverCounts::default(),
        })
    }

    pub(crate) fn submit(&mut self, token: Token, request: Request) {
        match request {
            Request::Cancel { target } => self.cancel(target),
            Request::Doorbell { .. } => debug_assert!(false, "an epoll reactor is woken through its eventfd"),
            Request::AcceptMulti { fd }
            | Request::Recv { fd, .. }
            | Request::RecvMulti { fd }
            | Request::PollIn { fd } => self.place(fd, Side::Read, Op { token, request, progress: 0 }),
            Request::Send { fd, .. } | Request::SendMsg { fd, .. } | Request::Connect { fd, .. } => {
                self.place(fd, Side::Write, Op { token, request, progress: 0 });
            }
        }
    }

    pub(crate) fn turn(&mut self, wait: Wait, mut sink: impl FnMut(Completion<'_>)) -> io::Result<()> {
        let told = self.tell_finished(&mut sink) + self.try_queue(&mut sink);
        // What completed already can be worked on first; but not twice in a row, so that a busy descriptor
        // never keeps the others from being seen.
        if told > 0 && !self.skipped {
            self.skipped = true;
            return Ok(());
        }
        self.skipped = false;
        let may_sleep = told == 0 && self.queue.is_empty() && self.finished.is_empty();
        let ready = self.fetch(if may_sleep { wait } else { Wait::None })?;
        for index in 0..ready {
            let event = self.events[index];
            self.note(event.u64 as Fd, event.events);
            self.try_descriptor(event.u64 as Fd, &mut sink);
        }
        self.tell_finished(&mut sink);
        Ok(())
    }

    pub(crate) fn listen(&self, address: &Address, options: &ListenOptions) -> io::Result<Fd> {
        sys::listen(address, options, true)
    }

    pub(crate) fn socket(&self, address: &Address) -> io::Result<Fd> {
        sys::socket(address, true)
    }

    pub(crate) fn peer(&self, fd: Fd) -> io::Result<Address> {
        sys::peer(fd)
    }

    pub(crate) fn local(&self, fd: Fd) -> io::Result<Address> {
        sys::local(fd)
    }

    pub(crate) fn shutdown(&mut self, fd: Fd, both: bool) {
        self.counts.calls += 1;
        sys::shutdown(fd, both);
    }

    pub(crate) fn close(&mut self, fd: Fd, reset: bool) {
        if let Some(descriptor) = self.descriptors.get_mut(fd as usize) {
            debug_assert!(
                descriptor.read.is_none() && descriptor.write.is_none(),
                "descriptor {fd} closed with an operation in flight"
            );
            // The kernel takes a closed descriptor out of the set by itself.
            *descriptor = Descriptor::default();
        }
        if reset {
            sys::arm_reset(fd);
        }
        self.counts.calls += 1;
        sys::close(fd);
    }

    #[inline]
    pub(crate) fn clock(&self) -> u64 {
        sys::clock()
    }

    pub(crate) fn granted(&self) -> Granted {
        Granted { driver: "epoll", features: vec!["EPOLLET"], missing: Vec::new() }
    }

    pub(crate) fn counts(&self) -> DriverCounts {
        self.counts
    }
}

/// Operations and their places.
impl Epoll {
    fn place(&mut self, fd: Fd, side: Side, op: Op) {
        debug_assert!(fd >= 0 && op.token < RESERVED_TOKENS);
        if fd as usize >= self.descriptors.len() {
            self.descriptors.resize(fd as usize + 1, Descriptor::default());
        }
        let known = self.places.insert(op.token, (fd, side));
        debug_assert!(known.is_none(), "token {:#x} is in flight already", op.token);
        let place = self.slot(fd, side);
        if place.is_some() {
            self.behind.push_back((fd, side, op));
        } else {
            *place = Some(op);
            self.enqueue(fd);
        }
    }

    fn slot(&mut self, fd: Fd, side: Side) -> &mut Option<Op> {
        let descriptor = &mut self.descriptors[fd as usize];
        match side {
            Side::Read => &mut descriptor.read,
            Side::Write => &mut descriptor.write,
        }
    }

    fn enqueue(&mut self, fd: Fd) {
        let descriptor = &mut self.descriptors[fd as usize];
        if !descriptor.queued {
            descriptor.queued = true;
            self.queue.push_back(fd);
        }
    }

    /// Frees the operation's place for one that waits behind it.
    fn retire(&mut self, fd: Fd, side: Side) {
        let Some(op) = self.slot(fd, side).take() else { return };
        self.places.remove(&op.token);
        if let Some(index) = self.behind.iter().position(|&(f, s, _)| (f, s) == (fd, side)) {
            let (_, _, next) = self.behind.remove(index).expect("just found");
            *self.slot(fd, side) = Some(next);
            self.enqueue(fd);
        }
    }

    /// The target completes in the coming turn: with what it has sent, or with `-ECANCELED`.
    fn cancel(&mut self, target: Token) {
        let Some(&(fd, side)) = self.places.get(&target) else { return };
        if let Some(index) = self.behind.iter().position(|(_, _, op)| op.token == target) {
            self.behind.remove(index);
            self.places.remove(&target);
            self.finished.push_back((target, -libc::ECANCELED));
            return;
        }
        let op = self.slot(fd, side).expect("a placed operation is in its place");
        let sent = if matches!(op.request, Request::Connect { .. }) { 0 } else { op.progress };
        self.retire(fd, side);
        self.finished.push_back((target, if sent > 0 { sent as i32 } else { -libc::ECANCELED }));
    }
}

/// The turn's parts.
impl Epoll {
    fn tell_finished(&mut self, sink: &mut impl FnMut(Completion<'_>)) -> usize {
        let told = self.finished.len();
        for (token, result) in self.finished.drain(..) {
            sink(Completion { token, result, more: false, bytes: &[] });
        }
        told
    }

    /// Tries every descriptor that was queued before now; returns how many completions were handed out.
    fn try_queue(&mut self, sink: &mut impl FnMut(Completion<'_>)) -> usize {
        let mut told = 0;
        for _ in 0..self.queue.len() {
            let Some(fd) = self.queue.pop_front() else { break };
            self.descriptors[fd as usize].queued = false;
            told += self.try_descriptor(fd, sink);
        }
        told
    }

    /// Asks the kernel for events; returns how many are in `self.events`.
    fn fetch(&mut self, wait: Wait) -> io::Result<usize> {
        let timeout = match wait {
            Wait::None => 0,
            Wait::AtMost(time) => millis_up(time),
            Wait::Forever => -1,
        };
        self.counts.enters += 1;
        // SAFETY: `events` is valid for EVENTS entries; the kernel writes at most as many.
        let got =
            check(unsafe { libc::epoll_wait(self.poll.as_raw_fd(), self.events.as_mut_ptr(), EVENTS as i32, timeout) });
        match got {
            Ok(ready) => Ok(ready as usize),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) => Err(error),
        }
    }

    fn note(&mut self, fd: Fd, events: u32) {
        let descriptor = &mut self.descriptors[fd as usize];
        descriptor.readable |= events & READS != 0;
        descriptor.writable |= events & WRITES != 0;
        descriptor.careful |= events & CAREFUL != 0;
    }

    fn try_descriptor(&mut self, fd: Fd, sink: &mut impl FnMut(Completion<'_>)) -> usize {
        self.try_side(fd, Side::Write, sink) + self.try_side(fd, Side::Read, sink)
    }

    fn try_side(&mut self, fd: Fd, side: Side, sink: &mut impl FnMut(Completion<'_>)) -> usize {
        let Some(op) = *self.slot(fd, side) else { return 0 };
        let mut told = 0;
        let mut counted = |completion: Completion<'_>| {
            told += 1;
            sink(completion);
        };
        let tried = match op.request {
            Request::Recv { ptr, len, .. } => self.try_recv(fd, ptr, len),
            Request::RecvMulti { .. } => self.try_recv_multi(fd, op.token, &mut counted),
            Request::AcceptMulti { .. } => self.try_accept(fd, op.token, &mut counted),
            Request::PollIn { .. } => self.try_poll(fd, op),
            Request::Connect { addr, len, .. } => self.try_connect(fd, op, addr, len),
            Request::Send { .. } | Request::SendMsg { .. } => self.try_send(fd, op),
            Request::Cancel { .. } | Request::Doorbell { .. } => unreachable!("never placed"),
        };
        let tried = match tried {
            Tried::Waits => self.watch(fd),
            other => other,
        };
        match tried {
            Tried::Done(result) => {
                counted(Completion { token: op.token, result, more: false, bytes: &[] });
                self.retire(fd, side);
            }
            Tried::Again => self.enqueue(fd),
            Tried::Waits => {}
        }
        told
    }

    /// Puts `fd` into the epoll set, which reports at once what it is ready for already.
    fn watch(&mut self, fd: Fd) -> Tried {
        if self.descriptors[fd as usize].watched {
            return Tried::Waits;
        }
        self.control(libc::EPOLL_CTL_ADD, fd, WATCHED)
    }

    fn control(&mut self, operation: i32, fd: Fd, events: u32) -> Tried {
        self.counts.calls += 1;
        let mut event = libc::epoll_event { events, u64: fd as u64 };
        // SAFETY: `event` is valid for the call, which copies it.
        match check(unsafe { libc::epoll_ctl(self.poll.as_raw_fd(), operation, fd, &mut event) }) {
            Ok(_) => {
                self.descriptors[fd as usize].watched = true;
                Tried::Waits
            }
            Err(error) => Tried::Done(negative(&error)),
        }
    }
}

/// One attempt of each operation.
impl Epoll {
    fn try_recv(&mut self, fd: Fd, ptr: *mut u8, len: u32) -> Tried {
        if !self.descriptors[fd as usize].readable {
            return Tried::Waits;
        }
        match self.recv(fd, ptr, len as usize) {
            Ok(got) => {
                self.counts.receives += 1;
                Tried::Done(got as i32)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Tried::Waits,
            Err(error) => Tried::Done(negative(&error)),
        }
    }

    fn try_recv_multi(&mut self, fd: Fd, token: Token, sink: &mut impl FnMut(Completion<'_>)) -> Tried {
        for _ in 0..RECEIVES_A_TURN {
            if !self.descriptors[fd as usize].readable {
                return Tried::Waits;
            }
            let scratch = self.scratch.as_mut_ptr();
            match self.recv(fd, scratch, SCRATCH) {
                Ok(0) => return Tried::Done(0),
                Ok(got) => {
                    self.counts.receives += 1;
                    sink(Completion { token, result: got as i32, more: true, bytes: &self.scratch[..got] });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Tried::Waits,
                Err(error) => return Tried::Done(negative(&error)),
            }
        }
        if self.descriptors[fd as usize].readable { Tried::Again } else { Tried::Waits }
    }

    /// Receives once and keeps the hint: empty after `EAGAIN`, and after a short read unless something stands behind it.
    fn recv(&mut self, fd: Fd, ptr: *mut u8, len: usize) -> io::Result<usize> {
        loop {
            self.counts.calls += 1;
            // SAFETY: `ptr` is valid for `len` bytes: either our scratch, or a buffer that the op table owns until
            // the completion which this call has not made yet.
            let got = unsafe { libc::recv(fd, ptr.cast(), len, libc::MSG_DONTWAIT) };
            let descriptor = &mut self.descriptors[fd as usize];
            if got >= 0 {
                descriptor.readable = got as usize == len || got == 0 || descriptor.careful;
                return Ok(got as usize);
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => {
                    descriptor.readable = false;
                    return Err(error);
                }
                _ => return Err(error),
            }
        }
    }

    fn try_accept(&mut self, fd: Fd, token: Token, sink: &mut impl FnMut(Completion<'_>)) -> Tried {
        if !self.descriptors[fd as usize].readable {
            return Tried::Waits;
        }
        for _ in 0..ACCEPTS_A_TURN {
            self.counts.calls += 1;
            let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
            // SAFETY: null address and length mean that the peer's address is not wanted.
            let got = check(unsafe { libc::accept4(fd, std::ptr::null_mut(), std::ptr::null_mut(), flags) });
            match got {
                Ok(accepted) => sink(Completion { token, result: accepted, more: true, bytes: &[] }),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.descriptors[fd as usize].readable = false;
                    return Tried::Waits;
                }
                Err(error) if is_of_the_connection(&error) => {}
                Err(error) => return Tried::Done(negative(&error)),
            }
        }
        Tried::Again
    }

    /// Polling asks anew each time, because the owner reads the descriptor itself and the hint knows nothing of that.
    fn try_poll(&mut self, fd: Fd, op: Op) -> Tried {
        let asked = op.progress == 1;
        let descriptor = &mut self.descriptors[fd as usize];
        if asked && descriptor.readable {
            return Tried::Done(libc::EPOLLIN);
        }
        if asked {
            return Tried::Waits;
        }
        descriptor.readable = false;
        let operation = if descriptor.watched { libc::EPOLL_CTL_MOD } else { libc::EPOLL_CTL_ADD };
        self.advance(fd, Side::Read, 1);
        self.control(operation, fd, (libc::EPOLLIN | libc::EPOLLET) as u32)
    }

    fn try_connect(&mut self, fd: Fd, op: Op, addr: *const libc::sockaddr_storage, len: u32) -> Tried {
        if op.progress == 0 {
            self.counts.calls += 1;
            // SAFETY: `addr` is valid for `len` bytes until this operation's completion, which is yet to come.
            return match check(unsafe { libc::connect(fd, addr.cast(), len) }) {
                Ok(_) => Tried::Done(0),
                // Interrupted or under way: the kernel goes on and says so by EPOLLOUT.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) => {
                    self.descriptors[fd as usize].writable = false;
                    self.advance(fd, Side::Write, 1);
                    Tried::Waits
                }
                Err(error) => Tried::Done(negative(&error)),
            };
        }
        if !self.descriptors[fd as usize].writable {
            return Tried::Waits;
        }
        self.counts.calls += 1;
        Tried::Done(-pending_error(fd))
    }

    fn try_send(&mut self, fd: Fd, mut op: Op) -> Tried {
        let total = wanted(&op.request);
        while self.descriptors[fd as usize].writable {
            self.counts.calls += 1;
            match self.send_rest(fd, &op) {
                Ok(sent) => {
                    op.progress += sent;
                    if op.progress == total {
                        self.counts.sends += 1;
                        return Tried::Done(total as i32);
                    }
                    // Taking less than offered means full: EPOLLOUT will follow.
                    self.descriptors[fd as usize].writable = false;
                    self.advance(fd, Side::Write, op.progress);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.descriptors[fd as usize].writable = false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if op.progress > 0 => return Tried::Done(op.progress as i32),
                Err(error) => return Tried::Done(negative(&error)),
            }
        }
        Tried::Waits
    }

    /// Offers the kernel everything that a send has left.
    fn send_rest(&mut self, fd: Fd, op: &Op) -> io::Result<usize> {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        let sent = match op.request {
            Request::Send { ptr, len, .. } => {
                // SAFETY: `ptr` is valid for `len` bytes until this operation's last completion, and `progress <= len`.
                unsafe { libc::send(fd, ptr.add(op.progress).cast(), len as usize - op.progress, flags) }
            }
            Request::SendMsg { msg, .. } if op.progress == 0 => {
                // SAFETY: `msg` and all that it points to are valid until this operation's last completion.
                unsafe { libc::sendmsg(fd, msg, flags) }
            }
            Request::SendMsg { msg, .. } => {
                rest_of(msg, op.progress, &mut self.gather);
                // SAFETY: `msghdr` is plain data for which all zeroes is a value.
                let mut rest: libc::msghdr = unsafe { std::mem::zeroed() };
                rest.msg_iov = self.gather.as_mut_ptr();
                rest.msg_iovlen = self.gather.len() as _;
                // SAFETY: `rest` and `gather` live through the call; the memory they name does as above.
                unsafe { libc::sendmsg(fd, &rest, flags) }
            }
            _ => unreachable!("only sends get here"),
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
    }

    fn advance(&mut self, fd: Fd, side: Side, progress: usize) {
        if let Some(op) = self.slot(fd, side) {
            op.progress = progress;
        }
    }
}

/// The bytes that a send is to bring over.
fn wanted(request: &Request) -> usize {
    match *request {
        Request::Send { len, .. } => len as usize,
        Request::SendMsg { msg, .. } => pieces(msg).iter().map(|piece| piece.iov_len).sum(),
        _ => unreachable!("only sends get here"),
    }
}

fn pieces<'a>(msg: *const libc::msghdr) -> &'a [libc::iovec] {
    // SAFETY: the op table keeps `msg` and its iovecs valid until the last completion; callers do not keep the slice.
    unsafe {
        let msg = &*msg;
        if msg.msg_iovlen == 0 { &[] } else { std::slice::from_raw_parts(msg.msg_iov, msg.msg_iovlen) }
    }
}

/// Fills `gather` with the pieces of `msg` behind its first `skip` bytes.
fn rest_of(msg: *const libc::msghdr, mut skip: usize, gather: &mut Vec<libc::iovec>) {
    gather.clear();
    for piece in pieces(msg) {
        let skipped = skip.min(piece.iov_len);
        skip -= skipped;
        if skipped < piece.iov_len {
            let base = piece.iov_base.cast::<u8>().wrapping_add(skipped);
            gather.push(libc::iovec { iov_base: base.cast(), iov_len: piece.iov_len - skipped });
        }
    }
}

/// Errors that accept reports of a connection which died in the queue, not of the listener (accept(2)).
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EINTR
                | libc::ECONNABORTED
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENONET
        )
    )
}

/// The positive `errno` that waits on the socket, 0 for none.
fn pending_error(fd: Fd) -> i32 {
    let mut error: i32 = 0;
    let mut len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: `error` and `len` are valid for the call, and `len` is the size of `error`.
    let got = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, (&raw mut error).cast(), &mut len) };
    if got < 0 { -negative(&io::Error::last_os_error()) } else { error }
}

/// Milliseconds, rounded up: waking early would only mean another turn.
fn millis_up(time: Duration) -> i32 {
    time.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i32
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn negative(error: &io::Error) -> i32 {
    -error.raw_os_error().unwrap_or(libc::EIO)
}

/// Tokens are a slot and a generation: one multiplication spreads them well enough.
#[derive(Default)]
pub(super) struct TokenHasher(u64);

impl Hasher for TokenHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, token: u64) {
        self.0 = (self.0 ^ token).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 32;
    }
}

#[cfg(test)]
mod tests {
    //! What is particular to epoll; the contract itself is in `conformance.rs`.

    use super::*;

    /// A driver, and what it has answered.
    struct Rig {
        epoll: Epoll,
        answers: Vec<(Token, i32, bool)>,
        bytes: Vec<u8>,
    }

    impl Rig {
        fn new() -> Self {
            Self { epoll: Epoll::new().unwrap(), answers: Vec::new(), bytes: Vec::new() }
        }

        fn turn(&mut self) {
            let (answers, bytes) = (&mut self.answers, &mut self.bytes);
            let sink = |completion: Completion<'_>| {
                answers.push((completion.token, completion.result, completion.more));
                bytes.extend_from_slice(completion.bytes);
            };
            self.epoll.turn(Wait::AtMost(Duration::from_millis(50)), sink).unwrap();
        }

        fn turn_until_answered(&mut self) -> Vec<(Token, i32, bool)> {
            for _ in 0..100 {
                self.turn();
                if !self.answers.is_empty() {
                    break;
                }
            }
            std::mem::take(&mut self.answers)
        }

        fn sends(&mut self, token: Token, fd: Fd, bytes: &[u8]) {
            self.epoll.submit(token, Request::Send { fd, ptr: bytes.as_ptr(), len: bytes.len() as u32 });
            assert_eq!(self.turn_until_answered(), [(token, bytes.len() as i32, false)]);
        }

        fn close(&mut self, pair: [Fd; 2]) {
            pair.into_iter().for_each(|fd| self.epoll.close(fd, false));
        }
    }

    fn socketpair() -> [Fd; 2] {
        let mut pair = [0; 2];
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: `pair` has room for the two descriptors.
        check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, pair.as_mut_ptr()) }).unwrap();
        pair
    }

    #[test]
    fn a_message_costs_one_receive_one_send_and_two_waits() {
        let mut rig = Rig::new();
        let pair = socketpair();
        rig.epoll.submit(1, Request::RecvMulti { fd: pair[1] });
        rig.turn();
        let before = rig.epoll.counts();
        for round in 0..100 {
            rig.sends(2 + round, pair[0], b"message");
            assert_eq!(rig.turn_until_answered(), [(1, 7, true)]);
        }
        let after = rig.epoll.counts();
        assert_eq!(after.calls - before.calls, 200, "a send and a receive each");
        assert_eq!(after.enters - before.enters, 100, "a turn in which a send completed does not ask for events");
        assert_eq!((after.sends - before.sends, after.receives - before.receives), (100, 100));
        assert!(rig.bytes == b"message".repeat(100));
        rig.epoll.submit(500, Request::Cancel { target: 1 });
        assert_eq!(rig.turn_until_answered(), [(1, -libc::ECANCELED, false)]);
        rig.close(pair);
    }

    #[test]
    fn operations_on_one_side_keep_their_order() {
        let mut rig = Rig::new();
        let pair = socketpair();
        let mut memory = [[0; 2]; 3];
        for (token, place) in (1..).zip(&mut memory) {
            rig.epoll.submit(token, Request::Recv { fd: pair[1], ptr: place.as_mut_ptr(), len: 2 });
        }
        rig.epoll.submit(9, Request::Cancel { target: 2 });
        assert_eq!(rig.turn_until_answered(), [(2, -libc::ECANCELED, false)]);
        rig.epoll.submit(4, Request::Send { fd: pair[0], ptr: b"abcd".as_ptr(), len: 4 });
        while rig.answers.len() < 3 {
            rig.turn();
        }
        assert_eq!(rig.answers, [(4, 4, false), (1, 2, false), (3, 2, false)]);
        assert_eq!(memory, [*b"ab", [0, 0], *b"cd"]);
        rig.close(pair);
    }

    #[test]
    fn one_descriptor_has_a_bounded_share_of_a_turn() {
        let mut rig = Rig::new();
        let (busy, quiet) = (socketpair(), socketpair());
        let size: i32 = 4 << 20;
        // SAFETY: an int option that lives through the call.
        check(unsafe {
            let len = size_of::<i32>() as libc::socklen_t;
            libc::setsockopt(busy[0], libc::SOL_SOCKET, libc::SO_SNDBUF, (&raw const size).cast(), len)
        })
        .unwrap();
        let flood = vec![7; 1 << 20];
        // SAFETY: `flood` is valid for its length.
        while unsafe { libc::send(busy[0], flood.as_ptr().cast(), flood.len(), libc::MSG_DONTWAIT) } > 0 {}
        rig.epoll.submit(1, Request::RecvMulti { fd: busy[1] });
        rig.turn();
        assert!(rig.bytes.len() <= RECEIVES_A_TURN as usize * SCRATCH);
        let mut memory = 0;
        rig.epoll.submit(2, Request::Recv { fd: quiet[1], ptr: &raw mut memory, len: 1 });
        rig.answers.clear();
        rig.epoll.submit(3, Request::Send { fd: quiet[0], ptr: b"x".as_ptr(), len: 1 });
        let turns = (1..100).find(|_| {
            rig.turn();
            rig.answers.contains(&(2, 1, false))
        });
        assert!(turns.is_some_and(|turns| turns <= 3), "{turns:?}");
        rig.epoll.submit(4, Request::Cancel { target: 1 });
        rig.turn();
        rig.close(busy);
        rig.close(quiet);
    }

    #[test]
    fn unix_listeners_and_what_cannot_be_polled() {
        let path = std::env::temp_dir().join(format!("penstock-epoll-{}", std::process::id()));
        let address = Address::Unix(path.clone());
        let mut rig = Rig::new();
        let listener = rig.epoll.listen(&address, &ListenOptions::default()).unwrap();
        let near = rig.epoll.socket(&address).unwrap();
        let (storage, len) = address.to_storage().unwrap();
        rig.epoll.submit(1, Request::Connect { fd: near, addr: &raw const storage, len });
        assert_eq!(rig.turn_until_answered(), [(1, 0, false)]);
        rig.epoll.submit(2, Request::AcceptMulti { fd: listener });
        let accepted = rig.turn_until_answered()[0];
        assert!(accepted.1 > 0 && accepted.2);
        rig.epoll.submit(3, Request::Cancel { target: 2 });
        rig.turn_until_answered();
        [accepted.1, near, listener].into_iter().for_each(|fd| rig.epoll.close(fd, false));
        std::fs::remove_file(path).unwrap();
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        rig.epoll.submit(4, Request::PollIn { fd: file.as_raw_fd() });
        assert_eq!(rig.turn_until_answered(), [(4, -libc::EPERM, false)]);
        rig.epoll.submit(5, Request::Recv { fd: 1_000, ptr: std::ptr::null_mut(), len: 0 });
        assert_eq!(rig.turn_until_answered(), [(5, -libc::EBADF, false)]);
    }

    #[test]
    fn a_gather_list_is_cut_anywhere() {
        let mut parts = [b"abc".as_slice(), b"", b"defgh", b"i"]
            .map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() });
        // SAFETY: `msghdr` is plain data for which all zeroes is a value.
        let mut msg: libc::msghdr = unsafe { std::mem::zeroed() };
        msg.msg_iov = parts.as_mut_ptr();
        msg.msg_iovlen = parts.len();
        let mut gather = Vec::new();
        for skip in 0..=9 {
            rest_of(&raw const msg, skip, &mut gather);
            let rest: Vec<u8> = gather
                .iter()
                // SAFETY: the pieces name parts of the literals above.
                .flat_map(|piece| unsafe { std::slice::from_raw_parts(piece.iov_base.cast::<u8>(), piece.iov_len) })
                .copied()
                .collect();
            assert_eq!(rest, b"abcdefghi"[skip..]);
        }
    }

    #[test]
    fn waits_are_rounded_up_to_milliseconds() {
        assert_eq!(millis_up(Duration::ZERO), 0);
        assert_eq!(millis_up(Duration::from_nanos(1)), 1);
        assert_eq!(millis_up(Duration::from_micros(1_001)), 2);
        assert_eq!(millis_up(Duration::MAX), i32::MAX);
    }
}
