//! SIGTERM: what has been asked is answered, whoever stays is told, and the process ends in time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness::{Client, Cut, End, Origin, PATIENCE, Setup, on_each_driver, until};

const CLIENTS: usize = 64;

on_each_driver! {
    /// 64 connections that never pause: each ends with a response that says so, and none loses a request.
    alone fn under_load_no_request_fails(driver) {
        let origin = Origin::standard();
        let mut engine = Setup::new(driver).origin(&origin).start();
        let served = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (address, served) = (engine.address, served.clone());
                std::thread::spawn(move || -> Result<(), String> {
                    let mut client = Client::connect(address);
                    let path = ["/", "/bytes/20000", "/slow/20", "/chunked/3000"][number % 4];
                    for count in 0.. {
                        client
                            .try_send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
                            .map_err(|error| format!("{path}: request {count} of client {number}: {error}"))?;
                        let response = client
                            .response(false)
                            .map_err(|cut| format!("{path}: request {count} of client {number} failed: {cut}"))?;
                        if response.status() != 200 {
                            return Err(response.start);
                        }
                        served.fetch_add(1, Ordering::SeqCst);
                        if response.is_closing() {
                            return match client.rest() {
                                (rest, End::Closed) if rest.is_empty() => Ok(()),
                                (rest, end) => Err(format!("after the last response: {end:?} {}", rest.escape_ascii())),
                            };
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        until("load is on", PATIENCE, || served.load(Ordering::SeqCst) > 2_000);
        let begun = Instant::now();
        engine.terminate();
        let failures: Vec<String> =
            clients.into_iter().filter_map(|client| client.join().expect("no panic").err()).collect();
        assert!(failures.is_empty(), "{} of {CLIENTS}: {failures:#?}", failures.len());
        assert_eq!(engine.wait(PATIENCE).code(), Some(0), "{}", engine.err());
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }

    /// A second engine on the same address takes over: clients that reconnect notice nothing.
    alone fn a_second_engine_takes_over(driver) {
        let migrates = Migration::switch_on();
        let origin = Origin::standard();
        let mut first = Setup::new(driver).origin(&origin).start();
        let stop = Arc::new(AtomicBool::new(false));
        let served = Arc::new(AtomicUsize::new(0));
        let refused = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (address, served, stop) = (first.address, served.clone(), stop.clone());
                let refused = refused.clone();
                std::thread::spawn(move || -> Result<(), String> {
                    let mut connection: Option<Client> = None;
                    while !stop.load(Ordering::SeqCst) {
                        let mut client = match connection.take() {
                            Some(client) => client,
                            None => connect(address, &refused).map_err(|error| format!("connecting: {error}"))?,
                        };
                        let fresh = |what: &str| format!("client {number}: {what}");
                        client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").map_err(|error| fresh(&error.to_string()))?;
                        let response = client.response(false).map_err(|cut| fresh(&cut.to_string()))?;
                        if response.status() != 200 {
                            return Err(response.start);
                        }
                        served.fetch_add(1, Ordering::SeqCst);
                        // Some come anew for each request: their connections may be waiting to be accepted.
                        if !response.is_closing() && (number % 4 != 0 || !migrates.is_on) {
                            connection = Some(client);
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        until("load is on", PATIENCE, || served.load(Ordering::SeqCst) > 1_000);
        let mut second = Setup::new(driver).origin(&origin).at(first.address).start();
        until("the second has its share", PATIENCE, || second.metrics().sum("requests_total") > 100);
        first.terminate();
        assert_eq!(first.wait(Duration::from_secs(10)).code(), Some(0), "{}", first.err());
        let before = served.load(Ordering::SeqCst);
        until("the second serves alone", PATIENCE, || served.load(Ordering::SeqCst) > before + 1_000);
        stop.store(true, Ordering::SeqCst);
        let failures: Vec<String> =
            clients.into_iter().filter_map(|client| client.join().expect("no panic").err()).collect();
        assert!(failures.is_empty(), "{} of {CLIENTS} clients: {failures:#?}", failures.len());
        assert!(refused.load(Ordering::SeqCst) <= 2, "{refused:?} handshakes were lost");
        second.terminate();
        assert_eq!(second.wait(PATIENCE).code(), Some(0));
    }

    fn a_long_response_is_finished(driver) {
        let origin = Origin::standard();
        let mut engine = Setup::new(driver).origin(&origin).start();
        let mut client = engine.client();
        client.send("GET /slow/1500 HTTP/1.1\r\nHost: a\r\n\r\n");
        engine.until_metric("requests_open", 1);
        engine.terminate();
        let response = client.response(false).expect("its response");
        assert_eq!(response.text(), "slow\n");
        assert!(response.is_closing(), "{}", response.head.escape_ascii());
        assert_eq!(engine.wait(PATIENCE).code(), Some(0));
    }

    /// An idle connection may still ask once, soon; then the door is shut.
    fn idle_connections_are_let_go_gently(driver) {
        let origin = Origin::standard();
        let mut engine = Setup::new(driver).origin(&origin).start();
        let mut asks = engine.client();
        let mut silent = engine.client();
        asks.get("/");
        silent.get("/");
        engine.terminate();
        until("a response says that it is the last", PATIENCE, || {
            let response = asks.get("/");
            assert_eq!(response.status(), 200);
            response.is_closing()
        });
        assert_eq!(asks.rest(), (Vec::new(), End::Closed));
        assert_eq!(silent.rest(), (Vec::new(), End::Closed));
        assert_eq!(engine.wait(PATIENCE).code(), Some(0));
        assert!(Client::try_connect(engine.address).is_err());
    }

    fn a_drain_ends_at_its_timeout(driver) {
        let origin = Origin::start(|peer| _ = peer.wait_for_end());
        let mut engine = Setup::new(driver).origin(&origin).engine_line("drain_timeout = \"500ms\"").start();
        let mut client = engine.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        engine.until_metric("requests_open", 1);
        let begun = Instant::now();
        engine.terminate();
        let status = engine.wait(Duration::from_secs(5));
        assert!(begun.elapsed() > Duration::from_millis(400), "it did not wait: {:?}", begun.elapsed());
        assert!(status.code().is_some(), "{status}: {}", engine.err());
        assert!(matches!(client.response(false), Err(Cut::Closed(_) | Cut::Reset(_)) | Ok(_)), "it hangs");
    }

    /// A tunnel has no end of its own: it goes on during the drain, and is cut at its timeout.
    fn tunnels_go_on_until_the_timeout(driver) {
        let origin = Origin::start(|peer| {
            while let Ok(bytes) = peer.wire.take(5) {
                peer.send(bytes);
            }
        });
        let mut engine = Setup::new(driver).origin(&origin).tcp().engine_line("drain_timeout = \"1s\"").start();
        let mut client = engine.client();
        client.send("hello");
        assert_eq!(client.take(5).expect("an echo"), b"hello");
        engine.terminate();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(500) {
            client.send("still");
            assert_eq!(client.take(5).expect("an echo during the drain"), b"still");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_ne!(client.rest().1, End::Silent);
        assert!(engine.wait(PATIENCE).code().is_some());
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    }

    fn without_connections_it_ends_at_once(driver) {
        let origin = Origin::standard();
        let mut engine = Setup::new(driver).origin(&origin).start();
        engine.client().get("/");
        engine.until_idle();
        let begun = Instant::now();
        engine.terminate();
        assert_eq!(engine.wait(PATIENCE).code(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        assert!(Client::try_connect(engine.address).is_err());
    }
}

/// Connects, once more if the kernel refuses. Even where it hands queues over, a handshake whose last segment meets the closing listener
/// in that moment is reset: the kernel's, of no connection that anybody had, and counted.
fn connect(address: SocketAddr, refused: &AtomicUsize) -> io::Result<Client> {
    Client::try_connect(address).or_else(|error| match error.kind() {
        io::ErrorKind::ConnectionReset => {
            refused.fetch_add(1, Ordering::SeqCst);
            Client::try_connect(address)
        }
        _ => Err(error),
    })
}

/// `net.ipv4.tcp_migrate_req`: the kernel hands what waits in a closing listener's queue to another one of its group, instead
/// of resetting it. What the operations guide advises for two engines on one port.
struct Migration {
    before: Option<String>,
    is_on: bool,
}

impl Migration {
    const PATH: &str = "/proc/sys/net/ipv4/tcp_migrate_req";

    fn switch_on() -> Self {
        let before = std::fs::read_to_string(Self::PATH).ok();
        let is_on = std::fs::write(Self::PATH, "1").is_ok();
        if !is_on {
            println!("tcp_migrate_req cannot be set here: clients keep their connections");
        }
        Self { before, is_on }
    }
}

impl Drop for Migration {
    fn drop(&mut self) {
        if let Some(before) = self.before.as_ref().filter(|_| self.is_on) {
            let _ = std::fs::write(Self::PATH, before);
        }
    }
}
