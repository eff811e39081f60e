//! Connections of QUIC that are up to something: each comes back when it is cut off.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use quinn_proto::{ConnectionError, Dir, Event, StreamEvent, StreamId, VarInt};
use ring::Now;
use xtask::Outcome;

use super::super::attacker::{AWAY, TICK, Tally};
use super::super::mischief::{Attack, How};
use super::Streams;
use crate::load::h3::link::{Client, Link};
use crate::load::h3::message::CONTROL_STREAM;
use crate::load::own;

/// H3_REQUEST_CANCELLED (RFC 9114 §8.1).
const CANCELLED: u32 = 0x10c;

/// All connections of an attack, for so long.
pub(in super::super) fn run(attack: &Attack, to: SocketAddr, trust: &Path, time: Duration) -> Outcome<Tally> {
    let streams = match attack.how {
        How::Streams(streams) => Some(streams),
        _ => None,
    };
    let window = streams.map_or(1 << 20, |streams| streams.window);
    let client = Rc::new(Client::taking(to, trust, window)?);
    let (connections, units) = (attack.connections, attack.units);
    let tally = own::quiet_ring()?.block_on(async move {
        let tally = Rc::new(RefCell::new(Tally::default()));
        let begun = ring::precise_now();
        let until = begun + time;
        for _ in 0..connections {
            let (client, tally) = (Rc::clone(&client), Rc::clone(&tally));
            ring::spawn(async move {
                while ring::precise_now() < until {
                    match streams {
                        Some(streams) => sit(&client, units, streams, until, &tally).await,
                        None => greet(&client, until, &tally).await,
                    }
                }
            });
        }
        ring::sleep_until(until).await;
        let millis = ring::precise_now().since(begun).as_millis() as u64;
        Tally { millis, ..tally.take() }
    });
    Ok(tally)
}

/// Shakes hands, and is gone.
async fn greet(client: &Client, until: Now, tally: &RefCell<Tally>) {
    let Ok(mut link) = Link::new(client) else { return ring::sleep(AWAY).await };
    let greeted = ring::until(until, async {
        loop {
            link.turn().await?;
            while let Some(event) = link.connection.poll() {
                match event {
                    Event::Connected => return Ok(()),
                    Event::ConnectionLost { .. } => return Err(io::ErrorKind::ConnectionReset.into()),
                    _ => {}
                }
            }
        }
    });
    match greeted.await {
        Some(Ok::<_, io::Error>(())) => {
            tally.borrow_mut().units += 1;
            link.close().await;
        }
        Some(Err(_)) => {
            tally.borrow_mut().cut_off += 1;
            ring::sleep(AWAY).await;
        }
        None => {}
    }
}

/// One connection, until it is cut off or the time is over.
async fn sit(client: &Client, units: u32, streams: Streams, until: Now, tally: &RefCell<Tally>) {
    let Ok(link) = Link::new(client) else { return ring::sleep(AWAY).await };
    let mut seat = Seat { link, ready: false, asked: Vec::new(), given_up: Vec::new() };
    let mut said = 0;
    let outcome = loop {
        let tick = ring::precise_now() + TICK;
        if tick > until {
            return seat.link.close().await;
        }
        if let Err(why) = seat.wait(tick).await {
            break why;
        }
        if seat.ready {
            let count = if said == 0 { 1 } else { units };
            let mut speaker = Speaker { seat: &mut seat, authority: client.to, said: 0 };
            // A unit that finds no room is not said.
            let _ = (said..said + count).try_for_each(|nth| (streams.unit)(&mut speaker, nth));
            tally.borrow_mut().units += speaker.said;
            said += count;
            seat.link.flush().await;
            seat.give_up();
        }
    };
    count_end(&mut tally.borrow_mut(), outcome);
    ring::sleep(AWAY).await;
}

fn count_end(tally: &mut Tally, code: Option<u64>) {
    tally.cut_off += 1;
    if let Some(code) = code {
        *tally.codes.entry(code).or_default() += 1;
    }
}

struct Seat {
    link: Link,
    ready: bool,
    /// Requests, in the order in which they were begun.
    asked: Vec<StreamId>,
    /// To be reset, or stopped, when they are on their way.
    given_up: Vec<(StreamId, bool)>,
}

impl Seat {
    /// Hears what comes until then.
    ///
    /// # Errors
    /// The connection has ended; with what code, if it said one.
    async fn wait(&mut self, until: Now) -> Result<(), Option<u64>> {
        while let Some(turned) = ring::until(until, self.link.turn()).await {
            turned.map_err(|_| None)?;
            while let Some(event) = self.link.connection.poll() {
                self.hear(event)?;
            }
        }
        Ok(())
    }

    fn hear(&mut self, event: Event) -> Result<(), Option<u64>> {
        match event {
            Event::Connected => {
                let stream = self.link.connection.streams().open(Dir::Uni).ok_or(None)?;
                self.link.connection.send_stream(stream).write(CONTROL_STREAM).map_err(|_| None)?;
                self.ready = true;
            }
            Event::ConnectionLost { reason: ConnectionError::ApplicationClosed(close) } => {
                return Err(Some(close.error_code.into_inner()));
            }
            Event::ConnectionLost { .. } => return Err(None),
            Event::Stream(StreamEvent::Opened { dir }) => while self.link.connection.streams().accept(dir).is_some() {},
            _ => {}
        }
        Ok(())
    }

    fn give_up(&mut self) {
        for (stream, resets) in self.given_up.drain(..) {
            let code = VarInt::from_u32(CANCELLED);
            // The other side may have ended it meanwhile.
            let _ = match resets {
                true => self.link.connection.send_stream(stream).reset(code),
                false => self.link.connection.recv_stream(stream).stop(code),
            };
        }
    }
}

/// What a unit is said by.
pub(in super::super) struct Speaker<'a> {
    seat: &'a mut Seat,
    authority: SocketAddr,
    /// How often something was.
    said: u64,
}

impl Speaker<'_> {
    pub(super) fn authority(&self) -> String {
        self.authority.to_string()
    }

    /// Opens a request's stream with these bytes, and goes on; `None` when there may be no more of them now.
    pub(super) fn begin(&mut self, bytes: &[u8]) -> io::Result<Option<StreamId>> {
        let Some(stream) = self.seat.link.connection.streams().open(Dir::Bi) else { return Ok(None) };
        self.seat.link.connection.send_stream(stream).write(bytes).map_err(io::Error::other)?;
        self.seat.asked.push(stream);
        self.said += 1;
        Ok(Some(stream))
    }

    /// A whole request.
    pub(super) fn ask(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.begin(bytes)? {
            Some(stream) => self.seat.link.connection.send_stream(stream).finish().map_err(io::Error::other),
            None => Ok(()),
        }
    }

    /// A stream of one direction, which stays open.
    pub(super) fn one_way(&mut self, bytes: &[u8]) -> io::Result<()> {
        let connection = &mut self.seat.link.connection;
        let stream = connection.streams().open(Dir::Uni).ok_or(io::ErrorKind::WouldBlock)?;
        connection.send_stream(stream).write(bytes).map_err(io::Error::other)?;
        self.said += 1;
        Ok(())
    }

    pub(super) fn reset_soon(&mut self, stream: StreamId) {
        self.seat.given_up.push((stream, true));
    }

    /// Of a request that is complete: else it would stay open.
    pub(super) fn stop_soon(&mut self, stream: StreamId) {
        let _ = self.seat.link.connection.send_stream(stream).finish();
        self.seat.given_up.push((stream, false));
    }

    /// Takes so many bytes of the nth request's answer, counted round.
    pub(super) fn sip(&mut self, nth: usize, bytes: usize) {
        let Seat { link, asked, .. } = self.seat;
        let Some(stream) = nth.checked_rem(asked.len()).map(|at| asked[at]) else { return };
        if let Ok(mut chunks) = link.connection.recv_stream(stream).read(true) {
            let _ = chunks.next(bytes);
            let _ = chunks.finalize();
            self.said += 1;
        }
    }
}
