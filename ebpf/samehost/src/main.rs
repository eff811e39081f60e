//! The same-host shortcut: what one end of a connection within this host sends is queued at the other end's socket, and TCP never sees it.
//!
//! ```text
//! established ─► meet: of the engine (by its priority), or what one of the engine's leads to? ─► SOCKETS, ENDS
//! send ─► send: the other end there? budget left? ─► redirected │ by TCP, from then on
//! closed ─► meet: the end's word is taken away; its socket leaves the table by itself
//! ```
//!
//! What holds: nothing is dropped, and nothing overtakes anything: an end that has sent by TCP once goes on so. What waits unread at a socket is at
//! most the budget for each time that its own end has spoken since. A connection is taken up when it is made, or never.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

use core::arch::asm;
use core::ffi::c_void;
use core::mem::offset_of;
use core::ptr;

use abi::samehost::{Count, End, FALLEN, Settings, mapped, spend};
use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{
    BPF_F_INGRESS, BPF_F_NO_PREALLOC, BPF_NOEXIST, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB,
    BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_TCP_CLOSE,
    bpf_sock_ops, sk_action::SK_PASS, sk_msg_md,
};
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_setsockopt};
use aya_ebpf::macros::{map, sk_msg, sock_ops};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, SockHash};
use aya_ebpf::programs::{SkMsgContext, SockOpsContext};

/// [`Settings`], as a word.
#[map]
static SETTINGS: Array<u64> = Array::with_max_entries(1, 0);

/// Sockets by their ends. Its size is the engine's to say, as that of the next.
#[map]
static SOCKETS: SockHash<End> = SockHash::with_max_entries(1, 0);

/// What each end has sent.
#[map]
static ENDS: HashMap<End, u64> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

/// By [`Count`].
#[map]
static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Count::ALL.len() as u32, 0);

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const SOL_SOCKET: i32 = 1;
const SO_PRIORITY: i32 = 12;

#[sock_ops]
pub fn meet(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => called(&ctx),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => answered(&ctx),
        BPF_SOCK_OPS_STATE_CB if ctx.arg(1) == BPF_TCP_CLOSE => {
            if let Some(end) = end_of_socket(&ctx) {
                // Not there where it was refused.
                let _ = ENDS.remove(&end);
            }
        }
        _ => {}
    }
    1
}

/// A connection that was asked for here: the engine's, if its socket says so.
#[inline(always)]
fn called(ctx: &SockOpsContext) {
    let settings = settings();
    if settings.token == 0 || priority(ctx) != settings.token {
        return;
    }
    let nothing = 0_i32;
    // SAFETY: the context is the kernel's, and the value four octets of our own. The token has told what it had to.
    unsafe {
        let value = (&raw const nothing).cast_mut().cast::<c_void>();
        bpf_setsockopt(ctx.as_ptr(), SOL_SOCKET, SO_PRIORITY, value, 4);
    }
    if let Some(end) = end_of_socket(ctx) {
        take_up(ctx, end);
    }
}

/// A connection that was answered here: at the end of one of the engine's, if there is an end to it.
#[inline(always)]
fn answered(ctx: &SockOpsContext) {
    let Some(end) = end_of_socket(ctx) else { return };
    if ENDS.get_ptr(&end.other()).is_some() && take_up(ctx, end) {
        count(Count::Joined, 1);
    }
}

#[inline(always)]
fn take_up(ctx: &SockOpsContext, end: End) -> bool {
    // What a connection with the same ports left behind, if it has, is over with this.
    let taken = ENDS.insert(&end, &0, 0).is_ok() && ctx.set_cb_flags(BPF_SOCK_OPS_STATE_CB_FLAG as i32).is_ok();
    let mut key = end;
    // SAFETY: the context, which the kernel lends us for this call.
    let taken = taken && unsafe { SOCKETS.update(&mut key, &mut *ctx.ops, BPF_NOEXIST.into()).is_ok() };
    if !taken {
        let _ = ENDS.remove(&end);
        count(Count::Refused, 1);
    }
    taken
}

#[sk_msg]
pub fn send(ctx: SkMsgContext) -> u32 {
    let Some(end) = end_of_message(&ctx) else { return SK_PASS };
    let other = end.other();
    let Some(own) = ENDS.get_ptr_mut(&end) else { return SK_PASS };
    // SAFETY: a word of the map's, which lives as long as the program; both ends write it, atomically.
    let before = unsafe { ptr::read_volatile(own) };
    if before & FALLEN != 0 {
        return SK_PASS;
    }
    let Some(others) = ENDS.get_ptr_mut(&other) else { return fall(own, Count::Alone) };
    let size = ctx.size();
    if spend(before, size, settings().budget).is_none() {
        return fall(own, Count::Spent);
    }
    let mut key = other;
    if SOCKETS.redirect_msg(&ctx, &mut key, BPF_F_INGRESS.into()) != i64::from(SK_PASS) {
        return fall(own, Count::Alone);
    }
    add(own, size.into());
    heard(others);
    count(Count::Messages, 1);
    count(Count::Bytes, size.into());
    SK_PASS
}

/// An end has spoken, so it has heard: the other one's budget is whole again.
#[inline(always)]
fn heard(others: *mut u64) {
    // SAFETY: as in `send`. Nothing is written where there is nothing to take away: the line stays with the CPU that has it.
    unsafe {
        if ptr::read_volatile(others) & !FALLEN != 0 {
            asm!("lock *(u64 *)({0} + 0) &= {1}", in(reg) others, in(reg) FALLEN);
        }
    }
}

#[inline(always)]
fn fall(own: *mut u64, why: Count) -> u32 {
    // SAFETY: as in `send`.
    unsafe { asm!("lock *(u64 *)({0} + 0) |= {1}", in(reg) own, in(reg) FALLEN) };
    count(why, 1);
    SK_PASS
}

#[inline(always)]
fn add(word: *mut u64, more: u64) {
    // SAFETY: a word of a map's, as in `send` and `count`.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) word, in(reg) more) };
}

/// Of a context of type `$of` at `$context`: the word that its field `$field` begins with, or the `$more`th after it.
macro_rules! field {
    ($of:ty, $context:expr, $field:ident $(+ $more:literal)?) => {{
        let word: u64;
        // SAFETY: a word of the context, which the kernel lends us. It is read by an instruction that has the place in it: the kernel translates no
        // others, and of a read that is written in Rust the compiler may make one through an address that it has worked out.
        unsafe {
            asm!(
                "{0} = *(u32 *)({1} + {2})",
                out(reg) word,
                in(reg) $context,
                const offset_of!($of, $field) $(+ 4 * $more)?,
                options(readonly, nostack)
            );
        }
        word as u32
    }};
}

/// The end that the socket of a context is; `None` for what is no TCP over IP.
macro_rules! end_of {
    ($of:ty, $context:expr) => {{
        let context: *mut $of = $context;
        let addresses = match field!($of, context, family) {
            AF_INET => Some((mapped(field!($of, context, local_ip4)), mapped(field!($of, context, remote_ip4)))),
            AF_INET6 => Some((
                [
                    field!($of, context, local_ip6),
                    field!($of, context, local_ip6 + 1),
                    field!($of, context, local_ip6 + 2),
                    field!($of, context, local_ip6 + 3),
                ],
                [
                    field!($of, context, remote_ip6),
                    field!($of, context, remote_ip6 + 1),
                    field!($of, context, remote_ip6 + 2),
                    field!($of, context, remote_ip6 + 3),
                ],
            )),
            _ => None,
        };
        let ports = (field!($of, context, local_port), field!($of, context, remote_port).swap_bytes());
        // SAFETY: the context, which the kernel lends us.
        let namespace = unsafe { bpf_get_netns_cookie(context.cast()) };
        addresses.map(|(local, remote)| End::new(namespace, (local, ports.0), (remote, ports.1)))
    }};
}

#[inline(always)]
fn end_of_socket(ctx: &SockOpsContext) -> Option<End> {
    end_of!(bpf_sock_ops, ctx.ops)
}

#[inline(always)]
fn end_of_message(ctx: &SkMsgContext) -> Option<End> {
    end_of!(sk_msg_md, ctx.msg)
}

#[inline(always)]
fn priority(ctx: &SockOpsContext) -> u32 {
    // SAFETY: the context's socket, which is there once it has been established.
    unsafe {
        let socket = (*ctx.ops).__bindgen_anon_2.sk;
        if socket.is_null() { 0 } else { ptr::read_volatile(&raw const (*socket).priority) }
    }
}

#[inline(always)]
fn settings() -> Settings {
    let Some(settings) = SETTINGS.get_ptr(0) else { return Settings::default() };
    // SAFETY: the map's value, which lives as long as the program.
    Settings::of_word(unsafe { ptr::read_volatile(settings) })
}

#[inline(always)]
fn count(what: Count, more: u64) {
    if let Some(counter) = COUNTS.get_ptr_mut(what as u32) {
        add(counter, more);
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never built in: there is nothing here that can panic, and the verifier would refuse what cannot end.
    loop {}
}
