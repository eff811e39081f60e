//! When breakers of routes turned, and why.

use std::cell::{Cell, RefCell};

use policy::Now;

use super::{Breaker, Note};
use crate::snapshot::{RouteId, Snapshot};
use crate::upstream::Breakers;

/// One route that has a breaker.
pub(super) struct Guarded {
    name: Box<str>,
    route: RouteId,
    breaker: Cell<Breaker>,
    last: RefCell<Note>,
}

impl Guarded {
    /// Every route that has one.
    pub(super) fn all(snapshot: &Snapshot, now: Now) -> Box<[Self]> {
        let routes = snapshot.routes.iter().enumerate().filter(|(_, route)| route.breaker.is_some());
        let guarded = |(at, route): (usize, &crate::snapshot::Route)| Self {
            name: route.name.clone(),
            route: RouteId(at as u16),
            breaker: Cell::default(),
            last: RefCell::new(Note { at: now, text: "nothing yet".into() }),
        };
        routes.map(guarded).collect()
    }

    pub(super) const fn is_of(&self, route: RouteId) -> bool {
        self.route.0 == route.0
    }

    pub(super) fn last(&self) -> Note {
        self.last.borrow().clone()
    }

    /// Notes what workers have decided since the last look.
    pub(super) fn look(&self, breakers: &Breakers, now: Now) {
        let Some(shared) = breakers.of(self.route) else { return };
        let sums = shared.sums();
        let breaker = Breaker::of(sums.open, sums.half_open);
        if self.breaker.replace(breaker) != breaker {
            self.note(breaker.told(sums.open, sums.workers), now);
        }
    }

    pub(super) fn note(&self, text: String, now: Now) {
        eprintln!("penstock: route `{}`: {text}", self.name);
        self.last.replace(Note { at: now, text });
    }
}
