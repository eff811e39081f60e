//! `cargo xtask sanitize`: the only crate with `unsafe` under the tools that see what `unsafe` gets wrong.
//!
//! - `address`: every test of engine/ring under AddressSanitizer. The std that nightly ships is not instrumented, which costs
//!   reports inside std only; no rust-src is needed.
//! - `thread`: the tests whose name contains `mailbox` under ThreadSanitizer. Std is not instrumented here either, and rustc refuses to
//!   mix the two unless told that it may. Atomics are inlined into our own code and are seen, thread start and join are intercepted; what happens
//!   inside std's precompiled code (channels, parking) is not seen, so a test that hands data over only through those reports a race that is
//!   none. libtest's own channel is one of them, and is suppressed by name.
//! - `loom`: the tests whose name contains `loom`, with `--cfg loom`, which explore every interleaving instead of sampling.

use super::fuzz::nightly;
use crate::{Outcome, place, shell};

const HOST: &str = "x86_64-unknown-linux-gnu";

struct Kind {
    name: &'static str,
    toolchain: &'static str,
    flags: &'static str,
    /// Tests to run: a libtest filter, empty for all.
    filter: &'static str,
    environment: &'static [(&'static str, &'static str)],
}

const KINDS: &[Kind] = &[
    Kind {
        name: "address",
        toolchain: "+nightly",
        flags: "-Zsanitizer=address",
        filter: "",
        environment: &[("ASAN_OPTIONS", "detect_stack_use_after_return=1")],
    },
    Kind {
        name: "thread",
        toolchain: "+nightly",
        flags: "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer",
        filter: "mailbox",
        environment: &[],
    },
    Kind {
        name: "loom",
        toolchain: "",
        flags: "--cfg loom",
        filter: "loom",
        environment: &[("LOOM_MAX_PREEMPTIONS", "3")],
    },
];

/// Races that ThreadSanitizer sees only because std is not instrumented: the channel over which libtest hands results to its main thread.
const SUPPRESSIONS: &str = "race:test::event::CompletedTest\nrace:std::sync::mpmc\n";

pub fn run(arguments: &[String]) -> Outcome {
    if let Some(unknown) = arguments.iter().find(|word| !KINDS.iter().any(|kind| kind.name == *word)) {
        return Err(format!("there is no sanitizer `{unknown}`: address, thread, loom"));
    }
    let mut failures = Vec::new();
    for kind in KINDS.iter().filter(|kind| arguments.is_empty() || arguments.iter().any(|word| word == kind.name)) {
        match check(kind) {
            Ok(tally) => println!("sanitize {}: {} passed, {} failed", kind.name, tally.passed, tally.failed),
            Err(why) => failures.push(format!("{}: {why}", kind.name)),
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

fn check(kind: &Kind) -> Outcome<shell::Tally> {
    if !kind.toolchain.is_empty() {
        nightly()?;
    }
    let target = place::target_directory()?.join("sanitize").join(kind.name);
    std::fs::create_dir_all(&target).map_err(|error| format!("{}: {error}", target.display()))?;
    let suppressions = target.join("suppressions");
    std::fs::write(&suppressions, SUPPRESSIONS).map_err(|error| format!("{}: {error}", suppressions.display()))?;
    let mut command = shell::cargo(kind.toolchain);
    // Naming the target keeps the flags away from build scripts and procedural macros, which run uninstrumented.
    command
        .args(["test", "--package", "penstock-ring", "--lib", "--tests", "--target", HOST, "--target-dir"])
        .arg(&target);
    if !kind.filter.is_empty() {
        command.arg(kind.filter);
    }
    command.env("TSAN_OPTIONS", format!("halt_on_error=1 suppressions={}", suppressions.display()));
    command.env("RUSTFLAGS", kind.flags).envs(kind.environment.iter().copied());
    shell::run_tests(&mut command)
}
