//! The epoll set: what descriptors are watched for, and the hints that their events leave.

use std::os::fd::AsRawFd;

use super::{Epoll, Tried, check, negative};
use crate::driver::Fd;

/// What every stream and listener is watched for. `EPOLLPRI` and `EPOLLRDHUP` say that a short read may not be the last.
pub(super) const WATCHED: u32 =
    (libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLPRI | libc::EPOLLET) as u32;
const READS: u32 = (libc::EPOLLIN | libc::EPOLLRDHUP | libc::EPOLLPRI | libc::EPOLLHUP | libc::EPOLLERR) as u32;
const WRITES: u32 = (libc::EPOLLOUT | libc::EPOLLHUP | libc::EPOLLERR) as u32;
const CAREFUL: u32 = (libc::EPOLLRDHUP | libc::EPOLLPRI | libc::EPOLLHUP | libc::EPOLLERR) as u32;

impl Epoll {
    pub(super) fn note(&mut self, fd: Fd, events: u32) {
        let descriptor = &mut self.descriptors[fd as usize];
        descriptor.readable |= events & READS != 0;
        descriptor.writable |= events & WRITES != 0;
        descriptor.careful |= events & CAREFUL != 0;
    }

    /// Puts `fd` into the epoll set, which reports at once what it is ready for already.
    pub(super) fn watch(&mut self, fd: Fd) -> Tried {
        if self.descriptors[fd as usize].watched {
            return Tried::Waits;
        }
        self.control(libc::EPOLL_CTL_ADD, fd, WATCHED)
    }

    /// Has what `fd` is ready for reported anew.
    pub(super) fn ask(&mut self, fd: Fd, events: u32) -> Tried {
        let watched = self.descriptors[fd as usize].watched;
        self.control(if watched { libc::EPOLL_CTL_MOD } else { libc::EPOLL_CTL_ADD }, fd, events)
    }

    pub(super) fn control(&mut self, operation: i32, fd: Fd, events: u32) -> Tried {
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
