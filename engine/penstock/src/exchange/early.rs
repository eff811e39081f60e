//! Requests in TLS early data (0-RTT), which somebody may have recorded and sends again (RFC 8470).
//!
//! A session is good for one use, so a repeated flight is not taken here a second time (`tls`); but a client's own may be: it sends again what an attacker has held
//! back. What holds: before the handshake is complete, a request goes on only if it changes nothing, and its endpoint is told; whatever else
//! came waits for the handshake, after which it is a request like any other (RFC 8470 §3). Waiting costs a client nothing; 425, which costs it a round
//! trip, is for those whose handshake does not come to its end in time (§5.2). An endpoint's own 425 is the client's to answer, and is passed on.

use std::future::poll_fn;
use std::task::Poll;

use proto::h1::Server;
use proto::http::Method;
use ring::Timer;

use super::admit::gone;
use super::{Door, Reason, Request};
use crate::conn::Lane;

/// The field that tells endpoints (RFC 8470 §5.1).
pub(super) const FIELD: &[u8] = b"early-data";

/// Whether a request that comes twice is as good as one: its method is safe, it brings nothing, and it stays a request.
fn may_go(request: &Request) -> bool {
    let head = &request.head;
    matches!(head.method, Method::Get | Method::Head | Method::Options)
        && !head.framing.has_body()
        && head.upgrade.is_empty()
}

/// Lets a request pass that may go now, and others when the handshake is complete.
pub(super) async fn pass(
    door: &Door,
    lane: &mut Lane<'_, Server>,
    request: &mut Request,
    timer: &mut Timer,
) -> Result<(), Reason> {
    if !lane.is_early() {
        return Ok(());
    }
    let counters = &door.cells.counters;
    if may_go(request) {
        counters.requests_early_total.add(1);
        request.early = true;
        return Ok(());
    }
    counters.requests_early_held_total.add(1);
    timer.set(request.begun + door.listener().handshake_timeout);
    let confirmed = poll_fn(|cx| match lane.poll_confirmed(cx) {
        Poll::Ready(confirmed) => Poll::Ready(confirmed.map_err(|_| gone(lane))),
        Poll::Pending if timer.poll_expired() => Poll::Ready(Err(Reason::TooEarly)),
        Poll::Pending => Poll::Pending,
    })
    .await;
    counters.requests_too_early_total.add(u64::from(confirmed == Err(Reason::TooEarly)));
    confirmed
}
