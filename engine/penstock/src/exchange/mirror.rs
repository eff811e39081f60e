//! Copies of requests for another pool, whose answers nobody sees.
//!
//! What holds here: the original never waits for its copy. A copy is made of bytes that pass by anyway, leaves when the
//! original's last byte has, and is a task of its own with a time of its own. Copies are few
//! ([`limits::MIRRORS_MAX`] a worker) and short ([`limits::MIRROR_BODY_BYTES_MAX`]); what would be more is not copied, and counted.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use policy::{Class, Outcome, StatusClass};
use proto::h1::{Client, Trailers};
use proto::http::{Fields, Framing, Method};
use ring::{Buf, Timer};

use super::door::Desk;
use super::headers;
use super::route::{Matched, Way};
use super::{Door, Peer, Request, upgrade};
use crate::conn::{Broken, Lane, Read};
use crate::limits;
use crate::snapshot::{PoolId, Snapshot};
use crate::telemetry::WorkerCells;
use crate::upstream::{Affinity, Choice, Cluster, Endpoint, Tried, Wanted, policy_now};

/// A copy in the making: one of those that a worker may have at a time.
pub(super) struct Copy {
    permit: Permit,
    body: Vec<u8>,
}

/// The right to one copy.
struct Permit {
    desk: Rc<Desk>,
    cells: Arc<WorkerCells>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.desk.mirrors.set(self.desk.mirrors.get() - 1);
        self.cells.counters.mirrors_open.sub(1);
    }
}

/// Begins a copy of this request, if its route has a mirror and the request falls in its share.
pub(super) fn begin(door: &Door, request: &Request, matched: &Matched<'_>) -> Option<Box<Copy>> {
    let mirror = matched.route.mirror.as_ref()?;
    let (head, desk) = (&request.head, &door.desk);
    if upgrade::leaves_http(request) || desk.random.borrow_mut().below(100) >= u64::from(mirror.share.0) {
        return None;
    }
    let too_long = matches!(head.framing, Framing::Length(length) if length > limits::MIRROR_BODY_BYTES_MAX as u64);
    if too_long || desk.mirrors.get() >= limits::MIRRORS_MAX || desk.draining.get() {
        door.cells.counters.mirrors_dropped_total.add(1);
        return None;
    }
    desk.mirrors.set(desk.mirrors.get() + 1);
    door.cells.counters.mirrors_open.add(1);
    let permit = Permit { desk: Rc::clone(desk), cells: Arc::clone(&door.cells) };
    Some(Box::new(Copy { permit, body: Vec::new() }))
}

impl Copy {
    /// Takes in a piece of content; false when the copy would become too long, and shall be dropped.
    pub(super) fn take(&mut self, piece: &[u8]) -> bool {
        if self.body.len() + piece.len() > limits::MIRROR_BODY_BYTES_MAX {
            self.permit.cells.counters.mirrors_dropped_total.add(1);
            return false;
        }
        self.body.extend_from_slice(piece);
        true
    }

    /// The original has left: the copy follows.
    pub(super) fn launch(self, door: &Door, request: &Request, peer: &Peer, way: &Way<'_>) {
        let Some(mirror) = &way.matched.route.mirror else { return };
        let target = &mirror.target;
        let now = policy_now(ring::now());
        let cluster = Rc::clone(&door.clusters[usize::from(target.pool.0)]);
        // Nobody misses the answer to a copy: it may try endpoints that are doubtful.
        let choice = Choice { tried: &Tried::default(), affinity: &Affinity::default(), repeatable: true, once: false };
        let Ok(endpoint) = cluster.pick(&choice, now, &door.cells.counters) else {
            return door.cells.counters.mirrors_dropped_total.add(1);
        };
        let way = way.only(target);
        let framing = match request.head.framing {
            Framing::None => Framing::None,
            _ => Framing::Length(self.body.len() as u64),
        };
        let Some(head) =
            headers::request_head(door, request, peer, &way, &endpoint.authority, Some(framing), |head| head.to_text())
        else {
            cluster.record(&endpoint, now, &Outcome::new(Duration::ZERO, Class::Shed));
            return door.cells.counters.mirrors_dropped_total.add(1);
        };
        door.cells.counters.mirrors_total.add(1);
        let shadow = Shadow {
            snapshot: Arc::clone(&door.snapshot),
            pool: target.pool,
            cluster,
            endpoint,
            path: peer.path(),
            connect: target.timeouts.connect,
            patience: target.timeouts.connect + target.timeouts.head,
            method: request.head.method,
            framing,
            head,
            copy: self,
        };
        ring::spawn(shadow.run());
    }
}

/// A copy on its way.
struct Shadow {
    snapshot: Arc<Snapshot>,
    pool: PoolId,
    cluster: Rc<Cluster>,
    endpoint: Rc<Endpoint>,
    path: Option<(SocketAddr, SocketAddr)>,
    connect: Duration,
    patience: Duration,
    method: Method,
    framing: Framing,
    head: Buf,
    copy: Copy,
}

impl Shadow {
    async fn run(self) {
        let begun = ring::now();
        let (cluster, endpoint, cells) =
            (Rc::clone(&self.cluster), Rc::clone(&self.endpoint), Arc::clone(&self.copy.permit.cells));
        let class = ring::until(begun + self.patience, self.exchange()).await.unwrap_or(Class::TimedOut);
        let now = ring::now();
        cluster.record(&endpoint, policy_now(now), &Outcome::new(now.since(begun), class));
        cells.counters.mirrors_failed_total.add(u64::from(!matches!(class, Class::Answered(_))));
    }

    /// Sends the copy and hears its answer out.
    async fn exchange(self) -> Class {
        let Self { snapshot, pool, cluster, endpoint, path, connect, method, framing, head, copy, .. } = self;
        let (pool, counters) = (&snapshot[pool], &copy.permit.cells.counters);
        let mut timer = Timer::new();
        let short = (head.len() + copy.body.len()) as u64 <= limits::SAME_HOST_REQUEST_MAX;
        let wanted = Wanted { endpoint: &endpoint, pool, connect, fresh: false, upgrade: false, short, path };
        let mut lease = match cluster.lease(wanted, &mut timer, &copy.permit.cells).await {
            Ok(lease) => lease,
            Err(error) => return (&error).into(),
        };
        let Ok(lead) = lease.ask_as(method, framing, head) else { return Class::Shed };
        let mut lane = lease.lane();
        if !send(&mut lane, lead, &copy.body) {
            return Class::Shed;
        }
        let mut content = 0;
        let class = answer(&mut lane, &mut content).await;
        if matches!(class, Class::Answered(_)) {
            cluster.give_back(lease, pool, content as u64, counters);
        }
        class
    }
}

fn send(lane: &mut Lane<'_, Client>, lead: Option<Buf>, body: &[u8]) -> bool {
    let mut content = (!body.is_empty()).then(|| Buf::copy_of(body));
    let framed = content.as_mut().is_none_or(|content| lane.frame(content).is_ok());
    if !framed || lane.end(Trailers::default(), &mut Vec::new()).is_err() {
        return false;
    }
    lead.into_iter().chain(content).for_each(|piece| lane.send(piece));
    true
}

/// Reads an answer to its end, or to as much as is worth the connection.
async fn answer(lane: &mut Lane<'_, Client>, content: &mut usize) -> Class {
    let mut fields = Fields::with_limit(limits::FIELDS_MAX);
    let mut status = 0;
    loop {
        match poll_fn(|cx| lane.poll_read(cx, &mut fields)).await {
            Ok(Read::Head(head)) => {
                lane.skip_head(head.length as usize);
                status = head.status.code();
            }
            Ok(Read::Data(data)) => {
                *content += data.len();
                if *content > limits::MIRROR_ANSWER_BYTES_MAX {
                    break;
                }
            }
            Ok(Read::End) => {
                lane.settle(&mut fields);
                break;
            }
            Ok(Read::Tunnel | Read::Closed(_)) | Err(Broken::Io(_)) if status < 200 => return Class::Reset,
            Ok(Read::Tunnel | Read::Closed(_)) | Err(Broken::Io(_)) => return Class::Truncated,
            Err(Broken::Malformed(_)) => return Class::Malformed,
        }
    }
    Class::Answered(StatusClass::of(status))
}
