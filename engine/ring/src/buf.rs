//! Owned, pooled byte buffers: what travels from a receive to a send without being copied.
//!
//! What holds here:
//! * A [`Buf`]'s memory is always initialised (fresh memory is zeroed once), so its spare room is an ordinary slice.
//! * Free buffers are kept per thread and size class, last in, first out: the next one taken is the one still in cache.
//! * What a thread holds free beyond what it used in the last interval is given back ([`trim`]).
//!
//! Deliberately absent: reference counts and sharing. A buffer has one owner; the op table is that owner while the
//! kernel may touch it.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::fmt;
use std::ptr::NonNull;

/// Room left in front of received bytes, so that a rewritten head can be laid directly before the body that arrived
/// behind the original one, and both leave in one send. Most rewritten heads grow by less than 300 bytes.
pub const HEADROOM: usize = 512;

/// Capacity of each size class in bytes.
///
/// * 4 KiB: most heads and small messages, one page;
/// * 20 KiB: a head of the largest size allowed (16 KiB) with room on both sides;
/// * 68 KiB: a 64 KiB receive of a body with room for its framing;
/// * 260 KiB: a 256 KiB receive of a fast bulk body.
const CLASS_BYTES: [usize; 4] = [4 << 10, 20 << 10, 68 << 10, 260 << 10];

/// Free buffers a thread keeps of each class at the most: 8 MiB a class, enough for every one of 1,024 busy
/// connections to hold two small ones in steady state without asking the allocator.
const FREE_MAX: [usize; 4] = [2_048, 409, 120, 31];

/// An owned buffer: bytes in use between two offsets, with room before and behind.
///
/// 16 bytes: every idle connection holds room for several. The size class lives in the low bits of the address, which the
/// memory's alignment leaves free.
pub struct Buf {
    tagged: NonNull<u8>,
    start: u32,
    end: u32,
}

// SAFETY: a buffer is the only owner of its memory, which any thread may free: the lists of free memory are each thread's own, and take in
// what comes from elsewhere.
unsafe impl Send for Buf {}

impl AsRef<[u8]> for Buf {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

/// Alignment of a buffer's memory: a cache line, and six free bits in its address.
const ALIGN: usize = 64;

impl Buf {
    /// An empty buffer able to hold `bytes` behind [`HEADROOM`]; larger requests get the largest class.
    pub fn with_room(bytes: usize) -> Self {
        let class = (0..CLASS_BYTES.len())
            .find(|&class| CLASS_BYTES[class] - HEADROOM >= bytes)
            .unwrap_or(CLASS_BYTES.len() - 1);
        Self { tagged: take(class).map_addr(|address| address | class), start: HEADROOM as u32, end: HEADROOM as u32 }
    }

    /// A buffer holding a copy of `bytes`, which must fit the largest class.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buf = Self::with_room(bytes.len());
        buf.extend(bytes);
        buf
    }

    /// Bytes in use.
    #[inline]
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// No bytes in use.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The size of the whole memory, in bytes.
    #[inline]
    pub fn capacity(&self) -> usize {
        CLASS_BYTES[self.class()]
    }

    #[inline]
    fn class(&self) -> usize {
        self.tagged.addr().get() & (ALIGN - 1)
    }

    #[inline]
    fn memory(&self) -> *mut u8 {
        self.tagged.as_ptr().map_addr(|address| address & !(ALIGN - 1))
    }

    /// Room behind the bytes in use.
    #[inline]
    pub fn room(&self) -> usize {
        self.capacity() - self.end as usize
    }

    /// Room before the bytes in use.
    #[inline]
    pub fn headroom(&self) -> usize {
        self.start as usize
    }

    /// The bytes in use.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `memory` is one initialised allocation of `capacity` bytes and `start <= end <= capacity`.
        unsafe { std::slice::from_raw_parts(self.memory().add(self.start as usize), self.len()) }
    }

    /// The bytes in use, to be changed in place.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as `bytes`, and `&mut self` is the only owner.
        unsafe { std::slice::from_raw_parts_mut(self.memory().add(self.start as usize), self.len()) }
    }

    /// The room behind the bytes in use; [`grow`](Self::grow) then takes what was written into it.
    #[inline]
    pub fn spare_mut(&mut self) -> &mut [u8] {
        // SAFETY: as `bytes_mut`; fresh memory was zeroed, so the room is initialised too.
        unsafe { std::slice::from_raw_parts_mut(self.memory().add(self.end as usize), self.room()) }
    }

    /// Takes `count` bytes of the room behind into use.
    #[inline]
    pub fn grow(&mut self, count: usize) {
        assert!(count <= self.room(), "a buffer grew past its memory");
        self.end += count as u32;
    }

    /// Appends `bytes`, which must fit.
    #[inline]
    pub fn extend(&mut self, bytes: &[u8]) {
        self.spare_mut()[..bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len() as u32;
    }

    /// This buffer with `bytes` appended, which must fit.
    #[inline]
    #[must_use]
    pub fn with(mut self, bytes: &[u8]) -> Self {
        self.extend(bytes);
        self
    }

    /// Appends as much of `bytes` as fits; returns how much.
    #[inline]
    pub fn extend_some(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room());
        self.extend(&bytes[..count]);
        count
    }

    /// Lays `bytes` directly before those in use; `false` (and nothing done) when the room before is too small.
    #[inline]
    pub fn prepend(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() > self.headroom() {
            return false;
        }
        self.start -= bytes.len() as u32;
        self.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        true
    }

    /// Drops `count` bytes at the front.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.len(), "more consumed than there is");
        self.start += count as u32;
    }

    /// Keeps the first `count` bytes.
    #[inline]
    pub fn truncate(&mut self, count: usize) {
        assert!(count <= self.len(), "truncated to more than there is");
        self.end = self.start + count as u32;
    }

    /// Drops all bytes and restores the room before.
    pub fn clear(&mut self) {
        self.start = HEADROOM as u32;
        self.end = HEADROOM as u32;
    }

    /// Moves what follows the first `count` bytes into a buffer of its own; empty is `None`.
    pub fn split_off(&mut self, count: usize) -> Option<Self> {
        let tail = &self.bytes()[count..];
        let rest = (!tail.is_empty()).then(|| Self::copy_of(tail));
        self.truncate(count);
        rest
    }

    /// The same bytes in a buffer with room for `more` behind them (this one, if it has it; moved to the front if that
    /// is enough). `None` when even the largest class is too small.
    pub fn with_more_room(mut self, more: usize) -> Option<Self> {
        if self.room() >= more {
            return Some(self);
        }
        let wanted = HEADROOM + self.len() + more;
        if wanted <= self.capacity() {
            let (start, len) = (self.start as usize, self.len());
            self.start = 0;
            self.end = self.capacity() as u32;
            self.bytes_mut().copy_within(start..start + len, HEADROOM);
            self.start = HEADROOM as u32;
            self.end = (HEADROOM + len) as u32;
            return Some(self);
        }
        if wanted > CLASS_BYTES[CLASS_BYTES.len() - 1] {
            return None;
        }
        let mut larger = Self::with_room(self.len() + more);
        larger.extend(self.bytes());
        Some(larger)
    }

    /// Where the kernel may write, and how much: the room behind.
    pub(crate) fn spare_raw(&mut self) -> (*mut u8, u32) {
        let spare = self.spare_mut();
        (spare.as_mut_ptr(), spare.len() as u32)
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        let memory = NonNull::new(self.memory()).expect("an allocation is not null");
        give_back(memory, self.class());
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} of {})", self.len(), self.capacity())
    }
}

/// What this thread's pool holds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PoolCounts {
    /// Bytes of memory lent out as buffers now.
    pub lent: usize,
    /// Bytes of memory kept free for the next taker.
    pub free: usize,
    /// The most ever lent at once.
    pub lent_max: usize,
}

/// What this thread's pool holds now.
pub fn pool_counts() -> PoolCounts {
    POOL.try_with(|pool| {
        let pool = pool.borrow();
        let free = pool.free.iter().zip(CLASS_BYTES).map(|(free, bytes)| free.len() * bytes).sum();
        PoolCounts { lent: pool.lent, free, lent_max: pool.lent_max }
    })
    .unwrap_or_default()
}

/// Gives back the free buffers that nobody needed since the last call. Called about once a second.
pub(crate) fn trim() {
    let _ = POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        for class in 0..CLASS_BYTES.len() {
            // The coldest are at the front. An eighth stays each time: a load that pauses for a moment finds some again.
            let surplus = pool.unused[class] - pool.unused[class] / 8;
            for memory in pool.free[class].drain(..surplus) {
                // SAFETY: free memory came from `alloc_zeroed` with this class's layout and nobody else knows it.
                unsafe { dealloc(memory.as_ptr(), layout(class)) };
            }
            pool.unused[class] = pool.free[class].len();
        }
    });
}

struct Pool {
    free: [Vec<NonNull<u8>>; 4],
    /// The fewest free since the last trim: what nobody needed.
    unused: [usize; 4],
    lent: usize,
    lent_max: usize,
}

impl Drop for Pool {
    fn drop(&mut self) {
        for class in 0..CLASS_BYTES.len() {
            for memory in self.free[class].drain(..) {
                // SAFETY: as in `trim`.
                unsafe { dealloc(memory.as_ptr(), layout(class)) };
            }
        }
    }
}

thread_local! {
    static POOL: RefCell<Pool> = const {
        RefCell::new(Pool { free: [const { Vec::new() }; 4], unused: [0; 4], lent: 0, lent_max: 0 })
    };
}

fn layout(class: usize) -> Layout {
    Layout::from_size_align(CLASS_BYTES[class], ALIGN).expect("class sizes are small and the alignment a power of two")
}

fn take(class: usize) -> NonNull<u8> {
    let pooled = POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        pool.lent += CLASS_BYTES[class];
        pool.lent_max = pool.lent_max.max(pool.lent);
        let memory = pool.free[class].pop();
        pool.unused[class] = pool.unused[class].min(pool.free[class].len());
        memory
    });
    pooled.ok().flatten().unwrap_or_else(|| {
        // SAFETY: the layout's size is not zero.
        let memory = unsafe { alloc_zeroed(layout(class)) };
        NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout(class)))
    })
}

fn give_back(memory: NonNull<u8>, class: usize) {
    let kept = POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        pool.lent = pool.lent.saturating_sub(CLASS_BYTES[class]);
        let keep = pool.free[class].len() < FREE_MAX[class];
        if keep {
            pool.free[class].push(memory);
        }
        keep
    });
    if !kept.unwrap_or(false) {
        // SAFETY: `memory` came from `take` with this class and its only owner is being dropped.
        unsafe { dealloc(memory.as_ptr(), layout(class)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_move_between_the_rooms() {
        let mut buf = Buf::copy_of(b"body");
        assert!(buf.prepend(b"head "));
        buf.extend(b" tail");
        assert_eq!(buf.bytes(), b"head body tail");
        buf.consume(5);
        buf.truncate(4);
        assert_eq!(buf.bytes(), b"body");
        assert!(!buf.prepend(&[0; HEADROOM + 6]));
    }

    #[test]
    fn room_is_made_by_moving_and_then_by_a_larger_class() {
        let mut buf = Buf::copy_of(&[7; 3_000]);
        buf.consume(2_900);
        let capacity = buf.capacity();
        let buf = buf.with_more_room(3_000).unwrap();
        assert_eq!((buf.capacity(), buf.len()), (capacity, 100));
        let buf = buf.with_more_room(10_000).unwrap();
        assert!(buf.capacity() > capacity && buf.bytes() == [7; 100]);
        assert!(buf.with_more_room(1 << 20).is_none());
    }

    #[test]
    fn free_memory_is_taken_last_in_first_out_and_trimmed_when_unused() {
        let first = Buf::with_room(1);
        let address = first.tagged;
        drop(first);
        assert_eq!(Buf::with_room(1).tagged, address);
        trim();
        trim();
        assert_eq!(pool_counts().free, 0);
    }
}
