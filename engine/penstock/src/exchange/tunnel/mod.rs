//! Bytes both ways that nobody reads: TCP pass-through, and what follows a 101.
//!
//! The relay's two halves over bare streams. Each side's end is passed on as an end (half-close), and the tunnel is over
//! when both have ended, when either breaks, or when nothing has moved for too long. Where a 101 has agreed to a WebSocket, its frames are
//! looked at ([`websocket`]).

mod datagrams;
mod splice;
mod websocket;

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use proto::h1::{Server, Trailers};
use ring::{Appetite, Buf, Stream, Timer};

use self::datagrams::{Capsules, Datagrams};
use super::Door;
use super::admit::Paced;
use super::half::{Cut, Half, Piece, Sink, Source};
use super::route::Way;
use super::upgrade::Agreed;
use crate::conn::h3::Sending;
use crate::conn::{Lane, Speaks, Transport, bulk_bytes};
use crate::limits;
use crate::qos::Direction;
use crate::upstream::Lease;
use splice::{Counts, Passage, Run};
pub use splice::{Splicer, Splicing};

/// What went through.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tunnelled {
    /// Bytes from the client.
    pub up: u64,
    /// Bytes to the client.
    pub down: u64,
    /// It did not come to its end: one side broke, or nothing moved for too long. A FIN would then be a lie: the streams
    /// are to be reset.
    pub cut: bool,
}

/// One end of a tunnel: bytes both ways, each with an end of its own.
pub trait Pipe {
    /// `None`: nothing more will come.
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Buf>>>;
    /// Ready when it may take more.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Ready when nothing waits to be sent.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Bytes that wait.
    fn unsent(&self) -> usize;
    /// How it receives from now on.
    fn set_appetite(&mut self, appetite: Appetite);
    /// # Errors
    /// There is nobody to send it to.
    fn send(&mut self, buf: Buf) -> io::Result<()>;
    /// Nothing follows.
    fn finish(&mut self);
    /// The next datagram that came beside the bytes.
    fn take_datagram(&mut self) -> Option<Bytes> {
        None
    }
    /// How many were dropped since this was last asked.
    fn take_datagrams_dropped(&mut self) -> u64 {
        0
    }
    fn send_datagram(&mut self, _datagram: &[u8]) -> Sending {
        Sending::Never
    }
    /// Whether it ever may.
    fn takes_datagrams(&self) -> bool {
        false
    }
    /// What it is made of, where that is a stream in the clear and nothing of it has been read ahead.
    fn socket(&mut self) -> Option<&mut Stream>;
}

impl Pipe for Transport {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Buf>>> {
        self.poll_recv(cx)
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_sent(cx, limits::UNSENT_BYTES_MAX)
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_sent(cx, 0)
    }

    fn unsent(&self) -> usize {
        self.unsent()
    }

    fn set_appetite(&mut self, appetite: Appetite) {
        self.set_appetite(appetite);
    }

    fn send(&mut self, buf: Buf) -> io::Result<()> {
        self.send(buf);
        Ok(())
    }

    fn finish(&mut self) {
        self.finish();
    }

    fn socket(&mut self) -> Option<&mut Stream> {
        self.in_the_clear()
    }
}

impl<R: Speaks> Pipe for Lane<'_, R> {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Buf>>> {
        match self {
            Self::H1(conn) => match conn.take_unread() {
                Some(unread) => Poll::Ready(Ok(Some(unread))),
                None => conn.stream.poll_recv(cx),
            },
            Self::H2(stream) => stream.poll_recv(),
            Self::H3(stream) => stream.poll_recv(),
        }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_room(cx)
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::H1(conn) => conn.stream.poll_sent(cx, 0),
            Self::H2(stream) => stream.poll_sent(),
            Self::H3(stream) => stream.poll_sent(),
        }
    }

    fn unsent(&self) -> usize {
        self.unsent()
    }

    fn set_appetite(&mut self, appetite: Appetite) {
        if let Self::H1(conn) = self {
            conn.stream.set_appetite(appetite);
        }
    }

    fn send(&mut self, buf: Buf) -> io::Result<()> {
        match self {
            Self::H1(conn) => conn.stream.send(buf),
            Self::H2(stream) => {
                stream.queue(buf.len()).map_err(|_| io::ErrorKind::ConnectionReset)?;
                stream.send(buf);
            }
            Self::H3(stream) => {
                stream.queue(buf.len()).map_err(|_| io::ErrorKind::ConnectionReset)?;
                stream.send(buf);
            }
        }
        Ok(())
    }

    fn finish(&mut self) {
        match self {
            Self::H1(conn) => conn.stream.finish(),
            // What cannot be finished is gone, and whoever reads from it will hear of that.
            Self::H2(stream) => drop(stream.finish(Trailers::default())),
            Self::H3(stream) => drop(stream.finish(&Trailers::default())),
        }
    }

    fn take_datagram(&mut self) -> Option<Bytes> {
        if let Self::H3(stream) = self { stream.take_datagram() } else { None }
    }

    fn take_datagrams_dropped(&mut self) -> u64 {
        if let Self::H3(stream) = self { stream.take_datagrams_dropped() } else { 0 }
    }

    fn send_datagram(&mut self, datagram: &[u8]) -> Sending {
        if let Self::H3(stream) = self { stream.send_datagram(datagram) } else { Sending::Never }
    }

    fn takes_datagrams(&self) -> bool {
        matches!(self, Self::H3(_))
    }

    fn socket(&mut self) -> Option<&mut Stream> {
        match self {
            Self::H1(conn) if conn.unread().is_empty() => conn.stream.in_the_clear(),
            Self::H1(_) | Self::H2(_) | Self::H3(_) => None,
        }
    }
}

/// Joins two ends until both have ended. `first_up` goes before everything else; what is `paced` goes at its pace, each way by itself. What has
/// gone through is told when it is over, or dropped.
#[allow(clippy::too_many_arguments, reason = "what a tunnel has, and what is told of it")]
pub async fn tunnel(
    door: &Door,
    down: &mut impl Pipe,
    up: &mut impl Pipe,
    first_up: Option<Buf>,
    timer: &mut Timer,
    idle: Duration,
    paced: Option<&Paced<'_>>,
    tunnelled: &mut Tunnelled,
) {
    join(door, down, up, first_up, timer, idle, paced, None, tunnelled).await
}

/// As [`tunnel`], with datagrams beside.
#[allow(clippy::too_many_arguments, reason = "what a tunnel has, and what goes beside it")]
async fn join(
    door: &Door,
    down: &mut impl Pipe,
    up: &mut impl Pipe,
    first_up: Option<Buf>,
    timer: &mut Timer,
    idle: Duration,
    paced: Option<&Paced<'_>>,
    datagrams: Option<Datagrams<'_>>,
    tunnelled: &mut Tunnelled,
) {
    let counters = &door.cells.counters;
    counters.tunnels_total.add(1);
    counters.tunnels_open.add(1);
    if let (Some(paced), Some(first)) = (paced, &first_up) {
        paced.gone(Direction::Up, first.len());
    }
    let splicer = door.desk.splicer.as_ref();
    let passage = |lead, direction, spliced_bytes| {
        let half = Half::new(lead, paced.map(|paced| paced.pacing(direction)));
        let counts = Counts { spliced_bytes, no_pipe: &counters.tunnel_no_pipe_total, pipes: &counters.tunnel_pipes };
        Passage::new(half, splicer, counts)
    };
    let mut halves = Halves {
        upward: passage(first_up, Direction::Up, &counters.tunnel_spliced_in_bytes_total),
        downward: passage(None, Direction::Down, &counters.tunnel_spliced_out_bytes_total),
        moved: ring::now(),
        datagrams,
        tunnelled,
    };
    halves.tunnelled.cut = poll_fn(|cx| halves.poll(down, up, timer, idle, cx)).await;
    counters.tunnels_open.sub(1);
    drop(halves);
    counters.bytes_in_total.add(tunnelled.up);
    counters.tunnel_pipes.set(splicer.map_or(0, Splicer::pipes) as u64);
}

/// The tunnel behind a 101 or an answered CONNECT. Adds the bytes that went to the client, also when it is dropped.
#[allow(clippy::too_many_arguments, reason = "what a tunnel has, and what is told of it")]
pub(super) async fn upgraded(
    door: &Door,
    down: &mut Lane<'_, Server>,
    lease: &mut Lease,
    timer: &mut Timer,
    way: &Way<'_>,
    agreed: Agreed,
    paced: Option<&Paced<'_>>,
    bytes: &mut u64,
) {
    let mut up = lease.lane();
    let cut = match agreed {
        Agreed::WebSocket { deflate } if way.matched.route.websockets.inspect => {
            let passed = websocket::pass(door, down, &mut up, timer, way, deflate, paced).await;
            *bytes += passed.down;
            passed.cut
        }
        _ => {
            let beside = Datagrams::new(&door.cells.counters, agreed == Agreed::Capsules);
            let idle = way.timeouts.idle;
            // Of the requests that have room for this in their task, next to none becomes a tunnel.
            let cut = ring::pooled(async {
                let mut told = Adds { bytes, tunnelled: Tunnelled::default() };
                join(door, down, &mut up, None, timer, idle, paced, Some(beside), &mut told.tunnelled).await;
                told.tunnelled.cut
            });
            let cut = cut.await;
            Cuts { client: cut, endpoint: cut }
        }
    };
    if cut.client {
        down.abort_written();
    }
    if cut.endpoint {
        up.cut();
    }
}

/// Adds what went to the client, in the end.
struct Adds<'a> {
    bytes: &'a mut u64,
    tunnelled: Tunnelled,
}

impl Drop for Adds<'_> {
    fn drop(&mut self) {
        *self.bytes += self.tunnelled.down;
    }
}

/// Which ends of a tunnel are to be reset.
#[derive(Clone, Copy, Debug, Default)]
struct Cuts {
    client: bool,
    endpoint: bool,
}

struct Halves<'a> {
    upward: Passage<'a>,
    downward: Passage<'a>,
    moved: ring::Now,
    datagrams: Option<Datagrams<'a>>,
    tunnelled: &'a mut Tunnelled,
}

impl Drop for Halves<'_> {
    fn drop(&mut self) {
        (self.tunnelled.up, self.tunnelled.down) = (self.upward.half.bytes, self.downward.half.bytes);
    }
}

impl Halves<'_> {
    /// Moves both directions; ready when it is over, with whether it was cut.
    fn poll(
        &mut self,
        down: &mut impl Pipe,
        up: &mut impl Pipe,
        timer: &mut Timer,
        idle: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<bool> {
        let before = self.bytes();
        let capsules = self.datagrams.as_mut().and_then(|beside| beside.capsules.as_mut());
        let [upward, downward] = capsules.map_or([None, None], |ways| ways.each_mut().map(Some));
        if self.upward.poll(down, up, upward, cx).is_ready() || self.downward.poll(up, down, downward, cx).is_ready() {
            return Poll::Ready(true);
        }
        let ended = [self.upward.is_ended(), self.downward.is_ended()];
        if let Some(beside) = &self.datagrams
            && beside.pass(down, up, ended, cx)
        {
            self.moved = ring::now();
        }
        if ended == [true; 2]
            && let Poll::Ready(sent) = both_sent(down, up, cx)
        {
            return Poll::Ready(!sent);
        }
        // Who waits for a turn is held up, and not silent.
        let turn = self.turn();
        if turn.is_some() || self.bytes() != before {
            self.moved = ring::now();
        }
        timer.set(turn.unwrap_or(self.moved + idle));
        if timer.poll_expired() { Poll::Ready(true) } else { Poll::Pending }
    }

    /// When what waits for its pace may go on. One that has come, and finds no room, is nothing to wait for.
    fn turn(&self) -> Option<ring::Now> {
        let now = ring::now();
        let pacings = [&self.upward, &self.downward].into_iter().filter_map(|way| way.half.pacing.as_ref());
        pacings.filter_map(|pacing| pacing.turn_after(now)).min()
    }

    fn bytes(&self) -> u64 {
        self.upward.half.bytes + self.downward.half.bytes
    }
}

/// Ready when nothing is unsent any more; false when sending failed.
fn both_sent(down: &mut impl Pipe, up: &mut impl Pipe, cx: &mut Context<'_>) -> Poll<bool> {
    match [down.poll_sent(cx), up.poll_sent(cx)] {
        [Poll::Ready(down), Poll::Ready(up)] => Poll::Ready(down.is_ok() && up.is_ok()),
        _ => Poll::Pending,
    }
}

/// Full pieces mean bulk: the next ones come straight into larger buffers. Small ones mean talk.
fn appetite_after(piece: &Buf) -> Appetite {
    let bulk = piece.len() as u64 >= limits::BULK_FROM;
    if bulk { Appetite::Bulk(bulk_bytes()) } else { Appetite::Any }
}

/// A pipe, and the capsules that it is sent, if they are any.
struct Raw<'a, 'c, P>(&'a mut P, Option<&'a mut Capsules<'c>>);

impl<P: Pipe> Source for Raw<'_, '_, P> {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Cut>> {
        match self.0.poll_recv(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(data)) => {
                if let Some(data) = &data {
                    self.0.set_appetite(appetite_after(data));
                }
                Poll::Ready(Ok(Piece { last: data.is_none(), data, ..Piece::default() }))
            }
            Poll::Ready(Err(_)) => Poll::Ready(Err(Cut::Source(None))),
        }
    }
}

/// Says no more once there was much.
struct Counted<'a, P> {
    pipe: &'a mut P,
    run: &'a mut Run,
}

impl<P: Pipe> Source for Counted<'_, P> {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Cut>> {
        if self.run.is_long() {
            return Poll::Pending;
        }
        let piece = Raw(self.pipe, None).poll_piece(cx);
        if let Poll::Ready(Ok(Piece { data: Some(data), .. })) = &piece {
            self.run.came(data);
        }
        piece
    }
}

impl<P: Pipe> Sink for Raw<'_, '_, P> {
    fn poll_credit(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        self.0.poll_room(cx).map_err(|_| Cut::Sink)
    }

    fn frame(&mut self, _data: &mut Buf) -> Result<(), Cut> {
        Ok(())
    }

    fn end(&mut self, _trailers: Trailers, _long: &mut Vec<u8>) -> Result<&'static [u8], Cut> {
        Ok(b"")
    }

    fn send(&mut self, buf: Buf) {
        match &mut self.1 {
            Some(capsules) => capsules.send(self.0, buf),
            // Who is not there any more says so when there shall be more.
            None => drop(self.0.send(buf)),
        }
    }
}
