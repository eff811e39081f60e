//! Names to addresses, off the hot path: a thread of its own asks the system's resolver, so that a slow answer costs
//! nobody anything but its own freshness.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::{Finding, Found};
use crate::snapshot::{Address, Endpoint, Host, PoolId, Snapshot};

/// Addresses of one endpoint per name at the most: a response of 4 KiB holds no more.
const ADDRESSES_MAX: usize = 64;

/// The addresses of an endpoint that needs no resolving.
#[must_use]
pub fn literal(address: &Address) -> Vec<ring::Address> {
    match address {
        Address::Tcp { host: Host::Ip(ip), port } => vec![ring::Address::Inet(SocketAddr::new(*ip, *port))],
        Address::Tcp { host: Host::Name(_), .. } => Vec::new(),
        Address::Unix(path) => vec![ring::Address::Unix(path.clone())],
    }
}

/// A name to be resolved again and again.
struct Watch {
    pool: PoolId,
    source: usize,
    written: Endpoint,
    name: String,
    port: u16,
    every: Duration,
    due: ring::Now,
    last: Vec<SocketAddr>,
}

/// The resolving thread. Ends when dropped.
pub struct Resolver {
    end: Option<Sender<()>>,
}

impl Resolver {
    /// Starts the thread that resolves the snapshot's names again and again. `publish` is called for each name whose
    /// addresses have changed since it last asked.
    pub fn start(snapshot: &Snapshot, publish: impl FnMut(Finding) + Send + 'static) -> Option<Self> {
        let watches = watches(snapshot);
        if watches.is_empty() {
            return None;
        }
        let (end, ended) = channel();
        let thread = std::thread::Builder::new().name("penstock-dns".into());
        match thread.spawn(move || resolve_on(watches, &ended, publish)) {
            Ok(_) => Some(Self { end: Some(end) }),
            Err(error) => {
                eprintln!("penstock: names will not be resolved again: no thread for it ({error})");
                None
            }
        }
    }
}

/// Resolves every name once, now: for the start, before anybody is served.
#[must_use]
pub fn resolve(snapshot: &Snapshot) -> Vec<Finding> {
    let mut findings = Vec::new();
    for watch in &mut watches(snapshot) {
        watch.ask(&mut |finding| findings.push(finding));
    }
    findings
}

impl Drop for Resolver {
    fn drop(&mut self) {
        // The thread may be inside the system's resolver for seconds: it sees this when it comes back.
        drop(self.end.take());
    }
}

fn watches(snapshot: &Snapshot) -> Vec<Watch> {
    let mut watches = Vec::new();
    for (pool, settings) in snapshot.pools.iter().enumerate() {
        for (source, written) in settings.endpoints.iter().enumerate() {
            if let Address::Tcp { host: Host::Name(name), port } = &written.address {
                watches.push(Watch {
                    pool: PoolId(pool as u16),
                    source,
                    written: written.clone(),
                    name: name.to_string(),
                    port: *port,
                    every: settings.resolve_every,
                    due: ring::monotonic(),
                    last: Vec::new(),
                });
            }
        }
    }
    watches
}

fn resolve_on(mut watches: Vec<Watch>, ended: &Receiver<()>, mut publish: impl FnMut(Finding)) {
    loop {
        let next = watches.iter().map(|watch| watch.due).min().unwrap_or_else(ring::monotonic);
        match ended.recv_timeout(next.since(ring::monotonic())) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
        for watch in watches.iter_mut().filter(|watch| watch.due <= ring::monotonic()) {
            watch.ask(&mut publish);
        }
    }
}

impl Watch {
    fn ask(&mut self, publish: &mut impl FnMut(Finding)) {
        let answer = (self.name.as_str(), self.port).to_socket_addrs();
        self.due = ring::monotonic() + self.every;
        let mut addresses: Vec<SocketAddr> = match answer {
            Ok(addresses) => addresses.take(ADDRESSES_MAX).collect(),
            Err(error) => {
                if self.last.is_empty() {
                    eprintln!(
                        "penstock: `{}` has no address yet ({error}); asking again every {:?}",
                        self.name, self.every
                    );
                }
                // Whatever we had goes on working: a resolver's failure is no endpoint's.
                return;
            }
        };
        addresses.sort_unstable();
        if addresses != self.last {
            self.last.clone_from(&addresses);
            let addresses = addresses.into_iter().map(ring::Address::Inet).collect();
            let name = self.written.address.to_string().into();
            let found = vec![Found { name, addresses, weight: self.written.weight, tier: 0 }];
            publish(Finding { pool: self.pool, source: self.source, found });
        }
    }
}
