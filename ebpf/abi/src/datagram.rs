//! Where a datagram belongs, by what all versions of QUIC have in common (RFC 8999), and nothing else of it.

use crate::connection_id::{ConnectionIds, ID_LEN, Place};

/// The form of a packet's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Of a connection that is being made (RFC 8999 §5.1): the id's length stands before it.
    Long,
    /// Of a connection that stands (RFC 8999 §5.2): the id has the length that we give ours.
    Short,
}

/// Whom the first packet of a datagram is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination<'a> {
    /// Of its header.
    pub form: Form,
    /// The destination connection id.
    pub id: &'a [u8],
}

/// What steering makes of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// The id is one of ours: this is where its connection lives.
    Place(Place),
    /// A client chose the id (its Initial and 0-RTT packets): any worker will do as long as it stays the same one. See [`worker_of`].
    Hash(u64),
    /// Nobody's: cut off, or with a short header and an id that is not ours. What it deserves is a stateless reset, or silence.
    Stranger,
}

/// The destination connection id of a datagram's first packet; `None` where it is cut off. A long header's id may have up to 255 octets in a
/// version that we do not know.
#[must_use]
pub fn destination(datagram: &[u8]) -> Option<Destination<'_>> {
    let (first, rest) = datagram.split_first()?;
    if first & 0x80 == 0 {
        return Some(Destination { form: Form::Short, id: rest.get(..ID_LEN)? });
    }
    // Four octets of version, one of length.
    let (len, rest) = rest.get(4..)?.split_first()?;
    Some(Destination { form: Form::Long, id: rest.get(..usize::from(*len))? })
}

/// The source connection id of a datagram's first packet: what whoever sent it wants to be called by. `None` where it is cut off, or has a short
/// header, which tells none (RFC 8999 §5.2).
#[must_use]
pub fn source(datagram: &[u8]) -> Option<&[u8]> {
    let Destination { form: Form::Long, id } = destination(datagram)? else { return None };
    // Behind the first octet, the version, and the other id with its length.
    let (len, rest) = datagram.get(6 + id.len()..)?.split_first()?;
    rest.get(..usize::from(*len))
}

impl ConnectionIds {
    /// Where a datagram belongs. A long header with an id of ours is of a client that has heard of us already: after a Retry, or with
    /// Handshake packets.
    #[must_use]
    pub fn route(&self, datagram: &[u8]) -> Route {
        let Some(Destination { form, id }) = destination(datagram) else { return Route::Stranger };
        match (self.decode(id), form) {
            (Some(place), _) => Route::Place(place),
            (None, Form::Long) => Route::Hash(self.spread(id)),
            (None, Form::Short) => Route::Stranger,
        }
    }
}

/// Which of `live` workers a hash means: the same one as long as their number is. Of none, the first.
#[inline(always)]
#[must_use]
pub const fn worker_of(hash: u64, live: u32) -> u32 {
    // The high half times their number, without a division.
    (((hash >> 32) * live as u64) >> 32) as u32
}
