//! Which of two endpoints is the better one for one more request.
//!
//! One beats the other when it is cheaper as things are, and still cheaper with this request on top. Among equals the two
//! say the same. With weights 99 and 1 the second is what keeps the canary at its share: it is idle most of the time, and
//! would otherwise win every duel with a busy one, though one request is as much to it as ninety-nine to the other.
//! Who is beaten by nobody keeps the place that the lots gave it, so that an idle tier divides as the weights say.

use super::{Endpoints, Load, candidates::Candidates};

#[derive(Debug, Clone, Copy)]
pub(super) struct Bid {
    pub(super) seat: usize,
    /// Its part of the traffic: its weight ÷ the mean one, with its slow start.
    pub(super) share: f64,
    pub(super) cost: f64,
    /// With this request on top.
    after: f64,
}

impl Bid {
    /// `latency` is what one request alone costs there.
    pub(super) fn new(
        candidates: &Candidates<'_, impl Endpoints>,
        seat: usize,
        mean_weight: f64,
        latency: impl FnOnce(&Load) -> f64,
    ) -> Self {
        let (load, share) = (candidates.load(seat), candidates.weight(seat) / mean_weight);
        Self::of(seat, share, latency(&load), load.in_flight)
    }

    /// Expected time of one more request: `latency × (in flight ÷ share + 1)`.
    fn of(seat: usize, share: f64, latency: f64, in_flight: u32) -> Self {
        let cost = |before_me: f64| latency * (before_me / share + 1.0);
        Self { seat, share, cost: cost(f64::from(in_flight)), after: cost(f64::from(in_flight) + 1.0) }
    }

    pub(super) fn beats(&self, holder: &Self) -> bool {
        self.cost < holder.cost && self.after < holder.after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cheaper_before_and_after() {
        // (share, latency, in flight) of challenger and holder.
        let table = [
            ((1.0, 1.0, 0), (1.0, 1.0, 1), true),
            ((1.0, 1.0, 1), (1.0, 1.0, 1), false),
            ((1.0, 1.0, 3), (1.0, 5.0, 0), true),
            ((1.0, 1.0, 4), (1.0, 5.0, 0), false),
            ((0.02, 1.0, 0), (1.98, 1.0, 90), false),
            ((0.02, 1.0, 0), (1.98, 1.0, 110), true),
            ((1.98, 1.0, 90), (0.02, 1.0, 0), false),
            ((1.98, 1.0, 90), (0.02, 1.0, 1), true),
            ((0.5, 1.0, 0), (2.0, 10.0, 0), true),
        ];
        for (challenger, holder, wanted) in table {
            let bid = |(share, latency, in_flight)| Bid::of(0, share, latency, in_flight);
            assert_eq!(bid(challenger).beats(&bid(holder)), wanted, "{challenger:?} against {holder:?}");
        }
    }
}
