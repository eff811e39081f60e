//! Sockets as tasks see them: listeners and streams.

mod address;
mod listener;
mod stream;

pub use address::Address;
pub use listener::{ListenOptions, Listener};
pub use stream::{Stream, linger};
