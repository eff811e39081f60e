//! Addresses as operators write them: where to listen, where to go, whom to trust.

use super::literal::{Literal, Unreadable};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

/// Where a connection can be made to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    Tcp { host: Host, port: u16 },
    Unix(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    Ip(IpAddr),
    /// Lower case.
    Name(Box<str>),
}

/// Where connections are accepted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bind {
    /// `:8080`: every address of the host, both families; IPv4 alone where the host has no IPv6.
    Any {
        port: u16,
    },
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Bind {
    /// A socket there can take what comes by a family.
    #[must_use]
    pub fn takes(&self, is_v4: bool) -> bool {
        match self {
            Self::Any { .. } => true,
            Self::Tcp(inet) => inet.is_ipv4() == is_v4,
            Self::Unix(_) => false,
        }
    }

    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Any { port } => Some(*port),
            Self::Tcp(inet) => Some(inet.port()),
            Self::Unix(_) => None,
        }
    }
}

/// A network: `10.0.0.0/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    network: IpAddr,
    bits: u8,
}

impl Cidr {
    /// An IPv4 address inside an IPv6 one (`::ffff:a.b.c.d`, as dual-stack sockets give them) counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = mask(u32::MAX.into(), 32, self.bits) as u32;
                u32::from(address) & mask == u32::from(network)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                u128::from(address) & mask(u128::MAX, 128, self.bits) == u128::from(network)
            }
            _ => false,
        }
    }
}

impl Cidr {
    /// Its first address.
    #[must_use]
    pub const fn network(&self) -> IpAddr {
        self.network
    }

    /// The length of its prefix.
    #[must_use]
    pub const fn bits(&self) -> u8 {
        self.bits
    }

    /// Whether all of `other` is in it.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.bits <= other.bits && self.contains(other.network)
    }
}

/// A list of networks: one a line, `#` before a comment.
///
/// # Errors
/// The first line that is none, by its number.
pub fn read_networks(text: &str) -> Result<Vec<Cidr>, (usize, Unreadable)> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let numbered = (1..).zip(lines).filter(|(_, line)| !line.is_empty());
    numbered.map(|(number, line)| line.parse().map_err(|wrong| (number, wrong))).collect()
}

fn mask(all: u128, width: u8, bits: u8) -> u128 {
    if bits == 0 { 0 } else { all & !((1_u128 << (width - bits)) - 1) }
}

impl Literal for Cidr {
    const FORMAT: &'static str = "network";
    const FORM: &'static str = "a network or address: `10.0.0.0/8`, `fd00::/8`, `192.0.2.1`";
}

impl FromStr for Cidr {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let Ok(address) = address.parse::<IpAddr>() else {
            return Err(Unreadable::new("is not a network", "write `10.0.0.0/8`, `fd00::/8`, or one address"));
        };
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits.map(str::parse::<u8>) {
            None => width,
            Some(Ok(bits)) if bits <= width => bits,
            Some(_) => {
                return Err(Unreadable::new(
                    "has no valid prefix length",
                    format!("write `/0` to `/{width}` after the address"),
                ));
            }
        };
        let network: IpAddr = match address {
            IpAddr::V4(v4) => Ipv4Addr::from(u32::from(v4) & mask(u32::MAX.into(), 32, bits) as u32).into(),
            IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) & mask(u128::MAX, 128, bits)).into(),
        };
        if network != address {
            return Err(Unreadable::new(
                "has bits set beyond its prefix",
                format!("write `{network}/{bits}` for the network, or `{address}` for the one address"),
            ));
        }
        Ok(Self { network, bits })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = if self.network.is_ipv4() { 32 } else { 128 };
        if self.bits == width { self.network.fmt(f) } else { write!(f, "{}/{}", self.network, self.bits) }
    }
}

impl Literal for Address {
    const FORMAT: &'static str = "address";
    const FORM: &'static str = "an address: `10.0.0.1:80`, `[::1]:80`, `host.name:80`, `unix:/path`";
}

impl FromStr for Address {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix_path(path).map(Self::Unix);
        }
        no_scheme(text)?;
        if let Some(port) = text.strip_prefix(':').filter(|rest| !rest.contains(':')) {
            return Err(Unreadable::new("has no host", format!("write `127.0.0.1:{port}` or `host.name:{port}`")));
        }
        let (host, port) = split_port(text)?;
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(Self::Tcp { host: Host::Ip(ip), port });
        }
        if !is_host_name(host) {
            return Err(Unreadable::new(
                "is not an address",
                "write `10.0.0.1:80`, `[::1]:80`, `host.name:80`, or `unix:/path`",
            ));
        }
        if host.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
            return Err(Unreadable::new(
                "is not a valid IPv4 address",
                "write four numbers from 0 to 255: `10.0.0.1:80`",
            ));
        }
        Ok(Self::Tcp { host: Host::Name(host.to_ascii_lowercase().into()), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl Literal for Bind {
    const FORMAT: &'static str = "listen-address";
    const FORM: &'static str = "where to listen: `:8080`, `127.0.0.1:8080`, `[::1]:8080`, `unix:/path`";
}

impl FromStr for Bind {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix_path(path).map(Self::Unix);
        }
        no_scheme(text)?;
        let (host, port) = split_port(text)?;
        match (host, host.parse::<IpAddr>()) {
            ("" | "*", _) => Ok(Self::Any { port }),
            (_, Ok(ip)) => Ok(Self::Tcp(SocketAddr::new(ip, port))),
            ("localhost", _) => {
                Err(Unreadable::new("is a name", format!("write `127.0.0.1:{port}` or `[::1]:{port}`")))
            }
            _ => Err(Unreadable::new(
                "is not an address of this host",
                format!("write `:{port}`, `127.0.0.1:{port}`, `[::1]:{port}`, or `unix:/path`"),
            )),
        }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any { port } => write!(f, ":{port}"),
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

fn no_scheme(text: &str) -> Result<(), Unreadable> {
    match text.split_once("://") {
        Some((_, rest)) => Err(Unreadable::new("has a scheme", format!("write `{}`", rest.trim_end_matches('/')))),
        None => Ok(()),
    }
}

fn unix_path(path: &str) -> Result<PathBuf, Unreadable> {
    // sun_path is 108 bytes with its NUL (unix(7)).
    match path.len() {
        0 => Err(Unreadable::new("has no path", "write `unix:/run/app.sock`")),
        1..108 if !path.contains('\0') => Ok(PathBuf::from(path)),
        _ => Err(Unreadable::new("has a path that does not fit a socket", "a socket's path has at most 107 bytes")),
    }
}

/// `host:port` or `[v6]:port`, the host without brackets.
fn split_port(text: &str) -> Result<(&str, u16), Unreadable> {
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(Unreadable::new(
            "has no port",
            format!("write `[{text}]:80`: an IPv6 address before a port stands in brackets"),
        ));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') || host.is_empty() => (host, port),
        _ if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() => {
            return Err(Unreadable::new("is a bare number", format!("write `:{text}` for a port on every address")));
        }
        _ if text.is_empty() => return Err(Unreadable::new("is empty", "write `host:port`")),
        _ => return Err(Unreadable::new("has no port", format!("write `{text}:80`"))),
    };
    let Ok(port @ 1..) = port.parse::<u16>() else {
        return Err(Unreadable::new(format!("has the port `{port}`"), "write a port from 1 to 65535"));
    };
    let host = match host.strip_prefix('[').map(|inner| inner.strip_suffix(']')) {
        None if host.contains(':') => {
            return Err(Unreadable::new("has an IPv6 address without brackets", format!("write `[{host}]:{port}`")));
        }
        None => host,
        Some(Some(inner)) if inner.parse::<Ipv6Addr>().is_ok() => inner,
        Some(_) => {
            return Err(Unreadable::new("has no IPv6 address in its brackets", format!("write `[::1]:{port}`")));
        }
    };
    Ok((host, port))
}

/// Labels of letters, digits, `-` and (as service names have it) `_`; RFC 1123 §2.1.
pub(super) fn is_host_name(name: &str) -> bool {
    let label_is_good = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 253 && name.strip_suffix('.').unwrap_or(name).split('.').all(label_is_good)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Literal>(text: &str) -> String {
        text.parse::<T>().map_or_else(|wrong| wrong.to_string(), |value| value.to_string())
    }

    #[test]
    fn addresses() {
        let good = ["10.0.0.1:80", "[::1]:80", "host.name:80", "unix:/run/a.sock", "_http._tcp.a:1"];
        for text in good {
            assert_eq!(read::<Address>(text), text);
        }
        assert_eq!(read::<Address>("Host.Name:80"), "host.name:80");
        let bad = [
            ("10.0.0.1", "has no port: write `10.0.0.1:80`"),
            ("::1", "has no port: write `[::1]:80`: an IPv6 address before a port stands in brackets"),
            ("fe80::1:80:x", "has the port `x`: write a port from 1 to 65535"),
            ("2001:db8::g:80", "has an IPv6 address without brackets: write `[2001:db8::g]:80`"),
            ("host:99999", "has the port `99999`: write a port from 1 to 65535"),
            ("host:0", "has the port `0`: write a port from 1 to 65535"),
            (":80", "has no host: write `127.0.0.1:80` or `host.name:80`"),
            ("http://a:80/", "has a scheme: write `a:80`"),
            ("300.0.0.1:80", "is not a valid IPv4 address: write four numbers from 0 to 255: `10.0.0.1:80`"),
            ("unix:", "has no path: write `unix:/run/app.sock`"),
            ("", "is empty: write `host:port`"),
        ];
        for (text, wanted) in bad {
            assert_eq!(read::<Address>(text), wanted, "{text}");
        }
    }

    #[test]
    fn binds() {
        for text in [":8080", "127.0.0.1:8080", "[::1]:80", "[::]:80", "unix:/a"] {
            assert_eq!(read::<Bind>(text), text);
        }
        assert_eq!(read::<Bind>("8080"), "is a bare number: write `:8080` for a port on every address");
        assert_eq!(read::<Bind>("localhost:1"), "is a name: write `127.0.0.1:1` or `[::1]:1`");
        assert!(read::<Bind>("a.b:1").starts_with("is not an address of this host"));
    }

    #[test]
    fn networks() {
        let within = |network: &str, address: &str| network.parse::<Cidr>().unwrap().contains(address.parse().unwrap());
        assert!(within("10.0.0.0/8", "10.1.2.3") && !within("10.0.0.0/8", "11.1.2.3"));
        assert!(within("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(within("0.0.0.0/0", "1.2.3.4") && !within("0.0.0.0/0", "::1"));
        assert!(within("::/0", "::1") && within("fd00::/8", "fd12::1") && within("192.0.2.1", "192.0.2.1"));
        assert_eq!(read::<Cidr>("10.0.0.0/8"), "10.0.0.0/8");
        assert!(read::<Cidr>("10.0.0.1/8").contains("write `10.0.0.0/8` for the network"));
        assert!(read::<Cidr>("10.0.0.0/33").contains("`/32`"));
    }
}
