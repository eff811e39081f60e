//! Origins that do what they are told, and remember what they were told themselves.

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use data_encoding::BASE64;

use crate::message::{Cut, Message, pattern};
use crate::wire::{Stream, Wire};

/// An origin in threads of this process. Closes everything when it is dropped.
#[derive(Debug)]
pub struct Origin {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    stopped: AtomicBool,
    accepted: AtomicUsize,
    /// What each connection received, in the order of their acceptance.
    received: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
    open: Mutex<HashMap<usize, TcpStream>>,
}

/// A connection that an origin accepted.
#[derive(Debug)]
pub struct Peer {
    pub wire: Wire<TcpStream>,
    /// From 0, in the order of acceptance.
    pub number: usize,
}

impl Origin {
    /// Runs `serve` for each connection, in a thread of its own. The connection is closed when it returns.
    pub fn start(serve: impl Fn(&mut Peer) + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a port of the kernel's choice"), serve)
    }

    pub fn on(listener: TcpListener, serve: impl Fn(&mut Peer) + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared::default());
        let serve = Arc::new(serve);
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let (shared, serve) = (accepting.clone(), serve.clone());
                std::thread::spawn(move || shared.serve(stream, &*serve));
            }
        });
        Self { address, shared }
    }

    /// Answers each request with what `answer` makes of it; `None` ends the connection.
    pub fn answering(answer: impl Fn(&Message) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self::start(move |peer| {
            while let Ok(Some(request)) = peer.wire.request() {
                let Some(response) = answer(&request) else { return };
                if peer.wire.try_send(response).is_err() {
                    return;
                }
            }
        })
    }

    /// One that does as the path says: see [`standard`].
    pub fn standard() -> Self {
        Self::start(standard)
    }

    /// Sends `response` as it is to the first request of each connection, and closes.
    pub fn saying(response: impl Into<Vec<u8>>) -> Self {
        let response = response.into();
        Self::start(move |peer| {
            if let Ok(Some(_)) = peer.wire.request() {
                let _ = peer.wire.try_send(&response);
            }
        })
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        lock(&self.shared.open).len()
    }

    /// What each connection has received so far.
    pub fn received(&self) -> Vec<Vec<u8>> {
        lock(&self.shared.received).iter().map(|bytes| lock(bytes).clone()).collect()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        for stream in lock(&self.shared.open).values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream, serve: &(impl Fn(&mut Peer) + Send + Sync)) {
        let tap = Arc::<Mutex<Vec<u8>>>::default();
        let number = {
            // At once: who has been accepted has a place among those who are heard.
            let mut received = lock(&self.received);
            received.push(tap.clone());
            self.accepted.fetch_add(1, Ordering::SeqCst)
        };
        let _ = stream.set_nodelay(true);
        if let Ok(clone) = stream.try_clone() {
            lock(&self.open).insert(number, clone);
        }
        if let Ok(mut wire) = Wire::new(stream) {
            // An idle connection is nobody's fault; a test that waits for one has its own watchdog.
            let _ = wire.stream.patience(Duration::from_secs(90));
            wire.tap = Some(tap);
            let mut peer = Peer { wire, number };
            // One that complains by panicking still hangs up, so that nobody waits for it.
            let complaint = catch_unwind(AssertUnwindSafe(|| serve(&mut peer)));
            drop(peer);
            self.close(number);
            if let Err(complaint) = complaint {
                resume_unwind(complaint);
            }
        }
        self.close(number);
    }

    /// The last handle goes while the table is held: what [`Origin::open`] does not count has been closed.
    fn close(&self, number: usize) {
        let mut open = lock(&self.open);
        drop(open.remove(&number));
    }
}

impl Peer {
    /// The next request; `None` at the end of the connection, however it came.
    pub fn request(&mut self) -> Option<Message> {
        self.wire.request().ok().flatten()
    }

    /// Sends; a peer that has gone is no fault of the origin's.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.wire.try_send(bytes).is_ok()
    }

    /// Ends the connection with RST when the origin returns.
    pub fn reset(&mut self) {
        let _ = socket2::SockRef::from(&self.wire.stream).set_linger(Some(Duration::ZERO));
    }

    /// Waits for the peer to end the connection.
    pub fn wait_for_end(&mut self) -> Result<(), Cut> {
        loop {
            match self.wire.fill() {
                Ok(0) => return Ok(()),
                Ok(_) => self.wire.unread.clear(),
                Err(error) => return Err(Cut::of(error, 0)),
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A plain 200 with this content.
pub fn answer(body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    response.extend_from_slice(body);
    response
}

/// Agrees to a WebSocket that is asked for with `key`.
pub fn agreement(key: &str) -> String {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes());
    let accept = BASE64.encode(hash.as_ref());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

/// A request's fields, one a line, as an origin shows them to a test.
pub fn fields_text(message: &Message) -> String {
    message.fields.iter().map(|(name, value)| format!("{}: {value}\n", name.to_ascii_lowercase())).collect()
}

/// Does as the path of each request says:
///
/// | path | answer |
/// |---|---|
/// | `/bytes/N` | `pattern(N, N)` |
/// | `/echo` | the request's content |
/// | `/head` | the request's head as it came |
/// | `/slow/MS` | after so many milliseconds |
/// | `/chunked/N` | `pattern(N, N)` in chunks, with a trailer |
/// | `/until-close/N` | `pattern(N, N)`, ended by closing |
/// | `/status/S` | that status, without content |
/// | other | `hello` |
pub fn standard(peer: &mut Peer) {
    while let Some(request) = peer.request() {
        let path = request.target().split('?').next().unwrap_or_default();
        let (kind, number) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
        let number: usize = number.parse().unwrap_or(0);
        let mut response = match kind {
            "bytes" => answer(pattern(number as u64, number)),
            "echo" => answer(&request.body),
            "head" => answer(&request.head),
            "slow" => {
                std::thread::sleep(Duration::from_millis(number as u64));
                answer("slow\n")
            }
            "chunked" => chunked(&pattern(number as u64, number)),
            "until-close" => {
                let mut response = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
                response.extend_from_slice(&pattern(number as u64, number));
                peer.send(response);
                return;
            }
            "status" => format!("HTTP/1.1 {number} As Asked\r\nContent-Length: 0\r\n\r\n").into_bytes(),
            _ => answer("hello\n"),
        };
        if request.method() == "HEAD"
            && let Some(end) = response.windows(4).position(|four| four == b"\r\n\r\n")
        {
            response.truncate(end + 4);
        }
        if !peer.send(response) || request.is_closing() {
            return;
        }
    }
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let mut response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n".to_vec();
    for (number, chunk) in body.chunks(1000).enumerate() {
        // Extensions are rare, and bounded for a whole message.
        let extension = if number == 0 { ";ext=\"a;b\"" } else { "" };
        response.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
        response.extend_from_slice(chunk);
        response.extend_from_slice(b"\r\n");
    }
    response.extend_from_slice(format!("0\r\nX-Sum: {:x}\r\n\r\n", crate::checksum(body)).as_bytes());
    response
}
