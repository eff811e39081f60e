//! A seeded simulated kernel: the third driver, for tests.
//!
//! A [`World`] holds one node (a reactor that was given `DriverChoice::Sim(world.node())`), a network, and hosts on it that
//! run [scripts](Host): clients and origins as `async` code. Time is virtual: when the node sleeps, the world jumps to what
//! happens next. It speaks completions, as io_uring does, and so goes wrong in the ways in which io_uring can: see
//! [`Faults`] for each with its source.
//!
//! What holds here:
//! * A run follows from the seed, the faults and the code alone; [`check`] prints the command that repeats it.
//! * The promise of every owner of operations is watched: [`World::verdict`] tells what was done to memory or
//!   descriptors in flight, and what was left behind.
//! * A run that cannot go on, or does not end, panics and says who waits.
//!
//! Deliberately absent: threads, several nodes, files.
//!
//! ```ignore
//! sim::check("echoes", 1_000, |seed| {
//!     let world = World::new(seed, Faults::from_seed(seed).harmless());
//!     let client = world.spawn("client", |host| async move {
//!         let socket = host.connect(&"10.0.0.1:80".parse::<SocketAddr>().unwrap().into()).await.unwrap();
//!         socket.send_split(&host, b"hello", Duration::from_millis(1)).await.unwrap();
//!         socket.shutdown_write();
//!         assert_eq!(socket.recv_to_end().await.unwrap(), b"hello");
//!     });
//!     run_the_node(DriverChoice::Sim(world.node()), client);
//!     world.verdict()
//! });
//! ```

mod datagrams;
mod dice;
mod faults;
mod kernel;
mod net;
mod ops;
mod postbox;
mod replay;
mod script;
mod splice;
mod trace;
mod world;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;

pub use dice::Dice;
pub use faults::Faults;
pub use postbox::{Letter, Postbox};
pub use replay::{check, replay_hint, seeds};
pub use script::{Host, Listening, Script, Socket};
pub use world::{Node, World};

use super::{Batch, Completion, DriverCounts, Fd, Granted, Request, SEGMENTS_MAX, Token, Wait};
use crate::net::{Address, ListenOptions, Transmit, UdpGranted, UdpOptions};
use kernel::Shared;

/// The driver of a world's node.
pub(crate) struct Sim {
    shared: Shared,
}

impl Sim {
    /// # Panics
    /// If the node's world is gone, or another thread's.
    pub(crate) fn new(node: Node) -> Self {
        Self { shared: node.shared() }
    }

    pub(crate) fn submit(&self, token: Token, request: Request) {
        self.shared.borrow_mut().submit(token, request);
    }

    pub(crate) fn turn(&self, wait: Wait, mut sink: impl FnMut(Completion<'_>)) -> io::Result<()> {
        self.shared.borrow_mut().begin_turn();
        let deadline = self.deadline(wait);
        script::run_due(&self.shared);
        while !self.has_news() && self.sleep(deadline) {
            script::run_due(&self.shared);
        }
        self.hand_out(&mut sink);
        Ok(())
    }

    pub(crate) fn listen(&self, address: &Address, options: &ListenOptions) -> io::Result<Fd> {
        let kernel = &mut *self.shared.borrow_mut();
        let backlog = usize::try_from(options.backlog).unwrap_or(0);
        let socket = kernel.listen_at(address, backlog).map_err(io::Error::from_raw_os_error)?;
        Ok(kernel.give_descriptor(socket))
    }

    pub(crate) fn socket(&self, address: &Address) -> io::Result<Fd> {
        let kernel = &mut *self.shared.borrow_mut();
        let local = match address {
            Address::Inet(_) => kernel.node_address(),
            Address::Unix(_) => Address::Unix(std::path::PathBuf::new()),
        };
        let socket = kernel.open(local);
        Ok(kernel.give_descriptor(socket))
    }

    pub(crate) fn bind_datagrams(&self, address: SocketAddr, options: &UdpOptions) -> io::Result<(Fd, UdpGranted)> {
        let kernel = &mut *self.shared.borrow_mut();
        let socket = kernel.bind_datagrams(address, options).map_err(io::Error::from_raw_os_error)?;
        let granted = UdpGranted {
            gso_segments: SEGMENTS_MAX,
            gro: true,
            receive_buffer: options.receive_buffer,
            send_buffer: options.send_buffer,
            missing: Vec::new(),
        };
        Ok((kernel.give_descriptor(socket), granted))
    }

    pub(crate) fn receive_datagrams(&self, fd: Fd, batch: &mut Batch) -> io::Result<()> {
        let kernel = &mut *self.shared.borrow_mut();
        let socket = kernel.lookup(fd).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
        kernel.receive_datagrams(socket, batch);
        Ok(())
    }

    pub(crate) fn send_datagrams(&self, fd: Fd, transmit: &Transmit<'_>) -> io::Result<()> {
        let kernel = &mut *self.shared.borrow_mut();
        let socket = kernel.lookup(fd).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
        kernel.send_datagrams(socket, transmit).map_err(io::Error::from_raw_os_error)
    }

    pub(crate) fn peer(&self, fd: Fd) -> io::Result<Address> {
        let kernel = self.shared.borrow();
        let remote = kernel.lookup(fd).and_then(|socket| kernel.socket(socket).remote.clone());
        remote.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Nobody is at the other end of a simulated socket.
    pub(crate) fn peer_user(&self, _: Fd) -> Option<u32> {
        None
    }

    pub(crate) fn local(&self, fd: Fd) -> io::Result<Address> {
        let kernel = self.shared.borrow();
        let local = kernel.lookup(fd).map(|socket| kernel.socket(socket).local.clone());
        local.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    pub(crate) fn shutdown(&self, fd: Fd, both: bool) {
        let kernel = &mut *self.shared.borrow_mut();
        match kernel.lookup(fd) {
            Some(socket) => kernel.end(socket, both),
            None => kernel.violation(format!("shutdown of {fd}, which is not open")),
        }
    }

    pub(crate) fn close(&self, fd: Fd, reset: bool) {
        self.shared.borrow_mut().close_descriptor(fd, reset);
    }

    #[inline]
    pub(crate) fn clock(&self) -> u64 {
        self.shared.borrow().now
    }

    pub(crate) fn granted(&self) -> Granted {
        Granted { driver: "sim", features: Vec::new(), missing: Vec::new() }
    }

    pub(crate) fn counts(&self) -> DriverCounts {
        self.shared.borrow().counts
    }
}

/// The turn's parts.
impl Sim {
    /// When the node wants to be back at the latest; `None` for never.
    fn deadline(&self, wait: Wait) -> Option<u64> {
        let kernel = &mut *self.shared.borrow_mut();
        match wait {
            Wait::None => Some(kernel.now),
            Wait::AtMost(_) | Wait::Forever if kernel.dice.chance(kernel.faults.spurious_turn) => Some(kernel.now),
            Wait::AtMost(time) => Some(kernel.now + time.as_nanos() as u64 + kernel.dice.span(kernel.faults.oversleep)),
            Wait::Forever => None,
        }
    }

    fn has_news(&self) -> bool {
        let kernel = self.shared.borrow();
        kernel.woken || kernel.next_due().is_some_and(|due| due <= kernel.now)
    }

    /// Jumps to what happens next, or to the deadline; false if the turn is over.
    ///
    /// # Panics
    /// If the node waits for ever in a world where nothing will happen.
    fn sleep(&self, deadline: Option<u64>) -> bool {
        let kernel = &mut *self.shared.borrow_mut();
        kernel.poll_real();
        let next = [kernel.next_event(), kernel.next_due()].into_iter().flatten().min();
        match (next, deadline) {
            (Some(next), deadline) if deadline.is_none_or(|deadline| next <= deadline) => {
                kernel.now = kernel.now.max(next)
            }
            (_, Some(deadline)) => {
                kernel.now = kernel.now.max(deadline);
                return false;
            }
            (_, None) if kernel.giving_up() => return false,
            (_, None) => {
                kernel.given_up = true;
                panic!("the node sleeps for ever, and nothing will ever happen\n{}", kernel.who_waits());
            }
        }
        true
    }

    fn hand_out(&self, sink: &mut impl FnMut(Completion<'_>)) {
        let (reaped, stale) = {
            let kernel = &mut *self.shared.borrow_mut();
            kernel.woken = false;
            (kernel.reaped(), kernel.stale_completion())
        };
        if let Some((token, result)) = stale {
            sink(Completion { token, result, more: false, bytes: &[] });
        }
        for _ in 0..reaped {
            // The kernel is free again while the sink runs.
            let next = self.shared.borrow_mut().next_completion();
            let Some(finished) = next else { break };
            sink(finished.completion());
        }
    }
}
