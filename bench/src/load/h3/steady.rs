//! A client that behaves: one connection, and requests at a steady rate, whether or not earlier ones were slow.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use quinn_proto::{Dir, Event, StreamEvent, StreamId};
use xtask::Outcome;

use super::link::{Client, Link};
use super::message::{self, Answer, CONTROL_STREAM};
use super::own;
use super::talk::drain;
use crate::scenario::C64;

/// Asks for a time, so many times a second, on a connection that has been made before: microseconds from when each request was due to the end of its
/// answer. A request that is not answered is an error.
pub(crate) fn steadily(to: SocketAddr, trust: &Path, rate: f64, time: Duration) -> Outcome<Vec<f64>> {
    let client = Client::new(to, trust)?;
    let request = message::request(&to.to_string(), C64.path);
    let asked = own::quiet_ring()?.block_on(async move {
        let mut steady = Steady { link: Link::new(&client)?, answer: None, ready: false };
        while !steady.ready {
            steady.turn().await?;
        }
        let (mut times, mut nth, begun) = (Vec::new(), 0, ring::precise_now());
        loop {
            let due = begun + Duration::from_secs_f64(f64::from(nth) / rate);
            if due.since(begun) >= time {
                steady.link.close().await;
                return Ok(times);
            }
            // What comes meanwhile is heard.
            while let Some(turned) = ring::until(due, steady.turn()).await {
                turned?;
            }
            steady.ask(&request)?;
            while steady.answer.is_some() {
                steady.turn().await?;
            }
            times.push(ring::precise_now().since(due).as_nanos() as f64 / 1e3);
            nth += 1;
        }
    });
    asked.map_err(|error: io::Error| format!("the client that behaves was not answered: {error}"))
}

struct Steady {
    link: Link,
    /// Of the request that is under way.
    answer: Option<(StreamId, Answer)>,
    ready: bool,
}

impl Steady {
    fn ask(&mut self, request: &[u8]) -> io::Result<()> {
        let connection = &mut self.link.connection;
        let stream = connection.streams().open(Dir::Bi).ok_or(io::ErrorKind::WouldBlock)?;
        connection.send_stream(stream).write(request).map_err(io::Error::other)?;
        connection.send_stream(stream).finish().map_err(io::Error::other)?;
        self.answer = Some((stream, Answer::default()));
        Ok(())
    }

    async fn turn(&mut self) -> io::Result<()> {
        self.link.turn().await?;
        while let Some(event) = self.link.connection.poll() {
            match event {
                Event::Connected => {
                    let stream = self.link.connection.streams().open(Dir::Uni).ok_or(io::ErrorKind::WouldBlock)?;
                    self.link.connection.send_stream(stream).write(CONTROL_STREAM).map_err(io::Error::other)?;
                    self.ready = true;
                }
                Event::ConnectionLost { reason } => return Err(io::Error::other(reason)),
                Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => {
                    while let Some(stream) = self.link.connection.streams().accept(Dir::Uni) {
                        self.read(stream)?;
                    }
                }
                Event::Stream(StreamEvent::Readable { id }) => self.read(id)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads what has come: of the answer; of the server's other streams nothing matters.
    fn read(&mut self, stream: StreamId) -> io::Result<()> {
        let Some((_, answer)) = self.answer.as_mut().filter(|(id, _)| *id == stream) else {
            return drain(&mut self.link, stream, |_| {}).map(drop);
        };
        if drain(&mut self.link, stream, |bytes| answer.read(bytes))? {
            let wrong = answer.judge(C64.body as u64);
            self.answer = None;
            return wrong.map_or(Ok(()), |why| Err(io::Error::other(why)));
        }
        Ok(())
    }
}
