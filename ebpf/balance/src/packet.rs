//! What a packet is of, or the one that an ICMP error tells of.

use core::cell::Cell;
use core::ptr;

use abi::balance::{Address, Outcome, hash, mapped};
use aya_ebpf::programs::XdpContext;
use wire::{ETHERNET, IPV4, IPV6, TCP, UDP, load};

use crate::{V4, V6};

pub(crate) const ICMP: u32 = 1;
pub(crate) const ICMPV6: u32 = 58;
/// Of an ICMP error, before the packet that it tells of.
pub(crate) const ERROR: u32 = 8;

/// The packet, or the one that an ICMP error tells of, turned round: from whom it is, and to which VIP. Words, so that there is no padding.
#[repr(C)]
pub(crate) struct Packet {
    pub(crate) source: Address,
    pub(crate) destination: Address,
    /// Source, destination.
    pub(crate) ports: u32,
    pub(crate) protocol: u32,
    /// With its IP header, without padding behind it.
    pub(crate) octets: u32,
    /// [`IS_V4`] and its neighbours.
    pub(crate) flags: u32,
    /// How long it might have been, where it is too big; 0: nobody knows.
    pub(crate) mtu: Cell<u32>,
}

pub(crate) const IS_V4: u32 = 1 << 0;
/// It has no flow yet.
pub(crate) const OPENS: u32 = 1 << 1;
pub(crate) const IS_ERROR: u32 = 1 << 2;
/// It says that no more of its flow comes.
pub(crate) const CLOSES: u32 = 1 << 3;

impl Packet {
    /// Word by word, and here: what different ways through the program have read is nowhere else.
    #[inline(always)]
    fn write(self, to: *mut Self) {
        let ([a, b, c, d], [e, f, g, h]) = (self.source, self.destination);
        let words = [a, b, c, d, e, f, g, h, self.ports, self.protocol, self.octets, self.flags, 0];
        for (at, word) in words.into_iter().enumerate() {
            // SAFETY: the words that a packet has, in their order.
            unsafe { ptr::write_volatile(to.cast::<u32>().add(at), word) };
        }
    }

    /// The same on every machine, as which endpoint has its slot is.
    #[inline(always)]
    pub(crate) const fn hash(&self) -> u64 {
        hash(self.source, (self.ports >> 16) as u16)
    }

    /// What is said of it when it is longer than `mtu`.
    #[inline(always)]
    pub(crate) fn too_big(&self, mtu: u32) -> Outcome {
        self.mtu.set(mtu);
        Outcome::TooBig
    }

    #[inline(always)]
    pub(crate) const fn is(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

/// Lets the verifier forget on which way a packet was read, as it would follow each through all that comes after it, and there is too much of that. `zero` is [`crate::Settings::zero`].
#[cfg(feature = "nat")]
#[inline(always)]
pub(crate) fn forget(packet: *mut Packet, zero: u32) {
    // SAFETY: words of a packet that has been read.
    unsafe {
        for word in [&raw mut (*packet).protocol, &raw mut (*packet).flags] {
            ptr::write_volatile(word, ptr::read_volatile(word) ^ zero);
        }
    }
}

#[inline(always)]
pub(crate) fn read(ctx: &XdpContext, to: *mut Packet) -> Result<(), Outcome> {
    let [_, _, _, kind] = load::<4, true>(ctx, 0).ok_or(Outcome::Other)?;
    match u16::from_be(kind as u16) {
        IPV4 => read_v4(ctx, to),
        IPV6 => read_v6(ctx, to),
        _ => Err(Outcome::Other),
    }
}

#[inline(always)]
fn read_v4(ctx: &XdpContext, to: *mut Packet) -> Result<(), Outcome> {
    let [first, second, third, source, destination] = load::<5, true>(ctx, ETHERNET).ok_or(Outcome::Truncated)?;
    let (first, second, third) = (u32::from_be(first), u32::from_be(second), u32::from_be(third));
    let octets = first & 0xffff;
    let at = ETHERNET + V4;
    match first >> 24 {
        0x45 => {}
        0x46..=0x4f => return Err(Outcome::Options),
        _ => return Err(Outcome::Truncated),
    }
    // Its offset, and whether there are more of them.
    if second & 0x3fff != 0 {
        return Err(Outcome::Fragment);
    }
    let protocol = third >> 16 & 0xff;
    if protocol == ICMP {
        return error_v4(ctx, to, u32::from_be(destination), octets);
    }
    let (ports, says) = ports(ctx, protocol, at)?;
    let (source, destination) = (mapped(u32::from_be(source)), mapped(u32::from_be(destination)));
    let flags = IS_V4 | says;
    Packet { source, destination, ports, protocol, octets, flags, mtu: Cell::new(0) }.write(to);
    Ok(())
}

#[inline(always)]
fn read_v6(ctx: &XdpContext, to: *mut Packet) -> Result<(), Outcome> {
    let [first, second, a, b, c, d, to_a, to_b, to_c, to_d] =
        load::<10, true>(ctx, ETHERNET).ok_or(Outcome::Truncated)?;
    let second = u32::from_be(second);
    if u32::from_be(first) >> 28 != 6 {
        return Err(Outcome::Truncated);
    }
    let (octets, protocol) = (V6 + (second >> 16), second >> 8 & 0xff);
    let destination = [to_a, to_b, to_c, to_d];
    match protocol {
        ICMPV6 => return error_v6(ctx, to, destination, octets),
        44 => return Err(Outcome::Fragment),
        0 | 43 | 51 | 60 => return Err(Outcome::Options),
        _ => {}
    }
    let (ports, says) = ports(ctx, protocol, ETHERNET + V6)?;
    Packet { source: [a, b, c, d], destination, ports, protocol, octets, mtu: Cell::new(0), flags: says }.write(to);
    Ok(())
}

/// Both ports, and what its flags say: [`OPENS`], [`CLOSES`].
#[inline(always)]
fn ports(ctx: &XdpContext, protocol: u32, at: u32) -> Result<(u32, u32), Outcome> {
    match (protocol, at) {
        (TCP, 34) => ports_tcp(load::<5, true>(ctx, 34)),
        (TCP, _) => ports_tcp(load::<5, true>(ctx, 54)),
        (UDP, 34) => ports_udp(load::<2, true>(ctx, 34)),
        (UDP, _) => ports_udp(load::<2, true>(ctx, 54)),
        _ => Err(Outcome::Other),
    }
}

#[inline(always)]
fn ports_tcp(header: Option<[u32; 5]>) -> Result<(u32, u32), Outcome> {
    let [ports, _, _, fourth, _] = header.ok_or(Outcome::Truncated)?;
    let flags = u32::from_be(fourth) >> 16;
    // SYN without ACK; FIN or RST.
    let opens = if flags & 0x12 == 0x02 { OPENS } else { 0 };
    let closes = if flags & 0x05 != 0 { CLOSES } else { 0 };
    Ok((u32::from_be(ports), opens | closes))
}

#[inline(always)]
fn ports_udp(header: Option<[u32; 2]>) -> Result<(u32, u32), Outcome> {
    let [ports, _] = header.ok_or(Outcome::Truncated)?;
    Ok((u32::from_be(ports), 0))
}

/// An ICMP error: unreachable (which is where path MTUs are told of, RFC 1191 §4), time exceeded, parameter problem. The rest is the kernel's.
#[inline(always)]
fn error_v4(ctx: &XdpContext, to: *mut Packet, destination: u32, octets: u32) -> Result<(), Outcome> {
    const INNER: u32 = ETHERNET + V4 + ERROR;
    let [kind] = load::<1, true>(ctx, ETHERNET + V4).ok_or(Outcome::Truncated)?;
    if !matches!(u32::from_be(kind) >> 24, 3 | 11 | 12) {
        return Err(Outcome::Other);
    }
    let [first, second, third, source, client] = load::<5, true>(ctx, INNER).ok_or(Outcome::Truncated)?;
    let protocol = u32::from_be(third) >> 16 & 0xff;
    // Of a fragment only the first has ports. What we have not sent is not ours to hear of.
    if u32::from_be(first) >> 24 != 0x45
        || u32::from_be(second) & 0x1fff != 0
        || !matches!(protocol, TCP | UDP)
        || u32::from_be(source) != destination
    {
        return Err(Outcome::Other);
    }
    let [ports] = load::<1, true>(ctx, INNER + V4).ok_or(Outcome::Truncated)?;
    let (source, destination) = (mapped(u32::from_be(client)), mapped(destination));
    let ports = turned(ports);
    Packet { source, destination, ports, protocol, octets, mtu: Cell::new(0), flags: IS_V4 | IS_ERROR }.write(to);
    Ok(())
}

/// Unreachable, packet too big, time exceeded, parameter problem (RFC 4443 §3).
#[inline(always)]
fn error_v6(ctx: &XdpContext, to: *mut Packet, destination: Address, octets: u32) -> Result<(), Outcome> {
    const INNER: u32 = ETHERNET + V6 + ERROR;
    let [kind] = load::<1, true>(ctx, ETHERNET + V6).ok_or(Outcome::Truncated)?;
    if !matches!(u32::from_be(kind) >> 24, 1..=4) {
        return Err(Outcome::Other);
    }
    let [first, second, a, b, c, d, to_a, to_b, to_c, to_d] = load::<10, true>(ctx, INNER).ok_or(Outcome::Truncated)?;
    let protocol = u32::from_be(second) >> 8 & 0xff;
    let [e, f, g, h] = destination;
    if u32::from_be(first) >> 28 != 6 || !matches!(protocol, TCP | UDP) || (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) != 0 {
        return Err(Outcome::Other);
    }
    let [ports] = load::<1, true>(ctx, INNER + V6).ok_or(Outcome::Truncated)?;
    let source = [to_a, to_b, to_c, to_d];
    let ports = turned(ports);
    Packet { source, destination, ports, protocol, octets, mtu: Cell::new(0), flags: IS_ERROR }.write(to);
    Ok(())
}

/// Ports of a packet of a VIP's to a client, as if the client had sent it: so an error about it finds the client's endpoint.
#[inline(always)]
const fn turned(ports: u32) -> u32 {
    u32::from_be(ports).rotate_left(16)
}
