//! TOML text as a tree in which everything knows its place.

use super::report::{Code, Problem};
use toml::de::{DeTable, DeValue};

/// Bytes of the text.
type Range = std::ops::Range<usize>;

#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Bytes of the value.
    pub(super) span: Range,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Table(Vec<Entry>),
    Array(Vec<Node>),
    Text(String),
    Integer(i64),
    Boolean(bool),
    /// What the configuration has no use for: a float, a date.
    Other(&'static str),
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    /// Bytes of the key.
    pub(super) span: Range,
    pub(super) value: Node,
}

/// A step into a tree.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

impl<'a> From<&'a str> for Step<'a> {
    fn from(key: &'a str) -> Self {
        Self::Key(key)
    }
}

impl From<usize> for Step<'_> {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

impl Node {
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.kind {
            Kind::Table(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    /// The bytes of what the path leads to, or of the last thing on it that is written down.
    pub(super) fn place(&self, path: &[Step<'_>]) -> Range {
        let mut node = self;
        for step in path {
            let next = match (*step, &node.kind) {
                (Step::Key(key), _) => node.entry(key).map(|entry| &entry.value),
                (Step::Index(index), Kind::Array(items)) => items.get(index),
                // A table where a list of them may stand is a list of one.
                (Step::Index(0), Kind::Table(_)) => Some(node),
                (Step::Index(_), _) => None,
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node.span.clone()
    }

    pub(super) const fn type_name(&self) -> &'static str {
        match &self.kind {
            Kind::Table(_) => "a table",
            Kind::Array(_) => "a list",
            Kind::Text(_) => "text",
            Kind::Integer(_) => "a number",
            Kind::Boolean(_) => "true or false",
            Kind::Other(name) => name,
        }
    }
}

/// Reads as much as is TOML; what is not becomes problems.
pub(super) fn parse(text: &str) -> (Node, Vec<Problem>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let problems = errors.into_iter().map(|error| {
        let span = error.span().unwrap_or(0..0);
        Problem::error(Code::Syntax, format!("this is not TOML: {}", error.message())).at(span)
    });
    let span = table.span();
    (Node { span, kind: table_kind(table.into_inner()) }, problems.collect())
}

fn table_kind(table: DeTable<'_>) -> Kind {
    let entries = table.into_iter().map(|(key, value)| Entry {
        span: key.span(),
        key: key.into_inner().into_owned(),
        value: node(value),
    });
    Kind::Table(entries.collect())
}

fn node(value: toml::Spanned<DeValue<'_>>) -> Node {
    let span = value.span();
    let kind = match value.into_inner() {
        DeValue::String(text) => Kind::Text(text.into_owned()),
        DeValue::Integer(number) => {
            let digits = number.as_str().replace('_', "");
            i64::from_str_radix(&digits, number.radix()).map_or(Kind::Other("a number beyond 64 bits"), Kind::Integer)
        }
        DeValue::Boolean(boolean) => Kind::Boolean(boolean),
        DeValue::Float(_) => Kind::Other("a number with a fraction"),
        DeValue::Datetime(_) => Kind::Other("a date"),
        DeValue::Array(array) => Kind::Array(array.into_iter().map(node).collect()),
        DeValue::Table(table) => table_kind(table),
    };
    Node { span, kind }
}
