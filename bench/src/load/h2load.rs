//! h2load as the load generator for HTTP/2, and for HTTP/1.1 over TLS: of those that exist, the cheapest per request.
//!
//! Debian's speaks no HTTP/3; one that does is wanted under a name of its own, to hold our own generator against.

use xtask::{Outcome, place};

use super::{Plan, Seen};
use crate::process::{pinned_command, words};
use crate::scenario::Over;

pub(crate) fn run(plan: &Plan, cpu: usize) -> Outcome<Seen> {
    let h2load = match plan.over {
        Over::H3 => {
            place::program("h2load-h3").ok_or("there is no h2load-h3 on PATH: h2load, built with `--enable-http3`")?
        }
        _ => place::program("h2load").ok_or("h2load is not installed: apt-get install nghttp2-client")?,
    };
    let mut line = words([&h2load, &"-t", &"1", &"-c", &plan.connections.to_string()]);
    line.extend(words([&"-m", &plan.streams.to_string(), &"-D", &plan.seconds.to_string()]));
    if plan.over == Over::Tls {
        line.extend(words([&"--h1"]));
    }
    if plan.over == Over::H3 {
        // Left to itself it would choose HTTP/2.
        line.extend(words([&"--alpn-list=h3"]));
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
    // A newer one tells quantiles, too: min, max, median, p95, p99, mean.
    let times =
        |start| -> Option<Vec<f64>> { Some(after(start)?.split_whitespace().filter_map(microseconds).collect()) };
    let (mean, p50, p99, max) = match (times("time for request:"), times("request     :")) {
        (Some(times), _) => (*times.get(2)?, f64::NAN, f64::NAN, *times.get(1)?),
        (None, times) => match times?[..] {
            [_, max, median, _, p99, mean, ..] => (mean, median, p99, max),
            _ => return None,
        },
    };
    Some(Seen {
        requests: count(" succeeded")?,
        // What was cut off when the time was over counts nowhere.
        errors: count(" failed")?.saturating_sub(count(" errored")?) + count(" timeout")?,
        seconds: seconds as f64,
        mean,
        p50,
        p99,
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
        let newer = "\
requests: 2177 total, 2433 started, 2177 done, 2177 succeeded, 0 failed, 0 errored, 0 timeout
                 min         max         median      p95         p99         mean        sd         +/- sd
request     :    44.01ms    229.36ms    109.74ms    160.34ms    185.34ms    112.01ms     29.29ms    64.08%
";
        let seen = parse(newer, 1).unwrap();
        assert_eq!(
            (seen.requests, seen.p50, seen.p99, seen.mean, seen.max),
            (2177, 109_740.0, 185_340.0, 112_010.0, 229_360.0)
        );
        assert_eq!(parse("", 2), None);
        assert_eq!([microseconds("2.5s"), microseconds("x"), microseconds("80.11%")], [Some(2.5e6), None, None]);
    }
}
