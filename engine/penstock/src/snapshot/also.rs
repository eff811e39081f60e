//! Further addresses of a listener: networks and ports that nobody need bind.

use std::fmt;
use std::str::FromStr;

use super::address::Cidr;
use super::literal::{Literal, Unreadable};
use crate::limits;

/// A network and a range of ports: `192.0.2.0/24:443`, `[2001:db8::/64]:8000-8999`, `192.0.2.1:*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Also {
    pub network: Cidr,
    /// Both included.
    pub first: u16,
    pub last: u16,
}

impl Also {
    /// Each of its ports by itself, where they are few enough for datagrams: at the most [`limits::LISTEN_ALSO_PORTS_MAX`]. Else none.
    pub fn for_datagrams(self) -> impl Iterator<Item = Self> {
        let few = usize::from(self.last - self.first) < limits::LISTEN_ALSO_PORTS_MAX;
        (self.first..=self.last).filter(move |_| few).map(move |port| Self { first: port, last: port, ..self })
    }
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

    const DATAGRAMS: &str = "[[listen]]\nname = \"a\"\naddr = [\"10.0.0.1:53\", \"[2001:db8::1]:53\"]\nprotocol = \"udp\"\npool = \"p\"\n\
         [[pool]]\nname = \"p\"\nendpoints = [\"10.0.0.1:80\"]\n";

    fn with(also: &[&str]) -> Result<crate::snapshot::Snapshot, String> {
        let also = format!("pool = \"p\"\nalso = {also:?}\n[[pool]]");
        let text = DATAGRAMS.replacen("pool = \"p\"\n[[pool]]", &also, 1);
        crate::snapshot::read("edge.toml", &text).map(|read| read.snapshot).map_err(|report| report.render())
    }

    /// One for each family and port that it has not bound, wherever they are wanted.
    #[test]
    fn a_port_of_datagrams_is_a_socket() {
        let ports = |also: &[&str]| with(also).unwrap().listeners[0].further_ports();
        let at = |places: &[&str]| places.iter().map(|place| place.parse().unwrap()).collect::<Vec<_>>();
        assert_eq!(ports(&["192.0.2.0/24:53", "[2001:db8:1::/64]:53"]), at(&[]));
        let also = ["192.0.2.0/24:54", "198.51.100.0/24:54", "192.0.2.7:53-55", "[2001:db8:1::/64]:54"];
        assert_eq!(ports(&also), at(&["192.0.2.0:54", "192.0.2.7:55", "[2001:db8:1::]:54"]));
    }

    #[test]
    fn so_many_ports_of_datagrams_and_no_more() {
        assert!(with(&["192.0.2.0/24:1001-1016"]).is_ok());
        let refused = with(&["192.0.2.0/24:53", "192.0.2.0/24:1001-1017"]).unwrap_err();
        for wanted in ["192.0.2.0/24:1001-1017` cannot be answered", "16 are the most", "edge.toml:6:28"] {
            assert!(refused.contains(wanted), "{wanted}: {refused}");
        }
        let entries: Vec<String> = (0..5).map(|at| format!("192.0.2.{at}:1001-1016")).collect();
        let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
        assert!(with(&entries[..4]).is_ok());
        let refused = with(&entries).unwrap_err();
        assert!(refused.contains("80 networks and ports of them are too many for datagrams"), "{refused}");
    }

    /// Two that bound the same port at the same address would be one group.
    #[test]
    fn a_socket_of_another_listener_is_not_shared() {
        let two = DATAGRAMS.replace("[[pool]]", "also = \"192.0.2.0/24:54\"\n[[listen]]\nname = \"b\"\naddr = \"192.0.2.0:54\"\nprotocol = \"udp\"\npool = \"p\"\n[[pool]]");
        let refused = crate::snapshot::read("edge.toml", &two).unwrap_err().render();
        assert!(refused.contains("the address `192.0.2.0:54` is there twice"), "{refused}");
        // HTTP/3 has a socket of UDP at its own address.
        let http3 = "name = \"b\"\naddr = \"10.0.0.1:53\"\ntls = { cert = \"c\", key = \"k\" }\n[[pool]]";
        let two = DATAGRAMS.replace("[[pool]]", &format!("[[listen]]\n{http3}"));
        let refused = crate::snapshot::read("edge.toml", &two).unwrap_err().render();
        assert!(refused.contains("the address `10.0.0.1:53` is there twice"), "{refused}");
    }

    /// All are told the same: it is said where it is true of whichever they came by.
    #[test]
    fn http3_is_advertised_where_ports_have_one_number() {
        let alternative = |also: &str| {
            let text = format!(
                "[[listen]]\nname = \"a\"\naddr = \":443\"\nalso = {also}\ntls = {{ cert = \"c\", key = \"k\" }}\n\
                 [[pool]]\nname = \"p\"\nendpoints = [\"10.0.0.1:80\"]\n[[route]]\npool = \"p\"\n"
            );
            let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            let files = |name: &str| match name {
                "c" => Ok(identity.cert.pem().into_bytes()),
                _ => Ok(identity.signing_key.serialize_pem().into_bytes()),
            };
            crate::snapshot::read_with("", &text, &files).unwrap().snapshot.listeners[0].alternative()
        };
        for (also, wanted) in [
            ("[]", true),
            ("\"192.0.2.0/24:443\"", true),
            ("[\"192.0.2.0/24:443\", \"[2001:db8::/64]:443\"]", true),
            ("\"192.0.2.0/24:443-444\"", false),
            ("[\"192.0.2.0/24:443\", \"192.0.2.0/24:*\"]", false),
        ] {
            assert_eq!(alternative(also).as_deref(), wanted.then_some("h3=\":443\"; ma=86400"), "{also}");
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
