//! Listening sockets: what they have accepted and nobody has taken yet.

use std::collections::VecDeque;
use std::io;

use super::Table;
use crate::driver::{Completion, Fd, Request};
use crate::exec::{Exec, TaskRef};
use crate::op::{OpId, Owned, Purpose};

/// Accepted connections that nobody has taken yet; beyond this the kernel's own queue holds them.
const ACCEPTED_MAX: usize = 256;

pub(super) struct ListenerSlot {
    fd: Fd,
    op: OpId,
    task: TaskRef,
    accepted: VecDeque<Fd>,
    error: i32,
    owned: bool,
    cancelling: bool,
    /// Accepts no more; what has been accepted may still be taken.
    stopped: bool,
}

impl Table {
    pub(crate) fn add_listener(&mut self, fd: Fd) -> u32 {
        self.listeners.insert(ListenerSlot {
            fd,
            op: OpId::NONE,
            task: TaskRef::NONE,
            accepted: VecDeque::new(),
            error: 0,
            owned: true,
            cancelling: false,
            stopped: false,
        })
    }

    pub(crate) fn listener_fd(&self, listener: u32) -> Fd {
        self.listeners.get(listener).fd
    }

    /// Takes the next accepted connection. `None`: none yet; `task` is woken.
    pub(crate) fn accept(&mut self, listener: u32, task: TaskRef) -> Option<io::Result<Fd>> {
        let slot = self.listeners.get_mut(listener);
        if let Some(fd) = slot.accepted.pop_front() {
            return Some(Ok(fd));
        }
        if slot.error != 0 {
            return Some(Err(io::Error::from_raw_os_error(std::mem::take(&mut slot.error))));
        }
        if slot.stopped && slot.op.is_none() {
            return Some(Err(io::ErrorKind::NotConnected.into()));
        }
        slot.task = task;
        if slot.op.is_none() {
            slot.cancelling = false;
            slot.op = self.ops.begin(Purpose::Accept { listener }, Owned::Nothing);
            self.todo.requests.push((slot.op.token(), Request::AcceptMulti { fd: slot.fd }));
        }
        None
    }

    /// Accepts no more. [`accept`](Self::accept) hands out what was accepted already, then says `NotConnected`.
    pub(crate) fn stop_listener(&mut self, listener: u32) {
        let slot = self.listeners.get_mut(listener);
        slot.stopped = true;
        if !slot.op.is_none() && !slot.cancelling {
            slot.cancelling = true;
            self.todo.requests.push((0, Request::Cancel { target: slot.op.token() }));
        }
    }

    pub(crate) fn abandon_listener(&mut self, listener: u32) {
        let slot = self.listeners.get_mut(listener);
        slot.owned = false;
        slot.task = TaskRef::NONE;
        for fd in slot.accepted.drain(..) {
            self.todo.closes.push((fd, false));
        }
        if slot.op.is_none() {
            self.todo.closes.push((slot.fd, false));
            self.listeners.remove(listener);
        } else if !slot.cancelling {
            slot.cancelling = true;
            self.todo.requests.push((0, Request::Cancel { target: slot.op.token() }));
        }
    }

    pub(super) fn accepted(&mut self, listener: u32, completion: &Completion<'_>, exec: &Exec) {
        let slot = self.listeners.get_mut(listener);
        if !completion.more {
            slot.op = OpId::NONE;
        }
        if !slot.owned {
            if completion.result >= 0 {
                self.todo.closes.push((completion.result, false));
            }
            if slot.op.is_none() {
                self.todo.closes.push((slot.fd, false));
                self.listeners.remove(listener);
            }
            return;
        }
        match completion.result {
            fd @ 0.. => slot.accepted.push_back(fd),
            error if error == -libc::ECANCELED => {}
            error => slot.error = -error,
        }
        if slot.accepted.len() >= ACCEPTED_MAX && !slot.op.is_none() && !slot.cancelling {
            slot.cancelling = true;
            self.todo.requests.push((0, Request::Cancel { target: slot.op.token() }));
        }
        exec.wake(std::mem::replace(&mut slot.task, TaskRef::NONE));
    }
}
