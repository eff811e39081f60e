//! A vector that grows in chunks: nothing moves when it grows, and no larger copy of it is ever needed.
//!
//! The tables of a worker follow its connections. A plain vector would hold, at its growth, three times what it had, and
//! leave the smaller halves to the allocator.

use std::ops::{Index, IndexMut};

/// Entries of one chunk: 30 KiB of the largest ones.
const CHUNK: usize = 256;

pub(crate) struct Chunked<T> {
    chunks: Vec<Vec<T>>,
    len: usize,
}

impl<T> Chunked<T> {
    pub(crate) const fn new() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push(&mut self, value: T) {
        if self.len.is_multiple_of(CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        self.chunks[self.len / CHUNK].push(value);
        self.len += 1;
    }

    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        self.chunks.get(index / CHUNK).and_then(|chunk| chunk.get(index % CHUNK))
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.chunks.get_mut(index / CHUNK).and_then(|chunk| chunk.get_mut(index % CHUNK))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.chunks.iter_mut().flatten()
    }
}

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Index<usize> for Chunked<T> {
    type Output = T;

    #[inline]
    fn index(&self, index: usize) -> &T {
        &self.chunks[index / CHUNK][index % CHUNK]
    }
}

impl<T> IndexMut<usize> for Chunked<T> {
    #[inline]
    fn index_mut(&mut self, index: usize) -> &mut T {
        &mut self.chunks[index / CHUNK][index % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_run_on_over_the_chunks() {
        let mut chunked = Chunked::new();
        (0..1_000_usize).for_each(|number| chunked.push(number));
        chunked[511] = 7;
        *chunked.get_mut(512).unwrap() += 1;
        assert_eq!((chunked[510], chunked[511], chunked[512], chunked.len()), (510, 7, 513, 1_000));
        assert!(chunked.get(1_000).is_none() && chunked.get(5_000).is_none());
        assert_eq!(chunked.iter().count(), 1_000);
    }
}
