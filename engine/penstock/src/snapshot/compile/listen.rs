//! Listeners, compiled.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::time::Duration;

use super::qos::{Class, ClassId, class_named};
use super::sni::SniTable;
use super::tls::{ListenerTls, listener_tls};
use super::{Networks, PoolId, networks, time};
use crate::snapshot::address::Bind;
use crate::snapshot::also::Also;
use crate::snapshot::schema::{Congestion, ListenDoc, Protocol};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    pub name: Box<str>,
    pub addresses: Box<[Bind]>,
    /// What comes here too, though it is not bound.
    pub also: Box<[Also]>,
    pub protocol: ListenerProtocol,
    /// Empty, unless the protocol is [`ListenerProtocol::Sni`].
    pub sni: SniTable,
    /// Requests that one connection of HTTP/2 may have under way; `None`: it does not speak it.
    pub http2_streams: Option<u16>,
    /// `None`: it does not speak HTTP/3.
    pub http3: Option<Http3>,
    /// `None`: it speaks without TLS.
    pub tls: Option<ListenerTls>,
    pub max_connections: u32,
    /// Over all workers.
    pub max_connections_per_client: Option<u32>,
    pub backlog: u32,
    /// Peers whose connections begin with a PROXY header.
    pub proxy_protocol_from: Networks,
    /// Peers whose forwarding fields are kept.
    pub trusted: Networks,
    /// The field in which those may name a request's class, in lower case.
    pub class_header: Option<Box<str>>,
    /// Of connections whose bytes are passed through; `None`: that of the client's network.
    pub class: Option<ClassId>,
    /// Whether the access log is told of what comes through it.
    pub log: bool,
    pub handshake_timeout: Duration,
    pub head_timeout: Duration,
    pub keep_alive_timeout: Duration,
    pub body_timeout: Duration,
    /// Bytes a second that a client sends at the least.
    pub body_rate: Option<NonZeroU64>,
}

/// HTTP/3 of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http3 {
    /// Requests that one connection may have under way.
    pub streams: u16,
    pub congestion: Congestion,
    /// Datagrams of requests are taken (RFC 9297).
    pub datagrams: bool,
    /// For how long clients of other versions are told of it; `None`: they are not.
    pub advertised: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerProtocol {
    /// Each request is routed.
    Http,
    /// Bytes go to this pool.
    Tcp { pool: PoolId },
    /// Datagrams go to this pool.
    Udp { pool: PoolId, flows: Flows },
    /// Bytes go where the name says that TLS begins with, or here.
    Sni { otherwise: Option<PoolId> },
}

impl ListenerProtocol {
    /// It has no connections.
    #[must_use]
    pub const fn is_udp(self) -> bool {
        matches!(self, Self::Udp { .. })
    }

    /// Its datagrams may go in fragments where they do not fit. Those of QUIC must not (RFC 9000 §14).
    #[must_use]
    pub const fn fragments(self) -> bool {
        matches!(self, Self::Udp { flows, .. } if !flows.quic)
    }
}

/// What flows of datagrams are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flows {
    /// How long one may be silent.
    pub idle: Duration,
    /// Replies to each datagram; `None`: any number, or none.
    pub replies: Option<u32>,
    /// Clients that move stay with their endpoints, by the ids of their connections.
    pub quic: bool,
}

impl Listener {
    /// Its sockets would be the same.
    #[must_use]
    pub fn is_bound_as(&self, other: &Self) -> bool {
        self.addresses == other.addresses
            && self.backlog == other.backlog
            && self.protocol.is_udp() == other.protocol.is_udp()
            && self.http3.is_some() == other.http3.is_some()
    }

    /// It has sockets of UDP.
    #[must_use]
    pub fn has_datagrams(&self) -> bool {
        self.protocol.is_udp() || self.http3.is_some()
    }

    /// Which of its addresses has a socket that can take connections of a family.
    #[must_use]
    pub fn taker(&self, is_v4: bool) -> Option<usize> {
        self.addresses.iter().position(|address| address.takes(is_v4))
    }

    /// Networks and ports whose datagrams come here too, each with one port.
    pub fn further_datagrams(&self) -> impl Iterator<Item = Also> {
        self.also.iter().filter(|_| self.has_datagrams()).flat_map(|also| also.for_datagrams())
    }

    /// Addresses that it has sockets of UDP at, beside its own: one for each family's port that its own are not bound to, in the first network of those that it
    /// is wanted in. Nobody else has it there.
    #[must_use]
    pub fn further_ports(&self) -> Vec<SocketAddr> {
        further_ports(&self.addresses, self.further_datagrams())
    }

    /// How HTTP/3 is advertised to clients of other versions (`Alt-Svc`, RFC 7838 §3): on the same host, at the listener's port. `None` where it
    /// is not, or where the listener has ports of several numbers: it is told to all in the same words, at whichever they came in.
    #[must_use]
    pub fn alternative(&self) -> Option<String> {
        let seconds = self.http3.as_ref()?.advertised?.as_secs();
        let own = self.addresses.iter().filter_map(Bind::port).map(|port| (port, port));
        let mut ports = own.chain(self.also.iter().map(|also| (also.first, also.last)));
        let (port, _) = ports.next()?;
        ports.all(|other| other == (port, port)).then(|| format!("h3=\":{port}\"; ma={seconds}"))
    }
}

/// As [`Listener::further_ports`], of a listener at these addresses.
pub(in crate::snapshot) fn further_ports(addresses: &[Bind], wanted: impl Iterator<Item = Also>) -> Vec<SocketAddr> {
    let mut further: Vec<SocketAddr> = Vec::new();
    for Also { network, first: port, .. } in wanted {
        let is_v4 = network.network().is_ipv4();
        let is_bound = addresses.iter().any(|address| address.takes(is_v4) && address.port() == Some(port))
            || further.iter().any(|at| at.is_ipv4() == is_v4 && at.port() == port);
        if !is_bound {
            further.push(SocketAddr::new(network.network(), port));
        }
    }
    further
}

pub(super) fn listener(doc: &ListenDoc, classes: &[Class], pool_id: impl Fn(&str) -> PoolId) -> Listener {
    Listener {
        name: doc.name.as_str().into(),
        addresses: doc.addr.0.as_slice().into(),
        also: doc.also.0.as_slice().into(),
        protocol: match (doc.protocol, &doc.pool) {
            (Protocol::Tcp, pool) if !doc.sni.is_empty() => {
                ListenerProtocol::Sni { otherwise: pool.as_deref().map(&pool_id) }
            }
            (Protocol::Tcp, Some(pool)) => ListenerProtocol::Tcp { pool: pool_id(pool) },
            (Protocol::Udp, Some(pool)) => {
                let flows = Flows { idle: time(&doc.udp.idle), replies: doc.udp.replies, quic: doc.udp.quic };
                ListenerProtocol::Udp { pool: pool_id(pool), flows }
            }
            _ => ListenerProtocol::Http,
        },
        sni: SniTable::new(&doc.sni, &pool_id),
        http2_streams: (doc.http2.enabled && doc.protocol == Protocol::Http).then_some(doc.http2.streams as u16),
        http3: (doc.http3.enabled && doc.protocol == Protocol::Http && listener_tls(&doc.tls).is_some()).then(|| {
            Http3 {
                streams: doc.http3.streams as u16,
                congestion: doc.http3.congestion,
                datagrams: doc.http3.datagrams,
                advertised: Some(time(&doc.http3.advertise)).filter(|advertised| !advertised.is_zero()),
            }
        }),
        tls: listener_tls(&doc.tls),
        max_connections: doc.max_connections,
        max_connections_per_client: doc.max_connections_per_client,
        backlog: doc.backlog,
        proxy_protocol_from: networks(&doc.proxy_protocol.from),
        trusted: networks(&doc.trusted),
        class_header: doc.class_header.as_ref().map(|name| name.to_ascii_lowercase().into()),
        class: doc.class.as_deref().and_then(|name| class_named(classes, name)),
        log: doc.log,
        handshake_timeout: time(&doc.timeout.handshake),
        head_timeout: time(&doc.timeout.head),
        keep_alive_timeout: time(&doc.timeout.keep_alive),
        body_timeout: time(&doc.timeout.body),
        body_rate: doc.timeout.body_rate.0.0.and_then(|rate| NonZeroU64::new(rate.0)),
    }
}
