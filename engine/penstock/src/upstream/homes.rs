//! Where QUIC connections that are passed through belong: which endpoint gave them the ids that their clients call them by.
//!
//! A client that comes back from another port (a NAT has forgotten it, RFC 9000 §9.3) is a stranger by its address, and maybe another worker's. It
//! still says the id that the endpoint had told it in the open, with its handshake. What holds here:
//! * All workers share a listener's table. It is asked when a flow begins, or an id is first said on one; it is told when an endpoint first says one.
//!   So a connection meets its lock a few times, and datagrams do not.
//! * It is bounded: ids are kept in two halves, and when the younger one is full, the older one is forgotten.
//! * It decides who is asked, and nothing else: the flow is a new one, so that the endpoint sees its client's path change and validates it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::limits;
use crate::quic::{self, ConnectionId};
use crate::snapshot::{Listener, ListenerId, ListenerProtocol, Snapshot};

/// The tables of all listeners, for all workers.
#[derive(Debug, Default)]
pub struct Homes(Box<[Option<Arc<Table>>]>);

impl Homes {
    #[must_use]
    pub fn new(snapshot: &Snapshot) -> Arc<Self> {
        Self::default().succeed(snapshot, |_| None)
    }

    /// For a new configuration, of whose listeners some go on: those of `before`.
    #[must_use]
    pub fn succeed(&self, snapshot: &Snapshot, before: impl Fn(ListenerId) -> Option<ListenerId>) -> Arc<Self> {
        let known = |listener| self.0.get(usize::from(before(listener)?.0))?.clone();
        let table = |(at, listener): (_, &Listener)| match listener.protocol {
            ListenerProtocol::Udp { flows, .. } if flows.quic => Some(known(at).unwrap_or_default()),
            _ => None,
        };
        Arc::new(Self((0..).map(ListenerId).zip(&snapshot.listeners).map(table).collect()))
    }

    /// A listener's table, if it keeps one.
    #[must_use]
    pub fn of(&self, listener: ListenerId) -> Option<&Table> {
        self.0.get(usize::from(listener.0))?.as_deref()
    }
}

/// The ids of one listener's connections.
#[derive(Debug, Default)]
pub struct Table(Mutex<Halves>);

#[derive(Debug, Default)]
struct Halves {
    young: HashMap<ConnectionId, SocketAddr>,
    old: HashMap<ConnectionId, SocketAddr>,
    /// A bit for each length that an id here has or had.
    lengths: u32,
}

impl Table {
    /// The endpoint at this address has called itself so.
    pub fn learn(&self, id: ConnectionId, endpoint: SocketAddr) {
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        halves.put(id, endpoint);
    }

    /// The address of the endpoint that a client's datagram calls, if it is known.
    #[must_use]
    pub fn find(&self, datagram: &[u8]) -> Option<SocketAddr> {
        let mut halves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match quic::called_in(datagram) {
            Some(id) => halves.take(id),
            // A short header does not tell how long its id is.
            None if datagram.first().is_some_and(|first| first & 0x80 == 0) => {
                let lengths = halves.lengths;
                let known = (1..=abi::ID_LEN_MAX).filter(|len| lengths & 1 << len != 0);
                known.filter_map(|len| quic::id(datagram.get(1..=len)?)).find_map(|id| halves.take(id))
            }
            None => None,
        }
    }
}

impl Halves {
    fn put(&mut self, id: ConnectionId, endpoint: SocketAddr) {
        if self.young.len() >= limits::UDP_HOMES_HALF {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id, endpoint);
        self.lengths |= 1 << id.len();
    }

    /// What is asked for is young again.
    fn take(&mut self, id: ConnectionId) -> Option<SocketAddr> {
        if let Some(endpoint) = self.young.get(&id) {
            return Some(*endpoint);
        }
        let endpoint = self.old.remove(&id)?;
        self.put(id, endpoint);
        Some(endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    /// A long header of an endpoint that calls itself `id`.
    fn told(id: &[u8]) -> Vec<u8> {
        let mut datagram = vec![0xc0, 0, 0, 0, 1, 3, 7, 7, 7, id.len() as u8];
        datagram.extend(id);
        datagram.extend([0; 30]);
        datagram
    }

    /// A client's short header.
    fn short(id: &[u8]) -> Vec<u8> {
        [&[0x40], id, &[9; 30]].concat()
    }

    #[test]
    fn ids_of_several_lengths_lead_home() {
        let table = Table::default();
        for (port, id) in [(1, &[1; 8][..]), (2, &[2; 20]), (3, &[3; 1])] {
            table.learn(quic::told_in(&told(id)).expect("an id"), endpoint(port));
        }
        assert_eq!(table.find(&short(&[1; 8])), Some(endpoint(1)));
        assert_eq!(table.find(&short(&[2; 20])), Some(endpoint(2)));
        assert_eq!(table.find(&short(&[3; 9])), Some(endpoint(3)));
        assert_eq!(table.find(&short(&[4; 20])), None);
        // With its handshake a client says the id behind its length.
        let mut handshake = vec![0xe0, 0, 0, 0, 1, 8];
        handshake.extend([1; 8]);
        assert_eq!(table.find(&handshake), Some(endpoint(1)));
        let id = quic::told_in(&told(&[1; 8])).expect("an id");
        assert!(quic::is_called_in(id, &handshake) && quic::is_called_in(id, &short(&[1; 8])));
        assert!(![&short(&[2; 8])[..], &handshake[..13], &[]].iter().any(|other| quic::is_called_in(id, other)));
    }

    #[test]
    fn what_is_cut_off_or_too_long_leads_nowhere() {
        let table = Table::default();
        table.learn(quic::told_in(&told(&[5; 8])).expect("an id"), endpoint(1));
        for whole in [short(&[5; 8]), told(&[5; 8])] {
            for cut in 0..whole.len() {
                let _ = (table.find(&whole[..cut]), quic::told_in(&whole[..cut]));
            }
        }
        assert_eq!(table.find(&short(&[5; 8])[..8]), None, "an id is whole or none");
        assert_eq!((quic::told_in(&told(&[])), quic::told_in(&told(&[1; 21]))), (None, None));
        assert_eq!(quic::told_in(&short(&[5; 8])), None);
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_asked_for() {
        let table = Table::default();
        let id = |number: u32| quic::id(&number.to_be_bytes()).expect("four octets");
        let most = limits::UDP_HOMES_HALF as u32;
        for number in 0..5 * most {
            table.learn(id(number), endpoint(1));
            if number % 1000 == 0 {
                assert!(table.find(&short(&0_u32.to_be_bytes())).is_some(), "asked for all the time, at {number}");
            }
        }
        let halves = table.0.lock().expect("nobody panicked");
        assert!(halves.young.len() + halves.old.len() <= 2 * limits::UDP_HOMES_HALF);
        assert!(!halves.young.contains_key(&id(1)) && !halves.old.contains_key(&id(1)));
    }
}
