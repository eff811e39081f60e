//! Issue "HTTP/3 and steering", 2: clients of HTTP/3 whose port changes while they download, as behind a NAT that forgets. The engine has two workers, and the kernel gives the
//! datagrams of a new port to whichever it likes.
//!
//! Over a cable between two network namespaces, and over the loopback interface where they are not granted.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use harness::{
    Authority, Driver, Engine, Folder, H3Door, Kind, Net, Origin, Setup, free_address, on_each_driver, quic,
};

/// What a run may take on a machine that does other things too.
const RUN_MAX: Duration = Duration::from_secs(120);
const CLIENTS: usize = 1_000;
const CONTENT: usize = 60_000;
/// Of the answer, when its client moves.
const MOVES_AT: usize = 20_000;

on_each_driver! {
    /// Everybody's download goes on, because what reaches the wrong worker is brought to the right one.
    alone fn a_thousand_clients_that_move(driver) {
        let net = Net::enter();
        let Moved { lost, engine } = download(driver, net.as_ref(), "steering = \"off\"");
        assert_eq!(lost, Vec::<String>::new(), "of {CLIENTS}, these were lost");
        let metrics = engine.metrics();
        // The kernel chooses by addresses: half of those that move come to the other worker.
        let passed_on = metrics.sum("quic_passed_on_total");
        assert!(passed_on as usize > CLIENTS / 4, "{passed_on} datagrams were brought to their workers");
        assert_eq!(engine.status()["programs"].as_array().map(Vec::len), Some(0), "no program has had a part in it");
    }

    /// The same where a program in the kernel reads connection ids: nothing reaches the wrong worker.
    alone fn a_thousand_clients_that_move_and_a_program(driver) {
        let net = Net::enter();
        let Moved { lost, engine } = download(driver, net.as_ref(), "");
        assert_eq!(lost, Vec::<String>::new(), "of {CLIENTS}, these were lost");
        if engine.status()["steering"] == "program" {
            let passed_on = engine.metrics().sum("quic_passed_on_total");
            assert_eq!(passed_on, 0, "datagrams that the program gave to the wrong worker");
            let by_id = verdicts(&engine, "by_id");
            assert!(by_id as usize > CLIENTS, "{by_id} datagrams that the program gave to their workers");
            assert_eq!((verdicts(&engine, "missing"), verdicts(&engine, "elsewhere")), (0, 0));
        } else {
            println!("SKIPPED: no program steers here: {}", engine.status()["goes_without"]);
        }
    }

    /// What the two of them are for: with neither, half of those that move are lost.
    alone fn a_thousand_clients_that_move_and_nobody_who_cares(driver) {
        let net = Net::enter();
        let Moved { lost, engine } = download(driver, net.as_ref(), "steering = \"off\"\nquic.pass_on = false");
        println!("{} of {CLIENTS} were lost; the first: {:?}", lost.len(), lost.first());
        assert!((CLIENTS / 4..CLIENTS * 3 / 4).contains(&lost.len()), "{} of {CLIENTS} were lost", lost.len());
        let metrics = engine.metrics();
        assert_eq!((metrics.sum("quic_passed_on_total"), metrics.sum("quic_passed_on_lost_total")), (0, 0));
    }

    /// No longer than an Ethernet's over a cable, and much longer to who is on this host.
    fn datagrams_are_as_long_as_the_way_takes(driver) {
        let (net, origin) = (Net::enter(), Origin::standard());
        let mut setup = Setup::new(driver);
        if net.is_some() {
            setup = setup.at(SocketAddr::new(Net::V4.parse().expect("an address"), 8_443));
        }
        let door = H3Door::of(setup.origin(&origin), "");
        if let Some(net) = &net {
            net.outside(|| door.play("h3_client.py", "takes-long-ones"));
        }
        door.play("h3_client.py", "takes-long-ones");
        assert_eq!(door.engine.metrics().sum("h3_faults_total"), 0);
    }

    /// HTTP/3 that the engine began without and came to speak by another configuration is no worse at it.
    fn clients_that_move_at_a_listener_that_came_later(driver) {
        const FEW: usize = 100;
        for (line, programs) in [("", true), ("steering = \"off\"", false)] {
            let (folder, origin) = (Folder::new(), Origin::standard());
            let authority = Authority::new(&folder, "ca");
            let issued = authority.issue(&folder, "site", &["localhost"], Kind::Ecdsa);
            let engine = Setup::new(driver).cores("0-1").engine_line(line).origin(&origin).start();
            let came = free_address();
            let tls = issued.line();
            engine.adopt(&format!("{}\n[[listen]]\nname = \"tls\"\naddr = \"{came}\"\n{tls}\n", engine.config()));

            assert_eq!(visits(&authority, came, FEW), Vec::<String>::new(), "of {FEW}, these were lost");
            let passed_on = engine.metrics().sum("quic_passed_on_total") as usize;
            if programs && engine.status()["steering"] == "program" {
                assert_eq!(passed_on, 0, "datagrams that the program gave to the wrong worker");
                assert!(verdicts(&engine, "by_id") as usize > FEW);
            } else {
                assert!(passed_on > FEW / 4, "{passed_on} datagrams were brought to their workers");
            }
            engine.until_idle();
        }
    }
}

/// What became of all those downloads.
struct Moved {
    /// How each ended that did not end well.
    lost: Vec<String>,
    engine: Engine,
}

/// How often a program said so.
fn verdicts(engine: &Engine, verdict: &str) -> u64 {
    let page = engine.page("/metrics").text();
    let rows = page.lines().filter(|line| line.starts_with("penstock_steering_verdicts_total"));
    let of_it = rows.filter(|line| line.contains(&format!("verdict=\"{verdict}\"")));
    of_it.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

fn download(driver: Driver, net: Option<&Net>, engine_lines: &str) -> Moved {
    let (folder, origin) = (Folder::new(), Origin::standard());
    let authority = Authority::new(&folder, "ca");
    let issued = authority.issue(&folder, "site", &["localhost"], Kind::Ecdsa);
    let mut setup = Setup::new(driver).cores("0-1").engine_line(engine_lines);
    if net.is_some() {
        setup = setup.at(SocketAddr::new(Net::V4.parse().expect("an address"), 8_443));
    }
    let engine = setup.origin(&origin).listen_line(&issued.line()).start();
    let visit = || visits(&authority, engine.address, CLIENTS);
    let lost = match net {
        Some(net) => net.outside(visit),
        None => visit(),
    };
    Moved { lost, engine }
}

/// So many clients, until each is done.
fn visits(authority: &Authority, address: SocketAddr, clients: usize) -> Vec<String> {
    let config = quic::config(authority, 8 << 10);
    let mut visitors: Vec<(quic::Visitor, bool)> = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < RUN_MAX {
        // Not all at once: what is tried here are moves, not a thundering herd.
        let handshaking = visitors.iter().filter(|(visitor, _)| visitor.received == 0 && visitor.ended.is_none());
        if visitors.len() < clients && handshaking.count() < 50 {
            visitors.push((quic::Visitor::connect(address, &config), false));
        }
        for (visitor, moved) in visitors.iter_mut().filter(|(visitor, _)| visitor.ended.is_none()) {
            visitor.turn(&format!("/bytes/{CONTENT}"));
            if visitor.received > MOVES_AT && !*moved {
                visitor.move_on();
                *moved = true;
            }
        }
        if visitors.len() == clients && visitors.iter().all(|(visitor, _)| visitor.ended.is_some()) {
            break;
        }
    }
    assert_eq!(visitors.len(), clients, "clients that came at all");
    let lost = visitors.iter().filter_map(|(visitor, moved)| match &visitor.ended {
        Some(Ok(())) if visitor.received > CONTENT && *moved => None,
        ended => Some(format!("{ended:?} after {} bytes", visitor.received)),
    });
    lost.collect()
}
