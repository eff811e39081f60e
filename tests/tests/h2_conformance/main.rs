//! HTTP/2's framing, streams and settings, rule by rule (RFC 9113 §3.4–§6.10): what a client can break, and what must come of it.
//!
//! Errors are expected as the RFC has them and nowhere more leniently: RST_STREAM with the code where the stream is at fault, and then
//! others are served; GOAWAY with the code and the end where the connection is.

mod control;
mod endpoints;
mod messages;
mod streams;
mod windows;

use std::net::SocketAddr;
use std::time::Duration;

use harness::h2::code::{PROTOCOL_ERROR, REFUSED_STREAM};
use harness::h2::flag::{END_HEADERS, END_STREAM};
use harness::h2::{
    H2Client, PREFACE, Trial, WINDOW, asking, frame, get, kind, ping, post, reset, setting, settings, window_update,
};
use harness::hpack::{block, indexed};
use harness::{Authority, Driver, End, Engine, Folder, Kind, Origin, Setup, on_each_driver};

use control::{
    continuations, data_and_headers, pings_and_goaways, priorities_and_resets, settings_rows, window_updates,
};
use streams::{blocks, closed_streams, frames, half_closed_streams, identifiers, idle_streams, interleaved};

on_each_driver! {
    /// §4, §5.5: frames as such, their sizes, and field blocks that cannot be read.
    fn frames_and_blocks(driver) {
        let place = Place::new(driver);
        Trial::all(&[frames(), blocks(), interleaved()].concat(), || place.client());
        place.engine.until_idle();
    }

    /// §5.1, §5.3: states and identifiers of streams.
    fn states_of_streams(driver) {
        let place = Place::new(driver);
        Trial::all(&[idle_streams(), half_closed_streams(), closed_streams(), identifiers()].concat(), || place.client());
        place.engine.until_idle();
    }

    /// §6.1–§6.4, §6.10.
    fn frames_of_streams(driver) {
        let place = Place::new(driver);
        Trial::all(&[data_and_headers(), priorities_and_resets(), continuations()].concat(), || place.client());
        place.engine.until_idle();
    }

    /// §6.5–§6.9.
    fn frames_of_connections(driver) {
        let place = Place::new(driver);
        Trial::all(&[settings_rows(), pings_and_goaways(), window_updates()].concat(), || place.client());
        place.engine.until_idle();
    }

    /// The same over TLS, where ALPN chose.
    fn over_tls(driver) {
        let folder = Folder::new();
        let authority = Authority::new(&folder, "ca");
        let issued = authority.issue(&folder, "a", &["a.example"], Kind::Ecdsa);
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).listen_line(&issued.line()).start();
        let rows = [frames(), interleaved(), idle_streams(), half_closed_streams(), settings_rows(), window_updates()];
        Trial::all(&rows.concat(), || {
            let mut client = H2Client::connect_tls(engine.address, "a.example", authority.client(None));
            client.greet(&[]);
            client
        });
        let mut garbage = H2Client::connect_tls(engine.address, "a.example", authority.client(None));
        garbage.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        no_preface(&mut garbage);
        engine.until_idle();
    }

    /// §3.4: a preface that is none, that is slow, and that is not followed by SETTINGS.
    fn prefaces(driver) {
        let place = Place::new(driver);
        let mut slow = H2Client::connect(place.address());
        for byte in [PREFACE, &settings(&[])].concat() {
            slow.send([byte]);
            std::thread::sleep(Duration::from_micros(500));
        }
        assert_eq!(slow.get("/").text(), "hello\n");
        let mut at_once = H2Client::connect(place.address());
        at_once.send([PREFACE, &settings(&[]), &get(1, "/")].concat());
        assert_eq!(at_once.response(1).text(), "hello\n");
        for broken in ["PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n"] {
            let mut client = H2Client::connect(place.address());
            client.send(broken);
            client.half_close();
            no_preface(&mut client);
        }
        // §3.4 lets GOAWAY be left out where the peer does not speak HTTP/2; words of HTTP/1 would be no frame.
        let mut other = H2Client::connect(place.address());
        other.send("INVALID CONNECTION PREFACE\r\n\r\n");
        let mut bytes = Vec::new();
        assert_ne!(other.rest(&mut bytes), End::Silent);
        assert_eq!(bytes.escape_ascii().to_string(), "");
        for first in [ping([0; 8]), get(1, "/"), window_update(0, 1)] {
            let mut client = H2Client::connect(place.address());
            client.send([PREFACE, &first].concat());
            let (code, end) = client.until_ended();
            assert_eq!(code, Some(PROTOCOL_ERROR), "{end:?}");
        }
        drop((slow, at_once));
        place.engine.until_idle();
    }

    /// §5.1.2: streams beyond what the server announced are refused or an error of theirs, and the others are answered.
    fn concurrency(driver) {
        let place = Place::new(driver);
        let mut client = place.client();
        let most = client.settings[&setting::MAX_CONCURRENT_STREAMS];
        assert!(most >= 100, "§6.5.2: no fewer than 100 are recommended, and not {most}");
        let within: Vec<u32> = (0..most).map(|_| client.request(&asking("GET", "/slow/600"), true)).collect();
        let beyond = client.request(&asking("GET", "/"), true);
        client.wait(beyond);
        assert!(matches!(client.exchange(beyond).reset, Some(REFUSED_STREAM | PROTOCOL_ERROR)), "{:?}", client.exchange(beyond));
        for stream in within {
            assert_eq!(client.response(stream).text(), "slow\n");
        }
        assert_eq!(client.get("/").text(), "hello\n");
    }

    /// §4.3: the table follows blocks whose streams are refused, reset or malformed too.
    fn the_table_follows_every_block(driver) {
        let place = Place::new(driver);
        let mut client = place.client();
        let learns = |stream, fields: &[(&str, &str)], name: &str| {
            frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, [block(fields), indexed(name.as_bytes(), b"known")].concat())
        };
        // Malformed; then on a stream that the client has given up.
        client.send(learns(1, &[(":method", "GET")], "x-first"));
        client.wait(1);
        assert_eq!(client.exchange(1).reset, Some(PROTOCOL_ERROR));
        client.send([post(3, "/echo"), reset(3, 8), learns(3, &[], "x-second")].concat());
        // The newest entry has index 62.
        let fields = [block(&asking("GET", "/head")), vec![0x80 | 63, 0x80 | 62]].concat();
        client.send(frame(kind::HEADERS, END_HEADERS | END_STREAM, 5, fields));
        let seen = client.response(5).text().to_ascii_lowercase();
        assert!(seen.contains("\r\nx-first: known\r\n") && seen.contains("\r\nx-second: known\r\n"), "{seen}");
    }

    /// §4.3.1, RFC 7541 §4.2: the table of responses is as large as the client has said, and that it is smaller is confirmed ([`H2Client`] sees to that).
    fn the_table_of_responses_follows_settings(driver) {
        let place = Place::new(driver);
        let mut client = H2Client::connect(place.address());
        client.greet(&[(setting::HEADER_TABLE_SIZE, 0)]);
        let asks = |client: &mut H2Client| {
            for path in ["/", "/bytes/10", "/", "/chunked/5"] {
                assert_eq!(client.get(path).status(), 200, "{path}");
            }
        };
        asks(&mut client);
        let sizes: [&[u32]; 7] = [&[4_096], &[100], &[0, 4_096], &[50, 0, 1_000], &[1 << 20], &[33], &[u32::MAX, 4_096]];
        for sizes in sizes {
            let entries: Vec<(u16, u32)> = sizes.iter().map(|&size| (setting::HEADER_TABLE_SIZE, size)).collect();
            client.settle(&entries);
            asks(&mut client);
        }
        assert_eq!(client.agreed, 8);
    }

    /// RFC 9218 §4, §7: what is urgent goes first, by the field or by the frame, which is later and so counts.
    fn the_urgent_go_first(driver) {
        const LENGTH: usize = 30_000;
        let place = Place::new(driver);
        let mut client = H2Client::connect(place.address());
        client.credits = false;
        client.greet(&[(setting::INITIAL_WINDOW_SIZE, 1 << 20)]);
        // Nothing is left of the connection's window.
        let path = format!("/bytes/{WINDOW}");
        assert_eq!(client.get(&path).body.len() as i64, WINDOW);
        let path = format!("/bytes/{LENGTH}");
        let asks = |client: &mut H2Client, priority: &str| {
            client.request(&[&asking("GET", &path)[..], &[("priority", priority)]].concat(), true)
        };
        let [first, second, third, fourth] = ["u=5", "u=4", "u=1", "u=7"].map(|priority| asks(&mut client, priority));
        client.send(frame(PRIORITY_UPDATE, 0, 0, [&fourth.to_be_bytes()[..], b"u=0"].concat()));
        for stream in [first, second, third, fourth] {
            client.until("a head", |client| !client.exchange(stream).fields.is_empty());
        }
        // Their content waits for the window by now.
        client.listen(Duration::from_millis(200));
        for (at, stream) in [fourth, third, second, first].into_iter().enumerate() {
            for part in [LENGTH / 3, LENGTH - LENGTH / 3] {
                let whole = if part == LENGTH / 3 { part } else { LENGTH };
                client.widen(0, part as u32);
                client.until("what the window lets through", |client| client.exchange(stream).body.len() >= whole);
                client.barrier();
                let had = [fourth, third, second, first].map(|stream| client.exchange(stream).body.len());
                let wanted = std::array::from_fn(|other| if other < at { LENGTH } else if other == at { whole } else { 0 });
                assert_eq!(had, wanted, "stream {stream}");
            }
        }
    }

    /// §6.5.3, §6.7: every SETTINGS and PING is answered, in the order in which they came.
    fn acknowledgements(driver) {
        let place = Place::new(driver);
        let mut client = place.client();
        for _ in 0..3 {
            client.settle(&[(setting::INITIAL_WINDOW_SIZE, 70_000), (setting::INITIAL_WINDOW_SIZE, 65_535)]);
        }
        client.send([ping(*b"abcdefgh"), ping([0; 8]), frame(kind::PING, 0xfe, 0, [7; 8])].concat());
        client.until("all is answered", |client| client.agreed == 4 && client.pongs.len() == 3);
        assert_eq!(client.pongs, [*b"abcdefgh", [0; 8], [7; 8]]);
    }

    /// §6.8: a client that leaves is still answered.
    fn a_client_says_goaway(driver) {
        let place = Place::new(driver);
        let mut client = place.client();
        let stream = client.request(&asking("GET", "/slow/100"), true);
        client.send(frame(kind::GOAWAY, 0, 0, [0; 8]));
        assert_eq!(client.response(stream).text(), "slow\n");
        drop(client);
        place.engine.until_idle();
    }
}

/// RFC 9218 §7.1.
const PRIORITY_UPDATE: u8 = 0x10;

/// Nothing is served, and the connection ends: by GOAWAY, by an answer that is HTTP/1's, or at once.
fn no_preface(client: &mut H2Client) {
    let mut bytes = Vec::new();
    let end = client.rest(&mut bytes);
    assert_ne!(end, End::Silent, "{}", bytes.escape_ascii());
    let text = String::from_utf8_lossy(&bytes);
    assert!(!text.contains(" 200 ") && !text.contains("hello"), "{text}");
}

struct Place {
    engine: Engine,
    origin: Origin,
}

impl Place {
    fn new(driver: Driver) -> Self {
        let origin = Origin::standard();
        Self { engine: Setup::new(driver).origin(&origin).start(), origin }
    }

    fn address(&self) -> SocketAddr {
        self.engine.address
    }

    fn client(&self) -> H2Client {
        H2Client::greeted(self.address())
    }
}

/// A request whose answer takes a while: its stream is half-closed, and not closed.
fn slow(stream: u32) -> Vec<u8> {
    get(stream, "/slow/300")
}

/// A GET whose block ends with these bytes.
fn with_block(stream: u32, more: &[u8]) -> Vec<u8> {
    frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, [&block(&asking("GET", "/"))[..], more].concat())
}

/// HEADERS of a GET whose block goes on.
fn unfinished(stream: u32) -> Vec<u8> {
    frame(kind::HEADERS, END_STREAM, stream, block(&asking("GET", "/")))
}

fn priority(stream: u32, on: u32) -> Vec<u8> {
    frame(kind::PRIORITY, 0, stream, [&on.to_be_bytes()[..], &[15]].concat())
}
