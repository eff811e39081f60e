//! Heads and trailers as they leave, in field blocks (RFC 9113 §8.2, §8.3).

use super::Connection;
use crate::h1::{Refused, RequestHead, RequestRewrite, Respond, ResponseHead, ResponseRewrite};
use crate::h2::StreamId;
use crate::h2::frame::{self, FrameHead};
use crate::h2::hpack::Encoder;
use crate::h2::settings::FRAME_SIZE_DEFAULT;
use crate::h2::streams::{Incoming, Outgoing, Stream, UNKNOWN};
use crate::http::{Fields, Framing, Method, Status};
use crate::multiplexed::compose::{self, Asked};
use crate::multiplexed::head::promised;
use crate::multiplexed::repeat::{Made, Pairs, Repeat, Terms};
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
        if !self.can_open() {
            return Err(Refused::Gone);
        }
        let asked = Asked::new(bytes, head, fields, rewrite);
        let (id, extended) = (self.next_id, asked.is_extended());
        if extended && !self.peer.enable_connect_protocol {
            return Err(Refused::Gone);
        }
        let RequestRewrite { framing, without, te_trailers, upgrade, add, .. } = *rewrite;
        let terms = Terms::Request { head: *head, framing, without, te_trailers, upgrade };
        let texts = [Some(bytes), rewrite.target, rewrite.host];
        let made = Made { terms, texts: &texts, fields: Some(fields), pairs: add.iter().copied() };
        let start = put_block(&mut self.head_written, &mut self.encoder, &made, out, |encoder, out| {
            asked.check()?;
            encoder.begin(out);
            asked.put(self.limits.secure, encoder, out);
            Ok(())
        })?;
        let ends = !asked.goes_on();
        frame::frame_block(out, start, id, ends, FRAME_SIZE_DEFAULT as usize);
        self.next_id += 2;
        let outgoing = if ends { Outgoing::Ended } else { Outgoing::Content };
        let mut stream = Stream::new(id, Incoming::Head, outgoing);
        stream.method = if extended { Method::Connect } else { head.method };
        stream.connect = asked.is_connect();
        stream.extended = extended;
        stream.upgrade = extended.then(|| asked.upgrade.into());
        stream.outgoing_left = promised(rewrite.framing);
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
        let ResponseRewrite { framing, without, add, .. } = *rewrite;
        let terms = Terms::Response { head: *head, framing, without };
        let texts = [Some(bytes)];
        let made = Made { terms, texts: &texts, fields: Some(fields), pairs: add.iter().copied() };
        let start = put_block(&mut self.head_written, &mut self.encoder, &made, out, |encoder, out| {
            compose::check_added(add)?;
            encoder.begin(out);
            compose::put_response(encoder, bytes, head, fields, rewrite, out);
            Ok(())
        })?;
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
        compose::put_interim(&mut self.encoder, bytes, head, fields, out);
        frame::frame_block(out, start, stream.0, false, FRAME_SIZE_DEFAULT as usize);
        Ok(())
    }

    /// Puts the head of a response of our own; its body, if [`Respond::framing`] says that it goes, is to be queued like any other.
    ///
    /// # Errors
    /// As [`Connection::write_response`].
    pub fn respond(&mut self, stream: StreamId, respond: &Respond<'_>, out: &mut Vec<u8>) -> Result<(), Refused> {
        let slot = self.answering(stream)?;
        compose::check_respond(respond)?;
        let start = begin(&mut self.encoder, out);
        compose::put_respond(&mut self.encoder, respond, out);
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
        stream.outgoing_left = if granted { UNKNOWN } else { promised(framing) };
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
        let made = Made { terms: Terms::Trailers, texts: &[], fields: None, pairs: trailers.clone() };
        let start = put_block(&mut self.trailers_written, &mut self.encoder, &made, out, |encoder, out| {
            compose::check_trailers(trailers.clone())?;
            encoder.begin_trailers(out);
            compose::put_trailers::<R>(encoder, trailers, out);
            Ok(())
        })?;
        frame::frame_block(out, start, stream.0, true, FRAME_SIZE_DEFAULT as usize);
        self.end_outgoing(slot, out);
        Ok(())
    }
}

/// Puts a block behind room for a frame's head, as `compose` makes it, unless it is the last one again; returns where.
///
/// # Errors
/// As `compose` has it, and nothing was put.
fn put_block<'t>(
    written: &mut Option<Box<Repeat>>,
    encoder: &mut Encoder,
    made: &Made<'_, impl Pairs<'t>>,
    out: &mut Vec<u8>,
    compose: impl FnOnce(&mut Encoder, &mut Vec<u8>) -> Result<(), Refused>,
) -> Result<usize, Refused> {
    let (start, changes) = (room(out), encoder.changes());
    if let Some(block) = written.as_ref().and_then(|last| last.find(made, changes)) {
        out.extend_from_slice(block);
        return Ok(start);
    }
    compose(encoder, out).inspect_err(|_| out.truncate(start))?;
    let last = written.get_or_insert_with(|| Box::new(Repeat::new()));
    last.learn(made, changes, &out[start + FrameHead::LEN..]);
    Ok(start)
}

/// Begins a head's block behind room for a frame's head; returns where.
fn begin(encoder: &mut Encoder, out: &mut Vec<u8>) -> usize {
    let start = room(out);
    encoder.begin(out);
    start
}

/// Leaves room for a frame's head; returns where.
fn room(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; FrameHead::LEN]);
    start
}
