//! A connection that is no ring's at the moment, and may move to another thread's.

use std::os::fd::{FromRawFd, OwnedFd};

use super::Stream;
use crate::driver::Fd;
use crate::reactor;

/// A connection between its acceptance and its first operation, or [detached](Stream::detach) from a ring. Dropping it closes it.
///
/// It goes to another thread by mail, and becomes a [`Stream`] of that thread's ring with [`Socket::into_stream`]. Both rings must have
/// the same driver: sockets of the one block, those of the other do not.
#[derive(Debug)]
pub struct Socket {
    fd: Fd,
    /// The kernel's, and not a simulated one, which is its ring's to close.
    real: bool,
}

impl Socket {
    pub(crate) fn new(fd: Fd, real: bool) -> Self {
        Self { fd, real }
    }

    /// The connection as a stream of this thread's ring.
    #[must_use]
    pub fn into_stream(self) -> Stream {
        let fd = self.fd;
        std::mem::forget(self);
        reactor::with(|reactor| Stream::new(reactor.table.borrow_mut().add_stream(fd)))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.real {
            // SAFETY: the descriptor is this value's own, and no ring knows of it.
            drop(unsafe { OwnedFd::from_raw_fd(self.fd) });
        } else {
            reactor::try_with(|reactor| reactor.table.borrow_mut().todo.closes.push((self.fd, false)));
        }
    }
}
