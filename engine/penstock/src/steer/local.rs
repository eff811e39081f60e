//! Steering as one worker sees it: what it tells the programs, and whom it hands connections over to.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use ring::Socket;

use super::load::burden;
use super::{Neighbours, Place, Seat};
use crate::telemetry::Counters;

/// One worker's part. Without seats and neighbours, every connection is kept where it was accepted.
#[derive(Default)]
pub struct Local {
    /// Of listening sockets that are open.
    seats: RefCell<Vec<Rc<Seat>>>,
    neighbours: OnceCell<Neighbours>,
    told: Cell<u64>,
}

/// What a listening socket of this worker has of its group.
pub struct Steered {
    /// Of its [`Place`].
    pub gate: u64,
    seat: Rc<Seat>,
    local: Rc<Local>,
}

impl Local {
    /// Takes its place in the group of a listening address.
    #[must_use]
    pub fn sit(self: &Rc<Self>, place: &Place, worker: usize) -> Steered {
        let seat = Rc::new(Seat::new(place.words.as_ref(), worker));
        seat.tell(self.told.get());
        self.seats.borrow_mut().push(Rc::clone(&seat));
        Steered { gate: place.gate, seat, local: Rc::clone(self) }
    }

    /// From now on connections may be handed over.
    pub fn meet(&self, neighbours: Neighbours) {
        // A worker meets its neighbours once.
        let _ = self.neighbours.set(neighbours);
    }

    /// A turn has ended: tells the programs what there is to do now, if it is something else than before.
    pub fn turned(&self, counters: &Counters) {
        if let Some(neighbours) = self.neighbours.get() {
            neighbours.turned();
        }
        let load = burden(counters);
        if self.told.replace(load) != load {
            self.seats.borrow().iter().for_each(|seat| seat.tell(load));
        }
    }

    /// Expects no more what has not come for a while, and forgets seats whose socket is closed. Once a second or so.
    pub fn forgive(&self) {
        let mut seats = self.seats.borrow_mut();
        seats.retain(|seat| Rc::strong_count(seat) > 1);
        seats.iter().for_each(|seat| seat.forgive());
    }
}

impl Steered {
    /// A connection was accepted: it is kept, or has gone to another worker, which `connections_max` holds for too.
    pub fn accepted(&self, socket: Socket, connections_max: usize) -> Option<Socket> {
        self.seat.take();
        match self.local.neighbours.get() {
            Some(neighbours) => neighbours.keep(self.gate, socket, connections_max),
            None => Some(socket),
        }
    }
}
