//! Large streams in the clear go past our memory: through a pipe of the kernel's, by `splice(2)`.
//!
//! What holds here: each direction decides by itself; it begins by being copied, goes over when it has brought much in large pieces, and comes back
//! when pieces are small again, when there is something that cannot be spliced (urgent data, the end), or when no pipe is free. Nothing is lost or
//! overtaken on the way: before the one, all that was received has been sent; before the other, the pipe is empty. So the end of a stream, and what
//! follows from it, is only ever met by copying. What keeps to a pace is copied, for it is cut.
//!
//! A socket that is an end of the same-host shortcut ([`crate::samehost`]) has bytes that splice does not see, before those that it does. Those of
//! ours are plain: neither TCP nor what leaves HTTP takes the shortcut. A client's may be one, of another engine on this host; then it brings
//! requests, each awaiting its answer, so that there are never both kinds.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use ring::{Buf, Moved, Pipes, Splice, Stream};

use super::datagrams::Capsules;
use super::{Counted, Pipe, Raw};
use crate::exchange::half::{Cut, Half, Piece};
use crate::limits;
use crate::telemetry::Cell;

/// When streams are spliced.
#[derive(Clone, Copy, Debug)]
pub struct Splicing {
    /// After so many bytes in large pieces.
    pub after: u64,
    /// A piece of so many bytes is large.
    pub large: u64,
    /// Pipes of a worker.
    pub pipes: usize,
}

impl Splicing {
    /// For each of so many workers.
    #[must_use]
    pub fn among(workers: usize) -> Self {
        let pipes = (limits::PIPES_MAX / workers.max(1)).max(1);
        Self { after: limits::SPLICE_AFTER_BYTES, large: limits::BULK_FROM, pipes }
    }
}

/// What a worker splices with.
#[derive(Debug)]
pub struct Splicer {
    when: Splicing,
    pipes: Rc<Pipes>,
}

impl Splicer {
    #[must_use]
    pub fn new(when: Splicing) -> Self {
        Self { when, pipes: Pipes::new(when.pipes, limits::PIPE_BYTES_MIN, limits::PIPE_BYTES_MAX) }
    }

    /// Pipes that are open, in use or not.
    #[must_use]
    pub fn pipes(&self) -> usize {
        self.pipes.open()
    }
}

/// What a direction counts.
#[derive(Clone, Copy)]
pub(super) struct Counts<'a> {
    pub(super) spliced_bytes: &'a Cell,
    pub(super) no_pipe: &'a Cell,
    pub(super) pipes: &'a Cell,
}

/// One direction of a tunnel.
pub(super) struct Passage<'a> {
    pub(super) half: Half<'a>,
    ended: bool,
    going: Going,
    run: Run,
    /// `None`: it is copied, whatever it brings.
    splicer: Option<&'a Splicer>,
    counts: Counts<'a>,
}

enum Going {
    Copied,
    /// It is to be spliced, and what is under way comes first.
    Settling,
    Spliced {
        splice: Splice,
        /// Small pieces, one after another.
        small: u8,
    },
}

/// Bytes that came in large pieces, one after another.
#[derive(Default)]
pub(super) struct Run {
    bytes: u64,
    /// Both without bound where nothing is spliced.
    after: u64,
    large: u64,
}

impl Run {
    pub(super) fn came(&mut self, piece: &Buf) {
        let bytes = piece.len() as u64;
        self.bytes = if bytes >= self.large { self.bytes.saturating_add(bytes) } else { 0 };
    }

    pub(super) fn is_long(&self) -> bool {
        self.bytes >= self.after
    }
}

impl<'a> Passage<'a> {
    pub(super) fn new(half: Half<'a>, splicer: Option<&'a Splicer>, counts: Counts<'a>) -> Self {
        let splicer = splicer.filter(|_| half.pacing.is_none());
        let when = splicer.map(|splicer| splicer.when);
        let run = Run {
            bytes: 0,
            after: when.map_or(u64::MAX, |when| when.after),
            large: when.map_or(u64::MAX, |when| when.large),
        };
        Self { half, ended: false, going: Going::Copied, run, splicer, counts }
    }

    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Moves what can be moved. Ready when it broke, for good. `capsules` are looked at while they are copied: what is spliced comes from where datagrams
    /// do not, and goes to where they cannot.
    pub(super) fn poll(
        &mut self,
        from: &mut impl Pipe,
        to: &mut impl Pipe,
        mut capsules: Option<&mut Capsules<'_>>,
        cx: &mut Context<'_>,
    ) -> Poll<Cut> {
        if self.ended {
            return Poll::Pending;
        }
        match ready!(self.poll_on(from, to, capsules.as_deref_mut(), cx)) {
            Ok(()) => {
                self.ended = true;
                if let Some(capsules) = capsules {
                    capsules.end(to);
                }
                to.finish();
                Poll::Pending
            }
            Err(cut) => Poll::Ready(cut),
        }
    }

    /// Ready at the end.
    fn poll_on(
        &mut self,
        from: &mut impl Pipe,
        to: &mut impl Pipe,
        mut capsules: Option<&mut Capsules<'_>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Cut>> {
        loop {
            match &self.going {
                Going::Copied => {
                    let polled = self.half.poll(
                        &mut Counted { pipe: from, run: &mut self.run },
                        &mut Raw(to, capsules.as_deref_mut()),
                        cx,
                    );
                    if polled.is_ready() || !self.run.is_long() {
                        return polled;
                    }
                    self.run.bytes = 0;
                    if both(from, to).is_some() {
                        self.going = Going::Settling;
                    }
                }
                Going::Settling => {
                    if ready!(self.poll_settled(from, to))? == Settled::Ended {
                        return Poll::Ready(Ok(()));
                    }
                }
                Going::Spliced { .. } => ready!(self.poll_spliced(from, to))?,
            }
        }
    }

    /// Passes on what comes late; ready when nothing can, or at the end.
    fn poll_settled(&mut self, from: &mut impl Pipe, to: &mut impl Pipe) -> Poll<Result<Settled, Cut>> {
        loop {
            let (Some(splicer), Some((source, sink))) = (self.splicer, both(from, to)) else {
                self.going = Going::Copied;
                return Poll::Ready(Ok(Settled::On));
            };
            match source.received() {
                Some(Ok(Some(data))) => {
                    self.half.pass(Piece { data: Some(data), ..Piece::default() }, &mut Raw(to, None))?;
                }
                Some(Ok(None)) => return Poll::Ready(Ok(Settled::Ended)),
                Some(Err(_)) => return Poll::Ready(Err(Cut::Source(None))),
                None => {
                    ready!(Splice::poll_settled(source, sink)).map_err(|_| Cut::Sink)?;
                    self.going = Going::Spliced { splice: Splice::new(&splicer.pipes), small: 0 };
                    return Poll::Ready(Ok(Settled::On));
                }
            }
        }
    }

    /// Moves a pipe's worth; ready when something has moved, or nothing will in this way.
    fn poll_spliced(&mut self, from: &mut impl Pipe, to: &mut impl Pipe) -> Poll<Result<(), Cut>> {
        let (Going::Spliced { splice, small }, Some((source, sink))) = (&mut self.going, both(from, to)) else {
            unreachable!("a stream in the clear remains one")
        };
        let moved = ready!(splice.poll_move(source, sink)).map_err(|_| Cut::Sink)?;
        let mut goes_on = false;
        match moved {
            Moved::On { sent, taken } => {
                self.half.bytes += sent as u64;
                self.counts.spliced_bytes.add(sent as u64);
                match taken as u64 {
                    0 => {}
                    taken if taken < self.run.large => *small += 1,
                    _ => *small = 0,
                }
                goes_on = *small < limits::SPLICES_SMALL_MAX || !splice.is_empty();
            }
            Moved::NoPipe => self.counts.no_pipe.add(1),
            Moved::Stuck => {}
        }
        if !goes_on {
            self.going = Going::Copied;
        }
        self.counts.pipes.set(self.splicer.map_or(0, Splicer::pipes) as u64);
        Poll::Ready(Ok(()))
    }
}

#[derive(PartialEq)]
enum Settled {
    On,
    /// The source has ended, and all that it has brought has been passed on.
    Ended,
}

fn both<'s>(from: &'s mut impl Pipe, to: &'s mut impl Pipe) -> Option<(&'s mut Stream, &'s mut Stream)> {
    from.socket().zip(to.socket())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_the_pipes_and_each_has_one() {
        let pipes = [1, 2, 3, 32, 1_000].map(|workers| Splicing::among(workers).pipes);
        assert_eq!(pipes, [32, 16, 10, 1, 1]);
    }

    #[test]
    fn a_run_is_long_by_large_pieces_in_a_row() {
        let mut run = Run { bytes: 0, after: 1_000, large: 400 };
        let mut came = |sizes: &[usize]| {
            sizes.iter().for_each(|size| run.came(&Buf::copy_of(&vec![0; *size])));
            run.is_long()
        };
        assert!(!came(&[400, 599, 399, 400, 400]));
        assert!(came(&[200, 400, 600]));
    }
}
