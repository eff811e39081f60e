//! `bench afxdp`: datagrams past the kernel beside its sockets, over a cable between two network namespaces.
//!
//! An echo server that does nothing else, once on a socket and once on AF_XDP; and the engine, with flows of datagrams to such a server and with HTTP/3, with and without `engine.af_xdp`. Rounds are
//! interleaved. What counts is the CPU time of a message there and back: the server's, and that of server and load together, as the kernel bills some of its
//! work to whoever it interrupts.

pub(crate) mod echo;

use std::net::SocketAddr;
use std::path::Path;

use xtask::Outcome;

use crate::calendar;
use crate::flags::Flags;
use crate::l4::Scenario;
use crate::l4::load::{Process, Transport};
use crate::load::{self, Plan};
use crate::meter;
use crate::process::{self, Running, Scratch, myself, words, write_file};
use crate::report::{aligned, figure_text};
use crate::rivals::Kind;
use crate::scenario::Over;
use crate::spaces::Spaces;
use crate::stats::{self, median, min, ratio};
use crate::tls::Identity;

const VALUED: &[&str] = &["--rounds", "--seconds", "--proxy-cpu", "--load-cpu", "--seed", "--scenarios"];

const BY_SOCKET: &str = "10.78.0.1:7001";
const BY_AFXDP: &str = "10.78.0.1:7002";
const ORIGIN: &str = "127.0.0.1:9001";

/// What is asked.
#[derive(Debug, Clone, Copy)]
enum Ask {
    /// Datagrams that come back.
    Echo(Scenario),
    /// Datagrams that come back from an origin behind the engine.
    Flows(Scenario),
    /// Requests of HTTP/3: connections, streams, bytes of an answer.
    Pages(&'static str, usize, usize, usize),
}

const ASKS: &[Ask] = &[
    Ask::Echo(Scenario { name: "udp-1", transport: Transport::Udp, clients: 1, window: 1, bytes: 100 }),
    Ask::Echo(Scenario { name: "udp-64", transport: Transport::Udp, clients: 64, window: 1, bytes: 100 }),
    Ask::Echo(Scenario { name: "udp-16x16", transport: Transport::Udp, clients: 16, window: 16, bytes: 1_200 }),
    Ask::Flows(Scenario { name: "flows-64", transport: Transport::Udp, clients: 64, window: 1, bytes: 100 }),
    Ask::Flows(Scenario { name: "flows-16x16", transport: Transport::Udp, clients: 16, window: 16, bytes: 1_200 }),
    Ask::Pages("h3-16x16", 16, 16, 100),
    Ask::Pages("h3-1m", 4, 4, 1 << 20),
];

impl Ask {
    const fn name(&self) -> &'static str {
        match self {
            Self::Echo(scenario) | Self::Flows(scenario) => scenario.name,
            Self::Pages(name, ..) => name,
        }
    }
}

/// Microseconds for each that was answered.
struct Round {
    server: f64,
    both: f64,
    rate: f64,
}

struct Settings {
    asks: Vec<Ask>,
    rounds: usize,
    seconds: u64,
    proxy_cpu: usize,
    load_cpu: usize,
    seed: u64,
}

impl Settings {
    fn read(arguments: &[String]) -> Outcome<Self> {
        let flags = Flags::parse(arguments, VALUED, &["--smoke"])?;
        let smoke = flags.has("--smoke");
        let all: Vec<&str> = ASKS.iter().map(Ask::name).collect();
        let named = |name: &str| {
            let known = ASKS.iter().find(|ask| ask.name() == name).copied();
            known.ok_or_else(|| format!("there is no scenario `{name}`: {}", all.join(", ")))
        };
        let names = if smoke { "udp-64,flows-64,h3-16x16".to_owned() } else { all.join(",") };
        let names = flags.list("--scenarios", &names);
        let settings = Self {
            asks: names.into_iter().map(named).collect::<Outcome<_>>()?,
            rounds: flags.read("--rounds", if smoke { 1 } else { 6 })?,
            seconds: flags.read("--seconds", if smoke { 1 } else { 2 })?,
            proxy_cpu: flags.read("--proxy-cpu", 1)?,
            load_cpu: flags.read("--load-cpu", 0)?,
            seed: flags.read("--seed", 1)?,
        };
        match (settings.rounds, settings.seconds) {
            (0, _) | (_, 0) => Err("--rounds and --seconds must be at least 1".to_owned()),
            _ => Ok(settings),
        }
    }
}

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let settings = Settings::read(arguments)?;
    let command = format!("cargo xtask bench afxdp {}", arguments.join(" "));
    println!("$ {}\n{}", command.trim_end(), calendar::now());
    let scratch = Scratch::new()?;
    // Each way has a cable of its own: a program at one end changes what the other end does, too.
    let spaces = [Spaces::new("afxdp-a")?, Spaces::new("afxdp-b")?];
    let identity = Identity::make(&scratch)?;
    process::pin_here(&settings.load_cpu.into())?;
    for ask in &settings.asks {
        let mut rounds: [Vec<Round>; 2] = [Vec::new(), Vec::new()];
        for number in 0..settings.rounds {
            for index in stats::shuffled(2, settings.seed ^ (number as u64) << 8) {
                let folder = scratch.folder(["socket", "af_xdp"][index])?;
                spaces[index].go_in()?;
                rounds[index].push(round(&settings, *ask, index == 1, &spaces[index], &folder, &identity)?);
            }
        }
        println!("\n{}\n{}", ask.name(), table(&rounds).trim_end());
    }
    Ok(())
}

/// One server, made anew, asked for a while.
fn round(
    settings: &Settings,
    ask: Ask,
    by_afxdp: bool,
    spaces: &Spaces,
    folder: &Path,
    identity: &Identity,
) -> Outcome<Round> {
    match ask {
        Ask::Echo(scenario) => {
            let (server, address) = echo_server(settings, by_afxdp, folder)?;
            messages(settings, &scenario, &server, address, spaces)
        }
        Ask::Flows(scenario) => {
            let origin = words([&myself()?, &"l4-origin", &"--listen", &ORIGIN]);
            let _origin = Running::start("the origin", settings.load_cpu, &origin, &[], &folder.join("origin.log"))?;
            let (server, address) = engine(settings, by_afxdp, folder, FLOWS)?;
            messages(settings, &scenario, &server, address, spaces)
        }
        Ask::Pages(_, connections, streams, body) => {
            let origin = words([&myself()?, &"origin", &"--listen", &ORIGIN]);
            let _origin = Running::start("the origin", settings.load_cpu, &origin, &[], &folder.join("origin.log"))?;
            let (server, address) = engine(settings, by_afxdp, folder, &pages(identity))?;
            spaces.outside(|| {
                until_served(|| load::h3::check(address, &identity.cert, settings.load_cpu))?;
                let plan = Plan {
                    to: address,
                    over: Over::H3,
                    path: format!("/{body}"),
                    connections,
                    streams,
                    seconds: settings.seconds,
                    body,
                    close: false,
                    browser: false,
                    resumed: false,
                    rate: None,
                    trust: Some(identity.cert.clone()),
                    message: None,
                };
                let cpu = || (meter::cpu_ns(&server.processes()), meter::ended_children_ns());
                let before = cpu();
                let seen = load::h3::run(&plan, settings.load_cpu)?;
                let after = cpu();
                if seen.errors > 0 {
                    return Err(format!("{} requests failed", seen.errors));
                }
                Ok(Round::of(seen.requests, seen.seconds, (after.0 - before.0, after.1 - before.1)))
            })
        }
    }
}

/// Messages there and back, while the load's clock runs.
fn messages(
    settings: &Settings,
    scenario: &Scenario,
    server: &Running,
    address: SocketAddr,
    spaces: &Spaces,
) -> Outcome<Round> {
    let load = spaces.outside(|| started(scenario, address, settings))?;
    let cpu = |load: &Process| (meter::cpu_ns(&server.processes()), meter::cpu_ns(&[load.id()]));
    let before = cpu(&load);
    let (seen, after) = load.finish(|load| cpu(load))?;
    Ok(Round::of(seen.answered, seen.seconds, (after.0 - before.0, after.1 - before.1)))
}

impl Round {
    fn of(answered: u64, seconds: f64, (server, load): (u64, u64)) -> Self {
        let each = |nanos: u64| nanos as f64 / 1e3 / answered.max(1) as f64;
        Self { server: each(server), both: each(server + load), rate: answered as f64 / seconds }
    }
}

fn echo_server(settings: &Settings, by_afxdp: bool, folder: &Path) -> Outcome<(Running, SocketAddr)> {
    let (line, address) = if by_afxdp {
        let listen = words([&myself()?, &"afxdp-echo", &"--listen", &BY_AFXDP, &"--interface", &"door0"]);
        (listen, BY_AFXDP)
    } else {
        (words([&myself()?, &"l4-origin", &"--listen", &BY_SOCKET]), BY_SOCKET)
    };
    let server = Running::start("the server", settings.proxy_cpu, &line, &[], &folder.join("server.log"))?;
    Ok((server, address.parse().map_err(|_| "an address")?))
}

/// Clients whose first messages have come back; those of a server that is not there yet are lost, and sent again.
fn started(scenario: &Scenario, to: SocketAddr, settings: &Settings) -> Outcome<Process> {
    Process::start(scenario, to, settings.seconds, settings.load_cpu)
}

fn until_served(ask: impl Fn() -> Outcome) -> Outcome {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        match ask() {
            Ok(()) => return Ok(()),
            Err(why) if std::time::Instant::now() > until => return Err(why),
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(50)),
        }
    }
}

/// The engine's listener of flows, and its endpoint.
const FLOWS: &str = "\
protocol = \"udp\"
pool = \"origin\"

[[pool]]
name = \"origin\"
endpoints = [\"127.0.0.1:9001\"]
";

/// Its listener of HTTP/3, and what is behind that.
fn pages(Identity { cert, key, .. }: &Identity) -> String {
    format!(
        "\
tls = {{ cert = {cert:?}, key = {key:?} }}

[[pool]]
name = \"origin\"
endpoints = [\"{ORIGIN}\"]

[[route]]
pool = \"origin\"
"
    )
}

fn engine(settings: &Settings, by_afxdp: bool, folder: &Path, listener: &str) -> Outcome<(Running, SocketAddr)> {
    let af_xdp = if by_afxdp { "af_xdp.interface = \"door0\"" } else { "" };
    let file = folder.join("penstock.toml");
    let text = format!(
        "\
[engine]
cores = \"{}\"
{af_xdp}

[[listen]]
name = \"door\"
addr = \"{BY_AFXDP}\"
{listener}",
        settings.proxy_cpu
    );
    write_file(&file, text)?;
    let line = words([&Kind::Penstock.program()?, &"run", &"-c", &file]);
    let server = Running::start("penstock", settings.proxy_cpu, &line, &[], &folder.join("penstock.log"))?;
    Ok((server, BY_AFXDP.parse().map_err(|_| "an address")?))
}

const COLUMNS: [&str; 7] = ["", "server µs min", "median", "server and load µs min", "median", "a second", "rounds"];

fn table(rounds: &[Vec<Round>; 2]) -> String {
    let figures = |of: &[Round], figure: fn(&Round) -> f64| of.iter().map(figure).collect::<Vec<_>>();
    let mut rows = vec![COLUMNS.map(str::to_owned).to_vec()];
    for (name, of) in ["socket", "AF_XDP"].into_iter().zip(rounds) {
        let (server, both) = (figures(of, |round| round.server), figures(of, |round| round.both));
        rows.push(vec![
            name.to_owned(),
            figure_text(min(&server), 2),
            figure_text(median(&server), 2),
            figure_text(min(&both), 2),
            figure_text(median(&both), 2),
            figure_text(median(&figures(of, |round| round.rate)), 0),
            of.len().to_string(),
        ]);
    }
    let [socket, afxdp] = rounds;
    let against = |figure: fn(&Round) -> f64, of: fn(&[f64]) -> Option<f64>| {
        figure_text(ratio(of(&figures(afxdp, figure)), of(&figures(socket, figure))), 2)
    };
    rows.push(vec![
        "AF_XDP ÷ socket".to_owned(),
        against(|round| round.server, min),
        against(|round| round.server, median),
        against(|round| round.both, min),
        against(|round| round.both, median),
        against(|round| round.rate, median),
        String::new(),
    ]);
    aligned(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings() {
        let read = |text: &str| Settings::read(&crate::flags::words(text));
        assert_eq!((read("").unwrap().asks.len(), read("--smoke").unwrap().rounds), (7, 1));
        assert_eq!(read("--scenarios h3-1m").unwrap().asks[0].name(), "h3-1m");
        for wrong in ["--rounds 0", "--seconds 0", "--scenarios udp"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn both_are_for_each_that_was_answered() {
        let round = Round::of(1_000, 2.0, (3_000_000, 1_000_000));
        assert_eq!((round.server, round.both, round.rate), (3.0, 4.0, 500.0));
    }
}
