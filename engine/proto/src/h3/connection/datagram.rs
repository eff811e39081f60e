//! Datagrams of requests (RFC 9297 §2.1): whose they are, and whether they may be.

use std::time::Duration;

use super::{Connection, ms};
use crate::h3::error::{ErrorCode, Fault};
use crate::h3::frame::{put_integer, read_integer};
use crate::h3::streams::{Incoming, Outgoing};
use crate::h3::{Out, Said, StreamId};
use crate::role::Role;
use crate::{Malformed, h2};

/// What is to become of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datagram<H> {
    /// It is this request's, behind so many bytes.
    Of(StreamId, usize),
    /// Of a request that is over, or has not come yet: it is dropped.
    Nobodys,
    /// Of one that has no use for any: act on this, a reset.
    Unasked(Said<H>),
}

impl<R: Role> Connection<R> {
    /// Whether datagrams may be sent: both sides have said that they take them.
    pub fn has_datagrams(&self) -> bool {
        self.limits.datagrams && self.peer.datagrams
    }

    /// The payload of a QUIC DATAGRAM frame has come.
    ///
    /// # Errors
    /// What the peer did wrong. The connection has ended: close it with this.
    pub fn datagram(&mut self, now: Duration, bytes: &[u8], out: &mut Out) -> Result<Datagram<R::Head>, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        self.find_whose(ms(now), bytes, out).inspect_err(|fault| self.fault = Some(*fault))
    }

    fn find_whose(&mut self, now_ms: u64, bytes: &[u8], out: &mut Out) -> Result<Datagram<R::Head>, Fault> {
        let (quarter, length) =
            read_integer(bytes).ok_or(datagram_error("a datagram without a stream (RFC 9297 2.1)"))?;
        if quarter > QUARTER_MAX {
            return Err(datagram_error("a datagram of a stream that cannot be (RFC 9297 2.1)"));
        }
        let id = StreamId(quarter * 4);
        let Some(slot) = self.streams.find(id.0) else {
            // QUIC allows no more than so many beyond those that were opened.
            return match R::ANSWERS && id.0 >= self.beyond + 4 * u64::from(self.limits.streams) {
                true => Err(Fault::id("a datagram of a request beyond the limit (RFC 9297 2.1)")),
                false => Ok(Datagram::Nobodys),
            };
        };
        let stream = &self.streams[slot];
        match stream.incoming {
            _ if stream.broken || stream.deaf => Ok(Datagram::Nobodys),
            // Whether it has a use for them is not known yet.
            Incoming::Head if R::ANSWERS => Ok(Datagram::Nobodys),
            _ if !stream.datagrams => {
                let why = Malformed::Stream(h2::ErrorCode::PROTOCOL_ERROR);
                let reset = self.break_stream(now_ms, slot, ErrorCode::DATAGRAM_ERROR, why, out)?;
                Ok(reset.map_or(Datagram::Nobodys, Datagram::Unasked))
            }
            Incoming::Head | Incoming::Content => Ok(Datagram::Of(id, length)),
            Incoming::Complete | Incoming::Trailed | Incoming::Ended => Ok(Datagram::Nobodys),
        }
    }

    /// Puts what stands before a datagram's own bytes. False: none may be sent for this request, as it has no use for them, or is over, or the
    /// peer takes none.
    pub fn put_datagram_head(&self, stream: StreamId, to: &mut Vec<u8>) -> bool {
        let may = |slot: usize| self.streams[slot].datagrams && self.streams[slot].outgoing != Outgoing::Ended;
        let may = self.has_datagrams() && self.live(stream).is_some_and(may);
        if may {
            put_integer(stream.0 / 4, to);
        }
        may
    }
}

/// Protocols that go by extended CONNECT have a use for datagrams, as far as anybody here knows; a WebSocket has none (RFC 9220).
pub(super) fn has_use(upgrade: &[u8]) -> bool {
    !upgrade.is_empty() && !upgrade.eq_ignore_ascii_case(b"websocket")
}

/// The highest stream divided by four (RFC 9297 §2.1).
const QUARTER_MAX: u64 = (1 << 60) - 1;

const fn datagram_error(why: &'static str) -> Fault {
    Fault::new(ErrorCode::DATAGRAM_ERROR, why)
}
