//! How large the next record shall be.
//!
//! A record is of use to the receiver only when all of it has come: with the congestion window of a fresh connection a record of
//! 16 KiB takes two round trips or more, and a browser shows nothing meanwhile. So records begin at one packet's size and
//! become as large as they may once content flows. Source: I. Grigorik, "Optimizing TLS Record Size" (2013), and what Google's
//! front ends were measured to do.

use std::time::Duration;

use ring::Now;

/// Content of a small record: with 22 bytes of TLS 1.3 around it 1,400, which fits a segment over IPv6 with timestamps.
const SMALL: usize = 1_378;

/// The most content that a record may have (RFC 8446 §5.1).
const LARGE: usize = 16 << 10;

/// So much goes in small records: the congestion window has opened by then (ten segments doubled twice).
const SMALL_UNTIL: u32 = 64 << 10;

/// After a pause of this the window has closed again (RFC 5681 §4.1).
const SMALL_AGAIN: Duration = Duration::from_secs(1);

/// What a record adds at the most: header, explicit nonce, content type and tag of any suite that rustls has.
pub(super) const OVERHEAD: usize = 5 + 8 + 1 + 16;

/// Decides the size of records, one after another.
#[derive(Debug)]
pub(super) struct RecordSizes {
    sent: u32,
    last: Now,
}

impl RecordSizes {
    pub(super) const fn new() -> Self {
        Self { sent: 0, last: Now::from_nanos(0) }
    }

    /// Content is about to be sent.
    pub(super) fn begin(&mut self, now: Now) {
        if now.since(self.last) >= SMALL_AGAIN {
            self.sent = 0;
        }
        self.last = now;
    }

    /// How much of `rest` bytes the next record takes.
    pub(super) fn take(&mut self, rest: usize) -> usize {
        let taken = rest.min(if self.sent < SMALL_UNTIL { SMALL } else { LARGE });
        self.sent = self.sent.saturating_add(taken as u32);
        taken
    }

    /// Room for `bytes` of content in records, with some to spare for what TLS itself has to say.
    pub(super) fn room(&self, bytes: usize) -> usize {
        let small = bytes.min(SMALL_UNTIL.saturating_sub(self.sent) as usize);
        bytes + (small.div_ceil(SMALL) + (bytes - small).div_ceil(LARGE) + 2) * OVERHEAD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(sizes: &mut RecordSizes, now: Now, mut rest: usize) -> Vec<usize> {
        sizes.begin(now);
        let mut taken = Vec::new();
        while rest > 0 {
            taken.push(sizes.take(rest));
            rest -= taken.last().unwrap();
        }
        taken
    }

    #[test]
    fn records_begin_small_and_grow() {
        let (mut sizes, now) = (RecordSizes::new(), Now::from_nanos(9_000_000_000));
        let first = split(&mut sizes, now, 100 << 10);
        assert!(first[..47].iter().all(|&size| size == SMALL), "{first:?}");
        assert!(first[48..first.len() - 1].iter().all(|&size| size == LARGE), "{first:?}");
        assert_eq!(split(&mut sizes, now + Duration::from_millis(999), 20_000), [LARGE, 20_000 - LARGE]);
        let after_a_pause = split(&mut sizes, now + Duration::from_secs(3), 3_000);
        assert_eq!(after_a_pause, [SMALL, SMALL, 3_000 - 2 * SMALL]);
    }

    #[test]
    fn the_room_asked_for_is_enough() {
        for bytes in [1, SMALL, SMALL + 1, 64 << 10, 70_000, 260 << 10] {
            let mut sizes = RecordSizes::new();
            let room = sizes.room(bytes);
            let records = split(&mut sizes, Now::from_nanos(1), bytes).len();
            assert!(room >= bytes + records * OVERHEAD, "{bytes}: {room} for {records} records");
        }
    }
}
