//! Datagram sockets of scripts: clients and origins of UDP outside of the node.

use std::io;
use std::net::SocketAddr;

use super::kernel::Shared;
use super::net::SocketId;
use super::script::{Host, until};
use crate::net::{Transmit, UdpOptions};

/// A datagram socket of a script; dropping it closes it.
pub struct Postbox {
    shared: Shared,
    id: SocketId,
}

/// One datagram, as a script receives it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Letter {
    /// Who sent it.
    pub from: SocketAddr,
    /// To which address of ours.
    pub to: SocketAddr,
    /// The ECN codepoint.
    pub ecn: u8,
    /// What it says.
    pub bytes: Vec<u8>,
}

impl Host {
    /// A datagram socket at `address`; port 0 stands for a free one.
    ///
    /// # Errors
    /// `AddrInUse`.
    pub fn postbox(&self, address: SocketAddr) -> io::Result<Postbox> {
        let shared = self.shared().clone();
        let options = UdpOptions { reuse_port: false, ..UdpOptions::default() };
        let id = shared.borrow_mut().bind_datagrams(address, &options).map_err(io::Error::from_raw_os_error)?;
        Ok(Postbox { shared, id })
    }

    /// As [`World::rebind`](super::World::rebind).
    pub fn rebind(&self, inside: SocketAddr, outside: SocketAddr) {
        self.shared().borrow_mut().rebind(inside, outside);
    }
}

impl Postbox {
    /// Sends, as soon as there is room.
    ///
    /// # Errors
    /// `EMSGSIZE`; and `EIO`, when a send of several datagrams is not cut.
    pub async fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        until(&self.shared, |kernel| match kernel.send_datagrams(self.id, transmit) {
            Err(libc::EAGAIN) => kernel.watch(self.id),
            sent => Some(sent.map_err(io::Error::from_raw_os_error)),
        })
        .await
    }

    /// The next datagram.
    pub async fn recv(&self) -> Letter {
        let packet =
            until(&self.shared, |kernel| kernel.take_datagram(self.id).or_else(|| kernel.watch(self.id))).await;
        Letter { from: packet.from, to: packet.to, ecn: packet.ecn, bytes: packet.bytes }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.shared.borrow().socket(self.id).local.inet().expect("bound to an IP address")
    }
}

impl Drop for Postbox {
    fn drop(&mut self) {
        if let Ok(mut kernel) = self.shared.try_borrow_mut() {
            kernel.close_socket(self.id, false);
        }
    }
}
