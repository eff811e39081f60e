//! A worker's way past the kernel: the sockets of its queues, and where answers go.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};

use ring::{FRAME_BYTES, Interface, Now, Received, Transmit, Xsk, XskSocket};

use super::frame::{self, Way};
use super::paths::{Next, Path, Paths};
use super::ports::{Port, Ports};
use crate::limits;
use crate::telemetry::WorkerCells;

/// What one worker gets of an interface; on its way to it.
#[derive(Debug)]
pub struct Share {
    sockets: Vec<Xsk>,
    interface: Interface,
}

impl Share {
    #[must_use]
    pub const fn new(sockets: Vec<Xsk>, interface: Interface) -> Self {
        Self { sockets, interface }
    }
}

/// The way, at work on the ring of this thread.
pub struct Lane {
    sockets: Vec<XskSocket>,
    interface: Interface,
    paths: RefCell<Paths>,
    pub(super) ports: Ports,
    cells: Arc<WorkerCells>,
    /// When to look next.
    looks: Cell<Now>,
}

impl Lane {
    #[must_use]
    pub fn new(share: Share, cells: Arc<WorkerCells>) -> Rc<Self> {
        let Share { sockets, interface } = share;
        let sockets = sockets.into_iter().map(XskSocket::new).collect();
        let paths = RefCell::new(Paths::new(limits::AFXDP_PATHS_HALF));
        Rc::new(Self { sockets, interface, paths, ports: Ports::default(), cells, looks: Cell::new(ring::now()) })
    }

    /// Sockets that it has, each to be received from by a task of its own.
    #[must_use]
    pub fn sockets(&self) -> usize {
        self.sockets.len()
    }

    /// Datagrams to this port are handed to it, for as long as it is there.
    pub fn join<P: Port + 'static>(&self, port: &Rc<P>) {
        let weak: Weak<P> = Rc::downgrade(port);
        self.ports.join(weak, port.local());
    }

    /// Hands datagrams that have come to a socket to `take`, each with where it went to and how its answer gets back. `Ready` when there were any, good or not.
    pub fn poll_receive(
        &self,
        socket: usize,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(SocketAddr, Received<'_>, Way),
    ) -> Poll<()> {
        let Some(from) = self.sockets.get(socket) else { return Poll::Pending };
        let counters = &self.cells.counters;
        let received = from.poll_receive(cx, &mut |bytes| match frame::read(bytes) {
            Ok(datagram) => {
                let (peer, to) = (self.scoped(datagram.from), datagram.to);
                self.paths.borrow_mut().learn(Path { peer, local: to.ip() }, Next { way: datagram.way, socket });
                counters.afxdp_received_total.add(1);
                let (ecn, stride) = (datagram.ecn, datagram.bytes.len().max(1));
                take(to, Received { from: peer, to: Some(to.ip()), ecn, stride, bytes: datagram.bytes }, datagram.way);
            }
            Err(_) => counters.afxdp_flawed_total.add(1),
        });
        if received.is_ready() {
            self.look();
        }
        received.map(drop)
    }

    /// Asks the kernel now and then what was lost: that is a system call.
    fn look(&self) {
        if ring::now() >= self.looks.get() {
            self.looks.set(ring::now() + limits::HOUSEKEEPING);
            self.cells.counters.afxdp_lost_total.set(self.sockets.iter().map(XskSocket::lost).sum());
        }
    }

    /// A peer that is known by its interface only, as the kernel would name it.
    fn scoped(&self, peer: SocketAddr) -> SocketAddr {
        match peer {
            SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => {
                SocketAddrV6::new(*v6.ip(), v6.port(), 0, self.interface.index).into()
            }
            peer => peer,
        }
    }

    /// What came to another worker, whose socket is not ours, and is for one of ours: its answers leave by the first socket that there is.
    pub fn learn(&self, peer: SocketAddr, local: IpAddr, way: Way) {
        if !self.sockets.is_empty() {
            self.paths.borrow_mut().learn(Path { peer, local }, Next { way, socket: 0 });
        }
    }

    /// Sends from a port, at the end of the turn. False where that has to go by the kernel: the way is not known, it does not fit, or no frame is free.
    #[must_use]
    pub fn send(&self, port: u16, transmit: &Transmit<'_>) -> bool {
        let is_sent = self.try_send(port, transmit).unwrap_or(false);
        if !is_sent {
            self.cells.counters.afxdp_by_kernel_total.add(1);
        }
        is_sent
    }

    fn try_send(&self, port: u16, transmit: &Transmit<'_>) -> Option<bool> {
        let Transmit { to, from, ecn, segment, bytes } = *transmit;
        let local = from?;
        let Next { way, socket } = self.paths.borrow().find(&Path { peer: to, local })?;
        let segment = segment.unwrap_or(bytes.len()).min(bytes.len());
        // What is longer the kernel refuses, and counts; there is nothing in an empty one to send.
        let is_long = frame::headers_of_packet(to.ip()) + segment > self.interface.mtu as usize;
        if segment == 0 || is_long || frame::headers(to.ip()) + segment > FRAME_BYTES {
            return None;
        }
        let count = bytes.len().div_ceil(segment);
        let from = SocketAddr::new(local, port);
        let mut pieces = bytes.chunks(segment);
        let is_sent = self.sockets.get(socket)?.send(count, |_, room| {
            let piece = pieces.next().unwrap_or_default();
            frame::write(room, way, from, to, ecn, piece)
        });
        if is_sent {
            self.cells.counters.afxdp_sent_total.add(count as u64);
        }
        Some(is_sent)
    }
}
