//! Heads and trailers as they leave: from the neutral head to a field block (RFC 9113 §8.2, §8.3).

use super::Connection;
use crate::h1::{Refused, RequestHead, RequestRewrite, Respond, ResponseHead, ResponseRewrite};
use crate::h2::StreamId;
use crate::h2::frame::{self, FrameHead};
use crate::h2::head::COOKIE_PART;
use crate::h2::hpack::{Encoder, Indexing};
use crate::h2::settings::FRAME_SIZE_DEFAULT;
use crate::h2::streams::{Incoming, Outgoing, Stream, UNKNOWN};
use crate::http::authority::Form;
use crate::http::{
    Fields, Framing, Known, KnownSet, Method, Status, decimal, is_field_value, is_target_byte, is_token,
};
use crate::role::{Client, Role, Server};

impl Connection<Client> {
    /// Opens a stream with a request's head. `bytes` are those that `head` and `fields` were read from, by whichever protocol; the
    /// rewrite means what it means to [`write_request`](crate::h1::write_request), but for the connection's own fields, which
    /// HTTP/2 has not. A request without content ends with its head.
    ///
    /// An upgrade becomes extended CONNECT (RFC 8441 §4), if the server takes that.
    ///
    /// # Errors
    /// [`Refused::Gone`]: no stream can be opened, or the upgrade not be asked for; [`Refused::Field`]: what was added breaks the
    /// message. Nothing was put, and another request may be tried.
    pub fn write_request(
        &mut self,
        bytes: &[u8],
        head: &RequestHead,
        fields: &Fields,
        rewrite: &RequestRewrite<'_>,
        out: &mut Vec<u8>,
    ) -> Result<StreamId, Refused> {
        let upgrade = if rewrite.upgrade { head.upgrade.of(bytes) } else { &[] };
        let extended = !upgrade.is_empty();
        if !self.can_open() || extended && !self.peer.enable_connect_protocol {
            return Err(Refused::Gone);
        }
        let connect = extended || head.method == Method::Connect;
        let path = match rewrite.target {
            Some(target) => target,
            None => target_of(bytes, head),
        };
        let authority = rewrite.host.unwrap_or(head.authority.of(bytes));
        let has_path = extended || head.method != Method::Connect;
        let valid_path = !has_path || !path.is_empty() && path.iter().all(|&byte| is_target_byte(byte));
        if !valid_path || !authority.iter().all(|&byte| is_target_byte(byte)) {
            return Err(Refused::Field);
        }
        check_added(rewrite.add)?;

        let id = self.next_id;
        let start = begin(&mut self.encoder, out);
        let encoder = &mut self.encoder;
        encoder.field(b":method", if extended { b"CONNECT" } else { head.method_text.of(bytes) }, Indexing::Store, out);
        if has_path {
            let scheme: &[u8] = if self.limits.secure { b"https" } else { b"http" };
            encoder.field(b":scheme", scheme, Indexing::Store, out);
        }
        if !authority.is_empty() {
            encoder.field(b":authority", authority, Indexing::Store, out);
        }
        if has_path {
            encoder.field(b":path", path, Indexing::Pass, out);
        }
        if extended {
            encoder.field(b":protocol", upgrade, Indexing::Store, out);
        }
        let mut without = NEVER_SENT.union(rewrite.without).with(Known::Host).with(Known::ContentLength);
        without.insert(Known::Te);
        put_fields::<Client>(encoder, bytes, fields, without, extended, out);
        if let Framing::Length(length) = rewrite.framing {
            put_length(encoder, length, out);
        }
        if rewrite.te_trailers {
            encoder.field(b"te", b"trailers", Indexing::Store, out);
        }
        put_added::<Client>(encoder, rewrite.add, extended, out);

        let ends = !rewrite.framing.has_body() && !connect;
        frame::frame_block(out, start, id, ends, FRAME_SIZE_DEFAULT as usize);
        self.next_id += 2;
        let outgoing = if ends { Outgoing::Ended } else { Outgoing::Content };
        let mut stream = Stream::new(id, Incoming::Head, outgoing);
        stream.method = if extended { Method::Connect } else { head.method };
        stream.connect = connect;
        stream.extended = extended;
        stream.upgrade = extended.then(|| upgrade.into());
        stream.outgoing_left = super::blocks::promised(rewrite.framing);
        stream.send_window = self.peer.initial_window_size as i32;
        stream.receive_window = self.receive_window_initial();
        self.streams.insert(stream);
        Ok(StreamId(id))
    }
}

impl Connection<Server> {
    /// Puts a final response's head. A response without content ends with it. 101, which HTTP/2 has not, grants an extended
    /// CONNECT, and is sent as 200 (RFC 8441 §5).
    ///
    /// # Errors
    /// [`Refused::Gone`]: no response is due on this stream, or 101 was not asked for; [`Refused::Field`]: what was added breaks the
    /// message. Nothing was put.
    pub fn write_response(
        &mut self,
        stream: StreamId,
        bytes: &[u8],
        head: &ResponseHead,
        fields: &Fields,
        rewrite: &ResponseRewrite<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        let slot = self.answering(stream)?;
        let switching = head.status == Status::SWITCHING_PROTOCOLS;
        if switching && !self.streams[slot].extended || head.status.is_interim() {
            return Err(Refused::Gone);
        }
        check_added(rewrite.add)?;
        let mut without = NEVER_SENT.union(rewrite.without).with(Known::Te);
        let misplaced = head.status.code() < 200 || head.status == Status::NO_CONTENT;
        let copied = rewrite.framing == head.framing && !misplaced;
        if !copied {
            without.insert(Known::ContentLength);
        }
        let copied = copied && !without.contains(Known::ContentLength) && fields.has(Known::ContentLength);
        let start = begin(&mut self.encoder, out);
        put_status(&mut self.encoder, if switching { Status::OK } else { head.status }, out);
        put_fields::<Server>(&mut self.encoder, bytes, fields, without, switching, out);
        if !copied
            && !switching
            && let Framing::Length(length) = rewrite.framing
        {
            put_length(&mut self.encoder, length, out);
        }
        put_added::<Server>(&mut self.encoder, rewrite.add, switching, out);
        let granted = self.streams[slot].connect && (switching || head.status.is_success());
        self.begin_content(slot, start, rewrite.framing, granted, out);
        Ok(())
    }

    /// Puts an interim response's head (1xx other than 101).
    ///
    /// # Errors
    /// [`Refused::Gone`]: no response is due on this stream.
    pub fn write_interim(
        &mut self,
        stream: StreamId,
        bytes: &[u8],
        head: &ResponseHead,
        fields: &Fields,
        out: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        self.answering(stream)?;
        if !head.status.is_interim() {
            return Err(Refused::Gone);
        }
        let start = begin(&mut self.encoder, out);
        put_status(&mut self.encoder, head.status, out);
        let without = NEVER_SENT.with(Known::Te).with(Known::ContentLength);
        put_fields::<Server>(&mut self.encoder, bytes, fields, without, false, out);
        frame::frame_block(out, start, stream.0, false, FRAME_SIZE_DEFAULT as usize);
        Ok(())
    }

    /// Puts the head of a response of our own; its body, if [`Respond::framing`] says that it goes, is to be queued like any other.
    ///
    /// # Errors
    /// As [`Connection::write_response`].
    pub fn respond(&mut self, stream: StreamId, respond: &Respond<'_>, out: &mut Vec<u8>) -> Result<(), Refused> {
        let slot = self.answering(stream)?;
        check_added(respond.add)?;
        if !is_field_value(respond.content_type) {
            return Err(Refused::Field);
        }
        let start = begin(&mut self.encoder, out);
        let encoder = &mut self.encoder;
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
        let granted = self.streams[slot].connect && respond.status.is_success();
        self.begin_content(slot, start, respond.framing(), granted, out);
        Ok(())
    }

    fn answering(&self, stream: StreamId) -> Result<usize, Refused> {
        let slot = self.live(stream).filter(|&slot| self.streams[slot].outgoing == Outgoing::Head);
        slot.ok_or(Refused::Gone)
    }

    /// Frames the head that `out` holds from `start` on.
    fn begin_content(&mut self, slot: usize, start: usize, framing: Framing, granted: bool, out: &mut Vec<u8>) {
        let ends = !framing.has_body() && !granted;
        let stream = &mut self.streams[slot];
        frame::frame_block(out, start, stream.id, ends, FRAME_SIZE_DEFAULT as usize);
        stream.outgoing = Outgoing::Content;
        stream.connect = granted;
        stream.outgoing_left = if granted { UNKNOWN } else { super::blocks::promised(framing) };
        if ends {
            self.end_outgoing(slot, out);
        }
    }
}

impl<R: Role> Connection<R> {
    /// Ends a message with trailers. Everything that was queued must have gone.
    ///
    /// # Errors
    /// [`Refused::Length`]: the head promised more content, and the stream was reset; [`Refused::Field`]: a name or value breaks the
    /// message; [`Refused::Gone`]: no trailers can stand here, or content still waits. Nothing was put in those two.
    pub fn write_trailers<'a>(
        &mut self,
        stream: StreamId,
        trailers: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
        out: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        let Some(slot) = self.live(stream) else { return Err(Refused::Gone) };
        let entry = &self.streams[slot];
        if entry.outgoing != Outgoing::Content || entry.queued > 0 || entry.connect {
            return Err(Refused::Gone);
        }
        if !matches!(entry.outgoing_left, 0 | UNKNOWN) {
            self.reset(stream, crate::h2::ErrorCode::INTERNAL_ERROR, out);
            return Err(Refused::Length);
        }
        if !trailers.clone().all(|(name, value)| is_token(name) && is_field_value(value)) {
            return Err(Refused::Field);
        }
        let start = begin(&mut self.encoder, out);
        for (name, value) in trailers {
            let known = Known::from_name(name);
            self.encoder.field(name, value, indexing::<R>(known, name, value, false), out);
        }
        frame::frame_block(out, start, stream.0, true, FRAME_SIZE_DEFAULT as usize);
        self.end_outgoing(slot, out);
        Ok(())
    }
}

/// What HTTP/2 has not (RFC 9113 §8.2.2), or what is written from the verdict.
const NEVER_SENT: KnownSet = KnownSet::of(&[
    Known::Connection,
    Known::Http2Settings,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::TransferEncoding,
    Known::Upgrade,
]);

/// Begins a field block behind room for a frame's head; returns where.
fn begin(encoder: &mut Encoder, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; FrameHead::LEN]);
    encoder.begin(out);
    start
}

/// The request's target as `:path` has it (RFC 9113 §8.3.1).
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

fn check_added(add: &[(&[u8], &[u8])]) -> Result<(), Refused> {
    let whole = add.iter().all(|(name, value)| is_token(name) && is_field_value(value));
    if whole { Ok(()) } else { Err(Refused::Field) }
}

/// `switching` leaves out the handshake of a WebSocket, which extended CONNECT replaces (RFC 8441 §5).
fn put_fields<R: Role>(
    encoder: &mut Encoder,
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
fn put_cookie(encoder: &mut Encoder, value: &[u8], sensitive: bool, out: &mut Vec<u8>) {
    let how = if sensitive || value.len() < COOKIE_PART { Indexing::Never } else { Indexing::Pass };
    encoder.field(b"cookie", value, how, out);
}

fn is_handshake(name: &[u8]) -> bool {
    const FIELDS: [&[u8]; 2] = [b"sec-websocket-key", b"sec-websocket-accept"];
    FIELDS.iter().any(|field| name.eq_ignore_ascii_case(field))
}

/// `switching` as in [`put_fields`].
fn put_added<R: Role>(encoder: &mut Encoder, add: &[(&[u8], &[u8])], switching: bool, out: &mut Vec<u8>) {
    for (name, value) in add.iter().filter(|(name, _)| !switching || !is_handshake(name)) {
        encoder.field(name, value, indexing::<R>(Known::from_name(name), name, value, false), out);
    }
}

fn put_status(encoder: &mut Encoder, status: Status, out: &mut Vec<u8>) {
    put_number(encoder, b":status", u64::from(status.code()), out);
}

fn put_length(encoder: &mut Encoder, length: u64, out: &mut Vec<u8>) {
    put_number(encoder, b"content-length", length, out);
}

fn put_number(encoder: &mut Encoder, name: &[u8], value: u64, out: &mut Vec<u8>) {
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
    if keep { Indexing::Store } else { Indexing::Pass }
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
        use Indexing::{Never, Pass, Store};
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
            ("x-forwarded-for", "192.0.2.1", Pass, Store),
        ] {
            assert_eq!(how::<Client>(name, value), to_origin, "{name} to an origin");
            assert_eq!(how::<Server>(name, value), to_client, "{name} to a client");
        }
        assert_eq!(indexing::<Server>(Known::Other, b"x", b"y", true), Never, "as it came");
    }
}
