//! Floors: relays that copy bytes and know no HTTP. What a proxy costs above them is what its work costs.
//!
//! Each pairs a client's connection with one of its own to the origin, for as long as the client stays.

pub(crate) mod epoll;
pub(crate) mod tokio_uring;

use std::net::SocketAddr;

use xtask::Outcome;

use crate::flags::Flags;

/// `bench epoll-relay|tokio-uring-relay --listen ADDRESS --to ADDRESS`
pub(crate) fn main(words: &[String], run: fn(SocketAddr, SocketAddr) -> std::io::Result<()>) -> Outcome {
    let flags = Flags::parse(words, &["--listen", "--to"], &[])?;
    run(flags.need("--listen")?, flags.need("--to")?).map_err(|error| error.to_string())
}
