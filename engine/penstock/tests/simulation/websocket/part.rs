//! What one end of a WebSocket says, by its seed; and what of it was heard.

use proto::ws::Sender;

use crate::ledger::{Ledger, content, one_of};

const FIN: u8 = 0x80;
const KINDS: [u8; 2] = [0x1, 0x2];
const CLOSE: u8 = FIN | 0x8;
const PING: u8 = FIN | 0x9;
const PONG: u8 = FIN | 0xa;

/// How the bytes of the other end came to their end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fared {
    Ended,
    Broken,
}

/// What was heard of a part.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Heard {
    Whole,
    /// So many bytes, which are whole frames, and then a Close that is not its sender's.
    Closed(u16, usize),
    /// Only its beginning.
    Cut,
}

/// All that one end says.
pub(super) struct Part {
    sender: Sender,
    pub(super) bytes: Vec<u8>,
    /// Where frames end.
    ends: Vec<usize>,
    /// Before what breaks a rule: all of it, if nothing does.
    pub(super) sound: usize,
    /// Its last frame is a Close.
    pub(super) closes: bool,
}

impl Part {
    pub(super) fn of(ledger: &Ledger, id: u64, sender: Sender, size_max: usize) -> Self {
        let mut dice = ledger.dice(id, if sender == Sender::Client { 2 } else { 3 });
        let mut part = Self { sender, bytes: Vec::new(), ends: vec![0], sound: usize::MAX, closes: false };
        let messages = dice.within(0..=8);
        let breaks = if dice.chance(0.15) { dice.within(0..=messages) } else { usize::MAX };
        for number in 0..=messages {
            if number == breaks {
                part.sound = part.bytes.len();
                // Of a client's that is not masked, or a server's that is.
                let wrong = frame(FIN | 0x2, &content(id, number, 10), (sender == Sender::Server).then_some(*b"mask"));
                part.bytes.extend(wrong);
            }
            if number == messages {
                break;
            }
            let kind = *one_of(&mut dice, &KINDS);
            let most = *one_of(&mut dice, &[0, 10, 125, 126, 500, 5_000, 66_000]);
            let message = content(id, number, dice.within(0..=most.min(size_max)));
            let pieces = if dice.chance(0.3) { dice.within(2..=4) } else { 1 };
            let length = message.len().div_ceil(pieces).max(1);
            for at in 0..pieces {
                let payload = &message[(at * length).min(message.len())..((at + 1) * length).min(message.len())];
                let (opcode, fin) = (if at == 0 { kind } else { 0 }, if at + 1 == pieces { FIN } else { 0 });
                part.say(fin | opcode, payload);
                if dice.chance(0.1) {
                    part.say(*one_of(&mut dice, &[PING, PONG]), &content(id, at, dice.within(0..=125)));
                }
            }
        }
        part.closes = dice.chance(0.8);
        if part.closes {
            part.say(CLOSE, &1_000_u16.to_be_bytes());
        }
        part.sound = part.sound.min(part.bytes.len());
        part
    }

    fn say(&mut self, first: u8, payload: &[u8]) {
        let key = (self.sender == Sender::Client).then_some([0x37, 0xfa, self.bytes.len() as u8, 0x3d]);
        self.bytes.extend(frame(first, payload, key));
        self.ends.push(self.bytes.len());
    }

    pub(super) fn is_broken(&self) -> bool {
        self.sound < self.bytes.len()
    }

    /// What was heard of it.
    ///
    /// # Errors
    /// It is something else.
    pub(super) fn judge(&self, heard: &[u8]) -> Result<Heard, String> {
        if heard == self.bytes && !self.is_broken() {
            return Ok(Heard::Whole);
        }
        let told = self.ends.iter().rev().filter(|&&end| end <= self.sound && heard.len() > end).find_map(|&end| {
            let (passed, own) = heard.split_at(end);
            let close = Close::of(own, self.sender).filter(|_| self.bytes.starts_with(passed))?;
            Some(if let Close::Whole(code) = close { Heard::Closed(code, end) } else { Heard::Cut })
        });
        if let Some(told) = told {
            return Ok(told);
        }
        // The head of what breaks a rule may have passed before all of it had come.
        if self.bytes.starts_with(heard) && heard.len() < self.sound + HEAD_MAX {
            return Ok(Heard::Cut);
        }
        let same = self.bytes.iter().zip(heard).take_while(|(said, heard)| said == heard).count();
        Err(format!(
            "{} bytes, of which the first {same} are among the {} that were said ({} sound)",
            heard.len(),
            self.bytes.len(),
            self.sound
        ))
    }
}

/// The longest head of a frame.
const HEAD_MAX: usize = 14;

/// A Close towards who hears the other.
enum Close {
    /// With that code.
    Whole(u16),
    Part,
}

impl Close {
    /// What these bytes are, and nothing else.
    fn of(bytes: &[u8], heard_of: Sender) -> Option<Self> {
        let Some((&[first, length], rest)) = bytes.split_first_chunk() else {
            return (bytes == [CLOSE]).then_some(Self::Part);
        };
        let masked = length & 0x80 != 0;
        if first != CLOSE || masked != (heard_of == Sender::Client) {
            return None;
        }
        let (key, length) = (if masked { 4 } else { 0 }, usize::from(length & 0x7f));
        if rest.len() < key + length {
            return Some(Self::Part);
        }
        let (key, payload) = rest.split_at(key);
        let key = key.first_chunk().copied().unwrap_or([0; 4]);
        let code = u16::from_be_bytes([payload[0] ^ key[0], payload[1] ^ key[1]]);
        (payload.len() == length).then_some(Self::Whole(code))
    }
}

fn frame(first: u8, payload: &[u8], key: Option<[u8; 4]>) -> Vec<u8> {
    let mask = if key.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(mask | length as u8),
        length @ 126..65_536 => bytes.extend([&[mask | 126][..], &(length as u16).to_be_bytes()].concat()),
        length => bytes.extend([&[mask | 127][..], &(length as u64).to_be_bytes()].concat()),
    }
    bytes.extend(key.into_iter().flatten());
    let key = key.unwrap_or_default();
    bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}
