//! Weighted lots: a random endpoint, by weight.
//!
//! A lot that falls on one that may not be asked is drawn again, so that those that may share in exact proportion of their
//! weights; when luck is out, one look at all decides by the same proportions. An endpoint in its slow start refuses a lot
//! as often as its factor says. It is a policy of its own, and the first step of those that compare.

use super::{Endpoints, candidates::Candidates, candidates::Seat};
use crate::Random;

/// Draws before all are looked at: with half of the endpoints away that happens once in 256.
const DRAWS: usize = 8;

#[derive(Debug, Clone, Default)]
pub(super) struct Lots {
    /// Running sums of the weights; empty when all weigh the same.
    sums: Box<[u64]>,
    /// Of those with a weight; 1 when there are none.
    mean: f64,
}

impl Lots {
    pub(super) fn new(seats: &[Seat]) -> Self {
        let even = seats.windows(2).all(|pair| pair[0].weight == pair[1].weight);
        let sums = seats.iter().scan(0, |sum, seat| {
            *sum += u64::from(seat.weight);
            Some(*sum)
        });
        let total: u64 = seats.iter().map(|seat| u64::from(seat.weight)).sum();
        let bearing = seats.iter().filter(|seat| seat.weight > 0).count();
        Self {
            sums: if even { Box::default() } else { sums.collect() },
            mean: if bearing == 0 { 1.0 } else { total as f64 / bearing as f64 },
        }
    }

    /// Mean weight.
    pub(super) fn mean(&self) -> f64 {
        self.mean
    }

    pub(super) fn pick(&self, candidates: &Candidates<'_, impl Endpoints>, random: &mut Random) -> Option<usize> {
        self.draw(candidates, None, random)
    }

    /// One that may be asked, other than `but`.
    pub(super) fn draw(
        &self,
        candidates: &Candidates<'_, impl Endpoints>,
        but: Option<usize>,
        random: &mut Random,
    ) -> Option<usize> {
        if candidates.len() == 0 || (but.is_some() && candidates.len() == 1) {
            return None;
        }
        for _ in 0..DRAWS {
            let seat = self.lot(candidates.len(), random);
            if Some(seat) != but && candidates.eligible(seat) {
                let ramp = candidates.ramp(seat);
                if ramp >= 1.0 || random.unit() < ramp {
                    return Some(seat);
                }
            }
        }
        look_at_all(candidates, but, random)
    }

    fn lot(&self, len: usize, random: &mut Random) -> usize {
        match self.sums.last() {
            None => random.below(len as u64) as usize,
            Some(&total) => {
                let point = random.below(total);
                self.sums.partition_point(|&sum| sum <= point)
            }
        }
    }
}

/// Chao's reservoir of one ("A general purpose unequal probability sampling plan", 1982).
fn look_at_all(candidates: &Candidates<'_, impl Endpoints>, but: Option<usize>, random: &mut Random) -> Option<usize> {
    let (mut chosen, mut total) = (None, 0.0);
    for seat in (0..candidates.len()).filter(|&seat| Some(seat) != but && candidates.eligible(seat)) {
        let weight = candidates.weight(seat);
        total += weight;
        if chosen.is_none() || random.unit() * total < weight {
            chosen = Some(seat);
        }
    }
    chosen
}
