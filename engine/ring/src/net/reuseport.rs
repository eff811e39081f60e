//! Which socket of a reuseport group a packet or a connection goes to: by a program of classic BPF, for which nobody needs a
//! capability.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// One instruction of classic BPF: `struct sock_filter` (linux/filter.h).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(C)]
pub struct FilterInstruction {
    /// What is done.
    pub code: u16,
    /// Instructions to jump over if true.
    pub jump_true: u8,
    /// Instructions to jump over if false.
    pub jump_false: u8,
    /// The operand.
    pub operand: u32,
}

/// Lets `program` choose among the sockets of the group that `socket`, which is bound, belongs to (`SO_ATTACH_REUSEPORT_CBPF`,
/// Linux 4.5; TCP 4.6).
///
/// The program sees the payload from its first byte on and returns the number of a socket, in the order of binding; a number that
/// names none leaves the choice to the kernel's hash. It replaces one attached before.
///
/// # Errors
/// `InvalidInput` if the kernel refuses the program (an endless or empty one, for instance) or the socket is in no group.
pub fn attach_reuseport_filter(socket: BorrowedFd<'_>, program: &[FilterInstruction]) -> io::Result<()> {
    const _: () = assert!(size_of::<FilterInstruction>() == size_of::<libc::sock_filter>());
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let filter = libc::sock_fprog { len, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: `filter` names `len` instructions of the kernel's own layout, which the kernel copies and only reads.
    let done = unsafe {
        let size = size_of::<libc::sock_fprog>() as libc::socklen_t;
        let (level, option) = (libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF);
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const filter).cast(), size)
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
