//! The doors of QUIC: a socket for each address of a listener, and who is let in.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use super::{Gate, datagrams};
use crate::limits;
use crate::quic::{self, Endpoint, Keys, Newcomer, Place};
use crate::session::{self, Arrived};
use crate::snapshot::Listener;

/// Binds the addresses of a listener that has HTTP/3, `first` of them being bound already. Unix sockets carry none.
///
/// # Errors
/// The first address that cannot be bound, named.
pub fn bind(
    listener: &Listener,
    first: usize,
    keys: &Keys,
    place: Place,
    offer: &Arc<quic::Offer>,
) -> io::Result<Vec<Rc<Endpoint>>> {
    let mut at = first;
    datagrams(listener, ", for HTTP/3", "; `http3.enabled = false` does without", |address, foreign| {
        let endpoint = Endpoint::bind(address, foreign, at, keys, place, Arc::clone(offer))?;
        at += 1;
        Ok(endpoint)
    })
}

/// Carries datagrams, and lets clients in until the gate closes; and after that until the last connection is over, which needs it to its last word.
pub async fn serve(gate: Rc<Gate>, endpoint: Rc<Endpoint>) {
    loop {
        // A handshake is 150 to 450 µs of arithmetic: others have their turn in between.
        let mut handshakes = 0;
        while handshakes < limits::HANDSHAKES_A_TURN
            && let Some(newcomer) = endpoint.newcomer()
        {
            handshakes += usize::from(admit(&gate, &endpoint, newcomer));
        }
        // What has come meanwhile is looked at next, by whom it is for; before those are let in who came with it.
        match gate.next(|cx| endpoint.poll_carry(cx)).await {
            Some(Ok(())) => ring::yield_now().await,
            Some(Err(_)) => ring::sleep(limits::ACCEPT_PAUSE).await,
            None if endpoint.connections() == 0 => return,
            None => {}
        }
    }
}

/// Lets a client in, or does not. Whether that was work.
fn admit(gate: &Gate, endpoint: &Rc<Endpoint>, newcomer: Newcomer) -> bool {
    let door = &gate.door();
    let counters = &door.cells.counters;
    if gate.closing.get() || gate.is_full() {
        counters.quic_refused_total.add(1);
        endpoint.refuse(newcomer);
        return false;
    }
    // Whom we count, we want to know; and a flood of strangers shall cost no more than its answers.
    if !newcomer.is_proved() && endpoint.handshaking() >= limits::QUIC_UNPROVED_MAX {
        counters.quic_retries_total.add(1);
        endpoint.ask_for_proof(newcomer);
        return false;
    }
    let address = newcomer.address();
    let Some(held) = door.qos.hold(door.listener, Some(address.ip())) else {
        counters.connections_refused_total.add(1);
        endpoint.refuse(newcomer);
        return false;
    };
    counters.connections_total.add(1);
    match endpoint.accept(newcomer) {
        Some(link) => session::start_quic(door, &gate.sessions, Arrived { link, address, held }),
        None => {
            counters.tls_handshakes_malformed_total.add(1);
            door.qos.release(door.listener, held);
        }
    }
    true
}
