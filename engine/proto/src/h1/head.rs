//! Heads (RFC 9112 §2–§5): `httparse` finds the tokens, this file decides whether they are a message.
//!
//! `httparse` is lenient where RFC 9112 §2.2 lets it be: bare LF ends a line, and any number of empty lines may come first. Both
//! have been used to smuggle, so line ends are checked again here: two loads a field.

use crate::Malformed;
use crate::http::authority::{self, Form};
use crate::http::hop::{self, ConnectionOptions};
use crate::http::{Fields, Framing, Known, Method, Span, Status, Version, framing, list};
use std::mem::MaybeUninit;

/// How large a head may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// The whole head, from the first byte to the empty line. 16 bits, so that [`Span`]s are small.
    pub bytes: u16,
    /// The request target.
    pub target: u16,
    /// Field lines; at most [`HeadLimits::FIELDS_MAX`].
    pub fields: u8,
}

impl HeadLimits {
    /// 16 KiB is what browsers with heavy cookies stay under and what nginx, HAProxy and Envoy hold by default, within a factor of
    /// four; 100 fields is nginx's and HAProxy's order of magnitude; 8000 bytes of target is what RFC 9110 §4.1 asks for.
    pub const DEFAULT: Self = Self { bytes: 16 * 1024, target: 8000, fields: 100 };

    /// Slots for fields on the stack of the parser.
    pub const FIELDS_MAX: u8 = 128;
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A request's head. All spans point into the bytes that it was parsed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHead {
    pub method: Method,
    pub version: Version,
    pub form: Form,
    /// Whether the client allows another request after this one (RFC 9112 §9.3).
    pub persistent: bool,
    /// The client waits for 100 before it sends content (RFC 9110 §10.1.1).
    pub expect_continue: bool,
    pub method_text: Span,
    pub target: Span,
    /// Whom the request is for: the target's authority, or else Host's. Empty only on HTTP/1.0.
    pub authority: Span,
    /// May be empty in absolute form, where that means `/`.
    pub path: Span,
    pub query: Span,
    /// The value of Host; empty if absent.
    pub host: Span,
    /// The protocol offered by Upgrade; empty unless the offer is one that may be taken: HTTP/1.1, listed in Connection,
    /// no content, one protocol, and not `h2c` (which would be a tunnel past every rule here).
    pub upgrade: Span,
    /// Bytes, including the empty line (and the one empty line that may come before).
    pub length: u16,
    pub framing: Framing,
}

impl RequestHead {
    /// Path, `?` and query in one span: the target in origin form, but for an empty path. Empty in the forms that have neither.
    #[inline]
    pub fn path_and_query(&self) -> Span {
        if !matches!(self.form, Form::Origin | Form::Absolute) {
            return Span::EMPTY;
        }
        Span { start: self.path.start, len: (self.target.end().saturating_sub(self.path.start as usize)) as u16 }
    }
}

/// A response's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHead {
    pub version: Version,
    pub status: Status,
    /// Whether the origin allows another request after this response (RFC 9112 §9.3).
    pub persistent: bool,
    pub reason: Span,
    /// For 101: what is switched to. Empty otherwise.
    pub upgrade: Span,
    /// Bytes, including the empty line.
    pub length: u16,
    pub framing: Framing,
}

/// Parses a request's head at the start of `bytes`, and indexes its fields. `None` means that more bytes are needed; that
/// answer costs a scan from the start, so callers that are fed in small pieces ask [`head_complete_hint`] first.
///
/// One empty line before the request line is skipped, as RFC 9112 §2.2 asks of robust servers: old clients send CRLF after a
/// body that does not count it. A second one is refused.
///
/// # Errors
/// What the client did wrong. `fields` then holds nothing meaningful.
#[inline]
pub fn parse_request(bytes: &[u8], limits: &HeadLimits, fields: &mut Fields) -> Result<Option<RequestHead>, Malformed> {
    fields.clear();
    let skipped = match bytes {
        [] | [b'\r'] => return Ok(None),
        [b'\r', b'\n', b'\r' | b'\n', ..] | [b'\n', ..] => return Err(Malformed::RequestLine),
        [b'\r', b'\n', ..] => 2,
        _ => 0,
    };
    let window = &bytes[..bytes.len().min(limits.bytes as usize)];
    let text = window.get(skipped..).unwrap_or(&[]);
    let mut slots = [const { MaybeUninit::uninit() }; HeadLimits::FIELDS_MAX as usize];
    let slots_len = slots.len().min(limits.fields as usize);
    let mut parsed = httparse::Request::new(&mut []);
    let length = match parsed.parse_with_uninit_headers(text, &mut slots[..slots_len]) {
        Ok(httparse::Status::Complete(length)) => skipped + length,
        Ok(httparse::Status::Partial) => return unfinished_request(bytes, text, limits),
        Err(error) => return Err(refused_request(error, text)),
    };
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Malformed::RequestLine);
    };
    index(window, length, parsed.headers, fields)?;

    let (method_text, target) = (span(window, method.as_bytes()), span(window, target.as_bytes()));
    if target.len > limits.target {
        return Err(Malformed::TargetTooLong);
    }
    if method.len() > METHOD_BYTES_MAX {
        return Err(Malformed::MethodTooLong);
    }
    let version = if version == 0 { Version::Http10 } else { Version::Http11 };
    let method = Method::from_bytes(method.as_bytes());
    let addressed = authority::target(version, method, target, fields, window)?;
    let framing = framing::of_request(version, method, fields, window)?;
    let options = hop::connection_options(fields, window)?;
    Ok(Some(RequestHead {
        method,
        version,
        form: addressed.form,
        persistent: persistent(version, options),
        expect_continue: expects_continue(version, fields, window)?,
        method_text,
        target,
        authority: addressed.authority,
        path: addressed.path,
        query: addressed.query,
        host: fields.get(Known::Host).map_or(Span::EMPTY, |field| field.value),
        upgrade: if framing.has_body() || version == Version::Http10 {
            Span::EMPTY
        } else {
            upgrade(options, fields, window)
        },
        length: length as u16,
        framing,
    }))
}

/// Parses a response's head at the start of `bytes`; `request_was` is the method that it answers. `None` means that more bytes are
/// needed. No empty line is skipped: what comes between responses is nobody's.
///
/// # Errors
/// What the upstream did wrong.
#[inline]
pub fn parse_response(
    bytes: &[u8],
    limits: &HeadLimits,
    request_was: Method,
    fields: &mut Fields,
) -> Result<Option<ResponseHead>, Malformed> {
    fields.clear();
    let window = &bytes[..bytes.len().min(limits.bytes as usize)];
    if matches!(window, [b'\r' | b'\n', ..]) {
        return Err(Malformed::StatusLine);
    }
    let mut slots = [const { MaybeUninit::uninit() }; HeadLimits::FIELDS_MAX as usize];
    let slots_len = slots.len().min(limits.fields as usize);
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut parsed, window, &mut slots[..slots_len]) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() >= limits.bytes as usize => {
            return Err(Malformed::HeadTooLong);
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(refused(error, Malformed::StatusLine)),
    };
    let (Some(code), Some(reason), Some(version)) = (parsed.code, parsed.reason, parsed.version) else {
        return Err(Malformed::StatusLine);
    };
    index(window, length, parsed.headers, fields)?;

    let version = if version == 0 { Version::Http10 } else { Version::Http11 };
    let status = Status::new(code).ok_or(Malformed::StatusLine)?;
    let framing = framing::of_response(version, status, request_was, fields, window)?;
    let options = hop::connection_options(fields, window)?;
    let switching = status == Status::SWITCHING_PROTOCOLS;
    let upgrade = if switching { upgrade(options, fields, window) } else { Span::EMPTY };
    if switching && (upgrade.is_empty() || version == Version::Http10) {
        return Err(Malformed::UnexpectedUpgrade);
    }
    Ok(Some(ResponseHead {
        version,
        status,
        persistent: framing != Framing::UntilClose && persistent(version, options),
        reason: if reason.is_empty() { Span::EMPTY } else { span(window, reason.as_bytes()) },
        upgrade,
        length: length as u16,
        framing,
    }))
}

/// Whether the end of a head may lie in `bytes`, given that it does not end within `bytes[..from]`. Linear over all calls for one
/// head, however slowly it arrives. Returns an offset past the end; ends that the parser will refuse (bare LF) count too.
#[inline]
pub fn head_complete_hint(bytes: &[u8], from: usize) -> Option<usize> {
    // An end is at most three bytes (LF CR LF), so it can begin two bytes before what is new.
    let start = from.min(bytes.len()).saturating_sub(2);
    memchr::memchr_iter(b'\n', &bytes[start..]).map(|at| start + at + 1).find_map(|next| match bytes.get(next..) {
        Some([b'\n', ..]) => Some(next + 1),
        Some([b'\r', b'\n', ..]) => Some(next + 2),
        _ => None,
    })
}

/// The longest registered method is UPDATEREDIRECTREF, of 17.
pub(crate) const METHOD_BYTES_MAX: usize = 32;

/// RFC 9113 §3.4.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Checks every line end, and enters the fields into the index.
#[inline]
fn index(window: &[u8], length: usize, headers: &[httparse::Header<'_>], fields: &mut Fields) -> Result<(), Malformed> {
    for header in headers {
        let name = span(window, header.name.as_bytes());
        let line_ends = (name.start as usize).checked_sub(2).and_then(|end| window.get(end..name.start as usize));
        if line_ends != Some(b"\r\n") {
            return Err(Malformed::LineEnd);
        }
        let value = if header.value.is_empty() {
            Span { start: name.end() as u16, len: 0 }
        } else {
            span(window, header.value)
        };
        if !fields.push(name, value, Known::from_name(header.name.as_bytes())) {
            return Err(Malformed::TooManyFields);
        }
    }
    if !window[..length].ends_with(b"\r\n\r\n") {
        return Err(Malformed::LineEnd);
    }
    fields.set_end(length - 2);
    Ok(())
}

/// Where `part`, a slice of `whole`, lies in it.
#[inline]
fn span(whole: &[u8], part: &[u8]) -> Span {
    let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
    Span::between(start, start.wrapping_add(part.len()))
}

/// RFC 9112 §9.3; `close` wins over `keep-alive`.
#[inline]
fn persistent(version: Version, options: ConnectionOptions) -> bool {
    !options.close && (version != Version::Http10 || options.keep_alive)
}

/// RFC 9110 §10.1.1: only `100-continue` is defined, and HTTP/1.0 clients cannot mean it.
#[inline]
pub(crate) fn expects_continue(version: Version, fields: &Fields, bytes: &[u8]) -> Result<bool, Malformed> {
    if version == Version::Http10 || !fields.has(Known::Expect) {
        return Ok(false);
    }
    let all = fields.all(Known::Expect).all(|field| field.value.of(bytes).eq_ignore_ascii_case(b"100-continue"));
    if all { Ok(true) } else { Err(Malformed::Expectation) }
}

/// The one protocol that Upgrade names (RFC 9110 §7.8), if Connection says that it is meant.
#[inline]
fn upgrade(options: ConnectionOptions, fields: &Fields, bytes: &[u8]) -> Span {
    if !options.upgrade || fields.is_repeated(Known::Upgrade) {
        return Span::EMPTY;
    }
    let Some(field) = fields.get(Known::Upgrade) else {
        return Span::EMPTY;
    };
    let value = field.value.of(bytes);
    let one = list(value).count() == 1 && !value.contains(&b',');
    let http2 = value.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(b"h2"));
    let protocol = value.iter().all(|&byte| crate::http::is_token_byte(byte) || byte == b'/');
    if one && protocol && !http2 { field.value } else { Span::EMPTY }
}

/// Not all there: is there still hope?
#[cold]
fn unfinished_request(bytes: &[u8], text: &[u8], limits: &HeadLimits) -> Result<Option<RequestHead>, Malformed> {
    let mut words = text.split(|&byte| byte == b' ' || byte == b'\n');
    if words.next().is_some_and(|method| method.len() > METHOD_BYTES_MAX) {
        return Err(Malformed::MethodTooLong);
    }
    if words.next().is_some_and(|target| target.len() > limits.target as usize) {
        return Err(Malformed::TargetTooLong);
    }
    if bytes.len() >= limits.bytes as usize { Err(Malformed::HeadTooLong) } else { Ok(None) }
}

#[cold]
fn refused_request(error: httparse::Error, text: &[u8]) -> Malformed {
    let common = text.len().min(HTTP2_PREFACE.len());
    // "PRI * HTTP/2" is where it stops being a possible HTTP/1 request.
    if common >= 12 && text[..common] == HTTP2_PREFACE[..common] {
        return Malformed::Http2Preface;
    }
    refused(error, Malformed::RequestLine)
}

#[cold]
fn refused(error: httparse::Error, start_line: Malformed) -> Malformed {
    match error {
        httparse::Error::HeaderName => Malformed::FieldName,
        httparse::Error::HeaderValue => Malformed::FieldValue,
        httparse::Error::NewLine => Malformed::LineEnd,
        httparse::Error::TooManyHeaders => Malformed::TooManyFields,
        httparse::Error::Version => Malformed::Version,
        httparse::Error::Status | httparse::Error::Token => start_line,
    }
}
