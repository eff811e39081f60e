//! An HTTP/3 connection with a client.

use std::rc::Rc;

use proto::h3::Limits;
use ring::{Timer, now};

use super::{Arrived, Sessions, multiplexed};
use crate::conn::{Ended, h3};
use crate::exchange::{Door, Peer};
use crate::limits;
use crate::quic::{ConnectionError, Link};

/// Serves a connection until it is over.
pub(super) async fn run(mut door: Rc<Door>, sessions: Rc<Sessions>, arrived: Arrived) {
    let Arrived { mut link, address, held } = arrived;
    sessions.enter(&door);
    if greet(&door, &mut link).await {
        let trusted = door.listener().trusted.contains(address.ip());
        let path = link.local().map(|ip| (address, std::net::SocketAddr::new(ip, 0))).filter(|_| door.tells_path);
        let mut peer = Peer::new(Some(address.ip()), trusted, path);
        if door.listener().tls.as_ref().is_some_and(|tls| tls.client_cert_field)
            && let Some(der) = link.peer_certificate()
        {
            peer.showed(&der);
        }
        door = serve(door, &sessions, link, peer).await;
    }
    sessions.leave(&door, held);
}

async fn serve(door: Rc<Door>, sessions: &Rc<Sessions>, link: Link, peer: Peer) -> Rc<Door> {
    door.cells.counters.h3_connections_total.add(1);
    let limits = door.listener().http3.as_ref().map_or(limits::HTTP3, |http3| Limits {
        streams: http3.streams,
        datagrams: http3.datagrams,
        ..limits::HTTP3
    });
    let connection = h3::Multiplex::new(link, limits);
    let (ended, door) = multiplexed::run(door, sessions, connection, peer).await;
    door.cells.counters.h3_faults_total.add(u64::from(ended == Ended::Fault));
    door
}

/// Agrees upon TLS with a client, or as far as early data. False when that came to nothing.
async fn greet(door: &Door, link: &mut Link) -> bool {
    let deadline = now() + door.listener().handshake_timeout;
    let greeted = link.shake_hands(deadline, &mut Timer::new()).await;
    let counters = &door.cells.counters;
    match &greeted {
        Ok(()) => {
            counters.tls_handshakes_total.add(1);
            counters.tls_early_data_accepted_total.add(u64::from(link.has_early_data()));
        }
        Err(ConnectionError::TimedOut) => counters.tls_handshakes_timed_out_total.add(1),
        Err(_) => {
            counters.tls_handshakes_alert_total.add(1);
            link.see_off(now());
        }
    }
    greeted.is_ok()
}
