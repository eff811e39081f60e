//! The street that these tests are on: a client, two balancers, and three origins with a decapsulator each.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harness::{Driver, Engine, PATIENCE, Setup, Street, until};

pub(crate) const HOSTS: [&str; 6] = ["client", "lb1", "lb2", "o1", "o2", "o3"];
pub(crate) const ORIGINS: [&str; 3] = ["o1", "o2", "o3"];
pub(crate) const PORT: u16 = 8_080;

/// A VIP of each family for each way.
pub(crate) const VIPS: [(&str, &str, &str); 4] = [
    ("ipip", "10.79.0.1", "fd79::1"),
    ("gue", "10.79.0.2", "fd79::2"),
    ("dsr", "10.79.0.3", "fd79::3"),
    ("nat", "10.79.0.4", "fd79::4"),
];

/// Where packets of `nat` come from, by balancer.
pub(crate) const OURS: [(&str, &str, &str); 2] = [("lb1", "10.78.1.1", "fd78::1:1"), ("lb2", "10.78.1.2", "fd78::1:2")];

/// A street with everything on it.
pub(crate) struct Town {
    pub(crate) street: Street,
    /// By balancer.
    pub(crate) balancers: Vec<Engine>,
    /// One that is set is not well.
    pub(crate) sick: [Arc<AtomicBool>; 3],
    /// The decapsulators, and what lets frames that a native program has sent back come in.
    _others: Vec<Engine>,
}

impl Town {
    /// `None` where it is not granted.
    pub(crate) fn build(mode: &str) -> Option<Self> {
        Self::with(mode, "", "")
    }

    /// With more in the balancers' configuration: under `[engine]`, and at its end.
    pub(crate) fn with(mode: &str, engine: &str, more: &str) -> Option<Self> {
        let street = Street::build(&HOSTS)?;
        let mut others = Vec::new();
        if mode == "native" {
            street.go(Street::BRIDGE);
            let shield = "[shield]\ninterfaces = [\"lb1\", \"lb2\"]\nmode = \"native\"";
            others.push(Setup::new(Driver::Epoll).to("127.0.0.1:9").more(shield).start());
        }
        for (host, v4, v6) in OURS {
            street.ip(host, &["addr", "add", &format!("{v4}/32"), "dev", "lo"]);
            street.ip(host, &["addr", "add", &format!("{v6}/128"), "dev", Street::INTERFACE, "nodad"]);
        }
        let sick = ORIGINS.map(|host| {
            for address in addresses() {
                let whole = if address.is_ipv4() { format!("{address}/32") } else { format!("{address}/128") };
                let words = ["addr", "add", &whole, "dev", "lo", "nodad"];
                street.ip(host, if address.is_ipv4() { &words[..5] } else { &words });
            }
            street.at(host, || serve(host))
        });
        let quoted: Vec<_> = addresses().map(|address| format!("\"{address}\"")).collect();
        let decap = format!("[decap]\ninterfaces = [\"eth0\"]\nmode = {mode:?}\naddresses = [{}]", quoted.join(", "));
        for host in ORIGINS {
            street.go(host);
            others.push(Setup::new(Driver::Epoll).to("127.0.0.1:9").more(&decap).start());
            if !is_granted(others.last()?, mode) {
                return None;
            }
        }
        for host in ["lb1", "lb2"] {
            street.forwards(host);
        }
        let mut town = Self { street, balancers: Vec::new(), sick, _others: others };
        for host in ["lb1", "lb2"] {
            town.street.go(host);
            let engine = balancer(mode, host, engine, more);
            if !is_granted(&engine, mode) {
                return None;
            }
            town.balancers.push(engine);
        }
        town.route("lb1");
        Some(town)
    }

    /// From now on the client's packets to VIPs go to this balancer.
    pub(crate) fn route(&self, balancer: &str) {
        self.route_by(balancer, &[]);
    }

    /// As [`route`](Self::route), by a route that knows how long they may be: there is room for outer headers on the street.
    pub(crate) fn route_with_room(&self, balancer: &str) {
        self.route_by(balancer, &["mtu", "1500"]);
    }

    fn route_by(&self, balancer: &str, more: &[&str]) {
        let number = HOSTS.iter().position(|host| *host == balancer).expect("it is one") + 1;
        let (v4, v6) = (format!("10.78.0.{number}"), format!("fd78::{number}"));
        self.street.ip("client", &[&["route", "replace", "10.79.0.0/16", "via", &v4], more].concat());
        self.street.ip("client", &[&["-6", "route", "replace", "fd79::/48", "via", &v6], more].concat());
    }

    /// Something of a balancer, asked where it is.
    pub(crate) fn of<T>(&self, balancer: usize, ask: impl FnOnce(&Engine) -> T) -> T {
        self.street.go(["lb1", "lb2"][balancer]);
        ask(&self.balancers[balancer])
    }

    /// Which origins' slots there are none of, as the first balancer has it.
    pub(crate) fn until_out(&self, out: &[&str]) {
        until("the balancers have heard", PATIENCE, || {
            (0..2).all(|balancer| {
                let page = self.of(balancer, |engine| engine.page("/metrics").text());
                let slots = page.lines().filter(|line| line.starts_with("penstock_vip_endpoint_slots{"));
                // Of those that are probed.
                let slots = slots.filter_map(|line| {
                    let is_of = |host: &&str| endpoints(host).iter().any(|name| line.contains(&format!("\"{name}\"")));
                    Some((ORIGINS.into_iter().find(is_of)?, line.ends_with(" 0")))
                });
                let mut slots = slots.peekable();
                slots.peek().is_some() && slots.all(|(host, has_none)| has_none == out.contains(&host))
            })
        });
    }

    pub(crate) fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.street.at("client", || {
            let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        })
    }

    /// A socket of the client's from which questions go to `to`.
    pub(crate) fn socket(&self, to: SocketAddr) -> UdpSocket {
        self.street.at("client", || {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).unwrap();
            socket.connect(to).unwrap();
            socket
        })
    }
}

/// Those of VIPs that endpoints have, too.
fn addresses() -> impl Iterator<Item = IpAddr> {
    VIPS.iter()
        .filter(|(forward, ..)| *forward != "nat")
        .flat_map(|(_, v4, v6)| [v4, v6])
        .map(|address| address.parse().expect("an address"))
}

/// A host's own addresses.
pub(crate) fn own(host: &str) -> [IpAddr; 2] {
    let number = HOSTS.iter().position(|known| *known == host).expect("it is one") + 1;
    [format!("10.78.0.{number}"), format!("fd78::{number}")].map(|address| address.parse().expect("an address"))
}

/// What pools call it.
pub(crate) fn endpoints(host: &str) -> [String; 2] {
    own(host).map(|address| SocketAddr::new(address, PORT).to_string())
}

fn balancer(mode: &str, host: &str, engine: &str, more: &str) -> Engine {
    // They have nothing else to do.
    let mut setup = Setup::new(Driver::Epoll).without_door().engine_line(engine);
    for host in ORIGINS {
        setup = setup.to(&endpoints(host)[0]);
    }
    let health = "health = { http = \"/health\", every = \"200ms\", timeout = \"2s\", every_in_doubt = \"100ms\", rise = 1, fall = 1 }";
    let of_v6: Vec<_> = ORIGINS.iter().map(|host| format!("{:?}", endpoints(host)[1])).collect();
    let (_, v4, v6) = OURS.iter().find(|(known, ..)| *known == host).expect("it is one");
    setup = setup
        .pool_line(health)
        .more(&format!("[[pool]]\nname = \"of-v6\"\nendpoints = [{}]\n{health}", of_v6.join(", ")))
        .more(&format!("[balance]\ninterfaces = [\"eth0\"]\nmode = {mode:?}\nnat = [{v4:?}, {v6:?}]"));
    for (forward, v4, v6) in VIPS {
        // An endpoint of `nat` is of the family of the VIP.
        let doors = match forward {
            "nat" => vec![("4", format!("\"{v4}:{PORT}\""), "origins"), ("6", format!("\"[{v6}]:{PORT}\""), "of-v6")],
            _ => vec![("", format!("\"{v4}:{PORT}\", \"[{v6}]:{PORT}\""), "origins")],
        };
        for (protocol, (family, addresses, pool)) in
            ["tcp", "udp"].into_iter().flat_map(|of| doors.iter().map(move |door| (of, door)))
        {
            setup = setup.more(&format!(
                "[[vip]]\nname = \"{forward}{family}-{protocol}\"\naddr = [{addresses}]\n\
                 protocol = \"{protocol}\"\nforward = \"{forward}\"\npool = \"{pool}\""
            ));
        }
    }
    setup.more(more).start()
}

fn is_granted(engine: &Engine, mode: &str) -> bool {
    let without = engine.status()["goes_without"].to_string();
    if without.contains("CAP_BPF") || without.contains("not supported") {
        println!("SKIPPED: {without}");
        return false;
    }
    assert_eq!(engine.status()["balance"][0]["mode"], mode, "{without}");
    true
}

/// An origin: says its name over HTTP and to each datagram. Not well: it says so to probes.
fn serve(name: &'static str) -> Arc<AtomicBool> {
    let sick = Arc::new(AtomicBool::new(false));
    let listener = TcpListener::bind(("::", PORT)).expect("a port of its own");
    let is_sick = Arc::clone(&sick);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let is_sick = Arc::clone(&is_sick);
            std::thread::spawn(move || answer(stream, name, &is_sick));
        }
    });
    for address in addresses().chain(own(name)) {
        let socket = UdpSocket::bind((address, PORT)).expect("a port of its own");
        std::thread::spawn(move || {
            let mut buffer = [0; 2_048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let answer = [name.as_bytes(), b" ", &buffer[..length.min(64)]].concat();
                let _ = socket.send_to(&answer, from);
            }
        });
    }
    sick
}

fn answer(mut stream: TcpStream, name: &str, is_sick: &AtomicBool) {
    let (mut asked, mut buffer) = (Vec::new(), [0; 16_384]);
    loop {
        while let Some(end) = asked.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&asked[..end]).into_owned();
            asked.drain(..end + 4);
            let status = if head.contains("/health") && is_sick.load(Ordering::Relaxed) { 503 } else { 200 };
            // More than one packet.
            let content = format!("{name}{}", "-".repeat(if head.contains("/long") { 200_000 } else { 0 }));
            let head = format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n\r\n", content.len());
            if stream.write_all((head + &content).as_bytes()).is_err() {
                return;
            }
        }
        match stream.read(&mut buffer) {
            Ok(read) if read > 0 => asked.extend(&buffer[..read]),
            _ => return,
        }
    }
}

/// Who answers on a connection that stands.
pub(crate) fn asks(stream: &mut TcpStream) -> io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 1_024]);
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend(&buffer[..read]);
        let text = String::from_utf8_lossy(&answer);
        // Names have two octets.
        if let Some((_, name)) = text.split_once("\r\n\r\n").filter(|(_, name)| name.len() == 2) {
            return Ok(name.to_owned());
        }
    }
}

/// Who answers a question; it is asked again while nobody does, as datagrams may be lost.
pub(crate) fn asks_udp(socket: &UdpSocket, patience: Duration) -> Option<String> {
    let begun = Instant::now();
    let mut number = 0;
    while begun.elapsed() < patience {
        number += 1;
        let question = format!("question {number}");
        // Refused for the moment: an error that came in is told here.
        let _ = socket.send(question.as_bytes());
        let _ = socket.set_read_timeout(Some(Duration::from_millis(500)));
        let mut buffer = [0; 256];
        while let Ok(length) = socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if let Some(name) = text.strip_suffix(&question) {
                return Some(name.trim().to_owned());
            }
        }
    }
    None
}

pub(crate) fn doors() -> impl Iterator<Item = (&'static str, SocketAddr)> {
    VIPS.iter().flat_map(|(forward, v4, v6)| {
        [v4, v6].map(|address| (*forward, SocketAddr::new(address.parse().expect("an address"), PORT)))
    })
}
