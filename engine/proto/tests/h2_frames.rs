//! RFC 9113 §3–§7: every rule that binds an endpoint, by its section, on both sides of a connection.

mod wire;

use proto::h1::{Client, Server};
use proto::h2::ErrorCode;
use proto::h2::{Limits, StreamId};
use proto::http::{Framing, Method};
use proto::{Event, Malformed};
use std::time::Duration;
use wire::Met::{Connection, Fine, Stream};
use wire::*;

const PROTOCOL: ErrorCode = ErrorCode::PROTOCOL_ERROR;
const SIZE: ErrorCode = ErrorCode::FRAME_SIZE_ERROR;
const FLOW: ErrorCode = ErrorCode::FLOW_CONTROL_ERROR;
const CLOSED: ErrorCode = ErrorCode::STREAM_CLOSED;

fn open(stream: u32) -> Vec<u8> {
    headers(stream, POST, false)
}

fn ended(stream: u32) -> Vec<u8> {
    headers(stream, GET, true)
}

/// A server reads the pieces, of which only the last may be met at all.
fn server_meets(pieces: &[Vec<u8>]) -> Met {
    let mut rig = server();
    let (last, before) = pieces.split_last().unwrap();
    for piece in before {
        assert_eq!(met(&mut rig, piece), Fine);
    }
    met(&mut rig, last)
}

type Case = (&'static str, Vec<Vec<u8>>, Met);

#[test]
fn servers_judge_what_streams_and_blocks_allow() {
    servers_meet(vec![
        ("4.1: unknown types are ignored", vec![frame(0xfa, 0xff, 7, b"anything")], Fine),
        ("4.1: unused flags are ignored", vec![frame(HEADERS, 0xd2 | END_HEADERS, 1, &block(POST))], Fine),
        ("4.1: the reserved bit is ignored", vec![headers(0x8000_0001, POST, false), data(1, b"x", true)], Fine),
        ("4.2: 16,384 bytes are taken", vec![open(1), data(1, &[0; 16_384], true)], Fine),
        ("4.2: more are not", vec![open(1), data(1, &[0; 16_385], true)], Connection(SIZE)),
        ("4.2: nor in HEADERS", vec![frame(HEADERS, END_HEADERS, 1, &[0; 16_385])], Connection(SIZE)),
        (
            "4.3: a block that cannot be read",
            vec![frame(HEADERS, END_HEADERS, 1, &[0x80])],
            Connection(ErrorCode::COMPRESSION_ERROR),
        ),
        (
            "4.3: a block that is cut off",
            vec![frame(HEADERS, END_HEADERS, 1, &[0x00, 0x7f])],
            Connection(ErrorCode::COMPRESSION_ERROR),
        ),
        ("4.3: nothing within a block", vec![frame(HEADERS, 0, 1, &block(GET)), ping()], Connection(PROTOCOL)),
        ("4.3: not even on another stream", vec![frame(HEADERS, 0, 1, &block(GET)), open(3)], Connection(PROTOCOL)),
        (
            "5.5: nor an extension",
            vec![frame(HEADERS, 0, 1, &block(GET)), frame(0xfa, 0, 1, b"")],
            Connection(PROTOCOL),
        ),
        (
            "4.3: nor a CONTINUATION of another",
            vec![frame(HEADERS, 0, 1, &block(GET)), frame(CONTINUATION, 4, 3, b"")],
            Connection(PROTOCOL),
        ),
        ("5.1: DATA on an idle stream", vec![data(1, b"x", false)], Connection(PROTOCOL)),
        ("5.1: RST_STREAM on an idle stream", vec![rst(1, PROTOCOL)], Connection(PROTOCOL)),
        ("5.1: WINDOW_UPDATE on an idle stream", vec![window_update(1, 1)], Connection(PROTOCOL)),
        ("5.1: CONTINUATION on an idle stream", vec![frame(CONTINUATION, 4, 1, b"")], Connection(PROTOCOL)),
        ("5.1: PRIORITY on an idle stream is no error", vec![frame(PRIORITY, 0, 1, &[0; 5])], Fine),
        ("5.1: DATA on half-closed (remote)", vec![ended(1), data(1, b"x", false)], Stream(1, CLOSED)),
        ("5.1: HEADERS on half-closed (remote)", vec![ended(1), open(1)], Stream(1, CLOSED)),
        (
            "5.1: WINDOW_UPDATE, PRIORITY, RST_STREAM there",
            vec![ended(1), window_update(1, 1), frame(PRIORITY, 0, 1, &[0; 5]), rst(1, PROTOCOL)],
            Fine,
        ),
        ("5.1: DATA after RST_STREAM", vec![open(1), rst(1, PROTOCOL), data(1, b"x", false)], Stream(1, CLOSED)),
        ("5.1: HEADERS after RST_STREAM", vec![open(1), rst(1, PROTOCOL), open(1)], Stream(1, CLOSED)),
        ("5.1: WINDOW_UPDATE after RST_STREAM", vec![open(1), rst(1, PROTOCOL), window_update(1, 1)], Fine),
        ("5.4.2: RST_STREAM after RST_STREAM", vec![open(1), rst(1, PROTOCOL), rst(1, PROTOCOL)], Fine),
        ("5.1.1: an even stream", vec![open(2)], Connection(PROTOCOL)),
        ("5.1.1: a lower stream", vec![open(5), open(3)], Connection(PROTOCOL)),
        ("5.1.1: a skipped stream is closed", vec![open(5), data(3, b"x", false)], Stream(3, CLOSED)),
        (
            "RFC 7540 5.3.1: PRIORITY that depends on itself",
            vec![frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0])],
            Connection(PROTOCOL),
        ),
        (
            "RFC 7540 5.3.1: HEADERS that depend on themselves",
            vec![frame(HEADERS, 0x25, 1, &[&[0x80, 0, 0, 1, 0][..], &block(GET)].concat())],
            Connection(PROTOCOL),
        ),
    ]);
}

#[test]
fn servers_judge_frames() {
    servers_meet(vec![
        ("6.1: DATA on stream 0", vec![data(0, b"x", false)], Connection(PROTOCOL)),
        ("6.1: padding as long as the frame", vec![open(1), frame(DATA, PADDED, 1, &[3, 0, 0])], Connection(PROTOCOL)),
        ("6.1: nothing but padding", vec![open(1), frame(DATA, PADDED | END_STREAM, 1, &[2, 0, 0])], Fine),
        ("6.1: no room for the pad length", vec![open(1), frame(DATA, PADDED, 1, &[])], Connection(SIZE)),
        ("6.2: HEADERS on stream 0", vec![open(0)], Connection(PROTOCOL)),
        (
            "6.2: padding longer than the frame",
            vec![frame(HEADERS, PADDED | END_HEADERS, 1, &[5, 0, 0, 0])],
            Connection(PROTOCOL),
        ),
        (
            "6.2: padding and priority are taken off",
            vec![frame(HEADERS, 0x2d, 1, &[&[2, 0, 0, 0, 0, 0][..], &block(GET), &[0, 0]].concat())],
            Fine,
        ),
        ("6.3: PRIORITY on stream 0", vec![frame(PRIORITY, 0, 0, &[0; 5])], Connection(PROTOCOL)),
        ("6.3: PRIORITY of 4 bytes", vec![open(1), frame(PRIORITY, 0, 1, &[0; 4])], Stream(1, SIZE)),
        ("6.4: RST_STREAM on stream 0", vec![rst(0, PROTOCOL)], Connection(PROTOCOL)),
        ("6.4: RST_STREAM of 3 bytes", vec![open(1), frame(RST_STREAM, 0, 1, &[0; 3])], Connection(SIZE)),
        ("6.5: SETTINGS on a stream", vec![frame(SETTINGS, 0, 1, b"")], Connection(PROTOCOL)),
        ("6.5: an acknowledgement with a payload", vec![frame(SETTINGS, ACK, 0, &[0; 6])], Connection(SIZE)),
        ("6.5: no multiple of 6", vec![frame(SETTINGS, 0, 0, &[0; 3])], Connection(SIZE)),
        ("6.5.2: ENABLE_PUSH of 2", vec![settings(&[(2, 2)])], Connection(PROTOCOL)),
        ("6.5.2: INITIAL_WINDOW_SIZE of 2^31", vec![settings(&[(4, 1 << 31)])], Connection(FLOW)),
        ("6.5.2: MAX_FRAME_SIZE below 2^14", vec![settings(&[(5, 16_383)])], Connection(PROTOCOL)),
        ("6.5.2: MAX_FRAME_SIZE of 2^24", vec![settings(&[(5, 1 << 24)])], Connection(PROTOCOL)),
        ("RFC 9218 2.1: NO_RFC7540_PRIORITIES that changes", vec![settings(&[(9, 1)])], Connection(PROTOCOL)),
        ("6.5.2: unknown settings are ignored", vec![settings(&[(0xff, 9)])], Fine),
        (
            "6.6: servers refuse PUSH_PROMISE",
            vec![open(1), frame(PUSH_PROMISE, 4, 1, &[0, 0, 0, 2])],
            Connection(PROTOCOL),
        ),
        ("6.7: PING on a stream", vec![frame(PING, 0, 1, &[0; 8])], Connection(PROTOCOL)),
        ("6.7: PING of 7 bytes", vec![frame(PING, 0, 0, &[0; 7])], Connection(SIZE)),
        ("6.8: GOAWAY on a stream", vec![frame(GOAWAY, 0, 1, &[0; 8])], Connection(PROTOCOL)),
        ("6.8: GOAWAY with debug data", vec![frame(GOAWAY, 0, 0, &[0; 90]), ping()], Fine),
        ("6.9: by nothing, on the connection", vec![window_update(0, 0)], Connection(PROTOCOL)),
        ("6.9: by nothing, on a stream", vec![open(1), window_update(1, 0)], Stream(1, PROTOCOL)),
        ("6.9: WINDOW_UPDATE of 3 bytes", vec![frame(WINDOW_UPDATE, 0, 0, &[0; 3])], Connection(SIZE)),
        ("6.9.1: the connection's window beyond 2^31-1", vec![window_update(0, 0x7fff_ffff)], Connection(FLOW)),
        ("6.9.1: a stream's window beyond 2^31-1", vec![open(1), window_update(1, 0x7fff_ffff)], Stream(1, FLOW)),
        (
            "6.9.2: beyond it by SETTINGS",
            vec![open(1), window_update(1, 0x7fff_0000), settings(&[(4, 0x7fff_ffff)])],
            Connection(FLOW),
        ),
        ("6.10: continuing nothing", vec![open(1), frame(CONTINUATION, 4, 1, b"")], Connection(PROTOCOL)),
        ("6.10: continuing what has ended", vec![ended(1), frame(CONTINUATION, 4, 1, b"")], Connection(PROTOCOL)),
        ("6.10: CONTINUATION on stream 0", vec![frame(CONTINUATION, 4, 0, b"")], Connection(PROTOCOL)),
        ("7: unknown codes are codes", vec![open(1), rst(1, ErrorCode(0xffff))], Fine),
        (
            "RFC 9218 7.1: PRIORITY_UPDATE of an idle push",
            vec![frame(PRIORITY_UPDATE, 0, 0, &[0, 0, 0, 2])],
            Connection(PROTOCOL),
        ),
        (
            "RFC 9218 7.1: PRIORITY_UPDATE of stream 0",
            vec![frame(PRIORITY_UPDATE, 0, 0, &[0, 0, 0, 0])],
            Connection(PROTOCOL),
        ),
    ]);
}

fn servers_meet(table: Vec<Case>) {
    for (section, pieces, expected) in table {
        assert_eq!(server_meets(&pieces), expected, "{section}");
    }
}

#[test]
fn clients_judge_frames() {
    let ok = |stream, end| headers(stream, OK, end);
    let table: Vec<Case> = vec![
        ("5.1: HEADERS on an idle stream", vec![ok(5, true)], Connection(PROTOCOL)),
        ("5.1: DATA on an idle stream", vec![data(5, b"x", true)], Connection(PROTOCOL)),
        ("5.1.1: a stream of the server's", vec![ok(2, true)], Connection(PROTOCOL)),
        ("5.1: WINDOW_UPDATE on an idle stream of the server's", vec![window_update(2, 1)], Connection(PROTOCOL)),
        ("5.1: DATA after the end", vec![ok(1, true), data(1, b"x", true)], Stream(1, CLOSED)),
        ("5.1: HEADERS after the end", vec![ok(1, true), ok(1, true)], Stream(1, CLOSED)),
        ("6.5.2: a server does not enable push", vec![settings(&[(2, 1)])], Connection(PROTOCOL)),
        ("6.5.2: a server may say that it does not push", vec![settings(&[(2, 0)])], Fine),
        (
            "6.6: we said ENABLE_PUSH=0",
            vec![frame(PUSH_PROMISE, 4, 1, &[&[0, 0, 0, 2][..], &block(GET)].concat())],
            Connection(PROTOCOL),
        ),
        ("8.1: DATA before the head", vec![data(1, b"x", false)], Stream(1, PROTOCOL)),
        ("8.1: two final heads", vec![ok(1, false), ok(1, false)], Stream(1, PROTOCOL)),
        ("RFC 8441 3: taken back", vec![settings(&[(8, 1)]), settings(&[(8, 0)])], Connection(PROTOCOL)),
        ("RFC 9218 7.1: servers send none", vec![frame(PRIORITY_UPDATE, 0, 0, &[0, 0, 0, 1])], Connection(PROTOCOL)),
    ];
    for (section, pieces, expected) in table {
        let mut rig = client(2);
        let (last, before) = pieces.split_last().unwrap();
        for piece in before {
            assert_eq!(met(&mut rig, piece), Fine, "{section}");
        }
        assert_eq!(met(&mut rig, last), expected, "{section}");
    }
}

#[test]
fn rfc9113_3_4_prefaces() {
    let mut rig = Rig::<Server>::new(Limits::DEFAULT);
    let put = rig.put();
    assert_eq!((put[0].kind, put[0].flags, put[1].kind), (SETTINGS, 0, WINDOW_UPDATE), "a server's preface");
    for cut in 0..PREFACE.len() {
        let mut rig = Rig::<Server>::new(Limits::DEFAULT);
        assert_eq!(rig.feed(&PREFACE[..cut]), Ok(vec![]));
        assert_eq!(rig.feed(b"\0").map_err(|fault| fault.code), Err(PROTOCOL), "{cut}");
    }
    for (first, expected) in
        [(settings(&[]), Fine), (ping(), Connection(PROTOCOL)), (frame(SETTINGS, ACK, 0, b""), Connection(PROTOCOL))]
    {
        let mut rig = Rig::<Server>::new(Limits::DEFAULT);
        rig.out.clear();
        assert_eq!(met(&mut rig, &[PREFACE, &first].concat()), expected);
        let mut rig = Rig::<Client>::new(Limits::DEFAULT);
        rig.out.clear();
        assert_eq!(met(&mut rig, &first), expected);
    }
    let rig = Rig::<Client>::new(Limits::DEFAULT);
    assert!(rig.out.starts_with(PREFACE));
    let entries = frames(&rig.out[PREFACE.len()..])[0].payload.clone();
    assert!(entries.chunks(6).any(|entry| entry == [0, 2, 0, 0, 0, 0]), "ENABLE_PUSH=0");
}

#[test]
fn rfc9113_6_5_3_settings_are_acknowledged_and_in_time() {
    let mut rig = server();
    rig.feed(&settings(&[(3, 7)])).unwrap();
    let put = rig.put();
    assert_eq!((put.len(), put[0].kind, put[0].flags, put[0].payload.len()), (1, SETTINGS, ACK, 0));
    assert_eq!(rig.connection.peer_settings().max_concurrent_streams, 7);
    assert_eq!(rig.connection.next_deadline(), None);

    let mut rig = Rig::<Client>::new(Limits::DEFAULT);
    rig.feed(&settings(&[])).unwrap();
    assert_eq!(rig.connection.next_deadline(), Some(Duration::from_secs(10)));
    assert_eq!(rig.connection.expire(Duration::from_secs(9), &mut rig.out), Ok(None));
    let fault = rig.connection.expire(Duration::from_secs(10), &mut rig.out).unwrap_err();
    assert_eq!(fault.code, ErrorCode::SETTINGS_TIMEOUT);
    assert_eq!(rig.put().last().map(|frame| frame.kind), Some(GOAWAY));
    assert_eq!(rig.feed(&ping()), Err(fault), "an ended connection stays so");
}

#[test]
fn rfc9113_6_7_pings_are_answered() {
    let mut rig = server();
    rig.feed(&ping()).unwrap();
    let put = rig.put();
    assert_eq!((put.len(), put[0].kind, put[0].flags, &put[0].payload[..]), (1, PING, ACK, &b"12345678"[..]));
    rig.connection.ping(42, &mut rig.out);
    let asked = rig.put();
    assert_eq!(rig.feed(&frame(PING, ACK, 0, &asked[0].payload)), Ok(vec![Seen::Pong(42)]));
}

#[test]
fn rfc9113_5_1_2_streams_beyond_the_limit_are_refused_and_their_blocks_read() {
    let limits = Limits { streams: 2, ..Limits::DEFAULT };
    let mut rig = Rig::<Server>::new(limits);
    rig.feed(&[PREFACE, &settings(&[]), &frame(SETTINGS, ACK, 0, &[])].concat()).unwrap();
    rig.out.clear();
    assert_eq!(met(&mut rig, &[ended(1), ended(3)].concat()), Fine);
    // `x-a: b` goes into the table with a request that nobody looks at.
    let stored = [&block(GET)[..], b"\x40\x03x-a\x01b"].concat();
    assert_eq!(
        met(&mut rig, &frame(HEADERS, END_HEADERS | END_STREAM, 5, &stored)),
        Stream(5, ErrorCode::REFUSED_STREAM)
    );
    rig.answer(1, Framing::None);
    let indexed = [&block(GET)[..], &[0xbe]].concat();
    let seen = rig.feed(&frame(HEADERS, END_HEADERS | END_STREAM, 7, &indexed)).unwrap();
    assert!(matches!(&seen[0], Seen::Head { stream: 7, text, .. } if text.contains("|x-a: b|")), "{seen:?}");
    assert_eq!(rig.connection.streams(), 2);
}

#[test]
fn rfc9113_5_1_frames_on_a_stream_that_was_reset_are_told_once_also_while_it_counts() {
    let mut connection = proto::h2::Connection::<Server>::new(Limits::DEFAULT);
    let (mut space, mut out) = (proto::h2::HeadSpace::default(), Vec::new());
    let late = [data(1, b"x", false), data(1, b"y", true)].concat();
    let bytes = [PREFACE, &settings(&[]), &open(1), &rst(1, ErrorCode::CANCEL), &late].concat();
    let mut at = 0;
    loop {
        let step = connection.read(Duration::ZERO, &bytes[at..], &mut space, &mut out).unwrap();
        at += step.skipped;
        if matches!(step.said, proto::h2::Said::Pause) {
            break;
        }
    }
    let told: Vec<_> = frames(&out).into_iter().filter(|frame| frame.kind == RST_STREAM).collect();
    assert_eq!((told.len(), told[0].stream, told[0].word(0)), (1, 1, CLOSED.0));
    assert_eq!(connection.streams(), 1);
}

#[test]
fn rfc9113_5_1_2_streams_that_were_reset_do_not_count_and_are_bounded_until_they_are_let_go_of() {
    let limits = Limits { streams: 1, ..Limits::DEFAULT };
    let mut connection = proto::h2::Connection::<Server>::new(limits);
    let (mut space, mut out) = (proto::h2::HeadSpace::default(), Vec::new());
    let given_up = |stream| [ended(stream), rst(stream, ErrorCode::CANCEL)].concat();
    let bytes = [PREFACE, &settings(&[]), &given_up(1), &given_up(3), &ended(5)].concat();
    let (mut at, mut reset) = (0, Vec::new());
    loop {
        let step = connection.read(Duration::ZERO, &bytes[at..], &mut space, &mut out).unwrap();
        at += step.skipped;
        match step.said {
            proto::h2::Said::Pause => break,
            proto::h2::Said::Stream(stream, Event::Reset(why)) => {
                assert_eq!(why, Malformed::Cancelled(ErrorCode::CANCEL));
                reset.push(stream);
            }
            _ => {}
        }
    }
    let refused = frames(&out).into_iter().rfind(|frame| frame.kind == RST_STREAM).unwrap();
    assert_eq!((refused.stream, refused.word(0)), (5, ErrorCode::REFUSED_STREAM.0), "two wait to be let go of");
    assert_eq!((reset.as_slice(), connection.streams()), (&[StreamId(1), StreamId(3)][..], 2));
    connection.release(StreamId(1), &mut out);
    connection.release(StreamId(3), &mut out);
    assert_eq!(connection.streams(), 0);
}

#[test]
fn rfc9113_6_9_receivers_hold_senders_to_their_windows() {
    let limits = Limits { stream_window: 1000, connection_window: 65_535, ..Limits::DEFAULT };
    let greeted = || {
        let mut rig = Rig::<Server>::new(limits);
        rig.generous = false;
        rig.feed(&[PREFACE, &settings(&[]), &frame(SETTINGS, ACK, 0, &[])].concat()).unwrap();
        rig.out.clear();
        rig
    };
    let mut rig = greeted();
    assert_eq!(met(&mut rig, &[open(1), data(1, &[0; 1000], false)].concat()), Fine);
    assert_eq!(met(&mut rig, &data(1, &[0; 1], false)), Stream(1, FLOW), "a stream's");
    let mut rig = greeted();
    rig.feed(&open(1)).unwrap();
    assert_eq!(met(&mut rig, &frame(DATA, PADDED, 1, &[0; 1001])), Stream(1, FLOW), "padding counts");
    // The connection's: 65 streams of 1000 bytes, and one more.
    let mut rig = greeted();
    for stream in (1..=129).step_by(2) {
        assert_eq!(met(&mut rig, &[open(stream), data(stream, &[0; 1000], false)].concat()), Fine);
    }
    assert_eq!(met(&mut rig, &[open(131), data(131, &[0; 536], false)].concat()), Connection(FLOW));
}

#[test]
fn rfc9113_6_9_no_credit_no_window_update() {
    let mut rig = server();
    rig.generous = false;
    rig.feed(&[open(1), data(1, &[0; 16_384], false), data(1, &[0; 16_384], false)].concat()).unwrap();
    assert_eq!(rig.put(), [], "nothing was passed on");
    rig.connection.credit(StreamId(1), 32_767, &mut rig.out);
    assert_eq!(rig.put(), [], "not worth a frame");
    rig.connection.credit(StreamId(1), 1_000_000, &mut rig.out);
    let put = rig.put();
    assert_eq!(
        (put.len(), put[0].kind, put[0].stream, put[0].word(0)),
        (1, WINDOW_UPDATE, 1, 32_768),
        "what was owed and no more"
    );
    // What was not given back when a stream goes comes back to the connection.
    for stream in (3..=63).step_by(2) {
        rig.feed(&[open(stream), data(stream, &[0; 16_384], false)].concat()).unwrap();
        rig.connection.reset(StreamId(stream), ErrorCode::CANCEL, &mut rig.out);
    }
    let put = rig.put();
    let updates: Vec<_> = put.iter().filter(|frame| frame.kind == WINDOW_UPDATE).collect();
    assert_eq!((updates.len(), updates[0].stream, updates[0].word(0)), (1, 0, 524_288));
}

#[test]
fn rfc9113_6_9_1_senders_keep_to_windows_and_frame_sizes() {
    let mut rig = server();
    rig.feed(&ended(1)).unwrap();
    rig.answer(1, Framing::Chunked);
    rig.queue(1, 100_000);
    rig.finish(1);
    rig.put();
    rig.send();
    let lengths: Vec<usize> = rig.put().iter().map(|frame| frame.payload.len()).collect();
    assert_eq!(lengths, [16_384, 16_384, 16_384, 16_383], "65,535 bytes in frames of 16,384");
    rig.feed(&window_update(1, 10)).unwrap();
    rig.send();
    assert_eq!(rig.put(), [], "the connection's window is closed too");
    rig.feed(&window_update(0, 20)).unwrap();
    rig.send();
    let put = rig.put();
    assert_eq!((put.len(), put[0].payload.len(), put[0].flags), (1, 10, 0));
    rig.feed(&[window_update(1, 1 << 20), window_update(0, 1 << 20)].concat()).unwrap();
    rig.send();
    let put = rig.put();
    assert_eq!(put.iter().map(|frame| frame.payload.len()).sum::<usize>(), 100_000 - 65_535 - 10);
    assert_eq!(put.last().map(|frame| frame.flags), Some(END_STREAM));
    assert_eq!(rig.connection.streams(), 0);
}

#[test]
fn rfc9113_6_9_2_windows_follow_settings_below_zero() {
    let mut rig = server();
    rig.feed(&[settings(&[(4, 3)]), ended(1), ended(3)].concat()).unwrap();
    rig.answer(1, Framing::Chunked);
    rig.queue(1, 20);
    rig.send();
    assert_eq!(rig.put().last().map(|frame| frame.payload.len()), Some(3));
    rig.feed(&settings(&[(4, 2)])).unwrap();
    rig.feed(&window_update(1, 1)).unwrap();
    rig.put();
    rig.send();
    assert_eq!(rig.put(), [], "the window was -1 and is 0");
    rig.feed(&settings(&[(4, 7)])).unwrap();
    rig.put();
    rig.send();
    assert_eq!(rig.put().last().map(|frame| frame.payload.len()), Some(5));
}

#[test]
fn rfc9113_5_1_nothing_follows_what_both_sides_ended() {
    let answered = || {
        let mut rig = server();
        rig.feed(&ended(1)).unwrap();
        rig.answer(1, Framing::None);
        rig.put();
        rig
    };
    assert_eq!(met(&mut answered(), &ended(1)), Connection(CLOSED));
    assert_eq!(met(&mut answered(), &data(1, b"x", true)), Stream(1, CLOSED), "which content may be answered with");
    assert_eq!(met(&mut answered(), &[window_update(1, 1), rst(1, PROTOCOL)].concat()), Fine, "these may be late");
    // Who has reset a stream may have sent a head before it heard of anything.
    let mut rig = server();
    rig.feed(&[open(1), rst(1, ErrorCode::CANCEL)].concat()).unwrap();
    rig.connection.release(StreamId(1), &mut rig.out);
    assert_eq!(met(&mut rig, &ended(1)), Stream(1, CLOSED));
}

#[test]
fn rfc9113_6_8_servers_leave_in_two_steps() {
    let mut rig = server();
    rig.feed(&ended(1)).unwrap();
    rig.connection.drain(rig.now, &mut rig.out);
    rig.connection.drain(rig.now, &mut rig.out);
    let put = rig.put();
    assert_eq!(put.iter().map(|frame| frame.kind).collect::<Vec<_>>(), [GOAWAY, PING]);
    assert_eq!((put[0].word(0), put[0].word(4)), (0x7fff_ffff, 0));
    // A request that was on its way is still looked at.
    assert!(matches!(rig.feed(&ended(3)).unwrap()[0], Seen::Head { stream: 3, .. }));
    rig.feed(&frame(PING, ACK, 0, &put[1].payload)).unwrap();
    let put = rig.put();
    assert_eq!((put.len(), put[0].kind, put[0].word(0)), (1, GOAWAY, 3));
    // One that comes later is not, and its content does not count against anybody.
    assert_eq!(met(&mut rig, &[open(5), data(5, &[0; 9], true)].concat()), Fine);
    assert!(!rig.connection.is_finished());
    rig.answer(1, Framing::None);
    rig.answer(3, Framing::None);
    assert!(rig.connection.is_finished());
    rig.put();
    rig.feed(&data(0, b"", false)).unwrap_err();
    assert_eq!(rig.put()[0].word(0), 3, "the last stream is never raised");

    let mut rig = server();
    rig.connection.drain(rig.now, &mut rig.out);
    assert_eq!(rig.connection.next_deadline(), Some(Duration::from_secs(1)), "a peer that answers no PING");
    rig.connection.expire(Duration::from_secs(1), &mut rig.out).unwrap();
    assert_eq!(rig.put().last().map(|frame| (frame.kind, frame.word(0))), Some((GOAWAY, 0)));
    assert!(rig.connection.is_finished());
}

#[test]
fn rfc9113_6_8_clients_learn_what_was_not_looked_at() {
    let mut rig = client(3);
    assert!(rig.connection.can_open());
    let seen = rig.feed(&[go_away(3, ErrorCode::NO_ERROR), headers(1, OK, true)].concat()).unwrap();
    assert_eq!(seen[0], Seen::GoneAway { last: 3, code: ErrorCode::NO_ERROR });
    assert_eq!(seen[1], Seen::Reset { stream: 5, why: Malformed::Unprocessed });
    assert!(matches!(seen[2], Seen::Head { stream: 1, .. }));
    assert!(!rig.connection.can_open() && !rig.connection.is_open() && !rig.connection.is_finished());
    rig.feed(&headers(3, OK, true)).unwrap();
    assert!(rig.connection.is_finished());

    let mut rig = client(1);
    let seen = rig.feed(&rst(1, ErrorCode::REFUSED_STREAM)).unwrap();
    assert_eq!(seen, [Seen::Reset { stream: 1, why: Malformed::Unprocessed }], "RFC 9113 8.7");
}

#[test]
fn rfc9113_5_1_2_clients_respect_the_servers_limit() {
    let mut rig = client(0);
    rig.feed(&settings(&[(3, 2)])).unwrap();
    rig.get(Method::Get);
    rig.get(Method::Get);
    assert!(!rig.connection.can_open() && rig.connection.is_open());
    assert_eq!(rig.send_request(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", Framing::None), Err(proto::h1::Refused::Gone));
    rig.feed(&headers(3, OK, true)).unwrap();
    assert!(rig.connection.can_open());
}

#[test]
fn rfc9113_6_9_content_that_nobody_wants_counts_and_comes_back() {
    // Refused, reset, given up: a hundred KiB each, on a connection whose window is a MiB.
    let mut rig = Rig::<Server>::new(Limits { streams: 1, ..Limits::DEFAULT });
    rig.generous = false;
    rig.feed(&[PREFACE, &settings(&[]), &frame(SETTINGS, ACK, 0, &[]), &open(1)].concat()).unwrap();
    for stream in (3..=61).step_by(2) {
        rig.feed(&open(stream)).unwrap();
        for _ in 0..6 {
            rig.feed(&frame(DATA, PADDED, stream, &[9; 16_384])).unwrap();
        }
    }
    let updates: Vec<_> =
        rig.put().into_iter().filter(|frame| frame.kind == WINDOW_UPDATE && frame.stream == 0).collect();
    let told: u32 = updates[1..].iter().map(|frame| frame.word(0)).sum();
    let sent = 30 * 6 * 16_384;
    assert!(told <= sent && told + 524_288 > sent, "{told} of {sent}");
}

#[test]
fn rfc9113_8_1_clients_keep_a_response_whose_request_was_cut_short() {
    let mut rig = client(0);
    let stream = rig.ask(Method::Post, Framing::Chunked);
    let seen = rig
        .feed(&[headers(stream, OK, false), data(stream, b"all", true), rst(stream, ErrorCode::NO_ERROR)].concat())
        .unwrap();
    assert!(matches!(seen[0], Seen::Head { .. }));
    assert_eq!(
        seen[1..3],
        [Seen::Data { stream, bytes: b"all".to_vec() }, Seen::End { stream, trailers: String::new() }]
    );
    assert_eq!(
        seen[3..],
        [Seen::Reset { stream, why: Malformed::Cancelled(ErrorCode::NO_ERROR) }],
        "and learn to stop"
    );
    assert_eq!(rig.connection.queue(rig.now, StreamId(stream), 1, &mut rig.out), Err(proto::h1::Refused::Gone));
}

#[test]
fn limits_beyond_the_protocol_are_brought_within_it() {
    let giant = Limits {
        streams: u16::MAX,
        stream_window: u32::MAX,
        connection_window: u32::MAX,
        header_table: u16::MAX,
        ..Limits::DEFAULT
    };
    let mut rig = Rig::<Server>::new(giant);
    rig.feed(&[PREFACE, &settings(&[]), &frame(SETTINGS, ACK, 0, &[])].concat()).unwrap();
    let put = rig.put();
    assert!(put[0].payload.chunks(6).any(|entry| entry == [0, 4, 0x7f, 0xff, 0xff, 0xff]));
    assert_eq!(put[1].word(0), 0x7fff_ffff - 65_535);
    assert_eq!(met(&mut rig, &[open(1), data(1, &[0; 16_384], true)].concat()), Fine);
}

#[test]
fn a_response_that_is_complete_ends_its_request() {
    // RFC 9113 §8.1: RST_STREAM(NO_ERROR) after a complete response; what is still on its way is borne.
    let mut rig = server();
    rig.feed(&[open(1), data(1, b"some", false)].concat()).unwrap();
    rig.answer(1, Framing::Length(2));
    rig.queue(1, 2);
    rig.finish(1);
    rig.put();
    rig.send();
    let put = rig.put();
    assert_eq!(
        put.iter().map(|frame| (frame.kind, frame.flags)).collect::<Vec<_>>(),
        [(DATA, END_STREAM), (RST_STREAM, 0)]
    );
    assert_eq!(put[1].word(0), 0);
    assert_eq!(met(&mut rig, &data(1, b"more", true)), Fine);
    assert_eq!(rig.connection.streams(), 0);
}
