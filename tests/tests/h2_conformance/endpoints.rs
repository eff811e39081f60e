//! The same rules on the other side: what an endpoint can break, and what its client sees of it. Nothing that is broken is ever seen as whole (§8.1.1).

use std::sync::Arc;

use harness::h2::flag::{END_HEADERS, END_STREAM, PADDED};
use harness::h2::{
    H2Client, PREFACE, code, data, frame, headers, kind, ping, post, reset, setting, settings, window_update,
};
use harness::hpack::{block, literal};
use harness::{Origin, Peer, Setup, on_each_driver};

use Seen::{Broken, NoAnswer, Status};

/// What a client sees.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Seen {
    /// A whole answer, with content of that length.
    Status(u16, usize),
    /// The head of an answer, and then that it is none.
    Broken,
    /// An answer of ours, 502; the endpoint was asked so often.
    NoAnswer(usize),
}

/// What an endpoint answers on a stream, behind its SETTINGS; all that it says of the rule is in there.
type Answer = Box<dyn Fn(u32) -> Vec<u8> + Send + Sync>;

on_each_driver! {
    /// Row by row, each with an endpoint of its own; then the engine is well.
    fn endpoints_break_the_rules(driver) {
        let rows = [whole_answers(), cut_answers(), malformed_answers(), broken_connections()].into_iter().flatten();
        let mut failed = Vec::new();
        for (rule, answer, wanted) in rows {
            let answer = Arc::new(answer);
            let origin = Origin::start(move |peer| {
                peer.wire.take(PREFACE.len()).expect("a preface");
                peer.send(settings(&[]));
                while let Some(stream) = next_head(peer) {
                    peer.send(answer(stream));
                }
            });
            let lines = "protocol = \"h2\"\ntimeout.head = \"2s\"";
            let engine = Setup::new(driver).origin(&origin).pool_line(lines).start();
            let mut client = H2Client::greeted(engine.address);
            // No POST is sent again, unless nobody has looked at it.
            client.send([post(1, "/"), data(1, "", true)].concat());
            client.wait(1);
            let exchange = client.exchange(1);
            let seen = match (exchange.ended, exchange.reset) {
                (true, _) if matches!(wanted, NoAnswer(_)) && exchange.status() == 502 => NoAnswer(heads(&origin)),
                (true, _) => Status(exchange.status(), if exchange.status() < 400 { exchange.body.len() } else { 0 }),
                (false, _) => Broken,
            };
            if seen != wanted {
                failed.push(format!("{rule}: {seen:?} and not {wanted:?}"));
            }
            assert_eq!(client.gone, [], "{rule}");
            drop(client);
            engine.until_idle();
        }
        assert!(failed.is_empty(), "{}", failed.join("\n"));
    }

    /// §6.9.1, §6.9.2: what an endpoint's windows do not let through waits, and goes when they open.
    fn windows_of_endpoints(driver) {
        let origin = Origin::start(|peer| {
            peer.wire.take(PREFACE.len()).expect("a preface");
            peer.send(settings(&[(setting::INITIAL_WINDOW_SIZE, 0)]));
            // The first request may have been on its way before its client knew.
            let Some(first) = next_head(peer) else { return };
            next(peer, kind::SETTINGS);
            peer.send(headers(first, &[(":status", "200")], true));
            let Some(stream) = next_head(peer) else { return };
            let mut came = 0;
            for part in [1, 10, 1_000] {
                std::thread::sleep(std::time::Duration::from_millis(50));
                peer.send(window_update(stream, part));
                came += content(peer, stream);
            }
            peer.send(settings(&[(setting::INITIAL_WINDOW_SIZE, 100_000)]));
            while came < 5_000 {
                came += content(peer, stream);
            }
            peer.send(headers(stream, &[(":status", "200"), ("x-came", &came.to_string())], true));
            let _ = peer.wait_for_end();
        });
        let engine = Setup::new(driver).origin(&origin).pool_line("protocol = \"h2\"").start();
        let mut client = H2Client::greeted(engine.address);
        assert_eq!(client.get("/").status(), 200);
        let answer = client.post("/", &[b'x'; 5_000]);
        assert_eq!((answer.status(), answer.field("x-came")), (200, Some("5000")));
    }
}

/// The rule, what an endpoint says, and what comes of it.
type Row = (&'static str, Answer, Seen);

fn row(rule: &'static str, wanted: Seen, answer: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) -> Row {
    (rule, Box::new(answer), wanted)
}

const OK: &[(&str, &str)] = &[(":status", "200")];

fn ok(stream: u32) -> Vec<u8> {
    headers(stream, OK, false)
}

/// A head with one more field.
fn head(more: (&'static str, &'static str), end: bool) -> impl Fn(u32) -> Vec<u8> {
    move |stream| headers(stream, &[OK, &[more]].concat(), end)
}

/// Everything that an answer may be.
fn whole_answers() -> Vec<Row> {
    vec![
        row("8.1: an answer", Status(200, 2), move |stream| [ok(stream), data(stream, "hi", true)].concat()),
        row("8.1: without content", Status(200, 0), move |stream| headers(stream, OK, true)),
        row("8.1: with trailers", Status(200, 2), move |stream| {
            [ok(stream), data(stream, "hi", false), headers(stream, &[("x-a", "b")], true)].concat()
        }),
        row("8.1: with interim responses before it", Status(200, 0), move |stream| {
            [
                headers(stream, &[(":status", "103")], false),
                headers(stream, &[(":status", "103")], false),
                headers(stream, OK, true),
            ]
            .concat()
        }),
        row("8.1: and then RST_STREAM of NO_ERROR", Status(200, 2), move |stream| {
            [ok(stream), data(stream, "hi", true), reset(stream, code::NO_ERROR)].concat()
        }),
        row("4.1, 5.5: extensions are passed over", Status(200, 2), move |stream| {
            [frame(0xfa, 0xff, stream, b"x"), ok(stream), frame(0xfb, 0, 0, b""), data(stream, "hi", true)].concat()
        }),
        row("6.1, 6.2: padding is taken off", Status(200, 2), move |stream| {
            let fields = [&[3][..], &block(OK), &[0; 3]].concat();
            let head = frame(kind::HEADERS, PADDED | END_HEADERS, stream, fields);
            [head, frame(kind::DATA, PADDED | END_STREAM, stream, [&[255][..], b"hi", &[0; 255]].concat())].concat()
        }),
        row("6.10: a head in pieces", Status(200, 0), move |stream| {
            let fields = block(OK);
            let (first, rest) = fields.split_at(3);
            [frame(kind::HEADERS, END_STREAM, stream, first), frame(kind::CONTINUATION, END_HEADERS, stream, rest)]
                .concat()
        }),
    ]
}

/// None, or not all of it.
fn cut_answers() -> Vec<Row> {
    vec![
        row("7: an unknown code", NoAnswer(1), move |stream| reset(stream, 0xdead)),
        row("8.1: no answer at all", NoAnswer(1), move |stream| reset(stream, code::NO_ERROR)),
        row("8.7: it was not looked at, and once more so", NoAnswer(2), move |stream| {
            reset(stream, code::REFUSED_STREAM)
        }),
        row("6.8: it will not be looked at", NoAnswer(2), move |_| frame(kind::GOAWAY, 0, 0, [0; 8])),
        row("6.8: it may have been", NoAnswer(1), move |stream| {
            // And the connection ends with an error.
            [frame(kind::GOAWAY, 0, 0, [&stream.to_be_bytes()[..], &[0; 4]].concat()), frame(kind::PING, 0, 0, b"x")]
                .concat()
        }),
        row("8.1.1: less content than is promised", Broken, move |stream| {
            [head(("content-length", "5"), false)(stream), data(stream, "hi", true)].concat()
        }),
        row("8.1.1: more of it", Broken, move |stream| {
            [head(("content-length", "1"), false)(stream), data(stream, "hi", true)].concat()
        }),
        row("8.1: a second head", Broken, move |stream| [ok(stream), data(stream, "hi", false), ok(stream)].concat()),
        row("8.1: a pseudo-field in trailers", Broken, move |stream| {
            [ok(stream), data(stream, "hi", false), headers(stream, OK, true)].concat()
        }),
        row("5.4.2: reset behind its head", Broken, move |stream| {
            [ok(stream), data(stream, "hi", false), reset(stream, code::CANCEL)].concat()
        }),
    ]
}

/// §8.1.1: no answer.
fn malformed_answers() -> Vec<Row> {
    vec![
        row("8.1: content before the head", NoAnswer(1), move |stream| data(stream, "hi", true)),
        row("8.1: an interim end", NoAnswer(1), move |stream| headers(stream, &[(":status", "103")], true)),
        row("8.2: a capital in a name", NoAnswer(1), head(("X-a", "b"), true)),
        row("8.2.1: no name", NoAnswer(1), head(("", "b"), true)),
        row("8.2.1: a line's end in a value", NoAnswer(1), head(("x-a", "b\r\nx-c: d"), true)),
        row("8.2.1: a space before a value", NoAnswer(1), head(("x-a", " b"), true)),
        row("8.2.2: Connection", NoAnswer(1), head(("connection", "close"), true)),
        row("8.2.2: Transfer-Encoding", NoAnswer(1), head(("transfer-encoding", "chunked"), true)),
        row("8.3: of a request", NoAnswer(1), head((":path", "/"), true)),
        row("8.3.2: no status", NoAnswer(1), move |stream| headers(stream, &[("x-a", "b")], true)),
        row("8.3.2: no number", NoAnswer(1), move |stream| headers(stream, &[(":status", "2OO")], true)),
        row("8.6: 101", NoAnswer(1), move |stream| headers(stream, &[(":status", "101")], true)),
    ]
}

/// What ends the connection, and with it what is asked there.
fn broken_connections() -> Vec<Row> {
    vec![
        row("4.3: a block that cannot be read", NoAnswer(1), move |stream| {
            frame(
                kind::HEADERS,
                END_HEADERS | END_STREAM,
                stream,
                [&block(OK)[..], &literal(b"x-a", b"cut off")[..9]].concat(),
            )
        }),
        row("4.2: too large a frame", NoAnswer(1), move |stream| {
            frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, [0; 16_385])
        }),
        row("5.1: a stream of the server's", NoAnswer(1), move |_| headers(2, OK, true)),
        row("5.1: a stream that nobody opened", NoAnswer(1), move |stream| headers(stream + 2, OK, true)),
        row("6.5: SETTINGS on a stream", NoAnswer(1), move |stream| frame(kind::SETTINGS, 0, stream, [])),
        row("6.5.2: a server that would push", NoAnswer(1), move |_| settings(&[(setting::ENABLE_PUSH, 1)])),
        row("6.6, 8.4: PUSH_PROMISE", NoAnswer(1), move |stream| {
            frame(kind::PUSH_PROMISE, END_HEADERS, stream, [&[0, 0, 0, 2][..], &block(&[(":method", "GET")])].concat())
        }),
        row("6.7: PING on a stream", NoAnswer(1), move |stream| frame(kind::PING, 0, stream, [0; 8])),
        row("6.9: by nothing", NoAnswer(1), move |stream| window_update(stream, 0)),
        row("6.9.1: beyond 2^31-1", NoAnswer(1), move |_| window_update(0, 0x7fff_ffff)),
        row("6.9: more than the window", Broken, move |stream| {
            let flood = data(stream, [b'x'; 16_384], false).repeat(1_000);
            [ok(stream), flood, data(stream, "", true)].concat()
        }),
        row("10.5: a flood of PINGs", NoAnswer(1), move |stream| {
            [ping([0; 8]).repeat(2_000), headers(stream, OK, true)].concat()
        }),
        row("10.5: a flood of empty frames", Broken, move |stream| {
            [ok(stream), data(stream, "", false).repeat(2_000), data(stream, "hi", true)].concat()
        }),
        row("10.5.1: a head without end", NoAnswer(1), move |stream| {
            [frame(kind::HEADERS, 0, stream, block(OK)), frame(kind::CONTINUATION, 0, stream, []).repeat(100)].concat()
        }),
    ]
}

/// The next frame of that type: its stream and its length.
fn next(peer: &mut Peer, wanted: u8) -> Option<(u32, usize)> {
    loop {
        let head = peer.wire.take(9).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        peer.wire.take(length).ok()?;
        if head[3] == wanted {
            return Some((u32::from_be_bytes([head[5], head[6], head[7], head[8]]), length));
        }
    }
}

fn next_head(peer: &mut Peer) -> Option<u32> {
    next(peer, kind::HEADERS).map(|(stream, _)| stream)
}

/// How much content the next DATA frame has.
fn content(peer: &mut Peer, stream: u32) -> usize {
    let (of, length) = next(peer, kind::DATA).expect("content");
    assert_eq!(of, stream);
    length
}

/// How many requests the endpoint has got, over all connections.
fn heads(origin: &Origin) -> usize {
    let count = |bytes: &Vec<u8>| {
        let (mut at, mut heads) = (PREFACE.len(), 0);
        while let Some(&[a, b, c, kind, ..]) = bytes.get(at..at + 9) {
            heads += usize::from(kind == kind::HEADERS);
            at += 9 + u32::from_be_bytes([0, a, b, c]) as usize;
        }
        heads
    };
    origin.received().iter().map(count).sum()
}
