//! `bench flood-syns`: SYNs from addresses that are nobody's, at a rate, for a while.

use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::net::addr::SocketAddrArg;
use rustix::net::{
    AddressFamily, MMsgHdr, Protocol, SendAncillaryBuffer, SendFlags, SocketFlags, SocketType, sendmmsg, socket_with,
};
use xtask::Outcome;

use crate::flags::Flags;

/// Addresses for benchmarks of networks (RFC 2544, appendix C.2.2): 2^17 of them.
pub(super) const SOURCES: &str = "198.18.0.0/15";
const SOURCES_FIRST: u32 = 0xc612_0000;
const SOURCES_BITS: u32 = 17;

/// SYNs that are made beforehand and sent over and over: making them would cost as much as sending them.
const MADE: u64 = 1 << 17;

/// SYNs that are sent at once.
const BATCH: usize = 64;

/// Octets of a SYN with the option that nobody leaves out, and its IP header.
const OCTETS: usize = 44;

/// `bench flood-syns --to ADDRESS --rate N --seconds N`: prints how many a second were sent.
pub(crate) fn main(arguments: &[String]) -> Outcome {
    let flags = Flags::parse(arguments, &["--to", "--rate", "--seconds"], &[])?;
    let (to, rate, seconds): (SocketAddr, u64, u64) =
        (flags.need("--to")?, flags.need("--rate")?, flags.need("--seconds")?);
    let IpAddr::V4(address) = to.ip() else { return Err(format!("{to} is not IPv4")) };
    let failed = |error: rustix::io::Errno| format!("a raw socket: {error}");
    // IPPROTO_RAW: the IP header is ours, but for its checksum.
    let raw = Protocol::from_raw(std::num::NonZeroU32::new(255).ok_or("no protocol")?);
    let socket = socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(raw)).map_err(failed)?;
    let destination = SocketAddr::new(to.ip(), 0).as_any();
    let packets: Vec<[u8; OCTETS]> = (0..MADE).map(|number| syn(number, address, to.port())).collect();
    let mut batches = packets.chunks_exact(BATCH).cycle();
    let (begun, mut sent) = (Instant::now(), 0_u64);
    let end = Duration::from_secs(seconds);
    while begun.elapsed() < end && sent < rate * seconds {
        if sent >= (begun.elapsed().as_secs_f64() * rate as f64) as u64 {
            std::thread::sleep(Duration::from_micros(200));
            continue;
        }
        let batch = batches.next().unwrap_or_default();
        let slices: Vec<[IoSlice<'_>; 1]> = batch.iter().map(|packet| [IoSlice::new(packet)]).collect();
        let mut controls: Vec<SendAncillaryBuffer<'_, '_, '_>> =
            (0..BATCH).map(|_| SendAncillaryBuffer::default()).collect();
        let mut messages: Vec<MMsgHdr<'_>> = slices
            .iter()
            .zip(&mut controls)
            .map(|(slice, control)| MMsgHdr::new_with_addr(&destination, slice, control))
            .collect();
        match sendmmsg(&socket, &mut messages, SendFlags::empty()) {
            Ok(count) => sent += count as u64,
            // No room for them: they are not made up for.
            Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::AGAIN) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    println!("{}", sent as f64 / begun.elapsed().as_secs_f64());
    Ok(())
}

/// An IPv4 packet with a SYN in it; another source, port and sequence number for each `number`.
fn syn(number: u64, to: Ipv4Addr, port: u16) -> [u8; OCTETS] {
    // Knuth's multiplicative hash, for what an eye takes for chance.
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 16;
    let source = SOURCES_FIRST | (mixed as u32 & ((1 << SOURCES_BITS) - 1));
    let from_port = 1_024 + (mixed >> SOURCES_BITS) as u16 % 60_000;
    let mut packet = [0; OCTETS];
    packet[..12].copy_from_slice(&[0x45, 0, 0, OCTETS as u8, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    packet[12..16].copy_from_slice(&source.to_be_bytes());
    packet[16..20].copy_from_slice(&to.octets());
    packet[20..22].copy_from_slice(&from_port.to_be_bytes());
    packet[22..24].copy_from_slice(&port.to_be_bytes());
    packet[24..28].copy_from_slice(&(mixed as u32).to_be_bytes());
    packet[32..36].copy_from_slice(&[0x60, 2, 0xff, 0xff]);
    packet[40..44].copy_from_slice(&[2, 4, 0x05, 0xb4]);
    let sum = checksum(&packet);
    packet[36..38].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// RFC 9293 §3.1: of the segment, and of the addresses, protocol and length before it.
fn checksum(packet: &[u8; OCTETS]) -> u16 {
    let words = packet[12..].chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let mut sum = words.sum::<u32>() + 6 + (OCTETS as u32 - 20);
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_source_comes_twice_soon_and_checksums_are_right() {
        let to = Ipv4Addr::new(10, 78, 0, 1);
        let mut sources = std::collections::BTreeSet::new();
        for number in 0..10_000 {
            let packet = syn(number, to, 8_080);
            let source = Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15]);
            assert!(source.octets()[0] == 198 && matches!(source.octets()[1], 18 | 19), "{source}");
            sources.insert((source, packet[20], packet[21]));
            assert_eq!(checksum(&packet), 0, "a sum with itself in it");
        }
        assert!(sources.len() > 9_900, "{}", sources.len());
    }
}
