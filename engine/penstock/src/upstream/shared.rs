//! What the whole process knows of one endpoint: cells that workers tell each other through, and words that are decided once
//! for all of them.
//!
//! What holds here: a cell has one writer, its worker, so counting is a plain load and store; the words change seldom and are
//! read at every pick, so they have a line to themselves that every core keeps a copy of. No read-modify-write on the
//! request path: the one there is publishes a verdict, when an endpoint's fate turns.

mod judged;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use policy::{BreakerState, Now, Outcome};

pub use judged::Judged;
use judged::JudgedCell;

/// One endpoint, as all workers share it. Outlives every list that names it.
#[derive(Debug)]
pub struct EndpointShared {
    words: Words,
    /// Open at it, over all workers. Counted where connections are made and closed, which is no request's path.
    connections: Connections,
    workers: Box<[EndpointCell]>,
}

/// Read at every pick, written seldom.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Words {
    admin: AtomicU64,
    health: AtomicU32,
    breaker: AtomicU64,
    ready_since: AtomicU64,
    ejected_until: AtomicU64,
    /// When the last try or probe began that got no answer, on the monotonic clock.
    silent_since: AtomicU64,
    /// Counts the intervals of outlier detection.
    interval: AtomicU32,
}

/// Alone on its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Connections {
    open: AtomicU32,
    /// One more than the worker that found no place left and none of its own idle; 0: nobody.
    wanted: AtomicU32,
}

/// A connection's place among those of its endpoint, free again when it is dropped.
#[derive(Debug)]
pub struct Held(Arc<EndpointShared>);

/// What one worker tells of an endpoint. Alone on its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct EndpointCell {
    in_flight: AtomicU32,
    /// 0 closed, 1 half-open, 2 open.
    breaker: AtomicU32,
    latency_nanos: AtomicU64,
    requests: AtomicU64,
    failures: AtomicU64,
    /// What its last request went over: a [`Spoken`], plus one.
    spoken: AtomicU32,
    /// Connections to it that lie idle, and those that came from another worker.
    idle: AtomicU32,
    borrowed: AtomicU64,
    /// When its last try began that succeeded, on the monotonic clock.
    well_since: AtomicU64,
    judged: JudgedCell,
}

/// What a request goes over to an endpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Spoken {
    Http11,
    Http2,
    Http3,
}

impl Spoken {
    const ALL: [Self; 3] = [Self::Http11, Self::Http2, Self::Http3];

    /// By the name that it has in TLS (ALPN).
    const fn text(self) -> &'static str {
        match self {
            Self::Http11 => "http/1.1",
            Self::Http2 => "h2",
            Self::Http3 => "h3",
        }
    }
}

const _: () = assert!(size_of::<EndpointCell>() == 128, "a cell is one pair of lines");

/// What the operator wants of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Admin {
    pub state: AdminState,
    /// In place of the weight that the endpoint was found with.
    pub weight: Option<u32>,
    pub breaker: BreakerOrder,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdminState {
    #[default]
    Ready,
    /// Nothing new goes to it; what it has is finished.
    Drain,
    /// As `Drain`, and idle connections to it are closed: nobody is there.
    Maint,
}

/// What the operator wants of an endpoint's breaker. It stands above evidence, and is no part of what workers agree on: a race of
/// evidence must not undo it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BreakerOrder {
    /// Evidence decides.
    #[default]
    Auto,
    /// Nothing goes through.
    Open,
    /// Everything goes through.
    Closed,
}

/// What the probes make of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Not probed, or not yet: asked as if it were well.
    #[default]
    Unknown,
    Up,
    Down,
}

/// An endpoint, summed over the workers.
#[derive(Clone, Copy, Debug, Default)]
pub struct EndpointSums {
    pub in_flight: u64,
    pub requests: u64,
    pub failures: u64,
    /// Mean of the workers that have measured it, in nanoseconds.
    pub latency_nanos: u64,
    /// Workers whose breaker is open, half-open, and all of them.
    pub open: usize,
    pub half_open: usize,
    pub workers: usize,
    /// Connections to it that lie idle, and how many ever went from one worker to another.
    pub idle: u64,
    pub borrowed: u64,
}

impl EndpointShared {
    /// `ready_since`: when it joined, on the monotonic clock.
    #[must_use]
    pub fn new(workers: usize, ready_since: Now) -> Self {
        let shared = Self {
            words: Words::default(),
            connections: Connections::default(),
            workers: (0..workers).map(|_| EndpointCell::default()).collect(),
        };
        shared.set_ready_since(ready_since);
        shared
    }

    /// The same endpoint in a pool that is met in another way: nothing is counted of it yet, and what was decided of it holds.
    #[must_use]
    pub fn heir(&self) -> Self {
        let copy = |word: &AtomicU64| AtomicU64::new(word.load(Ordering::Relaxed));
        let Words { admin, health, breaker, ready_since, ejected_until, silent_since, interval: _ } = &self.words;
        let words = Words {
            admin: copy(admin),
            health: AtomicU32::new(health.load(Ordering::Relaxed)),
            breaker: copy(breaker),
            ready_since: copy(ready_since),
            ejected_until: copy(ejected_until),
            silent_since: copy(silent_since),
            interval: AtomicU32::default(),
        };
        let workers = self.workers.iter().map(|_| EndpointCell::default()).collect();
        Self { words, connections: Connections::default(), workers }
    }

    #[must_use]
    pub fn sums(&self) -> EndpointSums {
        let mut sums = EndpointSums { workers: self.workers.len(), ..EndpointSums::default() };
        let mut measured = 0;
        for cell in &self.workers {
            sums.in_flight += u64::from(cell.in_flight.load(Ordering::Relaxed));
            sums.requests += cell.requests.load(Ordering::Relaxed);
            sums.failures += cell.failures.load(Ordering::Relaxed);
            sums.idle += u64::from(cell.idle.load(Ordering::Relaxed));
            sums.borrowed += cell.borrowed.load(Ordering::Relaxed);
            sums.open += usize::from(cell.breaker.load(Ordering::Relaxed) == 2);
            sums.half_open += usize::from(cell.breaker.load(Ordering::Relaxed) == 1);
            let latency = cell.latency_nanos.load(Ordering::Relaxed);
            measured += u64::from(latency > 0);
            sums.latency_nanos += latency;
        }
        sums.latency_nanos = sums.latency_nanos.checked_div(measured).unwrap_or(0);
        sums
    }

    /// A worker's last request went over this.
    pub(super) fn spoke(&self, worker: usize, spoken: Spoken) {
        self.workers[worker].spoken.store(spoken as u32 + 1, Ordering::Relaxed);
    }

    /// What the workers' last requests went over: each by its name, where they differ; nothing before the first one.
    #[must_use]
    pub fn spoken(&self) -> String {
        let of_some =
            |one: &Spoken| self.workers.iter().any(|cell| cell.spoken.load(Ordering::Relaxed) == *one as u32 + 1);
        let names: Vec<_> = Spoken::ALL.into_iter().filter(of_some).map(Spoken::text).collect();
        names.join(", ")
    }

    /// Tries out at it, over all workers.
    #[inline]
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.workers.iter().map(EndpointCell::in_flight).sum()
    }

    /// As [`in_flight`](Self::in_flight), over all workers but one.
    pub(super) fn in_flight_elsewhere(&self, worker: usize) -> u32 {
        let others = self.workers.iter().enumerate().filter(|&(other, _)| other != worker);
        others.map(|(_, cell)| cell.in_flight()).sum()
    }

    /// When the youngest try began that is known to have succeeded, at any worker.
    pub(super) fn well_since(&self) -> Now {
        Now::from_nanos(self.workers.iter().map(|cell| cell.well_since.load(Ordering::Relaxed)).max().unwrap_or(0))
    }

    /// A try or a probe that began then got no answer in its time.
    pub fn was_silent(&self, began: Now) {
        self.words.silent_since.fetch_max(began.nanos(), Ordering::Relaxed);
    }

    /// When the youngest try or probe began that got no answer.
    pub(super) fn silent_since(&self) -> Now {
        Now::from_nanos(self.words.silent_since.load(Ordering::Relaxed))
    }

    /// Whether operator and probes let new requests through. The breaker has a say of its own.
    #[inline]
    #[must_use]
    pub fn admits(&self) -> bool {
        self.admin().state == AdminState::Ready && self.health() != Health::Down
    }

    #[inline]
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::unpacked(self.words.admin.load(Ordering::Relaxed))
    }

    /// Only the control thread may.
    pub fn set_admin(&self, admin: Admin) {
        self.words.admin.store(admin.packed(), Ordering::Relaxed);
    }

    #[inline]
    #[must_use]
    pub fn health(&self) -> Health {
        match self.words.health.load(Ordering::Relaxed) {
            1 => Health::Up,
            2 => Health::Down,
            _ => Health::Unknown,
        }
    }

    /// Only its prober may.
    pub fn set_health(&self, health: Health) {
        self.words.health.store(health as u32, Ordering::Relaxed);
    }

    /// Whether the statistics of its pool keep it out at this moment.
    #[inline]
    #[must_use]
    pub fn is_ejected(&self, now: Now) -> bool {
        now.nanos_since(Now::ZERO) < self.words.ejected_until.load(Ordering::Relaxed)
    }

    /// Only the control thread may. `Now::ZERO`: not at all.
    pub fn set_ejected_until(&self, until: Now) {
        self.words.ejected_until.store(until.nanos(), Ordering::Relaxed);
    }

    /// What outlier detection compares, over all workers.
    #[must_use]
    pub fn judged(&self) -> Judged {
        let interval = self.words.interval.load(Ordering::Relaxed);
        let mut sum = Judged::default();
        self.workers.iter().for_each(|cell| sum.add(&cell.judged, interval));
        sum
    }

    /// What has been seen is judged: runs are looked for anew. Only the control thread may.
    pub fn begin_interval(&self) {
        self.words.interval.change(|interval| interval.wrapping_add(1));
    }

    /// What a worker makes of a try is noted for comparison.
    pub(super) fn compare(&self, worker: usize, outcome: &Outcome) {
        self.cell(worker).judged.note(outcome, self.words.interval.load(Ordering::Relaxed));
    }

    /// What workers agreed on of its breaker, in the form that `policy` gives it. Zero: nothing yet.
    #[inline]
    #[must_use]
    pub fn breaker_verdict(&self) -> u64 {
        self.words.breaker.load(Ordering::Relaxed)
    }

    /// Publishes a verdict. Of two the greater one counts (`policy::BreakerVerdict`), whoever comes first.
    pub fn raise_breaker(&self, verdict: u64) {
        self.words.breaker.fetch_max(verdict, Ordering::Relaxed);
    }

    /// Since when it has been fit for requests, on the monotonic clock: what a slow start counts from.
    #[inline]
    #[must_use]
    pub fn ready_since(&self) -> Now {
        Now::from_nanos(self.words.ready_since.load(Ordering::Relaxed))
    }

    pub fn set_ready_since(&self, since: Now) {
        self.words.ready_since.store(since.nanos_since(Now::ZERO), Ordering::Relaxed);
    }

    /// Connections open at it, over all workers.
    #[inline]
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.connections.open.load(Ordering::Relaxed)
    }

    /// A place for one more connection; `None` when it has as many as it may.
    pub(super) fn hold(self: &Arc<Self>, most: Option<u32>) -> Option<Held> {
        let most = most.unwrap_or(u32::MAX);
        let one_more = |count| (count < most).then(|| count + 1);
        self.connections.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Held(Arc::clone(self)))
    }

    /// This worker needs a connection and may not make one.
    pub(super) fn want(&self, worker: usize) {
        if self.connections.wanted.load(Ordering::Relaxed) == 0 {
            self.connections.wanted.store(worker as u32 + 1, Ordering::Relaxed);
        }
    }

    /// This worker has one now.
    pub(super) fn wants_no_more(&self, worker: usize) {
        let _ = self.connections.wanted.compare_exchange(worker as u32 + 1, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(super) fn is_wanted_by_another(&self, worker: usize) -> bool {
        let wanted = self.connections.wanted.load(Ordering::Relaxed);
        wanted != 0 && wanted != worker as u32 + 1
    }

    /// The other worker that wants one; the caller lets go of one then. What this worker itself wanted it has.
    pub(super) fn wanted_by_another(&self, worker: usize) -> Option<usize> {
        let wanted = &self.connections.wanted;
        if wanted.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let by = (wanted.swap(0, Ordering::Relaxed) as usize).checked_sub(1)?;
        (by != worker).then_some(by)
    }

    /// Of the other workers the one with the most idle connections, if any has one.
    pub(super) fn richest(&self, worker: usize) -> Option<usize> {
        let idle = self.workers.iter().map(|cell| cell.idle.load(Ordering::Relaxed)).enumerate();
        let others = idle.filter(|&(other, idle)| other != worker && idle > 0);
        others.max_by_key(|&(_, idle)| idle).map(|(other, _)| other)
    }

    pub(super) fn cell(&self, worker: usize) -> &EndpointCell {
        &self.workers[worker]
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.connections.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// When that began which has taken so long until now.
pub(super) fn began(now: Now, latency: Duration) -> Now {
    Now::from_nanos(now.nanos().saturating_sub(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX)))
}

impl EndpointCell {
    #[inline]
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn begun(&self) {
        self.in_flight.change(|count| count + 1);
    }

    pub(super) fn ended(&self, failed: bool) {
        self.in_flight.change(|count| count.saturating_sub(1));
        self.requests.change(|count| count + 1);
        self.failures.change(|count| count + u64::from(failed));
    }

    /// A try that took so long has succeeded.
    pub(super) fn was_well(&self, now: Now, latency: Duration) {
        self.well_since.store(began(now, latency).nanos(), Ordering::Relaxed);
    }

    pub(super) fn turned(&self, breaker: BreakerState) {
        let breaker = match breaker {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        };
        self.breaker.store(breaker, Ordering::Relaxed);
    }

    /// So many connections lie idle.
    #[inline]
    pub(super) fn keeps(&self, idle: usize) {
        self.idle.store(idle as u32, Ordering::Relaxed);
    }

    pub(super) fn borrowed(&self) {
        self.borrowed.change(|count| count + 1);
    }

    pub(super) fn learnt(&self, latency_nanos: u64) {
        self.latency_nanos.store(latency_nanos, Ordering::Relaxed);
    }
}

impl Admin {
    /// From the lowest byte: the state, whether a weight is set, the breaker's order; the weight in the high half.
    fn packed(self) -> u64 {
        let weight = self.weight.map_or(0, |weight| 1 << 8 | u64::from(weight) << 32);
        self.state as u64 | weight | (self.breaker as u64) << 16
    }

    fn unpacked(word: u64) -> Self {
        let state = match word & 0xff {
            1 => AdminState::Drain,
            2 => AdminState::Maint,
            _ => AdminState::Ready,
        };
        let breaker = match word >> 16 & 0xff {
            1 => BreakerOrder::Open,
            2 => BreakerOrder::Closed,
            _ => BreakerOrder::Auto,
        };
        Self { state, weight: (word & 1 << 8 != 0).then_some((word >> 32) as u32), breaker }
    }
}

impl AdminState {
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maint => "maint",
        }
    }
}

impl Health {
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// A store by the only writer: no read-modify-write is needed.
trait SingleWriter<T> {
    fn change(&self, change: impl FnOnce(T) -> T);
}

impl SingleWriter<u32> for AtomicU32 {
    fn change(&self, change: impl FnOnce(u32) -> u32) {
        self.store(change(self.load(Ordering::Relaxed)), Ordering::Relaxed);
    }
}

impl SingleWriter<u64> for AtomicU64 {
    fn change(&self, change: impl FnOnce(u64) -> u64) {
        self.store(change(self.load(Ordering::Relaxed)), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
