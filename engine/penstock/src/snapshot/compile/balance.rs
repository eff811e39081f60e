//! How a pool's requests are divided, compiled.

use std::fmt::Write;
use std::time::Duration;

use policy::{BalanceSettings, Policy};

use super::time;
use crate::snapshot::division::{Bound, HashKey, Secret};
use crate::snapshot::schema::{Balance, PoolDoc, SameSite, StickyDoc};

/// How requests are divided among the endpoints of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Division {
    pub settings: BalanceSettings,
    /// What a hashing policy tells requests by.
    pub key: Option<HashKey>,
    pub sticky: Stickiness,
    /// How long an endpoint takes to its full share. Zero: none.
    pub slow_start: Duration,
    /// Of each endpoint, over all workers.
    pub requests_max: Option<u32>,
    pub connections_max: Option<u32>,
}

/// What holds a client to an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stickiness {
    Off,
    Cookie(CookieRule),
    /// The same key finds the same endpoint by hashing; a request that has none is balanced.
    Key(HashKey),
}

/// The cookie that names an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieRule {
    pub name: Box<str>,
    /// What follows its value in `Set-Cookie`: `; Path=/; HttpOnly`.
    pub attributes: Box<str>,
    pub ttl: Option<Duration>,
    /// The first one signs. None: a random one, gone with the process.
    pub secrets: Box<[Secret]>,
}

pub(super) fn division(doc: &PoolDoc) -> Division {
    Division {
        settings: BalanceSettings {
            policy: policy(doc),
            panic_percent: doc.spread.panic.0.0,
            overprovision_percent: doc.spread.overprovision.0.0,
        },
        key: doc.hash.as_ref().map(|key| key.0.clone()),
        sticky: sticky(&doc.sticky),
        slow_start: time(&doc.slow_start),
        requests_max: doc.limits.requests,
        connections_max: doc.limits.connections,
    }
}

fn policy(doc: &PoolDoc) -> Policy {
    let bound_percent = match (doc.spread.bound.0, doc.balance) {
        (Bound::At(share), _) => share.0,
        (Bound::Auto, Balance::Ring) => 125,
        (Bound::Auto | Bound::Off, _) => 0,
    };
    match doc.balance {
        Balance::Adaptive => Policy::Adaptive,
        Balance::RoundRobin => Policy::RoundRobin,
        Balance::Random => Policy::Random,
        Balance::LeastRequests => Policy::LeastRequests { choices: doc.spread.choices },
        Balance::Ring => Policy::Ring { bound_percent },
        Balance::Maglev => Policy::Maglev { size: doc.spread.table_size, bound_percent },
    }
}

fn sticky(doc: &StickyDoc) -> Stickiness {
    match (&doc.cookie, &doc.header, doc.client_address) {
        (Some(name), ..) => Stickiness::Cookie(CookieRule {
            name: name.as_str().into(),
            attributes: attributes(doc).into(),
            ttl: doc.ttl.as_ref().map(time),
            secrets: doc.secret.0.as_slice().into(),
        }),
        (None, Some(name), _) => Stickiness::Key(HashKey::Header(name.to_ascii_lowercase().into())),
        (None, None, true) => Stickiness::Key(HashKey::ClientAddress),
        (None, None, false) => Stickiness::Off,
    }
}

/// RFC 6265 §4.1.1, and `SameSite` of its successor's draft.
fn attributes(doc: &StickyDoc) -> String {
    let mut out = format!("; Path={}", doc.path);
    if let Some(domain) = &doc.domain {
        let _ = write!(out, "; Domain={domain}");
    }
    if let Some(ttl) = &doc.ttl {
        let _ = write!(out, "; Max-Age={}", ttl.0.0.as_secs());
    }
    for (flag, name) in [(doc.secure, "; Secure"), (doc.http_only, "; HttpOnly")] {
        out.push_str(if flag { name } else { "" });
    }
    out.push_str(match doc.same_site {
        SameSite::Strict => "; SameSite=Strict",
        SameSite::Lax => "; SameSite=Lax",
        SameSite::None => "; SameSite=None",
    });
    out
}
