//! The server role: what happens on a client connection from its first byte to its last.
//!
//! An HTTP/1 connection yields exchanges one after another ([`h1`]), one of HTTP/2 or HTTP/3 many at a time ([`h2`], [`h3`]); a TCP connection is
//! one tunnel ([`tcp`]), to where TLS in it wants to go ([`hello`]); datagrams make flows ([`udp`]). Between exchanges a connection is parked: its task holds no buffer and no
//! exchange's state.

mod greeting;
mod h1;
mod h2;
mod h3;
mod hello;
mod multiplexed;
mod preface;
mod tcp;
pub mod udp;

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use ring::{Buf, Now};

use crate::conn::Transport;
use crate::exchange::{Door, Roll};
use crate::qos::HeldClient;
use crate::quic::Link;
use crate::snapshot::ListenerProtocol;

/// The sessions of one worker, and whether they shall end.
#[derive(Default)]
pub struct Sessions {
    roll: Roll,
    /// A drain has begun: idle connections end at this moment, exchanges are the last of their connection.
    drain_at: Cell<Option<Now>>,
}

impl Sessions {
    /// Connections open.
    pub fn open(&self) -> usize {
        self.roll.open()
    }

    pub fn draining(&self) -> Option<Now> {
        self.drain_at.get()
    }

    /// Lets idle connections end at `at`; wakes them to tell.
    pub fn drain(&self, at: Now) {
        self.drain_at.set(Some(at));
        self.roll.wake();
    }

    fn enter(&self, door: &Door) {
        door.way.open.set(door.way.open.get() + 1);
        door.cells.counters.connections_open.add(1);
        self.roll.enter();
    }

    fn leave(&self, door: &Door, held: Option<HeldClient>) {
        door.qos.release(door.listener, held);
        self.roll.leave();
        door.way.open.set(door.way.open.get() - 1);
        door.cells.counters.connections_open.sub(1);
    }
}

/// A connection that has been accepted, and what is known of it.
pub struct Accepted {
    pub stream: Transport,
    /// The client, as the PROXY header or the socket names it.
    pub address: Option<IpAddr>,
    /// From where to where it connected.
    pub path: Option<(SocketAddr, SocketAddr)>,
    /// What came behind the PROXY header.
    pub unread: Option<Buf>,
    /// Counted among its client's connections.
    pub held: Option<HeldClient>,
}

/// A client that has begun to connect by QUIC.
pub struct Arrived {
    pub link: Link,
    /// Where it was when it began.
    pub address: SocketAddr,
    /// Counted among its client's connections.
    pub held: Option<HeldClient>,
}

/// Serves a QUIC connection until it ends, as a task of its own.
pub fn start_quic(door: &Rc<Door>, sessions: &Rc<Sessions>, arrived: Arrived) {
    ring::spawn(h3::run(Rc::clone(door), Rc::clone(sessions), arrived));
}

/// Serves a connection until it ends, as a task of its own.
pub fn start(door: &Rc<Door>, sessions: &Rc<Sessions>, accepted: Accepted) {
    match door.listener().protocol {
        ListenerProtocol::Http => {
            ring::spawn(h1::run(h1::Session::new(Rc::clone(door), Rc::clone(sessions), accepted)));
        }
        // Datagrams make no connections.
        ListenerProtocol::Udp { .. } => {}
        ListenerProtocol::Tcp { .. } | ListenerProtocol::Sni { .. } => {
            ring::spawn(tcp::run(Rc::clone(door), Rc::clone(sessions), accepted));
        }
    }
}
