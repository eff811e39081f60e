//! Upgrades towards endpoints of HTTP/2: nothing is asked of one before it has said what it takes.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use harness::h2::{PREFACE, headers, kind, setting, settings};
use harness::{Authority, Engine, Folder, Kind, Origin, Peer, Setup, Wire, agreement, on_each_driver};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

on_each_driver! {
    /// SETTINGS that come late are waited for, and nothing is asked before.
    fn the_first_request_of_a_connection(driver) {
        let origin = Origin::start(|peer| {
            peer.wire.take(PREFACE.len()).expect("a preface");
            std::thread::sleep(Duration::from_millis(200));
            peer.send(settings(&[(setting::ENABLE_CONNECT_PROTOCOL, 1)]));
            let Some(stream) = next_head(peer) else { return };
            peer.send(headers(stream, &[(":status", "200")], false));
            let _ = peer.wait_for_end();
        });
        let engine = Setup::new(driver).origin(&origin).pool_line("protocol = \"h2\"").start();
        assert_eq!(ask(&engine), 101);
        assert_eq!(engine.metrics().sum("upstream_connects_total"), 1);
    }

    /// More than one connection takes at once, all of them before the first one's SETTINGS: each finds a place.
    fn more_at_once_than_a_connection_takes(driver) {
        // A connection takes 100, and the origin's backlog 128.
        const MANY: usize = 120;
        let origin = agreeing();
        let far = Setup::new(driver).origin(&origin).start();
        let engine = Setup::new(driver).to(&far.address.to_string()).pool_line("protocol = \"h2\"").start();
        let mut clients: Vec<_> = (0..MANY).map(|_| engine.client()).collect();
        clients.iter_mut().for_each(|client| client.send(OFFER));
        for client in &mut clients {
            let answer = client.response(false).expect("an answer");
            assert_eq!(answer.status(), 101, "{}", answer.text());
        }
        assert_eq!(engine.metrics().sum("websockets_open"), MANY as u64);
        drop(clients);
        engine.until_idle();
    }

    /// One that says nothing has as long as connecting may take, and one that leaves is one that could not be reached.
    fn an_endpoint_that_never_says_what_it_takes(driver) {
        let silent = Origin::start(|peer| drop(peer.wait_for_end()));
        let lines = "protocol = \"h2\"\ntimeout.connect = \"300ms\"";
        let engine = Setup::new(driver).origin(&silent).pool_line(lines).start();
        let begun = Instant::now();
        assert_eq!(ask(&engine), 504);
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        engine.until_idle();
        let leaving = Origin::start(|peer| drop(peer.wire.take(PREFACE.len())));
        let engine = Setup::new(driver).origin(&leaving).pool_line(lines).start();
        assert_eq!(ask(&engine), 502);
        engine.until_idle();
    }

    /// Where the endpoint may choose, and chooses an HTTP/2 that it does not let go of, upgrades go by HTTP/1.1.
    fn an_endpoint_that_upgrades_by_http1_alone(driver) {
        let folder = Folder::new();
        let authority = Authority::new(&folder, "ca");
        let issued = authority.issue(&folder, "site", &["localhost"], Kind::Ecdsa);
        let cert = CertificateDer::from_pem_file(&issued.cert).expect("our own");
        let key = PrivateKeyDer::from_pem_file(&issued.key).expect("our own");
        let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert], key).expect("a pair");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let config = Arc::new(config);
        let origin = Origin::start(move |peer| {
            let stream = peer.wire.stream.try_clone().expect("a socket");
            serve_either(StreamOwned::new(ServerConnection::new(Arc::clone(&config)).expect("rustls"), stream));
        });
        let lines = format!("protocol = \"auto\"\ntls.ca = {:?}", authority.file);
        let to = format!("https://localhost:{}", origin.address.port());
        let engine = Setup::new(driver).to(&to).pool_line(&lines).start();
        for _ in 0..3 {
            assert_eq!(ask(&engine), 101);
            engine.until_idle();
        }
        let metrics = engine.metrics();
        assert_eq!((metrics.sum("upstream_shared"), metrics.sum("websockets_total")), (1, 3));
        // Where it may not choose there is nothing to be done for it.
        let strict = Setup::new(driver).to(&to).pool_line(&lines.replace("auto", "h2")).start();
        let mut client = strict.client();
        let answer = client.ask(OFFER);
        assert_eq!((answer.status(), answer.field("retry-after")), (502, None));
        assert!(answer.text().contains("takes no WebSockets"), "{}", answer.text());
        assert_eq!(strict.endpoints()[0]["state"], "up", "it is as well as ever");
    }
}

/// The key is RFC 6455's own (§1.3).
const OFFER: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Offers a WebSocket; the status of the answer.
#[track_caller]
fn ask(engine: &Engine) -> u16 {
    let mut client = engine.client();
    client.send(OFFER);
    client.response(false).expect("an answer").status()
}

/// Agrees to a WebSocket, and says nothing on it.
fn agreeing() -> Origin {
    Origin::start(|peer| {
        let Some(request) = peer.request() else { return };
        peer.send(agreement(request.field("sec-websocket-key").expect("a key")));
        let _ = peer.wait_for_end();
    })
}

/// The stream of the next request.
fn next_head(peer: &mut Peer) -> Option<u32> {
    loop {
        let head = peer.wire.take(9).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        peer.wire.take(length as usize).ok()?;
        if head[3] == kind::HEADERS {
            return Some(u32::from_be_bytes([head[5], head[6], head[7], head[8]]));
        }
    }
}

/// Over HTTP/2, SETTINGS without extended CONNECT and no more; over HTTP/1.1, a WebSocket.
fn serve_either(mut tls: StreamOwned<ServerConnection, TcpStream>) {
    while tls.conn.is_handshaking() {
        if tls.conn.complete_io(&mut tls.sock).is_err() {
            return;
        }
    }
    let http2 = tls.conn.alpn_protocol() == Some(b"h2");
    let Ok(mut wire) = Wire::new(tls) else { return };
    if http2 {
        let _ = wire.try_send(settings(&[]));
    } else if let Ok(Some(request)) = wire.request() {
        let _ = wire.try_send(agreement(request.field("sec-websocket-key").unwrap_or_default()));
    }
    let _ = wire.rest();
}
