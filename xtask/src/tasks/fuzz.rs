//! `cargo xtask fuzz`: every target of the packages that have some, briefly, on nightly (libFuzzer's instrumentation is not stable).

use crate::{Outcome, install, place, shell};

/// Packages with targets.
const PACKAGES: &[&str] = &["engine/proto", "engine/certs", "engine/penstock", "ebpf/abi"];

pub fn run(arguments: &[String]) -> Outcome {
    let (seconds, wanted) = parse(arguments)?;
    nightly()?;
    install::cargo_tool("cargo-fuzz", &["--debug"])?;
    let mut known = Vec::new();
    for package in PACKAGES {
        known.extend(targets(package)?.into_iter().map(|target| (*package, target)));
    }
    let chosen = choose(&known, &wanted)?;
    for (package, target) in &chosen {
        let mut command = shell::cargo("+nightly");
        command
            .args(["fuzz", "run", target, "--", &format!("-max_total_time={seconds}"), "-print_final_stats=1"])
            .current_dir(place::root().join(package));
        shell::run(&mut command).map_err(|why| format!("{why}\nthe input is in {package}/fuzz/artifacts/{target}; replay: cd {package} && cargo +nightly fuzz run {target} FILE"))?;
    }
    let names: Vec<_> = chosen.iter().map(|(_, target)| target.as_str()).collect();
    println!("fuzz: {} targets, {seconds} s each, nothing found: {}", names.len(), names.join(" "));
    Ok(())
}

/// What a package can be fuzzed with.
fn targets(package: &str) -> Outcome<Vec<String>> {
    let list = shell::cargo("+nightly")
        .args(["fuzz", "list"])
        .current_dir(place::root().join(package))
        .output()
        .map_err(|error| format!("cargo fuzz list: {error}"))?;
    let names: Vec<_> = String::from_utf8_lossy(&list.stdout).split_whitespace().map(str::to_owned).collect();
    if names.is_empty() { Err(format!("cargo fuzz list names no target in {package}")) } else { Ok(names) }
}

/// All of them, or those of these names.
fn choose<'a>(known: &[(&'a str, String)], wanted: &[String]) -> Outcome<Vec<(&'a str, String)>> {
    if let Some(stranger) = wanted.iter().find(|name| !known.iter().any(|(_, target)| target == *name)) {
        return Err(format!("`{stranger}` is no target of {}", PACKAGES.join(" or ")));
    }
    Ok(known.iter().filter(|(_, target)| wanted.is_empty() || wanted.contains(target)).cloned().collect())
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

    #[test]
    fn targets_are_chosen_by_name() {
        let known = [("a", "one".to_owned()), ("b", "two".to_owned())];
        assert_eq!(choose(&known, &[]), Ok(known.to_vec()));
        assert_eq!(choose(&known, &["two".to_owned()]), Ok(known[1..].to_vec()));
        assert!(choose(&known, &["three".to_owned()]).is_err());
    }
}
