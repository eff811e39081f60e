//! Connections that each client has open, over all workers.
//!
//! [`policy::HeldTable`]'s law, in words that workers share: a client's count is found in its set, or takes over a word that counts
//! nothing; when all eight count somebody, further clients of the set are counted together. So memory is bounded, and nobody is refused
//! for another's sake before strangers together hold what one client may.
//!
//! A word is a key's upper 40 bits and a count: both change in one compare-exchange, so no two workers can take one word over for
//! two clients. Two clients of one set are taken for one another with a chance of 2⁻⁴⁰.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use policy::KeyTable;
use policy::limit::WAYS;

use super::keyed::step;
use crate::limits;

const COUNT_BITS: u32 = 24;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// Two cache lines: eight words for clients, and one for the strangers.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Set {
    words: [AtomicU64; WAYS + 1],
}

/// A connection that is counted: where, in four bytes, since every idle connection may have one. Give it back with
/// [`Qos::release`](super::Qos::release), once.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a connection that is never released is counted for ever"]
pub struct HeldClient(NonZeroU32);

const _: () = assert!(size_of::<Option<HeldClient>>() == 4);
/// Twice as many cells as a listener has connections: the number of a word fits.
const _: () = assert!((limits::CONNECTIONS_MAX as usize) * 2 * (WAYS + 1) < u32::MAX as usize);

#[derive(Debug)]
pub(super) struct HeldClients {
    table: KeyTable,
    sets: Box<[Set]>,
    each_max: AtomicU64,
}

impl HeldClients {
    /// See [`KeyTable::new`] for `capacity` and `seed`.
    pub(super) fn new(each_max: u32, capacity: usize, seed: u64) -> Self {
        let table = KeyTable::new(capacity, seed);
        let sets = (0..table.sets()).map(|_| Set::default()).collect();
        let held = Self { table, sets, each_max: AtomicU64::default() };
        held.allow(Some(each_max));
        held
    }

    /// As many as a client may have from now on; `None`: any number, up to what can be counted.
    pub(super) fn allow(&self, each_max: Option<u32>) {
        self.each_max.store(each_max.map_or(COUNT_MASK, |most| u64::from(most).min(COUNT_MASK)), Ordering::Relaxed);
    }

    /// One more for `key`, or none if it has as many as it may.
    pub(super) fn hold(&self, key: u64) -> Option<HeldClient> {
        let at = self.table.set(key);
        let name = key & !COUNT_MASK;
        let set = &self.sets[at];
        loop {
            let way = Self::way(set, name);
            let counted = step(&set.words[way], |word| {
                let mine = way == WAYS || word & !COUNT_MASK == name;
                match word & COUNT_MASK {
                    // Another worker has taken the word over meanwhile: look again.
                    count if count > 0 && !mine => Err(Some(())),
                    count if count >= self.each_max.load(Ordering::Relaxed) => Err(None),
                    count => Ok((name | (count + 1), ())),
                }
            });
            match counted {
                Ok(()) => return NonZeroU32::new((at * (WAYS + 1) + way + 1) as u32).map(HeldClient),
                Err(Some(())) => {}
                Err(None) => return None,
            }
        }
    }

    pub(super) fn release(&self, held: HeldClient) {
        let at = held.0.get() as usize - 1;
        let word = &self.sets[at / (WAYS + 1)].words[at % (WAYS + 1)];
        let _ = step(word, |word| if word & COUNT_MASK > 0 { Ok((word - 1, ())) } else { Err(()) });
    }

    /// A client's own word, or one that counts nobody, or the strangers'.
    fn way(set: &Set, name: u64) -> usize {
        let words = set.words[..WAYS].iter().map(|word| word.load(Ordering::Relaxed)).enumerate();
        let (mut free, mut own) = (None, None);
        for (way, word) in words {
            match word & COUNT_MASK {
                0 => free = free.or(Some(way)),
                _ if word & !COUNT_MASK == name => own = own.or(Some(way)),
                _ => {}
            }
        }
        own.or(free).unwrap_or(WAYS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn key(client: u64) -> u64 {
        client << COUNT_BITS
    }

    #[test]
    fn each_client_has_its_own_count() {
        let held = HeldClients::new(2, 64, 1);
        let first = held.hold(key(1)).unwrap();
        let _second = held.hold(key(1)).unwrap();
        assert_eq!(held.hold(key(1)), None);
        assert!(held.hold(key(2)).is_some());
        held.release(first);
        assert!(held.hold(key(1)).is_some());
        assert_eq!(held.hold(key(1)), None);
    }

    #[test]
    fn strangers_share_when_a_set_is_full_and_harm_nobody_in_it() {
        let held = HeldClients::new(3, 8, 1);
        let own: Vec<_> = (0..8).map(|client| held.hold(key(client)).unwrap()).collect();
        let strangers: Vec<_> = (8..100).filter_map(|client| held.hold(key(client))).collect();
        assert_eq!(strangers.len(), 3);
        assert!(held.hold(key(0)).is_some());
        strangers.into_iter().chain(own).for_each(|one| held.release(one));
        assert!(held.hold(key(99)).is_some());
    }

    #[test]
    fn two_workers_never_hold_more_than_one_could() {
        let held = HeldClients::new(100, 64, 1);
        let most = AtomicU64::new(0);
        let now = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for turn in 0..20_000_u64 {
                        let Some(one) = held.hold(key(7)) else { continue };
                        let open = now.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(open, Ordering::SeqCst);
                        if turn % 3 == 0 {
                            std::thread::yield_now();
                        }
                        now.fetch_sub(1, Ordering::SeqCst);
                        held.release(one);
                    }
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 4);
        let all = (0..200).filter_map(|_| held.hold(key(7))).count();
        assert_eq!(all, 100, "everything was given back");
    }
}
