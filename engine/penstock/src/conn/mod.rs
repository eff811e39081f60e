//! A connection of either side: a stream, its wire machine, and the bytes between the two.
//!
//! `session` and `upstream` are the two roles of this one thing. [`Conn`] speaks HTTP/1 and carries one exchange at a time;
//! a [`Multiplex`] speaks HTTP/2 and carries many. What either gives to one exchange is a [`Lane`], and `exchange::relay` joins any two of
//! those. What holds here:
//! bytes pass from the stream to the machine in the order in which they came, each once; a buffer has one owner; an idle
//! connection holds no buffer.

mod h2;
pub mod h3;
mod lane;
mod mail;
mod multiplexed;
mod shelf;
mod transport;

use std::io;
use std::task::{Context, Poll, ready};

use proto::h1::{CloseReason, Connection, Eof, Role};
use proto::http::{Fields, Status};
use proto::{Event, Malformed};
use ring::{Appetite, Buf};

pub use self::h2::{Multiplex, Stream};
pub use self::lane::{Composed, Lane};
pub use self::multiplexed::{Arrival, Asks, Ended, Multiplexed};
pub use self::shelf::{Index, Speaks};
pub use self::transport::Transport;
use crate::limits;

/// A connection that speaks HTTP/1.
pub struct Conn<R: Role> {
    pub stream: Transport,
    pub machine: Connection<R>,
    unread: Option<Buf>,
}

/// One step of what the other end said.
#[derive(Debug)]
pub enum Read<H> {
    /// A head. Its bytes are still in [`Conn::unread`]: take them with [`Conn::take_head`], or pass them with
    /// [`Conn::skip`].
    Head(H),
    /// Content, its framing taken off. Never empty.
    Data(Buf),
    /// The message is complete.
    End,
    /// What follows belongs to another protocol.
    Tunnel,
    /// No more bytes will come.
    Closed(Eof),
}

/// Why a connection cannot be read any further.
#[derive(Debug)]
pub enum Broken {
    /// The peer's bytes break the protocol.
    Malformed(Malformed),
    /// The connection failed.
    Io(io::Error),
}

impl Broken {
    /// What to tell a client whose bytes it was; `None` when there is nobody to tell.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        match self {
            Self::Malformed(malformed) => Some(malformed.status()),
            Self::Io(_) => None,
        }
    }
}

/// The two roles' `read`, under one name.
pub trait Reads {
    type Head;
    fn next(&mut self, bytes: &mut [u8], fields: &mut Fields) -> Result<Event<Self::Head>, Malformed>;
    fn ended(&mut self) -> Eof;
}

impl Reads for Connection<proto::h1::Server> {
    type Head = proto::h1::RequestHead;

    fn next(&mut self, bytes: &mut [u8], fields: &mut Fields) -> Result<Event<Self::Head>, Malformed> {
        self.read(bytes, fields)
    }

    fn ended(&mut self) -> Eof {
        self.eof()
    }
}

impl Reads for Connection<proto::h1::Client> {
    type Head = proto::h1::ResponseHead;

    fn next(&mut self, bytes: &mut [u8], fields: &mut Fields) -> Result<Event<Self::Head>, Malformed> {
        self.read(bytes, fields)
    }

    fn ended(&mut self) -> Eof {
        self.eof()
    }
}

impl<R: Role> Conn<R> {
    pub fn new(stream: impl Into<Transport>) -> Self {
        Self { stream: stream.into(), machine: Connection::new(limits::HEADS), unread: None }
    }

    /// The bytes received and not yet understood.
    pub fn unread(&self) -> &[u8] {
        self.unread.as_ref().map_or(&[], Buf::bytes)
    }

    /// Takes the buffer whose first `length` bytes are the head; what follows them stays to be read.
    pub fn take_head(&mut self, length: usize) -> Buf {
        let mut head = self.unread.take().expect("a head was read from these bytes");
        self.unread = head.split_off(length);
        head
    }

    /// Moves past the first `length` bytes.
    pub fn skip(&mut self, length: usize) {
        pass(&mut self.unread, length);
    }

    fn append(&mut self, more: Buf) -> Result<(), Broken> {
        // What is there is part of a head. The machine refuses one that outgrows its limit, so this finds room.
        append(&mut self.unread, more).ok_or(Broken::Malformed(Malformed::HeadTooLong))
    }

    /// Takes all bytes received and not yet understood: what a tunnel begins with.
    pub fn take_unread(&mut self) -> Option<Buf> {
        self.unread.take()
    }

    /// Gives back bytes that belong before everything that comes.
    pub fn put_back(&mut self, buf: Buf) {
        debug_assert!(self.unread.is_none());
        self.unread = Some(buf).filter(|buf| !buf.is_empty());
    }

    /// Nothing has been received that was not asked for.
    pub fn is_quiet(&mut self) -> bool {
        self.unread.is_none() && self.stream.is_quiet()
    }

    /// What was written broke off: only an RST keeps the peer from taking it for the whole.
    pub fn is_cut(&self) -> bool {
        self.machine.close_reason() == Some(CloseReason::BrokenWrite)
    }

    /// How much content is expected at once: large bodies are received straight into large buffers.
    pub fn expect(&mut self, bytes: u64) {
        if bytes >= limits::BULK_FROM {
            self.stream.set_appetite(Appetite::Bulk(bulk_bytes().min(u32::try_from(bytes).unwrap_or(u32::MAX))));
        }
    }
}

/// Takes content from the front of what is unread: in its own memory, if it is most of what is there.
fn cut(unread: &mut Option<Buf>, payload: usize, consumed: usize) -> Buf {
    let Some(mut bytes) = unread.take() else { return Buf::copy_of(&[]) };
    if 2 * payload >= bytes.len() {
        *unread = bytes.split_off(consumed);
        bytes.truncate(payload);
        return bytes;
    }
    let data = Buf::copy_of(&bytes.bytes()[..payload]);
    bytes.consume(consumed);
    *unread = Some(bytes).filter(|bytes| !bytes.is_empty());
    data
}

/// Moves past the first `length` bytes; a buffer with nothing in it is given back.
fn pass(unread: &mut Option<Buf>, length: usize) {
    if let Some(buf) = unread {
        buf.consume(length);
        if buf.is_empty() {
            *unread = None;
        }
    }
}

/// Puts `more` behind what is there. `None` when even the largest buffer is too small.
pub fn append(unread: &mut Option<Buf>, more: Buf) -> Option<()> {
    *unread = Some(match unread.take() {
        None => more,
        Some(part) => part.with_more_room(more.len())?.with(more.bytes()),
    });
    Some(())
}

/// The size of one receive of content, as the worker's buffers allow.
#[must_use]
pub fn bulk_bytes() -> u32 {
    let scarce = ring::buf::pool_counts().lent >= limits::BUFFERS_SCARCE_FROM;
    (if scarce { limits::BULK_BYTES_SCARCE } else { limits::BULK_BYTES }) as u32
}

impl<R: Role> Conn<R>
where
    Connection<R>: Reads,
{
    /// Reads on until there is something to say.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        fields: &mut Fields,
    ) -> Poll<Result<Read<<Connection<R> as Reads>::Head>, Broken>> {
        loop {
            let bytes = self.unread.as_mut().map_or(&mut [][..], Buf::bytes_mut);
            match self.machine.next(bytes, fields).map_err(Broken::Malformed)? {
                Event::Head(head) => return Poll::Ready(Ok(Read::Head(head))),
                Event::Data { payload, consumed } => {
                    if let Some(data) = self.take_data(payload, consumed) {
                        return Poll::Ready(Ok(Read::Data(data)));
                    }
                }
                Event::End { consumed, .. } => {
                    self.skip(consumed);
                    return Poll::Ready(Ok(Read::End));
                }
                Event::Tunnel => return Poll::Ready(Ok(Read::Tunnel)),
                Event::Reset(malformed) => return Poll::Ready(Err(Broken::Malformed(malformed))),
                Event::Pause => {
                    if let Some(eof) = ready!(self.poll_more(cx))? {
                        return Poll::Ready(Ok(Read::Closed(eof)));
                    }
                }
            }
        }
    }

    /// Drains the machine to its pause after a message's end: only then is it known to be fit for another one.
    pub fn settle(&mut self, fields: &mut Fields) {
        let bytes = self.unread.as_mut().map_or(&mut [][..], Buf::bytes_mut);
        // A malformed rest is the next exchange's, or closes the connection; the machine remembers which.
        let _ = self.machine.next(bytes, fields);
    }

    fn take_data(&mut self, payload: usize, consumed: usize) -> Option<Buf> {
        let mut data = self.unread.take()?;
        self.unread = data.split_off(consumed);
        data.truncate(payload);
        (payload > 0).then_some(data)
    }

    /// Receives more bytes before any of them is understood; false when none come.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let Ok(Some(more)) = ready!(self.stream.poll_recv(cx)) else { return Poll::Ready(false) };
        Poll::Ready(self.append(more).is_ok())
    }

    /// Receives more bytes; `Some` when there are none any more and nothing is left to be said.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Eof>, Broken>> {
        let more = match ready!(self.stream.poll_recv(cx)) {
            Ok(more) => more,
            Err(error) => return Poll::Ready(Err(Broken::Io(error))),
        };
        let Some(more) = more else {
            let eof = self.machine.ended();
            return Poll::Ready(Ok((eof != Eof::Complete).then_some(eof)));
        };
        Poll::Ready(self.append(more).map(|()| None))
    }
}

impl Conn<proto::h1::Client> {
    /// Receives until the head of a final answer has come, of which the status is told. Nothing is read by this: a [`poll_read`](Self::poll_read) begins
    /// with what came first. `None`: there will be none.
    pub fn poll_status(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<u16>, Broken>> {
        loop {
            if let Some(status) = self.machine.peek_status(self.unread()).map_err(Broken::Malformed)? {
                return Poll::Ready(Ok(Some(status.code())));
            }
            if ready!(self.poll_more(cx))?.is_some() {
                return Poll::Ready(Ok(None));
            }
        }
    }
}
