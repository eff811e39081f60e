//! Traffic to measure and to show with: a fast HTTP/1.1 origin, and a load generator that does not flatter.
//!
//! Both are tasks of the calling thread's [`ring::Ring`]; several threads run several of them and [`Report::merge`] adds up.
//! They exist for `demo` and `bench` and share their CPU with each other, so what counts is CPU time per request: answers are
//! precomputed, and a head that is the same as the last one on its connection is not parsed again.
//!
//! What holds here:
//! * Open-loop latency counts from when a request was due, whatever kept it from being sent (no coordinated omission).
//! * Every response is checked: status, framing, length, and on request every byte of the body.
//! * Whoever drops an origin or a load ends all its connections.
//!
//! Deliberately absent: TLS, HTTP/2, and any policy.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod group;
pub mod load;
pub mod origin;
mod pattern;

pub use load::{Errors, Extent, Live, Load, Mode, Report, Snapshot};
pub use origin::{Failure, Origin, Served};
pub use pattern::Pattern;
