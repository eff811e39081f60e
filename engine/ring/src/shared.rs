//! Memory that is shared with programs in the kernel: an array map whose values are words.
//!
//! What holds here: the mapping is as long as was asked for, and lives as long as the handle; words are read and written whole
//! (relaxed atomics), so a reader on the other side sees an old value or a new one. Who writes which word is for the two sides to agree on.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Words mapped from a descriptor.
#[derive(Debug)]
pub struct SharedWords {
    words: NonNull<AtomicU64>,
    len: usize,
}

// SAFETY: the memory is touched by atomic operations only, and unmapped when the last owner drops.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Maps the first `len` words behind a descriptor, a BPF array with `BPF_F_MMAPABLE` say.
    ///
    /// # Errors
    /// What `mmap(2)` says; `InvalidInput` for none.
    pub fn map(descriptor: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        let bytes = len.checked_mul(size_of::<u64>()).filter(|bytes| *bytes > 0).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a fresh mapping, of which nobody else knows the address.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                descriptor.as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // A mapping begins at a page, which is aligned to more than eight bytes, and not at 0.
        NonNull::new(memory.cast()).map(|words| Self { words, len }).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// The value of a word; 0 beyond the end.
    #[inline]
    #[must_use]
    pub fn get(&self, at: usize) -> u64 {
        self.word(at).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    /// Stores to a word; nowhere beyond the end.
    #[inline]
    pub fn set(&self, at: usize, value: u64) {
        if let Some(word) = self.word(at) {
            word.store(value, Ordering::Relaxed);
        }
    }

    #[inline]
    fn word(&self, at: usize) -> Option<&AtomicU64> {
        // SAFETY: below `len` the word lies in the mapping, which lives as long as `self`.
        (at < self.len).then(|| unsafe { self.words.add(at).as_ref() })
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length; nobody has a reference any more.
        unsafe { libc::munmap(self.words.as_ptr().cast(), self.len * size_of::<u64>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn words_are_seen_through_every_mapping() {
        // SAFETY: a name and no flags; the descriptor is owned right below.
        let fd = unsafe { libc::memfd_create(c"words".as_ptr(), 0) };
        assert!(fd >= 0);
        // SAFETY: a fresh descriptor that nobody else owns.
        let file = unsafe { <std::fs::File as std::os::fd::FromRawFd>::from_raw_fd(fd) };
        file.set_len(4_096).unwrap();
        let one = SharedWords::map(file.as_fd(), 16).unwrap();
        let other = SharedWords::map(file.as_fd(), 16).unwrap();
        one.set(3, 7);
        assert_eq!((other.get(3), other.get(4)), (7, 0));
        one.set(16, 1);
        assert_eq!(one.get(16), 0);
        drop(one);
        assert_eq!(other.get(3), 7);
    }

    #[test]
    fn nothing_is_mapped_from_nothing() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(SharedWords::map(file.as_fd(), 0).is_err());
        assert!(SharedWords::map(file.as_fd(), 16).is_err());
        assert!(SharedWords::map(file.as_fd(), usize::MAX).is_err());
    }
}
