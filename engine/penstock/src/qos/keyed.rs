//! A word for each of many keys, shared by all workers: the storage of [`KeyTable`].
//!
//! What holds here: memory is what construction took; a key finds its word, or takes over the one with the least in its set and
//! inherits what is in it. Two workers that bring the same new key at the same moment may give it two words; it uses the
//! first from then on, so what that grants is one step once.

use std::sync::atomic::{AtomicU64, Ordering};

use policy::KeyTable;
use policy::limit::{WAYS, Way};

/// Two cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Set {
    keys: [AtomicU64; WAYS],
    words: [AtomicU64; WAYS],
}

const _: () = assert!(size_of::<Set>() == 128);

#[derive(Debug)]
pub(super) struct Keyed {
    table: KeyTable,
    sets: Box<[Set]>,
}

impl Keyed {
    /// See [`KeyTable::new`].
    pub(super) fn new(capacity: usize, seed: u64) -> Self {
        let table = KeyTable::new(capacity, seed);
        debug_assert!(table.sets() * WAYS <= 1 << u16::BITS, "a word's place has sixteen bits");
        Self { table, sets: (0..table.sets()).map(|_| Set::default()).collect() }
    }

    /// Where the word of a key is.
    pub(super) fn find(&self, key: u64) -> u16 {
        let at = self.table.set(key);
        let set = &self.sets[at];
        let load = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        let way = KeyTable::way(key, set.keys.iter().map(load).zip(set.words.iter().map(load)));
        if let Way::Takes(way) = way {
            set.keys[way].store(key, Ordering::Relaxed);
        }
        (at * WAYS + way.index()) as u16
    }

    /// The word of a key.
    pub(super) fn word(&self, key: u64) -> &AtomicU64 {
        self.at(self.find(key))
    }

    /// A word that was [found](Self::find).
    pub(super) fn at(&self, at: u16) -> &AtomicU64 {
        &self.sets[usize::from(at) / WAYS].words[usize::from(at) % WAYS]
    }
}

/// A word alone on its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Line(pub(super) AtomicU64);

/// Replaces a word by what `next` makes of it, however many do the same at once.
pub(super) fn step<T, E>(word: &AtomicU64, mut next: impl FnMut(u64) -> Result<(u64, T), E>) -> Result<T, E> {
    let mut seen = word.load(Ordering::Relaxed);
    loop {
        let (new, answer) = next(seen)?;
        match word.compare_exchange_weak(seen, new, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Ok(answer),
            Err(other) => seen = other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_word_while_there_is_room() {
        let keyed = Keyed::new(64, 1);
        for key in 0..8 {
            keyed.word(key).store(key + 1, Ordering::Relaxed);
        }
        for key in 0..8 {
            assert_eq!(keyed.word(key).load(Ordering::Relaxed), key + 1);
        }
    }

    #[test]
    fn in_a_full_set_a_newcomer_inherits_the_least() {
        let keyed = Keyed::new(8, 1);
        for key in 0..8 {
            keyed.word(key).store(100 + key, Ordering::Relaxed);
        }
        assert_eq!(keyed.word(99).load(Ordering::Relaxed), 100);
        assert_eq!(keyed.word(99).load(Ordering::Relaxed), 100);
        assert_eq!(keyed.word(5).load(Ordering::Relaxed), 105, "the others have theirs still");
    }
}
