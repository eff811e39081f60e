//! One exchange's stream of an HTTP/3 connection.

use std::io;
use std::task::Poll;

use proto::h1::{Refused, RequestRewrite, Respond, ResponseHead, ResponseRewrite, Trailers, parse_request};
use proto::h3::{Client, ErrorCode, Server};
use proto::http::Fields;
use ring::Buf;

use super::flow::Flow;
use super::{Hub, Multiplex, clock, name};
use crate::conn::mail::gone;
use crate::conn::{Asks, Broken, Composed, Read, Speaks};
use crate::limits;
use crate::quic::StreamId;
use crate::tls::Secured;

/// What an exchange holds of a connection. Dropping it ends the stream: in peace if all was said, with RESET_STREAM if not.
pub struct Stream<R: Speaks> {
    connection: Multiplex<R>,
    /// `None`: nothing has been asked yet.
    pub(super) id: Option<StreamId>,
    /// The text of the head that was read last.
    head: Option<Buf>,
    /// What we say will never be complete.
    aborted: bool,
}

impl<R: Speaks> Stream<R> {
    pub(super) const fn new(connection: Multiplex<R>, id: StreamId) -> Self {
        Self { connection, id: Some(id), head: None, aborted: false }
    }

    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Hub<R>) -> T) -> T {
        act(&mut self.connection.hub.borrow_mut())
    }

    /// Acts on the flow; `None` when the stream is gone.
    pub(super) fn with_flow<T>(&self, act: impl FnOnce(&mut Flow<R::Head>) -> T) -> Option<T> {
        self.with(|hub| {
            let at = hub.find(self.id?)?;
            Some(act(&mut hub.flows[at]))
        })
    }

    /// The next step of what the peer said; `fields` are set with a head.
    pub fn poll_read(&mut self, fields: &mut Fields) -> Poll<Result<Read<R::Head>, Broken>> {
        let hub = &mut *self.connection.hub.borrow_mut();
        let Some(at) = self.id.and_then(|id| hub.filled(id)) else { return Poll::Ready(Err(Broken::Io(gone()))) };
        let ended = hub.ended.is_some();
        hub.flows[at].mail.poll_read(ended, fields, &mut self.head)
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
        self.with_flow(|flow| flow.mail.inbox_bytes).unwrap_or(0)
    }

    /// All content of the peer's message has been taken.
    pub fn is_body_read(&self) -> bool {
        self.with_flow(|flow| flow.mail.is_read()).unwrap_or(true)
    }

    /// Takes the end of a message whose content has been taken.
    pub fn settle(&mut self) {
        self.with_flow(|flow| flow.mail.settle());
    }

    /// Takes the end, with what stands behind the content, if all content has been taken.
    pub fn take_end(&mut self) -> Option<Trailers> {
        self.with_flow(|flow| flow.mail.take_end()).unwrap_or_else(|| Some(Trailers::default()))
    }

    pub fn take_trailers(&mut self) -> Trailers {
        self.with_flow(|flow| std::mem::take(&mut flow.mail.trailers)).unwrap_or_default()
    }

    /// Ready when the stream or its connection is over before its time.
    pub fn poll_broken(&self) -> Poll<()> {
        let hub = &mut *self.connection.hub.borrow_mut();
        let ended = hub.ended.is_some();
        let Some(at) = self.id.and_then(|id| hub.find(id)) else { return Poll::Ready(()) };
        hub.flows[at].mail.poll_broken(ended)
    }

    /// As [`Connection::is_doubtful`](proto::h3::Connection::is_doubtful).
    pub fn is_doubtful(&self) -> bool {
        self.with(|hub| hub.machine.is_doubtful(clock(ring::now())))
    }

    /// As [`Link::is_early`](crate::quic::Link::is_early).
    pub fn is_early(&self) -> bool {
        self.with(|hub| hub.link.is_early())
    }

    /// Ready when it is not so any more; an error when it never will be.
    pub fn poll_confirmed(&self) -> Poll<io::Result<()>> {
        if self.poll_broken().is_ready() {
            return Poll::Ready(Err(gone()));
        }
        if self.is_early() { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    /// Content of ours that waits.
    pub fn unsent(&self) -> usize {
        self.with_flow(|flow| flow.mail.outbox_bytes).unwrap_or(0)
    }

    /// Ready when more content may be put; an error when it has nowhere to go.
    pub fn poll_room(&self) -> Poll<io::Result<()>> {
        if self.poll_broken().is_ready() {
            return Poll::Ready(Err(gone()));
        }
        // What does not wait here waits in QUIC, which has its own bound.
        if self.unsent() == 0 { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Ready when nothing waits; an error when it has nowhere to go.
    pub fn poll_sent(&self) -> Poll<io::Result<()>> {
        self.poll_room()
    }

    /// So much content will be [sent](Self::send) at once.
    ///
    /// # Errors
    /// More than the head promised, or the stream takes none.
    pub fn queue(&mut self, bytes: usize) -> Result<(), Refused> {
        self.with(|hub| {
            let at = self.id.and_then(|id| hub.find(id)).ok_or(Refused::Gone)?;
            // It may leave in frames of other lengths.
            hub.machine.data_head(name(hub.flows[at].id), bytes, &mut hub.out)?;
            hub.flows[at].owed += bytes;
            Ok(())
        })
    }

    /// Puts content that was [queued](Self::queue).
    pub fn send(&mut self, data: Buf) {
        if data.is_empty() {
            return;
        }
        self.with(|hub| {
            let Some(at) = self.id.and_then(|id| hub.find(id)) else { return };
            hub.put_content(at, data);
            hub.nudge();
        });
    }

    /// The message is complete with what has been queued, and `trailers`.
    ///
    /// # Errors
    /// The head promised more; the stream was reset.
    pub fn finish(&mut self, trailers: &Trailers) -> Result<(), Refused> {
        self.with(|hub| {
            let at = self.id.and_then(|id| hub.find(id)).ok_or(Refused::Gone)?;
            if hub.flows[at].is_finished() {
                return Ok(());
            }
            hub.finish(at, trailers)?;
            hub.nudge();
            Ok(())
        })
    }

    /// Lets the peer know that nothing was done with its request, which may be sent again (RFC 9114 §4.1.1).
    pub fn refuse(self) {
        self.with(|hub| {
            if let Some(at) = self.id.and_then(|id| hub.find(id)) {
                hub.cut(at, ErrorCode::REQUEST_REJECTED);
            }
        });
    }

    /// What is being said will never be complete.
    pub fn abort(&mut self) {
        self.aborted = true;
    }

    pub fn secured(&self) -> Option<Secured> {
        self.with(|hub| Some(hub.link.secured()))
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
            hub.say(self.id, |machine, id, out, said| {
                machine.write_response(id, bytes, head, fields, rewrite, said, out)
            })
        })
    }

    /// Puts an interim response's head.
    ///
    /// # Errors
    /// As the machine's.
    pub fn write_interim(&mut self, bytes: &[u8], head: &ResponseHead, fields: &Fields) -> Result<(), Refused> {
        self.with(|hub| {
            hub.say(self.id, |machine, id, out, said| machine.write_interim(id, bytes, head, fields, said, out))
        })
    }

    /// Puts a response of our own.
    ///
    /// # Errors
    /// As the machine's.
    pub fn respond(&mut self, respond: &Respond<'_>) -> Result<(), Refused> {
        self.with(|hub| hub.say(self.id, |machine, id, out, said| machine.respond(id, respond, said, out)))?;
        if respond.framing().has_body() && !respond.body.is_empty() {
            self.queue(respond.body.len())?;
            self.send(Buf::copy_of(respond.body));
        }
        self.finish(&Trailers::default())
    }
}

impl Stream<Client> {
    /// Of a connection on which nothing has been asked yet.
    pub fn unasked(connection: Multiplex<Client>) -> Self {
        Self { connection, id: None, head: None, aborted: false }
    }

    /// Whether the peer lets streams leave HTTP (RFC 9220 §3), which its first word tells.
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
        if !self.can_ask() {
            return Err(Refused::Gone);
        }
        let hub = &mut *self.connection.hub.borrow_mut();
        let Composed { bytes, head, fields, rewrite, .. } = composed;
        let id = hub.next.take().ok_or(Refused::Gone)?;
        hub.open(id, true);
        let told = hub
            .say(Some(id), |machine, id, out, said| machine.write_request(id, bytes, head, fields, rewrite, said, out));
        if told.is_ok() {
            self.id = Some(id);
            hub.unacknowledged_since.get_or_insert_with(ring::now);
        } else {
            // Nothing was said on it.
            hub.unopen(id);
        }
        told
    }

    /// As [`ask`](Self::ask), with a head as HTTP/1 writes it.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn ask_as(&mut self, text: &[u8]) -> Result<(), Refused> {
        let mut fields = Fields::default();
        let parsed = parse_request(text, &limits::HEADS, &mut fields);
        let head = parsed.ok().flatten().ok_or(Refused::Field)?;
        let rewrite = RequestRewrite::new(&head);
        self.ask(&Composed { bytes: text, head: &head, fields: &fields, rewrite: &rewrite, room: text.len() })
    }

    /// The status of the head that comes next, which stays to be read. `None`: something else comes.
    pub fn poll_status(&self) -> Poll<Result<Option<u16>, Broken>> {
        let hub = &mut *self.connection.hub.borrow_mut();
        let Some(at) = self.id.and_then(|id| hub.filled(id)) else { return Poll::Ready(Err(Broken::Io(gone()))) };
        let ended = hub.ended.is_some();
        hub.flows[at].mail.poll_status(ended).map(Ok)
    }
}

impl<R: Speaks> Drop for Stream<R> {
    fn drop(&mut self) {
        let hub = &mut *self.connection.hub.borrow_mut();
        let Some(at) = self.id.and_then(|id| hub.find(id)) else { return };
        let mail = &hub.flows[at].mail;
        // What was counted and never put will not be complete.
        let done = mail.finished && !self.aborted && mail.reset.is_none();
        let heard = !R::HEARS_OUT || mail.is_read();
        if done && heard {
            hub.part_with(at);
        } else {
            let code = if self.aborted { ErrorCode::INTERNAL_ERROR } else { ErrorCode::REQUEST_CANCELLED };
            hub.cut(at, code);
        }
        hub.nudge();
    }
}
