//! The client role: pools of endpoints, and leases of connections to them.
//!
//! The way: [`Cluster::pick`] chooses an endpoint → [`Cluster::lease`] takes an idle connection or dials → the exchange
//! uses it → [`Lease::give_back`] parks it or lets it go, and [`Cluster::record`] learns from the outcome. Everything here
//! belongs to one worker; what other workers know of an endpoint is read from its [`EndpointCells`].

mod dial;
pub mod dns;
mod pool;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use policy::balance::{Adaptive, RoundRobin};
use policy::{Ask, Balancer, Breaker, BreakerState, Endpoints, Load, Now, Outcome, PeakEwma, Random, RetryBudget};
use proto::h1::Client;
use proto::proxy;
use ring::{Buf, Stream, Timer};

pub use self::dial::DialError;
use self::pool::Idle;
use crate::conn::Conn;
use crate::snapshot::{self, Balance, ProxyProtocol};
use crate::telemetry::Counters;

/// What workers tell each other of one endpoint: a cell a worker, written by it alone.
#[derive(Debug)]
pub struct EndpointCells {
    workers: Box<[EndpointCell]>,
}

/// Alone on its cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct EndpointCell {
    in_flight: AtomicU32,
    /// 0 closed, 1 half-open, 2 open.
    breaker: AtomicU32,
    latency_nanos: AtomicU64,
    requests: AtomicU64,
    failures: AtomicU64,
}

/// An endpoint, summed over the workers.
#[derive(Clone, Copy, Debug, Default)]
pub struct EndpointSums {
    pub in_flight: u64,
    pub requests: u64,
    pub failures: u64,
    /// Mean of the workers that have measured it, in nanoseconds.
    pub latency_nanos: u64,
    /// Workers whose breaker is open, and half-open.
    pub open: usize,
    pub half_open: usize,
}

impl EndpointCells {
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { workers: (0..workers).map(|_| EndpointCell::default()).collect() }
    }

    #[must_use]
    pub fn sums(&self) -> EndpointSums {
        let mut sums = EndpointSums::default();
        let mut measured = 0;
        for cell in &self.workers {
            sums.in_flight += u64::from(cell.in_flight.load(Ordering::Relaxed));
            sums.requests += cell.requests.load(Ordering::Relaxed);
            sums.failures += cell.failures.load(Ordering::Relaxed);
            sums.open += usize::from(cell.breaker.load(Ordering::Relaxed) == 2);
            sums.half_open += usize::from(cell.breaker.load(Ordering::Relaxed) == 1);
            let latency = cell.latency_nanos.load(Ordering::Relaxed);
            measured += u64::from(latency > 0);
            sums.latency_nanos += latency;
        }
        sums.latency_nanos = sums.latency_nanos.checked_div(measured).unwrap_or(0);
        sums
    }

    fn in_flight(&self) -> u32 {
        self.workers.iter().map(|cell| cell.in_flight.load(Ordering::Relaxed)).sum()
    }
}

/// The cells of every endpoint of every pool.
pub type AllCells = Box<[Box<[Arc<EndpointCells>]>]>;

/// Cells for a snapshot's pools.
#[must_use]
pub fn cells_for(snapshot: &snapshot::Snapshot, workers: usize) -> AllCells {
    let pool = |pool: &snapshot::Pool| pool.endpoints.iter().map(|_| Arc::new(EndpointCells::new(workers))).collect();
    snapshot.pools.iter().map(pool).collect()
}

/// One pool as one worker sees it.
pub struct Cluster {
    endpoints: Box<[Endpoint]>,
    balancer: RefCell<Balancer>,
    budget: RefCell<RetryBudget>,
    random: RefCell<Random>,
    worker: usize,
}

pub struct Endpoint {
    /// As the configuration names it: for logs, and for the Host of `host = "endpoint"`.
    pub name: Box<str>,
    /// What the name stands for now; several are tried in turn.
    addresses: RefCell<Vec<ring::Address>>,
    breaker: RefCell<Breaker>,
    latency: Cell<PeakEwma>,
    idle: RefCell<Vec<Idle>>,
    cells: Arc<EndpointCells>,
}

/// What an exchange wants of a lease.
pub struct Wanted<'a> {
    pub endpoint: usize,
    pub pool: &'a snapshot::Pool,
    /// How long connecting may take.
    pub connect: Duration,
    /// No pooled connection.
    pub fresh: bool,
    /// From where to where the client connected.
    pub path: Option<(SocketAddr, SocketAddr)>,
}

/// The header that tells an endpoint who asks, if the pool wants one.
#[must_use]
pub fn proxy_header(version: ProxyProtocol, path: Option<(SocketAddr, SocketAddr)>) -> Option<Buf> {
    let mut header = Vec::new();
    match version {
        ProxyProtocol::Off => return None,
        ProxyProtocol::V1 => proxy::write_v1(path, &mut header),
        ProxyProtocol::V2 => proxy::write_v2(path, &mut header),
    }
    Some(Buf::copy_of(&header))
}

/// A connection for one exchange.
pub struct Lease {
    pub conn: Conn<Client>,
    pub endpoint: usize,
    /// It has carried an exchange before: its end before a response says nothing about the endpoint.
    pub reused: bool,
    requests: u32,
}

impl Cluster {
    #[must_use]
    pub fn new(pool: &snapshot::Pool, cells: &[Arc<EndpointCells>], worker: usize, workers: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let weights: Vec<u32> = pool.endpoints.iter().map(|endpoint| endpoint.weight).collect();
        let balancer = match pool.balance {
            Balance::Adaptive => Balancer::Adaptive(Adaptive::new(&weights)),
            Balance::RoundRobin => Balancer::RoundRobin(RoundRobin::new(&weights)),
        };
        let mut budget = pool.retry.budget;
        // The floor is the process's; each worker takes its share of it, and at least one.
        budget.per_second_min = (budget.per_second_min / workers.max(1) as u16).max(1);
        let endpoints = pool.endpoints.iter().zip(cells).map(|(endpoint, cells)| Endpoint {
            name: endpoint.address.to_string().into(),
            addresses: RefCell::new(dns::literal(&endpoint.address)),
            breaker: RefCell::new(Breaker::new(pool.breaker, random.next_u64())),
            latency: Cell::default(),
            idle: RefCell::default(),
            cells: Arc::clone(cells),
        });
        Self {
            endpoints: endpoints.collect(),
            balancer: RefCell::new(balancer),
            budget: RefCell::new(RetryBudget::new(budget)),
            random: RefCell::new(random),
            worker,
        }
    }

    #[must_use]
    pub fn endpoint(&self, index: usize) -> &Endpoint {
        &self.endpoints[index]
    }

    /// The endpoint for one try; `None` when none may be asked.
    pub fn pick(&self, ask: &Ask, now: Now) -> Option<usize> {
        let view = View { cluster: self, now };
        let mut random = self.random.borrow_mut();
        let picked = self.balancer.borrow_mut().pick(&view, ask, &mut random)?;
        self.endpoints[picked].breaker.borrow_mut().begin(now);
        self.cell(picked).in_flight.fetch_update_single(|count| count + 1);
        Some(picked)
    }

    /// The same endpoint once more for the same request, whose first connection turned out to be dead.
    pub fn pick_again(&self, index: usize) -> Option<usize> {
        self.cell(index).in_flight.fetch_update_single(|count| count + 1);
        Some(index)
    }

    /// What became of a try that [`pick`](Self::pick) began.
    pub fn record(&self, index: usize, now: Now, outcome: &Outcome) {
        let endpoint = &self.endpoints[index];
        let mut breaker = endpoint.breaker.borrow_mut();
        breaker.record(now, outcome);
        let mut latency = endpoint.latency.get();
        latency.record(now, outcome);
        endpoint.latency.set(latency);
        let cell = self.cell(index);
        cell.in_flight.fetch_update_single(|count| count.saturating_sub(1));
        let state = match breaker.state(now) {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        };
        cell.breaker.store(state, Ordering::Relaxed);
        cell.latency_nanos.store(latency.nanos(now) as u64, Ordering::Relaxed);
        cell.requests.store(cell.requests.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        if outcome.counts_for_breaker() {
            cell.failures.store(cell.failures.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    /// A request has come: the retry budget grows.
    pub fn count_request(&self, now: Now) {
        self.budget.borrow_mut().request(now);
    }

    /// Takes one retry out of the budget; false when it is spent.
    pub fn withdraw_retry(&self, now: Now) -> bool {
        self.budget.borrow_mut().withdraw(now)
    }

    /// A connection to an endpoint: an idle one, or with `fresh` or for want of one a new one. A pool that tells its
    /// endpoints who asks (PROXY protocol) gets a connection a client, because a connection has one header.
    pub async fn lease(&self, wanted: Wanted<'_>, timer: &mut Timer, counters: &Counters) -> Result<Lease, DialError> {
        let Wanted { endpoint, pool, connect, fresh, path } = wanted;
        if !fresh && let Some(lease) = self.take_idle(endpoint, pool, counters) {
            return Ok(lease);
        }
        let mut stream = self.dial(endpoint, connect, timer, counters).await?;
        if let Some(header) = proxy_header(pool.proxy_protocol, path) {
            stream.send(header);
        }
        Ok(Lease { conn: Conn::new(stream), endpoint, reused: false, requests: 0 })
    }

    /// A new stream to an endpoint.
    pub async fn dial(
        &self,
        endpoint: usize,
        patience: Duration,
        timer: &mut Timer,
        counters: &Counters,
    ) -> Result<Stream, DialError> {
        let addresses = self.endpoints[endpoint].addresses.borrow().clone();
        counters.upstream_connects_total.add(1);
        let dialled = dial::dial(&addresses, patience, timer).await;
        counters.upstream_connect_failures_total.add(u64::from(dialled.is_err()));
        dialled
    }

    /// The name of an endpoint stands for these addresses from now on. None: it keeps those it had.
    pub fn resolved(&self, index: usize, addresses: Vec<ring::Address>) {
        if !addresses.is_empty() {
            *self.endpoints[index].addresses.borrow_mut() = addresses;
        }
    }

    fn cell(&self, index: usize) -> &EndpointCell {
        &self.endpoints[index].cells.workers[self.worker]
    }
}

/// A store by the only writer: no read-modify-write is needed.
trait SingleWriter {
    fn fetch_update_single(&self, change: impl FnOnce(u32) -> u32);
}

impl SingleWriter for AtomicU32 {
    fn fetch_update_single(&self, change: impl FnOnce(u32) -> u32) {
        self.store(change(self.load(Ordering::Relaxed)), Ordering::Relaxed);
    }
}

struct View<'a> {
    cluster: &'a Cluster,
    now: Now,
}

impl Endpoints for View<'_> {
    fn len(&self) -> usize {
        self.cluster.endpoints.len()
    }

    fn available(&self, index: usize) -> bool {
        self.cluster.endpoints[index].breaker.borrow().admits(self.now)
    }

    fn load(&self, index: usize) -> Load {
        let endpoint = &self.cluster.endpoints[index];
        Load { latency_ns: endpoint.latency.get().nanos(self.now), in_flight: endpoint.cells.in_flight() }
    }
}

/// Turns the ring's time into the policy's.
#[must_use]
pub fn policy_now(now: ring::Now) -> Now {
    Now::from_nanos(now.as_nanos())
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lease(endpoint {}, reused {})", self.endpoint, self.reused)
    }
}

/// Why no connection was to be had, as an outcome of the try.
impl From<&DialError> for policy::Class {
    fn from(error: &DialError) -> Self {
        match error {
            DialError::Unresolved => Self::Unresolved,
            DialError::TimedOut => Self::ConnectTimedOut,
            DialError::Failed(error) if is_ours(error) => Self::Shed,
            DialError::Failed(_) => Self::Refused,
        }
    }
}

/// Running out of descriptors, ports or memory is our fault and not the endpoint's.
fn is_ours(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(24 /* EMFILE */ | 23 /* ENFILE */ | 12 /* ENOMEM */ | 105 /* ENOBUFS */ | 99 /* EADDRNOTAVAIL */)
    )
}
