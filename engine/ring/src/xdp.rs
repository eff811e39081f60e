//! What stands first on an interface: a `bpf_link` of XDP (Linux 5.9), whose program is replaced in one step.
//!
//! The attachment is the descriptor: whatever closes that, the end of a process too, ends it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Of bpf(2): `BPF_LINK_CREATE`, `BPF_LINK_UPDATE`, and `BPF_XDP` of what can be attached to.
const LINK_CREATE: libc::c_long = 28;
const LINK_UPDATE: libc::c_long = 29;
const XDP: u32 = 37;

/// `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE`.
const GENERIC: u32 = 1 << 1;
const NATIVE: u32 = 1 << 2;

/// An attachment of a program to an interface, which its end takes with it.
#[derive(Debug)]
pub struct XdpLink(OwnedFd);

impl XdpLink {
    /// Lets a program see the packets of an interface, by its index: in its driver (`native`), or behind that.
    ///
    /// # Errors
    /// `PermissionDenied` without CAP_NET_ADMIN; `EOPNOTSUPP` where the driver has no XDP; `EBUSY` and `EEXIST` where something stands there; `EINVAL` before Linux 5.9.
    pub fn attach(program: BorrowedFd<'_>, interface: u32, native: bool) -> io::Result<Self> {
        let flags = if native { NATIVE } else { GENERIC };
        let link = call(LINK_CREATE, &[program.as_raw_fd() as u32, interface, XDP, flags])?;
        // SAFETY: a fresh descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(link as i32) }))
    }

    /// Has another program see them, from the next packet on: each is seen by one of the two.
    ///
    /// # Errors
    /// `ENOLINK` where the interface is no more.
    pub fn replace(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        call(LINK_UPDATE, &[self.0.as_raw_fd() as u32, program.as_raw_fd() as u32, 0, 0]).map(drop)
    }
}

/// bpf(2) with the first words of its attributes: those behind them are 0.
fn call(command: libc::c_long, words: &[u32; 4]) -> io::Result<libc::c_long> {
    // SAFETY: as many octets as said, which the kernel only reads.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, words.as_ptr(), size_of_val(words)) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
}
