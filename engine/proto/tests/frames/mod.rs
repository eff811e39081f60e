//! WebSocket frames as RFC 6455 §5.2 draws them, made without the machine's own code, and what an inspector says of them. Shared with the
//! fuzz target.

#![allow(dead_code, unreachable_pub)]

use proto::ws::{Event, Inspector, MaskingKey, Rules, Sender, Violation};

pub const FIN: u8 = 0x80;
pub const RSV1: u8 = 0x40;
pub const CONTINUATION: u8 = 0x0;
pub const TEXT: u8 = 0x1;
pub const BINARY: u8 = 0x2;
pub const CLOSE: u8 = FIN | 0x8;
pub const PING: u8 = FIN | 0x9;
pub const PONG: u8 = FIN | 0xa;

pub const KEY: MaskingKey = [0x37, 0xfa, 0x21, 0x3d];

/// A frame of that sender's.
pub fn frame(sender: Sender, first: u8, payload: &[u8]) -> Vec<u8> {
    framed(first, payload, (sender == Sender::Client).then_some(KEY))
}

pub fn framed(first: u8, payload: &[u8], key: Option<MaskingKey>) -> Vec<u8> {
    let mask = if key.is_some() { 0x80 } else { 0 };
    let mut out = vec![first];
    match payload.len() {
        length @ 0..126 => out.push(mask | length as u8),
        length @ 126..65_536 => {
            out.push(mask | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(mask | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend(key.into_iter().flatten());
    out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ key.map_or(0, |key| key[at % 4])));
    out
}

/// What was said of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Story {
    /// Each with the offset in the stream at which it was said.
    pub events: Vec<(Event, usize)>,
    pub violation: Option<Violation>,
    /// Where the last frame ended that is complete.
    pub sound: usize,
    pub reason: String,
    pub closed: bool,
}

impl Story {
    pub fn events(&self) -> Vec<Event> {
        self.events.iter().map(|(event, _)| *event).collect()
    }
}

/// Shows an inspector the pieces, one after the other.
pub fn inspect(rules: Rules, pieces: &[&[u8]]) -> Story {
    let mut inspector = Inspector::new(rules);
    let (mut events, mut offset, mut sound, mut violation) = (Vec::new(), 0, 0, None);
    'pieces: for piece in pieces {
        let mut at = 0;
        loop {
            let step = match inspector.read(&piece[at..]) {
                Ok(step) => step,
                Err(broken) => {
                    assert_eq!(inspector.read(b""), Err(broken), "it stays broken");
                    violation = Some(broken);
                    break 'pieces;
                }
            };
            at += step.consumed;
            if step.event == Event::Pause {
                assert_eq!(at, piece.len(), "a pause has consumed everything");
                break;
            }
            let ends = !matches!(step.event, Event::Begin(_));
            assert!(!ends || inspector.is_between_frames(), "{:?} ends a frame", step.event);
            if ends {
                sound = offset + at;
            }
            events.push((step.event, offset + at));
        }
        offset += piece.len();
        assert_eq!(inspector.is_between_frames(), sound == offset);
    }
    Story { events, violation, sound, reason: inspector.reason().to_owned(), closed: inspector.is_closed() }
}
