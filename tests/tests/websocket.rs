//! WebSockets: frames pass untouched, who breaks the rules is told so, and an end is an end for both sides.

use std::io::Read;
use std::time::{Duration, Instant};

use harness::{
    Client, Driver, End, Engine, Origin, PATIENCE, Peer, Setup, Tool, on_each_driver, pattern, python, script, until,
};

/// The key of RFC 6455 §1.3, and what answers it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
const FIN: u8 = 0x80;

on_each_driver! {
    /// Text, binary, fragments, a MiB, Pings of both sides, with permessage-deflate and without; Closes of both sides.
    fn pythons_websockets(driver) {
        let (engine, ran) = scenario(driver, "echoes");
        assert!(ran.contains("all well"), "{ran}");
        engine.until_idle();
        let metrics = engine.metrics();
        assert_eq!(metrics.sum("websockets_total"), 3);
        assert_eq!(metrics.sum("websockets_open"), 0);
        assert_eq!(metrics.sum("websocket_closes_total"), 3);
        assert_eq!(metrics.sum("websocket_violations_total"), 0);
        let messages = metrics.sum("websocket_messages_total");
        assert_eq!(messages, 2 * 2 * (7 + 2 + 1 + 2_000) + 1, "each way");
        assert_eq!(metrics.sum("websocket_message_bytes_count"), messages);
        assert_eq!(metrics.sum("websocket_message_seconds_count"), messages);
        let shown = engine.page("/show/websockets").text();
        assert!(shown.contains("\"opened\": 3"), "{shown}");
    }

    /// RFC 8441 on one side, RFC 6455 on the other.
    fn http2_to_http1(driver) {
        let (engine, ran) = scenario(driver, "h2");
        assert!(ran.contains("all well"), "{ran}");
        engine.until_idle();
        assert_eq!(engine.metrics().sum("websocket_violations_total"), 1);
    }

    /// RFC 6455 on both ends, RFC 8441 between two engines.
    fn http1_to_http2(driver) {
        let origin = harness::free_address();
        let far = Setup::new(driver).to(&origin.to_string()).start();
        let engine = Setup::new(driver).to(&far.address.to_string()).pool_line("protocol = \"h2\"").start();
        let ran = play("echoes", origin, &engine);
        assert!(ran.contains("all well"), "{ran}");
        engine.until_idle();
        for engine in [&engine, &far] {
            let metrics = engine.metrics();
            assert_eq!((metrics.sum("websockets_total"), metrics.sum("websocket_violations_total")), (3, 0));
        }
    }

    fn a_drain_closes_with_1001(driver) {
        let (mut engine, ran) = scenario(driver, "drains");
        assert!(ran.contains("all well"), "{ran}");
        assert_eq!(engine.wait(PATIENCE).code(), Some(0), "{}", engine.err());
    }

    /// Over HTTP/2 any success would mean that the stream is a tunnel.
    fn an_endpoint_that_ignores_an_extended_connect_does_not_become_a_tunnel(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).start();
        let mut client = harness::h2::H2Client::greeted(engine.address);
        for (path, status) in [("/", 502), ("/bytes/100000", 502), ("/status/404", 404), ("/status/403", 403)] {
            let fields = [
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "http"),
                (":authority", "test"),
                (":path", path),
                ("sec-websocket-version", "13"),
            ];
            let stream = client.request(&fields, false);
            client.until("an answer", |client| client.exchange(stream).ended);
            assert_eq!(client.exchange(stream).status(), status, "{path}");
        }
        assert_eq!(client.get("/").text(), "hello\n");
        assert_eq!(engine.metrics().sum("tunnels_total"), 0);
        engine.until_metric("requests_open", 0);
    }

    /// A 101 is believed when it proves that the endpoint has understood the key, and then only.
    fn a_wrong_proof_is_no_answer(driver) {
        for (proof, status) in [
            (format!("Sec-WebSocket-Accept: {ACCEPT}\r\n"), 101),
            (format!("Sec-WebSocket-Accept: {ACCEPT}\r\n").repeat(2), 502),
            ("Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n".into(), 502),
            (String::new(), 502),
        ] {
            let origin = Origin::start(move |peer| {
                if peer.request().is_some() {
                    peer.send(format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{proof}\r\n"));
                    let _ = peer.wait_for_end();
                }
            });
            let engine = Setup::new(driver).origin(&origin).start();
            let mut client = engine.client();
            client.send(offer(KEY));
            assert_eq!(client.response(false).expect("an answer").status(), status);
            drop(client);
            engine.until_idle();
        }
    }

    /// What is no handshake is not offered to the endpoint.
    fn an_offer_without_a_key_is_not_passed_on(driver) {
        let origin = Origin::answering(|request| Some(harness::answer(request.field("upgrade").unwrap_or("none"))));
        let engine = Setup::new(driver).origin(&origin).start();
        let mut client = engine.client();
        for key in ["", "x", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQ==, x"] {
            assert_eq!(client.ask(offer(key)).text(), "none", "`{key}`");
        }
        let twice = offer(KEY).replace("\r\n\r\n", &format!("\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"));
        assert_eq!(client.ask(twice).text(), "none");
        assert_eq!(client.ask(offer(KEY)).text(), "websocket");
        assert_eq!(client.ask(offer(KEY).replace("websocket", "WebSocket")).text(), "WebSocket");
    }

    /// An upgrade to something else is bytes, whatever they are.
    fn another_protocol_is_not_looked_at(driver) {
        let origin = Origin::start(|peer| {
            if peer.request().is_some() {
                peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: telepathy\r\n\r\n");
                echo_bytes(peer);
            }
        });
        let engine = Setup::new(driver).origin(&origin).start();
        let mut client = engine.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: telepathy\r\n\r\n");
        assert_eq!(client.response(false).expect("101").status(), 101);
        client.send(b"\xff\xff\xff");
        assert_eq!(client.take(3).expect("an echo"), b"\xff\xff\xff");
    }

    /// What ended before it passes, and nothing behind it; both sides hear why, and an end.
    fn who_breaks_the_rules_is_told_so(driver) {
        let long = "websocket = { message_max = \"1KiB\", frame_max = \"800B\", utf8 = true }";
        for (what, bytes, code) in [
            ("unmasked", raw(FIN | TEXT, false, b"x"), 1002),
            ("a reserved bit", raw(FIN | 0x40 | TEXT, true, b"x"), 1002),
            ("a reserved opcode", raw(FIN | 0x3, true, b"x"), 1002),
            ("nothing to continue", raw(FIN, true, b"x"), 1002),
            ("a fragmented ping", raw(PING, true, b"x"), 1002),
            ("a length of 64 bits that needs fewer", [&[FIN | BINARY, 0xff][..], &1_u64.to_be_bytes(), &[0; 5]].concat(), 1002),
            ("a length beyond 63 bits", [&[FIN | BINARY, 0xff][..], &u64::MAX.to_be_bytes(), &[0; 5]].concat(), 1002),
            ("too large a frame", [&[FIN | BINARY, 0xff][..], &(1_u64 << 40).to_be_bytes(), &[0; 5]].concat(), 1009),
            ("too large a message", [frame(BINARY, &[1; 700]), frame(0, &[1; 700])].concat(), 1009),
            ("bad UTF-8", frame(FIN | TEXT, b"ab\xff"), 1007),
            ("a bad close", frame(FIN | CLOSE, &1005_u16.to_be_bytes()), 1002),
        ] {
            for split in [usize::MAX, 1] {
                let origin = frames();
                let engine = Setup::new(driver).origin(&origin).route_line(long).start();
                let mut client = open(&engine);
                let hello = frame(FIN | TEXT, b"hello");
                let all = [&hello[..], &bytes].concat();
                // The engine may have ended it before the last of them.
                for piece in all.chunks(split.min(all.len())) {
                    if client.try_send(piece).is_err() {
                        break;
                    }
                    if split == 1 {
                        std::thread::sleep(Duration::from_micros(300));
                    }
                }
                let mut said = Vec::new();
                let (rest, end) = client.rest();
                for frame in parse(&rest) {
                    said.push(frame);
                }
                let told = said.pop().unwrap_or_else(|| panic!("{what}: nothing was said, {end:?}"));
                assert_eq!((told.0, code_of(&told.1)), (FIN | CLOSE, code), "{what}, {split}: {rest:x?}");
                assert_eq!(end, End::Closed, "{what}, {split}");
                assert!(said.iter().all(|frame| *frame == (FIN | TEXT, b"hello".to_vec())), "{what}: {said:x?}");
                drop(client);
                engine.until_idle();
                until("the origin's connection is closed", PATIENCE, || origin.open() == 0);
                let metrics = engine.metrics();
                assert_eq!(metrics.sum("websocket_violations_total"), 1, "{what}");
                let heard = origin.received().concat();
                let after_head = heard.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
                let heard = parse(&heard[after_head..]);
                let whole = heard.last().is_some_and(|(first, body)| *first == FIN | CLOSE && code_of(body) == code);
                // Where its bytes came one by one the endpoint may be within a frame.
                assert!(whole || split == 1, "{what}: the endpoint heard {heard:x?}");
                assert_eq!(heard.first(), Some(&(FIN | TEXT, b"hello".to_vec())), "{what}");
            }
        }
    }

    /// The other way round: an endpoint that masks.
    fn an_endpoint_breaks_the_rules(driver) {
        let origin = Origin::start(|peer| {
            if agree(peer) {
                peer.send([raw(FIN | TEXT, false, b"good"), raw(FIN | TEXT, true, b"bad"), raw(FIN | TEXT, false, b"more")].concat());
                let _ = peer.wait_for_end();
            }
        });
        let engine = Setup::new(driver).origin(&origin).start();
        let mut client = open(&engine);
        let (rest, end) = client.rest();
        let said = parse(&rest);
        assert_eq!(said[0], (FIN | TEXT, b"good".to_vec()));
        assert_eq!((said[1].0, code_of(&said[1].1), said.len(), end), (FIN | CLOSE, 1002, 2, End::Closed));
        drop(client);
        engine.until_idle();
        let heard = origin.received().concat();
        assert!(heard.ends_with(b""), "{heard:x?}");
        until("the origin's connection is closed", PATIENCE, || origin.open() == 0);
    }

    /// Byte by byte, in any frames, nothing changes.
    fn frames_pass_byte_by_byte(driver) {
        let origin = Origin::start(|peer| {
            if agree(peer) {
                echo_bytes(peer);
            }
        });
        // The echo is masked, as no server's may be: only one direction is looked at by what comes back unchanged.
        let engine = Setup::new(driver).origin(&origin).route_line("websocket = { inspect = false }").start();
        let mut client = open(&engine);
        let all = [frame(TEXT, b"one"), frame(FIN | PING, b"?"), frame(FIN, b"two"), frame(FIN | BINARY, &pattern(1, 300))].concat();
        for byte in &all {
            client.send([*byte]);
        }
        assert_eq!(client.take(all.len()).expect("an echo"), all);
        drop(client);
        engine.until_idle();
        let origin = frames();
        let engine = Setup::new(driver).origin(&origin).start();
        let mut client = open(&engine);
        for byte in &all {
            client.send([*byte]);
        }
        let wanted = [raw(FIN | TEXT, false, b"onetwo"), raw(FIN | BINARY, false, &pattern(1, 300))].concat();
        let pong = raw(FIN | PONG, false, b"?");
        let got = client.take(wanted.len() + pong.len()).expect("echoes");
        let mut got = parse(&got);
        got.sort_by_key(|(first, body)| (*first != FIN | PONG, body.len()));
        let mut all = parse(&[pong, wanted].concat());
        all.sort_by_key(|(first, body)| (*first != FIN | PONG, body.len()));
        assert_eq!(got, all);
        drop(client);
        engine.until_idle();
    }

    /// Pings by the ten thousand, to an endpoint that answers them and a client that does not read: nothing piles up.
    fn a_flood_of_pings_costs_no_memory(driver) {
        let origin = frames();
        let engine = Setup::new(driver).origin(&origin).start();
        let client = open(&engine);
        let flood = frame(FIN | PING, &[7; 125]).repeat(500);
        client.stream.set_write_timeout(Some(Duration::from_millis(300))).expect("a deadline");
        let mut client = client;
        let begun = Instant::now();
        let mut sent = 0;
        while begun.elapsed() < Duration::from_secs(2) && client.try_send(&flood).is_ok() {
            sent += 500;
        }
        assert!(sent > 500, "{sent} Pings");
        let lent = engine.metrics().sum("buffers_lent_bytes_max");
        assert!(lent < 4 << 20, "{lent} bytes of buffers for one WebSocket");
        drop(client);
        engine.until_idle();
    }

    /// Who answers our Pings stays, and its answers stay with us; who does not is let go of.
    fn pings_keep_it_alive(driver) {
        let origin = frames();
        let line = "websocket = { ping = \"200ms\", idle = \"10s\" }";
        let engine = Setup::new(driver).origin(&origin).route_line(line).start();
        let mut client = open(&engine);
        for _ in 0..4 {
            let ping = take_frame(&mut client);
            assert_eq!((ping.0, ping.1.len()), (FIN | PING, 8));
            client.send(frame(FIN | PONG, &ping.1));
        }
        client.send(frame(FIN | TEXT, b"still here"));
        assert_eq!(take_frame(&mut client), (FIN | TEXT, b"still here".to_vec()));
        let heard = origin.received().concat();
        assert!(!heard.windows(2).any(|two| two == [FIN | PONG, 0x88]), "the endpoint got a Pong that it had not asked for");
        // A Pong that nobody asked for is not ours to take.
        client.send(frame(FIN | PONG, b"unasked!"));
        until("it passes", PATIENCE, || origin.received().concat().windows(2).any(|two| two == [FIN | PONG, 0x88]));
        // From here on it says nothing.
        let asked = take_frame(&mut client);
        assert_eq!(asked.0, FIN | PING);
        let told = take_frame(&mut client);
        assert_eq!((told.0, code_of(&told.1)), (FIN | CLOSE, 1011));
        assert_eq!(client.rest(), (Vec::new(), End::Closed));
        drop(client);
        engine.until_idle();
        let heard = origin.received().concat();
        let at = heard.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        let last = parse(&heard[at..]).pop().expect("frames");
        assert_eq!((last.0, code_of(&last.1)), (FIN | CLOSE, 1001));
    }

    fn silence_ends_it(driver) {
        let origin = frames();
        let engine = Setup::new(driver).origin(&origin).pool_line("timeout.idle = \"300ms\"").start();
        let mut client = open(&engine);
        let told = take_frame(&mut client);
        assert_eq!((told.0, code_of(&told.1)), (FIN | CLOSE, 1001));
        client.send(frame(FIN | CLOSE, &1001_u16.to_be_bytes()));
        assert_eq!(client.rest(), (Vec::new(), End::Closed));
        engine.until_idle();
    }

    /// Ten at once, and then ten a second.
    fn frames_keep_to_their_rate(driver) {
        let origin = frames();
        let engine = Setup::new(driver).origin(&origin).route_line("websocket = { rate = \"10/s\" }").start();
        let mut client = open(&engine);
        let begun = Instant::now();
        client.send(frame(FIN | TEXT, b"x").repeat(16));
        for _ in 0..16 {
            assert_eq!(take_frame(&mut client), (FIN | TEXT, b"x".to_vec()));
        }
        let took = begun.elapsed();
        assert!((Duration::from_millis(450)..Duration::from_secs(2)).contains(&took), "{took:?}");
        drop(client);
        engine.until_idle();
    }

    /// 10,000 messages each way, of both sizes that take different ways, allocate nothing.
    alone fn messages_allocate_nothing(driver) {
        const MESSAGES: usize = 10_000;
        let origin = frames();
        let engine = Setup::new(driver).cores("0").origin(&origin).start();
        let mut clients: Vec<Client> = (0..8).map(|_| open(&engine)).collect();
        let mut exchange = |messages: usize| {
            for number in 0..messages / clients.len() {
                let body = if number % 100 == 0 { pattern(1, 50_000) } else { pattern(2, 100) };
                for client in &mut clients {
                    client.send(frame(FIN | BINARY, &body));
                }
                for client in &mut clients {
                    assert_eq!(take_frame(client).1.len(), body.len());
                }
            }
        };
        exchange(MESSAGES / 5);
        let mut fewest = u64::MAX;
        for _ in 0..3 {
            let before = engine.metrics();
            exchange(MESSAGES);
            let after = engine.metrics();
            assert_eq!(after.since(&before, "websocket_messages_total"), 2 * MESSAGES as u64);
            fewest = fewest.min(after.since(&before, "allocations_total"));
            if fewest < 10 {
                break;
            }
        }
        assert!(fewest < 10, "{fewest} allocations for {MESSAGES} messages each way");
    }

    /// Who is held up by a rate and by an endpoint that does not read costs nothing while it waits.
    fn waiting_is_idle(driver) {
        let origin = Origin::start(|peer| {
            if agree(peer) {
                std::thread::sleep(Duration::from_secs(4));
            }
        });
        let engine = Setup::new(driver).origin(&origin).route_line("websocket = { rate = \"100/s\", ping = \"100ms\" }").start();
        let mut client = open(&engine);
        client.stream.set_write_timeout(Some(Duration::from_millis(300))).expect("a deadline");
        while client.try_send(frame(FIN | BINARY, &pattern(1, 200_000)).repeat(10)).is_ok() {}
        let before = engine.metrics();
        std::thread::sleep(Duration::from_secs(1));
        let after = engine.metrics();
        let busy = Duration::from_nanos(after.since(&before, "cpu_nanoseconds_total"));
        assert!(busy < Duration::from_millis(200), "{busy:?} of a second");
        assert_eq!(after.sum("websockets_open"), 1, "it is not its fault that nobody reads");
    }

    /// Both have said Close, and the client takes what was said before as slowly as it likes: it has all of it in the end. Who takes nothing is cut off.
    fn who_takes_its_time_hears_the_end(driver) {
        const MESSAGE: usize = 120_000;
        let origin = Origin::start(|peer| {
            let Some(request) = peer.request() else { return };
            peer.send(harness::agreement(request.field("sec-websocket-key").expect("a key")));
            peer.send([raw(FIN | BINARY, false, &pattern(1, MESSAGE)), raw(FIN | CLOSE, false, &1000_u16.to_be_bytes())].concat());
            let _ = peer.wait_for_end();
        });
        let engine = Setup::new(driver).origin(&origin).route_line("websocket = { drain = \"300ms\" }").start();
        let asks = [(":protocol", "websocket"), ("sec-websocket-version", "13")];
        let fields = [&asks[..1], &harness::h2::asking("CONNECT", "/"), &asks[1..]].concat();
        for takes in [true, false] {
            let mut client = harness::h2::H2Client::greeted(engine.address);
            client.credits = false;
            let stream = client.request(&fields, false);
            client.until("its window is used up", |client| client.exchange(stream).body.len() as i64 == harness::h2::WINDOW);
            client.send(harness::h2::data(stream, frame(FIN | CLOSE, &1000_u16.to_be_bytes()), false));
            client.widen(0, 1 << 20);
            for _ in 0..12 {
                client.listen(Duration::from_millis(100));
                if takes {
                    client.widen(stream, 5_000);
                }
            }
            client.wait(stream);
            let got = client.exchange(stream);
            let said = parse(&got.body);
            assert_eq!((got.ended, said.len()), if takes { (true, 2) } else { (false, 0) }, "{:?}", got.reset);
            assert!(!takes || said[0].1 == pattern(1, MESSAGE) && code_of(&said[1].1) == 1000);
        }
        engine.until_idle();
    }

    /// Within a frame nothing of ours can be said: whoever does not end it in time is cut off.
    fn a_drain_waits_for_the_end_of_a_frame(driver) {
        let origin = frames();
        let mut engine = Setup::new(driver).origin(&origin).route_line("websocket = { drain = \"700ms\" }").start();
        let (mut polite, mut rude) = (open(&engine), open(&engine));
        let message = frame(FIN | BINARY, &pattern(3, 5_000));
        for client in [&mut polite, &mut rude] {
            client.send(&message[..3_000]);
        }
        std::thread::sleep(Duration::from_millis(100));
        engine.terminate();
        let told = take_frame(&mut polite);
        assert_eq!((told.0, code_of(&told.1)), (FIN | CLOSE, 1001));
        polite.send(&message[3_000..]);
        polite.send(frame(FIN | CLOSE, &1001_u16.to_be_bytes()));
        assert_eq!(polite.rest(), (Vec::new(), End::Closed));
        assert_eq!(engine.wait(PATIENCE).code(), Some(0), "{}", engine.err());
        assert_ne!(rude.rest().1, End::Silent);
        let whole = origin.received().iter().filter(|heard| heard.windows(message.len()).any(|part| part == message)).count();
        assert_eq!(whole, 1, "the frame that was under way came to its end");
    }
}

/// Runs a scenario of `websocket.py` around an engine.
fn scenario(driver: Driver, name: &str) -> (Engine, String) {
    let origin = harness::free_address();
    let engine = Setup::new(driver).to(&origin.to_string()).start();
    let ran = play(name, origin, &engine);
    (engine, ran)
}

fn play(name: &str, origin: std::net::SocketAddr, engine: &Engine) -> String {
    let words = [name.to_owned(), origin.to_string(), engine.address.to_string(), engine.pid().to_string()];
    let ran = Tool::new(python(), 60).args([script("websocket.py")]).args(words).run();
    assert_eq!(ran.code, Some(0), "{}\n{}", ran.text(), ran.err);
    ran.text()
}

fn offer(key: &str) -> String {
    format!(
        "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {key}\r\n\r\n"
    )
}

/// An open WebSocket.
#[track_caller]
fn open(engine: &Engine) -> Client {
    let mut client = engine.client();
    client.send(offer(KEY));
    let response = client.response(false).expect("101");
    assert_eq!(response.status(), 101, "{}", response.text());
    assert_eq!(response.field("sec-websocket-accept"), Some(ACCEPT));
    client
}

/// Takes a handshake.
fn agree(peer: &mut Peer) -> bool {
    let Some(request) = peer.request() else { return false };
    assert_eq!(request.field("sec-websocket-key"), Some(KEY));
    peer.send(format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    ))
}

/// An origin that echoes messages in one frame each, answers Pings, and says Close to a Close.
fn frames() -> Origin {
    Origin::start(|peer| {
        if !agree(peer) {
            return;
        }
        let (mut message, mut kind) = (Vec::new(), 0);
        while let Some((first, body)) = next_frame(|length| peer.wire.take(length).ok()) {
            let answer = match first & 0xf {
                CLOSE => {
                    peer.send(raw(FIN | CLOSE, false, &body));
                    return;
                }
                PING => raw(FIN | PONG, false, &body),
                PONG => continue,
                opcode => {
                    kind = if opcode == 0 { kind } else { opcode };
                    message.extend(body);
                    if first & FIN == 0 {
                        continue;
                    }
                    raw(FIN | kind, false, &std::mem::take(&mut message))
                }
            };
            if !peer.send(answer) {
                return;
            }
        }
    })
}

fn echo_bytes(peer: &mut Peer) {
    let early = std::mem::take(&mut peer.wire.unread);
    if !early.is_empty() && !peer.send(early) {
        return;
    }
    let mut bytes = [0; 4096];
    while let Ok(length @ 1..) = peer.wire.stream.read(&mut bytes) {
        if !peer.send(&bytes[..length]) {
            return;
        }
    }
}

/// A masked frame.
fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    raw(first, true, body)
}

/// A frame, right or wrong.
fn raw(first: u8, masked: bool, body: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let bit = u8::from(masked) << 7;
    let mut frame = vec![first];
    match body.len() {
        length @ ..126 => frame.push(bit | length as u8),
        length @ ..65_536 => frame.extend([&[bit | 126][..], &(length as u16).to_be_bytes()].concat()),
        length => frame.extend([&[bit | 127][..], &(length as u64).to_be_bytes()].concat()),
    }
    if masked {
        frame.extend(MASK);
    }
    let key = if masked { MASK } else { [0; 4] };
    frame.extend(body.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// The next frame of what gives bytes: its first byte, and its payload without a mask.
fn next_frame(mut take: impl FnMut(usize) -> Option<Vec<u8>>) -> Option<(u8, Vec<u8>)> {
    let head = take(2)?;
    let length = match head[1] & 0x7f {
        126 => take(2)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)),
        127 => take(8)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)),
        short => usize::from(short),
    };
    let key = if head[1] & 0x80 == 0 { vec![0; 4] } else { take(4)? };
    let body = take(length)?;
    Some((head[0], body.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key).collect()))
}

/// The whole frames of some bytes.
fn parse(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some(frame) = next_frame(|length| bytes.split_off(..length).map(<[u8]>::to_vec)) {
        frames.push(frame);
    }
    frames
}

#[track_caller]
fn take_frame(client: &mut Client) -> (u8, Vec<u8>) {
    next_frame(|length| client.take(length).ok()).expect("a frame")
}

fn code_of(body: &[u8]) -> u16 {
    body.first_chunk().map_or(0, |code| u16::from_be_bytes(*code))
}
