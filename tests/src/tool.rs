//! Programs that we did not write, run within a bound of time.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A program to run to its end.
#[derive(Debug)]
pub struct Tool {
    command: Command,
    name: String,
}

/// What came of it.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: Vec<u8>,
    pub err: String,
}

impl Tool {
    /// `program`, killed after `seconds`.
    pub fn new(program: impl AsRef<Path>, seconds: u32) -> Self {
        let program = program.as_ref();
        let found = if program.components().count() == 1 {
            let name = program.to_string_lossy();
            xtask::place::program(&name)
                .unwrap_or_else(|| panic!("{name} is not on PATH: cargo xtask test installs it"))
        } else {
            program.to_owned()
        };
        let mut command = Command::new("timeout");
        command.args(["-k", "1", &seconds.to_string()]).arg(found).stdin(Stdio::null());
        Self { command, name: program.display().to_string() }
    }

    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn input(mut self, file: &Path) -> Self {
        self.command.stdin(std::fs::File::open(file).unwrap_or_else(|error| panic!("{}: {error}", file.display())));
        self
    }

    /// Runs it, whatever its exit code.
    pub fn run(mut self) -> Ran {
        let output = self.command.output().unwrap_or_else(|error| panic!("{}: {error}", self.name));
        assert_ne!(output.status.code(), Some(124), "{} took too long: {:?}", self.name, self.command);
        Ran {
            code: output.status.code(),
            out: output.stdout,
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs it, and wants exit code 0.
    pub fn succeed(self) -> Ran {
        let shown = format!("{:?}", self.command);
        let ran = self.run();
        assert_eq!(ran.code, Some(0), "{shown}\n{}\n{}", ran.text(), ran.err);
        ran
    }
}

impl Ran {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }
}

/// Waits for a condition.
#[track_caller]
pub fn until(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < patience, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
