//! Heads as they leave: runs of the bytes that came in.
//!
//! A head is not re-serialised. Neighbouring fields that are kept are one run of the receive buffer, copied at once; a typical
//! request is two or three runs. What frames the message or concerns the connection is never copied, always written from the
//! verdict, so that the next hop reads what we read.

use super::sink::{Refused, Sink, put, put_decimal, put_field};
use super::{RequestHead, ResponseHead};
use crate::http::authority::Form;
use crate::http::{Fields, Framing, Known, KnownSet, Method, Status, Version, is_field_value};

/// How a request is to leave. `Default` of the parts that seldom change: see [`RequestRewrite::new`].
#[derive(Debug, Clone, Copy)]
pub struct RequestRewrite<'a> {
    /// In origin form, instead of the one that came.
    pub target: Option<&'a [u8]>,
    /// Instead of the authority that was asked for.
    pub host: Option<&'a [u8]>,
    /// How the content will be sent: `None`, `Length` or `Chunked`.
    pub framing: Framing,
    /// Whether the upstream connection is to live on.
    pub persistent: bool,
    /// From [`hop::strip`](crate::http::hop::strip).
    pub te_trailers: bool,
    /// Pass on the request's offer to upgrade, if it made one.
    pub upgrade: bool,
    /// Fields to leave out besides those marked as dropped, mostly because `add` replaces them.
    pub without: KnownSet,
    pub add: &'a [(&'a [u8], &'a [u8])],
}

impl RequestRewrite<'_> {
    /// As it came, on a connection that lives on.
    pub fn new(head: &RequestHead) -> Self {
        Self {
            target: None,
            host: None,
            framing: head.framing,
            persistent: true,
            te_trailers: false,
            upgrade: !head.upgrade.is_empty(),
            without: KnownSet::EMPTY,
            add: &[],
        }
    }
}

/// How a response is to leave.
#[derive(Debug, Clone, Copy)]
pub struct ResponseRewrite<'a> {
    /// The client's version.
    pub peer: Version,
    /// How the content will be sent; see [`Framing::towards`].
    pub framing: Framing,
    /// Whether the client's connection is to live on.
    pub persistent: bool,
    pub without: KnownSet,
    pub add: &'a [(&'a [u8], &'a [u8])],
}

impl ResponseRewrite<'_> {
    /// As it came, towards a client of version `peer`.
    pub fn new(head: &ResponseHead, peer: Version) -> Self {
        let framing = head.framing.towards(peer);
        Self { peer, framing, persistent: framing != Framing::UntilClose, without: KnownSet::EMPTY, add: &[] }
    }
}

/// Writes a request's head: always HTTP/1.1, target in origin form (RFC 9112 §3.2.1) but for CONNECT and `*`, one Host.
///
/// `bytes` are those that `head` and `fields` were parsed from; hop-by-hop fields should have been
/// [stripped](crate::http::hop::strip), though Connection, Transfer-Encoding and Upgrade are never copied in any case.
///
/// # Errors
/// The sink then holds part of a head.
#[inline]
pub fn write_request(
    bytes: &[u8],
    head: &RequestHead,
    fields: &Fields,
    rewrite: &RequestRewrite<'_>,
    sink: &mut impl Sink,
) -> Result<(), Refused> {
    put(sink, head.method_text.of(bytes))?;
    put(sink, b" ")?;
    put_target(bytes, head, rewrite.target, sink)?;
    put(sink, b" HTTP/1.1\r\n")?;

    let mut without = NEVER_COPIED.union(rewrite.without);
    if head.version == Version::Http10 {
        // It meant nothing when it came (RFC 9110 §10.1.1), and must not begin to now.
        without.insert(Known::Expect);
    }
    let host = match rewrite.host {
        Some(host) => Some(host),
        // An absolute target overrides Host (RFC 9112 §3.2.2); HTTP/1.0 may have none, HTTP/1.1 must (§3.2).
        None if head.form == Form::Absolute || head.host.is_empty() => Some(head.authority.of(bytes)),
        None => None,
    };
    if let Some(host) = host {
        without.insert(Known::Host);
        put_field(sink, b"host", host)?;
    }
    let length_copied = rewrite.framing == head.framing && is_copied(Known::ContentLength, fields, without);
    if !length_copied {
        without.insert(Known::ContentLength);
    }
    put_runs(bytes, fields, without, sink)?;
    if !length_copied {
        put_framing(sink, rewrite.framing)?;
    }
    let upgrade = if rewrite.upgrade { head.upgrade.of(bytes) } else { &[] };
    if rewrite.te_trailers {
        put(sink, b"te: trailers\r\n")?;
    }
    if !upgrade.is_empty() {
        put_field(sink, b"upgrade", upgrade)?;
    }
    put(
        sink,
        match (rewrite.persistent, !upgrade.is_empty(), rewrite.te_trailers) {
            (_, true, false) => b"connection: upgrade\r\n",
            (_, true, true) => b"connection: upgrade, te\r\n",
            (true, false, false) => b"",
            (true, false, true) => b"connection: te\r\n",
            (false, false, false) => b"connection: close\r\n",
            (false, false, true) => b"connection: close, te\r\n",
        },
    )?;
    put_added(sink, rewrite.add)
}

/// Writes a final response's head (or 101's): HTTP/1.1, with the registered reason phrase where there is one.
///
/// # Errors
/// The sink then holds part of a head.
#[inline]
pub fn write_response(
    bytes: &[u8],
    head: &ResponseHead,
    fields: &Fields,
    rewrite: &ResponseRewrite<'_>,
    sink: &mut impl Sink,
) -> Result<(), Refused> {
    match head.status.line() {
        Some(line) => put(sink, line)?,
        None => put_status_line(sink, head.status, head.reason.of(bytes))?,
    }
    let mut without = NEVER_COPIED.union(rewrite.without);
    // Where there can be no content, a length is metadata (HEAD, 304) or an error (1xx, 204: RFC 9110 §8.6).
    let misplaced = head.status.code() < 200 || head.status == Status::NO_CONTENT;
    let length_copied =
        rewrite.framing == head.framing && !misplaced && is_copied(Known::ContentLength, fields, without);
    if !length_copied {
        without.insert(Known::ContentLength);
    }
    put_runs(bytes, fields, without, sink)?;
    if !length_copied {
        put_framing(sink, rewrite.framing)?;
    }
    if head.status == Status::SWITCHING_PROTOCOLS {
        put_field(sink, b"upgrade", head.upgrade.of(bytes))?;
        put(sink, b"connection: upgrade\r\n")?;
    } else {
        put(sink, connection_line(rewrite.persistent, rewrite.peer))?;
    }
    put_added(sink, rewrite.add)
}

/// Writes an interim response's head (1xx other than 101), for a client of HTTP/1.1: one of HTTP/1.0 would take it for the
/// final response (RFC 9110 §15.2). An interim response says nothing about the connection.
///
/// # Errors
/// The sink then holds part of a head.
pub fn write_interim(bytes: &[u8], head: &ResponseHead, fields: &Fields, sink: &mut impl Sink) -> Result<(), Refused> {
    debug_assert!(head.status.is_interim());
    match head.status.line() {
        Some(line) => put(sink, line)?,
        None => put_status_line(sink, head.status, &[])?,
    }
    put_runs(bytes, fields, NEVER_COPIED.with(Known::ContentLength), sink)?;
    put_added(sink, &[])
}

/// Written from the verdict, never from the text.
const NEVER_COPIED: KnownSet = KnownSet::of(&[Known::Connection, Known::TransferEncoding, Known::Upgrade]);

#[inline]
pub(super) fn put_framing(sink: &mut impl Sink, framing: Framing) -> Result<(), Refused> {
    match framing {
        Framing::Chunked => put(sink, b"transfer-encoding: chunked\r\n"),
        Framing::Length(length) => {
            put(sink, b"content-length: ")?;
            put_decimal(sink, length)?;
            put(sink, b"\r\n")
        }
        Framing::None | Framing::UntilClose => Ok(()),
    }
}

pub(super) fn put_status_line(sink: &mut impl Sink, status: Status, reason: &[u8]) -> Result<(), Refused> {
    if !is_field_value(reason) {
        return Err(Refused::Field);
    }
    put(sink, b"HTTP/1.1 ")?;
    put_decimal(sink, u64::from(status.code()))?;
    put(sink, b" ")?;
    put(sink, reason)?;
    put(sink, b"\r\n")
}

/// What a client of this version has to be told about the connection (RFC 9112 §9.3).
#[inline]
pub(super) fn connection_line(persistent: bool, peer: Version) -> &'static [u8] {
    match (persistent, peer) {
        (false, _) => b"connection: close\r\n",
        (true, Version::Http10) => b"connection: keep-alive\r\n",
        (true, _) => b"",
    }
}

#[inline]
fn put_added(sink: &mut impl Sink, fields: &[(&[u8], &[u8])]) -> Result<(), Refused> {
    for (name, value) in fields {
        put_field(sink, name, value)?;
    }
    put(sink, b"\r\n")
}

#[inline]
fn put_target(bytes: &[u8], head: &RequestHead, rewritten: Option<&[u8]>, sink: &mut impl Sink) -> Result<(), Refused> {
    if let Some(target) = rewritten {
        let whole = !target.is_empty() && crate::http::is_target(target);
        return if whole { put(sink, target) } else { Err(Refused::Field) };
    }
    match head.form {
        Form::Origin | Form::Asterisk | Form::Authority => put(sink, head.target.of(bytes)),
        Form::Absolute if head.path.is_empty() => {
            let rest = head.path_and_query();
            // RFC 9112 §3.2.4: the last proxy turns `OPTIONS http://host` into `OPTIONS *`.
            if head.method == Method::Options && rest.is_empty() {
                return put(sink, b"*");
            }
            put(sink, b"/")?;
            put(sink, rest.of(bytes))
        }
        Form::Absolute => put(sink, head.path_and_query().of(bytes)),
    }
}

#[inline]
fn is_copied(known: Known, fields: &Fields, without: KnownSet) -> bool {
    !without.contains(known) && fields.get(known).is_some_and(|field| !field.dropped)
}

/// Copies the fields that are kept, one run of neighbours at a time.
#[inline]
fn put_runs(bytes: &[u8], fields: &Fields, without: KnownSet, sink: &mut impl Sink) -> Result<(), Refused> {
    let mut run: Option<usize> = None;
    for field in fields.iter() {
        let start = field.name.start as usize;
        match (field.dropped || without.contains(field.known), run) {
            (true, Some(from)) => {
                put(sink, bytes.get(from..start).unwrap_or(&[]))?;
                run = None;
            }
            (false, None) => run = Some(start),
            _ => {}
        }
    }
    match run {
        Some(from) => put(sink, bytes.get(from..fields.end()).unwrap_or(&[])),
        None => Ok(()),
    }
}
