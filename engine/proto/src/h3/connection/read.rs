//! Bytes of streams as they arrive (RFC 9114 §4.1, §6, §7): which stream they are of, and which frame.

use std::time::Duration;

use super::{
    CONTROL_STREAM, Connection, DECODER_STREAM, ENCODER_STREAM, Fault, HELD_BYTES_MAX, PUSH_STREAM, Said, Step, ms,
};
use crate::h3::error::ErrorCode;
use crate::h3::frame::{FrameHead, Kind, read_integer};
use crate::h3::streams::{Incoming, Input};
use crate::h3::{Abort, HeadSpace, Out, StreamId};
use crate::multiplexed::head::{UNKNOWN, list_limits};
use crate::multiplexed::ledger::{ANSWERS_BYTES_MAX, Offence, TINY_BYTES};
use crate::role::Role;
use crate::{Event, Malformed};

/// What stays the same while a stream is read to its pause.
#[derive(Clone, Copy)]
pub(super) struct Reading<'a> {
    pub(super) now_ms: u64,
    pub(super) stream: StreamId,
    pub(super) bytes: &'a [u8],
    pub(super) fin: bool,
}

/// A field section, whole.
pub(super) struct WholeSection<'a> {
    pub(super) now_ms: u64,
    pub(super) slot: usize,
    /// Nothing follows it.
    pub(super) end: bool,
    pub(super) bytes: &'a [u8],
}

/// What makes sense of the sections that are no trailers.
pub(super) trait Heads<R: Role>:
    FnMut(&mut Connection<R>, WholeSection<'_>, &mut HeadSpace, &mut Out) -> Result<Option<Said<R::Head>>, Fault>
{
}

impl<R: Role, F> Heads<R> for F where
    F: FnMut(&mut Connection<R>, WholeSection<'_>, &mut HeadSpace, &mut Out) -> Result<Option<Said<R::Head>>, Fault>
{
}

/// What became of the bytes at hand.
pub(super) enum Taken<H> {
    /// So many were used up, and there may be more to say.
    Bytes(usize),
    /// The same, and this is to be told.
    Said(usize, Said<H>),
    /// The same, and so this stream pauses.
    Rest(usize),
}

impl<R: Role> Connection<R> {
    /// The common part of reading; `heads` makes sense of field sections.
    pub(super) fn read_with(
        &mut self,
        now: Duration,
        reading: Reading<'_>,
        space: &mut HeadSpace,
        out: &mut Out,
        heads: impl Heads<R>,
    ) -> Result<Step<R::Head>, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let step = self.advance(reading, space, out, heads).and_then(|step| {
            if out.control.len() + out.decoder.len() > ANSWERS_BYTES_MAX {
                return Err(Fault::calm("answers are asked for and not read"));
            }
            Ok(step)
        });
        let step = step.inspect_err(|&fault| self.fault = Some(fault))?;
        if R::ANSWERS && self.ledger.is_strained() {
            self.drain(now, out);
        }
        Ok(step)
    }

    fn advance(
        &mut self,
        reading: Reading<'_>,
        space: &mut HeadSpace,
        out: &mut Out,
        mut heads: impl Heads<R>,
    ) -> Result<Step<R::Head>, Fault> {
        let mut at = 0;
        loop {
            let rest = Reading { bytes: &reading.bytes[at..], ..reading };
            let taken = if let Some(slot) = self.streams.find(reading.stream.0) {
                self.take_of_request(slot, rest, space, out, &mut heads)?
            } else if let Some(place) = self.critical.iter().position(|&stream| stream == Some(reading.stream.0)) {
                self.take_of_critical(place as u64, rest, space, out)?
            } else if let Some(at) = self.untold.iter().position(|&stream| stream == reading.stream.0) {
                self.take_type(at, rest, out)?
            } else {
                // Nobody's: of a stream that is over, and bytes that were on their way.
                Taken::Rest(rest.bytes.len())
            };
            let (length, said) = match taken {
                Taken::Bytes(length) => (length, None),
                Taken::Said(length, said) => (length, Some(said)),
                Taken::Rest(length) => (length, Some(Said::Pause)),
            };
            at += length;
            if let Some(said) = said {
                return Ok(Step { skipped: at, said });
            }
        }
    }

    /// What a stream of one direction is for (§6.2).
    fn take_type(&mut self, at: usize, reading: Reading<'_>, out: &mut Out) -> Result<Taken<R::Head>, Fault> {
        let Reading { now_ms, stream, bytes, fin } = reading;
        let Some((sort, length)) = read_integer(bytes) else {
            if fin {
                // It may end before it has said what it is.
                self.untold.swap_remove(at);
            }
            return Ok(Taken::Rest(if fin { bytes.len() } else { 0 }));
        };
        self.untold.swap_remove(at);
        let place = match sort {
            CONTROL_STREAM => 0,
            ENCODER_STREAM => 1,
            DECODER_STREAM => 2,
            PUSH_STREAM if R::ANSWERS => {
                return Err(Fault::new(ErrorCode::STREAM_CREATION_ERROR, "a client pushes (RFC 9114 6.2.2)"));
            }
            PUSH_STREAM => return Err(Fault::id("a push that was not allowed (RFC 9114 6.2.2)")),
            _ => {
                self.ledger.charge(now_ms, Offence::Refused)?;
                out.aborts.push(Abort::Stop { stream, code: ErrorCode::STREAM_CREATION_ERROR });
                return Ok(Taken::Rest(bytes.len()));
            }
        };
        if self.critical[place].replace(stream.0).is_some() {
            let why = ["a second control stream (RFC 9114 6.2.1)", "a second encoder stream (RFC 9204 4.2)"];
            let why = why.get(place).copied().unwrap_or("a second decoder stream (RFC 9204 4.2)");
            return Err(Fault::new(ErrorCode::STREAM_CREATION_ERROR, why));
        }
        Ok(Taken::Bytes(length))
    }

    fn take_of_request(
        &mut self,
        slot: usize,
        reading: Reading<'_>,
        space: &mut HeadSpace,
        out: &mut Out,
        heads: &mut impl Heads<R>,
    ) -> Result<Taken<R::Head>, Fault> {
        let Reading { stream, bytes, fin, .. } = reading;
        let entry = &mut self.streams[slot];
        debug_assert!(bytes.len() >= entry.held, "bytes were skipped: hand back all that the last step left unread");
        self.held -= std::mem::take(&mut entry.held);
        if entry.broken || entry.deaf {
            if fin && !entry.broken {
                entry.incoming = Incoming::Ended;
                self.settle(slot);
            }
            return Ok(Taken::Rest(bytes.len()));
        }
        let taken = match entry.input {
            Input::Frame if bytes.is_empty() => return self.take_pause(slot, reading, out),
            Input::Frame => self.take_frame(slot, reading, space, out, heads)?,
            Input::Content(left) => {
                let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let left = left - taken as u64;
                entry.input = if left > 0 { Input::Content(left) } else { Input::Frame };
                if taken == 0 {
                    return self.take_pause(slot, reading, out);
                }
                self.ledger.carried(taken, taken)?;
                if fin && left == 0 && taken == bytes.len() && matches!(entry.incoming_left, 0 | UNKNOWN) {
                    entry.incoming = Incoming::Complete;
                }
                Taken::Said(0, Said::Stream(stream, Event::Data { payload: taken, consumed: taken }))
            }
            Input::Skip(left) => {
                let taken = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let left = left - taken as u64;
                entry.input = if left > 0 { Input::Skip(left) } else { Input::Frame };
                if taken == 0 {
                    return self.take_pause(slot, reading, out);
                }
                self.ledger.carried(taken, 0)?;
                Taken::Bytes(taken)
            }
        };
        if let Taken::Rest(length) | Taken::Said(length, Said::Blocked) = taken
            && let Some(slot) = self.streams.find(stream.0)
        {
            if fin && !matches!(taken, Taken::Said(_, Said::Blocked)) && bytes.len() > length {
                return Err(Fault::frame("a stream ends within a frame (RFC 9114 7.1)"));
            }
            self.streams[slot].held = bytes.len() - length;
            self.held += bytes.len() - length;
            if self.held > HELD_BYTES_MAX {
                return Err(Fault::calm("too much is unfinished on too many streams"));
            }
        }
        Ok(taken)
    }

    /// There are no more bytes for now, or for ever.
    fn take_pause(&mut self, slot: usize, reading: Reading<'_>, out: &mut Out) -> Result<Taken<R::Head>, Fault> {
        let Reading { now_ms, stream, fin, .. } = reading;
        if !fin {
            return Ok(Taken::Rest(0));
        }
        let entry = &mut self.streams[slot];
        if entry.input != Input::Frame {
            return Err(Fault::frame("a stream ends within a frame (RFC 9114 7.1)"));
        }
        let said = match entry.incoming {
            Incoming::Head if R::ANSWERS => {
                self.ledger.charge(now_ms, Offence::MadeReset)?;
                self.reset(stream, ErrorCode::REQUEST_INCOMPLETE, out);
                None
            }
            Incoming::Head => self.break_stream(now_ms, slot, ErrorCode::MESSAGE_ERROR, Malformed::Truncated, out)?,
            Incoming::Content if !matches!(entry.incoming_left, 0 | UNKNOWN) => {
                self.break_stream(now_ms, slot, ErrorCode::MESSAGE_ERROR, Malformed::LengthMismatch, out)?
            }
            Incoming::Content | Incoming::Complete => {
                entry.incoming = Incoming::Ended;
                self.settle(slot);
                Some(Said::Stream(stream, Event::End { consumed: 0, trailers: false }))
            }
            Incoming::Trailed | Incoming::Ended => {
                entry.incoming = Incoming::Ended;
                self.settle(slot);
                None
            }
        };
        Ok(said.map_or(Taken::Rest(0), |said| Taken::Said(0, said)))
    }

    #[inline]
    fn take_frame(
        &mut self,
        slot: usize,
        reading: Reading<'_>,
        space: &mut HeadSpace,
        out: &mut Out,
        heads: &mut impl Heads<R>,
    ) -> Result<Taken<R::Head>, Fault> {
        let Reading { now_ms, bytes, .. } = reading;
        let Some((head, length)) = FrameHead::parse(bytes) else { return Ok(Taken::Rest(0)) };
        match head.kind {
            Kind::Data => self.take_data(slot, reading, head.length, length, out),
            Kind::Headers => self.take_headers(slot, reading, (head.length, length), space, out, heads),
            Kind::Unknown(_) => {
                self.ledger.charge(now_ms, Offence::Odd)?;
                self.ledger.carried(length, 0)?;
                self.streams[slot].input = skip(head.length);
                Ok(Taken::Bytes(length))
            }
            Kind::PushPromise if !R::ANSWERS => Err(Fault::id("a push that was not allowed (RFC 9114 7.2.5)")),
            Kind::PushPromise => Err(Fault::unexpected("a client promises a push (RFC 9114 7.2.5)")),
            Kind::Http2(_) => Err(Fault::unexpected("a frame of HTTP/2 (RFC 9114 7.2.8)")),
            Kind::CancelPush | Kind::Settings | Kind::GoAway | Kind::MaxPushId => {
                Err(Fault::unexpected("a frame of the control stream on a request's (RFC 9114 7.2)"))
            }
            Kind::PriorityUpdate | Kind::PriorityUpdatePush => {
                Err(Fault::unexpected("PRIORITY_UPDATE on a request's stream (RFC 9218 7.2)"))
            }
        }
    }

    fn take_data(
        &mut self,
        slot: usize,
        reading: Reading<'_>,
        content: u64,
        length: usize,
        out: &mut Out,
    ) -> Result<Taken<R::Head>, Fault> {
        let Reading { now_ms, bytes, fin, .. } = reading;
        let entry = &mut self.streams[slot];
        if entry.incoming != Incoming::Content {
            return Err(Fault::unexpected("DATA before a head or behind trailers (RFC 9114 4.1)"));
        }
        let last = fin && (bytes.len() - length) as u64 == content;
        if !last && content == 0 {
            self.ledger.charge(now_ms, Offence::EmptyData)?;
        } else if !last && content < TINY_BYTES as u64 {
            self.ledger.charge(now_ms, Offence::TinyData)?;
        }
        self.ledger.carried(length, 0)?;
        if entry.incoming_left != UNKNOWN {
            match entry.incoming_left.checked_sub(content) {
                Some(left) => entry.incoming_left = left,
                None => {
                    let why = Malformed::LengthMismatch;
                    let said = self.break_stream(now_ms, slot, ErrorCode::MESSAGE_ERROR, why, out)?;
                    return Ok(said.map_or(Taken::Bytes(length), |said| Taken::Said(length, said)));
                }
            }
        }
        entry.input = if content > 0 { Input::Content(content) } else { Input::Frame };
        Ok(Taken::Bytes(length))
    }

    fn take_headers(
        &mut self,
        slot: usize,
        reading: Reading<'_>,
        (length, start): (u64, usize),
        space: &mut HeadSpace,
        out: &mut Out,
        heads: &mut impl Heads<R>,
    ) -> Result<Taken<R::Head>, Fault> {
        let Reading { now_ms, bytes, fin, stream } = reading;
        let entry = &mut self.streams[slot];
        if matches!(entry.incoming, Incoming::Trailed | Incoming::Complete | Incoming::Ended) {
            return Err(Fault::unexpected("HEADERS behind trailers (RFC 9114 4.1)"));
        }
        if entry.incoming == Incoming::Content && entry.connect {
            return Err(Fault::unexpected("HEADERS in a tunnel (RFC 9114 4.4)"));
        }
        // One that is longer than what it may come to has no chance of being shorter.
        if length > list_limits(&self.limits.heads).bytes as u64 + PREFIX_BYTES {
            entry.input = skip(length);
            let said = self.refuse_long(now_ms, slot, out)?;
            return Ok(said.map_or(Taken::Bytes(start), |said| Taken::Said(start, said)));
        }
        let Some(section) = bytes[start..].get(..length as usize) else { return Ok(Taken::Rest(0)) };
        if let Err(required) = self.decoder.section(section).map_err(decompression)?.map(|section| section.required()) {
            if entry.awaited == 0 && self.blocked >= self.limits.blocked_streams {
                return Err(Fault::new(
                    ErrorCode::QPACK_DECOMPRESSION_FAILED,
                    "more streams wait than may (RFC 9204 2.1.2)",
                ));
            }
            self.blocked += u16::from(entry.awaited == 0);
            entry.awaited = required;
            return Ok(Taken::Said(0, Said::Blocked));
        }
        // It need not have been said yet that it is not blocked any more.
        self.blocked -= u16::from(std::mem::take(&mut entry.awaited) > 0);
        let whole = start + section.len();
        let section = WholeSection { now_ms, slot, end: fin && bytes.len() == whole, bytes: section };
        let said = match entry.incoming {
            Incoming::Head => heads(self, section, space, out)?,
            _ => self.take_trailers(stream, section, space, out)?,
        };
        Ok(said.map_or(Taken::Bytes(whole), |said| Taken::Said(whole, said)))
    }

    /// Reads one stream's next bytes; `fin` says that there are no more behind them.
    #[inline]
    pub(super) fn reading(now: Duration, stream: StreamId, bytes: &[u8], fin: bool) -> Reading<'_> {
        Reading { now_ms: ms(now), stream, bytes, fin }
    }
}

/// Past a frame that means nothing.
fn skip(length: u64) -> Input {
    if length > 0 { Input::Skip(length) } else { Input::Frame }
}

/// What stands before a section's lines, at most.
const PREFIX_BYTES: u64 = crate::h3::qpack::Prefix::LEN_MAX as u64;

/// RFC 9204 §2.2.
pub(super) fn decompression(corrupt: crate::compression::Corrupt) -> Fault {
    Fault::new(ErrorCode::QPACK_DECOMPRESSION_FAILED, why_corrupt(corrupt))
}

pub(super) fn why_corrupt(corrupt: crate::compression::Corrupt) -> &'static str {
    use crate::compression::Corrupt;
    match corrupt {
        Corrupt::Integer => "an integer overflows or is cut off (RFC 9204 4.1.1)",
        Corrupt::Index => "an index means nothing (RFC 9204 2.2.3, 3.1)",
        Corrupt::Truncated => "a string is cut off (RFC 9204 4.1.2)",
        Corrupt::Huffman => "a Huffman code is wrong (RFC 9204 4.1.2)",
        Corrupt::SizeUpdate => "more than the table holds (RFC 9204 3.2.2, 4.3.1)",
        Corrupt::Prefix => "a Required Insert Count or Base that cannot be (RFC 9204 4.5.1)",
    }
}
