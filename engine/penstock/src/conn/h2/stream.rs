//! One exchange's stream of a connection that many share.

use std::io;
use std::task::Poll;

use proto::h1::{Refused, RequestRewrite, Respond, ResponseHead, ResponseRewrite, Trailers, parse_request};
use proto::h2::{Client, ErrorCode, Server, StreamId};
use proto::http::{Fields, hop};
use ring::Buf;

use super::{Hub, Multiplex, clock};
use crate::conn::mail::{Mail, gone};
use crate::conn::{Asks, Broken, Composed, Read, Speaks};
use crate::limits;
use crate::tls::Secured;

/// What an exchange holds of a connection. Dropping it ends the stream: in peace if all was said, with RST_STREAM if not.
pub struct Stream<R: Speaks> {
    connection: Multiplex<R>,
    id: StreamId,
    /// The text of the head that was read last.
    head: Option<Buf>,
    /// What we say will never be complete.
    aborted: bool,
}

/// No request's.
const NOBODY: StreamId = StreamId(0);

impl<R: Speaks> Stream<R> {
    pub(super) const fn new(connection: Multiplex<R>, id: StreamId) -> Self {
        Self { connection, id, head: None, aborted: false }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Hub<R>) -> T) -> T {
        act(&mut self.connection.hub.borrow_mut())
    }

    /// Acts on the mailbox; `None` when the stream is gone.
    fn with_mail<T>(&self, act: impl FnOnce(&mut Mail<R::Head>) -> T) -> Option<T> {
        self.with(|hub| hub.mail(self.id).map(act))
    }

    /// The next step of what the peer said; `fields` are set with a head.
    pub fn poll_read(&mut self, fields: &mut Fields) -> Poll<Result<Read<R::Head>, Broken>> {
        let hub = &mut *self.connection.hub.borrow_mut();
        let ended = hub.ended.is_some();
        let Some(mail) = hub.mail(self.id) else { return Poll::Ready(Err(Broken::Io(gone()))) };
        let read = mail.poll_read(ended, fields, &mut self.head);
        if let Poll::Ready(Ok(Read::Data(data))) = &read {
            hub.machine.credit(self.id, data.len(), &mut hub.out);
            if !hub.out.is_empty() {
                hub.nudge();
            }
        }
        read
    }

    /// Bytes of another protocol; `None` when the peer says no more.
    pub fn poll_recv(&mut self) -> Poll<io::Result<Option<Buf>>> {
        // No head comes any more, so no fields are needed.
        let mut fields = Fields::with_limit(0);
        self.poll_read(&mut fields).map(|read| match read {
            Ok(Read::Data(data)) => Ok(Some(data)),
            Ok(Read::End) => Ok(None),
            Ok(_) | Err(_) => Err(gone()),
        })
    }

    /// The text of the head that was read last.
    pub fn head(&self) -> &[u8] {
        self.head.as_ref().map_or(&[], Buf::bytes)
    }

    /// Has no more use for it.
    pub fn skip_head(&mut self) {
        self.head = None;
    }

    /// Bytes of content that are here.
    pub fn here(&self) -> usize {
        self.with_mail(|mail| mail.inbox_bytes).unwrap_or(0)
    }

    /// All content of the peer's message has been taken.
    pub fn is_body_read(&self) -> bool {
        self.with_mail(|mail| mail.is_read()).unwrap_or(true)
    }

    /// Takes the end of a message whose content has been taken.
    pub fn settle(&mut self) {
        self.with_mail(Mail::settle);
    }

    /// Takes the end, with what stands behind the content, if all content has been taken.
    pub fn take_end(&mut self) -> Option<Trailers> {
        self.with_mail(Mail::take_end).unwrap_or_else(|| Some(Trailers::default()))
    }

    pub fn take_trailers(&mut self) -> Trailers {
        self.with_mail(|mail| std::mem::take(&mut mail.trailers)).unwrap_or_default()
    }

    /// Ready when the stream or its connection is over before its time.
    pub fn poll_broken(&self) -> Poll<()> {
        let hub = &mut *self.connection.hub.borrow_mut();
        let ended = hub.ended.is_some();
        hub.mail(self.id).map_or(Poll::Ready(()), |mail| mail.poll_broken(ended))
    }

    /// As [`Connection::is_doubtful`](proto::h2::Connection::is_doubtful).
    pub fn is_doubtful(&self) -> bool {
        self.with(|hub| hub.machine.is_doubtful(clock(ring::now())))
    }

    /// As [`crate::conn::Transport::is_early`].
    pub fn is_early(&self) -> bool {
        self.with(|hub| hub.transport.is_early())
    }

    /// As [`crate::conn::Transport::poll_confirmed`], while the pump goes on with the handshake.
    pub fn poll_confirmed(&self) -> Poll<io::Result<()>> {
        if self.poll_broken().is_ready() {
            return Poll::Ready(Err(gone()));
        }
        if self.is_early() { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    /// Content of ours that waits.
    pub fn unsent(&self) -> usize {
        self.with_mail(|mail| mail.outbox_bytes).unwrap_or(0)
    }

    /// Ready when more content may be put; an error when it has nowhere to go.
    pub fn poll_room(&self) -> Poll<io::Result<()>> {
        let hub = &mut *self.connection.hub.borrow_mut();
        let (ended, crowded) = (hub.ended.is_some(), hub.outbox_bytes > limits::HTTP2_WAITING_BYTES);
        match hub.mail(self.id) {
            Some(mail) if mail.reset.is_none() && !ended => {
                if mail.outbox_bytes
                    <= if crowded { limits::HTTP2_WAITING_BYTES_EACH } else { limits::UNSENT_BYTES_MAX }
                {
                    return Poll::Ready(Ok(()));
                }
                mail.await_room();
                Poll::Pending
            }
            _ => Poll::Ready(Err(gone())),
        }
    }

    /// Ready when nothing waits; an error when it has nowhere to go.
    pub fn poll_sent(&self) -> Poll<io::Result<()>> {
        let hub = &mut *self.connection.hub.borrow_mut();
        let ended = hub.ended.is_some();
        match hub.mail(self.id) {
            Some(mail) if mail.reset.is_none() && !ended => {
                if mail.outbox_bytes == 0 {
                    return Poll::Ready(Ok(()));
                }
                mail.await_room();
                Poll::Pending
            }
            _ => Poll::Ready(Err(gone())),
        }
    }

    /// So much content will be [sent](Self::send) at once.
    ///
    /// # Errors
    /// More than the head promised, or the stream takes none.
    pub fn queue(&mut self, bytes: usize) -> Result<(), Refused> {
        let now = clock(ring::now());
        self.with(|hub| hub.machine.queue(now, self.id, bytes, &mut hub.out))
    }

    /// Puts content that was [queued](Self::queue).
    pub fn send(&mut self, data: Buf) {
        // No frame would ever take it out.
        if data.is_empty() {
            return;
        }
        self.with(|hub| {
            let Some(mail) = hub.mail(self.id) else { return };
            let length = data.len();
            mail.outbox_bytes += length;
            mail.outbox.push_back(data);
            hub.outbox_bytes += length;
            hub.nudge();
        });
    }

    /// The message is complete with what has been queued, and `trailers`.
    ///
    /// # Errors
    /// The head promised more; the stream was reset.
    pub fn finish(&mut self, trailers: Trailers) -> Result<(), Refused> {
        self.with(|hub| {
            let Some(at) = hub.find(self.id) else { return Err(Refused::Gone) };
            let waits = hub.machine.queued(self.id) > 0;
            let mail = &mut hub.mails[at].1;
            if mail.finished {
                return Ok(());
            }
            if trailers.is_empty() {
                hub.machine.finish(self.id, &mut hub.out)?;
            } else if waits {
                mail.last_words = trailers;
            } else {
                hub.end_with(self.id, &trailers);
            }
            hub.mails[at].1.finished = true;
            hub.nudge();
            Ok(())
        })
    }

    /// Lets the peer know that nothing was done with its request, which may be sent again (RFC 9113 §8.7).
    pub fn refuse(self) {
        self.with(|hub| hub.machine.reset(self.id, ErrorCode::REFUSED_STREAM, &mut hub.out));
    }

    /// What is being said will never be complete.
    pub fn abort(&mut self) {
        self.aborted = true;
    }

    pub fn secured(&self) -> Option<Secured> {
        self.with(|hub| hub.transport.secured())
    }

    /// A head was put.
    fn began(hub: &mut Hub<R>, id: StreamId) {
        let ends = !hub.machine.is_writable(id);
        if let Some(mail) = hub.mail(id) {
            mail.finished |= ends;
        }
        hub.nudge();
    }
}

impl Stream<Server> {
    /// Puts a final response's head.
    ///
    /// # Errors
    /// As the machine's.
    pub fn write_response(
        &mut self,
        bytes: &[u8],
        head: &ResponseHead,
        fields: &Fields,
        rewrite: &ResponseRewrite<'_>,
    ) -> Result<(), Refused> {
        self.with(|hub| {
            hub.machine.write_response(self.id, bytes, head, fields, rewrite, &mut hub.out)?;
            Self::began(hub, self.id);
            Ok(())
        })
    }

    /// Puts an interim response's head.
    ///
    /// # Errors
    /// As the machine's.
    pub fn write_interim(&mut self, bytes: &[u8], head: &ResponseHead, fields: &Fields) -> Result<(), Refused> {
        self.with(|hub| {
            hub.machine.write_interim(self.id, bytes, head, fields, &mut hub.out)?;
            hub.nudge();
            Ok(())
        })
    }

    /// Puts a response of our own.
    ///
    /// # Errors
    /// As the machine's.
    pub fn respond(&mut self, respond: &Respond<'_>) -> Result<(), Refused> {
        self.with(|hub| {
            hub.machine.respond(self.id, respond, &mut hub.out)?;
            Self::began(hub, self.id);
            Ok(())
        })?;
        if respond.framing().has_body() && !respond.body.is_empty() {
            self.queue(respond.body.len())?;
            self.send(Buf::copy_of(respond.body));
        }
        self.finish(Trailers::default())
    }
}

impl Stream<Client> {
    /// Of a connection on which nothing has been asked yet.
    pub fn unasked(connection: Multiplex<Client>) -> Self {
        Self::new(connection, NOBODY)
    }

    /// Whether the peer lets streams leave HTTP (RFC 8441 §3), which its first word tells.
    ///
    /// # Errors
    /// There is nobody any more.
    pub fn poll_greeted(&self) -> Poll<io::Result<bool>> {
        self.with(|hub| match hub.machine.takes_upgrades() {
            _ if hub.ended.is_some() => Poll::Ready(Err(gone())),
            Some(takes) => Poll::Ready(Ok(takes)),
            None => {
                hub.ungreeted.push(ring::current_task());
                Poll::Pending
            }
        })
    }

    /// Whether it may be opened now.
    pub fn can_ask(&self) -> bool {
        self.connection.can_ask()
    }

    /// Opens the stream with a request's head.
    ///
    /// # Errors
    /// As the machine's: none may be opened, or the head is none.
    pub fn ask(&mut self, composed: &Composed<'_>) -> Result<(), Refused> {
        let hub = &mut *self.connection.hub.borrow_mut();
        if hub.ended.is_some() {
            return Err(Refused::Gone);
        }
        let Composed { bytes, head, fields, rewrite, .. } = composed;
        self.id = hub.machine.write_request(bytes, head, fields, rewrite, &mut hub.out)?;
        hub.open(self.id);
        Self::began(hub, self.id);
        Ok(())
    }

    /// As [`ask`](Self::ask), with a head as HTTP/1 writes it.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn ask_as(&mut self, text: &[u8]) -> Result<(), Refused> {
        let mut fields = Fields::default();
        let parsed = parse_request(text, &limits::HEADS, &mut fields);
        let head = parsed.ok().flatten().ok_or(Refused::Field)?;
        let te_trailers = hop::strip(&mut fields, text, head.framing).te_trailers;
        let rewrite = RequestRewrite { te_trailers, ..RequestRewrite::new(&head) };
        self.ask(&Composed { bytes: text, head: &head, fields: &fields, rewrite: &rewrite, room: text.len() })
    }

    /// The status of the head that comes next, which stays to be read. `None`: something else comes.
    pub fn poll_status(&self) -> Poll<Result<Option<u16>, Broken>> {
        let hub = &mut *self.connection.hub.borrow_mut();
        let ended = hub.ended.is_some();
        let Some(mail) = hub.mail(self.id) else { return Poll::Ready(Err(Broken::Io(gone()))) };
        mail.poll_status(ended).map(Ok)
    }
}

impl<R: Speaks> Drop for Stream<R> {
    fn drop(&mut self) {
        let hub = &mut *self.connection.hub.borrow_mut();
        let Some(at) = hub.find(self.id) else { return };
        let over = hub.ended.is_some();
        let mail = &mut hub.mails[at].1;
        let done = mail.finished && !self.aborted && mail.reset.is_none();
        let heard = !R::HEARS_OUT || mail.is_read();
        if done && heard && !over {
            if mail.is_sent() {
                hub.close(at);
                // The pump counts an idle connection's time, and ends one that has taken leave.
                if hub.mails.is_empty() {
                    hub.nudge();
                }
            } else {
                mail.detached = true;
            }
            return;
        }
        let code = if self.aborted { ErrorCode::INTERNAL_ERROR } else { ErrorCode::CANCEL };
        hub.machine.reset(self.id, code, &mut hub.out);
        hub.close(at);
        if !over {
            hub.nudge();
        }
    }
}
