//! `[engine]` and `[log]`: the process as a whole, and what it writes down.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shield::XdpMode;
use crate::snapshot::address::{Address, Cidr};
use crate::snapshot::endpoint::Nameserver;
use crate::snapshot::literal::{Cores, Listed, ServerPolicy, Spin, Text, Time, ViaName};
use crate::snapshot::quantity::Size;

/// The process as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "snake_case")]
pub struct EngineDoc {
    /// The CPUs to work on, one worker each. `auto`: every CPU the process may use, as taskset, cpuset and systemd left it.
    pub cores: Text<Cores>,
    /// How to talk to the kernel. `auto`: io_uring where it is allowed, else epoll.
    pub driver: Driver,
    /// How connections find their worker. `auto`: the least loaded of two, by an eBPF program where it can be loaded; else workers hand over what is too much. `off`: the kernel's hash alone.
    pub steering: Steering,
    /// Where `penstock show` and `set`, `/metrics` and `/status` are served, to whoever can reach it: loopback or `unix:PATH`. None unless given.
    pub admin: Listed<Address>,
    /// How long exchanges may go on after SIGTERM before they are cut.
    pub drain_timeout: DrainTimeout,
    /// The DNS servers that resolve endpoints' names as they are written. Those of `/etc/resolv.conf`, with its search list, unless given.
    pub resolver: Listed<Nameserver>,
    /// What a worker does before it blocks for want of work: `auto` spins up to 100 µs where that has lately cost no more CPU time
    /// than to sleep, or up to a quarter more and half as much again was done.
    pub spin: Text<Spin>,
    /// Our name in the `Via` field of what we forward, or `off` for no such field.
    pub via: Text<ViaName>,
    /// What becomes of a response's `Server` field.
    pub server: Text<ServerPolicy>,
    /// The directory of the cgroup v2 to which `same_host` of pools is limited: the engine and those endpoints must be in it. All of the host unless given.
    pub same_host_cgroup: Option<String>,
    /// TCP that is passed through, and what follows upgrades.
    pub tunnel: TunnelDoc,
    /// QUIC, under HTTP/3, of all listeners.
    pub quic: QuicDoc,
    /// AF_XDP: datagrams of HTTP/3 and of `udp` listeners past the kernel's UDP, on one interface. Off unless `interface` names it.
    pub af_xdp: AfXdpDoc,
}

/// AF_XDP for datagrams with clients.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AfXdpDoc {
    /// The network interface by which datagrams for listeners with HTTP/3 and of `udp` come and go past the kernel's UDP: an eBPF program gives them to the workers, and answers leave as frames, to where their clients' last packet came from.
    /// Neither the firewall nor packet captures nor routes of the host see them; all else stays the kernel's. The shield and the balancer may stand there as well, and see packets first. None unless given.
    pub interface: Option<String>,
    /// `native`: in the driver. `generic`: behind it, in any; slower. `auto`: native where the driver has it, else generic.
    pub mode: XdpMode,
}

/// TCP that is passed through, and what follows upgrades.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TunnelDoc {
    /// Whether large streams that are in the clear on both sides go through a pipe of the kernel's (`splice(2)`), which costs less than copying them. `auto`: once a direction has brought
    /// 256 KiB in large pieces, while a pipe is free, and unless it keeps to a pace. `off`: everything is copied; for kernels whose `splice` is not trusted, and to see what it is worth.
    pub splice: Splice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Splice {
    #[default]
    Auto,
    Off,
}

/// QUIC of all listeners.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QuicDoc {
    /// A file of secrets that the machines of a fleet share, and a process with the one that comes after it: connection ids, tokens and stateless resets of one can then be read by all. A line
    /// each: a number from 0 to 6, and 64 hexadecimal digits. The first is in use, the others are still read. Relative to this file; without it each process has secrets of its own.
    pub secrets: Option<String>,
    /// Which machine of the fleet this is, for connection ids.
    pub server: u16,
    /// Whether a datagram that the kernel gave to another worker than its connection's is brought to that one. `false` shows what it is worth: where no program steers, clients that move are lost.
    pub pass_on: bool,
}

impl Default for QuicDoc {
    fn default() -> Self {
        Self { secrets: None, server: 0, pass_on: true }
    }
}

/// A time whose default is 30 s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct DrainTimeout(pub Text<Time>);

impl Default for DrainTimeout {
    fn default() -> Self {
        Self(Text::secs(30))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Driver {
    #[default]
    Auto,
    Uring,
    Epoll,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Steering {
    #[default]
    Auto,
    Off,
}

/// What is written down.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogDoc {
    /// The access log: a line an exchange.
    pub access: AccessDoc,
    /// qlog: a file a connection of HTTP/3, of clients and endpoints that are asked about. Off unless `folder` names one.
    pub qlog: QlogDoc,
}

/// The access log: a line an exchange.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AccessDoc {
    /// The file to append to, `-` for standard output, or `off`.
    pub path: String,
    /// `json`: an object a line. `common`: the Common Log Format of Apache and nginx.
    pub format: AccessFormat,
}

impl Default for AccessDoc {
    fn default() -> Self {
        Self { path: "off".into(), format: AccessFormat::default() }
    }
}

/// qlog (draft-ietf-quic-qlog-main-schema, version 0.3 as JSON-SEQ): what happened on each connection of HTTP/3 with a client or an endpoint that is asked
/// about: packets, loss, congestion, moves, frames. Neither fields nor content are in it. Off unless `folder` names one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QlogDoc {
    /// Where the files go, each named after the connection id that its client chose first, which towards endpoints are we; made if it is not there.
    /// Those that are there already count among `files`.
    pub folder: Option<String>,
    /// Whose connections are written down from the start: clients', and those that requests make to endpoints. `penstock set qlog NETWORK on` says so of
    /// others while the engine runs, and `off` ends it for connections from then on.
    pub peers: Listed<Cidr>,
    /// How many files there may be: the one begun first goes when another one is begun. So many connections may also be written down at a time;
    /// further ones are not, and counted.
    pub files: u32,
    /// How long each file may become; what happens after that is not written, and counted.
    pub file_max: Text<Size>,
}

impl Default for QlogDoc {
    fn default() -> Self {
        Self { folder: None, peers: Listed::default(), files: 64, file_max: Text(Size(4 << 20)) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AccessFormat {
    #[default]
    Json,
    Common,
}
