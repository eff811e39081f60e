//! The requests of a connection.

use super::Priority;
use crate::http::Method;
use crate::multiplexed::head::UNKNOWN;
use crate::multiplexed::slab::Slab;

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
    /// It has a use for datagrams (RFC 9297 §2).
    pub(super) datagrams: bool,
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
            datagrams: false,
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

/// All of them, those that are broken and not let go of included.
pub(super) type Streams = Slab<u64, Stream>;
