//! What has arrived: the memory that datagrams are received into, and what the kernel tells about them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::driver::Fd;
use crate::net::Received;

/// Receives of one call. With GRO each is up to 64 KiB, so half a MiB in all stays in the second-level cache.
const COUNT: usize = 8;

/// As large as a datagram, or several joined by GRO, can be.
const BYTES: usize = 64 << 10;

/// Bytes of control messages: destination in both families' forms, TOS or traffic class, GRO size, drops (144 in all).
const CONTROL: usize = 192;

/// In a row, errors that ICMP told of some destination, before receiving gives the others their turn.
const ERRORS_MAX: usize = 16;

/// Words of ICMP that are taken at once: as many as handshakes that begin in a turn, times four.
const REFUSALS_MAX: usize = 64;

/// Memory for a few receives, lent to whoever is called with what came: one a ring, made at its first receive.
pub(crate) struct Batch {
    memory: Box<[u8]>,
    vectors: [libc::iovec; COUNT],
    names: [libc::sockaddr_storage; COUNT],
    controls: [Control; COUNT],
    arrivals: [Arrival; COUNT],
    count: usize,
    /// The kernel's count of drops, if it told one.
    overflowed: Option<u32>,
}

#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// What is known of one receive.
#[derive(Clone, Copy)]
struct Arrival {
    from: SocketAddr,
    to: Option<IpAddr>,
    ecn: u8,
    stride: usize,
    len: usize,
}

const NOBODY: Arrival =
    Arrival { from: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)), to: None, ecn: 0, stride: 1, len: 0 };

impl Batch {
    /// Takes no more of the memory than is received into.
    pub(crate) fn new() -> Box<Self> {
        // SAFETY: `iovec` and `sockaddr_storage` are plain data for which all zeroes is a value.
        let (vectors, names) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        Box::new(Self {
            memory: vec![0; COUNT * BYTES].into_boxed_slice(),
            vectors,
            names,
            controls: [Control([0; CONTROL]); COUNT],
            arrivals: [NOBODY; COUNT],
            count: 0,
            overflowed: None,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Receives that came: each one datagram, or several joined.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Every place was taken: there may be more.
    pub(crate) fn is_full(&self) -> bool {
        self.count == COUNT
    }

    pub(crate) fn datagrams(&self) -> u64 {
        let arrived = &self.arrivals[..self.count];
        arrived.iter().map(|arrival| arrival.len.div_ceil(arrival.stride).max(1) as u64).sum()
    }

    pub(crate) fn overflowed(&self) -> Option<u32> {
        self.overflowed
    }

    pub(crate) fn each(&mut self, take: &mut dyn FnMut(Received<'_>)) {
        let arrived = &self.arrivals[..self.count];
        for (&Arrival { from, to, ecn, stride, len }, place) in arrived.iter().zip(self.memory.chunks_mut(BYTES)) {
            take(Received { from, to, ecn, stride, bytes: &mut place[..len] });
        }
    }

    /// Receives as much as there is and fits; nothing is no error.
    pub(in crate::driver) fn receive(&mut self, fd: Fd) -> io::Result<()> {
        self.count = 0;
        for _ in 0..ERRORS_MAX {
            let mut messages = self.messages();
            // SAFETY: `messages` and all that they name are valid for the call, after which the kernel knows none of it.
            let got = unsafe {
                libc::recvmmsg(fd, messages.as_mut_ptr(), COUNT as u32, libc::MSG_DONTWAIT, std::ptr::null_mut())
            };
            if got >= 0 {
                messages[..got as usize].iter().enumerate().for_each(|(index, message)| self.arrived(index, message));
                return Ok(());
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EAGAIN) => return Ok(()),
                // What ICMP tells of an earlier datagram is told once, and concerns nobody here.
                Some(
                    libc::EINTR
                    | libc::ECONNREFUSED
                    | libc::EHOSTUNREACH
                    | libc::ENETUNREACH
                    | libc::EHOSTDOWN
                    | libc::EMSGSIZE
                    | libc::EACCES
                    | libc::EPROTO
                    | libc::ENOPROTOOPT,
                ) => {}
                _ => return Err(error),
            }
        }
        Ok(())
    }

    /// The kernel's view of our memory.
    fn messages(&mut self) -> [libc::mmsghdr; COUNT] {
        // SAFETY: `mmsghdr` is plain data for which all zeroes is a value.
        let mut messages: [libc::mmsghdr; COUNT] = unsafe { std::mem::zeroed() };
        for (index, message) in messages.iter_mut().enumerate() {
            let place = &mut self.memory[index * BYTES..][..BYTES];
            self.vectors[index] = libc::iovec { iov_base: place.as_mut_ptr().cast(), iov_len: BYTES };
            message.msg_hdr.msg_name = (&raw mut self.names[index]).cast();
            message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            message.msg_hdr.msg_control = (&raw mut self.controls[index]).cast();
            message.msg_hdr.msg_controllen = CONTROL as _;
            message.msg_hdr.msg_iov = &raw mut self.vectors[index];
            message.msg_hdr.msg_iovlen = 1;
        }
        messages
    }

    /// Notes what the kernel tells of the receive in place `index`.
    fn arrived(&mut self, index: usize, message: &libc::mmsghdr) {
        // The length of a datagram that is empty is 0; a stride never is.
        let len = (message.msg_len as usize).min(BYTES);
        let mut arrival = Arrival { stride: len.max(1), len, ..NOBODY };
        if let Some(from) = address_of(&self.names[index]) {
            arrival.from = from;
        }
        // SAFETY: the header's control messages are `controls[index]`, which the kernel has filled up to `msg_controllen`.
        unsafe {
            each_control(&message.msg_hdr, |control| self.overflowed = control.tell(&mut arrival).or(self.overflowed))
        };
        self.arrivals[index] = arrival;
        self.count = index + 1;
    }

    /// Puts a datagram, or several joined, into the next place; false if all are taken. For the simulation.
    pub(in crate::driver) fn put(
        &mut self,
        from: SocketAddr,
        to: IpAddr,
        ecn: u8,
        stride: usize,
        bytes: &[u8],
    ) -> bool {
        if self.is_full() || bytes.len() > BYTES {
            return false;
        }
        self.memory[self.count * BYTES..][..bytes.len()].copy_from_slice(bytes);
        self.arrivals[self.count] = Arrival { from, to: Some(to), ecn, stride: stride.max(1), len: bytes.len() };
        self.count += 1;
        true
    }

    /// How much the simulated kernel has dropped.
    pub(in crate::driver) fn set_overflowed(&mut self, overflowed: Option<u32>) {
        self.overflowed = overflowed;
    }

    /// Forgets what it held.
    pub(in crate::driver) fn clear(&mut self) {
        self.count = 0;
    }
}

/// One control message: what it is, and its bytes.
struct ControlMessage<'a> {
    level: i32,
    kind: i32,
    bytes: &'a [u8],
}

impl ControlMessage<'_> {
    /// Tells `arrival` what it is about, or returns the kernel's count of drops.
    fn tell(&self, arrival: &mut Arrival) -> Option<u32> {
        match (self.level, self.kind) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                arrival.stride = usize::try_from(self.int()?).ok().filter(|&stride| stride > 0)?.min(arrival.stride);
            }
            // IPv4's comes as one byte, IPv6's as an int.
            (libc::SOL_IP, libc::IP_TOS) => arrival.ecn = *self.bytes.first()? & 0b11,
            (libc::SOL_IPV6, libc::IPV6_TCLASS) => arrival.ecn = self.int()? as u8 & 0b11,
            (libc::SOL_IP, libc::IP_PKTINFO) => {
                // `struct in_pktinfo`: interface, address of ours, destination; the last is what the packet said.
                let to: [u8; 4] = self.bytes.get(8..12)?.try_into().ok()?;
                arrival.to = Some(Ipv4Addr::from(to).into());
            }
            (libc::SOL_IPV6, libc::IPV6_PKTINFO) => {
                let to: [u8; 16] = self.bytes.get(..16)?.try_into().ok()?;
                arrival.to = Some(Ipv6Addr::from(to).to_canonical());
            }
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => return self.int().map(|drops| drops as u32),
            _ => {}
        }
        None
    }

    /// It is ICMP's word that nobody listens at the port (`struct sock_extended_err`: errno, and whose word it is).
    fn tells_of_nobody(&self) -> bool {
        let kind =
            matches!((self.level, self.kind), (libc::SOL_IP, libc::IP_RECVERR) | (libc::SOL_IPV6, libc::IPV6_RECVERR));
        let origin = self.bytes.get(4).copied();
        kind && self.int() == Some(libc::ECONNREFUSED)
            && matches!(origin, Some(libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6))
    }

    fn int(&self) -> Option<i32> {
        self.bytes.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes))
    }
}

/// Calls `with` for each control message of a header.
///
/// # Safety
/// `header.msg_control` is valid and filled for `header.msg_controllen` bytes, as recvmsg(2) leaves it.
unsafe fn each_control(header: &libc::msghdr, mut with: impl FnMut(ControlMessage<'_>)) {
    // SAFETY: as the caller says; the macros of cmsg(3) stay within `msg_controllen`.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !next.is_null() {
        // SAFETY: a header that the macros point at lies within the control messages, with its data behind it.
        let (message, bytes) = unsafe {
            let message = std::ptr::read_unaligned(next);
            let len = (message.cmsg_len as usize).saturating_sub(libc::CMSG_LEN(0) as usize);
            (message, std::slice::from_raw_parts(libc::CMSG_DATA(next), len))
        };
        with(ControlMessage { level: message.cmsg_level, kind: message.cmsg_type, bytes });
        // SAFETY: as `CMSG_FIRSTHDR`.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
}

/// Takes from the socket's queue of errors what ICMP has told: the destinations at which nobody listens. Everything else is passed over. No more
/// than so many at a time; what is left makes the socket readable again.
pub(in crate::driver) fn refused(fd: Fd) -> Vec<SocketAddr> {
    let mut destinations = Vec::new();
    for _ in 0..REFUSALS_MAX {
        // SAFETY: plain data for which all zeroes is a value.
        let (mut name, mut message): (libc::sockaddr_storage, libc::msghdr) = unsafe { std::mem::zeroed() };
        let mut control = Control([0; CONTROL]);
        message.msg_name = (&raw mut name).cast();
        message.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        message.msg_control = (&raw mut control).cast();
        message.msg_controllen = CONTROL as _;
        // SAFETY: `message` and all that it names are valid for the call; of the datagram itself nothing is asked for.
        let got = unsafe { libc::recvmsg(fd, &raw mut message, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
        if got < 0 {
            break;
        }
        let mut told = false;
        // SAFETY: the header's control messages are `control`, which the kernel has filled up to `msg_controllen`.
        unsafe { each_control(&message, |control| told |= control.tells_of_nobody()) };
        destinations.extend(address_of(&name).filter(|_| told));
    }
    destinations
}

/// A sender's address, IPv4 as such; `None` if the kernel told none.
fn address_of(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let name = std::ptr::from_ref(name);
    // SAFETY: the family says which address it is, and a storage is large enough and aligned for either.
    match i32::from(unsafe { (*name).ss_family }) {
        libc::AF_INET => {
            // SAFETY: as above.
            let v4 = unsafe { &*name.cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*name.cast::<libc::sockaddr_in6>() };
            let (ip, port) = (Ipv6Addr::from(v6.sin6_addr.s6_addr), u16::from_be(v6.sin6_port));
            Some(match ip.to_ipv4_mapped() {
                Some(v4) => SocketAddrV4::new(v4, port).into(),
                None => SocketAddrV6::new(ip, port, 0, v6.sin6_scope_id).into(),
            })
        }
        _ => None,
    }
}
