//! Field blocks as they arrive: requests, responses and trailers (RFC 9113 §8).

use std::time::Duration;

use super::read::WholeBlock;
use super::{Connection, Going, Input, Said, Step};
use crate::h1::{RequestHead, ResponseHead, Trailers};
use crate::h2::error::{ErrorCode, Fault};
use crate::h2::frame;
use crate::h2::hpack::{Corrupt, Encoded};
use crate::h2::ledger::Offence;
use crate::h2::settings::WINDOW_DEFAULT;
use crate::h2::streams::{Incoming, Outgoing, Past, Stream, UNKNOWN};
use crate::h2::{Priority, StreamId};
use crate::http::{Framing, Method, Version};
use crate::multiplexed::HeadSpace;
use crate::multiplexed::head::{self, INTERIMS_MAX, RequestRules, ResponseRules, is_answerable, promised};
use crate::multiplexed::recall::{Recall, Terms};
use crate::role::{Client, Role, Server};
use crate::{Event, Malformed};

impl Connection<Server> {
    /// Reads the next step of the requests, from all bytes that are unread.
    ///
    /// # Errors
    /// What the client did wrong. The connection has ended, and GOAWAY has been put: send it, and close.
    #[inline]
    pub fn read(
        &mut self,
        now: Duration,
        bytes: &[u8],
        space: &mut HeadSpace,
        out: &mut Vec<u8>,
    ) -> Result<Step<RequestHead>, Fault> {
        self.read_with(now, bytes, out, |connection, block, out| connection.take_request(block, space, out))
    }

    fn take_request(
        &mut self,
        block: WholeBlock<'_>,
        space: &mut HeadSpace,
        out: &mut Vec<u8>,
    ) -> Result<Option<Said<RequestHead>>, Fault> {
        if block.stream <= self.last_peer {
            return self.take_trailers(block, space, out);
        }
        self.last_peer = block.stream;
        if matches!(self.going, Going::Final(_)) {
            // We said that we would not look at it (RFC 9113 §6.8); it is safe elsewhere.
            self.discard(block.bytes, space)?;
            self.ledger.charge(block.now_ms, Offence::Refused)?;
            self.recent.push(block.stream, Past::ByUs);
            return Ok(None);
        }
        if self.is_full() {
            self.discard(block.bytes, space)?;
            self.ledger.charge(block.now_ms, Offence::Refused)?;
            frame::put_reset(out, block.stream, ErrorCode::REFUSED_STREAM);
            self.recent.push(block.stream, Past::ByUs);
            return Ok(None);
        }
        let rules = RequestRules {
            version: Version::Http2,
            limits: &self.limits.heads,
            end_stream: block.end_stream,
            connect_protocol: self.limits.connect_protocol,
        };
        let changes = self.decoder.changes();
        let terms = Terms { changes, end_stream: block.end_stream, method: Method::Other };
        let read = match self.recalled(&block, terms, space) {
            Some(head) => Ok(head),
            None => {
                let encoded = Encoded { decoder: &mut self.decoder, bytes: block.bytes };
                let read = head::read_request(encoded, &rules, space).map_err(compression)?;
                read.inspect(|head| self.learn(&block, terms, *head, space))
            }
        };
        let incoming = if block.end_stream { Incoming::Ended } else { Incoming::Content };
        let mut stream = Stream::new(block.stream, incoming, Outgoing::Head);
        let id = StreamId(block.stream);
        let head = match read {
            Ok(head) => head,
            Err(why) if is_answerable(why) => {
                stream.deaf = true;
                self.open(stream);
                return Ok(Some(Said::Refused { stream: id, why, answerable: true }));
            }
            Err(why) => {
                self.ledger.charge(block.now_ms, Offence::MadeReset)?;
                frame::put_reset(out, block.stream, ErrorCode::PROTOCOL_ERROR);
                self.recent.push(block.stream, Past::ByUs);
                return Ok(Some(Said::Refused { stream: id, why, answerable: false }));
            }
        };
        stream.method = head.method;
        stream.connect = head.method == Method::Connect || !head.upgrade.is_empty();
        stream.extended = !head.upgrade.is_empty();
        stream.incoming_left = promised(head.framing);
        if let Some(field) = space.fields.find(b"priority", &space.text) {
            stream.priority = Priority::parse(field.value.of(&space.text));
        }
        // The frame speaks later than the field, wherever it stands (RFC 9218 §7).
        if let Some((_, priority)) = self.early.iter().find(|(early, _)| *early == block.stream) {
            stream.priority = *priority;
        }
        self.open(stream);
        if block.end_stream {
            self.input = Input::End { stream: block.stream, trailers: false };
        }
        Ok(Some(Said::Stream(id, Event::Head(head))))
    }
}

impl Connection<Client> {
    /// Reads the next step of the responses, from all bytes that are unread. Interim responses come as heads of their own.
    ///
    /// # Errors
    /// What the server did wrong. The connection has ended, and GOAWAY has been put: send it, and close.
    #[inline]
    pub fn read(
        &mut self,
        now: Duration,
        bytes: &[u8],
        space: &mut HeadSpace,
        out: &mut Vec<u8>,
    ) -> Result<Step<ResponseHead>, Fault> {
        self.read_with(now, bytes, out, |connection, block, out| connection.take_response(block, space, out))
    }

    fn take_response(
        &mut self,
        block: WholeBlock<'_>,
        space: &mut HeadSpace,
        out: &mut Vec<u8>,
    ) -> Result<Option<Said<ResponseHead>>, Fault> {
        let id = StreamId(block.stream);
        let waiting = self.live(id).filter(|&slot| self.streams[slot].incoming == Incoming::Head);
        let Some(slot) = waiting else { return self.take_trailers(block, space, out) };
        let stream = &self.streams[slot];
        let rules = ResponseRules {
            version: Version::Http2,
            limits: &self.limits.heads,
            end_stream: block.end_stream,
            request_was: stream.method,
            upgrade: stream.upgrade.as_deref(),
        };
        let changes = self.decoder.changes();
        let terms = Terms { changes, end_stream: block.end_stream, method: stream.method };
        let read = match self.recalled(&block, terms, space).filter(|_| !stream.extended) {
            Some(head) => Ok(head),
            None => {
                let encoded = Encoded { decoder: &mut self.decoder, bytes: block.bytes };
                let read = head::read_response(encoded, &rules, space).map_err(compression)?;
                let plain = rules.upgrade.is_none();
                read.inspect(|head| {
                    if plain {
                        self.learn(&block, terms, *head, space)
                    }
                })
            }
        };
        let head = match read {
            Ok(head) => head,
            Err(why) => {
                return self.break_stream(block.now_ms, block.stream, ErrorCode::PROTOCOL_ERROR, why, out);
            }
        };
        let stream = &mut self.streams[slot];
        if head.status.is_interim() {
            stream.interims += 1;
            if stream.interims > INTERIMS_MAX {
                let why = Malformed::TooManyInterim;
                return self.break_stream(block.now_ms, block.stream, ErrorCode::ENHANCE_YOUR_CALM, why, out);
            }
            return Ok(Some(Said::Stream(id, Event::Head(head))));
        }
        // A CONNECT that was not granted is answered like anything else.
        stream.connect &= head.status.is_success() || !head.upgrade.is_empty();
        stream.incoming = if block.end_stream { Incoming::Ended } else { Incoming::Content };
        let no_content = head.framing == Framing::None && !stream.connect;
        stream.incoming_left = if no_content { 0 } else { promised(head.framing) };
        if block.end_stream {
            self.input = Input::End { stream: block.stream, trailers: false };
        }
        Ok(Some(Said::Stream(id, Event::Head(head))))
    }
}

impl<R: Role> Connection<R> {
    /// The head that a block means, if it is the same again.
    #[inline]
    fn recalled(&self, block: &WholeBlock<'_>, terms: Terms, space: &mut HeadSpace) -> Option<R::Head> {
        self.recall.as_ref()?.find(block.bytes, terms, space)
    }

    /// A block has been read for what it means.
    fn learn(&mut self, block: &WholeBlock<'_>, terms: Terms, head: R::Head, space: &HeadSpace) {
        let recall = self.recall.get_or_insert_with(|| Box::new(Recall::new()));
        recall.learn(block.bytes, terms, self.decoder.changes(), head, space);
    }

    /// A block on a stream that has had its head: trailers, or nothing good.
    fn take_trailers(
        &mut self,
        block: WholeBlock<'_>,
        space: &mut HeadSpace,
        out: &mut Vec<u8>,
    ) -> Result<Option<Said<R::Head>>, Fault> {
        let slot = self.streams.find(block.stream).filter(|&slot| !self.streams[slot].broken);
        let Some(slot) = slot else {
            self.discard(block.bytes, space)?;
            self.take_late(block.now_ms, block.stream, out)?;
            return Ok(None);
        };
        let stream = &self.streams[slot];
        if stream.deaf && stream.incoming == Incoming::Content {
            self.discard(block.bytes, space)?;
            if block.end_stream {
                self.streams[slot].incoming = Incoming::Ended;
                self.settle(slot, out);
            }
            return Ok(None);
        }
        let refused = match stream.incoming {
            Incoming::Ended => Some((ErrorCode::STREAM_CLOSED, Malformed::Stream(ErrorCode::STREAM_CLOSED))),
            Incoming::Head => Some((ErrorCode::PROTOCOL_ERROR, Malformed::UnexpectedHead)),
            // RFC 9113 §8.1: whatever follows the head is the last of it; §8.5: a tunnel has none.
            Incoming::Content if !block.end_stream || stream.connect => {
                Some((ErrorCode::PROTOCOL_ERROR, Malformed::UnexpectedHead))
            }
            Incoming::Content if !matches!(stream.incoming_left, 0 | UNKNOWN) => {
                Some((ErrorCode::PROTOCOL_ERROR, Malformed::LengthMismatch))
            }
            Incoming::Content => None,
        };
        if let Some((code, why)) = refused {
            self.discard(block.bytes, space)?;
            return self.break_stream(block.now_ms, block.stream, code, why, out);
        }
        let trailers = match self.read_trailers(&block, space)? {
            Ok(trailers) => trailers,
            Err(why) => return self.break_stream(block.now_ms, block.stream, ErrorCode::PROTOCOL_ERROR, why, out),
        };
        self.streams[slot].incoming = Incoming::Ended;
        self.input = Input::End { stream: block.stream, trailers };
        Ok(None)
    }

    /// Whether there is any of them to be forwarded.
    fn read_trailers(&mut self, block: &WholeBlock<'_>, space: &mut HeadSpace) -> Result<head::Read<bool>, Fault> {
        let terms = Terms { changes: self.decoder.changes(), end_stream: true, method: Method::Other };
        let known = self.recall_trailers.as_ref().and_then(|recall| recall.find(block.bytes, terms, space));
        if let Some(trailers) = known {
            let any = !trailers.is_empty();
            space.set_trailers(trailers);
            return Ok(Ok(any));
        }
        let encoded = Encoded { decoder: &mut self.decoder, bytes: block.bytes };
        let read = head::read_trailers(encoded, &self.limits.heads, space).map_err(compression)?;
        if read.is_ok() {
            let (trailers, changes) = (Trailers::of(&space.text, &space.fields), self.decoder.changes());
            let recall = self.recall_trailers.get_or_insert_with(|| Box::new(Recall::new()));
            recall.learn(block.bytes, terms, changes, trailers.clone(), space);
            space.set_trailers(trailers);
        }
        Ok(read)
    }

    /// Reads a block for the table's sake only.
    fn discard(&mut self, bytes: &[u8], space: &mut HeadSpace) -> Result<(), Fault> {
        head::discard(Encoded { decoder: &mut self.decoder, bytes }, space).map_err(compression)
    }

    /// Whether the peer has opened all that it may. What was reset is none of those (RFC 9113 §5.1.2), so that a client which gives up and
    /// asks on is not refused; but work may still be behind it, so it is bounded too (CVE-2025-8671).
    fn is_full(&self) -> bool {
        let (all, most) = (self.streams.len(), usize::from(self.limits.streams));
        all - usize::from(self.broken) >= most || all >= 2 * most
    }

    fn open(&mut self, mut stream: Stream) {
        stream.send_window = self.peer.initial_window_size as i32;
        stream.receive_window = self.receive_window_initial();
        self.streams.insert(stream);
    }

    /// Of a new stream: until the peer has taken our settings in, it knows only the default.
    pub(super) fn receive_window_initial(&self) -> i32 {
        if self.settings_acknowledged { self.limits.stream_window as i32 } else { WINDOW_DEFAULT as i32 }
    }
}

/// RFC 9113 §4.3.
fn compression(corrupt: Corrupt) -> Fault {
    let why = match corrupt {
        Corrupt::Integer => "an integer overflows or is cut off (RFC 7541 5.1)",
        Corrupt::Index => "an index means nothing (RFC 7541 2.3.3)",
        Corrupt::Truncated => "a string is cut off (RFC 7541 5.2)",
        Corrupt::Huffman => "a Huffman code is wrong (RFC 7541 5.2)",
        Corrupt::SizeUpdate | Corrupt::Prefix => "a table size update is wrong (RFC 7541 4.2, 6.3)",
    };
    Fault { code: ErrorCode::COMPRESSION_ERROR, why }
}
