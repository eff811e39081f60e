//! Routes on the wire: what they ask for, what they make of a request and an answer, and what they answer themselves.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use harness::{Client, Driver, Engine, Message, Origin, Setup, Tool, answer, fields_text, on_each_driver};

/// A second pool, of this name and with this endpoint.
fn pool(name: &str, origin: &Origin) -> String {
    format!("[[pool]]\nname = \"{name}\"\nendpoints = [\"{}\"]\n", origin.address)
}

/// An origin that shows what it got, and says which one it is.
fn showing(name: &'static str) -> Origin {
    Origin::answering(move |request| Some(answer(format!("{name}\n{}\n{}", request.start, fields_text(request)))))
}

fn ask(engine: &Engine, target: &str, fields: &str) -> Message {
    engine.client().ask(format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n"))
}

/// The name that an origin gave itself.
fn who(message: &Message) -> String {
    message.text().lines().next().unwrap_or_default().to_owned()
}

/// The request line that an origin got.
fn line(message: &Message) -> String {
    message.text().lines().nth(1).unwrap_or_default().to_owned()
}

fn seen<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).collect()
}

on_each_driver! {
    fn a_route_asks_for_more_than_a_path(driver) {
        let (plain, other) = (showing("plain"), showing("other"));
        let route = |lines: &str| format!("[[route]]\npool = \"other\"\n{lines}\n");
        let engine = Setup::new(driver)
            .origin(&plain)
            .listen_line("trusted = [\"127.0.0.1\"]")
            .more(&(pool("other", &other)
                + &route("header = [\"X-Env: staging\", \"!X-Off\"]")
                + &route("query = \"version=2*\"")
                + &route("client = \"192.0.2.0/24\"")
                + &route("method = \"PUT\"\npath = \"/put/{id}\"")))
            .start();
        for (target, fields, wanted) in [
            ("/", "", "plain"),
            ("/", "x-env: staging\r\n", "other"),
            ("/", "x-env: staging\r\nX-Off: 1\r\n", "plain"),
            ("/?a&versi%6fn=2.1", "", "other"),
            ("/?version=1", "", "plain"),
            ("/", "X-Forwarded-For: 192.0.2.7\r\n", "other"),
            ("/", "X-Forwarded-For: 192.0.2.7, 198.51.100.1\r\n", "plain"),
            ("/", "X-Forwarded-For: 192.0.2.7, 127.0.0.1\r\n", "other"),
            ("/", "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-For: nonsense\r\n", "plain"),
            ("/put/7", "", "plain"),
        ] {
            assert_eq!(who(&ask(&engine, target, fields)), wanted, "{target} {fields}");
        }
        let put = engine.client().ask("PUT /put/7 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(who(&put), "other");
    }

    /// Who is no trusted proxy cannot say where he comes from; a PROXY header can.
    fn the_clients_network_is_that_of_the_client(driver) {
        let (plain, other) = (showing("plain"), showing("other"));
        let more = pool("other", &other) + "[[route]]\npool = \"other\"\nclient = \"192.0.2.0/24\"\n";
        let engine = Setup::new(driver).origin(&plain).more(&more).start();
        assert_eq!(who(&ask(&engine, "/", "X-Forwarded-For: 192.0.2.7\r\n")), "plain");
        let engine =
            Setup::new(driver).origin(&plain).listen_line("proxy_protocol = { from = [\"127.0.0.1\"] }").more(&more).start();
        for (client, wanted) in [("192.0.2.7", "other"), ("198.51.100.1", "plain")] {
            let mut connection = engine.client();
            connection.send(format!("PROXY TCP4 {client} 10.0.0.1 1234 80\r\n"));
            assert_eq!(who(&connection.get("/")), wanted);
        }
    }

    fn paths_hosts_and_fields_are_rewritten(driver) {
        let origin = showing("origin");
        let engine = Setup::new(driver)
            .origin(&origin)
            .route_line("path = \"/u/{id}/{rest...}\"")
            .route_line("rewrite = { path = \"/users/{id}/{rest}\", host = \"inner.example\" }")
            .route_line("request_headers = { set = [\"X-Client: {client.ip}\", \"User-Agent: edge\"], add = \"Accept: x/{id}\", remove = [\"Cookie\", \"X-Debug\"] }")
            .route_line("response_headers = { set = [\"X-Was: {host}{path}\", \"Content-Type: text/new\"], remove = \"X-Gone\" }")
            .more("[[route]]\npool = \"origins\"\npath = \"/v1/*\"\nrewrite = { path = \"/v2/*\" }")
            .start();
        let response = ask(&engine, "/u/7/a/b%20c?q=1", "Cookie: a\r\nx-debug: 1\r\nx-client: forged\r\nUser-Agent: curl\r\nAccept: y\r\nX-Kept: 1\r\n");
        let text = response.text();
        assert_eq!(line(&response), "GET /users/7/a/b%20c?q=1 HTTP/1.1");
        assert_eq!(seen(&text, "host"), ["inner.example"]);
        assert_eq!(seen(&text, "x-client"), ["127.0.0.1"]);
        assert_eq!(seen(&text, "user-agent"), ["edge"]);
        assert_eq!(seen(&text, "accept"), ["y", "x/7"]);
        assert_eq!(seen(&text, "x-kept"), ["1"]);
        assert!(seen(&text, "cookie").is_empty() && seen(&text, "x-debug").is_empty(), "{text}");
        assert_eq!(response.field("x-was"), Some("a.example/u/7/a/b%20c"));
        assert_eq!(response.field("content-type"), Some("text/new"));
        for (target, wanted) in [("/v1", "/v2"), ("/v1/", "/v2/"), ("/v1/x?y", "/v2/x?y"), ("http://b/v1/x", "/v2/x")] {
            assert_eq!(line(&ask(&engine, target, "")), format!("GET {wanted} HTTP/1.1"), "{target}");
        }
        // With content, and on a connection that lives on.
        let mut client = engine.client();
        for _ in 0..3 {
            let response = client.ask("POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
            assert_eq!(line(&response), "POST /v2/x HTTP/1.1");
        }
        drop(client);
        engine.until_idle();
    }

    fn redirects(driver) {
        let origin = showing("origin");
        let route = |lines: &str| format!("[[route]]\n{lines}\n");
        let engine = Setup::new(driver)
            .origin(&origin)
            .route_line("path = \"/landed/*\"")
            .more(&(route("path = \"/old/{rest...}\"\nredirect = { to = \"/landed/{rest}\", status = 308 }")
                + &route("path = \"/up/*\"\nredirect = { to = \"https://{host}{path}\", query = \"drop\" }\nresponse_headers = { add = \"X-Path: {path}\" }")
                + &route("path = \"/go/{to}/{rest...}\"\nredirect = { to = \"/{rest}/{to}\" }")))
            .start();
        let location = |target: &str| {
            let response = ask(&engine, target, "");
            (response.status(), response.field("location").unwrap_or_default().to_owned())
        };
        assert_eq!(location("/old/a/b?q=1&r"), (308, "/landed/a/b?q=1&r".into()));
        assert_eq!(location("/up/x?q"), (302, "https://a.example/up/x".into()));
        assert_eq!(location("/go/evil.example"), (302, "/evil.example".into()));
        assert_eq!(location("/go//evil.example//x"), (302, "/x/evil.example".into()));
        assert_eq!(location("/go/a%0d%0aset-cookie:b/x"), (302, "/x/a%0D%0Aset-cookie:b".into()));
        assert_eq!(location("/go/%2fevil.example/x").0, 400);
        assert_eq!(ask(&engine, "/up/y", "").field("x-path"), Some("/up/y"));
        // Who names no host is not sent to whatever stands first in the path.
        let nameless = engine.client().ask("GET /up/evil.example HTTP/1.0\r\n\r\n");
        assert_eq!((nameless.status(), nameless.field("location")), (400, None));
        // Followed by somebody else, content and all.
        let url = format!("http://{}/old/x?y=z", engine.address);
        let curl = Tool::new("curl", 20).args(["-sS", "--fail", "-L", "--data", "hello", &url]).succeed().text();
        assert!(curl.starts_with("origin\nPOST /landed/x?y=z HTTP/1.1\n"), "{curl}");
        // HEAD, and content that nobody reads.
        let mut client = engine.client();
        assert_eq!(client.ask("HEAD /old/a HTTP/1.1\r\nHost: a\r\n\r\n").status(), 308);
        let refused = client.ask("POST /old/a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        assert_eq!(refused.field("location"), Some("/landed/a"));
        engine.until_idle();
    }

    fn answers_of_our_own(driver) {
        let origin = showing("origin");
        let engine = Setup::new(driver)
            .origin(&origin)
            .route_line("path = \"/app/*\"")
            .more("[[route]]\npath = \"/robots.txt\"\nrespond = { status = 200, body = \"User-agent: *\\n\" }")
            .more("[[route]]\nhost = \"down.example\"\nrespond = { status = 503, headers = [\"Retry-After: 60\", \"Content-Type: text/html\"], body = \"<p>later\" }")
            .more("[[route]]\npath = \"/gone\"\nrespond = { status = 410 }")
            .start();
        let robots = ask(&engine, "/robots.txt", "");
        assert_eq!((robots.status(), robots.text().as_str()), (200, "User-agent: *\n"));
        assert_eq!(robots.field("content-type"), Some("text/plain; charset=utf-8"));
        let mut client = engine.client();
        let down = client.ask("GET /x HTTP/1.1\r\nHost: down.example\r\n\r\n");
        assert_eq!((down.status(), down.field("retry-after"), down.text().as_str()), (503, Some("60"), "<p>later"));
        assert_eq!(down.field("content-type"), Some("text/html"));
        let head = client.ask("HEAD /robots.txt HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!((head.status(), head.field("content-length"), head.body.len()), (200, Some("14"), 0));
        let gone = client.get("/gone");
        assert_eq!((gone.status(), gone.body.len(), gone.field("content-type")), (410, 0, None));
        assert_eq!(client.get("/nowhere").status(), 404);
        assert_eq!(origin.accepted(), 0, "no endpoint was asked");
    }

    /// What an origin sees is what our routes saw, or it sees nothing.
    fn no_spelling_walks_past_a_route(driver) {
        let origin = showing("origin");
        let engine = Setup::new(driver)
            .origin(&origin)
            .more("[[route]]\npath = \"/admin/*\"\nrespond = { status = 403 }")
            .more("[[route]]\npath = \"/raw/*\"\npool = \"origins\"\nraw_path = true")
            .start();
        for (target, status, seen) in [
            ("/x/y", 200, "/x/y"),
            ("/.well-known/x", 200, "/.well-known/x"),
            ("/admin", 403, ""),
            ("/%61dmin/x", 403, ""),
            ("//admin/x", 403, ""),
            ("/x/../admin", 403, ""),
            ("/x/%2e%2E/admin", 403, ""),
            ("http://a.example/x/../admin", 403, ""),
            ("/x/..%2fadmin", 400, ""),
            ("/x/..%5cadmin", 400, ""),
            ("/x\\..\\admin", 400, ""),
            ("/x/..;/admin", 400, ""),
            ("/x/%c0%ae%c0%ae/admin", 400, ""),
            ("/x%00", 400, ""),
            ("/x/%2", 400, ""),
            ("/x/./y//z?a=/../b", 200, "/x/y/z?a=/../b"),
            ("/x/%7euser/caf%c3%a9", 200, "/x/~user/caf%C3%A9"),
            ("/raw/a%2fb//c", 200, "/raw/a%2fb//c"),
            ("/raw/../admin", 403, ""),
        ] {
            let response = ask(&engine, target, "");
            assert_eq!(response.status(), status, "{target}");
            if status == 200 {
                assert_eq!(line(&response), format!("GET {seen} HTTP/1.1"), "{target}");
            }
        }
        // Where no route tells paths apart, nothing is touched.
        let engine = Setup::new(driver).origin(&origin).start();
        for target in ["/a%2fb", "//a/../b/.//c", "/%61?x#".trim_end_matches('#')] {
            assert_eq!(line(&ask(&engine, target, "")), format!("GET {target} HTTP/1.1"));
        }
    }

    fn a_split_keeps_clients_where_they_are(driver) {
        let (stable, canary) = (showing("stable"), showing("canary"));
        let dealt = |split: &str| {
            let engine = Setup::new(driver)
                .origin(&stable)
                .route_line("path = \"/other/*\"")
                .more(&(pool("canary", &canary) + &format!("[[route]]\nsplit = [{split}]\nsticky = \"cookie:user\"\n")))
                .start();
            let mut client = engine.client();
            let mut ask = |user: &str| who(&client.ask(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: x=1; user={user}; y=2\r\n\r\n")));
            let dealt: HashMap<u32, String> = (0..400).map(|user| (user, ask(&user.to_string()))).collect();
            for (user, before) in dealt.iter().take(50) {
                assert_eq!(*before, ask(&user.to_string()), "{user} changed sides");
            }
            dealt
        };
        let few = dealt("\"origins weight=90\", \"canary weight=10\"");
        let many = dealt("\"origins weight=90\", \"canary weight=90\"");
        let share = |dealt: &HashMap<u32, String>| dealt.values().filter(|name| *name == "canary").count();
        assert!((20..=60).contains(&share(&few)), "{} of 400", share(&few));
        assert!((160..=240).contains(&share(&many)), "{} of 400", share(&many));
        let back = few.iter().filter(|(user, name)| *name == "canary" && many[user] != "canary").count();
        assert_eq!(back, 0, "nobody leaves the canary when its weight is raised");
    }

    fn a_whole_exchange_has_a_deadline(driver) {
        let origin = Origin::start(|peer| {
            while let Some(request) = peer.request() {
                if request.target() == "/drip" {
                    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n");
                    while peer.send("x") {
                        std::thread::sleep(Duration::from_millis(100));
                    }
                    return;
                }
                std::thread::sleep(Duration::from_secs(3));
                peer.send(answer("late\n"));
            }
        });
        let engine = Setup::new(driver).origin(&origin).route_line("timeout = { total = \"500ms\" }").start();
        let begun = Instant::now();
        let late = ask(&engine, "/", "");
        assert_eq!((late.status(), late.text().as_str()), (504, "504: the time for this request is over\n"));
        assert!((400..1500).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
        let mut client = engine.client();
        client.send("GET /drip HTTP/1.1\r\nHost: a\r\n\r\n");
        let begun = Instant::now();
        assert!(client.response(false).is_err(), "the response breaks off");
        assert!((400..1500).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
        engine.until_idle();
    }
}

// ── Mirrors ─────────────────────────────────────────────────────────────────────────────────────────────────────────

on_each_driver! {
    fn a_mirror_gets_copies(driver) {
        let (origin, mirror) = (showing("origin"), showing("mirror"));
        let engine = mirrored(driver, &origin, &pool("shadow", &mirror), "100%");
        let mut client = engine.client();
        assert_eq!(who(&client.get("/x?y")), "origin");
        // Copies do not wait for each other: the first one has been answered before the second one leaves.
        engine.until_metric("mirrors_total", 1);
        engine.until_metric("mirrors_open", 0);
        let chunked = "POST /c HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        assert_eq!(who(&client.ask(chunked)), "origin");
        let long = 100_000;
        let body = "x".repeat(long);
        let upload = format!("PUT /long HTTP/1.1\r\nHost: a\r\nContent-Length: {long}\r\n\r\n{body}");
        assert_eq!(who(&client.ask(upload)), "origin");
        engine.until_metric("mirrors_total", 2);
        engine.until_metric("mirrors_open", 0);
        engine.until_metric("mirrors_dropped_total", 1);
        assert_eq!(engine.metrics().sum("mirrors_failed_total"), 0);
        let got = String::from_utf8(mirror.received().concat()).expect("text");
        let copy = "GET /x?y HTTP/1.1\r\nHost: test\r\n";
        assert!(got.starts_with(copy) && got.contains("x-forwarded-for: 127.0.0.1\r\n"), "{got}");
        assert!(got.contains("POST /c HTTP/1.1\r\n") && got.contains("content-length: 5\r\n") && got.ends_with("\r\n\r\nabcde"), "{got}");
        assert!(!got.contains("chunked") && !got.contains("100-continue") && !got.contains("/long"), "{got}");
        drop(client);
        engine.until_idle();
    }

    fn a_share_of_the_requests_is_copied(driver) {
        let (origin, mirror) = (showing("origin"), showing("mirror"));
        let engine = mirrored(driver, &origin, &pool("shadow", &mirror), "20%");
        let mut client = engine.client();
        (0..500).for_each(|_| assert_eq!(who(&client.get("/")), "origin"));
        let metrics = engine.metrics();
        let copies = metrics.sum("mirrors_total") + metrics.sum("mirrors_dropped_total");
        assert!((60..=140).contains(&copies), "{copies} of 500");
    }

    /// A mirror that is dead, one that hangs and one that trickles: the original is none the wiser, and nothing piles up.
    alone fn a_bad_mirror_harms_nobody(driver) {
        let origin = Origin::answering(|_| Some(answer("hello\n")));
        let alone = Setup::new(driver).origin(&origin).start();
        let usual = load(&alone);
        drop(alone);
        let hanging = Origin::start(|peer| {
            while peer.request().is_some() {
                std::thread::sleep(Duration::from_secs(60));
            }
        });
        let trickling = Origin::start(|peer| {
            while peer.request().is_some() {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
                while peer.send("x") {
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        });
        let dead = format!("[[pool]]\nname = \"shadow\"\nendpoints = [\"{}\"]\n", harness::free_address());
        let never = "breaker = { failures = 0 }\n";
        for (what, shadow) in [
            ("dead", dead),
            ("hanging", pool("shadow", &hanging) + never),
            ("trickling", pool("shadow", &trickling) + never),
        ] {
            let engine = mirrored(driver, &origin, &shadow, "100%");
            load(&engine);
            let before = engine.memory().resident;
            let tail = load(&engine);
            let metrics = engine.metrics();
            assert!(metrics.sum("mirrors_open") <= 64, "{what}: {} open", metrics.sum("mirrors_open"));
            assert!(metrics.sum("mirrors_dropped_total") > 0, "{what}: copies beyond the bound are dropped");
            assert_eq!(metrics.sum("responses_server_error_total") + metrics.sum("responses_broken_total"), 0, "{what}");
            let grown = engine.memory().resident.saturating_sub(before);
            assert!(grown < 8 << 20, "{what}: {grown} bytes more");
            let bound = (usual * 3).max(Duration::from_millis(50));
            assert!(tail < bound, "{what}: a 99th percentile of {tail:?}, {usual:?} without a mirror");
        }
    }
}

fn mirrored(driver: Driver, origin: &Origin, shadow: &str, share: &str) -> Engine {
    Setup::new(driver)
        .origin(origin)
        .route_line(&format!("mirror = {{ pool = \"shadow\", share = \"{share}\" }}"))
        .more(shadow)
        .start()
}

/// The 99th percentile of 2,000 requests over eight connections, each of which must succeed.
fn load(engine: &Engine) -> Duration {
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let mut client: Client = engine.client();
            std::thread::spawn(move || {
                (0..250)
                    .map(|_| {
                        let begun = Instant::now();
                        assert_eq!(client.get("/").text(), "hello\n");
                        begun.elapsed()
                    })
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    let mut times: Vec<Duration> =
        threads.into_iter().flat_map(|thread| thread.join().expect("every request is answered")).collect();
    times.sort_unstable();
    times[times.len() * 99 / 100]
}
