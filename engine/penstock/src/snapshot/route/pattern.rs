//! Hosts, paths and methods as a route names them.

use super::normal;
use crate::limits;
use crate::snapshot::address::is_host_name;
use crate::snapshot::literal::{Literal, Unreadable, is_token};
use std::{fmt, str::FromStr};

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum HostPattern {
    #[default]
    Any,
    /// Lower case, no trailing dot.
    Exact(Box<str>),
    /// `*.example.net` as `example.net`: everything below it, not itself.
    Below(Box<str>),
}

/// In normal form, as every path that it is compared with (see [`normal`](super::normal)).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PathPattern {
    Exact(Box<str>),
    /// `/v1/*` as `/v1`: itself, and everything below it. Everything is the empty one.
    Prefix(Box<str>),
    /// `/users/{id}/posts/{rest...}`
    Template(Template),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Template {
    pub(super) segments: Box<[Segment]>,
    /// The name of what follows the segments, if anything may.
    pub(super) rest: Option<Box<str>>,
}

/// One segment of a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Segment {
    Text(Box<str>),
    /// Any one that is not empty, by this name.
    Capture(Box<str>),
}

/// A method's name (RFC 9110 §9.1): case counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Method(pub Box<str>);

impl HostPattern {
    /// `host` in small letters, without a dot at its end.
    pub(in crate::snapshot) fn takes(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => host == &**name,
            Self::Below(name) => host.strip_suffix(&**name).is_some_and(|rest| rest.ends_with('.')),
        }
    }
}

impl PathPattern {
    /// The names of its captures.
    pub(in crate::snapshot) fn capture_names(&self) -> impl Iterator<Item = &str> {
        let (segments, rest) = match self {
            Self::Template(template) => (&*template.segments, template.rest.as_deref()),
            Self::Exact(_) | Self::Prefix(_) => (&[][..], None),
        };
        let named = segments.iter().filter_map(|segment| match segment {
            Segment::Capture(name) => Some(&**name),
            Segment::Text(_) => None,
        });
        named.chain(rest)
    }

    pub(in crate::snapshot) fn everything() -> Self {
        Self::Prefix("".into())
    }

    pub(in crate::snapshot) fn is_everything(&self) -> bool {
        matches!(self, Self::Prefix(prefix) if prefix.is_empty())
    }

    /// Whether it has a capture of that name.
    pub(in crate::snapshot) fn names(&self, name: &str) -> bool {
        self.capture_names().any(|known| known == name)
    }

    /// What a capture of that name has caught of a path that this pattern matches; nothing if there is none.
    #[must_use]
    pub fn capture<'a>(&self, name: &str, path: &'a [u8]) -> &'a [u8] {
        let Self::Template(template) = self else { return &[] };
        let mut rest = path.strip_prefix(b"/");
        for segment in &template.segments {
            let Some((here, next)) = rest.map(first_segment) else { return &[] };
            if matches!(segment, Segment::Capture(capture) if &**capture == name) {
                return here;
            }
            rest = next;
        }
        rest.filter(|_| template.rest.as_deref() == Some(name)).unwrap_or(&[])
    }

    /// What `*` stands for in a path that this pattern matches: nothing, or `/` and more.
    #[must_use]
    pub fn covered<'a>(&self, path: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Prefix(prefix) => path.get(prefix.len()..).unwrap_or(&[]),
            Self::Exact(_) | Self::Template(_) => &[],
        }
    }
}

/// The first segment of what follows a slash, and what follows the next slash, if there is one.
pub(super) fn first_segment(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    match path.iter().position(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], Some(&path[slash + 1..])),
        None => (path, None),
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
    const FORM: &'static str =
        "a path: `/login`, `/v1/*`, or with names for segments and for the rest: `/users/{id}/posts/{rest...}`";
}

impl FromStr for PathPattern {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        if !text.starts_with('/') {
            return Err(Unreadable::new("does not begin with `/`", format!("write `/{text}`")));
        }
        if let Some(odd) = text.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '?' | '#')) {
            let advice = if odd.is_ascii_graphic() {
                "a route matches the path without its query; for that there is `query`"
            } else {
                "write it percent-encoded"
            };
            return Err(Unreadable::new(format!("has `{odd}` in it"), advice));
        }
        let mut normal = Vec::new();
        normal::normalise(text.as_bytes(), &mut normal);
        if normal != text.as_bytes() {
            let instead = String::from_utf8_lossy(&normal).into_owned();
            return Err(Unreadable::new("is not in normal form", format!("write `{instead}`")));
        }
        if text.matches('/').count() > limits::PATH_SEGMENTS_MAX {
            let advice = format!("at most {} are supported", limits::PATH_SEGMENTS_MAX);
            return Err(Unreadable::new("has too many segments", advice));
        }
        if text.contains(['{', '}']) {
            return template(text).map(Self::Template);
        }
        match text.strip_suffix("/*") {
            Some(prefix) if !prefix.contains('*') => Ok(Self::Prefix(prefix.into())),
            None if !text.contains('*') => Ok(Self::Exact(text.into())),
            _ => Err(Unreadable::new("has `*` in the middle of it", "a `*` stands alone after the last `/`: `/v1/*`")),
        }
    }
}

fn template(text: &str) -> Result<Template, Unreadable> {
    let form = |why: String| Unreadable::new(why, "a name stands for a whole segment: `/users/{id}/{rest...}`");
    if text.contains('*') {
        return Err(Unreadable::new("has a `*` beside a name", "write `{rest...}` for everything that follows"));
    }
    let (mut segments, mut rest, mut names) = (Vec::new(), None, Vec::new());
    for part in text[1..].split('/') {
        if rest.is_some() {
            return Err(form("goes on after the rest".into()));
        }
        let inner = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
        let Some(inner) = inner else {
            if part.contains(['{', '}']) {
                return Err(form(format!("has `{part}` for a segment")));
            }
            segments.push(Segment::Text(part.into()));
            continue;
        };
        let name = inner.strip_suffix("...").unwrap_or(inner);
        if !is_capture_name(name) {
            return Err(form(format!("has the name `{name}`")));
        }
        if names.contains(&name) {
            return Err(Unreadable::new(format!("has `{{{name}}}` twice"), "give them different names"));
        }
        names.push(name);
        if inner == name {
            segments.push(Segment::Capture(name.into()));
        } else {
            rest = Some(name.into());
        }
    }
    Ok(Template { segments: segments.into(), rest })
}

/// Letters, digits and `_`, so that it can be told from the names that are ours (`client.ip`).
fn is_capture_name(name: &str) -> bool {
    let taken = super::super::rewrite::is_taken(name);
    !name.is_empty() && !taken && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(path) => f.write_str(path),
            Self::Prefix(prefix) => write!(f, "{prefix}/*"),
            Self::Template(template) => {
                for segment in &template.segments {
                    match segment {
                        Segment::Text(text) => write!(f, "/{text}")?,
                        Segment::Capture(name) => write!(f, "/{{{name}}}")?,
                    }
                }
                template.rest.as_ref().map_or(Ok(()), |rest| write!(f, "/{{{rest}...}}"))
            }
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
