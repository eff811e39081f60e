//! Power of two choices over latency and work in flight.
//!
//! Two endpoints are drawn, and the cheaper one is taken. That is nearly as even as looking at all of them
//! (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 1996/2001), reads only two cells, and does not
//! herd: workers with the same stale view do not all run to the same best endpoint.
//! The cost is Finagle's peak-EWMA balancer's: expected time = latency × (requests before me + me), with two changes.
//!
//! Nobody is believed to be faster than what a request typically takes here: `max(typical, latency ÷ 2)`. An endpoint that
//! comes back has a latency that decayed to next to nothing, or none at all; believing it gave it every draw it was in, until
//! its first answer, and after a lucky first answer for longer. The price is small: a really faster endpoint finishes
//! sooner, has less in flight, and wins by that. The half forgives what a peak exaggerates.
//!
//! Failures multiply the cost, so that they weigh the same in a fast pool and in a slow one. Where both of the two drawn are failing,
//! the others are looked at too: with two of three endpoints broken, a third of all draws would otherwise offer nothing better.
//!
//! Weights steer the draw, and scale what counts as full (see `duel.rs`). An idle
//! tier so divides its traffic as the weights say; were the weight a plain divisor of the cost instead, the heaviest idle
//! endpoint would win every draw and a 1 % canary would see nothing.

use super::{Endpoints, Load, candidates::Candidates, candidates::Seat, duel::Bid, lots::Lots};
use crate::Random;

/// The typical latency follows that of the last so many choices: enough that the one lot in `n` which falls to a returned
/// endpoint does not pull it down.
const TYPICAL_OVER: f64 = 64.0;

/// How many times as dear an endpoint is that only fails. A thousand requests may be out at each of the others before it is
/// asked. It grows with the cube of the share, so that one failure is worth sixteen requests out, and is forgotten within ten seconds.
const FAILING_COST: f64 = 1000.0;

/// How many endpoints are looked at where both of the two drawn are [doubtful](Load::is_doubtful), which doubles the cost.
const LOOKS: usize = 16;

#[derive(Debug, Clone)]
pub(super) struct Adaptive {
    lots: Lots,
    /// Moving mean of the latency of those chosen; zero when nothing is known yet.
    typical_ns: f64,
}

impl Adaptive {
    pub(super) fn new(seats: &[Seat]) -> Self {
        Self { lots: Lots::new(seats), typical_ns: 0.0 }
    }

    /// Other seats or weights; what was learnt of the tier stays.
    pub(super) fn reseat(&mut self, seats: &[Seat]) {
        self.lots = Lots::new(seats);
    }

    pub(super) fn pick(&mut self, candidates: &Candidates<'_, impl Endpoints>, random: &mut Random) -> Option<usize> {
        let first = self.lots.draw(candidates, None, random)?;
        let Some(second) = self.lots.draw(candidates, Some(first), random) else { return Some(first) };
        let bid = |seat| Bid::new(candidates, seat, self.lots.mean(), |load| latency(load, self.typical_ns));
        let (holder, challenger) = (bid(first), bid(second));
        let mut winner = if challenger.beats(&holder) { challenger } else { holder };
        if candidates.load(winner.seat).is_doubtful() {
            let from = random.below(candidates.len() as u64) as usize;
            let others = (0..candidates.len().min(LOOKS)).map(|step| (from + step) % candidates.len());
            for other in others.filter(|&seat| candidates.eligible(seat)).map(bid) {
                winner = if other.beats(&winner) { other } else { winner };
            }
        }
        self.learn(candidates.load(winner.seat).latency_ns);
        Some(winner.seat)
    }

    fn learn(&mut self, latency_ns: f64) {
        if latency_ns > 0.0 && latency_ns.is_finite() {
            let step = if self.typical_ns > 0.0 { TYPICAL_OVER.recip() } else { 1.0 };
            self.typical_ns += (latency_ns - self.typical_ns) * step;
        }
    }
}

/// What one request alone is taken to cost, in nanoseconds.
fn latency(load: &Load, typical_ns: f64) -> f64 {
    let failing = load.failing.max(0.0);
    (load.latency_ns / 2.0).max(typical_ns).max(1.0) * (1.0 + FAILING_COST * failing.powi(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_faster_than_typical() {
        let table = [
            (1e6, 0.0, 1e6, 1e6),
            (0.0, 0.0, 1e6, 1e6),
            (10.0, 0.0, 1e6, 1e6),
            (1e7, 0.0, 1e6, 5e6),
            (1e7, 0.5, 1e6, 5e6 * 126.0),
            (0.0, 1.0, 1e6, 1e6 * 1001.0),
            (0.0, 0.0, 0.0, 1.0),
            (f64::NAN, f64::NAN, 0.0, 1.0),
        ];
        for (latency_ns, failing, typical, wanted) in table {
            assert_eq!(latency(&Load { latency_ns, failing, in_flight: 3 }, typical), wanted, "{latency_ns} {failing}");
        }
    }

    #[test]
    fn what_is_typical_follows_the_choices() {
        let mut adaptive = Adaptive::new(&[]);
        for junk in [0.0, f64::NAN, f64::INFINITY] {
            adaptive.learn(junk);
            assert_eq!(adaptive.typical_ns, 0.0);
        }
        adaptive.learn(8e6);
        assert_eq!(adaptive.typical_ns, 8e6, "the first is all that is known");
        adaptive.learn(72e6);
        assert_eq!(adaptive.typical_ns, 9e6);
    }
}
