//! A route's traffic divided among pools: by weight, and what keeps a client with one of them; or by what they are like now.

use super::literal::{Literal, Unreadable, is_token};
use crate::limits;
use std::{fmt, str::FromStr};

/// A pool and its share of a route's traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    pub pool: Box<str>,
    /// Against the weights of the others; 0 gets nothing.
    pub weight: u32,
}

impl Literal for Share {
    const FORMAT: &'static str = "share-of-pool";
    const FORM: &'static str = "a pool and its share: `canary weight=1` (1 unless given)";
}

impl FromStr for Share {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let mut words = text.split_whitespace();
        let Some(pool) = words.next() else {
            return Err(Unreadable::new("names no pool", "write `canary weight=1`"));
        };
        let weight = match words.next() {
            None => 1,
            Some(word) => word
                .strip_prefix("weight=")
                .and_then(|number| number.parse().ok())
                .filter(|weight| *weight <= limits::WEIGHT_MAX)
                .ok_or_else(|| {
                    let form = format!("write `{pool} weight=N`, N from 0 to {}", limits::WEIGHT_MAX);
                    Unreadable::new(format!("has `{word}` after the pool"), form)
                })?,
        };
        if let Some(more) = words.next() {
            return Err(Unreadable::new(format!("goes on with `{more}`"), format!("write `{pool} weight={weight}`")));
        }
        Ok(Self { pool: pool.into(), weight })
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.weight == 1 { f.write_str(&self.pool) } else { write!(f, "{} weight={}", self.pool, self.weight) }
    }
}

/// A pool that a route may choose, and what a request there costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub pool: Box<str>,
    /// In thousandths, against the cost of the others.
    pub cost: u32,
}

impl Candidate {
    /// The cost of one that says nothing.
    pub const COST: u32 = 1_000;
    const COST_MAX: u32 = 1_000_000;

    /// As a factor.
    #[must_use]
    pub fn factor(&self) -> f64 {
        f64::from(self.cost) / f64::from(Self::COST)
    }
}

impl Literal for Candidate {
    const FORMAT: &'static str = "candidate-pool";
    const FORM: &'static str = "a pool and what a request there costs: `burst cost=1.5` (1 unless given)";
}

impl FromStr for Candidate {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let mut words = text.split_whitespace();
        let Some(pool) = words.next() else {
            return Err(Unreadable::new("names no pool", "write `burst cost=1.5`"));
        };
        let cost = match words.next() {
            None => Self::COST,
            Some(word) => word.strip_prefix("cost=").and_then(thousandths).ok_or_else(|| {
                let form = format!("write `{pool} cost=N`, N from 0.001 to 1000 with at most three decimals");
                Unreadable::new(format!("has `{word}` after the pool"), form)
            })?,
        };
        if let Some(more) = words.next() {
            return Err(Unreadable::new(format!("goes on with `{more}`"), format!("write `{pool} cost=1.5`")));
        }
        Ok(Self { pool: pool.into(), cost })
    }
}

/// `1.5` as 1500.
fn thousandths(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| (1..=7).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 3 {
        return None;
    }
    let number = whole.parse::<u32>().ok()? * 1_000 + format!("{part:0<3}").parse::<u32>().ok()?;
    (1..=Candidate::COST_MAX).contains(&number).then_some(number)
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.cost == Self::COST {
            f.write_str(&self.pool)
        } else {
            write!(f, "{} cost={}", self.pool, self.factor())
        }
    }
}

/// By what a client is known again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Sticky {
    /// Its address.
    #[default]
    Client,
    /// The value of a request field, and the address where there is none.
    Header(Box<str>),
    /// The value of a cookie, and the address where there is none.
    Cookie(Box<str>),
}

impl Literal for Sticky {
    const FORMAT: &'static str = "sticky-key";
    const FORM: &'static str =
        "`client` (its address), `header:NAME` or `cookie:NAME` (the address where there is none)";
}

impl FromStr for Sticky {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let form = || Unreadable::new("is no key", "write `client`, `header:X-User` or `cookie:session`");
        match text.split_once(':') {
            None if text == "client" => Ok(Self::Client),
            Some(("header", name)) if is_token(name) => Ok(Self::Header(name.into())),
            Some(("cookie", name)) if is_token(name) => Ok(Self::Cookie(name.into())),
            _ => Err(form()),
        }
    }
}

impl fmt::Display for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client => f.write_str("client"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_texts() {
        for (text, wanted) in
            [("stable weight=99", "stable weight=99"), ("a weight=1", "a"), ("a", "a"), ("a weight=0", "a weight=0")]
        {
            assert_eq!(text.parse::<Share>().unwrap().to_string(), wanted);
        }
        for text in ["", "a b", "a weight=", "a weight=70000", "a weight=1 b", "a weight=-1"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
        for (text, wanted) in [
            ("far cost=1.5", "far cost=1.5"),
            ("far  cost=1.0", "far"),
            ("far", "far"),
            ("far cost=0.001", "far cost=0.001"),
            ("far cost=1000", "far cost=1000"),
            ("far cost=12.25", "far cost=12.25"),
        ] {
            assert_eq!(text.parse::<Candidate>().unwrap().to_string(), wanted);
        }
        for text in [
            "",
            "a b",
            "a cost=",
            "a cost=0",
            "a cost=0.0001",
            "a cost=1001",
            "a cost=-1",
            "a cost=1e3",
            "a cost=.5",
            "a cost=1.",
            "a cost=1.5 b",
            "a cost=99999999999",
            "a cost=NaN",
            "a weight=2",
        ] {
            assert!(text.parse::<Candidate>().is_err(), "{text}");
        }
        for text in ["client", "header:X-User", "cookie:session"] {
            assert_eq!(text.parse::<Sticky>().unwrap().to_string(), text);
        }
        for text in ["", "header", "header:", "cookie:a b", "query:x"] {
            assert!(text.parse::<Sticky>().is_err(), "{text}");
        }
    }
}
