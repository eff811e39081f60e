//! A TCP connection passed through: pick an endpoint, dial it, and join the two.

use policy::{Ask, Avoid, Class, Outcome, StatusClass};
use proto::proxy;
use ring::{Buf, Timer};

use super::Accepted;
use crate::exchange::{Door, tunnel};
use crate::snapshot::{PoolId, ProxyProtocol};
use crate::upstream::policy_now;

pub(super) async fn run(door: &Door, accepted: Accepted, pool: PoolId, mut timer: Timer) {
    let Accepted { mut stream, path, unread, .. } = accepted;
    let settings = &door.snapshot[pool];
    let cluster = door.cluster(pool);
    let counters = &door.cells.counters;
    cluster.count_request(policy_now(ring::now()));
    let mut ask = Ask { avoid: Avoid::default() };
    for _ in 0..settings.retry.tries {
        let begun = ring::now();
        let Some(endpoint) = cluster.pick(&ask, policy_now(begun)) else { break };
        counters.upstream_connects_total.add(1);
        let dialled = cluster.dial(endpoint, settings, &mut timer).await;
        let class = dialled.as_ref().map_or_else(Class::from, |_| Class::Answered(StatusClass::Success));
        let outcome = Outcome::new(ring::now().since(begun), class);
        match dialled {
            Ok(mut up) => {
                let lead = proxy_header(settings.proxy_protocol, path);
                if let Some(lead) = lead {
                    up.send(lead);
                }
                let idle = settings.timeouts.idle;
                let tunnelled = tunnel(door, &mut stream, &mut up, unread, None, &mut timer, idle).await;
                if tunnelled.cut {
                    stream.reset();
                    up.reset();
                }
                return cluster.record(endpoint, policy_now(ring::now()), &outcome);
            }
            Err(_) => {
                counters.upstream_connect_failures_total.add(1);
                cluster.record(endpoint, policy_now(ring::now()), &outcome);
                ask.avoid.add(endpoint);
                if !cluster.withdraw_retry(policy_now(ring::now())) {
                    counters.retries_refused_total.add(1);
                    break;
                }
                counters.retries_total.add(1);
            }
        }
    }
    counters.no_endpoint_total.add(1);
    stream.reset();
}

fn proxy_header(version: ProxyProtocol, path: Option<(std::net::SocketAddr, std::net::SocketAddr)>) -> Option<Buf> {
    let mut header = Vec::with_capacity(proxy::LENGTH_MAX);
    match version {
        ProxyProtocol::Off => return None,
        ProxyProtocol::V1 => proxy::write_v1(path, &mut header),
        ProxyProtocol::V2 => proxy::write_v2(path, &mut header),
    }
    Some(Buf::copy_of(&header))
}
