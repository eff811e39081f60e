//! What the rooms that load eBPF programs have in common: a refusal of the kernel's as a sentence for the operator, what is in an object, what was
//! counted, and which XDP programs stand on interfaces, one behind the other.

mod interfaces;

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};

use aya::maps::{Map, PerCpuArray};
use aya::programs::Program;
use aya::{Ebpf, Pod};

pub use self::interfaces::{Comer, Interfaces, Next, Place, Standing, stand_on};

/// A program of an object, as what it is.
///
/// # Errors
/// There is none of that name and kind.
pub fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, String>
where
    &'a mut P: TryFrom<&'a mut Program>,
{
    let program = ebpf.program_mut(name).and_then(|program| program.try_into().ok());
    program.ok_or_else(|| format!("the object has no program `{name}`"))
}

/// A map of an object, as what it is.
///
/// # Errors
/// There is none of that name and kind.
pub fn map<'a, M: TryFrom<&'a mut Map>>(ebpf: &'a mut Ebpf, name: &str) -> Result<M, String> {
    let map = ebpf.map_mut(name).and_then(|map| M::try_from(map).ok());
    map.ok_or_else(|| format!("the object has no {name}"))
}

/// What was counted at a place of a map, over all CPUs.
#[must_use]
pub fn sum<const N: usize>(ebpf: &Ebpf, name: &str, at: u32) -> [u64; N]
where
    [u64; N]: Pod,
{
    let counters = ebpf.map(name).and_then(|map| PerCpuArray::<_, [u64; N]>::try_from(map).ok());
    let cpus = counters.and_then(|counters| counters.get(&at, 0).ok());
    let mut sum = [0; N];
    for cpu in cpus.iter().flat_map(|cpus| cpus.iter()) {
        // What is no count, where words of other kinds stand behind counts, is no sum either.
        sum.iter_mut().zip(cpu).for_each(|(sum, more): (&mut u64, &u64)| *sum = sum.wrapping_add(*more));
    }
    sum
}

/// An address as its words lie in a packet.
#[must_use]
pub fn words(address: Ipv6Addr) -> [u32; 4] {
    [96, 64, 32, 0].map(|shift| ((u128::from(address) >> shift) as u32).to_be())
}

/// The kernel's number of an interface.
///
/// # Errors
/// A sentence for the operator.
pub fn interface_index(name: &str) -> Result<u32, String> {
    // Any socket can be asked: it stands for its network namespace.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(|error| refusal("a socket", &error))?;
    rustix::net::netdevice::name_to_index(socket, name).map_err(|error| format!("no interface `{name}`: {error}"))
}

/// The whole chain of what went wrong in one line, and what is missing when the kernel says no.
#[must_use]
pub fn refusal(step: &str, error: &dyn std::error::Error) -> String {
    let mut told = format!("{step}: {}", in_short(&error.to_string()));
    let mut cause = error.source();
    let mut denied = false;
    while let Some(inner) = cause {
        // EPERM is about who asks; EACCES is the verifier's, about what is asked.
        denied |= inner.downcast_ref::<std::io::Error>().is_some_and(|io| io.raw_os_error() == Some(1));
        let text = in_short(&inner.to_string());
        if !told.contains(&text) {
            told = format!("{told}: {text}");
        }
        cause = inner.source();
    }
    if denied { format!("needs CAP_BPF and CAP_NET_ADMIN: {told}") } else { told }
}

/// An error without the verifier's log, of which the last line says what is wrong, but for statistics.
fn in_short(text: &str) -> String {
    let statistics = ["verification time", "stack depth", "processed "];
    let Some((error, log)) = text.split_once(". Verifier output:") else {
        return text.lines().next().unwrap_or_default().to_owned();
    };
    let says = |line: &&str| !line.trim().is_empty() && !statistics.iter().any(|start| line.starts_with(start));
    match log.lines().rev().find(says) {
        Some(complaint) => format!("{error} (the verifier: {})", complaint.trim()),
        None => error.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_verifiers_log_the_complaint_is_told() {
        let text = "the BPF_PROG_LOAD syscall returned Permission denied (os error 13). Verifier output: 0: R1=ctx()\n\
                    21: (0f) r8 += r1\nR8 tried to add\nverification time 9 usec\nstack depth 32\nprocessed 2 insns (limit 9)\n";
        let wanted =
            "the BPF_PROG_LOAD syscall returned Permission denied (os error 13) (the verifier: R8 tried to add)";
        assert_eq!(in_short(text), wanted);
        assert_eq!(in_short("x. Verifier output: \nstack depth 3"), "x");
        assert_eq!(in_short("plain\nmore"), "plain");
    }

    #[test]
    fn what_is_missing_is_named() {
        #[derive(Debug)]
        struct Outer(std::io::Error);
        impl std::fmt::Display for Outer {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("outer")
            }
        }
        impl std::error::Error for Outer {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.0)
            }
        }
        let of = |errno| refusal("step", &Outer(std::io::Error::from_raw_os_error(errno)));
        assert_eq!(of(1), "needs CAP_BPF and CAP_NET_ADMIN: step: outer: Operation not permitted (os error 1)");
        assert_eq!(of(13), "step: outer: Permission denied (os error 13)");
    }
}
