//! Quantities that the configuration writes as text: sizes, rates, bandwidths.

use super::literal::{Literal, Unreadable};
use std::{fmt, num::NonZeroU32, str::FromStr, time::Duration};

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// IEC 80000-13 for powers of two, SI for powers of ten. The largest first: printing takes the first that divides.
const SIZE_UNITS: &[(&str, u64)] = &[
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

impl Literal for Size {
    const FORMAT: &'static str = "size";
    const FORM: &'static str = "a size: `64KiB`, `2MiB`, `500B` (units B, kB, MB, GB, KiB, MiB, GiB)";
}

impl FromStr for Size {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let form = || "write a number and a unit: `64KiB`, `2MiB`, `500B`".to_owned();
        let (number, unit) = number_and_unit(text).ok_or_else(|| Unreadable::new("is not a size", form()))?;
        if unit.is_empty() {
            return Err(Unreadable::new("has no unit", format!("write `{text}B` for bytes, or `{text}KiB`")));
        }
        let (_, scale) = SIZE_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| Unreadable::new(format!("has the unknown unit `{unit}`"), form()))?;
        let bytes = number.checked_mul(*scale);
        bytes.map(Self).ok_or_else(|| Unreadable::new("is more than any machine has", "is the unit right?"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, scale) =
            SIZE_UNITS.iter().find(|(_, scale)| self.0 > 0 && self.0.is_multiple_of(*scale)).unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / scale)
    }
}

/// So many in so much time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    pub count: NonZeroU32,
    pub per: Duration,
}

const PERIODS: &[(&str, u64)] = &[("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];

impl Literal for Rate {
    const FORMAT: &'static str = "rate";
    const FORM: &'static str = "a rate: `100/s`, `600/m`, `5000/h` (units s, m, h, d)";
}

impl FromStr for Rate {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let form = || "write a count and a unit of time: `100/s`, `600/m`".to_owned();
        let (count, unit) = text.split_once('/').ok_or_else(|| Unreadable::new("is not a rate", form()))?;
        let (_, secs) = PERIODS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| Unreadable::new(format!("has the unknown unit `{unit}`"), form()))?;
        let count = digits(count).and_then(|count| u32::try_from(count).ok()).and_then(NonZeroU32::new);
        let count = count.ok_or_else(|| Unreadable::new("has no count from 1 to 4294967295", form()))?;
        Ok(Self { count, per: Duration::from_secs(*secs) })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = PERIODS.iter().find(|(_, secs)| *secs == self.per.as_secs()).map_or("s", |(name, _)| name);
        write!(f, "{}/{unit}", self.count)
    }
}

/// Bytes a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bandwidth(pub u64);

/// In bytes; network people count bits in powers of ten. The largest of each kind first.
const BANDWIDTH_UNITS: &[(&str, u64)] = &[
    ("GB/s", 1_000_000_000),
    ("MB/s", 1_000_000),
    ("kB/s", 1_000),
    ("GiB/s", 1 << 30),
    ("MiB/s", 1 << 20),
    ("KiB/s", 1 << 10),
    ("B/s", 1),
    ("Gbit/s", 125_000_000),
    ("Mbit/s", 125_000),
    ("kbit/s", 125),
];

impl Literal for Bandwidth {
    const FORMAT: &'static str = "bandwidth";
    const FORM: &'static str = "a bandwidth: `10MB/s`, `200Mbit/s`, `512KiB/s`";
}

impl FromStr for Bandwidth {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let form = || "write a number and a unit: `10MB/s`, `200Mbit/s`".to_owned();
        let (number, unit) = number_and_unit(text).ok_or_else(|| Unreadable::new("is not a bandwidth", form()))?;
        let (_, scale) = BANDWIDTH_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(|| Unreadable::new(format!("has the unknown unit `{unit}`"), form()))?;
        match number.checked_mul(*scale) {
            Some(0) => Err(Unreadable::new("lets nothing through", form())),
            Some(bytes) => Ok(Self(bytes)),
            None => Err(Unreadable::new("is more than any network has", "is the unit right?")),
        }
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |(_, scale): &&(&str, u64)| self.0.is_multiple_of(*scale);
        let (unit, scale) = BANDWIDTH_UNITS.iter().find(fits).unwrap_or(&("B/s", 1));
        write!(f, "{}{unit}", self.0 / scale)
    }
}

/// The least that somebody must send, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeastRate(pub Option<Bandwidth>);

impl Literal for LeastRate {
    const FORMAT: &'static str = "least rate";
    const FORM: &'static str = "`off`, or a bandwidth: `240B/s`";
}

impl FromStr for LeastRate {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        match text {
            "off" => Ok(Self(None)),
            bandwidth => bandwidth.parse().map(|bandwidth| Self(Some(bandwidth))),
        }
    }
}

impl fmt::Display for LeastRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("off"),
            Some(bandwidth) => bandwidth.fmt(f),
        }
    }
}

fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((digits(number)?, unit))
}

/// Digits and nothing else; `u64::from_str` would take a sign.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Literal>(text: &str) -> String {
        text.parse::<T>().map_or_else(|wrong| format!("{text} {wrong}"), |value| value.to_string())
    }

    #[test]
    fn quantities_are_canonical() {
        for (text, wanted) in [("64KiB", "64KiB"), ("1024KiB", "1MiB"), ("2000B", "2kB"), ("0B", "0B"), ("1GB", "1GB")]
        {
            assert_eq!(read::<Size>(text), wanted);
        }
        for (text, wanted) in [("100/s", "100/s"), ("7/d", "7/d")] {
            assert_eq!(read::<Rate>(text), wanted);
        }
        for (text, wanted) in
            [("10MB/s", "10MB/s"), ("200Mbit/s", "25MB/s"), ("1KiB/s", "1KiB/s"), ("125B/s", "125B/s")]
        {
            assert_eq!(read::<Bandwidth>(text), wanted);
        }
        for text in ["off", "240B/s"] {
            assert_eq!(read::<LeastRate>(text), text);
        }
    }

    #[test]
    fn what_is_none_says_what_to_write() {
        assert!(read::<Size>("64").contains("write `64B`"));
        assert!(read::<Size>("64 KiB").contains("unknown unit ` KiB`"));
        assert!(read::<Size>("99999999999GiB").contains("any machine"));
        assert!(read::<Size>("+1B").contains("not a size"));
        assert!(read::<Rate>("100").contains("not a rate"));
        assert!(read::<Rate>("0/s").contains("no count"));
        assert!(read::<Rate>("5/week").contains("unknown unit `week`"));
        assert!(read::<Bandwidth>("0MB/s").contains("nothing through"));
        assert!(read::<Bandwidth>("10MB").contains("unknown unit `MB`"));
    }
}
