//! What a request costs, by the engine's own counters: no allocation, one send to each side, few system calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use harness::{Client, Driver, Engine, Metrics, Origin, Setup, Tool, answer, on_each_driver, pattern};

const REQUESTS: usize = 10_000;

on_each_driver! {
    /// 10,000 requests on one connection allocate nothing.
    alone fn no_allocations_on_one_connection(driver) {
        let (engine, _origin) = start(driver, 100);
        load(&engine, 1, 2_000);
        let allocations = allocations(driver, &engine, 1, "one connection, 100 B");
        assert!(allocations < 10, "{allocations} allocations for {REQUESTS} requests");
    }

    /// The same on 64.
    alone fn no_allocations_on_64_connections(driver) {
        let (engine, _origin) = start(driver, 100);
        load(&engine, 64, 5_000);
        let allocations = allocations(driver, &engine, 64, "64 connections, 100 B");
        assert!(allocations < 10, "{allocations} allocations for {REQUESTS} requests");
    }

    /// The same with a class, limits of requests, and a limit of the pool.
    alone fn no_allocations_with_limits_and_classes(driver) {
        let response = answer(pattern(1, 100));
        let origin = Origin::answering(move |_| Some(response.clone()));
        let engine = Setup::new(driver)
            .cores("0")
            .origin(&origin)
            .pool_line("concurrency = 1000")
            .route_line("class = \"interactive\"")
            .route_line("limit = [{ key = \"client-address\", rate = \"1000000/s\" }, { key = \"route\", rate = \"1000000/s\" }]")
            .more("[classes.interactive]\nweight = 8")
            .start();
        load(&engine, 64, 5_000);
        let allocations = allocations(driver, &engine, 64, "64 connections, limited");
        assert!(allocations < 10, "{allocations} allocations for {REQUESTS} requests");
    }

    /// The same on a route that chooses among pools.
    alone fn no_allocations_with_candidates(driver) {
        let response = answer(pattern(1, 100));
        let origins = [(); 2].map(|()| {
            let response = response.clone();
            Origin::answering(move |_| Some(response.clone()))
        });
        let pool = |name: &str, origin: &Origin| format!("[[pool]]\nname = \"{name}\"\nendpoints = [\"{}\"]\n", origin.address);
        let engine = Setup::new(driver)
            .cores("0")
            .origin(&origins[0])
            .route_line("path = \"/elsewhere\"")
            .more(&(pool("near", &origins[0]) + &pool("far", &origins[1])))
            .more("[[route]]\ncandidates = [\"near\", \"far cost=2\"]\nadaptive = { explore = \"20%\" }")
            .start();
        load(&engine, 64, 5_000);
        let allocations = allocations(driver, &engine, 64, "64 connections, candidates");
        assert!(allocations < 10, "{allocations} allocations for {REQUESTS} requests");
        assert!(engine.metrics().sum("route_choices_total") > REQUESTS as u64);
    }

    /// The same with responses that are received in other ways, and are sent in several pieces.
    alone fn no_allocations_whatever_the_size(driver) {
        let mut wrong = Vec::new();
        for size in [1 << 10, 16 << 10, 64 << 10, 256 << 10] {
            let (engine, _origin) = start(driver, size);
            load(&engine, 16, 2_000);
            let allocations = allocations(driver, &engine, 16, &format!("16 connections, {size} B"));
            if allocations >= 10 {
                wrong.push(format!("{allocations} for {REQUESTS} responses of {size} B"));
            }
        }
        assert!(wrong.is_empty(), "allocations: {wrong:?}");
    }

    /// Nor do requests of HTTP/2 on 64 streams, from the client or towards the endpoint: what 40,000 allocate more than 10,000 is theirs, and what both do the
    /// connections'.
    alone fn no_allocations_on_streams(driver) {
        let (inner, _origin) = start(driver, 100);
        let outer = Setup::new(driver).cores("0").to(&inner.address.to_string()).pool_line("protocol = \"h2\"").start();
        for (engine, what) in [(&inner, "HTTP/2 to HTTP/1"), (&outer, "HTTP/2 to HTTP/2")] {
            let url = format!("http://{}/", engine.address);
            let load = |requests: usize| {
                let before = engine.metrics();
                let said = Tool::new("h2load", 60).args(["-n", &requests.to_string(), "-c", "4", "-m", "16", &url]).run().text();
                assert!(said.contains(&format!("{requests} succeeded, 0 failed")), "{said}");
                engine.metrics().since(&before, "allocations_total")
            };
            load(REQUESTS);
            let most = (0..3).map(|_| load(4 * REQUESTS).saturating_sub(load(REQUESTS))).min().expect("three rounds");
            println!("{what}: {most} allocations for {} requests", 3 * REQUESTS);
            assert!(most < 30, "{what}: {most} allocations for {} requests", 3 * REQUESTS);
        }
    }

    /// A call of gRPC-Web, in binary or in text, allocates its bridge, and otherwise what a call of gRPC does: trailers, which are kept until content has gone.
    alone fn one_allocation_for_a_bridge(driver) {
        const CALLS: usize = 2_000;
        let call = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n\0\0\0\0\x01x\r\n0\r\ngrpc-status: 0\r\n\r\n";
        let origin = Origin::answering(move |_| Some(call.into()));
        let inner = Setup::new(driver).cores("0").origin(&origin).start();
        let outer = Setup::new(driver)
            .cores("0")
            .to(&inner.address.to_string())
            .pool_line("protocol = \"h2\"")
            .route_line("grpc_web = true")
            .start();
        let cost = |coding: &str| {
            let content = if coding.contains("text") { "AAAAAAA=" } else { "\0\0\0\0\0" };
            let length = content.len();
            let request = format!("POST /test.Calls/Unary HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nContent-Type: {coding}\r\nContent-Length: {length}\r\n\r\n{content}");
            run_with(open(&outer, 8), 500, &request, |clients| {
                let before = outer.metrics();
                let clients = run_with(clients, CALLS, &request, |clients| clients);
                let after = outer.metrics();
                drop(clients);
                let allocations = after.since(&before, "allocations_total");
                println!("{}, {coding}: {:.2} allocations a call", driver.name(), allocations as f64 / CALLS as f64);
                allocations
            })
        };
        let plain = cost("application/grpc");
        for coding in ["application/grpc-web+proto", "application/grpc-web-text+proto"] {
            let bridged = cost(coding).saturating_sub(plain);
            // A text request has a second bridge, for its content.
            let bridges = if coding.contains("text") { 2 } else { 1 };
            assert!(bridged < (bridges * CALLS + 10) as u64, "{coding}: {bridged} allocations more for {CALLS} calls");
        }
    }

    /// Nor do hashing, a sticky cookie (set with each answer, or taken off each request) and limits.
    alone fn no_allocations_with_affinity(driver) {
        let hashed = "hash = \"path\"\nlimits = { requests = 1000, connections = 1000 }\nbalance";
        let token = |engine: &Engine| {
            let answer = engine.client().get("/");
            answer.field("set-cookie").and_then(|set| set.split(';').next()).map(str::to_owned)
        };
        for lines in [
            &format!("{hashed} = \"ring\""),
            &format!("{hashed} = \"maglev\""),
            "sticky = { header = \"host\" }",
            "sticky = { cookie = \"at\", ttl = \"1h\" }",
        ] {
            let (engine, _origin) = start_with(driver, 100, lines);
            let cookies = [None, token(&engine)];
            for cookie in cookies.iter().take(1 + usize::from(cookies[1].is_some())) {
                let fields = cookie.as_ref().map_or_else(String::new, |cookie| format!("Cookie: a=1; {cookie}\r\n"));
                let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
                run_with(open(&engine, 8), 2_000, &request, |clients| {
                    let before = engine.metrics();
                    let clients = run_with(clients, REQUESTS, &request, |clients| clients);
                    let after = engine.metrics();
                    drop(clients);
                    report(driver, lines, &before, &after);
                    let allocations = after.since(&before, "allocations_total");
                    assert!(allocations < 10, "{lines}: {allocations} allocations for {REQUESTS} requests");
                });
            }
        }
    }

    /// One send to the origin and one to the client, whatever the response's size up to 64 KiB.
    alone fn one_send_to_each_side(driver) {
        for size in [100, 16 << 10, 64 << 10] {
            let (engine, _origin) = start(driver, size);
            load(&engine, 16, 500);
            let (before, after) = measured(&engine, 16);
            report(driver, &format!("16 connections, {size} B"), &before, &after);
            let sends = after.since(&before, "ring_sends_total") as f64 / REQUESTS as f64;
            assert!((1.99..=2.01).contains(&sends), "{sends} sends a request with responses of {size} B");
        }
    }

    /// At 64 connections a system call serves several requests. How many is a matter of who else is on the CPUs: the best of
    /// three rounds is what the engine does when it is given work.
    alone fn few_system_calls(driver) {
        let (engine, _origin) = start(driver, 100);
        load(&engine, 64, 5_000);
        let mut fewest = f64::MAX;
        for round in 1..=3 {
            let (before, after) = measured(&engine, 64);
            report(driver, &format!("64 connections, round {round}"), &before, &after);
            fewest = fewest.min(after.since(&before, "ring_enters_total") as f64 / REQUESTS as f64);
            let connects = after.since(&before, "upstream_connects_total");
            assert!(connects < 100, "{connects} new upstream connections for {REQUESTS} requests");
            if driver == Driver::Uring {
                let calls = after.since(&before, "ring_calls_total") as f64 / REQUESTS as f64;
                assert!(calls <= 0.01, "{calls} other system calls a request");
            }
        }
        if driver == Driver::Uring {
            assert!(fewest <= 0.3, "{fewest} io_uring_enter a request");
        }
    }
}

fn start(driver: Driver, size: usize) -> (Engine, Origin) {
    start_with(driver, size, "")
}

fn start_with(driver: Driver, size: usize, pool_lines: &str) -> (Engine, Origin) {
    let response = answer(pattern(1, size));
    let origin = Origin::answering(move |_| Some(response.clone()));
    let engine = Setup::new(driver).cores("0").origin(&origin).pool_line(pool_lines).start();
    (engine, origin)
}

/// Counters before and after [`REQUESTS`] over so many connections, which are open before and stay open.
fn measured(engine: &Engine, connections: usize) -> (Metrics, Metrics) {
    let clients = open(engine, connections);
    run(clients, REQUESTS / 10, |clients| {
        let before = engine.metrics();
        let clients = run(clients, REQUESTS, |clients| clients);
        let after = engine.metrics();
        assert_eq!(after.since(&before, "requests_total"), REQUESTS as u64);
        drop(clients);
        (before, after)
    })
}

/// Allocations for [`REQUESTS`] in steady state: of at most three rounds the first without any to speak of, since a peak that
/// nothing has reached before (who else is on the CPUs decides when) is paid for once.
fn allocations(driver: Driver, engine: &Engine, connections: usize, what: &str) -> u64 {
    let mut fewest = u64::MAX;
    for _ in 0..3 {
        let (before, after) = measured(engine, connections);
        report(driver, what, &before, &after);
        fewest = fewest.min(after.since(&before, "allocations_total"));
        if fewest < 10 {
            break;
        }
    }
    fewest
}

fn load(engine: &Engine, connections: usize, requests: usize) {
    run(open(engine, connections), requests, drop);
}

fn open(engine: &Engine, connections: usize) -> Vec<Client> {
    (0..connections).map(|_| engine.client()).collect()
}

/// Exactly so many requests, by a few threads that keep every one of their connections busy.
fn run<T>(clients: Vec<Client>, requests: usize, then: impl FnOnce(Vec<Client>) -> T) -> T {
    run_with(clients, requests, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", then)
}

fn run_with<T>(clients: Vec<Client>, requests: usize, request: &str, then: impl FnOnce(Vec<Client>) -> T) -> T {
    let asked = Arc::new(AtomicUsize::new(0));
    let mut parts: Vec<Vec<Client>> = (0..4).map(|_| Vec::new()).collect();
    for (number, client) in clients.into_iter().enumerate() {
        parts[number % 4].push(client);
    }
    let threads: Vec<_> = parts
        .into_iter()
        .filter(|part| !part.is_empty())
        .map(|mut part| {
            let (asked, request) = (asked.clone(), request.to_owned());
            std::thread::spawn(move || {
                loop {
                    let mut busy = 0;
                    for client in &mut part {
                        if asked.fetch_add(1, Ordering::SeqCst) >= requests {
                            break;
                        }
                        client.send(&request);
                        busy += 1;
                    }
                    for client in &mut part[..busy] {
                        assert_eq!(client.response(false).expect("a response").status(), 200);
                    }
                    if busy < part.len() {
                        return part;
                    }
                }
            })
        })
        .collect();
    then(threads.into_iter().flat_map(|thread| thread.join().expect("a client without complaint")).collect())
}

fn report(driver: Driver, what: &str, before: &Metrics, after: &Metrics) {
    let each = |name: &str| after.since(before, name) as f64 / REQUESTS as f64;
    println!(
        "{}, {what}: {:.3} enters, {:.3} sends, {:.3} receives, {:.3} other calls, {:.4} allocations a request",
        driver.name(),
        each("ring_enters_total"),
        each("ring_sends_total"),
        each("ring_receives_total"),
        each("ring_calls_total"),
        each("allocations_total"),
    );
}
