//! Names to addresses and services: the host's own table first, then its DNS servers, one after the other.
//!
//! What holds here: an answer is whole or there is none; a server that fails is no answer, and what does not answer is not looked for
//! under another name, which would be another service's. Blocks: only discovery's threads come here.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::ask::{ask, has_route};
use super::host::{Hosts, ResolvConf, Watched};
use super::message::{Answer, Kind, Reply, Service};

/// Who can be asked for names.
pub(super) trait Names {
    fn addresses(&self, name: &str) -> Result<Addresses, Trouble>;
    fn services(&self, name: &str) -> Result<Services, Trouble>;
}

/// What a name stands for. Never empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) ips: Vec<IpAddr>,
    /// How long it may be believed; `None`: nobody says.
    pub(super) ttl: Option<Duration>,
    /// The host's own table has it: addresses of one machine, not records of several.
    pub(super) is_one: bool,
    /// Nobody answered for these, as some servers and firewalls do for AAAA: what they were before still holds.
    pub(super) unheard: Option<Kind>,
}

/// What SRV records say. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Services {
    pub(super) found: Vec<Service>,
    pub(super) ttl: Duration,
}

/// Why a name stands for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    NoSuchName,
    NoRecords,
    Refused(SocketAddr, String),
    Silent(SocketAddr, String),
}

/// The DNS servers that are asked, and the host's own tables.
pub(super) struct Resolver {
    /// The operator's; asked for names as they are written. Empty: the host's.
    servers: Box<[SocketAddr]>,
    tables: Mutex<Tables>,
}

struct Tables {
    hosts: Watched<Hosts>,
    conf: Watched<ResolvConf>,
}

impl Resolver {
    pub(super) fn new(servers: &[SocketAddr]) -> Self {
        let hosts = Watched::new("/etc/hosts", Hosts::read);
        let conf = Watched::new("/etc/resolv.conf", ResolvConf::read);
        Self { servers: servers.into(), tables: Mutex::new(Tables { hosts, conf }) }
    }

    /// The host's own addresses of a name, and whom to ask otherwise.
    fn look_up(&self, name: &str) -> (Vec<IpAddr>, ResolvConf) {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let known = tables.hosts.fresh().of(name);
        let mut conf = tables.conf.fresh().clone();
        if !self.servers.is_empty() {
            conf.servers = self.servers.to_vec();
            conf.search.clear();
        }
        (known, conf)
    }
}

impl Names for Resolver {
    fn addresses(&self, name: &str) -> Result<Addresses, Trouble> {
        let (mut ips, conf) = self.look_up(name);
        if ips.is_empty() && is_localhost(name) {
            ips = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        }
        if !ips.is_empty() {
            return Ok(Addresses { ips, is_one: true, ..Addresses::default() });
        }
        first(&conf.candidates(name), |name| both(query(&conf, name, Kind::A), || query(&conf, name, Kind::Aaaa)))
    }

    fn services(&self, name: &str) -> Result<Services, Trouble> {
        let (_, conf) = self.look_up(name);
        first(&conf.candidates(name), |name| {
            let answer = query(&conf, name, Kind::Srv)?;
            let (found, ttl) = (answer.services, answer.ttl);
            if found.is_empty() { Err(Trouble::NoRecords) } else { Ok(Services { found, ttl }) }
        })
    }
}

/// The records of both families. One whose question has failed does not take the other one's records away.
fn both(v4: Result<Answer, Trouble>, v6: impl FnOnce() -> Result<Answer, Trouble>) -> Result<Addresses, Trouble> {
    if v4 == Err(Trouble::NoSuchName) {
        return Err(Trouble::NoSuchName);
    }
    let (v4, v6, unheard) = match (v4, v6()) {
        (Ok(v4), Ok(v6)) => (v4, v6, None),
        // Some servers say so of a name that has A records only (RFC 4074 §4.2).
        (Ok(v4), Err(Trouble::NoSuchName)) => (v4, Answer::default(), None),
        (Ok(v4), Err(_)) if !v4.is_empty() => (v4, Answer::default(), Some(Kind::Aaaa)),
        (Err(_), Ok(v6)) if !v6.is_empty() => (Answer::default(), v6, Some(Kind::A)),
        (Err(trouble), _) | (_, Err(trouble)) => return Err(trouble),
    };
    let ttl = [&v4, &v6].into_iter().filter(|answer| !answer.is_empty()).map(|answer| answer.ttl).min();
    let ips = reachable([v4.addresses, v6.addresses].concat());
    if ips.is_empty() { Err(Trouble::NoRecords) } else { Ok(Addresses { ips, ttl, is_one: false, unheard }) }
}

/// The answer for the first of the names that has one.
fn first<T>(names: &[String], mut ask: impl FnMut(&str) -> Result<T, Trouble>) -> Result<T, Trouble> {
    let mut trouble = Trouble::NoSuchName;
    for name in names {
        match ask(name) {
            Err(Trouble::NoSuchName) => {}
            Err(Trouble::NoRecords) => trouble = Trouble::NoRecords,
            answer => return answer,
        }
    }
    Err(trouble)
}

/// What the first server says that answers at all.
fn query(conf: &ResolvConf, name: &str, kind: Kind) -> Result<Answer, Trouble> {
    let mut trouble = Trouble::NoSuchName;
    for _ in 0..conf.attempts {
        for &server in &conf.servers {
            trouble = match ask(server, name, kind, conf.timeout) {
                Ok(Reply::Answer(answer)) => return Ok(answer),
                Ok(Reply::NoSuchName) => return Err(Trouble::NoSuchName),
                Ok(Reply::Refused(why)) => Trouble::Refused(server, why),
                Ok(Reply::Truncated | Reply::NoEdns) => Trouble::Refused(server, "no whole answer".into()),
                Err(error) if is_silence(&error) => {
                    Trouble::Silent(server, format!("no answer within {:?}", conf.timeout))
                }
                Err(error) => Trouble::Silent(server, error.to_string()),
            };
        }
    }
    Err(trouble)
}

fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Without those that this host cannot reach at all (RFC 6724 §5, rule 1); all of them when it can reach none.
fn reachable(ips: Vec<IpAddr>) -> Vec<IpAddr> {
    let good: Vec<IpAddr> = ips.iter().copied().filter(|&ip| has_route(ip)).collect();
    if good.is_empty() { ips } else { good }
}

/// No DNS server is asked for these (RFC 6761 §6.3).
fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name == "localhost" || name.ends_with(".localhost")
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchName => f.write_str("there is no such name"),
            Self::NoRecords => f.write_str("the name has no such records"),
            Self::Refused(server, why) => write!(f, "the DNS server {server} says {why}"),
            Self::Silent(server, why) => write!(f, "the DNS server {server}: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_there_is_looked_for_elsewhere_and_a_silent_one_is_not() {
        let names: Vec<String> = ["a", "b", "c"].map(Into::into).into();
        let silent = Trouble::Silent("10.0.0.53:53".parse().unwrap(), "timed out".into());
        let mut asked = Vec::new();
        let found = first(&names, |name| {
            asked.push(name.to_owned());
            if name == "b" { Ok(1) } else { Err(Trouble::NoSuchName) }
        });
        assert_eq!((found, asked.len()), (Ok(1), 2));
        let found = first::<()>(&names, |name| Err(if name == "a" { silent.clone() } else { Trouble::NoRecords }));
        assert_eq!(found, Err(silent));
        let found = first::<()>(&names, |name| Err(if name == "a" { Trouble::NoRecords } else { Trouble::NoSuchName }));
        assert_eq!(found, Err(Trouble::NoRecords));
    }

    #[test]
    fn a_family_that_is_not_answered_for_leaves_the_other_one_alone() {
        let silent = || Err(Trouble::Silent("10.0.0.53:53".parse().unwrap(), "timed out".into()));
        let answer = |ips: &[&str]| {
            let addresses = ips.iter().map(|ip| ip.parse().unwrap()).collect();
            Ok(Answer { addresses, ttl: Duration::from_secs(9), ..Answer::default() })
        };
        let found = |v4, v6| {
            let both = both(v4, || v6)?;
            Ok((both.ips.len(), both.ttl.map_or(0, |ttl| ttl.as_secs()), both.unheard))
        };
        let (one, other) = (["127.0.0.1"], ["::1"]);
        assert_eq!(found(answer(&one), answer(&[])), Ok((1, 9, None)));
        assert_eq!(found(answer(&one), silent()), Ok((1, 9, Some(Kind::Aaaa))));
        assert_eq!(found(silent(), answer(&other)), Ok((1, 9, Some(Kind::A))));
        assert_eq!(found(answer(&one), Err(Trouble::NoSuchName)), Ok((1, 9, None)));
        assert_eq!(found(answer(&[]), silent()), silent().map(|_| (0, 0, None)));
        assert_eq!(found(answer(&[]), answer(&[])), Err(Trouble::NoRecords));
        assert_eq!(found(Err(Trouble::NoSuchName), answer(&other)), Err(Trouble::NoSuchName));
    }

    #[test]
    fn localhost_is_this_host() {
        let found = Resolver::new(&["192.0.2.1:53".parse().unwrap()]).addresses("app.localhost").unwrap();
        assert!(found.is_one && found.ips.contains(&Ipv4Addr::LOCALHOST.into()), "{found:?}");
    }
}
