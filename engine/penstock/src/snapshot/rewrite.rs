//! What a route makes of a request or an answer: paths, places and fields with names for what the request says.
//!
//! What holds here: whatever a client sends, what comes out is one path, one place or one field value. Names are filled
//! from the path's normal form, still encoded, and from a host that has been checked; a redirect's host is fixed in the
//! configuration, but for `{host}`, and no path that it gives begins with `//` (RFC 3986 §4.2: that names a host).

use super::literal::{Literal, Unreadable, is_token};
use super::route::PathPattern;
use std::{fmt, str::FromStr};

/// Text with names in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format(Box<[Piece]>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Fact(Fact),
    /// What the `*` of the route's path stands for.
    Covered,
    Capture(Box<str>),
}

/// What is known of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fact {
    ClientIp,
    Host,
    Path,
    Query,
    Method,
}

const FACTS: &[(&str, Fact)] = &[
    ("client.ip", Fact::ClientIp),
    ("host", Fact::Host),
    ("path", Fact::Path),
    ("query", Fact::Query),
    ("method", Fact::Method),
];

const NAMES: &str =
    "`{client.ip}`, `{host}`, `{path}`, `{query}`, `{method}`, or a name from the route's path; `{{` for a brace";

/// Whether a name means something already.
pub(super) fn is_taken(name: &str) -> bool {
    FACTS.iter().any(|(fact, _)| *fact == name)
}

/// What a request says, for the names.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Where the client is, as text.
    pub client: &'a [u8],
    /// Without its port.
    pub host: &'a [u8],
    /// In normal form.
    pub path: &'a [u8],
    /// Without the `?`.
    pub query: &'a [u8],
    pub method: &'a [u8],
    /// What the path was matched by.
    pub pattern: &'a PathPattern,
}

impl Format {
    fn parse(text: &str) -> Result<Self, Unreadable> {
        let (mut pieces, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            literal.push_str(before);
            if brace.starts_with("{{") || brace.starts_with("}}") {
                literal.push_str(&brace[..1]);
                rest = &brace[2..];
                continue;
            }
            let Some((name, after)) = brace.strip_prefix('{').and_then(|inner| inner.split_once('}')) else {
                return Err(Unreadable::new("has a brace alone", "write `{{` or `}}` for a brace"));
            };
            if !literal.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut literal).into()));
            }
            pieces.push(match FACTS.iter().find(|(known, _)| *known == name) {
                Some((_, fact)) => Piece::Fact(*fact),
                None if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') => {
                    Piece::Capture(name.into())
                }
                None => {
                    return Err(Unreadable::new(
                        format!("has the unknown name `{{{name}}}`"),
                        format!("write {NAMES}"),
                    ));
                }
            });
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal.into()));
        }
        Ok(Self(pieces.into()))
    }

    /// The names that must be in the route's path.
    pub(super) fn captures(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Capture(name) => Some(&**name),
            _ => None,
        })
    }

    /// It needs a route's path that ends with `*`.
    pub(super) fn has_covered(&self) -> bool {
        self.0.contains(&Piece::Covered)
    }

    /// It has something of the request's path in it.
    pub(super) fn needs_path(&self) -> bool {
        let of_path = |piece: &Piece| {
            !matches!(piece, Piece::Text(_) | Piece::Fact(Fact::ClientIp | Fact::Host | Fact::Query | Fact::Method))
        };
        self.0.iter().any(of_path)
    }

    /// Appends what it comes to.
    pub fn write(&self, facts: &Facts<'_>, out: &mut Vec<u8>) {
        for piece in &self.0 {
            out.extend_from_slice(match piece {
                Piece::Text(text) => text.as_bytes(),
                Piece::Fact(Fact::ClientIp) => facts.client,
                Piece::Fact(Fact::Host) => facts.host,
                Piece::Fact(Fact::Path) => facts.path,
                Piece::Fact(Fact::Query) => facts.query,
                Piece::Fact(Fact::Method) => facts.method,
                Piece::Covered => facts.pattern.covered(facts.path),
                Piece::Capture(name) => facts.pattern.capture(name, facts.path),
            });
        }
    }

    /// Appends the path that it comes to: it begins with one slash, never with two.
    fn write_path(&self, facts: &Facts<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        out.push(b'/');
        self.write(facts, out);
        let slashes = out[start..].iter().take_while(|&&byte| matches!(byte, b'/' | b'\\')).count();
        out.drain(start + 1..start + slashes);
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}"))?,
                Piece::Fact(fact) => {
                    let name = FACTS.iter().find(|(_, known)| known == fact).map_or("", |(name, _)| name);
                    write!(f, "{{{name}}}")?;
                }
                Piece::Covered => f.write_str("/*")?,
                Piece::Capture(name) => write!(f, "{{{name}}}")?,
            }
        }
        Ok(())
    }
}

/// The path that an endpoint gets in place of the one that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathFormat(pub(super) Format);

impl PathFormat {
    pub fn write(&self, facts: &Facts<'_>, out: &mut Vec<u8>) {
        self.0.write_path(facts, out);
    }
}

impl Literal for PathFormat {
    const FORMAT: &'static str = "path-rewrite";
    const FORM: &'static str =
        "a path: `/v2/*` (the route's path ends with `*` too), or with names: `/u/{id}/{rest}`, `/app{path}`";
}

impl FromStr for PathFormat {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        if !text.starts_with('/') || !is_place(text) || text.contains(['?', '#', '\\']) {
            return Err(Unreadable::new("is not a path", "write `/v2/*` or `/u/{id}`; the query goes on as it came"));
        }
        let (text, covered) = text.strip_suffix("/*").map_or((text, false), |text| (text, true));
        if text.contains('*') {
            return Err(Unreadable::new(
                "has `*` in the middle of it",
                "a `*` stands alone after the last `/`: `/v2/*`",
            ));
        }
        let mut format = Format::parse(text)?;
        if format.0.contains(&Piece::Fact(Fact::Query)) {
            return Err(Unreadable::new("has the query in it", "the query goes on as it came"));
        }
        if covered {
            format.0 = format.0.iter().cloned().chain([Piece::Covered]).collect();
        }
        Ok(Self(format))
    }
}

impl fmt::Display for PathFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Visible ASCII: no byte of it ends a line or a field.
fn is_place(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Where a redirect leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location(pub(super) Format);

impl Location {
    /// Appends the place, and with `query` the request's.
    pub fn write(&self, facts: &Facts<'_>, query: bool, out: &mut Vec<u8>) {
        let start = out.len();
        if self.is_path() {
            self.0.write_path(facts, out)
        } else {
            self.0.write(facts, out)
        }
        if query && !facts.query.is_empty() {
            out.push(if out[start..].contains(&b'?') { b'&' } else { b'?' });
            out.extend_from_slice(facts.query);
        }
    }

    /// It leads to the host that the request names: one that names none (HTTP/1.0) leads nowhere. `https:///x` would be read as
    /// the host `x`.
    #[must_use]
    pub fn needs_host(&self) -> bool {
        self.0.0.contains(&Piece::Fact(Fact::Host))
    }

    fn is_path(&self) -> bool {
        matches!(self.0.0.first(), Some(Piece::Text(text)) if text.starts_with('/'))
    }
}

impl Literal for Location {
    const FORMAT: &'static str = "location";
    const FORM: &'static str = "a path or an http URL, with names: `/new/{rest}`, `https://{host}{path}`";
}

impl FromStr for Location {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        if !is_place(text) || text.contains(['*', '\\']) {
            return Err(Unreadable::new("is not a place", "write `/new/{rest}` or `https://{host}{path}`"));
        }
        let format = Format::parse(text)?;
        let location = Self(format);
        if location.is_path() && !text.starts_with("//") {
            return Ok(location);
        }
        if !text.starts_with("https://") && !text.starts_with("http://") {
            return Err(Unreadable::new(
                "is neither a path nor an http URL",
                "write `/new` or `https://example.net/new`",
            ));
        }
        match location.host() {
            Host::Fixed => Ok(location),
            Host::Missing => Err(Unreadable::new("has no host", "write `https://{host}{path}`")),
            Host::Open => Err(Unreadable::new(
                "lets the request choose the host",
                "only `{host}` may stand before the path, and the path begins with `/` or `{path}`",
            )),
        }
    }
}

/// Who says which host a URL names.
enum Host {
    /// The configuration, or the request's own host.
    Fixed,
    Missing,
    /// Something else of the request.
    Open,
}

impl Location {
    fn host(&self) -> Host {
        let mut host = false;
        for (at, piece) in self.0.0.iter().enumerate() {
            match piece {
                Piece::Text(text) => {
                    let text = if at == 0 { text.split_once("://").map_or("", |(_, rest)| rest) } else { text };
                    let end = text.find(['/', '?', '#']);
                    let name = &text[..end.unwrap_or(text.len())];
                    host |= !name.is_empty();
                    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte)) {
                        return Host::Open;
                    }
                    if end.is_some() {
                        break;
                    }
                }
                Piece::Fact(Fact::Host) => host = true,
                Piece::Fact(Fact::Path) => break,
                _ => return Host::Open,
            }
        }
        if host { Host::Fixed } else { Host::Missing }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A field of a head, with names in its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderLine {
    /// As written.
    pub name: Box<str>,
    pub value: Format,
}

impl Literal for HeaderLine {
    const FORMAT: &'static str = "header-line";
    const FORM: &'static str = "a field, with names in its value: `X-Client: {client.ip}`. Names are `{client.ip}`, `{host}`, `{path}`, `{query}`, `{method}` and those of the route's path; `{{` is a brace";
}

impl FromStr for HeaderLine {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let Some((name, value)) = text.split_once(':') else {
            return Err(Unreadable::new("has no value", "write `X-Name: value`"));
        };
        if !is_token(name) {
            return Err(Unreadable::new("does not begin with a field's name", "write `X-Name: value`"));
        }
        let value = value.trim_matches([' ', '\t']);
        if !value.bytes().all(|byte| (b' '..0x7f).contains(&byte)) {
            return Err(Unreadable::new("is not a field", "write visible ASCII: `X-Name: value`"));
        }
        Ok(Self { name: name.into(), value: Format::parse(value)? })
    }
}

impl fmt::Display for HeaderLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.value)
    }
}

/// A field's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderName(pub Box<str>);

impl Literal for HeaderName {
    const FORMAT: &'static str = "header-name";
    const FORM: &'static str = "a field's name: `X-Debug`";
}

impl FromStr for HeaderName {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        if !is_token(text) {
            return Err(Unreadable::new("is not a field's name", "write one like `X-Debug`"));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts<'a>(pattern: &'a PathPattern, path: &'a str, query: &'a str) -> Facts<'a> {
        Facts {
            client: b"192.0.2.1",
            host: b"a.example",
            path: path.as_bytes(),
            query: query.as_bytes(),
            method: b"GET",
            pattern,
        }
    }

    #[test]
    fn paths() {
        let table = [
            ("/v1/*", "/v2/*", "/v1/x", "/v2/x"),
            ("/v1/*", "/v2/*", "/v1", "/v2"),
            ("/v1/*", "/v2/*", "/v1/", "/v2/"),
            ("/v1/*", "/*", "/v1", "/"),
            ("/v1/*", "/*", "/v1/x", "/x"),
            ("/*", "/app/*", "/x", "/app/x"),
            ("/*", "/app{path}", "/x/y", "/app/x/y"),
            ("/u/{id}/{rest...}", "/user/{id}/{rest}", "/u/7/a/b", "/user/7/a/b"),
            ("/u/{id}/{rest...}", "/user/{id}/{rest}", "/u/7", "/user/7/"),
            ("/u/{id}/{rest...}", "/{rest}/{id}", "/u/evil.example", "/evil.example"),
            ("/u/{id}", "/{{{id}}}", "/u/7", "/{7}"),
            ("/x", "/y", "/x", "/y"),
        ];
        for (pattern, rewrite, path, wanted) in table {
            let (pattern, rewrite) = (pattern.parse().unwrap(), rewrite.parse::<PathFormat>().unwrap());
            let mut out = Vec::new();
            rewrite.write(&facts(&pattern, path, ""), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), wanted, "{pattern} {rewrite} {path}");
        }
    }

    #[test]
    fn places() {
        let table = [
            ("https://{host}{path}", "/x", "a=b", "https://a.example/x?a=b"),
            ("https://{host}", "/x", "", "https://a.example"),
            ("https://b.example:444/{id}?from=old", "/7", "a=b", "https://b.example:444/7?from=old&a=b"),
            ("/new/{id}", "/7", "", "/new/7"),
            ("/{none}/{id}", "/evil.example", "", "/evil.example"),
        ];
        let pattern: PathPattern = "/{id}".parse().unwrap();
        for (location, path, query, wanted) in table {
            let location: Location = location.parse().unwrap();
            let mut out = Vec::new();
            location.write(&facts(&pattern, path, query), true, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), wanted, "{location} {path}");
        }
    }

    #[test]
    fn open_redirects_are_refused() {
        for text in [
            "//evil.example",
            "{path}",
            "{id}",
            "https://{id}.example.net/",
            "https://example.net{id}",
            "https://{host}{id}",
            "https://{host}.{id}/",
            "https://user@evil.example/",
            "https:///x",
            "https://{path}",
            "javascript:alert(1)",
            "/a b",
            "/a\r\nSet-Cookie: b",
            "/\\evil.example",
            "",
        ] {
            assert!(text.parse::<Location>().is_err(), "{text}");
        }
    }

    #[test]
    fn canonical_texts() {
        for text in ["/v2/*", "/u/{id}/{rest}", "/a{{b}}"] {
            assert_eq!(text.parse::<PathFormat>().unwrap().to_string(), text);
        }
        for text in ["X-Client: {client.ip}", "X-A: b {host} {{c}}", "X-Empty: "] {
            assert_eq!(text.parse::<HeaderLine>().unwrap().to_string(), text);
        }
        for text in ["X", "X-A: {b", "X-A: }", "X-A: {client.port}", "X A: b", "X-A: \u{e4}", "X-A: {}"] {
            assert!(text.parse::<HeaderLine>().is_err(), "{text}");
        }
    }
}
