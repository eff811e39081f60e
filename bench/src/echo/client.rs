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
    pub(crate) host: &'static str,
    /// How many bytes each answer has.
    pub(crate) answer_bytes: usize,
    pub(crate) connections: usize,
    /// The mean pause after an answer; each is drawn evenly between nothing and twice this.
    pub(crate) think: Duration,
    /// Every so-manieth request is a POST, as drawn; none unless given.
    pub(crate) post_every: Option<u64>,
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
    /// When, since the load began, its answer had arrived or it had failed.
    pub(crate) ended: Duration,
}

/// A load under way.
pub(crate) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Vec<Seen>>>,
}

struct Shared {
    plan: Plan,
    begun: Instant,
    phase: AtomicU8,
    /// The phase of each connection's request in flight, or [`IDLE`].
    asking: Vec<AtomicU8>,
    stop: AtomicBool,
}

/// No phase: no request is in flight.
const IDLE: u8 = u8::MAX;

impl Load {
    pub(crate) fn start(plan: Plan) -> Outcome<Self> {
        let connections = plan.connections;
        let phase = AtomicU8::new(plan.phase);
        let asking = (0..connections).map(|_| AtomicU8::new(IDLE)).collect();
        let shared = Arc::new(Shared { plan, begun: Instant::now(), phase, asking, stop: AtomicBool::new(false) });
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
        self.shared.phase.store(phase, Ordering::SeqCst);
    }

    /// Whether no request of an earlier phase is in flight.
    pub(crate) fn is_settled(&self) -> bool {
        let phase = self.shared.phase.load(Ordering::SeqCst);
        self.shared
            .asking
            .iter()
            .all(|asking| matches!(asking.load(Ordering::SeqCst), asked if asked == IDLE || asked == phase))
    }

    /// Asks nothing more.
    pub(crate) fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }

    /// Stops and waits for what is in flight; everything that was seen.
    pub(crate) fn finish(mut self) -> Outcome<Vec<Seen>> {
        self.stop();
        let mut all = Vec::new();
        for thread in self.threads.drain(..) {
            all.extend(thread.join().map_err(|_| "a thread of the load panicked".to_owned())?);
        }
        Ok(all)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    /// The phase that a request belongs to, told before it is sent and true once told.
    fn announce(&self, number: usize) -> u8 {
        loop {
            let phase = self.phase.load(Ordering::SeqCst);
            self.asking[number].store(phase, Ordering::SeqCst);
            if self.phase.load(Ordering::SeqCst) == phase {
                return phase;
            }
        }
    }

    /// One connection, to the load's end.
    fn work(&self, number: usize) -> Vec<Seen> {
        let to = self.plan.to[number % self.plan.to.len()];
        let mut caller = Caller { to, host: self.plan.host, answer_bytes: self.plan.answer_bytes, connection: None };
        let mut seen = Vec::new();
        for nth in 0.. {
            let draw = mix(self.plan.seed ^ (number as u64) << 40 ^ nth);
            std::thread::sleep(self.plan.think.mul_f64((draw >> 11) as f64 / (1_u64 << 52) as f64));
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let post = self.plan.post_every.is_some_and(|every| mix(draw).is_multiple_of(every));
            let id = Id::new(self.announce(number), post, number, nth);
            let from = Instant::now();
            let end = caller.ask(id);
            self.asking[number].store(IDLE, Ordering::SeqCst);
            let micros = u32::try_from(from.elapsed().as_micros()).unwrap_or(u32::MAX);
            seen.push(Seen { id, end, micros, ended: self.begun.elapsed() });
        }
        seen
    }
}

/// Keeps its connection as long as it is fit for another request.
struct Caller {
    to: SocketAddr,
    host: &'static str,
    answer_bytes: usize,
    connection: Option<BufReader<TcpStream>>,
}

impl Caller {
    fn ask(&mut self, id: Id) -> End {
        match self.exchange(id) {
            Ok(answer) => {
                if answer.close {
                    self.connection = None;
                }
                judge(&answer, &id.body(self.answer_bytes))
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
        reader.get_mut().write_all(&id.request(self.host, self.answer_bytes))?;
        let answer = Message::response(reader)?.ok_or(ErrorKind::UnexpectedEof)?;
        // Bytes that nobody asked for.
        if reader.buffer().is_empty() { Ok(answer) } else { Err(ErrorKind::InvalidData.into()) }
    }
}

/// Whether an answer is the one that was due.
fn judge(answer: &Message, due: &[u8]) -> End {
    match answer.status() {
        Some(200) if answer.body == due => End::Answered,
        Some(429 | 500..) => End::Status,
        _ => End::Corrupt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_answer_counts() {
        let (due, other) = (Id::new(1, false, 2, 3).body(64), Id::new(1, false, 2, 4).body(64));
        let end = |first: &str, body: &[u8]| {
            judge(&Message { first: first.to_owned(), body: body.to_vec(), close: false }, &due)
        };
        assert_eq!(end("HTTP/1.1 200 OK", &due), End::Answered);
        assert_eq!(end("HTTP/1.1 200 OK", &other), End::Corrupt);
        assert_eq!(end("HTTP/1.1 200 OK", &[due.clone(), due.clone()].concat()), End::Corrupt);
        assert_eq!(end("HTTP/1.1 302 Found", &due), End::Corrupt);
        // How an origin answers a POST whose body arrived mangled.
        assert_eq!(end("HTTP/1.1 400 Bad Request", b""), End::Corrupt);
        assert_eq!(end("HTTP/1.1 502 Bad Gateway", b""), End::Status);
        assert_eq!(end("HTTP/1.1 429 Too Many Requests", b""), End::Status);
        assert_eq!(end("nonsense", &due), End::Corrupt);
    }
}
