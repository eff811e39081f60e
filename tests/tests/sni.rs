//! TLS that is passed through, led by the name that it begins with: what clients reach, and what becomes of those that reach nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::{
    Authority, Client, Driver, End, Engine, Folder, Kind, Origin, PATIENCE, Setup, TlsClient, Tool, Wire, free_address,
    on_each_driver, pattern, until,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConnection, ServerConfig, ServerConnection, StreamOwned};

/// RFC 8446 §6.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
const DECODE_ERROR: [u8; 7] = [21, 3, 3, 0, 2, 2, 50];

on_each_driver! {
    /// Exact names, patterns, and nothing; the certificates are the origins' own.
    fn names_lead(driver) {
        let place = Place::new();
        let (engine, door) = place.engine(driver, "", RULES);
        for (name, says) in [
            ("a.example", "a"),
            ("A.Example", "a"),
            ("x.b.example", "b"),
            ("deep.x.b.example", "b"),
            ("a.b.example", "a"),
        ] {
            assert_eq!(place.hear(door, name), Ok(says.to_owned()), "{name}");
        }
        // A pattern does not take what it hangs from; an address is no name.
        for name in ["b.example", "c.example", "127.0.0.1"] {
            let told = place.hear(door, name).expect_err("nobody");
            assert!(told.contains("UnrecognisedName"), "{name}: {told}");
        }
        let metrics = engine.metrics();
        assert_eq!((metrics.sum("sni_led_total"), metrics.sum("sni_unrecognized_total")), (5, 3));
        engine.until_idle();
    }

    /// With a pool of its own the door leads everybody somewhere who begins TLS.
    fn whoever_is_nobodys_goes_to_the_listeners_pool(driver) {
        let place = Place::new();
        let (engine, door) = place.engine(driver, "pool = \"b\"", "[[listen.sni]]\nhost = \"a.example\"\npool = \"a\"");
        for (name, says) in [("a.example", "a"), ("x.b.example", "b"), ("127.0.0.1", "b")] {
            assert_eq!(place.hear(door, name), Ok(says.to_owned()), "{name}");
        }
        let mut client = Client::connect(door);
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_ne!(client.rest().1, End::Silent);
        assert_eq!(engine.metrics().sum("sni_not_tls_total"), 1);
    }

    /// What is offered decides where names do not, and before one that leaves it open.
    fn protocols_lead(driver) {
        let place = Place::new();
        let rules = "[[listen.sni]]\nalpn = \"acme-tls/1\"\npool = \"b\"\n\
                     [[listen.sni]]\nhost = \"a.example\"\npool = \"a\"\n\
                     [[listen.sni]]\nhost = \"a.example\"\nalpn = [\"h3\", \"h2\"]\npool = \"b\"";
        let (_engine, door) = place.engine(driver, "", rules);
        for (name, offered, says) in [
            ("a.example", &[][..], Some("a")),
            ("a.example", &["http/1.1"], Some("a")),
            ("a.example", &["http/1.1", "h2"], Some("b")),
            // The name counts for more.
            ("a.example", &["acme-tls/1"], Some("a")),
            ("x.b.example", &["acme-tls/1"], Some("b")),
            ("127.0.0.1", &["acme-tls/1"], Some("b")),
            ("x.b.example", &["h2"], None),
        ] {
            let heard = place.hear_offering(door, name, offered);
            assert_eq!(heard.as_deref().ok(), says, "{name} {offered:?}: {heard:?}");
        }
    }

    /// OpenSSL, with a ClientHello in one record and in several.
    fn openssl(driver) {
        let place = Place::new();
        let (engine, door) = place.engine(driver, "", RULES);
        let ca = place.authority.file.display().to_string();
        let connect = door.to_string();
        for (name, says) in [("a.example", "a"), ("x.b.example", "b")] {
            for more in [&[][..], &["-max_send_frag", "512", "-alpn", "h2,http/1.1,acme-tls/1"], &["-tls1_2"]] {
                let words = ["s_client", "-connect", &connect, "-servername", name, "-CAfile", &ca, "-verify_hostname", name];
                let ran = Tool::new("openssl", 20).args(words).args(["-verify_return_error", "-quiet"]).args(more).run();
                assert!(ran.text() == says, "{name} {more:?}: {} {}", ran.text(), ran.err);
            }
        }
        let words = ["s_client", "-connect", &connect, "-servername", "c.example", "-CAfile", &ca];
        let ran = Tool::new("openssl", 20).args(words).run();
        assert!(ran.err.contains("unrecognized name"), "{} {}", ran.text(), ran.err);
        assert_eq!(engine.metrics().sum("sni_led_total"), 6);
    }

    /// Every byte by itself, and behind a PROXY header that is passed on: what arrives is what was sent.
    fn bytes_are_handed_on_untouched(driver) {
        let origin = Origin::start(|peer| {
            let _ = peer.wait_for_end();
        });
        let door = free_address();
        let lines = format!(
            "[[listen]]\nname = \"sni\"\naddr = \"{door}\"\nprotocol = \"tcp\"\nproxy_protocol.from = \"127.0.0.1/32\"\n\
             [[listen.sni]]\nhost = \"a.example\"\npool = \"origins\""
        );
        let engine = Setup::new(driver).origin(&origin).pool_line("proxy_protocol = \"v1\"").more(&lines).start();
        let said = hello("a.example");
        let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";
        for (number, size) in [1, 100, usize::MAX].into_iter().enumerate() {
            // The last one goes on, in pieces that are large.
            let more = pattern(1, if size == usize::MAX { 6 << 20 } else { 100 });
            let all = [&header[..], &said, &more].concat();
            let mut client = Client::connect(door);
            for piece in all.chunks(size.min(all.len())) {
                client.send(piece);
            }
            until("all of it arrives", PATIENCE, || origin.received().get(number).is_some_and(|got| got.len() >= all.len()));
            assert!(origin.received()[number] == all, "{size}");
        }
        engine.until_idle();
        assert!(engine.metrics().sum("tunnel_spliced_in_bytes_total") > 0);
    }

    /// Slow, endless, gone, garbage, nearly right: each is closed, by its reason counted, and nobody is dialled for it.
    fn who_does_not_say_where_to_is_turned_away(driver) {
        let place = Place::new();
        let (engine, door) = place.engine(driver, "timeout.head = \"400ms\"", RULES);
        let good = hello("a.example");
        let endless: Vec<u8> = [22, 3, 1, 0, 1, 1].into_iter().chain([22, 3, 1, 0, 1, 0].repeat(3_000)).collect();
        let mut broken = good.clone();
        // The length of the session's id.
        broken[5 + 4 + 2 + 32] = 255;
        let none = &[][..];
        for (what, bytes, told, counter) in [
            ("silence", &b""[..], none, "sni_timed_out_total"),
            ("a part", &good[..good.len() - 1], none, "sni_timed_out_total"),
            ("the beginning of a long one", &[22, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0], none, "sni_timed_out_total"),
            ("HTTP", b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", none, "sni_not_tls_total"),
            ("SSH", b"SSH-2.0-OpenSSH_9.9\r\n", none, "sni_not_tls_total"),
            ("SSL 2", b"\x80\x2e\x01\x00\x02\x00\x15", none, "sni_not_tls_total"),
            ("an alert", b"\x15\x03\x01\x00\x02\x02\x28", none, "sni_not_tls_total"),
            ("a length of 16 MiB", &[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff], &DECODE_ERROR, "sni_malformed_total"),
            ("records without an end", &endless, &DECODE_ERROR, "sni_malformed_total"),
            ("an empty record", &[22, 3, 1, 0, 0], &DECODE_ERROR, "sni_malformed_total"),
            ("a length that does not fit", &broken, &DECODE_ERROR, "sni_malformed_total"),
            ("a name that is nobody's", &hello("c.example"), &UNRECOGNIZED_NAME, "sni_unrecognized_total"),
        ] {
            let before = engine.metrics();
            let begun = Instant::now();
            let mut client = Client::connect(door);
            client.send(bytes);
            let (heard, end) = client.rest();
            assert_eq!((&heard[..], end), (told, End::Closed), "{what}");
            assert!(begun.elapsed() < Duration::from_secs(4), "{what}: {:?}", begun.elapsed());
            drop(client);
            engine.until_idle();
            assert_eq!(engine.metrics().since(&before, counter), 1, "{what}");
        }
        // Byte by byte does not buy more time.
        let mut client = Client::connect(door);
        let begun = Instant::now();
        while client.try_send([good[0]]).is_ok() && begun.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(50));
            if client.stream.peek(&mut [0]).is_ok() {
                break;
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        drop(client);
        let left = Client::connect(door);
        left.reset();
        until("who left is counted", PATIENCE, || engine.metrics().sum("sni_left_total") == 1);
        assert_eq!((place.a.accepted(), place.b.accepted()), (0, 0));
        engine.until_idle();
        // And others are served.
        assert_eq!(place.hear(door, "a.example"), Ok("a".to_owned()));
    }

    /// A thousand that begin and do not go on cost little, and do not keep others out.
    fn a_thousand_that_do_not_go_on(driver) {
        let place = Place::new();
        let (engine, door) = place.engine(driver, "", RULES);
        let good = hello("a.example");
        let waiting: Vec<Client> = (0..1_000)
            .map(|_| {
                let mut client = Client::connect(door);
                client.send(&good[..good.len() / 2]);
                client
            })
            .collect();
        until("all are in", PATIENCE, || engine.metrics().sum("connections_open") >= 1_000);
        assert_eq!(place.hear(door, "a.example"), Ok("a".to_owned()));
        let lent = engine.metrics().sum("buffers_lent_bytes_max");
        assert!(lent < 24 << 20, "{lent} bytes for a thousand beginnings");
        drop(waiting);
        engine.until_idle();
    }
}

const RULES: &str = "[[listen.sni]]\nhost = [\"a.example\", \"a.b.example\"]\npool = \"a\"\n\
                     [[listen.sni]]\nhost = \"*.b.example\"\npool = \"b\"";

/// Two origins that end TLS themselves, and say who they are.
struct Place {
    _folder: Folder,
    authority: Authority,
    a: Origin,
    b: Origin,
}

impl Place {
    fn new() -> Self {
        let folder = Folder::new();
        let authority = Authority::new(&folder, "ca");
        let names = ["a.example", "a.b.example", "x.b.example", "deep.x.b.example", "127.0.0.1"];
        let origin = |says: &'static str| {
            let issued = authority.issue(&folder, says, &names, Kind::Ecdsa);
            let cert = CertificateDer::from_pem_file(&issued.cert).expect("our own");
            let key = PrivateKeyDer::from_pem_file(&issued.key).expect("our own");
            let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert], key);
            let config = Arc::new(config.expect("a pair"));
            Origin::start(move |peer| {
                let stream = peer.wire.stream.try_clone().expect("a socket");
                let tls = ServerConnection::new(Arc::clone(&config)).expect("rustls");
                let Ok(mut wire) = Wire::new(StreamOwned::new(tls, stream)) else { return };
                let _ = wire.try_send(says);
                wire.stream.conn.send_close_notify();
                let _ = wire.stream.conn.complete_io(&mut wire.stream.sock);
            })
        };
        let (a, b) = (origin("a"), origin("b"));
        Self { _folder: folder, authority, a, b }
    }

    /// With a door that leads by SNI, beside one that nobody uses.
    fn engine(&self, driver: Driver, lines: &str, rules: &str) -> (Engine, SocketAddr) {
        let door = free_address();
        let pool = |name: &str, origin: &Origin| {
            format!("[[pool]]\nname = \"{name}\"\nendpoints = [\"{}\"]\n", origin.address)
        };
        let more = format!(
            "[[listen]]\nname = \"sni\"\naddr = \"{door}\"\nprotocol = \"tcp\"\n{lines}\n{rules}\n{}{}",
            pool("a", &self.a),
            pool("b", &self.b)
        );
        (Setup::new(driver).origin(&self.a).more(&more).start(), door)
    }

    /// What the origin says that `name` leads to.
    fn hear(&self, door: SocketAddr, name: &str) -> Result<String, String> {
        self.hear_offering(door, name, &[])
    }

    fn hear_offering(&self, door: SocketAddr, name: &str, offered: &[&str]) -> Result<String, String> {
        let mut config = self.authority.client(None);
        config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut client = TlsClient::connect_tls(door, name, &Arc::new(config)).map_err(|error| format!("{error:?}"))?;
        let (heard, end) = client.rest();
        assert_eq!(end, End::Closed, "{name}");
        Ok(String::from_utf8_lossy(&heard).into_owned())
    }
}

/// What a client says first that asks for `name`.
fn hello(name: &str) -> Vec<u8> {
    let folder = Folder::new();
    let config = Authority::new(&folder, "nobody").client(None);
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("rustls");
    let mut said = Vec::new();
    client.write_tls(&mut said).expect("a vector takes it");
    said
}
