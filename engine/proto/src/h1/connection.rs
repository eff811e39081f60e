//! One HTTP/1 connection, of either side (RFC 9112 §9): what may be read or written next, and whether it can be used again.
//!
//! The machine reads messages and is told what is written. It holds neither bytes nor an exchange, because thousands of
//! connections lie idle for each that works.
//!
//! ```text
//!            ┌───────────── settled, if nothing speaks against another exchange ────────────┐
//!            ▼                                                                              │
//! reading  Head ──► Body ──► Ended ──► Done ────────────────────────────────────────────────┤
//! writing  Idle ──► Head ──► Body ───► Done ────────────────────────────────────────────────┘
//!                                        └──► Tunnel (101, or 2xx to CONNECT)    └──► Closed
//! ```
//!
//! A server's next request is not read until its response is fully written, which is all that pipelining takes. What ends reuse is
//! kept as a [`CloseReason`], for logs and for the manner of closing. Bytes that arrive on an idle client connection answer nothing
//! that was asked: they poison it, whatever they are (response queue poisoning).

mod client;
mod server;

use super::body::{Decoder, Trailers};
use super::encode::{Encoder, Frame};
use super::head::{HeadLimits, head_complete_hint};
use super::sink::{Refused, Sink};
use crate::http::{Framing, Method};
use crate::role::{Client, Role, Server};
use crate::{Event, Malformed};
use std::marker::PhantomData;

/// The machine.
#[derive(Debug)]
pub struct Connection<R: Role> {
    decoder: Decoder,
    encoder: Encoder,
    trailers: Trailers,
    limits: HeadLimits,
    reading: Reading,
    writing: Writing,
    close: Option<CloseReason>,
    /// Of the request in flight.
    method: Method,
    /// How much of an unfinished head has been searched for its end.
    scanned: u16,
    /// Interim responses read to the request in flight.
    interims: u8,
    /// The request in flight offered an upgrade that may be taken.
    upgrade_offered: bool,
    /// The client waits for 100.
    expects_continue: bool,
    /// No more bytes will come, though some may be unread.
    input_ended: bool,
    /// The last read paused.
    paused: bool,
    /// For the law: bytes that the last event left unread.
    #[cfg(debug_assertions)]
    unread: u32,
    role: PhantomData<R>,
}

/// Why a connection ends after the exchange in hand, or has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The peer does not allow another exchange: `Connection: close`, or HTTP/1.0.
    PeerAsked,
    /// We do not: drain, limits, policy.
    WeAsked,
    /// Content that ends with the connection.
    UntilClose,
    /// Answered in full before the request's content was read: whatever comes next is not a head.
    UnreadBody,
    /// The message being written broke off or did not keep its promise.
    BrokenWrite,
    /// Bytes that nobody asked for.
    Unsolicited,
    /// The peer's bytes made no sense.
    Malformed,
    /// The peer ended the connection.
    PeerEnded,
}

/// What the end of input means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eof {
    /// Between messages: nothing is lost.
    Clean,
    /// It completed the response being read, which is delimited by it. [`Event::End`] is due.
    Complete,
    /// A client's connection ended before a single byte of the response: the request may be tried elsewhere if policy allows.
    Unanswered,
    /// A server's peer has sent its whole request and may still read the response.
    HalfClosed,
    /// Within a message.
    Truncated,
    /// The tunnel's, or after the connection was finished with: nothing to HTTP.
    Outside,
}

impl<R: Role> Connection<R> {
    pub fn new(limits: HeadLimits) -> Self {
        Self {
            decoder: Decoder::new(Framing::None),
            encoder: Encoder::new(Framing::None),
            trailers: Trailers::default(),
            limits,
            reading: Reading::Head,
            writing: Writing::Idle,
            close: None,
            method: Method::Other,
            scanned: 0,
            interims: 0,
            upgrade_offered: false,
            expects_continue: false,
            input_ended: false,
            paused: true,
            #[cfg(debug_assertions)]
            unread: 0,
            role: PhantomData,
        }
    }

    /// Trailers of the message that has just ended; valid until the next head.
    pub fn trailers(&self) -> &Trailers {
        &self.trailers
    }

    /// Takes them, for a relay that outlives this exchange.
    pub fn take_trailers(&mut self) -> Trailers {
        std::mem::take(&mut self.trailers)
    }

    /// All content of the message being read has been delivered: what the last [`Event::Data`] carried was the last. Lets a relay
    /// write the last piece and the end at once.
    #[inline]
    pub fn is_body_read(&self) -> bool {
        matches!(self.reading, Reading::Ended | Reading::Done | Reading::Tunnel | Reading::Closed)
    }

    /// No exchange is in hand, nor part of a head, and all input has been drained. Such a connection may be parked, or closed
    /// without telling anybody.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.reading == Reading::Head && self.writing == Writing::Idle && self.scanned == 0 && self.paused
    }

    /// Whether another exchange may follow, as far as is known now. A server's response that is composed while this is false
    /// should say `Connection: close`.
    #[inline]
    pub fn is_persistent(&self) -> bool {
        self.close.is_none()
    }

    /// The machine is finished with the connection: close it once what is queued has been sent.
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.reading == Reading::Closed && matches!(self.writing, Writing::Closed | Writing::Idle)
    }

    #[inline]
    pub fn is_tunnel(&self) -> bool {
        self.reading == Reading::Tunnel
    }

    /// The first reason not to use the connection again, or a later one that tells how it must be closed: an answer that broke
    /// off ([`CloseReason::BrokenWrite`]), or content that nobody reads ([`CloseReason::UnreadBody`]).
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.close
    }

    /// Allows no exchange after the one in hand, and none at all if there is none.
    pub fn close_after(&mut self) {
        self.close_for(CloseReason::WeAsked);
        if self.is_idle() {
            self.shut();
        }
    }

    /// So many bytes of content are queued next. Returns what goes around them.
    ///
    /// # Errors
    /// [`Refused::Length`]: more than the head promised; the connection is shut.
    #[inline]
    pub fn body_written(&mut self, payload: usize) -> Result<Frame, Refused> {
        if self.writing != Writing::Body {
            return Err(self.break_write());
        }
        self.encoder.frame(payload).map_err(|_| self.break_write())
    }

    /// The message is complete. Returns what ends it.
    ///
    /// # Errors
    /// [`Refused::Length`]: the head promised more; the connection is shut, so that the peer notices.
    #[inline]
    pub fn end_written(&mut self) -> Result<&'static [u8], Refused> {
        if self.writing != Writing::Body {
            return Err(self.break_write());
        }
        let last = self.encoder.end().map_err(|_| self.break_write())?;
        self.finish_writing();
        Ok(last)
    }

    /// The message is complete but for its end and `trailers`, which are put into `sink`.
    ///
    /// # Errors
    /// As [`Connection::end_written`], or the sink is full.
    pub fn end_written_with(&mut self, trailers: &Trailers, sink: &mut impl Sink) -> Result<(), Refused> {
        if self.writing != Writing::Body {
            return Err(self.break_write());
        }
        if let Err(refused) = self.encoder.end_with(trailers, sink) {
            self.break_write();
            return Err(refused);
        }
        self.finish_writing();
        Ok(())
    }

    /// The message being written will not be completed: its sender broke off. The only honest end is to cut the connection.
    pub fn abort_written(&mut self) {
        self.break_write();
    }

    /// Common part of reading: whatever is not a head.
    #[inline]
    fn read_with(
        &mut self,
        bytes: &mut [u8],
        head: impl FnOnce(&mut Self, &[u8]) -> Result<Event<R::Head>, Malformed>,
    ) -> Result<Event<R::Head>, Malformed> {
        self.assert_fed(bytes.len());
        let event = match self.reading {
            Reading::Head => head(self, bytes),
            Reading::Body if bytes.is_empty() => Ok(Event::Pause),
            Reading::Body => self.read_body(bytes),
            Reading::Ended => Ok(self.read_end(0)),
            Reading::Tunnel => Ok(Event::Tunnel),
            Reading::Done | Reading::Closed => Ok(Event::Pause),
        };
        if event.is_err() {
            self.close_for(CloseReason::Malformed);
            self.reading = Reading::Closed;
            self.paused = true;
        }
        event
    }

    #[inline]
    fn read_body(&mut self, bytes: &mut [u8]) -> Result<Event<R::Head>, Malformed> {
        self.expects_continue = false;
        let decoded = self.decoder.decode(bytes, &mut self.trailers)?;
        if decoded.ended {
            self.reading = Reading::Ended;
        }
        Ok(match (decoded.payload, decoded.ended) {
            (0, true) => self.read_end(decoded.consumed),
            // Framing only: no content, but the bytes are used up.
            (payload, _) => Event::Data { payload, consumed: decoded.consumed },
        })
    }

    #[inline]
    fn read_end(&mut self, consumed: usize) -> Event<R::Head> {
        self.reading = Reading::Done;
        self.settle();
        Event::End { consumed, trailers: !self.trailers.is_empty() }
    }

    /// What eof means to the message being read; the roles add what they know.
    fn end_input(&mut self, unstarted: Eof) -> Eof {
        debug_assert!(
            self.paused || self.is_tunnel(),
            "bytes are unread: drain until it pauses, then report the end of input"
        );
        self.input_ended = true;
        match self.reading {
            Reading::Tunnel | Reading::Closed => Eof::Outside,
            Reading::Ended => Eof::Complete,
            Reading::Done => Eof::HalfClosed,
            Reading::Head if self.scanned == 0 => {
                self.close_for(CloseReason::PeerEnded);
                self.shut();
                unstarted
            }
            Reading::Body if self.decoder.finish().is_ok() => {
                self.close_for(CloseReason::UntilClose);
                self.reading = Reading::Ended;
                Eof::Complete
            }
            Reading::Head | Reading::Body => {
                self.close_for(CloseReason::PeerEnded);
                self.reading = Reading::Closed;
                Eof::Truncated
            }
        }
    }

    fn begin_reading(&mut self, framing: Framing) {
        self.scanned = 0;
        self.trailers.clear();
        self.decoder = Decoder::new(framing);
        self.reading = if self.decoder.is_ended() { Reading::Ended } else { Reading::Body };
    }

    fn begin_writing(&mut self, framing: Framing) {
        self.encoder = Encoder::new(framing);
        self.writing = Writing::Body;
    }

    fn finish_writing(&mut self) {
        self.writing = Writing::Done;
        match self.reading {
            Reading::Body if R::ANSWERS => {
                self.close = Some(CloseReason::UnreadBody);
                self.shut();
            }
            // Nobody asked for the request's end, and nothing hangs on it.
            Reading::Ended if R::ANSWERS => self.reading = Reading::Done,
            Reading::Closed => self.shut(),
            _ => {}
        }
        self.settle();
    }

    /// Both messages are complete: go round again, or not.
    #[inline]
    fn settle(&mut self) {
        if self.reading != Reading::Done || self.writing != Writing::Done {
            return;
        }
        if self.close.is_some() {
            self.shut();
            return;
        }
        // A pause of the server's reading is over: pipelined requests may be waiting.
        self.paused &= !R::ANSWERS;
        self.reading = Reading::Head;
        self.writing = Writing::Idle;
        self.interims = 0;
        self.upgrade_offered = false;
        self.expects_continue = false;
    }

    fn tunnel(&mut self) {
        self.close_for(CloseReason::UntilClose);
        self.reading = Reading::Tunnel;
        self.writing = Writing::Tunnel;
    }

    fn close_for(&mut self, reason: CloseReason) {
        self.close.get_or_insert(reason);
    }

    fn shut(&mut self) {
        self.reading = Reading::Closed;
        self.writing = Writing::Closed;
    }

    #[cold]
    fn break_write(&mut self) -> Refused {
        self.close = Some(CloseReason::BrokenWrite);
        self.shut();
        Refused::Length
    }

    /// Reads a head with `parse`, unless what is new cannot have completed it.
    #[inline]
    fn read_head<H>(
        &mut self,
        bytes: &[u8],
        parse: impl FnOnce(&HeadLimits) -> Result<Option<H>, Malformed>,
    ) -> Result<Option<H>, Malformed> {
        let scanned = self.scanned as usize;
        let hopeless = bytes.is_empty()
            || scanned > 0 && bytes.len() < self.limits.bytes as usize && head_complete_hint(bytes, scanned).is_none();
        let head = if hopeless { None } else { parse(&self.limits)? };
        if head.is_none() {
            if self.input_ended {
                self.close_for(CloseReason::PeerEnded);
                if !bytes.is_empty() {
                    return Err(Malformed::Truncated);
                }
                self.shut();
            }
            // Below the limit, or the parser would have refused it; so it fits.
            self.scanned = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        }
        Ok(head)
    }

    #[inline]
    fn assert_fed(&self, _len: usize) {
        #[cfg(debug_assertions)]
        debug_assert!(
            matches!(self.reading, Reading::Closed | Reading::Tunnel) || _len >= self.unread as usize,
            "bytes were skipped: hand back all that the last event left unread"
        );
    }

    /// Notes what the event leaves to be drained.
    #[inline]
    fn note(&mut self, event: &Event<R::Head>, _consumed: usize, _len: usize) {
        self.paused = matches!(event, Event::Pause | Event::Tunnel);
        #[cfg(debug_assertions)]
        {
            let left = if self.is_tunnel() || self.reading == Reading::Closed { 0 } else { _len - _consumed };
            self.unread = u32::try_from(left).unwrap_or(u32::MAX);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Between messages, or within a head.
    Head,
    Body,
    /// The message is complete, but its end has not been told.
    Ended,
    /// Told. What follows belongs to the next exchange.
    Done,
    Tunnel,
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writing {
    /// Nothing is owed (server) or asked (client).
    Idle,
    /// A response is owed.
    Head,
    Body,
    Done,
    Tunnel,
    Closed,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::{RequestHead, ResponseHead};
    use crate::http::{Fields, Status};

    #[test]
    fn idle_connections_are_small() {
        assert!(size_of::<Connection<Server>>() <= 64, "{}", size_of::<Connection<Server>>());
        assert!(size_of::<Connection<Client>>() <= 64, "{}", size_of::<Connection<Client>>());
        assert!(size_of::<Decoder>() <= 48);
        assert!(size_of::<RequestHead>() <= 96);
        assert!(size_of::<ResponseHead>() <= 96);
    }

    fn server() -> (Connection<Server>, Fields) {
        (Connection::new(HeadLimits::DEFAULT), Fields::default())
    }

    fn client(method: Method) -> (Connection<Client>, Fields) {
        let mut connection = Connection::<Client>::new(HeadLimits::DEFAULT);
        connection.head_written(method, Framing::None, true, false).unwrap();
        connection.end_written().unwrap();
        (connection, Fields::default())
    }

    #[test]
    fn pipelined_requests_wait_for_the_response() {
        let (mut connection, mut fields) = server();
        let mut bytes = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n".to_vec();
        let Ok(Event::Head(head)) = connection.read(&mut bytes, &mut fields) else { panic!() };
        assert_eq!(head.path.of(&bytes), b"/a");
        bytes.drain(..head.length as usize);
        assert_eq!(connection.read(&mut bytes, &mut fields), Ok(Event::End { consumed: 0, trailers: false }));
        assert_eq!(connection.read(&mut bytes, &mut fields), Ok(Event::Pause));
        connection.head_written(Status::OK, Framing::Length(2), true).unwrap();
        assert_eq!(connection.read(&mut bytes, &mut fields), Ok(Event::Pause));
        assert!(connection.body_written(2).unwrap().prefix.is_empty());
        connection.end_written().unwrap();
        let Ok(Event::Head(head)) = connection.read(&mut bytes, &mut fields) else { panic!() };
        assert_eq!(head.path.of(&bytes), b"/b");
    }

    #[test]
    fn client_reads_and_is_reusable() {
        let (mut connection, mut fields) = client(Method::Get);
        let mut bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".to_vec();
        assert!(!connection.is_reusable());
        let Ok(Event::Head(head)) = connection.read(&mut bytes, &mut fields) else { panic!() };
        bytes.drain(..head.length as usize);
        assert_eq!(connection.read(&mut bytes, &mut fields), Ok(Event::Data { payload: 2, consumed: 2 }));
        assert!(connection.is_body_read());
        assert_eq!(connection.read(&mut [], &mut fields), Ok(Event::End { consumed: 0, trailers: false }));
        assert_eq!(connection.read(&mut [], &mut fields), Ok(Event::Pause));
        assert!(connection.is_reusable());
        assert_eq!(connection.read(&mut b"H".to_vec(), &mut fields), Ok(Event::Pause));
        assert!(!connection.is_reusable());
        assert_eq!(connection.close_reason(), Some(CloseReason::Unsolicited));
        assert!(connection.is_closed());
    }
}
