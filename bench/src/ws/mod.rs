//! `bench ws`: many WebSockets over TLS, on each a message now and then that an origin sends back.
//!
//! What counts is how long a message is under way in one direction. Whoever sends one writes the time into it, and whoever receives it looks at
//! the same clock, for both are on this machine: a message there and its answer back are two deliveries. Clients send at times of their own,
//! whether or not earlier messages came back.
//!
//! Rounds of all contenders are interleaved, each with new connections: what opening them cost, and how long it took, is told beside.

mod client;
mod contender;
mod frame;
pub(crate) mod load;
pub(crate) mod origin;
mod report;
mod upheaval;

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use xtask::Outcome;

use crate::calendar;
use crate::flags::Flags;
use crate::meter::{self, Machine};
use crate::process::{self, Cpus, Running, Scratch, free_address, myself, words};
use crate::rivals::Kind;
use crate::stats;
use crate::tls::Identity;
use contender::{Contender, Ground};
use load::{Plan, Seen};
use report::{Line, Round};

const VALUED: &[&str] = &[
    "--rivals",
    "--connections",
    "--rate",
    "--open-rate",
    "--seconds",
    "--rounds",
    "--proxy-cpus",
    "--load-cpu",
    "--steal-max",
    "--seed",
    "--json",
];
const BARE: &[&str] = &["--upheaval", "--without-penstock", "--smoke"];

struct Settings {
    contenders: Vec<Kind>,
    plan: Plan,
    rounds: usize,
    proxy_cpus: Cpus,
    load_cpu: usize,
    /// Percent of the machine's time; rounds beyond are discarded.
    steal_max: f64,
    seed: u64,
    json: Option<String>,
    upheaval: bool,
}

impl Settings {
    fn read(arguments: &[String]) -> Outcome<Self> {
        let flags = Flags::parse(arguments, VALUED, BARE)?;
        let (smoke, upheaval) = (flags.has("--smoke"), flags.has("--upheaval"));
        let mut contenders = if flags.has("--without-penstock") { Vec::new() } else { vec![Kind::Penstock] };
        for name in flags.list("--rivals", if smoke { "" } else { "nginx,haproxy" }) {
            let kind = Kind::rival(name)?;
            if !contenders.contains(&kind) {
                contenders.push(kind);
            }
        }
        if contenders.is_empty() {
            return Err("nobody to measure: --rivals is empty and --without-penstock leaves out ours".to_owned());
        }
        let drawn = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let seconds = match (smoke, upheaval) {
            (true, _) => 2,
            (_, true) => 300,
            _ => 10,
        };
        let settings = Self {
            contenders,
            plan: Plan {
                connections: flags.read("--connections", if smoke { 50 } else { 5_000 })?,
                rate: flags.read("--rate", 1.0)?,
                open_rate: flags.read("--open-rate", 500.0)?,
                seconds: flags.read("--seconds", seconds)?,
            },
            rounds: flags.read("--rounds", if smoke { 1 } else { 5 })?,
            proxy_cpus: flags.read("--proxy-cpus", if upheaval { both()? } else { 1.into() })?,
            load_cpu: flags.read("--load-cpu", 0)?,
            steal_max: flags.read("--steal-max", if smoke { 100.0 } else { 1.0 })?,
            seed: flags.read("--seed", drawn)?,
            json: flags.text("--json").map(str::to_owned),
            upheaval,
        };
        settings.plan.check()?;
        if settings.rounds == 0 { Err("--rounds must be at least 1".to_owned()) } else { Ok(settings) }
    }
}

fn both() -> Outcome<Cpus> {
    "0,1".parse().map_err(|()| "no CPUs".to_owned())
}

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let settings = Settings::read(arguments)?;
    // This process waits for others: it must not sit on the proxy's CPU.
    process::pin_here(&settings.load_cpu.into())?;
    let command = format!("cargo xtask bench ws {}", arguments.join(" "));
    let load_average = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("$ {}\n{}, load average {}", command.trim_end(), calendar::now(), load_average.trim());
    let Plan { connections, rate, open_rate, seconds } = settings.plan;
    println!(
        "{connections} WebSockets over TLS 1.3, opened at {open_rate}/s; {rate} message/s on each for {seconds} s, and its answer"
    );
    println!("proxy on CPU {}, load and origin on CPU {}", settings.proxy_cpus, settings.load_cpu);
    let scratch = Scratch::new()?;
    let identity = Identity::make(&scratch)?;
    let ground = Ground { scratch: &scratch, identity: &identity, cpus: &settings.proxy_cpus, plan: &settings.plan };
    let result =
        if settings.upheaval { upheaval::run(&ground, settings.load_cpu)? } else { compare(&settings, &ground)? };
    if let Some(file) = &settings.json {
        let all = json!({"command": command.trim_end(), "date": calendar::now(), "load_average": load_average.trim(), "result": result});
        process::write_file(file.as_ref(), format!("{all:#}\n"))?;
    }
    Ok(())
}

/// An origin that sends messages back, in a process of its own.
fn start_origin(scratch: &Scratch, cpu: usize) -> Outcome<(Running, std::net::SocketAddr)> {
    let address = free_address()?;
    let line = words([&myself()?, &"ws-origin", &"--listen", &address.to_string()]);
    let log = scratch.folder(&format!("origin-{}", address.port()))?.join("log");
    let mut running = Running::start("the origin", cpu, &line, &[], &log)?;
    running.wait_until(address, || process::connect(address).map(drop).map_err(|error| error.to_string()))?;
    Ok((running, address))
}

fn compare(settings: &Settings, ground: &Ground<'_>) -> Outcome<serde_json::Value> {
    let (origin, to) = start_origin(ground.scratch, settings.load_cpu)?;
    let mut contenders = Vec::new();
    for kind in &settings.contenders {
        match Contender::start(*kind, ground, to) {
            Ok(contender) => contenders.push(contender),
            Err(why) if *kind == Kind::Penstock => return Err(format!("penstock: {why}")),
            Err(why) => println!("note: {} was skipped: {why}", kind.name()),
        }
    }
    for contender in &contenders {
        println!("  {}: {}", contender.kind.name(), contender.version);
    }
    let mut lines: Vec<Line> = contenders.iter().map(|contender| Line::new(contender.kind)).collect();
    for number in 0..settings.rounds {
        for index in stats::shuffled(contenders.len(), settings.seed ^ (number as u64) << 8) {
            let round = round(settings, ground, &contenders[index], &origin)?;
            lines[index].rounds.push(round);
        }
    }
    println!("\n{}", report::table(&lines).trim_end());
    for note in report::notes(&lines) {
        println!("note: {note}");
    }
    Ok(report::to_json(&lines))
}

/// CPU time that was used so far: by the proxy, by all that is ours, and by the machine.
struct Used {
    proxy_ns: u64,
    ours_ns: u64,
    machine: Machine,
}

impl Used {
    fn now(proxy: &[u32], origin: &[u32], load: u32) -> Self {
        let proxy_ns = meter::cpu_ns(proxy);
        let ours_ns = proxy_ns + meter::cpu_ns(origin) + meter::cpu_ns(&[load, std::process::id()]);
        Self { proxy_ns, ours_ns, machine: Machine::now() }
    }
}

fn round(settings: &Settings, ground: &Ground<'_>, contender: &Contender, origin: &Running) -> Outcome<Round> {
    let (proxy, origin) = (contender.processes(), origin.processes());
    let mut load = load::Process::start(ground.plan, contender.address, &ground.identity.cert, settings.load_cpu)?;
    let used = |load: &load::Process| Used::now(&proxy, &origin, load.id());
    let before = used(&load);
    load.wait_until_open()?;
    let begun = used(&load);
    load.wait_until_sent()?;
    let ended = used(&load);
    let seen: Seen = load.finish()?;
    let machine = ended.machine.since(begun.machine);
    let foreign = machine.busy_ns.saturating_sub(ended.ours_ns.saturating_sub(begun.ours_ns));
    let steal = machine.percent(machine.steal_ns);
    Ok(Round {
        seen,
        opening_ns: begun.proxy_ns.saturating_sub(before.proxy_ns),
        passing_ns: ended.proxy_ns.saturating_sub(begun.proxy_ns),
        foreign: machine.percent(foreign),
        discarded: (steal > settings.steal_max).then(|| format!("{steal:.1} % of the time was stolen")),
    })
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
        assert_eq!((usual.plan.connections, usual.plan.seconds, usual.contenders.len()), (5_000, 10, 3));
        let upheaval = read("--upheaval").unwrap();
        assert_eq!((upheaval.plan.seconds, upheaval.proxy_cpus.count()), (300, 2));
        assert_eq!(read("--smoke").unwrap().contenders, [Kind::Penstock]);
        for wrong in ["--rate 0", "--connections 0", "--open-rate -1", "--rounds 0", "--rivals apache"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
