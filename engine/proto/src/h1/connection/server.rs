//! The side that answers: reads requests, writes responses.

use super::{CloseReason, Connection, Eof, Reading, Server, Writing};
use crate::h1::head::{RequestHead, parse_request};
use crate::h1::sink::Refused;
use crate::http::{Fields, Framing, Method, Status};
use crate::{Event, Malformed};

impl Connection<Server> {
    /// Reads the next step of the request, from all bytes that are unread.
    ///
    /// # Errors
    /// What the client did wrong. It may still be answered, with `head_written` and so on; then the connection is shut.
    #[inline]
    pub fn read(&mut self, bytes: &mut [u8], fields: &mut Fields) -> Result<Event<RequestHead>, Malformed> {
        let event = self.read_with(bytes, |connection, bytes| connection.read_request(bytes, fields));
        match &event {
            Ok(event) => {
                let consumed = event.consumed(|head| head.length as usize);
                self.note(event, consumed, bytes.len());
            }
            // A head that made no sense is still owed an answer.
            Err(_) if self.writing == Writing::Idle => self.writing = Writing::Head,
            Err(_) => {}
        }
        event
    }

    /// Input has ended, and the last read paused.
    pub fn eof(&mut self) -> Eof {
        self.end_input(Eof::Clean)
    }

    /// The client waits for 100 (Continue) before it sends content.
    #[inline]
    pub fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// An interim response was queued. (For a client of HTTP/1.0 there are none.)
    pub fn interim_written(&mut self, status: Status) {
        debug_assert!(status.is_interim() && self.writing == Writing::Head);
        self.expects_continue &= status != Status::CONTINUE;
    }

    /// A final response's head was queued, or 101's. `framing` is that of the content as it will be sent, and `persistent`
    /// whether the head allows another exchange.
    ///
    /// A tunnel begins with 101, if this request offered an upgrade and had no content, or with 2xx to CONNECT. Nothing begins
    /// it earlier (CVE-2026-2833: bytes were passed through because they followed an offer).
    ///
    /// # Errors
    /// [`Refused::Length`]: no response is due, or 101 was not offered. Our fault; the connection is shut.
    #[inline]
    pub fn head_written(&mut self, status: Status, framing: Framing, persistent: bool) -> Result<(), Refused> {
        if self.writing != Writing::Head {
            return Err(self.break_write());
        }
        let request_read = matches!(self.reading, Reading::Ended | Reading::Done);
        if status == Status::SWITCHING_PROTOCOLS {
            if !self.upgrade_offered || !request_read {
                return Err(self.break_write());
            }
            self.tunnel();
            return Ok(());
        }
        if self.method == Method::Connect && status.is_success() && request_read {
            self.tunnel();
            return Ok(());
        }
        if framing == Framing::UntilClose {
            self.close_for(CloseReason::UntilClose);
        }
        if !persistent {
            self.close_for(CloseReason::WeAsked);
        }
        self.begin_writing(framing);
        Ok(())
    }

    fn read_request(&mut self, bytes: &[u8], fields: &mut Fields) -> Result<Event<RequestHead>, Malformed> {
        let Some(head) = self.read_head(bytes, |limits| parse_request(bytes, limits, fields))? else {
            return Ok(Event::Pause);
        };
        self.begin_reading(head.framing);
        self.writing = Writing::Head;
        self.method = head.method;
        self.upgrade_offered = !head.upgrade.is_empty();
        self.expects_continue = head.expect_continue && head.framing.has_body();
        if !head.persistent {
            self.close_for(CloseReason::PeerAsked);
        }
        Ok(Event::Head(head))
    }
}
