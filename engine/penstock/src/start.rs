//! Where the command line hands over to the engine.

use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;

use crate::control;
use crate::engine::Reread;
use crate::snapshot::Snapshot;

/// Where a snapshot came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `run -c FILE`.
    File(PathBuf),
    /// `serve` with its flags, as the TOML that they stand for.
    Flags { toml: String },
}

/// Runs the engine until it is told to stop and has drained. `reread` reads the configuration anew, where it can be.
#[must_use]
pub fn run(snapshot: Arc<Snapshot>, source: &Source, reread: Option<Rc<Reread>>) -> ExitCode {
    if let Source::File(path) = source {
        eprintln!("penstock: configuration {}", path.display());
    }
    match control::run(snapshot, reread, &mut |line| eprintln!("{line}")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("penstock: {error}");
            ExitCode::FAILURE
        }
    }
}
