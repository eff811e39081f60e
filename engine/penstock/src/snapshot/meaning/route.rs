//! What `[[route]]` must mean.

use std::collections::HashMap;

use super::Meaning;
use crate::snapshot::compile::{default_route_name, rules_of};
use crate::snapshot::report::Code;
use crate::snapshot::route::RouteId;

impl Meaning<'_> {
    pub(super) fn routes(&mut self) {
        let mut seen = HashMap::new();
        for (at, route) in self.document.route.iter().enumerate() {
            self.pool_exists(&route.pool, path!["route", at, "pool"]);
            for (key, empty) in [("host", route.host.0.is_empty()), ("path", route.path.0.is_empty())] {
                if empty && self.is_empty_list(path!["route", at, key]) {
                    self.report(
                        Code::BadValue,
                        path!["route", at, key],
                        format!("a route without any `{key}` matches nothing"),
                        "leave the key out to match any",
                    );
                }
            }
            for (key, time) in
                [("connect", &route.timeout.connect), ("head", &route.timeout.head), ("idle", &route.timeout.idle)]
            {
                if let Some(time) = time {
                    self.not_zero(path!["route", at, "timeout", key], time);
                }
            }
            let rules = rules_of(route, RouteId(at as u16));
            let earlier: Vec<Option<usize>> = rules
                .iter()
                .map(|rule| *seen.entry((rule.host.clone(), rule.path.clone(), rule.method.clone())).or_insert(at))
                .map(|first| (first != at).then_some(first))
                .collect();
            if let Some(Some(first)) = earlier.iter().find(|first| first.is_some()) {
                let name = route.name.clone().unwrap_or_else(|| default_route_name(route));
                let how =
                    if earlier.iter().all(Option::is_some) { "can never match" } else { "is partly out of reach" };
                let message = format!("route `{name}` {how}: an earlier route has the same host, path and method");
                let advice = format!("shadowed by the route at line {}", self.line(path!["route", *first]));
                self.report(Code::Shadowed, path!["route", at], message, advice);
            }
        }
    }
}
