//! `penstock tap`: prints live what a running engine drops, one line a sample.

use super::{ADMIN_DEFAULT, FAILED, admin_address, client, literal, refuse, table::cell};
use crate::limits;
use crate::snapshot::{Address, Time};
use clap::Args;
use serde_json::{Value, json};
use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

/// How often the engine is asked.
const EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  penstock tap --xdp                             what the shield drops, or would drop, as it comes
  penstock tap --xdp --reason syn_rate --json    one reason, an object a line
  penstock tap --xdp --one-in 100 --for 10s      one packet in a hundred, for ten seconds")]
pub(super) struct TapArgs {
    /// Packets that the XDP shield drops, or would drop in a dry run
    #[arg(long, required = true)]
    xdp: bool,
    /// For this reason only, as `penstock show shield` calls it; may be given more than once
    #[arg(long = "reason", value_name = "REASON")]
    reasons: Vec<String>,
    /// One packet in so many, of each reason and CPU; whatever it is, the engine takes up to a thousand a second
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::TAP_ONE_IN_MAX)))]
    one_in: u32,
    /// Ends after so many
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Ends after this time
    #[arg(long = "for", value_name = "TIME", value_parser = literal::<Time>)]
    run_for: Option<Time>,
    /// The engine's admin endpoint: HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDR", default_value = ADMIN_DEFAULT, value_parser = admin_address)]
    admin: Address,
    /// Prints each as an object on a line of its own
    #[arg(long)]
    json: bool,
}

pub(super) fn tap(args: &TapArgs) -> ExitCode {
    let end = args.run_for.as_ref().map(|time| ring::monotonic() + time.0);
    let (mut after, mut left) = (Value::Null, args.count.unwrap_or(u64::MAX));
    loop {
        let asked = json!({ "after": after, "reasons": args.reasons, "one_in": args.one_in });
        let told = match client::ask(&args.admin, "/tap/xdp", Some(&asked)) {
            Ok(told) => told,
            Err(why) => return refuse(FAILED, &why),
        };
        after = told["after"].clone();
        match print(&told, args.json, &mut left) {
            // A reader that went away (`| head`) is no failure.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
            Err(error) => return refuse(FAILED, &error.to_string()),
            Ok(()) if left == 0 || end.is_some_and(|end| ring::monotonic() >= end) => return ExitCode::SUCCESS,
            Ok(()) => {}
        }
        let is_behind = told["samples"].as_array().is_some_and(|samples| samples.len() >= limits::TAP_ANSWER_MAX);
        if !is_behind {
            std::thread::sleep(EVERY);
        }
    }
}

/// Prints an answer, up to as many samples as are `left`.
fn print(told: &Value, as_json: bool, left: &mut u64) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if let Some(missed) = told["missed"].as_u64().filter(|missed| *missed > 0) {
        eprintln!("penstock: {missed} samples were missed");
    }
    for sample in told["samples"].as_array().into_iter().flatten() {
        if *left == 0 {
            break;
        }
        *left -= 1;
        if as_json {
            writeln!(out, "{sample}")?;
        } else {
            writeln!(out, "{}", line(sample))?;
        }
    }
    out.flush()
}

fn line(sample: &Value) -> String {
    let word = |key: &str| cell(key, &sample[key]);
    let end = |address: &str, port: &str| match (sample[address].as_str(), sample[port].as_u64()) {
        (None, _) => "?".to_owned(),
        (Some(address), None) => address.to_owned(),
        (Some(address), Some(port)) if address.contains(':') => format!("[{address}]:{port}"),
        (Some(address), Some(port)) => format!("{address}:{port}"),
    };
    format!(
        "{}  {}  {:12}  {:5}  {} > {}  {} bytes  {}",
        word("time"),
        word("verdict"),
        word("reason"),
        word("protocol"),
        end("source", "source_port"),
        end("destination", "destination_port"),
        sample["bytes"].as_u64().unwrap_or_default(),
        word("interface")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_a_line() {
        let mut sample = json!({
            "time": "2026-11-23T01:02:03.456Z", "verdict": "drop", "reason": "syn_rate", "interface": "eth0", "protocol": "tcp",
            "source": "2001:db8::1", "source_port": 40_000, "destination": "192.0.2.1", "destination_port": 443, "bytes": 74,
        });
        let wanted =
            "2026-11-23T01:02:03.456Z  drop  syn_rate      tcp    [2001:db8::1]:40000 > 192.0.2.1:443  74 bytes  eth0";
        assert_eq!(line(&sample), wanted);
        for key in ["source", "source_port", "destination_port"] {
            sample[key] = Value::Null;
        }
        assert!(line(&sample).contains("  ? > 192.0.2.1  74"), "{}", line(&sample));
    }
}
