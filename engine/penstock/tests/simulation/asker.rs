//! Clients that ask several things at once on one connection, whatever it speaks, and judge every answer; rude ones give up, or leave.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Debug;
use std::rc::Rc;
use std::time::Duration;

use proto::Malformed;
use proto::h1::ResponseHead;
use ring::sim::Host;

use crate::client::PATIENCE;
use crate::h2::{Heard, Lines};
use crate::ledger::{Ask, Framing, Ledger, REQUEST, content};
use crate::scene::Strict;

/// How long a polite client reads nothing at the most: less than the engine lingers over last words.
const NAP: Duration = Duration::from_millis(1_500);

/// One connection, by whichever protocol.
pub(crate) trait Way {
    /// Names a stream of it.
    type Id: Copy + Debug + Ord;

    /// Something more may be asked.
    fn can_open(&self) -> bool;
    /// Asks; `text` is the head as HTTP/1 has it.
    fn open(&mut self, text: &[u8]) -> Self::Id;
    /// The end of what was asked may arrive in another datagram than its head.
    fn ends_late(&self, id: Self::Id) -> bool;
    /// All heads that were written have gone.
    fn has_sent(&self) -> bool;
    /// Content that waits.
    fn queued(&self, id: Self::Id) -> usize;
    /// Puts content; false when the stream takes none any more.
    fn queue(&mut self, id: Self::Id, piece: &[u8]) -> bool;
    /// The message is complete with what was put, and with this trailer.
    fn finish(&mut self, id: Self::Id, trailer: Option<String>);
    /// Gives a stream up, without interest or because there is enough.
    fn reset(&mut self, id: Self::Id, enough: bool);
    /// There is something to do here without a word of the peer's.
    fn is_withholding(&self) -> bool;
    /// Nothing more will be received.
    fn is_over(&self) -> bool;
    /// Sends what may go.
    async fn flush(&mut self);
    /// Waits for what the engine says next.
    async fn hear(&mut self, patience: Duration) -> Vec<Heard<ResponseHead, Self::Id>>;
    /// Tells that nothing more will be asked.
    async fn say_goodbye(&mut self);
    /// Breaks the connection off.
    fn break_off(&mut self);
}

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

/// Asks some things on as many connections as that takes; `dial` makes them.
pub(crate) async fn run<W: Way>(
    host: Host,
    ledger: Rc<Ledger>,
    strict: Strict,
    rude: bool,
    mut dial: impl AsyncFnMut() -> Result<W, String>,
) {
    let name = ledger.ask().id;
    host.dawdle(Duration::from_millis(200)).await;
    let asks = (0..host.pick(1..=8)).map(|_| ledger.ask_multiplexed()).collect();
    let work = ask_all(&host, &ledger, strict, rude, asks, &mut dial);
    host.within(PATIENCE, work).await.unwrap_or_else(|| panic!("client {name} hangs"));
}

async fn ask_all<W: Way>(
    host: &Host,
    ledger: &Rc<Ledger>,
    strict: Strict,
    rude: bool,
    mut asks: VecDeque<Ask>,
    dial: &mut impl AsyncFnMut() -> Result<W, String>,
) {
    let mut dials = 0;
    while !asks.is_empty() && dials < 12 {
        dials += 1;
        match dial().await {
            Ok(way) => {
                let leaves = rude && host.chance(0.3);
                let streams = BTreeMap::new();
                let mut connection = Connection { host, ledger, strict, rude, leaves, slept: false, way, streams };
                connection.ask(&mut asks).await;
                connection.leave().await;
            }
            Err(error) => {
                assert!(strict.may_break || strict.may_fail || ledger.drained_at().is_some(), "connect: {error}")
            }
        }
        if ledger.drained_at().is_some() {
            return;
        }
    }
    assert!(asks.is_empty() || strict.may_break || strict.may_refuse, "asked in vain: {asks:?}");
}

struct Connection<'a, W: Way> {
    host: &'a Host,
    ledger: &'a Rc<Ledger>,
    strict: Strict,
    rude: bool,
    leaves: bool,
    /// It has slept for so long that whoever waits for it may give it up.
    slept: bool,
    way: W,
    streams: BTreeMap<W::Id, Asked>,
}

impl<W: Way> Connection<'_, W> {
    /// Asks until all is answered, or the connection takes no more.
    async fn ask(&mut self, asks: &mut VecDeque<Ask>) {
        let together = self.host.pick(1..=6);
        loop {
            while self.streams.len() < together && self.way.can_open() && self.host.chance(0.7) {
                let Some(ask) = asks.pop_front() else { break };
                self.open(ask);
            }
            self.put_content();
            self.lose_interest();
            self.way.flush().await;
            if self.way.has_sent() {
                let now = self.host.now();
                self.streams.values_mut().for_each(|asked| _ = asked.sent_at.get_or_insert(now));
            }
            let opens = !asks.is_empty() && self.way.can_open();
            let done = self.streams.is_empty() && !opens;
            if done || self.leaves && self.host.chance(0.1) {
                return;
            }
            if self.host.chance(0.02) {
                self.slept |= self.rude;
                self.host.dawdle(if self.rude { Duration::from_secs(60) } else { NAP }).await;
            }
            let sends = self.streams.values().any(|asked| asked.rest.is_some() || asked.until < u64::MAX);
            let acts = sends || opens && self.streams.len() < together || self.way.is_withholding() || self.leaves;
            let patience = if acts { Duration::from_millis(self.host.pick(1..=30) as u64) } else { PATIENCE };
            for heard in self.way.hear(patience).await {
                self.take(heard, asks);
            }
            if self.way.is_over() {
                for asked in std::mem::take(&mut self.streams).into_values() {
                    self.judge(&asked, &Got::Cut);
                }
                return;
            }
        }
    }

    /// Ends the connection, in one of the ways in which that can be done.
    async fn leave(mut self) {
        if self.way.is_over() || self.leaves {
            if self.host.chance(0.5) {
                self.way.break_off();
            }
            return;
        }
        if self.host.chance(0.3) {
            // An idle connection is ended by the engine, in time.
            while !self.way.is_over() {
                self.way.flush().await;
                self.way.hear(PATIENCE).await;
            }
        } else if self.host.chance(0.5) {
            self.way.say_goodbye().await;
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
        let id = self.way.open(text.as_bytes());
        if self.way.ends_late(id) {
            self.ledger.may_end_late(ask.id);
        }
        let rest = (ask.framing != Framing::None).then(|| content(ask.id, REQUEST, ask.size));
        let until = match self.rude && self.host.chance(0.4) {
            true => self.host.now() + self.host.pick(0..=300_000_000) as u64,
            false => u64::MAX,
        };
        self.host.note(format!("asker: {id:?} is {ask:?}"));
        let asked = Asked { ask, rest, sent_at: None, status: 0, attempt: None, content: Vec::new(), until };
        self.streams.insert(id, asked);
    }

    fn put_content(&mut self) {
        for (&id, asked) in &mut self.streams {
            let Some(rest) = &mut asked.rest else { continue };
            // As far ahead as a window, more or less.
            if self.way.queued(id) > 100_000 || self.host.chance(0.2) {
                continue;
            }
            let piece: Vec<u8> = rest.drain(..self.host.pick((rest.len() / 4)..=rest.len())).collect();
            let taken = piece.is_empty() || self.way.queue(id, &piece);
            if !taken {
                asked.rest = None;
            } else if rest.is_empty() {
                asked.rest = None;
                let trailer = asked.ask.framing == Framing::Chunked && self.host.chance(0.3);
                self.way.finish(id, trailer.then(|| asked.ask.id.to_string()));
            }
        }
    }

    fn lose_interest(&mut self) {
        let now = self.host.now();
        let over: Vec<W::Id> = self.streams.iter().filter(|(_, asked)| asked.until <= now).map(|(id, _)| *id).collect();
        for id in over {
            self.way.reset(id, false);
            self.streams.remove(&id);
        }
    }

    fn take(&mut self, heard: Heard<ResponseHead, W::Id>, asks: &mut VecDeque<Ask>) {
        match heard {
            Heard::Head(id, head, lines) => self.take_head(id, &head, &lines),
            Heard::Data(id, data) => {
                if let Some(asked) = self.streams.get_mut(&id) {
                    asked.content.extend_from_slice(&data);
                }
            }
            Heard::End(id, trailers) => {
                let Some(asked) = self.streams.remove(&id) else { return };
                if asked.rest.is_some() || self.way.queued(id) > 0 {
                    self.way.reset(id, true);
                }
                self.take_end(&asked, trailers);
            }
            Heard::Reset(id, why) => {
                let Some(asked) = self.streams.remove(&id) else { return };
                assert!(matches!(why, Malformed::Cancelled(_) | Malformed::Unprocessed), "{why}, for {:?}", asked.ask);
                if why != Malformed::Unprocessed {
                    return self.judge(&asked, &Got::Cut);
                }
                self.judge(&asked, &Got::Unprocessed);
                self.ledger.asked_again(asked.ask.id);
                asks.push_back(asked.ask);
            }
        }
    }

    fn take_head(&mut self, id: W::Id, head: &ResponseHead, lines: &Lines) {
        let Some(asked) = self.streams.get_mut(&id) else { return };
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
        self.host.note(format!("asker: {got:?} for {ask:?}"));
        let loose = self.strict.may_refuse || self.strict.may_break || self.slept || *until < u64::MAX;
        match got {
            Got::Whole => {}
            Got::Own(status) => {
                assert!(loose, "{status} by ourselves, for {ask:?}");
                if !self.strict.may_break && !self.strict.may_fail && !self.slept {
                    self.ledger.check_own(ask.id, *status);
                }
                assert!(matches!(status, 408 | 502..=504), "{status} for {ask:?}");
            }
            Got::Unprocessed => {
                assert_eq!(self.ledger.sightings(ask.id), 0, "{ask:?} was forwarded, and is said not to have been");
                // Whose request is lost until the engine has waited long enough is told so.
                let waited = self.strict.may_fail || self.ledger.drained_at().is_some();
                assert!(loose || waited, "refused: {ask:?}");
            }
            Got::Cut => {
                let started = asked.attempt.map(|attempt| content(ask.id, attempt, part.len()) == *part);
                assert!(started.unwrap_or(true), "the content of {ask:?} is something else");
                let drained = self.ledger.drained_at();
                let due = drained.is_none_or(|drained| sent_at.is_some_and(|sent| sent < drained));
                let unheard = self.strict.may_fail && self.ledger.sightings(ask.id) == 0;
                assert!(loose || unheard || !due, "cut: {ask:?}");
            }
        }
    }
}
