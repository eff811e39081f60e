//! A load generator: closed loops and open ones.
//!
//! A closed loop asks how much a target can do: each connection sends its next request when the last one was answered. An
//! open loop asks how long users wait: requests are due at a fixed rate, whatever became of those before them, and a
//! request's time counts from when it was due.

mod connection;
mod report;
mod response;
mod schedule;

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ring::{Address, Now, Timer};

use crate::group::Group;
use connection::Shared;
pub use report::{Errors, Live, Report, Snapshot};

/// How long connections may take to come up before the clock starts anyway.
const CONNECT_TIME: Duration = Duration::from_secs(2);
/// How many turns the connections' closing may take before [`Load::run`] returns regardless.
const CLOSING_TURNS: usize = 1_000;

/// What to ask, how often and for how long.
#[derive(Clone, Debug)]
pub struct Load {
    /// Whom.
    pub target: Address,
    /// The value of the Host field.
    pub host: String,
    /// The request target.
    pub path: String,
    /// The method, as it goes out; HEAD's responses have no body.
    pub method: String,
    /// Content to send with each request; with it comes a Content-Length.
    pub body: Option<Vec<u8>>,
    /// More lines of the head, each with its end.
    pub fields: String,
    /// Connections kept busy (closed) or ready (open).
    pub connections: usize,
    /// Closed or open.
    pub mode: Mode,
    /// When it is enough; the warm-up comes before.
    pub extent: Extent,
    /// Requests due in this first span are sent and not counted.
    pub warmup: Duration,
    /// Each request on a connection of its own; connecting counts as part of its time.
    pub connection_per_request: bool,
    /// A request not answered after so long is an error, and its connection is given up.
    pub timeout: Duration,
    /// After the end, requests that are due or in flight may still be answered for so long.
    pub grace: Duration,
    /// The status that counts as success.
    pub status: u16,
    /// The length that every body must have; `None` takes any.
    pub body_bytes: Option<u64>,
    /// Compares every body with the [`Pattern`](crate::Pattern) that our origins send.
    pub verify: bool,
}

/// When requests go out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// As soon as the last one on that connection was answered.
    Closed,
    /// At a fixed rate.
    Open {
        /// Requests a second, over all connections.
        rate: f64,
    },
}

/// When it is enough.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Extent {
    /// After this span.
    Time(Duration),
    /// After this many requests, warm-up included.
    Requests(u64),
}

impl Load {
    /// GET / in a closed loop over one connection for one second.
    pub fn new(target: Address) -> Self {
        Self {
            host: target.inet().map_or_else(|| "localhost".to_owned(), |inet| inet.to_string()),
            target,
            path: "/".to_owned(),
            method: "GET".to_owned(),
            body: None,
            fields: String::new(),
            connections: 1,
            mode: Mode::Closed,
            extent: Extent::Time(Duration::from_secs(1)),
            warmup: Duration::ZERO,
            connection_per_request: false,
            timeout: Duration::from_secs(5),
            grace: Duration::from_secs(1),
            status: 200,
            body_bytes: None,
            verify: false,
        }
    }

    /// Runs to the end. Dropping it stops at once.
    pub async fn run(&self) -> Report {
        self.run_live(&Live::new()).await
    }

    /// As [`run`](Self::run), while `live` can be asked how it goes and told to stop.
    pub async fn run_live(&self, live: &Live) -> Report {
        let shared = Rc::new(Shared::new(self.clone(), live.clone()));
        let workers = Group::new();
        for _ in 0..self.connections {
            workers.spawn(connection::work(Rc::clone(&shared)));
        }
        let connected = ring::now() + CONNECT_TIME;
        wait(connected, || live.is_stopped() || shared.ready.get() >= workers.live()).await;

        let start = ring::precise_now();
        let from = start + self.warmup;
        let end = match self.extent {
            Extent::Time(span) => Some(from + span),
            Extent::Requests(_) => None,
        };
        live.begin(from);
        shared.schedule.begin(start, end);
        shared.schedule.pace(live).await;

        // What is due or in flight may still be answered.
        let patience = match self.extent {
            Extent::Time(_) => self.grace,
            Extent::Requests(_) => self.grace.max(self.timeout),
        };
        let over = ring::now() + patience;
        if live.is_stopped() {
            shared.schedule.cut();
        }
        shared.schedule.wake_all();
        wait(over, || workers.live() == 0).await;
        let finish = ring::precise_now();
        shared.give_up(finish);
        drop(workers);
        close(&shared).await;
        live.report(finish)
    }
}

/// Lets the workers end, so that no stream of theirs is left open: each of them holds a share.
async fn close(shared: &Rc<Shared>) {
    for _ in 0..CLOSING_TURNS {
        if Rc::strong_count(shared) == 1 {
            break;
        }
        ring::yield_now().await;
    }
    // Cancelled operations complete, and their descriptors close.
    for _ in 0..3 {
        ring::yield_now().await;
    }
}

/// Waits until `done` or the moment `at`, looking once a millisecond.
async fn wait(at: Now, done: impl Fn() -> bool) {
    const LOOK: Duration = Duration::from_millis(1);
    let mut timer = Timer::new();
    poll_fn(|_| {
        loop {
            if done() || ring::now() >= at {
                return Poll::Ready(());
            }
            timer.set(ring::now() + LOOK);
            if !timer.poll_expired() {
                return Poll::Pending;
            }
        }
    })
    .await;
}
