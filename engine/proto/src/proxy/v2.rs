//! Version 2 (§2.2): a binary header of 16 bytes, addresses, and type-length-value fields.

use super::{Header, Peer, Refused};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// Appends a header without TLVs: PROXY over TCP with these addresses, or LOCAL without any. Addresses of two families are
/// written as UNSPEC.
pub fn write(addresses: Option<(SocketAddr, SocketAddr)>, out: &mut Vec<u8>) {
    out.extend_from_slice(SIGNATURE);
    match addresses {
        None => out.extend_from_slice(&[VERSION | LOCAL, 0, 0, 0]),
        Some((SocketAddr::V4(source), SocketAddr::V4(destination))) => {
            out.extend_from_slice(&[VERSION | PROXY, INET << 4 | STREAM, 0, 12]);
            out.extend_from_slice(&source.ip().octets());
            out.extend_from_slice(&destination.ip().octets());
            put_ports(source.port(), destination.port(), out);
        }
        Some((SocketAddr::V6(source), SocketAddr::V6(destination))) => {
            out.extend_from_slice(&[VERSION | PROXY, INET6 << 4 | STREAM, 0, 36]);
            out.extend_from_slice(&source.ip().octets());
            out.extend_from_slice(&destination.ip().octets());
            put_ports(source.port(), destination.port(), out);
        }
        Some(_) => out.extend_from_slice(&[VERSION | PROXY, 0, 0, 0]),
    }
}

pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family and transport, length.
const FIXED: usize = 16;

/// The largest addresses (two Unix paths) take 216 bytes. A header of 536 bytes in all is what the specification promises will
/// fit in one segment; so many are accepted for addresses and TLVs each, which leaves room for any TLS certificate name.
const DATA_MAX: usize = 216 + 536;
pub(super) const LENGTH_MAX: usize = FIXED + DATA_MAX;

const VERSION: u8 = 0x20;
const LOCAL: u8 = 0;
const PROXY: u8 = 1;
const UNSPEC: u8 = 0;
const INET: u8 = 1;
const INET6: u8 = 2;
const UNIX: u8 = 3;
const STREAM: u8 = 1;
const DATAGRAM: u8 = 2;

pub(super) fn parse(bytes: &[u8]) -> Result<Option<Header>, Refused> {
    let Some((fixed, rest)) = bytes.split_at_checked(FIXED) else {
        return Ok(None);
    };
    let (command, family, transport) = (fixed[12] & 0x0f, fixed[13] >> 4, fixed[13] & 0x0f);
    if fixed[12] & 0xf0 != VERSION || command > PROXY || family > UNIX || transport > DATAGRAM {
        return Err(Refused::Kind);
    }
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if length > DATA_MAX {
        return Err(Refused::TooLong);
    }
    let Some(data) = rest.get(..length) else {
        return Ok(None);
    };
    // The family of a LOCAL header is to be ignored, and its data with it. So is that of an unspecified one.
    let (peer, tlvs) = match (command, family, transport) {
        (LOCAL, ..) => (Peer::Local, None),
        (_, UNSPEC, _) | (_, _, 0) => (Peer::Unknown, None),
        (_, INET, _) => inet(data)?,
        (_, INET6, _) => inet6(data)?,
        _ => (Peer::Unix, Some(data.get(216..).ok_or(Refused::Length)?)),
    };
    check_tlvs(tlvs.unwrap_or(&[]))?;
    Ok(Some(Header { length: FIXED + length, peer }))
}

type Parsed<'a> = (Peer, Option<&'a [u8]>);

fn inet(data: &[u8]) -> Result<Parsed<'_>, Refused> {
    let (addresses, tlvs) = data.split_first_chunk::<12>().ok_or(Refused::Length)?;
    let [a, b, c, d, e, f, g, h, ports @ ..] = *addresses;
    let [source, destination] = split_ports(ports);
    let source = (Ipv4Addr::new(a, b, c, d), source).into();
    let destination = (Ipv4Addr::new(e, f, g, h), destination).into();
    Ok((Peer::Inet { source, destination }, Some(tlvs)))
}

fn inet6(data: &[u8]) -> Result<Parsed<'_>, Refused> {
    let (source, rest) = data.split_first_chunk::<16>().ok_or(Refused::Length)?;
    let (destination, rest) = rest.split_first_chunk::<16>().ok_or(Refused::Length)?;
    let (ports, tlvs) = rest.split_first_chunk::<4>().ok_or(Refused::Length)?;
    let [source_port, destination_port] = split_ports(*ports);
    let source = (Ipv6Addr::from(*source), source_port).into();
    let destination = (Ipv6Addr::from(*destination), destination_port).into();
    Ok((Peer::Inet { source, destination }, Some(tlvs)))
}

/// Each is a type, a length of two bytes and a value; together they fill the header.
fn check_tlvs(mut tlvs: &[u8]) -> Result<(), Refused> {
    while !tlvs.is_empty() {
        let ([_, high, low], rest) = tlvs.split_first_chunk::<3>().ok_or(Refused::Length)?;
        tlvs = rest.get(usize::from(u16::from_be_bytes([*high, *low]))..).ok_or(Refused::Length)?;
    }
    Ok(())
}

fn split_ports([a, b, c, d]: [u8; 4]) -> [u16; 2] {
    [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]
}

fn put_ports(source: u16, destination: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&source.to_be_bytes());
    out.extend_from_slice(&destination.to_be_bytes());
}
