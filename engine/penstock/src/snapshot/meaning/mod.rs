//! Does the document make sense? Names, references, numbers within their bounds, and what cannot work together.

/// A path into the tree from names and indexes.
macro_rules! path {
    ($($step:expr),+) => { &[$($crate::snapshot::text::Step::from($step)),+] };
}

mod afxdp;
mod answer;
mod balance;
mod breaker;
mod health;
mod listen;
mod outlier;
mod pool;
mod qos;
mod route;
mod shield;
mod sni;
mod times;
mod tls;
mod vip;

use std::{collections::HashMap, hash::Hash};

use super::{
    Files,
    compile::http_pools,
    literal::{Text, Time},
    report::{Code, Place, Problem, nearest},
    schema::{Document, Protocol},
    text::{Kind, Node, Step},
};
use crate::limits;

/// Names, references, and what cannot work together.
pub(super) fn meaning(document: &Document, tree: &Node, text: &str, files: &Files<'_>, problems: &mut Vec<Problem>) {
    let mut meaning = Meaning { document, tree, text, files, problems };
    meaning.names();
    meaning.classes();
    meaning.listeners();
    meaning.pools();
    meaning.routes();
    meaning.keyed_limits();
    meaning.where_everything_goes();
    meaning.access_log();
    meaning.qlog();
    meaning.shield();
    meaning.balance();
    meaning.decap();
    meaning.af_xdp();
    meaning.counts();
    meaning.vip_count();
}

struct Meaning<'a> {
    document: &'a Document,
    tree: &'a Node,
    text: &'a str,
    files: &'a Files<'a>,
    problems: &'a mut Vec<Problem>,
}

impl Meaning<'_> {
    fn report(&mut self, code: Code, path: &[Step<'_>], message: impl Into<String>, advice: impl Into<String>) {
        let at = self.tree.place(path);
        self.problems.push(Problem::error(code, message).at(at).advice(advice));
    }

    /// Reports those keys of one table that are written and stand for nothing. `why` says so of a key.
    fn idle(&mut self, table: &[Step<'_>], keys: &[&str], why: impl Fn(&str) -> String, advice: &str) {
        for key in keys {
            let path = [table, &[Step::Key(key)]].concat();
            if self.written(&path) {
                self.report(Code::NoEffect, &path, why(key), advice);
            }
        }
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
        let vips = named("vip", self.document.vip.iter().map(|vip| vip.name.clone()).collect());
        let all = [("the listener", doors), ("the VIP", vips), ("the pool", pools), ("the route", routes)];
        for (what, keys) in all {
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
            ("vip", self.document.vip.iter().map(|vip| vip.name.is_empty()).collect()),
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

    /// Whether every kind of traffic that comes in has somewhere to go.
    fn where_everything_goes(&mut self) {
        let document = self.document;
        let http_door = document.listen.iter().position(|door| door.protocol == Protocol::Http);
        match http_door {
            None if !document.route.is_empty() && (!document.listen.is_empty() || !document.vip.is_empty()) => {
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
        // Packets can be all that there is to do.
        let is_for_packets = !document.vip.is_empty() || !document.decap.interfaces.is_empty();
        if document.listen.is_empty() && self.is_empty_list(path!["listen"]) {
            self.report(Code::MissingKey, path!["listen"], "there is no listener", "write a [[listen]] section");
        } else if !self.written(path!["listen"]) && !is_for_packets {
            self.report(
                Code::MissingKey,
                &[],
                "`listen` is missing in the file",
                "write [[listen]]: A door: where connections come in",
            );
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

    fn qlog(&mut self) {
        let qlog = &self.document.log.qlog;
        let table = path!["log", "qlog"];
        match qlog.folder.as_deref() {
            None => {
                let why = |key: &str| format!("`{key}` for connections that are not written down");
                self.idle(table, &["peers", "files", "file_max"], why, "add folder = \"/var/log/penstock/qlog\"");
            }
            Some("") => {
                let message = "the folder's path is empty";
                self.report(
                    Code::BadValue,
                    path!["log", "qlog", "folder"],
                    message,
                    "leave it out to write nothing down",
                );
            }
            Some(_) => {}
        }
        self.within(path!["log", "qlog", "files"], qlog.files.into(), 1, limits::QLOG_FILES_MAX.into());
        self.within(path!["log", "qlog", "file_max"], qlog.file_max.0.0, limits::QLOG_FILE_MIN, 1 << 30);
        let count = qlog.peers.0.len() as u64;
        self.within(path!["log", "qlog", "peers"], count, 0, limits::QLOG_PEERS_MAX as u64);
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
            (Step::Index(0), Kind::Table(_)) => Some(node),
            (Step::Index(_), _) => None,
        })
    }
}
