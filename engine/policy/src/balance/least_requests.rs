//! The endpoint with the fewest requests out, for its weight.
//!
//! In a small tier all are looked at; in a large one as many as `choices`, drawn by weight: two are nearly as even as all
//! (Mitzenmacher 2001), and workers with the same stale view do not all run to the same one. Equals share by chance and
//! weight, so an idle tier divides its traffic as the weights say.
//! It needs no latencies, and so suits requests of very unequal length, such as WebSocket and plain TCP.

use super::{Endpoints, candidates::Candidates, candidates::Seat, duel::Bid, lots::Lots};
use crate::Random;

/// Up to this many endpoints all are looked at: that costs no more than the draws it saves.
const LOOK_AT_ALL: usize = 8;

#[derive(Debug, Clone)]
pub(super) struct LeastRequests {
    lots: Lots,
    choices: u8,
}

impl LeastRequests {
    pub(super) fn new(seats: &[Seat], choices: u8) -> Self {
        Self { lots: Lots::new(seats), choices: choices.max(2) }
    }

    pub(super) fn pick(&self, candidates: &Candidates<'_, impl Endpoints>, random: &mut Random) -> Option<usize> {
        let first = self.lots.draw(candidates, None, random)?;
        if candidates.len() == 1 {
            return Some(first);
        }
        let mut best = self.bid(candidates, first);
        if candidates.len() <= LOOK_AT_ALL {
            return Some(self.best_of_all(candidates, best, random));
        }
        for _ in 1..self.choices {
            let Some(seat) = self.lots.draw(candidates, Some(best.seat), random) else { break };
            let challenger = self.bid(candidates, seat);
            if challenger.beats(&best) {
                best = challenger;
            }
        }
        Some(best.seat)
    }

    /// Those that cost the same end up with chances as their weights, in whatever order they are met (a reservoir of one).
    fn best_of_all(&self, candidates: &Candidates<'_, impl Endpoints>, first: Bid, random: &mut Random) -> usize {
        let (mut best, mut tied) = (first, first.share);
        for seat in (0..candidates.len()).filter(|&seat| seat != first.seat && candidates.eligible(seat)) {
            let challenger = self.bid(candidates, seat);
            if challenger.cost == best.cost {
                tied += challenger.share;
                if random.unit() * tied < challenger.share {
                    best = challenger;
                }
            } else if challenger.beats(&best) {
                (best, tied) = (challenger, challenger.share);
            }
        }
        best.seat
    }

    fn bid(&self, candidates: &Candidates<'_, impl Endpoints>, seat: usize) -> Bid {
        Bid::new(candidates, seat, self.lots.mean(), |_| 1.0)
    }
}
