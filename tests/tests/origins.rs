//! Origins that die: in the middle of a response, and under load with others alive.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use harness::{
    Client, Cut, Driver, End, Folder, Origin, PATIENCE, Setup, answer, checksum, on_each_driver, pattern, until,
};

on_each_driver! {
    /// The client sees that it is incomplete, whether it had a length or chunks.
    fn killed_in_the_middle_of_a_response(driver) {
        let folder = Folder::new();
        for size in [200_000, 30_000_000] {
            let mut victim = Process::start(&folder, "victim");
            let engine = Setup::new(driver).to(&victim.address).start();
            let mut client = engine.client();
            client.send(request("GET", 1, size, b""));
            while client.unread.len() < 50_000 {
                assert!(client.fill().expect("the beginning") > 0);
            }
            victim.kill();
            match client.response(false) {
                // It had gone into the kernel as a whole before.
                Ok(response) => assert!(size < 1_000_000 && response.body == pattern(1, size), "a fake end"),
                Err(Cut::Closed(had) | Cut::Reset(had)) => {
                    assert!(had < size);
                    assert_ne!(client.rest().1, End::Silent);
                }
                Err(cut) => panic!("a hung client: {cut}"),
            }
            drop(client);
            engine.until_idle();
        }
    }

    /// Three origins, one SIGKILLed while 16 clients ask: nobody hangs, nothing is corrupted or done twice, and only what had
    /// reached the dead one and may not be repeated is lost.
    alone fn killed_under_load(driver) {
        killed_under_load_by(driver);
    }

    fn an_origin_that_comes_back_is_used_again(driver) {
        let address = harness::free_address();
        let engine = Setup::new(driver)
            .to(&address.to_string())
            .pool_line("breaker.failures = 2\nbreaker.open_for = \"300ms\"\nbreaker.wait = \"0s\"")
            .start();
        let mut client = engine.client();
        for _ in 0..6 {
            let status = client.get("/").status();
            assert!([502, 503].contains(&status), "{status}");
        }
        assert_eq!(client.get("/").status(), 503, "the breaker is open");
        let listener = std::net::TcpListener::bind(address).expect("a free address");
        let _origin = Origin::on(listener, harness::standard);
        until("the origin is used again", PATIENCE, || client.get("/").status() == 200);
    }

    /// An idle connection that the origin has closed in the meantime is not the client's problem.
    fn stale_connections_are_not_noticed_by_clients(driver) {
        let origin = Origin::start(|peer| {
            // Two requests, then closed without a word.
            for _ in 0..2 {
                let Some(request) = peer.request() else { return };
                peer.send(answer(request.target()));
            }
        });
        let engine = Setup::new(driver).origin(&origin).start();
        let mut client = engine.client();
        for number in 0..200 {
            let path = format!("/{number}");
            let response = client.get(&path);
            assert_eq!((response.status(), response.text()), (200, path));
        }
        // Nor with content: a request that may not be repeated is not sent on a connection that is known to be closed.
        for number in 0..50 {
            if number % 2 == 0 {
                until("the origin has closed its connection", PATIENCE, || origin.open() == 0);
            }
            let request = format!("POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
            assert_eq!(client.ask(request).status(), 200, "POST {number}");
        }
    }

    /// A GET that met a reset before an answer is tried elsewhere; a POST that may have been done is not.
    fn what_may_be_repeated_is_tried_elsewhere(driver) {
        let bad = Origin::start(|peer| {
            peer.request();
            peer.reset();
        });
        let good = Origin::standard();
        let engine = Setup::new(driver)
            .origin(&bad)
            .origin(&good)
            .pool_line("balance = \"round-robin\"\nbreaker.failures = 0\nretry.budget = \"100%\"")
            .start();
        let mut client = engine.client();
        for number in 0..20 {
            assert_eq!(client.get("/").status(), 200, "GET {number}");
        }
        assert!(bad.accepted() >= 5, "the bad origin was asked {} times", bad.accepted());
        let (mut lost, before) = (0, bad.received().len());
        for _ in 0..20 {
            let status = client.ask("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").status();
            assert!([200, 502].contains(&status), "{status}");
            lost += usize::from(status == 502);
        }
        assert_eq!(lost, bad.received().len() - before, "each POST that the bad origin got is lost, and no other");
        assert!(lost >= 5, "{lost}");
    }

    fn a_retry_budget_bounds_what_is_repeated(driver) {
        let bad = Origin::start(|peer| {
            peer.request();
            peer.reset();
        });
        let engine = Setup::new(driver)
            .origin(&bad)
            .pool_line("breaker.failures = 0\nretry.tries = 4\nretry.budget = \"0%\"")
            .start();
        let mut client = engine.client();
        let begun = Instant::now();
        for _ in 0..200 {
            assert_eq!(client.get("/").status(), 502);
        }
        let seconds = begun.elapsed().as_secs() as usize + 1;
        // Three a second are always granted, and the window is ten seconds.
        let granted = 3 * (seconds + 10);
        assert!(bad.accepted() <= 200 + granted, "{} tries of 200 requests", bad.accepted());
        assert!(engine.metrics().sum("retries_refused_total") > 0);
    }
}

fn killed_under_load_by(driver: Driver) {
    const CLIENTS: u64 = 16;
    let folder = Folder::new();
    let names = ["a", "b", "c"];
    let mut origins = names.map(|name| Process::start(&folder, name));
    let setup = origins.iter().fold(Setup::new(driver), |setup, origin| setup.to(&origin.address));
    let engine = setup.start();
    let next = Arc::new(AtomicU64::new(1));
    let stop = Arc::new(AtomicBool::new(false));
    let killed = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (next, stop, killed, served) = (next.clone(), stop.clone(), killed.clone(), served.clone());
            let address = engine.address;
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                let (mut gets_lost, mut posts_lost) = (Vec::new(), Vec::new());
                while !stop.load(Ordering::SeqCst) {
                    let id = next.fetch_add(1, Ordering::SeqCst);
                    let (method, body) =
                        if number % 2 == 0 { ("GET", Vec::new()) } else { ("POST", pattern(id + 1, 300)) };
                    let size = [100, 5_000, 70_000][id as usize % 3];
                    client.send(request(method, id, size, &body));
                    let why = match client.response(false) {
                        Ok(response) if response.status() == 200 => {
                            assert_eq!(
                                response.field("x-id"),
                                Some(id.to_string().as_str()),
                                "another request's answer"
                            );
                            let sum = format!("{:x}", checksum(&response.body) ^ checksum(&body));
                            assert_eq!(response.field("x-sum"), Some(sum.as_str()), "a corrupted answer");
                            assert!(response.body == pattern(id, size), "a corrupted answer");
                            served.fetch_add(1, Ordering::SeqCst);
                            continue;
                        }
                        Ok(response) => {
                            assert!([502, 503, 504].contains(&response.status()), "{}", response.start);
                            format!("{} {}", response.start, response.text())
                        }
                        Err(Cut::Silent(had)) => panic!("{method} {id} hangs after {had} bytes"),
                        Err(cut) => {
                            client = Client::connect(address);
                            if cut.had() > 0 {
                                // Its bytes had gone downstream already.
                                continue;
                            }
                            cut.to_string()
                        }
                    };
                    assert!(killed.load(Ordering::SeqCst), "{method} {id} failed before anything was killed: {why}");
                    if method == "GET" { gets_lost.push((id, why)) } else { posts_lost.push((id, why)) }
                }
                (gets_lost, posts_lost)
            })
        })
        .collect();
    until("load is on", PATIENCE, || served.load(Ordering::SeqCst) > 500);
    let before = served.load(Ordering::SeqCst);
    killed.store(true, Ordering::SeqCst);
    origins[1].kill();
    until("load goes on", PATIENCE, || served.load(Ordering::SeqCst) > before + 1_500);
    stop.store(true, Ordering::SeqCst);
    let (mut gets_lost, mut posts_lost) = (Vec::new(), Vec::new());
    for client in clients {
        let (gets, posts) = client.join().expect("a client without complaint");
        gets_lost.extend(gets);
        posts_lost.extend(posts);
    }
    assert!(gets_lost.is_empty(), "lost though they may be repeated: {gets_lost:?}");
    let journals = names.map(|name| std::fs::read_to_string(folder.join(name)).expect("a journal"));
    let mut done: HashMap<u64, usize> = HashMap::new();
    for line in journals.iter().flat_map(|journal| journal.lines()).filter(|line| line.starts_with("POST")) {
        *done.entry(line[5..].parse().expect("an id")).or_default() += 1;
    }
    let twice: Vec<_> = done.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "done twice: {twice:?}");
    // One POST for each client that sends them was at the dead origin, at most.
    assert!(posts_lost.len() as u64 <= CLIENTS / 2, "lost: {posts_lost:?}");
    println!(
        "{}: {} served, {} POSTs lost at the dead origin",
        driver.name(),
        served.load(Ordering::SeqCst),
        posts_lost.len()
    );
    engine.until_idle();
}

fn request(method: &str, id: u64, size: usize, body: &[u8]) -> Vec<u8> {
    let mut request = format!("{method} /made/{size} HTTP/1.1\r\nHost: a\r\nX-Id: {id}\r\n").into_bytes();
    if method == "POST" {
        request.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(body);
    request
}

/// An origin in a process of its own. It ends with its standard input, so not even a killed test leaves it behind.
struct Process {
    child: Child,
    address: String,
}

impl Process {
    fn start(folder: &Folder, journal: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_test-origin"))
            .arg(folder.join(journal))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("our own origin starts");
        let mut address = String::new();
        BufReader::new(child.stdout.take().expect("it is piped"))
            .read_line(&mut address)
            .expect("it tells its address");
        Self { child, address: address.trim().to_owned() }
    }

    /// SIGKILL, by its own process id.
    fn kill(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
