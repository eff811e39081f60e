//! Cookies, as a server reads them from whoever sends them (RFC 6265 §5.4 is what clients should write; many write else).
//!
//! Nothing is refused: what is no pair is passed over, and a name may occur as often as it likes. Names are compared as
//! bytes, for they are case-sensitive.

/// The pairs of one `Cookie` field, in order: name, and value without the quotes that it may stand in.
pub fn pairs(field: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    parts(field).filter_map(pair)
}

/// Appends the field's text to `out` without the pairs of that name; false when nothing is left of it.
pub fn without(field: &[u8], name: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    for part in parts(field).filter(|part| pair(part).is_none_or(|(other, _)| other != name)) {
        if out.len() > start {
            out.extend_from_slice(b"; ");
        }
        out.extend_from_slice(part);
    }
    out.len() > start
}

fn parts(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    field.split(|&byte| byte == b';').map(<[u8]>::trim_ascii).filter(|part| !part.is_empty())
}

fn pair(part: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = part.iter().position(|&byte| byte == b'=')?;
    let (name, value) = (part[..at].trim_ascii(), part[at + 1..].trim_ascii());
    let bare = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    (!name.is_empty()).then_some((name, bare))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(field: &[u8]) -> String {
        let shown = |(name, value): (&[u8], &[u8])| {
            format!("{}={}|", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
        };
        pairs(field).map(shown).collect()
    }

    #[test]
    fn pairs_are_read_as_they_are_written_in_the_wild() {
        for (field, wanted) in [
            (&b"a=1; b=2"[..], "a=1|b=2|"),
            (b"a=1;b=2;", "a=1|b=2|"),
            (b" a = 1 ;\t b=\"2\"", "a=1|b=2|"),
            (b"a=1=2; a=3; A=4", "a=1=2|a=3|A=4|"),
            (b"a=; b", "a=|"),
            (b"=1; ;;=; \"=\"", "\"=\"|"),
            (b"a=\"", "a=\"|"),
            (b"a=\"\"", "a=|"),
            (b"", ""),
        ] {
            assert_eq!(read(field), wanted, "{}", String::from_utf8_lossy(field));
        }
    }

    #[test]
    fn a_pair_is_taken_out_and_the_rest_stays() {
        for (field, wanted) in [
            (&b"a=1; us=x; b=2"[..], "a=1; b=2"),
            (b"us=x", ""),
            (b"us=x; us=y;us=\"z\"", ""),
            (b"US=x; ust=y; flag; =us", "US=x; ust=y; flag; =us"),
            (b"flag; us = x;", "flag"),
            (b";;", ""),
        ] {
            let mut out = b"before ".to_vec();
            let left = without(field, b"us", &mut out);
            assert_eq!(String::from_utf8_lossy(&out[7..]), wanted);
            assert_eq!(left, !wanted.is_empty());
        }
    }

    #[test]
    fn no_bytes_break_it() {
        let mut random = 1_u64;
        for length in 0..2_000_usize {
            let bytes: Vec<u8> = (0..length % 40)
                .map(|_| {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    b"a=;\" \xff,u"[(random >> 33) as usize % 8]
                })
                .collect();
            let mut out = Vec::new();
            without(&bytes, b"a", &mut out);
            assert!(pairs(&out).all(|(name, _)| name != b"a"), "{bytes:?}");
            assert!(out.len() <= bytes.len() * 2);
        }
    }
}
