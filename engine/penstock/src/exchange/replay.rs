//! A request's content, kept while the request may have to be sent again.
//!
//! Content streams through and is gone; what a later try needs is copied on its way, up to a bound a request and a bound a
//! worker. Past either bound the copy is dropped, and with it the permission to try again: memory is lent for repetition,
//! never for the sake of it. What holds here: a try sees exactly the content that the client sent, from its first byte,
//! whatever the tries before had already passed on.

use std::cell::Cell;
use std::task::{Context, Poll};

use proto::h1::{Server, Trailers};
use ring::Buf;

use super::half::{Body, Cut, Piece, Source};
use crate::limits;

/// What is kept of one request's content.
pub(super) struct Kept<'a> {
    pieces: Vec<Buf>,
    bytes: usize,
    /// The end of the content was seen: what follows it.
    end: Option<Trailers>,
    bounds: Bounds<'a>,
    /// Pieces that the present try has been given.
    given: usize,
    lost: bool,
}

#[derive(Clone, Copy)]
struct Bounds<'a> {
    request: usize,
    /// Bytes that all requests of this worker keep.
    worker: &'a Cell<usize>,
}

impl<'a> Kept<'a> {
    /// Keeps up to `most` bytes; `worker` counts what all requests of this worker keep.
    pub(super) fn new(most: usize, worker: &'a Cell<usize>) -> Self {
        let bounds = Bounds { request: most, worker };
        Self { pieces: Vec::new(), bytes: 0, end: None, bounds, given: 0, lost: most == 0 }
    }

    /// All that has been read of the content is here.
    pub(super) fn is_whole(&self) -> bool {
        !self.lost
    }

    /// A new try begins: it is given everything from the first byte.
    pub(super) fn rewind(&mut self) {
        self.given = 0;
    }

    fn keep(&mut self, piece: &Piece) {
        if self.lost {
            return;
        }
        if let Some(data) = &piece.data {
            let in_request = self.bytes + data.len() <= self.bounds.request;
            if !in_request || self.bounds.worker.get() + data.len() > limits::REPLAY_BYTES_WORKER {
                return self.lose();
            }
            self.append(data.bytes());
        }
        if piece.last {
            self.end = Some(piece.trailers.clone());
        }
    }

    /// Small pieces share a buffer: a client that sends byte by byte costs no more memory than one that does not.
    fn append(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        self.bounds.worker.set(self.bounds.worker.get() + bytes.len());
        match self.pieces.last_mut() {
            Some(last) if last.room() >= bytes.len() => last.extend(bytes),
            _ => self.pieces.push(Buf::copy_of(bytes)),
        }
        self.given = self.pieces.len();
    }

    fn lose(&mut self) {
        self.release();
        self.lost = true;
    }

    fn release(&mut self) {
        self.bounds.worker.set(self.bounds.worker.get() - self.bytes);
        self.bytes = 0;
        self.pieces.clear();
        self.end = None;
    }

    /// The next piece that an earlier try has read.
    fn next(&mut self) -> Option<Piece> {
        let ended = self.end.is_some();
        let Some(piece) = self.pieces.get(self.given) else {
            // Given in full, or the content was empty: only its end is left to say.
            let trailers = self.end.clone().filter(|_| self.given == self.pieces.len())?;
            return Some(Piece { data: None, last: true, trailers });
        };
        self.given += 1;
        let last = ended && self.given == self.pieces.len();
        let trailers = self.end.clone().filter(|_| last).unwrap_or_default();
        Some(Piece { data: Some(Buf::copy_of(piece.bytes())), last, trailers })
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        self.release();
    }
}

/// A request's content, as often as it is needed.
pub(super) struct Repeatable<'a, 'l, 'b> {
    pub(super) body: Body<'a, 'l, Server>,
    pub(super) kept: &'a mut Kept<'b>,
}

impl Source for Repeatable<'_, '_, '_> {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Cut>> {
        if let Some(piece) = self.kept.next() {
            return Poll::Ready(Ok(piece));
        }
        let piece = std::task::ready!(self.body.poll_piece(cx))?;
        self.kept.keep(&piece);
        Poll::Ready(Ok(piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(bytes: &[u8], last: bool) -> Piece {
        Piece { data: (!bytes.is_empty()).then(|| Buf::copy_of(bytes)), last, trailers: Trailers::default() }
    }

    fn all(kept: &mut Kept<'_>) -> (Vec<u8>, bool) {
        kept.rewind();
        let (mut bytes, mut last) = (Vec::new(), false);
        while let Some(piece) = kept.next() {
            assert!(!last, "nothing follows the last piece");
            bytes.extend(piece.data.iter().flat_map(|data| data.bytes()));
            last = piece.last;
            if last {
                break;
            }
        }
        (bytes, last)
    }

    #[test]
    fn a_second_try_gets_what_the_first_one_got() {
        let worker = Cell::new(0);
        let mut kept = Kept::new(64 << 10, &worker);
        assert!(kept.next().is_none());
        let big = vec![b'x'; 5_000];
        kept.keep(&piece(b"abc", false));
        kept.keep(&piece(&big, false));
        assert!(kept.next().is_none(), "the present try has seen them pass");
        assert_eq!(all(&mut kept), ([b"abc", big.as_slice()].concat(), false), "the rest is still to come");
        kept.keep(&piece(b"end", true));
        for _ in 0..2 {
            assert_eq!(all(&mut kept), ([b"abc", big.as_slice(), b"end"].concat(), true));
        }
        assert_eq!(worker.get(), 5_006);
        drop(kept);
        assert_eq!(worker.get(), 0);
    }

    #[test]
    fn an_empty_end_is_an_end() {
        let worker = Cell::new(0);
        let mut kept = Kept::new(10, &worker);
        kept.keep(&piece(b"", true));
        assert_eq!(all(&mut kept), (Vec::new(), true));
        let mut kept = Kept::new(10, &worker);
        kept.keep(&piece(b"ab", false));
        kept.keep(&piece(b"", true));
        assert_eq!(all(&mut kept), (b"ab".to_vec(), true));
    }

    #[test]
    fn past_a_bound_nothing_is_kept() {
        let worker = Cell::new(0);
        let mut kept = Kept::new(10, &worker);
        kept.keep(&piece(b"0123456789", false));
        assert!(kept.is_whole());
        kept.keep(&piece(b"x", false));
        assert!(!kept.is_whole());
        assert_eq!(worker.get(), 0, "and its memory is back at once");
        worker.set(limits::REPLAY_BYTES_WORKER);
        let mut kept = Kept::new(10, &worker);
        kept.keep(&piece(b"x", false));
        assert!(!kept.is_whole());
    }

    #[test]
    fn byte_by_byte_costs_no_more() {
        let worker = Cell::new(0);
        let mut kept = Kept::new(64 << 10, &worker);
        (0..3_000).for_each(|_| kept.keep(&piece(b"y", false)));
        assert_eq!(kept.pieces.len(), 1);
    }
}
