//! Tricks, and what they cost: each is borne as often as honest peers need it, and not more often; and nothing is held that was not sent.

mod quic;

use proto::Malformed;
use proto::h1::{Client, Server};
use proto::h3::{Abort, Connection, ErrorCode, Limits, Out, StreamId, frame::INTEGER_MAX};
use proto::http::Framing;
use quic::*;
use std::time::Duration;

/// How often a trick is borne before the connection ends with H3_EXCESSIVE_LOAD.
fn borne<S: Side>(mut rig: Rig<S>, mut trick: impl FnMut(&mut Rig<S>, u64) -> Result<(), proto::h3::Fault>) -> u64 {
    for at in 0..200_000 {
        if let Err(fault) = trick(&mut rig, at) {
            assert_eq!(fault.code, ErrorCode::EXCESSIVE_LOAD, "{fault}");
            return at;
        }
        rig.out = Out::default();
    }
    u64::MAX
}

fn feeding(stream: u64, bytes: Vec<u8>) -> impl FnMut(&mut Rig<Server>, u64) -> Result<(), proto::h3::Fault> {
    move |rig, _| rig.feed(stream, &bytes, false).map(drop)
}

fn posting() -> Rig<Server> {
    let mut rig = server();
    rig.feed(0, &headers(POST), false).unwrap();
    rig
}

fn busy(mut rig: Rig<Server>) -> Rig<Server> {
    rig.connection.set_busy(true);
    rig
}

#[test]
fn every_trick_has_a_price() {
    let update = frame(PRIORITY_UPDATE, b"\x00u=1");
    let tabled = || {
        let mut rig = server();
        rig.feed(ENCODER, &[table_size(4096), insert("a", "b")].concat(), false).unwrap();
        rig
    };
    for (what, times, most) in [
        ("empty DATA", borne(posting(), feeding(0, data(b""))), 100),
        ("tiny DATA", borne(posting(), feeding(0, data(b"x"))), 2_000),
        ("PRIORITY_UPDATE", borne(server(), feeding(CONTROL, update)), 1_000),
        ("what means nothing, while there is time", borne(posting(), feeding(0, frame(GREASE, b""))), u64::MAX),
        ("what means nothing, while there is none", borne(busy(posting()), feeding(0, frame(GREASE, b""))), 2_000),
        ("the same on the control stream", borne(busy(server()), feeding(CONTROL, frame(GREASE, b""))), 2_000),
        ("MAX_PUSH_ID", borne(busy(server()), feeding(CONTROL, frame(MAX_PUSH_ID, &[1]))), 2_000),
        ("GOAWAY", borne(busy(server()), feeding(CONTROL, frame(GOAWAY, &[1]))), 2_000),
        ("duplicates", borne(tabled(), feeding(ENCODER, vec![0])), 1_998),
        ("table sizes", borne(server(), feeding(ENCODER, table_size(1))), 2_000),
        ("cancellations", borne(server(), feeding(DECODER, vec![0x40])), 2_000),
    ] {
        assert_eq!(times, most, "{what}");
    }
}

#[test]
fn streams_that_come_and_go_have_a_price() {
    let cancel = |rig: &mut Rig<Server>, stream| {
        let code = ErrorCode::REQUEST_CANCELLED;
        rig.connection
            .peer_reset(rig.now, StreamId(stream), code, &mut rig.out)
            .map(|_| rig.connection.release(StreamId(stream), &mut rig.out))
    };
    let rapid = borne(server(), |rig, at| {
        rig.feed(4 * at, &headers(GET), false)?;
        cancel(rig, 4 * at)
    });
    let unseen = borne(server(), |rig, at| {
        rig.connection.opened(rig.now, StreamId(4 * at), &mut rig.out)?;
        cancel(rig, 4 * at)
    });
    let made = borne(server(), |rig, at| rig.feed(4 * at, &headers(&GET[1..]), true).map(drop));
    let incomplete = borne(server(), |rig, at| rig.feed(4 * at, b"", true).map(drop));
    let unknown = borne(server(), |rig, at| rig.feed(14 + 4 * at, &integer(GREASE), false).map(drop));
    let many = borne(server(), |rig, at| rig.connection.opened(rig.now, StreamId(4 * at), &mut rig.out));
    assert_eq!((rapid, unseen, made, incomplete, unknown, many), (200, 200, 200, 200, 400, 100 + 400));
    // It wears off with time and with honest exchanges.
    let mut rig = server();
    for at in 0..2_000 {
        rig.now = Duration::from_millis(10 * at);
        rig.feed(4 * at, &headers(GET), false).unwrap();
        cancel(&mut rig, 4 * at).unwrap();
    }
    let mut rig = server();
    for at in 0..2_000 {
        rig.feed(8 * at, &headers(GET), true).unwrap();
        rig.answer(8 * at, Framing::Length(0));
        rig.feed(8 * at + 4, &headers(GET), false).unwrap();
        cancel(&mut rig, 8 * at + 4).unwrap();
        rig.sent.clear();
    }
}

#[test]
fn a_peer_that_strains_us_is_asked_to_go() {
    let mut rig = posting();
    for _ in 0..75 {
        rig.feed(0, &data(b""), false).unwrap();
    }
    assert_eq!(frames(&rig.out.control)[0].0, GOAWAY);
    assert!(!rig.connection.is_open());
}

#[test]
fn cve_2025_8671_what_was_reset_counts_until_it_is_let_go() {
    let mut rig = server_with(Limits { streams: 2, ..Limits::DEFAULT });
    let mut refused = 0;
    for at in 0..6 {
        // Our rig lets go of what it is told of; so this is done by hand.
        let stream = StreamId(4 * at);
        rig.connection.opened(rig.now, stream, &mut rig.out).unwrap();
        let bytes = headers(POST);
        let step =
            Server::read(&mut rig.connection, rig.now, stream, (&bytes, false), &mut rig.space, &mut rig.out).unwrap();
        let reset = rig.connection.peer_reset(rig.now, stream, ErrorCode::REQUEST_CANCELLED, &mut rig.out).unwrap();
        refused += u64::from(reset.is_none());
        assert_eq!(reset.is_none(), step.said == proto::h3::Said::Pause);
    }
    assert_eq!((rig.connection.streams(), refused), (4, 2));
}

#[test]
fn bytes_that_the_caller_holds_are_counted() {
    // Each of a hundred requests has said that its head has 10 kB, and all but the last of them.
    let head = headers(&with(GET, &[("a", &"x".repeat(10_000))]));
    let mut rig = server();
    let mut held = 0;
    let stream = (0..100).map(|at| 4 * at).find(|&stream| {
        let fed = rig.feed(stream, &head[..head.len() - 1], false);
        held = rig.unread();
        fed.is_err()
    });
    assert_eq!(rig.connection.fault().map(|fault| fault.code), Some(ErrorCode::EXCESSIVE_LOAD));
    assert!(stream.is_some() && held <= 256 * 1024 + head.len());
    // Two dozen at once are nothing; and what is read or given up is not held any more.
    let mut rig = server();
    for round in 0..20 {
        for at in 0..20 {
            rig.feed(4 * (20 * round + at), &head[..head.len() - 1], false).unwrap();
        }
        for at in 0..20 {
            let stream = 4 * (20 * round + at);
            if at % 2 == 0 {
                rig.feed(stream, &head[head.len() - 1..], true).unwrap();
                rig.answer(stream, Framing::Length(0));
            } else {
                rig.connection.reset(StreamId(stream), ErrorCode::REQUEST_CANCELLED, &mut rig.out);
            }
        }
    }
    assert!(rig.connection.is_idle());
}

#[test]
fn a_declared_length_holds_nothing() {
    let mut rig = posting();
    let before = rig.connection.memory();
    for (stream, bytes) in [
        (0, [integer(DATA), integer(INTEGER_MAX)].concat()),
        (4, [integer(GREASE), integer(INTEGER_MAX)].concat()),
        (CONTROL, [integer(GREASE), integer(INTEGER_MAX)].concat()),
        (8, [integer(HEADERS), integer(INTEGER_MAX)].concat()),
    ] {
        rig.feed(stream, &bytes, false).unwrap();
        assert_eq!(rig.unread(), 0);
    }
    assert!(rig.connection.memory() - before < 2048);
    // Content is handed on as it comes, and counted in 62 bits.
    for _ in 0..100 {
        assert!(matches!(rig.feed(0, &[0; 1000], false).unwrap()[..], [Seen::Data { .. }]));
        rig.feed(4, &[0; 1000], false).unwrap();
    }
}

#[test]
fn what_means_nothing_is_weighed() {
    let mut rig = server();
    rig.feed(0, &[integer(GREASE), integer(INTEGER_MAX)].concat(), false).unwrap();
    let sent = (0..1_000).take_while(|_| rig.feed(0, &[0; 16 * 1024], false).is_ok()).count();
    assert!((500..520).contains(&sent), "eight MiB: {sent}");
}

#[test]
fn answers_that_nobody_reads_are_bounded() {
    let mut rig = server();
    rig.feed(ENCODER, &[table_size(4096), insert("x-a", "1")].concat(), false).unwrap();
    let asked = frame(HEADERS, &[&[0x02, 0x00][..], &lines(GET), &[0x80]].concat());
    let fault = (0..100_000).find_map(|at| {
        let fed = rig.feed(4 * at, &asked, true);
        if fed.is_ok() {
            rig.answer(4 * at, Framing::Length(0));
        }
        rig.sent.clear();
        fed.err()
    });
    assert_eq!(fault.map(|fault| fault.code), Some(ErrorCode::EXCESSIVE_LOAD));
    assert!(rig.out.decoder.len() <= 16 * 1024 + 10, "{}", rig.out.decoder.len());
}

#[test]
fn qpack_bombs_are_refused_before_they_grow() {
    // An entry of 4 kB, and a section that refers to it with each of its bytes (CVE-2026-49975).
    let mut rig = server();
    rig.feed(ENCODER, &[table_size(4096), insert("a", &"x".repeat(4_000))].concat(), false).unwrap();
    let section = [&[0x02, 0x00][..], &lines(GET), &[0x80; 90]].concat();
    let refused = Seen::Refused { stream: 0, why: Malformed::HeadTooLong, answerable: true };
    assert_eq!(rig.feed(0, &frame(HEADERS, &section), true), Ok(vec![refused]));
    assert!(rig.space.text.capacity() <= 64 * 1024);
    // Fields without text.
    let section = [&[0, 0][..], &lines(GET), &[0x20, 0x00].repeat(9_000)].concat();
    let why = |rig: &mut Rig<Server>, bytes: &[u8]| match rig.feed(4, bytes, true).unwrap().pop() {
        Some(Seen::Refused { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    let why = why(&mut rig, &frame(HEADERS, &section));
    assert!(matches!(why, Malformed::FieldName | Malformed::TooManyFields), "{why:?}");
}

#[test]
fn an_idle_connection_is_small() {
    for rounds in [0, 1, 100] {
        let mut rig = Rig::<Client>::new(Limits::DEFAULT);
        rig.greet(&[(0x1, 4096), (0x7, 16)]);
        for round in 0..rounds {
            let text = format!("GET / HTTP/1.1\r\nhost: a\r\naccept: {}\r\n\r\n", round / 2);
            rig.send_request(4 * round, text.as_bytes(), Framing::None).unwrap();
            rig.feed(4 * round, &headers(OK), true).unwrap();
        }
        assert!(rig.connection.memory() <= size_of::<Connection<Client>>() + 12 * 1024, "{}", rig.connection.memory());
        rig.connection.trim();
        assert!(rig.connection.is_idle());
    }
    assert!(size_of::<Connection<Server>>() <= 1024, "{}", size_of::<Connection<Server>>());
    assert!(size_of::<Abort>() <= 24);
}
