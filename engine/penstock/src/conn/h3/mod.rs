//! One HTTP/3 connection, and the exchanges that share it.
//!
//! ```text
//! quic::Link ⇄ Hub (the wire machine, and a flow a request) ⇄ Stream (what an exchange holds)
//! ```
//!
//! One task pumps the connection ([`Multiplexed::poll`]): it takes in what came, hands out requests, and sends what waits. Exchanges are tasks of
//! their own, and read and write their streams themselves. What holds here:
//! * Content is taken from QUIC when an exchange wants it, a little ahead, and that is what lets the peer send more.
//! * Content that waits is bounded twice: by what exchanges may put ([`Stream::poll_room`]), and by what QUIC keeps until it is acknowledged.
//! * Everything that one turn puts leaves in as few sends as it fits in.
//! * A stream that an exchange lets go of is finished if all was said, and reset if not.

mod datagrams;
mod flow;
mod stream;

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use proto::Malformed;
use proto::h3::{Client, Connection, ErrorCode, Fault, Limits, Out};
use ring::{Now, TaskRef, Timer};

pub use self::datagrams::Sending;
use self::flow::{Flow, OneWay};
pub use self::stream::Stream;
use super::shelf::Shelf;
use super::{Arrival, Asks, Ended, Lane, Multiplexed, Speaks};
use crate::limits;
use crate::quic::{Dir, Link, Notice, StreamEvent, StreamId, WriteError};

/// A connection that many exchanges share.
pub struct Multiplex<R: Speaks> {
    hub: Rc<RefCell<Hub<R>>>,
}

impl<R: Speaks> Clone for Multiplex<R> {
    fn clone(&self) -> Self {
        Self { hub: Rc::clone(&self.hub) }
    }
}

struct Hub<R: Speaks> {
    machine: Connection<R>,
    link: Link,
    /// What the machine says on the streams of its own.
    out: Out,
    /// Those streams: control, and QPACK's encoder's and decoder's.
    ours: Option<[StreamId; 3]>,
    /// A stream that has been opened for the next request of ours.
    next: Option<StreamId>,
    /// Who waits for the peer's settings.
    ungreeted: Vec<TaskRef>,
    /// Datagrams that had come when they were last counted, and when that was.
    heard: (u64, Now),
    /// Since when a request of ours is out after which nothing has come: QUIC would have acknowledged it at once, whatever its answer waits for.
    unacknowledged_since: Option<Now>,
    /// When the peer was asked for a sign of life that it has not given.
    pinged: Option<Now>,
    /// Of requests, by identifier.
    flows: Vec<Flow<R::Head>>,
    /// How many of those an exchange has.
    begun: usize,
    /// The peer's streams in one direction.
    one_way: Vec<OneWay>,
    /// Requests whose heads waited for QPACK's table, and can be read now.
    unblocked: Vec<StreamId>,
    /// What it says on a request's stream, for the length of a call.
    said: Vec<u8>,
    /// Content that waits in all flows.
    outbox_bytes: usize,
    pump: Option<TaskRef>,
    /// The pump is at work, and need not be woken.
    pumping: bool,
    /// Something was written for a request since the pump last sent.
    spoken: bool,
    /// Since when there is something to tell the peer's encoder.
    unsaid: Option<Now>,
    /// When the peer was last asked for a sign of life, or began to be awaited.
    asked: Now,
    /// Since when what waits in some flow has made no progress, at the longest.
    stuck_first: Option<Now>,
    /// The end of some message is unacknowledged, nobody has it any more, and no content has been sent since: so much of it has.
    unheard: Option<(u64, Now)>,
    ended: Option<Ended>,
    /// What the peer broke, if that was the end.
    fault: Option<Fault>,
}

/// The machine's clock.
fn clock(now: Now) -> Duration {
    Duration::from_nanos(now.as_nanos())
}

impl<R: Speaks> Multiplex<R> {
    /// A connection whose handshake is finished, or as far as early data, and on which nothing has been said.
    #[must_use]
    pub fn new(link: Link, limits: Limits) -> Self {
        let mut hub = Hub {
            machine: Connection::new(limits),
            link,
            out: Out::default(),
            ours: None,
            next: None,
            ungreeted: Vec::new(),
            heard: (0, ring::now()),
            unacknowledged_since: None,
            pinged: None,
            flows: Vec::new(),
            begun: 0,
            one_way: Vec::new(),
            unblocked: Vec::new(),
            said: Vec::new(),
            outbox_bytes: 0,
            pump: None,
            pumping: false,
            spoken: false,
            unsaid: None,
            asked: ring::now(),
            stuck_first: None,
            unheard: None,
            ended: None,
            fault: None,
        };
        hub.machine.start(&mut hub.out);
        Self { hub: Rc::new(RefCell::new(hub)) }
    }
}

impl<R: Speaks> Multiplexed for Multiplex<R> {
    type Role = R;
    type Stream = Stream<R>;

    fn poll(&self, cx: &mut Context<'_>, arrived: &mut impl FnMut(Arrival<Self>)) -> Poll<Ended> {
        let now = ring::now();
        let hub = &mut *self.hub.borrow_mut();
        hub.pump = Some(ring::current_task());
        hub.pumping = true;
        hub.link.advance(now);
        hub.note_heard(now);
        if hub.ended.is_none() {
            let heard = hub.hear(self, now, arrived).and_then(|()| hub.expire(now));
            if let Err(ended) = heard {
                hub.end(ended);
            }
        }
        if hub.machine.takes_upgrades().is_some() {
            hub.ungreeted.drain(..).for_each(ring::wake);
        }
        hub.speak();
        let sent = hub.link.transmit(now, cx);
        hub.pumping = false;
        if hub.ended == Some(Ended::Gone) {
            hub.link.see_off(now);
        }
        if hub.ended.is_none() && sent.is_ready() && hub.machine.is_finished() && hub.is_quiet() {
            hub.end(Ended::Finished);
        }
        hub.ended.map_or(Poll::Pending, Poll::Ready)
    }

    fn is_idle(&self) -> bool {
        self.hub.borrow_mut().is_quiet()
    }

    fn is_busy(&self) -> bool {
        let hub = &mut *self.hub.borrow_mut();
        hub.begun > 0 || hub.has_unacknowledged()
    }

    fn deadline(&self) -> Option<Now> {
        let hub = &mut *self.hub.borrow_mut();
        let machine = hub.machine.next_deadline().map(|due| Now::from_nanos(due.as_nanos() as u64));
        let awaited = (hub.begun > 0).then(|| hub.asked + limits::QUIC_SILENCE / 3);
        let stuck = hub.stuck_first.into_iter().chain(hub.unheard.map(|(_, since)| since)).min();
        let stuck = stuck.map(|since| since + limits::QUIC_STUCK);
        let unsaid = hub.unsaid.map(|since| since + limits::QPACK_PATIENCE);
        [hub.link.deadline(ring::now()), machine, awaited, stuck, unsaid].into_iter().flatten().min()
    }

    fn drain(&self) {
        let hub = &mut *self.hub.borrow_mut();
        let waiting = hub.out.control.len();
        hub.machine.drain(clock(ring::now()), &mut hub.out);
        // Said once; what QUIC does not take yet, it asks for when it does.
        if hub.out.control.len() > waiting {
            hub.nudge();
        }
    }

    fn trim(&self) {
        let hub = &mut *self.hub.borrow_mut();
        if hub.flows.is_empty() {
            hub.machine.trim();
            hub.flows = Vec::new();
            for words in [&mut hub.out.control, &mut hub.out.encoder, &mut hub.out.decoder, &mut hub.said] {
                words.shrink_to_fit();
            }
        }
    }

    fn close(&self, how: Ended) {
        self.hub.borrow_mut().end(how);
    }

    /// Our last words leave. What the peer still says is the endpoint's to hear out.
    async fn linger(&self, patience: Duration, _bytes_max: usize) {
        let until = ring::now() + patience;
        let mut timer = Timer::new();
        poll_fn(|cx| {
            let (hub, now) = (&mut *self.hub.borrow_mut(), ring::now());
            timer.set(until);
            if hub.link.transmit(now, cx).is_pending() && !timer.poll_expired() {
                return Poll::Pending;
            }
            hub.link.see_off(now);
            Poll::Ready(())
        })
        .await;
    }

    fn lane(stream: &mut Stream<R>) -> Lane<'_, R> {
        stream.into()
    }

    fn is_doubtful(stream: &Stream<R>) -> bool {
        stream.is_doubtful()
    }

    fn refuse(stream: Stream<R>) {
        stream.refuse();
    }
}

impl Asks for Multiplex<Client> {
    fn can_ask(&self) -> bool {
        let hub = &mut *self.hub.borrow_mut();
        let mute = hub.unacknowledged_since.is_some_and(|since| ring::now().since(since) >= limits::QUIC_MUTE);
        if hub.ended.is_some() || !hub.machine.can_open() || mute {
            return false;
        }
        // How many there may be is known by opening one. It is no stream before something is said on it.
        hub.next = hub.next.or_else(|| hub.link.open());
        hub.next.is_some()
    }

    fn streams(&self) -> usize {
        self.hub.borrow().flows.len()
    }

    fn is_alive(&self, since: Now, patience: Duration) -> Option<Now> {
        let (hub, now) = (&mut *self.hub.borrow_mut(), ring::now());
        if let Some(since) = hub.unacknowledged_since {
            // QUIC has asked again and again by itself.
            let due = since + patience;
            return (due > now).then_some(due);
        }
        match hub.pinged {
            Some(pinged) if now.since(pinged) >= patience => None,
            Some(pinged) => Some(pinged + patience),
            None => {
                let due = hub.heard.1.max(since) + patience;
                if due > now {
                    return Some(due);
                }
                hub.link.quic.ping();
                hub.pinged = Some(now);
                hub.nudge();
                Some(now + patience)
            }
        }
    }
}

impl<R: Speaks> Hub<R> {
    /// Nothing is open, half said, or owed.
    fn is_quiet(&mut self) -> bool {
        self.flows.is_empty() && !self.has_unacknowledged()
    }

    /// The end of some message has not been acknowledged.
    fn has_unacknowledged(&mut self) -> bool {
        self.unacknowledged() > 0
    }

    /// Streams of requests whose sending half is not over. One that has brought no request yet has nothing to say, and is not awaited.
    fn unacknowledged(&mut self) -> usize {
        let unsaid = self.flows.len() - self.begun + usize::from(self.next.is_some());
        self.link.sending().saturating_sub(self.ours.map_or(0, |ours| ours.len()) + unsaid)
    }

    /// Whether anything has come, which is a sign of life.
    fn note_heard(&mut self, now: Now) {
        let heard = self.link.heard();
        if heard != self.heard.0 {
            self.heard = (heard, now);
            (self.pinged, self.unacknowledged_since) = (None, None);
        }
    }

    /// There is something to be done for the connection.
    fn nudge(&self) {
        if let Some(pump) = self.pump.filter(|_| !self.pumping) {
            ring::wake(pump);
        }
    }

    fn end(&mut self, how: Ended) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(how);
        self.ungreeted.drain(..).for_each(ring::wake);
        let code = self.fault.map_or(ErrorCode::NO_ERROR, |fault| fault.code);
        if how != Ended::Gone {
            self.link.close(ring::now(), code.0);
        }
        let mut at = self.flows.len();
        while at > 0 {
            at -= 1;
            if self.flows[at].mail.detached || !self.flows[at].begun {
                self.forget(at);
            } else {
                self.flows[at].mail.wake();
            }
        }
    }

    fn broke(&mut self, fault: Fault) -> Ended {
        self.fault = Some(fault);
        Ended::Fault
    }

    /// Takes in what has happened.
    fn hear(
        &mut self,
        this: &Multiplex<R>,
        now: Now,
        arrived: &mut impl FnMut(Arrival<Multiplex<R>>),
    ) -> Result<(), Ended> {
        let mut datagrams = false;
        while let Some(notice) = self.link.poll_notice() {
            match notice {
                // Some wait for it.
                Notice::Connected => self.flows.iter_mut().for_each(|flow| flow.mail.wake()),
                Notice::Lost(_) => return Err(Ended::Gone),
                Notice::Datagrams => datagrams = true,
                Notice::Stream(StreamEvent::Opened { dir: Dir::Bi }) => {
                    while let Some(id) = self.link.accept(Dir::Bi) {
                        self.opened(id, now)?;
                        // One that is refused is nobody's.
                        if self.machine.priority(name(id)).is_some() {
                            self.open(id, false);
                            self.begin(this, id, now, arrived)?;
                        }
                    }
                }
                Notice::Stream(StreamEvent::Opened { dir: Dir::Uni }) => {
                    while let Some(id) = self.link.accept(Dir::Uni) {
                        self.opened(id, now)?;
                        self.one_way.push(OneWay::new(id));
                        self.listen(id, now)?;
                    }
                }
                Notice::Stream(StreamEvent::Readable { id }) if id.dir() == Dir::Uni => self.listen(id, now)?,
                Notice::Stream(StreamEvent::Readable { id }) => match self.find(id) {
                    Some(at) if !self.flows[at].begun => self.begin(this, id, now, arrived)?,
                    Some(at) => self.flows[at].mail.wake(),
                    None => {}
                },
                Notice::Stream(StreamEvent::Writable { id }) => {
                    if let Some(at) = self.find(id) {
                        self.write(at);
                    }
                }
                Notice::Stream(StreamEvent::Stopped { id, error_code }) => {
                    self.stopped(id, error_code.into_inner(), now)?
                }
                Notice::Stream(StreamEvent::Finished { .. } | StreamEvent::Available { .. }) => {}
            }
        }
        while let Some(id) = self.unblocked.pop() {
            if self.find(id).is_some_and(|at| !self.flows[at].begun) {
                self.begin(this, id, now, arrived)?;
            }
        }
        // After the requests that came with them.
        if datagrams {
            self.take_datagrams(now).map_err(|fault| self.broke(fault))?;
        }
        Ok(())
    }

    fn opened(&mut self, id: StreamId, now: Now) -> Result<(), Ended> {
        let opened = self.machine.opened(clock(now), name(id), &mut self.out);
        opened.map_err(|fault| self.broke(fault))
    }

    /// Reads a new request as far as its head, and hands it out.
    fn begin(
        &mut self,
        this: &Multiplex<R>,
        id: StreamId,
        now: Now,
        arrived: &mut impl FnMut(Arrival<Multiplex<R>>),
    ) -> Result<(), Ended> {
        let Some(at) = self.find(id) else { return Ok(()) };
        let refused = self.fill(at, now).map_err(|fault| self.broke(fault))?;
        let Some(at) = self.find(id) else { return Ok(()) };
        if let Some(why) = refused {
            let answerable = self.flows[at].mail.reset.is_none();
            let stream = answerable.then(|| {
                self.flows[at].begun = true;
                self.begun += 1;
                Stream::new(this.clone(), id)
            });
            if stream.is_none() {
                self.forget(at);
            }
            arrived(Arrival::Refused(stream, why));
        } else if let Some((head, text, index)) = self.flows[at].mail.take_head() {
            self.flows[at].begun = true;
            self.begun += 1;
            arrived(Arrival::Request(Stream::new(this.clone(), id), head, text, index));
        } else if self.flows[at].mail.reset.is_some() {
            self.forget(at);
        }
        Ok(())
    }

    /// The peer wants no more of what is said on a stream.
    fn stopped(&mut self, id: StreamId, code: u64, now: Now) -> Result<(), Ended> {
        let said = self.machine.peer_stopped(clock(now), name(id), ErrorCode(code), &mut self.out);
        let said = said.map_err(|fault| self.broke(fault))?;
        // Of a message that is complete the machine knows nothing more. What is left of it waits for an acknowledgement that will not come, and would hold
        // memory and a stream of the peer's for as long as the connection lives (RFC 9000 §3.5).
        self.link.reset(id, code);
        if let Some(at) = self.find(id) {
            self.take_reset(at, said);
            if self.flows[at].begun {
                self.write(at);
            } else {
                self.forget(at);
            }
        }
        Ok(())
    }

    /// What the machine has to say goes to QUIC, and so does what waits in the flows.
    fn speak(&mut self) {
        if self.ended.is_some() {
            return;
        }
        self.obey();
        let ours = match self.ours {
            Some(ours) => ours,
            None => {
                let Some(ours) = self.link.open_three() else { return };
                *self.ours.insert(ours)
            }
        };
        let tells = self.tells_encoder(ring::now());
        let Out { control, encoder, decoder, .. } = &mut self.out;
        for (id, words, goes) in [(ours[0], control, true), (ours[1], encoder, true), (ours[2], decoder, tells)] {
            if !goes {
                continue;
            }
            // What a peer does not let us say on these streams, in 64 KiB and more, it cannot want to hear.
            match self.link.write(id, words) {
                Ok(said) => drop(words.drain(..said)),
                Err(WriteError::Blocked) => {}
                Err(_) => words.clear(),
            }
        }
    }

    /// Whether the peer's encoder is told now which heads were read: with a response, if one goes soon, since alone it would be a datagram more.
    fn tells_encoder(&mut self, now: Now) -> bool {
        let spoken = std::mem::take(&mut self.spoken);
        if self.out.decoder.is_empty() {
            self.unsaid = None;
            return false;
        }
        let since = *self.unsaid.get_or_insert(now);
        let many = self.out.decoder.len() >= limits::QPACK_PATIENT_BYTES;
        let tells = spoken || many || since + limits::QPACK_PATIENCE <= now;
        self.unsaid = self.unsaid.filter(|_| !tells);
        tells
    }

    /// Does what time asks for.
    fn expire(&mut self, now: Now) -> Result<(), Ended> {
        self.machine.expire(clock(now), &mut self.out);
        if self.begun > 0 && now.since(self.asked) >= limits::QUIC_SILENCE / 3 {
            self.asked = now;
            self.link.quic.ping();
        }
        self.reap(now)
    }

    /// Who takes nothing of what waits for it, for long, holds memory and nothing else.
    fn reap(&mut self, now: Now) -> Result<(), Ended> {
        let is_over = |since: Now| now.since(since) >= limits::QUIC_STUCK;
        if self.stuck_first.is_some_and(is_over) {
            for at in (0..self.flows.len()).rev() {
                if self.flows[at].stuck.is_some_and(is_over) {
                    self.break_off(at, Malformed::Stalled);
                }
            }
            self.stuck_first = self.flows.iter().filter_map(|flow| flow.stuck).min();
        }
        if self.begun > 0 || !self.has_unacknowledged() {
            self.unheard = None;
            return Ok(());
        }
        let sent = self.link.content_frames_sent();
        match self.unheard {
            Some((before, since)) if before == sent => {
                if is_over(since) {
                    return Err(Ended::Finished);
                }
            }
            _ => self.unheard = Some((sent, now)),
        }
        Ok(())
    }

    fn find(&self, id: StreamId) -> Option<usize> {
        self.flows.binary_search_by_key(&id, |flow| flow.id).ok()
    }

    /// Streams open in the order of their identifiers.
    fn open(&mut self, id: StreamId, begun: bool) {
        debug_assert!(self.flows.last().is_none_or(|last| last.id < id));
        self.begun += usize::from(begun);
        self.flows.push(Flow::new(id, R::with_shelf(Shelf::take_mail), begun));
    }

    /// A stream that was opened in vain is the next one's.
    fn unopen(&mut self, id: StreamId) {
        if let Some(at) = self.find(id) {
            self.forget(at);
        }
        self.next = Some(id);
    }

    /// Nobody asks for a stream any more.
    fn forget(&mut self, at: usize) {
        let flow = self.flows.remove(at);
        self.outbox_bytes -= flow.mail.outbox_bytes;
        self.begun -= usize::from(flow.begun);
        self.machine.release(name(flow.id), &mut self.out);
        R::with_shelf(|shelf| shelf.give_mail(flow.mail));
    }
}

/// The machine has something to say, or to be done.
fn has_words(out: &Out) -> bool {
    !(out.control.is_empty() && out.encoder.is_empty() && out.decoder.is_empty() && out.aborts.is_empty())
}

/// A stream, as the machine names it.
fn name(id: StreamId) -> proto::h3::StreamId {
    proto::h3::StreamId(id.into())
}
