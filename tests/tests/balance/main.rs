//! The XDP balancer on a street of network namespaces: a client, two balancers, and three origins with a decapsulator each. Whose packets go where, by each way of
//! forwarding, and that nothing is left behind.
//!
//! Where namespaces or the programs are not granted each test says so and proves nothing.

mod clients;
mod nat;
mod quic;
mod town;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::Duration;

use harness::{PATIENCE, Sharing, Street, Tool, binary, checksum_of, run, until};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use self::town::{ORIGINS, OURS, Town, asks, asks_udp, doors};

/// How long it takes to see that nothing comes.
const SILENCE: Duration = Duration::from_millis(1_500);

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

/// Packets of a client that become too big once they are wrapped: it hears of that, lowers its path MTU, and its upload goes on.
fn who_sends_too_much_at_once_is_told(mode: &'static str) {
    const REQUESTS: usize = 300;
    run(Sharing::Shared, move || {
        let Some(town) = Town::build(mode) else { return };
        town.until_out(&[]);
        for (forward, door) in doors() {
            let mut stream = town.connect(door).unwrap_or_else(|error| panic!("{forward} {door}: {error}"));
            let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(2_000));
            stream.write_all(request.repeat(REQUESTS).as_bytes()).unwrap_or_else(|error| panic!("{door}: {error}"));
            let (mut answers, mut buffer) = (Vec::<u8>::new(), [0; 16_384]);
            while answers.windows(9).filter(|words| *words == b"HTTP/1.1 ").count() < REQUESTS {
                let read = stream.read(&mut buffer).unwrap_or_else(|error| panic!("{forward} {door}: {error}"));
                assert!(read > 0, "{forward} {door}: it ends after {} octets", answers.len());
                answers.extend(&buffer[..read]);
            }
            let address = door.ip().to_string();
            let route = town.street.ip("client", &["-o", "route", "get", &address]);
            // The street has 1,600, of which an outer header of IPv4 takes its part.
            let told = match forward {
                "ipip" => Some("mtu 1580"),
                "gue" => Some("mtu 1572"),
                _ => None,
            };
            assert!(told.map_or(!route.contains(" mtu "), |told| route.contains(told)), "{forward} {door}: {route}");
        }
        let page = town.of(0, |engine| engine.page("/metrics").text());
        let told = "penstock_balance_packets_total{program=\"balance\",outcome=\"told_too_big\",verdict=\"answer\"} ";
        let told = page.lines().find_map(|line| line.strip_prefix(told)).expect("it is counted");
        assert!(told.parse::<u64>().unwrap() >= 4, "one of each VIP that wraps: {told}");
    });
}

#[test]
fn who_sends_too_much_at_once_is_told_native() {
    who_sends_too_much_at_once_is_told("native");
}

#[test]
fn who_sends_too_much_at_once_is_told_generic() {
    who_sends_too_much_at_once_is_told("generic");
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
