//! One class's waiting room: who waits for a place in a pool, who is served next, and who is told to go.
//!
//! - **Bounded**: so many at most, and none longer than `wait_max`.
//! - **CoDel** (Nichols, Jacobson et al., RFC 8289): a queue that was above its target for a whole interval is a standing one; it is shortened from
//!   its old end, ever faster until it is below the target again. Bursts shorter than that pass untouched.
//! - **Adaptive LIFO** (Maurer: "Fail at Scale", ACM Queue 13(8), 2015): while the queue stands, the youngest is served first. In turn, each would be
//!   served when its client has nearly given up; this way most are served at once, and the old end pays, by CoDel and by `wait_max`.
//! - **Deadlines**: whom there is no time left to serve is told so at once, on entering if the row before it already takes too long.
//!
//! What holds: every id that was pushed leaves exactly once, as served, dropped or removed. Storage is one block taken at construction; pushing,
//! taking and removing are O(1), but for those dropped on the way.

use crate::{Now, time::nanos};
use std::time::Duration;

/// Weight of a new gap between two that are served: an eighth, as in TCP's round-trip estimate (RFC 6298).
const GAP_SHIFT: u32 = 3;
/// No client is told to come back later than this: the estimate is worth less by then.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Outside the storage: the end of a list.
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueSettings {
    /// Requests that may wait. 40 bytes of storage each.
    pub length_max: u32,
    /// How long one may wait: `queue = "200ms"`.
    pub wait_max: Duration,
    /// CoDel's target: waiting that is no reason to worry (RFC 8289, section 4.4).
    pub target: Duration,
    /// CoDel's interval: how long a queue may take to come below the target (RFC 8289, section 4.3).
    pub interval: Duration,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            length_max: 1024,
            wait_max: Duration::from_millis(200),
            target: Duration::from_millis(5),
            interval: Duration::from_millis(100),
        }
    }
}

/// Who waits. `id` means something to the caller alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    pub id: u64,
    /// How long serving it takes, as far as one knows, µs.
    pub cost_us: u32,
    /// When its answer is of no use any more.
    pub deadline: Option<Now>,
}

/// Why somebody is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The queue is as long as it may be.
    Full,
    /// The queue stands, and this one has waited longest.
    Codel,
    /// There is no time left to serve it, or it has waited as long as it may.
    Deadline,
}

/// A place in a queue, for leaving it. Stale ones are recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    slot: u32,
    generation: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    pub id: u64,
    pub cost_us: u32,
    pub waited: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    id: u64,
    since: Now,
    /// The latest moment to begin serving it.
    latest: Now,
    cost_us: u32,
    /// Odd while somebody waits here.
    generation: u32,
    older: u32,
    /// In the free list: the next free one.
    younger: u32,
}

const _: () = assert!(size_of::<Node>() == 40);

/// RFC 8289, section 5: the names are its own.
#[derive(Debug, Clone, Copy, Default)]
struct Codel {
    first_above_time: Option<Now>,
    drop_next: Now,
    count: u32,
    last_count: u32,
    dropping: bool,
}

#[derive(Debug, Clone)]
pub struct Queue {
    nodes: Box<[Node]>,
    free: u32,
    oldest: u32,
    youngest: u32,
    len: u32,
    codel: Codel,
    wait_max_ns: u64,
    target_ns: u64,
    interval_ns: u64,
    /// Time between two that are served while others wait, ns.
    gap_ns: u64,
    last_take: Now,
}

impl Queue {
    #[must_use]
    pub fn new(settings: QueueSettings) -> Self {
        let len = settings.length_max.min(NONE - 1);
        let node = |slot: u32| Node {
            id: 0,
            since: Now::ZERO,
            latest: Now::ZERO,
            cost_us: 0,
            generation: 0,
            older: NONE,
            younger: if slot + 1 < len { slot + 1 } else { NONE },
        };
        Self {
            nodes: (0..len).map(node).collect(),
            free: if len > 0 { 0 } else { NONE },
            oldest: NONE,
            youngest: NONE,
            len: 0,
            codel: Codel::default(),
            wait_max_ns: nanos(settings.wait_max),
            target_ns: nanos(settings.target),
            interval_ns: nanos(settings.interval).max(1),
            gap_ns: 0,
            last_take: Now::ZERO,
        }
    }

    #[must_use]
    pub const fn len(&self) -> u32 {
        self.len
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the queue stands, and so serves the youngest first.
    #[must_use]
    pub const fn stands(&self) -> bool {
        self.codel.dropping
    }

    /// Joins the queue.
    ///
    /// # Errors
    /// [`Reason::Full`], or [`Reason::Deadline`] if its turn would come too late.
    pub fn push(&mut self, now: Now, waiting: Waiting) -> Result<Place, Reason> {
        let latest = self.latest(now, &waiting).ok_or(Reason::Deadline)?;
        // While the youngest goes first, the row before it does not matter.
        let row = if self.stands() { 0 } else { self.row_ns() };
        if now.plus_nanos(row) > latest {
            return Err(Reason::Deadline);
        }
        let slot = self.free;
        let Some(node) = self.nodes.get_mut(slot as usize) else { return Err(Reason::Full) };
        self.free = node.younger;
        *node = Node {
            id: waiting.id,
            since: now,
            latest,
            cost_us: waiting.cost_us,
            generation: node.generation.wrapping_add(1),
            older: self.youngest,
            younger: NONE,
        };
        let generation = node.generation;
        self.link(self.youngest, slot);
        self.youngest = slot;
        self.len += 1;
        Ok(Place { slot, generation })
    }

    /// Who would be served now, by its cost in µs. Those whose time is over are dropped first.
    pub fn candidate(&mut self, now: Now, dropped: &mut impl FnMut(u64, Reason)) -> Option<u32> {
        self.codel(now, dropped);
        while let Some(node) = self.node(self.next()) {
            if now <= node.latest {
                return Some(node.cost_us);
            }
            let gone = self.unlink(self.next());
            gone.iter().for_each(|gone| dropped(gone.id, Reason::Deadline));
        }
        None
    }

    /// Takes the one that [`Queue::candidate`] found.
    pub fn take(&mut self, now: Now) -> Option<Served> {
        let node = self.unlink(self.next())?;
        // Since this one could have been taken: a place came free only now.
        let gap = now.nanos_since(self.last_take.max(node.since));
        self.gap_ns = self.gap_ns - (self.gap_ns >> GAP_SHIFT) + (gap >> GAP_SHIFT);
        self.last_take = self.last_take.max(now);
        Some(Served { id: node.id, cost_us: node.cost_us, waited: now.since(node.since) })
    }

    /// Serves one.
    pub fn pop(&mut self, now: Now, dropped: &mut impl FnMut(u64, Reason)) -> Option<Served> {
        self.candidate(now, dropped)?;
        self.take(now)
    }

    /// Somebody leaves. `None` if it had left already.
    pub fn remove(&mut self, place: Place) -> Option<u64> {
        let node = self.nodes.get(place.slot as usize)?;
        if node.generation != place.generation {
            return None;
        }
        self.unlink(place.slot).map(|node| node.id)
    }

    /// Drops all whose time is over, wherever they stand: O(length), for a timer. [`Queue::candidate`] drops those it meets, and in a stalled
    /// pool it is not called.
    pub fn expire(&mut self, now: Now, dropped: &mut impl FnMut(u64, Reason)) {
        let mut slot = self.oldest;
        while let Some(node) = self.node(slot) {
            let younger = node.younger;
            if now > node.latest {
                let gone = self.unlink(slot);
                gone.iter().for_each(|gone| dropped(gone.id, Reason::Deadline));
            }
            slot = younger;
        }
    }

    /// When the row that waits now will have been served: for `Retry-After`.
    #[must_use]
    pub fn retry_after(&self) -> Duration {
        Duration::from_nanos(self.row_ns().saturating_add(self.gap_ns)).min(RETRY_MAX)
    }

    fn row_ns(&self) -> u64 {
        self.gap_ns.saturating_mul(u64::from(self.len))
    }

    /// The latest moment to begin serving; `None` if that is over.
    fn latest(&self, now: Now, waiting: &Waiting) -> Option<Now> {
        let allowed = now.plus_nanos(self.wait_max_ns);
        let Some(deadline) = waiting.deadline else { return Some(allowed) };
        let latest = Now::from_nanos(deadline.nanos().checked_sub(u64::from(waiting.cost_us) * 1000)?);
        (latest >= now).then_some(latest.min(allowed))
    }

    const fn next(&self) -> u32 {
        if self.stands() { self.youngest } else { self.oldest }
    }

    /// Drops from the old end what the control law says.
    fn codel(&mut self, now: Now, dropped: &mut impl FnMut(u64, Reason)) {
        let above = self.above(now);
        if !self.codel.dropping {
            if above {
                self.drop_oldest(dropped);
                self.enter(now);
            }
            return;
        }
        if !above {
            self.codel.dropping = false;
            return;
        }
        while self.codel.dropping && now >= self.codel.drop_next {
            self.drop_oldest(dropped);
            self.codel.count = self.codel.count.saturating_add(1);
            if self.above(now) {
                self.codel.drop_next = self.control_law(self.codel.drop_next);
            } else {
                self.codel.dropping = false;
            }
        }
    }

    /// Begins to drop; soon after the last time, at nearly the pace that was needed then.
    fn enter(&mut self, now: Now) {
        let codel = &mut self.codel;
        let delta = codel.count.saturating_sub(codel.last_count);
        let recent = now.nanos_since(codel.drop_next) < self.interval_ns.saturating_mul(16);
        codel.count = if delta > 1 && recent { delta } else { 1 };
        (codel.dropping, codel.last_count) = (true, codel.count);
        self.codel.drop_next = self.control_law(now);
    }

    /// Whether the oldest has been waiting longer than the target for an interval on end. The last one in the queue never counts.
    fn above(&mut self, now: Now) -> bool {
        let waited = self.node(self.oldest).map_or(0, |node| now.nanos_since(node.since));
        if waited < self.target_ns || self.len <= 1 {
            self.codel.first_above_time = None;
            return false;
        }
        let first_above = *self.codel.first_above_time.get_or_insert(now.plus_nanos(self.interval_ns));
        now >= first_above
    }

    fn control_law(&self, from: Now) -> Now {
        let step = self.interval_ns as f64 / f64::from(self.codel.count.max(1)).sqrt();
        from.plus_nanos((step as u64).max(1))
    }

    fn drop_oldest(&mut self, dropped: &mut impl FnMut(u64, Reason)) {
        let gone = self.unlink(self.oldest);
        gone.iter().for_each(|gone| dropped(gone.id, Reason::Codel));
    }

    fn node(&self, slot: u32) -> Option<&Node> {
        self.nodes.get(slot as usize)
    }

    /// Makes two neighbours; either may be an end.
    fn link(&mut self, older: u32, younger: u32) {
        match self.nodes.get_mut(older as usize) {
            Some(node) => node.younger = younger,
            None => self.oldest = younger,
        }
        match self.nodes.get_mut(younger as usize) {
            Some(node) => node.older = older,
            None => self.youngest = older,
        }
    }

    /// Takes one out of the row, and gives its slot back.
    fn unlink(&mut self, slot: u32) -> Option<Node> {
        let node = *self.node(slot)?;
        self.link(node.older, node.younger);
        let free = &mut self.nodes[slot as usize];
        free.generation = free.generation.wrapping_add(1);
        free.younger = self.free;
        self.free = slot;
        self.len -= 1;
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    const fn at(ms: u64) -> Now {
        Now::from_nanos(1_000_000_000 + ms * 1_000_000)
    }

    const fn waiting(id: u64) -> Waiting {
        Waiting { id, cost_us: 1000, deadline: None }
    }

    fn queue(length_max: u32) -> Queue {
        Queue::new(QueueSettings { length_max, ..QueueSettings::default() })
    }

    fn pop(queue: &mut Queue, now: Now) -> (Option<u64>, Vec<(u64, Reason)>) {
        let mut gone = Vec::new();
        let served = queue.pop(now, &mut |id, reason| gone.push((id, reason)));
        (served.map(|served| served.id), gone)
    }

    #[test]
    fn first_come_first_served_and_full_is_full() {
        let mut queue = queue(3);
        (1..=3).for_each(|id| assert!(queue.push(at(0), waiting(id)).is_ok()));
        assert_eq!(queue.push(at(0), waiting(4)), Err(Reason::Full));
        for id in 1..=3 {
            assert_eq!(pop(&mut queue, at(1)), (Some(id), vec![]));
        }
        assert_eq!(pop(&mut queue, at(1)), (None, vec![]));
        assert_eq!(
            Queue::new(QueueSettings { length_max: 0, ..QueueSettings::default() }).push(at(0), waiting(1)),
            Err(Reason::Full)
        );
    }

    #[test]
    fn leaving_from_anywhere_once() {
        let mut queue = queue(8);
        let places: Vec<_> = (0..5).map(|id| queue.push(at(0), waiting(id)).unwrap()).collect();
        for gone in [2, 0, 4] {
            assert_eq!(queue.remove(places[gone]), Some(gone as u64));
            assert_eq!(queue.remove(places[gone]), None);
        }
        let reused = queue.push(at(0), waiting(9)).unwrap();
        assert_eq!(queue.remove(places[4]), None, "the slot is another's now");
        assert_eq!(pop(&mut queue, at(1)).0, Some(1));
        assert_eq!(pop(&mut queue, at(1)).0, Some(3));
        assert_eq!(queue.remove(reused), Some(9));
        assert!(queue.is_empty());
    }

    #[test]
    fn a_short_burst_passes_and_a_standing_queue_is_cut_and_turned_round() {
        let mut queue = queue(1000);
        (0..100).for_each(|id| assert!(queue.push(at(0), waiting(id)).is_ok()));
        for ms in (0..=100).step_by(10) {
            assert_eq!(pop(&mut queue, at(ms)), (Some(ms / 10), vec![]));
        }
        let (served, gone) = pop(&mut queue, at(115));
        assert_eq!((served, gone), (Some(99), vec![(11, Reason::Codel)]));
        assert!(queue.stands());
        let mut left = 0;
        while queue.stands() {
            let _ = pop(&mut queue, at(116));
            left += 1;
        }
        assert_eq!(left, 87, "until one is left, who is served as before");
    }

    #[test]
    fn drops_come_faster_and_faster() {
        let mut queue = queue(100_000);
        let mut drops = Vec::new();
        let mut id = 0;
        for ms in 0..2000 {
            for _ in 0..3 {
                id += 1;
                let _ = queue.push(at(ms), waiting(id));
            }
            let mut codel = |_, reason| {
                if reason == Reason::Codel {
                    drops.push(ms)
                }
            };
            let _ = queue.pop(at(ms), &mut codel);
        }
        let between = |from, to| drops.iter().filter(|&&ms| (from..to).contains(&ms)).count();
        assert!(between(0, 100) == 0 && between(1500, 2000) > 2 * between(100, 600), "{drops:?}");
    }

    #[test]
    fn deadlines() {
        let mut queue = queue(100);
        let due = |id, ms| Waiting { id, cost_us: 10_000, deadline: Some(at(ms)) };
        assert_eq!(queue.push(at(0), due(1, 9)), Err(Reason::Deadline));
        assert_eq!(
            queue.push(at(0), Waiting { id: 1, cost_us: u32::MAX, deadline: Some(Now::ZERO) }),
            Err(Reason::Deadline)
        );
        (2..5).for_each(|id| assert!(queue.push(at(0), due(id, 10 + 5 * id)).is_ok()));
        assert_eq!(pop(&mut queue, at(12)), (Some(3), vec![(2, Reason::Deadline)]));
        let mut gone = Vec::new();
        queue.expire(at(21), &mut |id, reason| gone.push((id, reason)));
        assert_eq!(gone, [(4, Reason::Deadline)]);
        assert!(queue.push(at(21), waiting(5)).is_ok());
        assert_eq!(pop(&mut queue, at(222)), (None, vec![(5, Reason::Deadline)]));
    }

    #[test]
    fn who_would_come_too_late_is_told_on_entering() {
        let mut queue = queue(1000);
        (0..60).for_each(|id| assert!(queue.push(at(0), waiting(id)).is_ok()));
        (1..=50).for_each(|turn| assert!(pop(&mut queue, at(turn * 2)).0.is_some()));
        let (row, mut joined) = (queue.len(), 0);
        while queue.push(at(100), Waiting { id: 0, cost_us: 1000, deadline: Some(at(151)) }).is_ok() {
            joined += 1;
        }
        assert!((23..=28).contains(&(row + joined)), "2 ms each, 50 ms left: {row} + {joined}");
        assert!((44..=60).contains(&queue.retry_after().as_millis()), "{:?}", queue.retry_after());
    }

    #[test]
    fn every_id_leaves_exactly_once() {
        for seed in 0..200 {
            let (mut queue, mut random, mut now) = (queue(64), Random::new(seed), at(0));
            let (mut places, mut inside) = (Vec::new(), std::collections::BTreeSet::new());
            for id in 0..2000 {
                // The clock stands still, and jumps both ways.
                match random.below(50) {
                    0 => now = Now::from_nanos(random.below(10_000_000_000)),
                    1..=20 => now = now.plus_nanos(random.below(5_000_000)),
                    _ => {}
                }
                let deadline = (random.below(2) == 0).then(|| now.plus_nanos(random.below(300_000_000)));
                if let Ok(place) = queue.push(now, Waiting { id, cost_us: random.below(3000) as u32, deadline }) {
                    places.push(place);
                    assert!(inside.insert(id));
                }
                let mut left = Vec::new();
                match random.below(8) {
                    0..=3 => {
                        let served = queue.pop(now, &mut |id, _| left.push(id));
                        left.extend(served.map(|served| served.id));
                    }
                    4 => queue.expire(now, &mut |id, _| left.push(id)),
                    5 if !places.is_empty() => {
                        left.extend(queue.remove(places[random.below(places.len() as u64) as usize]));
                    }
                    _ => {}
                }
                left.iter().for_each(|id| assert!(inside.remove(id), "{id} left twice"));
                assert_eq!(queue.len() as usize, inside.len());
            }
        }
    }
}
