//! `bench pushdown`: what a client costs that goes on though its limit turns it away.
//!
//! It asks a hundred times as often as it may, over connections that it keeps, from the other end of a cable. Penstock answers each request with a 429, as
//! nginx does (`limit_req`); with `[shield] over_limit` it tells the shield of the client, and nothing that comes from there reaches it. What counts is
//! the CPU time of the proxy's process once that has settled.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use xtask::Outcome;

use super::Case;
use super::bed::{DOOR, ORIGIN, engine, nginx};
use super::clients::connect;
use crate::flags::Flags;
use crate::process::{Running, Scratch, myself, pinned_command, words, write_file};
use crate::report::{aligned, figure_text};
use crate::rivals::Kind;
use crate::spaces::{Spaces, within};
use crate::stats::ratio;
use crate::{calendar, meter};

const VALUED: &[&str] =
    &["--rivals", "--modes", "--limit", "--times", "--seconds", "--json", "--proxy-cpu", "--load-cpu"];
const BARE: &[&str] = &["--strict", "--smoke"];

/// What `--strict` wants: the engine's CPU time without the shield to that with it.
const FACTOR_MIN: f64 = 10.0;

/// Connections that the client keeps, and how long it waits for an answer on one before it opens another.
const CONNECTIONS: u64 = 16;
const PATIENCE: Duration = Duration::from_millis(250);

struct Settings {
    cases: Vec<Case>,
    /// Requests a second that the client may make, and how many times as many it makes.
    limit: u64,
    times: u64,
    seconds: u64,
    proxy_cpu: usize,
    load_cpu: usize,
    strict: bool,
    json: Option<String>,
}

/// What is done with its client's requests beyond the limit.
fn name(case: &Case) -> String {
    match &case.shield {
        None => format!("{}, each is answered", case.kind.name()),
        Some(mode) => format!("{}, pushed down ({mode})", case.kind.name()),
    }
}

impl Settings {
    fn read(arguments: &[String]) -> Outcome<Self> {
        let flags = Flags::parse(arguments, VALUED, BARE)?;
        let smoke = flags.has("--smoke");
        let mut cases = vec![Case { kind: Kind::Penstock, shield: None }];
        cases.extend(Case::shielded(&flags)?);
        cases.extend(Case::rivals(&flags, smoke)?);
        let settings = Self {
            cases,
            limit: flags.read("--limit", 100)?,
            times: flags.read("--times", 100)?,
            seconds: flags.read("--seconds", if smoke { 1 } else { 5 })?,
            proxy_cpu: flags.read("--proxy-cpu", 1)?,
            load_cpu: flags.read("--load-cpu", 0)?,
            strict: flags.has("--strict"),
            json: flags.text("--json").map(str::to_owned),
        };
        if !(1..=60).contains(&settings.seconds) || !(1..=1_000_000).contains(&settings.rate()) {
            return Err("--seconds is 1 to 60, and the client asks 1 to 1000000 times a second".to_owned());
        }
        Ok(settings)
    }

    fn rate(&self) -> u64 {
        self.limit.saturating_mul(self.times)
    }
}

/// What one case came to.
struct Run {
    name: String,
    asked: Asked,
    /// Of the proxy, each second.
    cpu_ms: f64,
}

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let settings = Settings::read(arguments)?;
    let scratch = Scratch::new()?;
    println!("$ cargo xtask bench pushdown {}", arguments.join(" "));
    println!(
        "{}; a client that may ask {} times a second asks {} times, for {} s; proxy on CPU {}, client and origin on CPU {}",
        calendar::now(),
        settings.limit,
        settings.rate(),
        settings.seconds,
        settings.proxy_cpu,
        settings.load_cpu
    );
    let mut runs = Vec::new();
    for case in &settings.cases {
        runs.push(measured(case, &settings, &scratch).map_err(|why| format!("{}: {why}", name(case)))?);
    }
    let answered = runs[0].cpu_ms;
    let mut rows = vec![
        ["", "asked/s", "200/s", "429/s", "no answer/s", "CPU ms/s", "penstock's first to it"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for run in &runs {
        let each = |count: u64| figure_text(Some(count as f64 / settings.seconds as f64), 0);
        let Asked { sent, served, refused, lost } = run.asked;
        let mut row = vec![run.name.clone()];
        row.extend([sent, served, refused, lost].map(each));
        row.extend([figure_text(Some(run.cpu_ms), 2), figure_text(ratio(Some(answered), Some(run.cpu_ms)), 1)]);
        rows.push(row);
    }
    print!("\n{}", aligned(&rows));
    if let Some(file) = &settings.json {
        let runs: Vec<_> = runs
            .iter()
            .map(|run| json!({"proxy": run.name, "asked": run.asked.to_json(), "cpu_ms_per_second": run.cpu_ms}))
            .collect();
        write_file(file.as_ref(), format!("{:#}\n", json!({"date": calendar::now(), "runs": runs})))?;
    }
    let short = runs.iter().find(|run| run.name.contains("pushed down") && run.cpu_ms * FACTOR_MIN > answered);
    match short.filter(|_| settings.strict) {
        Some(run) => Err(format!("{}: {:.2} ms a second are no tenth of {answered:.2}", run.name, run.cpu_ms)),
        None => Ok(()),
    }
}

fn measured(case: &Case, settings: &Settings, scratch: &Scratch) -> Outcome<Run> {
    let spaces = Spaces::new("pushdown")?;
    let folder = scratch.folder(&format!("{}{}", case.kind.name(), case.shield.as_deref().unwrap_or_default()))?;
    let program = case.kind.program()?;
    let proxy = if case.kind == Kind::Nginx {
        let file = folder.join("nginx.conf");
        write_file(&file, limited_nginx(&folder.display().to_string(), settings.limit))?;
        words([&program, &"-p", &folder, &"-c", &file])
    } else {
        let file = folder.join("penstock.toml");
        write_file(&file, engine(DOOR, settings.proxy_cpu, &limited(settings.limit, case.shield.as_deref())))?;
        words([&program, &"run", &"-c", &file])
    };
    let origin = words([&myself()?, &"origin", &"--listen", &ORIGIN]);
    let start = |name, cpu, line| Running::start(name, cpu, &within(&spaces.inner, line), &[], &folder.join(name));
    let _origin = start("origin", settings.load_cpu, &origin)?;
    let proxy = start(case.kind.name(), settings.proxy_cpu, &proxy)?;
    let client = |seconds: u64| {
        let line = words([&myself()?, &"pushdown-client", &"--to", &DOOR, &"--rate", &settings.rate().to_string()]);
        let line = [line, words([&"--seconds", &seconds.to_string()])].concat();
        let mut command = pinned_command(&settings.load_cpu.into(), &within(&spaces.outer, &line))?;
        let output =
            command.stderr(Stdio::piped()).output().map_err(|error| format!("bench pushdown-client: {error}"))?;
        let value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        Asked::from_json(&value).ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // It stands, and has made up its mind about the client.
    let until = Instant::now() + Duration::from_secs(20);
    while client(1)?.refused == 0 {
        if Instant::now() > until {
            return Err("nobody is turned away".to_owned());
        }
    }
    let before = meter::cpu_ns(&proxy.processes());
    let begun = Instant::now();
    let asked = client(settings.seconds)?;
    let spent = meter::cpu_ns(&proxy.processes()).saturating_sub(before);
    Ok(Run { name: name(case), asked, cpu_ms: spent as f64 / 1e6 / begun.elapsed().as_secs_f64() })
}

fn limited(limit: u64, shield: Option<&str>) -> String {
    let shield = shield.map(|mode| {
        format!(
            "[shield]\ninterfaces = [\"door0\"]\nmode = \"{mode}\"\nover_limit = {{ rate = \"{limit}/s\", for = \"60s\" }}\n"
        )
    });
    format!("[[route]]\npool = \"origin\"\nlimit = [{{ rate = \"{limit}/s\" }}]\n\n{}", shield.unwrap_or_default())
}

fn limited_nginx(root: &str, limit: u64) -> String {
    let zone = format!("limit_req_zone $binary_remote_addr zone=each:1m rate={limit}r/s; limit_req_status 429;");
    nginx(root, &zone, "", &format!("limit_req zone=each burst={limit} nodelay;"))
}

/// What the client has done, and what became of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Asked {
    sent: u64,
    served: u64,
    refused: u64,
    /// Connections that were not made, or on which no answer came.
    lost: u64,
}

impl Asked {
    fn and(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            served: self.served + other.served,
            refused: self.refused + other.refused,
            lost: self.lost + other.lost,
        }
    }

    fn to_json(self) -> Value {
        json!({"sent": self.sent, "served": self.served, "refused": self.refused, "lost": self.lost})
    }

    fn from_json(value: &Value) -> Option<Self> {
        let count = |name: &str| value.get(name)?.as_u64();
        Some(Self { sent: count("sent")?, served: count("served")?, refused: count("refused")?, lost: count("lost")? })
    }
}

/// `bench pushdown-client --to ADDRESS --rate N --seconds N`: a thread for each connection, and blocking calls; prints what came of them.
pub(crate) fn main(arguments: &[String]) -> Outcome {
    let flags = Flags::parse(arguments, &["--to", "--rate", "--seconds"], &[])?;
    let (to, rate, seconds): (SocketAddr, u64, u64) =
        (flags.need("--to")?, flags.need("--rate")?, flags.need("--seconds")?);
    let until = Instant::now() + Duration::from_secs(seconds);
    let every = Duration::from_secs_f64(CONNECTIONS as f64 / rate.max(1) as f64);
    let asked = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(move || ask(to, until, every))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).fold(Asked::default(), Asked::and)
    });
    println!("{}", asked.to_json());
    Ok(())
}

/// One connection after the other, to the end of its time.
fn ask(to: SocketAddr, until: Instant, every: Duration) -> Asked {
    let mut asked = Asked::default();
    let (mut kept, mut due) = (None, Instant::now());
    while Instant::now() < until {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // What could not be asked in time is not made up for.
        due = (due + every).max(Instant::now());
        let stream = match kept.take() {
            Some(stream) => Ok(stream),
            None => connect(to, PATIENCE),
        };
        asked.sent += 1;
        match stream.and_then(|mut stream| status(&mut stream).map(|status| (status, stream))) {
            Ok((200, stream)) => (asked.served, kept) = (asked.served + 1, Some(stream)),
            Ok((429, stream)) => (asked.refused, kept) = (asked.refused + 1, Some(stream)),
            _ => asked.lost += 1,
        }
    }
    asked
}

/// The status of an answer whose content is told in advance, and read.
fn status(stream: &mut TcpStream) -> std::io::Result<u16> {
    stream.write_all(b"GET /100 HTTP/1.1\r\nHost: limit.test\r\n\r\n")?;
    let (mut answer, mut here) = ([0; 4_096], 0);
    loop {
        let more = stream.read(&mut answer[here..])?;
        here += more;
        if let Some(end) = answer[..here].windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
            if here >= end + 4 + length.unwrap_or(0) {
                return head.get(9..12).and_then(|status| status.parse().ok()).ok_or_else(broken);
            }
        }
        if more == 0 {
            return Err(broken());
        }
    }
}

fn broken() -> std::io::Error {
    std::io::ErrorKind::InvalidData.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings() {
        let read = |text: &str| Settings::read(&crate::flags::words(text));
        let usual = read("").unwrap();
        assert_eq!((usual.cases.len(), usual.rate(), usual.seconds), (4, 10_000, 5));
        for wrong in ["--seconds 0", "--seconds 61", "--limit 0", "--limit 100000", "--modes fast", "--rivals haproxy"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
