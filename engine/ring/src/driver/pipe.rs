//! A pipe of the kernel's, through which bytes go from one socket to another without being copied (`splice(2)`).
//!
//! What holds here:
//! * Bytes come out as they went in, and what is held is counted, so that nothing is taken out of an empty pipe or put into a full one.
//! * No call waits. A socket's own mode decides that for reading and writing it (`tcp_splice_read`, `splice_to_socket`); those of the io_uring
//!   driver block, and are told not to for the length of one call.
//! * EPIPE raises no signal: the Rust runtime ignores SIGPIPE.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::Fd;

#[derive(Debug)]
pub(crate) struct Pipe {
    ends: Ends,
    /// Bytes that it can hold.
    room: usize,
    held: usize,
}

#[derive(Debug)]
enum Ends {
    Kernel { read: OwnedFd, write: OwnedFd },
    Simulated(VecDeque<u8>),
}

impl Pipe {
    /// A pipe of `most` bytes; of less, down to `least`, where the user may not have so much (pipe(7): `pipe-max-size`, `pipe-user-pages-soft`).
    pub(super) fn open(least: usize, most: usize) -> io::Result<Self> {
        let mut ends = [0; 2];
        // SAFETY: the kernel writes two descriptors.
        check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } as isize)?;
        // SAFETY: both were opened just now, and nobody else has them.
        let [read, write] = ends.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        let mut wanted = most;
        loop {
            let size = i32::try_from(wanted).unwrap_or(i32::MAX);
            // SAFETY: a system call without pointers, on a descriptor of our own.
            match check(unsafe { libc::fcntl(write.as_raw_fd(), libc::F_SETPIPE_SZ, size) } as isize) {
                Ok(room) => return Ok(Self { ends: Ends::Kernel { read, write }, room, held: 0 }),
                Err(error) if wanted / 2 < least => return Err(error),
                Err(_) => wanted /= 2,
            }
        }
    }

    pub(super) fn simulated(room: usize) -> Self {
        Self { ends: Ends::Simulated(VecDeque::new()), room, held: 0 }
    }

    pub(crate) fn held(&self) -> usize {
        self.held
    }

    pub(super) fn free(&self) -> usize {
        self.room - self.held
    }

    /// Takes what has arrived at a socket, as far as there is room. `blocks` tells a socket that waits when it is read. 0: the end, or what can be
    /// received only.
    pub(super) fn fill(&mut self, from: Fd, blocks: bool) -> io::Result<usize> {
        let Ends::Kernel { write, .. } = &self.ends else { return Err(io::ErrorKind::Unsupported.into()) };
        let filled = without_waiting(from, blocks, || splice(from, write.as_raw_fd(), self.free()))?;
        self.held += filled;
        Ok(filled)
    }

    /// Gives a socket what is held, as far as it has room.
    pub(super) fn drain(&mut self, to: Fd, blocks: bool) -> io::Result<usize> {
        let Ends::Kernel { read, .. } = &self.ends else { return Err(io::ErrorKind::Unsupported.into()) };
        let drained = without_waiting(to, blocks, || splice(read.as_raw_fd(), to, self.held))?;
        debug_assert!(drained <= self.held, "a pipe gave more than it was given");
        self.held -= drained;
        Ok(drained)
    }

    /// Of a simulated pipe: puts `bytes` in.
    pub(super) fn put(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.len() <= self.free(), "a pipe was given more than it holds");
        if let Ends::Simulated(inside) = &mut self.ends {
            inside.extend(bytes);
            self.held += bytes.len();
        }
    }

    /// Of a simulated pipe: what is in it.
    pub(super) fn inside(&mut self) -> &[u8] {
        match &mut self.ends {
            Ends::Simulated(inside) => inside.make_contiguous(),
            Ends::Kernel { .. } => &[],
        }
    }

    /// Of a simulated pipe: the first `count` bytes have gone.
    pub(super) fn gone(&mut self, count: usize) {
        if let Ends::Simulated(inside) = &mut self.ends {
            inside.drain(..count);
            self.held -= count;
        }
    }
}

fn splice(from: Fd, to: Fd, most: usize) -> io::Result<usize> {
    loop {
        let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
        // SAFETY: null offsets mean that neither descriptor has a position; both are open, for their owners lent them.
        match check(unsafe { libc::splice(from, std::ptr::null_mut(), to, std::ptr::null_mut(), most, flags) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Nobody else uses the socket meanwhile: what the ring does on it, it does within an `enter` of this thread.
fn without_waiting<T>(socket: Fd, blocks: bool, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    if blocks {
        set_nonblocking(socket, true)?;
    }
    let done = call();
    if blocks {
        set_nonblocking(socket, false)?;
    }
    done
}

fn set_nonblocking(socket: Fd, nonblocking: bool) -> io::Result<()> {
    let mut wanted = i32::from(nonblocking);
    // SAFETY: `wanted` is an int, as FIONBIO reads it, and lives through the call.
    check(unsafe { libc::ioctl(socket, libc::FIONBIO, &raw mut wanted) } as isize).map(drop)
}

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No kernel makes a pipe of 8 GiB, whoever asks.
    #[test]
    fn a_pipe_is_smaller_where_it_may_not_be_large_but_not_too_small() {
        let pipe = Pipe::open(64 << 10, 8 << 30).unwrap();
        assert!((64 << 10..8 << 30).contains(&pipe.free()), "{}", pipe.free());
        assert!(Pipe::open(5 << 30, 8 << 30).is_err());
    }
}
