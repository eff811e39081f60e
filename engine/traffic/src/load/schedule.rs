//! When the next request is due, and who sends it.
//!
//! Nothing is queued: request `i` of an open loop is due at `start + i / rate`, so the backlog is two numbers. A connection
//! that becomes free takes the oldest request that is due; if there is none it waits in line, and the pacer wakes it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use ring::{Now, TaskRef};

use super::{Extent, Live, Load, Mode};

/// The wheel fires up to a tick late: the last stretch before a request is due is waited out turn by turn.
const TICK: Duration = Duration::from_millis(1);
/// How often the end of a closed loop is looked for.
const LOOK: Duration = Duration::from_millis(2);

pub(crate) struct Schedule {
    /// Nanoseconds between requests; none in a closed loop.
    gap: Option<f64>,
    requests_max: u64,
    begun: Cell<Option<Now>>,
    end: Cell<Option<Now>>,
    issued: Cell<u64>,
    cut: Cell<bool>,
    /// Free connections, the longest free first: all of them take part.
    idle: RefCell<VecDeque<TaskRef>>,
    /// The pacer, while every connection is busy: they serve themselves, until one has nothing to do.
    parked: Cell<Option<TaskRef>>,
}

impl Schedule {
    pub(crate) fn new(load: &Load) -> Self {
        Self {
            gap: match load.mode {
                Mode::Closed => None,
                Mode::Open { rate } => Some(1e9 / rate.max(1e-3)),
            },
            requests_max: match load.extent {
                Extent::Time(_) => u64::MAX,
                Extent::Requests(count) => count,
            },
            begun: Cell::new(None),
            end: Cell::new(None),
            issued: Cell::new(0),
            cut: Cell::new(false),
            idle: RefCell::default(),
            parked: Cell::new(None),
        }
    }

    /// The clock starts; a closed loop is let loose.
    pub(crate) fn begin(&self, start: Now, end: Option<Now>) {
        self.begun.set(Some(start));
        self.end.set(end);
        if self.gap.is_none() {
            self.wake_all();
        }
    }

    /// Nothing more is issued.
    pub(crate) fn cut(&self) {
        self.cut.set(true);
    }

    /// Wakes every free connection: to begin, or to see that it is over.
    pub(crate) fn wake_all(&self) {
        self.idle.borrow_mut().drain(..).for_each(ring::wake);
    }

    /// The next request's due time, once it is due; `None` at the end. `now` is the time at this moment.
    pub(crate) async fn next(&self) -> Option<Now> {
        poll_fn(|_| {
            let due = match self.due() {
                Due::Never => return Poll::Ready(None),
                Due::At(due) if due <= ring::now() => due,
                // The turn's time is old by what the turn has done so far.
                Due::At(due) if due <= ring::precise_now() => due,
                Due::At(_) | Due::Unknown => {
                    self.idle.borrow_mut().push_back(ring::current_task());
                    self.parked.take().into_iter().for_each(ring::wake);
                    return Poll::Pending;
                }
            };
            self.issued.set(self.issued.get() + 1);
            Poll::Ready(Some(if self.gap.is_some() { due } else { ring::precise_now() }))
        })
        .await
    }

    /// Due times of what nobody has taken yet.
    pub(crate) fn untaken(&self, now: Now) -> impl Iterator<Item = Now> + '_ {
        std::iter::from_fn(move || match self.due() {
            Due::At(due) if due <= now && self.gap.is_some() => {
                self.issued.set(self.issued.get() + 1);
                Some(due)
            }
            _ => None,
        })
    }

    /// Wakes connections as requests become due; ends when the last one is, or time is up.
    pub(crate) async fn pace(&self, live: &Live) {
        while !live.is_stopped() {
            let Due::At(due) = self.due() else { return };
            let now = ring::precise_now();
            // What is due by now and could not be sent is no longer the pacer's business.
            if self.end.get().is_some_and(|end| now >= end) {
                return;
            }
            if self.gap.is_none() {
                ring::sleep(LOOK).await;
            } else if self.idle.borrow().is_empty() {
                self.park(ring::now() + LOOK).await;
            } else if due.since(now) > TICK {
                ring::sleep_until((due - TICK).min(now + 10 * LOOK)).await;
            } else {
                if due <= now {
                    self.wake(now);
                } else {
                    // Whoever shares the CPU with us runs first: the target, most often.
                    std::thread::yield_now();
                }
                ring::yield_now().await;
            }
        }
    }

    /// Waits until a connection is free, or the moment `at`.
    async fn park(&self, at: Now) {
        self.parked.set(Some(ring::current_task()));
        let parked = || {
            if self.parked.get().is_some() { Poll::Pending } else { Poll::Ready(()) }
        };
        ring::until(at, poll_fn(|_| parked())).await;
        self.parked.set(None);
    }

    /// Wakes as many free connections as requests are due.
    fn wake(&self, now: Now) {
        let (Some(gap), Some(begun)) = (self.gap, self.begun.get()) else {
            return;
        };
        let passed = (now.since(begun).as_nanos() as f64 / gap) as u64 + 1;
        let mut idle = self.idle.borrow_mut();
        for _ in self.issued.get()..passed {
            match idle.pop_front() {
                Some(task) => ring::wake(task),
                None => return,
            }
        }
    }

    fn due(&self) -> Due {
        let Some(begun) = self.begun.get() else {
            return Due::Unknown;
        };
        if self.cut.get() || self.issued.get() >= self.requests_max {
            return Due::Never;
        }
        let due = match self.gap {
            Some(gap) => begun + Duration::from_nanos((self.issued.get() as f64 * gap) as u64),
            None => ring::now(),
        };
        if self.end.get().is_some_and(|end| due >= end) { Due::Never } else { Due::At(due) }
    }
}

enum Due {
    At(Now),
    /// Not begun.
    Unknown,
    Never,
}
