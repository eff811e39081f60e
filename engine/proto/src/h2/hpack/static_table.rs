//! The table that an index means first (RFC 7541 §2.3.1): the same for everybody.

use crate::compression::{COLON, Judged, LINE_END};
use crate::http::Known;

/// Entries of the static table; the dynamic one begins behind them.
pub(super) const STATIC_LEN: usize = STATIC.len();

/// The line of the static entry of that index, from 1.
#[inline]
pub(super) fn static_line(index: usize) -> Option<Judged<'static>> {
    let &(start, end, name_len, known) = PLACES.get(index.wrapping_sub(1))?;
    Some(Judged { line: &LINES[start as usize..end as usize], name_len: name_len as usize, known })
}

/// Whether the static entry of that index is this one.
#[inline]
pub(super) fn is_static(index: usize, name: &[u8], value: &[u8]) -> bool {
    STATIC.get(index.wrapping_sub(1)).is_some_and(|entry| *entry == (name, value))
}

/// The first static index of a name in lower case, and of that name with that value if there is one.
#[inline]
pub(super) fn find_static(name: &[u8], value: &[u8]) -> Option<(usize, Option<usize>)> {
    let first = name_index(name)?;
    let same = &STATIC[first - 1..first - 1 + SAME_NAME[first - 1] as usize];
    // An empty value in the table means that the entry is for its name, unless that is the value.
    let whole = same.iter().position(|(_, other)| *other == value).map(|at| first + at);
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

/// How many entries there are from each one on that have its name.
const SAME_NAME: [u8; STATIC_LEN] = {
    let mut same = [1; STATIC_LEN];
    let mut at = STATIC_LEN - 1;
    while at > 0 {
        at -= 1;
        if is_same(STATIC[at].0, STATIC[at + 1].0) {
            same[at] = same[at + 1] + 1;
        }
    }
    same
};

const fn is_same(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

/// Where the line of each entry begins and ends in `LINES`, how long its name is, and which field that is.
static PLACES: [(u16, u16, u8, Option<Known>); STATIC_LEN] = {
    let mut places = [(0, 0, 0, None); STATIC_LEN];
    let (mut at, mut start) = (0, 0);
    while at < STATIC_LEN {
        let (name, value) = STATIC[at];
        let end = start + name.len() + COLON.len() + value.len() + LINE_END.len();
        let known = if name[0] == b':' { None } else { Some(Known::of_lower_case(name)) };
        places[at] = (start as u16, end as u16, name.len() as u8, known);
        (at, start) = (at + 1, end);
    }
    assert!(start == LINES_BYTES);
    places
};

const LINES_BYTES: usize = {
    let (mut at, mut bytes) = (0, 0);
    while at < STATIC_LEN {
        bytes += STATIC[at].0.len() + COLON.len() + STATIC[at].1.len() + LINE_END.len();
        at += 1;
    }
    bytes
};

static LINES: [u8; LINES_BYTES] = {
    let mut lines = [0; LINES_BYTES];
    let (mut entry, mut end) = (0, 0);
    while entry < STATIC_LEN {
        let parts = [STATIC[entry].0, COLON, STATIC[entry].1, LINE_END];
        let mut part = 0;
        while part < parts.len() {
            let mut at = 0;
            while at < parts[part].len() {
                lines[end] = parts[part][at];
                (at, end) = (at + 1, end + 1);
            }
            part += 1;
        }
        entry += 1;
    }
    lines
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
    use crate::multiplexed::head::field_of;

    #[test]
    fn every_static_entry_is_found() {
        for index in 1..=STATIC_LEN {
            let (name, value) = STATIC[index - 1];
            assert_eq!(find_static(name, value).and_then(|(_, whole)| whole), Some(index));
            assert_eq!(STATIC[name_index(name).unwrap() - 1].0, name);
            let judged = static_line(index).unwrap();
            assert_eq!((judged.line, judged.name()), (&[name, b": ", value, b"\r\n"].concat()[..], name));
            assert_eq!(judged.known, field_of(name, value).ok());
        }
        assert!(static_line(0).is_none() && static_line(STATIC_LEN + 1).is_none());
        assert_eq!(find_static(b":method", b"PUT"), Some((2, None)));
        for unknown in [&b""[..], b"x", b":pathx", b"Accept", b"content_length"] {
            assert_eq!(find_static(unknown, b""), None);
        }
    }
}
