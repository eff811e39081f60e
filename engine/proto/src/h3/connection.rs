//! One HTTP/3 connection, of either side: its requests, and what may be read or written next.
//!
//! QUIC is the caller's: streams, their flow control and what waits on them. The law of every machine holds for each stream by itself:
//! hand in all its unread bytes, act on the step, hand in what it left unread, stop at [`Said::Pause`] or [`Said::Blocked`]. What is to
//! be said for the connection, and what is to be done to streams, is appended to the caller's [`Out`] by whatever method causes it;
//! heads are appended to the caller's bytes of their stream; content never passes through here.

mod control;
mod datagram;
mod read;
mod requests;
mod write;

pub use datagram::Datagram;

use self::write::Written;
use std::marker::PhantomData;
use std::time::Duration;

use super::error::{ErrorCode, Fault};
use super::frame::{self, INTEGER_MAX, Kind, put_integer};
use super::qpack::{Decoder, Encoder};
use super::settings::{self, PeerSettings, put_settings};
use super::streams::{Incoming, Outgoing, Streams};
use super::{Abort, Out, Priority, StreamId};
use crate::compression::TABLE_SIZE_MAX;
use crate::h1::{HeadLimits, Trailers};
use crate::multiplexed::head::list_limits;
use crate::multiplexed::ledger::Ledger;
use crate::multiplexed::recall::Recall;
use crate::role::Role;
use crate::{Event, Malformed};

/// What we allow a peer, and how we present ourselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub heads: HeadLimits,
    /// Requests that a client may have open at once. A server's streams of both directions are to be limited to it; as many again may have been
    /// reset while the work behind them is not let go of. A client begins no more, whatever its server allows.
    pub streams: u16,
    /// Of the table that we keep for the peer's heads; up to 4096.
    pub header_table: u16,
    /// Streams that may wait for entries of that table.
    pub blocked_streams: u16,
    /// A server takes extended CONNECT (RFC 9220).
    pub connect_protocol: bool,
    /// Datagrams of requests are taken (RFC 9297); QUIC's have to be, too.
    pub datagrams: bool,
}

impl Limits {
    /// 100 streams are what RFC 9114 §6.1 asks for at least; sixteen that wait are what other servers allow.
    pub const DEFAULT: Self = Self {
        heads: HeadLimits::DEFAULT,
        streams: 100,
        header_table: TABLE_SIZE_MAX as u16,
        blocked_streams: 16,
        connect_protocol: true,
        datagrams: false,
    };

    /// What our own counters can express: of streams, twice as many as are allowed.
    fn bounded(self) -> Self {
        Self {
            streams: self.streams.min(u16::MAX / 2),
            header_table: self.header_table.min(TABLE_SIZE_MAX as u16),
            ..self
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// One step of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step<H> {
    /// Bytes that were used up before `said`: pass them over, then act.
    pub skipped: usize,
    pub said: Said<H>,
}

/// What the peer said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said<H> {
    /// On a stream, in the language that all protocols share. A head and trailers are in the [`HeadSpace`](super::HeadSpace) until the next
    /// call; the `length` of a head is that of its text there. Content is at the front of the bytes behind [`Step::skipped`]. A
    /// [`Event::Reset`] is the stream's end; its place is free once the caller [lets go](Connection::release) of it.
    Stream(StreamId, Event<H>),
    /// A request that is none. If it is `answerable`, its stream is open for a response with [`Malformed::status`], and for nothing
    /// else; if not, it was reset already.
    Refused { stream: StreamId, why: Malformed, answerable: bool },
    /// How urgent a response is has changed: see [`Connection::priority`].
    Prioritised(StreamId),
    /// The peer takes no more requests, and looks at none from `first` on. Those are said to be [`Malformed::Unprocessed`] next, each.
    /// To a server this says that the client has enough.
    GoneAway { first: StreamId },
    /// The peer's settings are here: see [`Connection::peer_settings`].
    Settings,
    /// What is unread on this stream cannot be understood before something else has arrived. Keep it, and read the stream again when it is
    /// said to be unblocked.
    Blocked,
    /// So read this stream again, when the one that is being read pauses.
    Unblocked(StreamId),
    /// Nothing more can be said on this stream until there are more bytes.
    Pause,
}

/// The machine.
#[derive(Debug)]
pub struct Connection<R: Role> {
    limits: Limits,
    peer: PeerSettings,
    decoder: Decoder,
    encoder: Encoder,
    streams: Streams,
    /// Of those, the ones that have been reset.
    broken: u16,
    /// The ones that wait for entries of the table.
    blocked: u16,
    /// Bytes that the caller holds for all of them.
    held: usize,
    ledger: Ledger<Fault>,
    /// The peer's streams that live as long as the connection, by their types.
    critical: [Option<u64>; CRITICAL],
    /// Streams of one direction whose type has not come.
    untold: Vec<u64>,
    /// What is still to be skipped of a frame on the peer's control stream.
    control_skip: u64,
    /// The peer's settings have come.
    greeted: bool,
    going: Going,
    /// The lowest request that a client has not opened; what a final GOAWAY tells.
    unopened: u64,
    /// The lowest request that no stream was opened for, refused or not.
    beyond: u64,
    /// The first request, or push, that the peer said it would not look at.
    peer_first: Option<u64>,
    /// What a client's last MAX_PUSH_ID said.
    max_push: Option<u64>,
    /// Priorities of requests that have not come yet.
    early: [(u64, Priority); EARLY_MAX],
    /// The last heads and trailers that were read, and written; nothing of an idle connection that was trimmed.
    recall: Option<Box<Recall<R::Head>>>,
    recall_trailers: Option<Box<Recall<Trailers>>>,
    head_written: Option<Box<Written>>,
    trailers_written: Option<Box<Written>>,
    fault: Option<Fault>,
    role: PhantomData<R>,
}

/// Control, and QPACK's two.
const CRITICAL: usize = 3;

/// How we leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Going {
    No,
    /// New requests are still taken, until that time.
    Announced(u64),
    /// None from this one on is.
    Final(u64),
}

/// How long an announced GOAWAY waits before the final one: a slow round trip, for requests that are on their way.
const DRAIN_WAIT_MS: u64 = 1_000;

/// Priorities that are kept before their requests: a client that sends them ahead sends the request next.
const EARLY_MAX: usize = 4;

/// Streams of one direction that may not have told their type: three are needed, a few mean nothing.
const UNTOLD_MAX: usize = 16;

/// Bytes that the caller may have to hold for all streams together because their heads are not complete, or wait for entries: a dozen of the
/// longest, or as many ordinary ones as there are streams.
const HELD_BYTES_MAX: usize = 256 * 1024;

#[inline]
fn ms(now: Duration) -> u64 {
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl<R: Role> Connection<R> {
    pub fn new(limits: Limits) -> Self {
        let limits = limits.bounded();
        Self {
            limits,
            peer: PeerSettings::INITIAL,
            decoder: Decoder::new(limits.header_table as usize),
            encoder: Encoder::new(),
            streams: Streams::default(),
            broken: 0,
            blocked: 0,
            held: 0,
            ledger: Ledger::default(),
            critical: [None; CRITICAL],
            untold: Vec::new(),
            control_skip: 0,
            greeted: false,
            going: Going::No,
            unopened: 0,
            beyond: 0,
            peer_first: None,
            max_push: None,
            early: [(INTEGER_MAX, Priority::default()); EARLY_MAX],
            recall: None,
            recall_trailers: None,
            head_written: None,
            trailers_written: None,
            fault: None,
            role: PhantomData,
        }
    }

    /// Puts what our three streams of one direction begin with (RFC 9114 §6.2.1, RFC 9204 §4.2): once, before anything else. The caller opens
    /// them and writes there what is in `out`, now and after each call. A client may go on with requests at once.
    pub fn start(&mut self, out: &mut Out) {
        let Limits { heads, header_table, blocked_streams, connect_protocol, datagrams, .. } = self.limits;
        put_integer(CONTROL_STREAM, &mut out.control);
        let mut entries = vec![
            (settings::MAX_FIELD_SECTION_SIZE, list_limits(&heads).bytes as u64),
            (settings::QPACK_MAX_TABLE_CAPACITY, u64::from(header_table)),
            (settings::QPACK_BLOCKED_STREAMS, u64::from(blocked_streams)),
            (settings::GREASE, 0),
        ];
        if R::ANSWERS {
            entries.push((settings::ENABLE_CONNECT_PROTOCOL, u64::from(connect_protocol)));
        }
        if datagrams {
            entries.push((settings::H3_DATAGRAM, 1));
        }
        put_settings(&mut out.control, &entries);
        put_integer(ENCODER_STREAM, &mut out.encoder);
        put_integer(DECODER_STREAM, &mut out.decoder);
    }

    /// The error that ended the connection, if one did: close it with that.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// What the peer asks of us.
    pub fn peer_settings(&self) -> &PeerSettings {
        &self.peer
    }

    /// Requests that count: open, or reset and not let go of.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// No request is open. Such a connection may be [trimmed](Self::trim).
    pub fn is_idle(&self) -> bool {
        self.streams.len() == 0 && self.fault.is_none()
    }

    /// Whether a client's request may begin: neither side is leaving, and there are not too many. (How many the server takes is QUIC's to say.)
    pub fn can_open(&self) -> bool {
        !R::ANSWERS && self.is_open() && self.streams.len() < usize::from(self.limits.streams)
    }

    /// Whether a client may ask to leave HTTP by extended CONNECT (RFC 9220 §3). `None`: the server has not said so yet, nor that it has
    /// nothing to say.
    pub fn takes_upgrades(&self) -> Option<bool> {
        self.greeted.then_some(self.peer.enable_connect_protocol)
    }

    /// Neither side is leaving.
    pub fn is_open(&self) -> bool {
        self.fault.is_none() && self.going == Going::No && self.peer_first.is_none()
    }

    /// Nothing will ever happen here again: close the connection, with [`ErrorCode::NO_ERROR`] or the [`fault`](Self::fault), once all that was
    /// put has gone.
    pub fn is_finished(&self) -> bool {
        let left = matches!(self.going, Going::Final(_)) || !R::ANSWERS && self.peer_first.is_some();
        self.fault.is_some() || left && self.streams.len() == 0
    }

    /// All content of the message has been delivered, though its end may not have been told. True of streams that are gone.
    #[inline]
    pub fn is_body_read(&self, stream: StreamId) -> bool {
        self.streams.find(stream.0).is_none_or(|slot| !self.streams[slot].may_say_more())
    }

    /// Whether anything can still be written on the stream. If not, and it was not reset, its end is due: see [`Self::finish`].
    #[inline]
    pub fn is_writable(&self, stream: StreamId) -> bool {
        self.live(stream).is_some_and(|slot| self.streams[slot].outgoing != Outgoing::Ended)
    }

    /// How urgent a stream's content is, in the client's words; nothing if it is gone.
    pub fn priority(&self, stream: StreamId) -> Option<Priority> {
        self.streams.find(stream.0).map(|slot| self.streams[slot].priority)
    }

    /// Gives a stream up and lets go of it; nothing more is said of it. One that is reset already is only let go of.
    pub fn reset(&mut self, stream: StreamId, code: ErrorCode, out: &mut Out) {
        let Some(slot) = self.streams.find(stream.0) else { return };
        if self.fault.is_none() {
            self.give_up(slot, code, out);
        }
        self.remove(slot);
    }

    /// The work behind a stream that was reset has ended: its place is free. (A stream that was not is reset with H3_REQUEST_CANCELLED.)
    pub fn release(&mut self, stream: StreamId, out: &mut Out) {
        self.reset(stream, ErrorCode::REQUEST_CANCELLED, out);
    }

    /// Begins to leave: tells the peer to begin nothing more (RFC 9114 §5.2), in two steps on a server's connection, so that requests which
    /// are on their way are still answered. What is open is finished with in peace.
    pub fn drain(&mut self, now: Duration, out: &mut Out) {
        if self.going != Going::No || self.fault.is_some() {
            return;
        }
        if R::ANSWERS {
            self.going = Going::Announced(ms(now).saturating_add(DRAIN_WAIT_MS));
            put_go_away(REQUEST_MAX, &mut out.control);
        } else {
            // Of pushes, of which there are none.
            self.going = Going::Final(0);
            put_go_away(0, &mut out.control);
        }
    }

    /// When to call [`Connection::expire`] at the latest.
    pub fn next_deadline(&self) -> Option<Duration> {
        match self.going {
            Going::Announced(at) if self.fault.is_none() => Some(Duration::from_millis(at)),
            _ => None,
        }
    }

    /// Does what time asks for.
    pub fn expire(&mut self, now: Duration, out: &mut Out) {
        if let Going::Announced(at) = self.going
            && at <= ms(now)
            && self.fault.is_none()
        {
            self.going = Going::Final(self.unopened);
            put_go_away(self.unopened, &mut out.control);
        }
    }

    /// Whether the processor has no time for a peer's oddities.
    pub fn set_busy(&mut self, busy: bool) {
        self.ledger.busy = busy;
    }

    /// So many of the peer's last requests came to nothing, given up before they were answered or broken, that the next one had better wait until it
    /// is clear whether it is meant.
    pub fn is_doubtful(&self, now: Duration) -> bool {
        self.ledger.is_doubtful(ms(now))
    }

    /// Gives back memory that an idle connection does not need.
    pub fn trim(&mut self) {
        self.streams.trim();
        self.decoder.trim();
        self.encoder.trim();
        self.untold.shrink_to_fit();
        (self.recall, self.recall_trailers) = (None, None);
        (self.head_written, self.trailers_written) = (None, None);
    }

    /// Bytes of memory, this value included.
    pub fn memory(&self) -> usize {
        let untold = self.untold.capacity() * size_of::<u64>();
        let recall = self.recall.as_ref().map_or(0, |recall| recall.memory());
        let recall = recall + self.recall_trailers.as_ref().map_or(0, |recall| recall.memory());
        let written = [&self.head_written, &self.trailers_written].into_iter().flatten().map(|last| last.memory());
        let tables = self.decoder.memory() + self.encoder.memory();
        size_of::<Self>() + self.streams.memory() + tables + untold + recall + written.sum::<usize>()
    }

    /// The slot of a stream that is neither gone nor reset.
    #[inline]
    fn live(&self, stream: StreamId) -> Option<usize> {
        let slot = self.streams.find(stream.0)?;
        (!self.streams[slot].broken && self.fault.is_none()).then_some(slot)
    }

    /// Tells both parts of a stream that it is over, as far as they are open.
    fn give_up(&mut self, slot: usize, code: ErrorCode, out: &mut Out) {
        let stream = &mut self.streams[slot];
        if stream.broken {
            return;
        }
        let id = StreamId(stream.id);
        if stream.outgoing != Outgoing::Ended {
            out.aborts.push(Abort::Reset { stream: id, code });
        }
        self.stop(slot, code, out);
        self.break_off(slot);
    }

    /// Tells a stream's writer that the rest is not wanted, and the peer's encoder that it will not be read.
    fn stop(&self, slot: usize, code: ErrorCode, out: &mut Out) {
        let stream = &self.streams[slot];
        if stream.may_say_more() {
            out.aborts.push(Abort::Stop { stream: StreamId(stream.id), code });
            if !stream.deaf {
                self.decoder.cancel(stream.id, &mut out.decoder);
            }
        }
    }

    /// Takes a stream out of everything but the count.
    fn break_off(&mut self, slot: usize) {
        let stream = &mut self.streams[slot];
        self.broken += u16::from(!stream.broken);
        stream.broken = true;
        self.let_go(slot);
    }

    /// Nobody waits for anything of this stream any more.
    fn let_go(&mut self, slot: usize) {
        let stream = &mut self.streams[slot];
        self.blocked -= u16::from(std::mem::take(&mut stream.awaited) > 0);
        self.held -= std::mem::take(&mut stream.held);
    }

    fn remove(&mut self, slot: usize) {
        self.let_go(slot);
        let stream = &mut self.streams[slot];
        self.broken -= u16::from(stream.broken);
        stream.upgrade = None;
        let id = stream.id;
        self.streams.remove(id);
    }

    /// Both messages are complete.
    #[inline]
    fn settle(&mut self, slot: usize) {
        let stream = &self.streams[slot];
        if stream.incoming == Incoming::Ended && stream.outgoing == Outgoing::Ended && !stream.broken {
            // What a refused one was answered for is charged for.
            if !stream.deaf {
                self.ledger.exchange_completed();
            }
            self.remove(slot);
        }
    }
}

/// Types of streams of one direction (RFC 9114 §6.2, RFC 9204 §4.2).
const CONTROL_STREAM: u64 = 0x0;
const PUSH_STREAM: u64 = 0x1;
const ENCODER_STREAM: u64 = 0x2;
const DECODER_STREAM: u64 = 0x3;

/// The highest identifier of a request: what a GOAWAY tells that refuses none yet.
const REQUEST_MAX: u64 = INTEGER_MAX - 3;

fn put_go_away(id: u64, out: &mut Vec<u8>) {
    frame::put(out, Kind::GoAway, &(id | 3 << 62).to_be_bytes());
}
