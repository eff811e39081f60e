//! Whom and what a request addresses: the four forms of a target (RFC 9112 §3.2), and Host.
//!
//! A target in absolute form overrides Host (RFC 9112 §3.2.2), for us and for the origin: the forwarded Host is written from
//! [`Target::authority`], so that the two of them cannot be played off against each other.

use super::{Fields, Known, Method, Span, Version, is_target};
use crate::Malformed;

/// The form in which a target was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`
    Origin,
    /// `http://authority/path?query`
    Absolute,
    /// `authority:port`, for CONNECT only.
    Authority,
    /// `*`, for OPTIONS only.
    Asterisk,
}

/// A target in its parts; spans of the same buffer as the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub form: Form,
    /// From the target, if it has one, else from Host. Empty only on HTTP/1.0 without Host.
    pub authority: Span,
    /// From the leading `/`; empty in the forms that have none, and where an absolute target has an empty path (meaning `/`).
    pub path: Span,
    /// Without the `?`; empty if there is none.
    pub query: Span,
}

/// Takes a target apart, and decides between its authority and Host's.
#[inline]
pub fn target(
    version: Version,
    method: Method,
    text: Span,
    fields: &Fields,
    bytes: &[u8],
) -> Result<Target, Malformed> {
    let host = host(version, fields, bytes)?;
    let target = split(method, text, bytes)?;
    Ok(if target.authority.is_empty() { Target { authority: host, ..target } } else { target })
}

/// The value of Host (RFC 9112 §3.2): one, valid, and present from HTTP/1.1 on. An empty one is refused: the URI that it would
/// make is invalid (RFC 9110 §4.2.1), and it is a way to reach a default site under no name.
#[inline]
pub fn host(version: Version, fields: &Fields, bytes: &[u8]) -> Result<Span, Malformed> {
    let Some(field) = fields.get(Known::Host) else {
        return if version == Version::Http10 { Ok(Span::EMPTY) } else { Err(Malformed::HostMissing) };
    };
    if fields.is_repeated(Known::Host) {
        return Err(Malformed::HostRepeated);
    }
    if is_authority(field.value.of(bytes)) { Ok(field.value) } else { Err(Malformed::HostInvalid) }
}

/// `host [":" port]`, where the host is a DNS name, an IPv4 address or a bracketed IPv6 address. RFC 3986's reg-name also allows
/// sub-delimiters and percent-encoding; no name that resolves has them, while caches and routers disagree about them. User
/// information is refused (RFC 9110 §4.2.4).
#[inline]
pub fn is_authority(text: &[u8]) -> bool {
    let (host, rest) = match text {
        [b'[', inner @ ..] => match memchr::memchr(b']', inner) {
            Some(end) if is_address6(&inner[..end]) => (&inner[..end], &inner[end + 1..]),
            _ => return false,
        },
        _ => {
            let end = memchr::memchr(b':', text).unwrap_or(text.len());
            if !text[..end]
                .iter()
                .all(|&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'))
            {
                return false;
            }
            text.split_at(end)
        }
    };
    !host.is_empty() && matches!(rest, [] | [b':', ..]) && rest.get(1..).is_none_or(is_port)
}

/// An authority's host and port: `[::1]:80` gives `[::1]` and 80.
#[inline]
pub fn split_port(authority: &[u8]) -> (&[u8], Option<u16>) {
    let Some(colon) = memchr::memrchr(b':', authority) else {
        return (authority, None);
    };
    let (host, port) = (&authority[..colon], &authority[colon + 1..]);
    if host.first() == Some(&b'[') && host.last() != Some(&b']') {
        return (authority, None);
    }
    (host, decimal(port))
}

/// Whether two authorities name the same entity to a scheme (RFC 3986 §6.2.3): in whatever case, and with `own`, its port, an empty one or none.
pub fn is_same(own: u16, one: &[u8], other: &[u8]) -> bool {
    let normal = |authority| match split_port(authority) {
        (host, Some(port)) if port == own => host,
        (host, None) if authority.len() == host.len() + 1 => host,
        _ => authority,
    };
    normal(one).eq_ignore_ascii_case(normal(other))
}

#[inline]
fn split(method: Method, text: Span, bytes: &[u8]) -> Result<Target, Malformed> {
    let raw = text.of(bytes);
    if !is_target(raw) {
        return Err(Malformed::Target);
    }
    let nothing = Target { form: Form::Origin, authority: Span::EMPTY, path: Span::EMPTY, query: Span::EMPTY };
    match (method, raw) {
        (Method::Connect, _) => {
            let ported = split_port(raw).1.is_some_and(|port| port != 0);
            let valid = ported && is_authority(raw);
            if valid {
                Ok(Target { form: Form::Authority, authority: text, ..nothing })
            } else {
                Err(Malformed::Target)
            }
        }
        (_, [b'/', ..]) => Ok(with_path(nothing, text, 0, raw)),
        (Method::Options, b"*") => Ok(Target { form: Form::Asterisk, ..nothing }),
        _ => {
            let scheme = [&b"http://"[..], b"https://"]
                .into_iter()
                .find(|scheme| raw.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
                .ok_or(Malformed::Target)?
                .len();
            let path = memchr::memchr2(b'/', b'?', &raw[scheme..]).map_or(raw.len(), |at| scheme + at);
            if !is_authority(&raw[scheme..path]) {
                return Err(Malformed::HostInvalid);
            }
            let authority = within(text, scheme, path);
            Ok(with_path(Target { form: Form::Absolute, authority, ..nothing }, text, path, raw))
        }
    }
}

/// `raw[path..]` is `path-abempty ["?" query]`.
#[inline]
fn with_path(target: Target, text: Span, path: usize, raw: &[u8]) -> Target {
    let mark = memchr::memchr(b'?', &raw[path..]).map(|at| path + at);
    let query = mark.map_or(Span::EMPTY, |mark| within(text, mark + 1, raw.len()));
    Target { path: within(text, path, mark.unwrap_or(raw.len())), query, ..target }
}

#[inline]
fn within(text: Span, start: usize, end: usize) -> Span {
    Span::between(text.start as usize + start, text.start as usize + end)
}

fn is_address6(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok())
}

/// RFC 3986 §3.2.3 allows an empty port; it means the default.
#[inline]
fn is_port(digits: &[u8]) -> bool {
    digits.is_empty() || decimal(digits).is_some()
}

#[inline]
fn decimal(digits: &[u8]) -> Option<u16> {
    if digits.is_empty() || digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0u32, |value, &digit| value * 10 + u32::from(digit - b'0'));
    u16::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        for good in [
            "a",
            "a.example",
            "a_b.example",
            "127.0.0.1",
            "a:80",
            "a:",
            "a:65535",
            "[::1]",
            "[::1]:80",
            "[2001:db8::1]:443",
        ] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a b",
            "a@b",
            "u:p@a",
            "a:x",
            "a:65536",
            "a:80:80",
            "a/b",
            "a,b",
            "a\tb",
            "a#",
            "a?",
            "[",
            "[]",
            "[::1",
            "::1",
            "[::1]x",
            "[a]",
            "[::1%eth0]",
            "a%41",
            "a\\b",
            "\u{e4}",
            "a:000080",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn ports() {
        assert_eq!(split_port(b"a:80"), (&b"a"[..], Some(80)));
        assert_eq!(split_port(b"[::1]:80"), (&b"[::1]"[..], Some(80)));
        assert_eq!(split_port(b"[::1]"), (&b"[::1]"[..], None));
        assert_eq!(split_port(b"a"), (&b"a"[..], None));
        assert_eq!(split_port(b"a:"), (&b"a"[..], None));
    }

    #[test]
    fn entities() {
        for (own, one, other, same) in [
            (80, "a", "A", true),
            (80, "a", "a:80", true),
            (443, "a:443", "a", true),
            (80, "a", "a:", true),
            (80, "a:80", "a:", true),
            (80, "[::1]", "[::1]:80", true),
            (80, "[::1]:", "[::1]", true),
            (80, "a", "a:443", false),
            (443, "a", "a:80", false),
            (80, "a:81", "a:8081", false),
            (80, "a:8081", "A:8081", true),
            (80, "a", "a:x", false),
            (80, "a", "a:80:80", false),
            (80, "a", "", false),
            (80, "[::", "[:", false),
        ] {
            for (one, other) in [(one, other), (other, one)] {
                assert_eq!(is_same(own, one.as_bytes(), other.as_bytes()), same, "{own}: {one} {other}");
            }
        }
    }

    #[test]
    fn forms() {
        let parts = |method, text: &str| {
            split(method, Span::between(0, text.len()), text.as_bytes()).map(|target| {
                let part = |span: Span| String::from_utf8(span.of(text.as_bytes()).to_vec()).unwrap();
                (target.form, part(target.authority), part(target.path), part(target.query))
            })
        };
        let ok =
            |form, authority: &str, path: &str, query: &str| Ok((form, authority.into(), path.into(), query.into()));
        assert_eq!(parts(Method::Get, "/"), ok(Form::Origin, "", "/", ""));
        assert_eq!(parts(Method::Get, "//a/b?c?d"), ok(Form::Origin, "", "//a/b", "c?d"));
        assert_eq!(parts(Method::Get, "/?"), ok(Form::Origin, "", "/", ""));
        assert_eq!(parts(Method::Get, "HTTP://a:1/b?c"), ok(Form::Absolute, "a:1", "/b", "c"));
        assert_eq!(parts(Method::Get, "https://a"), ok(Form::Absolute, "a", "", ""));
        assert_eq!(parts(Method::Get, "http://a?b"), ok(Form::Absolute, "a", "", "b"));
        assert_eq!(parts(Method::Options, "*"), ok(Form::Asterisk, "", "", ""));
        assert_eq!(parts(Method::Connect, "a:443"), ok(Form::Authority, "a:443", "", ""));
        for (method, bad) in [
            (Method::Get, "*"),
            (Method::Get, "a"),
            (Method::Get, "a:443"),
            (Method::Get, "/a#b"),
            (Method::Get, "/\u{e4}"),
            (Method::Get, "ftp://a/"),
            (Method::Get, "http:/a"),
            (Method::Connect, "/"),
            (Method::Connect, "a"),
            (Method::Connect, "a:0"),
            (Method::Connect, "http://a:1"),
        ] {
            assert_eq!(parts(method, bad), Err(Malformed::Target), "{bad}");
        }
        assert_eq!(parts(Method::Get, "http:///b"), Err(Malformed::HostInvalid));
        assert_eq!(parts(Method::Get, "http://u@a/b"), Err(Malformed::HostInvalid));
    }
}
