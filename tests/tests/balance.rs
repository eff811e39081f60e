//! The XDP balancer on a street of network namespaces: a client, two balancers, and three origins with a decapsulator each. Whose packets go where, by each way of
//! forwarding, and that nothing is left behind.
//!
//! Where namespaces or the programs are not granted each test says so and proves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harness::{Driver, Engine, PATIENCE, Setup, Sharing, Street, Tool, binary, checksum_of, run, until};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

const HOSTS: [&str; 6] = ["client", "lb1", "lb2", "o1", "o2", "o3"];
const ORIGINS: [&str; 3] = ["o1", "o2", "o3"];
const PORT: u16 = 8_080;

/// A VIP of each family for each way.
const VIPS: [(&str, &str, &str); 4] = [
    ("ipip", "10.79.0.1", "fd79::1"),
    ("gue", "10.79.0.2", "fd79::2"),
    ("dsr", "10.79.0.3", "fd79::3"),
    ("nat", "10.79.0.4", "fd79::4"),
];

/// Where packets of `nat` come from, by balancer.
const OURS: [(&str, &str, &str); 2] = [("lb1", "10.78.1.1", "fd78::1:1"), ("lb2", "10.78.1.2", "fd78::1:2")];

/// How long it takes to see that nothing comes.
const SILENCE: Duration = Duration::from_millis(1_500);

/// A street with everything on it.
struct Town {
    street: Street,
    /// By balancer.
    balancers: Vec<Engine>,
    /// One that is set is not well.
    sick: [Arc<AtomicBool>; 3],
    /// The decapsulators, and what lets frames that a native program has sent back come in.
    _others: Vec<Engine>,
}

impl Town {
    /// `None` where it is not granted.
    fn build(mode: &str) -> Option<Self> {
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
            let engine = balancer(mode, host);
            if !is_granted(&engine, mode) {
                return None;
            }
            town.balancers.push(engine);
        }
        town.route("lb1");
        Some(town)
    }

    /// From now on the client's packets to VIPs go to this balancer.
    fn route(&self, balancer: &str) {
        let number = HOSTS.iter().position(|host| *host == balancer).expect("it is one") + 1;
        self.street.ip("client", &["route", "replace", "10.79.0.0/16", "via", &format!("10.78.0.{number}")]);
        self.street.ip("client", &["-6", "route", "replace", "fd79::/48", "via", &format!("fd78::{number}")]);
    }

    /// Something of a balancer, asked where it is.
    fn of<T>(&self, balancer: usize, ask: impl FnOnce(&Engine) -> T) -> T {
        self.street.go(["lb1", "lb2"][balancer]);
        ask(&self.balancers[balancer])
    }

    /// Which origins' slots there are none of, as the first balancer has it.
    fn until_out(&self, out: &[&str]) {
        until("the balancers have heard", PATIENCE, || {
            (0..2).all(|balancer| {
                let page = self.of(balancer, |engine| engine.page("/metrics").text());
                let mut slots = page.lines().filter(|line| line.starts_with("penstock_vip_endpoint_slots{"));
                page.contains("penstock_vip_endpoint_slots{")
                    && slots.all(|line| {
                        let is_of =
                            |host: &&str| endpoints(host).iter().any(|name| line.contains(&format!("\"{name}\"")));
                        let host = ORIGINS.into_iter().find(is_of).expect("one of ours");
                        line.ends_with(" 0") == out.contains(&host)
                    })
            })
        });
    }

    fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        self.street.at("client", || {
            let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        })
    }

    /// A socket of the client's from which questions go to `to`.
    fn socket(&self, to: SocketAddr) -> UdpSocket {
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
fn own(host: &str) -> [IpAddr; 2] {
    let number = HOSTS.iter().position(|known| *known == host).expect("it is one") + 1;
    [format!("10.78.0.{number}"), format!("fd78::{number}")].map(|address| address.parse().expect("an address"))
}

/// What pools call it.
fn endpoints(host: &str) -> [String; 2] {
    own(host).map(|address| SocketAddr::new(address, PORT).to_string())
}

fn balancer(mode: &str, host: &str) -> Engine {
    // They have nothing else to do.
    let mut setup = Setup::new(Driver::Epoll).without_door();
    for host in ORIGINS {
        setup = setup.to(&endpoints(host)[0]);
    }
    let health = "health = { http = \"/health\", every = \"200ms\", every_in_doubt = \"100ms\", rise = 1, fall = 1 }";
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
    setup.start()
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
fn asks(stream: &mut TcpStream) -> io::Result<String> {
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
fn asks_udp(socket: &UdpSocket, patience: Duration) -> Option<String> {
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

fn doors() -> impl Iterator<Item = (&'static str, SocketAddr)> {
    VIPS.iter().flat_map(|(forward, v4, v6)| {
        [v4, v6].map(|address| (*forward, SocketAddr::new(address.parse().expect("an address"), PORT)))
    })
}

/// Flows by each way and of both families: whom they go to, that they stay there, what becomes of them when an origin falls ill, and that two
/// balancers are of one mind.
fn flows(mode: &'static str) {
    run(Sharing::Shared, move || {
        let Some(town) = Town::build(mode) else { return };
        town.until_out(&[]);
        let mut held = Vec::new();
        for (forward, door) in doors() {
            let mut names = BTreeMap::new();
            for _ in 0..12 {
                let mut stream = town.connect(door).unwrap_or_else(|error| panic!("{forward} {door}: {error}"));
                let name = asks(&mut stream).unwrap_or_else(|error| panic!("{forward} {door}: {error}"));
                *names.entry(name.clone()).or_insert(0) += 1;
                held.push((forward, door, stream, name));
            }
            assert!(names.len() > 1 && names.keys().all(|name| ORIGINS.contains(&name.as_str())), "{door}: {names:?}");
        }
        let asked: Vec<_> = doors().flat_map(|(_, door)| (0..8).map(move |_| door)).collect();
        let sockets: Vec<_> = asked.into_iter().map(|door| (door, town.socket(door))).collect();
        let whose = |sockets: &[(SocketAddr, UdpSocket)]| -> Vec<String> {
            let whose = |(door, socket): &(SocketAddr, UdpSocket)| {
                asks_udp(socket, PATIENCE).unwrap_or_else(|| panic!("nobody answers at {door}"))
            };
            sockets.iter().map(whose).collect()
        };
        let first = whose(&sockets);
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 3);

        // The other balancer has never seen any of these flows.
        town.route("lb2");
        assert_eq!(whose(&sockets), first, "two balancers are of two minds");
        // Whose addresses are rewritten is known to one balancer.
        for (_, door, stream, name) in held.iter_mut().filter(|(forward, ..)| *forward != "nat") {
            assert_eq!(asks(stream).unwrap_or_else(|error| panic!("{door}: {error}")), *name);
        }
        town.route("lb1");

        // One falls ill: its flows move, and nobody else's.
        town.sick[1].store(true, Ordering::Relaxed);
        town.until_out(&["o2"]);
        for (before, after) in first.iter().zip(whose(&sockets)) {
            assert!(after == *before || before == "o2", "from {before} to {after}");
            assert_ne!(after, "o2");
        }
        for (_, door, stream, name) in held.iter_mut().filter(|(.., name)| name != "o2") {
            assert_eq!(asks(stream).unwrap_or_else(|error| panic!("{door}: {error}")), *name);
        }
        // And well again.
        town.sick[1].store(false, Ordering::Relaxed);
        town.until_out(&[]);
        for (_, door, stream, name) in held.iter_mut().filter(|(.., name)| name != "o2") {
            assert_eq!(asks(stream).unwrap_or_else(|error| panic!("{door}: {error}")), *name);
        }

        // What others than us make of it.
        for (_, door) in doors() {
            let url = format!("http://{door}/long");
            let long = town.street.at("client", || {
                Tool::new("curl", 30).args(["-sS", "--globoff", "--max-time", "20", &url]).succeed().out
            });
            assert_eq!(long.len(), 200_002);
        }
        let packets = town.of(0, |engine| engine.metrics().sum("vip_packets_total"));
        assert!(packets > 300, "{packets}");
        nothing_is_left(town);
    });
}

/// Whatever ends a balancer, its interface is free and its program gone.
fn nothing_is_left(mut town: Town) {
    town.street.go("lb1");
    let mut engine = town.balancers.remove(0);
    let link = || Tool::new("ip", 20).args(["-d", "link", "show", "dev", "eth0"]).succeed().text();
    let id = link().split("prog/xdp id ").nth(1).and_then(|rest| rest.split_whitespace().next().map(str::to_owned));
    let id = id.expect("a program is on the interface");
    engine.kill();
    engine.wait(PATIENCE);
    until("the interface is free again", PATIENCE, || !link().contains("prog/xdp"));
    if xtask::place::program("bpftool").is_some() {
        until("the program is gone", PATIENCE, || {
            Tool::new("bpftool", 20).args(["prog", "show", "id", &id]).run().code != Some(0)
        });
    }
}

#[test]
fn flows_find_their_origin_and_stay_with_it_native() {
    flows("native");
}

#[test]
fn flows_find_their_origin_and_stay_with_it_generic() {
    flows("generic");
}

/// RFC 1191: a router says to the VIP that an answer was too big, and the origin that sent it hears of that, and nobody else.
#[test]
fn path_mtu_errors_reach_whom_they_are_for() {
    run(Sharing::Shared, || {
        let Some(town) = Town::build("generic") else { return };
        town.until_out(&[]);
        for (forward, door) in doors() {
            for at in 0..3 {
                let socket = town.socket(door);
                let name = asks_udp(&socket, PATIENCE).unwrap_or_else(|| panic!("nobody answers at {door}"));
                let client = socket.local_addr().unwrap();
                // Less than anybody has heard of yet: more is not believed.
                let door_number = doors().position(|(_, known)| known == door).expect("it is one");
                let mtu = 1_500 - 8 * at - 25 * door_number;
                let told = || {
                    let hears = |host: &str| {
                        let (_, v4, v6) = OURS[0];
                        let (to, from) = (client.ip().to_string(), door.ip().to_string());
                        // An endpoint of `nat` knows neither client nor VIP.
                        let way: &[&str] = match (forward, door.is_ipv4()) {
                            ("nat", true) => &["-o", "route", "get", v4],
                            ("nat", false) => &["-o", "route", "get", v6],
                            _ => &["-o", "route", "get", &to, "from", &from],
                        };
                        town.street.ip(host, way).contains(&format!("mtu {mtu}"))
                    };
                    ORIGINS.into_iter().filter(|host| hears(host)).collect::<Vec<_>>()
                };
                until(&format!("{forward} {door}: {name} hears of it"), PATIENCE, || {
                    town.street.at("client", || say_too_big(door, client, mtu as u16));
                    std::thread::sleep(Duration::from_millis(20));
                    told() == [name.as_str()]
                });
            }
        }
    });
}

/// Tells a VIP that a datagram of its to a client was too big.
fn say_too_big(vip: SocketAddr, client: SocketAddr, mtu: u16) {
    let ports = [vip.port().to_be_bytes(), client.port().to_be_bytes()].concat();
    let datagram = [&ports[..], &[5, 0xdc, 0, 0]].concat();
    let (message, domain, protocol) = match (vip.ip(), client.ip()) {
        (IpAddr::V4(vip), IpAddr::V4(client)) => {
            let mut about = vec![0x45, 0, 5, 0xdc, 0, 1, 0x40, 0, 64, 17, 0, 0];
            about.extend(vip.octets());
            about.extend(client.octets());
            let [high, low] = mtu.to_be_bytes();
            let mut error = [&[3, 4, 0, 0, 0, 0, high, low][..], &about, &datagram].concat();
            let sum = checksum_of(&error);
            error[2..4].copy_from_slice(&sum.to_be_bytes());
            (error, Domain::IPV4, Protocol::ICMPV4)
        }
        (IpAddr::V6(vip), IpAddr::V6(client)) => {
            let mut about = vec![0x60, 0, 0, 0, 5, 0xb4, 17, 64];
            about.extend(vip.octets());
            about.extend(client.octets());
            let [high, low] = mtu.to_be_bytes();
            // The kernel sums it up.
            ([&[2, 0, 0, 0, 0, 0, high, low][..], &about, &datagram].concat(), Domain::IPV6, Protocol::ICMPV6)
        }
        _ => panic!("of one family"),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol)).expect("a raw socket");
    socket.send_to(&message, &SockAddr::from(SocketAddr::new(vip.ip(), 0))).expect("there is a way to the VIP");
}

/// CAP_BPF and CAP_NET_ADMIN are all that the programs need: not CAP_PERFMON, which lets the verifier overlook much.
#[test]
fn programs_load_with_two_capabilities() {
    run(Sharing::Shared, || {
        let Some(setpriv) = xtask::place::program("setpriv").filter(|_| Street::build(&[]).is_some()) else { return };
        let doctor = |set: &str| {
            let set = [format!("--inh-caps={set}"), format!("--bounding-set={set}")];
            Tool::new(&setpriv, 20).args(set).args([binary().as_os_str(), "doctor".as_ref()]).run()
        };
        let loads = |text: &str| {
            let lines = text.lines().filter(|line| line.contains(" bpf balance ") || line.contains(" bpf decap "));
            lines.filter(|line| line.starts_with("ok ")).count()
        };
        if loads(&Tool::new(binary(), 20).args(["doctor"]).run().text()) == 0 {
            println!("SKIPPED: the programs are not granted here");
            return;
        }
        let found = doctor("-all,+bpf,+net_admin");
        assert_eq!(loads(&found.text()), 2, "{}{}", found.text(), found.err);
        let found = doctor("-all,+net_admin");
        assert_eq!(loads(&found.text()), 0);
        assert!(found.text().contains(" bpf balance "), "it did run: {}", found.err);
    });
}

/// Nobody is left: packets are dropped, and it is said why.
#[test]
fn a_vip_that_nobody_serves_answers_nobody() {
    run(Sharing::Shared, || {
        let Some(town) = Town::build("generic") else { return };
        town.until_out(&[]);
        let (_, door) = doors().next().expect("there are some");
        let socket = town.socket(door);
        assert!(asks_udp(&socket, PATIENCE).is_some());
        town.sick.iter().for_each(|sick| sick.store(true, Ordering::Relaxed));
        town.until_out(&ORIGINS);
        assert_eq!(asks_udp(&socket, SILENCE), None);
        let page = town.of(0, |engine| engine.page("/metrics").text());
        let dropped = "penstock_balance_packets_total{program=\"balance\",outcome=\"no_endpoint\",verdict=\"drop\"} ";
        let dropped = page.lines().find_map(|line| line.strip_prefix(dropped)).expect("it is counted");
        assert!(dropped.parse::<u64>().unwrap() > 0);
        let rows = town.of(0, |engine| engine.page("/show/vips").text());
        assert!(rows.contains("\"out\"") && !rows.contains("\"serves\""), "{rows}");
        town.sick.iter().for_each(|sick| sick.store(false, Ordering::Relaxed));
        town.until_out(&[]);
        assert!(asks_udp(&socket, PATIENCE).is_some());
    });
}
