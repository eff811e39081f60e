//! What an exchange finds around it: one worker's share of everything, seen through one listener.
//!
//! What holds here: a door is of one configuration and never changes; a new one puts another door into the [`Doorway`], and sessions go on
//! through that from their next exchange on. What is under way ends behind the door by which it came in.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use data_encoding::BASE64;
use proto::http::Fields;
use ring::TaskRef;

use super::tunnel::{Splicer, Splicing};
use crate::qos::{HeldClient, Qos};
use crate::snapshot::{Listener, ListenerId, PoolId, Snapshot};
use crate::telemetry::access_log::{Passed, Writer};
use crate::telemetry::{WebSockets, WorkerCells};
use crate::tls::ServerConfig;
use crate::upstream::{Cluster, Homes, RouteBreaker, Selection};

/// A listener on one worker, and what stands behind it.
pub struct Door {
    pub snapshot: Arc<Snapshot>,
    pub listener: ListenerId,
    pub clusters: Rc<[Rc<Cluster>]>,
    pub cells: Arc<WorkerCells>,
    /// By route.
    pub websockets: Arc<WebSockets>,
    pub qos: Rc<Qos>,
    /// By route; none for one without candidates.
    pub selections: Rc<[Option<Selection>]>,
    /// By route; none for one without a breaker.
    pub breakers: Rc<[Option<RouteBreaker>]>,
    /// Where QUIC connections that are passed through belong.
    pub homes: Arc<Homes>,
    pub log: Option<Rc<RefCell<Writer>>>,
    pub desk: Rc<Desk>,
    /// What it agrees upon with clients that come from now on; `None`: it speaks without TLS.
    pub tls: RefCell<Option<Arc<ServerConfig>>>,
    /// Where it stands.
    pub way: Rc<Doorway>,
    /// What clients of HTTP/1 and 2 are told of HTTP/3 (`Alt-Svc`).
    pub alternative: Option<Box<[u8]>>,
    /// A pool behind it wants to know from where to where its clients connected, or the access log does.
    pub tells_path: bool,
    /// Some listener tells endpoints of clients' certificates: nobody else may seem to.
    pub tells_certificate: bool,
}

/// A listener on one worker, whatever the configuration says of it.
#[derive(Default)]
pub struct Doorway {
    /// The door that stands there now. Gates hold it, for as long as they let anybody in.
    door: RefCell<Weak<Door>>,
    /// Connections open through it.
    pub open: Cell<usize>,
}

impl Doorway {
    /// From now on this is the door.
    pub fn put(&self, door: &Rc<Door>) {
        self.door.replace(Rc::downgrade(door));
    }
}

/// Storage that every exchange of a worker uses for a moment, never across an await.
pub struct Desk {
    /// Of the request that was read last.
    pub request_fields: RefCell<Fields>,
    /// Of the response that was read last.
    pub response_fields: RefCell<Fields>,
    /// Which request `request_fields` tells of: its address in memory and a count that never repeats.
    pub request_of: Cell<u64>,
    /// A head under composition.
    pub head: RefCell<Vec<u8>>,
    /// A field's value under composition.
    pub value: RefCell<Vec<u8>>,
    /// Bytes of requests' content that are kept for another try.
    pub kept_bytes: Cell<usize>,
    /// A request's path in normal form.
    pub path: RefCell<Vec<u8>>,
    /// Copies of requests in the making or on their way to mirrors.
    pub mirrors: Cell<usize>,
    /// For what is decided by lot.
    pub random: RefCell<policy::Random>,
    /// A drain has begun: every response is the last of its connection.
    pub draining: Cell<bool>,
    /// Tunnels that end when it does.
    pub tunnels: Roll,
    /// Carries large tunnels; `None`: they are copied.
    pub splicer: Option<Splicer>,
}

/// Tasks that are to be woken when a drain begins.
#[derive(Default)]
pub struct Roll {
    tasks: RefCell<Vec<TaskRef>>,
    open: Cell<usize>,
}

impl Roll {
    /// How many have entered and not left.
    pub fn open(&self) -> usize {
        self.open.get()
    }

    /// Enters the present task.
    pub fn enter(&self) {
        self.open.set(self.open.get() + 1);
        let mut tasks = self.tasks.borrow_mut();
        // Ended tasks are cleared out when they are as many as the live ones: constant work a task.
        if tasks.len() >= 64 && tasks.len() >= 2 * self.open.get() {
            tasks.retain(|task| ring::is_alive(*task));
        }
        tasks.push(ring::current_task());
    }

    /// One that has entered is about to end.
    pub fn leave(&self) {
        self.open.set(self.open.get() - 1);
    }

    pub fn wake(&self) {
        for task in self.tasks.borrow().iter() {
            ring::wake(*task);
        }
    }
}

impl Desk {
    /// `seed` is that of all chance on this worker.
    #[must_use]
    pub fn new(seed: u64, splicing: Option<Splicing>) -> Self {
        let fields = || RefCell::new(Fields::with_limit(crate::limits::FIELDS_MAX));
        Self {
            request_fields: fields(),
            response_fields: fields(),
            request_of: Cell::new(0),
            head: RefCell::new(Vec::with_capacity(4 << 10)),
            value: RefCell::new(Vec::with_capacity(512)),
            kept_bytes: Cell::new(0),
            path: RefCell::new(Vec::with_capacity(512)),
            mirrors: Cell::new(0),
            random: RefCell::new(policy::Random::new(seed)),
            draining: Cell::new(false),
            tunnels: Roll::default(),
            splicer: splicing.map(Splicer::new),
        }
    }

    /// Every response is the last of its connection from now on, and tunnels that can be ended in order are.
    pub fn drain(&self) {
        self.draining.set(true);
        self.tunnels.wake();
    }
}

/// Who is at the other end of a client connection. Held by every idle one, so it is small.
#[derive(Debug)]
pub struct Peer {
    address: Spelt,
    /// Of the address as text.
    length: u8,
    /// Its forwarding fields are believed.
    pub trusted: bool,
    /// Counted among its client's connections.
    pub held: Option<HeldClient>,
    /// What is kept only where endpoints are told of it.
    told: Option<Box<Told>>,
}

/// An address as text, which is made once a connection and told with every request. That of IPv6 leaves no room for its number.
#[derive(Debug)]
enum Spelt {
    V4 { address: Ipv4Addr, text: [u8; 15] },
    Other { text: [u8; 40] },
}

/// What endpoints may be told of a connection.
#[derive(Debug, Default)]
struct Told {
    /// From where to where it was made (PROXY protocol).
    path: Option<(SocketAddr, SocketAddr)>,
    /// The certificate that was shown, as `Client-Cert` has it.
    certificate: Vec<u8>,
}

impl Peer {
    /// `address` is `None` on a Unix socket.
    #[must_use]
    pub fn new(address: Option<IpAddr>, trusted: bool, path: Option<(SocketAddr, SocketAddr)>) -> Self {
        use std::io::Write;
        let address = address.map(|ip| ip.to_canonical());
        let mut text = [0; 40];
        let mut rest = &mut text[..];
        // 39 bytes are the longest text of an IPv6 address that is no mapped one, 15 that of an IPv4 address.
        let _ = match address {
            Some(ip) => write!(rest, "{ip}"),
            None => write!(rest, "unknown"),
        };
        let length = (40 - rest.len()) as u8;
        let address = match address {
            Some(IpAddr::V4(address)) => Spelt::V4 { address, text: *text.first_chunk().expect("40 are more") },
            Some(IpAddr::V6(_)) | None => Spelt::Other { text },
        };
        let told = path.map(|path| Box::new(Told { path: Some(path), ..Told::default() }));
        Self { address, length, trusted, held: None, told }
    }

    /// Its address; `None` on a Unix socket.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match &self.address {
            Spelt::V4 { address, .. } => Some((*address).into()),
            Spelt::Other { .. } => std::str::from_utf8(self.text()).ok()?.parse().ok(),
        }
    }

    #[must_use]
    pub fn text(&self) -> &[u8] {
        let text = match &self.address {
            Spelt::V4 { text, .. } => &text[..],
            Spelt::Other { text } => text,
        };
        &text[..usize::from(self.length)]
    }

    /// It has shown this certificate, in DER; endpoints are told.
    pub fn showed(&mut self, der: &[u8]) {
        // A byte sequence (RFC 9440 §2.2, RFC 9651 §3.3.5).
        let mut value = Vec::with_capacity(2 + BASE64.encode_len(der.len()));
        value.push(b':');
        value.extend_from_slice(BASE64.encode(der).as_bytes());
        value.push(b':');
        self.told.get_or_insert_default().certificate = value;
    }

    /// The value of `Client-Cert`.
    #[must_use]
    pub fn certificate(&self) -> Option<&[u8]> {
        self.told.as_ref().map(|told| told.certificate.as_slice()).filter(|certificate| !certificate.is_empty())
    }

    #[must_use]
    pub fn path(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.told.as_ref()?.path
    }
}

impl Door {
    /// The one that stands in its place by now; `None` while it stands there itself, and when nobody comes in there any more.
    #[inline]
    #[must_use]
    pub fn newer(&self) -> Option<Rc<Self>> {
        let door = self.way.door.borrow();
        if std::ptr::eq(door.as_ptr(), self) { None } else { door.upgrade() }
    }

    #[must_use]
    pub fn listener(&self) -> &Listener {
        &self.snapshot[self.listener]
    }

    #[must_use]
    pub fn cluster(&self, pool: PoolId) -> &Cluster {
        &self.clusters[usize::from(pool.0)]
    }

    /// Tells the access log of what was passed through.
    pub fn tell_passed(&self, passed: &Passed<'_>) {
        let Some(log) = &self.log else { return };
        let dropped = log.borrow_mut().write_passed(passed);
        self.cells.counters.log_lines_dropped_total.add(dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_address_and_its_text_are_one() {
        for (given, told) in [
            ("127.0.0.1", "127.0.0.1"),
            ("255.255.255.255", "255.255.255.255"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("::1", "::1"),
            ("2001:db8:1234:5678:9abc:def0:1234:5678", "2001:db8:1234:5678:9abc:def0:1234:5678"),
        ] {
            let peer = Peer::new(Some(given.parse().unwrap()), false, None);
            assert_eq!((peer.text(), peer.address()), (told.as_bytes(), told.parse().ok()));
        }
        let local = Peer::new(None, false, None);
        assert_eq!((local.text(), local.address()), (&b"unknown"[..], None));
    }
}
