//! How a connection leaves a ring for another one: nothing of this ring's may touch it any more, and nothing may have been taken from it.

use std::task::Poll;

use super::Table;
use crate::driver::Fd;
use crate::exec::TaskRef;

impl Table {
    /// Takes out a connection on which nothing moves, once the receive that watched it has ended: `task` is woken then. `None`: something has
    /// arrived or gone wrong, or is still to be sent; it stays where it is.
    pub(crate) fn detach(&mut self, stream: u32, task: TaskRef) -> Poll<Option<Fd>> {
        let quiet = self.is_quiet(stream);
        let slot = self.streams.get_mut(stream);
        if !quiet || slot.unsent > 0 || !slot.send_op.is_none() {
            slot.flags.leaving = false;
            return Poll::Ready(None);
        }
        if slot.recv_op.is_none() {
            let fd = slot.fd;
            self.streams.remove(stream);
            return Poll::Ready(Some(fd));
        }
        slot.flags.leaving = true;
        slot.recv_task = task;
        self.cancel_recv(stream);
        Poll::Pending
    }
}
