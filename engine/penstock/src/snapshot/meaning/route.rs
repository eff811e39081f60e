//! What `[[route]]` must mean.

use std::collections::HashSet;

use super::Meaning;
use crate::limits;
use crate::snapshot::compile::{default_route_name, rules_of};
use crate::snapshot::report::Code;
use crate::snapshot::rewrite::{Format, HeaderLine};
use crate::snapshot::route::{RouteId, shadowed};
use crate::snapshot::schema::{
    AdaptiveDoc, Forwarded, HeadersDoc, MirrorDoc, PaceDoc, PoolProtocol, RedirectDoc, RespondDoc, RewriteDoc,
    RouteBreakerDoc, RouteDoc, RouteTimeouts, WebSocketDoc,
};
use crate::snapshot::share::Sticky;
use crate::snapshot::text::Step;
use proto::http::{Known, KnownSet};

/// Hop-by-hop, framing, or written by us from a verdict.
const PROTECTED: KnownSet = KnownSet::of(&[
    Known::Connection,
    Known::ContentLength,
    Known::Expect,
    Known::Host,
    Known::Http2Settings,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::Te,
    Known::Trailer,
    Known::TransferEncoding,
    Known::Upgrade,
    Known::Via,
]);

impl Meaning<'_> {
    pub(super) fn routes(&mut self) {
        let document = self.document;
        for (at, route) in document.route.iter().enumerate() {
            self.action(at, route);
            self.matched(at, route);
            self.route_times(at, route);
            self.websockets(at, &route.websocket);
            self.route_breaker(at, route);
            self.grpc_web(at, route);
            self.rewrites(at, route);
            self.answers(at, route);
            self.qos_of(at, route);
        }
        self.shadows();
    }

    /// gRPC-Web becomes gRPC, which HTTP/1.1 cannot carry.
    fn grpc_web(&mut self, at: usize, route: &RouteDoc) {
        let speaks_http1 = |name: &str| {
            self.document.pool.iter().any(|pool| pool.name == name && pool.protocol == PoolProtocol::Http11)
        };
        let pool = route.pools().find(|name| route.grpc_web && speaks_http1(name));
        if let Some(pool) = pool {
            let message = format!("gRPC needs HTTP/2, and the pool `{pool}` speaks HTTP/1.1");
            self.report(Code::Conflict, path!["route", at, "grpc_web"], message, "write protocol = \"h2\" in the pool");
        }
    }

    /// Exactly one answer to where a request goes, and nothing beside it that contradicts it.
    fn action(&mut self, at: usize, route: &RouteDoc) {
        let given = self.given(at, route);
        match given.as_slice() {
            [] => self.report(
                Code::MissingKey,
                path!["route", at],
                "`pool` is missing in [[route]]",
                "`pool`: Where such requests go; or `split`, `candidates`, `redirect`, `respond`",
            ),
            [_] => {}
            [first, second, ..] => self.report(
                Code::Conflict,
                path!["route", at, *second],
                format!("a route with `{first}` and `{second}`: which one is it?"),
                "leave one of them out",
            ),
        }
        if let Some(pool) = &route.pool {
            self.pool_exists(pool, path!["route", at, "pool"]);
        }
        self.split(at, route);
        self.candidates(at, route);
        if let Some(pool) = &route.mirror.pool {
            self.pool_exists(pool, path!["route", at, "mirror", "pool"]);
            if route.pools().any(|target| target == pool) {
                self.report(
                    Code::Conflict,
                    path!["route", at, "mirror", "pool"],
                    "a mirror of the pool that the requests go to: they would all be served twice",
                    "name another pool",
                );
            }
            if route.mirror.share.0.0 == 0 {
                let message = "a share of 0%: no request is ever copied";
                self.report(Code::NoEffect, path!["route", at, "mirror", "share"], message, "leave `mirror` out");
            }
        } else if route.mirror != MirrorDoc::default() && !self.written(path!["route", at, "mirror", "pool"]) {
            self.report(Code::MissingKey, path!["route", at, "mirror"], "a mirror needs a `pool`", "name the pool");
        }
        if let ["redirect" | "respond"] = given.as_slice() {
            self.asks_no_endpoint(at, route, given[0]);
        }
    }

    /// What says where a request goes. A route has exactly one of them.
    fn given(&self, at: usize, route: &RouteDoc) -> Vec<&'static str> {
        let written = |key: &str, inner: &str| self.written(path!["route", at, key, inner]);
        let unread = |key| self.written(path!["route", at, key]) && !self.is_empty_list(path!["route", at, key]);
        [
            ("pool", unread("pool")),
            ("split", unread("split")),
            ("candidates", unread("candidates")),
            ("redirect", route.redirect != RedirectDoc::default() || written("redirect", "to")),
            ("respond", route.respond != RespondDoc::default() || written("respond", "status")),
        ]
        .into_iter()
        .filter_map(|(key, given)| given.then_some(key))
        .collect()
    }

    /// Nothing about endpoints belongs to a route that asks none.
    fn asks_no_endpoint(&mut self, at: usize, route: &RouteDoc, action: &str) {
        for (key, said) in [
            ("rewrite", route.rewrite != RewriteDoc::default()),
            ("request_headers", route.request_headers != HeadersDoc::default()),
            ("mirror", route.mirror.pool.is_some()),
            ("raw_path", route.raw_path),
            ("grpc_web", route.grpc_web),
            ("timeout", route.timeout != RouteTimeouts::default()),
            ("breaker", route.breaker != RouteBreakerDoc::default()),
            ("class", route.class.is_some()),
            ("limit", !route.limit.is_empty()),
            ("bandwidth", route.bandwidth.is_some()),
            ("rate", route.rate.is_some()),
            ("per_client", route.per_client != PaceDoc::default()),
            ("websocket", route.websocket != WebSocketDoc::default()),
        ] {
            if said {
                let message = format!("`{key}` has no effect: a route with `{action}` asks no endpoint");
                self.report(Code::Conflict, path!["route", at, key], message, "leave it out");
            }
        }
    }

    fn split(&mut self, at: usize, route: &RouteDoc) {
        let mut seen = HashSet::new();
        for (index, share) in route.split.iter().enumerate() {
            let path: &[Step<'_>] = path!["route", at, "split", index];
            self.pool_exists(&share.0.pool, path);
            if !seen.insert(&share.0.pool) {
                self.report(
                    Code::Duplicate,
                    path,
                    format!("the pool `{}` is there twice", share.0.pool),
                    "add the weights",
                );
            }
        }
        if !route.split.is_empty() && route.split.iter().all(|share| share.0.weight == 0) {
            self.report(
                Code::BadValue,
                path!["route", at, "split"],
                "a split without any weight: such requests have nowhere to go",
                "write [\"stable weight=99\", \"canary weight=1\"]",
            );
        }
        if route.split.is_empty() && route.sticky.0 != Sticky::Client {
            self.report(Code::NoEffect, path!["route", at, "sticky"], "`sticky` without a `split`", "leave it out");
        }
    }

    fn candidates(&mut self, at: usize, route: &RouteDoc) {
        let mut seen = HashSet::new();
        for (index, candidate) in route.candidates.iter().enumerate() {
            let path: &[Step<'_>] = path!["route", at, "candidates", index];
            self.pool_exists(&candidate.0.pool, path);
            if !seen.insert(&candidate.0.pool) {
                let message = format!("the pool `{}` is there twice", candidate.0.pool);
                self.report(Code::Duplicate, path, message, "leave one of them out");
            }
        }
        let (place, count) = (path!["route", at, "candidates"], route.candidates.len());
        if let [only] = route.candidates.as_slice() {
            let advice = format!("write pool = \"{}\"", only.0.pool);
            self.report(Code::NoEffect, place, "one candidate: there is nothing to choose", advice);
        }
        if count > limits::CANDIDATES_MAX {
            let advice = format!("at most {} are supported", limits::CANDIDATES_MAX);
            self.report(Code::BadValue, place, format!("{count} of `candidates`"), advice);
        }
        self.adaptive(at, route);
    }

    fn adaptive(&mut self, at: usize, route: &RouteDoc) {
        let AdaptiveDoc { margin, hold, explore, .. } = &route.adaptive;
        if route.candidates.is_empty() {
            if route.adaptive != AdaptiveDoc::default() && !self.written(path!["route", at, "candidates"]) {
                let place = path!["route", at, "adaptive"];
                self.report(Code::NoEffect, place, "`adaptive` without `candidates`", "leave it out");
            }
            return;
        }
        if explore.0.0 > limits::EXPLORE_PERCENT_MAX {
            let advice = format!("at most {}% go elsewhere to learn; `split` divides", limits::EXPLORE_PERCENT_MAX);
            let message = format!("`explore` cannot be {}", explore.0);
            self.report(Code::BadValue, path!["route", at, "adaptive", "explore"], message, advice);
        }
        if margin.0.0 == 0 && hold.0.0.is_zero() {
            let place = path!["route", at, "adaptive", "hold"];
            let message = "neither a margin nor a time to hold: the choice would change with every answer";
            self.report(Code::Conflict, place, message, "leave one of them to its default");
        }
    }

    fn matched(&mut self, at: usize, route: &RouteDoc) {
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
        let counts = [
            ("path", route.path.0.len(), limits::ROUTE_PATHS_MAX),
            ("header", route.header.0.len(), limits::CONDITIONS_MAX),
            ("query", route.query.0.len(), limits::CONDITIONS_MAX),
            ("client", route.client.0.len(), limits::ROUTE_PATHS_MAX),
        ];
        for (key, count, max) in counts {
            if count > max {
                let advice = format!("at most {max} are supported");
                self.report(Code::BadValue, path!["route", at, key], format!("{count} of `{key}`"), advice);
            }
        }
    }

    fn websockets(&mut self, at: usize, doc: &WebSocketDoc) {
        for (key, time) in [("idle", &doc.idle), ("ping", &doc.ping), ("drain", &Some(doc.drain.clone()))] {
            if let Some(time) = time {
                self.not_zero(path!["route", at, "websocket", key], time);
            }
        }
        for (key, size) in [("message_max", &doc.message_max), ("frame_max", &doc.frame_max)] {
            if size.as_ref().is_some_and(|size| size.0.0 == 0) {
                let message = format!("`{key}` cannot be zero: no message has a place in it");
                self.report(Code::BadValue, path!["route", at, "websocket", key], message, "leave it out for no limit");
            }
        }
        if let (Some(idle), Some(ping)) = (&doc.idle, &doc.ping)
            && ping.0 >= idle.0
        {
            let message = "no Ping is ever sent: who is silent for so long is past `idle`";
            self.report(Code::NoEffect, path!["route", at, "websocket", "ping"], message, "write less than `idle`");
        }
        if let (Some(message_max), Some(frame_max)) = (&doc.message_max, &doc.frame_max)
            && frame_max.0 >= message_max.0
        {
            let message = "no frame is as long: its message would be longer than `message_max`";
            let path = path!["route", at, "websocket", "frame_max"];
            self.report(Code::NoEffect, path, message, "write less than `message_max`, or leave it out");
        }
        let own = WebSocketDoc { inspect: doc.inspect, ..WebSocketDoc::default() };
        if !doc.inspect && *doc != own {
            self.report(
                Code::Conflict,
                path!["route", at, "websocket", "inspect"],
                "without `inspect` nothing else about WebSockets has an effect",
                "leave the rest out, or this",
            );
        }
    }

    fn rewrites(&mut self, at: usize, route: &RouteDoc) {
        if let Some(path) = &route.rewrite.path {
            self.captures(route, &path.0.0, path!["route", at, "rewrite", "path"]);
        }
        self.headers(at, route, &route.request_headers, "request_headers");
        self.headers(at, route, &route.response_headers, "response_headers");
    }

    fn headers(&mut self, at: usize, route: &RouteDoc, headers: &HeadersDoc, section: &'static str) {
        let count = headers.set.0.len() + headers.add.0.len();
        if count > limits::HEADER_RULES_MAX {
            let advice = format!("at most {} are supported", limits::HEADER_RULES_MAX);
            self.report(Code::BadValue, path!["route", at, section], format!("{count} fields to set and add"), advice);
        }
        for (key, lines) in [("set", &headers.set), ("add", &headers.add)] {
            self.lines(route, &lines.0, &[Step::Key("route"), at.into(), section.into(), key.into()]);
        }
        for name in &headers.remove.0 {
            self.unprotected(route, &name.0, path!["route", at, section, "remove"]);
        }
        for line in &headers.set.0 {
            if headers.remove.0.iter().any(|name| name.0.eq_ignore_ascii_case(&line.name)) {
                self.report(
                    Code::Conflict,
                    path!["route", at, section, "remove"],
                    format!("`{}` is set and removed", line.name),
                    "`set` alone takes the place of what came",
                );
            }
        }
    }

    pub(super) fn lines(&mut self, route: &RouteDoc, lines: &[HeaderLine], place: &[Step<'_>]) {
        for line in lines {
            self.unprotected(route, &line.name, place);
            self.captures(route, &line.value, place);
        }
    }

    fn unprotected(&mut self, route: &RouteDoc, name: &str, place: &[Step<'_>]) {
        let known = Known::from_name(name.as_bytes());
        let x = matches!(known, Known::XForwardedFor | Known::XForwardedProto | Known::XForwardedHost)
            && matches!(route.forwarded, Forwarded::XForwarded | Forwarded::Both);
        let rfc = known == Known::Forwarded && matches!(route.forwarded, Forwarded::Forwarded | Forwarded::Both);
        let advice = match known {
            Known::Host => "write rewrite = { host = \"…\" }",
            Known::Via => "write [engine] via = \"…\"",
            Known::Server => "write [engine] server = \"…\"",
            _ if x || rfc => "write forwarded = \"off\" to say it yourself",
            _ => "it frames a message or concerns one connection",
        };
        if PROTECTED.contains(known) || x || rfc || known == Known::Server {
            self.report(Code::Conflict, place, format!("`{name}` is not a route's to change"), advice);
        }
    }

    /// Every name in a text must be in all of the route's paths, and a `*` in one must be in the other.
    fn captures(&mut self, route: &RouteDoc, format: &Format, place: &[Step<'_>]) {
        for name in format.captures() {
            if let Some(path) = route.path.0.iter().find(|path| !path.names(name)) {
                self.report(
                    Code::UnknownName,
                    place,
                    format!("there is no `{{{name}}}` in the path `{path}`"),
                    "a name stands for a segment of the route's path: `/users/{id}/{rest...}`",
                );
            }
        }
        if format.has_covered()
            && let Some(path) = route.path.0.iter().find(|path| !path.to_string().ends_with("/*"))
        {
            self.report(
                Code::Conflict,
                place,
                format!("a `*` stands for nothing: the path `{path}` has none"),
                "write path = \"/v1/*\" for the route",
            );
        }
    }

    /// Redirects and answers of our own.
    fn answers(&mut self, at: usize, route: &RouteDoc) {
        match &route.redirect.to {
            Some(to) => self.captures(route, &to.0.0, path!["route", at, "redirect", "to"]),
            None if route.redirect != RedirectDoc::default() && !self.written(path!["route", at, "redirect", "to"]) => {
                let place = path!["route", at, "redirect"];
                self.report(Code::MissingKey, place, "a redirect needs `to`", "write to = \"https://{host}{path}\"");
            }
            None => {}
        }
        if ![301, 302, 303, 307, 308].contains(&route.redirect.status) {
            self.report(
                Code::BadValue,
                path!["route", at, "redirect", "status"],
                format!("{} is no redirect", route.redirect.status),
                "write 301, 302, 303, 307 or 308",
            );
        }
        self.respond(at, route);
    }

    fn respond(&mut self, at: usize, route: &RouteDoc) {
        let place = path!["route", at, "respond"];
        self.lines(route, &route.respond.headers.0, path!["route", at, "respond", "headers"]);
        self.fixed(place, &route.respond);
    }

    /// Routes that an earlier one leaves nothing.
    fn shadows(&mut self) {
        let document = self.document;
        let of = |(at, route): (usize, &RouteDoc)| rules_of(route, RouteId(at as u16));
        let rules: Vec<_> = document.route.iter().enumerate().flat_map(of).collect();
        let shadowed = shadowed(&rules);
        for (at, route) in document.route.iter().enumerate() {
            let earlier: Vec<_> = (0..rules.len())
                .filter(|&rule| usize::from(rules[rule].to.route.0) == at)
                .map(|rule| shadowed[rule].map(|first| usize::from(rules[first].to.route.0)))
                .collect();
            let Some(Some(first)) = earlier.iter().find(|first| first.is_some()) else { continue };
            let name = route.name.clone().unwrap_or_else(|| default_route_name(route));
            let how = if earlier.iter().all(Option::is_some) { "can never match" } else { "is partly out of reach" };
            let message = format!("route `{name}` {how}: an earlier route takes the same host, path and method");
            let advice = format!("shadowed by the route at line {}", self.line(path!["route", *first]));
            self.report(Code::Shadowed, path!["route", at], message, advice);
        }
    }
}
