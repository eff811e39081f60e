//! What an operator changes while it runs: endpoints drained, weighed and forced under load, and who may not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use harness::{
    Client, Driver, Engine, Folder, Origin, PATIENCE, Ran, Setup, Tool, answer, binary, on_each_driver, row_of, until,
};
use serde_json::Value;

on_each_driver! {
    /// Drained, weighed, taken out and put back under load: nobody notices.
    fn changes_under_load_are_not_noticed_by_clients(driver) {
        let origins: Vec<_> = (0..3).map(|_| Counting::start()).collect();
        let engine = start(driver, &origins, "");
        let load = Load::begin(&engine);
        let name = origins[0].name();
        until("each origin is asked", PATIENCE, || origins.iter().all(|origin| origin.asked() > 20));

        assert_eq!(told(&engine, &["endpoint", &name, "drain"]), "drain (was ready)");
        origins[0].is_left_alone(&origins[1]);
        assert_eq!(told(&engine, &["endpoint", &name, "ready"]), "ready (was drain)");
        origins[0].is_asked();

        assert_eq!(told(&engine, &["endpoint", &name, "maint"]), "maint (was ready)");
        origins[0].is_left_alone(&origins[1]);
        until("its idle connections are closed", PATIENCE, || origins[0].origin.open() == 0);
        assert_eq!(told(&engine, &["endpoint", &name, "ready"]), "ready (was maint)");
        origins[0].is_asked();

        assert_eq!(told(&engine, &["endpoint", &name, "weight=0"]), "weight=0 (was weight=auto)");
        origins[0].is_left_alone(&origins[1]);
        assert_eq!(told(&engine, &["endpoint", &name, "weight=8"]), "weight=8 (was weight=0)");
        let before: Vec<_> = origins.iter().map(Counting::asked).collect();
        until("the shares have settled", PATIENCE, || origins[1].asked() >= before[1] + 100);
        let shares: Vec<_> = origins.iter().zip(&before).map(|(origin, before)| origin.asked() - before).collect();
        assert!(shares[0] > 6 * shares[1] && shares[0] < 10 * shares[1], "8 to 1 to 1: {shares:?}");
        assert_eq!(told(&engine, &["endpoint", &name, "weight=auto"]), "weight=auto (was weight=8)");

        load.end_without_an_error();
        let err = engine.err();
        for word in ["drain", "maint", "weight=8", "told by 127.0.0.1:"] {
            assert!(err.contains(&format!("endpoint `{name}` of pool `origins`: ")) && err.contains(word), "{err}");
        }
        engine.until_idle();
    }

    /// An order stands above evidence, and evidence decides again after it.
    fn a_breaker_does_what_it_is_told(driver) {
        let origins = [Counting::start(), Counting::start()];
        let engine = start(driver, &origins, "");
        let load = Load::begin(&engine);
        let name = origins[0].name();
        assert_eq!(told(&engine, &["breaker", &name, "open"]), "open (was auto)");
        assert_eq!(told(&engine, &["endpoint", &name, "breaker=auto"]), "auto (was forced open)");
        assert_eq!(told(&engine, &["endpoint", &name, "breaker=open"]), "open (was auto)");
        origins[0].is_left_alone(&origins[1]);
        assert_eq!(engine.endpoint(&name)["breaker"], "forced open");
        let shown = row(&engine, "breakers", &name);
        assert_eq!(shown["breaker"], "forced open");
        assert!(shown["last"].as_str().is_some_and(|last| last.contains("breaker open (was auto), told by")), "{shown}");
        assert_eq!(engine.metrics().sum("endpoint_breaker_order"), 1);
        assert_eq!(told(&engine, &["breaker", &name, "auto"]), "auto (was forced open)");
        origins[0].is_asked();
        load.end_without_an_error();

        // Nobody listens at the second one any more: its breaker opens, and is told to let requests through all the same.
        let (name, gone) = (origins[1].name(), origins[1].name());
        drop(origins);
        let mut client = engine.client();
        until("its breaker is open", PATIENCE, || {
            client.get("/");
            row(&engine, "breakers", &name)["breaker"] == "open"
        });
        assert_eq!(told(&engine, &["breaker", &gone, "closed"]), "closed (was auto)");
        let before = row(&engine, "endpoints", &name)["requests"].as_u64();
        until("it is asked again", PATIENCE, || {
            client.get("/");
            row(&engine, "endpoints", &name)["requests"].as_u64() > before
        });
        assert_eq!(row(&engine, "breakers", &name)["breaker"], "forced closed");
    }

    /// What is meant must be clear, and what is not is told with what may have been meant.
    fn orders_that_mean_nothing_are_refused(driver) {
        let (origin, other) = (Origin::standard(), Origin::standard());
        let (name, only_here) = (origin.address.to_string(), other.address.to_string());
        let engine = Setup::new(driver)
            .origin(&origin)
            .origin(&other)
            .more(&format!("[[pool]]\nname = \"second\"\nendpoints = [\"{name}\"]\n[[route]]\npath = \"/2/*\"\npool = \"second\""))
            .start();
        for (args, hint) in [
            (vec!["endpoint", &name, "drain"], "in 2 pools: origins, second"),
            (vec!["endpoint", &name, "drain", "--pool", "secnd"], "did you mean `second`?"),
            (vec!["endpoint", &only_here[..only_here.len() - 1], "drain"], "did you mean `127.0.0.1:"),
            (vec!["endpoint", &only_here, "drian"], "did you mean `drain`?"),
            (vec!["endpoint", &only_here, "weight=99999"], "0 to 65535"),
            (vec!["breaker", &only_here, "maint"], "one of: open, closed, auto"),
        ] {
            let ran = penstock(&engine, "set", &args);
            assert_eq!(ran.code, Some(1), "{args:?}: {}", ran.text());
            assert!(ran.err.contains(hint), "{args:?}: {}", ran.err);
        }
        assert_eq!(told(&engine, &["endpoint", &name, "drain", "--pool", "second"]), "drain (was ready)");
        let states: Vec<_> = rows(&engine, &["endpoints"]).iter().map(|row| row["state"].clone()).collect();
        assert_eq!(states, ["up", "up", "drain"]);
        assert_eq!(engine.client().get("/2/x").status(), 503, "nobody is left in it");
        assert_eq!(engine.client().get("/").status(), 200);
    }

    /// A page in somebody's browser can make it send requests here. None of them changes anything.
    fn a_browser_may_change_nothing(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).start();
        let order = format!("{{\"name\": \"{}\", \"to\": \"drain\"}}", origin.address);
        let host = engine.admin;
        let post = |fields: &str| {
            let length = order.len();
            let request = format!("POST /set/endpoint HTTP/1.1\r\n{fields}\r\nContent-Length: {length}\r\n\r\n{order}");
            Client::connect(engine.admin).ask(request).status()
        };
        let json = "Content-Type: application/json";
        for (fields, wanted) in [
            (format!("Host: {host}\r\n{json}\r\nOrigin: http://evil.example"), 403),
            (format!("Host: {host}\r\n{json}\r\nOrigin: http://{host}"), 403),
            (format!("Host: {host}\r\n{json}\r\nSec-Fetch-Site: cross-site"), 403),
            (format!("Host: rebound.example:9180\r\n{json}"), 403),
            (format!("Host: {host}"), 415),
            (format!("Host: {host}\r\nContent-Type: text/plain"), 415),
        ] {
            assert_eq!(post(&fields), wanted, "{fields}");
        }
        let get = Client::connect(engine.admin).ask(format!("GET /set/endpoint HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(get.status(), 404);
        let preflight = Client::connect(engine.admin).ask(format!("OPTIONS /set/endpoint HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert!(preflight.status() == 405 && preflight.all("access-control-allow-origin").is_empty());
        assert_eq!(row(&engine, "endpoints", &origin.address.to_string())["admin"], "ready");
        assert_eq!(post(&format!("Host: {host}\r\n{json}")), 200);
        assert_eq!(row(&engine, "endpoints", &origin.address.to_string())["admin"], "drain");
    }

    /// Content that has no end, or is no order, costs nothing but its own connection.
    fn orders_are_bounded(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).start();
        let head = format!("POST /set/endpoint HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n", engine.admin);
        for (content, wanted) in [("x".repeat(5000), 413), ("{".into(), 400), ("[]".into(), 400), (String::new(), 400)] {
            let request = format!("{head}Content-Length: {}\r\n\r\n{content}", content.len());
            assert_eq!(Client::connect(engine.admin).ask(request).status(), wanted);
        }
        // Two on one connection, the first in chunks.
        let mut client = Client::connect(engine.admin);
        let order = format!("{{\"name\": \"{}\", \"to\": \"drain\"}}", origin.address);
        let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{order}\r\n0\r\n\r\n", order.len());
        assert_eq!(client.ask(chunked).status(), 200);
        assert_eq!(client.ask("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").status(), 200);
    }

    fn pages_are_tables_for_people_and_lists_for_machines(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).start();
        engine.client().get("/");
        let name = origin.address.to_string();
        let endpoint = row(&engine, "endpoints", &name);
        for (key, wanted) in [("pool", "origins"), ("state", "up"), ("admin", "ready"), ("breaker", "closed")] {
            assert_eq!(endpoint[key], wanted, "{endpoint}");
        }
        assert_eq!((&endpoint["weight"], &endpoint["requests"]), (&Value::from(1), &Value::from(1)));
        for (page, words) in [
            ("endpoints", ["origins", "up", "since"]),
            ("pools", ["origins", "serving", "endpoints"]),
            ("breakers", ["origins", "closed", "half open"]),
            ("routes", ["origins", "route", "60.0 s"]),
            ("limits", ["connections", "door", "20000"]),
        ] {
            let ran = penstock(&engine, "show", &[page]);
            assert_eq!(ran.code, Some(0), "{page}: {}", ran.err);
            for word in words {
                assert!(ran.text().contains(word), "{page} without `{word}`:\n{}", ran.text());
            }
            assert!(!rows(&engine, &[page, "--pool", "origins"]).is_empty(), "{page}");
        }
        let ran = penstock(&engine, "show", &["pools", "--pool", "origin"]);
        assert!(ran.code == Some(1) && ran.err.contains("did you mean `origins`?"), "{}", ran.err);
    }

    /// Over a Unix socket it is known who it was.
    fn orders_come_over_a_unix_socket_too(driver) {
        let origin = Origin::standard();
        let folder = Folder::new();
        let socket = format!("unix:{}", folder.join("admin").display());
        let engine = Setup::new(driver).origin(&origin).also_admin(&socket).start();
        let name = origin.address.to_string();
        let ran = Tool::new(binary(), 30).args(["set", "endpoint", &name, "drain", "--admin", &socket]).run();
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let me = Tool::new("id", 10).args(["-u"]).run().text();
        let said = format!("endpoint `{name}` of pool `origins`: drain (was ready), told by user {}", me.trim());
        assert!(engine.err().contains(&said), "{}", engine.err());
    }
}

/// An origin that counts what it is asked.
struct Counting {
    origin: Origin,
    asked: Arc<AtomicUsize>,
}

impl Counting {
    fn start() -> Self {
        let asked = Arc::<AtomicUsize>::default();
        let count = asked.clone();
        let origin = Origin::answering(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            Some(answer("hello\n"))
        });
        Self { origin, asked }
    }

    fn name(&self) -> String {
        self.origin.address.to_string()
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Nothing new comes, while the other one is asked a hundred times.
    #[track_caller]
    fn is_left_alone(&self, other: &Self) {
        // What was under way when the order came is finished.
        let begun = other.asked();
        until("what was under way is finished", PATIENCE, || other.asked() >= begun + 30);
        let (before, begun) = (self.asked(), other.asked());
        until("the other one is asked", PATIENCE, || other.asked() >= begun + 100);
        assert_eq!(self.asked(), before, "it is asked all the same");
    }

    #[track_caller]
    fn is_asked(&self) {
        let before = self.asked();
        until("it is asked", PATIENCE, || self.asked() > before + 20);
    }
}

/// Two workers where there are two CPUs, all origins in turn.
fn start(driver: Driver, origins: &[Counting], pool_line: &str) -> Engine {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let setup = origins.iter().fold(Setup::new(driver), |setup, origin| setup.origin(&origin.origin));
    setup
        .cores(&if cpus > 1 { "0-1".to_owned() } else { "0".to_owned() })
        .pool_line("balance = \"round-robin\"")
        .pool_line(pool_line)
        .start()
}

/// Clients that ask without a pause, and remember what went wrong.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<std::thread::JoinHandle<Vec<String>>>,
}

impl Load {
    fn begin(engine: &Engine) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let clients = (0..8).map(|_| {
            let (stop, mut client) = (stop.clone(), engine.client());
            std::thread::spawn(move || {
                let mut wrong = Vec::new();
                while !stop.load(Ordering::SeqCst) && wrong.len() < 5 {
                    let response = client.get("/");
                    if response.status() != 200 {
                        wrong.push(response.start);
                    }
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                wrong
            })
        });
        Self { clients: clients.collect(), stop }
    }

    #[track_caller]
    fn end_without_an_error(self) {
        self.stop.store(true, Ordering::SeqCst);
        let wrong: Vec<_> = self.clients.into_iter().flat_map(|client| client.join().expect("a client")).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}

fn penstock(engine: &Engine, command: &str, args: &[&str]) -> Ran {
    Tool::new(binary(), 30).args([command]).args(args).args(["--admin", &engine.admin.to_string()]).run()
}

/// What `penstock set` did: `drain (was ready)`.
#[track_caller]
fn told(engine: &Engine, args: &[&str]) -> String {
    let ran = penstock(engine, "set", args);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let text = ran.text();
    let change = text.split_once(": ").and_then(|(_, rest)| rest.split_once(", ")).map(|(change, _)| change.to_owned());
    change.unwrap_or_else(|| panic!("{text}"))
}

/// The rows of a page of `penstock show`.
#[track_caller]
fn rows(engine: &Engine, args: &[&str]) -> Vec<Value> {
    let ran = penstock(engine, "show", &[args, &["--json"]].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    serde_json::from_slice(&ran.out).unwrap_or_else(|error| panic!("{error}\n{}", ran.text()))
}

/// An endpoint's row.
#[track_caller]
fn row(engine: &Engine, page: &str, endpoint: &str) -> Value {
    row_of(&rows(engine, &[page]), endpoint)
}
