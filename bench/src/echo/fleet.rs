//! The origins behind a proxy, as processes, and what is done to them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use xtask::Outcome;

use super::id::{CONNECTION, Id};
use super::origin::Behaviour;
use crate::process::{Cpus, Running, Scratch, myself, words};

/// What is wrong with one origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL; started again when the fault ends.
    Dead,
    /// SIGSTOP: the kernel still accepts connections for it. SIGCONT when the fault ends.
    Hanging,
    /// SIGKILL, started again half a second later, and so on.
    Flapping,
    Behaving(Behaviour),
}

/// What an origin wrote down, from before its first death to after its last.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// How often each request arrived.
    pub(crate) tries: HashMap<Id, u32>,
    /// Connections that carried requests.
    pub(crate) connections: u64,
}

impl Journal {
    /// Requests that arrived, again ones included.
    pub(crate) fn requests(&self) -> u64 {
        self.tries.values().map(|count| u64::from(*count)).sum()
    }
}

/// A flapping origin is down for this long, then up for as long.
const FLAP: Duration = Duration::from_millis(500);
/// Ports below those that the kernel gives to outgoing connections: a port whose origin is dead must stay free for it, and a connection
/// to it must not meet itself.
const PORTS: std::ops::Range<u16> = 15_000..30_000;

struct Member {
    address: SocketAddr,
    journal: PathBuf,
    log: PathBuf,
    running: Running,
    fault: Option<Fault>,
    /// When a flapping one changes next, and whether it is up.
    flap: (Instant, bool),
}

/// All of them. Dropped, they are ended.
pub(crate) struct Fleet {
    cpus: Cpus,
    options: Vec<String>,
    members: Vec<Member>,
}

impl Fleet {
    /// Starts origins on one port of as many addresses of the loopback (a name can then stand for all of them). `options` are further words
    /// for [`super::origin::main`].
    pub(crate) fn start(scratch: &Scratch, count: u8, cpus: &Cpus, options: &[&str]) -> Outcome<Self> {
        let addresses = addresses(count)?;
        let folder = scratch.folder(&format!("origins-{}", addresses.first().map_or(0, SocketAddr::port)))?;
        let options = options.iter().map(|word| (*word).to_owned()).collect();
        let mut fleet = Self { cpus: cpus.clone(), options, members: Vec::new() };
        for (number, address) in addresses.into_iter().enumerate() {
            let (journal, log) = (folder.join(format!("{number}.journal")), folder.join(format!("{number}.log")));
            // An earlier fleet of this run may have had the port.
            let _ = std::fs::remove_file(&journal);
            let running = start(address, &journal, &log, cpus, &fleet.options)?;
            let flap = (Instant::now(), true);
            fleet.members.push(Member { address, journal, log, running, fault: None, flap });
        }
        for member in &mut fleet.members {
            member.running.wait_until_it_answers(member.address, &Behaviour::Normal.target())?;
        }
        Ok(fleet)
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.address).collect()
    }

    /// Ends the faults that are over and begins the new ones.
    pub(crate) fn set(&mut self, faults: &[Option<Fault>]) -> Outcome {
        let now = Instant::now();
        for (member, fault) in self.members.iter_mut().zip(faults) {
            if member.fault != *fault {
                member.heal(&self.cpus, &self.options)?;
            }
        }
        for (member, fault) in self.members.iter_mut().zip(faults) {
            if member.fault != *fault {
                member.suffer(*fault, now)?;
            }
        }
        Ok(())
    }

    /// Flaps what flaps, for as long as told.
    pub(crate) fn hold(&mut self, span: Duration) -> Outcome {
        let until = Instant::now() + span;
        loop {
            let now = Instant::now();
            if now >= until {
                return Ok(());
            }
            let mut next = until;
            for member in self.members.iter_mut().filter(|member| member.fault == Some(Fault::Flapping)) {
                if member.flap.0 <= now {
                    member.flap(&self.cpus, &self.options)?;
                }
                next = next.min(member.flap.0);
            }
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    /// What each origin saw so far.
    pub(crate) fn journals(&self) -> Outcome<Vec<Journal>> {
        self.members.iter().map(|member| read(&member.journal)).collect()
    }
}

fn read(path: &Path) -> Outcome<Journal> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut journal = Journal::default();
    for id in bytes.as_chunks::<8>().0 {
        match Id(u64::from_ne_bytes(*id)) {
            CONNECTION => journal.connections += 1,
            id => *journal.tries.entry(id).or_default() += 1,
        }
    }
    Ok(journal)
}

impl Member {
    fn suffer(&mut self, fault: Option<Fault>, now: Instant) -> Outcome {
        match fault {
            None => {}
            Some(Fault::Dead) => self.running.kill(),
            Some(Fault::Hanging) => self.running.signal(Signal::STOP),
            Some(Fault::Flapping) => self.flap = (now, true),
            Some(Fault::Behaving(behaviour)) => self.behave(behaviour)?,
        }
        self.fault = fault;
        Ok(())
    }

    fn heal(&mut self, cpus: &Cpus, options: &[String]) -> Outcome {
        match self.fault.take() {
            None => Ok(()),
            Some(Fault::Dead) => self.restart(cpus, options),
            Some(Fault::Hanging) => {
                self.running.signal(Signal::CONT);
                Ok(())
            }
            Some(Fault::Flapping) if self.flap.1 => Ok(()),
            Some(Fault::Flapping) => self.restart(cpus, options),
            Some(Fault::Behaving(_)) => self.behave(Behaviour::Normal),
        }
    }

    fn flap(&mut self, cpus: &Cpus, options: &[String]) -> Outcome {
        self.flap = (self.flap.0 + FLAP, !self.flap.1);
        if self.flap.1 {
            self.restart(cpus, options)
        } else {
            self.running.kill();
            Ok(())
        }
    }

    /// On the same port, without waiting for it.
    fn restart(&mut self, cpus: &Cpus, options: &[String]) -> Outcome {
        self.running = start(self.address, &self.journal, &self.log, cpus, options)?;
        Ok(())
    }

    fn behave(&mut self, behaviour: Behaviour) -> Outcome {
        self.running.wait_until_it_answers(self.address, &behaviour.target())
    }
}

fn start(address: SocketAddr, journal: &Path, log: &Path, cpus: &Cpus, options: &[String]) -> Outcome<Running> {
    let mut line = words([&myself()?, &"echo-origin", &"--listen", &address.to_string(), &"--journal", &journal]);
    line.extend(options.iter().map(std::ffi::OsString::from));
    Running::start("an origin", cpus.clone(), &line, &[], log)
}

/// The loopback's addresses 127.0.0.11 and on, with a port that is free on all of them.
fn addresses(count: u8) -> Outcome<Vec<SocketAddr>> {
    let first = PORTS.start + (std::process::id() % u32::from(PORTS.end - PORTS.start)) as u16;
    (first..PORTS.end)
        .chain(PORTS.start..first)
        .map(|port| {
            (0..count).map(move |number| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11 + number)), port))
        })
        .find(|addresses| addresses.clone().all(|address| TcpListener::bind(address).is_ok()))
        .map(Iterator::collect)
        .ok_or_else(|| format!("no port of {}–{} is free on all addresses", PORTS.start, PORTS.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_port_on_every_address() {
        let addresses = addresses(5).unwrap();
        assert_eq!(addresses.len(), 5);
        assert!(
            addresses.iter().all(|address| address.port() == addresses[0].port() && PORTS.contains(&address.port()))
        );
    }
}
