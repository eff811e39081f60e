//! Steering as one worker sees it: what it tells the programs, and whom it hands connections over to.

use std::cell::{Cell, OnceCell};

use ring::Socket;

use super::load::burden;
use super::{Neighbours, Seat};
use crate::telemetry::Counters;

/// One worker's part. Without seats and neighbours, every connection is kept where it was accepted.
#[derive(Default)]
pub struct Local {
    /// By listening socket.
    seats: Vec<Seat>,
    neighbours: OnceCell<Neighbours>,
    told: Cell<u64>,
}

impl Local {
    #[must_use]
    pub fn new(seats: Vec<Seat>) -> Self {
        Self { seats, ..Self::default() }
    }

    /// From now on connections may be handed over.
    pub fn meet(&self, neighbours: Neighbours) {
        // A worker meets its neighbours once.
        let _ = self.neighbours.set(neighbours);
    }

    /// A connection was accepted at `gate`: it is kept, or has gone to another worker, which `connections_max` holds for too.
    pub fn accepted(&self, gate: usize, socket: Socket, connections_max: usize) -> Option<Socket> {
        if let Some(seat) = self.seats.get(gate) {
            seat.take();
        }
        match self.neighbours.get() {
            Some(neighbours) => neighbours.keep(gate, socket, connections_max),
            None => Some(socket),
        }
    }

    /// A turn has ended: tells the programs what there is to do now, if it is something else than before.
    pub fn turned(&self, counters: &Counters) {
        if let Some(neighbours) = self.neighbours.get() {
            neighbours.turned();
        }
        let load = burden(counters);
        if self.told.replace(load) != load {
            self.seats.iter().for_each(|seat| seat.tell(load));
        }
    }

    /// Expects no more what has not come for a while. Once a second or so.
    pub fn forgive(&self) {
        self.seats.iter().for_each(Seat::forgive);
    }
}
