//! `Alt-Svc` (RFC 7838 §3): where else an origin is to be had.
//!
//! Of all that it can say one thing matters here: whether the same host has HTTP/3, and at which port. Alternatives on other hosts are not
//! followed: who asks has been told where to ask by somebody whom it trusts more.

use std::time::Duration;

use super::text::trim;

/// What an origin says of its HTTP/3.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AltSvc {
    /// What it said before holds no longer.
    Clear,
    /// It is to be had at this UDP port, for so long.
    Http3 { port: u16, max_age: Duration },
}

/// How long an alternative is good for that does not say (RFC 7838 §3.1).
const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// What the values of an answer's `Alt-Svc` fields say of HTTP/3: the first that is of use. `None`: nothing. What is malformed says nothing.
pub fn http3<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Option<AltSvc> {
    values.into_iter().find_map(|value| {
        if trim(value) == b"clear" {
            return Some(AltSvc::Clear);
        }
        split(value, b',').find_map(alternative)
    })
}

/// `h3=":443"; ma=86400`.
fn alternative(element: &[u8]) -> Option<AltSvc> {
    let mut parts = split(element, b';');
    let (protocol, authority) = pair(parts.next()?)?;
    if protocol != b"h3" {
        return None;
    }
    let port = authority.strip_prefix(b"\":")?.strip_suffix(b"\"")?;
    let port = u16::try_from(number(port)?).ok().filter(|&port| port > 0)?;
    let age = parts.filter_map(pair).find(|(name, _)| name.eq_ignore_ascii_case(b"ma"));
    let max_age = match age {
        None => MAX_AGE,
        Some((_, value)) => {
            let bare = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
            Duration::from_secs(u64::from(number(bare)?))
        }
    };
    Some(AltSvc::Http3 { port, max_age })
}

fn pair(part: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = part.iter().position(|&byte| byte == b'=')?;
    Some((trim(&part[..at]), trim(&part[at + 1..])))
}

/// Digits, and nothing else; what is beyond `u32` is its largest.
fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u32, |sum, byte| {
        byte.is_ascii_digit().then(|| sum.saturating_mul(10).saturating_add(u32::from(byte - b'0')))
    })
}

/// The parts between separators that stand in no quoted string (RFC 9110 §5.6.4).
fn split(value: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    value.split(move |&byte| {
        if escaped {
            escaped = false;
        } else if quoted && byte == b'\\' {
            escaped = true;
        } else if byte == b'"' {
            quoted = !quoted;
        } else if byte == separator && !quoted {
            return true;
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Option<AltSvc> {
        http3(values.iter().map(|value| value.as_bytes()))
    }

    fn at(port: u16, seconds: u64) -> Option<AltSvc> {
        Some(AltSvc::Http3 { port, max_age: Duration::from_secs(seconds) })
    }

    #[test]
    fn the_first_http3_of_the_same_host_counts() {
        assert_eq!(of(&["h3=\":443\""]), at(443, 86_400));
        assert_eq!(of(&["h3=\":8443\"; ma=60"]), at(8443, 60));
        assert_eq!(of(&["h2=\":443\"; ma=1, h3=\":444\";persist=1 ; MA=\"7\""]), at(444, 7));
        assert_eq!(of(&["h2=\":443\"", "h3-29=\":1\", h3=\":2\""]), at(2, 86_400));
        assert_eq!(of(&["h3=\"other.example:443\", h3=\":5\""]), at(5, 86_400));
        assert_eq!(of(&["h2=\"a,b:1\\\"\"; v=\"1;2\", h3=\":6\""]), at(6, 86_400));
        assert_eq!(of(&["h3=\":7\"; ma=99999999999"]), at(7, u64::from(u32::MAX)));
        assert_eq!(of(&[" clear "]), Some(AltSvc::Clear));
    }

    #[test]
    fn what_is_none_says_nothing() {
        for value in [
            "",
            "h3",
            "h3=",
            "h3=:443",
            "h3=\"443\"",
            "h3=\":\"",
            "h3=\":0\"",
            "h3=\":65536\"",
            "h3=\":443",
            "h3=\":4 3\"",
            "h3=\"h.example:443\"",
            "H3=\":443\"",
            "h3=\":443\"; ma=-1",
            "h3=\":443\"; ma=",
            "clear, h2=\":1\"",
            "\"h3=\":443\"",
        ] {
            assert_eq!(of(&[value]), None, "{value}");
        }
        assert_eq!(of(&[]), None);
    }
}
