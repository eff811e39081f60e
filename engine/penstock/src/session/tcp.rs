//! A TCP connection passed through: pick an endpoint, dial it, and join the two.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use policy::{Class, Outcome, Replay, StatusClass, Stop};
use ring::{Buf, Timer};

use super::greeting::greet;
use super::hello::lead;
use super::{Accepted, Sessions};
use crate::conn::Transport;
use crate::exchange::{Door, affinity_of_bytes, tunnel};
use crate::limits;
use crate::snapshot::{ListenerProtocol, PoolId};
use crate::upstream::{Choice, Endpoint, Held, Repetition, Tried, policy_now, proxy_header};

/// Serves a connection until both ends have ended.
pub(super) async fn run(door: Rc<Door>, sessions: Rc<Sessions>, mut accepted: Accepted) {
    sessions.enter(&door);
    let held = accepted.held.take();
    pass(&door, accepted).await;
    sessions.leave(&door, held);
}

async fn pass(door: &Door, accepted: Accepted) {
    let Accepted { mut stream, address, path, mut unread, .. } = accepted;
    let mut timer = Timer::new();
    if stream.is_handshaking() && ring::pooled(greet(door, &mut stream, &mut timer)).await.is_err() {
        return stream.linger(limits::FAREWELL, limits::LINGER_BYTES_MAX).await;
    }
    let pool = match door.listener().protocol {
        ListenerProtocol::Tcp { pool } => pool,
        ListenerProtocol::Sni { otherwise } => {
            let led = ring::pooled(lead(door, &mut stream, &mut unread, otherwise, &mut timer));
            match led.await {
                Some(pool) => pool,
                None => return stream.linger(limits::FAREWELL, limits::LINGER_BYTES_MAX).await,
            }
        }
        ListenerProtocol::Http | ListenerProtocol::Udp { .. } => return,
    };
    let Ok(paced) = door.admit_bytes(&mut stream, address, &mut timer).await else { return stream.reset() };
    let settings = &door.snapshot[pool];
    let header = || proxy_header(settings.proxy_protocol, path);
    let Some(mut up) = reach(door, pool, address, &header, &mut timer).await else {
        door.cells.counters.no_endpoint_total.add(1);
        return stream.reset();
    };
    let idle = settings.timeouts.idle;
    let tunnelled = tunnel(door, &mut stream, &mut up.stream, unread, &mut timer, idle, paced.as_ref()).await;
    door.cells.counters.bytes_out_total.add(tunnelled.down);
    door.cluster(pool).record(&up.endpoint, policy_now(ring::now()), &up.outcome);
    if tunnelled.cut {
        stream.reset();
        up.stream.reset();
    }
}

/// A connection to an endpoint that has taken it.
struct Reached {
    stream: Transport,
    endpoint: Rc<Endpoint>,
    outcome: Outcome,
    _held: Held,
}

/// `header` is the first that an endpoint hears.
async fn reach(
    door: &Door,
    pool: PoolId,
    client: Option<IpAddr>,
    header: &impl Fn() -> Option<Buf>,
    timer: &mut Timer,
) -> Option<Reached> {
    let settings = &door.snapshot[pool];
    let cluster = door.cluster(pool);
    let counters = &door.cells.counters;
    let affinity = affinity_of_bytes(settings, client);
    cluster.count_request(policy_now(ring::now()));
    let (mut tried, mut waited) = (Tried::default(), Duration::ZERO);
    for tries in 1..=settings.retry.policy.tries {
        let begun = ring::now();
        let choice = Choice { tried: &tried, affinity: &affinity, repeatable: true, once: false };
        let endpoint = cluster.pick(&choice, policy_now(begun), counters).ok()?;
        let dialled = cluster.dial(&endpoint, None, header(), settings.timeouts.connect, timer, counters).await;
        let class = dialled.as_ref().map_or_else(Class::from, |_| Class::Answered(StatusClass::Success));
        let outcome = Outcome::new(ring::now().since(begun), class);
        if let Ok((stream, held)) = dialled {
            return Some(Reached { stream, endpoint, outcome, _held: held });
        }
        cluster.record(&endpoint, policy_now(ring::now()), &outcome);
        let elsewhere = cluster.has_other(&tried, &endpoint, policy_now(ring::now()));
        let repetition = Repetition { outcome: &outcome, replay: Replay::Unsent, tries, waited, elsewhere };
        match cluster.repeats(&settings.retry.policy, &repetition, policy_now(ring::now())) {
            Ok(after) => waited = after,
            Err(Stop::Budget) => {
                counters.retries_refused_total.add(1);
                break;
            }
            Err(_) => break,
        }
        tried.add(&endpoint);
        counters.retries_total.add(1);
        if !waited.is_zero() {
            ring::sleep(waited).await;
        }
    }
    None
}
