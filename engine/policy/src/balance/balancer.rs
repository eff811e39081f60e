//! The balancer of one pool on one worker: which tier, and in it which endpoint.
//!
//! ```text
//! stick to the preferred one ──► draw a tier by its share ──► its policy ──► the other tiers, best first ──► refuse
//! ```
//!
//! Tiers share the traffic by health. A tier is whole as long as its health times [`BalanceSettings::overprovision_percent`]
//! reaches 1; what it lacks spills to the next, and when all together lack, they share what there is.
//! When nothing is left to spill to and a tier's health is below [`BalanceSettings::panic_percent`], its verdicts are set
//! aside: either they are wrong, or the few left would go down under the load of all.
//! Source: Envoy's priority levels, overprovisioning factor and panic threshold. Health is measured in weight, not in heads.
//!
//! Health is counted in a census, which looks at all endpoints: anew for each choice while they are few, and otherwise
//! once in so many choices that [`LOOKS`] endpoints are looked at for one choice on average.

use super::adaptive::Adaptive;
use super::candidates::{Candidates, Seat};
use super::least_requests::LeastRequests;
use super::lots::Lots;
use super::maglev::Maglev;
use super::ring::Ring;
use super::round_robin::RoundRobin;
use super::{Ask, BalanceSettings, Endpoints, Member, NoPick, Pick, Policy, Standing};
use crate::Random;
use crate::hash::{mix, unit, xxh64};

/// What a census may cost a choice.
const LOOKS: usize = 8;

/// A key's draw of the tier and its draw within must not be the same.
const TIER_SALT: u64 = 0x7469_6572;

#[derive(Debug, Clone)]
pub struct Balancer {
    settings: BalanceSettings,
    /// Best first.
    tiers: Box<[Tier]>,
    members: usize,
    /// Choices until the next census.
    census_in: usize,
}

#[derive(Debug, Clone)]
struct Tier {
    rank: u8,
    seats: Box<[Seat]>,
    law: Law,
    /// Part of the traffic, in [0, 1].
    share: f64,
    panic: bool,
    /// Weight of all that may be asked.
    open: u64,
}

/// A policy and its state over the seats of one tier.
#[derive(Debug, Clone)]
enum Law {
    Adaptive(Adaptive),
    RoundRobin(RoundRobin),
    Random(Lots),
    LeastRequests(LeastRequests),
    Ring(Ring),
    Maglev(Maglev),
}

/// A tier's weight by standing. Who is leaving or out is not part of it.
#[derive(Debug, Clone, Copy, Default)]
struct Census {
    ready: u64,
    full: u64,
    suspect: u64,
    down: u64,
}

impl Census {
    fn of(seats: &[Seat], endpoints: &impl Endpoints) -> Self {
        let mut census = Self::default();
        for seat in seats {
            let weight = u64::from(seat.weight);
            match endpoints.standing(seat.index) {
                Standing::Ready => census.ready += weight,
                Standing::Full => census.full += weight,
                Standing::Suspect => census.suspect += weight,
                Standing::Down => census.down += weight,
                Standing::Draining | Standing::Out => {}
            }
        }
        census
    }

    /// In [0, 1]. A full endpoint is a healthy one.
    fn health(self) -> f64 {
        let well = self.ready + self.full;
        well as f64 / (well + self.suspect + self.down).max(1) as f64
    }
}

impl Balancer {
    /// Allocates, and for [`Policy::Maglev`] and [`Policy::Ring`] builds tables: not for the request path.
    #[must_use]
    pub fn new(settings: BalanceSettings, members: &[Member<'_>]) -> Self {
        let mut balancer = Self { settings, tiers: Box::default(), members: 0, census_in: 0 };
        balancer.update(members);
        balancer
    }

    /// The pool has other members, weights or tiers from now on: index `i` is `members[i]`. Whoever stays in its tier under
    /// its name keeps its state. Allocates.
    pub fn update(&mut self, members: &[Member<'_>]) {
        let mut ranks: Vec<_> = members.iter().map(|member| member.tier).collect();
        ranks.sort_unstable();
        ranks.dedup();
        let mut old = std::mem::take(&mut self.tiers).into_vec();
        let tiers = ranks.into_iter().map(|rank| {
            let of_tier = members.iter().enumerate().filter(|(_, member)| member.tier == rank);
            let seats = of_tier.map(|(index, member)| Seat::new(index, member)).collect();
            match old.iter().position(|tier| tier.rank == rank) {
                Some(at) => old.swap_remove(at).reseated(seats, self.settings.policy),
                None => Tier::new(rank, seats, self.settings.policy),
            }
        });
        self.tiers = tiers.collect();
        (self.members, self.census_in) = (members.len(), 0);
    }

    /// The endpoint for one try. Allocates nothing.
    pub fn pick(&mut self, endpoints: &impl Endpoints, ask: &Ask, random: &mut Random) -> Result<Pick, NoPick> {
        debug_assert_eq!(self.members, endpoints.len(), "update() when the endpoints change");
        if self.members > endpoints.len() {
            return Err(NoPick::None);
        }
        if let Some(pick) = self.only_one(endpoints, ask) {
            return Ok(pick);
        }
        let fresh = self.census_in == 0;
        if fresh {
            self.count(endpoints);
        }
        self.census_in -= 1;
        if let Some(pick) = self.preferred(endpoints, ask) {
            return Ok(pick);
        }
        let wary = ask.wary || ask.once && self.settings.policy == Policy::Adaptive;
        let trusted = if wary { self.pick_unbound(endpoints, &Ask { wary, ..*ask }, random) } else { None };
        let ask = &Ask { wary: false, ..*ask };
        let found = trusted.or_else(|| self.pick_unbound(endpoints, ask, random)).or_else(|| {
            if fresh {
                return None;
            }
            // The last census may know nothing of the death of half of the pool.
            self.count(endpoints);
            self.pick_unbound(endpoints, ask, random)
        });
        found.ok_or_else(|| self.refusal(endpoints, ask))
    }

    /// Whether the last census found a tier whose health verdicts are to be set aside.
    #[must_use]
    pub fn panics(&self) -> bool {
        self.tiers.iter().any(|tier| tier.panic)
    }

    /// The endpoint of a pool that has no other one, if it is well: there is nothing to choose.
    fn only_one(&self, endpoints: &impl Endpoints, ask: &Ask) -> Option<Pick> {
        let [Tier { seats, .. }] = &*self.tiers else { return None };
        let [Seat { index, weight: 1.., .. }] = **seats else { return None };
        let well = endpoints.standing(index) == Standing::Ready && !ask.avoid.contains(index);
        well.then_some(Pick { index, sticky: ask.prefer == Some(index), panic: false })
    }

    fn preferred(&self, endpoints: &impl Endpoints, ask: &Ask) -> Option<Pick> {
        let index = ask.prefer.filter(|&index| index < self.members && !ask.avoid.contains(index))?;
        let panic = || self.tiers.iter().any(|tier| tier.panic && tier.seats.iter().any(|seat| seat.index == index));
        match endpoints.standing(index) {
            Standing::Ready | Standing::Draining => Some(Pick { index, sticky: true, panic: false }),
            Standing::Suspect if panic() => Some(Pick { index, sticky: true, panic: true }),
            Standing::Suspect | Standing::Down | Standing::Full | Standing::Out => None,
        }
    }

    fn pick_unbound(&mut self, endpoints: &impl Endpoints, ask: &Ask, random: &mut Random) -> Option<Pick> {
        let (first, count) = (self.draw_tier(ask, random), self.tiers.len());
        let others = (0..count).filter(|&tier| tier != first);
        (first..count.min(first + 1)).chain(others).find_map(|tier| {
            let tier = &mut self.tiers[tier];
            let index = tier.pick(endpoints, ask, random)?;
            Some(Pick { index, sticky: false, panic: tier.panic })
        })
    }

    /// By the shares; a key always draws the same, or spilling would send it elsewhere each time.
    fn draw_tier(&self, ask: &Ask, random: &mut Random) -> usize {
        if self.tiers.len() < 2 {
            return 0;
        }
        let keyed = ask.key.filter(|_| self.settings.policy.hashes());
        let mut point = keyed.map_or_else(|| random.unit(), |key| unit(mix(key ^ TIER_SALT)));
        let drawn = self.tiers.iter().position(|tier| {
            point -= tier.share;
            point < 0.0
        });
        drawn.unwrap_or(0)
    }

    /// Why nothing was found. Looks at all.
    fn refusal(&self, endpoints: &impl Endpoints, ask: &Ask) -> NoPick {
        let mut seats = self.tiers.iter().flat_map(|tier| tier.seats.iter());
        let waits = seats.any(|seat| {
            seat.weight > 0 && !ask.avoid.contains(seat.index) && endpoints.standing(seat.index) == Standing::Full
        });
        if waits { NoPick::Full } else { NoPick::None }
    }

    /// The census, and what follows from it.
    fn count(&mut self, endpoints: &impl Endpoints) {
        self.census_in = (self.members / LOOKS).max(1);
        let overprovision = f64::from(self.settings.overprovision_percent.max(100)) / 100.0;
        let mut left = 1.0;
        for tier in &mut self.tiers {
            let census = Census::of(&tier.seats, endpoints);
            tier.share = (census.health() * overprovision).min(left);
            left -= tier.share;
            tier.panic = census.suspect > 0 && census.health() * 100.0 < f64::from(self.settings.panic_percent);
            tier.open = census.ready + census.suspect;
            if !tier.panic {
                tier.open = census.ready;
            }
        }
        let lacking = left > 1e-9;
        for tier in &mut self.tiers {
            tier.panic &= lacking;
            tier.share = if lacking && left < 1.0 { tier.share / (1.0 - left) } else { tier.share };
        }
    }
}

impl Tier {
    fn new(rank: u8, seats: Box<[Seat]>, policy: Policy) -> Self {
        let law = match policy {
            Policy::Adaptive => Law::Adaptive(Adaptive::new(&seats)),
            Policy::RoundRobin => Law::RoundRobin(RoundRobin::new(&seats)),
            Policy::Random => Law::Random(Lots::new(&seats)),
            Policy::LeastRequests { choices } => Law::LeastRequests(LeastRequests::new(&seats, choices)),
            Policy::Ring { bound_percent } => Law::Ring(Ring::new(&seats, bound_percent)),
            Policy::Maglev { size, bound_percent } => Law::Maglev(Maglev::new(&seats, size, bound_percent)),
        };
        Self { rank, seats, law, share: 0.0, panic: false, open: 0 }
    }

    fn reseated(mut self, seats: Box<[Seat]>, policy: Policy) -> Self {
        match (&mut self.law, policy) {
            (Law::Adaptive(adaptive), _) => adaptive.reseat(&seats),
            (Law::RoundRobin(round_robin), _) => round_robin.reseat(&seats),
            (Law::Ring(ring), _) => ring.reseat(&seats),
            (Law::Maglev(maglev), Policy::Maglev { size, .. }) => maglev.reseat(&seats, size),
            // Nothing is learnt in these.
            _ => return Self::new(self.rank, seats, policy),
        }
        Self { seats, ..self }
    }

    fn pick(&mut self, endpoints: &impl Endpoints, ask: &Ask, random: &mut Random) -> Option<usize> {
        let candidates = Candidates { endpoints, seats: &self.seats, ask, panic: self.panic, open: self.open };
        let seat = match &mut self.law {
            Law::Adaptive(adaptive) => adaptive.pick(&candidates, random),
            Law::RoundRobin(round_robin) => round_robin.pick(&candidates),
            Law::Random(lots) => lots.pick(&candidates, random),
            Law::LeastRequests(least) => least.pick(&candidates, random),
            Law::Ring(ring) => ring.pick(&candidates, ask.key.unwrap_or_else(|| random.next_u64())),
            Law::Maglev(maglev) => maglev.pick(&candidates, ask.key.unwrap_or_else(|| random.next_u64())),
        };
        Some(self.seats[seat?].index)
    }
}

impl Seat {
    fn new(index: usize, member: &Member<'_>) -> Self {
        Self { id: xxh64(member.name.as_bytes(), 0), index, weight: member.weight }
    }
}
