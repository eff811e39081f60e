//! The balancer: sends packets for VIPs on to their endpoints, in the manner of Katran; and its counterpart on the endpoint's host, which unwraps them.
//!
//! ```text
//! balance:  Ethernet ─► IPv4 | IPv6 ─► TCP | UDP | the packet that an ICMP error tells of ─► VIP ─► flow ─► its endpoint
//!                                                                                                └► the slot of its hash ─► endpoint
//!           endpoint ─► next hop ─► wrapped (IP in IP, GUE) or as it is (DSR) ─► out
//! decap:     Ethernet ─► IPv4 | IPv6 ─► wrapped, for one of our addresses, from where balancers wrap? ─► outer header off ─► the kernel
//! ```
//!
//! What holds: each packet is counted under the one [`Outcome`] that it had. Flows are remembered for endpoints that exist, and for nobody who has only sent
//! a SYN, so that a flood of those pushes nobody out; who is not remembered has the slot of its hash, which is the same on every machine.
//! A packet is changed last, when nothing can go wrong any more but that there is no room for an outer header.

#![no_std]
#![no_main]

mod decap;
mod hop;
mod packet;
mod way;

use core::mem::MaybeUninit;
use core::ptr;

use abi::balance::{
    Address, BLOCKS, Decap, ENDPOINT_WORDS, FlowKey, Forward, HOP_WORDS, NOBODY, OUTER_WORDS, Outcome, SLOTS_PER_BLOCK,
    VIP_COUNTS, Vip, VipKey, flow_key, hash, slot_of, vip_key,
};
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::helpers::generated::{bpf_ktime_get_coarse_ns, bpf_xdp_get_buff_len};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray};
use aya_ebpf::programs::XdpContext;
use wire::UDP;

use crate::hop::hop;
use crate::packet::{IS_ERROR, OPENS, Packet, read};
use crate::way::{out, redirect, wrap};

/// Its size is the engine's to say, as that of the next ones.
#[map]
static VIPS: HashMap<VipKey, [u32; 2]> = HashMap::with_max_entries(1, 0);

/// Two tables for each VIP: the places of endpoints, by slot.
#[map]
static TABLES: Array<[u16; SLOTS_PER_BLOCK]> = Array::with_max_entries(2 * BLOCKS, 0);

#[map]
static ENDPOINTS: Array<[u32; ENDPOINT_WORDS]> = Array::with_max_entries(1, 0);

/// Which endpoint a flow has (and of which generation), and, of UDP, when it was seen last. Each CPU has a list of its own of who is oldest (`BPF_F_NO_COMMON_LRU`), and all find what any has put in: a
/// flow whose packets change their CPU needs no second table.
#[map]
static FLOWS: LruHashMap<FlowKey, [u32; 2]> = LruHashMap::with_max_entries(1, 2);

/// The way to each endpoint, as this CPU has asked for it a moment ago.
#[map]
static HOPS: PerCpuArray<[u32; HOP_WORDS]> = PerCpuArray::with_max_entries(1, 0);

/// Where outer headers come from.
#[map]
static OUTER: Array<[u32; OUTER_WORDS]> = Array::with_max_entries(1, 0);

/// Whom packets are unwrapped for.
#[map]
static ADDRESSES: HashMap<Address, u32> = HashMap::with_max_entries(1, 0);

/// Packets and octets by outcome.
#[map]
static COUNTS: PerCpuArray<[u64; 2]> = PerCpuArray::with_max_entries(Outcome::ALL.len() as u32, 0);

#[map]
static DECAPS: PerCpuArray<[u64; 2]> = PerCpuArray::with_max_entries(Decap::ALL.len() as u32, 0);

#[map]
static VIP_COUNTERS: PerCpuArray<[u64; VIP_COUNTS]> = PerCpuArray::with_max_entries(1, 0);

/// Packets and octets.
#[map]
static ENDPOINT_COUNTERS: PerCpuArray<[u64; 2]> = PerCpuArray::with_max_entries(1, 0);

/// Units of 2^30 ns after which a flow of UDP that nothing was heard of is another one: what Katran takes.
const UDP_FLOW_LASTS: u32 = 30;

/// IP in IP: what is inside.
const INNER_V4: u32 = 4;
const INNER_V6: u32 = 41;

/// Octets of headers without options.
const V4: u32 = 20;
const V6: u32 = 40;
const UDP_HEADER: u32 = 8;

#[xdp(frags)]
pub fn balance(ctx: XdpContext) -> u32 {
    let mut packet = MaybeUninit::<Packet>::uninit();
    if let Err(outcome) = read(&ctx, packet.as_mut_ptr()) {
        count(&ctx, outcome);
        return if outcome.drops() { XDP_DROP } else { XDP_PASS };
    }
    // SAFETY: it has been read, and what was read has no other holder.
    send(&ctx, unsafe { packet.assume_init_ref() })
}

/// Sends it on. A function of its own in the program too, with its own stack, and what was read lies in memory: where LLVM puts numbers beside the packet's addresses, a place on the stack has
/// one now and the other then, which the verifier forbids who has not CAP_PERFMON. The name that the compiler would give it differs with the folder that it is built in.
// SAFETY: nothing else in the program has this name.
#[unsafe(no_mangle)]
#[inline(never)]
fn send(ctx: &XdpContext, packet: &Packet) -> u32 {
    match forward(ctx, packet) {
        Ok((outcome, action)) => {
            count(ctx, outcome);
            action
        }
        Err(outcome) => {
            count(ctx, outcome);
            if outcome.drops() { XDP_DROP } else { XDP_PASS }
        }
    }
}

#[inline(always)]
fn forward(ctx: &XdpContext, packet: &Packet) -> Result<(Outcome, u32), Outcome> {
    // SAFETY: the map's value, whose words are read once each; the engine may replace it meanwhile, and both old and new ones are right.
    let vip = unsafe { VIPS.get(vip_key(packet.destination, packet.protocol, packet.ports as u16)) };
    let vip = Vip::of(*vip.ok_or(Outcome::Other)?);
    // SAFETY: a helper without arguments. The coarse clock costs a tenth of the other one, and a few milliseconds do not matter here.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    count_of_vip(vip.number, packet.octets);
    let hash = hash(packet.source, (packet.ports >> 16) as u16);
    let number = endpoint_of(packet, vip, hash, now)?;
    count_of_endpoint(number, packet.octets);
    let endpoint = address_of(number).ok_or(Outcome::NoEndpoint)?;
    let hop = hop(ctx, number, endpoint, vip.forward, now)?;
    match vip.forward {
        Forward::Dsr => redirect(ctx, packet, &hop)?,
        way => wrap(ctx, packet, endpoint, &hop, hash, matches!(way, Forward::Gue))?,
    }
    Ok((if packet.is(IS_ERROR) { Outcome::Error } else { Outcome::Forwarded }, out(ctx, &hop)))
}

/// The endpoint of a flow: the one that it has, or that of its hash's slot, which it has from now on.
#[inline(always)]
fn endpoint_of(packet: &Packet, vip: Vip, hash: u64, now: u64) -> Result<u32, Outcome> {
    let key = flow_key(packet.source, (packet.ports >> 16) as u16, vip.number);
    let seen = (now >> 30) as u32;
    let mut gone = false;
    if !packet.is(OPENS)
        && let Some(flow) = FLOWS.get_ptr_mut(key)
    {
        // SAFETY: words of the map's value, which other CPUs write as well: each is read and written as a whole.
        let (whose, last) = unsafe {
            let flow = flow.cast::<u32>();
            let last = ptr::read_volatile(flow.add(1));
            if packet.protocol == UDP
                && last != seen
                && seen.wrapping_sub(last) <= UDP_FLOW_LASTS
                && !packet.is(IS_ERROR)
            {
                ptr::write_volatile(flow.add(1), seen);
            }
            (ptr::read_volatile(flow), last)
        };
        let is_old = packet.protocol == UDP && seen.wrapping_sub(last) > UDP_FLOW_LASTS;
        if !is_old {
            if keeps(whose & 0xffff, whose >> 16) {
                return Ok(whose & 0xffff);
            }
            gone = true;
        }
    }
    let slot = slot_of(hash);
    let block = TABLES.get_ptr(vip.first_block() + slot / SLOTS_PER_BLOCK as u32).ok_or(Outcome::NoEndpoint)?;
    // SAFETY: within the map's value, whose length is a power of two; a slot is read as a whole.
    let number = unsafe {
        let place = slot as usize & (SLOTS_PER_BLOCK - 1);
        ptr::read_volatile(block.cast::<u16>().add(place))
    };
    if number == NOBODY {
        return Err(Outcome::NoEndpoint);
    }
    let number = u32::from(number);
    if !packet.is(OPENS | IS_ERROR) {
        let whose = number | generation_of(number) << 16;
        // Refused only when there is no memory: then its hash finds it as well.
        let _ = FLOWS.insert(key, [whose, seen], 0);
        count_of_flow(vip.number, gone);
    }
    Ok(number)
}

/// Whether a flow may stay with who has this place.
#[inline(always)]
fn keeps(number: u32, generation: u32) -> bool {
    let Some(words) = ENDPOINTS.get_ptr(number) else { return false };
    // SAFETY: words of the map's value, which the engine may write meanwhile; each is read once.
    unsafe {
        let word = words.cast::<u32>();
        ptr::read_volatile(word.add(4)) == generation && ptr::read_volatile(word.add(5)) != 0
    }
}

#[inline(always)]
fn generation_of(number: u32) -> u32 {
    let Some(words) = ENDPOINTS.get_ptr(number) else { return 0 };
    // SAFETY: as in `keeps`.
    unsafe { ptr::read_volatile(words.cast::<u32>().add(4)) }
}

#[inline(always)]
fn address_of(number: u32) -> Option<Address> {
    let words = ENDPOINTS.get_ptr(number)?.cast::<u32>();
    // SAFETY: as in `keeps`. A place is given to another address only when no table and no flow means it any more.
    unsafe {
        Some([
            ptr::read_volatile(words),
            ptr::read_volatile(words.add(1)),
            ptr::read_volatile(words.add(2)),
            ptr::read_volatile(words.add(3)),
        ])
    }
}

/// Does nothing: what a run costs that is not a program's, to be measured against.
#[xdp(frags)]
pub fn floor(_: XdpContext) -> u32 {
    XDP_PASS
}

#[inline(always)]
fn count(ctx: &XdpContext, outcome: Outcome) {
    // SAFETY: the context is the kernel's.
    let octets = unsafe { bpf_xdp_get_buff_len(ctx.ctx) };
    if let Some(counter) = COUNTS.get_ptr_mut(outcome as u32) {
        // SAFETY: this CPU's own counter; a program of this type is not interrupted by another one on its CPU.
        unsafe {
            (*counter)[0] += 1;
            (*counter)[1] += octets;
        }
    }
}

#[inline(always)]
fn count_of_vip(number: u32, octets: u32) {
    if let Some(counter) = VIP_COUNTERS.get_ptr_mut(number) {
        // SAFETY: as in `count`.
        unsafe {
            (*counter)[0] += 1;
            (*counter)[1] += u64::from(octets);
        }
    }
}

#[inline(always)]
fn count_of_flow(number: u32, gone: bool) {
    if let Some(counter) = VIP_COUNTERS.get_ptr_mut(number) {
        // SAFETY: as in `count`.
        unsafe {
            (*counter)[2] += 1;
            (*counter)[3] += u64::from(gone);
        }
    }
}

#[inline(always)]
fn count_of_endpoint(number: u32, octets: u32) {
    if let Some(counter) = ENDPOINT_COUNTERS.get_ptr_mut(number) {
        // SAFETY: as in `count`.
        unsafe {
            (*counter)[0] += 1;
            (*counter)[1] += u64::from(octets);
        }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never built in: there is nothing here that can panic, and the verifier would refuse what cannot end.
    loop {}
}
