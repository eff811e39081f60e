//! The load: connections in a closed loop, each asking, checking what it gets against what it asked for, and thinking before it asks again.
//!
//! A thread per connection and blocking calls, so that a request that hangs holds up nobody but its own connection. The pause between requests
//! keeps the machine from being the bottleneck: latency here is that of faults, not of a full CPU.

use std::io::{BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use xtask::Outcome;

use super::id::{Id, mix};
use super::wire::Message;

/// A request that is not answered by then is given up: it hung.
pub(crate) const HUNG: Duration = Duration::from_secs(10);

/// What to ask for.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Connections go to these in turn: the proxy, or each origin.
    pub(crate) to: Vec<SocketAddr>,
    pub(crate) connections: usize,
    /// The mean pause after an answer; each is drawn evenly between nothing and twice this.
    pub(crate) think: Duration,
    /// Every so-manieth request is a POST, as drawn.
    pub(crate) post_every: u64,
    pub(crate) seed: u64,
    /// The phase that the first requests belong to.
    pub(crate) phase: u8,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// 200 with the right body.
    Answered,
    /// 500 or above, or 429.
    Status,
    /// No connection, or one that ended before the answer was whole.
    Connection,
    /// An answer that is not this request's, or more than one.
    Corrupt,
    Hung,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) id: Id,
    pub(crate) end: End,
    pub(crate) micros: u32,
}

/// A load under way.
pub(crate) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Vec<Seen>>>,
}

struct Shared {
    plan: Plan,
    phase: AtomicU8,
    stop: AtomicBool,
}

impl Load {
    pub(crate) fn start(plan: Plan) -> Outcome<Self> {
        let connections = plan.connections;
        let phase = AtomicU8::new(plan.phase);
        let shared = Arc::new(Shared { plan, phase, stop: AtomicBool::new(false) });
        let mut load = Self { shared, threads: Vec::new() };
        for number in 0..connections {
            let shared = Arc::clone(&load.shared);
            let thread = std::thread::Builder::new()
                .stack_size(256 << 10)
                .spawn(move || shared.work(number))
                .map_err(|error| format!("a thread of the load: {error}"))?;
            load.threads.push(thread);
        }
        Ok(load)
    }

    /// From now on, requests belong to this phase.
    pub(crate) fn enter(&self, phase: u8) {
        self.shared.phase.store(phase, Ordering::Relaxed);
    }

    /// Waits for what is in flight; everything that was seen.
    pub(crate) fn finish(mut self) -> Outcome<Vec<Seen>> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for thread in self.threads.drain(..) {
            all.extend(thread.join().map_err(|_| "a thread of the load panicked".to_owned())?);
        }
        Ok(all)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    /// One connection, to the load's end.
    fn work(&self, number: usize) -> Vec<Seen> {
        let to = self.plan.to[number % self.plan.to.len()];
        let mut caller = Caller { to, connection: None };
        let mut seen = Vec::new();
        for nth in 0.. {
            let draw = mix(self.plan.seed ^ (number as u64) << 40 ^ nth);
            std::thread::sleep(self.plan.think.mul_f64((draw >> 11) as f64 / (1_u64 << 52) as f64));
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let post = mix(draw).is_multiple_of(self.plan.post_every);
            let id = Id::new(self.phase.load(Ordering::Relaxed), post, number, nth);
            let from = Instant::now();
            let end = caller.ask(id);
            let micros = u32::try_from(from.elapsed().as_micros()).unwrap_or(u32::MAX);
            seen.push(Seen { id, end, micros });
        }
        seen
    }
}

/// Keeps its connection as long as it is fit for another request.
struct Caller {
    to: SocketAddr,
    connection: Option<BufReader<TcpStream>>,
}

impl Caller {
    fn ask(&mut self, id: Id) -> End {
        match self.exchange(id) {
            Ok(answer) => {
                if answer.close {
                    self.connection = None;
                }
                judge(id, &answer)
            }
            Err(error) => {
                self.connection = None;
                match error.kind() {
                    // WouldBlock is how a read that took too long ends.
                    ErrorKind::TimedOut | ErrorKind::WouldBlock => End::Hung,
                    ErrorKind::InvalidData => End::Corrupt,
                    _ => End::Connection,
                }
            }
        }
    }

    fn exchange(&mut self, id: Id) -> std::io::Result<Message> {
        if self.connection.is_none() {
            let stream = TcpStream::connect_timeout(&self.to, HUNG)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(HUNG))?;
            stream.set_write_timeout(Some(HUNG))?;
            self.connection = Some(BufReader::with_capacity(4 << 10, stream));
        }
        let Some(reader) = &mut self.connection else {
            return Err(ErrorKind::NotConnected.into());
        };
        reader.get_mut().write_all(&id.request())?;
        let answer = Message::response(reader)?.ok_or(ErrorKind::UnexpectedEof)?;
        // Bytes that nobody asked for.
        if reader.buffer().is_empty() { Ok(answer) } else { Err(ErrorKind::InvalidData.into()) }
    }
}

/// Whether an answer is the one to this request.
fn judge(id: Id, answer: &Message) -> End {
    match answer.status() {
        Some(200) if answer.body == id.body() => End::Answered,
        Some(429 | 500..) => End::Status,
        _ => End::Corrupt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_answer_counts() {
        let (id, other) = (Id::new(1, false, 2, 3), Id::new(1, false, 2, 4));
        let answer = |first: &str, body| Message { first: first.to_owned(), body, close: false };
        assert_eq!(judge(id, &answer("HTTP/1.1 200 OK", id.body())), End::Answered);
        assert_eq!(judge(id, &answer("HTTP/1.1 200 OK", other.body())), End::Corrupt);
        assert_eq!(judge(id, &answer("HTTP/1.1 200 OK", [id.body(), id.body()].concat())), End::Corrupt);
        assert_eq!(judge(id, &answer("HTTP/1.1 302 Found", id.body())), End::Corrupt);
        // How an origin answers a POST whose body arrived mangled.
        assert_eq!(judge(id, &answer("HTTP/1.1 400 Bad Request", Vec::new())), End::Corrupt);
        assert_eq!(judge(id, &answer("HTTP/1.1 502 Bad Gateway", Vec::new())), End::Status);
        assert_eq!(judge(id, &answer("nonsense", id.body())), End::Corrupt);
    }
}
