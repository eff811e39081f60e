//! The capsule protocol (RFC 9297 §3): where one capsule ends and the next begins, a datagram as one, and those that are datagrams found among others.
//!
//! All others pass as the bytes that they are. What is deliberately absent: reading what is in them.

use crate::h3::frame::{put_integer, read_integer};

/// The type of a capsule that is a datagram (RFC 9297 §3.5).
const DATAGRAM: u64 = 0;

/// Bytes of the longest type and length.
const HEAD_MAX: usize = 16;

/// Follows the capsules of one direction as they pass.
#[derive(Debug, Default, Clone)]
pub struct Boundary {
    head: [u8; HEAD_MAX],
    /// Bytes of a head that has not come whole.
    headed: usize,
    /// Bytes of the capsule that are still to come.
    left: u64,
}

impl Boundary {
    /// Whether another capsule may be put here.
    pub fn is_here(&self) -> bool {
        self.headed == 0 && self.left == 0
    }

    /// These bytes have passed.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            self.left -= skipped as u64;
            bytes = &bytes[skipped..];
            let Some((&byte, rest)) = bytes.split_first() else { return };
            // A head is whole at its last byte and not before, so there is always room for one more.
            self.head[self.headed] = byte;
            self.headed += 1;
            bytes = rest;
            if let Some(length) = self.length() {
                (self.headed, self.left) = (0, length);
            }
        }
    }

    /// The length that the head tells, once it is whole.
    fn length(&self) -> Option<u64> {
        head(&self.head[..self.headed]).map(|head| head.length)
    }
}

/// How a capsule begins.
struct Head {
    kind: u64,
    /// Bytes of what follows.
    length: u64,
    /// Bytes of the head itself.
    own: usize,
}

/// The head that stands at the front, once it is whole.
fn head(bytes: &[u8]) -> Option<Head> {
    let (kind, first) = read_integer(bytes)?;
    let (length, second) = read_integer(&bytes[first..])?;
    Some(Head { kind, length, own: first + second })
}

/// What a [`Sieve`] has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sifted<'a> {
    /// Goes on as it is.
    Bytes(&'a [u8]),
    /// A capsule that is a datagram, and the datagram.
    Datagram { capsule: &'a [u8], datagram: &'a [u8] },
}

/// Finds those that are datagrams among the capsules of one direction.
#[derive(Debug, Default)]
pub struct Sieve {
    /// Of a capsule that has not come whole: its head, or all of it if it is a datagram.
    held: Vec<u8>,
    /// Bytes that are still to come of a capsule that goes on as it is.
    left: u64,
}

impl Sieve {
    /// Whether another capsule may be put behind what has been given.
    pub fn is_here(&self) -> bool {
        self.left == 0
    }

    /// Gives what has come, in order. A datagram of more than `most` bytes is as any other capsule, so that no more than those and a head are held.
    pub fn sift(&mut self, mut bytes: &[u8], most: u64, mut give: impl FnMut(Sifted<'_>)) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let passed = bytes.split_off(..usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len()));
                let passed = passed.unwrap_or_default();
                self.left -= passed.len() as u64;
                give(Sifted::Bytes(passed));
                continue;
            }
            let missing = match head(&self.held) {
                None => 1,
                Some(head) => head.own + head.length as usize - self.held.len(),
            };
            self.held.extend(bytes.split_off(..missing.min(bytes.len())).unwrap_or_default());
            let Some(head) = head(&self.held) else { continue };
            if head.kind != DATAGRAM || head.length > most {
                give(Sifted::Bytes(&self.held));
                self.held.clear();
                self.left = head.length;
            } else if self.held.len() as u64 == head.own as u64 + head.length {
                give(Sifted::Datagram { capsule: &self.held, datagram: &self.held[head.own..] });
                self.held.clear();
            }
        }
    }

    /// What is held, when nothing more comes.
    pub fn take_held(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

/// Appends a datagram as a capsule.
pub fn put_datagram(payload: &[u8], out: &mut Vec<u8>) {
    put_integer(DATAGRAM, out);
    put_integer(payload.len() as u64, out);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capsules() -> Vec<Vec<u8>> {
        let other = |kind: u64, payload: &[u8]| {
            let mut out = Vec::new();
            put_integer(kind, &mut out);
            put_integer(payload.len() as u64, &mut out);
            out.extend_from_slice(payload);
            out
        };
        let mut datagram = Vec::new();
        put_datagram(b"datagram", &mut datagram);
        vec![datagram, other(1, b""), other(0x1234_5678, &[7; 300]), other(u64::MAX, &[0; 20_000])]
    }

    /// However the bytes are cut, an end is seen where a capsule ends, and nowhere else.
    #[test]
    fn ends_are_seen_wherever_pieces_end() {
        let capsules = capsules();
        let bytes = capsules.concat();
        let ends: Vec<usize> = capsules
            .iter()
            .scan(0, |at, one| {
                *at += one.len();
                Some(*at)
            })
            .collect();
        for piece in [1, 2, 3, 7, 64, 301, 5_000, usize::MAX] {
            let (mut boundary, mut at) = (Boundary::default(), 0);
            assert!(boundary.is_here());
            for piece in bytes.chunks(piece.min(bytes.len())) {
                boundary.pass(piece);
                at += piece.len();
                assert_eq!(boundary.is_here(), ends.contains(&at), "after {at} bytes");
            }
        }
    }

    /// However the bytes are cut, all datagrams that are short enough are found, and all else goes on in order.
    #[test]
    fn datagrams_are_found_wherever_pieces_end() {
        let mut capsules = capsules();
        let mut long = Vec::new();
        put_datagram(&[9; 50], &mut long);
        let mut empty = Vec::new();
        put_datagram(b"", &mut empty);
        capsules.extend([empty, long, capsules[0].clone()]);
        let bytes = capsules.concat();
        let others = [&capsules[1..4].concat()[..], &capsules[5]].concat();
        for piece in [1, 2, 3, 7, 64, 301, 5_000, bytes.len()] {
            let (mut sieve, mut rest, mut found) = (Sieve::default(), Vec::new(), Vec::new());
            for piece in bytes.chunks(piece) {
                sieve.sift(piece, 49, |sifted| match sifted {
                    Sifted::Bytes(bytes) => rest.extend_from_slice(bytes),
                    Sifted::Datagram { capsule, datagram } => {
                        let mut again = Vec::new();
                        put_datagram(datagram, &mut again);
                        assert_eq!(again, capsule);
                        found.push(datagram.to_vec());
                    }
                });
                assert!(sieve.held.len() <= 49 + HEAD_MAX);
            }
            assert!(rest == others, "pieces of {piece}");
            assert_eq!(found, [b"datagram".to_vec(), Vec::new(), b"datagram".to_vec()]);
            assert!(sieve.is_here() && sieve.take_held().is_empty());
        }
    }

    /// What was begun and does not end is not lost: who it is for sees that it is broken.
    #[test]
    fn what_is_held_can_be_had() {
        let mut sieve = Sieve::default();
        sieve.sift(&[0, 8, b'd', b'a'], 100, |_| panic!("nothing is whole"));
        assert_eq!(sieve.take_held(), [0, 8, b'd', b'a']);
        assert_eq!(sieve.take_held(), []);
    }

    #[test]
    fn a_length_beyond_everything_is_never_over() {
        let mut boundary = Boundary::default();
        boundary.pass(&[0xff; HEAD_MAX]);
        assert_eq!(boundary.left, (1 << 62) - 1);
        boundary.pass(&[0; 1_000]);
        assert!(!boundary.is_here());
    }
}
