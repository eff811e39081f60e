//! The table that an index means first (RFC 7541 §2.3.1): the same for everybody.

/// Entries of the static table; the dynamic one begins behind them.
pub(super) const STATIC_LEN: usize = STATIC.len();

/// The static entry of that index, from 1.
#[inline]
pub(super) fn static_entry(index: usize) -> Option<(&'static [u8], &'static [u8])> {
    STATIC.get(index.wrapping_sub(1)).copied()
}

/// The first static index of a name in lower case, and of that name with that value if there is one.
#[inline]
pub(super) fn find_static(name: &[u8], value: &[u8]) -> Option<(usize, Option<usize>)> {
    let first = name_index(name)?;
    let same = STATIC[first - 1..].iter().take_while(|(other, _)| *other == name);
    // An empty value in the table means that the entry is for its name, unless that is the value.
    let whole = same.enumerate().find(|(_, (_, other))| *other == value).map(|(at, _)| first + at);
    Some((first, whole))
}

/// The first static index of a name in lower case.
#[inline]
pub(super) fn name_index(name: &[u8]) -> Option<usize> {
    if name.is_empty() {
        return None;
    }
    let candidate = BY_NAME[slot(name)] as usize;
    (candidate != 0 && STATIC[candidate - 1].0 == name).then_some(candidate)
}

/// Perfect over the names of `STATIC`, with multipliers found by search.
#[inline]
const fn slot(name: &[u8]) -> usize {
    let len = name.len();
    (len * 143 + name[len - 1] as usize * 215 + name[len * 2 / 3] as usize * 235 + name[len / 3] as usize) % 256
}

const BY_NAME: [u8; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    let mut distinct = 0;
    while at < STATIC.len() {
        let slot = slot(STATIC[at].0);
        // Entries of one name follow each other.
        if table[slot] == 0 {
            table[slot] = at as u8 + 1;
            distinct += 1;
        }
        at += 1;
    }
    assert!(distinct == 52, "two names share a slot: search for other multipliers");
    table
};

/// RFC 7541 Appendix A.
#[rustfmt::skip]
const STATIC: [(&[u8], &[u8]); 61] = [
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_static_entry_is_found() {
        for index in 1..=STATIC_LEN {
            let (name, value) = static_entry(index).unwrap();
            assert_eq!(find_static(name, value).and_then(|(_, whole)| whole), Some(index));
            assert_eq!(static_entry(name_index(name).unwrap()).unwrap().0, name);
        }
        assert_eq!((static_entry(0), static_entry(STATIC_LEN + 1)), (None, None));
        assert_eq!(find_static(b":method", b"PUT"), Some((2, None)));
        for unknown in [&b""[..], b"x", b":pathx", b"Accept", b"content_length"] {
            assert_eq!(find_static(unknown, b""), None);
        }
    }
}
