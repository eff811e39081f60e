//! The shield: drops what must not cost a socket, before the kernel has made anything of it.
//!
//! ```text
//! Ethernet, VLAN ─► IPv4 | IPv6 ─► lists ─► fragment? ─► TCP | UDP ─► a listener's port? ─► can it be meant?
//!                                                                  ─► denied for a while? ─► the source's buckets ─► a cookie?
//! what passes ─► the program that stands behind it on this interface, or the kernel
//! ```
//!
//! What holds: each packet is counted under one [`Reason`], which decides over it, and dropped only for those that say so and outside of a dry run.
//! Nothing is written into a packet but the answer to a SYN, which is made of it ([`mod@cookie`]). What cannot be read because it is unusual (more extension headers than we read, other protocols)
//! passes; what cannot be read because it is cut off is dropped.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

#[cfg(feature = "cookies")]
mod cookie;

use core::arch::asm;
use core::ptr;

use abi::NEXT_MAX;
#[cfg(feature = "cookies")]
use abi::shield::COOKIES;
use abi::shield::{
    BUCKET_INITIALS, BUCKET_PACKETS, BUCKET_SYNS, BUCKETS, Bucket, COUNTERS, DRY_RUN, HINT_WORDS, LISTED_ALLOW,
    LISTED_DENY, LISTS_V4, LISTS_V6, Note, PORT_WORDS, Ports, RATES, Reason, SAMPLE_OCTETS, SAMPLE_RATE,
    SAMPLE_RING, SAMPLES_LOST, SANE, Sample, Settings, Step, VERDICTS, counter_of, counter_of_note, hint_v4, hint_v6,
    port_bit, source_v4,
};
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_TX};
use aya_ebpf::helpers::generated::{bpf_ktime_get_coarse_ns, bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, RingBuf};
use aya_ebpf::programs::XdpContext;
use wire::{ETHERNET, IPV4, IPV6, TCP, UDP, load, pass};

/// What the engine wants.
#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

/// A bit for each port that a listener has.
#[map]
static PORTS: Array<u64> = Array::with_max_entries(PORT_WORDS, 0);

/// A bit for each address, by what its first bits are, that may be on a list: a trie is asked for those alone.
#[map]
static HINTS: Array<u64> = Array::with_max_entries(HINT_WORDS, 0);

/// Allowed and denied networks: the longest that fits decides. Its size is the engine's to say, as that of the next ones.
#[map]
static LIST_V4: LpmTrie<u32, u32> = LpmTrie::with_max_entries(1, 0);

#[map]
static LIST_V6: LpmTrie<[u32; 4], u32> = LpmTrie::with_max_entries(1, 0);

/// Until when the engine has denied a source, in nanoseconds of the monotonic clock.
#[map]
static DENIED: HashMap<u64, u64> = HashMap::with_max_entries(1, 0);

/// When a source's buckets are full again. A flood of sources pushes the oldest out, which costs them nothing but their past.
#[map]
static SOURCES: LruHashMap<u64, [u64; BUCKETS]> = LruHashMap::with_max_entries(1, 0);

/// Packets and octets by reason.
#[map]
static COUNTS: PerCpuArray<[u64; 2]> = PerCpuArray::with_max_entries(COUNTERS, 0);

/// Who sees what passes, by the interface's index.
#[map]
static NEXT: ProgramArray = ProgramArray::with_max_entries(NEXT_MAX, 0);

/// What was dropped, now and then one of it, for who wants to see.
#[map]
static SAMPLES: RingBuf = RingBuf::with_byte_size(SAMPLE_RING, 0);

/// When the bucket of samples is full again.
#[map]
static SAMPLED: Array<u64> = Array::with_max_entries(1, 0);

/// The ring is looked at in time: nobody is woken (`BPF_RB_NO_WAKEUP`).
const NO_WAKEUP: u64 = 1;

/// Octets of a VLAN's tag behind an Ethernet header.
const TAG: u32 = 4;
/// Tags that are read: a customer's in a provider's (802.1ad).
const TAGS_MAX: usize = 2;
/// Extension headers that are read. No host sends more than three of them that would go with TCP or UDP.
const EXTENSIONS_MAX: usize = 6;

/// Where the transport header stands in a packet without VLAN, options and extensions.
const USUAL_V4: u32 = ETHERNET + 20;
const USUAL_V6: u32 = ETHERNET + 40;

const SYN: u32 = 0x02;
const FIN: u32 = 0x01;
const RST: u32 = 0x04;
const ACK: u32 = 0x10;

/// What an IP header says.
struct Network {
    /// Of the source's buckets.
    key: u64,
    protocol: u32,
    /// Where the transport header begins.
    at: u32,
    is_fragment: bool,
    bad_source: bool,
    /// Goes to where it comes from.
    to_itself: bool,
}

/// What a transport header says.
struct Transport {
    source_port: u16,
    port: u16,
    bad_flags: bool,
    /// Wants a new connection.
    opens: bool,
}

#[xdp(frags)]
pub fn shield(ctx: XdpContext) -> u32 {
    let flags = flags();
    let reason = match judge(&ctx, flags) {
        Ok(reason) | Err(reason) => reason,
    };
    let dry_run = flags & DRY_RUN != 0;
    let counter = counter_of(reason, dry_run);
    count(&ctx, counter);
    if reason.drops() && tapped() >> reason as u32 & 1 == 1 {
        sample(&ctx, reason as u32, dry_run.into(), counter);
    }
    match reason {
        Reason::Cookie => XDP_TX,
        _ if reason.drops() && !dry_run => XDP_DROP,
        _ => pass(&ctx, &NEXT),
    }
}

#[inline(always)]
fn judge(ctx: &XdpContext, flags: u64) -> Result<Reason, Reason> {
    let network = network(ctx, flags)?;
    if network.is_fragment {
        return Err(Reason::Fragment);
    }
    let transport = match (network.protocol, network.at) {
        (TCP, USUAL_V4) => tcp::<true>(ctx, USUAL_V4),
        (TCP, USUAL_V6) => tcp::<true>(ctx, USUAL_V6),
        (TCP, at) => tcp::<false>(ctx, at),
        (UDP, USUAL_V4) => udp::<true>(ctx, USUAL_V4),
        (UDP, USUAL_V6) => udp::<true>(ctx, USUAL_V6),
        (UDP, at) => udp::<false>(ctx, at),
        _ => return Err(Reason::Unread),
    };
    let transport = transport.ok_or(Reason::Truncated)?;
    let is_udp = network.protocol == UDP;
    if !is_protected(if is_udp { Ports::Udp } else { Ports::Tcp }, transport.port) {
        return Err(Reason::Other);
    }
    if flags & SANE != 0 {
        meant(&network, &transport)?;
    }
    if flags & (VERDICTS | RATES) != 0 {
        heeds(&network, &transport, is_udp, flags)?;
    }
    #[cfg(feature = "cookies")]
    if flags & COOKIES != 0 && transport.opens && !is_udp {
        return Ok(cookie::cookie(ctx, network.at));
    }
    Ok(Reason::Passed)
}

/// Whether a source may send this now.
#[inline(always)]
fn heeds(network: &Network, transport: &Transport, is_udp: bool, flags: u64) -> Result<(), Reason> {
    // SAFETY: a helper without arguments. The coarse clock moves every few milliseconds, which a burst covers, and costs a tenth of the other one.
    let now = unsafe { bpf_ktime_get_coarse_ns() };
    if flags & VERDICTS != 0 && is_denied(network.key, now) {
        return Err(Reason::OverLimit);
    }
    if flags & RATES != 0 {
        let opens = transport.opens && (!is_udp || is_protected(Ports::Quic, transport.port));
        return match within_rates(network.key, now, is_udp, opens) {
            Reason::Passed => Ok(()),
            reason => Err(reason),
        };
    }
    Ok(())
}

/// What to look at. The settings are looked up each time that they are read: an address that is kept beside numbers comes to lie where one
/// of those has lain, which the verifier forbids who has not CAP_PERFMON.
#[inline(always)]
fn flags() -> u64 {
    let Some(settings) = SETTINGS.get_ptr(0) else { return 0 };
    // SAFETY: the map's value, which lives as long as the program; the engine may write it meanwhile, and a word is read once.
    unsafe { ptr::read_volatile(&raw const (*settings).flags) }
}

/// Reasons of which samples are taken.
#[inline(always)]
fn tapped() -> u64 {
    let Some(settings) = SETTINGS.get_ptr(0) else { return 0 };
    // SAFETY: as in `flags`.
    unsafe { ptr::read_volatile(&raw const (*settings).tapped) }
}

/// Takes a sample of a packet, if it is its turn. A function of its own, as [`within_rates`].
// SAFETY: nothing else in the program has this name.
#[unsafe(no_mangle)]
#[inline(never)]
fn sample(ctx: &XdpContext, reason: u32, is_dry: u32, counter: u32) -> u32 {
    let (Some(settings), Some(count)) = (SETTINGS.get_ptr(0), COUNTS.get_ptr(counter)) else { return 0 };
    // SAFETY: values of maps; the settings as in `flags`, the other one this CPU's own.
    let (one_in, seen) = unsafe { (ptr::read_volatile(&raw const (*settings).one_in), (*count)[0]) };
    if one_in > 1 && seen % one_in != 0 {
        return 0;
    }
    // SAFETY: helpers without arguments, or with the kernel's context.
    let (at_ns, octets) = unsafe { (bpf_ktime_get_coarse_ns(), bpf_xdp_get_buff_len(ctx.ctx) as u32) };
    let Some(full) = SAMPLED.get_ptr_mut(0) else { return 0 };
    if !take(full, SAMPLE_RATE, at_ns) {
        return 0;
    }
    let Some(mut entry) = SAMPLES.reserve::<Sample>(0) else {
        crate::count(ctx, SAMPLES_LOST);
        return 0;
    };
    let sample: *mut Sample = entry.as_mut_ptr();
    let mut less = u64::from(octets.min(SAMPLE_OCTETS as u32)).wrapping_sub(1);
    // SAFETY: arithmetic. The verifier wants to see the bound on all 64 bits, and the compiler knows too much to write it.
    unsafe { asm!("{0} &= {1}", inout(reg) less, const SAMPLE_OCTETS - 1, options(pure, nomem, nostack)) };
    let held = less as u32 + 1;
    // SAFETY: the ring's memory, which is ours until it is submitted, and has room for so many octets; the context is the kernel's.
    let failed = unsafe {
        (&raw mut (*sample).at_ns).write(at_ns);
        (&raw mut (*sample).reason).write(reason);
        (&raw mut (*sample).is_dry).write(is_dry);
        (&raw mut (*sample).interface).write((*ctx.ctx).ingress_ifindex);
        (&raw mut (*sample).octets).write(octets);
        (&raw mut (*sample).held).write(held);
        (&raw mut (*sample).rest).write(0);
        bpf_xdp_load_bytes(ctx.ctx, 0, (&raw mut (*sample).packet).cast(), held) != 0
    };
    if failed {
        entry.discard(NO_WAKEUP);
        return 0;
    }
    entry.submit(NO_WAKEUP);
    1
}

/// Whether somebody can have meant a packet that goes to one of our ports.
#[inline(always)]
fn meant(network: &Network, transport: &Transport) -> Result<(), Reason> {
    if transport.bad_flags {
        return Err(Reason::BadFlags);
    }
    if transport.source_port == 0 {
        return Err(Reason::BadPort);
    }
    if network.bad_source {
        return Err(Reason::BadSource);
    }
    if network.to_itself && transport.source_port == transport.port {
        return Err(Reason::Land);
    }
    Ok(())
}

/// The IP header behind Ethernet's and up to two tags, judged by the lists.
#[inline(always)]
fn network(ctx: &XdpContext, flags: u64) -> Result<Network, Reason> {
    let [_, _, _, kind] = load::<4, true>(ctx, 0).ok_or(Reason::Other)?;
    match u16::from_be(kind as u16) {
        IPV4 => ipv4::<true>(ctx, ETHERNET, flags),
        IPV6 => ipv6::<true>(ctx, ETHERNET, flags),
        0x8100 | 0x88a8 => tagged(ctx, flags),
        _ => Err(Reason::Other),
    }
}

#[inline(always)]
fn tagged(ctx: &XdpContext, flags: u64) -> Result<Network, Reason> {
    note(ctx, Note::Vlan);
    let mut at = ETHERNET;
    for _ in 0..TAGS_MAX {
        // Two octets of tag, and what is behind it.
        let [tag] = load::<1, false>(ctx, at).ok_or(Reason::Truncated)?;
        at += TAG;
        match u32::from_be(tag) as u16 {
            IPV4 => return ipv4::<false>(ctx, at, flags),
            IPV6 => return ipv6::<false>(ctx, at, flags),
            0x8100 | 0x88a8 => {}
            _ => break,
        }
    }
    Err(Reason::Other)
}

#[inline(always)]
fn ipv4<const NEAR: bool>(ctx: &XdpContext, at: u32, flags: u64) -> Result<Network, Reason> {
    let [first, second, third, source, destination] = load::<5, NEAR>(ctx, at).ok_or(Reason::Truncated)?;
    let (first, second, third) = (u32::from_be(first), u32::from_be(second), u32::from_be(third));
    let words = first >> 24 & 0xf;
    if first >> 28 != 4 || words < 5 || first & 0xffff < words * 4 {
        return Err(Reason::Truncated);
    }
    if flags & LISTS_V4 != 0 && may_be_listed(hint_v4(u32::from_be(source))) {
        listed(LIST_V4.get(&Key::new(32, source)))?;
    }
    if words > 5 {
        note(ctx, Note::Options);
    }
    let address = u32::from_be(source);
    Ok(Network {
        key: source_v4(address),
        protocol: third >> 16 & 0xff,
        at: at + words * 4,
        // Its offset, and whether there are more of them.
        is_fragment: second & 0x3fff != 0,
        bad_source: address >= 0xe000_0000,
        to_itself: source == destination,
    })
}

#[inline(always)]
fn ipv6<const NEAR: bool>(ctx: &XdpContext, at: u32, flags: u64) -> Result<Network, Reason> {
    let [first, second, a, b, c, d, to_a, to_b, to_c, to_d] = load::<10, NEAR>(ctx, at).ok_or(Reason::Truncated)?;
    if u32::from_be(first) >> 28 != 6 {
        return Err(Reason::Truncated);
    }
    if flags & LISTS_V6 != 0 && may_be_listed(hint_v6(u32::from_be(a))) {
        listed(LIST_V6.get(&Key::new(128, [a, b, c, d])))?;
    }
    let next = u32::from_be(second) >> 8 & 0xff;
    let (protocol, at, is_fragment) = match next {
        TCP | UDP => (next, at + 40, false),
        _ => extensions(ctx, next, at + 40)?,
    };
    Ok(Network {
        key: u64::from(u32::from_be(a)) << 32 | u64::from(u32::from_be(b)),
        protocol,
        at,
        is_fragment,
        bad_source: u32::from_be(a) >> 24 == 0xff,
        to_itself: (a ^ to_a) | (b ^ to_b) | (c ^ to_c) | (d ^ to_d) == 0,
    })
}

/// What the chain of extension headers leads to (RFC 8200 §4): the protocol, where it begins, and whether this is a fragment of it.
#[inline(always)]
fn extensions(ctx: &XdpContext, first: u32, from: u32) -> Result<(u32, u32, bool), Reason> {
    let (mut next, mut at) = (first, from);
    for _ in 0..EXTENSIONS_MAX {
        let is_fragment_header = next == 44;
        if !matches!(next, 0 | 43 | 44 | 51 | 60) {
            break;
        }
        if at == from {
            note(ctx, Note::Extensions);
        }
        let [header] = load::<1, false>(ctx, at).ok_or(Reason::Truncated)?;
        let header = u32::from_be(header);
        let length = header >> 16 & 0xff;
        if is_fragment_header && header & 0xfff9 != 0 {
            return Ok((next, at, true));
        }
        at += match next {
            44 => 8,
            // Counted in words of 32 bits, less two (RFC 4302 §2.2).
            51 => (length + 2) * 4,
            _ => (length + 1) * 8,
        };
        next = header >> 24;
    }
    Ok((next, at, false))
}

#[inline(always)]
fn may_be_listed((word, bit): (u32, u32)) -> bool {
    HINTS.get(word).is_some_and(|word| word >> bit & 1 == 1)
}

#[inline(always)]
fn listed(entry: Option<&u32>) -> Result<(), Reason> {
    // Read at once: see `flags`.
    // SAFETY: the map's value.
    match entry.map_or(0, |entry| unsafe { ptr::read_volatile(entry) }) {
        LISTED_ALLOW => Err(Reason::Allowed),
        LISTED_DENY => Err(Reason::Denied),
        _ => Ok(()),
    }
}

#[inline(always)]
fn tcp<const NEAR: bool>(ctx: &XdpContext, at: u32) -> Option<Transport> {
    let [ports, _, _, fourth, _] = load::<5, NEAR>(ctx, at)?;
    let (ports, fourth) = (u32::from_be(ports), u32::from_be(fourth));
    if fourth >> 28 < 5 {
        return None;
    }
    let flags = fourth >> 16 & 0x3f;
    let bad_flags = flags & (SYN | FIN | RST | ACK) == 0
        || flags & SYN != 0 && flags & (FIN | RST) != 0
        || flags & (FIN | ACK) == FIN;
    let opens = flags & (SYN | ACK) == SYN;
    Some(Transport { source_port: (ports >> 16) as u16, port: ports as u16, bad_flags, opens })
}

#[inline(always)]
fn udp<const NEAR: bool>(ctx: &XdpContext, at: u32) -> Option<Transport> {
    let [ports, second] = load::<2, NEAR>(ctx, at)?;
    let ports = u32::from_be(ports);
    if u32::from_be(second) >> 16 < 8 {
        return None;
    }
    let opens = load::<2, NEAR>(ctx, at + 8).is_some_and(|[first, second]| {
        let (first, second) = (u32::from_be(first), u32::from_be(second));
        is_initial(first >> 24, first << 8 | second >> 24)
    });
    Some(Transport { source_port: (ports >> 16) as u16, port: ports as u16, bad_flags: false, opens })
}

/// Whether a datagram of QUIC would begin a connection: an Initial (RFC 9000 §17.2.2, RFC 9369 §3.2), or of a version that we do not know
/// and would have to answer.
#[inline(always)]
fn is_initial(first: u32, version: u32) -> bool {
    let kind = first >> 4 & 3;
    first & 0x80 != 0
        && match version {
            0 => false,
            1 => kind == 0,
            0x6b33_43cf => kind == 1,
            _ => true,
        }
}

#[inline(always)]
fn is_protected(of: Ports, port: u16) -> bool {
    let (word, bit) = port_bit(of, port);
    PORTS.get(word).is_some_and(|word| word >> bit & 1 == 1)
}

#[inline(always)]
fn is_denied(key: u64, now: u64) -> bool {
    // SAFETY: the map's value; the engine may replace it meanwhile, and a word is read as a whole.
    unsafe { DENIED.get(&key) }.is_some_and(|until| now < *until)
}

/// One more of a source: takes it out of the buckets that it counts for. A function of its own in the program too, with its own stack. The
/// name that the compiler would give it differs with the folder that it is built in, and the object with it.
// SAFETY: nothing else in the program has this name.
#[unsafe(no_mangle)]
#[inline(never)]
fn within_rates(key: u64, now: u64, is_udp: bool, opens: bool) -> Reason {
    let Some(settings) = SETTINGS.get_ptr(0) else { return Reason::Passed };
    let packets = bucket(settings, BUCKET_PACKETS);
    // Both are read, so that the choice is between words and not between addresses.
    let (syns, initials) = (bucket(settings, BUCKET_SYNS), bucket(settings, BUCKET_INITIALS));
    let opening = if is_udp { initials } else { syns };
    let opens = opens && opening.interval_ns != 0;
    if packets.interval_ns == 0 && !opens {
        return Reason::Passed;
    }
    let Some(source) = SOURCES.get_ptr_mut(&key) else {
        let opened = if opens { now + opening.interval_ns } else { 0 };
        let (syns, initials) = if is_udp { (0, opened) } else { (opened, 0) };
        // Refused only when there is no memory: then it passes uncounted.
        let _ = SOURCES.insert(&key, &[now + packets.interval_ns, syns, initials], 0);
        return Reason::Passed;
    };
    let full = source.cast::<u64>();
    if packets.interval_ns != 0 && !take(full, packets, now) {
        return Reason::PacketRate;
    }
    if opens {
        // SAFETY: words of the map's value, which has as many as there are kinds.
        let (syns, initials) = unsafe { (full.add(BUCKET_SYNS), full.add(BUCKET_INITIALS)) };
        let (granted, refusal) = if is_udp {
            (take(initials, opening, now), Reason::InitialRate)
        } else {
            (take(syns, opening, now), Reason::SynRate)
        };
        if !granted {
            return refusal;
        }
    }
    Reason::Passed
}

#[inline(always)]
fn bucket(settings: *const Settings, kind: usize) -> Bucket {
    // SAFETY: the map's value, as in `flags`.
    unsafe {
        let bucket = &raw const (*settings).buckets[kind];
        Bucket {
            interval_ns: ptr::read_volatile(&raw const (*bucket).interval_ns),
            depth_ns: ptr::read_volatile(&raw const (*bucket).depth_ns),
        }
    }
}

/// One out of a bucket. Two CPUs that find it full at once take one together, and neither loses anything while it is in use.
#[inline(always)]
fn take(full: *mut u64, bucket: Bucket, now: u64) -> bool {
    // SAFETY: a word of a map's value, which other CPUs write as well: it is read once, and written as a whole or added to atomically.
    unsafe {
        match bucket.step(ptr::read_volatile(full), now) {
            Step::Begins(time) => ptr::write_volatile(full, time),
            Step::Moves(by) => asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) full, in(reg) by),
            Step::Refused => return false,
        }
    }
    true
}

#[inline(always)]
fn note(ctx: &XdpContext, note: Note) {
    count(ctx, counter_of_note(note));
}

#[inline(always)]
fn count(ctx: &XdpContext, counter: u32) {
    // SAFETY: the context is the kernel's.
    let octets = unsafe { bpf_xdp_get_buff_len(ctx.ctx) };
    if let Some(counter) = COUNTS.get_ptr_mut(counter) {
        // SAFETY: this CPU's own counter; a program of this type is not interrupted by another one on its CPU.
        unsafe {
            (*counter)[0] += 1;
            (*counter)[1] += octets;
        }
    }
}

/// Cookies are the kernel's for programs alone that may be used under its licence, as what is under MIT's may.
// SAFETY: the section that loaders read it from.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never built in: there is nothing here that can panic, and the verifier would refuse what cannot end.
    loop {}
}
