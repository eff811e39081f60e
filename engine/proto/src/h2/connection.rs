//! One HTTP/2 connection, of either side: its streams, and what may be read or written next.
//!
//! The law of every machine holds: hand in all unread bytes, act on the step, hand in what it left unread, stop at
//! [`Said::Pause`]. What a connection must say for itself (acknowledgements, credit, resets, GOAWAY) is appended to the caller's `out`
//! by whatever method causes it, and so are heads; content never passes through here: [`Connection::next_data`] says whose turn it is
//! and how much, and gives the nine bytes to put before it.

mod blocks;
mod control;
mod flow;
mod read;
mod write;

use std::marker::PhantomData;
use std::time::Duration;

use super::error::{ErrorCode, Fault};
use super::frame::{self, Kind};
use super::hpack::{Decoder, Encoder, TABLE_SIZE_DEFAULT};
use super::ledger::Ledger;
use super::settings::{self, PeerSettings, WINDOW_DEFAULT, WINDOW_MAX, put_settings};
use super::streams::{Incoming, Outgoing, Past, Progress, Recent, Streams};
use super::{Priority, StreamId};
use crate::h1::{HeadLimits, Trailers};
use crate::multiplexed::recall::Recall;
use crate::multiplexed::repeat::Repeat;
use crate::role::Role;
use crate::{Event, Malformed};

pub use flow::DataFrame;

/// What we allow a peer, and how we present ourselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub heads: HeadLimits,
    /// Streams that the peer may have open at once. As many again may have been reset while the work behind them is not let go of.
    pub streams: u16,
    /// Bytes of content that a stream may be ahead of the credit it is given.
    pub stream_window: u32,
    /// The same for all streams together, 65,535 at least: the most that a stalled caller has to hold for one connection.
    pub connection_window: u32,
    /// Of the table that we keep for the peer's heads; up to 4096.
    pub header_table: u16,
    /// How long the peer may take to acknowledge our settings.
    pub settings_timeout: Duration,
    /// How long a stream may have content for which its peer opens no window.
    pub stall_timeout: Duration,
    /// A server takes extended CONNECT (RFC 8441).
    pub connect_protocol: bool,
    /// A client's scheme: `https`, or else `http`.
    pub secure: bool,
}

impl Limits {
    /// 100 streams are what RFC 9113 §6.5.2 asks for at least and what browsers use; 64 KiB a stream is what a relay holds on its way,
    /// and a MiB lets sixteen of them flow; ten seconds are three lost packets on a bad path; half a minute without a byte read is
    /// nobody waiting.
    pub const DEFAULT: Self = Self {
        heads: HeadLimits::DEFAULT,
        streams: 100,
        stream_window: 64 * 1024,
        connection_window: 1024 * 1024,
        header_table: 4096,
        settings_timeout: Duration::from_secs(10),
        stall_timeout: Duration::from_secs(30),
        connect_protocol: true,
        secure: true,
    };
}

impl Limits {
    /// What the protocol and our own counters can express: of streams, twice as many as are allowed.
    fn bounded(self) -> Self {
        Self {
            streams: self.streams.min(u16::MAX / 2),
            stream_window: self.stream_window.min(WINDOW_MAX),
            connection_window: self.connection_window.min(WINDOW_MAX),
            header_table: self.header_table.min(TABLE_SIZE_DEFAULT as u16),
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
    /// The peer takes no more streams, and looked at none above `last`. Those are said to be [`Malformed::Unprocessed`] next, each.
    GoneAway { last: StreamId, code: ErrorCode },
    /// The answer to [`Connection::ping`].
    Pong(u64),
    /// Nothing more can be said until there are more bytes. Now is the time to send.
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
    recent: Recent,
    ledger: Ledger<Fault>,
    input: Input,
    /// A field block that is not complete.
    block: Option<Box<Block>>,
    /// The last head and trailers that were read, and those that were written.
    recall: Option<Box<Recall<R::Head>>>,
    recall_trailers: Option<Box<Recall<Trailers>>>,
    head_written: Option<Box<Repeat>>,
    trailers_written: Option<Box<Repeat>>,
    send_window: i32,
    receive_window: i32,
    /// Credit of the whole connection that the peer has not been told of.
    credit: u32,
    /// The highest stream that the peer opened.
    last_peer: u32,
    /// The stream that we open next.
    next_id: u32,
    /// When the peer must have acknowledged our settings, in milliseconds.
    settings_due: Option<u64>,
    settings_acknowledged: bool,
    /// The peer's first frame has come, which is SETTINGS.
    greeted: bool,
    going: Going,
    /// Priorities of requests that have not come yet.
    early: [(u32, Priority); EARLY_MAX],
    /// The last stream that the peer will look at; `u32::MAX` while it takes them all.
    peer_last: u32,
    /// When to look for streams that are not read of.
    stalls_due: Option<u64>,
    /// Whether the connection's window lets enough through.
    progress: Progress,
    /// Bytes of answers since the last [`Connection::sent`], and before it since the one before.
    unsent: [usize; 2],
    fault: Option<Fault>,
    /// For the law: bytes that the last step left unread.
    #[cfg(debug_assertions)]
    unread: usize,
    role: PhantomData<R>,
}

/// Where in the peer's bytes the next one stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    /// Within the client's preface, of which so much has come.
    Preface(u8),
    /// Before a frame.
    Frame,
    /// Within content.
    Content { stream: u32, left: u32, padding: u8, end: bool },
    /// Within bytes that mean nothing; behind them, the stream may have ended.
    Skip { left: u32, end: Option<u32> },
    /// A message is complete, and nobody has been told.
    End { stream: u32, trailers: bool },
    /// The peer is gone: the streams that it did not look at are told.
    Orphans,
}

/// A field block, gathered from several frames.
#[derive(Debug)]
struct Block {
    stream: u32,
    end_stream: bool,
    continuations: u8,
    bytes: Vec<u8>,
}

/// How we leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Going {
    No,
    /// New streams are still taken, until the peer has certainly heard of it, or at that time.
    Announced(u64),
    /// None above this one is.
    Final(u32),
}

/// What the PING carries that shows when an announced GOAWAY has arrived.
const DRAIN_PING: [u8; 8] = *b"drainage";

/// How long an announced GOAWAY waits for that PING's answer: a slow round trip.
const DRAIN_WAIT_MS: u64 = 1_000;

/// Priorities that are kept before their requests: a client that sends them ahead sends the request next.
const EARLY_MAX: usize = 4;

/// Streams that a client opens before it has seen what the server allows; RFC 9113 §6.5.2 recommends servers to allow no fewer.
const STREAMS_UNTOLD: u32 = 100;

#[inline]
fn ms(now: Duration) -> u64 {
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl<R: Role> Connection<R> {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits: limits.bounded(),
            peer: PeerSettings::INITIAL,
            decoder: Decoder::new(),
            encoder: Encoder::new(),
            streams: Streams::default(),
            broken: 0,
            recent: Recent::default(),
            ledger: Ledger::default(),
            input: if R::ANSWERS { Input::Preface(0) } else { Input::Frame },
            block: None,
            recall: None,
            recall_trailers: None,
            head_written: None,
            trailers_written: None,
            send_window: WINDOW_DEFAULT as i32,
            receive_window: WINDOW_DEFAULT as i32,
            credit: 0,
            last_peer: 0,
            next_id: 1,
            settings_due: None,
            settings_acknowledged: false,
            greeted: false,
            going: Going::No,
            early: Default::default(),
            peer_last: u32::MAX,
            stalls_due: None,
            progress: Progress::default(),
            unsent: [0; 2],
            fault: None,
            #[cfg(debug_assertions)]
            unread: 0,
            role: PhantomData,
        }
    }

    /// Puts the connection preface into `out` (RFC 9113 §3.4): once, before anything else. A client may go on with requests at once.
    pub fn start(&mut self, now: Duration, out: &mut Vec<u8>) {
        let Limits { heads, streams, stream_window, connection_window, header_table, .. } = self.limits;
        let list = crate::multiplexed::head::list_limits(&heads).bytes as u32;
        let common = [
            (settings::HEADER_TABLE_SIZE, u32::from(header_table)),
            (settings::INITIAL_WINDOW_SIZE, stream_window),
            (settings::MAX_HEADER_LIST_SIZE, list),
            (settings::NO_RFC7540_PRIORITIES, 1),
        ];
        let own = if R::ANSWERS {
            [
                (settings::MAX_CONCURRENT_STREAMS, u32::from(streams)),
                (settings::ENABLE_CONNECT_PROTOCOL, u32::from(self.limits.connect_protocol)),
            ]
        } else {
            out.extend_from_slice(frame::PREFACE);
            [(settings::ENABLE_PUSH, 0), (settings::MAX_CONCURRENT_STREAMS, 0)]
        };
        let [a, b, c, d] = common;
        put_settings(out, &[a, b, c, d, own[0], own[1]]);
        self.settings_due = Some(ms(now).saturating_add(ms(self.limits.settings_timeout)));
        if let Some(more) = connection_window.checked_sub(WINDOW_DEFAULT).filter(|&more| more > 0) {
            frame::put_window_update(out, 0, more);
            self.receive_window += more as i32;
        }
    }

    /// The error that ended the connection, if one did. GOAWAY has been put: send it, then close.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// What the peer asks of us.
    pub fn peer_settings(&self) -> &PeerSettings {
        &self.peer
    }

    /// Streams that count: open, or reset and not let go of.
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Nothing is open, half said or owed. Such a connection may be parked, or [trimmed](Self::trim).
    pub fn is_idle(&self) -> bool {
        self.streams.len() == 0 && self.block.is_none() && matches!(self.input, Input::Frame) && self.fault.is_none()
    }

    /// Whether a client's request may begin now: the server allows one more, takes new ones, and there are identifiers left.
    pub fn can_open(&self) -> bool {
        !R::ANSWERS && self.is_open() && (self.streams.len() as u64) < u64::from(self.streams_allowed())
    }

    /// Whether a client may ask to leave HTTP by extended CONNECT (RFC 8441 §3). `None`: the server has not said so yet, nor that it has
    /// nothing to say.
    pub fn takes_upgrades(&self) -> Option<bool> {
        self.greeted.then_some(self.peer.enable_connect_protocol)
    }

    /// Whether requests may begin, if not now: neither side is leaving, and identifiers are left.
    pub fn is_open(&self) -> bool {
        self.fault.is_none() && self.going == Going::No && self.peer_last == u32::MAX && self.next_id <= StreamId::MAX
    }

    /// Streams that the server lets us have open at once.
    pub fn streams_allowed(&self) -> u32 {
        if self.greeted { self.peer.max_concurrent_streams } else { STREAMS_UNTOLD }
    }

    /// Nothing will ever happen here again: close the connection once what is in `out` has been sent.
    pub fn is_finished(&self) -> bool {
        let left = matches!(self.going, Going::Final(_)) || !R::ANSWERS && self.peer_last != u32::MAX;
        self.fault.is_some() || left && self.streams.len() == 0
    }

    /// All content of the message has been delivered, though its end may not have been told. True of streams that are gone.
    #[inline]
    pub fn is_body_read(&self, stream: StreamId) -> bool {
        self.streams.find(stream.0).is_none_or(|slot| self.streams[slot].incoming == Incoming::Ended)
    }

    /// Whether anything can still be written on the stream.
    #[inline]
    pub fn is_writable(&self, stream: StreamId) -> bool {
        self.live(stream).is_some_and(|slot| self.streams[slot].outgoing != Outgoing::Ended)
    }

    /// How urgent a stream's content is; the client's word stands until this is called.
    pub fn set_priority(&mut self, stream: StreamId, priority: Priority) {
        if let Some(slot) = self.streams.find(stream.0) {
            self.streams.set_priority(slot, priority);
        }
    }

    pub fn priority(&self, stream: StreamId) -> Option<Priority> {
        self.streams.find(stream.0).map(|slot| self.streams[slot].priority)
    }

    /// Gives a stream up (RFC 9113 §5.4.2) and lets go of it; nothing more is said of it. One that the peer has reset already is only let
    /// go of.
    pub fn reset(&mut self, stream: StreamId, code: ErrorCode, out: &mut Vec<u8>) {
        let Some(slot) = self.streams.find(stream.0) else { return };
        if !self.streams[slot].broken && self.fault.is_none() {
            frame::put_reset(out, stream.0, code);
            self.streams[slot].broken_by_us = true;
        }
        self.forget_input(stream.0);
        self.remove(slot, out);
    }

    /// The work behind a stream that was reset has ended: its place is free. (A stream that was not is reset with CANCEL.)
    pub fn release(&mut self, stream: StreamId, out: &mut Vec<u8>) {
        self.reset(stream, ErrorCode::CANCEL, out);
    }

    /// Begins to leave: tells the peer to open no more streams (RFC 9113 §6.8), in two steps on a server's connection, so that requests
    /// which are on their way are still answered. Streams that are open are finished with in peace.
    pub fn drain(&mut self, now: Duration, out: &mut Vec<u8>) {
        if self.going != Going::No || self.fault.is_some() {
            return;
        }
        if R::ANSWERS {
            self.going = Going::Announced(ms(now).saturating_add(DRAIN_WAIT_MS));
            frame::put_go_away(out, StreamId::MAX, &LEAVING);
            frame::put_ping(out, 0, DRAIN_PING);
        } else {
            self.leave(out);
        }
    }

    /// Asks for a sign of life, which comes as [`Said::Pong`].
    pub fn ping(&mut self, mark: u64, out: &mut Vec<u8>) {
        frame::put_ping(out, 0, mark.to_be_bytes());
    }

    /// Everything that had been put into `out` when this was last called has been sent. Answers that a peer asks for and does not read
    /// are bounded by this; so it is to be called as sends are completed, on a busy connection whose backlog is never empty too.
    pub fn sent(&mut self) {
        self.unsent = [0, self.unsent[0]];
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

    /// When to call [`Connection::expire`] at the latest.
    pub fn next_deadline(&self) -> Option<Duration> {
        let drain = match self.going {
            Going::Announced(at) => Some(at),
            _ => None,
        };
        let due = [self.settings_due, self.stalls_due, drain].into_iter().flatten().min();
        due.filter(|_| self.fault.is_none()).map(Duration::from_millis)
    }

    /// Does what time asks for. A stream that is returned has been reset because nothing was read of it ([`Malformed::Stalled`]):
    /// treat it as [`Event::Reset`], and ask again.
    ///
    /// # Errors
    /// The peer did not acknowledge our settings; the connection has ended.
    pub fn expire(&mut self, now: Duration, out: &mut Vec<u8>) -> Result<Option<StreamId>, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let now_ms = ms(now);
        if self.settings_due.is_some_and(|due| due <= now_ms) {
            let fault =
                Fault { code: ErrorCode::SETTINGS_TIMEOUT, why: "SETTINGS were not acknowledged (RFC 9113 6.5.3)" };
            self.fail(fault, out);
            return Err(fault);
        }
        if let Going::Announced(at) = self.going
            && at <= now_ms
        {
            self.leave(out);
        }
        self.reap(now_ms, out)
    }

    /// Gives back memory that an idle connection does not need.
    pub fn trim(&mut self) {
        self.streams.trim();
        self.decoder.trim();
        self.encoder.trim();
        (self.recall, self.recall_trailers) = (None, None);
        (self.head_written, self.trailers_written) = (None, None);
    }

    /// Bytes of memory, this value included.
    pub fn memory(&self) -> usize {
        let block = self.block.as_ref().map_or(0, |block| size_of::<Block>() + block.bytes.capacity());
        let recall = self.recall.as_ref().map_or(0, |recall| recall.memory());
        let recall = recall + self.recall_trailers.as_ref().map_or(0, |recall| recall.memory());
        let written = [&self.head_written, &self.trailers_written].into_iter().flatten().map(|last| last.memory());
        let tables = self.decoder.memory() + self.encoder.memory();
        size_of::<Self>() + self.streams.memory() + tables + block + recall + written.sum::<usize>()
    }

    /// The slot of a stream that is neither gone nor reset.
    #[inline]
    fn live(&self, stream: StreamId) -> Option<usize> {
        let slot = self.streams.find(stream.0)?;
        (!self.streams[slot].broken && self.fault.is_none()).then_some(slot)
    }

    /// The last GOAWAY.
    fn leave(&mut self, out: &mut Vec<u8>) {
        self.going = Going::Final(self.last_peer);
        frame::put_go_away(out, self.last_peer, &LEAVING);
    }

    /// The connection has ended.
    fn fail(&mut self, fault: Fault, out: &mut Vec<u8>) {
        // Never above what a GOAWAY has said before (RFC 9113 §6.8).
        let last = if let Going::Final(last) = self.going { last } else { self.last_peer };
        frame::put_go_away(out, last, &fault);
        self.fault = Some(fault);
        self.block = None;
    }

    /// Whatever is under way of this stream is of no interest any more.
    fn forget_input(&mut self, stream: u32) {
        match &mut self.input {
            Input::End { stream: ended, .. } if *ended == stream => self.input = Input::Frame,
            Input::Skip { end, .. } if *end == Some(stream) => *end = None,
            _ => {}
        }
    }

    /// Takes a stream out of everything but the count.
    fn break_off(&mut self, slot: usize, by_us: bool, out: &mut Vec<u8>) {
        let stream = &mut self.streams[slot];
        self.broken += u16::from(!stream.broken);
        stream.broken = true;
        stream.broken_by_us = by_us;
        stream.queued = 0;
        self.credit += std::mem::take(&mut stream.owed);
        self.streams.relist(slot);
        self.tell_credit(out);
    }

    fn remove(&mut self, slot: usize, out: &mut Vec<u8>) {
        let stream = &mut self.streams[slot];
        self.broken -= u16::from(stream.broken);
        let how = match (stream.broken, stream.broken_by_us) {
            (_, true) => Past::ByUs,
            (true, false) => Past::ByPeer,
            (false, false) => Past::Ended,
        };
        self.recent.push(stream.id, how);
        self.credit += std::mem::take(&mut stream.owed);
        self.streams.remove(slot);
        self.tell_credit(out);
    }

    /// Both messages are complete.
    #[inline]
    fn settle(&mut self, slot: usize, out: &mut Vec<u8>) {
        let stream = &self.streams[slot];
        if stream.incoming == Incoming::Ended && stream.outgoing == Outgoing::Ended && !stream.broken {
            self.ledger.exchange_completed();
            self.remove(slot, out);
        }
    }
}

const LEAVING: Fault = Fault { code: ErrorCode::NO_ERROR, why: "" };

/// What a SETTINGS acknowledgement is.
fn put_settings_ack(out: &mut Vec<u8>) {
    frame::put(out, Kind::Settings, frame::ACK, 0, &[]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::{Client, Refused, RequestRewrite, parse_request};
    use crate::http::Fields;

    #[test]
    fn rfc9113_5_1_1_identifiers_run_out() {
        let mut connection = Connection::<Client>::new(Limits::DEFAULT);
        connection.next_id = StreamId::MAX;
        let (text, mut fields, mut out) = (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", Fields::default(), Vec::new());
        let head = parse_request(text, &HeadLimits::DEFAULT, &mut fields).unwrap().unwrap();
        let mut ask = || {
            let asked = connection.write_request(text, &head, &fields, &RequestRewrite::new(&head), &mut out);
            (asked, connection.is_open(), connection.can_open())
        };
        assert_eq!(ask(), (Ok(StreamId(StreamId::MAX)), false, false));
        assert_eq!(ask(), (Err(Refused::Gone), false, false));
    }
}
