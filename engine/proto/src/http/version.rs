//! The HTTP version of a message.

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    Http10,
    Http11,
    Http2,
    Http3,
}

impl Version {
    /// Many messages share a connection, and none of their fields is about it (RFC 9113 §8.2.2, RFC 9114 §4.2).
    #[must_use]
    pub const fn is_multiplexed(self) -> bool {
        matches!(self, Self::Http2 | Self::Http3)
    }
}
