//! The static table (RFC 9204 Appendix A). Entries of one name do not all follow each other, so each says where the next is.

/// The entry of that index, from 0.
#[inline]
pub(super) fn static_entry(index: usize) -> Option<(&'static [u8], &'static [u8])> {
    STATIC.get(index).copied()
}

/// The first index of a name in lower case, and that of the name with that value if there is one.
#[inline]
pub(super) fn find_static(name: &[u8], value: &[u8]) -> Option<(usize, Option<usize>)> {
    if name.is_empty() {
        return None;
    }
    let first = BY_NAME[slot(name)] as usize;
    if STATIC.get(first)?.0 != name {
        return None;
    }
    let next = |at: &usize| Some(NEXT[*at] as usize).filter(|&next| next != NONE as usize);
    let whole = std::iter::successors(Some(first), next).find(|&at| STATIC[at].1 == value);
    Some((first, whole))
}

/// Perfect over the names of `STATIC`, with multipliers found by search.
#[inline]
const fn slot(name: &[u8]) -> usize {
    let len = name.len();
    (len * 228 + name[len - 1] as usize * 136 + name[len * 3 / 4] as usize * 117 + name[len / 3] as usize) % 256
}

const NONE: u8 = u8::MAX;

/// The first entry of each name.
const BY_NAME: [u8; 256] = {
    let mut table = [NONE; 256];
    let mut at = STATIC.len();
    while at > 0 {
        at -= 1;
        table[slot(STATIC[at].0)] = at as u8;
    }
    let (mut slot, mut distinct) = (0, 0);
    while slot < 256 {
        distinct += (table[slot] != NONE) as usize;
        slot += 1;
    }
    assert!(distinct == 52, "two names share a slot: search for other multipliers");
    table
};

/// By entry: the next one of the same name.
const NEXT: [u8; STATIC.len()] = {
    let mut next = [NONE; STATIC.len()];
    let mut last = [NONE; 256];
    let mut at = STATIC.len();
    while at > 0 {
        at -= 1;
        let slot = slot(STATIC[at].0);
        next[at] = last[slot];
        last[slot] = at as u8;
    }
    next
};

#[rustfmt::skip]
const STATIC: [(&[u8], &[u8]); 99] = [
    (b":authority", b""),
    (b":path", b"/"),
    (b"age", b"0"),
    (b"content-disposition", b""),
    (b"content-length", b"0"),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"referer", b""),
    (b"set-cookie", b""),
    (b":method", b"CONNECT"),
    (b":method", b"DELETE"),
    (b":method", b"GET"),
    (b":method", b"HEAD"),
    (b":method", b"OPTIONS"),
    (b":method", b"POST"),
    (b":method", b"PUT"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"103"),
    (b":status", b"200"),
    (b":status", b"304"),
    (b":status", b"404"),
    (b":status", b"503"),
    (b"accept", b"*/*"),
    (b"accept", b"application/dns-message"),
    (b"accept-encoding", b"gzip, deflate, br"),
    (b"accept-ranges", b"bytes"),
    (b"access-control-allow-headers", b"cache-control"),
    (b"access-control-allow-headers", b"content-type"),
    (b"access-control-allow-origin", b"*"),
    (b"cache-control", b"max-age=0"),
    (b"cache-control", b"max-age=2592000"),
    (b"cache-control", b"max-age=604800"),
    (b"cache-control", b"no-cache"),
    (b"cache-control", b"no-store"),
    (b"cache-control", b"public, max-age=31536000"),
    (b"content-encoding", b"br"),
    (b"content-encoding", b"gzip"),
    (b"content-type", b"application/dns-message"),
    (b"content-type", b"application/javascript"),
    (b"content-type", b"application/json"),
    (b"content-type", b"application/x-www-form-urlencoded"),
    (b"content-type", b"image/gif"),
    (b"content-type", b"image/jpeg"),
    (b"content-type", b"image/png"),
    (b"content-type", b"text/css"),
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-type", b"text/plain"),
    (b"content-type", b"text/plain;charset=utf-8"),
    (b"range", b"bytes=0-"),
    (b"strict-transport-security", b"max-age=31536000"),
    (b"strict-transport-security", b"max-age=31536000; includesubdomains"),
    (b"strict-transport-security", b"max-age=31536000; includesubdomains; preload"),
    (b"vary", b"accept-encoding"),
    (b"vary", b"origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-xss-protection", b"1; mode=block"),
    (b":status", b"100"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"302"),
    (b":status", b"400"),
    (b":status", b"403"),
    (b":status", b"421"),
    (b":status", b"425"),
    (b":status", b"500"),
    (b"accept-language", b""),
    (b"access-control-allow-credentials", b"FALSE"),
    (b"access-control-allow-credentials", b"TRUE"),
    (b"access-control-allow-headers", b"*"),
    (b"access-control-allow-methods", b"get"),
    (b"access-control-allow-methods", b"get, post, options"),
    (b"access-control-allow-methods", b"options"),
    (b"access-control-expose-headers", b"content-length"),
    (b"access-control-request-headers", b"content-type"),
    (b"access-control-request-method", b"get"),
    (b"access-control-request-method", b"post"),
    (b"alt-svc", b"clear"),
    (b"authorization", b""),
    (b"content-security-policy", b"script-src 'none'; object-src 'none'; base-uri 'none'"),
    (b"early-data", b"1"),
    (b"expect-ct", b""),
    (b"forwarded", b""),
    (b"if-range", b""),
    (b"origin", b""),
    (b"purpose", b"prefetch"),
    (b"server", b""),
    (b"timing-allow-origin", b"*"),
    (b"upgrade-insecure-requests", b"1"),
    (b"user-agent", b""),
    (b"x-forwarded-for", b""),
    (b"x-frame-options", b"deny"),
    (b"x-frame-options", b"sameorigin"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_found() {
        for index in 0..STATIC.len() {
            let (name, value) = static_entry(index).unwrap();
            assert_eq!(find_static(name, value).and_then(|(_, whole)| whole), Some(index));
        }
        assert_eq!(static_entry(99), None);
        assert_eq!(find_static(b":status", b"500"), Some((24, Some(71))));
        assert_eq!(find_static(b":status", b"501"), Some((24, None)));
        for unknown in [&b""[..], b"x", b":pathx", b"Accept", b"content_length"] {
            assert_eq!(find_static(unknown, b""), None);
        }
    }

    #[test]
    fn rfc9204_appendix_a_indices() {
        for (index, name, value) in [
            (0, ":authority", ""),
            (1, ":path", "/"),
            (15, ":method", "CONNECT"),
            (23, ":scheme", "https"),
            (31, "accept-encoding", "gzip, deflate, br"),
            (46, "content-type", "application/json"),
            (62, "x-xss-protection", "1; mode=block"),
            (73, "access-control-allow-credentials", "FALSE"),
            (83, "alt-svc", "clear"),
            (92, "server", ""),
            (98, "x-frame-options", "sameorigin"),
        ] {
            assert_eq!(static_entry(index), Some((name.as_bytes(), value.as_bytes())));
        }
    }
}
