//! Waits for descriptors that are not sockets of ours: a signalfd, the reactor's own bell.

use super::Table;
use crate::driver::{Fd, Request};
use crate::exec::{Exec, TaskRef};
use crate::op::{Owned, Purpose};

pub(super) struct WaitSlot {
    task: TaskRef,
    result: Option<i32>,
}

impl Table {
    pub(crate) fn wait_readable(&mut self, fd: Fd, task: TaskRef) -> u32 {
        let wait = self.waits.insert(WaitSlot { task, result: None });
        let op = self.ops.begin(Purpose::Poll { wait }, Owned::Nothing);
        self.todo.requests.push((op.token(), Request::PollIn { fd }));
        wait
    }

    /// The result of a wait that has ended; the wait is forgotten then.
    pub(crate) fn wait_result(&mut self, wait: u32) -> Option<i32> {
        let result = self.waits.get(wait).result?;
        self.waits.remove(wait);
        Some(result)
    }

    /// Asks to be told, by `bell_rang`, when `fd` becomes readable.
    pub(crate) fn hang_bell(&mut self, fd: Fd) {
        let op = self.ops.begin(Purpose::Bell, Owned::Nothing);
        self.todo.requests.push((op.token(), Request::PollIn { fd }));
    }

    pub(super) fn wait_ended(&mut self, wait: u32, result: i32, exec: &Exec) {
        let slot = self.waits.get_mut(wait);
        slot.result = Some(result);
        exec.wake(slot.task);
    }
}
