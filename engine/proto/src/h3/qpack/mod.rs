//! QPACK (RFC 9204): heads as references to what was said before, on streams that arrive in any order.
//!
//! The table of a direction is changed on a stream of its own (the encoder's), and the other end says on another (the decoder's) what it has
//! read. What holds here:
//! * A section that refers to entries which have not arrived is left with the caller, unread; there are no more of those than we allow
//!   (§2.1.2), and one more ends the connection.
//! * **Our sections never wait.** They refer only to entries that the peer has acknowledged, and an entry is made for what is said a second
//!   time; so nothing that we send depends on the order of streams, and a peer that allows no waiting loses nothing by it.
//! * An entry is not given up before nobody can refer to it (§2.1.1). A peer that acknowledges nothing has static references and literals.
//! * Both tables have 4 KiB at most, whatever the peer would keep.

mod decode;
mod encode;
mod static_table;

pub use crate::compression::{Corrupt, Fit, Indexing, Line, ListLimits};
pub use decode::{Decoder, Section};
pub(in crate::h3) use encode::References;
pub use encode::{Encoder, Prefix, Writer};
