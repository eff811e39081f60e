//! Hanging up at every byte: whoever goes, and wherever, the other side sees no fake end, and the engine forgets them both.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use harness::{Client, Cut, End, Origin, PATIENCE, Setup, answer, on_each_driver, until};

const REQUEST: &[u8] =
    b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x=y\r\nabc\r\n0\r\nT: v\r\n\r\n";
const LENGTH: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhelloabc";
const CHUNKED: &[u8] =
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x=y\r\nabc\r\n0\r\nT: v\r\n\r\n";

#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    Close,
    Reset,
}

on_each_driver! {
    fn the_client_goes_at_every_byte_of_its_request(driver) {
        let origin = Origin::answering(|request| Some(answer(&request.body)));
        let engine = Setup::new(driver).origin(&origin).pool_line("reuse.max_idle = 0").start();
        for how in [How::Close, How::Reset] {
            for at in 0..REQUEST.len() {
                let mut client = engine.client();
                client.send(&REQUEST[..at]);
                match how {
                    How::Close => client.half_close(),
                    How::Reset => {
                        client.reset();
                        continue;
                    }
                }
                let (bytes, end) = client.rest();
                assert_ne!(end, End::Silent, "cut at {at}: no end");
                assert!(bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 4"), "cut at {at}: {}", bytes.escape_ascii());
            }
        }
        engine.until_idle();
        for raw in origin.received() {
            assert!(!raw.ends_with(b"\r\n0\r\n\r\n"), "half a request became whole: {}", raw.escape_ascii());
        }
        assert_eq!(engine.client().get("/").status(), 200);
    }

    /// Bytes and an RST that arrive as one: the connection is not held until its client is out of time.
    fn a_reset_right_behind_a_part_of_a_head_is_noticed(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).listen_line("timeout.head = \"10m\"").start();
        for number in 0..10_000 {
            let mut client = engine.client();
            client.send(&REQUEST[..30]);
            // From both at once to one well after the other.
            let begun = std::time::Instant::now();
            while begun.elapsed() < std::time::Duration::from_micros(number % 100) {
                std::hint::spin_loop();
            }
            client.reset();
        }
        engine.until_idle();
        assert_eq!(engine.client().get("/").status(), 200);
    }

    fn the_client_goes_at_every_byte_of_the_response(driver) {
        let origin = Origin::answering(|_| Some(CHUNKED.to_vec()));
        let engine = Setup::new(driver).origin(&origin).start();
        let whole = {
            let mut client = engine.client();
            let bytes = Arc::<Mutex<Vec<u8>>>::default();
            client.tap = Some(bytes.clone());
            client.get("/");
            bytes.lock().expect("nobody panics with it").len()
        };
        for how in [How::Close, How::Reset] {
            for at in 0..whole {
                let mut client = engine.client();
                client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                let got = client.take(at);
                assert!(got.is_ok(), "{got:?}");
                match how {
                    How::Close => drop(client),
                    How::Reset => client.reset(),
                }
            }
        }
        engine.until_idle();
        assert_eq!(engine.client().get("/").text(), "helloabc");
    }

    /// GET: nothing has gone downstream until the head is whole, so it is a 502 (the retry meets the same); afterwards the
    /// response is visibly incomplete, unless it was complete.
    fn the_origin_goes_at_every_byte_of_its_response(driver) {
        for response in [LENGTH, CHUNKED] {
            let at = Arc::new(AtomicUsize::new(0));
            let reset = Arc::new(AtomicBool::new(false));
            let (cut, with_reset) = (at.clone(), reset.clone());
            let origin = Origin::start(move |peer| {
                peer.request();
                peer.send(&response[..cut.load(Ordering::SeqCst)]);
                if with_reset.load(Ordering::SeqCst) {
                    peer.reset();
                }
            });
            let lines = ["breaker.failures = 0", "retry.budget = \"100%\""];
            let engine = lines.iter().fold(Setup::new(driver).origin(&origin), |setup, line| setup.pool_line(line)).start();
            for how in [How::Close, How::Reset] {
                reset.store(how == How::Reset, Ordering::SeqCst);
                for cut in 0..=response.len() {
                    at.store(cut, Ordering::SeqCst);
                    let mut client = engine.client();
                    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                    judge(&mut client, &format!("{how:?} at {cut} of {}", response.len()), cut == response.len());
                }
            }
            engine.until_idle();
            until("the origin's connections are closed", PATIENCE, || origin.open() == 0);
        }
    }
}

/// A whole response may have been lost to a reset; half a response must never be whole.
fn judge(client: &mut Client, what: &str, complete: bool) {
    match client.response(false) {
        Ok(response) if response.status() == 200 => {
            assert!(complete, "{what}: a fake end");
            assert_eq!(response.text(), "helloabc", "{what}");
        }
        Ok(response) => assert_eq!(response.status(), 502, "{what}"),
        Err(Cut::Closed(had) | Cut::Reset(had)) => assert!(had > 0, "{what}: no answer at all"),
        Err(cut) => panic!("{what}: {cut}"),
    }
}
