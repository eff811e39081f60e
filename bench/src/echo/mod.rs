//! An origin and a client that check each other through whatever stands between them, without sharing a line with the engine.
//!
//! Every request has a name ([`id`]) that decides what its answer must be, byte by byte; origins ([`origin`]) are processes and write down each
//! name they meet; clients ([`client`]) judge what comes back. A [`fleet`] of origins can be made to fail in every way that a kernel offers.

pub(crate) mod client;
pub(crate) mod fleet;
pub(crate) mod id;
pub(crate) mod names;
pub(crate) mod origin;
mod wire;
