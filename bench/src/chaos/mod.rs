//! `bench chaos`: how much of their origins' faults do clients notice through each proxy?
//!
//! Five origins, each a process, stand behind a proxy. One fault after the other befalls them ([`plan`]) while clients ask in a closed loop and
//! check every answer ([`crate::echo`]). Each phase is a fault, half a second before and a second after it, since the return of an origin can hurt too.
//! All proxies meet the same schedule, one proxy at a time, with origins of its own. The first row of every table is no proxy at all: what the
//! faults look like to clients that stand in front of the origins themselves and do nothing about them.
//!
//! Nothing outlives a run: every process is told by the kernel to end with this one, stopped ones by SIGKILL.

pub(crate) mod contender;
mod plan;
mod rename;
mod tally;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use xtask::Outcome;

use crate::calendar;
use crate::echo::client::{self, Load};
use crate::echo::fleet::Fleet;
use crate::echo::id::BODY_BYTES;
use crate::flags::Flags;
use crate::process::{self, Cpus, Scratch};
use crate::rivals::Kind;
use contender::{Behind, Contender};
use plan::{ORIGINS, Phase};
use tally::Tally;

const VALUED: &[&str] = &[
    "--rivals",
    "--seconds",
    "--phases",
    "--seed",
    "--connections",
    "--think-ms",
    "--penstock-config",
    "--proxy-cpus",
    "--load-cpu",
    "--json",
];
const BARE: &[&str] = &["--verbose", "--without-penstock", "--without-direct", "--fresh", "--strict", "--smoke"];

/// One request of so many is a POST.
const POST_EVERY: u64 = 10;
/// Each phase begins this long before its fault, so that the fault meets requests of its own phase only; and longer while earlier ones are
/// still in flight, but not for those that hang.
const LEAD: Duration = Duration::from_millis(500);
const LEAD_MAX: Duration = Duration::from_secs(1);
/// After a fault, before the next phase.
const HEALING: Duration = Duration::from_secs(1);

struct Settings {
    contenders: Vec<Kind>,
    phases: Vec<Phase>,
    /// Whether a name's addresses change as well, which is no fault of an origin.
    names: bool,
    turn: Duration,
    lead: Duration,
    healing: Duration,
    seed: u64,
    connections: usize,
    think: Duration,
    configuration: Option<String>,
    proxy_cpus: Cpus,
    load_cpu: usize,
    json: Option<PathBuf>,
    verbose: bool,
    /// A new proxy and new origins for each phase, so that none suffers from what an earlier one left behind.
    fresh: bool,
    strict: bool,
}

impl Settings {
    fn read(words: &[String]) -> Outcome<Self> {
        let flags = Flags::parse(words, VALUED, BARE)?;
        let smoke = flags.has("--smoke");
        let mut contenders = if flags.has("--without-direct") || smoke { Vec::new() } else { vec![Kind::Direct] };
        if !flags.has("--without-penstock") {
            contenders.push(Kind::Penstock);
        }
        for name in flags.list("--rivals", if smoke { "" } else { "nginx,haproxy" }) {
            match Kind::rival(name)? {
                kind @ (Kind::Nginx | Kind::Haproxy) => contenders.push(kind),
                other => return Err(format!("{} is not set up for this: nginx, haproxy", other.name())),
            }
        }
        let seed = flags.read("--seed", 1)?;
        let (phases, names) = chosen(&flags.list("--phases", ""), seed)?;
        let seconds = |name: &str, default: f64| {
            Duration::try_from_secs_f64(flags.read(name, default)?).map_err(|_| format!("{name} is no length of time"))
        };
        let settings = Self {
            contenders,
            phases,
            names,
            turn: seconds("--seconds", if smoke { 0.2 } else { 5.0 })?,
            lead: if smoke { LEAD / 4 } else { LEAD },
            healing: if smoke { HEALING / 10 } else { HEALING },
            seed,
            connections: flags.read("--connections", 64)?,
            think: seconds("--think-ms", 10.0)? / 1_000,
            configuration: flags.text("--penstock-config").map(text_of).transpose()?,
            proxy_cpus: flags.read("--proxy-cpus", Cpus::from(1))?,
            load_cpu: flags.read("--load-cpu", 0)?,
            json: flags.text("--json").map(PathBuf::from),
            verbose: flags.has("--verbose"),
            fresh: flags.has("--fresh"),
            strict: flags.has("--strict"),
        };
        if settings.connections == 0 || settings.turn.is_zero() || settings.contenders.is_empty() {
            return Err("nothing to do: no connections, no time or no proxies".to_owned());
        }
        Ok(settings)
    }
}

fn text_of(file: &str) -> Outcome<String> {
    std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))
}

/// The phases asked for, in the schedule's order, and whether a change of names is among them.
fn chosen(names: &[&str], seed: u64) -> Outcome<(Vec<Phase>, bool)> {
    let all = plan::phases(seed);
    if let Some(unknown) = names.iter().find(|name| **name != "dns" && all.iter().all(|phase| phase.name != **name)) {
        return Err(format!("there is no phase `{unknown}`"));
    }
    let dns = names.is_empty() || names.contains(&"dns");
    Ok((all.into_iter().filter(|phase| names.is_empty() || names.contains(&phase.name)).collect(), dns))
}

/// What one proxy's run left behind.
struct Run {
    kind: Kind,
    version: String,
    configuration: String,
    /// One for each phase.
    tallies: Vec<Tally>,
    counters: Vec<String>,
    /// What the change of a name's addresses looked like, or why it could not be tried; none where it was not asked for.
    renamed: Option<Outcome<Tally>>,
}

impl Run {
    /// Every phase, the change of names included.
    fn all(&self) -> Tally {
        Tally::sum(self.tallies.iter().chain(self.renamed.iter().flatten()))
    }
}

pub(crate) fn run(words: &[String]) -> Outcome {
    let settings = Settings::read(words)?;
    process::pin_here(&settings.load_cpu.into())?;
    let scratch = Scratch::new()?;
    println!("$ cargo xtask bench chaos {}", words.join(" "));
    println!(
        "{}; {} connections, a pause of {:?} on the average, 1 in {POST_EVERY} a POST; {ORIGINS} origins answering in 1–3 ms",
        calendar::now(),
        settings.connections,
        settings.think
    );
    println!(
        "a fault lasts {:?}, then {:?} without; proxy on CPU {}, load and origins on CPU {}; seed {}",
        settings.turn, settings.healing, settings.proxy_cpus, settings.load_cpu, settings.seed
    );
    let mut runs = Vec::new();
    for kind in &settings.contenders {
        match through(*kind, &settings, &scratch) {
            Ok(mut run) => {
                println!("  {}: {}", run.kind.name(), run.version);
                if settings.names && *kind != Kind::Direct {
                    run.renamed = Some(rename::through(*kind, &settings, &scratch));
                }
                runs.push(run);
            }
            Err(why) if matches!(kind, Kind::Penstock | Kind::Direct) => return Err(format!("{}: {why}", kind.name())),
            Err(why) => println!("  {} was skipped: {why}", kind.name()),
        }
    }
    print!("{}", report(&settings, &runs));
    if let Some(file) = &settings.json {
        process::write_file(file, format!("{:#}\n", to_json(&settings, words, &runs)))?;
    }
    judge(&settings, &runs)
}

/// The whole schedule through one proxy.
fn through(kind: Kind, settings: &Settings, scratch: &Scratch) -> Outcome<Run> {
    let numbered: Vec<(u8, &Phase)> = (0..).zip(&settings.phases).collect();
    let at_once = if settings.fresh { 1 } else { numbered.len().max(1) };
    let mut runs = numbered.chunks(at_once).map(|phases| in_one_go(kind, phases, settings, scratch));
    // Without any phase there is still a proxy to tell about.
    let mut all = runs.next().unwrap_or_else(|| in_one_go(kind, &[], settings, scratch))?;
    for run in runs {
        let run = run?;
        all.tallies.extend(run.tallies);
        all.counters.extend(run.counters);
    }
    Ok(all)
}

/// Some phases through a proxy and origins that are started for them.
fn in_one_go(kind: Kind, phases: &[(u8, &Phase)], settings: &Settings, scratch: &Scratch) -> Outcome<Run> {
    let mut fleet = Fleet::start(scratch, ORIGINS as u8, &settings.load_cpu.into(), &[])?;
    let own = settings.configuration.as_deref();
    let contender = Contender::start(kind, Behind::Addresses(&fleet.addresses()), &settings.proxy_cpus, scratch, own)?;
    let first = phases.first().map_or(0, |(number, _)| *number);
    let load = Load::start(load_of(settings, &contender, first))?;
    for (number, phase) in phases {
        load.enter(*number);
        fleet.hold(settings.lead)?;
        let until = Instant::now() + LEAD_MAX;
        while !load.is_settled() && Instant::now() < until {
            fleet.hold(Duration::from_millis(5))?;
        }
        for turn in &phase.turns {
            fleet.set(turn)?;
            fleet.hold(settings.turn)?;
        }
        fleet.set(&[None; ORIGINS])?;
        fleet.hold(settings.healing)?;
    }
    let seen = load.finish()?;
    let counters = contender.counters();
    let Contender { kind, version, configuration, .. } = contender;
    let tallies = Tally::of(&seen, &fleet.journals()?, first, phases.len());
    Ok(Run { kind, version, configuration, tallies, counters, renamed: None })
}

/// What all clients of a run ask.
fn load_of(settings: &Settings, contender: &Contender, phase: u8) -> client::Plan {
    client::Plan {
        to: contender.to.clone(),
        host: "chaos.test",
        answer_bytes: BODY_BYTES,
        connections: settings.connections,
        think: settings.think,
        post_every: Some(POST_EVERY),
        seed: settings.seed,
        phase,
    }
}

fn report(settings: &Settings, runs: &[Run]) -> String {
    let mut text = String::new();
    for (number, phase) in settings.phases.iter().enumerate() {
        let rows: Vec<(&str, &Tally)> = runs.iter().map(|run| (run.kind.name(), &run.tallies[number])).collect();
        text += &format!("\n{}: {}\n{}", phase.name, phase.about, tally::table(&rows));
    }
    let renamed: Vec<(&str, &Outcome<Tally>)> =
        runs.iter().filter_map(|run| Some((run.kind.name(), run.renamed.as_ref()?))).collect();
    if !renamed.is_empty() {
        let rows: Vec<(&str, &Tally)> =
            renamed.iter().filter_map(|(name, seen)| Some((*name, seen.as_ref().ok()?))).collect();
        text += &format!("\ndns: {}\n{}", rename::ABOUT, tally::table(&rows));
        for (name, seen) in renamed {
            if let Err(why) = seen {
                text += &format!("  {name:<11} skipped: {why}\n");
            }
        }
    }
    let sums: Vec<Tally> = runs.iter().map(Run::all).collect();
    let rows: Vec<(&str, &Tally)> = runs.iter().zip(&sums).map(|(run, sum)| (run.kind.name(), sum)).collect();
    text += &format!("\neverything\n{}\n", tally::table(&rows));
    for (run, sum) in runs.iter().zip(&sums) {
        let share = |ends: &tally::Ends| 100.0 * ends.errors() as f64 / ends.requests.max(1) as f64;
        text += &format!(
            "{}: GETs that failed {:.4} %, over a second {}; POSTs that failed {:.4} %, executed twice {}; tries per request {:.3}\n",
            run.kind.name(),
            share(&sum.gets),
            sum.gets.over_a_second,
            share(&sum.posts),
            sum.twice,
            sum.amplification()
        );
    }
    text += "note: wrong is an answer that is not this request's; hung is no answer in 10 s; twice is POSTs that origins received more than once; \
             tries is what origins received per request, and counts no connection refused\n";
    if settings.verbose {
        for run in runs.iter().filter(|run| run.kind != Kind::Direct) {
            text += &format!("\n--- {} was told:\n{}", run.kind.name(), run.configuration);
            if !run.counters.is_empty() {
                text += &format!("--- and counted:\n{}\n", run.counters.join("\n"));
            }
        }
    }
    text
}

fn to_json(settings: &Settings, words: &[String], runs: &[Run]) -> Value {
    let proxies: Vec<Value> = runs
        .iter()
        .map(|run| {
            let phases: Vec<Value> = settings
                .phases
                .iter()
                .zip(&run.tallies)
                .map(|(phase, tally)| json!({"name": phase.name, "about": phase.about, "seen": tally.to_json()}))
                .collect();
            json!({
                "name": run.kind.name(), "version": run.version, "configuration": run.configuration,
                "counters": run.counters, "phases": phases, "all": run.all().to_json(),
                "dns": run.renamed.as_ref().map(|seen| match seen {
                    Ok(seen) => seen.to_json(),
                    Err(why) => json!({"skipped": why}),
                }),
            })
        })
        .collect();
    json!({
        "command": format!("cargo xtask bench chaos {}", words.join(" ")).trim_end(),
        "date": calendar::now(),
        "turn_seconds": settings.turn.as_secs_f64(),
        "seed": settings.seed,
        "connections": settings.connections,
        "think_ms": settings.think.as_secs_f64() * 1e3,
        "proxy_cpus": settings.proxy_cpus.to_string(),
        "load_and_origins_cpu": settings.load_cpu,
        "proxies": proxies,
    })
}

/// Without faults nothing may fail, and never may an answer be wrong: else it is the bench that is broken, or worse. The rest is for `--strict`.
fn judge(settings: &Settings, runs: &[Run]) -> Outcome {
    for run in runs {
        let sum = run.all();
        if sum.gets.corrupt + sum.posts.corrupt > 0 {
            return Err(format!("{}: an answer was not the one to its request", run.kind.name()));
        }
        let calm = settings.phases.iter().position(|phase| phase.name == "calm").map(|calm| &run.tallies[calm]);
        if calm.is_some_and(|calm| calm.gets.requests == 0 || calm.gets.errors() + calm.posts.errors() > 0) {
            return Err(format!("{}: requests failed while nothing was wrong", run.kind.name()));
        }
    }
    match runs.iter().find(|run| run.kind == Kind::Penstock) {
        Some(ours) if settings.strict => judge_strictly(ours),
        _ => Ok(()),
    }
}

/// What the product promises: no idempotent request fails or takes over a second, at most one in a thousand others fails, and none is executed twice.
fn judge_strictly(ours: &Run) -> Outcome {
    let sum = ours.all();
    let noticed = sum.gets.errors() + sum.gets.over_a_second;
    if noticed > 0 {
        return Err(format!("{noticed} idempotent requests through Penstock failed or took over a second"));
    }
    if 1_000 * sum.posts.errors() > sum.posts.requests || sum.posts.hung + sum.twice > 0 {
        let (errors, requests) = (sum.posts.errors(), sum.posts.requests);
        return Err(format!("{errors} of {requests} POSTs through Penstock failed, {} were executed twice", sum.twice));
    }
    match &ours.renamed {
        Some(Err(why)) => Err(format!("a change of names could not be tried: {why}")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Outcome<Settings> {
        Settings::read(&crate::flags::words(text))
    }

    #[test]
    fn settings() {
        let all = read("").unwrap();
        assert_eq!(all.contenders, [Kind::Direct, Kind::Penstock, Kind::Nginx, Kind::Haproxy]);
        assert!(all.turn >= Duration::from_secs(3) && all.names);
        assert_eq!((all.connections, all.think), (64, Duration::from_millis(10)));
        let some = read("--phases flapping,dead --rivals haproxy --without-direct --proxy-cpus 0,1").unwrap();
        assert_eq!(some.phases.iter().map(|phase| phase.name).collect::<Vec<_>>(), ["dead", "flapping"]);
        assert_eq!((some.contenders.as_slice(), some.names), (&[Kind::Penstock, Kind::Haproxy][..], false));
        assert_eq!(some.proxy_cpus.count(), 2);
        for wrong in ["--phases doom", "--rivals caddy", "--seconds -1", "--connections 0", "--proxy-cpus one"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn strictness_is_the_promise() {
        let run = |change: fn(&mut Run)| {
            let posts = tally::Ends { requests: 2_000, status: 2, ..Default::default() };
            let mut run = Run {
                kind: Kind::Penstock,
                version: String::new(),
                configuration: String::new(),
                tallies: vec![Tally { posts, ..Tally::default() }],
                counters: Vec::new(),
                renamed: None,
            };
            change(&mut run);
            judge_strictly(&run)
        };
        assert_eq!(run(|_| {}), Ok(()));
        assert!(run(|run| run.tallies[0].gets.status = 1).is_err());
        assert!(run(|run| run.tallies[0].gets.over_a_second = 1).is_err());
        assert!(run(|run| run.tallies[0].posts.status = 3).is_err());
        assert!(
            run(|run| run.tallies[0].posts = tally::Ends { requests: 2_000, hung: 1, ..Default::default() }).is_err()
        );
        assert!(run(|run| run.tallies[0].twice = 1).is_err());
        assert!(run(|run| run.renamed = Some(Err("no".to_owned()))).is_err());
    }

    #[test]
    fn a_smoke_run_fits_in_ten_seconds() {
        let smoke = read("--smoke").unwrap();
        let turns: usize = smoke.phases.iter().map(|phase| phase.turns.len()).sum();
        let length = smoke.turn * turns as u32 + (smoke.lead + smoke.healing) * smoke.phases.len() as u32;
        assert!(length < Duration::from_secs(7), "{length:?}");
        assert_eq!(smoke.contenders, [Kind::Penstock]);
    }
}
