//! Content as it arrives (RFC 9112 §6–§7): how many of the bytes are payload, and where the message ends.
//!
//! State is kept byte by byte, so that everything up to the message's end is consumed on each call, wherever it was cut, and a
//! caller never has to keep half a chunk-size line. Payload is compacted in place: chunk framing is squeezed out by moving bytes
//! that are in cache anyway.
//!
//! The chunked coding is read strictly: 1 to 16 hexadecimal digits, no sign, prefix or white space, CRLF and nothing else. Chunk
//! extensions are checked, bounded and dropped, so that no later hop can disagree about them.

use std::rc::Rc;

use crate::Malformed;
use crate::http::{Fields, Framing, Known, KnownSet, Span, is_token_byte, is_value_byte, trim};

/// Reads one message's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoder {
    /// Bytes left, of the content or of the chunk.
    remaining: u64,
    state: State,
    /// Digits of this chunk's size.
    digits: u8,
    /// Bytes of chunk extensions in this message.
    extension: u16,
}

/// What one call found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// `bytes[..payload]` is content.
    pub payload: usize,
    /// `bytes[consumed..]` is unread: it belongs to whatever follows this message.
    pub consumed: usize,
    pub ended: bool,
}

impl Decoder {
    #[inline]
    pub fn new(framing: Framing) -> Self {
        let (state, remaining) = match framing {
            Framing::None | Framing::Length(0) => (State::Ended, 0),
            Framing::Length(length) => (State::Length, length),
            Framing::Chunked => (State::Size, 0),
            Framing::UntilClose => (State::UntilClose, 0),
        };
        Self { remaining, state, digits: 0, extension: 0 }
    }

    /// Whether the message is complete.
    #[inline]
    pub fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Reads what it can. Unless the message ends, all of `bytes` is consumed. Trailer lines go to `trailers`, which allocates
    /// only if there are any.
    ///
    /// # Errors
    /// The coding is broken; the connection is of no further use.
    #[inline]
    pub fn decode(&mut self, bytes: &mut [u8], trailers: &mut Trailers) -> Result<Decoded, Malformed> {
        match self.state {
            State::Ended => Ok(Decoded { payload: 0, consumed: 0, ended: true }),
            State::UntilClose => Ok(Decoded { payload: bytes.len(), consumed: bytes.len(), ended: false }),
            State::Length => {
                let taken = self.take(bytes.len());
                if self.remaining == 0 {
                    self.state = State::Ended;
                }
                Ok(Decoded { payload: taken, consumed: taken, ended: self.is_ended() })
            }
            _ => self.decode_chunked(bytes, trailers),
        }
    }

    /// Input has ended.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] if it ended within the message.
    pub fn finish(&mut self) -> Result<(), Malformed> {
        match self.state {
            State::Ended => Ok(()),
            State::UntilClose => {
                self.state = State::Ended;
                Ok(())
            }
            _ => Err(Malformed::Truncated),
        }
    }

    fn decode_chunked(&mut self, bytes: &mut [u8], trailers: &mut Trailers) -> Result<Decoded, Malformed> {
        let (mut at, mut payload) = (0, 0);
        while at < bytes.len() && self.state != State::Ended {
            if self.state == State::Data {
                let taken = self.take(bytes.len() - at);
                if at != payload {
                    bytes.copy_within(at..at + taken, payload);
                }
                at += taken;
                payload += taken;
                if self.remaining == 0 {
                    self.state = State::DataCr;
                }
            } else {
                self.state = self.step(bytes[at], trailers)?;
                at += 1;
            }
        }
        let ended = self.is_ended();
        if ended {
            trailers.seal()?;
        }
        Ok(Decoded { payload, consumed: at, ended })
    }

    /// One byte of chunk framing.
    #[inline]
    fn step(&mut self, byte: u8, trailers: &mut Trailers) -> Result<State, Malformed> {
        match (self.state, byte) {
            (State::Size, b'\r') if self.digits > 0 => Ok(State::SizeLf),
            (State::Size, b';') if self.digits > 0 => self.extend(State::Extension),
            (State::Size, _) => self.digit(byte),

            (State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Extension, b'"') => self.extend(State::Quoted),
            (State::Extension, b';' | b'=' | b' ' | b'\t') => self.extend(State::Extension),
            (State::Extension, _) if is_token_byte(byte) => self.extend(State::Extension),
            (State::Quoted, b'"') => self.extend(State::Extension),
            (State::Quoted, b'\\') => self.extend(State::Escaped),
            (State::Quoted | State::Escaped, _) if is_value_byte(byte) => self.extend(State::Quoted),
            (State::Extension | State::Quoted | State::Escaped, _) => Err(Malformed::ChunkExtension),

            (State::SizeLf, b'\n') => {
                self.digits = 0;
                Ok(if self.remaining == 0 { State::TrailerStart } else { State::Data })
            }
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size),
            (State::SizeLf | State::DataCr | State::DataLf, _) => Err(Malformed::ChunkEnd),

            (State::TrailerStart, b'\r') => Ok(State::FinalLf),
            (State::FinalLf, b'\n') => Ok(State::Ended),
            (State::FinalLf, _) => Err(Malformed::ChunkEnd),
            (State::TrailerStart, _) if is_token_byte(byte) => {
                trailers.begin_line()?;
                trailers.hold(byte, State::TrailerName)
            }
            (State::TrailerName, b':') => trailers.hold(byte, State::TrailerValue),
            (State::TrailerName, _) if is_token_byte(byte) => trailers.hold(byte, State::TrailerName),
            (State::TrailerValue, b'\r') => trailers.hold(byte, State::TrailerLf),
            (State::TrailerValue, _) if is_value_byte(byte) => trailers.hold(byte, State::TrailerValue),
            (State::TrailerLf, b'\n') => trailers.hold(byte, State::TrailerStart),
            (State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerLf, _) => {
                Err(Malformed::TrailerField)
            }

            // Not framing: `decode` never steps through these.
            (State::Ended | State::Length | State::UntilClose | State::Data, _) => Err(Malformed::ChunkEnd),
        }
    }

    #[inline]
    fn digit(&mut self, byte: u8) -> Result<State, Malformed> {
        let value = (byte as char).to_digit(16).ok_or(Malformed::ChunkSize)?;
        if self.digits == SIZE_DIGITS_MAX {
            return Err(Malformed::ChunkSize);
        }
        self.digits += 1;
        self.remaining = self.remaining << 4 | u64::from(value);
        Ok(State::Size)
    }

    #[inline]
    fn extend(&mut self, state: State) -> Result<State, Malformed> {
        self.extension += 1;
        if self.extension > EXTENSION_BYTES_MAX { Err(Malformed::ChunkExtension) } else { Ok(state) }
    }

    /// Takes up to `available` of what remains.
    #[inline]
    fn take(&mut self, available: usize) -> usize {
        let taken = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(available);
        self.remaining -= taken as u64;
        taken
    }
}

/// The trailer section of one message (RFC 9110 §6.5): a pointer that is null for nearly all messages, and shared by copies.
///
/// Trailers that would have framed or routed the message, had they been headers, are an attack and refused; others that must
/// not be merged after the fact (RFC 9110 §6.5.1: authentication, content negotiation, caching) are held but not forwarded.
#[derive(Debug, Clone, Default)]
pub struct Trailers {
    held: Option<Rc<Held>>,
}

impl Trailers {
    /// No trailer may be forwarded.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Names and values that may be forwarded, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        self.held.iter().flat_map(|held| {
            let kept = held.fields.iter().filter(|field| !field.dropped);
            kept.map(|field| (field.name.of(&held.bytes), field.value.of(&held.bytes)))
        })
    }

    pub fn clear(&mut self) {
        self.held = None;
    }

    /// Trailers that another protocol brought, in lines as its machine wrote them; `fields` index `lines`.
    pub fn of(lines: &[u8], fields: &Fields) -> Self {
        let held = Held { bytes: lines.to_vec(), fields: fields.clone(), lines: fields.len() as u16 };
        Self { held: (!fields.is_empty()).then(|| Rc::new(held)) }
    }

    fn held(&mut self) -> &mut Held {
        Rc::make_mut(self.held.get_or_insert_default())
    }

    fn begin_line(&mut self) -> Result<(), Malformed> {
        let held = self.held();
        held.lines += 1;
        if held.lines > TRAILER_FIELDS_MAX { Err(Malformed::TrailersTooLong) } else { Ok(()) }
    }

    fn hold(&mut self, byte: u8, next: State) -> Result<State, Malformed> {
        let held = self.held();
        if held.bytes.len() == TRAILER_BYTES_MAX {
            return Err(Malformed::TrailersTooLong);
        }
        held.bytes.push(byte);
        Ok(next)
    }

    /// The section is complete and its lines are well-formed: index it, and decide what each means.
    fn seal(&mut self) -> Result<(), Malformed> {
        let Some(held) = &mut self.held else {
            return Ok(());
        };
        let Held { bytes, fields, .. } = Rc::make_mut(held);
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', bytes) {
            let line = &bytes[start..end - 1];
            let colon = memchr::memchr(b':', line).ok_or(Malformed::TrailerField)?;
            let value = trim(&line[colon + 1..]);
            let value_start = value.as_ptr() as usize - bytes.as_ptr() as usize;
            let known = Known::from_name(&line[..colon]);
            if FORBIDDEN.contains(known) {
                return Err(Malformed::TrailerForbidden);
            }
            let value = Span::between(value_start, value_start + value.len());
            if !fields.push(Span::between(start, start + colon), value, known) {
                return Err(Malformed::TrailersTooLong);
            }
            start = end + 1;
        }
        fields.drop_known(WITHHELD);
        Ok(())
    }
}

#[derive(Debug, Clone)]
struct Held {
    /// Validated lines, each ending with CRLF.
    bytes: Vec<u8>,
    fields: Fields,
    lines: u16,
}

impl Default for Held {
    fn default() -> Self {
        Self { bytes: Vec::new(), fields: Fields::with_limit(TRAILER_FIELDS_MAX as usize), lines: 0 }
    }
}

/// 16 digits are 64 bits; leading zeros count, so that a size cannot be hidden behind a screenful of them.
const SIZE_DIGITS_MAX: u8 = 16;

/// For a whole message: nobody uses extensions, and unbounded ones carry bytes past every limit (CVE-2023-39326).
const EXTENSION_BYTES_MAX: u16 = 256;

/// gRPC's status, message and a few debugging trailers take well under 8 KiB and 32 lines.
const TRAILER_BYTES_MAX: usize = 8 * 1024;
const TRAILER_FIELDS_MAX: u16 = 32;

/// Framing and routing.
pub(crate) const FORBIDDEN: KnownSet = KnownSet::of(&[
    Known::Connection,
    Known::ContentLength,
    Known::Expect,
    Known::Forwarded,
    Known::Host,
    Known::TransferEncoding,
    Known::Upgrade,
    Known::XForwardedFor,
    Known::XForwardedHost,
    Known::XForwardedPort,
    Known::XForwardedProto,
    Known::XRealIp,
]);

/// Of no use, or harmful, when they come late (RFC 9110 §6.5.1).
pub(crate) const WITHHELD: KnownSet = KnownSet::of(&[
    Known::Age,
    Known::Authorization,
    Known::CacheControl,
    Known::ContentEncoding,
    Known::ContentRange,
    Known::ContentType,
    Known::Cookie,
    Known::Date,
    Known::Expires,
    Known::Http2Settings,
    Known::IfMatch,
    Known::IfModifiedSince,
    Known::IfNoneMatch,
    Known::IfRange,
    Known::KeepAlive,
    Known::Location,
    Known::Pragma,
    Known::ProxyAuthenticate,
    Known::ProxyAuthorization,
    Known::ProxyConnection,
    Known::Range,
    Known::RetryAfter,
    Known::SetCookie,
    Known::Te,
    Known::Trailer,
    Known::Vary,
    Known::Via,
    Known::WwwAuthenticate,
]);

/// Where in a message the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ended,
    Length,
    UntilClose,
    Size,
    Extension,
    Quoted,
    Escaped,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    FinalLf,
}
