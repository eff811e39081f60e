//! Who has sent a packet that is too big hears of it (RFC 1191 §4, RFC 8201 §4): the front of it goes back in an ICMP error.
//!
//! What holds: nothing is said of what may be divided, of errors, or to whom an error must not go (RFC 1122 §3.2.2, RFC 4443 §2.4). What is said is never longer than what it is said of, and each CPU says so
//! much in a second and no more. A packet is changed only when all of that is known.

use core::ptr;

use abi::balance::TOLD_A_TICK_MAX;
use aya_ebpf::helpers::generated::{bpf_csum_diff, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::XdpContext;
use wire::{ETHERNET, IPV4, IPV6, load, store, store_half};

use crate::packet::{ERROR, ICMP, ICMPV6, IS_ERROR, IS_V4, Packet};
use crate::sum::folded;
use crate::{Settings, V4, V6};

/// In which tick this CPU has said something last, and how often.
#[map]
static TOLD: PerCpuArray<[u32; 2]> = PerCpuArray::with_max_entries(1, 0);

/// Octets of the packet that an error has in it: as many as make 576 of it (RFC 1812 §4.3.2.3).
const QUOTED_V4: u32 = 576 - V4 - ERROR;

/// As many as make IPv6's least MTU of it (RFC 4443 §3.2).
const QUOTED_V6: u32 = LEAST_V6 - V6 - ERROR;

/// What each link of IPv6 carries (RFC 8200 §5): its sender can send nothing that is shorter.
const LEAST_V6: u32 = 1_280;

/// Makes the error of a packet that is too big, if there is to be one: whether there is. A function of its own, out of the way of all other packets.
// SAFETY: nothing else in the program has this name.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) fn tell(ctx: &XdpContext, packet: &Packet) -> u32 {
    // SAFETY: the context is the kernel's.
    let octets = unsafe { bpf_xdp_get_buff_len(ctx.ctx) } as u32;
    let mtu = packet.mtu.get();
    let told = if mtu == 0 || packet.is(IS_ERROR) {
        None
    } else if packet.is(IS_V4) {
        tell_v4(ctx, packet, mtu, octets)
    } else {
        tell_v6(ctx, packet, mtu, octets)
    };
    u32::from(told.is_some())
}

#[inline(always)]
fn tell_v4(ctx: &XdpContext, packet: &Packet, mtu: u32, octets: u32) -> Option<()> {
    const DONT_FRAGMENT: u32 = 0x4000;
    let frame = answering(ctx)?;
    let [second] = load::<1, true>(ctx, ETHERNET + 4)?;
    let (from, to) = (packet.destination[3], packet.source[3]);
    // This network, loopback, groups and what is above them: nobody's in particular.
    let first = u32::from_be(to) >> 24;
    let is_somebody = first != 0 && first != 127 && first < 224;
    if u32::from_be(second) & DONT_FRAGMENT == 0 || !is_somebody || octets < ETHERNET + QUOTED_V4 || !may_tell() {
        return None;
    }
    make_room::<{ V4 + ERROR }, { ETHERNET + V4 + ERROR + QUOTED_V4 }>(ctx, octets)?;
    const TOTAL: u32 = V4 + ERROR + QUOTED_V4;
    let third = 64 << 24 | ICMP << 16;
    let words = [0x4500_0000 | TOTAL, 0, third].map(u32::to_be);
    let sum = words.iter().fold(u64::from(from) + u64::from(to), |sum, word| sum + u64::from(*word));
    // Unreachable, because it may not be divided.
    let error = [0x0304_0000_u32.to_be(), mtu.to_be()];
    let is_whole = store(ctx, 0, frame)
        && store_half(ctx, 12, IPV4.to_be())
        && store(ctx, ETHERNET, [words[0], words[1], words[2], from, to])
        && store_half(ctx, ETHERNET + 10, !folded(sum))
        && store(ctx, ETHERNET + V4, error);
    let sum = sum_of::<{ ETHERNET + V4 }, 512>(ctx, 0)?;
    let sum = sum_of::<{ ETHERNET + V4 + 512 }, { ERROR + QUOTED_V4 - 512 }>(ctx, sum)?;
    (is_whole && store_half(ctx, ETHERNET + V4 + 2, !folded(sum.into()))).then_some(())
}

#[inline(always)]
fn tell_v6(ctx: &XdpContext, packet: &Packet, mtu: u32, octets: u32) -> Option<()> {
    let frame = answering(ctx)?;
    let mtu = if mtu < LEAST_V6 { LEAST_V6 } else { mtu };
    let ([a, b, c, d], [e, f, g, h]) = (packet.destination, packet.source);
    // Nobody, or a group.
    let is_somebody = (e | f | g | h) != 0 && u32::from_be(e) >> 24 != 0xff;
    if packet.octets <= mtu || !is_somebody || octets < ETHERNET + QUOTED_V6 || !may_tell() {
        return None;
    }
    make_room::<{ V6 + ERROR }, { ETHERNET + V6 + ERROR + QUOTED_V6 }>(ctx, octets)?;
    const LENGTH: u32 = ERROR + QUOTED_V6;
    let second = LENGTH << 16 | ICMPV6 << 8 | 64;
    let error = [0x0200_0000_u32.to_be(), mtu.to_be()];
    let is_whole = store(ctx, 0, frame)
        && store_half(ctx, 12, IPV6.to_be())
        && store(ctx, ETHERNET, [0x6000_0000_u32.to_be(), second.to_be(), a, b, c, d, e, f, g, h])
        && store(ctx, ETHERNET + V6, error);
    // The pseudo-header (RFC 8200 §8.1), and all that follows.
    let pseudo = [a, b, c, d, e, f, g, h, LENGTH.to_be(), ICMPV6.to_be()];
    let sum = pseudo.iter().fold(0, |sum, word| sum + u64::from(*word));
    let sum = sum_of::<{ ETHERNET + V6 }, 512>(ctx, folded(sum).into())?;
    let sum = sum_of::<{ ETHERNET + V6 + 512 }, 512>(ctx, sum)?;
    let sum = sum_of::<{ ETHERNET + V6 + 1_024 }, { LENGTH - 1_024 }>(ctx, sum)?;
    (is_whole && store_half(ctx, ETHERNET + V6 + 2, !folded(sum.into()))).then_some(())
}

/// The addresses of a frame that goes back to where this one came from; none to one that was for a group.
#[inline(always)]
fn answering(ctx: &XdpContext) -> Option<[u32; 3]> {
    let [a, b, c] = load::<3, true>(ctx, 0)?;
    (a & 1 == 0).then_some([b >> 16 | c << 16, c >> 16 | a << 16, a >> 16 | b << 16])
}

/// Whether this CPU may say one more thing in this tick.
#[inline(always)]
fn may_tell() -> bool {
    let (Some(settings), Some(told)) = (Settings::get(), TOLD.get_ptr_mut(0)) else { return false };
    let tick = settings.tick();
    // SAFETY: this CPU's own words; a program of this type is not interrupted by another one on its CPU.
    unsafe {
        let [last, count] = &mut *told;
        if *last != tick {
            (*last, *count) = (tick, 0);
        }
        if *count >= TOLD_A_TICK_MAX {
            return false;
        }
        *count += 1;
    }
    true
}

/// `ROOM` octets in front of a frame of `octets`, and none behind the first `WHOLE` then.
#[inline(always)]
fn make_room<const ROOM: u32, const WHOLE: u32>(ctx: &XdpContext, octets: u32) -> Option<()> {
    let more = octets + ROOM - WHOLE;
    // SAFETY: the context is the kernel's. All addresses within the packet are taken anew from here on.
    let is_made = unsafe {
        bpf_xdp_adjust_head(ctx.ctx, -(ROOM as i32)) == 0 && bpf_xdp_adjust_tail(ctx.ctx, -(more as i32)) == 0
    };
    is_made.then_some(())
}

/// The sum of `LENGTH` octets from `AT` on, added to another one.
#[inline(always)]
fn sum_of<const AT: u32, const LENGTH: u32>(ctx: &XdpContext, sum: u32) -> Option<u32> {
    let start = ctx.data() + AT as usize;
    if start + LENGTH as usize > ctx.data_end() {
        return None;
    }
    // SAFETY: within the packet, as the verifier has just seen too; there is nothing that it is compared with.
    Some(unsafe { bpf_csum_diff(ptr::null_mut(), 0, start as *mut u32, LENGTH, sum) } as u32)
}
