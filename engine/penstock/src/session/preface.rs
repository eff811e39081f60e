//! What a client speaks, where nothing but its first bytes tell.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use proto::h1::Server;
use proto::h2::frame::PREFACE;
use ring::Timer;

use crate::conn::Conn;

/// Whether the connection begins as HTTP/2 does (RFC 9113 §3.4). Whatever is received meanwhile stays to be read; a client that says nothing, or not
/// enough to tell, is left to HTTP/1.
pub(super) async fn is_h2(conn: &mut Conn<Server>, timer: &mut Timer, patience: Duration) -> bool {
    timer.set(ring::now() + patience);
    poll_fn(|cx| {
        loop {
            let said = conn.unread();
            let compared = said.len().min(PREFACE.len());
            if said[..compared] != PREFACE[..compared] {
                return Poll::Ready(false);
            }
            if compared == PREFACE.len() {
                return Poll::Ready(true);
            }
            match conn.poll_receive(cx) {
                Poll::Ready(true) => {}
                Poll::Ready(false) => return Poll::Ready(false),
                Poll::Pending if timer.poll_expired() => return Poll::Ready(false),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}
