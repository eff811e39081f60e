//! What a peer may do with streams, frames and settings, section by section (RFC 9114 §5–§7, RFC 9218 §7.2): how each breach is met.

mod quic;

use proto::Malformed;
use proto::h1::{Client, Refused, Server};
use proto::h3::{Abort, Datagram, ErrorCode, Limits, Out, Priority, StreamId, frame::INTEGER_MAX};
use proto::http::{Framing, Method};
use quic::*;
use std::time::Duration;

const UNEXPECTED: Met = Met::Connection(ErrorCode::FRAME_UNEXPECTED);
const FRAME_ERROR: Met = Met::Connection(ErrorCode::FRAME_ERROR);
const ID_ERROR: Met = Met::Connection(ErrorCode::ID_ERROR);
const CREATION_ERROR: Met = Met::Connection(ErrorCode::STREAM_CREATION_ERROR);
const CLOSED: Met = Met::Connection(ErrorCode::CLOSED_CRITICAL_STREAM);
const SETTINGS_ERROR: Met = Met::Connection(ErrorCode::SETTINGS_ERROR);
const CALM: Met = Met::Connection(ErrorCode::EXCESSIVE_LOAD);

#[test]
fn the_streams_that_we_begin_with() {
    let put = |out: &Out| {
        let (control, rest) = split_type(&out.control);
        (control, frames(rest), out.encoder.clone(), out.decoder.clone())
    };
    let server = Rig::<Server>::new(Limits::DEFAULT);
    let (control, said, encoder, decoder) = put(&server.out);
    assert_eq!((control, said.len(), said[0].0, encoder, decoder), (0, 1, SETTINGS, vec![2], vec![3]));
    let mut read = proto::h3::PeerSettings::INITIAL;
    read.apply(&said[0].1).unwrap();
    assert_eq!(
        (read.qpack_max_table_capacity, read.qpack_blocked_streams, read.enable_connect_protocol),
        (4096, 16, true)
    );
    assert!(read.max_field_section_size >= 16 * 1024);
    let client = Rig::<Client>::new(Limits { header_table: 0, blocked_streams: 0, ..Limits::DEFAULT });
    let mut read = proto::h3::PeerSettings::INITIAL;
    read.apply(&put(&client.out).1[0].1).unwrap();
    assert_eq!(
        (read.qpack_max_table_capacity, read.qpack_blocked_streams, read.enable_connect_protocol),
        (0, 0, false)
    );
}

#[test]
fn rfc9114_6_2_streams_of_one_direction() {
    let stop = |stream: u64| Met::Stopped(stream, ErrorCode::STREAM_CREATION_ERROR);
    for (section, bytes, fin, expected) in [
        ("6.2: a sort that nobody knows", integer(0x54), false, stop(14)),
        ("6.2.3: a sort that means nothing", [integer(GREASE), vec![1, 2, 3]].concat(), false, stop(14)),
        ("6.2: it may end before it has told", vec![0x40], true, Met::Fine),
        ("6.2: or say nothing", vec![], true, Met::Fine),
        ("6.2.1: a second control stream", integer(0), false, CREATION_ERROR),
        ("RFC 9204 4.2: a second encoder stream", integer(2), false, CREATION_ERROR),
        ("RFC 9204 4.2: a second decoder stream", integer(3), false, CREATION_ERROR),
        ("6.2.2: a client pushes", [integer(1), integer(0)].concat(), false, CREATION_ERROR),
    ] {
        assert_eq!(met(&mut server(), 14, &bytes, fin), expected, "{section}");
    }
    assert_eq!(met(&mut client(0), 14, &[1, 0], false), ID_ERROR, "6.2.2: a push that was not allowed");
    // What still comes of a stream that was stopped is nobody's.
    let mut rig = server();
    assert_eq!(met(&mut rig, 14, &integer(GREASE), false), stop(14));
    assert_eq!(met(&mut rig, 14, &[0, 4, 0], true), Met::Fine);
}

#[test]
fn rfc9114_6_1_a_server_opens_no_requests() {
    let mut rig = client(1);
    let opened = rig.connection.opened(rig.now, StreamId(1), &mut rig.out);
    assert_eq!(opened.map_err(|fault| fault.code), Err(ErrorCode::STREAM_CREATION_ERROR));
    assert!(rig.connection.is_finished());
}

#[test]
fn rfc9114_6_2_1_critical_streams_stay() {
    for stream in [CONTROL, ENCODER, DECODER] {
        assert_eq!(met(&mut server(), stream, b"", true), CLOSED, "ended");
        assert_eq!(met(&mut client(1), stream, b"", true), CLOSED, "ended");
        let mut rig = server();
        let reset = rig.connection.peer_reset(rig.now, StreamId(stream), ErrorCode::NO_ERROR, &mut rig.out);
        assert_eq!(reset.map_err(|fault| fault.code), Err(ErrorCode::CLOSED_CRITICAL_STREAM), "reset");
        let mut rig = server();
        let stopped = rig.connection.peer_stopped(rig.now, StreamId(stream | 1), ErrorCode::NO_ERROR, &mut rig.out);
        assert_eq!(stopped.map_err(|fault| fault.code), Err(ErrorCode::CLOSED_CRITICAL_STREAM), "stopped");
    }
    // Its frames are acted upon before its end is.
    let mut rig = server();
    assert_eq!(
        rig.feed(CONTROL, &frame(GOAWAY, &[0]), true).map_err(|fault| fault.code),
        Err(ErrorCode::CLOSED_CRITICAL_STREAM)
    );
    assert_eq!(rig.story, [Seen::GoneAway(0)]);
    // One that has not said what it is for may be reset.
    let mut rig = server();
    rig.feed(14, &[0x40], false).unwrap();
    assert_eq!(rig.connection.peer_reset(rig.now, StreamId(14), ErrorCode::NO_ERROR, &mut rig.out), Ok(None));
}

#[test]
fn rfc9114_7_2_frames_on_the_control_stream() {
    let calm = vec![0; 600];
    for (section, bytes, of_client, of_server) in [
        ("7.2.1: DATA", frame(DATA, b"x"), UNEXPECTED, UNEXPECTED),
        ("7.2.2: HEADERS", headers(GET), UNEXPECTED, UNEXPECTED),
        ("7.2.3: CANCEL_PUSH of nothing", frame(CANCEL_PUSH, &[0]), ID_ERROR, ID_ERROR),
        ("7.2.3: CANCEL_PUSH without one", frame(CANCEL_PUSH, &[]), FRAME_ERROR, FRAME_ERROR),
        ("7.2.4: a second SETTINGS", settings(&[]), UNEXPECTED, UNEXPECTED),
        ("7.2.5: PUSH_PROMISE", frame(PUSH_PROMISE, &[0]), UNEXPECTED, UNEXPECTED),
        ("7.2.6: GOAWAY", frame(GOAWAY, &[0]), Met::Fine, Met::Fine),
        ("7.2.6: GOAWAY of no request", frame(GOAWAY, &[1]), Met::Fine, ID_ERROR),
        ("7.2.6: GOAWAY of no request", frame(GOAWAY, &[2]), Met::Fine, ID_ERROR),
        ("7.1: GOAWAY and more", frame(GOAWAY, &[0, 0]), FRAME_ERROR, FRAME_ERROR),
        ("7.1: GOAWAY without", frame(GOAWAY, &[]), FRAME_ERROR, FRAME_ERROR),
        ("7.1: GOAWAY cut off", frame(GOAWAY, &[0x40]), FRAME_ERROR, FRAME_ERROR),
        ("7.1: GOAWAY much too long", frame(GOAWAY, &[0; 9]), FRAME_ERROR, FRAME_ERROR),
        ("5.2: GOAWAY goes up", [frame(GOAWAY, &[4]), frame(GOAWAY, &[8])].concat(), ID_ERROR, ID_ERROR),
        ("5.2: GOAWAY goes down", [frame(GOAWAY, &[8]), frame(GOAWAY, &[4])].concat(), Met::Fine, Met::Fine),
        ("7.2.7: MAX_PUSH_ID", frame(MAX_PUSH_ID, &[5]), Met::Fine, UNEXPECTED),
        (
            "7.2.7: MAX_PUSH_ID goes down",
            [frame(MAX_PUSH_ID, &[5]), frame(MAX_PUSH_ID, &[4])].concat(),
            ID_ERROR,
            UNEXPECTED,
        ),
        ("7.1: MAX_PUSH_ID and more", frame(MAX_PUSH_ID, &[5, 5]), FRAME_ERROR, UNEXPECTED),
        ("7.2.8: PRIORITY of HTTP/2", frame(0x2, &[0; 5]), UNEXPECTED, UNEXPECTED),
        ("7.2.8: PING of HTTP/2", frame(0x6, &[0; 8]), UNEXPECTED, UNEXPECTED),
        ("7.2.8: WINDOW_UPDATE of HTTP/2", frame(0x8, &[0; 4]), UNEXPECTED, UNEXPECTED),
        ("7.2.8: CONTINUATION of HTTP/2", frame(0x9, &[]), UNEXPECTED, UNEXPECTED),
        ("7.2.8: one that means nothing", frame(GREASE, b"anything"), Met::Fine, Met::Fine),
        ("9: one that nobody knows", frame(0xfe, &calm), Met::Fine, Met::Fine),
        ("RFC 9218 7.2: PRIORITY_UPDATE", frame(PRIORITY_UPDATE, b"\x00u=1"), Met::Fine, UNEXPECTED),
        ("RFC 9218 7.2: of no request", frame(PRIORITY_UPDATE, b"\x01u=1"), ID_ERROR, UNEXPECTED),
        ("RFC 9218 7.2: of no request", frame(PRIORITY_UPDATE, b"\x02u=1"), ID_ERROR, UNEXPECTED),
        ("RFC 9218 7.2: without a stream", frame(PRIORITY_UPDATE, b""), FRAME_ERROR, UNEXPECTED),
        ("RFC 9218 7.2: of a push", frame(PRIORITY_UPDATE_PUSH, b"\x00u=1"), ID_ERROR, UNEXPECTED),
        ("RFC 9218 7.2: too long", frame(PRIORITY_UPDATE, &calm), CALM, CALM),
    ] {
        assert_eq!(met(&mut server(), CONTROL, &bytes, false), of_client, "{section}, of a client");
        assert_eq!(met(&mut client(0), CONTROL, &bytes, false), of_server, "{section}, of a server");
    }
}

#[test]
fn rfc9114_7_2_4_settings_come_first_and_once() {
    let missing = Met::Connection(ErrorCode::MISSING_SETTINGS);
    for (section, bytes, expected) in [
        ("6.2.1: GOAWAY first", frame(GOAWAY, &[0]), missing),
        ("6.2.1: one that means nothing first", frame(GREASE, b""), missing),
        ("7.2.4: none are enough", settings(&[]), Met::Fine),
        (
            "7.2.4.1: what is not understood is ignored",
            settings(&[(GREASE, 7), (0x33, 1), (0x4d44, INTEGER_MAX)]),
            Met::Fine,
        ),
        ("7.2.4: twice the same", settings(&[(0x6, 7), (0x6, 8)]), SETTINGS_ERROR),
        ("7.2.4.1: ENABLE_PUSH of HTTP/2", settings(&[(0x2, 0)]), SETTINGS_ERROR),
        ("7.2.4.1: INITIAL_WINDOW_SIZE of HTTP/2", settings(&[(0x4, 9)]), SETTINGS_ERROR),
        ("RFC 9220 3: neither 0 nor 1", settings(&[(0x8, 2)]), SETTINGS_ERROR),
        ("7.1: cut off", frame(SETTINGS, &[0x6]), FRAME_ERROR),
        ("7.1: cut off", frame(SETTINGS, &[0x6, 0x40]), FRAME_ERROR),
        ("10.5: too many", settings(&(0..40).map(|id| (0x40 + id, 0)).collect::<Vec<_>>()), CALM),
        ("10.5: too long", [integer(SETTINGS), integer(100_000)].concat(), CALM),
    ] {
        let bytes = [integer(0), bytes].concat();
        assert_eq!(met(&mut Rig::<Server>::new(Limits::DEFAULT), CONTROL, &bytes, false), expected, "{section}");
        assert_eq!(met(&mut Rig::<Client>::new(Limits::DEFAULT), CONTROL, &bytes, false), expected, "{section}");
    }
    // Requests need not wait for them (§7.2.4.2).
    let mut rig = Rig::<Server>::new(Limits::DEFAULT);
    assert!(matches!(rig.feed(0, &headers(GET), true).unwrap()[..], [Seen::Head { .. }, Seen::End { .. }]));
}

#[test]
fn rfc9114_4_1_and_7_2_frames_on_a_requests_stream() {
    let (get, post) = (headers(GET), headers(POST));
    let trailers = headers(&[("a", "b")]);
    for (section, bytes, expected) in [
        ("4.1: DATA first", data(b"x"), UNEXPECTED),
        ("4.1: DATA behind trailers", [&post[..], &trailers, &data(b"x")].concat(), UNEXPECTED),
        ("4.1: HEADERS behind trailers", [&post[..], &trailers, &trailers].concat(), UNEXPECTED),
        ("4.1: what means nothing, between", [&post[..], &frame(GREASE, b"x"), &data(b"x")].concat(), Met::Fine),
        ("4.1: what means nothing, behind", [&post[..], &trailers, &frame(GREASE, b"x")].concat(), Met::Fine),
        ("4.1: what means nothing, before", [&frame(GREASE, b"x")[..], &post].concat(), Met::Fine),
        ("7.2.3: CANCEL_PUSH", [&get[..], &frame(CANCEL_PUSH, &[0])].concat(), UNEXPECTED),
        ("7.2.4: SETTINGS", settings(&[]), UNEXPECTED),
        ("7.2.5: PUSH_PROMISE of a client", [&get[..], &frame(PUSH_PROMISE, &[0])].concat(), UNEXPECTED),
        ("7.2.6: GOAWAY", frame(GOAWAY, &[0]), UNEXPECTED),
        ("7.2.7: MAX_PUSH_ID", frame(MAX_PUSH_ID, &[0]), UNEXPECTED),
        ("7.2.8: of HTTP/2", frame(0x8, &[0; 4]), UNEXPECTED),
        ("7.2.8: of HTTP/2", [&post[..], &frame(0x2, &[0; 5])].concat(), UNEXPECTED),
        ("RFC 9218 7.2: PRIORITY_UPDATE", frame(PRIORITY_UPDATE, b"\x00u=1"), UNEXPECTED),
    ] {
        assert_eq!(met(&mut server(), 0, &bytes, false), expected, "{section}");
    }
    for (section, bytes, expected) in [
        ("4.1: DATA first", data(b"x"), UNEXPECTED),
        ("4.1: DATA behind an interim head", [headers(&[(":status", "103")]), data(b"x")].concat(), UNEXPECTED),
        ("7.2.5: a push that was not allowed", frame(PUSH_PROMISE, &[0, 0, 0]), ID_ERROR),
        ("7.2.4: SETTINGS", settings(&[]), UNEXPECTED),
        ("7.2.8: of HTTP/2", frame(0x9, &[]), UNEXPECTED),
    ] {
        assert_eq!(met(&mut client(1), 0, &bytes, false), expected, "{section}");
    }
}

#[test]
fn rfc9114_7_1_streams_do_not_end_within_frames() {
    for (section, bytes) in [
        ("within a type", vec![0x40]),
        ("within a length", vec![0x1]),
        ("within a length", vec![0x1, 0x40]),
        ("within a head", headers(GET)[..9].to_vec()),
        ("before any content", [headers(POST), vec![0, 3]].concat()),
        ("within content", [headers(POST), vec![0, 3, b'x']].concat()),
        ("within what means nothing", [headers(POST), integer(GREASE), vec![3, b'x']].concat()),
        ("within what means nothing", [headers(POST), integer(GREASE), vec![3]].concat()),
    ] {
        assert_eq!(met(&mut server(), 0, &bytes, true), FRAME_ERROR, "{section}");
        let mut rig = server();
        assert_eq!(met(&mut rig, 0, &bytes, false), Met::Fine, "{section}");
        assert_eq!(met(&mut rig, 0, b"", true), FRAME_ERROR, "{section}, later");
    }
}

#[test]
fn rfc9114_4_1_a_request_that_ends_before_its_head_is_incomplete() {
    for bytes in [&b""[..], &frame(GREASE, b"x")] {
        let mut rig = server();
        assert_eq!(met(&mut rig, 0, bytes, true), Met::Stream(0, ErrorCode::REQUEST_INCOMPLETE));
        assert_eq!((rig.connection.streams(), rig.story.len()), (0, 0));
    }
    let mut rig = client(1);
    rig.feed(0, &headers(&[(":status", "103")]), false).unwrap();
    assert_eq!(rig.feed(0, b"", true), Ok(vec![Seen::Reset { stream: 0, why: Malformed::Truncated }]));
    assert_eq!(rig.aborts(), [Abort::Stop { stream: StreamId(0), code: ErrorCode::MESSAGE_ERROR }]);
}

#[test]
fn rfc9114_5_2_a_server_that_goes_says_which_requests_are_safe_elsewhere() {
    let mut rig = client(3);
    let seen = rig.feed(CONTROL, &frame(GOAWAY, &[4]), false).unwrap();
    let unprocessed = |stream| Seen::Reset { stream, why: Malformed::Unprocessed };
    assert_eq!(seen, [Seen::GoneAway(4), unprocessed(8), unprocessed(4)]);
    assert!(!rig.connection.can_open() && !rig.connection.is_finished());
    assert_eq!(rig.send_request(12, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", Framing::None), Err(Refused::Gone));
    // What it does look at is answered.
    assert!(matches!(rig.feed(0, &headers(OK), true).unwrap()[..], [Seen::Head { .. }, Seen::End { .. }]));
    assert!(rig.connection.is_finished());
    // Requests that the server has rejected are safe elsewhere, too (§4.1.1).
    let mut rig = client(1);
    let reset = |rig: &mut Rig<Client>, code| {
        let said = rig.connection.peer_reset(rig.now, StreamId(0), code, &mut rig.out).unwrap();
        let Some(proto::h3::Said::Stream(_, proto::Event::Reset(why))) = said else { panic!("{said:?}") };
        why
    };
    assert_eq!(reset(&mut rig, ErrorCode::REQUEST_REJECTED), Malformed::Unprocessed);
    let cancelled = reset(&mut client(1), ErrorCode::INTERNAL_ERROR);
    assert_eq!(cancelled, Malformed::Cancelled(proto::h2::ErrorCode::INTERNAL_ERROR));
}

#[test]
fn rfc9114_5_2_we_leave_in_two_steps() {
    let mut rig = server();
    rig.feed(0, &headers(POST), false).unwrap();
    rig.connection.drain(rig.now, &mut rig.out);
    let go_away = |rig: &mut Rig<Server>| {
        let said = frames(&std::mem::take(&mut rig.out.control));
        said.into_iter()
            .map(|(kind, payload)| (kind, proto::h3::frame::read_integer(&payload).unwrap().0))
            .collect::<Vec<_>>()
    };
    assert_eq!(go_away(&mut rig), [(GOAWAY, INTEGER_MAX - 3)]);
    // What is on its way is still taken.
    assert!(!rig.feed(4, &headers(GET), true).unwrap().is_empty());
    assert_eq!(rig.connection.next_deadline(), Some(Duration::from_secs(1)));
    rig.connection.expire(Duration::from_millis(999), &mut rig.out);
    assert_eq!(go_away(&mut rig), []);
    rig.now = Duration::from_secs(1);
    rig.connection.expire(rig.now, &mut rig.out);
    assert_eq!((go_away(&mut rig), rig.connection.next_deadline()), (vec![(GOAWAY, 8)], None));
    // And what comes now is not looked at.
    assert_eq!(rig.feed(8, &headers(GET), true), Ok(vec![]));
    let (stream, code) = (StreamId(8), ErrorCode::REQUEST_REJECTED);
    assert_eq!(rig.aborts(), [Abort::Reset { stream, code }, Abort::Stop { stream, code }]);
    for stream in [0, 4] {
        assert!(!rig.connection.is_finished());
        rig.answer(stream, Framing::Length(0));
    }
    assert!(rig.connection.is_finished());
    // A client has nothing to wait for.
    let mut rig = client(0);
    rig.connection.drain(rig.now, &mut rig.out);
    assert_eq!(frames(&rig.out.control)[0].0, GOAWAY);
    assert!(rig.connection.is_finished() && !rig.connection.can_open());
}

/// However many streams the server's QUIC would give.
#[test]
fn a_client_begins_so_many_requests_and_no_more() {
    let mut rig = Rig::<Client>::new(Limits { streams: 3, ..Limits::DEFAULT });
    rig.greet(&[]);
    (0..3).for_each(|at| rig.get(4 * at, Method::Get));
    assert!(!rig.connection.can_open() && rig.connection.is_open());
    let one_more = rig.send_request(12, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", Framing::None);
    assert_eq!(one_more, Err(Refused::Gone));
    // One that is given up makes room, and so does one that is answered.
    rig.connection.release(StreamId(4), &mut rig.out);
    assert!(rig.connection.can_open());
    rig.get(12, Method::Get);
    assert!(!rig.connection.can_open());
    rig.feed(8, &headers(OK), true).unwrap();
    assert!(rig.connection.can_open());
    rig.get(16, Method::Get);
}

#[test]
fn rfc9218_7_2_priorities_come_before_and_behind_their_requests() {
    let update = |stream: u64, text: &str| frame(PRIORITY_UPDATE, &[integer(stream), text.into()].concat());
    let asked = |priority| headers(&with(GET, &[("priority", priority)]));
    let mut rig = server();
    assert_eq!(rig.feed(CONTROL, &update(4, "u=0, i"), false), Ok(vec![]));
    rig.feed(0, &asked("u=5"), false).unwrap();
    rig.feed(4, &asked("u=5"), false).unwrap();
    rig.feed(8, &headers(GET), false).unwrap();
    let priority = |rig: &Rig<Server>, stream| rig.connection.priority(StreamId(stream));
    assert_eq!(priority(&rig, 0), Some(Priority { urgency: 5, incremental: false }));
    assert_eq!(priority(&rig, 4), Some(Priority { urgency: 0, incremental: true }), "the frame speaks later");
    assert_eq!(priority(&rig, 8), Some(Priority::default()));
    assert_eq!(rig.feed(CONTROL, &update(0, "u=7"), false), Ok(vec![Seen::Prioritised(0)]));
    assert_eq!((priority(&rig, 0), priority(&rig, 12)), (Some(Priority { urgency: 7, incremental: false }), None));
    // It may come when the stream is here, and its head is not.
    rig.feed(12, &asked("u=1")[..4], false).unwrap();
    rig.feed(CONTROL, &update(12, "u=2"), false).unwrap();
    rig.feed(12, &asked("u=1")[4..], false).unwrap();
    assert_eq!(priority(&rig, 12).map(|priority| priority.urgency), Some(2));
    // Of streams that are over nothing is kept; of those that are to come, four.
    for stream in [16, 20, 24, 28, 32] {
        rig.feed(CONTROL, &update(stream, "u=6"), false).unwrap();
    }
    for stream in [16, 20, 24, 28, 32] {
        rig.feed(stream, &headers(GET), false).unwrap();
    }
    let urgencies = [16, 20, 24, 28, 32].map(|stream| priority(&rig, stream).map(|priority| priority.urgency));
    assert_eq!(urgencies, [Some(3), Some(6), Some(6), Some(6), Some(6)]);
}

#[test]
fn streams_come_in_any_order_and_end_by_themselves() {
    let mut rig = server();
    for stream in [8, 0, 4] {
        rig.feed(stream, &headers(GET), true).unwrap();
    }
    assert_eq!(rig.connection.streams(), 3);
    for stream in [4, 8, 0] {
        rig.answer(stream, Framing::Length(3));
        assert!(rig.connection.is_writable(StreamId(stream)) && rig.connection.is_body_read(StreamId(stream)));
        rig.data(stream, 3).unwrap();
        rig.finish(stream, &[]).unwrap();
        assert!(!rig.connection.is_writable(StreamId(stream)));
        assert_eq!(frames(&rig.put(stream))[1], (DATA, vec![stream as u8; 3]));
    }
    assert!(rig.connection.is_idle());
    // What is asked of them now does nothing.
    assert_eq!(rig.data(0, 1), Err(Refused::Gone));
    assert_eq!(rig.finish(0, &[]), Err(Refused::Gone));
    rig.connection.reset(StreamId(0), ErrorCode::INTERNAL_ERROR, &mut rig.out);
    assert_eq!(rig.feed(0, b"nobody's", true), Ok(vec![]));
    assert_eq!(rig.aborts(), []);
}

#[test]
fn rfc9114_4_1_a_server_that_is_done_early_says_so() {
    let mut rig = server();
    rig.feed(0, &headers(POST), false).unwrap();
    rig.answer(0, Framing::Length(0));
    assert_eq!(rig.aborts(), [Abort::Stop { stream: StreamId(0), code: ErrorCode::NO_ERROR }]);
    assert!(rig.connection.is_idle());
    // The client does not lose the response by it.
    let mut rig = client(0);
    rig.ask(0, Method::Post, Framing::Length(9));
    rig.data(0, 4).unwrap();
    let stopped = rig.connection.peer_stopped(rig.now, StreamId(0), ErrorCode::NO_ERROR, &mut rig.out);
    assert_eq!((stopped, rig.connection.is_writable(StreamId(0))), (Ok(None), false));
    assert_eq!(rig.data(0, 5), Err(Refused::Gone));
    assert_eq!(rig.aborts(), [Abort::Reset { stream: StreamId(0), code: ErrorCode::NO_ERROR }]);
    assert!(matches!(rig.feed(0, &headers(OK), true).unwrap()[..], [Seen::Head { .. }, Seen::End { .. }]));
    assert!(rig.connection.is_idle());
}

#[test]
fn rfc9114_4_1_1_what_is_cancelled_is_over_for_both() {
    for stopped in [false, true] {
        let mut rig = server();
        rig.feed(0, &headers(POST), false).unwrap();
        let (id, code) = (StreamId(0), ErrorCode::REQUEST_CANCELLED);
        let said = if stopped {
            rig.connection.peer_stopped(rig.now, id, code, &mut rig.out)
        } else {
            rig.connection.peer_reset(rig.now, id, code, &mut rig.out)
        };
        let why = Malformed::Cancelled(proto::h2::ErrorCode::CANCEL);
        assert_eq!(said, Ok(Some(proto::h3::Said::Stream(id, proto::Event::Reset(why)))));
        assert_eq!(rig.aborts(), [Abort::Reset { stream: id, code }, Abort::Stop { stream: id, code }]);
        assert_eq!((rig.connection.streams(), rig.connection.is_idle()), (1, false), "until we let go");
        assert_eq!(rig.connection.peer_reset(rig.now, id, code, &mut rig.out), Ok(None), "told once");
        rig.connection.release(id, &mut rig.out);
        assert_eq!((rig.connection.is_idle(), rig.aborts()), (true, vec![]));
    }
    // One of which nothing was known is not told of.
    let mut rig = server();
    rig.feed(0, &headers(POST)[..3], false).unwrap();
    assert_eq!(rig.connection.peer_reset(rig.now, StreamId(0), ErrorCode::REQUEST_CANCELLED, &mut rig.out), Ok(None));
    assert!(rig.connection.is_idle());
}

#[test]
fn rfc9297_2_1_datagrams_have_a_stream() {
    let limits = Limits { streams: 10, datagrams: true, ..Limits::DEFAULT };
    let met = |bytes: &[u8]| {
        let mut rig = Rig::<Server>::new(limits);
        let whose = rig.connection.datagram(rig.now, bytes, &mut rig.out).map_err(|fault| fault.code);
        assert_eq!(whose.is_err(), rig.connection.is_finished());
        whose
    };
    let quarter = |quarter: u64| integer(quarter);
    for (section, bytes, expected) in [
        ("2.1: no stream", vec![], Err(ErrorCode::DATAGRAM_ERROR)),
        ("2.1: half of one", vec![0xc0, 0, 0], Err(ErrorCode::DATAGRAM_ERROR)),
        ("2.1: beyond all", quarter(1 << 60), Err(ErrorCode::DATAGRAM_ERROR)),
        ("2.1: beyond the limit", quarter(10), Err(ErrorCode::ID_ERROR)),
        ("2.1: the last that may come", quarter(9), Ok(Datagram::Nobodys)),
    ] {
        assert_eq!(met(&bytes), expected, "{section}");
    }
    // One that was opened raises the limit, and has no head yet.
    let mut rig = Rig::<Server>::new(limits);
    rig.connection.opened(rig.now, StreamId(8), &mut rig.out).unwrap();
    for of in [2, 12] {
        assert_eq!(rig.connection.datagram(rig.now, &quarter(of), &mut rig.out), Ok(Datagram::Nobodys));
    }
    assert!(!rig.connection.put_datagram_head(StreamId(8), &mut Vec::new()), "the client takes none");
}
