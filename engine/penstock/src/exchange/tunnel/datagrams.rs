//! Datagrams beside a tunnel's bytes (RFC 9297): as such where the end that they go to takes them, whatever they came as; else as capsules among the bytes
//! of those protocols that have any.
//!
//! What came as a datagram and finds the other end full, or no end of a capsule to follow, is dropped: whoever sends datagrams has to bear that. What
//! came as a capsule stays one where it would be dropped, and waits for its turn.

use std::task::{Context, Poll};

use bytes::Bytes;
use proto::capsule::{Boundary, Sieve, Sifted, put_datagram};
use ring::Buf;

use super::Pipe;
use crate::conn::h3::Sending;
use crate::limits;
use crate::telemetry::Counters;

pub(super) struct Datagrams<'a> {
    counters: &'a Counters,
    /// Each direction's capsules, upwards first, if there are any.
    pub(super) capsules: Option<[Capsules<'a>; 2]>,
}

/// The capsules that one direction's bytes are.
pub(super) struct Capsules<'a> {
    counters: &'a Counters,
    /// Where they are that go on as they came, towards an end that takes no datagrams.
    boundary: Boundary,
    /// Finds datagrams, towards one that does.
    sieve: Sieve,
}

impl<'a> Capsules<'a> {
    fn new(counters: &'a Counters) -> Self {
        Self { counters, boundary: Boundary::default(), sieve: Sieve::default() }
    }

    /// Sends what has come, datagrams among it as such where that can be.
    pub(super) fn send(&mut self, to: &mut impl Pipe, buf: Buf) {
        // Who is not there any more says so when there shall be more.
        if !to.takes_datagrams() {
            self.boundary.pass(buf.bytes());
            let _ = to.send(buf);
            return;
        }
        let (mut rest, mut gone) = (Vec::new(), 0);
        self.sieve.sift(buf.bytes(), limits::QUIC_DATAGRAM_NEAR.into(), |sifted| match sifted {
            Sifted::Bytes(bytes) => rest.extend_from_slice(bytes),
            Sifted::Datagram { capsule, datagram } => match to.send_datagram(datagram) {
                Sending::Sent => gone += 1,
                Sending::Dropped | Sending::Never => rest.extend_from_slice(capsule),
            },
        });
        self.counters.http_datagrams_total.add(gone);
        if !rest.is_empty() {
            let _ = to.send(Buf::copy_of(&rest));
        }
    }

    /// Nothing more comes: a capsule that has not come whole goes on as it is.
    pub(super) fn end(&mut self, to: &mut impl Pipe) {
        let held = self.sieve.take_held();
        if !held.is_empty() {
            let _ = to.send(Buf::copy_of(&held));
        }
    }

    /// Whether another one may be put here.
    fn is_here(&self) -> bool {
        self.boundary.is_here() && self.sieve.is_here()
    }
}

impl<'a> Datagrams<'a> {
    pub(super) fn new(counters: &'a Counters, capsules: bool) -> Self {
        Self { counters, capsules: capsules.then(|| [Capsules::new(counters), Capsules::new(counters)]) }
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
                Sending::Never => {
                    let capsules = self.capsules.as_ref().map(|ways| &ways[way]);
                    !ended && capsules.is_some_and(Capsules::is_here) && put(to, &datagram, cx)
                }
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
