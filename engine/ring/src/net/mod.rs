//! Sockets as tasks see them: listeners, streams and datagram sockets.

mod address;
mod listener;
mod priority;
mod reuseport;
mod socket;
mod splice;
mod stream;
mod udp;

pub use address::Address;
pub use listener::{ListenOptions, Listener};
pub use priority::{connect_with_priority, set_priority};
pub use reuseport::{FilterInstruction, attach_reuseport_filter};
pub use socket::Socket;
pub use splice::{Moved, Pipes, Splice};
pub use stream::{Stream, linger};
pub use udp::{Foreign, Received, Sent, Transmit, UdpCounts, UdpGranted, UdpOptions, UdpSocket};
