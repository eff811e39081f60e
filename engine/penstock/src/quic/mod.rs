//! QUIC (RFC 9000): one endpoint a worker and address. quinn-proto is the machine; this room moves its datagrams and keeps its keys.
//!
//! ```text
//! socket → Endpoint::poll_arrival → (by connection id) the inbox of a Link → the connection's task → Link::transmit → socket
//! ```
//!
//! What belongs to another worker goes to that one's endpoint first ([`carriage`]). Where there is a way past the kernel (`afxdp`), datagrams come and go by that beside the socket.
//!
//! One task receives for all connections of its endpoint, and each connection is pumped by a task of its own, which it wakes. What holds here:
//! * A datagram is copied once, when it is received; several that came as one share the copy.
//! * Whoever connects is a burden only when it has been let in: until then the machine keeps its datagrams, so many and no more.
//! * A connection's inbox is emptied in the turn in which it was filled, so that it holds no more than one call of receiving brings.
//! * What stands in keys is the same on every worker: any of them can read a token, and reset a connection, that another made.

mod caller;
mod carriage;
mod config;
mod endpoint;
mod farewell;
mod ids;
mod keys;
mod link;
mod padding;
mod proof;
mod trace;
mod window;

pub use self::caller::Caller;
pub use self::carriage::{End, Ends, Ways, receive_from_all};
pub use self::config::{Offer, client, offer};
pub use self::endpoint::{Astray, Carrier, Endpoint, Newcomer, Recorder};
pub use self::ids::{called_in, id, is_called_in, told_in};
pub use self::keys::Keys;
pub use self::link::{Behind, Link, Notice};
pub use self::trace::{Frame, Trace};
pub use abi::Place;
pub use quinn_proto::{ClientConfig, ConnectionError, ConnectionId, Dir, StreamEvent, StreamId, WriteError};

use std::time::Instant;

use ring::Now;

/// The clock of the machine.
fn instant(now: Now) -> Instant {
    now.instant()
}

/// The stream of a number that was a stream's.
#[must_use]
pub fn stream(number: u64) -> StreamId {
    quinn_proto::VarInt::from_u64(number).unwrap_or(quinn_proto::VarInt::MAX).into()
}
