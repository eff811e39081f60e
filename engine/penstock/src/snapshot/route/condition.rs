//! What a route may ask of a request beside host, path and method: its fields, its query, its client's network.

use super::{Asked, normal};
use crate::limits;
use crate::snapshot::address::Cidr;
use crate::snapshot::literal::{Literal, Unreadable, is_token};
use proto::http::Known;
use std::{fmt, str::FromStr};

/// What is asked of a request beside host, path and method: all of it must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conditions {
    pub(in crate::snapshot) headers: Box<[HeaderCondition]>,
    pub(in crate::snapshot) query: Box<[QueryCondition]>,
    /// The client's address is in one of them; any if there is none.
    pub(in crate::snapshot) clients: Box<[Cidr]>,
}

/// Of a request's fields of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderCondition {
    /// As written; compared in any case.
    name: Box<str>,
    test: Test,
}

/// Of a request's query parameters of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryCondition {
    name: Box<str>,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Present,
    Absent,
    /// One of its values is this. Between the parts may stand anything: `curl/*` has `curl/` and an empty one.
    Value(Box<[Box<str>]>),
}

impl Conditions {
    pub(super) fn hold(&self, asked: &Asked<'_>) -> bool {
        let from_there = || asked.client.is_some_and(|ip| self.clients.iter().any(|network| network.contains(ip)));
        (self.clients.is_empty() || from_there())
            && self.headers.iter().all(|condition| condition.holds(asked))
            && self.query.iter().all(|condition| condition.holds(asked))
    }

    pub(in crate::snapshot) const fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.query.is_empty() && self.clients.is_empty()
    }

    /// Whether a request that meets `other` surely meets this.
    pub(super) fn covers(&self, other: &Self) -> bool {
        let header = |mine: &HeaderCondition| {
            let same = |its: &&HeaderCondition| its.name.eq_ignore_ascii_case(&mine.name);
            other.headers.iter().filter(same).any(|its| mine.test.covers(&its.test))
        };
        let parameter = |mine: &QueryCondition| {
            other.query.iter().filter(|its| its.name == mine.name).any(|its| mine.test.covers(&its.test))
        };
        let inside = |its: &Cidr| self.clients.iter().any(|mine| mine.covers(its));
        self.headers.iter().all(header)
            && self.query.iter().all(parameter)
            && (self.clients.is_empty() || !other.clients.is_empty() && other.clients.iter().all(inside))
    }

    /// The more it asks, the smaller: most fields first, then most parameters, then the narrowest network.
    pub(super) fn rank(&self) -> impl Ord + use<> {
        let widest = self.clients.iter().map(|network| network.bits()).min();
        (
            usize::MAX - self.headers.len(),
            usize::MAX - self.query.len(),
            widest.map_or(u8::MAX, |bits| u8::MAX - 1 - bits),
        )
    }
}

impl HeaderCondition {
    fn holds(&self, asked: &Asked<'_>) -> bool {
        let name = self.name.as_bytes();
        let known = Known::from_name(name);
        let mut values = asked
            .fields
            .iter()
            .filter(|field| match known {
                Known::Other => field.name.of(asked.bytes).eq_ignore_ascii_case(name),
                known => field.known == known,
            })
            .map(|field| field.value.of(asked.bytes));
        match &self.test {
            Test::Present => values.next().is_some(),
            Test::Absent => values.next().is_none(),
            Test::Value(parts) => values.any(|value| matches(parts, value.iter().copied())),
        }
    }
}

impl QueryCondition {
    fn holds(&self, asked: &Asked<'_>) -> bool {
        let mut values = asked.query.split(|&byte| byte == b'&').filter_map(|pair| {
            let equals = pair.iter().position(|&byte| byte == b'=').unwrap_or(pair.len());
            let (name, value) = (&pair[..equals], pair.get(equals + 1..).unwrap_or(&[]));
            decoded(name).eq(self.name.bytes()).then_some(value)
        });
        match &self.test {
            Test::Present => values.next().is_some(),
            Test::Absent => values.next().is_none(),
            Test::Value(parts) => values.any(|value| matches(parts, decoded(value))),
        }
    }
}

impl Test {
    fn covers(&self, other: &Self) -> bool {
        self == other || matches!((self, other), (Self::Present, Self::Value(_)))
    }
}

/// A query's text as an origin reads it (WHATWG URL, `application/x-www-form-urlencoded`).
fn decoded(text: &[u8]) -> impl Iterator<Item = u8> + Clone + '_ {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        Some(match byte {
            b'+' => b' ',
            b'%' => match after.get(..2).and_then(normal::hex) {
                Some(decoded) => {
                    rest = &after[2..];
                    decoded
                }
                None => byte,
            },
            byte => byte,
        })
    })
}

/// Whether the value is the parts with anything between them. Each part is taken where it first fits, which finds a fit if
/// there is one; the last one must end the value.
fn matches(parts: &[Box<str>], value: impl Iterator<Item = u8> + Clone) -> bool {
    let Some((first, more)) = parts.split_first() else { return false };
    let Some(mut rest) = stripped(value, first) else { return false };
    let Some((last, middle)) = more.split_last() else { return rest.next().is_none() };
    for part in middle {
        loop {
            if let Some(after) = stripped(rest.clone(), part) {
                rest = after;
                break;
            }
            if rest.next().is_none() {
                return false;
            }
        }
    }
    let surplus = rest.clone().count().checked_sub(last.len());
    surplus.is_some_and(|surplus| rest.skip(surplus).eq(last.bytes()))
}

fn stripped<I: Iterator<Item = u8>>(mut value: I, start: &str) -> Option<I> {
    start.bytes().all(|wanted| value.next() == Some(wanted)).then_some(value)
}

/// `!NAME`, `NAME`, or a name, the separator and a value in which `*` stands for anything.
fn parse(text: &str, separator: char) -> Result<(Box<str>, Test), Unreadable> {
    if text.len() > limits::CONDITION_BYTES_MAX {
        return Err(Unreadable::new("is too long", format!("at most {} bytes", limits::CONDITION_BYTES_MAX)));
    }
    if let Some(name) = text.strip_prefix('!') {
        return Ok((name.into(), Test::Absent));
    }
    let Some((name, value)) = text.split_once(separator) else {
        return Ok((text.into(), Test::Present));
    };
    let value = value.trim_matches([' ', '\t']);
    let test = if value == "*" { Test::Present } else { Test::Value(value.split('*').map(Into::into).collect()) };
    Ok((name.into(), test))
}

fn print(f: &mut fmt::Formatter<'_>, name: &str, test: &Test, separator: &str) -> fmt::Result {
    match test {
        Test::Present => f.write_str(name),
        Test::Absent => write!(f, "!{name}"),
        Test::Value(parts) => write!(f, "{name}{separator}{}", parts.join("*")),
    }
}

impl Literal for HeaderCondition {
    const FORMAT: &'static str = "header-condition";
    const FORM: &'static str = "a request field: `X-Beta` (it is there), `!X-Beta` (it is not), `X-Env: staging` (one of its values is that), `User-Agent: curl/*` (`*` stands for anything)";
}

impl FromStr for HeaderCondition {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let (name, test) = parse(text, ':')?;
        if !is_token(&name) {
            return Err(Unreadable::new("does not begin with a field's name", "write `X-Env: staging`"));
        }
        if name.eq_ignore_ascii_case("host") {
            return Err(Unreadable::new("is about the host", "write it under `host`"));
        }
        Ok(Self { name, test })
    }
}

impl fmt::Display for HeaderCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(f, &self.name, &self.test, ": ")
    }
}

impl Literal for QueryCondition {
    const FORMAT: &'static str = "query-condition";
    const FORM: &'static str = "a query parameter, decoded: `debug` (it is there), `!debug` (it is not), `version=2` (one of its values is that), `version=2*` (`*` stands for anything)";
}

impl FromStr for QueryCondition {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let (name, test) = parse(text, '=')?;
        if name.is_empty() || name.contains(['&', '?', '%', '*']) {
            return Err(Unreadable::new("does not begin with a parameter's name", "write `version=2`, decoded"));
        }
        Ok(Self { name, test })
    }
}

impl fmt::Display for QueryCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(f, &self.name, &self.test, "=")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_gaps() {
        let table = [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "a", true),
            ("a*", "abc", true),
            ("a*", "ba", false),
            ("*a", "bba", true),
            ("*a", "ab", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*c", "axbxbxc", true),
            ("a*b*c", "axcxb", false),
            ("*ab*", "aab", true),
            ("*aab*", "aaab", true),
            ("**", "", true),
        ];
        for (pattern, value, wanted) in table {
            let parts: Vec<Box<str>> = pattern.split('*').map(Into::into).collect();
            assert_eq!(matches(&parts, value.bytes()), wanted, "{pattern} {value}");
        }
    }

    #[test]
    fn queries_are_decoded() {
        let text = |text: &[u8]| String::from_utf8(decoded(text).collect()).unwrap();
        assert_eq!(text(b"a%62c+d%2"), "abc d%2");
        assert_eq!(text(b"%%41"), "%A");
    }

    #[test]
    fn canonical_texts() {
        for text in ["X-Beta", "!X-Beta", "X-Env: staging", "User-Agent: curl/*", "X: a*b*c"] {
            assert_eq!(text.parse::<HeaderCondition>().unwrap().to_string(), text);
        }
        for text in ["debug", "!debug", "version=2", "version=2*", "a=b c"] {
            assert_eq!(text.parse::<QueryCondition>().unwrap().to_string(), text);
        }
        assert_eq!("X:  *".parse::<HeaderCondition>().unwrap().to_string(), "X");
        for text in ["", "a b: c", ": x", "Host: a", "!"] {
            assert!(text.parse::<HeaderCondition>().is_err(), "{text}");
        }
    }
}
