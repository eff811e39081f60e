//! What the keys of `[[pool]]` that divide requests must mean, and which of them cannot stand together.

use super::Meaning;
use crate::limits;
use crate::snapshot::division::{Bound, HashKey};
use crate::snapshot::limit::ConcurrencyLimit;
use crate::snapshot::literal::is_token;
use crate::snapshot::report::Code;
use crate::snapshot::schema::{Balance, PoolDoc, PoolProtocol, ProxyProtocol, SameSite, StickyDoc};

/// Keys that only a sticky cookie has.
const OF_COOKIES: [&str; 7] = ["ttl", "path", "domain", "secure", "http_only", "same_site", "secret"];

impl Meaning<'_> {
    pub(super) fn division(&mut self, at: usize, pool: &PoolDoc) {
        self.hashing(at, pool);
        self.spread(at, pool);
        self.stickiness(at, pool);
        self.reuse(at, pool);
        self.limits_of_endpoints(at, pool);
        let zeroes = [("requests", pool.limits.requests), ("connections", pool.limits.connections)];
        for (key, _) in zeroes.into_iter().filter(|(_, limit)| *limit == Some(0)) {
            self.report(
                Code::BadValue,
                path!["pool", at, "limits", key],
                "a limit that lets nothing through",
                "leave it out for no limit; to take an endpoint out, give it weight=0",
            );
        }
    }

    fn hashing(&mut self, at: usize, pool: &PoolDoc) {
        let hashes = matches!(pool.balance, Balance::Ring | Balance::Maglev);
        match &pool.hash {
            None if hashes && !self.written(path!["pool", at, "hash"]) => self.report(
                Code::Conflict,
                path!["pool", at, "balance"],
                "this way to balance needs something to tell requests by",
                "add hash = \"client-address\", \"header:NAME\", \"cookie:NAME\", \"path\", \"query:NAME\" or \"uri\"",
            ),
            Some(_) if !hashes => self.report(
                Code::Conflict,
                path!["pool", at, "hash"],
                "only `ring` and `maglev` look at it",
                "add balance = \"maglev\"; or write `sticky` to hold sessions and balance the rest",
            ),
            Some(key) if self.is_of_bytes(pool) && key.0 != HashKey::ClientAddress => self.report(
                Code::Conflict,
                path!["pool", at, "hash"],
                format!("a tcp listener leads here, and bytes have no `{}`", key.0),
                "write \"client-address\"",
            ),
            _ => {}
        }
    }

    fn spread(&mut self, at: usize, pool: &PoolDoc) {
        let of = |key: &'static str| path!["pool", at, "spread", key].to_vec();
        self.within(&of("choices"), pool.spread.choices.into(), 2, 64);
        self.within(&of("table_size"), pool.spread.table_size.into(), 7, policy::balance::MAGLEV_SIZE_MAX.into());
        let hashes = matches!(pool.balance, Balance::Ring | Balance::Maglev);
        for (key, effective, whose) in [
            ("choices", pool.balance == Balance::LeastRequests, "`least-requests`"),
            ("table_size", pool.balance == Balance::Maglev, "`maglev`"),
            ("bound", hashes || pool.spread.bound.0 == Bound::Auto, "a policy that hashes"),
        ] {
            if !effective && self.written(&of(key)) {
                self.report(
                    Code::NoEffect,
                    &of(key),
                    format!("`{key}` has no effect here"),
                    format!("only {whose} looks at it"),
                );
            }
        }
    }

    fn stickiness(&mut self, at: usize, pool: &PoolDoc) {
        let sticky = &pool.sticky;
        let of = |key: &'static str| path!["pool", at, "sticky", key].to_vec();
        let kinds = [
            ("cookie", sticky.cookie.is_some()),
            ("header", sticky.header.is_some()),
            ("client_address", sticky.client_address),
        ];
        let mut given = kinds.into_iter().filter_map(|(key, given)| given.then_some(key));
        let kind = given.next();
        if let (Some(first), Some(second)) = (kind, given.next()) {
            let message = format!("a session is known by `{first}` already");
            self.report(Code::Conflict, &of(second), message, "write one of the two");
        }
        let hashes = matches!(pool.balance, Balance::Ring | Balance::Maglev);
        if let Some(key @ ("header" | "client_address")) = kind
            && hashes
        {
            self.report(
                Code::Conflict,
                &of(key),
                "the pool hashes already: two keys would pull a request two ways",
                "leave it out, or write another `balance`",
            );
        }
        if let Some(key @ ("header" | "cookie")) = kind
            && self.is_of_bytes(pool)
        {
            let message = format!("a tcp listener leads here, and bytes have no {key}");
            self.report(Code::Conflict, &of(key), message, "write client_address = true");
        }
        if let Some(name) = sticky.header.as_ref().filter(|name| !is_token(name)) {
            self.report(
                Code::BadValue,
                &of("header"),
                format!("`{name}` is no name of a field"),
                "write \"x-session\"",
            );
        }
        if kind == Some("cookie") {
            self.cookie(at, sticky);
        } else {
            let why = |key: &str| format!("`{key}` belongs to a cookie, and there is none");
            self.idle(path!["pool", at, "sticky"], &OF_COOKIES, why, "add cookie = \"penstock\"");
        }
    }

    /// RFC 6265 §4.1.1, the prefixes of RFC 6265bis §4.1.3, and what browsers refuse.
    fn cookie(&mut self, at: usize, sticky: &StickyDoc) {
        let of = |key: &'static str| path!["pool", at, "sticky", key].to_vec();
        let name = sticky.cookie.as_deref().unwrap_or_default();
        if !is_token(name) || name.len() > limits::COOKIE_NAME_BYTES_MAX {
            self.report(
                Code::BadValue,
                &of("cookie"),
                format!("`{name}` is no name of a cookie"),
                format!("write up to {} letters, digits, `-` and `_`", limits::COOKIE_NAME_BYTES_MAX),
            );
        }
        let visible = |text: &str| text.bytes().all(|b| (0x21..0x7f).contains(&b) && b != b';');
        if !sticky.path.starts_with('/') || !visible(&sticky.path) {
            let message = format!("`{}` is no path of a cookie", sticky.path);
            self.report(Code::BadValue, &of("path"), message, "write \"/\"");
        }
        if let Some(domain) = &sticky.domain
            && (domain.is_empty() || !domain.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b)))
        {
            self.report(Code::BadValue, &of("domain"), format!("`{domain}` is no domain"), "write \"example.net\"");
        }
        if let Some(ttl) = sticky.ttl.as_ref().filter(|ttl| ttl.0.0 < limits::STICKY_TTL_MIN) {
            let message = format!("a session that ends after {}", ttl.0);
            self.report(Code::BadValue, &of("ttl"), message, "write at least \"1m\", or leave it out");
        }
        if sticky.same_site == SameSite::None && !sticky.secure {
            self.report(
                Code::Conflict,
                &of("same_site"),
                "browsers refuse a cookie for every site that may travel in the clear",
                "add secure = true",
            );
        }
        let whole_host = sticky.path == "/" && sticky.domain.is_none();
        if name.starts_with("__Secure-") && !sticky.secure
            || name.starts_with("__Host-") && !(sticky.secure && whole_host)
        {
            self.report(
                Code::Conflict,
                &of("cookie"),
                "browsers refuse this name with these attributes",
                "`__Secure-` needs secure = true; `__Host-` also path = \"/\" and no domain",
            );
        }
        let count = sticky.secret.0.len();
        if count > limits::SECRETS_MAX {
            let advice = format!("at most {} are believed: end the sessions of the oldest", limits::SECRETS_MAX);
            self.report(Code::BadValue, &of("secret"), format!("{count} secrets"), advice);
        }
        if let Some(again) = (1..count).find(|&at| sticky.secret.0[..at].contains(&sticky.secret.0[at])) {
            let message = format!("`{}` is there twice", sticky.secret.0[again]);
            self.report(Code::Duplicate, &of("secret"), message, "leave one out");
        }
        if self.is_empty_list(&of("secret")) {
            self.report(Code::BadValue, &of("secret"), "no secret in the list", "leave it out for a random one");
        }
        if count == 0 && !self.written(&of("secret")) {
            self.report(
                Code::Temporary,
                &of("cookie"),
                "cookies are signed with a random secret: a restart and other machines do not know them",
                "add secret = \"file:/etc/penstock/secret\"",
            );
        }
    }

    /// Limits of which one keeps another from being reached.
    fn limits_of_endpoints(&mut self, at: usize, pool: &PoolDoc) {
        let path = path!["pool", at, "limits", "requests"];
        let Some(requests) = pool.limits.requests else { return };
        if let ConcurrencyLimit::Fixed(all) = pool.concurrency
            && all < requests
        {
            let message = format!("no endpoint ever has {requests} requests: the pool works on {all} at one time");
            self.report(Code::NoEffect, path, message, "write less, or more for `concurrency`");
        }
        if let Some(connections) = pool.limits.connections
            && connections < requests
            && pool.protocol == PoolProtocol::Http11
        {
            let message =
                format!("no endpoint ever has {requests} requests: each takes one of {connections} connections");
            self.report(Code::NoEffect, path, message, "write less, or more for `connections`");
        }
    }

    fn reuse(&mut self, at: usize, pool: &PoolDoc) {
        let of = |key: &'static str| path!["pool", at, "reuse", key].to_vec();
        let table = path!["pool", at, "reuse"];
        if pool.proxy_protocol != ProxyProtocol::Off {
            let why =
                |key: &str| format!("`{key}` for connections that are kept, and those with a PROXY header are not");
            self.idle(table, &["idle", "max_idle", "max_requests", "max_age"], why, "leave it out");
        } else if pool.reuse.max_idle == 0 && pool.protocol == PoolProtocol::Http11 {
            let why = |key: &str| format!("`{key}` for connections that are kept, and `max_idle` keeps none");
            self.idle(table, &["idle", "max_requests", "max_age"], why, "leave it out");
        } else if pool.reuse.max_age.as_ref().is_some_and(|age| age.0 <= pool.reuse.idle.0) {
            let why = |key: &str| format!("`{key}` is no shorter than `max_age`, which closes connections first");
            self.idle(table, &["idle"], why, "write less, or leave it out");
        }
        if matches!(pool.protocol, PoolProtocol::Http2 | PoolProtocol::Http3) {
            let why = |key: &str| {
                format!("`{key}` is about connections of one request at a time, and here requests share them")
            };
            self.idle(table, &["max_idle"], why, "leave it out");
        }
        if matches!(pool.protocol, PoolProtocol::Http2 | PoolProtocol::Http3) && pool.reuse.warm > 1 {
            let message = "requests share a connection here, and one of them is made ready";
            self.report(Code::NoEffect, &of("warm"), message, "write 1");
        }
        if let Some(age) = &pool.reuse.max_age {
            self.not_zero(&of("max_age"), age);
        }
        if pool.reuse.warm > pool.reuse.max_idle {
            self.report(
                Code::Conflict,
                &of("warm"),
                format!("{} connections are made ready, and {} are kept", pool.reuse.warm, pool.reuse.max_idle),
                "raise `max_idle`, or lower `warm`",
            );
        }
        if pool.reuse.warm > 0 && pool.proxy_protocol != ProxyProtocol::Off {
            self.report(
                Code::Conflict,
                &of("warm"),
                "a connection with a PROXY header belongs to one client: none can be made ready for the next",
                "leave it out",
            );
        }
        if pool.limits.connections.is_some_and(|most| pool.reuse.warm > most) {
            self.report(
                Code::Conflict,
                &of("warm"),
                "more connections are made ready than an endpoint may have",
                "raise `limits.connections`, or lower `warm`",
            );
        }
    }

    /// Whether a `tcp` listener leads to the pool.
    pub(super) fn is_of_bytes(&self, pool: &PoolDoc) -> bool {
        self.document.listen.iter().any(|door| door.pools_of_bytes().any(|name| name == pool.name))
    }
}
