//! What origins answer: the valid is forwarded as it is, the invalid is a 502 and never half a response, and bytes that nobody
//! asked for never reach another client.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use harness::{Cut, End, Origin, PATIENCE, Setup, answer, on_each_driver, pattern, until};

/// Each breaks HTTP in its head.
const BROKEN_HEADS: &[&[u8]] = &[
    b"",
    b"\r\n",
    b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
    b"hello\r\n\r\n",
    b"<html>\r\n\r\n",
    b"ICY 200 OK\r\n\r\n",
    b"HTTP/2 200 OK\r\nContent-Length: 1\r\n\r\nx",
    b"HTTP/1.2 200 OK\r\nContent-Length: 1\r\n\r\nx",
    b"HTTP/0.9 200 OK\r\nContent-Length: 1\r\n\r\nx",
    b"http/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
    b"HTTP/1.1\r\n\r\n",
    b"HTTP/1.1 OK\r\n\r\n",
    b"HTTP/1.1 20 OK\r\n\r\n",
    b"HTTP/1.1 099 OK\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\n\r\n",
    b"HTTP/1.1  200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\nContent-Length: 1\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\n\r\nx",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\nx",
    b"HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX : 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\n\r\n",
    b"HTTP/1.1 200 O\x00K\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0x1\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    // Not asked for.
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nbytes",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    // Breaking off.
    b"HTTP/1.1 200 OK\r\nContent-Le",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nnonsense",
];

/// Each breaks off, or breaks HTTP, within its content.
const BROKEN_BODIES: &[&[u8]] = &[
    b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n012345678",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nX\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nbad trailer\r\n\r\n",
];

on_each_driver! {
    fn a_broken_head_is_a_502(driver) {
        for &broken in BROKEN_HEADS {
            let origin = Origin::saying(broken);
            let engine = Setup::new(driver).origin(&origin).pool_line("breaker.failures = 0").start();
            let mut client = engine.client();
            let response = client.get("/");
            assert_eq!(response.status(), 502, "{}: {}", broken.escape_ascii(), response.head.escape_ascii());
            assert!(!response.text().contains("hello"), "the origin's bytes in our answer");
            // What we refuse is not the client's fault: its connection goes on.
            assert_eq!(client.get("/again").status(), 502, "{}", broken.escape_ascii());
            client.half_close();
            let (rest, end) = client.rest();
            assert!(rest.is_empty() && end == End::Closed, "{}: {end:?} {}", broken.escape_ascii(), rest.escape_ascii());
        }
    }

    /// The client either gets a 502, because nothing had gone yet, or sees that the response is incomplete.
    fn a_broken_body_never_looks_whole(driver) {
        for &broken in BROKEN_BODIES {
            let origin = Origin::saying(broken);
            let engine = Setup::new(driver).origin(&origin).start();
            let mut client = engine.client();
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            match client.response(false) {
                Ok(response) => assert_eq!(response.status(), 502, "{}: a fake end", broken.escape_ascii()),
                Err(Cut::Closed(_) | Cut::Reset(_)) => {
                    let (rest, end) = client.rest();
                    assert!(end != End::Silent, "{}: {}", broken.escape_ascii(), rest.escape_ascii());
                }
                Err(cut) => panic!("{}: {cut}", broken.escape_ascii()),
            }
            // HTTP/1.0 and until-close clients cannot see an incomplete end but by a reset or a short length.
            engine.until_idle();
        }
    }

    /// The same to HTTP/1.0, which knows no chunks: what has no length must not end cleanly when it broke off.
    fn a_broken_chunked_body_is_a_reset_to_http_1_0(driver) {
        let origin = Origin::saying(&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"[..]);
        let engine = Setup::new(driver).origin(&origin).start();
        let mut client = engine.client();
        client.send("GET / HTTP/1.0\r\n\r\n");
        let (bytes, end) = client.rest();
        let refused = bytes.starts_with(b"HTTP/1.1 502");
        assert!(refused || end == End::Reset, "a truncated response looks whole: {end:?} {}", bytes.escape_ascii());
    }

    fn every_kind_of_content_arrives(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).start();
        let mut client = engine.client();
        for length in [0, 1, 999, 1_000, 4_096, 16 << 10, (64 << 10) - 1, 64 << 10, (64 << 10) + 1, 300_000, 3 << 20] {
            for kind in ["bytes", "chunked", "until-close"] {
                let response = client.get(&format!("/{kind}/{length}"));
                assert_eq!(response.status(), 200);
                assert_eq!(response.body.len(), length, "/{kind}/{length}");
                assert!(response.body == pattern(length as u64, length), "/{kind}/{length} is corrupted");
                assert!(!response.is_closing() && !response.until_close, "HTTP/1.1 needs no close: /{kind}/{length}");
            }
        }
        // To HTTP/1.0 without chunks, ended by closing.
        let mut old = engine.client();
        let response = old.ask("GET /chunked/5000 HTTP/1.0\r\n\r\n");
        assert!(response.all("transfer-encoding").is_empty());
        assert!(response.body == pattern(5_000, 5_000), "chunked to HTTP/1.0");
        assert_eq!(old.rest().1, End::Closed);
        // And HTTP/1.0 that wants to stay.
        let mut old = engine.client();
        for _ in 0..3 {
            let response = old.ask("GET /bytes/10 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
            assert_eq!(response.body, pattern(10, 10));
            assert!(response.lists("connection", "keep-alive"), "{}", response.head.escape_ascii());
        }
    }

    /// In both directions, to who says that it takes them.
    fn trailers_are_passed_on(driver) {
        let origin = Origin::start(|peer| while let Some(request) = peer.request() {
            let [(name, value)] = request.trailers.as_slice() else {
                peer.send(answer("no trailer came"));
                continue;
            };
            peer.send(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                3\r\nyes\r\n0\r\nX-Sum: {name}={value}\r\n\r\n"));
        });
        let engine = Setup::new(driver).origin(&origin).start();
        let mut client = engine.client();
        for _ in 0..2 {
            let response = client.ask(
                "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: X-Md\r\nTransfer-Encoding: chunked\r\n\r\n\
                 5\r\nhello\r\n0\r\nX-Md: 12\r\n\r\n",
            );
            assert_eq!(response.text(), "yes");
            assert_eq!(response.trailers.len(), 1, "no trailer: {:?}", response.trailers);
            let (name, value) = &response.trailers[0];
            assert!(name.eq_ignore_ascii_case("x-sum") && value.eq_ignore_ascii_case("x-md=12"), "{name}: {value}");
        }
        let bytes = origin.received().concat();
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        assert!(text.contains("\r\nte: trailers\r\n"), "the origin was not told that trailers are taken: {text}");
    }

    /// The origin resets while it sends what only its closing would end: no client may take that for the end.
    fn a_reset_is_no_end(driver) {
        let origin = Origin::start(|peer| {
            peer.request();
            peer.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nbeginning");
            std::thread::sleep(Duration::from_millis(50));
            peer.reset();
        });
        let engine = Setup::new(driver).origin(&origin).start();
        for (request, old) in [("GET / HTTP/1.1\r\nHost: a\r\n\r\n", false), ("GET / HTTP/1.0\r\n\r\n", true)] {
            let mut client = engine.client();
            client.send(request);
            if old {
                let (bytes, end) = client.rest();
                assert_eq!(end, End::Reset, "a truncated response looks whole: {}", bytes.escape_ascii());
            } else {
                let cut = client.response(false).expect_err("a truncated response looks whole");
                assert!(matches!(cut, Cut::Closed(_) | Cut::Reset(_)), "{cut}");
            }
        }
    }

    fn responses_without_content_have_none(driver) {
        let origin = Origin::answering(|request| Some(match request.target() {
            "/head" => b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n".to_vec(),
            "/head-chunked" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            "/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
            "/304" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\nETag: \"x\"\r\n\r\n".to_vec(),
            _ => answer("next"),
        }));
        let engine = Setup::new(driver).origin(&origin).start();
        let mut client = engine.client();
        for (request, status, length) in [
            ("HEAD /head", 200, Some("12345")),
            ("HEAD /head-chunked", 200, None),
            ("GET /204", 204, None),
            ("GET /304", 304, Some("99")),
        ] {
            let response = client.ask(format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_eq!((response.status(), response.field("content-length")), (status, length), "{request}");
            assert!(response.body.is_empty());
            assert_eq!(client.get("/next").text(), "next", "after {request}");
        }
    }

    fn interim_responses_are_passed_on(driver) {
        let origin = Origin::start(|peer| while let Some(_request) = peer.request() {
            peer.send("HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n");
            peer.send("HTTP/1.1 102 Processing\r\n\r\n");
            std::thread::sleep(Duration::from_millis(20));
            peer.send(answer("final"));
        });
        let engine = Setup::new(driver).origin(&origin).start();
        let mut client = engine.client();
        for _ in 0..3 {
            let response = client.get("/");
            assert_eq!(response.text(), "final");
            let statuses: Vec<u16> = response.interim.iter().map(harness::Message::status).collect();
            assert!(statuses.starts_with(&[103]), "{statuses:?}");
            assert!(response.interim[0].field("link").is_some_and(|link| link.contains("style.css")));
        }
        // HTTP/1.0 knows none.
        let mut old = engine.client();
        assert!(old.ask("GET / HTTP/1.0\r\n\r\n").interim.is_empty());
    }

    /// The client has seen part of this try: another endpoint's answer is no answer to it any more.
    fn after_an_interim_response_nothing_is_tried_again(driver) {
        let hints = Origin::saying("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
        let other = Origin::standard();
        let setup = Setup::new(driver).origin(&hints).origin(&other);
        let engine = setup.pool_line("breaker.failures = 0\nbalance = \"round-robin\"").start();
        let mut client = engine.client();
        let responses: Vec<_> = (0..6).map(|_| client.get("/")).collect();
        let hinted = responses.iter().filter(|response| !response.interim.is_empty()).count();
        assert!(hinted >= 2, "the first origin has its turns: {hinted}");
        for response in responses {
            assert_eq!(response.status(), if response.interim.is_empty() { 200 } else { 502 });
        }
    }

    fn interim_responses_without_end_are_a_502(driver) {
        let origin = Origin::start(|peer| {
            peer.request();
            while peer.send("HTTP/1.1 102 Processing\r\n\r\n".repeat(100)) {}
        });
        let engine = Setup::new(driver).origin(&origin).start();
        let mut client = engine.client();
        let response = client.get("/");
        assert_eq!(response.status(), 502);
        assert!(response.interim.len() <= 100, "{} interim responses", response.interim.len());
    }

    /// Bytes after a response, in the same segment or a moment later, complete responses of course: they must not become
    /// the answer to anybody's request (response queue poisoning).
    fn unsolicited_bytes_poison_the_connection(driver) {
        for late in [None, Some(0), Some(1), Some(20)] {
            let sent = Arc::<AtomicUsize>::default();
            let evils = sent.clone();
            let origin = Origin::start(move |peer| while let Some(request) = peer.request() {
                let evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Evil: yes\r\n\r\nEVIL";
                let good = answer(request.target());
                match late {
                    None => _ = peer.send([&good[..], evil].concat()),
                    Some(millis) => {
                        peer.send(good);
                        std::thread::sleep(Duration::from_millis(millis));
                        peer.send(evil);
                    }
                }
                evils.fetch_add(1, Ordering::SeqCst);
            });
            let engine = Setup::new(driver).origin(&origin).start();
            let mut clients: Vec<_> = (0..4).map(|_| engine.client()).collect();
            for number in 0..40 {
                let path = format!("/{number}");
                let response = clients[number % 4].ask(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
                assert_eq!(response.text(), path, "late {late:?}: poisoned");
                // Sent after the next request it would be that request's answer, as far as anybody can tell.
                until("the bytes that nobody asked for are sent", PATIENCE, || sent.load(Ordering::SeqCst) > number);
            }
        }
    }

    /// An answer before the request's content was read: it goes to the client, and neither connection is used again.
    fn an_early_response_is_passed_on(driver) {
        let origin = Origin::start(|peer| {
            let Ok(head) = peer.wire.head() else { return };
            if head.target() == "/next" {
                peer.send(answer("next"));
            } else {
                peer.send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno\n");
            }
            let _ = peer.wait_for_end();
        });
        let engine = Setup::new(driver).origin(&origin).start();
        let mut client = engine.client();
        client.send("POST /big HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nbeginning");
        let response = client.response(false).expect("the early answer");
        assert_eq!((response.status(), response.text().as_str()), (413, "no\n"));
        // The rest of the content may still come, and is not a request.
        let _ = client.try_send("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        let (rest, end) = client.rest();
        assert!(rest.is_empty(), "{}", rest.escape_ascii());
        assert_ne!(end, End::Silent);
        assert_eq!(engine.client().get("/next").text(), "next");
        let smuggled = origin.received().iter().any(|raw| raw.starts_with(b"GET /smuggled"));
        assert!(!smuggled, "content became a request");
        engine.until_idle();
    }

    /// The origin answers early and goes, while the client still sends.
    fn an_early_response_and_close_reaches_a_client_that_sends(driver) {
        let origin = Origin::start(|peer| {
            let _ = peer.wire.head();
            peer.send("HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno\n");
        });
        let engine = Setup::new(driver).origin(&origin).start();
        for _ in 0..20 {
            let mut client = engine.client();
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n");
            let piece = pattern(1, 10_000);
            for _ in 0..30 {
                if client.try_send(&piece).is_err() {
                    break;
                }
            }
            let response = client.response(false).expect("an answer, whatever became of the content");
            // A reset by the origin may overtake its answer: then it is a 502.
            assert!([403, 502].contains(&response.status()), "{}", response.start);
        }
        engine.until_idle();
    }

    fn an_answer_that_comes_byte_by_byte_is_whole(driver) {
        let origin = Origin::start(|peer| while let Some(request) = peer.request() {
            let response = match request.target() {
                "/chunked" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: v\r\n\r\n".to_vec(),
                _ => answer("abcde"),
            };
            for byte in response {
                peer.send([byte]);
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        let engine = Setup::new(driver).origin(&origin).start();
        let mut client = engine.client();
        for _ in 0..3 {
            assert_eq!(client.get("/length").text(), "abcde");
            assert_eq!(client.get("/chunked").text(), "abcde");
        }
    }
}
