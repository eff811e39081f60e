//! What `[classes]`, `limit`, `concurrency` and `queue` must mean.

use super::Meaning;
use crate::limits;
use crate::snapshot::compile::DEFAULT_CLASS;
use crate::snapshot::limit::{ConcurrencyLimit, LimitKey, is_token};
use crate::snapshot::literal::{Text, Time};
use crate::snapshot::quantity::{Bandwidth, Rate};
use crate::snapshot::report::{Code, nearest};
use crate::snapshot::schema::{LimitFields, ListenDoc, PaceDoc, PoolDoc, Protocol, RouteDoc};
use crate::snapshot::text::Step;

impl Meaning<'_> {
    pub(super) fn classes(&mut self) {
        self.strictness();
        let document = self.document;
        let count = document.classes.keys().filter(|name| *name != DEFAULT_CLASS).count() + 1;
        if count > limits::CLASSES_MAX {
            let advice = format!("at most {} are supported, the default one included", limits::CLASSES_MAX);
            self.report(Code::BadValue, path!["classes"], format!("{count} classes"), advice);
        }
        for (name, class) in &document.classes {
            if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) || name.is_empty() {
                self.report(
                    Code::BadValue,
                    path!["classes", name.as_str()],
                    format!("the class `{name}` has more than letters, digits, `-` and `_` in its name"),
                    "it stands in metrics and in a field",
                );
            }
            self.within(path!["classes", name.as_str(), "weight"], class.weight.into(), 1, limits::CLASS_WEIGHT_MAX);
            if let Some(queue) = &class.queue {
                self.not_zero(path!["classes", name.as_str(), "queue"], queue);
            }
            let (bandwidth, rate) = (class.bandwidth.as_ref(), class.rate.as_ref());
            self.of_each_client(path!["classes", name.as_str(), "per_client"], bandwidth, rate, &class.per_client);
        }
    }

    /// Who goes before all others: one class, where somebody waits.
    fn strictness(&mut self) {
        let document = self.document;
        let mut strict = document.classes.iter().filter(|(_, class)| class.strict);
        let Some((first, _)) = strict.next() else { return };
        for (second, _) in strict {
            let message = format!("`{first}` is strict already: only one can go before all others");
            self.report(Code::Conflict, path!["classes", second.as_str(), "strict"], message, "give it a weight");
        }
        if self.written(path!["classes", first.as_str(), "weight"]) {
            let message = "a strict class goes before all others, whatever it weighs";
            self.report(Code::NoEffect, path!["classes", first.as_str(), "weight"], message, "leave it out");
        }
        let place = path!["classes", first.as_str(), "strict"];
        let is_limited = |pool: &PoolDoc| pool.concurrency != ConcurrencyLimit::Off || pool.limits_endpoints();
        if first == DEFAULT_CLASS && document.classes.len() == 1 {
            let message = "there is no other class to go before";
            self.report(Code::NoEffect, place, message, "leave it out");
        } else if !document.pool.iter().any(is_limited) {
            let message = "nobody waits, and so nobody goes first: no pool has a limit";
            self.report(Code::NoEffect, place, message, "add concurrency = \"auto\" to a [[pool]], or limits");
        }
    }

    /// Paces of each client, which none can reach when all together go no faster.
    fn of_each_client(
        &mut self,
        table: &[Step<'_>],
        bandwidth: Option<&Text<Bandwidth>>,
        rate: Option<&Text<Rate>>,
        each: &PaceDoc,
    ) {
        let reaches = |one: Rate, all: Rate| {
            u128::from(one.count.get()) * all.per.as_nanos() >= u128::from(all.count.get()) * one.per.as_nanos()
        };
        let slow = bandwidth.zip(each.bandwidth.as_ref()).is_some_and(|(all, one)| one.0 >= all.0);
        let seldom = rate.zip(each.rate.as_ref()).is_some_and(|(all, one)| reaches(one.0, all.0));
        for (key, is_idle) in [("bandwidth", slow), ("rate", seldom)] {
            if is_idle {
                let message = format!("no client is ever as fast: all together have no more `{key}` than that");
                let path = [table, &[Step::Key(key)]].concat();
                self.report(Code::NoEffect, &path, message, "write less than for all, or leave it out");
            }
        }
    }

    /// What a listener says about clients and classes.
    pub(super) fn clients_of(&mut self, at: usize, door: &ListenDoc) {
        if let Some(max) = door.max_connections_per_client {
            self.within(path!["listen", at, "max_connections_per_client"], max.into(), 1, door.max_connections.into());
        }
        if let Some(name) = &door.class {
            let path = path!["listen", at, "class"];
            self.class_named(path, name);
            if door.protocol == Protocol::Http {
                let message = "requests of an http listener have the class of their route";
                self.report(Code::NoEffect, path, message, "write it there");
            }
        }
        let Some(name) = &door.class_header else { return };
        let path = path!["listen", at, "class_header"];
        if !is_token(name) {
            self.report(Code::BadValue, path, format!("`{name}` is no field's name"), "write \"x-priority\"");
        } else if door.protocol != Protocol::Http {
            let message = format!("a {} listener sees no fields", door.protocol.text());
            self.report(Code::NoEffect, path, message, "leave it out");
        } else if door.trusted.0.is_empty() {
            self.report(
                Code::NoEffect,
                path,
                "nobody's class would be believed: `trusted` is empty",
                "add trusted = [\"10.0.0.0/8\"], the networks that may choose a class",
            );
        }
    }

    pub(super) fn admission(&mut self, at: usize, pool: &PoolDoc) {
        self.within(path!["pool", at, "queue", "len"], pool.queue.len.into(), 0, limits::QUEUE_MAX.into());
        for (key, time) in
            [("for", &pool.queue.wait), ("target", &pool.queue.target), ("interval", &pool.queue.interval)]
        {
            self.not_zero(path!["pool", at, "queue", key], time);
        }
        let limited = pool.concurrency != ConcurrencyLimit::Off || pool.limits_endpoints();
        if !limited && self.written(path!["pool", at, "queue"]) {
            self.report(
                Code::NoEffect,
                path!["pool", at, "queue"],
                "nobody waits for a pool without a limit",
                "add concurrency = \"auto\", or limits",
            );
        }
        if limited && pool.queue.len == 0 {
            let why = |key: &str| format!("`{key}` for those who wait, and `len` lets nobody wait");
            self.idle(path!["pool", at, "queue"], &["for", "target", "interval"], why, "leave it out");
        }
        let classes = self.document.classes.values().filter_map(|class| class.queue.as_ref());
        let longest = classes.map(|queue| queue.0).fold(pool.queue.wait.0, Time::max);
        if limited && pool.queue.target.0 > longest && self.written(path!["pool", at, "queue", "target"]) {
            self.report(
                Code::NoEffect,
                path!["pool", at, "queue", "target"],
                "nobody waits for as long as that: the queue is never shortened",
                "write less than `for`",
            );
        }
        if pool.concurrency != ConcurrencyLimit::Off && self.is_of_bytes(pool) {
            self.report(
                Code::NoEffect,
                path!["pool", at, "concurrency"],
                "a tcp listener leads here, and its connections are not counted as requests",
                "limit them with the listener's max_connections",
            );
        }
    }

    fn class_named(&mut self, path: &[Step<'_>], name: &str) {
        let document = self.document;
        if name == DEFAULT_CLASS || document.classes.contains_key(name) {
            return;
        }
        let known: Vec<_> = document.classes.keys().map(String::as_str).collect();
        let advice = match (nearest(name, known.iter().copied()), known.as_slice()) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, []) => format!("write [classes.{name}]"),
            (None, known) => format!("there is: {}", known.join(", ")),
        };
        self.report(Code::UnknownName, path, format!("there is no class `{name}`"), advice);
    }

    pub(super) fn qos_of(&mut self, at: usize, route: &RouteDoc) {
        if let Some(name) = &route.class {
            self.class_named(path!["route", at, "class"], name);
        }
        let (bandwidth, rate) = (route.bandwidth.as_ref(), route.rate.as_ref());
        self.of_each_client(path!["route", at, "per_client"], bandwidth, rate, &route.per_client);
        if route.limit.len() > limits::ROUTE_LIMITS_MAX {
            let advice = format!("at most {} are supported", limits::ROUTE_LIMITS_MAX);
            self.report(Code::BadValue, path!["route", at, "limit"], format!("{} limits", route.limit.len()), advice);
        }
        for (index, limit) in route.limit.iter().enumerate() {
            if !(400..=599).contains(&limit.status) {
                self.report(
                    Code::BadValue,
                    path!["route", at, "limit", index, "status"],
                    format!("`status` cannot be {}", limit.status),
                    "write 429, or another from 400 to 599",
                );
            }
            if limit.burst == Some(0) {
                self.within(path!["route", at, "limit", index, "burst"], 0, 1, u32::MAX.into());
            }
            if limit.fields == LimitFields::Off && limit.name.is_some() {
                let message = "a name for fields that are off";
                self.report(Code::NoEffect, path!["route", at, "limit", index, "name"], message, "leave it out");
            }
            let named = limit.name.as_deref().unwrap_or("-");
            if !named.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b)) || named.is_empty() {
                self.report(
                    Code::BadValue,
                    path!["route", at, "limit", index, "name"],
                    format!("the limit's name `{named}` has more than letters, digits, `-`, `_`, `.` and `:` in it"),
                    "it stands in a field",
                );
            }
        }
    }

    /// Tables of keys take memory; so many and no more.
    pub(super) fn keyed_limits(&mut self) {
        let document = self.document;
        let limits = document.route.iter().enumerate().flat_map(|(at, route)| {
            let per_client = [&route.per_client.bandwidth.is_some(), &route.per_client.rate.is_some()];
            let paces = per_client.into_iter().filter(|&&is| is).count();
            let keyed = route.limit.iter().filter(|limit| limit.key.0 != LimitKey::Route).count();
            std::iter::repeat_n(at, keyed + paces)
        });
        let of_classes = document.classes.values().map(|class| {
            usize::from(class.per_client.bandwidth.is_some()) + usize::from(class.per_client.rate.is_some())
        });
        let left = limits::KEYED_LIMITS_MAX.saturating_sub(of_classes.sum());
        let beyond = limits.enumerate().find(|(count, _)| *count >= left).map(|(_, at)| at);
        if let Some(at) = beyond {
            self.report(
                Code::BadValue,
                path!["route", at],
                format!("more than {} limits with a key, or paces per client", limits::KEYED_LIMITS_MAX),
                format!("each takes a table of {} keys", limits::RATE_KEYS),
            );
        }
    }
}
