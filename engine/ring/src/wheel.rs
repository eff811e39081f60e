//! A hierarchical timer wheel: every deadline of a worker, in user space.
//!
//! Five levels of 64 slots with a tick of one millisecond reach 12 days; a later deadline waits in the last slot and is
//! laid again when that comes round. Insert, cancel and expiry of one entry cost O(1). A deadline fires in the first
//! turn whose time is at or past it, up to one tick late.
//!
//! Deliberately absent: kernel timers. One `enter` carries the next deadline as its timeout.

use crate::chunked::Chunked;
use crate::exec::TaskRef;
use crate::time::Now;

const LEVELS: usize = 5;
const SLOTS: usize = 64;
const SLOT_BITS: u32 = 6;
/// One millisecond: proxies' time-outs are seconds, pacing wants about this.
const TICK_NANOS: u64 = 1_000_000;
const NIL: u32 = u32::MAX;

/// Names a pending deadline; stale once it fired or was cancelled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct TimerId {
    index: u32,
    generation: u32,
}

impl TimerId {
    /// No deadline.
    pub(crate) const NONE: Self = Self { index: NIL, generation: 0 };
}

pub(crate) struct Wheel {
    entries: Chunked<Entry>,
    free: u32,
    /// First entry of each slot's list.
    slots: [[u32; SLOTS]; LEVELS],
    /// One bit a non-empty slot.
    occupied: [u64; LEVELS],
    /// The tick up to which everything has fired.
    tick: u64,
    live: usize,
}

struct Entry {
    tick: u64,
    task: TaskRef,
    generation: u32,
    next: u32,
    previous: u32,
    /// Where it hangs: level * SLOTS + slot; `u16::MAX` when free.
    place: u16,
}

impl Wheel {
    pub(crate) fn new(now: Now) -> Self {
        Self {
            entries: Chunked::new(),
            free: NIL,
            slots: [[NIL; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
            tick: now.as_nanos() / TICK_NANOS,
            live: 0,
        }
    }

    /// Deadlines pending.
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    /// Wakes `task` at `at` (or in the next turn, when that has passed).
    pub(crate) fn insert(&mut self, at: Now, task: TaskRef) -> TimerId {
        let tick = at.as_nanos().div_ceil(TICK_NANOS).max(self.tick + 1);
        let index = self.vacant();
        self.live += 1;
        let entry = &mut self.entries[index as usize];
        entry.tick = tick;
        entry.task = task;
        let generation = entry.generation;
        self.hang(index);
        TimerId { index, generation }
    }

    /// Forgets a deadline; does nothing when it has fired already.
    pub(crate) fn cancel(&mut self, id: TimerId) {
        if self.pending(id) {
            self.unhang(id.index);
            self.release(id.index);
        }
    }

    /// Whether the deadline is still to come.
    pub(crate) fn pending(&self, id: TimerId) -> bool {
        let entry = self.entries.get(id.index as usize);
        entry.is_some_and(|entry| entry.generation == id.generation && entry.place != u16::MAX)
    }

    /// Fires every deadline at or before `now`.
    pub(crate) fn expire(&mut self, now: Now, mut fire: impl FnMut(TaskRef)) {
        let target = now.as_nanos() / TICK_NANOS;
        while let Some(next) = self.next_tick().filter(|&tick| tick <= target) {
            self.tick = next;
            self.cascade();
            let slot = (next as usize) % SLOTS;
            while self.slots[0][slot] != NIL {
                let index = self.slots[0][slot];
                self.unhang(index);
                let task = self.entries[index as usize].task;
                self.release(index);
                fire(task);
            }
        }
        self.tick = self.tick.max(target);
    }

    /// When the next deadline may fire; never later than it really is.
    pub(crate) fn next(&self) -> Option<Now> {
        self.next_tick().map(|tick| Now::from_nanos(tick * TICK_NANOS))
    }

    /// The next tick at which something fires or moves down a level.
    fn next_tick(&self) -> Option<u64> {
        (0..LEVELS)
            .filter(|&level| self.occupied[level] != 0)
            .map(|level| {
                let shift = SLOT_BITS * level as u32;
                let here = self.tick >> shift;
                // Slots hang from the one behind the current one onward: rotate so that bit 0 is that one.
                let ahead = self.occupied[level].rotate_right((here as u32 + 1) % SLOTS as u32).trailing_zeros();
                (here + 1 + u64::from(ahead)) << shift
            })
            .min()
    }

    /// Lays the entries of every upper slot that begins at the present tick into the levels below.
    fn cascade(&mut self) {
        for level in (1..LEVELS).rev() {
            let shift = SLOT_BITS * level as u32;
            if self.tick & ((1 << shift) - 1) != 0 {
                continue;
            }
            let slot = ((self.tick >> shift) as usize) % SLOTS;
            let mut index = std::mem::replace(&mut self.slots[level][slot], NIL);
            self.occupied[level] &= !(1 << slot);
            while index != NIL {
                let next = self.entries[index as usize].next;
                self.hang(index);
                index = next;
            }
        }
    }

    /// Hangs an entry where its tick belongs as seen from the present tick. An entry due now goes into the present
    /// slot of the lowest level, which `expire` empties right after `cascade`.
    fn hang(&mut self, index: u32) {
        let tick = self.entries[index as usize].tick;
        let distance = tick - self.tick.min(tick);
        let level =
            (0..LEVELS - 1).find(|&level| distance < 1 << (SLOT_BITS * (level as u32 + 1))).unwrap_or(LEVELS - 1);
        let shift = SLOT_BITS * level as u32;
        // Beyond the wheel's reach: the farthest slot, to be laid again from there.
        let reach = (self.tick >> shift) + SLOTS as u64 - 1;
        let slot = ((tick >> shift).min(reach) as usize) % SLOTS;
        let first = std::mem::replace(&mut self.slots[level][slot], index);
        self.occupied[level] |= 1 << slot;
        if first != NIL {
            self.entries[first as usize].previous = index;
        }
        let entry = &mut self.entries[index as usize];
        entry.next = first;
        entry.previous = NIL;
        entry.place = (level * SLOTS + slot) as u16;
    }

    fn unhang(&mut self, index: u32) {
        let Entry { next, previous, place, .. } = self.entries[index as usize];
        let (level, slot) = (place as usize / SLOTS, place as usize % SLOTS);
        if next != NIL {
            self.entries[next as usize].previous = previous;
        }
        if previous == NIL {
            self.slots[level][slot] = next;
            if next == NIL {
                self.occupied[level] &= !(1 << slot);
            }
        } else {
            self.entries[previous as usize].next = next;
        }
    }

    fn vacant(&mut self) -> u32 {
        if self.free == NIL {
            self.entries.push(Entry {
                tick: 0,
                task: TaskRef::NONE,
                generation: 0,
                next: NIL,
                previous: NIL,
                place: u16::MAX,
            });
            return (self.entries.len() - 1) as u32;
        }
        let index = self.free;
        self.free = self.entries[index as usize].next;
        index
    }

    fn release(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.place = u16::MAX;
        entry.next = self.free;
        self.free = index;
        self.live -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn fired(wheel: &mut Wheel, now: Now) -> Vec<u32> {
        let mut tasks = Vec::new();
        wheel.expire(now, |task| tasks.push(task.index()));
        tasks
    }

    #[test]
    fn fires_at_its_time_on_every_level_and_never_before() {
        for start in [0_u64, 1, 63, 64, 4_095, 4_096, 262_143, 1_000_000_007] {
            for after_ms in [1_u64, 2, 63, 64, 65, 127, 128, 4_095, 4_096, 5_000, 262_144, 300_000, 20_000_000] {
                let now = Now::from_nanos(start * TICK_NANOS + 17);
                let mut wheel = Wheel::new(now);
                let at = now + Duration::from_millis(after_ms);
                wheel.insert(at, TaskRef::new(7, 0));
                assert!(fired(&mut wheel, at - Duration::from_millis(1)).is_empty(), "{start} {after_ms}");
                assert_eq!(fired(&mut wheel, at + Duration::from_millis(1)), [7], "{start} {after_ms}");
                assert_eq!((wheel.len(), wheel.next()), (0, None));
            }
        }
    }

    #[test]
    fn sleeping_to_next_each_time_reaches_every_deadline() {
        let mut wheel = Wheel::new(Now::from_nanos(12_345_678));
        let mut seed = 9_u64;
        let mut due: Vec<u64> = (0..500)
            .map(|task| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = 12_345_678 + (seed >> 24) % 40_000_000_000;
                wheel.insert(Now::from_nanos(at), TaskRef::new(task, 0));
                at
            })
            .collect();
        due.sort_unstable();
        let mut count = 0;
        while let Some(next) = wheel.next() {
            let before = count;
            wheel.expire(next, |_| count += 1);
            let passed = due.iter().filter(|&&at| at <= next.as_nanos()).count();
            assert_eq!(count, passed, "at {next:?}");
            assert!(count >= before);
        }
        assert_eq!(count, due.len());
    }

    #[test]
    fn a_cancelled_deadline_stays_silent_and_its_id_goes_stale() {
        let mut wheel = Wheel::new(Now::default());
        let first = wheel.insert(Now::from_nanos(5_000_000), TaskRef::new(1, 0));
        let second = wheel.insert(Now::from_nanos(5_000_000), TaskRef::new(2, 0));
        wheel.cancel(first);
        wheel.cancel(first);
        assert!(!wheel.pending(first) && wheel.pending(second));
        assert_eq!(fired(&mut wheel, Now::from_nanos(6_000_000)), [2]);
        assert!(!wheel.pending(second));
    }

    #[test]
    fn beyond_the_reach_is_laid_again() {
        let mut wheel = Wheel::new(Now::default());
        let at = Now::default() + Duration::from_secs(40 * 86_400);
        wheel.insert(at, TaskRef::new(3, 0));
        assert!(fired(&mut wheel, at - Duration::from_secs(60)).is_empty());
        assert_eq!(fired(&mut wheel, at + Duration::from_millis(1)), [3]);
    }
}
