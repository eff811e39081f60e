//! What the configuration says about trying again: causes, and the time of one try.

use super::literal::{Literal, Percent, Time, Unreadable};
use std::{fmt, str::FromStr};

/// A cause for another try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetryCause {
    Connect,
    Reset,
    Timeout,
    /// An answer with this status code.
    Status(u16),
}

impl Literal for RetryCause {
    const FORMAT: &'static str = "cause";
    const FORM: &'static str = "`connect`, `reset`, `timeout`, or a status code from 400 to 599 like `503`";
}

impl FromStr for RetryCause {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        match text {
            "connect" => Ok(Self::Connect),
            "reset" => Ok(Self::Reset),
            "timeout" => Ok(Self::Timeout),
            code if code.len() == 3 && code.bytes().all(|b| b.is_ascii_digit()) => match code.parse() {
                Ok(425) => Err(Unreadable::new(
                    "asks the client, and nobody else, to ask again (RFC 8470 §5.2)",
                    "leave it out",
                )),
                Ok(code @ 400..=599) => Ok(Self::Status(code)),
                _ => Err(Unreadable::new("is no status of an error", "write one from `400` to `599`")),
            },
            _ => Err(Unreadable::new("is no cause to try again", format!("write {}", Self::FORM))),
        }
    }
}

impl fmt::Display for RetryCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("connect"),
            Self::Reset => f.write_str("reset"),
            Self::Timeout => f.write_str("timeout"),
            Self::Status(code) => write!(f, "{code}"),
        }
    }
}

/// How long one try may take while there could be another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PerTry {
    /// Learnt from what the pool's answers take.
    Auto,
    /// As long as the last one.
    Off,
    Fixed(Time),
}

impl Literal for PerTry {
    const FORMAT: &'static str = "try time";
    const FORM: &'static str = "`auto`, `off`, or a time: `250ms`";
}

impl FromStr for PerTry {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            time => match time.parse::<Time>()? {
                zero if zero.0.is_zero() => Err(Unreadable::new("gives no endpoint a chance", "write `auto` or `off`")),
                time => Ok(Self::Fixed(time)),
            },
        }
    }
}

impl fmt::Display for PerTry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Off => f.write_str("off"),
            Self::Fixed(time) => time.fmt(f),
        }
    }
}

/// When a second copy of a request is sent elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyAfter {
    /// When this share of the pool's answers would have come.
    Share(Percent),
    Fixed(Time),
}

impl Literal for CopyAfter {
    const FORMAT: &'static str = "slowness";
    const FORM: &'static str = "the share of answers that would have come, `50%` to `99%`, or a time: `30ms`";
}

impl FromStr for CopyAfter {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        if text.ends_with('%') {
            return match text.parse::<Percent>()? {
                share @ Percent(50..=99) => Ok(Self::Share(share)),
                _ => Err(Unreadable::new("is not what is slower than most", "write one from `50%` to `99%`")),
            };
        }
        match text.parse::<Time>()? {
            zero if zero.0.is_zero() => Err(Unreadable::new("doubles every request", "write `95%`, or a time: `30ms`")),
            time => Ok(Self::Fixed(time)),
        }
    }
}

impl fmt::Display for CopyAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(share) => share.fmt(f),
            Self::Fixed(time) => time.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Literal>(text: &str) -> String {
        text.parse::<T>().map_or_else(|wrong| format!("{text} {wrong}"), |value| value.to_string())
    }

    #[test]
    fn causes_and_times_are_read_as_they_are_printed() {
        for text in ["connect", "reset", "timeout", "503", "429"] {
            assert_eq!(read::<RetryCause>(text), text);
        }
        for text in ["auto", "off", "250ms"] {
            assert_eq!(read::<PerTry>(text), text);
        }
        assert!(read::<RetryCause>("200").contains("no status of an error"));
        assert!(read::<RetryCause>("5xx").contains("no cause"));
        assert!(read::<PerTry>("0s").contains("no endpoint a chance"));
        assert!(read::<PerTry>("soon").contains("not a time"));
        for text in ["95%", "30ms"] {
            assert_eq!(read::<CopyAfter>(text), text);
        }
        assert!(read::<CopyAfter>("100%").contains("not what is slower"));
        assert!(read::<CopyAfter>("20%").contains("not what is slower"));
        assert!(read::<CopyAfter>("0ms").contains("doubles every request"));
        assert!(read::<CopyAfter>("late").contains("not a time"));
    }
}
