//! What a pool does when its endpoints fail: who waits, who is refused, what an operator may say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use harness::{Origin, Setup, answer, on_each_driver};

/// Answers 503 as long as the switch is off.
fn switched() -> (Origin, Arc<AtomicBool>) {
    let well = Arc::new(AtomicBool::new(false));
    let shared = Arc::clone(&well);
    let origin = Origin::answering(move |_| {
        Some(if shared.load(Ordering::SeqCst) {
            answer(b"well")
        } else {
            b"HTTP/1.1 503 Ill\r\nContent-Length: 3\r\n\r\nill".to_vec()
        })
    });
    (origin, well)
}

const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";

on_each_driver! {
    /// All breakers open: a request waits for a trial to be due, and for its end, and is served when the endpoint is back; one that may
    /// not be sent twice as well.
    fn who_finds_all_breakers_open_waits_a_little(driver) {
        let (origin, well) = switched();
        let engine = Setup::new(driver).origin(&origin).pool_line("retry.tries = 1").start();
        let mut client = engine.client();
        for _ in 0..5 {
            assert_eq!(client.get("/").text(), "ill");
        }
        let begun = Instant::now();
        assert_eq!(client.get("/").text(), "ill", "it goes on trial");
        assert!(begun.elapsed() >= Duration::from_millis(200), "it did not wait: {:?}", begun.elapsed());
        for ask in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", POST] {
            std::thread::scope(|scope| {
                let asking = scope.spawn(|| engine.client().ask(ask).text());
                std::thread::sleep(Duration::from_millis(50));
                well.store(true, Ordering::SeqCst);
                assert_eq!(asking.join().unwrap(), "well", "{ask}");
            });
            well.store(false, Ordering::SeqCst);
            (0..9).for_each(|_| drop(engine.client().get("/")));
        }
        assert!(engine.metrics().sum("endpoint_waits_total") >= 3);
    }

    /// Unless the operator wants none of that.
    fn without_a_wait_the_refusal_comes_at_once(driver) {
        let (origin, _) = switched();
        let lines = "retry.tries = 1\nbreaker.wait = \"0s\"";
        let engine = Setup::new(driver).origin(&origin).pool_line(lines).start();
        let mut client = engine.client();
        let texts: Vec<String> = (0..9).map(|_| client.get("/").text()).collect();
        assert!(texts.iter().any(|text| text.contains("no endpoint")), "{texts:?}");
        assert_eq!(engine.metrics().sum("endpoint_waits_total"), 0);
        assert!(engine.metrics().sum("no_endpoint_total") >= 1);
    }

    /// A client that leaves while it waits is gone in that moment.
    fn who_leaves_while_it_waits_is_gone(driver) {
        let (origin, _) = switched();
        let lines = "retry.tries = 1\nbreaker.wait = \"20s\"";
        let engine = Setup::new(driver).origin(&origin).pool_line(lines).start();
        let mut client = engine.client();
        (0..5).for_each(|_| drop(client.get("/")));
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(engine.metrics().sum("requests_open"), 1);
        drop(client);
        let begun = Instant::now();
        while engine.metrics().sum("requests_open") > 0 {
            assert!(begun.elapsed() < Duration::from_secs(10), "it still waits");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
