//! What must be known of an interface before frames are sent by it: asked of the kernel by name, in this thread's network namespace.

use std::ffi::CString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// An Ethernet interface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Interface {
    /// Its number.
    pub index: u32,
    /// Octets of the longest IP packet.
    pub mtu: u32,
    /// Its link-layer address.
    pub address: [u8; 6],
    /// Queues that have both directions.
    pub queues: u32,
}

/// `struct ifreq` (netdevice(7)): a name, and what the request is about.
#[repr(C, align(8))]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    about: [u8; 24],
}

/// `struct ethtool_channels` (linux/ethtool.h).
#[repr(C)]
struct Channels {
    command: u32,
    /// The most that there can be.
    _max: [u32; 4],
    /// For receiving, for sending, for something else, for both.
    count: [u32; 4],
}

/// `ETHTOOL_GCHANNELS`.
const GET_CHANNELS: u32 = 0x3c;

impl Interface {
    /// The interface of this name.
    ///
    /// # Errors
    /// `NotFound` where there is none; `InvalidInput` where it is none of Ethernet.
    pub fn named(name: &str) -> io::Result<Self> {
        // SAFETY: a system call without pointers.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nobody else owns.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let text = CString::new(name)?;
        // SAFETY: a string that ends with a zero, for the length of the call.
        let index = unsafe { libc::if_nametoindex(text.as_ptr()) };
        if index == 0 {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut mtu = Request::new(name)?;
        mtu.ask(&socket, libc::SIOCGIFMTU)?;
        let mut address = Request::new(name)?;
        address.ask(&socket, libc::SIOCGIFHWADDR)?;
        let [low, high, octets @ ..] = address.about;
        if u16::from_ne_bytes([low, high]) != libc::ARPHRD_ETHER {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no Ethernet interface"));
        }
        let [a, b, c, d, e, f, ..] = octets;
        Ok(Self { index, mtu: mtu.number(), address: [a, b, c, d, e, f], queues: queues(name, &socket)? })
    }
}

impl Request {
    fn new(name: &str) -> io::Result<Self> {
        let mut request = Self { name: [0; libc::IFNAMSIZ], about: [0; 24] };
        let room = request.name.get_mut(..name.len()).filter(|room| room.len() < libc::IFNAMSIZ);
        room.ok_or(io::ErrorKind::NotFound)?.copy_from_slice(name.as_bytes());
        Ok(request)
    }

    fn ask(&mut self, socket: &OwnedFd, what: libc::c_ulong) -> io::Result<()> {
        // SAFETY: as long as the kernel's own structure, which it reads and writes for the length of the call; what it points at is the caller's, and valid as long.
        let done = unsafe { libc::ioctl(socket.as_raw_fd(), what as _, std::ptr::from_mut(self)) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn number(&self) -> u32 {
        self.about.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes))
    }
}

/// Queues with both directions; one where the driver does not tell.
fn queues(name: &str, socket: &OwnedFd) -> io::Result<u32> {
    let mut channels = Channels { command: GET_CHANNELS, _max: [0; 4], count: [0; 4] };
    let mut request = Request::new(name)?;
    let pointer = (&raw mut channels) as usize;
    request.about[..size_of::<usize>()].copy_from_slice(&pointer.to_ne_bytes());
    if request.ask(socket, libc::SIOCETHTOOL).is_err() {
        return Ok(1);
    }
    let [receive, send, _, both] = channels.count;
    Ok((receive.min(send) + both).max(1))
}

/// The host's addresses, those of the loopback interface left out, each once.
///
/// # Errors
/// What getifaddrs(3) says.
pub fn local_addresses() -> io::Result<Vec<IpAddr>> {
    let mut list = std::ptr::null_mut();
    // SAFETY: the pointer is written by the call.
    if unsafe { libc::getifaddrs(&raw mut list) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut addresses = Vec::new();
    let mut next = list;
    while !next.is_null() {
        // SAFETY: an entry of the list, which is freed below.
        let entry = unsafe { &*next };
        // SAFETY: as above; an entry's address is as long as its family says.
        addresses.extend(unsafe { address_of(entry.ifa_addr) }.filter(|address| !address.is_loopback()));
        next = entry.ifa_next;
    }
    // SAFETY: made by getifaddrs, and nothing points into it any more.
    unsafe { libc::freeifaddrs(list) };
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

/// # Safety
/// Null, or an address that is as long as its family says.
unsafe fn address_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: as the caller says.
    unsafe {
        match i32::from((*address).sa_family) {
            libc::AF_INET => {
                let v4 = address.cast::<libc::sockaddr_in>().read_unaligned();
                Some(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr)).into())
            }
            libc::AF_INET6 => {
                let v6 = address.cast::<libc::sockaddr_in6>().read_unaligned();
                Some(Ipv6Addr::from(v6.sin6_addr.s6_addr).into())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_ethernet_interface_is_refused() {
        let kind = |name: &str| Interface::named(name).map_err(|error| error.kind());
        assert_eq!(kind("lo"), Err(io::ErrorKind::InvalidInput));
        assert_eq!(kind("nobody0"), Err(io::ErrorKind::NotFound));
        assert_eq!(kind("a name that is far too long"), Err(io::ErrorKind::NotFound));
        assert_eq!(kind(""), Err(io::ErrorKind::NotFound));
        assert_eq!(kind("a\0b"), Err(io::ErrorKind::InvalidInput));
    }

    #[test]
    fn loopback_addresses_are_left_out() {
        assert!(local_addresses().unwrap().iter().all(|address| !address.is_loopback()));
    }
}
