//! The proxies as set up for many WebSockets: as for everything else, with room for all of them and no time-out that could end one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use xtask::Outcome;

use super::load::{self, Plan};
use crate::process::{Cpus, Running, Scratch, free_address, words, write_file};
use crate::rivals::{Kind, nginx};
use crate::tls::Identity;

/// What a run's contenders have in common.
pub(super) struct Ground<'a> {
    pub(super) scratch: &'a Scratch,
    pub(super) identity: &'a Identity,
    pub(super) cpus: &'a Cpus,
    pub(super) plan: &'a Plan,
}

/// One that runs.
pub(super) struct Contender {
    pub(super) kind: Kind,
    pub(super) version: String,
    pub(super) address: SocketAddr,
    running: Running,
}

/// What a configuration is made of.
struct Site<'a> {
    listen: SocketAddr,
    to: SocketAddr,
    connections: usize,
    workers: usize,
    identity: &'a Identity,
    folder: &'a Path,
}

impl Contender {
    /// Starts one and waits until a WebSocket through it answers.
    pub(super) fn start(kind: Kind, ground: &Ground<'_>, to: SocketAddr) -> Outcome<Self> {
        let (program, folder) = (kind.program()?, ground.scratch.folder(kind.name())?);
        let site = Site {
            listen: free_address()?,
            to,
            // Room for those of the round before, which end when it does.
            connections: 2 * ground.plan.connections + 64,
            workers: ground.cpus.count(),
            identity: ground.identity,
            folder: &folder,
        };
        let line = match kind {
            Kind::Penstock => {
                let (listen, identity) = (format!("https://{}", site.listen), ground.identity);
                let mut line = words([&program, &"serve", &"--listen", &listen, &"--to", &to.to_string()]);
                line.extend(words([&"--cores", &ground.cpus.to_string()]));
                line.extend(words([&"--cert", &identity.cert, &"--key", &identity.key]));
                line
            }
            Kind::Nginx => {
                let file = written(&site, "nginx.conf", &nginx(&site))?;
                words([&program, &"-p", &folder, &"-c", &file])
            }
            Kind::Haproxy => {
                let file = written(&site, "haproxy.cfg", &haproxy(&site))?;
                words([&program, &"-db", &"-q", &"-f", &file])
            }
            other => return Err(format!("{} has no configuration for this", other.name())),
        };
        let running = Running::start(kind.name(), ground.cpus.clone(), &line, &[], &folder.join("log"))?;
        let version = kind.version(&program);
        let mut contender = Self { kind, version, address: site.listen, running };
        contender.wait_until_it_answers(ground)?;
        Ok(contender)
    }

    /// As one that was started already.
    pub(super) fn of(kind: Kind, version: String, address: SocketAddr, running: Running) -> Self {
        Self { kind, version, address, running }
    }

    pub(super) fn wait_until_it_answers(&mut self, ground: &Ground<'_>) -> Outcome {
        let (address, cert) = (self.address, &ground.identity.cert);
        self.running.wait_until(address, || load::visit(address, cert).map(drop).map_err(|error| error.to_string()))
    }

    pub(super) fn processes(&self) -> Vec<u32> {
        self.running.processes()
    }
}

fn written(site: &Site<'_>, name: &str, text: &str) -> Outcome<PathBuf> {
    let file = site.folder.join(name);
    write_file(&file, text)?;
    Ok(file)
}

fn nginx(site: &Site<'_>) -> String {
    let Site { listen, to, connections, workers, identity, folder } = site;
    let (root, cert, key) = (folder.display(), identity.cert.display(), identity.key.display());
    let connections = 2 * connections;
    let preamble = nginx::preamble(&root, *workers, 20_000, connections);
    format!(
        "\
{preamble}
http {{
    access_log off;
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    upstream origin {{ server {to}; }}
    server {{
        listen {listen} ssl backlog=4096;
        ssl_certificate {cert}; ssl_certificate_key {key}; ssl_protocols TLSv1.3;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection \"upgrade\";
            proxy_read_timeout 600s;
            proxy_send_timeout 600s;
        }}
    }}
}}
"
    )
}

fn haproxy(site: &Site<'_>) -> String {
    let Site { listen, to, workers, identity, .. } = site;
    // Two descriptors each, of the 20,000 that a process may have here.
    let connections = site.connections.min(9_800);
    let both = identity.both.display();
    format!(
        "\
global
    nbthread {workers}
    maxconn {connections}

defaults
    mode http
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    timeout tunnel 600s

frontend door
    bind {listen} backlog 4096 ssl crt {both} alpn http/1.1 ssl-min-ver TLSv1.3
    default_backend origin

backend origin
    server origin {to}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_and_no_hurry() {
        let identity = Identity::at("/tmp/tls".as_ref());
        let site = Site {
            listen: "127.0.0.1:8001".parse().unwrap(),
            to: "127.0.0.1:9001".parse().unwrap(),
            connections: 5_000,
            workers: 1,
            identity: &identity,
            folder: Path::new("/tmp/b"),
        };
        let nginx = nginx(&site);
        for line in [
            "worker_connections 10000;",
            "proxy_read_timeout 600s;",
            "listen 127.0.0.1:8001 ssl",
            "server 127.0.0.1:9001;",
        ] {
            assert!(nginx.contains(line), "{line}");
        }
        assert_eq!(nginx.matches('{').count(), nginx.matches('}').count());
        let haproxy = haproxy(&site);
        for line in
            ["maxconn 5000\n", "timeout tunnel 600s\n", "ssl crt /tmp/tls/both.pem", "server origin 127.0.0.1:9001\n"]
        {
            assert!(haproxy.contains(line), "{line}");
        }
    }
}
