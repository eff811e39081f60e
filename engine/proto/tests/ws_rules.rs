//! What RFC 6455 §5 and §7.4 demand of those who send, and RFC 7692 §6, section by section.

mod frames;

use frames::*;
use proto::h1::{FixedSink, Refused};
use proto::ws::{
    CONTROL_FRAME_BYTES_MAX, CloseCode, Echo, Event, Inspector, Kind, Message, REASON_BYTES_MAX, Rules, Sender,
    Violation, put_close, put_ping, put_pong,
};

/// Frames: first byte and payload of each.
type Frames<'a> = &'a [(u8, &'a [u8])];

/// What a head was refused for, and with how many of its bytes.
type Refusal = Option<(Violation, usize)>;

const SENDERS: [Sender; 2] = [Sender::Client, Sender::Server];

const fn message(kind: Kind, bytes: u64, frames: u32) -> Message {
    Message { kind, compressed: false, bytes, frames }
}

/// The story of frames from either side, which must be the same, and the same in single bytes.
fn told(change: impl Fn(Rules) -> Rules, sent: Frames<'_>) -> Result<Vec<Event>, Violation> {
    let stories = SENDERS.map(|sender| {
        let stream: Vec<u8> = sent.iter().flat_map(|(first, payload)| frame(sender, *first, payload)).collect();
        let rules = change(Rules::new(sender));
        let whole = inspect(rules, &[&stream]);
        assert_eq!(inspect(rules, &stream.chunks(1).collect::<Vec<_>>()), whole, "byte by byte");
        let last = sent.last().map_or(0, |(first, payload)| frame(sender, *first, payload).len());
        let sound = stream.len() - if whole.violation.is_some() { last } else { 0 };
        assert_eq!(whole.sound, sound, "the frames that ended before");
        whole
    });
    let [client, server] = &stories;
    assert_eq!((client.events(), client.violation), (server.events(), server.violation));
    client.violation.map_or_else(|| Ok(client.events()), Err)
}

/// The verdict on frames, under the protocol's own rules and with text looked at.
fn verdict(sent: Frames<'_>) -> Option<Violation> {
    told(|rules| Rules { utf8: true, ..rules }, sent).err()
}

/// The verdict on a head that nothing follows.
fn head(sender: Sender, bytes: &[u8]) -> Refusal {
    let mut inspector = Inspector::new(Rules::new(sender));
    let found = bytes.iter().enumerate().find_map(|(at, &byte)| Some((inspector.read(&[byte]).err()?, at + 1)));
    assert_eq!(Inspector::new(Rules::new(sender)).read(bytes).err(), found.map(|(violation, _)| violation));
    found
}

#[test]
fn rfc6455_5_1_clients_mask_and_servers_do_not() {
    assert_eq!(head(Sender::Client, &[FIN | TEXT, 0]), Some((Violation::Unmasked, 2)));
    assert_eq!(head(Sender::Server, &[FIN | TEXT, 0x80]), Some((Violation::Masked, 2)));
    assert_eq!(head(Sender::Client, &[PING, 0]), Some((Violation::Unmasked, 2)));
    assert_eq!(head(Sender::Server, &[PING, 0x80]), Some((Violation::Masked, 2)));
    assert_eq!(head(Sender::Client, &[FIN | TEXT, 0x80, 0, 0, 0, 0]), None);
    assert_eq!(head(Sender::Server, &[FIN | TEXT, 0]), None);
    assert_eq!(Violation::Unmasked.close_code(), CloseCode::PROTOCOL_ERROR, "\"may send a Close with 1002\"");
    assert_eq!(Violation::Masked.close_code(), CloseCode::PROTOCOL_ERROR);
}

#[test]
fn rfc6455_5_2_reserved_bits() {
    for sender in SENDERS {
        for bit in [0x40, 0x20, 0x10] {
            for first in [FIN | TEXT, BINARY, PING, CLOSE] {
                assert_eq!(head(sender, &[first | bit]), Some((Violation::ReservedBit, 1)), "{first:#x} | {bit:#x}");
            }
        }
    }
}

#[test]
fn rfc6455_5_2_reserved_opcodes() {
    for sender in SENDERS {
        for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xb, 0xc, 0xd, 0xe, 0xf] {
            assert_eq!(head(sender, &[FIN | opcode]), Some((Violation::ReservedOpcode, 1)), "{opcode:#x}");
        }
    }
}

#[test]
fn rfc6455_5_2_lengths_are_minimal_and_of_63_bits() {
    const FIRST: u8 = FIN | BINARY;
    let long = |length: u64| [&[FIRST, 127][..], &length.to_be_bytes()].concat();
    let short = |length: u16| [&[FIRST, 126][..], &length.to_be_bytes()].concat();
    let table: [(Vec<u8>, Refusal); 10] = [
        (vec![FIRST, 125], None),
        (short(0), Some((Violation::LengthNotMinimal, 4))),
        (short(125), Some((Violation::LengthNotMinimal, 4))),
        (short(126), None),
        (short(u16::MAX), None),
        (long(0), Some((Violation::LengthNotMinimal, 10))),
        (long(65_535), Some((Violation::LengthNotMinimal, 10))),
        (long(65_536), None),
        (long(i64::MAX as u64), None),
        (long(1 << 63), Some((Violation::LengthTooLarge, 10))),
    ];
    for (bytes, expected) in table {
        assert_eq!(head(Sender::Server, &bytes), expected, "{bytes:x?}");
        let mut masked = bytes.clone();
        masked[1] |= 0x80;
        assert_eq!(head(Sender::Client, &masked), expected, "{masked:x?}");
    }
}

#[test]
fn rfc6455_5_3_payload_is_what_it_is_behind_its_mask() {
    for key in [[0; 4], [0xff; 4], [1, 2, 3, 4]] {
        let stream = [framed(FIN | TEXT, "π ≈ 3".as_bytes(), Some(key)), framed(PONG, b"12345678", Some(key))].concat();
        let story = inspect(Rules { utf8: true, ..Rules::new(Sender::Client) }, &[&stream]);
        let pong = Event::Pong(Echo { length: 8, start: *b"12345678" });
        assert_eq!(story.events()[1..], [Event::End(message(Kind::Text, 8, 1)), pong]);
    }
}

#[test]
fn rfc6455_5_4_fragments() {
    let (begin, end) =
        (Event::Begin(message(Kind::Binary, 0, 0)), |bytes, frames| Event::End(message(Kind::Binary, bytes, frames)));
    let ping = Event::Ping(Echo { length: 0, start: [0; 8] });
    let table: &[(Frames<'_>, Result<Vec<Event>, Violation>)] = &[
        (&[(FIN | BINARY, b"abc")], Ok(vec![begin, end(3, 1)])),
        (&[(FIN | BINARY, b"")], Ok(vec![begin, end(0, 1)])),
        (&[(BINARY, b"ab"), (FIN, b"c")], Ok(vec![begin, Event::Fragment, end(3, 2)])),
        (
            &[(BINARY, b""), (CONTINUATION, b""), (CONTINUATION, b"abc"), (FIN, b"")],
            Ok(vec![begin, Event::Fragment, Event::Fragment, Event::Fragment, end(3, 4)]),
        ),
        // Control frames may stand between fragments, and interrupt nothing.
        (
            &[(BINARY, b"ab"), (PING, b""), (CONTINUATION, b""), (PING, b""), (FIN, b"c")],
            Ok(vec![begin, Event::Fragment, ping, Event::Fragment, ping, end(3, 3)]),
        ),
        (&[(BINARY, b"ab"), (FIN, b"c"), (FIN, b"")], Err(Violation::NothingToContinue)),
        (&[(FIN | BINARY, b"ab"), (CONTINUATION, b"c")], Err(Violation::NothingToContinue)),
        (&[(FIN, b"c")], Err(Violation::NothingToContinue)),
        (&[(CONTINUATION, b"c")], Err(Violation::NothingToContinue)),
        (&[(BINARY, b"ab"), (FIN | BINARY, b"c")], Err(Violation::Interleaved)),
        (&[(BINARY, b"ab"), (PING, b""), (TEXT, b"c")], Err(Violation::Interleaved)),
    ];
    for (sent, expected) in table {
        assert_eq!(told(|rules| rules, sent), *expected, "{sent:x?}");
    }
}

#[test]
fn rfc6455_5_5_control_frames_are_short_and_whole() {
    for sender in SENDERS {
        let mask = if sender == Sender::Client { 0x80 } else { 0 };
        for first in [CLOSE, PING, PONG] {
            assert_eq!(head(sender, &[first & !FIN]), Some((Violation::ControlFragmented, 1)), "{first:#x}");
            assert_eq!(head(sender, &[first, mask | 126]), Some((Violation::ControlTooLong, 2)), "{first:#x}");
            assert_eq!(head(sender, &[first, mask | 127]), Some((Violation::ControlTooLong, 2)), "{first:#x}");
            assert_eq!(head(sender, &[first, mask | 125]), None, "{first:#x}");
        }
    }
}

#[test]
fn rfc6455_5_5_1_and_7_1_5_a_close_may_give_a_code_and_a_reason() {
    let longest = [&1000_u16.to_be_bytes()[..], "ü".repeat(61).as_bytes(), b"!"].concat();
    let table: [(&[u8], CloseCode, &str); 4] = [
        (b"", CloseCode::NO_STATUS, ""),
        (b"\x03\xe9", CloseCode::GOING_AWAY, ""),
        (b"\x0f\xa0see \xc3\xbcber", CloseCode(4000), "see über"),
        (&longest, CloseCode::NORMAL, &("ü".repeat(61) + "!")),
    ];
    for (body, code, reason) in table {
        assert_eq!(told(|rules| rules, &[(CLOSE, body)]), Ok(vec![Event::Close(code)]));
        for sender in SENDERS {
            let story = inspect(Rules::new(sender), &[&frame(sender, CLOSE, body)]);
            assert_eq!((story.reason.as_str(), story.closed), (reason, true));
        }
    }
    assert_eq!(verdict(&[(CLOSE, b"\x03")]), Some(Violation::CloseBody));
    assert_eq!(verdict(&[(CLOSE, b"\x03\xe8\xff")]), Some(Violation::CloseReason));
    assert_eq!(verdict(&[(CLOSE, b"\x03\xe8\xc3")]), Some(Violation::CloseReason));
    assert_eq!(verdict(&[(CLOSE, b"\x03\xe8\xed\xa0\x80")]), Some(Violation::CloseReason));
    // Within a message that is never completed.
    let events = told(|rules| rules, &[(TEXT, b"a"), (CLOSE, b"")]).unwrap();
    assert_eq!(events[1..], [Event::Fragment, Event::Close(CloseCode::NO_STATUS)]);
}

#[test]
fn rfc6455_5_5_1_no_data_follows_a_close() {
    for first in [FIN | TEXT, FIN | BINARY, BINARY, FIN, CLOSE] {
        assert_eq!(verdict(&[(CLOSE, b""), (first, b"")]), Some(Violation::AfterClose), "{first:#x}");
    }
    assert_eq!(verdict(&[(TEXT, b"a"), (CLOSE, b""), (FIN, b"b")]), Some(Violation::AfterClose));
    assert_eq!(
        verdict(&[(CLOSE, b""), (PONG, b"a"), (PING, b"b")]),
        None,
        "a Pong may be due to a Ping that crossed it"
    );
}

#[test]
fn rfc6455_5_5_2_and_5_5_3_pings_and_pongs_are_known_again() {
    let events = told(|rules| rules, &[(PING, b""), (PONG, b"\x01\x02\x03"), (PING, &[7; 125]), (PONG, b"")]).unwrap();
    let echo = |length, start| Echo { length, start };
    assert_eq!(
        events,
        [
            Event::Ping(echo(0, [0; 8])),
            Event::Pong(echo(3, [1, 2, 3, 0, 0, 0, 0, 0])),
            Event::Ping(echo(125, [7; 8])),
            Event::Pong(echo(0, [0; 8])),
        ]
    );
}

#[test]
fn rfc6455_5_6_and_8_1_a_message_of_text_is_utf8_as_a_whole() {
    let table: &[(Frames<'_>, Option<Violation>)] = &[
        (&[(FIN | TEXT, "κόσμε".as_bytes())], None),
        (&[(TEXT, b"\xce"), (FIN, b"\xba")], None),
        (&[(TEXT, b"\xf0"), (PING, b"\xff"), (CONTINUATION, b""), (CONTINUATION, b"\x9f\xa6"), (FIN, b"\x80")], None),
        (&[(FIN | TEXT, b"\xce")], Some(Violation::Text)),
        (&[(TEXT, b"\xce"), (FIN, b"")], Some(Violation::Text)),
        (&[(TEXT, b"a"), (CONTINUATION, b"\x80")], Some(Violation::Text)),
        (&[(TEXT, b"\xed"), (FIN, b"\xa0\x80")], Some(Violation::Text)),
        (&[(FIN | TEXT, b"a"), (FIN | TEXT, b"\x80")], Some(Violation::Text)),
        (&[(FIN | BINARY, b"\xff"), (BINARY, b"\xce"), (FIN, b"\xff"), (FIN | TEXT, b"a")], None),
    ];
    for (sent, expected) in table {
        assert_eq!(verdict(sent), *expected, "{sent:x?}");
        assert!(told(|rules| rules, sent).is_ok(), "it is not asked for: {sent:x?}");
    }
    assert_eq!(Violation::Text.close_code(), CloseCode::INVALID_PAYLOAD);
    // Found before the frame ends, let alone the message.
    let (mut inspector, wire) =
        (Inspector::new(Rules { utf8: true, ..Rules::new(Sender::Client) }), frame(Sender::Client, TEXT, b"ab\xffcd"));
    assert!(inspector.read(&wire[..8]).is_ok() && inspector.read(&wire[6..8]).is_ok());
    assert_eq!(inspector.read(&wire[8..9]), Err(Violation::Text));
}

#[test]
fn rfc6455_7_4_codes() {
    let allowed = |code: u16| matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    for code in (0..=1100).chain(2990..=3010).chain(4990..=5010).chain([u16::MAX]) {
        let verdict = verdict(&[(CLOSE, &code.to_be_bytes())]);
        assert_eq!(verdict, (!allowed(code)).then_some(Violation::CloseCode), "{code}");
        let put = put_close(CloseCode(code), "", None, &mut Vec::new());
        assert_eq!(put.is_ok(), allowed(code) || code == 1005, "{code}: 1005 is put as nothing");
    }
}

#[test]
fn rfc6455_10_4_limits_hold_before_anything_passes() {
    let frames = |rules| Rules { frame_bytes_max: 10, ..rules };
    let messages = |rules| Rules { message_bytes_max: 10, ..rules };
    assert!(told(frames, &[(BINARY, &[0; 10]), (FIN, &[0; 10])]).is_ok());
    assert_eq!(told(frames, &[(FIN | BINARY, &[0; 11])]), Err(Violation::FrameTooLarge));
    assert!(told(messages, &[(BINARY, &[0; 4]), (FIN, &[0; 6]), (FIN | TEXT, &[0; 10])]).is_ok());
    assert_eq!(told(messages, &[(FIN | BINARY, &[0; 11])]), Err(Violation::MessageTooLarge));
    assert_eq!(told(messages, &[(BINARY, &[0; 4]), (CONTINUATION, &[0; 7])]), Err(Violation::MessageTooLarge));
    for limits in [frames as fn(Rules) -> Rules, messages] {
        assert!(told(limits, &[(PING, &[0; 125]), (BINARY, &[0; 9]), (PONG, &[0; 125]), (FIN, &[0; 1])]).is_ok());
    }
    for violation in [Violation::FrameTooLarge, Violation::MessageTooLarge] {
        assert_eq!(violation.close_code(), CloseCode::MESSAGE_TOO_BIG);
    }
    // Said when the length is, not when so much has come; and whatever the length, there is no sum that overflows.
    let huge = [&[FIN, 127][..], &(i64::MAX as u64).to_be_bytes()].concat();
    let stream = [&frame(Sender::Server, BINARY, b"x")[..], &huge].concat();
    let story = inspect(messages(Rules::new(Sender::Server)), &[&stream]);
    assert_eq!((story.violation, story.sound), (Some(Violation::MessageTooLarge), 3));
    assert_eq!(inspect(Rules::new(Sender::Server), &[&stream]).violation, None);
}

#[test]
fn rfc7692_6_the_first_frame_says_that_a_message_is_compressed() {
    let deflate = |rules| Rules { deflate: true, utf8: true, ..rules };
    let compressed = |kind, bytes, frames| Message { kind, compressed: true, bytes, frames };
    // No UTF-8 on the wire, and none is asked for; the next message is plain.
    let events = told(deflate, &[(RSV1 | TEXT, b"\xff\xfe"), (PING, b""), (FIN, b"\xfd"), (FIN | TEXT, b"a")]).unwrap();
    assert_eq!(events[0], Event::Begin(compressed(Kind::Text, 0, 0)));
    assert_eq!(events[3..5], [Event::End(compressed(Kind::Text, 3, 2)), Event::Begin(message(Kind::Text, 0, 0)),]);
    assert_eq!(told(deflate, &[(FIN | TEXT, b"\xff")]), Err(Violation::Text));
    for first in [RSV1 | FIN, RSV1 | CONTINUATION, RSV1 | PING, RSV1 | PONG, RSV1 | CLOSE] {
        let verdict = told(deflate, &[(RSV1 | BINARY, b""), (first, b"")]);
        assert_eq!(verdict, Err(Violation::ReservedBit), "{first:#x}");
    }
    assert_eq!(told(|rules| rules, &[(RSV1 | FIN | TEXT, b"")]), Err(Violation::ReservedBit));
    assert_eq!(told(deflate, &[(0x20 | FIN | TEXT, b"")]), Err(Violation::ReservedBit));
    assert_eq!(told(deflate, &[(0x10 | FIN | TEXT, b"")]), Err(Violation::ReservedBit));
}

#[test]
fn what_is_put_is_read() {
    let longest = "r".repeat(REASON_BYTES_MAX);
    for (sender, key) in [(Sender::Client, Some(KEY)), (Sender::Server, None)] {
        let mut out = Vec::new();
        put_ping(b"12345678", key, &mut out).unwrap();
        put_pong(&[9; 125], key, &mut out).unwrap();
        put_close(CloseCode::MESSAGE_TOO_BIG, &longest, key, &mut out).unwrap();
        let expected = [
            framed(PING, b"12345678", key),
            framed(PONG, &[9; 125], key),
            framed(CLOSE, &[&b"\x03\xf1"[..], longest.as_bytes()].concat(), key),
        ];
        assert_eq!(out, expected.concat());
        let story = inspect(Rules::new(sender), &[&out]);
        assert_eq!((story.violation, story.events.len(), story.reason == longest), (None, 3, true));
        out.clear();
        put_close(CloseCode::NO_STATUS, "", key, &mut out).unwrap();
        assert_eq!(out, framed(CLOSE, b"", key));
    }
}

#[test]
fn what_cannot_be_put_is_refused_and_nothing_is_put() {
    let mut out = Vec::new();
    assert_eq!(put_ping(&[0; 126], None, &mut out), Err(Refused::Length));
    assert_eq!(put_pong(&[0; 126], None, &mut out), Err(Refused::Length));
    assert_eq!(put_close(CloseCode::NORMAL, &"r".repeat(124), None, &mut out), Err(Refused::Length));
    assert_eq!(put_close(CloseCode::NO_STATUS, "r", None, &mut out), Err(Refused::Field));
    assert_eq!(put_close(CloseCode::ABNORMAL, "", None, &mut out), Err(Refused::Field));
    assert_eq!(out, b"");
    for size in 0..=CONTROL_FRAME_BYTES_MAX {
        let mut storage = [0; CONTROL_FRAME_BYTES_MAX];
        let mut sink = FixedSink::new(&mut storage[..size]);
        let put = put_ping(&[7; 125], Some(KEY), &mut sink);
        assert_eq!(put.is_ok(), size == CONTROL_FRAME_BYTES_MAX, "{size}");
        assert_eq!(sink.written().len(), if put.is_ok() { size } else { 0 });
    }
}

#[test]
fn a_violation_can_be_told_to_whoever_committed_it() {
    use Violation::*;
    for violation in [
        ReservedBit,
        ReservedOpcode,
        Unmasked,
        Masked,
        ControlFragmented,
        ControlTooLong,
        LengthNotMinimal,
        LengthTooLarge,
        NothingToContinue,
        Interleaved,
        AfterClose,
        CloseBody,
        CloseCode,
        CloseReason,
        Text,
        FrameTooLarge,
        MessageTooLarge,
    ] {
        let mut out = Vec::new();
        put_close(violation.close_code(), violation.why(), None, &mut out).unwrap();
        let story = inspect(Rules::new(Sender::Server), &[&out]);
        assert_eq!((story.events(), story.reason), (vec![Event::Close(violation.close_code())], violation.to_string()));
    }
}

#[test]
fn two_inspectors_are_a_small_part_of_a_parked_connection() {
    assert!(size_of::<Inspector>() <= 160, "{}", size_of::<Inspector>());
}
