//! Whose turn it is when requests of several classes wait for the same pool.
//!
//! Deficit round robin (Shreedhar, Varghese: "Efficient Fair Queueing using Deficit Round Robin", SIGCOMM 1995), in estimated µs of work instead
//! of bytes: a class that sends dear requests gets fewer of them. A class is served while its deficit lasts, and gets its weight in quanta
//! each round. An empty class keeps no deficit, and its part goes to the others: nothing idles while somebody waits.
//!
//! One class may be strict (health checks, administration): it goes before all others, as long as it takes no more than its share of the work
//! while they wait. Then it waits too, so that a flood of it starves nobody. A pool that several rooms lead to has one such share ([`Preference`]).
//!
//! Each class waits in a [`Queue`] of its own, with its own length, patience and CoDel.

use crate::{
    Now,
    queue::{Place, Queue, QueueSettings, Reason, Served, Waiting},
};
use std::time::Duration;

/// Work that a class of weight 1 may do a round, µs. Small against a request: classes then take turns request by request, and nobody waits
/// for a long batch of another's. Rounds in which nobody could be served cost no time, since they are counted and not walked.
const QUANTUM_US: u64 = 100;
/// Unused preference that the strict class may save up, µs of work: some dozens of probes at once.
const STRICT_CREDIT_US: i64 = 100_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassSettings {
    /// Part of the work among the classes that wait. Zero counts as one.
    pub weight: u16,
    pub queue: QueueSettings,
    /// For the strict class: the percentage of the work, 1 to 99, up to which it goes before all others.
    pub strict_percent: Option<u8>,
}

impl Default for ClassSettings {
    fn default() -> Self {
        Self { weight: 1, queue: QueueSettings::default(), strict_percent: None }
    }
}

/// Somebody who will not be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dropped {
    pub id: u64,
    pub class: usize,
    pub reason: Reason,
}

/// A place in a waiting room, for leaving it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seat {
    class: u32,
    place: Place,
}

/// Somebody who is served now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    pub class: usize,
    pub served: Served,
}

#[derive(Debug, Clone)]
struct Class {
    queue: Queue,
    quantum_us: u64,
    deficit_us: u64,
}

/// What preference the strict class has left, in µs of work that it may go first for. Rooms that share a pool share it ([`WaitingRoom::heed`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preference(i64);

impl Preference {
    pub const FULL: Self = Self(STRICT_CREDIT_US);

    #[must_use]
    pub const fn new(us: i64) -> Self {
        let least = if us < -STRICT_CREDIT_US { -STRICT_CREDIT_US } else { us };
        Self(if least > STRICT_CREDIT_US { STRICT_CREDIT_US } else { least })
    }

    #[must_use]
    pub const fn us(self) -> i64 {
        self.0
    }

    /// Without any, the strict class waits while others do.
    #[must_use]
    pub const fn is_left(self) -> bool {
        self.0 > 0
    }

    /// Somebody of the strict class was served while others waited.
    #[must_use]
    pub fn spent(self, cost_us: u32) -> Self {
        Self::new(self.0 - i64::from(cost_us.max(1)))
    }

    /// Somebody else was served: the strict class may have `percent` of all work.
    #[must_use]
    pub fn earned(self, cost_us: u32, percent: u8) -> Self {
        let percent = i64::from(percent.clamp(1, 99));
        // Rounded up, or requests of next to no cost would earn nothing.
        Self::new(self.0 + (i64::from(cost_us.max(1)) * percent + 99 - percent) / (100 - percent))
    }
}

#[derive(Debug, Clone)]
struct Strict {
    class: usize,
    preference: Preference,
    percent: u8,
    /// In another room of the pool somebody waits who is not of the strict class.
    others_elsewhere: bool,
}

/// The requests that wait for one pool, in their classes.
#[derive(Debug, Clone)]
pub struct WaitingRoom {
    classes: Box<[Class]>,
    strict: Option<Strict>,
    /// Whose turn it is.
    turn: usize,
    len: u32,
}

impl WaitingRoom {
    /// A class is named by its place in `settings`. Of several strict ones the first is it.
    #[must_use]
    pub fn new(settings: &[ClassSettings]) -> Self {
        let class = |settings: &ClassSettings| Class {
            queue: Queue::new(settings.queue),
            quantum_us: u64::from(settings.weight.max(1)) * QUANTUM_US,
            deficit_us: 0,
        };
        let strict = settings.iter().enumerate().find_map(|(class, settings)| {
            let percent = settings.strict_percent?;
            Some(Strict { class, preference: Preference::FULL, percent, others_elsewhere: false })
        });
        Self { classes: settings.iter().map(class).collect(), strict, turn: 0, len: 0 }
    }

    /// All that wait.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.len
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Those of them that are of the strict class.
    #[must_use]
    pub fn strict_len(&self) -> u32 {
        self.strict.as_ref().map_or(0, |strict| self.classes[strict.class].queue.len())
    }

    /// Whether the next one is of the strict class because that goes first.
    #[must_use]
    pub fn prefers(&self) -> bool {
        self.strict_len() > 0 && self.strict.as_ref().is_some_and(|strict| strict.preference.is_left())
    }

    /// What the strict class has left, if there is one.
    #[must_use]
    pub fn preference(&self) -> Option<Preference> {
        self.strict.as_ref().map(|strict| strict.preference)
    }

    /// This is one of several rooms of a pool: what the strict class has left over all of them, and whether somebody who is not of it waits in another one.
    pub fn heed(&mut self, preference: Preference, others_elsewhere: bool) {
        if let Some(strict) = &mut self.strict {
            (strict.preference, strict.others_elsewhere) = (preference, others_elsewhere);
        }
    }

    /// The queue of a class.
    #[must_use]
    pub fn queue(&self, class: usize) -> Option<&Queue> {
        self.classes.get(class).map(|class| &class.queue)
    }

    /// Lets somebody wait.
    ///
    /// # Errors
    /// Why it may not: as [`Queue::push`]. A class that does not exist is full.
    pub fn push(&mut self, now: Now, class: usize, waiting: Waiting) -> Result<Seat, Reason> {
        let index = u32::try_from(class).map_err(|_| Reason::Full)?;
        let class = self.classes.get_mut(class).ok_or(Reason::Full)?;
        if class.queue.is_empty() {
            class.deficit_us = 0;
        }
        let place = class.queue.push(now, waiting)?;
        self.len += 1;
        Ok(Seat { class: index, place })
    }

    /// Serves one: call it when a place in the pool came free, and nobody else has taken it. Tells whom it had to send away on the way.
    pub fn pop(&mut self, now: Now, dropped: &mut impl FnMut(Dropped)) -> Option<Next> {
        let next = self.choose(now, dropped).and_then(|class| {
            let served = self.classes[class].queue.take(now)?;
            Some(Next { class, served })
        });
        self.len = self.classes.iter().map(|class| class.queue.len()).sum();
        self.charge(next?);
        next
    }

    /// Somebody leaves. `None` if it had left already.
    pub fn remove(&mut self, seat: Seat) -> Option<u64> {
        let id = self.classes.get_mut(seat.class as usize)?.queue.remove(seat.place)?;
        self.len -= 1;
        Some(id)
    }

    /// As [`Queue::expire`], for all classes.
    pub fn expire(&mut self, now: Now, dropped: &mut impl FnMut(Dropped)) {
        for (index, class) in self.classes.iter_mut().enumerate() {
            class.queue.expire(now, &mut |id, reason| dropped(Dropped { id, class: index, reason }));
        }
        self.len = self.classes.iter().map(|class| class.queue.len()).sum();
    }

    /// As [`Queue::retry_after`]; a class's own pace knows what part of the pool it gets.
    #[must_use]
    pub fn retry_after(&self, class: usize) -> Duration {
        self.queue(class).map_or(Duration::ZERO, Queue::retry_after)
    }

    fn choose(&mut self, now: Now, dropped: &mut impl FnMut(Dropped)) -> Option<usize> {
        let preferred = self.strict.as_ref().filter(|strict| strict.preference.is_left()).map(|strict| strict.class);
        if let Some(class) = preferred
            && self.cost(class, now, dropped).is_some()
        {
            return Some(class);
        }
        let by_weight = self.round(now, dropped);
        // The strict class alone, and without credit: nobody is kept waiting by it.
        by_weight.or_else(|| {
            let class = self.strict.as_ref()?.class;
            self.cost(class, now, dropped).map(|_| class)
        })
    }

    /// The next one by deficit round robin, among the classes that are not strict.
    fn round(&mut self, now: Now, dropped: &mut impl FnMut(Dropped)) -> Option<usize> {
        if let Some(class) = self.lap(now, dropped) {
            return Some(class);
        }
        // Nobody's deficit was enough. The rounds until somebody's is are all alike: taken at once.
        let rounds = (0..self.classes.len()).filter_map(|class| self.rounds_missing(class, now, dropped)).min()?;
        for index in 0..self.classes.len() {
            if !self.is_strict(index) && !self.classes[index].queue.is_empty() {
                let class = &mut self.classes[index];
                class.deficit_us = class.deficit_us.saturating_add(class.quantum_us.saturating_mul(rounds));
            }
        }
        self.lap(now, dropped)
    }

    /// From the class whose turn it is: the first that can pay for its next one.
    fn lap(&mut self, now: Now, dropped: &mut impl FnMut(Dropped)) -> Option<usize> {
        let len = self.classes.len();
        for class in (self.turn..len).chain(0..self.turn.min(len)) {
            if self.rounds_missing(class, now, dropped) == Some(0) {
                self.turn = class;
                return Some(class);
            }
        }
        None
    }

    /// Quanta until a class can pay for its next one. `None`: it has none, or is strict.
    fn rounds_missing(&mut self, class: usize, now: Now, dropped: &mut impl FnMut(Dropped)) -> Option<u64> {
        if self.is_strict(class) {
            return None;
        }
        let cost = self.cost(class, now, dropped);
        let class = &mut self.classes[class];
        let Some(cost) = cost else {
            class.deficit_us = 0;
            return None;
        };
        Some(cost.saturating_sub(class.deficit_us).div_ceil(class.quantum_us))
    }

    /// What serving a class's next one costs, µs, at least one: who costs nothing would have the pool for itself.
    fn cost(&mut self, class: usize, now: Now, dropped: &mut impl FnMut(Dropped)) -> Option<u64> {
        let queue = &mut self.classes[class].queue;
        let cost = queue.candidate(now, &mut |id, reason| dropped(Dropped { id, class, reason }))?;
        Some(u64::from(cost.max(1)))
    }

    fn charge(&mut self, next: Next) {
        let cost = next.served.cost_us.max(1);
        let others_wait =
            self.classes.iter().enumerate().any(|(index, class)| index != next.class && !class.queue.is_empty());
        match &mut self.strict {
            Some(strict) if strict.class == next.class => {
                if others_wait || strict.others_elsewhere {
                    strict.preference = strict.preference.spent(cost);
                }
            }
            strict => {
                if let Some(strict) = strict {
                    strict.preference = strict.preference.earned(cost, strict.percent);
                }
                let class = &mut self.classes[next.class];
                class.deficit_us = class.deficit_us.saturating_sub(cost.into());
            }
        }
    }

    fn is_strict(&self, class: usize) -> bool {
        self.strict.as_ref().is_some_and(|strict| strict.class == class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now = Now::from_secs(1);

    fn room(weights: &[(u16, Option<u8>)]) -> WaitingRoom {
        let settings: Vec<_> = weights
            .iter()
            .map(|&(weight, strict_percent)| ClassSettings { weight, strict_percent, ..ClassSettings::default() })
            .collect();
        WaitingRoom::new(&settings)
    }

    fn waiting(cost_us: u32) -> Waiting {
        Waiting { id: 7, cost_us, deadline: None }
    }

    fn never(gone: Dropped) {
        panic!("{gone:?}");
    }

    /// Work done for each class, in µs, while each that has a cost always waits.
    fn work(room: &mut WaitingRoom, costs: &[Option<u32>], turns: u32) -> Vec<f64> {
        let mut done = vec![0.0; costs.len()];
        for _ in 0..turns {
            for (class, cost) in costs.iter().enumerate() {
                while let Some(cost) = cost
                    && room.queue(class).unwrap().len() < 2
                {
                    room.push(NOW, class, waiting(*cost)).unwrap();
                }
            }
            let next = room.pop(NOW, &mut never).expect("nobody idles while somebody waits");
            done[next.class] += f64::from(next.served.cost_us);
        }
        let all: f64 = done.iter().sum();
        done.iter().map(|part| part / all).collect()
    }

    #[test]
    fn work_divides_by_weight_whatever_requests_cost() {
        for (costs, turns) in
            [([1000, 1000, 1000], 200_000), ([50, 20_000, 700], 200_000), ([1, 1, 1_000_000], 3_000_000)]
        {
            let found = work(&mut room(&[(1, None), (3, None), (4, None)]), &costs.map(Some), turns);
            for (found, wanted) in found.iter().zip([0.125, 0.375, 0.5]) {
                assert!((found / wanted - 1.0).abs() < 0.02, "{costs:?}: {found} for {wanted}");
            }
        }
        let free = work(&mut room(&[(1, None), (1, None)]), &[Some(0), Some(1)], 1000);
        assert_eq!(free, [0.0, 1.0], "who costs nothing takes turns all the same");
    }

    #[test]
    fn what_one_does_not_use_the_others_get() {
        let mut room = room(&[(1, None), (3, None), (4, None)]);
        let found = work(&mut room, &[Some(500), None, Some(900)], 50_000);
        assert!((found[0] / 0.2 - 1.0).abs() < 0.02, "{found:?}");
        assert_eq!(work(&mut room, &[None, Some(10), None], 50_000)[1].round(), 1.0);
    }

    #[test]
    fn the_strict_class_goes_first_up_to_its_share() {
        let mut room = room(&[(1, None), (1, Some(10))]);
        for _ in 0..20 {
            room.push(NOW, 0, waiting(1000)).unwrap();
            room.push(NOW, 1, waiting(1000)).unwrap();
        }
        for _ in 0..20 {
            assert_eq!(room.pop(NOW, &mut never).unwrap().class, 1);
        }
        let flooded = work(&mut room, &[Some(1000), Some(1000)], 50_000);
        assert!((0.09..0.11).contains(&flooded[1]), "{flooded:?}");
        let mut alone = self::room(&[(1, None), (1, Some(10))]);
        assert_eq!(work(&mut alone, &[None, Some(1000)], 1000), [0.0, 1.0]);
    }

    #[test]
    fn two_rooms_of_a_pool_share_what_the_strict_class_may_have() {
        let mut rooms = [room(&[(1, None), (1, Some(90))]), room(&[(1, None), (1, Some(90))])];
        let (mut shared, mut strict) = (Preference::FULL, 0);
        for turn in 0..10_000 {
            // All that is strict comes to one of them, and all that is not to the other.
            for (class, room) in [1, 0].into_iter().zip(&mut rooms) {
                while room.queue(class).unwrap().len() < 2 {
                    room.push(NOW, class, waiting(1000)).unwrap();
                }
                room.heed(shared, class == 1);
            }
            let first = usize::from(!rooms[0].prefers());
            strict += u32::from(first == 0 && turn >= 100);
            rooms[first].pop(NOW, &mut never).unwrap();
            shared = rooms[first].preference().unwrap();
        }
        assert!((8_900..=9_000).contains(&strict), "{strict} of 9,900");
    }

    #[test]
    fn nobody_and_nowhere() {
        let mut room = room(&[(1, None)]);
        assert_eq!(room.pop(NOW, &mut never), None);
        assert_eq!(room.push(NOW, 3, waiting(1)), Err(Reason::Full));
        let seat = room.push(NOW, 0, waiting(1)).unwrap();
        assert_eq!((room.len(), room.remove(seat), room.remove(seat)), (1, Some(7), None));
        assert!(room.is_empty());
        assert_eq!(WaitingRoom::new(&[]).pop(NOW, &mut never), None);
    }
}
