//! Which socket of a `SO_REUSEPORT` group a connection or a datagram goes to.
//!
//! Two programs of type `sk_reuseport` over the same maps: `connections` for TCP, asked at each SYN and when a listener closes with connections
//! that wait for it, and `datagrams` for UDP, asked for each datagram.
//!
//! What holds: nothing is dropped here. Whatever is strange, the program chooses nobody, and the kernel's hash chooses as it would without
//! a program. Each run adds one to one counter.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

use core::arch::asm;
use core::mem::MaybeUninit;
use core::ptr;

use abi::{
    CONFIGS, ConnectionIds, Form, Group, ID_LEN, ID_LEN_MAX, Place, SEAT_GIVEN, Seat, Verdict, two_of, worker_of,
};
use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{BPF_F_MMAPABLE, sk_action::SK_PASS};
use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_sk_select_reuseport, bpf_skb_load_bytes};
use aya_ebpf::macros::{map, sk_reuseport};
use aya_ebpf::maps::{Array, PerCpuArray, ReusePortSockArray, SockMap};
use aya_ebpf::programs::SkReuseportContext;

/// The group's sockets, by generation and worker ([`Group::socket_of`]). Its size is the engine's to say, as that of the next.
#[map]
static SOCKETS: ReusePortSockArray = ReusePortSockArray::with_max_entries(1, 0);

/// As above, those that the program for further addresses leads to: such a socket is in a `SOCKMAP`, and the kernel then has it in none of the arrays above (`EBUSY`).
#[map]
static LED: SockMap = SockMap::with_max_entries(1, 0);

/// A line for each worker, in memory that the engine maps.
#[map]
static SEATS: Array<Seat> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// What there is of the group.
#[map]
static GROUP: Array<Group> = Array::with_max_entries(1, 0);

/// How ids of each config are read.
#[map]
static IDS: Array<ConnectionIds> = Array::with_max_entries(CONFIGS as u32, 0);

/// How often each [`Verdict`] was given.
#[map]
static VERDICTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Verdict::ALL.len() as u32, 0);

/// Octets of a UDP header: offsets count from it.
const UDP_HEADER: u32 = 8;

#[sk_reuseport(migrate)]
pub fn connections(ctx: SkReuseportContext) -> u32 {
    count(connection(&ctx))
}

#[sk_reuseport]
pub fn datagrams(ctx: SkReuseportContext) -> u32 {
    count(datagram(&ctx))
}

/// The less loaded of two workers that chance names; where that one's socket is closed, the other one.
#[inline(always)]
fn connection(ctx: &SkReuseportContext) -> Verdict {
    let Some(group) = group() else { return Verdict::Missing };
    // SAFETY: a helper without arguments.
    let random = unsafe { u64::from(bpf_get_prandom_u32()) << 32 | u64::from(bpf_get_prandom_u32()) };
    let (one, other) = two_of(random, group.workers_of(group.generation));
    let (first, second) = if burden(other) < burden(one) { (other, one) } else { (one, other) };
    if !give(ctx, group, first) && !give(ctx, group, second) {
        return Verdict::Missing;
    }
    if ctx.migrating_sk().is_some() { Verdict::Migrated } else { Verdict::LeastLoaded }
}

/// What there is of the group, word by word: a choice between two words must not become one between two addresses, which the verifier
/// lets nobody make who has not CAP_PERFMON (a mispredicted branch could read past the map).
#[inline(always)]
fn group() -> Option<Group> {
    let group = GROUP.get_ptr(0)?;
    // SAFETY: the map's value, which lives as long as the program; the engine may write it meanwhile, and each word is read once.
    unsafe {
        let word = |of: *const u32| ptr::read_volatile(of);
        Some(Group {
            server: word(&raw const (*group).server),
            generation: word(&raw const (*group).generation),
            config: word(&raw const (*group).config),
            stride: word(&raw const (*group).stride),
            workers: [word(&raw const (*group).workers[0]), word(&raw const (*group).workers[1])],
        })
    }
}

#[inline(always)]
fn burden(worker: u32) -> u64 {
    let Some(seat) = SEATS.get_ptr(worker) else { return u64::MAX };
    // SAFETY: the map's value, which lives as long as the program; the engine writes words of it meanwhile, and each is read once.
    unsafe { ptr::read_volatile(seat) }.burden()
}

#[inline(always)]
fn give(ctx: &SkReuseportContext, group: Group, worker: u32) -> bool {
    if !select(ctx, group, group.generation, worker) {
        return false;
    }
    if let Some(seat) = SEATS.get_ptr_mut(worker) {
        // SAFETY: a word of the map's value, which programs on all CPUs add to: hence the atomic addition, which Rust has no stable word for here.
        unsafe {
            let given = (&raw mut (*seat).0[SEAT_GIVEN]).cast::<u64>();
            asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) given, in(reg) 1_u64);
        }
    }
    true
}

/// The worker that the connection id names; of an id that a client chose, the one that its hash means.
#[inline(always)]
fn datagram(ctx: &SkReuseportContext) -> Verdict {
    let Some(group) = group() else { return Verdict::Missing };
    let Some((form, at, len)) = destination(ctx) else { return Verdict::Stranger };
    let counted = len.min(ID_LEN_MAX as u32);
    let Some(id) = load(ctx, at, counted) else { return Verdict::Stranger };
    if len == ID_LEN as u32 {
        let config = u32::from(id[0] as u8 >> 5);
        if let Some(place) = IDS.get(config).and_then(|ids| ids.decode_words(id)) {
            return to_place(ctx, group, place);
        }
    }
    if form == Form::Short {
        return Verdict::Stranger;
    }
    let Some(ids) = IDS.get(group.config) else { return Verdict::Missing };
    let worker = worker_of(ids.spread_words(id, counted.into()), group.workers_of(group.generation));
    if select(ctx, group, group.generation, worker) { Verdict::ByHash } else { Verdict::Missing }
}

/// As [`abi::destination`], of a packet that cannot be looked at as a slice: the header's form, and where the id stands and how long it is.
#[inline(always)]
fn destination(ctx: &SkReuseportContext) -> Option<(Form, u32, u32)> {
    let [first, ..] = load(ctx, UDP_HEADER, 1)?;
    if first & 0x80 == 0 {
        return Some((Form::Short, UDP_HEADER + 1, ID_LEN as u32));
    }
    let [len, ..] = load(ctx, UDP_HEADER + 5, 1)?;
    Some((Form::Long, UDP_HEADER + 6, len as u32))
}

#[inline(always)]
fn to_place(ctx: &SkReuseportContext, group: Group, place: Place) -> Verdict {
    let (generation, worker) = (u32::from(place.generation), u32::from(place.worker));
    if u32::from(place.server) != group.server || !group.holds(generation) || worker >= group.workers_of(generation) {
        return Verdict::Elsewhere;
    }
    if select(ctx, group, generation, worker) { Verdict::ById } else { Verdict::Missing }
}

#[inline(always)]
fn select(ctx: &SkReuseportContext, group: Group, generation: u32, worker: u32) -> bool {
    let mut place = group.socket_of(generation, worker);
    let led = (&raw const LED).cast_mut().cast();
    // SAFETY: the kernel's context, and a map that there is as long as the program is.
    SOCKETS.select_reuseport(ctx, place).is_ok()
        || unsafe { bpf_sk_select_reuseport(ctx.as_ptr().cast(), led, (&raw mut place).cast(), 0) == 0 }
}

/// Up to 24 octets of the packet as little-endian words, counted from its transport header, zeros behind them; `None` where it ends before.
///
/// The words are written and read one by one: the loop that stands for `memset` has an address for each turn, and memory that was not written may
/// not be read, unless the loader has CAP_PERFMON.
#[inline(always)]
fn load(ctx: &SkReuseportContext, at: u32, len: u32) -> Option<[u64; 3]> {
    let mut words = MaybeUninit::<[u64; 3]>::uninit();
    let word = words.as_mut_ptr().cast::<u64>();
    // SAFETY: three words of our own; callers ask for at most 20 octets, and the context is the kernel's.
    unsafe {
        ptr::write_volatile(word, 0);
        ptr::write_volatile(word.add(1), 0);
        ptr::write_volatile(word.add(2), 0);
        if len > 0 && bpf_skb_load_bytes(ctx.as_ptr(), at, word.cast(), bounded(len)) != 0 {
            return None;
        }
        Some([ptr::read_volatile(word), ptr::read_volatile(word.add(1)), ptr::read_volatile(word.add(2))])
    }
}

/// From 1 to [`ID_LEN_MAX`], as the verifier can see: what the compiler knows of `len` it knows no more, and so cannot leave the bounds out.
#[inline(always)]
fn bounded(len: u32) -> u32 {
    let mut less = u64::from(len).wrapping_sub(1);
    // SAFETY: no instruction at all.
    unsafe { asm!("/* {0} */", inout(reg) less, options(pure, nomem, nostack)) };
    less.min(ID_LEN_MAX as u64 - 1) as u32 + 1
}

/// Counts a verdict and passes: to the socket that was selected, or to the kernel's hash.
#[inline(always)]
fn count(verdict: Verdict) -> u32 {
    if let Some(counter) = VERDICTS.get_ptr_mut(verdict as u32) {
        // SAFETY: this CPU's own counter; a program of this type is not interrupted by another one on its CPU.
        unsafe { *counter += 1 };
    }
    SK_PASS
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never built in: there is nothing here that can panic, and the verifier would refuse what cannot end.
    loop {}
}
