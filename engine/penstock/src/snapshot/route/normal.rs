//! One form for every path, so that no two hops read one path differently.
//!
//! Who can make us see `/public/..%2fadmin` where the origin sees `/admin` has walked past every route that says
//! something about `/admin`. So routes are matched on the normal form of RFC 3986 §6.2.2 (unreserved characters decoded,
//! hexadecimal digits in capitals, dot segments resolved), with empty segments merged, as most origins merge them; and
//! what was matched is what the origin gets. What has no form that everybody agrees on is ambiguous, and refused unless
//! the route says otherwise: encoded slashes and backslashes, NUL, bytes that UTF-8 never has (overlong `/` and `.`),
//! incomplete escapes, and dot and empty segments with parameters (`..;x`), which servlet containers cut off. Parameters of other
//! segments (`/admin;x`) are part of them, as RFC 3986 §3.3 has it: where an origin cuts them off, no prefix is a wall.

/// Whether a path is its own normal form at first sight; most are.
#[inline]
#[must_use]
pub fn is_plain(path: &[u8]) -> bool {
    let mut before = 0;
    for &byte in path {
        if matches!(byte, b'%' | b'\\') || before == b'/' && matches!(byte, b'/' | b'.' | b';') {
            return false;
        }
        before = byte;
    }
    true
}

/// Writes the normal form of a path into `out`. True when the path is ambiguous. What does not begin with `/` has no
/// segments, and stays as it is.
pub fn normalise(path: &[u8], out: &mut Vec<u8>) -> bool {
    out.clear();
    if path.first() != Some(&b'/') {
        out.extend_from_slice(path);
        return false;
    }
    let ambiguous = decode_unreserved(path, out);
    resolve_segments(out) || ambiguous
}

fn decode_unreserved(path: &[u8], out: &mut Vec<u8>) -> bool {
    let (mut ambiguous, mut at) = (false, 0);
    while let Some(&byte) = path.get(at) {
        at += 1;
        if byte != b'%' {
            ambiguous |= byte == b'\\';
            out.push(byte);
            continue;
        }
        match path.get(at..at + 2).and_then(hex) {
            Some(decoded) if decoded.is_ascii_alphanumeric() || b"-._~".contains(&decoded) => out.push(decoded),
            Some(decoded) => {
                ambiguous |= matches!(decoded, b'/' | b'\\' | 0 | 0xc0 | 0xc1);
                out.extend_from_slice(&[b'%', path[at].to_ascii_uppercase(), path[at + 1].to_ascii_uppercase()]);
            }
            None => {
                ambiguous = true;
                out.push(byte);
                continue;
            }
        }
        at += 2;
    }
    ambiguous
}

/// Two hexadecimal digits.
pub(super) fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16);
    Some((digit(digits[0])? << 4 | digit(digits[1])?) as u8)
}

/// Resolves dot segments (RFC 3986 §5.2.4) and merges empty ones, in place: what is written never overtakes what is read.
fn resolve_segments(path: &mut Vec<u8>) -> bool {
    let (mut ambiguous, mut written, mut start) = (false, 0, 1);
    let mut ends_with_slash = false;
    while start <= path.len() {
        let end = path[start..].iter().position(|&byte| byte == b'/').map_or(path.len(), |slash| start + slash);
        let segment = &path[start..end];
        ends_with_slash = matches!(segment, b"" | b"." | b"..");
        if segment == b".." {
            written = path[..written].iter().rposition(|&byte| byte == b'/').unwrap_or(0);
        } else if !ends_with_slash {
            ambiguous |= [&b";"[..], b".;", b"..;"].iter().any(|start| segment.starts_with(start));
            path[written] = b'/';
            path.copy_within(start..end, written + 1);
            written += 1 + end - start;
        }
        start = end + 1;
    }
    path.truncate(written);
    if ends_with_slash {
        path.push(b'/');
    }
    ambiguous
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The normal form, with a `!` before it when it is ambiguous.
    fn normal(path: &str) -> String {
        let mut out = Vec::new();
        let ambiguous = normalise(path.as_bytes(), &mut out);
        format!("{}{}", if ambiguous { "!" } else { "" }, String::from_utf8(out).unwrap())
    }

    #[test]
    fn forms() {
        let table = [
            ("", ""),
            ("*", "*"),
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a/...", "/a/..."),
            ("/%61dmin", "/admin"),
            ("/a%7Eb%7eb", "/a~b~b"),
            ("/caf%c3%a9", "/caf%C3%A9"),
            ("/a%20b", "/a%20b"),
            ("/a%252e", "/a%252e"),
            ("//a", "/a"),
            ("///", "/"),
            ("/a//b///c//", "/a/b/c/"),
            ("/a/./b", "/a/b"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/../b", "/b"),
            ("/../../b", "/b"),
            ("/..", "/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a//../b", "/b"),
            ("/a%2fb", "!/a%2Fb"),
            ("/a/..%2fb", "!/a/..%2Fb"),
            ("/a%5cb", "!/a%5Cb"),
            ("/a\\..\\b", "!/a\\..\\b"),
            ("/a%00", "!/a%00"),
            ("/a/%c0%ae%c0%ae/b", "!/a/%C0%AE%C0%AE/b"),
            ("/a%", "!/a%"),
            ("/a%2", "!/a%2"),
            ("/a%zz", "!/a%zz"),
            ("/a/..;/b", "!/a/..;/b"),
            ("/a/.;x=y/b", "!/a/.;x=y/b"),
            ("/a/%2e%2e;/b", "!/a/..;/b"),
            ("/;/a", "!/;/a"),
            ("/a;x/b", "/a;x/b"),
        ];
        for (path, wanted) in table {
            assert_eq!(normal(path), wanted, "{path}");
        }
    }

    /// Any path's normal form is its own, has no dot and no empty segments, and is no longer than the path.
    #[test]
    fn normal_is_normal() {
        let mut random = policy::Random::new(1);
        let pieces = ["/", "/", ".", "..", "%2e", "%2f", "a", "%61", "%", "%c3", ";", "\\", "b"];
        for _ in 0..100_000 {
            let path = (0..random.below(10)).fold("/".to_owned(), |path, _| path + pieces[random.below(13) as usize]);
            let (mut once, mut twice) = (Vec::new(), Vec::new());
            let ambiguous = normalise(path.as_bytes(), &mut once);
            let again = normalise(&once, &mut twice);
            assert!(ambiguous || once == twice, "{path}");
            assert!(ambiguous || !again, "{path}");
            assert!(once.starts_with(b"/") && once.len() <= path.len(), "{path}");
            let segments: Vec<_> = once[1..].split(|&byte| byte == b'/').collect();
            let (_, inner) = segments.split_last().unwrap();
            assert!(!inner.contains(&&b""[..]), "{path}");
            assert!(!segments.contains(&&b"."[..]) && !segments.contains(&&b".."[..]), "{path}");
            if is_plain(path.as_bytes()) {
                assert_eq!(once, path.as_bytes(), "{path}");
            }
        }
    }
}
