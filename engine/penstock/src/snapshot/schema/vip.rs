//! `[balance]`, `[[vip]]` and `[decap]`: balancing packets in the kernel, and the other end of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::XdpMode;
use crate::snapshot::address::{Bind, Cidr};
use crate::snapshot::literal::Listed;

/// The XDP balancer: an eBPF program that sends packets for each `vip` on to the endpoints of a pool, before the kernel has made anything of
/// them. Off unless `interfaces` names some.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BalanceDoc {
    /// The network interfaces whose packets it sees. Packets leave where the kernel's routes say, which is mostly the same one. The kernel must forward there
    /// (`net.ipv4.conf.NAME.forwarding`, `net.ipv6.conf.NAME.forwarding`). The shield may stand there as well, and sees packets first.
    pub interfaces: Vec<String>,
    /// `native`: in the driver. `generic`: behind it, in any; slower. `auto`: native where the driver has it, else generic.
    pub mode: XdpMode,
    /// An IPv4 and an IPv6 network that outer headers come from: their rest differs with the flow, so that the queues of a receiver share them. Receivers
    /// must let them in.
    pub source: Listed<Cidr>,
    /// The addresses that packets come from with `forward = "nat"`: of each family that VIPs have one at least, which this host has and uses for nothing else. Each can have 32,768
    /// flows of either protocol at one time.
    pub nat: Listed<Cidr>,
}

/// Where outer headers come from unless something else is said: what Katran takes, and addresses that nobody is reached at (RFC 6666).
fn outer_sources() -> Listed<Cidr> {
    Listed(["172.16.0.0/16", "100::/64"].iter().filter_map(|network| network.parse().ok()).collect())
}

impl Default for BalanceDoc {
    fn default() -> Self {
        Self { interfaces: Vec::new(), mode: XdpMode::default(), source: outer_sources(), nat: Listed::default() }
    }
}

/// A virtual address, whose packets the XDP balancer sends on to the endpoints of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "addr", "pool"]))]
pub struct VipDoc {
    /// What metrics and errors call it.
    pub name: String,
    /// Address and port, one or several: `192.0.2.1:443`, `[2001:db8::1]:443`. Endpoints must hold the addresses too (on `lo`, say) and serve the same port.
    pub addr: Listed<Bind>,
    /// `tcp` or `udp`.
    pub protocol: Transport,
    /// `ipip`: inside an IP packet. `gue`: inside a UDP datagram to port 6080, without a header of GUE's own (its variant 1). `dsr`: as it is, to the
    /// link-layer address of an endpoint that is on the same link. `nat`: from an address of [balance]'s `nat` to the endpoint's own address and port, and back again the same way, for endpoints that know nothing of
    /// VIPs.
    pub forward: Forward,
    /// Where to: the addresses of its endpoints. Their ports are only probed (with `nat` packets go there), and their weights count.
    pub pool: String,
    /// What clients speak is QUIC, and endpoints are machines of a fleet of Penstock: a packet goes to the one that its connection's id names, wherever its client is by now. The ids are read
    /// with the fleet's `engine.quic.secrets`, which this machine must have too, and endpoints say which server each is: `10.0.0.11:443 server=1`. With `nat`, only flows that are new are led so.
    pub quic: bool,
}

/// What a VIP's packets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    #[default]
    Tcp,
    Udp,
}

impl Transport {
    /// As it is written.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// How a VIP's packets reach their endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Forward {
    #[default]
    Ipip,
    Gue,
    Dsr,
    Nat,
}

impl Forward {
    /// As it is written.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::Gue => "gue",
            Self::Dsr => "dsr",
            Self::Nat => "nat",
        }
    }
}

/// The balancer's counterpart where endpoints are: takes outer headers off that a balancer has put on. Off unless `interfaces` names some.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DecapDoc {
    /// The network interfaces whose packets it sees. Not those of the balancer; the shield may stand there as well, and sees packets first.
    pub interfaces: Vec<String>,
    /// `native`: in the driver. `generic`: behind it, in any; slower. `auto`: native where the driver has it, else generic.
    pub mode: XdpMode,
    /// The addresses that packets inside are for: those of VIPs. All others are left to the kernel as they come.
    pub addresses: Listed<Cidr>,
    /// An IPv4 and an IPv6 network that outer headers come from, as the balancer's `source`. What comes from elsewhere for `addresses` is dropped.
    pub source: Listed<Cidr>,
}

impl Default for DecapDoc {
    fn default() -> Self {
        Self { interfaces: Vec::new(), mode: XdpMode::default(), addresses: Listed::default(), source: outer_sources() }
    }
}
