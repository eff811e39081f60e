//! Datagrams of one length and one way that came one by one, put behind each other, so that they leave in one send (`UDP_SEGMENT`).
//!
//! What holds here: nothing is overtaken; what does not fit makes the others leave first; a shorter datagram is the last of its send.

use ring::{Received, Transmit};

use crate::limits;

/// What waits to leave together.
#[derive(Debug, Default)]
pub(super) struct Joined {
    bytes: Vec<u8>,
    /// Bytes of each but the last.
    stride: usize,
    ecn: u8,
    count: usize,
}

impl Joined {
    /// Takes datagrams in, or sends them behind those that wait: how many found no room.
    pub(super) fn put(&mut self, received: &Received<'_>, mut send: impl FnMut(Leaving<'_>) -> bool) -> u64 {
        if self.takes(received) {
            return 0;
        }
        let dropped = self.leave(&mut send);
        if self.takes(received) { dropped } else { dropped + pass(received, send) }
    }

    /// Takes a datagram in. False: others have to [leave](Self::leave) first, or it goes by itself.
    fn takes(&mut self, received: &Received<'_>) -> bool {
        let Received { stride, ecn, ref bytes, .. } = *received;
        let alone = bytes.is_empty() || bytes.len() > stride || bytes.len() > limits::JOINED_EACH_MAX;
        let whole = self.bytes.len() == self.count * self.stride;
        let fits = self.count == 0
            || whole
                && bytes.len() <= self.stride
                && ecn == self.ecn
                && self.count < limits::JOINED_MAX
                && self.bytes.len() + bytes.len() <= limits::JOINED_BYTES_MAX;
        if alone || !fits {
            return false;
        }
        if self.count == 0 {
            (self.stride, self.ecn) = (bytes.len(), ecn);
        }
        self.bytes.extend_from_slice(bytes);
        self.count += 1;
        true
    }

    /// Sends what waits, if anything does: how many that was, where it found no room.
    pub(super) fn leave(&mut self, send: impl FnOnce(Leaving<'_>) -> bool) -> u64 {
        let count = std::mem::take(&mut self.count);
        if count == 0 {
            return 0;
        }
        let segment = (count > 1).then_some(self.stride);
        let sent = send(Leaving { ecn: self.ecn, segment, bytes: &self.bytes });
        self.bytes.clear();
        if sent { 0 } else { count as u64 }
    }
}

/// Sends datagrams as they came: how many of them found no room.
fn pass(received: &Received<'_>, mut send: impl FnMut(Leaving<'_>) -> bool) -> u64 {
    let Received { stride, ecn, ref bytes, .. } = *received;
    let mut dropped = 0;
    let mut pass = |bytes: &[u8]| {
        let segment = (bytes.len() > stride).then_some(stride);
        if !send(Leaving { ecn, segment, bytes }) {
            dropped += count(bytes.len(), stride);
        }
    };
    if bytes.is_empty() {
        pass(&[]);
    }
    let together = stride * (limits::JOINED_BYTES_MAX / stride).clamp(1, limits::JOINED_MAX);
    bytes.chunks(together).for_each(pass);
    dropped
}

/// Datagrams in so many bytes. One without content is one too.
pub(super) fn count(bytes: usize, stride: usize) -> u64 {
    bytes.div_ceil(stride).max(1) as u64
}

/// What leaves together.
pub(super) struct Leaving<'a> {
    ecn: u8,
    segment: Option<usize>,
    bytes: &'a [u8],
}

impl<'a> Leaving<'a> {
    /// Datagrams, and their bytes.
    pub(super) fn amount(&self) -> (u64, u64) {
        let bytes = self.bytes.len();
        (self.segment.map_or(1, |segment| count(bytes, segment)), bytes as u64)
    }

    pub(super) fn to(self, to: std::net::SocketAddr, from: Option<std::net::IpAddr>) -> Transmit<'a> {
        Transmit { to, from, ecn: self.ecn, segment: self.segment, bytes: self.bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(bytes: &mut [u8], ecn: u8) -> Received<'_> {
        let stride = bytes.len().max(1);
        Received { from: ([127, 0, 0, 1], 1).into(), to: None, ecn, stride, bytes }
    }

    /// Feeds datagrams of these lengths and marks, and tells what leaves: the lengths in each send.
    fn sends(datagrams: &[(usize, u8)]) -> Vec<Vec<usize>> {
        let (mut joined, mut left) = (Joined::default(), Vec::new());
        let mut leave = |joined: &mut Joined| {
            joined.leave(|leaving| {
                let stride = leaving.segment.unwrap_or(leaving.bytes.len());
                left.push(leaving.bytes.chunks(stride).map(<[u8]>::len).collect::<Vec<_>>());
                true
            });
        };
        for (length, ecn) in datagrams {
            let mut bytes = vec![7; *length];
            if !joined.takes(&datagram(&mut bytes, *ecn)) {
                leave(&mut joined);
                assert!(joined.takes(&datagram(&mut bytes, *ecn)), "{length} is of the kind that joins");
            }
        }
        leave(&mut joined);
        left
    }

    #[test]
    fn neighbours_of_one_length_leave_together() {
        assert_eq!(sends(&[(100, 0), (100, 0), (100, 0)]), [vec![100, 100, 100]]);
        assert_eq!(sends(&[(100, 0), (60, 0), (100, 0)]), [vec![100, 60], vec![100]], "a shorter one is the last");
        assert_eq!(sends(&[(100, 0), (101, 0)]), [vec![100], vec![101]]);
        assert_eq!(sends(&[(100, 0), (100, 2)]), [vec![100], vec![100]], "marks are not changed");
        assert_eq!(sends(&[(1_200, 0); 100]).iter().map(Vec::len).collect::<Vec<_>>(), [54, 46]);
        assert_eq!(sends(&[(10, 0); 100]).iter().map(Vec::len).collect::<Vec<_>>(), [64, 36]);
    }

    #[test]
    fn some_go_by_themselves() {
        let mut joined = Joined::default();
        assert!(!joined.takes(&datagram(&mut [], 0)), "an empty one");
        assert!(!joined.takes(&datagram(&mut vec![0; limits::JOINED_EACH_MAX + 1], 0)), "a large one");
        let joined_already = &mut [0; 300][..];
        assert!(!joined.takes(&Received { stride: 100, ..datagram(joined_already, 0) }), "those that came joined");
        assert_eq!(joined.leave(|_| unreachable!("nothing waits")), 0);
        assert!(joined.takes(&datagram(&mut [1; 9], 0)) && joined.takes(&datagram(&mut [1; 9], 0)));
        assert_eq!(joined.leave(|_| false), 2, "no room");
    }
}
