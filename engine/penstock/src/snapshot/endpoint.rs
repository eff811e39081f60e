//! Entries of a pool's `endpoints`, as operators write them: what an endpoint is, or where endpoints are to be found.

use super::address::{Address, Host, is_host_name};
use super::literal::{Literal, Unreadable};
use crate::limits;
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
};

/// One entry: `[https://]source [weight=N] [tier=N] [requests=N] [connections=N] [server=N]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub source: Source,
    /// Written as `https://`: its pool is met by TLS.
    pub tls: bool,
    /// Of each endpoint that it stands for, unless the source tells of weights itself.
    pub weight: u32,
    /// 0 is asked first. What a source tells of comes on top.
    pub tier: u8,
    /// Of each endpoint that it stands for.
    pub limits: EndpointLimits,
    /// Which machine of a fleet it is in ids of QUIC connections, for VIPs that read them.
    pub server: Option<u16>,
}

/// What one endpoint is given at the most, over all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct EndpointLimits {
    pub requests: Option<u32>,
    pub connections: Option<u32>,
}

impl EndpointLimits {
    /// Those that are given here, and else the others.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self { requests: self.requests.or(others.requests), connections: self.connections.or(others.connections) }
    }

    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// Where an entry's endpoints come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// An address is itself; a name stands for all its A and AAAA records.
    Address(Address),
    /// SRV records (RFC 2782): targets, ports, priorities and weights.
    Srv(Box<str>),
    /// A file with one entry a line.
    File(PathBuf),
}

/// A DNS server: `10.0.0.53`, or with a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nameserver(pub SocketAddr);

impl Source {
    /// Whether it is the same for as long as the process lives.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        matches!(self, Self::Address(Address::Tcp { host: Host::Ip(_), .. } | Address::Unix(_)))
    }

    /// Whether its endpoints have weights of their own.
    fn tells_weights(&self) -> bool {
        matches!(self, Self::Srv(_) | Self::File(_))
    }
}

impl Literal for Endpoint {
    const FORMAT: &'static str = "endpoint";
    const FORM: &'static str = "an endpoint: `10.0.0.1:80`, `unix:/path`; a name for all its addresses: `host.name:80 weight=2`; \
         SRV records: `srv:_http._tcp.name`; a file with one of these a line: `file:/path`; each with `tier=N`, `requests=N` and `connections=N` behind it, an address with `server=N`";
}

impl FromStr for Endpoint {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let mut words = text.split_ascii_whitespace();
        let word = words.next().unwrap_or_default();
        let (source, tls) = match word.strip_prefix("https://") {
            Some(url) => (https(url)?, true),
            None => (word.parse()?, false),
        };
        let mut endpoint = Self { source, tls, weight: 1, tier: 0, limits: EndpointLimits::default(), server: None };
        for word in words {
            match word.split_once('=') {
                Some(("weight", _)) if endpoint.source.tells_weights() => {
                    return Err(Unreadable::new(
                        format!("has `{word}`, and weights of its own"),
                        "leave it out: records and lines have weights themselves",
                    ));
                }
                Some(("weight", number)) => endpoint.weight = within("weight", number, limits::WEIGHT_MAX)?,
                Some(("requests", number)) => endpoint.limits.requests = Some(at_least_one("requests", number)?),
                Some(("connections", number)) => {
                    endpoint.limits.connections = Some(at_least_one("connections", number)?)
                }
                Some(("server", _)) if !endpoint.source.is_literal() => {
                    return Err(Unreadable::new(
                        format!("has `{word}`, and is not one address"),
                        "leave it out, or write an address: a number is one machine's",
                    ));
                }
                Some(("server", number)) => endpoint.server = Some(server(number)?),
                Some(("tier", number)) => endpoint.tier = within("tier", number, u8::MAX.into())? as u8,
                _ => {
                    return Err(Unreadable::new(
                        format!("has `{word}` after the address"),
                        "only `weight=N`, `tier=N`, `requests=N`, `connections=N` and `server=N` may follow it",
                    ));
                }
            }
        }
        Ok(endpoint)
    }
}

/// What follows `https://`: an address, or a host for its port 443.
fn https(url: &str) -> Result<Source, Unreadable> {
    let bare = url.trim_end_matches('/');
    if bare.contains('/') {
        let host = bare.split('/').next().unwrap_or_default();
        return Err(Unreadable::new("has a path", format!("write `https://{host}`")));
    }
    let port_is_missing = bare.ends_with(']') || !bare.contains(':');
    let address: Address = if port_is_missing { format!("{bare}:443").parse()? } else { bare.parse()? };
    Ok(Source::Address(address))
}

fn within(key: &str, number: &str, most: u32) -> Result<u32, Unreadable> {
    let zero = if key == "weight" { "0 (gets nothing)" } else { "0 (asked first)" };
    number.parse().ok().filter(|&number| number <= most).ok_or_else(|| {
        Unreadable::new(format!("has the {key} `{number}`"), format!("write a whole number from {zero} to {most}"))
    })
}

fn at_least_one(key: &str, number: &str) -> Result<u32, Unreadable> {
    let advice =
        || Unreadable::new(format!("has the limit `{key}={number}`"), "write a whole number from 1, or leave it out");
    number.parse().ok().filter(|&number| number > 0).ok_or_else(advice)
}

fn server(number: &str) -> Result<u16, Unreadable> {
    let advice =
        || Unreadable::new(format!("has the number `server={number}`"), "write a whole number from 0 to 65535");
    number.parse().map_err(|_| advice())
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tls {
            f.write_str("https://")?;
        }
        self.source.fmt(f)?;
        if self.weight != 1 {
            write!(f, " weight={}", self.weight)?;
        }
        if self.tier != 0 {
            write!(f, " tier={}", self.tier)?;
        }
        let limits = [("requests", self.limits.requests), ("connections", self.limits.connections)];
        limits.into_iter().try_for_each(|(key, limit)| limit.map_or(Ok(()), |most| write!(f, " {key}={most}")))?;
        self.server.map_or(Ok(()), |server| write!(f, " server={server}"))
    }
}

impl FromStr for Source {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        if let Some(name) = text.strip_prefix("srv:") {
            return if is_host_name(name) {
                Ok(Self::Srv(name.to_ascii_lowercase().into()))
            } else {
                Err(Unreadable::new("names no SRV records", "write `srv:_http._tcp.name`: the port is in the records"))
            };
        }
        match text.strip_prefix("file:") {
            Some(path) if Path::new(path).is_absolute() => Ok(Self::File(path.into())),
            Some(_) => Err(Unreadable::new("is not an absolute path", "write `file:/etc/penstock/pool.txt`")),
            None => text.parse().map(Self::Address),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Srv(name) => write!(f, "srv:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl Literal for Nameserver {
    const FORMAT: &'static str = "nameserver";
    const FORM: &'static str = "a DNS server: `10.0.0.53`, `10.0.0.53:5353`, `fd00::53`, `[fd00::53]:5353`";
}

impl FromStr for Nameserver {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let alone = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
        alone.or_else(|_| text.parse()).ok().filter(|address| address.port() != 0).map(Self).ok_or_else(|| {
            Unreadable::new("is not the address of a DNS server", "write `10.0.0.53` or `10.0.0.53:5353`")
        })
    }
}

impl fmt::Display for Nameserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.port() == 53 { self.0.ip().fmt(f) } else { self.0.fmt(f) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Literal>(text: &str) -> String {
        text.parse::<T>().map_or_else(|wrong| wrong.to_string(), |value| value.to_string())
    }

    #[test]
    fn endpoints() {
        for (text, wanted) in [
            ("a:1   weight=2", "a:1 weight=2"),
            ("a:1 weight=1 tier=0", "a:1"),
            ("10.0.0.1:80 tier=2 weight=3", "10.0.0.1:80 weight=3 tier=2"),
            ("srv:_HTTP._tcp.Api tier=1", "srv:_http._tcp.api tier=1"),
            ("file:/etc/pool", "file:/etc/pool"),
            ("https://A.b weight=2", "https://a.b:443 weight=2"),
            ("https://[::1]/", "https://[::1]:443"),
            ("https://a:1/x", "has a path: write `https://a:1`"),
            ("unix:/run/a", "unix:/run/a"),
            (
                "a:1 wait=1",
                "has `wait=1` after the address: only `weight=N`, `tier=N`, `requests=N`, `connections=N` and `server=N` may follow it",
            ),
            ("10.0.0.1:443  server=7 tier=1", "10.0.0.1:443 tier=1 server=7"),
            ("10.0.0.1:443 server=65536", "has the number `server=65536`: write a whole number from 0 to 65535"),
            (
                "a:443 server=7",
                "has `server=7`, and is not one address: leave it out, or write an address: a number is one machine's",
            ),
            ("a:1 connections=8  requests=5 weight=2", "a:1 weight=2 requests=5 connections=8"),
            ("file:/etc/pool requests=5", "file:/etc/pool requests=5"),
            ("a:1 requests=0", "has the limit `requests=0`: write a whole number from 1, or leave it out"),
            ("a:1 tier=256", "has the tier `256`: write a whole number from 0 (asked first) to 255"),
            ("srv:_http._tcp.a:80", "names no SRV records: write `srv:_http._tcp.name`: the port is in the records"),
            ("file:pool", "is not an absolute path: write `file:/etc/penstock/pool.txt`"),
            (
                "file:/pool weight=2",
                "has `weight=2`, and weights of its own: leave it out: records and lines have weights themselves",
            ),
        ] {
            assert_eq!(read::<Endpoint>(text), wanted, "{text}");
        }
        assert!(read::<Endpoint>("a:1 weight=-1").contains("whole number from 0"));
    }

    #[test]
    fn nameservers() {
        for (text, wanted) in [
            ("10.0.0.53", "10.0.0.53"),
            ("10.0.0.53:53", "10.0.0.53"),
            ("127.0.0.1:5353", "127.0.0.1:5353"),
            ("fd00::53", "fd00::53"),
            ("[::1]:5353", "[::1]:5353"),
        ] {
            assert_eq!(read::<Nameserver>(text), wanted);
        }
        for text in ["dns.name", "10.0.0.53:0", "", "10.0.0.53:x"] {
            assert!(read::<Nameserver>(text).starts_with("is not the address of a DNS server"), "{text}");
        }
    }
}
