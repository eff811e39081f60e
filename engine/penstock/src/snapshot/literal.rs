//! Values that the configuration writes as text: times, shares, CPU lists. Each is parsed once, at its place in the file,
//! and printed in one canonical form.

use super::address::{Address, Bind, Cidr};
use super::alpn::AlpnName;
use super::division::{Bound, Excess, HashKey, Secret};
use super::endpoint::{Endpoint, Nameserver};
use super::limit::{ConcurrencyLimit, LimitKey};
use super::pin::SpkiPin;
use super::probing::{ProbeTarget, Statuses};
use super::quantity::{Bandwidth, LeastRate, Rate, Size};
use super::repetition::{CopyAfter, PerTry, RetryCause};
use super::rewrite::{HeaderLine, HeaderName, Location, PathFormat};
use super::route::{HeaderCondition, HostPattern, Method, PathPattern, QueryCondition};
use super::share::{Candidate, Share, Sticky};
use crate::limits;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

/// What is wrong with a text, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Completes "`text` …": "has no port".
    pub why: String,
    /// Completes the sentence under the caret: "write `10.0.0.1:80`".
    pub instead: String,
}

impl Unreadable {
    pub(super) fn new(why: impl Into<String>, instead: impl Into<String>) -> Self {
        Self { why: why.into(), instead: instead.into() }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.why, self.instead)
    }
}

/// A value with a form of its own as text. `Display` gives what `FromStr` takes.
pub trait Literal: FromStr<Err = Unreadable> + fmt::Display {
    /// The schema's `format`.
    const FORMAT: &'static str;
    /// For the reference: what to write.
    const FORM: &'static str;
}

/// A [`Literal`] at a place of the document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Text<T>(pub T);

impl<T: Literal> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: Literal> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Self).map_err(D::Error::custom)
    }
}

impl<T: Literal> schemars::JsonSchema for Text<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        T::FORMAT.into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "format": T::FORMAT })
    }
}

/// One value, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<T>(pub Vec<T>);

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Literal> Serialize for Listed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => serializer.collect_str(one),
            many => serializer.collect_seq(many.iter().map(ToString::to_string)),
        }
    }
}

impl<'de, T: Literal> Deserialize<'de> for Listed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum OneOrMany {
            One(String),
            Many(Vec<String>),
        }
        let texts = match OneOrMany::deserialize(deserializer)? {
            OneOrMany::One(text) => vec![text],
            OneOrMany::Many(texts) => texts,
        };
        texts.iter().map(|text| text.parse()).collect::<Result<_, _>>().map(Self).map_err(D::Error::custom)
    }
}

impl<T: Literal> schemars::JsonSchema for Listed<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("list of {}", T::FORMAT).into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": ["string", "array"],
            "format": T::FORMAT,
            "items": { "type": "string", "format": T::FORMAT },
        })
    }
}

/// Checks a text against the format that the schema names. A format of JSON Schema's own is nothing to check.
pub(super) fn check(format: &str, text: &str) -> Result<(), Unreadable> {
    FORMATS.iter().find(|known| known.name == format).map_or(Ok(()), |known| (known.check)(text))
}

/// A kind of [`Literal`].
pub(super) struct Format {
    pub(super) name: &'static str,
    /// What to write.
    pub(super) form: &'static str,
    check: fn(&str) -> Result<(), Unreadable>,
}

const fn format<T: Literal>() -> Format {
    Format { name: T::FORMAT, form: T::FORM, check: |text| text.parse::<T>().map(|_| ()) }
}

/// Every format.
pub(super) const FORMATS: &[Format] = &[
    format::<Address>(),
    format::<Bind>(),
    format::<Cidr>(),
    format::<Endpoint>(),
    format::<Nameserver>(),
    format::<HostPattern>(),
    format::<Method>(),
    format::<PathPattern>(),
    format::<ProbeTarget>(),
    format::<Statuses>(),
    format::<HeaderCondition>(),
    format::<QueryCondition>(),
    format::<Share>(),
    format::<Candidate>(),
    format::<Sticky>(),
    format::<Location>(),
    format::<PathFormat>(),
    format::<HeaderLine>(),
    format::<HeaderName>(),
    format::<Time>(),
    format::<Percent>(),
    format::<Size>(),
    format::<PerTry>(),
    format::<CopyAfter>(),
    format::<RetryCause>(),
    format::<Rate>(),
    format::<Bandwidth>(),
    format::<LeastRate>(),
    format::<HashKey>(),
    format::<Excess>(),
    format::<Bound>(),
    format::<Secret>(),
    format::<SpkiPin>(),
    format::<AlpnName>(),
    format::<LimitKey>(),
    format::<ConcurrencyLimit>(),
    format::<Cores>(),
    format::<Spin>(),
    format::<HostPolicy>(),
    format::<ServerPolicy>(),
    format::<ViaName>(),
];

/// A length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time(pub Duration);

const UNITS: &[(&str, u64)] = &[
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

impl Literal for Time {
    const FORMAT: &'static str = "time";
    const FORM: &'static str = "a time: `250ms`, `10s`, `1m30s`, `2h` (units us, ms, s, m, h, d)";
}

impl FromStr for Time {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let form = || "write a number and a unit: `250ms`, `10s`, `1m30s` (units: us, ms, s, m, h, d)".to_owned();
        let mut rest = text;
        let mut total = 0_u64;
        if text.is_empty() {
            return Err(Unreadable::new("is empty", form()));
        }
        while !rest.is_empty() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, tail) = rest.split_at(digits);
            let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(letters);
            if number.is_empty() {
                return Err(Unreadable::new("is not a time", form()));
            }
            if unit.is_empty() {
                return Err(Unreadable::new("has no unit", format!("write `{text}s` for seconds, or `{text}ms`")));
            }
            let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
                let why =
                    if unit == "." { "has a fraction".to_owned() } else { format!("has the unknown unit `{unit}`") };
                return Err(Unreadable::new(why, form()));
            };
            let part = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*scale));
            total = part.and_then(|part| total.checked_add(part)).unwrap_or(u64::MAX);
            rest = tail;
        }
        if total > limits::TIME_MAX.as_nanos() as u64 {
            return Err(Unreadable::new("is longer than 30 days", "is the unit right?"));
        }
        Ok(Self(Duration::from_nanos(total)))
    }
}

impl fmt::Display for Time {
    /// The largest unit that it is a whole number of; from minutes on only when there are at least two of them, so that
    /// a minute reads `60s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos() as u64;
        if nanos == 0 {
            return f.write_str("0s");
        }
        for (index, (unit, scale)) in UNITS.iter().enumerate().rev() {
            if nanos.is_multiple_of(*scale) && (index < 3 || nanos / scale >= 2) {
                return write!(f, "{}{unit}", nanos / scale);
            }
        }
        write!(f, "{}us", nanos / 1_000)
    }
}

impl Text<Time> {
    pub(super) const fn secs(secs: u64) -> Self {
        Self(Time(Duration::from_secs(secs)))
    }
}

/// A share of a hundred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(pub u8);

impl Literal for Percent {
    const FORMAT: &'static str = "percent";
    const FORM: &'static str = "a share: `20%`";
}

impl FromStr for Percent {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        match text.strip_suffix('%').map(str::parse::<u8>) {
            Some(Ok(number @ 0..=100)) => Ok(Self(number)),
            _ => Err(Unreadable::new("is not a share", "write a whole number from `0%` to `100%`")),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// The CPUs that workers run on, one worker each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Cores {
    /// Every CPU that this process may use (`sched_getaffinity`).
    #[default]
    Auto,
    /// These, in ascending order.
    List(Box<[u16]>),
}

impl Literal for Cores {
    const FORMAT: &'static str = "cores";
    const FORM: &'static str = "`auto`, or a CPU list: `0-3,5`";
}

impl FromStr for Cores {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let form = || Unreadable::new("is not a CPU list", "write `auto`, or numbers and ranges: `0-3,5`");
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (u16, u16) =
                (first.trim().parse().map_err(|_| form())?, last.trim().parse().map_err(|_| form())?);
            if first > last {
                return Err(Unreadable::new(
                    format!("has a range that ends before it begins (`{part}`)"),
                    format!("write `{last}-{first}`"),
                ));
            }
            if usize::from(last) >= limits::CORES_MAX {
                return Err(Unreadable::new(
                    format!("names CPU {last}"),
                    format!("CPUs are numbered up to {}", limits::CORES_MAX - 1),
                ));
            }
            cpus.extend(first..=last);
        }
        cpus.sort_unstable();
        if let Some(twice) = cpus.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Unreadable::new(
                format!("names CPU {} twice", twice[0]),
                "one worker runs on each CPU: name it once",
            ));
        }
        Ok(Self::List(cpus.into()))
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::List(cpus) => f.write_str(&cpu_list(cpus)),
        }
    }
}

/// Ascending CPU numbers in the kernel's list form: `0-3,5`.
#[must_use]
pub fn cpu_list(cpus: &[u16]) -> String {
    let runs = cpus.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
        [one] => one.to_string(),
        _ => format!("{}-{}", run[0], run[run.len() - 1]),
    });
    runs.collect::<Vec<_>>().join(",")
}

/// What a worker does before it blocks for want of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Spin {
    /// Spins a little when that has lately paid off.
    #[default]
    Auto,
    Off,
    /// Always this long.
    For(Duration),
}

impl Literal for Spin {
    const FORMAT: &'static str = "spin";
    const FORM: &'static str = "`auto`, `off`, or a time up to `1ms`";
}

impl FromStr for Spin {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            _ => match text.parse::<Time>() {
                Ok(Time(time)) if time.is_zero() => Ok(Self::Off),
                Ok(Time(time)) if time <= limits::SPIN_MAX => Ok(Self::For(time)),
                Ok(_) => Err(Unreadable::new("is too long to spin", "write at most `1ms`")),
                Err(_) => Err(Unreadable::new("is not a way to spin", "write `auto`, `off`, or a time like `50us`")),
            },
        }
    }
}

impl fmt::Display for Spin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Off => f.write_str("off"),
            Self::For(time) => Time(*time).fmt(f),
        }
    }
}

/// Which `Host` an endpoint sees.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HostPolicy {
    /// The client's.
    #[default]
    Keep,
    /// The endpoint's own `host:port`.
    Endpoint,
    /// This one.
    Literal(Box<str>),
}

impl Literal for HostPolicy {
    const FORMAT: &'static str = "host-policy";
    const FORM: &'static str = "`keep`, `endpoint`, or a host";
}

impl FromStr for HostPolicy {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        match text {
            "keep" => Ok(Self::Keep),
            "endpoint" => Ok(Self::Endpoint),
            host if !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b)) => {
                Ok(Self::Literal(host.into()))
            }
            _ => Err(Unreadable::new("is not a host", "write `keep`, `endpoint`, or a name like `app.example.net`")),
        }
    }
}

impl fmt::Display for HostPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keep => "keep",
            Self::Endpoint => "endpoint",
            Self::Literal(host) => host,
        })
    }
}

/// What becomes of a response's `Server` field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ServerPolicy {
    /// The endpoint's, if it sent one.
    #[default]
    Keep,
    Remove,
    /// This one.
    Literal(Box<str>),
}

impl Literal for ServerPolicy {
    const FORMAT: &'static str = "server-policy";
    const FORM: &'static str = "`keep`, `remove`, or a value";
}

impl FromStr for ServerPolicy {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        match text {
            "keep" => Ok(Self::Keep),
            "remove" => Ok(Self::Remove),
            value if !value.is_empty() && value.trim() == value && value.bytes().all(|b| (0x20..0x7f).contains(&b)) => {
                Ok(Self::Literal(value.into()))
            }
            _ => Err(Unreadable::new("is not a field value", "write `keep`, `remove`, or visible ASCII like `edge`")),
        }
    }
}

impl fmt::Display for ServerPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keep => "keep",
            Self::Remove => "remove",
            Self::Literal(value) => value,
        })
    }
}

/// The pseudonym in `Via` (RFC 9110 §7.6.3), or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ViaName {
    Off,
    Name(Box<str>),
}

impl Default for ViaName {
    fn default() -> Self {
        Self::Name("penstock".into())
    }
}

impl Literal for ViaName {
    const FORMAT: &'static str = "via-name";
    const FORM: &'static str = "`off`, or a token";
}

impl FromStr for ViaName {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        match text {
            "off" => Ok(Self::Off),
            name if is_token(name) => Ok(Self::Name(name.into())),
            _ => Err(Unreadable::new("is not a token", "write `off`, or letters, digits and `-` like `edge-1`")),
        }
    }
}

impl fmt::Display for ViaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Name(name) => name,
        })
    }
}

/// RFC 9110 §5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What it prints, or why not.
    fn read<T: Literal>(text: &str) -> String {
        text.parse::<T>().map_or_else(|wrong| format!("{text} {wrong}"), |value| value.to_string())
    }

    #[test]
    fn times() {
        let table = [
            ("250ms", "250ms"),
            ("1000ms", "1s"),
            ("1m", "60s"),
            ("1m30s", "90s"),
            ("120s", "2m"),
            ("1h", "60m"),
            ("2h", "2h"),
            ("50us", "50us"),
            ("0s", "0s"),
        ];
        for (text, wanted) in table {
            assert_eq!(read::<Time>(text), wanted);
            assert_eq!(read::<Time>(wanted), wanted, "canonical");
        }
        assert_eq!(read::<Time>("10"), "10 has no unit: write `10s` for seconds, or `10ms`");
        assert!(read::<Time>("10 s").contains("unknown unit ` s`"));
        assert!(read::<Time>("1.5s").contains("has a fraction"));
        assert!(read::<Time>("5 minutes").contains("unknown unit"));
        assert!(read::<Time>("99999999999999999999d").contains("30 days"));
        assert!(read::<Time>("").contains("is empty"));
    }

    #[test]
    fn cpu_lists() {
        for (text, wanted) in [("0-3,5", "0-3,5"), ("1", "1"), ("2,0,1", "0-2"), ("auto", "auto"), ("0,2", "0,2")] {
            assert_eq!(read::<Cores>(text), wanted);
        }
        for (text, why) in
            [("", "not a CPU list"), ("a", "not"), ("3-1", "write `1-3`"), ("1,1", "twice"), ("4096", "up to")]
        {
            assert!(read::<Cores>(text).contains(why), "{}", read::<Cores>(text));
        }
    }

    #[test]
    fn the_rest() {
        assert_eq!(read::<Percent>("20%"), "20%");
        assert!(read::<Percent>("120%").contains("`0%` to `100%`"));
        assert_eq!(read::<Spin>("50us"), "50us");
        assert!(read::<Spin>("1s").contains("too long"));
        assert_eq!(read::<HostPolicy>("app.internal:80"), "app.internal:80");
        assert!(read::<HostPolicy>("a b").contains("not a host"));
        assert_eq!(read::<ViaName>("edge-1"), "edge-1");
        assert!(read::<ViaName>("a b").contains("token"));
        assert!(read::<ServerPolicy>("a\r\nb").contains("field value"));
    }
}
