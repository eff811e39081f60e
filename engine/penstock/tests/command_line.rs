//! The real binary: exit codes, and what goes where.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

fn penstock(args: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_penstock"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input is free to close it.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

const GOOD: &str = "[[listen]]\nname = \"web\"\naddr = \":8080\"\n[[pool]]\nname = \"api\"\nendpoints = [\"a:80\"]\n";

#[test]
fn exit_codes() {
    let table: &[(&[&str], &str, i32)] = &[
        (&["check", "-c", "-"], GOOD, 0),
        (&["check", "-c", "-"], "x", 3),
        (&["check", "-c", "-", "--format", "json"], "x", 3),
        (&["check", "-c", "/nonexistent"], "", 3),
        (&["run", "-c", "/nonexistent"], "", 3),
        (&["check", "-c", "-", "--explain", "ftp://x"], GOOD, 1),
        (&["serve"], "", 2),
        (&["serve", "--listen", "tcp://:1", "--to", "a:1"], "", 2),
        (&["serve", "--listen", ":1", "--to", "a:1", "--cores", "1023"], "", 3),
        (&["chek"], "", 2),
        (&["status", "--admin", "127.0.0.1:1"], "", 1),
        (&["cert", "check"], "", 2),
        (&["cert", "check", "no host"], "", 2),
        (&["cert", "check", "a.test", "--servername", "*"], "", 2),
        (&["cert", "check", "/nonexistent"], "", 1),
        (&["cert", "check", "127.0.0.1:1"], "", 1),
        (&["schema"], "", 0),
        (&["man"], "", 0),
        (&["completion", "bash"], "", 0),
        (&["reference"], "", 0),
        (&["--version"], "", 0),
    ];
    for (args, stdin, wanted) in table {
        let output = penstock(args, stdin);
        assert_eq!(output.status.code(), Some(*wanted), "{args:?} {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn check_answers_on_standard_output_and_complains_on_standard_error() {
    let good = penstock(&["check", "-c", "-"], GOOD);
    assert_eq!(String::from_utf8_lossy(&good.stdout), "standard input: good (1 listener, 1 route, 1 pool)\n");
    let bad = penstock(&["check", "-c", "-"], "[[listen]]\nname = \"a\"");
    assert!(bad.stdout.is_empty());
    assert!(String::from_utf8_lossy(&bad.stderr).contains("--> standard input:1:1"));
}

#[test]
fn check_prints_every_default_as_a_file_that_is_good() {
    let complete = penstock(&["check", "-c", "-", "--defaults"], GOOD);
    let text = String::from_utf8(complete.stdout).unwrap();
    assert!(text.contains("breaker = { failures = 5, window = \"10s\", calls_min = 20, count_500 = false, open_for = \"60s\", trials = 3, wait = \"500ms\" }"), "{text}");
    assert_eq!(penstock(&["check", "-c", "-"], &text).status.code(), Some(0), "{text}");
}

#[test]
fn check_speaks_json() {
    let json = |args: &[&str], stdin: &str| -> serde_json::Value {
        serde_json::from_slice(&penstock(args, stdin).stdout).unwrap()
    };
    let good = json(&["check", "-c", "-", "--format", "json", "--explain", "http://x/", "--defaults"], GOOD);
    assert_eq!((&good["valid"], &good["explain"]["matched"]), (&true.into(), &true.into()));
    assert_eq!(good["document"]["pool"][0]["balance"], "adaptive");
    let bad = json(&["check", "-c", "-", "--format", "json"], "x");
    assert_eq!(bad["valid"], false);
    let doctor = json(&["doctor", "--json"], "");
    assert!(doctor["findings"].as_array().is_some_and(|lines| lines.iter().any(|line| line["name"] == "io_uring")));
}
