//! WebSocket (RFC 6455, with permessage-deflate of RFC 7692) as a proxy needs it: looked at as it passes, never framed anew.
//!
//! A fragment means nothing by itself, so a proxy could join and split messages; it gains nothing by that, and an extension that it does not
//! know may forbid it (RFC 6455 §5.4). So bytes go on in the memory in which they came, and an [`Inspector`] for each direction says what
//! they are: messages to be counted and timed, control frames, a breach of the rules. It needs to know who sends, and not what carries the
//! bytes: after a 101, in the DATA of an HTTP/2 stream (RFC 8441), or of an HTTP/3 one (RFC 9220), they are the same.
//!
//! Deliberately absent: decompression. Who must look into compressed messages has to keep a window of 32 KiB a direction.
//!
//! # The contract
//!
//! 1. Hand `read` the bytes in their order, cut anywhere; act on the event; hand it the rest of the slice, even if that is empty, until it
//!    says [`Pause`](Event::Pause). Unlike the other machines it keeps the state of what is not complete, so **a pause has consumed
//!    everything** and the caller keeps nothing back.
//! 2. **Every frame's end is an event.** Where [`is_between_frames`](Inspector::is_between_frames), a control frame of our own may be put, also
//!    within a fragmented message (RFC 6455 §5.4), and nowhere else.
//! 3. **A breach is found at the first byte that shows it**, that of a length or a Close at its end. Frames that ended before it are sound. If the one at fault
//!    began in this slice, the slice can be cut there and a Close put instead; if it began earlier, its receiver waits for the rest of it,
//!    and can only be cut off. What the sender is to be told is [`Violation::close_code`].
//! 4. **Payload is passed over by its length**, and is looked at only in control frames, and in text if [`Rules::utf8`] asks for it. Nothing is
//!    altered: unmasking takes place in a copy on the stack.
//! 5. **Everything is bounded.** An inspector has no buffer but 14 bytes for a head that is cut. It allocates for the reason of a Close,
//!    123 bytes at most, once.
//!
//! # Example
//!
//! A piece of what a client sends, with a message, a Ping, and a frame that is not masked:
//!
//! ```
//! use proto::h1::FixedSink;
//! use proto::ws::{Echo, Event, Inspector, Kind, Message, Rules, Sender, Violation, put_close};
//!
//! let piece = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58\
//!               \x89\x82\x00\x00\x00\x00hi\
//!               \x82\x03raw";
//! let mut upward = Inspector::new(Rules { utf8: true, message_bytes_max: 1 << 20, ..Rules::new(Sender::Client) });
//! let (mut at, mut sound, mut seen) = (0, 0, Vec::new());
//! let violation = loop {
//!     match upward.read(&piece[at..]) {
//!         Ok(step) if step.event == Event::Pause => break None,
//!         Ok(step) => {
//!             at += step.consumed;
//!             if upward.is_between_frames() {
//!                 sound = at;
//!             }
//!             seen.push(step.event);
//!         }
//!         Err(violation) => break Some(violation),
//!     }
//! };
//! let hello = Message { kind: Kind::Text, compressed: false, bytes: 5, frames: 1 };
//! let ping = Echo { length: 2, start: *b"hi\0\0\0\0\0\0" };
//! assert_eq!(seen[1..], [Event::End(hello), Event::Ping(ping)]);
//!
//! // Two frames go on to the server, the third does not; the client is told why.
//! assert_eq!((sound, violation), (19, Some(Violation::Unmasked)));
//! let mut storage = [0; 64];
//! let mut answer = FixedSink::new(&mut storage);
//! put_close(Violation::Unmasked.close_code(), Violation::Unmasked.why(), None, &mut answer)?;
//! assert_eq!(answer.written(), b"\x88\x20\x03\xeaa client's frame is not masked");
//! # Ok::<(), proto::h1::Refused>(())
//! ```

mod error;
mod frame;
mod handshake;
mod inspector;
mod sha1;
mod utf8;
mod write;

pub use error::{CloseCode, Violation};
pub use frame::MaskingKey;
pub use handshake::{Extensions, Key, VERSION, accept_of, key_of, parse_key};
pub use inspector::{Echo, Event, Inspector, Kind, Message, Rules, Sender, Step};
pub use write::{CONTROL_FRAME_BYTES_MAX, REASON_BYTES_MAX, put_close, put_ping, put_pong};
