//! Out: wrapped, or as it is.

use abi::balance::{Address, GUE_PORT, Hop, Outcome};
use aya_ebpf::bindings::xdp_action::XDP_TX;
use aya_ebpf::helpers::generated::{bpf_redirect, bpf_xdp_adjust_head};
use aya_ebpf::programs::XdpContext;
use wire::{ETHERNET, IPV4, IPV6, UDP, load, store, store_half};

use crate::hop::is_v4;
use crate::packet::{IS_V4, Packet};
use crate::{INNER_V4, INNER_V6, Settings, UDP_HEADER, V4, V6};

/// As it is, to another link-layer address, one hop older: two machines that send it back and forth stop.
#[inline(always)]
pub(crate) fn redirect(ctx: &XdpContext, packet: &Packet, hop: &Hop) -> Result<(), Outcome> {
    if packet.is(IS_V4) {
        let [third] = load::<1, true>(ctx, ETHERNET + 8).ok_or(Outcome::Truncated)?;
        let third = u32::from_be(third);
        if third >> 24 <= 1 {
            return Err(Outcome::HopLimit);
        }
        // One less in the upper half of a word is one more in the sum (RFC 1624).
        let sum = (third & 0xffff) + 0x100;
        let sum = (sum & 0xffff) + (sum >> 16);
        let third = (third & 0xffff_0000) - 0x0100_0000 | sum;
        if !store(ctx, ETHERNET + 8, [third.to_be()]) {
            return Err(Outcome::Truncated);
        }
    } else {
        let [second] = load::<1, true>(ctx, ETHERNET + 4).ok_or(Outcome::Truncated)?;
        let second = u32::from_be(second);
        if second & 0xff <= 1 {
            return Err(Outcome::HopLimit);
        }
        if !store(ctx, ETHERNET + 4, [(second - 1).to_be()]) {
            return Err(Outcome::Truncated);
        }
    }
    if store(ctx, 0, hop.addresses) { Ok(()) } else { Err(Outcome::Truncated) }
}

/// Into a packet of its own.
#[inline(always)]
pub(crate) fn wrap(
    ctx: &XdpContext,
    packet: &Packet,
    settings: &Settings,
    to: Address,
    hop: &Hop,
    gue: bool,
) -> Result<(), Outcome> {
    match (is_v4(to), gue) {
        (true, false) => wrap_in::<{ V4 }>(ctx, packet, settings, to, hop),
        (true, true) => wrap_in::<{ V4 + UDP_HEADER }>(ctx, packet, settings, to, hop),
        (false, false) => wrap_in::<{ V6 }>(ctx, packet, settings, to, hop),
        (false, true) => wrap_in::<{ V6 + UDP_HEADER }>(ctx, packet, settings, to, hop),
    }
}

/// As [`wrap`], with outer headers of `ROOM` octets, which tells of what they are.
#[inline(always)]
fn wrap_in<const ROOM: u32>(
    ctx: &XdpContext,
    packet: &Packet,
    settings: &Settings,
    to: Address,
    hop: &Hop,
) -> Result<(), Outcome> {
    let (in_v4, gue) = (ROOM < V6, ROOM == V4 + UDP_HEADER || ROOM == V6 + UDP_HEADER);
    let octets = packet.octets + ROOM;
    if hop.mtu != 0 && octets > hop.mtu {
        return Err(packet.too_big(hop.mtu.saturating_sub(ROOM)));
    }
    let hash = packet.hash();
    let outer = outer(settings, hash);
    // SAFETY: the context is the kernel's. All addresses within the packet are taken anew from here on.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -(ROOM as i32)) } != 0 {
        return Err(Outcome::TooBig);
    }
    let protocol = match (gue, packet.is(IS_V4)) {
        (true, _) => UDP,
        (false, true) => INNER_V4,
        (false, false) => INNER_V6,
    };
    let kind = if in_v4 { IPV4 } else { IPV6 };
    // Just made room for, so never short.
    if !(store(ctx, 0, hop.addresses) && store_half(ctx, 12, kind.to_be())) {
        return Err(Outcome::TooBig);
    }
    let addressed = if in_v4 {
        store(ctx, ETHERNET, outer_v4(octets, protocol, outer.0, to[3]))
    } else {
        let [a, b, c, d] = outer.1;
        let [e, f, g, h] = to;
        // Not the flow label: its hash is the receiver's to make, from the source.
        let second = (octets - V6) << 16 | protocol << 8 | 64;
        store(ctx, ETHERNET, [0x6000_0000_u32.to_be(), second.to_be(), a, b, c, d, e, f, g, h])
    };
    if !addressed {
        return Err(Outcome::TooBig);
    }
    let port = 0xc000 | hash as u32 & 0x3fff;
    let ports = port << 16 | u32::from(GUE_PORT);
    // Without a checksum: the inner packet has its own (RFC 6935).
    let length = (packet.octets + UDP_HEADER) << 16;
    let told = !gue || store(ctx, ETHERNET + ROOM - UDP_HEADER, [ports.to_be(), length.to_be()]);
    if told { Ok(()) } else { Err(Outcome::TooBig) }
}

/// A source address of each family for the outer header of a flow.
#[inline(always)]
fn outer(settings: &Settings, hash: u64) -> (u32, Address) {
    let (high, low) = ((hash >> 32) as u32, hash as u32);
    let word = |at: usize| (settings.word(at) as u32, (settings.word(at) >> 32) as u32);
    let [(v4, rest_v4), (a, b), (c, d), (rest_a, rest_b), (rest_c, rest_d)] = core::array::from_fn(word);
    (v4 | low & rest_v4, [a | low & rest_a, b | high & rest_b, c | high & rest_c, d | low & rest_d])
}

/// An IPv4 header that must not be divided on its way: its sender hears of it instead.
#[inline(always)]
fn outer_v4(octets: u32, protocol: u32, from: u32, to: u32) -> [u32; 5] {
    let (first, second, third) = (0x4500_0000 | octets, 0x4000_u32, 64 << 24 | protocol << 16);
    let halves = |word: u32| (word >> 16) + (word & 0xffff);
    let sum = halves(first) + second + halves(third) + halves(u32::from_be(from)) + halves(u32::from_be(to));
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    [first.to_be(), second.to_be(), (third | !sum & 0xffff).to_be(), from, to]
}

#[inline(always)]
pub(crate) fn out(ctx: &XdpContext, hop: &Hop) -> u32 {
    // SAFETY: the context is the kernel's.
    unsafe { if hop.interface == (*ctx.ctx).ingress_ifindex { XDP_TX } else { bpf_redirect(hop.interface, 0) as u32 } }
}
