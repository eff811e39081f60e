//! Smooth weighted round robin.
//!
//! Every turn each endpoint earns its weight; the richest is chosen and pays what all earned together. With weights
//! 5, 1, 1 that gives a a b a c a a, never five of the same in a row.
//! Source: nginx, `ngx_http_upstream_get_peer` (commit 52327e0627f4, 2012). It looks at all endpoints each time.

use super::{Endpoints, candidates::Candidates, candidates::Seat};

/// Parts of one unit of weight: a slow start counts them.
const PARTS: f64 = 1024.0;

#[derive(Debug, Clone)]
pub(super) struct RoundRobin {
    turns: Box<[Turn]>,
}

#[derive(Debug, Clone)]
struct Turn {
    id: u64,
    /// In parts. With 65,536 endpoints of the greatest weight it stays below 2^58.
    earned: i64,
}

impl RoundRobin {
    pub(super) fn new(seats: &[Seat]) -> Self {
        Self { turns: seats.iter().map(|seat| Turn { id: seat.id, earned: 0 }).collect() }
    }

    /// Those who stay keep what they have earned, up to what one round of the new weights is worth; the new begin with
    /// nothing.
    pub(super) fn reseat(&mut self, seats: &[Seat]) {
        let mut known: Vec<_> = self.turns.iter().map(|turn| (turn.id, turn.earned)).collect();
        known.sort_unstable();
        let earned = |id| known.binary_search_by_key(&id, |&(known, _)| known).map_or(0, |at| known[at].1);
        let round = seats.iter().map(|seat| i64::from(seat.weight)).sum::<i64>() * PARTS as i64;
        let turn = |seat: &Seat| Turn { id: seat.id, earned: earned(seat.id).clamp(-round, round) };
        self.turns = seats.iter().map(turn).collect();
    }

    pub(super) fn pick(&mut self, candidates: &Candidates<'_, impl Endpoints>) -> Option<usize> {
        let mut total = 0;
        let mut richest: Option<usize> = None;
        for seat in (0..candidates.len().min(self.turns.len())).filter(|&seat| candidates.eligible(seat)) {
            let earns = ((candidates.weight(seat) * PARTS) as i64).max(1);
            self.turns[seat].earned += earns;
            total += earns;
            if richest.is_none_or(|best| self.turns[seat].earned > self.turns[best].earned) {
                richest = Some(seat);
            }
        }
        self.turns[richest?].earned -= total;
        richest
    }
}
