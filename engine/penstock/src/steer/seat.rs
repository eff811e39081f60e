//! A worker's line in the array that its group's program reads.
//!
//! The program adds to *given* when it chooses the worker; the worker adds to *taken* when it accepts. What lies between the two is on its
//! way, and counts as load at once: a burst of SYNs so spreads though no worker has noticed any of them. Not all that is given
//! comes: clients leave in the handshake, and with SYN cookies the program is asked twice. What has been outstanding throughout
//! a whole period is therefore not expected any more ([`Seat::forgive`]).

use std::cell::Cell;
use std::sync::Arc;

use abi::{SEAT_GIVEN, SEAT_LOAD, SEAT_TAKEN, SEAT_WORDS};
use ring::SharedWords;

/// One group's line of one worker; nothing is told where the group has no program.
pub struct Seat {
    words: Option<Arc<SharedWords>>,
    base: usize,
    taken: Cell<u64>,
    /// The fewest connections that were outstanding since the last time that some were forgiven.
    fewest: Cell<u64>,
}

impl Seat {
    #[must_use]
    pub fn new(words: Option<&Arc<SharedWords>>, worker: usize) -> Self {
        Self { words: words.cloned(), base: worker * SEAT_WORDS, taken: Cell::new(0), fewest: Cell::new(0) }
    }

    /// What the worker has to do ([`super::burden`]).
    #[inline]
    pub fn tell(&self, load: u64) {
        if let Some(words) = &self.words {
            words.set(self.base + SEAT_LOAD, load);
        }
    }

    /// A connection was accepted.
    pub fn take(&self) {
        let Some(words) = &self.words else { return };
        // One that was forgiven and came all the same was counted already.
        let given = words.get(self.base + SEAT_GIVEN);
        self.set_taken(words, (self.taken.get() + 1).min(given));
        self.fewest.set(self.fewest.get().min(given.saturating_sub(self.taken.get())));
    }

    /// Forgets what has been outstanding throughout since the last call. Once a second or so.
    pub fn forgive(&self) {
        let Some(words) = &self.words else { return };
        let outstanding = words.get(self.base + SEAT_GIVEN).saturating_sub(self.taken.get());
        let gone = self.fewest.get().min(outstanding);
        self.set_taken(words, self.taken.get() + gone);
        // A period begins: what came a moment ago may yet be taken in it.
        self.fewest.set(outstanding - gone);
    }

    fn set_taken(&self, words: &SharedWords, taken: u64) {
        self.taken.set(taken);
        words.set(self.base + SEAT_TAKEN, taken);
    }
}
