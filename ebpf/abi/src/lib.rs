//! What the engine and its eBPF programs must agree on, written once: connection ids of QUIC, which worker a datagram
//! belongs to, and what stands in their maps ([`afxdp`], [`balance`], [`cookie`] and [`shield`] for XDP's).
//!
//! What holds here: no allocation, no `std`, no panic, no loop without a constant bound, and nothing wider than 64 bits, so that the same
//! functions pass the kernel's verifier. Absent on purpose: sockets, maps and clocks.

#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod afxdp;
pub mod balance;
mod connection_id;
pub mod cookie;
mod datagram;
mod lookup;
pub mod samehost;
pub mod shield;
mod siphash;
mod steer;

pub use connection_id::{
    CONFIGS, ConnectionIds, GENERATIONS, ID_LEN, ID_LEN_MAX, Keys, Place, SECRET_LEN, WORKERS_MAX,
};
pub use datagram::{Destination, Form, Route, destination, source, worker_of};
pub use lookup::{Found, RULE_SOCKETS_MAX, RULE_WORDS, RULES_MAX, Rule};
pub use siphash::{Key, siphash};
pub use steer::{
    CONNECTION_LOAD, EXCHANGE_LOAD, GENERATIONS_HELD, Group, NEWCOMER_LOAD, SEAT_GIVEN, SEAT_LOAD, SEAT_TAKEN,
    SEAT_WORDS, Seat, Verdict, two_of,
};

/// Indices of interfaces that a program of XDP can have another one behind it on: its map of those has a place for each.
pub const NEXT_MAX: u32 = 1 << 16;
