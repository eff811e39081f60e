//! Further addresses of a listener: networks and ports that nobody need bind.

use std::fmt;
use std::str::FromStr;

use super::address::Cidr;
use super::literal::{Literal, Unreadable};

/// A network and a range of ports: `192.0.2.0/24:443`, `[2001:db8::/64]:8000-8999`, `192.0.2.1:*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Also {
    pub network: Cidr,
    /// Both included.
    pub first: u16,
    pub last: u16,
}

impl Literal for Also {
    const FORMAT: &'static str = "network and ports";
    const FORM: &'static str =
        "a network and its ports: `192.0.2.0/24:443`, `[2001:db8::/64]:8000-8999`, `192.0.2.1:*`";
}

impl FromStr for Also {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let unreadable = |what: &str| Unreadable::new(what, "write `192.0.2.0/24:443`, `[2001:db8::/64]:8000-8999`");
        let (network, ports) = text.rsplit_once(':').ok_or_else(|| unreadable("has no ports"))?;
        let bare = network.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
        if bare.is_none() && network.contains(':') {
            return Err(unreadable("has no ports, or an IPv6 network without brackets"));
        }
        let (first, last) = match ports {
            "*" => ("1", "65535"),
            _ => ports.split_once('-').unwrap_or((ports, ports)),
        };
        match (first.parse(), last.parse()) {
            (Ok(first @ 1..), Ok(last)) if first <= last => {
                Ok(Self { network: bare.unwrap_or(network).parse()?, first, last })
            }
            _ => Err(unreadable("has no ports from 1 to 65535")),
        }
    }
}

impl fmt::Display for Also {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { network, first, last } = self;
        if network.network().is_ipv4() {
            write!(f, "{network}:")?
        } else {
            write!(f, "[{network}]:")?
        }
        match (first, last) {
            (1, 65_535) => f.write_str("*"),
            (first, last) if first == last => write!(f, "{first}"),
            (first, last) => write!(f, "{first}-{last}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_what_was_read() {
        for text in ["192.0.2.0/24:443", "192.0.2.1:*", "[2001:db8::/64]:8000-8999", "[::1]:1"] {
            assert_eq!(text.parse::<Also>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_none_is_told() {
        for text in
            ["", "192.0.2.1", "192.0.2.1:0", "192.0.2.1:9-8", "192.0.2.1:65536", "2001:db8::1", "a:80", "1.2.3.4/33:80"]
        {
            assert!(text.parse::<Also>().is_err(), "{text}");
        }
    }

    /// The kernel looks at each of them: so many, over all listeners.
    #[test]
    fn there_are_so_many_and_no_more() {
        let with = |count: usize| {
            let networks: Vec<String> = (0..count).map(|at| format!("\"10.0.{at}.0/24:80\"")).collect();
            let (one, rest) = networks.split_at(1);
            let text = format!(
                "[[listen]]\nname = \"a\"\naddr = \":80\"\nalso = [{}]\n[[listen]]\nname = \"b\"\naddr = \":81\"\nalso = [{}]\n\
                 [[pool]]\nname = \"p\"\nendpoints = [\"10.0.0.1:80\"]\n[[route]]\npool = \"p\"\n",
                one.join(", "),
                rest.join(", ")
            );
            crate::snapshot::read("edge.toml", &text)
        };
        assert!(with(crate::limits::LISTEN_ALSO_MAX).is_ok());
        let refused = with(crate::limits::LISTEN_ALSO_MAX + 1).unwrap_err().render();
        assert!(refused.contains("65 networks are too many") && refused.contains("64 are the most"), "{refused}");
    }
}
