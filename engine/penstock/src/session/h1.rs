//! An HTTP/1 connection: idle → head → exchange → idle, until somebody ends it.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use proto::Malformed;
use proto::h1::{CloseReason, Eof, RequestHead, Respond, Server};
use proto::http::Status;
use ring::{Now, Timer};

use super::greeting::greet;
use super::{Accepted, Sessions, h2, preface};
use crate::conn::{Broken, Conn, Read};
use crate::exchange::{self, Door, Peer, Reason, Refused, Request};
use crate::limits;
use crate::snapshot::ProxyProtocol;
use crate::tls::Failure;

/// What ends the wait for a request.
enum Next {
    Request(RequestHead),
    /// Answer with this, then close.
    Refuse(Reason),
    Close,
}

/// How long a connection may stay silent.
#[derive(Clone, Copy)]
struct Silence {
    until: Now,
    /// It has carried a request.
    served: bool,
}

/// What a connection holds while it is parked: this, and nothing on top of it.
pub(super) struct Session {
    door: Rc<Door>,
    sessions: Rc<Sessions>,
    conn: Conn<Server>,
    peer: Peer,
    timer: Timer,
}

impl Session {
    pub(super) fn new(door: Rc<Door>, sessions: Rc<Sessions>, accepted: Accepted) -> Self {
        let trusted = accepted.address.is_some_and(|ip| door.listener().trusted.contains(ip));
        let told = door.snapshot.pools.iter().any(|pool| pool.proxy_protocol != ProxyProtocol::Off);
        let mut peer = Peer::new(accepted.address, trusted, accepted.path.filter(|_| told));
        peer.held = accepted.held;
        let mut conn = Conn::new(accepted.stream);
        if let Some(unread) = accepted.unread {
            conn.put_back(unread);
        }
        Self { door, sessions, conn, peer, timer: Timer::new() }
    }
}

/// Serves a connection from its first byte to its last.
#[allow(clippy::manual_async_fn, reason = "an `async fn` would keep its argument twice, in every idle connection")]
pub(super) fn run(mut session: Session) -> impl Future<Output = ()> {
    async move {
        session.sessions.enter(&session.door);
        if session.conn.stream.is_handshaking() && !ring::pooled(session.greet()).await {
            return session.leave();
        }
        // Who connects and says nothing is granted a head's time; who has been served, a pause.
        let mut silence = Silence { until: ring::now() + session.door.listener().head_timeout, served: false };
        loop {
            let spoken = poll_fn(|cx| session.poll_spoken(cx, silence)).await;
            if spoken && !silence.served && ring::pooled(session.speaks_h2()).await {
                return ring::pooled(session.go_on_as_h2()).await;
            }
            // Everything larger lives only as long as there is something to do.
            if !spoken || !ring::pooled(session.serve_ready()).await {
                break;
            }
            silence = Silence { until: ring::now() + session.door.listener().keep_alive_timeout, served: true };
        }
        ring::pooled(end(&mut session.conn, &mut session.timer)).await;
        if session.conn.is_cut() {
            session.conn.stream.reset_on_close();
        }
        session.leave();
    }
}

impl Session {
    /// Agrees upon TLS. False when there is nothing more to be done on this connection.
    async fn greet(&mut self) -> bool {
        match greet(&self.door, &mut self.conn.stream, &mut self.timer).await {
            Ok(()) => {
                if self.door.listener().tls.as_ref().is_some_and(|tls| tls.client_cert_field)
                    && let Some(der) = self.conn.stream.peer_certificate()
                {
                    self.peer.showed(der);
                }
                true
            }
            Err(failure) => {
                if matches!(failure, Failure::PlainHttp) {
                    let status = Status::BAD_REQUEST.code();
                    self.door.cells.responded(status);
                    let refused = Refused { status, reason: "plain-http", version: "HTTP/1.1", secured: None };
                    exchange::tell_refused(&self.door, &self.peer, self.conn.stream.said_in_the_clear(), refused);
                    self.conn.stream.say_in_the_clear(&without_tls());
                }
                // What tells of it must not be overtaken by an RST.
                self.conn.stream.linger(limits::FAREWELL, limits::LINGER_BYTES_MAX).await;
                false
            }
        }
    }

    /// Whether the client has chosen HTTP/2: by ALPN, or where there is no TLS by beginning with it (RFC 9113 §3.3).
    async fn speaks_h2(&mut self) -> bool {
        if self.door.listener().http2_streams.is_none() {
            return false;
        }
        match self.conn.stream.secured() {
            Some(secured) => secured.http2,
            None => preface::is_h2(&mut self.conn, &mut self.timer, self.door.listener().head_timeout).await,
        }
    }

    async fn go_on_as_h2(mut self) {
        let held = self.peer.held.take();
        let Self { door, sessions, mut conn, peer, timer } = self;
        // It was the wait's for what is spoken.
        drop(timer);
        let unread = conn.take_unread();
        let door = h2::run(door, &sessions, conn.stream, unread, peer).await;
        sessions.leave(&door, held);
    }

    /// Goes on by the configuration that holds now.
    fn renew(&mut self) {
        if let Some(door) = self.door.newer() {
            self.door = door;
        }
    }

    fn leave(&mut self) {
        self.sessions.leave(&self.door, self.peer.held.take());
    }

    /// Parked: waits for the first byte of a request. False when the connection has been silent for too long.
    fn poll_spoken(&mut self, cx: &mut Context<'_>, silence: Silence) -> Poll<bool> {
        if !self.conn.unread().is_empty() || self.conn.stream.poll_readable(cx).is_ready() {
            return Poll::Ready(true);
        }
        // A drain cuts short only the pause of somebody who has been served.
        let drained_at = self.sessions.draining().filter(|_| silence.served);
        self.timer.set(drained_at.map_or(silence.until, |at| at.min(silence.until)));
        if self.timer.poll_expired() { Poll::Ready(false) } else { Poll::Pending }
    }

    /// Serves what there is, each request by the configuration that holds then. False when the connection shall end.
    async fn serve_ready(&mut self) -> bool {
        loop {
            self.renew();
            match serve_ready(&self.door, &mut self.conn, &self.peer, &mut self.timer).await {
                Served::All => return true,
                Served::Some => {}
                Served::Last => return false,
            }
        }
    }
}

/// The answer to HTTP in the clear where TLS is spoken.
fn without_tls() -> Vec<u8> {
    let mut respond = Respond::new(Status::BAD_REQUEST);
    respond.content_type = b"text/plain";
    respond.body = b"400: this port speaks TLS: ask for https://\n";
    let mut answer = Vec::new();
    let written = respond.write(&mut answer);
    debug_assert!(written.is_ok(), "a vector takes all");
    answer
}

/// What has been served.
enum Served {
    /// All that was here.
    All,
    /// What comes next goes through another door.
    Some,
    /// The connection shall end.
    Last,
}

/// Serves requests while there are bytes of them, and the configuration is the same.
async fn serve_ready(door: &Door, conn: &mut Conn<Server>, peer: &Peer, timer: &mut Timer) -> Served {
    loop {
        match next_request(door, conn, timer).await {
            Next::Request(head) => {
                let request = Request::take(door, conn, head);
                exchange::serve(door, &mut conn.into(), request, peer, timer).await;
            }
            Next::Refuse(reason) => {
                let said = conn.unread()[..conn.unread().len().min(limits::REFUSED_SAID_MAX)].to_vec();
                exchange::refuse(door, &mut conn.into(), peer, &said, reason);
                return Served::Last;
            }
            Next::Close => return Served::Last,
        }
        // All that was pipelined ahead waits until the client has taken its answers.
        if conn.machine.is_closed() || conn.machine.is_tunnel() || !conn.machine.is_persistent() {
            return Served::Last;
        }
        timer.set(ring::now() + door.listener().body_timeout);
        if !sent(conn, timer, limits::UNSENT_BYTES_MAX).await {
            return Served::Last;
        }
        conn.stream.set_appetite(ring::Appetite::Any);
        if conn.unread().is_empty() && conn.stream.is_quiet() {
            return Served::All;
        }
        if door.newer().is_some() {
            return Served::Some;
        }
    }
}

/// Reads a request's head, which must come in time.
async fn next_request(door: &Door, conn: &mut Conn<Server>, timer: &mut Timer) -> Next {
    timer.set(ring::now() + door.listener().head_timeout);
    poll_fn(|cx| {
        let read = {
            let mut fields = door.desk.request_fields.borrow_mut();
            door.desk.request_of.set(0);
            conn.poll_read(cx, &mut fields)
        };
        match read {
            Poll::Ready(Ok(Read::Head(head))) => Poll::Ready(Next::Request(head)),
            Poll::Ready(Ok(Read::Closed(Eof::Truncated))) => Poll::Ready(Next::Close),
            Poll::Ready(Ok(_) | Err(Broken::Io(_))) => Poll::Ready(Next::Close),
            Poll::Ready(Err(Broken::Malformed(malformed))) => {
                door.cells.counters.requests_malformed_total.add(1);
                if malformed == Malformed::Version && preface::is_neither(conn.unread()) {
                    return Poll::Ready(Next::Close);
                }
                Poll::Ready(Next::Refuse(Reason::ClientMalformed(malformed)))
            }
            Poll::Pending if timer.poll_expired() => Poll::Ready(Next::Refuse(Reason::ClientTimedOut)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Waits until at most `most` bytes are unsent; false when the client does not take them in time.
async fn sent(conn: &mut Conn<Server>, timer: &mut Timer, most: usize) -> bool {
    poll_fn(|cx| match conn.stream.poll_sent(cx, most) {
        Poll::Ready(sent) => Poll::Ready(sent.is_ok()),
        Poll::Pending if timer.poll_expired() => Poll::Ready(false),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Ends a connection: what is owed goes out first; a client that still sends is heard out, so that no RST overtakes our
/// last words.
async fn end(conn: &mut Conn<Server>, timer: &mut Timer) {
    // It was not the client who wanted the end: more of what it says may be on its way.
    let cut_short = matches!(
        conn.machine.close_reason(),
        Some(CloseReason::UnreadBody | CloseReason::Malformed | CloseReason::WeAsked)
    );
    if !conn.is_cut() && (cut_short || !conn.machine.is_body_read() || !conn.is_quiet()) {
        return conn.stream.linger(limits::LINGER, limits::LINGER_BYTES_MAX).await;
    }
    if !conn.is_cut() {
        conn.stream.close_notify();
    }
    let mut owed = usize::MAX;
    while conn.stream.unsent() < owed {
        owed = conn.stream.unsent();
        timer.set(ring::now() + limits::LINGER);
        if sent(conn, timer, 0).await {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DESIGN's budget for an exchange: what a connection holds on top while it works.
    #[test]
    fn a_working_session_is_no_larger_than_two_kilobytes() {
        fn size_of_future<'a, F>(_: fn(&'a Door, &'a mut Conn<Server>, &'a Peer, &'a mut Timer) -> F) -> usize {
            size_of::<F>()
        }
        let size = size_of_future(serve_ready);
        assert!(size <= 2 << 10, "{size}");
    }

    /// What an idle connection's task holds; with its stream, operation and timer it must stay below 512 bytes.
    #[test]
    fn a_parked_session_is_small() {
        fn size_of_future<F>(_: fn(Session) -> F) -> usize {
            size_of::<F>()
        }
        let size = size_of_future(run);
        assert!(size <= 232, "{size}");
    }
}
