//! A head that says what the last one said.
//!
//! HPACK and QPACK turn what is said again into the same few bytes, as long as nothing new comes into the table: nearly every answer of a
//! service of gRPC begins so, and so do most calls that a client makes one after the other. Such a block is known by its bytes, and its
//! meaning need not be read from them once more. What a peer has said once is not kept, but for the bytes of its
//! block; what it has said twice in a row is.

use super::HeadSpace;
use crate::http::{Fields, Method};

/// What a block means by, beside its bytes and what never changes in a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Changes of the decoder's table before it.
    pub(crate) changes: u64,
    pub(crate) end_stream: bool,
    /// Of the request that a response answers.
    pub(crate) method: Method,
}

/// The last head of a connection, `H`, or its last trailers.
#[derive(Debug)]
pub(crate) struct Recall<H> {
    terms: Terms,
    block: Vec<u8>,
    /// What it means, once it has been said twice.
    head: Option<H>,
    text: Vec<u8>,
    fields: Fields,
}

impl<H: Clone> Recall<H> {
    pub(crate) fn new() -> Self {
        let terms = Terms { changes: 0, end_stream: false, method: Method::Other };
        Self { terms, block: Vec::new(), head: None, text: Vec::new(), fields: Fields::with_limit(0) }
    }

    /// The head that a block means, if that is known; its text and fields are in `space` then.
    #[inline]
    pub(crate) fn find(&self, block: &[u8], terms: Terms, space: &mut HeadSpace) -> Option<H> {
        let head = self.head.as_ref().filter(|_| self.terms == terms && self.block == block)?;
        space.set(&self.text, &self.fields);
        Some(head.clone())
    }

    /// A block has been read, and means `head` with what is in `space`. `changes` are those of the table after it: one that has changed
    /// the table will not mean the same again.
    pub(crate) fn learn(&mut self, block: &[u8], terms: Terms, changes: u64, head: H, space: &HeadSpace) {
        self.head = None;
        if terms.changes != changes || block.len() > BLOCK_MAX {
            return self.block.clear();
        }
        if self.terms != terms || self.block != block {
            self.terms = terms;
            self.block.clear();
            return self.block.extend_from_slice(block);
        }
        if space.text.len() <= TEXT_MAX {
            self.head = Some(head);
            self.text.clear();
            self.text.extend_from_slice(&space.text);
            self.fields.copy_from(&space.fields);
        }
    }

    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>() + self.block.capacity() + self.text.capacity() + self.fields.memory()
    }
}

/// Bytes of a block that is said again as a whole: what is long has something new in it.
const BLOCK_MAX: usize = 256;

/// Bytes of a head that is kept: with the index of its fields, a connection so keeps a kilobyte or two until it is trimmed.
const TEXT_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms { changes: 1, end_stream: true, method: Method::Get };

    /// Whether a head of such a block and text is known once it was said so often.
    fn is_known(block: &[u8], text: usize, times: usize) -> bool {
        let mut recall = Recall::new();
        let mut space = HeadSpace::default();
        space.text.resize(text, b'a');
        (0..times).for_each(|_| recall.learn(block, TERMS, 1, 7, &space));
        assert!(recall.memory() <= size_of::<Recall<u8>>() + 2 * (BLOCK_MAX + TEXT_MAX));
        let mut found = HeadSpace::default();
        let known = recall.find(block, TERMS, &mut found) == Some(7);
        assert!(!known || found.text == space.text);
        assert_eq!(recall.find(block, Terms { changes: 2, ..TERMS }, &mut found), None);
        assert_eq!(recall.find(block, Terms { end_stream: false, ..TERMS }, &mut found), None);
        assert_eq!(recall.find(block, Terms { method: Method::Head, ..TERMS }, &mut found), None);
        assert_eq!(recall.find(&[block, b"x"].concat(), TERMS, &mut found), None);
        known
    }

    #[test]
    fn what_was_said_twice_is_known_if_it_is_short() {
        assert!(!is_known(b"block", 100, 1));
        assert!(is_known(b"block", 100, 2));
        assert!(is_known(&[0; BLOCK_MAX], TEXT_MAX, 3));
        assert!(!is_known(&[0; BLOCK_MAX + 1], 100, 3));
        assert!(!is_known(b"block", TEXT_MAX + 1, 3));
    }

    #[test]
    fn what_changes_the_table_is_not_known_again() {
        let (mut recall, space) = (Recall::new(), HeadSpace::default());
        recall.learn(b"block", TERMS, 1, 7, &space);
        recall.learn(b"block", TERMS, 1, 7, &space);
        recall.learn(b"block", TERMS, 2, 7, &space);
        assert_eq!(recall.find(b"block", TERMS, &mut HeadSpace::default()), None);
    }
}
