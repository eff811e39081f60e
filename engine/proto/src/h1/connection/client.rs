//! The side that asks: writes requests, reads responses.

use super::{Client, CloseReason, Connection, Eof, Reading, Writing};
use crate::h1::head::{ResponseHead, parse_response};
use crate::h1::sink::Refused;
use crate::http::{Fields, Framing, Method, Status};
use crate::{Event, Malformed};

impl Connection<Client> {
    /// Reads the next step of the response, from all bytes that are unread. Interim responses come as heads of their own, with
    /// [`Status::is_interim`]; the final one follows.
    ///
    /// Bytes that answer nothing are not an error of any exchange: they pause, and the connection is no longer reusable.
    ///
    /// # Errors
    /// What the upstream did wrong; the connection is shut.
    #[inline]
    pub fn read(&mut self, bytes: &mut [u8], fields: &mut Fields) -> Result<Event<ResponseHead>, Malformed> {
        let answers_nothing = match self.reading {
            Reading::Head => self.writing == Writing::Idle,
            Reading::Done => true,
            _ => false,
        };
        if answers_nothing {
            self.assert_fed(bytes.len());
            if !bytes.is_empty() {
                self.poison();
            }
            self.note(&Event::Pause, 0, 0);
            return Ok(Event::Pause);
        }
        let event = self.read_with(bytes, |connection, bytes| connection.read_response(bytes, fields));
        match &event {
            Ok(event) => {
                let consumed = event.consumed(|head| head.length as usize);
                self.note(event, consumed, bytes.len());
            }
            Err(_) => self.shut(),
        }
        event
    }

    /// Input has ended, and the last read paused.
    pub fn eof(&mut self) -> Eof {
        let unstarted = match (self.writing, self.interims) {
            (Writing::Idle, _) => Eof::Clean,
            (_, 0) => Eof::Unanswered,
            _ => Eof::Truncated,
        };
        let eof = self.end_input(unstarted);
        match eof {
            // The response is complete while the request is still being written. Nobody will answer another one.
            Eof::HalfClosed => self.close_for(CloseReason::PeerEnded),
            Eof::Truncated => self.shut(),
            _ => {}
        }
        eof
    }

    /// Idle, untouched, and good for another request. Never before the last response was drained to a pause, so that bytes which
    /// follow it cannot be taken for the next response.
    #[inline]
    pub fn is_reusable(&self) -> bool {
        self.close.is_none() && self.is_idle() && !self.input_ended
    }

    /// A request's head was queued. `framing` is that of the content as it will be sent; `persistent` whether the head allows
    /// another exchange; `upgrade` whether it offers one, which only a request without content may.
    ///
    /// # Errors
    /// [`Refused::Length`]: the connection is not free for a request. Our fault; it is shut.
    #[inline]
    pub fn head_written(
        &mut self,
        method: Method,
        framing: Framing,
        persistent: bool,
        upgrade: bool,
    ) -> Result<(), Refused> {
        if !self.is_reusable() || framing == Framing::UntilClose {
            return Err(self.break_write());
        }
        if !persistent {
            self.close_for(CloseReason::WeAsked);
        }
        self.method = method;
        self.upgrade_offered = upgrade && !framing.has_body();
        self.begin_writing(framing);
        Ok(())
    }

    fn read_response(&mut self, bytes: &[u8], fields: &mut Fields) -> Result<Event<ResponseHead>, Malformed> {
        let method = self.method;
        let Some(head) = self.read_head(bytes, |limits| parse_response(bytes, limits, method, fields))? else {
            return Ok(Event::Pause);
        };
        if head.status.is_interim() {
            self.scanned = 0;
            self.interims += 1;
            return if self.interims > INTERIMS_MAX { Err(Malformed::TooManyInterim) } else { Ok(Event::Head(head)) };
        }
        let switching = head.status == Status::SWITCHING_PROTOCOLS;
        let connected = method == Method::Connect && head.status.is_success();
        if switching && !self.upgrade_offered || (switching || connected) && self.writing != Writing::Done {
            return Err(Malformed::UnexpectedUpgrade);
        }
        self.begin_reading(head.framing);
        if switching || connected {
            self.tunnel();
        } else if head.framing == Framing::UntilClose {
            self.close_for(CloseReason::UntilClose);
        } else if !head.persistent {
            self.close_for(CloseReason::PeerAsked);
        }
        Ok(Event::Head(head))
    }

    fn poison(&mut self) {
        self.close_for(CloseReason::Unsolicited);
        self.reading = Reading::Closed;
        if self.writing == Writing::Idle {
            self.writing = Writing::Closed;
        }
    }
}

/// An origin may send many 103s, though none sends more than a few; without a bound a response would never have to begin.
const INTERIMS_MAX: u8 = 16;
