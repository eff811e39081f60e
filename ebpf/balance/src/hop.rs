//! The way to an endpoint.

use core::mem::MaybeUninit;
use core::ptr;

use abi::balance::{Address, Forward, HOP_LASTS, Hop, Outcome};
use aya_ebpf::bindings::bpf_fib_lookup as Lookup;
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use aya_ebpf::programs::XdpContext;

use crate::{HOPS, generation_of};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

#[inline(always)]
pub(crate) const fn is_v4([a, b, c, _]: Address) -> bool {
    (a | b) == 0 && c == 0xffff_u32.to_be()
}

/// The way to an endpoint: what this CPU was told a moment ago, or else the kernel's word. Its tables know routes and neighbours, and change seldom.
#[inline(always)]
pub(crate) fn hop(ctx: &XdpContext, number: u32, endpoint: Address, way: Forward, now: u64) -> Result<Hop, Outcome> {
    let now = (now >> 20) as u32;
    let generation = generation_of(number) as u16;
    let held = held(number).ok_or(Outcome::NoEndpoint)?;
    if held.interface != 0 && held.until.wrapping_sub(now) <= HOP_LASTS && held.generation == generation {
        return Ok(held);
    }
    let hop = Hop { until: now.wrapping_add(HOP_LASTS), generation, ..ask(ctx, endpoint, way)? };
    if let Some(words) = HOPS.get_ptr_mut(number) {
        for (at, word) in hop.words().into_iter().enumerate() {
            // SAFETY: words of this CPU's value; a program of this type is not interrupted by another one on its CPU.
            unsafe { ptr::write_volatile(words.cast::<u32>().add(at), word) };
        }
    }
    Ok(hop)
}

#[inline(always)]
fn held(number: u32) -> Option<Hop> {
    let words = HOPS.get_ptr(number)?.cast::<u32>();
    // SAFETY: as in `hop`.
    let word = |at: usize| unsafe { ptr::read_volatile(words.add(at)) };
    Some(Hop {
        addresses: [word(0), word(1), word(2)],
        interface: word(3),
        until: word(4),
        mtu: word(5),
        generation: word(6) as u16,
    })
}

#[inline(always)]
fn ask(ctx: &XdpContext, endpoint: Address, way: Forward) -> Result<Hop, Outcome> {
    let mut lookup = MaybeUninit::<Lookup>::uninit();
    let words = lookup.as_mut_ptr().cast::<u64>();
    let to_v4 = is_v4(endpoint);
    let [a, b, c, d] = endpoint;
    // SAFETY: memory of our own, of which every word is written before the kernel reads it, and the context is the kernel's.
    let (answer, lookup) = unsafe {
        for word in 0..size_of::<Lookup>() / 8 {
            ptr::write_volatile(words.add(word), 0);
        }
        let lookup = lookup.as_mut_ptr();
        (*lookup).ifindex = (*ctx.ctx).ingress_ifindex;
        if to_v4 {
            (*lookup).family = AF_INET;
            (*lookup).__bindgen_anon_4.ipv4_dst = d;
        } else {
            (*lookup).family = AF_INET6;
            (*lookup).__bindgen_anon_4.ipv6_dst = [a, b, c, d];
        }
        (bpf_fib_lookup(ctx.ctx.cast(), lookup, size_of::<Lookup>() as i32, 0), &*lookup)
    };
    match answer {
        0 => {}
        5 => return Err(Outcome::ForwardingOff),
        7 => return Err(Outcome::NoNeighbour),
        _ => return Err(Outcome::NoRoute),
    }
    // SAFETY: all of them are numbers, and the kernel has filled in what we read.
    let (mtu, next) = unsafe { (lookup.__bindgen_anon_1.mtu_result, lookup.__bindgen_anon_4.ipv6_dst) };
    // A gateway stands where the endpoint stood.
    let on_link = if to_v4 {
        lookup.family == AF_INET && next[0] == d
    } else {
        (next[0] ^ a) | (next[1] ^ b) | (next[2] ^ c) | (next[3] ^ d) == 0
    };
    if !on_link && matches!(way, Forward::Dsr) {
        return Err(Outcome::NotOnLink);
    }
    let ([t0, t1, t2, t3, t4, t5], [f0, f1, f2, f3, f4, f5]) = (lookup.dmac, lookup.smac);
    let word = |a: u8, b: u8, c: u8, d: u8| u32::from_le_bytes([a, b, c, d]);
    Ok(Hop {
        addresses: [word(t0, t1, t2, t3), word(t4, t5, f0, f1), word(f2, f3, f4, f5)],
        interface: lookup.ifindex,
        until: 0,
        mtu: u32::from(mtu),
        generation: 0,
    })
}
