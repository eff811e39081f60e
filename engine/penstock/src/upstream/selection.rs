//! Which of its candidate pools a route's requests go to.
//!
//! [`policy::Selector`] decides; here it is shown the clusters of its worker, and what it makes of them is told to everybody else. What holds: a
//! worker decides for itself, by sums over all workers; its cells have one writer; a request costs a comparison or two, and the look at
//! all endpoints comes ten times a second at the most.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use policy::select::Reason;
use policy::{Now, Random, Score, Seen, Selector, Standing};

use super::Cluster;
use crate::snapshot::{Action, ConcurrencyLimit, Pool, PoolId, RouteId, Snapshot};
use crate::telemetry::Cell;

/// What the selections of all workers tell, by route; nothing of routes that have no candidates.
#[derive(Debug, Default)]
pub struct Selections(Box<[Box<[SelectionCells]>]>);

/// One route's choice, as one worker sees it.
#[derive(Debug)]
pub struct SelectionCells {
    /// In the order of the route.
    pub candidates: Box<[CandidateCells]>,
    /// Which of them is the choice, and the number of the reason in [`Reason::ALL`].
    current: Cell,
    reason: Cell,
}

/// One candidate. Alone on its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct CandidateCells {
    /// Requests that went there, by the number of the reason in [`Reason::ALL`].
    choices: [Cell; Reason::ALL.len()],
    score: [Cell; 6],
}

/// The choice of one route on one worker.
pub struct Selection {
    selector: RefCell<Selector>,
    random: RefCell<Random>,
    candidates: Box<[Candidate]>,
    shared: Arc<Selections>,
    route: usize,
    worker: usize,
}

struct Candidate {
    pool: PoolId,
    cluster: Rc<Cluster>,
    /// What it takes at a time by its own limit.
    places: Option<u32>,
}

/// What a request asks of the choice.
#[derive(Clone, Copy)]
pub struct Selecting<'a> {
    pub now: Now,
    /// It may be sent twice, and can be.
    pub repeatable: bool,
    /// Whether it would have to wait for a place in a pool.
    pub waits: &'a dyn Fn(PoolId) -> bool,
}

struct View<'a> {
    candidates: &'a [Candidate],
    asked: &'a Selecting<'a>,
}

impl policy::Candidates for View<'_> {
    fn seen(&self, at: usize) -> Seen {
        let Candidate { cluster, places, .. } = &self.candidates[at];
        let seen = cluster.seen(self.asked.now);
        let by_endpoint = cluster.places(self.asked.now);
        Seen { places: places.iter().copied().chain(by_endpoint).min(), ..seen }
    }

    fn standing(&self, at: usize) -> Standing {
        let Candidate { cluster, pool, .. } = &self.candidates[at];
        match cluster.standing(self.asked.now, self.asked.repeatable) {
            Standing::Ready if (self.asked.waits)(*pool) => Standing::Full,
            standing => standing,
        }
    }
}

impl Selections {
    #[must_use]
    pub fn new(snapshot: &Snapshot, workers: usize) -> Arc<Self> {
        let cells = |count| SelectionCells {
            candidates: (0..count).map(|_| CandidateCells::default()).collect(),
            current: Cell::default(),
            reason: Cell::default(),
        };
        let of = |action: &Action| match action {
            Action::Candidates(candidates) => (0..workers).map(|_| cells(candidates.targets.len())).collect(),
            _ => Box::default(),
        };
        Arc::new(Self(snapshot.routes.iter().map(|route| of(&route.action)).collect()))
    }

    /// A cell set a worker; none for a route without candidates.
    #[must_use]
    pub fn of(&self, route: RouteId) -> &[SelectionCells] {
        self.0.get(usize::from(route.0)).map_or(&[], |workers| workers)
    }
}

impl SelectionCells {
    /// The present choice, and why.
    #[must_use]
    pub fn current(&self) -> (usize, Reason) {
        let reason = Reason::ALL.get(self.reason.get() as usize).copied().unwrap_or_default();
        (self.current.get() as usize, reason)
    }
}

impl CandidateCells {
    #[must_use]
    pub fn choices(&self, reason: Reason) -> u64 {
        self.choices[reason as usize].get()
    }

    /// As of the worker's last look.
    #[must_use]
    pub fn score(&self) -> Score {
        let [score, expected_ns, latency_ns, failing, load, ready] =
            std::array::from_fn(|at| f64::from_bits(self.score[at].get()));
        Score { score, expected_ns, latency_ns, failing, load, ready }
    }

    fn tell(&self, score: &Score) {
        let Score { score, expected_ns, latency_ns, failing, load, ready } = *score;
        for (cell, value) in self.score.iter().zip([score, expected_ns, latency_ns, failing, load, ready]) {
            cell.set(value.to_bits());
        }
    }
}

impl Selection {
    /// Of a route, if it has candidates.
    #[must_use]
    pub fn new(
        snapshot: &Snapshot,
        route: RouteId,
        clusters: &[Rc<Cluster>],
        shared: &Arc<Selections>,
        worker: usize,
        seed: u64,
    ) -> Option<Self> {
        let Action::Candidates(candidates) = &snapshot[route].action else { return None };
        let pools = candidates.targets.iter().map(|target| target.pool);
        Some(Self {
            selector: RefCell::new(Selector::new(candidates.settings, candidates.costs.iter().copied())),
            random: RefCell::new(Random::new(seed)),
            candidates: pools
                .map(|pool| Candidate::new(pool, &snapshot[pool], &clusters[usize::from(pool.0)]))
                .collect(),
            shared: Arc::clone(shared),
            route: usize::from(route.0),
            worker,
        })
    }

    /// Where a request goes: the candidate's number.
    pub fn choose(&self, asked: &Selecting<'_>) -> usize {
        let view = View { candidates: &self.candidates, asked };
        let mut selector = self.selector.borrow_mut();
        let looks = selector.is_due(asked.now);
        let chosen = selector.choose(asked.now, asked.repeatable, &view, &mut self.random.borrow_mut());
        if looks {
            self.tell(&selector);
        }
        self.count(chosen.index, chosen.reason);
        chosen.index
    }

    /// Where a request goes that has been to these (a bit each) and found nobody.
    pub fn next(&self, been: u16, asked: &Selecting<'_>) -> Option<usize> {
        self.selector.borrow().next(been, &View { candidates: &self.candidates, asked })
    }

    /// A request went to the [`next`](Self::next) one.
    pub fn moved(&self, to: usize) {
        self.count(to, Reason::Failover);
    }

    /// Keeps what is known up to date where no requests do.
    pub fn look(&self, asked: &Selecting<'_>) {
        let mut selector = self.selector.borrow_mut();
        if selector.is_due(asked.now) {
            selector.look(asked.now, &View { candidates: &self.candidates, asked });
            self.tell(&selector);
        }
    }

    fn count(&self, at: usize, reason: Reason) {
        self.cells().candidates[at].choices[reason as usize].add(1);
    }

    fn tell(&self, selector: &Selector) {
        let (cells, current) = (self.cells(), selector.current());
        cells.current.set(current.index as u64);
        cells.reason.set(current.reason as u64);
        for (at, candidate) in cells.candidates.iter().enumerate() {
            candidate.tell(&selector.score(at));
        }
    }

    fn cells(&self) -> &SelectionCells {
        &self.shared.0[self.route][self.worker]
    }
}

impl Candidate {
    fn new(id: PoolId, pool: &Pool, cluster: &Rc<Cluster>) -> Self {
        let places = match pool.admission.concurrency {
            ConcurrencyLimit::Fixed(limit) => Some(limit),
            // One that is found follows the latency, which is known already.
            ConcurrencyLimit::Auto | ConcurrencyLimit::Off => None,
        };
        Self { pool: id, cluster: Rc::clone(cluster), places }
    }
}
