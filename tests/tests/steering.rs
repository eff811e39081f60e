//! How connections find their worker: by load where the kernel takes our program, by hand-over where not, and what the kernel's hash makes of the same.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::{
    Authority, Caller, Client, Driver, Echo, Engine, Folder, Kind, Net, Origin, PATIENCE, Setup, Sharing, Tool, answer,
    binary, free_address, on_each_driver, python, quic, run, script, until,
};

const CONNECTIONS: usize = 2_000;
/// Each tenth has an exchange under way all the time; the others lie idle after their first.
const HEAVY_OF: u64 = 10;
/// What an exchange weighs beside a connection (`abi::EXCHANGE_LOAD`).
const EXCHANGE: u64 = 16;

/// Two workers, if there are CPUs for them.
fn two_workers(driver: Driver) -> Option<Setup> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    if cpus < 2 {
        println!("SKIPPED: one CPU only");
        return None;
    }
    Some(Setup::new(driver).cores("0-1"))
}

/// Words that start a program as nobody, or as a root without rights where nobody cannot reach the binary, with these capabilities only.
fn with_capabilities(capabilities: &[&str]) -> Option<Vec<String>> {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let Some(setpriv) = xtask::place::program("setpriv").filter(|_| is_root) else {
        println!("SKIPPED: giving capabilities away needs root and setpriv");
        return None;
    };
    let set = std::iter::once("-all".to_owned()).chain(capabilities.iter().map(|name| format!("+{name}")));
    let set = set.collect::<Vec<_>>().join(",");
    let words = |nobody: bool| {
        let mut words = vec![setpriv.display().to_string(), "--pdeathsig=KILL".to_owned()];
        if nobody {
            words.extend(["--reuid=65534", "--regid=65534", "--clear-groups"].map(str::to_owned));
            words.push(format!("--ambient-caps={set}"));
        }
        words.extend([format!("--inh-caps={set}"), format!("--bounding-set={set}")]);
        words
    };
    let nobody = words(true);
    let reaches =
        Tool::new(&nobody[0], 10).args(&nobody[1..]).args([&binary().display().to_string(), "--version"]).run();
    Some(if reaches.code == Some(0) { nobody } else { words(false) })
}

fn word(engine: &Engine) -> String {
    engine.status()["steering"].as_str().unwrap_or_default().to_owned()
}

/// An origin whose `/hold` is answered when it is let go.
struct Holding {
    origin: Origin,
    free: Arc<AtomicBool>,
}

impl Holding {
    fn new() -> Self {
        let free = Arc::new(AtomicBool::new(false));
        let freed = Arc::clone(&free);
        let origin = Origin::answering(move |request| {
            while request.target() == "/hold" && !freed.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
            }
            Some(answer("ok"))
        });
        Self { origin, free }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.free.store(true, Ordering::Relaxed);
    }
}

/// Which connections are heavy: a tenth, and no period that a hash or a turn could have.
fn is_heavy(index: usize) -> bool {
    ((index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).is_multiple_of(HEAVY_OF)
}

/// Opens all of them, a part at a time, and tells what each worker has then: the most and the least by load.
fn skew(engine: &Engine) -> f64 {
    let mut clients: Vec<Client> = Vec::new();
    for from in (0..CONNECTIONS).step_by(40) {
        let part: Vec<usize> = (from..CONNECTIONS.min(from + 40)).collect();
        clients.extend(part.iter().map(|_| engine.client()));
        for &index in &part {
            let path = if is_heavy(index) { "/hold" } else { "/" };
            clients[index].send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        }
        for &index in part.iter().filter(|index| !is_heavy(**index)) {
            assert_eq!(clients[index].response(false).expect("an answer").status(), 200);
        }
    }
    let heavy = (0..CONNECTIONS).filter(|index| is_heavy(*index)).count() as u64;
    engine.until_metric("requests_open", heavy);
    engine.until_metric("connections_open", CONNECTIONS as u64);
    let status = engine.status();
    let cores = status["cores"].as_array().expect("a row for each worker");
    let of = |core: &serde_json::Value, key: &str| core[key].as_u64().unwrap_or(0);
    let loads: Vec<u64> =
        cores.iter().map(|core| of(core, "connections") + EXCHANGE * of(core, "requests_open")).collect();
    let (most, least) = (*loads.iter().max().unwrap(), *loads.iter().min().unwrap());
    let ratio = most as f64 / least.max(1) as f64;
    println!("{}: loads {loads:?}, max/min {ratio:.3}", word(engine));
    for core in cores {
        println!("  {} connections, {} exchanges open", of(core, "connections"), of(core, "requests_open"));
    }
    // Who only ends what it has to say may still wait for its answer, and the origin holds it back.
    clients.into_iter().for_each(Client::reset);
    ratio
}

/// A worker that gets no processor for a while, because others have it, does not tell what it has to do: on a busy machine a round may go wrong.
fn best_of_three(engine: &Engine) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..3 {
        best = best.min(skew(engine));
        if best <= 1.1 {
            break;
        }
        engine.until_idle();
    }
    best
}

on_each_driver! {
    /// Issue "HTTP/3 and steering", 3: uneven connections over two workers, three ways.
    alone fn uneven_connections_are_spread_by_load(driver) {
        let holding = Holding::new();
        let Some(setup) = two_workers(driver).map(|setup| setup.origin(&holding.origin)) else { return };
        let hashed = setup.clone().engine_line("steering = \"off\"").start();
        assert_eq!(word(&hashed), "hash");
        // Beside the others, for the eye: what chance makes of it.
        skew(&hashed);
        drop(hashed);

        let engine = setup.clone().start();
        if word(&engine) == "program" {
            let ratio = best_of_three(&engine);
            assert!(ratio <= 1.1, "by load over two workers, in each of three rounds: {ratio:.3}");
            let metrics = engine.metrics();
            assert!(metrics.sum("steering_verdicts_total") >= CONNECTIONS as u64);
            assert_eq!(metrics.sum("handed_over_total"), 0);
        } else {
            println!("SKIPPED: no program: {}", engine.status()["goes_without"]);
        }
        drop(engine);

        let Some(launcher) = with_capabilities(&[]) else { return };
        let engine = setup.launched_by(launcher).start();
        assert_eq!(word(&engine), "hand-over");
        let ratio = best_of_three(&engine);
        assert!(ratio <= 1.25, "by hand-over over two workers, in each of three rounds: {ratio:.3}");
        let metrics = engine.metrics();
        println!("  {} handed over", metrics.sum("handed_over_total"));
        assert_eq!(metrics.sum("handed_over_total"), metrics.sum("taken_over_total"));
    }

    /// Whatever worker a connection came to: what is sent on it is answered, before and after it has changed hands.
    fn connections_that_change_hands_are_served(driver) {
        let Some(launcher) = with_capabilities(&[]) else { return };
        let holding = Holding::new();
        let Some(setup) = two_workers(driver) else { return };
        let engine = setup.origin(&holding.origin).launched_by(launcher).start();
        let mut held = until_handed_over(&engine, engine.address);
        holding.free.store(true, Ordering::Relaxed);
        for client in &mut held {
            assert_eq!(client.response(false).expect("what was held is answered").status(), 200);
        }
        drop(held);
        engine.until_idle();
    }

    /// The same at listeners that have come with another configuration, and gone again.
    fn connections_of_later_listeners_change_hands(driver) {
        let Some(launcher) = with_capabilities(&[]) else { return };
        let holding = Holding::new();
        let Some(setup) = two_workers(driver) else { return };
        let engine = setup.origin(&holding.origin).launched_by(launcher).start();
        let toml = engine.config();
        for _ in 0..2 {
            let came = free_address();
            engine.adopt(&format!("{toml}\n[[listen]]\nname = \"came\"\naddr = \"{came}\"\n"));
            let held = until_handed_over(&engine, came);
            // Who waits for an answer that is held back would wait for it to its end.
            held.into_iter().for_each(Client::reset);
            engine.until_idle();
            assert_eq!(engine.metrics().sum("handed_over_total"), engine.metrics().sum("taken_over_total"));
        }
    }
}

/// Connects to `door` until some connections have changed hands, and serves others; those that wait for their answers are given back.
fn until_handed_over(engine: &Engine, door: SocketAddr) -> Vec<Client> {
    let before = engine.metrics().sum("taken_over_total");
    let mut held: Vec<Client> = Vec::new();
    until("connections have been handed over", Duration::from_secs(30), || {
        // Exchanges that stay make one worker look busy now and the other then.
        let mut client = Client::connect(door);
        client.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n");
        held.push(client);
        let mut other = Client::connect(door);
        assert_eq!(other.get("/").status(), 200);
        assert_eq!(other.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").status(), 200);
        if held.len() > 60 {
            // Who only closes may still wait for its answer.
            held.drain(..).for_each(Client::reset);
        }
        engine.metrics().sum("taken_over_total") >= before + 3
    });
    held
}

/// Issue "HTTP/3 and steering", 4: whatever is granted, it starts, serves, and says which way it is.
#[test]
fn whatever_is_granted_it_starts_serves_and_says_so() {
    run(Sharing::Shared, || {
        let origin = Origin::standard();
        let serves = |setup: Setup| {
            // Each at an address of its own: two engines at one would share a group.
            let engine = setup.at(free_address()).origin(&origin).start();
            for _ in 0..20 {
                assert_eq!(engine.client().get("/").text(), "hello\n");
            }
            engine
        };
        let Some(setup) = two_workers(Driver::Epoll) else { return };
        let as_started = serves(setup.clone().driver("auto"));
        let has_program = word(&as_started) == "program";
        println!("as started: {}", word(&as_started));
        let said = as_started.err();
        assert_eq!(said.contains("steering: an eBPF program"), has_program, "{said}");
        assert_eq!(said.contains("goes without: eBPF steering"), !has_program, "{said}");

        let off = serves(setup.clone().engine_line("steering = \"off\""));
        assert_eq!(word(&off), "hash");
        assert!(off.err().contains("steering: by the kernel's hash"), "{}", off.err());

        let alone = serves(setup.clone().cores("0"));
        assert_eq!(word(&alone), "alone");
        assert!(!alone.err().contains("steering"), "{}", alone.err());

        let Some(none) = with_capabilities(&[]) else { return };
        let engine = serves(setup.clone().launched_by(none));
        assert_eq!(word(&engine), "hand-over");
        let said = engine.err();
        assert!(said.contains("workers hand over what is too much"), "{said}");
        assert!(said.contains("goes without: eBPF steering (needs CAP_BPF and CAP_NET_ADMIN"), "{said}");
        assert!(engine.status()["goes_without"].to_string().contains("CAP_BPF"));

        if !has_program {
            println!("SKIPPED: with CAP_BPF and CAP_NET_ADMIN only: no program loads here at all");
            return;
        }
        let Some(two) = with_capabilities(&["bpf", "net_admin"]) else { return };
        let doctor = Tool::new(&two[0], 60).args(&two[1..]).args([&binary().display().to_string(), "doctor"]).run();
        let lines = String::from_utf8_lossy(&doctor.out);
        let loads = |name: &str| lines.lines().any(|line| line.contains(name) && line.contains("loads  (wanted"));
        assert!(loads("bpf steering") && loads("bpf quic steering"), "{lines}");
        assert!(loads("bpf shield") && loads("bpf lookup"), "{lines}");
        let engine = serves(setup.launched_by(two));
        assert_eq!(word(&engine), "program", "{}", engine.err());
        assert!(engine.err().contains("steering: an eBPF program"), "{}", engine.err());
        assert_eq!(engine.metrics().sum("steering_verdicts_total"), 20);
    });
}

/// A host that takes packets for two networks more, 10.78.0.0/23 and fd78::/64, and that everybody outside reaches them by.
fn many_addresses() -> Option<Net> {
    let net = Net::enter()?;
    let ip = |words: &str| drop(Tool::new("ip", 20).args(words.split(' ')).succeed());
    ip("route add local 10.78.0.0/23 dev lo");
    ip("route add local fd78::/64 dev lo");
    net.outside(|| ip("route add 10.78.0.0/23 via 10.77.0.1"));
    net.outside(|| ip("route add fd78::/64 via fd77::1"));
    Some(net)
}

/// One listener on many addresses and ports: it has bound one, and a program brings it the others' connections, of which each worker has its part.
#[test]
fn one_listener_on_many_addresses_and_ports() {
    run(Sharing::Shared, || {
        let Some(net) = many_addresses() else { return };
        let origin = Origin::standard();
        let Some(setup) = two_workers(Driver::Epoll) else { return };
        let bound: SocketAddr = SocketAddr::new(Net::V4.parse().expect("an address"), 8_080);
        let setup = setup
            .at(bound)
            .origin(&origin)
            .listen_line("also = [\"10.78.0.0/24:8000-8999\", \"10.78.1.7:*\"]")
            .more("[[listen]]\nname = \"six\"\naddr = \"[fd77::1]:8080\"\nalso = [\"[fd78::/64]:80\"]");
        let engine = setup.clone().start();
        let said = engine.err();
        if said.contains("goes without: further addresses") {
            println!("SKIPPED: {said}");
            return;
        }
        let line = "brings connections to further addresses: 10.78.0.0/24:8000-8999, 10.78.1.7:*, [fd78::/64]:80";
        assert!(said.contains(line), "{said}");
        let served = |to: &str| {
            let from = if to.starts_with('[') { "fd77::2" } else { "10.77.0.2" };
            net.get(from, to.parse().expect("an address"), PATIENCE).is_ok_and(|status| status == 200)
        };
        for to in
            ["10.77.0.1:8080", "10.78.0.1:8000", "10.78.0.255:8999", "10.78.1.7:1", "10.78.1.7:65535", "[fd78::9]:80"]
        {
            assert!(served(to), "{to}");
        }
        for to in ["10.78.0.1:7999", "10.78.0.1:9000", "10.78.1.8:8000", "[fd78::9]:81"] {
            assert!(!served(to), "{to}");
        }
        let metrics = engine.metrics();
        assert_eq!(metrics.sum("lookups_total"), 5, "those that nobody has bound, and no others");
        let status = engine.status();
        assert_eq!(status["steering"], "program", "who may load the one program may load the other: {said}");
        for port in 8_000..8_100 {
            assert!(served(&format!("10.78.0.1:{port}")));
        }
        let status = engine.status();
        let programs = status["programs"].as_array().expect("a row for each");
        let of_door = programs.iter().find(|row| row["group"].as_str().is_some_and(|name| name.contains("10.77.0.1")));
        assert!(of_door.is_some_and(|row| row["least_loaded"].as_u64() >= Some(105)), "{status}");
        drop(engine);
        assert!(!served("10.78.0.1:8000"), "nothing of it stays");

        let Some(launcher) = with_capabilities(&[]) else { return };
        let engine = setup.launched_by(launcher).start();
        let said = engine.err();
        assert!(said.contains("goes without: further addresses (needs CAP_BPF and CAP_NET_ADMIN"), "{said}");
        assert!(engine.status()["goes_without"].to_string().contains("further addresses"));
        assert!(served("10.77.0.1:8080") && !served("10.78.0.1:8000"));
    });
}

on_each_driver! {
    /// HTTP/3 and flows of datagrams at many addresses, and at further ports: clients hear from where they called, each from its own worker wherever it moves to, before and after
    /// another configuration and while the process drains; and nothing of it stays.
    fn datagrams_to_many_addresses_and_ports(driver) {
        let Some(net) = many_addresses() else { return };
        let Some(setup) = two_workers(driver) else { return };
        let (folder, origin, echo) = (Folder::new(), Origin::standard(), Echo::start());
        let authority = Authority::new(&folder, "ca");
        let tls = authority.issue(&folder, "site", &["localhost"], Kind::Ecdsa).line();
        let setup = further_doors(setup.origin(&origin), &tls, &echo);
        let mut engine = setup.clone().start();
        let said = engine.err();
        if said.contains("goes without: further addresses") {
            println!("SKIPPED: {said}");
            return;
        }
        for line in [
            "brings datagrams to further addresses: 10.78.0.0/24:8443, 10.78.1.7:8500, 10.78.1.7:8501, [fd78::/64]:8443, 10.78.0.0/24:5300",
            "goes without: HTTP/3 at further addresses 10.78.1.8:9000-9016 (`door`) (a port is a socket",
        ] {
            assert!(said.contains(line), "{said}");
        }

        let config = quic::config(&authority, 8 << 10);
        let doors = ["10.77.0.1:8443", "10.78.0.9:8443", "10.78.0.255:8443", "10.78.1.7:8500", "10.78.1.7:8501", "[fd78::9]:8443"];
        let visit = |engine: &Engine, after: &str| {
            for door in doors {
                net.outside(|| finish(&mut visitors(door, &config), true, &format!("{door}, {after}")));
            }
            for door in ["10.77.0.1:5300", "10.78.0.9:5300", "10.78.1.9:53", "10.78.0.9:53", "[fd78::9]:5400", "[fd78::9]:5401", "10.78.0.9:5400"] {
                let (caller, word) = (net.outside(|| Caller::new(door.parse().expect("an address"))), format!("{door} {after}"));
                for _ in 0..10 {
                    assert_eq!(caller.ask(word.as_bytes()), word.as_bytes(), "who is connected hears nobody else");
                }
            }
            let metrics = engine.metrics();
            assert!(metrics.sum("lookups_total") > 100, "datagrams that were led");
            assert_eq!(metrics.sum("quic_passed_on_total"), 0, "datagrams that came to the wrong worker");
        };
        visit(&engine, "as it began");
        for door in ["10.78.1.9:5300", "10.78.0.9:5301", "[fd78::9]:5402", "10.78.1.8:9000", "10.78.1.8:8500"] {
            let caller = net.outside(|| Caller::new(door.parse().expect("an address")));
            caller.send(b"anybody?");
            assert!(caller.hear().is_err(), "{door}");
        }
        let programs = engine.status()["programs"].as_array().expect("a row for each").clone();
        for group in ["10.77.0.1:8443 over UDP", "10.78.1.7:8500 over UDP", "10.78.1.7:8501 over UDP", "[fd77::1]:8443 over UDP"] {
            let row = programs.iter().find(|row| row["group"].as_str().is_some_and(|name| name.starts_with(group)));
            let count = |verdict: &str| row.and_then(|row| row[verdict].as_u64()).unwrap_or_default();
            assert!(count("by_id") > 12 && count("by_hash") >= 12, "{group}: {programs:?}");
            assert_eq!((count("stranger"), count("elsewhere"), count("missing")), (0, 0, 0), "{group}: {programs:?}");
        }
        let plays = |name: &str, words: &[&str]| {
            let script = script(name).display().to_string();
            let words = [&[script.as_str()], words].concat();
            let ran = net.outside(|| Tool::new(python(), 80).args(words.iter().copied()).run());
            assert_eq!(ran.text().lines().last(), Some("all well"), "{words:?}: {}{}", ran.text(), ran.err);
        };
        for door in ["10.78.0.9:8443", "10.78.1.7:8501", "[fd78::9]:8443"] {
            plays("h3_client.py", &["moves", door]);
        }
        // Ports of one number: what HTTP/2 is told is true at each address. Of several numbers: nobody is told.
        let authority_file = authority.file.display().to_string();
        plays("h3_curl.py", &["advertised", "[fd78::9]:8443", &authority_file]);

        let more = "[[pool]]\nname = \"more\"\nendpoints = [\"127.0.0.1:9\"]\n[[route]]\npath = \"/more\"\npool = \"more\"\n";
        engine.adopt(&format!("{}\n{more}", engine.config()));
        visit(&engine, "after another configuration");

        // Each has its worker, and they end one after the other: of the two, the last to have a client ends last.
        net.outside(|| {
            let mut visitors = visitors("10.78.0.9:8443", &config);
            until("each has begun", PATIENCE, || {
                visitors.iter_mut().filter(|visitor| visitor.received == 0).for_each(|visitor| visitor.turn(DOWNLOAD));
                visitors.iter().all(|visitor| visitor.received > 0)
            });
            engine.terminate();
            while let Some(visitor) = visitors.pop() {
                finish(&mut [visitor], false, "while it drains");
            }
        });
        assert!(engine.wait(PATIENCE).success());

        let engine = setup.clone().start();
        visit(&engine, "again");
        engine.kill();
        drop(engine);
        let caller = net.outside(|| Caller::new("10.78.0.9:5300".parse().expect("an address")));
        caller.send(b"anybody?");
        assert!(caller.hear().is_err(), "nothing of it stays");

        let Some(launcher) = with_capabilities(&["net_bind_service"]) else { return };
        let engine = setup.launched_by(launcher).start();
        assert!(engine.err().contains("goes without: further addresses (needs CAP_BPF and CAP_NET_ADMIN"), "{}", engine.err());
        let ask = |door: &str| {
            let caller = net.outside(|| Caller::new(door.parse().expect("an address")));
            caller.send(b"hello");
            caller.hear().is_ok()
        };
        assert!(ask("10.77.0.1:5300") && !ask("10.78.0.9:5300"));
    }
}

/// Doors of HTTP/3 and of flows, of both families, with further networks and ports.
fn further_doors(setup: Setup, tls: &str, echo: &Echo) -> Setup {
    let also = "also = [\"10.78.0.0/24:8443\", \"10.78.1.7:8500-8501\", \"10.78.1.8:9000-9016\"]";
    let setup = setup.at("10.77.0.1:8443".parse().expect("an address")).listen_line(tls).listen_line(also);
    let door = |name: &str, addr: &str, also: &str, more: &str| {
        format!("[[listen]]\nname = \"{name}\"\naddr = \"{addr}\"\nalso = [{also}]\n{more}")
    };
    let flows = "protocol = \"udp\"\npool = \"echo\"";
    let dns = "\"10.78.0.0/24:5300\", \"10.78.1.0/24:53\", \"10.78.0.0/24:53\"";
    let any = "\"[fd78::/64]:5400-5401\", \"10.78.0.0/24:5400\"";
    setup
        .more(&door("six", "[fd77::1]:8443", "\"[fd78::/64]:8443\"", tls))
        .more(&door("dns", "10.77.0.1:5300", dns, flows))
        .more(&door("any", ":5400", any, flows))
        .more(&format!("[[pool]]\nname = \"echo\"\nendpoints = [\"{}\"]", echo.address))
}

const DOWNLOAD: &str = "/bytes/60000";

fn visitors(door: &str, config: &quinn_proto::ClientConfig) -> Vec<quic::Visitor> {
    let door = door.parse().expect("an address");
    (0..12).map(|_| quic::Visitor::connect(door, config)).collect()
}

/// Until all of them have their answers, having moved once in the midst of them if that is wanted.
fn finish(visitors: &mut [quic::Visitor], moves: bool, what: &str) {
    let mut moved = vec![!moves; visitors.len()];
    until(what, PATIENCE, || {
        for (visitor, moved) in visitors.iter_mut().zip(&mut moved).filter(|(visitor, _)| visitor.ended.is_none()) {
            visitor.turn(DOWNLOAD);
            if visitor.received > 20_000 && !*moved {
                visitor.move_on();
                *moved = true;
            }
        }
        visitors.iter().all(|visitor| visitor.ended.is_some())
    });
    for visitor in visitors {
        assert!(matches!(visitor.ended, Some(Ok(()))) && visitor.received > 60_000, "{what}: {:?}", visitor.ended);
    }
}
