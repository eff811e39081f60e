//! The house: everything of Penstock that is neither a wire language, nor a decision, nor the kernel.
//!
//! Rooms stand in the order in which a request walks through them; see `docs/ARCHITECTURE.md`.

#![forbid(unsafe_code)]

pub mod command;
pub mod cores;
pub mod limits;
pub mod snapshot;
pub mod start;
