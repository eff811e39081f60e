//! Bytes that are passed through: TCP doors, upgrades, Unix sockets, and the PROXY header on both sides.

mod splice;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use harness::{End, Folder, Origin, PATIENCE, Peer, Setup, Wire, answer, on_each_driver, pattern, until};

on_each_driver! {
    fn tcp_passes_bytes_both_ways(driver) {
        let origin = Origin::start(echo);
        let engine = Setup::new(driver).origin(&origin).tcp().start();
        let mut client = engine.client();
        for length in [1, 2, 1_000, 70_000] {
            let bytes = pattern(length as u64, length);
            client.send(&bytes);
            assert!(client.take(length).expect("an echo") == bytes);
        }
        // Not HTTP at all, and passed on as it is.
        client.send(b"\x00\xff\r\n\r\nGET / HTTP/9\n");
        assert_eq!(client.take(19).expect("an echo"), b"\x00\xff\r\n\r\nGET / HTTP/9\n");
        client.half_close();
        assert_eq!(client.rest(), (Vec::new(), End::Closed));
        engine.until_idle();
        assert!(engine.metrics().sum("tunnels_total") >= 1);
    }

    /// The server speaks first, as SSH's and SMTP's do.
    fn tcp_lets_the_server_speak_first(driver) {
        let origin = Origin::start(|peer| {
            peer.send("220 hello\r\n");
            let _ = peer.wait_for_end();
        });
        let engine = Setup::new(driver).origin(&origin).tcp().start();
        let mut client = engine.client();
        assert_eq!(client.take(11).expect("a greeting"), b"220 hello\r\n");
    }

    /// Who has said everything may still listen, in both directions.
    fn tcp_half_closes_both_ways(driver) {
        let origin = Origin::start(|peer| {
            // Everything, then the answer, which is possible only if the end of input was passed on.
            let mut all = Vec::new();
            let _ = peer.wire.stream.read_to_end(&mut all);
            peer.send(all.iter().rev().copied().collect::<Vec<u8>>());
        });
        let engine = Setup::new(driver).origin(&origin).tcp().start();
        let bytes = pattern(1, 300_000);
        let mut client = engine.client();
        client.send(&bytes);
        client.half_close();
        let (got, end) = client.rest();
        assert_eq!(end, End::Closed);
        assert!(got.iter().rev().eq(bytes.iter()), "{} bytes came back", got.len());

        let origin = Origin::start(|peer| {
            peer.send("all I have to say");
            let _ = peer.wire.stream.shutdown(Shutdown::Write);
            let _ = peer.wait_for_end();
        });
        let engine = Setup::new(driver).origin(&origin).tcp().start();
        let mut client = engine.client();
        assert_eq!(client.rest(), (b"all I have to say".to_vec(), End::Closed));
        // The other direction is open still.
        client.send("something");
        until("the origin gets it", PATIENCE, || origin.received().concat() == b"something");
        drop(client);
        engine.until_idle();
    }

    fn tcp_passes_64_mib_each_way_at_once(driver) {
        let origin = Origin::start(echo);
        let engine = Setup::new(driver).origin(&origin).tcp().start();
        let bytes = std::sync::Arc::new(pattern(9, 64 << 20));
        let mut client = engine.client();
        let mut writer = client.stream.try_clone().expect("a second handle");
        let sent = bytes.clone();
        let sending = std::thread::spawn(move || {
            writer.write_all(&sent).expect("sending");
            writer.shutdown(Shutdown::Write).expect("ending");
        });
        let (got, end) = client.rest();
        sending.join().expect("a sender without complaint");
        assert_eq!((got.len(), end), (bytes.len(), End::Closed));
        assert!(got == **bytes, "corrupted");
        let lent = engine.metrics().sum("buffers_lent_bytes_max");
        assert!(lent < 8 << 20, "{lent} bytes of buffers for one tunnel");
        engine.until_idle();
    }

    fn tcp_resets_are_passed_on(driver) {
        let origin = Origin::start(|peer| {
            let _ = peer.wire.take(5);
            peer.reset();
        });
        let engine = Setup::new(driver).origin(&origin).tcp().start();
        let mut client = engine.client();
        client.send("hello");
        assert_eq!(client.rest(), (Vec::new(), End::Reset), "a reset that became a clean end");
        let nobody = harness::free_address();
        let engine = Setup::new(driver).to(&nobody.to_string()).tcp().start();
        // The reset may come before the connection is even looked at.
        if let Ok(mut client) = harness::Client::try_connect(engine.address) {
            assert_ne!(client.rest().1, End::Silent, "nobody there, and nobody told");
        }
        engine.until_idle();
    }

    fn an_idle_tunnel_ends(driver) {
        let origin = Origin::start(echo);
        let engine = Setup::new(driver)
            .origin(&origin)
            .tcp()
            .listen_line("timeout.body = \"300ms\"")
            .pool_line("timeout.idle = \"300ms\"")
            .start();
        let mut client = engine.client();
        client.send("hello");
        client.take(5).expect("an echo");
        assert_ne!(client.rest().1, End::Silent);
        engine.until_idle();
        until("the origin's connection is closed", PATIENCE, || origin.open() == 0);
    }

    fn unix_sockets_on_both_sides(driver) {
        let folder = Folder::new();
        let (door, target) = (folder.join("door"), folder.join("target"));
        let listener = UnixListener::bind(&target).expect("a socket in our own folder");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut wire = Wire::new(stream).expect("deadlines");
                    while let Ok(Some(request)) = wire.request() {
                        let text = harness::fields_text(&request);
                        if wire.try_send(answer(text)).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        let engine = Setup::new(driver)
            .to(&format!("unix:{}", target.display()))
            .more(&format!("[[listen]]\nname = \"local\"\naddr = \"unix:{}\"", door.display()))
            .start();
        for _ in 0..2 {
            let mut local = Wire::connect_unix(&door);
            for _ in 0..3 {
                let response = local.get("/");
                assert_eq!(response.status(), 200, "{}", response.text());
                assert!(response.text().contains("host: test\n"), "{}", response.text());
            }
        }
        assert_eq!(engine.client().get("/").status(), 200);
        engine.until_idle();
    }

    fn tcp_through_unix_sockets(driver) {
        let folder = Folder::new();
        let (door, target) = (folder.join("door"), folder.join("target"));
        let listener = UnixListener::bind(&target).expect("a socket in our own folder");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut all = Vec::new();
                let _ = stream.read_to_end(&mut all);
                let _ = stream.write_all(&all);
            }
        });
        let engine = Setup::new(driver)
            .to(&format!("unix:{}", target.display()))
            .tcp()
            .more(&format!(
                "[[listen]]\nname = \"local\"\naddr = \"unix:{}\"\nprotocol = \"tcp\"\npool = \"origins\"",
                door.display()
            ))
            .start();
        // The larger one is worth a pipe, where pipes take what these sockets have.
        for (seed, size) in [(4, 500_000), (15, 16 << 20)] {
            let bytes = pattern(seed, size);
            let mut local = Wire::connect_unix(&door);
            local.send(&bytes);
            local.half_close();
            let (got, end) = local.rest();
            assert_eq!((got.len(), end), (bytes.len(), End::Closed));
            assert!(got == bytes);
        }
        engine.until_idle();
    }

    /// Bytes pass both ways after the 101, and not before.
    fn an_upgrade_passes_bytes_after_101(driver) {
        let origin = Origin::start(|peer| {
            let Some(request) = peer.request() else { return };
            assert!(request.lists("connection", "upgrade"), "{}", request.head.escape_ascii());
            assert_eq!(request.field("upgrade"), Some("telepathy"));
            std::thread::sleep(Duration::from_millis(100));
            // Nothing may have come before the agreement.
            let early = peer.wire.unread.clone();
            peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: telepathy\r\n\r\n");
            peer.send(format!("early {};", early.len()));
            echo(peer);
        });
        let engine = Setup::new(driver).origin(&origin).start();
        let mut client = engine.client();
        client.send(
            "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: telepathy\r\n\
             X: x\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        );
        std::thread::sleep(Duration::from_millis(30));
        client.send("more");
        let response = client.response(false).expect("101");
        assert_eq!(response.status(), 101);
        assert!(response.lists("connection", "upgrade"), "{}", response.head.escape_ascii());
        assert_eq!(response.field("upgrade"), Some("telepathy"));
        assert_eq!(client.take(8).expect("a greeting"), b"early 0;", "bytes went on before the 101");
        let trailing = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\nmore";
        assert_eq!(client.take(trailing.len()).expect("what came early, echoed"), trailing);
        let bytes = pattern(2, 400_000);
        client.send(&bytes);
        assert!(client.take(bytes.len()).expect("an echo") == bytes);
        assert_eq!(engine.metrics().sum("tunnels_open"), 1);
        client.half_close();
        assert_eq!(client.rest(), (Vec::new(), End::Closed));
        engine.until_idle();
        assert_eq!(origin.accepted(), 1, "the smuggled request became one");
    }

    /// An offer that is not taken changes nothing.
    fn an_upgrade_that_is_not_taken_stays_http(driver) {
        let origin = Origin::answering(|request| Some(answer(request.target())));
        let engine = Setup::new(driver).origin(&origin).start();
        let mut client = engine.client();
        let offer = |path: &str| {
            format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        };
        for path in ["/1", "/2"] {
            assert_eq!(client.ask(offer(path)).text(), path);
        }
        assert_eq!(client.get("/3").text(), "/3");
        assert_eq!(engine.metrics().sum("tunnels_total"), 0);
    }

    fn proxy_headers_tell_origins_who_asks(driver) {
        for (version, http) in [("v1", true), ("v2", true), ("v1", false), ("v2", false)] {
            let origin = Origin::start(move |peer| {
                let Ok(source) = proxy_header(peer) else { return };
                if http {
                    while peer.request().is_some() {
                        peer.send(answer(&source));
                    }
                } else {
                    peer.send(&source);
                }
            });
            let setup = Setup::new(driver).origin(&origin).pool_line(&format!("proxy_protocol = \"{version}\""));
            let engine = if http { setup.start() } else { setup.tcp().start() };
            for _ in 0..2 {
                let mut client = engine.client();
                let own = client.stream.local_addr().expect("an address").to_string();
                for _ in 0..2 {
                    let told = if http {
                        client.get("/").text()
                    } else {
                        client.send("x");
                        String::from_utf8_lossy(&client.take(own.len()).expect("who we are")).into_owned()
                    };
                    assert_eq!(told, own, "{version}");
                    if !http {
                        break;
                    }
                }
            }
            engine.until_idle();
        }
    }

    fn proxy_headers_are_believed_from_where_they_may_come(driver) {
        let origin = Origin::answering(|request| Some(answer(request.field("x-forwarded-for").unwrap_or("none"))));
        let engine =
            Setup::new(driver).origin(&origin).listen_line("proxy_protocol.from = [\"127.0.0.1/32\"]").start();
        let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let v1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n".to_vec();
        let v1_six = b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n".to_vec();
        for (header, who) in [(v1, "192.0.2.7"), (v1_six, "2001:db8::7"), (v2([192, 0, 2, 8]), "192.0.2.8")] {
            for split in [header.len(), 5, header.len() - 1] {
                let all = [&header[..], request].concat();
                let mut client = engine.client();
                client.send(&all[..split]);
                std::thread::sleep(Duration::from_millis(5));
                client.send(&all[split..]);
                assert_eq!(client.response(false).expect("a response").text(), who);
                assert_eq!(client.get("/").text(), who, "the second request");
            }
        }
        // Who must tell and does not, or not properly, is not served.
        for bad in [
            &request[..],
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"PROXY TCP4 192.0.2.999 198.51.100.1 4711 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            &[&b"PROXY TCP4 "[..], &[b'1'; 200]].concat(),
            b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c............GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            let mut client = engine.client();
            let _ = client.try_send(bad);
            let (bytes, end) = client.rest();
            assert!(!bytes.starts_with(b"HTTP/1.1 2"), "{}", bad.escape_ascii());
            assert_ne!(end, End::Silent, "{}", bad.escape_ascii());
        }
        engine.until_idle();
        // From elsewhere it is nothing but a bad request.
        let engine = Setup::new(driver).origin(&origin).listen_line("proxy_protocol.from = [\"192.0.2.0/24\"]").start();
        let mut client = engine.client();
        client.send([&b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n"[..], request].concat());
        let refused = client.response(false).expect("a refusal");
        assert!([400, 505].contains(&refused.status()) && refused.is_closing(), "{}", refused.start);
        assert_eq!(engine.client().get("/").text(), "127.0.0.1");
    }
}

fn echo(peer: &mut Peer) {
    let early = std::mem::take(&mut peer.wire.unread);
    if !early.is_empty() && !peer.send(early) {
        return;
    }
    while let Ok(1..) = peer.wire.fill() {
        let bytes = std::mem::take(&mut peer.wire.unread);
        if !peer.send(bytes) {
            return;
        }
    }
}

fn v2(source: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend(source);
    header.extend([198, 51, 100, 1, 0x12, 0x67, 0x01, 0xbb]);
    header
}

/// Reads the PROXY header of either version; whom it names.
fn proxy_header(peer: &mut Peer) -> Result<String, harness::Cut> {
    let start = peer.wire.take(5)?;
    if start == b"PROXY" {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.extend(peer.wire.take(1)?);
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!((words[0], words.len()), ("TCP4", 5), "{line}");
        return Ok(format!("{}:{}", words[1], words[3]));
    }
    let rest = peer.wire.take(11)?;
    assert_eq!(&[&start[..], &rest[..7]].concat(), b"\r\n\r\n\0\r\nQUIT\n");
    assert_eq!(&rest[7..9], b"\x21\x11", "PROXY over TCP/IPv4");
    let length = usize::from(u16::from_be_bytes([rest[9], rest[10]]));
    let body = peer.wire.take(length)?;
    let port = u16::from_be_bytes([body[8], body[9]]);
    Ok(format!("{}.{}.{}.{}:{port}", body[0], body[1], body[2], body[3]))
}
