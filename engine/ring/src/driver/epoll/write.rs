//! One attempt of each operation on the writing side: connects and sends.

use std::io;

use super::places::{Op, Side};
use super::{Epoll, Tried, check, negative};
use crate::driver::{Fd, Request};

impl Epoll {
    pub(super) fn try_connect(&mut self, fd: Fd, op: Op, addr: *const libc::sockaddr_storage, len: u32) -> Tried {
        if op.progress == 0 {
            self.counts.calls += 1;
            // SAFETY: `addr` is valid for `len` bytes until this operation's completion, which is yet to come.
            return match check(unsafe { libc::connect(fd, addr.cast(), len) }) {
                Ok(_) => Tried::Done(0),
                // Interrupted or under way: the kernel goes on and says so by EPOLLOUT.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINPROGRESS | libc::EINTR)) => {
                    self.descriptors[fd as usize].writable = false;
                    self.advance(fd, Side::Write, 1);
                    Tried::Waits
                }
                Err(error) => Tried::Done(negative(&error)),
            };
        }
        if !self.descriptors[fd as usize].writable {
            return Tried::Waits;
        }
        self.counts.calls += 1;
        Tried::Done(-pending_error(fd))
    }

    pub(super) fn try_send(&mut self, fd: Fd, mut op: Op) -> Tried {
        let total = wanted(&op.request);
        while self.descriptors[fd as usize].writable {
            self.counts.calls += 1;
            match self.send_rest(fd, &op) {
                Ok(sent) => {
                    op.progress += sent;
                    if op.progress == total {
                        self.counts.sends += 1;
                        return Tried::Done(total as i32);
                    }
                    // Taking less than offered means full: EPOLLOUT will follow.
                    self.descriptors[fd as usize].writable = false;
                    self.advance(fd, Side::Write, op.progress);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.descriptors[fd as usize].writable = false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if op.progress > 0 => return Tried::Done(op.progress as i32),
                Err(error) => return Tried::Done(negative(&error)),
            }
        }
        Tried::Waits
    }

    /// Offers the kernel everything that a send has left.
    fn send_rest(&mut self, fd: Fd, op: &Op) -> io::Result<usize> {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        let sent = match op.request {
            Request::Send { ptr, len, .. } => {
                // SAFETY: `ptr` is valid for `len` bytes until this operation's last completion, and `progress <= len`.
                unsafe { libc::send(fd, ptr.add(op.progress).cast(), len as usize - op.progress, flags) }
            }
            Request::SendMsg { msg, .. } if op.progress == 0 => {
                // SAFETY: `msg` and all that it points to are valid until this operation's last completion.
                unsafe { libc::sendmsg(fd, msg, flags) }
            }
            Request::SendMsg { msg, .. } => {
                rest_of(msg, op.progress, &mut self.gather);
                // SAFETY: `msghdr` is plain data for which all zeroes is a value.
                let mut rest: libc::msghdr = unsafe { std::mem::zeroed() };
                rest.msg_iov = self.gather.as_mut_ptr();
                rest.msg_iovlen = self.gather.len() as _;
                // SAFETY: `rest` and `gather` live through the call; the memory they name does as above.
                unsafe { libc::sendmsg(fd, &rest, flags) }
            }
            _ => unreachable!("only sends get here"),
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
    }
}

/// The bytes that a send is to bring over.
fn wanted(request: &Request) -> usize {
    match *request {
        Request::Send { len, .. } => len as usize,
        Request::SendMsg { msg, .. } => pieces(msg).iter().map(|piece| piece.iov_len).sum(),
        _ => unreachable!("only sends get here"),
    }
}

fn pieces<'a>(msg: *const libc::msghdr) -> &'a [libc::iovec] {
    // SAFETY: the op table keeps `msg` and its iovecs valid until the last completion; callers do not keep the slice.
    unsafe {
        let msg = &*msg;
        if msg.msg_iovlen == 0 { &[] } else { std::slice::from_raw_parts(msg.msg_iov, msg.msg_iovlen) }
    }
}

/// Fills `gather` with the pieces of `msg` behind its first `skip` bytes.
pub(super) fn rest_of(msg: *const libc::msghdr, mut skip: usize, gather: &mut Vec<libc::iovec>) {
    gather.clear();
    for piece in pieces(msg) {
        let skipped = skip.min(piece.iov_len);
        skip -= skipped;
        if skipped < piece.iov_len {
            let base = piece.iov_base.cast::<u8>().wrapping_add(skipped);
            gather.push(libc::iovec { iov_base: base.cast(), iov_len: piece.iov_len - skipped });
        }
    }
}

/// The positive `errno` that waits on the socket, 0 for none.
fn pending_error(fd: Fd) -> i32 {
    let mut error: i32 = 0;
    let mut len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: `error` and `len` are valid for the call, and `len` is the size of `error`.
    let got = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, (&raw mut error).cast(), &mut len) };
    if got < 0 { -negative(&io::Error::last_os_error()) } else { error }
}
