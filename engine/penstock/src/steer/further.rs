//! What comes to listeners though they have not bound it: which of their sockets takes it, and what is told of that.
//!
//! What holds: an answer leaves from the address and the port that the client has called. A connection has both of itself. A datagram's answer is given its address,
//! and leaves from the port of its socket: so a listener has a socket for each port at which it is to take datagrams, and none where those would be too many.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use super::Sockets;
use super::lookup::{Led, Lookup};
use crate::limits;
use crate::snapshot::{Also, Listener, ListenerId};

/// What comes to sockets that have not bound it.
pub struct Further {
    /// The program that brings it; or why none does.
    lookup: Result<Lookup, String>,
    connections: Vec<Also>,
    datagrams: Vec<Also>,
    /// Of which no datagrams come.
    wide: Vec<String>,
}

impl Further {
    /// Has it come to these sockets of all workers; `None` where nothing is wanted.
    #[must_use]
    pub fn lead(listeners: &[Listener], sockets: &[Sockets]) -> Option<Self> {
        let (mut connections, mut datagrams, mut wide) = (Vec::new(), Vec::new(), Vec::new());
        let mut groups = 0;
        for (id, listener) in (0..).map(ListenerId).zip(listeners) {
            for also in listener.further_datagrams() {
                let taker = sockets.first().and_then(|first| taker(first, id, also));
                let to = of_all(sockets, |worker| Some(worker.datagrams.get(taker?)?.socket.as_fd()));
                datagrams.extend(to.map(|to| Led { also, to }));
            }
            if listener.has_datagrams() {
                let too_wide = listener.also.iter().filter(|also| also.for_datagrams().next().is_none());
                wide.extend(too_wide.map(|also| format!("{also} (`{}`)", listener.name)));
            }
            if !listener.protocol.is_udp() {
                for also in listener.also.iter().copied() {
                    let taker = listener.taker(also.network.network().is_ipv4());
                    let to = of_all(sockets, |worker| worker.listening.get(groups + taker?)?.as_ref().map(AsFd::as_fd));
                    connections.extend(to.map(|to| Led { also, to }));
                }
                groups += listener.addresses.len();
            }
        }
        if connections.is_empty() && datagrams.is_empty() {
            return None;
        }
        let lookup = Lookup::lead(&connections, &datagrams);
        let names = |led: Vec<Led<'_>>| led.into_iter().map(|led| led.also).collect();
        Some(Self { lookup, connections: names(connections), datagrams: names(datagrams), wide })
    }

    /// How often what came was led, and how often not; `None` where no program does.
    #[must_use]
    pub fn found(&self) -> Option<Vec<(&'static str, u64)>> {
        self.lookup.as_ref().ok().map(Lookup::found)
    }

    /// What listeners do not get though it was wanted, and why.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        match &self.lookup {
            Err(why) => vec![format!("further addresses ({why})")],
            Ok(_) if self.wide.is_empty() => Vec::new(),
            Ok(_) => vec![format!(
                "HTTP/3 at further addresses {} (a port is a socket of UDP a worker, and those are more than {} ports)",
                self.wide.join(", "),
                limits::LISTEN_ALSO_PORTS_MAX
            )],
        }
    }

    /// For the operator's eye.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let led = |what: &str, also: &[Also]| {
            let names = also.iter().map(Also::to_string).collect::<Vec<_>>().join(", ");
            format!("  steering: an eBPF program brings {what} to further addresses: {names}")
        };
        let all = [("connections", &self.connections), ("datagrams", &self.datagrams)];
        let all = all.into_iter().filter(|(_, also)| self.lookup.is_ok() && !also.is_empty());
        let lines: Vec<_> = all.map(|(what, also)| led(what, also)).collect();
        lines.into_iter().chain(self.missing().into_iter().map(|missing| format!("  goes without: {missing}")))
    }
}

/// One of each worker, if they all have it.
fn of_all<'a>(
    sockets: &'a [Sockets],
    one: impl Fn(&'a Sockets) -> Option<BorrowedFd<'a>>,
) -> Option<Vec<BorrowedFd<'a>>> {
    sockets.iter().map(one).collect()
}

/// Which of a worker's sockets of UDP answers from this port, for this listener.
fn taker(worker: &Sockets, listener: ListenerId, Also { network, first, .. }: Also) -> Option<usize> {
    let takes = |local: SocketAddr| {
        local.port() == first
            && (local.is_ipv4() == network.network().is_ipv4() || local.ip().is_unspecified() && local.is_ipv6())
    };
    worker.datagrams.iter().position(|one| one.listener == listener && takes(one.local))
}
