//! Where an operation waits: each descriptor has a place for one that reads and one that writes; the rest stand behind.

use std::hash::Hasher;

use super::Epoll;
use crate::driver::{Fd, RESERVED_TOKENS, Request, Token};

/// Which of a descriptor's two places an operation takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Side {
    Read,
    Write,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Op {
    pub(super) token: Token,
    pub(super) request: Request,
    /// Bytes that a send has passed to the kernel; for a connect, 1 once it is under way.
    pub(super) progress: usize,
}

/// What the driver knows of one descriptor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    pub(super) read: Option<Op>,
    pub(super) write: Option<Op>,
    /// Reading may yield something; false once it has been seen empty.
    pub(super) readable: bool,
    /// Writing may take something; false once it has been seen full.
    pub(super) writable: bool,
    /// A short read does not mean empty: the end, an error or urgent data may stand behind it.
    pub(super) careful: bool,
    /// In the epoll set.
    pub(super) watched: bool,
    /// In the queue of descriptors to try in the coming turn.
    pub(super) queued: bool,
}

impl Default for Descriptor {
    fn default() -> Self {
        Self { read: None, write: None, readable: true, writable: true, careful: false, watched: false, queued: false }
    }
}

impl Epoll {
    pub(super) fn place(&mut self, fd: Fd, side: Side, op: Op) {
        debug_assert!(fd >= 0 && op.token < RESERVED_TOKENS);
        if fd as usize >= self.descriptors.len() {
            self.descriptors.resize(fd as usize + 1, Descriptor::default());
        }
        let known = self.places.insert(op.token, (fd, side));
        debug_assert!(known.is_none(), "token {:#x} is in flight already", op.token);
        let place = self.slot(fd, side);
        if place.is_some() {
            self.behind.push_back((fd, side, op));
        } else {
            *place = Some(op);
            self.enqueue(fd);
        }
    }

    pub(super) fn slot(&mut self, fd: Fd, side: Side) -> &mut Option<Op> {
        let descriptor = &mut self.descriptors[fd as usize];
        match side {
            Side::Read => &mut descriptor.read,
            Side::Write => &mut descriptor.write,
        }
    }

    pub(super) fn enqueue(&mut self, fd: Fd) {
        let descriptor = &mut self.descriptors[fd as usize];
        if !descriptor.queued {
            descriptor.queued = true;
            self.queue.push_back(fd);
        }
    }

    /// Frees the operation's place for one that waits behind it.
    pub(super) fn retire(&mut self, fd: Fd, side: Side) {
        let Some(op) = self.slot(fd, side).take() else { return };
        self.places.remove(&op.token);
        if let Some(index) = self.behind.iter().position(|&(f, s, _)| (f, s) == (fd, side)) {
            let (_, _, next) = self.behind.remove(index).expect("just found");
            *self.slot(fd, side) = Some(next);
            self.enqueue(fd);
        }
    }

    /// The target completes in the coming turn: with what it has sent, or with `-ECANCELED`.
    pub(super) fn cancel(&mut self, target: Token) {
        let Some(&(fd, side)) = self.places.get(&target) else { return };
        if let Some(index) = self.behind.iter().position(|(_, _, op)| op.token == target) {
            self.behind.remove(index);
            self.places.remove(&target);
            self.finished.push_back((target, -libc::ECANCELED));
            return;
        }
        let op = self.slot(fd, side).expect("a placed operation is in its place");
        let sends = matches!(op.request, Request::Send { .. } | Request::SendMsg { .. });
        let sent = if sends { op.progress } else { 0 };
        self.retire(fd, side);
        self.finished.push_back((target, if sent > 0 { sent as i32 } else { -libc::ECANCELED }));
    }

    pub(super) fn advance(&mut self, fd: Fd, side: Side, progress: usize) {
        if let Some(op) = self.slot(fd, side) {
            op.progress = progress;
        }
    }
}

/// Tokens are a slot and a generation: one multiplication spreads them well enough.
#[derive(Default)]
pub(in crate::driver) struct TokenHasher(u64);

impl Hasher for TokenHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, token: u64) {
        self.0 = (self.0 ^ token).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 ^= self.0 >> 32;
    }
}
