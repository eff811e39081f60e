//! Datagrams beside a tunnel's bytes (RFC 9297): as such where both ends take them, else as capsules among the bytes of those protocols that have any.
//!
//! What the other way takes no more of is dropped, and so is what finds no end of a capsule to follow: whoever sends datagrams has to bear that.
//! A capsule stays one: it passes as bytes, whatever the other end could do with it.

use std::task::{Context, Poll};

use bytes::Bytes;
use proto::capsule::{Boundary, put_datagram};
use ring::Buf;

use super::Pipe;
use crate::conn::h3::Sending;
use crate::telemetry::Counters;

pub(super) struct Datagrams<'a> {
    counters: &'a Counters,
    /// Where each direction is among its capsules, upwards first; of use only if it has any.
    pub(super) ways: [Boundary; 2],
    capsules: bool,
}

impl<'a> Datagrams<'a> {
    pub(super) fn new(counters: &'a Counters, capsules: bool) -> Self {
        Self { counters, ways: Default::default(), capsules }
    }

    /// Passes on what has come on either side; `ended` are the directions whose bytes have. Whether that was anything.
    pub(super) fn pass(
        &self,
        down: &mut impl Pipe,
        up: &mut impl Pipe,
        ended: [bool; 2],
        cx: &mut Context<'_>,
    ) -> bool {
        let upwards = self.pass_one_way(down, up, 0, ended[0], cx);
        self.pass_one_way(up, down, 1, ended[1], cx) || upwards
    }

    fn pass_one_way(
        &self,
        from: &mut impl Pipe,
        to: &mut impl Pipe,
        way: usize,
        ended: bool,
        cx: &mut Context<'_>,
    ) -> bool {
        let (mut gone, mut dropped) = (0, from.take_datagrams_dropped());
        while let Some(datagram) = from.take_datagram() {
            let has_gone = match to.send_datagram(&datagram) {
                Sending::Sent => true,
                Sending::Dropped => false,
                Sending::Never => self.capsules && !ended && self.ways[way].is_here() && put(to, &datagram, cx),
            };
            (gone, dropped) = (gone + u64::from(has_gone), dropped + u64::from(!has_gone));
        }
        if gone + dropped > 0 {
            self.counters.http_datagrams_total.add(gone);
            self.counters.http_datagrams_dropped_total.add(dropped);
        }
        gone > 0
    }
}

/// Puts a datagram among the bytes, if there is room for more of them.
fn put(to: &mut impl Pipe, datagram: &Bytes, cx: &mut Context<'_>) -> bool {
    if !matches!(to.poll_room(cx), Poll::Ready(Ok(()))) {
        return false;
    }
    let mut capsule = Vec::with_capacity(16 + datagram.len());
    put_datagram(datagram, &mut capsule);
    to.send(Buf::copy_of(&capsule)).is_ok()
}
