//! Connections that move to another worker before anybody has touched them.
//!
//! Each worker has a mailbox from each other one. What has been accepted goes into the least loaded worker's as a [`Socket`], and becomes a
//! stream of that one's ring. Letters on their way count as load of whoever they are for.

use std::cell::Cell;
use std::sync::Arc;

use abi::NEWCOMER_LOAD;
use ring::{Receiver, Sender, Socket};

use super::load::{burden, receiver};
use crate::limits;
use crate::telemetry::WorkerCells;

/// A connection that changes hands.
#[derive(Debug)]
pub struct Handed {
    /// Where it came in: the number of a [`Place`](super::Place).
    pub gate: u64,
    pub socket: Socket,
}

/// Where a worker gets what another one hands over.
pub type Inbox = Receiver<Handed>;

/// The sending ends of one worker's mailboxes, by the worker that sends; `None` at its own place.
pub type Inboxes = Vec<Option<Sender<Handed>>>;

/// A worker's view of the others.
pub struct Neighbours {
    own: usize,
    /// By worker.
    to: std::cell::RefCell<Inboxes>,
    cells: Vec<Arc<WorkerCells>>,
    /// Connections accepted in this turn: the counters know of them from the next one on.
    fresh: Cell<u64>,
}

impl Neighbours {
    /// Mailboxes of worker `own`, made on its own thread.
    #[must_use]
    pub fn inboxes(own: usize, workers: usize) -> (Inboxes, Vec<Inbox>) {
        let mut inboxes = Vec::new();
        let senders = (0..workers)
            .map(|from| {
                (from != own).then(|| {
                    let (sender, receiver) = ring::mailbox(limits::HANDED_OVER_MAX);
                    inboxes.push(receiver);
                    sender
                })
            })
            .collect();
        (senders, inboxes)
    }

    /// `to` holds the sending ends to each worker, and `cells` are everybody's.
    #[must_use]
    pub fn new(own: usize, to: Inboxes, cells: Vec<Arc<WorkerCells>>) -> Self {
        Self { own, to: std::cell::RefCell::new(to), cells, fresh: Cell::new(0) }
    }

    /// A turn has ended: what was accepted in it is counted.
    pub fn turned(&self) {
        self.fresh.set(0);
    }

    /// Keeps a connection that was accepted at `gate`, or hands it over: `None`. Nobody gets more than `connections_max` that way.
    pub fn keep(&self, gate: u64, socket: Socket, connections_max: usize) -> Option<Socket> {
        self.fresh.set(self.fresh.get() + 1);
        let mut to = self.to.borrow_mut();
        let loads = self.cells.iter().zip(to.iter()).map(|(cells, to)| {
            let coming = to.as_ref().map_or(self.fresh.get(), |to| to.waiting() as u64);
            burden(&cells.counters) + coming * NEWCOMER_LOAD
        });
        let Some(worker) = receiver(loads, self.own) else { return Some(socket) };
        if self.cells[worker].counters.connections_open.get() >= connections_max as u64 {
            return Some(socket);
        }
        let Some(sender) = &mut to[worker] else { return Some(socket) };
        match sender.send(Handed { gate, socket }) {
            Ok(()) => {
                self.fresh.set(self.fresh.get() - 1);
                self.cells[self.own].counters.handed_over_total.add(1);
                None
            }
            Err(kept) => Some(kept.socket),
        }
    }
}
