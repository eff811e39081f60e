//! Values that say how requests are divided among endpoints: what they are told by, how much one may get, and the secret of
//! sticky cookies.

use super::literal::{Literal, Unreadable, is_token};
use std::{fmt, path::PathBuf, str::FromStr};

/// What a request is told by: requests with the same go to the same endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HashKey {
    ClientAddress,
    /// In lower case.
    Header(Box<str>),
    Cookie(Box<str>),
    Path,
    Query(Box<str>),
    /// Path and query.
    Uri,
}

impl Literal for HashKey {
    const FORMAT: &'static str = "hash-key";
    const FORM: &'static str =
        "`client-address`, `header:NAME`, `cookie:NAME`, `path`, `query:NAME`, or `uri` (path and query)";
}

impl FromStr for HashKey {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let named = |name: &str| {
            let wrong = || Unreadable::new(format!("names `{name}`"), "write a name without spaces, `=`, `;` or `:`");
            if is_token(name) { Ok(()) } else { Err(wrong()) }
        };
        match (text, text.split_once(':')) {
            ("client-address", _) => Ok(Self::ClientAddress),
            ("path", _) => Ok(Self::Path),
            ("uri", _) => Ok(Self::Uri),
            (_, Some(("header", name))) => named(name).map(|()| Self::Header(name.to_ascii_lowercase().into())),
            (_, Some(("cookie", name))) => named(name).map(|()| Self::Cookie(name.into())),
            (_, Some(("query", name))) => named(name).map(|()| Self::Query(name.into())),
            _ => Err(Unreadable::new(
                "is nothing to tell requests by",
                "write `client-address`, `header:NAME`, `cookie:NAME`, `path`, `query:NAME` or `uri`",
            )),
        }
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientAddress => f.write_str("client-address"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Path => f.write_str("path"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Uri => f.write_str("uri"),
        }
    }
}

/// A share of a hundred or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Excess(pub u16);

impl Literal for Excess {
    const FORMAT: &'static str = "excess";
    const FORM: &'static str = "a share of a hundred or more: `140%`";
}

impl FromStr for Excess {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        match text.strip_suffix('%').map(str::parse::<u16>) {
            Some(Ok(number @ 100..=1000)) => Ok(Self(number)),
            _ => Err(Unreadable::new("is not such a share", "write a whole number from `100%` to `1000%`")),
        }
    }
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// How far an endpoint's load may be above the mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bound {
    /// What suits the policy.
    #[default]
    Auto,
    Off,
    At(Excess),
}

impl Literal for Bound {
    const FORMAT: &'static str = "bound";
    const FORM: &'static str = "`auto`, `off`, or a share of a hundred or more: `125%`";
}

impl FromStr for Bound {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            share => share.parse().map(Self::At).map_err(|_| {
                Unreadable::new("is not a bound", "write `auto`, `off`, or a whole number from `100%` to `1000%`")
            }),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Off => f.write_str("off"),
            Self::At(share) => share.fmt(f),
        }
    }
}

/// Where a secret of 32 bytes is to be read from, as 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Secret {
    File(PathBuf),
    Env(Box<str>),
}

impl Literal for Secret {
    const FORMAT: &'static str = "secret";
    const FORM: &'static str =
        "where 64 hexadecimal digits are (`openssl rand -hex 32` makes them): `file:/path`, or `env:NAME`";
}

impl FromStr for Secret {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        match text.split_once(':') {
            Some(("file", path)) if path.starts_with('/') => Ok(Self::File(path.into())),
            Some(("env", name)) if is_token(name) => Ok(Self::Env(name.into())),
            // The text may be the secret itself: it is not repeated in the advice.
            _ => Err(Unreadable::new("is not where a secret is", "write `file:/etc/penstock/secret` or `env:NAME`")),
        }
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Env(name) => write!(f, "env:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Literal>(text: &str) -> String {
        text.parse::<T>().map_or_else(|wrong| format!("{text} {wrong}"), |value| value.to_string())
    }

    #[test]
    fn hash_keys() {
        for (text, wanted) in [
            ("client-address", "client-address"),
            ("header:X-User", "header:x-user"),
            ("cookie:Session", "cookie:Session"),
            ("query:id", "query:id"),
            ("path", "path"),
            ("uri", "uri"),
        ] {
            assert_eq!(read::<HashKey>(text), wanted);
            assert_eq!(read::<HashKey>(wanted), wanted, "canonical");
        }
        assert!(read::<HashKey>("header:").contains("names ``"));
        assert!(read::<HashKey>("cookie:a=b").contains("names `a=b`"));
        assert!(read::<HashKey>("host").contains("nothing to tell requests by"));
    }

    #[test]
    fn shares_and_secrets() {
        assert_eq!(read::<Excess>("140%"), "140%");
        assert!(read::<Excess>("99%").contains("`100%` to `1000%`"));
        for text in ["auto", "off", "125%"] {
            assert_eq!(read::<Bound>(text), text);
        }
        assert!(read::<Bound>("1.25").contains("not a bound"));
        for text in ["file:/run/secret", "env:PENSTOCK_SECRET"] {
            assert_eq!(read::<Secret>(text), text);
        }
        for text in ["file:secret", "env:", "0123"] {
            assert!(read::<Secret>(text).contains("not where a secret is"), "{text}");
        }
    }
}
