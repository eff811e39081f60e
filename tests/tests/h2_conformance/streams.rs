//! §4, §5, §6.10's interleaving: frames as such, blocks, states and identifiers.

use harness::h2::code::{COMPRESSION_ERROR, FRAME_SIZE_ERROR, PROTOCOL_ERROR, STREAM_CLOSED};
use harness::h2::flag::{END_HEADERS, END_STREAM};
use harness::h2::{Trial, asking, data, frame, get, headers, kind, ping, post, reset, settings, window_update};
use harness::hpack::{block, integer, literal};

use crate::{priority, slow, unfinished, with_block};

pub(crate) fn frames() -> Vec<Trial> {
    let reserved = 1 << 31;
    vec![
        Trial::nothing("4.1: frames of unknown types are ignored", frame(0xfa, 0xff, 0, [0; 100])),
        Trial::nothing("4.1: on streams that nobody opened, too", frame(0xfa, 0, 7, [0; 16_384])),
        Trial::answer(
            "4.1: between the frames of a message, too",
            [post(1, "/echo"), frame(0xfa, 1, 1, [0; 9]), data(1, "x", true)].concat(),
            200,
        ),
        Trial::answer(
            "4.1: flags that mean nothing are ignored",
            frame(kind::HEADERS, 0xd2 | END_HEADERS | END_STREAM, 1, block(&asking("GET", "/"))),
            200,
        ),
        Trial::answer("4.1: the reserved bit is ignored", get(1 | reserved, "/"), 200),
        Trial::nothing("4.1: so it is on stream 0", frame(kind::PING, 0, reserved, [0; 8])),
        Trial::answer("4.2: 16,384 bytes are taken", [post(1, "/echo"), data(1, [b'x'; 16_384], true)].concat(), 200),
        Trial::stream(
            "4.2: more are not",
            [post(1, "/echo"), data(1, [b'x'; 16_385], true)].concat(),
            FRAME_SIZE_ERROR,
        )
        .or_connection(),
        Trial::connection(
            "4.2: nor in HEADERS",
            frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, [0; 16_385]),
            FRAME_SIZE_ERROR,
        ),
        Trial::connection(
            "4.2: nor in CONTINUATION",
            [unfinished(1), frame(kind::CONTINUATION, END_HEADERS, 1, [0; 16_385])].concat(),
            FRAME_SIZE_ERROR,
        ),
        Trial::connection("4.2: nor in SETTINGS", frame(kind::SETTINGS, 0, 0, [0; 16_386]), FRAME_SIZE_ERROR),
        Trial::connection("4.2: nor in GOAWAY", frame(kind::GOAWAY, 0, 0, [0; 16_385]), FRAME_SIZE_ERROR),
        Trial::connection("4.2: nor where the type is unknown", frame(0xfa, 0, 0, [0; 16_385]), FRAME_SIZE_ERROR),
    ]
}

pub(crate) fn blocks() -> Vec<Trial> {
    let broken = |rule, more: &[u8]| Trial::connection(rule, with_block(1, more), COMPRESSION_ERROR);
    let long = literal(b"x-a", b"0123456789");
    let mut end_of_string = literal(b"x-b", &[0xff; 4]);
    let length = end_of_string.len() - 5;
    end_of_string[length] |= 0x80;
    let huffman = |coded: &[u8]| [&[0, 1, b'a'][..], &integer(0x80, 7, coded.len()), coded].concat();
    vec![
        broken("4.3, RFC 7541 6.1: index 0", &[0x80]),
        broken("4.3, RFC 7541 2.3.3: an index that nobody filled", &[0x80 | 62]),
        broken("4.3, RFC 7541 2.3.3: a name's index that nobody filled", &[0x40 | 62, 1, b'a']),
        broken(
            "4.3, RFC 7541 5.1: an integer without end",
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
        ),
        broken("4.3, RFC 7541 5.1: an integer that is cut off", &[0xff, 0x80]),
        broken("4.3, RFC 7541 5.2: a string that is cut off", &long[..long.len() - 1]),
        broken("4.3, RFC 7541 5.2: no string at all", &[0x00]),
        broken("4.3, RFC 7541 5.2: the end of a string in a string", &end_of_string),
        broken("4.3, RFC 7541 5.2: padding of more than seven bits", &huffman(&[0x1f, 0xff])),
        broken("4.3, RFC 7541 5.2: padding that is not of ones", &huffman(&[0x18])),
        broken("4.3, RFC 7541 4.2: a table size update behind a field", &[0x20]),
        Trial::connection(
            "4.3, RFC 7541 6.3: a table larger than was allowed",
            frame(
                kind::HEADERS,
                END_HEADERS | END_STREAM,
                1,
                [integer(0x20, 5, 4097), block(&asking("GET", "/"))].concat(),
            ),
            COMPRESSION_ERROR,
        ),
        Trial::answer(
            "RFC 7541 4.2: two table size updates at the front",
            frame(
                kind::HEADERS,
                END_HEADERS | END_STREAM,
                1,
                [integer(0x20, 5, 0), integer(0x20, 5, 4096), block(&asking("GET", "/"))].concat(),
            ),
            200,
        ),
        Trial::answer("RFC 7541 5.2: Huffman codes are read", with_block(1, &huffman(&[0x1f])), 200),
        Trial::connection(
            "4.3: trailers that cannot be read",
            [post(1, "/echo"), frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, [0x80])].concat(),
            COMPRESSION_ERROR,
        ),
        Trial::connection(
            "4.3: nor can those of a stream that was reset",
            [post(1, "/echo"), reset(1, 8), frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, [0x80])].concat(),
            COMPRESSION_ERROR,
        )
        .or(STREAM_CLOSED),
    ]
}

pub(crate) fn interleaved() -> Vec<Trial> {
    let within = |rule, other: Vec<u8>| Trial::connection(rule, [unfinished(1), other].concat(), PROTOCOL_ERROR);
    vec![
        within("4.3, 6.2: HEADERS of another stream within a block", get(3, "/")),
        within("4.3, 6.2: HEADERS of the same stream within a block", get(1, "/")),
        within("4.3: DATA within a block", data(1, "x", true)),
        within("4.3: PRIORITY within a block", priority(3, 0)),
        within("4.3: RST_STREAM within a block", reset(1, 8)),
        within("4.3: SETTINGS within a block", settings(&[])),
        within("4.3: PING within a block", ping([0; 8])),
        within("4.3: GOAWAY within a block", frame(kind::GOAWAY, 0, 0, [0; 8])),
        within("4.3: WINDOW_UPDATE within a block", window_update(0, 1)),
        within("4.3, 5.5: a frame of unknown type within a block", frame(0xfa, 0, 1, [])),
        within("6.10: CONTINUATION of another stream within a block", frame(kind::CONTINUATION, END_HEADERS, 3, [])),
        Trial::connection(
            "6.10: the same behind a CONTINUATION",
            [unfinished(1), frame(kind::CONTINUATION, 0, 1, []), ping([0; 8])].concat(),
            PROTOCOL_ERROR,
        ),
    ]
}

pub(crate) fn idle_streams() -> Vec<Trial> {
    vec![
        Trial::connection("5.1: DATA on an idle stream", data(1, "x", true), PROTOCOL_ERROR),
        Trial::connection("5.1: RST_STREAM on an idle stream", reset(1, 8), PROTOCOL_ERROR),
        Trial::connection("5.1: WINDOW_UPDATE on an idle stream", window_update(1, 100), PROTOCOL_ERROR),
        Trial::connection(
            "5.1, 6.10: CONTINUATION on an idle stream",
            frame(kind::CONTINUATION, END_HEADERS, 1, []),
            PROTOCOL_ERROR,
        ),
        Trial::connection("5.1: WINDOW_UPDATE on a stream of the server's", window_update(2, 100), PROTOCOL_ERROR),
        Trial::connection("5.1: DATA on a stream of the server's", data(2, "x", true), PROTOCOL_ERROR),
        Trial::answer(
            "5.1: PRIORITY on an idle stream, which may be opened then",
            [priority(1, 0), get(1, "/")].concat(),
            200,
        ),
        Trial::answer(
            "5.1: PRIORITY does not open one, and closes none below",
            [priority(9, 0), get(1, "/")].concat(),
            200,
        ),
    ]
}

pub(crate) fn half_closed_streams() -> Vec<Trial> {
    vec![
        Trial::stream("5.1: DATA on a half-closed stream", [slow(1), data(1, "x", true)].concat(), STREAM_CLOSED),
        Trial::stream(
            "5.1: HEADERS on a half-closed stream",
            [slow(1), headers(1, &asking("GET", "/"), true)].concat(),
            STREAM_CLOSED,
        ),
        Trial::stream(
            "5.1: trailers on a half-closed stream",
            [slow(1), headers(1, &[("x-a", "b")], true)].concat(),
            STREAM_CLOSED,
        ),
        Trial::stream(
            "5.1: so it is after content",
            [post(1, "/slow/300"), data(1, "x", true), data(1, "x", false)].concat(),
            STREAM_CLOSED,
        ),
        Trial::connection(
            "5.1, 6.10: CONTINUATION on a half-closed stream",
            [slow(1), frame(kind::CONTINUATION, END_HEADERS, 1, [])].concat(),
            PROTOCOL_ERROR,
        ),
        Trial::answer(
            "5.1: WINDOW_UPDATE and PRIORITY on a half-closed stream",
            [slow(1), window_update(1, 9), priority(1, 0)].concat(),
            200,
        ),
        Trial::nothing("5.1: RST_STREAM on a half-closed stream", [slow(1), reset(1, 8)].concat()),
    ]
}

pub(crate) fn closed_streams() -> Vec<Trial> {
    let closed = |rule, said: Vec<u8>| Trial::stream(rule, said, STREAM_CLOSED).or_connection();
    vec![
        closed("5.1: DATA on a stream that its client has reset", [slow(1), reset(1, 8), data(1, "x", true)].concat()),
        closed("5.1: HEADERS on a stream that its client has reset", [slow(1), reset(1, 8), get(1, "/")].concat()),
        closed(
            "5.1: DATA on an open one that its client has reset",
            [post(1, "/echo"), reset(1, 8), data(1, "x", true)].concat(),
        ),
        closed("5.1: DATA on a closed stream", data(1, "x", true)).after_an_answer(),
        Trial::connection("5.1: HEADERS on a closed stream", get(1, "/"), STREAM_CLOSED).after_an_answer(),
        Trial::connection("5.1: trailers on a closed stream", headers(1, &[("x-a", "b")], true), STREAM_CLOSED)
            .after_an_answer(),
        Trial::connection(
            "5.1, 6.10: CONTINUATION on a closed stream",
            frame(kind::CONTINUATION, END_HEADERS, 1, []),
            PROTOCOL_ERROR,
        )
        .or(STREAM_CLOSED)
        .after_an_answer(),
        Trial::nothing(
            "5.1: WINDOW_UPDATE, RST_STREAM and PRIORITY on a closed stream",
            [window_update(1, 9), reset(1, 8), priority(1, 0)].concat(),
        )
        .after_an_answer(),
        Trial::nothing(
            "5.1: on one that its client has reset, too",
            [slow(1), reset(1, 8), window_update(1, 9), reset(1, 8), priority(1, 0)].concat(),
        ),
        Trial::nothing(
            "5.4.2: RST_STREAM is not answered with RST_STREAM",
            [slow(1), reset(1, 8), reset(1, 0xffff)].concat(),
        ),
    ]
}

pub(crate) fn identifiers() -> Vec<Trial> {
    vec![
        Trial::connection("5.1.1: HEADERS on a stream of the server's", get(2, "/"), PROTOCOL_ERROR),
        Trial::connection("5.1.1: a stream below one that was opened", [slow(5), get(3, "/")].concat(), PROTOCOL_ERROR),
        Trial::stream(
            "5.1.1: DATA on a stream that was passed over",
            [slow(5), data(3, "x", true)].concat(),
            STREAM_CLOSED,
        )
        .on(3)
        .or(PROTOCOL_ERROR)
        .or_connection(),
        Trial::answer("5.1.1: streams may be passed over", get(99, "/"), 200).on(99),
    ]
}
