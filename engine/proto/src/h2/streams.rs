//! The streams of a connection, and the order in which their content leaves (RFC 9218 §10).
//!
//! Among streams that can send, the most urgent go first; of one urgency, those that are useful only when complete go one after the other in the order of
//! their requests, and those that are useful in part take turns, frame by frame; the two sorts share evenly.

use super::Priority;
use super::ledger::STALL_BYTES;
use super::settings::WINDOW_MAX;
use crate::http::Method;
pub(super) use crate::multiplexed::head::UNKNOWN;
use crate::multiplexed::slab::Slab;

/// How far what is read has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Incoming {
    /// A client waits for the response.
    Head,
    Content,
    Ended,
}

/// How far what is written has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// A server owes the response.
    Head,
    Content,
    /// The end is to go with the last of what is queued.
    Ending,
    Ended,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
    /// Reset, by whichever side; it counts until the caller lets go of it.
    pub(super) broken: bool,
    /// By us.
    pub(super) broken_by_us: bool,
    /// What is still sent is not wanted: its head was refused.
    pub(super) deaf: bool,
    /// A CONNECT, which has no trailers and no other heads once it is answered (RFC 9113 §8.5).
    pub(super) connect: bool,
    /// Extended (RFC 8441).
    pub(super) extended: bool,
    pub(super) interims: u8,
    pub(super) method: Method,
    pub(super) priority: Priority,
    /// In the list of those that can send.
    listed: bool,
    next: u16,
    previous: u16,
    /// May be negative (RFC 9113 §6.9.2).
    pub(super) send_window: i32,
    pub(super) receive_window: i32,
    /// Content that was delivered and not given back as credit.
    pub(super) owed: u32,
    /// Credit that the peer has not been told of.
    pub(super) credit: u32,
    /// Bytes that the caller has ready to be sent.
    pub(super) queued: u32,
    /// Whether it is read.
    pub(super) progress: Progress,
    /// What Content-Length promises of what is yet to come or to be sent.
    pub(super) incoming_left: u64,
    pub(super) outgoing_left: u64,
    /// The protocol that extended CONNECT asked for.
    pub(super) upgrade: Option<Box<[u8]>>,
}

/// Whether a window lets enough through. The clock runs from the moment when it closes upon waiting content, and until then nothing is
/// asked of it; a trickle does not stop it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    /// Since when the clock runs, or when there last was something to wait with, in milliseconds.
    pub(super) since_ms: u64,
    moved: u32,
    running: bool,
}

impl Progress {
    /// There is something to wait with from now on.
    pub(super) fn begin(now_ms: u64) -> Self {
        Self { since_ms: now_ms, moved: 0, running: false }
    }

    /// The window is closed.
    #[inline]
    pub(super) fn block(&mut self, now_ms: u64) {
        if !self.running {
            *self = Self { since_ms: now_ms, moved: 0, running: true };
        }
    }

    /// So much went through.
    #[inline]
    pub(super) fn pass(&mut self, now_ms: u64, bytes: u32) {
        self.moved = self.moved.saturating_add(bytes);
        if self.moved >= STALL_BYTES {
            *self = Self::begin(now_ms);
        }
    }
}

const NOBODY: u16 = u16::MAX;

impl Stream {
    pub(super) fn new(id: u32, incoming: Incoming, outgoing: Outgoing) -> Self {
        Self {
            id,
            incoming,
            outgoing,
            broken: false,
            broken_by_us: false,
            deaf: false,
            connect: false,
            extended: false,
            interims: 0,
            method: Method::Other,
            priority: Priority::default(),
            listed: false,
            next: NOBODY,
            previous: NOBODY,
            send_window: 0,
            receive_window: 0,
            owed: 0,
            credit: 0,
            queued: 0,
            progress: Progress::default(),
            incoming_left: UNKNOWN,
            outgoing_left: UNKNOWN,
            upgrade: None,
        }
    }

    /// Has content, and a window for it.
    #[inline]
    pub(super) fn can_send(&self) -> bool {
        self.queued > 0 && self.send_window > 0 && !self.broken
    }

    /// Raises (or lowers) the window for sending. False on overflow.
    #[inline]
    pub(super) fn widen(&mut self, by: i64) -> bool {
        let window = i64::from(self.send_window) + by;
        match i32::try_from(window) {
            Ok(window) => {
                self.send_window = window;
                true
            }
            Err(_) => {
                debug_assert!(window > i64::from(WINDOW_MAX) || window < i64::from(i32::MIN));
                false
            }
        }
    }
}

/// All of them, those that are broken and not let go of included.
#[derive(Debug, Default)]
pub(super) struct Streams {
    slab: Slab<u32, Stream>,
    ready: [Lists; Priority::LEVELS],
    /// Of urgencies that have somebody.
    urgencies: u8,
}

/// Those of one urgency that can send.
#[derive(Debug, Clone, Copy)]
struct Lists {
    /// One after the other, by identifier.
    whole: List,
    /// In turns.
    partial: List,
    /// Whose turn it is, where there are both.
    partial_next: bool,
}

#[derive(Debug, Clone, Copy)]
struct List {
    first: u16,
    last: u16,
}

impl Default for Lists {
    fn default() -> Self {
        let empty = List { first: NOBODY, last: NOBODY };
        Self { whole: empty, partial: empty, partial_next: false }
    }
}

impl Streams {
    /// Takes in a stream whose identifier is above all others'.
    pub(super) fn insert(&mut self, stream: Stream) -> usize {
        self.slab.insert(stream.id, stream)
    }

    pub(super) fn remove(&mut self, slot: usize) {
        self.unlist(slot);
        self.slab[slot].upgrade = None;
        self.slab.remove(self.slab[slot].id);
    }

    /// Puts a stream among those that can send, or takes it out, as its state has it.
    #[inline]
    pub(super) fn relist(&mut self, slot: usize) {
        match (self.slab[slot].can_send(), self.slab[slot].listed) {
            (true, false) => self.list(slot),
            (false, true) => self.unlist(slot),
            _ => {}
        }
    }

    pub(super) fn set_priority(&mut self, slot: usize, priority: Priority) {
        self.unlist(slot);
        self.slab[slot].priority = priority;
        self.relist(slot);
    }

    /// Who sends next.
    #[inline]
    pub(super) fn pick(&self) -> Option<usize> {
        let urgency = self.urgencies.trailing_zeros() as usize;
        let lists = self.ready.get(urgency)?;
        let partial = lists.whole.first == NOBODY || lists.partial.first != NOBODY && lists.partial_next;
        let first = if partial { lists.partial.first } else { lists.whole.first };
        (first != NOBODY).then_some(first as usize)
    }

    /// It has sent a frame: others' turn.
    #[inline]
    pub(super) fn rotate(&mut self, slot: usize) {
        let Priority { urgency, incremental } = self.slab[slot].priority;
        self.ready[urgency as usize].partial_next = !incremental;
        if incremental && self.slab[slot].listed {
            self.unlist(slot);
            self.relist(slot);
        } else {
            self.relist(slot);
        }
    }

    /// Gives back memory that nobody uses.
    pub(super) fn trim(&mut self) {
        self.slab.trim();
    }

    fn list(&mut self, slot: usize) {
        let Priority { urgency, incremental } = self.slab[slot].priority;
        let lists = &self.ready[urgency as usize];
        let mut after = if incremental { lists.partial.last } else { lists.whole.last };
        if !incremental {
            while after != NOBODY && self.slab[after as usize].id > self.slab[slot].id {
                after = self.slab[after as usize].previous;
            }
        }
        let before = match after {
            NOBODY if incremental => lists.partial.first,
            NOBODY => lists.whole.first,
            after => self.slab[after as usize].next,
        };
        self.join(urgency, incremental, after, slot as u16);
        self.join(urgency, incremental, slot as u16, before);
        self.slab[slot].listed = true;
        self.urgencies |= 1 << urgency;
    }

    fn unlist(&mut self, slot: usize) {
        if !self.slab[slot].listed {
            return;
        }
        let Priority { urgency, incremental } = self.slab[slot].priority;
        self.join(urgency, incremental, self.slab[slot].previous, self.slab[slot].next);
        self.slab[slot].listed = false;
        let lists = &self.ready[urgency as usize];
        if lists.whole.first == NOBODY && lists.partial.first == NOBODY {
            self.urgencies &= !(1 << urgency);
        }
    }

    /// Makes `left` and `right` neighbours; nobody on one side makes the other an end of the list.
    fn join(&mut self, urgency: u8, incremental: bool, left: u16, right: u16) {
        let lists = &mut self.ready[urgency as usize];
        let list = if incremental { &mut lists.partial } else { &mut lists.whole };
        match left {
            NOBODY => list.first = right,
            left => self.slab[left as usize].next = right,
        }
        match right {
            NOBODY => list.last = left,
            right => self.slab[right as usize].previous = left,
        }
    }
}

impl std::ops::Deref for Streams {
    type Target = Slab<u32, Stream>;

    #[inline]
    fn deref(&self) -> &Self::Target {
        &self.slab
    }
}

impl std::ops::DerefMut for Streams {
    #[inline]
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.slab
    }
}

/// The streams that ended last, and how: what may still arrive for them means different things (RFC 9113 §5.1).
#[derive(Debug, Default)]
pub(super) struct Recent {
    ids: [u32; RECENT_MAX],
    by_us: u32,
    ended: u32,
    at: u8,
    /// The highest of those that were forgotten.
    forgotten: u32,
}

/// As many as a peer can have in flight that does not know yet: a third of the streams that it may have open.
const RECENT_MAX: usize = 32;

/// What is known of a stream that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Past {
    /// We reset it, or let it go: frames may have been on their way.
    ByUs,
    /// The peer reset it: nothing should follow.
    ByPeer,
    /// Both sides had ended it: nothing can follow.
    Ended,
    /// It ended so long ago that nobody remembers how.
    Forgotten,
    /// It was passed over when a later one was opened, and can never be used (RFC 9113 §5.1.1).
    Skipped,
}

impl Recent {
    pub(super) fn push(&mut self, id: u32, how: Past) {
        let at = self.at as usize;
        self.forgotten = self.forgotten.max(self.ids[at]);
        self.ids[at] = id;
        self.by_us = self.by_us & !(1 << at) | u32::from(how == Past::ByUs) << at;
        self.ended = self.ended & !(1 << at) | u32::from(how == Past::Ended) << at;
        self.at = ((at + 1) % RECENT_MAX) as u8;
    }

    pub(super) fn find(&self, id: u32) -> Past {
        match self.ids.iter().position(|&other| other == id) {
            Some(at) if self.by_us >> at & 1 == 1 => Past::ByUs,
            Some(at) if self.ended >> at & 1 == 1 => Past::Ended,
            Some(_) => Past::ByPeer,
            None if id <= self.forgotten => Past::Forgotten,
            None => Past::Skipped,
        }
    }
}
