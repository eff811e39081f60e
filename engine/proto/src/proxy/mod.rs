//! The PROXY protocol, versions 1 and 2 (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>): who the peer behind a
//! trusted load balancer is.
//!
//! Read once, before anything else on a connection, and only at doors that expect it: whoever may write this header may claim any
//! address. Both versions are bounded (CVE-2026-47736 was a version 1 line without a bound), and the CRC32c of version 2 is not
//! checked: TCP has checked those bytes already, and nobody who could forge them would fail to forge it.

mod v1;
mod v2;

use std::fmt;
use std::net::SocketAddr;

pub use v1::write as write_v1;
pub use v2::write as write_v2;

/// The longest header that is accepted, of either version.
pub const LENGTH_MAX: usize = v2::LENGTH_MAX;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes that it took; the connection's own follow.
    pub length: usize,
    pub peer: Peer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The balancer itself, e.g. a health check: use the connection's own addresses.
    Local,
    /// Somebody of whom nothing is said (UNKNOWN, UNSPEC): use the connection's own addresses.
    Unknown,
    /// A client over TCP or UDP; both addresses are of one family.
    Inet {
        source: SocketAddr,
        destination: SocketAddr,
    },
    /// A client over a Unix socket. Its paths are of no use to another machine, and are not kept.
    Unix,
}

/// Why a header was refused. The balancer in front is at fault, or is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refused {
    /// Neither version's signature.
    NotProxy,
    /// A version 1 line without its end within 107 bytes, or more data in version 2 than is accepted.
    TooLong,
    /// A version 1 line that is not as the specification has it.
    Line,
    /// A version 2 version, command, family or transport that does not exist.
    Kind,
    /// A version 2 length that its addresses or TLVs do not fit.
    Length,
}

/// Reads a header of either version at the start of `bytes`; `None` means that more bytes are needed.
///
/// # Errors
/// It is none, or a broken one. Nothing can be done with the connection.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Refused> {
    if starts_like(bytes, v2::SIGNATURE) {
        v2::parse(bytes)
    } else if starts_like(bytes, v1::SIGNATURE) {
        v1::parse(bytes)
    } else {
        Err(Refused::NotProxy)
    }
}

fn starts_like(bytes: &[u8], signature: &[u8]) -> bool {
    let common = bytes.len().min(signature.len());
    bytes[..common] == signature[..common]
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NotProxy => "not a PROXY header",
            Self::TooLong => "the PROXY header is too long",
            Self::Line => "the PROXY line is ill-formed",
            Self::Kind => "the PROXY header is of a kind that does not exist",
            Self::Length => "the PROXY header's parts do not fit its length",
        })
    }
}

impl std::error::Error for Refused {}
