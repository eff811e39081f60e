//! The same-host shortcut: requests to endpoints of this host, and their answers, without TCP in between.
//!
//! ```text
//! configuration, operator ─► Switch of the pool ─► upstream: is the request short, and the endpoint here? ─► a socket with the token
//!                                                                                                             │
//!                                        kernel: both ends of its connection are taken up (ebpf/samehost) ◄───┘
//! ```
//!
//! What holds here: a request takes the shortcut only if it is short and here as a whole, so that an endpoint never has more than the programs' budget unread,
//! and the engine never waits for the endpoint while it owes it bytes. Programs take up what carries this process's token and nothing else. Nothing is
//! pinned: programs, maps and the attachment end with the process. Where the kernel refuses them, or does with bytes what it should not
//! (`trial.rs`), connections are plain, and that is said ([`SameHost::lines`]).

mod program;
mod trial;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use abi::samehost::Count;

pub use program::Program;

use crate::snapshot::{Kin, Pool, PoolId, PoolProtocol, ProxyProtocol, SameHost as Wish, Snapshot};

/// Priorities that mean something to the kernel are smaller, as are classes that an operator would write.
const TOKENS_FROM: u32 = 0x5000_0000;

/// Whether a pool's requests take the shortcut: the control thread's to turn, and every worker's to read.
#[derive(Debug)]
pub struct Switch {
    token: u32,
    on: AtomicBool,
}

impl Switch {
    /// The priority of sockets whose connections are to take it; `None` while it is off.
    #[inline]
    #[must_use]
    pub fn token(&self) -> Option<u32> {
        self.on.load(Ordering::Relaxed).then_some(self.token)
    }
}

/// The shortcut as the control thread holds it.
pub struct SameHost {
    token: u32,
    /// `None`: the root.
    cgroup: Option<PathBuf>,
    /// By pool; `None` where what is spoken cannot take it.
    switches: Vec<Option<Arc<Switch>>>,
    raised: Option<Program>,
    /// What was wanted and is not granted.
    refused: Option<String>,
}

impl SameHost {
    /// All pools' switches, and none of them on.
    #[must_use]
    pub fn prepare(snapshot: &Snapshot) -> Self {
        let chance = RandomState::new().build_hasher().finish();
        let token = TOKENS_FROM | (chance as u32 >> 4);
        let switch = |pool: &Pool| is_fit(pool).then(|| Arc::new(Switch { token, on: AtomicBool::new(false) }));
        Self {
            token,
            cgroup: snapshot.engine.same_host_cgroup.clone(),
            switches: snapshot.pools.iter().map(switch).collect(),
            raised: None,
            refused: None,
        }
    }

    /// The switches for a new configuration: those of pools that go on stay as they are turned, and others are off.
    #[must_use]
    pub fn succeed(&self, snapshot: &Snapshot, kin: &[Kin]) -> Vec<Option<Arc<Switch>>> {
        let new = || Arc::new(Switch { token: self.token, on: AtomicBool::new(false) });
        let switch = |(pool, kin): (&Pool, &Kin)| {
            let known = kin.same().and_then(|of| self.switch(of).map(Arc::clone));
            is_fit(pool).then(|| known.unwrap_or_else(new))
        };
        snapshot.pools.iter().zip(kin).map(switch).collect()
    }

    /// A new configuration holds, with these switches. Those that are new are turned on where it wants that, as far as it is granted.
    pub fn adopt(&mut self, switches: Vec<Option<Arc<Switch>>>, snapshot: &Snapshot, kin: &[Kin]) {
        self.switches = switches;
        let new = (0..).zip(&snapshot.pools).zip(kin).filter(|(_, kin)| kin.same().is_none());
        for ((at, _), _) in new.filter(|((_, pool), _)| pool.same_host == Wish::Auto) {
            // Why not is kept, and the same for all.
            let _ = self.turn(PoolId(at), true);
        }
    }

    /// Raises it where the configuration wants it, as far as it is granted.
    pub fn raise(&mut self, snapshot: &Snapshot) {
        for (at, pool) in (0..).zip(&snapshot.pools) {
            if pool.same_host == Wish::Auto {
                // Why not is kept, and the same for all.
                let _ = self.turn(PoolId(at), true);
            }
        }
    }

    /// Turns a pool's shortcut on or off, from its next requests on; tells whether it was on.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn turn(&mut self, pool: PoolId, on: bool) -> Result<bool, String> {
        let switch = self.switches.get(usize::from(pool.0)).and_then(Option::as_ref).map(Arc::clone);
        let switch =
            switch.ok_or("its pool speaks HTTP/1.1 in the clear, and tells no endpoint by PROXY protocol who asks")?;
        if on && self.raised.is_none() {
            match raise(self.cgroup.as_deref(), self.token) {
                Ok(program) => (self.raised, self.refused) = (Some(program), None),
                Err(why) => {
                    self.refused = Some(why.clone());
                    return Err(why);
                }
            }
        }
        Ok(switch.on.swap(on, Ordering::Relaxed))
    }

    /// Those of all pools, in their order.
    #[must_use]
    pub fn switches(&self) -> &[Option<Arc<Switch>>] {
        &self.switches
    }

    /// A pool's switch; `None` where there is nothing to turn.
    #[must_use]
    pub fn switch(&self, pool: PoolId) -> Option<&Arc<Switch>> {
        self.switches.get(usize::from(pool.0))?.as_ref()
    }

    /// What was wanted and is not granted, with the reason.
    #[must_use]
    pub fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// How often what was seen; `None` where it does not stand.
    #[must_use]
    pub fn counts(&self) -> Option<Vec<(&'static str, u64)>> {
        let program = self.raised.as_ref()?;
        Some(Count::ALL.iter().map(|what| (what.name(), program.count(*what))).collect())
    }

    /// What stands and what does not, for the operator's eye.
    #[must_use]
    pub fn lines(&self, snapshot: &Snapshot) -> Vec<String> {
        let is_on = |at: u16| self.switch(PoolId(at)).is_some_and(|switch| switch.token().is_some());
        let pools: Vec<_> = (0..).zip(&snapshot.pools).filter(|(at, _)| is_on(*at)).collect();
        let pools: Vec<_> = pools.iter().map(|(_, pool)| format!("`{}`", pool.name)).collect();
        let standing =
            (!pools.is_empty()).then(|| format!("  same host: requests of {} take the shortcut", pools.join(", ")));
        let refused = self.refused.iter().map(|why| format!("  goes without: same-host shortcut ({why})"));
        standing.into_iter().chain(refused).collect()
    }
}

/// What is spoken with the pool's endpoints can take the shortcut: exchanges one after the other, and connections that see several.
fn is_fit(pool: &Pool) -> bool {
    pool.protocol == PoolProtocol::Http11 && pool.tls.is_none() && pool.proxy_protocol == ProxyProtocol::Off
}

fn raise(cgroup: Option<&Path>, token: u32) -> Result<Program, String> {
    let root = || root_cgroup().ok_or_else(|| "no cgroup v2 is mounted".to_owned());
    let cgroup = cgroup.map_or_else(root, |given| Ok(given.to_owned()))?;
    let mut program = Program::load()?;
    program.attach(&cgroup, token)?;
    trial::try_out(&program, token)?;
    Ok(program)
}

/// Loads it, and tries it out with connections of our own.
///
/// # Errors
/// Why it would be refused.
pub fn probe() -> Result<(), String> {
    raise(None, TOKENS_FROM | (std::process::id() & 0xfff_ffff)).map(drop)
}

/// Where the hierarchy of cgroup v2 is mounted (proc_mounts(5)).
fn root_cgroup() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mut found = fields.filter(|fields| fields.get(2) == Some(&"cgroup2"));
    // Whitespace in a path is written in octal.
    found.find_map(|fields| fields.get(1).map(|path| PathBuf::from(path.replace("\\040", " "))))
}

/// Whether an address is this host's own: loopback, or one that a socket can be bound to.
#[must_use]
pub fn is_here(address: SocketAddr) -> bool {
    let mut own = address;
    own.set_port(0);
    address.ip().to_canonical().is_loopback() || UdpSocket::bind(own).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_addresses_are_told_from_others() {
        for (address, here) in
            [("127.0.0.1:80", true), ("127.8.9.10:80", true), ("[::ffff:127.0.0.1]:80", true), ("192.0.2.1:80", false)]
        {
            assert_eq!(is_here(address.parse().unwrap()), here, "{address}");
        }
    }
}
