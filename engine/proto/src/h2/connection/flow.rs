//! Content: how much may come, how much may go, and whose goes next (RFC 9113 §5.2, §6.9; RFC 9218 §10).

use std::time::Duration;

use super::{Connection, ms};
use crate::h1::Refused;
use crate::h2::StreamId;
use crate::h2::error::{ErrorCode, Fault};
use crate::h2::frame::{self, END_STREAM, FrameHead, Kind};
use crate::h2::ledger::Offence;
use crate::h2::settings::{FRAME_SIZE_DEFAULT, WINDOW_DEFAULT};
use crate::h2::streams::{Incoming, Outgoing, Past, Progress, UNKNOWN};
use crate::role::Role;

/// One DATA frame that may go now: `head`, then so many bytes of the stream's content, then `suffix`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataFrame {
    pub stream: StreamId,
    pub head: [u8; FrameHead::LEN],
    pub payload: usize,
    /// The message ends with it.
    pub last: bool,
    /// Tells a client that the rest of its request is not wanted any more (RFC 9113 §8.1). Nearly always nothing.
    pub suffix: Option<[u8; RESET_LEN]>,
}

const RESET_LEN: usize = FrameHead::LEN + 4;

impl<R: Role> Connection<R> {
    /// So many bytes of content that were delivered have been passed on: the peer may send as many again. No credit, no window; for
    /// streams that are gone this does nothing, for theirs was given back when they went.
    #[inline]
    pub fn credit(&mut self, stream: StreamId, bytes: usize, out: &mut Vec<u8>) {
        let Some(slot) = self.live(stream) else { return };
        let owed = &mut self.streams[slot].owed;
        let given = (*owed).min(u32::try_from(bytes).unwrap_or(u32::MAX));
        *owed -= given;
        self.streams[slot].credit += given;
        self.credit += given;
        self.tell_stream_credit(slot, out);
        self.tell_credit(out);
    }

    /// So many more bytes of content wait to be sent on the stream, in memory of the caller's.
    ///
    /// # Errors
    /// [`Refused::Length`]: more than the head promised, and the stream was reset; [`Refused::Gone`]: it takes no content.
    #[inline]
    pub fn queue(&mut self, now: Duration, stream: StreamId, bytes: usize, out: &mut Vec<u8>) -> Result<(), Refused> {
        let slot = self.live(stream).filter(|&slot| self.streams[slot].outgoing == Outgoing::Content);
        let slot = slot.ok_or(Refused::Gone)?;
        let entry = &mut self.streams[slot];
        let queued =
            u32::try_from(bytes).ok().and_then(|bytes| entry.queued.checked_add(bytes)).ok_or(Refused::Full)?;
        if entry.outgoing_left != UNKNOWN {
            let Some(left) = entry.outgoing_left.checked_sub(bytes as u64) else {
                self.reset(stream, ErrorCode::INTERNAL_ERROR, out);
                return Err(Refused::Length);
            };
            entry.outgoing_left = left;
        }
        if entry.queued == 0 && bytes > 0 {
            entry.progress = Progress::begin(ms(now));
        }
        entry.queued = queued;
        self.streams.relist(slot);
        self.watch_stalls(ms(now), slot);
        Ok(())
    }

    /// Bytes that the stream has waiting.
    #[inline]
    pub fn queued(&self, stream: StreamId) -> usize {
        self.streams.find(stream.0).map_or(0, |slot| self.streams[slot].queued as usize)
    }

    /// The message is complete with what is queued. With nothing queued its end is put at once. A message that has ended already, as
    /// one whose head promised no content, is no error.
    ///
    /// # Errors
    /// [`Refused::Length`]: the head promised more, and the stream was reset, so that the peer notices; [`Refused::Gone`]: there is
    /// no such message.
    #[inline]
    pub fn finish(&mut self, stream: StreamId, out: &mut Vec<u8>) -> Result<(), Refused> {
        let Some(slot) = self.live(stream) else { return Err(Refused::Gone) };
        let entry = &mut self.streams[slot];
        match entry.outgoing {
            Outgoing::Head => return Err(Refused::Gone),
            Outgoing::Ending | Outgoing::Ended => return Ok(()),
            Outgoing::Content if !matches!(entry.outgoing_left, 0 | UNKNOWN) => {
                self.reset(stream, ErrorCode::INTERNAL_ERROR, out);
                return Err(Refused::Length);
            }
            Outgoing::Content if entry.queued > 0 => entry.outgoing = Outgoing::Ending,
            Outgoing::Content => {
                frame::put(out, Kind::Data, END_STREAM, stream.0, &[]);
                self.end_outgoing(slot, out);
            }
        }
        Ok(())
    }

    /// The next frame of content that may go, of `most` bytes at most; `None` when none may. Ask until then, once a turn: everything
    /// leaves in one write.
    #[inline]
    pub fn next_data(&mut self, now: Duration, most: usize) -> Option<DataFrame> {
        let slot = self.streams.pick()?;
        if self.send_window <= 0 || self.fault.is_some() {
            return None;
        }
        let size_max = self.peer.max_frame_size.min(FRAME_SIZE_DEFAULT);
        let stream = &mut self.streams[slot];
        let window = stream.send_window.min(self.send_window) as u32;
        let payload = stream.queued.min(window).min(size_max).min(u32::try_from(most).unwrap_or(u32::MAX));
        if payload == 0 {
            return None;
        }
        stream.queued -= payload;
        stream.send_window -= payload as i32;
        stream.progress.pass(ms(now), payload);
        let last = stream.outgoing == Outgoing::Ending && stream.queued == 0;
        let id = stream.id;
        self.send_window -= payload as i32;
        self.progress.pass(ms(now), payload);
        self.streams.rotate(slot);
        self.watch_stalls(ms(now), slot);
        self.ledger.data_sent();
        let head = FrameHead::new(Kind::Data, if last { END_STREAM } else { 0 }, id, payload as usize).to_bytes();
        let suffix = if last { self.end_with_suffix(slot) } else { None };
        Some(DataFrame { stream: StreamId(id), head, payload: payload as usize, last, suffix })
    }

    /// The last of a message has been put.
    pub(super) fn end_outgoing(&mut self, slot: usize, out: &mut Vec<u8>) {
        if let Some(suffix) = self.end_with_suffix(slot) {
            out.extend_from_slice(&suffix);
        }
        self.tell_credit(out);
    }

    /// The same; what is to be put behind it is returned, and credit is told of another time.
    fn end_with_suffix(&mut self, slot: usize) -> Option<[u8; RESET_LEN]> {
        let stream = &mut self.streams[slot];
        stream.outgoing = Outgoing::Ended;
        let id = stream.id;
        let unread = R::ANSWERS && !stream.connect && stream.incoming != Incoming::Ended;
        if !unread && stream.incoming != Incoming::Ended {
            return None;
        }
        stream.broken_by_us = unread;
        self.credit += std::mem::take(&mut stream.owed);
        if stream.deaf {
            // What it was answered for is charged for, once it is over.
            stream.deaf = false;
        } else {
            self.ledger.exchange_completed();
        }
        self.recent.push(id, if unread { Past::ByUs } else { Past::Ended });
        self.streams.remove(slot);
        unread.then(|| {
            let mut suffix = [0; RESET_LEN];
            suffix[..FrameHead::LEN].copy_from_slice(&FrameHead::new(Kind::Reset, 0, id, 4).to_bytes());
            suffix[FrameHead::LEN..].copy_from_slice(&ErrorCode::NO_ERROR.0.to_be_bytes());
            suffix
        })
    }

    /// Tells the peer of the connection's credit, if it is worth a frame.
    #[inline]
    pub(super) fn tell_credit(&mut self, out: &mut Vec<u8>) {
        if self.credit >= self.limits.connection_window.max(WINDOW_DEFAULT) / 2 && self.fault.is_none() {
            frame::put_window_update(out, 0, self.credit);
            self.receive_window += self.credit as i32;
            self.credit = 0;
        }
    }

    /// Tells the peer of a stream's credit, if it is worth a frame and more can come.
    #[inline]
    pub(super) fn tell_stream_credit(&mut self, slot: usize, out: &mut Vec<u8>) {
        let stream = &mut self.streams[slot];
        let worth = stream.credit >= self.limits.stream_window / 2 && stream.credit > 0;
        if worth && stream.incoming == Incoming::Content && stream.incoming_left != 0 {
            frame::put_window_update(out, stream.id, stream.credit);
            stream.receive_window += stream.credit as i32;
            stream.credit = 0;
        }
    }

    /// The peer has changed the window that streams begin with (RFC 9113 §6.9.2).
    pub(super) fn shift_windows(&mut self, by: i64) -> Result<(), Fault> {
        for at in 0..if by == 0 { 0 } else { self.streams.len() } {
            let slot = self.streams.slot_at(at);
            if !self.streams[slot].widen(by) {
                return Err(Fault::flow("a stream's window is beyond 2^31-1 (RFC 9113 6.9.2)"));
            }
            self.streams.relist(slot);
        }
        Ok(())
    }

    /// If content waits for a window, it is looked after in time.
    #[inline]
    fn watch_stalls(&mut self, now_ms: u64, slot: usize) {
        let stream = &mut self.streams[slot];
        if self.send_window <= 0 {
            self.progress.block(now_ms);
        } else if stream.queued == 0 || stream.send_window > 0 {
            return;
        }
        if stream.queued > 0 && stream.send_window <= 0 {
            stream.progress.block(now_ms);
        }
        self.stalls_due.get_or_insert(now_ms.saturating_add(ms(self.limits.stall_timeout)));
    }

    /// Resets one stream whose peer has not opened a window for what waits, and asks to be called again.
    ///
    /// A trickle does not count as reading: windows of a byte keep memory as well as windows of none. A stream that waits for its turn
    /// or for our own socket is not stalled.
    pub(super) fn reap(&mut self, now_ms: u64, out: &mut Vec<u8>) -> Result<Option<StreamId>, Fault> {
        if self.stalls_due.is_none_or(|due| due > now_ms) {
            return Ok(None);
        }
        let patience = ms(self.limits.stall_timeout);
        let mut next: Option<u64> = None;
        for at in 0..self.streams.len() {
            let slot = self.streams.slot_at(at);
            let stream = &mut self.streams[slot];
            if stream.queued == 0 || stream.broken {
                continue;
            }
            let since = if stream.send_window <= 0 {
                stream.progress.block(now_ms);
                stream.progress.since_ms
            } else if self.send_window <= 0 {
                self.progress.block(now_ms);
                stream.progress.since_ms.max(self.progress.since_ms)
            } else {
                continue;
            };
            let due = since.saturating_add(patience);
            if due <= now_ms {
                let id = stream.id;
                self.ledger.charge(now_ms, Offence::MadeReset).inspect_err(|&fault| self.fail(fault, out))?;
                frame::put_reset(out, id, ErrorCode::ENHANCE_YOUR_CALM);
                self.forget_input(id);
                self.break_off(slot, true, out);
                return Ok(Some(StreamId(id)));
            }
            next = Some(next.map_or(due, |next| next.min(due)));
        }
        self.stalls_due = next;
        Ok(None)
    }
}
