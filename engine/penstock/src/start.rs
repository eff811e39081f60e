//! PLACEHOLDER, to be replaced by the engine: where the command line hands over.

use crate::snapshot::Snapshot;
use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

/// Where a snapshot came from: a reload reads it again there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `run -c FILE`.
    File(PathBuf),
    /// `serve` with its flags, as the TOML that they stand for.
    Flags { toml: String },
}

/// What `demo` was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demo {
    /// `None`: until Ctrl-C.
    pub run_for: Option<Duration>,
    /// Workers; `None`: one for each allowed CPU.
    pub cores: Option<usize>,
}

/// Runs the engine until it is told to stop and has drained.
pub fn run(_snapshot: Arc<Snapshot>, _source: Source) -> ExitCode {
    eprintln!("penstock: the engine is not wired to the command line yet");
    ExitCode::FAILURE
}

/// Runs the embedded origins, the engine and a bounded load.
pub fn demo(_demo: Demo) -> ExitCode {
    eprintln!("penstock: the engine is not wired to the command line yet");
    ExitCode::FAILURE
}
