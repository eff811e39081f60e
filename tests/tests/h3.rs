//! HTTP/3 with clients that we did not write: libcurl with ngtcp2 and nghttp3, aioquic, niquests, quiche, and `h3` over quinn. Chromium's are in `chromium.rs`.

use harness::{
    Driver, GrpcServer, H3Door, Kind, Origin, PATIENCE, Setup, TlsClient, answer, fields_text, free_address,
    on_each_driver, quic, until,
};
use serde_json::Value;

on_each_driver! {
    /// Small and large, both ways, of told length and of untold, over one connection.
    fn curl(driver) {
        let origin = Origin::standard();
        let door = H3Door::new(driver, &origin);
        door.curl("transfers", &[]);
        door.engine.until_idle();
        let metrics = door.engine.metrics();
        assert_eq!((metrics.sum("h3_connections_total"), metrics.sum("h3_faults_total")), (1, 0));
        assert_eq!(metrics.sum("requests_total"), 210);
        assert_eq!(metrics.sum("tls_handshakes_total"), 1);
    }

    /// Who has no certificate is refused where one is asked for, as over TCP.
    fn a_certificate_is_asked_for(driver) {
        let origin = Origin::standard();
        let folder = harness::Folder::new();
        let ours = harness::Authority::new(&folder, "ours");
        let good = ours.issue(&folder, "good", &["good.test"], Kind::Ecdsa);
        let door = H3Door::of(Setup::new(driver).origin(&origin), &format!(", client_ca = {:?}", ours.file));
        door.curl("certificates", &[&good.cert.display().to_string(), &good.key.display().to_string()]);
        assert_eq!(door.engine.metrics().sum("requests_total"), 1);
        door.engine.until_idle();
    }

    /// Whoever asks by HTTP/1 or 2 is told the truth about HTTP/3.
    fn it_is_advertised(driver) {
        let origin = Origin::standard();
        let door = H3Door::new(driver, &origin);
        door.curl("advertised", &[]);
    }

    fn switched_off(driver) {
        let origin = Origin::standard();
        let door = H3Door::of(Setup::new(driver).origin(&origin).listen_line("http3.enabled = false"), "");
        // Nobody has the port.
        drop(std::net::UdpSocket::bind(door.engine.address).expect("nobody has it"));
        door.curl("without", &[]);
    }

    /// quiche's HTTP/3: eight requests at once through windows that are smaller than their answers.
    fn quiche(driver) {
        foreign(driver, "quiche");
    }

    /// The crate `h3` over quinn.
    fn quinn(driver) {
        foreign(driver, "quinn");
    }

    /// niquests, with qh3 under it: it reads `Alt-Svc`, and goes over.
    fn niquests_goes_over(driver) {
        let origin = Origin::standard();
        let door = H3Door::new(driver, &origin);
        let authority = door.authority.file.display().to_string();
        let ran = door.script("h3_niquests.py", "upgrades").args([authority]).run();
        assert_eq!(ran.text().lines().last(), Some("all well"), "{}{}", ran.text(), ran.err);
        let metrics = door.engine.metrics();
        assert!(metrics.sum("h2_connections_total") >= 1);
        assert!(metrics.sum("h3_connections_total") >= 1);
        assert_eq!((metrics.sum("h2_faults_total"), metrics.sum("h3_faults_total")), (0, 0));
        door.engine.until_idle();
    }

    /// 400 requests at once on a connection that takes a hundred at a time.
    fn streams_beyond_the_limit(driver) {
        let origin = Origin::standard();
        let door = H3Door::new(driver, &origin);
        door.play("h3_client.py", "many");
        let metrics = door.engine.metrics();
        assert_eq!((metrics.sum("requests_total"), metrics.sum("h3_connections_total")), (400, 1));
        assert!(origin.accepted() <= 100, "{} connections to the origin", origin.accepted());
        door.engine.until_idle();
    }

    fn trailers(driver) {
        let origin = Origin::start(|peer| {
            while let Some(request) = peer.request() {
                if request.target() == "/told" {
                    let trailers: String = request.trailers.iter().map(|(name, value)| format!(" {name}: {value}")).collect();
                    peer.send(answer(request.text() + &trailers.to_ascii_lowercase()));
                } else {
                    peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1388\r\n");
                    peer.send([b'x'; 5_000]);
                    peer.send("\r\n0\r\nX-Sum: 5000\r\n\r\n");
                }
            }
        });
        let door = H3Door::new(driver, &origin);
        door.play("h3_client.py", "trailers");
        door.engine.until_idle();
    }

    fn expect_100_continue(driver) {
        let origin = Origin::standard();
        let door = H3Door::new(driver, &origin);
        door.play("h3_client.py", "expects");
        door.engine.until_idle();
    }

    /// Over HTTP/3 from the client, over HTTP/2 to grpcio's server.
    fn grpc(driver) {
        let server = GrpcServer::new();
        let setup = Setup::new(driver).to(&server.address.to_string()).pool_line("protocol = \"h2\"");
        let door = H3Door::of(setup, "");
        door.play("h3_client.py", "calls");
        door.engine.until_idle();
    }

    /// RFC 9220 from the client, RFC 6455 to the origin.
    fn websockets(driver) {
        let origin = free_address();
        let door = H3Door::of(Setup::new(driver).to(&origin.to_string()), "");
        let ran = door.script("h3_websocket.py", &origin.to_string()).run();
        assert_eq!(ran.text().trim(), "all well", "{}", ran.err);
        let metrics = door.engine.metrics();
        assert_eq!((metrics.sum("websockets_total"), metrics.sum("websocket_violations_total")), (3, 1));
        door.engine.until_idle();
    }

    fn sessions_are_resumed(driver) {
        let origin = Origin::standard();
        let door = H3Door::new(driver, &origin);
        door.play("h3_client.py", "resumes");
        assert_eq!(door.engine.metrics().sum("h3_connections_total"), 4);
    }

    /// 0-RTT, under the same rules as over TCP.
    fn early_data(driver) {
        let origin = Origin::answering(|request| Some(answer(fields_text(request))));
        let door = H3Door::of(Setup::new(driver).cores("auto").origin(&origin), ", early_data = true");
        door.play("h3_client.py", "early");
        let metrics = door.engine.metrics();
        assert_eq!((metrics.sum("tls_early_data_accepted_total"), metrics.sum("h3_connections_total")), (2, 4));
        door.engine.until_idle();
    }

    /// What came early and changes nothing is passed on while the client has said nothing but its first flight, and all else is not; not even with the answer at hand.
    fn early_requests_go_on_or_wait(driver) {
        let origin = Origin::standard();
        let door = H3Door::of(Setup::new(driver).cores("auto").origin(&origin), ", early_data = true");
        let config = quic::config(&door.authority, 64 << 10);
        let finish = |visitor: &mut quic::Visitor| {
            until("an answer", PATIENCE, || {
                visitor.turn("/");
                visitor.ended.is_some()
            });
            assert_eq!(visitor.ended.clone(), Some(Ok(())));
        };
        let asked = |what: &str| origin.received().iter().map(|bytes| String::from_utf8_lossy(bytes).matches(what).count()).sum::<usize>();
        finish(&mut quic::Visitor::connect(door.engine.address, &config));
        for (method, counter, path) in [(quic::Method::Get, "requests_early_total", "/read"), (quic::Method::Delete, "requests_early_held_total", "/changed")] {
            let mut visitor = quic::Visitor::connect(door.engine.address, &config);
            assert!(visitor.ask_early(method, path));
            visitor.turn("/");
            door.engine.until_metric(counter, 1);
            if counter == "requests_early_total" {
                until("it is passed on", PATIENCE, || asked(path) == 1);
            } else {
                assert_eq!(asked(path), 0);
            }
            finish(&mut visitor);
            assert!(visitor.was_taken());
            assert_eq!(asked(path), 1);
        }
        assert_eq!(asked("early-data: 1"), 1);
        assert_eq!(door.engine.metrics().sum("requests_too_early_total"), 0);
    }

    /// The datagrams of a first flight, again and from elsewhere, to either worker: the request in them was taken once.
    fn a_recorded_flight_is_taken_once(driver) {
        let origin = Origin::standard();
        let setup = Setup::new(driver).cores("auto").origin(&origin).listen_line("timeout = { handshake = \"2s\" }");
        let door = H3Door::of(setup, ", early_data = true");
        let config = quic::config(&door.authority, 64 << 10);
        let visit = |early: bool| {
            let mut visitor = quic::Visitor::connect(door.engine.address, &config);
            assert_eq!(early && visitor.ask_early(quic::Method::Get, "/once"), early);
            until("an answer", PATIENCE, || {
                visitor.turn("/");
                visitor.ended.is_some()
            });
            assert_eq!((visitor.ended.clone(), visitor.was_taken()), (Some(Ok(())), early));
            visitor
        };
        visit(false).close();
        let mut taken = visit(true);
        taken.close();
        // Who knows the connection no more takes it for a new one; two seconds after its end nobody does.
        door.engine.until_metric("connections_open", 0);
        std::thread::sleep(std::time::Duration::from_millis(2_100));
        let flight = &taken.first_flight;
        let asked = || origin.received().iter().map(|bytes| String::from_utf8_lossy(bytes).matches("GET /once").count()).sum::<usize>();
        assert_eq!(asked(), 1);
        let before = door.engine.metrics();
        let sockets: Vec<_> = (0..16).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").expect("a port")).collect();
        for socket in &sockets {
            for datagram in flight {
                socket.send_to(datagram, door.engine.address).expect("sending");
            }
        }
        let ended = || door.engine.metrics().since(&before, "tls_handshakes_timed_out_total");
        until("nobody finishes that handshake", PATIENCE, || ended() > 0);
        let metrics = door.engine.metrics();
        assert_eq!((asked(), metrics.since(&before, "requests_total")), (1, 0));
        door.engine.until_idle();
    }

    fn keys_are_updated(driver) {
        let origin = Origin::standard();
        let door = H3Door::new(driver, &origin);
        door.play("h3_client.py", "updates-keys");
        assert_eq!(door.engine.metrics().sum("h3_connections_total"), 1);
    }

    /// RFC 9000 §9: the client's port changes in the midst of a download.
    fn a_client_moves(driver) {
        let origin = Origin::standard();
        let door = H3Door::new(driver, &origin);
        door.play("h3_client.py", "moves");
        assert_eq!(door.engine.metrics().sum("h3_connections_total"), 1);
        door.engine.until_idle();
    }

    /// What a client does not want any more is not asked of the origin any longer.
    fn given_up(driver) {
        let origin = Origin::start(|peer| {
            while let Ok(request) = peer.wire.head() {
                match request.target() {
                    "/endless" => {
                        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
                        while peer.send([b"1000\r\n", &[b'x'; 4096][..], b"\r\n"].concat()) {}
                        return;
                    }
                    "/begun" => return drop(peer.wait_for_end()),
                    _ => drop(peer.send(answer("hello\n"))),
                }
            }
        });
        let door = H3Door::new(driver, &origin);
        std::thread::scope(|scope| {
            let played = scope.spawn(|| door.play("h3_client.py", "gives-up"));
            // One connection goes on for whoever asks next; the others were for what was given up.
            until("both are told", PATIENCE, || origin.accepted() == 3 && origin.open() == 1);
            assert!(!played.is_finished(), "they were told because the client has gone");
        });
        assert_eq!(door.engine.metrics().sum("h3_faults_total"), 0);
        door.engine.until_idle();
    }

    /// Nor when the engine has all of it and has only to send it: the stream ends, and may be another request's (RFC 9000 §3.5).
    fn given_up_with_the_answer_at_hand(driver) {
        let origin = Origin::answering(|_| Some(answer([b'x'; 1_500])));
        let door = H3Door::new(driver, &origin);
        let (ready, go) = (door.folder.join("ready").display().to_string(), door.folder.join("go").display().to_string());
        std::thread::scope(|scope| {
            let played = scope.spawn(|| door.script("h3_client.py", "stops").args([&ready, &go]).run());
            for turn in 0..3 {
                until("answers wait", PATIENCE, || played.is_finished() || std::path::Path::new(&format!("{ready}-{turn}")).exists());
                door.engine.until_metric("requests_open", 0);
                std::fs::write(format!("{go}-{turn}"), "").expect("a file of our own");
            }
            let ran = played.join().expect("no panic");
            assert_eq!(ran.text().trim(), "all well", "{}", ran.err);
        });
        assert_eq!(door.engine.metrics().sum("requests_total"), 180);
        door.engine.until_idle();
    }

    /// Who leaves answers of ours where they are loses those streams, after half a minute, and nothing else.
    fn answers_that_are_never_taken(driver) {
        let origin = Origin::answering(|_| Some(answer([b'x'; 1_500])));
        let door = H3Door::new(driver, &origin);
        door.play("h3_client.py", "never-takes");
        assert_eq!((door.engine.metrics().sum("h3_connections_total"), door.engine.metrics().sum("h3_faults_total")), (1, 0));
        door.engine.until_idle();
    }

    /// What has been asked is answered, and the client learns which that is.
    fn a_drain_loses_nothing(driver) {
        let origin = Origin::standard();
        let mut door = H3Door::new(driver, &origin);
        let pid = door.engine.pid().to_string();
        let ran = door.script("h3_client.py", "drains").args([pid]).run();
        assert_eq!(ran.text().trim(), "all well", "{}", ran.err);
        assert_eq!(door.engine.wait(PATIENCE).code(), Some(0), "{}", door.engine.err());
    }

    /// Who has connected stays; who connects anew sees the new one.
    fn certificates_are_swapped(driver) {
        let origin = Origin::standard();
        let door = H3Door::new(driver, &origin);
        let shown = |door: &H3Door| TlsClient::connect_tls(door.engine.address, "localhost", &door.client().into()).expect("a connection").shown();
        let before = shown(&door);
        let go = door.folder.join("go");
        let ran = std::thread::scope(|scope| {
            let (ready, go) = (door.folder.join("ready"), go.display().to_string());
            let tool = door.script("h3_client.py", "swaps").args([&ready.display().to_string(), &go]);
            let played = scope.spawn(move || tool.run());
            until("a first connection", PATIENCE, || ready.exists());
            door.authority.issue(&door.folder, "site", &["localhost"], Kind::Ecdsa);
            until("the new one is shown", PATIENCE, || shown(&door) != before);
            std::fs::write(go, "").expect("a file of our own");
            played.join().expect("no panic")
        });
        assert_eq!(ran.text().trim(), "all well", "{}", ran.err);
    }

    fn it_is_logged_and_told_to_origins(driver) {
        let origin = Origin::answering(|request| Some(answer(fields_text(request))));
        let folder = harness::Folder::new();
        let log = folder.join("access");
        let toml = format!("[log]\naccess.path = {log:?}\naccess.format = \"json\"");
        let door = H3Door::of(Setup::new(driver).origin(&origin).more(&toml), "");
        door.play("h3_client.py", "told");
        until("a line", PATIENCE, || std::fs::read_to_string(&log).is_ok_and(|text| text.ends_with('\n')));
        let text = std::fs::read_to_string(&log).expect("a log");
        let line: Value = serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
        for (key, wanted) in [("version", "HTTP/3.0"), ("client", door.client_address()), ("target", "/told"), ("host", "localhost"), ("tls", "TLSv1.3")] {
            assert_eq!(line[key], wanted, "{key} of {line}");
        }
        assert_eq!(line["status"], 200, "{line}");
    }
}

#[track_caller]
fn foreign(driver: Driver, client: &str) {
    let origin = Origin::standard();
    let door = H3Door::new(driver, &origin);
    if door.foreign(client) {
        let metrics = door.engine.metrics();
        assert_eq!((metrics.sum("h3_connections_total"), metrics.sum("h3_faults_total")), (1, 0));
        door.engine.until_idle();
    }
}
