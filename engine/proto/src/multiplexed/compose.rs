//! Heads and trailers as they leave: from the neutral head to the fields of a block (RFC 9113 §8.2, §8.3; RFC 9114 §4.2, §4.3).

use super::head::COOKIE_PART;
use crate::compression::{Compress, Indexing};
use crate::h1::{Refused, RequestHead, RequestRewrite, Respond, ResponseHead, ResponseRewrite};
use crate::http::authority::Form;
use crate::http::{Fields, Framing, Known, KnownSet, Method, Status, decimal, is_field_value, is_target, is_token};
use crate::role::{Client, Role, Server};

/// A request that is to be written, if it [may](Self::check) be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) head: &'a RequestHead,
    bytes: &'a [u8],
    fields: &'a Fields,
    rewrite: &'a RequestRewrite<'a>,
    path: &'a [u8],
    authority: &'a [u8],
    /// The protocol that an extended CONNECT asks for; empty without one.
    pub(crate) upgrade: &'a [u8],
}

impl<'a> Asked<'a> {
    /// `bytes` are those that `head` and `fields` were read from, by whichever protocol.
    pub(crate) fn new(
        bytes: &'a [u8],
        head: &'a RequestHead,
        fields: &'a Fields,
        rewrite: &'a RequestRewrite<'a>,
    ) -> Self {
        let upgrade = if rewrite.upgrade { head.upgrade.of(bytes) } else { &[] };
        let path = match rewrite.target {
            Some(target) => target,
            None => target_of(bytes, head),
        };
        let authority = rewrite.host.unwrap_or(head.authority.of(bytes));
        Self { head, bytes, fields, rewrite, path, authority, upgrade }
    }

    /// Whether it can be written.
    ///
    /// # Errors
    /// [`Refused::Field`]: what is to be changed breaks the message.
    pub(crate) fn check(&self) -> Result<(), Refused> {
        let valid_path = !self.has_path() || !self.path.is_empty() && is_target(self.path);
        if !valid_path || !is_target(self.authority) {
            return Err(Refused::Field);
        }
        check_added(self.rewrite.add)
    }

    /// Becomes an extended CONNECT (RFC 8441 §4, RFC 9220 §3).
    pub(crate) fn is_extended(&self) -> bool {
        !self.upgrade.is_empty()
    }

    /// A tunnel, if it is granted.
    pub(crate) fn is_connect(&self) -> bool {
        self.is_extended() || self.head.method == Method::Connect
    }

    /// Content or a tunnel follows its head.
    pub(crate) fn goes_on(&self) -> bool {
        self.rewrite.framing.has_body() || self.is_connect()
    }

    fn has_path(&self) -> bool {
        self.is_extended() || self.head.method != Method::Connect
    }

    /// A call of gRPC: its path is the name of a method, which is the service's and tells nothing of the caller.
    fn is_call(&self) -> bool {
        let media_type = self.fields.value(Known::ContentType, self.bytes).unwrap_or_default();
        media_type.starts_with(b"application/grpc") && !self.path.contains(&b'?')
    }

    pub(crate) fn put(&self, secure: bool, encoder: &mut impl Compress, out: &mut Vec<u8>) {
        let extended = self.is_extended();
        let method = if extended { b"CONNECT" } else { self.head.method_text.of(self.bytes) };
        encoder.field(b":method", method, Indexing::Store, out);
        if self.has_path() {
            let scheme: &[u8] = if secure { b"https" } else { b"http" };
            encoder.field(b":scheme", scheme, Indexing::Store, out);
        }
        if !self.authority.is_empty() {
            encoder.field(b":authority", self.authority, Indexing::Store, out);
        }
        if self.has_path() {
            let how = if self.is_call() { Indexing::Store } else { Indexing::Pass };
            encoder.field(b":path", self.path, how, out);
        }
        if extended {
            encoder.field(b":protocol", self.upgrade, Indexing::Store, out);
        }
        let mut without = NEVER_SENT.union(self.rewrite.without).with(Known::Host).with(Known::ContentLength);
        without.insert(Known::Te);
        put_fields::<Client>(encoder, self.bytes, self.fields, without, extended, out);
        if let Framing::Length(length) = self.rewrite.framing {
            put_length(encoder, length, out);
        }
        if self.rewrite.te_trailers {
            encoder.field(b"te", b"trailers", Indexing::Store, out);
        }
        put_added::<Client>(encoder, self.rewrite.add, extended, out);
    }
}

/// Puts a final response's fields. 101, which these protocols have not, grants an extended CONNECT and goes as 200.
pub(crate) fn put_response(
    encoder: &mut impl Compress,
    bytes: &[u8],
    head: &ResponseHead,
    fields: &Fields,
    rewrite: &ResponseRewrite<'_>,
    out: &mut Vec<u8>,
) {
    let switching = head.status == Status::SWITCHING_PROTOCOLS;
    let mut without = NEVER_SENT.union(rewrite.without).with(Known::Te);
    let misplaced = head.status.code() < 200 || head.status == Status::NO_CONTENT;
    let copied = rewrite.framing == head.framing && !misplaced;
    if !copied {
        without.insert(Known::ContentLength);
    }
    let copied = copied && !without.contains(Known::ContentLength) && fields.has(Known::ContentLength);
    put_status(encoder, if switching { Status::OK } else { head.status }, out);
    put_fields::<Server>(encoder, bytes, fields, without, switching, out);
    if !copied
        && !switching
        && let Framing::Length(length) = rewrite.framing
    {
        put_length(encoder, length, out);
    }
    put_added::<Server>(encoder, rewrite.add, switching, out);
}

/// Puts an interim response's fields.
pub(crate) fn put_interim(
    encoder: &mut impl Compress,
    bytes: &[u8],
    head: &ResponseHead,
    fields: &Fields,
    out: &mut Vec<u8>,
) {
    put_status(encoder, head.status, out);
    let without = NEVER_SENT.with(Known::Te).with(Known::ContentLength);
    put_fields::<Server>(encoder, bytes, fields, without, false, out);
}

/// Whether a response of our own can be written.
///
/// # Errors
/// [`Refused::Field`]: what was added breaks the message.
pub(crate) fn check_respond(respond: &Respond<'_>) -> Result<(), Refused> {
    check_added(respond.add)?;
    if is_field_value(respond.content_type) { Ok(()) } else { Err(Refused::Field) }
}

/// Puts the fields of a response of our own.
pub(crate) fn put_respond(encoder: &mut impl Compress, respond: &Respond<'_>, out: &mut Vec<u8>) {
    put_status(encoder, respond.status, out);
    if !respond.content_type.is_empty() {
        encoder.field(b"content-type", respond.content_type, Indexing::Store, out);
    }
    if !respond.status.is_bodiless() {
        put_length(encoder, respond.body.len() as u64, out);
    }
    if let Some(seconds) = respond.retry_after {
        put_number(encoder, b"retry-after", u64::from(seconds), out);
    }
    put_added::<Server>(encoder, respond.add, false, out);
}

/// Whether trailers can be written.
///
/// # Errors
/// [`Refused::Field`]: a name or value breaks the message.
pub(crate) fn check_trailers<'a>(mut trailers: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Result<(), Refused> {
    let whole = trailers.all(|(name, value)| is_token(name) && is_field_value(value));
    if whole { Ok(()) } else { Err(Refused::Field) }
}

/// Puts trailers of `R`'s.
pub(crate) fn put_trailers<'a, R: Role>(
    encoder: &mut impl Compress,
    trailers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    out: &mut Vec<u8>,
) {
    for (name, value) in trailers {
        let known = Known::from_name(name);
        encoder.field(name, value, indexing::<R>(known, name, value, false), out);
    }
}

/// What these protocols have not (RFC 9113 §8.2.2, RFC 9114 §4.2), or what is written from the verdict.
const NEVER_SENT: KnownSet = KnownSet::of(&[
    Known::Connection,
    Known::Http2Settings,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::TransferEncoding,
    Known::Upgrade,
]);

/// The request's target as `:path` has it (RFC 9113 §8.3.1, RFC 9114 §4.3.1).
fn target_of<'a>(bytes: &'a [u8], head: &RequestHead) -> &'a [u8] {
    match head.form {
        Form::Absolute if head.path.is_empty() && head.query.is_empty() => {
            if head.method == Method::Options {
                b"*"
            } else {
                b"/"
            }
        }
        Form::Absolute => head.path_and_query().of(bytes),
        Form::Origin | Form::Asterisk | Form::Authority => head.target.of(bytes),
    }
}

pub(crate) fn check_added(add: &[(&[u8], &[u8])]) -> Result<(), Refused> {
    let whole = add.iter().all(|(name, value)| is_token(name) && is_field_value(value));
    if whole { Ok(()) } else { Err(Refused::Field) }
}

/// `switching` leaves out the handshake of a WebSocket, which extended CONNECT replaces (RFC 8441 §5).
fn put_fields<R: Role>(
    encoder: &mut impl Compress,
    bytes: &[u8],
    fields: &Fields,
    without: KnownSet,
    switching: bool,
    out: &mut Vec<u8>,
) {
    for field in fields.iter().filter(|field| !field.dropped && !without.contains(field.known)) {
        let (name, value) = (field.name.of(bytes), field.value.of(bytes));
        if switching && is_handshake(name) {
            continue;
        }
        if field.known == Known::Cookie && !R::ANSWERS {
            put_cookie(encoder, value, field.sensitive, out);
            continue;
        }
        encoder.field(name, value, indexing::<R>(field.known, name, value, field.sensitive), out);
    }
}

/// A cookie goes as it came: a connection to an origin is shared by many clients, so nothing of it may be indexed.
fn put_cookie(encoder: &mut impl Compress, value: &[u8], sensitive: bool, out: &mut Vec<u8>) {
    let how = if sensitive || value.len() < COOKIE_PART { Indexing::Never } else { Indexing::Pass };
    encoder.field(b"cookie", value, how, out);
}

fn is_handshake(name: &[u8]) -> bool {
    const FIELDS: [&[u8]; 2] = [b"sec-websocket-key", b"sec-websocket-accept"];
    FIELDS.iter().any(|field| name.eq_ignore_ascii_case(field))
}

/// `switching` as in [`put_fields`].
fn put_added<R: Role>(encoder: &mut impl Compress, add: &[(&[u8], &[u8])], switching: bool, out: &mut Vec<u8>) {
    for (name, value) in add.iter().filter(|(name, _)| !switching || !is_handshake(name)) {
        encoder.field(name, value, indexing::<R>(Known::from_name(name), name, value, false), out);
    }
}

fn put_status(encoder: &mut impl Compress, status: Status, out: &mut Vec<u8>) {
    put_number(encoder, b":status", u64::from(status.code()), out);
}

fn put_length(encoder: &mut impl Compress, length: u64, out: &mut Vec<u8>) {
    put_number(encoder, b"content-length", length, out);
}

fn put_number(encoder: &mut impl Compress, name: &[u8], value: u64, out: &mut Vec<u8>) {
    let how = if name == b":status" { Indexing::Store } else { Indexing::Pass };
    encoder.field(name, decimal(value, &mut [0; 20]), how, out);
}

/// What is worth a place in the peer's table, and what must not have one.
///
/// A client's connection carries one user's answers: whatever is likely to be repeated is kept. A connection to an origin carries
/// everybody's requests: only what says nothing of anybody is kept there, so that no client can find out by the length of its own
/// requests what another has sent (RFC 7541 §7.1).
#[inline]
fn indexing<R: Role>(known: Known, name: &[u8], value: &[u8], sensitive: bool) -> Indexing {
    let secret = match known {
        Known::Authorization | Known::ProxyAuthorization => true,
        Known::SetCookie | Known::Cookie => value.len() < COOKIE_PART,
        _ => false,
    };
    if sensitive || secret {
        return Indexing::Never;
    }
    let keep = if R::ANSWERS { !VOLATILE.contains(known) } else { is_impersonal(known, name) };
    match (keep, known) {
        (true, _) => Indexing::Store,
        (false, Known::XForwardedFor) if !R::ANSWERS => Indexing::Again,
        (false, _) => Indexing::Pass,
    }
}

/// Different in every message.
const VOLATILE: KnownSet = KnownSet::of(&[
    Known::Age,
    Known::ContentLength,
    Known::ContentRange,
    Known::Etag,
    Known::Expires,
    Known::LastModified,
    Known::Location,
    Known::ServerTiming,
    Known::SetCookie,
    Known::Traceparent,
    Known::Tracestate,
    Known::XRequestId,
]);

const IMPERSONAL: KnownSet = KnownSet::of(&[
    Known::AcceptEncoding,
    Known::CacheControl,
    Known::ContentEncoding,
    Known::ContentType,
    Known::Pragma,
    Known::Te,
    Known::Via,
    Known::XForwardedHost,
    Known::XForwardedPort,
    Known::XForwardedProto,
]);

fn is_impersonal(known: Known, name: &[u8]) -> bool {
    IMPERSONAL.contains(known)
        || known == Known::Other
            && [&b"accept"[..], b"grpc-encoding", b"grpc-accept-encoding"]
                .iter()
                .any(|other| name.eq_ignore_ascii_case(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn how<R: Role>(name: &str, value: &str) -> Indexing {
        indexing::<R>(Known::from_name(name.as_bytes()), name.as_bytes(), value.as_bytes(), false)
    }

    #[test]
    fn rfc7541_7_1_what_the_peers_table_may_hold() {
        use Indexing::{Again, Never, Pass, Store};
        for (name, value, to_origin, to_client) in [
            ("Authorization", "Bearer 0123456789abcdef0123456789", Never, Never),
            ("cookie", "a=b", Never, Never),
            ("set-cookie", "id=1", Never, Never),
            ("set-cookie", "id=0123456789abcdef; Path=/", Pass, Pass),
            ("content-type", "application/grpc", Store, Store),
            ("Accept", "*/*", Store, Store),
            ("grpc-encoding", "gzip", Store, Store),
            ("etag", "\"1\"", Pass, Pass),
            ("x-request-id", "1", Pass, Pass),
            // Whose it is matters only where many share a connection.
            ("user-agent", "somebody", Pass, Store),
            ("x-tenant", "somebody", Pass, Store),
            // Nobody can say another's address: what is said ends with one's own.
            ("x-forwarded-for", "192.0.2.1", Again, Store),
        ] {
            assert_eq!(how::<Client>(name, value), to_origin, "{name} to an origin");
            assert_eq!(how::<Server>(name, value), to_client, "{name} to a client");
        }
        assert_eq!(indexing::<Server>(Known::Other, b"x", b"y", true), Never, "as it came");
    }
}
