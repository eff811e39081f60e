//! Tunnels at a pace: bytes of TCP doors, of upgrades and of WebSockets keep to their class's bandwidth each way, and connections begin at its rate.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use harness::{Client, Driver, End, Engine, Origin, Peer, Setup, on_each_driver, pattern};

/// What goes each way, and what of it a second.
const SIZE: usize = 700_000;
const RATE: f64 = 1_000_000.0;
const CLASS: &str = "[classes.bulk]\nbandwidth = \"1MB/s\"";

/// Of RFC 6455 §1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

on_each_driver! {
    fn a_tcp_door_keeps_to_its_class(driver) {
        let origin = Origin::start(|peer| {
            let upwards = peer.wire.take(1).is_ok_and(|word| word == b"u");
            far_end(peer, upwards, <[u8]>::to_vec);
        });
        let engine = Setup::new(driver).origin(&origin).tcp().listen_line("class = \"bulk\"").more(CLASS).start();
        let open = |upwards: bool| {
            let mut client = engine.client();
            client.send(if upwards { "u" } else { "d" });
            client
        };
        keeps_to_its_pace(&engine, open, <[u8]>::to_vec, <[u8]>::to_vec);
    }

    /// Clients of a network have its class at a TCP door, too; and who waits for a turn is not silent.
    fn a_network_has_its_class_at_a_tcp_door(driver) {
        let origin = Origin::start(|peer| {
            peer.send(pattern(1, 30_000));
            let _ = peer.wait_for_end();
        });
        // A turn is a tenth of a second, and so twice as long as anybody may be silent.
        let engine = Setup::new(driver)
            .origin(&origin)
            .tcp()
            .pool_line("timeout.idle = \"50ms\"")
            .more("[classes.far]\nclients = \"127.0.0.0/8\"\nper_client.bandwidth = \"14kB/s\"")
            .start();
        let begun = Instant::now();
        let got = engine.client().take(14_000).expect("it goes on");
        assert!(got == pattern(1, 30_000)[..14_000]);
        assert!(begun.elapsed() >= Duration::from_millis(850), "{:?}", begun.elapsed());
    }

    fn an_upgrade_keeps_to_its_class(driver) {
        upgraded(driver, "raw", "", <[u8]>::to_vec, <[u8]>::to_vec);
    }

    fn a_websocket_keeps_to_its_class(driver) {
        let fields = format!("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n");
        upgraded(driver, "websocket", &fields, |content| framed(content, false), |content| framed(content, true));
    }

    /// Connections wait for their turns; none is refused.
    fn connections_begin_at_their_rate(driver) {
        let (_origin, engine) = greeting(driver, "20/s");
        let begun = Instant::now();
        let mut clients: Vec<Client> = (0..11).map(|_| engine.client()).collect();
        clients.iter_mut().for_each(|client| assert_eq!(client.take(1).expect("its turn"), b"x"));
        assert!(begun.elapsed() >= Duration::from_millis(490), "eleven in {:?}", begun.elapsed());
        assert!(engine.metrics().sum("class_paced_total") >= 1);
        drop(clients);
        engine.until_idle();
    }

    /// Who is further back than anybody would wait is told so at once, by a reset.
    fn who_is_too_far_back_is_refused(driver) {
        let (_origin, engine) = greeting(driver, "1/h");
        assert_eq!(engine.client().take(1).expect("the first one's turn"), b"x");
        // The reset may overtake the kernel's word that the second one is connected.
        let second = TcpStream::connect(engine.address).and_then(|mut second| second.read_exact(&mut [0]));
        assert_eq!(second.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
        assert_eq!(engine.metrics().sum("class_unserved_total"), 1);
    }
}

/// An origin that greets whoever comes, and an engine that lets so many connections to it begin.
fn greeting(driver: Driver, rate: &str) -> (Origin, Engine) {
    let origin = Origin::start(|peer| {
        peer.send("x");
        let _ = peer.wait_for_end();
    });
    let setup = Setup::new(driver).origin(&origin).tcp().listen_line("class = \"slow\"");
    let engine = setup.more(&format!("[classes.slow]\nrate = \"{rate}\"")).start();
    (origin, engine)
}

/// Takes what comes, or says its part, as the client wants it; `frame` makes its messages of content.
fn far_end(peer: &mut Peer, upwards: bool, frame: fn(&[u8]) -> Vec<u8>) {
    if !upwards {
        peer.send(frame(&pattern(7, SIZE)));
        let _ = peer.wait_for_end();
    } else if peer.wire.rest().0.ends_with(&pattern(8, SIZE)) {
        peer.send(frame(b"."));
    }
}

/// Tunnels behind a 101.
fn upgraded(
    driver: Driver,
    protocol: &'static str,
    fields: &str,
    theirs: fn(&[u8]) -> Vec<u8>,
    ours: fn(&[u8]) -> Vec<u8>,
) {
    let origin = Origin::start(move |peer| {
        let Some(request) = peer.request() else { return };
        let accept =
            if protocol == "websocket" { format!("Sec-WebSocket-Accept: {ACCEPT}\r\n") } else { String::new() };
        peer.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n{accept}\r\n"
        ));
        far_end(peer, request.target() == "/up", theirs);
    });
    let engine = Setup::new(driver).origin(&origin).route_line("class = \"bulk\"").more(CLASS).start();
    let open = |upwards: bool| {
        let mut client = engine.client();
        let path = if upwards { "/up" } else { "/down" };
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n{fields}\r\n"
        ));
        assert_eq!(client.head().expect("an answer").status(), 101);
        client
    };
    keeps_to_its_pace(&engine, open, theirs, ours);
}

/// Both ways at once, each through a tunnel of its own: all arrives, and no faster than the pace. How much slower is the machine's affair here;
/// `simulation_paced_tunnels` measures it in virtual time.
fn keeps_to_its_pace(
    engine: &Engine,
    open: impl Fn(bool) -> Client,
    theirs: fn(&[u8]) -> Vec<u8>,
    ours: fn(&[u8]) -> Vec<u8>,
) {
    let (mut up, mut down) = (open(true), open(false));
    let begun = Instant::now();
    let upwards = std::thread::spawn(move || {
        up.send(ours(&pattern(8, SIZE)));
        up.half_close();
        let (said, end) = up.rest();
        assert!((said.ends_with(b"."), end) == (true, End::Closed), "what went up is something else");
        begun.elapsed().as_secs_f64()
    });
    let expected = theirs(&pattern(7, SIZE));
    assert!(down.take(expected.len()).expect("all of it") == expected, "what came down is something else");
    let secs = [begun.elapsed().as_secs_f64(), upwards.join().expect("no complaint")];
    let wanted = SIZE as f64 / RATE;
    assert!(secs.iter().all(|secs| *secs >= wanted * 0.98), "{secs:?} s for {wanted}");
    assert!(engine.metrics().sum("class_paced_bytes_total") >= 2 * SIZE as u64);
}

/// A binary message (RFC 6455 §5.2).
fn framed(content: &[u8], masked: bool) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut frame = vec![0x82];
    match u8::try_from(content.len()) {
        Ok(short @ ..=125) => frame.push(mask | short),
        _ => {
            frame.push(mask | 127);
            frame.extend((content.len() as u64).to_be_bytes());
        }
    }
    if masked {
        // A key of zeros leaves content as it is.
        frame.extend([0; 4]);
    }
    frame.extend_from_slice(content);
    frame
}
