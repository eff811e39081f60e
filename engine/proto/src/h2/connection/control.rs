//! Frames that are about the connection, or about a stream and not its messages (RFC 9113 §6.4–§6.9, RFC 9218 §7).

use super::read::Taken;
use super::{Connection, DRAIN_PING, Going, Said, put_settings_ack};
use crate::h2::error::{ErrorCode, Fault};
use crate::h2::frame::{self, ACK, FrameHead};
use crate::h2::ledger::{Offence, SETTINGS_ENTRIES_MAX};
use crate::h2::settings::{PeerSettings, WINDOW_DEFAULT};
use crate::h2::streams::Outgoing;
use crate::h2::{Priority, StreamId};
use crate::role::Role;
use crate::{Event, Malformed};

impl<R: Role> Connection<R> {
    pub(super) fn take_settings(
        &mut self,
        now_ms: u64,
        head: &FrameHead,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Taken<R::Head>, Fault> {
        if head.has(ACK) {
            if self.settings_due.take().is_none() {
                self.ledger.charge(now_ms, Offence::Odd)?;
            } else {
                self.agree();
            }
            return Ok(Taken::Payload(0));
        }
        if head.length > 6 * SETTINGS_ENTRIES_MAX {
            return Err(Fault::calm("too many settings in one frame"));
        }
        self.ledger.charge(now_ms, Offence::Settings)?;
        let PeerSettings { initial_window_size: before, no_rfc7540_priorities: signal, .. } = self.peer;
        let least = self.peer.apply(payload, !R::ANSWERS)?;
        if self.greeted && self.peer.no_rfc7540_priorities != signal {
            return Err(Fault::protocol("NO_RFC7540_PRIORITIES changes (RFC 9218 2.1)"));
        }
        self.greeted = true;
        self.encoder.set_table_max(least as usize);
        self.encoder.set_table_max(self.peer.header_table_size as usize);
        self.shift_windows(i64::from(self.peer.initial_window_size) - i64::from(before))?;
        put_settings_ack(out);
        Ok(Taken::Payload(payload.len()))
    }

    /// The peer has taken our settings in (RFC 9113 §6.5.3).
    pub(super) fn agree(&mut self) {
        self.settings_acknowledged = true;
        self.decoder.set_table_max(self.limits.header_table as usize);
        let more = self.limits.stream_window as i32 - WINDOW_DEFAULT as i32;
        for at in 0..self.streams.len() {
            let slot = self.streams.slot_at(at);
            self.streams[slot].receive_window += more;
        }
    }

    pub(super) fn take_ping(
        &mut self,
        now_ms: u64,
        head: &FrameHead,
        opaque: [u8; 8],
        out: &mut Vec<u8>,
    ) -> Result<Taken<R::Head>, Fault> {
        if !head.has(ACK) {
            self.ledger.charge(now_ms, Offence::Ping)?;
            frame::put_ping(out, ACK, opaque);
            return Ok(Taken::Payload(opaque.len()));
        }
        if opaque == DRAIN_PING {
            if matches!(self.going, Going::Announced(_)) {
                self.leave(out);
            }
            return Ok(Taken::Payload(opaque.len()));
        }
        self.ledger.charge(now_ms, Offence::Odd)?;
        Ok(Taken::Said(opaque.len(), Said::Pong(u64::from_be_bytes(opaque))))
    }

    pub(super) fn take_reset(
        &mut self,
        now_ms: u64,
        head: &FrameHead,
        code: ErrorCode,
        out: &mut Vec<u8>,
    ) -> Result<Taken<R::Head>, Fault> {
        if self.is_idle_stream(head.stream) {
            return Err(Fault::protocol("RST_STREAM on an idle stream (RFC 9113 6.4)"));
        }
        let Some(slot) = self.live(StreamId(head.stream)) else {
            self.ledger.charge(now_ms, Offence::Odd)?;
            return Ok(Taken::Payload(4));
        };
        let unanswered = R::ANSWERS && self.streams[slot].outgoing == Outgoing::Head;
        self.ledger.charge(now_ms, if unanswered { Offence::EarlyReset } else { Offence::Odd })?;
        self.forget_input(head.stream);
        self.break_off(slot, false, out);
        if self.streams[slot].deaf {
            self.remove(slot, out);
        }
        let unprocessed = !R::ANSWERS && code == ErrorCode::REFUSED_STREAM;
        let why = if unprocessed { Malformed::Unprocessed } else { Malformed::Cancelled(code) };
        Ok(Taken::Said(4, Said::Stream(StreamId(head.stream), Event::Reset(why))))
    }

    pub(super) fn take_window_update(
        &mut self,
        now_ms: u64,
        head: &FrameHead,
        increment: u32,
        out: &mut Vec<u8>,
    ) -> Result<Taken<R::Head>, Fault> {
        self.ledger.charge(now_ms, Offence::WindowUpdate)?;
        if head.stream == 0 {
            if increment == 0 {
                return Err(Fault::protocol("WINDOW_UPDATE by nothing (RFC 9113 6.9)"));
            }
            self.send_window = i32::try_from(i64::from(self.send_window) + i64::from(increment))
                .map_err(|_| Fault::flow("the connection's window is beyond 2^31-1 (RFC 9113 6.9.1)"))?;
            return Ok(Taken::Payload(4));
        }
        if self.is_idle_stream(head.stream) {
            return Err(Fault::protocol("WINDOW_UPDATE on an idle stream (RFC 9113 5.1)"));
        }
        let Some(slot) = self.live(StreamId(head.stream)) else { return Ok(Taken::Payload(4)) };
        let code = if increment == 0 {
            ErrorCode::PROTOCOL_ERROR
        } else if !self.streams[slot].widen(i64::from(increment)) {
            ErrorCode::FLOW_CONTROL_ERROR
        } else {
            self.streams.relist(slot);
            return Ok(Taken::Payload(4));
        };
        let said = self.break_stream(now_ms, head.stream, code, Malformed::Stream(code), out)?;
        Ok(said.map_or(Taken::Payload(4), |said| Taken::Said(4, said)))
    }

    /// A client says how urgent a response is, before it asks or after (RFC 9218 §7.1).
    pub(super) fn take_priority_update(&mut self, now_ms: u64, payload: &[u8]) -> Result<Taken<R::Head>, Fault> {
        self.ledger.charge(now_ms, Offence::Priority)?;
        let (id, field) = payload.split_at(4);
        let id = id.iter().fold(0, |id, &byte| id << 8 | u32::from(byte)) & StreamId::MAX;
        if id.is_multiple_of(2) {
            return Err(Fault::protocol("PRIORITY_UPDATE for no request (RFC 9218 7.1)"));
        }
        let priority = Priority::parse(field);
        if self.is_idle_stream(id) {
            self.keep_early(id, priority)?;
        } else {
            self.set_priority(StreamId(id), priority);
        }
        Ok(Taken::Payload(payload.len()))
    }

    /// Keeps the priority of a request that is yet to come.
    fn keep_early(&mut self, id: u32, priority: Priority) -> Result<(), Fault> {
        let active = self.streams.all().filter(|&slot| !self.streams[slot].broken).count();
        let early = self.early.iter().filter(|(other, _)| *other > self.last_peer && *other != id).count();
        if active + early >= self.limits.streams as usize {
            return Err(Fault::protocol("more streams are prioritised than may be open (RFC 9218 7.1)"));
        }
        // The lowest is taken or long gone, or else the one that its request can do without.
        if let Some(place) = self.early.iter_mut().min_by_key(|(other, _)| if *other == id { 0 } else { *other }) {
            *place = (id, priority);
        }
        Ok(())
    }
}
