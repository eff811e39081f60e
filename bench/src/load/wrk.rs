//! wrk as the load generator. Its summary is printed by a Lua hook in a form of our own, since its own text rounds.

use std::io::Write;

use xtask::{Outcome, place};

use super::{Plan, Seen, browser};
use crate::process::{pinned_command, words};

/// `done` runs once, after the last request: it costs the requests nothing.
const SCRIPT: &str = r#"
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("\nseen %d %d %d %d %d %d %d %d %d %d %d %d\n",
    summary.requests, summary.duration, e.connect, e.read, e.write, e.status, e.timeout,
    latency.mean, latency:percentile(50.0), latency:percentile(99.0), latency:percentile(99.9), latency.max))
end
"#;

pub(crate) fn run(plan: &Plan, cpu: usize) -> Outcome<Seen> {
    let wrk = place::program("wrk").ok_or("wrk is not installed (apt-get install wrk); --load own needs nothing")?;
    let script = Script::new()?;
    let mut line = words([
        &wrk,
        &"-t",
        &"1",
        &"-c",
        &plan.connections.to_string(),
        &"-d",
        &format!("{}s", plan.seconds),
        &"-s",
        &script.0,
    ]);
    if plan.close {
        line.extend(words([&"-H", &"Connection: close"]));
    }
    for (name, value) in browser::FIELDS.iter().filter(|_| plan.browser) {
        line.extend(words([&"-H", &format!("{name}: {value}")]));
    }
    line.extend(words([&format!("http://{}{}", plan.to, plan.path)]));
    let output = pinned_command(&cpu.into(), &line)?.output().map_err(|error| format!("wrk: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse(&text).ok_or_else(|| {
        format!(
            "wrk told no result ({}): {} {}",
            output.status,
            text.trim(),
            String::from_utf8_lossy(&output.stderr).trim()
        )
    })
}

/// The script's file, removed when dropped.
struct Script(std::path::PathBuf);

impl Script {
    fn new() -> Outcome<Self> {
        let path = std::env::temp_dir().join(format!("penstock-bench-{}.lua", std::process::id()));
        let mut file = std::fs::File::create(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        file.write_all(SCRIPT.as_bytes()).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn parse(output: &str) -> Option<Seen> {
    let line = output.lines().find_map(|line| line.strip_prefix("seen "))?;
    let numbers: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let [requests, duration_us, connect, read, write, status, timeout, mean, p50, p99, p999, max] = numbers[..] else {
        return None;
    };
    Some(Seen {
        requests,
        errors: connect + read + write + status + timeout,
        seconds: duration_us as f64 / 1e6,
        mean: mean as f64,
        p50: p50 as f64,
        p99: p99 as f64,
        p999: p999 as f64,
        max: max as f64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_hook_prints() {
        let output = "Running 1s test @ http://127.0.0.1:1/\n  1 threads and 64 connections\nRequests/sec:  1.0\n\nseen 50000 1000500 1 2 3 4 5 950 900 2000 3000 9000\n";
        let seen = parse(output).unwrap();
        assert_eq!((seen.requests, seen.errors, seen.seconds), (50_000, 15, 1.0005));
        assert_eq!((seen.mean, seen.p50, seen.p99, seen.p999, seen.max), (950.0, 900.0, 2000.0, 3000.0, 9000.0));
        assert_eq!(parse("unable to connect to 127.0.0.1:1 Connection refused"), None);
        assert_eq!(parse("seen 1 2 3"), None);
    }
}
