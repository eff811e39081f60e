//! Takes datagrams past the kernel: those that go to a door of ours are given to the AF_XDP socket of the queue that they came by, and nothing else is.
//!
//! ```text
//! Ethernet, to us ─► IPv4 | IPv6, no options, no fragment ─► UDP ─► a door's address and port? ─► fits a frame? ─► the queue's socket
//! ```
//!
//! What holds: nothing is dropped and nothing written here; each packet is counted under the one [`Outcome`] that it had. What is strange is left to the kernel,
//! which knows what to make of it, and has a socket at the same door.

#![no_std]
#![no_main]

use core::ptr;

use abi::afxdp::{DoorKey, Outcome, SETTINGS_WORDS, door_key};
use abi::balance::mapped;
use aya_ebpf::bindings::xdp_action::{XDP_PASS, XDP_REDIRECT};
use aya_ebpf::helpers::generated::bpf_xdp_get_buff_len;
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, XskMap};
use aya_ebpf::programs::XdpContext;
use wire::{ETHERNET, IPV4, IPV6, UDP, load};

/// What the engine knows of the interface.
#[map]
static SETTINGS: Array<[u32; SETTINGS_WORDS]> = Array::with_max_entries(1, 0);

/// Addresses and ports of doors. Its size is the engine's to say, as that of the next.
#[map]
static DOORS: HashMap<DoorKey, u32> = HashMap::with_max_entries(1, 0);

/// A socket for each queue.
#[map]
static SOCKETS: XskMap = XskMap::with_max_entries(1, 0);

/// How often each [`Outcome`] was.
#[map]
static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Outcome::ALL.len() as u32, 0);

/// Octets of headers without options.
const V4: u32 = 20;
const V6: u32 = 40;
const UDP_HEADER: u32 = 8;

#[xdp(frags)]
pub fn afxdp(ctx: XdpContext) -> u32 {
    match taken(&ctx) {
        Ok(()) => {
            // SAFETY: the context is the kernel's.
            let queue = unsafe { (*ctx.ctx).rx_queue_index };
            match SOCKETS.redirect(queue, XDP_PASS.into()) {
                Ok(_) => {
                    count(Outcome::Taken);
                    XDP_REDIRECT
                }
                Err(_) => {
                    count(Outcome::NoSocket);
                    XDP_PASS
                }
            }
        }
        Err(outcome) => {
            count(outcome);
            XDP_PASS
        }
    }
}

/// Whether a packet is for one of our doors, and whole.
#[inline(always)]
fn taken(ctx: &XdpContext) -> Result<(), Outcome> {
    let [to, rest, _, kind] = load::<4, true>(ctx, 0).ok_or(Outcome::Other)?;
    if to != setting(0) || rest & 0xffff != setting(1) {
        return Err(Outcome::Other);
    }
    match u16::from_be(kind as u16) {
        IPV4 => v4(ctx),
        IPV6 => v6(ctx),
        _ => Err(Outcome::Other),
    }
}

#[inline(always)]
fn v4(ctx: &XdpContext) -> Result<(), Outcome> {
    let [first, second, third, _, destination] = load::<5, true>(ctx, ETHERNET).ok_or(Outcome::Other)?;
    let (first, second, third) = (u32::from_be(first), u32::from_be(second), u32::from_be(third));
    if third >> 16 & 0xff != UDP {
        return Err(Outcome::Other);
    }
    // Its offset, and whether there are more of them.
    if second & 0x3fff != 0 {
        return Err(Outcome::Fragment);
    }
    match first >> 24 {
        0x45 => {}
        0x46..=0x4f => return Err(Outcome::Options),
        _ => return Err(Outcome::Malformed),
    }
    let [ports, lengths] = load::<2, true>(ctx, ETHERNET + V4).ok_or(Outcome::Malformed)?;
    opens(mapped(u32::from_be(destination)), ports)?;
    fits(ctx, V4, first & 0xffff, lengths)
}

#[inline(always)]
fn v6(ctx: &XdpContext) -> Result<(), Outcome> {
    let [first, second, _, _, _, _, a, b, c, d] = load::<10, true>(ctx, ETHERNET).ok_or(Outcome::Other)?;
    let second = u32::from_be(second);
    match second >> 8 & 0xff {
        UDP => {}
        44 => return Err(Outcome::Fragment),
        0 | 43 | 51 | 60 => return Err(Outcome::Options),
        _ => return Err(Outcome::Other),
    }
    if u32::from_be(first) >> 28 != 6 {
        return Err(Outcome::Malformed);
    }
    let [ports, lengths] = load::<2, true>(ctx, ETHERNET + V6).ok_or(Outcome::Malformed)?;
    opens([a, b, c, d], ports)?;
    fits(ctx, V6, V6 + (second >> 16), lengths)
}

#[inline(always)]
fn opens(address: [u32; 4], ports: u32) -> Result<(), Outcome> {
    let key = door_key(address, u32::from_be(ports) as u16);
    // SAFETY: only asked whether it is there.
    if unsafe { DOORS.get(key) }.is_some() { Ok(()) } else { Err(Outcome::Other) }
}

/// Whether a packet of `total` octets with this IP header is as long as its lengths say, and no longer than a socket has room for.
#[inline(always)]
fn fits(ctx: &XdpContext, header: u32, total: u32, lengths: u32) -> Result<(), Outcome> {
    let datagram = u32::from_be(lengths) >> 16;
    // SAFETY: the context is the kernel's.
    let octets = unsafe { bpf_xdp_get_buff_len(ctx.ctx) } as u32;
    if octets > setting(2) {
        return Err(Outcome::TooLong);
    }
    if datagram < UDP_HEADER || header + datagram > total || ETHERNET + total > octets {
        return Err(Outcome::Malformed);
    }
    Ok(())
}

/// A word of the settings, looked up each time that it is read: an address that is kept beside numbers comes to lie where one of those has lain, which the
/// verifier forbids who has not CAP_PERFMON.
#[inline(always)]
fn setting(at: usize) -> u32 {
    let Some(settings) = SETTINGS.get_ptr(0) else { return 0 };
    // SAFETY: a word of the map's value, which lives as long as the program; the engine may write it meanwhile, and it is read once.
    unsafe { ptr::read_volatile(settings.cast::<u32>().add(at)) }
}

#[inline(always)]
fn count(outcome: Outcome) {
    if let Some(counter) = COUNTS.get_ptr_mut(outcome as u32) {
        // SAFETY: this CPU's own counter; a program of this type is not interrupted by another one on its CPU.
        unsafe { *counter += 1 };
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never built in: there is nothing here that can panic, and the verifier would refuse what cannot end.
    loop {}
}
