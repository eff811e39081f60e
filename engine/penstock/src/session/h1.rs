//! An HTTP/1 connection: idle → head → exchange → idle, until somebody ends it.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use proto::h1::{Eof, RequestHead, Server};
use ring::Timer;

use super::{Accepted, Sessions};
use crate::conn::{Broken, Conn, Read};
use crate::exchange::{self, Door, Peer, Reason, Request};
use crate::limits;

/// What ends the wait for a request.
enum Next {
    Request(RequestHead),
    /// Answer with this, then close.
    Refuse(Reason),
    Close,
}

/// How long a connection may stay silent.
#[derive(Clone, Copy)]
struct Patience {
    span: Duration,
    /// It has carried a request.
    served: bool,
}

pub(super) async fn run(door: &Door, sessions: &Sessions, accepted: Accepted, peer: &Peer, mut timer: Timer) {
    let mut conn: Conn<Server> = Conn::new(accepted.stream);
    if let Some(unread) = accepted.unread {
        conn.put_back(unread);
    }
    // Who connects and says nothing is granted a head's time; who has been served, a pause.
    let mut patience = Patience { span: door.listener().head_timeout, served: false };
    while wait_for_bytes(sessions, &mut conn, &mut timer, patience).await {
        patience = Patience { span: door.listener().keep_alive_timeout, served: true };
        // Everything larger lives only as long as there is something to do.
        let goes_on = ring::pooled(serve_ready(door, &mut conn, peer, &mut timer)).await;
        if !goes_on {
            ring::pooled(end(conn, &mut timer)).await;
            return;
        }
    }
}

/// Parked: waits for the first byte of a request. False when the connection has been idle for too long.
async fn wait_for_bytes(sessions: &Sessions, conn: &mut Conn<Server>, timer: &mut Timer, patience: Patience) -> bool {
    let since = ring::now();
    poll_fn(|cx| {
        if !conn.unread().is_empty() || conn.stream.poll_readable(cx).is_ready() {
            return Poll::Ready(true);
        }
        let idle_until = since + patience.span;
        // A drain cuts short only the pause of somebody who has been served.
        let drained_at = sessions.draining().filter(|_| patience.served);
        timer.set(drained_at.map_or(idle_until, |at| at.min(idle_until)));
        if timer.poll_expired() { Poll::Ready(false) } else { Poll::Pending }
    })
    .await
}

/// Serves requests while there are bytes of them. False when the connection shall end.
async fn serve_ready(door: &Door, conn: &mut Conn<Server>, peer: &Peer, timer: &mut Timer) -> bool {
    loop {
        match next_request(door, conn, timer).await {
            Next::Request(head) => {
                let request = Request::take(door, conn, head);
                exchange::serve(door, conn, request, peer, timer).await;
            }
            Next::Refuse(reason) => {
                let status = exchange::refuse(door, conn, reason);
                if status > 0 {
                    door.cells.responded(status);
                }
                return false;
            }
            Next::Close => return false,
        }
        // All that was pipelined ahead waits until the client has taken its answers.
        if conn.machine.is_closed() || conn.machine.is_tunnel() || !conn.machine.is_persistent() {
            return false;
        }
        timer.set(ring::now() + door.listener().body_timeout);
        if !sent(conn, timer, limits::UNSENT_BYTES_MAX).await {
            return false;
        }
        conn.stream.set_appetite(ring::Appetite::Any);
        if conn.unread().is_empty() && conn.stream.is_quiet() {
            return true;
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
async fn end(mut conn: Conn<Server>, timer: &mut Timer) {
    use proto::h1::CloseReason;

    let reason = conn.machine.close_reason();
    if reason == Some(CloseReason::BrokenWrite) {
        // The client must not take what it got for the whole.
        timer.set(ring::now() + limits::LINGER);
        sent(&mut conn, timer, 0).await;
        return conn.stream.reset();
    }
    let cut_short = matches!(reason, Some(CloseReason::UnreadBody | CloseReason::Malformed));
    if cut_short || !conn.machine.is_body_read() || !conn.is_quiet() {
        return ring::linger(conn.stream, limits::LINGER, limits::LINGER_BYTES_MAX).await;
    }
    timer.set(ring::now() + limits::LINGER);
    sent(&mut conn, timer, 0).await;
}
