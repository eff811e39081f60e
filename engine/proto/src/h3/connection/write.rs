//! Heads, content and ends as they leave (RFC 9114 §4.1).

use super::{Connection, datagram};
use crate::h1::{Refused, RequestHead, RequestRewrite, Respond, ResponseHead, ResponseRewrite, Trailers};
use crate::h3::error::ErrorCode;
use crate::h3::frame::{DataHead, Kind};
use crate::h3::qpack::{Encoder, Prefix, References, Writer};
use crate::h3::streams::{Outgoing, Stream};
use crate::h3::{Out, StreamId};
use crate::http::{Fields, Framing, Method, Status};
use crate::multiplexed::compose::{self, Asked};
use crate::multiplexed::head::{UNKNOWN, promised};
use crate::multiplexed::repeat::{Made, Pairs, Repeat, Terms};
use crate::role::{Client, Role, Server};

impl Connection<Client> {
    /// Begins a request on a stream that the caller has opened for it, by appending its head to the stream's bytes. `bytes` are those that
    /// `head` and `fields` were read from, by whichever protocol; the rewrite means what it means to
    /// [`write_request`](crate::h1::write_request), but for the connection's own fields, which HTTP/3 has not. A request without content
    /// ends with its head: if the stream is not [writable](Self::is_writable) then, put its end.
    ///
    /// An upgrade becomes extended CONNECT (RFC 9220), if the server takes that.
    ///
    /// # Errors
    /// [`Refused::Gone`]: no request can begin, or the upgrade not be asked for; [`Refused::Field`]: what was added breaks the
    /// message. Nothing was put, and another request may be tried on the stream.
    #[allow(clippy::too_many_arguments, reason = "what HTTP/2's has, and where it goes")]
    pub fn write_request(
        &mut self,
        stream: StreamId,
        bytes: &[u8],
        head: &RequestHead,
        fields: &Fields,
        rewrite: &RequestRewrite<'_>,
        to: &mut Vec<u8>,
        out: &mut Out,
    ) -> Result<(), Refused> {
        if !self.can_open() || !stream.is_request() || self.streams.find(stream.0).is_some() {
            return Err(Refused::Gone);
        }
        let asked = Asked::new(bytes, head, fields, rewrite);
        let extended = asked.is_extended();
        if extended && !self.peer.enable_connect_protocol {
            return Err(Refused::Gone);
        }
        let RequestRewrite { framing, without, te_trailers, upgrade, add, .. } = *rewrite;
        let terms = Terms::Request { head: *head, framing, without, te_trailers, upgrade };
        let texts = [Some(bytes), rewrite.target, rewrite.host];
        let made = Made { terms, texts: &texts, fields: Some(fields), pairs: add.iter().copied() };
        put_section(&mut self.head_written, &mut self.encoder, stream, &made, to, out, |section, to| {
            asked.check()?;
            asked.put(true, section, to);
            Ok(())
        })?;
        let outgoing = if asked.goes_on() { Outgoing::Content } else { Outgoing::Ended };
        let mut entry = Stream::new(stream.0, outgoing);
        entry.method = if extended { Method::Connect } else { head.method };
        entry.connect = asked.is_connect();
        entry.extended = extended;
        entry.datagrams = datagram::has_use(asked.upgrade);
        entry.upgrade = extended.then(|| asked.upgrade.into());
        entry.outgoing_left = promised(rewrite.framing);
        self.streams.insert(stream.0, entry);
        Ok(())
    }
}

impl Connection<Server> {
    /// Appends a final response's head to the stream's bytes. A response without content ends with it: if the stream is not
    /// [writable](Self::is_writable) then, put its end. 101, which HTTP/3 has not, grants an extended CONNECT, and is sent as 200.
    ///
    /// # Errors
    /// [`Refused::Gone`]: no response is due on this stream, or 101 was not asked for; [`Refused::Field`]: what was added breaks the
    /// message. Nothing was put.
    #[allow(clippy::too_many_arguments, reason = "what HTTP/2's has, and where it goes")]
    pub fn write_response(
        &mut self,
        stream: StreamId,
        bytes: &[u8],
        head: &ResponseHead,
        fields: &Fields,
        rewrite: &ResponseRewrite<'_>,
        to: &mut Vec<u8>,
        out: &mut Out,
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
        put_section(&mut self.head_written, &mut self.encoder, stream, &made, to, out, |section, to| {
            compose::check_added(add)?;
            compose::put_response(section, bytes, head, fields, rewrite, to);
            Ok(())
        })?;
        let granted = self.streams[slot].connect && (switching || head.status.is_success());
        self.begin_content(slot, rewrite.framing, granted, out);
        Ok(())
    }

    /// Appends an interim response's head (1xx other than 101) to the stream's bytes.
    ///
    /// # Errors
    /// [`Refused::Gone`]: no response is due on this stream.
    pub fn write_interim(
        &mut self,
        stream: StreamId,
        bytes: &[u8],
        head: &ResponseHead,
        fields: &Fields,
        to: &mut Vec<u8>,
        out: &mut Out,
    ) -> Result<(), Refused> {
        self.answering(stream)?;
        if !head.status.is_interim() {
            return Err(Refused::Gone);
        }
        let start = begin(to);
        let mut section = self.encoder.section(stream.0, &mut out.encoder);
        compose::put_interim(&mut section, bytes, head, fields, to);
        close(to, start, section.finish());
        Ok(())
    }

    /// Appends the head of a response of our own; its body, if [`Respond::framing`] says that it goes, is to follow like any other.
    ///
    /// # Errors
    /// As [`Connection::write_response`].
    pub fn respond(
        &mut self,
        stream: StreamId,
        respond: &Respond<'_>,
        to: &mut Vec<u8>,
        out: &mut Out,
    ) -> Result<(), Refused> {
        let slot = self.answering(stream)?;
        compose::check_respond(respond)?;
        let start = begin(to);
        let mut section = self.encoder.section(stream.0, &mut out.encoder);
        compose::put_respond(&mut section, respond, to);
        close(to, start, section.finish());
        let granted = self.streams[slot].connect && respond.status.is_success();
        self.begin_content(slot, respond.framing(), granted, out);
        Ok(())
    }

    fn answering(&self, stream: StreamId) -> Result<usize, Refused> {
        let due = |&slot: &usize| {
            let stream = &self.streams[slot];
            stream.outgoing == Outgoing::Head && stream.is_asked()
        };
        self.live(stream).filter(due).ok_or(Refused::Gone)
    }

    /// The head has been put.
    fn begin_content(&mut self, slot: usize, framing: Framing, granted: bool, out: &mut Out) {
        let stream = &mut self.streams[slot];
        stream.outgoing = Outgoing::Content;
        stream.connect = granted;
        stream.outgoing_left = if granted { UNKNOWN } else { promised(framing) };
        if !framing.has_body() && !granted {
            self.end_outgoing(slot, out);
        }
    }
}

impl<R: Role> Connection<R> {
    /// What is to be written before so many bytes of content, which follow it on the stream; the caller keeps both until QUIC takes them.
    /// Nothing for no content.
    ///
    /// # Errors
    /// [`Refused::Length`]: more than the head promised, and the stream was reset; [`Refused::Gone`]: it takes no content, because it is
    /// over or the peer [wants no more](Self::peer_stopped).
    #[inline]
    pub fn data_head(&mut self, stream: StreamId, content: usize, out: &mut Out) -> Result<DataHead, Refused> {
        let slot = self.live(stream).filter(|&slot| self.streams[slot].outgoing == Outgoing::Content);
        let entry = &mut self.streams[slot.ok_or(Refused::Gone)?];
        if entry.outgoing_left != UNKNOWN {
            let Some(left) = entry.outgoing_left.checked_sub(content as u64) else {
                self.reset(stream, ErrorCode::INTERNAL_ERROR, out);
                return Err(Refused::Length);
            };
            entry.outgoing_left = left;
        }
        if content > 0 {
            self.ledger.data_sent();
        }
        Ok(DataHead::new(content as u64))
    }

    /// The message is complete with the content of which [`Connection::data_head`] was asked, and with `trailers`, which are appended to the
    /// stream's bytes if there are any: behind all its content, and before its end, which the caller puts. A message that has ended
    /// already, as one whose head promised no content, is no error.
    ///
    /// A server that is done before its client tells it, with H3_NO_ERROR, that the rest of the request is not wanted (§4.1).
    ///
    /// # Errors
    /// [`Refused::Length`]: the head promised more, and the stream was reset, so that the peer notices; [`Refused::Gone`]: there is
    /// no such message; [`Refused::Field`]: a trailer breaks the message, and nothing was put.
    pub fn finish(
        &mut self,
        stream: StreamId,
        trailers: &Trailers,
        to: &mut Vec<u8>,
        out: &mut Out,
    ) -> Result<(), Refused> {
        let slot = self.live(stream).ok_or(Refused::Gone)?;
        let entry = &self.streams[slot];
        match entry.outgoing {
            Outgoing::Head => return Err(Refused::Gone),
            Outgoing::Ended => return Ok(()),
            Outgoing::Content => {}
        }
        if !matches!(entry.outgoing_left, 0 | UNKNOWN) {
            self.reset(stream, ErrorCode::INTERNAL_ERROR, out);
            return Err(Refused::Length);
        }
        // A tunnel has none (§4.4).
        if !trailers.is_empty() && !entry.connect {
            let made = Made { terms: Terms::Trailers, texts: &[], fields: None, pairs: trailers.iter() };
            put_section(&mut self.trailers_written, &mut self.encoder, stream, &made, to, out, |section, to| {
                compose::check_trailers(trailers.iter())?;
                compose::put_trailers::<R>(section, trailers.iter(), to);
                Ok(())
            })?;
        }
        self.end_outgoing(slot, out);
        Ok(())
    }

    fn end_outgoing(&mut self, slot: usize, out: &mut Out) {
        let stream = &mut self.streams[slot];
        stream.outgoing = Outgoing::Ended;
        if R::ANSWERS && !stream.connect && stream.may_say_more() {
            let deaf = stream.deaf;
            self.stop(slot, ErrorCode::NO_ERROR, out);
            if !deaf {
                self.ledger.exchange_completed();
            }
            self.remove(slot);
            return;
        }
        self.settle(slot);
    }
}

/// The last section of one sort that was written, in its frame.
#[derive(Debug)]
pub(super) struct Written {
    last: Repeat,
    references: References,
}

impl Written {
    pub(super) fn memory(&self) -> usize {
        size_of::<Self>() - size_of::<Repeat>() + self.last.memory()
    }
}

/// Puts a section in its frame, as `compose` makes it, unless it is the last one again.
///
/// # Errors
/// As `compose` has it, and nothing was put.
fn put_section<'t>(
    written: &mut Option<Box<Written>>,
    encoder: &mut Encoder,
    stream: StreamId,
    made: &Made<'_, impl Pairs<'t>>,
    to: &mut Vec<u8>,
    out: &mut Out,
    compose: impl FnOnce(&mut Writer<'_>, &mut Vec<u8>) -> Result<(), Refused>,
) -> Result<(), Refused> {
    let changes = encoder.changes();
    if let (Some(changes), Some(written)) = (changes, &*written)
        && let Some(frame) = written.last.find(made, changes)
    {
        to.extend_from_slice(frame);
        encoder.refer_again(stream.0, written.references);
        return Ok(());
    }
    let start = begin(to);
    let mut section = encoder.section(stream.0, &mut out.encoder);
    compose(&mut section, to).inspect_err(|_| to.truncate(start))?;
    let references = section.references();
    close(to, start, section.finish());
    if let Some(changes) = changes {
        let written = written.get_or_insert_with(|| Box::new(Written { last: Repeat::new(), references }));
        written.last.learn(made, changes, &to[start..]);
        written.references = references;
    }
    Ok(())
}

/// What stands before a section's lines: the frame's type, its length in at most four bytes, and the section's prefix.
const ROOM: usize = 1 + 4 + Prefix::LEN_MAX;

/// Begins a field section behind room for what stands before it; returns where.
fn begin(to: &mut Vec<u8>) -> usize {
    let start = to.len();
    to.extend_from_slice(&[0; ROOM]);
    start
}

/// Puts a frame's head and the section's prefix before the lines that begin behind the room at `start`.
fn close(to: &mut Vec<u8>, start: usize, prefix: Prefix) {
    let lines = start + ROOM;
    let length = (to.len() - lines + prefix.len()) as u64;
    let mut before = [0; ROOM];
    before[0] = Kind::Headers.number() as u8;
    // As a DATA frame's, but for the type.
    let head = DataHead::new(length);
    before[1..head.len()].copy_from_slice(&head[1..]);
    before[head.len()..head.len() + prefix.len()].copy_from_slice(&prefix);
    let before = &before[..head.len() + prefix.len()];
    to[start..start + before.len()].copy_from_slice(before);
    to.copy_within(lines.., start + before.len());
    to.truncate(to.len() - (ROOM - before.len()));
}
