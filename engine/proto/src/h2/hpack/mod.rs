//! HPACK (RFC 7541): heads as references to what was said before.
//!
//! Both directions of a connection have a table each, kept alike at both ends by the order of the blocks; so a block is read even if
//! nobody wants its message, and one that cannot be read ends the connection.

mod decode;
mod encode;
mod huffman;
mod integer;
mod table;

pub use decode::{Decoder, Fit, Line, ListLimits};
pub use encode::{Encoder, Indexing};

/// Of a table, in bytes as RFC 7541 §4.1 counts them, until settings say otherwise (RFC 9113 §6.5.2); and never more in ours.
pub const TABLE_SIZE_DEFAULT: usize = 4096;

/// Why a block could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Corrupt {
    /// An integer is cut off, or larger than anything that could be meant (RFC 7541 §5.1).
    Integer,
    /// An index of 0, or beyond both tables (§2.3.3).
    Index,
    /// A string is longer than the block.
    Truncated,
    /// A Huffman code holds EOS, or is padded wrongly (§5.2).
    Huffman,
    /// A size update that is too large, late, missing, or one of too many (§4.2, §6.3).
    SizeUpdate,
}
