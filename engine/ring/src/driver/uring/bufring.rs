//! A provided-buffer ring in incremental mode (`IOU_PBUF_RING_INC`, Linux 6.12): the kernel fills one buffer after
//! another from front to back, so the working set is what is really received and not the whole ring.
//!
//! The bytes of a completion are copied out before the next one is looked at; a buffer that the kernel has finished
//! goes back at once. So every buffer is free again after each reaping.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;
use io_uring::{IoUring, cqueue};

/// Eight buffers of 64 KiB: half a MiB a core stays in the second-level cache (techniques: the best of those measured).
const COUNT: u16 = 8;
const BYTES: usize = 64 << 10;
/// The group's name in requests; there is one.
pub(super) const GROUP: u16 = 0;

const IOU_PBUF_RING_INC: u16 = 2;

pub(super) struct BufRing {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    tail: u16,
    /// How far the kernel has filled each buffer.
    filled: [u32; COUNT as usize],
}

impl BufRing {
    /// Registers the ring; refused by kernels before 6.12.
    pub(super) fn register(ring: &IoUring) -> io::Result<Self> {
        let (entries, memory) = (zeroed(entries_layout()), zeroed(memory_layout()));
        let mut this = Self { entries: entries.cast(), memory, tail: 0, filled: [0; COUNT as usize] };
        for buffer in 0..COUNT {
            this.provide(buffer);
        }
        // SAFETY: `entries` is page-aligned, holds COUNT entries, and lives until `Uring` has dropped the ring.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(entries.as_ptr() as u64, COUNT, GROUP, IOU_PBUF_RING_INC)
        }?;
        Ok(this)
    }

    /// The bytes that a completion brought, and whether their buffer is finished; call [`release`](Self::release)
    /// when they have been copied out.
    pub(super) fn bytes(&self, flags: u32, count: usize) -> &[u8] {
        let Some(buffer) = cqueue::buffer_select(flags) else { return &[] };
        let start = self.filled[buffer as usize] as usize;
        assert!(start + count <= BYTES, "the kernel filled a buffer past its end");
        // SAFETY: within the buffer, which is initialised; the kernel has finished with these bytes.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().add(buffer as usize * BYTES + start), count) }
    }

    /// Moves past the bytes of a completion; a finished buffer goes back to the kernel.
    pub(super) fn release(&mut self, flags: u32, count: usize) {
        let Some(buffer) = cqueue::buffer_select(flags) else { return };
        if cqueue::buffer_more(flags) {
            self.filled[buffer as usize] += count as u32;
        } else {
            self.filled[buffer as usize] = 0;
            self.provide(buffer);
        }
    }

    fn provide(&mut self, buffer: u16) {
        let slot = (self.tail & (COUNT - 1)) as usize;
        // SAFETY: `slot` is within the ring; the kernel reads an entry only after the tail has been stored behind it.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(slot);
            entry.set_addr(self.memory.as_ptr().add(buffer as usize * BYTES) as u64);
            entry.set_len(BYTES as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lives in the first entry's reserved field, aligned for u16, and the kernel only reads it.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for BufRing {
    fn drop(&mut self) {
        // SAFETY: allocated in `register` with these layouts; `Uring` drops its ring before this.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), entries_layout());
            dealloc(self.memory.as_ptr(), memory_layout());
        }
    }
}

fn entries_layout() -> Layout {
    Layout::from_size_align(COUNT as usize * size_of::<BufRingEntry>(), 4096)
        .expect("a page-aligned handful of entries")
}

fn memory_layout() -> Layout {
    Layout::from_size_align(COUNT as usize * BYTES, 4096).expect("half a MiB, page-aligned")
}

fn zeroed(layout: Layout) -> NonNull<u8> {
    // SAFETY: neither layout is empty.
    NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}
