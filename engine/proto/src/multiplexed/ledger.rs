//! The abuse ledger: what a peer's tricks cost, in one currency, with all limits in one place.
//!
//! Every frame that makes work without asking for content has a price in points. Debt wears off with time and with honest traffic:
//! an exchange that is completed and a DATA frame that is sent pay for the resets, pings and window updates that go with them, so a
//! busy peer can afford what an idle one cannot. There is no exemption: not after GOAWAY, not for resets that we send because a peer
//! made us (CVE-2025-8671), not for streams that we refuse. A peer that owes three quarters of its credit is asked to go, by a
//! graceful GOAWAY; one that owes more than all of it is cut off with ENHANCE_YOUR_CALM. Oddities that are cheap to bear are forgiven as
//! long as the processor has time to spare, which is HAProxy's idea (`tune.glitches.kill.cpu-usage`).
//!
//! Before a peer that gives up request after request is cut off, each of those may have reached an endpoint: so what it asks is soon
//! [doubted](Ledger::is_doubtful), and can be kept back until it is clear whether it is meant (H2O's idea, `http2-dos-delay`).
//!
//! | attack | what it costs | so that |
//! |---|---|---|
//! | rapid reset (CVE-2023-44487) | [`Offence::EarlyReset`] | 200 at once, 100 a second |
//! | MadeYouReset (CVE-2025-8671), in all its forms | [`Offence::MadeReset`] | 200 at once, 100 a second |
//! | streams beyond the limit | [`Offence::Refused`] | 400 at once, 200 a second |
//! | PING flood (CVE-2019-9512) | [`Offence::Ping`] | 200 at once, 100 a second |
//! | SETTINGS flood (CVE-2019-9515) | [`Offence::Settings`]; 32 entries a frame | 100 at once, 50 a second |
//! | WINDOW_UPDATE flood | [`Offence::WindowUpdate`] | 400 at once, 200 a second, and four a DATA frame that we send |
//! | empty frames (CVE-2019-9518, RUSTSEC-2026-0258) | [`Offence::EmptyData`] | 100 at once, 50 a second |
//! | tiny frames | [`Offence::TinyData`]; eight bytes of framing and padding to one of content | 2,000 at once, 1,000 a second |
//! | priority shuffling (CVE-2019-9513) | [`Offence::Priority`] | 1,000 at once, 500 a second |
//! | table shuffling (a byte that copies 4 KiB, RFC 9204 §4.3.4) | [`Offence::Instruction`] | 2,000 at once, 1,000 a second, and 20 an exchange |
//! | CONTINUATION flood (CVE-2024-27316) | 8 frames and 64 KiB a block | cut off at the ninth |
//! | HPACK and QPACK bombs (CVE-2026-49975) | the head's limits, fields counted and 32 bytes added for each | the head is refused |
//! | answers that are asked for and not read (CVE-2019-9517) | 16 KiB of unsent answers to control frames | cut off |
//! | windows that do not open | 1 KiB in the stall timeout | the stream is reset |
//! | oddities | [`Offence::Odd`] | forgiven unless we are busy |

use std::marker::PhantomData;

/// What is charged for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offence {
    /// A stream was reset by the peer before anything was answered: work that was thrown away.
    EarlyReset,
    /// We had to reset a stream, for a breach that did not break the connection.
    MadeReset,
    /// A stream beyond the limit that we had announced, or of a sort that nobody knows.
    Refused,
    Ping,
    Settings,
    WindowUpdate,
    /// DATA without content that does not end its stream.
    EmptyData,
    /// DATA with less content than anybody's smallest message.
    TinyData,
    /// PRIORITY, PRIORITY_UPDATE.
    Priority,
    /// One of QPACK's: an entry of the table made or made anew, or an acknowledgment.
    Instruction,
    /// Frames of unknown types, late frames for streams that are gone, acknowledgements of nothing, resets of answered streams.
    Odd,
}

impl Offence {
    const fn price(self) -> i64 {
        match self {
            Self::EarlyReset | Self::MadeReset | Self::Ping => 50,
            Self::Settings | Self::EmptyData => 100,
            Self::Refused | Self::WindowUpdate => 25,
            Self::Priority => 10,
            Self::TinyData | Self::Instruction | Self::Odd => 5,
        }
    }

    const fn why(self) -> &'static str {
        match self {
            Self::EarlyReset => "too many requests were given up",
            Self::MadeReset => "too many streams had to be reset",
            Self::Refused => "too many streams were refused",
            Self::Ping => "too many PINGs",
            Self::Settings => "too many SETTINGS",
            Self::WindowUpdate => "too many WINDOW_UPDATEs",
            Self::EmptyData => "too many empty DATA frames",
            Self::TinyData => "too many tiny DATA frames",
            Self::Priority => "too many changes of priority",
            Self::Instruction => "too many instructions of QPACK",
            Self::Odd => "too many frames that mean nothing",
        }
    }
}

/// Points that a peer may owe: a burst of twice the streams that it may have open, given up at once, as a browser does when its
/// user leaves.
const CREDIT: i64 = 10_000;

/// Points that a millisecond writes off.
const WRITE_OFF_MS: i64 = 5;

/// Points from which a peer is asked to go.
const STRAIN: i64 = CREDIT * 3 / 4;

/// How long a request that came to nothing makes the next ones doubtful; one that is completed makes up for it.
const DOUBT_MS: u64 = 100;

/// From how many such requests on: H2O's budget. A page that is left has more under way, and the next one has time to begin.
const DOUBTED: u64 = 10;

/// For how long: what is given up meanwhile says nothing, since it waited, and a client whose deadlines are shorter than that would never get out of it.
const DOUBTED_MS: u64 = 1_000;

/// What an exchange earns that is completed on both sides: two resets of others, as hedged requests and impatient users make.
const EXCHANGE_EARNS: i64 = 100;

/// What a DATA frame earns that we send: two updates of windows and a ping that measures the path.
const DATA_EARNS: i64 = 100;

/// CONTINUATION frames in one block, as nghttp2 has it: eight of 16 KiB are twice what a block may have.
pub const CONTINUATIONS_MAX: u8 = 8;

/// Bytes of one block before it is decoded, in however many frames: four times the largest head of real applications.
pub const BLOCK_BYTES_MAX: usize = 64 * 1024;

/// Entries of one SETTINGS frame; eight are defined.
pub const SETTINGS_ENTRIES_MAX: u32 = 32;

/// Bytes of PRIORITY_UPDATE that are looked at; `u=7, i` is six.
pub const PRIORITY_BYTES_MAX: u32 = 256;

/// Unsent bytes that answer control frames: nginx's and nghttp2's thousand frames.
pub const ANSWERS_BYTES_MAX: usize = 16 * 1024;

/// DATA frames with less content than this, and no end of stream, are tiny: gRPC's smallest message has five bytes, WebSocket's six.
pub const TINY_BYTES: usize = 5;

/// Bytes received for one of content, above which a connection carries mostly overhead (nginx's rule), once it has had
/// [`OVERHEAD_FREE`] for nothing.
const OVERHEAD_RATIO: u64 = 8;
const OVERHEAD_FREE: u64 = 1 << 20;

/// Bytes that a stream must be able to send within the stall timeout to count as being read.
pub const STALL_BYTES: u32 = 1024;

/// A protocol's error that says that the peer's credit is used up.
pub(crate) trait Excess {
    fn of(why: &'static str) -> Self;
}

/// One connection's account.
#[derive(Debug, Clone)]
pub(crate) struct Ledger<F> {
    debt: i64,
    /// When it was last written off, in milliseconds.
    at: u64,
    /// Bytes of DATA frames received, and what of them was content.
    wire: u64,
    content: u64,
    /// Until when requests that came to nothing are remembered, and until when there are too many of them.
    remembered: u64,
    doubted: u64,
    /// The processor has no time for oddities.
    pub(crate) busy: bool,
    fault: PhantomData<F>,
}

impl<F> Default for Ledger<F> {
    fn default() -> Self {
        Self { debt: 0, at: 0, wire: 0, content: 0, remembered: 0, doubted: 0, busy: false, fault: PhantomData }
    }
}

impl<F: Excess> Ledger<F> {
    /// Charges an offence.
    ///
    /// # Errors
    /// The peer's credit is used up.
    #[inline]
    pub(crate) fn charge(&mut self, now_ms: u64, offence: Offence) -> Result<(), F> {
        self.write_off(now_ms);
        self.debt += offence.price();
        if matches!(offence, Offence::EarlyReset | Offence::MadeReset) {
            self.remember(now_ms);
        }
        if self.debt <= CREDIT {
            return Ok(());
        }
        self.debt = CREDIT;
        if offence == Offence::Odd && !self.busy { Ok(()) } else { Err(F::of(offence.why())) }
    }

    /// A DATA frame was received.
    ///
    /// # Errors
    /// The connection carries mostly overhead.
    #[inline]
    pub(crate) fn carried(&mut self, wire: usize, content: usize) -> Result<(), F> {
        self.wire += wire as u64;
        self.content += content as u64;
        if self.wire / OVERHEAD_RATIO > self.content + OVERHEAD_FREE {
            return Err(F::of("more framing and padding than content"));
        }
        Ok(())
    }

    #[inline]
    pub(crate) fn data_sent(&mut self) {
        self.debt = (self.debt - DATA_EARNS).max(0);
    }

    #[inline]
    pub(crate) fn exchange_completed(&mut self) {
        self.debt = (self.debt - EXCHANGE_EARNS).max(0);
        self.remembered = self.remembered.saturating_sub(DOUBT_MS);
        self.doubted = self.doubted.saturating_sub(DOUBT_MS);
    }

    /// A request has come to nothing.
    fn remember(&mut self, now_ms: u64) {
        if self.is_doubtful(now_ms) {
            return;
        }
        self.remembered = self.remembered.max(now_ms).saturating_add(DOUBT_MS);
        if self.remembered > now_ms.saturating_add(DOUBTED * DOUBT_MS) {
            (self.remembered, self.doubted) = (now_ms, now_ms.saturating_add(DOUBTED_MS));
        }
    }

    /// So many of the peer's last requests came to nothing that the next one is not likely to be meant.
    #[inline]
    pub(crate) fn is_doubtful(&self, now_ms: u64) -> bool {
        self.doubted > now_ms
    }

    /// The peer should be asked to go.
    #[inline]
    pub(crate) fn is_strained(&self) -> bool {
        self.debt >= STRAIN
    }

    #[inline]
    fn write_off(&mut self, now_ms: u64) {
        let passed = i64::try_from(now_ms.saturating_sub(self.at)).unwrap_or(i64::MAX);
        self.at = now_ms.max(self.at);
        self.debt = self.debt.saturating_sub(passed.saturating_mul(WRITE_OFF_MS)).max(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Ledger = super::Ledger<crate::h2::Fault>;

    /// How many of them at once, and how many in a further second, are borne.
    fn borne(offence: Offence) -> (usize, usize) {
        let mut ledger = Ledger { busy: true, ..Ledger::default() };
        // The offence that is not borne is the last, so it is tried on a copy.
        let mut borne_at = |now| {
            let within = ledger.clone().charge(now, offence).is_ok();
            within && ledger.charge(now, offence).is_ok()
        };
        let burst = (0..).take_while(|_| borne_at(0)).count();
        let second = (1..=1_000).map(|now| (0..).take_while(|_| borne_at(now)).count()).sum();
        (burst, second)
    }

    #[test]
    fn the_table_says_what_is_borne() {
        for (offence, burst, second) in [
            (Offence::EarlyReset, 200, 100),
            (Offence::MadeReset, 200, 100),
            (Offence::Refused, 400, 200),
            (Offence::Ping, 200, 100),
            (Offence::Settings, 100, 50),
            (Offence::WindowUpdate, 400, 200),
            (Offence::EmptyData, 100, 50),
            (Offence::TinyData, 2_000, 1_000),
            (Offence::Priority, 1_000, 500),
            (Offence::Instruction, 2_000, 1_000),
            (Offence::Odd, 2_000, 1_000),
        ] {
            let (at_once, later) = borne(offence);
            assert_eq!(at_once, burst, "{offence:?}");
            assert!(later.abs_diff(second) <= second / 10, "{offence:?}: {later} in a second");
        }
    }

    #[test]
    fn oddities_are_forgiven_while_there_is_time() {
        let mut ledger = Ledger::default();
        assert!((0..100_000).all(|_| ledger.charge(0, Offence::Odd).is_ok()));
        assert!(ledger.is_strained());
        ledger.busy = true;
        assert!(ledger.charge(0, Offence::Odd).is_err());
    }

    #[test]
    fn honest_traffic_pays() {
        let mut ledger = Ledger::default();
        for _ in 0..100_000 {
            ledger.data_sent();
            assert!((0..4).all(|_| ledger.charge(0, Offence::WindowUpdate).is_ok()));
            ledger.exchange_completed();
            assert!((0..2).all(|_| ledger.charge(0, Offence::EarlyReset).is_ok()));
            assert!(!ledger.is_strained());
        }
    }

    #[test]
    fn who_gives_up_again_and_again_is_doubted() {
        let given_up = |ledger: &mut Ledger, count: u64, now| {
            for _ in 0..count {
                let _ = ledger.charge(now, Offence::EarlyReset);
            }
            ledger.is_doubtful(now)
        };
        let mut ledger = Ledger::default();
        assert!(!given_up(&mut ledger, DOUBTED, 5_000) && given_up(&mut ledger, 1, 5_000));
        // What is given up while it waits does not prolong that.
        assert!(given_up(&mut ledger, 100, 5_000 + DOUBTED_MS - 1) && !ledger.is_doubtful(5_000 + DOUBTED_MS));
        assert!(!given_up(&mut ledger, DOUBTED, 7_000) && given_up(&mut ledger, 1, 7_000));
        // It is made up for by what is meant, each for one.
        (1..DOUBTED).for_each(|_| ledger.exchange_completed());
        assert!(ledger.is_doubtful(7_000));
        ledger.exchange_completed();
        assert!(!ledger.is_doubtful(7_000));
        // And forgotten with time.
        let mut ledger = Ledger::default();
        assert!((0..100).all(|nth| !given_up(&mut ledger, 1, 5_000 + nth * DOUBT_MS)));
        // Other tricks say nothing about requests.
        let mut ledger = Ledger::default();
        assert!((0..100).all(|_| ledger.charge(0, Offence::Ping).is_ok()));
        assert!(!ledger.is_doubtful(0));
    }

    #[test]
    fn time_that_stands_still_or_leaps_is_borne() {
        let mut ledger = Ledger::default();
        for now in [5, 3, u64::MAX, 0, u64::MAX] {
            assert!(ledger.charge(now, Offence::Ping).is_ok());
        }
    }
}
