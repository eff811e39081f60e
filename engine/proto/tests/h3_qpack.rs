//! QPACK on a connection's streams (RFC 9204): what waits, what is told, and how each breach is met.

mod quic;

use proptest::prelude::*;
use proto::h3::{Abort, ErrorCode, Limits, StreamId};
use proto::http::{Framing, Method};
use quic::*;

const DECOMPRESSION: Met = Met::Connection(ErrorCode::QPACK_DECOMPRESSION_FAILED);
const ENCODER_ERROR: Met = Met::Connection(ErrorCode::QPACK_ENCODER_STREAM_ERROR);
const DECODER_ERROR: Met = Met::Connection(ErrorCode::QPACK_DECODER_STREAM_ERROR);

/// A request with lines that refer to what arrives; the base is behind what it needs.
fn referring(required: u64, lines: &[u8]) -> Vec<u8> {
    frame(HEADERS, &section_with(required % 256 + 1, lines))
}

/// Its section, with the Required Insert Count as it is coded.
fn section_with(coded: u64, more: &[u8]) -> Vec<u8> {
    [&prefixed(0, 8, coded)[..], &[0], &lines(GET), more].concat()
}

/// The first of the newest.
const NEWEST: &[u8] = &[0x80];

#[test]
fn rfc9204_2_1_2_a_section_waits_for_its_entries() {
    let mut rig = server();
    rig.feed(ENCODER, &table_size(4096), false).unwrap();
    // Two wait: for one entry, and for two.
    assert_eq!(rig.feed(0, &referring(1, NEWEST), true), Ok(vec![]));
    assert_eq!(rig.feed(4, &referring(2, &[0x80, 0x81]), true), Ok(vec![]));
    assert_eq!(rig.feed(4, b"", false), Ok(vec![]), "and waits still");
    // Others do not wait with them.
    assert!(!rig.feed(8, &headers(GET), true).unwrap().is_empty());
    let seen = rig.feed(ENCODER, &insert("x-a", "1"), false).unwrap();
    assert!(matches!(&seen[0], Seen::Head { stream: 0, text, .. } if text.ends_with("|x-a: 1||")), "{seen:?}");
    // Section Acknowledgment (§4.4.1); the entry needs no word of its own.
    assert_eq!(std::mem::take(&mut rig.out.decoder), [0x01, 0x80]);
    let seen = rig.feed(ENCODER, &insert("x-b", "2"), false).unwrap();
    assert!(matches!(&seen[0], Seen::Head { stream: 4, text, .. } if text.ends_with("|x-b: 2|x-a: 1||")), "{seen:?}");
    assert_eq!(std::mem::take(&mut rig.out.decoder), [0x01, 0x84]);
    // Whoever does not wait tells of the entries with the section.
    rig.feed(12, &referring(2, &[0x81]), true).unwrap();
    assert_eq!((rig.out.decoder.clone(), rig.blocked.clone()), (vec![0x8c], vec![]));
}

/// The count that a section needs is told modulo twice the entries that there can be (§4.5.1.1), so that the same bytes come to mean something else.
#[test]
fn what_is_said_again_is_read_anew_when_the_table_has_changed() {
    let mut rig = server();
    rig.feed(ENCODER, &[table_size(4096), insert("x-a", "0")].concat(), false).unwrap();
    let mut streams = (0..).step_by(4);
    for round in 1..=4 {
        for _ in 0..4 {
            let stream = streams.next().unwrap();
            let seen = rig.feed(stream, &referring(1, NEWEST), true).unwrap();
            let newest = format!("|x-a: {}||", (round - 1) * 256);
            assert!(matches!(&seen[0], Seen::Head { text, .. } if text.ends_with(&newest)), "{newest} {seen:?}");
            rig.connection.reset(StreamId(stream), ErrorCode::NO_ERROR, &mut rig.out);
            rig.out = proto::h3::Out::default();
        }
        let more: Vec<u8> = (1..=256).flat_map(|at| insert("x-a", &((round - 1) * 256 + at).to_string())).collect();
        rig.feed(ENCODER, &more, false).unwrap();
        rig.now += std::time::Duration::from_secs(10);
    }
}

#[test]
fn rfc9204_2_1_2_no_more_wait_than_may() {
    for (allowed, waiting) in [(0, 0), (1, 1), (16, 16)] {
        let mut rig = server_with(Limits { blocked_streams: allowed, ..Limits::DEFAULT });
        rig.feed(ENCODER, &table_size(4096), false).unwrap();
        for stream in 0..waiting {
            assert_eq!(met(&mut rig, 4 * stream, &referring(1, NEWEST), true), Met::Fine);
        }
        assert_eq!(met(&mut rig, 4 * waiting, &referring(1, NEWEST), true), DECOMPRESSION, "{allowed}");
    }
    // One that is given up makes room.
    let mut rig = server_with(Limits { blocked_streams: 1, ..Limits::DEFAULT });
    rig.feed(ENCODER, &table_size(4096), false).unwrap();
    for stream in [0, 4, 8] {
        rig.feed(stream, &referring(1, NEWEST), true).unwrap();
        let reset = rig.connection.peer_reset(rig.now, StreamId(stream), ErrorCode::REQUEST_CANCELLED, &mut rig.out);
        assert_eq!(reset, Ok(None));
        rig.blocked.clear();
    }
    // And its sections are said not to be read (§2.2.2.2).
    assert_eq!(rig.out.decoder, [0x40, 0x44, 0x48]);
}

#[test]
fn rfc9204_2_2_and_4_5_sections() {
    let post_base = [&[0x02, 0x80][..], &lines(GET), &[0x10]].concat();
    for (section, bytes, expected) in [
        ("4.5.1.1: beyond twice the entries", [&[0xff, 0x80, 0x01, 0][..], &lines(GET)].concat(), DECOMPRESSION),
        ("4.5.1.2: a Base below 0", [&[0x02, 0x81][..], &lines(GET)].concat(), DECOMPRESSION),
        ("4.5.1: cut off", vec![0], DECOMPRESSION),
        ("4.5.1: nothing at all", vec![], DECOMPRESSION),
        ("2.2.1: of an entry that was not needed", section_with(0, NEWEST), DECOMPRESSION),
        ("2.2.1: of one beyond those that were", section_with(2, &[0x11]), DECOMPRESSION),
        ("2.2.3: of none, before the first", section_with(2, &[0x81]), DECOMPRESSION),
        ("3.1: of no static entry", section_with(0, &prefixed(0xc0, 6, 99)), DECOMPRESSION),
        ("3.1: of no static name", section_with(0, &[prefixed(0x50, 4, 99), vec![0]].concat()), DECOMPRESSION),
        ("4.1.1: an integer without end", section_with(0, &[0xff; 12]), DECOMPRESSION),
        ("4.1.2: a string that is cut off", section_with(0, &[0x21, b'a', 0x05, b'b']), DECOMPRESSION),
        ("4.1.2: EOS", section_with(0, &[0x21, b'a', 0x84, 0xff, 0xff, 0xff, 0xff]), DECOMPRESSION),
        ("4.1.2: padding of zeros", section_with(0, &[0x21, b'a', 0x81, 0x00]), DECOMPRESSION),
        ("4.5.2: an index", section_with(2, NEWEST), Met::Fine),
        ("4.5.3: behind the base", post_base, Met::Fine),
        ("4.5.4: a name", section_with(2, &[0x40, 0x01, b'v']), Met::Fine),
        ("4.5.5: a name behind the base", [&[0x02, 0x80][..], &lines(GET), &[0x00, 0x01, b'v']].concat(), Met::Fine),
        ("4.5.6: a literal", section_with(0, &lines(&[("x", "y")])), Met::Fine),
    ] {
        let mut rig = server();
        rig.feed(ENCODER, &[table_size(4096), insert("x-a", "1")].concat(), false).unwrap();
        assert_eq!(met(&mut rig, 0, &frame(HEADERS, &bytes), true), expected, "{section}");
    }
    // Trailers are read by the same rules.
    let mut rig = server();
    let bytes = [headers(POST), frame(HEADERS, &section_with(0, NEWEST))].concat();
    assert_eq!(met(&mut rig, 0, &bytes, true), DECOMPRESSION);
}

#[test]
fn rfc9204_4_5_4_what_is_never_to_be_indexed_is_marked() {
    let mut rig = server();
    rig.feed(ENCODER, &[table_size(4096), insert("x-a", "1")].concat(), false).unwrap();
    let literals: [(&str, Vec<u8>); 6] = [
        ("x-a", vec![0x60, 1, b'2']),
        ("x-a", vec![0x40, 1, b'3']),
        ("server", [prefixed(0x70, 4, 92), vec![1, b'4']].concat()),
        ("server", [prefixed(0x50, 4, 92), vec![1, b'5']].concat()),
        ("k", vec![0x31, b'k', 1, b'6']),
        ("k", vec![0x21, b'k', 1, b'7']),
    ];
    let section = section_with(2, &literals.iter().flat_map(|(_, bytes)| bytes.clone()).collect::<Vec<_>>());
    rig.feed(0, &frame(HEADERS, &section), false).unwrap();
    let marked: Vec<bool> = rig.space.fields.iter().skip(1).map(|field| field.sensitive).collect();
    assert_eq!(marked, [true, false, true, false, true, false]);
}

#[test]
fn rfc9204_4_3_instructions() {
    let long = "x".repeat(4096);
    for (section, bytes, expected) in [
        ("3.2.3: more than we allow", table_size(4097), ENCODER_ERROR),
        ("3.2.3: less", table_size(100), Met::Fine),
        ("3.2.2: larger than the table", [table_size(40), insert("x-a", "123456")].concat(), ENCODER_ERROR),
        ("3.2.2: as large", [table_size(40), insert("x-a", "12345")].concat(), Met::Fine),
        (
            "3.2.2: by far, and not all of it here",
            [table_size(4096), vec![0x41, b'a'], prefixed(0, 7, 1 << 20)].concat(),
            ENCODER_ERROR,
        ),
        ("3.2.2: a long name", [table_size(4096), insert(&long, "")].concat(), ENCODER_ERROR),
        ("3.2.3: no table yet", insert("a", "b"), ENCODER_ERROR),
        (
            "4.3.2: the name of no static entry",
            [table_size(4096), prefixed(0xc0, 6, 99), vec![0]].concat(),
            ENCODER_ERROR,
        ),
        ("4.3.2: the name of no entry", [table_size(4096), vec![0x80, 0]].concat(), ENCODER_ERROR),
        ("4.3.2: of an entry", [table_size(4096), insert("a", "b"), vec![0x80, 0]].concat(), Met::Fine),
        ("4.3.4: a duplicate of none", [table_size(4096), vec![0x00]].concat(), ENCODER_ERROR),
        ("4.3.4: a duplicate", [table_size(4096), insert("a", "b"), vec![0x00]].concat(), Met::Fine),
        (
            "4.3.4: of one that is gone",
            [table_size(34), insert("a", "b"), insert("a", "c"), vec![0x01]].concat(),
            ENCODER_ERROR,
        ),
        ("4.1.1: an integer without end", vec![0x3f; 1].into_iter().chain([0xff; 12]).collect(), ENCODER_ERROR),
        ("4.1.2: EOS", [table_size(4096), vec![0x41, b'a', 0x84, 0xff, 0xff, 0xff, 0xff]].concat(), ENCODER_ERROR),
    ] {
        assert_eq!(met(&mut server(), ENCODER, &bytes, false), expected, "{section}");
    }
    // Where there is no table, nothing is put into it.
    let mut rig = server_with(Limits { header_table: 0, ..Limits::DEFAULT });
    assert_eq!(met(&mut rig, ENCODER, &table_size(1), false), ENCODER_ERROR);
    let mut rig = server_with(Limits { header_table: 0, ..Limits::DEFAULT });
    assert_eq!(met(&mut rig, 0, &referring(1, NEWEST), true), DECOMPRESSION);
}

#[test]
fn rfc9204_4_4_feedback() {
    let asked = |rounds: u64| {
        let mut rig = Rig::new(Limits::DEFAULT);
        rig.greet(&[(0x1, 4096), (0x7, 16)]);
        for round in 0..rounds {
            rig.send_request(4 * round, b"GET / HTTP/1.1\r\nhost: a\r\naccept: text/x\r\n\r\n", Framing::None).unwrap();
        }
        rig
    };
    for (section, bytes, expected) in [
        ("4.4.1: of no section", vec![0x80], DECODER_ERROR),
        ("4.4.1: of a stream that is none of ours", vec![0x81], DECODER_ERROR),
        ("4.4.2: of a section that refers to nothing", vec![0x40], Met::Fine),
        ("4.4.3: by nothing", vec![0x00], DECODER_ERROR),
        ("4.4.3: by more than there are", vec![0x03], DECODER_ERROR),
        ("4.4.3: by as many", vec![0x02], Met::Fine),
        ("4.4.3: and again", vec![0x02, 0x01], DECODER_ERROR),
        ("4.1.1: an integer without end", vec![0xff; 12], DECODER_ERROR),
    ] {
        // :authority and accept are said twice, and become entries.
        assert_eq!(met(&mut asked(2), DECODER, &bytes, false), expected, "{section}");
    }
    // A section that refers to them is acknowledged once.
    let mut rig = asked(2);
    rig.feed(DECODER, &[0x02], false).unwrap();
    rig.get(8, Method::Get);
    assert_eq!(met(&mut rig, DECODER, &[0x88], false), Met::Fine);
    assert_eq!(met(&mut rig, DECODER, &[0x88], false), DECODER_ERROR);
    // Nothing is said to a table that the peer does not have.
    let mut rig = Rig::new(Limits::DEFAULT);
    rig.greet(&[]);
    for stream in [0, 4, 8] {
        rig.get(stream, Method::Get);
    }
    assert!(rig.out.encoder.is_empty());
}

#[test]
fn what_nobody_acknowledges_is_not_given_up() {
    let mut rig = Rig::new(Limits::DEFAULT);
    rig.greet(&[(0x1, 1 << 30), (0x7, 0)]);
    let mut said = 0;
    for round in 0..2_000_u64 {
        let text = format!("GET / HTTP/1.1\r\nhost: a\r\naccept: {}\r\n\r\n", "x".repeat(round as usize / 2 % 700));
        rig.send_request(4 * round, text.as_bytes(), Framing::None).unwrap();
        rig.sent.clear();
        said = rig.out.encoder.len();
        rig.feed(4 * round, &headers(OK), true).unwrap();
    }
    // So what is said to a peer that does not read it is bounded by the table.
    assert!((1_000..5_000).contains(&said), "{said}");
    assert!(rig.connection.memory() < 32 * 1024);
}

#[test]
fn a_stream_that_is_refused_is_said_not_to_be_read() {
    let mut rig = server_with(Limits { streams: 1, ..Limits::DEFAULT });
    rig.feed(0, &headers(POST), false).unwrap();
    assert_eq!(rig.feed(4, &headers(GET), true), Ok(vec![]));
    assert_eq!(rig.out.decoder, [0x44]);
    let (stream, code) = (StreamId(4), ErrorCode::REQUEST_REJECTED);
    assert_eq!(rig.aborts(), [Abort::Reset { stream, code }, Abort::Stop { stream, code }]);
}

proptest! {
    /// A peer's encoder that does what it likes with its table, and sections that refer to it: read as they were written, in whatever
    /// pieces and however late the instructions come.
    #[test]
    fn sections_are_read_as_they_were_written(
        inserts in prop::collection::vec((0_u8..4, 0_u8..6, 0_usize..90), 1..40),
        seed: u64,
    ) {
        let mut entries: Vec<(String, String)> = Vec::new();
        let mut instructions = table_size(4096);
        for &(kind, name, length) in &inserts {
            let (name, value) = (format!("x-{name}"), "v".repeat(length));
            match (kind, entries.last().cloned()) {
                (0, Some((last, _))) => {
                    instructions.extend([prefixed(0x80, 6, 0), prefixed(0, 7, length as u64), value.clone().into()].concat());
                    entries.push((last, value));
                }
                (1, Some(last)) => {
                    instructions.extend(prefixed(0, 5, 0));
                    entries.push(last);
                }
                _ => {
                    instructions.extend(insert(&name, &value));
                    entries.push((name, value));
                }
            }
        }
        // Each section refers to the newest entry of some moment, and needs what there was until then.
        let mut rig = server();
        let wanted: Vec<usize> = (0..entries.len()).step_by(entries.len().div_ceil(16)).collect();
        for (at, &place) in wanted.iter().enumerate() {
            let bytes = referring(place as u64 + 1, NEWEST);
            for piece in cut(&bytes, seed ^ at as u64) {
                rig.feed(4 * at as u64, piece, false).unwrap();
            }
        }
        prop_assert_eq!(rig.blocked.len(), wanted.len());
        for piece in cut(&instructions, seed) {
            rig.feed(ENCODER, piece, false).unwrap();
        }
        prop_assert_eq!(rig.blocked.len(), 0);
        for (at, &place) in wanted.iter().enumerate() {
            let (name, value) = &entries[place];
            let ends = format!("|{name}: {value}||");
            let found = rig.story.iter().any(|seen| {
                matches!(seen, Seen::Head { stream, text, .. } if *stream == 4 * at as u64 && text.ends_with(&ends))
            });
            prop_assert!(found, "{} {:?}", ends, rig.story);
        }
    }
}
