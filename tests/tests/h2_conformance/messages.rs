//! §8: what a request is, and how it passes to an origin that speaks HTTP/1.1 and back.

use std::time::Duration;

use harness::h2::code::PROTOCOL_ERROR;
use harness::h2::flag::{END_HEADERS, END_STREAM};
use harness::h2::{H2Client, Trial, asking, data, frame, headers, kind, post, reset};
use harness::hpack::block;
use harness::{Origin, Setup, answer, on_each_driver, pattern};

use crate::Place;

on_each_driver! {
    /// §8.1, §8.2, §8.3: requests that are none.
    fn malformed_requests(driver) {
        let place = Place::new(driver);
        Trial::all(&[fields(), pseudo_fields(), schemes(), contents()].concat(), || place.client());
        place.engine.until_idle();
    }

    /// §8.1.1: what is malformed is not passed on; what is not reaches the origin, and so does the request behind each.
    fn malformed_requests_are_not_passed_on(driver) {
        let place = Place::new(driver);
        let rows = [fields(), pseudo_fields()].concat();
        let schemes = schemes();
        Trial::all(&[&rows[..], &schemes].concat(), || place.client());
        let asked = place.origin.received().concat();
        let asked = asked.windows(4).filter(|four| four == b"\r\n\r\n").count();
        let wanted = rows.len() + rows.iter().filter(|row| row.wants_an_answer()).count();
        // Ours is the answer to a request for another scheme.
        assert_eq!(asked, wanted + schemes.len());
    }

    /// §8.5: what is behind CONNECT and its extension is bytes, and has no trailers.
    fn tunnels_have_no_trailers(driver) {
        let origin = Origin::start(|peer| {
            let Some(request) = peer.request() else { return };
            let proof = if request.method() == "CONNECT" { "200 Here\r\n" } else {
                "101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: telepathy\r\n"
            };
            peer.send(format!("HTTP/1.1 {proof}\r\n"));
            let _ = peer.wait_for_end();
        });
        let engine = Setup::new(driver).origin(&origin).start();
        let extended = [&[(":protocol", "telepathy")][..], &asking("CONNECT", "/")].concat();
        for fields in [&[(":method", "CONNECT"), (":authority", "test:80")][..], &extended] {
            let mut client = H2Client::greeted(engine.address);
            let stream = client.request(fields, false);
            client.until("it is open", |client| !client.exchange(stream).fields.is_empty());
            assert_eq!(client.exchange(stream).status(), 200);
            client.send(headers(stream, &[("x-a", "b")], true));
            client.wait(stream);
            assert_eq!(client.exchange(stream).reset, Some(PROTOCOL_ERROR));
            client.barrier();
            assert_eq!(client.gone, []);
        }
        engine.until_idle();
    }

    /// What the origin sees of a request: its line, its host, and cookies in one piece (§8.2.3).
    fn requests_as_the_origin_sees_them(driver) {
        let place = Place::new(driver);
        let mut client = place.client();
        let more = [("cookie", "a=b"), ("x-a", "one"), ("cookie", "c=d"), ("te", "trailers"), ("x-a", "two"), ("cookie", "e=f")];
        let seen = client.ask(&[&asking("GET", "/head?x=%20y")[..], &more].concat()).text();
        assert!(seen.starts_with("GET /head?x=%20y HTTP/1.1\r\n"), "{seen}");
        let seen = seen.to_ascii_lowercase();
        for line in ["host: test", "cookie: a=b; c=d; e=f", "x-a: one", "x-a: two"] {
            assert_eq!(seen.matches(&format!("\r\n{line}\r\n")).count(), 1, "{line}: {seen}");
        }
        assert!(!seen.contains("\r\n:"), "{seen}");
        let by_host = client.ask(&[(":method", "GET"), (":scheme", "http"), (":path", "/head"), ("host", "by-host")]).text();
        assert_eq!(by_host.to_ascii_lowercase().matches("\r\nhost: by-host\r\n").count(), 1, "{by_host}");
    }

    /// Answers of every shape that HTTP/1.1 has.
    fn responses_of_every_shape(driver) {
        let place = Place::new(driver);
        let mut client = place.client();
        for length in [0, 1, 16_384, 16_385, 65_536, 1_000_000] {
            let got = client.get(&format!("/bytes/{length}"));
            assert!(got.body == pattern(length as u64, length), "{length}");
            assert_eq!(got.field("content-length"), Some(length.to_string().as_str()));
        }
        for length in [0, 999, 300_000] {
            assert!(client.get(&format!("/until-close/{length}")).body == pattern(length as u64, length), "{length}");
            let chunked = client.ask(&[&asking("GET", &format!("/chunked/{length}"))[..], &[("te", "trailers")]].concat());
            assert!(chunked.body == pattern(length as u64, length), "{length}");
            let sum = format!("{:x}", harness::checksum(&chunked.body));
            assert_eq!(chunked.trailers, [("x-sum".to_owned(), sum)], "§8.1: trailers");
        }
        let head = client.ask(&asking("HEAD", "/bytes/1234"));
        assert_eq!((head.body.len(), head.field("content-length")), (0, Some("1234")));
        for status in [204, 304, 404, 500] {
            let got = client.get(&format!("/status/{status}"));
            assert_eq!((got.status(), got.body.len()), (status, 0));
        }
    }

    /// Content of requests, with a length and without, and trailers behind it.
    fn contents_and_trailers_of_requests(driver) {
        let origin = Origin::answering(|request| {
            let trailers: String = request.trailers.iter().map(|(name, value)| format!("{name}={value};")).collect();
            Some(answer(format!("{} {}", harness::checksum(&request.body), trailers.to_ascii_lowercase())))
        });
        let engine = Setup::new(driver).origin(&origin).start();
        let mut client = H2Client::greeted(engine.address);
        for length in [0, 1, 70_000, 3_000_000] {
            let content = pattern(length as u64, length);
            assert_eq!(client.post("/", &content).text(), format!("{} ", harness::checksum(&content)));
        }
        let stream = client.request(&[&asking("POST", "/")[..], &[("trailer", "x-sum")]].concat(), false);
        client.send([data(stream, "content", false), headers(stream, &[("x-sum", "abc")], true)].concat());
        assert_eq!(client.response(stream).text(), format!("{} x-sum=abc;", harness::checksum(b"content")));
    }

    /// §8.1: interim responses come before the final one, and 100 only when the client asked.
    fn interim_responses(driver) {
        let origin = Origin::start(|peer| {
            while peer.request().is_some() {
                let hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
                peer.send([&hint[..], hint, &answer("after\n")].concat());
            }
        });
        let engine = Setup::new(driver).origin(&origin).start();
        let got = H2Client::greeted(engine.address).get("/");
        assert_eq!(got.text(), "after\n");
        assert_eq!(got.interim, vec![vec![(":status".to_owned(), "103".to_owned()), ("link".to_owned(), "</a>".to_owned())]; 2]);

        let place = Place::new(driver);
        let mut client = place.client();
        let stream = client.request(&[&asking("POST", "/echo")[..], &[("expect", "100-continue")]].concat(), false);
        client.until("100 Continue", |client| !client.exchange(stream).interim.is_empty());
        client.upload(stream, b"content", true);
        let got = client.response(stream);
        assert_eq!((got.interim.len(), got.interim[0][0].1.as_str(), got.text().as_str()), (1, "100", "content"));
    }

    /// §8.2: nothing of the origin's connection passes, and names are lower case, as [`H2Client`] wants.
    fn fields_of_a_connection_do_not_pass(driver) {
        let response = b"HTTP/1.1 200 OK\r\nConnection: X-Private, Keep-Alive\r\nKeep-Alive: timeout=5\r\nX-Private: 1\r\n\
            Proxy-Connection: keep-alive\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\nX-Public: Kept\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        let origin = Origin::saying(&response[..]);
        let engine = Setup::new(driver).origin(&origin).start();
        let got = H2Client::greeted(engine.address).get("/");
        assert_eq!((got.text().as_str(), got.field("x-public"), got.field("x-private")), ("ok", Some("Kept"), None));
    }

    /// §8.1: a response that breaks off is never seen as whole; one that is no response is a 502.
    fn responses_that_break_off(driver) {
        for broken in ["HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nonly this", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
            let origin = Origin::saying(broken);
            let engine = Setup::new(driver).origin(&origin).start();
            let mut client = H2Client::greeted(engine.address);
            let stream = client.request(&asking("POST", "/"), true);
            client.wait(stream);
            let got = client.exchange(stream);
            assert!(got.reset.is_some_and(|code| code != 0) && !got.ended, "{got:?}");
            client.barrier();
            assert_eq!(client.gone, []);
        }
        let origin = Origin::saying("SSH-2.0-nothing of the kind\r\n\r\n");
        let engine = Setup::new(driver).origin(&origin).start();
        assert_eq!(H2Client::greeted(engine.address).ask(&asking("POST", "/")).status(), 502);
    }

    /// §8.1: an answer may come before the request is complete; the rest of it is then not wanted, or passed over.
    fn answers_before_the_content_is_complete(driver) {
        let origin = Origin::start(|peer| {
            while peer.wire.head().is_ok() {
                peer.send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n");
                let _ = peer.wait_for_end();
            }
        });
        let engine = Setup::new(driver).origin(&origin).start();
        let mut client = H2Client::greeted(engine.address);
        let stream = client.request(&[&asking("POST", "/")[..], &[("content-length", "1000000")]].concat(), false);
        client.until("the answer", |client| client.exchange(stream).ended);
        let got = client.exchange(stream);
        assert_eq!((got.status(), got.text().as_str()), (413, "no\n"));
        client.listen(Duration::from_millis(50));
        assert!(matches!(client.exchange(stream).reset, None | Some(0)), "§8.1: the client may not discard the answer");
        client.barrier();
        assert_eq!(client.gone, []);
    }

    /// §5.4.2: a client that gives up in the middle frees what is behind it, and the others go on.
    fn requests_that_are_given_up(driver) {
        let place = Place::new(driver);
        let mut client = place.client();
        client.credits = false;
        client.widen(0, 1 << 20);
        let other = client.request(&asking("GET", "/slow/200"), true);
        for path in ["/bytes/1000000", "/slow/60000", "/echo"] {
            let stream = client.request(&asking("POST", path), path == "/bytes/1000000");
            client.listen(Duration::from_millis(20));
            client.send(reset(stream, 8));
        }
        assert_eq!(client.response(other).text(), "slow\n");
        place.engine.until_metric("requests_open", 0);
        assert_eq!(client.gone, []);
    }
}

fn malformed(rule: &'static str, fields: &[(&str, &str)]) -> Trial {
    Trial::stream(rule, headers(1, fields, true), PROTOCOL_ERROR)
}

fn fields() -> Vec<Trial> {
    let field = |rule, name: &str, value: &str| malformed(rule, &[&asking("GET", "/")[..], &[(name, value)]].concat());
    let raw = |rule, name: &[u8], value: &[u8]| {
        let fields = [block(&asking("GET", "/")), block(&[(name, value)])].concat();
        Trial::stream(rule, frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, fields), PROTOCOL_ERROR)
    };
    let fine = |rule, name: &str, value: &str| {
        Trial::answer(rule, headers(1, &[&asking("GET", "/")[..], &[(name, value)]].concat(), true), 200)
    };
    vec![
        field("8.2: a capital in a name", "X-a", "b"),
        field("8.2.1: no name", "", "b"),
        field("8.2.1: a space in a name", "a b", "c"),
        field("8.2.1: a control character in a name", "a\u{1}", "c"),
        field("8.2.1: DEL in a name", "a\u{7f}", "c"),
        field("8.2.1: a colon in a name", "a:b", "c"),
        raw("8.2.1: obs-text in a name", b"a\xe4", b"c"),
        field("8.2.1: NUL in a value", "x-a", "b\0c"),
        field("8.2.1: CR in a value", "x-a", "b\rc"),
        field("8.2.1: LF in a value", "x-a", "b\nc"),
        field("8.2.1: a space before a value", "x-a", " b"),
        field("8.2.1: a space behind a value", "x-a", "b "),
        field("8.2.1: a tab before a value", "x-a", "\tb"),
        field("8.2.1: a tab behind a value", "x-a", "b\t"),
        field("8.2.1, 8.2.3: a crumb of cookies is a value", "cookie", "a=b\r\nx-a: c"),
        field("8.2.2: Connection", "connection", "keep-alive"),
        field("8.2.2: Proxy-Connection", "proxy-connection", "keep-alive"),
        field("8.2.2: Keep-Alive", "keep-alive", "timeout=5"),
        field("8.2.2: Transfer-Encoding", "transfer-encoding", "chunked"),
        field("8.2.2: Upgrade", "upgrade", "websocket"),
        field("8.2.2: TE", "te", "gzip"),
        field("8.2.2: TE, of which trailers are a part", "te", "trailers, gzip"),
        fine("8.2.2: TE of trailers", "te", "trailers"),
        fine("8.2.1: an empty value", "x-a", ""),
        fine("8.2.1: a name of all that a token may have", "!#$%&'*+-.^_`|~09az", "b"),
    ]
}

fn pseudo_fields() -> Vec<Trial> {
    let [method, scheme, authority, path] = asking("GET", "/").try_into().expect("four");
    let all = [method, scheme, authority, path];
    let swapped = |at: usize, value| {
        let mut fields = all;
        fields[at].1 = value;
        fields.to_vec()
    };
    vec![
        malformed("8.3: unknown", &[&all[..], &[(":unknown", "a")]].concat()),
        malformed("8.3: of a response", &[&all[..], &[(":status", "200")]].concat()),
        malformed("8.3: behind a field", &[method, scheme, ("x-a", "b"), authority, path]),
        malformed("8.3: behind a cookie", &[method, scheme, path, ("cookie", "a=b"), authority]),
        malformed("8.3.1: no method", &[scheme, authority, path]),
        malformed("8.3.1: no scheme", &[method, authority, path]),
        malformed("8.3.1: no path", &[method, scheme, authority]),
        malformed("8.3: two methods", &[method, method, scheme, authority, path]),
        malformed("8.3: two schemes", &[method, scheme, scheme, authority, path]),
        malformed("8.3: two paths", &[method, scheme, authority, path, path]),
        malformed("8.3: two authorities", &[method, scheme, authority, authority, path]),
        malformed("8.3.1: an empty path", &swapped(3, "")),
        malformed("8.3.1: a path that does not begin with a slash", &swapped(3, "index.html")),
        malformed("8.3.1: `*` for what is not OPTIONS", &swapped(3, "*")),
        malformed("8.3.1, 10.3: a line's end in a path", &swapped(3, "/ HTTP/1.1\r\nx-a: b")),
        malformed("8.3.1, 10.3: a space in a path", &swapped(3, "/a b")),
        malformed("8.3.1, 10.3: a line's end in a method", &swapped(0, "GET / HTTP/1.1\r\nx-a: b\r\n\r\nGET")),
        malformed("8.3.1: an empty method", &swapped(0, "")),
        malformed("8.3.1: another Host", &[&all[..], &[("host", "other")]].concat()),
        Trial::answer("8.3.1: the same Host", headers(1, &[&all[..], &[("host", "test")]].concat(), true), 200),
        Trial::answer(
            "8.3.1: the same but for the scheme's port",
            headers(1, &[&all[..], &[("host", "test:80")]].concat(), true),
            200,
        ),
        Trial::answer(
            "8.3.1: the same but for an empty port",
            headers(1, &[&all[..], &[("host", "TEST:")]].concat(), true),
            200,
        ),
        malformed("8.3.1: another port", &[&all[..], &[("host", "test:443")]].concat()),
        Trial::answer("8.3: in any order", headers(1, &[path, authority, scheme, method], true), 200),
        malformed("8.5: CONNECT with scheme and path", &swapped(0, "CONNECT")),
        malformed("8.5: CONNECT without authority", &[(":method", "CONNECT")]),
        malformed("8.3: no fields at all", &[]),
        malformed("8.3.1: what is no scheme", &swapped(1, "a b")),
    ]
}

/// §8.3.1: a scheme is not restricted to `http` and `https`. Nobody serves another one here, and who asks for it is told.
fn schemes() -> Vec<Trial> {
    let asking = |scheme, path| {
        let fields = [(":method", "GET"), (":scheme", scheme), (":authority", "test"), (":path", path)];
        Trial::answer("8.3.1: a scheme that is not served", headers(1, &fields, true), 400)
    };
    vec![asking("ftp", "/"), asking("mailto", "a@b"), asking("urn", "")]
}

fn contents() -> Vec<Trial> {
    let post = |length: &str, pieces: &[&[u8]]| {
        let head =
            headers(1, &[&asking("POST", "/echo")[..], &[("content-length", length)]].concat(), pieces.is_empty());
        let last = pieces.len().saturating_sub(1);
        let content = pieces.iter().enumerate().flat_map(|(at, piece)| data(1, piece, at == last));
        head.into_iter().chain(content).collect::<Vec<u8>>()
    };
    let broken = |rule, said: Vec<u8>| Trial::stream(rule, said, PROTOCOL_ERROR);
    vec![
        broken("8.1.1: less content than Content-Length says", post("5", &[b"hell"])),
        broken("8.1.1: more than it says", post("5", &[b"hello!"])),
        broken("8.1.1: more in a second frame", post("5", &[b"hello", b"!"])),
        broken("8.1.1: none at all", post("5", &[])),
        broken(
            "8.1.1: less, and then trailers",
            [head_of("5"), data(1, "hell", false), headers(1, &[("x-a", "b")], true)].concat(),
        ),
        Trial::answer("8.1.1: as much as it says", post("5", &[b"he", b"llo", b""]), 200),
        broken("8.1.1: a length that is no number", post("5,5", &[b"hello"])),
        broken("8.1.1: a length below zero", post("-5", &[b"hello"])),
        broken("8.1.1: a length beyond all numbers", post("99999999999999999999", &[b"hello"])),
        broken(
            "8.1: a second head that does not end the stream",
            [post_echo(), headers(1, &[("x-a", "b")], false)].concat(),
        ),
        broken(
            "8.1: a pseudo-field in trailers",
            [post_echo(), data(1, "x", false), headers(1, &[(":path", "/")], true)].concat(),
        ),
        broken(
            "8.2: a capital in trailers",
            [post_echo(), data(1, "x", false), headers(1, &[("X-a", "b")], true)].concat(),
        ),
        broken(
            "8.2.2: Connection in trailers",
            [post_echo(), data(1, "x", false), headers(1, &[("connection", "close")], true)].concat(),
        ),
        Trial::answer(
            "8.1: trailers",
            [post_echo(), data(1, "x", false), headers(1, &[("x-a", "b")], true)].concat(),
            200,
        ),
        Trial::answer(
            "8.1: trailers with nothing before them",
            [post_echo(), headers(1, &[("x-a", "b")], true)].concat(),
            200,
        ),
        Trial::answer("8.1: no content", [post_echo(), data(1, "", true)].concat(), 200),
    ]
}

fn post_echo() -> Vec<u8> {
    post(1, "/echo")
}

fn head_of(length: &str) -> Vec<u8> {
    headers(1, &[&asking("POST", "/echo")[..], &[("content-length", length)]].concat(), false)
}
