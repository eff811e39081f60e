//! A connected byte stream: receives whole buffers, sends whole buffers, never copies one.

use std::future::poll_fn;
use std::io;
use std::os::fd::BorrowedFd;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{Address, Socket};
use crate::buf::Buf;
use crate::reactor;
use crate::table::Appetite;
use crate::timer::Timer;

/// A connection of this thread's ring.
///
/// Dropping it cancels what is in flight and closes it, whatever is still unsent; [`linger`] ends one politely. The
/// `poll_` functions must be polled by a task of this ring.
#[derive(Debug)]
pub struct Stream {
    pub(super) index: u32,
}

impl Stream {
    pub(crate) fn new(index: u32) -> Self {
        Self { index }
    }

    /// Connects to `address`.
    pub async fn connect(address: &Address) -> io::Result<Self> {
        Self::connect_as(address, None).await
    }

    /// As [`connect`](Self::connect), with a socket of this priority (`SO_PRIORITY`) as far as that is granted.
    pub async fn connect_as(address: &Address, priority: Option<u32>) -> io::Result<Self> {
        let stream = reactor::with(|reactor| {
            let storage = address.to_storage()?;
            let mut driver = reactor.driver.borrow_mut();
            let fd = driver.socket(address)?;
            if let Some(priority) = priority.filter(|_| driver.is_real()) {
                // SAFETY: the socket was opened just now, and is closed by the table at the earliest.
                let _ = super::set_priority(unsafe { BorrowedFd::borrow_raw(fd) }, priority);
            }
            drop(driver);
            let mut table = reactor.table.borrow_mut();
            let stream = Self::new(table.add_stream(fd));
            table.connect(stream.index, storage);
            Ok::<_, io::Error>(stream)
        })?;
        poll_fn(|_| {
            reactor::with(|reactor| {
                let task = reactor.exec.current();
                reactor.table.borrow_mut().connected(stream.index, task).map_or(Poll::Pending, Poll::Ready)
            })
        })
        .await?;
        Ok(stream)
    }

    /// The other end's address.
    pub fn peer(&self) -> io::Result<Address> {
        reactor::with(|reactor| {
            let fd = reactor.table.borrow().stream_fd(self.index);
            reactor.driver.borrow().peer(fd)
        })
    }

    /// Whose process is at the other end of a Unix socket, as the kernel knows it: a user's number. `None` over TCP.
    pub fn peer_user(&self) -> Option<u32> {
        reactor::with(|reactor| {
            let fd = reactor.table.borrow().stream_fd(self.index);
            reactor.driver.borrow().peer_user(fd)
        })
    }

    /// This end's address.
    pub fn local(&self) -> io::Result<Address> {
        reactor::with(|reactor| {
            let fd = reactor.table.borrow().stream_fd(self.index);
            reactor.driver.borrow().local(fd)
        })
    }

    /// How it receives from now on; bytes already on their way still arrive.
    pub fn set_appetite(&mut self, appetite: Appetite) {
        reactor::with(|reactor| reactor.table.borrow_mut().set_appetite(self.index, appetite));
    }

    /// Takes what has arrived; `None` is the end of the stream. A failed send shows here too.
    #[inline]
    pub fn poll_recv(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<Option<Buf>>> {
        reactor::with(|reactor| {
            let task = reactor.exec.current();
            reactor.table.borrow_mut().recv(self.index, task).map_or(Poll::Pending, Poll::Ready)
        })
    }

    /// As [`poll_recv`](Self::poll_recv), of what is here already: waits for nothing, and receives nothing more.
    pub fn received(&mut self) -> Option<io::Result<Option<Buf>>> {
        reactor::with(|reactor| reactor.table.borrow_mut().received(self.index))
    }

    /// As [`poll_recv`](Self::poll_recv).
    pub async fn recv(&mut self) -> io::Result<Option<Buf>> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// Ready when a receive would not wait: bytes, the end, or an error. Holds no buffer meanwhile.
    #[inline]
    pub fn poll_readable(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        reactor::with(|reactor| {
            let task = reactor.exec.current();
            if reactor.table.borrow_mut().readable(self.index, task) { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    /// Ready when the connection has failed. Bytes that arrive, and an orderly end, are left for a receive.
    pub fn poll_broken(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        reactor::with(|reactor| {
            let task = reactor.exec.current();
            if reactor.table.borrow_mut().broken(self.index, task) { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    /// Ready when the other end will send nothing more: it has closed, or the connection has failed. Bytes that came before
    /// are left for a receive.
    pub fn poll_ended(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        reactor::with(|reactor| {
            let task = reactor.exec.current();
            let mut table = reactor.table.borrow_mut();
            if table.broken(self.index, task) || table.ended(self.index) { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    /// Keeps an eye on a connection that lies idle, without a task waiting for it: [`is_quiet`](Self::is_quiet) then
    /// sees what happens to it.
    pub fn watch(&mut self) {
        reactor::with(|reactor| reactor.table.borrow_mut().watch(self.index));
    }

    /// Puts bytes back in front of what is received next.
    pub fn unread(&mut self, buf: Buf) {
        if !buf.is_empty() {
            reactor::with(|reactor| reactor.table.borrow_mut().unread(self.index, buf));
        }
    }

    /// Nothing has arrived and nothing went wrong: an idle connection that may be used.
    pub fn is_quiet(&self) -> bool {
        reactor::with(|reactor| reactor.table.borrow().is_quiet(self.index))
    }

    /// Takes a connection on which nothing moves away from this ring, for another thread's. `None`, and the connection is closed: something
    /// has arrived on it, or gone wrong, or was still to be sent.
    pub async fn detach(self) -> Option<Socket> {
        let detached = poll_fn(|_| {
            reactor::with(|reactor| {
                let task = reactor.exec.current();
                reactor.table.borrow_mut().detach(self.index, task)
            })
        });
        let fd = detached.await?;
        // The table has forgotten it: there is nothing to be closed here.
        std::mem::forget(self);
        reactor::with(|reactor| {
            let mut driver = reactor.driver.borrow_mut();
            driver.forget(fd);
            Some(Socket::new(fd, driver.is_real()))
        })
    }

    /// Queues `buf`; all that is queued in one turn leaves in one send. Never waits: ask
    /// [`poll_sent`](Self::poll_sent) before queueing more than a little.
    #[inline]
    pub fn send(&mut self, buf: Buf) {
        reactor::with(|reactor| reactor.table.borrow_mut().send(self.index, buf));
    }

    /// Bytes queued or in flight.
    pub fn unsent(&self) -> usize {
        reactor::with(|reactor| reactor.table.borrow().unsent(self.index))
    }

    /// Ready when at most `most` bytes are unsent, or sending has failed.
    #[inline]
    pub fn poll_sent(&mut self, _cx: &mut Context<'_>, most: usize) -> Poll<io::Result<()>> {
        reactor::with(|reactor| {
            let task = reactor.exec.current();
            reactor.table.borrow_mut().sent(self.index, most, task).map_or(Poll::Pending, Poll::Ready)
        })
    }

    /// As [`poll_sent`](Self::poll_sent).
    pub async fn sent(&mut self, most: usize) -> io::Result<()> {
        poll_fn(|cx| self.poll_sent(cx, most)).await
    }

    /// Ends the sending side behind everything queued (FIN).
    pub fn finish(&mut self) {
        reactor::with(|reactor| reactor.table.borrow_mut().finish(self.index));
    }

    /// Will close with RST, so that the peer sees an error and not an end.
    pub fn reset_on_close(&mut self) {
        reactor::with(|reactor| reactor.table.borrow_mut().reset_on_close(self.index));
    }

    /// Closes with RST.
    pub fn reset(mut self) {
        self.reset_on_close();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        reactor::try_with(|reactor| reactor.table.borrow_mut().abandon(self.index));
    }
}

/// Ends a connection politely (RFC 9112 §9.6): sends what is queued, ends the sending side, then reads and drops what
/// the peer still sends, so that its unread bytes do not destroy our last words with an RST.
///
/// Gives up when `patience` has passed in which the peer has taken nothing of what is queued, or when `bytes_max` have been dropped.
pub async fn linger(stream: &mut Stream, patience: Duration, bytes_max: usize) {
    let now = || reactor::with(|reactor| reactor.now());
    let mut timer = Timer::new();
    timer.set(now() + patience);
    stream.finish();
    let (mut dropped, mut owed) = (0, stream.unsent());
    poll_fn(|cx| {
        while timer.poll_expired() {
            let before = std::mem::replace(&mut owed, stream.unsent());
            if owed >= before {
                return Poll::Ready(());
            }
            timer.set(now() + patience);
        }
        loop {
            match stream.poll_recv(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(Some(buf))) => dropped += buf.len(),
                Poll::Ready(Ok(None) | Err(_)) => break,
            }
            if dropped > bytes_max {
                return Poll::Ready(());
            }
        }
        // The peer has ended; what we still owe it goes out, if it will have it.
        stream.poll_sent(cx, 0).map(drop)
    })
    .await;
}
