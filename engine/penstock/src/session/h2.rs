//! An HTTP/2 connection with a client.

use std::rc::Rc;

use proto::h2::Limits;
use ring::Buf;

use super::{Sessions, multiplexed};
use crate::conn::{Ended, Multiplex, Transport};
use crate::exchange::{Door, Peer};
use crate::limits;

/// Serves a connection until it is over. `unread` has been received of it already.
pub(super) async fn run(
    door: Rc<Door>,
    sessions: &Rc<Sessions>,
    transport: Transport,
    unread: Option<Buf>,
    peer: Peer,
) -> Rc<Door> {
    door.cells.counters.h2_connections_total.add(1);
    let streams = door.listener().http2_streams.unwrap_or(Limits::DEFAULT.streams);
    let connection = Multiplex::new(transport, unread, Limits { streams, ..limits::HTTP2 });
    let (ended, door) = multiplexed::run(door, sessions, connection, peer).await;
    door.cells.counters.h2_faults_total.add(u64::from(ended == Ended::Fault));
    door
}
