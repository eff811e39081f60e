//! HPACK (RFC 7541): heads as references to what was said before.
//!
//! Both directions of a connection have a table each, kept alike at both ends by the order of the blocks; so a block is read even if
//! nobody wants its message, and one that cannot be read ends the connection.

mod decode;
mod encode;
mod static_table;

pub use crate::compression::{Corrupt, Fit, Indexing, Line, ListLimits};
pub use decode::Decoder;
pub(super) use decode::Encoded;
pub use encode::Encoder;

/// Of a table, in bytes as RFC 7541 §4.1 counts them, until settings say otherwise (RFC 9113 §6.5.2); and never more in ours.
pub const TABLE_SIZE_DEFAULT: usize = crate::compression::TABLE_SIZE_MAX;
