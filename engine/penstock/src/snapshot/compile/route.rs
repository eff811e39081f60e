//! Routes, compiled, and the rules that find them.

use super::{Pool, PoolId, Timeouts, time};
use crate::snapshot::literal::{Text, Time};
use crate::snapshot::route::{RouteId, Rule};
use crate::snapshot::schema::{Forwarded, RouteDoc};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub name: Box<str>,
    pub pool: PoolId,
    /// The route's own, or else the pool's.
    pub timeouts: Timeouts,
    pub forwarded: Forwarded,
}

/// Every combination of the route's hosts, paths and methods.
pub(in crate::snapshot) fn rules_of(doc: &RouteDoc, route: RouteId) -> Vec<Rule> {
    let methods: Vec<_> =
        if doc.method.0.is_empty() { vec![None] } else { doc.method.0.iter().cloned().map(Some).collect() };
    let mut rules = Vec::new();
    for host in &doc.host.0 {
        for path in &doc.path.0 {
            for method in &methods {
                rules.push(Rule { host: host.clone(), path: path.clone(), method: method.clone(), route });
            }
        }
    }
    rules
}

pub(super) fn route(doc: &RouteDoc, pool: PoolId, pools: &[Pool]) -> Route {
    let inherited = pools[usize::from(pool.0)].timeouts;
    let or = |own: &Option<Text<Time>>, inherited| own.as_ref().map_or(inherited, time);
    Route {
        name: doc.name.clone().unwrap_or_else(|| default_route_name(doc)).into(),
        pool,
        timeouts: Timeouts {
            connect: or(&doc.timeout.connect, inherited.connect),
            head: or(&doc.timeout.head, inherited.head),
            idle: or(&doc.timeout.idle, inherited.idle),
        },
        forwarded: doc.forwarded,
    }
}

/// `api.example.net/v1/*`, of the first host and path.
pub(in crate::snapshot) fn default_route_name(doc: &RouteDoc) -> String {
    let first = |texts: Option<String>| texts.unwrap_or_default();
    let host = first(doc.host.0.first().map(ToString::to_string));
    let path = first(doc.path.0.first().map(ToString::to_string));
    format!("{host}{path}")
}
