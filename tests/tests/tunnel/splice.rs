//! Large streams that go through a pipe of the kernel's: they arrive as if they had been copied, whatever becomes of either side.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{echo, proxy_header, v2};

use harness::{Client, End, Engine, Origin, PATIENCE, Setup, Wire, on_each_driver, pattern, until};

/// `limits::PIPES_MAX`, all of which a single worker has.
const PIPES: usize = 32;

/// More than the buffers of two connections and a pipe hold.
const MUCH: usize = 16 << 20;

/// Enough for a stream to be spliced when so much of it has arrived.
const SOME: usize = 3 << 20;

on_each_driver! {
    fn what_is_large_arrives_whole_and_is_not_copied(driver) {
        let origin = Origin::start(echo);
        let engine = Setup::new(driver).origin(&origin).tcp().start();
        for (seed, length) in [1_000, 262_143, 1 << 20, (5 << 20) + 3, 64 << 20].into_iter().enumerate() {
            let bytes = Arc::new(pattern(seed as u64, length));
            let mut client = engine.client();
            let sending = send_in_the_background(&client, Arc::clone(&bytes), true);
            let (got, end) = client.rest();
            sending.join().expect("a sender without complaint");
            assert_eq!((got.len(), end), (length, End::Closed));
            assert!(got == **bytes, "{length} bytes: corrupted");
        }
        let metrics = engine.metrics();
        for direction in ["tunnel_spliced_in_bytes_total", "tunnel_spliced_out_bytes_total"] {
            let spliced = metrics.sum(direction);
            assert!(spliced > 32 << 20, "{direction}: {spliced}");
        }
        engine.until_idle();
        assert_eq!(engine.metrics().sum("bytes_in_total"), engine.metrics().sum("bytes_out_total"));
        assert!(metrics.sum("tunnel_pipes") <= 2);
    }

    /// A talk is never spliced; and one that follows on much is copied again, at once or after a few words.
    fn talks_are_copied(driver) {
        let origin = Origin::start(echo);
        let engine = Setup::new(driver).origin(&origin).tcp().start();
        let mut client = engine.client();
        for round in 0..200 {
            let words = pattern(round, 1 + round as usize * 40);
            client.send(&words);
            assert!(client.take(words.len()).expect("an echo") == words);
        }
        assert_eq!((spliced(&engine), engine.metrics().sum("tunnel_pipes")), (0, 0));
        let bytes = Arc::new(pattern(1, 4 << 20));
        let sending = send_in_the_background(&client, Arc::clone(&bytes), false);
        assert!(client.take(bytes.len()).expect("an echo") == **bytes);
        sending.join().expect("a sender without complaint");
        let talk = |client: &mut Client, rounds| {
            for round in 0..rounds {
                let words = pattern(round, 100);
                client.send(&words);
                assert!(client.take(100).expect("an echo") == words);
            }
        };
        talk(&mut client, 10);
        let before = spliced(&engine);
        assert!(before > 0);
        talk(&mut client, 100);
        assert_eq!(spliced(&engine), before, "a talk is spliced");
    }

    fn each_side_may_end_first(driver) {
        let bytes = Arc::new(pattern(2, 6 << 20));
        // The client says everything, and then the origin does.
        let said = Arc::clone(&bytes);
        let origin = Origin::start(move |peer| {
            let mut all = Vec::new();
            let _ = peer.wire.stream.read_to_end(&mut all);
            assert!(all == **said, "the origin heard something else");
            peer.send(&*said);
        });
        let engine = Setup::new(driver).origin(&origin).tcp().start();
        let mut client = engine.client();
        client.send(&*bytes);
        client.half_close();
        let (got, end) = client.rest();
        assert_eq!((got.len(), end), (bytes.len(), End::Closed));
        assert!(got == **bytes && spliced(&engine) > 6 << 20);
        engine.until_idle();
        // The other way round.
        let said = Arc::clone(&bytes);
        let origin = Origin::start(move |peer| {
            peer.send(&*said);
            let _ = peer.wire.stream.shutdown(Shutdown::Write);
            let mut all = Vec::new();
            let _ = peer.wire.stream.read_to_end(&mut all);
            assert!(all == **said, "the origin heard something else");
        });
        let engine = Setup::new(driver).origin(&origin).tcp().start();
        let mut client = engine.client();
        let (got, end) = client.rest();
        assert_eq!(end, End::Closed);
        assert!(got == **bytes);
        client.send(&*bytes);
        client.half_close();
        engine.until_idle();
        until("the origin has heard all", PATIENCE, || origin.open() == 0);
        assert!(spliced(&engine) > 6 << 20);
    }

    /// In the middle of a stream, while there is something in the pipe and while there is not.
    fn a_reset_is_passed_on(driver) {
        for stalls in [false, true] {
            let origin = Origin::start(move |peer| {
                let mut piece = vec![0; 1 << 16];
                let mut heard = 0;
                while heard < 4 << 20 {
                    heard += peer.wire.stream.read(&mut piece).unwrap_or(0);
                }
                if stalls {
                    std::thread::sleep(Duration::from_millis(300));
                }
                peer.reset();
            });
            let engine = Setup::new(driver).origin(&origin).tcp().start();
            let mut client = engine.client();
            if stalls {
                assert!(client.try_send(pattern(3, 64 << 20)).is_err(), "64 MiB were taken by nobody");
            } else {
                // What the origin does not read mostly fits the buffers on the way, and where it does not, the sending is told of the end.
                match client.try_send(pattern(3, 5 << 20)) {
                    Ok(()) => assert_eq!(client.rest().1, End::Reset, "a reset that became a clean end"),
                    Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
                }
            }
            engine.until_idle();
            assert!(spliced(&engine) > 0);
        }
        for stalls in [false, true] {
            let origin = Origin::start(move |peer| {
                let bytes = pattern(4, 64 << 20);
                assert!(!peer.send(&bytes), "64 MiB were taken by nobody");
            });
            let engine = Setup::new(driver).origin(&origin).tcp().start();
            let mut client = engine.client();
            client.take(4 << 20).expect("a part");
            if stalls {
                std::thread::sleep(Duration::from_millis(300));
            }
            client.reset();
            engine.until_idle();
            until("the origin's connection is closed", PATIENCE, || origin.open() == 0);
            assert!(spliced(&engine) > 0);
        }
    }

    /// Who stops reading stops the other side, with a pipe's worth on the way; and who reads slowly is not silent.
    fn a_slow_reader_holds_one_pipe(driver) {
        let bytes = Arc::new(pattern(5, MUCH));
        let said = Arc::clone(&bytes);
        let origin = Origin::start(move |peer| {
            peer.send(&*said);
        });
        let engine = Setup::new(driver).origin(&origin).tcp().pool_line("timeout.idle = \"3s\"").start();
        let mut client = small_window(&engine);
        let mut got = client.take(SOME).expect("a part");
        std::thread::sleep(Duration::from_millis(200));
        let metrics = engine.metrics();
        assert_eq!(metrics.sum("tunnel_pipes"), 1);
        let lent = metrics.sum("buffers_lent_bytes");
        assert!(lent < 1 << 20, "{lent} bytes are kept for a reader that does not read");
        got.append(&mut client.unread);
        let mut piece = vec![0; 1 << 20];
        while got.len() < bytes.len() {
            let count = client.stream.read(&mut piece).expect("it goes on");
            assert_ne!(count, 0, "cut after {} bytes", got.len());
            got.extend(&piece[..count]);
            if got.len() < 2 * SOME {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        assert!(got == **bytes);
        assert_eq!(client.rest(), (Vec::new(), End::Closed));
        assert!(spliced(&engine) > 8 << 20);
        engine.until_idle();
    }

    /// Silence ends a tunnel that is spliced as it does another.
    fn silence_ends_it(driver) {
        let origin = Origin::start(echo);
        let engine = Setup::new(driver).origin(&origin).tcp().pool_line("timeout.idle = \"300ms\"").start();
        let mut client = engine.client();
        let bytes = Arc::new(pattern(6, 4 << 20));
        let sending = send_in_the_background(&client, Arc::clone(&bytes), false);
        client.take(bytes.len()).expect("an echo");
        sending.join().expect("a sender without complaint");
        assert!(spliced(&engine) > 0);
        assert_ne!(client.rest().1, End::Silent);
        engine.until_idle();
        // So does a reader that has stopped.
        let bytes = pattern(7, MUCH);
        let origin = Origin::start(move |peer| {
            peer.send(&bytes);
        });
        let engine = Setup::new(driver).origin(&origin).tcp().pool_line("timeout.idle = \"300ms\"").start();
        let mut client = small_window(&engine);
        client.take(SOME).expect("a part");
        assert!(spliced(&engine) > 0);
        engine.until_idle();
    }

    fn what_keeps_to_a_pace_is_copied(driver) {
        let origin = Origin::start(echo);
        let engine = Setup::new(driver)
            .origin(&origin)
            .tcp()
            .listen_line("class = \"bulk\"")
            .more("[classes.bulk]\nbandwidth = \"8MB/s\"")
            .start();
        let bytes = Arc::new(pattern(8, 4_000_000));
        let mut client = engine.client();
        let begun = Instant::now();
        let sending = send_in_the_background(&client, Arc::clone(&bytes), true);
        assert!(client.rest().0 == **bytes);
        sending.join().expect("a sender without complaint");
        assert!(begun.elapsed() > Duration::from_millis(450), "{:?}", begun.elapsed());
        assert_eq!(spliced(&engine), 0);
    }

    fn off_is_off(driver) {
        let origin = Origin::start(echo);
        let engine = Setup::new(driver).origin(&origin).tcp().engine_line("tunnel.splice = \"off\"").start();
        let bytes = Arc::new(pattern(9, 8 << 20));
        let mut client = engine.client();
        let sending = send_in_the_background(&client, Arc::clone(&bytes), true);
        assert!(client.rest().0 == **bytes);
        sending.join().expect("a sender without complaint");
        let metrics = engine.metrics();
        assert_eq!((spliced(&engine), metrics.sum("tunnel_pipes"), metrics.sum("tunnel_no_pipe_total")), (0, 0, 0));
    }

    /// A drain waits for what is in the pipe.
    fn a_drain_loses_nothing(driver) {
        let bytes = Arc::new(pattern(10, MUCH));
        let said = Arc::clone(&bytes);
        let origin = Origin::start(move |peer| {
            peer.send(&*said);
        });
        let mut engine = Setup::new(driver).origin(&origin).tcp().start();
        let mut client = small_window(&engine);
        let mut got = client.take(SOME).expect("a part");
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(engine.metrics().sum("tunnel_pipes"), 1);
        engine.terminate();
        std::thread::sleep(Duration::from_millis(100));
        let (rest, end) = client.rest();
        got.extend(rest);
        assert_eq!((got.len(), end), (MUCH, End::Closed));
        assert!(got == **bytes);
        drop(client);
        assert_eq!(engine.wait(PATIENCE).code(), Some(0), "{}", engine.err());
    }

    /// As many readers that have stopped as there are pipes: another stream is copied, and finds one again when a reader leaves.
    fn without_a_pipe_it_is_copied(driver) {
        let bytes = Arc::new(pattern(11, MUCH));
        let said = Arc::clone(&bytes);
        let origin = Origin::start(move |peer| {
            peer.send(&*said);
        });
        let engine = Setup::new(driver).origin(&origin).tcp().start();
        let stall = || {
            let mut client = small_window(&engine);
            let heard = client.take(SOME).expect("a part");
            (client, heard)
        };
        let mut stalled: Vec<_> = (0..PIPES).map(|_| stall()).collect();
        until("all pipes are in use", PATIENCE, || engine.metrics().sum("tunnel_pipes") == PIPES as u64);
        let before = spliced(&engine);
        assert!(engine.client().take(MUCH).expect("all of it") == **bytes);
        let metrics = engine.metrics();
        assert_eq!((spliced(&engine), metrics.sum("tunnel_pipes")), (before, PIPES as u64));
        assert!(metrics.sum("tunnel_no_pipe_total") > 0);
        stalled.truncate(PIPES - 4);
        until("their tunnels are over", PATIENCE, || engine.metrics().sum("tunnels_open") == stalled.len() as u64);
        assert!(engine.client().take(MUCH).expect("all of it") == **bytes);
        assert!(spliced(&engine) > before, "a pipe that was given back is nobody's");
        for (mut client, mut heard) in stalled {
            heard.extend(client.take(MUCH - SOME).expect("the rest"));
            assert!(heard == **bytes, "what was in a pipe is lost");
        }
        engine.until_idle();
    }

    /// Urgent data cannot be spliced, and must not keep the worker busy.
    fn urgent_data_is_received(driver) {
        let origin = Origin::start(echo);
        let engine = Setup::new(driver).origin(&origin).tcp().start();
        let mut client = engine.client();
        let bytes = Arc::new(pattern(12, 4 << 20));
        for _ in 0..3 {
            let sending = send_in_the_background(&client, Arc::clone(&bytes), false);
            assert!(client.take(bytes.len()).expect("an echo") == **bytes);
            sending.join().expect("a sender without complaint");
            socket2::SockRef::from(&client.stream).send_out_of_band(b"!").expect("urgent data");
            std::thread::sleep(Duration::from_millis(50));
            let before = engine.metrics().sum("cpu_nanoseconds_total");
            std::thread::sleep(Duration::from_millis(300));
            let spent = engine.metrics().sum("cpu_nanoseconds_total") - before;
            assert!(spent < 100_000_000, "{spent} ns of CPU while nothing happens");
        }
        assert!(spliced(&engine) > 0);
        client.half_close();
        assert_eq!(client.rest(), (Vec::new(), End::Closed));
        engine.until_idle();
    }

    fn what_leads_a_stream_stays_in_front(driver) {
        let bytes = Arc::new(pattern(13, 6 << 20));
        let said = Arc::clone(&bytes);
        let origin = Origin::start(move |peer| {
            let Ok(source) = proxy_header(peer) else { return };
            let heard = peer.wire.take(said.len()).expect("what the client said");
            assert!(heard == **said, "the origin heard something else");
            peer.send(&source);
        });
        let engine = Setup::new(driver)
            .origin(&origin)
            .tcp()
            .listen_line("proxy_protocol.from = [\"127.0.0.1/32\"]")
            .pool_line("proxy_protocol = \"v2\"")
            .start();
        let mut client = engine.client();
        client.send([&v2([192, 0, 2, 8])[..], &bytes].concat());
        assert_eq!(client.take(14).expect("who we are"), b"192.0.2.8:4711");
        drop(client);
        engine.until_idle();
        assert!(spliced(&engine) > 0);
    }

    fn an_upgrade_is_spliced_too(driver) {
        let origin = Origin::start(|peer| {
            if peer.request().is_some() {
                peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: telepathy\r\n\r\n");
                echo(peer);
            }
        });
        let engine = Setup::new(driver).origin(&origin).start();
        let mut client = engine.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: telepathy\r\n\r\n");
        assert_eq!(client.response(false).expect("101").status(), 101);
        let bytes = Arc::new(pattern(14, 8 << 20));
        let sending = send_in_the_background(&client, Arc::clone(&bytes), true);
        let (got, end) = client.rest();
        sending.join().expect("a sender without complaint");
        assert_eq!((got.len(), end), (bytes.len(), End::Closed));
        assert!(got == **bytes && spliced(&engine) > 0);
        engine.until_idle();
    }
}

fn spliced(engine: &Engine) -> u64 {
    let metrics = engine.metrics();
    metrics.sum("tunnel_spliced_in_bytes_total") + metrics.sum("tunnel_spliced_out_bytes_total")
}

/// A client with room for little, so that what it does not read stays with the engine.
fn small_window(engine: &Engine) -> Client {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(64 << 10).expect("a small buffer");
    socket.connect(&engine.address.into()).expect("the engine listens");
    Wire::new(TcpStream::from(socket)).expect("deadlines")
}

fn send_in_the_background(client: &Client, bytes: Arc<Vec<u8>>, ends: bool) -> std::thread::JoinHandle<()> {
    let mut writer = client.stream.try_clone().expect("a second handle");
    std::thread::spawn(move || {
        writer.write_all(&bytes).expect("sending");
        if ends {
            writer.shutdown(Shutdown::Write).expect("ending");
        }
    })
}
