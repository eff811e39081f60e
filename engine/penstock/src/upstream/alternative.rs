//! What an endpoint that may choose says of its HTTP/3 (`Alt-Svc`, RFC 7838), and how that has worked for this worker.
//!
//! What holds here: nobody waits for it. Requests go over TCP until a connection of HTTP/3 is there, and again when it is not any more; one that does
//! not come about, or breaks, is not tried again for a time that doubles each time.

use std::cell::Cell;

use proto::http::AltSvc;
use ring::Now;

use crate::limits;

#[derive(Debug, Default)]
pub(super) struct Alternative {
    /// Its UDP port, and until when that is good; none is offered otherwise.
    offered: Cell<Option<(u16, Now)>>,
    /// It did not work: until when to leave it alone.
    broken_until: Cell<Option<Now>>,
    /// So many times in a row.
    failures: Cell<u32>,
    /// It is being called.
    calling: Cell<bool>,
}

impl Alternative {
    /// The endpoint has said so.
    pub(super) fn told(&self, said: AltSvc, now: Now) {
        self.offered.set(match said {
            AltSvc::Http3 { port, max_age } if !max_age.is_zero() => Some((port, now + max_age)),
            AltSvc::Http3 { .. } | AltSvc::Clear => None,
        });
    }

    /// It is offered, and worked as far as is known.
    pub(super) fn is_good(&self, now: Now) -> bool {
        self.offered.get().is_some_and(|(_, until)| now < until)
            && self.broken_until.get().is_none_or(|until| now >= until)
    }

    /// The port to call now, which nobody else does until it has [`ended`](Self::ended).
    pub(super) fn begin(&self, now: Now) -> Option<u16> {
        if self.calling.get() || !self.is_good(now) {
            return None;
        }
        self.calling.set(true);
        self.offered.get().map(|(port, _)| port)
    }

    /// A call has come to this end.
    pub(super) fn ended(&self, connected: bool, now: Now) {
        self.calling.set(false);
        if !connected {
            self.failed(now);
        }
    }

    /// A call, or the connection that came of it, broke.
    pub(super) fn failed(&self, now: Now) {
        let failures = self.failures.get();
        self.failures.set(failures.saturating_add(1));
        let rest = limits::HTTP3_BROKEN_FOR.saturating_mul(1 << failures.min(10)).min(limits::HTTP3_BROKEN_MAX);
        self.broken_until.set(Some(now + rest));
    }

    /// A connection has served to its end.
    pub(super) fn worked(&self) {
        self.failures.set(0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const OFFER: AltSvc = AltSvc::Http3 { port: 443, max_age: Duration::from_secs(100_000) };

    fn at(seconds: u64) -> Now {
        Now::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn one_calls_at_a_time_and_only_what_is_offered() {
        let of = Alternative::default();
        assert_eq!(of.begin(at(1)), None);
        of.told(OFFER, at(1));
        assert_eq!(of.begin(at(2)), Some(443));
        assert_eq!(of.begin(at(2)), None, "it is being called");
        of.ended(true, at(3));
        assert_eq!(of.begin(at(3)), Some(443));
        of.ended(true, at(3));
        of.told(AltSvc::Clear, at(4));
        assert_eq!(of.begin(at(4)), None);
        of.told(AltSvc::Http3 { port: 1, max_age: Duration::ZERO }, at(4));
        assert_eq!(of.begin(at(4)), None);
        of.told(AltSvc::Http3 { port: 1, max_age: Duration::from_secs(5) }, at(4));
        assert_eq!(of.begin(at(9)), None, "it is too old");
        assert_eq!(of.begin(at(8)), Some(1));
    }

    #[test]
    fn what_does_not_work_is_left_alone_for_longer_and_longer() {
        let of = Alternative::default();
        of.told(OFFER, at(0));
        let mut now = 0;
        for rest in [60, 120, 240, 480, 960, 1_920, 3_600, 3_600] {
            assert_eq!(of.begin(at(now)), Some(443));
            of.ended(false, at(now));
            assert_eq!(of.begin(at(now + rest - 1)), None);
            now += rest;
        }
        assert_eq!(of.begin(at(now)), Some(443));
        of.ended(true, at(now));
        of.worked();
        of.failed(at(now));
        assert!(!of.is_good(at(now + 59)) && of.is_good(at(now + 60)));
    }
}
