//! Signals as something to wait for: a signalfd on the ring.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::task::Poll;

use crate::reactor;

/// Signals that no longer end the process but wait here to be taken.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// Blocks `signals` for this thread and those it starts from now on. Call it before any other thread is started:
    /// a thread that does not block a signal may be killed by it.
    pub fn block(signals: &[i32]) -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `sigemptyset` fills the set in before anything reads it; each number is checked by `sigaddset`.
        let fd = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for &signal in signals {
                if libc::sigaddset(set.as_mut_ptr(), signal) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
            libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Waits for the next signal; its number.
    pub async fn next(&mut self) -> io::Result<i32> {
        loop {
            if let Some(signal) = self.try_next()? {
                return Ok(signal);
            }
            let mut wait = None;
            let fd = self.fd.as_raw_fd();
            poll_fn(|_| {
                reactor::with(|reactor| {
                    let mut table = reactor.table.borrow_mut();
                    match wait {
                        None => {
                            wait = Some(table.wait_readable(fd, reactor.exec.current()));
                            Poll::Pending
                        }
                        Some(wait) => table.wait_result(wait).map_or(Poll::Pending, Poll::Ready),
                    }
                })
            })
            .await;
        }
    }

    fn try_next(&self) -> io::Result<Option<i32>> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: `info` is valid for `size` bytes; the descriptor is ours and does not block.
        let got = unsafe { libc::read(self.fd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        if got == size as isize {
            // SAFETY: the kernel has filled the whole structure in.
            return Ok(Some(unsafe { info.assume_init() }.ssi_signo as i32));
        }
        let error = io::Error::last_os_error();
        if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) }
    }
}
