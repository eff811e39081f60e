//! Breakers of routes: what opens them, what serves meanwhile, how they close, and what an operator may say.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use harness::{Engine, Folder, Origin, PATIENCE, Ran, Setup, Tool, answer, binary, on_each_driver, until};
use serde_json::Value;

/// Answers with the status that is set, 200 at first, and counts.
fn telling() -> (Origin, Arc<AtomicU16>, Arc<AtomicUsize>) {
    let (status, asked) = (Arc::new(AtomicU16::new(200)), Arc::<AtomicUsize>::default());
    let (shared, counted) = (Arc::clone(&status), Arc::clone(&asked));
    let origin = Origin::answering(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        Some(match shared.load(Ordering::SeqCst) {
            200 => answer(b"well"),
            status => format!("HTTP/1.1 {status} Ill\r\nContent-Length: 3\r\n\r\nill").into_bytes(),
        })
    });
    (origin, status, asked)
}

/// One try, and no breaker but the route's.
const POOL: &str = "retry.tries = 1\nbreaker.failures = 0";

fn guarded(engine: &Engine) -> Value {
    let page = engine.page("/show/breakers");
    let rows: Vec<Value> = serde_json::from_slice(&page.body).expect("a list");
    rows.iter().find(|row| row["route"].is_string()).expect("the route's row").clone()
}

fn set(engine: &Engine, args: &[&str]) -> Ran {
    let admin = engine.admin.to_string();
    let words = ["set"].iter().chain(args).copied().chain(["--admin", &admin]).map(str::to_owned);
    Tool::new(binary(), 20).args(words.collect::<Vec<_>>()).run()
}

on_each_driver! {
    /// Five failures in a row open it, whatever came between that is nobody's fault; then nothing goes to the origin until its time is over,
    /// and as many successes as trials close it.
    fn opens_on_failures_refuses_and_closes_on_trials(driver) {
        let (origin, status, asked) = telling();
        let engine = Setup::new(driver)
            .origin(&origin)
            .pool_line(POOL)
            .route_line("breaker = { enabled = true, open_for = \"2s\", trials = 2 }")
            .start();
        let mut client = engine.client();
        assert_eq!(client.get("/").status(), 200);
        for told in [503, 503, 503, 503, 404, 503, 500, 503, 503, 503] {
            status.store(told, Ordering::SeqCst);
            assert_eq!(client.get("/").status(), told, "404 and 500 are answers, and clear the count");
        }
        assert_eq!(guarded(&engine)["breaker"], "closed");
        for _ in 0..2 {
            client.get("/");
        }
        let before = asked.load(Ordering::SeqCst);
        let refused = client.get("/");
        assert_eq!((refused.status(), refused.text().contains("not tried now")), (503, true));
        let again: u32 = refused.field("retry-after").and_then(|secs| secs.parse().ok()).expect("Retry-After");
        assert!((1..=3).contains(&again), "{again} s");
        assert_eq!(asked.load(Ordering::SeqCst), before, "it was not asked");
        let shown = guarded(&engine);
        assert_eq!((&shown["breaker"], &shown["failures"]), (&"open".into(), &10.into()), "{shown}");
        assert!(engine.metrics().sum("route_breaker_kept_out_total") >= 1);
        assert_eq!(engine.metrics().sum("route_breakers_open"), 1);
        status.store(200, Ordering::SeqCst);
        until("it lets trials through", PATIENCE, || client.get("/").text() == "well");
        until("it is closed", PATIENCE, || {
            assert_eq!(client.get("/").text(), "well");
            guarded(&engine)["breaker"] == "closed"
        });
        until("it was told", PATIENCE, || engine.err().contains("breaker open (at 1 of 1 workers)"));
    }

    /// While it is open an answer or another pool serves; a failed trial keeps it so.
    fn what_stands_in_serves_while_it_is_open(driver) {
        let (origin, status, asked) = telling();
        let spare = Origin::answering(|_| Some(answer(b"spare")));
        let folder = Folder::new();
        let log = folder.join("access.log");
        let engine = Setup::new(driver)
            .origin(&origin)
            .pool_line(POOL)
            .route_line("path = \"/pool/*\"")
            .route_line("breaker = { enabled = true, failures = 2, open_for = \"1s\", fallback = { pool = \"spare\" } }")
            .more(&format!("[[pool]]\nname = \"spare\"\nendpoints = [{:?}]", spare.address.to_string()))
            .more("[[route]]\npath = \"/say/{what}\"\npool = \"origins\"")
            .more("breaker = { enabled = true, failures = 2, fallback = { status = 418, headers = [\"X-What: {what}\"], body = \"sorry\" } }")
            .more(&format!("[log.access]\npath = {log:?}"))
            .start();
        status.store(503, Ordering::SeqCst);
        let mut client = engine.client();
        for path in ["/pool/x", "/say/x"] {
            (0..2).for_each(|_| assert_eq!(client.get(path).status(), 503));
        }
        let said = client.get("/say/hello");
        assert_eq!((said.status(), said.text().as_str(), said.field("x-what")), (418, "sorry", Some("hello")));
        assert_eq!(client.get("/pool/x").text(), "spare");
        let before = asked.load(Ordering::SeqCst);
        until("a trial was made", PATIENCE, || {
            let got = client.get("/pool/x");
            assert!(got.text() == "spare" || got.status() == 503, "{}", got.text());
            asked.load(Ordering::SeqCst) > before
        });
        assert_eq!(client.get("/pool/x").text(), "spare", "the trial failed");
        status.store(200, Ordering::SeqCst);
        until("it is back", PATIENCE, || client.get("/pool/x").text() == "well");
        assert_eq!(client.get("/say/x").status(), 418, "the other one has a minute to go");
        until("the log tells", PATIENCE, || {
            std::fs::read_to_string(&log).is_ok_and(|log| log.contains("\"reason\":\"fallback\""))
        });
        assert!(engine.metrics().sum("fallbacks_total") >= 3);
    }

    /// Retries are part of a request: what one of them mends is no failure.
    fn a_request_that_a_retry_saves_is_no_failure(driver) {
        let bad = Origin::start(|peer| {
            peer.request();
            peer.reset();
        });
        let good = Origin::standard();
        let engine = Setup::new(driver)
            .origin(&bad)
            .origin(&good)
            .pool_line("balance = \"round-robin\"\nbreaker.failures = 0\nretry.budget = \"100%\"")
            .route_line("breaker = { enabled = true, failures = 1 }")
            .start();
        let mut client = engine.client();
        (0..10).for_each(|_| assert_eq!(client.get("/").status(), 200));
        let shown = guarded(&engine);
        assert_eq!((&shown["breaker"], &shown["requests"], &shown["failures"]), (&"closed".into(), &10.into(), &0.into()));
        drop(good);
        until("nobody is left", PATIENCE, || client.get("/").status() == 503 && guarded(&engine)["breaker"] == "open");
    }

    /// An operator's word stands above evidence, and evidence decides again after it.
    fn an_operator_opens_and_closes_it(driver) {
        let (origin, status, _) = telling();
        let engine = Setup::new(driver)
            .origin(&origin)
            .pool_line(POOL)
            .route_line("name = \"shop\"\nbreaker = { enabled = true, failures = 2 }")
            .more("[[route]]\nname = \"plain\"\npath = \"/plain\"\npool = \"origins\"")
            .start();
        let mut client = engine.client();
        assert_eq!(client.get("/").status(), 200);
        let ran = set(&engine, &["route", "shop", "breaker=open"]);
        assert_eq!(ran.text(), "route shop: breaker open (was auto)\n", "{}", ran.err);
        let refused = client.get("/");
        assert_eq!((refused.status(), refused.field("retry-after")), (503, None));
        assert_eq!((client.get("/plain").status(), guarded(&engine)["breaker"].clone()), (200, "forced open".into()));
        assert_eq!(engine.metrics().sum("route_breaker_order"), 1);
        assert_eq!(set(&engine, &["route", "shop", "breaker=auto"]).text(), "route shop: breaker auto (was forced open)\n");
        assert_eq!(client.get("/").status(), 200);
        status.store(503, Ordering::SeqCst);
        (0..2).for_each(|_| drop(client.get("/")));
        assert!(client.get("/").text().contains("not tried now"));
        assert_eq!(set(&engine, &["route", "shop", "breaker=closed"]).code, Some(0));
        assert_eq!(client.get("/").text(), "ill");
        assert_eq!(guarded(&engine)["breaker"], "forced closed");
        assert!(engine.err().contains("route `shop`: breaker closed (was auto), told by 127.0.0.1:"), "{}", engine.err());
        for (args, hint) in [
            (["route", "shp", "breaker=open"], "did you mean `shop`?"),
            (["route", "plain", "breaker=open"], "has no breaker"),
            (["route", "shop", "drain"], "one of: open, closed, auto"),
        ] {
            let ran = set(&engine, &args);
            assert!(ran.code == Some(1) && ran.err.contains(hint), "{args:?}: {}", ran.err);
        }
    }

    /// Two workers: what one finds holds at the other.
    fn workers_agree(driver) {
        let (origin, status, asked) = telling();
        status.store(503, Ordering::SeqCst);
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let engine = Setup::new(driver)
            .origin(&origin)
            .cores(if cpus > 1 { "0-1" } else { "0" })
            .pool_line(POOL)
            .route_line("breaker = { enabled = true, failures = 3 }")
            .start();
        let mut clients: Vec<_> = (0..8).map(|_| engine.client()).collect();
        until("it is open", PATIENCE, || clients[0].get("/").text().contains("not tried now"));
        let before = asked.load(Ordering::SeqCst);
        for client in &mut clients {
            assert!(client.get("/").text().contains("not tried now"));
        }
        assert_eq!(asked.load(Ordering::SeqCst), before);
    }
}

/// What cannot be meant is refused where it stands.
#[test]
fn breakers_that_contradict_themselves_are_refused() {
    let check = |route: &str| {
        let folder = Folder::new();
        let text = format!(
            "[[listen]]\nname = \"door\"\naddr = \"127.0.0.1:1\"\n[[pool]]\nname = \"a\"\nendpoints = [\"127.0.0.1:9\"]\n\
             [[pool]]\nname = \"b\"\nendpoints = [\"127.0.0.1:8\"]\n[[route]]\npath = \"/x\"\npool = \"b\"\n[[route]]\n{route}\n"
        );
        let file = folder.write("penstock.toml", text);
        let ran = Tool::new(binary(), 20).args(["check".to_owned(), "-c".to_owned(), file.display().to_string()]).run();
        (ran.code == Some(0), ran.err)
    };
    let good = check(
        "pool = \"a\"\nbreaker = { enabled = true, failures = 0, failure_rate = \"50%\", fallback = { pool = \"b\" } }",
    );
    assert!(good.0, "{}", good.1);
    for (breaker, hint) in [
        ("{ failures = 3 }", "`enabled` is false"),
        ("{ enabled = true, failures = 0 }", "nothing opens this breaker"),
        ("{ enabled = true, trials = 0 }", "`trials` cannot be 0"),
        ("{ enabled = true, open_for = \"0s\" }", "`open_for` cannot be zero"),
        ("{ enabled = true, window = \"5s\" }", "without a share to take"),
        ("{ enabled = true, slow_rate = \"10%\" }", "nothing says what is slow"),
        ("{ enabled = true, fallback.pool = \"c\" }", "there is no pool `c`"),
        ("{ enabled = true, fallback.pool = \"a\" }", "stands in for itself"),
        ("{ enabled = true, fallback = { pool = \"b\", status = 503 } }", "which one is it?"),
        ("{ enabled = true, fallback.body = \"sorry\" }", "needs a `status`"),
        ("{ enabled = true, wait = \"1s\" }", "unknown key `wait`"),
    ] {
        let (passed, text) = check(&format!("pool = \"a\"\nbreaker = {breaker}"));
        // What merely has no effect is warned of.
        let judged = passed == text.starts_with("warning");
        assert!(judged && text.contains(hint) && text.contains("breaker = {"), "{breaker}: {text}");
    }
    let (_, text) = check("respond.status = 204\nbreaker = { enabled = true }");
    assert!(text.contains("asks no endpoint"), "{text}");
}
