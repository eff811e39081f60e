//! The proxies, each with how it is told of another configuration: a signal to who was started.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use xtask::Outcome;

use super::origin::Origin;
use crate::process::{Cpus, Running, Scratch, free_address, words, write_file};
use crate::rivals::{Kind, nginx};

/// One that runs, with two workers.
pub(super) struct Contender {
    kind: Kind,
    pub(super) version: String,
    pub(super) address: SocketAddr,
    workers: usize,
    folder: PathBuf,
    running: Running,
}

impl Contender {
    /// Starts one, with all origins as endpoints, and waits until it answers.
    pub(super) fn start(kind: Kind, scratch: &Scratch, cpus: &Cpus, origins: &[Origin]) -> Outcome<Self> {
        let (program, folder) = (kind.program()?, scratch.folder(kind.name())?);
        let (address, workers) = (free_address()?, cpus.count());
        let file = file(kind, &folder)?;
        write_file(&file, text(kind, address, workers, &folder, origins)?)?;
        let line = match kind {
            Kind::Nginx => words([&program, &"-p", &folder, &"-c", &file]),
            // A master and a worker: what is told of another configuration is the master.
            Kind::Haproxy => words([&program, &"-W", &"-q", &"-f", &file]),
            _ => words([&program, &"run", &"-c", &file]),
        };
        let mut running = Running::start(kind.name(), cpus.clone(), &line, &[], &folder.join("log"))?;
        running.wait_until_it_answers(address, "/")?;
        Ok(Self { kind, version: kind.version(&program), address, workers, folder, running })
    }

    /// Has it go on with these endpoints.
    pub(super) fn change(&mut self, origins: &[Origin]) -> Outcome {
        let text = text(self.kind, self.address, self.workers, &self.folder, origins)?;
        write_file(&file(self.kind, &self.folder)?, text)?;
        self.running.signal(if self.kind == Kind::Haproxy { Signal::USR2 } else { Signal::HUP });
        Ok(())
    }

    pub(super) fn processes(&self) -> Vec<u32> {
        self.running.processes()
    }
}

fn file(kind: Kind, folder: &Path) -> Outcome<PathBuf> {
    match kind {
        Kind::Penstock => Ok(folder.join("penstock.toml")),
        Kind::Nginx => Ok(folder.join("nginx.conf")),
        Kind::Haproxy => Ok(folder.join("haproxy.cfg")),
        other => Err(format!("{} has no configuration for this", other.name())),
    }
}

fn text(kind: Kind, listen: SocketAddr, workers: usize, folder: &Path, origins: &[Origin]) -> Outcome<String> {
    let each = |line: &dyn Fn(usize, SocketAddr) -> String| -> String {
        origins.iter().enumerate().map(|(at, origin)| line(at, origin.address)).collect()
    };
    let root = folder.display();
    Ok(match kind {
        Kind::Penstock => format!(
            "[engine]\ncores = \"{}\"\n\n[[listen]]\nname = \"door\"\naddr = \"{listen}\"\n\n[[pool]]\nname = \"origins\"\nendpoints = [{}]\n",
            (0..workers).map(|cpu| cpu.to_string()).collect::<Vec<_>>().join(","),
            each(&|_, origin| format!("\"{origin}\", "))
        ),
        Kind::Nginx => format!(
            "{}\nhttp {{
    access_log off;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    upstream origins {{
{}        keepalive 256;
    }}
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    server {{
        listen {listen} backlog=4096 reuseport;
        location / {{
            proxy_pass http://origins;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_read_timeout 600s;
        }}
    }}
}}\n",
            nginx::preamble(folder.display(), workers, 16_384, 4_096),
            each(&|_, origin| format!("        server {origin};\n"))
        ),
        Kind::Haproxy => format!(
            "global
    nbthread {workers}
    maxconn 4096
    stats socket {root}/control mode 600 expose-fd listeners level admin

defaults
    mode http
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    timeout tunnel 600s
    timeout http-keep-alive 600s
    http-reuse always

frontend door
    bind {listen} backlog 4096
    default_backend origins

backend origins
{}",
            each(&|at, origin| format!("    server origin{at} {origin}\n"))
        ),
        other => return Err(format!("{} has no configuration for this", other.name())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_one_endpoint() {
        let origins = [1, 2].map(|port| Origin { address: SocketAddr::from(([127, 0, 0, 1], port)) });
        let listen = SocketAddr::from(([127, 0, 0, 1], 80));
        for kind in [Kind::Penstock, Kind::Nginx, Kind::Haproxy] {
            let of = |count: usize| text(kind, listen, 2, Path::new("/tmp/b"), &origins[..count]).unwrap();
            let (one, two) = (of(1), of(2));
            assert_eq!(two.lines().count() - one.lines().count(), usize::from(kind != Kind::Penstock), "{two}");
            assert!(two.contains("127.0.0.1:2") && !one.contains("127.0.0.1:2"), "{one}");
        }
        assert!(text(Kind::Caddy, listen, 2, Path::new("/tmp/b"), &origins).is_err());
    }
}
