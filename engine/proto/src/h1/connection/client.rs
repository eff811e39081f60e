//! The side that asks: writes requests, reads responses.

use super::{Client, CloseReason, Connection, Eof, Reading, Writing};
use crate::h1::head::{ResponseHead, head_complete_hint, parse_response};
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

    /// The status of the final head at the front of all that is unread, behind interim ones, once it is whole. Nothing is read by this.
    ///
    /// # Errors
    /// What [`read`](Self::read) is going to refuse.
    pub fn peek_status(&self, bytes: &[u8]) -> Result<Option<Status>, Malformed> {
        let (mut rest, mut fields, mut interims) = (bytes, Fields::default(), self.interims);
        if head_complete_hint(rest, 0).is_none() && rest.len() < self.limits.bytes as usize {
            return Ok(None);
        }
        while let Some(head) = parse_response(rest, &self.limits, self.method, &mut fields)? {
            if !head.status.is_interim() {
                let switching = head.status == Status::SWITCHING_PROTOCOLS && !self.upgrade_offered;
                return if switching { Err(Malformed::UnexpectedUpgrade) } else { Ok(Some(head.status)) };
            }
            interims += 1;
            if interims > INTERIMS_MAX {
                return Err(Malformed::TooManyInterim);
            }
            rest = &rest[usize::from(head.length)..];
        }
        Ok(None)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::HeadLimits;

    #[test]
    fn a_status_is_told_once_its_whole_head_is_here() {
        let mut client = Connection::<Client>::new(HeadLimits::DEFAULT);
        client.head_written(Method::Get, Framing::None, true, false).expect("it is free");
        let hints = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".as_slice();
        let said = [hints, hints, b"HTTP/1.1 503 Busy\r\ncontent-length: 2\r\n\r\n"].concat();
        for end in 0..said.len() {
            assert_eq!(client.peek_status(&said[..end]), Ok(None), "{end} bytes");
        }
        assert_eq!(
            client.peek_status(&[&said[..], b"ok"].concat()).map(|status| status.map(Status::code)),
            Ok(Some(503))
        );
        for refused in
            ["HTTP/1.1 2OO okay\r\n\r\n", "HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"]
        {
            assert!(client.peek_status(refused.as_bytes()).is_err(), "{refused}");
        }
        assert_eq!(client.peek_status(&hints.repeat(INTERIMS_MAX.into())), Ok(None));
        assert_eq!(client.peek_status(&hints.repeat(usize::from(INTERIMS_MAX) + 1)), Err(Malformed::TooManyInterim));
    }
}
