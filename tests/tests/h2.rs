//! HTTP/2 with real clients and real endpoints: curl and h2load, nghttpd and the engine itself.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use harness::{
    Authority, Client, Engine, Folder, Issued, Kind, Origin, PATIENCE, Setup, Tool, answer, free_address,
    on_each_driver, until,
};

const LARGE: usize = 3 << 20;

on_each_driver! {
    fn curl_without_tls(driver) {
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).start();
        exchanges(&engine, &["--http2-prior-knowledge"], "http", "2");
        // Who asks in HTTP/1 at the same address gets that.
        exchanges(&engine, &["--http1.1"], "http", "1.1");
        assert!(engine.metrics().sum("h2_connections_total") >= 3);
    }

    fn curl_over_tls(driver) {
        let (folder, origin) = (Folder::new(), Origin::standard());
        let issued = Authority::new(&folder, "ca").issue(&folder, "site", &["localhost"], Kind::Ecdsa);
        let line = issued.line().replace(" }", ", min = \"1.2\" }");
        let engine = Setup::new(driver).origin(&origin).listen_line(&line).start();
        let ca = folder.join("ca.pem").display().to_string();
        for max in ["1.2", "1.3"] {
            exchanges(&engine, &["--http2", "--cacert", &ca, "--tls-max", max], "https", "2");
        }
        exchanges(&engine, &["--http1.1", "--cacert", &ca], "https", "1.1");
    }

    /// What is switched off is not spoken: by ALPN there is only HTTP/1.1, and the preface is no request.
    fn switched_off(driver) {
        let (folder, origin) = (Folder::new(), Origin::standard());
        let issued = Authority::new(&folder, "ca").issue(&folder, "site", &["localhost"], Kind::Ecdsa);
        let lines = format!("{}\nhttp2.enabled = false", issued.line());
        let engine = Setup::new(driver).origin(&origin).listen_line(&lines).start();
        let ca = folder.join("ca.pem").display().to_string();
        exchanges(&engine, &["--http2", "--cacert", &ca], "https", "1.1");
        let plain = Setup::new(driver).origin(&origin).listen_line("http2.enabled = false").start();
        let mut client = plain.client();
        client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        assert_eq!(client.response(false).expect("an answer").status(), 505);
    }

    /// Many streams of many connections over HTTP/1 to the origin, and none is lost when the engine is told to end in the midst of it.
    alone fn a_drain_loses_nothing(driver) {
        let origin = Origin::standard();
        let mut engine = Setup::new(driver).origin(&origin).start();
        let url = format!("http://{}/bytes/2000", engine.address);
        let load = std::thread::spawn(move || {
            Tool::new("h2load", 30).args(["-n", "400000", "-c", "8", "-m", "16", &url]).run()
        });
        until("load is on", PATIENCE, || engine.metrics().sum("requests_total") > 2_000);
        engine.terminate();
        assert_eq!(engine.wait(PATIENCE).code(), Some(0), "{}", engine.err());
        let said = load.join().expect("no panic").text();
        let line = said.lines().find(|line| line.starts_with("status codes")).expect("a summary");
        let started = number(said.lines().find(|line| line.starts_with("requests:")).expect("a summary"), "started");
        assert_eq!(number(line, "4xx") + number(line, "5xx"), 0, "{said}");
        // What was begun after our last word was not looked at: the client knows it may ask again.
        assert!(number(line, "2xx") + 8 * 16 >= started, "{said}");
    }

    /// HTTP/2 to nghttpd, from clients of either version; one connection a worker is enough.
    fn an_endpoint_of_http2(driver) {
        let folder = Folder::new();
        folder.write("small", "hello\n");
        folder.write("large", pattern(LARGE));
        let endpoint = Nghttpd::start(&folder, None);
        let setup = Setup::new(driver).to(&endpoint.address.to_string()).pool_line("protocol = \"h2\"");
        let engine = setup.start();
        through(&engine, &folder);
        let load = |version: &[&str]| {
            let url = format!("http://{}/small", engine.address);
            let said = Tool::new("h2load", 30).args(version).args(["-n", "3000", "-c", "8", &url]).run().text();
            assert!(said.contains("3000 succeeded, 0 failed"), "{said}");
        };
        load(&["-m", "10"]);
        load(&["--h1"]);
        let metrics = engine.metrics();
        assert_eq!((metrics.sum("upstream_connects_total"), metrics.sum("upstream_shared")), (1, 1));
        drop(endpoint);
        until("the connection is given up", PATIENCE, || engine.metrics().sum("upstream_shared") == 0);
        let mut client = engine.client();
        assert_eq!(client.get("/small").status(), 502);
    }

    /// A request goes over the fullest connection that takes it: beside a steady load, the one that is no longer needed falls idle and ends.
    fn the_fullest_connection_goes_first(driver) {
        let gates: [Arc<AtomicBool>; 2] = Default::default();
        let known = gates.clone();
        let origin = Origin::answering(move |request| {
            let gate = ["/burst", "/steady"].iter().position(|path| *path == request.target());
            if let Some(gate) = gate {
                until("it may go on", PATIENCE, || known[gate].load(Ordering::SeqCst));
            }
            Some(answer("yes"))
        });
        let back = Setup::new(driver).origin(&origin).listen_line("http2.streams = 4").start();
        let lines = "protocol = \"h2\"\nreuse.idle = \"1s\"";
        let engine = Setup::new(driver).to(&back.address.to_string()).pool_line(lines).start();
        // One that stays, on the connection that is there first, and five more: a second connection has to be made.
        let mut clients: Vec<_> = (0..6).map(|_| engine.client()).collect();
        assert_eq!(clients[0].get("/").status(), 200);
        for (at, client) in clients.iter_mut().enumerate() {
            client.send(format!("GET {} HTTP/1.1\r\nHost: a\r\n\r\n", if at == 0 { "/steady" } else { "/burst" }));
            until("it is asked", PATIENCE, || engine.metrics().sum("requests_open") == at as u64 + 1);
        }
        engine.until_metric("upstream_shared", 2);
        gates[0].store(true, Ordering::SeqCst);
        clients[1..].iter_mut().for_each(|client| assert_eq!(client.response(false).expect("an answer").status(), 200));
        // Whoever took turns, or the emptiest, would keep both from falling idle.
        until("one is enough", PATIENCE, || {
            assert_eq!(clients[1].get("/").status(), 200);
            engine.metrics().sum("upstream_shared") == 1
        });
        gates[1].store(true, Ordering::SeqCst);
        assert_eq!(clients[0].response(false).expect("an answer").status(), 200);
        assert_eq!(engine.metrics().sum("upstream_connects_total"), 2);
    }

    /// Over TLS it is ALPN that decides, and a pool may leave it to the endpoint.
    fn an_endpoint_chooses(driver) {
        let folder = Folder::new();
        folder.write("small", "hello\n");
        folder.write("large", pattern(LARGE));
        let authority = Authority::new(&folder, "ca");
        let issued = authority.issue(&folder, "site", &["localhost"], Kind::Ecdsa);
        let endpoint = Nghttpd::start(&folder, Some(&issued));
        let to = format!("https://localhost:{}", endpoint.address.port());
        let ca = format!("tls.ca = {:?}", authority.file);
        for (protocol, shared) in [("h2", 1), ("auto", 1)] {
            let lines = format!("protocol = \"{protocol}\"\n{ca}");
            let engine = Setup::new(driver).to(&to).pool_line(&lines).start();
            through(&engine, &folder);
            assert_eq!(engine.metrics().sum("upstream_shared"), shared, "{protocol}");
        }
        // One that speaks only HTTP/1.1.
        let origin = Origin::standard();
        let lines = format!("{}\nhttp2.enabled = false\nhttp3.enabled = false", issued.line());
        let inner = Setup::new(driver).origin(&origin).listen_line(&lines).start();
        let to = format!("https://localhost:{}", inner.address.port());
        let auto = Setup::new(driver).to(&to).pool_line(&format!("protocol = \"auto\"\n{ca}")).start();
        let mut client = auto.client();
        for _ in 0..3 {
            assert_eq!(client.get("/").text(), "hello\n");
        }
        assert_eq!((auto.metrics().sum("upstream_shared"), auto.metrics().sum("upstream_connects_total")), (0, 1));
        let strict = Setup::new(driver).to(&to).pool_line(&format!("protocol = \"h2\"\n{ca}")).start();
        assert_eq!(strict.client().get("/").status(), 502);
        assert!(strict.err().contains("NoApplicationProtocol"), "{}", strict.err());
    }

    /// Two engines behind each other, HTTP/2 between them: what one is told goes through both, in both directions at once.
    fn two_engines(driver) {
        let origin = Origin::standard();
        let inner = Setup::new(driver).origin(&origin).start();
        let outer = Setup::new(driver).to(&inner.address.to_string()).pool_line("protocol = \"h2\"").start();
        exchanges(&outer, &["--http2-prior-knowledge"], "http", "2");
        exchanges(&outer, &["--http1.1"], "http", "1.1");
        // An endpoint that takes its leave in the midst of load has done nothing with what it no longer takes.
        let url = format!("http://{}/", outer.address);
        let load = std::thread::spawn(move || {
            Tool::new("h2load", 30).args(["-n", "20000", "-c", "4", "-m", "8", &url]).run().text()
        });
        until("load is on", PATIENCE, || outer.metrics().sum("requests_total") > 2_000);
        let second = Setup::new(driver).origin(&origin).at(inner.address).start();
        inner.terminate();
        let said = load.join().expect("no panic");
        assert!(said.contains("20000 succeeded, 0 failed"), "{said}");
        drop(second);
    }

    /// A probe asks in what its pool speaks.
    fn probes(driver) {
        let folder = Folder::new();
        folder.write("health", "well\n");
        let endpoint = Nghttpd::start(&folder, None);
        let lines = "protocol = \"h2\"\nhealth = { http = \"/health\", body = \"well\", every = \"200ms\", timeout = \"2s\" }";
        let engine = Setup::new(driver).to(&endpoint.address.to_string()).pool_line(lines).start();
        until("it is well", PATIENCE, || engine.endpoints()[0]["health"] == "up");
        drop(endpoint);
        until("it is not", PATIENCE, || engine.endpoints()[0]["health"] == "down");
    }
}

/// GET, HEAD, uploads and downloads by curl.
fn exchanges(engine: &Engine, how: &[&str], scheme: &str, version: &str) {
    let folder = Folder::new();
    let upload = folder.write("upload", pattern(LARGE));
    let curl = |path: &str, more: &[&str]| {
        let url = format!("{scheme}://localhost:{}{path}", engine.address.port());
        let common = ["-sS", "--max-time", "15", "-4", "-w", "%{stderr}%{http_version} %{http_code}"];
        let ran = Tool::new("curl", 20).args(common).args(how).args(more).args([&url]).succeed();
        assert!(ran.err.ends_with(&format!("{version} 200")), "{path} {more:?}: {}", ran.err);
        ran.out
    };
    assert_eq!(curl("/", &[]), b"hello\n");
    assert!(curl("/", &["-I"]).starts_with(format!("HTTP/{version} 200").as_bytes()));
    assert_eq!(curl(&format!("/bytes/{LARGE}"), &[]).len(), LARGE);
    assert_eq!(curl("/chunked/300000", &[]).len(), 300_000);
    let echoed = curl("/echo", &["--data-binary", &format!("@{}", upload.display())]);
    assert!(echoed == pattern(LARGE), "an upload came back as {} bytes", echoed.len());
    let told = curl("/echo", &["-T", &upload.display().to_string(), "-X", "POST", "-H", "Transfer-Encoding: chunked"]);
    assert!(told == pattern(LARGE), "an upload of untold length came back as {} bytes", told.len());
}

/// Downloads by curl of what lies in `folder`, by both versions.
fn through(engine: &Engine, folder: &Folder) {
    for how in ["--http1.1", "--http2-prior-knowledge"] {
        for name in ["small", "large"] {
            let url = format!("http://{}/{name}", engine.address);
            let got = Tool::new("curl", 20).args(["-sS", "--max-time", "15", how, &url]).succeed().out;
            assert!(
                got == std::fs::read(folder.join(name)).expect("our own file"),
                "{how} {name}: {} bytes",
                got.len()
            );
        }
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 % 251) as u8).collect()
}

/// The number before `word` in a line of h2load's.
fn number(line: &str, word: &str) -> u64 {
    let before = line.split(word).next().expect("a part");
    let digits: String =
        before.chars().rev().skip_while(|char| !char.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.chars().rev().collect::<String>().parse().unwrap_or_else(|_| panic!("no number before {word}: {line}"))
}

/// nghttp2's server. Ends when it is dropped.
struct Nghttpd {
    address: SocketAddr,
    child: Child,
}

impl Nghttpd {
    /// Serves a folder, over TLS if it has a certificate.
    fn start(folder: &Folder, tls: Option<&Issued>) -> Self {
        let address = free_address();
        let program = xtask::place::program("nghttpd").expect("cargo xtask test installs it");
        let mut command = Command::new(program);
        command.args(["--address", "127.0.0.1", "--htdocs"]).arg(folder.path());
        let files: Vec<&Path> = tls.iter().flat_map(|issued| [issued.key.as_path(), issued.cert.as_path()]).collect();
        if tls.is_none() {
            command.arg("--no-tls");
        }
        command.arg(address.port().to_string()).args(files);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        let server = Self { address, child };
        until("it listens", PATIENCE, || Client::try_connect(address).is_ok());
        server
    }
}

impl Drop for Nghttpd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
