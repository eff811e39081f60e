//! HTTP/3 with endpoints: another engine, and aioquic. What goes over it, whom it trusts, and how it is found where the pool may choose.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use harness::{
    Authority, Driver, Engine, Folder, H3Door, Kind, Origin, PATIENCE, Setup, Tool, free_address, on_each_driver,
    pattern, python, script, until,
};

on_each_driver! {
    /// Content of every size, both ways, over one connection that all requests share.
    fn content_over_one_connection(driver) {
        let place = Place::new(driver, "");
        let engine = place.front(driver, "h3", "");
        let mut client = engine.client();
        for size in [0, 1, 5_000, 70_000, 3_000_000] {
            assert!(client.get(&format!("/bytes/{size}")).body == pattern(size as u64, size), "{size} bytes");
        }
        assert!(client.get("/chunked/300000").body == pattern(300_000, 300_000));
        assert_eq!(client.get("/status/204").status(), 204);
        let body = pattern(3, 2_000_000);
        let mut request = format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        request.extend_from_slice(&body);
        assert!(client.ask(request).body == body);
        let (front, back) = (engine.metrics(), place.back.metrics());
        assert_eq!((front.sum("upstream_connects_total"), front.sum("upstream_h3")), (1, 1));
        assert_eq!((back.sum("h3_connections_total"), back.sum("requests_total")), (1, 8));
        drop(client);
        engine.until_idle();
    }

    /// A connection is there before the first request, which the others share; where the endpoint chooses HTTP/1.1, as many as are wanted.
    fn a_shared_connection_is_made_ready(driver) {
        let place = Place::new(driver, "");
        for (protocol, shared) in [("h3", "upstream_h3"), ("auto", "upstream_shared"), ("h2", "upstream_shared")] {
            let before = place.back.metrics().sum("connections_total");
            let engine = place.front(driver, protocol, "reuse.warm = 1");
            engine.until_metric(shared, 1);
            let mut client = engine.client();
            assert_eq!((client.get("/").text(), client.get("/").text()), ("hello\n".into(), "hello\n".into()), "{protocol}");
            let metrics = engine.metrics();
            assert_eq!((metrics.sum("upstream_connects_total"), metrics.sum("upstream_reused_total")), (1, 2), "{protocol}");
            let after = place.back.metrics().sum("connections_total");
            // Where the pool may choose, the first answer says that there is HTTP/3 too.
            assert!(after - before == 1 || protocol == "auto", "{protocol}");
        }
        let origin = Origin::standard();
        let lines = "protocol = \"auto\"\nreuse.warm = 3";
        let engine = Setup::new(driver).origin(&origin).pool_line(lines).start();
        engine.until_metric("upstream_idle", 3);
        assert_eq!(engine.client().get("/").status(), 200);
        let metrics = engine.metrics();
        assert_eq!((metrics.sum("upstream_reused_total"), origin.accepted()), (1, 3));
    }

    /// More at once than the endpoint lets one connection carry.
    fn many_at_once(driver) {
        let place = Place::new(driver, "http3.streams = 10");
        let engine = place.front(driver, "h3", "");
        let clients: Vec<_> = (0..60)
            .map(|_| {
                let mut client = engine.client();
                std::thread::spawn(move || (0..20).map(|_| client.get("/slow/5").status()).collect::<Vec<_>>())
            })
            .collect();
        for client in clients {
            assert_eq!(client.join().expect("its answers"), [200; 20]);
        }
        let connections = engine.metrics().sum("upstream_h3");
        assert!((6..=20).contains(&connections), "{connections} connections of 10 streams for 60 requests at a time");
        engine.until_idle();
    }

    /// What the endpoint resets, and what the client gives up, ends on the other side too.
    fn both_sides_may_give_up(driver) {
        let place = Place::new(driver, "");
        let engine = place.front(driver, "h3", "");
        let mut leaving = engine.client();
        leaving.send("GET /slow/20000 HTTP/1.1\r\nHost: a\r\n\r\n");
        place.back.until_metric("requests_open", 1);
        leaving.reset();
        place.back.until_metric("requests_open", 0);
        assert_eq!(engine.client().get("/").text(), "hello\n");
        assert_eq!(engine.metrics().sum("upstream_connects_total"), 1, "the connection goes on");
    }

    /// A certificate of nobody's, one for another name; and a pool that offers something else by ALPN than the endpoint has.
    fn whoever_is_not_trusted_gets_nothing(driver) {
        let place = Place::new(driver, "");
        let other = Authority::new(&place.folder, "other");
        for tls in [format!("tls = {{ ca = {:?} }}", other.file), place.trusting(", sni = \"other.test\"")] {
            let engine = Setup::new(driver).to(&place.url()).pool_line(&tls).pool_line("protocol = \"h3\"").start();
            let refused = engine.client().get("/");
            assert_eq!(refused.status(), 502, "{tls}: {}", refused.text());
            let told = engine.err();
            assert!(told.contains("endpoint `127.0.0.1:") && told.contains("certificate"), "{tls}: {told}");
        }
        assert_eq!(place.back.metrics().sum("requests_total"), 0);
    }

    /// Nobody at the port: ICMP says so, and nobody waits.
    fn an_endpoint_where_nobody_listens(driver) {
        let nobody = Place::new(driver, "http3.enabled = false");
        let lines = format!("{}\nprotocol = \"h3\"\ntimeout.connect = \"10s\"", nobody.trusting(""));
        let engine = Setup::new(driver).to(&nobody.url()).pool_line(&lines).start();
        let begun = Instant::now();
        for _ in 0..3 {
            let refused = engine.client().get("/");
            assert_eq!(refused.status(), 502, "{}", refused.text());
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        // Somebody is there later on, and the socket by which it was asked is the same.
        let place = Place::new(driver, "");
        let lines = format!("{}\nprotocol = \"h3\"\ntimeout.connect = \"10s\"", place.trusting(""));
        let both = Setup::new(driver).to(&nobody.url()).to(&place.url()).pool_line(&lines).start();
        for _ in 0..20 {
            assert_eq!(both.client().get("/").text(), "hello\n");
        }
        engine.until_idle();
    }

    /// Somebody who says nothing: the connect time-out says so, and another endpoint serves.
    fn an_endpoint_without_http3(driver) {
        let place = Place::new(driver, "");
        let nobody = Place::new(driver, "http3.enabled = false");
        let _silent = std::net::UdpSocket::bind(nobody.back.address).expect("nobody has it");
        let lines = format!("{}\nprotocol = \"h3\"\ntimeout.connect = \"500ms\"", place.trusting(""));
        let alone = Setup::new(driver).to(&nobody.url()).pool_line(&lines).start();
        assert_eq!(alone.client().get("/").status(), 504);
        let both = Setup::new(driver).to(&nobody.url()).to(&place.url()).pool_line(&lines).start();
        for _ in 0..10 {
            assert_eq!(both.client().get("/").text(), "hello\n");
        }
    }

    /// An endpoint that leaves in peace loses nobody's request, and one that is killed only what cannot be sent again.
    fn endpoints_that_leave(driver) {
        let place = Place::new(driver, "");
        let (other, _origin) = place.beside(driver);
        let lines = format!("{}\nprotocol = \"h3\"\nbalance = \"round-robin\"", place.trusting(""));
        let engine =
            Setup::new(driver).to(&place.url()).to(&format!("https://{}", other.address)).pool_line(&lines).start();
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let mut client = engine.client();
                std::thread::spawn(move || (0..150).map(|_| client.get("/slow/5").status()).collect::<Vec<_>>())
            })
            .collect();
        until("both are at work", PATIENCE, || engine.metrics().sum("upstream_h3") == 2);
        other.terminate();
        for client in clients {
            assert!(client.join().expect("its answers").iter().all(|&status| status == 200));
        }
    }

    /// A WebSocket goes by extended CONNECT (RFC 9220).
    fn websockets(driver) {
        let folder = Folder::new();
        let authority = Authority::new(&folder, "ca");
        let issued = authority.issue(&folder, "back", &["127.0.0.1"], Kind::Ecdsa);
        let origin = free_address();
        let back = Setup::new(driver).to(&origin.to_string()).listen_line(&issued.line()).start();
        let lines = format!("tls = {{ ca = {:?} }}\nprotocol = \"h3\"", authority.file);
        let engine = Setup::new(driver).to(&format!("https://{}", back.address)).pool_line(&lines).start();
        let words = ["echoes".to_owned(), origin.to_string(), engine.address.to_string()];
        let ran = Tool::new(python(), 60).args([script("websocket.py")]).args(words).run();
        assert_eq!(ran.code, Some(0), "{}\n{}", ran.text(), ran.err);
        assert_eq!((back.metrics().sum("h3_connections_total"), back.metrics().sum("h2_connections_total")), (1, 0));
    }

    /// Probes of a pool of HTTP/3 speak it, and its breakers, weights and all that is above know nothing of it.
    fn probes(driver) {
        let place = Place::new(driver, "");
        let engine = place.front(driver, "h3", "health = { http = \"/\", every = \"100ms\", timeout = \"2s\" }");
        until("a good probe", PATIENCE, || engine.endpoints()[0].to_string().contains("200 in"));
        assert_eq!(engine.endpoints()[0]["health"], "up");
        assert!(place.back.metrics().sum("h3_connections_total") > 0);
    }

    /// `serve --to h3://`.
    fn serve_to_http3(driver) {
        let place = Place::new(driver, "");
        let ca = place.authority.file.display().to_string();
        let to = format!("h3://{}", place.back.address);
        let engine = Setup::new(driver).to(&to).env("SSL_CERT_FILE", &ca).serve(&[]);
        assert_eq!(engine.client().get("/").text(), "hello\n");
        assert_eq!(place.back.metrics().sum("h3_connections_total"), 1);
    }

    /// A pool that may choose begins with what ALPN gives, hears of HTTP/3, and goes over to it without anybody's waiting.
    fn http3_is_found(driver) {
        let place = Place::new(driver, "");
        let engine = place.front(driver, "auto", "");
        let mut client = engine.client();
        assert_eq!(client.get("/").text(), "hello\n");
        assert_eq!(engine.metrics().sum("upstream_h3"), 0);
        until("it has gone over", PATIENCE, || {
            assert_eq!(client.get("/").status(), 200);
            engine.metrics().sum("upstream_h3") == 1
        });
        let before = place.back.metrics();
        for _ in 0..20 {
            assert_eq!(client.get("/").status(), 200);
        }
        let (front, back) = (engine.metrics(), place.back.metrics());
        assert_eq!((front.sum("upstream_h3_tried_total"), front.sum("upstream_h3_broken_total")), (1, 0));
        assert_eq!(back.since(&before, "requests_total"), 20);
        assert_eq!(back.sum("h3_connections_total"), 1);
        assert_eq!(engine.endpoints()[0]["protocol"], "h3");
    }

    /// What is offered and does not work is tried once, and costs nobody anything.
    fn an_offer_that_leads_nowhere(driver) {
        let folder = Folder::new();
        let authority = Authority::new(&folder, "ca");
        let issued = authority.issue(&folder, "back", &["127.0.0.1"], Kind::Ecdsa);
        let origin = Origin::answering(|_| Some(OFFER.into()));
        let lines = format!("{}\nhttp3.enabled = false", issued.line());
        let back = Setup::new(driver).origin(&origin).listen_line(&lines).start();
        let lines = format!("tls = {{ ca = {:?} }}\nprotocol = \"auto\"\ntimeout.connect = \"500ms\"", authority.file);
        let engine = Setup::new(driver).to(&format!("https://{}", back.address)).pool_line(&lines).start();
        let mut client = engine.client();
        until("it has been tried", PATIENCE, || {
            assert_eq!(client.get("/").text(), "hello\n");
            engine.metrics().sum("upstream_h3_broken_total") == 1
        });
        for _ in 0..50 {
            assert_eq!(client.get("/").text(), "hello\n");
        }
        let metrics = engine.metrics();
        assert_eq!((metrics.sum("upstream_h3_tried_total"), metrics.sum("upstream_h3")), (1, 0));
        assert_eq!(engine.endpoints()[0]["protocol"], "h2");
    }

    /// HTTP/3 that is taken away while it is in use: requests go on over TCP.
    fn http3_is_taken_away(driver) {
        let place = Place::new(driver, "");
        let engine = place.front(driver, "auto", "timeout.head = \"2s\"");
        let mut client = engine.client();
        until("it has gone over", PATIENCE, || {
            assert_eq!(client.get("/").status(), 200);
            engine.metrics().sum("upstream_h3") == 1
        });
        let address = place.back.address;
        let Place { back, folder, authority, .. } = place;
        back.kill();
        drop(back);
        let issued = authority.issue(&folder, "back", &["127.0.0.1"], Kind::Ecdsa);
        let origin = Origin::standard();
        let lines = format!("{}\nhttp3.enabled = false", issued.line());
        let back = Setup::new(driver).at(address).origin(&origin).listen_line(&lines).start();
        until("it has come back by TCP", Duration::from_secs(60), || engine.client().get("/").status() == 200);
        until("it stays there", Duration::from_secs(60), || (0..10).all(|_| engine.client().get("/").status() == 200));
        assert!(back.metrics().sum("h2_connections_total") >= 1);
        engine.until_metric("upstream_h3", 0);
    }

    /// An endpoint that is nobody's relative: aioquic, with a dynamic table of its own.
    fn aioquic(driver) {
        let folder = Folder::new();
        let authority = Authority::new(&folder, "ca");
        let issued = authority.issue(&folder, "back", &["127.0.0.1"], Kind::Ecdsa);
        let port = free_address().port();
        let words = [issued.cert.into_os_string(), issued.key.into_os_string(), port.to_string().into()];
        let origin = Command::new(python()).arg(script("h3_origin.py")).args(words).spawn().expect("python");
        let _origin = Ending(origin);
        let lines = format!("tls = {{ ca = {:?} }}\nprotocol = \"h3\"", authority.file);
        let engine = Setup::new(driver).to(&format!("https://127.0.0.1:{port}")).pool_line(&lines).start();
        let mut client = engine.client();
        until("it serves", PATIENCE, || client.get("/").status() == 200);
        for size in [1, 10_000, 500_000] {
            assert!(client.get(&format!("/bytes/{size}")).body == pattern(size as u64, size), "{size} bytes");
        }
        let body = pattern(9, 300_000);
        for _ in 0..3 {
            let mut request =
                format!("POST /echo HTTP/1.1\r\nHost: a\r\nX-Kept: yes\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
            request.extend_from_slice(&body);
            let echoed = client.ask(request);
            assert!(echoed.body == body);
            assert_eq!(echoed.field("x-kept"), Some("yes"));
        }
        let trailed = client.get("/trailers");
        assert_eq!(trailed.text(), "with trailers\n");
        drop(client);
        engine.until_idle();
    }

    /// Datagrams of requests (RFC 9297), between aioquic and aioquic.
    fn datagrams_between_two_that_take_them(driver) {
        let (door, _origin) = masque(driver);
        door.play("h3_datagrams.py", "passes");
        let metrics = door.engine.metrics();
        // Of the one that comes when its tunnel is over nobody is told.
        assert_eq!(metrics.sum("http_datagrams_total"), 2 * (2 * 7) + 2 + 2 * 2);
        assert_eq!(metrics.sum("http_datagrams_dropped_total"), 0);
        assert_eq!(metrics.sum("h3_faults_total"), 0);
        door.engine.until_idle();
    }

    fn datagrams_that_come_before_their_tunnel_are_kept_within_a_bound(driver) {
        let (door, _origin) = masque(driver);
        door.play("h3_datagrams.py", "ahead");
        let metrics = door.engine.metrics();
        assert_eq!(metrics.sum("http_datagrams_dropped_total"), 200 - 64);
        door.engine.until_idle();
    }

    /// To an endpoint of HTTP/1.1, which has nothing but bytes; and from it.
    fn datagrams_become_capsules_and_capsules_datagrams(driver) {
        let origin = Origin::start(|peer| {
            let Ok(request) = peer.wire.head() else { return };
            assert_eq!(request.field("upgrade"), Some("connect-udp"));
            peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: connect-udp\r\n\r\n");
            // What is short goes back byte by byte.
            while let Ok(came @ 1..) = peer.wire.fill() {
                let piece = if came < 1_000 { 1 } else { came };
                for _ in 0..came / piece {
                    let Ok(bytes) = peer.wire.take(piece) else { return };
                    peer.send(bytes);
                }
            }
        });
        let door = H3Door::of(Setup::new(driver).origin(&origin).listen_line("http3.datagrams = true"), "");
        door.play("h3_datagrams.py", "capsules");
        door.play("h3_datagrams.py", "stay");
        let metrics = door.engine.metrics();
        let (gone, dropped) = (metrics.sum("http_datagrams_total"), metrics.sum("http_datagrams_dropped_total"));
        // Two up, and three down.
        assert_eq!((gone, dropped), (5, 1));
        door.engine.until_idle();
    }
}

/// A door that takes datagrams, before an aioquic that does; it serves already.
fn masque(driver: Driver) -> (H3Door, Ending) {
    let folder = Folder::new();
    let authority = Authority::new(&folder, "ca");
    let issued = authority.issue(&folder, "back", &["127.0.0.1"], Kind::Ecdsa);
    let port = free_address().port();
    let words = ["origin".into(), issued.cert.into_os_string(), issued.key.into_os_string(), port.to_string().into()];
    let origin = Command::new(python()).arg(script("h3_datagrams.py")).args(words).spawn().expect("python");
    let lines = format!("tls = {{ ca = {:?} }}\nprotocol = \"h3\"", authority.file);
    let setup = Setup::new(driver).to(&format!("https://127.0.0.1:{port}")).pool_line(&lines);
    let door = H3Door::of(setup.listen_line("http3.datagrams = true"), "");
    let mut client = door.authority.connect(door.engine.address, "localhost");
    until("it serves", PATIENCE, || client.get("/").status() == 200);
    (door, Ending(origin))
}

/// A process that ends with its test.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// HTTP/3 at a port where nobody is.
const OFFER: &[u8] = b"HTTP/1.1 200 OK\r\nAlt-Svc: h3=\":1\"; ma=3600\r\nContent-Length: 6\r\n\r\nhello\n";

/// An engine that speaks HTTP/3 in front of an origin.
struct Place {
    folder: Folder,
    authority: Authority,
    back: Engine,
    _origin: Origin,
}

impl Place {
    fn new(driver: Driver, lines: &str) -> Self {
        let folder = Folder::new();
        let authority = Authority::new(&folder, "ca");
        let issued = authority.issue(&folder, "back", &["back.test", "127.0.0.1"], Kind::Ecdsa);
        let origin = Origin::standard();
        let back = Setup::new(driver).origin(&origin).listen_line(&format!("{}\n{lines}", issued.line())).start();
        Self { folder, authority, back, _origin: origin }
    }

    /// Another one, with a certificate of the same authority.
    fn beside(&self, driver: Driver) -> (Engine, Origin) {
        let issued = self.authority.issue(&self.folder, "beside", &["127.0.0.1"], Kind::Ecdsa);
        let origin = Origin::standard();
        (Setup::new(driver).origin(&origin).listen_line(&issued.line()).start(), origin)
    }

    fn url(&self) -> String {
        format!("https://{}", self.back.address)
    }

    fn trusting(&self, more: &str) -> String {
        format!("tls = {{ ca = {:?}{more} }}", self.authority.file)
    }

    fn front(&self, driver: Driver, protocol: &str, lines: &str) -> Engine {
        let lines = format!("{}\nprotocol = \"{protocol}\"\n{lines}", self.trusting(""));
        Setup::new(driver).to(&self.url()).pool_line(&lines).start()
    }
}
