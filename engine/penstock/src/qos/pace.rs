//! Turns of requests and of pieces of content, where a class, a route or a client has a pace.
//!
//! Each pace is a word that all workers share ([`policy::spacing`]): who wants to go takes the next time that is free, and waits until then.
//! So a rate is exact over all workers and divides evenly among those that always want more, a quantum each. What has no pace pays for none of
//! this.

use std::time::Duration;

use policy::{Now, Reserved, Spacing};

use super::keyed::{Keyed, Line, step};
use crate::limits;
use crate::snapshot::{Pace, Paces};

/// Which way content goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the client.
    Down,
    /// To the endpoint.
    Up,
}

/// The paces of a class or a route.
#[derive(Debug)]
pub(super) struct Paced {
    all: Rates<Line>,
    per_client: Rates<Keyed>,
}

#[derive(Debug)]
struct Rates<C> {
    /// Down and up.
    bytes: Option<(Spacing, [C; 2])>,
    requests: Option<(Spacing, C)>,
}

impl<C> Rates<C> {
    fn new(pace: &Pace, cell: impl Fn() -> C) -> Self {
        Self {
            bytes: pace.bandwidth.map(|bandwidth| (Spacing::bytes(bandwidth), [cell(), cell()])),
            requests: pace.rate.map(|rate| (Spacing::requests(rate.count.get(), rate.per), cell())),
        }
    }
}

impl Paced {
    pub(super) fn new(paces: &Paces, seed: u64) -> Option<Self> {
        (!paces.is_none()).then(|| Self {
            all: Rates::new(&paces.all, Line::default),
            per_client: Rates::new(&paces.per_client, || Keyed::new(limits::RATE_KEYS, seed)),
        })
    }
}

/// The paces that one exchange keeps to.
#[derive(Debug, Clone, Copy)]
pub struct Turns<'a> {
    paced: [Option<&'a Paced>; 2],
    client: u64,
}

impl<'a> Turns<'a> {
    pub(super) fn new(class: Option<&'a Paced>, route: Option<&'a Paced>, client: u64) -> Self {
        Self { paced: [class, route], client }
    }

    /// When the request's turn comes: now, or later. `None`: not within `patience`.
    #[must_use]
    pub fn request(&self, patience: Duration) -> Option<ring::Now> {
        let now = super::now();
        let latest = now.plus(patience);
        let mut at = now;
        // A client's own pace first: where it is too far ahead of that, it takes nobody else's turn.
        for paced in self.paced.into_iter().flatten() {
            if let Some((spacing, keyed)) = &paced.per_client.requests {
                at = at.max(take(keyed.word(self.client), spacing, now, 1, latest)?);
            }
        }
        for paced in self.paced.into_iter().flatten() {
            if let Some((spacing, Line(word))) = &paced.all.requests {
                at = at.max(take(word, spacing, now, 1, latest)?);
            }
        }
        Some(ring::Now::from_nanos(at.nanos()))
    }

    /// The most bytes to [ask a turn for](Self::content) at once; `None` where content has no pace.
    #[must_use]
    pub fn quantum(&self) -> Option<usize> {
        let all = |paced: &Paced| paced.all.bytes.as_ref().map(|(spacing, _)| spacing.quantum());
        let client = |paced: &Paced| paced.per_client.bytes.as_ref().map(|(spacing, _)| spacing.quantum());
        let quanta = self.paced.into_iter().flatten().flat_map(|paced| [all(paced), client(paced)]);
        quanta.flatten().min().map(|quantum| quantum as usize)
    }

    /// When a piece of content may go.
    #[must_use]
    pub fn content(&self, direction: Direction, bytes: usize) -> ring::Now {
        let (now, never, units) = (super::now(), Now::from_nanos(u64::MAX), bytes as u64);
        let mut at = now;
        for paced in self.paced.into_iter().flatten() {
            if let Some((spacing, cells)) = &paced.all.bytes {
                at = at.max(take(&cells[direction as usize].0, spacing, now, units, never).unwrap_or(now));
            }
            if let Some((spacing, cells)) = &paced.per_client.bytes {
                let word = cells[direction as usize].word(self.client);
                at = at.max(take(word, spacing, now, units, never).unwrap_or(now));
            }
        }
        ring::Now::from_nanos(at.nanos())
    }

    /// When datagrams of so many bytes may go. `None`: not by `latest`, and then nobody else has lost a turn to them.
    #[must_use]
    pub fn datagrams(&self, direction: Direction, bytes: usize, latest: ring::Now) -> Option<ring::Now> {
        let (now, units) = (super::now(), bytes as u64);
        let latest = Now::from_nanos(latest.as_nanos());
        let mut at = now;
        // A client's own pace first, as with requests.
        for paced in self.paced.into_iter().flatten() {
            if let Some((spacing, cells)) = &paced.per_client.bytes {
                at = at.max(take(cells[direction as usize].word(self.client), spacing, now, units, latest)?);
            }
        }
        for paced in self.paced.into_iter().flatten() {
            if let Some((spacing, cells)) = &paced.all.bytes {
                at = at.max(take(&cells[direction as usize].0, spacing, now, units, latest)?);
            }
        }
        Some(ring::Now::from_nanos(at.nanos()))
    }
}

fn take(word: &std::sync::atomic::AtomicU64, spacing: &Spacing, now: Now, units: u64, latest: Now) -> Option<Now> {
    step(word, |taken| {
        let Reserved { at, taken } = spacing.reserve(taken, now, units, latest).ok_or(())?;
        Ok::<_, ()>((taken, at))
    })
    .ok()
}
