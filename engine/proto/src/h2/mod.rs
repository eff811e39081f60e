//! HTTP/2 (RFC 9113): many messages on one connection.
//!
//! [`Connection`] is the machine, for either [side](Role). It speaks the neutral language ([`Event`](crate::Event), heads with
//! spans over text, [`Fields`](crate::http::Fields)), and a head that it read is laid out as HTTP/1 would have sent it; so a relay joins
//! it with HTTP/1 as with itself. HPACK, frames, settings, priorities and the abuse [`ledger`] stand beside it, each by itself.
//!
//! # The contract
//!
//! 1. [`start`](Connection::start) once; then hand all unread bytes to `read`, pass over [`Step::skipped`], act on [`Step::said`], and so on
//!    until [`Said::Pause`]. A frame's payload is handed on as it comes; what else is not complete stays with the caller, less than a
//!    frame of 16 KiB.
//! 2. **Everything appends to `out`**, in the order of the calls, and that order is the order on the wire: a caller has one `out` a
//!    connection and turn, and sends it once. Say [`sent`](Connection::sent) as it leaves.
//! 3. **Reading is paid for in credit.** Content that was delivered is the caller's until it is passed on; then
//!    [`credit`](Connection::credit) lets the peer send as much again. No credit, no window update.
//! 4. **Content is sent by turns.** The caller keeps it, says how much there is ([`queue`](Connection::queue)) and that it is all
//!    ([`finish`](Connection::finish)); at the end of a turn it asks [`next_data`](Connection::next_data) until there is none, and puts the frame's
//!    head, so many bytes of that stream's content, and the frame's suffix. Nothing is copied by the machine. Trailers are written when
//!    what was queued has gone.
//! 5. **Streams end by themselves** when both messages are complete. One that is [reset](crate::Event::Reset) has a place of its
//!    own until the caller [lets go](Connection::release) of it; there are as many of those as of open ones, so that a peer cannot open more
//!    and more by giving up what still costs us (CVE-2025-8671). Whatever is
//!    asked of a stream that is gone does nothing; the end of a message that is complete is told in any case, once.
//! 6. A fault ends the connection: GOAWAY is in `out` already. Between bytes there is [`next_deadline`](Connection::next_deadline), and
//!    [`expire`](Connection::expire).
//!
//! # Example
//!
//! A client and a server, and no wire between them:
//!
//! ```
//! use proto::Event;
//! use proto::h1::{HeadLimits, RequestRewrite, Respond, parse_request};
//! use proto::h2::{Client, Connection, HeadSpace, Limits, Said, Server};
//! use proto::http::{Fields, Status};
//! use std::time::Duration;
//!
//! let now = Duration::ZERO;
//! let (mut client, mut server) =
//!     (Connection::<Client>::new(Limits::DEFAULT), Connection::<Server>::new(Limits::DEFAULT));
//! let (mut space, mut up, mut down) = (HeadSpace::default(), Vec::new(), Vec::new());
//! client.start(now, &mut up);
//! server.start(now, &mut down);
//!
//! // A request that came over HTTP/1 goes on over HTTP/2.
//! let text = b"GET /reservoir HTTP/1.1\r\nHost: a.example\r\n\r\n";
//! let mut fields = Fields::default();
//! let head = parse_request(text, &HeadLimits::DEFAULT, &mut fields)?.expect("it is whole");
//! let asked = client.write_request(text, &head, &fields, &RequestRewrite::new(&head), &mut up).expect("nothing is in its way");
//!
//! // The server reads, and answers with two bytes of content.
//! let mut at = 0;
//! loop {
//!     let step = server.read(now, &up[at..], &mut space, &mut down)?;
//!     at += step.skipped;
//!     match step.said {
//!         Said::Stream(stream, Event::Head(head)) => {
//!             assert_eq!(head.path.of(&space.text), b"/reservoir");
//!             let respond = Respond { body: b"ok", ..Respond::new(Status::OK) };
//!             server.respond(stream, &respond, &mut down).expect("a response is due");
//!             server.queue(now, stream, 2, &mut down).expect("two bytes were promised");
//!             server.finish(stream, &mut down).expect("and no more");
//!         }
//!         Said::Pause => break,
//!         _ => {}
//!     }
//! }
//! while let Some(frame) = server.next_data(now, usize::MAX) {
//!     down.extend_from_slice(&frame.head);
//!     down.extend_from_slice(&b"ok"[..frame.payload]);
//!     down.extend(frame.suffix.into_iter().flatten());
//! }
//!
//! // The client reads the answer, and gives back what it took.
//! let (mut at, mut content) = (0, Vec::new());
//! loop {
//!     let step = client.read(now, &down[at..], &mut space, &mut up)?;
//!     at += step.skipped;
//!     match step.said {
//!         Said::Stream(stream, Event::Head(head)) => assert_eq!((stream, head.status), (asked, Status::OK)),
//!         Said::Stream(stream, Event::Data { payload, consumed }) => {
//!             content.extend_from_slice(&down[at..at + payload]);
//!             at += consumed;
//!             client.credit(stream, payload, &mut up);
//!         }
//!         Said::Pause => break,
//!         _ => {}
//!     }
//! }
//! assert_eq!(content, b"ok");
//! assert!(client.is_idle() && server.is_idle());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod connection;
mod error;
pub mod frame;
pub mod hpack;
pub mod settings;
mod streams;

pub use crate::multiplexed::{HeadSpace, Priority, ledger};
pub use crate::role::{Client, Role, Server};
pub use connection::{Connection, DataFrame, Limits, Said, Step};
pub use error::{ErrorCode, Fault};
pub use settings::PeerSettings;

/// A stream's identifier (RFC 9113 §5.1.1). It is never used again on its connection, so an old one means nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

impl StreamId {
    /// 31 bits.
    pub const MAX: u32 = (1 << 31) - 1;
}
