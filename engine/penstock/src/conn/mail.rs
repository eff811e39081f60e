//! A stream's mailbox: what has come for its exchange, and what waits to go.

use std::collections::VecDeque;
use std::io;
use std::task::Poll;

use proto::Malformed;
use proto::h1::{ResponseHead, Trailers};
use proto::http::Fields;
use ring::{Buf, TaskRef};

use super::shelf::{Index, is_malformed};
use super::{Broken, Read};

/// One step of what the peer said on a stream.
pub(super) enum Inbound<H> {
    /// A head, with its text and its fields.
    Head(H, Buf, Index),
    Data(Buf),
    End,
}

pub(super) struct Mail<H> {
    pub(super) inbox: VecDeque<Inbound<H>>,
    /// Bytes of content in it.
    pub(super) inbox_bytes: usize,
    /// The peer's message is complete, and its end was taken out.
    pub(super) ended: bool,
    pub(super) trailers: Trailers,
    /// The stream is over before its time.
    pub(super) reset: Option<Malformed>,
    pub(super) outbox: VecDeque<Buf>,
    pub(super) outbox_bytes: usize,
    /// What follows the content that waits.
    pub(super) last_words: Trailers,
    /// Our message is complete, though some of it may wait.
    pub(super) finished: bool,
    /// Nobody has the stream any more: what waits is sent, and that is all.
    pub(super) detached: bool,
    /// Who is waiting.
    pub(super) task: Option<TaskRef>,
    /// It is waiting for what it put to go.
    pub(super) awaits_room: bool,
}

impl<H> Default for Mail<H> {
    fn default() -> Self {
        Self {
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            ended: false,
            trailers: Trailers::default(),
            reset: None,
            outbox: VecDeque::new(),
            outbox_bytes: 0,
            last_words: Trailers::default(),
            finished: false,
            detached: false,
            task: None,
            awaits_room: false,
        }
    }
}

impl<H> Mail<H> {
    /// For another stream; the memory of the queues is kept.
    pub(super) fn clear(&mut self) {
        let Self {
            inbox,
            inbox_bytes,
            ended,
            trailers,
            reset,
            outbox,
            outbox_bytes,
            last_words,
            finished,
            detached,
            task,
            awaits_room,
        } = self;
        inbox.clear();
        outbox.clear();
        trailers.clear();
        last_words.clear();
        (*inbox_bytes, *outbox_bytes) = (0, 0);
        (*ended, *finished, *detached, *awaits_room) = (false, false, false, false);
        (*reset, *task) = (None, None);
    }

    /// Takes in content. Small pieces share a buffer: a peer that sends byte by byte costs no more memory than one that does not.
    pub(super) fn take_in(&mut self, data: Buf) {
        self.inbox_bytes += data.len();
        match self.inbox.back_mut() {
            Some(Inbound::Data(last)) if last.room() >= data.len() => last.extend(data.bytes()),
            _ => self.inbox.push_back(Inbound::Data(data)),
        }
    }

    /// Takes the head out that came first.
    pub(super) fn take_head(&mut self) -> Option<(H, Buf, Index)> {
        match self.inbox.pop_front()? {
            Inbound::Head(head, text, index) => Some((head, text, index)),
            other => {
                self.inbox.push_front(other);
                None
            }
        }
    }

    /// The next step of what the peer said, with its head's fields and text; who asks is woken when there is more, unless the connection is `over`.
    #[inline]
    pub(super) fn poll_read(
        &mut self,
        over: bool,
        fields: &mut Fields,
        head: &mut Option<Buf>,
    ) -> Poll<Result<Read<H>, Broken>> {
        Poll::Ready(Ok(match self.inbox.pop_front() {
            Some(Inbound::Head(read, text, index)) => {
                index.copy_to(fields);
                *head = Some(text);
                Read::Head(read)
            }
            Some(Inbound::Data(data)) => {
                self.inbox_bytes -= data.len();
                Read::Data(data)
            }
            Some(Inbound::End) => {
                self.ended = true;
                Read::End
            }
            None => {
                return match self.reset {
                    Some(why) if is_malformed(why) => Poll::Ready(Err(Broken::Malformed(why))),
                    _ => self.poll_broken(over).map(|()| Err(Broken::Io(gone()))),
                };
            }
        }))
    }

    /// Ready when the stream or its connection is over before its time.
    pub(super) fn poll_broken(&mut self, over: bool) -> Poll<()> {
        if over || self.reset.is_some() {
            return Poll::Ready(());
        }
        self.task = Some(ring::current_task());
        Poll::Pending
    }

    /// Takes the end of a message whose content has been taken.
    pub(super) fn settle(&mut self) {
        if let Some(Inbound::End) = self.inbox.front() {
            self.inbox.pop_front();
            self.ended = true;
        }
    }

    /// Takes the end of a message and its trailers, if all its content has been taken.
    pub(super) fn take_end(&mut self) -> Option<Trailers> {
        self.settle();
        self.ended.then(|| std::mem::take(&mut self.trailers))
    }

    /// All content of the peer's message has been taken out.
    pub(super) fn is_read(&self) -> bool {
        self.ended || matches!(self.inbox.front(), Some(Inbound::End))
    }

    /// Nothing waits to go.
    pub(super) fn is_sent(&self) -> bool {
        self.outbox.is_empty() && self.last_words.is_empty()
    }

    /// Who waits is woken, once: it says so again if it goes on waiting.
    pub(super) fn wake(&mut self) {
        if let Some(task) = self.task.take() {
            ring::wake(task);
        }
    }

    /// The running task is woken when something of what waits has gone, or has nowhere to go.
    pub(super) fn await_room(&mut self) {
        (self.task, self.awaits_room) = (Some(ring::current_task()), true);
    }

    /// Something of what waited has gone. Who waits for an answer is not disturbed.
    pub(super) fn has_room(&mut self) {
        if std::mem::take(&mut self.awaits_room) {
            self.wake();
        }
    }
}

impl Mail<ResponseHead> {
    /// The status of the final head, behind interim ones; all of them stay to be read. `None`: something else comes.
    pub(super) fn poll_status(&mut self, over: bool) -> Poll<Option<u16>> {
        let mut next = self.inbox.iter().map(|inbound| match inbound {
            Inbound::Head(head, ..) => Some(head.status),
            Inbound::Data(_) | Inbound::End => None,
        });
        match next.find(|status| status.is_none_or(|status| !status.is_interim())) {
            Some(status) => Poll::Ready(status.map(|status| status.code())),
            None => self.poll_broken(over).map(|()| None),
        }
    }
}

/// The stream is gone, or the whole connection.
pub(super) fn gone() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}
