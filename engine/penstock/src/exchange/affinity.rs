//! What holds a request to an endpoint: the value that the pool hashes, and the sticky cookie on its way in and out.
//!
//! What holds here: a pool that asks for neither pays nothing; whatever a client sends is read within the bounds of its head,
//! and what we did not sign is as good as not there. The cookie is between the client and us: it is taken off the request
//! before an endpoint sees it.
//!
//! An answer that says it is for everybody (`Cache-Control: public`, `s-maxage`) carries no cookie: a shared cache would hand
//! one client's to all (RFC 9111 §7.3). The session begins with the next answer then.

use std::net::IpAddr;

use policy::hash::xxh64;
use proto::http::{Fields, Known, cookie};

use super::{Door, Peer, Request, headers};
use crate::snapshot::{CookieRule, HashKey, Pool, Stickiness};
use crate::upstream::{Affinity, Cluster};

/// Reads from a request what its pool tells requests by.
pub(super) fn affinity(door: &Door, request: &Request, peer: &Peer, pool: &Pool, cluster: &Cluster) -> Affinity {
    let key = match (&pool.division.sticky, &pool.division.key) {
        (Stickiness::Off, None) => return Affinity::default(),
        (Stickiness::Key(key), _) | (_, Some(key)) => Some(key),
        (Stickiness::Cookie(_), None) => None,
    };
    let mut fields = door.desk.request_fields.borrow_mut();
    headers::ensure_parsed(door, request, &mut fields);
    let bytes = request.bytes.bytes();
    let token = match &pool.division.sticky {
        Stickiness::Cookie(rule) => {
            cookies(&fields, bytes, &rule.name).find_map(|value| cluster.token(value, rule.ttl))
        }
        Stickiness::Off | Stickiness::Key(_) => None,
    };
    let mut client = [0; 45];
    let value = match key {
        Some(HashKey::ClientAddress) => Some(door.client_text(request, &fields, peer, &mut client)),
        Some(key) => told_by(key, request, &fields),
        None => None,
    };
    Affinity { key: value.map(|value| xxh64(value, 0)), token, ..Affinity::default() }
}

/// The same of a connection whose bytes nobody reads: all that is known of it is its client.
#[must_use]
pub fn affinity_of_bytes(pool: &Pool, client: Option<IpAddr>) -> Affinity {
    let by_address = pool.division.sticky == Stickiness::Key(HashKey::ClientAddress)
        || pool.division.key == Some(HashKey::ClientAddress);
    let key = client.filter(|_| by_address).map(|_| xxh64(Peer::new(client, false, None).text(), 0));
    Affinity { key, ..Affinity::default() }
}

/// What a request has of a kind; nothing when it lacks it or it is empty.
fn told_by<'a>(key: &HashKey, request: &'a Request, fields: &Fields) -> Option<&'a [u8]> {
    let bytes = request.bytes.bytes();
    let head = &request.head;
    let value = match key {
        HashKey::ClientAddress => None,
        HashKey::Header(name) => match Known::from_name(name.as_bytes()) {
            Known::Other => fields.find(name.as_bytes(), bytes).map(|field| field.value.of(bytes)),
            known => fields.value(known, bytes),
        },
        HashKey::Cookie(name) => cookies(fields, bytes, name).next(),
        HashKey::Path => Some(head.path.of(bytes)),
        HashKey::Query(name) => parameter(head.query.of(bytes), name.as_bytes()),
        HashKey::Uri => Some(head.target.of(bytes)),
    };
    value.filter(|value| !value.is_empty())
}

/// The values of a cookie, wherever and how often it is there.
fn cookies<'a>(fields: &Fields, bytes: &'a [u8], name: &str) -> impl Iterator<Item = &'a [u8]> {
    let pairs = fields.all(Known::Cookie).flat_map(|field| cookie::pairs(field.value.of(bytes)));
    pairs.filter_map(move |(other, value)| (other == name.as_bytes()).then_some(value))
}

/// The first parameter of that name, as it was sent.
fn parameter<'a>(query: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let query = query.strip_prefix(b"?").unwrap_or(query);
    query.split(|&byte| byte == b'&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="))
}

/// The name of the pool's sticky cookie, if the request has one: it must not reach an endpoint.
pub(super) fn cookie_to_strip<'a>(pool: &'a Pool, fields: &Fields, bytes: &[u8]) -> Option<&'a CookieRule> {
    let Stickiness::Cookie(rule) = &pool.division.sticky else { return None };
    cookies(fields, bytes, &rule.name).next().is_some().then_some(rule)
}

/// Appends the request's cookies without the one that is ours; several fields become one (RFC 9113 §8.2.3 joins them so).
pub(super) fn strip_cookie(rule: &CookieRule, fields: &Fields, bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    for field in fields.all(Known::Cookie) {
        let before = out.len();
        if before > start {
            out.extend_from_slice(b"; ");
        }
        if !cookie::without(field.value.of(bytes), rule.name.as_bytes(), out) {
            out.truncate(before);
        }
    }
}

/// Whether an answer is meant for whoever asks.
pub(super) fn is_for_everybody(fields: &Fields, bytes: &[u8]) -> bool {
    fields.all(Known::CacheControl).any(|field| {
        field.value.of(bytes).split(|&byte| byte == b',').any(|directive| {
            let name = directive.split(|&byte| byte == b'=').next().unwrap_or_default().trim_ascii();
            name.eq_ignore_ascii_case(b"public") || name.eq_ignore_ascii_case(b"s-maxage")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_by_their_whole_name() {
        for (query, wanted) in [
            (&b"?id=7&x=1"[..], Some(&b"7"[..])),
            (b"x=1&id=7", Some(b"7")),
            (b"?idx=1&did=2", None),
            (b"?id=&id=2", Some(b"")),
            (b"?id", None),
            (b"", None),
        ] {
            assert_eq!(parameter(query, b"id"), wanted, "{}", String::from_utf8_lossy(query));
        }
    }
}
