//! One QUIC connection: the machine, its datagrams in and out, its clock.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use quinn_proto::{
    Connection, ConnectionError, ConnectionEvent, ConnectionHandle, ConnectionId, Dir, Event, ReadError, StreamEvent,
    StreamId, VarInt, WriteError,
};
use ring::{Now, Sent, TaskRef, Timer};

use super::farewell::Farewell;
use super::proof::Proof;
use super::window::SendWindow;
use super::{Endpoint, Trace, instant};
use crate::limits;
use crate::tls::Secured;

/// What has come for a connection and has not been looked at by its task.
pub(super) struct Inbox {
    events: RefCell<VecDeque<ConnectionEvent>>,
    task: Cell<Option<TaskRef>>,
    proof: Proof,
    /// Whom we call, as long as it has not answered.
    called: Cell<Option<SocketAddr>>,
    /// ICMP says that nobody is there.
    refused: Cell<bool>,
}

impl Inbox {
    pub(super) fn put(&self, event: ConnectionEvent, id: Option<ConnectionId>, bytes: u64) {
        self.proof.hear(id, bytes);
        self.called.set(None);
        self.events.borrow_mut().push_back(event);
        self.wake();
    }

    /// Nobody listens there: for who calls that address, and has not been answered.
    pub(super) fn refuse(&self, peer: SocketAddr) {
        if self.called.get() == Some(peer) {
            self.refused.set(true);
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(task) = self.task.get() {
            ring::wake(task);
        }
    }
}

/// What comes behind the bytes of a stream that were read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Behind {
    /// There may be more here.
    More,
    /// Nothing has come yet.
    Nothing,
    End,
    /// The peer has reset the stream, with this code.
    Reset(u64),
}

/// What the connection tells of itself.
#[derive(Debug)]
pub enum Notice {
    /// The handshake is finished.
    Connected,
    Stream(StreamEvent),
    /// There are datagrams to be taken.
    Datagrams,
    /// It is over.
    Lost(ConnectionError),
}

/// A QUIC connection of ours. Dropping it forgets it: what still comes for it is answered by a stateless reset.
pub struct Link {
    pub quic: Connection,
    endpoint: Rc<Endpoint>,
    handle: ConnectionHandle,
    inbox: Rc<Inbox>,
    handshaking: bool,
    /// Told before its time.
    untold: Option<StreamEvent>,
    drained: bool,
    /// The peer has said that it is the end.
    left: bool,
    /// What we have said at the end.
    farewell: Option<Farewell>,
    /// The endpoint sees to what is still to be said.
    seen_off: bool,
    /// Something was read that lets the peer send more.
    owes: bool,
    window: SendWindow,
    /// What is written of it, and where the peer was when it was last looked at.
    trace: Option<Box<(Trace, SocketAddr)>>,
}

impl Link {
    pub(super) fn new(endpoint: &Rc<Endpoint>, handle: ConnectionHandle, quic: Connection, proof: Proof) -> Self {
        let called = quic.side().is_client().then(|| quic.remote_address());
        let inbox = Rc::new(Inbox {
            events: RefCell::default(),
            task: Cell::new(None),
            proof,
            called: Cell::new(called),
            refused: Cell::new(false),
        });
        endpoint.open(handle, &inbox);
        Self {
            quic,
            endpoint: Rc::clone(endpoint),
            handle,
            inbox,
            handshaking: true,
            untold: None,
            drained: false,
            left: false,
            farewell: None,
            seen_off: false,
            owes: false,
            window: SendWindow::new(ring::now()),
            trace: None,
        }
    }

    /// What happens is written there.
    pub(super) fn traced(mut self, trace: Option<Trace>) -> Self {
        self.trace = trace.map(|trace| Box::new((trace, self.peer())));
        self
    }

    /// What is written of it, where that was asked for.
    #[must_use]
    pub fn trace(&self) -> Option<&Trace> {
        self.trace.as_deref().map(|(trace, _)| trace)
    }

    /// Takes in what has come, and does what time asks for. To be called by the one task that pumps the connection.
    pub fn advance(&mut self, now: Now) {
        self.inbox.task.set(Some(ring::current_task()));
        let moment = instant(now);
        loop {
            let Some(event) = self.inbox.events.borrow_mut().pop_front() else { break };
            self.quic.handle_event(event);
        }
        while self.quic.poll_timeout().is_some_and(|due| due <= moment) {
            self.quic.handle_timeout(moment);
        }
        if self.window.is_due(now, self.quic.rtt()) {
            let shortest = self.quic.min_rtt();
            let window = self.window.fit(now, self.quic.stats().udp_tx.bytes, shortest);
            self.quic.set_send_window(window);
        }
        self.tell_endpoint();
        let peer = self.peer();
        if let Some((trace, before)) = self.trace.as_deref_mut() {
            let before = std::mem::replace(before, peer);
            if before != peer {
                trace.moved(now, before, peer);
            }
            trace.advance(now);
        }
    }

    /// Ids are given out and taken back.
    fn tell_endpoint(&mut self) {
        while let Some(event) = self.quic.poll_endpoint_events() {
            self.drained |= event.is_drained();
            if let Some(event) = self.endpoint.hear(self.handle, event) {
                self.quic.handle_event(event);
            }
        }
    }

    /// The next thing that has happened.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        if let Some(event) = self.untold.take() {
            return Some(Notice::Stream(event));
        }
        loop {
            return match self.quic.poll()? {
                Event::Connected => {
                    self.settle_handshake();
                    if let Some(trace) = self.trace() {
                        trace.connected(ring::now());
                    }
                    Some(Notice::Connected)
                }
                Event::ConnectionLost { reason } => {
                    self.settle_handshake();
                    self.left =
                        matches!(reason, ConnectionError::ConnectionClosed(_) | ConnectionError::ApplicationClosed(_));
                    if let Some(trace) = self.trace() {
                        trace.closed(ring::now(), &reason);
                    }
                    Some(Notice::Lost(reason))
                }
                Event::Stream(event) => Some(Notice::Stream(event)),
                Event::DatagramReceived => Some(Notice::Datagrams),
                Event::HandshakeDataReady | Event::DatagramsUnblocked => continue,
            };
        }
    }

    /// Agrees upon TLS with the peer, before anything else is said, or as far as early data.
    ///
    /// # Errors
    /// Why that came to nothing: [`ConnectionError::TimedOut`] at the deadline, too.
    pub async fn shake_hands(&mut self, deadline: Now, timer: &mut Timer) -> Result<(), ConnectionError> {
        poll_fn(|cx| {
            let now = ring::now();
            self.advance(now);
            let greeted = loop {
                match self.poll_notice() {
                    Some(Notice::Connected) => break Some(Ok(())),
                    Some(Notice::Lost(why)) => break Some(Err(why)),
                    // A request in early data is not kept waiting.
                    Some(Notice::Stream(event @ StreamEvent::Opened { .. })) if self.is_early() => {
                        self.untold = Some(event);
                        break Some(Ok(()));
                    }
                    Some(Notice::Stream(_) | Notice::Datagrams) => {}
                    None if self.inbox.refused.get() => break Some(Err(nobody_there())),
                    None if now >= deadline => break Some(Err(ConnectionError::TimedOut)),
                    None => break None,
                }
            };
            let _ = self.transmit(now, cx);
            if let Some(greeted) = greeted {
                return Poll::Ready(greeted);
            }
            timer.set(self.deadline(now).map_or(deadline, |due| due.min(deadline)));
            if timer.poll_expired() {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await
    }

    /// What is read may be somebody's who only repeats it: early data was taken, and the handshake is not complete (RFC 9001 §9.2).
    #[must_use]
    pub fn is_early(&self) -> bool {
        self.quic.is_handshaking() && self.has_early_data()
    }

    /// Early data of a client was taken.
    #[must_use]
    pub fn has_early_data(&self) -> bool {
        self.quic.has_0rtt() && self.quic.side().is_server()
    }

    fn settle_handshake(&mut self) {
        if std::mem::replace(&mut self.handshaking, false) {
            self.endpoint.handshaken();
        }
    }

    /// Sends what may go. Pending when the socket or the turn allows no more, and the task is woken when they do.
    pub fn transmit(&mut self, now: Now, cx: &mut Context<'_>) -> Poll<()> {
        let Self { quic, endpoint, inbox, farewell, left, .. } = self;
        let moment = instant(now);
        for _ in 0..limits::QUIC_SENDS_A_TURN {
            let bytes =
                inbox.proof.left().map_or(limits::QUIC_SEND_BYTES, |left| limits::QUIC_SEND_BYTES.min(left as usize));
            let most = limits::QUIC_SEGMENTS_MAX.min(bytes / usize::from(quic.current_mtu()));
            if most == 0 {
                return Poll::Ready(());
            }
            if endpoint.socket.poll_room(cx).is_pending() {
                return Poll::Pending;
            }
            let sent = endpoint.with_wire(|wire| {
                wire.clear();
                let transmit = quic.poll_transmit(moment, most, wire)?;
                inbox.proof.say(transmit.size);
                // That we have heard that it is the end, is said once.
                if quic.is_closed() && !*left {
                    *farewell = Some(Farewell::new(&transmit, wire));
                }
                Some(endpoint.send(&transmit, wire))
            });
            match sent {
                None => return Poll::Ready(()),
                Some(Sent::Done | Sent::Queued) => {}
                // As if the network had lost it.
                Some(Sent::Full) => break,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// When to [`advance`](Self::advance) at the latest.
    pub fn deadline(&mut self, now: Now) -> Option<Now> {
        let due = self.quic.poll_timeout()?;
        Some(now + due.saturating_duration_since(instant(now)))
    }

    /// Ends the connection, and tells the peer with this code of the application.
    pub fn close(&mut self, now: Now, code: u64) {
        if let Some(trace) = self.trace() {
            trace.close(now, code);
        }
        let code = VarInt::from_u64(code).unwrap_or(VarInt::MAX);
        self.quic.close(instant(now), code, Bytes::new());
    }

    /// Its last words have been said: from now on it is the endpoint that says them again if they are ours, or is silent if they are the peer's, until
    /// nothing of the connection can be under way (RFC 9000 §10.2). Of no more use for anything but being dropped.
    pub fn see_off(&mut self, now: Now) {
        if self.drained || self.seen_off || !self.quic.is_closed() {
            return;
        }
        let farewell = self.farewell.take();
        // Of a connection that is closed no other clock runs.
        let until = self.deadline(now).map_or(now, |due| due.min(now + limits::LINGER));
        self.seen_off = self.endpoint.see_off(self.handle, farewell, until);
    }

    /// A stream that the peer has opened.
    pub fn accept(&mut self, dir: Dir) -> Option<StreamId> {
        self.quic.streams().accept(dir)
    }

    /// Opens a stream in both directions, if the peer allows one more.
    pub fn open(&mut self) -> Option<StreamId> {
        self.quic.streams().open(Dir::Bi)
    }

    /// Opens three streams of our own in one direction; a peer has to allow that many (RFC 9114 §6.2).
    pub fn open_three(&mut self) -> Option<[StreamId; 3]> {
        let mut streams = self.quic.streams();
        Some([streams.open(Dir::Uni)?, streams.open(Dir::Uni)?, streams.open(Dir::Uni)?])
    }

    /// Streams that we send on, until the last byte is acknowledged.
    pub fn sending(&mut self) -> usize {
        self.quic.streams().send_streams()
    }

    /// Datagrams that have come.
    #[must_use]
    pub fn heard(&self) -> u64 {
        self.quic.stats().udp_rx.datagrams
    }

    /// STREAM frames sent, those again that were lost.
    #[must_use]
    pub fn content_frames_sent(&self) -> u64 {
        self.quic.stats().frame_tx.stream
    }

    /// Gives away the next bytes of a stream, in order, no more than `most` of them; and says what comes behind. A stream that is gone is at its end.
    pub fn read(&mut self, id: StreamId, most: usize, mut give: impl FnMut(&[u8])) -> Behind {
        let mut stream = self.quic.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else { return Behind::End };
        let mut left = most;
        let behind = loop {
            if left == 0 {
                break Behind::More;
            }
            match chunks.next(left) {
                Ok(Some(chunk)) => {
                    left -= chunk.bytes.len();
                    give(&chunk.bytes);
                }
                Ok(None) => break Behind::End,
                Err(ReadError::Blocked) => break Behind::Nothing,
                Err(ReadError::Reset(code)) => break Behind::Reset(code.into_inner()),
            }
        };
        // What was read lets the peer send more, and that is sent with whatever comes next, or by the pump.
        self.owes |= chunks.finalize().should_transmit();
        behind
    }

    /// The next datagram that has come (RFC 9221).
    pub fn take_datagram(&mut self) -> Option<Bytes> {
        self.quic.datagrams().recv()
    }

    /// How long a datagram may be, as far as the path and the peer are known; `None`: the peer takes none.
    pub fn datagram_max(&mut self) -> Option<usize> {
        self.quic.datagrams().max_size()
    }

    /// Sends a datagram, soon or never: false when there are too many that wait, or it is too long.
    pub fn send_datagram(&mut self, bytes: Bytes) -> bool {
        self.quic.datagrams().send(bytes, false).is_ok()
    }

    /// Whether something was read that the peer has to be told of.
    pub fn take_owes(&mut self) -> bool {
        std::mem::take(&mut self.owes)
    }

    /// Takes bytes to be sent on a stream: how many of them.
    ///
    /// # Errors
    /// None for now: [`StreamEvent::Writable`] tells when. The peer wants none, or the stream is over.
    pub fn write(&mut self, id: StreamId, bytes: &[u8]) -> Result<usize, WriteError> {
        if bytes.is_empty() { Ok(0) } else { self.quic.send_stream(id).write(bytes) }
    }

    /// As [`write`](Self::write), of memory that is QUIC's from then on: how many bytes, which are no longer in `bytes`.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn lend(&mut self, id: StreamId, bytes: &mut Bytes) -> Result<usize, WriteError> {
        Ok(self.quic.send_stream(id).write_chunks(std::slice::from_mut(bytes))?.bytes)
    }

    /// Nothing more will be written on a stream.
    pub fn finish(&mut self, id: StreamId) {
        // The peer may have stopped it meanwhile.
        let _ = self.quic.send_stream(id).finish();
    }

    /// What was written on a stream and has not been received shall not be.
    pub fn reset(&mut self, id: StreamId, code: u64) {
        let _ = self.quic.send_stream(id).reset(VarInt::from_u64(code).unwrap_or(VarInt::MAX));
    }

    /// What the peer still sends on a stream is not wanted.
    pub fn stop(&mut self, id: StreamId, code: u64) {
        let _ = self.quic.recv_stream(id).stop(VarInt::from_u64(code).unwrap_or(VarInt::MAX));
    }

    /// Streams of more importance go first; those of the same take turns.
    pub fn set_importance(&mut self, id: StreamId, importance: i32) {
        let _ = self.quic.send_stream(id).set_priority(importance);
    }

    /// What was agreed upon. The machine tells neither cipher nor whether a session was resumed.
    #[must_use]
    pub const fn secured(&self) -> Secured {
        Secured { version: "TLSv1.3", cipher: "", resumed: false, http2: false }
    }

    /// Where the peer is now: it may move (RFC 9000 §9).
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        let address = self.quic.remote_address();
        SocketAddr::new(address.ip().to_canonical(), address.port())
    }

    /// The local address, where it is known.
    #[must_use]
    pub fn local(&self) -> Option<IpAddr> {
        self.quic.local_ip().map(|ip| ip.to_canonical())
    }

    /// The certificate that the peer has shown, as DER.
    #[must_use]
    pub fn peer_certificate(&self) -> Option<Vec<u8>> {
        let shown = self.quic.crypto_session().peer_identity()?;
        let chain = shown.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().ok()?;
        chain.first().map(|first| first.to_vec())
    }
}

/// As if somebody had said so.
fn nobody_there() -> ConnectionError {
    ConnectionError::ConnectionClosed(quinn_proto::ConnectionClose {
        error_code: quinn_proto::TransportErrorCode::CONNECTION_REFUSED,
        frame_type: None,
        reason: Bytes::new(),
    })
}

impl Drop for Link {
    fn drop(&mut self) {
        self.settle_handshake();
        if !self.seen_off {
            self.endpoint.close(self.handle, self.drained);
        }
    }
}
