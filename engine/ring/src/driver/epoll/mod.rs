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

mod places;
mod read;
#[cfg(test)]
mod tests;
mod watch;
mod write;

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

pub(super) use self::places::TokenHasher;
use self::places::{Descriptor, Op, Side};
use super::{Completion, DriverCounts, Fd, Granted, Request, Token, Wait, sys};
use crate::net::{Address, ListenOptions};

/// Events fetched by one `epoll_wait`: a busy core's worth; what does not fit is fetched in the next turn.
const EVENTS: usize = 256;

/// Memory that multishot receives read into, one after another: as much as one recv call is worth.
const SCRATCH: usize = 64 * 1024;

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
    pub(super) counts: DriverCounts,
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
            | Request::PollIn { fd }
            | Request::Readable { fd } => self.place(fd, Side::Read, Op { token, request, progress: 0 }),
            Request::Send { fd, .. }
            | Request::SendMsg { fd, .. }
            | Request::Connect { fd, .. }
            | Request::PollOut { fd }
            | Request::Writable { fd } => {
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

    pub(crate) fn peer_user(&self, fd: Fd) -> Option<u32> {
        sys::peer_user(fd)
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

    /// `fd` goes to another thread's set.
    pub(crate) fn forget(&mut self, fd: Fd) {
        if self.descriptors.get(fd as usize).is_some_and(|descriptor| descriptor.watched) {
            self.control(libc::EPOLL_CTL_DEL, fd, 0);
        }
        if let Some(descriptor) = self.descriptors.get_mut(fd as usize) {
            *descriptor = Descriptor::default();
        }
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
            Request::PollIn { .. } => self.try_poll(fd, op, Side::Read),
            Request::PollOut { .. } => self.try_poll(fd, op, Side::Write),
            Request::Readable { .. } => self.try_ready(fd, op, Side::Read),
            Request::Writable { .. } => self.try_ready(fd, op, Side::Write),
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
