//! The XDP shield, over a cable between two network namespaces: whom it drops, whom it does not, and that nothing of it is left behind.
//!
//! Where namespaces or the program are not granted each test says so and proves nothing.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use harness::{Driver, Engine, Net, Origin, PATIENCE, Setup, Sharing, Street, SynFlood, Tool, run, until};

/// Who is never dropped, and two that are at times.
const GOOD: &str = "10.77.0.2";
const BAD: &str = "10.77.0.3";
const WORSE: &str = "10.77.1.4";
const GOOD_V6: &str = "fd77::2";
const BAD_V6: &str = "fd77:0:0:9::3";

/// How long it takes to see that nothing comes: two repetitions of a SYN.
const SILENCE: Duration = Duration::from_millis(2_500);

fn door() -> SocketAddr {
    SocketAddr::new(Net::V4.parse().unwrap(), 8_080)
}

fn door_v6() -> SocketAddr {
    SocketAddr::new(Net::V6.parse().unwrap(), 8_080)
}

/// An engine inside, with this in `[shield]`; `None` where no shield is granted.
fn shielded(origin: &Origin, mode: &str, lines: &str) -> Option<Engine> {
    let shield = format!("[shield]\ninterfaces = [{:?}]\nmode = {mode:?}\n{lines}", Net::INTERFACE);
    let other = format!("[[listen]]\nname = \"other\"\naddr = \"{}\"", door_v6());
    let engine = Setup::new(Driver::Epoll).at(door()).origin(origin).more(&shield).more(&other).start();
    let without = engine.status()["goes_without"].to_string();
    if without.contains("CAP_BPF") || without.contains("not supported") {
        println!("SKIPPED: {without}");
        return None;
    }
    let wanted = if mode == "auto" { "native" } else { mode };
    assert_eq!(engine.status()["shield"][0]["mode"], wanted, "{without}");
    assert!(engine.err().contains(&format!("shield: XDP on {} ({wanted})", Net::INTERFACE)), "{}", engine.err());
    Some(engine)
}

/// How often packets were counted under a reason, and what became of them.
fn seen(engine: &Engine, reason: &str, verdict: &str) -> u64 {
    let page = engine.page("/metrics").text();
    let name = format!("penstock_shield_packets_total{{reason=\"{reason}\",verdict=\"{verdict}\"}} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

fn served(net: &Net, from: &str) -> bool {
    let to = if from.contains(':') { door_v6() } else { door() };
    match net.get(from, to, PATIENCE) {
        Ok(status) => status == 200,
        Err(error) => panic!("{from}: {error}"),
    }
}

fn dropped(net: &Net, from: &str) -> bool {
    let to = if from.contains(':') { door_v6() } else { door() };
    net.get(from, to, SILENCE).is_err()
}

fn set(engine: &Engine, network: &str, to: &str) -> u16 {
    let content = format!("{{\"name\": \"{network}\", \"to\": \"{to}\"}}");
    let mut admin = harness::Client::connect(engine.admin);
    let request = format!(
        "POST /set/shield HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{content}",
        engine.admin,
        content.len()
    );
    admin.ask(request).status()
}

fn lists(mode: &'static str) {
    run(Sharing::Shared, move || {
        let Some(net) = Net::enter() else { return };
        for address in [BAD, WORSE, BAD_V6] {
            net.also_from(address);
        }
        let origin = Origin::standard();
        let folder = harness::Folder::new();
        let file = folder.write("deny", "10.77.1.0/24 # a neighbour\n");
        let lines = format!(
            "allow = [\"{GOOD}\"]\ndeny = [\"{BAD}\", \"fd77:0:0:9::/64\"]\ndeny_files = [{:?}]",
            file.display().to_string()
        );
        let Some(mut engine) = shielded(&origin, mode, &lines) else { return };
        for from in [GOOD, GOOD_V6] {
            assert!(served(&net, from), "{from}");
        }
        for from in [BAD, WORSE, BAD_V6] {
            assert!(dropped(&net, from), "{from}");
        }
        assert!(seen(&engine, "denied", "drop") >= 3);
        assert!(seen(&engine, "allowed", "pass") >= 3);
        assert!(seen(&engine, "passed", "pass") >= 3);

        // A file that has changed, and an operator's word, both ways.
        std::fs::write(&file, "# nobody\n").unwrap();
        until("the file is read again", PATIENCE, || engine.err().contains("0 networks in"));
        assert!(served(&net, WORSE));
        assert_eq!(set(&engine, "10.77.1.0/24", "deny"), 200);
        assert!(dropped(&net, WORSE));
        assert_eq!(engine.metrics().sum("shield_denied"), 1);
        assert_eq!(set(&engine, "10.77.1.0/24", "clear"), 200);
        assert!(served(&net, WORSE));
        assert_eq!(set(&engine, "10.77.1.0/24", "clear"), 400, "it is not denied any more");
        assert_eq!(set(&engine, "10.77.1.0/24", "dney"), 400);
        assert_eq!(set(&engine, BAD, "clear"), 400, "that is the configuration's word");
        assert_eq!(set(&engine, GOOD, "deny"), 400, "the configuration allows it");
        assert_eq!(set(&engine, "10.77.1.4", "deny=1s"), 200);
        until("an operator's word ends", PATIENCE, || engine.metrics().sum("shield_denied") == 0);
        assert!(served(&net, WORSE));

        // Whatever ends the engine, nothing of it stays.
        let text = net.interface();
        let id = text.split("prog/xdp id ").nth(1).and_then(|rest| rest.split_whitespace().next());
        let id = id.unwrap_or_else(|| panic!("no program on the interface: {text}")).to_owned();
        engine.kill();
        engine.wait(PATIENCE);
        until("the interface is free again", PATIENCE, || !net.interface().contains("prog/xdp"));
        if xtask::place::program("bpftool").is_some() {
            until("the program is gone", PATIENCE, || {
                Tool::new("bpftool", 20).args(["prog", "show", "id", &id]).run().code != Some(0)
            });
        }
    });
}

#[test]
fn lists_are_heeded_live_and_nothing_is_left_behind_native() {
    lists("native");
}

#[test]
fn lists_are_heeded_live_and_nothing_is_left_behind_generic() {
    lists("generic");
}

#[test]
fn a_dry_run_drops_nobody() {
    run(Sharing::Shared, || {
        let Some(net) = Net::enter() else { return };
        net.also_from(BAD);
        let origin = Origin::standard();
        let lines = format!("dry_run = true\ndeny = [\"{BAD}\"]\nsyns = {{ rate = \"1/d\", burst = 1 }}");
        let Some(engine) = shielded(&origin, "auto", &lines) else { return };
        for from in [BAD, GOOD, GOOD, GOOD_V6, GOOD_V6] {
            assert!(served(&net, from), "{from}");
        }
        assert!(seen(&engine, "denied", "would_drop") >= 3);
        assert!(seen(&engine, "syn_rate", "would_drop") >= 2);
        assert_eq!(seen(&engine, "denied", "drop") + seen(&engine, "syn_rate", "drop"), 0);
        assert!(engine.err().contains("it only counts what it would drop"));
    });
}

#[test]
fn a_source_opens_no_more_connections_than_it_may() {
    run(Sharing::Shared, || {
        let Some(net) = Net::enter() else { return };
        net.also_from(BAD);
        let origin = Origin::standard();
        for mode in ["native", "generic"] {
            let Some(engine) = shielded(&origin, mode, "syns = { rate = \"1/d\", burst = 3 }") else { return };
            let mut held = net.connect(BAD, door(), PATIENCE).unwrap();
            assert!(served(&net, BAD) && served(&net, BAD));
            assert!(dropped(&net, BAD), "the fourth");
            assert!(served(&net, GOOD) && served(&net, GOOD_V6));
            // A connection that stands is not touched.
            held.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            held.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            assert!(seen(&engine, "syn_rate", "drop") >= 1);
            drop(engine);
            until("the port is free", PATIENCE, || std::net::TcpListener::bind(door()).is_ok());
        }
    });
}

/// Issue "Kernel fast paths", 2: who goes on though it is turned away costs the engine nothing any more, and is served again when its time is over.
#[test]
fn who_does_not_heed_its_limit_is_dropped_for_a_while() {
    run(Sharing::Alone, || {
        let Some(net) = Net::enter() else { return };
        net.also_from(BAD);
        let origin = Origin::standard();
        let shield = format!(
            "[shield]\ninterfaces = [{:?}]\nover_limit = {{ rate = \"1/d\", burst = 500, for = \"15s\" }}",
            Net::INTERFACE
        );
        let setup = Setup::new(Driver::Epoll).at(door()).origin(&origin);
        let engine = setup.route_line("limit = [{ rate = \"1/s\", burst = 5 }]").start();
        // It comes with another configuration.
        engine.adopt(&format!("{}\n{shield}\n", engine.config()));
        if engine.status()["shield"][0].is_null() {
            println!("SKIPPED: {}", engine.status()["goes_without"]);
            return;
        }
        let mut client = net.connect(BAD, door(), Duration::from_secs(2)).unwrap();
        let cpu = || engine.metrics().sum("cpu_nanoseconds_total");
        let (from, begun) = (cpu(), Instant::now());
        let mut asked = 0_u32;
        let mut buffer = [0; 4_096];
        // One at a time, until no answer comes.
        loop {
            let sent = client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            if sent.is_err() || client.read(&mut buffer).map_or(true, |read| read == 0) {
                break;
            }
            asked += 1;
            assert!(begun.elapsed() < PATIENCE, "it is never dropped");
        }
        // The last two seconds were the wait for an answer.
        let busy = begun.elapsed().saturating_sub(Duration::from_secs(2));
        let with = (cpu() - from) as f64 / busy.as_secs_f64().max(0.001);
        assert!(asked >= 500, "{asked}");
        assert_eq!(engine.metrics().sum("shield_denied"), 1);

        // It goes on by all means, for two seconds.
        let (from, begun, requests) = (cpu(), Instant::now(), engine.metrics().sum("requests_total"));
        while begun.elapsed() < Duration::from_secs(2) {
            assert!(net.get(BAD, door(), Duration::from_millis(100)).is_err());
        }
        let without = (cpu() - from) as f64 / begun.elapsed().as_secs_f64();
        assert_eq!(engine.metrics().sum("requests_total"), requests, "nothing of it has reached the engine");
        println!(
            "CPU of the engine, ms a second: {:.2} while it answers, {:.2} once it drops",
            with / 1e6,
            without / 1e6
        );
        assert!(without * 10.0 <= with, "{without} is no tenth of {with}");
        assert!(seen(&engine, "over_limit", "drop") > 0);
        assert!(served(&net, GOOD), "others are none the worse");
        until("its time is over", Duration::from_secs(60), || engine.metrics().sum("shield_denied") == 0);
        assert!(net.get(BAD, door(), PATIENCE).is_ok());
    });
}

/// Another configuration: what it denies is another, words of operators stay as long as it stands, a new listener's port is protected, and it goes and comes.
#[test]
fn another_configuration() {
    run(Sharing::Shared, || {
        let Some(net) = Net::enter() else { return };
        [BAD, WORSE].iter().for_each(|address| net.also_from(address));
        let origin = Origin::standard();
        let deny = format!("deny = [\"{BAD}\"]");
        let Some(engine) = shielded(&origin, "native", &deny) else { return };
        let before = engine.config();
        assert_eq!(set(&engine, WORSE, "deny"), 200);
        assert!(dropped(&net, BAD) && dropped(&net, WORSE));
        let counted = seen(&engine, "denied", "drop");

        engine.adopt(&before.replace(&deny, ""));
        assert!(served(&net, BAD) && dropped(&net, WORSE));
        assert!(seen(&engine, "denied", "drop") > counted, "it counts on");
        engine.adopt(&before.replace(&deny, "dry_run = true"));
        assert!(served(&net, BAD) && served(&net, WORSE));
        assert!(seen(&engine, "denied", "would_drop") > 0);
        assert_eq!(engine.status()["shield"][0]["does"], "counts");

        // Of one source there may be one packet more.
        let rate = "packets = { rate = \"1/d\", burst = 1 }";
        let port = SocketAddr::new(Net::V4.parse().unwrap(), 8_081);
        assert!(net.get(BAD, port, SILENCE).is_err(), "nobody is there");
        assert_eq!(seen(&engine, "packet_rate", "drop"), 0);
        let listener = format!("[[listen]]\nname = \"new\"\naddr = \"{port}\"\n");
        engine.adopt(&format!("{}\n{listener}", before.replace(&deny, rate)));
        assert!(net.get(BAD, port, SILENCE).is_err());
        assert!(seen(&engine, "packet_rate", "drop") > 0, "the new port is protected");

        engine.write_config(&before.replace(&deny, "syn_cookies = \"auto\""));
        let refused = engine.reload(&[]);
        assert!(refused.code != Some(0) && refused.err.contains("shield.syn_cookies"), "{}", refused.err);
        let bare = before.split("[shield]").next().expect("what is before it").to_owned();
        let bare = format!("{bare}{}", &before[before.find("[[listen]]\nname = \"other\"").expect("it is there")..]);
        engine.adopt(&bare);
        assert!(served(&net, BAD) && served(&net, WORSE));
        assert!(!net.interface().contains("prog/xdp"));
        assert_eq!(engine.status()["shield"].to_string(), "[]");
        engine.adopt(&before);
        assert!(dropped(&net, BAD) && served(&net, WORSE), "words of operators have gone with it");
    });
}

/// Lives outside while the body runs, and makes the outer end of the cable take what a native program sends: a veth does for a peer alone that has
/// one, too.
fn with_a_native_peer(net: &Net, origin: &Origin, body: impl FnOnce()) {
    let (ready, is_ready) = std::sync::mpsc::channel();
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            net.outside(move || {
                let shield = "[shield]\ninterfaces = [\"street0\"]\nmode = \"native\"";
                let _engine = Setup::new(Driver::Epoll).origin(origin).more(shield).start();
                ready.send(()).unwrap();
                // Ends when the body has, however that does.
                let _ = is_done.recv();
            });
        });
        is_ready.recv().expect("an engine outside");
        body();
        drop(done);
    });
}

/// Real clients connect through cookies, over IPv4 and IPv6: first with a kernel that makes one for each SYN, then while a flood keeps the queue full.
fn cookies(mode: &'static str) {
    run(Sharing::Shared, move || {
        let Some(net) = Net::enter() else { return };
        let origin = Origin::standard();
        with_a_native_peer(&net, &origin, || {
            let Some(engine) = shielded(&origin, mode, "syn_cookies = \"auto\"") else { return };
            let kernel = |when: &str| std::fs::write("/proc/sys/net/ipv4/tcp_syncookies", when).unwrap();
            assert!(served(&net, GOOD) && served(&net, GOOD_V6));
            assert_eq!(seen(&engine, "cookie", "answer"), 0, "there is room");
            assert_eq!(engine.status()["shield"][0]["syn_cookies"], "ready");

            kernel("2");
            for (nth, from) in (1..).zip([GOOD, GOOD_V6, GOOD, GOOD_V6]) {
                assert!(served(&net, from), "{from}");
                assert!(seen(&engine, "cookie", "answer") >= nth, "{from} came in without a cookie");
            }
            until("it is told", PATIENCE, || engine.err().contains("SYNs are answered with cookies"));
            assert_eq!(engine.metrics().sum("shield_syn_cookies"), 1);

            kernel("1");
            let before = seen(&engine, "cookie", "answer");
            let begun = Instant::now();
            let mut flood = net.outside(|| SynFlood::new(door()));
            while begun.elapsed() < PATIENCE && seen(&engine, "cookie", "answer") < before + 1_000 {
                (0..2_000).for_each(|_| flood.send(250));
            }
            let after = seen(&engine, "cookie", "answer");
            assert!(after >= before + 1_000, "{before}, and then {after}");
            for from in [GOOD, GOOD_V6, GOOD, GOOD_V6] {
                assert!(served(&net, from), "{from}, while the queue is full");
            }
        });
    });
}

#[test]
fn clients_connect_through_cookies_native() {
    cookies("native");
}

#[test]
fn clients_connect_through_cookies_generic() {
    cookies("generic");
}

/// A flood of SYNs from 250 made-up sources, bounded in number and time, with the shield and without it: connections that stand are served, and new ones come in.
#[test]
fn a_flood_of_syns_harms_nobody_else() {
    run(Sharing::Alone, || {
        let Some(net) = Net::enter() else { return };
        let origin = Origin::standard();
        for lines in ["syns = { rate = \"20/s\", burst = 20 }", "dry_run = true"] {
            let Some(engine) = shielded(&origin, "auto", &format!("{lines}\nallow = [\"{GOOD}\"]")) else { return };
            let (sent, worst) = std::thread::scope(|scope| {
                let flood = scope.spawn(|| {
                    net.outside(|| {
                        let mut flood = SynFlood::new(door());
                        let begun = Instant::now();
                        let mut sent = 0_u32;
                        while sent < 60_000 && begun.elapsed() < Duration::from_secs(4) {
                            flood.send(250);
                            sent += 1;
                        }
                        sent
                    })
                });
                let mut standing = net.connect(GOOD, door(), PATIENCE).unwrap();
                let mut worst = Duration::ZERO;
                let mut buffer = [0; 4_096];
                let begun = Instant::now();
                while !flood.is_finished() || begun.elapsed() < Duration::from_millis(200) {
                    let asked = Instant::now();
                    standing.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
                    assert!(standing.read(&mut buffer).unwrap() > 0, "a connection that stands is served");
                    worst = worst.max(asked.elapsed());
                    assert!(served(&net, GOOD), "a new connection is let in");
                }
                (flood.join().unwrap(), worst)
            });
            let dropped = seen(&engine, "syn_rate", "drop");
            println!("{lines}: {sent} SYNs sent, {dropped} dropped; the slowest exchange took {worst:?}");
            if lines.starts_with("syns") {
                // 250 sources with 20 each, and 20 more a second: the flood lasts up to a few.
                assert!(dropped * 10 >= u64::from(sent) * 5, "{dropped} of {sent}");
            }
            drop(engine);
            until("the port is free", PATIENCE, || std::net::TcpListener::bind(door()).is_ok());
        }
    });
}

/// The status of a request of the street's client, from an address of its.
fn asks(street: &Street, from: &str, to: SocketAddr, patience: Duration) -> std::io::Result<String> {
    street.at("client", || {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from.parse().expect("an address"), 0).into())?;
        socket.connect_timeout(&to.into(), patience)?;
        let mut stream = std::net::TcpStream::from(socket);
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
}

/// One interface, one link, two programs: whom the shield denies never reaches the balancer, others are balanced, and each can be told something
/// new while the other goes on.
fn before_the_balancer(mode: &'static str) {
    const VIP: &str = "10.79.0.1";
    const DENIED: &str = "10.78.0.9";
    const OTHER: &str = "10.78.0.1";
    run(Sharing::Shared, move || {
        let Some(street) = Street::build(&["client", "lb", "origin"]) else { return };
        let door: SocketAddr = format!("{VIP}:8080").parse().unwrap();
        let mut _bridge = None;
        if mode == "native" {
            // What a native program sends back arrives only where the other end has one, too.
            street.go(Street::BRIDGE);
            let shield = "[shield]\ninterfaces = [\"lb\"]\nmode = \"native\"";
            _bridge = Some(Setup::new(Driver::Epoll).to("127.0.0.1:9").more(shield).start());
        }
        street.ip("client", &["addr", "add", &format!("{DENIED}/16"), "dev", "eth0"]);
        street.ip("client", &["route", "add", "10.79.0.0/16", "via", "10.78.0.2"]);
        street.ip("origin", &["addr", "add", &format!("{VIP}/32"), "dev", "lo"]);
        street.at("origin", || {
            let listener = std::net::TcpListener::bind(("0.0.0.0", 8_080)).unwrap();
            std::thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let mut asked = [0; 1_024];
                    if stream.read(&mut asked).is_ok_and(|read| read > 0) {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\norigin");
                    }
                }
            });
        });
        street.forwards("lb");
        street.go("lb");
        let lines = format!(
            "[shield]\ninterfaces = [\"eth0\"]\nmode = {mode:?}\ndeny = [{DENIED:?}]\n\
             [balance]\ninterfaces = [\"eth0\"]\n\
             [[vip]]\nname = \"web\"\naddr = \"{door}\"\nforward = \"dsr\"\npool = \"origins\""
        );
        let mut engine = Setup::new(Driver::Epoll).to("10.78.0.3:8080").more(&lines).start();
        let without = engine.status()["goes_without"].to_string();
        if without.contains("CAP_BPF") || without.contains("not supported") {
            println!("SKIPPED: {without}");
            return;
        }
        assert_eq!(engine.status()["shield"][0]["mode"], mode, "{without}");
        assert_eq!(engine.status()["balance"][0]["mode"], mode, "{without}");
        let answers = |from: &str| asks(&street, from, door, PATIENCE).is_ok_and(|answer| answer.ends_with("origin"));
        let silent = |from: &str| asks(&street, from, door, SILENCE).is_err();

        // The first packets to a neighbour that nobody has asked for yet may be lost.
        until("others are balanced", PATIENCE, || answers(OTHER));
        let balanced = || engine.metrics().sum("vip_packets_total");
        let before = balanced();
        assert!(silent(DENIED));
        assert_eq!(balanced(), before, "a packet of who is denied has reached the balancer");
        assert!(seen(&engine, "denied", "drop") >= 1);
        assert!(answers(OTHER));
        assert!(balanced() >= before + 4);
        assert!(seen(&engine, "passed", "pass") >= balanced(), "a VIP's port is one to be protected");

        // The shield is told something new, and the balancer goes on with what it has; and the other way round.
        let packets = balanced();
        assert_eq!(set(&engine, OTHER, "deny"), 200);
        assert!(silent(OTHER));
        assert_eq!(balanced(), packets);
        assert_eq!(set(&engine, OTHER, "clear"), 200);
        assert!(answers(OTHER));
        let denied = seen(&engine, "denied", "drop");
        let slots =
            |wanted: u64| until("the VIP follows", PATIENCE, || engine.metrics().sum("vip_endpoint_slots") == wanted);
        for (to, wanted) in [("maint", 0), ("ready", 65_537)] {
            let content = format!("{{\"name\": \"10.78.0.3:8080\", \"to\": \"{to}\"}}");
            let request = format!(
                "POST /set/endpoint HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{content}",
                engine.admin,
                content.len()
            );
            assert_eq!(harness::Client::connect(engine.admin).ask(request).status(), 200);
            slots(wanted);
            assert_eq!(answers(OTHER), wanted > 0);
        }
        assert!(silent(DENIED));
        assert!(seen(&engine, "denied", "drop") > denied);

        // One link holds both.
        let link = || Tool::new("ip", 20).args(["-d", "link", "show", "dev", "eth0"]).succeed().text();
        assert!(link().contains("prog/xdp"));
        engine.kill();
        engine.wait(PATIENCE);
        until("the interface is free again", PATIENCE, || !link().contains("prog/xdp"));
    });
}

#[test]
fn it_stands_before_the_balancer_native() {
    before_the_balancer("native");
}

#[test]
fn it_stands_before_the_balancer_generic() {
    before_the_balancer("generic");
}

/// `penstock tap --xdp` with these flags, as it is in the engine's namespace.
fn tap(engine: &Engine, flags: &[&str]) -> Tool {
    let admin = engine.admin.to_string();
    let program = harness::binary().display().to_string();
    Tool::new(&program, 30).args([&["tap", "--xdp", "--admin", &admin], flags].concat())
}

/// Whom the shield drops is seen, as it happens, with where it came from and why; and nothing else is.
#[test]
fn what_is_dropped_can_be_watched() {
    run(Sharing::Shared, || {
        let Some(net) = Net::enter() else { return };
        for address in [BAD, WORSE] {
            net.also_from(address);
        }
        let origin = Origin::standard();
        let lines = format!("deny = [\"10.77.1.0/24\"]\nsyns = {{ rate = \"1/d\", burst = 1 }}\nallow = [\"{GOOD}\"]");
        let Some(engine) = shielded(&origin, "auto", &lines) else { return };
        assert!(served(&net, BAD), "its first connection");
        let watch = |flags: &'static [&'static str], body: &dyn Fn()| {
            std::thread::scope(|scope| {
                let watched = scope.spawn(|| tap(&engine, flags).succeed().text());
                // It asks five times a second, and sees what comes after it has begun to.
                until("it watches", PATIENCE, || {
                    body();
                    watched.is_finished()
                });
                watched.join().unwrap()
            })
        };
        let all = || {
            assert!(dropped_at_once(&net, BAD) && dropped_at_once(&net, WORSE));
            assert!(served(&net, GOOD));
        };
        let text = watch(&["--count", "8"], &all);
        assert_eq!(text.lines().count(), 8, "{text}");
        for line in text.lines() {
            let from = if line.contains("  syn_rate  ") { BAD } else { WORSE };
            assert!(line.contains("  drop  ") && line.contains(&format!("  tcp    {from}:")), "{line}");
            assert!(line.contains(&format!("> {}  ", door())), "{line}");
            assert!(line.ends_with(&format!("bytes  {}", Net::INTERFACE)), "{line}");
        }
        assert!(text.contains("  syn_rate  ") && text.contains("  denied  "), "{text}");

        // One reason, and an object a line.
        let text = watch(&["--count", "3", "--reason", "denied", "--json"], &all);
        assert_eq!(text.lines().count(), 3, "{text}");
        for line in text.lines() {
            let sample: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!((&sample["reason"], &sample["verdict"]), (&"denied".into(), &"drop".into()), "{line}");
            assert_eq!((&sample["source"], &sample["destination_port"]), (&WORSE.into(), &8_080.into()), "{line}");
            assert!(sample["time"].as_str().unwrap().ends_with('Z') && sample["bytes"].as_u64() > Some(60), "{line}");
        }
        // It ends by itself, and what it cannot do it says.
        assert_eq!(tap(&engine, &["--for", "300ms", "--reason", "land"]).succeed().text(), "");
        let refused = tap(&engine, &["--reason", "dneied"]).run();
        assert!(refused.code == Some(1) && refused.err.contains("did you mean `denied`?"), "{}", refused.err);
    });
}

/// A SYN of it, and no patience to repeat it.
fn dropped_at_once(net: &Net, from: &str) -> bool {
    net.get(from, door(), Duration::from_millis(50)).is_err()
}
