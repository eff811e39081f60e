//! The op table: every operation in flight, and what it owns until its last completion.
//!
//! What holds here:
//! * An operation's token is slot and generation, so that a late or repeated completion finds nobody.
//! * A slot owns the memory that the kernel may touch (buffer, gather list, socket address). It is released in exactly
//!   one place, [`Ops::complete`], by the completion with `more == false`.
//! * A stream's descriptor is closed only when the stream's count of operations in flight is zero (see `reactor.rs`).

use crate::buf::Buf;
use crate::chunked::Chunked;
use crate::driver::Token;

/// Names an operation in flight.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct OpId {
    index: u32,
    generation: u32,
}

impl OpId {
    pub(crate) const NONE: Self = Self { index: u32::MAX, generation: 0 };

    pub(crate) fn is_none(self) -> bool {
        self.index == u32::MAX
    }

    /// 32 bits of slot, 24 of generation; the top byte stays clear of the drivers' reserved tokens.
    pub(crate) fn token(self) -> Token {
        u64::from(self.index) | u64::from(self.generation & 0xff_ffff) << 32
    }
}

/// What an operation is for: where its completion goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    Accept {
        listener: u32,
    },
    RecvOnce {
        stream: u32,
    },
    RecvMulti {
        stream: u32,
    },
    Send {
        stream: u32,
    },
    Connect {
        stream: u32,
    },
    /// A stream has something to be read; stands in the place of its receive.
    Arrived {
        stream: u32,
    },
    /// A stream has room to be written to; stands in the place of its send.
    Room {
        stream: u32,
    },
    /// Datagrams can be received.
    Readable {
        socket: u32,
    },
    /// Datagrams can be sent again.
    Writable {
        socket: u32,
    },
    /// Somebody waits for a descriptor to become readable; the number names the wait.
    Poll {
        wait: u32,
    },
    /// The reactor's own wake-up descriptor.
    Bell,
}

/// Memory that the kernel may touch while the operation is in flight.
#[derive(Debug)]
pub(crate) enum Owned {
    Nothing,
    Buf(Buf),
    Gather(Box<Gather>),
    /// Only the kernel reads it.
    Address(#[allow(dead_code, reason = "kept alive for the kernel")] Box<libc::sockaddr_storage>),
}

/// Buffers per gathering send at the most. A response in more pieces than this goes out in several.
pub(crate) const GATHER_MAX: usize = 16;

/// Several buffers that leave in one `sendmsg`.
pub(crate) struct Gather {
    pub(crate) bufs: Vec<Buf>,
    vectors: [libc::iovec; GATHER_MAX],
    message: libc::msghdr,
}

impl Gather {
    pub(crate) fn new() -> Box<Self> {
        // SAFETY: `iovec` and `msghdr` are plain data for which all zeroes is a value.
        let (vectors, message) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        Box::new(Self { bufs: Vec::with_capacity(GATHER_MAX), vectors, message })
    }

    /// The kernel's view of `bufs`, valid while this box lives and `bufs` is not touched. Also returns the total bytes.
    pub(crate) fn message(&mut self) -> (*const libc::msghdr, usize) {
        debug_assert!(self.bufs.len() <= GATHER_MAX);
        let mut total = 0;
        for (vector, buf) in self.vectors.iter_mut().zip(&mut self.bufs) {
            let bytes = buf.bytes_mut();
            total += bytes.len();
            *vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        }
        self.message.msg_iov = self.vectors.as_mut_ptr();
        self.message.msg_iovlen = self.bufs.len() as _;
        (&raw const self.message, total)
    }
}

impl std::fmt::Debug for Gather {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.bufs.fmt(f)
    }
}

pub(crate) struct Ops {
    slots: Chunked<Slot>,
    free: Vec<u32>,
    /// Completions that named no operation in flight: late, repeated, or of a reused slot.
    pub(crate) stale: u64,
}

struct Slot {
    generation: u32,
    purpose: Option<Purpose>,
    owned: Owned,
}

impl Ops {
    pub(crate) const fn new() -> Self {
        Self { slots: Chunked::new(), free: Vec::new(), stale: 0 }
    }

    /// Operations in flight.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Every operation in flight.
    pub(crate) fn in_flight(&self) -> impl Iterator<Item = OpId> {
        let busy = self.slots.iter().enumerate().filter(|(_, slot)| slot.purpose.is_some());
        busy.map(|(index, slot)| OpId { index: index as u32, generation: slot.generation })
    }

    /// Registers an operation before it is submitted.
    pub(crate) fn begin(&mut self, purpose: Purpose, owned: Owned) -> OpId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, purpose: None, owned: Owned::Nothing });
            (self.slots.len() - 1) as u32
        });
        let slot = &mut self.slots[index as usize];
        debug_assert!(slot.purpose.is_none(), "an operation's slot was given out twice");
        slot.purpose = Some(purpose);
        slot.owned = owned;
        OpId { index, generation: slot.generation }
    }

    /// What a completion is for. With `more == false` the operation is over: its slot is free again and what it owned
    /// is returned. `None`: the token names no operation in flight.
    #[inline]
    pub(crate) fn complete(&mut self, token: Token, more: bool) -> Option<(Purpose, Owned)> {
        let (index, generation) = (token as u32, (token >> 32) as u32);
        let slot = self.slots.get_mut(index as usize).filter(|slot| slot.generation & 0xff_ffff == generation);
        let Some((slot, purpose)) = slot.and_then(|slot| slot.purpose.map(|purpose| (slot, purpose))) else {
            self.stale += 1;
            return None;
        };
        if more {
            return Some((purpose, Owned::Nothing));
        }
        slot.purpose = None;
        slot.generation = slot.generation.wrapping_add(1);
        let owned = std::mem::replace(&mut slot.owned, Owned::Nothing);
        self.free.push(index);
        Some((purpose, owned))
    }

    /// Keeps for ever what the kernel might still touch. For the end of a ring that would not come to rest.
    pub(crate) fn leak(&mut self) {
        for slot in self.slots.iter_mut() {
            std::mem::forget(std::mem::replace(&mut slot.owned, Owned::Nothing));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_completion_of_a_reused_slot_finds_nobody() {
        let mut ops = Ops::new();
        let first = ops.begin(Purpose::Send { stream: 1 }, Owned::Buf(Buf::copy_of(b"x")));
        assert!(matches!(ops.complete(first.token(), false), Some((Purpose::Send { stream: 1 }, Owned::Buf(_)))));
        let second = ops.begin(Purpose::RecvMulti { stream: 2 }, Owned::Nothing);
        assert_ne!(first.token(), second.token());
        assert!(ops.complete(first.token(), false).is_none());
        assert!(ops.complete(second.token(), true).is_some());
        assert!(ops.complete(second.token(), false).is_some());
        assert!(ops.complete(second.token(), false).is_none());
        assert_eq!((ops.len(), ops.stale), (0, 2));
    }
}
