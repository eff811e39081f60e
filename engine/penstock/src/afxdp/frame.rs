//! A datagram in a frame: Ethernet, IPv4 (RFC 791) or IPv6 (RFC 8200), UDP (RFC 768), read and written.
//!
//! What holds: any bytes are read without a panic, and what is read is within them. What is written is no fragment and must not become one, has both checksums,
//! and is as long as it says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const ETHERNET: usize = 14;
const V4: usize = 20;
const V6: usize = 40;
const UDP: usize = 8;

/// Ethernet's numbers of protocols, and IP's.
const TYPE_V4: [u8; 2] = [0x08, 0x00];
const TYPE_V6: [u8; 2] = [0x86, 0xdd];
const PROTOCOL_UDP: u8 = 17;

/// Routers that a packet may pass: what Linux begins with.
const HOPS: u8 = 64;

/// Link-layer addresses: the interface's own, and that of who sent a frame and gets the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    pub ours: [u8; 6],
    pub theirs: [u8; 6],
}

/// A datagram that came in a frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    pub way: Way,
    pub from: SocketAddr,
    pub to: SocketAddr,
    /// Two bits (RFC 3168 §5).
    pub ecn: u8,
    pub bytes: &'a mut [u8],
}

/// Why a frame is no good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Cut off, of lengths that contradict each other, or nothing that the program gives away.
    Malformed,
    Checksum,
    /// Nobody can be there: a multicast address or one of this host's own, port 0.
    Source,
}

/// Reads a frame.
///
/// A checksum that a sender on the same machine has left for a device to finish (as between the ends of a veth) is that of the pseudo-header alone, and good.
///
/// # Errors
/// Why it carries no datagram that somebody may see.
pub fn read(frame: &mut [u8]) -> Result<Datagram<'_>, Flaw> {
    let (ethernet, packet) = frame.split_first_chunk_mut::<ETHERNET>().ok_or(Flaw::Malformed)?;
    let [a, b, c, d, e, f, g, h, i, j, k, l, kind @ ..] = *ethernet;
    let way = Way { ours: [a, b, c, d, e, f], theirs: [g, h, i, j, k, l] };
    if way.theirs[0] & 1 == 1 {
        return Err(Flaw::Source);
    }
    let (from, to, ecn, rest) = match kind {
        TYPE_V4 => read_v4(packet)?,
        TYPE_V6 => read_v6(packet)?,
        _ => return Err(Flaw::Malformed),
    };
    let header = *rest.first_chunk::<UDP>().ok_or(Flaw::Malformed)?;
    let [from_port, to_port, length, told] = halves(header);
    let datagram = rest.get_mut(..length.into()).filter(|datagram| datagram.len() >= UDP).ok_or(Flaw::Malformed)?;
    // None in IPv4, and none at all in IPv6 (RFC 8200 §8.1).
    if told != 0 || from.is_ipv6() {
        let pseudo = pseudo_header(from, to, length);
        let is_unfinished = told == fold(pseudo);
        if fold(pseudo + sum(datagram)) != u16::MAX && !is_unfinished {
            return Err(Flaw::Checksum);
        }
    }
    if !is_somebody(from) || from_port == 0 || from == to {
        return Err(Flaw::Source);
    }
    let (from, to) = (SocketAddr::new(from, from_port), SocketAddr::new(to, to_port));
    Ok(Datagram { way, from, to, ecn, bytes: &mut datagram[UDP..] })
}

type Packet<'a> = (IpAddr, IpAddr, u8, &'a mut [u8]);

fn read_v4(packet: &mut [u8]) -> Result<Packet<'_>, Flaw> {
    let header = *packet.first_chunk::<V4>().ok_or(Flaw::Malformed)?;
    let [version, service, length_high, length_low, _, _, offset_high, offset_low, _, protocol, _, _, ends @ ..] =
        header;
    let length = usize::from(u16::from_be_bytes([length_high, length_low]));
    let is_whole = u16::from_be_bytes([offset_high, offset_low]) & 0x3fff == 0;
    if version != 0x45 || protocol != PROTOCOL_UDP || !is_whole {
        return Err(Flaw::Malformed);
    }
    if fold(sum(&header)) != u16::MAX {
        return Err(Flaw::Checksum);
    }
    let [a, b, c, d, e, f, g, h] = ends;
    let (from, to) = (Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h));
    let rest = packet.get_mut(V4..length).ok_or(Flaw::Malformed)?;
    Ok((from.into(), to.into(), service & 0b11, rest))
}

fn read_v6(packet: &mut [u8]) -> Result<Packet<'_>, Flaw> {
    let (header, rest) = packet.split_first_chunk_mut::<V6>().ok_or(Flaw::Malformed)?;
    let [first, second, _, _, length_high, length_low, next, _, ends @ ..] = *header;
    if first >> 4 != 6 || next != PROTOCOL_UDP {
        return Err(Flaw::Malformed);
    }
    let length = usize::from(u16::from_be_bytes([length_high, length_low]));
    let (from, to) = ends.split_at(16);
    let address = |octets: &[u8]| octets.first_chunk::<16>().map_or(Ipv6Addr::UNSPECIFIED, |octets| (*octets).into());
    let rest = rest.get_mut(..length).ok_or(Flaw::Malformed)?;
    // The traffic class lies across two octets; its last two bits are these.
    Ok((address(from).into(), address(to).into(), second >> 4 & 0b11, rest))
}

/// Whether there can be somebody at an address.
fn is_somebody(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    // An IPv4 address in the clothes of an IPv6 one has no business on a wire (RFC 4291 §2.5.5.2).
    let is_mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    !(address.is_unspecified() || address.is_multicast() || address.is_loopback() || is_broadcast || is_mapped)
}

/// Octets of all headers before a datagram to this address.
#[must_use]
pub const fn headers(to: IpAddr) -> usize {
    ETHERNET + headers_of_packet(to)
}

/// The same without Ethernet's: what counts for the MTU.
#[must_use]
pub(super) const fn headers_of_packet(to: IpAddr) -> usize {
    UDP + if to.is_ipv4() { V4 } else { V6 }
}

/// Writes a datagram into a frame, and tells how long that is; 0 where it does not fit, or the addresses are of two families.
#[must_use]
pub fn write(frame: &mut [u8], way: Way, from: SocketAddr, to: SocketAddr, ecn: u8, bytes: &[u8]) -> usize {
    let total = headers(to.ip()) + bytes.len();
    let Ok(length) = u16::try_from(UDP + bytes.len()) else { return 0 };
    let Some(frame) = frame.get_mut(..total) else { return 0 };
    let (ethernet, packet) = frame.split_at_mut(ETHERNET);
    ethernet[..6].copy_from_slice(&way.theirs);
    ethernet[6..12].copy_from_slice(&way.ours);
    let rest = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            ethernet[12..].copy_from_slice(&TYPE_V4);
            write_v4(packet, from, to, ecn)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            ethernet[12..].copy_from_slice(&TYPE_V6);
            write_v6(packet, from, to, ecn)
        }
        _ => return 0,
    };
    rest[..2].copy_from_slice(&from.port().to_be_bytes());
    rest[2..4].copy_from_slice(&to.port().to_be_bytes());
    rest[4..6].copy_from_slice(&length.to_be_bytes());
    rest[6..8].fill(0);
    rest[UDP..].copy_from_slice(bytes);
    // A sum of 0 is written as its other form: 0 says that there is none (RFC 768).
    let checksum = match !fold(pseudo_header(from.ip(), to.ip(), length) + sum(rest)) {
        0 => u16::MAX,
        checksum => checksum,
    };
    rest[6..8].copy_from_slice(&checksum.to_be_bytes());
    total
}

fn write_v4(packet: &mut [u8], from: Ipv4Addr, to: Ipv4Addr, ecn: u8) -> &mut [u8] {
    let length = packet.len() as u16;
    let (header, rest) = packet.split_at_mut(V4);
    // No name for its fragments, as it has none (RFC 6864 §4.1).
    header[..4].copy_from_slice(&[0x45, ecn & 0b11, (length >> 8) as u8, length as u8]);
    header[4..12].copy_from_slice(&[0, 0, 0x40, 0, HOPS, PROTOCOL_UDP, 0, 0]);
    header[12..16].copy_from_slice(&from.octets());
    header[16..].copy_from_slice(&to.octets());
    let checksum = !fold(sum(header));
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    rest
}

fn write_v6(packet: &mut [u8], from: Ipv6Addr, to: Ipv6Addr, ecn: u8) -> &mut [u8] {
    let (header, rest) = packet.split_at_mut(V6);
    let length = (rest.len() as u16).to_be_bytes();
    header[..8].copy_from_slice(&[0x60, (ecn & 0b11) << 4, 0, 0, length[0], length[1], PROTOCOL_UDP, HOPS]);
    header[8..24].copy_from_slice(&from.octets());
    header[24..].copy_from_slice(&to.octets());
    rest
}

fn halves([a, b, c, d, e, f, g, h]: [u8; 8]) -> [u16; 4] {
    [[a, b], [c, d], [e, f], [g, h]].map(u16::from_be_bytes)
}

/// The sum of what a checksum covers beside the datagram (RFC 768, RFC 8200 §8.1).
fn pseudo_header(from: IpAddr, to: IpAddr, length: u16) -> u64 {
    let of = |address: IpAddr| match address {
        IpAddr::V4(address) => sum(&address.octets()),
        IpAddr::V6(address) => sum(&address.octets()),
    };
    of(from) + of(to) + u64::from(u16::from(PROTOCOL_UDP).to_be()) + u64::from(length.to_be())
}

/// The sum of all halves (RFC 1071), not folded, in the order of octets that this machine has: which it is does not matter to a sum in ones' complement.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    words.iter().chain([&last]).map(|word| u64::from(u32::from_ne_bytes(*word))).sum()
}

/// The half that a sum comes to, in the order of octets that a wire has.
fn fold(mut sum: u64) -> u16 {
    while sum > u64::from(u16::MAX) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::from_be(sum as u16)
}

#[cfg(test)]
mod tests;
