//! Tasks that end with their owner: the ring has no join handles, and traffic must not outlive who asked for it.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use ring::TaskRef;

/// Tasks of one owner. Dropping it ends them all in the ring's next round.
pub(crate) struct Group {
    members: Rc<Members>,
}

#[derive(Default)]
struct Members {
    stopped: Cell<bool>,
    /// By seat, so that a short-lived member costs no search.
    tasks: RefCell<Vec<Option<TaskRef>>>,
    free: RefCell<Vec<usize>>,
    live: Cell<usize>,
}

impl Group {
    pub(crate) fn new() -> Self {
        Self { members: Rc::default() }
    }

    /// Starts a task that ends with the group at the latest.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        let members = Rc::clone(&self.members);
        let seat = members.free.borrow_mut().pop().unwrap_or_else(|| {
            members.tasks.borrow_mut().push(None);
            members.tasks.borrow().len() - 1
        });
        members.live.set(members.live.get() + 1);
        let seated = Seat { members, seat };
        let task = ring::spawn(async move {
            let members = &seated.members;
            let mut future = pin!(future);
            poll_fn(|cx| if members.stopped.get() { Poll::Ready(()) } else { future.as_mut().poll(cx) }).await;
        });
        self.members.tasks.borrow_mut()[seat] = Some(task);
    }

    /// Members that have not ended.
    pub(crate) fn live(&self) -> usize {
        self.members.live.get()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.members.stopped.set(true);
        for task in self.members.tasks.borrow().iter().flatten() {
            ring::wake(*task);
        }
    }
}

/// Given back when its task ends, however that happens.
struct Seat {
    members: Rc<Members>,
    seat: usize,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.members.tasks.borrow_mut()[self.seat] = None;
        self.members.free.borrow_mut().push(self.seat);
        self.members.live.set(self.members.live.get() - 1);
    }
}
