//! A client's machine and a server's, with nothing between them but pieces: whatever the windows and wherever bytes are cut, every message
//! arrives as it was sent, and neither ever finds fault with the other.

mod wire;

use proptest::prelude::*;
use proto::Malformed;
use proto::h1::{Client, Server};
use proto::h2::{ErrorCode, Limits, StreamId};
use proto::http::{Framing, Method};
use std::collections::BTreeMap;
use std::time::Duration;
use wire::*;

#[derive(Debug, Clone, Copy)]
struct Exchange {
    upload: usize,
    download: usize,
    known_length: bool,
    trailers: bool,
    /// The client gives it up when so many bytes have come.
    give_up: Option<usize>,
}

/// What one stream's receiver has of a message.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Got {
    heads: usize,
    bytes: usize,
    ended: bool,
    trailers: String,
    reset: bool,
}

fn note(got: &mut BTreeMap<u32, Got>, seen: &[Seen]) {
    for seen in seen {
        match seen {
            Seen::Head { stream, .. } => got.entry(*stream).or_default().heads += 1,
            Seen::Data { stream, bytes } => {
                assert!(bytes.iter().all(|&byte| byte == *stream as u8), "another stream's content");
                got.entry(*stream).or_default().bytes += bytes.len();
            }
            Seen::End { stream, trailers } => {
                let got = got.entry(*stream).or_default();
                (got.ended, got.trailers) = (true, trailers.clone());
            }
            Seen::Reset { stream, .. } => got.entry(*stream).or_default().reset = true,
            other => panic!("{other:?}"),
        }
    }
}

const TRAILER: [(&[u8], &[u8]); 1] = [(b"x-sum", b"1")];

/// Puts one side's content: all of it, with its end.
fn put_body<S: Side>(rig: &mut Rig<S>, stream: u32, bytes: usize, trailers: bool) -> bool {
    if bytes > 0 {
        rig.queue(stream, bytes);
    }
    if !trailers {
        rig.finish(stream);
    }
    trailers
}

/// Sends what may go, and the trailers of what has gone.
fn flush<S: Side>(rig: &mut Rig<S>, owed: &mut Vec<u32>) -> Vec<u8> {
    rig.send();
    owed.retain(|&stream| {
        let wait = rig.connection.queued(StreamId(stream)) > 0;
        if !wait {
            // A stream that was given up takes none.
            let _ = rig.connection.write_trailers(StreamId(stream), TRAILER.into_iter(), &mut rig.out);
        }
        wait
    });
    std::mem::take(&mut rig.out)
}

fn run(limits: [Limits; 2], exchanges: &[Exchange], mut seed: u64) {
    let (mut ours, mut theirs) = (Rig::<Client>::new(limits[0]), Rig::<Server>::new(limits[1]));
    let (mut asked, mut answered) = (BTreeMap::<u32, Exchange>::new(), BTreeMap::new());
    let (mut up, mut down) = (BTreeMap::new(), BTreeMap::<u32, Got>::new());
    let (mut up_owed, mut down_owed) = (Vec::new(), Vec::new());
    let mut waiting: Vec<Exchange> = exchanges.to_vec();
    for round in 0..100_000 {
        ours.now = Duration::from_millis(round);
        theirs.now = ours.now;
        while ours.connection.can_open() {
            let Some(exchange) = waiting.pop() else { break };
            let framing = match (exchange.upload, exchange.known_length) {
                (0, _) if !exchange.trailers => Framing::None,
                (length, true) if length > 0 => Framing::Length(length as u64),
                _ => Framing::Chunked,
            };
            let stream = ours.ask(if framing == Framing::None { Method::Get } else { Method::Post }, framing);
            asked.insert(stream, exchange);
            if framing != Framing::None && put_body(&mut ours, stream, exchange.upload, exchange.trailers) {
                up_owed.push(stream);
            }
        }
        let sent = flush(&mut ours, &mut up_owed);
        seed = seed.wrapping_add(1);
        for piece in cut(&sent, seed) {
            note(&mut up, &theirs.feed(piece).unwrap());
        }
        for (&stream, got) in &up {
            let (exchange, done) = (asked[&stream], answered.contains_key(&stream));
            if !got.ended || got.reset || done {
                continue;
            }
            answered.insert(stream, ());
            let framing = if exchange.known_length && exchange.download > 0 {
                Framing::Length(exchange.download as u64)
            } else {
                Framing::Chunked
            };
            theirs.answer(stream, framing);
            if put_body(&mut theirs, stream, exchange.download, exchange.trailers) {
                down_owed.push(stream);
            }
        }
        let back = flush(&mut theirs, &mut down_owed);
        for piece in cut(&back, seed) {
            let seen = ours.feed(piece).unwrap();
            // What came before the client knew the server's limit was refused, and is asked for again (RFC 9113 §8.7).
            for seen in &seen {
                if let Seen::Reset { stream, why: Malformed::Unprocessed } = seen {
                    waiting.extend(asked.remove(stream));
                    assert!(!up.contains_key(stream), "it was looked at");
                }
            }
            note(&mut down, &seen);
        }
        for (&stream, got) in &mut down {
            let give_up = asked.get(&stream).and_then(|exchange| exchange.give_up);
            if give_up.is_some_and(|at| got.bytes >= at) && !got.ended && !got.reset {
                ours.connection.reset(StreamId(stream), ErrorCode::CANCEL, &mut ours.out);
                got.reset = true;
            }
        }
        assert!(round < 99_999, "it never ends");
        if sent.is_empty() && back.is_empty() && ours.out.is_empty() && waiting.is_empty() {
            break;
        }
    }
    assert_eq!(asked.len(), exchanges.len(), "every request was sent");
    for (stream, exchange) in asked {
        let trailers = if exchange.trailers { "x-sum: 1|" } else { "" };
        let whole = |bytes| Got { heads: 1, bytes, ended: true, trailers: trailers.into(), reset: false };
        let (up, down) = (&up[&stream], &down[&stream]);
        if !down.reset {
            assert_eq!((up, down), (&whole(exchange.upload), &whole(exchange.download)), "{stream}");
        }
    }
    assert!(ours.connection.is_idle() && theirs.connection.is_idle());
}

fn any_exchange() -> impl Strategy<Value = Exchange> {
    let length = || prop_oneof![Just(0_usize), 1_usize..200, 1_usize..60_000];
    (length(), length(), any::<bool>(), any::<bool>(), prop::option::weighted(0.1, 0_usize..30_000)).prop_map(
        |(upload, download, known_length, trailers, give_up)| Exchange {
            upload,
            download,
            known_length,
            trailers,
            give_up,
        },
    )
}

fn any_limits() -> impl Strategy<Value = Limits> {
    (1_u16..20, prop_oneof![1_u32..200, 1_000_u32..200_000], 0_u16..=4096, 0_u32..100_000).prop_map(
        |(streams, stream_window, header_table, more)| Limits {
            streams,
            stream_window,
            header_table,
            connection_window: 65_535 + more,
            ..Limits::DEFAULT
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everything_arrives(ours in any_limits(), theirs in any_limits(), exchanges in prop::collection::vec(any_exchange(), 1..30), seed in any::<u64>()) {
        // Content that takes a thousand windows tells no more than what takes a hundred.
        let fit = |length: usize, limits: &Limits| length.min(limits.stream_window as usize * 100);
        let fitted = |exchange: Exchange| Exchange { upload: fit(exchange.upload, &theirs), download: fit(exchange.download, &ours), ..exchange };
        let exchanges: Vec<Exchange> = exchanges.into_iter().map(fitted).collect();
        run([ours, theirs], &exchanges, seed);
    }

    #[test]
    fn where_bytes_are_cut_says_nothing(frames in prop::collection::vec(any_frame(), 0..40), seed in any::<u64>()) {
        let stream = frames.concat();
        prop_assert_eq!(tell(server(), &cut(&stream, seed)), tell(server(), &[&stream]));
        prop_assert_eq!(tell(client(6), &cut(&stream, seed)), tell(client(6), &[&stream]));
    }
}

/// Frames that are mostly right, in an order that is mostly wrong.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let stream = prop_oneof![Just(1_u32), Just(3), Just(5), Just(7), Just(9), Just(0), Just(2), Just(101)];
    (0..20_u8, stream, any::<bool>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(
        |(sort, stream, flag, number, bytes)| match sort {
            0..=3 => headers(stream, GET, flag),
            4 => headers(stream, &with(POST, &[("content-length", "5")]), flag),
            5 => headers(stream, OK, flag),
            6 => headers(stream, &[("x-trailer", "y")], true),
            7..=9 => data(stream, &bytes, flag),
            10 => frame(DATA, PADDED | u8::from(flag), stream, &bytes),
            11 => rst(stream, ErrorCode(number % 16)),
            12 => window_update(stream, number % 1_000_000),
            13 => settings(&[((number % 10) as u16, number >> 8)]),
            14 => ping(),
            15 => frame(HEADERS, u8::from(flag), stream, &block(GET)),
            16 => frame(CONTINUATION, if flag { END_HEADERS } else { 0 }, stream, b""),
            17 => frame(PRIORITY_UPDATE, 0, 0, &[&stream.to_be_bytes()[..], b"u=1, i"].concat()),
            18 => go_away(stream, ErrorCode(number % 16)),
            _ => frame((number % 18) as u8, (number >> 8) as u8, stream, &bytes),
        },
    )
}
