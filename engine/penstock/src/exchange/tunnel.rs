//! Bytes both ways that nobody reads: TCP pass-through, and what follows a 101.
//!
//! The relay's two halves over bare streams. Each side's end is passed on as an end (half-close), and the tunnel is over
//! when both have ended, when either breaks, or when nothing has moved for too long.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use proto::h1::{Server, Trailers};
use ring::{Appetite, Buf, Timer};

use super::Door;
use super::half::{Cut, Half, Piece, Sink, Source, poll_unsent};
use crate::conn::{Conn, Transport, bulk_bytes};
use crate::limits;
use crate::upstream::Lease;

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

/// Joins two streams until both have ended. `first_up` and `first_down` go before everything else.
pub async fn tunnel(
    door: &Door,
    down: &mut Transport,
    up: &mut Transport,
    first_up: Option<Buf>,
    first_down: Option<Buf>,
    timer: &mut Timer,
    idle: Duration,
) -> Tunnelled {
    let counters = &door.cells.counters;
    counters.tunnels_total.add(1);
    counters.tunnels_open.add(1);
    let mut halves = Halves {
        upward: Half::new(first_up, None),
        downward: Half::new(first_down, None),
        ended: [false; 2],
        moved: ring::now(),
    };
    let cut = poll_fn(|cx| halves.poll(down, up, timer, idle, cx)).await;
    counters.tunnels_open.sub(1);
    let moved = Tunnelled { up: halves.upward.bytes, down: halves.downward.bytes, cut };
    counters.bytes_in_total.add(moved.up);
    moved
}

/// The tunnel behind a 101 or an answered CONNECT. Returns the bytes that went to the client.
pub(super) async fn upgraded(
    door: &Door,
    conn: &mut Conn<Server>,
    lease: &mut Lease,
    timer: &mut Timer,
    idle: Duration,
) -> u64 {
    let up = &mut lease.conn;
    let (first_up, first_down) = (conn.take_unread(), up.take_unread());
    let tunnelled = tunnel(door, &mut conn.stream, &mut up.stream, first_up, first_down, timer, idle).await;
    if tunnelled.cut {
        conn.machine.abort_written();
        up.stream.reset_on_close();
    }
    tunnelled.down
}

struct Halves {
    upward: Half<'static>,
    downward: Half<'static>,
    ended: [bool; 2],
    moved: ring::Now,
}

impl Halves {
    /// Moves both directions; ready when it is over, with whether it was cut.
    fn poll(
        &mut self,
        down: &mut Transport,
        up: &mut Transport,
        timer: &mut Timer,
        idle: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<bool> {
        let before = self.upward.bytes + self.downward.bytes;
        let broken = Self::poll_half(&mut self.upward, &mut self.ended[0], down, up, cx)
            || Self::poll_half(&mut self.downward, &mut self.ended[1], up, down, cx);
        if broken {
            return Poll::Ready(true);
        }
        if self.ended == [true; 2]
            && let Poll::Ready(sent) = both_sent(down, up, cx)
        {
            return Poll::Ready(!sent);
        }
        if self.upward.bytes + self.downward.bytes != before {
            self.moved = ring::now();
        }
        timer.set(self.moved + idle);
        if timer.poll_expired() { Poll::Ready(true) } else { Poll::Pending }
    }

    /// Moves one direction; true when it broke.
    fn poll_half(
        half: &mut Half<'_>,
        ended: &mut bool,
        from: &mut Transport,
        to: &mut Transport,
        cx: &mut Context<'_>,
    ) -> bool {
        if *ended {
            return false;
        }
        match half.poll(&mut Raw { stream: from }, &mut Raw { stream: to }, cx) {
            Poll::Pending => false,
            Poll::Ready(Ok(())) => {
                *ended = true;
                to.finish();
                false
            }
            Poll::Ready(Err(_)) => true,
        }
    }
}

/// Ready when nothing is unsent any more; false when sending failed.
fn both_sent(down: &mut Transport, up: &mut Transport, cx: &mut Context<'_>) -> Poll<bool> {
    match [down.poll_sent(cx, 0), up.poll_sent(cx, 0)] {
        [Poll::Ready(down), Poll::Ready(up)] => Poll::Ready(down.is_ok() && up.is_ok()),
        _ => Poll::Pending,
    }
}

struct Raw<'a> {
    stream: &'a mut Transport,
}

impl Source for Raw<'_> {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Cut>> {
        match self.stream.poll_recv(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(data)) => {
                // Full pieces mean bulk: the next ones come straight into larger buffers. Small ones mean talk.
                if let Some(data) = &data {
                    let bulk = data.len() as u64 >= limits::BULK_FROM;
                    self.stream.set_appetite(if bulk { Appetite::Bulk(bulk_bytes()) } else { Appetite::Any });
                }
                Poll::Ready(Ok(Piece { last: data.is_none(), data, ..Piece::default() }))
            }
            Poll::Ready(Err(_)) => Poll::Ready(Err(Cut::Source(None))),
        }
    }
}

impl Sink for Raw<'_> {
    fn poll_credit(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cut>> {
        poll_unsent(self.stream, cx)
    }

    fn frame(&mut self, _data: &mut Buf) -> Result<(), Cut> {
        Ok(())
    }

    fn end(&mut self, _trailers: &Trailers, _long: &mut Vec<u8>) -> Result<&'static [u8], Cut> {
        Ok(b"")
    }

    fn send(&mut self, buf: Buf) {
        self.stream.send(buf);
    }
}
