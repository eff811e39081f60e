//! The way to an endpoint.

use core::mem::MaybeUninit;
use core::ptr;

use abi::balance::{Address, Forward, Hop, LINE_WORDS, Outcome};
use aya_ebpf::bindings::bpf_fib_lookup as Lookup;
use aya_ebpf::helpers::generated::bpf_fib_lookup;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::XdpContext;

use crate::Endpoint;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// What each CPU keeps of each endpoint.
#[map]
static LINES: PerCpuArray<[u64; LINE_WORDS]> = PerCpuArray::with_max_entries(1, 0);

#[inline(always)]
pub(crate) const fn is_v4([a, b, c, _]: Address) -> bool {
    (a | b) == 0 && c == 0xffff_u32.to_be()
}

/// What this CPU keeps of an endpoint.
pub(crate) struct Line(*mut u64);

impl Line {
    #[inline(always)]
    pub(crate) fn of(number: u32) -> Option<Self> {
        LINES.get_ptr_mut(number).map(|words| Self(words.cast()))
    }

    #[inline(always)]
    pub(crate) fn count(&self, octets: u32) {
        // SAFETY: this CPU's own words; a program of this type is not interrupted by another one on its CPU.
        unsafe {
            *self.0 += 1;
            *self.0.add(1) += u64::from(octets);
        }
    }

    /// The way to the endpoint: what this CPU was told in this tick, or else the kernel's word. Its tables know routes and neighbours, and change seldom.
    #[inline(always)]
    pub(crate) fn hop(&self, ctx: &XdpContext, endpoint: &Endpoint, way: Forward, tick: u32) -> Result<Hop, Outcome> {
        // SAFETY: as in `count`.
        let word = |at: usize| unsafe { ptr::read_volatile(self.0.add(2 + at)) };
        let held = Hop::of([word(0), word(1), word(2), word(3)]);
        let generation = endpoint.generation as u16;
        if held.tick == tick && held.generation == generation {
            return Ok(held);
        }
        let hop = Hop { tick, generation, ..ask(ctx, endpoint.address, way)? };
        for (at, word) in hop.words().into_iter().enumerate() {
            // SAFETY: as in `count`.
            unsafe { ptr::write_volatile(self.0.add(2 + at), word) };
        }
        Ok(hop)
    }
}

#[inline(always)]
pub(crate) fn ask(ctx: &XdpContext, endpoint: Address, way: Forward) -> Result<Hop, Outcome> {
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
        tick: 0,
        mtu: u32::from(mtu),
        generation: 0,
    })
}
