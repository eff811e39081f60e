//! `[balance]`, `[[vip]]` and `[decap]`, compiled.

use std::net::{IpAddr, SocketAddr};

use super::PoolId;
use crate::snapshot::address::{Bind, Cidr};
use crate::snapshot::literal::Listed;
use crate::snapshot::schema::{BalanceDoc, DecapDoc, Forward, Transport, VipDoc, XdpMode};

/// The XDP balancer, on at least one interface and with at least one VIP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balancer {
    pub interfaces: Box<[Box<str>]>,
    pub mode: XdpMode,
    pub source: OuterSource,
    /// Where packets come from whose addresses are rewritten.
    pub nat: Box<[IpAddr]>,
    pub vips: Box<[Vip]>,
}

/// A virtual address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vip {
    pub name: Box<str>,
    pub addresses: Box<[SocketAddr]>,
    pub protocol: Transport,
    pub forward: Forward,
    pub pool: PoolId,
    /// Ids of QUIC connections are read.
    pub quic: bool,
}

/// The decapsulator, on at least one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decap {
    pub interfaces: Box<[Box<str>]>,
    pub mode: XdpMode,
    pub addresses: Box<[IpAddr]>,
    pub source: OuterSource,
}

/// Where outer headers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OuterSource {
    pub v4: Cidr,
    pub v6: Cidr,
}

impl Default for OuterSource {
    fn default() -> Self {
        source(&BalanceDoc::default().source)
    }
}

pub(super) fn balance(doc: &BalanceDoc, vips: &[VipDoc], pool_id: impl Fn(&str) -> PoolId) -> Option<Balancer> {
    let vip = |doc: &VipDoc| Vip {
        name: doc.name.as_str().into(),
        addresses: doc.addr.0.iter().filter_map(socket_address).collect(),
        protocol: doc.protocol,
        forward: doc.forward,
        pool: pool_id(&doc.pool),
        quic: doc.quic,
    };
    let interfaces = names(&doc.interfaces);
    let stands = !interfaces.is_empty() && !vips.is_empty();
    stands.then(|| Balancer {
        interfaces,
        mode: doc.mode,
        source: source(&doc.source),
        nat: doc.nat.0.iter().map(Cidr::network).collect(),
        vips: vips.iter().map(vip).collect(),
    })
}

pub(super) fn decap(doc: &DecapDoc) -> Option<Decap> {
    let interfaces = names(&doc.interfaces);
    (!interfaces.is_empty()).then(|| Decap {
        interfaces,
        mode: doc.mode,
        addresses: doc.addresses.0.iter().map(Cidr::network).collect(),
        source: source(&doc.source),
    })
}

fn names(interfaces: &[String]) -> Box<[Box<str>]> {
    interfaces.iter().map(|name| name.as_str().into()).collect()
}

fn socket_address(bind: &Bind) -> Option<SocketAddr> {
    match bind {
        Bind::Tcp(address) => Some(*address),
        Bind::Any { .. } | Bind::Unix(_) => None,
    }
}

fn source(listed: &Listed<Cidr>) -> OuterSource {
    let of = |is_v4: bool| listed.0.iter().find(|network| network.network().is_ipv4() == is_v4).copied();
    let [v4, v6] = [true, false].map(|is_v4| of(is_v4).expect("`meaning` found one of each family"));
    OuterSource { v4, v6 }
}
