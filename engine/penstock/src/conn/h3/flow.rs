//! A stream's flow: what has come and is not understood yet, its exchange's mailbox, and how both are filled and emptied.

use bytes::Bytes;
use proto::h1::{Refused, Trailers};
use proto::h3::{self as wire, Abort, Connection, ErrorCode, Fault, Out, Said, frame};
use proto::{Event, Malformed};
use ring::{Buf, Now};

use super::datagrams::Queue;
use super::{Hub, clock, name};
use crate::conn::mail::{Inbound, Mail};
use crate::conn::shelf::Kept;
use crate::conn::{Speaks, cut, pass};
use crate::limits;
use crate::quic::{Behind, Frame, Link, StreamId, WriteError, stream};

/// A request's stream.
pub(super) struct Flow<H> {
    pub(super) id: StreamId,
    pub(super) mail: Box<Mail<H>>,
    /// An exchange has it, or has had it.
    pub(super) begun: bool,
    /// Received and not understood yet.
    unread: Option<Buf>,
    /// Behind that nothing comes.
    ended: bool,
    /// What is unread waits for QPACK's table (RFC 9204 §2.1.2).
    blocked: bool,
    /// Content that has been counted, and is to be put.
    pub(super) owed: usize,
    /// What follows that, and then nothing.
    tail: Option<Buf>,
    /// The front of what waits, as the memory in which it came: QUIC has its beginning.
    lent: Option<Bytes>,
    /// What waits has made no progress since.
    pub(super) stuck: Option<Now>,
    pub(super) datagrams: Option<Box<Queue>>,
}

/// One of the peer's streams in one direction.
pub(super) struct OneWay {
    pub(super) id: StreamId,
    unread: Option<Buf>,
    ended: bool,
}

impl OneWay {
    pub(super) const fn new(id: StreamId) -> Self {
        Self { id, unread: None, ended: false }
    }
}

impl<H> Flow<H> {
    pub(super) fn new(id: StreamId, mail: Box<Mail<H>>, begun: bool) -> Self {
        Self {
            id,
            mail,
            begun,
            unread: None,
            ended: false,
            blocked: false,
            owed: 0,
            tail: None,
            lent: None,
            stuck: None,
            datagrams: None,
        }
    }

    /// The end of our message has been put, or waits for the content before it.
    pub(super) fn is_finished(&self) -> bool {
        self.mail.finished || self.tail.is_some()
    }

    /// Something was put that QUIC has not taken.
    fn waits(&self) -> bool {
        self.mail.outbox_bytes > 0
    }

    /// Gives the front of what waits to QUIC, as far as it is taken: large pieces with their memory, so that they are not copied.
    fn give(&mut self, link: &mut Link) -> Result<usize, WriteError> {
        let outbox = &mut self.mail.outbox;
        if self.lent.is_none() && outbox.front().is_some_and(is_worth_lending) {
            self.lent = outbox.pop_front().map(Bytes::from_owner);
        }
        let given = match (&mut self.lent, outbox.front_mut()) {
            (Some(lent), _) => link.lend(self.id, lent)?,
            (None, Some(front)) => {
                let given = link.write(self.id, front.bytes())?;
                front.consume(given);
                given
            }
            (None, None) => 0,
        };
        self.lent.take_if(|lent| lent.is_empty());
        if outbox.front().is_some_and(Buf::is_empty) {
            outbox.pop_front();
        }
        Ok(given)
    }
}

/// What lies in much more memory than it fills would keep all of that from others.
fn is_worth_lending(content: &Buf) -> bool {
    content.len() >= limits::QUIC_LENT_BYTES_MIN && 2 * content.len() >= content.capacity()
}

/// Puts bytes behind what is there. `None` when even the largest buffer is too small.
fn append(unread: &mut Option<Buf>, bytes: &[u8]) -> Option<()> {
    *unread = Some(match unread.take() {
        None => Buf::copy_of(bytes),
        Some(part) => part.with_more_room(bytes.len())?.with(bytes),
    });
    Some(())
}

/// Takes a little of what is here of a stream, behind what is unread: how many bytes, and what comes behind them.
fn take(link: &mut Link, id: StreamId, unread: &mut Option<Buf>) -> Result<(usize, Behind), Fault> {
    let (mut taken, mut outgrown) = (0, false);
    let behind = link.read(id, limits::HTTP3_READ_BYTES, |bytes| {
        taken += bytes.len();
        // What is unread is little more than a frame that the machine takes as a whole, so this finds room.
        outgrown |= append(unread, bytes).is_none();
    });
    match outgrown {
        true => Err(Fault { code: ErrorCode::EXCESSIVE_LOAD, why: "a frame outgrows memory" }),
        false => Ok((taken, behind)),
    }
}

impl<R: Speaks> Hub<R> {
    /// For an exchange that reads its stream: where its flow is, which has something in its mailbox if anything has come.
    pub(super) fn filled(&mut self, id: StreamId) -> Option<usize> {
        let at = self.find(id)?;
        if !self.flows[at].mail.inbox.is_empty() {
            return Some(at);
        }
        match self.fill(at, ring::now()) {
            Ok(None) => {}
            Ok(Some(why)) => self.break_off(at, why),
            Err(fault) => {
                let how = self.broke(fault);
                self.end(how);
            }
        }
        // What was taken lets the peer send more; what was said has to go; an end is the pump's to tell.
        let owes = self.link.take_owes() || super::has_words(&self.out);
        if owes || self.ended.is_some() {
            self.nudge();
        }
        // The end of a connection takes other flows away, and so moves this one.
        self.find(id)
    }

    /// Fills a flow's mailbox with what has come, a little ahead of its exchange. `Some`: the message is none.
    pub(super) fn fill(&mut self, at: usize, now: Now) -> Result<Option<Malformed>, Fault> {
        loop {
            // Of a new one nothing is here yet.
            let flow = &self.flows[at];
            let is_new = !flow.begun && flow.unread.is_none() && !flow.ended;
            if !is_new && let Some(why) = self.understand(at, now)? {
                return Ok(Some(why));
            }
            let flow = &mut self.flows[at];
            let full = flow.mail.inbox_bytes >= limits::HTTP3_WAITING_BYTES;
            if full || flow.ended || flow.blocked || flow.mail.reset.is_some() {
                return Ok(None);
            }
            if !self.draw(at, now)? {
                return Ok(None);
            }
        }
    }

    /// Takes what is here of a stream; false when that is nothing. Of a new one as much as there is: whether anything stands behind its head
    /// says what it is.
    fn draw(&mut self, at: usize, now: Now) -> Result<bool, Fault> {
        let id = self.flows[at].id;
        let mut drawn = false;
        loop {
            let flow = &mut self.flows[at];
            let (taken, behind) = take(&mut self.link, id, &mut flow.unread)?;
            drawn |= taken > 0;
            match behind {
                Behind::More => {
                    if flow.begun || flow.unread.as_ref().is_some_and(|unread| unread.len() >= limits::HTTP3_READ_BYTES)
                    {
                        return Ok(true);
                    }
                }
                Behind::End => {
                    flow.ended = true;
                    return Ok(true);
                }
                Behind::Nothing => return Ok(drawn),
                Behind::Reset(code) => {
                    let said = self.machine.peer_reset(clock(now), name(id), ErrorCode(code), &mut self.out)?;
                    self.take_reset(at, said);
                    return Ok(false);
                }
            }
        }
    }

    /// Understands what is unread of a flow.
    fn understand(&mut self, at: usize, now: Now) -> Result<Option<Malformed>, Fault> {
        loop {
            let flow = &mut self.flows[at];
            let bytes = flow.unread.as_ref().map_or(&[][..], Buf::bytes);
            let (machine, out, id, ended) = (&mut self.machine, &mut self.out, flow.id, flow.ended);
            let said = R::with_shelf(|shelf| {
                let step = R::read_h3(machine, clock(now), name(id), bytes, ended, shelf.space(), out)?;
                let kept = match &step.said {
                    Said::Stream(_, event) => Kept::of(event, shelf.space()),
                    _ => Kept::Nothing,
                };
                Ok::<_, Fault>((step.skipped, step.said, kept))
            });
            let (skipped, said, kept) = said?;
            pass(&mut self.flows[at].unread, skipped);
            match said {
                Said::Pause => return Ok(None),
                Said::Blocked => {
                    self.flows[at].blocked = true;
                    return Ok(None);
                }
                Said::Stream(_, event) => self.take_event(at, event, kept),
                Said::Refused { why, answerable, .. } => {
                    if !answerable {
                        self.flows[at].mail.reset = Some(why);
                    }
                    return Ok(Some(why));
                }
                other => self.heed(other),
            }
        }
    }

    fn take_event(&mut self, at: usize, event: Event<R::Head>, kept: Kept) {
        if let Some(trace) = self.link.trace() {
            let frame = match (&event, &kept) {
                (Event::Head(_), _) | (Event::End { .. }, Kept::Trailers(_)) => Some(Frame::Headers),
                (Event::Data { payload, .. }, _) => Some(Frame::Data(*payload)),
                _ => None,
            };
            if let Some(frame) = frame {
                trace.parsed(ring::now(), self.flows[at].id.into(), frame);
            }
        }
        let flow = &mut self.flows[at];
        match (event, kept) {
            (Event::Head(head), Kept::Head(text, index)) => flow.mail.inbox.push_back(Inbound::Head(head, text, index)),
            (Event::Data { payload, consumed }, _) => {
                let data = cut(&mut flow.unread, payload, consumed);
                flow.mail.take_in(data);
            }
            (Event::End { consumed, .. }, kept) => {
                pass(&mut flow.unread, consumed);
                if let Kept::Trailers(trailers) = kept {
                    flow.mail.trailers = trailers;
                }
                flow.mail.inbox.push_back(Inbound::End);
            }
            (Event::Reset(why), _) => self.break_off(at, why),
            (Event::Head(_) | Event::Tunnel | Event::Pause, _) => {}
        }
        self.flows[at].mail.wake();
    }

    /// The peer has given up a stream, or said that it wants no more of it.
    pub(super) fn take_reset(&mut self, at: usize, said: Option<Said<R::Head>>) {
        match said {
            Some(Said::Stream(_, Event::Reset(why))) => self.break_off(at, why),
            // Nobody was told of it yet, or what is said goes on.
            _ if !self.flows[at].begun => self.flows[at].mail.reset = Some(Malformed::Stalled),
            _ => {}
        }
    }

    /// What the machine tells of the connection as a whole.
    fn heed(&mut self, said: Said<R::Head>) {
        match said {
            Said::Prioritised(id) => self.prioritise(id),
            Said::Settings => {
                if let Some(trace) = self.link.trace() {
                    trace.settings(ring::now(), self.machine.peer_settings());
                }
            }
            // Of a request that a peer which leaves has not looked at.
            Said::Stream(id, Event::Reset(why)) => {
                if let Some(at) = self.find(stream(id.0)) {
                    self.break_off(at, why);
                }
            }
            Said::Unblocked(id) => {
                if let Some(at) = self.find(stream(id.0)) {
                    self.flows[at].blocked = false;
                    // Of a head nobody knows yet who could be woken.
                    if self.flows[at].begun {
                        self.flows[at].mail.wake();
                    } else {
                        self.unblocked.push(self.flows[at].id);
                    }
                }
            }
            _ => {}
        }
    }

    /// Lets QUIC send first what is more urgent (RFC 9218).
    pub(super) fn prioritise(&mut self, id: wire::StreamId) {
        if let Some(priority) = self.machine.priority(id) {
            self.link.set_importance(stream(id.0), 7 - i32::from(priority.urgency));
        }
    }

    /// Does to streams what the machine wants.
    pub(super) fn obey(&mut self) {
        let mut aborts = std::mem::take(&mut self.out.aborts);
        for abort in aborts.drain(..) {
            match abort {
                Abort::Reset { stream: id, code } => self.link.reset(stream(id.0), code.0),
                Abort::Stop { stream: id, code } => {
                    self.link.stop(stream(id.0), code.0);
                    self.one_way.retain(|one| one.id != stream(id.0));
                }
            }
        }
        self.out.aborts = aborts;
    }

    /// Reads a stream that goes in one direction.
    pub(super) fn listen(&mut self, id: StreamId, now: Now) -> Result<(), super::Ended> {
        let Some(at) = self.one_way.iter().position(|one| one.id == id) else { return Ok(()) };
        self.listen_to(at, now).map_err(|fault| self.broke(fault))
    }

    fn listen_to(&mut self, at: usize, now: Now) -> Result<(), Fault> {
        let id = self.one_way[at].id;
        loop {
            let one = &mut self.one_way[at];
            let bytes = one.unread.as_ref().map_or(&[][..], Buf::bytes);
            let ended = one.ended;
            let (machine, out) = (&mut self.machine, &mut self.out);
            let step =
                R::with_shelf(|shelf| R::read_h3(machine, clock(now), name(id), bytes, ended, shelf.space(), out))?;
            pass(&mut self.one_way[at].unread, step.skipped);
            if !self.out.aborts.is_empty() {
                self.obey();
                if self.one_way.get(at).is_none_or(|one| one.id != id) {
                    return Ok(());
                }
            }
            match step.said {
                Said::Pause if ended => {
                    self.one_way.remove(at);
                    return Ok(());
                }
                Said::Pause => {
                    let one = &mut self.one_way[at];
                    match take(&mut self.link, id, &mut one.unread)? {
                        (_, Behind::More) => {}
                        (_, Behind::End) => one.ended = true,
                        (0, Behind::Nothing) => return Ok(()),
                        (_, Behind::Nothing) => {}
                        (_, Behind::Reset(code)) => {
                            self.machine.peer_reset(clock(now), name(id), ErrorCode(code), &mut self.out)?;
                            self.one_way.remove(at);
                            return Ok(());
                        }
                    }
                }
                said => self.heed(said),
            }
        }
    }

    /// A stream is over before its time: what waits on it has nowhere to go.
    pub(super) fn break_off(&mut self, at: usize, why: Malformed) {
        let flow = &mut self.flows[at];
        flow.mail.reset.get_or_insert(why);
        self.outbox_bytes -= std::mem::take(&mut flow.mail.outbox_bytes);
        flow.mail.outbox.clear();
        flow.lent = None;
        flow.stuck = None;
        if flow.mail.detached {
            self.cut(at, ErrorCode::REQUEST_CANCELLED);
        } else {
            flow.mail.wake();
        }
    }

    /// Ends a stream in both directions with an error, whatever is still to be said.
    pub(super) fn cut(&mut self, at: usize, code: ErrorCode) {
        let Flow { id, mail, .. } = &self.flows[at];
        if mail.detached {
            // The machine has done with it: only QUIC still knows of what waited.
            self.link.reset(*id, code.0);
        } else {
            self.machine.reset(name(*id), code, &mut self.out);
        }
        self.forget(at);
    }

    /// Nobody has the stream any more, and all was said: what waits is sent, and what comes is not wanted.
    pub(super) fn part_with(&mut self, at: usize) {
        // The request need not be complete for its answer to be (RFC 9114 §4.1).
        self.machine.reset(name(self.flows[at].id), ErrorCode::NO_ERROR, &mut self.out);
        if self.flows[at].waits() {
            self.flows[at].mail.detached = true;
        } else {
            self.forget(at);
        }
    }

    /// The machine says something on a stream, which is put behind what waits there.
    pub(super) fn say(
        &mut self,
        id: Option<StreamId>,
        say: impl FnOnce(&mut Connection<R>, wire::StreamId, &mut Out, &mut Vec<u8>) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        let at = id.and_then(|id| self.find(id)).ok_or(Refused::Gone)?;
        let mut said = std::mem::take(&mut self.said);
        said.clear();
        let outcome = say(&mut self.machine, name(self.flows[at].id), &mut self.out, &mut said);
        if outcome.is_ok() {
            self.note_created(at, Frame::Headers);
            self.put(at, &said);
            if !self.machine.is_writable(name(self.flows[at].id)) {
                self.all_said(at);
            }
            self.nudge();
        }
        self.said = said;
        outcome
    }

    /// The message is complete, with these trailers.
    pub(super) fn finish(&mut self, at: usize, trailers: &Trailers) -> Result<(), Refused> {
        let id = self.flows[at].id;
        let mut said = std::mem::take(&mut self.said);
        said.clear();
        let outcome = self.machine.finish(name(id), trailers, &mut said, &mut self.out);
        if outcome.is_ok() {
            if !said.is_empty() {
                self.note_created(at, Frame::Headers);
            }
            if self.flows[at].owed > 0 {
                self.flows[at].tail = Some(Buf::copy_of(&said));
            } else {
                self.put(at, &said);
                self.all_said(at);
            }
        }
        self.said = said;
        outcome
    }

    fn all_said(&mut self, at: usize) {
        let flow = &mut self.flows[at];
        if !std::mem::replace(&mut flow.mail.finished, true) && !flow.waits() {
            self.link.finish(flow.id);
        }
    }

    /// Puts bytes behind what waits.
    pub(super) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.spoken = true;
        let flow = &self.flows[at];
        let written = if flow.waits() { 0 } else { self.link.write(flow.id, bytes).unwrap_or(0) };
        if written < bytes.len() {
            self.put_buf(at, Buf::copy_of(&bytes[written..]));
        }
    }

    fn note_created(&self, at: usize, frame: Frame) {
        if let Some(trace) = self.link.trace() {
            trace.created(ring::now(), self.flows[at].id.into(), frame);
        }
    }

    /// Puts content, which has been counted, as a frame.
    pub(super) fn put_content(&mut self, at: usize, mut content: Buf) {
        debug_assert!(content.len() <= self.flows[at].owed, "content that was not counted");
        self.note_created(at, Frame::Data(content.len()));
        self.flows[at].owed = self.flows[at].owed.saturating_sub(content.len());
        let mut head = std::mem::take(&mut self.said);
        head.clear();
        frame::put_integer(frame::Kind::Data.number(), &mut head);
        frame::put_integer(content.len() as u64, &mut head);
        if !content.prepend(&head) {
            self.put(at, &head);
        }
        self.said = head;
        self.put_buf(at, content);
        let flow = &mut self.flows[at];
        if flow.owed == 0
            && let Some(tail) = flow.tail.take()
        {
            self.put(at, tail.bytes());
            self.all_said(at);
        }
    }

    /// As [`put`](Self::put), with memory of its own.
    pub(super) fn put_buf(&mut self, at: usize, buf: Buf) {
        let mail = &mut self.flows[at].mail;
        mail.outbox_bytes += buf.len();
        self.outbox_bytes += buf.len();
        mail.outbox.push_back(buf);
        self.write(at);
    }

    /// Gives to QUIC what waits in a flow, as far as it is taken.
    pub(super) fn write(&mut self, at: usize) {
        self.spoken = true;
        let flow = &mut self.flows[at];
        let before = flow.mail.outbox_bytes;
        let mut refused = false;
        while flow.waits() {
            match flow.give(&mut self.link) {
                Ok(given) => {
                    flow.mail.outbox_bytes -= given;
                    self.outbox_bytes -= given;
                }
                Err(WriteError::Blocked) => break,
                Err(_) => {
                    refused = true;
                    break;
                }
            }
        }
        let waits = flow.waits();
        if !waits || flow.mail.outbox_bytes < before {
            flow.stuck = waits.then(ring::now);
            self.stuck_first = self.stuck_first.or(flow.stuck);
        }
        if refused {
            return self.break_off(at, Malformed::Cancelled(ErrorCode::REQUEST_CANCELLED.in_http2()));
        }
        if waits {
            return;
        }
        if flow.mail.finished {
            self.link.finish(flow.id);
        }
        if flow.mail.detached {
            self.forget(at);
        } else {
            flow.mail.wake();
        }
    }
}
