//! Leaving HTTP: which offers are passed on, and what both sides have agreed to when one is taken.
//!
//! A WebSocket is opened with a key (RFC 6455 §4) or, over HTTP/2 and 3, with an extended CONNECT, which needs none (RFC 8441 §5, RFC 9220 §3). Where the two
//! meet, the key is ours. What holds here: a tunnel of frames begins only behind a proof that the endpoint has understood what it was asked;
//! an answer to an offer that was not made, or a wrong proof, is no answer.

use proto::h1::ResponseHead;
use proto::http::{Fields, Method, Span, Status};
use proto::ws::{self, Extensions};

use super::headers::ensure_parsed;
use super::{Door, Request};

pub(super) const KEY: &[u8] = b"sec-websocket-key";
pub(super) const ACCEPT: &[u8] = b"sec-websocket-accept";
const EXTENSIONS: &[u8] = b"sec-websocket-extensions";

/// Protocols whose streams are capsules (RFC 9298 §3.4, RFC 9484 §4.4).
const CAPSULES: [&[u8]; 2] = [b"connect-udp", b"connect-ip"];

/// What follows HTTP on both connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Agreed {
    /// Bytes that nobody here reads.
    Bytes,
    /// Capsules (RFC 9297 §3), among which datagrams may go where they cannot go by themselves.
    Capsules,
    /// Frames; with permessage-deflate or without.
    WebSocket { deflate: bool },
}

/// Finds the key of a handshake. An offer that none belongs to is no WebSocket's: it is not passed on, and so cannot be taken. To
/// ignore an offer is always allowed (RFC 9110 §7.8).
pub(super) fn prepare(door: &Door, request: &mut Request) {
    if request.head.upgrade.is_empty() || !is_websocket(request.head.upgrade, request.bytes.bytes()) {
        return;
    }
    request.key = if request.head.version.is_multiplexed() {
        let mut random = door.desk.random.borrow_mut();
        let nonce = u128::from(random.next_u64()) << 64 | u128::from(random.next_u64());
        Some(Box::new(ws::key_of(nonce.to_ne_bytes())))
    } else {
        own_key(door, request)
    };
    if request.key.is_none() {
        request.head.upgrade = Span::EMPTY;
    }
}

fn own_key(door: &Door, request: &Request) -> Option<Box<ws::Key>> {
    let mut fields = door.desk.request_fields.borrow_mut();
    ensure_parsed(door, request, &mut fields);
    let bytes = request.bytes.bytes();
    let mut keys = all(&fields, bytes, KEY);
    let key = keys.next().filter(|_| request.head.method == Method::Get)?;
    if keys.next().is_some() { None } else { ws::parse_key(key).map(|key| Box::new(*key)) }
}

/// The key that an endpoint gets because its client has none.
pub(super) fn key_to_add(request: &Request) -> Option<&ws::Key> {
    request.key.as_deref().filter(|_| request.head.version.is_multiplexed())
}

/// The proof that a client wants, where the endpoint was asked over HTTP/2 or 3 and has given none.
pub(super) fn accept_to_add(request: &Request, head: &ResponseHead) -> Option<[u8; 28]> {
    let asked = request.key.as_deref().filter(|_| !request.head.version.is_multiplexed())?;
    let switched = head.status == Status::SWITCHING_PROTOCOLS && head.version.is_multiplexed();
    switched.then(|| ws::accept_of(asked))
}

/// What a 101 agrees to. `None`: it answers something that was not asked, or without having understood it.
pub(super) fn agreed(request: &Request, head: &ResponseHead, bytes: &[u8], fields: &Fields) -> Option<Agreed> {
    if !is_websocket(head.upgrade, bytes) {
        let capsules = CAPSULES.iter().any(|name| head.upgrade.of(bytes).eq_ignore_ascii_case(name));
        return Some(if capsules { Agreed::Capsules } else { Agreed::Bytes });
    }
    let key = request.key.as_deref()?;
    if !head.version.is_multiplexed() {
        let mut proofs = all(fields, bytes, ACCEPT);
        if proofs.next() != Some(&ws::accept_of(key)) || proofs.next().is_some() {
            return None;
        }
    }
    Some(match Extensions::agreed(all(fields, bytes, EXTENSIONS)) {
        Extensions::None => Agreed::WebSocket { deflate: false },
        Extensions::Deflate => Agreed::WebSocket { deflate: true },
        Extensions::Unknown => Agreed::Bytes,
    })
}

/// Whether the request asks for something else than HTTP.
pub(super) fn leaves_http(request: &Request) -> bool {
    request.head.method == Method::Connect || !request.head.upgrade.is_empty()
}

/// Whether what follows the request's head comes as content, though it is none: over HTTP/2 and 3 there is no other way.
pub(super) fn leaves_as_content(request: &Request) -> bool {
    request.head.version.is_multiplexed() && leaves_http(request)
}

/// Whether the endpoint has answered, well, as if nothing but HTTP had been asked for, and the client would take that for a yes.
pub(super) fn is_ignored(request: &Request, head: &ResponseHead) -> bool {
    head.status.is_success() && request.head.version.is_multiplexed() && !request.head.upgrade.is_empty()
}

fn is_websocket(upgrade: Span, bytes: &[u8]) -> bool {
    upgrade.of(bytes).eq_ignore_ascii_case(b"websocket")
}

fn all<'a>(fields: &'a Fields, bytes: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let named = fields.iter().filter(move |field| field.name.of(bytes).eq_ignore_ascii_case(name));
    named.map(move |field| field.value.of(bytes))
}
