//! Connection ids that say which worker a connection lives on.

use std::sync::Arc;
use std::time::Duration;

use abi::{ConnectionIds, ID_LEN, Place};
use aws_lc_rs::rand;
use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};

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
