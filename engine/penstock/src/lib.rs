//! The house: everything of Penstock that is neither a wire language, nor a decision, nor the kernel.
//!
//! Rooms stand in the order in which a request walks through them; see `docs/ARCHITECTURE.md`.

#![forbid(unsafe_code)]

pub mod admin;
pub mod afxdp;
pub mod balance;
pub mod bpf;
pub mod command;
pub mod conn;
pub mod control;
pub mod cores;
pub mod demo;
pub mod engine;
pub mod exchange;
pub mod limits;
pub mod listen;
pub mod oversight;
pub mod qos;
pub mod quic;
pub mod samehost;
pub mod service;
pub mod session;
pub mod shield;
pub mod snapshot;
pub mod start;
pub mod steer;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod worker;
