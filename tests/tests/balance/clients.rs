//! Clients that we did not write, through the balancer: iperf3, and libcurl with ngtcp2.

use std::net::SocketAddr;

use harness::{
    Authority, Driver, Engine, Folder, Kind, Origin, PATIENCE, Setup, Sharing, Tool, python, run, script, until,
};
use serde_json::Value;

use crate::town::{ORIGINS, Town, VIPS, own};

const IPERF_PORT: u16 = 5_201;
pub(crate) const QUIC_PORT: u16 = 8_443;

/// What each run of TCP carries.
const OCTETS: u64 = 32 << 20;

/// iperf3's connections of one run belong together, so there is one origin for them.
fn vips_of_iperf() -> String {
    let pool = |name: &str, own: std::net::IpAddr| {
        format!("[[pool]]\nname = \"{name}\"\nendpoints = [\"{}\"]\n", SocketAddr::new(own, IPERF_PORT))
    };
    let [v4, v6] = own("o1");
    pool("one-of-v4", v4)
        + &pool("one-of-v6", v6)
        + &vips("iperf", IPERF_PORT, &["tcp", "udp"], ["one-of-v4", "one-of-v6"], "")
}

/// A VIP of each way and family, whose pool is of the same family.
fn vips(name: &str, port: u16, protocols: &[&str], [v4_pool, v6_pool]: [&str; 2], line: &str) -> String {
    let mut text = String::new();
    for (forward, v4, v6) in VIPS {
        for (family, address, pool) in
            [("4", format!("{v4}:{port}"), v4_pool), ("6", format!("[{v6}]:{port}"), v6_pool)]
        {
            for protocol in protocols {
                text += &format!(
                    "[[vip]]\nname = \"{name}-{protocol}-{forward}{family}\"\naddr = \"{address}\"\nprotocol = \"{protocol}\"\n\
                     forward = \"{forward}\"\npool = \"{pool}\"\n{line}\n"
                );
            }
        }
    }
    text
}

/// A VIP's addresses, and where its packets come out.
pub(crate) fn ways(port: u16) -> impl Iterator<Item = (&'static str, SocketAddr, SocketAddr)> {
    VIPS.iter().flat_map(move |(forward, v4, v6)| {
        let own = own("o1");
        [v4, v6].into_iter().zip(own).map(move |(vip, own)| {
            let vip = SocketAddr::new(vip.parse().expect("an address"), port);
            let out = if *forward == "nat" { SocketAddr::new(own, port) } else { vip };
            (*forward, vip, out)
        })
    })
}

/// One run of iperf3: what its client says when it is done.
fn iperf3(town: &Town, to: SocketAddr, out: SocketAddr, more: &[&str]) -> Value {
    let port = IPERF_PORT.to_string();
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let address = out.ip().to_string();
            town.street.at("o1", || Tool::new("iperf3", 30).args(["-s", "-1", "-p", &port, "-B", &address]).run())
        });
        until("iperf3 listens", PATIENCE, || {
            town.street.at("o1", || {
                let tables =
                    ["tcp", "tcp6"].map(|name| std::fs::read_to_string(format!("/proc/thread-self/net/{name}")));
                tables.into_iter().flatten().any(|table| table.lines().any(listens))
            })
        });
        let address = to.ip().to_string();
        let words = [&["-J", "-p", &port, "-c", &address], more].concat();
        let client = town.street.at("client", || Tool::new("iperf3", 20).args(&words).run());
        let server = server.join().expect("it ends");
        let said = client.text();
        assert_eq!(
            (client.code, server.code),
            (Some(0), Some(0)),
            "{words:?}: {said}\n{}{}",
            server.text(),
            server.err
        );
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    })
}

/// Of the kernel's table of sockets, the line of one that listens there.
fn listens(line: &str) -> bool {
    const LISTEN: &str = "0A";
    let words: Vec<_> = line.split_whitespace().collect();
    words.len() > 3 && words[1].ends_with(&format!(":{IPERF_PORT:04X}")) && words[3] == LISTEN
}

fn iperf3_runs_through_it(mode: &'static str) {
    run(Sharing::Shared, move || {
        if xtask::place::program("iperf3").is_none() {
            println!("SKIPPED: there is no iperf3 here: `cargo xtask test` installs it");
            return;
        }
        let Some(town) = Town::with(mode, "", &vips_of_iperf()) else { return };
        town.route_with_room("lb1");
        let before = |town: &Town| town.of(0, |engine| engine.metrics().sum("vip_bytes_total"));
        for (forward, vip, out) in ways(IPERF_PORT) {
            let seen = before(&town);
            let octets = OCTETS.to_string();
            for more in [&["-n", &octets][..], &["-n", &octets, "-R"]] {
                let said = iperf3(&town, vip, out, more);
                let octets = |side: &str| said["end"][side]["bytes"].as_u64();
                // It stops when all is sent, and then some is still on its way.
                let is_well = octets("sum_sent") >= Some(OCTETS) && octets("sum_received") > Some(OCTETS / 2);
                assert!(is_well, "{forward} {vip} {more:?}: {}", said["end"]);
            }
            let said = iperf3(&town, vip, out, &["-u", "-b", "10M", "-n", "240K", "-l", "1200"]);
            let (sent, lost) = (said["end"]["sum"]["packets"].as_u64(), said["end"]["sum"]["lost_packets"].as_u64());
            // Datagrams may be lost wherever a machine has other things to do.
            let is_well = sent.zip(lost).is_some_and(|(sent, lost)| sent >= 200 && lost <= sent / 5);
            assert!(is_well, "{forward} {vip}: {}", said["end"]["sum"]);
            let through = before(&town) - seen;
            assert!(through > OCTETS / 2, "{forward} {vip}: {through} octets by way of the balancer");
        }
    });
}

#[test]
fn iperf3_runs_through_it_native() {
    iperf3_runs_through_it("native");
}

#[test]
fn iperf3_runs_through_it_generic() {
    iperf3_runs_through_it("generic");
}

/// Engines at the origins, with HTTP/3 at whatever address datagrams come to.
pub(crate) struct Fleet {
    pub(crate) authority: Authority,
    engines: Vec<Engine>,
    _origins: Vec<Origin>,
    _folder: Folder,
}

impl Fleet {
    /// `engine` tells what stands under `[engine]`, by the origin's number from 1.
    pub(crate) fn start(town: &Town, engine: impl Fn(usize) -> String) -> Self {
        let folder = Folder::new();
        let authority = Authority::new(&folder, "ca");
        let issued = authority.issue(&folder, "site", &["localhost"], Kind::Ecdsa);
        let mut fleet = Self { authority, engines: Vec::new(), _origins: Vec::new(), _folder: folder };
        for (number, host) in (1..).zip(ORIGINS) {
            town.street.go(host);
            let origin = Origin::standard();
            let any = SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), QUIC_PORT);
            let setup = Setup::new(Driver::Epoll).at(any).origin(&origin).engine_line(&engine(number));
            fleet.engines.push(setup.listen_line(&issued.line()).start());
            fleet._origins.push(origin);
        }
        fleet
    }

    /// A metric of each.
    pub(crate) fn sums(&self, town: &Town, name: &str) -> Vec<u64> {
        let each = self.engines.iter().zip(ORIGINS).map(|(engine, host)| {
            town.street.go(host);
            engine.metrics().sum(name)
        });
        each.collect()
    }
}

/// Pools of the fleet, of each family; `word` is what follows an endpoint's address.
pub(crate) fn pools_of_fleet(word: impl Fn(usize) -> String) -> String {
    let of = |family: usize| {
        let each = ORIGINS.iter().zip(1..);
        let each =
            each.map(|(host, number)| format!("\"{}{}\"", SocketAddr::new(own(host)[family], QUIC_PORT), word(number)));
        each.collect::<Vec<_>>().join(", ")
    };
    let pool = |name: &str, family| format!("[[pool]]\nname = \"{name}\"\nendpoints = [{}]\n", of(family));
    pool("quic-of-v4", 0) + &pool("quic-of-v6", 1)
}

/// VIPs of the fleet, with a line in each.
pub(crate) fn vips_of_fleet(line: &str) -> String {
    vips("quic", QUIC_PORT, &["udp"], ["quic-of-v4", "quic-of-v6"], line)
}

/// Downloads and uploads of some megabytes, and hundreds of requests on one connection.
#[test]
fn a_quic_client_runs_through_it() {
    run(Sharing::Shared, || {
        let Some(town) = Town::with("generic", "", &(pools_of_fleet(|_| String::new()) + &vips_of_fleet(""))) else {
            return;
        };
        town.route_with_room("lb1");
        let fleet = Fleet::start(&town, |_| String::new());
        for (forward, vip, _) in ways(QUIC_PORT) {
            let words = [script("h3_curl.py").display().to_string(), "transfers".into(), vip.to_string()];
            let authority = fleet.authority.file.display().to_string();
            let ran = town.street.at("client", || Tool::new(python(), 80).args(words).args([authority]).run());
            assert_eq!(ran.text().lines().last(), Some("all well"), "{forward} {vip}: {}{}", ran.text(), ran.err);
        }
        let served = fleet.sums(&town, "h3_connections_total");
        assert_eq!(served.iter().sum::<u64>(), ways(QUIC_PORT).count() as u64, "{served:?}");
        assert!(served.iter().filter(|count| **count > 0).count() > 1, "they are balanced: {served:?}");
    });
}
