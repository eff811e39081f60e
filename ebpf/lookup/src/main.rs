//! Which socket a connection or a datagram goes to that is meant for none by its address: one program of type `sk_lookup`.
//!
//! It is asked for each new connection of its network namespace, and for each datagram of UDP that no connected socket takes. What holds: what no rule means goes on
//! as if there were no program, and nothing is refused here. Of the socket's `SO_REUSEPORT` group one is chosen behind it, as of any: the kernel asks the group's
//! program too, as long as `BPF_SK_LOOKUP_F_NO_REUSEPORT` is not said.

#![no_std]
#![no_main]

use core::ptr;

use abi::{Found, RULE_SOCKETS_MAX, RULES_MAX, Rule};
use aya_ebpf::bindings::sk_action::SK_PASS;
use aya_ebpf::macros::{map, sk_lookup};
use aya_ebpf::maps::{Array, PerCpuArray, SockMap};
use aya_ebpf::programs::SkLookupContext;

/// The rules of connections, one behind the other, and from [`RULES_MAX`] on those of datagrams; the first that fits counts.
#[map]
static RULES: Array<Rule> = Array::with_max_entries(2 * RULES_MAX as u32, 0);

/// The sockets that rules name. Its size is the engine's to say.
#[map]
static SOCKETS: SockMap = SockMap::with_max_entries(1, 0);

/// How often each [`Found`] was so.
#[map]
static FOUND: PerCpuArray<u64> = PerCpuArray::with_max_entries(Found::ALL.len() as u32, 0);

const AF_INET: u32 = 2;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;

#[sk_lookup]
pub fn lookup(ctx: SkLookupContext) -> u32 {
    let asked = ctx.lookup;
    // SAFETY: the kernel's context; each word of it is read at its own place.
    let (protocol, port) = unsafe { (word(&raw const (*asked).protocol), word(&raw const (*asked).local_port)) };
    let (first, led, closed) = match protocol {
        IPPROTO_TCP => (0, Found::Led, Found::Closed),
        IPPROTO_UDP => (RULES_MAX as u32, Found::DatagramLed, Found::DatagramClosed),
        _ => return SK_PASS,
    };
    let address = address(&ctx);
    for index in first..first + RULES_MAX as u32 {
        let Some(rule) = rule(index) else { break };
        if rule.last == 0 {
            break;
        }
        if rule.takes(address, port) {
            count(if lead(&ctx, rule) { led } else { closed });
            break;
        }
    }
    SK_PASS
}

/// To the first of the rule's sockets that is open. While a process ends its workers close theirs one after the other, and datagrams of connections that go on at another
/// worker need a socket of the group still.
#[inline(always)]
fn lead(ctx: &SkLookupContext, rule: Rule) -> bool {
    (0..RULE_SOCKETS_MAX)
        .take_while(|at| *at < rule.sockets)
        .any(|at| SOCKETS.redirect_sk_lookup(ctx, rule.socket.wrapping_add(at), 0).is_ok())
}

/// The address that is called; IPv4 as `::ffff:a.b.c.d`. All words are read, whatever the family: the verifier bears a choice between values, and none
/// between places in the context.
#[inline(always)]
fn address(ctx: &SkLookupContext) -> [u32; 4] {
    let asked = ctx.lookup;
    // SAFETY: as above.
    let (family, v4, [first, second, third, fourth]) = unsafe {
        let v6 = [
            word(&raw const (*asked).local_ip6[0]),
            word(&raw const (*asked).local_ip6[1]),
            word(&raw const (*asked).local_ip6[2]),
            word(&raw const (*asked).local_ip6[3]),
        ];
        (word(&raw const (*asked).family), word(&raw const (*asked).local_ip4), v6)
    };
    if family == AF_INET { [0, 0, 0xffff_u32.to_be(), v4] } else { [first, second, third, fourth] }
}

/// # Safety
/// It is readable, and aligned.
#[inline(always)]
unsafe fn word(of: *const u32) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { ptr::read_volatile(of) }
}

#[inline(always)]
fn rule(index: u32) -> Option<Rule> {
    let rule = RULES.get_ptr(index)?;
    // SAFETY: the map's value, which lives as long as the program; the engine has written it before the program was attached.
    Some(unsafe { ptr::read(rule) })
}

fn count(found: Found) {
    if let Some(counter) = FOUND.get_ptr_mut(found as u32) {
        // SAFETY: this CPU's own counter; a program of this type is not interrupted by another one on its CPU.
        unsafe { *counter += 1 };
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never built in: there is nothing here that can panic, and the verifier would refuse what cannot end.
    loop {}
}
