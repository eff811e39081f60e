//! A listening socket: multishot accept, one per worker in a reuseport group.

/// How a listening socket is bound.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// Joins the reuseport group of the address: one socket a worker. Default: true.
    pub reuse_port: bool,
    /// Length of the accept queue. Default: 4,096 (the kernel caps it by `net.core.somaxconn`).
    pub backlog: i32,
    /// An IPv6 wildcard takes no IPv4 connections. Default: false.
    pub only_v6: bool,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { reuse_port: true, backlog: 4_096, only_v6: false }
    }
}

use std::future::poll_fn;
use std::io;
use std::os::fd::BorrowedFd;
use std::task::Poll;

use super::{Address, Socket, Stream};
use crate::reactor;

/// A listening socket of this thread's ring. Dropping it closes it; connections accepted by the kernel and not taken
/// yet are closed with it.
#[derive(Debug)]
pub struct Listener {
    index: u32,
}

impl Listener {
    /// Binds and listens.
    pub fn bind(address: &Address, options: &ListenOptions) -> io::Result<Self> {
        reactor::with(|reactor| {
            let fd = reactor.driver.borrow_mut().listen(address, options)?;
            Ok(Self { index: reactor.table.borrow_mut().add_listener(fd) })
        })
    }

    /// The address bound, with the port that the kernel chose for port 0.
    pub fn local(&self) -> io::Result<Address> {
        reactor::with(|reactor| {
            let fd = reactor.table.borrow().listener_fd(self.index);
            reactor.driver.borrow().local(fd)
        })
    }

    /// The socket itself, to attach a program to its reuseport group; `None` in a simulation.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        reactor::with(|reactor| {
            let fd = reactor.table.borrow().listener_fd(self.index);
            // SAFETY: open while the handle exists, which the borrow is of: the table closes it after `abandon_listener`.
            reactor.driver.borrow().is_real().then(|| unsafe { BorrowedFd::borrow_raw(fd) })
        })
    }

    /// Waits for the next connection.
    ///
    /// `ConnectionAborted` concerns one connection only; running out of descriptors or memory (`EMFILE`, `ENFILE`,
    /// `ENOBUFS`, `ENOMEM`) asks for a pause before the next call.
    pub async fn accept(&mut self) -> io::Result<Stream> {
        self.accept_socket().await.map(Socket::into_stream)
    }

    /// As [`accept`](Self::accept), of a connection that may yet become another thread's.
    pub async fn accept_socket(&mut self) -> io::Result<Socket> {
        poll_fn(|_| {
            reactor::with(|reactor| {
                let task = reactor.exec.current();
                match reactor.table.borrow_mut().accept(self.index, task) {
                    None => Poll::Pending,
                    Some(accepted) => {
                        Poll::Ready(accepted.map(|fd| Socket::new(fd, reactor.driver.borrow().is_real())))
                    }
                }
            })
        })
        .await
    }
}

impl Listener {
    /// Accepts no more. [`accept`](Self::accept) then hands out what has been accepted already, and ends with
    /// `NotConnected`. The socket stays bound until it is dropped.
    pub fn stop(&mut self) {
        reactor::with(|reactor| reactor.table.borrow_mut().stop_listener(self.index));
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        reactor::try_with(|reactor| reactor.table.borrow_mut().abandon_listener(self.index));
    }
}
