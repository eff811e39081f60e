//! The other end: outer headers come off.

use abi::balance::{Address, Decap, GUE_PORT, mapped};
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_get_buff_len};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use wire::{ETHERNET, IPV4, IPV6, UDP, load, pass, store, store_half};

use crate::{ADDRESSES, DECAPS, INNER_V4, INNER_V6, NEXT, Settings, UDP_HEADER, V4, V6};

/// Strips outer headers of packets that are wrapped for one of our addresses. Those are the kernel's then: their answers do not go back to who wrapped them. Who stands behind us sees all others.
#[xdp(frags)]
pub fn decap(ctx: XdpContext) -> u32 {
    let decap = match stripped(&ctx) {
        Ok(()) => Decap::Stripped,
        Err(decap) => decap,
    };
    // SAFETY: the context is the kernel's.
    let octets = unsafe { bpf_xdp_get_buff_len(ctx.ctx) };
    if let Some(counter) = DECAPS.get_ptr_mut(decap as u32) {
        // SAFETY: as in `count`.
        unsafe {
            (*counter)[0] += 1;
            (*counter)[1] += octets;
        }
    }
    match decap {
        Decap::Stripped => XDP_PASS,
        Decap::Stranger => XDP_DROP,
        _ => pass(&ctx, &NEXT),
    }
}

#[inline(always)]
fn stripped(ctx: &XdpContext) -> Result<(), Decap> {
    let [_, _, _, kind] = load::<4, true>(ctx, 0).ok_or(Decap::Other)?;
    match u16::from_be(kind as u16) {
        IPV4 => {
            let [first, second, third, source, _] = load::<5, true>(ctx, ETHERNET).ok_or(Decap::Other)?;
            if u32::from_be(first) >> 24 != 0x45 || u32::from_be(second) & 0x3fff != 0 {
                return Err(Decap::Other);
            }
            match u32::from_be(third) >> 16 & 0xff {
                INNER_V4 | INNER_V6 => strip::<{ V4 }>(ctx, [0, 0, 0, source]),
                UDP => strip::<{ V4 + UDP_HEADER }>(ctx, [0, 0, 0, source]),
                _ => Err(Decap::Other),
            }
        }
        IPV6 => {
            let [_, second, a, b, c, d] = load::<6, true>(ctx, ETHERNET).ok_or(Decap::Other)?;
            match u32::from_be(second) >> 8 & 0xff {
                INNER_V4 | INNER_V6 => strip::<{ V6 }>(ctx, [a, b, c, d]),
                UDP => strip::<{ V6 + UDP_HEADER }>(ctx, [a, b, c, d]),
                _ => Err(Decap::Other),
            }
        }
        _ => Err(Decap::Other),
    }
}

/// Strips outer headers of `ROOM` octets, if what is behind them is for one of our addresses.
#[inline(always)]
fn strip<const ROOM: u32>(ctx: &XdpContext, source: Address) -> Result<(), Decap> {
    let at = ETHERNET + ROOM;
    if ROOM == V4 + UDP_HEADER || ROOM == V6 + UDP_HEADER {
        let [ports] = load::<1, true>(ctx, at - UDP_HEADER).ok_or(Decap::Other)?;
        if u32::from_be(ports) & 0xffff != u32::from(GUE_PORT) {
            return Err(Decap::Other);
        }
    }
    let [first, _, _, _, v4] = load::<5, true>(ctx, at).ok_or(Decap::Other)?;
    let (kind, destination) = match u32::from_be(first) >> 28 {
        4 => (IPV4, mapped(u32::from_be(v4))),
        6 => {
            let [a, b, c, d] = load::<4, true>(ctx, at + 24).ok_or(Decap::Other)?;
            (IPV6, [a, b, c, d])
        }
        _ => return Err(Decap::Other),
    };
    // SAFETY: only whether there is a value matters.
    if unsafe { ADDRESSES.get(destination) }.is_none() {
        return Err(Decap::Other);
    }
    if !is_from_balancer::<{ ROOM }>(source) {
        return Err(Decap::Stranger);
    }
    let [a, b, c] = load::<3, true>(ctx, 0).ok_or(Decap::Other)?;
    // SAFETY: the context is the kernel's. All addresses within the packet are taken anew from here on.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, ROOM as i32) } != 0 {
        return Err(Decap::Other);
    }
    // The kernel leaves an Ethernet header and more.
    if store(ctx, 0, [a, b, c]) && store_half(ctx, 12, kind.to_be()) { Ok(()) } else { Err(Decap::Stranger) }
}

/// Whether an outer header's source is of the networks that balancers take theirs from.
#[inline(always)]
fn is_from_balancer<const ROOM: u32>([a, b, c, d]: Address) -> bool {
    let Some(settings) = Settings::get() else { return false };
    let word = |at: usize| (settings.word(at) as u32, (settings.word(at) >> 32) as u32);
    let (v4, rest) = word(0);
    if ROOM < V6 {
        return d & !rest == v4;
    }
    let [(e, f), (g, h), (rest_a, rest_b), (rest_c, rest_d)] = core::array::from_fn(|at| word(at + 1));
    (a & !rest_a ^ e) | (b & !rest_b ^ f) | (c & !rest_c ^ g) | (d & !rest_d ^ h) == 0
}
