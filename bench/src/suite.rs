//! `bench h1`, `bench tls`, `bench h2`, `bench h3`, `bench grpc`: proxies side by side. Starts everybody, runs interleaved rounds in an order drawn anew each time, and reports.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use xtask::{Outcome, install};

use crate::calendar;
use crate::flags::Flags;
use crate::grpc;
use crate::load::Load;
use crate::measure::Bench;
use crate::origin::{Origin, Serving};
use crate::process::{self, Scratch};
use crate::report::{Line, Section};
use crate::rivals::{Contender, Kind};
use crate::scenario::{C64, Over, Scenario, Suite};
use crate::stats;
use crate::tls::Identity;

const VALUED: &[&str] = &[
    "--rivals",
    "--scenarios",
    "--rounds",
    "--seconds",
    "--load",
    "--origin",
    "--json",
    "--proxy-cpu",
    "--load-cpu",
    "--steal-max",
    "--foreign-max",
    "--seed",
];
const BARE: &[&str] = &["--no-syscalls", "--without-penstock", "--smoke"];

struct Settings {
    suite: Suite,
    contenders: Vec<Kind>,
    scenarios: Vec<Scenario>,
    rounds: usize,
    seconds: u64,
    load: Load,
    origin: Serving,
    proxy_cpu: usize,
    load_cpu: usize,
    steal_max: f64,
    foreign_max: Option<f64>,
    syscalls: bool,
    seed: u64,
    json: Option<String>,
    smoke: bool,
}

impl Settings {
    fn read(suite: Suite, words: &[String]) -> Outcome<Self> {
        let flags = Flags::parse(words, VALUED, BARE)?;
        let smoke = flags.has("--smoke");
        let (smoke_scenario, smoke_rivals) = suite.smoke;
        let rivals = flags.list("--rivals", if smoke { smoke_rivals } else { suite.rivals });
        let mut contenders = if flags.has("--without-penstock") { Vec::new() } else { vec![Kind::Penstock] };
        for name in rivals {
            let kind = Kind::rival(name)?;
            if !contenders.contains(&kind) {
                contenders.push(kind);
            }
        }
        if contenders.is_empty() {
            return Err("nobody to measure: --rivals is empty and --without-penstock leaves out ours".to_owned());
        }
        // The origin speaks no TLS.
        if !suite.over().is_secure() {
            contenders.push(Kind::Direct);
        }
        let drawn = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let settings = Self {
            suite,
            contenders,
            scenarios: suite.chosen(&flags.list("--scenarios", if smoke { smoke_scenario } else { "" }))?,
            rounds: flags.read("--rounds", if smoke { 1 } else { 8 })?,
            seconds: flags.read("--seconds", if smoke { 1 } else { 3 })?,
            load: flags.read("--load", Load::Own)?,
            origin: flags.read("--origin", Serving::Own)?,
            proxy_cpu: flags.read("--proxy-cpu", 1)?,
            load_cpu: flags.read("--load-cpu", 0)?,
            // A smoke round proves that the machinery works, and it works on a busy machine too.
            steal_max: flags.read("--steal-max", if smoke { 100.0 } else { 1.0 })?,
            foreign_max: flags.has("--foreign-max").then(|| flags.need("--foreign-max")).transpose()?,
            syscalls: !flags.has("--no-syscalls") && !smoke,
            seed: flags.read("--seed", drawn)?,
            json: flags.text("--json").map(str::to_owned),
            smoke,
        };
        let fits = match settings.load {
            Load::Own => true,
            Load::Wrk => suite.over() == Over::Plain,
            Load::H2load => suite.over() == Over::H3,
        };
        if !fits {
            return Err("--load wrk is for HTTP/1.1 in the clear, --load h2load for HTTP/3".to_owned());
        }
        if settings.rounds == 0 || settings.seconds == 0 {
            return Err("--rounds and --seconds must be at least 1".to_owned());
        }
        Ok(settings)
    }
}

pub(crate) fn run(suite: Suite, words: &[String]) -> Outcome {
    let settings = Settings::read(suite, words)?;
    let mut notes: Vec<String> = Vec::new();
    let mut tools = Vec::new();
    if settings.origin == Serving::Nginx {
        tools.push(("nginx", "nginx"));
    }
    if settings.load == Load::Wrk {
        tools.push(("wrk", "wrk"));
    }
    if !matches!(suite.over(), Over::Plain | Over::H3) {
        tools.push(("h2load", "nghttp2-client"));
    }
    if settings.syscalls {
        tools.push(("strace", "strace"));
    }
    notes.extend(install::tools(&tools).into_iter().map(|(name, why)| format!("{name}: {why}")));

    // This process waits for others: it must not sit on the proxy's CPU.
    process::pin_here(&settings.load_cpu.into())?;
    let scratch = Scratch::new()?;
    let origin = Origin::start(settings.origin, suite.over(), &scratch, settings.load_cpu)?;
    let identity = if suite.over().is_secure() { Some(Identity::make(&scratch)?) } else { None };
    let message = if suite.over() == Over::Grpc { Some(message(&scratch)?) } else { None };
    let contenders = start(&settings, &origin, identity.as_ref(), &scratch, &mut notes)?;
    let bench = Bench {
        origin: &origin,
        identity: identity.as_ref(),
        message: message.as_deref(),
        load: settings.load,
        load_cpu: settings.load_cpu,
        seconds: settings.seconds,
        steal_max: settings.steal_max,
        foreign_max: settings.foreign_max,
    };

    let about = about(&settings, words, &contenders);
    print!("{}", about_text(&about));
    for contender in &contenders {
        bench.warm_up(&suite.scenarios[0], contender)?;
    }
    let mut sections: Vec<Section> = Vec::new();
    for scenario in &settings.scenarios {
        let section = measure(&settings, &bench, *scenario, &contenders, &sections, &mut notes)?;
        println!("\n{}", section.table().trim_end());
        notes.extend(section.notes());
        sections.push(section);
    }
    notes.extend(standing_notes(&settings));
    println!();
    for note in &notes {
        println!("note: {note}");
    }
    if let Some(file) = &settings.json {
        let all = json!({"about": about, "scenarios": sections.iter().map(Section::to_json).collect::<Vec<_>>(), "notes": notes});
        process::write_file(file.as_ref(), format!("{all:#}\n"))?;
    }
    judge(&settings, &sections)
}

/// A call's message in a file, as h2load wants it.
fn message(scratch: &Scratch) -> Outcome<PathBuf> {
    let file = scratch.folder("calls")?.join("message");
    process::write_file(&file, grpc::message())?;
    Ok(file)
}

/// Starts everybody. A rival that cannot be had is skipped and told; Penstock is what all this is about.
fn start(
    settings: &Settings,
    origin: &Origin,
    identity: Option<&Identity>,
    scratch: &Scratch,
    notes: &mut Vec<String>,
) -> Outcome<Vec<Contender>> {
    let mut contenders = Vec::new();
    for kind in &settings.contenders {
        match Contender::start(*kind, origin, settings.suite.over(), identity, settings.proxy_cpu, scratch) {
            Ok(contender) => contenders.push(contender),
            Err(why) if *kind == Kind::Penstock => return Err(format!("penstock: {why}")),
            Err(why) => notes.push(format!("{} was skipped: {why}", kind.name())),
        }
    }
    if contenders.iter().all(|contender| contender.kind == Kind::Direct) {
        Err(format!("nobody could be started: {}", notes.join("; ")))
    } else {
        Ok(contenders)
    }
}

fn measure(
    settings: &Settings,
    bench: &Bench<'_>,
    scenario: Scenario,
    contenders: &[Contender],
    earlier: &[Section],
    notes: &mut Vec<String>,
) -> Outcome<Section> {
    let paced_at = if scenario.paced { Some(half_of_the_slowest(bench, contenders, earlier)?) } else { None };
    let mut lines: Vec<Line> =
        contenders.iter().map(|contender| Line { kind: contender.kind, rounds: Vec::new(), calls: None }).collect();
    let mut checked = check(bench, &scenario, contenders)?;
    for number in 0..settings.rounds {
        let seed = settings.seed ^ (number as u64) << 8 ^ (scenario.connections * scenario.body) as u64;
        for index in stats::shuffled(contenders.len(), seed) {
            let contender = &contenders[index];
            let round = bench
                .round(scenario, contender, paced_at)
                .map_err(|why| format!("{} {}: {why}", scenario.name, contender.kind.name()))?;
            lines[index].rounds.push(round);
        }
    }
    if settings.syscalls && !scenario.paced && !scenario.far {
        for (line, contender) in lines.iter_mut().zip(contenders).filter(|(line, _)| line.kind != Kind::Direct) {
            match bench.calls(&scenario, contender) {
                Ok(calls) => line.calls = Some(calls),
                Err(why) => {
                    notes.push(format!("{} {}: calls were not counted: {why}", scenario.name, line.kind.name()))
                }
            }
        }
    }
    checked += check(bench, &scenario, contenders)?;
    if checked > 0 {
        notes.push(format!(
            "{}: {checked} calls more, as many at once, before the rounds and after them, were each answered with a head, the message and `grpc-status: 0` in trailers",
            scenario.name
        ));
    }
    Ok(Section { scenario, lines, paced_at })
}

/// Calls through every contender whose answers are read to their ends, which h2load does not; how many. None where no calls are made.
fn check(bench: &Bench<'_>, scenario: &Scenario, contenders: &[Contender]) -> Outcome<u64> {
    let mut calls = 0;
    for contender in contenders.iter().filter(|_| scenario.over == Over::Grpc) {
        let told = |why| format!("{} {}: {why}", scenario.name, contender.kind.name());
        calls += bench.check(scenario, contender).map_err(told)?;
    }
    Ok(calls)
}

/// Half of what the slowest proxy did in a closed loop with 64 connections, taken from this run or measured now.
fn half_of_the_slowest(bench: &Bench<'_>, contenders: &[Contender], earlier: &[Section]) -> Outcome<f64> {
    let known = earlier.iter().find(|section| section.scenario == C64);
    let mut slowest = f64::INFINITY;
    for contender in contenders.iter().filter(|contender| contender.kind != Kind::Direct) {
        let rate = known
            .and_then(|section| section.lines.iter().find(|line| line.kind == contender.kind))
            .and_then(Line::rate);
        let rate = match rate {
            Some(rate) => rate,
            None => bench.round(C64, contender, None)?.rate(),
        };
        slowest = slowest.min(rate);
    }
    if slowest.is_finite() && slowest > 0.0 {
        Ok(slowest / 2.0)
    } else {
        Err("no contender's capacity could be measured".to_owned())
    }
}

/// What has to be known to run this again.
fn about(settings: &Settings, words: &[String], contenders: &[Contender]) -> Value {
    let read = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let model = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or_else(String::new, |rest| rest.trim_start_matches(['\t', ' ', ':']).to_owned());
    let versions: Vec<Value> = contenders
        .iter()
        .map(|contender| json!({"name": contender.kind.name(), "version": contender.version}))
        .collect();
    json!({
        "command": format!("cargo xtask bench {} {}", settings.suite.name, words.join(" ")).trim_end(),
        "date": calendar::now(),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "cpu": model,
        "cpus": std::fs::read_to_string("/proc/stat").map_or(0, |text| text.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count()),
        "load_average": read("/proc/loadavg"),
        "proxy_cpu": settings.proxy_cpu,
        "load_and_origin_cpu": settings.load_cpu,
        "rounds": settings.rounds,
        "seconds": settings.seconds,
        "seed": settings.seed,
        "load": load_name(settings),
        "origin": if settings.suite.over() == Over::Grpc { "own, HTTP/2" } else { settings.origin.name() },
        "contenders": versions,
    })
}

fn load_name(settings: &Settings) -> &'static str {
    match (settings.suite.over(), settings.load) {
        (Over::H3, Load::H2load) => "h2load",
        (Over::Plain | Over::H3, Load::Own | Load::H2load) => "own",
        (Over::Plain | Over::H3, Load::Wrk) => "wrk",
        (Over::Tls, _) => "h2load, and our own for handshakes",
        (Over::H2 | Over::Grpc, _) => "h2load",
    }
}

fn about_text(about: &Value) -> String {
    let text = |name: &str| about[name].as_str().map_or_else(|| about[name].to_string(), str::to_owned);
    let mut lines = vec![
        format!("$ {}", text("command")),
        format!(
            "{}, kernel {}, {} × {}, load average {}",
            text("date"),
            text("kernel"),
            text("cpus"),
            text("cpu"),
            text("load_average")
        ),
        format!(
            "proxy on CPU {}, load ({}) and origin ({}) on CPU {}; {} rounds of {} s, order drawn from --seed {}",
            text("proxy_cpu"),
            text("load"),
            text("origin"),
            text("load_and_origin_cpu"),
            text("rounds"),
            text("seconds"),
            text("seed")
        ),
    ];
    for contender in about["contenders"].as_array().into_iter().flatten() {
        lines.push(format!(
            "  {}: {}",
            contender["name"].as_str().unwrap_or_default(),
            contender["version"].as_str().unwrap_or_default()
        ));
    }
    lines.join("\n") + "\n"
}

/// How to read the tables.
fn standing_notes(settings: &Settings) -> Vec<String> {
    let mut notes = vec![
        "CPU is the proxy's own time (all threads of all its processes, /proc/PID/task/*/schedstat); system is the whole machine's busy time, others' work included".to_owned(),
        "req/s, p50, p99 and p99.9 are medians over rounds; in closed loops they show the load generator's CPU as much as the proxy's".to_owned(),
    ];
    if settings.syscalls {
        notes.push("calls and sends are counted in a round under strace, which slows the proxy and so batches more; penstock's are its own counters: io_uring_enter and sends put on the ring".to_owned());
    }
    if settings.suite.over() == Over::H3 {
        notes.push("one ECDSA P-256 certificate for everybody, X25519, AES-128".to_owned());
        notes.push(match settings.load {
            Load::H2load => "h2load takes datagrams larger than an Ethernet's, and uses QPACK's dynamic table where a server offers one".to_owned(),
            _ => "datagrams have at most 1,472 bytes, as on an Ethernet; QPACK's dynamic table is not used".to_owned(),
        });
    } else if settings.suite.over().is_secure() {
        notes.push("TLS 1.3 with one ECDSA P-256 certificate for everybody; handshakes agree upon X25519, since not all rivals know X25519MLKEM768; h2load tells no percentiles".to_owned());
    }
    if settings.smoke {
        notes.push("a smoke round: these figures prove that the machinery works and nothing else".to_owned());
    }
    notes
}

/// A run in which somebody has no round that counts has no result.
fn judge(settings: &Settings, sections: &[Section]) -> Outcome {
    let empty: Vec<String> = sections
        .iter()
        .flat_map(|section| section.lines.iter().map(move |line| (section, line)))
        .filter(|(_, line)| line.rate().is_none())
        .map(|(section, line)| format!("{} {}", section.scenario.name, line.kind.name()))
        .collect();
    if !empty.is_empty() {
        return Err(format!(
            "all rounds were discarded (see the notes; --steal-max allows more noise): {}",
            empty.join(", ")
        ));
    }
    let failed = sections
        .iter()
        .flat_map(|section| &section.lines)
        .flat_map(|line| &line.rounds)
        .any(|round| round.seen.errors > 0);
    if settings.smoke && failed { Err("a request failed in the smoke round".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{H1, TLS};

    fn read(text: &str) -> Outcome<Settings> {
        Settings::read(H1, &crate::flags::words(text))
    }

    #[test]
    fn settings() {
        let settings = read("").unwrap();
        assert_eq!(settings.contenders, [Kind::Penstock, Kind::Nginx, Kind::Haproxy, Kind::Direct]);
        assert_eq!((settings.rounds, settings.seconds, settings.scenarios.len()), (8, 3, H1.scenarios.len()));
        let smoke = read("--smoke").unwrap();
        assert_eq!(smoke.contenders, [Kind::Penstock, Kind::EpollRelay, Kind::Direct]);
        let tls = Settings::read(TLS, &[]).unwrap();
        assert_eq!(tls.contenders, [Kind::Penstock, Kind::Nginx, Kind::Haproxy, Kind::H2o]);
        assert_eq!((smoke.rounds, smoke.seconds, smoke.scenarios.len(), smoke.syscalls), (1, 1, 1, false));
        assert_eq!(read("--without-penstock --rivals caddy,caddy").unwrap().contenders, [Kind::Caddy, Kind::Direct]);
        assert!(read("--without-penstock --rivals=").is_err());
        assert!(read("--rounds 0").is_err());
        assert!(read("--load h2load").is_err());
        assert!(read("--load ab").err().unwrap().contains("--load cannot be `ab`"));
    }
}
