//! TLS of both roles: rustls behind a machine of ours, certificates by name, tickets, and the turnstile that handshakes pass.
//!
//! What holds here: no sockets ([`inspect`] is given a stream). [`Machine`] takes ciphertext and gives plaintext and the other way round, in the worker's own buffers;
//! whatever a peer sends ends in bytes, a pause or a [`Failure`]. `conn::Transport` joins it to a stream.

mod certificates;
mod client;
mod failure;
mod files;
mod inspect;
mod machine;
mod records;
mod roots;
mod server;
mod service;
mod sessions;
mod shown;
mod transparency;
mod turnstile;

pub use client::{Origination, OriginationFiles, Originations};
pub use failure::{Cause, Failure};
pub use files::Watched;
pub use inspect::{Shown, inspect, trusted};
pub use machine::{Machine, Read, Secured};
pub use roots::Roots;
pub use server::{Terminators, Wrong};
pub use service::https_records;
pub use shown::Showing;
pub use transparency::unpublished;
pub use turnstile::turn;

pub use rustls::ServerConfig;
