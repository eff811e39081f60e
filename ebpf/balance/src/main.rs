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
#![feature(asm_experimental_arch)]

mod decap;
mod door;
mod flows;
mod hop;
#[cfg(feature = "nat")]
mod nat;
mod packet;
mod quic;
mod sum;
mod too_big;
mod way;

use core::mem::MaybeUninit;
use core::ptr;

use abi::NEXT_MAX;
use abi::balance::{
    Address, BLOCKS, Decap, ENDPOINT_WORDS, Forward, NOBODY, Outcome, SETTINGS_WORDS, SLOTS_PER_BLOCK, VIP_COUNTS, Vip,
    first_block, slot_of,
};
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::helpers::generated::bpf_xdp_get_buff_len;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, ProgramArray};
use aya_ebpf::programs::XdpContext;
use wire::{ETHERNET, pass};

use crate::door::vip_of;
use crate::flows::{Flow, remember, remembered};
use crate::hop::Line;
use crate::packet::{IS_ERROR, OPENS, Packet, read};
use crate::way::{out, redirect, wrap};

#[map]
static SETTINGS: Array<[u64; SETTINGS_WORDS]> = Array::with_max_entries(1, 0);

/// Which of its two tables counts, by VIP. Its size is the engine's to say, as that of the next ones.
#[map]
static HALVES: Array<u32> = Array::with_max_entries(1, 0);

/// Two tables for each VIP: the places of endpoints, by slot.
#[map]
static TABLES: Array<[u16; SLOTS_PER_BLOCK]> = Array::with_max_entries(2 * BLOCKS, 0);

#[map]
static ENDPOINTS: Array<[u32; ENDPOINT_WORDS]> = Array::with_max_entries(1, 0);

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

/// Who sees what passes, by the interface's index.
#[map]
static NEXT: ProgramArray = ProgramArray::with_max_entries(NEXT_MAX, 0);

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
        return match ended(&ctx, outcome as u32) {
            XDP_PASS => pass(&ctx, &NEXT),
            action => action,
        };
    }
    #[cfg(feature = "nat")]
    if let Some(settings) = Settings::get() {
        packet::forget(packet.as_mut_ptr(), settings.zero() as u32);
    }
    // SAFETY: it has been read, and what was read has no other holder.
    let packet = unsafe { packet.assume_init_ref() };
    #[cfg(feature = "nat")]
    let translated = nat::translated(&ctx, packet);
    #[cfg(not(feature = "nat"))]
    let translated = None;
    let action = match translated {
        Some(action) => action,
        None => send(&ctx, packet),
    };
    if action == XDP_PASS {
        return pass(&ctx, &NEXT);
    }
    if action != UNDECIDED {
        return action;
    }
    // One place for all ways on which it may come out: the verifier follows each path to it.
    ended(&ctx, if too_big::tell(&ctx, packet) != 0 { Outcome::Told as u32 } else { Outcome::TooBig as u32 })
}

/// In an action's place: the packet is too big, and not counted yet.
const UNDECIDED: u32 = u32::MAX;

/// Sends it on. A function of its own in the program too, with its own stack, and what was read lies in memory: where LLVM puts numbers beside the packet's addresses, a place on the stack has
/// one now and the other then, which the verifier forbids who has not CAP_PERFMON. The name that the compiler would give it differs with the folder that it is built in.
// SAFETY: nothing else in the program has this name.
#[unsafe(no_mangle)]
#[inline(never)]
fn send(ctx: &XdpContext, packet: &Packet) -> u32 {
    match forward(ctx, packet) {
        Ok(action) => {
            let outcome = if packet.is(IS_ERROR) { Outcome::Error } else { Outcome::Forwarded };
            count(outcome as u32, u64::from(packet.octets + ETHERNET));
            action
        }
        Err(Outcome::TooBig) => UNDECIDED,
        Err(outcome) => ended(ctx, outcome as u32),
    }
}

#[inline(always)]
fn forward(ctx: &XdpContext, packet: &Packet) -> Result<u32, Outcome> {
    let settings = Settings::get().ok_or(Outcome::Other)?;
    let vip = vip_of(&settings, packet).ok_or(Outcome::Other)?;
    count_of_vip(vip.number, packet.octets);
    let named = if vip.quic && !packet.is(IS_ERROR) { quic::whose(ctx, packet, vip.number) } else { 0 };
    let (number, endpoint) = endpoint_of(&settings, packet, vip, named)?;
    let line = Line::of(number).ok_or(Outcome::NoEndpoint)?;
    line.count(packet.octets);
    let hop = line.hop(ctx, &endpoint, vip.forward, settings.tick())?;
    match vip.forward {
        Forward::Dsr => redirect(ctx, packet, &hop)?,
        way => wrap(ctx, packet, &settings, endpoint.address, &hop, matches!(way, Forward::Gue))?,
    }
    Ok(out(ctx, &hop))
}

/// The endpoint of a flow: the one that its connection's id has named ([`quic::whose`]), or that it has, or that of its hash's slot, which it has from now on.
#[inline(always)]
fn endpoint_of(settings: &Settings, packet: &Packet, vip: Vip, named: u64) -> Result<(u32, Endpoint), Outcome> {
    let flow = Flow::of(settings, packet, vip.number);
    // Numbers and no `Option`: for what is in one that has nothing the compiler takes any register, and the verifier refuses the half of a pointer.
    let had = if packet.is(OPENS) { 0 } else { remembered(&flow, packet, settings.tick()).map_or(0, owned_by) };
    let whose = if named != 0 { named } else { had };
    if whose != 0
        && let place = (whose - 1) as u32
        && let number = place & 0xffff
        && let Some(endpoint) = Endpoint::of(number)
        && endpoint.generation == place >> 16
        && endpoint.keeps
    {
        if named != 0 {
            quic::count_by_id(vip.number);
            // Errors about what is sent back there carry the client's ids: the flow has to know.
            if had != named {
                remember(&flow, place, settings.tick());
                count_of_flow(vip.number, false);
            }
        }
        return Ok((number, endpoint));
    }
    let (number, endpoint) = by_slot(packet, vip.number)?;
    if !packet.is(OPENS | IS_ERROR) {
        remember(&flow, number | endpoint.generation << 16, settings.tick());
        count_of_flow(vip.number, whose != 0);
    }
    Ok((number, endpoint))
}

/// Place and generation, as a number that is not 0.
#[inline(always)]
pub(crate) const fn owned_by(place: u32) -> u64 {
    place as u64 + 1
}

/// The endpoint of the slot of a packet's hash.
#[inline(always)]
fn by_slot(packet: &Packet, vip: u32) -> Result<(u32, Endpoint), Outcome> {
    let half = HALVES.get_ptr(vip).ok_or(Outcome::NoEndpoint)?;
    // SAFETY: a word of the map's value, which the engine may write meanwhile: both tables are right then.
    let half = unsafe { ptr::read_volatile(half) };
    let slot = slot_of(packet.hash());
    let block = TABLES.get_ptr(first_block(vip, half) + slot / SLOTS_PER_BLOCK as u32).ok_or(Outcome::NoEndpoint)?;
    // SAFETY: within the map's value, whose length is a power of two; a slot is read as a whole.
    let number = unsafe {
        let place = slot as usize & (SLOTS_PER_BLOCK - 1);
        ptr::read_volatile(block.cast::<u16>().add(place))
    };
    if number == NOBODY {
        return Err(Outcome::NoEndpoint);
    }
    Ok((number.into(), Endpoint::of(number.into()).ok_or(Outcome::NoEndpoint)?))
}

/// An endpoint, as it was when it was read.
pub(crate) struct Endpoint {
    pub(crate) address: Address,
    /// Of no use but for `nat`.
    #[cfg_attr(not(feature = "nat"), expect(dead_code))]
    pub(crate) port: u32,
    pub(crate) generation: u32,
    pub(crate) keeps: bool,
}

impl Endpoint {
    #[inline(always)]
    fn of(number: u32) -> Option<Self> {
        let words = ENDPOINTS.get_ptr(number)?.cast::<u32>();
        // SAFETY: words of the map's value, which the engine may write meanwhile; each is read once. A place is given to another address only when no table and no flow means it any more.
        let word = |at: usize| unsafe { ptr::read_volatile(words.add(at)) };
        let last = word(5);
        Some(Self {
            address: [word(0), word(1), word(2), word(3)],
            port: last >> 16,
            generation: word(4),
            keeps: last & 1 != 0,
        })
    }
}

/// What all packets need to know ([`abi::balance::Settings`]), read where it is used.
pub(crate) struct Settings(*const u64);

impl Settings {
    #[inline(always)]
    pub(crate) fn get() -> Option<Self> {
        SETTINGS.get_ptr(0).map(|words| Self(words.cast()))
    }

    #[inline(always)]
    pub(crate) fn word(&self, at: usize) -> u64 {
        // SAFETY: callers ask for a number below SETTINGS_WORDS; the engine may write words meanwhile, and each is right, old or new.
        unsafe { ptr::read_volatile(self.0.add(at)) }
    }

    #[inline(always)]
    pub(crate) fn tick(&self) -> u32 {
        self.word(5) as u32
    }

    /// Of the table of doors, and of those of flows.
    #[inline(always)]
    pub(crate) fn shifts(&self) -> (u32, u32) {
        let shifts = (self.word(5) >> 32) as u32;
        (shifts & 63, shifts >> 8 & 63)
    }

    /// Bits that nothing has: 0, which compiler and verifier do not know.
    #[inline(always)]
    pub(crate) fn zero(&self) -> u64 {
        self.word(5) >> 48
    }

    #[inline(always)]
    pub(crate) fn door_multiplier(&self) -> u64 {
        self.word(6)
    }

    #[inline(always)]
    pub(crate) fn flow_multiplier(&self) -> u64 {
        self.word(7)
    }

    /// Our addresses of each family, which packets come back to.
    #[cfg(feature = "nat")]
    #[inline(always)]
    pub(crate) fn ours(&self) -> [u32; 2] {
        let ours = self.word(8) as u32;
        [ours & 0xff, ours >> 8 & 0xff]
    }
}

/// Does nothing: what a run costs that is not a program's, to be measured against.
#[xdp(frags)]
pub fn floor(_: XdpContext) -> u32 {
    XDP_PASS
}

const TOLD: u32 = Outcome::Told as u32;
const FIRST_DROPPED: u32 = Outcome::NoEndpoint as u32;

/// What becomes of a packet that is not sent on, by the number of its [`Outcome`].
#[inline(always)]
fn ended(ctx: &XdpContext, outcome: u32) -> u32 {
    // SAFETY: the context is the kernel's.
    count(outcome, unsafe { bpf_xdp_get_buff_len(ctx.ctx) });
    match outcome {
        TOLD => XDP_TX,
        FIRST_DROPPED.. => XDP_DROP,
        _ => XDP_PASS,
    }
}

#[inline(always)]
fn count(outcome: u32, octets: u64) {
    if let Some(counter) = COUNTS.get_ptr_mut(outcome) {
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

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never built in: there is nothing here that can panic, and the verifier would refuse what cannot end.
    loop {}
}
