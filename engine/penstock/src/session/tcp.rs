//! A TCP connection passed through: pick an endpoint, dial it, and join the two.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use policy::{Class, Outcome, Replay, StatusClass, Stop};
use ring::{Buf, Now, Timer};

use super::greeting::greet;
use super::hello::lead;
use super::{Accepted, Sessions};
use crate::conn::Transport;
use crate::exchange::{Door, Reason, Tunnelled, affinity_of_bytes, tunnel};
use crate::limits;
use crate::snapshot::{ListenerProtocol, PoolId};
use crate::telemetry::access_log::{Passed, port_of};
use crate::tls::Secured;
use crate::upstream::{Choice, Endpoint, Held, Repetition, Tried, policy_now, proxy_header};

/// Serves a connection until both ends have ended.
pub(super) async fn run(door: Rc<Door>, sessions: Rc<Sessions>, mut accepted: Accepted) {
    sessions.enter(&door);
    let held = accepted.held.take();
    let mut course = Course::of(&door, &accepted);
    pass(&door, accepted, &mut course).await;
    course.is_over = true;
    drop(course);
    sessions.leave(&door, held);
}

/// What the access log is told of a connection in the end, also when it is cut because the time of a drain is up.
struct Course<'a> {
    door: &'a Door,
    begun: Now,
    client: Option<IpAddr>,
    port: Option<u16>,
    pool: Option<PoolId>,
    endpoint: Option<Rc<Endpoint>>,
    tries: u8,
    /// Client and endpoint have been joined.
    joined: bool,
    tunnelled: Tunnelled,
    secured: Option<Secured>,
    status: u16,
    reason: &'static str,
    /// It has come to an end of its own.
    is_over: bool,
}

impl<'a> Course<'a> {
    /// Of a client that has connected, and has not been led anywhere.
    fn of(door: &'a Door, accepted: &Accepted) -> Self {
        Self {
            door,
            begun: ring::now(),
            client: accepted.address,
            port: port_of(accepted.address, accepted.path.map(|(from, _)| from)),
            pool: None,
            endpoint: None,
            tries: 0,
            joined: false,
            tunnelled: Tunnelled::default(),
            secured: None,
            status: 400,
            reason: "not-led",
            is_over: false,
        }
    }

    fn ends(&mut self, status: u16, reason: &'static str) {
        (self.status, self.reason) = (status, reason);
    }
}

impl Drop for Course<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        if !self.is_over {
            self.ends(if self.joined { 200 } else { 503 }, Reason::Drained.text());
        }
        let door = self.door;
        door.tell_passed(&Passed {
            protocol: "tcp",
            listener: &door.listener().name,
            client: self.client,
            port: self.port,
            pool: self.pool.map_or("", |pool| &door.snapshot[pool].name),
            upstream: self.endpoint.as_ref().map_or("", |endpoint| &endpoint.name),
            tries: self.tries,
            bytes_in: self.tunnelled.up,
            bytes_out: self.tunnelled.down,
            datagrams: None,
            duration: ring::now().since(self.begun),
            tls: self.secured.map(Into::into).unwrap_or_default(),
            status: self.status,
            reason: self.reason,
        });
    }
}

async fn pass(door: &Door, accepted: Accepted, course: &mut Course<'_>) {
    let Accepted { mut stream, address, path, mut unread, .. } = accepted;
    let mut timer = Timer::new();
    if stream.is_handshaking() && ring::pooled(greet(door, &mut stream, &mut timer)).await.is_err() {
        course.ends(400, "handshake-failed");
        return stream.linger(limits::FAREWELL, limits::LINGER_BYTES_MAX).await;
    }
    course.secured = stream.secured();
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
    course.pool = Some(pool);
    let paced = match door.admit_bytes(&mut stream, address, &mut timer).await {
        Ok(paced) => paced,
        Err(reason) => {
            course.ends(503, reason.text());
            return stream.reset();
        }
    };
    let settings = &door.snapshot[pool];
    let header = || proxy_header(settings.proxy_protocol, path);
    let Some(mut up) = reach(door, pool, address, &header, &mut timer, course).await else {
        door.cells.counters.no_endpoint_total.add(1);
        course.ends(502, Reason::NoEndpoint.text());
        return stream.reset();
    };
    let idle = settings.timeouts.idle;
    let (joined, tunnelled) = (&mut course.joined, &mut course.tunnelled);
    *joined = true;
    tunnel(door, &mut stream, &mut up.stream, unread, &mut timer, idle, paced.as_ref(), tunnelled).await;
    let tunnelled = *tunnelled;
    course.ends(200, if tunnelled.cut { "cut" } else { "" });
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
    course: &mut Course<'_>,
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
        (course.tries, course.endpoint) = (tries, Some(Rc::clone(&endpoint)));
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
