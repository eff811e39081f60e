//! A new configuration under a running engine: what changes, what goes on, what is refused, and that nobody loses anything by it.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use harness::h2::H2Client;
use harness::{
    Authority, Client, End, Engine, Folder, H3Door, Held, Kind, Origin, PATIENCE, Peer, Setup, TlsClient, Tool, answer,
    binary, free_address, on_each_driver, quic, until,
};
use rustls::HandshakeKind;

/// How often the configuration changes while clients are at work.
const CHANGES: usize = 40;

on_each_driver! {
    /// The next request of a connection goes by the new file; what is under way ends as it began.
    fn the_next_request_goes_by_the_new_file(driver) {
        let (old, new) = (named("old"), named("new"));
        let gate = Arc::new(AtomicBool::new(false));
        let opened = Arc::clone(&gate);
        let slow = Origin::answering(move |request| {
            if request.target() == "/slow" {
                until("the gate is open", PATIENCE, || opened.load(Ordering::SeqCst));
            }
            Some(answer("slow"))
        });
        let more = format!(
            "[[pool]]\nname = \"slow\"\nendpoints = [\"{}\"]\n[[route]]\npath = \"/slow\"\npool = \"slow\"\n",
            slow.address
        );
        let engine = Setup::new(driver).origin(&old).more(&more).start();
        let (mut first, mut waiting) = (engine.client(), engine.client());
        let mut second = H2Client::greeted(engine.address);
        assert_eq!((first.get("/").text(), second.get("/").text()), ("old".into(), "old".into()));
        waiting.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        until("it is asked", PATIENCE, || !slow.received().is_empty());

        // Pools and routes have other numbers from now on, and the slow one is no more.
        let change = |toml: String| {
            let toml = toml.replace(&more, "").replace(&old.address.to_string(), &new.address.to_string());
            toml.replace("[[pool]]\nname = \"origins\"", "[[pool]]\nname = \"also\"\nendpoints = [\"127.0.0.1:9\"]\n[[pool]]\nname = \"origins\"")
        };
        let told = changed(&engine, change);
        for line in ["configuration 2 holds", "+ pool `also`", "- pool `slow`", &format!("+{}", new.address), &format!("-{}", old.address)] {
            assert!(told.contains(line), "{line}: {told}");
        }
        assert_eq!((first.get("/").text(), second.get("/").text()), ("new".into(), "new".into()));
        assert_eq!(first.get("/slow").text(), "new", "the route that was its own is no more");
        // Only what waits holds on to what was.
        assert_eq!(engine.metrics().sum("config_generations_open"), 2);
        gate.store(true, Ordering::SeqCst);
        assert_eq!(waiting.response(false).expect("an answer").text(), "slow");
        assert_eq!(waiting.get("/").text(), "new");
        engine.until_metric("config_generations_open", 1);
        drop((first, second, waiting));
        engine.until_idle();
    }

    /// A worker that does not answer: it is refused after a while, nothing has changed for anybody, and it is adopted once that worker goes on.
    fn a_worker_that_does_not_answer(driver) {
        let (old, new) = (named("old"), named("new"));
        let engine = Setup::new(driver).cores("0-1").origin(&old).start();
        let (before, further) = (engine.config(), free_address());
        let after = before.replace(&old.address.to_string(), &new.address.to_string());
        engine.write_config(&format!("{after}\n[[listen]]\nname = \"further\"\naddr = \"{further}\"\n"));
        // On connections of their own, so that both workers are met.
        let all_say = |address, name: &str| (0..24).all(|_| Client::connect(address).get("/").text() == name);
        assert!(all_say(engine.address, "old"));

        let Some(held) = Held::of(&engine, "penstock-1") else { return println!("no thread may be stopped here") };
        let ran = engine.reload(&[]);
        assert_eq!((ran.code, ran.err.contains("1 worker does not answer")), (Some(1), true), "{}", ran.err);
        until("the other one has let go of its new door", PATIENCE, || Client::try_connect(further).is_err());
        let status = engine.page("/status").text();
        assert!(status.contains("\"number\": 1,") && status.contains(r#""refusal": "1 worker does not answer""#), "{status}");

        held.let_go();
        // It hears of both at once: that it might come, and that it does not.
        assert!(all_say(engine.address, "old"));
        assert!(Client::try_connect(further).is_err(), "a door that is nobody's");
        let ran = engine.reload(&[]);
        assert!(ran.code == Some(0) && ran.text().contains("configuration 2 holds"), "{}{}", ran.text(), ran.err);
        assert!(all_say(engine.address, "new") && all_say(further, "new"));
        engine.until_idle();
    }

    /// Requests of three protocols, tunnels and datagrams, while everything changes again and again.
    fn nobody_notices_under_load(driver) {
        let origin = Origin::standard();
        let (echo, datagrams) = (Origin::start(echo), Datagrams::start());
        let (raw, udp) = (free_address(), free_address());
        let more = format!(
            "[[listen]]\nname = \"raw\"\naddr = \"{raw}\"\nprotocol = \"tcp\"\npool = \"raw\"\n\
             [[pool]]\nname = \"raw\"\nendpoints = [\"{}\"]\n\
             [[listen]]\nname = \"udp\"\naddr = \"{udp}\"\nprotocol = \"udp\"\npool = \"udp\"\nudp.idle = \"4s\"\n\
             [[pool]]\nname = \"udp\"\nendpoints = [\"{}\"]\n",
            echo.address, datagrams.address
        );
        let door = H3Door::of(Setup::new(driver).cores("0-1").origin(&origin).more(&more), "");
        let engine = &door.engine;
        let text = engine.config();
        let (done, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
        let tls = Arc::new(door.client());
        let over = || done.load(Ordering::SeqCst);
        let count = || asked.fetch_add(1, Ordering::SeqCst);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut client = TlsClient::connect_tls(engine.address, "localhost", &tls).expect("a handshake");
                    while !over() {
                        assert_eq!(client.ask("GET /bytes/3000 HTTP/1.1\r\nHost: localhost\r\n\r\n").body.len(), 3_000);
                        count();
                    }
                });
            }
            scope.spawn(|| {
                let mut client = H2Client::connect_tls(engine.address, "localhost", (*tls).clone());
                client.greet(&[]);
                while !over() {
                    assert_eq!(client.get("/bytes/3000").body.len(), 3_000);
                    count();
                }
            });
            // Connections that come while it changes.
            scope.spawn(|| {
                while !over() {
                    let mut client = TlsClient::connect_tls(engine.address, "localhost", &tls).expect("a handshake");
                    assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").status(), 200);
                    count();
                }
            });
            scope.spawn(|| {
                let mut tunnel = Client::connect(raw);
                for number in 0..u32::MAX {
                    if over() {
                        return;
                    }
                    let words = format!("word {number:10}");
                    tunnel.send(&words);
                    assert_eq!(tunnel.take(words.len()).expect("an echo"), words.as_bytes());
                    count();
                }
            });
            scope.spawn(|| {
                let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
                socket.connect(udp).expect("an address");
                socket.set_read_timeout(Some(PATIENCE)).expect("a deadline");
                let mut heard = [0; 64];
                while !over() {
                    socket.send(b"datagram").expect("it is sent");
                    assert_eq!(socket.recv(&mut heard).expect("a reply"), 8);
                    count();
                }
            });
            scope.spawn(|| {
                door.curl("transfers", &[]);
                count();
            });
            for number in 0..CHANGES {
                let before = asked.load(Ordering::SeqCst);
                engine.write_config(&varied(&text, number));
                let ran = engine.reload(&[]);
                assert_eq!(ran.code, Some(0), "{}", ran.err);
                until("all go on", PATIENCE, || asked.load(Ordering::SeqCst) > before + 20);
            }
            // libcurl has as long as it needs.
            until("libcurl is through", PATIENCE, || engine.metrics().sum("h3_connections_total") > 0);
            done.store(true, Ordering::SeqCst);
        });
        let metrics = engine.metrics();
        assert_eq!(metrics.sum("config_generation"), 1 + CHANGES as u64);
        for counter in ["responses_server_error_total", "responses_broken_total", "no_endpoint_total", "quic_refused_total"] {
            assert_eq!(metrics.sum(counter), 0, "{counter}");
        }
        assert_eq!(datagrams.clients(), 1, "the flow goes on");
        engine.until_metric("config_generations_open", 1);
        engine.until_idle();
    }

    /// A pool that goes on keeps connections, orders, breakers; one that is met in another way keeps what was decided.
    fn what_goes_on_keeps_what_is_known_of_it(driver) {
        let (one, two, three) = (Origin::standard(), Origin::standard(), Origin::standard());
        let engine = Setup::new(driver).origin(&one).origin(&two).route_line("name = \"only\"\nbreaker = { enabled = true, failures = 3 }").start();
        let (name, other) = (one.address.to_string(), two.address.to_string());
        let mut client = engine.client();
        (0..8).for_each(|_| assert_eq!(client.get("/").status(), 200));
        set(&engine, &["endpoint", &other, "drain"]);
        set(&engine, &["breaker", &name, "closed"]);
        let connections = (one.accepted(), two.accepted());

        let told = changed(&engine, |toml| toml.replace(&format!("\"{name}\""), &format!("\"{name}\", \"{}\"", three.address)));
        assert!(told.contains(&format!("~ pool `origins`: +{}", three.address)), "{told}");
        (0..8).for_each(|_| assert_eq!(client.get("/").status(), 200));
        assert_eq!((one.accepted(), two.accepted()), connections, "connections are those from before");
        assert_eq!((three.accepted(), engine.endpoints().len()), (1, 3));
        let orders = || (engine.endpoint(&name)["breaker"].clone(), engine.endpoint(&other)["state"].clone());
        assert_eq!(orders(), ("forced closed".into(), "drain".into()));

        let told = changed(&engine, |toml| toml.replace("name = \"origins\"\n", "name = \"origins\"\nreuse.idle = \"7s\"\n"));
        assert!(told.contains("~ pool `origins`: its connections are made anew"), "{told}");
        until("idle connections are closed", PATIENCE, || one.open() + two.open() + three.open() == 0);
        (0..8).for_each(|_| assert_eq!(client.get("/").status(), 200));
        assert_eq!((one.accepted(), two.accepted()), (connections.0 + 1, connections.1), "who drains has nothing new");
        assert_eq!(orders(), ("forced closed".into(), "drain".into()));
        set(&engine, &["breaker", &name, "auto"]);

        // A route's breaker that is open stays open, and so does an endpoint's.
        set(&engine, &["route", "only", "breaker=open"]);
        assert_eq!(client.get("/").status(), 503);
        changed(&engine, |toml| toml.replace("reuse.idle = \"7s\"", "reuse.idle = \"8s\""));
        assert_eq!(client.get("/").status(), 503);
        set(&engine, &["route", "only", "breaker=auto"]);
        assert_eq!(client.get("/").status(), 200);
    }

    /// Evidence, too: who was found down by requests is not asked by them again, and who was found down by probes neither.
    fn who_is_down_stays_down(driver) {
        let healthy = Origin::standard();
        let dead = free_address();
        let health = "health = { http = \"/\", every = \"100ms\", fall = 1, rise = 1 }";
        let engine = Setup::new(driver).origin(&healthy).to(&dead.to_string()).pool_line(health).start();
        let is_down = || engine.metrics().sum("endpoint_down") == 1;
        until("it is down", PATIENCE, is_down);
        let before = engine.metrics().sum("upstream_connect_failures_total");
        for round in 0..6 {
            // Met in another way, or with one endpoint more: neither makes it well.
            let idle = format!("name = \"origins\"\nreuse.idle = \"{}s\"\n", 10 + round);
            let text = engine.config();
            let bare: String = text.lines().filter(|line| !line.starts_with("reuse.idle")).map(|line| format!("{line}\n")).collect();
            engine.write_config(&bare.replace("name = \"origins\"\n", &idle));
            assert_eq!(engine.reload(&[]).code, Some(0));
            assert!(is_down());
            let mut client = engine.client();
            (0..6).for_each(|_| assert_eq!(client.get("/").status(), 200));
        }
        assert_eq!(engine.metrics().sum("upstream_connect_failures_total"), before, "requests went to who is down");
    }

    /// What is wrong is told with its place, and changes nothing.
    fn a_file_that_is_wrong_changes_nothing(driver) {
        let origin = named("one");
        let engine = Setup::new(driver).origin(&origin).start();
        let text = engine.config();
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = taken.local_addr().expect("an address").port();
        let listener = |lines: &str| format!("{text}\n[[listen]]\nname = \"new\"\n{lines}\n");
        let cases = [
            (text.replace("pool = \"origins\"", "pool = \"origin\""), ["did you mean `origins`?", "penstock.toml:"]),
            (format!("{text}\n["), ["this is not TOML", "penstock.toml:"]),
            (text.replace("cores = ", "drain_timeout = \"9s\"\ncores = \"0-1\" # "), ["engine.cores", "restart"]),
            (format!("{text}\n[log.access]\npath = \"-\"\n"), ["log.access", "restart"]),
            (listener(&format!("addr = \"127.0.0.1:{port}\"")), ["listener `new`", "another process listens there"]),
            (listener("addr = \"127.0.0.1:1\"\ntls = { cert = \"no.pem\", key = \"no.key\" }"), ["`no.pem` cannot be read", "penstock.toml:"]),
        ];
        let mut client = engine.client();
        for (number, (text, wanted)) in cases.iter().enumerate() {
            engine.write_config(text);
            let ran = engine.reload(&[]);
            assert_eq!(ran.code, Some(1), "{}", ran.text());
            wanted.iter().for_each(|word| assert!(ran.err.contains(word), "{word}: {}", ran.err));
            assert_eq!(client.get("/").text(), "one");
            let shown = &engine.status()["configuration"];
            assert_eq!((shown["number"].as_u64(), shown["refused"].as_u64()), (Some(1), Some(number as u64 + 1)));
            assert!(shown["refusal"].as_str().is_some_and(|why| why.contains(wanted[0])), "{shown}");
        }
        let metrics = engine.metrics();
        assert_eq!((metrics.sum("config_last_reload_successful"), metrics.sum("config_reloads_total")), (0, cases.len() as u64));
        // The same as before is nothing new.
        engine.write_config(&text);
        assert!(engine.reload(&[]).text().contains("configuration 1 holds: nothing has changed"));
        assert_eq!(engine.metrics().sum("config_last_reload_successful"), 1);
        assert_eq!(engine.status()["listeners"].as_array().map(Vec::len), Some(1));
    }

    /// A dry run tells, and no more; a hang-up reads the file, and `serve` has none.
    fn by_dry_run_and_by_signal(driver) {
        let (old, new) = (named("old"), named("new"));
        let engine = Setup::new(driver).origin(&old).start();
        engine.write_config(&engine.config().replace(&old.address.to_string(), &new.address.to_string()));
        let told = engine.reload(&["--dry-run"]).text();
        assert!(told.contains("would become another one") && told.contains("~ pool `origins`"), "{told}");
        assert_eq!(engine.client().get("/").text(), "old");
        engine.hang_up();
        engine.until_metric("config_generation", 2);
        assert_eq!(engine.client().get("/").text(), "new");
        // As `logrotate` does: nothing begins anew.
        engine.hang_up();
        until("it is said", PATIENCE, || engine.err().contains("configuration 2 holds: nothing has changed"));
        engine.write_config("nonsense");
        engine.hang_up();
        until("it is said", PATIENCE, || engine.err().contains("the old configuration stays: error"));
        assert_eq!(engine.client().get("/").text(), "new");

        let served = Setup::new(driver).origin(&old).serve(&[]);
        let ran = served.reload(&[]);
        assert!(ran.code == Some(1) && ran.err.contains("no file to read anew"), "{}", ran.err);
        served.hang_up();
        assert_eq!(served.client().get("/").text(), "old");
    }

    /// Listeners that are new are bound, those that are gone let nobody in, and who came in by them goes on.
    fn listeners_come_and_go(driver) {
        let origin = named("one");
        let folder = Folder::new();
        let authority = Authority::new(&folder, "ca");
        let issued = authority.issue(&folder, "site", &["localhost"], Kind::Ecdsa);
        let engine = Setup::new(driver).cores("0-1").origin(&origin).start();
        let text = engine.config();
        let (plain, tls) = (free_address(), free_address());
        let more = format!(
            "{text}\n[[listen]]\nname = \"plain\"\naddr = \"{plain}\"\n\
             [[listen]]\nname = \"tls\"\naddr = \"{tls}\"\n{}\n",
            issued.line()
        );
        let mut before = engine.client();
        for round in 0..3 {
            engine.write_config(&more);
            let told = engine.reload(&[]).text();
            assert!(told.contains(&format!("+ listener `plain` ({plain})")), "{told}");
            let mut guest = Client::connect(plain);
            assert_eq!(guest.get("/").text(), "one");
            assert_eq!(authority.connect(tls, "localhost").ask("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").text(), "one");
            let window = 1 << 20;
            let mut visitor = quic::Visitor::connect(tls, &quic::config(&authority, window));
            until("HTTP/3 answers", PATIENCE, || {
                visitor.turn("/");
                visitor.ended.is_some()
            });
            assert_eq!(visitor.ended, Some(Ok(())), "round {round}");
            visitor.close();
            let status = engine.status();
            assert_eq!(status["listeners"].as_array().map(Vec::len), Some(3));
            if status["steering"] == "program" {
                let programs = status["programs"].to_string();
                for named in ["(`door`)", "(`plain`)", "over UDP (`tls`)"] {
                    assert!(programs.contains(named), "{named}: {programs}");
                }
                assert_eq!(steered(&engine, "(`plain`)"), 1, "round {round}");
            }

            engine.write_config(&text);
            let told = engine.reload(&[]).text();
            assert!(told.contains(&format!("- listener `tls` ({tls})")), "{told}");
            until("nobody is let in", PATIENCE, || Client::try_connect(plain).is_err() && Client::try_connect(tls).is_err());
            assert_eq!((guest.get("/").text(), before.get("/").text()), ("one".into(), "one".into()));
            drop(guest);
            // The port of UDP is free with the last connection, and nobody else's before.
            until("the port is free", PATIENCE, || UdpSocket::bind(tls).is_ok());
        }
        engine.until_metric("connections_open", 1);
        let status = engine.status();
        if status["steering"] == "program" {
            assert_eq!(status["programs"].as_array().map(Vec::len), Some(1), "{status}");
        }
    }

    /// Who is told to end while a configuration waits for its names goes by no other one any more.
    fn who_drains_changes_nothing(driver) {
        let (silent, gate) = (UdpSocket::bind("127.0.0.1:0").expect("a port"), Arc::new(AtomicBool::new(false)));
        let opened = Arc::clone(&gate);
        let origin = Origin::answering(move |_| {
            until("the gate is open", PATIENCE, || opened.load(Ordering::SeqCst));
            Some(answer("one"))
        });
        let resolver = format!("resolver = \"{}\"", silent.local_addr().expect("bound"));
        let mut engine = Setup::new(driver).engine_line(&resolver).origin(&origin).start();
        let mut waiting = engine.client();
        waiting.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        until("it is asked", PATIENCE, || !origin.received().is_empty());
        let named = "[[pool]]\nname = \"named\"\nendpoints = [\"nobody.test:80\"]\n";
        engine.write_config(&format!("{}\n{named}", engine.config()));
        let told = std::thread::scope(|scope| {
            let reloading = scope.spawn(|| engine.reload(&[]));
            // The name has been asked for: all workers have prepared themselves by then, or will have.
            silent.set_read_timeout(Some(PATIENCE)).expect("a deadline");
            silent.recv(&mut [0; 512]).expect("it is asked for");
            engine.terminate();
            reloading.join().expect("it ends")
        });
        assert!(told.code == Some(1) && told.err.contains("the engine drains"), "{:?}: {}", told.code, told.err);
        gate.store(true, Ordering::SeqCst);
        assert_eq!(waiting.response(false).expect("what had begun is served").text(), "one");
        drop(waiting);
        assert_eq!(engine.wait(PATIENCE).code(), Some(0));
    }

    /// UDP addresses of a listener that has left are its own while somebody is there.
    fn addresses_of_who_leaves_are_not_taken(driver) {
        let (origin, datagrams) = (named("one"), Datagrams::start());
        let udp = free_address();
        let engine = Setup::new(driver).origin(&origin).start();
        let text = engine.config();
        let more = format!(
            "{text}\n[[listen]]\nname = \"udp\"\naddr = \"{udp}\"\nprotocol = \"udp\"\npool = \"udp\"\nudp.idle = \"2s\"\n\
             [[pool]]\nname = \"udp\"\nendpoints = [\"{}\"]\n",
            datagrams.address
        );
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.connect(udp).expect("an address");
        socket.set_read_timeout(Some(PATIENCE)).expect("a deadline");
        let talk = || {
            socket.send(b"datagram").expect("it is sent");
            socket.recv(&mut [0; 64]).expect("a reply")
        };
        engine.write_config(&more);
        assert_eq!(engine.reload(&[]).code, Some(0));
        assert_eq!(talk(), 8);
        engine.write_config(&text);
        assert_eq!(engine.reload(&[]).code, Some(0));
        assert_eq!(talk(), 8, "the flow goes on");
        engine.write_config(&more);
        let ran = engine.reload(&[]);
        assert!(ran.code == Some(1) && ran.err.contains("still has connections"), "{}", ran.err);
        assert_eq!(talk(), 8);
        // Its time is over when it is silent.
        until("the address is free", PATIENCE, || engine.reload(&[]).code == Some(0));
        assert_eq!(talk(), 8);
        assert_eq!(datagrams.clients(), 2);
    }

    /// What clients have agreed upon by TLS they resume, unless they had to say who they are.
    fn sessions_are_resumed(driver) {
        let origin = named("one");
        let folder = Folder::new();
        let authority = Authority::new(&folder, "ca");
        let issued = authority.issue(&folder, "site", &["localhost"], Kind::Ecdsa);
        let engine = Setup::new(driver).origin(&origin).listen_line(&issued.line()).start();
        let client = Arc::new(authority.client(None));
        let visit = || {
            let mut visitor = TlsClient::connect_tls(engine.address, "localhost", &client).expect("a handshake");
            assert_eq!(visitor.ask("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").text(), "one");
            visitor.stream.conn.handshake_kind()
        };
        assert_eq!((visit(), visit()), (Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)));
        changed(&engine, |toml| toml.replace("name = \"door\"\n", "name = \"door\"\ntimeout.head = \"9s\"\n"));
        assert_eq!(visit(), Some(HandshakeKind::Resumed));
        changed(&engine, |toml| toml.replace("cert =", "early_data = true, cert ="));
        assert_eq!((visit(), visit()), (Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)));
    }

    /// Limits count on over a change: of connections, and of requests.
    fn limits_count_on(driver) {
        let origin = named("one");
        let engine = Setup::new(driver)
            .origin(&origin)
            .listen_line("max_connections_per_client = 3")
            .route_line("limit = [{ key = \"client-address\", rate = \"1/h\", burst = 4 }]")
            .start();
        let mut clients: Vec<_> = (0..2).map(|_| engine.client()).collect();
        clients.iter_mut().for_each(|client| assert_eq!(client.get("/").status(), 200));
        changed(&engine, |toml| toml.replace("name = \"origins\"\n", "name = \"origins\"\nreuse.idle = \"7s\"\n"));
        let mut third = engine.client();
        assert_eq!(third.get("/").status(), 200);
        assert!(refuses(&engine), "a fourth connection");
        assert_eq!((third.get("/").status(), third.get("/").status()), (200, 429), "four requests, and no fifth");
        changed(&engine, |toml| toml.replace("max_connections_per_client = 3", "max_connections_per_client = 4"));
        let mut fourth = engine.client();
        assert_eq!(fourth.get("/").status(), 429);
        drop((clients, third));
        engine.until_metric("connections_open", 1);
        changed(&engine, |toml| toml.replace("max_connections_per_client = 4\n", ""));
        changed(&engine, |toml| toml.replace("name = \"door\"\n", "name = \"door\"\nmax_connections_per_client = 2\n"));
        let mut fifth = engine.client();
        assert_eq!(fifth.get("/").status(), 429);
        assert!(refuses(&engine), "two are there");
    }

    /// Hundreds of changes leave nothing behind.
    fn memory_is_bounded(driver) {
        let origin = named("one");
        let engine = Setup::new(driver).origin(&origin).start();
        let text = engine.config();
        let mut parked = engine.client();
        assert_eq!(parked.get("/").text(), "one");
        let change = |number: usize| {
            engine.write_config(&varied(&text, number));
            let ran = engine.reload(&[]);
            assert_eq!(ran.code, Some(0), "{}", ran.err);
            assert_eq!(engine.client().get("/").text(), "one");
        };
        (0..20).for_each(change);
        let before = engine.memory().anonymous;
        (20..80).for_each(change);
        let after = engine.memory().anonymous;
        assert!(after < before + (2 << 20), "{before} bytes became {after}");
        // Who is parked goes by what was until he asks.
        engine.until_metric("config_generations_open", 2);
        assert_eq!(parked.get("/").text(), "one");
        engine.until_metric("config_generations_open", 1);
    }
}

/// An origin that says who it is.
fn named(name: &'static str) -> Origin {
    Origin::answering(move |_| Some(answer(name)))
}

fn echo(peer: &mut Peer) {
    while let Ok(1..) = peer.wire.fill() {
        let said = std::mem::take(&mut peer.wire.unread);
        peer.send(said);
    }
}

/// Says what it is told, and counts who does.
struct Datagrams {
    address: SocketAddr,
    clients: Arc<AtomicUsize>,
}

impl Datagrams {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("an address");
        let clients = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&clients);
        std::thread::spawn(move || {
            let (mut known, mut heard) = (std::collections::BTreeSet::new(), [0; 2048]);
            while let Ok((length, from)) = socket.recv_from(&mut heard) {
                known.insert(from);
                count.store(known.len(), Ordering::SeqCst);
                let _ = socket.send_to(&heard[..length], from);
            }
        });
        Self { address, clients }
    }

    fn clients(&self) -> usize {
        self.clients.load(Ordering::SeqCst)
    }
}

/// The same service in other words: the pool is met in another way, a listener comes or goes, routes have other numbers.
fn varied(text: &str, number: usize) -> String {
    let route = "[[route]]\npool = \"origins\"\n";
    match number % 4 {
        0 => text.replace("name = \"origins\"\n", &format!("name = \"origins\"\nreuse.idle = \"{}s\"\n", 20 + number)),
        1 => format!("{text}\n[[listen]]\nname = \"passing\"\naddr = \"127.0.0.3:{}\"\n", free_address().port()),
        2 => text.replace(route, &format!("[[route]]\npath = \"/none\"\nrespond.status = 404\n\n{route}")),
        _ => text.replace("name = \"door\"\n", &format!("name = \"door\"\ntimeout.head = \"{}s\"\n", 20 + number)),
    }
}

/// How many connections the program of a group has given to somebody.
fn steered(engine: &Engine, group: &str) -> u64 {
    let page = engine.page("/metrics").text();
    let rows = page.lines().filter(|line| line.starts_with("penstock_steering_verdicts_total") && line.contains(group));
    rows.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// What `penstock reload` says of a change that is in order.
#[track_caller]
fn changed(engine: &Engine, change: impl FnOnce(String) -> String) -> String {
    let before = engine.config();
    let after = change(before.clone());
    assert_ne!(before, after, "nothing was changed");
    engine.write_config(&after);
    let ran = engine.reload(&[]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    ran.text()
}

#[track_caller]
fn set(engine: &Engine, args: &[&str]) {
    let ran = Tool::new(binary(), 30).args(["set"]).args(args).args(["--admin", &engine.admin.to_string()]).run();
    assert_eq!(ran.code, Some(0), "{}", ran.err);
}

/// Whether a new connection is closed at once.
fn refuses(engine: &Engine) -> bool {
    let Ok(mut client) = Client::try_connect(engine.address) else { return true };
    let sent = client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    sent.is_err() || matches!(client.rest(), (bytes, End::Reset | End::Closed) if bytes.is_empty())
}
