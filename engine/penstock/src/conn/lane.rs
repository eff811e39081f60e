//! What carries one exchange to or from a peer: a whole connection of HTTP/1, or a stream of one that many exchanges share.
//!
//! The verbs are those that an exchange needs, and mean the same on either, so that nobody above asks which it is. What holds here: a
//! head is written by the lane, for only that knows what a head looks like on the wire; content is framed by it, in place.

use std::io;
use std::task::{Context, Poll};

use proto::h1::{
    Client, Connection, FixedSink, Refused, RequestHead, RequestRewrite, Respond, ResponseHead, ResponseRewrite,
    Server, Trailers,
};
use proto::http::Fields;
use ring::{Appetite, Buf};

use super::h2::Stream;
use super::{Broken, Conn, Read, Reads, Speaks, h3};
use crate::limits;
use crate::tls::Secured;

/// One exchange's way to a peer.
pub enum Lane<'a, R: Speaks> {
    H1(&'a mut Conn<R>),
    H2(&'a mut Stream<R>),
    H3(&'a mut h3::Stream<R>),
}

impl<'a, R: Speaks> From<&'a mut Conn<R>> for Lane<'a, R> {
    fn from(conn: &'a mut Conn<R>) -> Self {
        Self::H1(conn)
    }
}

impl<'a, R: Speaks> From<&'a mut Stream<R>> for Lane<'a, R> {
    fn from(stream: &'a mut Stream<R>) -> Self {
        Self::H2(stream)
    }
}

impl<'a, R: Speaks> From<&'a mut h3::Stream<R>> for Lane<'a, R> {
    fn from(stream: &'a mut h3::Stream<R>) -> Self {
        Self::H3(stream)
    }
}

impl<R: Speaks> Lane<'_, R>
where
    Connection<R>: Reads<Head = R::Head>,
{
    /// As [`Conn::poll_read`].
    #[inline]
    pub fn poll_read(&mut self, cx: &mut Context<'_>, fields: &mut Fields) -> Poll<Result<Read<R::Head>, Broken>> {
        match self {
            Self::H1(conn) => conn.poll_read(cx, fields),
            Self::H2(stream) => stream.poll_read(fields),
            Self::H3(stream) => stream.poll_read(fields),
        }
    }

    /// Takes the end of a message, with its trailers, if it follows the content that has been read and is known already.
    #[inline]
    pub fn take_end(&mut self, cx: &mut Context<'_>, fields: &mut Fields) -> Option<Trailers> {
        match self {
            Self::H1(conn) if !conn.machine.is_body_read() => None,
            Self::H1(conn) => {
                // Reading it settles the machine.
                let _ = conn.poll_read(cx, fields);
                Some(conn.machine.take_trailers())
            }
            Self::H2(stream) => stream.take_end(),
            Self::H3(stream) => stream.take_end(),
        }
    }

    /// Reads on behind a message's end, which is known.
    pub fn settle(&mut self, fields: &mut Fields) {
        match self {
            Self::H1(conn) => conn.settle(fields),
            Self::H2(stream) => stream.settle(),
            Self::H3(stream) => stream.settle(),
        }
    }
}

impl<R: Speaks> Lane<'_, R> {
    /// The text of the head that was read last, which has so many bytes. It is there until [`skip_head`](Self::skip_head).
    pub fn head(&self, length: usize) -> &[u8] {
        match self {
            Self::H1(conn) => &conn.unread()[..length],
            Self::H2(stream) => stream.head(),
            Self::H3(stream) => stream.head(),
        }
    }

    /// Moves past the head that was read last, which has so many bytes.
    pub fn skip_head(&mut self, length: usize) {
        match self {
            Self::H1(conn) => conn.skip(length),
            Self::H2(stream) => stream.skip_head(),
            Self::H3(stream) => stream.skip_head(),
        }
    }

    /// Bytes of content that have been received and not been read, as far as is known.
    pub fn here(&self) -> usize {
        match self {
            Self::H1(conn) => conn.unread().len(),
            Self::H2(stream) => stream.here(),
            Self::H3(stream) => stream.here(),
        }
    }

    /// All content of the message that is being read has been delivered.
    #[inline]
    pub fn is_body_read(&self) -> bool {
        match self {
            Self::H1(conn) => conn.machine.is_body_read(),
            Self::H2(stream) => stream.is_body_read(),
            Self::H3(stream) => stream.is_body_read(),
        }
    }

    /// Trailers of the message that has just ended.
    pub fn take_trailers(&mut self) -> Trailers {
        match self {
            Self::H1(conn) => conn.machine.take_trailers(),
            Self::H2(stream) => stream.take_trailers(),
            Self::H3(stream) => stream.take_trailers(),
        }
    }

    /// As [`Conn::expect`]. A stream's window says how much it takes at once.
    pub fn expect(&mut self, bytes: u64) {
        if let Self::H1(conn) = self {
            conn.expect(bytes);
        }
    }

    /// Receives no more than so much content at once.
    pub fn curb(&mut self, bytes: usize) {
        if let Self::H1(conn) = self {
            conn.stream.set_appetite(Appetite::Bulk(bytes as u32));
        }
    }

    /// Frames content in place, which is then to be [sent](Self::send).
    ///
    /// # Errors
    /// More than the head promised, or there is nobody to send it to.
    #[inline]
    pub fn frame(&mut self, data: &mut Buf) -> Result<(), Refused> {
        let conn = match self {
            Self::H1(conn) => conn,
            Self::H2(stream) => return stream.queue(data.len()),
            Self::H3(stream) => return stream.queue(data.len()),
        };
        let frame = conn.machine.body_written(data.len())?;
        let prefix: &[u8] = &frame.prefix;
        if prefix.is_empty() {
            return Ok(());
        }
        let fits = data.headroom() >= prefix.len() && data.room() >= frame.suffix.len();
        if !fits {
            let mut moved = Buf::with_room(data.len() + frame.suffix.len());
            moved.extend(data.bytes());
            *data = moved;
        }
        data.prepend(prefix);
        data.extend(frame.suffix);
        Ok(())
    }

    /// The message is complete: what ends it on the wire is to be sent behind what was framed. With trailers it is composed into `long`.
    ///
    /// # Errors
    /// The head promised more.
    pub fn end(&mut self, trailers: Trailers, long: &mut Vec<u8>) -> Result<&'static [u8], Refused> {
        match self {
            Self::H1(conn) if trailers.is_empty() => conn.machine.end_written(),
            Self::H1(conn) => conn.machine.end_written_with(&trailers, long).map(|()| &b""[..]),
            Self::H2(stream) => stream.finish(trailers).map(|()| &b""[..]),
            Self::H3(stream) => stream.finish(&trailers).map(|()| &b""[..]),
        }
    }

    /// Sends what has been framed.
    #[inline]
    pub fn send(&mut self, buf: Buf) {
        match self {
            Self::H1(conn) => conn.stream.send(buf),
            Self::H2(stream) => stream.send(buf),
            Self::H3(stream) => stream.send(buf),
        }
    }

    /// Ready when it may take more: little enough is on its way.
    #[inline]
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::H1(conn) => conn.stream.poll_sent(cx, limits::UNSENT_BYTES_MAX),
            Self::H2(stream) => stream.poll_room(),
            Self::H3(stream) => stream.poll_room(),
        }
    }

    /// Bytes that wait to be sent.
    pub fn unsent(&self) -> usize {
        match self {
            Self::H1(conn) => conn.stream.unsent(),
            Self::H2(stream) => stream.unsent(),
            Self::H3(stream) => stream.unsent(),
        }
    }

    /// The message being written will not be completed, and the peer shall notice.
    pub fn abort_written(&mut self) {
        match self {
            Self::H1(conn) => conn.machine.abort_written(),
            Self::H2(stream) => stream.abort(),
            Self::H3(stream) => stream.abort(),
        }
    }

    /// Ready when nobody is there any more.
    pub fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::H1(conn) => conn.stream.poll_broken(cx),
            Self::H2(stream) => stream.poll_broken(),
            Self::H3(stream) => stream.poll_broken(),
        }
    }

    /// Ready when the peer will say nothing more than it has: over HTTP/1 that is how a client leaves.
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::H1(conn) => conn.stream.poll_ended(cx),
            Self::H2(stream) => stream.poll_broken(),
            Self::H3(stream) => stream.poll_broken(),
        }
    }

    /// What is read may be somebody's who only repeats it (RFC 8446 §8).
    #[inline]
    pub fn is_early(&self) -> bool {
        match self {
            Self::H1(conn) => conn.stream.is_early(),
            Self::H2(stream) => stream.is_early(),
            Self::H3(stream) => stream.is_early(),
        }
    }

    /// Ready when it is not so any more; an error when it never will be.
    pub fn poll_confirmed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::H1(conn) => conn.stream.poll_confirmed(cx),
            Self::H2(stream) => stream.poll_confirmed(),
            Self::H3(stream) => stream.poll_confirmed(),
        }
    }

    /// Ends with an error, if at all.
    pub fn cut(&mut self) {
        self.abort_written();
        if let Self::H1(conn) = self {
            conn.stream.reset_on_close();
        }
    }
}

impl Lane<'_, Server> {
    /// Whether another exchange may follow, as far as the head of a response tells.
    pub fn is_persistent(&self) -> bool {
        match self {
            Self::H1(conn) => conn.machine.is_persistent(),
            Self::H2(_) | Self::H3(_) => true,
        }
    }

    /// No exchange follows this one. A connection that many share ends as a whole, when its session wants it.
    pub fn close_after(&mut self) {
        if let Self::H1(conn) = self {
            conn.machine.close_after();
        }
    }

    /// Writes a final response's head, or 101's. What of it is to be sent by the caller is in `out`: on its own, or before content.
    ///
    /// # Errors
    /// It cannot be told to this client. Nothing was written.
    pub fn write_response(
        &mut self,
        bytes: &[u8],
        head: &ResponseHead,
        fields: &Fields,
        rewrite: &ResponseRewrite<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        out.clear();
        match self {
            Self::H1(conn) => {
                proto::h1::write_response(bytes, head, fields, rewrite, out)?;
                conn.machine.head_written(head.status, rewrite.framing, rewrite.persistent)
            }
            Self::H2(stream) => stream.write_response(bytes, head, fields, rewrite),
            Self::H3(stream) => stream.write_response(bytes, head, fields, rewrite),
        }
    }

    /// Sends an interim response's head, if this client knows of such.
    ///
    /// # Errors
    /// It cannot be told to this client. Nothing was written.
    pub fn write_interim(
        &mut self,
        bytes: &[u8],
        head: &ResponseHead,
        fields: &Fields,
        out: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        match self {
            Self::H1(conn) => {
                out.clear();
                proto::h1::write_interim(bytes, head, fields, out)?;
                conn.machine.interim_written(head.status);
                conn.stream.send(Buf::copy_of(out));
                Ok(())
            }
            Self::H2(stream) => stream.write_interim(bytes, head, fields),
            Self::H3(stream) => stream.write_interim(bytes, head, fields),
        }
    }

    /// Sends a response of our own.
    ///
    /// # Errors
    /// It cannot be told to this client.
    pub fn respond(&mut self, respond: &Respond<'_>, out: &mut Vec<u8>) -> Result<(), Refused> {
        let conn = match self {
            Self::H1(conn) => conn,
            Self::H2(stream) => return stream.respond(respond),
            Self::H3(stream) => return stream.respond(respond),
        };
        out.clear();
        let framing = respond.framing();
        respond.write(out)?;
        conn.machine.head_written(respond.status, framing, respond.persistent)?;
        if framing.has_body() {
            conn.machine.body_written(respond.body.len())?;
        }
        conn.machine.end_written()?;
        conn.stream.send(Buf::copy_of(out));
        Ok(())
    }

    /// What was agreed upon, over TLS.
    pub fn secured(&self) -> Option<Secured> {
        match self {
            Self::H1(conn) => conn.stream.secured(),
            Self::H2(stream) => stream.secured(),
            Self::H3(stream) => stream.secured(),
        }
    }
}

/// A request's head that has been composed, and not been written yet.
pub struct Composed<'a> {
    /// What `head` and `fields` were read from.
    pub bytes: &'a [u8],
    pub head: &'a RequestHead,
    pub fields: &'a Fields,
    pub rewrite: &'a RequestRewrite<'a>,
    /// Bytes that it takes at most as HTTP/1 writes it.
    pub room: usize,
}

impl Composed<'_> {
    /// As HTTP/1 writes it, with room behind it. `None` when it would outgrow every buffer.
    pub fn to_text(&self) -> Option<Buf> {
        let mut out = Buf::with_room(self.room);
        let mut sink = FixedSink::new(out.spare_mut());
        proto::h1::write_request(self.bytes, self.head, self.fields, self.rewrite, &mut sink).ok()?;
        let length = sink.written().len();
        out.grow(length);
        Some(out)
    }
}

impl Lane<'_, Client> {
    /// The status of a final response whose head has come, which stays to be read. `None`: there will be none.
    pub fn poll_status(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<u16>, Broken>> {
        match self {
            Self::H1(conn) => conn.poll_status(cx),
            Self::H2(stream) => stream.poll_status(),
            Self::H3(stream) => stream.poll_status(),
        }
    }
}
