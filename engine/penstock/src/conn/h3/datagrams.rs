//! Datagrams of requests (RFC 9297): from the connection to the request's queue, and from an exchange to the connection.
//!
//! What holds here: a queue is made when the first one comes, and has its bound in number and bytes; what finds no room is dropped and counted, and so
//! is what QUIC has no room for. Nobody waits for any of them.

use std::collections::VecDeque;

use bytes::Bytes;
use proto::h3::{Datagram, Fault, Said};
use ring::Now;

use super::stream::Stream;
use super::{Hub, clock, name};
use crate::conn::Speaks;
use crate::limits;
use crate::quic::stream;

/// Those of a request that wait for its exchange.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Bytes>,
    bytes: usize,
    dropped: u64,
}

impl Queue {
    fn put(&mut self, datagram: Bytes) {
        let fits = self.bytes + datagram.len() <= limits::HTTP3_DATAGRAM_BYTES_MAX;
        if !fits || self.waiting.len() >= limits::HTTP3_DATAGRAMS_MAX {
            self.dropped += 1;
            return;
        }
        self.bytes += datagram.len();
        self.waiting.push_back(datagram);
    }

    fn take(&mut self) -> Option<Bytes> {
        let datagram = self.waiting.pop_front()?;
        self.bytes -= datagram.len();
        Some(datagram)
    }
}

/// What became of a datagram that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    Sent,
    /// It is too long, or too many wait.
    Dropped,
    /// Datagrams cannot be sent for this request.
    Never,
}

impl<R: Speaks> Hub<R> {
    /// Gives what has come to the requests that it is for.
    pub(super) fn take_datagrams(&mut self, now: Now) -> Result<(), Fault> {
        while let Some(bytes) = self.link.take_datagram() {
            match self.machine.datagram(clock(now), &bytes, &mut self.out)? {
                Datagram::Of(id, before) => {
                    if let Some(at) = self.find(stream(id.0)) {
                        let flow = &mut self.flows[at];
                        flow.datagrams.get_or_insert_default().put(bytes.slice(before..));
                        flow.mail.wake();
                    }
                }
                Datagram::Nobodys => {}
                Datagram::Unasked(Said::Stream(id, proto::Event::Reset(why))) => {
                    if let Some(at) = self.find(stream(id.0)) {
                        self.break_off(at, why);
                    }
                }
                Datagram::Unasked(_) => {}
            }
        }
        Ok(())
    }
}

impl<R: Speaks> Stream<R> {
    /// The next datagram of the peer's.
    pub fn take_datagram(&mut self) -> Option<Bytes> {
        self.with_flow(|flow| flow.datagrams.as_mut().and_then(|queue| queue.take())).flatten()
    }

    /// How many were dropped since this was last asked, for want of room.
    pub fn take_datagrams_dropped(&mut self) -> u64 {
        let take = |queue: &mut Box<Queue>| std::mem::take(&mut queue.dropped);
        self.with_flow(|flow| flow.datagrams.as_mut().map_or(0, take)).unwrap_or(0)
    }

    /// Sends a datagram, soon or never.
    pub fn send_datagram(&mut self, datagram: &[u8]) -> Sending {
        self.with(|hub| {
            let Some(at) = self.id.and_then(|id| hub.find(id)) else { return Sending::Never };
            let mut framed = Vec::with_capacity(8 + datagram.len());
            if !hub.machine.put_datagram_head(name(hub.flows[at].id), &mut framed) || hub.link.datagram_max().is_none()
            {
                return Sending::Never;
            }
            framed.extend_from_slice(datagram);
            let sent = hub.link.send_datagram(framed.into());
            if sent {
                hub.nudge();
            }
            if sent { Sending::Sent } else { Sending::Dropped }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_has_its_bounds() {
        let mut queue = Queue::default();
        (0..limits::HTTP3_DATAGRAMS_MAX + 3).for_each(|at| queue.put(Bytes::from(vec![at as u8])));
        assert_eq!(std::mem::take(&mut queue.dropped), 3);
        assert!((0..limits::HTTP3_DATAGRAMS_MAX).all(|at| queue.take().is_some_and(|bytes| bytes == [at as u8][..])));
        assert_eq!((queue.take(), queue.bytes), (None, 0));
        let half = Bytes::from(vec![0; limits::HTTP3_DATAGRAM_BYTES_MAX / 2]);
        (0..4).for_each(|_| queue.put(half.clone()));
        assert_eq!((queue.dropped, queue.waiting.len()), (2, 2));
    }
}
