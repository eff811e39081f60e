//! Two network namespaces with a cable between them ([`Net`]): one that the test and its engine live in, and one that clients come from. Or as many
//! as a test wants hosts ([`Street`]).
//!
//! What holds: nothing outside of them is touched, and they go away with their owner; what a test that was killed has left goes with the next one.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::Tool;

/// Where `ip netns` keeps its names.
const FOLDER: &str = "/run/netns";
const PREFIX: &str = "penstock-test-";

thread_local! {
    static OUTSIDE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The namespaces. The thread that made them is in the inner one from then on, with all threads and processes that it starts.
#[derive(Debug)]
pub struct Net {
    inner: String,
    outer: String,
}

impl Net {
    /// The interface of the inner one.
    pub const INTERFACE: &'static str = "door0";
    /// Its addresses.
    pub const V4: &'static str = "10.77.0.1";
    pub const V6: &'static str = "fd77::1";
    /// Of the outer one.
    pub const OUTSIDE_V4: &'static str = "10.77.0.2";

    /// Makes them; `None` where that is not allowed, and says so.
    pub fn enter() -> Option<Self> {
        Self::with_queues(1)
    }

    /// As [`enter`](Self::enter), where `PENSTOCK_TEST_AF_XDP` is set: doors of HTTP/3 that this thread opens then serve clients of the outer one by AF_XDP.
    pub(crate) fn enter_if_wanted() -> Option<Self> {
        std::env::var_os("PENSTOCK_TEST_AF_XDP")?;
        let net = Self::enter()?;
        OUTSIDE.set(Some(net.outer.clone()));
        Some(net)
    }

    /// The outer namespace of the one that was wanted.
    pub(crate) fn wanted() -> Option<String> {
        OUTSIDE.with_borrow(Clone::clone)
    }

    /// As [`enter`](Self::enter), with so many queues at either end of the cable.
    pub fn with_queues(queues: usize) -> Option<Self> {
        let queues = queues.to_string();
        let queues = ["numrxqueues", &queues, "numtxqueues", &queues];
        let net = Self { inner: namespace("in")?, outer: namespace("out")? };
        let (inner, outer) = (net.inner.as_str(), net.outer.as_str());
        let ends = ["type", "veth", "peer", "name", "street0", "netns", outer];
        ip(&[&["link", "add", Self::INTERFACE, "netns", inner][..], &queues, &ends, &queues].concat());
        for (namespace, device, number) in [(inner, Self::INTERFACE, 1), (outer, "street0", 2)] {
            ip(&["-n", namespace, "link", "set", "lo", "up"]);
            ip(&["-n", namespace, "addr", "add", &format!("10.77.0.{number}/16"), "dev", device]);
            ip(&["-n", namespace, "addr", "add", &format!("fd77::{number}/48"), "dev", device, "nodad"]);
            ip(&["-n", namespace, "link", "set", device, "up"]);
        }
        move_into(inner);
        Some(net)
    }

    /// One more address of the outer one: IPv4 of 10.77.0.0/16, or IPv6 of fd77::/48.
    pub fn also_from(&self, address: &str) {
        let bits = if address.contains(':') { "48" } else { "16" };
        let mut words = vec!["-n", &self.outer, "addr", "add"];
        let network = format!("{address}/{bits}");
        words.extend([network.as_str(), "dev", "street0"]);
        if address.contains(':') {
            words.push("nodad");
        }
        ip(&words);
    }

    /// What happens outside.
    pub fn outside<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into(&self.outer);
                body()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A connection from an address of the outer one.
    ///
    /// # Errors
    /// There is none within `patience`.
    pub fn connect(&self, from: &str, to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
        let from: IpAddr = from.parse().expect("an address");
        self.outside(|| {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
            socket.bind(&SockAddr::from(SocketAddr::new(from, 0)))?;
            socket.connect_timeout(&to.into(), patience)?;
            let stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(patience))?;
            stream.set_write_timeout(Some(patience))?;
            Ok(stream)
        })
    }

    /// The status of a request on a connection of its own.
    ///
    /// # Errors
    /// There is none within `patience`.
    pub fn get(&self, from: &str, to: SocketAddr, patience: Duration) -> io::Result<u16> {
        let mut stream = self.connect(from, to, patience)?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let status = answer.get(9..12).and_then(|status| std::str::from_utf8(status).ok()?.parse().ok());
        status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, String::from_utf8_lossy(&answer).into_owned()))
    }

    /// What `ip` says of the inner interface.
    pub fn interface(&self) -> String {
        Tool::new("ip", 20).args(["-d", "link", "show", "dev", Self::INTERFACE]).succeed().text()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in [&self.inner, &self.outer] {
            remove(name);
        }
    }
}

/// Hosts on one street: a namespace each, with a cable `eth0` to a bridge in one more.
///
/// Checksums are finished where the bridge sends, as a wire has them: what a cable of the kernel's carries otherwise is a promise that only the
/// kernel's own stack can keep.
#[derive(Debug)]
pub struct Street {
    hosts: Vec<(&'static str, String)>,
}

impl Street {
    /// The bridge's namespace, whose interfaces have the names of their hosts.
    pub const BRIDGE: &'static str = "bridge";
    pub const INTERFACE: &'static str = "eth0";

    /// Builds it: the host at place `n` (from 1) has 10.78.0.`n` and fd78::`n`. `None` where that is not allowed, and says so.
    pub fn build(hosts: &[&'static str]) -> Option<Self> {
        if xtask::place::program("ethtool").is_none() {
            println!("SKIPPED: a street needs `ethtool`");
            return None;
        }
        let mut street = Self { hosts: Vec::new() };
        for host in std::iter::once(&Self::BRIDGE).chain(hosts) {
            street.hosts.push((host, namespace(host)?));
        }
        let bridge = street.namespace(Self::BRIDGE);
        ip(&["-n", bridge, "link", "add", "street", "type", "bridge", "forward_delay", "0"]);
        ip(&["-n", bridge, "link", "set", "street", "mtu", "1600", "up"]);
        ip(&["-n", bridge, "link", "set", "lo", "up"]);
        for (number, host) in (1..).zip(hosts) {
            let inner = street.namespace(host);
            let cable = ["type", "veth", "peer", "name", host, "netns", bridge];
            ip(&[&["link", "add", Self::INTERFACE, "mtu", "1600", "netns", inner][..], &cable].concat());
            ip(&["-n", bridge, "link", "set", host, "mtu", "1600", "master", "street", "up"]);
            Tool::new("ip", 20).args(["netns", "exec", bridge, "ethtool", "-K", host, "tx", "off"]).succeed();
            ip(&["-n", inner, "link", "set", "lo", "up"]);
            ip(&["-n", inner, "addr", "add", &format!("10.78.0.{number}/16"), "dev", Self::INTERFACE]);
            ip(&["-n", inner, "addr", "add", &format!("fd78::{number}/48"), "dev", Self::INTERFACE, "nodad"]);
            ip(&["-n", inner, "link", "set", Self::INTERFACE, "up"]);
        }
        Some(street)
    }

    fn namespace(&self, host: &str) -> &str {
        let found = self.hosts.iter().find(|(name, _)| *name == host);
        found.map(|(_, namespace)| namespace.as_str()).unwrap_or_else(|| panic!("nobody is called {host}"))
    }

    /// Moves this thread to a host, with what it starts from then on.
    pub fn go(&self, host: &str) {
        move_into(self.namespace(host));
    }

    /// What happens at a host, on a thread of its own.
    pub fn at<T: Send>(&self, host: &str, body: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.go(host);
                body()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// `ip` at a host.
    pub fn ip(&self, host: &str, words: &[&str]) -> String {
        Tool::new("ip", 20).args([&["-n", self.namespace(host)], words].concat()).succeed().text()
    }

    /// Lets the kernel of a host forward.
    pub fn forwards(&self, host: &str) {
        self.at(host, || {
            for family in ["ipv4", "ipv6"] {
                std::fs::write(format!("/proc/sys/net/{family}/conf/all/forwarding"), "1").expect("it is ours");
            }
        });
    }
}

impl Drop for Street {
    fn drop(&mut self) {
        for (_, namespace) in &self.hosts {
            remove(namespace);
        }
    }
}

/// SYNs that nobody has sent: IPv4, from the inside of 10.77.0.0/16.
#[derive(Debug)]
pub struct SynFlood {
    socket: Socket,
    to: SocketAddr,
    sent: u32,
}

impl SynFlood {
    /// To be made, and used, outside.
    ///
    /// # Panics
    /// There are no raw sockets here.
    pub fn new(to: SocketAddr) -> Self {
        Self { socket: raw_socket(), to, sent: 0 }
    }

    /// One more, from one of `sources` addresses in their turn, each time with another port.
    pub fn send(&mut self, sources: u32) {
        let from = Ipv4Addr::from(0x0a4d_4000 + self.sent % sources);
        let port = 1_024 + (self.sent / sources % 60_000) as u16;
        let packet = syn(from, port, self.to);
        self.sent += 1;
        // No room for it: a flood has others.
        let _ = self.socket.send_to(&packet, &SockAddr::from(self.to));
    }
}

/// Datagrams of IPv4 whose headers are the test's.
#[derive(Debug)]
pub struct RawUdp(Socket);

impl RawUdp {
    /// To be made, and used, outside.
    ///
    /// # Panics
    /// There are no raw sockets here.
    #[allow(clippy::new_without_default, reason = "it opens a socket")]
    pub fn new() -> Self {
        Self(raw_socket())
    }

    /// Sends a datagram as `change` leaves it: an IPv4 header of 20 octets, UDP's, and `bytes`. The header's own checksum is the kernel's to finish.
    pub fn send(&self, from: SocketAddr, to: SocketAddr, bytes: &[u8], change: impl FnOnce(&mut [u8])) {
        let (IpAddr::V4(source), IpAddr::V4(target)) = (from.ip(), to.ip()) else { panic!("{from} {to}: not IPv4") };
        let length = 8 + bytes.len() as u16;
        let mut udp = [from.port(), to.port(), length, 0].map(u16::to_be_bytes).concat();
        udp.extend(bytes);
        let pseudo = [&source.octets()[..], &target.octets(), &[0, 17], &length.to_be_bytes(), &udp].concat();
        udp[6..8].copy_from_slice(&checksum_of(&pseudo).to_be_bytes());
        let mut packet = vec![0x45, 0];
        packet.extend((20 + length).to_be_bytes());
        packet.extend([0, 1, 0, 0, 64, 17, 0, 0]);
        packet.extend(source.octets());
        packet.extend(target.octets());
        packet.extend(udp);
        change(&mut packet);
        self.0.send_to(&packet, &SockAddr::from(to)).expect("there is room for one");
    }
}

fn raw_socket() -> Socket {
    // IPPROTO_RAW: the header is ours.
    Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).expect("a raw socket")
}

/// An IPv4 packet with a SYN in it.
fn syn(from: Ipv4Addr, port: u16, to: SocketAddr) -> Vec<u8> {
    let IpAddr::V4(address) = to.ip() else { panic!("{to} is not IPv4") };
    let mut tcp = Vec::with_capacity(40);
    tcp.extend(port.to_be_bytes());
    tcp.extend(to.port().to_be_bytes());
    tcp.extend(u32::from(from).wrapping_mul(2_654_435_761).to_be_bytes());
    tcp.extend([0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    let mut pseudo = [from.octets(), address.octets()].concat();
    pseudo.extend([0, 6, 0, tcp.len() as u8]);
    pseudo.extend(&tcp);
    let sum = checksum_of(&pseudo);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
    packet.extend(from.octets());
    packet.extend(address.octets());
    packet.extend(tcp);
    packet
}

/// The Internet's checksum (RFC 1071).
pub fn checksum_of(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let mut sum = words.sum::<u32>();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Makes a namespace; `None` where that is not allowed, and says so.
fn namespace(side: &str) -> Option<String> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    if !is_root || xtask::place::program("ip").is_none() {
        println!("SKIPPED: network namespaces need root and `ip`");
        return None;
    }
    remove_stale();
    let name = format!("{PREFIX}{}-{}-{side}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let made = Tool::new("ip", 20).args(["netns", "add", &name]).run();
    if made.code == Some(0) {
        return Some(name);
    }
    println!("SKIPPED: no network namespace: {}", made.err.trim());
    None
}

fn ip(words: &[&str]) {
    Tool::new("ip", 20).args(words).succeed();
}

fn move_into(namespace: &str) {
    let file = File::open(Path::new(FOLDER).join(namespace)).expect("a namespace of ours");
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may move");
}

fn remove(namespace: &str) {
    let _ = Tool::new("ip", 20).args(["netns", "delete", namespace]).run();
}

/// Those of processes that are no more.
fn remove_stale() {
    for entry in std::fs::read_dir(FOLDER).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner.to_string()).exists()) {
            remove(&name);
        }
    }
}
