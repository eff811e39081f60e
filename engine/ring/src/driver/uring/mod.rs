//! The io_uring driver: one ring a thread, one `enter` a turn.
//!
//! What holds here:
//! * Every `enter` carries `GETEVENTS`: on a DEFER_TASKRUN ring completions appear only then.
//! * Nothing is ever dropped for want of a submission slot: what does not fit waits in a backlog, cancels in front, and
//!   the last [`RESERVED`] slots are for cancels only.
//! * Before blocking it spins in user space while that costs no more CPU time than to sleep ([`Spin`]).
//!
//! Deliberately absent, for measured reasons (docs/decisions/0002): SQPOLL, fixed files, links, zero-copy sends,
//! bundles, min-wait.

mod bufring;
mod setup;

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use self::bufring::{BufRing, GROUP};
use super::{Completion, DriverCounts, Fd, Granted, RESERVED_TOKENS, Request, Token, Wait, sys, worth};
use crate::net::{Address, ListenOptions};
use crate::spin::{Spin, Tally};

/// Submission slots that only cancels may take.
const RESERVED: usize = 64;
/// Token of completions that nobody waits for: cancels, doorbells.
const IGNORED: Token = RESERVED_TOKENS;
/// Marks the token of a poll that stands in for a multishot receive where there is no buffer ring.
const EMULATED: Token = 1 << 56;

const ENTER_GETEVENTS: u32 = 1;
const ENTER_EXT_ARG: u32 = 8;
const ENTER_NO_IOWAIT: u32 = 128;

pub(crate) struct Uring {
    ring: IoUring,
    // Dropped after the ring that knows their addresses.
    buffers: Option<BufRing>,
    granted: Granted,
    enter_flags: u32,
    taskrun_flag: bool,
    /// Pushed since the last `enter`.
    unsubmitted: u32,
    backlog: VecDeque<squeue::Entry>,
    spin: Spin,
    pub(super) counts: DriverCounts,
    /// Descriptor of each emulated receive by op slot, and where its bytes are read to.
    emulated: Vec<Fd>,
    scratch: Vec<u8>,
}

/// `struct io_uring_getevents_arg`.
#[repr(C)]
struct GetEvents {
    sigmask: u64,
    sigmask_size: u32,
    min_wait_usec: u32,
    timeout: u64,
}

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

impl Uring {
    /// Sets up the best ring granted. Must be called on the thread that will use it.
    pub(crate) fn new(spin: Spin) -> io::Result<Self> {
        let parts = setup::climb()?;
        Ok(Self {
            ring: parts.ring,
            buffers: parts.buffers,
            granted: parts.granted,
            enter_flags: ENTER_GETEVENTS | if parts.no_iowait { ENTER_NO_IOWAIT } else { 0 },
            taskrun_flag: parts.taskrun_flag,
            unsubmitted: 0,
            backlog: VecDeque::new(),
            spin,
            counts: DriverCounts::default(),
            emulated: Vec::new(),
            scratch: Vec::new(),
        })
    }

    #[inline]
    pub(crate) fn submit(&mut self, token: Token, request: Request) {
        let entry = self.entry(token, request);
        let is_cancel = matches!(request, Request::Cancel { .. });
        self.push(entry, is_cancel);
    }

    pub(crate) fn turn(&mut self, wait: Wait, mut sink: impl FnMut(Completion<'_>)) -> io::Result<()> {
        self.drain_backlog();
        match wait {
            Wait::None => self.enter(0, None)?,
            Wait::AtMost(_) | Wait::Forever => self.enter_to_wait(wait)?,
        }
        self.reap(&mut sink);
        Ok(())
    }

    pub(crate) fn listen(&self, address: &Address, options: &ListenOptions) -> io::Result<Fd> {
        sys::listen(address, options, false)
    }

    pub(crate) fn socket(&self, address: &Address) -> io::Result<Fd> {
        // Blocking: a non-blocking socket would answer EAGAIN instead of being waited for.
        sys::socket(address, false)
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

    pub(crate) fn shutdown(&self, fd: Fd, both: bool) {
        sys::shutdown(fd, both);
    }

    pub(crate) fn close(&self, fd: Fd, reset: bool) {
        if reset {
            sys::arm_reset(fd);
        }
        sys::close(fd);
    }

    #[inline]
    pub(crate) fn clock(&self) -> u64 {
        sys::clock()
    }

    pub(crate) fn ring_fd(&self) -> Fd {
        use std::os::fd::AsRawFd;
        self.ring.as_raw_fd()
    }

    pub(crate) fn granted(&self) -> Granted {
        self.granted.clone()
    }

    pub(crate) fn counts(&self) -> DriverCounts {
        self.counts
    }

    /// Gives up the buffer ring, as on a kernel before 6.12. For tests of the fallback.
    #[cfg(test)]
    pub(crate) fn without_buffer_ring(mut self) -> Self {
        let _ = self.ring.submitter().unregister_buf_ring(GROUP);
        self.buffers = None;
        self
    }

    fn entry(&mut self, token: Token, request: Request) -> squeue::Entry {
        match request {
            Request::AcceptMulti { fd } => {
                opcode::AcceptMulti::new(types::Fd(fd)).flags(libc::SOCK_CLOEXEC).build().user_data(token)
            }
            Request::Recv { fd, ptr, len } => opcode::Recv::new(types::Fd(fd), ptr, len).build().user_data(token),
            Request::RecvMulti { fd } if self.buffers.is_some() => {
                opcode::RecvMulti::new(types::Fd(fd), GROUP).build().user_data(token)
            }
            Request::RecvMulti { fd } => self.emulated_receive(token, fd),
            Request::Send { fd, ptr, len } => {
                self.counts.sends += 1;
                let flags = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
                opcode::Send::new(types::Fd(fd), ptr, len).flags(flags).build().user_data(token)
            }
            Request::SendMsg { fd, msg } => {
                self.counts.sends += 1;
                let flags = (libc::MSG_WAITALL | libc::MSG_NOSIGNAL) as u32;
                opcode::SendMsg::new(types::Fd(fd), msg).flags(flags).build().user_data(token)
            }
            Request::Connect { fd, addr, len } => {
                opcode::Connect::new(types::Fd(fd), addr.cast(), len).build().user_data(token)
            }
            Request::PollIn { fd } | Request::Readable { fd } => {
                opcode::PollAdd::new(types::Fd(fd), libc::POLLIN as u32).build().user_data(token)
            }
            Request::PollOut { fd } | Request::Writable { fd } => {
                opcode::PollAdd::new(types::Fd(fd), libc::POLLOUT as u32).build().user_data(token)
            }
            Request::Cancel { target } => {
                // An emulated receive bears a mark that its target token lacks.
                let known = self.is_emulated(target);
                let target = if known { target | EMULATED } else { target };
                opcode::AsyncCancel::new(target).build().user_data(IGNORED)
            }
            Request::Doorbell { ring } => opcode::MsgRingData::new(types::Fd(ring), 0, IGNORED, None)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS)
                .user_data(IGNORED),
        }
    }

    fn emulated_receive(&mut self, token: Token, fd: Fd) -> squeue::Entry {
        let slot = token as u32 as usize;
        if self.emulated.len() <= slot {
            self.emulated.resize(slot + 1, -1);
        }
        self.emulated[slot] = fd;
        opcode::PollAdd::new(types::Fd(fd), libc::POLLIN as u32).build().user_data(token | EMULATED)
    }

    fn is_emulated(&self, token: Token) -> bool {
        self.buffers.is_none() && self.emulated.get(token as u32 as usize).is_some_and(|&fd| fd >= 0)
    }

    fn push(&mut self, entry: squeue::Entry, is_cancel: bool) {
        if !self.try_push(&entry, is_cancel) {
            // Full: let the kernel take what is there, then try once more.
            let _ = self.enter(0, None);
            if !self.try_push(&entry, is_cancel) {
                if is_cancel { self.backlog.push_front(entry) } else { self.backlog.push_back(entry) }
            }
        }
    }

    #[inline]
    fn try_push(&mut self, entry: &squeue::Entry, is_cancel: bool) -> bool {
        let mut queue = self.ring.submission();
        let room = queue.capacity() - queue.len();
        if room == 0 || (!is_cancel && room <= RESERVED) {
            return false;
        }
        // SAFETY: the op table keeps what the entry points at alive until the last completion (`driver/mod.rs`).
        let pushed = unsafe { queue.push(entry) }.is_ok();
        self.unsubmitted += u32::from(pushed);
        pushed
    }

    fn drain_backlog(&mut self) {
        while let Some(entry) = self.backlog.pop_front() {
            let is_cancel = entry.get_opcode() == u32::from(opcode::AsyncCancel::CODE);
            if !self.try_push(&entry, is_cancel) {
                self.backlog.push_front(entry);
                return;
            }
        }
    }

    /// Submits, then sleeps until something completes; spins first when that is likely to be soon.
    fn enter_to_wait(&mut self, wait: Wait) -> io::Result<()> {
        let timeout = match wait {
            Wait::AtMost(span) => Some(span),
            Wait::None | Wait::Forever => None,
        };
        if !self.backlog.is_empty() {
            return self.enter(0, None);
        }
        let begun = sys::clock();
        if self.taskrun_flag {
            let work = self.counts.work;
            self.spin.consider(begun, || Tally { time: begun, cpu: crate::thread_cpu_nanos(), work });
            self.counts.spinning = self.spin.worthwhile();
        }
        if self.counts.spinning {
            if self.unsubmitted > 0 {
                self.enter(0, None)?;
            }
            if !self.ring.completion().is_empty() {
                return Ok(());
            }
            if self.spin_until_ready(begun, timeout) {
                self.counts.spins_won += 1;
                self.spin.waited(sys::clock() - begun);
                // What is in the queue already needs no call; deferred work does.
                return if self.ring.completion().is_empty() { self.enter(0, None) } else { Ok(()) };
            }
            self.counts.spins_lost += 1;
        }
        self.enter(1, timeout)?;
        self.spin.waited(sys::clock() - begun);
        Ok(())
    }

    /// Watches the completion queue and the kernel's task-work flag, without a system call.
    fn spin_until_ready(&mut self, begun: u64, timeout: Option<Duration>) -> bool {
        let longest = self.spin.window().min(timeout.map_or(u64::MAX, |span| span.as_nanos() as u64));
        loop {
            for _ in 0..16 {
                if !self.ring.completion().is_empty() || self.ring.submission().taskrun() {
                    return true;
                }
                std::hint::spin_loop();
            }
            if sys::clock() - begun >= longest {
                return false;
            }
        }
    }

    fn enter(&mut self, least: u32, timeout: Option<Duration>) -> io::Result<()> {
        let span = timeout.unwrap_or_default();
        let spec = Timespec { seconds: span.as_secs() as i64, nanoseconds: i64::from(span.subsec_nanos()) };
        let arguments = GetEvents {
            sigmask: 0,
            sigmask_size: 0,
            min_wait_usec: 0,
            timeout: if timeout.is_some() { (&raw const spec) as u64 } else { 0 },
        };
        self.counts.enters += 1;
        // SAFETY: `arguments` and `spec` outlive the call; queued entries are valid (see `try_push`).
        let entered = unsafe {
            let flags = self.enter_flags | ENTER_EXT_ARG;
            self.ring.submitter().enter(self.unsubmitted, least, flags, Some(&arguments))
        };
        match entered {
            Ok(taken) => {
                self.unsubmitted -= taken as u32;
                Ok(())
            }
            Err(error) => match error.raw_os_error() {
                // The wait ended: by its timeout, by a signal, or because completions must be reaped first. With ETIME
                // and EINTR the kernel has taken the submissions, which the queue's own head tells.
                Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => {
                    self.unsubmitted = self.ring.submission().len() as u32;
                    Ok(())
                }
                _ => Err(error),
            },
        }
    }

    fn reap(&mut self, sink: &mut impl FnMut(Completion<'_>)) {
        if self.ring.submission().cq_overflow() {
            self.counts.overflows += 1;
        }
        let Self { ring, buffers, counts, emulated, scratch, .. } = self;
        let mut again = Vec::new();
        for entry in ring.completion() {
            let (token, result, flags) = (entry.user_data(), entry.result(), entry.flags());
            if token >= RESERVED_TOKENS {
                continue;
            }
            if token & EMULATED != 0 {
                again.extend(read_emulated(token & !EMULATED, result, emulated, scratch, counts, sink));
                continue;
            }
            let count = result.max(0) as usize;
            let bytes = buffers.as_ref().map_or(&[][..], |buffers| buffers.bytes(flags, count));
            counts.receives += u64::from(!bytes.is_empty());
            counts.no_buffers += u64::from(result == -libc::ENOBUFS);
            // More to come without bytes is a connection: its result is a descriptor.
            let moved = if bytes.is_empty() && cqueue::more(flags) { 0 } else { count };
            counts.work += u64::from(!bytes.is_empty()) + worth(moved);
            sink(Completion { token, result, more: cqueue::more(flags), bytes });
            if let Some(buffers) = buffers {
                buffers.release(flags, count);
            }
        }
        for (token, fd) in again {
            let entry = self.emulated_receive(token, fd);
            self.push(entry, false);
        }
    }
}

/// A poll that stands in for a receive has completed: read once. Returns what must be polled again.
fn read_emulated(
    token: Token,
    result: i32,
    emulated: &mut [Fd],
    scratch: &mut Vec<u8>,
    counts: &mut DriverCounts,
    sink: &mut impl FnMut(Completion<'_>),
) -> Option<(Token, Fd)> {
    let fd = std::mem::replace(&mut emulated[token as u32 as usize], -1);
    if result < 0 {
        sink(Completion { token, result, more: false, bytes: &[] });
        return None;
    }
    scratch.resize(64 << 10, 0);
    // SAFETY: the socket is open while its operation is in flight, and `scratch` is valid for its length.
    let count = unsafe { libc::recv(fd, scratch.as_mut_ptr().cast(), scratch.len(), libc::MSG_DONTWAIT) };
    counts.calls += 1;
    if count < 0 {
        let error = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO);
        if error == libc::EAGAIN || error == libc::EINTR {
            return Some((token, fd));
        }
        sink(Completion { token, result: -error, more: false, bytes: &[] });
        return None;
    }
    counts.receives += 1;
    counts.work += 1 + worth(count as usize);
    sink(Completion { token, result: count as i32, more: false, bytes: &scratch[..count as usize] });
    None
}
