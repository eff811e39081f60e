//! Times of which one leaves another nothing to do: what would end later than the whole never ends.

use super::Meaning;
use crate::snapshot::literal::{Text, Time};
use crate::snapshot::repetition::{CopyAfter, PerTry};
use crate::snapshot::report::Code;
use crate::snapshot::schema::{HealthDoc, PoolDoc, RouteDoc};
use crate::snapshot::text::Step;

impl Meaning<'_> {
    pub(super) fn route_times(&mut self, at: usize, route: &RouteDoc) {
        let times = &route.timeout;
        let parts =
            [("connect", &times.connect), ("head", &times.head), ("silent", &times.silent), ("idle", &times.idle)];
        for (key, time) in parts.into_iter().chain([("total", &times.total)]) {
            if let Some(time) = time {
                self.not_zero(path!["route", at, "timeout", key], time);
            }
        }
        let Some(total) = &times.total else { return };
        for (key, time) in parts {
            if time.as_ref().is_some_and(|time| time.0 >= total.0) {
                let message = format!("`{key}` is no shorter than `total`, which ends the exchange first");
                let path = path!["route", at, "timeout", key];
                self.report(Code::NoEffect, path, message, "write less, or more for `total`");
            }
        }
    }

    /// What a pool waits for takes some time.
    pub(super) fn pool_waits(&mut self, at: usize, pool: &PoolDoc) {
        let of_pool = [
            ("connect", &pool.timeout.connect),
            ("head", &pool.timeout.head),
            ("silent", &pool.timeout.silent),
            ("idle", &pool.timeout.idle),
        ];
        for (key, time) in of_pool {
            self.not_zero(path!["pool", at, "timeout", key], time);
        }
        self.not_zero(path!["pool", at, "reuse", "idle"], &pool.reuse.idle);
        self.not_zero(path!["pool", at, "resolve_every"], &pool.resolve_every);
    }

    /// What a pool waits for, where every route that leads to it ends its exchanges sooner.
    pub(super) fn pool_times(&mut self, at: usize, pool: &PoolDoc) {
        let Some(total) = self.longest_total(pool) else { return };
        let fixed = |time: Time| Some(Text(time));
        let per_try = if let PerTry::Fixed(time) = pool.retry.per_try.0 { fixed(time) } else { None };
        let copy = match pool.hedge.after.as_ref().map(|after| &after.0) {
            Some(CopyAfter::Fixed(time)) => fixed(*time),
            _ => None,
        };
        let some = |time: &Text<Time>| Some(time.clone());
        for (table, key, time) in [
            ("timeout", "connect", some(&pool.timeout.connect)),
            ("timeout", "head", some(&pool.timeout.head)),
            ("timeout", "silent", some(&pool.timeout.silent)),
            ("timeout", "idle", some(&pool.timeout.idle)),
            ("retry", "per_try", per_try),
            ("retry", "backoff", some(&pool.retry.backoff)),
            ("retry", "retry_after_max", some(&pool.retry.retry_after_max)),
            ("hedge", "after", copy),
            ("hedge", "at_least", some(&pool.hedge.at_least)),
            ("queue", "for", some(&pool.queue.wait)),
            ("breaker", "wait", some(&pool.breaker.wait)),
        ] {
            let path: &[Step<'_>] = path!["pool", at, table, key];
            if time.is_some_and(|time| time.0 >= total) && self.written(path) {
                let message =
                    format!("every route that leads here ends its exchanges within {total}: `{key}` is never over");
                self.report(Code::NoEffect, path, message, "write less, or more for `timeout.total` of a route");
            }
        }
    }

    /// The longest `timeout.total` of the routes that lead to a pool; `None` where something leads there without.
    fn longest_total(&self, pool: &PoolDoc) -> Option<Time> {
        let document = self.document;
        let stands_in = |fallback: &Option<String>| fallback.as_ref() == Some(&pool.name);
        let beside = document.pool.iter().any(|other| stands_in(&other.fallback.pool))
            || document
                .route
                .iter()
                .any(|route| stands_in(&route.breaker.fallback.pool) || stands_in(&route.mirror.pool));
        if beside || self.is_of_bytes(pool) {
            return None;
        }
        let routes = document.route.iter().filter(|route| route.pools().any(|name| name == pool.name));
        let totals: Option<Vec<Time>> = routes.map(|route| route.timeout.total.as_ref().map(|total| total.0)).collect();
        totals?.into_iter().max()
    }

    pub(super) fn health_times(&mut self, at: usize, health: &HealthDoc) {
        if let Some(timeout) = health.timeout.as_ref().filter(|timeout| timeout.0 > health.every.0) {
            let message = format!(
                "an endpoint that hangs is asked every {} and not every {}: a probe waits for the one before",
                timeout.0, health.every.0
            );
            self.report(Code::NoEffect, path!["pool", at, "health", "timeout"], message, "write at most `every`");
        }
        let doubt: &[Step<'_>] = path!["pool", at, "health", "every_in_doubt"];
        if health.every_in_doubt.as_ref().is_some_and(|doubt| doubt.0 > health.every.0) {
            let message = "endpoints in doubt would be asked less often than those that are known";
            self.report(Code::Conflict, doubt, message, "write at most `every`");
        }
    }
}
