//! One `sendmsg`: destination, source, ECN and the size of the segments as the kernel wants them told.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use crate::driver::Fd;
use crate::net::Transmit;

/// Bytes of control messages: segment size, TOS and source (88 in all).
const CONTROL: usize = 96;

/// In a row, words of ICMP about earlier datagrams before a send is given up.
const TOLD_MAX: u32 = 16;

#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// Sends the whole of `transmit`, which the kernel must be able to carry in one call (`SEND_BYTES_MAX`, `SEGMENTS_MAX`).
///
/// `dual` tells a socket of IPv6, to which IPv4 destinations are mapped.
pub(in crate::driver) fn send(fd: Fd, dual: bool, transmit: &Transmit<'_>) -> io::Result<()> {
    let to = socket2::SockAddr::from(destination(transmit.to, dual));
    let mut vector = libc::iovec { iov_base: transmit.bytes.as_ptr().cast_mut().cast(), iov_len: transmit.bytes.len() };
    let mut control = Control([0; CONTROL]);
    // SAFETY: `msghdr` is plain data for which all zeroes is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = to.as_ptr().cast_mut().cast();
    message.msg_namelen = to.len();
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    let mut writer = Writer { control: &mut control.0, used: 0 };
    writer.details(transmit);
    message.msg_controllen = writer.used as _;
    if writer.used == 0 {
        message.msg_control = std::ptr::null_mut();
    }
    #[cfg(test)]
    if let Some(error) = pretended::error() {
        return Err(error);
    }
    let mut told = 0;
    loop {
        // SAFETY: `message` and all that it names live through the call; the kernel only reads the bytes.
        let sent = unsafe { libc::sendmsg(fd, &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
        if sent >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        // What ICMP has told of an earlier datagram, once; this one was not looked at.
        if error.raw_os_error() != Some(libc::ECONNREFUSED) || told == TOLD_MAX {
            return Err(error);
        }
        told += 1;
    }
}

/// A destination in the family of the socket, as far as it has one there: to a socket of IPv6, IPv4 is mapped (RFC 4291 §2.5.5.2).
fn destination(to: SocketAddr, dual: bool) -> SocketAddr {
    match to.ip().to_canonical() {
        IpAddr::V4(v4) if dual => SocketAddrV6::new(v4.to_ipv6_mapped(), to.port(), 0, 0).into(),
        IpAddr::V4(v4) => (v4, to.port()).into(),
        IpAddr::V6(_) => to,
    }
}

/// Writes control messages one behind the other (cmsg(3)).
struct Writer<'a> {
    control: &'a mut [u8; CONTROL],
    used: usize,
}

impl Writer<'_> {
    fn details(&mut self, transmit: &Transmit<'_>) {
        if let Some(segment) = transmit.segment.filter(|&segment| segment < transmit.bytes.len()) {
            self.put(libc::SOL_UDP, libc::UDP_SEGMENT, &(segment as u16).to_ne_bytes());
        }
        // A mapped destination is IPv4's all the way, and its details are told in IPv4's form.
        let to = transmit.to.ip().to_canonical();
        let tos = i32::from(transmit.ecn & 0b11).to_ne_bytes();
        if transmit.ecn & 0b11 != 0 {
            match to {
                IpAddr::V4(_) => self.put(libc::SOL_IP, libc::IP_TOS, &tos),
                IpAddr::V6(_) => self.put(libc::SOL_IPV6, libc::IPV6_TCLASS, &tos),
            }
        }
        match (to, transmit.from.map(|from| from.to_canonical()).filter(|from| !from.is_unspecified())) {
            (IpAddr::V4(_), Some(IpAddr::V4(from))) => {
                // `struct in_pktinfo`: interface (any), source, and a destination that is read in receives only.
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&from.octets());
                self.put(libc::SOL_IP, libc::IP_PKTINFO, &info);
            }
            (IpAddr::V6(_), Some(IpAddr::V6(from))) => {
                let mut info = [0; 20];
                info[..16].copy_from_slice(&from.octets());
                self.put(libc::SOL_IPV6, libc::IPV6_PKTINFO, &info);
            }
            _ => {}
        }
    }

    fn put(&mut self, level: i32, kind: i32, data: &[u8]) {
        // SAFETY: arithmetic only.
        let (len, space) =
            unsafe { (libc::CMSG_LEN(data.len() as u32) as usize, libc::CMSG_SPACE(data.len() as u32) as usize) };
        let place = &mut self.control[self.used..][..space];
        // SAFETY: `cmsghdr` is plain data for which all zeroes is a value.
        let mut header: libc::cmsghdr = unsafe { std::mem::zeroed() };
        header.cmsg_len = len as _;
        header.cmsg_level = level;
        header.cmsg_type = kind;
        // SAFETY: `place` is longer than a header (`CMSG_SPACE`), and alignment does not matter.
        unsafe { place.as_mut_ptr().cast::<libc::cmsghdr>().write_unaligned(header) };
        place[len - data.len()..len].copy_from_slice(data);
        self.used += space;
    }
}

/// What a real socket does only on a real network, for tests: loopback takes everything at once.
#[cfg(test)]
pub(crate) mod pretended {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        static NEXT: Cell<(u32, i32)> = const { Cell::new((0, 0)) };
    }

    /// The thread's next `times` sends fail with `errno`.
    pub(crate) fn fail(times: u32, errno: i32) {
        NEXT.set((times, errno));
    }

    pub(super) fn error() -> Option<io::Error> {
        let (times, errno) = NEXT.get();
        NEXT.set((times.checked_sub(1)?, errno));
        Some(io::Error::from_raw_os_error(errno))
    }
}
