//! What the end-to-end tests stand on: the real binary, raw clients with deadlines, and origins that do what they are told.
//!
//! What holds here: everything has an end. Each read and write has a deadline, each test a watchdog, and each child is killed
//! by its own process id when its owner is dropped, or with the thread that started it. Deliberately absent: mocks. What is tested
//! is the program that is shipped, through its sockets, its files and its exit code.

#![forbid(unsafe_code)]

mod datagrams;
mod dns;
mod driver;
mod engine;
mod grpc;
pub mod h2;
mod h3;
mod held;
pub mod hpack;
mod message;
mod netns;
mod origin;
mod place;
pub mod quic;
mod tls;
mod tool;
mod transparency;
mod wire;

pub use datagrams::{Caller, Echo};
pub use dns::Nameserver;
pub use driver::{Driver, Sharing, on_driver, run};
pub use engine::{Engine, Memory, Metrics, Setup, memory_of, row_of};
pub use grpc::GrpcServer;
pub use h3::H3Door;
pub use held::Held;
pub use message::{Cut, Message, checksum, hex, pattern, unhex};
pub use netns::{Net, RawUdp, Street, SynFlood, checksum_of};
pub use origin::{Origin, Peer, agreement, answer, fields_text, standard};
pub use place::{Folder, binary, free_address, python, script};
pub use tls::{Authority, EarlySecret, FirstFlight, HalfOpen, Issued, Kind, TlsClient, der_of};
pub use tool::{Ran, Tool, until};
pub use transparency::{CtEntry, CtLog, Logged, log_list, ocsp_response, sct_list};
pub use wire::{Client, End, Stream, Wire};

/// How long any one thing may take that is not measured: generous, because two cores run everything at once.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);
