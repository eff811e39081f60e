//! Routes that choose among pools: by what they are like now, without swinging, and with a reason for each choice.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use harness::{Driver, Engine, Origin, PATIENCE, Setup, Tool, answer, binary, on_each_driver, until};
use serde_json::Value;

on_each_driver! {
    /// The nearer one gets the requests; slow, it is left; well again, it gets them back. Both workers, and the counters say why.
    fn a_slow_pool_is_left_and_taken_back(driver) {
        let regions = [Region::start("near", 2), Region::start("far", 20)];
        let engine = start(driver, &regions, "candidates = [\"near\", \"far\"]\nadaptive = { hold = \"600ms\", ramp = \"1s\" }");
        let load = Load::begin(&engine, "GET");
        until("near is the choice, being the best", PATIENCE, || chosen(&engine, "near") == ["best"]);
        until("and far is known", PATIENCE, || candidate(&engine, "far")["latency_us"].as_u64() > Some(15_000));
        // Slow, and not so slow that its requests are given up: that is another test.
        regions[0].delay(70);
        until("far is the choice", PATIENCE, || chosen(&engine, "far") == ["best"]);
        std::thread::sleep(Duration::from_millis(1200));
        let before = [regions[0].asked(), regions[1].asked()];
        until("far is asked", PATIENCE, || regions[1].asked() > before[1] + 500);
        let strays = regions[0].asked() - before[0];
        assert!(strays <= 40, "{strays} to explore, while far got 500");
        regions[0].delay(2);
        until("near is the choice again", PATIENCE, || chosen(&engine, "near") == ["best"]);
        let total = load.end_without_an_error();
        let metrics = engine.metrics();
        let moved = by_reason(&engine, "failover");
        assert_eq!(metrics.sum("route_choices_total") - moved, total, "each request has its reason");
        for reason in ["best", "held", "ramping", "exploring"] {
            assert!(by_reason(&engine, reason) > 0, "{reason}: {}", engine.page("/metrics").text());
        }
        for reason in ["full", "panic"] {
            assert_eq!(by_reason(&engine, reason), 0, "{reason}");
        }
        engine.until_idle();
    }

    /// Nobody listens there any more, in the middle of everything: no client sees it, and when it is back it is taken back.
    fn a_dead_pool_is_left_without_an_error(driver) {
        let mut near = vec![Region::start("near", 2), Region::start("near", 2)];
        let far = Region::start("far", 20);
        let addresses = [near[0].address(), near[1].address()];
        let pools = format!(
            "[[pool]]\nname = \"near\"\nendpoints = [\"{}\", \"{}\"]\nbreaker = {{ open_for = \"1s\" }}\n{}",
            addresses[0], addresses[1], far.pool()
        );
        let engine = begin(driver, &pools, "candidates = [\"near\", \"far\"]\nadaptive = { hold = \"300ms\", ramp = \"500ms\" }");
        let load = Load::begin(&engine, "GET");
        until("near is the choice", PATIENCE, || chosen(&engine, "near") == ["best"] && near[1].asked() > 50);
        near.clear();
        until("far is the choice, there being no other", PATIENCE, || chosen(&engine, "far") == ["only"]);
        let before = far.asked();
        until("far is asked", PATIENCE, || far.asked() > before + 300);
        assert!(by_reason(&engine, "failover") + by_reason(&engine, "unhealthy") > 0);
        let near: Vec<_> = addresses.iter().map(|&address| Region::at(address, "near", 2)).collect();
        until("near is the choice again", PATIENCE, || chosen(&engine, "near") == ["best"]);
        until("and asked", PATIENCE, || near[0].asked() > 100);
        load.end_without_an_error();
        engine.until_idle();
    }

    /// One that hangs is given up for the other pool, although its own pool has nobody else.
    fn a_hanging_pool_is_left_without_an_error(driver) {
        let regions = [Region::start("near", 2), Region::start("far", 20)];
        let engine = start(driver, &regions, "candidates = [\"near\", \"far\"]\nadaptive = { hold = \"300ms\", ramp = \"500ms\" }");
        let load = Load::begin(&engine, "GET");
        until("near is the choice", PATIENCE, || chosen(&engine, "near") == ["best"] && regions[0].asked() > 100);
        regions[0].delay(30_000);
        until("far is the choice", PATIENCE, || !chosen(&engine, "far").is_empty());
        let before = regions[1].asked();
        until("far is asked", PATIENCE, || regions[1].asked() > before + 300);
        let slowest = load.slowest();
        load.end_without_an_error();
        assert!(slowest < Duration::from_secs(3), "{slowest:?}");
        assert!(by_reason(&engine, "failover") > 0);
    }

    /// Twice as fast is not worth four times the price.
    fn a_cost_is_honoured(driver) {
        let regions = [Region::start("near", 30), Region::start("far", 12)];
        let engine = start(driver, &regions, "candidates = [\"near\", \"far cost=4\"]\nadaptive = { hold = \"300ms\", ramp = \"0s\" }");
        let load = Load::begin(&engine, "GET");
        until("near is the choice, being cheaper", PATIENCE, || chosen(&engine, "near") == ["cheaper"]);
        let before = regions[0].asked();
        until("near is asked", PATIENCE, || regions[0].asked() > before + 500);
        assert_eq!(chosen(&engine, "near"), ["cheaper"]);
        regions[0].delay(120);
        until("ten times as fast is", PATIENCE, || chosen(&engine, "far") == ["best"]);
        load.end_without_an_error();
    }

    /// Latency that swings does not swing the choice.
    fn the_choice_does_not_swing(driver) {
        let regions = [Region::start("near", 5), Region::start("far", 25)];
        let engine = start(driver, &regions, "candidates = [\"near\", \"far\"]\nadaptive = { hold = \"1s\", ramp = \"500ms\" }");
        let load = Load::begin(&engine, "GET");
        until("near is the choice", PATIENCE, || chosen(&engine, "near") == ["best"]);
        let (begun, mut changes, mut before) = (Instant::now(), 0, "near");
        for turn in 0.. {
            regions[0].delay(if turn % 20 < 10 { 60 } else { 5 });
            std::thread::sleep(Duration::from_millis(30));
            let far = !chosen(&engine, "far").is_empty() && chosen(&engine, "near").is_empty();
            let near = !chosen(&engine, "near").is_empty() && chosen(&engine, "far").is_empty();
            let now = if far { "far" } else if near { "near" } else { before };
            changes += u32::from(now != before);
            before = now;
            if begun.elapsed() > Duration::from_secs(8) {
                break;
            }
        }
        load.end_without_an_error();
        assert!(changes <= 3, "{changes} changes of mind in eight seconds, for some 13 swings");
    }

    /// What is too much for the near one spills over, and no more than that.
    fn what_is_too_much_spills_over(driver) {
        let regions = [Region::start("near", 20), Region::start("far", 20)];
        let pools = format!("{}concurrency = 4\n{}", regions[0].pool(), regions[1].pool());
        let engine = begin(driver, &pools, "candidates = [\"near\", \"far cost=20\"]");
        let load = Load::begin(&engine, "GET");
        until("some have gone there", PATIENCE, || by_reason(&engine, "full") > 300);
        assert_eq!(chosen(&engine, "near").len(), 1, "and near is still the choice");
        load.end_without_an_error();
        let (near, far) = (regions[0].asked(), regions[1].asked());
        // Four of eight clients find a place.
        assert!(near * 3 > far && far * 3 > near, "{near} and {far}");
        assert!(regions[0].most() <= 4, "{} at a time", regions[0].most());
    }

    /// What must not be sent twice neither explores nor moves on.
    fn what_must_not_be_sent_twice_is_not(driver) {
        let regions = [Region::start("near", 2), Region::start("far", 2)];
        let engine = start(driver, &regions, "candidates = [\"near\", \"far\"]\nadaptive = { explore = \"20%\" }");
        let load = Load::begin(&engine, "POST");
        until("near is asked", PATIENCE, || regions[0].asked() > 500);
        load.end_without_an_error();
        assert_eq!((regions[1].asked(), by_reason(&engine, "exploring")), (0, 0));
        // The connection ends before an answer: it may have been done.
        regions[0].break_off();
        let mut client = engine.client();
        let post = client.ask("POST /c/ HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!((post.status(), regions[1].asked()), (502, 0));
        let put = client.ask("PUT /c/ HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!((put.status(), put.text().as_str()), (200, "far"), "content and all");
    }

    /// Nobody is left anywhere: an error of ours, and the first that returns is found.
    fn nobody_left_anywhere(driver) {
        let mut regions = vec![Region::start("near", 2), Region::start("far", 2)];
        let far = regions[1].address();
        let pools = regions.iter().map(|region| region.pool() + "breaker = { open_for = \"300ms\" }\n").collect::<String>();
        let engine = begin(driver, &pools, "candidates = [\"near\", \"far\"]\nadaptive = { hold = \"300ms\" }");
        let mut client = engine.client();
        assert_eq!(client.get("/c/").status(), 200);
        regions.clear();
        for _ in 0..20 {
            assert!([502, 503].contains(&client.get("/c/").status()));
        }
        until("panic is counted", PATIENCE, || {
            client.get("/c/");
            by_reason(&engine, "panic") > 0
        });
        let _far = Region::at(far, "far", 2);
        until("it is found", PATIENCE, || client.get("/c/").status() == 200);
        let mut good = 0;
        until("and stays", PATIENCE, || {
            good = if client.get("/c/").status() == 200 { good + 1 } else { 0 };
            good == 50
        });
    }

    /// What an operator reads.
    fn the_choice_is_explained(driver) {
        let regions = [Region::start("near", 2), Region::start("far", 20)];
        let engine = start(driver, &regions, "candidates = [\"near\", \"far cost=1.5\"]");
        let load = Load::begin(&engine, "GET");
        until("both are known", PATIENCE, || {
            ["near", "far"].iter().all(|pool| candidate(&engine, pool)["latency_us"].as_u64() > Some(1_000))
        });
        load.end_without_an_error();
        let shown = Tool::new(binary(), 30).args(["show", "routes", "--admin", &engine.admin.to_string()]).succeed().text();
        for word in ["choice", "score", "cost", "latency", "failing", "load", "ready", "requests"] {
            assert!(shown.lines().next().is_some_and(|titles| titles.contains(word)), "{shown}");
        }
        let row = |pool: &str| shown.lines().find(|line| line.contains(&format!("candidates  {pool} "))).unwrap_or_default();
        assert!(row("near").contains("best") && row("far").contains(" 1.50 ") && !row("far").contains("best"), "{shown}");
        let status = Tool::new(binary(), 30).args(["status", "--admin", &engine.admin.to_string()]).succeed().text();
        assert!(status.contains("candidates") && status.contains("best"), "{status}");
        let config = engine.folder.join("penstock.toml").display().to_string();
        let explained = Tool::new(binary(), 30).args(["check", "-c", &config, "--explain", "http://a/c/x"]).succeed().text();
        for line in [
            "candidates near  cost 1, no limit: the choice while all fare alike\n",
            "far  cost 1.5, no limit: the choice once it is 1.88 times faster than near",
            "adaptive   better by 25% for 5s, full share after 10s, 1% to learn",
        ] {
            assert!(explained.contains(line), "{line}\n{explained}");
        }
    }
}

/// An origin some milliseconds away, that says its name.
struct Region {
    name: &'static str,
    origin: Origin,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    delay: AtomicU64,
    asked: AtomicUsize,
    /// Requests that it works on, and the most it ever did.
    busy: AtomicUsize,
    most: AtomicUsize,
    broken: AtomicBool,
}

impl Region {
    fn start(name: &'static str, millis: u64) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a port of the kernel's choice"), name, millis)
    }

    /// Where another one was.
    fn at(address: SocketAddr, name: &'static str, millis: u64) -> Self {
        let mut listener = None;
        until("its port is free again", PATIENCE, || {
            listener = TcpListener::bind(address).ok();
            listener.is_some()
        });
        Self::on(listener.expect("just bound"), name, millis)
    }

    fn on(listener: TcpListener, name: &'static str, millis: u64) -> Self {
        let shared = Arc::<Shared>::default();
        shared.delay.store(millis, Ordering::SeqCst);
        let serving = shared.clone();
        let origin = Origin::on(listener, move |peer| {
            while peer.request().is_some() {
                serving.asked.fetch_add(1, Ordering::SeqCst);
                if serving.broken.load(Ordering::SeqCst) {
                    return;
                }
                let busy = serving.busy.fetch_add(1, Ordering::SeqCst) + 1;
                serving.most.fetch_max(busy, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(serving.delay.load(Ordering::SeqCst)));
                serving.busy.fetch_sub(1, Ordering::SeqCst);
                if !peer.send(answer(name)) {
                    return;
                }
            }
        });
        Self { name, origin, shared }
    }

    fn address(&self) -> SocketAddr {
        self.origin.address
    }

    fn pool(&self) -> String {
        format!("[[pool]]\nname = \"{}\"\nendpoints = [\"{}\"]\n", self.name, self.address())
    }

    fn delay(&self, millis: u64) {
        self.shared.delay.store(millis, Ordering::SeqCst);
    }

    /// Ends each connection instead of answering.
    fn break_off(&self) {
        self.shared.broken.store(true, Ordering::SeqCst);
    }

    fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    fn most(&self) -> usize {
        self.shared.most.load(Ordering::SeqCst)
    }
}

fn start(driver: Driver, regions: &[Region], route: &str) -> Engine {
    begin(driver, &regions.iter().map(Region::pool).collect::<String>(), route)
}

/// Two workers where there are two CPUs; what is asked below `/c` goes by `route`.
fn begin(driver: Driver, pools: &str, route: &str) -> Engine {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = if cpus > 1 { "0-1" } else { "0" };
    let route = format!("{pools}[[route]]\nname = \"choosing\"\npath = \"/c/*\"\n{route}");
    // The pool of the route that is always there.
    Setup::new(driver).cores(cores).to("127.0.0.1:9").more(&route).start()
}

/// The reasons for which a pool is the choice of workers: one where they agree.
fn chosen(engine: &Engine, pool: &str) -> Vec<String> {
    candidate(engine, pool)["choice"].as_str().map(str::to_owned).into_iter().collect()
}

/// What `/status` says of a candidate.
#[track_caller]
fn candidate(engine: &Engine, pool: &str) -> Value {
    let status = engine.status();
    let candidates = status["routes"][0]["candidates"].as_array().cloned().unwrap_or_default();
    candidates.into_iter().find(|row| row["pool"] == pool).unwrap_or_else(|| panic!("no candidate {pool}: {status}"))
}

/// Requests that went somewhere for a reason.
fn by_reason(engine: &Engine, reason: &str) -> u64 {
    let text = engine.page("/metrics").text();
    let of = |line: &&str| {
        line.starts_with("penstock_route_choices_total{") && line.contains(&format!("reason=\"{reason}\""))
    };
    text.lines().filter(of).filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

/// Clients that ask without a pause, and remember what went wrong.
struct Load {
    stop: Arc<AtomicBool>,
    slowest: Arc<AtomicU64>,
    clients: Vec<JoinHandle<(u64, Vec<String>)>>,
}

impl Load {
    fn begin(engine: &Engine, method: &'static str) -> Self {
        let (stop, slowest) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let request = format!("{method} /c/ HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        let clients = (0..8).map(|_| {
            let (stop, slowest, request, mut client) =
                (stop.clone(), slowest.clone(), request.clone(), engine.client());
            std::thread::spawn(move || {
                let (mut count, mut wrong) = (0, Vec::new());
                while !stop.load(Ordering::SeqCst) && wrong.len() < 5 {
                    let begun = Instant::now();
                    let response = client.ask(&request);
                    slowest.fetch_max(begun.elapsed().as_millis() as u64, Ordering::SeqCst);
                    count += 1;
                    if response.status() != 200 {
                        wrong.push(response.start);
                    }
                }
                (count, wrong)
            })
        });
        Self { clients: clients.collect(), stop, slowest }
    }

    /// How long the slowest request took.
    fn slowest(&self) -> Duration {
        Duration::from_millis(self.slowest.load(Ordering::SeqCst))
    }

    /// How many requests it was.
    #[track_caller]
    fn end_without_an_error(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        let ended: Vec<_> = self.clients.into_iter().map(|client| client.join().expect("a client")).collect();
        let wrong: Vec<_> = ended.iter().flat_map(|(_, wrong)| wrong).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        ended.iter().map(|(count, _)| count).sum()
    }
}
