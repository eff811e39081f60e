//! Frames (RFC 9113 §4, §6): nine bytes that say what follows, and the rules that can be checked on those nine alone.

use super::error::Fault;
use super::{ErrorCode, StreamId};

/// What stands before every frame (RFC 9113 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// Of the payload, in bytes.
    pub length: u32,
    pub kind: Kind,
    pub flags: u8,
    /// Without the reserved bit; 0 is the connection.
    pub stream: u32,
}

/// Types of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Data,
    Headers,
    Priority,
    Reset,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// RFC 9218 §7.1.
    PriorityUpdate,
    /// To be ignored (RFC 9113 §4.1).
    Unknown(u8),
}

/// Which breach a frame's head is, and how far it reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breach {
    Connection(Fault),
    Stream(Fault),
}

pub const END_STREAM: u8 = 0x1;
pub const ACK: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;
pub const PRIORITY: u8 = 0x20;

impl Kind {
    pub const fn from_byte(byte: u8) -> Self {
        match byte {
            0x0 => Self::Data,
            0x1 => Self::Headers,
            0x2 => Self::Priority,
            0x3 => Self::Reset,
            0x4 => Self::Settings,
            0x5 => Self::PushPromise,
            0x6 => Self::Ping,
            0x7 => Self::GoAway,
            0x8 => Self::WindowUpdate,
            0x9 => Self::Continuation,
            0x10 => Self::PriorityUpdate,
            other => Self::Unknown(other),
        }
    }

    pub const fn byte(self) -> u8 {
        match self {
            Self::Data => 0x0,
            Self::Headers => 0x1,
            Self::Priority => 0x2,
            Self::Reset => 0x3,
            Self::Settings => 0x4,
            Self::PushPromise => 0x5,
            Self::Ping => 0x6,
            Self::GoAway => 0x7,
            Self::WindowUpdate => 0x8,
            Self::Continuation => 0x9,
            Self::PriorityUpdate => 0x10,
            Self::Unknown(other) => other,
        }
    }
}

impl FrameHead {
    pub const LEN: usize = 9;

    pub const fn new(kind: Kind, flags: u8, stream: u32, length: usize) -> Self {
        Self { length: length as u32, kind, flags, stream }
    }

    /// The head at the start of `bytes`, if it is all there.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let &[high, middle, low, kind, flags, a, b, c, d, ..] = bytes else { return None };
        Some(Self {
            length: u32::from_be_bytes([0, high, middle, low]),
            kind: Kind::from_byte(kind),
            flags,
            stream: u32::from_be_bytes([a, b, c, d]) & StreamId::MAX,
        })
    }

    #[inline]
    pub const fn to_bytes(self) -> [u8; Self::LEN] {
        let [_, high, middle, low] = self.length.to_be_bytes();
        let [a, b, c, d] = self.stream.to_be_bytes();
        [high, middle, low, self.kind.byte(), self.flags, a, b, c, d]
    }

    #[inline]
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Bytes of payload that come before what the frame is about: pad length, and the deprecated priority of RFC 7540.
    #[inline]
    pub const fn preamble(&self) -> u32 {
        let padded =
            if matches!(self.kind, Kind::Data | Kind::Headers | Kind::PushPromise) && self.has(PADDED) { 1 } else { 0 };
        let priority = if matches!(self.kind, Kind::Headers) && self.has(PRIORITY) { 5 } else { 0 };
        padded + priority
    }

    /// Checks length and stream, as far as no state is needed. `size_max` is our `SETTINGS_MAX_FRAME_SIZE`.
    ///
    /// A frame that is too large is an error of the connection whatever its type, which RFC 9113 §5.4.2 allows: nobody sends one by
    /// mistake, and it may have 16 MiB.
    ///
    /// # Errors
    /// The rule that was broken.
    #[inline]
    pub fn check(&self, size_max: u32) -> Result<(), Breach> {
        if self.length > size_max {
            return Err(Breach::Connection(Fault::size(
                "a frame is larger than SETTINGS_MAX_FRAME_SIZE (RFC 9113 4.2)",
            )));
        }
        let on_stream = self.stream != 0;
        let placed = match self.kind {
            Kind::Data => on_stream.then_some(()).ok_or("DATA on stream 0 (RFC 9113 6.1)"),
            Kind::Headers => on_stream.then_some(()).ok_or("HEADERS on stream 0 (RFC 9113 6.2)"),
            Kind::Priority => on_stream.then_some(()).ok_or("PRIORITY on stream 0 (RFC 9113 6.3)"),
            Kind::Reset => on_stream.then_some(()).ok_or("RST_STREAM on stream 0 (RFC 9113 6.4)"),
            Kind::PushPromise => on_stream.then_some(()).ok_or("PUSH_PROMISE on stream 0 (RFC 9113 6.6)"),
            Kind::Continuation => on_stream.then_some(()).ok_or("CONTINUATION on stream 0 (RFC 9113 6.10)"),
            Kind::Settings => (!on_stream).then_some(()).ok_or("SETTINGS on a stream (RFC 9113 6.5)"),
            Kind::Ping => (!on_stream).then_some(()).ok_or("PING on a stream (RFC 9113 6.7)"),
            Kind::GoAway => (!on_stream).then_some(()).ok_or("GOAWAY on a stream (RFC 9113 6.8)"),
            Kind::PriorityUpdate => (!on_stream).then_some(()).ok_or("PRIORITY_UPDATE on a stream (RFC 9218 7.1)"),
            Kind::WindowUpdate | Kind::Unknown(_) => Ok(()),
        };
        placed.map_err(|why| Breach::Connection(Fault::protocol(why)))?;
        let sized = match self.kind {
            Kind::Data | Kind::Headers if self.length < self.preamble() => {
                Err("a frame is too short for its flags (RFC 9113 4.2)")
            }
            Kind::Priority if self.length != 5 => {
                return Err(Breach::Stream(Fault::size("PRIORITY is not 5 bytes (RFC 9113 6.3)")));
            }
            Kind::Reset if self.length != 4 => Err("RST_STREAM is not 4 bytes (RFC 9113 6.4)"),
            Kind::Settings if self.has(ACK) && self.length != 0 => {
                Err("an acknowledgement of SETTINGS has a payload (RFC 9113 6.5)")
            }
            Kind::Settings if !self.length.is_multiple_of(6) => {
                Err("SETTINGS is no multiple of 6 bytes (RFC 9113 6.5)")
            }
            Kind::Ping if self.length != 8 => Err("PING is not 8 bytes (RFC 9113 6.7)"),
            Kind::GoAway if self.length < 8 => Err("GOAWAY has less than 8 bytes (RFC 9113 6.8)"),
            Kind::WindowUpdate if self.length != 4 => Err("WINDOW_UPDATE is not 4 bytes (RFC 9113 6.9)"),
            Kind::PriorityUpdate if self.length < 4 => Err("PRIORITY_UPDATE has less than 4 bytes (RFC 9218 7.1)"),
            _ => Ok(()),
        };
        sized.map_err(|why| Breach::Connection(Fault::size(why)))
    }
}

/// What a client sends before its first frame (RFC 9113 §3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[inline]
pub fn put(out: &mut Vec<u8>, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&FrameHead::new(kind, flags, stream, payload.len()).to_bytes());
    out.extend_from_slice(payload);
}

#[inline]
pub fn put_reset(out: &mut Vec<u8>, stream: u32, code: ErrorCode) {
    put(out, Kind::Reset, 0, stream, &code.0.to_be_bytes());
}

#[inline]
pub fn put_window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    debug_assert!(increment > 0 && increment <= StreamId::MAX);
    put(out, Kind::WindowUpdate, 0, stream, &increment.to_be_bytes());
}

#[inline]
pub fn put_ping(out: &mut Vec<u8>, flags: u8, opaque: [u8; 8]) {
    put(out, Kind::Ping, flags, 0, &opaque);
}

/// `last` is the last stream that was or may be processed.
pub fn put_go_away(out: &mut Vec<u8>, last: u32, fault: &Fault) {
    let head = FrameHead::new(Kind::GoAway, 0, 0, 8 + fault.why.len());
    out.extend_from_slice(&head.to_bytes());
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&fault.code.0.to_be_bytes());
    out.extend_from_slice(fault.why.as_bytes());
}

/// Makes frames of the field block that `out` holds from `start` on, behind room for one head: HEADERS, and CONTINUATION for what
/// exceeds `size_max` (RFC 9113 §6.2, §6.10).
pub fn frame_block(out: &mut Vec<u8>, start: usize, stream: u32, end_stream: bool, size_max: usize) {
    let block = out.len() - start - FrameHead::LEN;
    let first = block.min(size_max);
    let last = |whole: bool| if whole { END_HEADERS } else { 0 };
    let flags = last(first == block) | if end_stream { END_STREAM } else { 0 };
    let head = FrameHead::new(Kind::Headers, flags, stream, first);
    out[start..start + FrameHead::LEN].copy_from_slice(&head.to_bytes());
    let (mut at, mut left) = (start + FrameHead::LEN + first, block - first);
    while left > 0 {
        let length = left.min(size_max);
        left -= length;
        let head = FrameHead::new(Kind::Continuation, last(left == 0), stream, length);
        out.splice(at..at, head.to_bytes());
        at += FrameHead::LEN + length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(kind: Kind, flags: u8, stream: u32, length: u32) -> Result<(), (bool, ErrorCode)> {
        FrameHead { length, kind, flags, stream }.check(16_384).map_err(|breach| match breach {
            Breach::Connection(fault) => (true, fault.code),
            Breach::Stream(fault) => (false, fault.code),
        })
    }

    #[test]
    fn rfc9113_4_1_heads_read_as_they_were_written() {
        for byte in 0..=255 {
            let head =
                FrameHead { length: 0x01_02_03, kind: Kind::from_byte(byte), flags: 0xa5, stream: StreamId::MAX };
            assert_eq!(head.kind.byte(), byte);
            assert_eq!(FrameHead::parse(&head.to_bytes()), Some(head));
        }
        assert_eq!(FrameHead::parse(&[0; 8]), None);
        let reserved = [0, 0, 0, 0, 0, 0x80, 0, 0, 1];
        assert_eq!(FrameHead::parse(&reserved).map(|head| head.stream), Some(1), "the reserved bit is ignored");
    }

    #[test]
    fn every_rule_on_length_and_stream() {
        const CONNECTION: bool = true;
        const STREAM: bool = false;
        let protocol = Err((CONNECTION, ErrorCode::PROTOCOL_ERROR));
        let size = Err((CONNECTION, ErrorCode::FRAME_SIZE_ERROR));
        for (section, kind, flags, stream, length, expected) in [
            ("4.2", Kind::Data, 0, 1, 16_384, Ok(())),
            ("4.2", Kind::Data, 0, 1, 16_385, size),
            ("4.2", Kind::Headers, 0, 1, 16_385, size),
            ("4.2", Kind::Unknown(0xfa), 0, 1, 16_385, size),
            ("4.1", Kind::Unknown(0xfa), 0xff, 0, 3, Ok(())),
            ("6.1", Kind::Data, 0, 0, 1, protocol),
            ("6.1", Kind::Data, PADDED, 1, 0, size),
            ("6.1", Kind::Data, PADDED, 1, 1, Ok(())),
            ("6.2", Kind::Headers, 0, 0, 1, protocol),
            ("6.2", Kind::Headers, PRIORITY, 1, 4, size),
            ("6.2", Kind::Headers, PRIORITY | PADDED, 1, 5, size),
            ("6.2", Kind::Headers, PRIORITY | PADDED, 1, 6, Ok(())),
            ("6.3", Kind::Priority, 0, 0, 5, protocol),
            ("6.3", Kind::Priority, 0, 1, 4, Err((STREAM, ErrorCode::FRAME_SIZE_ERROR))),
            ("6.3", Kind::Priority, 0, 1, 5, Ok(())),
            ("6.4", Kind::Reset, 0, 0, 4, protocol),
            ("6.4", Kind::Reset, 0, 1, 3, size),
            ("6.4", Kind::Reset, 0, 1, 5, size),
            ("6.5", Kind::Settings, 0, 1, 6, protocol),
            ("6.5", Kind::Settings, 0, 0, 7, size),
            ("6.5", Kind::Settings, ACK, 0, 6, size),
            ("6.5", Kind::Settings, ACK, 0, 0, Ok(())),
            ("6.6", Kind::PushPromise, 0, 0, 4, protocol),
            ("6.7", Kind::Ping, 0, 1, 8, protocol),
            ("6.7", Kind::Ping, 0, 0, 7, size),
            ("6.7", Kind::Ping, ACK, 0, 9, size),
            ("6.8", Kind::GoAway, 0, 1, 8, protocol),
            ("6.8", Kind::GoAway, 0, 0, 7, size),
            ("6.8", Kind::GoAway, 0, 0, 100, Ok(())),
            ("6.9", Kind::WindowUpdate, 0, 1, 3, size),
            ("6.9", Kind::WindowUpdate, 0, 0, 5, size),
            ("6.10", Kind::Continuation, 0, 0, 1, protocol),
            ("RFC 9218 7.1", Kind::PriorityUpdate, 0, 1, 8, protocol),
            ("RFC 9218 7.1", Kind::PriorityUpdate, 0, 0, 3, size),
        ] {
            assert_eq!(verdict(kind, flags, stream, length), expected, "{section} {kind:?} {length}");
        }
    }

    #[test]
    fn rfc9113_6_10_blocks_are_continued() {
        for (block, size_max, lengths) in
            [(0, 10, &[0][..]), (10, 10, &[10]), (11, 10, &[10, 1]), (35, 10, &[10, 10, 10, 5]), (20, 10, &[10, 10])]
        {
            let payload: Vec<u8> = (0..block).map(|at| at as u8).collect();
            let mut out = [&b"before"[..], &[0; FrameHead::LEN], &payload].concat();
            frame_block(&mut out, 6, 7, true, size_max);
            let (mut rest, mut joined) = (&out[6..], Vec::new());
            for (at, &length) in lengths.iter().enumerate() {
                let head = FrameHead::parse(rest).unwrap();
                assert_eq!((head.length, head.stream), (length, 7));
                assert_eq!(head.kind, if at == 0 { Kind::Headers } else { Kind::Continuation });
                assert_eq!(head.has(END_HEADERS), at + 1 == lengths.len());
                assert_eq!(at == 0, head.has(END_STREAM));
                joined.extend_from_slice(&rest[FrameHead::LEN..][..length as usize]);
                rest = &rest[FrameHead::LEN + length as usize..];
            }
            assert_eq!((rest, joined), (&[][..], payload));
        }
    }
}
