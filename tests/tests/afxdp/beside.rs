//! AF_XDP on an interface that the shield and the balancer stand on as well: what each of them makes of packets, and that each comes and goes without a gap for the others. None of it has CAP_PERFMON.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use harness::{Caller, Driver, Engine, H3Door, Origin, PATIENCE, Setup, Sharing, Street, quic, run, until};

use super::{packets, ways};

/// The host of the engine, who speaks to it, who is denied, and whom VIPs lead to.
const HOSTS: [&str; 4] = ["edge", "client", "bad", "back"];
const PAGES: &str = "10.78.0.1:8443";
const FLOWS: &str = "10.78.0.1:5300";
const VIP: &str = "10.79.0.1:5301";
const BACK: &str = "10.78.0.4:5301";
/// Where packets for endpoints of VIPs come from.
const OURS: &str = "10.78.1.1";

const SHIELD: &str = "[shield]\ninterfaces = [\"eth0\"]\ndeny = [\"10.78.0.3\"]\n";

/// How long it takes to see that nothing comes.
const SILENCE: Duration = Duration::from_millis(300);

/// Programs on the interface, in their order.
type Programs = &'static [&'static str];

struct Edge {
    door: H3Door,
    /// Its file without any program.
    bare: String,
    mode: &'static str,
    /// What the origin of flows has heard, and what of it is of who is denied.
    heard: Arc<[AtomicU64; 2]>,
    street: Street,
    /// What lets frames that a native program has sent back come in.
    _bridge: Option<Engine>,
}

impl Edge {
    /// With these programs; `None` where they are not granted.
    fn build(driver: Driver, mode: &'static str, programs: Programs) -> Option<Self> {
        let street = Street::build(&HOSTS)?;
        let bridge = (mode == "native").then(|| {
            street.go(Street::BRIDGE);
            let shield = "[shield]\ninterfaces = [\"edge\"]\nmode = \"native\"";
            Setup::new(Driver::Epoll).to("127.0.0.1:9").more(shield).start()
        });
        street.ip("edge", &["addr", "add", &format!("{OURS}/32"), "dev", "lo"]);
        street.forwards("edge");
        street.ip("client", &["route", "add", "10.79.0.0/16", "via", "10.78.0.1"]);
        street.at("back", || echo(BACK, Arc::default()));
        street.go("edge");
        let heard = Arc::<[AtomicU64; 2]>::default();
        let flows = echo("127.0.0.1:0", Arc::clone(&heard));
        let origin = Origin::standard();
        let more = format!(
            "[[listen]]\nname = \"flows\"\naddr = \"{FLOWS}\"\nprotocol = \"udp\"\npool = \"flows\"\n\n\
             [[pool]]\nname = \"flows\"\nendpoints = [\"{flows}\"]\n"
        );
        // All that any of it needs; the last one for memory that others lock at the same time.
        let capabilities = "-all,+bpf,+net_admin,+net_raw,+net_bind_service,+dac_override,+ipc_lock";
        let weak = ["setpriv", "--bounding-set", capabilities];
        let setup = Setup::new(driver).origin(&origin).at(at(PAGES)).more(&more).launched_by(weak);
        let door = H3Door::of(setup, "");
        let edge = Self { bare: door.engine.config(), door, mode, heard, street, _bridge: bridge };
        // Origins live as long as the test.
        std::mem::forget(origin);
        edge.become_those(programs);
        let without = edge.door.engine.status()["goes_without"].to_string();
        if without.contains("CAP_") || without.contains("not supported") {
            println!("SKIPPED: {without}");
            return None;
        }
        assert_eq!(without, "[]");
        Some(edge)
    }

    fn file(&self, programs: Programs) -> String {
        let mode = format!("mode = \"{}\"", self.mode);
        let mut file = self.bare.clone();
        if programs.contains(&"afxdp") {
            file = file.replacen("[engine]\n", &format!("[engine]\naf_xdp = {{ interface = \"eth0\", {mode} }}\n"), 1);
        }
        if programs.contains(&"shield") {
            file.push_str(&format!("{SHIELD}{mode}\n"));
        }
        if programs.contains(&"balance") {
            file.push_str(&format!(
                "[balance]\ninterfaces = [\"eth0\"]\nnat = [\"{OURS}\"]\n{mode}\n\
                 [[vip]]\nname = \"back\"\naddr = \"{VIP}\"\nprotocol = \"udp\"\nforward = \"nat\"\npool = \"back\"\n\
                 [[pool]]\nname = \"back\"\nendpoints = [\"{BACK}\"]\n"
            ));
        }
        file
    }

    /// `penstock reload`, after which just these stand there.
    fn become_those(&self, programs: Programs) {
        self.door.engine.adopt(&self.file(programs));
    }

    /// The operator's word on who is behind the VIP.
    fn set_endpoint(&self, to: &str) {
        let admin = self.door.engine.admin.to_string();
        let words = ["set", "endpoint", BACK, to, "--admin", &admin];
        harness::Tool::new(harness::binary(), 20).args(words).succeed();
    }

    fn programs(&self) -> serde_json::Value {
        let status = self.door.engine.status();
        assert_eq!(status["goes_without"].to_string(), "[]");
        status["interfaces"].clone()
    }

    /// What each program is there for is done, and what none is there for is not.
    fn does_what_those_do(&self, programs: Programs) {
        let has = |program| programs.contains(&program);
        let rows = self.programs();
        if programs.is_empty() {
            assert_eq!(rows, serde_json::json!([]));
        } else {
            let wanted = serde_json::json!([{ "interface": "eth0", "mode": self.mode, "programs": programs }]);
            assert_eq!(rows, wanted);
        }
        let before = self.door.engine.metrics();
        self.street.at("client", || {
            assert_eq!(Caller::new(at(FLOWS)).ask(b"hello"), b"hello");
            visit(&self.door);
        });
        let received = self.door.engine.metrics().since(&before, "afxdp_received_total");
        assert_eq!(received > 0, has("afxdp"), "{programs:?}: {received} datagrams came past the kernel");
        let denied = || self.heard[1].load(Ordering::SeqCst);
        let (before, taken) = (denied(), packets(&self.door.engine, "taken"));
        self.street.at("bad", || {
            let bad = Caller::new(at(FLOWS));
            bad.0.set_read_timeout(Some(SILENCE)).expect("a socket");
            bad.send(b"bad");
            assert_eq!(bad.hear().is_err(), has("shield"), "{programs:?}");
        });
        assert_eq!(denied() == before, has("shield"), "{programs:?}");
        if has("shield") && has("afxdp") {
            assert_eq!(packets(&self.door.engine, "taken"), taken, "what is denied comes to nobody behind the shield");
        }
        assert_eq!(self.street.at("client", || vip_answers(&Caller::new(at(VIP)))), has("balance"), "{programs:?}");
    }
}

fn at(address: &str) -> SocketAddr {
    address.parse().expect("an address")
}

/// Sends back what it hears, and counts that, and apart what is of who is denied.
fn echo(address: &str, heard: Arc<[AtomicU64; 2]>) -> SocketAddr {
    let socket = UdpSocket::bind(address).expect("a port of its own");
    let address = socket.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        let mut room = [0; 2_048];
        while let Ok((length, from)) = socket.recv_from(&mut room) {
            heard[0].fetch_add(1, Ordering::SeqCst);
            heard[1].fetch_add(u64::from(room[..length].starts_with(b"bad")), Ordering::SeqCst);
            let _ = socket.send_to(&room[..length], from);
        }
    });
    address
}

/// Whether who stands behind the VIP is reached. The neighbours on the way are asked for when they are first needed.
fn vip_answers(caller: &Caller) -> bool {
    caller.0.set_read_timeout(Some(SILENCE)).expect("a socket");
    (0..4).any(|_| caller.0.send(b"vip").is_ok() && caller.hear().is_ok_and(|answer| answer == b"vip"))
}

/// A download by HTTP/3.
fn visit(door: &H3Door) {
    let mut visitor = quic::Visitor::connect(at(PAGES), &quic::config(&door.authority, 64 << 10));
    until("an answer", PATIENCE, || {
        visitor.turn("/bytes/100000");
        visitor.ended.is_some()
    });
    assert_eq!(visitor.ended, Some(Ok(())));
    visitor.close();
}

/// Asks without end, each time when the last answer has come, and never again: what is lost is told.
fn asks_on(caller: &Caller, over: &AtomicBool) -> Result<u64, String> {
    let mut asked = 0_u64;
    while !over.load(Ordering::SeqCst) {
        asked += 1;
        let said = asked.to_string();
        caller.send(said.as_bytes());
        match caller.hear() {
            Ok(heard) if heard == said.as_bytes() => {}
            other => return Err(format!("question {asked}: {other:?}")),
        }
    }
    Ok(asked)
}

fn all_three(driver: Driver, mode: &'static str) {
    run(Sharing::Shared, move || {
        let Some(mut edge) = Edge::build(driver, mode, &["shield", "balance", "afxdp"]) else { return };
        edge.does_what_those_do(&["shield", "balance", "afxdp"]);
        let (received, sent, _) = ways(&edge.door.engine);
        assert!(received > 10 && sent > 50, "{received} {sent}");
        assert!(edge.door.engine.metrics().sum("vip_packets_total") > 0);
        // Who serves is followed, too, where the balancer came with a configuration.
        edge.set_endpoint("maint");
        let vip = || edge.street.at("client", || vip_answers(&Caller::new(at(VIP))));
        until("the VIP has nobody", PATIENCE, || !vip());
        edge.set_endpoint("ready");
        until("the VIP has somebody", PATIENCE, vip);
        let link = || edge.street.ip("edge", &["-d", "link", "show", "dev", "eth0"]);
        assert!(link().contains("prog/xdp"));
        let of_ours = || harness::Tool::new("bpftool", 20).args(["prog", "show"]).run().text();
        let is_left = |id: &str| of_ours().lines().any(|line| line.starts_with(&format!("{id}: ")));
        let ids = programs_of(edge.door.engine.pid());
        assert!(ids.len() >= 3, "{ids:?}");
        edge.door.engine.kill();
        edge.door.engine.wait(PATIENCE);
        until("the interface is free again", PATIENCE, || !link().contains("prog/xdp"));
        if xtask::place::program("bpftool").is_some() {
            until("the programs are gone", PATIENCE, || !ids.iter().any(|id| is_left(id)));
        }
    });
}

/// Programs that a process has descriptors of.
fn programs_of(pid: u32) -> Vec<String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("it is ours");
    let id = |text: String| text.lines().find_map(|line| Some(line.strip_prefix("prog_id:")?.trim().to_owned()));
    let ids = entries.flatten().filter_map(|entry| id(std::fs::read_to_string(entry.path()).ok()?));
    ids.collect()
}

/// By one reload after the other, while flows are asked all the time, who is denied tries all the time, and so does who asks at the VIP where that is served before and after.
fn come_and_go(driver: Driver, mode: &'static str) {
    const STEPS: [Programs; 15] = [
        &["shield", "balance", "afxdp"],
        &["balance", "afxdp"],
        &["shield", "balance", "afxdp"],
        &["shield", "balance"],
        &["shield", "balance", "afxdp"],
        &["shield", "afxdp"],
        &["afxdp"],
        &["shield", "afxdp"],
        &["shield"],
        &["balance"],
        &["shield", "balance"],
        &["balance", "afxdp"],
        &["afxdp"],
        &[],
        &["shield", "balance", "afxdp"],
    ];
    run(Sharing::Shared, move || {
        let Some(edge) = Edge::build(driver, mode, &["afxdp"]) else { return };
        let mut before: Programs = &["afxdp"];
        edge.does_what_those_do(before);
        let client = edge.street.at("client", || Caller::new(at(FLOWS)));
        let flows = edge.door.engine.metrics();
        assert_eq!(client.ask(b"hello"), b"hello");
        for after in STEPS {
            let stays = |program| before.contains(&program) && after.contains(&program);
            let vip = stays("balance").then(|| {
                let caller = edge.street.at("client", || Caller::new(at(VIP)));
                assert!(vip_answers(&caller));
                caller.0.set_read_timeout(Some(PATIENCE)).expect("a socket");
                caller
            });
            let denied = edge.heard[1].load(Ordering::SeqCst);
            let over = AtomicBool::new(false);
            let (asked, asked_vip) = std::thread::scope(|scope| {
                let flows = scope.spawn(|| asks_on(&client, &over));
                let vip = vip.as_ref().map(|vip| scope.spawn(|| asks_on(vip, &over)));
                let bad = scope.spawn(|| {
                    edge.street.at("bad", || {
                        let bad = Caller::new(at(FLOWS));
                        while !over.load(Ordering::SeqCst) {
                            bad.send(b"bad");
                            std::thread::sleep(Duration::from_micros(50));
                        }
                    });
                });
                std::thread::sleep(Duration::from_millis(50));
                edge.become_those(after);
                std::thread::sleep(Duration::from_millis(50));
                over.store(true, Ordering::SeqCst);
                bad.join().expect("it goes on");
                let ended = |asked: std::thread::ScopedJoinHandle<'_, _>| asked.join().expect("it goes on");
                (ended(flows), vip.map_or(Ok(1_000), ended))
            });
            let step = format!("{before:?} to {after:?}");
            for asked in [asked, asked_vip] {
                let asked = asked.unwrap_or_else(|lost| panic!("{step}: {lost}"));
                assert!(asked > 20, "{step}: {asked} questions");
            }
            if stays("shield") {
                assert_eq!(edge.heard[1].load(Ordering::SeqCst), denied, "{step}: who is denied got in");
            }
            edge.does_what_those_do(after);
            before = after;
        }
        // One flow for the client, whichever way its datagrams came; and each visit's own.
        assert_eq!(edge.door.engine.metrics().sum("datagrams_dropped_total"), flows.sum("datagrams_dropped_total"));
    });
}

#[test]
fn all_three_on_one_interface_native() {
    all_three(Driver::Uring, "native");
}

#[test]
fn all_three_on_one_interface_generic() {
    all_three(Driver::Epoll, "generic");
}

#[test]
fn each_comes_and_goes_native() {
    come_and_go(Driver::Uring, "native");
}

#[test]
fn each_comes_and_goes_generic() {
    come_and_go(Driver::Epoll, "generic");
}
