//! What a message may consist of (RFC 9114 §4), and how ours are written: how each breach is met, and that everything passes between
//! protocols. What a head means is judged by what HTTP/2 has (`h2_messages`); here is that it is asked.

mod quic;

use proto::Malformed;
use proto::h1::{HeadLimits, Refused, Respond};
use proto::h3::{Abort, ErrorCode, Limits, StreamId};
use proto::http::{Fields, Framing, Method, Status, Version};
use quic::*;

#[test]
fn rfc9114_4_3_requests_are_read() {
    for (fields, text, framing) in [
        (GET.to_vec(), "GET / HTTP/1.1|host: a||", Framing::None),
        (
            with(GET, &[("cookie", "a=b"), ("x", "y"), ("cookie", "c=d")]),
            "GET / HTTP/1.1|host: a|x: y|cookie: a=b; c=d||",
            Framing::None,
        ),
        (with(GET, &[("te", "trailers"), ("host", "A")]), "GET / HTTP/1.1|host: a|te: trailers||", Framing::None),
        (with(GET, &[("content-length", "0")]), "GET / HTTP/1.1|host: a|content-length: 0||", Framing::Length(0)),
        (vec![(":method", "CONNECT"), (":authority", "a:1")], "CONNECT a:1 HTTP/1.1|host: a:1||", Framing::None),
        (
            with(&[(":method", "CONNECT"), (":protocol", "websocket")], &GET[1..]),
            "GET / HTTP/1.1|host: a|connection: upgrade|upgrade: websocket||",
            Framing::None,
        ),
    ] {
        let mut rig = server();
        let head = Seen::Head { stream: 0, text: text.into(), framing };
        let end = Seen::End { stream: 0, trailers: String::new() };
        assert_eq!(rig.feed(0, &headers(&fields), true), Ok(vec![head, end]));
    }
    let mut rig = server();
    let seen = rig.feed(0, &headers(POST), false).unwrap();
    assert_eq!(seen, [Seen::Head { stream: 0, text: "POST / HTTP/1.1|host: a||".into(), framing: Framing::Chunked }]);
}

#[test]
fn rfc9114_4_1_2_malformed_requests_reset_their_streams_and_no_others() {
    let long = "x".repeat(9_800);
    for (section, fields, why, answerable) in [
        ("4.2: capitals", with(GET, &[("A", "b")]), Malformed::FieldName, false),
        ("4.2: no name", with(GET, &[("", "b")]), Malformed::FieldName, false),
        ("4.2: no value", with(GET, &[("a", "b\r\nc: d")]), Malformed::FieldValue, false),
        ("4.2: Connection", with(GET, &[("connection", "close")]), Malformed::ConnectionField, false),
        ("4.2: Keep-Alive", with(GET, &[("keep-alive", "5")]), Malformed::ConnectionField, false),
        ("4.2: Proxy-Connection", with(GET, &[("proxy-connection", "x")]), Malformed::ConnectionField, false),
        ("4.2: Transfer-Encoding", with(GET, &[("transfer-encoding", "chunked")]), Malformed::ConnectionField, false),
        ("4.2: Upgrade", with(GET, &[("upgrade", "x")]), Malformed::ConnectionField, false),
        ("4.2: TE", with(GET, &[("te", "gzip")]), Malformed::ConnectionField, false),
        ("4.3: unknown", with(&[(":x", "y")], GET), Malformed::PseudoField, false),
        ("4.3: of a response", with(&[(":status", "200")], GET), Malformed::PseudoField, false),
        ("4.3: behind fields", with(&[("a", "b")], GET), Malformed::PseudoField, false),
        ("4.3.1: repeated", with(&[(":method", "GET")], GET), Malformed::PseudoField, false),
        ("4.3.1: no method", GET[1..].to_vec(), Malformed::PseudoField, false),
        ("4.3.1: no scheme", vec![GET[0], GET[2], GET[3]], Malformed::PseudoField, false),
        ("4.3.1: no path", vec![GET[0], GET[1], GET[3]], Malformed::PseudoField, false),
        (
            "4.3.1: empty path",
            with(&[(":method", "GET"), (":scheme", "https"), (":path", "")], &GET[3..]),
            Malformed::PseudoField,
            false,
        ),
        ("4.3.1: no scheme's name", vec![GET[0], (":scheme", "h t"), GET[2], GET[3]], Malformed::PseudoField, false),
        ("4.3.1: another scheme", vec![GET[0], (":scheme", "coap"), GET[2], GET[3]], Malformed::Scheme, true),
        (
            "4.3.1: another scheme's path",
            vec![GET[0], (":scheme", "urn"), (":path", ""), GET[3]],
            Malformed::Scheme,
            true,
        ),
        ("4.3.1: contradiction", with(GET, &[("host", "b")]), Malformed::HostContradicts, false),
        ("4.3.1: nobody is meant", GET[..3].to_vec(), Malformed::HostMissing, true),
        ("4.4: CONNECT with a path", with(&[(":method", "CONNECT")], &GET[1..]), Malformed::PseudoField, false),
        ("4.1.2: no content, but a length", with(GET, &[("content-length", "3")]), Malformed::LengthMismatch, false),
        (
            "4.2.2: a long target",
            vec![GET[0], GET[1], (":path", &format!("/{long}")), GET[3]],
            Malformed::TargetTooLong,
            true,
        ),
        ("4.2.2: a long head", with(GET, &[("a", &long), ("b", &long)]), Malformed::HeadTooLong, true),
        ("4.2.2: many fields", with(GET, &[("a", ""); 120]), Malformed::TooManyFields, true),
        ("4.2.2: many crumbs", with(GET, &[("cookie", "a=b"); 120]), Malformed::TooManyFields, true),
    ] {
        let mut rig = server();
        rig.feed(4, &headers(POST), false).unwrap();
        rig.out.aborts.clear();
        let seen = rig.feed(0, &headers(&fields), true);
        assert_eq!(seen, Ok(vec![Seen::Refused { stream: 0, why, answerable }]), "{section}");
        let (stream, code) = (StreamId(0), ErrorCode::MESSAGE_ERROR);
        if answerable {
            assert_eq!(rig.aborts(), [], "{section}");
            let sent = rig.sent.entry(0).or_default();
            rig.connection.respond(stream, &Respond::new(why.status()), sent, &mut rig.out).unwrap();
            assert_eq!(read_section(&frames(&rig.put(0))[0].1)[0], (":status".into(), why.status().code().to_string()));
        } else {
            assert_eq!(rig.aborts(), [Abort::Reset { stream, code }, Abort::Stop { stream, code }], "{section}");
            let respond = Respond::new(Status::BAD_REQUEST);
            assert_eq!(rig.connection.respond(stream, &respond, &mut Vec::new(), &mut rig.out), Err(Refused::Gone));
        }
        assert_eq!(rig.connection.streams(), 1, "{section}");
        // The other goes on.
        assert!(
            matches!(rig.feed(4, &data(b"x"), true).unwrap()[..], [Seen::Data { .. }, Seen::End { .. }]),
            "{section}"
        );
    }
}

#[test]
fn rfc9114_4_2_2_a_head_is_refused_by_its_length_alone() {
    let mut rig = server();
    let begun = [integer(HEADERS), integer(1 << 30)].concat();
    let refused = Seen::Refused { stream: 0, why: Malformed::HeadTooLong, answerable: true };
    assert_eq!(rig.feed(0, &begun, false), Ok(vec![refused]));
    // What comes of it is passed over; nobody holds it.
    assert_eq!(rig.feed(0, &[7; 10_000], false), Ok(vec![]));
    assert_eq!(rig.unread(), 0);
    rig.answer(0, Framing::Length(0));
    assert_eq!(rig.aborts(), [Abort::Stop { stream: StreamId(0), code: ErrorCode::NO_ERROR }]);
    assert!(rig.connection.is_idle());
    // Trailers and responses have no such second chance.
    let (stream, code) = (StreamId(0), ErrorCode::EXCESSIVE_LOAD);
    let mut rig = server();
    let seen = rig.feed(0, &[&headers(POST)[..], &begun].concat(), false).unwrap();
    assert_eq!(seen.last(), Some(&Seen::Reset { stream: 0, why: Malformed::HeadTooLong }));
    assert_eq!(rig.aborts(), [Abort::Reset { stream, code }, Abort::Stop { stream, code }]);
    let mut rig = client(1);
    assert_eq!(rig.feed(0, &begun, false), Ok(vec![Seen::Reset { stream: 0, why: Malformed::HeadTooLong }]));
    assert_eq!(rig.aborts(), [Abort::Stop { stream, code }]);
}

#[test]
fn rfc9114_4_1_2_content_is_as_long_as_it_says() {
    let post = headers(&with(POST, &[("content-length", "3")]));
    let mismatch = Seen::Reset { stream: 0, why: Malformed::LengthMismatch };
    for (what, rest) in [
        ("longer in one frame", data(b"abcd")),
        ("longer in two", [data(b"ab"), data(b"cd")].concat()),
        ("shorter", data(b"ab")),
        ("shorter, with trailers", [data(b"ab"), headers(&[("a", "b")])].concat()),
        ("none", vec![]),
    ] {
        let mut rig = server();
        let mut seen = rig.feed(0, &post, false).unwrap();
        seen.extend(rig.feed(0, &rest, true).unwrap());
        assert_eq!(seen.last(), Some(&mismatch), "{what}");
        let (stream, code) = (StreamId(0), ErrorCode::MESSAGE_ERROR);
        assert_eq!(rig.aborts(), [Abort::Reset { stream, code }, Abort::Stop { stream, code }], "{what}");
    }
    let mut rig = server();
    let seen = rig.feed(0, &[&post[..], &data(b"ab"), &data(b"c")].concat(), true).unwrap();
    assert_eq!(
        seen[1..],
        [Seen::Data { stream: 0, bytes: b"abc".to_vec() }, Seen::End { stream: 0, trailers: String::new() }]
    );
    // To HEAD, a length is metadata, and content an error.
    let mut rig = client(0);
    rig.get(0, Method::Head);
    let seen = rig.feed(0, &headers(&with(OK, &[("content-length", "5")])), true).unwrap();
    assert!(matches!(seen[..], [Seen::Head { framing: Framing::None, .. }, Seen::End { .. }]), "{seen:?}");
    rig.get(4, Method::Head);
    let seen = rig.feed(4, &[headers(OK), data(b"x")].concat(), true).unwrap();
    assert_eq!(seen[1], Seen::Reset { stream: 4, why: Malformed::LengthMismatch });
}

#[test]
fn rfc9114_4_1_trailers() {
    let mut rig = server();
    let bytes = [headers(POST), data(b"x"), headers(&[("grpc-status", "0"), ("cookie", "c"), ("b", "")])].concat();
    // The end is told with them; QUIC's may come later.
    let end = Seen::End { stream: 0, trailers: "grpc-status: 0|b: |".into() };
    assert_eq!(rig.feed(0, &bytes, false).unwrap().last(), Some(&end));
    assert!(rig.connection.is_body_read(StreamId(0)));
    rig.answer(0, Framing::Length(0));
    assert_eq!((rig.aborts(), rig.connection.streams()), (vec![], 1));
    assert_eq!((rig.feed(0, b"", true), rig.connection.streams()), (Ok(vec![]), 0));
    for (fields, why) in [
        (&[(":path", "/")], Malformed::PseudoField),
        (&[("A", "b")], Malformed::FieldName),
        (&[("te", "trailers")], Malformed::ConnectionField),
        (&[("content-length", "1")], Malformed::TrailerForbidden),
        (&[("host", "b")], Malformed::TrailerForbidden),
    ] {
        let mut rig = server();
        let seen = rig.feed(0, &[headers(POST), data(b"x"), headers(fields)].concat(), true).unwrap();
        assert_eq!(seen.last(), Some(&Seen::Reset { stream: 0, why }));
    }
    // Ours.
    let mut rig = server();
    rig.feed(0, &headers(GET), true).unwrap();
    rig.answer(0, Framing::Chunked);
    rig.data(0, 3).unwrap();
    assert_eq!(rig.finish(0, &[("a", "b\r\nc: d")]), Err(Refused::Field));
    rig.finish(0, &[("Grpc-Status", "0")]).unwrap();
    let put = frames(&rig.put(0));
    assert_eq!(put.iter().map(|frame| frame.0).collect::<Vec<_>>(), [HEADERS, DATA, HEADERS]);
    assert_eq!(read_section(&put[2].1), [("grpc-status".into(), "0".into())]);
    assert!(rig.connection.is_idle());
}

#[test]
fn rfc9114_4_1_responses() {
    let mut rig = client(1);
    let bytes = [
        headers(&[(":status", "103"), ("link", "x")]),
        headers(&[(":status", "200"), ("a", "b")]),
        data(b"hi"),
        headers(&[("t", "u")]),
    ]
    .concat();
    assert_eq!(
        rig.feed(0, &bytes, true).unwrap(),
        [
            Seen::Head { stream: 0, text: "HTTP/1.1 103 |link: x||".into(), framing: Framing::None },
            Seen::Head { stream: 0, text: "HTTP/1.1 200 |a: b||".into(), framing: Framing::Chunked },
            Seen::Data { stream: 0, bytes: b"hi".to_vec() },
            Seen::End { stream: 0, trailers: "t: u|".into() },
        ]
    );
    assert!(rig.connection.is_idle());
    for (section, fields, why) in [
        ("4.3.2: no status", &[("a", "b")][..], Malformed::PseudoField),
        ("4.3.2: of a request", &[(":status", "200"), (":path", "/")], Malformed::PseudoField),
        ("4.3.2: two", &[(":status", "200"), (":status", "200")], Malformed::PseudoField),
        ("4.3.2: no number", &[(":status", "2x0")], Malformed::PseudoField),
        ("4.3: behind a field", &[("a", "b"), (":status", "200")], Malformed::PseudoField),
        ("4.5: 101", &[(":status", "101")], Malformed::UnexpectedUpgrade),
        ("4.1: an interim end", &[(":status", "100")], Malformed::UnexpectedUpgrade),
        ("4.2: TE in a response", &[(":status", "200"), ("te", "trailers")], Malformed::ConnectionField),
    ] {
        let mut rig = client(1);
        assert_eq!(rig.feed(0, &headers(fields), true), Ok(vec![Seen::Reset { stream: 0, why }]), "{section}");
    }
    let mut rig = client(1);
    let many: Vec<u8> = (0..17).flat_map(|_| headers(&[(":status", "103")])).collect();
    assert_eq!(
        rig.feed(0, &many, false).unwrap().last(),
        Some(&Seen::Reset { stream: 0, why: Malformed::TooManyInterim })
    );
    assert_eq!(rig.aborts(), [Abort::Stop { stream: StreamId(0), code: ErrorCode::EXCESSIVE_LOAD }]);
}

#[test]
fn rfc9114_4_4_a_tunnel_has_content_and_nothing_else() {
    let mut rig = server();
    rig.feed(0, &headers(&[(":method", "CONNECT"), (":authority", "a:1")]), false).unwrap();
    rig.answer(0, Framing::None);
    assert!(rig.connection.is_writable(StreamId(0)), "a tunnel does not end with its head");
    rig.data(0, 7).unwrap();
    assert!(matches!(rig.feed(0, &data(b"in"), false).unwrap()[..], [Seen::Data { .. }]));
    assert_eq!(met(&mut rig, 0, &headers(&[("a", "b")]), false), Met::Connection(ErrorCode::FRAME_UNEXPECTED));
    // Both directions close one after the other.
    let mut rig = server();
    rig.feed(0, &headers(&[(":method", "CONNECT"), (":authority", "a:1")]), false).unwrap();
    rig.answer(0, Framing::None);
    rig.finish(0, &[]).unwrap();
    assert_eq!((rig.aborts(), rig.connection.streams()), (vec![], 1));
    assert!(matches!(rig.feed(0, &data(b"in"), true).unwrap()[..], [Seen::Data { .. }, Seen::End { .. }]));
    assert!(rig.connection.is_idle());
}

#[test]
fn rfc9220_extended_connect_is_an_upgrade_on_both_sides() {
    const WEBSOCKET: &[u8] = b"GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let mut ours = Rig::new(Limits::DEFAULT);
    ours.greet(&[]);
    assert_eq!(ours.send_request(0, WEBSOCKET, Framing::None), Err(Refused::Gone), "3: not without the setting");
    let mut ours = client(0);
    ours.send_request(0, WEBSOCKET, Framing::None).unwrap();
    assert!(ours.connection.is_writable(StreamId(0)));
    let mut theirs = server();
    let text = "GET /chat HTTP/1.1|host: a|sec-websocket-version: 13|connection: upgrade|upgrade: websocket||";
    let head = Seen::Head { stream: 0, text: text.into(), framing: Framing::None };
    assert_eq!(theirs.feed(0, &ours.put(0), false), Ok(vec![head]));
    // Granted with 101, which travels as 200 and arrives as 101.
    let text = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: y\r\n\r\n";
    let mut fields = Fields::default();
    let head = proto::h1::parse_response(text, &HeadLimits::DEFAULT, Method::Get, &mut fields).unwrap().unwrap();
    let rewrite = proto::h1::ResponseRewrite::new(&head, Version::Http3);
    let sent = theirs.sent.entry(0).or_default();
    theirs.connection.write_response(StreamId(0), text, &head, &fields, &rewrite, sent, &mut theirs.out).unwrap();
    let answer = theirs.put(0);
    assert_eq!(read_section(&frames(&answer)[0].1), [(":status".into(), "200".into())]);
    let head = Seen::Head {
        stream: 0,
        text: "HTTP/1.1 101 |connection: upgrade|upgrade: websocket||".into(),
        framing: Framing::None,
    };
    assert_eq!(ours.feed(0, &answer, false), Ok(vec![head]));
    assert!(matches!(ours.feed(0, &data(b"pong"), true).unwrap()[..], [Seen::Data { .. }, Seen::End { .. }]));
    ours.data(0, 4).unwrap();
    ours.finish(0, &[]).unwrap();
    assert!(ours.connection.is_idle());
    // A server that does not offer it takes none.
    let mut rig = server_with(Limits { connect_protocol: false, ..Limits::DEFAULT });
    let asked = headers(&with(&[(":method", "CONNECT"), (":protocol", "websocket")], &GET[1..]));
    assert!(matches!(rig.feed(0, &asked, false).unwrap()[..], [Seen::Refused { answerable: false, .. }]));
}

#[test]
fn a_promise_of_content_is_kept_or_the_stream_is_reset() {
    let mut rig = server();
    for stream in [0, 4] {
        rig.feed(stream, &headers(GET), true).unwrap();
        rig.answer(stream, Framing::Length(3));
    }
    assert_eq!(rig.data(0, 4), Err(Refused::Length));
    rig.data(4, 2).unwrap();
    assert_eq!(rig.finish(4, &[]), Err(Refused::Length));
    let reset = |stream| Abort::Reset { stream: StreamId(stream), code: ErrorCode::INTERNAL_ERROR };
    assert_eq!((rig.aborts(), rig.connection.streams()), (vec![reset(0), reset(4)], 0));
}

#[test]
fn heads_pass_between_protocols_without_translation() {
    let text = b"POST /p?q HTTP/1.1\r\nHost: a\r\nX-A: b\r\nCookie: a=b; c=d\r\nTransfer-Encoding: chunked\r\nKeep-Alive: 5\r\n\r\n";
    let mut rig = client(0);
    rig.send_request(0, text, Framing::Chunked).unwrap();
    let put = frames(&rig.put(0));
    let joined: Vec<String> =
        read_section(&put[0].1).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(joined.join("|"), ":method=POST|:scheme=https|:authority=a|:path=/p?q|x-a=b|cookie=a=b; c=d");
    let mut theirs = server();
    let seen = theirs.feed(0, &[frame(HEADERS, &put[0].1), data(b"x")].concat(), true).unwrap();
    let text = "POST /p?q HTTP/1.1|host: a|x-a: b|cookie: a=b; c=d||";
    assert_eq!(seen[0], Seen::Head { stream: 0, text: text.into(), framing: Framing::Chunked });
}

/// The same section may answer two requests, and mean different things to them.
#[test]
fn an_answer_that_is_said_again_is_judged_by_what_was_asked() {
    let mut rig = client(0);
    let answer = headers(&with(OK, &[("content-length", "5")]));
    let asked = [Method::Head, Method::Head, Method::Head, Method::Get, Method::Get, Method::Get];
    for (stream, method) in (0..).step_by(4).zip(asked.into_iter().cycle().take(24)) {
        rig.get(stream, method);
        let seen = rig.feed(stream, &answer, true).unwrap();
        match (method, &seen[..]) {
            (Method::Head, [Seen::Head { text, .. }, Seen::End { .. }]) => {
                assert_eq!(text, "HTTP/1.1 200 |content-length: 5||", "{stream}");
            }
            (Method::Get, [Seen::Head { .. }, Seen::Reset { why: Malformed::LengthMismatch, .. }]) => {}
            (Method::Get, [Seen::Reset { why: Malformed::LengthMismatch, .. }]) => {}
            other => panic!("{stream}: {other:?}"),
        }
    }
}
