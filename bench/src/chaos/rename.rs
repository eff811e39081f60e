//! The addresses of a name change, and the old ones go away: what a deployment looks like to a proxy that was told a name.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use xtask::Outcome;

use super::contender::{Behind, Contender};
use super::plan::ORIGINS;
use super::tally::Tally;
use super::{Settings, load_of};
use crate::echo::client::Load;
use crate::echo::fleet::{Fault, Fleet};
use crate::echo::names::{NameServer, TTL_SECONDS};
use crate::process::Scratch;
use crate::rivals::Kind;

pub(super) const ABOUT: &str =
    "a name's two addresses give way to three others, and after three times its TTL the two are killed (-9)";

/// How many of the origins the name stands for at first.
const BEFORE: usize = 2;

/// What clients saw of it through one proxy.
pub(super) fn through(kind: Kind, settings: &Settings, scratch: &Scratch) -> Outcome<Tally> {
    if kind == Kind::Nginx {
        return Err("names in an upstream are resolved once, at the start (`resolve` came with 1.27.3)".to_owned());
    }
    let mut fleet = Fleet::start(scratch, ORIGINS as u8, &settings.load_cpu.into(), &[])?;
    let addresses = fleet.addresses();
    let (before, after) = addresses.split_at(BEFORE);
    let ip_of = |addresses: &[std::net::SocketAddr]| -> Vec<Ipv4Addr> {
        let ips = addresses.iter().filter_map(|address| match address.ip() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        });
        ips.collect()
    };
    let server = NameServer::start(&ip_of(before))?;
    let behind = Behind::Name { server: server.address, port: addresses[0].port() };
    let contender = Contender::start(kind, behind, &settings.proxy_cpus, scratch, None)?;
    let load = Load::start(load_of(settings, &contender, 0))?;
    fleet.hold(settings.lead)?;
    server.set(&ip_of(after));
    fleet.hold(Duration::from_secs(3 * u64::from(TTL_SECONDS)))?;
    let mut dead = [None; ORIGINS];
    dead[..BEFORE].fill(Some(Fault::Dead));
    fleet.set(&dead)?;
    fleet.hold(settings.turn)?;
    let seen = load.finish()?;
    Tally::of(&seen, &fleet.journals()?, 0, 1).pop().ok_or_else(|| "nothing was seen".to_owned())
}
