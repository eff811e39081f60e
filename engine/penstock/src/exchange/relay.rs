//! The one pump: content in both directions at once, with heads, interim responses, resets and upgrades between.
//!
//! [`Half`] moves one direction (`half.rs`). [`Relay`] is two halves and the response's head between them, polled in one await. A tunnel
//! is the same two halves over bare streams (`tunnel.rs`).
//!
//! What holds here:
//! * No credit, no receive: a source is not read while its sink has more than [`limits::UNSENT_BYTES_MAX`] unsent.
//! * Nothing of a peer's framing survives: content is decoded, and framed anew by us.
//! * A response whose length is known and small leaves in one piece, whatever pieces it came in.
//! * Until the response's head has gone downstream the request can still be answered differently; after that, only cut.

mod call;
mod deadline;
mod hold;

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use policy::{Class, Outcome, StatusClass};
use proto::Malformed;
use proto::h1::{Client, Eof, ResponseHead, Server};
use proto::http::{Framing, Known, Method, Status, Version};
use ring::{Buf, Now, Timer};

use super::admit::Paced;
use super::bridge::Bridge;
use super::half::{Body, Cut, Going, Half, Out, Piece};
use super::hedge::{Ahead, Hedge};
use super::held::discard;
use super::replay::Repeatable;
use super::route::Way;
use super::tries::{Attempt, Tries};
use super::upgrade::{self, Agreed};
use super::{Door, Peer, Reason, Request, Settled, grpc, headers, mirror};
use crate::conn::{Broken, Lane, Read};
use crate::limits;
use crate::qos::Direction;
use crate::snapshot::PoolProtocol;
use crate::upstream::Lease;

/// How a try at an endpoint went.
pub(super) enum Relayed {
    /// The client got an answer, or all of it that was to be had.
    Done(Class),
    /// Both sides agreed to leave HTTP, for this: 101 has been sent.
    Upgraded(Agreed),
    /// Nothing has gone downstream: another try is possible, if the request allows it.
    Unanswered(Class),
    /// It was let go, for another try that has been granted already. What it has answered, if anything, is to be held.
    GivenUp(Outcome),
}

/// How one copy of the request went. An error: it is recorded, and the other copy's answer has begun.
type Copied = Result<Relayed, Box<Ahead>>;

/// What stays the same over all tries of a request.
#[derive(Clone, Copy)]
pub(super) struct Exchange<'a> {
    pub(super) door: &'a Door,
    pub(super) request: &'a Request,
    pub(super) peer: &'a Peer,
    pub(super) way: Way<'a>,
    pub(super) paced: Option<&'a Paced<'a>>,
}

/// Sends the request to the lease's endpoint and its answer to the client; or that of another endpoint, whose lease it is then, if
/// a second copy is answered first.
pub(super) async fn run(
    exchange: &Exchange<'_>,
    down: &mut Lane<'_, Server>,
    lease: &mut Lease,
    tries: &mut Tries<'_>,
    attempt: &mut Attempt,
    timer: &mut Timer,
    settled: &mut Settled,
) -> Relayed {
    loop {
        match copy(exchange, down, lease, tries, attempt, timer, settled).await {
            Ok(relayed) => return relayed,
            Err(ahead) => {
                settled.tried(&ahead.attempt.endpoint);
                (*lease, *attempt) = (ahead.lease, ahead.attempt);
            }
        }
    }
}

async fn copy(
    exchange: &Exchange<'_>,
    down: &mut Lane<'_, Server>,
    lease: &mut Lease,
    tries: &mut Tries<'_>,
    attempt: &mut Attempt,
    timer: &mut Timer,
    settled: &mut Settled,
) -> Copied {
    let Exchange { door, request, way, paced, .. } = *exchange;
    // A second copy has left already: its answer has begun.
    let sent = attempt.is_sent();
    // So has its answer, which was held back.
    let held = attempt.answer.take();
    let mut lead = None;
    if !sent && held.is_none() {
        let Some(written) = write_head(*exchange, lease) else { return Ok(Relayed::Unanswered(Class::Shed)) };
        lead = written;
        tries.sends();
    }
    let up = lease.lane();
    if let Framing::Length(length) = request.head.framing
        && !down.is_body_read()
    {
        let rest = length.saturating_sub(down.here() as u64);
        down.expect(rest);
        paced.inspect(|paced| paced.curb(down, rest));
    }
    let mut relay = Relay {
        exchange: *exchange,
        down,
        up,
        tries,
        attempt,
        timer,
        upload: Half::new(lead, paced.map(|paced| paced.pacing(Direction::Up))),
        download: Half::new(None, paced.map(|paced| paced.pacing(Direction::Down))),
        phase: Phase::Head,
        status: 0,
        meaning: 0,
        grpc_status: None,
        whole: None,
        moved: ring::now(),
        uploaded: (ring::now(), 0),
        head_by: ring::now() + way.timeouts.head,
        impatient_at: None,
        hedge: Hedge::Off,
        lost: None,
        refused: None,
        settled,
    };
    relay.upload.bridge = way.web.and_then(Bridge::of_request);
    if !relay.settled.mirrored {
        relay.settled.mirrored = true;
        relay.upload.copy = mirror::begin(door, request, &way.matched);
    }
    if let Some(answer) = held {
        if let Poll::Ready(relayed) = relay.pass_on(&answer) {
            return Ok(relayed);
        }
    } else if sent {
        relay.upload.state = Going::Done;
    } else {
        relay.begin_upload();
    }
    let relayed = poll_fn(|cx| relay.poll(cx)).await;
    if let Ok(Relayed::Done(class)) = &relayed {
        relay.settled.reason = relay.refused.or_else(|| reason_of(door, *class));
    }
    relayed
}

impl Drop for Relay<'_, '_, '_> {
    fn drop(&mut self) {
        self.settled.status = self.status;
        self.settled.grpc_status = self.download.grpc_status.or(self.grpc_status);
        self.settled.bytes = self.download.bytes;
        self.exchange.door.cells.counters.bytes_in_total.add(self.upload.bytes);
    }
}

/// Writes the request's head, and returns what of it is to be sent before content; `None` when it cannot be written.
pub(super) fn write_head(exchange: Exchange<'_>, lease: &mut Lease) -> Option<Option<Buf>> {
    let Exchange { door, request, peer, way, .. } = exchange;
    let endpoint = Rc::clone(&lease.endpoint);
    headers::request_head(door, request, peer, &way, &endpoint.authority, None, |composed| lease.ask(composed).ok())
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

struct Relay<'a, 'b, 'd> {
    exchange: Exchange<'a>,
    down: &'a mut Lane<'d, Server>,
    up: Lane<'a, Client>,
    tries: &'a mut Tries<'b>,
    attempt: &'a mut Attempt,
    timer: &'a mut Timer,
    upload: Half<'a>,
    download: Half<'a>,
    phase: Phase,
    /// Of the final response, once its head was read.
    status: u16,
    /// What that stands for.
    meaning: u16,
    /// How a call ended, where the head says so.
    grpc_status: Option<u8>,
    /// Until when a small response waits for its rest.
    whole: Option<Now>,
    /// When content last moved.
    moved: Now,
    /// From when on, and from how many bytes on, the client's rate counts.
    uploaded: (Now, u64),
    /// When the answer's head must be here.
    head_by: Now,
    /// When to ask whether the answer is still worth waiting for.
    impatient_at: Option<Now>,
    /// The request's second copy.
    hedge: Hedge<'a>,
    /// How this try ended, while the second copy may still be answered.
    lost: Option<Class>,
    /// Why we answered in the endpoint's stead.
    refused: Option<Reason>,
    /// What is told of it when it is over, or dropped.
    settled: &'a mut Settled,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Phase {
    /// No final response head yet.
    Head,
    /// The response's content is on its way.
    Content,
}

impl Relay<'_, '_, '_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Copied> {
        let before = self.upload.bytes + self.download.bytes;
        self.poll_upload(cx);
        if self.phase == Phase::Head
            && let Poll::Ready(copied) = self.poll_answer(cx)
        {
            return Poll::Ready(copied);
        }
        if self.phase == Phase::Content
            && let Poll::Ready(relayed) = self.poll_content(cx)
        {
            return Poll::Ready(Ok(relayed));
        }
        if self.upload.bytes + self.download.bytes != before || self.turn().is_some() {
            self.moved = ring::now();
        }
        if self.down.poll_broken(cx).is_ready() {
            return Poll::Ready(Ok(self.client_left()));
        }
        let relayed = ready!(self.poll_deadline(cx));
        // Whoever has waited in vain takes what there is.
        if let Relayed::Unanswered(class) | Relayed::GivenUp(Outcome { class, .. }) = &relayed
            && let Some(ahead) = self.hedge.take_answered()
        {
            self.tries.overtaken(self.attempt, *class);
            return Poll::Ready(Err(ahead));
        }
        Poll::Ready(Ok(relayed))
    }

    /// A request without content, or one that is tried again, is all there: its head and end leave at once.
    fn begin_upload(&mut self) {
        // What comes behind such a head is the tunnel's, also where it looks like content.
        if upgrade::leaves_as_content(self.exchange.request) {
            return self.end_upload();
        }
        if !self.down.is_body_read() || self.tries.kept().is_some() {
            return;
        }
        self.down.settle(&mut self.exchange.door.desk.response_fields.borrow_mut());
        self.end_upload();
    }

    /// Nothing of the request follows its head.
    fn end_upload(&mut self) {
        // Over HTTP/2 a tunnel is the content of what asks for it: its end would be the tunnel's.
        let goes_on = !matches!(self.up, Lane::H1(_)) && upgrade::leaves_http(self.exchange.request);
        let last = Piece { last: !goes_on, ..Piece::default() };
        let sent = self.upload.pass(last, &mut Out { lane: &mut self.up });
        self.upload.state = if sent.is_ok() { Going::Done } else { Going::Stopped };
        self.begin_waiting();
    }

    /// The whole request is on its way: from here on the endpoint's time runs.
    fn begin_waiting(&mut self) {
        self.mirror();
        self.attempt.sent();
        if self.phase == Phase::Content {
            // Answered before it was asked in full: there is nothing to wait for.
            return;
        }
        self.impatient_at = self.tries.impatience(self.attempt).or_else(|| self.tries.silence(self.attempt));
        if self.exchange.request.head.upgrade.is_empty() {
            self.hedge = self.tries.hedge_at(self.attempt).map_or(Hedge::Off, Hedge::At);
        }
    }

    /// The request has left in full: its copy may follow.
    fn mirror(&mut self) {
        let Exchange { door, request, peer, way, .. } = self.exchange;
        if let Some(copy) = self.upload.copy.take().filter(|_| self.upload.state == Going::Done) {
            copy.launch(door, request, peer, &way);
        }
    }

    /// Moves the request. What goes wrong here is told by the response, or by its absence.
    fn poll_upload(&mut self, cx: &mut Context<'_>) {
        if self.upload.state != Going::On {
            return;
        }
        let body = Body { lane: self.down, door: self.exchange.door };
        let mut sink = Out { lane: &mut self.up };
        let ended = match self.tries.kept() {
            Some(kept) => self.upload.poll(&mut Repeatable { body, kept }, &mut sink, cx),
            None => self.upload.poll(&mut { body }, &mut sink, cx),
        };
        match ended {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => {
                self.upload.state = Going::Done;
                self.begin_waiting();
            }
            Poll::Ready(Err(Cut::Source(broken))) => {
                self.upload.state = Going::Broken(broken);
                self.up.abort_written();
            }
            // The endpoint does not read on. It may have answered already; if not, its silence is the answer.
            Poll::Ready(Err(Cut::Sink)) => self.upload.state = Going::Stopped,
        }
        if self.upload.bytes > 0 {
            self.tries.content_moves();
        }
    }

    /// Awaits the head of an answer, from the second copy too where one is out.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Copied> {
        if self.lost.is_none()
            && let Poll::Ready(relayed) = self.poll_head(cx)
        {
            match relayed {
                Relayed::Unanswered(class) if self.hedge.is_out() => self.lost = Some(class),
                relayed => return Poll::Ready(Ok(relayed)),
            }
        }
        if self.phase == Phase::Content {
            self.hedge = Hedge::Off;
            return Poll::Pending;
        }
        let ahead = self.hedge.poll(self.exchange, self.tries, self.attempt, self.lost.is_some(), cx);
        match (ahead, self.lost) {
            (Some(ahead), lost) => {
                self.tries.overtaken(self.attempt, lost.unwrap_or(Class::Overtaken));
                Poll::Ready(Err(ahead))
            }
            (None, Some(class)) if !self.hedge.is_out() => Poll::Ready(Ok(Relayed::Unanswered(class))),
            (None, _) => Poll::Pending,
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Relayed> {
        if let Going::Broken(malformed) = self.upload.state {
            return Poll::Ready(self.request_broke(malformed));
        }
        loop {
            let read = {
                let mut fields = self.exchange.door.desk.response_fields.borrow_mut();
                self.up.poll_read(cx, &mut fields)
            };
            return match read {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(Read::Head(head))) if head.status.is_interim() => {
                    self.interim(&head);
                    continue;
                }
                Poll::Ready(Ok(Read::Head(head))) => {
                    self.attempt.answered();
                    self.heed_alternatives(&head);
                    let (ended, meaning) = self.meaning(&head);
                    match self.hold(&head, meaning, cx) {
                        Some(outcome) => Poll::Ready(Relayed::GivenUp(outcome)),
                        None if upgrade::is_ignored(self.exchange.request, &head) && self.tries.held.is_some() => {
                            Poll::Ready(Relayed::Unanswered(Class::Malformed))
                        }
                        None if upgrade::is_ignored(self.exchange.request, &head) => {
                            Poll::Ready(self.upgrade_ignored(&head, cx))
                        }
                        None => {
                            (self.grpc_status, self.meaning) = (ended, meaning);
                            let begun = self.begin_response(&head);
                            if !matches!(begun, Poll::Ready(Relayed::Unanswered(_))) {
                                // Not before: what is left of it is read with the fields that the head was read with.
                                self.tries.let_go(cx);
                            }
                            begun
                        }
                    }
                }
                Poll::Ready(Ok(Read::Closed(Eof::Truncated))) => Poll::Ready(Relayed::Unanswered(Class::Malformed)),
                Poll::Ready(Ok(_)) => Poll::Ready(Relayed::Unanswered(Class::Reset)),
                Poll::Ready(Err(Broken::Io(_))) => Poll::Ready(Relayed::Unanswered(Class::Reset)),
                // Whatever the request is, it may be sent again.
                Poll::Ready(Err(Broken::Malformed(Malformed::Unprocessed))) => {
                    self.attempt.unprocessed = true;
                    Poll::Ready(Relayed::Unanswered(Class::Refused))
                }
                Poll::Ready(Err(Broken::Malformed(_))) => Poll::Ready(Relayed::Unanswered(Class::Malformed)),
            };
        }
    }

    /// An endpoint that may choose says where its HTTP/3 is (RFC 7838).
    fn heed_alternatives(&self, head: &ResponseHead) {
        if self.tries.pool().protocol != PoolProtocol::Auto {
            return;
        }
        let fields = self.exchange.door.desk.response_fields.borrow();
        let bytes = self.up.head(head.length as usize);
        if let Some(said) = proto::http::http3(fields.all(Known::AltSvc).map(|field| field.value.of(bytes))) {
            self.tries.cluster().heed(&self.attempt.endpoint, said);
        }
    }

    /// Passes 100, 103 and their like on to a client that knows them.
    fn interim(&mut self, head: &ResponseHead) {
        let length = head.length as usize;
        if self.exchange.request.head.version != Version::Http10 {
            let fields = self.exchange.door.desk.response_fields.borrow();
            let mut out = self.exchange.door.desk.head.borrow_mut();
            if self.down.write_interim(self.up.head(length), head, &fields, &mut out).is_ok() {
                self.tries.forbid_repetition();
                // A second copy that is out may still have the better answer; none is sent any more.
                if !self.hedge.is_out() {
                    self.hedge = Hedge::Off;
                }
            }
        }
        self.up.skip_head(length);
        self.head_by = ring::now() + self.exchange.way.timeouts.head;
        self.impatient_at = None;
    }

    /// A final response's head: composes ours, and decides how its content will leave.
    fn begin_response(&mut self, head: &ResponseHead) -> Poll<Relayed> {
        let bridged = self.bridged(head);
        let framing = if bridged.is_some() { Framing::Chunked } else { head.framing };
        let sent = framing.towards(self.exchange.request.head.version);
        let upgrading = head.status == Status::SWITCHING_PROTOCOLS;
        let unread_request = self.upload.state != Going::Done;
        if self.exchange.door.desk.draining.get() {
            self.down.close_after();
        }
        let persistent = self.down.is_persistent() && sent != Framing::UntilClose && !unread_request;
        let length = head.length as usize;
        let mut agreed = Some(Agreed::Bytes);
        let composed = {
            let mut fields = self.exchange.door.desk.response_fields.borrow_mut();
            let bytes = self.up.head(length);
            if upgrading {
                agreed = upgrade::agreed(self.exchange.request, head, bytes, &fields);
            }
            let endpoint = &self.attempt.endpoint;
            let told = headers::Told { framing: sent, bridged, persistent, tries: self.tries, endpoint };
            agreed.is_some() && headers::response_head(self.exchange, head, bytes, &mut fields, &told, self.down)
        };
        let Some(agreed) = agreed.filter(|_| composed) else {
            return Poll::Ready(Relayed::Unanswered(Class::Malformed));
        };
        self.up.skip_head(length);
        self.status = head.status.code();
        if upgrading || self.exchange.request.head.method == Method::Connect && head.status.is_success() {
            let rest = self.exchange.door.desk.head.borrow();
            if !rest.is_empty() {
                self.down.send(Buf::copy_of(&rest));
            }
            return Poll::Ready(Relayed::Upgraded(agreed));
        }
        self.phase = Phase::Content;
        self.impatient_at = None;
        self.download.bridge = bridged.map(Bridge::of_answer);
        self.begin_content(framing);
        Poll::Pending
    }

    /// Any success would tell a client of HTTP/2 that its stream is a tunnel now (RFC 8441 §5); the endpoint has said nothing of the kind.
    fn upgrade_ignored(&mut self, head: &ResponseHead, cx: &mut Context<'_>) -> Relayed {
        self.up.skip_head(head.length as usize);
        discard(self.exchange.door, &mut self.up, cx);
        self.refused = Some(Reason::UpgradeIgnored);
        self.status =
            super::respond::answer(self.exchange.door, self.down, self.exchange.request, Reason::UpgradeIgnored);
        Relayed::Done(Class::Answered(StatusClass::of(head.status.code())))
    }

    /// The composed head leads the first piece of content; a small response of known length waits for all of it.
    fn begin_content(&mut self, framing: Framing) {
        let composed = self.exchange.door.desk.head.borrow();
        let here = self.up.here() as u64;
        if let Framing::Length(length) = framing {
            let rest = length.saturating_sub(here);
            self.up.expect(rest);
            self.exchange.paced.inspect(|paced| paced.curb(&mut self.up, rest));
            if length > here && length <= limits::WHOLE_RESPONSE_BYTES_MAX && !composed.is_empty() {
                self.whole = Some(ring::now() + limits::WHOLE_RESPONSE_WAIT);
                let mut whole = Buf::with_room(composed.len() + length as usize);
                whole.extend(&composed);
                self.download.hold = Some(whole);
                return;
            }
        } else if framing != Framing::None {
            self.up.expect(limits::BULK_FROM);
            self.exchange.paced.inspect(|paced| paced.curb(&mut self.up, limits::BULK_FROM));
        }
        self.download.lead = (!composed.is_empty()).then(|| Buf::copy_of(&composed));
    }

    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Relayed> {
        let mut source = Body { lane: &mut self.up, door: self.exchange.door };
        match self.download.poll(&mut source, &mut Out { lane: self.down }, cx) {
            Poll::Pending => {
                if self.whole.is_none() {
                    // A head must not wait for content that takes its time.
                    self.download.release_lead(&mut Out { lane: self.down });
                }
                Poll::Pending
            }
            Poll::Ready(Ok(())) => {
                self.download.state = Going::Done;
                self.up.settle(&mut self.exchange.door.desk.response_fields.borrow_mut());
                if self.upload.state != Going::Done {
                    // Answered before it was asked in full (RFC 9112 §9.3): neither side can go on from here.
                    self.down.close_after();
                }
                let meaning = match self.download.grpc_status {
                    Some(code) if self.exchange.way.grpc => grpc::http_of(code),
                    _ => self.meaning,
                };
                Poll::Ready(Relayed::Done(Class::Answered(StatusClass::of(meaning))))
            }
            // The endpoint knows the caller's time, too, and may let go first.
            Poll::Ready(Err(Cut::Source(_))) if self.exchange.way.grpc && self.exchange.way.is_over() => {
                Poll::Ready(self.call_is_over())
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
        self.download.release(&mut Out { lane: self.down });
        self.down.abort_written();
    }

    fn client_left(&mut self) -> Relayed {
        self.down.abort_written();
        if self.phase == Phase::Head {
            self.status = 0;
        }
        Relayed::Done(Class::Abandoned)
    }

    /// The client broke its request off, or broke HTTP within its content.
    fn request_broke(&mut self, malformed: Option<proto::Malformed>) -> Relayed {
        if let Some(malformed) = malformed {
            self.exchange.door.cells.counters.requests_malformed_total.add(1);
            let reason = Reason::ClientMalformed(malformed);
            self.refused = Some(reason);
            // Before it is answered, so that the answer says so.
            self.down.close_after();
            self.status = super::respond::answer(self.exchange.door, self.down, self.exchange.request, reason);
        } else {
            return self.client_left();
        }
        Relayed::Done(Class::Abandoned)
    }
}
