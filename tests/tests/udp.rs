//! Datagrams passed through: flows of clients, replies, bounds, endpoints that come and go, QUIC and DNS as they are spoken.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use harness::{
    Authority, Caller, Driver, Echo, Engine, Folder, Kind, Net, Origin, PATIENCE, Setup, Tool, binary, free_address,
    on_each_driver, pattern, quic, until,
};
use quinn_proto::ClientConfig;

/// Of QUIC, and how often each comes from elsewhere.
const CLIENTS: usize = 40;
const MOVES: usize = 2;
/// Bytes of a datagram that is worth a turn of its own.
const LONG_DATAGRAM: usize = 1_000;
const LONG_PATH: &str = "/bytes/60000";
/// What they may take on a machine that does other things too.
const LONG: Duration = Duration::from_secs(120);

on_each_driver! {
    /// Every length that a datagram can have, in both directions, and many in a row.
    fn datagrams_of_any_length(driver) {
        let origin = Echo::start();
        let engine = Setup::new(driver).udp().to(&origin.address.to_string()).start();
        let client = Caller::new(engine.address);
        for length in [0, 1, 100, 1_200, 1_472, 9_000, 65_507] {
            let said = pattern(length as u64, length);
            assert!(client.ask(&said) == said, "{length} bytes");
        }
        // A window of them at a time: no more than sockets hold.
        for round in 0..50_u64 {
            let said: Vec<Vec<u8>> = (0..20).map(|at| pattern(round * 20 + at, 1_200)).collect();
            said.iter().for_each(|one| client.send(one));
            let mut heard: Vec<Vec<u8>> = said.iter().map(|_| client.hear().expect("a reply")).collect();
            heard.sort();
            let mut wanted = said;
            wanted.sort();
            assert!(heard == wanted, "round {round}");
        }
        let metrics = engine.metrics();
        assert_eq!((metrics.sum("udp_flows_total"), metrics.sum("datagrams_dropped_total")), (1, 0));
        assert_eq!((metrics.sum("datagrams_in_total"), metrics.sum("datagrams_out_total")), (1_007, 1_007));
    }

    /// Over an interface that takes 1,500 bytes at a time: what is larger comes in fragments, one alone and many in a row; but nothing of QUIC does (RFC 9000 §14).
    fn what_the_path_does_not_take_goes_in_fragments(driver) {
        let Some(net) = Net::enter() else {
            println!("SKIPPED: no network namespaces are granted here");
            return;
        };
        let origin = Echo::start();
        for (at, address) in [Net::V4, Net::V6].into_iter().enumerate() {
            let door = SocketAddr::new(address.parse().expect("an address"), 5_300 + at as u16);
            let engine = Setup::new(driver).udp().at(door).to(&origin.address.to_string()).start();
            net.outside(|| {
                let client = Caller::new(door);
                for length in [1_200, 1_500, 4_096, 60_000] {
                    let said = pattern(length as u64, length);
                    assert!(client.ask(&said) == said, "{length} bytes by {door}");
                }
                let said: Vec<Vec<u8>> = (0..20).map(|at| pattern(at, 2_000)).collect();
                said.iter().for_each(|one| client.send(one));
                let mut heard: Vec<Vec<u8>> = said.iter().map(|_| client.hear().expect("a reply")).collect();
                heard.sort();
                let mut wanted = said;
                wanted.sort();
                assert!(heard == wanted, "{door}");
            });
            assert_eq!(engine.metrics().sum("datagrams_out_total"), 24);
        }
        let door = SocketAddr::new(Net::V4.parse().expect("an address"), 5_310);
        let setup = Setup::new(driver).udp().at(door).listen_line("udp.quic = true");
        let engine = setup.to(&origin.address.to_string()).start();
        net.outside(|| {
            let client = Caller::new(door);
            client.send(&pattern(1, 4_096));
            assert!(client.ask(b"small") == b"small", "and the other one was dropped");
        });
        assert_eq!(origin.heard(), 2 * 24 + 2);
        drop(engine);
    }

    /// Clients hear what is theirs, from the address that they asked.
    fn everybody_hears_his_own(driver) {
        let origin = Echo::start();
        let port = free_address().port();
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let engine = Setup::new(driver).cores("0-1").udp().at(any).to(&origin.address.to_string()).start();
        let clients: Vec<_> = (0..60_u8)
            .map(|number| {
                let to = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 1 + number % 3), port));
                std::thread::spawn(move || {
                    // A connected socket hears nobody but whom it asked.
                    let client = Caller::new(to);
                    for round in 0..20_u64 {
                        let said = pattern(u64::from(number) << 32 | round, 64);
                        assert!(client.ask(&said) == said);
                    }
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().expect("its own replies"));
        assert_eq!(engine.metrics().sum("udp_flows_total"), 60);
    }

    /// Flows are connections to the listener's bounds: who comes beyond them gets nothing, and who is there goes on.
    fn flows_are_bounded(driver) {
        let origin = Echo::start();
        let setup = || Setup::new(driver).udp().to(&origin.address.to_string());
        let engine = setup().listen_line("max_connections = 4").start();
        let clients: Vec<Caller> = (0..4).map(|_| Caller::new(engine.address)).collect();
        clients.iter().for_each(|client| drop(client.ask(b"in")));
        let late = Caller::new(engine.address);
        late.send(b"too late");
        engine.until_metric("datagrams_dropped_total", 1);
        clients.iter().for_each(|client| assert_eq!(client.ask(b"still in"), b"still in"));
        assert_eq!((engine.metrics().sum("connections_open"), engine.metrics().sum("udp_flows_total")), (4, 4));
        let engine = setup().listen_line("max_connections_per_client = 2").start();
        let clients: Vec<Caller> = (0..3).map(|_| Caller::new(engine.address)).collect();
        clients.iter().for_each(|client| client.send(b"in"));
        engine.until_metric("connections_refused_total", 1);
        engine.until_metric("udp_flows_total", 2);
    }

    /// A silent flow is forgotten, and its client begins another one; one that owes no more replies is at once.
    fn flows_end(driver) {
        let origin = Echo::start();
        let setup = |lines: &str| Setup::new(driver).udp().listen_line(lines).to(&origin.address.to_string()).start();
        let engine = setup("udp.idle = \"300ms\"");
        let client = Caller::new(engine.address);
        for flows in 1..=2 {
            assert_eq!(client.ask(b"once more"), b"once more");
            assert_eq!(engine.metrics().sum("udp_flows_total"), flows);
            engine.until_metric("connections_open", 0);
        }
        let engine = setup("udp = { idle = \"60s\", replies = 1 }");
        let client = Caller::new(engine.address);
        assert_eq!(client.ask(b"question"), b"question");
        engine.until_metric("connections_open", 0);
        // Two questions at once are owed two replies.
        client.send(b"mute");
        client.send(b"question");
        assert_eq!(client.hear().expect("one of two"), b"question");
        assert_eq!(engine.metrics().sum("connections_open"), 1);
    }

    /// Whoever is never replied to may have lied about its address: its flow ends long before its time.
    fn who_is_never_replied_to_is_soon_forgotten(driver) {
        let origin = Echo::start();
        let engine = Setup::new(driver).udp().listen_line("udp.idle = \"10m\"").to(&origin.address.to_string()).start();
        let (heard, unheard) = (Caller::new(engine.address), Caller::new(engine.address));
        assert_eq!(heard.ask(b"hello"), b"hello");
        unheard.send(b"mute");
        engine.until_metric("udp_flows_total", 2);
        until("one is forgotten", Duration::from_secs(60), || engine.metrics().sum("connections_open") == 1);
        assert_eq!(heard.ask(b"still here"), b"still here");
        assert_eq!(engine.metrics().sum("udp_flows_total"), 2);
    }

    /// A flow's own port takes replies of its endpoint, and nobody else's.
    fn nobody_else_is_heard(driver) {
        let origin = Echo::start();
        let engine = Setup::new(driver).udp().to(&origin.address.to_string()).start();
        let client = Caller::new(engine.address);
        assert_eq!(client.ask(b"hello"), b"hello");
        let port = origin.last_port();
        let stranger = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        stranger.send_to(b"forged", ("127.0.0.1", port)).expect("it is sent");
        engine.until_metric("datagrams_stray_total", 1);
        assert_eq!(client.ask(b"and now"), b"and now");
    }

    /// Endpoints that owe replies have failed: after a few, those that are alive get all.
    fn a_mute_endpoint_is_left(driver) {
        let (alive, mute) = (Echo::start(), Echo::start());
        mute.mute.store(true, Ordering::SeqCst);
        let engine = Setup::new(driver)
            .udp()
            .listen_line("udp = { idle = \"200ms\", replies = 1 }")
            .to(&alive.address.to_string())
            .to(&mute.address.to_string())
            .pool_line("balance = \"round-robin\"")
            .start();
        until("the mute one's breaker is open", PATIENCE, || {
            Caller::new(engine.address).send(b"question");
            std::thread::sleep(Duration::from_millis(20));
            engine.endpoint(&mute.address.to_string())["breaker"] == "open"
        });
        for _ in 0..20 {
            assert_eq!(Caller::new(engine.address).ask(b"question"), b"question");
        }
    }

    /// An endpoint that is taken out loses its flows, and their clients notice nothing but another one's replies.
    fn an_endpoint_is_taken_out(driver) {
        let (one, two) = (Echo::start(), Echo::start());
        let engine = Setup::new(driver)
            .udp()
            .to(&one.address.to_string())
            .to(&two.address.to_string())
            .pool_line("balance = \"round-robin\"")
            .start();
        let clients: Vec<Caller> = (0..6).map(|_| Caller::new(engine.address)).collect();
        clients.iter().for_each(|client| drop(client.ask(b"hello")));
        assert_eq!((one.heard(), two.heard()), (3, 3));
        Tool::new(binary(), 10)
            .args(["set", "endpoint", &one.address.to_string(), "maint", "--admin", &engine.admin.to_string()])
            .succeed();
        // The workers hear of it by a word that they read at each choice.
        clients.iter().for_each(|client| assert_eq!(client.ask(b"again"), b"again"));
        assert_eq!((one.heard(), two.heard()), (3, 9));
    }

    /// Twice as much as its class may carry: what comes through goes at the class's pace and in its order, and the rest is dropped and counted.
    alone fn datagrams_keep_to_their_class(driver) {
        let origin = Echo::start();
        let engine = paced(driver, &origin, "bandwidth = \"500kB/s\"", "");
        let client = Caller::new(engine.address);
        let sender = client.0.try_clone().expect("a socket");
        let begun = Instant::now();
        let flood = std::thread::spawn(move || {
            let mut sent = 0_u64;
            while begun.elapsed() < Duration::from_secs(3) {
                while sent < begun.elapsed().as_millis() as u64 {
                    sender.send(&pattern(sent, LONG_DATAGRAM)).expect("it is sent");
                    sent += 1;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            sent
        });
        let (mut heard, mut last, mut times) = (0_u64, 0, Vec::new());
        client.0.set_read_timeout(Some(Duration::from_millis(500))).expect("a socket");
        while let Ok(said) = client.hear() {
            let number = (last..10_000).find(|&number| said == pattern(number, LONG_DATAGRAM)).expect("one of those sent");
            (heard, last) = (heard + 1, number + 1);
            times.push(begun.elapsed().as_secs_f64());
        }
        let sent = flood.join().expect("no complaint");
        let (Some(first), Some(end)) = (times.first(), times.last()) else { panic!("nothing came through") };
        let rate = (heard - 1) as f64 * LONG_DATAGRAM as f64 / (end - first);
        assert!((490_000.0..510_000.0).contains(&rate), "{rate} bytes a second");
        let metrics = engine.metrics();
        let lost = sent - heard;
        assert_eq!((metrics.sum("datagrams_in_total"), metrics.sum("datagrams_dropped_total")), (sent, lost));
        assert_eq!(metrics.sum("class_unserved_total"), lost, "each with its reason");
        assert!(metrics.sum("class_paced_total") > 1_000);
    }

    /// A burst is smoothed as far as a flow's datagrams have room to wait; what is beyond that is dropped at once.
    fn so_many_datagrams_wait_and_no_more(driver) {
        let origin = Echo::start();
        // Of a faster one, more than a flow's room would leave in the time that a datagram waits.
        let engine = paced(driver, &origin, "bandwidth = \"3MB/s\"", "");
        let client = Caller::new(engine.address);
        client.ask(b"hello");
        (0..3_000).for_each(|number| client.send(&pattern(number, LONG_DATAGRAM)));
        let full = "class_unserved_total{class=\"paced\",why=\"queue-full\"}";
        until("some found no room", PATIENCE, || engine.metrics().sum(full) > 0);
        client.0.set_read_timeout(Some(Duration::from_millis(200))).expect("a socket");
        until("there is room again", PATIENCE, || {
            client.send(b"and now");
            std::iter::from_fn(|| client.hear().ok()).any(|said| said == b"and now")
        });
    }

    /// What is told to have gone to clients has; replies that found no turn have not.
    fn replies_that_are_dropped_are_not_told(driver) {
        let endpoint = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let address = endpoint.local_addr().expect("its address");
        let answering = std::thread::spawn(move || {
            let (_, from) = endpoint.recv_from(&mut [0; 64]).expect("a question");
            for number in 0..100 {
                endpoint.send_to(&pattern(number, LONG_DATAGRAM), from).expect("it is sent");
            }
        });
        let setup = Setup::new(driver).udp().to(&address.to_string()).listen_line("class = \"paced\"");
        let engine = setup.more("[classes.paced]\nbandwidth = \"100kB/s\"").start();
        let client = Caller::new(engine.address);
        client.send(b"all of them");
        answering.join().expect("no complaint");
        client.0.set_read_timeout(Some(Duration::from_secs(1))).expect("a socket");
        let heard = std::iter::from_fn(|| client.hear().ok()).count() as u64;
        let metrics = engine.metrics();
        assert!((1..100).contains(&heard), "{heard} of 100");
        assert_eq!((metrics.sum("datagrams_out_total"), metrics.sum("datagrams_dropped_total")), (heard, 100 - heard));
        assert_eq!(metrics.sum("bytes_out_total"), heard * LONG_DATAGRAM as u64);
    }

    /// Flows begin at their class's rate: the next ones wait for a moment, and those behind them are dropped.
    fn flows_begin_at_their_rate(driver) {
        let origin = Echo::start();
        let engine = paced(driver, &origin, "rate = \"20/s\"", "");
        let clients: Vec<Caller> = (0..30).map(|_| Caller::new(engine.address)).collect();
        let begun = Instant::now();
        clients.iter().for_each(|client| client.send(b"hello"));
        engine.until_metric("datagrams_in_total", 30);
        let late = "class_unserved_total{class=\"paced\",why=\"turn-too-late\"}";
        let begin = 30 - engine.metrics().sum(late);
        assert!((1..=3 + begun.elapsed().as_millis() as u64 / 50).contains(&begin), "{begin} of 30");
        engine.until_metric("udp_flows_total", begin);
        until("each that has begun is heard", PATIENCE, || origin.heard() == begin);
    }

    /// A flow whose question waits for its turn is not over with the reply to the one before.
    fn a_question_that_waits_is_replied_to(driver) {
        let origin = Echo::start();
        let engine = paced(driver, &origin, "per_client.bandwidth = \"14kB/s\"", "udp.replies = 1");
        let client = Caller::new(engine.address);
        // With the first reply the flow would be over, had the second question not come by then.
        engine.while_it_stands_still(|| [[1; 700], [2; 700]].iter().for_each(|said| client.send(said)));
        assert_eq!((client.hear().expect("at once"), client.hear().expect("in its turn")), (vec![1; 700], vec![2; 700]));
        assert_eq!(engine.metrics().sum("udp_flows_total"), 1);
        engine.until_metric("connections_open", 0);
    }

    /// QUIC goes through as it is.
    fn quic_goes_through(driver) {
        let folder = Folder::new();
        let authority = Authority::new(&folder, "ca");
        let issued = authority.issue(&folder, "back", &["127.0.0.1"], Kind::Ecdsa);
        let origin = Origin::standard();
        let back = Setup::new(driver).origin(&origin).listen_line(&issued.line()).start();
        let between = Setup::new(driver).udp().to(&back.address.to_string()).start();
        let lines = format!("tls = {{ ca = {:?} }}\nprotocol = \"h3\"", authority.file);
        let front = Setup::new(driver).to(&format!("https://{}", between.address)).pool_line(&lines).start();
        let mut client = front.client();
        for size in [1, 100_000, 5_000_000] {
            assert!(client.get(&format!("/bytes/{size}")).body == pattern(size as u64, size), "{size} bytes");
        }
        assert_eq!((back.metrics().sum("h3_connections_total"), between.metrics().sum("udp_flows_total")), (1, 1));
    }

    /// Clients of QUIC that come back from another port reach the endpoint that knows them, whichever worker hears them.
    fn quic_clients_move(driver) {
        let Through { between, backs, config, .. } = &quic_through(driver, "0-1");
        let mut visitors: Vec<_> = (0..CLIENTS).map(|_| (quic::Visitor::connect(between.address, config), 0)).collect();
        until("every client has its answer, or has given up", LONG, || {
            for (visitor, moves) in visitors.iter_mut().filter(|(visitor, _)| visitor.ended.is_none()) {
                visitor.turn(LONG_PATH);
                if *moves < MOVES && visitor.received > (*moves + 1) * 20_000 {
                    visitor.move_on();
                    *moves += 1;
                }
            }
            visitors.iter().all(|(visitor, _)| visitor.ended.is_some())
        });
        for (visitor, moves) in &visitors {
            assert_eq!((&visitor.ended, *moves), (&Some(Ok(())), MOVES), "after {} bytes", visitor.received);
        }
        // The kernel may draw a port again that another client had, and that leads to the same endpoint.
        let moved = between.metrics().sum("udp_flows_moved_total") as usize;
        assert!(moved <= MOVES * CLIENTS && moved > MOVES * CLIENTS * 3 / 4, "{moved} flows of clients that moved");
        let connections: Vec<u64> = backs.iter().map(|back| back.metrics().sum("h3_connections_total")).collect();
        assert_eq!(connections.iter().sum::<u64>(), CLIENTS as u64, "at whom they were: {connections:?}");
    }

    /// A NAT gives one client the port that it had given another, whose flow is still known: each reaches its own endpoint.
    fn quic_clients_swap_ports(driver) {
        let Through { between, backs, config, .. } = &quic_through(driver, "0");
        let mut visitors = [0, 1].map(|_| {
            let mut visitor = quic::Visitor::connect(between.address, config);
            until("a client is half through", LONG, || {
                visitor.turn(LONG_PATH);
                visitor.received > 20_000
            });
            visitor
        });
        let connections = backs.each_ref().map(|back| back.metrics().sum("h3_connections_total"));
        assert_eq!(connections, [1, 1]);
        let [one, two] = &mut visitors;
        one.swap_ports(two);
        until("both have their answers, or have given up", LONG, || {
            visitors.iter_mut().filter(|visitor| visitor.ended.is_none()).for_each(|visitor| visitor.turn(LONG_PATH));
            visitors.iter().all(|visitor| visitor.ended.is_some())
        });
        assert_eq!(visitors.each_ref().map(|visitor| visitor.ended.clone()), [Some(Ok(())), Some(Ok(()))]);
        assert_eq!(between.metrics().sum("udp_flows_moved_total"), 2);
        // Those whose ports went to others are over, long before their time: who swaps back and forth has no more of them than ports.
        between.until_metric("connections_open", 2);
    }

    /// DNS, asked by `dig` and answered by dnsmasq, over UDP and TCP on the same port.
    fn dns_goes_through(driver) {
        let address = free_address();
        let _resolver = Ending(dnsmasq(address));
        let door = free_address();
        let tcp = format!(
            "[[listen]]\nname = \"tcp\"\naddr = \"{door}\"\nprotocol = \"tcp\"\npool = \"origins\"\n"
        );
        let engine = Setup::new(driver)
            .udp()
            .at(door)
            .listen_line("udp.replies = 1")
            .to(&address.to_string())
            .more(&tcp)
            .start();
        let dig = |words: &[&str]| {
            let at = ["@127.0.0.1".to_owned(), "-p".into(), door.port().to_string(), "+tries=3".into(), "+time=3".into()];
            Tool::new("dig", 20).args(at).args(words).run().text()
        };
        until("the resolver answers", PATIENCE, || dig(&["+short", "one.test"]).trim() == "192.0.2.1");
        assert_eq!(dig(&["+short", "+tcp", "one.test"]).trim(), "192.0.2.1");
        assert!(dig(&["nobody.test"]).contains("status: NXDOMAIN"));
        let many: Vec<_> = (0..50).map(|_| "one.test").collect();
        assert_eq!(dig(&[&["+short"], &many[..]].concat()).lines().count(), 50);
        engine.until_metric("connections_open", 0);
        assert_eq!(engine.metrics().sum("datagrams_dropped_total"), 0);
    }

    /// Flags, and what a drain does: flows that are silent end, and the engine with them.
    fn serve_and_drain(driver) {
        let origin = Echo::start();
        let mut engine = Setup::new(driver).udp().to(&origin.address.to_string()).serve(&[]);
        let client = Caller::new(engine.address);
        assert_eq!(client.ask(b"hello"), b"hello");
        engine.terminate();
        assert!(engine.wait(PATIENCE).success());
    }
}

/// An engine whose datagrams are of a class with this pace.
fn paced(driver: Driver, origin: &Echo, pace: &str, listen: &str) -> Engine {
    let setup = Setup::new(driver).udp().to(&origin.address.to_string()).listen_line("class = \"paced\"");
    setup.listen_line(listen).more(&format!("[classes.paced]\n{pace}")).start()
}

/// What passes datagrams of QUIC through, to two endpoints, and how clients connect.
struct Through {
    between: Engine,
    backs: [Engine; 2],
    config: ClientConfig,
    _origin: Origin,
}

fn quic_through(driver: Driver, cores: &str) -> Through {
    let folder = Folder::new();
    let authority = Authority::new(&folder, "ca");
    let issued = authority.issue(&folder, "back", &["localhost"], Kind::Ecdsa);
    let origin = Origin::standard();
    let backs = [0, 1].map(|_| Setup::new(driver).origin(&origin).listen_line(&issued.line()).start());
    let mut setup = Setup::new(driver).cores(cores).udp().listen_line("udp.quic = true");
    for back in &backs {
        setup = setup.to(&back.address.to_string());
    }
    let between = setup.pool_line("balance = \"round-robin\"").start();
    Through { between, backs, config: quic::config(&authority, 8 << 10), _origin: origin }
}

/// A process that ends with its test.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A resolver for `.test`, which asks nobody.
fn dnsmasq(address: SocketAddr) -> Child {
    let program = xtask::place::program("dnsmasq").expect("`cargo xtask test` installs dnsmasq");
    Command::new(program)
        .args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--bind-interfaces", "--conf-file=/dev/null"])
        .args(["--pid-file=", "--user=root", "--local=/test/", "--address=/one.test/192.0.2.1"])
        .args([format!("--listen-address={}", address.ip()), format!("--port={}", address.port())])
        .spawn()
        .expect("dnsmasq starts")
}
