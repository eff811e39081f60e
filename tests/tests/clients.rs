//! Clients that we did not write: curl, wrk, Python's http.client.

use std::time::Duration;

use harness::{Driver, Engine, Folder, Origin, Setup, Tool, on_each_driver, pattern, python, script};

const BIG: usize = 64 << 20;

on_each_driver! {
    fn curl_gets_and_posts(driver) {
        let (engine, origin) = start(driver);
        let curl = |args: &[&str], path: &str| {
            let url = format!("http://{}{path}", engine.address);
            Tool::new("curl", 20).args(["-sS", "--fail", "--max-time", "15"]).args(args).args([url]).succeed()
        };
        assert_eq!(curl(&[], "/").text(), "hello\n");
        assert_eq!(curl(&["--http1.0"], "/").text(), "hello\n");
        assert_eq!(curl(&["--data", "some content"], "/echo").text(), "some content");
        assert_eq!(curl(&["--data", "x", "-H", "Transfer-Encoding: chunked"], "/echo").text(), "x");
        let head = curl(&["--head"], "/bytes/500").text();
        assert!(head.starts_with("HTTP/1.1 200") && head.to_ascii_lowercase().contains("content-length: 500"), "{head}");
        assert_eq!(curl(&[], "/chunked/5000").out, pattern(5_000, 5_000));
        assert_eq!(curl(&[], "/until-close/5000").out, pattern(5_000, 5_000));
        // Three requests, one connection.
        let urls = ["/bytes/1", "/bytes/2"].map(|path| format!("http://{}{path}", engine.address));
        let kept = curl(&["-w", "%{num_connects} ", &urls[0], &urls[1], "-o", "/dev/null", "-o", "/dev/null", "-o", "/dev/null"], "/");
        assert_eq!(kept.text().trim(), "1 0 0", "connections that curl made");
        assert!(origin.accepted() >= 1);
        engine.until_idle();
    }

    fn curl_waits_for_100_continue(driver) {
        let (engine, _origin) = start(driver);
        let folder = Folder::new();
        let body = pattern(3, 200_000);
        let file = folder.write("body", &body);
        let url = format!("http://{}/echo", engine.address);
        let args = ["-sS", "-v", "--expect100-timeout", "10", "-H", "Expect: 100-continue", "--data-binary"];
        let ran = Tool::new("curl", 20).args(args).args([format!("@{}", file.display()), url]).succeed();
        assert!(ran.err.contains("100 Continue"), "curl saw no 100:\n{}", ran.err);
        assert!(ran.out == body, "the content came back different");
    }

    fn curl_uploads_and_downloads_64_mib(driver) {
        let (engine, _origin) = start(driver);
        let folder = Folder::new();
        let body = pattern(BIG as u64, BIG);
        let (sent, got) = (folder.write("sent", &body), folder.join("got"));
        let url = |path: &str| format!("http://{}{path}", engine.address);
        let curl = |args: &[&str]| {
            let out = got.display().to_string();
            Tool::new("curl", 60).args(["-sS", "--fail", "--max-time", "50", "-o", &out]).args(args).succeed();
            assert!(std::fs::read(&got).expect("curl wrote it") == body, "{args:?}: different content");
        };
        curl(&[&url(&format!("/bytes/{BIG}"))]);
        curl(&[&url(&format!("/until-close/{BIG}"))]);
        let file = sent.display().to_string();
        curl(&["-T", &file, &url("/echo")]);
        curl(&["-T", &file, "-H", "Transfer-Encoding: chunked", &url("/echo")]);
        let lent = engine.metrics().sum("buffers_lent_bytes_max");
        assert!(lent < 16 << 20, "{lent} bytes of buffers for one transfer at a time");
        engine.until_idle();
    }

    fn wrk_sees_no_errors(driver) {
        let (engine, _origin) = start(driver);
        let url = |path: &str| format!("http://{}{path}", engine.address);
        for (connections, path) in [("64", "/"), ("64", "/bytes/16384"), ("8", "/bytes/1000000"), ("64", "/chunked/3000")] {
            let args = ["-t1", "-c", connections, "-d1", "--timeout", "5"];
            let ran = Tool::new("wrk", 20).args(args).args([url(path)]).succeed().text();
            assert!(!ran.contains("Socket errors") && !ran.contains("Non-2xx"), "{path}:\n{ran}");
            let line = ran.lines().find(|line| line.contains("requests in")).unwrap_or_else(|| panic!("{ran}"));
            let requests: u64 = line.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0);
            assert!(requests > 50, "{path}: {line}");
        }
        // wrk leaves in the middle of things.
        engine.until_idle();
    }

    fn wrk_with_a_connection_for_each_request(driver) {
        let (engine, _origin) = start(driver);
        let args = ["-t1", "-c16", "-d1", "--timeout", "5", "-H", "Connection: close"];
        let ran = Tool::new("wrk", 20).args(args).args([format!("http://{}/", engine.address)]).succeed().text();
        assert!(!ran.contains("Socket errors") && !ran.contains("Non-2xx"), "{ran}");
        engine.until_idle();
    }

    fn python_http_client(driver) {
        let (engine, _origin) = start(driver);
        let ran = Tool::new(python(), 30).args([script("client.py")]).args([engine.address.to_string()]).run();
        assert_eq!(ran.code, Some(0), "{}\n{}", ran.text(), ran.err);
        assert!(ran.text().contains("all well"), "{}", ran.text());
    }

    /// `serve` with flags alone, over two origins.
    fn serve_needs_no_file(driver) {
        let origins = [Origin::standard(), Origin::standard()];
        let engine = Setup::new(driver).origin(&origins[0]).origin(&origins[1]).serve(&[]);
        let mut client = engine.client();
        for _ in 0..50 {
            assert_eq!(client.get("/").text(), "hello\n");
        }
        for origin in &origins {
            assert!(origin.accepted() > 0, "an origin got nothing");
        }
        let shown = engine.err();
        assert!(shown.contains("[[listen]]") && shown.contains("[[pool]]"), "the TOML is not shown:\n{shown}");
        assert!(shown.to_ascii_lowercase().contains(if driver == Driver::Uring { "uring" } else { "epoll" }), "{shown}");
        let status = engine.status().to_string();
        assert!(status.contains(driver.name()), "{status}");
    }
}

fn start(driver: Driver) -> (Engine, Origin) {
    let origin = Origin::standard();
    let engine = Setup::new(driver).origin(&origin).start();
    let patience = Duration::from_secs(5);
    harness::until("the first answer", patience, || engine.client().get("/").status() == 200);
    (engine, origin)
}
