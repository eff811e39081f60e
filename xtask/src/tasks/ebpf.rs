//! `cargo xtask ebpf`: the programs of `ebpf/`, built with nothing of this system changed.
//!
//! The object that is committed has no debug information and no paths in it, so different compilers make the same bytes of the same source:
//! `--check` builds it and compares. What is needed is fetched into `target/ebpf` once: bpf-linker from the crate registry, and, where rustup
//! has no nightly with rust-src, the compiler that Debian builds with a `core` for this target, unpacked and not installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Outcome, place, shell};

/// The packages of programs in `ebpf/`, each with the feature that it is built with, if any. Each makes one object, which the engine has built in.
const PROGRAMS: &[(&str, Option<&str>)] = &[
    ("steer", None),
    ("shield", None),
    ("shield", Some("cookies")),
    ("lookup", None),
    ("samehost", None),
    ("balance", None),
    ("balance", Some("nat")),
    ("afxdp", None),
];

const TARGET: &str = "bpfel-unknown-none";

/// The last series that finds LLVM in rustc itself and needs none of the system's.
const LINKER: &str = "0.10.4";

/// Debian's compiler and the prebuilt `core`, and what they are linked to.
const DEBIAN: &[&str] =
    &["rustc-web", "libstd-rust-web-1.96", "libstd-rust-web-dev", "libstd-rust-web-dev-bpf", "libllvm22"];

/// Compilers that are known to make the committed object. What another one makes may differ, and proves nothing.
const KNOWN: &[&str] = &["1.96.0 (ac68faa20 2026-05-25)", "1.97.0-nightly (e50aa6fba 2026-05-19)"];

pub fn run(arguments: &[String]) -> Outcome {
    let check = match arguments {
        [] => false,
        [word] if word == "--check" => true,
        _ => return Err("ebpf [--check]".to_owned()),
    };
    let tools = match Tools::find() {
        Ok(tools) => tools,
        Err(why) if check => {
            println!("ebpf: SKIPPED: no object was compared with its source: {why}");
            return Ok(());
        }
        Err(why) => return Err(why),
    };
    for &(package, feature) in PROGRAMS {
        let kind = feature.map(|feature| format!("-{feature}")).unwrap_or_default();
        let object = format!("ebpf/{package}/{package}{kind}.o");
        let built = tools.build(package, feature)?;
        if check { compare(&object, &built, &tools)? } else { replace(&object, &built, &tools)? }
    }
    Ok(())
}

fn replace(object: &str, built: &[u8], tools: &Tools) -> Outcome {
    std::fs::write(place::root().join(object), built).map_err(|error| format!("{object}: {error}"))?;
    println!("ebpf: {object}, {} bytes, by rustc {}", built.len(), tools.version);
    Ok(())
}

fn compare(object: &str, built: &[u8], tools: &Tools) -> Outcome {
    let committed = std::fs::read(place::root().join(object)).map_err(|error| format!("{object}: {error}"))?;
    match judge(committed == built, &tools.version) {
        Judgement::Same => println!("ebpf: {object} is what rustc {} makes of its source", tools.version),
        Judgement::Unknown => println!(
            "ebpf: SKIPPED: rustc {} makes another object, and is none of those that are known to make {object}: {}",
            tools.version,
            KNOWN.join(", ")
        ),
        Judgement::Differs => {
            return Err(format!(
                "{object} is not what rustc {} makes of its source: run `cargo xtask ebpf`, and commit the object with the source",
                tools.version
            ));
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    Same,
    Differs,
    Unknown,
}

fn judge(same: bool, version: &str) -> Judgement {
    match (same, KNOWN.iter().any(|known| version.starts_with(known))) {
        (true, _) => Judgement::Same,
        (false, true) => Judgement::Differs,
        (false, false) => Judgement::Unknown,
    }
}

/// A compiler for the target, and the linker.
struct Tools {
    /// Everything that is fetched and built.
    directory: PathBuf,
    /// `None`: rustup's nightly, which builds `core` from its source.
    compiler: Option<PathBuf>,
    /// As `rustc --version` tells it, without the name.
    version: String,
}

impl Tools {
    fn find() -> Outcome<Self> {
        let directory = place::target_directory()?.join("ebpf");
        std::fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        linker(&directory)?;
        if has_source() {
            let version = version(nightly())?;
            return Ok(Self { directory, compiler: None, version });
        }
        let compiler = debian(&directory)?;
        let version = version(Command::new(&compiler))?;
        Ok(Self { directory, compiler: Some(compiler), version })
    }

    /// The bytes of a package's object.
    fn build(&self, package: &str, feature: Option<&str>) -> Outcome<Vec<u8>> {
        let target = self.directory.join("build");
        let mut cargo = shell::cargo(if self.compiler.is_some() { "" } else { "+nightly" });
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path =
            std::env::join_paths(std::iter::once(self.directory.join("tools/bin")).chain(std::env::split_paths(&path)));
        cargo
            .args(["build", "--quiet", "--locked", "--release", "--target", TARGET])
            .args(feature.iter().flat_map(|feature| ["--features", feature]))
            .current_dir(place::root().join("ebpf").join(package))
            .env("CARGO_TARGET_DIR", &target)
            .env("PATH", path.map_err(|error| error.to_string())?)
            // Instructions of 32 bits, and atomic additions: in every kernel that we run on.
            .env("RUSTFLAGS", "-C target-cpu=v3");
        match &self.compiler {
            // aya-ebpf and we say `asm!`, which is unstable for this target.
            Some(compiler) => cargo.env("RUSTC", compiler).env("RUSTC_BOOTSTRAP", "1"),
            None => cargo.args(["-Z", "build-std=core"]),
        };
        shell::run(&mut cargo)?;
        let object = target.join(TARGET).join("release").join(package);
        std::fs::read(&object).map_err(|error| format!("{}: {error}", object.display()))
    }
}

/// bpf-linker in a folder of ours, built when it is not there.
fn linker(directory: &Path) -> Outcome {
    let root = directory.join("tools");
    if root.join("bin/bpf-linker").is_file() {
        return Ok(());
    }
    eprintln!("ebpf: building bpf-linker {LINKER} (a minute or two, once)");
    shell::run(
        shell::cargo("")
            .args(["install", "bpf-linker", "--version", LINKER, "--locked", "--quiet", "--root"])
            .arg(&root)
            .arg("--target-dir")
            .arg(directory.join("linker")),
    )
    .map_err(|why| format!("bpf-linker cannot be had: {why}"))
}

/// rustup's nightly, if there is one.
fn nightly() -> Command {
    let mut rustc = Command::new("rustc");
    rustc.arg("+nightly").env_remove("RUSTUP_TOOLCHAIN");
    rustc
}

/// Whether nightly has the source of `core`.
fn has_source() -> bool {
    told(nightly().args(["--print", "sysroot"]))
        .is_ok_and(|sysroot| Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir())
}

/// `rustc --version` without the name: the number, the commit and its day.
fn version(mut rustc: Command) -> Outcome<String> {
    told(rustc.arg("--version")).map(|told| told.trim_start_matches("rustc ").to_owned())
}

/// What a command prints, if it succeeds.
fn told(command: &mut Command) -> Outcome<String> {
    let output = command.output().map_err(|error| format!("`{}`: {error}", shell::written(command)))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(format!("`{}` failed ({})", shell::written(command), output.status))
    }
}

/// Debian's compiler, unpacked into a folder of ours. Returns what to call it by.
fn debian(directory: &Path) -> Outcome<PathBuf> {
    let (root, wrapper) = (directory.join("debian"), directory.join("rustc-debian"));
    // Written last, so that what was interrupted is begun anew.
    if wrapper.is_file() {
        return Ok(wrapper);
    }
    if place::program("apt-get").is_none() || place::program("dpkg-deb").is_none() {
        return Err("there is neither a nightly with rust-src (rustup component add rust-src --toolchain nightly) nor Debian's apt-get".to_owned());
    }
    let _ = std::fs::remove_dir_all(&root);
    std::fs::create_dir_all(&root).map_err(|error| format!("{}: {error}", root.display()))?;
    eprintln!("ebpf: fetching Debian's compiler for this target (117 MB, once)");
    let fetch = || shell::run(Command::new("apt-get").args(["download", "-q"]).args(DEBIAN).current_dir(&root));
    if fetch().is_err() {
        shell::run(Command::new("apt-get").args(["update", "-q"]))
            .and_then(|()| fetch())
            .map_err(|why| format!("Debian's compiler cannot be had: {why}"))?;
    }
    unpack(&root)?;
    let script = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH={root}/usr/lib/x86_64-linux-gnu exec {root}/usr/bin/rustc \"$@\"\n",
        root = root.display()
    );
    std::fs::write(&wrapper, script).map_err(|error| format!("{}: {error}", wrapper.display()))?;
    shell::run(Command::new("chmod").arg("+x").arg(&wrapper))?;
    Ok(wrapper)
}

fn unpack(root: &Path) -> Outcome {
    let entries = std::fs::read_dir(root).map_err(|error| format!("{}: {error}", root.display()))?;
    for package in
        entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "deb"))
    {
        shell::run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(root))?;
        let _ = std::fs::remove_file(&package);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_known_compiler_proves_a_difference() {
        assert_eq!(judge(true, "2.0.0"), Judgement::Same);
        assert_eq!(judge(false, "2.0.0"), Judgement::Unknown);
        assert_eq!(judge(false, "1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)"), Judgement::Differs);
    }

    #[test]
    fn what_a_command_prints_is_told() {
        assert_eq!(told(Command::new("echo").arg("a b")), Ok("a b".to_owned()));
        assert!(told(&mut Command::new("false")).is_err());
    }
}
