//! What a message gains and loses on its way: forwarding fields, hop-by-hop fields, Host, routes.

use std::collections::BTreeSet;

use harness::{Engine, Message, Origin, Setup, answer, fields_text, on_each_driver};

on_each_driver! {
    fn an_untrusted_client_is_not_believed(driver) {
        let (engine, _origin) = start(Setup::new(driver));
        let seen = sees(&engine, "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 5.6.7.8\r\nX-Forwarded-Proto: https\r\n\
            X-Forwarded-Host: evil.example\r\nx-forwarded-for: 9.9.9.9\r\n");
        assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(seen.field("x-forwarded-proto"), Some("http"));
        assert_eq!(seen.field("x-forwarded-host"), Some("example.net:8080"));
        assert!(!seen.text().contains("evil") && !seen.text().contains("1.2.3.4"));
        assert_eq!(seen.field("host"), Some("example.net:8080"));
        assert_eq!(seen.field("via"), Some("1.1 penstock"));
    }

    fn a_trusted_proxy_is_added_to(driver) {
        let (engine, _origin) = start(Setup::new(driver).listen_line("trusted = [\"127.0.0.0/8\"]"));
        let seen = sees(&engine, "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 5.6.7.8\r\nX-Forwarded-Proto: https\r\n\
            X-Forwarded-Host: real.example\r\nVia: 1.0 first\r\n");
        assert_eq!(chain(&seen, "x-forwarded-for"), ["1.2.3.4", "5.6.7.8", "127.0.0.1"]);
        assert_eq!(seen.field("x-forwarded-proto"), Some("https"));
        assert_eq!(seen.field("x-forwarded-host"), Some("real.example"));
        assert_eq!(chain(&seen, "via"), ["1.0 first", "1.1 penstock"]);
    }

    fn forwarded_is_rfc_7239(driver) {
        let forwarded = |setup: Setup| setup.route_line("forwarded = \"forwarded\"");
        let (engine, _origin) = start(forwarded(Setup::new(driver)));
        let seen = sees(&engine, "Forwarded: for=1.2.3.4\r\nX-Forwarded-For: 5.6.7.8\r\n");
        let value = seen.field("forwarded").expect("Forwarded").to_owned();
        let pairs: BTreeSet<&str> = value.split(';').collect();
        assert_eq!(pairs, BTreeSet::from(["for=127.0.0.1", "host=\"example.net:8080\"", "proto=http"]), "{value}");

        let (engine, _origin) = start(forwarded(Setup::new(driver)).listen_line("trusted = [\"127.0.0.1\"]"));
        let seen = sees(&engine, "Forwarded: for=1.2.3.4;proto=https\r\n");
        let value = seen.field("forwarded").expect("Forwarded").to_owned();
        assert!(value.starts_with("for=1.2.3.4;proto=https, for=127.0.0.1"), "{value}");

        let (engine, _origin) = start(Setup::new(driver).route_line("forwarded = \"both\""));
        let seen = sees(&engine, "");
        assert!(seen.field("forwarded").is_some() && seen.field("x-forwarded-for") == Some("127.0.0.1"));
    }

    /// What nobody asks us to vouch for, we do not pass on from untrusted clients either — unless we are told to stay out of it.
    fn forwarding_can_be_off(driver) {
        let (engine, _origin) = start(Setup::new(driver).route_line("forwarded = \"off\"").engine_line("via = \"off\""));
        let seen = sees(&engine, "");
        for name in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "via"] {
            assert_eq!(seen.field(name), None, "{name}");
        }
    }

    fn host_policies(driver) {
        let origin = Origin::answering(|request| Some(answer(fields_text(request))));
        for (policy, wanted) in [
            ("keep", "example.net:8080".to_owned()),
            ("endpoint", origin.address.to_string()),
            ("inner.example", "inner.example".to_owned()),
        ] {
            let engine = Setup::new(driver).origin(&origin).pool_line(&format!("host = \"{policy}\"")).start();
            let seen = sees(&engine, "");
            assert_eq!(seen.field("host"), Some(wanted.as_str()), "{policy}");
            assert_eq!(seen.field("x-forwarded-host"), Some("example.net:8080"), "{policy}");
        }
    }

    fn absolute_form_decides_the_host(driver) {
        let origin = Origin::answering(|request| {
            Some(answer(format!("{} {}", request.start, request.field("host").unwrap_or("none"))))
        });
        let engine = Setup::new(driver).origin(&origin).start();
        let mut client = engine.client();
        for (target, line) in [
            ("http://real.example/x?y=z", "GET /x?y=z HTTP/1.1 real.example"),
            ("http://real.example:81", "GET / HTTP/1.1 real.example:81"),
            ("http://real.example?q", "GET /?q HTTP/1.1 real.example"),
        ] {
            let response = client.ask(format!("GET {target} HTTP/1.1\r\nHost: fake.example\r\n\r\n"));
            assert_eq!(response.text(), line, "{target}");
        }
    }

    fn hop_by_hop_fields_stay_on_their_hop(driver) {
        let origin = Origin::answering(|request| {
            let body = fields_text(request);
            Some(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: X-Hop, keep-alive\r\nX-Hop: secret\r\n\
                 Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\n\
                 X-End: kept\r\nServer: original\r\n\r\n{body}",
                body.len()
            ).into_bytes())
        });
        let engine = Setup::new(driver).origin(&origin).start();
        let response = engine.client().ask(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Mine, close-notify\r\nX-Mine: secret\r\nKeep-Alive: 5\r\n\
             Proxy-Connection: keep-alive\r\nTE: gzip;q=1, trailers\r\nUpgrade: h2c\r\nX-End: kept\r\nAuthorization: y\r\n\r\n",
        );
        for name in ["x-hop", "keep-alive", "proxy-connection", "upgrade"] {
            assert!(response.all(name).is_empty(), "{name} came back: {}", response.head.escape_ascii());
        }
        assert_eq!(response.field("x-end"), Some("kept"));
        assert_eq!(response.field("server"), Some("original"));
        let seen = as_seen(&response);
        for name in ["x-mine", "keep-alive", "proxy-connection", "upgrade", "connection"] {
            let values = seen.all(name);
            // `TE: trailers` is our own, and must be listed (RFC 9110 §10.1.4).
            let harmless = name == "connection" && values.iter().all(|value| ["keep-alive", "te"].contains(value));
            assert!(values.is_empty() || harmless, "{name} went on: {values:?}");
        }
        assert!(seen.all("te").iter().all(|value| *value == "trailers"), "{:?}", seen.all("te"));
        assert_eq!(seen.field("x-end"), Some("kept"));
        assert_eq!(seen.field("authorization"), Some("y"));
    }

    /// Connection must not be able to remove what routes, frames or identifies.
    fn connection_cannot_name_what_matters(driver) {
        let (engine, _origin) = start(Setup::new(driver));
        let seen = sees(&engine, "Connection: X-Forwarded-For, Host, Via, Authorization, Cookie\r\nAuthorization: y\r\n");
        assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(seen.field("host"), Some("example.net:8080"));
        assert_eq!(seen.field("via"), Some("1.1 penstock"));
    }

    fn server_and_via_on_responses(driver) {
        let origin = Origin::saying(&b"HTTP/1.1 200 OK\r\nServer: original\r\nContent-Length: 0\r\n\r\n"[..]);
        for (policy, wanted) in [("keep", Some("original")), ("remove", None), ("mine", Some("mine"))] {
            let line = format!("server = \"{policy}\"");
            let engine = Setup::new(driver).origin(&origin).engine_line(&line).engine_line("via = \"edge\"").start();
            let response = engine.client().get("/");
            assert_eq!(response.field("server"), wanted, "{policy}");
            assert_eq!(response.field("via"), Some("1.1 edge"));
        }
    }

    fn end_to_end_fields_are_untouched(driver) {
        let (engine, _origin) = start(Setup::new(driver));
        let many: String = (0..60).map(|number| format!("X-Number-{number}: {number}\r\n")).collect();
        let seen = sees(&engine, &format!("{many}Cookie: a=b\r\nCookie: c=d\r\nX-Empty:\r\nX-High: caf\u{e9}\r\nX-Tab: a\tb\r\n"));
        for number in 0..60 {
            assert_eq!(seen.field(&format!("x-number-{number}")), Some(number.to_string().as_str()));
        }
        assert_eq!(seen.all("cookie").join("; "), "a=b; c=d");
        assert_eq!(seen.field("x-empty"), Some(""));
        assert_eq!(seen.field("x-tab"), Some("a\tb"));
    }

    fn routes_decide(driver) {
        let named = |name: &'static str| Origin::answering(move |_| Some(answer(name)));
        let (pages, api, writes) = (named("pages"), named("api"), named("writes"));
        let toml = format!(
            "[[pool]]\nname = \"api\"\nendpoints = [\"{}\"]\n[[pool]]\nname = \"writes\"\nendpoints = [\"{}\"]\n\
             [[route]]\nhost = \"api.example\"\npath = \"/v1/*\"\npool = \"api\"\n\
             [[route]]\nhost = \"api.example\"\npath = \"/v1/*\"\nmethod = [\"POST\", \"PUT\"]\npool = \"writes\"\n\
             [[route]]\nhost = \"*.wild.example\"\npool = \"api\"\n",
            api.address, writes.address
        );
        let engine = Setup::new(driver).origin(&pages).route_line("host = \"www.example\"").more(&toml).start();
        let mut client = engine.client();
        for (method, host, path, wanted) in [
            ("GET", "www.example", "/", "pages"),
            ("GET", "WWW.Example:81", "/x", "pages"),
            ("GET", "api.example", "/v1", "api"),
            ("GET", "api.example", "/v1/x?y", "api"),
            ("POST", "api.example", "/v1/x", "writes"),
            ("GET", "a.wild.example", "/", "api"),
            ("GET", "api.example", "/v10", "404"),
            ("GET", "api.example", "/", "404"),
            ("GET", "wild.example", "/", "404"),
            ("GET", "other.example", "/", "404"),
        ] {
            let response = client.ask(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            if wanted == "404" {
                assert_eq!(response.status(), 404, "{method} {host}{path}");
            } else {
                assert_eq!(response.text(), wanted, "{method} {host}{path}");
            }
        }
        assert_eq!(engine.metrics().sum("requests_unrouted_total"), 4);
    }
}

fn start(setup: Setup) -> (Engine, Origin) {
    let origin = Origin::answering(|request| Some(answer(fields_text(request))));
    (setup.origin(&origin).start(), origin)
}

/// The request as the origin saw it.
fn sees(engine: &Engine, lines: &str) -> Message {
    let request: Vec<u8> =
        format!("GET / HTTP/1.1\r\nHost: example.net:8080\r\n{lines}\r\n").chars().map(|c| c as u8).collect();
    as_seen(&engine.client().ask(request))
}

fn as_seen(response: &Message) -> Message {
    assert_eq!(response.status(), 200, "{}", response.text());
    let fields = response
        .text()
        .lines()
        .filter_map(|line| {
            line.split_once(": ").or(line.split_once(':')).map(|(name, value)| (name.to_owned(), value.to_owned()))
        })
        .collect();
    Message { fields, body: response.body.clone(), ..Message::default() }
}

/// A list, whether it is one field or several.
fn chain(message: &Message, name: &str) -> Vec<String> {
    message.all(name).iter().flat_map(|value| value.split(',')).map(|one| one.trim().to_owned()).collect()
}
