//! Which route a request takes.
//!
//! The most specific route wins, wherever it stands in the file: by host (exact, then the longest wildcard, then any),
//! then by path (exact, then the longest prefix), then by method (named, then any). What the best host has no path for,
//! the next best may have. A miss is an answer: `None`, which is 404.
//!
//! A look-up allocates nothing and takes a binary search a level: hosts and paths are sorted once, when the snapshot is
//! compiled.

use super::{
    address::is_host_name,
    literal::{Literal, Unreadable, is_token},
};
use std::{cmp::Ordering, fmt, str::FromStr};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u16);

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum HostPattern {
    #[default]
    Any,
    /// Lower case, no trailing dot.
    Exact(Box<str>),
    /// `*.example.net` as `example.net`: everything below it, not itself.
    Below(Box<str>),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PathPattern {
    Exact(Box<str>),
    /// `/v1/*` as `/v1`: itself, and everything below it. Everything is the empty one.
    Prefix(Box<str>),
}

/// A method's name (RFC 9110 §9.1): case counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Method(pub Box<str>);

impl PathPattern {
    pub(super) fn everything() -> Self {
        Self::Prefix("".into())
    }
}

impl Literal for HostPattern {
    const FORMAT: &'static str = "host-pattern";
    const FORM: &'static str = "a host: `api.example.net`, `*.example.net`, `*`";
}

impl FromStr for HostPattern {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some((_, rest)) = text.split_once("://") {
            let host = rest.split(['/', ':']).next().unwrap_or_default();
            return Err(Unreadable::new("is a URL", format!("write the host alone: `{host}`")));
        }
        let (name, below) = text.strip_prefix("*.").map_or((text, false), |name| (name, true));
        if let Some((host, path)) = name.split_once('/') {
            return Err(Unreadable::new("has a path", format!("write host = \"{host}\", path = \"/{path}\"")));
        }
        let bracketed = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        if let Some(ip) = bracketed.and_then(|inner| inner.parse::<std::net::Ipv6Addr>().ok())
            && !below
        {
            return Ok(Self::Exact(format!("[{ip}]").into()));
        }
        if let Some((host, port)) = name.rsplit_once(':')
            && port.bytes().all(|b| b.is_ascii_digit())
        {
            return Err(Unreadable::new(
                "has a port",
                format!("write `{host}`: a route matches the host on every port"),
            ));
        }
        if !is_host_name(name) {
            return Err(Unreadable::new("is not a host", "write `api.example.net`, `*.example.net`, or `*`"));
        }
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase().into();
        Ok(if below { Self::Below(name) } else { Self::Exact(name) })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*.{name}"),
        }
    }
}

impl Literal for PathPattern {
    const FORMAT: &'static str = "path-pattern";
    const FORM: &'static str = "a path: `/login`, `/v1/*`";
}

impl FromStr for PathPattern {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        if !text.starts_with('/') {
            return Err(Unreadable::new("does not begin with `/`", format!("write `/{text}`")));
        }
        if let Some(odd) = text.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '?' | '#')) {
            let advice = if odd.is_ascii_graphic() {
                "a route matches the path alone, without its query"
            } else {
                "write it percent-encoded"
            };
            return Err(Unreadable::new(format!("has `{odd}` in it"), advice));
        }
        match text.strip_suffix("/*") {
            Some(prefix) if !prefix.contains('*') => Ok(Self::Prefix(prefix.into())),
            None if !text.contains('*') => Ok(Self::Exact(text.into())),
            _ => Err(Unreadable::new("has `*` in the middle of it", "a `*` stands alone after the last `/`: `/v1/*`")),
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => f.write_str(path),
            Self::Prefix(prefix) => write!(f, "{prefix}/*"),
        }
    }
}

impl Literal for Method {
    const FORMAT: &'static str = "method";
    const FORM: &'static str = "a method: `GET`";
}

impl FromStr for Method {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        if !is_token(text) {
            return Err(Unreadable::new("is not a method", "write a name like `GET`"));
        }
        if text.bytes().any(|b| b.is_ascii_lowercase()) {
            return Err(Unreadable::new(
                "has small letters",
                format!("methods are written in capitals: `{}`", text.to_ascii_uppercase()),
            ));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All routes, ready to be looked up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteTable {
    /// Sorted by name.
    exact: Box<[(Box<str>, Paths)]>,
    /// Sorted by the name that they are below.
    below: Box<[(Box<str>, Paths)]>,
    any: Paths,
}

/// The paths of one host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Paths {
    /// Sorted.
    exact: Box<[(Box<str>, Methods)]>,
    /// Sorted.
    prefixes: Box<[Prefix]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Prefix {
    path: Box<str>,
    methods: Methods,
    /// The longest other prefix that this one begins with: where to go on when this one does not match. All prefixes of a
    /// path lie on one such chain, which begins at the greatest that sorts before the path.
    parent: Option<u32>,
}

/// The routes of one host and path: those for named methods, and the one for the rest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Methods {
    named: Box<[(Method, RouteId)]>,
    any: Option<RouteId>,
}

/// One rule: a host, a path, perhaps a method, and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub host: HostPattern,
    pub path: PathPattern,
    pub method: Option<Method>,
    pub route: RouteId,
}

impl RouteTable {
    /// Of two rules for the same host, path and method the first one stays.
    #[must_use]
    pub fn new(mut rules: Vec<Rule>) -> Self {
        rules.sort_by(|a, b| (&a.host, &a.path).cmp(&(&b.host, &b.path)));
        let (mut exact, mut below, mut any) = (Vec::new(), Vec::new(), Paths::default());
        for rules in rules.chunk_by(|a, b| a.host == b.host) {
            let paths = Paths::new(rules);
            match &rules[0].host {
                HostPattern::Any => any = paths,
                HostPattern::Exact(name) => exact.push((name.clone(), paths)),
                HostPattern::Below(name) => below.push((name.clone(), paths)),
            }
        }
        Self { exact: exact.into(), below: below.into(), any }
    }

    /// The route of a request, or `None` (404). `host` without its port, any case; `path` without its query.
    #[must_use]
    pub fn find(&self, host: &[u8], path: &[u8], method: &[u8]) -> Option<RouteId> {
        let host = host.strip_suffix(b".").unwrap_or(host);
        let by_name = |hosts: &[(Box<str>, Paths)], name: &[u8]| {
            let at = hosts.binary_search_by(|(known, _)| compare_ignoring_case(known.as_bytes(), name)).ok()?;
            hosts[at].1.find(path, method)
        };
        if let Some(route) = by_name(&self.exact, host) {
            return Some(route);
        }
        if !self.below.is_empty() {
            let mut rest = host;
            while let Some(dot) = rest.iter().position(|&b| b == b'.') {
                rest = &rest[dot + 1..];
                if let Some(route) = by_name(&self.below, rest) {
                    return Some(route);
                }
            }
        }
        self.any.find(path, method)
    }
}

impl Paths {
    /// From rules of one host, sorted by path.
    fn new(rules: &[Rule]) -> Self {
        let (mut exact, mut prefixes) = (Vec::new(), Vec::<Prefix>::new());
        for rules in rules.chunk_by(|a, b| a.path == b.path) {
            let methods = Methods::new(rules);
            match &rules[0].path {
                PathPattern::Exact(path) => exact.push((path.clone(), methods)),
                PathPattern::Prefix(path) => {
                    let mut parent = prefixes.len().checked_sub(1).map(|at| at as u32);
                    while let Some(at) = parent
                        && !path.starts_with(&*prefixes[at as usize].path)
                    {
                        parent = prefixes[at as usize].parent;
                    }
                    prefixes.push(Prefix { path: path.clone(), methods, parent });
                }
            }
        }
        Self { exact: exact.into(), prefixes: prefixes.into() }
    }

    fn find(&self, path: &[u8], method: &[u8]) -> Option<RouteId> {
        if let Ok(at) = self.exact.binary_search_by(|(known, _)| known.as_bytes().cmp(path))
            && let Some(route) = self.exact[at].1.find(method)
        {
            return Some(route);
        }
        let mut candidate = self.prefixes.partition_point(|prefix| prefix.path.as_bytes() <= path).checked_sub(1);
        while let Some(at) = candidate {
            let prefix = &self.prefixes[at];
            if prefix.covers(path)
                && let Some(route) = prefix.methods.find(method)
            {
                return Some(route);
            }
            candidate = prefix.parent.map(|at| at as usize);
        }
        None
    }
}

impl Prefix {
    /// `/v1` covers `/v1` and `/v1/x`, not `/v10`; the empty prefix covers `*` too.
    fn covers(&self, path: &[u8]) -> bool {
        self.path.is_empty()
            || path.strip_prefix(self.path.as_bytes()).is_some_and(|rest| rest.first().is_none_or(|&b| b == b'/'))
    }
}

impl Methods {
    fn new(rules: &[Rule]) -> Self {
        let mut methods = Self::default();
        let mut named: Vec<(Method, RouteId)> = Vec::new();
        for rule in rules {
            match &rule.method {
                None => methods.any = methods.any.or(Some(rule.route)),
                Some(method) if named.iter().any(|(known, _)| known == method) => {}
                Some(method) => named.push((method.clone(), rule.route)),
            }
        }
        methods.named = named.into();
        methods
    }

    fn find(&self, method: &[u8]) -> Option<RouteId> {
        let named = self.named.iter().find(|(known, _)| known.0.as_bytes() == method);
        named.map(|(_, route)| *route).or(self.any)
    }
}

/// `known` is lower case already.
fn compare_ignoring_case(known: &[u8], name: &[u8]) -> Ordering {
    known.iter().copied().cmp(name.iter().map(u8::to_ascii_lowercase))
}
