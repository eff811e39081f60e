//! What a rate limit counts by, and how many requests a pool may work on, as text.

use super::literal::{Literal, Unreadable};
use crate::limits;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{borrow::Cow, fmt, str::FromStr};

/// What has a rate of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LimitKey {
    /// All requests together.
    #[default]
    Route,
    Client,
    Host,
    Path,
    /// In lower case.
    Header(Box<str>),
    Cookie(Box<str>),
}

const WORDS: &[(&str, LimitKey)] = &[
    ("route", LimitKey::Route),
    ("client-address", LimitKey::Client),
    ("host", LimitKey::Host),
    ("path", LimitKey::Path),
];

impl Literal for LimitKey {
    const FORMAT: &'static str = "limit key";
    const FORM: &'static str =
        "what has a rate of its own: `route`, `client-address`, `host`, `path`, `header:x-api-key` or `cookie:session`";
}

impl FromStr for LimitKey {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let form = || "write `client-address`, `route`, `host`, `path`, `header:NAME` or `cookie:NAME`".to_owned();
        if let Some((_, key)) = WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(key.clone());
        }
        let named = text.split_once(':').ok_or_else(|| Unreadable::new("is nothing to count by", form()))?;
        let (kind, name) = named;
        if !is_token(name) {
            return Err(Unreadable::new("names no field", form()));
        }
        match kind {
            "header" => Ok(Self::Header(name.to_ascii_lowercase().into())),
            "cookie" => Ok(Self::Cookie(name.into())),
            _ => Err(Unreadable::new("is nothing to count by", form())),
        }
    }
}

impl fmt::Display for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            word => f.write_str(WORDS.iter().find(|(_, key)| key == word).map_or("", |(text, _)| text)),
        }
    }
}

/// A token of RFC 9110 §5.6.2: the name of a field or a cookie.
pub(super) fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// How many requests a pool may work on at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConcurrencyLimit {
    #[default]
    Off,
    /// Found by each worker for itself, from how latencies follow load.
    Auto,
    /// Over all workers.
    Fixed(u32),
}

impl FromStr for ConcurrencyLimit {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        match text {
            "off" => Ok(Self::Off),
            "auto" => Ok(Self::Auto),
            number => match number.parse() {
                Ok(limit) if (1..=limits::CONCURRENCY_MAX).contains(&limit) => Ok(Self::Fixed(limit)),
                _ => {
                    let form = format!("write `auto`, `off` or a number from 1 to {}", limits::CONCURRENCY_MAX);
                    Err(Unreadable::new("is no number of requests", form))
                }
            },
        }
    }
}

impl fmt::Display for ConcurrencyLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Auto => f.write_str("auto"),
            Self::Fixed(limit) => write!(f, "{limit}"),
        }
    }
}

impl Literal for ConcurrencyLimit {
    const FORMAT: &'static str = "concurrency";
    const FORM: &'static str = "requests at one time: `auto`, `off` or a number";
}

impl Serialize for ConcurrencyLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(limit) => serializer.serialize_u32(*limit),
            word => serializer.collect_str(word),
        }
    }
}

impl<'de> Deserialize<'de> for ConcurrencyLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum NumberOrWord {
            Number(u32),
            Word(String),
        }
        let text = match NumberOrWord::deserialize(deserializer)? {
            NumberOrWord::Number(limit) => limit.to_string(),
            NumberOrWord::Word(word) => word,
        };
        text.parse().map_err(D::Error::custom)
    }
}

impl schemars::JsonSchema for ConcurrencyLimit {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        Self::FORMAT.into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": ["string", "integer"],
            "format": Self::FORMAT,
            "minimum": 1,
            "maximum": limits::CONCURRENCY_MAX,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_canonical() {
        for (text, wanted) in [
            ("route", "route"),
            ("client-address", "client-address"),
            ("header:X-Api-Key", "header:x-api-key"),
            ("cookie:Sid", "cookie:Sid"),
        ] {
            assert_eq!(text.parse::<LimitKey>().unwrap().to_string(), wanted);
        }
        for text in ["client", "header:", "header:a b", "query:x", ""] {
            assert!(text.parse::<LimitKey>().is_err(), "{text}");
        }
    }

    #[test]
    fn limits_are_words_or_numbers() {
        for text in ["off", "auto", "1", "1000"] {
            assert_eq!(text.parse::<ConcurrencyLimit>().unwrap().to_string(), text);
        }
        for text in ["0", "-1", "many", "99999999999"] {
            assert!(text.parse::<ConcurrencyLimit>().is_err(), "{text}");
        }
    }
}
