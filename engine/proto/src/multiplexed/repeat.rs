//! A block that is made of the same as the last one.
//!
//! What [`recall`](super::recall) is to what is read: a relay that reads the same head again mostly writes the same again, and while nothing
//! new comes into the encoder's table, the same becomes the same bytes. Everything that a block is made of is compared, and not only what is
//! thought to matter, so that nothing here knows how blocks are made. What has been written once is kept, but for its block; what has been
//! written twice in a row is not made a third time.

use crate::h1::{RequestHead, ResponseHead};
use crate::http::{Fields, Framing, KnownSet};

/// What a block is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Made<'a, I> {
    pub(crate) terms: Terms,
    /// A request's text, and its target and host where they are not that text's; a response's text.
    pub(crate) texts: &'a [Option<&'a [u8]>],
    pub(crate) fields: Option<&'a Fields>,
    /// Names and values that stand for themselves.
    pub(crate) pairs: I,
}

/// What of it is no text and no list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Terms {
    Request { head: RequestHead, framing: Framing, without: KnownSet, te_trailers: bool, upgrade: bool },
    Response { head: ResponseHead, framing: Framing, without: KnownSet },
    Trailers,
}

pub(crate) trait Pairs<'a>: Iterator<Item = (&'a [u8], &'a [u8])> + Clone {}

impl<'a, I: Iterator<Item = (&'a [u8], &'a [u8])> + Clone> Pairs<'a> for I {}

/// The last block of a connection, of one sort.
#[derive(Debug)]
pub(crate) struct Repeat {
    terms: Terms,
    fields: Fields,
    /// Texts, then names and values, each behind its [length](length_of).
    texts: Vec<u8>,
    /// Changes of the encoder's table before it.
    changes: u64,
    /// What became of it, once it has been written twice.
    block: Option<Vec<u8>>,
}

impl Repeat {
    pub(crate) fn new() -> Self {
        Self { terms: Terms::Trailers, fields: Fields::with_limit(0), texts: Vec::new(), changes: 0, block: None }
    }

    /// The block that becomes of what is `made` so, if that is known.
    #[inline]
    pub(crate) fn find<'t>(&self, made: &Made<'_, impl Pairs<'t>>, changes: u64) -> Option<&[u8]> {
        self.block.as_deref().filter(|_| self.is_last(made, changes))
    }

    /// A block has been made. `changes` are those of the table before it: one that has changed the table is not found again.
    pub(crate) fn learn<'t>(&mut self, made: &Made<'_, impl Pairs<'t>>, changes: u64, block: &[u8]) {
        let fits = block.len() <= BLOCK_MAX;
        if fits && self.is_last(made, changes) {
            self.block = Some(block.to_vec());
            return;
        }
        self.block = None;
        self.texts.clear();
        let pairs = made.pairs.clone().flat_map(|(name, value)| [Some(name), Some(value)]);
        for text in made.texts.iter().copied().chain(pairs) {
            let bytes = text.unwrap_or_default();
            if !fits || self.texts.len() + bytes.len() > TEXTS_MAX {
                return self.texts.clear();
            }
            self.texts.extend_from_slice(&length_of(text));
            self.texts.extend_from_slice(bytes);
        }
        match made.fields {
            Some(fields) => self.fields.copy_from(fields),
            None => self.fields.clear(),
        }
        (self.terms, self.changes) = (made.terms, changes);
    }

    fn is_last<'t>(&self, made: &Made<'_, impl Pairs<'t>>, changes: u64) -> bool {
        if self.changes != changes || self.terms != made.terms {
            return false;
        }
        let mut rest = &self.texts[..];
        for text in made.texts {
            if !is_next(&mut rest, *text) {
                return false;
            }
        }
        for (name, value) in made.pairs.clone() {
            if !is_next(&mut rest, Some(name)) || !is_next(&mut rest, Some(value)) {
                return false;
            }
        }
        rest.is_empty() && made.fields.map_or(self.fields.is_empty(), |fields| self.fields == *fields)
    }

    pub(crate) fn memory(&self) -> usize {
        let block = self.block.as_ref().map_or(0, Vec::capacity);
        size_of::<Self>() + self.texts.capacity() + self.fields.memory() + block
    }
}

/// Whether a text is the first of those that are left, which loses it then.
#[inline]
fn is_next(rest: &mut &[u8], text: Option<&[u8]>) -> bool {
    let Some((length, after)) = rest.split_first_chunk() else { return false };
    let bytes = text.unwrap_or_default();
    // Nothing is not compared: it lies nowhere, and even a masked look there makes a processor stumble for a hundred nanoseconds.
    let same = *length == length_of(text) && (bytes.is_empty() || after.starts_with(bytes));
    if same {
        *rest = &after[bytes.len()..];
    }
    same
}

/// What stands before a text.
#[inline]
fn length_of(text: Option<&[u8]>) -> [u8; 4] {
    // None is longer than any that is kept.
    text.map_or(u32::MAX, |text| text.len() as u32).to_ne_bytes()
}

/// Bytes of a block that is kept, as of one that is [read](super::recall).
const BLOCK_MAX: usize = 256;

/// Bytes of texts that are kept, about: a head of a kilobyte and what is added to it.
const TEXTS_MAX: usize = 1536;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Known, Span};

    fn made<'a>(
        fields: &'a Fields,
        texts: &'a [Option<&'a [u8]>],
        pairs: &'a [(&'a [u8], &'a [u8])],
    ) -> Made<'a, impl Pairs<'a>> {
        Made { terms: Terms::Trailers, texts, fields: Some(fields), pairs: pairs.iter().copied() }
    }

    /// Whether a block made of such a text is known after it was written so often.
    fn is_known(text: &[u8], value: &[u8], block: &[u8], times: usize) -> bool {
        let (mut repeat, fields, pairs) = (Repeat::new(), Fields::with_limit(1), [(&b"name"[..], value)]);
        let texts = [Some(text), None];
        let made = made(&fields, &texts, &pairs);
        for _ in 0..times {
            repeat.learn(&made, 3, block);
            assert!(repeat.memory() <= size_of::<Repeat>() + BLOCK_MAX + 2 * TEXTS_MAX, "{}", repeat.memory());
        }
        let found = repeat.find(&made, 3);
        assert!(found.is_none_or(|found| found == block));
        found.is_some()
    }

    #[test]
    fn what_was_written_twice_is_known_if_it_is_short() {
        assert!(!is_known(b"a", b"b", b"block", 0));
        assert!(!is_known(b"a", b"b", b"block", 1));
        assert!(is_known(b"a", b"b", b"block", 2));
        assert!(is_known(b"a", b"", b"block", 3));
        assert!(is_known(&[b'a'; TEXTS_MAX - 100], b"b", &[0; BLOCK_MAX], 2));
        assert!(!is_known(b"a", b"b", &[0; BLOCK_MAX + 1], 2));
        assert!(!is_known(&[b'a'; TEXTS_MAX + 1], b"b", b"block", 2));
        assert!(!is_known(&[b'a'; TEXTS_MAX - 100], &[b'b'; 100], b"block", 2));
    }

    #[test]
    fn what_is_made_of_anything_else_is_not_known() {
        let (mut repeat, none) = (Repeat::new(), Fields::with_limit(1));
        let (texts, pairs) = ([Some(&b"ab"[..]), Some(b"c"), None], [(&b"d"[..], &b"e"[..])]);
        let first = made(&none, &texts, &pairs);
        (0..2).for_each(|_| repeat.learn(&first, 3, b"block"));
        assert_eq!(repeat.find(&first, 3), Some(&b"block"[..]));
        assert_eq!(repeat.find(&first, 4), None, "the table has changed");
        let others: [&[Option<&[u8]>]; 9] = [
            &[],
            &[Some(b"ab"), Some(b"c")],
            &[Some(b"ab"), Some(b"c"), Some(b"")],
            &[Some(b"ab"), Some(b"c"), None, None],
            &[Some(b"ab"), None, Some(b"c")],
            &[Some(b"a"), Some(b"bc"), None],
            &[Some(b"ab"), Some(b"d"), None],
            &[Some(b"ab"), None, None],
            &[None, None, None],
        ];
        for texts in others {
            assert_eq!(repeat.find(&made(&none, texts, &pairs), 3), None, "{texts:?}");
        }
        let others: [&[(&[u8], &[u8])]; 5] =
            [&[], &[(b"d", b"e"), (b"", b"")], &[(b"d", b"f")], &[(b"de", b"")], &[(b"f", b"e")]];
        for pairs in others {
            assert_eq!(repeat.find(&made(&none, &texts, pairs), 3), None, "{pairs:?}");
        }
        let mut one = Fields::with_limit(1);
        one.push(Span::between(0, 1), Span::between(1, 2), Known::Other);
        assert_eq!(repeat.find(&made(&one, &texts, &pairs), 3), None);
        let terms = Terms::Response { head: response(), framing: Framing::None, without: KnownSet::EMPTY };
        assert_eq!(repeat.find(&Made { terms, ..first }, 3), None);
    }

    fn response() -> ResponseHead {
        crate::h1::parse_response(
            b"HTTP/1.1 200 OK\r\n\r\n",
            &crate::h1::HeadLimits::DEFAULT,
            crate::http::Method::Get,
            &mut Fields::default(),
        )
        .unwrap()
        .unwrap()
    }
}
