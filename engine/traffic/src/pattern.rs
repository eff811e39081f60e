//! The content of every body: printable, and different at each offset that a mix-up could confuse.

use std::rc::Rc;

/// The period in bytes: a prime near 64 KiB, so that content shifted by a page or a buffer does not look right.
const PERIOD: usize = 65_521;
/// One body's offset is checked or copied in slices of at most this many bytes: a period may begin anywhere in the table.
const TABLE: usize = 2 * PERIOD;

/// The bytes of all bodies of this crate, made once a thread that needs them.
#[derive(Clone)]
pub struct Pattern {
    table: Rc<[u8]>,
}

impl Pattern {
    /// Computes the table: 128 KiB.
    pub fn new() -> Self {
        let letter = |at: usize| {
            let mixed = ((at % PERIOD) as u32).wrapping_mul(2_654_435_761) >> 24;
            if at % PERIOD % 80 == 79 { b'\n' } else { b'!' + (mixed % 94) as u8 }
        };
        Self { table: (0..TABLE).map(letter).collect() }
    }

    /// The content at `offset`: at least 64 KiB of it.
    pub fn at(&self, offset: u64) -> &[u8] {
        &self.table[(offset % PERIOD as u64) as usize..]
    }

    /// Fills `room` with the content at `offset`.
    pub fn fill(&self, mut offset: u64, mut room: &mut [u8]) {
        while !room.is_empty() {
            let source = self.at(offset);
            let count = source.len().min(room.len());
            room[..count].copy_from_slice(&source[..count]);
            room = &mut room[count..];
            offset += count as u64;
        }
    }

    /// Whether `bytes` are the content at `offset`.
    pub fn matches(&self, mut offset: u64, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let source = self.at(offset);
            let count = source.len().min(bytes.len());
            if bytes[..count] != source[..count] {
                return false;
            }
            bytes = &bytes[count..];
            offset += count as u64;
        }
        true
    }
}

impl Default for Pattern {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_filled_matches_and_a_shift_does_not() {
        let pattern = Pattern::new();
        let mut body = vec![0; 300_000];
        pattern.fill(0, &mut body);
        assert!(pattern.matches(0, &body));
        assert!(pattern.matches(150_000, &body[150_000..]));
        for shift in [1, 2, 80, 4_096, 65_536, 131_072] {
            assert!(!pattern.matches(0, &body[shift..shift + 1_000]), "{shift}");
        }
    }
}
