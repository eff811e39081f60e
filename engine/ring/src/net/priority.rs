//! Priorities of sockets: a word of a socket's own that programs in the kernel can read.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Sets a socket's priority (`SO_PRIORITY`, socket(7)).
///
/// # Errors
/// `PermissionDenied` for one above 6 without CAP_NET_ADMIN.
pub fn set_priority(socket: BorrowedFd<'_>, priority: u32) -> io::Result<()> {
    let size = size_of::<u32>() as libc::socklen_t;
    let (level, option) = (libc::SOL_SOCKET, libc::SO_PRIORITY);
    // SAFETY: the kernel reads `size` bytes of `priority`, which lives until the call returns.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const priority).cast(), size) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Connects a blocking socket of this priority, outside of any ring.
///
/// # Errors
/// As [`set_priority`], and why there is no connection.
pub fn connect_with_priority(address: SocketAddr, priority: u32, patience: Duration) -> io::Result<TcpStream> {
    use std::os::fd::AsFd;

    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    set_priority(socket.as_fd(), priority)?;
    socket.set_tcp_nodelay(true)?;
    socket.connect_timeout(&SockAddr::from(address), patience)?;
    Ok(socket.into())
}
