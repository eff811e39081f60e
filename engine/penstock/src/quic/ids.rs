//! Connection ids: those of ours, which say which worker a connection lives on, and those that datagrams tell to whoever passes them on.

use std::sync::Arc;
use std::time::Duration;

use abi::{ConnectionIds, Destination, Form, ID_LEN, ID_LEN_MAX, Place};
use aws_lc_rs::rand;
use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};

/// An id; `None` where it is longer than any may be (RFC 9000 §17.2).
#[must_use]
pub fn id(bytes: &[u8]) -> Option<ConnectionId> {
    (bytes.len() <= ID_LEN_MAX).then(|| ConnectionId::new(bytes))
}

/// Whom a datagram with a long header calls: an id of the sender's own choice until it has heard one.
#[must_use]
pub fn called_in(datagram: &[u8]) -> Option<ConnectionId> {
    match abi::destination(datagram)? {
        Destination { form: Form::Long, id: called } => id(called),
        Destination { form: Form::Short, .. } => None,
    }
}

/// What the sender of a datagram wants to be called by, if it tells that and it tells anything.
#[must_use]
pub fn told_in(datagram: &[u8]) -> Option<ConnectionId> {
    abi::source(datagram).filter(|told| !told.is_empty()).and_then(id)
}

/// Whether a datagram calls this one. A short header does not tell how long its id is: it begins so.
#[must_use]
pub fn is_called_in(id: ConnectionId, datagram: &[u8]) -> bool {
    match abi::destination(datagram) {
        Some(Destination { form: Form::Long, id: called }) => *called == *id,
        _ => datagram.get(1..).is_some_and(|rest| rest.starts_with(&id)),
    }
}

/// Gives out the ids of one worker's connections.
pub(super) struct Ids {
    /// Those in use first.
    pub(super) ids: Arc<[ConnectionIds]>,
    pub(super) place: Place,
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut random = [0; 8];
        // Who has no randomness any more has no keys either.
        let _ = rand::fill(&mut random);
        ConnectionId::new(&self.ids[0].encode(self.place, random))
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        // What another process has made, or another machine, can be told that its connection is not here.
        self.ids.iter().find_map(|ids| ids.decode(id)).map(drop).ok_or(InvalidCid)
    }

    fn cid_len(&self) -> usize {
        ID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
