//! One attempt of each operation on the reading side: receives, accepts, polls.

use std::io;

use super::places::{Descriptor, Op, Side};
use super::watch::WATCHED;
use super::{Epoll, SCRATCH, Tried, check, negative};
use crate::driver::{Completion, Fd, Request, Token};

/// Receives of one descriptor in a turn (256 KiB) before the others have theirs.
pub(super) const RECEIVES_A_TURN: u32 = 4;

/// Connections accepted from one listener in a turn before the others have theirs.
const ACCEPTS_A_TURN: u32 = 64;

impl Epoll {
    pub(super) fn try_recv(&mut self, fd: Fd, ptr: *mut u8, len: u32) -> Tried {
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

    pub(super) fn try_recv_multi(&mut self, fd: Fd, token: Token, sink: &mut impl FnMut(Completion<'_>)) -> Tried {
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

    pub(super) fn try_accept(&mut self, fd: Fd, token: Token, sink: &mut impl FnMut(Completion<'_>)) -> Tried {
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

    /// Polling asks anew each time, because the owner reads or writes the descriptor itself and the hint knows nothing of that.
    pub(super) fn try_poll(&mut self, fd: Fd, op: Op, side: Side) -> Tried {
        let (hint, event) = self.hint(fd, side);
        if op.progress == 1 {
            return if *hint { Tried::Done(event) } else { Tried::Waits };
        }
        *hint = false;
        self.advance(fd, side, 1);
        let events = self.polled(fd);
        self.ask(fd, events)
    }

    /// As [`try_poll`](Self::try_poll), of a stream: other operations wait for it too, and go on being told.
    pub(super) fn try_ready(&mut self, fd: Fd, op: Op, side: Side) -> Tried {
        let (hint, event) = self.hint(fd, side);
        if op.progress == 1 {
            return if *hint { Tried::Done(event) } else { Tried::Waits };
        }
        *hint = false;
        self.advance(fd, side, 1);
        self.ask(fd, WATCHED)
    }

    fn hint(&mut self, fd: Fd, side: Side) -> (&mut bool, i32) {
        let descriptor = &mut self.descriptors[fd as usize];
        match side {
            Side::Read => (&mut descriptor.readable, libc::EPOLLIN),
            Side::Write => (&mut descriptor.writable, libc::EPOLLOUT),
        }
    }

    /// What is polled for on `fd`: a poll of one side must not take the other side's away.
    fn polled(&self, fd: Fd) -> u32 {
        let Descriptor { read, write, .. } = &self.descriptors[fd as usize];
        let reads = matches!(read, Some(Op { request: Request::PollIn { .. }, .. }));
        let writes = matches!(write, Some(Op { request: Request::PollOut { .. }, .. }));
        let events = if reads { libc::EPOLLIN } else { 0 } | if writes { libc::EPOLLOUT } else { 0 };
        (events | libc::EPOLLET) as u32
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
