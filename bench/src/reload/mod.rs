//! `bench reload`: what clients notice of a configuration that changes again and again, and what each change leaves behind.
//!
//! Every change takes one of two endpoints out of the pool, or puts it back, as a deployment does. Meanwhile some clients ask, some lie parked on
//! connections that they will use again, and with each change one more opens a tunnel and keeps it. A connection that its server closes between two
//! requests is told apart from a request that got no answer: after the one a client has to connect again, after the other it does not know what became
//! of what it asked for.

mod clients;
mod contender;
mod origin;

use std::time::Duration;

use serde_json::{Value, json};
use xtask::Outcome;

use crate::calendar;
use crate::flags::Flags;
use crate::meter;
use crate::process::{self, Cpus, Scratch};
use crate::report::aligned;
use crate::rivals::Kind;
use clients::{Parked, Seen, Talk, Tunnel};
use contender::Contender;
use origin::Origin;

const VALUED: &[&str] = &["--rivals", "--reloads", "--every-ms", "--clients", "--parked", "--json"];
const BARE: &[&str] = &["--without-penstock", "--strict", "--smoke"];

struct Settings {
    kinds: Vec<Kind>,
    reloads: usize,
    every: Duration,
    clients: usize,
    parked: usize,
}

/// What one contender has done to its clients.
struct Verdict {
    version: String,
    seen: Seen,
    /// Parked connections that still work, and tunnels.
    parked: usize,
    tunnels: usize,
    /// Its processes and their own memory before the first change, and after the last one.
    processes: [usize; 2],
    memory: [u64; 2],
}

impl Settings {
    fn read(flags: &Flags) -> Outcome<Self> {
        let smoke = flags.has("--smoke");
        let ours = (!flags.has("--without-penstock")).then_some(Ok(Kind::Penstock));
        let rivals = flags.list("--rivals", if smoke { "" } else { "nginx,haproxy" });
        let kinds = ours.into_iter().chain(rivals.into_iter().map(Kind::rival)).collect::<Outcome<_>>()?;
        Ok(Self {
            kinds,
            reloads: flags.read("--reloads", if smoke { 3 } else { 20 })?,
            every: Duration::from_millis(flags.read("--every-ms", if smoke { 100 } else { 500 })?),
            clients: flags.read("--clients", 32)?,
            parked: flags.read("--parked", 64)?,
        })
    }
}

pub(crate) fn run(words: &[String]) -> Outcome {
    let flags = Flags::parse(words, VALUED, BARE)?;
    let settings = Settings::read(&flags)?;
    println!("$ cargo xtask bench reload {}", words.join(" "));
    println!(
        "{}; {} changes, one each {:?}; {} clients that ask, {} connections parked, a tunnel more with each change",
        calendar::now(),
        settings.reloads,
        settings.every,
        settings.clients,
        settings.parked
    );
    let scratch = Scratch::new()?;
    let origins = [Origin::start()?, Origin::start()?];
    let mut verdicts = Vec::new();
    for kind in &settings.kinds {
        let verdict = upset(*kind, &settings, &scratch, &origins)?;
        println!("  {}: {}", kind.name(), verdict.version);
        verdicts.push((*kind, verdict));
    }
    print!("\n{}", table(&settings, &verdicts));
    if let Some(file) = flags.text("--json") {
        let rows: Vec<Value> = verdicts.iter().map(|(kind, verdict)| verdict.to_json(*kind)).collect();
        process::write_file(file.as_ref(), format!("{:#}\n", json!({ "date": calendar::now(), "contenders": rows })))?;
    }
    let ours = verdicts.iter().find(|(kind, _)| *kind == Kind::Penstock);
    match ours.map(|(_, verdict)| verdict.noticed(&settings)).filter(|_| flags.has("--strict")) {
        Some(noticed) if noticed > 0 => Err(format!("{noticed} clients of Penstock have noticed")),
        _ => Ok(()),
    }
}

/// Changes a contender's configuration under its clients.
fn upset(kind: Kind, settings: &Settings, scratch: &Scratch, origins: &[Origin; 2]) -> Outcome<Verdict> {
    let cpus: Cpus = "0,1".parse().map_err(|()| "no CPUs")?;
    let mut contender = Contender::start(kind, scratch, &cpus, origins)?;
    let address = contender.address;
    let parked: Vec<_> = (0..settings.parked).map(|_| Parked::open(address)).collect::<Result<_, _>>()?;
    let mut tunnels = vec![Tunnel::open(address)?];
    let measure = |contender: &Contender| (contender.processes().len(), meter::anonymous(&contender.processes()));
    let before = measure(&contender);
    let talk = Talk::begin(address, settings.clients);
    for number in 0..settings.reloads {
        std::thread::sleep(settings.every);
        let fewer = number % 2 == 0;
        contender.change(&origins[..if fewer { 1 } else { 2 }])?;
        // It may be refused for a moment, which is the askers' to tell.
        tunnels.extend(Tunnel::open(address));
    }
    std::thread::sleep(settings.every);
    let seen = talk.end();
    let after = measure(&contender);
    Ok(Verdict {
        version: contender.version.clone(),
        seen,
        parked: parked.into_iter().filter_map(Parked::ask).count(),
        tunnels: tunnels.into_iter().filter_map(Tunnel::ask).count(),
        processes: [before.0, after.0],
        memory: [before.1, after.1],
    })
}

impl Verdict {
    /// How many clients have noticed something.
    fn noticed(&self, settings: &Settings) -> u64 {
        let gone = settings.parked - self.parked + (settings.reloads + 1).saturating_sub(self.tunnels);
        self.seen.lost + self.seen.refused + self.seen.closed + gone as u64
    }

    fn to_json(&self, kind: Kind) -> Value {
        let Seen { answered, lost, refused, closed, slowest } = &self.seen;
        json!({
            "name": kind.name(), "version": self.version, "answered": answered, "lost": lost, "refused": refused, "closed": closed,
            "slowest_ms": slowest.as_secs_f64() * 1e3, "parked": self.parked, "tunnels": self.tunnels,
            "processes": self.processes, "memory": self.memory,
        })
    }
}

fn table(settings: &Settings, verdicts: &[(Kind, Verdict)]) -> String {
    let head = [
        "",
        "answered",
        "lost",
        "refused",
        "closed",
        "slowest, ms",
        "parked kept",
        "tunnels kept",
        "processes",
        "own memory, MiB",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (kind, verdict) in verdicts {
        let Seen { answered, lost, refused, closed, slowest } = &verdict.seen;
        let mib = verdict.memory.map(|bytes| bytes as f64 / f64::from(1 << 20));
        rows.push(vec![
            kind.name().to_owned(),
            answered.to_string(),
            lost.to_string(),
            refused.to_string(),
            closed.to_string(),
            format!("{:.0}", slowest.as_secs_f64() * 1e3),
            format!("{} of {}", verdict.parked, settings.parked),
            format!("{} of {}", verdict.tunnels, settings.reloads + 1),
            format!("{} → {}", verdict.processes[0], verdict.processes[1]),
            format!("{:.1} → {:.1}", mib[0], mib[1]),
        ]);
    }
    aligned(&rows)
}
