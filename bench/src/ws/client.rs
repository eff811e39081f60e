//! One client's WebSocket over TLS, as a task of the load's ring.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use proto::ws;
use ring::{Address, Buf, Now, Stream, TaskRef, Timer};
use rustls::{ClientConfig, ClientConnection};

use super::frame::{Front, ask, front};
use super::load::{Seen, Spread};
use crate::tls;

/// When messages are due: evenly spread over all connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    pub(super) begin: Now,
    pub(super) end: Now,
    pub(super) period: Duration,
    pub(super) connections: usize,
}

impl Schedule {
    fn first(&self, number: usize) -> Now {
        self.begin + self.period.mul_f64(number as f64 / self.connections as f64)
    }
}

/// What all connections saw. Times are in microseconds.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) schedule: Option<Schedule>,
    opening: Vec<u32>,
    delivery: Vec<u32>,
    late: Vec<u32>,
    failed: u64,
    lost: u64,
    sent: u64,
    answered: u64,
}

impl Tally {
    /// Connections that are open or never will be.
    pub(super) fn settled(&self) -> usize {
        self.opening.len() + self.failed as usize
    }

    pub(super) fn is_answered(&self) -> bool {
        self.answered >= self.sent
    }

    pub(super) fn finish(&mut self, connections: usize) -> Seen {
        Seen {
            opened: self.opening.len() as u64,
            // One that is still being opened is too late.
            failed: (connections - self.opening.len()) as u64,
            lost: self.lost,
            sent: self.sent,
            answered: self.answered,
            opening: Spread::of(&mut self.opening),
            delivery: Spread::of(&mut self.delivery),
            late: Spread::of(&mut self.late),
        }
    }
}

fn micros(span: Duration) -> u32 {
    u32::try_from(span.as_micros()).unwrap_or(u32::MAX)
}

/// Opens one, and keeps it until the process ends.
pub(super) fn start(number: usize, to: SocketAddr, config: Arc<ClientConfig>, tally: Rc<RefCell<Tally>>) -> TaskRef {
    ring::spawn(async move {
        let begun = ring::precise_now();
        let mut socket = match Socket::open(to, &config, number).await {
            Ok(socket) => socket,
            Err(_) => return tally.borrow_mut().failed += 1,
        };
        tally.borrow_mut().opening.push(micros(ring::precise_now().since(begun)));
        // Whatever ends it: nobody has asked for its end.
        let _ = socket.talk(number, &tally).await;
        tally.borrow_mut().lost += 1;
    })
}

/// What opens a WebSocket (RFC 6455 §4.1).
pub(super) fn offer(to: SocketAddr, key: &ws::Key) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: {to}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {}\r\n\r\n",
        String::from_utf8_lossy(key)
    )
}

/// The length of the head that agrees to it; none while that is not complete.
pub(super) fn agreed(received: &[u8], key: &ws::Key) -> io::Result<Option<usize>> {
    let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let (head, accept) = (&received[..end], ws::accept_of(key));
    if !head.starts_with(b"HTTP/1.1 101 ") || !head.windows(accept.len()).any(|part| part == accept) {
        return Err(io::Error::other("no WebSocket"));
    }
    Ok(Some(end + 4))
}

struct Socket {
    stream: Stream,
    tls: ClientConnection,
    /// Received, and not a whole message yet.
    unread: Vec<u8>,
}

impl Socket {
    async fn open(to: SocketAddr, config: &Arc<ClientConfig>, number: usize) -> io::Result<Self> {
        let stream = Stream::connect(&Address::Inet(to)).await?;
        let tls = tls::conversation(config)?;
        let mut socket = Self { stream, tls, unread: Vec::new() };
        let key = ws::key_of((number as u128).to_ne_bytes());
        socket.tls.writer().write_all(offer(to, &key).as_bytes())?;
        socket.flush()?;
        loop {
            let Some(more) = socket.stream.recv().await? else { return Err(io::ErrorKind::UnexpectedEof.into()) };
            socket.take(&more)?;
            if let Some(length) = agreed(&socket.unread, &key)? {
                socket.unread.drain(..length);
                return Ok(socket);
            }
        }
    }

    /// Takes ciphertext, and says what TLS has to say for itself.
    fn take(&mut self, more: &Buf) -> io::Result<()> {
        let mut bytes = more.bytes();
        while !bytes.is_empty() {
            self.tls.read_tls(&mut bytes)?;
            self.tls.process_new_packets().map_err(io::Error::other)?;
            match self.tls.reader().read_to_end(&mut self.unread) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
                Ok(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut out = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut out)?;
        }
        if !out.is_empty() {
            self.stream.send(Buf::copy_of(&out));
        }
        Ok(())
    }

    /// Sends when something is due, and takes what comes. Ends with the connection.
    async fn talk(&mut self, number: usize, tally: &RefCell<Tally>) -> io::Result<()> {
        let (mut timer, mut due) = (Timer::new(), None);
        loop {
            let schedule = tally.borrow().schedule;
            if let Some(schedule) = schedule {
                let mut at = due.unwrap_or_else(|| schedule.first(number));
                if at <= ring::now() && at < schedule.end {
                    self.send(at, number, tally)?;
                    at = at + schedule.period;
                }
                due = Some(at);
                if at < schedule.end { timer.set(at) } else { timer.clear() }
            }
            let received = poll_fn(|cx| match self.stream.poll_recv(cx) {
                Poll::Ready(received) => Poll::Ready(received.map(|more| more.map_or(Next::End, Next::Bytes))),
                Poll::Pending if timer.poll_expired() => Poll::Ready(Ok(Next::Due)),
                Poll::Pending if due.is_none() && tally.borrow().schedule.is_some() => Poll::Ready(Ok(Next::Due)),
                Poll::Pending => Poll::Pending,
            });
            match received.await? {
                Next::End => return Err(io::ErrorKind::UnexpectedEof.into()),
                Next::Bytes(more) => self.take(&more).and_then(|()| self.read(tally))?,
                Next::Due => {}
            }
        }
    }

    fn send(&mut self, due: Now, number: usize, tally: &RefCell<Tally>) -> io::Result<()> {
        let now = ring::precise_now();
        self.tls.writer().write_all(&ask(now, (number as u32).wrapping_mul(0x9E37_79B9).to_be_bytes()))?;
        self.flush()?;
        let tally = &mut *tally.borrow_mut();
        tally.late.push(micros(now.since(due)));
        tally.sent += 1;
        Ok(())
    }

    fn read(&mut self, tally: &RefCell<Tally>) -> io::Result<()> {
        let mut at = 0;
        loop {
            match front(&self.unread[at..]) {
                Front::Part => break,
                Front::Message(length, message) => {
                    at += length;
                    let down = ring::precise_now().since(message.sent);
                    let up = Duration::from_nanos(message.answered_nanos);
                    let tally = &mut *tally.borrow_mut();
                    tally.delivery.extend([micros(up), micros(down)]);
                    tally.answered += 1;
                }
                Front::Close | Front::Strange => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        self.unread.drain(..at);
        Ok(())
    }
}

enum Next {
    Bytes(Buf),
    /// A message may be due.
    Due,
    End,
}
