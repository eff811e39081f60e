//! Rules that no request can reach.
//!
//! Only what is provable is told: an earlier rule of the same host and path takes every request that this one would. A
//! rule of another path or host is never in the way of a more specific one, and one that is less specific comes later.

use super::paths::{Step, steps};
use super::{HostPattern, Rule, order};
use std::cmp::Ordering;
use std::collections::HashMap;

/// For each rule the one that takes all its requests, if there is one. Rules of one route are no shadow of each other.
pub(in crate::snapshot) fn shadowed(rules: &[Rule]) -> Vec<Option<usize>> {
    let mut places: HashMap<(&HostPattern, Vec<Step<'_>>), Vec<usize>> = HashMap::new();
    for (at, rule) in rules.iter().enumerate() {
        places.entry((&rule.host, steps(&rule.path))).or_default().push(at);
    }
    let mut found = vec![None; rules.len()];
    for of_one_place in places.values_mut() {
        of_one_place.sort_by(|&a, &b| order(&rules[a], &rules[b]));
        for (rank, &at) in of_one_place.iter().enumerate() {
            found[at] = of_one_place[..rank].iter().copied().find(|&first| takes_all_of(&rules[first], &rules[at]));
        }
    }
    found
}

fn takes_all_of(first: &Rule, rule: &Rule) -> bool {
    let methods = first.method.is_none() || first.method == rule.method;
    let conditions = match (&first.conditions, &rule.conditions) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(first), Some(rule)) => first.covers(rule),
    };
    first.to.route != rule.to.route && order(first, rule) == Ordering::Less && methods && conditions
}
