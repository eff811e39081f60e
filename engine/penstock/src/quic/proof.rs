//! How much is said to an address before it is known that whoever is there listens: three times what has come from it, to the byte (RFC 9000 §8.1).
//!
//! quinn-proto keeps to that but for a datagram that it has begun (quinn#1082), which makes four times of three. It does not tell whether an address is proved
//! either; but a datagram with a connection id of ours was sent by somebody who has heard it from us, for it has 64 bits that nobody guesses. What is held back
//! is not lost: QUIC is not asked for it until more has come.

use std::cell::Cell;

use quinn_proto::ConnectionId;

/// What is known of a peer's address.
pub(super) struct Proof {
    /// The id that the peer has chosen for us, and goes on to use until it has heard ours. `None`: the address is its own.
    chosen: Cell<Option<ConnectionId>>,
    /// Bytes that have come from there, and went there.
    heard: Cell<u64>,
    said: Cell<u64>,
}

impl Proof {
    /// Of an address that a token has proved, or that we called.
    pub(super) const fn given() -> Self {
        Self { chosen: Cell::new(None), heard: Cell::new(0), said: Cell::new(0) }
    }

    /// Of one from which so many bytes have come, to an id of the sender's choice.
    pub(super) const fn wanted(chosen: ConnectionId, heard: u64) -> Self {
        Self { chosen: Cell::new(Some(chosen)), heard: Cell::new(heard), said: Cell::new(0) }
    }

    /// Another datagram has come: with this id, if it has one of its own choice at all.
    pub(super) fn hear(&self, id: Option<ConnectionId>, bytes: u64) {
        if self.chosen.get().is_none() {
            return;
        }
        if id == self.chosen.get() {
            self.heard.set(self.heard.get() + bytes);
        } else {
            self.chosen.set(None);
        }
    }

    /// Bytes that may go there now; `None`: as many as one likes.
    pub(super) fn left(&self) -> Option<u64> {
        self.chosen.get().map(|_| (self.heard.get() * 3).saturating_sub(self.said.get()))
    }

    pub(super) fn say(&self, bytes: usize) {
        self.said.set(self.said.get() + bytes as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> ConnectionId {
        ConnectionId::new(&[byte; 8])
    }

    #[test]
    fn three_times_and_not_a_byte_more() {
        let proof = Proof::wanted(id(1), 1_350);
        assert_eq!(proof.left(), Some(4_050));
        proof.say(3_600);
        assert_eq!(proof.left(), Some(450));
        proof.hear(Some(id(1)), 250);
        assert_eq!(proof.left(), Some(1_200));
        proof.say(1_201);
        assert_eq!(proof.left(), Some(0));
    }

    #[test]
    fn who_knows_an_id_of_ours_has_heard_us() {
        for heard in [Some(id(2)), None] {
            let proof = Proof::wanted(id(1), 1_200);
            proof.say(3_600);
            proof.hear(heard, 40);
            assert_eq!(proof.left(), None);
        }
        assert_eq!(Proof::given().left(), None);
    }
}
