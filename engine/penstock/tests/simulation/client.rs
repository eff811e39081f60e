//! Clients: they ask, one by one or ahead, and judge every answer; rude ones leave, or never read.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use ring::sim::{Host, Script, Socket};

use crate::ledger::{Ask, Framing, Ledger, REQUEST, content};
use crate::scene::{Strict, WEB, address};
use crate::wire::{Head, Pace, Reader, chunks};

/// Longer than every timeout of the engine in a row: who still waits then, hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(4 * 3600);

/// What became of a request.
#[derive(Debug, Eq, PartialEq)]
enum Got {
    /// The origin's answer, whole; the connection may go on.
    Whole { goes_on: bool },
    /// An answer of the engine's own.
    Own { status: u16, goes_on: bool },
    /// The connection ended or broke before the answer was whole.
    Cut,
}

pub(crate) async fn run(host: Host, ledger: Rc<Ledger>, strict: Strict) {
    let name = ledger.ask().id;
    let work = ask_all(&host, &ledger, strict);
    host.within(PATIENCE, work).await.unwrap_or_else(|| panic!("client {name} hangs"));
}

/// Asks some requests in batches, on as many connections as that takes.
async fn ask_all(host: &Host, ledger: &Rc<Ledger>, strict: Strict) {
    host.dawdle(Duration::from_millis(200)).await;
    let mut asks: VecDeque<Ask> = (0..host.pick(1..=5)).map(|_| ledger.ask()).collect();
    let pipelines = host.chance(0.3);
    let mut dials = 0;
    while !asks.is_empty() {
        dials += 1;
        let socket = match host.connect(&address(WEB)).await {
            Ok(socket) => socket,
            Err(error) => {
                assert!(strict.may_break || ledger.drained_at().is_some(), "connect: {error}");
                if dials > 3 {
                    return;
                }
                continue;
            }
        };
        let mut connection = Connection::new(host, ledger, strict, socket);
        while !asks.is_empty() {
            let ahead = if pipelines { host.pick(1..=asks.len()) } else { 1 };
            // What waits for a word of the server, or does not live on, ends its batch.
            let is_last = |ask: &Ask| ask.expect || ask.http10 || ask.connection == Some("close");
            let until = asks.iter().take(ahead).position(is_last).map_or(ahead, |at| at + 1);
            let batch: Vec<Ask> = asks.iter().take(until).cloned().collect();
            let last = batch.len() == asks.len();
            let (answered, goes_on) = connection.ask(batch, last).await;
            asks.drain(..answered);
            if !goes_on {
                break;
            }
            if host.chance(0.1) {
                host.dawdle(Duration::from_secs(3)).await;
            }
        }
        if ledger.drained_at().is_some() {
            // Nobody is there any more.
            return;
        }
    }
}

struct Connection<'a> {
    host: &'a Host,
    ledger: &'a Rc<Ledger>,
    strict: Strict,
    socket: Socket,
    reader: Reader,
    /// Sending has failed, and that told of a break which reading then need not tell again.
    broken: Rc<Cell<bool>>,
    asked: usize,
}

impl<'a> Connection<'a> {
    fn new(host: &'a Host, ledger: &'a Rc<Ledger>, strict: Strict, socket: Socket) -> Self {
        let slow = host.chance(0.1);
        let pace = if slow { Pace { bytes: 3_000, pause: Duration::from_millis(20) } } else { Pace::FAST };
        let reader = Reader::new(host, &socket, pace);
        Self { host, ledger, strict, socket, reader, broken: Rc::default(), asked: 0 }
    }

    /// Sends a batch and reads its answers. Returns how many requests are done with, and whether more may be asked.
    async fn ask(&mut self, batch: Vec<Ask>, last: bool) -> (usize, bool) {
        let waits = batch.last().is_some_and(|ask| ask.expect);
        let half_closes = last && !waits && self.host.chance(0.2);
        let bytes: Vec<u8> = batch.iter().flat_map(|ask| self.compose(ask)).collect();
        let sent_at = Rc::new(Cell::new(None));
        let mut sending = vec![self.write(bytes, half_closes, Rc::clone(&sent_at))];
        let fresh = self.asked == 0;
        let mut done = (batch.len(), true);
        for (at, ask) in batch.iter().enumerate() {
            let got = self.answer(ask, &mut sending).await;
            self.host.note(format!("client: {got:?} for {ask:?}"));
            self.asked += 1;
            self.judge(ask, &got, sent_at.get(), at, fresh);
            match got {
                Got::Whole { goes_on: true } | Got::Own { goes_on: true, .. } => {}
                Got::Whole { .. } | Got::Own { .. } => {
                    self.reader.nothing_more().await;
                    self.unanswered(&batch[at + 1..]);
                    done = (at + 1, false);
                    break;
                }
                Got::Cut => {
                    // Those behind may have been seen, and must not be repeated.
                    done = (batch.len(), false);
                    break;
                }
            }
        }
        for writer in sending {
            writer.await;
        }
        (done.0, done.1 && !half_closes)
    }

    /// Requests behind the last answer of a connection have not been forwarded: they may be asked again.
    fn unanswered(&self, asks: &[Ask]) {
        for ask in asks {
            assert_eq!(self.ledger.sightings(ask.id), 0, "{ask:?} was forwarded, and the connection closed before it");
        }
    }

    fn judge(&self, ask: &Ask, got: &Got, sent_at: Option<u64>, at: usize, fresh: bool) {
        let answer = self.ledger.answer(ask);
        match got {
            Got::Own { status, .. } => {
                assert!(self.strict.may_refuse, "{status} by ourselves, for {ask:?}");
                if !self.strict.may_break {
                    self.ledger.check_own(ask.id, *status);
                }
                assert!(matches!(status, 408 | 502..=504), "{status} for {ask:?}");
            }
            Got::Cut => {
                let drained = self.ledger.drained_at();
                // What was sent in time, and is the next to be answered, is answered.
                let due = drained.is_none_or(|drained| sent_at.is_some_and(|sent| sent < drained) && at == 0);
                assert!(self.strict.may_break || self.strict.may_refuse || !due, "cut (fresh: {fresh}): {ask:?}");
            }
            Got::Whole { goes_on } if !goes_on && !self.strict.may_refuse && !self.strict.may_break => {
                let kept = if ask.http10 { ask.connection.is_some() } else { ask.connection.is_none() };
                let streamed = ask.http10 && matches!(answer.framing, Framing::Chunked | Framing::Close);
                let drained = self.ledger.drained_at().is_some();
                assert!(!kept || streamed || answer.early || drained, "closed without need: {ask:?}, {answer:?}");
            }
            Got::Whole { .. } => {}
        }
    }

    fn compose(&self, ask: &Ask) -> Vec<u8> {
        let version = if ask.http10 { "1.0" } else { "1.1" };
        let mut head = format!("{} /{} HTTP/{version}\r\nHost: app.test\r\nX-Id: {}\r\n", ask.method, ask.id, ask.id);
        if let Some(connection) = ask.connection {
            head.push_str(&format!("Connection: {connection}\r\n"));
        }
        if ask.expect {
            head.push_str("Expect: 100-continue\r\n");
        }
        match ask.framing {
            Framing::Length => head.push_str(&format!("Content-Length: {}\r\n", ask.size)),
            Framing::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
            Framing::None | Framing::Close => {}
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        if !ask.expect {
            bytes.extend(self.content(ask));
        }
        bytes
    }

    fn content(&self, ask: &Ask) -> Vec<u8> {
        let content = content(ask.id, REQUEST, ask.size);
        let mut framed = Vec::new();
        match ask.framing {
            Framing::Chunked => chunks(self.host, &content, &mut framed),
            _ => framed = content,
        }
        framed
    }

    /// Sends while this script reads.
    fn write(&self, bytes: Vec<u8>, half_closes: bool, sent_at: Rc<Cell<Option<u64>>>) -> Script<()> {
        let (socket, broken) = (self.socket.clone(), Rc::clone(&self.broken));
        self.host.spawn("writer", move |host| async move {
            match socket.send_split(&host, &bytes, Duration::from_millis(20)).await {
                Ok(()) => sent_at.set(Some(host.now())),
                Err(_) => broken.set(true),
            }
            if half_closes {
                socket.shutdown_write();
            }
        })
    }

    /// Reads the answer to `ask`, and the content if it is to be sent now.
    async fn answer(&mut self, ask: &Ask, sending: &mut Vec<Script<()>>) -> Got {
        loop {
            let head = match self.reader.head().await {
                Ok(Some(head)) => head,
                Ok(None) | Err(_) => return Got::Cut,
            };
            match head.status() {
                100 => {
                    assert!(ask.expect, "100 that nobody waits for: {ask:?}");
                    sending.push(self.write(self.content(ask), false, Rc::default()));
                }
                101..200 => assert!(!ask.http10, "{} for a client of 1.0", head.status()),
                _ => return self.final_answer(ask, &head).await,
            }
        }
    }

    async fn final_answer(&mut self, ask: &Ask, head: &Head) -> Got {
        let Some(id) = head.number("x-id") else { return self.own_answer(ask, head).await };
        assert_eq!(id as u64, ask.id, "another request's answer: {head:?}, for {ask:?}");
        self.ledger.answered(ask.id);
        let attempt = head.number("x-attempt").expect("stands beside x-id");
        let answer = self.ledger.answer(ask);
        assert_eq!(head.status(), answer.status, "{ask:?}");
        let (read, delimited) = self.content_of(ask, head).await;
        let whole = self.ledger.whole_size(ask.id, attempt);
        let size = self.reader.content.len();
        assert!(content(ask.id, attempt, size) == self.reader.content, "the content of {ask:?} is something else");
        // An error that sending was told of, reading is not told again.
        if read.is_err() || !delimited && self.broken.get() {
            return Got::Cut;
        }
        let breaks = self.strict.may_break || self.strict.may_refuse;
        if breaks && answer.framing == Framing::Close && ask.size > 0 && whole != Some(size) {
            // As in a tunnel: a send of the request and a receive of the answer race for the one error of a connection.
            return Got::Cut;
        }
        assert_eq!(whole, Some(size), "an end where there is none: {ask:?}, {answer:?}, {head:?}");
        Got::Whole { goes_on: delimited && !head.closes() }
    }

    /// Reads what follows the head; also tells whether its end is its own and not the connection's.
    async fn content_of(&mut self, ask: &Ask, head: &Head) -> (io::Result<()>, bool) {
        let empty = ask.method == "HEAD" || matches!(head.status(), 204 | 304);
        if empty {
            (self.reader.exactly(0).await, !ask.http10 || ask.connection.is_some() && !head.closes())
        } else if head.is_chunked() {
            assert!(!ask.http10, "chunks for a client of 1.0");
            (self.reader.chunked().await, true)
        } else if let Some(length) = head.number("content-length") {
            (self.reader.exactly(length).await, true)
        } else {
            (self.reader.rest().await, false)
        }
    }

    async fn own_answer(&mut self, ask: &Ask, head: &Head) -> Got {
        let length = head.number("content-length").expect("our own answers say their length");
        let length = if ask.method == "HEAD" { 0 } else { length };
        match self.reader.exactly(length).await {
            Ok(()) => Got::Own { status: head.status(), goes_on: !head.closes() },
            Err(_) => Got::Cut,
        }
    }
}

/// A client that does not keep to the rules of good company. Nothing is asked of its answers but that they come to an end.
pub(crate) async fn rude(host: Host, ledger: Rc<Ledger>) {
    host.dawdle(Duration::from_millis(200)).await;
    let Ok(socket) = host.connect(&address(WEB)).await else { return };
    let strict = Strict { may_refuse: true, may_break: true, may_fail: true };
    let mut connection = Connection::new(&host, &ledger, strict, socket);
    let asks: Vec<Ask> = (0..host.pick(1..=8)).map(|_| Ask { expect: false, ..ledger.ask() }).collect();
    let bytes: Vec<u8> = asks.iter().flat_map(|ask| connection.compose(ask)).collect();
    match host.pick(0..=4) {
        // Leaves while it sends.
        0 => {
            let part = &bytes[..host.pick(0..=bytes.len())];
            let sending = connection.socket.send_split(&host, part, Duration::from_millis(20));
            let _ = host.within(Duration::from_millis(300), sending).await;
        }
        // Leaves while it receives.
        1 => {
            let writer = connection.write(bytes, false, Rc::default());
            let _ = connection.socket.recv(host.pick(1..=30_000)).await;
            drop(writer);
        }
        // Never reads, and stays for long.
        2 => {
            drop(connection.write(bytes, false, Rc::default()));
            host.sleep(Duration::from_secs(400)).await;
        }
        // Stops in the middle of what it says, and stays.
        3 => {
            let part = bytes[..host.pick(0..=bytes.len())].to_vec();
            drop(connection.write(part, false, Rc::default()));
            let reading = connection.reader.rest();
            let ended = host.within(PATIENCE, reading).await;
            assert!(ended.is_some(), "a client that stopped is waited for without end");
        }
        // Says nothing that could be understood.
        _ => {
            let noise = content(asks[0].id, REQUEST, host.pick(1..=40_000));
            drop(connection.write(noise, false, Rc::default()));
            let reading = connection.reader.rest();
            assert!(host.within(PATIENCE, reading).await.is_some(), "noise is listened to without end");
        }
    }
    if host.chance(0.3) {
        connection.socket.reset();
    }
}
