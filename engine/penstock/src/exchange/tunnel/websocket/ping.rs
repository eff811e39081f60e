//! Pings of ours: who has long been silent is asked whether it is still there.

use std::time::Duration;

use proto::h1::FixedSink;
use proto::ws::{CONTROL_FRAME_BYTES_MAX, Echo, put_ping};
use ring::{Buf, Now};

use crate::exchange::tunnel::Pipe;

/// Keeps a client's connection alive, and notices when it is not.
pub(super) struct KeepAlive {
    every: Duration,
    /// When the client last said something, or was asked.
    since: Now,
    /// It has been asked, and has said nothing since.
    asked: bool,
    /// A Pong of its may answer us.
    owed: bool,
    payload: [u8; 8],
}

impl KeepAlive {
    pub(super) fn new(every: Duration, random: u64) -> Self {
        Self { every, since: ring::now(), asked: false, owed: false, payload: random.to_ne_bytes() }
    }

    /// When to ask, or to give up.
    pub(super) fn due(&self) -> Now {
        self.since + self.every
    }

    pub(super) fn is_unanswered(&self) -> bool {
        self.asked
    }

    /// Who says anything is there.
    pub(super) fn heard(&mut self) {
        (self.since, self.asked) = (ring::now(), false);
    }

    /// Nothing can be asked, or heard, at present.
    pub(super) fn postpone(&mut self) {
        self.since = ring::now();
    }

    pub(super) fn send(&mut self, to: &mut impl Pipe) {
        let mut storage = [0; CONTROL_FRAME_BYTES_MAX];
        let mut frame = FixedSink::new(&mut storage);
        let put = put_ping(&self.payload, None, &mut frame);
        debug_assert!(put.is_ok(), "eight bytes are few enough");
        // Who has gone is noticed by receiving.
        let _ = to.send(Buf::copy_of(frame.written()));
        (self.since, self.asked, self.owed) = (ring::now(), true, true);
    }

    /// Whether a Pong is the answer to ours. It is taken once.
    pub(super) fn takes(&mut self, echo: &Echo) -> bool {
        let ours = self.owed && echo.length == 8 && echo.start == self.payload;
        self.owed &= !ours;
        ours
    }
}
