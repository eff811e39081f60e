//! More than there is room for: limits hold over all workers, queues are bounded, and who behaves is none the worse.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use harness::{Client, Driver, Engine, Message, Origin, PATIENCE, Setup, answer, on_each_driver, pattern, until};

on_each_driver! {
    /// A rate holds over two workers, whichever way connections fall.
    alone fn a_rate_is_exact_over_two_workers(driver) {
        for key in ["route", "client-address"] {
            let origin = Origin::standard();
            let limit = format!("limit = {{ key = \"{key}\", rate = \"400/s\", burst = 4 }}");
            let engine = Setup::new(driver).cores("0-1").origin(&origin).route_line(&limit).start();
            let begun = Instant::now();
            let statuses = asking(&engine, 16, Duration::from_secs(4));
            let secs = begun.elapsed().as_secs_f64();
            let granted = statuses.iter().filter(|status| **status == 200).count() as f64;
            let refused = statuses.len() as f64 - granted;
            assert!(statuses.iter().all(|status| [200, 429].contains(status)));
            assert!(granted <= 400.0 * secs + 4.0, "{key}: {granted} in {secs} s");
            assert!(granted >= 400.0 * 4.0 * 0.99, "{key}: {granted} in {secs} s");
            assert_eq!(engine.metrics().sum("route_limited_total") as f64, refused);
        }
    }

    /// Who is turned away is told when to come back, and by which limit.
    fn a_refusal_says_when_to_come_back(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver)
            .origin(&origin)
            .route_line("limit = { key = \"header:X-Api-Key\", rate = \"2/m\", burst = 1, status = 420, name = \"calls\" }")
            .start();
        let mut client = engine.client();
        let mut ask = |key: &str| client.ask(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {key}\r\n\r\n"));
        let granted = ask("one");
        assert_eq!((granted.status(), granted.field("ratelimit-policy")), (200, Some("\"calls\";q=2;w=60")));
        assert_eq!(granted.field("ratelimit"), Some("\"calls\";r=0;t=30"));
        let refused = ask("one");
        assert_eq!((refused.status(), refused.field("ratelimit-policy")), (420, Some("\"calls\";q=2;w=60")));
        assert_eq!(refused.field("ratelimit"), Some("\"calls\";r=0;t=30"));
        let retry: u64 = refused.field("retry-after").expect("Retry-After").parse().expect("seconds");
        assert!((29..=30).contains(&retry), "{retry}");
        assert!(!refused.is_closing(), "the connection is as good as before");
        assert_eq!(ask("two").status(), 200);
    }

    /// Who is let in is told what is left, by every limit of the route, unless the operator wants less said.
    fn an_answer_says_what_is_left(driver) {
        let origin = Origin::saying("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nRateLimit: \"own\";r=7;t=1\r\n\r\n");
        let by_route = "{ key = \"route\", rate = \"600/m\", burst = 20, name = \"all\" }";
        let by_client = "{ key = \"client-address\", rate = \"2/m\", burst = 4, name = \"mine\"";
        let start = |limits: &str| Setup::new(driver).origin(&origin).route_line(&format!("limit = [{limits}]")).start();
        let engine = start(&format!("{by_route}, {by_client} }}"));
        let mut client = engine.client();
        for left in [3, 2, 1, 0] {
            let got = client.get("/");
            assert_eq!(got.field("ratelimit-policy"), Some("\"all\";q=600;w=60, \"mine\";q=2;w=60"));
            let told: Vec<_> = got.all("ratelimit");
            assert!(told.contains(&"\"own\";r=7;t=1"), "{told:?}");
            let ours = told.iter().find(|told| told.starts_with("\"all\"")).expect("ours");
            let (all, mine) = ours.split_once(", ").expect("two of them");
            let (here, reset) = mine.split_once(";t=").expect("when the burst is back");
            assert_eq!(here, format!("\"mine\";r={left}"));
            let reset: u64 = reset.parse().expect("seconds");
            assert!((30 * (4 - left) - 5..=30 * (4 - left)).contains(&reset), "{reset} s with {left} left");
            let (all, _) = all.split_once(";t=").expect("when the burst is back");
            let all: u64 = all.trim_start_matches("\"all\";r=").parse().expect("a number");
            assert!((15 + left..=20).contains(&all), "{all} of all left");
        }
        assert_eq!(client.get("/").status(), 429);
        for (fields, granted, refused) in [("always", true, true), ("refused", false, true), ("off", false, false)] {
            let engine = start(&format!("{{ rate = \"1/h\", burst = 1, fields = \"{fields}\" }}"));
            let mut client = engine.client();
            for (status, told) in [(200, granted), (429, refused)] {
                let got = client.get("/");
                assert_eq!((got.status(), got.field("ratelimit-policy").is_some()), (status, told), "{fields}");
                assert!(status == 200 || got.field("retry-after").is_some());
            }
        }
    }

    /// Somebody who comes with a new key each time takes no memory, and takes nothing from those who keep theirs.
    alone fn cycling_keys_costs_nobody_anything(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver)
            .origin(&origin)
            .route_line("limit = { key = \"header:x-api-key\", rate = \"1000/s\", burst = 50 }")
            .start();
        let mut client = engine.client();
        client.get("/");
        let before = engine.memory();
        let mut legit = engine.client();
        for round in 0..200 {
            for number in 0..100 {
                client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: {round}-{number}\r\n\r\n"));
            }
            for _ in 0..100 {
                client.response(false).expect("an answer, whatever it says");
            }
            let response = legit.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Api-Key: honest\r\n\r\n");
            assert_eq!(response.status(), 200, "round {round}");
        }
        let grown = engine.memory().anonymous.saturating_sub(before.anonymous);
        assert!(grown < 4 << 20, "20,000 keys took {grown} bytes");
    }

    /// Two workers never let one more through than the pool may have, and all of it can be had on one of them.
    alone fn a_pools_limit_is_exact_over_two_workers(driver) {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (seen, highest) = (Arc::clone(&now), Arc::clone(&most));
        let origin = Origin::answering(move |_| {
            highest.fetch_max(seen.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(5));
            seen.fetch_sub(1, Ordering::SeqCst);
            Some(answer("ok"))
        });
        // Workers that choose at the same moment may exceed an endpoint's limit by one each; a pool's, never.
        for (line, allowed) in [("concurrency = 8", 8), ("limits = { requests = 8 }", 9)] {
            most.store(0, Ordering::SeqCst);
            let engine = Setup::new(driver)
                .cores("0-1")
                .origin(&origin)
                .pool_line(line)
                .pool_line("queue = { for = \"5s\", target = \"4s\" }")
                .start();
            let statuses = asking(&engine, 32, Duration::from_secs(2));
            let failed: Vec<_> = statuses.iter().filter(|status| **status != 200).collect();
            assert!(failed.is_empty(), "{line}: {failed:?} of {}", statuses.len());
            let most = most.load(Ordering::SeqCst);
            assert!((8..=allowed).contains(&most), "{line}: {most}");
            assert!(statuses.len() > 500, "{line}: {} answers in 2 s", statuses.len());
        }
    }

    /// A flood beyond the queue is turned away at once, takes no memory, and is over when it is over.
    alone fn a_flood_is_turned_away_and_leaves_nothing(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver)
            .origin(&origin)
            .pool_line("concurrency = 2")
            .pool_line("queue = { len = 8, for = \"500ms\" }")
            .start();
        engine.client().get("/");
        let clients: Vec<JoinHandle<Message>> = (0..64)
            .map(|_| {
                let mut client = engine.client();
                std::thread::spawn(move || client.get("/slow/100"))
            })
            .collect();
        let responses: Vec<Message> = clients.into_iter().map(|client| client.join().expect("an answer")).collect();
        let served = responses.iter().filter(|response| response.status() == 200).count();
        let refused: Vec<_> = responses.iter().filter(|response| response.status() == 503).collect();
        assert_eq!(served + refused.len(), 64);
        assert!((4..=20).contains(&served), "{served} served");
        assert!(refused.iter().all(|response| response.field("retry-after").is_some()));
        let metrics = engine.metrics();
        assert_eq!(metrics.sum("class_unserved_total") as usize, refused.len());
        assert_eq!((metrics.sum("pool_in_flight"), metrics.sum("pool_waiting")), (0, 0));
        assert_eq!(engine.client().get("/").status(), 200);
    }

    /// Whoever waits and leaves gives its seat up in that moment, closing or resetting.
    fn who_leaves_the_queue_is_gone_at_once(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver)
            .origin(&origin)
            .pool_line("concurrency = 1")
            .pool_line("queue = { len = 2, for = \"20s\", target = \"10s\" }")
            .start();
        let mut first = engine.client();
        first.send("GET /slow/3000 HTTP/1.1\r\nHost: a\r\n\r\n");
        engine.until_metric("pool_in_flight", 1);
        for resets in [false, true] {
            let mut leaving = engine.client();
            leaving.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            engine.until_metric("pool_waiting", 1);
            if resets { leaving.reset() } else { drop(leaving) }
            engine.until_metric("pool_waiting", 0);
        }
        let mut stays = engine.client();
        stays.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(first.response(false).expect("its answer").status(), 200);
        assert_eq!(stays.response(false).expect("its turn").status(), 200);
        drop((first, stays));
        engine.until_idle();
    }

    /// Those who wait when a drain begins are served like those who do not.
    fn a_drain_serves_those_who_wait(driver) {
        let origin = Origin::standard();
        let mut engine = Setup::new(driver)
            .origin(&origin)
            .pool_line("concurrency = 1")
            .pool_line("queue = { for = \"20s\", target = \"10s\" }")
            .start();
        let clients: Vec<Client> = (0..4)
            .map(|_| {
                let mut client = engine.client();
                client.send("GET /slow/200 HTTP/1.1\r\nHost: a\r\n\r\n");
                client
            })
            .collect();
        engine.until_metric("pool_waiting", 3);
        engine.terminate();
        for mut client in clients {
            let response = client.response(false).expect("an answer");
            assert_eq!((response.status(), response.is_closing()), (200, true));
        }
        assert_eq!(engine.wait(PATIENCE).code(), Some(0), "{}", engine.err());
    }

    /// A class that floods its pool does not keep another one waiting.
    alone fn interactive_requests_go_before_bulk(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver)
            .origin(&origin)
            .listen_line("trusted = \"127.0.0.0/8\"\nclass_header = \"X-Class\"")
            .pool_line("concurrency = 2\nqueue = { for = \"10s\", target = \"9s\" }")
            .route_line("class = \"bulk\"")
            .more("[classes.interactive]\nweight = 50\n[classes.bulk]\nweight = 1")
            .start();
        let flood = Flood::begin(&engine);
        let mut client = engine.client();
        let begun = Instant::now();
        for _ in 0..10 {
            let response = client.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Class: interactive\r\n\r\n");
            assert_eq!(response.status(), 200);
        }
        // In one row with bulk each would wait for some 14 × 20 ms ÷ 2.
        let each = begun.elapsed() / 10;
        flood.end();
        assert!(each < Duration::from_millis(90), "{each:?} each");
    }

    /// A strict class has the next place of its pool, however many wait.
    alone fn a_strict_class_goes_before_all_others(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver)
            .origin(&origin)
            .listen_line("trusted = \"127.0.0.0/8\"\nclass_header = \"X-Class\"")
            .pool_line("concurrency = 1\nqueue = { for = \"20s\", target = \"19s\" }")
            .more("[classes.admin]\nstrict = true\n[classes.heavy]\nweight = 1000")
            .start();
        let flood: Vec<_> = (0..20)
            .map(|number| {
                let mut client = engine.client();
                let class = if number % 2 == 0 { "heavy" } else { "default" };
                client.send(format!("GET /slow/100 HTTP/1.1\r\nHost: a\r\nX-Class: {class}\r\n\r\n"));
                client
            })
            .collect();
        engine.until_metric("pool_waiting", 19);
        let mut admin = engine.client();
        for _ in 0..3 {
            let begun = Instant::now();
            assert_eq!(admin.ask("GET / HTTP/1.1\r\nHost: a\r\nX-Class: admin\r\n\r\n").status(), 200);
            // What is being served, and at the worst the one after it: this one came when its place was just taken.
            assert!(begun.elapsed() < Duration::from_millis(400), "{:?}", begun.elapsed());
        }
        assert!(engine.metrics().sum("pool_waiting") >= 5, "the others still wait");
        flood.into_iter().for_each(|mut client| assert_eq!(client.response(false).expect("in its turn").status(), 200));
    }

    /// A strict class has the next place of any worker: it is not held up by what takes long on its own one. So it is where the endpoints have the
    /// limits.
    alone fn a_strict_class_has_the_next_place_of_any_worker(driver) {
        for limit in ["concurrency = 4", "limits = { requests = 4 }"] {
            let origin = Origin::standard();
            let engine = strict_beside(driver, &origin, limit);
            let mut admins: Vec<_> = (0..8).map(|_| engine.client()).collect();
            let long = long_ones(&engine, 3);
            engine.until_metric("pool_in_flight", 3);
            let flood = Flood::begin(&engine);
            for admin in &mut admins {
                let begun = Instant::now();
                assert_eq!(admin.ask(OF_ADMIN).status(), 200, "{limit}");
                // Three of four places are taken for six seconds; the fourth changes hands every 20 ms.
                assert!(begun.elapsed() < Duration::from_millis(500), "{limit}: {:?}", begun.elapsed());
            }
            assert!(engine.metrics().sum("pool_in_flight") >= 3, "the long ones are still there");
            flood.end();
            long.into_iter().for_each(|mut client| assert_eq!(client.response(false).expect("in the end").status(), 200));
        }
    }

    /// Where each worker finds its own limit, a strict class has a place beside those that are found.
    alone fn a_strict_class_does_not_wait_for_a_found_limit(driver) {
        let origin = Origin::standard();
        let engine = strict_beside(driver, &origin, "concurrency = \"auto\"");
        let mut admins: Vec<_> = (0..8).map(|_| engine.client()).collect();
        // Each worker begins with two places, and learns of no more while nothing is answered.
        let long = long_ones(&engine, 12);
        engine.until_metric("pool_in_flight", 4);
        assert!(engine.metrics().sum("pool_waiting") >= 4, "both workers are full");
        for admin in &mut admins {
            let begun = Instant::now();
            assert_eq!(admin.ask(OF_ADMIN).status(), 200);
            assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
        }
        assert_eq!(engine.metrics().sum("pool_in_flight"), 4, "nobody else had it");
        drop(long);
        engine.until_metric("pool_in_flight", 0);
    }

    /// The limit that is found is about what an origin works on at a time: more than it begins with, and far less than there are clients.
    alone fn a_limit_is_found(driver) {
        let slots = Arc::new((Mutex::new(8_usize), Condvar::new()));
        let origin = Origin::answering(move |_| {
            let (free, freed) = &*slots;
            *freed.wait_while(free.lock().expect("no panic"), |free| *free == 0).expect("no panic") -= 1;
            std::thread::sleep(Duration::from_millis(10));
            *free.lock().expect("no panic") += 1;
            freed.notify_one();
            Some(answer("ok"))
        });
        let engine = Setup::new(driver)
            .cores("0")
            .origin(&origin)
            .pool_line("concurrency = \"auto\"\nqueue = { for = \"10s\", target = \"9s\" }")
            .start();
        let (most, statuses) = std::thread::scope(|scope| {
            let asking = scope.spawn(|| asking(&engine, 64, Duration::from_secs(4)));
            let mut most = 0;
            while !asking.is_finished() {
                most = most.max(engine.metrics().sum("pool_limit"));
                std::thread::sleep(Duration::from_millis(20));
            }
            (most, asking.join().expect("answers"))
        });
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
        assert!((5..=48).contains(&most), "{most} places for eight at a time, and {} answers", statuses.len());
    }

    /// A pool that is full and whose queue is full is probed all the same, and in time: probes have connections of their own, and take no place.
    alone fn probes_wait_for_nobody(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver)
            .cores("0-1")
            .origin(&origin)
            .pool_line("concurrency = 2\nlimits = { requests = 2, connections = 2 }")
            .pool_line("queue = { len = 2, for = \"20s\", target = \"19s\" }")
            .pool_line("health = { http = \"/\", every = \"100ms\", timeout = \"2s\", fall = 1 }")
            .start();
        let mut flood = Vec::new();
        until("nobody else may even wait", PATIENCE, || {
            let mut client = engine.client();
            client.send("GET /slow/6000 HTTP/1.1\r\nHost: a\r\n\r\n");
            flood.push(client);
            std::thread::sleep(Duration::from_millis(10));
            engine.metrics().sum("class_unserved_total") >= 2
        });
        let (first, begun) = (engine.metrics(), Instant::now());
        std::thread::sleep(Duration::from_secs(2));
        let last = engine.metrics();
        let due = begun.elapsed().as_millis() as u64 / 100;
        let sent = last.since(&first, "endpoint_probes_total");
        assert!((due * 8 / 10..=due * 12 / 10 + 1).contains(&sent), "{sent} probes, and {due} were due");
        assert_eq!((last.sum("endpoint_probe_failures_total"), last.sum("endpoint_serving")), (0, 1));
        assert_eq!((last.sum("pool_in_flight"), last.sum("pool_waiting") >= 2), (2, true), "all the while");
    }

    /// The admin endpoint has a thread of its own: it answers while every worker has more to do than it can, and takes no more connections.
    alone fn the_admin_endpoint_answers_whatever_workers_do(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver)
            .cores("0-1")
            .origin(&origin)
            .listen_line("max_connections = 32")
            .pool_line("concurrency = 2\nqueue = { len = 1, for = \"20s\", target = \"19s\" }")
            .start();
        let stop = Arc::new(AtomicBool::new(false));
        let flood: Vec<_> = (0..32)
            .map(|_| {
                let (mut client, stop) = (engine.client(), Arc::clone(&stop));
                std::thread::spawn(move || {
                    while !stop.load(Ordering::SeqCst) {
                        (0..16).for_each(|_| client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
                        (0..16).for_each(|_| drop(client.response(false)));
                    }
                })
            })
            .collect();
        until("requests are turned away", PATIENCE, || engine.metrics().sum("class_unserved_total") > 100);
        let longest = (0..40).map(|_| {
            let begun = Instant::now();
            assert!(engine.metrics().sum("requests_total") > 0);
            begun.elapsed()
        });
        let longest = longest.max().expect("forty");
        stop.store(true, Ordering::SeqCst);
        flood.into_iter().for_each(|client| client.join().expect("no complaint"));
        assert!(longest < Duration::from_secs(2), "{longest:?} for an answer");
    }

    /// Content keeps to its bandwidth, and all of it arrives.
    alone fn content_goes_at_its_bandwidth(driver) {
        let (size, rate) = (3_000_000, 1_000_000.0);
        let body = pattern(3, size);
        let whole = answer(body.clone());
        let origin = Origin::answering(move |_| Some(whole.clone()));
        let engine = Setup::new(driver)
            .cores("0-1")
            .origin(&origin)
            .route_line("class = \"bulk\"")
            .more("[classes.bulk]\nbandwidth = \"1MB/s\"")
            .start();
        let begun = Instant::now();
        let clients: Vec<_> = (0..2)
            .map(|_| {
                let mut client = engine.client();
                std::thread::spawn(move || client.get("/").body)
            })
            .collect();
        for client in clients {
            assert!(client.join().expect("a response") == body, "the content is another one");
        }
        let secs = begun.elapsed().as_secs_f64();
        let wanted = 2.0 * size as f64 / rate;
        assert!((wanted * 0.98..wanted * 1.05).contains(&secs), "{secs} s for {wanted}");
        assert_eq!(engine.metrics().sum("class_paced_bytes_total"), 2 * size as u64);
    }

    /// Requests keep to their rate by waiting: none is refused, and there is no burst.
    alone fn requests_begin_at_their_rate(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver).cores("0-1").origin(&origin).route_line("rate = \"100/s\"").start();
        let begun = Instant::now();
        let statuses = asking(&engine, 8, Duration::from_secs(3));
        let secs = begun.elapsed().as_secs_f64();
        assert!(statuses.iter().all(|status| *status == 200));
        let wanted = 100.0 * secs;
        assert!((wanted * 0.96..wanted * 1.02 + 2.0).contains(&(statuses.len() as f64)), "{} in {secs} s", statuses.len());
    }

    /// One client's connections are bounded over all workers; those of others and those that end are not its concern.
    fn a_client_has_so_many_connections(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver)
            .cores("0-1")
            .origin(&origin)
            .listen_line("max_connections_per_client = 3")
            .start();
        let mut held: Vec<Client> = (0..3).map(|_| engine.client()).collect();
        held.iter_mut().for_each(|client| assert_eq!(client.get("/").status(), 200));
        // The reset may come before the connection is looked at for the first time.
        if let Ok(mut refused) = Client::try_connect(engine.address) {
            let asked = refused.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok();
            assert!(!asked || refused.response(false).is_err(), "a fourth connection was served");
        }
        engine.until_metric("connections_refused_total", 1);
        drop(held.pop());
        engine.until_metric("connections_open", 2);
        assert_eq!(engine.client().get("/").status(), 200);
    }
}

/// Clients that ask for what takes 20 ms, without a pause; more of them than the pool has places.
struct Flood {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Flood {
    /// Begins, and waits until most of them wait.
    fn begin(engine: &Engine) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let begin = |_| {
            let (mut client, stop) = (engine.client(), Arc::clone(&stop));
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    assert_eq!(client.get("/slow/20").status(), 200);
                }
            })
        };
        let clients = (0..16).map(begin).collect();
        until("bulk waits", PATIENCE, || engine.metrics().sum("pool_waiting") >= 10);
        Self { stop, clients }
    }

    fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        self.clients.into_iter().for_each(|client| client.join().expect("no complaint"));
    }
}

/// A request of the strict class of [`strict_beside`].
const OF_ADMIN: &str = "GET / HTTP/1.1\r\nHost: a\r\nX-Class: admin\r\n\r\n";

/// Two workers, and a pool with this limit.
fn strict_beside(driver: Driver, origin: &Origin, limit: &str) -> Engine {
    Setup::new(driver)
        .cores("0-1")
        .origin(origin)
        .listen_line("trusted = \"127.0.0.0/8\"\nclass_header = \"X-Class\"")
        .pool_line(limit)
        .pool_line("queue = { for = \"20s\", target = \"19s\" }")
        .more("[classes.admin]\nstrict = true")
        .start()
}

/// Clients whose answers take six seconds.
fn long_ones(engine: &Engine, count: usize) -> Vec<Client> {
    let one = |_| {
        let mut client = engine.client();
        client.send("GET /slow/6000 HTTP/1.1\r\nHost: a\r\n\r\n");
        client
    };
    (0..count).map(one).collect()
}

/// The statuses that so many clients get in this time, each asking again as soon as it is answered.
fn asking(engine: &Engine, clients: usize, time: Duration) -> Vec<u16> {
    let end = Instant::now() + time;
    let clients: Vec<JoinHandle<Vec<u16>>> = (0..clients)
        .map(|_| {
            let mut client = engine.client();
            std::thread::spawn(move || {
                let mut statuses = Vec::new();
                while Instant::now() < end {
                    statuses.push(client.get("/").status());
                }
                statuses
            })
        })
        .collect();
    clients.into_iter().flat_map(|client| client.join().expect("answers")).collect()
}
