//! Addresses of sockets: what a listener binds and a stream connects to.

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A TCP or Unix stream address.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Address {
    /// IPv4 or IPv6 with a port.
    Inet(SocketAddr),
    /// A path in the file system; empty for an unnamed peer.
    Unix(PathBuf),
}

impl Address {
    /// The IP address and port; `None` for a Unix socket.
    pub fn inet(&self) -> Option<SocketAddr> {
        match self {
            Self::Inet(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Writes the kernel's form; returns it with its length in bytes.
    ///
    /// A Unix path longer than the kernel's 107 bytes is an `InvalidInput` error.
    pub(crate) fn to_storage(&self) -> std::io::Result<(libc::sockaddr_storage, u32)> {
        let address = match self {
            Self::Inet(address) => socket2::SockAddr::from(*address),
            Self::Unix(path) => socket2::SockAddr::unix(path)?,
        };
        // SAFETY: `sockaddr_storage` is plain data for which all zeroes is a value.
        let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let len = address.len();
        debug_assert!(len as usize <= size_of::<libc::sockaddr_storage>());
        // SAFETY: both sides are valid for `len` bytes, which `socket2` bounds by the storage's size, and do not overlap.
        unsafe {
            std::ptr::copy_nonoverlapping(address.as_ptr().cast::<u8>(), (&raw mut storage).cast::<u8>(), len as usize);
        }
        Ok((storage, len))
    }

    /// Reads what `getpeername` and its kind returned.
    pub(crate) fn from_socket2(address: &socket2::SockAddr) -> Self {
        match address.as_socket() {
            Some(inet) => Self::Inet(inet),
            None => Self::Unix(address.as_pathname().map(Path::to_path_buf).unwrap_or_default()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Inet(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", String::from_utf8_lossy(path.as_os_str().as_bytes())),
        }
    }
}
