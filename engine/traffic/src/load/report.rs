//! What came of it: counted while it runs, told once a second on request, and summed up at the end.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use hdrhistogram::Histogram;
use ring::Now;

/// The longest time told apart, in nanoseconds: ten minutes.
const LATENCY_MAX: u64 = 600_000_000_000;
/// Three significant digits: an error of 0.1 %.
const DIGITS: u8 = 3;

/// Requests that failed, by how.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Errors {
    /// No connection could be made.
    pub connect: u64,
    /// The connection was reset, or ended before the response was whole.
    pub reset: u64,
    /// No whole response in time.
    pub timeout: u64,
    /// A whole response with another status than the one wanted.
    pub status: u64,
    /// What came is no HTTP, or not the response to this request.
    pub malformed: u64,
    /// A body of the wrong length or content.
    pub corrupt: u64,
    /// Due or in flight at the end, and not answered within the grace.
    pub unanswered: u64,
}

impl Errors {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.connect + self.reset + self.timeout + self.status + self.malformed + self.corrupt + self.unanswered
    }

    fn add(&mut self, other: &Self) {
        self.connect += other.connect;
        self.reset += other.reset;
        self.timeout += other.timeout;
        self.status += other.status;
        self.malformed += other.malformed;
        self.corrupt += other.corrupt;
        self.unanswered += other.unanswered;
    }
}

/// How a request failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Failed {
    Connect,
    Reset,
    Timeout,
    Status,
    Malformed,
    Corrupt,
    Unanswered,
}

/// What a load has seen.
#[derive(Clone, Debug)]
pub struct Report {
    /// Requests answered as wanted.
    pub requests: u64,
    /// Requests that were not.
    pub errors: Errors,
    /// Bytes of content received.
    pub bytes: u64,
    /// From the end of the warm-up to the last answer, or to when waiting for it was given up.
    pub elapsed: Duration,
    /// Nanoseconds from when a request was due (open) or sent (closed) to its last byte. Wrong statuses count; so do time-outs and
    /// unanswered requests, with the time that they waited.
    pub latency: Histogram<u64>,
    /// Whole responses by status.
    pub statuses: Vec<(u16, u64)>,
    /// Connections made, those before the warm-up's end included.
    pub connects: u64,
}

impl Report {
    fn new() -> Self {
        Self {
            requests: 0,
            errors: Errors::default(),
            bytes: 0,
            elapsed: Duration::ZERO,
            latency: histogram(),
            statuses: Vec::new(),
            connects: 0,
        }
    }

    /// Requests answered as wanted a second.
    pub fn rate(&self) -> f64 {
        if self.elapsed.is_zero() { 0.0 } else { self.requests as f64 / self.elapsed.as_secs_f64() }
    }

    /// The time within which this share (0 to 1) of the requests was answered.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_nanos(self.latency.value_at_quantile(share))
    }

    /// Adds what another thread saw at the same time.
    pub fn merge(&mut self, other: &Self) {
        self.elapsed = self.elapsed.max(other.elapsed);
        self.connects += other.connects;
        self.add(other);
    }

    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors.add(&other.errors);
        self.bytes += other.bytes;
        // Made alike, they cannot differ in range.
        let _ = self.latency.add(&other.latency);
        for (status, count) in &other.statuses {
            *counter(&mut self.statuses, *status) += count;
        }
    }

    fn clear(&mut self) {
        self.requests = 0;
        self.errors = Errors::default();
        self.bytes = 0;
        self.latency.reset();
        self.statuses.clear();
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| self.quantile(share));
        write!(
            f,
            "{} requests in {:.2?}, {:.0}/s, p50 {p50:.1?}, p99 {p99:.1?}, p99.9 {p999:.1?}, {} errors",
            self.requests,
            self.elapsed,
            self.rate(),
            self.errors.total()
        )
    }
}

/// What happened since the last snapshot.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Requests answered as wanted.
    pub requests: u64,
    /// Requests that were not.
    pub errors: Errors,
    /// Bytes of content received.
    pub bytes: u64,
    /// The span that this snapshot is of.
    pub span: Duration,
    /// Answered as wanted a second.
    pub rate: f64,
    /// Half of the requests were answered within this time.
    pub p50: Duration,
    /// 99 % of them.
    pub p99: Duration,
    /// 99.9 % of them.
    pub p999: Duration,
}

/// A load while it runs: shared by its connections and whoever watches. Clones are the same load.
#[derive(Clone)]
pub struct Live {
    tally: Rc<Tally>,
}

struct Tally {
    /// When counting began; requests due before are not counted.
    from: Cell<Option<Now>>,
    looked: Cell<Now>,
    stopped: Cell<bool>,
    connects: Cell<u64>,
    /// Since the last snapshot: every request is recorded once, here.
    recent: RefCell<Report>,
    /// Up to the last snapshot.
    before: RefCell<Report>,
}

impl Live {
    /// To be given to one [`Load::run_live`](super::Load::run_live).
    pub fn new() -> Self {
        Self {
            tally: Rc::new(Tally {
                from: Cell::new(None),
                looked: Cell::new(Now::default()),
                stopped: Cell::new(false),
                connects: Cell::new(0),
                recent: RefCell::new(Report::new()),
                before: RefCell::new(Report::new()),
            }),
        }
    }

    /// What happened since the last call; for a table with a line a second.
    pub fn snapshot(&self) -> Snapshot {
        let now = ring::precise_now();
        let mut recent = self.tally.recent.borrow_mut();
        let span = self.tally.from.get().map_or(Duration::ZERO, |_| now.since(self.tally.looked.get()));
        recent.elapsed = span;
        let snapshot = Snapshot {
            requests: recent.requests,
            errors: recent.errors,
            bytes: recent.bytes,
            span,
            rate: recent.rate(),
            p50: recent.quantile(0.5),
            p99: recent.quantile(0.99),
            p999: recent.quantile(0.999),
        };
        self.tally.looked.set(now.max(self.tally.looked.get()));
        self.tally.before.borrow_mut().add(&recent);
        recent.clear();
        snapshot
    }

    /// Ends the load early: nothing more is sent, what is in flight may still be answered.
    pub fn stop(&self) {
        self.tally.stopped.set(true);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.tally.stopped.get()
    }

    /// Counting starts at `from`.
    pub(crate) fn begin(&self, from: Now) {
        self.tally.from.set(Some(from));
        self.tally.looked.set(from);
    }

    pub(crate) fn connected(&self) {
        self.tally.connects.set(self.tally.connects.get() + 1);
    }

    /// A whole response, or none: to the request that was due at `due`.
    #[inline]
    pub(crate) fn record(&self, due: Now, now: Now, answer: Option<(u16, u64)>, failed: Option<Failed>) {
        if self.tally.from.get().is_none_or(|from| due < from) {
            return;
        }
        let mut recent = self.tally.recent.borrow_mut();
        let recent = &mut *recent;
        if let Some((status, bytes)) = answer {
            recent.bytes += bytes;
            *counter(&mut recent.statuses, status) += 1;
        }
        let errors = &mut recent.errors;
        let counted = match failed {
            None => &mut recent.requests,
            Some(Failed::Connect) => &mut errors.connect,
            Some(Failed::Reset) => &mut errors.reset,
            Some(Failed::Timeout) => &mut errors.timeout,
            Some(Failed::Status) => &mut errors.status,
            Some(Failed::Malformed) => &mut errors.malformed,
            Some(Failed::Corrupt) => &mut errors.corrupt,
            Some(Failed::Unanswered) => &mut errors.unanswered,
        };
        *counted += 1;
        // A refusal is quick: counted as a time, it would flatter.
        if !matches!(failed, Some(Failed::Connect | Failed::Reset | Failed::Malformed)) {
            recent.latency.saturating_record(now.since(due).as_nanos() as u64);
        }
    }

    pub(crate) fn report(&self, finish: Now) -> Report {
        self.snapshot();
        let mut report = self.tally.before.borrow().clone();
        report.elapsed = self.tally.from.get().map_or(Duration::ZERO, |from| finish.since(from));
        report.connects = self.tally.connects.get();
        report
    }
}

impl Default for Live {
    fn default() -> Self {
        Self::new()
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1_000, LATENCY_MAX, DIGITS).expect("the bounds are in order")
}

/// The count of a status. There are one or two in a run, and the commonest comes first.
fn counter(statuses: &mut Vec<(u16, u64)>, status: u16) -> &mut u64 {
    let at = statuses.iter().position(|(known, _)| *known == status).unwrap_or_else(|| {
        statuses.push((status, 0));
        statuses.len() - 1
    });
    &mut statuses[at].1
}
