//! grpcio's server, in a process of its own.

use std::net::SocketAddr;
use std::process::{Child, Command};

use crate::PATIENCE;
use crate::place::{free_address, python, script};
use crate::tls::Issued;
use crate::tool::until;
use crate::wire::Client;

/// A gRPC server with every kind of call. Ends when it is dropped.
#[derive(Debug)]
pub struct GrpcServer {
    pub address: SocketAddr,
    child: Child,
}

impl GrpcServer {
    #[allow(clippy::new_without_default, reason = "starting a process is no default")]
    #[track_caller]
    pub fn new() -> Self {
        Self::with(&["plain"])
    }

    /// One that says how its services are: all of them serve.
    #[track_caller]
    pub fn with_health(issued: Option<&Issued>) -> Self {
        let files = issued.map(|issued| [issued.cert.display().to_string(), issued.key.display().to_string()]);
        let mut words = vec!["health"];
        words.extend(files.iter().flatten().map(String::as_str));
        Self::with(&words)
    }

    #[track_caller]
    fn with(words: &[&str]) -> Self {
        let address = free_address();
        let script = script("grpc_server.py");
        let child = Command::new(python()).arg(script).arg(address.to_string()).args(words).spawn();
        let server = Self { address, child: child.expect("a Python") };
        until("the server listens", PATIENCE, || Client::try_connect(address).is_ok());
        server
    }
}

impl Drop for GrpcServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
