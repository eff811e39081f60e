//! What the hashing policies share: from a key's order of preference to an endpoint.
//!
//! The first that may be asked and has room gets it. Room is bounded load (Mirrokni, Thorup, Zadimoghaddam, "Consistent
//! Hashing with Bounded Loads", 2017): nobody has more than `bound` times the mean of requests out, so that one popular key
//! cannot drown its endpoint, and what is over goes to the next of the same key's order. An endpoint in its slow start takes
//! a key with its factor's probability, decided by the key: a key that it has taken stays as the factor grows.

use super::{Endpoints, candidates::Candidates, candidates::Seat};
use crate::hash::{mix, unit};

/// Places of the order of preference that are looked at. With half of the endpoints away, all miss once in 2^32.
pub(super) const PROBES: usize = 32;

/// Seats in an order that does not depend on the list's: tables hold ranks, and every machine gives the same seat the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ranks {
    by_id: Box<[(u64, u32)]>,
    seats: Box<[u16]>,
}

impl Ranks {
    pub(super) fn new(seats: &[Seat]) -> Self {
        let bearing = seats.iter().enumerate().take(usize::from(u16::MAX)).filter(|(_, seat)| seat.weight > 0);
        let mut order: Vec<_> = bearing.map(|(place, seat)| (seat.id, seat.weight, place as u16)).collect();
        order.sort_unstable();
        Self {
            by_id: order.iter().map(|&(id, weight, _)| (id, weight)).collect(),
            seats: order.iter().map(|&(_, _, place)| place).collect(),
        }
    }

    /// `(id, weight)` of those that bear weight, by id: all that a table may depend on.
    pub(super) fn by_id(&self) -> &[(u64, u32)] {
        &self.by_id
    }

    pub(super) fn seat(&self, rank: u16) -> usize {
        usize::from(self.seats[usize::from(rank)])
    }
}

/// The seat for a key. `order` is its order of preference; `bound_percent` of zero is no bound.
pub(super) fn choose(
    candidates: &Candidates<'_, impl Endpoints>,
    key: u64,
    bound_percent: u16,
    order: impl Iterator<Item = usize>,
) -> Option<usize> {
    let room = Room::new(candidates, bound_percent);
    let takes = |seat| room.has(candidates, seat) && warm(candidates, key, seat);
    let mut over = None;
    for seat in order.take(PROBES).filter(|&seat| candidates.eligible(seat)) {
        if takes(seat) {
            return Some(seat);
        }
        over = over.or(Some(seat));
    }
    // Nobody has room: better the bound is broken than the key's home, or the request.
    rendezvous(candidates, key, takes).or(over).or_else(|| rendezvous(candidates, key, |_| true))
}

/// Highest random weight (Thaler, Ravishankar 1998): looks at all, and each key finds the same one among those left.
fn rendezvous(candidates: &Candidates<'_, impl Endpoints>, key: u64, takes: impl Fn(usize) -> bool) -> Option<usize> {
    let usable = (0..candidates.len()).filter(|&seat| candidates.eligible(seat) && takes(seat));
    usable.max_by_key(|&seat| (mix(key ^ candidates.seats[seat].id), candidates.seats[seat].id))
}

fn warm(candidates: &Candidates<'_, impl Endpoints>, key: u64, seat: usize) -> bool {
    let ramp = candidates.ramp(seat);
    ramp >= 1.0 || unit(mix(key.rotate_left(32) ^ candidates.seats[seat].id)) < ramp
}

/// How many requests each may have out.
struct Room {
    /// `bound × (requests out + this one)`, in percent; `None`: no bound.
    percent: Option<u128>,
}

impl Room {
    fn new(candidates: &Candidates<'_, impl Endpoints>, bound_percent: u16) -> Self {
        // Below 100 % there would not be room for all.
        let bound = || u128::from(bound_percent.max(100)) * u128::from(candidates.in_flight().saturating_add(1));
        Self { percent: (bound_percent > 0).then(bound) }
    }

    fn has(&self, candidates: &Candidates<'_, impl Endpoints>, seat: usize) -> bool {
        self.percent.is_none_or(|percent| {
            let weight = u128::from(candidates.seats[seat].weight);
            let most = (percent * weight).div_ceil(100 * u128::from(candidates.open.max(1)));
            u128::from(candidates.load(seat).in_flight) < most
        })
    }
}
