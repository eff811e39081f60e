//! Probes: who is unwell gets nothing, at once and everywhere; who is well again gets its share; and nobody is asked twice.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness::{Client, Driver, Engine, Origin, PATIENCE, Setup, answer, free_address, on_each_driver, until};
use serde_json::Value;

on_each_driver! {
    /// Down after `fall` bad answers, for every worker at once; back after `rise` good ones. The client notices nothing.
    fn an_unwell_endpoint_gets_nothing_until_it_is_well(driver) {
        let patients = [Patient::start(), Patient::start()];
        let engine = start(driver, &patients, "health = { http = \"/healthz\", every = \"100ms\", timeout = \"2s\", fall = 2, rise = 2 }");
        let mut clients = Clients::connect(&engine);
        let name = patients[0].name();
        until("both are up", PATIENCE, || engine.metrics().sum("endpoint_serving") == 2 && states(&engine) == ["up", "up"]);

        patients[0].well.store(false, Ordering::SeqCst);
        let begun = Instant::now();
        until("it is down", PATIENCE, || {
            assert_eq!(clients.get(), 200);
            engine.endpoint(&name)["state"] == "down"
        });
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(2), "two probes a tenth of a second apart, and it took {took:?}");
        let before = patients[0].asked();
        for _ in 0..200 {
            assert_eq!(clients.get(), 200);
        }
        assert_eq!(patients[0].asked(), before, "it is asked all the same");
        let shown = engine.endpoint(&name);
        assert_eq!((&shown["health"], &shown["probe"]), (&"down".into(), &"503 instead of 200-299".into()));
        assert_eq!((engine.metrics().sum("endpoint_down"), engine.metrics().sum("endpoint_serving")), (1, 1));
        let idle = || patients[0].origin.open() - patients[0].probing.load(Ordering::SeqCst);
        until("idle connections to it are closed", PATIENCE, || idle() == 0);

        patients[0].well.store(true, Ordering::SeqCst);
        until("it is asked again", PATIENCE, || {
            assert_eq!(clients.get(), 200);
            patients[0].asked() > before + 20
        });
        let err = engine.err();
        let told = |what: &str| err.matches(&format!("endpoint `{name}` of pool `origins`: {what}")).count();
        assert_eq!((told("down: 503 instead of 200-299, 2 in a row"), told("up: 200 in ")), (1, 1), "{err}");
        assert_eq!(engine.metrics().sum("panics_total"), 0);
    }

    /// One prober an endpoint, however many workers; and it counts what it sends.
    fn probes_are_counted_as_they_are_sent(driver) {
        let patients = [Patient::start(), Patient::start(), Patient::start()];
        let begun = Instant::now();
        let engine = start(driver, &patients, "health = { http = \"/healthz\", every = \"100ms\", timeout = \"2s\" }");
        until("each is asked ten times", PATIENCE, || patients.iter().all(|patient| patient.probed() >= 10));
        let (first, got): (_, usize) = (sent(&engine), patients.iter().map(Patient::probed).sum());
        let last = sent(&engine);
        assert!(first <= got + patients.len() && got <= last + patients.len(), "counted {first}–{last}, and {got} came");
        let most = begun.elapsed().as_millis() as usize / 90 + 2;
        for patient in &patients {
            assert!(patient.probed() <= most, "{} probes where one prober sends {most}", patient.probed());
        }
        assert_eq!(engine.metrics().sum("endpoint_probe_failures_total"), 0);
        assert_eq!(engine.metrics().sum("upstream_connects_total"), 0, "probes are not the workers' business");
        let request = String::from_utf8_lossy(&patients[0].origin.received()[0]).into_owned();
        assert!(request.starts_with("GET /healthz HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(&format!("\r\nHost: {}\r\n", patients[0].name())), "{request}");
    }

    /// What hangs is bad, as is what refuses, and what says the wrong thing. Each is told in words.
    fn each_kind_of_bad_answer_is_told(driver) {
        let hangs = Origin::start(|peer| drop(peer.wait_for_end()));
        let closes = Origin::start(|peer| drop(peer.request()));
        let lies = Origin::saying("HTTP/9 what\r\n\r\n");
        let wrong = Origin::answering(|_| Some(answer("all is lost\n")));
        let long = Origin::answering(|_| Some(answer("x".repeat(200_000) + "all is well\n")));
        let good = Origin::answering(|request| {
            let host = request.field("host").unwrap_or_default();
            Some(answer(if host == "well.example" { "all is well\n" } else { "who?" }))
        });
        let refused = free_address();
        let origins = [&hangs, &closes, &lies, &wrong, &long, &good];
        let engine = origins
            .iter()
            .fold(Setup::new(driver), |setup, origin| setup.origin(origin))
            .to(&refused.to_string())
            .pool_line(
                "health = { http = \"/ready?x=1\", host = \"well.example\", body = \"is well\", every = \"100ms\", \
                 timeout = \"400ms\", fall = 1 }",
            )
            .start();
        for (name, state, told) in [
            (hangs.address, "down", "no answer within 400ms"),
            (closes.address, "down", "without an answer"),
            (lies.address, "down", "not HTTP"),
            (wrong.address, "down", "has no \"is well\""),
            (long.address, "down", "the first 65536 bytes have no \"is well\""),
            (refused, "down", "refused"),
            (good.address, "up", "200, \"is well\" in "),
        ] {
            let name = name.to_string();
            let mut last = Value::Null;
            until("the verdict", PATIENCE, || {
                last = engine.endpoint(&name);
                last["state"] == state && last["probe"].as_str().is_some_and(|probe| probe.contains(told))
            });
        }
    }

    /// A connection, or a few bytes, for what does not speak HTTP.
    fn endpoints_that_speak_something_else_are_probed_too(driver) {
        let mail = |greeting: &'static str| Origin::start(move |peer| {
            peer.send(greeting);
            let _ = peer.wait_for_end();
        });
        let (good, busy) = (mail("220 mail.example ready\r\n"), mail("421 busy\r\n"));
        let redis = Origin::start(|peer| {
            if peer.wire.take(6).is_ok_and(|said| said == b"PING\r\n") {
                peer.send("+PONG\r\n");
            }
            let _ = peer.wait_for_end();
        });
        let late = free_address();
        let pool = |name: &str, endpoint: &dyn std::fmt::Display, health: &str| {
            let listen = free_address();
            format!(
                "[[listen]]\nname = \"{name}\"\naddr = \"{listen}\"\nprotocol = \"tcp\"\npool = \"{name}\"\n\
                 [[pool]]\nname = \"{name}\"\nendpoints = [\"{endpoint}\"]\n\
                 health = {{ {health}, every = \"100ms\", timeout = \"1s\", rise = 1, fall = 1 }}\n"
            )
        };
        let engine = Setup::new(driver)
            .tcp()
            .origin(&good)
            .origin(&busy)
            .pool_line("health = { expect = \"220 \", every = \"100ms\", timeout = \"2s\", fall = 1 }")
            .more(&pool("redis", &redis.address, "send = \"PING\\r\\n\", expect = \"+PONG\\r\\n\""))
            .more(&pool("silent", &redis.address, "expect = \"+PONG\""))
            .more(&pool("late", &late, "tcp = true"))
            .start();
        until("mail", PATIENCE, || engine.endpoint(&good.address.to_string())["state"] == "up");
        let shown = |name: &str| engine.endpoints().into_iter().find(|row| row["pool"] == name).unwrap_or_default();
        until("busy", PATIENCE, || engine.endpoint(&busy.address.to_string())["probe"] == "it said \"421 busy\\r\\n\"");
        until("redis", PATIENCE, || shown("redis")["health"] == "up");
        until("who says nothing", PATIENCE, || shown("silent")["probe"] == "no answer within 1s");
        until("who is not there", PATIENCE, || shown("late")["health"] == "down");
        let _late = Origin::on(TcpListener::bind(late).expect("a free address"), |peer| drop(peer.wait_for_end()));
        until("who is there now", PATIENCE, || shown("late")["health"] == "up");
        for _ in 0..10 {
            let mut client = engine.client();
            assert!(client.fill().is_ok() && client.unread.starts_with(b"220 "), "the busy one is asked");
        }
    }

    /// Endpoints that expect a PROXY header get one that speaks for nobody; and a port of its own may be asked.
    fn probes_say_the_proxy_header_and_go_where_they_are_sent(driver) {
        let endpoint = Origin::standard();
        let health = Origin::start(|peer| {
            // The signature, version 2, LOCAL, no address.
            let header = peer.wire.take(16).unwrap_or_default();
            assert_eq!(header, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", "{}", header.escape_ascii());
            if peer.request().is_some() {
                peer.send(answer("ok"));
            }
        });
        let port = health.address.port();
        let engine = Setup::new(driver)
            .origin(&endpoint)
            .pool_line("proxy_protocol = \"v2\"")
            .pool_line(&format!("health = {{ http = \"/\", port = {port}, every = \"100ms\", timeout = \"2s\" }}"))
            .start();
        until("it is up", PATIENCE, || engine.endpoint(&endpoint.address.to_string())["health"] == "up");
        assert!(health.accepted() >= 1 && endpoint.accepted() == 0);
    }

    /// Nobody is probed unless the configuration says so.
    fn nobody_is_probed_unasked(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).start();
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!((origin.accepted(), sent(&engine)), (0, 0));
        assert_eq!(engine.endpoint(&origin.address.to_string())["health"], "not probed");
    }
}

/// An origin that says how it is.
struct Patient {
    origin: Origin,
    well: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    probed: Arc<AtomicUsize>,
    /// Connections of probes that are open.
    probing: Arc<AtomicUsize>,
}

impl Patient {
    fn start() -> Self {
        let well = Arc::new(AtomicBool::new(true));
        let (asked, probed, probing) = <(Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let (is_well, count, count_probes, open) = (well.clone(), asked.clone(), probed.clone(), probing.clone());
        let origin = Origin::start(move |peer| {
            let mut probe = false;
            while let Some(request) = peer.request() {
                if request.target() == "/healthz" {
                    probe = true;
                    open.fetch_add(1, Ordering::SeqCst);
                    count_probes.fetch_add(1, Ordering::SeqCst);
                    let ill = "HTTP/1.1 503 Ill\r\nContent-Length: 0\r\n\r\n".into();
                    peer.send(if is_well.load(Ordering::SeqCst) { answer("ok") } else { ill });
                } else {
                    count.fetch_add(1, Ordering::SeqCst);
                    peer.send(answer("hello\n"));
                }
            }
            if probe {
                open.fetch_sub(1, Ordering::SeqCst);
            }
        });
        Self { origin, well, asked, probed, probing }
    }

    fn name(&self) -> String {
        self.origin.address.to_string()
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn probed(&self) -> usize {
        self.probed.load(Ordering::SeqCst)
    }
}

/// Several connections, so that each worker has some, asked in turn.
struct Clients(std::collections::VecDeque<Client>);

impl Clients {
    fn connect(engine: &Engine) -> Self {
        Self((0..8).map(|_| engine.client()).collect())
    }

    /// Asks; gives the status.
    #[track_caller]
    fn get(&mut self) -> u16 {
        self.0.rotate_left(1);
        self.0[0].get("/").status()
    }
}

/// Two workers where there are two CPUs, in turn.
fn start(driver: Driver, patients: &[Patient], pool_line: &str) -> Engine {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let setup = patients.iter().fold(Setup::new(driver), |setup, patient| setup.origin(&patient.origin));
    let cores = if cpus > 1 { "0-1" } else { "0" };
    setup.cores(cores).pool_line("balance = \"round-robin\"").pool_line(pool_line).start()
}

fn sent(engine: &Engine) -> usize {
    engine.metrics().sum("endpoint_probes_total") as usize
}

fn states(engine: &Engine) -> Vec<Value> {
    engine.endpoints().iter().map(|row| row["health"].clone()).collect()
}
