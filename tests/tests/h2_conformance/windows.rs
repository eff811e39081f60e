//! §5.2, §6.9: flow control, in both directions. That no window is ever overrun, [`H2Client`] watches in every test.

use std::time::Duration;

use harness::h2::code::FLOW_CONTROL_ERROR;
use harness::h2::flag::{END_STREAM, PADDED};
use harness::h2::{H2Client, WINDOW, asking, data, frame, kind, setting};
use harness::{Origin, Setup, on_each_driver, pattern};

use crate::Place;

/// Long enough for what should not come to come.
const A_WHILE: Duration = Duration::from_millis(150);

on_each_driver! {
    /// §6.9.2: windows that begin at nothing, grow and shrink by SETTINGS, below zero too.
    fn windows_follow_settings(driver) {
        let place = Place::new(driver);
        let mut client = H2Client::connect(place.address());
        client.credits = false;
        client.greet(&[(setting::INITIAL_WINDOW_SIZE, 0)]);
        let stream = client.request(&asking("GET", "/bytes/5000"), true);
        let had = |client: &mut H2Client, bytes: usize| {
            client.until("content", |client| client.exchange(stream).body.len() >= bytes);
            client.listen(A_WHILE);
            assert_eq!(client.exchange(stream).body.len(), bytes);
        };
        client.until("the head", |client| !client.exchange(stream).fields.is_empty());
        had(&mut client, 0);
        client.widen(stream, 1);
        had(&mut client, 1);
        client.settle(&[(setting::INITIAL_WINDOW_SIZE, 10)]);
        had(&mut client, 11);
        client.settle(&[(setting::INITIAL_WINDOW_SIZE, 0)]);
        client.until("SETTINGS", |client| client.agreed == 3);
        client.widen(stream, 10);
        had(&mut client, 11);
        client.widen(stream, 5);
        had(&mut client, 16);
        client.settle(&[(setting::INITIAL_WINDOW_SIZE, 0), (setting::INITIAL_WINDOW_SIZE, 100)]);
        had(&mut client, 116);
        client.widen(stream, 10_000);
        assert_eq!(client.response(stream).body, pattern(5_000, 5_000));
    }

    /// §6.9.1: the connection's window is everybody's; what it does not let through waits, and nothing is lost.
    fn the_connections_window(driver) {
        let place = Place::new(driver);
        let mut client = place.client();
        client.credits = false;
        let streams: Vec<u32> = (0..3).map(|_| client.request(&asking("GET", "/bytes/60000"), true)).collect();
        let all = |client: &H2Client| streams.iter().map(|&stream| client.exchange(stream).body.len()).sum::<usize>();
        client.until("as much as may come", |client| all(client) as i64 == WINDOW);
        client.listen(A_WHILE);
        assert_eq!(all(&client) as i64, WINDOW);
        // Heads are not content.
        assert_eq!(client.ask(&asking("HEAD", "/")).status(), 200);
        client.widen(0, 1 << 20);
        for stream in streams {
            assert_eq!(client.response(stream).body, pattern(60_000, 60_000));
        }
    }

    /// §5.2.1: a stream that nobody reads does not hold up the others.
    fn a_stream_that_is_not_read(driver) {
        let place = Place::new(driver);
        let mut client = H2Client::connect(place.address());
        client.credits = false;
        client.greet(&[(setting::INITIAL_WINDOW_SIZE, 1000)]);
        client.widen(0, 1 << 25);
        let stuck: Vec<u32> = (0..50).map(|_| client.request(&asking("GET", "/bytes/300000"), true)).collect();
        for _ in 0..20 {
            let stream = client.request(&asking("GET", "/bytes/100000"), true);
            client.widen(stream, 200_000);
            assert_eq!(client.response(stream).body.len(), 100_000);
        }
        for stream in stuck {
            client.until("the window's worth", |client| client.exchange(stream).body.len() >= 1000);
            assert_eq!(client.exchange(stream).body.len(), 1000);
            client.widen(stream, 300_000);
            assert_eq!(client.response(stream).body, pattern(300_000, 300_000));
        }
    }

    /// §6.9.1: what ends a stream and says nothing needs no window.
    fn an_end_needs_no_window(driver) {
        let place = Place::new(driver);
        let mut client = H2Client::connect(place.address());
        client.greet(&[(setting::INITIAL_WINDOW_SIZE, 0)]);
        for path in ["/bytes/0", "/chunked/0", "/until-close/0", "/status/204"] {
            assert_eq!(client.get(path).body.len(), 0, "{path}");
        }
    }

    /// §6.9: padding is counted, and given back.
    fn padding_is_given_back(driver) {
        let place = Place::new(driver);
        let mut client = place.client();
        let stream = client.request(&asking("POST", "/echo"), false);
        let first = client.settings.get(&setting::INITIAL_WINDOW_SIZE).map_or(WINDOW, |&window| i64::from(window));
        let padded = |flags| frame(kind::DATA, PADDED | flags, stream, [&[255][..], &[b'x'; 100], &[0; 255]].concat());
        for sent in 1..=1_500 {
            client.send(padded(if sent == 1_500 { END_STREAM } else { 0 }));
            // Never more than what is allowed, the next frame included.
            client.until("credit", |client| (sent + 1) * 356 <= (first + client.exchange(stream).credit).min(client.credit));
        }
        assert!(client.response(stream).body == vec![b'x'; 150_000]);
    }

    /// §6.9: whoever ignores the server's windows is stopped, and costs it no memory.
    fn a_client_that_ignores_windows(driver) {
        // It takes connections and reads nothing.
        let origin = Origin::start(|peer| {
            let _ = peer.wire.head();
            std::thread::sleep(Duration::from_secs(20));
        });
        let engine = Setup::new(driver).origin(&origin).start();
        let mut client = H2Client::greeted(engine.address);
        let before = engine.memory().anonymous;
        let stream = client.request(&asking("POST", "/"), false);
        let mut sent = 0;
        while client.ended.is_none() && client.gone.is_empty() && client.exchange(stream).reset.is_none() {
            assert!(sent < 64 << 20, "64 MiB were taken that nobody had asked for");
            if client.try_send(data(stream, [0; 16_384], false)).is_err() {
                break;
            }
            sent += 16_384;
            client.listen(Duration::from_micros(10));
        }
        client.listen(Duration::from_millis(500));
        let code = client.exchange(stream).reset.or(client.gone.last().map(|gone| gone.code));
        assert_eq!(code, Some(FLOW_CONTROL_ERROR), "{:?}", client.ended);
        let grown = engine.memory().anonymous.saturating_sub(before);
        assert!(grown < 8 << 20, "{grown} bytes for one upload");
    }
}
