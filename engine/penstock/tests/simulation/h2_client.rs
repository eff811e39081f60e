//! Clients of HTTP/2: they ask several things at once over one connection, and judge every answer; rude ones give up, or leave.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use proto::Malformed;
use proto::h1::{HeadLimits, RequestRewrite, ResponseHead, parse_request};
use proto::h2::{Client, ErrorCode, StreamId};
use proto::http::Fields;
use ring::sim::Host;

use crate::client::PATIENCE;
use crate::h2::{End, Heard, Lines};
use crate::ledger::{Ask, Framing, Ledger, REQUEST, content};
use crate::scene::{Strict, WEB, address};

/// How long a polite client reads nothing at the most: less than the engine lingers over last words.
const NAP: Duration = Duration::from_millis(1_500);

/// What became of a request.
#[derive(Debug, Eq, PartialEq)]
enum Got {
    /// The origin's answer, whole.
    Whole,
    /// An answer of the engine's own.
    Own(u16),
    /// The engine says that nothing was done with it.
    Unprocessed,
    /// The stream or the connection ended before the answer was whole.
    Cut,
}

/// A request that is under way.
struct Asked {
    ask: Ask,
    /// Content that has not been put yet; `None` when the end of it has.
    rest: Option<Vec<u8>>,
    /// All of its head is on its way since then.
    sent_at: Option<u64>,
    status: u16,
    /// Of the origin's answer; `None` for one of the engine's own.
    attempt: Option<usize>,
    content: Vec<u8>,
    /// When the client loses interest.
    until: u64,
}

pub(crate) async fn run(host: Host, ledger: Rc<Ledger>, strict: Strict, rude: bool) {
    let name = ledger.ask().id;
    host.dawdle(Duration::from_millis(200)).await;
    let asks = (0..host.pick(1..=8)).map(|_| ledger.ask_multiplexed()).collect();
    let work = ask_all(&host, &ledger, strict, rude, asks);
    host.within(PATIENCE, work).await.unwrap_or_else(|| panic!("client {name} hangs"));
}

/// Asks on as many connections as that takes.
async fn ask_all(host: &Host, ledger: &Rc<Ledger>, strict: Strict, rude: bool, mut asks: VecDeque<Ask>) {
    let mut dials = 0;
    while !asks.is_empty() && dials < 12 {
        dials += 1;
        match host.connect(&address(WEB)).await {
            Ok(socket) => {
                let mut connection = Connection {
                    host,
                    ledger,
                    strict,
                    rude,
                    leaves: rude && host.chance(0.3),
                    slept: false,
                    end: End::new(host, socket, 0),
                    streams: BTreeMap::new(),
                };
                connection.ask(&mut asks).await;
                connection.leave().await;
            }
            Err(error) => assert!(strict.may_break || ledger.drained_at().is_some(), "connect: {error}"),
        }
        if ledger.drained_at().is_some() {
            return;
        }
    }
    assert!(asks.is_empty() || strict.may_break || strict.may_refuse, "asked in vain: {asks:?}");
}

struct Connection<'a> {
    host: &'a Host,
    ledger: &'a Rc<Ledger>,
    strict: Strict,
    rude: bool,
    leaves: bool,
    /// It has slept for so long that whoever waits for it may give it up.
    slept: bool,
    end: End<Client>,
    streams: BTreeMap<u32, Asked>,
}

impl Connection<'_> {
    /// Asks until all is answered, or the connection takes no more.
    async fn ask(&mut self, asks: &mut VecDeque<Ask>) {
        let together = self.host.pick(1..=6);
        loop {
            while self.streams.len() < together && self.end.machine.can_open() && self.host.chance(0.7) {
                let Some(ask) = asks.pop_front() else { break };
                self.open(ask);
            }
            self.put_content();
            self.lose_interest();
            self.end.flush().await;
            if !self.end.broken {
                let now = self.host.now();
                self.streams.values_mut().for_each(|asked| _ = asked.sent_at.get_or_insert(now));
            }
            let opens = !asks.is_empty() && self.end.machine.can_open();
            let done = self.streams.is_empty() && !opens;
            if done || self.leaves && self.host.chance(0.1) {
                return;
            }
            if self.host.chance(0.02) {
                self.slept |= self.rude;
                self.host.dawdle(if self.rude { Duration::from_secs(60) } else { NAP }).await;
            }
            let sends = self.streams.values().any(|asked| asked.rest.is_some() || asked.until < u64::MAX);
            let acts = sends || opens && self.streams.len() < together || self.end.is_withholding() || self.leaves;
            let patience = if acts { Duration::from_millis(self.host.pick(1..=30) as u64) } else { PATIENCE };
            for heard in self.end.hear(patience).await {
                self.take(heard, asks);
            }
            if self.end.over {
                for asked in std::mem::take(&mut self.streams).into_values() {
                    self.judge(&asked, &Got::Cut);
                }
                return;
            }
        }
    }

    /// Ends the connection, in one of the ways in which that can be done.
    async fn leave(mut self) {
        if self.end.over || self.leaves {
            if self.host.chance(0.5) {
                self.end.socket.reset();
            }
            return;
        }
        if self.host.chance(0.3) {
            // An idle connection is ended by the engine, in time.
            while !self.end.over {
                self.end.flush().await;
                self.end.hear(PATIENCE).await;
            }
        } else if self.host.chance(0.5) {
            self.end.machine.drain(self.end.now(), &mut self.end.out);
            self.end.flush().await;
            self.end.socket.shutdown_write();
            while !self.end.over {
                self.end.hear(PATIENCE).await;
            }
        }
    }

    fn open(&mut self, ask: Ask) {
        let mut text = format!("{} /{} HTTP/1.1\r\nhost: app.test\r\nx-id: {}\r\n", ask.method, ask.id, ask.id);
        match ask.framing {
            Framing::Length => text.push_str(&format!("content-length: {}\r\n", ask.size)),
            Framing::Chunked => text.push_str("transfer-encoding: chunked\r\n"),
            Framing::None | Framing::Close => {}
        }
        text.push_str("\r\n");
        let (mut fields, bytes) = (Fields::default(), text.as_bytes());
        let head = parse_request(bytes, &HeadLimits::DEFAULT, &mut fields).expect("a request").expect("whole");
        let End { machine, out, .. } = &mut self.end;
        let id = machine.write_request(bytes, &head, &fields, &RequestRewrite::new(&head), out).expect("there is room");
        let rest = (ask.framing != Framing::None).then(|| content(ask.id, REQUEST, ask.size));
        let until = match self.rude && self.host.chance(0.4) {
            true => self.host.now() + self.host.pick(0..=300_000_000) as u64,
            false => u64::MAX,
        };
        self.host.note(format!("h2 client: {id:?} is {ask:?}"));
        let asked = Asked { ask, rest, sent_at: None, status: 0, attempt: None, content: Vec::new(), until };
        self.streams.insert(id.0, asked);
    }

    fn put_content(&mut self) {
        for (id, asked) in &mut self.streams {
            let Some(rest) = &mut asked.rest else { continue };
            // As far ahead as a window, more or less.
            if self.end.machine.queued(StreamId(*id)) > 100_000 || self.host.chance(0.2) {
                continue;
            }
            let piece: Vec<u8> = rest.drain(..self.host.pick((rest.len() / 4)..=rest.len())).collect();
            let taken = piece.is_empty() || self.end.queue(StreamId(*id), &piece);
            if !taken {
                asked.rest = None;
            } else if rest.is_empty() {
                asked.rest = None;
                let trailer = asked.ask.framing == Framing::Chunked && self.host.chance(0.3);
                self.end.finish(StreamId(*id), trailer.then(|| asked.ask.id.to_string()));
            }
        }
    }

    fn lose_interest(&mut self) {
        let now = self.host.now();
        let over: Vec<u32> = self.streams.iter().filter(|(_, asked)| asked.until <= now).map(|(id, _)| *id).collect();
        for id in over {
            self.end.reset(StreamId(id), ErrorCode::CANCEL);
            self.streams.remove(&id);
        }
    }

    fn take(&mut self, heard: Heard<ResponseHead>, asks: &mut VecDeque<Ask>) {
        match heard {
            Heard::Head(id, head, lines) => self.take_head(id, &head, &lines),
            Heard::Data(id, data) => {
                if let Some(asked) = self.streams.get_mut(&id.0) {
                    asked.content.extend_from_slice(&data);
                }
            }
            Heard::End(id, trailers) => {
                let Some(asked) = self.streams.remove(&id.0) else { return };
                if asked.rest.is_some() || self.end.machine.queued(id) > 0 {
                    self.end.reset(id, ErrorCode::NO_ERROR);
                }
                self.take_end(&asked, trailers);
            }
            Heard::Reset(id, why) => {
                let Some(asked) = self.streams.remove(&id.0) else { return };
                assert!(matches!(why, Malformed::Cancelled(_) | Malformed::Unprocessed), "{why}, for {:?}", asked.ask);
                if why != Malformed::Unprocessed {
                    return self.judge(&asked, &Got::Cut);
                }
                self.judge(&asked, &Got::Unprocessed);
                asks.push_back(asked.ask);
            }
        }
    }

    fn take_head(&mut self, id: StreamId, head: &ResponseHead, lines: &Lines) {
        let Some(asked) = self.streams.get_mut(&id.0) else { return };
        if head.status.is_interim() {
            return;
        }
        asked.status = head.status.code();
        let Some(number) = lines.number("x-id") else { return };
        assert_eq!(number as u64, asked.ask.id, "another request's answer: {lines:?}, for {:?}", asked.ask);
        self.ledger.answered(asked.ask.id);
        asked.attempt = Some(lines.number("x-attempt").expect("stands beside x-id"));
        assert_eq!(asked.status, self.ledger.answer(&asked.ask).status, "{:?}", asked.ask);
    }

    fn take_end(&self, asked: &Asked, trailers: Option<Lines>) {
        let Asked { ask, status, content: got, .. } = asked;
        let Some(attempt) = asked.attempt else { return self.judge(asked, &Got::Own(*status)) };
        assert!(content(ask.id, attempt, got.len()) == *got, "the content of {ask:?} is something else");
        let whole = self.ledger.whole_size(ask.id, attempt);
        assert_eq!(whole, Some(got.len()), "an end where there is none: {ask:?}, {:?}", self.ledger.answer(ask));
        if let Some(sum) = trailers.as_ref().and_then(|lines| lines.number("x-sum")) {
            assert!(sum as u64 == ask.id || sum == 1, "another answer's trailers: {sum} for {ask:?}");
        }
        self.judge(asked, &Got::Whole);
    }

    fn judge(&self, asked: &Asked, got: &Got) {
        let Asked { ask, sent_at, until, content: part, .. } = asked;
        self.host.note(format!("h2 client: {got:?} for {ask:?}"));
        let loose = self.strict.may_refuse || self.strict.may_break || self.slept || *until < u64::MAX;
        match got {
            Got::Whole => {}
            Got::Own(status) => {
                assert!(loose, "{status} by ourselves, for {ask:?}");
                assert!(matches!(status, 408 | 502..=504), "{status} for {ask:?}");
            }
            Got::Unprocessed => {
                assert_eq!(self.ledger.sightings(ask.id), 0, "{ask:?} was forwarded, and is said not to have been");
                assert!(loose || self.ledger.drained_at().is_some(), "refused: {ask:?}");
            }
            Got::Cut => {
                let started = asked.attempt.map(|attempt| content(ask.id, attempt, part.len()) == *part);
                assert!(started.unwrap_or(true), "the content of {ask:?} is something else");
                let drained = self.ledger.drained_at();
                let due = drained.is_none_or(|drained| sent_at.is_some_and(|sent| sent < drained));
                assert!(loose || !due, "cut: {ask:?}");
            }
        }
    }
}
