//! One HTTP/2 connection, and the exchanges that share it.
//!
//! ```text
//! transport ⇄ Hub (the wire machine, and a mailbox a stream) ⇄ Stream (what an exchange holds)
//! ```
//!
//! One task pumps the connection ([`Multiplex::poll`]): it receives, hands out what came, and sends what waits. Exchanges are tasks of
//! their own; they take from and put into their mailboxes, and wake the pump. What holds here:
//! * Everything that one turn puts leaves in one write, in the order in which the machine wants it.
//! * Content is credited to the peer when an exchange takes it, and not before; so a mailbox holds no more than the stream's window.
//! * Content that waits is bounded by what exchanges may put ([`Stream::poll_room`]).
//! * A stream that an exchange lets go of is finished if all was said, and reset if not. It counts for the peer until then.
//! * An idle connection holds no buffer.

mod stream;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use proto::h1::Trailers;
use proto::h2::{Client, Connection, DataFrame, Fault, HeadSpace, Limits, Said, StreamId};
use proto::{Event, Malformed};
use ring::{Appetite, Buf, Now, TaskRef, Timer};

pub use self::stream::Stream;
use super::mail::{Inbound, Mail};
use super::shelf::{Index, Shelf};
use super::{Arrival, Asks, Ended, Lane, Multiplexed, Speaks, Transport, bulk_bytes};
use crate::limits;

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
    transport: Transport,
    /// Received and not understood yet: less than a frame.
    unread: Option<Buf>,
    /// What the machine says for itself, and heads.
    out: Vec<u8>,
    /// Said and not sent yet.
    stage: Option<Buf>,
    /// By identifier.
    mails: Vec<(StreamId, Box<Mail<R::Head>>)>,
    /// Where the one stood that was looked for last: most of the time it is the next one, too.
    last: Cell<usize>,
    /// Content that waits in all of them.
    outbox_bytes: usize,
    pump: Option<TaskRef>,
    /// It has been woken, and has not run since.
    nudged: Cell<bool>,
    /// Who waits for the peer's first word.
    ungreeted: Vec<TaskRef>,
    /// When the peer was last heard, and when it was last asked for a sign of life.
    heard: Now,
    pinged: Option<Now>,
    ended: Option<Ended>,
    /// Bytes given to the transport, and how many of them when the machine was last told that they have gone.
    handed: u64,
    told_gone: u64,
}

/// The longest payload that with its frame's head fills a TLS record and no more.
const DATA_MAX: usize = (16 << 10) - 9;

/// A piece of at least this goes as it is, and what is shorter is copied beside others.
const COPIED_BELOW: usize = 2 << 10;

/// The least that is made room for at once.
const STAGE_BYTES: usize = 3 << 10;

/// The machine's clock.
fn clock(now: Now) -> Duration {
    Duration::from_nanos(now.as_nanos())
}

impl<R: Speaks> Multiplex<R> {
    /// A connection on which nothing has been said; `unread` has been received already.
    #[must_use]
    pub fn new(transport: Transport, unread: Option<Buf>, limits: Limits) -> Self {
        let mut hub = Hub {
            machine: Connection::new(limits),
            transport,
            unread,
            out: Vec::new(),
            stage: None,
            mails: Vec::new(),
            last: Cell::new(0),
            outbox_bytes: 0,
            pump: None,
            nudged: Cell::new(false),
            ungreeted: Vec::new(),
            heard: ring::now(),
            pinged: None,
            ended: None,
            handed: 0,
            told_gone: 0,
        };
        hub.machine.start(clock(ring::now()), &mut hub.out);
        Self { hub: Rc::new(RefCell::new(hub)) }
    }
}

impl<R: Speaks> Multiplexed for Multiplex<R> {
    type Role = R;
    type Stream = Stream<R>;

    fn poll(&self, cx: &mut Context<'_>, arrived: &mut impl FnMut(Arrival<Self>)) -> Poll<Ended> {
        let now = clock(ring::now());
        let mut hub = self.hub.borrow_mut();
        hub.pump = Some(ring::current_task());
        hub.nudged.set(false);
        if hub.ended.is_none() {
            let early = hub.transport.is_early();
            let received = hub.receive(self, now, cx, arrived);
            if early && !hub.transport.is_early() {
                hub.mails.iter_mut().for_each(|(_, mail)| mail.wake());
            }
            if hub.machine.takes_upgrades().is_some() {
                hub.ungreeted.drain(..).for_each(ring::wake);
            }
            let expired = received.and_then(|()| hub.expire(now));
            if let Err(ended) = expired {
                hub.end(ended);
            }
        }
        hub.flush(now, cx);
        match hub.ended {
            Some(ended) => Poll::Ready(ended),
            None if hub.machine.is_finished() && hub.mails.is_empty() => {
                hub.end(Ended::Finished);
                Poll::Ready(Ended::Finished)
            }
            None => Poll::Pending,
        }
    }

    fn is_idle(&self) -> bool {
        let hub = self.hub.borrow();
        hub.mails.is_empty() && hub.machine.is_idle() && hub.unread.is_none()
    }

    fn is_busy(&self) -> bool {
        !self.hub.borrow().mails.is_empty()
    }

    fn deadline(&self) -> Option<Now> {
        let due = self.hub.borrow().machine.next_deadline()?;
        Some(Now::from_nanos(u64::try_from(due.as_nanos()).unwrap_or(u64::MAX)))
    }

    fn drain(&self) {
        let hub = &mut *self.hub.borrow_mut();
        let said = hub.out.len();
        hub.machine.drain(clock(ring::now()), &mut hub.out);
        if hub.out.len() > said {
            hub.nudge();
        }
    }

    fn trim(&self) {
        let hub = &mut *self.hub.borrow_mut();
        if hub.mails.is_empty() && hub.out.is_empty() {
            hub.machine.trim();
            hub.mails = Vec::new();
            hub.out = Vec::new();
        }
    }

    fn close(&self, how: Ended) {
        self.hub.borrow_mut().end(how);
    }

    async fn linger(&self, patience: Duration, bytes_max: usize) {
        let (mut timer, mut dropped) = (Timer::new(), 0);
        self.hub.borrow_mut().transport.finish();
        let mut owed = self.hub.borrow().transport.unsent();
        timer.set(ring::now() + patience);
        poll_fn(|cx| {
            let transport = &mut self.hub.borrow_mut().transport;
            while timer.poll_expired() {
                let before = std::mem::replace(&mut owed, transport.unsent());
                if owed >= before {
                    return Poll::Ready(());
                }
                timer.set(ring::now() + patience);
            }
            while dropped <= bytes_max {
                match transport.poll_recv(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(Some(buf))) => dropped += buf.len(),
                    // The peer has ended; what we still owe it goes out, if it will have it.
                    Poll::Ready(Ok(None) | Err(_)) => return transport.poll_sent(cx, 0).map(drop),
                }
            }
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
        let hub = self.hub.borrow();
        hub.ended.is_none() && hub.machine.can_open()
    }

    fn streams(&self) -> usize {
        self.hub.borrow().machine.streams()
    }

    fn is_alive(&self, since: Now, patience: Duration) -> Option<Now> {
        let (hub, now) = (&mut *self.hub.borrow_mut(), ring::now());
        match hub.pinged {
            Some(pinged) if now.since(pinged) >= patience => None,
            Some(pinged) => Some(pinged + patience),
            None => {
                let due = hub.heard.max(since) + patience;
                if due > now {
                    return Some(due);
                }
                hub.machine.ping(PING_MARK, &mut hub.out);
                hub.pinged = Some(now);
                hub.nudge();
                Some(now + patience)
            }
        }
    }
}

/// What our PINGs carry.
const PING_MARK: u64 = u64::from_be_bytes(*b"penstock");

impl<R: Speaks> Hub<R> {
    fn find(&self, id: StreamId) -> Option<usize> {
        let last = self.last.get();
        if self.mails.get(last).is_some_and(|(at, _)| *at == id) {
            return Some(last);
        }
        let at = self.mails.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.last.set(at);
        Some(at)
    }

    fn mail(&mut self, id: StreamId) -> Option<&mut Mail<R::Head>> {
        let at = self.find(id)?;
        Some(&mut self.mails[at].1)
    }

    /// Streams open in the order of their identifiers.
    fn open(&mut self, id: StreamId) {
        debug_assert!(self.mails.last().is_none_or(|(last, _)| *last < id));
        self.last.set(self.mails.len());
        self.mails.push((id, R::with_shelf(Shelf::take_mail)));
    }

    fn close(&mut self, at: usize) {
        let (_, mail) = self.mails.remove(at);
        self.outbox_bytes -= mail.outbox_bytes;
        R::with_shelf(|shelf| shelf.give_mail(mail));
    }

    /// There is something to be done for the connection.
    fn nudge(&self) {
        if let Some(pump) = self.pump
            && !self.nudged.replace(true)
        {
            ring::wake(pump);
        }
    }

    fn end(&mut self, how: Ended) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(how);
        self.ungreeted.drain(..).for_each(ring::wake);
        let mut at = self.mails.len();
        while at > 0 {
            at -= 1;
            if self.mails[at].1.detached {
                self.close(at);
            } else {
                self.mails[at].1.wake();
            }
        }
    }

    fn receive(
        &mut self,
        this: &Multiplex<R>,
        now: Duration,
        cx: &mut Context<'_>,
        arrived: &mut impl FnMut(Arrival<Multiplex<R>>),
    ) -> Result<(), Ended> {
        loop {
            self.read(this, now, arrived).map_err(|_| Ended::Fault)?;
            // Where nothing is awaited, no buffer waits.
            if self.mails.is_empty() && self.unread.is_none() && self.transport.poll_readable(cx).is_pending() {
                return Ok(());
            }
            match self.transport.poll_recv(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(Some(more))) => self.take_in(more)?,
                Poll::Ready(Ok(None) | Err(_)) => return Err(Ended::Gone),
            }
        }
    }

    fn take_in(&mut self, more: Buf) -> Result<(), Ended> {
        (self.heard, self.pinged) = (ring::now(), None);
        let bulk = more.len() as u64 >= limits::BULK_FROM / 2;
        self.transport.set_appetite(if bulk { Appetite::Bulk(bulk_bytes()) } else { Appetite::Any });
        // What is there is less than a frame, so this finds room.
        super::append(&mut self.unread, more).ok_or(Ended::Gone)
    }

    /// Understands what has been received.
    fn read(
        &mut self,
        this: &Multiplex<R>,
        now: Duration,
        arrived: &mut impl FnMut(Arrival<Multiplex<R>>),
    ) -> Result<(), Fault> {
        let mut space = R::with_shelf(Shelf::take_space);
        let read = self.read_to(&mut space, this, now, arrived);
        R::with_shelf(|shelf| shelf.give_space(space));
        read
    }

    fn read_to(
        &mut self,
        space: &mut HeadSpace,
        this: &Multiplex<R>,
        now: Duration,
        arrived: &mut impl FnMut(Arrival<Multiplex<R>>),
    ) -> Result<(), Fault> {
        loop {
            let bytes = self.unread.as_ref().map_or(&[][..], Buf::bytes);
            let step = R::read(&mut self.machine, now, bytes, space, &mut self.out)?;
            self.pass(step.skipped);
            match step.said {
                Said::Pause => return Ok(()),
                Said::Stream(id, event) => self.take_event(id, event, space, this, arrived),
                Said::Refused { stream, why, answerable } => {
                    let stream = answerable.then(|| {
                        self.open(stream);
                        Stream::new(this.clone(), stream)
                    });
                    arrived(Arrival::Refused(stream, why));
                }
                Said::GoneAway { .. } | Said::Pong(_) => {}
            }
        }
    }

    fn take_event(
        &mut self,
        id: StreamId,
        event: Event<R::Head>,
        space: &HeadSpace,
        this: &Multiplex<R>,
        arrived: &mut impl FnMut(Arrival<Multiplex<R>>),
    ) {
        match event {
            Event::Head(head) => {
                let (text, index) = (Buf::copy_of(&space.text), Index::of(&space.fields));
                match self.mail(id) {
                    Some(mail) => {
                        mail.inbox.push_back(Inbound::Head(head, text, index));
                        mail.wake();
                    }
                    None => {
                        self.open(id);
                        arrived(Arrival::Request(Stream::new(this.clone(), id), head, text, index));
                    }
                }
            }
            Event::Data { payload, consumed } => {
                let data = super::cut(&mut self.unread, payload, consumed);
                match self.mail(id).filter(|mail| !mail.detached) {
                    Some(mail) => {
                        mail.take_in(data);
                        mail.wake();
                    }
                    None => self.machine.credit(id, payload, &mut self.out),
                }
            }
            Event::End { consumed, trailers } => {
                self.pass(consumed);
                if let Some(mail) = self.mail(id) {
                    if trailers {
                        mail.trailers = space.trailers();
                    }
                    mail.inbox.push_back(Inbound::End);
                    mail.wake();
                }
            }
            Event::Reset(why) => self.break_off(id, why),
            Event::Tunnel | Event::Pause => {}
        }
    }

    /// A stream is over before its time: what waits on it has nowhere to go.
    fn break_off(&mut self, id: StreamId, why: Malformed) {
        let Some(at) = self.find(id) else { return self.machine.release(id, &mut self.out) };
        let mail = &mut self.mails[at].1;
        mail.reset = Some(why);
        self.outbox_bytes -= std::mem::take(&mut mail.outbox_bytes);
        mail.outbox.clear();
        if mail.detached {
            self.machine.release(id, &mut self.out);
            self.close(at);
        } else {
            mail.wake();
        }
    }

    /// Moves past so many bytes.
    fn pass(&mut self, length: usize) {
        super::pass(&mut self.unread, length);
    }

    /// Does what time asks for.
    fn expire(&mut self, now: Duration) -> Result<(), Ended> {
        if self.machine.next_deadline().is_none_or(|due| due > now) {
            return Ok(());
        }
        while let Some(id) = self.machine.expire(now, &mut self.out).map_err(|_| Ended::Fault)? {
            self.break_off(id, Malformed::Stalled);
        }
        Ok(())
    }

    /// Sends what may go: what the machine says first, then content by turns.
    fn flush(&mut self, now: Duration, cx: &mut Context<'_>) {
        self.stage_out();
        let mut full = false;
        while self.outbox_bytes > 0 && !matches!(self.ended, Some(Ended::Gone)) {
            full = self.unsent() >= limits::UNSENT_BYTES_MAX;
            if full {
                break;
            }
            let Some(frame) = self.machine.next_data(now, DATA_MAX) else { break };
            self.put(&frame);
        }
        self.send_stage();
        if full {
            // Wakes the pump when some of it has gone.
            let _ = self.transport.poll_sent(cx, limits::UNSENT_BYTES_MAX / 2);
        }
        let gone = self.handed.saturating_sub(self.transport.unsent() as u64);
        if gone >= self.told_gone {
            self.machine.sent();
            self.told_gone = self.handed;
        }
    }

    fn unsent(&self) -> usize {
        self.transport.unsent() + self.stage.as_ref().map_or(0, Buf::len)
    }

    /// Puts a frame of content, and what follows the content if that was the last of it.
    fn put(&mut self, frame: &DataFrame) {
        let Some(at) = self.find(frame.stream) else { return debug_assert!(false, "content of nobody") };
        let mail = &mut self.mails[at].1;
        mail.outbox_bytes -= frame.payload;
        self.outbox_bytes -= frame.payload;
        let as_it_is = frame.payload >= COPIED_BELOW
            && frame.suffix.is_none()
            && mail.outbox.front().is_some_and(|front| front.len() == frame.payload && front.headroom() >= 9);
        if as_it_is && let Some(mut piece) = mail.outbox.pop_front() {
            piece.prepend(&frame.head);
            self.send_stage();
            self.send(piece);
        } else {
            self.copy(at, frame);
        }
        let mail = &mut self.mails[at].1;
        if mail.outbox.is_empty() && !mail.last_words.is_empty() {
            let words = std::mem::take(&mut mail.last_words);
            self.end_with(frame.stream, &words);
            self.stage_out();
        }
        let mail = &mut self.mails[at].1;
        if mail.detached && mail.is_sent() {
            self.close(at);
        } else {
            mail.has_room();
        }
    }

    /// Puts trailers, behind which nothing comes.
    fn end_with(&mut self, id: StreamId, trailers: &Trailers) {
        if self.machine.write_trailers(id, trailers.iter(), &mut self.out).is_err() {
            self.machine.reset(id, proto::h2::ErrorCode::INTERNAL_ERROR, &mut self.out);
        }
    }

    /// Copies a frame behind what is staged.
    fn copy(&mut self, at: usize, frame: &DataFrame) {
        let suffix = frame.suffix.as_ref().map_or(&[][..], |suffix| &suffix[..]);
        self.make_room(frame.head.len() + frame.payload + suffix.len());
        let (Some(stage), mail) = (&mut self.stage, &mut self.mails[at].1) else { return };
        stage.extend(&frame.head);
        let mut left = frame.payload;
        while left > 0 {
            let Some(front) = mail.outbox.front_mut() else { break };
            let taken = left.min(front.len());
            stage.extend(&front.bytes()[..taken]);
            front.consume(taken);
            left -= taken;
            if front.is_empty() {
                mail.outbox.pop_front();
            }
        }
        stage.extend(suffix);
    }

    /// Stages what the machine has said.
    fn stage_out(&mut self) {
        let out = std::mem::take(&mut self.out);
        for piece in out.chunks(DATA_MAX) {
            self.make_room(piece.len());
            if let Some(stage) = &mut self.stage {
                stage.extend(piece);
            }
        }
        self.out = out;
        self.out.clear();
    }

    /// Room for so many bytes, at most a record's, behind what is staged.
    fn make_room(&mut self, bytes: usize) {
        if self.stage.as_ref().is_none_or(|stage| stage.room() < bytes) {
            self.send_stage();
            self.stage = Some(Buf::with_room(bytes.max(STAGE_BYTES)));
        }
    }

    fn send_stage(&mut self) {
        if let Some(stage) = self.stage.take() {
            self.send(stage);
        }
    }

    fn send(&mut self, buf: Buf) {
        let before = self.transport.unsent();
        self.transport.send(buf);
        self.handed += self.transport.unsent().saturating_sub(before) as u64;
    }
}
