//! `cargo xtask sim`: the simulation's long mode. Tests whose name contains `simulation` read the seeds from the environment.

use crate::{Outcome, shell};

pub fn run(arguments: &[String]) -> Outcome {
    let (seeds, from) = parse(arguments)?;
    println!("sim: seeds {from}..{} in release", from + seeds);
    let mut command = shell::cargo("");
    command.args([
        "test",
        "--release",
        "--workspace",
        "--exclude",
        "xtask",
        "--exclude",
        "bench",
        "--lib",
        "--tests",
        "simulation",
        "--",
        "--nocapture",
    ]);
    command.env("PENSTOCK_SIM_SEEDS", seeds.to_string()).env("PENSTOCK_SIM_FROM", from.to_string());
    match shell::run_tests(&mut command) {
        Ok(tally) => {
            println!("sim: {seeds} seeds from {from}: {} passed, {} failed", tally.passed, tally.failed);
            Ok(())
        }
        Err(why) => Err(format!(
            "{why}\nreplay one seed S: cargo xtask sim --seeds 1 --from S\nreplay all of this: cargo xtask sim --seeds {seeds} --from {from}"
        )),
    }
}

fn parse(arguments: &[String]) -> Outcome<(u64, u64)> {
    let (mut seeds, mut from) = (100_000, 0);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let slot = match word.as_str() {
            "--seeds" => &mut seeds,
            "--from" => &mut from,
            other => {
                return Err(format!("unknown option `{other}`; sim [--seeds N] [--from S]"));
            }
        };
        *slot = words.next().and_then(|number| number.parse().ok()).ok_or_else(|| format!("{word} wants a number"))?;
    }
    if seeds == 0 { Err("--seeds 0 would prove nothing".to_owned()) } else { Ok((seeds, from)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let parse = |text: &str| parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(parse(""), Ok((100_000, 0)));
        assert_eq!(parse("--from 7 --seeds 2"), Ok((2, 7)));
        assert!(parse("--seeds x").unwrap_err().contains("wants a number"));
        assert!(parse("--seeds 0").is_err());
        assert!(parse("--sed 1").unwrap_err().contains("unknown option"));
    }
}
