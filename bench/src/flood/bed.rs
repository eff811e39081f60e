//! Two network namespaces with a cable between them, a proxy and its origin in one of them, and in the other one a second engine, whose shield
//! judges nothing: a veth takes what a native XDP program sends only if its own end has a program, too.

use std::process::{Child, Command, Stdio};

use serde_json::Value;
use xtask::Outcome;

use super::{Case, Clients, Settings, syns};
use crate::load::Seen;
use crate::process::{Running, Scratch, myself, pinned_command, words, write_file};
use crate::rivals::{Kind, nginx};
use crate::spaces::{Spaces, ip, within};

pub(super) const DOOR: &str = "10.78.0.1:8080";
pub(super) const ORIGIN: &str = "127.0.0.1:9001";
const ADMIN: &str = "127.0.0.1:9901";

/// Torn down when dropped, processes first.
pub(super) struct Bed {
    pub(super) version: String,
    _running: Vec<Running>,
    spaces: Spaces,
    load_cpu: usize,
    kind: Kind,
}

impl Bed {
    pub(super) fn new(case: &Case, settings: &Settings, scratch: &Scratch) -> Outcome<Self> {
        let spaces = Spaces::new("flood")?;
        // Whoever is answered is not there: the outer one forwards nothing.
        ip(&["-n", &spaces.inner, "route", "add", syns::SOURCES, "via", "10.78.0.2"])?;
        let folder = scratch.folder(&case.name().replace([' ', '+', '(', ')'], ""))?;
        let penstock = Kind::Penstock.program()?;
        let origin = words([&myself()?, &"origin", &"--listen", &ORIGIN]);
        let proxy = match case.kind {
            Kind::Nginx => {
                let file = folder.join("nginx.conf");
                write_file(&file, nginx(&folder.display().to_string(), "", " backlog=4096", ""))?;
                words([&case.kind.program()?, &"-p", &folder, &"-c", &file])
            }
            _ => {
                let file = folder.join("penstock.toml");
                write_file(&file, engine(DOOR, settings.proxy_cpu, &shield("door0", case.shield.as_deref())))?;
                words([&penstock, &"run", &"-c", &file])
            }
        };
        let street = folder.join("street.toml");
        write_file(&street, engine("127.0.0.1:8080", settings.load_cpu, &shield("street0", Some("native"))))?;
        let outside = words([&penstock, &"run", &"-c", &street]);
        let mut running = Vec::new();
        for (name, space, cpu, line) in [
            ("origin", &spaces.inner, settings.load_cpu, origin),
            ("street", &spaces.outer, settings.load_cpu, outside),
            (case.kind.name(), &spaces.inner, settings.proxy_cpu, proxy),
        ] {
            running.push(Running::start(name, cpu, &within(space, &line), &[], &folder.join(name))?);
        }
        let bed = Self {
            version: case.kind.version(&case.kind.program()?),
            spaces,
            load_cpu: settings.load_cpu,
            kind: case.kind,
            _running: running,
        };
        bed.wait(case)?;
        Ok(bed)
    }

    /// Until a client is served, and what must stand does.
    fn wait(&self, case: &Case) -> Outcome {
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            let served = self.clients(1).map(|clients| clients.newcomers.requests).unwrap_or(0);
            let street = self.text(&self.spaces.outer, &["ip", "-d", "link", "show", "street0"]).contains("prog/xdp");
            let door = self.text(&self.spaces.inner, &["ip", "-d", "link", "show", "door0"]).contains("prog/xdp");
            if served > 0 && street && door == case.shield.is_some() {
                return Ok(());
            }
            if std::time::Instant::now() > until {
                return Err(format!("{served} requests served; XDP outside: {street}, inside: {door}"));
            }
        }
    }

    /// What clients see for so long.
    pub(super) fn clients(&self, seconds: u64) -> Outcome<Clients> {
        let line = words([&myself()?, &"flood-clients", &"--to", &DOOR, &"--seconds", &seconds.to_string()]);
        let mut command = pinned_command(&self.load_cpu.into(), &within(&self.spaces.outer, &line))?;
        let output = command.output().map_err(|error| format!("bench flood-clients: {error}"))?;
        let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let seen = |name: &str| value.get(name).and_then(Seen::from_json);
        seen("standing").zip(seen("newcomers")).map(|(standing, newcomers)| Clients { standing, newcomers }).ok_or_else(
            || format!("bench flood-clients told no result: {}", String::from_utf8_lossy(&output.stderr).trim()),
        )
    }

    /// Begins a flood. It has what its CPU has left: clients somewhere else would not wait for who floods to give way either.
    pub(super) fn flood(&self, rate: u64, seconds: u64) -> Outcome<Flood> {
        let mut line = words([&"chrt", &"--idle", &"0", &myself()?, &"flood-syns", &"--to", &DOOR]);
        line.extend(words([&"--rate", &rate.to_string()]));
        line.extend(words([&"--seconds", &seconds.to_string()]));
        let mut command = pinned_command(&self.load_cpu.into(), &within(&self.spaces.outer, &line))?;
        let child = command.stdout(Stdio::piped()).spawn().map_err(|error| format!("bench flood-syns: {error}"))?;
        Ok(Flood(Some(child)))
    }

    /// Cookies so far: the kernel's, and the shield's.
    pub(super) fn cookies(&self) -> (u64, u64) {
        let counters = self.text(&self.spaces.inner, &["cat", "/proc/net/netstat"]);
        let kernel = counter(&counters, "SyncookiesSent").unwrap_or(0);
        let shield = if self.kind == Kind::Penstock { self.shield_cookies() } else { None };
        (kernel, shield.unwrap_or(0))
    }

    fn shield_cookies(&self) -> Option<u64> {
        let program = Kind::Penstock.program().ok()?;
        let text = self.text(&self.spaces.inner, &[program.to_str()?, "show", "shield", "--json", "--admin", ADMIN]);
        let rows: Value = serde_json::from_str(&text).ok()?;
        rows.as_array()?.iter().find(|row| row["reason"] == "cookie")?["packets"].as_u64()
    }

    fn text(&self, space: &str, line: &[&str]) -> String {
        let output = Command::new("ip").args(["netns", "exec", space]).args(line).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    }
}

/// One under way.
pub(super) struct Flood(Option<Child>);

impl Flood {
    /// Waits for its end; SYNs a second.
    pub(super) fn finish(mut self) -> Outcome<f64> {
        let child = self.0.take().ok_or("it has ended")?;
        let output = child.wait_with_output().map_err(|error| format!("bench flood-syns: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim().parse().map_err(|_| format!("bench flood-syns ended without a word ({})", output.status))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // It has ended, or is of no use.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A counter of `/proc/net/netstat`, whose lines come in pairs: names, and then numbers.
fn counter(text: &str, name: &str) -> Option<u64> {
    let lines: Vec<&str> = text.lines().collect();
    lines.chunks(2).find_map(|pair| {
        let at = pair.first()?.split_whitespace().position(|word| word == name)?;
        pair.get(1)?.split_whitespace().nth(at)?.parse().ok()
    })
}

fn shield(interface: &str, mode: Option<&str>) -> String {
    let of = |mode| format!("[shield]\ninterfaces = [\"{interface}\"]\nmode = \"{mode}\"\nsyn_cookies = \"auto\"\n");
    mode.map(of).unwrap_or_default()
}

/// A configuration with one listener and one origin, and more.
pub(super) fn engine(listen: &str, cpu: usize, more: &str) -> String {
    format!(
        "\
[engine]
cores = \"{cpu}\"
admin = \"{ADMIN}\"

[[listen]]
name = \"door\"
addr = \"{listen}\"

[[pool]]
name = \"origin\"
endpoints = [\"{ORIGIN}\"]

{more}"
    )
}

/// nginx before the origin, with what is to be said to all of it, at its door, and where it passes requests on.
pub(super) fn nginx(root: &str, all: &str, door: &str, place: &str) -> String {
    let preamble = nginx::preamble(root, 1, 16_384, 8_192);
    format!(
        "\
{preamble}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {root}/body;
    proxy_temp_path {root}/proxy;
    {all}
    upstream origin {{ server {ORIGIN}; keepalive 64; keepalive_requests 1000000000; }}
    server {{
        listen {DOOR}{door};
        location / {{ {place} proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection \"\"; }}
    }}
}}
"
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn counters_are_found_by_name() {
        let text = "TcpExt: SyncookiesSent SyncookiesRecv\nTcpExt: 7 9\nIpExt: InNoRoutes InOctets\nIpExt: 0 3\n";
        assert_eq!(super::counter(text, "SyncookiesRecv"), Some(9));
        assert_eq!(super::counter(text, "InOctets"), Some(3));
        assert_eq!(super::counter(text, "None"), None);
    }
}
