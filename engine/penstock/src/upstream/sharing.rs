//! Connections of HTTP/2 and HTTP/3 to an endpoint, each shared by many exchanges of one worker.
//!
//! What holds here: a request goes over the fullest connection that takes one more, so that those which a load no longer needs fall idle and
//! end; while a connection is being made nobody makes another one; one that is too old, has carried enough or says nothing is left
//! in peace (GOAWAY) and not used again. Where the pool may choose, HTTP/3 is used as soon as it is there, and made beside what goes on
//! without it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use proto::h1::Client;
use proto::h2::Limits;
use proto::http::AltSvc;
use ring::{Now, TaskRef, Timer};

use super::alternative::Alternative;
use super::dial::call;
use super::endpoint::Endpoint;
use super::lease::{Lease, Wire};
use super::shared::Held;
use super::{Cluster, DialError, Wanted};
use crate::conn::{Asks, Ended, Multiplex, Multiplexed, Stream, Transport, h3};
use crate::limits;
use crate::snapshot::{PoolProtocol, Reuse};
use crate::telemetry::WorkerCells;
use crate::tls::Failure;

/// An endpoint's shared connections.
#[derive(Default)]
pub(super) struct Sharing {
    open: RefCell<Vec<Rc<Shared>>>,
    /// Connections that are being made.
    dialling: Cell<u32>,
    /// Those that have been made, or given up.
    dialled: Cell<u64>,
    /// The last one that was asked chose HTTP/1.
    wants_http1: Cell<bool>,
    /// Who waits for them.
    waiting: RefCell<Vec<TaskRef>>,
    /// What it says of its HTTP/3.
    pub(super) alternative: Alternative,
}

/// A connection that has just been made, by what the endpoint wants.
enum Made {
    Shared(Connection, Held),
    Own(Transport, Held),
}

struct Shared {
    connection: Connection,
    made: Now,
    requests: Cell<u32>,
}

#[derive(Clone)]
enum Connection {
    H2(Multiplex<Client>),
    H3(h3::Multiplex<Client>),
}

impl Connection {
    fn can_ask(&self) -> bool {
        match self {
            Self::H2(connection) => connection.can_ask(),
            Self::H3(connection) => connection.can_ask(),
        }
    }

    /// The more, the better is the next request placed on it: HTTP/3 before all others, of which there are some only where it came later.
    fn rank(&self) -> (bool, usize) {
        match self {
            Self::H2(connection) => (false, connection.streams()),
            Self::H3(connection) => (true, connection.streams()),
        }
    }

    fn drain(&self) {
        match self {
            Self::H2(connection) => connection.drain(),
            Self::H3(connection) => connection.drain(),
        }
    }

    /// One exchange's way over it.
    fn wire(&self) -> Wire {
        match self.clone() {
            Self::H2(connection) => Wire::H2(Stream::unasked(connection)),
            Self::H3(connection) => Wire::H3(h3::Stream::unasked(connection)),
        }
    }
}

impl Sharing {
    /// There is a connection.
    pub(super) fn is_open(&self) -> bool {
        !self.open.borrow().is_empty()
    }

    /// How many more connections are to be made ready, when so many are wanted: of those that requests share, one is enough.
    pub(super) fn lacks(&self, wanted: usize, idle: usize, warming: usize) -> usize {
        if self.wants_http1.get() {
            wanted.saturating_sub(idle + warming)
        } else {
            usize::from(!self.is_open()).saturating_sub(warming + self.dialling.get() as usize)
        }
    }

    /// A stream of the fullest connection that takes one more.
    fn take(&self, reuse: &Reuse) -> Option<Wire> {
        let open = self.open.borrow();
        let worn = |one: &Shared| {
            reuse.max_requests.is_some_and(|most| one.requests.get() >= most)
                || reuse.max_age.is_some_and(|most| ring::now().since(one.made) >= most)
        };
        open.iter().filter(|one| worn(one)).for_each(|one| one.connection.drain());
        let usable = open.iter().filter(|one| one.connection.can_ask());
        let fullest = usable.max_by_key(|one| one.connection.rank())?;
        fullest.requests.set(fullest.requests.get() + 1);
        Some(fullest.connection.wire())
    }

    /// Lets all connections end when what is under way on them has ended.
    pub(super) fn drain(&self) {
        self.open.borrow().iter().for_each(|one| one.connection.drain());
    }

    /// Waits until a connection that is being made is there, or is not to be had.
    async fn dialled(&self, deadline: Now, timer: &mut Timer) -> Result<(), DialError> {
        self.waiting.borrow_mut().push(ring::current_task());
        // One that began meanwhile is another one, and whoever waits for that would have to be told of it.
        let before = self.dialled.get();
        timer.set(deadline);
        poll_fn(|_| {
            if self.dialled.get() != before {
                Poll::Ready(Ok(()))
            } else if timer.poll_expired() {
                Poll::Ready(Err(DialError::TimedOut))
            } else {
                Poll::Pending
            }
        })
        .await
    }

    /// A connection that has just been made is open for requests, of which it carries so many.
    fn begin(
        endpoint: &Rc<Endpoint>,
        connection: Connection,
        requests: u32,
        held: Held,
        idle: Duration,
        cells: &Arc<WorkerCells>,
    ) {
        let shared = Rc::new(Shared { connection, made: ring::now(), requests: Cell::new(requests) });
        endpoint.sharing.open.borrow_mut().push(Rc::clone(&shared));
        let (endpoint, cells) = (Rc::clone(endpoint), Arc::clone(cells));
        ring::spawn(async move {
            let counters = &cells.counters;
            counters.upstream_shared.add(1);
            match shared.connection.clone() {
                Connection::H2(connection) => pump(endpoint, shared, connection, held, idle, &cells).await,
                Connection::H3(connection) => {
                    counters.upstream_h3.add(1);
                    pump(endpoint, shared, connection, held, idle, &cells).await;
                    counters.upstream_h3.sub(1);
                }
            }
            counters.upstream_shared.sub(1);
        });
    }

    fn remove(&self, gone: &Rc<Shared>) {
        self.open.borrow_mut().retain(|one| !Rc::ptr_eq(one, gone));
    }
}

/// A connection is being made; whoever waits for it is told when it is not any more.
struct Dialling<'a>(&'a Sharing);

impl<'a> Dialling<'a> {
    fn begin(sharing: &'a Sharing) -> Self {
        sharing.dialling.set(sharing.dialling.get() + 1);
        Self(sharing)
    }
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        self.0.dialling.set(self.0.dialling.get() - 1);
        self.0.dialled.set(self.0.dialled.get() + 1);
        self.0.waiting.take().into_iter().for_each(ring::wake);
    }
}

impl Cluster {
    /// A stream of a connection that is open already, which is what nearly every request gets.
    pub(super) fn share_open(&self, wanted: &Wanted<'_>, cells: &Arc<WorkerCells>) -> Option<Lease> {
        // What shall leave HTTP asks first whether it may.
        if wanted.upgrade {
            return None;
        }
        let Wanted { endpoint, pool, .. } = *wanted;
        if pool.protocol == PoolProtocol::Auto {
            self.try_http3(wanted, cells);
        }
        let wire = endpoint.sharing.take(&pool.reuse)?;
        cells.counters.upstream_reused_total.add(1);
        endpoint.spoke(wire.spoken());
        Some(Lease { wire, endpoint: Rc::clone(endpoint), reused: true })
    }

    /// A way to an endpoint that may speak HTTP/2: a stream of a shared connection, or a connection of its own where the endpoint, asked by
    /// ALPN, wants HTTP/1. What shall leave HTTP waits until the endpoint has said whether it lets streams do so (RFC 8441 §3).
    pub(super) async fn share(
        &self,
        wanted: &Wanted<'_>,
        timer: &mut Timer,
        cells: &Arc<WorkerCells>,
    ) -> Result<Lease, DialError> {
        let lease = self.share_any(wanted, timer, cells).await?;
        wanted.endpoint.spoke(lease.wire.spoken());
        Ok(lease)
    }

    async fn share_any(
        &self,
        wanted: &Wanted<'_>,
        timer: &mut Timer,
        cells: &Arc<WorkerCells>,
    ) -> Result<Lease, DialError> {
        let deadline = ring::now() + wanted.connect;
        loop {
            let lease = self.reach(wanted, deadline, timer, cells).await?;
            if !wanted.upgrade {
                return Ok(lease);
            }
            let Some(takes) = greeted(&lease.wire, deadline, timer).await? else { return Ok(lease) };
            if !takes && wanted.pool.protocol == PoolProtocol::Auto {
                return self.reach_by_http1(wanted, deadline, timer, cells).await;
            }
            if !takes {
                return Err(DialError::NoUpgrades);
            }
            // Others may have been quicker. One that takes nobody from the beginning would be met again and again.
            if lease.wire.can_ask() || !lease.reused {
                return Ok(lease);
            }
        }
    }

    async fn reach(
        &self,
        wanted: &Wanted<'_>,
        deadline: Now,
        timer: &mut Timer,
        cells: &Arc<WorkerCells>,
    ) -> Result<Lease, DialError> {
        let Wanted { endpoint, pool, connect, fresh, .. } = *wanted;
        let lease = |wire, reused| Lease { wire, endpoint: Rc::clone(endpoint), reused };
        if pool.protocol == PoolProtocol::Auto {
            self.try_http3(wanted, cells);
        }
        loop {
            if let Some(wire) = endpoint.sharing.take(&pool.reuse) {
                cells.counters.upstream_reused_total.add(1);
                return Ok(lease(wire, true));
            }
            if !fresh && let Some(lease) = Endpoint::take_idle(endpoint, pool, false, &cells.counters) {
                return Ok(lease);
            }
            if endpoint.sharing.dialling.get() == 0 || endpoint.sharing.wants_http1.get() {
                break;
            }
            endpoint.sharing.dialled(deadline, timer).await?;
        }
        let dialling = Dialling::begin(&endpoint.sharing);
        let (connection, held) = match self.make(endpoint, pool.protocol, connect, timer, cells).await? {
            Made::Shared(connection, held) => (connection, held),
            Made::Own(transport, held) => return Ok(Lease::of_own(transport, held, endpoint, false)),
        };
        let wire = connection.wire();
        Sharing::begin(endpoint, connection, 1, held, pool.reuse.idle, cells);
        drop(dialling);
        Ok(lease(wire, false))
    }

    /// Makes a connection that nobody has asked for yet. One that is shared is open from then on; one of HTTP/1, which the endpoint wants, is given back.
    pub(super) async fn make_ready(
        &self,
        endpoint: &Rc<Endpoint>,
        protocol: PoolProtocol,
        connect: Duration,
        idle: Duration,
        cells: &Arc<WorkerCells>,
    ) -> Option<(Transport, Held)> {
        let _dialling = Dialling::begin(&endpoint.sharing);
        match self.make(endpoint, protocol, connect, &mut Timer::new(), cells).await.ok()? {
            Made::Shared(connection, held) if endpoint.keeps_connections() => {
                Sharing::begin(endpoint, connection, 0, held, idle, cells);
                None
            }
            Made::Shared(..) => None,
            Made::Own(transport, held) => Some((transport, held)),
        }
    }

    async fn make(
        &self,
        endpoint: &Rc<Endpoint>,
        protocol: PoolProtocol,
        connect: Duration,
        timer: &mut Timer,
        cells: &Arc<WorkerCells>,
    ) -> Result<Made, DialError> {
        if protocol == PoolProtocol::Http3 {
            let (link, held) = self.call(endpoint, None, connect, timer, &cells.counters).await?;
            return Ok(Made::Shared(Connection::H3(h3::Multiplex::new(link, limits::HTTP3_UPSTREAM)), held));
        }
        let (transport, held) = self.dial(endpoint, None, None, connect, timer, &cells.counters).await?;
        let chosen = transport.secured().map(|secured| secured.http2);
        match (chosen, protocol) {
            (Some(false), PoolProtocol::Http2) => {
                let failure = Failure::WithoutHttp2;
                self.tell(&endpoint.name, &failure);
                return Err(DialError::Tls(failure));
            }
            (Some(false), _) | (None, PoolProtocol::Auto | PoolProtocol::Http11) => {
                endpoint.sharing.wants_http1.set(true);
                return Ok(Made::Own(transport, held));
            }
            (Some(true), _) | (None, PoolProtocol::Http2 | PoolProtocol::Http3) => {
                endpoint.sharing.wants_http1.set(false);
            }
        }
        let limits = Limits { secure: chosen.is_some(), ..limits::HTTP2_UPSTREAM };
        Ok(Made::Shared(Connection::H2(Multiplex::new(transport, None, limits)), held))
    }

    /// Begins to make a connection of HTTP/3 to an endpoint that has said that it has that, if there is none. Nobody waits for it.
    fn try_http3(&self, wanted: &Wanted<'_>, cells: &Arc<WorkerCells>) {
        let sharing = &wanted.endpoint.sharing;
        if sharing.open.borrow().iter().any(|one| matches!(one.connection, Connection::H3(_))) {
            return;
        }
        let (Some(port), Some(by)) = (sharing.alternative.begin(ring::now()), self.approach.clone()) else { return };
        let (endpoint, cells) = (Rc::clone(wanted.endpoint), Arc::clone(cells));
        let (connect, idle) = (wanted.connect, wanted.pool.reuse.idle);
        ring::spawn(async move {
            let Some(held) = endpoint.hold() else { return endpoint.sharing.alternative.ended(true, ring::now()) };
            cells.counters.upstream_h3_tried_total.add(1);
            let addresses = endpoint.addresses();
            let called = call(&by, &endpoint.authority, &addresses, Some(port), connect, &mut Timer::new()).await;
            endpoint.sharing.alternative.ended(called.is_ok(), ring::now());
            let Ok(link) = called else { return cells.counters.upstream_h3_broken_total.add(1) };
            if endpoint.keeps_connections() {
                let connection = Connection::H3(h3::Multiplex::new(link, limits::HTTP3_UPSTREAM));
                Sharing::begin(&endpoint, connection, 0, held, idle, &cells);
            }
        });
    }

    /// An endpoint has said where else it is to be had.
    pub fn heed(&self, endpoint: &Endpoint, said: AltSvc) {
        endpoint.sharing.alternative.told(said, ring::now());
    }

    /// A connection of HTTP/1.1 to an endpoint that may choose, and speaks nothing but HTTP over HTTP/2.
    async fn reach_by_http1(
        &self,
        wanted: &Wanted<'_>,
        deadline: Now,
        timer: &mut Timer,
        cells: &Arc<WorkerCells>,
    ) -> Result<Lease, DialError> {
        let Wanted { endpoint, pool, fresh, .. } = *wanted;
        if !fresh && let Some(lease) = Endpoint::take_idle(endpoint, pool, false, &cells.counters) {
            return Ok(lease);
        }
        let http1 = self.approach.as_ref().map(|by| by.tls.of_http1());
        let left = deadline.since(ring::now());
        let (transport, held) =
            self.dial_by(http1.as_ref(), endpoint, None, None, left, timer, &cells.counters).await?;
        Ok(Lease::of_own(transport, held, endpoint, false))
    }
}

/// Whether the endpoint at the other end lets streams leave HTTP; `None`: it is one of HTTP/1.
async fn greeted(wire: &Wire, deadline: Now, timer: &mut Timer) -> Result<Option<bool>, DialError> {
    timer.set(deadline);
    poll_fn(|_| match wire.poll_greeted() {
        Poll::Pending if timer.poll_expired() => Poll::Ready(Err(DialError::TimedOut)),
        greeted => greeted.map_err(DialError::Failed),
    })
    .await
}

/// Serves a shared connection until it is over.
async fn pump<M: Asks>(
    endpoint: Rc<Endpoint>,
    shared: Rc<Shared>,
    connection: M,
    held: Held,
    idle: Duration,
    cells: &WorkerCells,
) {
    let mut timer = Timer::new();
    let mut silence = Silence { since: ring::now(), busy: false, used: false, trimmed: false, leaving: false };
    let ended = poll_fn(|cx| silence.poll(&endpoint, &connection, idle, &mut timer, cx)).await;
    endpoint.sharing.remove(&shared);
    if let Connection::H3(_) = shared.connection {
        let alternative = &endpoint.sharing.alternative;
        match ended {
            // The path may have closed to QUIC alone.
            Ended::Gone | Ended::Fault if silence.busy => {
                cells.counters.upstream_h3_broken_total.add(1);
                alternative.failed(ring::now());
            }
            _ => alternative.worked(),
        }
    }
    connection.close(ended);
    if ended != Ended::Gone {
        // Our last words leave before the connection is closed.
        connection.linger(limits::FAREWELL, limits::LINGER_BYTES_MAX).await;
    }
    drop(held);
}

/// How long a shared connection has been without use, or without a word of the endpoint's while something is awaited.
struct Silence {
    since: Now,
    busy: bool,
    /// It has carried a request.
    used: bool,
    /// What an idle connection does not need has been given back.
    trimmed: bool,
    leaving: bool,
}

impl Silence {
    fn poll<M: Asks>(
        &mut self,
        endpoint: &Endpoint,
        connection: &M,
        idle: Duration,
        timer: &mut Timer,
        cx: &mut Context<'_>,
    ) -> Poll<Ended> {
        loop {
            if let Poll::Ready(ended) = connection.poll(cx, &mut |_| {}) {
                return Poll::Ready(ended);
            }
            let now = ring::now();
            if self.busy != connection.is_busy() {
                (self.busy, self.since, self.trimmed) = (!self.busy, now, false);
                self.used = true;
            }
            let trim_at = (!self.busy && !self.trimmed).then(|| self.since + limits::HTTP2_TRIM_AFTER);
            if trim_at.is_some_and(|at| at <= now) {
                connection.trim();
                self.trimmed = true;
                continue;
            }
            let due = if self.busy {
                match connection.is_alive(self.since, limits::UPSTREAM_SILENCE) {
                    Some(due) => due,
                    None => return Poll::Ready(Ended::Gone),
                }
            } else if self.leaving {
                return Poll::Ready(Ended::Finished);
            } else if self.used && !endpoint.keeps_connections() {
                // Nobody asks for it again: its endpoint has left while it was made, or thereafter.
                now
            } else {
                self.since + idle
            };
            if due <= now && !self.busy {
                connection.drain();
                self.leaving = true;
                continue;
            }
            timer.set([trim_at, connection.deadline()].into_iter().flatten().fold(due, Now::min));
            if !timer.poll_expired() {
                return Poll::Pending;
            }
        }
    }
}
