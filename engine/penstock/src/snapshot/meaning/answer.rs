//! What an answer of the configuration's own must mean: a route's, or what stands in for a pool.

use super::Meaning;
use crate::limits;
use crate::snapshot::report::Code;
use crate::snapshot::schema::{FallbackDoc, PoolDoc, RespondDoc, RouteDoc};
use crate::snapshot::text::Step;

impl Meaning<'_> {
    /// `place` is where the answer stands.
    pub(super) fn fixed(&mut self, place: &[Step<'_>], answer: &RespondDoc) {
        let at = |key| [place, &[Step::Key(key)]].concat();
        if answer.headers.0.len() > limits::HEADER_RULES_MAX {
            let advice = format!("at most {} are supported", limits::HEADER_RULES_MAX);
            self.report(Code::BadValue, &at("headers"), "too many fields", advice);
        }
        match answer.status {
            Some(200..=599) => {}
            Some(status) => self.report(
                Code::BadValue,
                &at("status"),
                format!("{status} is no status of a final answer"),
                "write 200 to 599",
            ),
            None if *answer != RespondDoc::default() && !self.written(&at("status")) => {
                self.report(Code::MissingKey, place, "an answer needs a `status`", "write status = 200");
            }
            None => {}
        }
        self.content(place, answer);
    }

    fn content(&mut self, place: &[Step<'_>], answer: &RespondDoc) {
        let at = |key| [place, &[Step::Key(key)]].concat();
        let has_content = answer.body.is_some() || answer.body_file.is_some();
        if has_content && matches!(answer.status, Some(204 | 304)) {
            let message = "an answer of this status has no content";
            self.report(Code::Conflict, &at("status"), message, "leave the body out");
        }
        if answer.body.is_some() && answer.body_file.is_some() {
            let advice = "leave `body` or `body_file` out";
            return self.report(Code::Conflict, &at("body_file"), "an answer with two bodies", advice);
        }
        let limit = limits::FIXED_BODY_BYTES_MAX;
        if answer.body.as_ref().is_some_and(|body| body.len() > limit) {
            self.report(Code::BadValue, &at("body"), "the body is too long", format!("at most {limit} bytes"));
        }
        if let Some(file) = &answer.body_file {
            let wrong = match (self.files)(file) {
                Ok(content) if content.len() <= limit => return,
                Ok(_) => format!("is longer than {limit} bytes"),
                Err(error) => format!("cannot be read: {error}"),
            };
            self.report(Code::BadValue, &at("body_file"), format!("`{file}` {wrong}"), "");
        }
    }

    /// What `fallback` must mean.
    pub(super) fn fallback(&mut self, at: usize, pool: &PoolDoc) {
        let (place, answer) = (path!["pool", at, "fallback"], pool.fallback.answer());
        if let Some(name) = &pool.fallback.pool {
            self.pool_exists(name, path!["pool", at, "fallback", "pool"]);
            self.circle(at, pool);
            if answer != RespondDoc::default() {
                let message = "a fallback with a pool and an answer: which one is it?";
                self.report(Code::Conflict, place, message, "leave one of them out");
            }
        } else {
            self.fallback_fields(at, &answer);
            self.fixed(place, &answer);
        }
        if pool.fallback == FallbackDoc::default() {
            return;
        }
        if self.written(path!["pool", at, "breaker", "wait"]) && !pool.breaker.wait.0.0.is_zero() {
            let message = "requests do not wait where there is a fallback";
            self.report(Code::NoEffect, path!["pool", at, "breaker", "wait"], message, "leave it out");
        }
        if self.is_of_bytes(pool) {
            let message = "connections that are passed through have no fallback";
            self.report(Code::NoEffect, place, message, "list more endpoints, with a lower priority");
        }
    }

    /// It serves requests of any route, so that no names of a path stand for anything.
    fn fallback_fields(&mut self, at: usize, answer: &RespondDoc) {
        let place = path!["pool", at, "fallback", "headers"];
        self.lines(&RouteDoc::default(), &answer.headers.0, place);
        for line in &answer.headers.0 {
            if line.value.captures().next().is_some() || line.value.has_covered() {
                let message = format!("`{}` names a part of a path, and a pool has none", line.name);
                self.report(Code::Conflict, place, message, "leave it out");
            }
        }
    }

    /// A fallback that leads back to its own pool would go round for ever.
    fn circle(&mut self, at: usize, pool: &PoolDoc) {
        let pools = &self.document.pool;
        let next = |name: &str| pools.iter().find(|pool| pool.name == name)?.fallback.pool.as_deref();
        let chain = std::iter::successors(pool.fallback.pool.as_deref(), |name| next(name));
        let way: Vec<&str> = chain.take(limits::FALLBACKS_MAX + 1).collect();
        let place = path!["pool", at, "fallback", "pool"];
        if let Some(end) = way.iter().position(|name| *name == pool.name) {
            let round = way[..=end].join("` → `");
            let message = format!("a circle: `{}` → `{round}`", pool.name);
            self.report(Code::Conflict, place, message, "let one of them answer by itself");
        } else if way.len() > limits::FALLBACKS_MAX {
            let advice = format!("at most {} are supported", limits::FALLBACKS_MAX);
            self.report(Code::BadValue, place, "too many fallbacks of fallbacks", advice);
        }
    }
}
