//! Frames as they arrive (RFC 9113 §5, §6), but for field blocks.

use std::time::Duration;

use super::{Block, Connection, Going, Input, Said, Step, ms};
use crate::h2::StreamId;
use crate::h2::error::{ErrorCode, Fault};
use crate::h2::frame::{self, ACK, Breach, END_HEADERS, END_STREAM, FrameHead, Kind, PADDED, PRIORITY};
use crate::h2::ledger::{
    ANSWERS_BYTES_MAX, BLOCK_BYTES_MAX, CONTINUATIONS_MAX, Offence, PRIORITY_BYTES_MAX, SETTINGS_ENTRIES_MAX,
    TINY_BYTES,
};
use crate::h2::settings::FRAME_SIZE_DEFAULT;
use crate::h2::streams::{Incoming, Past, UNKNOWN};
use crate::role::Role;
use crate::{Event, Malformed};

/// A field block, whole.
pub(super) struct WholeBlock<'a> {
    pub(super) now_ms: u64,
    pub(super) stream: u32,
    pub(super) end_stream: bool,
    pub(super) bytes: &'a [u8],
}

/// What makes sense of field blocks.
pub(super) trait Heads<R: Role>:
    FnMut(&mut Connection<R>, WholeBlock<'_>, &mut Vec<u8>) -> Result<Option<Said<R::Head>>, Fault>
{
}

impl<R: Role, F> Heads<R> for F where
    F: FnMut(&mut Connection<R>, WholeBlock<'_>, &mut Vec<u8>) -> Result<Option<Said<R::Head>>, Fault>
{
}

/// What became of a frame whose head has been read.
pub(super) enum Taken<H> {
    /// Not all of it is here that is needed.
    Not,
    /// So much of its payload was used up; `input` says what follows.
    Payload(usize),
    /// The same, and something is to be told.
    Said(usize, Said<H>),
}

impl<R: Role> Connection<R> {
    /// The common part of reading; `heads` makes sense of field blocks.
    pub(super) fn read_with(
        &mut self,
        now: Duration,
        bytes: &[u8],
        out: &mut Vec<u8>,
        mut heads: impl Heads<R>,
    ) -> Result<Step<R::Head>, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        #[cfg(debug_assertions)]
        debug_assert!(bytes.len() >= self.unread, "bytes were skipped: hand back all that the last step left unread");
        let before = out.len();
        let step = self.advance(ms(now), bytes, out, &mut heads).and_then(|step| {
            self.unsent[0] += out.len() - before;
            if self.unsent[0] + self.unsent[1] > ANSWERS_BYTES_MAX {
                return Err(Fault::calm("answers are asked for and not read"));
            }
            Ok(step)
        });
        let step = step.inspect_err(|&fault| self.fail(fault, out))?;
        if R::ANSWERS && self.ledger.is_strained() {
            self.drain(now, out);
        }
        #[cfg(debug_assertions)]
        {
            let payload = if let Said::Stream(_, Event::Data { consumed, .. }) = step.said { consumed } else { 0 };
            self.unread = bytes.len() - step.skipped - payload;
        }
        Ok(step)
    }

    fn advance(
        &mut self,
        now_ms: u64,
        bytes: &[u8],
        out: &mut Vec<u8>,
        heads: &mut impl Heads<R>,
    ) -> Result<Step<R::Head>, Fault> {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            let said = match self.input {
                Input::Preface(matched) => {
                    let wanted = &frame::PREFACE[matched as usize..];
                    let length = wanted.len().min(rest.len());
                    if rest[..length] != wanted[..length] {
                        return Err(Fault::protocol("this is not the HTTP/2 preface (RFC 9113 3.4)"));
                    }
                    at += length;
                    let whole = length == wanted.len();
                    self.input = if whole { Input::Frame } else { Input::Preface(matched + length as u8) };
                    if whole { None } else { Some(Said::Pause) }
                }
                Input::Frame => match self.take_frame(now_ms, rest, out, heads)? {
                    Taken::Not => Some(Said::Pause),
                    Taken::Payload(length) => {
                        at += FrameHead::LEN + length;
                        None
                    }
                    Taken::Said(length, said) => {
                        at += FrameHead::LEN + length;
                        Some(said)
                    }
                },
                Input::Content { stream, left, padding, end } => {
                    let taken = rest.len().min(left as usize);
                    let said = self.take_content((stream, left, padding, end), taken, out);
                    if said.is_none() {
                        at += taken;
                    }
                    said
                }
                Input::Skip { left, end } => {
                    let taken = rest.len().min(left as usize);
                    at += taken;
                    let left = left - taken as u32;
                    self.input = match end {
                        _ if left > 0 => Input::Skip { left, end },
                        Some(stream) => Input::End { stream, trailers: false },
                        None if self.has_orphans() => Input::Orphans,
                        None => Input::Frame,
                    };
                    if left > 0 { Some(Said::Pause) } else { None }
                }
                Input::End { stream, trailers } => self.take_end(stream, trailers, out),
                Input::Orphans => self.take_orphan(out),
            };
            if let Some(said) = said {
                return Ok(Step { skipped: at, said });
            }
        }
    }

    /// Content of which `taken` bytes are here. `None` if they were nobody's, or none.
    fn take_content(
        &mut self,
        (stream, left, padding, end): (u32, u32, u8, bool),
        taken: usize,
        out: &mut Vec<u8>,
    ) -> Option<Said<R::Head>> {
        if taken == 0 && left > 0 {
            return Some(Said::Pause);
        }
        let left = left - taken as u32;
        let slot = self.streams.find(stream);
        self.input = if left > 0 {
            Input::Content { stream, left, padding, end }
        } else {
            if let Some(slot) = slot
                && end
            {
                self.streams[slot].incoming = Incoming::Ended;
            }
            Input::Skip { left: u32::from(padding), end: end.then_some(stream) }
        };
        let wanted = slot.filter(|&slot| !self.streams[slot].broken && !self.streams[slot].deaf);
        match wanted {
            Some(slot) if taken > 0 => {
                self.streams[slot].owed += taken as u32;
                Some(Said::Stream(StreamId(stream), Event::Data { payload: taken, consumed: taken }))
            }
            Some(_) => None,
            None => {
                if slot.is_none()
                    && let Input::Skip { end, .. } = &mut self.input
                {
                    *end = None;
                }
                self.credit += taken as u32;
                self.tell_credit(out);
                None
            }
        }
    }

    fn take_end(&mut self, stream: u32, trailers: bool, out: &mut Vec<u8>) -> Option<Said<R::Head>> {
        self.input = Input::Frame;
        let mut wanted = true;
        if let Some(slot) = self.streams.find(stream) {
            wanted = !self.streams[slot].broken && !self.streams[slot].deaf;
            self.settle(slot, out);
        }
        wanted.then_some(Said::Stream(StreamId(stream), Event::End { consumed: 0, trailers }))
    }

    fn has_orphans(&self) -> bool {
        !R::ANSWERS && self.streams.all().next_back().is_some_and(|slot| self.streams[slot].id > self.peer_last)
    }

    /// The next stream that a peer which has gone did not look at (RFC 9113 §6.8).
    fn take_orphan(&mut self, out: &mut Vec<u8>) -> Option<Said<R::Head>> {
        let Some(slot) = self.streams.all().next_back().filter(|&slot| self.streams[slot].id > self.peer_last) else {
            self.input = Input::Frame;
            return None;
        };
        let (stream, told) = (self.streams[slot].id, self.streams[slot].broken);
        self.remove(slot, out);
        (!told).then_some(Said::Stream(StreamId(stream), Event::Reset(Malformed::Unprocessed)))
    }

    #[inline]
    fn take_frame(
        &mut self,
        now_ms: u64,
        bytes: &[u8],
        out: &mut Vec<u8>,
        heads: &mut impl Heads<R>,
    ) -> Result<Taken<R::Head>, Fault> {
        let Some(head) = FrameHead::parse(bytes) else { return Ok(Taken::Not) };
        let payload = &bytes[FrameHead::LEN..];
        match head.check(FRAME_SIZE_DEFAULT) {
            Ok(()) => {}
            Err(Breach::Connection(fault)) => return Err(fault),
            Err(Breach::Stream(fault)) => return self.take_misshapen(now_ms, &head, fault, out),
        }
        if !self.greeted && (head.kind != Kind::Settings || head.has(ACK)) {
            return Err(Fault::protocol("the first frame is not SETTINGS (RFC 9113 3.4)"));
        }
        if let Some(block) = &self.block
            && (head.kind != Kind::Continuation || head.stream != block.stream)
        {
            return Err(Fault::protocol("another frame within a field block (RFC 9113 4.3)"));
        }
        let whole = payload.get(..head.length as usize);
        match head.kind {
            Kind::Data => self.take_data(now_ms, &head, payload, out),
            Kind::Headers => match whole {
                Some(payload) => self.take_headers(now_ms, &head, payload, out, heads),
                None => Ok(Taken::Not),
            },
            Kind::Continuation => match whole {
                Some(payload) => self.take_continuation(now_ms, &head, payload, out, heads),
                None => Ok(Taken::Not),
            },
            Kind::PushPromise => Err(Fault::protocol("PUSH_PROMISE where none is allowed (RFC 9113 6.6, 8.4)")),
            Kind::Priority => match payload {
                &[a, b, c, d, ..] => {
                    self.ledger.charge(now_ms, Offence::Priority)?;
                    depends([a, b, c, d], head.stream)?;
                    Ok(self.skip(head.length))
                }
                _ => Ok(Taken::Not),
            },
            Kind::Unknown(_) => {
                self.ledger.charge(now_ms, Offence::Odd)?;
                Ok(self.skip(head.length))
            }
            Kind::GoAway => match payload {
                &[a, b, c, d, e, f, g, h, ..] => {
                    let last = u32::from_be_bytes([a, b, c, d]) & StreamId::MAX;
                    self.peer_last = self.peer_last.min(last);
                    self.input = Input::Skip { left: head.length - 8, end: None };
                    let code = ErrorCode(u32::from_be_bytes([e, f, g, h]));
                    Ok(Taken::Said(8, Said::GoneAway { last: StreamId(last), code }))
                }
                _ => Ok(Taken::Not),
            },
            Kind::Settings => match whole {
                Some(payload) => self.take_settings(now_ms, &head, payload, out),
                None if head.length > 6 * SETTINGS_ENTRIES_MAX => Err(Fault::calm("too many settings in one frame")),
                None => Ok(Taken::Not),
            },
            Kind::Ping => match payload {
                &[a, b, c, d, e, f, g, h, ..] => self.take_ping(now_ms, &head, [a, b, c, d, e, f, g, h], out),
                _ => Ok(Taken::Not),
            },
            Kind::Reset => match payload {
                &[a, b, c, d, ..] => self.take_reset(now_ms, &head, ErrorCode(u32::from_be_bytes([a, b, c, d])), out),
                _ => Ok(Taken::Not),
            },
            Kind::WindowUpdate => match payload {
                &[a, b, c, d, ..] => {
                    let increment = u32::from_be_bytes([a, b, c, d]) & StreamId::MAX;
                    self.take_window_update(now_ms, &head, increment, out)
                }
                _ => Ok(Taken::Not),
            },
            Kind::PriorityUpdate if !R::ANSWERS => {
                Err(Fault::protocol("a server sends PRIORITY_UPDATE (RFC 9218 7.1)"))
            }
            Kind::PriorityUpdate if head.length > PRIORITY_BYTES_MAX => {
                self.ledger.charge(now_ms, Offence::Odd)?;
                Ok(self.skip(head.length))
            }
            Kind::PriorityUpdate => match whole {
                Some(payload) => self.take_priority_update(now_ms, payload),
                None => Ok(Taken::Not),
            },
        }
    }

    /// Passes over the rest of a frame.
    fn skip<H>(&mut self, left: u32) -> Taken<H> {
        self.input = Input::Skip { left, end: None };
        Taken::Payload(0)
    }

    /// Nobody has opened this stream (RFC 9113 §5.1).
    pub(super) fn is_idle_stream(&self, stream: u32) -> bool {
        let ours = stream.is_multiple_of(2) == R::ANSWERS;
        let first_unopened = match (ours, R::ANSWERS) {
            (true, false) => self.next_id,
            (false, true) => self.last_peer + 1,
            // Nobody pushes.
            _ => 0,
        };
        stream >= first_unopened
    }

    /// A frame whose length breaks its stream and not the connection.
    fn take_misshapen(
        &mut self,
        now_ms: u64,
        head: &FrameHead,
        fault: Fault,
        out: &mut Vec<u8>,
    ) -> Result<Taken<R::Head>, Fault> {
        if !self.greeted || self.block.is_some() || self.live(StreamId(head.stream)).is_none() {
            return Err(fault);
        }
        self.input = Input::Skip { left: head.length, end: None };
        let said = self.break_stream(now_ms, head.stream, fault.code, Malformed::Stream(fault.code), out)?;
        Ok(said.map_or(Taken::Payload(0), |said| Taken::Said(0, said)))
    }

    fn take_data(
        &mut self,
        now_ms: u64,
        head: &FrameHead,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Taken<R::Head>, Fault> {
        let padded = head.has(PADDED);
        let padding = match payload.first() {
            Some(&padding) if padded => padding,
            None if padded => return Ok(Taken::Not),
            _ => 0,
        };
        let preamble = u32::from(padded);
        let Some(content) = head.length.checked_sub(preamble + u32::from(padding)) else {
            return Err(Fault::protocol("padding is longer than its frame (RFC 9113 6.1)"));
        };
        if self.is_idle_stream(head.stream) {
            return Err(Fault::protocol("DATA on an idle stream (RFC 9113 5.1)"));
        }
        self.receive_window -= head.length as i32;
        if self.receive_window < 0 {
            return Err(Fault::flow("more content than the connection's window (RFC 9113 6.9)"));
        }
        let end = head.has(END_STREAM);
        self.ledger.carried(FrameHead::LEN + head.length as usize, content as usize)?;
        if !end && content == 0 {
            self.ledger.charge(now_ms, Offence::EmptyData)?;
        } else if !end && (content as usize) < TINY_BYTES {
            self.ledger.charge(now_ms, Offence::TinyData)?;
        }
        let slot = self.streams.find(head.stream).filter(|&slot| !self.streams[slot].broken);
        let Some(slot) = slot else {
            self.credit += head.length;
            self.tell_credit(out);
            self.take_late(now_ms, head.stream, out)?;
            return Ok(self.skip(head.length));
        };
        if let Err((code, why)) = self.admit_data(slot, head.length, content, end) {
            self.credit += head.length;
            self.input = Input::Skip { left: head.length, end: None };
            let said = self.break_stream(now_ms, head.stream, code, why, out)?;
            return Ok(said.map_or(Taken::Payload(0), |said| Taken::Said(0, said)));
        }
        // Padding is used up as soon as it is here.
        self.credit += head.length - content;
        self.streams[slot].credit += head.length - content;
        self.tell_credit(out);
        self.tell_stream_credit(slot, out);
        self.input = Input::Content { stream: head.stream, left: content, padding, end };
        Ok(Taken::Payload(preamble as usize))
    }

    /// Whether the stream takes this content (RFC 9113 §5.1, §6.9, §8.1.1).
    #[inline]
    fn admit_data(&mut self, slot: usize, length: u32, content: u32, end: bool) -> Result<(), (ErrorCode, Malformed)> {
        let stream = &mut self.streams[slot];
        match stream.incoming {
            Incoming::Ended => {
                return Err((ErrorCode::STREAM_CLOSED, Malformed::Stream(ErrorCode::STREAM_CLOSED)));
            }
            Incoming::Head => return Err((ErrorCode::PROTOCOL_ERROR, Malformed::UnexpectedHead)),
            Incoming::Content => {}
        }
        stream.receive_window -= length as i32;
        if stream.receive_window < 0 {
            return Err((ErrorCode::FLOW_CONTROL_ERROR, Malformed::Stream(ErrorCode::FLOW_CONTROL_ERROR)));
        }
        if stream.incoming_left != UNKNOWN {
            let left = stream.incoming_left.checked_sub(u64::from(content)).filter(|&left| !end || left == 0);
            stream.incoming_left = left.ok_or((ErrorCode::PROTOCOL_ERROR, Malformed::LengthMismatch))?;
        }
        Ok(())
    }

    /// A frame for a stream that is not there any more: what was on its way is borne, what was not is told (RFC 9113 §5.1).
    pub(super) fn take_late(&mut self, now_ms: u64, stream: u32, out: &mut Vec<u8>) -> Result<(), Fault> {
        let refused = matches!(self.going, Going::Final(last) if R::ANSWERS && stream > last);
        let slot = self.streams.find(stream);
        let by_us = slot.map_or_else(|| self.recent.find(stream) == Past::ByUs, |slot| self.streams[slot].broken_by_us);
        if refused || by_us {
            return self.ledger.charge(now_ms, Offence::Odd);
        }
        self.ledger.charge(now_ms, Offence::MadeReset)?;
        frame::put_reset(out, stream, ErrorCode::STREAM_CLOSED);
        // Told once: what is still on its way is borne.
        match slot {
            Some(slot) => self.streams[slot].broken_by_us = true,
            None => self.recent.push(stream, Past::ByUs),
        }
        Ok(())
    }

    /// Resets a stream for what the peer did on it. `None` if that is known already.
    pub(super) fn break_stream(
        &mut self,
        now_ms: u64,
        stream: u32,
        code: ErrorCode,
        why: Malformed,
        out: &mut Vec<u8>,
    ) -> Result<Option<Said<R::Head>>, Fault> {
        let Some(slot) = self.live(StreamId(stream)) else { return Ok(None) };
        self.ledger.charge(now_ms, Offence::MadeReset)?;
        frame::put_reset(out, stream, code);
        self.break_off(slot, true, out);
        if self.streams[slot].deaf {
            self.remove(slot, out);
        }
        Ok(Some(Said::Stream(StreamId(stream), Event::Reset(why))))
    }

    fn take_headers(
        &mut self,
        now_ms: u64,
        head: &FrameHead,
        payload: &[u8],
        out: &mut Vec<u8>,
        heads: &mut impl Heads<R>,
    ) -> Result<Taken<R::Head>, Fault> {
        let padding = if head.has(PADDED) { payload[0] as usize } else { 0 };
        let start = head.preamble() as usize;
        let Some(end) = payload.len().checked_sub(padding).filter(|&end| end >= start) else {
            return Err(Fault::protocol("padding is longer than its frame (RFC 9113 6.2)"));
        };
        // Streams of the server's would have been promised (RFC 9113 §5.1.1).
        if head.stream.is_multiple_of(2) || !R::ANSWERS && self.is_idle_stream(head.stream) {
            return Err(Fault::protocol("HEADERS on a stream that cannot be (RFC 9113 5.1.1)"));
        }
        if R::ANSWERS && head.stream <= self.last_peer && self.streams.find(head.stream).is_none() {
            match self.recent.find(head.stream) {
                Past::Skipped => return Err(Fault::protocol("a stream below one that was opened (RFC 9113 5.1.1)")),
                Past::Ended => {
                    let why = "HEADERS on a closed stream (RFC 9113 5.1)";
                    return Err(Fault { code: ErrorCode::STREAM_CLOSED, why });
                }
                Past::ByUs | Past::ByPeer | Past::Forgotten => {}
            }
        }
        if head.has(PRIORITY)
            && let Some(&[a, b, c, d]) = payload.get(start - 5..start - 1)
        {
            depends([a, b, c, d], head.stream)?;
        }
        let (fragment, end_stream) = (&payload[start..end], head.has(END_STREAM));
        if head.has(END_HEADERS) {
            let block = WholeBlock { now_ms, stream: head.stream, end_stream, bytes: fragment };
            let said = heads(self, block, out)?;
            return Ok(said.map_or(Taken::Payload(payload.len()), |said| Taken::Said(payload.len(), said)));
        }
        self.block =
            Some(Box::new(Block { stream: head.stream, end_stream, continuations: 0, bytes: fragment.to_vec() }));
        Ok(Taken::Payload(payload.len()))
    }

    fn take_continuation(
        &mut self,
        now_ms: u64,
        head: &FrameHead,
        payload: &[u8],
        out: &mut Vec<u8>,
        heads: &mut impl Heads<R>,
    ) -> Result<Taken<R::Head>, Fault> {
        let Some(mut block) = self.block.take() else {
            return Err(Fault::protocol("CONTINUATION that continues nothing (RFC 9113 6.10)"));
        };
        block.continuations += 1;
        if block.continuations > CONTINUATIONS_MAX || block.bytes.len() + payload.len() > BLOCK_BYTES_MAX {
            return Err(Fault::calm("a field block without end"));
        }
        block.bytes.extend_from_slice(payload);
        if !head.has(END_HEADERS) {
            self.block = Some(block);
            return Ok(Taken::Payload(payload.len()));
        }
        let whole = WholeBlock { now_ms, stream: block.stream, end_stream: block.end_stream, bytes: &block.bytes };
        let said = heads(self, whole, out)?;
        Ok(said.map_or(Taken::Payload(payload.len()), |said| Taken::Said(payload.len(), said)))
    }
}

/// What a stream of RFC 7540's priorities depends on is of no interest any more, unless it is itself (RFC 7540 §5.3.1): that nobody means, and to
/// reset the stream for it would be one more way to make us do so.
fn depends(on: [u8; 4], stream: u32) -> Result<(), Fault> {
    if u32::from_be_bytes(on) & StreamId::MAX == stream {
        return Err(Fault::protocol("a stream depends on itself (RFC 7540 5.3.1)"));
    }
    Ok(())
}
