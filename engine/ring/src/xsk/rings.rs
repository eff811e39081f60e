//! The four rings between the kernel and us: numbers of frames, one writer and one reader each (Documentation/networking/af_xdp.rst).
//!
//! What holds: who writes publishes with a release store of its index and who reads sees it with an acquire load, so entries are whole when they are seen. A ring
//! has a place for every frame that can be in it, so it is never full.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::FRAMES;

/// An entry of the rings of frames with bytes in them: `struct xdp_desc`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub(super) struct Frame {
    /// Where the bytes begin in the memory.
    pub(super) address: u64,
    pub(super) length: u32,
    pub(super) options: u32,
}

const _: () = assert!(size_of::<Frame>() == size_of::<libc::xdp_desc>());

/// Which ring.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    Fill,
    Receive,
    Send,
    Completion,
}

impl Side {
    const fn page_offset(self) -> libc::off_t {
        match self {
            Self::Receive => libc::XDP_PGOFF_RX_RING,
            Self::Send => libc::XDP_PGOFF_TX_RING,
            Self::Fill => libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t,
            Self::Completion => libc::XDP_UMEM_PGOFF_COMPLETION_RING as libc::off_t,
        }
    }
}

/// A ring of entries `T`, mapped.
#[derive(Debug)]
struct Mapped<T> {
    pages: NonNull<u8>,
    len: usize,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    entry: PhantomData<T>,
}

// SAFETY: a mapping of its own, whose indices are atomic and whose entries only the owner and the kernel touch.
unsafe impl<T: Send> Send for Mapped<T> {}

impl<T: Copy> Mapped<T> {
    fn map(fd: BorrowedFd<'_>, side: Side, offsets: &libc::xdp_ring_offset) -> io::Result<Self> {
        let len = offsets.desc as usize + FRAMES as usize * size_of::<T>();
        // SAFETY: a fresh mapping of the kernel's ring, of which nobody else here knows the address.
        let pages = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let kind = libc::MAP_SHARED | libc::MAP_POPULATE;
            libc::mmap(std::ptr::null_mut(), len, access, kind, fd.as_raw_fd(), side.page_offset())
        };
        if pages == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let pages: NonNull<u8> = NonNull::new(pages.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: the kernel tells where in the mapping its words lie, aligned as they are.
        unsafe {
            Ok(Self {
                pages,
                len,
                producer: pages.add(offsets.producer as usize).cast(),
                consumer: pages.add(offsets.consumer as usize).cast(),
                flags: pages.add(offsets.flags as usize).cast(),
                entries: pages.add(offsets.desc as usize).cast(),
                entry: PhantomData,
            })
        }
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: within the mapping, which lives as long as `self`.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { self.consumer.as_ref() }
    }

    fn wants_wakeup(&self) -> bool {
        // SAFETY: as above.
        unsafe { self.flags.as_ref() }.load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    fn entry(&self, index: u32) -> NonNull<T> {
        // SAFETY: below the number of entries, which is a power of two.
        unsafe { self.entries.add((index & (FRAMES - 1)) as usize) }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length; nobody has a reference any more.
        unsafe { libc::munmap(self.pages.as_ptr().cast(), self.len) };
    }
}

/// A ring that we write.
#[derive(Debug)]
pub(super) struct Producer<T> {
    ring: Mapped<T>,
    /// Written, and published up to the ring's own index.
    written: u32,
}

impl<T: Copy> Producer<T> {
    pub(super) fn map(fd: BorrowedFd<'_>, side: Side, offsets: &libc::xdp_ring_offset) -> io::Result<Self> {
        let ring = Mapped::map(fd, side, offsets)?;
        let written = ring.producer().load(Ordering::Relaxed);
        Ok(Self { ring, written })
    }

    /// Writes an entry, to be seen with [`publish`](Self::publish).
    pub(super) fn push(&mut self, entry: T) {
        debug_assert!(self.written.wrapping_sub(self.ring.consumer().load(Ordering::Acquire)) < FRAMES);
        // SAFETY: the reader has gone past this place, as there are no more frames than places.
        unsafe { self.ring.entry(self.written).write(entry) };
        self.written = self.written.wrapping_add(1);
    }

    pub(super) fn publish(&self) {
        self.ring.producer().store(self.written, Ordering::Release);
    }

    /// Entries that the kernel has not taken.
    pub(super) fn outstanding(&self) -> u32 {
        self.written.wrapping_sub(self.ring.consumer().load(Ordering::Acquire))
    }

    /// The kernel looks at the ring only when it is called.
    pub(super) fn wants_wakeup(&self) -> bool {
        self.ring.wants_wakeup()
    }
}

/// A ring that we read.
#[derive(Debug)]
pub(super) struct Consumer<T> {
    ring: Mapped<T>,
    /// Read, and given back up to the ring's own index.
    read: u32,
    /// Known to be written.
    written: u32,
}

impl<T: Copy> Consumer<T> {
    pub(super) fn map(fd: BorrowedFd<'_>, side: Side, offsets: &libc::xdp_ring_offset) -> io::Result<Self> {
        let ring = Mapped::map(fd, side, offsets)?;
        let read = ring.consumer().load(Ordering::Relaxed);
        Ok(Self { ring, read, written: read })
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        if self.read == self.written {
            self.written = self.ring.producer().load(Ordering::Acquire);
            if self.read == self.written {
                return None;
            }
        }
        // SAFETY: the writer has published this entry, and writes here again only when it has been given back.
        let entry = unsafe { self.ring.entry(self.read).read() };
        self.read = self.read.wrapping_add(1);
        Some(entry)
    }

    /// Gives back the places of what was read.
    pub(super) fn release(&self) {
        self.ring.consumer().store(self.read, Ordering::Release);
    }
}

/// Sets an option.
pub(super) fn set<T>(fd: BorrowedFd<'_>, level: i32, option: i32, value: &T) -> io::Result<()> {
    // SAFETY: the value is as long as said, and the kernel copies it.
    let done = unsafe {
        let length = size_of::<T>() as libc::socklen_t;
        libc::setsockopt(fd.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), length)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Values of options that are words through and through: any bytes are such a value.
pub(super) trait Words: Copy {}

impl Words for libc::xdp_mmap_offsets {}
impl Words for libc::xdp_options {}
impl Words for libc::xdp_statistics {}

/// An option of AF_XDP. An older kernel's shorter answer is an error where it would be needed.
pub(super) fn get<T: Words>(fd: BorrowedFd<'_>, option: i32) -> io::Result<T> {
    // SAFETY: words, for which all zeroes is a value.
    let mut value: T = unsafe { std::mem::zeroed() };
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: as long as said, and the kernel writes no more than that.
    let done =
        unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_XDP, option, (&raw mut value).cast(), &raw mut length) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    if (length as usize) < size_of::<T>() { Err(io::ErrorKind::Unsupported.into()) } else { Ok(value) }
}
