//! The doors of datagrams: a socket for each address of a listener, and which flow what comes belongs to.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;

use ring::{UdpOptions, UdpSocket};

use super::{Gate, datagrams};
use crate::limits;
use crate::session::udp::Flows;
use crate::snapshot::Listener;

/// Binds the addresses of a listener, as one of their reuseport groups: the kernel gives all of a client's datagrams to one worker.
///
/// # Errors
/// The first address that cannot be bound, named.
pub fn bind(listener: &Listener) -> io::Result<Vec<UdpSocket>> {
    datagrams(listener, "", "", |address| UdpSocket::bind(address, &UdpOptions::default()))
}

/// Hands datagrams to their flows. For as long as the worker lives: flows answer by this socket to the last.
pub async fn serve(gate: Rc<Gate>, socket: UdpSocket) {
    let flows = Flows::new(&gate.door, &gate.sessions, socket);
    loop {
        let most = || if gate.closing.get() { 0 } else { gate.connections_max };
        if poll_fn(|cx| flows.poll_clients(cx, most())).await.is_err() {
            ring::sleep(limits::ACCEPT_PAUSE).await;
        }
        // There may be more, but first those have their turn for whom this was.
        ring::yield_now().await;
    }
}
