//! Problems of a configuration, and how they are shown: what, where, and what to do.

use crate::limits;
use serde_json::json;
use std::{fmt::Write, ops::Range};

/// What kind of problem it is. The numbers are stable: scripts and searches may rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    Syntax,
    UnknownKey,
    WrongType,
    MissingKey,
    BadValue,
    UnknownName,
    Duplicate,
    Conflict,
    Unreadable,
    Shadowed,
    Unused,
    NoEffect,
    Temporary,
}

impl Code {
    #[must_use]
    pub const fn number(self) -> &'static str {
        match self {
            Self::Syntax => "E010",
            Self::UnknownKey => "E012",
            Self::WrongType => "E013",
            Self::MissingKey => "E014",
            Self::BadValue => "E015",
            Self::UnknownName => "E020",
            Self::Duplicate => "E021",
            Self::Conflict => "E022",
            Self::Unreadable => "E030",
            Self::Shadowed => "W101",
            Self::Unused => "W102",
            Self::NoEffect => "W103",
            Self::Temporary => "W104",
        }
    }

    #[must_use]
    pub const fn is_error(self) -> bool {
        !matches!(self, Self::Shadowed | Self::Unused | Self::NoEffect | Self::Temporary)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub code: Code,
    pub message: String,
    /// Bytes of the text that it is about.
    pub at: Option<Range<usize>>,
    /// What to do, beside the caret.
    pub advice: String,
}

impl Problem {
    pub(super) fn error(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), at: None, advice: String::new() }
    }

    pub(super) fn at(mut self, at: Range<usize>) -> Self {
        self.at = Some(at);
        self
    }

    pub(super) fn advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }
}

/// A text and what is wrong with it.
#[derive(Debug, Clone)]
pub struct Report {
    /// A path, or what else the text is called.
    pub origin: String,
    pub text: String,
    /// In the order of the text.
    pub problems: Vec<Problem>,
}

impl Report {
    pub(super) fn new(origin: &str, text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.at.as_ref().map_or((0, 0), |at| (at.start, at.end)));
        problems.dedup();
        Self { origin: origin.into(), text: text.into(), problems }
    }

    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.code.is_error())
    }

    /// For people. Ends with a count, unless there is nothing to count.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        for problem in self.problems.iter().take(limits::PROBLEMS_SHOWN_MAX) {
            self.render_one(problem, &mut out);
        }
        let hidden = self.problems.len().saturating_sub(limits::PROBLEMS_SHOWN_MAX);
        if hidden > 0 {
            let _ = writeln!(out, "and {hidden} more\n");
        }
        if let Some(summary) = self.summary() {
            let _ = writeln!(out, "{summary}");
        }
        out
    }

    /// "2 errors, 1 warning".
    #[must_use]
    pub fn summary(&self) -> Option<String> {
        let errors = self.problems.iter().filter(|problem| problem.code.is_error()).count();
        let counts = [(errors, "error"), (self.problems.len() - errors, "warning")];
        let parts: Vec<_> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, noun)| format!("{count} {noun}{}", if *count == 1 { "" } else { "s" }))
            .collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    /// For machines: one object a problem.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let problems = self.problems.iter().map(|problem| {
            let place = problem.at.as_ref().map(|at| self.place(at.start));
            json!({
                "code": problem.code.number(),
                "severity": severity(problem.code),
                "message": problem.message,
                "advice": (!problem.advice.is_empty()).then_some(&problem.advice),
                "file": self.origin,
                "line": place.as_ref().map(|place| place.line),
                "column": place.as_ref().map(|place| place.column),
            })
        });
        problems.collect::<Vec<_>>().into()
    }

    fn render_one(&self, problem: &Problem, out: &mut String) {
        let _ = writeln!(out, "{}[{}]: {}", severity(problem.code), problem.code.number(), problem.message);
        let Some(at) = &problem.at else {
            if !problem.advice.is_empty() {
                let _ = writeln!(out, "  = {}", problem.advice);
            }
            out.push('\n');
            return;
        };
        let place = self.place(at.start);
        let gutter = " ".repeat(place.line.to_string().len());
        let in_line = &self.text[at.start..at.end.min(place.end).max(at.start)];
        let carets = "^".repeat(in_line.chars().count().max(1));
        // The caret line repeats the tabs of the source line, so that it stands under its word in any terminal.
        let indent: String =
            self.text[place.start..at.start].chars().map(|c| if c == '\t' { c } else { ' ' }).collect();
        let line = self.text[place.start..place.end].trim_end();
        let _ = writeln!(out, " {gutter}--> {}:{}:{}", self.origin, place.line, place.column);
        let _ = writeln!(out, " {gutter} |");
        let _ = writeln!(out, " {} | {line}", place.line);
        let _ = writeln!(out, " {gutter} | {}\n", format!("{indent}{carets} {}", problem.advice).trim_end());
    }

    pub(super) fn place(&self, byte: usize) -> Place {
        Place::of(&self.text, byte)
    }
}

const fn severity(code: Code) -> &'static str {
    if code.is_error() { "error" } else { "warning" }
}

pub(super) struct Place {
    /// From 1.
    pub(super) line: usize,
    /// From 1, in characters.
    column: usize,
    /// The line's bytes.
    start: usize,
    end: usize,
}

impl Place {
    pub(super) fn of(text: &str, byte: usize) -> Self {
        let mut byte = byte.min(text.len());
        while !text.is_char_boundary(byte) {
            byte -= 1;
        }
        let start = text[..byte].rfind('\n').map_or(0, |newline| newline + 1);
        let end = text[byte..].find('\n').map_or(text.len(), |newline| byte + newline);
        Self {
            line: text[..start].matches('\n').count() + 1,
            column: text[start..byte].chars().count() + 1,
            start,
            end,
        }
    }
}

/// What else is said of a line that is not TOML is an echo of that: it was read by guessing.
pub(super) fn drop_echoes(text: &str, problems: &mut Vec<Problem>) {
    let line = |problem: &Problem| problem.at.as_ref().map(|at| Place::of(text, at.start).line);
    let broken: Vec<_> = problems.iter().filter(|problem| problem.code == Code::Syntax).map(line).collect();
    if !broken.is_empty() {
        problems.retain(|problem| problem.code == Code::Syntax || !broken.contains(&line(problem)));
    }
}

/// The candidate nearest to what was written, if one is near enough to be what was meant: by Jaro's similarity, as
/// clap does for its flags, which forgives what edit distance does not (`adress` for `addr`).
pub fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const NEAR_ENOUGH: f64 = 0.75;
    let written = written.to_ascii_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro(&written, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(similarity, _)| *similarity >= NEAR_ENOUGH)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_names() {
        let keys = ["name", "addr", "protocol", "pool", "max_connections"];
        let table = [
            ("adress", Some("addr")),
            ("nmae", Some("name")),
            ("Pool", Some("pool")),
            ("max_conections", Some("max_connections")),
            ("tls", None),
            ("x", None),
        ];
        for (written, wanted) in table {
            assert_eq!(nearest(written, keys), wanted, "{written}");
        }
    }
}
