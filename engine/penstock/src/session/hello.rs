//! TLS that is passed through: the client's first words, read to know where it wants to go, and left as they are.
//!
//! What holds here: a client has the time of a head and 16 KiB; who is turned away is told by an alert if he speaks TLS, and counted by why.

use std::future::poll_fn;
use std::task::Poll;

use proto::tls::{Alert, NoHello, alert, read_hello};
use ring::{Buf, Timer};

use crate::conn::{Transport, append};
use crate::exchange::Door;
use crate::snapshot::PoolId;

/// Why a client is led nowhere.
enum Turned {
    TimedOut,
    Left,
    NoHello(NoHello),
    /// No rule takes it.
    Unrecognized,
}

/// The pool that a client's first words lead to; what has been received is in `unread` then. `None`: it has been turned away.
pub(super) async fn lead(
    door: &Door,
    stream: &mut Transport,
    unread: &mut Option<Buf>,
    otherwise: Option<PoolId>,
    timer: &mut Timer,
) -> Option<PoolId> {
    timer.set(ring::now() + door.listener().head_timeout);
    let mut scratch = Vec::new();
    let led = poll_fn(|cx| {
        loop {
            let received = unread.as_ref().map_or(&[][..], Buf::bytes);
            match read_hello(received, &mut scratch) {
                Ok(Some(hello)) => {
                    let pool = door.listener().sni.find(&hello).or(otherwise);
                    return Poll::Ready(pool.ok_or(Turned::Unrecognized));
                }
                Ok(None) => {}
                Err(why) => return Poll::Ready(Err(Turned::NoHello(why))),
            }
            match stream.poll_recv(cx) {
                // What is here is less than a ClientHello may be, so this finds room.
                Poll::Ready(Ok(Some(more))) => drop(append(unread, more)),
                Poll::Ready(_) => return Poll::Ready(Err(Turned::Left)),
                Poll::Pending if timer.poll_expired() => return Poll::Ready(Err(Turned::TimedOut)),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    let counters = &door.cells.counters;
    match led {
        Ok(pool) => {
            counters.sni_led_total.add(1);
            return Some(pool);
        }
        Err(Turned::TimedOut) => counters.sni_timed_out_total.add(1),
        Err(Turned::Left) => counters.sni_left_total.add(1),
        Err(Turned::NoHello(NoHello::NotTls)) => counters.sni_not_tls_total.add(1),
        Err(Turned::NoHello(_)) => {
            counters.sni_malformed_total.add(1);
            stream.send(Buf::copy_of(&alert(Alert::DecodeError)));
        }
        Err(Turned::Unrecognized) => {
            counters.sni_unrecognized_total.add(1);
            stream.send(Buf::copy_of(&alert(Alert::UnrecognizedName)));
        }
    }
    None
}
