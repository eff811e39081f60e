//! What connections that carry many exchanges at a time have in common, whatever they speak.

use std::task::{Context, Poll};
use std::time::Duration;

use proto::Malformed;
use proto::h1::{Client, Role};
use ring::{Buf, Now};

use super::{Index, Lane, Speaks};

/// A connection that many exchanges share. One task pumps it, exchanges are tasks of their own; a copy is the same connection.
pub trait Multiplexed: 'static {
    type Role: Speaks;
    /// What one exchange holds of it.
    type Stream: 'static;

    /// Moves what can be moved in both directions, and tells of requests that begin. Ready when the connection is over. To be polled by
    /// one task, which exchanges wake.
    fn poll(&self, cx: &mut Context<'_>, arrived: &mut impl FnMut(Arrival<Self>)) -> Poll<Ended>;

    /// Nothing is open, half said or owed.
    fn is_idle(&self) -> bool;

    /// A request is under way, or its answer.
    fn is_busy(&self) -> bool;

    /// When to poll again at the latest.
    fn deadline(&self) -> Option<Now>;

    /// Begins to leave: no more requests are taken, and those that are under way are finished with in peace.
    fn drain(&self);

    /// Gives back memory that an idle connection does not need.
    fn trim(&self);

    /// The connection is over, whoever says so: its exchanges are told. What it went over is closed when nobody has it any more.
    fn close(&self, how: Ended);

    /// Ends the connection politely: sends what is queued, then hears out and drops what the peer still says.
    fn linger(&self, patience: Duration, bytes_max: usize) -> impl Future<Output = ()>;

    /// An exchange's way to the peer.
    fn lane(stream: &mut Self::Stream) -> Lane<'_, Self::Role>;

    /// So many of the peer's last requests came to nothing that this one may not be meant either.
    fn is_doubtful(stream: &Self::Stream) -> bool;

    /// Lets the peer know that nothing was done with its request, which may be sent again. Not while the connection is polled.
    fn refuse(stream: Self::Stream);
}

/// One to an endpoint, on which requests are ours.
pub trait Asks: Multiplexed<Role = Client> {
    /// A request may begin now.
    fn can_ask(&self) -> bool;

    /// Requests that are under way.
    fn streams(&self) -> usize;

    /// When to look again whether the peer, of which something has been awaited `since`, is still there; `None`: it is not. One that has said
    /// nothing for `patience` is asked for a sign of life, and has as long again to give it.
    fn is_alive(&self, since: Now, patience: Duration) -> Option<Now>;
}

/// What a peer begins.
pub enum Arrival<M: Multiplexed + ?Sized> {
    /// A request: its head, the text of that, and the index of its fields.
    Request(M::Stream, <M::Role as Role>::Head, Buf, Index),
    /// A request that is none. With a stream, it is to be answered there; without, it has been reset already.
    Refused(Option<M::Stream>, Malformed),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// All is said: close it when what is unsent has gone.
    Finished,
    /// The peer broke the protocol, and is being told.
    Fault,
    /// The other end has gone.
    Gone,
}
