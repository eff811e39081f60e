//! Which listening socket a connection goes to that is meant for none by its address: one program of type `sk_lookup`.
//!
//! It is asked for each new connection of its network namespace. What holds: what no rule means goes on as if there were no program, and nothing is refused here.
//! Of the socket's `SO_REUSEPORT` group one is chosen behind it, as of any.

#![no_std]
#![no_main]

use core::ptr;

use abi::{Found, RULES_MAX, Rule};
use aya_ebpf::bindings::sk_action::SK_PASS;
use aya_ebpf::macros::{map, sk_lookup};
use aya_ebpf::maps::{Array, PerCpuArray, SockMap};
use aya_ebpf::programs::SkLookupContext;

/// The rules, one behind the other; the first that takes a connection counts.
#[map]
static RULES: Array<Rule> = Array::with_max_entries(RULES_MAX as u32, 0);

/// The sockets that rules name.
#[map]
static SOCKETS: SockMap = SockMap::with_max_entries(RULES_MAX as u32, 0);

/// How often each [`Found`] was so.
#[map]
static FOUND: PerCpuArray<u64> = PerCpuArray::with_max_entries(Found::ALL.len() as u32, 0);

const AF_INET: u32 = 2;
const IPPROTO_TCP: u32 = 6;

#[sk_lookup]
pub fn lookup(ctx: SkLookupContext) -> u32 {
    let asked = ctx.lookup;
    // SAFETY: the kernel's context; each word of it is read at its own place.
    let (protocol, port) = unsafe { (word(&raw const (*asked).protocol), word(&raw const (*asked).local_port)) };
    if protocol == IPPROTO_TCP {
        let address = address(&ctx);
        for index in 0..RULES_MAX as u32 {
            let Some(rule) = rule(index) else { break };
            if rule.last == 0 {
                break;
            }
            if rule.takes(address, port) {
                let led = SOCKETS.redirect_sk_lookup(&ctx, rule.socket, 0).is_ok();
                count(if led { Found::Led } else { Found::Closed });
                break;
            }
        }
    }
    SK_PASS
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
