//! Who sends and never reads, in every place: the engine's memory stays within bounds, and others are unharmed.

use std::time::{Duration, Instant};

use harness::{Client, Engine, Origin, Setup, on_each_driver, pattern};

/// Stalled connections of each test.
const STALLED: usize = 50;
/// Buffers that one direction of one of them may hold: `limits::UNSENT_BYTES_MAX` and one bulk piece (256 KiB) on its way out, one
/// being filled, and what is read ahead of a head.
const LENT_EACH: u64 = 640 << 10;
/// The same as the kernel sees it: the allocator keeps some that were lent before.
const BYTES_EACH: u64 = 1_536 << 10;

on_each_driver! {
    /// A client that pipelines requests and never reads the responses.
    alone fn a_client_that_sends_and_never_reads(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).start();
        let before = warm(&engine);
        let requests = "GET /bytes/30000 HTTP/1.1\r\nHost: a\r\n\r\n".repeat(500);
        let clients = flood(&engine, requests.as_bytes());
        unharmed(&engine, before, 1);
        drop(clients);
        engine.until_idle();
    }

    /// A client that uploads without end to an origin that reads nothing.
    alone fn an_origin_that_never_reads(driver) {
        let origin = Origin::start(|peer| {
            let Ok(head) = peer.wire.head() else { return };
            if head.method() == "POST" {
                park(peer);
            } else {
                peer.send(harness::answer("hello\n"));
            }
        });
        let engine = Setup::new(driver).origin(&origin).start();
        let before = warm(&engine);
        let mut upload = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000000\r\n\r\n".to_vec();
        upload.extend(pattern(1, 1 << 20));
        let mut clients = flood(&engine, &upload);
        unharmed(&engine, before, 1);
        more(&mut clients, &upload);
        unharmed(&engine, before, 1);
        drop(clients);
        engine.until_idle();
    }

    /// An origin that sends without end to a client that never reads.
    alone fn an_origin_that_sends_to_a_client_that_never_reads(driver) {
        let origin = Origin::start(|peer| {
            let Some(request) = peer.request() else { return };
            if request.target() != "/endless" {
                peer.send(harness::answer("hello\n"));
                return;
            }
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let mut chunk = b"10000\r\n".to_vec();
            chunk.extend(pattern(1, 0x10000));
            chunk.extend(b"\r\n");
            while peer.send(&chunk) {}
        });
        let engine = Setup::new(driver).origin(&origin).start();
        let before = warm(&engine);
        let clients = flood(&engine, b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n");
        unharmed(&engine, before, 1);
        unharmed(&engine, before, 1);
        drop(clients);
        engine.until_idle();
    }

    /// Both at once: the origin answers without end and reads nothing, the client uploads without end and reads nothing.
    alone fn both_send_and_neither_reads(driver) {
        let origin = Origin::start(|peer| {
            let Ok(head) = peer.wire.head() else { return };
            if head.method() == "GET" {
                peer.send(harness::answer("hello\n"));
                return;
            }
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n");
            let piece = pattern(1, 1 << 16);
            while peer.send(&piece) {}
        });
        let engine = Setup::new(driver).origin(&origin).start();
        let before = warm(&engine);
        let mut upload = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000000\r\n\r\n".to_vec();
        upload.extend(pattern(1, 1 << 20));
        let mut clients = flood(&engine, &upload);
        unharmed(&engine, before, 2);
        more(&mut clients, &upload);
        unharmed(&engine, before, 2);
        drop(clients);
        engine.until_idle();
    }

    /// Stalled exchanges end by themselves.
    fn a_stalled_exchange_is_given_up(driver) {
        let origin = Origin::start(|peer| {
            peer.request();
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100000000000\r\n\r\n");
            let piece = pattern(1, 1 << 16);
            while peer.send(&piece) {}
        });
        let engine = Setup::new(driver)
            .origin(&origin)
            .listen_line("timeout.body = \"500ms\"")
            .pool_line("timeout.idle = \"500ms\"")
            .start();
        let clients = flood(&engine, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        engine.until_idle();
        drop(clients);
        harness::until("the origin's connections are closed", harness::PATIENCE, || origin.open() == 0);
    }

    /// Heads that never end, up to their limit, and the same on the origin's side.
    fn heads_without_end(driver) {
        let origin = Origin::start(|peer| {
            while let Some(request) = peer.request() {
                if request.target() == "/endless" {
                    peer.send("HTTP/1.1 200 OK\r\n");
                    while peer.send("X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(50)) {}
                }
                peer.send(harness::answer("hello\n"));
            }
        });
        let engine = Setup::new(driver).origin(&origin).pool_line("breaker.failures = 0").start();
        let before = warm(&engine);
        for _ in 0..20 {
            let mut client = engine.client();
            client.send("GET / HTTP/1.1\r\nHost: a\r\n");
            while client.try_send("X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(50)).is_ok() {}
            assert_eq!(engine.client().get("/endless").status(), 502);
        }
        unharmed(&engine, before, 1);
    }
}

/// Some exchanges, so that what is measured afterwards is not the first of its kind. Returns the anonymous memory.
fn warm(engine: &Engine) -> u64 {
    for _ in 0..20 {
        engine.client().get("/");
    }
    engine.until_idle();
    engine.memory().anonymous
}

/// Sends as much as the engine takes on each of [`STALLED`] connections, and reads nothing.
fn flood(engine: &Engine, bytes: &[u8]) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..STALLED).map(|_| engine.client()).collect();
    for client in &mut clients {
        client.stream.set_nonblocking(true).expect("our own socket");
    }
    more(&mut clients, bytes);
    clients
}

/// Sends as much more as it takes.
fn more(clients: &mut [Client], bytes: &[u8]) {
    for client in clients {
        let mut sent = 0;
        while sent < bytes.len() {
            match std::io::Write::write(&mut client.stream, &bytes[sent..]) {
                Ok(length) => sent += length,
                Err(_) => break,
            }
        }
    }
}

/// Others are served meanwhile, nobody waiting for those who stall, and memory is where it may be.
fn unharmed(engine: &Engine, before: u64, directions: u64) {
    let mut slowest = Duration::ZERO;
    let mut client = engine.client();
    for _ in 0..30 {
        let asked = Instant::now();
        let response = client.get("/");
        assert_eq!(response.text(), "hello\n");
        slowest = slowest.max(asked.elapsed());
        if response.is_closing() {
            client = engine.client();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // A busy machine takes its time; whoever stalls does so for as long as he likes.
    assert!(slowest < Duration::from_secs(3), "somebody else waited {slowest:?}");
    let grown = engine.memory().anonymous.saturating_sub(before);
    let lent = engine.metrics().sum("buffers_lent_bytes_max");
    println!("{} KiB more for {STALLED} stalled connections, {} KiB lent at most", grown >> 10, lent >> 10);
    assert!(
        lent < STALLED as u64 * directions * LENT_EACH,
        "{lent} bytes of buffers for {STALLED} stalled connections"
    );
    assert!(grown < STALLED as u64 * directions * BYTES_EACH, "{grown} bytes more for {STALLED} stalled connections");
}

/// Holds the connection without reading until the peer ends it: a write of ours then fails.
fn park(peer: &harness::Peer) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60)
        && socket2::SockRef::from(&peer.wire.stream).take_error().is_ok_and(|error| error.is_none())
    {
        let mut byte = [0];
        let peeked = peer.wire.stream.peek(&mut byte);
        if matches!(peeked, Ok(0) | Err(_)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
