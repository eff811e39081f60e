//! A listening socket: multishot accept, one per worker in a reuseport group.

/// How a listening socket is bound.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    /// Joins the reuseport group of the address: one socket a worker. Default: true.
    pub reuse_port: bool,
    /// Length of the accept queue. Default: 4,096 (the kernel caps it by `net.core.somaxconn`).
    pub backlog: i32,
    /// An IPv6 wildcard takes no IPv4 connections. Default: false.
    pub only_v6: bool,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { reuse_port: true, backlog: 4_096, only_v6: false }
    }
}
