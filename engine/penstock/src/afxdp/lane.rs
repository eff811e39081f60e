//! A worker's way past the kernel: the sockets of its queues, and where answers go.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use ring::{FRAME_BYTES, Interface, Now, Received, TaskRef, Transmit, Xsk, XskSocket};

use super::frame::{self, Way};
use super::paths::{Next, Path, Paths};
use super::ports::{self, Port, Ports};
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

/// What each worker gets, on its way to them.
#[derive(Clone, Debug)]
pub struct Shares(Arc<Mutex<Vec<Option<Share>>>>);

impl Shares {
    #[must_use]
    pub fn new(shares: Vec<Option<Share>>) -> Self {
        Self(Arc::new(Mutex::new(shares)))
    }

    /// One worker's, which it takes once.
    #[must_use]
    pub fn take(&self, worker: usize) -> Option<Share> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(worker)?.take()
    }
}

/// A worker's way, which comes and goes; ports have joined it all the time.
pub struct Lane {
    open: RefCell<Option<Rc<Open>>>,
    paths: RefCell<Paths>,
    pub(super) ports: Ports,
    cells: Arc<WorkerCells>,
    /// When to look next.
    looks: Cell<Now>,
}

/// Sockets at work on the ring of this thread.
pub(super) struct Open {
    pub(super) sockets: Vec<XskSocket>,
    interface: Interface,
    /// Nothing comes any more: who receives may stop when all is taken in that has.
    closed: Cell<bool>,
    tasks: RefCell<Vec<TaskRef>>,
}

impl Lane {
    /// One that is closed.
    #[must_use]
    pub fn new(cells: Arc<WorkerCells>) -> Rc<Self> {
        let paths = RefCell::new(Paths::new(limits::AFXDP_PATHS_HALF));
        let (ports, looks) = (Ports::default(), Cell::new(ring::now()));
        Rc::new(Self { open: RefCell::default(), paths, ports, cells, looks })
    }

    /// Datagrams come and go by these sockets from now on.
    pub fn open(self: &Rc<Self>, share: Share) {
        self.close();
        let Share { sockets, interface } = share;
        let sockets = sockets.into_iter().map(XskSocket::new).collect();
        let open = Rc::new(Open { sockets, interface, closed: Cell::new(false), tasks: RefCell::default() });
        ports::serve(self, &open);
        self.open.replace(Some(open));
    }

    /// Datagrams go by the kernel from now on, and nobody brings any here; those that have come are still taken in.
    pub fn close(&self) {
        if let Some(open) = self.open.take() {
            open.closed.set(true);
            open.tasks.borrow_mut().drain(..).for_each(ring::wake);
        }
    }

    /// Datagrams to this port are handed to it, for as long as it is there.
    pub fn join<P: Port + 'static>(&self, port: &Rc<P>) {
        let weak: Weak<P> = Rc::downgrade(port);
        self.ports.join(weak, port.local());
    }

    /// Hands datagrams that have come to a socket to `take`, each with where it went to and how its answer gets back. `Ready` when there were any, good or not.
    pub(super) fn poll_receive(
        &self,
        open: &Open,
        socket: usize,
        cx: &mut Context<'_>,
        take: &mut dyn FnMut(SocketAddr, Received<'_>, Way),
    ) -> Poll<()> {
        let Some(from) = open.sockets.get(socket) else { return Poll::Pending };
        let counters = &self.cells.counters;
        let received = from.poll_receive(cx, &mut |bytes| match frame::read(bytes) {
            Ok(datagram) => {
                let (peer, to) = (open.scoped(datagram.from), datagram.to);
                self.paths.borrow_mut().learn(Path { peer, local: to.ip() }, Next { way: datagram.way, socket });
                counters.afxdp_received_total.add(1);
                let (ecn, stride) = (datagram.ecn, datagram.bytes.len().max(1));
                take(to, Received { from: peer, to: Some(to.ip()), ecn, stride, bytes: datagram.bytes }, datagram.way);
            }
            Err(_) => counters.afxdp_flawed_total.add(1),
        });
        if received.is_ready() {
            self.look(open);
        }
        received.map(drop)
    }

    /// Asks the kernel now and then what was lost: that is a system call.
    fn look(&self, open: &Open) {
        if ring::now() >= self.looks.get() {
            self.looks.set(ring::now() + limits::HOUSEKEEPING);
            self.cells.counters.afxdp_lost_total.set(open.sockets.iter().map(XskSocket::lost).sum());
        }
    }

    /// What came to another worker, whose socket is not ours, and is for one of ours: its answers leave by the first socket that there is.
    pub fn learn(&self, peer: SocketAddr, local: IpAddr, way: Way) {
        if self.open.borrow().is_some() {
            self.paths.borrow_mut().learn(Path { peer, local }, Next { way, socket: 0 });
        }
    }

    /// Sends from a port, at the end of the turn. False where that has to go by the kernel: it is closed, the way is not known, it does not fit, or no frame is free.
    #[must_use]
    pub fn send(&self, port: u16, transmit: &Transmit<'_>) -> bool {
        let open = self.open.borrow();
        let Some(open) = &*open else { return false };
        let is_sent = self.try_send(open, port, transmit).unwrap_or(false);
        if !is_sent {
            self.cells.counters.afxdp_by_kernel_total.add(1);
        }
        is_sent
    }

    fn try_send(&self, open: &Open, port: u16, transmit: &Transmit<'_>) -> Option<bool> {
        let Transmit { to, from, ecn, segment, bytes } = *transmit;
        let local = from?;
        let Next { way, socket } = self.paths.borrow().find(&Path { peer: to, local })?;
        let segment = segment.unwrap_or(bytes.len()).min(bytes.len());
        // What is longer the kernel refuses, and counts; there is nothing in an empty one to send.
        let is_long = frame::headers_of_packet(to.ip()) + segment > open.interface.mtu as usize;
        if segment == 0 || is_long || frame::headers(to.ip()) + segment > FRAME_BYTES {
            return None;
        }
        let count = bytes.len().div_ceil(segment);
        let from = SocketAddr::new(local, port);
        let mut pieces = bytes.chunks(segment);
        let is_sent = open.sockets.get(socket)?.send(count, |_, room| {
            let piece = pieces.next().unwrap_or_default();
            frame::write(room, way, from, to, ecn, piece)
        });
        if is_sent {
            self.cells.counters.afxdp_sent_total.add(count as u64);
        }
        Some(is_sent)
    }
}

impl Open {
    /// Who receives by a socket: it is woken when the lane is closed.
    pub(super) fn expects(&self, task: TaskRef) {
        self.tasks.borrow_mut().push(task);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.get()
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
}
