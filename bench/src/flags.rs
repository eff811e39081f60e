//! The command line's words, taken apart.

use std::collections::HashMap;
use std::str::FromStr;

use xtask::Outcome;

/// Options as given: `--name value`, `--name=value`, or a bare `--name`.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    values: HashMap<String, String>,
}

impl Flags {
    /// `valued` take a value, `bare` take none; anything else is an error.
    pub(crate) fn parse(words: &[String], valued: &[&str], bare: &[&str]) -> Outcome<Self> {
        let mut flags = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let (name, given) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            let value = if bare.contains(&name) && given.is_none() {
                String::new()
            } else if valued.contains(&name) {
                given.or_else(|| words.next().cloned()).ok_or_else(|| format!("{name} wants a value"))?
            } else {
                return Err(format!("unknown option `{word}`; known: {} {}", valued.join(" "), bare.join(" ")));
            };
            flags.values.insert(name.to_owned(), value);
        }
        Ok(flags)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// A value of a type that reads itself, or `default` when the option is not given.
    pub(crate) fn read<T: FromStr>(&self, name: &str, default: T) -> Outcome<T> {
        match self.text(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| format!("{name} cannot be `{text}`")),
        }
    }

    /// A value that must be given.
    pub(crate) fn need<T: FromStr>(&self, name: &str) -> Outcome<T> {
        let text = self.text(name).ok_or_else(|| format!("{name} is missing"))?;
        text.parse().map_err(|_| format!("{name} cannot be `{text}`"))
    }

    /// The names in a comma-separated list.
    pub(crate) fn list<'a>(&'a self, name: &str, default: &'a str) -> Vec<&'a str> {
        self.text(name).unwrap_or(default).split(',').map(str::trim).filter(|item| !item.is_empty()).collect()
    }
}

/// A command line as a shell would split it, without its quotes.
#[cfg(test)]
pub(crate) fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Outcome<Flags> {
        Flags::parse(&words(text), &["--rounds", "--rivals"], &["--smoke"])
    }

    #[test]
    fn both_spellings_and_bare_ones() {
        let flags = parse("--rounds 2 --rivals=nginx,,haproxy --smoke").unwrap();
        assert_eq!(flags.read("--rounds", 8), Ok(2));
        assert_eq!(flags.list("--rivals", ""), ["nginx", "haproxy"]);
        assert!(flags.has("--smoke"));
        assert_eq!(parse("").unwrap().read("--rounds", 8), Ok(8));
        assert_eq!(parse("").unwrap().list("--rivals", "a,b"), ["a", "b"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(parse("--rounds").unwrap_err().contains("wants a value"));
        assert!(parse("--round 2").unwrap_err().contains("unknown option `--round`"));
        assert!(parse("--smoke=yes").is_err());
        assert!(parse("--rounds two").unwrap().read("--rounds", 8).unwrap_err().contains("cannot be `two`"));
        assert!(parse("").unwrap().need::<u16>("--rounds").unwrap_err().contains("missing"));
    }
}
