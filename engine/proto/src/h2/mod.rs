//! HTTP/2 (RFC 9113).

mod error;
pub mod frame;
pub mod hpack;
mod priority;
pub mod settings;

pub use error::{ErrorCode, Fault};
pub use priority::Priority;
pub use settings::PeerSettings;

/// A stream's identifier (RFC 9113 §5.1.1). It is never used again on its connection, so an old one means nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

impl StreamId {
    /// 31 bits.
    pub const MAX: u32 = (1 << 31) - 1;
}
