//! The proxies as set up to pass through: one worker, TCP and UDP on the same port, no time-out that could end anything.

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use xtask::{Outcome, install};

use super::load::Transport;
use crate::process::{self, Running, Scratch, free_address, words, write_file};
use crate::rivals::{Kind, nginx};

/// Where Debian puts what makes nginx pass streams through.
const STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// One that runs.
pub(super) struct Contender {
    pub(super) kind: Kind,
    pub(super) version: String,
    pub(super) address: SocketAddr,
    running: Running,
}

impl Contender {
    /// Starts one and waits until it passes something through.
    pub(super) fn start(kind: Kind, scratch: &Scratch, cpu: usize, to: SocketAddr) -> Outcome<Self> {
        let (program, folder, listen) = (kind.program()?, scratch.folder(kind.name())?, free_address()?);
        let line = match kind {
            Kind::Penstock => {
                let of = |scheme: &str, address: SocketAddr| format!("{scheme}://{address}");
                let mut line = words([&program, &"serve", &"--cores", &cpu.to_string()]);
                for scheme in ["tcp", "udp"] {
                    line.extend(words([&"--listen", &of(scheme, listen), &"--to", &of(scheme, to)]));
                }
                line
            }
            Kind::Nginx => {
                install::file(STREAM_MODULE, "libnginx-mod-stream")?;
                let file = written(&folder, "nginx.conf", &nginx(&folder, listen, to))?;
                words([&program, &"-p", &folder, &"-c", &file])
            }
            Kind::Haproxy => {
                let file = written(&folder, "haproxy.cfg", &haproxy(listen, to))?;
                words([&program, &"-db", &"-q", &"-f", &file])
            }
            other => return Err(format!("{} has no configuration for this", other.name())),
        };
        let running = Running::start(kind.name(), cpu, &line, &[], &folder.join("log"))?;
        let version = kind.version(&program);
        let mut contender = Self { kind, version, address: listen, running };
        contender
            .running
            .wait_until(listen, || process::connect(listen).map(drop).map_err(|error| error.to_string()))?;
        if contender.carries(Transport::Udp) {
            contender.running.wait_until(listen, || visit(listen).map_err(|error| error.to_string()))?;
        }
        Ok(contender)
    }

    pub(super) const fn carries(&self, transport: Transport) -> bool {
        !matches!((self.kind, transport), (Kind::Haproxy, Transport::Udp))
    }

    pub(super) fn processes(&self) -> Vec<u32> {
        self.running.processes()
    }
}

/// A datagram there and back.
fn visit(to: SocketAddr) -> std::io::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    socket.send(b"hello")?;
    socket.recv(&mut [0; 16]).map(drop)
}

fn written(folder: &Path, name: &str, text: &str) -> Outcome<PathBuf> {
    let file = folder.join(name);
    write_file(&file, text)?;
    Ok(file)
}

fn nginx(folder: &Path, listen: SocketAddr, to: SocketAddr) -> String {
    let root = folder.display();
    let preamble = nginx::preamble(&root, 1, 16_384, 8_192);
    format!(
        "\
load_module {STREAM_MODULE};
{preamble}
stream {{
    proxy_timeout 600s;
    proxy_buffer_size 64k;
    server {{ listen {listen} backlog=4096; proxy_pass {to}; }}
    server {{ listen {listen} udp; proxy_pass {to}; }}
}}
"
    )
}

fn haproxy(listen: SocketAddr, to: SocketAddr) -> String {
    format!(
        "\
global
    nbthread 1
    maxconn 4096
    tune.bufsize 65536

defaults
    mode tcp
    timeout connect 5s
    timeout client 600s
    timeout server 600s

frontend door
    bind {listen} backlog 4096
    default_backend origin

backend origin
    server origin {to}
"
    )
}
