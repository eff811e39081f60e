//! What this host knows about names by itself: `/etc/hosts` and `/etc/resolv.conf`, read anew when they change.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use super::file::{Stamp, read_bounded};
use crate::limits;

/// `resolv.conf(5)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResolvConf {
    pub(super) servers: Vec<SocketAddr>,
    pub(super) search: Vec<Box<str>>,
    /// A name with fewer dots is looked for in `search` first.
    pub(super) ndots: usize,
    pub(super) timeout: Duration,
    pub(super) attempts: u8,
}

/// `hosts(5)`: names, in lower case, and their addresses in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Hosts(HashMap<Box<str>, Vec<IpAddr>>);

/// A file's meaning, as of when it last changed. One that cannot be read counts as empty.
pub(super) struct Watched<T> {
    path: &'static Path,
    stamp: Option<Stamp>,
    read: fn(&str) -> T,
    value: T,
}

impl<T> Watched<T> {
    pub(super) fn new(path: &'static str, read: fn(&str) -> T) -> Self {
        let mut watched = Self { path: Path::new(path), stamp: None, read, value: read("") };
        watched.fresh();
        watched
    }

    pub(super) fn fresh(&mut self) -> &T {
        let stamp = Stamp::of(self.path).ok();
        if stamp != self.stamp {
            self.stamp = stamp;
            self.value = (self.read)(&read_bounded(self.path, limits::HOSTS_BYTES_MAX).unwrap_or_default());
        }
        &self.value
    }
}

impl ResolvConf {
    pub(super) fn read(text: &str) -> Self {
        let mut conf = Self {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: limits::RESOLVER_TIMEOUT,
            attempts: limits::RESOLVER_ATTEMPTS,
        };
        for line in text.lines() {
            let mut words = line.split(['#', ';']).next().unwrap_or_default().split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let ip = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    conf.servers.extend(ip.map(|ip| SocketAddr::new(ip, 53)));
                }
                Some("search" | "domain") => {
                    conf.search =
                        words.take(limits::SEARCH_MAX).map(|word| word.trim_end_matches('.').into()).collect();
                }
                Some("options") => words.for_each(|option| conf.option(option)),
                _ => {}
            }
        }
        conf.servers.truncate(limits::RESOLVERS_MAX);
        if conf.servers.is_empty() {
            conf.servers.push(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 53));
        }
        conf
    }

    fn option(&mut self, option: &str) {
        let Some((key, Ok(number))) = option.split_once(':').map(|(key, number)| (key, number.parse::<u8>())) else {
            return;
        };
        match key {
            "ndots" => self.ndots = number.min(15).into(),
            "timeout" => self.timeout = Duration::from_secs(number.clamp(1, 30).into()),
            "attempts" => self.attempts = number.clamp(1, 5),
            _ => {}
        }
    }

    /// The names to look for, in order: `search` applies to those with few dots, a dot at the end says that it is whole.
    pub(super) fn candidates(&self, name: &str) -> Vec<String> {
        if let Some(whole) = name.strip_suffix('.') {
            return vec![whole.to_owned()];
        }
        let searched = self.search.iter().filter(|domain| !domain.is_empty()).map(|domain| format!("{name}.{domain}"));
        let mut names: Vec<String> = searched.collect();
        let at = if name.matches('.').count() >= self.ndots { 0 } else { names.len() };
        names.insert(at, name.to_owned());
        names
    }
}

impl Hosts {
    pub(super) fn read(text: &str) -> Self {
        let mut hosts: HashMap<Box<str>, Vec<IpAddr>> = HashMap::new();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
            let Some(ip) = words.next().and_then(|word| word.parse().ok()) else { continue };
            for name in words {
                let addresses = hosts.entry(name.to_ascii_lowercase().into()).or_default();
                if !addresses.contains(&ip) && addresses.len() < limits::RECORDS_MAX {
                    addresses.push(ip);
                }
            }
        }
        Self(hosts)
    }

    /// `name` in lower case.
    pub(super) fn of(&self, name: &str) -> Vec<IpAddr> {
        self.0.get(name.trim_end_matches('.')).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_as_its_manual_has_it() {
        let text = "# comment\nnameserver 10.0.0.53 ; ours\nnameserver fe80::1%eth0\nnameserver ::1\n\
                    domain old.example\nsearch a.example. b.example\noptions ndots:2 timeout:3 attempts:9 rotate edns0\n";
        let conf = ResolvConf::read(text);
        assert_eq!(conf.servers, ["10.0.0.53:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
        assert_eq!((conf.ndots, conf.timeout, conf.attempts), (2, Duration::from_secs(3), 5));
        assert_eq!(conf.candidates("web"), ["web.a.example", "web.b.example", "web"]);
        assert_eq!(conf.candidates("web.x.y"), ["web.x.y", "web.x.y.a.example", "web.x.y.b.example"]);
        assert_eq!(conf.candidates("web."), ["web"]);
        assert_eq!(ResolvConf::read("").servers, ["127.0.0.1:53".parse().unwrap()]);
    }

    #[test]
    fn hosts_by_any_of_their_names() {
        let hosts = Hosts::read("127.0.0.1 localhost # here\n::1 LocalHost ip6-localhost\nnonsense a\n10.0.0.1 a b\n");
        let ips = |name: &str| hosts.of(name).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(ips("localhost"), ["127.0.0.1", "::1"]);
        assert_eq!((ips("a"), ips("b")), (ips("b."), vec!["10.0.0.1".into()]));
        assert!(ips("here").is_empty());
    }
}
