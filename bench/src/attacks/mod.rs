//! `bench attacks`: what a client that behaves notices of an attack that others make over HTTP/2 or HTTP/3, through each proxy.
//!
//! A round is the client alone, and then beside the attack; what counts is how many times as long its slowest hundredth takes. Rounds of all proxies are
//! interleaved. Whom the attack hurts without being cut off is told beside: memory, and the proxy's CPU; and what of it comes back to addresses
//! that the attacker may have made up.

pub(crate) mod attacker;
mod h3;
mod mischief;
mod victim;
mod wire;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use xtask::Outcome;

use crate::calendar;
use crate::flags::Flags;
use crate::meter;
use crate::origin::{Origin, Serving};
use crate::process::{self, Scratch};
use crate::report::{aligned, figure_text};
use crate::rivals::{Contender, Kind};
use crate::scenario::Over;
use crate::stats::{self, median, ratio};
use crate::tls::Identity;
use attacker::Tally;
use mischief::Attack;
use victim::Times;

const VALUED: &[&str] =
    &["--rivals", "--attacks", "--rounds", "--seconds", "--rate", "--proxy-cpu", "--load-cpu", "--seed", "--json"];
const BARE: &[&str] = &["--without-penstock", "--smoke"];

/// An attack goes on for so long after the client has its last answer.
const AFTER: Duration = Duration::from_millis(300);
/// So long after its end it is looked at what is left of it: allocators give memory back a little later.
const SETTLED: Duration = Duration::from_secs(3);

struct Settings {
    contenders: Vec<Kind>,
    attacks: Vec<Attack>,
    rounds: usize,
    /// Of a round, each half.
    seconds: f64,
    /// Requests a second of the client that behaves.
    rate: f64,
    proxy_cpu: usize,
    load_cpu: usize,
    seed: u64,
    json: Option<String>,
}

impl Settings {
    fn read(arguments: &[String]) -> Outcome<Self> {
        let flags = Flags::parse(arguments, VALUED, BARE)?;
        let smoke = flags.has("--smoke");
        let mut contenders = if flags.has("--without-penstock") { Vec::new() } else { vec![Kind::Penstock] };
        for name in flags.list("--rivals", if smoke { "" } else { "nginx,haproxy" }) {
            contenders.push(Kind::rival(name)?);
        }
        let names = flags.list("--attacks", if smoke { "rapid-reset,initials" } else { "" });
        let known = |name: &str| mischief::all().any(|attack| attack.name == name);
        if let Some(unknown) = names.iter().find(|name| !known(name)) {
            let known: Vec<&str> = mischief::all().map(|attack| attack.name).collect();
            return Err(format!("there is no attack `{unknown}`: {}", known.join(", ")));
        }
        let wanted = |attack: &&Attack| names.is_empty() || names.contains(&attack.name);
        let drawn = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let settings = Self {
            contenders,
            attacks: mischief::all().filter(wanted).copied().collect(),
            rounds: flags.read("--rounds", if smoke { 1 } else { 5 })?,
            seconds: flags.read("--seconds", if smoke { 0.5 } else { 2.0 })?,
            rate: flags.read("--rate", 500.0)?,
            proxy_cpu: flags.read("--proxy-cpu", 1)?,
            load_cpu: flags.read("--load-cpu", 0)?,
            seed: flags.read("--seed", drawn)?,
            json: flags.text("--json").map(str::to_owned),
        };
        if settings.contenders.is_empty() {
            return Err("nobody to measure: --rivals is empty and --without-penstock leaves out ours".to_owned());
        }
        let sensible = |value: f64, most: f64| value > 0.0 && value <= most;
        if settings.rounds == 0 || !sensible(settings.seconds, 3_600.0) || !sensible(settings.rate, 100_000.0) {
            return Err("--rounds, --seconds and --rate must be above nothing, and within reason".to_owned());
        }
        Ok(settings)
    }
}

/// What one proxy made of an attack, a round each.
struct Line {
    kind: Kind,
    rounds: Vec<Round>,
    /// Rounds in which the client that behaves was not served.
    unserved: Vec<String>,
}

struct Round {
    alone: Times,
    beside: Times,
    tally: Tally,
    /// Memory of its processes that is no file's, while the attack goes on, beyond what it was before, in bytes.
    grown: u64,
    /// The same a little after its end.
    left: u64,
    /// CPU time of the proxy beside the attack, of one CPU's.
    cpu: f64,
}

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let settings = Settings::read(arguments)?;
    // This process is the client that behaves: it must not sit on the proxy's CPU.
    process::pin_here(&settings.load_cpu.into())?;
    let scratch = Scratch::new()?;
    let identity = Identity::make(&scratch)?;
    let command = format!("cargo xtask bench attacks {}", arguments.join(" "));
    let load_average = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("$ {}\n{}, load average {}", command.trim_end(), calendar::now(), load_average.trim());
    println!(
        "proxy on CPU {}; client ({}/s), attacker and origin on CPU {}; {} rounds of {} s alone and as long beside the attack",
        settings.proxy_cpu, settings.rate, settings.load_cpu, settings.rounds, settings.seconds
    );
    let mut told = Vec::new();
    for over in [Over::H2, Over::H3] {
        let attacks: Vec<&Attack> = settings.attacks.iter().filter(|attack| attack.over() == over).collect();
        if !attacks.is_empty() {
            told.extend(suffer_all(&settings, over, &attacks, &identity, &scratch)?);
        }
    }
    if let Some(file) = &settings.json {
        let all = json!({"command": command.trim_end(), "date": calendar::now(), "load_average": load_average.trim(), "attacks": told});
        process::write_file(file.as_ref(), format!("{all:#}\n"))?;
    }
    Ok(())
}

/// Attacks over one protocol, one after the other.
fn suffer_all(
    settings: &Settings,
    over: Over,
    attacks: &[&Attack],
    identity: &Identity,
    scratch: &Scratch,
) -> Outcome<Vec<Value>> {
    let origin = Origin::start(Serving::Own, over, scratch, settings.load_cpu)?;
    let mut contenders = Vec::new();
    for kind in &settings.contenders {
        match Contender::start(*kind, &origin, over, Some(identity), settings.proxy_cpu, scratch) {
            Ok(contender) => {
                println!("  {}: {}", contender.kind.name(), contender.version);
                contenders.push(contender);
            }
            Err(why) if *kind == Kind::Penstock => return Err(format!("penstock: {why}")),
            Err(why) => println!("note: {} was skipped: {why}", kind.name()),
        }
    }
    let mut told = Vec::new();
    for attack in attacks {
        let lines = suffer(settings, attack, &contenders, identity)?;
        println!("\n{}\n{}", attack.name, table(attack, &lines).trim_end());
        for (kind, why) in lines.iter().flat_map(|line| line.unserved.iter().map(|why| (line.kind, why))) {
            println!("note: {}: {why}", kind.name());
        }
        told.push(to_json(attack, &lines));
    }
    Ok(told)
}

fn suffer(settings: &Settings, attack: &Attack, contenders: &[Contender], identity: &Identity) -> Outcome<Vec<Line>> {
    let line = |contender: &Contender| Line { kind: contender.kind, rounds: Vec::new(), unserved: Vec::new() };
    let mut lines: Vec<Line> = contenders.iter().map(line).collect();
    for number in 0..settings.rounds {
        for at in stats::shuffled(contenders.len(), settings.seed ^ (number as u64) << 8) {
            match round(settings, attack, &contenders[at], identity)? {
                Ok(round) => lines[at].rounds.push(round),
                Err(why) => lines[at].unserved.push(why),
            }
        }
    }
    Ok(lines)
}

/// One round; the inner error is what the client that behaves had to bear.
fn round(
    settings: &Settings,
    attack: &Attack,
    contender: &Contender,
    identity: &Identity,
) -> Outcome<Result<Round, String>> {
    let span = Duration::from_secs_f64(settings.seconds);
    let ask = || victim::measure(attack.over(), contender.address, &identity.cert, settings.rate, span);
    let processes = contender.processes();
    let before = meter::anonymous(&processes);
    let alone = match ask() {
        Ok(alone) => alone,
        Err(why) => return Ok(Err(format!("alone: {why}"))),
    };
    let time = attack.head_start + span + AFTER;
    let under_way = attacker::Process::start(attack, contender.address, &identity.cert, time, settings.load_cpu)?;
    std::thread::sleep(attack.head_start);
    let used = meter::cpu_ns(&processes);
    let beside = ask();
    let cpu = meter::cpu_ns(&processes).saturating_sub(used) as f64 / 1e9 / settings.seconds;
    let grown = meter::anonymous(&processes).saturating_sub(before);
    let tally = under_way.finish()?;
    std::thread::sleep(SETTLED);
    let left = meter::anonymous(&processes).saturating_sub(before);
    Ok(beside.map(|beside| Round { alone, beside, tally, grown, left, cpu }).map_err(|why| format!("beside it: {why}")))
}

impl Line {
    fn of(&self, figure: impl Fn(&Round) -> Option<f64>) -> Option<f64> {
        median(&self.rounds.iter().filter_map(figure).collect::<Vec<_>>())
    }
}

fn times_as_long(round: &Round) -> Option<f64> {
    ratio(round.beside.quantile(990), round.alone.quantile(990))
}

const COLUMNS: [&str; 12] = [
    "",
    "p99 alone µs",
    "beside µs",
    "× as long",
    "p50 ×",
    "units/s",
    "cut off/s",
    "with",
    "MiB more",
    "left",
    "CPU %",
    "out ÷ in",
];

fn code_text(over: Over, code: u64) -> String {
    match over {
        Over::H3 => proto::h3::ErrorCode(code).to_string(),
        _ => proto::h2::ErrorCode(u32::try_from(code).unwrap_or(u32::MAX)).to_string(),
    }
}

fn table(attack: &Attack, lines: &[Line]) -> String {
    let mebibytes = |bytes: u64| Some(bytes as f64 / f64::from(1 << 20));
    let mut rows = vec![COLUMNS.map(str::to_owned).to_vec()];
    for line in lines {
        let code = line.rounds.iter().find_map(|round| round.tally.code());
        let middle = |round: &Round| ratio(round.beside.quantile(500), round.alone.quantile(500));
        let a_second = |round: &Round, count: u64| Some(count as f64 / round.tally.seconds());
        rows.push(vec![
            line.kind.name().to_owned(),
            figure_text(line.of(|round| round.alone.quantile(990)), 0),
            figure_text(line.of(|round| round.beside.quantile(990)), 0),
            figure_text(line.of(times_as_long), 2),
            figure_text(line.of(middle), 2),
            figure_text(line.of(|round| a_second(round, round.tally.units)), 0),
            figure_text(line.of(|round| a_second(round, round.tally.cut_off)), 1),
            code.map_or_else(|| "–".to_owned(), |code| code_text(attack.over(), code)),
            figure_text(line.of(|round| mebibytes(round.grown)), 1),
            figure_text(line.of(|round| mebibytes(round.left)), 1),
            figure_text(line.of(|round| Some(round.cpu * 100.0)), 0),
            figure_text(line.of(|round| round.tally.amplified()), 2),
        ]);
    }
    aligned(&rows)
}

fn to_json(attack: &Attack, lines: &[Line]) -> Value {
    let quantiles = |times: &Times| json!({"p50_us": times.quantile(500), "p99_us": times.quantile(990)});
    let round = |round: &Round| {
        json!({"alone": quantiles(&round.alone), "beside": quantiles(&round.beside), "attack": round.tally.to_json(),
            "grown_bytes": round.grown, "left_bytes": round.left, "cpu": round.cpu})
    };
    let line = |line: &Line| json!({"proxy": line.kind.name(), "rounds": line.rounds.iter().map(round).collect::<Vec<_>>(), "unserved": line.unserved});
    json!({"attack": attack.name, "contenders": lines.iter().map(line).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Outcome<Settings> {
        Settings::read(&crate::flags::words(text))
    }

    #[test]
    fn settings() {
        let usual = read("").unwrap();
        assert_eq!((usual.contenders.len(), usual.attacks.len(), usual.rounds), (3, mischief::all().count(), 5));
        assert_eq!(read("--smoke").unwrap().contenders, [Kind::Penstock]);
        assert_eq!(read("--attacks ping").unwrap().attacks[0].name, "ping");
        let names: std::collections::BTreeSet<_> = mischief::all().map(|attack| attack.name).collect();
        assert_eq!(names.len(), mischief::all().count(), "two have one name");
        for wrong in ["--rounds 0", "--seconds 0", "--rate -1", "--attacks pong", "--without-penstock --rivals="] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
