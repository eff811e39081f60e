//! `cargo xtask tidy`: rules of this repository that neither rustc nor clippy knows.
//!
//! Layering inside `penstock`; `unsafe` in its two places and explained there; no clock but the ring's; no machine's own paths; nothing left for
//! later; one title a page; files and functions that fit a reader's head. Each rule is one function from a file to findings.

mod layers;
mod scrub;

use std::fmt;
use std::path::Path;

use crate::Outcome;
use scrub::{Views, views, word_at};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 100;

/// The only places where `unsafe` may stand.
const UNSAFE_PLACES: &[&str] = &["engine/ring/", "ebpf/"];

/// Places that may ask the operating system what time it is, with the reason.
const CLOCK_PLACES: &[(&str, &str)] = &[
    ("engine/ring/", "the ring owns the clock: everyone else is told `now`"),
    ("xtask/", "scripts, not the engine"),
    ("bench/", "measures from outside"),
    ("tests/", "watches the real binary from outside"),
];

/// Places that are longer than the rule allows, up to the length they have: the table may shrink, and grows only with a reason.
/// A function is written `path fn name`.
const LONGER: &[(&str, usize, &str)] = &[];

/// One thing that is wrong, where a person can click on it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    pub path: String,
    /// From 1.
    pub line: usize,
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// What a walk over the repository found.
#[derive(Debug, Default)]
pub struct Report {
    pub files: usize,
    pub findings: Vec<Finding>,
    /// Findings that a table allows, with the table's reason.
    pub allowed: Vec<String>,
}

/// Checks every text file below `root`.
pub fn check(root: &Path) -> Outcome<Report> {
    let mut paths = Vec::new();
    walk(root, "", &mut paths)?;
    paths.sort();
    let mut report = Report::default();
    for path in paths {
        let bytes = std::fs::read(root.join(&path)).map_err(|error| format!("{path}: {error}"))?;
        let Ok(source) = String::from_utf8(bytes) else {
            continue;
        };
        report.files += 1;
        check_file(&path, &source, LONGER, &mut report);
    }
    report.findings.sort();
    Ok(report)
}

fn walk(root: &Path, below: &str, paths: &mut Vec<String>) -> Outcome {
    let directory = root.join(below);
    let entries = std::fs::read_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
        let kind = entry.file_type().map_err(|error| format!("{path}: {error}"))?;
        if kind.is_dir() {
            // What is built or fetched is not ours; a fuzz corpus is bytes, not text.
            let foreign = name == ".git"
                || name == "target"
                || name.starts_with("target-")
                || name == "corpus"
                || name == "artifacts";
            if !foreign {
                walk(root, &path, paths)?;
            }
        } else if kind.is_file()
            && [".rs", ".toml", ".md", ".yml", ".yaml", ".py", ".json"].iter().any(|end| name.ends_with(end))
            || path == ".ci/run"
        {
            paths.push(path);
        }
    }
    Ok(())
}

fn check_file(path: &str, source: &str, longer: &[(&str, usize, &str)], report: &mut Report) {
    let mut finder = Finder { path, report, longer };
    finder.lines(source);
    if path.ends_with(".md") {
        finder.title(source);
    }
    if path.ends_with(".rs") {
        let views = views(source);
        finder.unsafety(&views);
        finder.clocks(&views);
        finder.unfinished(&views);
        finder.functions(&views);
        finder.file_length(source);
        if let Some(inside) = path.strip_prefix("engine/penstock/src/") {
            finder.layering(inside, &views);
        }
    }
}

struct Finder<'a> {
    path: &'a str,
    report: &'a mut Report,
    longer: &'a [(&'a str, usize, &'a str)],
}

impl Finder<'_> {
    /// `line` counts from 0, as the views do.
    fn find(&mut self, line: usize, message: impl Into<String>) {
        self.report.findings.push(Finding { path: self.path.to_owned(), line: line + 1, message: message.into() });
    }

    /// Rules of any text: paths of one machine, words that put something off.
    fn lines(&mut self, source: &str) {
        // Written in two parts, so that this file passes its own rule.
        let banned = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];
        let later = concat!("FIX", "ME");
        for (number, line) in source.lines().enumerate() {
            for path in banned {
                let stands = line.match_indices(path).any(|(at, _)| {
                    // A longer path, or a URL's, is another thing.
                    !line[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || "._-~$}/".contains(c))
                });
                if stands {
                    self.find(number, format!("`{path}` is a path of one machine"));
                }
            }
            if word_at(line, later).is_some() {
                self.find(number, format!("`{later}`: fix it, or file an issue"));
            }
        }
    }

    fn title(&mut self, source: &str) {
        let (mut fenced, mut titles) = (false, Vec::new());
        for (number, line) in source.lines().enumerate() {
            if line.trim_start().starts_with("```") || line.trim_start().starts_with("~~~") {
                fenced = !fenced;
            } else if !fenced && line.starts_with("# ") {
                titles.push(number);
            }
        }
        if titles.len() != 1 {
            self.find(
                titles.get(1).copied().unwrap_or(0),
                format!("a page has exactly one `# Title`; this one has {}", titles.len()),
            );
        }
    }

    fn unsafety(&mut self, views: &Views) {
        let allowed = UNSAFE_PLACES.iter().any(|place| self.path.starts_with(place));
        for (number, line) in views.code.iter().enumerate() {
            let Some(at) = word_at(line, "unsafe") else {
                continue;
            };
            let after = line[at + "unsafe".len()..].trim_start();
            if !allowed {
                self.find(number, format!("`unsafe` outside {}", UNSAFE_PLACES.join(", ")));
            } else if after.starts_with("fn") || after.starts_with("extern \"") && after.contains("fn ") {
                // A type (`unsafe fn(…)`) promises nothing by itself; a declaration does.
                let declared = after.split("fn").nth(1).is_some_and(|rest| rest.starts_with(' '));
                if declared
                    && !explained(views, number, &["SAFETY:", "# Safety"])
                    && !in_trait_impl(&views.code, number)
                {
                    self.find(
                        number,
                        "`unsafe fn` without a `# Safety` section that tells what the caller must uphold",
                    );
                }
            } else if !explained(views, number, &["SAFETY:", "# Safety"]) {
                self.find(number, "`unsafe` without a `// SAFETY:` comment right above it");
            }
        }
    }

    fn clocks(&mut self, views: &Views) {
        if CLOCK_PLACES.iter().any(|(place, _)| self.path.starts_with(place)) {
            return;
        }
        for (number, line) in views.code.iter().enumerate() {
            for clock in ["Instant::now", "SystemTime::now"] {
                if line.contains(clock) {
                    self.find(number, format!("`{clock}` outside engine/ring: take `now` from the ring"));
                }
            }
        }
    }

    fn unfinished(&mut self, views: &Views) {
        for (number, line) in views.code.iter().enumerate() {
            for word in ["todo", "unimplemented", "dbg"] {
                if word_at(line, word).is_some_and(|at| line[at + word.len()..].starts_with('!')) {
                    self.find(number, format!("`{word}!` does not belong in what is committed"));
                }
            }
        }
    }

    fn file_length(&mut self, source: &str) {
        let lines = source.lines().count();
        if lines > FILE_LINES_MAX {
            self.long(self.path.to_owned(), 0, lines, FILE_LINES_MAX);
        }
    }

    fn functions(&mut self, views: &Views) {
        for (name, line, lines) in functions(&views.code) {
            if lines > FUNCTION_LINES_MAX {
                self.long(format!("{} fn {name}", self.path), line, lines, FUNCTION_LINES_MAX);
            }
        }
    }

    fn long(&mut self, what: String, line: usize, lines: usize, max: usize) {
        match self.longer.iter().find(|(place, _, _)| *place == what) {
            Some((_, ratchet, reason)) if lines <= *ratchet => {
                self.report.allowed.push(format!("{what}: {lines} lines (≤ {ratchet}): {reason}"))
            }
            Some((_, ratchet, _)) => {
                self.find(line, format!("{what} grew to {lines} lines; its exception ends at {ratchet}"))
            }
            None => self.find(line, format!("{what} has {lines} lines, more than {max}: two things are in it")),
        }
    }

    fn layering(&mut self, inside: &str, views: &Views) {
        let room = layers::room_of(inside);
        if !layers::known(room) {
            return self.find(0, format!("room `{room}` has no floor: give it one in xtask/src/tidy/layers.rs"));
        }
        let module = inside.strip_suffix("/mod.rs").or_else(|| inside.strip_suffix(".rs")).unwrap_or(inside);
        for (line, named) in layers::named(&views.code, module.split('/').count()) {
            if let Some(why) = layers::forbidden(room, &named) {
                self.find(line, why);
            }
        }
    }
}

/// Whether a comment with one of these marks stands on the line, or right above the statement that it is part of.
fn explained(views: &Views, line: usize, marks: &[&str]) -> bool {
    let marked = |number: usize| marks.iter().any(|mark| views.comments[number].contains(mark));
    if marked(line) {
        return true;
    }
    for number in (0..line).rev() {
        let code = views.code[number].trim();
        let commented = !views.comments[number].trim().is_empty();
        if code.is_empty() && !commented {
            return false;
        }
        if marked(number) && code.is_empty() {
            return true;
        }
        // Attributes, and the beginning of the same statement, may stand between.
        let ends = code.ends_with([';', '{', '}', ',']) && !code.starts_with("#[");
        if ends {
            return false;
        }
    }
    false
}

/// Whether the line stands in an `impl Trait for Type`: there the trait's own documentation says what its callers must uphold.
fn in_trait_impl(code: &[String], line: usize) -> bool {
    let indent = |text: &str| text.len() - text.trim_start().len();
    let here = indent(&code[line]);
    let above = code[..line].iter().rev();
    let mut enclosing = above.filter(|text| !text.trim().is_empty() && indent(text) < here);
    enclosing.next().is_some_and(|text| word_at(text, "impl").is_some() && word_at(text, "for").is_some())
}

/// Every function with a body: its name, its line (from 0) and how many lines it has.
fn functions(code: &[String]) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (number, line) in code.iter().enumerate() {
        let Some(at) = word_at(line, "fn") else {
            continue;
        };
        let name: String =
            line[at + 2..].trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if name.is_empty() {
            continue; // a type: `fn(u8)`
        }
        if let Some(end) = body_end(code, number, at) {
            found.push((name, number, end - number + 1));
        }
    }
    found
}

/// The line on which the body that begins after `(line, column)` ends; none for a declaration without one.
fn body_end(code: &[String], line: usize, column: usize) -> Option<usize> {
    let (mut braces, mut brackets) = (0_usize, 0_usize);
    for (number, text) in code.iter().enumerate().skip(line) {
        let skip = if number == line { column } else { 0 };
        for character in text[skip..].chars() {
            match character {
                '(' | '[' => brackets += 1,
                ')' | ']' => brackets = brackets.saturating_sub(1),
                // `[u8; N]` in a signature ends nothing.
                ';' if braces == 0 && brackets == 0 => return None,
                '{' => braces += 1,
                '}' => {
                    braces = braces.saturating_sub(1);
                    if braces == 0 && brackets == 0 {
                        return Some(number);
                    }
                }
                _ => {}
            }
        }
    }
    None
}

#[cfg(test)]
mod tests;
