//! The doors of datagrams: a socket for each address of a listener, and which flow what comes belongs to.

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
    let fragments = listener.protocol.fragments();
    datagrams(listener, "", "", |address, foreign| {
        UdpSocket::bind(address, &UdpOptions { fragments, foreign, ..UdpOptions::default() })
    })
}

/// Hands datagrams to their flows until the gate closes, and after that until the last of them is over: they answer by this socket.
pub async fn serve(gate: Rc<Gate>, flows: Rc<Flows>) {
    loop {
        let most = || if gate.is_closing() { 0 } else { gate.connections_max() };
        match gate.next(|cx| flows.poll_clients(cx, most())).await {
            Some(Ok(_)) => {}
            Some(Err(_)) => ring::sleep(limits::ACCEPT_PAUSE).await,
            None if flows.is_empty() => return,
            None => {}
        }
        // There may be more, but first those have their turn for whom this was.
        ring::yield_now().await;
    }
}
