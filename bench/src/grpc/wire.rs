//! What both ends of a call share: one connection of HTTP/2, over the ring.

use std::io;
use std::time::Duration;

use proto::h2::{Connection, HeadSpace, Limits, Role, StreamId};
use ring::{Buf, Stream};

/// What may wait to be sent before no more is read.
const UNSENT_BYTES_MAX: usize = 256 << 10;

pub(super) struct Wire<R: Role> {
    stream: Stream,
    pub(super) machine: Connection<R>,
    pub(super) space: HeadSpace,
    /// Received and not understood yet.
    pub(super) unread: Vec<u8>,
    pub(super) out: Vec<u8>,
    /// The content of all that this side sends.
    message: Vec<u8>,
}

/// The machine's clock.
pub(super) fn now() -> Duration {
    Duration::from_nanos(ring::now().as_nanos())
}

impl<R: Role> Wire<R> {
    pub(super) fn new(stream: Stream) -> Self {
        let limits = Limits { secure: false, ..Limits::DEFAULT };
        let (mut machine, mut out) = (Connection::new(limits), Vec::new());
        machine.start(now(), &mut out);
        Self { stream, machine, space: HeadSpace::default(), unread: Vec::new(), out, message: super::message() }
    }

    /// Waits for bytes; false at the end of the connection.
    pub(super) async fn receive(&mut self) -> io::Result<bool> {
        let received = self.stream.recv().await?;
        if let Some(received) = &received {
            self.unread.extend_from_slice(received.bytes());
        }
        if self.stream.unsent() == 0 {
            self.machine.sent();
        }
        Ok(received.is_some())
    }

    /// Puts as much content as may go now, the message on every stream that has it queued.
    pub(super) fn put_content(&mut self) {
        while let Some(frame) = self.machine.next_data(now(), usize::MAX) {
            let end = self.message.len() - self.machine.queued(frame.stream);
            self.out.extend_from_slice(&frame.head);
            self.out.extend_from_slice(&self.message[end - frame.payload..end]);
            self.out.extend(frame.suffix.into_iter().flatten());
        }
    }

    /// Queues the message; false if the stream takes none.
    pub(super) fn queue(&mut self, stream: StreamId) -> bool {
        self.machine.queue(now(), stream, self.message.len(), &mut self.out).is_ok()
    }

    /// Sends what was put, all at once.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            self.stream.send(Buf::copy_of(&self.out));
            self.out.clear();
        }
        self.stream.sent(UNSENT_BYTES_MAX).await
    }

    pub(super) fn message(&self) -> &[u8] {
        &self.message
    }
}
