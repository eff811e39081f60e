//! How a stream is spliced: nothing receives on it or sends on it then, and it is asked when it has something, or room.

use super::Table;
use crate::driver::Request;
use crate::exec::{Exec, TaskRef};
use crate::op::{OpId, Owned, Purpose};

impl Table {
    /// Whether nothing receives on the stream and all that was received has been taken. Ends what receives; `task` is woken then, and when late
    /// bytes have come.
    pub(crate) fn is_settled(&mut self, stream: u32, task: TaskRef) -> bool {
        let slot = self.streams.get_mut(stream);
        slot.flags.leaving = !slot.recv_op.is_none();
        if slot.flags.leaving {
            slot.recv_task = task;
            self.cancel_recv(stream);
            return false;
        }
        slot.inbox.is_empty()
    }

    /// Whether the kernel has said that a receive would not wait; once for each time that it has. Asks it, and remembers `task`, if not.
    ///
    /// The stream is [settled](Self::is_settled).
    pub(crate) fn has_arrived(&mut self, stream: u32, task: TaskRef) -> bool {
        let slot = self.streams.get_mut(stream);
        if std::mem::take(&mut slot.flags.arrived) {
            return true;
        }
        slot.recv_task = task;
        if slot.recv_op.is_none() {
            slot.flags.cancelling_recv = false;
            slot.recv_op = self.ops.begin(Purpose::Arrived { stream }, Owned::Nothing);
            self.todo.requests.push((slot.recv_op.token(), Request::Readable { fd: slot.fd }));
        }
        false
    }

    /// As [`has_arrived`](Self::has_arrived), of room to send. Nothing of the stream's own is unsent.
    pub(crate) fn has_room(&mut self, stream: u32, task: TaskRef) -> bool {
        let slot = self.streams.get_mut(stream);
        if std::mem::take(&mut slot.flags.room) {
            return true;
        }
        slot.send_task = task;
        if slot.send_op.is_none() {
            slot.send_op = self.ops.begin(Purpose::Room { stream }, Owned::Nothing);
            self.todo.requests.push((slot.send_op.token(), Request::Writable { fd: slot.fd }));
        }
        false
    }

    pub(super) fn told_of_arrival(&mut self, stream: u32, exec: &Exec) {
        let slot = self.streams.get_mut(stream);
        slot.recv_op = OpId::NONE;
        if !slot.flags.owned {
            return self.close_if_at_rest(stream);
        }
        // Whatever it said: a call will tell.
        slot.flags.arrived = true;
        exec.wake(std::mem::replace(&mut slot.recv_task, TaskRef::NONE));
    }

    pub(super) fn told_of_room(&mut self, stream: u32, exec: &Exec) {
        let slot = self.streams.get_mut(stream);
        slot.send_op = OpId::NONE;
        if !slot.flags.owned {
            return self.close_if_at_rest(stream);
        }
        slot.flags.room = true;
        exec.wake(std::mem::replace(&mut slot.send_task, TaskRef::NONE));
    }
}
