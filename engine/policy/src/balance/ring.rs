//! Consistent hashing on a ring.
//!
//! Every endpoint stands at many points of a circle of hashes, in proportion to its weight; a key belongs to the next point
//! clockwise, and whoever leaves gives its keys to its neighbours only (Karger et al. 1997; the many points are ketama's,
//! Last.fm 2007). A point depends on its endpoint's name and number alone.
//!
//! Points an endpoint: 320 of weight 1, halved for all together as often as it takes to have no more than 640 an endpoint
//! on average and [`POINTS_MAX`] at all. Shares are then within some 6 % of the weights. Eight bytes a point: 13 KB for five
//! endpoints, 4 MiB at most; clones share them. A lookup is a binary search.
//! Maglev (`maglev.rs`) is more even and faster; the ring moves fewer keys when weights change.

use std::sync::Arc;

use super::affinity::{Ranks, choose};
use super::{Endpoints, candidates::Candidates, candidates::Seat};
use crate::hash::mix;

const POINTS_OF_ONE: u64 = 320;
const POINTS_MEAN_MAX: u64 = 640;
const POINTS_MAX: u64 = 1 << 19;

/// A point's low bits say whose it is.
const RANK_BITS: u64 = 0xffff;

#[derive(Debug, Clone)]
pub(super) struct Ring {
    ranks: Ranks,
    points: Arc<[u64]>,
    bound_percent: u16,
}

impl Ring {
    pub(super) fn new(seats: &[Seat], bound_percent: u16) -> Self {
        let ranks = Ranks::new(seats);
        Self { points: points(ranks.by_id()), ranks, bound_percent }
    }

    /// Builds anew only what differs.
    pub(super) fn reseat(&mut self, seats: &[Seat]) {
        let ranks = Ranks::new(seats);
        if ranks.by_id() != self.ranks.by_id() {
            self.points = points(ranks.by_id());
        }
        self.ranks = ranks;
    }

    pub(super) fn pick(&self, candidates: &Candidates<'_, impl Endpoints>, key: u64) -> Option<usize> {
        let start = self.points.partition_point(|&point| point < mix(key));
        let clockwise = self.points[start..].iter().chain(&self.points[..start]);
        let seats = clockwise.map(|&point| self.ranks.seat((point & RANK_BITS) as u16));
        choose(candidates, key, self.bound_percent, seats)
    }
}

fn points(members: &[(u64, u32)]) -> Arc<[u64]> {
    let most = (members.len() as u64 * POINTS_MEAN_MAX).min(POINTS_MAX);
    let count = |weight: u32, halvings: u32| ((u64::from(weight) * POINTS_OF_ONE) >> halvings).max(1);
    let sum = |halvings| members.iter().map(|&(_, weight)| count(weight, halvings)).sum::<u64>();
    let halvings = (0..42).find(|&halvings| sum(halvings) <= most).unwrap_or(42);
    let mut points = Vec::with_capacity(sum(halvings) as usize);
    for (rank, &(id, weight)) in members.iter().enumerate() {
        let of_one = (0..count(weight, halvings)).map(|number| mix(id ^ mix(number)));
        points.extend(of_one.map(|point| point & !RANK_BITS | rank as u64));
    }
    points.sort_unstable();
    points.into()
}
