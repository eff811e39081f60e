//! §6: each type of frame by its own rules.

use harness::h2::code::{FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, PROTOCOL_ERROR};
use harness::h2::flag::{ACK, END_HEADERS, END_STREAM, PADDED};
use harness::h2::{Trial, asking, data, flag, frame, headers, kind, post, reset, setting, settings, window_update};
use harness::hpack::block;

use crate::{priority, slow};

pub(crate) fn data_and_headers() -> Vec<Trial> {
    let get = |flags, said: &[&[u8]]| frame(kind::HEADERS, flags | END_HEADERS | END_STREAM, 1, said.concat());
    let fields = block(&asking("GET", "/"));
    let padded = |payload: &[u8]| [post(1, "/echo"), frame(kind::DATA, PADDED | END_STREAM, 1, payload)].concat();
    vec![
        Trial::connection("6.1: DATA on stream 0", data(0, "x", true), PROTOCOL_ERROR),
        Trial::connection("6.1: padding as long as its frame", padded(&[3, 0, 0]), PROTOCOL_ERROR),
        Trial::connection("6.1: padding far longer than its frame", padded(&[255]), PROTOCOL_ERROR),
        Trial::connection("6.1: no room for the padding's length", padded(&[]), FRAME_SIZE_ERROR).or(PROTOCOL_ERROR),
        Trial::answer("6.1: nothing but padding", padded(&[2, 0, 0]), 200),
        Trial::answer("6.1: padding of no length", padded(&[0, b'x']), 200),
        Trial::connection("6.2: HEADERS on stream 0", headers(0, &asking("GET", "/"), true), PROTOCOL_ERROR),
        Trial::connection("6.2: padding longer than its frame", get(PADDED, &[&[200], &fields]), PROTOCOL_ERROR),
        Trial::connection(
            "6.2: padding that reaches into the priority",
            get(PADDED | flag::PRIORITY, &[&[4, 0, 0, 0, 0, 15, 0, 0, 0]]),
            PROTOCOL_ERROR,
        ),
        Trial::connection("6.2: no room for the padding's length", get(PADDED, &[]), FRAME_SIZE_ERROR)
            .or(PROTOCOL_ERROR),
        Trial::connection("6.2: no room for the priority", get(flag::PRIORITY, &[&[0; 4]]), FRAME_SIZE_ERROR),
        Trial::answer(
            "6.2: padding and priority are passed over",
            get(PADDED | flag::PRIORITY, &[&[2, 0, 0, 0, 0, 15], &fields, &[0, 0]]),
            200,
        ),
        Trial::connection(
            "RFC 7540 5.3.1: a stream that depends on itself",
            get(flag::PRIORITY, &[&[0, 0, 0, 1, 15], &fields]),
            PROTOCOL_ERROR,
        ),
        Trial::connection(
            "RFC 7540 5.3.1: so it is if it alone may, and behind padding",
            get(PADDED | flag::PRIORITY, &[&[0, 0x80, 0, 0, 1, 15], &fields]),
            PROTOCOL_ERROR,
        ),
        Trial::answer(
            "5.3.2: whom else a stream depends on is of no interest any more",
            get(flag::PRIORITY, &[&[0, 0, 0, 99, 15], &fields]),
            200,
        ),
    ]
}

pub(crate) fn priorities_and_resets() -> Vec<Trial> {
    vec![
        Trial::connection("6.3: PRIORITY on stream 0", priority(0, 0), PROTOCOL_ERROR),
        Trial::stream(
            "6.3: PRIORITY of four bytes",
            [slow(1), frame(kind::PRIORITY, 0, 1, [0; 4])].concat(),
            FRAME_SIZE_ERROR,
        ),
        Trial::stream(
            "6.3: PRIORITY of six bytes",
            [slow(1), frame(kind::PRIORITY, 0, 1, [0; 6])].concat(),
            FRAME_SIZE_ERROR,
        ),
        Trial::connection("RFC 7540 5.3.1: PRIORITY that depends on itself", priority(1, 1), PROTOCOL_ERROR),
        Trial::connection("RFC 7540 5.3.1: on an open stream, too", [slow(1), priority(1, 1)].concat(), PROTOCOL_ERROR),
        Trial::nothing("5.3.2: PRIORITY that depends on any other", [priority(1, 3), priority(3, 1)].concat()),
        Trial::connection("6.4: RST_STREAM on stream 0", reset(0, 8), PROTOCOL_ERROR),
        Trial::connection(
            "6.4: RST_STREAM of three bytes",
            [slow(1), frame(kind::RST_STREAM, 0, 1, [0; 3])].concat(),
            FRAME_SIZE_ERROR,
        ),
        Trial::connection(
            "6.4: RST_STREAM of five bytes",
            [slow(1), frame(kind::RST_STREAM, 0, 1, [0; 5])].concat(),
            FRAME_SIZE_ERROR,
        ),
        Trial::nothing("7: codes that nobody registered", [slow(1), reset(1, 0xdead_beef)].concat()),
    ]
}

pub(crate) fn continuations() -> Vec<Trial> {
    let fields = block(&asking("GET", "/"));
    let (first, rest) = fields.split_at(20);
    let next = |flags, piece: &[u8]| frame(kind::CONTINUATION, flags, 1, piece);
    let begun = frame(kind::HEADERS, END_STREAM, 1, first);
    let parted = |pieces: &[Vec<u8>]| [std::slice::from_ref(&begun), pieces].concat().concat();
    let trailers = [post(1, "/echo"), data(1, "x", false), frame(kind::HEADERS, END_STREAM, 1, [])].concat();
    vec![
        Trial::answer("6.10: a block in two frames", parted(&[next(END_HEADERS, rest)]), 200),
        Trial::answer(
            "6.10: a block in four, of which two are empty",
            parted(&[next(0, b""), next(0, rest), next(END_HEADERS, b"")]),
            200,
        ),
        Trial::answer(
            "6.10: a block that begins in CONTINUATION",
            [frame(kind::HEADERS, END_STREAM, 1, []), next(END_HEADERS, &fields)].concat(),
            200,
        ),
        Trial::answer(
            "6.10: trailers in two frames",
            [trailers, next(END_HEADERS, &block(&[("x-a", "b")]))].concat(),
            200,
        ),
        Trial::connection(
            "6.10: CONTINUATION on stream 0",
            [begun.clone(), frame(kind::CONTINUATION, END_HEADERS, 0, rest)].concat(),
            PROTOCOL_ERROR,
        ),
        Trial::connection(
            "6.10: CONTINUATION behind a whole block",
            [slow(1), next(END_HEADERS, b"")].concat(),
            PROTOCOL_ERROR,
        ),
        Trial::connection(
            "6.10: CONTINUATION behind the end of a block",
            parted(&[next(END_HEADERS, rest), next(END_HEADERS, b"")]),
            PROTOCOL_ERROR,
        ),
        Trial::connection(
            "6.10: CONTINUATION behind DATA",
            [post(1, "/echo"), data(1, "x", false), next(END_HEADERS, b"")].concat(),
            PROTOCOL_ERROR,
        ),
    ]
}

pub(crate) fn settings_rows() -> Vec<Trial> {
    let value = |rule, id, value, code| Trial::connection(rule, settings(&[(id, value)]), code);
    vec![
        Trial::connection("6.5: SETTINGS on a stream", frame(kind::SETTINGS, 0, 1, []), PROTOCOL_ERROR),
        Trial::connection("6.5: an acknowledgement on a stream", frame(kind::SETTINGS, ACK, 1, []), PROTOCOL_ERROR),
        Trial::connection(
            "6.5: an acknowledgement that says more",
            frame(kind::SETTINGS, ACK, 0, [0; 6]),
            FRAME_SIZE_ERROR,
        ),
        Trial::connection("6.5: no multiple of six", frame(kind::SETTINGS, 0, 0, [0, 3, 0, 0, 0]), FRAME_SIZE_ERROR),
        value("6.5.2: ENABLE_PUSH of 2", setting::ENABLE_PUSH, 2, PROTOCOL_ERROR),
        value("6.5.2: INITIAL_WINDOW_SIZE of 2^31", setting::INITIAL_WINDOW_SIZE, 1 << 31, FLOW_CONTROL_ERROR),
        value("6.5.2: MAX_FRAME_SIZE below 2^14", setting::MAX_FRAME_SIZE, (1 << 14) - 1, PROTOCOL_ERROR),
        value("6.5.2: MAX_FRAME_SIZE of 2^24", setting::MAX_FRAME_SIZE, 1 << 24, PROTOCOL_ERROR),
        value("RFC 9218 2.1: NO_RFC7540_PRIORITIES of 2", setting::NO_RFC7540_PRIORITIES, 2, PROTOCOL_ERROR),
        value("RFC 9218 2.1: NO_RFC7540_PRIORITIES that changes", setting::NO_RFC7540_PRIORITIES, 1, PROTOCOL_ERROR),
        value("RFC 8441 3: ENABLE_CONNECT_PROTOCOL of 2", setting::ENABLE_CONNECT_PROTOCOL, 2, PROTOCOL_ERROR),
        Trial::nothing("6.5.2: unknown settings are ignored", settings(&[(0xfafa, 1), (0, u32::MAX)])),
        Trial::nothing(
            "6.5.2: every value in its range",
            settings(&[(1, 0), (2, 0), (3, 0), (4, 0x7fff_ffff), (5, (1 << 24) - 1), (6, 0), (1, u32::MAX)]),
        ),
        Trial::nothing(
            "6.5.3: acknowledgements of nothing",
            [frame(kind::SETTINGS, ACK, 0, []), frame(kind::SETTINGS, ACK, 0, [])].concat(),
        ),
        Trial::connection(
            "6.6: PUSH_PROMISE by a client",
            [
                slow(1),
                frame(kind::PUSH_PROMISE, END_HEADERS, 1, [&[0, 0, 0, 2][..], &block(&asking("GET", "/"))].concat()),
            ]
            .concat(),
            PROTOCOL_ERROR,
        ),
        Trial::connection(
            "6.6: PUSH_PROMISE on stream 0",
            frame(kind::PUSH_PROMISE, END_HEADERS, 0, [0, 0, 0, 2]),
            PROTOCOL_ERROR,
        ),
    ]
}

pub(crate) fn pings_and_goaways() -> Vec<Trial> {
    vec![
        Trial::connection("6.7: PING on a stream", frame(kind::PING, 0, 1, [0; 8]), PROTOCOL_ERROR),
        Trial::connection("6.7: PING of seven bytes", frame(kind::PING, 0, 0, [0; 7]), FRAME_SIZE_ERROR),
        Trial::connection("6.7: PING of nine bytes", frame(kind::PING, 0, 0, [0; 9]), FRAME_SIZE_ERROR),
        Trial::connection("6.7: PING of none", frame(kind::PING, ACK, 0, []), FRAME_SIZE_ERROR),
        Trial::nothing("6.7: an answer that nobody asked for", frame(kind::PING, ACK, 0, [9; 8])),
        Trial::connection("6.8: GOAWAY on a stream", frame(kind::GOAWAY, 0, 1, [0; 8]), PROTOCOL_ERROR),
        Trial::connection("6.8: GOAWAY of seven bytes", frame(kind::GOAWAY, 0, 0, [0; 7]), FRAME_SIZE_ERROR),
    ]
}

pub(crate) fn window_updates() -> Vec<Trial> {
    let most = 0x7fff_ffff;
    let length = |stream, length| frame(kind::WINDOW_UPDATE, 0, stream, vec![1; length]);
    vec![
        Trial::connection("6.9: by nothing, on the connection", window_update(0, 0), PROTOCOL_ERROR),
        Trial::stream("6.9: by nothing, on a stream", [slow(1), window_update(1, 0)].concat(), PROTOCOL_ERROR),
        Trial::stream("6.9: the reserved bit is none", [slow(1), window_update(1, 1 << 31)].concat(), PROTOCOL_ERROR),
        Trial::connection("6.9: WINDOW_UPDATE of three bytes", length(0, 3), FRAME_SIZE_ERROR),
        Trial::connection("6.9: WINDOW_UPDATE of five bytes", [slow(1), length(1, 5)].concat(), FRAME_SIZE_ERROR),
        Trial::connection("6.9.1: beyond 2^31-1 on the connection", window_update(0, most), FLOW_CONTROL_ERROR),
        Trial::connection(
            "6.9.1: beyond it in steps",
            [window_update(0, most - 65_535), window_update(0, 1)].concat(),
            FLOW_CONTROL_ERROR,
        ),
        Trial::stream("6.9.1: beyond it on a stream", [slow(1), window_update(1, most)].concat(), FLOW_CONTROL_ERROR),
        Trial::answer("6.9.1: up to it on a stream", [slow(1), window_update(1, most - 65_535)].concat(), 200),
        Trial::connection(
            "6.9.2: beyond it by SETTINGS",
            [slow(1), window_update(1, most - 65_535), settings(&[(setting::INITIAL_WINDOW_SIZE, 65_536)])].concat(),
            FLOW_CONTROL_ERROR,
        ),
    ]
}
