//! One connection of a load: takes the next request, sends it, judges the response.

use std::cell::Cell;
use std::cmp::min;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use proto::http::Method;
use ring::{Appetite, Buf, Now, Stream, Timer};

use super::Load;
use super::report::{Failed, Live};
use super::response::{Answer, Reader, Step};
use super::schedule::Schedule;
use crate::pattern::Pattern;

/// Bodies larger than this are received in bulk.
const BULK_ABOVE: u64 = 32 << 10;
const BULK: Appetite = Appetite::Bulk(256 << 10);
/// A request goes out in pieces of this size at the most: the ring's large buffers.
const PIECE_BYTES: usize = 256 << 10;
/// Between attempts to connect: doubled with each failure, so that a target that is down is not attacked.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// What all connections of one load share.
pub(crate) struct Shared {
    load: Load,
    pub(crate) schedule: Schedule,
    live: Live,
    request: Vec<u8>,
    method: Method,
    pattern: Option<Pattern>,
    /// Connections that are up, or have failed to come up.
    pub(crate) ready: Cell<usize>,
    /// Due times of requests in flight that are given up at the end.
    given_up: Cell<Option<Now>>,
}

impl Shared {
    pub(crate) fn new(load: Load, live: Live) -> Self {
        Self {
            schedule: Schedule::new(&load),
            live,
            request: request(&load),
            method: Method::from_bytes(load.method.as_bytes()),
            pattern: load.verify.then(Pattern::new),
            ready: Cell::new(0),
            given_up: Cell::new(None),
            load,
        }
    }

    /// Time is up: what is due and not sent is unanswered, and so is what is in flight once its connection is dropped.
    pub(crate) fn give_up(&self, now: Now) {
        for due in self.schedule.untaken(now) {
            self.live.record(due, now, None, Some(Failed::Unanswered));
        }
        self.schedule.cut();
        self.given_up.set(Some(now));
    }
}

/// The request's bytes.
fn request(load: &Load) -> Vec<u8> {
    let mut request = format!("{} {} HTTP/1.1\r\nHost: {}\r\n", load.method, load.path, load.host).into_bytes();
    if load.connection_per_request {
        request.extend_from_slice(b"Connection: close\r\n");
    }
    request.extend_from_slice(load.fields.as_bytes());
    if let Some(body) = &load.body {
        request.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    request.extend_from_slice(b"\r\n");
    request.extend_from_slice(load.body.as_deref().unwrap_or_default());
    request
}

/// A connection's task.
pub(crate) async fn work(shared: Rc<Shared>) {
    let mut worker = Worker {
        shared: &shared,
        stream: None,
        reader: Reader::new(shared.method),
        unread: None,
        deadline: Timer::new(),
        pause: PAUSE_MIN,
    };
    if !shared.load.connection_per_request {
        // A failure shows again with the first request, and is counted then.
        worker.deadline.set(ring::now() + shared.load.timeout);
        let _ = worker.dial().await;
    }
    shared.ready.set(shared.ready.get() + 1);
    while let Some(due) = shared.schedule.next().await {
        let in_flight = InFlight { shared: &shared, due: Some(due) };
        worker.deadline.set(due.max(ring::now()) + shared.load.timeout);
        let outcome = worker.exchange().await;
        in_flight.settle(outcome);
        if outcome.is_err_and(|failed| failed == Failed::Connect) {
            ring::sleep(worker.pause).await;
            worker.pause = min(worker.pause * 2, PAUSE_MAX);
        }
    }
}

/// A request on its way. Dropped with its task at the end of a load, it is unanswered.
struct InFlight<'a> {
    shared: &'a Shared,
    due: Option<Now>,
}

impl InFlight<'_> {
    fn settle(mut self, outcome: Result<Answer, Failed>) {
        let Some(due) = self.due.take() else { return };
        let shared = self.shared;
        let load = &shared.load;
        let (answer, failed) = match outcome {
            Err(failed) => (None, Some(failed)),
            Ok(answer) => {
                let failed = if answer.shape.status != load.status {
                    Some(Failed::Status)
                } else if !answer.intact || load.body_bytes.is_some_and(|bytes| bytes != answer.body_bytes) {
                    Some(Failed::Corrupt)
                } else {
                    None
                };
                (Some((answer.shape.status, answer.body_bytes)), failed)
            }
        };
        shared.live.record(due, ring::precise_now(), answer, failed);
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if let (Some(due), Some(now)) = (self.due, self.shared.given_up.get()) {
            self.shared.live.record(due, now, None, Some(Failed::Unanswered));
        }
    }
}

struct Worker<'a> {
    shared: &'a Shared,
    stream: Option<Stream>,
    reader: Reader,
    unread: Option<Buf>,
    deadline: Timer,
    pause: Duration,
}

impl Worker<'_> {
    /// One request and its response. The connection is kept only if it is fit for another.
    async fn exchange(&mut self) -> Result<Answer, Failed> {
        // An idle connection may be closed by its peer at any time; that is nobody's error.
        if self.stream.as_ref().is_some_and(|stream| !stream.is_quiet()) {
            self.stream = None;
        }
        if self.stream.is_none() {
            self.dial().await?;
        }
        let outcome = match self.send().await {
            Ok(()) => self.answer().await,
            Err(failed) => Err(failed),
        };
        let reusable = outcome.is_ok_and(|answer| answer.shape.persistent);
        if !reusable || self.shared.load.connection_per_request {
            self.stream = None;
        }
        outcome
    }

    async fn dial(&mut self) -> Result<(), Failed> {
        let Some(at) = self.deadline.at() else {
            return Err(Failed::Connect);
        };
        match ring::until(at, Stream::connect(&self.shared.load.target)).await {
            None => Err(Failed::Timeout),
            Some(Err(_)) => Err(Failed::Connect),
            Some(Ok(mut stream)) => {
                if self.reader.is_larger_than(BULK_ABOVE)
                    || self.shared.load.body_bytes.is_some_and(|bytes| bytes > BULK_ABOVE)
                {
                    stream.set_appetite(BULK);
                }
                self.shared.live.connected();
                self.pause = PAUSE_MIN;
                self.unread = None;
                self.stream = Some(stream);
                Ok(())
            }
        }
    }

    async fn send(&mut self) -> Result<(), Failed> {
        self.reader.restart();
        let Some(stream) = &mut self.stream else {
            return Err(Failed::Connect);
        };
        let request = &self.shared.request;
        if request.len() <= PIECE_BYTES {
            stream.send(Buf::copy_of(request));
            return Ok(());
        }
        for piece in request.chunks(PIECE_BYTES) {
            stream.send(Buf::copy_of(piece));
            let deadline = &mut self.deadline;
            poll_fn(|cx| match stream.poll_sent(cx, PIECE_BYTES) {
                Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
                Poll::Ready(Err(_)) => Poll::Ready(Err(Failed::Reset)),
                Poll::Pending if deadline.poll_expired() => Poll::Ready(Err(Failed::Timeout)),
                Poll::Pending => Poll::Pending,
            })
            .await?;
        }
        Ok(())
    }

    async fn answer(&mut self) -> Result<Answer, Failed> {
        let verify = self.shared.pattern.as_ref();
        let mut bulk = false;
        loop {
            let Some(received) = self.receive().await? else {
                // Whether that is an orderly end of a response without a length.
                return self.reader.end().map_err(|_| Failed::Reset);
            };
            let mut unread = match self.unread.take() {
                None => received,
                Some(unread) => {
                    let mut joined = unread.with_more_room(received.len()).ok_or(Failed::Malformed)?;
                    joined.extend(received.bytes());
                    joined
                }
            };
            match self.reader.read(unread.bytes_mut(), verify).map_err(|_| Failed::Malformed)? {
                Step::Whole(read, answer) if read == unread.len() => return Ok(answer),
                // Bytes that nobody asked for.
                Step::Whole(..) => return Err(Failed::Malformed),
                Step::More(read) => {
                    unread.consume(read);
                    self.unread = (!unread.is_empty()).then_some(unread);
                }
            }
            if !bulk && self.reader.is_larger_than(BULK_ABOVE) {
                bulk = true;
                if let Some(stream) = &mut self.stream {
                    stream.set_appetite(BULK);
                }
            }
        }
    }

    /// What comes next; `None` at the connection's end.
    async fn receive(&mut self) -> Result<Option<Buf>, Failed> {
        let Some(stream) = &mut self.stream else {
            return Err(Failed::Reset);
        };
        let deadline = &mut self.deadline;
        poll_fn(|cx| match stream.poll_recv(cx) {
            Poll::Ready(Ok(received)) => Poll::Ready(Ok(received)),
            Poll::Ready(Err(_)) => Poll::Ready(Err(Failed::Reset)),
            Poll::Pending if deadline.poll_expired() => Poll::Ready(Err(Failed::Timeout)),
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}
