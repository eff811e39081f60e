//! `bench flood`: what clients notice of SYNs that nobody has sent.
//!
//! A proxy stands in one network namespace, its clients and the flood in another, with a cable (a veth) between them. Some clients keep a
//! connection each and ask now and then; others open one for each request. First in peace, then while SYNs come from made-up addresses, each
//! from another one, so that no limit of a source holds them up. Their answers lead to a host that throws them away.
//!
//! What holds: the flood is bounded in rate and time, nothing leaves the two namespaces, and they go with this process.

mod bed;
mod clients;
pub(crate) mod pushdown;
mod syns;

use std::time::Duration;

use serde_json::{Value, json};
use xtask::Outcome;

use crate::calendar;
use crate::flags::Flags;
use crate::load::Seen;
use crate::process::{Scratch, write_file};
use crate::report::{aligned, figure_text};
use crate::rivals::Kind;
use crate::stats::ratio;
use bed::Bed;

pub(crate) use clients::main as clients_main;
pub(crate) use syns::main as syns_main;

const VALUED: &[&str] = &["--rivals", "--rate", "--seconds", "--modes", "--json", "--proxy-cpu", "--load-cpu"];
const BARE: &[&str] = &["--without-penstock", "--strict", "--smoke"];

/// More is no flood that this machine could send, and longer than anybody wants to wait.
const RATE_MAX: u64 = 1_000_000;
const SECONDS_MAX: u64 = 60;

/// What `--strict` holds the shield to: the slowest of a hundred exchanges in the flood to the same in peace, and newcomers that are served.
const P99_RATIO_MAX: f64 = 1.5;
const SERVED_MIN: f64 = 0.99;

struct Settings {
    cases: Vec<Case>,
    /// SYNs a second.
    rate: u64,
    seconds: u64,
    proxy_cpu: usize,
    load_cpu: usize,
    strict: bool,
    json: Option<String>,
}

/// A proxy, and how the shield before it stands; none for none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Case {
    kind: Kind,
    shield: Option<String>,
}

impl Case {
    /// Penstock behind its shield, in each mode that is asked for.
    fn shielded(flags: &Flags) -> Outcome<Vec<Self>> {
        let modes = flags.list("--modes", "native,generic").into_iter();
        let case = |mode: &str| match mode {
            "native" | "generic" => Ok(Self { kind: Kind::Penstock, shield: Some(mode.to_owned()) }),
            _ => Err(format!("there is no mode `{mode}`: native, generic")),
        };
        modes.map(case).collect()
    }

    /// Others, of those that are set up for this.
    fn rivals(flags: &Flags, smoke: bool) -> Outcome<Vec<Self>> {
        let names = flags.list("--rivals", if smoke { "" } else { "nginx" }).into_iter();
        let case = |name: &str| match Kind::rival(name)? {
            Kind::Nginx => Ok(Self { kind: Kind::Nginx, shield: None }),
            other => Err(format!("{} is not set up for this: nginx", other.name())),
        };
        names.map(case).collect()
    }

    fn name(&self) -> String {
        match &self.shield {
            None => self.kind.name().to_owned(),
            Some(mode) => format!("{} + shield ({mode})", self.kind.name()),
        }
    }
}

impl Settings {
    fn read(arguments: &[String]) -> Outcome<Self> {
        let flags = Flags::parse(arguments, VALUED, BARE)?;
        let smoke = flags.has("--smoke");
        let mut cases = Vec::new();
        if !flags.has("--without-penstock") {
            cases.extend(Case::shielded(&flags)?);
            cases.push(Case { kind: Kind::Penstock, shield: None });
        }
        cases.extend(Case::rivals(&flags, smoke)?);
        let settings = Self {
            cases,
            rate: flags.read("--rate", if smoke { 20_000 } else { 200_000 })?,
            seconds: flags.read("--seconds", if smoke { 1 } else { 10 })?,
            proxy_cpu: flags.read("--proxy-cpu", 1)?,
            load_cpu: flags.read("--load-cpu", 0)?,
            strict: flags.has("--strict"),
            json: flags.text("--json").map(str::to_owned),
        };
        if settings.cases.is_empty() {
            return Err("nothing to do: no proxies".to_owned());
        }
        if !(1..=RATE_MAX).contains(&settings.rate) || !(1..=SECONDS_MAX).contains(&settings.seconds) {
            return Err(format!("--rate is 1 to {RATE_MAX} a second, --seconds 1 to {SECONDS_MAX}"));
        }
        Ok(settings)
    }
}

/// What clients saw.
pub(crate) struct Clients {
    /// Those that keep their connection.
    standing: Seen,
    /// Those that open one for each request.
    newcomers: Seen,
}

impl Clients {
    /// Of the newcomers.
    fn served(&self) -> f64 {
        let Seen { requests, errors, .. } = self.newcomers;
        requests as f64 / (requests + errors).max(1) as f64
    }

    fn to_json(&self) -> Value {
        json!({"standing": self.standing.to_json(), "newcomers": self.newcomers.to_json()})
    }
}

/// What one case came to.
struct Run {
    case: Case,
    version: String,
    calm: Clients,
    flooded: Clients,
    /// SYNs that were sent, each second.
    rate: f64,
    /// Cookies that the kernel has sent, and the shield.
    by_kernel: u64,
    by_shield: u64,
}

impl Run {
    fn p99_ratio(&self) -> Option<f64> {
        ratio(Some(self.flooded.standing.p99), Some(self.calm.standing.p99))
    }

    fn to_json(&self) -> Value {
        json!({"proxy": self.case.name(), "version": self.version, "calm": self.calm.to_json(), "flooded": self.flooded.to_json(),
            "syns_per_second": self.rate, "cookies_by_kernel": self.by_kernel, "cookies_by_shield": self.by_shield})
    }
}

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let settings = Settings::read(arguments)?;
    let scratch = Scratch::new()?;
    println!("$ cargo xtask bench flood {}", arguments.join(" "));
    println!(
        "{}; {} SYNs a second from made-up addresses for {} s; proxy on CPU {}, clients and flood on CPU {}",
        calendar::now(),
        settings.rate,
        settings.seconds,
        settings.proxy_cpu,
        settings.load_cpu
    );
    let mut runs = Vec::new();
    for case in &settings.cases {
        let run = measured(case, &settings, &scratch).map_err(|why| format!("{}: {why}", case.name()))?;
        println!("  {}: {}", run.case.name(), run.version);
        runs.push(run);
    }
    print!("\n{}", table(&runs));
    println!(
        "note: all share a machine with the flood, so it costs clients their CPU, too; a newcomer that is not served in {:?} was not served",
        clients::PATIENCE
    );
    if let Some(file) = &settings.json {
        let runs: Vec<_> = runs.iter().map(Run::to_json).collect();
        write_file(file.as_ref(), format!("{:#}\n", json!({"date": calendar::now(), "runs": runs})))?;
    }
    if settings.strict { judge(&runs) } else { Ok(()) }
}

fn measured(case: &Case, settings: &Settings, scratch: &Scratch) -> Outcome<Run> {
    let bed = Bed::new(case, settings, scratch)?;
    let calm = bed.clients(settings.seconds)?;
    let before = bed.cookies();
    let flood = bed.flood(settings.rate, settings.seconds + 2)?;
    // The queue fills first.
    std::thread::sleep(Duration::from_secs(1));
    let flooded = bed.clients(settings.seconds)?;
    let rate = flood.finish()?;
    let (by_kernel, by_shield) = bed.cookies();
    Ok(Run {
        case: case.clone(),
        version: bed.version,
        calm,
        flooded,
        rate,
        // The kernel counts those that it sends itself.
        by_kernel: by_kernel.saturating_sub(before.0),
        by_shield: by_shield.saturating_sub(before.1),
    })
}

const COLUMNS: [&str; 10] = [
    "",
    "p50 ms calm",
    "flooded",
    "p99 ms calm",
    "flooded",
    "ratio",
    "new served % calm",
    "flooded",
    "SYNs/s",
    "cookies by kernel/shield",
];

fn table(runs: &[Run]) -> String {
    let mut rows = vec![COLUMNS.map(str::to_owned).to_vec()];
    for run in runs {
        let (calm, flooded) = (&run.calm.standing, &run.flooded.standing);
        let ms = |micros: f64| figure_text(Some(micros / 1e3), 2);
        rows.push(vec![
            run.case.name(),
            ms(calm.p50),
            ms(flooded.p50),
            ms(calm.p99),
            ms(flooded.p99),
            figure_text(run.p99_ratio(), 2),
            figure_text(Some(100.0 * run.calm.served()), 2),
            figure_text(Some(100.0 * run.flooded.served()), 2),
            figure_text(Some(run.rate), 0),
            format!("{}/{}", run.by_kernel, run.by_shield),
        ]);
    }
    aligned(&rows)
}

fn judge(runs: &[Run]) -> Outcome {
    for run in runs.iter().filter(|run| run.case.shield.is_some()) {
        let (ratio, served) = (run.p99_ratio().unwrap_or(f64::INFINITY), run.flooded.served());
        if ratio > P99_RATIO_MAX || served < SERVED_MIN || run.flooded.standing.errors > 0 {
            return Err(format!(
                "{}: p99 {ratio:.2} times what it was, {:.2} % of newcomers served, {} exchanges on standing connections failed",
                run.case.name(),
                100.0 * served,
                run.flooded.standing.errors
            ));
        }
    }
    Ok(())
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
        let names: Vec<_> = usual.cases.iter().map(Case::name).collect();
        assert_eq!(names, ["penstock + shield (native)", "penstock + shield (generic)", "penstock", "nginx"]);
        assert_eq!((usual.rate, usual.seconds), (200_000, 10));
        for wrong in ["--rate 0", "--rate 1000001", "--seconds 61", "--modes fast", "--rivals haproxy"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
