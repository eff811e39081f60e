//! Messages as HTTP/2 writes them, from whichever protocol they came (RFC 9113 §8, RFC 7541 §7.1, RFC 9218).

mod wire;

use proto::Event;
use proto::h1::{
    Encoder, FixedSink, HeadLimits, Refused, RequestRewrite, Respond, ResponseRewrite, Trailers, parse_request,
    parse_response, write_request,
};
use proto::h2::{Connection, ErrorCode, HeadSpace, Limits, Priority, Said, Server, StreamId};
use proto::http::{Fields, Framing, Known, Method, Status, Version};
use std::time::Duration;
use wire::*;

#[test]
fn requests_are_written() {
    let mut rig = client(0);
    let mut blocks = Blocks::default();
    let mut asked = |text: &str, framing| {
        rig.send_request(text.as_bytes(), framing).unwrap();
        let put = rig.put();
        let joined: Vec<String> =
            blocks.read(&put[0]).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        (joined.join("|"), put[0].flags & END_STREAM != 0)
    };
    assert_eq!(
        asked("GET /p?q HTTP/1.1\r\nHost: a:1\r\nX-Mixed: Yes\r\nCookie: a=b; c=d\r\n\r\n", Framing::None),
        (":method=GET|:scheme=https|:authority=a:1|:path=/p?q|x-mixed=Yes|cookie=a=b; c=d".into(), true)
    );
    assert_eq!(
        asked("POST http://b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", Framing::Length(3)),
        (":method=POST|:scheme=https|:authority=b|:path=/|content-length=3".into(), false)
    );
    assert_eq!(
        asked(
            "OPTIONS http://b HTTP/1.1\r\nHost: a\r\nConnection: x\r\nKeep-Alive: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            Framing::Chunked
        ),
        (":method=OPTIONS|:scheme=https|:authority=b|:path=*".into(), false)
    );
    assert_eq!(
        asked("CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n", Framing::None),
        (":method=CONNECT|:authority=b:443".into(), false)
    );
    assert_eq!(
        asked("M-SEARCH * HTTP/1.1\r\nHost: a\r\n\r\n".replace("M-SEARCH", "OPTIONS").as_str(), Framing::None).0,
        ":method=OPTIONS|:scheme=https|:authority=a|:path=*"
    );
}

#[test]
fn responses_of_ours_are_written() {
    let mut rig = server();
    rig.feed(
        &[headers(1, &with(&[(":method", "HEAD")], &GET[1..]), true), headers(3, GET, true), headers(5, GET, true)]
            .concat(),
    )
    .unwrap();
    let added: &[(&[u8], &[u8])] = &[(b"X-A", b"b")];
    let respond = Respond {
        body: b"1234",
        content_type: b"text/plain",
        retry_after: Some(7),
        add: added,
        head_only: true,
        ..Respond::new(Status::SERVICE_UNAVAILABLE)
    };
    rig.connection.respond(StreamId(1), &respond, &mut rig.out).unwrap();
    assert_eq!(rig.connection.respond(StreamId(1), &respond, &mut rig.out), Err(Refused::Gone), "once");
    let put = rig.put();
    let fields = Blocks::default().read(&put[0]);
    let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, [":status", "content-type", "content-length", "retry-after", "x-a"]);
    assert_eq!((put.len(), put[0].flags), (1, END_HEADERS | END_STREAM));
    // A promise of content is kept, or the stream is reset.
    rig.answer(3, Framing::Length(3));
    assert_eq!(rig.connection.queue(rig.now, StreamId(3), 4, &mut rig.out), Err(Refused::Length));
    rig.answer(5, Framing::Length(3));
    rig.queue(5, 2);
    assert_eq!(rig.connection.finish(StreamId(5), &mut rig.out), Err(Refused::Length));
    let resets: Vec<_> = rig
        .put()
        .into_iter()
        .filter(|frame| frame.kind == RST_STREAM)
        .map(|frame| (frame.stream, frame.word(0)))
        .collect();
    assert_eq!(resets, [(3, 2), (5, 2)]);
    rig.send();
    assert_eq!((rig.put(), rig.connection.streams()), (vec![], 0));
}

#[test]
fn heads_pass_between_protocols_without_translation() {
    // From HTTP/2 to an HTTP/1 origin: the writer of HTTP/1 takes what HTTP/2 read.
    let (mut connection, mut space, mut out) =
        (Connection::<Server>::new(Limits::DEFAULT), HeadSpace::default(), Vec::new());
    let bytes = [
        PREFACE,
        &settings(&[]),
        &headers(1, &with(POST, &[("x-a", "b"), ("te", "trailers"), ("cookie", "a=b"), ("cookie", "c=d")]), false),
    ]
    .concat();
    let step = connection.read(Duration::ZERO, &bytes, &mut space, &mut out).unwrap();
    let Said::Stream(_, Event::Head(head)) = step.said else { panic!("{:?}", step.said) };
    let stripped = proto::http::hop::strip(&mut space.fields, &space.text, head.framing);
    let rewrite = RequestRewrite { te_trailers: stripped.te_trailers, ..RequestRewrite::new(&head) };
    let mut storage = [0; 500];
    let mut sink = FixedSink::new(&mut storage);
    write_request(&space.text, &head, &space.fields, &rewrite, &mut sink).unwrap();
    assert_eq!(
        std::str::from_utf8(sink.written()).unwrap(),
        "POST / HTTP/1.1\r\nhost: a\r\nx-a: b\r\ncookie: a=b; c=d\r\ntransfer-encoding: chunked\r\nte: trailers\r\nconnection: te\r\n\r\n"
    );
    // And the text that HTTP/2 made of it reads as HTTP/1.
    let again = parse_request(&space.text, &HeadLimits::DEFAULT, &mut Fields::default()).unwrap().unwrap();
    assert_eq!((again.path, again.host), (head.path, head.host));
}

#[test]
fn trailers_pass_between_protocols() {
    let mut rig = server();
    rig.feed(
        &[headers(1, POST, false), headers(1, &[("x-sum", "1"), ("age", "2"), ("grpc-status", "0")], true)].concat(),
    )
    .unwrap();
    let trailers = Trailers::of(&rig.space.text, &rig.space.fields);
    let pairs: Vec<_> = trailers.iter().collect();
    assert_eq!(pairs, [(&b"x-sum"[..], &b"1"[..]), (b"grpc-status", b"0")], "what may be forwarded");
    let mut out = Vec::new();
    Encoder::new(Framing::Chunked).end_with(&trailers, &mut out).unwrap();
    assert_eq!(out, b"0\r\nx-sum: 1\r\ngrpc-status: 0\r\n\r\n");
    let mut client = client(0);
    let stream = client.ask(Method::Post, Framing::Chunked);
    client.connection.write_trailers(StreamId(stream), trailers.iter(), &mut client.out).unwrap();
    let put = client.put();
    let mut blocks = Blocks::default();
    blocks.read(&put[0]);
    assert_eq!(blocks.read(&put[1]), [("x-sum".into(), "1".into()), ("grpc-status".into(), "0".into())]);
    assert!(Trailers::of(b"", &Fields::default()).is_empty());
}

#[test]
fn rfc9113_8_2_2_nothing_of_a_connection_is_sent() {
    let text =
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, x\r\nKeep-Alive: 5\r\nProxy-Connection: y\r\nTE: trailers\r\n\
        Transfer-Encoding: chunked\r\nUpgrade: z\r\nServer: S\r\n\r\n";
    let mut fields = Fields::default();
    let head = proto::h1::parse_response(text, &HeadLimits::DEFAULT, Method::Get, &mut fields).unwrap().unwrap();
    let rewrite = ResponseRewrite::new(&head, Version::Http2);
    let mut rig = server();
    // The client's table has shrunk, and the next block says so (RFC 7541 §4.2).
    rig.feed(&[settings(&[(1, 0)]), headers(1, GET, true)].concat()).unwrap();
    rig.put();
    rig.connection.write_response(StreamId(1), text, &head, &fields, &rewrite, &mut rig.out).unwrap();
    let put = rig.put();
    assert_eq!(put[0].payload[0], 0x20);
    assert_eq!(Blocks::default().read(&put[0]), [(":status".into(), "200".into()), ("server".into(), "S".into())]);
    // Its length is told where there is one, and content then is as long.
    let text = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    let head = proto::h1::parse_response(text, &HeadLimits::DEFAULT, Method::Get, &mut fields).unwrap().unwrap();
    for (framing, length) in
        [(Framing::Length(5), Some("5")), (Framing::Length(7), Some("7")), (Framing::Chunked, None)]
    {
        let mut rig = server();
        rig.feed(&headers(1, GET, true)).unwrap();
        let rewrite = ResponseRewrite { framing, ..ResponseRewrite::new(&head, Version::Http2) };
        rig.connection.write_response(StreamId(1), text, &head, &fields, &rewrite, &mut rig.out).unwrap();
        let sent = Blocks::default().read(&rig.put()[0]);
        assert_eq!(sent.get(1).map(|(_, value)| value.as_str()), length);
    }
}

#[test]
fn secrets_are_never_indexed_and_stay_so() {
    // RFC 7541 §7.1.3: a field that came as never indexed leaves so.
    let literal = |name: &str, value: &str| [&[0x10][..], &block(&[(name, value)])[1..]].concat();
    let (mut connection, mut space, mut out) =
        (Connection::<Server>::new(Limits::DEFAULT), HeadSpace::default(), Vec::new());
    let request = [block(GET), literal("x-key", "k"), literal("cookie", "long-enough-to-be-indexed=1")].concat();
    let bytes = [PREFACE, &settings(&[]), &frame(HEADERS, END_HEADERS | END_STREAM, 1, &request)].concat();
    let step = connection.read(Duration::ZERO, &bytes, &mut space, &mut out).unwrap();
    let Said::Stream(_, Event::Head(head)) = step.said else { panic!() };
    assert!(space.fields.find(b"x-key", &space.text).unwrap().sensitive);
    assert!(space.fields.get(Known::Cookie).unwrap().sensitive && !space.fields.get(Known::Host).unwrap().sensitive);
    let mut upstream = client(0);
    upstream
        .connection
        .write_request(&space.text, &head, &space.fields, &RequestRewrite::new(&head), &mut upstream.out)
        .unwrap();
    let put = upstream.put();
    let mut decoder = proto::h2::hpack::Decoder::new();
    let mut marked = Vec::new();
    let limits = proto::h2::hpack::ListLimits { bytes: 9999, fields: 99 };
    decoder
        .decode(&put[0].payload, &limits, &mut Vec::new(), |text, line| {
            if line.never_indexed {
                marked.push(String::from_utf8_lossy(line.name(text)).into_owned());
            }
        })
        .unwrap();
    assert_eq!(marked, ["x-key", "cookie"]);
}

#[test]
fn the_path_of_a_call_is_kept_and_no_other_path() {
    let mut rig = client(0);
    let mut length_of = |path: &str, media_type: &str| {
        let text = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {media_type}\r\n\r\n");
        rig.send_request(text.as_bytes(), Framing::Chunked).unwrap();
        rig.put()[0].payload.len()
    };
    let mut again = |path: &str, media_type: &str| {
        length_of(path, media_type);
        length_of(path, media_type)
    };
    assert_eq!(again("/echo.Echo/Unary", "application/grpc"), 5, "five indexes");
    assert_eq!(again("/echo.Echo/Other", "application/grpc+proto"), 5);
    assert!(again("/echo.Echo/Unary?secret", "application/grpc") > 10);
    assert!(again("/accounts/secret", "application/json") > 10);
}

/// Heads and trailers that are written again and again, with a table that changes between them or does not, become what they become to one who
/// remembers nothing of the last ones.
#[test]
fn what_is_written_again_is_what_would_be_composed() {
    let (mut asking, mut answering) = ([client(0), client(0)], [server(), server()]);
    let mut random = 1_u64;
    let mut choose = |most: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % most
    };
    let (long, mut chosen, mut repeats) = ("v".repeat(2_000), [0; 7], 0);
    for stream in (1..6_001).step_by(2) {
        // Mostly the same as before, or but for one thing.
        match choose(12) {
            0 => chosen = chosen.map(|_| choose(3)),
            1 | 2 => chosen[choose(7) as usize] = choose(3),
            _ => repeats += 1,
        }
        if choose(60) == 0 {
            let shrinks = settings(&[(1, [0, 100, 4096][choose(3) as usize])]);
            asking.iter_mut().for_each(|rig| drop(rig.feed(&shrinks).unwrap()));
            answering.iter_mut().for_each(|rig| drop(rig.feed(&shrinks).unwrap()));
        }
        let fresh = format!("x-new: {stream}");
        let [path, line, add, host, framing, trailer, drops] = chosen.map(|at| at as usize);
        let line = ["x-a: b", "x-long: ", fresh.as_str()][line];
        let value = if line == "x-long: " { &long[..] } else { "" };
        let added = [(&b"x-forwarded-for"[..], &b"192.0.2.1"[..]), (b"via", b"1.1 a"), (b"x", b"y")];
        let add = &added[add..];
        let framing = [Framing::Chunked, Framing::Length(5), Framing::Chunked][framing];
        let trailers = [(&b"grpc-status"[..], &b"0"[..]), (b"grpc-message", fresh.as_bytes()), (b"a", b"b")];

        let text = format!("POST /{path} HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n{line}{value}\r\nX-Z: z\r\n\r\n");
        let mut fields = Fields::default();
        let head = parse_request(text.as_bytes(), &HeadLimits::DEFAULT, &mut fields).unwrap().unwrap();
        fields.drop_where(|field| drops == 1 && field.name.of(text.as_bytes()) == b"X-Z");
        let rewrite = RequestRewrite {
            target: (path == 2).then_some(b"/other"),
            host: [None, Some(&b"b"[..]), Some(b"a")][host],
            te_trailers: drops == 2,
            framing,
            add,
            ..RequestRewrite::new(&head)
        };
        for rig in &mut asking {
            let asked = rig.connection.write_request(text.as_bytes(), &head, &fields, &rewrite, &mut rig.out);
            assert_eq!(asked, Ok(StreamId(stream)));
            rig.connection.reset(StreamId(stream), ErrorCode::CANCEL, &mut rig.out);
        }
        let [mindful, forgetful] = &mut asking;
        assert_eq!(mindful.put(), forgetful.put(), "{text} {rewrite:?}");
        forgetful.connection.trim();

        let text = format!("HTTP/1.1 20{path} OK\r\nContent-Length: 5\r\n{line}{value}\r\nX-Z: z\r\n\r\n");
        let head = parse_response(text.as_bytes(), &HeadLimits::DEFAULT, Method::Get, &mut fields).unwrap().unwrap();
        fields.drop_where(|field| drops == 1 && field.name.of(text.as_bytes()) == b"X-Z");
        let rewrite = ResponseRewrite { framing, add, ..ResponseRewrite::new(&head, Version::Http2) };
        for rig in &mut answering {
            rig.feed(&headers(stream, GET, true)).unwrap();
            let (id, bytes) = (StreamId(stream), text.as_bytes());
            rig.connection.write_response(id, bytes, &head, &fields, &rewrite, &mut rig.out).unwrap();
            rig.connection.queue(rig.now, id, 5, &mut rig.out).unwrap();
            rig.send();
            let trailers = trailers[trailer..].iter().copied();
            rig.connection.write_trailers(id, trailers, &mut rig.out).unwrap();
            rig.now += Duration::from_millis(100);
        }
        let [mindful, forgetful] = &mut answering;
        assert_eq!(mindful.put(), forgetful.put(), "{text} {rewrite:?}");
        forgetful.connection.trim();
    }
    assert!(repeats > 1_500, "{repeats}");
    assert!(asking[0].connection.memory() < 32 * 1024, "{}", asking[0].connection.memory());
}

#[test]
fn rfc9113_4_3_1_a_table_that_shrinks_on_the_way_is_told_with_the_next_block() {
    let sized = |size: usize| match size {
        0..31 => vec![0x20 | size as u8],
        _ => vec![0x3f, 0x80 | (size - 31) as u8 & 0x7f, ((size - 31) >> 7) as u8],
    };
    for (sizes, told) in [
        (&[4_096][..], &[][..]),
        (&[0], &[0]),
        (&[0, 4_096], &[0, 4_096]),
        (&[500, 20, 1_000], &[20, 1_000]),
        (&[1 << 20, 4_096], &[]),
        (&[1 << 20], &[]),
    ] {
        for frames in [1, sizes.len()] {
            let mut rig = server();
            rig.feed(&headers(1, GET, true)).unwrap();
            let entries: Vec<(u16, u32)> = sizes.iter().map(|&size| (1, size)).collect();
            entries.chunks(entries.len() / frames).for_each(|part| drop(rig.feed(&settings(part)).unwrap()));
            rig.put();
            rig.answer(1, Framing::None);
            let told: Vec<u8> = told.iter().flat_map(|&size| sized(size)).collect();
            let block = &rig.put()[0].payload;
            assert!(block.starts_with(&told) && block[told.len()] >= 0x40, "{sizes:?}: {block:x?}");
        }
    }
}

#[test]
fn rfc9218_the_urgent_go_first_and_the_incremental_share() {
    let mut rig = server();
    let asked = |stream, priority| headers(stream, &with(GET, &[("priority", priority)]), true);
    let update =
        |stream: u32, text: &str| frame(PRIORITY_UPDATE, 0, 0, &[&stream.to_be_bytes()[..], text.as_bytes()].concat());
    rig.feed(&[settings(&[(4, 1 << 20)]), window_update(0, 1 << 20)].concat()).unwrap();
    rig.feed(
        &[asked(1, "u=5"), asked(3, "u=1, i"), asked(5, "u=1, i"), asked(7, ""), asked(9, "u=1"), update(7, "u=0")]
            .concat(),
    )
    .unwrap();
    assert_eq!(rig.connection.priority(StreamId(7)), Some(Priority { urgency: 0, incremental: false }));
    for stream in [9, 5, 7, 3, 1] {
        rig.answer(stream, Framing::Chunked);
        rig.queue(stream, 2 * 16_384);
        rig.finish(stream);
    }
    rig.put();
    rig.send();
    let order: Vec<u32> = rig.put().iter().map(|frame| frame.stream).collect();
    assert_eq!(order, [7, 7, 9, 5, 9, 3, 5, 3, 1, 1]);
}

#[test]
fn rfc9218_7_1_priorities_come_ahead_of_their_requests() {
    let update =
        |stream: u32, text: &str| frame(PRIORITY_UPDATE, 0, 0, &[&stream.to_be_bytes()[..], text.as_bytes()].concat());
    let mut rig = server();
    for (stream, text) in [(1, "u=1"), (3, "u=2"), (1, "u=0, i"), (5, "u=4"), (7, "u=5"), (9, "u=6")] {
        rig.feed(&update(stream, text)).unwrap();
    }
    let asked = |stream| headers(stream, &with(GET, &[("priority", "u=7")]), true);
    rig.feed(&[asked(1), asked(3), asked(5), asked(9)].concat()).unwrap();
    let urgency = |stream| rig.connection.priority(StreamId(stream)).map(|priority| priority.urgency);
    // Four are kept; the first of five was given up for the last.
    assert_eq!([1, 3, 5, 9].map(urgency), [Some(7), Some(2), Some(4), Some(6)]);

    let limits = Limits { streams: 2, ..Limits::DEFAULT };
    for (before, expected) in
        [(vec![], Met::Fine), (vec![headers(1, GET, true)], Met::Connection(ErrorCode::PROTOCOL_ERROR))]
    {
        let mut rig = Rig::<Server>::new(limits);
        rig.feed(&[PREFACE, &settings(&[])].concat()).unwrap();
        rig.feed(&before.concat()).unwrap();
        rig.put();
        assert_eq!(met(&mut rig, &[update(5, "u=1"), update(7, "u=1")].concat()), expected);
    }
}
