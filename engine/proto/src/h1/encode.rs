//! Content as it leaves: between the bytes that frame it (RFC 9112 §6–§7).

use super::Trailers;
use super::sink::{Refused, Sink, put, put_field};
use crate::http::Framing;

/// Frames outgoing content, and holds the sender to what the head promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoder {
    framing: Framing,
}

/// What goes before and after a piece of content.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    pub prefix: Prefix,
    pub suffix: &'static [u8],
}

impl Encoder {
    #[inline]
    pub fn new(framing: Framing) -> Self {
        Self { framing }
    }

    /// What goes around the next `payload` bytes of content. Nothing goes around nothing: an empty chunk would be the last.
    ///
    /// # Errors
    /// [`Refused::Length`] if the head promised fewer bytes.
    #[inline]
    pub fn frame(&mut self, payload: usize) -> Result<Frame, Refused> {
        match &mut self.framing {
            Framing::Chunked if payload > 0 => Ok(Frame { prefix: Prefix::chunk(payload), suffix: b"\r\n" }),
            Framing::Chunked | Framing::UntilClose => Ok(Frame::NOTHING),
            Framing::Length(remaining) => {
                *remaining = remaining.checked_sub(payload as u64).ok_or(Refused::Length)?;
                Ok(Frame::NOTHING)
            }
            Framing::None if payload == 0 => Ok(Frame::NOTHING),
            Framing::None => Err(Refused::Length),
        }
    }

    /// What ends the message, if it has no trailers.
    ///
    /// # Errors
    /// [`Refused::Length`] if the head promised more bytes: the connection must be cut, so that the peer notices.
    #[inline]
    pub fn end(&mut self) -> Result<&'static [u8], Refused> {
        match std::mem::replace(&mut self.framing, Framing::None) {
            Framing::Chunked => Ok(b"0\r\n\r\n"),
            Framing::Length(1..) => Err(Refused::Length),
            _ => Ok(b""),
        }
    }

    /// Ends the message with trailers. Only the chunked coding carries them; under any other framing they are dropped, as
    /// RFC 9110 §6.5.1 allows.
    ///
    /// # Errors
    /// As [`Encoder::end`], or the sink is full.
    pub fn end_with(&mut self, trailers: &Trailers, sink: &mut impl Sink) -> Result<(), Refused> {
        if self.framing != Framing::Chunked {
            let last = self.end()?;
            return put(sink, last);
        }
        self.framing = Framing::None;
        put(sink, b"0\r\n")?;
        for (name, value) in trailers.iter() {
            put_field(sink, name, value)?;
        }
        put(sink, b"\r\n")
    }
}

impl Frame {
    const NOTHING: Self = Self { prefix: Prefix::EMPTY, suffix: b"" };
}

/// A chunk's size line, inline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    bytes: [u8; Self::LEN_MAX],
    start: u8,
}

impl Prefix {
    /// 16 digits and CRLF.
    pub const LEN_MAX: usize = 18;

    const EMPTY: Self = Self { bytes: [0; Self::LEN_MAX], start: Self::LEN_MAX as u8 };

    #[inline]
    fn chunk(size: usize) -> Self {
        let mut prefix = Self::EMPTY;
        let mut at = Self::LEN_MAX - 2;
        prefix.bytes[at..].copy_from_slice(b"\r\n");
        let mut rest = size;
        loop {
            at -= 1;
            prefix.bytes[at] = b"0123456789abcdef"[rest & 15];
            rest >>= 4;
            if rest == 0 {
                break;
            }
        }
        prefix.start = at as u8;
        prefix
    }
}

impl std::ops::Deref for Prefix {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[self.start as usize..]
    }
}
