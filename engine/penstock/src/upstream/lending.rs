//! Idle connections that go to a worker that may make none.
//!
//! Where an endpoint has a limit of connections, all of its places may be held by connections that lie idle at other workers. A worker that
//! finds it so asks the one with the most of them (`EndpointShared::richest`), and is sent a connection, its place with it. TLS has a state that stays
//! where it is: there one is closed instead, and its place is free. An exchange that ends while another worker wants a connection sends its
//! own over unasked.
//!
//! What holds here:
//! * A connection changes hands while nothing moves on it (`ring::Stream::detach`), or is closed. Its place goes with it, so an endpoint never has more
//!   than it may.
//! * Nobody waits for an answer: requests wait in the pool's queue, which is told when something has come. What was used meanwhile, or found no
//!   room on the way, is asked for again at the queue's next look.
//! * One question a worker and endpoint is out at a time.
//!
//! Deliberately absent: connections of HTTP/2 and 3, which many requests share already; those that name their client (PROXY protocol), which
//! never lie idle.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use ring::{Sender, Socket};

use super::lease::Own;
use super::pool::Idle;
use super::{Cluster, Endpoint, EndpointShared, Held};
use crate::conn::Conn;
use crate::limits;
use crate::snapshot::{Pool, PoolId, PoolProtocol, ProxyProtocol, Reuse, Snapshot};
use crate::telemetry::{Counters, WorkerCells};

/// The ways between workers, until those have taken them up.
pub struct Lending {
    workers: usize,
    /// By who sends, then by who receives.
    ways: Box<[Mutex<Option<Sender<Letter>>>]>,
}

/// What a worker says to another one.
enum Letter {
    /// It may make no connection to this endpoint, and asks for one.
    Ask { pool: PoolId, endpoint: Arc<EndpointShared> },
    /// It lets the other one have this; nothing: it had none that can move.
    Lent { pool: PoolId, endpoint: Arc<EndpointShared>, lent: Option<Lent> },
}

/// An idle connection between two workers.
struct Lent {
    socket: Socket,
    requests: u32,
    made: ring::Now,
    since: ring::Now,
    near: bool,
    held: Held,
}

/// A pool's end of the ways.
#[derive(Clone)]
pub(super) struct Lender {
    pool: PoolId,
    post: Rc<Post>,
}

/// A worker's end of them.
struct Post {
    own: usize,
    lending: Arc<Lending>,
    to: RefCell<Vec<Option<Sender<Letter>>>>,
    cells: Arc<WorkerCells>,
}

/// Who opens a worker's letters.
struct Clerk {
    clusters: Rc<[Rc<Cluster>]>,
    snapshot: Arc<Snapshot>,
    cells: Arc<WorkerCells>,
    arrived: Box<dyn Fn(PoolId)>,
}

impl Lending {
    #[must_use]
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self { workers, ways: (0..workers * workers).map(|_| Mutex::default()).collect() })
    }

    fn way(&self, from: usize, to: usize) -> std::sync::MutexGuard<'_, Option<Sender<Letter>>> {
        self.ways[from * self.workers + to].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// From now on worker `own` lends idle connections and borrows them, for pools whose endpoints have limits; `arrived` is called when
/// a pool's endpoint may have a place again. On the worker's own ring. What is sent to a worker that has not joined yet is lost.
pub fn join(
    lending: &Arc<Lending>,
    own: usize,
    clusters: &Rc<[Rc<Cluster>]>,
    snapshot: &Arc<Snapshot>,
    cells: &Arc<WorkerCells>,
    arrived: impl Fn(PoolId) + 'static,
) {
    clusters.iter().for_each(|cluster| drop(cluster.lender.take()));
    if lending.workers < 2 || !snapshot.pools.iter().any(lends) {
        return;
    }
    let to = RefCell::new((0..lending.workers).map(|_| None).collect());
    let post = Rc::new(Post { own, lending: Arc::clone(lending), to, cells: Arc::clone(cells) });
    for (at, cluster) in clusters.iter().enumerate().filter(|(at, _)| lends(&snapshot.pools[*at])) {
        cluster.lender.replace(Some(Lender { pool: PoolId(at as u16), post: Rc::clone(&post) }));
    }
    let clerk = Rc::new(Clerk {
        clusters: Rc::clone(clusters),
        snapshot: Arc::clone(snapshot),
        cells: Arc::clone(cells),
        arrived: Box::new(arrived),
    });
    for from in (0..lending.workers).filter(|&from| from != own) {
        let (sender, mut letters) = ring::mailbox(limits::LENDING_MAX);
        *lending.way(from, own) = Some(sender);
        let clerk = Rc::clone(&clerk);
        ring::spawn(async move {
            while let Some(letter) = letters.recv().await {
                ring::spawn(Rc::clone(&clerk).open(letter, from));
            }
        });
    }
}

/// Its connections carry one request at a time, whoever's, and may be too few.
fn lends(pool: &Pool) -> bool {
    let alone = pool.protocol == PoolProtocol::Http11 && pool.proxy_protocol == ProxyProtocol::Off;
    alone && pool.admission.by_endpoint
}

impl Post {
    /// False when there is no room for it: what was in it is gone.
    fn send(&self, to: usize, letter: Letter) -> bool {
        let mut ways = self.to.borrow_mut();
        let way = &mut ways[to];
        if way.is_none() {
            *way = self.lending.way(self.own, to).take();
        }
        way.as_mut().is_some_and(|way| way.send(letter).is_ok())
    }
}

impl Lender {
    fn give(&self, to: usize, endpoint: &Endpoint, lent: Option<Lent>) {
        let counters = &self.post.cells.counters;
        let gone = lent.is_some();
        let letter = Letter::Lent { pool: self.pool, endpoint: Arc::clone(&endpoint.shared), lent };
        match (gone, self.post.send(to, letter)) {
            (true, true) => counters.upstream_lent_total.add(1),
            (true, false) => counters.upstream_discarded_total.add(1),
            (false, _) => {}
        }
    }
}

impl Clerk {
    async fn open(self: Rc<Self>, letter: Letter, from: usize) {
        let (Letter::Ask { pool, ref endpoint } | Letter::Lent { pool, ref endpoint, .. }) = letter;
        let cluster = &self.clusters[usize::from(pool.0)];
        let (counters, reuse) = (&self.cells.counters, &self.snapshot[pool].reuse);
        let named = cluster.endpoints().iter().find(|one| Arc::ptr_eq(&one.shared, endpoint)).map(Rc::clone);
        match letter {
            Letter::Ask { .. } => {
                let Some(lender) = cluster.lender() else { return };
                // Who has left the list here will leave it there in a moment: the next question finds nobody to ask about.
                let Some(endpoint) = named else { return };
                let lent = endpoint.part_with(reuse, counters).await;
                lender.give(from, &endpoint, lent);
            }
            Letter::Lent { lent, .. } => {
                let Some(endpoint) = named else { return };
                if let Some(lent) = lent {
                    endpoint.adopt(lent, reuse, counters).await;
                }
                endpoint.asked.set(None);
                (self.arrived)(pool);
            }
        }
    }
}

impl Cluster {
    /// Idle connections go to other workers that need them.
    pub(super) fn lends(&self) -> bool {
        self.lender.borrow().is_some()
    }

    fn lender(&self) -> Option<Lender> {
        self.lender.borrow().clone()
    }

    /// Asks for connections to those endpoints that were found full for want of an idle one.
    pub(super) fn borrow(&self) {
        let Some(Lender { pool, post }) = self.lender() else { return };
        for endpoint in self.endpoints().iter().filter(|endpoint| endpoint.lacks_idle.take()) {
            let now = ring::now();
            let waits = endpoint.asked.get().is_some_and(|asked| now.since(asked) < limits::LENDING_WAIT);
            let Some(richest) = endpoint.shared.richest(post.own).filter(|_| !waits) else { continue };
            if post.send(richest, Letter::Ask { pool, endpoint: Arc::clone(&endpoint.shared) }) {
                endpoint.asked.set(Some(now));
            }
        }
    }

    /// Another worker wants a connection more than this one needs this one.
    pub(super) fn send_over(&self, endpoint: &Rc<Endpoint>, idle: Idle, to: usize, counters: &Counters) {
        let Some(lender) = self.lender() else {
            counters.upstream_discarded_total.add(1);
            return;
        };
        let endpoint = Rc::clone(endpoint);
        ring::spawn(async move {
            let lent = Lent::of(idle).await;
            lender.post.cells.counters.upstream_discarded_total.add(u64::from(lent.is_none()));
            lender.give(to, &endpoint, lent);
        });
    }
}

impl Endpoint {
    /// An idle connection for another worker. One that cannot move is closed: its place is of use, too.
    async fn part_with(&self, reuse: &Reuse, counters: &Counters) -> Option<Lent> {
        let idle = self.pop_idle(reuse, |_| true, counters)?;
        let lent = Lent::of(idle).await;
        counters.upstream_discarded_total.add(u64::from(lent.is_none()));
        lent
    }

    /// Takes in what another worker has lent.
    async fn adopt(&self, lent: Lent, reuse: &Reuse, counters: &Counters) {
        let Lent { socket, requests, made, since, near, held } = lent;
        let mut own = Own { conn: Conn::new(socket.into_stream()), requests, made, near, held };
        own.conn.stream.watch();
        // What has come on the way is seen before a request could take it for its answer.
        ring::yield_now().await;
        if !self.keeps_connections() || self.idle.borrow().len() >= reuse.max_idle as usize {
            counters.upstream_discarded_total.add(1);
            return;
        }
        counters.upstream_borrowed_total.add(1);
        self.borrowed();
        self.park(Idle { own, since }, counters);
    }
}

impl Lent {
    /// `None`, and it is closed: it has TLS on it, or something has come.
    async fn of(idle: Idle) -> Option<Self> {
        let Idle { own: Own { conn, requests, made, near, held }, since } = idle;
        let socket = conn.stream.into_stream()?.detach().await?;
        Some(Self { socket, requests, made, since, near, held })
    }
}

#[cfg(test)]
mod tests;
