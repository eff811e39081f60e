//! `cargo xtask fuzz`: every target of engine/proto/fuzz, briefly, on nightly (libFuzzer's instrumentation is not stable).

use crate::{Outcome, install, place, shell};

pub fn run(arguments: &[String]) -> Outcome {
    let (seconds, mut targets) = parse(arguments)?;
    let package = place::root().join("engine/proto");
    if !package.join("fuzz/Cargo.toml").is_file() {
        return Err(
            "there is no engine/proto/fuzz/Cargo.toml, so no target to run (cargo fuzz init makes one)".to_owned()
        );
    }
    nightly()?;
    install::cargo_tool("cargo-fuzz", &["--debug"])?;
    if targets.is_empty() {
        let list = shell::cargo("+nightly")
            .args(["fuzz", "list"])
            .current_dir(&package)
            .output()
            .map_err(|error| format!("cargo fuzz list: {error}"))?;
        targets = String::from_utf8_lossy(&list.stdout).split_whitespace().map(str::to_owned).collect();
    }
    if targets.is_empty() {
        return Err("cargo fuzz list names no target".to_owned());
    }
    for target in &targets {
        let mut command = shell::cargo("+nightly");
        command
            .args(["fuzz", "run", target, "--", &format!("-max_total_time={seconds}"), "-print_final_stats=1"])
            .current_dir(&package);
        shell::run(&mut command).map_err(|why| format!("{why}\nthe input is in engine/proto/fuzz/artifacts/{target}; replay: cd engine/proto && cargo +nightly fuzz run {target} FILE"))?;
    }
    println!("fuzz: {} targets, {seconds} s each, nothing found: {}", targets.len(), targets.join(" "));
    Ok(())
}

/// An error that says what to do unless rustup has a nightly toolchain.
pub fn nightly() -> Outcome {
    if shell::succeeds(shell::cargo("+nightly").arg("--version")) {
        Ok(())
    } else {
        Err("needs a nightly toolchain: rustup toolchain install nightly --profile minimal".to_owned())
    }
}

fn parse(arguments: &[String]) -> Outcome<(u64, Vec<String>)> {
    let (mut seconds, mut targets) = (30, Vec::new());
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        if word == "--seconds" {
            seconds = words.next().and_then(|number| number.parse().ok()).ok_or("--seconds wants a number")?;
        } else if word.starts_with('-') {
            return Err(format!("unknown option `{word}`; fuzz [--seconds N] [target…]"));
        } else {
            targets.push(word.clone());
        }
    }
    // Zero means for ever to libFuzzer.
    if seconds == 0 { Err("--seconds 0 would never end".to_owned()) } else { Ok((seconds, targets)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let parse = |text: &str| parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(parse(""), Ok((30, vec![])));
        assert_eq!(parse("h1_request --seconds 5"), Ok((5, vec!["h1_request".to_owned()])));
        assert!(parse("--seconds 0").is_err());
        assert!(parse("--all").is_err());
    }
}
