//! `bench load`: closed and open loops over our own ring, one thread; `traffic` does the work.
//!
//! It shares its CPU with the origin, so it never spins for completions; only an open loop's last millisecond before a request is due is waited
//! out turn by turn, giving way to whoever else is runnable.

use std::num::NonZeroU64;
use std::time::Duration;

use ring::{Address, DriverChoice, Options, Ring, SpinPolicy};
use traffic::{Extent, Load, Mode, Report};
use xtask::Outcome;

use super::{Plan, Seen, browser};
use crate::flags::Flags;
use crate::process::{self, myself, pinned_command, words};

/// Runs `bench load` as a process of its own and reads what it prints.
pub(crate) fn run(plan: &Plan, cpu: usize) -> Outcome<Seen> {
    let mut line = words([&myself()?, &"load", &"--json", &"--to", &plan.to.to_string(), &"--path", &plan.path]);
    line.extend(words([&"--connections", &plan.connections.to_string(), &"--seconds", &plan.seconds.to_string()]));
    if plan.close {
        line.extend(words([&"--close"]));
    }
    if plan.browser {
        line.extend(words([&"--browser"]));
    }
    if let Some(rate) = plan.rate {
        line.extend(words([&"--rate", &rate.to_string()]));
    }
    let output = pinned_command(&cpu.into(), &line)?.output().map_err(|error| format!("bench load: {error}"))?;
    serde_json::from_slice(&output.stdout).ok().and_then(|value| Seen::from_json(&value)).ok_or_else(|| {
        format!("bench load told no result ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim())
    })
}

const VALUED: &[&str] =
    &["--to", "--path", "--connections", "--seconds", "--warmup", "--rate", "--body", "--cpu", "--driver"];
const BARE: &[&str] = &["--close", "--browser", "--verify", "--json"];

/// `bench load --to ADDRESS --path PATH --connections N --seconds N [--warmup SECONDS] [--rate R] [--close] [--browser] [--body BYTES] [--verify]
/// [--cpu N] [--driver uring|epoll] [--json]`.
pub(crate) fn main(arguments: &[String]) -> Outcome {
    let flags = Flags::parse(arguments, VALUED, BARE)?;
    if flags.has("--cpu") {
        process::pin_here(&flags.need("--cpu")?)?;
    }
    let load = load(&flags)?;
    // 50 µs of slack would be added to every wait of an open loop.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let ring = ring(&flags)?;
    let report = ring.block_on(async move { load.run().await });
    if flags.has("--json") {
        println!("{}", seen(&report).to_json());
    } else {
        println!("{report}");
        if report.errors.total() > 0 {
            println!("{:?}, statuses {:?}", report.errors, report.statuses);
        }
    }
    Ok(())
}

/// A ring that never spins: the CPU is shared.
pub(crate) fn ring(flags: &Flags) -> Outcome<Ring> {
    let driver = match flags.text("--driver") {
        None => DriverChoice::Auto,
        Some("uring") => DriverChoice::Uring,
        Some("epoll") => DriverChoice::Epoll,
        Some(other) => return Err(format!("--driver cannot be `{other}`: uring, epoll")),
    };
    ring_by(driver)
}

/// The same by whatever driver is best.
pub(crate) fn quiet_ring() -> Outcome<Ring> {
    ring_by(DriverChoice::Auto)
}

fn ring_by(driver: DriverChoice) -> Outcome<Ring> {
    Ring::new(Options { driver, spin: SpinPolicy::Off }).map_err(|error| format!("no ring: {error}"))
}

fn load(flags: &Flags) -> Outcome<Load> {
    let to: std::net::SocketAddr = flags.need("--to")?;
    let mode = if flags.has("--rate") { Mode::Open { rate: flags.need("--rate")? } } else { Mode::Closed };
    let load = Load {
        path: flags.need("--path")?,
        connections: flags.need("--connections")?,
        mode,
        extent: Extent::Time(seconds(flags.need("--seconds")?)?),
        warmup: seconds(flags.read("--warmup", 0.0)?)?,
        fields: if flags.has("--browser") { browser::lines() } else { String::new() },
        connection_per_request: flags.has("--close"),
        body_bytes: flags.has("--body").then(|| flags.need("--body")).transpose()?,
        verify: flags.has("--verify"),
        ..Load::new(Address::Inet(to))
    };
    if load.connections == 0 || matches!(mode, Mode::Open { rate } if rate.is_nan() || rate <= 0.0) {
        return Err("--connections and --rate must be more than nothing".to_owned());
    }
    Ok(load)
}

fn seconds(count: f64) -> Outcome<Duration> {
    Duration::try_from_secs_f64(count).map_err(|_| format!("`{count}` is no number of seconds"))
}

fn seen(report: &Report) -> Seen {
    let microseconds = |share: f64| report.latency.value_at_quantile(share) as f64 / 1e3;
    Seen {
        requests: report.requests,
        errors: report.errors.total(),
        seconds: report.elapsed.as_secs_f64(),
        mean: report.latency.mean() / 1e3,
        p50: microseconds(0.5),
        p99: microseconds(0.99),
        p999: microseconds(0.999),
        max: report.latency.max() as f64 / 1e3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Outcome<Load> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        Flags::parse(&words, VALUED, BARE).and_then(|flags| load(&flags))
    }

    #[test]
    fn a_plan_is_read() {
        let plan = "--to 127.0.0.1:1 --path /x --connections 3 --seconds 2";
        let load = read(plan).unwrap();
        assert_eq!((load.connections, load.mode, load.verify), (3, Mode::Closed, false));
        let load = read(&format!("{plan} --rate 50.5 --close --body 9 --verify")).unwrap();
        assert_eq!((load.mode, load.body_bytes), (Mode::Open { rate: 50.5 }, Some(9)));
        assert!(load.connection_per_request && load.verify);
        for wrong in ["--rate 0", "--rate -1", "--rate nan", "--warmup -1"] {
            assert!(read(&format!("{plan} {wrong}")).is_err(), "{wrong}");
        }
    }
}
