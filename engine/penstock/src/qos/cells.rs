//! What this room counts: by class, by route and by pool, a set of cells a worker.

use crate::snapshot::Snapshot;
use crate::telemetry::{Cell, Histogram};

/// One worker's counts. Each cell has one writer.
#[derive(Debug)]
pub struct QosCells {
    /// In the snapshot's order.
    pub classes: Box<[ClassCells]>,
    /// Requests that a limit of the route turned away.
    pub limited: Box<[Cell]>,
    pub pools: Box<[PoolCells]>,
}

/// What became of the requests of a class.
#[derive(Debug, Default)]
pub struct ClassCells {
    pub requests: Cell,
    /// How long those waited that had to, for a place in a pool, ns.
    pub waits: Histogram,
    /// Turned away: the queue was as long as it may be.
    pub full: Cell,
    /// Turned away: the queue stood, and they had waited longest.
    pub codel: Cell,
    /// Turned away: there was no time left to serve them.
    pub deadline: Cell,
    /// Left while they waited.
    pub left: Cell,
    /// Had to wait for their turn because of a pace.
    pub paced: Cell,
    /// Turned away: their turn was too far off.
    pub crowded: Cell,
    /// Content that went at a pace.
    pub paced_bytes: Cell,
}

/// A pool, as one worker sees it.
#[derive(Debug, Default)]
pub struct PoolCells {
    /// How many requests it may work on; of a limit that is found, this worker's.
    pub limit: Cell,
    pub in_flight: Cell,
    pub waiting: Cell,
}

impl QosCells {
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        Self {
            classes: snapshot.classes.iter().map(|_| ClassCells::default()).collect(),
            limited: snapshot.routes.iter().map(|_| Cell::default()).collect(),
            pools: snapshot.pools.iter().map(|_| PoolCells::default()).collect(),
        }
    }
}
