//! Limits of requests: GCRA over words that workers share.
//!
//! A limit with a key has a table of them; a limit of a whole route has one, and each worker takes a handful of
//! grants at a time ([`Lease`]), so that a hot route costs no shared line a request.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use policy::{Decision, Lease, Now, Rate};
use proto::http::decimal;

use super::keyed::{Keyed, Line, step};
use crate::limits;
use crate::snapshot::{Limit, LimitKey};

#[derive(Debug)]
pub(super) struct SharedLimit {
    rate: Rate,
    cells: Cells,
    /// The value of `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10, section 3).
    policy: Box<[u8]>,
    /// Of a worker that has none yet.
    lease: Lease,
}

#[derive(Debug)]
enum Cells {
    Whole(Line),
    Keyed(Keyed),
}

impl SharedLimit {
    pub(super) fn new(limit: &Limit, workers: usize, seed: u64) -> Self {
        let (rate, cells, lease) = if limit.key == LimitKey::Route {
            let (rate, lease) = Lease::share(limit.rate, workers as u32);
            (rate, Cells::Whole(Line::default()), lease)
        } else {
            (Rate::new(limit.rate), Cells::Keyed(Keyed::new(limits::RATE_KEYS, seed)), Lease::default())
        };
        let (quota, window_secs) = rate.field();
        let mut policy = Vec::new();
        item(&limit.name, [(b"\";q=", quota.into()), (b";w=", window_secs)], &mut policy);
        Self { rate, cells, policy: policy.into(), lease }
    }
}

/// A limit, as one worker applies it.
#[derive(Debug)]
pub struct Limiter {
    shared: Arc<SharedLimit>,
    lease: RefCell<Lease>,
}

/// A request that was counted: where, if the limit has a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Grant(u16);

/// What a response tells of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    remaining: u32,
    reset_secs: u64,
    /// How long until this request would have passed, s; `None` if it did, or never will.
    pub retry_secs: Option<u32>,
}

impl Limiter {
    pub(super) fn new(shared: Arc<SharedLimit>) -> Self {
        let lease = RefCell::new(shared.lease.clone());
        Self { shared, lease }
    }

    /// Counts one request of `key`, which a limit of the whole route does not ask for.
    ///
    /// # Errors
    /// It is one too many, and nothing was counted.
    pub fn grant(&self, key: impl FnOnce() -> u64) -> Result<Grant, Told> {
        let (rate, now) = (&self.shared.rate, super::now());
        match &self.shared.cells {
            Cells::Whole(Line(cell)) => {
                let lease = &mut *self.lease.borrow_mut();
                if lease.spend(1) {
                    return Ok(Grant::default());
                }
                let (least, most) = lease.wants(1);
                let drawn = step(cell, |tat| rate.draw(tat, now, least, most));
                match drawn {
                    Ok(units) => {
                        lease.put(units);
                        // What was drawn covers it.
                        let _ = lease.spend(1);
                        Ok(Grant::default())
                    }
                    Err(_) => Err(self.look(cell.load(Ordering::Relaxed), now, 1)),
                }
            }
            Cells::Keyed(keyed) => {
                let at = keyed.find(key());
                let word = keyed.at(at);
                step(word, |tat| rate.step(tat, now, 1).map(|tat| (tat, Grant(at))))
                    .map_err(|_| self.look(word.load(Ordering::Relaxed), now, 1))
            }
        }
    }

    /// What is left now, for the answer to a request that was granted. Should another key have taken its word since, it is that one's.
    #[must_use]
    pub fn told(&self, grant: Grant) -> Told {
        let now = super::now();
        match &self.shared.cells {
            Cells::Whole(Line(cell)) => {
                let told = self.look(cell.load(Ordering::Relaxed), now, 0);
                // What is drawn and not spent is left too.
                Told { remaining: told.remaining.saturating_add(self.lease.borrow().units()), ..told }
            }
            Cells::Keyed(keyed) => self.look(keyed.at(grant.0).load(Ordering::Relaxed), now, 0),
        }
    }

    /// The value of `RateLimit-Policy` (the draft's section 3), which stays the same.
    #[must_use]
    pub fn policy(&self) -> &[u8] {
        &self.shared.policy
    }

    fn look(&self, mut tat: u64, now: Now, cost: u32) -> Told {
        let decision: Decision = self.shared.rate.check(&mut tat, now, cost);
        let (remaining, reset_secs) = decision.field();
        let retry_secs = decision.retry_after.map(seconds_up);
        Told { remaining, reset_secs, retry_secs }
    }
}

impl Told {
    /// The value of `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10, section 4).
    pub fn write_limit(&self, name: &str, out: &mut Vec<u8>) {
        item(name, [(b"\";r=", self.remaining.into()), (b";t=", self.reset_secs)], out);
    }
}

/// A string with two parameters (RFC 9651 §3.3). Every answer has one of them made: `core::fmt` would take as long as the limit itself.
fn item(name: &str, parameters: [(&[u8], u64); 2], out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    for (text, number) in parameters {
        out.extend_from_slice(text);
        out.extend_from_slice(decimal(number, &mut [0; 20]));
    }
}

/// Whole seconds, at least one: who is told to come back at once comes back too soon.
#[must_use]
pub(super) fn seconds_up(time: Duration) -> u32 {
    let whole = time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0));
    u32::try_from(whole.max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::LimitFields;
    use policy::RateSettings;

    fn limit(key: LimitKey, quota: u32, burst: u32) -> Limit {
        let rate = RateSettings { quota, period: Duration::from_secs(1), burst };
        Limit { key, rate, status: 429, name: "test".into(), fields: LimitFields::default() }
    }

    fn on_a_ring<T: 'static>(body: impl FnOnce() -> T + 'static) -> T {
        let driver = ring::DriverChoice::Epoll;
        ring::Ring::new(ring::Options { driver, ..ring::Options::default() }).unwrap().block_on(async { body() })
    }

    #[test]
    fn two_workers_grant_what_one_would() {
        for (key, burst) in [(LimitKey::Route, 50), (LimitKey::Client, 50), (LimitKey::Route, 1)] {
            let shared = Arc::new(SharedLimit::new(&limit(key, 1, burst), 2, 1));
            let work = |shared| {
                on_a_ring(|| {
                    let limiter = Limiter::new(shared);
                    (0..10_000).filter(|_| limiter.grant(|| 7).is_ok()).count()
                })
            };
            let workers = [Arc::clone(&shared), shared].map(|shared| std::thread::spawn(move || work(shared)));
            let granted: usize = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
            assert_eq!(granted, burst as usize);
        }
    }

    #[test]
    fn what_is_told_has_the_drafts_form() {
        let shared = Arc::new(SharedLimit::new(&limit(LimitKey::Client, 10, 2), 1, 1));
        on_a_ring(|| {
            let limiter = Limiter::new(shared);
            let granted = limiter.grant(|| 1).expect("the first of two");
            let (mut field, told) = (Vec::new(), limiter.told(granted));
            told.write_limit("client-address", &mut field);
            assert_eq!((field.as_slice(), told.retry_secs), (&b"\"client-address\";r=1;t=1"[..], None));
            assert!(limiter.grant(|| 1).is_ok());
            let told = limiter.grant(|| 1).unwrap_err();
            let mut field = Vec::new();
            told.write_limit("client-address", &mut field);
            assert_eq!(field, b"\"client-address\";r=0;t=1");
            assert_eq!(limiter.policy(), b"\"test\";q=10;w=1");
            assert_eq!(told.retry_secs, Some(1));
            assert!(limiter.grant(|| 2).is_ok(), "another client is none the worse");
        });
    }
}
