//! Clients of HTTP/3 whose address changes while they download, with two workers: the kernel gives their datagrams to whichever it likes.

use std::time::{Duration, Instant};

use harness::{Authority, Driver, Folder, Kind, Origin, Setup, on_each_driver, quic};

/// What a run may take on a machine that does other things too.
const RUN_MAX: Duration = Duration::from_secs(120);
const CLIENTS: usize = 1_000;
const CONTENT: usize = 60_000;
/// Of the answer, when its client moves.
const MOVES_AT: usize = 20_000;

on_each_driver! {
    /// Behind a NAT that rebinds, everybody's download goes on, because what reaches the wrong worker is brought to the right one.
    alone fn a_thousand_clients_that_move(driver) {
        let (whole, passed_on, _) = download(driver, "off");
        assert_eq!(whole, Vec::<String>::new(), "of {CLIENTS}, these were lost");
        // The kernel chooses by addresses: half of those that move come to the other worker.
        assert!(passed_on as usize > CLIENTS / 4, "{passed_on} datagrams were brought to their workers");
    }

    /// The same where a program in the kernel reads connection ids: nothing reaches the wrong worker.
    alone fn a_thousand_clients_that_move_and_a_program(driver) {
        let (whole, passed_on, mode) = download(driver, "auto");
        assert_eq!(whole, Vec::<String>::new(), "of {CLIENTS}, these were lost");
        if mode == "program" {
            assert_eq!(passed_on, 0, "datagrams that the program gave to the wrong worker");
        } else {
            println!("SKIPPED: no program steers here: {mode}");
        }
    }
}

/// How each download that did not end well ended, how many datagrams went from worker to worker, and what chose the worker.
fn download(driver: Driver, steering: &str) -> (Vec<String>, u64, String) {
    let (folder, origin) = (Folder::new(), Origin::standard());
    let authority = Authority::new(&folder, "ca");
    let issued = authority.issue(&folder, "site", &["localhost"], Kind::Ecdsa);
    let setup = Setup::new(driver).cores("0-1").engine_line(&format!("steering = \"{steering}\""));
    let engine = setup.origin(&origin).listen_line(&issued.line()).start();
    let mode = engine.status()["steering"].as_str().unwrap_or_default().to_owned();
    let config = quic::config(&authority, 8 << 10);
    let mut visitors: Vec<(quic::Visitor, bool)> = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < RUN_MAX {
        // Not all at once: what is tried here are moves, not a thundering herd.
        let handshaking = visitors.iter().filter(|(visitor, _)| visitor.received == 0 && visitor.ended.is_none());
        if visitors.len() < CLIENTS && handshaking.count() < 50 {
            visitors.push((quic::Visitor::connect(engine.address, &config), false));
        }
        for (visitor, moved) in visitors.iter_mut().filter(|(visitor, _)| visitor.ended.is_none()) {
            visitor.turn(&format!("/bytes/{CONTENT}"));
            if visitor.received > MOVES_AT && !*moved {
                visitor.move_on();
                *moved = true;
            }
        }
        if visitors.len() == CLIENTS && visitors.iter().all(|(visitor, _)| visitor.ended.is_some()) {
            break;
        }
    }
    assert_eq!(visitors.len(), CLIENTS, "clients that came at all");
    let lost = visitors.iter().filter_map(|(visitor, moved)| match &visitor.ended {
        Some(Ok(())) if visitor.received > CONTENT && *moved => None,
        ended => Some(format!("{ended:?} after {} bytes", visitor.received)),
    });
    (lost.collect(), engine.metrics().sum("quic_passed_on_total"), mode)
}
