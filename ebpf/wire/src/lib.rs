//! How XDP programs read and write packets, and hand them on.
//!
//! Headers at their usual places are read where they lie, a word an instruction. All others are copied by a helper: an address in a packet that depends on
//! what is in it is arithmetic that the verifier lets nobody do who has not CAP_PERFMON.

#![no_std]
#![feature(asm_experimental_arch)]

use core::arch::asm;
use core::mem::MaybeUninit;

use aya_ebpf::bindings::xdp_action::XDP_PASS;
use aya_ebpf::helpers::generated::bpf_xdp_load_bytes;
use aya_ebpf::maps::ProgramArray;
use aya_ebpf::programs::XdpContext;

/// Octets of an Ethernet header.
pub const ETHERNET: u32 = 14;

/// Ethernet's numbers of protocols.
pub const IPV4: u16 = 0x0800;
pub const IPV6: u16 = 0x86dd;

/// IP's numbers of protocols.
pub const TCP: u32 = 6;
pub const UDP: u32 = 17;

/// Hands a packet on to who stands behind us on its interface; to the kernel, where nobody does. To be called where the program ends, and not in a function of its own: a jump from there would
/// count its stack as well.
#[inline(always)]
pub fn pass(ctx: &XdpContext, next: &ProgramArray) -> u32 {
    // SAFETY: the context is the kernel's. An empty place, or none, is a jump that does not happen.
    unsafe {
        let interface = (*ctx.ctx).ingress_ifindex;
        let _ = next.tail_call(ctx, interface);
    }
    XDP_PASS
}

/// Words of the packet as they lie in it; `None` where it ends before. `NEAR` is for places that are the same in all packets, and written
/// as numbers.
#[inline(always)]
pub fn load<const WORDS: usize, const NEAR: bool>(ctx: &XdpContext, at: u32) -> Option<[u32; WORDS]> {
    if NEAR {
        let start = ctx.data() + at as usize;
        if start + size_of::<[u32; WORDS]>() > ctx.data_end() {
            return None;
        }
        // SAFETY: within the packet, as the verifier has just seen too.
        return Some(core::array::from_fn(|word| unsafe { lies_at(start + 4 * word) }));
    }
    let mut words = MaybeUninit::<[u32; WORDS]>::uninit();
    // SAFETY: memory of our own, which the helper fills or says that it has not.
    unsafe {
        if bpf_xdp_load_bytes(ctx.ctx, at, words.as_mut_ptr().cast(), size_of::<[u32; WORDS]>() as u32) != 0 {
            return None;
        }
        Some(words.assume_init())
    }
}

/// A word at an address that need not be aligned, in one instruction. For a read of Rust's the compiler makes four, of an octet each.
///
/// # Safety
/// Four octets from there on lie within the packet.
#[inline(always)]
pub unsafe fn lies_at(address: usize) -> u32 {
    let word: u64;
    // SAFETY: the caller's promise.
    unsafe {
        asm!("{0} = *(u32 *)({1} + 0)", lateout(reg) word, in(reg) address, options(pure, readonly, nostack));
    }
    word as u32
}

/// Writes words over those of the packet, from a place on that is a number; false, and nothing is written, where it ends before.
#[inline(always)]
#[must_use]
pub fn store<const WORDS: usize>(ctx: &XdpContext, at: u32, words: [u32; WORDS]) -> bool {
    let start = ctx.data() + at as usize;
    if start + size_of::<[u32; WORDS]>() > ctx.data_end() {
        return false;
    }
    for (place, word) in words.into_iter().enumerate() {
        // SAFETY: within the packet, as the verifier has just seen too; its memory is this program's while it runs.
        unsafe {
            asm!("*(u32 *)({0} + 0) = {1}", in(reg) start + 4 * place, in(reg) u64::from(word), options(nostack))
        };
    }
    true
}

/// As [`store`], of two octets.
#[inline(always)]
#[must_use]
pub fn store_half(ctx: &XdpContext, at: u32, half: u16) -> bool {
    let start = ctx.data() + at as usize;
    if start + size_of::<u16>() > ctx.data_end() {
        return false;
    }
    // SAFETY: as in `store`.
    unsafe { asm!("*(u16 *)({0} + 0) = {1}", in(reg) start, in(reg) u64::from(half), options(nostack)) };
    true
}
