//! Frames past the kernel: a socket of AF_XDP (Linux 5.4 with need-wakeup) on one queue of an interface, which some XDP program gives frames to.
//!
//! ```text
//! XDP ─► rx ring ─► XskSocket::poll_receive ─► fill ring          XskSocket::send ─► tx ring ─► (at the turn's end: one kick) ─► completion ring ─► free
//! ```
//!
//! What holds here:
//! * All memory is the socket's own and fixed from the start: [`FRAMES`] frames of [`FRAME_BYTES`] for either direction, and rings with a place for each. What comes
//!   while none is free is the network's to lose; what is to be sent while none is free is not taken, and the caller is told.
//! * A frame is the kernel's or ours: its number is in a ring that the kernel reads, or it is here. So nothing is touched from both sides.
//! * A frame that was received is lent for the length of a call; one that is sent is written in place. Nothing is allocated.
//! * What is sent in a turn leaves by one system call (before Linux 6.17 one for 32 frames where the kernel copies), or by none where the interface is awake.
//!
//! Deliberately absent: what the bytes mean; frames of several parts; one memory for several sockets; busy polling.

mod interface;
mod memory;
mod rings;

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

pub use self::interface::{Interface, local_addresses};
use self::memory::Memory;
use self::rings::{Consumer, Frame, Producer, Side};
use crate::driver::Fd;
use crate::net::UdpGranted;
use crate::reactor;

/// Octets of a frame's memory: the smallest that the kernel takes. An Ethernet frame of 1,518 and the kernel's headroom before it fit.
pub const FRAME_BYTES: usize = 2 << 10;

/// Octets that the kernel keeps free before a frame that it receives (`XDP_PACKET_HEADROOM`).
const HEADROOM: usize = 256;

/// Octets of the longest frame that can be received.
pub const RECEIVED_MAX: usize = FRAME_BYTES - HEADROOM;

/// Frames of either direction: 4 MiB for both, so that two sockets are within the 8 MiB that an unprivileged process may lock (`RLIMIT_MEMLOCK`). As many
/// full frames are 12 ms of 1 Gbit/s.
pub const FRAMES: u32 = 1 << 10;

/// Receives of one call at the most, after which others have their turn: what the kernel's own sockets are granted in bytes, roughly.
const FRAMES_A_CALL: usize = 256;

/// Frames that one call sends where the kernel copies (`TX_BATCH_SIZE`), unless more are granted.
const KICK_FRAMES_MIN: u32 = 32;

/// `XDP_MAX_TX_SKB_BUDGET` (Linux 6.17): how many that may be.
const KICK_FRAMES: i32 = 9;

/// What of a socket's frames the kernel may hold for the device at once: more than all of them are counted as.
const SEND_BUFFER: i32 = 8 << 20;

/// A queue that somebody has is asked for so often, and so long apart: the kernel lets go of one some time after its last socket was closed, also where
/// that was the socket of a process that was killed a moment ago.
const BUSY_LOOKS: u32 = 100;
const BUSY_LOOKS_EVERY: Duration = Duration::from_millis(10);

/// A socket that is bound to a queue and not at work yet: to be moved to the thread that it works for.
#[derive(Debug)]
pub struct Xsk {
    // Dropped first: the kernel lets go of the rings when both are gone.
    rings: Rings,
    memory: Memory,
    fd: OwnedFd,
    zero_copy: bool,
}

#[derive(Debug)]
struct Rings {
    fill: Producer<u64>,
    received: Consumer<Frame>,
    send: Producer<Frame>,
    completed: Consumer<u64>,
}

impl Xsk {
    /// Opens a socket on a queue of an interface. It receives nothing until a program gives it something.
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_NET_RAW; `ENOBUFS` where no more memory may be locked; `ResourceBusy` where the queue has a socket; `InvalidInput` where there is no such queue.
    pub fn open(interface: &Interface, queue: u32) -> io::Result<Self> {
        for _ in 1..BUSY_LOOKS {
            match Self::bound(interface, queue) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => std::thread::sleep(BUSY_LOOKS_EVERY),
                outcome => return outcome,
            }
        }
        Self::bound(interface, queue)
    }

    fn bound(interface: &Interface, queue: u32) -> io::Result<Self> {
        let mut xsk = Self::unbound()?;
        xsk.bind(interface, queue)?;
        Ok(xsk)
    }

    /// Whether there can be one, on whatever interface.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn probe() -> io::Result<()> {
        Self::unbound().map(drop)
    }

    fn unbound() -> io::Result<Self> {
        // SAFETY: a system call without pointers.
        let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let memory = Memory::new(2 * FRAMES as usize * FRAME_BYTES)?;
        memory.register(fd.as_fd(), FRAME_BYTES as u32)?;
        let rings = Rings::new(fd.as_fd())?;
        // Refused without CAP_NET_ADMIN; then what the host allows has to do.
        let _ = rings::set(fd.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &SEND_BUFFER);
        // Known to newer kernels only; a call to others sends fewer.
        let _ = rings::set(fd.as_fd(), libc::SOL_XDP, KICK_FRAMES, &FRAMES);
        let mut xsk = Self { rings, memory, fd, zero_copy: false };
        for frame in 0..FRAMES {
            xsk.rings.fill.push(u64::from(frame) * FRAME_BYTES as u64);
        }
        xsk.rings.fill.publish();
        Ok(xsk)
    }

    fn bind(&mut self, interface: &Interface, queue: u32) -> io::Result<()> {
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            // Without a word on copying: the kernel copies where the driver cannot do without.
            sxdp_flags: libc::XDP_USE_NEED_WAKEUP,
            sxdp_ifindex: interface.index,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: 0,
        };
        // SAFETY: the address is as long as said, and the kernel copies it.
        let bound = unsafe {
            let length = size_of::<libc::sockaddr_xdp>() as libc::socklen_t;
            libc::bind(self.fd.as_raw_fd(), (&raw const address).cast(), length)
        };
        if bound < 0 {
            return Err(io::Error::last_os_error());
        }
        let options: libc::xdp_options = rings::get(self.fd.as_fd(), libc::XDP_OPTIONS)?;
        self.zero_copy = options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0;
        Ok(())
    }

    /// The interface reads and writes our memory itself; else the kernel copies.
    #[must_use]
    pub const fn is_zero_copy(&self) -> bool {
        self.zero_copy
    }
}

impl AsFd for Xsk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Rings {
    fn new(fd: BorrowedFd<'_>) -> io::Result<Self> {
        for ring in [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING, libc::XDP_TX_RING] {
            rings::set(fd, libc::SOL_XDP, ring, &FRAMES)?;
        }
        let offsets: libc::xdp_mmap_offsets = rings::get(fd, libc::XDP_MMAP_OFFSETS)?;
        Ok(Self {
            fill: Producer::map(fd, Side::Fill, &offsets.fr)?,
            received: Consumer::map(fd, Side::Receive, &offsets.rx)?,
            send: Producer::map(fd, Side::Send, &offsets.tx)?,
            completed: Consumer::map(fd, Side::Completion, &offsets.cr)?,
        })
    }
}

/// Counts of a socket since it went to work.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct XskCounts {
    /// Frames received.
    pub received: u64,
    /// Frames that were put into the ring to be sent.
    pub sent: u64,
    /// System calls made to have them sent.
    pub kicks: u64,
    /// Frames that found none of ours free.
    pub full: u64,
}

/// A socket at work on this thread's ring. Dropping it closes it.
///
/// One task receives; any may send. All of it works through a shared reference.
#[derive(Debug)]
pub struct XskSocket {
    shared: Rc<Shared>,
    /// Of its descriptor in the table.
    index: u32,
}

/// What the socket and the turn's end have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    fd: Fd,
    rings: RefCell<Rings>,
    memory: Memory,
    /// Frames to send in that are free.
    free: RefCell<Vec<u64>>,
    /// On the list of those that have something to send.
    listed: Cell<bool>,
    /// Its descriptor is open.
    open: Cell<bool>,
    counts: Cell<XskCounts>,
}

impl XskSocket {
    /// Puts a socket to work on this thread's ring, which must not be a simulated one.
    #[must_use]
    pub fn new(xsk: Xsk) -> Self {
        let Xsk { rings, memory, fd, .. } = xsk;
        let fd = fd.into_raw_fd();
        let free = (FRAMES..2 * FRAMES).rev().map(|frame| u64::from(frame) * FRAME_BYTES as u64).collect();
        let shared = Rc::new(Shared {
            fd,
            rings: RefCell::new(rings),
            memory,
            free: RefCell::new(free),
            listed: Cell::new(false),
            open: Cell::new(true),
            counts: Cell::default(),
        });
        let index = reactor::with(|reactor| {
            debug_assert!(reactor.driver.borrow().is_real(), "a simulated kernel has no AF_XDP");
            reactor.table.borrow_mut().add_datagrams(fd, false, false, UdpGranted::default())
        });
        Self { shared, index }
    }

    /// Hands what has arrived to `take`, frame by frame. `Ready` with their number, at least 1; `Pending` when there is nothing, and the task is woken when there is.
    ///
    /// `take` may send on this socket. Under a flood it is always ready: a task lets others run between two calls.
    pub fn poll_receive(&self, _cx: &mut Context<'_>, take: &mut dyn FnMut(&mut [u8])) -> Poll<usize> {
        let mut handed = 0;
        while handed < FRAMES_A_CALL
            && let Some(frame) = self.next_frame()
        {
            handed += 1;
            if let Some(place) = self.shared.memory.place(frame.address, frame.length) {
                // SAFETY: the kernel has given this frame to us with its entry in the receive ring, and gets it back below; frames to send in are others.
                take(unsafe { place.as_slice() });
            }
            // Where the frame began, and not where its bytes did.
            let begins = frame.address / FRAME_BYTES as u64 * FRAME_BYTES as u64;
            self.shared.rings.borrow_mut().fill.push(begins);
        }
        if handed > 0 {
            self.settle(handed);
            return Poll::Ready(handed);
        }
        reactor::with(|reactor| {
            let mut table = reactor.table.borrow_mut();
            table.await_datagrams(self.index, reactor.exec.current());
        });
        // What came before the poll is armed makes it ready at once.
        Poll::Pending
    }

    fn next_frame(&self) -> Option<Frame> {
        self.shared.rings.borrow_mut().received.pop()
    }

    /// Gives back what was received.
    fn settle(&self, handed: usize) {
        let rings = self.shared.rings.borrow();
        rings.received.release();
        rings.fill.publish();
        let counts = self.shared.counts.get();
        self.shared.counts.set(XskCounts { received: counts.received + handed as u64, ..counts });
        if rings.fill.wants_wakeup() {
            drop(rings);
            // The driver has run out of frames and sleeps. Where it never does, the flag is never set.
            self.shared.prod(libc::POLLIN);
        }
    }

    /// Sends `count` frames at the end of the turn: `write` is called for each with its number and memory of [`FRAME_BYTES`], and returns how many of those are the frame.
    /// False, and nothing is written, where fewer frames are free.
    pub fn send(&self, count: usize, mut write: impl FnMut(usize, &mut [u8]) -> usize) -> bool {
        let shared = &self.shared;
        if !shared.has_free(count) {
            let counts = shared.counts.get();
            shared.counts.set(XskCounts { full: counts.full + count as u64, ..counts });
            return false;
        }
        for number in 0..count {
            let Some(address) = shared.free.borrow_mut().pop() else { break };
            let Some(place) = shared.memory.place(address, FRAME_BYTES as u32) else { continue };
            // SAFETY: a frame that stands in no ring is ours alone, and this one was taken off the list of those.
            let length = write(number, unsafe { place.as_slice() }).min(FRAME_BYTES);
            let frame = Frame { address, length: length as u32, options: 0 };
            shared.rings.borrow_mut().send.push(frame);
        }
        shared.rings.borrow_mut().send.publish();
        let counts = shared.counts.get();
        shared.counts.set(XskCounts { sent: counts.sent + count as u64, ..counts });
        if !shared.listed.replace(true) {
            reactor::with(|reactor| reactor.table.borrow_mut().kicks.push(Rc::clone(shared)));
        }
        true
    }

    /// What it has done.
    #[must_use]
    pub fn counts(&self) -> XskCounts {
        self.shared.counts.get()
    }

    /// Frames for it that were lost because none of ours was free, as the kernel counts.
    #[must_use]
    pub fn lost(&self) -> u64 {
        // SAFETY: open while the handle exists, which the borrow is of.
        let fd = unsafe { BorrowedFd::borrow_raw(self.shared.fd) };
        let told = rings::get::<libc::xdp_statistics>(fd, libc::XDP_STATISTICS);
        told.map_or(0, |told| told.rx_dropped + told.rx_ring_full)
    }
}

impl Drop for XskSocket {
    fn drop(&mut self) {
        self.shared.open.set(false);
        reactor::try_with(|reactor| reactor.table.borrow_mut().abandon_datagrams(self.index));
    }
}

impl Shared {
    /// Whether so many frames to send in are free, after a look at what has been sent and, at need, a kick.
    fn has_free(&self, count: usize) -> bool {
        for attempt in 0..3 {
            if self.free.borrow().len() >= count {
                return true;
            }
            if attempt == 1 {
                self.kick();
            }
            self.reclaim();
        }
        false
    }

    /// Takes back what has been sent.
    fn reclaim(&self) {
        let mut rings = self.rings.borrow_mut();
        let mut free = self.free.borrow_mut();
        while let Some(address) = rings.completed.pop() {
            free.push(address);
        }
        rings.completed.release();
    }

    /// Has the kernel send what is in the ring; true when nothing is left to be done about it.
    fn kick(&self) -> bool {
        let left = self.left_to_kick();
        // Where the kernel copies, a call takes as many as it has been granted to; older kernels grant no more than that.
        for _ in 0..left.div_ceil(KICK_FRAMES_MIN) {
            let counts = self.counts.get();
            self.counts.set(XskCounts { kicks: counts.kicks + 1, ..counts });
            // SAFETY: a call without memory.
            let called = unsafe { libc::sendto(self.fd, std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
            // EAGAIN is the word for both "there are more" and "the device has no room".
            if called >= 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EAGAIN) {
                break;
            }
        }
        self.left_to_kick() == 0
    }

    /// Frames that the kernel does not take unless it is called.
    fn left_to_kick(&self) -> u32 {
        let rings = self.rings.borrow();
        if rings.send.wants_wakeup() { rings.send.outstanding() } else { 0 }
    }

    /// Lets a driver that sleeps look at its rings.
    fn prod(&self, events: i16) {
        let mut poll = libc::pollfd { fd: self.fd, events, revents: 0 };
        // SAFETY: one entry, valid for the call, which does not wait.
        unsafe { libc::poll(&raw mut poll, 1, 0) };
    }

    /// At the turn's end: whether there is nothing more to do. What a device has no room for stays in the ring and is tried again.
    pub(crate) fn settle_sends(&self) -> bool {
        if !self.open.get() || self.kick() {
            self.listed.set(false);
            return true;
        }
        false
    }
}
