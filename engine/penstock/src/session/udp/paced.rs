//! Datagrams that keep to the pace of their class: each goes when its turn comes, and waits here until then.
//!
//! What holds here:
//! * A queue that drops its tail: a datagram waits [`limits::PACED_DATAGRAM_WAIT`] at the most; those of one flow and direction have
//!   [`limits::FLOW_BUFFER`], those of one socket and direction [`limits::PACED_DATAGRAMS_BYTES`]. What finds its turn too far off, or no room, takes no turn, is
//!   dropped, and counted by its class with the reason.
//! * Datagrams of one flow keep their order. Those that need not wait pass by those of other flows that do.
//! * What arrived joined goes in pieces of a quantum of its pace, of whole datagrams.

use std::cell::RefCell;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::rc::Rc;

use ring::{Now, Received};

use super::joined::count;
use super::{Flow, Path, Shared};
use crate::limits;
use crate::qos::{Direction, Qos};
use crate::snapshot::ClassId;

/// What a waiting datagram takes beside its bytes: one without any takes memory too.
const OVERHEAD: usize = size_of::<Waiting<Whose>>();

/// Whose pace a flow keeps to.
pub(super) struct Pace {
    pub(super) qos: Rc<Qos>,
    pub(super) class: ClassId,
    /// The key of its client.
    pub(super) client: u64,
    /// When the flow may begin.
    pub(super) turn: Now,
}

/// Whose datagram it is.
pub(super) struct Whose {
    pub(super) flow: Rc<Flow>,
    pub(super) path: Path,
}

/// What waits for its turn in one direction.
pub(super) struct Line<W> {
    waiting: BinaryHeap<Reverse<Waiting<W>>>,
    bytes: usize,
    /// Numbers those that wait: of two whose turn is the same the first goes first.
    came: u64,
}

/// A datagram, or several of one length, that wait together.
pub(super) struct Waiting<W> {
    at: Now,
    number: u64,
    ecn: u8,
    stride: usize,
    bytes: Vec<u8>,
    pub(super) whose: W,
}

impl<W> Ord for Waiting<W> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<W> PartialOrd for Waiting<W> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<W> PartialEq for Waiting<W> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<W> Eq for Waiting<W> {}

impl<W> Waiting<W> {
    fn size(&self) -> usize {
        OVERHEAD + self.bytes.len()
    }
}

impl Waiting<Whose> {
    /// As it came, but for the addresses: they are its flow's.
    pub(super) fn received(&mut self) -> Received<'_> {
        let Path { client, to } = self.whose.path;
        Received { from: client, to, ecn: self.ecn, stride: self.stride, bytes: &mut self.bytes }
    }

    pub(super) fn count(&self) -> u64 {
        count(self.bytes.len(), self.stride)
    }
}

impl<W> Default for Line<W> {
    fn default() -> Self {
        Self { waiting: BinaryHeap::new(), bytes: 0, came: 0 }
    }
}

impl<W> Line<W> {
    /// When the first one's turn is.
    fn next(&self) -> Option<Now> {
        self.waiting.peek().map(|first| first.0.at)
    }

    /// The first one, if its turn has come.
    fn pop(&mut self, now: Now) -> Option<Waiting<W>> {
        if self.next()? > now {
            return None;
        }
        let Reverse(first) = self.waiting.pop()?;
        self.bytes -= first.size();
        Some(first)
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.bytes + OVERHEAD + bytes <= limits::PACED_DATAGRAMS_BYTES
    }

    /// True if it is the first now.
    fn push(&mut self, mut waiting: Waiting<W>) -> bool {
        waiting.number = self.came;
        self.came += 1;
        self.bytes += waiting.size();
        let first = self.next().is_none_or(|next| waiting.at < next);
        self.waiting.push(Reverse(waiting));
        first
    }
}

impl Shared {
    fn line(&self, direction: Direction) -> &RefCell<Line<Whose>> {
        &self.lines[direction as usize]
    }

    /// The next one whose turn has come.
    pub(super) fn due(&self, direction: Direction) -> Option<Waiting<Whose>> {
        let due = self.line(direction).borrow_mut().pop(ring::now())?;
        let waits = &due.whose.flow.waits[direction as usize];
        waits.set(waits.get() - due.size());
        Some(due)
    }

    /// When the next one of those that wait has its turn.
    pub(super) fn next_turn(&self) -> Option<Now> {
        self.lines.iter().filter_map(|line| line.borrow().next()).min()
    }

    /// Lets datagrams of a flow go: at once those whose turn it is, and others when it comes. `go` tells how many it had to drop; so does
    /// this, with those that may not even wait.
    pub(super) fn pace(
        &self,
        flow: &Rc<Flow>,
        path: Path,
        direction: Direction,
        received: &mut Received<'_>,
        mut go: impl FnMut(&Received<'_>, u64) -> u64,
    ) -> u64 {
        let paced = flow.pace.as_ref().and_then(|pace| Some((pace, pace.qos.turns(pace.class, None, || pace.client)?)));
        let Some((pace, turns)) = paced else { return go(received, count(received.bytes.len(), received.stride)) };
        let cells = &pace.qos.cells().classes[usize::from(pace.class.0)];
        let Received { from, to, ecn, stride, .. } = *received;
        let quantum = turns.quantum();
        let most = quantum.map_or(limits::JOINED_BYTES_MAX, |quantum| quantum.min(limits::JOINED_BYTES_MAX));
        let together = (most / stride).max(1) * stride;
        let mut dropped = 0;
        let mut pass = |piece: &mut [u8]| {
            let (now, datagrams) = (ring::now(), count(piece.len(), stride));
            let waits = &flow.waits[direction as usize];
            let room = waits.get() + OVERHEAD + piece.len() <= limits::FLOW_BUFFER
                && self.line(direction).borrow().has_room(piece.len());
            let latest = if room { now + limits::PACED_DATAGRAM_WAIT } else { now };
            let turn = match quantum {
                Some(_) => turns.datagrams(direction, piece.len(), latest),
                None => Some(now),
            };
            let Some(at) = turn.map(|turn| turn.max(pace.turn)).filter(|at| room || *at <= now) else {
                let reason = if room { &cells.crowded } else { &cells.full };
                reason.add(datagrams);
                dropped += datagrams;
                return;
            };
            cells.paced_bytes.add(if quantum.is_some() { piece.len() as u64 } else { 0 });
            if at <= now {
                dropped += go(&Received { from, to, ecn, stride, bytes: piece }, datagrams);
                return;
            }
            cells.paced.add(datagrams);
            let whose = Whose { flow: Rc::clone(flow), path };
            let waiting = Waiting { at, number: 0, ecn, stride, bytes: piece.to_vec(), whose };
            waits.set(waits.get() + waiting.size());
            let is_first = self.line(direction).borrow_mut().push(waiting);
            // Of what goes up the server knows: it has brought it.
            if let (true, Direction::Down, Some(server)) = (is_first, direction, self.server.get()) {
                ring::wake(server);
            }
        };
        if received.bytes.is_empty() {
            pass(&mut []);
        }
        received.bytes.chunks_mut(together).for_each(pass);
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(at: u64, length: usize, whose: u32) -> Waiting<u32> {
        Waiting { at: Now::from_nanos(at), number: 0, ecn: 0, stride: 1, bytes: vec![0; length], whose }
    }

    #[test]
    fn turns_are_kept_and_so_is_the_order_of_those_that_have_the_same() {
        let mut line = Line::default();
        let firsts: Vec<bool> =
            [(5, 1), (3, 2), (5, 3), (3, 4), (5, 5)].map(|(at, whose)| line.push(waiting(at, 10, whose))).into();
        assert_eq!(firsts, [true, true, false, false, false]);
        let mut due = |now| line.pop(Now::from_nanos(now)).map(|waiting| waiting.whose);
        assert_eq!([due(2), due(3), due(4), due(4)], [None, Some(2), Some(4), None]);
        assert_eq!([due(9), due(9), due(9), due(9)], [Some(1), Some(3), Some(5), None]);
        assert_eq!((line.bytes, line.next()), (0, None));
    }

    #[test]
    fn what_waits_is_bounded_with_or_without_content() {
        for length in [0, 1_400, 65_507] {
            let (mut line, mut count) = (Line::default(), 0);
            while line.has_room(length) {
                line.push(waiting(7, length, 0));
                count += 1;
            }
            assert_eq!(count, limits::PACED_DATAGRAMS_BYTES / (OVERHEAD + length));
            while line.pop(Now::from_nanos(7)).is_some() {}
            assert!(line.bytes == 0 && line.has_room(length));
        }
    }
}
