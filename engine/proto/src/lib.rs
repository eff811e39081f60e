//! Wire languages: bytes in, events out; events in, bytes out.
//!
//! There is no socket, clock, task or `unsafe` here, and nothing is read from the environment, so that every machine can be
//! fuzzed, simulated and counted in instructions exactly as it runs in production.
//!
//! # The law of every machine
//!
//! 1. **Feed, then drain until it pauses.** Hand a machine all unread bytes; act on the event; hand it what that event left
//!    unread; stop at [`Event::Pause`]. Bytes may be appended at any time (no event depends on where bytes were cut: a
//!    property test holds us to that), but none may be skipped, and end of input may be reported only after a pause.
//!    Debug builds assert both.
//! 2. **No bytes panic.** Whatever a peer sends is an event or a [`Malformed`].
//! 3. **Reject, never repair.** Where two readers could understand a message differently, it is refused: most request smuggling
//!    was somebody's kindness.
//! 4. **Nothing is allocated on the request path.** A head is a set of [`Span`](http::Span)s over the caller's buffer, indexed
//!    by a reusable [`Fields`](http::Fields); a body is compacted where it lies; output goes into storage that the caller
//!    keeps. Trailers, which almost no message has, are the one exception.
//! 5. **Everything is bounded**, and each bound stands beside the reason for its value.

#![forbid(unsafe_code)]

pub mod capsule;
mod compression;
pub mod event;
pub mod grpc;
pub mod h1;
pub mod h2;
pub mod h3;
pub mod http;
mod malformed;
mod multiplexed;
pub mod proxy;
pub mod quic;
mod role;
pub mod tls;
pub mod ws;

pub use event::Event;
pub use malformed::Malformed;
