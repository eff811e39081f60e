//! Priorities of sockets: a word of a socket's own that programs in the kernel can read.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

/// Sets a socket's priority (`SO_PRIORITY`, socket(7)).
///
/// # Errors
/// `PermissionDenied` for one above 6 without CAP_NET_ADMIN.
pub fn set_priority(socket: BorrowedFd<'_>, priority: u32) -> io::Result<()> {
    SockRef::from(&socket).set_priority(priority)
}

/// Connects a blocking socket of this priority, outside of any ring.
///
/// # Errors
/// As [`set_priority`], and why there is no connection.
pub fn connect_with_priority(address: SocketAddr, priority: u32, patience: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    socket.set_priority(priority)?;
    socket.set_tcp_nodelay(true)?;
    socket.connect_timeout(&SockAddr::from(address), patience)?;
    Ok(socket.into())
}
