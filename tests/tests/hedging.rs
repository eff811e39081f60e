//! A second copy of what is slower than most: who wins, what it costs, and what is never sent twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness::{Engine, Metrics, Origin, Setup, answer, on_each_driver};

/// Round robin, so that each origin is first in turn; the hedge is the only way to be tried again.
const LINES: &str = "balance = \"round-robin\"\nretry.budget = \"0%\"\nretry.on = [\"connect\"]\nhedge = { after = \"90%\", budget = \"20%\" }";

/// Long beside the floor of 10 ms, and short beside a patience.
const SLOW: Duration = Duration::from_millis(1_500);

on_each_driver! {
    /// A request that one origin sits on is answered by the other one, long before; the connection of the slow one ends with it.
    fn the_first_answer_wins(driver) {
        let slow = Arc::new(AtomicUsize::new(0));
        let cut = Arc::new(AtomicUsize::new(0));
        let origins = [(); 2].map(|()| sluggish(&slow, &cut, false));
        let engine = Setup::new(driver).cores("0").origin(&origins[0]).origin(&origins[1]).pool_line(LINES).start();
        let learnt = learn(&engine);
        let mut client = engine.client();
        for number in 0..6 {
            slow.store(1, Ordering::SeqCst);
            let begun = Instant::now();
            let response = client.get("/x");
            assert_eq!((response.status(), response.text().as_str()), (200, "GET /x"), "GET {number}");
            assert!(begun.elapsed() < SLOW, "GET {number} took {:?}", begun.elapsed());
            assert_eq!(slow.load(Ordering::SeqCst), 0, "GET {number} met the slow one");
        }
        let metrics = engine.metrics();
        assert_eq!((metrics.since(&learnt, "hedges_won_total"), metrics.sum("retries_total")), (6, 0));
        until(|| cut.load(Ordering::SeqCst) == 6, "six connections of slow answers are cut");
        drop(client);
        engine.until_idle();
        assert!(engine.endpoints().iter().all(|endpoint| endpoint["in_flight"] == 0), "{:?}", engine.endpoints());
    }

    /// The first one breaks off while the copy is out: the copy's answer is the client's.
    fn a_copy_that_is_out_outlives_the_first(driver) {
        let slow = Arc::new(AtomicUsize::new(0));
        let origins = [(); 2].map(|()| sluggish(&slow, &Arc::default(), true));
        let engine = Setup::new(driver).cores("0").origin(&origins[0]).origin(&origins[1]).pool_line(LINES).start();
        let learnt = learn(&engine);
        let mut client = engine.client();
        for number in 0..4 {
            // The first origin resets after 300 ms, the second one answers after 600.
            slow.store(2, Ordering::SeqCst);
            let response = client.get("/x");
            assert_eq!((response.status(), response.text().as_str()), (200, "GET /x"), "GET {number}");
        }
        assert_eq!(engine.metrics().since(&learnt, "hedges_won_total"), 4);
        drop(client);
        engine.until_idle();
    }

    /// What may not be done twice is not, nor what has content; however slow.
    fn only_what_may_be_sent_twice(driver) {
        let slow = Arc::new(AtomicUsize::new(0));
        let origins = [(); 2].map(|()| sluggish(&slow, &Arc::default(), false));
        let engine = Setup::new(driver).cores("0").origin(&origins[0]).origin(&origins[1]).pool_line(LINES).start();
        let learnt = learn(&engine);
        for request in [
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
            "PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
            "GET /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        ] {
            slow.store(1, Ordering::SeqCst);
            let begun = Instant::now();
            assert_eq!(engine.client().ask(request).status(), 200, "{request}");
            assert!(begun.elapsed() >= SLOW, "{request} took {:?}", begun.elapsed());
        }
        assert_eq!(engine.metrics().since(&learnt, "hedges_total"), 0);
    }

    /// Everything is slow: no more copies than the budget allows.
    fn the_budget_bounds_them(driver) {
        let delay = Arc::new(AtomicUsize::new(0));
        let slowness = delay.clone();
        let serve = move |request: &harness::Message| {
            std::thread::sleep(Duration::from_millis(slowness.load(Ordering::SeqCst) as u64));
            Some(answer(request.target()))
        };
        let origins = [(); 2].map(|()| Origin::answering(serve.clone()));
        let engine = Setup::new(driver).cores("0").origin(&origins[0]).origin(&origins[1]).pool_line(LINES).start();
        learn(&engine);
        delay.store(200, Ordering::SeqCst);
        let clients: Vec<_> = (0..100).map(|_| {
            let mut client = engine.client();
            std::thread::spawn(move || client.get("/x").status())
        }).collect();
        assert!(clients.into_iter().all(|client| client.join().unwrap() == 200));
        let metrics = engine.metrics();
        let (copies, requests) = (metrics.sum("hedges_total"), metrics.sum("requests_total"));
        assert!(copies >= 10 && copies * 5 <= requests, "{copies} copies of {requests} requests");
        assert!(metrics.sum("hedges_refused_total") > 0);
        engine.until_idle();
    }
}

/// Answers at once, but for as many requests as `slow` says: of those the first sits for [`SLOW`], or (with `breaks`) resets after
/// 300 ms while the next one answers after 600. `cut` counts connections that ended with such an answer.
fn sluggish(slow: &Arc<AtomicUsize>, cut: &Arc<AtomicUsize>, breaks: bool) -> Origin {
    let (slow, cut) = (slow.clone(), cut.clone());
    Origin::start(move |peer| {
        let mut sat = false;
        while let Some(request) = peer.request() {
            let turn = slow.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).unwrap_or(0);
            match (turn, breaks) {
                (0, _) => {}
                (2, true) => {
                    std::thread::sleep(Duration::from_millis(300));
                    return peer.reset();
                }
                (_, true) => std::thread::sleep(Duration::from_millis(600)),
                (_, false) => std::thread::sleep(SLOW),
            }
            let body = format!("{} {}", request.method(), request.target());
            sat = turn > 0;
            if !peer.send(answer(body)) {
                break;
            }
        }
        cut.fetch_add(usize::from(sat), Ordering::SeqCst);
    })
}

/// Enough quick answers to know what is slow, and to have a budget; the counters after that.
fn learn(engine: &Engine) -> Metrics {
    let mut client = engine.client();
    for _ in 0..100 {
        assert_eq!(client.get("/").status(), 200);
    }
    engine.metrics()
}

fn until(done: impl Fn() -> bool, what: &str) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}: not within ten seconds");
        std::thread::sleep(Duration::from_millis(10));
    }
}
