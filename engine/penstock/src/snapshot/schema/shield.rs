//! `[shield]`: what is dropped before it costs a socket.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::snapshot::address::Cidr;
use crate::snapshot::literal::{Listed, Text, Time};
use crate::snapshot::quantity::Rate;

/// The XDP shield: an eBPF program that drops packets on the interfaces named here before the kernel has made anything of them. Off unless
/// `interfaces` names some.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ShieldDoc {
    /// The network interfaces whose packets it sees.
    pub interfaces: Vec<String>,
    /// `native`: in the driver. `generic`: behind it, in any; slower. `auto`: native where the driver has it, else generic.
    pub mode: XdpMode,
    /// Nothing is dropped, and what would be is counted.
    pub dry_run: bool,
    /// Whether packets to a listener's port that nobody can have meant are dropped: TCP flags that no stack sends, port 0, multicast sources.
    pub drop_malformed: bool,
    /// Networks whose packets are never judged, whatever other lists say.
    pub allow: Listed<Cidr>,
    /// Networks whose packets are dropped, whatever port they go to.
    pub deny: Listed<Cidr>,
    /// Files with more of them, one a line, `#` before a comment; read again when they change.
    pub deny_files: Vec<String>,
    /// Packets that each source (an IPv4 address, or an IPv6 /64) may send to listeners' ports.
    pub packets: ShieldRateDoc,
    /// TCP connections that each source may open: its SYNs.
    pub syns: ShieldRateDoc,
    /// `auto`: while a listener's queue of half-open connections is full, SYNs are answered in XDP with the kernel's cookies; the interface has
    /// to send what XDP answers. `off`: the kernel answers them, as `net.ipv4.tcp_syncookies` says.
    pub syn_cookies: SynCookies,
    /// QUIC connections that each source may open with listeners of HTTP/3: its Initials, of which a client repeats what is lost.
    pub initials: ShieldRateDoc,
    /// Who is turned away by a route's `limit` too often is dropped for a while.
    pub over_limit: OverLimitDoc,
}

impl Default for ShieldDoc {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            mode: XdpMode::default(),
            dry_run: false,
            drop_malformed: true,
            allow: Listed::default(),
            deny: Listed::default(),
            deny_files: Vec::new(),
            packets: ShieldRateDoc::default(),
            syns: ShieldRateDoc::default(),
            syn_cookies: SynCookies::default(),
            initials: ShieldRateDoc::default(),
            over_limit: OverLimitDoc::default(),
        }
    }
}

/// Where in the kernel a program of XDP stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum XdpMode {
    #[default]
    Auto,
    Native,
    Generic,
}

/// Whether the shield answers SYNs when there is no room to remember them; else the kernel does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SynCookies {
    #[default]
    Off,
    Auto,
}

/// How much each source may send.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ShieldRateDoc {
    /// In the long run. None unless given.
    pub rate: Option<Text<Rate>>,
    /// At once; a second's worth unless given, and at least one.
    pub burst: Option<u32>,
}

/// Who is dropped for not heeding a limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OverLimitDoc {
    /// A client whose requests are turned away by limits with `key = "client-address"` more often than this is dropped. Nobody unless given.
    pub rate: Option<Text<Rate>>,
    /// How many may be turned away at once; a second's worth unless given.
    pub burst: Option<u32>,
    /// For how long it is dropped, each time.
    #[serde(rename = "for")]
    pub deny_for: Text<Time>,
}

impl Default for OverLimitDoc {
    fn default() -> Self {
        Self { rate: None, burst: None, deny_for: Text::secs(10) }
    }
}
