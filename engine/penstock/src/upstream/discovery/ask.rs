//! One question to one server: a datagram, and a stream when the answer is too long for one (RFC 1035 §4.2, RFC 7766).
//!
//! Each question leaves from a socket of its own, so its port is one more secret that a forger has to guess (RFC 5452 §9.2), and
//! the socket is connected, so the kernel drops what others send. Blocks: only discovery's threads come here.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use super::message::{Kind, Query, Reply};

/// What a datagram can hold: what a server sends beyond what we asked for is still read whole, and refused by its bytes.
const DATAGRAM_BYTES: usize = 4096;

/// Asks `server`, and again without EDNS or over TCP where it wants that. Each way may take `patience`.
///
/// # Errors
/// What the network says: nobody there, or nothing heard in time.
pub(super) fn ask(server: SocketAddr, name: &str, kind: Kind, patience: Duration) -> io::Result<Reply> {
    let reply = by_datagram(server, &query(name, kind, true)?, patience)?;
    let edns = reply != Reply::NoEdns;
    let reply = if edns { reply } else { by_datagram(server, &query(name, kind, false)?, patience)? };
    match reply {
        Reply::Truncated => by_stream(server, &query(name, kind, edns)?, patience),
        reply => Ok(reply),
    }
}

fn query(name: &str, kind: Kind, edns: bool) -> io::Result<Query> {
    let mut id = [0; 2];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
    Query::new(name, kind, u16::from_ne_bytes(id), edns).ok_or_else(|| io::Error::other("no name for DNS"))
}

fn by_datagram(server: SocketAddr, query: &Query, patience: Duration) -> io::Result<Reply> {
    let socket = socket_towards(server)?;
    socket.send(query.bytes())?;
    let deadline = ring::monotonic() + patience;
    let mut bytes = [0; DATAGRAM_BYTES];
    loop {
        // Zero would mean to wait for ever.
        let left = deadline.since(ring::monotonic());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let length = socket.recv(&mut bytes)?;
        if let Some(reply) = query.read(&bytes[..length]) {
            return Ok(reply);
        }
    }
}

fn by_stream(server: SocketAddr, query: &Query, patience: Duration) -> io::Result<Reply> {
    let mut stream = TcpStream::connect_timeout(&server, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let mut framed = (query.bytes().len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(query.bytes());
    stream.write_all(&framed)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut bytes)?;
    query.read(&bytes).ok_or_else(|| io::Error::other("an answer to another question"))
}

/// Whether this host has a way there at all: an address of a family that it does not speak is nobody's endpoint.
pub(super) fn has_route(address: IpAddr) -> bool {
    socket_towards(SocketAddr::new(address, 9)).is_ok()
}

/// A datagram socket that hears this one peer only. Nothing is sent.
fn socket_towards(peer: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(peer)?;
    Ok(socket)
}
