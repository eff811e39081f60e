//! The framing law (RFC 9112 §6): how long a message's content is, decided once, from its fields alone.
//!
//! It is stricter than the RFC wherever the RFC lets a recipient choose between repairing and refusing, because request smuggling
//! is two recipients that repaired differently: two equal lengths are refused, a length next to a coding is refused, and a
//! coding is `chunked`, once, or refused.

use super::{Fields, Known, Method, Status, Version, list};
use crate::Malformed;

/// Where a message's content ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no content and cannot be.
    None,
    /// Exactly so many bytes; possibly 0.
    Length(u64),
    /// The chunked transfer coding (RFC 9112 §7.1).
    Chunked,
    /// A response that ends with its connection.
    UntilClose,
}

impl Framing {
    /// Whether content may follow: false for `None` and for a length of 0.
    #[inline]
    pub fn has_body(self) -> bool {
        !matches!(self, Self::None | Self::Length(0))
    }

    /// How to frame for an HTTP/1 peer of version `peer` what arrived with this framing: chunked where the length is unknown and
    /// the peer can take it (the connection survives), until close where it cannot.
    #[inline]
    pub fn towards(self, peer: Version) -> Self {
        match self {
            Self::Chunked | Self::UntilClose if peer == Version::Http10 => Self::UntilClose,
            Self::UntilClose => Self::Chunked,
            other => other,
        }
    }
}

/// A request's framing. Never [`Framing::UntilClose`]: a request that ended with its connection could not be answered, and
/// servers that allowed it were smuggled through (CVE-2026-2835).
#[inline]
pub fn of_request(version: Version, method: Method, fields: &Fields, bytes: &[u8]) -> Result<Framing, Malformed> {
    let framing = declared(version, fields, bytes)?.unwrap_or(Framing::None);
    if method == Method::Connect && framing.has_body() {
        return Err(Malformed::ConnectWithBody);
    }
    Ok(framing)
}

/// A response's framing (RFC 9112 §6.3), given the method that it answers. An error is the upstream's fault: the lengths are
/// checked even where they are only metadata (HEAD, 304), because they are forwarded.
#[inline]
pub fn of_response(
    version: Version,
    status: Status,
    request_was: Method,
    fields: &Fields,
    bytes: &[u8],
) -> Result<Framing, Malformed> {
    let declared = declared(version, fields, bytes)?;
    let connected = request_was == Method::Connect && status.is_success();
    if request_was == Method::Head || status.is_bodiless() || connected {
        return Ok(Framing::None);
    }
    Ok(declared.unwrap_or(Framing::UntilClose))
}

/// What the fields declare, if anything.
#[inline]
fn declared(version: Version, fields: &Fields, bytes: &[u8]) -> Result<Option<Framing>, Malformed> {
    let coding = fields.value(Known::TransferEncoding, bytes);
    let length = fields.value(Known::ContentLength, bytes);
    match (coding, length) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Malformed::LengthAndCoding),
        (Some(_), None) if version == Version::Http10 => Err(Malformed::CodingOnVersion10),
        (Some(_), None) if fields.is_repeated(Known::TransferEncoding) => Err(Malformed::TransferCoding),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Some(Framing::Chunked)),
        (Some(coding), None) => Err(wrong_coding(coding)),
        (None, Some(_)) if fields.is_repeated(Known::ContentLength) => Err(Malformed::ContentLength),
        (None, Some(length)) => Ok(Some(Framing::Length(content_length(length)?))),
    }
}

/// RFC 9112 §6.1: a coding that is understood as such but not implemented is answered 501, any other trick 400.
#[cold]
fn wrong_coding(value: &[u8]) -> Malformed {
    let chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let registered = |coding: &[u8]| {
        [&b"gzip"[..], b"x-gzip", b"deflate", b"compress", b"x-compress"]
            .iter()
            .any(|name| coding.eq_ignore_ascii_case(name))
    };
    let count = list(value).count();
    let understood =
        list(value).enumerate().all(|(at, coding)| if at + 1 == count { chunked(coding) } else { registered(coding) });
    if count > 1 && understood { Malformed::CodingNotImplemented } else { Malformed::TransferCoding }
}

/// `1*DIGIT` (RFC 9110 §8.6) that fits in 64 bits.
#[inline]
fn content_length(value: &[u8]) -> Result<u64, Malformed> {
    if value.is_empty() {
        return Err(Malformed::ContentLength);
    }
    value.iter().try_fold(0u64, |length, &byte| {
        if !byte.is_ascii_digit() {
            return Err(Malformed::ContentLength);
        }
        length
            .checked_mul(10)
            .and_then(|length| length.checked_add((byte - b'0') as u64))
            .ok_or(Malformed::ContentLength)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Span;

    fn framing(version: Version, lines: &[(&str, &str)]) -> Result<Framing, Malformed> {
        let (fields, bytes) = index(lines);
        of_request(version, Method::Post, &fields, &bytes)
    }

    fn index(lines: &[(&str, &str)]) -> (Fields, Vec<u8>) {
        let (mut fields, mut bytes) = (Fields::default(), Vec::new());
        for (name, value) in lines {
            let start = bytes.len();
            bytes.extend_from_slice(name.as_bytes());
            let middle = bytes.len();
            bytes.extend_from_slice(value.as_bytes());
            let known = Known::from_name(name.as_bytes());
            assert!(fields.push(Span::between(start, middle), Span::between(middle, bytes.len()), known));
        }
        (fields, bytes)
    }

    #[test]
    fn requests() {
        use Malformed::{CodingNotImplemented, CodingOnVersion10, ContentLength, LengthAndCoding, TransferCoding};
        type Case<'a> = (&'a [(&'a str, &'a str)], Result<Framing, Malformed>);
        let table: &[Case<'_>] = &[
            (&[], Ok(Framing::None)),
            (&[("Content-Length", "0")], Ok(Framing::Length(0))),
            (&[("content-length", "5")], Ok(Framing::Length(5))),
            (&[("Content-Length", "18446744073709551615")], Ok(Framing::Length(u64::MAX))),
            (&[("Content-Length", "18446744073709551616")], Err(ContentLength)),
            (&[("Content-Length", "")], Err(ContentLength)),
            (&[("Content-Length", "+5")], Err(ContentLength)),
            (&[("Content-Length", "-5")], Err(ContentLength)),
            (&[("Content-Length", "0x5")], Err(ContentLength)),
            (&[("Content-Length", "5 5")], Err(ContentLength)),
            (&[("Content-Length", "5,5")], Err(ContentLength)),
            (&[("Content-Length", "5, 5")], Err(ContentLength)),
            (&[("Content-Length", "5\u{b}")], Err(ContentLength)),
            (&[("Content-Length", "5"), ("Content-Length", "5")], Err(ContentLength)),
            (&[("Content-Length", "5"), ("content-length", "6")], Err(ContentLength)),
            (&[("Transfer-Encoding", "chunked")], Ok(Framing::Chunked)),
            (&[("transfer-encoding", "CHUNKED")], Ok(Framing::Chunked)),
            (&[("Transfer-Encoding", "")], Err(TransferCoding)),
            (&[("Transfer-Encoding", "xchunked")], Err(TransferCoding)),
            (&[("Transfer-Encoding", "chunked, identity")], Err(TransferCoding)),
            (&[("Transfer-Encoding", "identity, chunked")], Err(TransferCoding)),
            (&[("Transfer-Encoding", "chunked, chunked")], Err(TransferCoding)),
            (&[("Transfer-Encoding", "chunked,")], Err(TransferCoding)),
            (&[("Transfer-Encoding", "gzip, chunked")], Err(CodingNotImplemented)),
            (&[("Transfer-Encoding", "gzip")], Err(TransferCoding)),
            (&[("Transfer-Encoding", "identity")], Err(TransferCoding)),
            (&[("Transfer-Encoding", "chunked\u{b}")], Err(TransferCoding)),
            (&[("Transfer-Encoding", "\"chunked\"")], Err(TransferCoding)),
            (&[("Transfer-Encoding", "chunked;q=1")], Err(TransferCoding)),
            (&[("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")], Err(TransferCoding)),
            (&[("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "identity")], Err(TransferCoding)),
            (&[("Content-Length", "5"), ("Transfer-Encoding", "chunked")], Err(LengthAndCoding)),
            (&[("Transfer-Encoding", "chunked"), ("Content-Length", "5")], Err(LengthAndCoding)),
            (&[("Transfer-Encoding", "identity"), ("Content-Length", "5")], Err(LengthAndCoding)),
        ];
        for (lines, expected) in table {
            assert_eq!(framing(Version::Http11, lines), *expected, "{lines:?}");
        }
        assert_eq!(framing(Version::Http10, &[("Transfer-Encoding", "chunked")]), Err(CodingOnVersion10));
    }

    #[test]
    fn responses() {
        let of = |status, method, lines: &[(&str, &str)]| {
            let (fields, bytes) = index(lines);
            of_response(Version::Http11, Status::new(status).unwrap(), method, &fields, &bytes)
        };
        let length: &[(&str, &str)] = &[("Content-Length", "5")];
        let chunked: &[(&str, &str)] = &[("Transfer-Encoding", "chunked")];
        assert_eq!(of(200, Method::Get, length), Ok(Framing::Length(5)));
        assert_eq!(of(200, Method::Get, chunked), Ok(Framing::Chunked));
        assert_eq!(of(200, Method::Get, &[]), Ok(Framing::UntilClose));
        assert_eq!(of(200, Method::Connect, length), Ok(Framing::None));
        assert_eq!(of(403, Method::Connect, length), Ok(Framing::Length(5)));
        for (status, method) in
            [(200, Method::Head), (100, Method::Get), (101, Method::Get), (204, Method::Get), (304, Method::Get)]
        {
            for lines in [length, chunked, &[]] {
                assert_eq!(of(status, method, lines), Ok(Framing::None), "{status} {method:?}");
            }
        }
        assert_eq!(of(304, Method::Get, &[("Content-Length", "x")]), Err(Malformed::ContentLength));
    }

    #[test]
    fn towards_a_peer() {
        assert_eq!(Framing::Chunked.towards(Version::Http10), Framing::UntilClose);
        assert_eq!(Framing::UntilClose.towards(Version::Http10), Framing::UntilClose);
        assert_eq!(Framing::UntilClose.towards(Version::Http11), Framing::Chunked);
        assert_eq!(Framing::Length(3).towards(Version::Http10), Framing::Length(3));
        assert_eq!(Framing::None.towards(Version::Http11), Framing::None);
    }
}
