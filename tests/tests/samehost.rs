//! The same-host shortcut: that what goes by it comes as it was sent, what does not go by it, and that nothing of it is left behind.
//!
//! Where the programs are not granted each test says so and proves nothing.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use harness::{Client, Driver, Engine, Origin, PATIENCE, Setup, Sharing, Tool, on_each_driver, pattern, run, until};

/// An engine whose pool takes the shortcut; `None` where there is none to take.
fn near(driver: Driver, origin: SocketAddr) -> Option<Engine> {
    let engine = Setup::new(driver).to(&origin.to_string()).pool_line("same_host = \"auto\"").start();
    let without = engine.status()["goes_without"].to_string();
    if without.contains("same-host shortcut") {
        println!("SKIPPED: {without}");
        return None;
    }
    assert!(engine.err().contains("requests of `origins` take the shortcut"), "{}", engine.err());
    Some(engine)
}

/// What the programs have counted, their trial included.
#[track_caller]
fn seen(engine: &Engine, what: &str) -> u64 {
    let page = engine.page("/metrics").text();
    let name = format!("penstock_same_host_total{{what=\"{what}\"}} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

fn set(engine: &Engine, pool: &str, to: &str) -> u16 {
    let content = format!("{{\"name\": \"{pool}\", \"to\": \"{to}\"}}");
    let request = format!(
        "POST /set/same-host HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{content}",
        engine.admin,
        content.len()
    );
    Client::connect(engine.admin).ask(request).status()
}

fn post(content: &[u8]) -> Vec<u8> {
    let mut request =
        format!("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", content.len()).into_bytes();
    request.extend_from_slice(content);
    request
}

fn gets(client: &mut Client, length: usize) {
    let response = client.get(&format!("/bytes/{length}"));
    assert_eq!(response.status(), 200);
    assert!(response.body == pattern(length as u64, length), "{length} bytes came as {}", response.body.len());
}

on_each_driver! {
    /// Answers and requests of every size, over connections that are used again.
    fn content_comes_as_it_was_sent(driver) {
        let origin = Origin::standard();
        let Some(engine) = near(driver, origin.address) else { return };
        let (messages, joined) = (seen(&engine, "messages"), seen(&engine, "joined"));
        let mut client = engine.client();
        for length in [0, 1, 100, 4_000, 16_000, 40_000, 65_000, 70_000, 300_000, 2_000_000, 100, 100] {
            gets(&mut client, length);
        }
        for length in [0, 1, 5_000, 20_000, 200_000, 700_000, 10] {
            let content = pattern(7, length);
            let response = client.ask(post(&content));
            assert!(response.body == content, "{length} bytes came back as {}", response.body.len());
        }
        for length in [10, 3_000, 90_000] {
            let response = client.get(&format!("/chunked/{length}"));
            assert!(response.body == pattern(length as u64, length), "{length} bytes in chunks");
        }
        assert!(seen(&engine, "messages") > messages + 10, "nothing went by the shortcut");
        assert!(seen(&engine, "joined") > joined);
        assert_eq!(seen(&engine, "refused"), 0);
    }

    /// The end of a connection is the end of its content, and stands behind all of it.
    fn an_end_is_seen_behind_all_bytes(driver) {
        let origin = Origin::standard();
        let Some(engine) = near(driver, origin.address) else { return };
        let messages = seen(&engine, "messages");
        for length in [0, 100, 10_000, 50_000, 100_000, 1_000_000] {
            let mut client = engine.client();
            let response = client.get(&format!("/until-close/{length}"));
            assert!(response.body == pattern(length as u64, length), "{length} bytes came as {}", response.body.len());
        }
        assert!(seen(&engine, "messages") > messages);
    }

    /// A client that reads nothing is waited for by its origin, and not stored for.
    fn a_stalled_receiver_is_waited_for(driver) {
        const LENGTH: usize = 32_000_000;
        let origin = Origin::standard();
        let Some(engine) = near(driver, origin.address) else { return };
        let (bytes, spent) = (seen(&engine, "bytes"), seen(&engine, "spent"));
        let mut client = engine.client();
        client.send(format!("GET /bytes/{LENGTH} HTTP/1.1\r\nHost: test\r\n\r\n"));
        until("its origin goes by TCP", PATIENCE, || seen(&engine, "spent") > spent);
        assert!(seen(&engine, "bytes") - bytes < 70_000);
        let response = client.response(false).unwrap();
        assert!(response.body == pattern(LENGTH as u64, LENGTH), "{} bytes came", response.body.len());
        assert!(seen(&engine, "bytes") - bytes < 70_000);
    }

    /// An origin never has more of a request to read than the shortcut may hold, so one that asks for how much there is hears all of it.
    fn what_is_not_here_as_a_whole_goes_by_tcp(driver) {
        let origin = Origin::standard();
        let Some(engine) = near(driver, origin.address) else { return };
        let mut client = engine.client();
        let before = engine.metrics();
        let near_requests = |earlier: &harness::Metrics| engine.metrics().since(earlier, "same_host_requests_total");
        let content = pattern(1, 1_000_000);
        assert!(client.ask(post(&content)).body == content);
        client.send("POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        assert_eq!(client.response(false).unwrap().text(), "abc");
        client.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 6\r\nExpect: 100-continue\r\n\r\n");
        let heads = || origin.received().iter().map(|bytes| String::from_utf8_lossy(bytes).matches("POST /echo").count()).sum::<usize>();
        until("its head is there", PATIENCE, || heads() == 3);
        client.send("abcdef");
        assert_eq!(client.response(false).unwrap().text(), "abcdef");
        assert_eq!(near_requests(&before), 0);
        gets(&mut client, 100);
        assert_eq!(near_requests(&before), 1);
    }

    /// Large answers go by TCP from the next one on: they gain nothing from the shortcut, and would cost a connection each.
    fn an_endpoint_of_large_answers_is_met_by_tcp(driver) {
        let origin = Origin::standard();
        let Some(engine) = near(driver, origin.address) else { return };
        let mut client = engine.client();
        for _ in 0..20 {
            gets(&mut client, 200_000);
        }
        assert!(origin.accepted() <= 4, "{} connections for 20 exchanges", origin.accepted());
        let before = engine.metrics();
        gets(&mut client, 200_000);
        assert_eq!(engine.metrics().since(&before, "same_host_requests_total"), 0);
        // And come back when they are small again.
        let joined = seen(&engine, "joined");
        (0..100).for_each(|_| gets(&mut client, 100));
        assert!(seen(&engine, "joined") > joined);
    }

    /// Both families, and an origin whose socket has IPv4 mapped into IPv6.
    fn both_families_take_it(driver) {
        let Ok(listener) = TcpListener::bind("[::]:0") else {
            println!("SKIPPED: there is no IPv6");
            return;
        };
        let port = listener.local_addr().unwrap().port();
        let _origin = Origin::on(listener, harness::standard);
        for host in ["[::1]", "127.0.0.1", "127.8.8.8"] {
            let Some(engine) = near(driver, format!("{host}:{port}").parse().unwrap()) else { return };
            let (messages, joined) = (seen(&engine, "messages"), seen(&engine, "joined"));
            let mut client = engine.client();
            (0..5).for_each(|_| gets(&mut client, 1_000));
            // Five requests, each with an answer of one message or more.
            assert!(seen(&engine, "messages") >= messages + 10, "{host}");
            assert_eq!(seen(&engine, "joined"), joined + 1, "{host}");
        }
    }

    fn an_endpoint_that_comes_back_is_met_by_it_again(driver) {
        let origin = Origin::standard();
        let address = origin.address;
        let Some(engine) = near(driver, address) else { return };
        let mut client = engine.client();
        gets(&mut client, 100);
        drop(origin);
        let mut listener = None;
        until("its address is free again", PATIENCE, || {
            listener = TcpListener::bind(address).ok();
            listener.is_some()
        });
        let joined = seen(&engine, "joined");
        let _origin = Origin::on(listener.unwrap(), harness::standard);
        until("it is asked again", PATIENCE, || engine.client().get("/").status() == 200);
        gets(&mut client, 100);
        assert!(seen(&engine, "joined") > joined);
    }

    /// Whatever an operator says meanwhile.
    fn it_is_turned_on_and_off_under_load(driver) {
        let origin = Origin::standard();
        let Some(engine) = near(driver, origin.address) else { return };
        let (over, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let clients: Vec<_> = (0..4)
            .map(|number| {
                let (over, served) = (Arc::clone(&over), Arc::clone(&served));
                let mut client = engine.client();
                std::thread::spawn(move || {
                    while !over.load(Ordering::SeqCst) {
                        gets(&mut client, 10 + 997 * number);
                        let content = pattern(number as u64, 300 + number * 50);
                        assert!(client.ask(post(&content)).body == content);
                        served.fetch_add(2, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        let some_more = || {
            let before = served.load(Ordering::SeqCst);
            until("requests are served", PATIENCE, || served.load(Ordering::SeqCst) >= before + 20);
        };
        for _ in 0..10 {
            assert_eq!(set(&engine, "origins", "off"), 200);
            some_more();
            let before = engine.metrics();
            some_more();
            assert_eq!(engine.metrics().since(&before, "same_host_requests_total"), 0);
            assert_eq!(set(&engine, "origins", "auto"), 200);
            until("they take it again", PATIENCE, || engine.metrics().since(&before, "same_host_requests_total") > 20);
        }
        over.store(true, Ordering::SeqCst);
        for client in clients {
            client.join().expect("no request failed");
        }
        assert_eq!(set(&engine, "origins", "on"), 400);
        assert_eq!(set(&engine, "origin", "off"), 404);
        assert_eq!(engine.status()["goes_without"], serde_json::json!([]));
    }
}

/// What a process has of eBPF: kind and id of each, by its descriptors.
fn held(pid: u32) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        for line in text.lines() {
            for (field, kind) in [("prog_id:", "prog"), ("map_id:", "map"), ("link_id:", "link")] {
                found.extend(line.strip_prefix(field).map(|id| (kind, id.trim().to_owned())));
            }
        }
    }
    found
}

/// However an engine ends.
#[test]
fn nothing_is_left_behind() {
    run(Sharing::Shared, || {
        if xtask::place::program("bpftool").is_none() {
            println!("SKIPPED: there is no bpftool to look with");
            return;
        }
        let is_there =
            |(kind, id): &(&str, String)| Tool::new("bpftool", 20).args([kind, "show", "id", id]).run().code == Some(0);
        for kills in [false, true] {
            let origin = Origin::standard();
            let Some(mut engine) = near(Driver::Epoll, origin.address) else { return };
            let mut client = engine.client();
            gets(&mut client, 100);
            let held = held(engine.pid());
            let kinds = |wanted: &str| held.iter().filter(|(kind, _)| *kind == wanted).count();
            assert!(kinds("prog") >= 2 && kinds("map") >= 4 && kinds("link") >= 1, "{held:?}");
            assert!(held.iter().all(is_there), "{held:?}");
            if kills {
                engine.kill();
            } else {
                engine.terminate();
            }
            engine.wait(PATIENCE);
            for one in &held {
                until("it is gone", PATIENCE, || !is_there(one));
            }
            // The origin's end of the connection is one of TCP again, and over.
            until("the origin has no connection", PATIENCE, || origin.open() == 0);
        }
    });
}

/// A pool that cannot take it says so before anything runs; one that may be turned on later can be.
#[test]
fn it_is_refused_where_it_cannot_be() {
    run(Sharing::Shared, || {
        let origin = Origin::standard();
        let engine = Setup::new(Driver::Epoll).origin(&origin).pool_line("proxy_protocol = \"v1\"").start();
        assert_eq!(set(&engine, "origins", "auto"), 409);
        drop(engine);
        let engine = Setup::new(Driver::Epoll)
            .origin(&origin)
            .engine_line("same_host_cgroup = \"/nowhere\"")
            .pool_line("same_host = \"auto\"")
            .start();
        assert!(engine.err().contains("goes without: same-host shortcut (/nowhere: "), "{}", engine.err());
        assert!(engine.status()["goes_without"].to_string().contains("/nowhere"));
        gets(&mut engine.client(), 1_000);
        drop(engine);
        let engine = Setup::new(Driver::Epoll).origin(&origin).start();
        let before = engine.metrics();
        gets(&mut engine.client(), 1_000);
        assert_eq!(engine.metrics().since(&before, "same_host_requests_total"), 0);
    });
}

/// CAP_BPF and CAP_NET_ADMIN are all that the shortcut needs; without them requests go by TCP, and start line, `status` and `doctor` say so and why.
#[test]
fn two_capabilities_are_enough_and_without_them_it_is_said() {
    run(Sharing::Shared, || {
        let Some(setpriv) = xtask::place::program("setpriv").map(|path| path.display().to_string()) else {
            println!("SKIPPED: giving capabilities away needs setpriv");
            return;
        };
        let with = |set: &str| vec![setpriv.clone(), format!("--inh-caps={set}"), format!("--bounding-set={set}")];
        let line = |tool: Tool| {
            let text = tool.run().text();
            text.lines().find(|line| line.contains(" bpf same host ")).expect("a line of its own").to_owned()
        };
        let doctor = |set: &str| {
            let words = with(set);
            line(Tool::new(&words[0], 30).args(&words[1..]).args([harness::binary().as_os_str(), "doctor".as_ref()]))
        };
        let granted = line(Tool::new(harness::binary(), 30).args(["doctor"]));
        if !granted.starts_with("ok ") {
            println!("SKIPPED: the shortcut is not granted here: {granted}");
            return;
        }
        let origin = Origin::standard();
        let setup = Setup::new(Driver::Epoll).origin(&origin).pool_line("same_host = \"auto\"");

        const TWO: &str = "-all,+bpf,+net_admin";
        assert!(doctor(TWO).starts_with("ok "), "{}", doctor(TWO));
        let engine = setup.clone().launched_by(with(TWO)).start();
        assert!(engine.err().contains("requests of `origins` take the shortcut"), "{}", engine.err());
        let joined = seen(&engine, "joined");
        let mut client = engine.client();
        gets(&mut client, 100);
        gets(&mut client, 100);
        assert!(seen(&engine, "joined") > joined, "nothing went by the shortcut");
        assert_eq!(engine.metrics().sum("same_host_requests_total"), 2);

        for set in ["-all", "-all,+bpf", "-all,+net_admin"] {
            assert!(
                !doctor(set).starts_with("ok ") && doctor(set).contains("CAP_BPF and CAP_NET_ADMIN"),
                "{}",
                doctor(set)
            );
            let engine = setup.clone().launched_by(with(set)).start();
            let said = engine.err();
            assert!(
                said.contains("goes without: same-host shortcut (needs CAP_BPF and CAP_NET_ADMIN"),
                "{set}: {said}"
            );
            let without = engine.status()["goes_without"].to_string();
            assert!(without.contains("same-host shortcut") && without.contains("CAP_BPF"), "{set}: {without}");
            gets(&mut engine.client(), 100);
            assert_eq!(engine.metrics().sum("same_host_requests_total"), 0);
        }
    });
}
