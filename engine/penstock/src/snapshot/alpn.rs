//! The name of a protocol, as ALPN has it and as operators write it.

use super::literal::{Literal, Unreadable};
use std::{fmt, str::FromStr};

/// RFC 7301 §3.1. Names that are not printable ASCII are nobody's but GREASE's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AlpnName(pub Box<str>);

impl Literal for AlpnName {
    const FORMAT: &'static str = "alpn-name";
    const FORM: &'static str = "a protocol's name in ALPN: `h2`, `http/1.1`, `acme-tls/1`";
}

impl FromStr for AlpnName {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        if !(1..=255).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Unreadable::new("is no protocol's name", "write `h2`, `http/1.1`, or `acme-tls/1`"));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for AlpnName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!("acme-tls/1".parse::<AlpnName>().map(|name| name.to_string()).ok().as_deref(), Some("acme-tls/1"));
        for text in ["", "h 2", "h2\n", "ä", &"a".repeat(256)] {
            assert!(text.parse::<AlpnName>().is_err(), "{text}");
        }
    }
}
