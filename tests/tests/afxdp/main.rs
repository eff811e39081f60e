//! Issue "Kernel fast paths", 6: HTTP/3 and flows of datagrams past the kernel (AF_XDP), over a cable between two network namespaces.

mod beside;

use std::net::SocketAddr;
use std::time::Duration;

use harness::{
    Authority, Caller, Driver, Echo, Engine, Folder, H3Door, Kind, Net, Origin, PATIENCE, RawUdp, Setup, Tool,
    on_each_driver, pattern, quic, until,
};

const PORT: u16 = 8_443;

fn at(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), PORT)
}

fn setup(driver: Driver, origin: &Origin, mode: &str) -> Setup {
    by_afxdp(driver, mode).origin(origin)
}

fn by_afxdp(driver: Driver, mode: &str) -> Setup {
    let line = format!("af_xdp = {{ interface = \"{}\", mode = \"{mode}\" }}", Net::INTERFACE);
    Setup::new(driver).engine_line(&line)
}

/// A door of flows to an origin, `more` lines of its listener; `None` where AF_XDP is not granted.
fn flows(driver: Driver, mode: &str, address: &str, origin: &Echo, more: &str) -> Option<Engine> {
    let setup = by_afxdp(driver, mode).udp().at(at(address)).to(&origin.address.to_string()).listen_line(more);
    Some(setup.start()).filter(stands)
}

/// What came past the kernel and went so, and what of it went by the kernel all the same.
fn ways(engine: &Engine) -> (u64, u64, u64) {
    let metrics = engine.metrics();
    let [received, sent, by_kernel] =
        ["received", "sent", "by_kernel"].map(|what| metrics.sum(&format!("afxdp_{what}_total")));
    (received, sent, by_kernel)
}

/// Whether it stands; says so where it is not granted.
fn stands(engine: &Engine) -> bool {
    let status = engine.status();
    if status["af_xdp"].as_array().is_some_and(|rows| !rows.is_empty()) {
        return true;
    }
    let without = status["goes_without"].to_string();
    assert!(without.contains("AF_XDP"), "it is said why: {without}");
    println!("SKIPPED: {without}");
    false
}

/// Datagrams that the kernel's own UDP has given to sockets, and sent, in this namespace.
fn by_kernel(v6: bool) -> (u64, u64) {
    let (file, received, sent) = match v6 {
        false => ("snmp", "InDatagrams", "OutDatagrams"),
        true => ("snmp6", "Udp6InDatagrams", "Udp6OutDatagrams"),
    };
    let text = std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).expect("the kernel tells");
    let count = |name: &str| -> u64 {
        if v6 {
            let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
            return line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).expect("it is counted");
        }
        let mut rows = text.lines().filter(|line| line.starts_with("Udp:")).map(|line| line.split_whitespace());
        let (names, mut values) = (rows.next().expect("names"), rows.next().expect("values"));
        let place = names.clone().position(|one| one == name).expect("it is counted");
        values.nth(place).and_then(|value| value.parse().ok()).expect("a number")
    };
    (count(received), count(sent))
}

/// What became of packets, as the program counts.
fn packets(engine: &Engine, outcome: &str) -> u64 {
    let page = engine.page("/metrics").text();
    let label = format!("penstock_afxdp_packets_total{{outcome=\"{outcome}\"}}");
    page.lines().find_map(|line| line.strip_prefix(&label)?.trim().parse().ok()).unwrap_or(0)
}

/// Pages small and large, both ways, by libcurl; none of it by the kernel's UDP.
fn transfers(driver: Driver, mode: &str, address: &str) {
    let Some(net) = Net::enter() else { return };
    let origin = Origin::standard();
    let door = H3Door::of(setup(driver, &origin, mode).at(at(address)), "");
    if !stands(&door.engine) {
        return;
    }
    let is_v6 = address.contains(':');
    let before = by_kernel(is_v6);
    net.outside(|| door.curl("transfers", &[]));
    let (after, metrics) = (by_kernel(is_v6), door.engine.metrics());
    assert_eq!((metrics.sum("h3_connections_total"), metrics.sum("h3_faults_total")), (1, 0));
    assert_eq!(metrics.sum("requests_total"), 210);
    let (received, sent) = (metrics.sum("afxdp_received_total"), metrics.sum("afxdp_sent_total"));
    assert!(received > 3_000 && sent > 6_000, "{received} datagrams came past the kernel, {sent} went");
    assert_eq!(metrics.sum("afxdp_flawed_total"), 0);
    assert_eq!(packets(&door.engine, "taken"), received + metrics.sum("afxdp_lost_total"));
    if mode == "native" {
        assert_eq!(after.0 - before.0, 0, "datagrams that the kernel has received");
    }
    // Where a path is tried with more than the interface's MTU, the kernel refuses it.
    let by_socket = metrics.sum("afxdp_by_kernel_total");
    assert!(by_socket < 10 && after.1 - before.1 <= by_socket, "{by_socket} sends, {before:?} {after:?}");
    door.engine.until_idle();
}

/// Flows of two workers with a queue each, and where they go; `None` where that is not granted.
fn two_workers(driver: Driver) -> Option<(Net, Echo, Engine)> {
    let net = Net::with_queues(2)?;
    let origin = Echo::start();
    let setup = by_afxdp(driver, "native").cores("0-1").udp().at(at(Net::V4)).to(&origin.address.to_string());
    let engine = setup.start();
    stands(&engine).then_some((net, origin, engine))
}

on_each_driver! {
    fn transfers_native(driver) {
        transfers(driver, "native", Net::V4);
    }

    fn transfers_generic(driver) {
        transfers(driver, "generic", Net::V4);
    }

    fn transfers_over_ipv6(driver) {
        transfers(driver, "native", Net::V6);
    }

    fn flows_native(driver) {
        many_flows(driver, "native", Net::V4);
    }

    fn flows_generic(driver) {
        many_flows(driver, "generic", Net::V4);
    }

    fn flows_over_ipv6(driver) {
        many_flows(driver, "native", Net::V6);
    }

    /// Each queue's worker has flows of its own, and who asks hears his own replies.
    fn flows_of_two_workers(driver) {
        let Some((net, _origin, engine)) = two_workers(driver) else { return };
        net.outside(|| ask_all(at(Net::V4), 60, 20));
        let metrics = engine.metrics();
        assert_eq!((metrics.sum("udp_flows_total"), metrics.sum("datagrams_dropped_total")), (60, 0));
        assert_eq!(ways(&engine), (1_200, 1_200, 0));
        let busy = ["0", "1"].map(|worker| metrics.sum(&format!("udp_flows_total{{worker=\"{worker}\"}}")));
        assert!(busy.iter().all(|flows| *flows > 0), "both have some: {busy:?}");
    }

    /// What comes by the kernel comes to the worker that the kernel chooses, and is brought to the one that has the flow: fragments, and after a drain has begun all of it.
    fn flows_of_two_workers_by_both_ways(driver) {
        let Some((net, origin, mut engine)) = two_workers(driver) else { return };
        let clients: Vec<Caller> = net.outside(|| (0..40).map(|_| Caller::new(at(Net::V4))).collect());
        for (number, client) in (0..).zip(&clients) {
            for length in [100, 9_000, 1_400, 0, 30_000] {
                let said = pattern(number, length);
                assert!(client.ask(&said) == said, "{length} bytes of {number}");
            }
        }
        let metrics = engine.metrics();
        assert_eq!((metrics.sum("udp_flows_total"), metrics.sum("datagrams_dropped_total")), (40, 0));
        let passed_on = metrics.sum("quic_passed_on_total");
        assert!((8..=72).contains(&passed_on), "of 80 datagrams half come to the wrong one: {passed_on}");
        assert_eq!(metrics.sum("quic_passed_on_lost_total"), 0);

        engine.terminate();
        until("the interface is free", PATIENCE, || !net.interface().contains("prog/xdp"));
        let heard = origin.heard();
        clients.iter().for_each(|client| assert_eq!(client.ask(b"and on"), b"and on"));
        assert_eq!(origin.heard(), heard + 40);
        drop(clients);
        assert!(engine.wait(PATIENCE).success());
    }

    /// Flows go on, whose datagrams come by another worker when AF_XDP comes with a configuration, and goes.
    fn flows_of_two_workers_go_on(driver) {
        let Some((net, _origin, engine)) = two_workers(driver) else { return };
        let with = engine.config();
        let line = with.lines().find(|line| line.starts_with("af_xdp")).expect("it is there");
        let without = with.replace(line, "");
        engine.adopt(&without);
        assert!(!net.interface().contains("prog/xdp"));
        let before = engine.metrics();
        let clients: Vec<Caller> = net.outside(|| (0..40).map(|_| Caller::new(at(Net::V4))).collect());
        let all_ask = || clients.iter().for_each(|client| assert_eq!(client.ask(b"hello"), b"hello"));
        all_ask();
        assert_eq!(engine.metrics().since(&before, "afxdp_received_total"), 0);
        for file in [&with, &without] {
            engine.adopt(file);
            all_ask();
        }
        let metrics = engine.metrics();
        assert_eq!((metrics.sum("udp_flows_total"), metrics.sum("datagrams_dropped_total")), (40, 0));
        assert_eq!(metrics.since(&before, "afxdp_received_total"), 40);
        let passed_on = metrics.since(&before, "quic_passed_on_total");
        assert!((4..=36).contains(&passed_on), "of 40 datagrams half come to the wrong one: {passed_on}");
    }

    /// What no frame holds comes by the kernel, and is of the same flow; so does a reply that is none go.
    fn one_flow_by_both_ways(driver) {
        let Some(net) = Net::enter() else { return };
        let origin = Echo::start();
        let Some(engine) = flows(driver, "native", "0.0.0.0", &origin, "") else { return };
        let client = net.outside(|| Caller::new(at(Net::V4)));
        assert_eq!(client.ask(b"hello"), b"hello");
        let port = origin.last_port();
        // Those that do not fit the interface come and go in fragments, which are the kernel's.
        for length in [9_000, 65_507, 1_473, 0, 1_472, 1] {
            let said = pattern(length as u64, length);
            assert!(client.ask(&said) == said, "{length} bytes");
        }
        assert_eq!(origin.last_port(), port);
        let metrics = engine.metrics();
        assert_eq!((metrics.sum("udp_flows_total"), metrics.sum("datagrams_in_total")), (1, 7));
        // An empty one comes by a frame, and goes by the kernel.
        assert_eq!((ways(&engine), packets(&engine, "taken")), ((4, 3, 4), 4));
        assert_eq!(packets(&engine, "fragment"), 7 + 45 + 2);
    }

    /// Flows' bounds hold: who comes beyond them gets nothing, and who is there goes on.
    fn flows_are_bounded(driver) {
        let Some(net) = Net::enter() else { return };
        let origin = Echo::start();
        let Some(engine) = flows(driver, "native", Net::V4, &origin, "max_connections = 4") else { return };
        let clients: Vec<Caller> = net.outside(|| (0..5).map(|_| Caller::new(at(Net::V4))).collect());
        let (last, clients) = clients.split_last().expect("five");
        clients.iter().for_each(|client| assert_eq!(client.ask(b"in"), b"in"));
        last.send(b"too late");
        engine.until_metric("datagrams_dropped_total", 1);
        clients.iter().for_each(|client| assert_eq!(client.ask(b"still in"), b"still in"));
        assert_eq!(engine.metrics().sum("connections_open"), 4);
        assert_eq!(ways(&engine), (9, 8, 0));
    }

    /// What came past the kernel and waits for its turn leaves when that comes, though nothing else comes.
    fn what_waits_has_its_turn(driver) {
        let Some(net) = Net::enter() else { return };
        let origin = Echo::start();
        let class = "[classes.paced]\nper_client.bandwidth = \"14kB/s\"";
        let setup = by_afxdp(driver, "native").udp().at(at(Net::V4)).to(&origin.address.to_string());
        let engine = setup.listen_line("class = \"paced\"").more(class).start();
        if !stands(&engine) {
            return;
        }
        net.outside(|| {
            let client = Caller::new(at(Net::V4));
            [[1; 700], [2; 700]].iter().for_each(|said| client.send(said));
            assert_eq!((client.hear().expect("at once"), client.hear().expect("in its turn")), (vec![1; 700], vec![2; 700]));
        });
        assert!(engine.metrics().sum("class_paced_total") > 0);
        assert_eq!(ways(&engine), (2, 2, 0));
    }

    /// Clients of QUIC that is passed through move: the new flow leads to the same endpoint, by frames, too.
    fn quic_passed_through(driver) {
        let Some(net) = Net::enter() else { return };
        let (folder, origin) = (Folder::new(), Origin::standard());
        let authority = Authority::new(&folder, "ca");
        let issued = authority.issue(&folder, "back", &["localhost"], Kind::Ecdsa);
        let backs = [0, 1].map(|_| Setup::new(driver).origin(&origin).listen_line(&issued.line()).start());
        let mut setup = by_afxdp(driver, "native").udp().at(at(Net::V4)).listen_line("udp.quic = true");
        for back in &backs {
            setup = setup.to(&back.address.to_string());
        }
        let between = setup.pool_line("balance = \"round-robin\"").start();
        if !stands(&between) {
            return;
        }
        let lost = net.outside(|| downloads(&authority, between.address));
        assert_eq!(lost, Vec::<String>::new());
        assert!(between.metrics().sum("udp_flows_moved_total") > 20, "clients that moved were known");
        let (received, sent, by_kernel) = ways(&between);
        assert!(received > 500 && sent > 1_000 && by_kernel == 0, "{received} {sent} {by_kernel}");
        assert_eq!(between.metrics().sum("datagrams_in_total"), received);
    }

    /// Frames that no flow may come of, and of what the program leaves to the kernel.
    fn frames_that_begin_no_flow(driver) {
        let Some(net) = Net::enter() else { return };
        let origin = Echo::start();
        let Some(engine) = flows(driver, "native", Net::V4, &origin, "") else { return };
        net.outside(|| {
            let (raw, to, bytes) = (RawUdp::new(), at(Net::V4), [7; 200]);
            let from: SocketAddr = "10.77.0.2:4433".parse().unwrap();
            // A wrong checksum; port 0; a source that is a group, or ourselves.
            raw.send(from, to, &bytes, |packet| packet[26] ^= 0x5a);
            for nobody in ["10.77.0.2:0", "224.0.0.7:53", "127.0.0.1:53"] {
                raw.send(nobody.parse().unwrap(), to, &bytes, |_| {});
            }
            raw.send(to, to, &bytes, |_| {});
            // UDP says that it is longer than IP does.
            raw.send(from, to, &bytes, |packet| packet[24] = 0xff);
            // A first piece whose others never come.
            raw.send(from, to, &bytes, |packet| packet[6] = 0x20);
        });
        until("all have come", PATIENCE, || {
            engine.metrics().sum("afxdp_flawed_total") == 5
                && packets(&engine, "malformed") == 1
                && packets(&engine, "fragment") == 1
        });
        assert_eq!(engine.metrics().sum("udp_flows_total"), 0);
        net.outside(|| assert_eq!(Caller::new(at(Net::V4)).ask(b"hello"), b"hello"));
        assert_eq!((engine.metrics().sum("udp_flows_total"), origin.heard()), (1, 1));
    }

    /// Told to drain, it leaves datagrams to the kernel: flows go on by its sockets until they are silent.
    fn flows_outlast_the_program(driver) {
        let Some(net) = Net::enter() else { return };
        let origin = Echo::start();
        let Some(mut engine) = flows(driver, "native", Net::V4, &origin, "") else { return };
        let client = net.outside(|| Caller::new(at(Net::V4)));
        assert_eq!(client.ask(b"hello"), b"hello");
        let port = origin.last_port();
        engine.terminate();
        until("the interface is free", PATIENCE, || !net.interface().contains("prog/xdp"));
        assert_eq!(client.ask(b"and on"), b"and on");
        assert_eq!(origin.last_port(), port, "it is the same flow");
        net.outside(|| Caller::new(at(Net::V4)).send(b"too late"));
        assert!(engine.wait(PATIENCE).success());
        assert_eq!(origin.heard(), 2);
    }

    /// Another configuration: flows go on, a new listener's datagrams come past the kernel too, and one that is gone has none.
    fn another_configuration(driver) {
        let Some(net) = Net::enter() else { return };
        let origin = Echo::start();
        let Some(engine) = flows(driver, "native", Net::V4, &origin, "") else { return };
        let client = net.outside(|| Caller::new(at(Net::V4)));
        assert_eq!(client.ask(b"hello"), b"hello");
        let addresses = || engine.status()["af_xdp"][0]["addresses"].as_u64();
        assert_eq!(addresses(), Some(1));
        let before = engine.config();
        let new: SocketAddr = "10.77.0.1:5353".parse().unwrap();
        engine.adopt(&format!(
            "{before}\n[[listen]]\nname = \"new\"\naddr = \"{new}\"\nprotocol = \"udp\"\npool = \"origins\"\n"
        ));
        assert_eq!(addresses(), Some(2));
        assert_eq!(client.ask(b"and on"), b"and on");
        net.outside(|| assert_eq!(Caller::new(new).ask(b"new"), b"new"));
        assert_eq!((ways(&engine), engine.metrics().sum("udp_flows_total")), ((3, 3, 0), 2));
        engine.adopt(&before);
        assert_eq!(addresses(), Some(1));
        assert_eq!(client.ask(b"and on"), b"and on");
        assert_eq!((ways(&engine), engine.metrics().sum("udp_flows_total")), ((4, 4, 0), 2));
    }

    /// Downloads whose clients' ports change: a path is learnt anew; where there are two workers, what comes to the wrong one is brought to the right one, and answers leave by that one's own socket.
    alone fn clients_that_move(driver) {
        for workers in [1, 2] {
            let Some(net) = Net::with_queues(workers) else { return };
            let (folder, origin) = (Folder::new(), Origin::standard());
            let authority = Authority::new(&folder, "ca");
            let issued = authority.issue(&folder, "site", &["localhost"], Kind::Ecdsa);
            let cores = if workers == 1 { "0" } else { "0-1" };
            let engine =
                setup(driver, &origin, "native").cores(cores).at(at(Net::V4)).listen_line(&issued.line()).start();
            if !stands(&engine) {
                return;
            }
            assert_eq!(engine.status()["af_xdp"][0]["queues"], workers);
            let before = by_kernel(false);
            let lost = net.outside(|| downloads(&authority, engine.address));
            let (after, metrics) = (by_kernel(false), engine.metrics());
            assert_eq!(lost, Vec::<String>::new());
            let passed_on = metrics.sum("quic_passed_on_total");
            assert_eq!(passed_on > 0, workers == 2, "{passed_on} datagrams were brought to their workers");
            assert_eq!((after.0 - before.0, metrics.sum("afxdp_by_kernel_total")), (0, 0), "{before:?} {after:?}");
        }
    }

    /// A wildcard has a door at each of the host's addresses, those too that it gets later.
    fn a_wildcard(driver) {
        let Some(net) = Net::enter() else { return };
        let origin = Origin::standard();
        let door = H3Door::of(setup(driver, &origin, "auto").at(at("0.0.0.0")), "");
        if !stands(&door.engine) {
            return;
        }
        assert_eq!(door.engine.status()["af_xdp"][0]["addresses"], 1);
        let get = |address: &str| visit(&net, &door, at(address));
        get(Net::V4);
        let before = door.engine.metrics();
        assert!(before.sum("afxdp_received_total") > 0);
        Tool::new("ip", 20).args(["addr", "add", "10.77.0.9/32", "dev", Net::INTERFACE]).succeed();
        until("the new address has a door", PATIENCE, || door.engine.status()["af_xdp"][0]["addresses"] == 2);
        get("10.77.0.9");
        assert!(door.engine.metrics().since(&before, "afxdp_received_total") > 0);
        Tool::new("ip", 20).args(["addr", "del", "10.77.0.9/32", "dev", Net::INTERFACE]).succeed();
        until("its door is closed", PATIENCE, || door.engine.status()["af_xdp"][0]["addresses"] == 1);
    }

    /// What is strange is the kernel's, what is wrong is nobody's, and clients notice nothing of either.
    fn frames_that_are_no_good(driver) {
        let Some(net) = Net::enter() else { return };
        let origin = Origin::standard();
        let door = H3Door::of(setup(driver, &origin, "native").at(at(Net::V4)), "");
        if !stands(&door.engine) {
            return;
        }
        let bytes = [0xc0; 1_200];
        net.outside(|| {
            let raw = RawUdp::new();
            let (from, to) = ("10.77.0.2:4433".parse().unwrap(), at(Net::V4));
            raw.send(from, to, &bytes, |packet| packet[26] ^= 0x5a);
            raw.send("10.77.0.2:0".parse().unwrap(), to, &bytes, |_| {});
            raw.send("224.0.0.7:53".parse().unwrap(), to, &bytes, |_| {});
            // Says that more of it follows.
            raw.send(from, to, &bytes, |packet| packet[6] = 0x20);
            // UDP says that it is longer than IP does.
            raw.send(from, to, &bytes, |packet| packet[24] = 0xff);
        });
        until("all have come", PATIENCE, || {
            door.engine.metrics().sum("afxdp_flawed_total") == 3 && packets(&door.engine, "fragment") == 1 && packets(&door.engine, "malformed") == 1
        });
        visit(&net, &door, at(Net::V4));
    }

    /// Killed, it leaves nothing; and another one gets the queue.
    fn nothing_is_left_behind(driver) {
        let Some(net) = Net::enter() else { return };
        let origin = Origin::standard();
        for _ in 0..2 {
            let mut door = H3Door::of(setup(driver, &origin, "native").at(at(Net::V4)), "");
            if !stands(&door.engine) {
                return;
            }
            assert!(net.interface().contains("prog/xdp"));
            visit(&net, &door, at(Net::V4));
            door.engine.kill();
            door.engine.wait(PATIENCE);
            until("the interface is free again", PATIENCE, || !net.interface().contains("prog/xdp"));
        }
    }

    /// Told to drain, it leaves datagrams to the kernel, and what has begun goes on.
    fn a_drain_leaves_the_rest_to_the_kernel(driver) {
        let Some(net) = Net::enter() else { return };
        let origin = Origin::standard();
        let mut door = H3Door::of(setup(driver, &origin, "native").at(at(Net::V4)), "");
        if !stands(&door.engine) {
            return;
        }
        let config = quic::config(&door.authority, 16 << 10);
        let mut visitor = net.outside(|| {
            let mut visitor = quic::Visitor::connect(at(Net::V4), &config);
            until("some of the answer", PATIENCE, || {
                visitor.turn("/bytes/3000000");
                visitor.received > 100_000
            });
            visitor
        });
        door.engine.terminate();
        until("the interface is free", PATIENCE, || !net.interface().contains("prog/xdp"));
        assert_eq!(visitor.ended, None, "it is not over yet");
        until("the answer is whole", PATIENCE, || {
            visitor.turn("");
            visitor.ended.is_some()
        });
        assert_eq!(visitor.ended, Some(Ok(())));
        visitor.close();
        door.engine.wait(PATIENCE);
    }

    /// Where it is not granted, HTTP/3 is served as ever, and the reason is told.
    fn without_it(driver) {
        let Some(net) = Net::enter() else { return };
        let origin = Origin::standard();
        let capabilities = "-all,+bpf,+net_admin,+net_bind_service,+dac_override";
        let weak = setup(driver, &origin, "auto").at(at(Net::V4)).launched_by(["setpriv", "--bounding-set", capabilities]);
        let door = H3Door::of(weak, "");
        let why = door.engine.status()["goes_without"].to_string();
        assert!(why.contains("AF_XDP (door0: ") && why.contains("needs CAP_"), "{why}");
        visit(&net, &door, at(Net::V4));
        assert_eq!(door.engine.metrics().sum("afxdp_received_total"), 0);
        drop(door);
        let line = "af_xdp.interface = \"nobody0\"";
        let door = H3Door::of(Setup::new(driver).origin(&origin).engine_line(line).at(at(Net::V4)), "");
        let why = door.engine.status()["goes_without"].to_string();
        assert!(why.contains("AF_XDP (nobody0: "), "{why}");
    }
}

/// Flows of many clients at once, of every length that a frame holds, and none of it by the kernel's UDP.
fn many_flows(driver: Driver, mode: &str, address: &str) {
    let Some(net) = Net::enter() else { return };
    let origin = Echo::start();
    let Some(engine) = flows(driver, mode, address, &origin, "") else { return };
    net.outside(|| ask_all(at(address), 40, 50));
    let metrics = engine.metrics();
    assert_eq!((metrics.sum("udp_flows_total"), metrics.sum("datagrams_dropped_total")), (40, 0));
    assert_eq!((metrics.sum("datagrams_in_total"), metrics.sum("datagrams_out_total")), (2_000, 2_000));
    assert_eq!((ways(&engine), metrics.sum("afxdp_flawed_total")), ((2_000, 2_000, 0), 0));
    assert_eq!(packets(&engine, "taken"), 2_000 + metrics.sum("afxdp_lost_total"));
}

/// So many clients at once ask so often, and each hears what it said.
fn ask_all(to: SocketAddr, clients: u64, rounds: u64) {
    let clients: Vec<Caller> = (0..clients).map(|_| Caller::new(to)).collect();
    for round in 0..rounds {
        let said = |client: usize| pattern((client as u64) << 32 | round, 1 + (round as usize * 29 + client) % 1_400);
        clients.iter().enumerate().for_each(|(at, client)| client.send(&said(at)));
        clients.iter().enumerate().for_each(|(at, client)| assert!(client.hear().expect("a reply") == said(at)));
    }
}

/// One download from outside.
fn visit(net: &Net, door: &H3Door, to: SocketAddr) {
    let config = quic::config(&door.authority, 64 << 10);
    net.outside(|| {
        let mut visitor = quic::Visitor::connect(to, &config);
        until("an answer", PATIENCE, || {
            visitor.turn("/bytes/100000");
            visitor.ended.is_some()
        });
        assert_eq!(visitor.ended, Some(Ok(())));
        assert!(visitor.received > 100_000);
        visitor.close();
    });
}

/// Clients that move while they download; how each ended that did not end well.
fn downloads(authority: &Authority, address: SocketAddr) -> Vec<String> {
    const CONTENT: usize = 200_000;
    let config = quic::config(authority, 16 << 10);
    let mut visitors: Vec<_> = (0..40).map(|_| (quic::Visitor::connect(address, &config), false)).collect();
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(40) && visitors.iter().any(|(visitor, _)| visitor.ended.is_none()) {
        for (visitor, moved) in visitors.iter_mut().filter(|(visitor, _)| visitor.ended.is_none()) {
            visitor.turn(&format!("/bytes/{CONTENT}"));
            if visitor.received > CONTENT / 3 && !*moved {
                visitor.move_on();
                *moved = true;
            }
        }
    }
    let lost = visitors.iter().filter_map(|(visitor, moved)| match &visitor.ended {
        Some(Ok(())) if visitor.received > CONTENT && *moved => None,
        ended => Some(format!("{ended:?} after {} bytes", visitor.received)),
    });
    lost.collect()
}
