//! One file a task; those that fit in a screen together are here.

pub mod dist;
pub mod ebpf;
pub mod fuzz;
pub mod sanitize;
pub mod sim;
pub mod test;

use crate::{Outcome, install, place, shell};

/// `tidy`: the rules no compiler checks.
pub fn tidy(_arguments: &[String]) -> Outcome {
    let report = crate::tidy::check(&place::root())?;
    for note in &report.allowed {
        println!("allowed: {note}");
    }
    for finding in &report.findings {
        println!("{finding}");
    }
    println!(
        "tidy: {} files, {} findings, {} allowed exceptions",
        report.files,
        report.findings.len(),
        report.allowed.len()
    );
    if report.findings.is_empty() { Ok(()) } else { Err(format!("{} findings above", report.findings.len())) }
}

/// `deny`: licences and bans, as deny.toml says. Advisories are left out: their database is not a package, and cannot be had everywhere.
pub fn deny(_arguments: &[String]) -> Outcome {
    // A debug build of it checks as well, and is there in a minute instead of six.
    install::cargo_tool("cargo-deny", &["--debug"])?;
    shell::run(shell::cargo("").args(["deny", "check", "licenses", "bans"]))
}

/// `bench …`: builds and runs the bench binary with the words that follow, and before it the binary that is measured.
pub fn bench(arguments: &[String]) -> Outcome {
    // It looks into the engine, which no other part does.
    if let Some((_, rest)) = arguments.split_first().filter(|(part, _)| *part == "sharing") {
        let words = ["run", "--release", "--quiet", "--package", "penstock", "--example", "sharing_cost", "--"];
        return shell::run(shell::cargo("").args(words).args(rest));
    }
    let mut build = shell::cargo("");
    build.args(["build", "--release", "--quiet", "--package", "bench"]);
    let given = std::env::var_os("PENSTOCK_BINARY").is_some();
    if !given && !arguments.iter().any(|word| word == "--without-penstock" || word == "help") {
        build.args(["--package", "penstock"]);
    }
    shell::run(&mut build)?;
    let binary = place::target_directory()?.join("release/bench");
    let mut command = std::process::Command::new(binary);
    command.args(arguments).current_dir(place::root()).env("CARGO_MANIFEST_DIR", place::root().join("bench"));
    shell::run(&mut command)
}
