//! Which endpoint gets a request: what hashes stays together, limits hold over all workers, and workers share what they know.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness::{Authority, Client, Driver, Engine, Folder, Kind, Origin, PATIENCE, Setup, on_each_driver, until};

on_each_driver! {
    /// The same value goes to the same endpoint on every connection, and many values go to all.
    fn what_hashes_stays_together(driver) {
        let origins = named(4);
        for policy in ["ring", "maglev"] {
            for (hash, request) in [
                ("header:X-User", "GET / HTTP/1.1\r\nHost: a\r\nx-user: KEY\r\n\r\n"),
                ("cookie:user", "GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1; user=\"KEY\"\r\n\r\n"),
                ("query:user", "GET /?a=1&user=KEY HTTP/1.1\r\nHost: a\r\n\r\n"),
                ("path", "GET /KEY?x=RANDOM HTTP/1.1\r\nHost: a\r\n\r\n"),
                ("uri", "GET /KEY HTTP/1.1\r\nHost: a\r\n\r\n"),
            ] {
                let engine = start(driver, &origins, &format!("balance = \"{policy}\"\nhash = \"{hash}\""));
                let mut homes = HashSet::new();
                for key in 0..40 {
                    let asked = |round: usize| {
                        let text = request.replace("KEY", &format!("k{key}")).replace("RANDOM", &round.to_string());
                        engine.client().ask(text).text()
                    };
                    let home = asked(0);
                    assert!((1..4).all(|round| asked(round) == home), "{policy} {hash} {key}");
                    homes.insert(home);
                }
                assert_eq!(homes.len(), 4, "{policy} {hash}");
            }
            let engine = start(driver, &origins, &format!("balance = \"{policy}\"\nhash = \"client-address\""));
            let homes: HashSet<_> = (0..20).map(|_| engine.client().get("/").text()).collect();
            assert_eq!(homes.len(), 1, "{policy}");
        }
    }

    /// Two processes with the same list choose the same, whatever its order.
    fn every_machine_chooses_the_same(driver) {
        let mut origins = named(5);
        let homes = |origins: &[Origin]| -> Vec<String> {
            let engine = start(driver, origins, "balance = \"maglev\"\nhash = \"path\"");
            (0..30).map(|key| engine.client().get(&format!("/{key}")).text()).collect()
        };
        let before = homes(&origins);
        origins.reverse();
        assert_eq!(homes(&origins), before);
    }

    /// All policies serve everybody, and in proportion where they promise it.
    fn every_policy_serves(driver) {
        let origins = named(3);
        for policy in ["adaptive", "round-robin", "random", "least-requests"] {
            let engine = start(driver, &origins, &format!("balance = \"{policy}\""));
            let mut client = engine.client();
            let mut counts = BTreeMap::<String, usize>::new();
            (0..300).for_each(|_| *counts.entry(client.get("/").text()).or_default() += 1);
            assert_eq!(counts.len(), 3, "{policy}: {counts:?}");
            assert!(policy != "round-robin" || counts.values().all(|&count| count == 100), "{counts:?}");
        }
    }

    /// No endpoint has more requests than it may; what is over waits, and is then told to come again.
    fn a_limit_of_requests_holds(driver) {
        let (origin, busy) = slow(Duration::from_millis(300));
        let engine = Setup::new(driver).origin(&origin).pool_line("limits = { requests = 3 }").start();
        let mut clients: Vec<_> = (0..12).map(|_| engine.client()).collect();
        clients.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        let answers: Vec<_> = clients.iter_mut().map(|client| client.response(false).expect("an answer")).collect();
        let (served, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status() == 200);
        assert_eq!((served.len(), refused.len()), (3, 9));
        assert!(refused.iter().all(|answer| answer.status() == 503 && answer.field("retry-after") == Some("1")));
        assert_eq!(busy.most(), 3);
        assert_eq!(engine.metrics().sum("class_unserved_total"), 9);
        assert_eq!(engine.client().get("/").status(), 200, "there is room again");
    }

    /// An entry's own limit stands above the pool's, and a line's above its file's, from when the line changes.
    fn an_endpoint_may_have_its_own_limit(driver) {
        let (one, one_busy) = slow(Duration::from_millis(300));
        let (two, two_busy) = slow(Duration::from_millis(300));
        let folder = Folder::new();
        let file = folder.write("endpoints", format!("{} requests=2\n", two.address));
        let engine = Setup::new(driver)
            .to(&format!("{} requests=1", one.address))
            .to(&format!("file:{} requests=7", file.display()))
            .pool_line("limits = { requests = 5 }\nqueue.for = \"10s\"\nqueue.target = \"10s\"")
            .start();
        until("the file is read", PATIENCE, || engine.endpoints().len() == 2);
        let ask = || {
            let mut clients: Vec<_> = (0..12).map(|_| engine.client()).collect();
            clients.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
            clients.iter_mut().for_each(|client| assert_eq!(client.response(false).expect("an answer").status(), 200));
        };
        ask();
        assert_eq!((one_busy.most(), two_busy.most()), (1, 2));
        std::fs::write(folder.join("next"), format!("{} requests=3\n", two.address)).expect("a file of our own");
        std::fs::rename(folder.join("next"), &file).expect("a file of our own");
        until("the new limit holds", PATIENCE, || {
            ask();
            two_busy.most() == 3
        });
        assert_eq!(one_busy.most(), 1);
    }

    /// Nor more connections, and with another endpoint beside it nobody notices.
    fn a_limit_of_connections_holds(driver) {
        let (limited, other) = (slow(Duration::from_millis(20)).0, slow(Duration::from_millis(20)).0);
        let engine = Setup::new(driver)
            .origin(&limited)
            .origin(&other)
            .pool_line("limits = { connections = 8 }\nbalance = \"random\"")
            .start();
        let threads: Vec<_> = (0..16).map(|_| {
            let mut client = engine.client();
            std::thread::spawn(move || (0..30).filter(|_| client.get("/").status() == 200).count())
        }).collect();
        let served: usize = threads.into_iter().map(|thread| thread.join().expect("a client")).sum();
        assert!(limited.accepted() <= 8 && other.accepted() <= 8, "{} {}", limited.accepted(), other.accepted());
        assert_eq!(served, 16 * 30);
    }

    /// Where there may be no more connections, those that lie idle at one worker serve the other's clients at once: no place is lost to idleness, and
    /// none is made anew.
    fn idle_connections_are_lent(driver) {
        if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
            return;
        }
        let (origin, busy) = slow(Duration::from_millis(20));
        let setup = Setup::new(driver).origin(&origin).pool_line("limits = { connections = 4 }");
        lends_four(setup, &origin, &busy);
        // A line of a file says so, and nothing else does.
        let folder = Folder::new();
        let (origin, busy) = slow(Duration::from_millis(20));
        let file = folder.write("pool", format!("{} connections=4\n", origin.address));
        lends_four(Setup::new(driver).to(&format!("file:{}", file.display())), &origin, &busy);
    }

    /// TLS keeps a connection where it is: its place goes over, and the other worker makes its own.
    fn a_place_is_lent_where_the_connection_cannot_be(driver) {
        if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
            return;
        }
        let folder = Folder::new();
        let authority = Authority::new(&folder, "ca");
        let issued = authority.issue(&folder, "back", &["127.0.0.1"], Kind::Ecdsa);
        let origin = Origin::standard();
        let back = Setup::new(driver).origin(&origin).listen_line(&issued.line()).start();
        let lines = format!("tls = {{ ca = {:?} }}\nlimits = {{ connections = 1 }}\nqueue.for = \"60s\"", authority.file);
        let engine = Setup::new(driver).to(&format!("https://{}", back.address)).pool_line(&lines).cores("0-1").start();
        let mut clients = clients_of_each_worker(&engine, 1);
        for round in 0..6 {
            assert_eq!(clients[round % 2][0].get("/").status(), 200);
        }
        let metrics = engine.metrics();
        let [lent, made] = ["upstream_lent_total", "upstream_connects_total"].map(|name| metrics.sum(name));
        assert_eq!((lent, made), (0, 6), "each worker met the endpoint anew");
    }

    /// A share grows with the time since an endpoint came back.
    fn a_slow_start_is_slow(driver) {
        let origins = named(2);
        let engine = start(driver, &origins, "balance = \"round-robin\"\nslow_start = \"1h\"");
        let mut client = engine.client();
        let share = |client: &mut Client| (0..200).filter(|_| client.get("/").text() == "0").count();
        assert!((95..=105).contains(&share(&mut client)), "those that were there at the start share at once");
        let name = origins[0].address.to_string();
        for word in ["drain", "ready"] {
            harness::Tool::new(harness::binary(), 10)
                .args(["set", "endpoint", &name, word, "--admin", &engine.admin.to_string()])
                .succeed();
        }
        let returned = share(&mut client);
        assert!((5..=40).contains(&returned), "a tenth of its weight: {returned} of 200");
    }

    /// Connections are there before the first request.
    fn warm_connections_are_ready(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).pool_line("reuse.warm = 4").start();
        until("they are made", PATIENCE, || origin.open() == 4);
        engine.until_metric("upstream_idle", 4);
        assert_eq!(engine.client().get("/").status(), 200);
        let metrics = engine.metrics();
        assert_eq!((metrics.sum("upstream_reused_total"), origin.accepted()), (1, 4));
    }

    /// One that has carried as many requests as it may is closed, and one that has been idle for too long is swept.
    fn worn_and_idle_connections_are_let_go(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).pool_line("reuse.max_requests = 3").start();
        let mut client = engine.client();
        (0..7).for_each(|_| assert_eq!(client.get("/").status(), 200));
        assert_eq!((origin.accepted(), engine.metrics().sum("upstream_reused_total")), (3, 4));

        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).pool_line("reuse.idle = \"300ms\"").start();
        let mut client = engine.client();
        assert_eq!(client.get("/").status(), 200);
        until("it is swept", PATIENCE, || origin.open() == 0);
        assert_eq!((client.get("/").status(), origin.accepted()), (200, 2));
    }

    /// A connection that has grown old is not used again.
    fn old_connections_are_let_go(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).pool_line("reuse.max_age = \"200ms\"").start();
        let mut client = engine.client();
        for _ in 0..3 {
            assert_eq!((client.get("/").status(), client.get("/").status()), (200, 200));
            std::thread::sleep(Duration::from_millis(300));
        }
        assert_eq!(origin.accepted(), 3);
        until("the last one is swept", PATIENCE, || origin.open() == 0);
    }

    /// Two workers, uneven connections: endpoints get equal shares by what all workers have out, and connections are used again.
    /// Latency has no say here: a pause of the machine would be an origin's. Even so a busy machine keeps an origin from answering for a while, and
    /// it gets less meanwhile; a bias of ours would show in each of three rounds.
    alone fn two_workers_spread_evenly_and_reuse(driver) {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let origins = named(5);
        let least = Setup::new(driver).pool_line("balance = \"least-requests\"");
        let setup = origins.iter().fold(least, |setup, origin| setup.origin(origin));
        let engine = setup.cores(if cpus > 1 { "0-1" } else { "0" }).start();
        let even = (0..3).any(|_| {
            let counts = uneven_load(&engine);
            let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
            println!("{counts:?}");
            counts.len() == 5 && *most as f64 / *least as f64 <= 1.1
        });
        assert!(even, "in none of three rounds");
        let metrics = engine.metrics();
        let (reused, connects) = (metrics.sum("upstream_reused_total"), metrics.sum("upstream_connects_total"));
        assert!(reused as f64 / (reused + connects) as f64 >= 0.99, "{reused} reused, {connects} made");
    }
}

/// That four connections, which is all that there may be, serve the clients of two workers by turns.
fn lends_four(setup: Setup, origin: &Origin, busy: &Busy) {
    let engine = setup.pool_line("queue.for = \"60s\"\nqueue.target = \"60s\"").cores("0-1").start();
    let mut clients = clients_of_each_worker(&engine, 4);
    for round in 0..10 {
        let clients = &mut clients[round % 2];
        clients.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
        clients.iter_mut().for_each(|client| assert_eq!(client.response(false).expect("an answer").status(), 200));
    }
    assert_eq!((origin.accepted(), origin.open()), (4, 4), "none was closed to make another one");
    assert!(busy.most() <= 4);
    let metrics = engine.metrics();
    let (lent, borrowed) = (metrics.sum("upstream_lent_total"), metrics.sum("upstream_borrowed_total"));
    assert!(lent == borrowed && borrowed >= 9, "{lent} lent, {borrowed} borrowed");
    let shown: serde_json::Value = serde_json::from_str(&engine.page("/show/pools").text()).expect("a page of JSON");
    assert_eq!((shown[0]["idle"].as_u64(), shown[0]["borrowed"].as_u64()), (Some(4), Some(borrowed)));
}

/// So many clients of each of two workers.
fn clients_of_each_worker(engine: &Engine, many: usize) -> [Vec<Client>; 2] {
    let accepted = || [0, 1].map(|worker| engine.metrics().sum(&format!("connections_total{{worker=\"{worker}\"}}")));
    let mut clients = [Vec::new(), Vec::new()];
    let mut before = accepted();
    for _ in 0..40 * many {
        let client = engine.client();
        until("it is accepted", PATIENCE, || accepted().iter().sum::<u64>() > before.iter().sum());
        let after = accepted();
        clients[usize::from(after[1] > before[1])].push(client);
        before = after;
        if clients.iter().all(|clients| clients.len() >= many) {
            clients.iter_mut().for_each(|clients| clients.truncate(many));
            return clients;
        }
    }
    panic!("all went to one worker: {before:?}");
}

/// What each origin was asked by 64 connections, of which some are used more than others.
fn uneven_load(engine: &Engine) -> BTreeMap<String, usize> {
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let mut clients: Vec<_> = (0..8).map(|_| engine.client()).collect();
            std::thread::spawn(move || {
                let mut counts = BTreeMap::<String, usize>::new();
                // The first ones of each thread most.
                for round in 0..1_600 {
                    let busy = if round % 4 == 0 { 8 } else { 3 };
                    for client in &mut clients[..busy] {
                        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                    }
                    for client in &mut clients[..busy] {
                        *counts.entry(client.response(false).expect("an answer").text()).or_default() += 1;
                    }
                }
                counts
            })
        })
        .collect();
    let mut counts = BTreeMap::<String, usize>::new();
    for thread in threads {
        for (origin, count) in thread.join().expect("a client") {
            *counts.entry(origin).or_default() += count;
        }
    }
    counts
}

/// Origins that answer with their number.
fn named(count: usize) -> Vec<Origin> {
    let one = |number: usize| {
        Origin::answering(move |_| Some(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}").into()))
    };
    (0..count).map(one).collect()
}

fn start(driver: Driver, origins: &[Origin], lines: &str) -> Engine {
    origins.iter().fold(Setup::new(driver).pool_line(lines), |setup, origin| setup.origin(origin)).start()
}

/// Requests at an origin: now, and the most there ever were.
#[derive(Debug, Default)]
struct Busy {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Busy {
    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

fn slow(time: Duration) -> (Origin, Arc<Busy>) {
    let busy = Arc::new(Busy::default());
    let seen = busy.clone();
    let origin = Origin::answering(move |_| {
        let now = seen.now.fetch_add(1, Ordering::SeqCst) + 1;
        seen.most.fetch_max(now, Ordering::SeqCst);
        std::thread::sleep(time);
        seen.now.fetch_sub(1, Ordering::SeqCst);
        Some(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec())
    });
    (origin, busy)
}
