//! What the configuration writes as text about probes: what to ask for, and which statuses are good.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use super::literal::{Literal, Unreadable};

/// A path, and perhaps a query, to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeTarget(pub Box<str>);

impl Literal for ProbeTarget {
    const FORMAT: &'static str = "probe-target";
    const FORM: &'static str = "a path, and perhaps a query: `/healthz`, `/ready?deep=1`";
}

impl FromStr for ProbeTarget {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        if !text.starts_with('/') {
            return Err(Unreadable::new("does not begin with `/`", "write a path like `/healthz`"));
        }
        if let Some(wrong) =
            text.chars().find(|character| !character.is_ascii_graphic() || "#\"<>".contains(*character))
        {
            return Err(Unreadable::new(format!("has `{}` in it", wrong.escape_debug()), "write it percent-encoded"));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for ProbeTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Statuses of a response, as ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statuses(Box<[RangeInclusive<u16>]>);

impl Statuses {
    #[must_use]
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl Default for Statuses {
    fn default() -> Self {
        Self([200..=299].into())
    }
}

impl Literal for Statuses {
    const FORMAT: &'static str = "statuses";
    const FORM: &'static str = "status codes: `200-299`, `200,204,301-308`";
}

impl FromStr for Statuses {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            // Interim responses are never the answer.
            (200..=599).contains(&first).then_some(first..=last).filter(|range| first <= last && *range.end() <= 599)
        };
        let ranges: Option<Box<[_]>> = text.split(',').map(range).collect();
        ranges.map(Self).ok_or_else(|| {
            Unreadable::new("is no list of statuses", "write codes and ranges from 200 to 599: `200-299`, `200,204`")
        })
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.0.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            match (range.start(), range.end()) {
                (first, last) if first == last => write!(f, "{comma}{first}")?,
                (first, last) => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_codes_and_ranges() {
        for (text, printed, good, bad) in [
            ("200-299", "200-299", 204, 300),
            ("200", "200", 200, 201),
            ("200, 204 ,301-308", "200,204,301-308", 302, 205),
            ("503-503", "503", 503, 504),
        ] {
            let statuses: Statuses = text.parse().unwrap();
            assert_eq!(statuses.to_string(), printed);
            assert!(statuses.contains(good) && !statuses.contains(bad), "{text}");
        }
        for text in ["", "2xx", "299-200", "100", "200-600", "200,", "-200", "70000"] {
            assert!(text.parse::<Statuses>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_target_is_what_can_stand_in_a_request_line() {
        for text in ["/", "/healthz", "/a?b=c&d=%20"] {
            assert_eq!(text.parse::<ProbeTarget>().unwrap().to_string(), text);
        }
        for text in ["", "healthz", "/a b", "/ä", "/a\r\nX: y", "/a#b", "http://x/"] {
            assert!(text.parse::<ProbeTarget>().is_err(), "{text}");
        }
    }
}
