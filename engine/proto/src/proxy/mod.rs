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
    Inet { source: SocketAddr, destination: SocketAddr },
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1() {
        let inet = |source: &str, destination: &str| Peer::Inet {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        };
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(91));
        assert_eq!(long.len(), 107);
        let table: &[(&str, Result<Option<Peer>, Refused>)] = &[
            ("PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\nGET", Ok(Some(inet("1.2.3.4:9", "5.6.7.8:10")))),
            ("PROXY TCP6 ::1 2001:db8::2 0 65535\r\n", Ok(Some(inet("[::1]:0", "[2001:db8::2]:65535")))),
            ("PROXY UNKNOWN\r\n", Ok(Some(Peer::Unknown))),
            ("PROXY UNKNOWN whatever it says\r\n", Ok(Some(Peer::Unknown))),
            (&long, Ok(Some(Peer::Unknown))),
            (&format!("PROXY UNKNOWN {}\r\n", "x".repeat(92)), Err(Refused::TooLong)),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 9 10", Ok(None)),
            ("PRO", Ok(None)),
            ("", Ok(None)),
            ("GET / HTTP/1.1\r\n", Err(Refused::NotProxy)),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 9 10\n", Err(Refused::Line)),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 9 10 11\r\n", Err(Refused::Line)),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 9\r\n", Err(Refused::Line)),
            ("PROXY TCP4 1.2.3.4  5.6.7.8 9 10\r\n", Err(Refused::Line)),
            ("PROXY TCP4 01.2.3.4 5.6.7.8 9 10\r\n", Err(Refused::Line)),
            ("PROXY TCP4 ::1 ::1 9 10\r\n", Err(Refused::Line)),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 +9 10\r\n", Err(Refused::Line)),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 09 10\r\n", Err(Refused::Line)),
            ("PROXY TCP4 1.2.3.4 5.6.7.8 9 65536\r\n", Err(Refused::Line)),
            ("PROXY UDP4 1.2.3.4 5.6.7.8 9 10\r\n", Err(Refused::Line)),
        ];
        for (text, expected) in table {
            let parsed = parse(text.as_bytes()).map(|header| header.map(|header| header.peer));
            assert_eq!(parsed, *expected, "{text}");
        }
    }

    #[test]
    fn version_2() {
        let parsed = |kind: [u8; 2], data: &[u8]| {
            let mut bytes = v2::SIGNATURE.to_vec();
            bytes.extend_from_slice(&kind);
            bytes.extend_from_slice(&(data.len() as u16).to_be_bytes());
            bytes.extend_from_slice(data);
            for end in 0..bytes.len() {
                assert!(matches!(parse(&bytes[..end]), Ok(None) | Err(Refused::Kind | Refused::TooLong)));
            }
            parse(&bytes).map(|header| header.unwrap().peer)
        };
        let inet = Peer::Inet { source: "1.2.3.4:258".parse().unwrap(), destination: "5.6.7.8:772".parse().unwrap() };
        let addresses = [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4];
        let with = |tlvs: &[u8]| [&addresses[..], tlvs].concat();
        assert_eq!(parsed([0x21, 0x11], &addresses), Ok(inet));
        assert_eq!(parsed([0x21, 0x12], &addresses), Ok(inet));
        assert_eq!(parsed([0x21, 0x11], &with(&[4, 0, 2, 9, 9, 1, 0, 0])), Ok(inet));
        assert_eq!(parsed([0x21, 0x11], &with(&[4, 0, 2, 9])), Err(Refused::Length));
        assert_eq!(parsed([0x21, 0x11], &with(&[4, 0])), Err(Refused::Length));
        assert_eq!(parsed([0x21, 0x11], &addresses[1..]), Err(Refused::Length));
        assert_eq!(parsed([0x21, 0x21], &[0; 35]), Err(Refused::Length));
        assert_eq!(parsed([0x21, 0x31], &[0; 216]), Ok(Peer::Unix));
        assert_eq!(parsed([0x21, 0x31], &[0; 215]), Err(Refused::Length));
        assert_eq!(parsed([0x20, 0x00], &[]), Ok(Peer::Local));
        assert_eq!(parsed([0x20, 0x11], &[1, 2]), Ok(Peer::Local));
        assert_eq!(parsed([0x21, 0x00], &[1, 2]), Ok(Peer::Unknown));
        assert_eq!(parsed([0x22, 0x11], &addresses), Err(Refused::Kind));
        assert_eq!(parsed([0x11, 0x11], &addresses), Err(Refused::Kind));
        assert_eq!(parsed([0x21, 0x41], &addresses), Err(Refused::Kind));
        assert_eq!(parsed([0x21, 0x13], &addresses), Err(Refused::Kind));
        assert_eq!(parsed([0x21, 0x11], &with(&[0; 741])), Err(Refused::TooLong));
    }

    #[test]
    fn what_is_written_is_read() {
        for (source, destination) in [("1.2.3.4:5", "6.7.8.9:10"), ("[::1]:5", "[2001:db8::9]:65535")] {
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            for write in [write_v1, write_v2] {
                let mut out = Vec::new();
                write(Some((source, destination)), &mut out);
                let expected = Header { length: out.len(), peer: Peer::Inet { source, destination } };
                assert_eq!(parse(&out), Ok(Some(expected)));
            }
        }
        let mut out = Vec::new();
        write_v1(None, &mut out);
        assert_eq!(parse(&out).unwrap().unwrap().peer, Peer::Unknown);
        out.clear();
        write_v2(None, &mut out);
        assert_eq!(parse(&out).unwrap().unwrap().peer, Peer::Local);
    }
}
