//! What a client speaks, where nothing but its first bytes tell.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use proto::h1::Server;
use proto::h2::frame::PREFACE;
use ring::Timer;

use crate::conn::Conn;

/// Whether a first line with no version of HTTP asks for no path either: then it is of another language altogether, and least of all would somebody
/// understand an answer of HTTP/1 who meant to begin with HTTP/2's preface (RFC 9113 §3.4). A PROXY header that is not believed here is of a
/// balancer before us, whose requests follow: those who ask shall see that they were refused.
pub(super) fn is_neither(said: &[u8]) -> bool {
    let line = said.split(|&byte| byte == b'\r' || byte == b'\n').find(|line| !line.is_empty()).unwrap_or_default();
    let mut words = line.split(|&byte| byte == b' ').skip(1);
    let (Some(target), Some(version)) = (words.next(), words.next()) else { return false };
    let is_balancer = line.starts_with(b"PROXY ");
    !is_balancer
        && !target.contains(&b'/')
        && !version.is_empty()
        && !version.to_ascii_lowercase().starts_with(b"http/")
}

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

#[cfg(test)]
mod tests {
    use super::is_neither;

    #[test]
    fn what_is_no_http_at_all() {
        for other in ["INVALID CONNECTION PREFACE\r\n\r\n", "\r\nEHLO a b\r\n"] {
            assert!(is_neither(other.as_bytes()), "{other}");
        }
        for http in [
            "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\nGET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/3.0\r\n\r\n",
            "GET a http/1.1\r\n\r\n",
            "GET / HTTQ/1.1\r\n\r\n",
            "GET / \r\nhost: a\r\n\r\n",
            "\r\n",
            "",
        ] {
            assert!(!is_neither(http.as_bytes()), "{http}");
        }
    }
}
