//! Who is behind the entries of a pool's `endpoints` now: names, SRV records and files, looked at again and again.
//!
//! A few threads of their own take the entry that is due next, look, and leave what is new for the control thread; they block in the network
//! as long as they like, and nobody waits for them but the very start, for a while. What holds here: an entry is looked at by one thread
//! at a time; what was found last stays until something else is found.

mod ask;
mod file;
mod host;
mod message;
mod resolver;
mod watch;

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use policy::Random;
use ring::Sender;

use self::resolver::Resolver;
use self::watch::Watch;
pub(super) use self::watch::one;
use super::Finding;
use crate::limits;
use crate::snapshot::{PoolId, Snapshot};

/// The threads that look. They end, each after its look, when this is dropped.
pub struct Discovery {
    shared: Arc<Shared>,
}

/// How an entry fares.
#[derive(Clone, Debug)]
pub struct Report {
    pub pool: PoolId,
    /// As it is written.
    pub entry: Arc<str>,
    /// How many it stands for.
    pub endpoints: usize,
    /// Why the last look failed: what it found before is kept.
    pub trouble: Option<String>,
    pub failures_total: u64,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    resolver: Resolver,
}

struct State {
    entries: Vec<Entry>,
    /// Entries that stand for something else than the control thread knows.
    news: BTreeSet<usize>,
    bell: Option<Sender<()>>,
    ended: bool,
}

struct Entry {
    /// `None` while a thread looks.
    watch: Option<Watch>,
    finding: Finding,
    report: Report,
    looked: bool,
}

impl Discovery {
    /// Begins to look at what is not written in the configuration itself. `None` when all of it is.
    #[must_use]
    pub fn start(snapshot: &Snapshot) -> Option<Self> {
        let entries = entries(snapshot);
        let threads = entries.len().min(limits::DISCOVERY_THREADS);
        let state = State { entries, news: BTreeSet::new(), bell: None, ended: false };
        let resolver = Resolver::new(&snapshot.engine.resolver);
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), resolver });
        for number in 0..threads {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(format!("penstock-find-{number}"));
            if let Err(error) = thread.spawn(move || shared.look_on()) {
                eprintln!("penstock: endpoints will be found late, or not at all: no thread for it ({error})");
            }
        }
        (threads > 0).then_some(Self { shared })
    }

    /// Waits until every entry has been looked at once, but no longer than `patience`.
    pub fn wait(&self, patience: Duration) {
        let deadline = ring::monotonic() + patience;
        let mut state = self.shared.state();
        while !state.entries.iter().all(|entry| entry.looked) {
            let left = deadline.since(ring::monotonic());
            if left.is_zero() {
                return;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Every entry has been looked at once.
    #[must_use]
    pub fn has_looked(&self) -> bool {
        self.shared.state().entries.iter().all(|entry| entry.looked)
    }

    /// Rings when there is news from now on.
    pub fn ring(&self, bell: Sender<()>) {
        let mut state = self.shared.state();
        state.bell = Some(bell);
        state.announce();
    }

    /// What has been found since this was asked last.
    #[must_use]
    pub fn news(&self) -> Vec<Finding> {
        let mut state = self.shared.state();
        let news = std::mem::take(&mut state.news);
        news.into_iter().map(|at| state.entries[at].finding.clone()).collect()
    }

    /// How every entry fares, in the configuration's order.
    #[must_use]
    pub fn reports(&self) -> Vec<Report> {
        self.shared.state().entries.iter().map(|entry| entry.report.clone()).collect()
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        self.shared.state().ended = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the entry that is due first, again and again.
    fn look_on(&self) {
        let mut random = Random::new(ring::monotonic().as_nanos());
        let mut state = self.state();
        while !state.ended {
            let now = ring::monotonic();
            let waiting =
                state.entries.iter_mut().enumerate().filter_map(|(at, entry)| Some((at, entry.watch.as_ref()?.due)));
            let Some((at, due)) = waiting.min_by_key(|&(_, due)| due) else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            if due > now {
                let left = due.since(now);
                state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let watch = state.entries[at].watch.take();
            drop(state);
            let watch = watch.map(|mut watch| {
                watch.look(&self.resolver, &mut random, now);
                watch
            });
            state = self.state();
            if let Some(watch) = watch {
                state.looked(at, watch);
            }
            self.changed.notify_all();
        }
    }
}

impl State {
    fn looked(&mut self, at: usize, watch: Watch) {
        let entry = &mut self.entries[at];
        entry.looked = true;
        entry.tell(&watch);
        if entry.finding.found != watch.found {
            entry.finding.found.clone_from(&watch.found);
            self.news.insert(at);
            self.announce();
        }
        self.entries[at].watch = Some(watch);
    }

    fn announce(&mut self) {
        if let Some(bell) = self.bell.as_mut().filter(|_| !self.news.is_empty()) {
            // A full box is a bell that has been rung and not heard yet.
            let _ = bell.send(());
        }
    }
}

impl Entry {
    /// Puts how it fares where operators look: the report, and a line when it gets worse, different or better.
    fn tell(&mut self, watch: &Watch) {
        let report = &mut self.report;
        report.endpoints = watch.found.len();
        report.failures_total += u64::from(watch.trouble.is_some());
        if report.trouble != watch.trouble {
            let kept = watch.found.len();
            match &watch.trouble {
                Some(trouble) if kept == 0 => {
                    eprintln!("penstock: `{}`: {trouble}; it stands for no endpoint yet", report.entry)
                }
                Some(trouble) => eprintln!("penstock: `{}`: {trouble}; what it stood for stays ({kept})", report.entry),
                None => eprintln!("penstock: `{}`: well again ({kept})", report.entry),
            }
            report.trouble.clone_from(&watch.trouble);
        }
    }
}

fn entries(snapshot: &Snapshot) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (pool, settings) in (0..).map(PoolId).zip(&snapshot.pools) {
        for (source, written) in
            settings.endpoints.iter().enumerate().filter(|(_, written)| !written.source.is_literal())
        {
            entries.push(Entry {
                watch: Some(Watch::new(written, settings.resolve_every)),
                finding: Finding { pool, source, found: Vec::new() },
                report: Report {
                    pool,
                    entry: written.source.to_string().into(),
                    endpoints: 0,
                    trouble: None,
                    failures_total: 0,
                },
                looked: false,
            });
        }
    }
    entries
}
