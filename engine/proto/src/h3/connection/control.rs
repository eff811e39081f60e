//! The peer's streams that are about the connection: its control stream (RFC 9114 §7.2), and what QPACK has to say (RFC 9204 §4.3, §4.4).

use super::read::{Reading, Taken, why_corrupt};
use super::{Connection, INTEGER_MAX, Said};
use crate::h3::error::{ErrorCode, Fault};
use crate::h3::frame::{FrameHead, Kind, only_integer, read_integer};
use crate::h3::settings::SETTINGS_BYTES_MAX;
use crate::h3::streams::Stream;
use crate::h3::{HeadSpace, Out, Priority, StreamId};
use crate::multiplexed::ledger::{Offence, PRIORITY_BYTES_MAX};
use crate::role::Role;
use crate::{Event, Malformed};

impl<R: Role> Connection<R> {
    /// Bytes of the critical stream of that place.
    pub(super) fn take_of_critical(
        &mut self,
        place: u64,
        reading: Reading<'_>,
        space: &mut HeadSpace,
        out: &mut Out,
    ) -> Result<Taken<R::Head>, Fault> {
        let taken = match place {
            0 => self.take_control(reading, out)?,
            1 => self.take_instruction(reading, space, out)?,
            _ => self.take_feedback(reading)?,
        };
        if let Taken::Rest(_) = taken
            && reading.fin
        {
            return self.lose_critical();
        }
        Ok(taken)
    }

    /// What the peer's encoder does to the table.
    fn take_instruction(
        &mut self,
        reading: Reading<'_>,
        space: &mut HeadSpace,
        out: &mut Out,
    ) -> Result<Taken<R::Head>, Fault> {
        let encoder_error = |corrupt| Fault::new(ErrorCode::QPACK_ENCODER_STREAM_ERROR, why_corrupt(corrupt));
        match self.decoder.instruct(reading.bytes, &mut space.text).map_err(encoder_error)? {
            Some(length) => {
                self.ledger.charge(reading.now_ms, Offence::Instruction)?;
                Ok(Taken::Bytes(length))
            }
            None => {
                if let Some(stream) = self.unblock() {
                    return Ok(Taken::Said(0, Said::Unblocked(stream)));
                }
                self.decoder.tell_inserted(&mut out.decoder);
                Ok(Taken::Rest(0))
            }
        }
    }

    /// A stream that waits no longer.
    fn unblock(&mut self) -> Option<StreamId> {
        if self.blocked == 0 {
            return None;
        }
        let inserted = self.decoder.inserted();
        let slot = self.streams.all().find(|&slot| (1..=inserted).contains(&self.streams[slot].awaited))?;
        self.streams[slot].awaited = 0;
        self.blocked -= 1;
        Some(StreamId(self.streams[slot].id))
    }

    /// What the peer's decoder has read.
    fn take_feedback(&mut self, reading: Reading<'_>) -> Result<Taken<R::Head>, Fault> {
        let decoder_error = |why| Fault::new(ErrorCode::QPACK_DECODER_STREAM_ERROR, why);
        let heard = self.encoder.hear(reading.bytes).map_err(decoder_error)?;
        if heard.is_some() {
            self.ledger.charge(reading.now_ms, Offence::Instruction)?;
        }
        Ok(heard.map_or(Taken::Rest(0), Taken::Bytes))
    }

    fn take_control(&mut self, reading: Reading<'_>, out: &mut Out) -> Result<Taken<R::Head>, Fault> {
        let Reading { now_ms, bytes, .. } = reading;
        if let Some(orphan) = self.take_orphan(out) {
            return Ok(Taken::Said(0, Said::Stream(orphan, Event::Reset(Malformed::Unprocessed))));
        }
        if self.control_skip > 0 {
            let taken = bytes.len().min(usize::try_from(self.control_skip).unwrap_or(usize::MAX));
            self.control_skip -= taken as u64;
            self.ledger.carried(taken, 0)?;
            return Ok(if taken > 0 { Taken::Bytes(taken) } else { Taken::Rest(0) });
        }
        let Some((head, length)) = FrameHead::parse(bytes) else { return Ok(Taken::Rest(0)) };
        if !self.greeted && head.kind != Kind::Settings {
            return Err(Fault::new(ErrorCode::MISSING_SETTINGS, "the first frame is not SETTINGS (RFC 9114 6.2.1)"));
        }
        let length_max = match head.kind {
            Kind::Settings => SETTINGS_BYTES_MAX,
            Kind::PriorityUpdate | Kind::PriorityUpdatePush => u64::from(PRIORITY_BYTES_MAX),
            Kind::GoAway | Kind::MaxPushId | Kind::CancelPush => INTEGER_BYTES_MAX,
            Kind::Unknown(_) => {
                self.ledger.charge(now_ms, Offence::Odd)?;
                self.ledger.carried(length, 0)?;
                self.control_skip = head.length;
                return Ok(Taken::Bytes(length));
            }
            Kind::Data | Kind::Headers | Kind::PushPromise => {
                return Err(Fault::unexpected("a frame of a request on the control stream (RFC 9114 7.2)"));
            }
            Kind::Http2(_) => return Err(Fault::unexpected("a frame of HTTP/2 (RFC 9114 7.2.8)")),
        };
        if head.length > length_max {
            return Err(match head.kind {
                Kind::GoAway | Kind::MaxPushId | Kind::CancelPush => {
                    Fault::frame("a frame is longer than what it holds (RFC 9114 7.1)")
                }
                _ => Fault::calm("a frame of control that is too long"),
            });
        }
        let Some(payload) = bytes[length..].get(..head.length as usize) else { return Ok(Taken::Rest(0)) };
        let said = self.take_control_frame(now_ms, head.kind, payload, out)?;
        let whole = length + payload.len();
        Ok(said.map_or(Taken::Bytes(whole), |said| Taken::Said(whole, said)))
    }

    fn take_control_frame(
        &mut self,
        now_ms: u64,
        kind: Kind,
        payload: &[u8],
        out: &mut Out,
    ) -> Result<Option<Said<R::Head>>, Fault> {
        match kind {
            Kind::Settings if self.greeted => Err(Fault::unexpected("a second SETTINGS (RFC 9114 7.2.4)")),
            Kind::Settings => {
                self.peer.apply(payload)?;
                self.greeted = true;
                self.encoder.set_table_max(self.peer.qpack_max_table_capacity, &mut out.encoder);
                Ok(Some(Said::Settings))
            }
            Kind::GoAway => self.take_go_away(now_ms, only_integer(payload)?),
            Kind::CancelPush => {
                only_integer(payload)?;
                Err(Fault::id("CANCEL_PUSH of what nobody promised (RFC 9114 7.2.3)"))
            }
            Kind::MaxPushId if !R::ANSWERS => Err(Fault::unexpected("a server sends MAX_PUSH_ID (RFC 9114 7.2.7)")),
            Kind::MaxPushId => {
                let most = only_integer(payload)?;
                self.ledger.charge(now_ms, Offence::Odd)?;
                if self.max_push.is_some_and(|before| most < before) {
                    return Err(Fault::id("MAX_PUSH_ID goes down (RFC 9114 7.2.7)"));
                }
                self.max_push = Some(most);
                Ok(None)
            }
            Kind::PriorityUpdate | Kind::PriorityUpdatePush if !R::ANSWERS => {
                Err(Fault::unexpected("a server sends PRIORITY_UPDATE (RFC 9218 7.2)"))
            }
            Kind::PriorityUpdatePush => Err(Fault::id("PRIORITY_UPDATE of a push that is none (RFC 9218 7.2)")),
            _ => self.take_priority_update(now_ms, payload),
        }
    }

    /// §5.2: the first request that is not looked at; to a server, the first push.
    fn take_go_away(&mut self, now_ms: u64, first: u64) -> Result<Option<Said<R::Head>>, Fault> {
        self.ledger.charge(now_ms, Offence::Odd)?;
        if !R::ANSWERS && !StreamId(first).is_request() {
            return Err(Fault::id("GOAWAY tells of no request (RFC 9114 7.2.6)"));
        }
        if self.peer_first.is_some_and(|before| first > before) {
            return Err(Fault::id("GOAWAY goes up (RFC 9114 5.2)"));
        }
        self.peer_first = Some(first);
        Ok(Some(Said::GoneAway { first: StreamId(first) }))
    }

    /// The next request that a server which has gone did not look at. It is over for both.
    fn take_orphan(&mut self, out: &mut Out) -> Option<StreamId> {
        let first = self.peer_first.filter(|_| !R::ANSWERS)?;
        loop {
            let slot = self.streams.all().next_back()?;
            let &Stream { id, broken: told, .. } = &self.streams[slot];
            if id < first {
                return None;
            }
            self.give_up(slot, ErrorCode::REQUEST_CANCELLED, out);
            self.remove(slot);
            if !told {
                return Some(StreamId(id));
            }
        }
    }

    /// A client says how urgent a response is, before it asks or after (RFC 9218 §7.2).
    fn take_priority_update(&mut self, now_ms: u64, payload: &[u8]) -> Result<Option<Said<R::Head>>, Fault> {
        self.ledger.charge(now_ms, Offence::Priority)?;
        let (id, length) =
            read_integer(payload).ok_or(Fault::frame("PRIORITY_UPDATE without a stream (RFC 9218 7.2)"))?;
        if !StreamId(id).is_request() {
            return Err(Fault::id("PRIORITY_UPDATE for no request (RFC 9218 7.2)"));
        }
        let priority = Priority::parse(&payload[length..]);
        if let Some(slot) = self.live(StreamId(id)) {
            let stream = &mut self.streams[slot];
            (stream.priority, stream.prioritised) = (priority, true);
            return Ok(Some(Said::Prioritised(StreamId(id))));
        }
        // The lowest is taken or long gone, or else the one that its request can do without.
        if id >= self.unopened
            && let Some(place) = self.early.iter_mut().min_by_key(|(other, _)| match *other {
                other if other == id => 0,
                INTEGER_MAX => 1,
                other => other + 2,
            })
        {
            *place = (id, priority);
        }
        Ok(None)
    }
}

/// Bytes of the longest integer.
const INTEGER_BYTES_MAX: u64 = 8;
