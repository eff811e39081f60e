//! Datagram sockets of the real drivers: how they are set up, received from and sent on.
//!
//! Both drivers make these calls themselves, and only wait by way of their rings (`Request::PollIn`, `Request::PollOut`). So the
//! kernel never keeps a pointer to memory of ours.

mod receive;
mod send;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, IntoRawFd};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::Fd;
use crate::net::{Foreign, UdpGranted, UdpOptions};

pub(crate) use receive::Batch;
pub(super) use receive::refused;
#[cfg(test)]
pub(crate) use send::pretended;
pub(super) use send::send;

/// Datagrams that one send can be cut into: `UDP_MAX_SEGMENTS` of kernels before 6.10; later ones take 128, which no batch
/// of 64 KiB has use for.
pub(crate) const SEGMENTS_MAX: usize = 64;

/// Bytes that one send can carry: what is left of an IPv4 packet's 65,535 behind its header and UDP's.
pub(crate) const SEND_BYTES_MAX: usize = 65_507;

/// A bound socket, never blocking, that tells destination and ECN of what arrives and sends with the "don't fragment" bit.
pub(super) fn bind(address: SocketAddr, options: &UdpOptions) -> io::Result<(Fd, UdpGranted)> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::UDP))?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(options.only_v6)?;
    }
    let mut granted = UdpGranted::default();
    let both_families = address.is_ipv6() && !options.only_v6;
    ask_for_details(socket.as_raw_fd(), address, both_families, options.fragments, &mut granted.missing);
    if options.refusals {
        ask_for_refusals(socket.as_raw_fd(), address, both_families, &mut granted.missing);
    }
    ask_for_batches(socket.as_raw_fd(), &mut granted);
    ask_for_buffers(&socket, options, &mut granted)?;
    // On a socket of IPv6 it counts for both families.
    let foreign = || set(socket.as_raw_fd(), libc::SOL_IP, libc::IP_FREEBIND, 1);
    if options.foreign == Foreign::Bound {
        foreign()?;
    }
    socket.bind(&SockAddr::from(address))?;
    // Not before, so that who binds an address that is not there hears of it.
    if options.foreign == Foreign::Answers
        && let Err(error) = foreign()
    {
        granted.missing.push(format!("IP_FREEBIND ({error})"));
    }
    Ok((socket.into_raw_fd(), granted))
}

/// Destination, ECN and the "don't fragment" bit, of each family that may come (ip(7), ipv6(7)).
fn ask_for_details(fd: Fd, address: SocketAddr, both_families: bool, fragments: bool, missing: &mut Vec<String>) {
    let (discovery_v4, discovery_v6) = match fragments {
        true => (libc::IP_PMTUDISC_DONT, libc::IPV6_PMTUDISC_DONT),
        false => (libc::IP_PMTUDISC_PROBE, libc::IPV6_PMTUDISC_PROBE),
    };
    let v4 = [
        ("IP_PKTINFO", libc::IP_PKTINFO, 1),
        ("IP_RECVTOS", libc::IP_RECVTOS, 1),
        ("IP_MTU_DISCOVER", libc::IP_MTU_DISCOVER, discovery_v4),
    ];
    let v6 = [
        ("IPV6_RECVPKTINFO", libc::IPV6_RECVPKTINFO, 1),
        ("IPV6_RECVTCLASS", libc::IPV6_RECVTCLASS, 1),
        ("IPV6_MTU_DISCOVER", libc::IPV6_MTU_DISCOVER, discovery_v6),
    ];
    let wanted_v4 = v4.iter().filter(|_| address.is_ipv4() || both_families).map(|option| (libc::SOL_IP, option));
    let wanted_v6 = v6.iter().filter(|_| address.is_ipv6()).map(|option| (libc::SOL_IPV6, option));
    let overflows = ("SO_RXQ_OVFL", libc::SO_RXQ_OVFL, 1);
    for (level, &(name, option, value)) in wanted_v4.chain(wanted_v6).chain([(libc::SOL_SOCKET, &overflows)]) {
        if let Err(error) = set(fd, level, option, value) {
            missing.push(format!("{name} ({error})"));
        }
    }
}

/// What ICMP tells of datagrams that were sent.
fn ask_for_refusals(fd: Fd, address: SocketAddr, both_families: bool, missing: &mut Vec<String>) {
    let v4 = ("IP_RECVERR", libc::SOL_IP, libc::IP_RECVERR, address.is_ipv4() || both_families);
    let v6 = ("IPV6_RECVERR", libc::SOL_IPV6, libc::IPV6_RECVERR, address.is_ipv6());
    for (name, level, option, _) in [v4, v6].into_iter().filter(|(.., wanted)| *wanted) {
        if let Err(error) = set(fd, level, option, 1) {
            missing.push(format!("{name} ({error})"));
        }
    }
}

/// GRO, and whether GSO is known here.
fn ask_for_batches(fd: Fd, granted: &mut UdpGranted) {
    match set(fd, libc::SOL_UDP, libc::UDP_GRO, 1) {
        Ok(()) => granted.gro = true,
        Err(error) => granted.missing.push(format!("UDP_GRO ({error}): each datagram is received alone")),
    }
    // Each send says its own size; 0 is the default again.
    let probed =
        set(fd, libc::SOL_UDP, libc::UDP_SEGMENT, 1_200).and_then(|()| set(fd, libc::SOL_UDP, libc::UDP_SEGMENT, 0));
    granted.gso_segments = match probed {
        Ok(()) => SEGMENTS_MAX,
        Err(error) => {
            granted.missing.push(format!("UDP_SEGMENT ({error}): each datagram is sent alone"));
            1
        }
    };
}

/// Buffers as large as asked for: beyond the host's limits if we may, else as large as those allow.
fn ask_for_buffers(socket: &Socket, options: &UdpOptions, granted: &mut UdpGranted) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    let wanted = |bytes: usize| i32::try_from(bytes).unwrap_or(i32::MAX / 2);
    if set(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, wanted(options.receive_buffer)).is_err() {
        socket.set_recv_buffer_size(options.receive_buffer)?;
    }
    if set(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, wanted(options.send_buffer)).is_err() {
        socket.set_send_buffer_size(options.send_buffer)?;
    }
    // The kernel doubles what it is asked for, to have room for its own bookkeeping, and tells that (socket(7)).
    granted.receive_buffer = socket.recv_buffer_size()? / 2;
    granted.send_buffer = socket.send_buffer_size()? / 2;
    for (name, limit, asked, got) in [
        ("receive", "net.core.rmem_max", options.receive_buffer, granted.receive_buffer),
        ("send", "net.core.wmem_max", options.send_buffer, granted.send_buffer),
    ] {
        if got < asked {
            granted.missing.push(format!("{name} buffer of {asked} bytes: {got} granted ({limit})"));
        }
    }
    Ok(())
}

fn set(fd: Fd, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: an int option that lives through the call.
    let result = unsafe {
        let len = size_of::<i32>() as libc::socklen_t;
        libc::setsockopt(fd, level, option, (&raw const value).cast(), len)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
