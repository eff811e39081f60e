//! TLS with endpoints: another engine terminates it. Who is trusted, by which name, and what clients are told when nobody is.

use harness::{Authority, Driver, Engine, Folder, Kind, Origin, PATIENCE, Setup, Tool, on_each_driver, pattern, until};

on_each_driver! {
    /// Content of every size, both ways, over connections that are kept.
    fn content_over_kept_connections(driver) {
        let place = Place::new(driver);
        let engine = place.front(driver, &place.trusting(""));
        let mut client = engine.client();
        for size in [0, 1, 5_000, 70_000, 1_000_000] {
            assert!(client.get(&format!("/bytes/{size}")).body == pattern(size as u64, size), "{size} bytes");
        }
        assert!(client.get("/chunked/300000").body == pattern(300_000, 300_000));
        let body = pattern(3, 400_000);
        let mut request = format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        request.extend_from_slice(&body);
        assert!(client.ask(request).body == body);
        let handshakes = place.back.metrics().sum("tls_handshakes_total");
        assert!(handshakes <= 2, "{handshakes} handshakes for a few requests of one client");
        drop(client);
        engine.until_idle();
    }

    /// A connection for each request resumes the session of the one before.
    fn sessions_are_resumed(driver) {
        let place = Place::new(driver);
        let engine = place.front(driver, &format!("{}\nreuse.max_idle = 0", place.trusting("")));
        let mut client = engine.client();
        for _ in 0..10 {
            assert_eq!(client.get("/").text(), "hello\n");
        }
        let metrics = place.back.metrics();
        assert!(metrics.sum("tls_resumed_total") >= 5, "{}", metrics.sum("tls_resumed_total"));
    }

    /// A certificate of nobody's, one for another name, a key that is not pinned: 502, and standard error says why.
    fn whoever_is_not_trusted_gets_nothing(driver) {
        let place = Place::new(driver);
        let other = Authority::new(&place.folder, "other");
        let no_pin = format!("sha256:{}", "00".repeat(32));
        for lines in [
            format!("tls = {{ ca = {:?} }}", other.file),
            place.trusting(", sni = \"other.test\""),
            place.trusting(&format!(", pin = {no_pin:?}")),
            format!("tls = {{ verify = false, pin = {no_pin:?} }}"),
        ] {
            let engine = place.front(driver, &lines);
            let answer = engine.client().get("/");
            assert_eq!(answer.status(), 502, "{lines}: {}", answer.text());
            assert!(answer.text().contains("no TLS with the endpoint"), "{lines}: {}", answer.text());
            let told = engine.err();
            assert!(told.contains("endpoint `127.0.0.1:") && told.contains("certificate"), "{lines}: {told}");
        }
        assert_eq!(place.back.metrics().sum("requests_total"), 0);
    }

    /// A pinned key is enough where it is told to be, and a name of the pool's goes before the endpoint's.
    fn pins_and_names(driver) {
        let place = Place::new(driver);
        let script = format!(
            "openssl x509 -in {:?} -noout -pubkey | openssl pkey -pubin -outform der | sha256sum | cut -d' ' -f1",
            place.cert
        );
        let pin = Tool::new("sh", 10).args(["-c", &script]).succeed().text();
        for lines in [
            format!("tls = {{ verify = false, pin = \"sha256:{}\" }}", pin.trim()),
            "tls.verify = false".to_owned(),
            place.trusting(", sni = \"back.test\""),
        ] {
            let engine = place.front(driver, &lines);
            assert_eq!(engine.client().get("/").status(), 200, "{lines}");
        }
    }

    /// A pool that is met by TLS is probed by TLS.
    fn probes_speak_tls(driver) {
        let place = Place::new(driver);
        let lines = format!("{}\nhealth = {{ http = \"/\", every = \"100ms\", timeout = \"2s\" }}", place.trusting(""));
        let engine = place.front(driver, &lines);
        until("a good probe", PATIENCE, || engine.endpoints()[0].to_string().contains("200 in"));
        assert_eq!(engine.endpoints()[0]["health"], "up");
    }

    /// `serve` without a file.
    fn serve_to_https(driver) {
        let place = Place::new(driver);
        let ca = place.authority.file.display().to_string();
        let engine = Setup::new(driver).to(&place.url()).env("SSL_CERT_FILE", &ca).serve(&[]);
        assert_eq!(engine.client().get("/").text(), "hello\n");
    }

    /// Whom to trust, and who we are, may change while it runs; what is no good changes nothing, and connections go on.
    fn files_are_swapped(driver) {
        let place = Place::new(driver);
        let folder = &place.folder;
        let clients = Authority::new(folder, "clients");
        let back_lines = {
            let issued = place.authority.issue(folder, "asks", &["127.0.0.1"], Kind::Ecdsa);
            issued.line().replace(" }", &format!(", client_ca = {:?} }}", clients.file))
        };
        let origin = Origin::standard();
        let back = Setup::new(driver).origin(&origin).listen_line(&back_lines).start();
        // Wrong at first, both of them.
        let stranger = Authority::new(folder, "stranger");
        let shown = stranger.issue(folder, "shown", &["client.test"], Kind::Ecdsa);
        let ca = folder.write("trusted.pem", std::fs::read(&stranger.file).expect("our own"));
        let tls = format!("tls = {{ ca = {ca:?}, cert = {:?}, key = {:?} }}", shown.cert, shown.key);
        let engine = Setup::new(driver).to(&format!("https://{}", back.address)).pool_line(&tls).start();
        assert_eq!(engine.client().get("/").status(), 502);
        std::fs::write(&ca, "nonsense").expect("our own");
        until("what is no good is said", PATIENCE, || engine.err().contains("pool `origins`: the old files of TLS stay"));
        std::fs::copy(&place.authority.file, &ca).expect("our own");
        clients.issue(folder, "shown", &["client.test"], Kind::Ecdsa);
        until("they count", PATIENCE, || engine.client().get("/").status() == 200);
        let mut kept = engine.client();
        assert_eq!(kept.get("/").status(), 200);
        // And back: a connection that was made goes on, and no new one is.
        std::fs::copy(&stranger.file, &ca).expect("our own");
        until("it is said", PATIENCE, || engine.err().matches("new files of TLS").count() == 2);
        assert_eq!(kept.get("/").status(), 200);
        let connects = engine.metrics().sum("upstream_connects_total");
        assert!(connects > 1, "{connects}");
    }

    /// Requests, tunnels and probes; the far engine hangs up on whoever begins with anything else.
    fn a_proxy_header_goes_before_tls(driver) {
        let place = Place::new(driver);
        let issued = place.authority.issue(&place.folder, "told", &["127.0.0.1"], Kind::Ecdsa);
        let origin = Origin::answering(|request| Some(harness::answer(request.field("x-forwarded-for").unwrap_or("nobody"))));
        let lines = format!("{}\nproxy_protocol.from = \"127.0.0.1/32\"", issued.line());
        let back = Setup::new(driver).origin(&origin).listen_line(&lines).start();
        for version in ["v1", "v2"] {
            let health = "health = { http = \"/\", every = \"200ms\", timeout = \"2s\" }";
            let lines = format!("{}\nproxy_protocol = \"{version}\"\n{health}", place.trusting(""));
            let setup = || {
                let setup = Setup::new(driver).to(&format!("https://{}", back.address)).pool_line(&lines);
                setup.listen_line("proxy_protocol.from = \"127.0.0.1/32\"")
            };
            for engine in [setup().start(), setup().tcp().start()] {
                until("it is well", PATIENCE, || engine.endpoints()[0]["health"] == "up");
                let mut client = engine.client();
                client.send("PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
                assert_eq!(client.response(false).expect("an answer").text(), "192.0.2.7", "{version}");
            }
        }
    }
}

/// An engine that terminates TLS in front of an origin.
struct Place {
    folder: Folder,
    authority: Authority,
    cert: std::path::PathBuf,
    back: Engine,
    _origin: Origin,
}

impl Place {
    fn new(driver: Driver) -> Self {
        let folder = Folder::new();
        let authority = Authority::new(&folder, "ca");
        let issued = authority.issue(&folder, "back", &["back.test", "127.0.0.1"], Kind::Ecdsa);
        let origin = Origin::standard();
        let back = Setup::new(driver).origin(&origin).listen_line(&issued.line()).start();
        Self { folder, authority, cert: issued.cert, back, _origin: origin }
    }

    fn url(&self) -> String {
        format!("https://{}", self.back.address)
    }

    fn trusting(&self, more: &str) -> String {
        format!("tls = {{ ca = {:?}{more} }}", self.authority.file)
    }

    fn front(&self, driver: Driver, lines: &str) -> Engine {
        Setup::new(driver).to(&self.url()).pool_line(lines).start()
    }
}
