//! One tier's endpoints as a policy sees them for one request.

use super::{Ask, Endpoints, Load, Standing};

/// An endpoint's place in its tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seat {
    /// Hash of its name: what it is known by when members change, and in the tables of the hashing policies.
    pub(super) id: u64,
    /// Which of [`Endpoints`] it is.
    pub(super) index: usize,
    pub(super) weight: u32,
}

/// Seats are numbered from 0 within the tier.
pub(super) struct Candidates<'a, E> {
    pub(super) endpoints: &'a E,
    pub(super) seats: &'a [Seat],
    pub(super) ask: &'a Ask,
    /// Health verdicts are set aside.
    pub(super) panic: bool,
    /// Weight of all that may be asked, at the last census.
    pub(super) open: u64,
}

impl<E: Endpoints> Candidates<'_, E> {
    pub(super) fn len(&self) -> usize {
        self.seats.len()
    }

    /// Whether this request may go to a seat.
    pub(super) fn eligible(&self, seat: usize) -> bool {
        let Seat { index, weight, .. } = self.seats[seat];
        let serves = || match self.endpoints.standing(index) {
            Standing::Ready => true,
            Standing::Suspect => self.panic,
            Standing::Down | Standing::Draining | Standing::Full | Standing::Out => false,
        };
        let trusted = || !self.ask.wary || !self.endpoints.load(index).is_doubtful();
        weight > 0 && !self.ask.avoid.contains(index) && serves() && trusted()
    }

    pub(super) fn load(&self, seat: usize) -> Load {
        self.endpoints.load(self.seats[seat].index)
    }

    /// In (0, 1], whatever the caller says.
    pub(super) fn ramp(&self, seat: usize) -> f64 {
        let ramp = f64::from(self.endpoints.ramp(self.seats[seat].index));
        if ramp < 1.0 { ramp.max(1e-6) } else { 1.0 }
    }

    /// The weight that counts now.
    pub(super) fn weight(&self, seat: usize) -> f64 {
        f64::from(self.seats[seat].weight) * self.ramp(seat)
    }

    /// Requests out at the whole tier.
    pub(super) fn in_flight(&self) -> u64 {
        if self.seats.len() == self.endpoints.len() {
            return self.endpoints.in_flight();
        }
        self.seats.iter().map(|seat| u64::from(self.endpoints.load(seat.index).in_flight)).sum()
    }
}
