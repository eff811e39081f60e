//! Who is there while the configuration changes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::process::connect;

/// Between an answer and the next question.
const PAUSE: Duration = Duration::from_millis(5);

/// What those who ask have seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) answered: u64,
    /// Requests that were sent, and got no answer or no good one.
    pub(super) lost: u64,
    /// Connections that did not come about.
    pub(super) refused: u64,
    /// Connections that ended between two requests, or were said to be at their end.
    pub(super) closed: u64,
    pub(super) slowest: Duration,
}

/// Clients that ask one thing after another.
pub(super) struct Talk {
    over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Seen>>,
}

/// A connection that was used once, and lies idle.
pub(super) struct Parked(TcpStream);

/// A WebSocket.
pub(super) struct Tunnel(TcpStream);

enum Answer {
    Goes,
    /// It was the connection's last.
    Closes,
}

impl Talk {
    pub(super) fn begin(address: SocketAddr, clients: usize) -> Self {
        let over = Arc::<AtomicBool>::default();
        let start = |_| {
            let over = Arc::clone(&over);
            std::thread::spawn(move || ask_on(address, &over))
        };
        Self { clients: (0..clients).map(start).collect(), over }
    }

    pub(super) fn end(self) -> Seen {
        self.over.store(true, Ordering::SeqCst);
        self.clients.into_iter().filter_map(|client| client.join().ok()).fold(Seen::default(), Seen::and)
    }
}

impl Seen {
    fn and(self, other: Self) -> Self {
        Self {
            answered: self.answered + other.answered,
            lost: self.lost + other.lost,
            refused: self.refused + other.refused,
            closed: self.closed + other.closed,
            slowest: self.slowest.max(other.slowest),
        }
    }
}

fn ask_on(address: SocketAddr, over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut kept: Option<TcpStream> = None;
    while !over.load(Ordering::SeqCst) {
        std::thread::sleep(PAUSE);
        if kept.as_ref().is_some_and(has_ended) {
            seen.closed += 1;
            kept = None;
        }
        let begun = Instant::now();
        let Some(mut stream) = kept.take().or_else(|| connect(address).ok()) else {
            seen.refused += 1;
            continue;
        };
        match ask(&mut stream) {
            Ok(answer) => {
                seen.answered += 1;
                seen.slowest = seen.slowest.max(begun.elapsed());
                match answer {
                    Answer::Goes => kept = Some(stream),
                    Answer::Closes => seen.closed += 1,
                }
            }
            Err(_) => seen.lost += 1,
        }
    }
    seen
}

/// Nothing is under way on it, and still there is something to be read: its end.
fn has_ended(stream: &TcpStream) -> bool {
    let looked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
    let blocks = matches!(&looked, Err(error) if error.kind() == ErrorKind::WouldBlock);
    !blocks || stream.set_nonblocking(false).is_err()
}

fn ask(stream: &mut TcpStream) -> io::Result<Answer> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")?;
    let head = head(stream, b"ok")?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(io::Error::other(head));
    }
    Ok(if head.to_ascii_lowercase().contains("connection: close") { Answer::Closes } else { Answer::Goes })
}

/// Reads a head and the content that follows it.
fn head(stream: &mut TcpStream, content: &[u8]) -> io::Result<String> {
    let (mut heard, mut more) = (Vec::new(), [0; 2_048]);
    let is_whole = |heard: &[u8]| {
        let end = heard.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        end.is_some_and(|end| heard.len() >= end + content.len() || !heard.starts_with(b"HTTP/1.1 200"))
    };
    while !is_whole(&heard) {
        match stream.read(&mut more)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => heard.extend_from_slice(&more[..count]),
        }
    }
    Ok(String::from_utf8_lossy(&heard).into_owned())
}

impl Parked {
    pub(super) fn open(address: SocketAddr) -> Result<Self, String> {
        let open = || {
            let mut stream = connect(address)?;
            ask(&mut stream)?;
            io::Result::Ok(Self(stream))
        };
        open().map_err(|error| format!("{address}: {error}"))
    }

    /// Whether it still works.
    pub(super) fn ask(mut self) -> Option<()> {
        if has_ended(&self.0) {
            return None;
        }
        ask(&mut self.0).ok().map(|_| ())
    }
}

impl Tunnel {
    pub(super) fn open(address: SocketAddr) -> Result<Self, String> {
        let open = || {
            let mut stream = connect(address)?;
            stream.write_all(
                b"GET /tunnel HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            )?;
            let head = head(&mut stream, b"")?;
            if head.starts_with("HTTP/1.1 101") { Ok(Self(stream)) } else { Err(io::Error::other(head)) }
        };
        open().map_err(|error| format!("{address}: a tunnel: {error}"))
    }

    /// Whether it still carries a message there and back.
    pub(super) fn ask(mut self) -> Option<()> {
        self.0.write_all(&[0x82, 0x84, 0, 0, 0, 0, b'w', b'o', b'r', b'd']).ok()?;
        let mut heard = [0; 6];
        self.0.read_exact(&mut heard).ok()?;
        (&heard == b"\x82\x04word").then_some(())
    }
}
