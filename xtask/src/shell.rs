//! Running other programs: said before, judged after.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::{Outcome, place};

/// A cargo command in the repository's root. `toolchain` is `+nightly`, say, or empty for the one in force.
pub fn cargo(toolchain: &str) -> Command {
    // Through rustup's proxy and not $CARGO, which is already one toolchain's own cargo and knows no `+nightly`.
    let mut command = Command::new("cargo");
    if !toolchain.is_empty() {
        command.arg(toolchain);
        // Left set, these pin the child to the toolchain that runs xtask.
        command.env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTC").env_remove("RUSTDOC");
    }
    command.env_remove("CARGO").env_remove("CARGO_MANIFEST_DIR");
    command.current_dir(place::root());
    command
}

/// The command as a person would type it, its own environment first.
pub fn written(command: &Command) -> String {
    let environment =
        command.get_envs().filter_map(|(name, value)| Some(format!("{}={}", name.display(), quoted(value?))));
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted);
    environment.chain(words).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    if word.is_empty() || word.contains(|c: char| c.is_whitespace() || "\"'$&|;<>()*".contains(c)) {
        format!("'{word}'")
    } else {
        word.into_owned()
    }
}

/// Says and runs a command; an error unless it exits with zero.
pub fn run(command: &mut Command) -> Outcome {
    eprintln!("$ {}", written(command));
    let status = command.status().map_err(|error| format!("`{}` did not start: {error}", written(command)))?;
    if status.success() { Ok(()) } else { Err(format!("`{}` failed ({status})", written(command))) }
}

/// Whether a command exits with zero; what it prints is thrown away.
pub fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Like [`run`], and hands every line of standard output to `see` after printing it.
pub fn run_watched(command: &mut Command, mut see: impl FnMut(&str)) -> Outcome {
    eprintln!("$ {}", written(command));
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("`{}` did not start: {error}", written(command)))?;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = line.map_err(|error| format!("reading `{}`: {error}", written(command)))?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            see(&line);
        }
    }
    let status = child.wait().map_err(|error| format!("`{}`: {error}", written(command)))?;
    if status.success() { Ok(()) } else { Err(format!("`{}` failed ({status})", written(command))) }
}

/// How many tests ran, as libtest's lines tell: `test result: ok. 3 passed; 0 failed; …`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
    pub ignored: u64,
}

impl Tally {
    /// Adds one line of a runner's output; lines that tell nothing are passed over.
    pub fn see(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else {
            return;
        };
        for part in counts.split(';') {
            let mut words = part.split_whitespace();
            let (Some(Ok(count)), Some(what)) = (words.next().map(str::parse::<u64>), words.next()) else {
                continue;
            };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }
}

/// Runs libtest through cargo, and fails when nothing ran: a filter that matches no test proves nothing.
pub fn run_tests(command: &mut Command) -> Outcome<Tally> {
    let mut tally = Tally::default();
    run_watched(command, |line| tally.see(line))?;
    if tally.passed + tally.failed == 0 { Err(format!("`{}` ran no test", written(command))) } else { Ok(tally) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_add_up() {
        let mut tally = Tally::default();
        tally.see("running 3 tests");
        tally.see("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.00s");
        tally.see("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.00s");
        assert_eq!(tally, Tally { passed: 4, failed: 2, ignored: 1 });
    }

    #[test]
    fn commands_are_written_so_that_they_can_be_pasted() {
        let mut command = Command::new("cargo");
        command.args(["test", "a b"]).env("SEED", "7");
        assert_eq!(written(&command), "SEED=7 cargo test 'a b'");
    }

    #[test]
    fn failure_is_an_error_that_names_the_command() {
        assert!(run(Command::new("false").arg("x")).unwrap_err().contains("`false x` failed"));
        assert!(run(&mut Command::new("no-such-program-here")).unwrap_err().contains("did not start"));
    }
}
