//! Endpoints that are worse than their neighbours are left out for a while: by what all workers saw, and never too many.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use harness::{Driver, Engine, Origin, PATIENCE, Setup, answer, on_each_driver, until};
use serde_json::Value;

on_each_driver! {
    /// One of five answers every third request or so with 500: it is found, left out, and tried again when its time is over.
    fn one_that_fails_more_than_the_others_is_left_out(driver) {
        let origins: Vec<_> = (0..5).map(|at| Faulty::start(if at == 3 { 30 } else { 0 }, 500)).collect();
        let line = "outlier = { on = [\"success-rate\"], every = \"1s\", calls_min = 20, eject_for = \"2s\" }";
        let engine = start(driver, &origins, line);
        let load = Load::begin(&engine);
        let name = origins[3].name();
        until("it is ejected", PATIENCE, || engine.endpoint(&name)["state"] == "ejected");
        origins[3].is_left_alone(&origins[0]);
        let shown = engine.endpoint(&name);
        assert!(shown["last"].as_str().is_some_and(|last| last.contains("ejected for 2 s: 30 % of its ")), "{shown}");
        assert_eq!(states(&engine).iter().filter(|state| *state == "up").count(), 4);

        origins[3].percent.store(0, Ordering::SeqCst);
        let before = origins[3].asked();
        until("it is asked again", PATIENCE, || origins[3].asked() > before + 20);
        until("nobody is out", PATIENCE, || engine.metrics().sum("endpoint_ejected") == 0);
        load.end();
        assert_eq!(engine.metrics().sum("endpoint_ejections_total"), 1);
        let err = engine.err();
        for what in ["ejected for 2 s", "back in the choice"] {
            assert_eq!(err.matches(&format!("endpoint `{name}` of pool `origins`: {what}")).count(), 1, "{err}");
        }
        assert_eq!(err.matches("ejected").count(), 1, "nobody else is: {err}");
    }

    /// What cannot serve is seen by its gateway errors, without enough endpoints to compare; and of two one stays.
    fn gateway_errors_in_a_row_are_enough(driver) {
        let origins = [Faulty::start(100, 503), Faulty::start(0, 200)];
        let line = "breaker.failures = 0\noutlier = { on = [\"gateway\"], every = \"1s\", eject_for = \"60s\" }";
        let engine = start(driver, &origins, line);
        let load = Load::begin(&engine);
        until("it is ejected", PATIENCE, || engine.endpoint(&origins[0].name())["state"] == "ejected");
        let last = engine.endpoint(&origins[0].name())["last"].to_string();
        assert!(last.contains(" gateway errors in a row"), "{last}");
        origins[0].is_left_alone(&origins[1]);
        // Now the other one: it stays, because somebody must.
        origins[1].percent.store(100, Ordering::SeqCst);
        let begun = origins[1].asked();
        std::thread::sleep(Duration::from_millis(2500));
        assert!(origins[1].asked() > begun + 20);
        assert_eq!(states(&engine), ["ejected", "up"]);
        load.end();
    }

    /// Errors of any kind in a row, and answers that take far longer than the others', are found where they are looked for.
    fn errors_in_a_row_and_slow_ones_are_found(driver) {
        let origins = [Faulty::start(100, 500), Faulty::start(0, 200)];
        let engine = start(driver, &origins, "outlier = { on = [\"5xx\"], every = \"1s\", eject_for = \"60s\" }");
        let load = Load::begin(&engine);
        until("it is ejected", PATIENCE, || engine.endpoint(&origins[0].name())["state"] == "ejected");
        let last = engine.endpoint(&origins[0].name())["last"].to_string();
        assert!(last.contains(" errors in a row") && !last.contains("gateway"), "{last}");
        load.end();

        let taking = |ms| Faulty::taking(Duration::from_millis(ms));
        let origins = [taking(5), taking(5), taking(5), taking(150), taking(5)];
        let line = "outlier = { on = [\"latency\"], every = \"1s\", calls_min = 20, eject_for = \"60s\" }";
        let engine = start(driver, &origins, line);
        let load = Load::begin(&engine);
        until("it is ejected", PATIENCE, || engine.endpoint(&origins[3].name())["state"] == "ejected");
        let last = engine.endpoint(&origins[3].name())["last"].to_string();
        assert!(last.contains("ms"), "{last}");
        load.end();
    }

    /// Whoever finds an address that fails can send for it: errors of the application are no reason, unless the operator says so.
    fn nobody_is_left_out_unasked(driver) {
        let origins = [Faulty::start(100, 500), Faulty::start(0, 200)];
        let engine = start(driver, &origins, "");
        let load = Load::begin(&engine);
        std::thread::sleep(Duration::from_millis(2500));
        assert_eq!(states(&engine), ["up", "up"]);
        assert_eq!(engine.metrics().sum("endpoint_ejections_total"), 0);
        load.end();
    }
}

/// An origin of whose answers a share are errors, evenly spread.
struct Faulty {
    origin: Origin,
    asked: Arc<AtomicUsize>,
    percent: Arc<AtomicUsize>,
}

impl Faulty {
    fn start(percent: usize, status: u16) -> Self {
        let (asked, percent) = (Arc::<AtomicUsize>::default(), Arc::new(AtomicUsize::new(percent)));
        let (count, share) = (asked.clone(), percent.clone());
        let origin = Origin::answering(move |_| {
            let number = count.fetch_add(1, Ordering::SeqCst);
            // 37 is prime to 100: the errors do not come in a row.
            let fails = number * 37 % 100 < share.load(Ordering::SeqCst);
            let error = format!("HTTP/1.1 {status} Faulty\r\nContent-Length: 0\r\n\r\n").into_bytes();
            Some(if fails { error } else { answer("hello\n") })
        });
        Self { origin, asked, percent }
    }

    /// One that is well, and takes its time.
    fn taking(time: Duration) -> Self {
        let asked = Arc::<AtomicUsize>::default();
        let count = asked.clone();
        let origin = Origin::answering(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(time);
            Some(answer("hello\n"))
        });
        Self { origin, asked, percent: Arc::default() }
    }

    fn name(&self) -> String {
        self.origin.address.to_string()
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Nothing new comes, while another one is asked fifty times.
    #[track_caller]
    fn is_left_alone(&self, other: &Self) {
        let begun = other.asked();
        until("what was under way is finished", PATIENCE, || other.asked() >= begun + 10);
        let (before, begun) = (self.asked(), other.asked());
        until("the other one is asked", PATIENCE, || other.asked() >= begun + 50);
        assert_eq!(self.asked(), before, "it is asked all the same");
    }
}

/// Two workers where there are two CPUs, all origins in turn, and no other remedy.
fn start(driver: Driver, origins: &[Faulty], pool_line: &str) -> Engine {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let setup = origins.iter().fold(Setup::new(driver), |setup, origin| setup.origin(&origin.origin));
    let cores = if cpus > 1 { "0-1" } else { "0" };
    setup.cores(cores).pool_line("balance = \"round-robin\"\nretry.tries = 1").pool_line(pool_line).start()
}

/// Clients that ask, whatever the answer.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn begin(engine: &Engine) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let clients = (0..8).map(|_| {
            let (stop, mut client) = (stop.clone(), engine.client());
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    assert!([200, 500, 503].contains(&client.get("/").status()));
                    std::thread::sleep(Duration::from_millis(2));
                }
            })
        });
        Self { clients: clients.collect(), stop }
    }

    fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.clients.into_iter().for_each(|client| client.join().expect("each request is answered"));
    }
}

fn states(engine: &Engine) -> Vec<Value> {
    engine.endpoints().iter().map(|row| row["state"].clone()).collect()
}
