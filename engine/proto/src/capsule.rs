//! The capsule protocol (RFC 9297 §3): where one capsule ends and the next begins, and a datagram as one.
//!
//! Capsules pass as the bytes that they are. What is deliberately absent: reading what is in them.

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
        let head = &self.head[..self.headed];
        let (_, kind) = read_integer(head)?;
        read_integer(&head[kind..]).map(|(length, _)| length)
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

    #[test]
    fn a_length_beyond_everything_is_never_over() {
        let mut boundary = Boundary::default();
        boundary.pass(&[0xff; HEAD_MAX]);
        assert_eq!(boundary.left, (1 << 62) - 1);
        boundary.pass(&[0; 1_000]);
        assert!(!boundary.is_here());
    }
}
