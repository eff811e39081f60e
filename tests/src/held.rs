//! A thread of the engine that is stopped while the others go on, as one that is stuck is.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use crate::{Engine, python, script};

/// A thread that does nothing until it is let go of.
#[derive(Debug)]
pub struct Held(Child);

impl Held {
    /// The engine's thread of this name; `None` where nobody may stop it (ptrace).
    pub fn of(engine: &Engine, name: &str) -> Option<Self> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", engine.pid())).expect("a process").flatten();
        let is_it = |task: &std::fs::DirEntry| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name)
        };
        let thread = tasks.into_iter().find(is_it).expect("a thread of this name").file_name();
        let mut command = Command::new(python());
        let command = command.arg(script("hold.py")).arg(thread).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python");
        let mut said = String::new();
        let out = child.stdout.take().expect("a pipe");
        BufReader::new(out).read_line(&mut said).expect("it says whether it does");
        if said.trim_end() == "held" {
            return Some(Self(child));
        }
        let _ = child.wait();
        None
    }

    /// It goes on.
    ///
    /// # Panics
    /// Who holds it has failed.
    pub fn let_go(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().expect("a status").success());
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
