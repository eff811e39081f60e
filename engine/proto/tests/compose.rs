//! Heads as they leave, as text.

use proto::h1::{
    Encoder, FixedSink, HeadLimits, Refused, RequestRewrite, Respond, ResponseRewrite, parse_request, parse_response,
    write_interim, write_request, write_response,
};
use proto::http::{Fields, Framing, Known, KnownSet, Method, Status, Version, hop};

fn forwarded(text: &str, change: impl FnOnce(&mut RequestRewrite<'_>)) -> Result<String, Refused> {
    let (bytes, mut fields) = (text.as_bytes(), Fields::default());
    let head = parse_request(bytes, &HeadLimits::DEFAULT, &mut fields).unwrap().unwrap();
    let stripped = hop::strip(&mut fields, bytes, head.framing);
    let mut rewrite = RequestRewrite::new(&head);
    rewrite.te_trailers = stripped.te_trailers;
    change(&mut rewrite);
    let mut out = Vec::new();
    write_request(bytes, &head, &fields, &rewrite, &mut out).map(|()| String::from_utf8(out).unwrap())
}

fn returned(text: &str, method: Method, peer: Version, change: impl FnOnce(&mut ResponseRewrite<'_>)) -> String {
    let (bytes, mut fields) = (text.as_bytes(), Fields::default());
    let head = parse_response(bytes, &HeadLimits::DEFAULT, method, &mut fields).unwrap().unwrap();
    hop::strip(&mut fields, bytes, head.framing);
    let mut rewrite = ResponseRewrite::new(&head, peer);
    change(&mut rewrite);
    let mut out = Vec::new();
    write_response(bytes, &head, &fields, &rewrite, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn requests() {
    let same = "GET /a?b HTTP/1.1\r\nHost: x\r\nAccept: y\r\n\r\n";
    assert_eq!(forwarded(same, |_| {}).unwrap(), same);
    assert_eq!(
        forwarded(
            "POST / HTTP/1.1\r\nHost: x\r\nConnection: close, z\r\nA: 1\r\nZ: 2\r\nContent-Length: 3\r\n\r\nabc",
            |_| {}
        )
        .unwrap(),
        "POST / HTTP/1.1\r\nHost: x\r\nA: 1\r\nContent-Length: 3\r\n\r\n"
    );
    assert_eq!(
        forwarded("GET http://y/a?b HTTP/1.1\r\nHost: x\r\n\r\n", |_| {}).unwrap(),
        "GET /a?b HTTP/1.1\r\nhost: y\r\n\r\n"
    );
    assert_eq!(
        forwarded("GET http://y?b HTTP/1.1\r\nHost: x\r\n\r\n", |_| {}).unwrap(),
        "GET /?b HTTP/1.1\r\nhost: y\r\n\r\n"
    );
    assert_eq!(
        forwarded("OPTIONS http://y HTTP/1.1\r\nHost: x\r\n\r\n", |_| {}).unwrap(),
        "OPTIONS * HTTP/1.1\r\nhost: y\r\n\r\n"
    );
    assert_eq!(
        forwarded("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n", |_| {}).unwrap(),
        "POST / HTTP/1.1\r\nHost: x\r\ntransfer-encoding: chunked\r\nte: trailers\r\nconnection: te\r\n\r\n"
    );
    assert_eq!(
        forwarded(
            "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n",
            |_| {}
        )
        .unwrap(),
        "GET / HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Key: k\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
    );
    assert_eq!(
        forwarded("GET / HTTP/1.0\r\nExpect: x\r\n\r\n", |rewrite| rewrite.host = Some(b"up")).unwrap(),
        "GET / HTTP/1.1\r\nhost: up\r\n\r\n"
    );
}

#[test]
fn requests_rewritten() {
    let text = "POST /a HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1\r\nContent-Length: 3\r\n\r\n";
    let out = forwarded(text, |rewrite| {
        rewrite.target = Some(b"/b");
        rewrite.host = Some(b"up");
        rewrite.framing = Framing::Chunked;
        rewrite.persistent = false;
        rewrite.without = KnownSet::of(&[Known::XForwardedFor]);
        rewrite.add = &[(b"x-forwarded-for", b"1, 2"), (b"via", b"1.1 p")];
    });
    assert_eq!(
        out.unwrap(),
        "POST /b HTTP/1.1\r\nhost: up\r\ntransfer-encoding: chunked\r\nconnection: close\r\nx-forwarded-for: 1, 2\r\nvia: 1.1 p\r\n\r\n"
    );
    // A length that the caller leaves out is written from the verdict all the same.
    let out = forwarded(text, |rewrite| rewrite.without = KnownSet::of(&[Known::ContentLength]));
    assert!(out.unwrap().contains("\r\ncontent-length: 3\r\n"));
    assert_eq!(forwarded(text, |rewrite| rewrite.add = &[(b"a", b"b\r\nc: d")]), Err(Refused::Field));
    assert_eq!(forwarded(text, |rewrite| rewrite.add = &[(b"a b", b"c")]), Err(Refused::Field));
    assert_eq!(forwarded(text, |rewrite| rewrite.target = Some(b"/ HTTP/1.1\r\n")), Err(Refused::Field));
    assert_eq!(forwarded(text, |rewrite| rewrite.host = Some(b"a\r\nb: c")), Err(Refused::Field));
}

#[test]
fn responses() {
    use Version::{Http10, Http11};
    let length = "HTTP/1.0 200 Fine\r\nContent-Length: 3\r\nKeep-Alive: 1\r\nA: b\r\n\r\n";
    assert_eq!(returned(length, Method::Get, Http11, |_| {}), "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nA: b\r\n\r\n");
    assert_eq!(
        returned(length, Method::Get, Http10, |_| {}),
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nA: b\r\nconnection: keep-alive\r\n\r\n"
    );
    assert_eq!(
        returned(length, Method::Head, Http11, |rewrite| rewrite.persistent = false),
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nA: b\r\nconnection: close\r\n\r\n"
    );
    let chunked = "HTTP/1.1 299 Odd\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(
        returned(chunked, Method::Get, Http11, |_| {}),
        "HTTP/1.1 299 Odd\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    assert_eq!(returned(chunked, Method::Get, Http10, |_| {}), "HTTP/1.1 299 Odd\r\nconnection: close\r\n\r\n");
    let close = "HTTP/1.1 200 OK\r\nA: b\r\n\r\n";
    assert_eq!(
        returned(close, Method::Get, Http11, |_| {}),
        "HTTP/1.1 200 OK\r\nA: b\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    assert_eq!(
        returned("HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n", Method::Get, Http11, |_| {}),
        "HTTP/1.1 204 No Content\r\n\r\n"
    );
    assert_eq!(
        returned("HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", Method::Get, Http11, |_| {}),
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
    );
}

#[test]
fn interim_responses() {
    let (bytes, mut fields) = (b"HTTP/1.1 103 x\r\nLink: a\r\nConnection: close\r\n\r\n", Fields::default());
    let head = parse_response(bytes, &HeadLimits::DEFAULT, Method::Get, &mut fields).unwrap().unwrap();
    let mut out = Vec::new();
    write_interim(bytes, &head, &fields, &mut out).unwrap();
    assert_eq!(out, b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n");
}

#[test]
fn a_sink_that_is_full_refuses() {
    let (bytes, mut fields) = (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Fields::default());
    let head = parse_request(bytes, &HeadLimits::DEFAULT, &mut fields).unwrap().unwrap();
    for size in 0..=bytes.len() {
        let (mut storage, enough) = (vec![0; size], size == bytes.len());
        let mut sink = FixedSink::new(&mut storage);
        let written = write_request(bytes, &head, &fields, &RequestRewrite::new(&head), &mut sink);
        assert_eq!(written, if enough { Ok(()) } else { Err(Refused::Full) });
        assert!(!enough || sink.written() == bytes);
    }
}

#[test]
fn bodies_keep_their_promise() {
    let mut length = Encoder::new(Framing::Length(5));
    assert!(length.frame(3).is_ok());
    assert_eq!(length.frame(3).err(), Some(Refused::Length));
    assert_eq!(length.end(), Err(Refused::Length));
    assert_eq!(Encoder::new(Framing::None).frame(1).err(), Some(Refused::Length));
    let mut chunked = Encoder::new(Framing::Chunked);
    let frame = chunked.frame(0x1a2b).unwrap();
    assert_eq!((&*frame.prefix, frame.suffix), (&b"1a2b\r\n"[..], &b"\r\n"[..]));
    assert_eq!(&*chunked.frame(usize::MAX).unwrap().prefix, b"ffffffffffffffff\r\n");
    assert!(chunked.frame(0).unwrap().prefix.is_empty());
    assert_eq!(chunked.end(), Ok(&b"0\r\n\r\n"[..]));
}

#[test]
fn our_own_responses() {
    let text = |respond: &Respond<'_>| {
        let mut out = Vec::new();
        respond.write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let mut respond = Respond::new(Status::SERVICE_UNAVAILABLE);
    assert_eq!(text(&respond), "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    respond =
        Respond { content_type: b"text/plain", body: b"busy\n", retry_after: Some(7), persistent: true, ..respond };
    assert_eq!(
        text(&respond),
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: 5\r\nretry-after: 7\r\n\r\nbusy\n"
    );
    respond.head_only = true;
    assert!(text(&respond).ends_with("retry-after: 7\r\n\r\n"));
}
