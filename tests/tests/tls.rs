//! TLS with clients: versions, certificates by name, every size of content, and what is no TLS.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::{
    Authority, Client, Driver, End, Engine, Folder, Issued, Kind, Origin, Setup, TlsClient, Tool, Wire, on_each_driver,
    pattern,
};
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, NamedGroup, StreamOwned};
use serde_json::Value;

on_each_driver! {
    /// curl by both versions, by every kind of key, with answers of every size, and uploads.
    fn curl_by_every_version_and_key(driver) {
        for kind in [Kind::Ecdsa, Kind::Rsa, Kind::Ed25519] {
            let place = Place::new(driver, kind, "min = \"1.2\"");
            for version in ["--tlsv1.3", "--tlsv1.2"] {
                let max = if version == "--tlsv1.2" { "1.2" } else { "1.3" };
                let ask = |path: &str, more: &[&str]| {
                    let ran = place.curl(path).args([version, "--tls-max", max]).args(more).succeed();
                    ran.out
                };
                assert_eq!(ask("/", &[]), b"hello\n");
                for size in [1, 1_378, 1_379, 16_384, 65_537, 1_000_000, 5_000_000] {
                    assert_eq!(ask(&format!("/bytes/{size}"), &[]), pattern(size as u64, size), "{kind:?} {version} {size}");
                }
                assert_eq!(ask("/chunked/300000", &[]), pattern(300_000, 300_000));
                let body = place.folder.write("body", pattern(9, 700_000));
                let upload = format!("@{}", body.display());
                assert_eq!(ask("/echo", &["--data-binary", &upload]), pattern(9, 700_000));
            }
            place.engine.until_idle();
        }
    }

    /// TLS 1.2 is not spoken unless it is allowed.
    fn tls_1_2_must_be_allowed(driver) {
        let place = Place::new(driver, Kind::Ecdsa, "");
        let ran = place.curl("/").args(["--tls-max", "1.2"]).run();
        assert_eq!(ran.code, Some(35), "{}", ran.err);
        place.engine.until_metric("tls_handshakes_incompatible_total", 1);
        assert_eq!(place.client().get("/").text(), "hello\n");
    }

    /// testssl.sh finds nothing wrong with what is the default that it calls worse than low.
    fn testssl_finds_nothing_above_low(driver) {
        let place = Place::new(driver, Kind::Ecdsa, "");
        let mut findings = testssl(&place, "findings.json");
        if findings.iter().any(|one| one["finding"] == "check failed because of connect problem") {
            // On a busy machine the tool loses its patience with itself.
            findings = testssl(&place, "findings-again.json");
        }
        let text = Value::from(findings.clone()).to_string();
        let of = |id: &str| findings.iter().find(|one| one["id"] == id).unwrap_or_else(|| panic!("no {id}: {text}"));
        assert!(of("TLS1_3")["finding"].as_str().is_some_and(|finding| finding.starts_with("offered")), "{text}");
        assert_eq!(of("TLS1_2")["finding"], "not offered", "{text}");
        assert_eq!(of("cert_chain_of_trust")["severity"], "OK", "{text}");
        // Of the test's certificate, and of the tool.
        let known = ["cert_validityPeriod", "cert_revocation", "engine_problem"];
        let ours = |id: &Value| !known.iter().any(|known| id == known);
        let bad = |severity: &Value| !["OK", "INFO", "LOW"].iter().any(|known| severity == known);
        let worse: Vec<&Value> = findings.iter().filter(|one| ours(&one["id"]) && bad(&one["severity"])).collect();
        assert!(worse.is_empty(), "{worse:#?}");
    }

    /// One connection, many requests, pipelined ones too; the origin is told that it was https.
    fn keep_alive_and_pipelines(driver) {
        let place = Place::new(driver, Kind::Ecdsa, "");
        let mut client = place.client();
        for _ in 0..50 {
            assert_eq!(client.get("/bytes/3000").body, pattern(3_000, 3_000));
        }
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /bytes/70000 HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response(false).unwrap().text(), "hello\n");
        assert_eq!(client.response(false).unwrap().body, pattern(70_000, 70_000));
        assert_eq!(place.engine.metrics().sum("tls_handshakes_total"), 1);
    }

    /// Exact names before wildcards, wildcards for one label, the first certificate for everybody else.
    fn certificates_by_name(driver) {
        let folder = Folder::new();
        let authority = Authority::new(&folder, "ca");
        let issue = |file: &str, names: &[&str], kind| authority.issue(&folder, file, names, kind);
        let first = issue("first", &["first.test"], Kind::Ecdsa);
        let wild = issue("wild", &["*.wild.test"], Kind::Ecdsa);
        let exact = issue("exact", &["exact.wild.test"], Kind::Ed25519);
        let list: Vec<String> =
            [&first, &wild, &exact].iter().map(|one| format!("{{ cert = {:?}, key = {:?} }}", one.cert, one.key)).collect();
        let origin = Origin::standard();
        for strict in [false, true] {
            let tls = format!("tls = {{ strict_sni = {strict}, certificates = [{}] }}", list.join(", "));
            let engine = Setup::new(driver).origin(&origin).listen_line(&tls).start();
            for (name, wanted) in [("first.test", &first), ("a.wild.test", &wild), ("exact.wild.test", &exact), ("EXACT.wild.test", &exact)] {
                assert_eq!(authority.connect(engine.address, name).shown(), der(wanted), "{name}");
            }
            let shown = |name: &str| {
                let args = ["s_client", "-connect", &engine.address.to_string(), "-servername", name, "-tls1_3"];
                Tool::new("openssl", 10).args(args).run().text()
            };
            for unknown in ["other.test", "a.b.wild.test", "wild.test"] {
                assert_eq!(shown(unknown).contains("CN = first"), !strict, "{unknown}");
            }
        }
    }

    /// HTTP in the clear gets an answer that can be read.
    fn plain_http_is_told_of_tls(driver) {
        let place = Place::new(driver, Kind::Ecdsa, "");
        let mut client = place.engine.client();
        let answer = client.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(answer.status(), 400);
        assert!(answer.text().contains("https://"), "{}", answer.text());
        assert_eq!(client.rest().1, End::Closed);
        place.engine.until_metric("tls_handshakes_plain_http_total", 1);
        place.engine.until_idle();
    }

    /// Garbage, halves of a handshake, and handshakes that never end, cost nobody else anything.
    fn what_is_no_tls_ends(driver) {
        let place = Place::new_with(driver, Kind::Ecdsa, "", "timeout = { handshake = \"1s\" }");
        let hello = client_hello(&place.authority);
        let mut truncated = place.engine.client();
        truncated.send(&hello[..hello.len() / 2]);
        truncated.half_close();
        let begun = Instant::now();
        let mut slow = place.engine.client();
        slow.send(&hello[..20]);
        let mut garbage: Vec<Client> = Vec::new();
        for seed in 0..40_u64 {
            let mut client = place.engine.client();
            let mut bytes = pattern(seed, 3_000);
            if seed % 2 == 0 {
                bytes.splice(..hello.len(), hello.iter().copied());
                bytes[(seed as usize * 37) % hello.len()] ^= 0x55;
            } else {
                bytes[0] = 22;
            }
            let _ = client.try_send(&bytes);
            garbage.push(client);
        }
        assert_eq!(place.client().get("/").text(), "hello\n");
        for client in &mut garbage {
            assert_ne!(client.rest().1, End::Silent);
        }
        assert_ne!(slow.rest().1, End::Silent);
        assert!(begun.elapsed() >= Duration::from_millis(900), "cut off after {:?}", begun.elapsed());
        let metrics = place.engine.metrics();
        assert_eq!(metrics.sum("tls_handshakes_timed_out_total"), 1);
        assert!(metrics.sum("tls_handshakes_left_total") >= 1);
        assert!(metrics.sum("tls_handshakes_malformed_total") >= 20, "{}", metrics.sum("tls_handshakes_malformed_total"));
        drop((truncated, slow, garbage));
        place.engine.until_idle();
    }

    /// An answer that is delimited by its end is whole only if the end is announced; one that breaks off is not.
    fn ends_are_announced(driver) {
        let place = Place::new(driver, Kind::Ecdsa, "");
        let mut client = place.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_eq!(client.response(false).unwrap().text(), "hello\n");
        // rustls tells an end without close_notify as an error.
        assert_eq!(client.fill().unwrap(), 0);
    }

    /// RFC 8446 §6.1: a client that has said its last word is still answered, and told so itself; whoever only vanishes may have been cut off.
    fn who_says_its_last_word_is_answered(driver) {
        let place = Place::new(driver, Kind::Ecdsa, "min = \"1.2\"");
        for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
            let config = Arc::new(place.speaks(&[version]));
            let mut client = TlsClient::connect_tls(place.engine.address, "localhost", &config).expect("a connection");
            client.send("GET /slow/200 HTTP/1.1\r\nHost: a\r\n\r\n");
            client.stream.conn.send_close_notify();
            client.stream.flush().expect("it is said");
            assert_eq!(client.response(false).expect("an answer").text(), "slow\n", "{version:?}");
            assert_eq!(client.fill().expect("close_notify"), 0, "{version:?}");
        }
        place.engine.until_idle();
    }

    /// RFC 8446 §4.6.3: keys may change at any time, and ours change with them.
    fn keys_change(driver) {
        let place = Place::new(driver, Kind::Ecdsa, "");
        let mut client = place.client();
        for _ in 0..100 {
            client.stream.conn.refresh_traffic_keys().expect("it is open");
            assert_eq!(client.get("/bytes/3000").body, pattern(3_000, 3_000));
        }
        drop(client);
        place.engine.until_idle();
    }

    /// A ClientHello may come in records of any size (RFC 8446 §5.1), and ask for a name in any of its forms.
    fn hellos_in_any_form(driver) {
        let place = Place::new(driver, Kind::Ecdsa, "strict_sni = true");
        for size in [1, 7, 100, 16_384] {
            for name in ["localhost", "LOCALHOST", "localhost."] {
                let name = ServerName::try_from(name).expect("a name");
                let mut tls = ClientConnection::new(Arc::new(place.authority.client(None)), name).expect("a client");
                let mut hello = Vec::new();
                tls.write_tls(&mut hello).expect("a vector takes all");
                let mut stream = place.engine.client().stream;
                let records = hello[5..].chunks(size).map(|piece| [&hello[..3], &(piece.len() as u16).to_be_bytes(), piece].concat());
                stream.write_all(&records.collect::<Vec<_>>().concat()).expect("sending");
                while tls.is_handshaking() {
                    tls.complete_io(&mut stream).expect("a handshake");
                }
                let mut client = Wire::new(StreamOwned::new(tls, stream)).expect("deadlines on a socket");
                assert_eq!(client.get("/").text(), "hello\n");
            }
        }
        place.engine.until_idle();
    }

    /// RFC 7301 §3.2: who offers nothing that is spoken here is told so; among several, what is spoken is chosen.
    fn protocols_that_nobody_speaks(driver) {
        let place = Place::new(driver, Kind::Ecdsa, "");
        let offer = |protocols: &[&[u8]]| {
            let mut config = place.authority.client(None);
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            TlsClient::connect_tls(place.engine.address, "localhost", &Arc::new(config))
        };
        for foreign in [&[&b"foo"[..]][..], &[b"h2c"], &[b"http/1.0", b"spdy/3"], &[b"H2"]] {
            let refused = offer(foreign).map(|_| ()).expect_err("nothing is agreed upon").to_string();
            assert!(refused.contains("NoApplicationProtocol"), "{refused}");
        }
        let mut client = offer(&[b"foo", b"http/1.1"]).expect("a connection");
        assert_eq!(client.get("/").text(), "hello\n");
    }

    /// X25519MLKEM768 where the client knows it, and what it knows where it does not.
    fn keys_are_agreed_upon_by_the_best_that_both_know(driver) {
        let place = Place::new(driver, Kind::Ecdsa, "");
        let agreed = |groups: Vec<&'static dyn SupportedKxGroup>| {
            let provider = CryptoProvider { kx_groups: groups, ..aws_lc_rs::default_provider() };
            let roots = place.authority.roots();
            let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions();
            let config = builder.expect("both versions").with_root_certificates(roots).with_no_client_auth();
            let client = TlsClient::connect_tls(place.engine.address, "localhost", &Arc::new(config)).expect("a connection");
            client.stream.conn.negotiated_key_exchange_group().expect("one").name()
        };
        let [hybrid, x25519, p256, p384] = [kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
        assert_eq!(agreed(vec![hybrid, x25519, p256]), NamedGroup::X25519MLKEM768);
        for (group, name) in [(x25519, NamedGroup::X25519), (p256, NamedGroup::secp256r1), (p384, NamedGroup::secp384r1)] {
            assert_eq!(agreed(vec![group]), name);
        }
    }

    /// The first records fit a packet; those of a large answer are as large as may be, and after a pause they begin small again.
    fn records_begin_small(driver) {
        let place = Place::new(driver, Kind::Ecdsa, "");
        let mut client = place.client();
        for round in 0..2 {
            client.send("GET /bytes/1000000 HTTP/1.1\r\nHost: a\r\n\r\n");
            let (mut wire, mut plain) = (Vec::new(), Vec::new());
            let StreamOwned { conn, sock } = &mut client.stream;
            while plain.len() < 1_000_000 {
                let mut piece = [0; 4096];
                let length = sock.read(&mut piece).expect("there is more");
                wire.extend_from_slice(&piece[..length]);
                let mut rest = &piece[..length];
                while !rest.is_empty() {
                    conn.read_tls(&mut rest).expect("a slice");
                    let state = conn.process_new_packets().expect("TLS");
                    let start = plain.len();
                    plain.resize(start + state.plaintext_bytes_to_read(), 0);
                    conn.reader().read_exact(&mut plain[start..]).expect("what is there");
                }
            }
            let (mut sizes, mut rest) = (Vec::new(), &wire[..]);
            while let Some((head, more)) = rest.split_at_checked(5) {
                let size = usize::from(u16::from_be_bytes([head[3], head[4]]));
                sizes.push(5 + size);
                rest = more.get(size..).unwrap_or_default();
            }
            assert!(sizes[..40].iter().all(|&size| size <= 1_400), "{round}: {:?}", &sizes[..50]);
            assert!(sizes[60..sizes.len() - 1].iter().filter(|&&size| size == 5 + 16_384 + 17).count() > 40, "{round}: {sizes:?}");
            std::thread::sleep(Duration::from_millis(1_200));
        }
    }

    /// The access log says what was agreed upon.
    fn the_access_log_knows(driver) {
        let place = Place::new(driver, Kind::Ecdsa, "");
        let log = place.folder.join("log");
        let origin = Origin::standard();
        let engine = Setup::new(driver)
            .origin(&origin)
            .listen_line(&place.issued.line())
            .more(&format!("[log]\naccess = {{ path = {log:?} }}"))
            .start();
        assert_eq!(place.authority.connect(engine.address, "localhost").get("/").status(), 200);
        let mut told = String::new();
        harness::until("a line", harness::PATIENCE, || {
            told = std::fs::read_to_string(&log).unwrap_or_default();
            !told.is_empty()
        });
        assert!(told.contains(r#""tls":"TLSv1.3","cipher":"TLS13_"#) && told.contains(r#""resumed":false"#), "{told}");
    }

    /// Bytes that are passed through after TLS was taken off.
    fn a_tcp_door_takes_tls_off(driver) {
        let folder = Folder::new();
        let authority = Authority::new(&folder, "ca");
        let issued = authority.issue(&folder, "localhost", &["localhost"], Kind::Ecdsa);
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).tcp().listen_line(&issued.line()).start();
        let mut client = authority.connect(engine.address, "localhost");
        assert_eq!(client.get("/bytes/500000").body, pattern(500_000, 500_000));
        drop(client);
        engine.until_idle();
    }
}

/// An engine with one certificate for `localhost`.
struct Place {
    folder: Folder,
    authority: Authority,
    issued: Issued,
    engine: Engine,
    _origin: Origin,
}

impl Place {
    fn new(driver: Driver, kind: Kind, tls: &str) -> Self {
        Self::new_with(driver, kind, tls, "")
    }

    fn new_with(driver: Driver, kind: Kind, tls: &str, line: &str) -> Self {
        let folder = Folder::new();
        let authority = Authority::new(&folder, "ca");
        let issued = authority.issue(&folder, "localhost", &["localhost", "127.0.0.1"], kind);
        let origin = Origin::standard();
        let more = if tls.is_empty() { String::new() } else { format!(", {tls}") };
        let tls = issued.line().replace(" }", &format!("{more} }}"));
        let engine = Setup::new(driver).origin(&origin).listen_line(&tls).listen_line(line).start();
        Self { folder, authority, issued, engine, _origin: origin }
    }

    fn client(&self) -> TlsClient {
        self.authority.connect(self.engine.address, "localhost")
    }

    /// Of a client that speaks these versions.
    fn speaks(&self, versions: &[&'static rustls::SupportedProtocolVersion]) -> ClientConfig {
        let builder = ClientConfig::builder_with_protocol_versions(versions);
        builder.with_root_certificates(self.authority.roots()).with_no_client_auth()
    }

    fn curl(&self, path: &str) -> Tool {
        let url = format!("https://localhost:{}{path}", self.engine.address.port());
        let ca = self.authority.file.display().to_string();
        Tool::new("curl", 20).args(["-sS", "--fail", "--max-time", "15", "--cacert", &ca, "-4", &url])
    }
}

fn der(issued: &Issued) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(&issued.cert).expect("our own certificate")
}

/// The first flight of a client.
fn client_hello(authority: &Authority) -> Vec<u8> {
    let name = "localhost".try_into().expect("a name");
    let mut client = rustls::ClientConnection::new(Arc::new(authority.client(None)), name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("a vector takes all");
    hello
}

/// What testssl.sh finds.
fn testssl(place: &Place, file: &str) -> Vec<Value> {
    let told = place.folder.path().join(file);
    let (url, ca) = (format!("https://localhost:{}", place.engine.address.port()), &place.authority.file);
    let report = ["--quiet", "--color", "0", "--warnings", "batch", "--nodns", "none", "--ip", "127.0.0.1"];
    let checks = ["--protocols", "--std", "--fs", "--server-preference", "--server-defaults", "--vulnerable"];
    let tool = Tool::new("testssl", 240).args(report).args(checks).args(["--add-ca", &ca.display().to_string()]);
    let ran = tool.args(["--jsonfile", &told.display().to_string(), &url]).run();
    let text = std::fs::read_to_string(&told).unwrap_or_else(|error| panic!("{error}: {}{}", ran.text(), ran.err));
    serde_json::from_str(&text).expect("what it tells is JSON")
}
