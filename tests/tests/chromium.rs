//! A browser that people use: Chromium, without a window, against a door with TLS. Its pages tell the origin what they have seen.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use aws_lc_rs::digest;
use data_encoding::BASE64;
use harness::{Authority, Driver, Engine, Folder, Issued, Kind, Message, Origin, Peer, Setup, answer, on_each_driver};
use rcgen::{KeyPair, PublicKeyData};
use rustix::process::{Pid, Signal};
use serde_json::Value;

/// What a page of its own may take on a machine that does other things too.
const PAGE_MAX: Duration = Duration::from_secs(60);
const PARTS: usize = 50;

/// Nobody but the engine is found.
const NOBODY: &str = "MAP * ~NOTFOUND, EXCLUDE localhost";

/// By QUIC it would take a while to see that `::1` is nobody.
const NOBODY_BUT_IPV4: &str = "MAP localhost 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1";

on_each_driver! {
    fn fifty_parts_over_one_connection(driver) {
        let Some(mut visit) = Visit::to(driver, "parts", "") else { return };
        let told = visit.told();
        assert_eq!(told["parts"], PARTS, "{told}");
        assert_eq!(told["broken"], 0, "{told}");
        assert_eq!(told["protocols"], serde_json::json!(["h2"]), "{told}");
        // It makes a second connection ahead, before it knows what the first one speaks, and leaves that alone, or has everything that follows the
        // page come over it; a part may have begun to wait for it.
        assert!(told["connected"].as_u64() <= Some(1), "parts that made a connection of their own: {told}");
        let requests = visit.requests_by_session();
        let together = requests.iter().any(|&count| count >= PARTS);
        assert!(together && requests.len() <= 2, "requests of each connection: {requests:?}");
    }

    fn a_websocket_over_http1(driver) {
        let Some(visit) = Visit::to(driver, "websocket", "http2 = { enabled = false }") else { return };
        assert_eq!(visit.told(), echoed());
        let metrics = visit.engine.metrics();
        assert_eq!(metrics.sum("h2_connections_total"), 0);
        assert!(metrics.sum("connections_total") >= 2, "a WebSocket has a connection of its own");
        assert_eq!(metrics.sum("websockets_total"), 1);
    }

    /// RFC 8441: on the connection that brought the page.
    fn a_websocket_over_http2(driver) {
        let Some(mut visit) = Visit::to(driver, "websocket", "") else { return };
        assert_eq!(visit.told(), echoed());
        let metrics = visit.engine.metrics();
        // A connection that it makes ahead and leaves alone says nothing.
        assert!(metrics.sum("h2_connections_total") >= 1);
        assert_eq!(metrics.sum("websockets_total"), 1);
        let requests = visit.requests_by_session();
        assert!(requests.len() == 1 && requests[0] > 1, "requests of each connection: {requests:?}");
    }

    /// From the first packet on, because it was told to.
    fn http3_by_force(driver) {
        let Some(visit) = Visit::by(driver, "parts", "", Quic::Forced) else { return };
        let told = visit.told();
        assert_eq!((&told["parts"], &told["broken"], &told["protocols"]), (&PARTS.into(), &0.into(), &serde_json::json!(["h3"])), "{told}");
        let metrics = visit.engine.metrics();
        assert!(metrics.sum("h3_connections_total") >= 1);
        assert_eq!((metrics.sum("h2_connections_total"), metrics.sum("h3_faults_total")), (0, 0));
        assert!(metrics.sum("requests_total") > PARTS as u64);
    }

    /// RFC 7838: the page comes over HTTP/2, and with it the word that there is HTTP/3; what is asked for next goes over to that.
    fn http3_after_it_was_advertised(driver) {
        let Some(visit) = Visit::by(driver, "upgrade", "", Quic::Advertised) else { return };
        let told = visit.told();
        // What it asks for right after the page may have gone over already.
        assert_eq!((&told["page"], &told["last"]), (&"h2".into(), &"h3".into()), "{told}");
        let metrics = visit.engine.metrics();
        assert!(metrics.sum("h2_connections_total") >= 1);
        assert!(metrics.sum("h3_connections_total") >= 1);
        assert_eq!((metrics.sum("h2_faults_total"), metrics.sum("h3_faults_total")), (0, 0));
    }

    fn a_large_download_over_http3(driver) {
        let Some(visit) = Visit::by(driver, "download", "", Quic::Forced) else { return };
        assert_eq!(visit.told(), serde_json::json!({"protocol": "h3", "bytes": LARGE, "right": LARGE}));
        assert_eq!(visit.engine.metrics().sum("h3_faults_total"), 0);
    }

    /// RFC 9220 where it does that; it speaks HTTP/1.1 for WebSockets where it does not, on a connection of its own.
    fn a_websocket_beside_http3(driver) {
        let Some(visit) = Visit::by(driver, "websocket", "", Quic::Forced) else { return };
        assert_eq!(visit.told(), echoed());
        let metrics = visit.engine.metrics();
        assert!(metrics.sum("h3_connections_total") >= 1);
        assert_eq!((metrics.sum("websockets_total"), metrics.sum("h3_faults_total")), (1, 0));
    }
}

/// What a large download is.
const LARGE: usize = 20 << 20;

/// Whether it may speak QUIC.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Quic {
    Never,
    /// Where it is told that there is any.
    Advertised,
    Forced,
}

/// What the page tells when both messages came back and the end was clean.
fn echoed() -> Value {
    serde_json::json!({"text": "reservoir", "bytes": 100_000, "code": 1000, "clean": true})
}

/// A browser on its way to a page of ours.
struct Visit {
    browser: Browser,
    engine: Engine,
    reports: Receiver<String>,
    _origin: Origin,
    folder: Folder,
}

impl Visit {
    /// `None` where there is no Chromium, which it says.
    fn to(driver: Driver, page: &str, listen_line: &str) -> Option<Self> {
        Self::by(driver, page, listen_line, Quic::Never)
    }

    fn by(driver: Driver, page: &str, listen_line: &str, quic: Quic) -> Option<Self> {
        let Some(program) = xtask::place::program("chromium") else {
            println!("chromium: not available here");
            return None;
        };
        let folder = Folder::new();
        let authority = Authority::new(&folder, "ca");
        let issued = authority.issue(&folder, "localhost", &["localhost"], Kind::Ecdsa);
        let (reporter, reports) = channel();
        let origin = Origin::start(move |peer| serve(peer, &reporter));
        let setup = Setup::new(driver).origin(&origin).listen_line(&issued.line());
        let engine = if listen_line.is_empty() { setup } else { setup.listen_line(listen_line) }.start();
        let mut command = Command::new(program);
        // Nobody but the engine is asked for anything.
        command
            .arg(format!("--host-resolver-rules={}", if quic == Quic::Never { NOBODY } else { NOBODY_BUT_IPV4 }))
            .arg(format!("--log-net-log={}", folder.join("net.json").display()))
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .arg(format!("--user-data-dir={}", folder.join("profile").display()))
            .arg(format!("--ignore-certificate-errors-spki-list={}", pin(&issued)))
            .arg(format!("https://localhost:{}/{page}", engine.address.port()))
            // What it leaves behind goes with the folder.
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.join("said")).expect("a file of our own"));
        match quic {
            Quic::Never => command.arg("--disable-quic"),
            Quic::Advertised => {
                // Of a host that it is to speak QUIC with, at whatever port, it bears an authority that nobody knows.
                command.args(["--enable-quic", "--origin-to-force-quic-on=localhost:9"])
            }
            Quic::Forced => {
                let origin = format!("--origin-to-force-quic-on=localhost:{}", engine.address.port());
                command.args(["--enable-quic", "--enable-features=EnableWebSocketsOverHttp3", &origin])
            }
        };
        let browser = Browser(command.spawn().expect("a program that is there"));
        Some(Self { browser, engine, reports, _origin: origin, folder })
    }

    /// What the page reports.
    #[track_caller]
    fn told(&self) -> Value {
        let report = self.reports.recv_timeout(PAGE_MAX).unwrap_or_else(|error| {
            let said = std::fs::read_to_string(self.folder.join("said")).unwrap_or_default();
            panic!("no report from process {}: {error}; it said: {said}", self.browser.0.id())
        });
        serde_json::from_str(&report).unwrap_or_else(|error| panic!("{error}: {report}"))
    }

    /// How many requests went over each connection of HTTP/2 that carried any, as the browser's own log has it: an object a line.
    #[track_caller]
    fn requests_by_session(&mut self) -> Vec<usize> {
        self.browser.end();
        let text = std::fs::read_to_string(self.folder.join("net.json")).expect("a log");
        let (first, rest) = text.split_once(",\n").expect("constants, then events");
        let constants: Value = serde_json::from_str(&format!("{first}}}")).expect("the log's constants");
        let wanted = &constants["constants"]["logEventTypes"]["HTTP2_SESSION_SEND_HEADERS"];
        assert!(wanted.is_number(), "the log has another form");
        let mut sessions = BTreeMap::new();
        let lines = rest.lines().map(|line| line.trim_end_matches(','));
        for event in lines.filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            if event["type"] == *wanted {
                *sessions.entry(event["source"]["id"].as_u64()).or_default() += 1;
            }
        }
        sessions.into_values().collect()
    }
}

struct Browser(Child);

impl Browser {
    /// By SIGTERM, so that it ends its children itself.
    fn end(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).expect("a process has an id");
            let _ = rustix::process::kill_process(pid, Signal::TERM);
            let _ = self.0.wait();
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.end();
    }
}

/// The certificate's key as Chromium names it: what is signed by an authority that it does not know is good with this one.
fn pin(issued: &Issued) -> String {
    let pem = std::fs::read_to_string(&issued.key).expect("our own key");
    let key = KeyPair::from_pem(&pem).expect("our own key");
    BASE64.encode(digest::digest(&digest::SHA256, &key.subject_public_key_info()).as_ref())
}

/// The pages, their parts, what they report, and an echo for their WebSockets.
fn serve(peer: &mut Peer, reporter: &Sender<String>) {
    while let Ok(Some(request)) = peer.wire.request() {
        let response = match request.target() {
            "/parts" => page(&images(), PARTS_SCRIPT),
            "/upgrade" => page("", UPGRADE),
            "/websocket" => page("", WEBSOCKET),
            "/download" => page("", DOWNLOAD),
            "/large" => answer((0..LARGE).map(|at| (at % 251) as u8).collect::<Vec<_>>()),
            "/echo" => return echo(peer, &request),
            "/report" => {
                // The test may be over already.
                let _ = reporter.send(request.text());
                answer("")
            }
            part if part.starts_with("/part/") => typed("image/svg+xml", PART),
            _ => answer(""),
        };
        if peer.wire.try_send(response).is_err() {
            return;
        }
    }
}

const PART: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"8\" height=\"8\"><circle r=\"4\"/></svg>";

const REPORT: &str = "const report = told => fetch('/report', {method: 'POST', body: JSON.stringify(told)});";

fn images() -> String {
    (0..PARTS).map(|part| format!("<img src=\"/part/{part}\">")).collect()
}

const PARTS_SCRIPT: &str = "
    addEventListener('load', () => {
        const parts = performance.getEntriesByType('resource').filter(entry => entry.name.includes('/part/'));
        report({
            parts: parts.length,
            broken: [...document.images].filter(image => image.naturalWidth != 8).length,
            protocols: [...new Set(parts.map(entry => entry.nextHopProtocol))],
            connected: parts.filter(entry => entry.connectEnd > entry.connectStart).length,
        });
    });
";

/// Asks until it is answered over HTTP/3: a connection takes its time, and nobody waits for it.
const UPGRADE: &str = "
    (async () => {
        const protocol = entry => entry.nextHopProtocol, told = {page: protocol(performance.getEntriesByType('navigation')[0])};
        for (let count = 0; count < 400 && told.last != 'h3'; count++) {
            await (await fetch(`/part/${count}`)).text();
            told.last = protocol(performance.getEntriesByType('resource').find(entry => entry.name.endsWith(`/part/${count}`)));
            told.first ??= told.last;
            await new Promise(done => setTimeout(done, 100));
        }
        report(told);
    })();
";

const DOWNLOAD: &str = "
    (async () => {
        const bytes = new Uint8Array(await (await fetch('/large')).arrayBuffer());
        const protocol = performance.getEntriesByType('resource').find(entry => entry.name.endsWith('/large')).nextHopProtocol;
        report({protocol, bytes: bytes.length, right: bytes.filter((byte, at) => byte == at % 251).length});
    })();
";

const WEBSOCKET: &str = "
    const socket = new WebSocket(`wss://${location.host}/echo`), told = {};
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => { socket.send('reservoir'); socket.send(new Uint8Array(100000).fill(7)); };
    socket.onmessage = ({data}) => {
        if (typeof data == 'string') { told.text = data; return; }
        told.bytes = new Uint8Array(data).filter(byte => byte == 7).length;
        socket.close(1000);
    };
    socket.onclose = ({code, wasClean}) => report({...told, code, clean: wasClean});
";

/// A page with an icon of its own: nothing is asked for that is not written here.
fn page(body: &str, script: &str) -> Vec<u8> {
    let head = "<!doctype html><title>page</title><link rel=\"icon\" href=\"data:,\">";
    typed("text/html", &format!("{head}{body}<script>{REPORT}{script}</script>"))
}

fn typed(kind: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Sends back each frame as it came, until one closes (RFC 6455).
fn echo(peer: &mut Peer, request: &Message) {
    let proof =
        format!("{}258EAFA5-E914-47DA-95CA-C5AB0DC85B11", request.field("sec-websocket-key").unwrap_or_default());
    let proof = BASE64.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, proof.as_bytes()).as_ref());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {proof}\r\n\r\n"
    );
    let mut open = peer.wire.try_send(head).is_ok();
    while open {
        let Some((first, content)) = next_frame(peer) else { return };
        let mut frame = vec![first];
        match content.len() {
            short @ ..126 => frame.push(short as u8),
            length => {
                frame.push(127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(content);
        open = peer.wire.try_send(frame).is_ok() && first & 0xf != CLOSE;
    }
}

const CLOSE: u8 = 8;

/// A frame's first byte, and its content unmasked.
fn next_frame(peer: &mut Peer) -> Option<(u8, Vec<u8>)> {
    let head = peer.wire.take(2).ok()?;
    let more = match head[1] & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let extended = peer.wire.take(more).ok()?;
    let length = match more {
        0 => usize::from(head[1] & 0x7f),
        _ => extended.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)),
    };
    let mask = peer.wire.take(4).ok()?;
    let masked = peer.wire.take(length).ok()?;
    Some((head[0], masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()))
}
