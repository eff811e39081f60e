//! The abuse ledger (techniques and limits: `h2::ledger`): each attack is cut off with the right code, and nobody else ever is.

mod wire;

use proto::Malformed;
use proto::h1::{Client, Server};
use proto::h2::{Connection, ErrorCode, HeadSpace, Limits, Said, StreamId};
use proto::http::Framing;
use std::time::Duration;
use wire::*;

/// How many pieces a server takes, all at the same moment, before it cuts the peer off with ENHANCE_YOUR_CALM.
fn borne(mut rig: Rig<Server>, mut piece: impl FnMut(&mut Rig<Server>, u32) -> Vec<u8>) -> u32 {
    for round in 0..100_000 {
        let bytes = piece(&mut rig, round);
        if let Err(fault) = rig.feed(&bytes) {
            assert_eq!(fault.code, ErrorCode::ENHANCE_YOUR_CALM, "{fault}");
            let put = rig.put();
            let last = put.last().unwrap();
            assert_eq!((last.kind, last.word(4)), (GOAWAY, ErrorCode::ENHANCE_YOUR_CALM.0));
            assert!(rig.connection.memory() <= 64 * 1024, "{}", rig.connection.memory());
            return round;
        }
        // Whoever owes a lot is asked to go, and is not exempt after that.
        if rig.out.len() > 1 << 20 {
            rig.out.clear();
        }
    }
    panic!("nobody was cut off");
}

fn busy() -> Rig<Server> {
    let mut rig = server();
    rig.connection.set_busy(true);
    rig
}

fn nth(round: u32) -> u32 {
    round * 2 + 1
}

#[test]
fn rapid_reset() {
    let count =
        borne(server(), |_, round| [headers(nth(round), GET, true), rst(nth(round), ErrorCode::CANCEL)].concat());
    assert!((195..=200).contains(&count), "{count}");
}

#[test]
fn made_you_reset_in_all_its_forms() {
    let open = |round| headers(nth(round), POST, false);
    let ended = |round| headers(nth(round), GET, true);
    type Form = (&'static str, Box<dyn Fn(u32) -> Vec<u8>>);
    let forms: Vec<Form> = vec![
        ("WINDOW_UPDATE by nothing", Box::new(move |round| [ended(round), window_update(nth(round), 0)].concat())),
        (
            "WINDOW_UPDATE beyond 2^31-1",
            Box::new(move |round| [ended(round), window_update(nth(round), 0x7fff_ffff)].concat()),
        ),
        ("HEADERS on half-closed", Box::new(move |round| [ended(round), ended(round)].concat())),
        ("DATA on half-closed", Box::new(move |round| [ended(round), data(nth(round), b"x", true)].concat())),
        (
            "PRIORITY of another length",
            Box::new(move |round| [open(round), frame(PRIORITY, 0, nth(round), &[0; 4])].concat()),
        ),
        ("a malformed head", Box::new(move |round| headers(nth(round), &with(GET, &[("A", "b")]), true))),
        (
            "a wrong length",
            Box::new(move |round| {
                [headers(nth(round), &with(POST, &[("content-length", "1")]), false), data(nth(round), b"xx", true)]
                    .concat()
            }),
        ),
        (
            "malformed trailers",
            Box::new(move |round| [open(round), headers(nth(round), &[(":path", "/")], true)].concat()),
        ),
        (
            "frames for a stream that has ended",
            Box::new(move |round| {
                [open(round), rst(nth(round), ErrorCode::CANCEL), data(nth(round), b"x", false)].concat()
            }),
        ),
    ];
    for (form, piece) in forms {
        let count = borne(server(), |_, round| piece(round));
        assert!((90..=200).contains(&count), "{form}: {count}");
    }
    // The sixth of the published six, a stream that depends on itself: the connection ends instead.
    let priority = frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0]);
    assert_eq!(server().feed(&priority).unwrap_err().code, ErrorCode::PROTOCOL_ERROR);
}

#[test]
fn streams_that_we_had_to_reset_are_bounded_until_their_work_is_let_go_of() {
    let mut connection = Connection::<Server>::new(Limits { streams: 10, ..Limits::DEFAULT });
    let (mut space, mut out) = (HeadSpace::default(), Vec::new());
    let mut bytes = [PREFACE, &settings(&[])].concat();
    for round in 0..50 {
        bytes.extend([headers(nth(round), GET, true), window_update(nth(round), 0)].concat());
    }
    let (mut at, mut heads) = (0, 0);
    loop {
        let step = connection.read(Duration::ZERO, &bytes[at..], &mut space, &mut out).unwrap();
        at += step.skipped;
        match step.said {
            Said::Stream(_, proto::Event::Head(_)) => heads += 1,
            Said::Pause => break,
            _ => {}
        }
    }
    assert_eq!((heads, connection.streams()), (20, 20), "no more work than twice the streams");
}

#[test]
fn refused_streams_cost_and_goaway_is_no_exemption() {
    let mut rig = Rig::<Server>::new(Limits { streams: 1, ..Limits::DEFAULT });
    rig.feed(&[PREFACE, &settings(&[]), &headers(1, GET, true)].concat()).unwrap();
    assert!((396..=400).contains(&borne(rig, |_, round| headers(nth(round) + 2, GET, true))));

    let mut rig = server();
    rig.connection.drain(rig.now, &mut rig.out);
    rig.connection.expire(Duration::from_secs(1), &mut rig.out).unwrap();
    assert!((390..=400).contains(&borne(rig, |_, round| headers(nth(round), GET, true))));
}

#[test]
fn floods_of_control_frames() {
    let answered = |rig: &mut Rig<Server>| rig.out.clear();
    for (form, frame, expected) in [
        ("PING", ping(), 200),
        ("SETTINGS", settings(&[]), 99),
        ("SETTINGS that change", settings(&[(1, 0), (4, 1)]), 99),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0; 5]), 990),
        ("PRIORITY_UPDATE", frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\x01u=1"), 990),
        ("WINDOW_UPDATE", window_update(0, 1), 396),
        ("acknowledgements of nothing", frame(SETTINGS, ACK, 0, b""), 1_980),
        ("unknown frames", frame(0xfa, 0, 0, b"x"), 1_980),
        ("PING answers that nobody asked for", frame(PING, ACK, 0, &[7; 8]), 1_980),
    ] {
        let count = borne(busy(), |rig, _| {
            answered(rig);
            frame.clone()
        });
        assert!(count.abs_diff(expected) <= expected / 50, "{form}: {count}");
    }
    // A frame with more settings than there are.
    let mut rig = server();
    let many: Vec<(u16, u32)> = (0..33).map(|_| (3, 1)).collect();
    assert_eq!(met(&mut rig, &settings(&many)), Met::Connection(ErrorCode::ENHANCE_YOUR_CALM));
}

#[test]
fn floods_of_data_frames() {
    let with_stream = || {
        let mut rig = busy();
        rig.feed(&headers(1, POST, false)).unwrap();
        rig
    };
    let empty = borne(with_stream(), |_, _| data(1, b"", false));
    assert!((95..=100).contains(&empty), "{empty}");
    let padding = borne(with_stream(), |_, _| frame(DATA, PADDED, 1, &[3, 0, 0, 0]));
    assert!((95..=100).contains(&padding), "{padding}");
    let tiny = borne(with_stream(), |_, _| data(1, b"x", false));
    assert!((1_950..=2_000).contains(&tiny), "{tiny}");
    // The smallest messages of gRPC and WebSocket are not tiny, however many there are.
    let mut rig = with_stream();
    for _ in 0..20_000 {
        rig.feed(&data(1, &[0; 5], false)).unwrap();
    }
    // Large padding around something.
    let padded = borne(with_stream(), |_, _| frame(DATA, PADDED, 1, &[&[200][..], &[b'x'; 10], &[0; 200]].concat()));
    assert!(padded < 100_000, "mostly overhead, after a MiB of it: {padded}");
    // And what is late.
    let late = borne(busy(), |rig, round| {
        if round == 0 {
            rig.feed(&headers(1, POST, false)).unwrap();
            rig.connection.reset(StreamId(1), ErrorCode::CANCEL, &mut rig.out);
        }
        data(1, b"1234567890", false)
    });
    assert!((1_900..=2_000).contains(&late), "{late}");
}

#[test]
fn continuation_flood() {
    for fragment in [&b""[..], &block(&[("a", "b")])] {
        let mut rig = server();
        rig.feed(&frame(HEADERS, 0, 1, &block(GET))).unwrap();
        for _ in 0..8 {
            rig.feed(&frame(CONTINUATION, 0, 1, fragment)).unwrap();
        }
        assert_eq!(met(&mut rig, &frame(CONTINUATION, 0, 1, fragment)), Met::Connection(ErrorCode::ENHANCE_YOUR_CALM));
    }
    let mut rig = server();
    rig.feed(&frame(HEADERS, 0, 1, &[0; 16_000])).unwrap();
    for _ in 0..3 {
        rig.feed(&frame(CONTINUATION, 0, 1, &[0; 16_000])).unwrap();
        assert!(rig.connection.memory() <= 128 * 1024 + 16 * 1024);
    }
    assert_eq!(met(&mut rig, &frame(CONTINUATION, 0, 1, &[0; 16_000])), Met::Connection(ErrorCode::ENHANCE_YOUR_CALM));
}

#[test]
fn hpack_bomb_with_a_closed_window() {
    // An entry of 4,000 bytes and 12,000 references of one byte, on every stream, and no window for any answer (CVE-2026-49975).
    let mut rig = server();
    rig.feed(&settings(&[(4, 0)])).unwrap();
    let mut bomb = [&block(GET)[..], b"\x40\x01a\x7f\xa1\x1e", &[b'x'; 4000]].concat();
    bomb.extend([0xbe; 12_000]);
    for round in 0..100 {
        let seen = rig.feed(&frame(HEADERS, END_HEADERS | END_STREAM, nth(round), &bomb)).unwrap();
        assert_eq!(seen, [Seen::Refused { stream: nth(round), why: Malformed::HeadTooLong, answerable: true }]);
        assert!(rig.space.text.capacity() <= 64 * 1024, "{}", rig.space.text.capacity());
    }
    assert!(rig.connection.memory() <= 64 * 1024, "{}", rig.connection.memory());
    // Crumbs of cookies are fields like others.
    let crumbs = [&block(GET)[..], b"\x40\x06cookie\x01a", &[0xbe; 200]].concat();
    let mut rig = server();
    let seen = rig.feed(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &crumbs)).unwrap();
    assert_eq!(seen, [Seen::Refused { stream: 1, why: Malformed::TooManyFields, answerable: true }]);
}

#[test]
fn answers_that_are_not_read() {
    let mut connection = Connection::<Server>::new(Limits::DEFAULT);
    let (mut space, mut out) = (HeadSpace::default(), Vec::new());
    connection.read(Duration::ZERO, &[PREFACE, &settings(&[])].concat(), &mut space, &mut out).unwrap();
    let at = |round: u64| Duration::from_millis(round * 20);
    let cut = (1..)
        .find_map(|round| connection.read(at(round), &ping(), &mut space, &mut out).err().map(|fault| (round, fault)));
    let (round, fault) = cut.unwrap();
    assert_eq!((round, fault.code), (964, ErrorCode::ENHANCE_YOUR_CALM), "16 KiB of 17 bytes");
    // Whoever reads them may go on for ever, however long each has waited.
    let mut connection = Connection::<Server>::new(Limits::DEFAULT);
    connection.read(Duration::ZERO, &[PREFACE, &settings(&[])].concat(), &mut space, &mut out).unwrap();
    for round in 1..20_000 {
        connection.read(at(round), &ping(), &mut space, &mut out).unwrap();
        if round % 400 == 0 {
            connection.sent();
        }
    }
}

/// A server with `streams` answers of 100 KiB each, to a peer whose windows are as told.
fn waiting(streams: u32, window: u32) -> Rig<Server> {
    let mut rig = server();
    rig.feed(&settings(&[(4, window)])).unwrap();
    for round in 0..streams {
        rig.feed(&headers(nth(round), GET, true)).unwrap();
        rig.answer(nth(round), Framing::Chunked);
        rig.queue(nth(round), 100 * 1024);
    }
    rig.send();
    rig.out.clear();
    rig
}

fn reaped(rig: &mut Rig<Server>, seconds: u64) -> Vec<u32> {
    rig.now = Duration::from_secs(seconds);
    let mut reaped = Vec::new();
    while let Some(stream) = rig.connection.expire(rig.now, &mut rig.out).unwrap() {
        reaped.push(stream.0);
        rig.connection.release(stream, &mut rig.out);
    }
    reaped
}

#[test]
fn streams_whose_windows_do_not_open_are_reaped() {
    let mut rig = waiting(3, 0);
    assert_eq!(rig.connection.next_deadline(), Some(Duration::from_secs(30)));
    assert_eq!(reaped(&mut rig, 29), []);
    rig.feed(&window_update(3, 1 << 20)).unwrap();
    rig.send();
    rig.out.clear();
    assert_eq!(reaped(&mut rig, 30), [1, 5]);
    let resets: Vec<_> = rig.put().iter().map(|frame| (frame.kind, frame.stream, frame.word(0))).collect();
    assert_eq!(resets, [(RST_STREAM, 1, 11), (RST_STREAM, 5, 11)]);
    assert_eq!(rig.connection.streams(), 1);

    // Tiny windows are no better: a byte a second.
    let mut rig = waiting(1, 0);
    let mut when = None;
    for second in 1..60 {
        rig.now = Duration::from_secs(second);
        if rig.connection.streams() > 0 {
            rig.feed(&window_update(1, 1)).unwrap();
            rig.send();
        }
        when = when.or(Some(second).filter(|_| !reaped(&mut rig, second).is_empty()));
    }
    assert!(when.is_some_and(|second| (30..=32).contains(&second)), "{when:?}");
}

#[test]
fn readers_that_are_slow_are_not_reaped() {
    // 100 bytes a second on the stream, for ten minutes.
    let mut rig = waiting(1, 0);
    for second in 1..600 {
        rig.now = Duration::from_secs(second);
        rig.feed(&window_update(1, 100)).unwrap();
        rig.send();
        assert_eq!(reaped(&mut rig, second), []);
    }
    // The connection's window is shared: those that wait for their turn are not stalled while it moves.
    let mut rig = waiting(20, 1 << 20);
    for second in 1..300 {
        rig.now = Duration::from_secs(second);
        rig.feed(&window_update(0, 200)).unwrap();
        rig.send();
        assert_eq!(reaped(&mut rig, second), []);
    }
    // And once it does not, they all are, but for the one that has ended.
    assert_eq!(reaped(&mut rig, 340).len(), 19);
    // Whoever has waited long for its turn has all the time once its window closes, though another has stalled meanwhile.
    let mut rig = server();
    rig.feed(&[settings(&[(4, 100)]), headers(1, GET, true), headers(3, GET, true)].concat()).unwrap();
    for stream in [1, 3] {
        rig.answer(stream, Framing::Chunked);
        rig.queue(stream, 1000);
    }
    // Only the first is written to.
    let first = rig.connection.next_data(rig.now, usize::MAX).unwrap();
    assert_eq!((first.stream, first.payload), (StreamId(1), 100));
    rig.now = Duration::from_secs(29);
    rig.send();
    assert_eq!(reaped(&mut rig, 31), [1]);
    assert_eq!(reaped(&mut rig, 58), []);
    assert_eq!(reaped(&mut rig, 60), [3]);
    // Nothing waits on a connection that we do not write to fast enough ourselves.
    let mut rig = server();
    rig.feed(&headers(1, GET, true)).unwrap();
    rig.answer(1, Framing::Chunked);
    rig.queue(1, 1000);
    assert_eq!(reaped(&mut rig, 3_600), []);
}

#[test]
fn a_peer_that_owes_is_asked_to_go_first() {
    let mut rig = server();
    let mut asked = None;
    for round in 0..190 {
        rig.feed(&[headers(nth(round), GET, true), rst(nth(round), ErrorCode::CANCEL)].concat()).unwrap();
        if asked.is_none() && rig.put().iter().any(|frame| frame.kind == GOAWAY && frame.word(4) == 0) {
            asked = Some(round);
        }
    }
    assert_eq!(asked, Some(147), "at three quarters");
}

#[test]
fn a_busy_client_is_never_cut_off_nor_asked_to_go() {
    let mut rig = busy();
    rig.feed(&settings(&[(4, 1 << 20)])).unwrap();
    rig.feed(&window_update(0, 1 << 28)).unwrap();
    // Ten seconds of 5,000 requests a second, a tenth of them given up, with updates of windows and priority for each, and a ping a
    // round trip.
    for round in 0..50_000_u32 {
        rig.now = Duration::from_micros(u64::from(round) * 200);
        let stream = nth(round);
        let update = frame(PRIORITY_UPDATE, 0, 0, &[&stream.to_be_bytes()[..], b"u=2, i"].concat());
        let given_up = round % 10 == 9;
        rig.feed(
            &[headers(stream, &with(GET, &[("priority", "u=1")]), true), window_update(stream, 1 << 20), update]
                .concat(),
        )
        .unwrap();
        if given_up {
            rig.feed(&rst(stream, ErrorCode::CANCEL)).unwrap();
            continue;
        }
        rig.answer(stream, Framing::Length(20_000));
        rig.queue(stream, 20_000);
        rig.finish(stream);
        rig.send();
        rig.feed(&[window_update(0, 20_000), window_update(stream, 20_000)].concat()).unwrap();
        if round % 20 == 0 {
            rig.feed(&ping()).unwrap();
        }
        assert!(rig.put().iter().all(|frame| frame.kind != GOAWAY), "{round}");
    }
    assert_eq!((rig.connection.streams(), rig.connection.fault()), (0, None));
}

#[test]
fn a_user_who_leaves_a_page_is_not_cut_off() {
    // A hundred images given up at once, again a second later, and so on.
    let mut rig = server();
    for page in 0..20 {
        rig.now = Duration::from_secs(page);
        let streams = (0..100).map(|at| nth(page as u32 * 100 + at));
        rig.feed(&streams.clone().flat_map(|stream| headers(stream, GET, true)).collect::<Vec<u8>>()).unwrap();
        rig.feed(&streams.flat_map(|stream| rst(stream, ErrorCode::CANCEL)).collect::<Vec<u8>>()).unwrap();
    }
    assert!(rig.put().iter().all(|frame| frame.kind != GOAWAY));
}

#[test]
fn a_server_that_misbehaves_is_cut_off_too() {
    let mut rig = Rig::<Client>::new(Limits::DEFAULT);
    rig.feed(&settings(&[])).unwrap();
    let cut = (0..10_000).find_map(|_| rig.feed(&ping()).err());
    assert_eq!(cut.map(|fault| fault.code), Some(ErrorCode::ENHANCE_YOUR_CALM));
    let mut rig = client(1);
    rig.connection.set_busy(true);
    rig.feed(&headers(1, OK, false)).unwrap();
    let cut = (0..10_000).find_map(|_| rig.feed(&data(1, b"", false)).err());
    assert_eq!(cut.map(|fault| fault.code), Some(ErrorCode::ENHANCE_YOUR_CALM));
    assert_eq!(rig.send_request(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", Framing::None), Err(proto::h1::Refused::Gone));
    assert!(rig.connection.is_finished());
}

#[test]
fn an_idle_connection_is_small() {
    let size = size_of::<Connection<Server>>();
    assert!(size <= 1024, "{size} bytes before anything is said");
    let mut rig = server();
    // A browser's afternoon: tables full, and every slot used once.
    for round in 0..300 {
        let value = format!("{:0>40}", round);
        let stored = [&block(GET)[..], b"\x40\x05x-abc\x28", value.as_bytes()].concat();
        rig.feed(&frame(HEADERS, END_HEADERS | END_STREAM, nth(round), &stored)).unwrap();
        if round % 100 == 99 {
            for stream in round - 99..=round {
                rig.answer(nth(stream), Framing::None);
            }
        }
    }
    assert!(rig.connection.is_idle() && rig.connection.memory() <= 32 * 1024, "{}", rig.connection.memory());
    rig.connection.trim();
    assert!(rig.connection.memory() <= 8 * 1024, "{} bytes once it is trimmed", rig.connection.memory());
    // And nothing is added to it by another ten thousand requests.
    let mut largest = 0;
    for round in 300..10_300 {
        rig.feed(&headers(nth(round), GET, true)).unwrap();
        rig.answer(nth(round), Framing::None);
        rig.out.clear();
        largest = largest.max(rig.connection.memory());
    }
    assert!(largest <= 10 * 1024, "{largest}");
}
