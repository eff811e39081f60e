//! The neutral language between protocols: what any HTTP message is made of, whoever sent it.
//!
//! A relay that understands this enum joins any two protocols. `H` is the head's type: a request on a server's connection, a
//! response on a client's.

use crate::Malformed;

/// One step of a message, or of the connection that carries it.
///
/// `consumed` counts bytes of the slice that was handed in; what follows them is unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<H> {
    /// A head. Its spans point into the bytes that were read, and its `length` is what it consumed.
    Head(H),
    /// Body bytes: `bytes[..payload]`, compacted to the front of the slice (chunk framing is squeezed out).
    /// `payload` is 0 if there was nothing but framing.
    Data { payload: usize, consumed: usize },
    /// The message is complete. `trailers` says that the connection holds a trailer section to forward.
    End { consumed: usize, trailers: bool },
    /// The message will never be complete; the connection may live on (HTTP/2, HTTP/3). HTTP/1 has no such thing: there, a
    /// broken message is an error and breaks its connection.
    Reset(Malformed),
    /// From here on the bytes belong to another protocol. All further reads say the same.
    Tunnel,
    /// Nothing more can be said until there are more bytes, or until the other direction moves.
    Pause,
}

impl<H> Event<H> {
    /// How many bytes of the slice that was handed in this step used up; `head_length` tells it of a head.
    #[inline]
    pub(crate) fn consumed(&self, head_length: impl FnOnce(&H) -> usize) -> usize {
        match self {
            Self::Head(head) => head_length(head),
            Self::Data { consumed, .. } | Self::End { consumed, .. } => *consumed,
            Self::Reset(_) | Self::Tunnel | Self::Pause => 0,
        }
    }
}
