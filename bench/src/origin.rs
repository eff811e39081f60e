//! The origin behind every proxy: the same process for all of them, on the load generator's CPU.
//!
//! Ours (`bench origin`, the `traffic` crate) unless nginx is asked for: it costs the shared CPU less. Both serve `/100`, `/16k` and `/1m`.
//! Calls of gRPC are answered by `bench grpc-origin`, and by nobody else.

use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;

use ring::Address;
use xtask::{Outcome, place};

use crate::flags::Flags;
use crate::grpc;
use crate::load::own;
use crate::process::{self, Running, Scratch, myself, words};
use crate::rivals::nginx;
use crate::scenario::Over;

/// Which origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Serving {
    /// `bench origin`.
    Own,
    Nginx,
}

impl FromStr for Serving {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "own" => Ok(Self::Own),
            "nginx" => Ok(Self::Nginx),
            _ => Err(()),
        }
    }
}

impl Serving {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Nginx => "nginx",
        }
    }
}

pub(crate) struct Origin {
    running: Running,
    pub(crate) address: SocketAddr,
}

impl Origin {
    /// Starts one and waits until it answers.
    pub(crate) fn start(serving: Serving, over: Over, scratch: &Scratch, cpu: usize) -> Outcome<Self> {
        let folder = scratch.folder("origin")?;
        let address = process::free_address()?;
        let line = match serving {
            _ if over == Over::Grpc => words([&myself()?, &"grpc-origin", &"--listen", &address.to_string()]),
            Serving::Own => words([&myself()?, &"origin", &"--listen", &address.to_string()]),
            Serving::Nginx => {
                let nginx = place::program("nginx").ok_or("the origin asked for needs nginx: apt-get install nginx")?;
                // A path is a file's name; the small one is answered from the configuration, without a file.
                process::write_file(&folder.join("16k"), vec![b'x'; 16 << 10])?;
                process::write_file(&folder.join("1m"), vec![b'x'; 1 << 20])?;
                let file = folder.join("nginx.conf");
                process::write_file(&file, configuration(&folder, address))?;
                words([&nginx, &"-p", &folder, &"-c", &file])
            }
        };
        let mut running = Running::start("the origin", cpu, &line, &[], &folder.join("log"))?;
        if over == Over::Grpc {
            running.wait_until(address, || grpc::calls::check(address, 1, 1, 0, cpu).map(drop))?;
        } else {
            running.wait_until_it_answers(address, "/100")?;
        }
        Ok(Self { running, address })
    }

    pub(crate) fn processes(&self) -> Vec<u32> {
        self.running.processes()
    }
}

/// `bench origin --listen ADDRESS [--delay-ms N] [--cpu N] [--driver uring|epoll]`: serves until it is ended.
pub(crate) fn main(arguments: &[String]) -> Outcome {
    let flags = Flags::parse(arguments, &["--listen", "--delay-ms", "--cpu", "--driver"], &[])?;
    if flags.has("--cpu") {
        process::pin_here(&flags.need("--cpu")?)?;
    }
    let listen: SocketAddr = flags.need("--listen")?;
    let delay = match flags.read("--delay-ms", 0)? {
        0 => None,
        delay => Some(std::time::Duration::from_millis(delay)),
    };
    let ring = own::ring(&flags)?;
    ring.block_on(async move {
        let origin = traffic::Origin { delay, ..traffic::Origin::new(Address::Inet(listen)) };
        origin.serve().await
    })
    .map_err(|error| format!("{listen}: {error}"))
}

fn configuration(folder: &Path, address: SocketAddr) -> String {
    let (root, body) = (folder.display(), "x".repeat(100));
    let preamble = nginx::preamble(&root, 1, 16_384, 8_192);
    format!(
        "\
{preamble}
http {{
    access_log off;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    sendfile on;
    tcp_nopush on;
    open_file_cache max=16 inactive=600s;
    open_file_cache_valid 600s;
    default_type text/plain;
    client_body_temp_path {root}/body;
    server {{
        listen {address} backlog=4096;
        root {root};
        location = /100 {{ return 200 \"{body}\"; }}
    }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_small_body_has_its_length() {
        let text = super::configuration(std::path::Path::new("/tmp/o"), "127.0.0.1:9000".parse().unwrap());
        assert!(text.contains(&format!("return 200 \"{}\";", "x".repeat(100))));
        assert!(text.contains("listen 127.0.0.1:9000 backlog=4096;"));
    }
}
