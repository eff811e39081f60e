//! One direction of a relay: pieces of content from a source to a sink, in the memory in which they came.
//!
//! What holds here: no credit, no receive; nothing of a peer's framing survives, for the source takes it off and the sink
//! puts its own on; what leads the content (a head) and what ends it leave together with a piece whenever they can.

use std::task::{Context, Poll};

use proto::h1::{Connection, Trailers};
use ring::{Buf, Now};

use super::admit::Paced;
use super::bridge::Bridge;
use super::mirror::Copy;
use super::{Door, grpc};
use crate::conn::{Broken, Lane, Read, Reads, Speaks};
use crate::qos::Direction;

/// One direction.
pub(super) struct Half<'a> {
    /// When pieces may go; `None`: at once.
    pub(super) pacing: Option<Pacing<'a>>,
    /// Goes before the first piece, in the same send if it can.
    pub(super) lead: Option<Buf>,
    /// Collects all pieces until the last.
    pub(super) hold: Option<Buf>,
    pub(super) state: Going,
    /// Content bytes passed on.
    pub(super) bytes: u64,
    /// How a call of gRPC ended, once its trailers have passed.
    pub(super) grpc_status: Option<u8>,
    /// Makes what passes into something else. Far away, as the next one.
    pub(super) bridge: Option<Box<Bridge>>,
    /// Takes in what passes. Far away, for next to nobody has one.
    pub(super) copy: Option<Box<Copy>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Going {
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
    fn end(&mut self, trailers: Trailers, long: &mut Vec<u8>) -> Result<&'static [u8], Cut>;
    fn send(&mut self, buf: Buf);
}

impl<'a> Half<'a> {
    pub(super) fn new(lead: Option<Buf>, pacing: Option<Pacing<'a>>) -> Self {
        Self { pacing, lead, hold: None, state: Going::On, bytes: 0, grpc_status: None, bridge: None, copy: None }
    }

    /// Until when the next piece has to wait for its turn.
    pub(super) fn turn(&self) -> Option<Now> {
        let turn = self.pacing.as_ref()?.turn;
        (turn != Now::NEVER).then_some(turn)
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
            let next = match &mut self.pacing {
                None => source.poll_piece(cx),
                Some(pacing) => pacing.poll_piece(source, cx),
            };
            let piece = match next {
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
    pub(super) fn pass(&mut self, piece: Piece, sink: &mut impl Sink) -> Result<(), Cut> {
        if !piece.trailers.is_empty() {
            self.grpc_status = grpc::status_of_trailers(&piece.trailers);
        }
        let Some(mut bridge) = self.bridge.take() else { return self.put(piece, sink) };
        let passed = bridge.pass(piece, |piece| self.put(piece, sink));
        self.bridge = Some(bridge);
        passed
    }

    fn put(&mut self, piece: Piece, sink: &mut impl Sink) -> Result<(), Cut> {
        let last = piece.last;
        let mut out = match piece.data {
            Some(mut data) => {
                self.bytes += data.len() as u64;
                if self.copy.as_mut().is_some_and(|copy| !copy.take(data.bytes())) {
                    self.copy = None;
                }
                sink.frame(&mut data)?;
                self.join_lead(data, sink)
            }
            None => self.lead.take(),
        };
        if last {
            // An empty vector owns no memory; only trailers give it some.
            let mut long = Vec::new();
            let short = sink.end(piece.trailers, &mut long)?;
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
    pub(super) fn release_lead(&mut self, sink: &mut impl Sink) {
        if let Some(lead) = self.lead.take() {
            sink.send(lead);
        }
    }

    /// Sends everything that has been kept back.
    pub(super) fn release(&mut self, sink: &mut impl Sink) {
        self.release_lead(sink);
        if let Some(hold) = self.hold.take() {
            sink.send(hold);
        }
    }
}

/// Cuts content into quanta, and lets each go when its turn has come.
pub(super) struct Pacing<'a> {
    paced: &'a Paced<'a>,
    direction: Direction,
    /// What was received and has not gone yet.
    rest: Option<Piece>,
    /// When the next quantum of it may go; [`Now::NEVER`] while it has not asked.
    turn: Now,
}

impl<'a> Pacing<'a> {
    pub(super) fn new(paced: &'a Paced<'a>, direction: Direction) -> Self {
        Self { paced, direction, rest: None, turn: Now::NEVER }
    }

    /// Until when what was received waits, from `now` on.
    pub(super) fn turn_after(&self, now: Now) -> Option<Now> {
        (self.turn != Now::NEVER && self.turn > now).then_some(self.turn)
    }

    /// What was received and waits for a turn that it will not need.
    pub(super) fn take_rest(&mut self) -> Option<Buf> {
        self.rest.take()?.data
    }

    /// As [`Source::poll_piece`]. While a turn is awaited nothing is received, and nobody is woken: the caller has the timer.
    pub(super) fn poll_piece(&mut self, source: &mut impl Source, cx: &mut Context<'_>) -> Poll<Result<Piece, Cut>> {
        let mut piece = match self.rest.take() {
            Some(piece) => piece,
            None => match source.poll_piece(cx) {
                Poll::Ready(Ok(piece)) => piece,
                other => return other,
            },
        };
        let Some(data) = piece.data.as_mut().filter(|data| !data.is_empty()) else { return Poll::Ready(Ok(piece)) };
        let length = data.len().min(self.paced.quantum);
        if self.turn == Now::NEVER {
            self.turn = self.paced.turns.content(self.direction, length);
        }
        if self.turn > ring::now() {
            self.rest = Some(piece);
            return Poll::Pending;
        }
        self.turn = Now::NEVER;
        self.paced.gone.add(length as u64);
        if length == data.len() {
            return Poll::Ready(Ok(piece));
        }
        let front = Buf::copy_of(&data.bytes()[..length]);
        data.consume(length);
        self.rest = Some(piece);
        Poll::Ready(Ok(Piece { data: Some(front), ..Piece::default() }))
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
pub(super) struct Body<'a, 'l, R: Speaks> {
    pub(super) lane: &'a mut Lane<'l, R>,
    pub(super) door: &'a Door,
}

impl<R: Speaks> Source for Body<'_, '_, R>
where
    Connection<R>: Reads<Head = R::Head>,
{
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Cut>> {
        // Heads are never read here, so this touches no fields: the desk's are lent for form's sake.
        let mut fields = self.door.desk.response_fields.borrow_mut();
        let read = match self.lane.poll_read(cx, &mut fields) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(read) => read,
        };
        Poll::Ready(match read {
            Ok(Read::Data(data)) => {
                let end = self.lane.take_end(cx, &mut fields);
                Ok(Piece { data: Some(data), last: end.is_some(), trailers: end.unwrap_or_default() })
            }
            Ok(Read::End) => Ok(Piece { data: None, last: true, trailers: self.lane.take_trailers() }),
            Ok(Read::Head(_) | Read::Tunnel | Read::Closed(_)) | Err(Broken::Io(_)) => Err(Cut::Source(None)),
            Err(Broken::Malformed(malformed)) => Err(Cut::Source(Some(malformed))),
        })
    }
}

/// The message that a connection is writing.
pub(super) struct Out<'a, 'l, R: Speaks> {
    pub(super) lane: &'a mut Lane<'l, R>,
}

impl<R: Speaks> Sink for Out<'_, '_, R> {
    fn poll_credit(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        self.lane.poll_room(cx).map_err(|_| Cut::Sink)
    }

    fn frame(&mut self, data: &mut Buf) -> Result<(), Cut> {
        self.lane.frame(data).map_err(|_| Cut::Sink)
    }

    fn end(&mut self, trailers: Trailers, long: &mut Vec<u8>) -> Result<&'static [u8], Cut> {
        self.lane.end(trailers, long).map_err(|_| Cut::Sink)
    }

    fn send(&mut self, buf: Buf) {
        self.lane.send(buf);
    }
}
