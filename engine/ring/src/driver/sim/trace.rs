//! The last events of a world, kept cheaply and turned into text only when somebody has to read them.

use std::collections::VecDeque;
use std::fmt::Write;

/// As many events as explain a failure; older ones are dropped.
const KEPT: usize = 200;

#[derive(Debug)]
enum What {
    /// A fixed text with the two numbers that most events have.
    Event { text: &'static str, who: i64, value: i64 },
    /// A note by a test, or a violation.
    Note(String),
}

#[derive(Debug, Default)]
pub(super) struct Trace {
    entries: VecDeque<(u64, What)>,
    dropped: u64,
}

impl Trace {
    pub(super) fn event(&mut self, now: u64, text: &'static str, who: i64, value: i64) {
        self.push(now, What::Event { text, who, value });
    }

    pub(super) fn note(&mut self, now: u64, text: String) {
        self.push(now, What::Note(text));
    }

    pub(super) fn text(&self) -> String {
        let mut out = format!("({} earlier events not shown; time in µs)\n", self.dropped);
        for (at, what) in &self.entries {
            let micros = *at as f64 / 1000.0;
            let _ = match what {
                What::Event { text, who, value } => writeln!(out, "{micros:>14.3}  {text} {who:#x} {value}"),
                What::Note(text) => writeln!(out, "{micros:>14.3}  -- {text}"),
            };
        }
        out
    }

    fn push(&mut self, now: u64, what: What) {
        if self.entries.len() == KEPT {
            self.entries.pop_front();
            self.dropped += 1;
        }
        self.entries.push_back((now, what));
    }
}
