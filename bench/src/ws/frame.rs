//! The messages: 100 bytes, with the time of sending in front, in one frame each.

use ring::Now;

/// Bytes of a message.
pub(super) const MESSAGE: usize = 100;
/// FIN, and the opcode of a binary message (RFC 6455 §5.2).
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x8;
const MASKED: u8 = 0x80;

/// A client's frame with its head and mask.
pub(super) const MASKED_FRAME: usize = 2 + 4 + MESSAGE;
/// A server's.
pub(super) const FRAME: usize = 2 + MESSAGE;

/// A client's message, sent at `now`; the mask is one that a client might have drawn.
pub(super) fn ask(now: Now, mask: [u8; 4]) -> [u8; MASKED_FRAME] {
    let mut frame = [0; MASKED_FRAME];
    (frame[0], frame[1]) = (BINARY, MASKED | MESSAGE as u8);
    frame[2..6].copy_from_slice(&mask);
    frame[6..14].copy_from_slice(&now.as_nanos().to_be_bytes());
    for (byte, key) in frame[6..].iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    frame
}

/// What a server answers: when the message was sent, how long it was under way, and when that was said.
pub(super) fn answer(message: &Message, now: Now) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    (frame[0], frame[1]) = (BINARY, MESSAGE as u8);
    let up = now.since(message.sent).as_nanos() as u64;
    frame[2..10].copy_from_slice(&now.as_nanos().to_be_bytes());
    frame[10..18].copy_from_slice(&up.to_be_bytes());
    frame
}

/// A message as it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message {
    /// When this one was sent.
    pub(super) sent: Now,
    /// How long the message was under way that it answers.
    pub(super) answered_nanos: u64,
}

/// What stands at the front of received bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Front {
    /// Not all of it is here.
    Part,
    /// A message, in so many bytes.
    Message(usize, Message),
    /// The other side takes its leave.
    Close,
    /// What nobody here sends.
    Strange,
}

pub(super) fn front(bytes: &[u8]) -> Front {
    let [first, second, ..] = *bytes else { return Front::Part };
    if first & 0xf == CLOSE {
        return Front::Close;
    }
    if first != BINARY || usize::from(second & !MASKED) != MESSAGE {
        return Front::Strange;
    }
    let masked = second & MASKED != 0;
    let length = if masked { MASKED_FRAME } else { FRAME };
    let Some(frame) = bytes.get(..length) else { return Front::Part };
    let (mask, message) = if masked { (&frame[2..6], &frame[6..]) } else { (&[0; 4][..], &frame[2..]) };
    let number = |at: usize| {
        let byte = |offset: usize| message[at + offset] ^ mask[(at + offset) % 4];
        u64::from_be_bytes(std::array::from_fn(byte))
    };
    Front::Message(length, Message { sent: Now::from_nanos(number(0)), answered_nanos: number(8) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let (sent, back) = (Now::from_nanos(1_000), Now::from_nanos(5_000));
        let ask = ask(sent, [1, 2, 3, 4]);
        let Front::Message(MASKED_FRAME, asked) = front(&ask) else { panic!("{:?}", front(&ask)) };
        assert_eq!(asked.sent, sent);
        let answer = answer(&asked, back);
        assert_eq!(front(&answer), Front::Message(FRAME, Message { sent: back, answered_nanos: 4_000 }));
        for length in 0..answer.len() {
            assert_eq!(front(&answer[..length]), Front::Part);
        }
        assert_eq!((front(&[0x88, 2, 3, 0xe9]), front(&[0x81, 1, 0])), (Front::Close, Front::Strange));
    }
}
