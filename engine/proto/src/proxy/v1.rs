//! Version 1 (§2.1): one line of text, at most 107 bytes.

use super::{Header, Peer, Refused};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Appends a line. Addresses of two families, or none, are written as UNKNOWN.
pub fn write(addresses: Option<(SocketAddr, SocketAddr)>, out: &mut Vec<u8>) {
    let family = match addresses {
        Some((SocketAddr::V4(_), SocketAddr::V4(_))) => "TCP4",
        Some((SocketAddr::V6(_), SocketAddr::V6(_))) => "TCP6",
        _ => return out.extend_from_slice(b"PROXY UNKNOWN\r\n"),
    };
    if let Some((source, destination)) = addresses {
        // Writing into a Vec cannot fail.
        let _ = write!(
            out,
            "PROXY {family} {} {} {} {}\r\n",
            source.ip(),
            destination.ip(),
            source.port(),
            destination.port()
        );
    }
}

pub(super) const SIGNATURE: &[u8] = b"PROXY ";

/// The specification's own bound: the longest line, TCP6 or UNKNOWN with two full addresses, CRLF included.
const LENGTH_MAX: usize = 107;

pub(super) fn parse(bytes: &[u8]) -> Result<Option<Header>, Refused> {
    let window = &bytes[..bytes.len().min(LENGTH_MAX)];
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if bytes.len() >= LENGTH_MAX { Err(Refused::TooLong) } else { Ok(None) };
    };
    let line = window[..end].strip_suffix(b"\r").ok_or(Refused::Line)?;
    let text = std::str::from_utf8(line).map_err(|_| Refused::Line)?;
    if text.contains('\r') {
        return Err(Refused::Line);
    }
    let mut words = text.split(' ').skip(1);
    let peer = match words.next() {
        // The rest of an UNKNOWN line is to be ignored.
        Some("UNKNOWN") => {
            return Ok(Some(Header { length: end + 1, peer: Peer::Unknown }));
        }
        Some("TCP4") => inet(&mut words, |word| word.parse::<Ipv4Addr>().ok().map(IpAddr::V4)),
        Some("TCP6") => inet(&mut words, |word| word.parse::<Ipv6Addr>().ok().map(IpAddr::V6)),
        _ => None,
    };
    match (peer, words.next()) {
        (Some(peer), None) => Ok(Some(Header { length: end + 1, peer })),
        _ => Err(Refused::Line),
    }
}

fn inet<'a>(words: &mut impl Iterator<Item = &'a str>, address: impl Fn(&str) -> Option<IpAddr>) -> Option<Peer> {
    let (source, destination) = (address(words.next()?)?, address(words.next()?)?);
    let (source_port, destination_port) = (port(words.next()?)?, port(words.next()?)?);
    Some(Peer::Inet { source: (source, source_port).into(), destination: (destination, destination_port).into() })
}

/// Decimal, without sign or leading zeros.
fn port(word: &str) -> Option<u16> {
    let plain = word == "0" || word.starts_with(|first: char| matches!(first, '1'..='9'));
    if plain { word.parse().ok() } else { None }
}
