//! `cargo xtask dist`: the release binary with what a package wants beside it, in `target/dist`.
//!
//! Manual page and completions come out of the binary itself (`penstock man`, `penstock completion SHELL`), so that they cannot disagree with it.

use std::path::Path;
use std::process::Command;

use crate::{Outcome, place, shell};

pub fn run(_arguments: &[String]) -> Outcome {
    shell::run(shell::cargo("").args(["build", "--release", "--package", "penstock"]))?;
    let target = place::target_directory()?;
    let dist = target.join("dist");
    let binary = target.join("release/penstock");
    for folder in ["bin", "man/man1", "completions"] {
        std::fs::create_dir_all(dist.join(folder))
            .map_err(|error| format!("{}: {error}", dist.join(folder).display()))?;
    }
    copy(&binary, &dist.join("bin/penstock"))?;
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        copy(&place::root().join(licence), &dist.join(licence))?;
    }
    print_into(&binary, &["man"], &dist.join("man/man1/penstock.1"))?;
    for shell in ["bash", "zsh", "fish"] {
        print_into(&binary, &["completion", shell], &dist.join("completions").join(format!("penstock.{shell}")))?;
    }
    println!("dist: {}", dist.display());
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Outcome {
    std::fs::copy(from, to)
        .map(drop)
        .map_err(|error| format!("copying {} to {}: {error}", from.display(), to.display()))
}

/// Writes what the binary prints into a file; an empty print is an error, not an empty page.
fn print_into(binary: &Path, arguments: &[&str], file: &Path) -> Outcome {
    let output =
        Command::new(binary).args(arguments).output().map_err(|error| format!("{}: {error}", binary.display()))?;
    if !output.status.success() || output.stdout.is_empty() {
        return Err(format!(
            "`penstock {}` printed nothing ({}): {}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    std::fs::write(file, output.stdout).map_err(|error| format!("{}: {error}", file.display()))
}
