//! HTTP/3 (RFC 9114): many messages on one QUIC connection, each on a stream of its own.
//!
//! [`Connection`] is the machine, for either [side](Role), and HTTP/2's sibling: the same neutral language ([`Event`](crate::Event), heads with
//! spans over text laid out as HTTP/1 would have sent it, [`Fields`](crate::http::Fields)), the same law of heads and the same
//! [ledger]. QUIC is not here: the caller has its streams, their flow control, their order of sending and what waits on them.
//! [QPACK](qpack), frames, settings and priorities stand beside it, each by itself.
//!
//! # The contract
//!
//! 1. [`start`](Connection::start) once, and open three streams of one direction, for [`Out::control`], [`Out::encoder`] and [`Out::decoder`].
//!    **After each call, write what is in them, and do what [`Out::aborts`] asks**; take out what QUIC has taken, and leave the rest.
//! 2. Say of each stream that the peer opens, of either kind, that it was [`opened`](Connection::opened): in any order, but before it is read.
//! 3. Hand all unread bytes of a stream to `read`, and whether they are its last; pass over [`Step::skipped`], act on [`Step::said`], and so
//!    on until [`Said::Pause`]. With its last bytes, that is once more when nothing is left: an end is told there. Content is handed
//!    on as it comes; what else is not complete stays with the caller: less than sixteen bytes, or a head that has not arrived whole, of which the
//!    machine counts what the caller holds, and ends the connection of a peer that is too free with it.
//! 4. **[`Said::Blocked`] is a pause**, too: keep the bytes, and read the stream again when [`Said::Unblocked`] names it, which is said
//!    while another stream is read (the peer's encoder's).
//! 5. Resets and stops of the peer's are told with [`peer_reset`](Connection::peer_reset) and [`peer_stopped`](Connection::peer_stopped).
//! 6. Heads and trailers are appended to the bytes that the caller has for that stream. Content is the caller's: it writes
//!    [`data_head`](Connection::data_head), then so many bytes, in as many frames as it likes. At the end: [`finish`](Connection::finish), and the
//!    stream's own end, which the machine has no byte for. A head that ends its message leaves the stream not
//!    [writable](Connection::is_writable), and its end due.
//! 7. **Streams end by themselves** when both messages are complete. One that is [reset](crate::Event::Reset) has a place of its
//!    own until the caller [lets go](Connection::release) of it; there are as many of those as of open ones, so that a peer cannot open more
//!    and more by giving up what still costs us (CVE-2025-8671). Whatever is asked of a stream that is gone does nothing, and bytes of
//!    one are nobody's.
//! 8. A [`Fault`] ends the connection: close it with that code and reason. Between bytes there is
//!    [`next_deadline`](Connection::next_deadline), and [`expire`](Connection::expire).
//!
//! # What a connection may make us hold
//!
//! Of tables, 4 KiB a direction. Of streams, twice [`Limits::streams`]. With the caller: a dozen longest heads, in all of them together (256 KiB);
//! four tables of an instruction that is not complete; 16 KiB of answers that the peer does not read.
//!
//! # Example
//!
//! A client and a server, and no QUIC between them:
//!
//! ```
//! use proto::Event;
//! use proto::h1::{HeadLimits, RequestRewrite, Respond, Trailers, parse_request};
//! use proto::h3::{Client, Connection, HeadSpace, Limits, Out, Said, Server, StreamId};
//! use proto::http::{Fields, Status};
//! use std::time::Duration;
//!
//! let now = Duration::ZERO;
//! let (mut client, mut server) =
//!     (Connection::<Client>::new(Limits::DEFAULT), Connection::<Server>::new(Limits::DEFAULT));
//! let (mut space, mut ours, mut theirs) = (HeadSpace::default(), Out::default(), Out::default());
//! client.start(&mut ours);
//! server.start(&mut theirs);
//! let (stream, mut up, mut down) = (StreamId(0), Vec::new(), Vec::new());
//!
//! // The client's control stream arrives.
//! server.opened(now, StreamId(2), &mut theirs)?;
//! let step = server.read(now, StreamId(2), &ours.control, false, &mut space, &mut theirs)?;
//! assert_eq!((step.skipped, step.said), (ours.control.len(), Said::Settings));
//!
//! // A request that came over HTTP/1 goes on over HTTP/3, and ends with its head.
//! let text = b"GET /reservoir HTTP/1.1\r\nHost: a.example\r\n\r\n";
//! let mut fields = Fields::default();
//! let head = parse_request(text, &HeadLimits::DEFAULT, &mut fields)?.expect("it is whole");
//! client
//!     .write_request(stream, text, &head, &fields, &RequestRewrite::new(&head), &mut up, &mut ours)
//!     .expect("nothing is in its way");
//! assert!(!client.is_writable(stream));
//!
//! // The server reads, and answers with two bytes of content.
//! server.opened(now, stream, &mut theirs)?;
//! let mut at = 0;
//! loop {
//!     let step = server.read(now, stream, &up[at..], true, &mut space, &mut theirs)?;
//!     at += step.skipped;
//!     match step.said {
//!         Said::Stream(stream, Event::Head(head)) => {
//!             assert_eq!(head.path.of(&space.text), b"/reservoir");
//!             let respond = Respond { body: b"ok", ..Respond::new(Status::OK) };
//!             server.respond(stream, &respond, &mut down, &mut theirs).expect("a response is due");
//!             down.extend_from_slice(&server.data_head(stream, 2, &mut theirs).expect("two bytes were promised"));
//!             down.extend_from_slice(b"ok");
//!             server.finish(stream, &Trailers::default(), &mut down, &mut theirs).expect("and no more");
//!         }
//!         Said::Pause => break,
//!         _ => {}
//!     }
//! }
//!
//! // The client reads the answer.
//! let (mut at, mut content) = (0, Vec::new());
//! loop {
//!     let step = client.read(now, stream, &down[at..], true, &mut space, &mut ours)?;
//!     at += step.skipped;
//!     match step.said {
//!         Said::Stream(_, Event::Head(head)) => assert_eq!(head.status, Status::OK),
//!         Said::Stream(_, Event::Data { payload, consumed }) => {
//!             content.extend_from_slice(&down[at..at + payload]);
//!             at += consumed;
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
pub mod qpack;
pub mod settings;
mod streams;

pub use crate::multiplexed::{HeadSpace, Priority, ledger};
pub use crate::role::{Client, Role, Server};
pub use connection::{Connection, Datagram, Limits, Said, Step};
pub use error::{ErrorCode, Fault};
pub use frame::DataHead;
pub use settings::PeerSettings;

/// A stream's identifier, QUIC's (RFC 9000 §2.1). It is never used again on its connection, so an old one means nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

impl StreamId {
    /// Opened by a client, in both directions: a request and its response.
    #[inline]
    pub const fn is_request(self) -> bool {
        self.0 & 3 == 0
    }

    #[inline]
    pub const fn is_bidirectional(self) -> bool {
        self.0 & 2 == 0
    }
}

/// What is to be said and done besides the messages themselves.
#[derive(Debug, Default, Clone)]
pub struct Out {
    /// To be written on our control stream.
    pub control: Vec<u8>,
    /// On our QPACK encoder stream.
    pub encoder: Vec<u8>,
    /// On our QPACK decoder stream.
    pub decoder: Vec<u8>,
    /// What is over before its time.
    pub aborts: Vec<Abort>,
}

impl Out {
    pub fn is_empty(&self) -> bool {
        self.control.is_empty() && self.encoder.is_empty() && self.decoder.is_empty() && self.aborts.is_empty()
    }
}

/// A part of a stream that is over before its time. One that has ended by itself meanwhile needs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    /// Our part, with what was to be sent on it: RESET_STREAM (RFC 9000 §19.4).
    Reset { stream: StreamId, code: ErrorCode },
    /// The peer's: STOP_SENDING (RFC 9000 §19.5). Nothing more of the stream needs to be read.
    Stop { stream: StreamId, code: ErrorCode },
}
