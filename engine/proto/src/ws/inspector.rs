//! One direction of a connection, looked at as it passes.

use super::frame::{
    CONTROL_BYTES_MAX, FIN, HEAD_BYTES_MAX, LENGTH, MASKED, MaskingKey, OPCODE, Opcode, RSV1, RSV2_RSV3, length, mask,
};
use super::utf8::Utf8;
use super::{CloseCode, Violation};

/// Who sends in this direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// Whoever opened the connection: it masks.
    Client,
    /// Whoever accepted it: it does not.
    Server,
}

/// What is asked of the frames of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    pub sender: Sender,
    /// Whether permessage-deflate was agreed, so that RSV1 says of a message that it is compressed (RFC 7692 §6).
    pub deflate: bool,
    /// Whether text is looked at: it must be UTF-8 (RFC 6455 §8.1). What is compressed is passed over.
    pub utf8: bool,
    /// Payload of one data frame.
    pub frame_bytes_max: u64,
    /// Payload of one message, as it passes: compressed if it is compressed.
    pub message_bytes_max: u64,
}

impl Rules {
    /// The protocol's own. Nothing of a message is kept here, so its size concerns nobody but who reads it: there is no limit that has
    /// not been set.
    pub const fn new(sender: Sender) -> Self {
        Self { sender, deflate: false, utf8: false, frame_bytes_max: u64::MAX, message_bytes_max: u64::MAX }
    }
}

/// What a message is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Binary,
}

/// A data message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    pub kind: Kind,
    /// With permessage-deflate; `bytes` counts what passed.
    pub compressed: bool,
    /// Of payload, in frames that are complete.
    pub bytes: u64,
    /// Frames that are complete; a message that is not fragmented has one.
    pub frames: u32,
}

/// What a Ping carries and its Pong brings back: enough of it to know a Ping of one's own again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    /// Bytes of payload, 125 at most.
    pub length: u8,
    /// The first of them; zeros if there are fewer.
    pub start: [u8; 8],
}

/// One step of a direction. But for `Begin` and `Pause`, each says that a frame has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The head of a message's first frame has passed: nothing of `bytes` and `frames` yet.
    Begin(Message),
    /// A frame of a message has ended that others will follow.
    Fragment,
    /// A message is complete.
    End(Message),
    Ping(Echo),
    Pong(Echo),
    /// The sender's last word, with [`Inspector::reason`]. Of what it was still sending there comes no more.
    Close(CloseCode),
    /// Nothing more can be said until there are more bytes.
    Pause,
}

/// What one call found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the slice that was handed in that belong to this step. At a pause that is all of it.
    pub consumed: usize,
    pub event: Event,
}

/// Checks and measures what one side sends.
#[derive(Debug)]
pub struct Inspector {
    rules: Rules,
    state: State,
    /// The beginning of a head that is not whole yet.
    head: [u8; HEAD_BYTES_MAX],
    head_len: u8,
    /// The message under way, which control frames may interrupt.
    message: Option<Message>,
    /// Of that message, if its text is looked at.
    text: Option<Utf8>,
    /// The first bytes of a control frame's payload.
    control: [u8; 8],
    reason: Vec<u8>,
    closed: bool,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Between frames, or in a head.
    Head,
    Payload(Frame),
    Broken(Violation),
}

/// The frame that is passing.
#[derive(Debug, Clone, Copy)]
struct Frame {
    opcode: Opcode,
    fin: bool,
    compressed: bool,
    key: Option<MaskingKey>,
    length: u64,
    /// Bytes of payload that have not passed.
    remaining: u64,
}

impl Frame {
    /// Bytes of payload that have passed.
    fn passed(&self) -> u64 {
        self.length - self.remaining
    }

    /// The masking key as it meets the next byte of payload.
    fn key_here(&self) -> Option<MaskingKey> {
        self.key.map(|mut key| {
            key.rotate_left((self.passed() % 4) as usize);
            key
        })
    }
}

impl Inspector {
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            state: State::Head,
            head: [0; HEAD_BYTES_MAX],
            head_len: 0,
            message: None,
            text: None,
            control: [0; 8],
            reason: Vec::new(),
            closed: false,
        }
    }

    /// Looks at the bytes that pass, up to the next event. Payload is passed over unless it is a control frame's, or text to be looked at.
    ///
    /// # Errors
    /// The sender broke a rule, in the frame that follows the last one that ended; every further read says the same. What has ended is
    /// sound, and nothing behind it is to be passed on.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Step, Violation> {
        let step = self.advance(bytes);
        if let Err(violation) = step {
            self.state = State::Broken(violation);
        }
        step
    }

    /// Whether the bytes that passed end where a frame ends: here, and nowhere else, may a frame of our own be put.
    pub fn is_between_frames(&self) -> bool {
        matches!(self.state, State::Head) && self.head_len == 0
    }

    /// The message that has begun and not ended.
    pub fn message(&self) -> Option<Message> {
        self.message
    }

    /// Whether the sender has said Close: its end of input is then no loss.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// What the Close said beside its code.
    pub fn reason(&self) -> &str {
        std::str::from_utf8(&self.reason).unwrap_or_default()
    }

    fn advance(&mut self, bytes: &[u8]) -> Result<Step, Violation> {
        let mut at = 0;
        loop {
            match self.state {
                State::Broken(violation) => return Err(violation),
                State::Head => {
                    let (taken, frame) = self.take_head(&bytes[at..])?;
                    at += taken;
                    let Some(frame) = frame else {
                        return Ok(Step { consumed: at, event: Event::Pause });
                    };
                    self.state = State::Payload(frame);
                    if let Some(message) = self.begin(&frame) {
                        return Ok(Step { consumed: at, event: Event::Begin(message) });
                    }
                }
                State::Payload(frame) => {
                    let (taken, frame) = self.take_payload(&bytes[at..], frame)?;
                    at += taken;
                    self.state = State::Payload(frame);
                    if frame.remaining > 0 {
                        return Ok(Step { consumed: at, event: Event::Pause });
                    }
                    let event = self.end(&frame)?;
                    self.state = State::Head;
                    return Ok(Step { consumed: at, event });
                }
            }
        }
    }

    /// Reads a head, or as much of it as there is. It is copied only if it is cut.
    fn take_head(&mut self, bytes: &[u8]) -> Result<(usize, Option<Frame>), Violation> {
        let held = self.head_len as usize;
        let added = bytes.len().min(HEAD_BYTES_MAX - held);
        if held == 0
            && let Some((frame, length)) = self.judge(&bytes[..added])?
        {
            return Ok((length, Some(frame)));
        }
        self.head[held..held + added].copy_from_slice(&bytes[..added]);
        match self.judge(&self.head[..held + added])? {
            Some((frame, length)) => {
                self.head_len = 0;
                Ok((length - held, Some(frame)))
            }
            None => {
                self.head_len = (held + added) as u8;
                Ok((added, None))
            }
        }
    }

    /// Judges what there is of a head, in the order of its bytes, so that the verdict is the same wherever it is cut. Returns the frame
    /// and how long its head is, if all of it is there.
    #[inline]
    fn judge(&self, head: &[u8]) -> Result<Option<(Frame, usize)>, Violation> {
        let Some((&first, rest)) = head.split_first() else {
            return Ok(None);
        };
        let opcode = self.judge_first(first)?;
        let Some((&second, rest)) = rest.split_first() else {
            return Ok(None);
        };
        self.judge_second(opcode, second)?;
        let Some((length, rest)) = length(second, rest)? else {
            return Ok(None);
        };
        self.judge_length(opcode, length)?;
        let (key, rest) = match rest.split_first_chunk() {
            _ if second & MASKED == 0 => (None, rest),
            Some((key, rest)) => (Some(*key), rest),
            None => return Ok(None),
        };
        let (fin, compressed) = (first & FIN != 0, first & RSV1 != 0);
        Ok(Some((Frame { opcode, fin, compressed, key, length, remaining: length }, head.len() - rest.len())))
    }

    fn judge_first(&self, first: u8) -> Result<Opcode, Violation> {
        if first & RSV2_RSV3 != 0 {
            return Err(Violation::ReservedBit);
        }
        let opcode = Opcode::from_bits(first & OPCODE).ok_or(Violation::ReservedOpcode)?;
        let begins = matches!(opcode, Opcode::Text | Opcode::Binary);
        if first & RSV1 != 0 && !(self.rules.deflate && begins) {
            Err(Violation::ReservedBit)
        } else if opcode.is_control() && first & FIN == 0 {
            Err(Violation::ControlFragmented)
        } else if self.closed && !matches!(opcode, Opcode::Ping | Opcode::Pong) {
            // A Pong may owe itself to a Ping that crossed the Close (RFC 6455 §5.5.1 forbids data only).
            Err(Violation::AfterClose)
        } else if begins && self.message.is_some() {
            Err(Violation::Interleaved)
        } else if opcode == Opcode::Continuation && self.message.is_none() {
            Err(Violation::NothingToContinue)
        } else {
            Ok(opcode)
        }
    }

    fn judge_second(&self, opcode: Opcode, second: u8) -> Result<(), Violation> {
        match (self.rules.sender, second & MASKED != 0) {
            (Sender::Client, false) => Err(Violation::Unmasked),
            (Sender::Server, true) => Err(Violation::Masked),
            _ if opcode.is_control() && (second & LENGTH) as usize > CONTROL_BYTES_MAX => {
                Err(Violation::ControlTooLong)
            }
            _ => Ok(()),
        }
    }

    /// Limits hold before anything passes that exceeds them.
    fn judge_length(&self, opcode: Opcode, length: u64) -> Result<(), Violation> {
        let before = self.message.map_or(0, |message| message.bytes);
        if opcode.is_control() {
            Ok(())
        } else if length > self.rules.frame_bytes_max {
            Err(Violation::FrameTooLarge)
        } else if before.saturating_add(length) > self.rules.message_bytes_max {
            Err(Violation::MessageTooLarge)
        } else {
            Ok(())
        }
    }

    /// A head has passed. Returns the message that begins with it.
    fn begin(&mut self, frame: &Frame) -> Option<Message> {
        let kind = match frame.opcode {
            Opcode::Text => Kind::Text,
            Opcode::Binary => Kind::Binary,
            Opcode::Continuation => return None,
            Opcode::Close | Opcode::Ping | Opcode::Pong => {
                self.control = [0; 8];
                return None;
            }
        };
        let compressed = frame.compressed;
        self.text = (self.rules.utf8 && kind == Kind::Text && !compressed).then(Utf8::default);
        self.message = Some(Message { kind, compressed, bytes: 0, frames: 0 });
        self.message
    }

    fn take_payload(&mut self, bytes: &[u8], mut frame: Frame) -> Result<(usize, Frame), Violation> {
        let taken = usize::try_from(frame.remaining).unwrap_or(usize::MAX).min(bytes.len());
        let payload = &bytes[..taken];
        if frame.opcode.is_control() {
            self.take_control(payload, &frame);
        } else if let Some(text) = &mut self.text
            && !text.take(payload, frame.key_here())
        {
            return Err(Violation::Text);
        }
        frame.remaining -= taken as u64;
        Ok((taken, frame))
    }

    /// Keeps what is told of a control frame. Only a Close that gives a reason, which is one a connection, needs memory for it.
    fn take_control(&mut self, payload: &[u8], frame: &Frame) {
        let mut storage = [0; CONTROL_BYTES_MAX];
        // A control frame has no more than that: its head was judged.
        let plain = &mut storage[..payload.len()];
        plain.copy_from_slice(payload);
        if let Some(key) = frame.key_here() {
            mask(key, plain);
        }
        let passed = frame.passed() as usize;
        for (kept, &byte) in self.control.iter_mut().skip(passed).zip(&*plain) {
            *kept = byte;
        }
        if frame.opcode == Opcode::Close && frame.length > 2 {
            self.reason.reserve_exact(frame.length as usize - 2 - self.reason.len());
            self.reason.extend_from_slice(&plain[2_usize.saturating_sub(passed).min(plain.len())..]);
        }
    }

    /// A frame has passed.
    fn end(&mut self, frame: &Frame) -> Result<Event, Violation> {
        let echo = Echo { length: frame.length as u8, start: self.control };
        match frame.opcode {
            Opcode::Ping => Ok(Event::Ping(echo)),
            Opcode::Pong => Ok(Event::Pong(echo)),
            Opcode::Close => self.end_close(frame).map(Event::Close),
            Opcode::Text | Opcode::Binary | Opcode::Continuation => self.end_data(frame),
        }
    }

    fn end_data(&mut self, frame: &Frame) -> Result<Event, Violation> {
        let Some(message) = &mut self.message else {
            return Err(Violation::NothingToContinue);
        };
        message.bytes = message.bytes.saturating_add(frame.length);
        message.frames = message.frames.saturating_add(1);
        let message = *message;
        if !frame.fin {
            return Ok(Event::Fragment);
        }
        if self.text.take().is_some_and(|text| !text.is_whole()) {
            return Err(Violation::Text);
        }
        self.message = None;
        Ok(Event::End(message))
    }

    fn end_close(&mut self, frame: &Frame) -> Result<CloseCode, Violation> {
        let [high, low, ..] = self.control;
        let said = CloseCode(u16::from_be_bytes([high, low]));
        let code = match frame.length {
            0 => CloseCode::NO_STATUS,
            1 => return Err(Violation::CloseBody),
            _ if !said.is_sendable() => return Err(Violation::CloseCode),
            _ if std::str::from_utf8(&self.reason).is_err() => return Err(Violation::CloseReason),
            _ => said,
        };
        self.closed = true;
        Ok(code)
    }
}
