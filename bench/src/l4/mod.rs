//! `bench l4`: bytes and datagrams passed through, nobody looking into them.
//!
//! Clients send messages and an origin sends them back, each as soon as the last one has come. What counts is the proxy's CPU time for a message there
//! and back. Rounds of all contenders are interleaved.

mod contender;
pub(crate) mod load;
pub(crate) mod origin;

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use xtask::Outcome;

use crate::calendar;
use crate::flags::Flags;
use crate::meter::{self, Machine};
use crate::process::{self, Running, Scratch, free_address, myself, words};
use crate::report::{aligned, figure_text};
use crate::rivals::Kind;
use crate::stats::{self, median, min, ratio};
use contender::Contender;
use load::{Seen, Transport};

const VALUED: &[&str] = &[
    "--rivals",
    "--scenarios",
    "--rounds",
    "--seconds",
    "--proxy-cpu",
    "--load-cpu",
    "--steal-max",
    "--seed",
    "--json",
];
const BARE: &[&str] = &["--without-penstock", "--smoke"];

/// What is sent through every contender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) transport: Transport,
    pub(crate) clients: usize,
    /// Messages of each that are under way.
    pub(crate) window: usize,
    pub(crate) bytes: usize,
}

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "tcp-64", transport: Transport::Tcp, clients: 64, window: 1, bytes: 100 },
    Scenario { name: "tcp-1m", transport: Transport::Tcp, clients: 4, window: 1, bytes: 1 << 20 },
    Scenario { name: "udp-64", transport: Transport::Udp, clients: 64, window: 1, bytes: 100 },
    Scenario { name: "udp-16x32", transport: Transport::Udp, clients: 16, window: 32, bytes: 1_200 },
];

struct Settings {
    contenders: Vec<Kind>,
    scenarios: Vec<Scenario>,
    rounds: usize,
    seconds: u64,
    proxy_cpu: usize,
    load_cpu: usize,
    /// Percent of the machine's time; rounds beyond are discarded.
    steal_max: f64,
    seed: u64,
    json: Option<String>,
}

impl Settings {
    fn read(arguments: &[String]) -> Outcome<Self> {
        let flags = Flags::parse(arguments, VALUED, BARE)?;
        let smoke = flags.has("--smoke");
        let mut contenders = if flags.has("--without-penstock") { Vec::new() } else { vec![Kind::Penstock] };
        for name in flags.list("--rivals", if smoke { "" } else { "nginx,haproxy" }) {
            let kind = Kind::rival(name)?;
            if !matches!(kind, Kind::Nginx | Kind::Haproxy) {
                return Err(format!("{name} is not set up for this: nginx, haproxy"));
            }
            contenders.push(kind);
        }
        let all: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        let scenarios =
            flags.list("--scenarios", if smoke { "tcp-64,udp-64" } else { "tcp-64,tcp-1m,udp-64,udp-16x32" });
        let scenario = |name: &str| {
            let known = SCENARIOS.iter().find(|scenario| scenario.name == name).copied();
            known.ok_or_else(|| format!("there is no scenario `{name}`: {}", all.join(", ")))
        };
        let drawn = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let settings = Self {
            contenders,
            scenarios: scenarios.into_iter().map(scenario).collect::<Outcome<_>>()?,
            rounds: flags.read("--rounds", if smoke { 1 } else { 6 })?,
            seconds: flags.read("--seconds", if smoke { 1 } else { 2 })?,
            proxy_cpu: flags.read("--proxy-cpu", 1)?,
            load_cpu: flags.read("--load-cpu", 0)?,
            steal_max: flags.read("--steal-max", if smoke { 100.0 } else { 1.0 })?,
            seed: flags.read("--seed", drawn)?,
            json: flags.text("--json").map(str::to_owned),
        };
        match (settings.contenders.is_empty(), settings.rounds, settings.seconds) {
            (true, ..) => Err("nobody to measure".to_owned()),
            (_, 0, _) | (_, _, 0) => Err("--rounds and --seconds must be at least 1".to_owned()),
            _ => Ok(settings),
        }
    }
}

/// A round's raw figures.
struct Round {
    seen: Seen,
    proxy_ns: u64,
    /// Percent of the machine's time that others used.
    foreign: f64,
    /// Why it does not count, if so.
    discarded: Option<String>,
}

/// One contender in one scenario.
struct Line {
    kind: Kind,
    rounds: Vec<Round>,
}

impl Line {
    fn of(&self, figure: impl Fn(&Round) -> f64) -> Vec<f64> {
        self.rounds.iter().filter(|round| round.discarded.is_none()).map(figure).collect()
    }

    /// Microseconds of the proxy's CPU time for a message there and back: the least and the median.
    fn cpu(&self) -> (Option<f64>, Option<f64>) {
        let values = self.of(|round| round.proxy_ns as f64 / 1e3 / round.seen.answered.max(1) as f64);
        (min(&values), median(&values))
    }
}

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let settings = Settings::read(arguments)?;
    // This process waits for others: it must not sit on the proxy's CPU.
    process::pin_here(&settings.load_cpu.into())?;
    let command = format!("cargo xtask bench l4 {}", arguments.join(" "));
    let load_average = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("$ {}\n{}, load average {}", command.trim_end(), calendar::now(), load_average.trim());
    println!("proxy on CPU {}, load and origin on CPU {}", settings.proxy_cpu, settings.load_cpu);
    let scratch = Scratch::new()?;
    let to = free_address()?;
    let line = words([&myself()?, &"l4-origin", &"--listen", &to.to_string()]);
    let mut origin =
        Running::start("the origin", settings.load_cpu, &line, &[], &scratch.folder("origin")?.join("log"))?;
    origin.wait_until(to, || process::connect(to).map(drop).map_err(|error| error.to_string()))?;
    let mut contenders = Vec::new();
    for kind in &settings.contenders {
        match Contender::start(*kind, &scratch, settings.proxy_cpu, to) {
            Ok(contender) => contenders.push(contender),
            Err(why) if *kind == Kind::Penstock => return Err(format!("penstock: {why}")),
            Err(why) => println!("note: {} was skipped: {why}", kind.name()),
        }
    }
    contenders.iter().for_each(|contender| println!("  {}: {}", contender.kind.name(), contender.version));
    let mut told = Vec::new();
    for scenario in &settings.scenarios {
        let able: Vec<&Contender> =
            contenders.iter().filter(|contender| contender.carries(scenario.transport)).collect();
        let mut lines: Vec<Line> =
            able.iter().map(|contender| Line { kind: contender.kind, rounds: Vec::new() }).collect();
        for number in 0..settings.rounds {
            for index in stats::shuffled(able.len(), settings.seed ^ (number as u64) << 8) {
                lines[index].rounds.push(round(&settings, scenario, able[index], &origin)?);
            }
        }
        println!("\n{}\n{}", title(scenario), table(&lines).trim_end());
        notes(&lines).iter().for_each(|note| println!("note: {note}"));
        told.push(to_json(scenario, &lines));
    }
    if let Some(file) = &settings.json {
        let all = json!({"command": command.trim_end(), "date": calendar::now(), "load_average": load_average.trim(), "scenarios": told});
        process::write_file(file.as_ref(), format!("{all:#}\n"))?;
    }
    Ok(())
}

fn round(settings: &Settings, scenario: &Scenario, contender: &Contender, origin: &Running) -> Outcome<Round> {
    let proxy = contender.processes();
    let ours = |load: &load::Process| {
        meter::cpu_ns(&proxy) + meter::cpu_ns(&origin.processes()) + meter::cpu_ns(&[load.id(), std::process::id()])
    };
    let load = load::Process::start(scenario, contender.address, settings.seconds, settings.load_cpu)?;
    let before = (meter::cpu_ns(&proxy), ours(&load), Machine::now());
    let seen = load.finish(|load| (meter::cpu_ns(&proxy), ours(load), Machine::now()))?;
    let (seen, (proxy_ns, ours_ns, machine)) = seen;
    let machine = machine.since(before.2);
    let foreign = machine.busy_ns.saturating_sub(ours_ns.saturating_sub(before.1));
    let steal = machine.percent(machine.steal_ns);
    if seen.answered == 0 {
        return Err(format!("{}: nothing came back in `{}`", contender.kind.name(), scenario.name));
    }
    Ok(Round {
        seen,
        proxy_ns: proxy_ns.saturating_sub(before.0),
        foreign: machine.percent(foreign),
        discarded: (steal > settings.steal_max).then(|| format!("{steal:.1} % of the time was stolen")),
    })
}

fn title(scenario: &Scenario) -> String {
    let Scenario { name, transport, clients, window, bytes } = scenario;
    format!(
        "{name}: {} clients over {}, {window} message(s) of {bytes} bytes each under way",
        clients,
        transport.name()
    )
}

const COLUMNS: [&str; 8] =
    ["", "CPU µs/message min", "median", "penstock ÷ it: min", "median", "messages/s", "lost", "rounds"];

fn table(lines: &[Line]) -> String {
    let ours = lines.iter().find(|line| line.kind == Kind::Penstock).map(Line::cpu);
    let mut rows = vec![COLUMNS.map(str::to_owned).to_vec()];
    for line in lines {
        let (least, middle) = line.cpu();
        let against = |ours: Option<f64>, theirs| if line.kind == Kind::Penstock { None } else { ratio(ours, theirs) };
        rows.push(vec![
            line.kind.name().to_owned(),
            figure_text(least, 2),
            figure_text(middle, 2),
            figure_text(against(ours.and_then(|cpu| cpu.0), least), 2),
            figure_text(against(ours.and_then(|cpu| cpu.1), middle), 2),
            figure_text(median(&line.of(|round| round.seen.answered as f64 / round.seen.seconds)), 0),
            line.rounds.iter().map(|round| round.seen.lost).sum::<u64>().to_string(),
            format!("{}/{}", line.of(|_| 0.0).len(), line.rounds.len()),
        ]);
    }
    aligned(&rows)
}

fn notes(lines: &[Line]) -> Vec<String> {
    let whys = lines.iter().flat_map(|line| line.rounds.iter().map(move |round| (line.kind, round)));
    let mut notes: Vec<String> = whys
        .filter_map(|(kind, round)| {
            Some(format!("{}: a round was discarded: {}", kind.name(), round.discarded.as_ref()?))
        })
        .collect();
    let foreign: Vec<f64> = lines.iter().flat_map(|line| line.of(|round| round.foreign)).collect();
    if let Some(share) = median(&foreign).filter(|share| *share > 10.0) {
        notes.push(format!(
            "noisy: others used {share:.0} % of the machine in the median round; only the ratios may mean something"
        ));
    }
    notes
}

fn to_json(scenario: &Scenario, lines: &[Line]) -> Value {
    let round = |round: &Round| {
        json!({"answered": round.seen.answered, "lost": round.seen.lost, "seconds": round.seen.seconds, "proxy_ns": round.proxy_ns,
            "foreign_percent": round.foreign, "discarded": round.discarded})
    };
    let line =
        |line: &Line| json!({"proxy": line.kind.name(), "rounds": line.rounds.iter().map(round).collect::<Vec<_>>()});
    json!({"scenario": scenario.name, "contenders": lines.iter().map(line).collect::<Vec<_>>()})
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
        assert_eq!((usual.scenarios.len(), usual.contenders.len(), usual.rounds), (4, 3, 6));
        assert_eq!(read("--smoke").unwrap().contenders, [Kind::Penstock]);
        assert_eq!(read("--scenarios udp-64").unwrap().scenarios, [SCENARIOS[2]]);
        for wrong in ["--rounds 0", "--seconds 0", "--rivals envoy", "--scenarios sctp", "--without-penstock --rivals="]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
