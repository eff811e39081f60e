//! Requests that two readers could understand differently, each with the verdict that is due.

use proto::Malformed::{self, *};
use proto::h1::{HeadLimits, parse_request, parse_response};
use proto::http::{Fields, Framing, Method};

fn verdict(text: &[u8]) -> Result<Option<Framing>, Malformed> {
    let head = parse_request(text, &HeadLimits::DEFAULT, &mut Fields::default());
    head.map(|head| head.map(|head| head.framing))
}

type Case = (&'static [u8], Result<Option<Framing>, Malformed>);

const REQUESTS: &[Case] = &[
    // The ordinary, so that the rest means something.
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(Some(Framing::None))),
    (b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(Some(Framing::None))),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:5\r\n\r\nhello", Ok(Some(Framing::Length(5)))),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \t 5 \t\r\n\r\n", Ok(Some(Framing::Length(5)))),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", Ok(Some(Framing::Chunked))),
    (b"GET / HTTP/1.0\r\n\r\n", Ok(Some(Framing::None))),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r", Ok(None)),
    (b"", Ok(None)),
    (b"\r", Ok(None)),
    (b"\r\n", Ok(None)),
    // CL.TE, TE.CL, TE.TE.
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n", Err(LengthAndCoding)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n", Err(LengthAndCoding)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\nContent-Length: 4\r\n\r\n", Err(LengthAndCoding)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n", Err(TransferCoding)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n", Err(TransferCoding)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n", Err(FieldName)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\t: chunked\r\n\r\n", Err(FieldName)),
    (b"POST / HTTP/1.1\r\nHost: a\r\n Transfer-Encoding: chunked\r\n\r\n", Err(FieldName)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", Err(TransferCoding)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunkedx\r\n\r\n", Err(TransferCoding)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n", Err(TransferCoding)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity, chunked\r\n\r\n", Err(TransferCoding)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", Err(TransferCoding)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n", Err(TransferCoding)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", Err(FieldValue)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0cchunked\r\n\r\n", Err(FieldValue)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\x00\r\n\r\n", Err(FieldValue)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tchunked\r\n\r\n", Ok(Some(Framing::Chunked))),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n", Err(FieldName)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n", Err(FieldName)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n", Err(LineEnd)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n", Err(FieldValue)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Err(CodingNotImplemented)),
    (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Err(CodingOnVersion10)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer\x00-Encoding: chunked\r\n\r\n", Err(FieldName)),
    // Lengths.
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", Err(ContentLength)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 0\r\n\r\n", Err(ContentLength)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", Err(ContentLength)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", Err(ContentLength)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -0\r\n\r\n", Err(ContentLength)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n", Err(ContentLength)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\n", Err(ContentLength)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5;\r\n\r\n", Err(ContentLength)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \xc2\xb2\r\n\r\n", Err(ContentLength)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", Err(ContentLength)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", Err(ContentLength)),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n", Err(FieldName)),
    (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 5\r\n\r\n", Err(ConnectWithBody)),
    // Lines.
    (b"GET / HTTP/1.1\nHost: a\r\n\r\n", Err(LineEnd)),
    (b"GET / HTTP/1.1\r\nHost: a\n\r\n", Err(LineEnd)),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\n", Err(LineEnd)),
    (b"GET / HTTP/1.1\n\n", Err(LineEnd)),
    (b"GET / HTTP/1.0\r\n\n", Err(LineEnd)),
    (b"GET / HTTP/1.0\n\r\n", Err(LineEnd)),
    (b"GET / HTTP/1.1\rHost: a\r\n\r\n", Err(LineEnd)),
    (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Err(RequestLine)),
    (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Err(RequestLine)),
    (b"\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Err(RequestLine)),
    (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", Err(RequestLine)),
    (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Err(RequestLine)),
    (b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", Err(Version)),
    (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", Err(RequestLine)),
    (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Err(LineEnd)),
    (b"GET /\r\n\r\n", Err(RequestLine)),
    (b"GET /\r\nHost: a\r\n\r\n", Err(RequestLine)),
    (b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", Err(RequestLine)),
    (b"GET / http/1.1\r\nHost: a\r\n\r\n", Err(Version)),
    (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", Err(Version)),
    (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", Err(Version)),
    (b"GET / HTTP/01.1\r\nHost: a\r\n\r\n", Err(Version)),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Err(Http2Preface)),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Err(RequestLine)),
    // Fields.
    (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", Err(FieldName)),
    (b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", Err(FieldName)),
    (b"GET / HTTP/1.1\r\nHost: a\r\nb\r\n\r\n", Err(FieldName)),
    (b"GET / HTTP/1.1\r\nHost: a\r\nb(: c\r\n\r\n", Err(FieldName)),
    (b"GET / HTTP/1.1\r\nHost: a\r\nb\x80: c\r\n\r\n", Err(FieldName)),
    (b"GET / HTTP/1.1\r\nHost: a\r\nb: c\r\n d\r\n\r\n", Err(FieldName)),
    (b"GET / HTTP/1.1\r\nHost: a\r\nb: c\x7fd\r\n\r\n", Err(FieldValue)),
    (b"GET / HTTP/1.1\r\nHost: a\r\nb: c\x00d\r\n\r\n", Err(FieldValue)),
    (b"GET / HTTP/1.1\r\nHost: a\r\nb: c\x1bd\r\n\r\n", Err(FieldValue)),
    (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", Err(Expectation)),
    // Host and target.
    (b"GET / HTTP/1.1\r\n\r\n", Err(HostMissing)),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Err(HostRepeated)),
    (b"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", Err(HostRepeated)),
    (b"GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n", Err(HostRepeated)),
    (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", Err(HostInvalid)),
    (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Err(HostInvalid)),
    (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Err(HostInvalid)),
    (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Err(HostInvalid)),
    (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", Err(HostInvalid)),
    (b"GET / HTTP/1.1\r\nHost: a:80x\r\n\r\n", Err(HostInvalid)),
    (b"GET http://a/ HTTP/1.1\r\n\r\n", Err(HostMissing)),
    (b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", Err(HostInvalid)),
    (b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", Err(HostInvalid)),
    (b"GET @a/ HTTP/1.1\r\nHost: a\r\n\r\n", Err(Target)),
    (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", Err(Target)),
    (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", Err(Target)),
    (b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n", Err(Target)),
    (b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", Err(Target)),
    (b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n", Err(RequestLine)),
    (b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", Err(RequestLine)),
];

#[test]
fn requests() {
    for (text, expected) in REQUESTS {
        assert_eq!(verdict(text), *expected, "{}", text.escape_ascii());
    }
}

#[test]
fn an_absolute_target_overrides_host() {
    let text = b"GET http://inner:8080/p?q HTTP/1.1\r\nHost: outer\r\n\r\n";
    let mut fields = Fields::default();
    let head = parse_request(text, &HeadLimits::DEFAULT, &mut fields).unwrap().unwrap();
    assert_eq!(head.authority.of(text), b"inner:8080");
    assert_eq!(head.host.of(text), b"outer");
    assert_eq!((head.path.of(text), head.query.of(text)), (&b"/p"[..], &b"q"[..]));
}

#[test]
fn limits() {
    let limits = HeadLimits { bytes: 200, target: 20, fields: 3 };
    let verdict =
        |text: &str| parse_request(text.as_bytes(), &limits, &mut Fields::default()).map(|head| head.is_some());
    let fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "b: c\r\n".repeat(count));
    assert_eq!(verdict(&fields(2)), Ok(true));
    assert_eq!(verdict(&fields(3)), Err(TooManyFields));
    let target = |len: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(len - 1));
    assert_eq!(verdict(&target(20)), Ok(true));
    assert_eq!(verdict(&target(21)), Err(TargetTooLong));
    assert_eq!(verdict(&target(21)[..26]), Err(TargetTooLong));
    assert_eq!(verdict(&target(300)), Err(TargetTooLong));
    let head = |len: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nb: {}\r\n\r\n", "x".repeat(len - 32));
    assert_eq!(head(200).len(), 200);
    assert_eq!(verdict(&head(200)), Ok(true));
    assert_eq!(verdict(&head(201)), Err(HeadTooLong));
    assert_eq!(verdict(&head(201)[..200]), Err(HeadTooLong));
    assert_eq!(verdict(&head(201)[..199]), Ok(false));
    assert_eq!(verdict(&"X".repeat(40)), Err(MethodTooLong));
    let long = format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "X".repeat(33));
    assert_eq!(verdict(&long), Err(MethodTooLong));
}

#[test]
fn verdicts_have_a_status() {
    for (malformed, status) in [
        (HeadTooLong, 431),
        (TooManyFields, 431),
        (TargetTooLong, 414),
        (MethodTooLong, 501),
        (CodingNotImplemented, 501),
        (Malformed::Version, 505),
        (Http2Preface, 505),
        (Expectation, 417),
        (LengthAndCoding, 400),
    ] {
        assert_eq!(malformed.status().code(), status, "{malformed:?}");
    }
}

#[test]
fn an_upgrade_is_offered_only_when_it_may_be_taken() {
    let offered = |lines: &str| {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let head = parse_request(text.as_bytes(), &HeadLimits::DEFAULT, &mut Fields::default()).unwrap().unwrap();
        String::from_utf8(head.upgrade.of(text.as_bytes()).to_vec()).unwrap()
    };
    assert_eq!(offered("Connection: Upgrade\r\nUpgrade: websocket\r\n"), "websocket");
    assert_eq!(offered("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n"), "websocket");
    assert_eq!(offered("Upgrade: websocket\r\n"), "");
    assert_eq!(offered("Connection: Upgrade\r\n"), "");
    assert_eq!(offered("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n"), "");
    assert_eq!(offered("Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n"), "");
    assert_eq!(offered("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"), "");
    assert_eq!(offered("Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n"), "");
    assert_eq!(offered("Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n"), "");
}

#[test]
fn responses() {
    let verdict = |text: &[u8]| {
        let head = parse_response(text, &HeadLimits::DEFAULT, Method::Get, &mut Fields::default());
        head.map(|head| head.map(|head| (head.status.code(), head.framing, head.persistent)))
    };
    type Case<'a> = (&'a [u8], Result<Option<(u16, Framing, bool)>, Malformed>);
    let table: &[Case<'_>] = &[
        (b"HTTP/1.1 200 OK\r\n\r\n", Ok(Some((200, Framing::UntilClose, false)))),
        (b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\n", Ok(Some((200, Framing::Length(1), true)))),
        (b"HTTP/1.1 200 \r\nContent-Length: 1\r\n\r\n", Ok(Some((200, Framing::Length(1), true)))),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", Ok(Some((200, Framing::Length(1), false)))),
        (
            b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n",
            Ok(Some((200, Framing::Length(1), true))),
        ),
        (
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n",
            Ok(Some((200, Framing::Length(1), false))),
        ),
        (b"HTTP/1.1 204 No\r\nContent-Length: 1\r\n\r\n", Ok(Some((204, Framing::None, true)))),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", Err(ContentLength)),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", Err(LengthAndCoding)),
        (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Err(CodingOnVersion10)),
        (b"HTTP/1.1 200 OK\r\nX : 1\r\n\r\n", Err(FieldName)),
        (b"HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\n\r\n", Err(FieldName)),
        (b"HTTP/1.1 200 OK\nX: 1\r\n\r\n", Err(LineEnd)),
        (b"HTTP/1.1 200 OK\n\n", Err(LineEnd)),
        (b"\r\nHTTP/1.1 200 OK\r\n\r\n", Err(StatusLine)),
        (b"HTTP/1.1 099 OK\r\n\r\n", Err(StatusLine)),
        (b"HTTP/1.1 2000 OK\r\n\r\n", Err(StatusLine)),
        (b"HTTP/1.1  200 OK\r\n\r\n", Err(StatusLine)),
        (b"HTTP/2 200 OK\r\n\r\n", Err(Version)),
        (b"ICY 200 OK\r\n\r\n", Err(Version)),
        (b"HTTP/1.1 101 Switching\r\n\r\n", Err(UnexpectedUpgrade)),
    ];
    for (text, expected) in table {
        assert_eq!(verdict(text), *expected, "{}", text.escape_ascii());
    }
}
