//! Getting what tests and benchmarks need: Debian packages when root, Python packages into a folder of their own under `target/`.
//!
//! Nothing here is fatal by itself: what cannot be had is told with its reason, and the caller decides what it skips.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::{Outcome, place, shell};

/// A program and the Debian package that brings it.
pub type Tool = (&'static str, &'static str);

/// Installs the packages of those tools that are not on PATH, and returns the ones still missing, each with why.
pub fn tools(wanted: &[Tool]) -> Vec<(&'static str, String)> {
    let missing = |tool: &&Tool| place::program(tool.0).is_none();
    let packages: Vec<&str> = wanted.iter().filter(missing).map(|tool| tool.1).collect();
    if packages.is_empty() {
        return Vec::new();
    }
    let why = match apt(&packages) {
        Ok(()) => "apt-get installed its package, yet it is not on PATH".to_owned(),
        Err(why) => why,
    };
    wanted.iter().filter(missing).map(|tool| (tool.0, why.clone())).collect()
}

/// Installs the package that brings a file, unless that is there.
pub fn file(path: &str, package: &str) -> Outcome {
    let is_there = || Path::new(path).is_file();
    if !is_there() {
        apt(&[package])?;
    }
    if is_there() { Ok(()) } else { Err(format!("{package} is installed and did not bring {path}")) }
}

/// `apt-get install`, refreshing the package lists once a process.
fn apt(packages: &[&str]) -> Outcome {
    static REFRESHED: OnceLock<bool> = OnceLock::new();
    let by_hand = format!("install by hand: apt-get install {}", packages.join(" "));
    if place::program("apt-get").is_none() {
        return Err(format!("there is no apt-get here; {by_hand}"));
    }
    if !is_root() {
        return Err(format!("not root, so nothing was installed; {by_hand}"));
    }
    REFRESHED.get_or_init(|| shell::run(apt_get().args(["update", "-q"]).stdout(Stdio::null())).is_ok());
    // Together first; one by one when that fails, so that one unknown name does not cost the others.
    let install = |names: &[&str]| {
        shell::run(apt_get().args(["install", "-y", "-q", "--no-install-recommends"]).args(names).stdout(Stdio::null()))
    };
    if install(packages).is_ok() {
        return Ok(());
    }
    let refused: Vec<&str> = packages.iter().copied().filter(|name| install(&[name]).is_err()).collect();
    if refused.is_empty() { Ok(()) } else { Err(format!("apt-get refused {}", refused.join(" "))) }
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    // A daemon that is installed for a benchmark has no business starting by itself: policy-rc.d is not ours, RUNLEVEL is honoured.
    command.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    command
}

fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| effective_user(&status) == Some(0))
}

fn effective_user(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

/// What tests use of PyPI, in an environment of our own.
pub const PYTHON: &[&str] =
    &["h11", "grpcio", "grpcio-health-checking", "h2", "websockets", "aioquic", "pycurl", "niquests"];

/// A Python environment of our own with these packages in it, made when it is not there. Returns its `bin` folder.
pub fn python(directory: &Path, packages: &[&str]) -> Outcome<PathBuf> {
    let bin = directory.join("bin");
    if !bin.join("pip").is_file() {
        let python = place::program("python3")
            .ok_or("there is no python3 on PATH; install by hand: apt-get install python3 python3-venv")?;
        shell::run(Command::new(python).args(["-m", "venv"]).arg(directory))
            .map_err(|why| format!("{why}; the package python3-venv may be missing"))?;
    }
    let absent: Vec<&str> = packages
        .iter()
        .copied()
        .filter(|name| !shell::succeeds(Command::new(bin.join("pip")).args(["show", "-q", name])))
        .collect();
    if !absent.is_empty() {
        let mut pip = Command::new(bin.join("pip"));
        shell::run(pip.args(["install", "-q", "--disable-pip-version-check"]).args(&absent))?;
    }
    Ok(bin)
}

/// What building BoringSSL, which quiche brings with it, wants besides a C compiler.
const BORING: &[Tool] = &[("c++", "g++"), ("cmake", "cmake")];

/// The clients of HTTP/3 in `tests/quic`, built: a crate outside the workspace, in a target folder that stays.
pub fn quic_clients() -> Outcome<PathBuf> {
    if let Some((name, why)) = tools(BORING).pop() {
        return Err(format!("{name}: {why}"));
    }
    if !has_libclang() {
        apt(&["libclang-dev"])?;
    }
    let target = place::target_directory()?.join("quic-clients");
    let manifest = place::root().join("tests/quic/Cargo.toml");
    eprintln!("building other people's clients of HTTP/3 (BoringSSL among it: minutes, once)");
    let mut build = shell::cargo("");
    build.args(["build", "--quiet", "--locked", "--manifest-path"]).arg(manifest).arg("--target-dir").arg(&target);
    shell::run(&mut build)?;
    Ok(target.join("debug/quic-clients"))
}

/// Whether there is a `libclang` with its headers, from which bindings are made.
fn has_libclang() -> bool {
    let versions = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    versions
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("llvm-"))
        .any(|entry| entry.path().join("lib/libclang.so").exists() && entry.path().join("lib/clang").is_dir())
}

/// A cargo subcommand from the crate registry, installed when it is not on PATH.
pub fn cargo_tool(name: &str, extra: &[&str]) -> Outcome {
    if place::program(name).is_some() {
        return Ok(());
    }
    eprintln!("{name} is not on PATH: installing it from the crate registry (minutes, once)");
    // A target folder that stays: an interrupted installation goes on where it was.
    let target = place::target_directory()?.join("tools");
    shell::run(shell::cargo("").args(["install", name, "--locked"]).args(extra).arg("--target-dir").arg(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_user_is_the_second_number() {
        assert_eq!(effective_user("Name:\tx\nUid:\t1000\t0\t1000\t0\nGid:\t1\n"), Some(0));
        assert_eq!(effective_user("Uid:\t1000\t1000\t1000\t1000\n"), Some(1000));
        assert_eq!(effective_user(""), None);
    }

    #[test]
    fn what_is_there_is_not_installed_again() {
        assert!(tools(&[("sh", "dash"), ("cat", "coreutils")]).is_empty());
    }
}
