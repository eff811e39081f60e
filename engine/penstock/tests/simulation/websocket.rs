//! WebSockets over HTTP/1.1 and HTTP/2, on either side: each end says frames of every sort, and hears the other's as they were sent.
//!
//! What holds for every seed: what comes is what was said, from the first byte on, and behind it at most a Close of the engine's, between two frames. Where
//! nobody breaks a rule and nothing breaks, that is all of it, and its end is an end.

mod part;
mod talks;

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proto::ws::{Sender, accept_of, parse_key};
use ring::sim::{Host, Listening, Socket};

use crate::client::PATIENCE;
use crate::ledger::Ledger;
use crate::scene::{Strict, WEB, address};
use part::{Fared, Heard, Part};

/// The key of RFC 6455 §1.3, and what answers it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// How WebSockets of all scenes so far were heard: wholly, up to a Close of the engine's, and up to where they were cut.
static HEARD: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

pub(crate) fn heard() -> [u64; 3] {
    [0, 1, 2].map(|at| HEARD[at].load(Ordering::Relaxed))
}

/// Whom a script is about, and what it may put up with.
#[derive(Clone)]
pub(crate) struct Town {
    ledger: Rc<Ledger>,
    size_max: usize,
    strict: Strict,
    /// WebSockets that origins have not heard out.
    open: Rc<Cell<usize>>,
}

/// One of them.
struct Open(Rc<Cell<usize>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Town {
    pub(crate) fn new(ledger: &Rc<Ledger>, size_max: usize, strict: Strict) -> Self {
        Self { ledger: Rc::clone(ledger), size_max, strict, open: Rc::default() }
    }

    fn open(&self) -> Open {
        self.open.set(self.open.get() + 1);
        Open(Rc::clone(&self.open))
    }

    /// When the last client leaves the engine is told to end, which those who still hear would hear of.
    async fn until_all_are_heard(&self, host: &Host) {
        while self.open.get() > 0 {
            host.sleep(Duration::from_millis(10)).await;
        }
    }

    fn part(&self, id: u64, sender: Sender) -> Part {
        Part::of(&self.ledger, id, sender, self.size_max)
    }

    /// What may happen to those who keep to all rules.
    fn is_excused(&self) -> bool {
        self.strict.may_break || self.strict.may_refuse || self.ledger.drained_at().is_some()
    }

    /// What was heard of `sender` in the WebSocket `id`, and how that ended.
    fn judge(&self, id: u64, sender: Sender, heard: &[u8], fared: Fared) {
        let other = if sender == Sender::Client { Sender::Server } else { Sender::Client };
        let (part, other) = (self.part(id, sender), self.part(id, other));
        let violated = part.is_broken() || other.is_broken();
        let judged = part.judge(heard).unwrap_or_else(|why| panic!("the {sender:?}'s part of WebSocket {id}: {why}"));
        match judged {
            Heard::Whole => {}
            Heard::Closed(1002, at) => {
                assert!(violated, "WebSocket {id}: nobody broke a rule");
                assert!(
                    !part.is_broken() || other.is_broken() || at == part.sound || self.is_excused(),
                    "{id}: {at} of {}",
                    part.sound
                );
            }
            Heard::Closed(1001, _) => {
                assert!(
                    self.ledger.drained_at().is_some(),
                    "the {sender:?}'s part of WebSocket {id}: nobody is about to stop"
                )
            }
            Heard::Closed(code, _) => panic!("WebSocket {id} is closed with {code}"),
            Heard::Cut => {
                assert!(
                    violated || self.is_excused(),
                    "the {sender:?}'s part of WebSocket {id} is cut after {} of {} bytes: {fared:?}",
                    heard.len(),
                    part.bytes.len()
                )
            }
        }
        let at = match judged {
            Heard::Whole => 0,
            Heard::Closed(..) => 1,
            Heard::Cut => 2,
        };
        HEARD[at].fetch_add(1, Ordering::Relaxed);
    }
}

pub(crate) async fn client(host: Host, town: Town) {
    host.dawdle(Duration::from_millis(200)).await;
    for _ in 0..host.pick(1..=3) {
        let id = town.ledger.ask().id;
        let begun =
            host.within(PATIENCE, open(&host, &town, id)).await.unwrap_or_else(|| panic!("WebSocket {id} hangs"));
        assert!(begun.is_ok() || town.is_excused(), "WebSocket {id}: {begun:?}");
    }
    town.until_all_are_heard(&host).await;
}

async fn open(host: &Host, town: &Town, id: u64) -> io::Result<()> {
    let socket = host.connect(&address(WEB)).await?;
    socket.send_split(host, request(id).as_bytes(), Duration::from_millis(20)).await?;
    let head = String::from_utf8(socket.recv_until(b"\r\n\r\n").await?).expect("a head is text");
    if !head.starts_with("HTTP/1.1 101 ") {
        assert!(town.is_excused(), "WebSocket {id}: {head}");
        return Ok(());
    }
    assert!(
        head.to_ascii_lowercase().contains(&format!("\r\nsec-websocket-accept: {}\r\n", ACCEPT.to_ascii_lowercase())),
        "{head}"
    );
    converse(host, &socket, town, id, Sender::Client).await;
    Ok(())
}

/// Asks for a WebSocket.
fn request(id: u64) -> String {
    format!(
        "GET /socket HTTP/1.1\r\nhost: app.test\r\nx-id: {id}\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: {KEY}\r\n\r\n"
    )
}

/// Says one's part, and hears the other's to its end.
async fn converse(host: &Host, socket: &Socket, town: &Town, id: u64, own: Sender) {
    let Part { bytes: said, closes, .. } = town.part(id, own);
    // Where both have said Close it is for the engine to end it.
    let (speaker, ends) = (socket.clone(), !closes || host.chance(0.5));
    let writer = host.spawn("speaker", move |host| async move {
        speaker.send_split(&host, &said, Duration::from_millis(20)).await?;
        if ends {
            speaker.shutdown_write();
        }
        Ok::<_, io::Error>(())
    });
    let mut heard = Vec::new();
    let fared = loop {
        match socket.recv(64 * 1024).await {
            Ok(bytes) if bytes.is_empty() => break Fared::Ended,
            Ok(bytes) => heard.extend(bytes),
            Err(_) => break Fared::Broken,
        }
    };
    // Who hears no more may have been cut off, and then nobody takes what is said either.
    let _ = writer.await;
    town.judge(id, if own == Sender::Client { Sender::Server } else { Sender::Client }, &heard, fared);
}

pub(crate) async fn h2_client(host: Host, town: Town) {
    host.dawdle(Duration::from_millis(200)).await;
    let begun =
        host.within(PATIENCE, talks::client(&host, &town)).await.expect("a client of WebSockets over HTTP/2 hangs");
    assert!(begun.is_ok() || town.is_excused(), "{begun:?}");
    town.until_all_are_heard(&host).await;
}

pub(crate) async fn origin(host: Host, listening: Listening, town: Town, h2: bool, rude: bool) {
    loop {
        let (socket, town) = (listening.accept().await, town.clone());
        if rude && host.chance(0.1) {
            socket.reset();
            continue;
        }
        host.spawn("WebSockets' origin", move |host| async move {
            let served = match h2 {
                true => host.within(PATIENCE, talks::serve(&host, socket, &town, rude)).await,
                false => host.within(PATIENCE, serve(&host, socket, &town, rude)).await,
            };
            served.expect("an origin of WebSockets hangs");
        });
    }
}

async fn serve(host: &Host, socket: Socket, town: &Town, rude: bool) {
    let Ok(head) = socket.recv_until(b"\r\n\r\n").await else { return };
    let head = String::from_utf8(head).expect("a head is text");
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let id: u64 = field("x-id").and_then(|id| id.parse().ok()).unwrap_or_else(|| panic!("no number: {head}"));
    assert!(head.starts_with("GET /socket HTTP/1.1\r\n") && town.ledger.asked(id).is_some(), "{head}");
    assert_eq!(field("sec-websocket-version"), Some("13"), "{head}");
    let key = field("sec-websocket-key")
        .and_then(|key| parse_key(key.as_bytes()))
        .unwrap_or_else(|| panic!("no key: {head}"));
    let accept = String::from_utf8(accept_of(key).to_vec()).expect("base64");
    let _open = town.open();
    let fault = if rude { host.pick(0..=9) } else { 9 };
    host.note(format!("an origin answers WebSocket {id} with {fault}"));
    let answer = match fault {
        0 => "HTTP/1.1 503 Not Now\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
        1 => "HTTP/1.1 101 Fine\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: no\r\n\r\n"
            .to_owned(),
        _ => format!(
            "HTTP/1.1 101 Fine\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
        ),
    };
    let _ = socket.send_split(host, answer.as_bytes(), Duration::from_millis(20)).await;
    match fault {
        0 | 1 => {}
        2 | 3 => {
            let said = town.part(id, Sender::Server).bytes;
            let _ = socket.send(&said[..host.pick(0..=said.len())]).await;
            host.dawdle(Duration::from_millis(50)).await;
            if fault == 2 { socket.reset() } else { socket.close() }
        }
        _ => converse(host, &socket, town, id, Sender::Server).await,
    }
}
