//! Bounds of HTTP/2 that only time, or many streams, reach: what a client owes and for how long, and what waits for one that does not read.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::h2::code::ENHANCE_YOUR_CALM;
use harness::h2::{H2Client, PREFACE, asking, get, setting, settings};
use harness::{Origin, Setup, on_each_driver, pattern};

/// `SETTINGS_TIMEOUT` (RFC 9113 §7).
const SETTINGS_TIMEOUT: u32 = 4;

/// Twice the longest time that the engine grants here (`proto::h2::Limits`: 10 s for SETTINGS, 30 s for a stream).
const LONG: Duration = Duration::from_secs(60);

on_each_driver! {
    /// RFC 9113 §6.5.3: SETTINGS that nobody acknowledges end the connection; until then it is served.
    fn settings_must_be_acknowledged(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).listen_line("timeout.keep_alive = \"120s\"").start();
        let mut client = patient(engine.address);
        client.acknowledges = false;
        client.send([PREFACE, &settings(&[]), &get(1, "/")].concat());
        assert_eq!(client.response(1).text(), "hello\n");
        assert_eq!(client.until_ended().0, Some(SETTINGS_TIMEOUT), "{:?}", client.gone);
        // Who acknowledges them stays, however idle.
        drop(client);
        engine.until_idle();
    }

    /// Content that its client opens no window for is waited with for half a minute; then that stream is over, and no other.
    fn streams_must_be_read(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).start();
        let mut client = patient(engine.address);
        client.credits = false;
        client.greet(&[(setting::INITIAL_WINDOW_SIZE, 0)]);
        let (shut, open) = (client.request(&asking("GET", "/bytes/9000"), true), client.request(&asking("GET", "/bytes/9000"), true));
        client.until("both heads", |client| [shut, open].iter().all(|&stream| !client.exchange(stream).fields.is_empty()));
        client.wait(shut);
        assert_eq!((client.exchange(shut).reset, client.exchange(shut).body.len()), (Some(ENHANCE_YOUR_CALM), 0));
        // The other one has waited for as long: whichever came first, the connection goes on.
        client.wait(open);
        let after = client.request(&asking("GET", "/bytes/9000"), true);
        client.widen(after, 10_000);
        assert_eq!(client.response(after).body, pattern(9_000, 9_000));
        drop(client);
        engine.until_idle();
    }

    /// What waits on one connection for windows to open is bounded for all its streams together: beyond what four of them may have, each has a frame's worth.
    fn waiting_content_is_bounded_by_the_connection(driver) {
        const STREAMS: u32 = 100;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let origin = Origin::start(move |peer| {
            let Some(request) = peer.request() else { return };
            if request.target() != "/endless" {
                peer.send(harness::answer("hello\n"));
                return;
            }
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            let chunk = [&b"800\r\n"[..], &pattern(1, 0x800), b"\r\n"].concat();
            // In small pieces, and slowly: the bound is looked at between pieces, however large they are.
            for _ in 0..50 {
                if stopped.load(Ordering::SeqCst) || !peer.send(&chunk) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(40));
            }
            while !stopped.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let engine = Setup::new(driver).origin(&origin).start();
        let mut client = patient(engine.address);
        // Nothing of it is sent, so all that is counted as passed on has waited.
        client.greet(&[(setting::INITIAL_WINDOW_SIZE, 0)]);
        let streams: Vec<u32> = (0..STREAMS).map(|_| client.request(&asking("GET", "/endless"), true)).collect();
        client.until("all heads", |client| streams.iter().all(|&stream| !client.exchange(stream).fields.is_empty()));
        // Long enough for each to have had all that it may.
        client.listen(Duration::from_secs(4));
        assert_eq!(H2Client::greeted(engine.address).get("/").text(), "hello\n");
        stop.store(true, Ordering::SeqCst);
        drop(client);
        engine.until_idle();
        // What was taken for them and never sent.
        let waited = engine.metrics().sum("bytes_out_total");
        println!("{} KiB waited for {STREAMS} streams", waited >> 10);
        assert!(waited >= 256 << 10, "{waited} bytes: they were to wait");
        // 18 KiB each as a rule, and 100 where nothing bounds them, of which 64 by a stream's own bound.
        let most = u64::from(STREAMS) * (40 << 10);
        assert!(waited <= most, "{waited} bytes waited for {STREAMS} streams, and not {most}");
    }
}

/// A client that waits for what takes long.
fn patient(address: SocketAddr) -> H2Client {
    let mut client = H2Client::connect(address);
    client.patience = LONG;
    client
}
