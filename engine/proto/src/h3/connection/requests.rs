//! Requests, responses and trailers as they arrive (RFC 9114 §4), and streams as they come and go.

use std::time::Duration;

use super::read::{WholeSection, decompression};
use super::{Abort, Connection, Going, Said, Step, UNTOLD_MAX, datagram, ms};
use crate::h1::{RequestHead, ResponseHead, Trailers};
use crate::h3::error::{ErrorCode, Fault};
use crate::h3::qpack::{Decoder, Section};
use crate::h3::streams::{Incoming, Outgoing, Stream};
use crate::h3::{HeadSpace, Out, Priority, StreamId};
use crate::http::{Framing, Method, Version};
use crate::multiplexed::head::{self, INTERIMS_MAX, RequestRules, ResponseRules, UNKNOWN, is_answerable, promised};
use crate::multiplexed::ledger::Offence;
use crate::multiplexed::recall::{Recall, Terms};
use crate::role::{Client, Role, Server};
use crate::{Event, Malformed};

impl Connection<Server> {
    /// Reads the next step of a stream, from all of its bytes that are unread; `fin` says that none will follow them. A stream of which
    /// the machine knows nothing (any more) has nothing to say.
    ///
    /// # Errors
    /// What the client did wrong. The connection has ended: close it with this.
    #[inline]
    pub fn read(
        &mut self,
        now: Duration,
        stream: StreamId,
        bytes: &[u8],
        fin: bool,
        space: &mut HeadSpace,
        out: &mut Out,
    ) -> Result<Step<RequestHead>, Fault> {
        self.read_with(now, Self::reading(now, stream, bytes, fin), space, out, Self::take_request)
    }

    fn take_request(
        &mut self,
        section: WholeSection<'_>,
        space: &mut HeadSpace,
        out: &mut Out,
    ) -> Result<Option<Said<RequestHead>>, Fault> {
        let WholeSection { now_ms, slot, end, bytes } = section;
        let rules = RequestRules {
            version: Version::Http3,
            limits: &self.limits.heads,
            end_stream: end,
            connect_protocol: self.limits.connect_protocol,
        };
        let stream = &mut self.streams[slot];
        let id = StreamId(stream.id);
        let section = ready(&self.decoder, bytes)?;
        let required = section.required();
        let terms = Terms { changes: self.decoder.changes(), end_stream: end, method: Method::Other };
        let read = match recalled(&self.recall, bytes, terms, space) {
            Some(head) => Ok(head),
            None => {
                let read = head::read_request(section, &rules, space).map_err(decompression)?;
                read.inspect(|head| learn(&mut self.recall, bytes, terms, *head, space))
            }
        };
        self.decoder.acknowledge(id.0, required, &mut out.decoder);
        let head = match read {
            Ok(head) => head,
            Err(why) if is_answerable(why) => {
                self.deafen(slot, out);
                return Ok(Some(Said::Refused { stream: id, why, answerable: true }));
            }
            Err(why) => {
                self.ledger.charge(now_ms, Offence::MadeReset)?;
                self.reset(id, ErrorCode::MESSAGE_ERROR, out);
                return Ok(Some(Said::Refused { stream: id, why, answerable: false }));
            }
        };
        stream.incoming = if end { Incoming::Complete } else { Incoming::Content };
        stream.method = head.method;
        stream.connect = head.method == Method::Connect || !head.upgrade.is_empty();
        stream.extended = !head.upgrade.is_empty();
        stream.datagrams = datagram::has_use(head.upgrade.of(&space.text));
        stream.incoming_left = promised(head.framing);
        if !stream.prioritised
            && let Some(field) = space.fields.find(b"priority", &space.text)
        {
            stream.priority = Priority::parse(field.value.of(&space.text));
        }
        Ok(Some(Said::Stream(id, Event::Head(head))))
    }
}

impl Connection<Client> {
    /// Reads the next step of a stream, from all of its bytes that are unread; `fin` says that none will follow them. Interim responses come
    /// as heads of their own. A stream of which the machine knows nothing (any more) has nothing to say.
    ///
    /// # Errors
    /// What the server did wrong. The connection has ended: close it with this.
    #[inline]
    pub fn read(
        &mut self,
        now: Duration,
        stream: StreamId,
        bytes: &[u8],
        fin: bool,
        space: &mut HeadSpace,
        out: &mut Out,
    ) -> Result<Step<ResponseHead>, Fault> {
        self.read_with(now, Self::reading(now, stream, bytes, fin), space, out, Self::take_response)
    }

    fn take_response(
        &mut self,
        section: WholeSection<'_>,
        space: &mut HeadSpace,
        out: &mut Out,
    ) -> Result<Option<Said<ResponseHead>>, Fault> {
        let WholeSection { now_ms, slot, end, bytes } = section;
        let stream = &mut self.streams[slot];
        let rules = ResponseRules {
            version: Version::Http3,
            limits: &self.limits.heads,
            end_stream: end,
            request_was: stream.method,
            upgrade: stream.upgrade.as_deref(),
        };
        let id = StreamId(stream.id);
        let section = ready(&self.decoder, bytes)?;
        let required = section.required();
        let terms = Terms { changes: self.decoder.changes(), end_stream: end, method: stream.method };
        let plain = rules.upgrade.is_none();
        let read = match recalled(&self.recall, bytes, terms, space).filter(|_| plain) {
            Some(head) => Ok(head),
            None => {
                let read = head::read_response(section, &rules, space).map_err(decompression)?;
                read.inspect(|head| {
                    if plain {
                        learn(&mut self.recall, bytes, terms, *head, space);
                    }
                })
            }
        };
        self.decoder.acknowledge(id.0, required, &mut out.decoder);
        let head = match read {
            Ok(head) => head,
            Err(why) => return self.break_stream(now_ms, slot, ErrorCode::MESSAGE_ERROR, why, out),
        };
        if head.status.is_interim() {
            stream.interims += 1;
            if stream.interims > INTERIMS_MAX {
                let why = Malformed::TooManyInterim;
                return self.break_stream(now_ms, slot, ErrorCode::EXCESSIVE_LOAD, why, out);
            }
            return Ok(Some(Said::Stream(id, Event::Head(head))));
        }
        // A CONNECT that was not granted is answered like anything else.
        stream.connect &= head.status.is_success() || !head.upgrade.is_empty();
        stream.incoming = if end { Incoming::Complete } else { Incoming::Content };
        let no_content = head.framing == Framing::None && !stream.connect;
        stream.incoming_left = if no_content { 0 } else { promised(head.framing) };
        Ok(Some(Said::Stream(id, Event::Head(head))))
    }
}

impl<R: Role> Connection<R> {
    /// The peer has opened a stream, of either sort. To be told before anything of it is read.
    ///
    /// # Errors
    /// It must not: the connection has ended.
    pub fn opened(&mut self, now: Duration, stream: StreamId, out: &mut Out) -> Result<(), Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        self.take_opened(ms(now), stream, out).inspect_err(|&fault| self.fault = Some(fault))
    }

    fn take_opened(&mut self, now_ms: u64, stream: StreamId, out: &mut Out) -> Result<(), Fault> {
        if !stream.is_bidirectional() {
            if self.untold.len() < UNTOLD_MAX {
                self.untold.push(stream.0);
                return Ok(());
            }
            out.aborts.push(Abort::Stop { stream, code: ErrorCode::STREAM_CREATION_ERROR });
            return self.ledger.charge(now_ms, Offence::Refused);
        }
        if !R::ANSWERS {
            return Err(Fault::new(ErrorCode::STREAM_CREATION_ERROR, "a server opens a request (RFC 9114 6.1)"));
        }
        if self.streams.find(stream.0).is_some() {
            return Ok(());
        }
        self.beyond = self.beyond.max(stream.0 + 4);
        let refused = matches!(self.going, Going::Final(first) if stream.0 >= first) || self.is_full();
        if refused {
            // We said that we would not look at it (RFC 9114 §5.2), or it is one too many; it is safe elsewhere.
            let code = ErrorCode::REQUEST_REJECTED;
            out.aborts.extend([Abort::Reset { stream, code }, Abort::Stop { stream, code }]);
            self.decoder.cancel(stream.0, &mut out.decoder);
            return self.ledger.charge(now_ms, Offence::Refused);
        }
        self.unopened = self.unopened.max(stream.0 + 4);
        let mut entry = Stream::new(stream.0, Outgoing::Head);
        if let Some((_, priority)) = self.early.iter().find(|(early, _)| *early == stream.0) {
            (entry.priority, entry.prioritised) = (*priority, true);
        }
        self.streams.insert(stream.0, entry);
        Ok(())
    }

    /// The peer has reset its part of a stream (RFC 9000 §19.4): what it had to say will never be complete.
    ///
    /// # Errors
    /// The connection could not live without it.
    pub fn peer_reset(
        &mut self,
        now: Duration,
        stream: StreamId,
        code: ErrorCode,
        out: &mut Out,
    ) -> Result<Option<Said<R::Head>>, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        if self.critical.contains(&Some(stream.0)) {
            return self.lose_critical();
        }
        self.untold.retain(|&other| other != stream.0);
        self.take_cancelled(ms(now), stream, code, out)
    }

    /// The peer will not read more of our part of a stream (RFC 9000 §19.5). Of a response that says that nobody wants it; of a request, that it
    /// need not go on, while the response may still come: such a stream is not [writable](Self::is_writable) any more.
    ///
    /// # Errors
    /// The connection could not live without it.
    pub fn peer_stopped(
        &mut self,
        now: Duration,
        stream: StreamId,
        code: ErrorCode,
        out: &mut Out,
    ) -> Result<Option<Said<R::Head>>, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        if !stream.is_bidirectional() {
            // All of ours are of that kind.
            return self.lose_critical();
        }
        if R::ANSWERS {
            return self.take_cancelled(ms(now), stream, code, out);
        }
        if let Some(slot) = self.live(stream)
            && self.streams[slot].outgoing != Outgoing::Ended
        {
            self.streams[slot].outgoing = Outgoing::Ended;
            // With its own code, as RFC 9000 §3.5 asks.
            out.aborts.push(Abort::Reset { stream, code });
            self.settle(slot);
        }
        Ok(None)
    }

    pub(super) fn lose_critical<T>(&mut self) -> Result<T, Fault> {
        let why = "a stream is closed that must not be (RFC 9114 6.2.1, RFC 9204 4.2)";
        let fault = Fault::new(ErrorCode::CLOSED_CRITICAL_STREAM, why);
        self.fault = Some(fault);
        Err(fault)
    }

    fn take_cancelled(
        &mut self,
        now_ms: u64,
        stream: StreamId,
        code: ErrorCode,
        out: &mut Out,
    ) -> Result<Option<Said<R::Head>>, Fault> {
        let Some(slot) = self.live(stream) else { return Ok(None) };
        let entry = &self.streams[slot];
        let unanswered = R::ANSWERS && entry.outgoing == Outgoing::Head;
        let known = !R::ANSWERS || entry.incoming != Incoming::Head || entry.deaf;
        let charged = self.ledger.charge(now_ms, if unanswered { Offence::EarlyReset } else { Offence::Odd });
        charged.inspect_err(|&fault| self.fault = Some(fault))?;
        self.give_up(slot, ErrorCode::REQUEST_CANCELLED, out);
        if !known {
            self.remove(slot);
            return Ok(None);
        }
        let unprocessed = !R::ANSWERS && code == ErrorCode::REQUEST_REJECTED;
        let why = if unprocessed { Malformed::Unprocessed } else { Malformed::Cancelled(code.in_http2()) };
        Ok(Some(Said::Stream(stream, Event::Reset(why))))
    }

    /// A section on a stream that has had its head: trailers.
    pub(super) fn take_trailers(
        &mut self,
        id: StreamId,
        section: WholeSection<'_>,
        space: &mut HeadSpace,
        out: &mut Out,
    ) -> Result<Option<Said<R::Head>>, Fault> {
        let WholeSection { now_ms, slot, end, bytes } = section;
        let section = ready(&self.decoder, bytes)?;
        let required = section.required();
        let terms = Terms { changes: self.decoder.changes(), end_stream: true, method: Method::Other };
        let read = match recalled(&self.recall_trailers, bytes, terms, space) {
            Some(trailers) => {
                let any = !trailers.is_empty();
                space.set_trailers(trailers);
                Ok(any)
            }
            None => {
                let read = head::read_trailers(section, &self.limits.heads, space).map_err(decompression)?;
                if read.is_ok() {
                    let trailers = Trailers::of(&space.text, &space.fields);
                    learn(&mut self.recall_trailers, bytes, terms, trailers.clone(), space);
                    space.set_trailers(trailers);
                }
                read
            }
        };
        self.decoder.acknowledge(id.0, required, &mut out.decoder);
        let stream = &mut self.streams[slot];
        let read = if matches!(stream.incoming_left, 0 | UNKNOWN) { read } else { Err(Malformed::LengthMismatch) };
        match read {
            Ok(trailers) => {
                stream.incoming = if end { Incoming::Ended } else { Incoming::Trailed };
                self.settle(slot);
                Ok(Some(Said::Stream(id, Event::End { consumed: 0, trailers })))
            }
            Err(why) => self.break_stream(now_ms, slot, ErrorCode::MESSAGE_ERROR, why, out),
        }
    }

    /// A section that is too long to be looked at.
    pub(super) fn refuse_long(
        &mut self,
        now_ms: u64,
        slot: usize,
        out: &mut Out,
    ) -> Result<Option<Said<R::Head>>, Fault> {
        let stream = &mut self.streams[slot];
        let (id, why) = (StreamId(stream.id), Malformed::HeadTooLong);
        if R::ANSWERS && stream.incoming == Incoming::Head {
            self.deafen(slot, out);
            return Ok(Some(Said::Refused { stream: id, why, answerable: true }));
        }
        self.break_stream(now_ms, slot, ErrorCode::EXCESSIVE_LOAD, why, out)
    }

    /// Nothing more is read of a request that is to be refused.
    fn deafen(&mut self, slot: usize, out: &mut Out) {
        self.decoder.cancel(self.streams[slot].id, &mut out.decoder);
        self.streams[slot].deaf = true;
    }

    /// Resets a stream for what the peer did on it.
    pub(super) fn break_stream(
        &mut self,
        now_ms: u64,
        slot: usize,
        code: ErrorCode,
        why: Malformed,
        out: &mut Out,
    ) -> Result<Option<Said<R::Head>>, Fault> {
        let id = StreamId(self.streams[slot].id);
        self.ledger.charge(now_ms, Offence::MadeReset)?;
        self.give_up(slot, code, out);
        Ok(Some(Said::Stream(id, Event::Reset(why))))
    }

    /// Whether the peer has opened all that it may. What was reset is none of those, so that a client which gives up and asks on is not
    /// refused; but work may still be behind it, so it is bounded too (CVE-2025-8671).
    fn is_full(&self) -> bool {
        let (all, most) = (self.streams.len(), usize::from(self.limits.streams));
        all - usize::from(self.broken) >= most || all >= 2 * most
    }
}

/// What a section means, if it is the same again.
#[inline]
fn recalled<H: Clone>(last: &Option<Box<Recall<H>>>, section: &[u8], terms: Terms, space: &mut HeadSpace) -> Option<H> {
    last.as_ref()?.find(section, terms, space)
}

/// A section has been read for what it means, which has changed nothing.
fn learn<H: Clone>(last: &mut Option<Box<Recall<H>>>, section: &[u8], terms: Terms, head: H, space: &HeadSpace) {
    last.get_or_insert_with(|| Box::new(Recall::new())).learn(section, terms, terms.changes, head, space);
}

/// A section of which it is known that its references have arrived.
fn ready<'a>(decoder: &'a Decoder, bytes: &'a [u8]) -> Result<Section<'a>, Fault> {
    let section = decoder.section(bytes).map_err(decompression)?;
    section.map_err(|_| decompression(crate::compression::Corrupt::Prefix))
}
