//! Heads as they are read: from a field block to the neutral head that every protocol shares (RFC 9113 §8.2–§8.5, RFC 9114 §4.2–§4.4).
//!
//! The decoded fields are laid out as HTTP/1 would have sent them, request or status line included, so that spans, fields, routes,
//! rewrites and the writers of either protocol find what they know. A request's host comes first, from `:authority`; crumbs of
//! cookies are joined (RFC 9113 §8.2.3, RFC 9114 §4.2.1); extended CONNECT (RFC 8441, RFC 9220) reads as the GET with Upgrade that it
//! stands for.

use super::space::HeadSpace;
use crate::Malformed;
use crate::compression::{Block, Corrupt, Fit, Line, ListLimits};
use crate::h1::{
    FORBIDDEN_TRAILERS, HeadLimits, METHOD_BYTES_MAX, RequestHead, ResponseHead, WITHHELD_TRAILERS, expects_continue,
};
use crate::http::authority;
use crate::http::{Fields, Framing, Known, KnownSet, Method, Span, Status, Version, framing};
use crate::http::{is_field_value, is_target, is_token, is_token_byte};

/// What a block is to be read as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Request,
    Response,
    Trailers,
}

/// What was read, or why it is none; the connection goes on in either case.
pub(crate) type Read<H> = Result<H, Malformed>;

/// How a request's block is to be understood.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestRules<'a> {
    pub(crate) version: Version,
    pub(crate) limits: &'a HeadLimits,
    pub(crate) end_stream: bool,
    /// We said that we take extended CONNECT.
    pub(crate) connect_protocol: bool,
}

/// How a response's block is to be understood.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResponseRules<'a> {
    pub(crate) version: Version,
    pub(crate) limits: &'a HeadLimits,
    pub(crate) end_stream: bool,
    /// The method that it answers.
    pub(crate) request_was: Method,
    /// The protocol that extended CONNECT asked for.
    pub(crate) upgrade: Option<&'a [u8]>,
}

/// The limits of a list, from those of a head: what HTTP/1 would take fits.
pub(crate) fn list_limits(limits: &HeadLimits) -> ListLimits {
    let fields = limits.fields as usize + PSEUDO_MAX;
    ListLimits { bytes: (limits.bytes as usize + 32 * fields).min(TEXT_BYTES_MAX), fields }
}

/// Reads a request's block.
///
/// # Errors
/// The block is corrupt, and the connection with it.
pub(crate) fn read_request(
    block: impl Block,
    rules: &RequestRules<'_>,
    space: &mut HeadSpace,
) -> Result<Read<RequestHead>, Corrupt> {
    let gathered = gather(block, rules.limits, Sort::Request, space)?;
    Ok(gathered.and_then(|gathered| gathered.into_request(rules, space)))
}

/// Reads a response's block.
///
/// # Errors
/// The block is corrupt, and the connection with it.
pub(crate) fn read_response(
    block: impl Block,
    rules: &ResponseRules<'_>,
    space: &mut HeadSpace,
) -> Result<Read<ResponseHead>, Corrupt> {
    let gathered = gather(block, rules.limits, Sort::Response, space)?;
    Ok(gathered.and_then(|gathered| gathered.into_response(rules, space)))
}

/// Reads a trailer section; says whether any of it is to be forwarded.
///
/// # Errors
/// The block is corrupt, and the connection with it.
pub(crate) fn read_trailers(
    block: impl Block,
    limits: &HeadLimits,
    space: &mut HeadSpace,
) -> Result<Read<bool>, Corrupt> {
    let gathered = gather(block, limits, Sort::Trailers, space)?;
    Ok(gathered.and_then(|_| {
        if space.fields.present().intersects(FORBIDDEN_TRAILERS) {
            return Err(Malformed::TrailerForbidden);
        }
        space.fields.drop_known(WITHHELD_TRAILERS);
        Ok(space.fields.iter().any(|field| !field.dropped))
    }))
}

/// Reads a block for the table's sake only.
///
/// # Errors
/// The block is corrupt, and the connection with it.
pub(crate) fn discard(block: impl Block, space: &mut HeadSpace) -> Result<(), Corrupt> {
    space.clear();
    block.read(&ListLimits { bytes: 0, fields: 0 }, &mut space.text, |_, _| {}).map(|_| ())
}

/// What Content-Length promises, or [`UNKNOWN`].
pub(crate) fn promised(framing: Framing) -> u64 {
    match framing {
        Framing::Length(length) => length,
        _ => UNKNOWN,
    }
}

/// A scheme that requests are served for.
fn is_web(scheme: &[u8]) -> bool {
    scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https")
}

/// RFC 3986 §3.1.
fn is_scheme(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_alphabetic)
        && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
}

/// No length was promised.
pub(crate) const UNKNOWN: u64 = u64::MAX;

/// Heads that are well-formed as HTTP has it, but not to be served: their senders deserve to be told why.
pub(crate) fn is_answerable(why: Malformed) -> bool {
    matches!(
        why,
        Malformed::HeadTooLong
            | Malformed::TooManyFields
            | Malformed::TargetTooLong
            | Malformed::MethodTooLong
            | Malformed::HostMissing
            | Malformed::HostInvalid
            | Malformed::Scheme
            | Malformed::Expectation
    )
}

/// An origin may send many 103s, though none sends more than a few.
pub(crate) const INTERIMS_MAX: u8 = 16;

fn gather(
    block: impl Block,
    limits: &HeadLimits,
    sort: Sort,
    space: &mut HeadSpace,
) -> Result<Read<Gathered>, Corrupt> {
    space.clear();
    let HeadSpace { text, fields, cookie, .. } = space;
    let mut gathered = Gathered::new(sort);
    let fit = block.read(&list_limits(limits), text, |text, line| {
        if gathered.malformed.is_none() {
            gathered.malformed = gathered.take(text, &line, fields, cookie).err();
        }
        if gathered.malformed.is_some() {
            text.truncate(line.start);
        }
    })?;
    Ok(match (gathered.malformed, fit) {
        (Some(malformed), _) => Err(malformed),
        (None, Fit::TooLong) => Err(Malformed::HeadTooLong),
        (None, Fit::TooManyFields) => Err(Malformed::TooManyFields),
        (None, Fit::Whole) => Ok(gathered),
    })
}

/// A block while it is read.
struct Gathered {
    sort: Sort,
    pseudo: [Span; 6],
    /// By bit of [`Pseudo`].
    seen: u8,
    /// The first regular field has come, and the first line is written.
    begun: bool,
    malformed: Option<Malformed>,
    /// A crumb was never indexed.
    cookie_sensitive: bool,
    /// The scheme's own.
    port: u16,
    first: FirstLine,
    /// Of extended CONNECT; empty without it.
    protocol: ([u8; PROTOCOL_BYTES_MAX], u8),
}

/// Where the parts of a request line lie.
#[derive(Debug, Clone, Copy, Default)]
struct FirstLine {
    method: Span,
    target: Span,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Pseudo {
    Method,
    Scheme,
    Path,
    Authority,
    Protocol,
    Status,
}

impl Gathered {
    fn new(sort: Sort) -> Self {
        Self {
            sort,
            pseudo: [Span::EMPTY; 6],
            seen: 0,
            begun: sort == Sort::Trailers,
            malformed: None,
            cookie_sensitive: false,
            port: 80,
            first: FirstLine::default(),
            protocol: ([0; PROTOCOL_BYTES_MAX], 0),
        }
    }

    fn has(&self, pseudo: Pseudo) -> bool {
        self.seen & 1 << pseudo as u8 != 0
    }

    fn of<'a>(&self, pseudo: Pseudo, text: &'a [u8]) -> &'a [u8] {
        self.pseudo[pseudo as usize].of(text)
    }

    /// One field, whose line is the end of `text`.
    #[inline]
    fn take(
        &mut self,
        text: &mut Vec<u8>,
        line: &Line,
        fields: &mut Fields,
        cookie: &mut Vec<u8>,
    ) -> Result<(), Malformed> {
        let known = match line.known {
            Some(known) => known,
            None if text.get(line.start) == Some(&b':') && line.name_len > 0 => return self.take_pseudo(text, line),
            None => field_of(line.name(text), line.value(text))?,
        };
        if CONNECTION_FIELDS.contains(known) || known == Known::Te && !self.takes_te(line.value(text)) {
            return Err(Malformed::ConnectionField);
        }
        let mut start = line.start;
        if !self.begun {
            start = self.begin(text, start, fields)?;
        }
        let (name, value) = spans(start, line.name_len, line.value_len);
        if known == Known::Cookie && self.sort == Sort::Request {
            if !cookie.is_empty() && value.len > 0 {
                cookie.extend_from_slice(b"; ");
            }
            cookie.extend_from_slice(value.of(text));
            self.cookie_sensitive |= line.never_indexed;
            text.truncate(start);
            return Ok(());
        }
        if known == Known::Host && self.has(Pseudo::Authority) {
            // RFC 9113 §8.3.1: who is no origin server compares them as their scheme does.
            let host = fields.value(Known::Host, text).unwrap_or(&[]);
            if !authority::is_same(self.port, value.of(text), host) {
                return Err(Malformed::HostContradicts);
            }
            text.truncate(start);
            return Ok(());
        }
        push(fields, name, value, known, line.never_indexed)
    }

    /// RFC 9113 §8.2.2: in requests, and then nothing but `trailers`.
    fn takes_te(&self, value: &[u8]) -> bool {
        self.sort == Sort::Request && value.eq_ignore_ascii_case(b"trailers")
    }

    fn take_pseudo(&mut self, text: &[u8], line: &Line) -> Result<(), Malformed> {
        let pseudo = match (self.sort, line.name(text)) {
            (Sort::Request, b":method") => Pseudo::Method,
            (Sort::Request, b":scheme") => Pseudo::Scheme,
            (Sort::Request, b":path") => Pseudo::Path,
            (Sort::Request, b":authority") => Pseudo::Authority,
            (Sort::Request, b":protocol") => Pseudo::Protocol,
            (Sort::Response, b":status") => Pseudo::Status,
            _ => return Err(Malformed::PseudoField),
        };
        if self.begun || self.has(pseudo) {
            return Err(Malformed::PseudoField);
        }
        self.seen |= 1 << pseudo as u8;
        self.pseudo[pseudo as usize] = spans(line.start, line.name_len, line.value_len).1;
        if pseudo == Pseudo::Protocol {
            let place = self.protocol.0.get_mut(..line.value_len).ok_or(Malformed::PseudoField)?;
            place.copy_from_slice(line.value(text));
            self.protocol.1 = line.value_len as u8;
        }
        Ok(())
    }

    /// All pseudo-header fields are here, in `text[..end]`: puts the first line (and Host) in their place. Returns where what followed
    /// them begins now.
    fn begin(&mut self, text: &mut Vec<u8>, end: usize, fields: &mut Fields) -> Result<usize, Malformed> {
        self.begun = true;
        let mut host = Span::EMPTY;
        let line = text.len();
        match self.sort {
            Sort::Request => {
                self.check_request(text)?;
                if self.of(Pseudo::Scheme, text).eq_ignore_ascii_case(b"https") {
                    self.port = 443;
                }
                host = self.put_request_line(text);
            }
            Sort::Response => {
                self.check_status(text)?;
                let status = self.pseudo[Pseudo::Status as usize];
                text.extend_from_slice(b"HTTP/1.1 ");
                text.extend_from_within(status.start as usize..status.end());
                text.extend_from_slice(b" \r\n");
            }
            Sort::Trailers => {}
        }
        let made = text.len() - line;
        // What followed the pseudo-header fields goes behind what was made of them.
        text.extend_from_within(end..line);
        text.drain(..line);
        let moved = |span: Span| Span { start: (span.start as usize - line) as u16, len: span.len };
        if self.sort == Sort::Request {
            self.first = FirstLine { method: moved(self.first.method), target: moved(self.first.target) };
        }
        if self.has(Pseudo::Authority) {
            let value = moved(host);
            let name = Span { start: value.start - HOST.len() as u16, len: HOST.len() as u16 - 2 };
            push(fields, name, value, Known::Host, false)?;
        }
        Ok(made)
    }

    /// `method SP target SP version CRLF`, and Host's line if there is an authority, whose place is returned.
    fn put_request_line(&mut self, text: &mut Vec<u8>) -> Span {
        let connect = self.of(Pseudo::Method, text) == b"CONNECT";
        let tunnel = connect && !self.has(Pseudo::Protocol);
        let part = |text: &mut Vec<u8>, span: Span| {
            let start = text.len();
            text.extend_from_within(span.start as usize..span.end());
            Span::between(start, text.len())
        };
        let [method, _, path, authority, ..] = self.pseudo;
        self.first.method = if connect && !tunnel {
            let start = text.len();
            text.extend_from_slice(b"GET");
            Span::between(start, text.len())
        } else {
            part(text, method)
        };
        text.push(b' ');
        self.first.target = part(text, if tunnel { authority } else { path });
        text.extend_from_slice(b" HTTP/1.1\r\n");
        if !self.has(Pseudo::Authority) {
            return Span::EMPTY;
        }
        text.extend_from_slice(HOST);
        let host = part(text, authority);
        text.extend_from_slice(b"\r\n");
        host
    }

    /// RFC 9113 §8.3.1, §8.5; RFC 8441 §4.
    fn check_request(&self, text: &[u8]) -> Result<(), Malformed> {
        let connect = self.of(Pseudo::Method, text) == b"CONNECT";
        let whole = match (connect, self.has(Pseudo::Protocol)) {
            (true, false) => !self.has(Pseudo::Scheme) && !self.has(Pseudo::Path) && self.has(Pseudo::Authority),
            (true, true) => {
                self.has_resource() && self.has(Pseudo::Authority) && is_token(self.of(Pseudo::Protocol, text))
            }
            (false, protocol) => !protocol && self.has_resource(),
        };
        if !whole || !is_token(self.of(Pseudo::Method, text)) {
            return Err(Malformed::PseudoField);
        }
        let scheme = self.of(Pseudo::Scheme, text);
        // What its path may look like only who serves it could tell (RFC 9113 §8.3.1), which is nobody here.
        if self.has(Pseudo::Scheme) && !is_web(scheme) {
            return Err(if is_scheme(scheme) { Malformed::Scheme } else { Malformed::PseudoField });
        }
        if self.has(Pseudo::Path) && self.of(Pseudo::Path, text).is_empty() {
            return Err(Malformed::PseudoField);
        }
        let path = self.of(Pseudo::Path, text);
        let rooted = path.starts_with(b"/") || path == b"*" && self.of(Pseudo::Method, text) == b"OPTIONS";
        if self.has(Pseudo::Path) && (!rooted || !is_target(path)) {
            return Err(Malformed::Target);
        }
        if self.has(Pseudo::Authority) && !is_target(self.of(Pseudo::Authority, text)) {
            return Err(Malformed::HostInvalid);
        }
        Ok(())
    }

    fn has_resource(&self) -> bool {
        self.has(Pseudo::Scheme) && self.has(Pseudo::Path)
    }

    fn check_status(&self, text: &[u8]) -> Result<(), Malformed> {
        match self.of(Pseudo::Status, text) {
            [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9'] => Ok(()),
            _ => Err(Malformed::PseudoField),
        }
    }

    fn into_request(mut self, rules: &RequestRules<'_>, space: &mut HeadSpace) -> Read<RequestHead> {
        let HeadSpace { text, fields, cookie, .. } = space;
        let extended = self.has(Pseudo::Protocol);
        if extended && !rules.connect_protocol {
            return Err(Malformed::PseudoField);
        }
        if !self.begun {
            let end = text.len();
            self.begin(text, end, fields)?;
        }
        if !cookie.is_empty() {
            put_line(text, fields, b"cookie", cookie, Known::Cookie, self.cookie_sensitive)?;
        }
        let FirstLine { method: method_text, target } = self.first;
        if target.len > rules.limits.target {
            return Err(Malformed::TargetTooLong);
        }
        if method_text.len as usize > METHOD_BYTES_MAX {
            return Err(Malformed::MethodTooLong);
        }
        let method = Method::from_bytes(method_text.of(text));
        let addressed = authority::target(rules.version, method, target, fields, text)?;
        let declared = framing::of_request(rules.version, method, fields, text)?;
        let framing = match (declared, rules.end_stream) {
            (Framing::Length(1..), true) => return Err(Malformed::LengthMismatch),
            (Framing::None, false) if !extended && method != Method::Connect => Framing::Chunked,
            (declared, _) => declared,
        };
        let upgrade = if extended { self.put_upgrade(text, fields)? } else { Span::EMPTY };
        Ok(RequestHead {
            method,
            version: rules.version,
            form: addressed.form,
            persistent: true,
            expect_continue: expects_continue(rules.version, fields, text)?,
            method_text,
            target,
            authority: addressed.authority,
            path: addressed.path,
            query: addressed.query,
            host: fields.get(Known::Host).map_or(Span::EMPTY, |field| field.value),
            upgrade,
            length: finish(text, fields),
            framing,
        })
    }

    fn into_response(mut self, rules: &ResponseRules<'_>, space: &mut HeadSpace) -> Read<ResponseHead> {
        let &ResponseRules { version, request_was, upgrade, end_stream, .. } = rules;
        let HeadSpace { text, fields, .. } = space;
        if !self.begun {
            let end = text.len();
            self.begin(text, end, fields)?;
        }
        let digits = text.get(9..12).unwrap_or(&[]).iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
        let status = Status::new(digits).ok_or(Malformed::PseudoField)?;
        // RFC 9113 §8.6: there is no switching; and an interim response is not the last thing on its stream (§8.1).
        if status == Status::SWITCHING_PROTOCOLS || status.is_interim() && end_stream {
            return Err(Malformed::UnexpectedUpgrade);
        }
        let declared = framing::of_response(version, status, request_was, fields, text)?;
        let framing = match (declared, end_stream) {
            (Framing::Length(1..), true) => return Err(Malformed::LengthMismatch),
            (Framing::UntilClose, true) => Framing::Length(0),
            (Framing::UntilClose, false) => Framing::Chunked,
            (declared, _) => declared,
        };
        let switched = upgrade.filter(|_| status.is_success());
        let mut head = ResponseHead {
            version,
            status,
            persistent: true,
            reason: Span::EMPTY,
            upgrade: Span::EMPTY,
            length: 0,
            framing,
        };
        if let Some(protocol) = switched {
            text[9..12].copy_from_slice(b"101");
            head.status = Status::SWITCHING_PROTOCOLS;
            head.framing = Framing::None;
            put_line(text, fields, b"connection", b"upgrade", Known::Connection, false)?;
            head.upgrade = put_line(text, fields, b"upgrade", protocol, Known::Upgrade, false)?;
        }
        head.length = finish(text, fields);
        Ok(head)
    }

    /// Offers the protocol as HTTP/1 would.
    fn put_upgrade(&self, text: &mut Vec<u8>, fields: &mut Fields) -> Result<Span, Malformed> {
        put_line(text, fields, b"connection", b"upgrade", Known::Connection, false)?;
        let (name, length) = &self.protocol;
        put_line(text, fields, b"upgrade", &name[..*length as usize], Known::Upgrade, false)
    }
}

/// Which field that is, if it is well-formed (RFC 9113 §8.2.1, RFC 9114 §4.2).
///
/// # Errors
/// What is wrong with it. A pseudo-header field is no field.
pub(crate) fn field_of(name: &[u8], value: &[u8]) -> Result<Known, Malformed> {
    if name.is_empty() || !name.iter().all(|&byte| is_token_byte(byte) && !byte.is_ascii_uppercase()) {
        return Err(Malformed::FieldName);
    }
    let spaced = matches!(value, [b' ' | b'\t', ..] | [.., b' ' | b'\t']);
    if spaced || !is_field_value(value) {
        return Err(Malformed::FieldValue);
    }
    Ok(Known::from_name(name))
}

/// RFC 9113 §8.2.2.
const CONNECTION_FIELDS: KnownSet = KnownSet::of(&[
    Known::Connection,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::TransferEncoding,
    Known::Upgrade,
]);

/// A cookie shorter than this could be guessed byte by byte (RFC 7541 §7.1.3).
pub(crate) const COOKIE_PART: usize = 20;

const HOST: &[u8] = b"host: ";

/// Those of extended CONNECT.
const PSEUDO_MAX: usize = 5;

/// Spans have 16 bits; what is made of a list is a little longer than the list.
const TEXT_BYTES_MAX: usize = 60 * 1024;

/// The longest registered upgrade token has 16 bytes.
const PROTOCOL_BYTES_MAX: usize = 32;

fn spans(start: usize, name_len: usize, value_len: usize) -> (Span, Span) {
    let value = start + name_len + 2;
    (Span::between(start, start + name_len), Span::between(value, value + value_len))
}

#[inline]
fn push(fields: &mut Fields, name: Span, value: Span, known: Known, sensitive: bool) -> Result<(), Malformed> {
    if !fields.push(name, value, known) {
        return Err(Malformed::TooManyFields);
    }
    if sensitive {
        fields.mark_sensitive();
    }
    Ok(())
}

/// Appends a line of our own; returns where its value is.
fn put_line(
    text: &mut Vec<u8>,
    fields: &mut Fields,
    name: &[u8],
    value: &[u8],
    known: Known,
    sensitive: bool,
) -> Result<Span, Malformed> {
    let start = text.len();
    for part in [name, b": ", value, b"\r\n"] {
        text.extend_from_slice(part);
    }
    let (name, value) = spans(start, name.len(), value.len());
    push(fields, name, value, known, sensitive)?;
    Ok(value)
}

/// Ends the text as a head ends; returns its length.
fn finish(text: &mut Vec<u8>, fields: &mut Fields) -> u16 {
    fields.set_end(text.len());
    text.extend_from_slice(b"\r\n");
    text.len() as u16
}
