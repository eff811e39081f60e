//! What happens to flows whose addresses are rewritten when something goes wrong on their way, and to flows that change balancers.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use harness::{PATIENCE, Sharing, run, until};

use crate::town::{ORIGINS, PORT, Town, VIPS, asks, doors, own};

/// Ports of VIPs whose endpoints nobody is at, and of those that nobody probes.
const CLOSED: u16 = 9_001;
const QUIET: u16 = 9_002;

/// Addresses of the first origin that nothing but the balancer's packets goes to.
const ASIDE: [&str; 2] = ["10.78.1.51", "fd78::1:51"];

/// VIPs of each family on a port, by `nat`, to one endpoint each.
fn vips(name: &str, protocol: &str, port: u16, endpoints: [SocketAddr; 2]) -> String {
    let (_, v4, v6) = VIPS.iter().find(|(forward, ..)| *forward == "nat").expect("there is one");
    let of = |family: &str, vip: String, endpoint: SocketAddr| {
        format!(
            "[[pool]]\nname = \"{name}{family}\"\nendpoints = [\"{endpoint}\"]\n[[vip]]\nname = \"{name}{family}\"\naddr = \"{vip}:{port}\"\n\
             protocol = \"{protocol}\"\nforward = \"nat\"\npool = \"{name}{family}\"\n"
        )
    };
    of("4", (*v4).to_owned(), endpoints[0]) + &of("6", format!("[{v6}]"), endpoints[1])
}

/// The same VIPs as a client sees them.
fn addresses(port: u16) -> [SocketAddr; 2] {
    let (_, v4, v6) = VIPS.iter().find(|(forward, ..)| *forward == "nat").expect("there is one");
    [v4, v6].map(|vip| SocketAddr::new(vip.parse().expect("an address"), port))
}

/// An origin says that nobody is at a port, about a packet of the balancer's: the client hears it about its own.
#[test]
fn errors_of_an_endpoint_come_home() {
    run(Sharing::Shared, || {
        let endpoints = own("o1").map(|own| SocketAddr::new(own, CLOSED));
        let Some(town) = Town::with("generic", "", &vips("closed", "udp", CLOSED, endpoints)) else { return };
        town.until_out(&[]);
        for vip in addresses(CLOSED) {
            let socket = town.socket(vip);
            socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a time");
            // Errors are few in a second.
            until(&format!("{vip} is refused"), PATIENCE, || {
                let said = socket.send(b"anybody?").and_then(|_| socket.recv(&mut [0; 16]));
                said.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
            });
        }
        assert!(town.of(0, |engine| outcome(&engine.page("/metrics").text(), "returned")) >= 2);
    });
}

/// How often packets had an outcome at a balancer.
fn outcome(page: &str, name: &str) -> u64 {
    let name = format!("outcome=\"{name}\"");
    let line = page.lines().find(|line| line.starts_with("penstock_balance_packets_total{") && line.contains(&name));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{name} is counted"))
}

/// The kernel has forgotten the link-layer addresses of client and endpoint: they are asked for, and the flow goes on.
#[test]
fn a_flow_goes_on_when_neighbours_are_forgotten() {
    run(Sharing::Shared, || {
        let endpoints = ASIDE.map(|own| SocketAddr::new(own.parse().expect("an address"), PORT));
        let Some(town) = Town::with("generic", "", &vips("quiet", "tcp", QUIET, endpoints)) else { return };
        town.street.ip("o1", &["addr", "add", &format!("{}/32", ASIDE[0]), "dev", "lo"]);
        town.street.ip("o1", &["addr", "add", &format!("{}/128", ASIDE[1]), "dev", "eth0", "nodad"]);
        town.until_out(&[]);
        for (vip, (aside, client)) in addresses(QUIET).into_iter().zip(ASIDE.into_iter().zip(own("client"))) {
            let mut stream = town.connect(vip).unwrap_or_else(|error| panic!("{vip}: {error}"));
            assert_eq!(asks(&mut stream).expect("an answer"), "o1");
            let unknown = || town.of(0, |engine| outcome(&engine.page("/metrics").text(), "no_neighbour"));
            let knows = |of: &str| {
                let entry = town.street.ip("lb1", &["neigh", "show", "to", of, "dev", "eth0"]);
                entry.contains("lladdr")
            };
            let before = unknown();
            town.street.ip("lb1", &["neigh", "flush", "dev", "eth0"]);
            assert!(!knows(aside), "the kernel has forgotten it");
            // What CPUs know of ways lasts for a second.
            std::thread::sleep(Duration::from_millis(2_200));
            assert_eq!(asks(&mut stream).unwrap_or_else(|error| panic!("{vip}: {error}")), "o1");
            assert!(unknown() > before, "{vip}: packets found no neighbour");
            assert!(knows(aside) && knows(&client.to_string()));
        }
    });
}

/// Flows that the other balancer has never seen, which come to it when an origin has gone that they did not belong to.
#[test]
fn flows_change_balancers_when_an_origin_has_gone() {
    run(Sharing::Shared, || {
        let Some(town) = Town::build("generic") else { return };
        town.until_out(&[]);
        let mut held = Vec::new();
        for (_, door) in doors().filter(|(forward, _)| *forward != "nat") {
            for _ in 0..15 {
                let mut stream = town.connect(door).unwrap_or_else(|error| panic!("{door}: {error}"));
                let name = asks(&mut stream).unwrap_or_else(|error| panic!("{door}: {error}"));
                held.push((door, stream, name));
            }
        }
        town.sick[1].store(true, Ordering::Relaxed);
        town.until_out(&[ORIGINS[1]]);
        town.route("lb2");
        let others: Vec<_> = held.iter_mut().filter(|(.., name)| name != ORIGINS[1]).collect();
        let count = others.len();
        assert!(count > 40, "{count} of 90 belong to others");
        let moved = others.into_iter().filter_map(|(door, stream, name)| {
            let said = asks(stream);
            (said.as_ref().ok() != Some(name)).then(|| format!("{door}: {name}, {said:?}"))
        });
        let moved: Vec<_> = moved.collect();
        // A table without an origin gives one in a hundred of the others' slots away.
        assert!(moved.len() <= count / 20, "{} of {count} moved: {moved:?}", moved.len());
    });
}
