//! Socket calls that the real drivers share: everything that is not on the data path.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::Fd;
use crate::net::{Address, ListenOptions};

/// A listening socket: `SO_REUSEADDR`, `TCP_NODELAY` (inherited by what it accepts), and as `options` say.
///
/// A Unix socket's stale file, to which nobody listens any more, is removed first.
pub(super) fn listen(address: &Address, options: &ListenOptions, nonblocking: bool) -> io::Result<Fd> {
    let socket = new_socket(address, nonblocking)?;
    match address {
        Address::Inet(inet) => {
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(options.reuse_port)?;
            socket.set_tcp_nodelay(true)?;
            plain_congestion_control(&socket, *inet);
            if inet.is_ipv6() {
                socket.set_only_v6(options.only_v6)?;
            }
            socket.bind(&SockAddr::from(*inet))?;
        }
        Address::Unix(path) => {
            let name = SockAddr::unix(path)?;
            if path.exists() && new_socket(address, false)?.connect_timeout(&name, Duration::from_secs(1)).is_err() {
                std::fs::remove_file(path)?;
            }
            socket.bind(&name)?;
        }
    }
    socket.listen(options.backlog)?;
    Ok(socket.into_raw_fd())
}

/// A fresh socket of the address's family, `TCP_NODELAY` set.
pub(super) fn socket(address: &Address, nonblocking: bool) -> io::Result<Fd> {
    let socket = new_socket(address, nonblocking)?;
    if let Address::Inet(inet) = address {
        socket.set_tcp_nodelay(true)?;
        plain_congestion_control(&socket, *inet);
    }
    Ok(socket.into_raw_fd())
}

/// The other end's address.
pub(super) fn peer(fd: Fd) -> io::Result<Address> {
    with_socket(fd, |socket| socket.peer_addr().map(|address| Address::from_socket2(&address)))
}

/// The user of the process at the other end of a Unix socket (`SO_PEERCRED`); `None` for any other socket.
pub(super) fn peer_user(fd: Fd) -> Option<u32> {
    let mut who = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `who` is as long as `length` says, and the kernel writes no more than that.
    let asked =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut who).cast(), &raw mut length) };
    // On other sockets the call succeeds and names no process.
    (asked == 0 && who.pid > 0).then_some(who.uid)
}

/// This end's address.
pub(super) fn local(fd: Fd) -> io::Result<Address> {
    with_socket(fd, |socket| socket.local_addr().map(|address| Address::from_socket2(&address)))
}

/// FIN, or with `both` also the end of receiving. Errors (already gone) mean nothing to anybody.
pub(super) fn shutdown(fd: Fd, both: bool) {
    let how = if both { std::net::Shutdown::Both } else { std::net::Shutdown::Write };
    let _ = with_socket(fd, |socket| socket.shutdown(how));
}

/// Makes the coming close send RST.
pub(super) fn arm_reset(fd: Fd) {
    let _ = with_socket(fd, |socket| socket.set_linger(Some(Duration::ZERO)));
}

/// Closes `fd`.
pub(super) fn close(fd: Fd) {
    // SAFETY: the reactor owns `fd` and gives it up with this call; no operation on it is in flight (see `op.rs`).
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

/// Nanoseconds of CLOCK_MONOTONIC.
#[inline]
pub(super) fn clock() -> u64 {
    crate::time::monotonic().as_nanos()
}

/// Within a host there is no path to probe: BBR's pacing and its periodic drain of the window cost time and CPU there and
/// tell nothing. What a listener has, its connections inherit.
fn plain_congestion_control(socket: &Socket, address: std::net::SocketAddr) {
    if address.ip().is_loopback() {
        // Always built in; refused only by a sandbox, and then the host's default stays.
        let _ = socket.set_tcp_congestion(b"reno");
    }
}

fn new_socket(address: &Address, nonblocking: bool) -> io::Result<Socket> {
    let (domain, protocol) = match address {
        Address::Inet(inet) => (Domain::for_address(*inet), Some(Protocol::TCP)),
        Address::Unix(_) => (Domain::UNIX, None),
    };
    let kind = if nonblocking { Type::STREAM.nonblocking() } else { Type::STREAM };
    Socket::new(domain, kind.cloexec(), protocol)
}

fn with_socket<T>(fd: Fd, use_it: impl FnOnce(&Socket) -> io::Result<T>) -> io::Result<T> {
    // SAFETY: `fd` is open (the reactor owns it); `forget` through `into_raw_fd` gives ownership back before returning.
    let socket = unsafe { Socket::from_raw_fd(fd) };
    let answer = use_it(&socket);
    let back = socket.into_raw_fd();
    debug_assert_eq!(back.as_raw_fd(), fd);
    answer
}
