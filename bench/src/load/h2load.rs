//! h2load as the load generator for HTTP/2, and for HTTP/1.1 over TLS: of those that exist, the cheapest per request.

use xtask::{Outcome, place};

use super::{Plan, Seen};
use crate::process::{pinned_command, words};
use crate::scenario::Over;

pub(crate) fn run(plan: &Plan, cpu: usize) -> Outcome<Seen> {
    let h2load = place::program("h2load").ok_or("h2load is not installed: apt-get install nghttp2-client")?;
    let mut line = words([&h2load, &"-t", &"1", &"-c", &plan.connections.to_string()]);
    line.extend(words([&"-m", &plan.streams.to_string(), &"-D", &plan.seconds.to_string()]));
    if plan.over == Over::Tls {
        line.extend(words([&"--h1"]));
    }
    if let Some(message) = &plan.message {
        line.extend(words([&"-d", message, &"-H", &"content-type: application/grpc", &"-H", &"te: trailers"]));
    }
    let scheme = if plan.over.is_secure() { "https" } else { "http" };
    line.extend(words([&format!("{scheme}://{}{}", plan.to, plan.path)]));
    let output = pinned_command(&cpu.into(), &line)?.output().map_err(|error| format!("h2load: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse(&text, plan.seconds).ok_or_else(|| {
        let error = String::from_utf8_lossy(&output.stderr);
        format!("h2load told no result ({}): {} {}", output.status, text.trim(), error.trim())
    })
}

/// Reads `requests: N total, N started, N done, N succeeded, N failed, N errored, N timeout`, and the times below it.
fn parse(text: &str, seconds: u64) -> Option<Seen> {
    let after = |start: &str| text.lines().find_map(|line| line.trim_start().strip_prefix(start));
    let requests = after("requests:")?;
    let count = |name: &str| -> Option<u64> {
        let counted = requests.split(',').find_map(|part| part.trim().strip_suffix(name))?;
        counted.trim().parse().ok()
    };
    let times: Vec<f64> = after("time for request:")?.split_whitespace().filter_map(microseconds).collect();
    let [_, max, mean, ..] = times[..] else { return None };
    Some(Seen {
        requests: count(" succeeded")?,
        // What was cut off when the time was over counts nowhere.
        errors: count(" failed")?.saturating_sub(count(" errored")?) + count(" timeout")?,
        seconds: seconds as f64,
        mean,
        p50: f64::NAN,
        p99: f64::NAN,
        p999: f64::NAN,
        max,
    })
}

/// `94us`, `1.25ms`, `2.00s`.
fn microseconds(text: &str) -> Option<f64> {
    let (digits, scale) = [("us", 1.0), ("ms", 1e3), ("s", 1e6)]
        .into_iter()
        .find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, scale)))?;
    digits.parse::<f64>().ok().map(|number| number * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_summary() {
        let text = "\
finished in 2.00s, 23140.50 req/s, 4.72MB/s
requests: 46281 total, 46537 started, 46281 done, 46279 succeeded, 2 failed, 1 errored, 0 timeout
status codes: 46281 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 9.44MB (9899000) total, 1.06MB (1111000) headers (space savings 90.00%), 4.41MB (4628100) data
                     min         max         mean         sd        +/- sd
time for request:      327us     25.98ms     11.03ms      1.73ms    80.11%
";
        let seen = parse(text, 2).unwrap();
        assert_eq!((seen.requests, seen.errors, seen.mean, seen.max), (46_279, 1, 11_030.0, 25_980.0));
        assert!(seen.p99.is_nan());
        assert_eq!(parse("", 2), None);
        assert_eq!([microseconds("2.5s"), microseconds("x"), microseconds("80.11%")], [Some(2.5e6), None, None]);
    }
}
