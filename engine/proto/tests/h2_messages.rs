//! RFC 9113 §8, RFC 8441, RFC 9218: messages, what makes them malformed, and how they pass between protocols.

mod wire;

use proto::Malformed;
use proto::h1::{HeadLimits, Refused, Respond, Server};
use proto::h2::hpack::{Encoder, Indexing};
use proto::h2::{ErrorCode, Limits, StreamId};
use proto::http::{Fields, Framing, Method};
use wire::*;

/// What a server says of one request, and the code of the RST_STREAM if it was reset.
fn request(fields: &[(&str, &str)], end: bool) -> (Vec<Seen>, Option<ErrorCode>) {
    let mut rig = server();
    let seen = rig.feed(&headers(1, fields, end)).unwrap();
    let reset = rig.put().iter().find(|frame| frame.kind == RST_STREAM).map(|frame| ErrorCode(frame.word(0)));
    (seen, reset)
}

fn text_of(fields: &[(&str, &str)], end: bool) -> String {
    match &request(fields, end).0[..] {
        [Seen::Head { text, .. }, ..] => text.clone(),
        other => panic!("{fields:?}: {other:?}"),
    }
}

#[test]
fn requests_read_as_http1_would_have_sent_them() {
    for (fields, text) in [
        (GET.to_vec(), "GET / HTTP/1.1|host: a||"),
        (
            vec![(":authority", "a:1"), (":path", "/p?q"), (":method", "PURGE"), (":scheme", "http")],
            "PURGE /p?q HTTP/1.1|host: a:1||",
        ),
        (with(GET, &[("x-a", "1"), ("x-b", ""), ("x-a", "2")]), "GET / HTTP/1.1|host: a|x-a: 1|x-b: |x-a: 2||"),
        (with(GET, &[("host", "A"), ("x", "y")]), "GET / HTTP/1.1|host: a|x: y||"),
        // RFC 9113 §8.3.1: the scheme's own port says nothing.
        (with(GET, &[("host", "a:443")]), "GET / HTTP/1.1|host: a||"),
        (with(GET, &[("host", "a:")]), "GET / HTTP/1.1|host: a||"),
        (
            vec![(":method", "GET"), (":scheme", "https"), (":path", "/"), ("x", "y"), ("host", "b")],
            "GET / HTTP/1.1|x: y|host: b||",
        ),
        (
            vec![(":method", "OPTIONS"), (":scheme", "https"), (":path", "*"), (":authority", "a")],
            "OPTIONS * HTTP/1.1|host: a||",
        ),
        (vec![(":method", "CONNECT"), (":authority", "a:443")], "CONNECT a:443 HTTP/1.1|host: a:443||"),
        (with(GET, &[("te", "trailers")]), "GET / HTTP/1.1|host: a|te: trailers||"),
        // RFC 9113 §8.2.3.
        (
            with(GET, &[("cookie", "a=b"), ("x", "y"), ("cookie", "c=d"), ("cookie", "e=f")]),
            "GET / HTTP/1.1|host: a|x: y|cookie: a=b; c=d; e=f||",
        ),
        (with(GET, &[("cookie", ""), ("cookie", "a=b"), ("cookie", "")]), "GET / HTTP/1.1|host: a|cookie: a=b||"),
        // RFC 8441 §4.
        (
            vec![
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                (":scheme", "https"),
                (":path", "/chat"),
                (":authority", "a"),
                ("sec-websocket-version", "13"),
            ],
            "GET /chat HTTP/1.1|host: a|sec-websocket-version: 13|connection: upgrade|upgrade: websocket||",
        ),
    ] {
        assert_eq!(text_of(&fields, false), text);
    }
}

#[test]
fn rfc9113_8_1_1_malformed_requests_are_reset() {
    use Malformed::{
        ConnectionField, ContentLength, FieldName, FieldValue, HostContradicts, LengthMismatch, PseudoField, Target,
    };
    let long = "x".repeat(40);
    for (section, fields, why) in [
        ("8.2: a capital", with(GET, &[("X-a", "b")]), FieldName),
        ("8.2.1: no name", with(GET, &[("", "b")]), FieldName),
        ("8.2.1: a space in a name", with(GET, &[("a b", "c")]), FieldName),
        ("8.2.1: a colon in a name", with(GET, &[("a:b", "c")]), FieldName),
        ("8.2.1: obs-text in a name", with(GET, &[("\u{e4}", "c")]), FieldName),
        ("8.2.1: NUL in a value", with(GET, &[("a", "b\0")]), FieldValue),
        ("8.2.1: CR in a value", with(GET, &[("a", "b\rc")]), FieldValue),
        ("8.2.1: LF in a value", with(GET, &[("a", "b\nc")]), FieldValue),
        ("8.2.1: a space before a value", with(GET, &[("a", " b")]), FieldValue),
        ("8.2.1: a tab behind a value", with(GET, &[("a", "b\t")]), FieldValue),
        ("8.2.1: a crumb is a value too", with(GET, &[("cookie", "a\r\nx: y")]), FieldValue),
        ("8.2.2: Connection", with(GET, &[("connection", "keep-alive")]), ConnectionField),
        ("8.2.2: Proxy-Connection", with(GET, &[("proxy-connection", "keep-alive")]), ConnectionField),
        ("8.2.2: Keep-Alive", with(GET, &[("keep-alive", "5")]), ConnectionField),
        ("8.2.2: Transfer-Encoding", with(GET, &[("transfer-encoding", "chunked")]), ConnectionField),
        ("8.2.2: Upgrade", with(GET, &[("upgrade", "h2c")]), ConnectionField),
        ("8.2.2: TE", with(GET, &[("te", "trailers, deflate")]), ConnectionField),
        ("8.3: unknown", with(&[(":path2", "/")], GET), PseudoField),
        ("8.3: of a response", with(&[(":status", "200")], GET), PseudoField),
        (
            "8.3: behind a field",
            vec![(":method", "GET"), (":scheme", "https"), ("a", "b"), (":path", "/"), (":authority", "a")],
            PseudoField,
        ),
        ("8.3: behind a crumb", vec![GET[0], GET[1], GET[2], ("cookie", "a=b"), GET[3]], PseudoField),
        ("8.3: repeated", with(&[(":method", "GET")], GET), PseudoField),
        ("8.3: repeated path", with(&[(":path", "/")], GET), PseudoField),
        ("8.3.1: no method", GET[1..].to_vec(), PseudoField),
        ("8.3.1: no scheme", vec![GET[0], GET[2], GET[3]], PseudoField),
        ("8.3.1: no path", vec![GET[0], GET[1], GET[3]], PseudoField),
        ("8.3.1: an empty path", vec![GET[0], GET[1], (":path", ""), GET[3]], PseudoField),
        ("8.3.1: no scheme's name", vec![GET[0], (":scheme", "9p"), GET[2], GET[3]], PseudoField),
        ("8.3.1: an empty scheme", vec![GET[0], (":scheme", ""), GET[2], GET[3]], PseudoField),
        ("8.3.1: a scheme with more behind it", vec![GET[0], (":scheme", "ftp://a/"), GET[2], GET[3]], PseudoField),
        ("8.3.1: another scheme, and no path", vec![GET[0], (":scheme", "ftp"), GET[3]], PseudoField),
        ("8.3.1: an empty method", vec![(":method", ""), GET[1], GET[2], GET[3]], PseudoField),
        ("8.3.1: a method with a space", vec![(":method", "GET /x"), GET[1], GET[2], GET[3]], PseudoField),
        ("8.3.1: a path without slash", vec![GET[0], GET[1], (":path", "x"), GET[3]], Target),
        ("8.3.1: an absolute path", vec![GET[0], GET[1], (":path", "http://b/"), GET[3]], Target),
        ("8.3.1: a space in a path", vec![GET[0], GET[1], (":path", "/ HTTP/1.1\r\nx: y"), GET[3]], Target),
        ("8.3.1: `*` for GET", vec![GET[0], GET[1], (":path", "*"), GET[3]], Target),
        ("8.3.1: another Host", with(GET, &[("host", "b")]), HostContradicts),
        ("8.3.1: another port", with(GET, &[("host", "a:80")]), HostContradicts),
        ("8.3.1: another port than the other one", with(GET, &[("host", "a:4430")]), HostContradicts),
        ("8.5: CONNECT with a path", with(&[(":method", "CONNECT")], &GET[1..]), PseudoField),
        ("8.5: CONNECT without authority", vec![(":method", "CONNECT")], PseudoField),
        ("8.5: CONNECT without port", vec![(":method", "CONNECT"), (":authority", "a")], Target),
        ("RFC 8441 4: not CONNECT", with(&[(":protocol", "websocket")], GET), PseudoField),
        (
            "RFC 8441 4: without path",
            vec![(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":authority", "a")],
            PseudoField,
        ),
        (
            "RFC 8441 4: no token",
            vec![(":method", "CONNECT"), (":protocol", "a b"), GET[1], GET[2], GET[3]],
            PseudoField,
        ),
        (
            "RFC 8441 4: no name is so long",
            vec![(":method", "CONNECT"), (":protocol", &long), GET[1], GET[2], GET[3]],
            PseudoField,
        ),
        ("8.1.1: no number", with(POST, &[("content-length", "x")]), ContentLength),
        ("8.1.1: two lengths", with(POST, &[("content-length", "1"), ("content-length", "1")]), ContentLength),
        ("8.1.1: content that never comes", with(POST, &[("content-length", "1")]), LengthMismatch),
    ] {
        let (seen, reset) = request(&fields, true);
        assert_eq!(seen, [Seen::Refused { stream: 1, why, answerable: false }], "{section}");
        assert_eq!(reset, Some(ErrorCode::PROTOCOL_ERROR), "{section}");
    }
}

#[test]
fn requests_that_are_not_to_be_served_are_answered() {
    let long = "a".repeat(16_000);
    let path = format!("/{}", "p".repeat(9_000));
    let many: Vec<(&str, &str)> = (0..120).map(|_| ("a", "b")).collect();
    let crumbs: Vec<(&str, &str)> = (0..120).map(|_| ("cookie", "a=b")).collect();
    for (fields, why, status) in [
        (with(GET, &[("a", &long), ("b", &long)]), Malformed::HeadTooLong, 431),
        (with(GET, &many), Malformed::TooManyFields, 431),
        (with(GET, &crumbs), Malformed::TooManyFields, 431),
        (vec![GET[0], GET[1], (":path", &path), GET[3]], Malformed::TargetTooLong, 414),
        (vec![(":method", &long[..33]), GET[1], GET[2], GET[3]], Malformed::MethodTooLong, 501),
        (GET[..3].to_vec(), Malformed::HostMissing, 400),
        (vec![GET[0], GET[1], GET[2], (":authority", "u@a")], Malformed::HostInvalid, 400),
        (vec![GET[0], (":scheme", "ftp"), GET[2], GET[3]], Malformed::Scheme, 400),
        (vec![GET[0], (":scheme", "coap+TCP"), GET[2], GET[3]], Malformed::Scheme, 400),
        // Its path is as its scheme has it.
        (vec![GET[0], (":scheme", "mailto"), (":path", "a@b"), GET[3]], Malformed::Scheme, 400),
        (vec![GET[0], (":scheme", "ftp"), (":path", "")], Malformed::Scheme, 400),
        (vec![(":method", "CONNECT"), (":protocol", "x"), (":scheme", "wss"), GET[2], GET[3]], Malformed::Scheme, 400),
        (with(GET, &[("expect", "magic")]), Malformed::Expectation, 417),
    ] {
        let mut rig = server();
        let fed = frame(HEADERS, 0, 1, &block(&fields)[..block(&fields).len().min(16_000)]);
        let rest = &block(&fields)[block(&fields).len().min(16_000)..];
        let mut bytes = fed;
        for (at, piece) in rest.chunks(16_000).enumerate() {
            let last = (at + 1) * 16_000 >= rest.len();
            bytes.extend(frame(CONTINUATION, if last { END_HEADERS } else { 0 }, 1, piece));
        }
        if rest.is_empty() {
            bytes.extend(frame(CONTINUATION, END_HEADERS, 1, b""));
        }
        assert_eq!(rig.feed(&bytes), Ok(vec![Seen::Refused { stream: 1, why, answerable: true }]));
        assert_eq!(why.status().code(), status);
        assert_eq!(rig.feed(&data(1, b"ignored", false)), Ok(vec![]));
        let respond = Respond { body: b"no", ..Respond::new(why.status()) };
        rig.connection.respond(StreamId(1), &respond, &mut rig.out).unwrap();
        rig.queue(1, 2);
        rig.finish(1);
        rig.send();
        let put = rig.put();
        assert_eq!(put.iter().map(|frame| frame.kind).collect::<Vec<_>>(), [HEADERS, DATA, RST_STREAM]);
        let status = status.to_string();
        assert_eq!(
            Blocks::default().read(&put[0]),
            [(":status".into(), status), ("content-length".into(), "2".into())]
        );
        assert_eq!(rig.connection.streams(), 0);
    }
}

#[test]
fn rfc9113_8_1_1_content_is_as_long_as_it_says() {
    let long = with(POST, &[("content-length", "3")]);
    let mismatch = |stream| Seen::Reset { stream, why: Malformed::LengthMismatch };
    let mut rig = server();
    assert_eq!(
        rig.feed(&[headers(1, &long, false), data(1, b"12", false), data(1, b"34", true)].concat()).unwrap().last(),
        Some(&mismatch(1))
    );
    assert_eq!(
        rig.feed(&[headers(3, &long, false), data(3, b"12", true)].concat()).unwrap().last(),
        Some(&mismatch(3))
    );
    assert_eq!(
        rig.feed(&[headers(5, &long, false), data(5, b"12", false), headers(5, &[("a", "b")], true)].concat())
            .unwrap()
            .last(),
        Some(&mismatch(5))
    );
    let seen = rig.feed(&[headers(7, &long, false), data(7, b"12", false), data(7, b"3", true)].concat()).unwrap();
    assert_eq!(
        seen[1..],
        [Seen::Data { stream: 7, bytes: b"123".to_vec() }, Seen::End { stream: 7, trailers: String::new() }]
    );
    assert!(matches!(seen[0], Seen::Head { framing: Framing::Length(3), .. }));
    // A response to HEAD and 304 tell a length that does not come (§8.1.1).
    let mut rig = client(0);
    let head = rig.get(Method::Head);
    let seen = rig.feed(&headers(head, &[(":status", "200"), ("content-length", "5")], true)).unwrap();
    assert!(matches!(seen[0], Seen::Head { framing: Framing::None, .. }), "{seen:?}");
    let head = rig.get(Method::Head);
    let seen = rig.feed(&[headers(head, OK, false), data(head, b"x", true)].concat()).unwrap();
    assert_eq!(seen[1], mismatch(head), "content that cannot be");
}

#[test]
fn rfc9113_8_1_trailers() {
    let mut rig = server();
    let seen = rig
        .feed(
            &[
                headers(1, POST, false),
                data(1, b"x", false),
                headers(1, &[("grpc-status", "0"), ("cookie", "c"), ("b", "")], true),
            ]
            .concat(),
        )
        .unwrap();
    assert_eq!(seen.last(), Some(&Seen::End { stream: 1, trailers: "grpc-status: 0|b: |".into() }));
    for (fields, end, why) in [
        (&[("a", "b")][..], false, Malformed::UnexpectedHead),
        (&[(":path", "/")], true, Malformed::PseudoField),
        (&[("A", "b")], true, Malformed::FieldName),
        (&[("te", "trailers")], true, Malformed::ConnectionField),
        (&[("content-length", "1")], true, Malformed::TrailerForbidden),
        (&[("host", "b")], true, Malformed::TrailerForbidden),
    ] {
        let mut rig = server();
        let seen =
            rig.feed(&[headers(1, POST, false), data(1, b"x", false), headers(1, fields, end)].concat()).unwrap();
        assert_eq!(seen.last(), Some(&Seen::Reset { stream: 1, why }));
        assert_eq!(rig.put().last().map(|frame| (frame.kind, frame.word(0))), Some((RST_STREAM, 1)));
    }
    // Ours leave behind everything that was queued.
    let mut rig = server();
    rig.feed(&headers(1, GET, true)).unwrap();
    rig.answer(1, Framing::Chunked);
    rig.queue(1, 3);
    let trailers = [(&b"Grpc-Status"[..], &b"0"[..])];
    let early = rig.connection.write_trailers(StreamId(1), trailers.into_iter(), &mut rig.out);
    assert_eq!(early, Err(Refused::Gone));
    rig.send();
    let bad = [(&b"a"[..], &b"b\r\nc: d"[..])];
    assert_eq!(rig.connection.write_trailers(StreamId(1), bad.into_iter(), &mut rig.out), Err(Refused::Field));
    rig.connection.write_trailers(StreamId(1), trailers.into_iter(), &mut rig.out).unwrap();
    let put = rig.put();
    let mut blocks = Blocks::default();
    blocks.read(&put[0]);
    assert_eq!((put[1].kind, put[2].flags), (DATA, END_HEADERS | END_STREAM));
    assert_eq!(blocks.read(&put[2]), [("grpc-status".into(), "0".into())]);
    assert_eq!(rig.connection.streams(), 0);
}

#[test]
fn rfc9113_8_1_responses() {
    let mut rig = client(1);
    let seen = rig
        .feed(
            &[
                headers(1, &[(":status", "103"), ("link", "x")], false),
                headers(1, &[(":status", "200"), ("a", "b")], false),
                data(1, b"hi", false),
                headers(1, &[("t", "u")], true),
            ]
            .concat(),
        )
        .unwrap();
    assert_eq!(
        seen,
        [
            Seen::Head { stream: 1, text: "HTTP/1.1 103 |link: x||".into(), framing: Framing::None },
            Seen::Head { stream: 1, text: "HTTP/1.1 200 |a: b||".into(), framing: Framing::Chunked },
            Seen::Data { stream: 1, bytes: b"hi".to_vec() },
            Seen::End { stream: 1, trailers: "t: u|".into() },
        ]
    );
    for (section, fields, end, why) in [
        ("8.3.2: no status", &[("a", "b")][..], true, Malformed::PseudoField),
        ("8.3.2: of a request", &[(":status", "200"), (":path", "/")], true, Malformed::PseudoField),
        ("8.3.2: two", &[(":status", "200"), (":status", "200")], true, Malformed::PseudoField),
        ("8.3.2: no number", &[(":status", "2x0")], true, Malformed::PseudoField),
        ("8.3.2: too short", &[(":status", "20")], true, Malformed::PseudoField),
        ("8.3.2: below 100", &[(":status", "099")], true, Malformed::PseudoField),
        ("8.3: behind a field", &[("a", "b"), (":status", "200")], true, Malformed::PseudoField),
        ("8.6: 101", &[(":status", "101")], false, Malformed::UnexpectedUpgrade),
        ("8.1: an interim end", &[(":status", "100")], true, Malformed::UnexpectedUpgrade),
        ("8.2.2: TE in a response", &[(":status", "200"), ("te", "trailers")], true, Malformed::ConnectionField),
        ("8.1.1: no content", &[(":status", "200"), ("content-length", "4")], true, Malformed::LengthMismatch),
    ] {
        let mut rig = client(1);
        assert_eq!(rig.feed(&headers(1, fields, end)), Ok(vec![Seen::Reset { stream: 1, why }]), "{section}");
        assert_eq!(rig.put().last().map(|frame| (frame.kind, frame.word(0))), Some((RST_STREAM, 1)), "{section}");
    }
    let mut rig = client(1);
    let many: Vec<u8> = (0..17).flat_map(|_| headers(1, &[(":status", "103")], false)).collect();
    assert_eq!(rig.feed(&many).unwrap().last(), Some(&Seen::Reset { stream: 1, why: Malformed::TooManyInterim }));
}

#[test]
fn rfc8441_extended_connect_is_an_upgrade_on_both_sides() {
    const WEBSOCKET: &[u8] = b"GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let mut ours = client(0);
    assert_eq!(ours.send_request(WEBSOCKET, Framing::None), Err(Refused::Gone), "§3: not without the setting");
    ours.feed(&settings(&[(8, 1)])).unwrap();
    ours.put();
    let stream = ours.send_request(WEBSOCKET, Framing::None).unwrap();
    let request = std::mem::take(&mut ours.out);

    let mut theirs = server();
    let seen = theirs.feed(&[headers(1, GET, true), request].concat().split_off(0)).unwrap_or_default();
    assert!(seen.len() > 1);
    let mut theirs = server();
    let request = {
        let mut again = client(0);
        again.feed(&settings(&[(8, 1)])).unwrap();
        again.put();
        again.send_request(WEBSOCKET, Framing::None).unwrap();
        again.out
    };
    let seen = theirs.feed(&request).unwrap();
    assert_eq!(
        seen,
        [Seen::Head {
            stream: 1,
            text: "GET /chat HTTP/1.1|host: a|sec-websocket-version: 13|connection: upgrade|upgrade: websocket||"
                .into(),
            framing: Framing::None
        }]
    );
    // Granted with 101, which travels as 200 and arrives as 101.
    let text = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: y\r\n\r\n";
    let mut fields = Fields::default();
    let head = proto::h1::parse_response(text, &HeadLimits::DEFAULT, Method::Get, &mut fields).unwrap().unwrap();
    let rewrite = proto::h1::ResponseRewrite::new(&head, proto::http::Version::Http2);
    theirs.out.clear();
    theirs.connection.write_response(StreamId(1), text, &head, &fields, &rewrite, &mut theirs.out).unwrap();
    theirs.queue(1, 3);
    theirs.send();
    let answer = std::mem::take(&mut theirs.out);
    assert_eq!(Blocks::default().read(&frames(&answer)[0]), [(":status".into(), "200".into())]);
    let seen = ours.feed(&answer).unwrap();
    assert_eq!(
        seen[0],
        Seen::Head {
            stream: stream.0,
            text: "HTTP/1.1 101 |connection: upgrade|upgrade: websocket||".into(),
            framing: Framing::None
        }
    );
    assert_eq!(seen[1], Seen::Data { stream: stream.0, bytes: vec![1; 3] });
    // Both directions flow, and close one after the other (RFC 9113 §8.5).
    assert!(matches!(theirs.feed(&data(1, b"ping", true)).unwrap()[..], [Seen::Data { .. }, Seen::End { .. }]));
    theirs.queue(1, 5);
    theirs.finish(1);
    theirs.send();
    let put = theirs.put();
    assert_eq!((put.len(), put[0].flags, theirs.connection.streams()), (1, END_STREAM, 0));
    // A server that does not offer it takes none.
    let mut rig = Rig::<Server>::new(Limits { connect_protocol: false, ..Limits::DEFAULT });
    rig.feed(&[PREFACE, &settings(&[])].concat()).unwrap();
    assert!(matches!(
        rig.feed(&frame(
            HEADERS,
            END_HEADERS,
            1,
            &block(&[(":method", "CONNECT"), (":protocol", "websocket"), GET[1], GET[2], GET[3]])
        ))
        .unwrap()[..],
        [Seen::Refused { answerable: false, .. }]
    ));
}

#[test]
fn rfc9113_8_5_connect_is_a_tunnel_without_trailers() {
    let mut rig = server();
    rig.feed(&headers(1, &[(":method", "CONNECT"), (":authority", "a:1")], false)).unwrap();
    rig.answer(1, Framing::None);
    assert_eq!(rig.put()[0].flags, END_HEADERS, "a tunnel does not end with its head");
    rig.queue(1, 7);
    rig.send();
    assert_eq!(rig.put()[0].payload.len(), 7);
    let seen = rig.feed(&[data(1, b"in", false), headers(1, &[("a", "b")], true)].concat()).unwrap();
    assert_eq!(seen[1], Seen::Reset { stream: 1, why: Malformed::UnexpectedHead });
}

/// Heads that are said again and again, with a table that changes between them or does not, mean what they mean to one who hears them first.
#[test]
fn what_is_said_again_means_the_same_as_long_as_it_does() {
    let (mut rig, mut encoder, mut random) = (server(), Encoder::new(), 1_u64);
    let mut choose = |most: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % most
    };
    let long = "v".repeat(300);
    let bodies = [with(POST, &[("content-length", "2"), ("x", "y")]), with(GET, &[("cookie", "a=b"), ("cookie", "c")])];
    let more =
        [with(GET, &[("x-long", &long)]), with(GET, &[("authorization", "secret")]), with(GET, &[("te", "gzip")])];
    let (mut kind, mut end, mut recalled) = (0, true, 0);
    for stream in (1..6_001).step_by(2) {
        // Mostly the same as before.
        if choose(6) == 0 {
            (kind, end) = (choose(6) as usize, choose(2) == 0);
        }
        let new = stream.to_string();
        let fresh = with(GET, &[("x-new", &new)]);
        let fields = bodies.iter().chain(&more).nth(kind).unwrap_or(&fresh);
        let (mut block, shrinks) = (Vec::new(), choose(40) == 0);
        if shrinks {
            encoder.set_table_max([0, 100, 4096][choose(3) as usize]);
        }
        encoder.begin(&mut block);
        let never = fields.iter().any(|(name, _)| *name == "authorization");
        let how = if never { Indexing::Never } else { Indexing::Store };
        fields.iter().for_each(|(name, value)| encoder.field(name.as_bytes(), value.as_bytes(), how, &mut block));
        let flags = END_HEADERS | if end { END_STREAM } else { 0 };
        let seen = rig.feed(&frame(HEADERS, flags, stream, &block)).unwrap();
        recalled += usize::from(block.len() < 8);
        let first = request(fields, end).0;
        let without_number = |seen: &[Seen]| format!("{seen:?}").replace(&format!("stream: {stream},"), "stream: 1,");
        assert_eq!(without_number(&seen), without_number(&first), "{fields:?}");
        rig.connection.reset(StreamId(stream), ErrorCode::CANCEL, &mut rig.out);
        rig.put();
        rig.now += std::time::Duration::from_millis(100);
    }
    assert!(recalled > 500, "{recalled}");
    assert!(rig.connection.memory() < 32 * 1024, "{}", rig.connection.memory());
    rig.connection.trim();
    assert!(rig.connection.memory() < 8 * 1024, "{}", rig.connection.memory());
}

/// Trailers that are said again are what they were, and so are those behind them.
#[test]
fn trailers_that_are_said_again_mean_the_same() {
    let mut rig = server();
    let fine = &[("grpc-status", "0")][..];
    let failed = &[("grpc-status", "5"), ("age", "1"), ("grpc-message", "no")][..];
    let withheld = &[("age", "1")][..];
    let all = [fine, fine, fine, failed, fine, withheld, withheld, withheld, fine, failed, failed, failed, failed];
    for (stream, said) in (1..).step_by(2).zip(all.into_iter().cycle().take(100)) {
        let seen = rig.feed(&[headers(stream, POST, false), headers(stream, said, true)].concat()).unwrap();
        let expected: Vec<_> = said.iter().filter(|(name, _)| *name != "age").collect();
        let line = expected.iter().map(|(name, value)| format!("{name}: {value}|")).collect();
        assert_eq!(seen[1], Seen::End { stream, trailers: line });
        let trailers = rig.space.trailers();
        let found = trailers.iter().map(|(name, value)| [name, value].map(|text| String::from_utf8_lossy(text)));
        assert!(found.eq(expected.iter().map(|(name, value)| [*name, *value])), "{trailers:?}");
        rig.connection.reset(StreamId(stream), ErrorCode::CANCEL, &mut rig.out);
        rig.put();
        rig.now += std::time::Duration::from_millis(100);
    }
}

/// The same block may answer two requests, and mean different things to them.
#[test]
fn an_answer_that_is_said_again_is_judged_by_what_was_asked() {
    let mut rig = client(0);
    let answer = |stream, end| headers(stream, &with(OK, &[("content-length", "5")]), end);
    for round in 0..4 {
        for method in [Method::Head, Method::Head, Method::Head, Method::Get, Method::Get] {
            let stream = rig.get(method);
            let seen = rig.feed(&answer(stream, true)).unwrap();
            match (method, &seen[..]) {
                (Method::Head, [Seen::Head { text, .. }, Seen::End { .. }]) => {
                    assert_eq!(text, "HTTP/1.1 200 |content-length: 5||", "round {round}");
                }
                (Method::Get, [Seen::Reset { why: Malformed::LengthMismatch, .. }]) => {}
                other => panic!("round {round}: {other:?}"),
            }
        }
        for (end, framing) in [(false, Framing::Length(5)), (false, Framing::Length(5)), (false, Framing::Length(5))] {
            let stream = rig.get(Method::Get);
            let seen = rig.feed(&answer(stream, end)).unwrap();
            assert!(matches!(seen[..], [Seen::Head { framing: found, .. }] if found == framing), "{seen:?}");
            rig.connection.reset(StreamId(stream), ErrorCode::CANCEL, &mut rig.out);
        }
    }
}
