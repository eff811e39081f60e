//! The list of a pool, with what is made of it once for all workers: tables of hashing policies, which take milliseconds to
//! build, and the ids that sticky cookies call its endpoints by.
//!
//! What holds here: made by the control thread, whole and never changed. A worker takes a clone of a balancer, whose tables are
//! shared.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use policy::{BalanceSettings, Balancer, Policy};

use super::{Member, Seals};
use crate::snapshot::{Pool, Stickiness};

/// The whole list of a pool.
#[derive(Clone, Debug)]
pub struct Members {
    list: Arc<[Member]>,
    made: Arc<Made>,
}

/// What a list comes to.
#[derive(Debug, Default)]
struct Made {
    /// The pool's own balancer, if its policy has a table.
    balancer: Option<Balancer>,
    /// For sessions that are known by a key.
    sessions: Option<Balancer>,
    badges: Option<Badges>,
    load: Arc<PoolLoad>,
}

/// What sticky cookies call the endpoints of a list.
#[derive(Debug)]
pub struct Badges {
    pub seals: Seals,
    /// By place, as the one that signs has them.
    ids: Box<[u64]>,
    /// `(id, place)`, by id: those of all secrets.
    places: Box<[(u64, u16)]>,
}

/// How to make a list of a pool.
#[derive(Clone, Debug)]
pub(super) struct Maker {
    pub(super) pool: Box<str>,
    settings: BalanceSettings,
    has_sessions: bool,
    pub(super) seals: Option<Seals>,
    load: Arc<PoolLoad>,
}

/// Tries out at a pool, a cell a worker. Kept for policies that need the sum for each choice.
#[derive(Debug, Default)]
pub struct PoolLoad {
    workers: Box<[LoadCell]>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct LoadCell(AtomicU64);

impl Members {
    #[must_use]
    pub fn load(&self) -> &Arc<PoolLoad> {
        &self.made.load
    }

    #[must_use]
    pub fn badges(&self) -> Option<&Badges> {
        self.made.badges.as_ref()
    }

    /// The pool's own balancer, where it is built once for all workers.
    pub(super) fn balancer(&self) -> Option<&Balancer> {
        self.made.balancer.as_ref()
    }

    pub(super) fn sessions(&self) -> Option<&Balancer> {
        self.made.sessions.as_ref()
    }
}

impl Deref for Members {
    type Target = [Member];

    fn deref(&self) -> &[Member] {
        &self.list
    }
}

impl Default for Members {
    fn default() -> Self {
        Self { list: Arc::new([]), made: Arc::default() }
    }
}

impl Maker {
    pub(super) fn new(pool: &Pool, workers: usize) -> Self {
        Self {
            pool: pool.name.clone(),
            settings: pool.division.settings,
            has_sessions: matches!(pool.division.sticky, Stickiness::Key(_)),
            seals: None,
            load: Arc::new(PoolLoad { workers: (0..workers).map(|_| LoadCell::default()).collect() }),
        }
    }

    /// Allocates, and may take milliseconds: for the control thread.
    pub(super) fn make(&self, list: Vec<Member>) -> Members {
        let seats = seats(&list);
        let balancer = |policy| Balancer::new(BalanceSettings { policy, ..self.settings }, &seats);
        let policy = self.settings.policy;
        let made = Made {
            balancer: policy.hashes().then(|| balancer(policy)),
            sessions: self.has_sessions.then(|| balancer(Policy::MAGLEV)),
            badges: self.seals.as_ref().map(|seals| Badges::new(seals, &self.pool, &list)),
            load: Arc::clone(&self.load),
        };
        Members { list: list.into(), made: Arc::new(made) }
    }
}

/// A list as a balancer takes it.
pub(super) fn seats(list: &[Member]) -> Vec<policy::Member<'_>> {
    list.iter().map(|Member { name, weight, tier, .. }| policy::Member { name, weight: *weight, tier: *tier }).collect()
}

impl Badges {
    fn new(seals: &Seals, pool: &str, list: &[Member]) -> Self {
        let ids = list.iter().map(|member| seals.signing().id(pool, &member.name)).collect();
        let named = list
            .iter()
            .enumerate()
            .flat_map(|(place, member)| seals.iter().map(move |seal| (seal.id(pool, &member.name), place as u16)));
        let mut places: Vec<(u64, u16)> = named.collect();
        places.sort_unstable();
        Self { seals: seals.clone(), ids, places: places.into() }
    }

    #[must_use]
    pub fn id(&self, place: usize) -> Option<u64> {
        self.ids.get(place).copied()
    }

    #[must_use]
    pub fn place(&self, id: u64) -> Option<usize> {
        let at = self.places.binary_search_by_key(&id, |&(id, _)| id).ok()?;
        Some(self.places[at].1.into())
    }
}

impl PoolLoad {
    pub(super) fn sum(&self) -> u64 {
        self.workers.iter().map(|cell| cell.0.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn begun(&self, worker: usize) {
        self.change(worker, |count| count + 1);
    }

    pub(super) fn ended(&self, worker: usize) {
        self.change(worker, |count| count.saturating_sub(1));
    }

    /// Only the cell's own worker may.
    fn change(&self, worker: usize, change: impl FnOnce(u64) -> u64) {
        if let Some(LoadCell(cell)) = self.workers.get(worker) {
            cell.store(change(cell.load(Ordering::Relaxed)), Ordering::Relaxed);
        }
    }
}
