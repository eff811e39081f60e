//! What `[[pool]]` must mean.

use std::time::Duration;

use super::Meaning;
use crate::limits;
use crate::snapshot::literal::Time;
use crate::snapshot::quantity::Size;
use crate::snapshot::repetition::{CopyAfter, PerTry, RetryCause};
use crate::snapshot::report::Code;
use crate::snapshot::schema::{PoolDoc, PoolProtocol, ProxyProtocol, SameHost};

impl Meaning<'_> {
    pub(super) fn pools(&mut self) {
        let servers = self.document.engine.resolver.0.len();
        if servers > limits::RESOLVERS_MAX {
            self.report(
                Code::BadValue,
                path!["engine", "resolver"],
                format!("{servers} DNS servers"),
                format!("at most {} are asked", limits::RESOLVERS_MAX),
            );
        }
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
            .map(|(index, endpoint)| (endpoint.0.source.to_string(), path!["pool", at, "endpoints", index].to_vec()));
        self.twice("the endpoint", addresses.collect::<Vec<_>>());
        self.within(path!["pool", at, "retry", "tries"], pool.retry.tries.into(), 1, limits::TRIES_MAX.into());
        self.repetition(at, pool);
        self.hedging(at, pool);
        self.breaker(path!["pool", at, "breaker"], &pool.breaker);
        self.admission(at, pool);
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
        self.division(at, pool);
        self.same_host(at, pool);
        self.pool_tls(at, pool);
        self.pool_waits(at, pool);
        if pool.resolve_every.0.0 < limits::RESOLVE_EVERY_MIN && pool.resolve_every.0.0 > Duration::ZERO {
            self.report(
                Code::BadValue,
                path!["pool", at, "resolve_every"],
                "names would be resolved more than once a second",
                "write at least \"1s\"",
            );
        }
        self.resolution(at, pool);
        self.pool_times(at, pool);
        self.fallback(at, pool);
        self.health(at, &pool.health);
        self.outlier(at, pool);
        let document = self.document;
        let known = |name: &str| document.pool.iter().any(|pool| pool.name == name);
        let used = |name: &str| {
            document.route.is_empty()
                || document.listen.iter().any(|door| door.pool.as_deref() == Some(name))
                || document.listen.iter().any(|door| door.pools_of_bytes().any(|pool| pool == name || !known(pool)))
                || document.vip.iter().any(|vip| vip.pool == name || !known(&vip.pool))
                || document.pool.iter().any(|pool| pool.fallback.pool.as_deref() == Some(name))
                // A route that leads nowhere is an error already, and may have been meant to lead here.
                || document.route.iter().any(|route| {
                    let beside = [&route.mirror.pool, &route.breaker.fallback.pool];
                    let mut pools = route.pools().chain(beside.into_iter().filter_map(Option::as_deref));
                    let answers = route.redirect.to.is_some() || route.respond.status.is_some();
                    pools.any(|pool| pool == name || !known(pool)) || !answers && route.pools().next().is_none()
                })
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

    /// How often names are asked for, where there are any.
    fn resolution(&mut self, at: usize, pool: &PoolDoc) {
        if !pool.endpoints.is_empty() && pool.endpoints.iter().all(|endpoint| endpoint.0.source.is_literal()) {
            let why = |key: &str| format!("`{key}` for names, and all endpoints are addresses");
            self.idle(path!["pool", at], &["resolve_every"], why, "leave it out");
        }
    }

    /// What `same_host` must mean.
    fn same_host(&mut self, at: usize, pool: &PoolDoc) {
        if pool.same_host == SameHost::Off {
            return;
        }
        let why = if pool.protocol != PoolProtocol::Http11
            || pool.tls.ca.is_some()
            || pool.endpoints.iter().any(|endpoint| endpoint.0.tls)
        {
            "the shortcut is for HTTP/1.1 in the clear"
        } else if pool.proxy_protocol != ProxyProtocol::Off {
            "connections with a PROXY header carry one client's requests, and are not worth the shortcut"
        } else {
            return;
        };
        self.report(Code::Conflict, path!["pool", at, "same_host"], why, "leave it out");
    }

    /// What `hedge` must mean.
    fn hedging(&mut self, at: usize, pool: &PoolDoc) {
        let hedge = &pool.hedge;
        let Some(after) = &hedge.after else {
            let why = |key: &str| format!("`{key}` for copies of slow requests, and nothing says what is slow");
            return self.idle(path!["pool", at, "hedge"], &["at_least", "budget"], why, "add after = \"95%\"");
        };
        if matches!(after.0, CopyAfter::Fixed(_)) && self.written(path!["pool", at, "hedge", "at_least"]) {
            let message = "the soonest for what is learnt, and `after` is a time";
            self.report(Code::NoEffect, path!["pool", at, "hedge", "at_least"], message, "leave it out");
        }
        match &after.0 {
            CopyAfter::Fixed(after) => self.sooner_than_the_head(at, pool, "hedge", "after", *after),
            CopyAfter::Share(_) => self.sooner_than_the_head(at, pool, "hedge", "at_least", hedge.at_least.0),
        }
        if pool.endpoints.len() == 1 && pool.endpoints.iter().all(|endpoint| endpoint.0.source.is_literal()) {
            let message = "a copy goes to another endpoint, and there is one";
            self.report(
                Code::NoEffect,
                path!["pool", at, "hedge", "after"],
                message,
                "add an endpoint, or leave it out",
            );
        }
        if hedge.budget.0.0 == 0 {
            let message = "a budget of nothing, and no copy is ever sent";
            self.report(
                Code::Conflict,
                path!["pool", at, "hedge", "budget"],
                message,
                "write `5%`, or leave `after` out",
            );
        }
        if pool.retry.tries < 2 {
            let message = "a copy is a second try, and `retry.tries` allows one";
            self.report(Code::Conflict, path!["pool", at, "hedge", "after"], message, "write retry.tries = 2 or more");
        }
    }

    /// What would follow an answer's head that takes too long comes before nobody waits for it any more.
    fn sooner_than_the_head(&mut self, at: usize, pool: &PoolDoc, table: &'static str, key: &'static str, time: Time) {
        let of_routes = self.document.route.iter().filter_map(|route| route.timeout.head.as_ref());
        let patience = of_routes.map(|head| head.0).fold(pool.timeout.head.0, Time::max);
        if time >= patience {
            let message = format!("`{key}` is no shorter than `timeout.head`, which ends the wait for an answer");
            self.report(
                Code::NoEffect,
                path!["pool", at, table, key],
                message,
                "write less, or more for `timeout.head`",
            );
        }
    }

    /// What `retry` must mean.
    fn repetition(&mut self, at: usize, pool: &PoolDoc) {
        let retry = &pool.retry;
        for (first, cause) in retry.on.iter().enumerate() {
            if retry.on[..first].contains(cause) {
                let message = format!("the cause `{}` is there twice", cause.0);
                self.report(Code::Duplicate, path!["pool", at, "retry", "on", first], message, "leave one out");
            }
        }
        if retry.backoff_max.0 < retry.backoff.0 {
            let message = "the longest pause is shorter than the first one";
            self.report(Code::Conflict, path!["pool", at, "retry", "backoff_max"], message, "write at least `backoff`");
        }
        if retry.buffer.0.0 > limits::REPLAY_BYTES_MAX {
            let advice = format!("write at most `{}`", Size(limits::REPLAY_BYTES_MAX));
            self.report(
                Code::BadValue,
                path!["pool", at, "retry", "buffer"],
                "too much to keep of each request",
                advice,
            );
        }
        let waits_for_answers = retry.on.iter().any(|cause| cause.0 == RetryCause::Timeout);
        if !waits_for_answers && self.written(path!["pool", at, "retry", "per_try"]) && retry.per_try.0 != PerTry::Off {
            let message = "a time for each try, and no try is given up for its time";
            self.report(Code::NoEffect, path!["pool", at, "retry", "per_try"], message, "add `timeout` to `on`");
        }
        if let PerTry::Fixed(per_try) = &retry.per_try.0 {
            self.sooner_than_the_head(at, pool, "retry", "per_try", *per_try);
        }
        let pauses_first = retry.on.iter().any(|cause| matches!(cause.0, RetryCause::Status(_)));
        if retry.tries > 1 && !retry.on.is_empty() && !pauses_first {
            let why = |key: &str| format!("`{key}` for answers that are tried again, and `on` has no status");
            self.idle(path!["pool", at, "retry"], &["retry_after_max"], why, "add 503 to `on`, or leave it out");
            if retry.tries == 2 {
                let why = |key: &str| format!("`{key}` for pauses, and a first retry for these causes makes none");
                self.idle(
                    path!["pool", at, "retry"],
                    &["backoff", "backoff_max"],
                    why,
                    "write tries = 3, or leave it out",
                );
            }
        }
        if retry.on.is_empty() && retry.tries > 1 && self.is_empty_list(path!["pool", at, "retry", "on"]) {
            let message = "no cause to try again: nothing is";
            self.report(Code::NoEffect, path!["pool", at, "retry", "on"], message, "write tries = 1 instead");
        }
        if retry.tries == 1 {
            let keys =
                ["on", "per_try", "backoff", "backoff_max", "retry_after_max", "non_idempotent", "buffer", "budget"];
            let why = |key: &str| format!("`{key}` for retries, and `tries` allows none");
            self.idle(path!["pool", at, "retry"], &keys, why, "write tries = 2, or leave it out");
        }
    }
}
