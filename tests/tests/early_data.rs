//! Early data (0-RTT, RFC 8446 §2.3) under RFC 8470's rules, over TLS on TCP: what goes on at once, what waits, and that nothing is taken twice.

use std::sync::Arc;

use harness::{
    Authority, Client, Driver, EarlySecret, Engine, FirstFlight, Folder, Issued, Kind, Origin, PATIENCE, Setup,
    TlsClient, Tool, h2, on_each_driver, until,
};
use rustls::ClientConfig;

on_each_driver! {
    /// Answered before the client's last word, and the endpoint is told, once. What comes behind the handshake is a request like any other.
    fn what_changes_nothing_goes_on_at_once(driver) {
        let place = Place::new(driver, "");
        for (method, field) in [("GET", ""), ("OPTIONS", ""), ("GET", "Early-Data: 1\r\n"), ("GET", "early-data: 1\r\nEarly-Data: 0\r\n")] {
            let early = format!("{method} /head HTTP/1.1\r\nHost: a\r\n{field}\r\n");
            let mut half = place.flight(&early).send(place.engine.address);
            let told = half.until("early-data: 1\r\n").to_lowercase();
            assert_eq!(told.matches("early-data").count(), 1, "{told}");
            assert!(half.was_taken());
            let mut client = half.finish();
            assert!(!client.get("/head").text().to_lowercase().contains("early-data"));
            // Kept where it was said on the way to us: the handshake that it tells of was another one (RFC 8470 §5.1).
            client.send("POST /head HTTP/1.1\r\nHost: a\r\nEarly-Data: 1\r\nContent-Length: 0\r\n\r\n");
            assert!(client.response(false).unwrap().text().contains("Early-Data: 1\r\n"));
        }
        let metrics = place.engine.metrics();
        assert_eq!(metrics.sum("tls_early_data_accepted_total"), 4);
        assert_eq!(metrics.sum("requests_early_total"), 4);
        assert_eq!(metrics.sum("requests_early_held_total") + metrics.sum("tls_early_data_rejected_total"), 0);
        place.engine.until_idle();
    }

    /// Byte for byte, sent at once to both workers and again later: taken by one, once.
    fn a_recorded_flight_is_taken_once(driver) {
        let place = Place::new(driver, "");
        let flight = place.flight("GET /once HTTP/1.1\r\nHost: a\r\n\r\n").bytes;
        let mut clients: Vec<Client> = (0..24).map(|_| Client::connect(place.engine.address)).collect();
        clients.iter_mut().for_each(|client| client.send(&flight));
        until("it is taken", PATIENCE, || place.asked("GET /once") == 1);
        clients.iter().for_each(Client::half_close);
        place.engine.until_metric("tls_early_data_rejected_total", 23);
        for _ in 0..8 {
            let mut client = Client::connect(place.engine.address);
            client.send(&flight);
            client.half_close();
        }
        place.engine.until_metric("tls_early_data_rejected_total", 31);
        assert_eq!(place.engine.metrics().sum("tls_early_data_accepted_total"), 1);
        assert_eq!(place.asked("GET /once"), 1);
        drop(clients);
        place.engine.until_idle();
    }

    /// What might change something waits, content and all, and those behind it wait for it.
    fn all_else_waits_for_the_handshake(driver) {
        let place = Place::new(driver, "");
        let upgrade = "GET /head HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n";
        let content = "GET /head HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
        let post = "POST /head HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
        let delete = "DELETE /head HTTP/1.1\r\nHost: a\r\n\r\n";
        for (held, early) in (1..).zip([upgrade, content, post, delete]) {
            let before = place.received();
            let behind = "GET /head HTTP/1.1\r\nHost: a\r\n\r\n";
            let half = place.flight(&format!("{early}{behind}")).send(place.engine.address);
            place.engine.until_metric("requests_early_held_total", held);
            assert_eq!(place.received(), before, "{early}");
            let mut client = half.finish();
            for _ in 0..2 {
                let told = client.response(false).unwrap().text();
                assert!(told.contains(" /head HTTP/1.1") && !told.to_lowercase().contains("early-data"), "{told}");
            }
        }
        assert_eq!(place.engine.metrics().sum("requests_too_early_total"), 0);
        place.engine.until_idle();
    }

    /// Who never says the last word is told so, and its request goes nowhere; nor does that of somebody who leaves.
    fn who_does_not_finish_is_answered_425(driver) {
        let place = Place::new(driver, "timeout = { handshake = \"1s\" }");
        let early = "POST /never HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
        let mut half = place.flight(early).send(place.engine.address);
        let told = half.until("425");
        assert!(told.starts_with("HTTP/1.1 425 Too Early\r\n"), "{told}");
        assert_eq!(place.engine.metrics().sum("requests_too_early_total"), 1);
        let other = place.flight(early).send(place.engine.address);
        place.engine.until_metric("requests_early_held_total", 2);
        drop((half, other));
        place.engine.until_idle();
        assert_eq!(place.asked("/never"), 0);
    }

    /// As much as the ticket says, and it waits with its request; one byte more ends the handshake (RFC 8446 §4.2.10).
    fn early_data_has_its_bound(driver) {
        let mut place = Place::new(driver, "");
        let secret = Arc::new(EarlySecret::default());
        Arc::get_mut(&mut place.config).expect("nobody else has it").key_log = Arc::clone(&secret) as _;
        const MOST: usize = 16 << 10;
        let request = |content: usize| format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {content:5}\r\n\r\n");
        let content = MOST - request(0).len();
        let early = request(content) + &"x".repeat(content);
        let full = place.flight(&early).send(place.engine.address);
        place.engine.until_metric("requests_early_held_total", 1);
        let mut client = full.finish();
        assert_eq!(client.response(false).unwrap().body.len(), content);
        let mut more = place.flight(&early);
        more.bytes.extend_from_slice(&secret.record(1, b"x"));
        let refused = more.send(place.engine.address).until_refused();
        assert!(refused.contains("UnexpectedMessage"), "{refused}");
        drop(client);
        place.engine.until_idle();
        assert_eq!(place.asked("POST /echo"), 1);
    }

    /// Over HTTP/2 some streams go on while others wait.
    fn streams_wait_each_for_itself(driver) {
        let place = Place::new(driver, "");
        let mut config = ClientConfig::clone(&place.config);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let config = Arc::new(config);
        drop(h2_session(&place, &config));
        let early = [
            h2::PREFACE.to_vec(),
            h2::settings(&[]),
            h2::headers(1, &h2::asking("DELETE", "/head/1"), true),
            h2::headers(3, &h2::asking("GET", "/head/3"), true),
            h2::headers(5, &h2::asking("POST", "/head/5"), true),
        ]
        .concat();
        let mut half = FirstFlight::new("localhost", &config, &early).expect("a session").send(place.engine.address);
        let told = half.until("early-data: 1");
        assert!(half.was_taken() && told.contains("GET /head/3"), "{told}");
        place.engine.until_metric("requests_early_held_total", 2);
        assert_eq!((place.asked("/head/1"), place.asked("/head/5")), (0, 0));
        let mut client = half.finish();
        until_said(&mut client, &["DELETE /head/1", "POST /head/5"]);
        assert_eq!(place.asked("early-data: 1"), 1);
        drop(client);
        place.engine.until_idle();
    }

    /// An endpoint that does not want it so says so, and nobody asks it again but the client.
    fn an_endpoints_425_is_the_clients(driver) {
        let place = Place::new(driver, "");
        let mut half = place.flight("GET /status/425 HTTP/1.1\r\nHost: a\r\n\r\n").send(place.engine.address);
        assert!(half.until("\r\n\r\n").starts_with("HTTP/1.1 425 "));
        assert_eq!(place.asked("GET /status/425"), 1);
        drop(half);
        place.engine.until_idle();
    }

    /// OpenSSL's: accepted with a session of its own, not with one that was used.
    fn openssl(driver) {
        let place = Place::new(driver, "");
        let session = place.folder.join("session").display().to_string();
        let address = place.engine.address.to_string();
        let request = place.folder.write("request", "GET /head HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let early = request.display().to_string();
        let run = |more: &[&str], input| {
            let args = ["s_client", "-connect", &address, "-servername", "localhost", "-tls1_3", "-ign_eof"];
            Tool::new("openssl", 10).args(args).args(more).input(input).run().text()
        };
        let nothing = place.folder.write("nothing", "");
        assert!(run(&["-sess_out", &session], &request).contains("Max Early Data: 16384"));
        let told = run(&["-sess_in", &session, "-early_data", &early], &nothing);
        assert!(told.contains("Early data was accepted") && told.contains("early-data: 1"), "{told}");
        let told = run(&["-sess_in", &session, "-early_data", &early], &request);
        assert!(told.contains("Early data was rejected") && told.contains("GET /head"), "{told}");
        assert_eq!(place.asked("early-data: 1"), 1);
        place.engine.until_idle();
    }

    /// By either version of TLS, on whichever of two workers, and with another certificate: each session is good for one more connection.
    fn sessions_are_resumed_on_any_worker_and_after_a_swap(driver) {
        let place = Place::new(driver, "");
        let session = place.folder.join("session").display().to_string();
        let address = place.engine.address.to_string();
        let request = place.folder.write("request", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let connect = |version: &str, more: &[&str]| {
            let args = ["s_client", "-connect", &address, "-servername", "localhost", version, "-ign_eof"];
            Tool::new("openssl", 10).args(args).args(more).input(&request).run().text()
        };
        for version in ["-tls1_3", "-tls1_2"] {
            assert!(connect(version, &["-sess_out", &session]).contains("New, TLSv1"), "{version}");
            let again = || {
                let told = connect(version, &["-sess_in", &session, "-sess_out", &session]);
                assert!(told.contains("Reused, TLSv1"), "{version}: {told}");
            };
            (0..6).for_each(|_| again());
            let shown = place.authority.connect(place.engine.address, "localhost").shown();
            place.authority.issue(&place.folder, "localhost", &["localhost"], Kind::Ecdsa);
            until("the new certificate is shown", PATIENCE, || {
                place.authority.connect(place.engine.address, "localhost").shown() != shown
            });
            (0..3).for_each(|_| again());
        }
        assert_eq!(place.engine.metrics().sum("tls_resumed_total"), 18);
    }

    /// Off unless it is asked for: tickets do not speak of it, and are good for what they were good for.
    fn it_is_off_by_default(driver) {
        let place = Place::with(driver, "", |issued| issued.line());
        assert!(FirstFlight::new("localhost", &place.config, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").is_none());
        place.meet();
        place.meet();
        assert_eq!(place.engine.metrics().sum("tls_resumed_total"), 1);
    }
}

/// An engine of two workers that takes early data, and a client that knows sessions of it.
struct Place {
    folder: Folder,
    authority: Authority,
    config: Arc<ClientConfig>,
    engine: Engine,
    origin: Origin,
}

impl Place {
    fn new(driver: Driver, line: &str) -> Self {
        Self::with(driver, line, |issued| issued.line().replace(" }", ", min = \"1.2\", early_data = true }"))
    }

    fn with(driver: Driver, line: &str, tls: impl Fn(&Issued) -> String) -> Self {
        let folder = Folder::new();
        let authority = Authority::new(&folder, "ca");
        let issued = authority.issue(&folder, "localhost", &["localhost"], Kind::Ecdsa);
        let origin = Origin::standard();
        let engine =
            Setup::new(driver).cores("auto").origin(&origin).listen_line(&tls(&issued)).listen_line(line).start();
        let mut config = authority.client(None);
        config.enable_early_data = true;
        let place = Self { folder, authority, config: Arc::new(config), engine, origin };
        place.meet();
        place
    }

    /// The client gets sessions.
    fn meet(&self) {
        let mut client = TlsClient::connect_tls(self.engine.address, "localhost", &self.config).expect("a connection");
        assert_eq!(client.get("/").status(), 200);
    }

    /// A first flight with early data, for which a session is used.
    fn flight(&self, early: &str) -> FirstFlight {
        FirstFlight::new("localhost", &self.config, early.as_bytes()).unwrap_or_else(|| {
            self.meet();
            FirstFlight::new("localhost", &self.config, early.as_bytes()).expect("a session")
        })
    }

    /// Bytes that the origin has received.
    fn received(&self) -> usize {
        self.origin.received().iter().map(Vec::len).sum()
    }

    /// How often it has heard `what`.
    fn asked(&self, what: &str) -> usize {
        let heard = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).matches(what).count();
        self.origin.received().iter().map(heard).sum()
    }
}

/// A connection of HTTP/2 on which sessions have come.
fn h2_session(place: &Place, config: &Arc<ClientConfig>) -> TlsClient {
    let mut client = TlsClient::connect_tls(place.engine.address, "localhost", config).expect("a connection");
    client.send([h2::PREFACE.to_vec(), h2::settings(&[]), h2::get(1, "/head/session")].concat());
    until_said(&mut client, &["GET /head/session"]);
    client
}

/// Reads until all of it has been said.
fn until_said(client: &mut TlsClient, wanted: &[&str]) {
    while !wanted.iter().all(|text| String::from_utf8_lossy(&client.unread).contains(text)) {
        assert_ne!(client.fill().expect("something is said"), 0, "it ended");
    }
}
