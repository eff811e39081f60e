//! What comes before everything else on a listener with TLS: the handshake, and what is told of it.

use ring::Timer;

use crate::conn::Transport;
use crate::exchange::Door;
use crate::tls::{Cause, Failure};

/// Agrees upon TLS with a client.
pub(super) async fn greet(door: &Door, stream: &mut Transport, timer: &mut Timer) -> Result<(), Failure> {
    let deadline = ring::now() + door.listener().handshake_timeout;
    let greeted = stream.shake_hands(deadline, timer).await;
    let counters = &door.cells.counters;
    match stream.early_data() {
        Some(true) => counters.tls_early_data_accepted_total.add(1),
        Some(false) => counters.tls_early_data_rejected_total.add(1),
        None => {}
    }
    match &greeted {
        Ok(()) => {
            let secured = stream.secured();
            counters.tls_handshakes_total.add(1);
            counters.tls_resumed_total.add(u64::from(secured.is_some_and(|secured| secured.resumed)));
            counters.tls12_handshakes_total.add(u64::from(secured.is_some_and(|secured| secured.version == "TLSv1.2")));
        }
        Err(failure) => match failure.cause() {
            Cause::TimedOut => counters.tls_handshakes_timed_out_total.add(1),
            Cause::Left => counters.tls_handshakes_left_total.add(1),
            Cause::PlainHttp => counters.tls_handshakes_plain_http_total.add(1),
            Cause::Incompatible => counters.tls_handshakes_incompatible_total.add(1),
            Cause::Certificate => counters.tls_handshakes_certificate_total.add(1),
            Cause::Alert => counters.tls_handshakes_alert_total.add(1),
            Cause::Malformed => counters.tls_handshakes_malformed_total.add(1),
        },
    }
    greeted
}
