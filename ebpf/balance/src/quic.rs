//! Whose a connection of QUIC is: its id says so, wherever its client is by now.
//!
//! What holds: an id is believed where the check value in it is right, so that nobody can name a server but who has got an id from it. Whatever is no such id, or
//! names a server that serves nobody, leaves it to the flow, as without.

use core::arch::asm;

use abi::balance::server_of;
use abi::{CONFIGS, ConnectionIds, ID_LEN};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use aya_ebpf::programs::XdpContext;
use wire::{ETHERNET, load};

use crate::packet::{IS_V4, Packet};
use crate::{Endpoint, UDP_HEADER, V4, V6, VIP_COUNTERS, owned_by};

/// How ids of each config are read.
#[map]
static IDS: Array<ConnectionIds> = Array::with_max_entries(CONFIGS as u32, 0);

/// By VIP and server, the place of an endpoint and that place's generation above it. Its size is the engine's to say.
#[map]
static SERVERS: HashMap<u32, u32> = HashMap::with_max_entries(1, 0);

/// Places among what is counted of a VIP.
const BY_ID: usize = 4;
const ELSEWHERE: usize = 5;

/// Whose a datagram's connection is ([`owned_by`]); 0 where the flow says that. A function of its own, with its own stack, and not in the way of what is no QUIC.
// SAFETY: nothing else in the program has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) fn whose(ctx: &XdpContext, packet: &Packet, vip: u32) -> u64 {
    let id = if packet.is(IS_V4) {
        id_at::<{ ETHERNET + V4 + UDP_HEADER }>(ctx)
    } else {
        id_at::<{ ETHERNET + V6 + UDP_HEADER }>(ctx)
    };
    let Some(id) = id else { return 0 };
    // The config stands in the first three bits.
    let Some(place) = IDS.get((id[0] >> 5) as u32 & 7).and_then(|ids| ids.decode_words(id)) else { return 0 };
    // SAFETY: a word of the map's value.
    let whose = unsafe { SERVERS.get(server_of(vip, place.server)) }.copied().unwrap_or(0);
    let serves =
        Endpoint::of(whose & 0xffff).is_some_and(|endpoint| endpoint.generation == whose >> 16 && endpoint.keeps);
    if serves {
        return owned_by(whose);
    }
    count(vip, ELSEWHERE);
    0
}

/// The destination's id in what begins there, if it can be one of ours: 17 octets as little-endian words, and what is behind them.
#[inline(always)]
fn id_at<const AT: u32>(ctx: &XdpContext) -> Option<[u64; 3]> {
    // First octet, version, length of the id (RFC 8999 §5).
    let [first, second] = load::<2, true>(ctx, AT)?;
    if first & 0x80 == 0 {
        let id = words(load::<5, true>(ctx, AT + 1)?);
        apart::<1>();
        return Some(id);
    }
    if second >> 8 & 0xff != ID_LEN as u32 {
        return None;
    }
    let id = words(load::<5, true>(ctx, AT + 6)?);
    apart::<2>();
    Some(id)
}

#[inline(always)]
const fn words([a, b, c, d, e]: [u32; 5]) -> [u64; 3] {
    [a as u64 | (b as u64) << 32, c as u64 | (d as u64) << 32, e as u64]
}

/// Ends what is done for one form only: else the compiler makes one address with a choice in it.
#[inline(always)]
fn apart<const FORM: usize>() {
    // SAFETY: no instruction at all.
    unsafe { asm!("/* {} */", const FORM, options(nostack)) };
}

/// A packet goes where its id says.
#[inline(always)]
pub(crate) fn count_by_id(vip: u32) {
    count(vip, BY_ID);
}

#[inline(always)]
fn count(vip: u32, at: usize) {
    if let Some(counter) = VIP_COUNTERS.get_ptr_mut(vip) {
        // SAFETY: this CPU's own counter; a program of this type is not interrupted by another one on its CPU.
        unsafe { (*counter)[at] += 1 };
    }
}
