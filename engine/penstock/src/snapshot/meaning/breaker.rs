//! What `breaker` must mean, of a pool and of a route.

use super::Meaning;
use crate::snapshot::report::Code;
use crate::snapshot::schema::{BreakerDoc, FallbackDoc, RespondDoc, RouteBreakerDoc, RouteDoc};
use crate::snapshot::text::Step;

impl Meaning<'_> {
    /// `place` is where it stands.
    pub(super) fn breaker(&mut self, place: &[Step<'_>], breaker: &BreakerDoc) {
        let at = |key| [place, &[Step::Key(key)]].concat();
        self.within(&at("trials"), breaker.trials.into(), 1, policy::breaker::TRIALS_MAX.into());
        self.not_zero(&at("window"), &breaker.window);
        self.not_zero(&at("open_for"), &breaker.open_for);
        match (&breaker.slow_rate, &breaker.slower_than) {
            (Some(_), None) => {
                let message = "a share of slow calls, and nothing says what is slow";
                self.report(Code::MissingKey, &at("slow_rate"), message, "add slower_than = \"1s\"");
            }
            (None, Some(_)) => {
                let message = "what is slow, and no share of slow calls opens the breaker";
                self.report(Code::NoEffect, &at("slower_than"), message, "add slow_rate = \"50%\"");
            }
            _ => {}
        }
        for (key, rate) in [("failure_rate", &breaker.failure_rate), ("slow_rate", &breaker.slow_rate)] {
            if rate.as_ref().is_some_and(|rate| rate.0.0 == 0) {
                let message = format!("`{key}` of 0% would always be reached");
                self.report(Code::BadValue, &at(key), message, "leave it out for none");
            }
        }
        let watched = breaker.failure_rate.is_some() || breaker.slow_rate.is_some();
        if !watched {
            let why = |key: &str| format!("`{key}` has no effect without a share to take");
            self.idle(place, &["window", "calls_min"], why, "add failure_rate = \"50%\"");
        }
        if !watched && breaker.failures == 0 {
            let why = |key: &str| format!("`{key}` of a breaker that never opens");
            let keys = ["open_for", "trials", "count_500", "wait"];
            self.idle(place, &keys, why, "add failures = 5 or failure_rate = \"50%\", or leave it out");
        }
    }

    pub(super) fn route_breaker(&mut self, at: usize, route: &RouteDoc) {
        let (place, breaker) = (path!["route", at, "breaker"], &route.breaker);
        if !breaker.enabled {
            if *breaker != RouteBreakerDoc::default() {
                let message = "a breaker that is not there: `enabled` is false";
                self.report(Code::NoEffect, place, message, "add enabled = true, or leave the rest out");
            }
            return;
        }
        self.breaker(place, &breaker.settings());
        if breaker.failures == 0 && breaker.failure_rate.is_none() && breaker.slow_rate.is_none() {
            let message = "nothing opens this breaker: `failures` is 0, and no share does";
            self.report(Code::Conflict, path!["route", at, "breaker", "failures"], message, "leave it to its default");
        }
        self.route_fallback(at, route);
    }

    fn route_fallback(&mut self, at: usize, route: &RouteDoc) {
        let (place, fallback) = (path!["route", at, "breaker", "fallback"], &route.breaker.fallback);
        let answer = fallback.answer();
        let FallbackDoc { pool: Some(name), .. } = fallback else {
            self.lines(route, &answer.headers.0, path!["route", at, "breaker", "fallback", "headers"]);
            return self.fixed(place, &answer);
        };
        let pool: &[Step<'_>] = path!["route", at, "breaker", "fallback", "pool"];
        self.pool_exists(name, pool);
        if answer != RespondDoc::default() {
            let message = "a fallback with a pool and an answer: which one is it?";
            self.report(Code::Conflict, place, message, "leave one of them out");
        }
        if route.pools().any(|target| target == name) {
            let message = format!("`{name}` stands in for itself: the route leads there already");
            self.report(Code::Conflict, pool, message, "name another pool, or write a status");
        }
    }
}
