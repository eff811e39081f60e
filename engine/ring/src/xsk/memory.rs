//! The memory that frames lie in (UMEM).

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use super::rings;

/// Pages of our own, which the kernel holds on to once they are registered, whatever becomes of the mapping.
#[derive(Debug)]
pub(super) struct Memory {
    pages: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is this value's own; who touches it does so through `place`, which says what must hold.
unsafe impl Send for Memory {}

/// Part of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    begins: NonNull<u8>,
    len: usize,
}

impl Place {
    /// Its bytes.
    ///
    /// # Safety
    /// The frame is ours: it stands in no ring that the kernel reads, and nobody else has its bytes while these live, which is no longer than the memory does.
    #[allow(clippy::mut_from_ref, reason = "the memory is nobody's but by the rings")]
    pub(super) unsafe fn as_slice<'a>(self) -> &'a mut [u8] {
        // SAFETY: within the mapping, as `Memory::place` has seen; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.begins.as_ptr(), self.len) }
    }
}

impl Memory {
    pub(super) fn new(len: usize) -> io::Result<Self> {
        // SAFETY: a fresh mapping, of which nobody else knows the address.
        let pages = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            libc::mmap(std::ptr::null_mut(), len, access, kind, -1, 0)
        };
        if pages == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let pages = NonNull::new(pages.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { pages, len })
    }

    /// Makes it the memory of a socket.
    pub(super) fn register(&self, fd: BorrowedFd<'_>, frame: u32) -> io::Result<()> {
        let memory = libc::xdp_umem_reg {
            addr: self.pages.as_ptr() as u64,
            len: self.len as u64,
            chunk_size: frame,
            headroom: 0,
            flags: 0,
            tx_metadata_len: 0,
        };
        rings::set(fd, libc::SOL_XDP, libc::XDP_UMEM_REG, &memory)
    }

    /// A part of it; `None` where it has none such.
    pub(super) fn place(&self, address: u64, len: u32) -> Option<Place> {
        let (begins, len) = (usize::try_from(address).ok()?, len as usize);
        if begins.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: within the mapping, as just seen.
        Some(Place { begins: unsafe { self.pages.add(begins) }, len })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length; nobody has a place of it any more.
        unsafe { libc::munmap(self.pages.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_places_beyond_the_end() {
        let memory = Memory::new(8_192).unwrap();
        assert!(memory.place(8_191, 1).is_some());
        assert!(memory.place(8_192, 0).is_some());
        for (address, len) in [(8_191, 2), (8_192, 1), (u64::MAX, 1), (0, u32::MAX)] {
            assert!(memory.place(address, len).is_none(), "{address} {len}");
        }
        // SAFETY: no socket has this memory.
        let all = unsafe { memory.place(0, 8_192).unwrap().as_slice() };
        all.fill(7);
        assert_eq!(all.len(), 8_192);
    }
}
