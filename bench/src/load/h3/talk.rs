//! What one connection does: requests on as many streams as are asked for, each followed by the next one.

use std::cell::RefCell;
use std::io;

use quinn_proto::{Chunks, Dir, Event, ReadError, StreamEvent, StreamId};
use ring::Now;

use super::link::{Client, Link};
use super::message::{Answer, CONTROL_STREAM};

/// What all connections ask for.
pub(super) struct Asked {
    pub(super) client: Client,
    pub(super) request: Vec<u8>,
    /// Bytes that an answer's body must have.
    pub(super) body: u64,
    /// Requests at once on a connection.
    pub(super) streams: usize,
    /// One request a connection.
    pub(super) close: bool,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Tally {
    /// Microseconds of each answer.
    pub(super) times: Vec<f64>,
    pub(super) errors: u64,
    /// What was wrong first.
    pub(super) why: Option<String>,
    /// Connections at work.
    pub(super) busy: usize,
    pub(super) seconds: f64,
}

impl Tally {
    pub(super) fn failed(&mut self, why: &str) {
        self.errors += 1;
        self.why.get_or_insert_with(|| why.to_owned());
    }
}

/// A connection, or one after the other where each is for one request; at least one request.
pub(super) async fn until(until: Now, asked: &Asked, tally: &RefCell<Tally>) {
    loop {
        let begun = ring::precise_now();
        let mut talk = match Talk::new(asked, until, begun, tally) {
            Ok(talk) => talk,
            Err(error) => return tally.borrow_mut().failed(&error.to_string()),
        };
        if let Err(error) = talk.run().await {
            // Each request under way has failed; and if there was none, the connection.
            (0..talk.answers.len().max(1)).for_each(|_| tally.borrow_mut().failed(&error.to_string()));
            return;
        }
        talk.link.close().await;
        if !asked.close || ring::precise_now() >= until {
            return;
        }
    }
}

struct Talk<'a> {
    asked: &'a Asked,
    tally: &'a RefCell<Tally>,
    until: Now,
    link: Link,
    ready: bool,
    /// Requests made.
    count: u64,
    /// When the connection began: where each is for one request, its time is that request's.
    begun: Now,
    answers: Vec<(StreamId, Now, Answer)>,
}

impl<'a> Talk<'a> {
    fn new(asked: &'a Asked, until: Now, begun: Now, tally: &'a RefCell<Tally>) -> io::Result<Self> {
        let link = Link::new(&asked.client)?;
        Ok(Self { asked, tally, until, link, ready: false, count: 0, begun, answers: Vec::new() })
    }

    /// Until the time is over and all is answered.
    async fn run(&mut self) -> io::Result<()> {
        loop {
            self.link.turn().await?;
            while let Some(event) = self.link.connection.poll() {
                self.hear(event)?;
            }
            if self.ready {
                self.ask()?;
                if self.answers.is_empty() && !self.wants_more() && self.count > 0 {
                    return Ok(());
                }
            }
        }
    }

    fn hear(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Connected => {
                let stream =
                    self.link.connection.streams().open(Dir::Uni).ok_or_else(|| problem("no control stream"))?;
                self.write(stream, CONTROL_STREAM)?;
                self.ready = true;
            }
            Event::ConnectionLost { reason } => return Err(io::Error::other(reason)),
            Event::Stream(StreamEvent::Readable { id }) if id.dir() == Dir::Bi => self.read(id),
            Event::Stream(StreamEvent::Readable { id }) => self.pass_over(id),
            Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => {
                while let Some(stream) = self.link.connection.streams().accept(Dir::Uni) {
                    self.pass_over(stream);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn wants_more(&self) -> bool {
        if self.asked.close { self.count == 0 } else { self.count == 0 || ring::now() < self.until }
    }

    /// Opens as many streams as may be.
    fn ask(&mut self) -> io::Result<()> {
        while self.answers.len() < self.asked.streams && self.wants_more() {
            let Some(stream) = self.link.connection.streams().open(Dir::Bi) else { break };
            self.write(stream, &self.asked.request)?;
            self.link.connection.send_stream(stream).finish().map_err(io::Error::other)?;
            let begun = if self.asked.close { self.begun } else { ring::precise_now() };
            self.answers.push((stream, begun, Answer::default()));
            self.count += 1;
        }
        Ok(())
    }

    /// What is written here is short: a server whose windows are too small for it is told.
    fn write(&mut self, stream: StreamId, bytes: &[u8]) -> io::Result<()> {
        match self.link.connection.send_stream(stream).write(bytes) {
            Ok(count) if count == bytes.len() => Ok(()),
            Ok(_) => Err(problem("a window too small for a head")),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn read(&mut self, stream: StreamId) {
        let Some(at) = self.answers.iter().position(|(id, _, _)| *id == stream) else { return };
        let answer = &mut self.answers[at].2;
        let ended = drain(&mut self.link, stream, |bytes| answer.read(bytes));
        let why = match ended {
            Ok(false) => return,
            Ok(true) => answer.judge(self.asked.body),
            Err(error) => Some(error.to_string()),
        };
        let (_, begun, _) = self.answers.swap_remove(at);
        let mut tally = self.tally.borrow_mut();
        match why {
            None => tally.times.push(ring::precise_now().since(begun).as_nanos() as f64 / 1e3),
            Some(why) => tally.failed(&why),
        }
    }

    /// SETTINGS, GOAWAY and QPACK's streams: nothing in them changes what this client does.
    fn pass_over(&mut self, stream: StreamId) {
        let _ = drain(&mut self.link, stream, |_| {});
    }
}

/// Reads what has come of a stream; true at its end.
pub(super) fn drain(link: &mut Link, stream: StreamId, mut take: impl FnMut(&[u8])) -> io::Result<bool> {
    let mut received = link.connection.recv_stream(stream);
    let mut chunks: Chunks<'_> = received.read(true).map_err(io::Error::other)?;
    let ended = loop {
        match chunks.next(usize::MAX) {
            Ok(Some(chunk)) => take(&chunk.bytes),
            Ok(None) => break Ok(true),
            Err(ReadError::Blocked) => break Ok(false),
            Err(error) => break Err(io::Error::other(error)),
        }
    };
    // Whether windows have moved is seen with the next flush, which always follows.
    let _ = chunks.finalize();
    ended
}

fn problem(why: &'static str) -> io::Error {
    io::Error::other(why)
}
