//! What is left of a connection that we have ended: its last words, said again to a peer that goes on because it has not heard them, until nothing of
//! it can be under way (RFC 9000 §10.2.1). The connection itself, with all that waited on it, is gone by then.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};

use quinn_proto::Transmit;

pub(super) struct Farewell {
    words: Box<[u8]>,
    to: SocketAddr,
    from: Option<IpAddr>,
    /// Datagrams that have come since.
    heard: Cell<u32>,
}

impl Farewell {
    /// Of the datagram in which they were said.
    pub(super) fn new(transmit: &Transmit, wire: &[u8]) -> Self {
        let words = wire[..transmit.size].into();
        Self { words, to: transmit.destination, from: transmit.src_ip, heard: Cell::new(0) }
    }

    /// A datagram has come of so many bytes: what is said to that, ever more rarely, to nobody else, and never more than three times as much.
    pub(super) fn answer(&self, from: SocketAddr, bytes: usize) -> Option<(Transmit, &[u8])> {
        let heard = self.heard.get().saturating_add(1);
        self.heard.set(heard);
        let answers = heard.is_power_of_two() && from == self.to && self.words.len() <= 3 * bytes;
        let transmit =
            Transmit { destination: self.to, ecn: None, size: self.words.len(), segment_size: None, src_ip: self.from };
        answers.then_some((transmit, &self.words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ever_more_rarely_to_one_address_and_not_more_than_was_heard() {
        let to = SocketAddr::from(([10, 0, 0, 1], 7));
        let transmit = Transmit { destination: to, ecn: None, size: 60, segment_size: None, src_ip: None };
        let farewell = Farewell::new(&transmit, &[9; 100]);
        let answers = |from, bytes| farewell.answer(from, bytes).is_some_and(|(_, words)| words == [9; 60]);
        let heard: Vec<u32> = (1..=20).filter(|_| answers(to, 1_200)).collect();
        assert_eq!(heard, [1, 2, 4, 8, 16]);
        (21..32).for_each(|_| assert!(!answers(to, 1_200)));
        assert!(!answers(to, 19), "the 32nd is too short");
        (33..64).for_each(|_| assert!(!answers(to, 1_200)));
        assert!(!answers(SocketAddr::from(([10, 0, 0, 2], 7)), 1_200), "the 64th is somebody else's");
    }
}
