//! The host as its files and as the ring that it grants: read from `/` and tried, or in tests made up.

use crate::balance::{Kind as Balance, Room};
use crate::snapshot::{OuterSource, cpu_list};
use crate::steer::{Kind, Program};
use ring::{DriverChoice, Granted, Options, Ring};
use std::{collections::HashMap, path::Path};

pub(super) struct Host {
    /// `None`: the real files.
    files: Option<HashMap<String, String>>,
    /// The CPUs we may use.
    pub(super) allowed: Vec<u16>,
    /// What a ring set up here is granted, or why there is none.
    pub(super) ring: Result<Granted, String>,
    /// Each eBPF program, and why it cannot be loaded, if so.
    pub(super) programs: Vec<(Kind, Result<(), String>)>,
    /// Why the XDP shield cannot be loaded, if so.
    pub(super) shield: Result<(), String>,
    /// Whether the program for further addresses of listeners may be loaded.
    pub(super) lookup: Result<(), String>,
    /// Why the same-host shortcut cannot be loaded, or fails its trial, if so.
    pub(super) same_host: Result<(), String>,
    /// Why datagrams cannot go past the kernel, if so.
    pub(super) afxdp: Result<(), String>,
    /// Why programs of XDP cannot stand one behind the other, if so.
    pub(super) interfaces: Result<(), String>,
    /// Why the XDP balancer and decapsulator cannot be loaded, if so.
    pub(super) balance: Vec<(Balance, Result<(), String>)>,
}

impl Host {
    pub(super) fn this() -> Self {
        Self {
            files: None,
            allowed: ring::allowed_cpus().unwrap_or_default(),
            ring: set_up_a_ring(),
            programs: load_programs(),
            shield: crate::shield::Program::load().map(drop),
            afxdp: crate::afxdp::granted(),
            interfaces: stand_in_a_line(),
            lookup: crate::steer::Lookup::load().map(drop),
            same_host: crate::samehost::probe(),
            balance: Balance::ALL.map(|kind| (kind, crate::balance::Program::try_to_load(kind))).into(),
        }
    }

    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, content)| ((*path).to_owned(), (*content).to_owned())).collect();
        Self {
            files: Some(files),
            allowed: vec![0, 1, 2, 3],
            ring: Ok(granted(&["DEFER_TASKRUN", "NO_SQARRAY", "PBUF_RING_INC", "NO_IOWAIT"], &[])),
            programs: Kind::ALL.map(|kind| (kind, Ok(()))).into(),
            shield: Ok(()),
            afxdp: Ok(()),
            interfaces: Ok(()),
            lookup: Ok(()),
            same_host: Ok(()),
            balance: Balance::ALL.map(|kind| (kind, Ok(()))).into(),
        }
    }

    /// A file's text, trimmed; `path` without its leading slash.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        match &self.files {
            Some(files) => files.get(path).map(|text| text.trim().to_owned()),
            None => std::fs::read_to_string(Path::new("/").join(path)).ok().map(|text| text.trim().to_owned()),
        }
    }

    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.split_ascii_whitespace().next()?.parse().ok()
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        match &self.files {
            Some(files) => files.contains_key(path),
            None => Path::new("/").join(path).exists(),
        }
    }

    /// A field of `/proc/self/status`.
    pub(super) fn status(&self, field: &str) -> Option<String> {
        let status = self.text("proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
        Some(line.trim().to_owned())
    }

    /// Soft and hard value of a line of `/proc/self/limits`; `u64::MAX` is unlimited.
    pub(super) fn limit(&self, name: &str) -> Option<(u64, u64)> {
        let limits = self.text("proc/self/limits")?;
        let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
        let mut values = line.split_ascii_whitespace().map(|value| value.parse().unwrap_or(u64::MAX));
        Some((values.next()?, values.next()?))
    }

    pub(super) fn allowed_list(&self) -> String {
        cpu_list(&self.allowed)
    }
}

/// Sets a ring up as a worker does, on a thread that ends with it: a thread has one ring only, and it belongs to whoever set it up.
fn set_up_a_ring() -> Result<Granted, String> {
    let options = Options { driver: DriverChoice::Uring, ..Options::default() };
    std::thread::spawn(move || Ring::new(options).map(|ring| ring.granted()))
        .join()
        .map_err(|_| "setting it up panicked".to_owned())?
        .map_err(|error| error.to_string())
}

/// Loads each program for two workers, which attaches it to nothing, and lets go of it again.
fn load_programs() -> Vec<(Kind, Result<(), String>)> {
    Kind::ALL.map(|kind| (kind, Program::load(kind, 2).map(drop))).into()
}

/// Leads from one program of XDP to the next, on no interface.
fn stand_in_a_line() -> Result<(), String> {
    const LOOPBACK: u32 = 1;
    let room = Room { vips: 1, addresses: 1, endpoints: 1, flows: 8 };
    let shield = crate::shield::Program::load()?;
    let mut second = crate::balance::Program::load(Balance::Decap, room, OuterSource::default(), &[], &[])?;
    second.stand_behind(shield.next(), LOOPBACK)?;
    crate::afxdp::Program::load(1)?.stand_behind(second.next(), LOOPBACK)
}

/// A made-up grant.
#[cfg(test)]
pub(super) fn granted(features: &[&'static str], missing: &[&str]) -> Granted {
    Granted {
        driver: "uring",
        features: features.to_vec(),
        missing: missing.iter().map(|&text| text.to_owned()).collect(),
    }
}
