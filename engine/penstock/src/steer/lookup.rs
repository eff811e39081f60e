//! Addresses and ports that come to a listener though nobody has bound them: a `sk_lookup` program in the network namespace (Linux 5.9).
//!
//! Sockets of a listener's group stand in its map, one a worker; it gives the first that is open, and among the group the kernel chooses behind the program as
//! always, by ours where it steers.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use abi::{Found, RULE_SOCKETS_MAX, RULE_WORDS, RULES_MAX, Rule};
use aya::maps::{Array, MapData, SockMap};
use aya::programs::SkLookup;
use aya::{Ebpf, EbpfLoader};

use crate::bpf::{self, refusal};
use crate::snapshot::Also;

/// Built by `cargo xtask ebpf` and committed; CI compares it with its source.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../../ebpf/lookup/lookup.o");

/// What comes to a group of sockets that have not bound it.
pub struct Led<'a> {
    pub also: Also,
    /// One of each worker.
    pub to: Vec<BorrowedFd<'a>>,
}

/// The program at work. Dropping it detaches it.
pub struct Lookup {
    ebpf: Ebpf,
}

impl Lookup {
    /// Loads the program, and nothing more: to see whether it may be.
    ///
    /// # Errors
    /// A sentence for the operator: which step was refused, and what that needs.
    pub fn load() -> Result<Self, String> {
        Self::for_sockets(1)
    }

    fn for_sockets(count: u32) -> Result<Self, String> {
        let loaded = EbpfLoader::new().btf(None).map_max_entries("SOCKETS", count.max(1)).load(OBJECT);
        let mut lookup = Self { ebpf: loaded.map_err(|error| refusal("maps", &error))? };
        lookup.program()?.load().map_err(|error| refusal("program", &error))?;
        Ok(lookup)
    }

    /// From now on connections come to these listening sockets, the first that fits to the first, and so do datagrams to those of UDP.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn lead(connections: &[Led<'_>], datagrams: &[Led<'_>]) -> Result<Self, String> {
        let all = || [(0, connections), (RULES_MAX as u32, datagrams)];
        let count: usize = all().iter().flat_map(|(_, led)| led.iter()).map(|led| led.to.len()).sum();
        let mut lookup = Self::for_sockets(count as u32)?;
        let mut stands = 0;
        for (first, led) in all() {
            for (at, Led { also, to }) in (first..).zip(led.iter().take(RULES_MAX)) {
                let to = &to[..to.len().min(RULE_SOCKETS_MAX as usize)];
                let mut sockets: SockMap<&mut MapData> = bpf::map(&mut lookup.ebpf, "SOCKETS")?;
                for (place, socket) in (stands..).zip(to) {
                    sockets.set(place, socket, 0).map_err(|error| refusal("sockets", &error))?;
                }
                let mut table: Array<&mut MapData, [u32; RULE_WORDS]> = bpf::map(&mut lookup.ebpf, "RULES")?;
                let rule = Rule { socket: stands, sockets: to.len() as u32, ..rule(also) };
                table.set(at, rule.words(), 0).map_err(|error| refusal("rules", &error))?;
                stands += to.len() as u32;
            }
        }
        let namespace = File::open("/proc/self/ns/net").map_err(|error| format!("/proc/self/ns/net: {error}"))?;
        lookup.program()?.attach(namespace.as_fd()).map_err(|error| refusal("attaching", &error))?;
        Ok(lookup)
    }

    fn program(&mut self) -> Result<&mut SkLookup, String> {
        bpf::program(&mut self.ebpf, "lookup")
    }

    /// How often what was found, over all CPUs.
    #[must_use]
    pub fn found(&self) -> Vec<(&'static str, u64)> {
        let count = |found: Found| {
            let [count] = bpf::sum(&self.ebpf, "FOUND", found as u32);
            count
        };
        Found::ALL.iter().map(|found| (found.name(), count(*found))).collect()
    }
}

/// A rule as the program reads it, without its sockets: an address in the order of the wire, IPv4 as `::ffff:a.b.c.d`.
fn rule(also: &Also) -> Rule {
    let (address, bits) = match also.network.network() {
        IpAddr::V4(address) => (address.to_ipv6_mapped(), 96 + u32::from(also.network.bits())),
        IpAddr::V6(address) => (address, u32::from(also.network.bits())),
    };
    let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    Rule {
        network: bpf::words((u128::from(address) & mask).into()),
        mask: bpf::words(mask.into()),
        first: also.first.into(),
        last: also.last.into(),
        ..Rule::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(also: &str, address: &str, port: u32) -> bool {
        let address = match address.parse::<IpAddr>().unwrap() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        rule(&also.parse().unwrap()).takes(bpf::words(address), port)
    }

    #[test]
    fn networks_and_ports_are_as_they_are_written() {
        for (also, address, port, wanted) in [
            ("192.0.2.0/24:443", "192.0.2.77", 443, true),
            ("192.0.2.0/24:443", "192.0.2.77", 444, false),
            ("192.0.2.0/24:443", "192.0.3.1", 443, false),
            ("192.0.2.1:8000-8999", "192.0.2.1", 8000, true),
            ("192.0.2.1:8000-8999", "192.0.2.1", 8999, true),
            ("192.0.2.1:8000-8999", "192.0.2.1", 9000, false),
            ("192.0.2.1:*", "192.0.2.2", 80, false),
            ("0.0.0.0/0:80", "8.8.8.8", 80, true),
            ("0.0.0.0/0:80", "2001:db8::1", 80, false),
            ("[2001:db8::/33]:80", "2001:db8:7fff::1", 80, true),
            ("[2001:db8::/33]:80", "2001:db8:8000::1", 80, false),
            ("[::/0]:*", "2001:db8::1", 65_535, true),
        ] {
            assert_eq!(takes(also, address, port), wanted, "{also}: {address} {port}");
        }
        assert_eq!(rule(&"0.0.0.0/0:1".parse().unwrap()).mask[3], 0);
    }
}
