//! Does the document make sense? Names, references, numbers within their bounds, and what cannot work together.

use super::{
    compile::{default_route_name, http_pools, rules_of},
    literal::{Text, Time},
    report::{Code, Place, Problem, nearest},
    route::RouteId,
    schema::{Document, ListenDoc, PoolDoc, Protocol},
    text::{Kind, Node, Step},
};
use crate::limits;
use std::{collections::HashMap, hash::Hash, time::Duration};

/// Names, references, and what cannot work together.
pub(super) fn meaning(document: &Document, tree: &Node, text: &str, problems: &mut Vec<Problem>) {
    let mut meaning = Meaning { document, tree, text, problems };
    meaning.names();
    meaning.listeners();
    meaning.pools();
    meaning.routes();
    meaning.where_everything_goes();
    meaning.access_log();
    meaning.counts();
}

struct Meaning<'a> {
    document: &'a Document,
    tree: &'a Node,
    text: &'a str,
    problems: &'a mut Vec<Problem>,
}

/// A path into the tree from names and indexes.
macro_rules! path {
    ($($step:expr),+) => { &[$(Step::from($step)),+] };
}

impl Meaning<'_> {
    fn report(&mut self, code: Code, path: &[Step<'_>], message: impl Into<String>, advice: impl Into<String>) {
        let at = self.tree.place(path);
        self.problems.push(Problem::error(code, message).at(at).advice(advice));
    }

    fn line(&self, path: &[Step<'_>]) -> usize {
        Place::of(self.text, self.tree.place(path).start).line
    }

    /// Reports each key that came before; `noun` names what has it.
    fn twice<K: Hash + Eq + ToString>(&mut self, what: &str, keys: impl IntoIterator<Item = (K, Vec<Step<'static>>)>) {
        let mut seen: HashMap<K, Vec<Step<'static>>> = HashMap::new();
        for (key, path) in keys {
            if let Some(first) = seen.get(&key) {
                let message = format!("{what} `{}` is there twice", key.to_string());
                let advice = format!("the first one is at line {}", self.line(first));
                self.report(Code::Duplicate, &path, message, advice);
            } else {
                seen.insert(key, path);
            }
        }
    }

    fn names(&mut self) {
        let named = |section: &'static str, names: Vec<String>| {
            let numbered = names.into_iter().enumerate().filter(|(_, name)| !name.is_empty());
            numbered.map(move |(at, name)| (name, path![section, at, "name"].to_vec())).collect::<Vec<_>>()
        };
        let doors = named("listen", self.document.listen.iter().map(|door| door.name.clone()).collect());
        let pools = named("pool", self.document.pool.iter().map(|pool| pool.name.clone()).collect());
        let routes =
            named("route", self.document.route.iter().map(|route| route.name.clone().unwrap_or_default()).collect());
        for (what, keys) in [("the listener", doors), ("the pool", pools), ("the route", routes)] {
            for (name, path) in &keys {
                if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.*/".contains(&b)) {
                    self.report(
                        Code::BadValue,
                        path,
                        format!("the name `{name}` has more than letters, digits, `-`, `_` and `.` in it"),
                        "it stands in metrics and logs",
                    );
                }
            }
            self.twice(what, keys);
        }
        for (section, empty) in [
            ("listen", self.document.listen.iter().map(|door| door.name.is_empty()).collect::<Vec<_>>()),
            ("pool", self.document.pool.iter().map(|pool| pool.name.is_empty()).collect()),
        ] {
            for at in (0..empty.len()).filter(|&at| empty[at]) {
                if self.written(path![section, at, "name"]) {
                    self.report(
                        Code::BadValue,
                        path![section, at, "name"],
                        "a name cannot be empty",
                        "name it after what it is for",
                    );
                }
            }
        }
    }

    fn listeners(&mut self) {
        let mut addresses = Vec::new();
        for (at, address) in self.document.engine.admin.0.iter().enumerate() {
            addresses.push((address.to_string(), path!["engine", "admin", at].to_vec()));
        }
        for (at, door) in self.document.listen.iter().enumerate() {
            addresses.extend(
                door.addr
                    .0
                    .iter()
                    .enumerate()
                    .map(|(index, addr)| (addr.to_string(), path!["listen", at, "addr", index].to_vec())),
            );
            self.listener(at, door);
        }
        self.twice("the address", addresses);
    }

    fn listener(&mut self, at: usize, door: &ListenDoc) {
        if door.addr.0.is_empty() && self.is_empty_list(path!["listen", at, "addr"]) {
            self.report(Code::BadValue, path!["listen", at, "addr"], "a listener needs an address", "write \":8080\"");
        }
        match (door.protocol, &door.pool) {
            (Protocol::Tcp, None) => {
                let message = "a tcp listener needs a `pool`";
                self.report(
                    Code::MissingKey,
                    path!["listen", at, "protocol"],
                    message,
                    "name the pool that its connections go to",
                );
            }
            (Protocol::Tcp, Some(pool)) => self.pool_exists(pool, path!["listen", at, "pool"]),
            (Protocol::Http, Some(pool)) => {
                let advice = format!("write protocol = \"tcp\", or a [[route]] with pool = \"{pool}\"");
                self.report(
                    Code::Conflict,
                    path!["listen", at, "pool"],
                    "an http listener has no `pool`: requests are routed",
                    advice,
                );
            }
            (Protocol::Http, None) => {}
        }
        if door.protocol == Protocol::Tcp && !door.trusted.0.is_empty() {
            self.report(
                Code::NoEffect,
                path!["listen", at, "trusted"],
                "`trusted` has no effect on a tcp listener",
                "it is about header fields: leave it out",
            );
        }
        self.within(
            path!["listen", at, "max_connections"],
            door.max_connections.into(),
            1,
            limits::CONNECTIONS_MAX.into(),
        );
        self.within(path!["listen", at, "backlog"], door.backlog.into(), 1, limits::BACKLOG_MAX.into());
        for (key, time) in
            [("head", &door.timeout.head), ("keep_alive", &door.timeout.keep_alive), ("body", &door.timeout.body)]
        {
            self.not_zero(path!["listen", at, "timeout", key], time);
        }
    }

    fn pools(&mut self) {
        for (at, pool) in self.document.pool.iter().enumerate() {
            self.pool(at, pool);
        }
    }

    fn pool(&mut self, at: usize, pool: &PoolDoc) {
        let endpoints = &pool.endpoints;
        if endpoints.is_empty() && self.is_empty_list(path!["pool", at, "endpoints"]) {
            self.report(
                Code::BadValue,
                path!["pool", at, "endpoints"],
                "a pool needs an endpoint",
                "write [\"127.0.0.1:8080\"]",
            );
        } else if !endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint.0.weight == 0) {
            self.report(
                Code::BadValue,
                path!["pool", at, "endpoints"],
                "every endpoint has weight 0: the pool can serve nothing",
                "give one of them a weight",
            );
        }
        if endpoints.len() > limits::ENDPOINTS_MAX {
            self.report(
                Code::BadValue,
                path!["pool", at, "endpoints"],
                format!("a pool of {} endpoints", endpoints.len()),
                format!("at most {} are supported", limits::ENDPOINTS_MAX),
            );
        }
        let addresses = endpoints
            .iter()
            .enumerate()
            .map(|(index, endpoint)| (endpoint.0.address.to_string(), path!["pool", at, "endpoints", index].to_vec()));
        self.twice("the endpoint", addresses.collect::<Vec<_>>());
        self.within(path!["pool", at, "retry", "tries"], pool.retry.tries.into(), 1, limits::TRIES_MAX.into());
        self.within(path!["pool", at, "breaker", "trials"], pool.breaker.trials.into(), 1, u16::MAX.into());
        self.within(
            path!["pool", at, "reuse", "max_idle"],
            pool.reuse.max_idle.into(),
            0,
            limits::IDLE_UPSTREAM_MAX.into(),
        );
        if pool.reuse.max_requests == Some(0) {
            self.report(
                Code::BadValue,
                path!["pool", at, "reuse", "max_requests"],
                "a connection that may carry no request",
                "write at least 1, or leave it out",
            );
        }
        let times: [(&[Step<'_>], &Text<Time>); 6] = [
            (path!["pool", at, "timeout", "connect"], &pool.timeout.connect),
            (path!["pool", at, "timeout", "head"], &pool.timeout.head),
            (path!["pool", at, "timeout", "idle"], &pool.timeout.idle),
            (path!["pool", at, "breaker", "open_for"], &pool.breaker.open_for),
            (path!["pool", at, "reuse", "idle"], &pool.reuse.idle),
            (path!["pool", at, "resolve_every"], &pool.resolve_every),
        ];
        for (path, time) in times {
            self.not_zero(path, time);
        }
        if pool.resolve_every.0.0 < limits::RESOLVE_EVERY_MIN && pool.resolve_every.0.0 > Duration::ZERO {
            self.report(
                Code::BadValue,
                path!["pool", at, "resolve_every"],
                "names would be resolved more than once a second",
                "write at least \"1s\"",
            );
        }
        let document = self.document;
        let known = |name: &str| document.pool.iter().any(|pool| pool.name == name);
        let used = |name: &str| {
            document.route.is_empty()
                || document.listen.iter().any(|door| door.pool.as_deref() == Some(name))
                // A route that leads nowhere is an error already, and may have been meant to lead here.
                || document.route.iter().any(|route| route.pool == name || !known(&route.pool))
        };
        if !pool.name.is_empty() && !used(&pool.name) {
            self.report(
                Code::Unused,
                path!["pool", at, "name"],
                format!("nothing leads to the pool `{}`", pool.name),
                "no route and no tcp listener names it",
            );
        }
    }

    fn routes(&mut self) {
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

    /// Whether every kind of traffic that comes in has somewhere to go.
    fn where_everything_goes(&mut self) {
        let document = self.document;
        let http_door = document.listen.iter().position(|door| door.protocol == Protocol::Http);
        match http_door {
            None if !document.route.is_empty() && !document.listen.is_empty() => {
                self.report(
                    Code::NoEffect,
                    path!["route", 0_usize],
                    "no listener speaks http: routes have no effect",
                    "give a listener protocol = \"http\"",
                );
            }
            Some(door) if document.route.is_empty() => {
                let mut candidates: Vec<_> = http_pools(document).map(|pool| pool.name.clone()).collect();
                // Two of one name are reported as that.
                candidates.dedup();
                match candidates.as_slice() {
                    [_] => {}
                    [] => self.report(
                        Code::Conflict,
                        path!["listen", door, "name"],
                        "requests that come in here have nowhere to go: there is no pool for http",
                        "add a [[pool]]",
                    ),
                    [first, ..] => {
                        let message = format!(
                            "there are {} pools and no [[route]]: which one do requests go to?",
                            candidates.len()
                        );
                        self.report(
                            Code::Conflict,
                            path!["listen", door, "name"],
                            message,
                            format!("add a [[route]] with pool = \"{first}\""),
                        );
                    }
                }
            }
            _ => {}
        }
        if document.listen.is_empty() && self.is_empty_list(path!["listen"]) {
            self.report(Code::MissingKey, path!["listen"], "there is no listener", "write a [[listen]] section");
        }
    }

    fn access_log(&mut self) {
        if self.document.log.access.path.is_empty() {
            self.report(
                Code::BadValue,
                path!["log", "access", "path"],
                "the access log's path is empty",
                "write \"off\", \"-\" for standard output, or a file",
            );
        }
        if self.document.log.access.path == "off" && self.written(path!["log", "access", "format"]) {
            self.report(
                Code::NoEffect,
                path!["log", "access", "format"],
                "a format for an access log that is off",
                "add path = \"-\"",
            );
        }
    }

    fn counts(&mut self) {
        let counts = [
            ("listen", self.document.listen.len(), limits::LISTENERS_MAX),
            ("pool", self.document.pool.len(), limits::POOLS_MAX),
            ("route", self.document.route.len(), limits::ROUTES_MAX),
        ];
        for (section, count, max) in counts.into_iter().filter(|(_, count, max)| count > max) {
            self.report(
                Code::BadValue,
                path![section, max],
                format!("{count} of [[{section}]]"),
                format!("at most {max} are supported"),
            );
        }
    }

    fn pool_exists(&mut self, name: &str, path: &[Step<'_>]) {
        let document = self.document;
        if name.is_empty() && !self.written(path) || document.pool.iter().any(|pool| pool.name == name) {
            return;
        }
        let known: Vec<_> =
            document.pool.iter().map(|pool| pool.name.as_str()).filter(|name| !name.is_empty()).collect();
        let advice = match (nearest(name, known.iter().copied()), known.as_slice()) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, []) => "there is no [[pool]] at all".to_owned(),
            (None, known) => format!("there is: {}", known.join(", ")),
        };
        self.report(Code::UnknownName, path, format!("there is no pool `{name}`"), advice);
    }

    fn within(&mut self, path: &[Step<'_>], number: u64, min: u64, max: u64) {
        if !(min..=max).contains(&number) {
            let Some(Step::Key(key)) = path.last() else {
                return;
            };
            self.report(
                Code::BadValue,
                path,
                format!("`{key}` cannot be {number}"),
                format!("write a number from {min} to {max}"),
            );
        }
    }

    fn not_zero(&mut self, path: &[Step<'_>], time: &Text<Time>) {
        if time.0.0.is_zero() {
            let Some(Step::Key(key)) = path.last() else {
                return;
            };
            self.report(
                Code::BadValue,
                path,
                format!("`{key}` cannot be zero: nothing would ever be in time"),
                "leave it out for the default",
            );
        }
    }

    /// Whether the text has the very thing that the path names.
    fn written(&self, path: &[Step<'_>]) -> bool {
        self.find(path).is_some()
    }

    /// Whether the text has a list there, with nothing in it. A list whose items were all refused is reported already.
    fn is_empty_list(&self, path: &[Step<'_>]) -> bool {
        self.find(path).is_some_and(|node| matches!(&node.kind, Kind::Array(items) if items.is_empty()))
    }

    fn find(&self, path: &[Step<'_>]) -> Option<&Node> {
        path.iter().try_fold(self.tree, |node, step| match (*step, &node.kind) {
            (Step::Key(key), _) => node.entry(key).map(|entry| &entry.value),
            (Step::Index(at), Kind::Array(items)) => items.get(at),
            (Step::Index(_), _) => None,
        })
    }
}
