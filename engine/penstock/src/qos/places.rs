//! The places of a pool whose limit is a number: one count for all workers. Where its endpoints have the limits, they count, and what is here is who
//! waits for one.
//!
//! A place is taken by a compare-exchange on the count, so there is never one too many, and all of them can be had on one worker.
//! A place that came free goes to those who wait. **Between workers that have somebody waiting** it goes by this law: a worker is entitled to
//! `⌈limit × demand ÷ all demand⌉` places, where demand is what it has in flight and waiting. Who has less than that goes before who has not;
//! of two that both have less, who got nothing for longer. So no worker starves however few places there are, and the split follows demand within
//! a place a worker.
//!
//! A strict class stands above that law: as many places as its requests wait for anywhere are left to them, while it has any of its
//! [`Preference`] left, which is one for all workers. Of places at endpoints nobody knows how many come free: each is left, for [`LEFT_FOR`] at the most,
//! because a worker may know why it does not take one.
//!
//! A worker gives its own waiting requests what it gives back itself; what others give back it finds by looking, every
//! [`limits::PLACES_LOOK`], only while somebody waits. Who has not looked for ten times that is not waited for: a worker that has stopped stops
//! nobody else.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use policy::{Now, Preference};

use crate::limits;

#[derive(Debug)]
pub(super) struct Places {
    /// `None`: the endpoints have them.
    limit: Option<u32>,
    count: Count,
    workers: Box<[WorkerPlaces]>,
}

/// Written at every request of a limited pool.
#[derive(Debug)]
#[repr(align(128))]
struct Count {
    in_flight: AtomicU32,
    /// Workers that have somebody waiting.
    waiting: AtomicU32,
    /// What the strict class has left, µs. Written where there is one, and somebody waits.
    preference: AtomicI64,
}

/// One writer: its worker.
#[derive(Debug, Default)]
#[repr(align(128))]
struct WorkerPlaces {
    in_flight: AtomicU32,
    waiting: AtomicU32,
    /// Those of them that are of the strict class.
    strict: AtomicU32,
    /// Since when it has been waiting and got nothing, ns.
    hungry_since: AtomicU64,
    looked_at: AtomicU64,
    /// Since when it has left places to others, ns. 0: it has taken one since.
    left_since: AtomicU64,
}

/// How long a place at an endpoint is left to a strict request of another worker: that looks three times.
const LEFT_FOR: Duration = limits::PLACES_LOOK.saturating_mul(3);

impl Places {
    pub(super) fn new(limit: Option<u32>, workers: usize) -> Self {
        let preference = AtomicI64::new(Preference::FULL.us());
        let count = Count { in_flight: AtomicU32::default(), waiting: AtomicU32::default(), preference };
        Self { limit, count, workers: (0..workers).map(|_| WorkerPlaces::default()).collect() }
    }

    pub(super) const fn limit(&self) -> Option<u32> {
        self.limit
    }

    pub(super) fn is_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.count.in_flight.load(Ordering::Relaxed) >= limit)
    }

    pub(super) fn is_shared(&self) -> bool {
        self.workers.len() > 1
    }

    pub(super) fn preference(&self) -> Preference {
        Preference::new(self.count.preference.load(Ordering::Relaxed))
    }

    /// The strict class has spent or earned so much.
    pub(super) fn change_preference(&self, before: Preference, after: Preference) {
        let change = after.us() - before.us();
        if change != 0 {
            let changed = |us: i64| Some(Preference::new(us + change).us());
            // It never refuses.
            let _ = self.count.preference.fetch_update(Ordering::Relaxed, Ordering::Relaxed, changed);
        }
    }

    /// Whether somebody waits on another worker who is not of the strict class.
    pub(super) fn others_wait(&self, worker: usize) -> bool {
        let waits = |of: &WorkerPlaces| of.waiting.load(Ordering::Relaxed) > of.strict.load(Ordering::Relaxed);
        self.workers.iter().enumerate().any(|(other, of)| other != worker && waits(of))
    }

    /// Takes a place for `worker`, if there is one that no other worker should have. `strict`: it is for the strict class.
    pub(super) fn take(&self, worker: usize, now: Now, strict: bool) -> bool {
        if self.yields(worker, now, strict) {
            return false;
        }
        let own = &self.workers[worker];
        let Some(limit) = self.limit else {
            own.left_since.store(0, Ordering::Relaxed);
            return true;
        };
        let one_more = |count: u32| (count < limit).then_some(count + 1);
        if self.count.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            return false;
        }
        own.in_flight.store(own.in_flight.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        own.hungry_since.store(now.nanos(), Ordering::Relaxed);
        true
    }

    pub(super) fn give_back(&self, worker: usize) {
        if self.limit.is_none() {
            return;
        }
        let own = &self.workers[worker];
        own.in_flight.store(own.in_flight.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
        self.count.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// So many wait on `worker`, so many of them of the strict class.
    pub(super) fn set_waiting(&self, worker: usize, now: Now, waiting: u32, strict: u32) {
        let own = &self.workers[worker];
        let before = own.waiting.load(Ordering::Relaxed);
        if before == 0 && waiting > 0 {
            own.hungry_since.store(now.nanos(), Ordering::Relaxed);
            own.looked_at.store(now.nanos(), Ordering::Relaxed);
            self.count.waiting.fetch_add(1, Ordering::Relaxed);
        } else if before > 0 && waiting == 0 {
            self.count.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        own.waiting.store(waiting, Ordering::Relaxed);
        own.strict.store(strict, Ordering::Relaxed);
    }

    /// `worker` is still there and looks for places.
    pub(super) fn looks(&self, worker: usize, now: Now) {
        self.workers[worker].looked_at.store(now.nanos(), Ordering::Relaxed);
    }

    /// Whether a place should be left to another worker.
    fn yields(&self, worker: usize, now: Now, strict: bool) -> bool {
        let own = &self.workers[worker];
        let own_waiting = own.waiting.load(Ordering::Relaxed);
        let others = self.count.waiting.load(Ordering::Relaxed).saturating_sub(u32::from(own_waiting > 0));
        if others == 0 {
            return false;
        }
        let longest = 10 * limits::PLACES_LOOK.as_nanos() as u64;
        let waiting_elsewhere = || {
            let others = self.workers.iter().enumerate().filter(|(other, _)| *other != worker);
            others.map(|(_, of)| of).filter(|of| {
                let looked = now.nanos().saturating_sub(of.looked_at.load(Ordering::Relaxed));
                of.waiting.load(Ordering::Relaxed) > 0 && looked < longest
            })
        };
        let prefers = self.preference().is_left();
        let first = strict && prefers;
        if prefers && !first {
            let ahead: u32 = waiting_elsewhere().map(|of| of.strict.load(Ordering::Relaxed)).sum();
            let is_theirs = || match self.limit {
                Some(limit) => ahead >= limit.saturating_sub(self.count.in_flight.load(Ordering::Relaxed)),
                None => own.leaves_one(now),
            };
            if ahead > 0 && is_theirs() {
                return true;
            }
        }
        let Some(limit) = self.limit else { return false };
        let demand = |of: &WorkerPlaces| {
            u64::from(of.in_flight.load(Ordering::Relaxed)) + u64::from(of.waiting.load(Ordering::Relaxed))
        };
        // Who asks without having waited wants one.
        let all: u64 = self.workers.iter().map(demand).sum::<u64>() + u64::from(own_waiting == 0);
        let is_entitled = |of: &WorkerPlaces, demand: u64| {
            let share = (u64::from(limit) * demand).div_ceil(all.max(1));
            u64::from(of.in_flight.load(Ordering::Relaxed)) < share
        };
        let own_entitled = is_entitled(own, demand(own) + u64::from(own_waiting == 0));
        let own_hungry = if own_waiting > 0 { own.hungry_since.load(Ordering::Relaxed) } else { now.nanos() };
        waiting_elsewhere().any(|of| {
            (!first || of.strict.load(Ordering::Relaxed) > 0)
                && is_entitled(of, demand(of))
                && (!own_entitled || of.hungry_since.load(Ordering::Relaxed) < own_hungry)
        })
    }
}

impl WorkerPlaces {
    /// Whether it leaves a place at an endpoint to another worker once more.
    fn leaves_one(&self, now: Now) -> bool {
        let since = self.left_since.load(Ordering::Relaxed);
        if since == 0 {
            self.left_since.store(now.nanos(), Ordering::Relaxed);
        }
        since == 0 || now.since(Now::from_nanos(since)) < LEFT_FOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::Random;

    const fn at(us: u64) -> Now {
        Now::from_nanos(1_000_000_000 + us * 1000)
    }

    #[test]
    fn one_worker_can_have_them_all_and_no_more() {
        let places = Places::new(Some(8), 2);
        assert_eq!((0..20).filter(|_| places.take(0, at(0), false)).count(), 8);
        assert!(!places.take(1, at(0), false));
        places.give_back(0);
        assert!(places.take(1, at(0), false));
        let held = |worker: usize| places.workers[worker].in_flight.load(Ordering::Relaxed);
        assert_eq!((held(0), held(1)), (7, 1));
    }

    /// Workers with so many always waiting; a place is held for a random time. Gives places held by each on the mean.
    fn held(limit: u32, waiting: &[u32]) -> Vec<f64> {
        let places = Places::new(Some(limit), waiting.len());
        let mut random = Random::new(7);
        waiting.iter().enumerate().for_each(|(worker, &waiting)| places.set_waiting(worker, at(0), waiting, 0));
        let (mut ends, mut sums): (Vec<Vec<u64>>, _) = (vec![Vec::new(); waiting.len()], vec![0.0; waiting.len()]);
        for us in 0..400_000 {
            for (worker, ends) in ends.iter_mut().enumerate() {
                let before = ends.len();
                ends.retain(|&end| end > us);
                let gave = before - ends.len();
                (0..gave).for_each(|_| places.give_back(worker));
                // As the room does: at once what it gave back, and by the clock what others did.
                let looks = us % 1000 == 0;
                if looks {
                    places.looks(worker, at(us));
                }
                while (looks || gave > 0) && waiting[worker] > 0 && places.take(worker, at(us), false) {
                    ends.push(us + 1 + random.below(10_000));
                }
                sums[worker] += ends.len() as f64 / 400_000.0;
            }
        }
        sums
    }

    #[test]
    fn places_follow_demand_and_nobody_starves() {
        for (limit, waiting, wanted) in [
            (8, [50, 50], [4.0, 4.0]),
            (8, [100, 2], [7.0, 0.5]),
            (8, [60, 0], [7.5, 0.0]),
            (20, [90, 30], [14.0, 5.4]),
        ] {
            let held = held(limit, &waiting);
            for (held, wanted) in held.iter().zip(wanted) {
                assert!((held - wanted).abs() <= 1.0, "{limit} places, {waiting:?} waiting: {held} for {wanted}");
            }
        }
        let one = held(1, &[50, 50]);
        assert!(one.iter().all(|held| (0.3..0.6).contains(held)), "{one:?}");
    }

    #[test]
    fn a_worker_that_has_stopped_stops_nobody() {
        let places = Places::new(Some(1), 2);
        assert!(places.take(0, at(0), false));
        places.set_waiting(1, at(0), 1, 0);
        places.set_waiting(0, at(1), 1, 0);
        places.give_back(0);
        assert!(!places.take(0, at(500), false), "worker 1 has got nothing for longer");
        assert!(places.take(0, at(11_000), false), "and has not looked");
    }

    /// Worker 0 always has somebody waiting, and worker 1 somebody of the strict class, each `every` µs. Each is served for 1 ms; one of worker 1's places is taken for good.
    /// Gives what the strict ones waited at the most, µs, and their part of all.
    fn strict_beside_bulk(limit: u32, every: u64) -> (u64, f64) {
        let places = Places::new(Some(limit), 2);
        places.set_waiting(0, at(0), 50, 0);
        assert!(places.take(1, at(0), false), "a long one of worker 1's");
        let (mut ends, mut row, mut longest): ([Vec<u64>; 2], Vec<u64>, u64) = Default::default();
        let mut served = [0_u32; 2];
        for us in 0..1_000_000 {
            if us % every == 0 {
                row.push(us);
                places.set_waiting(1, at(us), row.len() as u32, row.len() as u32);
            }
            for worker in 0..2 {
                let before = ends[worker].len();
                ends[worker].retain(|&end| end > us);
                let gave = before - ends[worker].len();
                (0..gave).for_each(|_| places.give_back(worker));
                if us % 1000 == 0 {
                    places.looks(worker, at(us));
                } else if gave == 0 {
                    continue;
                }
                while worker == 0 || !row.is_empty() {
                    let before = places.preference();
                    if !places.take(worker, at(us), worker == 1) {
                        break;
                    }
                    ends[worker].push(us + 1000);
                    served[worker] += 1;
                    let after = if worker == 1 { before.spent(1000) } else { before.earned(1000, 90) };
                    places.change_preference(before, after);
                    if worker == 1 {
                        longest = longest.max(us - row.remove(0));
                        places.set_waiting(1, at(us), row.len() as u32, row.len() as u32);
                    }
                }
            }
        }
        (longest, f64::from(served[1]) / f64::from(served[0] + served[1]))
    }

    #[test]
    fn places_at_endpoints_are_left_to_a_strict_class_for_a_moment() {
        let places = Places::new(None, 2);
        assert!((0..100).all(|_| places.take(0, at(0), false)), "endpoints count them");
        places.set_waiting(1, at(0), 1, 0);
        assert!(places.take(0, at(0), false), "who comes first has it");
        places.set_waiting(1, at(0), 1, 1);
        assert!(places.take(1, at(0), true));
        for us in [10, 2_900] {
            places.looks(1, at(us));
            assert!(!places.take(0, at(us), false) && places.take(0, at(us), true), "{us} µs");
            places.workers[0].left_since.store(at(10).nanos(), Ordering::Relaxed);
        }
        assert!(places.take(0, at(3_010), false), "it has been seen, and nobody has taken it");
        assert!(!places.take(0, at(3_020), false), "the next one is left again");
        places.set_waiting(1, at(3_030), 0, 0);
        assert!(places.take(0, at(3_030), false));
    }

    #[test]
    fn a_strict_class_has_the_next_place_of_any_worker_up_to_its_share() {
        for limit in [2, 8] {
            let (longest, _) = strict_beside_bulk(limit, 5_300);
            assert!(longest <= 2_000, "{limit} places: {longest} µs; one is served, and one look");
            let (_, part) = strict_beside_bulk(limit, 50);
            // Nine tenths, and the tenth of a second that it has saved up.
            assert!((0.8..0.915).contains(&part), "{limit} places, a flood of it: {part}");
        }
    }
}
