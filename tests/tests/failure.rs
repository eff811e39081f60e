//! What a pool does when its endpoints fail: who waits, who is refused, what an operator may say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness::{Folder, Origin, PATIENCE, Setup, Tool, answer, binary, on_each_driver, until};

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

/// How often it takes, up to 300 times.
fn until_count(mut is_so: impl FnMut() -> bool) -> usize {
    (1..=300).find(|_| is_so()).expect("it comes to that")
}

const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";

on_each_driver! {
    /// One that fails every second time, and one that is slow, never fail five times in a row: it is by their share that they are left alone.
    fn a_share_of_failures_or_of_slow_answers_opens(driver) {
        for (line, slow) in [("failure_rate = \"40%\"", false), ("slow_rate = \"40%\", slower_than = \"50ms\"", true)] {
            let asked = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&asked);
            let ill = Origin::answering(move |_| {
                let odd = count.fetch_add(1, Ordering::SeqCst) % 2 == 1;
                if odd && slow {
                    std::thread::sleep(Duration::from_millis(100));
                }
                let fails = b"HTTP/1.1 503 Ill\r\nContent-Length: 0\r\n\r\n";
                Some(if odd && !slow { fails.to_vec() } else { answer(b"odd") })
            });
            let well = Origin::answering(|_| Some(answer(b"well")));
            let engine = Setup::new(driver)
                .origin(&ill)
                .origin(&well)
                .pool_line("balance = \"round-robin\"\nretry.tries = 1")
                .pool_line(&format!("breaker = {{ {line}, calls_min = 20 }}"))
                .start();
            let mut client = engine.client();
            let name = ill.address.to_string();
            let left = until_count(|| {
                client.get("/");
                engine.endpoint(&name)["breaker"] == "open"
            });
            assert!((20..=60).contains(&asked.load(Ordering::SeqCst)), "{line}: asked {asked:?} times, in {left} requests");
            let before = asked.load(Ordering::SeqCst);
            (0..20).for_each(|_| assert_eq!(client.get("/").text(), "well"));
            assert_eq!(asked.load(Ordering::SeqCst), before, "{line}");
        }
    }

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

/// An origin that is not there: its address is free.
fn nobody() -> String {
    let gone = Origin::standard();
    gone.address.to_string()
}

on_each_driver! {
    /// A pool whose endpoints are all out is replaced by what the configuration says, at once: by an answer, with the meaning that it has
    /// as a route's.
    fn an_answer_stands_in_for_a_pool(driver) {
        let folder = Folder::new();
        let file = folder.write("sorry.html", "<p>sorry</p>");
        let engine = Setup::new(driver)
            .to(&nobody())
            .pool_line(&format!("fallback = {{ status = 503, headers = [\"Content-Type: text/html\", \"Retry-After: 7\"], body_file = {file:?} }}"))
            .start();
        let mut client = engine.client();
        let texts: Vec<_> = (0..12).map(|_| { let answer = client.get("/"); (answer.status(), answer.text()) }).collect();
        let last = client.get("/");
        assert_eq!((last.status(), last.text()), (503, "<p>sorry</p>".to_owned()), "{texts:?}");
        assert_eq!((last.field("content-type"), last.field("retry-after")), (Some("text/html"), Some("7")));
        let metrics = engine.metrics();
        assert!(metrics.sum("fallbacks_total") > 0);
        assert_eq!(metrics.sum("endpoint_waits_total"), 0, "nobody waits where there is a fallback");
    }

    /// Or by another pool, whose own fallback holds there; content comes along, and the log says so.
    fn another_pool_stands_in_for_a_pool(driver) {
        let folder = Folder::new();
        let log = folder.join("access.log");
        let far = Origin::answering(|request| Some(answer(&request.body)));
        let engine = Setup::new(driver)
            .to(&nobody())
            .pool_line("fallback.pool = \"near\"")
            .more(&format!("[[pool]]\nname = \"near\"\nendpoints = [{:?}]\nfallback.pool = \"far\"", nobody()))
            .more(&format!("[[pool]]\nname = \"far\"\nhost = \"far.example\"\nendpoints = [{:?}]", far.address.to_string()))
            .more(&format!("[log.access]\npath = {log:?}"))
            .start();
        let mut client = engine.client();
        for _ in 0..12 {
            drop(client.get("/"));
        }
        for ask in ["PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"] {
            for _ in 0..20 {
                let got = client.ask(ask);
                assert!(got.status() == 200 && got.text() == "hello" || got.status() == 502, "{} {}", got.status(), got.text());
            }
            assert_eq!(client.ask(ask).text(), "hello");
        }
        assert!(engine.metrics().sum("fallbacks_total") >= 40);
        let got = String::from_utf8(far.received().concat()).expect("text");
        let hosts = |text: &str| got.to_ascii_lowercase().matches(text).count();
        assert!(hosts("\r\nhost: ") >= 40 && hosts("\r\nhost: ") == hosts("\r\nhost: far.example\r\n"), "{got}");
        until("the log tells", PATIENCE, || std::fs::read_to_string(&log).is_ok_and(|log| log.contains("\"reason\":\"fallback\"")));
    }
}

/// What cannot be meant is refused where it stands.
#[test]
fn fallbacks_that_go_round_or_say_two_things_are_refused() {
    let check = |pools: &str| {
        let folder = Folder::new();
        let text = format!("[[listen]]\nname = \"door\"\naddr = \"127.0.0.1:1\"\n[[route]]\npool = \"a\"\n{pools}");
        let file = folder.write("penstock.toml", text);
        let ran = Tool::new(binary(), 20).args(["check".to_owned(), "-c".to_owned(), file.display().to_string()]).run();
        (ran.code == Some(0), ran.err)
    };
    let pool = |name: &str, more: &str| format!("[[pool]]\nname = {name:?}\nendpoints = [\"127.0.0.1:9\"]\n{more}\n");
    let round = check(&(pool("a", "fallback.pool = \"b\"") + &pool("b", "fallback.pool = \"a\"")));
    assert!(!round.0 && round.1.contains("a circle: `a` → `b` → `a`"), "{}", round.1);
    for (more, hint) in [
        ("fallback.pool = \"c\"", "there is no pool `c`"),
        ("fallback = { pool = \"b\", status = 503 }", "which one is it?"),
        ("fallback.body = \"sorry\"", "needs a `status`"),
        ("fallback = { status = 99 }", "no status of a final answer"),
        ("fallback = { status = 503, headers = [\"X: {id}\"] }", "a pool has none"),
        ("fallback.pool = \"b\"\nbreaker.wait = \"1s\"", "do not wait"),
    ] {
        let (_, text) = check(&(pool("a", more) + &pool("b", "")));
        assert!(text.contains(hint), "{more}: {text}");
    }
}
