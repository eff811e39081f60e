//! The requests of a connection: a slab, found by identifier. Slots are used again, so that a connection that serves its thousandth
//! request allocates nothing for it.

use super::Priority;
use crate::http::Method;
use crate::multiplexed::head::UNKNOWN;

/// How far what is read has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Incoming {
    /// The head is awaited; of a response, the final one.
    Head,
    Content,
    /// All of it is here, and its end has not been told.
    Complete,
    /// The end has been told, with trailers: only frames that mean nothing may follow.
    Trailed,
    Ended,
}

/// How far what is written has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// A server owes the response.
    Head,
    Content,
    Ended,
}

/// Where in the peer's bytes the next one stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// Before a frame.
    Frame,
    /// Within content.
    Content(u64),
    /// Within a frame that means nothing.
    Skip(u64),
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u64,
    pub(super) incoming: Incoming,
    pub(super) outgoing: Outgoing,
    pub(super) input: Input,
    /// Reset, by whichever side; it counts until the caller lets go of it.
    pub(super) broken: bool,
    /// What is still sent is not wanted: its head was refused.
    pub(super) deaf: bool,
    /// A CONNECT, on which only content may follow its answer (RFC 9114 §4.4).
    pub(super) connect: bool,
    /// Extended (RFC 9220).
    pub(super) extended: bool,
    pub(super) interims: u8,
    pub(super) method: Method,
    pub(super) priority: Priority,
    /// By a frame, which speaks later than the field (RFC 9218 §7).
    pub(super) prioritised: bool,
    /// The entries that the section needs which is not read for want of them; 0 if there is none.
    pub(super) awaited: u64,
    /// Bytes that the caller holds for want of more.
    pub(super) held: usize,
    /// What Content-Length promises of what is yet to come or to be sent.
    pub(super) incoming_left: u64,
    pub(super) outgoing_left: u64,
    /// The protocol that extended CONNECT asked for.
    pub(super) upgrade: Option<Box<[u8]>>,
}

impl Stream {
    pub(super) fn new(id: u64, outgoing: Outgoing) -> Self {
        Self {
            id,
            incoming: Incoming::Head,
            outgoing,
            input: Input::Frame,
            broken: false,
            deaf: false,
            connect: false,
            extended: false,
            interims: 0,
            method: Method::Other,
            priority: Priority::default(),
            prioritised: false,
            awaited: 0,
            held: 0,
            incoming_left: UNKNOWN,
            outgoing_left: UNKNOWN,
            upgrade: None,
        }
    }

    /// A request is here that can be answered.
    pub(super) fn is_asked(&self) -> bool {
        self.deaf || self.incoming != Incoming::Head
    }

    /// Sections may come that have not been read.
    pub(super) fn may_say_more(&self) -> bool {
        matches!(self.incoming, Incoming::Head | Incoming::Content)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Streams {
    slots: Vec<Stream>,
    free: Vec<u16>,
    /// Identifier and slot of those that are there, by identifier.
    index: Vec<(u64, u16)>,
}

impl Streams {
    /// How many there are, those that are broken and not let go of included.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    #[inline]
    pub(super) fn find(&self, id: u64) -> Option<usize> {
        let at = self.index.binary_search_by_key(&id, |entry| entry.0).ok()?;
        Some(self.index[at].1 as usize)
    }

    /// The highest identifier that is there.
    pub(super) fn last(&self) -> Option<u64> {
        self.index.last().map(|entry| entry.0)
    }

    /// Those that are there, by identifier.
    pub(super) fn all(&self) -> impl Iterator<Item = &Stream> {
        self.index.iter().map(|entry| &self.slots[entry.1 as usize])
    }

    /// Takes in a stream that is not there, wherever its identifier belongs.
    pub(super) fn insert(&mut self, stream: Stream) -> usize {
        let id = stream.id;
        let at = self.index.partition_point(|entry| entry.0 < id);
        debug_assert!(self.index.get(at).is_none_or(|entry| entry.0 != id), "a stream is opened twice");
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = stream;
                slot
            }
            None => {
                self.slots.push(stream);
                (self.slots.len() - 1) as u16
            }
        };
        self.index.insert(at, (id, slot));
        slot as usize
    }

    pub(super) fn remove(&mut self, slot: usize) {
        if let Ok(at) = self.index.binary_search_by_key(&self.slots[slot].id, |entry| entry.0) {
            self.index.remove(at);
            self.slots[slot].upgrade = None;
            self.free.push(slot as u16);
        }
    }

    /// Gives back memory that nobody uses.
    pub(super) fn trim(&mut self) {
        if self.index.is_empty() {
            *self = Self::default();
        }
    }

    pub(super) fn memory(&self) -> usize {
        self.slots.capacity() * size_of::<Stream>()
            + self.free.capacity() * size_of::<u16>()
            + self.index.capacity() * size_of::<(u64, u16)>()
    }
}

impl std::ops::Index<usize> for Streams {
    type Output = Stream;

    #[inline]
    fn index(&self, slot: usize) -> &Stream {
        &self.slots[slot]
    }
}

impl std::ops::IndexMut<usize> for Streams {
    #[inline]
    fn index_mut(&mut self, slot: usize) -> &mut Stream {
        &mut self.slots[slot]
    }
}
