//! `[[listen]]`: where connections come in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::tls::TlsDoc;
use crate::limits;
use crate::snapshot::address::{Bind, Cidr};
use crate::snapshot::alpn::AlpnName;
use crate::snapshot::also::Also;
use crate::snapshot::literal::{Listed, Text, Time};
use crate::snapshot::quantity::{Bandwidth, LeastRate};
use crate::snapshot::route::HostPattern;

/// A door: where connections come in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "addr"]))]
pub struct ListenDoc {
    /// What logs, metrics and errors call it.
    pub name: String,
    /// Where to listen: one address or several. `:8080` is every address of the host, IPv4 and IPv6.
    pub addr: Listed<Bind>,
    /// Further networks and ports whose connections and datagrams come to this door though it is bound to none of them, by an eBPF program (Linux 5.9, CAP_BPF and CAP_NET_ADMIN). The host must
    /// take packets for them, as `ip route add local 192.0.2.0/24 dev lo` makes it. Who listens at such an address itself is not asked any more. 64 in all. For HTTP/3 and `udp` doors each port that
    /// `addr` has not is a socket a worker, bound in the first of its networks: 16 ports an entry and 64 networks with a port in all. An entry with more ports is TCP's alone.
    pub also: Listed<Also>,
    /// `http`: requests are routed. `tcp`: bytes are passed through, to `pool` or where `sni` says. `udp`: datagrams are, to `pool`.
    pub protocol: Protocol,
    /// Flows of a `udp` door: what one client's address and port sends to it, and the replies.
    pub udp: UdpDoc,
    /// The pool that a `tcp` or `udp` door leads to; with `sni`, those who ask for none of its names.
    pub pool: Option<String>,
    /// Where a `tcp` door leads clients that begin TLS, by the name that they ask for (SNI) and what they offer to speak (ALPN). It is not
    /// ended here: bytes are passed through as they come. Of several that take a client the one with the most exact host counts, and of those
    /// one with `alpn`. Who is nobody's
    /// goes to `pool`; without that, the connection is refused.
    pub sni: Vec<SniDoc>,
    /// HTTP/2 with clients of an `http` door, who choose it by ALPN over TLS, and by beginning with it where there is no TLS.
    pub http2: Http2Doc,
    /// HTTP/3 with clients of an `http` door with TLS, on the UDP port of the same number.
    pub http3: Http3Doc,
    /// TLS with clients. Off unless `cert` or `certificates` is given.
    pub tls: TlsDoc,
    /// Connections at one time; beyond that new ones wait in the backlog. Flows of a `udp` door count as such; beyond that new ones are dropped.
    pub max_connections: u32,
    /// Connections of one client (IPv6: one /64) at one time, over all workers; further ones are closed at once. No limit unless given.
    pub max_connections_per_client: Option<u32>,
    /// Connections that may wait to be accepted; the kernel clips it to net.core.somaxconn.
    pub backlog: u32,
    /// Who may say on whose behalf it connects.
    pub proxy_protocol: ProxyProtocolFrom,
    /// Proxies whose `X-Forwarded-*` and `Forwarded` fields are kept and added to. From anybody else they are replaced.
    pub trusted: Listed<Cidr>,
    /// The field in which `trusted` clients name the class of a request. From anybody else it says nothing.
    pub class_header: Option<String>,
    /// The class of a `tcp` door's connections and of a `udp` door's flows: how fast their bytes go (`bandwidth`), and how fast they begin (`rate`). Unless given,
    /// it is that of the client's network, or `default`.
    pub class: Option<String>,
    /// Whether what comes through it has lines in the access log: each request of an `http` door, each connection of a `tcp` door and each flow of a `udp`
    /// door once it is over.
    pub log: bool,
    /// How long a client may take.
    pub timeout: ListenTimeouts,
}

impl Default for ListenDoc {
    fn default() -> Self {
        Self {
            name: String::new(),
            addr: Listed::default(),
            also: Listed::default(),
            protocol: Protocol::default(),
            udp: UdpDoc::default(),
            pool: None,
            sni: Vec::new(),
            http2: Http2Doc::default(),
            http3: Http3Doc::default(),
            tls: TlsDoc::default(),
            max_connections: limits::CONNECTIONS_DEFAULT,
            max_connections_per_client: None,
            backlog: limits::BACKLOG_DEFAULT,
            proxy_protocol: ProxyProtocolFrom::default(),
            trusted: Listed::default(),
            class_header: None,
            class: None,
            log: true,
            timeout: ListenTimeouts::default(),
        }
    }
}

/// Where a `tcp` door leads clients of some names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["pool"]))]
pub struct SniDoc {
    /// Names: `api.example.net`, `*.example.net` for everything below it, `*` for any and for none.
    pub host: Listed<HostPattern>,
    /// Protocols, by their names of ALPN, such as `h2` or `acme-tls/1`: clients that offer none of them are not meant. Any, unless given.
    pub alpn: Listed<AlpnName>,
    /// Where they are led.
    pub pool: String,
}

impl Default for SniDoc {
    fn default() -> Self {
        Self { host: Listed(vec![HostPattern::Any]), alpn: Listed::default(), pool: String::new() }
    }
}

impl ListenDoc {
    /// The pools that bytes, or datagrams, are passed through to.
    pub fn pools_of_bytes(&self) -> impl Iterator<Item = &str> {
        let led = self.pool.as_deref().into_iter().chain(self.sni.iter().map(|rule| &*rule.pool));
        led.filter(|_| self.protocol != Protocol::Http)
    }
}

/// HTTP/2 with clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Http2Doc {
    /// Whether it is spoken.
    pub enabled: bool,
    /// Requests that one connection may have under way at a time. RFC 9113 §6.5.2 asks for 100 at least.
    pub streams: u32,
}

impl Default for Http2Doc {
    fn default() -> Self {
        Self { enabled: true, streams: proto::h2::Limits::DEFAULT.streams.into() }
    }
}

/// HTTP/3 with clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Http3Doc {
    /// Whether it is spoken. Where there is no TLS it is not.
    pub enabled: bool,
    /// Requests that one connection may have under way at a time. RFC 9114 §6.1 asks for 100 at least.
    pub streams: u32,
    /// How much is sent before it is acknowledged: `cubic` (RFC 9438), as TCP does; `newreno` (RFC 9002), which is gentler; `bbr`, which measures bandwidth and
    /// goes on through loss that is no congestion, and is experimental.
    pub congestion: Congestion,
    /// Whether datagrams of requests are taken (RFC 9297), as UDP by CONNECT has them (RFC 9298): those of an extended CONNECT that is granted, but for
    /// WebSockets, go on to an endpoint of HTTP/3 that takes them too. Where the endpoint takes none, or speaks another version, they become capsules, and its
    /// capsules that are datagrams become such.
    pub datagrams: bool,
    /// How long clients of HTTP/1 and 2 may remember that HTTP/3 is spoken here (`Alt-Svc`, RFC 7838). Zero: they are not told.
    pub advertise: Text<Time>,
}

impl Default for Http3Doc {
    fn default() -> Self {
        Self {
            enabled: true,
            streams: 100,
            congestion: Congestion::default(),
            datagrams: false,
            advertise: Text::secs(24 * 60 * 60),
        }
    }
}

/// Flows of datagrams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UdpDoc {
    /// How long a flow may be silent in both directions before it is forgotten, and the client's next datagram begins another one. One that
    /// was never replied to has ten seconds at the most: whoever lies about its address holds nothing for long.
    pub idle: Text<Time>,
    /// Replies to each datagram: 1 for DNS, RADIUS, NTP. A flow is over with the last of them, and an endpoint that owes some in the end has
    /// failed, for its breaker and for outlier detection. Unless given, any number may come, or none.
    pub replies: Option<u32>,
    /// What clients speak is QUIC: one that comes from another port or address than before (a NAT has forgotten it) goes to the endpoint that knows
    /// its connection, by the id that the endpoint has told it with the handshake. Without it such a client goes wherever the pool's policy says.
    pub quic: bool,
}

impl Default for UdpDoc {
    fn default() -> Self {
        Self { idle: Text::secs(60), replies: None, quic: false }
    }
}

/// What decides how much is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Congestion {
    #[default]
    Cubic,
    NewReno,
    Bbr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    #[default]
    Http,
    Tcp,
    Udp,
}

impl Protocol {
    /// As it is written.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Who may say on whose behalf it connects.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProxyProtocolFrom {
    /// Networks whose connections must begin with a PROXY header (v1 or v2). From elsewhere none is accepted.
    pub from: Listed<Cidr>,
}

/// How long a client may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ListenTimeouts {
    /// From accepting the connection to TLS being agreed upon, where there is TLS.
    pub handshake: Text<Time>,
    /// From the first byte of a request, or from accepting the connection, to the end of its head. Where `sni` counts, from accepting to the
    /// end of a ClientHello.
    pub head: Text<Time>,
    /// Between two requests of one connection.
    pub keep_alive: Text<Time>,
    /// Between two pieces of a body, in either direction. For bytes that are passed through, the pool's `timeout.idle` counts.
    pub body: Text<Time>,
    /// The least rate at which a client sends content whose length it has told, after five seconds and on average: who sends a byte
    /// now and then holds an endpoint's connection for hours. What the endpoint does not take in time is not held against it.
    pub body_rate: Text<LeastRate>,
}

impl Default for ListenTimeouts {
    fn default() -> Self {
        Self {
            handshake: Text::secs(10),
            head: Text::secs(10),
            keep_alive: Text::secs(75),
            body: Text::secs(60),
            body_rate: Text(LeastRate(Some(Bandwidth(limits::BODY_RATE_DEFAULT)))),
        }
    }
}
