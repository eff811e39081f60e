//! Which route a request takes.
//!
//! The most specific route wins, wherever it stands in the file, by one total order: host (exact, then the longest
//! wildcard, then any); path, segment by segment from the left (a written one before a `{name}`, before what takes all
//! the rest); method (named, then any); most header conditions; most query conditions; the narrowest client network; the
//! first in the file. A route whose conditions do not hold is passed over, and what the best host has no route for, the
//! next best may have. A miss is an answer: `None`, which is 404.
//!
//! A look-up allocates nothing. It takes a binary search a level: hosts and paths are sorted once, when the snapshot is
//! compiled. Paths are compared in their normal form ([`normal`]); what a condition asks is looked at only for
//! the routes of the path found.

mod condition;
pub mod normal;
mod paths;
mod pattern;
mod shadow;

pub use condition::{Conditions, HeaderCondition, QueryCondition};
pub use pattern::{HostPattern, Method, PathPattern};
pub(super) use shadow::shadowed;

use paths::Paths;
use proto::http::Fields;
use std::{cmp::Ordering, net::IpAddr, sync::Arc};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(pub u16);

/// What a request is asked.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Without its port, any case.
    pub host: &'a [u8],
    /// In normal form, without its query.
    pub path: &'a [u8],
    /// Without the `?`.
    pub query: &'a [u8],
    pub method: &'a [u8],
    /// Needed only if [`RouteTable::asks_client`].
    pub client: Option<IpAddr>,
    pub fields: &'a Fields,
    /// What the fields point into.
    pub bytes: &'a [u8],
}

/// A route, and which of its paths was matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub route: RouteId,
    pub path: u16,
}

/// All routes, ready to be looked up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteTable {
    /// Sorted by name.
    exact: Box<[(Box<str>, Paths)]>,
    /// Sorted by the name that they are below.
    below: Box<[(Box<str>, Paths)]>,
    any: Paths,
    /// A route asks for the client's network.
    pub asks_client: bool,
    /// Routes tell paths apart: then they must be in normal form.
    pub tells_paths_apart: bool,
}

/// One rule: a host, a path, perhaps a method and more, and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub host: HostPattern,
    pub path: PathPattern,
    pub method: Option<Method>,
    pub conditions: Option<Arc<Conditions>>,
    pub to: Found,
}

impl RouteTable {
    #[must_use]
    pub fn new(mut rules: Vec<Rule>) -> Self {
        rules.sort_by(|a, b| a.host.cmp(&b.host));
        let asks_client = rules.iter().any(|rule| rule.conditions.as_ref().is_some_and(|of| !of.clients.is_empty()));
        let tells_paths_apart = rules.iter().any(|rule| !rule.path.is_everything());
        let (mut exact, mut below, mut any) = (Vec::new(), Vec::new(), Paths::default());
        for rules in rules.chunk_by(|a, b| a.host == b.host) {
            let paths = Paths::new(rules);
            match &rules[0].host {
                HostPattern::Any => any = paths,
                HostPattern::Exact(name) => exact.push((name.clone(), paths)),
                HostPattern::Below(name) => below.push((name.clone(), paths)),
            }
        }
        Self { exact: exact.into(), below: below.into(), any, asks_client, tells_paths_apart }
    }

    /// The route of a request, or `None` (404).
    #[must_use]
    pub fn find(&self, asked: &Asked<'_>) -> Option<Found> {
        let host = asked.host.strip_suffix(b".").unwrap_or(asked.host);
        let by_name = |hosts: &[(Box<str>, Paths)], name: &[u8]| {
            let at = hosts.binary_search_by(|(known, _)| compare_ignoring_case(known.as_bytes(), name)).ok()?;
            hosts[at].1.find(asked)
        };
        if let Some(found) = by_name(&self.exact, host) {
            return Some(found);
        }
        if !self.below.is_empty() {
            let mut rest = host;
            while let Some(dot) = rest.iter().position(|&b| b == b'.') {
                rest = &rest[dot + 1..];
                if let Some(found) = by_name(&self.below, rest) {
                    return Some(found);
                }
            }
        }
        self.any.find(asked)
    }
}

/// The routes of one host and path, in the order in which they are asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Leaf(Box<[Candidate]>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    method: Option<Method>,
    conditions: Option<Arc<Conditions>>,
    to: Found,
}

impl Leaf {
    /// From rules of one host and path.
    fn new<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> Self {
        let mut rules: Vec<_> = rules.into_iter().collect();
        rules.sort_by(|a, b| order(a, b));
        let candidate =
            |rule: &Rule| Candidate { method: rule.method.clone(), conditions: rule.conditions.clone(), to: rule.to };
        Self(rules.into_iter().map(candidate).collect())
    }

    fn find(&self, asked: &Asked<'_>) -> Option<Found> {
        let takes = |candidate: &&Candidate| {
            candidate.method.as_ref().is_none_or(|method| method.0.as_bytes() == asked.method)
                && candidate.conditions.as_ref().is_none_or(|conditions| conditions.hold(asked))
        };
        self.0.iter().find(takes).map(|candidate| candidate.to)
    }
}

/// The order of rules of one host and path.
fn order(a: &Rule, b: &Rule) -> Ordering {
    let rank = |rule: &Rule| {
        let conditions = rule.conditions.as_deref().map_or_else(|| Conditions::default().rank(), Conditions::rank);
        (rule.method.is_none(), conditions, rule.to.route)
    };
    rank(a).cmp(&rank(b))
}

/// `known` is lower case already.
fn compare_ignoring_case(known: &[u8], name: &[u8]) -> Ordering {
    known.iter().copied().cmp(name.iter().map(u8::to_ascii_lowercase))
}
