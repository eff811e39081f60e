//! Where things are: the repository, the target directory, a program on PATH.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;

/// The repository's root. Asked at run time, so that a binary built in one clone does not work on another.
pub fn root() -> PathBuf {
    let package =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map_or_else(|| package.clone(), Path::to_path_buf)
}

/// Cargo's target directory, wherever the environment or a configuration file put it.
pub fn target_directory() -> Outcome<PathBuf> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(root())
        .output()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    let metadata = String::from_utf8_lossy(&output.stdout);
    json_string(&metadata, "target_directory").map(PathBuf::from).ok_or_else(|| {
        format!("cargo metadata told no target_directory: {}", String::from_utf8_lossy(&output.stderr).trim())
    })
}

/// The value of the last `"key":"…"` in a JSON text (in cargo's metadata the top-level one comes after the packages).
fn json_string(text: &str, key: &str) -> Option<String> {
    let (_, after) = text.rsplit_once(&format!("\"{key}\":\""))?;
    let mut value = String::new();
    let mut characters = after.chars();
    loop {
        match characters.next()? {
            '"' => return Some(value),
            '\\' => value.push(characters.next()?),
            other => value.push(other),
        }
    }
}

/// A program's path, looked for on PATH and where Debian keeps its daemons.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_strings_are_found_and_unescaped() {
        let text = r#"{"a":[{"target_directory":"/no"}],"target_directory":"/t\\x","z":1}"#;
        assert_eq!(json_string(text, "target_directory").as_deref(), Some("/t\\x"));
        assert_eq!(json_string(text, "absent"), None);
    }

    #[test]
    fn a_program_that_exists_is_found() {
        assert!(program("sh").is_some());
        assert!(program("no-such-program-here").is_none());
    }
}
