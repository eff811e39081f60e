//! The one pump: content in both directions at once, with heads, interim responses, resets and upgrades between.
//!
//! [`Half`] moves one direction: it asks its sink for credit, then its source for a piece, and passes the piece on as it
//! came, in the same memory. [`Relay`] is two halves and the response's head between them, polled in one await. A tunnel
//! is the same two halves over bare streams (`tunnel.rs`).
//!
//! What holds here:
//! * No credit, no receive: a source is not read while its sink has more than [`limits::UNSENT_BYTES_MAX`] unsent.
//! * Nothing of a peer's framing survives: content is decoded, and framed anew by us.
//! * A response whose length is known and small leaves in one piece, whatever pieces it came in.
//! * Until the response's head has gone downstream the request can still be answered differently; after that, only cut.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use policy::{Class, StatusClass};
use proto::h1::{Client, Connection, Eof, ResponseHead, Role, Server, Trailers};
use proto::http::{Framing, Method, Status, Version};
use ring::{Buf, Now, Stream, Timer};

use super::{Door, Peer, Reason, Request, Settled, headers};
use crate::conn::{Broken, Conn, Read, Reads};
use crate::limits;
use crate::snapshot::Route;
use crate::upstream::Lease;

/// How a try at an endpoint went.
pub(super) enum Relayed {
    /// The client got an answer, or all of it that was to be had.
    Done(Class),
    /// Both sides agreed to leave HTTP: 101 has been sent.
    Upgraded,
    /// Nothing has gone downstream: another try is possible, if the request allows it.
    Unanswered(Class),
}

/// Sends the request to the lease's endpoint and its answer to the client.
#[allow(clippy::too_many_arguments, reason = "the straight line's whole state meets here once")]
pub(super) async fn run(
    door: &Door,
    down: &mut Conn<Server>,
    request: &Request,
    peer: &Peer,
    route: &Route,
    lease: &mut Lease,
    timer: &mut Timer,
    settled: &mut Settled,
) -> Relayed {
    let endpoint = lease.endpoint;
    let up = &mut lease.conn;
    let name = &door.cluster(route.pool).endpoint(endpoint).name;
    let Some(head) = headers::request_head(door, request, peer, route, name) else {
        return Relayed::Unanswered(Class::Shed);
    };
    let framing = request.head.framing;
    let upgrade = !request.head.upgrade.is_empty();
    if up.machine.head_written(request.head.method, framing, true, upgrade).is_err() {
        return Relayed::Unanswered(Class::Shed);
    }
    if let Framing::Length(length) = framing {
        down.expect(length.saturating_sub(down.unread().len() as u64));
    }
    timer.set(ring::now() + route.timeouts.head);
    let mut relay = Relay {
        door,
        request,
        route,
        down,
        up,
        timer,
        upload: Half::new(Some(head)),
        download: Half::new(None),
        phase: Phase::Head,
        status: 0,
        whole: None,
        moved: ring::now(),
    };
    relay.begin_upload();
    let relayed = poll_fn(|cx| relay.poll(cx)).await;
    settled.status = relay.status;
    settled.bytes = relay.download.bytes;
    door.cells.counters.bytes_in_total.add(relay.upload.bytes);
    if let Relayed::Done(class) = &relayed {
        settled.reason = reason_of(door, *class);
    }
    relayed
}

fn reason_of(door: &Door, class: Class) -> Option<Reason> {
    match class {
        Class::Truncated => {
            door.cells.counters.responses_broken_total.add(1);
            Some(Reason::UpstreamTruncated)
        }
        Class::Abandoned => {
            door.cells.counters.requests_abandoned_total.add(1);
            Some(Reason::ClientGone)
        }
        _ => None,
    }
}

struct Relay<'a> {
    door: &'a Door,
    request: &'a Request,
    route: &'a Route,
    down: &'a mut Conn<Server>,
    up: &'a mut Conn<Client>,
    timer: &'a mut Timer,
    upload: Half,
    download: Half,
    phase: Phase,
    /// Of the final response, once its head was read.
    status: u16,
    /// Until when a small response waits for its rest.
    whole: Option<Now>,
    /// When content last moved.
    moved: Now,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Phase {
    /// No final response head yet.
    Head,
    /// The response's content is on its way.
    Content,
}

impl Relay<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Relayed> {
        let before = self.upload.bytes + self.download.bytes;
        self.poll_upload(cx);
        if self.phase == Phase::Head
            && let Poll::Ready(relayed) = self.poll_head(cx)
        {
            return Poll::Ready(relayed);
        }
        if self.phase == Phase::Content
            && let Poll::Ready(relayed) = self.poll_content(cx)
        {
            return Poll::Ready(relayed);
        }
        if self.upload.bytes + self.download.bytes != before {
            self.moved = ring::now();
        }
        if self.down.stream.poll_broken(cx).is_ready() {
            return Poll::Ready(self.client_left());
        }
        self.poll_deadline(cx)
    }

    /// A request without content, or one that is tried again, is all there: its head and end leave at once.
    fn begin_upload(&mut self) {
        if !self.down.machine.is_body_read() {
            return;
        }
        self.down.settle(&mut self.door.desk.response_fields.borrow_mut());
        let sent = self.upload.pass(Piece { last: true, ..Piece::default() }, &mut Out { conn: self.up });
        self.upload.state = if sent.is_ok() { Going::Done } else { Going::Stopped };
    }

    /// Moves the request. What goes wrong here is told by the response, or by its absence.
    fn poll_upload(&mut self, cx: &mut Context<'_>) {
        if self.upload.state != Going::On {
            return;
        }
        let ended = self.upload.poll(&mut Body { conn: self.down, door: self.door }, &mut Out { conn: self.up }, cx);
        match ended {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => self.upload.state = Going::Done,
            Poll::Ready(Err(Cut::Source(broken))) => {
                self.upload.state = Going::Broken(broken);
                self.up.machine.abort_written();
            }
            // The endpoint does not read on. It may have answered already; if not, its silence is the answer.
            Poll::Ready(Err(Cut::Sink)) => self.upload.state = Going::Stopped,
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Relayed> {
        if let Going::Broken(malformed) = self.upload.state {
            return Poll::Ready(self.request_broke(malformed));
        }
        loop {
            let read = {
                let mut fields = self.door.desk.response_fields.borrow_mut();
                self.up.poll_read(cx, &mut fields)
            };
            return match read {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(Read::Head(head))) if head.status.is_interim() => {
                    self.interim(&head);
                    continue;
                }
                Poll::Ready(Ok(Read::Head(head))) => self.begin_response(&head),
                Poll::Ready(Ok(Read::Closed(Eof::Truncated))) => Poll::Ready(Relayed::Unanswered(Class::Malformed)),
                Poll::Ready(Ok(_)) => Poll::Ready(Relayed::Unanswered(Class::Reset)),
                Poll::Ready(Err(Broken::Io(_))) => Poll::Ready(Relayed::Unanswered(Class::Reset)),
                Poll::Ready(Err(Broken::Malformed(_))) => Poll::Ready(Relayed::Unanswered(Class::Malformed)),
            };
        }
    }

    /// Passes 100, 103 and their like on to a client that knows them.
    fn interim(&mut self, head: &ResponseHead) {
        let length = head.length as usize;
        if self.request.head.version == Version::Http11 {
            let fields = self.door.desk.response_fields.borrow();
            let mut out = self.door.desk.head.borrow_mut();
            out.clear();
            if proto::h1::write_interim(&self.up.unread()[..length], head, &fields, &mut *out).is_ok() {
                self.down.machine.interim_written(head.status);
                self.down.stream.send(Buf::copy_of(&out));
            }
        }
        self.up.skip(length);
        self.timer.set(ring::now() + self.route.timeouts.head);
    }

    /// A final response's head: composes ours, and decides how its content will leave.
    fn begin_response(&mut self, head: &ResponseHead) -> Poll<Relayed> {
        let framing = head.framing.towards(self.request.head.version);
        let upgrading = head.status == Status::SWITCHING_PROTOCOLS;
        let unread_request = self.upload.state != Going::Done;
        if self.door.desk.draining.get() {
            self.down.machine.close_after();
        }
        let persistent = self.down.machine.is_persistent() && framing != Framing::UntilClose && !unread_request;
        let length = head.length as usize;
        let composed = {
            let mut fields = self.door.desk.response_fields.borrow_mut();
            let bytes = &self.up.unread()[..length];
            headers::response_head(self.door, self.request, head, bytes, &mut fields, framing, persistent)
        };
        if !composed {
            return Poll::Ready(Relayed::Unanswered(Class::Malformed));
        }
        self.up.skip(length);
        if self.down.machine.head_written(head.status, framing, persistent).is_err() {
            return Poll::Ready(Relayed::Unanswered(Class::Malformed));
        }
        self.status = head.status.code();
        if upgrading || self.request.head.method == Method::Connect && head.status.is_success() {
            self.down.stream.send(Buf::copy_of(&self.door.desk.head.borrow()));
            return Poll::Ready(Relayed::Upgraded);
        }
        self.phase = Phase::Content;
        self.begin_content(head.framing);
        Poll::Pending
    }

    /// The composed head leads the first piece of content; a small response of known length waits for all of it.
    fn begin_content(&mut self, framing: Framing) {
        let composed = self.door.desk.head.borrow();
        self.download.lead = None;
        let here = self.up.unread().len() as u64;
        if let Framing::Length(length) = framing {
            self.up.expect(length.saturating_sub(here));
            if length > here && length <= limits::WHOLE_RESPONSE_BYTES_MAX {
                self.whole = Some(ring::now() + limits::WHOLE_RESPONSE_WAIT);
                let mut whole = Buf::with_room(composed.len() + length as usize);
                whole.extend(&composed);
                self.download.hold = Some(whole);
                return;
            }
        } else if framing != Framing::None {
            self.up.expect(limits::BULK_FROM);
        }
        self.download.lead = Some(Buf::copy_of(&composed));
    }

    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Relayed> {
        let mut source = Body { conn: self.up, door: self.door };
        match self.download.poll(&mut source, &mut Out { conn: self.down }, cx) {
            Poll::Pending => {
                if self.whole.is_none() {
                    // A head must not wait for content that takes its time.
                    self.download.release_lead(&mut Out { conn: self.down });
                }
                Poll::Pending
            }
            Poll::Ready(Ok(())) => {
                self.download.state = Going::Done;
                self.up.settle(&mut self.door.desk.response_fields.borrow_mut());
                if self.upload.state != Going::Done {
                    // Answered before it was asked in full (RFC 9112 §9.3): neither side can go on from here.
                    self.down.machine.close_after();
                }
                Poll::Ready(Relayed::Done(Class::Answered(StatusClass::of(self.status))))
            }
            Poll::Ready(Err(Cut::Source(_))) => {
                self.cut_response();
                Poll::Ready(Relayed::Done(Class::Truncated))
            }
            Poll::Ready(Err(Cut::Sink)) => Poll::Ready(self.client_left()),
        }
    }

    /// The response will not be whole: what came is sent, and then the connection is cut, so that the client notices.
    fn cut_response(&mut self) {
        self.download.release(&mut Out { conn: self.down });
        self.down.machine.abort_written();
    }

    fn client_left(&mut self) -> Relayed {
        self.down.machine.abort_written();
        if self.phase == Phase::Head {
            self.status = 0;
        }
        Relayed::Done(Class::Abandoned)
    }

    /// The client broke its request off, or broke HTTP within its content.
    fn request_broke(&mut self, malformed: Option<proto::Malformed>) -> Relayed {
        if let Some(malformed) = malformed {
            self.door.cells.counters.requests_malformed_total.add(1);
            let reason = Reason::ClientMalformed(malformed);
            self.status = super::respond::answer(self.door, self.down, self.request, reason);
            self.down.machine.close_after();
        } else {
            return self.client_left();
        }
        Relayed::Done(Class::Abandoned)
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Relayed> {
        let idle = self.idle_limit();
        let mut at = match self.phase {
            // Content still going up moves the moment from which the answer is awaited.
            Phase::Head => self.timer.at().unwrap_or_default().max(self.moved + self.route.timeouts.head),
            Phase::Content => self.moved + idle,
        };
        if self.phase == Phase::Head && self.upload.state == Going::On {
            at = at.min(self.moved + idle);
        }
        if let Some(whole) = self.whole {
            if whole <= ring::now() {
                self.whole = None;
                self.download.release(&mut Out { conn: self.down });
            } else {
                at = at.min(whole);
            }
        }
        self.timer.set(at);
        if !self.timer.poll_expired() {
            return Poll::Pending;
        }
        if self.whole.is_some() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(self.timed_out())
    }

    /// How long content may stand still: the stricter of the two sides'.
    fn idle_limit(&self) -> Duration {
        self.door.listener().body_timeout.min(self.route.timeouts.idle)
    }

    fn timed_out(&mut self) -> Relayed {
        match self.phase {
            Phase::Content if self.down.stream.unsent() > 0 => self.client_left(),
            Phase::Content => {
                self.cut_response();
                Relayed::Done(Class::Truncated)
            }
            Phase::Head if self.upload.state == Going::On && self.up.stream.unsent() == 0 => {
                // The client stopped sending.
                self.status = super::respond::answer(self.door, self.down, self.request, Reason::ClientTimedOut);
                self.down.machine.close_after();
                Relayed::Done(Class::Abandoned)
            }
            Phase::Head => Relayed::Unanswered(Class::TimedOut),
        }
    }
}

/// One direction.
pub(super) struct Half {
    /// Goes before the first piece, in the same send if it can.
    lead: Option<Buf>,
    /// Collects all pieces until the last.
    hold: Option<Buf>,
    state: Going,
    /// Content bytes passed on.
    pub(super) bytes: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Going {
    On,
    Done,
    /// The sink takes no more.
    Stopped,
    /// The source broke off, with these malformed bytes if that was it.
    Broken(Option<proto::Malformed>),
}

/// Which side ended a direction before its time.
pub(super) enum Cut {
    /// With its malformed bytes, if that was it.
    Source(Option<proto::Malformed>),
    Sink,
}

/// Where content comes from.
pub(super) trait Source {
    /// The next piece, and whether it is known to be the last; an empty last piece is the end by itself.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Cut>>;
}

#[derive(Default)]
pub(super) struct Piece {
    pub(super) data: Option<Buf>,
    pub(super) last: bool,
    /// What follows the last piece; nearly always nothing.
    pub(super) trailers: Trailers,
}

/// Where content goes.
pub(super) trait Sink {
    /// Ready when it may take another piece.
    fn poll_credit(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>>;
    /// Frames a piece in place.
    fn frame(&mut self, data: &mut Buf) -> Result<(), Cut>;
    /// What ends the message; with trailers it is composed into `long`.
    fn end(&mut self, trailers: &Trailers, long: &mut Vec<u8>) -> Result<&'static [u8], Cut>;
    fn send(&mut self, buf: Buf);
}

impl Half {
    pub(super) fn new(lead: Option<Buf>) -> Self {
        Self { lead, hold: None, state: Going::On, bytes: 0 }
    }

    /// Moves what can be moved. Ready at the end of the message, or when one side is cut.
    pub(super) fn poll(
        &mut self,
        source: &mut impl Source,
        sink: &mut impl Sink,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Cut>> {
        loop {
            match sink.poll_credit(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(cut)) => return Poll::Ready(Err(cut)),
                Poll::Ready(Ok(())) => {}
            }
            let piece = match source.poll_piece(cx) {
                Poll::Pending => {
                    if self.hold.is_none() {
                        self.release_lead(sink);
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Err(cut)) => return Poll::Ready(Err(cut)),
                Poll::Ready(Ok(piece)) => piece,
            };
            let last = piece.last;
            if let Err(cut) = self.pass(piece, sink) {
                return Poll::Ready(Err(cut));
            }
            if last {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Passes one piece on, with what leads it and, if it is the last, what ends the message.
    fn pass(&mut self, piece: Piece, sink: &mut impl Sink) -> Result<(), Cut> {
        let last = piece.last;
        let mut out = match piece.data {
            Some(mut data) => {
                self.bytes += data.len() as u64;
                sink.frame(&mut data)?;
                self.join_lead(data, sink)
            }
            None => self.lead.take(),
        };
        if last {
            // An empty vector owns no memory; only trailers give it some.
            let mut long = Vec::new();
            let short = sink.end(&piece.trailers, &mut long)?;
            let end = if long.is_empty() { short } else { &long };
            if !end.is_empty() {
                out = Some(append(out, end, sink));
            }
        }
        let Some(out) = out else {
            if last {
                self.release(sink);
            }
            return Ok(());
        };
        let Some(mut whole) = self.hold.take() else {
            sink.send(out);
            return Ok(());
        };
        if whole.room() < out.len() {
            sink.send(whole);
            sink.send(out);
        } else {
            whole.extend(out.bytes());
            if last { sink.send(whole) } else { self.hold = Some(whole) }
        }
        Ok(())
    }

    /// Lays what leads directly before `data`, if there is room; else it is sent on its own, in the same turn.
    fn join_lead(&mut self, mut data: Buf, sink: &mut impl Sink) -> Option<Buf> {
        if let Some(lead) = self.lead.take()
            && !data.prepend(lead.bytes())
        {
            sink.send(lead);
        }
        Some(data)
    }

    /// Sends what leads by itself: its content takes its time.
    fn release_lead(&mut self, sink: &mut impl Sink) {
        if let Some(lead) = self.lead.take() {
            sink.send(lead);
        }
    }

    /// Sends everything that has been kept back.
    fn release(&mut self, sink: &mut impl Sink) {
        self.release_lead(sink);
        if let Some(hold) = self.hold.take() {
            sink.send(hold);
        }
    }
}

fn append(out: Option<Buf>, end: &[u8], sink: &mut impl Sink) -> Buf {
    let Some(mut out) = out else { return Buf::copy_of(end) };
    if out.room() >= end.len() {
        out.extend(end);
        return out;
    }
    sink.send(out);
    Buf::copy_of(end)
}

/// The content of the message that a connection is reading.
struct Body<'a, R: Role> {
    conn: &'a mut Conn<R>,
    door: &'a Door,
}

impl<R: Role> Source for Body<'_, R>
where
    Connection<R>: Reads,
{
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Cut>> {
        // Heads are never read here, so this touches no fields: the desk's are lent for form's sake.
        let mut fields = self.door.desk.response_fields.borrow_mut();
        let read = match self.conn.poll_read(cx, &mut fields) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(read) => read,
        };
        Poll::Ready(match read {
            Ok(Read::Data(data)) => {
                let last = self.conn.machine.is_body_read();
                if last {
                    // The end is known already; reading it settles the machine.
                    let _ = self.conn.poll_read(cx, &mut fields);
                }
                let trailers = if last { self.conn.machine.take_trailers() } else { Trailers::default() };
                Ok(Piece { data: Some(data), last, trailers })
            }
            Ok(Read::End) => Ok(Piece { data: None, last: true, trailers: self.conn.machine.take_trailers() }),
            Ok(Read::Head(_) | Read::Tunnel | Read::Closed(_)) | Err(Broken::Io(_)) => Err(Cut::Source(None)),
            Err(Broken::Malformed(malformed)) => Err(Cut::Source(Some(malformed))),
        })
    }
}

/// The message that a connection is writing.
struct Out<'a, R: Role> {
    conn: &'a mut Conn<R>,
}

impl<R: Role> Sink for Out<'_, R> {
    fn poll_credit(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        poll_unsent(&mut self.conn.stream, cx)
    }

    fn frame(&mut self, data: &mut Buf) -> Result<(), Cut> {
        let frame = self.conn.machine.body_written(data.len()).map_err(|_| Cut::Sink)?;
        let prefix: &[u8] = &frame.prefix;
        if prefix.is_empty() {
            return Ok(());
        }
        let fits = data.headroom() >= prefix.len() && data.room() >= frame.suffix.len();
        if !fits {
            let mut moved = Buf::with_room(data.len() + frame.suffix.len());
            moved.extend(data.bytes());
            *data = moved;
        }
        data.prepend(prefix);
        data.extend(frame.suffix);
        Ok(())
    }

    fn end(&mut self, trailers: &Trailers, long: &mut Vec<u8>) -> Result<&'static [u8], Cut> {
        if trailers.is_empty() {
            return self.conn.machine.end_written().map_err(|_| Cut::Sink);
        }
        self.conn.machine.end_written_with(trailers, long).map_err(|_| Cut::Sink)?;
        Ok(b"")
    }

    fn send(&mut self, buf: Buf) {
        self.conn.stream.send(buf);
    }
}

/// Credit of a stream: little enough is on its way.
pub(super) fn poll_unsent(stream: &mut Stream, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
    stream.poll_sent(cx, limits::UNSENT_BYTES_MAX).map_err(|_| Cut::Sink)
}
