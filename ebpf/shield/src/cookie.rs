//! A SYN's answer, where its listener has no room for what it would have to remember of it.

use abi::cookie::{Answer, Syn, answer_v4, answer_v6};
use abi::shield::Reason;
use aya_ebpf::helpers::generated::{
    bpf_check_mtu, bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_gen_syncookie, bpf_xdp_adjust_tail,
    bpf_xdp_get_buff_len, bpf_xdp_load_bytes, bpf_xdp_store_bytes,
};
use aya_ebpf::programs::XdpContext;

use crate::{ETHERNET, USUAL_V4, USUAL_V6, load};

/// Words of the longest TCP header.
const TCP_WORDS_MAX: usize = 15;

/// The interface's network namespace, as [`bpf_skc_lookup_tcp`] is told (`BPF_F_CURRENT_NETNS`).
const OUR_NAMESPACE: u64 = u64::MAX;

/// Answers a SYN whose transport header begins here, if the kernel has a cookie for it. What stands behind a tag, options or extensions is left
/// to the kernel, which makes the same cookies.
#[inline(always)]
pub(crate) fn cookie(ctx: &XdpContext, at: u32) -> Reason {
    match at {
        USUAL_V4 => cookie_v4(ctx),
        USUAL_V6 => cookie_v6(ctx),
        _ => Reason::Passed,
    }
}

/// A function of its own, as [`within_rates`](crate::within_rates), for each family: where one place in a program has memory of two sizes, the
/// verifier lets nobody reach it who has not CAP_PERFMON.
// SAFETY: nothing else in the program has this name.
#[unsafe(no_mangle)]
#[inline(never)]
fn cookie_v4(ctx: &XdpContext) -> Reason {
    answered_v4(ctx).unwrap_or(Reason::Passed)
}

#[inline(always)]
fn answered_v4(ctx: &XdpContext) -> Option<Reason> {
    let mut ip = load::<5, false>(ctx, ETHERNET)?;
    let [_, _, _, source, destination] = ip;
    let (mut header, length) = header(ctx, USUAL_V4)?;
    let [ports, sequence, ..] = header;
    let mut tuple = [source, destination, ports];
    let cookie = ask_kernel(ctx, &mut tuple, &mut ip, &mut header, length)?;
    let answer = Answer { cookie, mtu: mtu(ctx)? };
    Some(reply(ctx, &answer_v4(source, destination, Syn { ports, sequence }, answer)))
}

/// As [`cookie_v4`].
// SAFETY: nothing else in the program has this name.
#[unsafe(no_mangle)]
#[inline(never)]
fn cookie_v6(ctx: &XdpContext) -> Reason {
    answered_v6(ctx).unwrap_or(Reason::Passed)
}

#[inline(always)]
fn answered_v6(ctx: &XdpContext) -> Option<Reason> {
    let mut ip = load::<10, false>(ctx, ETHERNET)?;
    let [_, _, a, b, c, d, to_a, to_b, to_c, to_d] = ip;
    let (mut header, length) = header(ctx, USUAL_V6)?;
    let [ports, sequence, ..] = header;
    let mut tuple = [a, b, c, d, to_a, to_b, to_c, to_d, ports];
    let cookie = ask_kernel(ctx, &mut tuple, &mut ip, &mut header, length)?;
    let answer = Answer { cookie, mtu: mtu(ctx)? };
    let (source, destination) = ([a, b, c, d], [to_a, to_b, to_c, to_d]);
    Some(reply(ctx, &answer_v6(source, destination, Syn { ports, sequence }, answer)))
}

/// The TCP header with its options, and its octets.
#[inline(always)]
fn header(ctx: &XdpContext, at: u32) -> Option<([u32; TCP_WORDS_MAX], u32)> {
    let [fourth] = load::<1, false>(ctx, at + 12)?;
    let length = (u32::from_be(fourth) >> 28) * 4;
    let mut header = [0; TCP_WORDS_MAX];
    if length < 20 {
        return None;
    }
    // SAFETY: memory of our own, which has room for the 60 octets that four bits can say.
    let loaded = unsafe { bpf_xdp_load_bytes(ctx.ctx, at, header.as_mut_ptr().cast(), length) };
    (loaded == 0).then_some((header, length))
}

/// The kernel's cookie for a SYN. There is one where a listener's queue is full (or `net.ipv4.tcp_syncookies` is 2), and then the kernel
/// remembers that it was, without which it would not believe a client that brings the cookie.
#[inline(always)]
fn ask_kernel<const TUPLE: usize, const IP: usize>(
    ctx: &XdpContext,
    tuple: &mut [u32; TUPLE],
    ip: &mut [u32; IP],
    header: &mut [u32; TCP_WORDS_MAX],
    length: u32,
) -> Option<u32> {
    // SAFETY: memory of our own, of the lengths that are said; the socket is let go of once.
    unsafe {
        let (tuple, octets) = (tuple.as_mut_ptr().cast(), size_of::<[u32; TUPLE]>() as u32);
        let socket = bpf_skc_lookup_tcp(ctx.ctx.cast(), tuple, octets, OUR_NAMESPACE, 0);
        if socket.is_null() {
            return None;
        }
        let (ip, octets) = (ip.as_mut_ptr().cast(), size_of::<[u32; IP]>() as u32);
        let made = bpf_tcp_gen_syncookie(socket.cast(), ip, octets, header.as_mut_ptr().cast(), length);
        bpf_sk_release(socket.cast());
        // Above the cookie stands the MSS that is in it.
        (made > 0).then_some(made as u32)
    }
}

/// What the interface takes at once.
#[inline(always)]
fn mtu(ctx: &XdpContext) -> Option<u32> {
    let mut mtu = 0;
    // SAFETY: memory of our own. 0 is the interface that the packet came from.
    (unsafe { bpf_check_mtu(ctx.ctx.cast(), 0, &raw mut mtu, 0, 0) } == 0).then_some(mtu)
}

/// Makes the packet an answer to where it comes from, with these words behind the Ethernet header.
#[inline(always)]
fn reply<const WORDS: usize>(ctx: &XdpContext, words: &[u32; WORDS]) -> Reason {
    let length = ETHERNET + size_of::<[u32; WORDS]>() as u32;
    // SAFETY: the context is the kernel's, and memory our own.
    unsafe {
        let mut addresses = [0_u16; 6];
        if bpf_xdp_load_bytes(ctx.ctx, 0, addresses.as_mut_ptr().cast(), 12) != 0 {
            return Reason::Passed;
        }
        let [a, b, c, d, e, f] = addresses;
        let mut addresses = [d, e, f, a, b, c];
        // Without room for an option that the SYN has not, it is the kernel's to answer.
        if bpf_xdp_adjust_tail(ctx.ctx, (length as i32).wrapping_sub(bpf_xdp_get_buff_len(ctx.ctx) as i32)) != 0 {
            return Reason::Passed;
        }
        bpf_xdp_store_bytes(ctx.ctx, 0, addresses.as_mut_ptr().cast(), 12);
        bpf_xdp_store_bytes(ctx.ctx, ETHERNET, words.as_ptr().cast_mut().cast(), length - ETHERNET);
    }
    Reason::Cookie
}
