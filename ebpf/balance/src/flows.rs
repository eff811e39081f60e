//! Whose flows are.
//!
//! Tables of sets of four flows: a packet's hash says which set, and the newest flow pushes the oldest of its set out. A set of IPv4 is one line of a cache, so
//! that looking a flow up, and entering one, is to read one line; the kernel's own LRU of the same size takes several times as long for either.
//!
//! What holds: what is found is of the flow that it was looked for, whatever other CPUs write meanwhile. A tag is taken by exchange, the value written, and only then another
//! tag; who reads looks at the tag before the value and after it. Who cannot take it remembers nothing: the flow's hash finds its endpoint as well.

use core::arch::asm;
use core::ptr;

use abi::balance::{FLOW_V4_WORDS, FLOW_V6_WORDS, WAYS, flow_v4, flow_v6, set_of};
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use wire::UDP;

use crate::Settings;
use crate::packet::{IS_ERROR, IS_V4, Packet};

/// For each: its tag, then whose it is and in which tick it was seen last. The size is the engine's to say, as that of the next one.
#[map]
static FLOWS_V4: Array<[u64; FLOW_V4_WORDS * WAYS]> = Array::with_max_entries(2, 0);

/// As above, each with the client's address before.
#[map]
static FLOWS_V6: Array<[u64; FLOW_V6_WORDS * WAYS]> = Array::with_max_entries(2, 0);

/// Ticks after which a flow of UDP that nothing was heard of is another one: what Katran takes.
pub(crate) const UDP_FLOW_LASTS: u32 = 30;

/// The tag of a flow that is being written.
pub(crate) const TAKEN: u64 = u64::MAX;

/// What a flow is looked for by.
pub(crate) struct Flow {
    set: Option<*mut u64>,
    is_v4: bool,
    address: [u64; 2],
    tag: u64,
    zero: u64,
}

impl Flow {
    #[inline(always)]
    pub(crate) fn of(settings: &Settings, packet: &Packet, vip: u32) -> Self {
        let (_, shift) = settings.shifts();
        let (port, zero) = ((packet.ports >> 16) as u16, settings.zero());
        let [a, b, c, d] = packet.source;
        if packet.is(IS_V4) {
            let tag = flow_v4(packet.source, port, vip);
            let set = set_of([0; 2], tag, settings.flow_multiplier(), shift);
            Self { set: FLOWS_V4.get_ptr_mut(set).map(|set| set.cast()), is_v4: true, address: [0; 2], tag, zero }
        } else {
            let address = [u64::from(a) << 32 | u64::from(b), u64::from(c) << 32 | u64::from(d)];
            let tag = flow_v6(port, vip);
            let set = set_of(address, tag, settings.flow_multiplier(), shift);
            Self { set: FLOWS_V6.get_ptr_mut(set).map(|set| set.cast()), is_v4: false, address, tag, zero }
        }
    }
}

/// Whose a flow is, in the lower half its place and in the upper one that place's generation.
#[inline(always)]
pub(crate) fn remembered(flow: &Flow, packet: &Packet, tick: u32) -> Option<u32> {
    let set = flow.set?;
    let (value, way) = if flow.is_v4 { find::<FLOW_V4_WORDS>(set, flow)? } else { find::<FLOW_V6_WORDS>(set, flow)? };
    let seen = (value >> 32) as u32;
    if packet.protocol == UDP && tick.wrapping_sub(seen) > UDP_FLOW_LASTS {
        return None;
    }
    if seen != tick && !packet.is(IS_ERROR) {
        if flow.is_v4 {
            touch::<FLOW_V4_WORDS>(set, flow, way, tick);
        } else {
            touch::<FLOW_V6_WORDS>(set, flow, way, tick);
        }
    }
    Some(value as u32)
}

/// The value of a flow, and its way.
#[inline(always)]
fn find<const WORDS: usize>(set: *mut u64, flow: &Flow) -> Option<(u64, u64)> {
    for way in 0..WAYS {
        let at = way * WORDS;
        // SAFETY: words of the set.
        let word = |word: usize| unsafe { ptr::read_volatile(set.add(at + word)) };
        if word(WORDS - 2) == flow.tag
            && (WORDS == FLOW_V4_WORDS || (word(0) ^ flow.address[0]) | (word(1) ^ flow.address[1]) == 0)
        {
            let value = word(WORDS - 1);
            return (word(WORDS - 2) == flow.tag).then_some((value, way as u64));
        }
    }
    None
}

/// A flow was seen in this tick.
#[inline(always)]
fn touch<const WORDS: usize>(set: *mut u64, flow: &Flow, way: u64, tick: u32) {
    let value = way_of(way, flow.zero) * WORDS + WORDS - 1;
    // SAFETY: the upper half of a value in the set; should it be another flow's by now, that one was seen in this tick as well.
    unsafe { ptr::write_volatile(set.add(value).cast::<u32>().add(1), tick) };
    apart::<WORDS>();
}

/// Whose a flow is from now on.
#[inline(always)]
pub(crate) fn remember(flow: &Flow, whose: u32, tick: u32) {
    let Some(set) = flow.set else { return };
    let value = u64::from(whose) | u64::from(tick) << 32;
    if flow.is_v4 {
        enter::<FLOW_V4_WORDS>(set, flow, value, tick);
    } else {
        enter::<FLOW_V6_WORDS>(set, flow, value, tick);
    }
}

/// Writes a flow over itself, or else over nobody, or else over the one that was seen last the longest time ago.
#[inline(always)]
fn enter<const WORDS: usize>(set: *mut u64, flow: &Flow, value: u64, tick: u32) {
    const NOBODY: u64 = 1 << 32;
    const ITSELF: u64 = 1 << 33;
    let (mut chosen, mut best) = (0_u64, 0);
    for way in 0..WAYS {
        let at = way * WORDS;
        // SAFETY: words of the set.
        let word = |word: usize| unsafe { ptr::read_volatile(set.add(at + word)) };
        let tag = word(WORDS - 2);
        let is_own = tag == flow.tag
            && (WORDS == FLOW_V4_WORDS || (word(0) ^ flow.address[0]) | (word(1) ^ flow.address[1]) == 0);
        let score = if is_own {
            ITSELF
        } else if tag == 0 {
            NOBODY
        } else {
            u64::from(tick.wrapping_sub((word(WORDS - 1) >> 32) as u32)) + 1
        };
        if score > best {
            (chosen, best) = (way as u64, score);
        }
    }
    let at = way_of(chosen, flow.zero) * WORDS;
    // SAFETY: words of the set, which other CPUs write as well: whoever takes the tag writes the rest, as a whole each.
    unsafe {
        let tag = set.add(at + WORDS - 2);
        let before = ptr::read_volatile(tag);
        if before == TAKEN || !exchange(tag, before, TAKEN) {
            return;
        }
        if WORDS == FLOW_V6_WORDS {
            ptr::write_volatile(set.add(at), flow.address[0]);
            ptr::write_volatile(set.add(at + 1), flow.address[1]);
        }
        ptr::write_volatile(set.add(at + WORDS - 1), value);
        ptr::write_volatile(tag, flow.tag);
    }
    apart::<WORDS>();
}

/// Ends what is done for one family only: else the compiler makes one address with a choice in it of what is done for either.
#[inline(always)]
fn apart<const WORDS: usize>() {
    // SAFETY: no instruction at all.
    unsafe { asm!("/* {} */", const WORDS, options(nostack)) };
}

/// The number of a way, for an address that depends on it. `zero` is [`Settings::zero`]: where the verifier knows which way it is, the address is another one by each path to
/// it, and nobody may choose between those who has not CAP_PERFMON.
#[inline(always)]
pub(crate) fn way_of(way: u64, zero: u64) -> usize {
    (way ^ zero) as usize & (WAYS - 1)
}

/// All bits where one number below 2^63 is less than another; else none. Choices that are arithmetic are one way through the program, where branches would be two, each of which the verifier
/// follows through all that comes after them: of the four flows of a set, and of two sets, there would be many.
#[cfg(feature = "nat")]
#[inline(always)]
pub(crate) fn is_less(one: u64, other: u64) -> u64 {
    let mut bits = (one.wrapping_sub(other) as i64 >> 63) as u64;
    // SAFETY: no instruction at all: the compiler is not to know that it is a choice.
    unsafe { asm!("/* {0} */", inout(reg) bits, options(pure, nomem, nostack)) };
    bits
}

/// All bits where a number is 0; else none.
#[cfg(feature = "nat")]
#[inline(always)]
pub(crate) fn is_none(number: u64) -> u64 {
    !is_less(0, number >> 1 | number & 1)
}

/// One of two numbers, by [`is_less`].
#[cfg(feature = "nat")]
#[inline(always)]
pub(crate) const fn either(bits: u64, one: u64, other: u64) -> u64 {
    other ^ (one ^ other) & bits
}

/// Writes `new` where `old` stands, if it still does.
///
/// # Safety
/// `at` is a word of a map's value.
#[inline(always)]
pub(crate) unsafe fn exchange(at: *mut u64, old: u64, new: u64) -> bool {
    let found: u64;
    // SAFETY: the caller's promise.
    unsafe {
        asm!("r0 = cmpxchg_64({0} + 0, r0, {1})", in(reg) at, in(reg) new, inlateout("r0") old => found, options(nostack));
    }
    found == old
}
