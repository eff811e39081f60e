//! `cargo xtask test`: from a fresh clone to a verdict. Installs clients, builds the real binary, runs every test, repeats the closing lines.

use std::path::PathBuf;

use crate::install::{self, Tool};
use crate::{Outcome, place, shell};

/// Clients and rivals that the end-to-end tests use, and none of which we wrote.
const TOOLS: &[Tool] = &[
    ("nginx", "nginx"),
    ("haproxy", "haproxy"),
    ("wrk", "wrk"),
    ("curl", "curl"),
    ("openssl", "openssl"),
    ("testssl", "testssl.sh"),
    ("python3", "python3"),
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("bpftool", "bpftool"),
    ("strace", "strace"),
    ("slowhttptest", "slowhttptest"),
    ("h2load", "nghttp2-client"),
    ("nghttpd", "nghttp2-server"),
    ("dig", "bind9-dnsutils"),
    ("dnsmasq", "dnsmasq-base"),
    ("iperf3", "iperf3"),
    // 124 MB, half a minute; its tests skip themselves where it is not there.
    ("chromium", "chromium"),
];

/// What simulations of the brain draw a seed from, beside those that they always play, if they are asked to: what a commit is worth must not depend on the day.
const DRAW: &str = "PENSTOCK_SIM_DRAW";

#[derive(Debug, Default, PartialEq, Eq)]
struct Wish {
    driver: Option<String>,
    draw: bool,
    filters: Vec<String>,
}

fn parse(arguments: &[String]) -> Outcome<Wish> {
    let mut wish = Wish::default();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let driver = match word.split_once('=') {
            Some(("--driver", value)) => Some(value.to_owned()),
            _ if word == "--driver" => Some(words.next().ok_or("--driver wants a name: uring or epoll")?.clone()),
            _ => None,
        };
        match driver {
            Some(name) if name == "uring" || name == "epoll" => wish.driver = Some(name),
            Some(name) => return Err(format!("there is no driver `{name}`: uring or epoll")),
            None if word == "--draw" => wish.draw = true,
            None if word.starts_with('-') => {
                return Err(format!("unknown option `{word}`; test [--driver uring|epoll] [--draw] [filter…]"));
            }
            None => wish.filters.push(word.clone()),
        }
    }
    Ok(wish)
}

pub fn run(arguments: &[String]) -> Outcome {
    let wish = parse(arguments)?;
    let mut skips: Vec<String> =
        install::tools(TOOLS).into_iter().map(|(name, why)| format!("{name}: {why}")).collect();
    let python = python(&mut skips);
    let quic_clients =
        install::quic_clients().map_err(|why| skips.push(format!("quic-clients (quiche, h3i, h3): {why}"))).ok();

    // The end-to-end tests start this file, not a library that pretends to be it.
    shell::run(shell::cargo("").args(["build", "--release", "--package", "penstock"]))?;
    let binary = place::target_directory()?.join("release/penstock");

    let mut command = shell::cargo("");
    let nextest = place::program("cargo-nextest").is_some();
    if nextest {
        command.args([
            "nextest",
            "run",
            "--workspace",
            "--no-fail-fast",
            "--test-threads",
            &side_by_side().to_string(),
        ]);
    } else {
        skips.push("cargo-nextest: not on PATH, so `cargo test` runs instead (same tests, slower; cargo install cargo-nextest --locked)".to_owned());
        command.args(["test", "--workspace", "--no-fail-fast"]);
    }
    command.args(&wish.filters).env("PENSTOCK_BINARY", &binary);
    // The day's lot: simulations play what they always do, and a little that nobody has seen yet.
    if wish.draw && std::env::var_os(DRAW).is_none() {
        command.env(DRAW, today().to_string());
    }
    if let Some(driver) = &wish.driver {
        command.env("PENSTOCK_TEST_DRIVER", driver);
    }
    if let Some(python) = python {
        command.env("PENSTOCK_TEST_PYTHON", python);
    }
    if let Some(clients) = quic_clients {
        command.env("PENSTOCK_TEST_QUIC_CLIENTS", clients);
    }

    let verdict = if nextest { run_nextest(&mut command) } else { run_libtest(&mut command, &mut skips) };
    for skip in &skips {
        println!("not available here: {skip}");
    }
    match verdict {
        Ok(closing) => {
            println!("{closing}");
            Ok(())
        }
        Err((closing, why)) => {
            println!("{closing}");
            Err(why)
        }
    }
}

/// Tests that run at a time: half as many again as there are CPUs, for much of what they do is to wait.
fn side_by_side() -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    cpus + cpus / 2
}

/// Days since 1970.
fn today() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() / 86_400)
}

fn python(skips: &mut Vec<String>) -> Option<PathBuf> {
    let environment =
        place::target_directory().and_then(|target| install::python(&target.join("python"), install::PYTHON));
    match environment {
        Ok(bin) => Some(bin.join("python")),
        Err(why) => {
            skips.push(format!("python packages {}: {why}", install::PYTHON.join(" ")));
            None
        }
    }
}

/// nextest writes to standard error, so its output is left alone; its summary is repeated from its exit.
fn run_nextest(command: &mut std::process::Command) -> Result<String, (String, String)> {
    // Doc tests are not nextest's; the workspace's run after it.
    let mut tests = Ok(());
    let mut tally = shell::Tally::default();
    let mut summary = String::new();
    command.env("NEXTEST_HIDE_PROGRESS_BAR", "1");
    match run_merged(command, |line| {
        if line.trim_start().starts_with("Summary [") {
            summary = line.trim().to_owned();
        }
    }) {
        Ok(()) => {}
        Err(why) => tests = Err(why),
    }
    let mut documents = shell::cargo("");
    documents.args(["test", "--workspace", "--doc", "--quiet"]);
    let documented = shell::run_watched(&mut documents, |line| tally.see(line));
    let closing = format!("doc tests: {} passed, {} failed\n{summary}", tally.passed, tally.failed);
    match tests.and(documented) {
        Ok(()) if summary.is_empty() => Err((closing, "nextest told no summary".to_owned())),
        Ok(()) => Ok(closing),
        Err(why) => Err((closing, why)),
    }
}

/// Runs with standard error handed line by line to `see` (nextest reports there), printing it as it comes.
fn run_merged(command: &mut std::process::Command, mut see: impl FnMut(&str)) -> Outcome {
    use std::io::{BufRead, BufReader};
    eprintln!("$ {}", shell::written(command));
    let failed =
        |command: &std::process::Command, error: std::io::Error| format!("`{}`: {error}", shell::written(command));
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().map_err(|error| failed(command, error))?;
    if let Some(output) = child.stderr.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = line.map_err(|error| failed(command, error))?;
            let line = String::from_utf8_lossy(&line);
            eprintln!("{line}");
            see(&line);
        }
    }
    let status = child.wait().map_err(|error| failed(command, error))?;
    if status.success() { Ok(()) } else { Err(format!("`{}` failed ({status})", shell::written(command))) }
}

fn run_libtest(command: &mut std::process::Command, skips: &mut Vec<String>) -> Result<String, (String, String)> {
    let mut tally = shell::Tally::default();
    let verdict = shell::run_watched(command, |line| tally.see(line));
    if tally.ignored > 0 {
        skips.push(format!("{} tests ask to be ignored", tally.ignored));
    }
    // The plain form, which any reader of a log understands: one line for all test binaries together.
    let closing = format!("{} passed, {} failed", tally.passed, tally.failed);
    match verdict {
        Ok(()) if tally.passed == 0 => Err((closing, "no test ran".to_owned())),
        Ok(()) => Ok(closing),
        Err(why) => Err((closing, why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn options() {
        let wish = |driver: Option<&str>, filters: &str| {
            Ok(Wish { driver: driver.map(str::to_owned), draw: false, filters: words(filters) })
        };
        assert_eq!(parse(&words("")), wish(None, ""));
        assert_eq!(parse(&words("--driver epoll tunnel")), wish(Some("epoll"), "tunnel"));
        assert_eq!(parse(&words("--driver=uring")), wish(Some("uring"), ""));
        let drawn = Wish { draw: true, filters: words("brain"), ..Wish::default() };
        assert_eq!(parse(&words("--draw brain")), Ok(drawn));
        assert!(parse(&words("--driver kqueue")).unwrap_err().contains("no driver `kqueue`"));
        assert!(parse(&words("--driver")).unwrap_err().contains("wants a name"));
        assert!(parse(&words("--fast")).unwrap_err().contains("unknown option"));
    }
}
