//! A TCP connection passed through: pick an endpoint, dial it, and join the two.

use std::rc::Rc;

use policy::{Class, Outcome, StatusClass};
use ring::{Stream, Timer};

use super::{Accepted, Sessions};
use crate::exchange::{Door, tunnel};
use crate::snapshot::PoolId;
use crate::upstream::{Endpoint, Tried, policy_now, proxy_header};

/// Serves a connection until both ends have ended.
pub(super) async fn run(door: Rc<Door>, sessions: Rc<Sessions>, accepted: Accepted, pool: PoolId) {
    sessions.enter(&door);
    pass(&door, accepted, pool).await;
    sessions.leave(&door);
}

async fn pass(door: &Door, accepted: Accepted, pool: PoolId) {
    let Accepted { mut stream, path, unread, .. } = accepted;
    let mut timer = Timer::new();
    let settings = &door.snapshot[pool];
    let Some(mut up) = reach(door, pool, &mut timer).await else {
        door.cells.counters.no_endpoint_total.add(1);
        return stream.reset();
    };
    if let Some(header) = proxy_header(settings.proxy_protocol, path) {
        up.stream.send(header);
    }
    let idle = settings.timeouts.idle;
    let tunnelled = tunnel(door, &mut stream, &mut up.stream, unread, None, &mut timer, idle).await;
    door.cells.counters.bytes_out_total.add(tunnelled.down);
    door.cluster(pool).record(&up.endpoint, policy_now(ring::now()), &up.outcome);
    if tunnelled.cut {
        stream.reset();
        up.stream.reset();
    }
}

/// A connection to an endpoint that has taken it.
struct Reached {
    stream: Stream,
    endpoint: Rc<Endpoint>,
    outcome: Outcome,
}

async fn reach(door: &Door, pool: PoolId, timer: &mut Timer) -> Option<Reached> {
    let settings = &door.snapshot[pool];
    let cluster = door.cluster(pool);
    let counters = &door.cells.counters;
    cluster.count_request(policy_now(ring::now()));
    let mut tried = Tried::default();
    for left in (0..settings.retry.tries).rev() {
        let begun = ring::now();
        let endpoint = cluster.pick(&tried, policy_now(begun))?;
        let dialled = cluster.dial(&endpoint, settings.timeouts.connect, timer, counters).await;
        let class = dialled.as_ref().map_or_else(Class::from, |_| Class::Answered(StatusClass::Success));
        let outcome = Outcome::new(ring::now().since(begun), class);
        if let Ok(stream) = dialled {
            return Some(Reached { stream, endpoint, outcome });
        }
        cluster.record(&endpoint, policy_now(ring::now()), &outcome);
        tried.add(&endpoint);
        if left == 0 || !settings.retry.on_connect {
            break;
        }
        if !cluster.withdraw_retry(policy_now(ring::now())) {
            counters.retries_refused_total.add(1);
            break;
        }
        counters.retries_total.add(1);
    }
    None
}
