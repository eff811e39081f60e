//! An endpoint for a new flow, and a socket of its own towards it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use policy::{Class, Outcome};
use ring::{Now, UdpOptions, UdpSocket};

use super::Flow;
use crate::exchange::{Door, affinity_of_bytes};
use crate::limits;
use crate::snapshot::PoolId;
use crate::upstream::{Choice, Cluster, Endpoint, Held, Tried, policy_now};

/// An endpoint for a flow, and a socket towards it.
pub(super) fn reach(door: &Door, pool: PoolId, client: IpAddr) -> Option<Flow> {
    let (settings, cluster) = (&door.snapshot[pool], door.cluster(pool));
    let begun = ring::now();
    let affinity = affinity_of_bytes(settings, Some(client));
    cluster.count_request(policy_now(begun));
    let mut tried = Tried::default();
    for _ in 0..settings.retry.policy.tries {
        let choice = Choice { tried: &tried, affinity: &affinity, repeatable: true, once: false };
        let endpoint = cluster.pick(&choice, policy_now(begun), &door.cells.counters).ok()?;
        if let Some(flow) = flow_to(cluster, &endpoint, begun, door.listener().protocol.fragments()) {
            return Some(flow);
        }
        tried.add(&endpoint);
    }
    None
}

/// A flow to an endpoint that was picked for it.
pub(super) fn flow_to(cluster: &Cluster, endpoint: &Rc<Endpoint>, begun: Now, fragments: bool) -> Option<Flow> {
    let flow = open(endpoint, fragments).map(|way| Flow::new(Rc::clone(endpoint), way, begun));
    if flow.is_err() {
        // No socket, or no address: nothing was asked of it.
        cluster.record(endpoint, policy_now(begun), &Outcome::new(Duration::ZERO, Class::Shed));
    }
    flow.ok()
}

fn open(endpoint: &Endpoint, fragments: bool) -> io::Result<(UdpSocket, SocketAddr, Held)> {
    let to = endpoint.addresses().iter().find_map(ring::Address::inet).ok_or(io::ErrorKind::AddrNotAvailable)?;
    let held = endpoint.hold().ok_or(io::ErrorKind::QuotaExceeded)?;
    let any = match to {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    let (receive_buffer, send_buffer) = (limits::FLOW_BUFFER, limits::FLOW_BUFFER);
    let options = UdpOptions { reuse_port: false, fragments, receive_buffer, send_buffer, ..UdpOptions::default() };
    Ok((UdpSocket::bind(SocketAddr::new(any, 0), &options)?, to, held))
}
