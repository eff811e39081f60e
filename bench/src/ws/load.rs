//! `bench ws-load`: opens WebSockets over TLS, sends on each at a fixed rate, and times what comes and goes. A process of its own.
//!
//! It tells its parent when all are open and when all is sent, so that the proxy's CPU time can be told apart.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::ws;
use rustls::client::Resumption;
use serde_json::{Value, json};
use xtask::Outcome;

use super::client::{self, Schedule, Tally};
use super::frame::{FRAME, ask};
use crate::flags::Flags;
use crate::load::own;
use crate::process::{myself, pinned_command, words};
use crate::tls;

/// How long the last one may take to open, and the last answer to come.
const GRACE: Duration = Duration::from_secs(5);
/// Between the last one's opening and the first message.
const PAUSE: Duration = Duration::from_secs(1);

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Plan {
    pub(crate) connections: usize,
    /// Messages a second on each.
    pub(crate) rate: f64,
    /// Connections opened a second.
    pub(crate) open_rate: f64,
    pub(crate) seconds: u64,
}

impl Plan {
    pub(super) fn check(&self) -> Outcome {
        let wrong = |rate: f64| !rate.is_finite() || rate <= 0.0;
        if self.connections == 0 || self.seconds == 0 || wrong(self.rate) || wrong(self.open_rate) {
            return Err("--connections, --rate, --open-rate and --seconds must be more than nothing".to_owned());
        }
        Ok(())
    }
}

/// How some durations are spread, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Spread {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(super) fn of(values: &mut [u32]) -> Self {
        values.sort_unstable();
        let at = |share: f64| {
            let rank = (share * values.len() as f64).ceil() as usize;
            values.get(rank.saturating_sub(1)).copied().map_or(0.0, f64::from)
        };
        Self { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }

    fn to_json(self) -> Value {
        json!({"p50_us": self.p50, "p99_us": self.p99, "p999_us": self.p999, "max_us": self.max})
    }

    fn from_json(value: &Value) -> Option<Self> {
        let number = |name: &str| value.get(name)?.as_f64();
        Some(Self { p50: number("p50_us")?, p99: number("p99_us")?, p999: number("p999_us")?, max: number("max_us")? })
    }
}

/// What a round saw.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Seen {
    pub(crate) opened: u64,
    /// Could not be opened.
    pub(crate) failed: u64,
    /// Were open, and ended before their time.
    pub(crate) lost: u64,
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    /// From the first SYN to the 101.
    pub(crate) opening: Spread,
    /// One way, both ways alike.
    pub(crate) delivery: Spread,
    /// How much later than it was due a message was sent: the load's own fault.
    pub(crate) late: Spread,
}

impl Seen {
    /// Deliveries in both directions.
    pub(crate) fn messages(&self) -> u64 {
        2 * self.answered
    }

    pub(crate) fn to_json(self) -> Value {
        json!({
            "opened": self.opened, "failed": self.failed, "lost": self.lost, "sent": self.sent, "answered": self.answered,
            "opening": self.opening.to_json(), "delivery": self.delivery.to_json(), "late": self.late.to_json(),
        })
    }

    fn from_json(value: &Value) -> Option<Self> {
        let count = |name: &str| value.get(name)?.as_u64();
        let spread = |name: &str| Spread::from_json(value.get(name)?);
        Some(Self {
            opened: count("opened")?,
            failed: count("failed")?,
            lost: count("lost")?,
            sent: count("sent")?,
            answered: count("answered")?,
            opening: spread("opening")?,
            delivery: spread("delivery")?,
            late: spread("late")?,
        })
    }
}

/// One that runs.
pub(super) struct Process {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Process {
    pub(super) fn start(plan: &Plan, to: SocketAddr, trust: &Path, cpu: usize) -> Outcome<Self> {
        let mut line = words([&myself()?, &"ws-load", &"--to", &to.to_string(), &"--trust", &trust]);
        line.extend(words([&"--connections", &plan.connections.to_string(), &"--rate", &plan.rate.to_string()]));
        line.extend(words([&"--open-rate", &plan.open_rate.to_string(), &"--seconds", &plan.seconds.to_string()]));
        let mut command = pinned_command(&cpu.into(), &line)?;
        let mut child = command.stdout(Stdio::piped()).spawn().map_err(|error| format!("bench ws-load: {error}"))?;
        let said = child.stdout.take().ok_or("bench ws-load has no output")?;
        Ok(Self { child, said: BufReader::new(said) })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Until messages begin.
    pub(super) fn wait_until_open(&mut self) -> Outcome {
        self.line().and_then(|line| if line == "open" { Ok(()) } else { Err(format!("bench ws-load said `{line}`")) })
    }

    /// Until no more are sent.
    pub(super) fn wait_until_sent(&mut self) -> Outcome {
        self.line().and_then(|line| if line == "sent" { Ok(()) } else { Err(format!("bench ws-load said `{line}`")) })
    }

    pub(super) fn finish(mut self) -> Outcome<Seen> {
        let line = self.line()?;
        let seen = serde_json::from_str(&line).ok().and_then(|value| Seen::from_json(&value));
        seen.ok_or_else(|| format!("bench ws-load told no result: `{line}`"))
    }

    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        match self.said.read_line(&mut line) {
            Ok(1..) => Ok(line.trim_end().to_owned()),
            Ok(0) => Err("bench ws-load ended before its time".to_owned()),
            Err(error) => Err(format!("bench ws-load: {error}")),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended, or is of no use.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Opens one WebSocket, sends a message, waits for its answer and leaves; how long opening took.
pub(super) fn visit(to: SocketAddr, trust: &Path) -> std::io::Result<Duration> {
    let mut config = tls::client(trust).map_err(std::io::Error::other)?;
    config.resumption = Resumption::disabled();
    let begun = Instant::now();
    let mut stream = tls::connect(&Arc::new(config), to)?;
    let key = ws::key_of([0; 16]);
    stream.write_all(client::offer(to, &key).as_bytes())?;
    let mut received = Vec::new();
    let length = loop {
        if let Some(length) = client::agreed(&received, &key)? {
            break length;
        }
        more(&mut stream, &mut received)?;
    };
    let opened = begun.elapsed();
    received.drain(..length);
    stream.write_all(&ask(ring::monotonic(), [1, 2, 3, 4]))?;
    while received.len() < FRAME {
        more(&mut stream, &mut received)?;
    }
    Ok(opened)
}

fn more(stream: &mut impl Read, received: &mut Vec<u8>) -> std::io::Result<()> {
    let mut piece = [0; 4096];
    match stream.read(&mut piece)? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        count => {
            received.extend_from_slice(&piece[..count]);
            Ok(())
        }
    }
}

/// `bench ws-load --to ADDRESS --trust FILE --connections N --rate R --open-rate R --seconds N`.
pub(crate) fn main(arguments: &[String]) -> Outcome {
    let valued = &["--to", "--trust", "--connections", "--rate", "--open-rate", "--seconds", "--driver"];
    let flags = Flags::parse(arguments, valued, &[])?;
    let plan = Plan {
        connections: flags.need("--connections")?,
        rate: flags.need("--rate")?,
        open_rate: flags.need("--open-rate")?,
        seconds: flags.need("--seconds")?,
    };
    plan.check()?;
    let (to, trust): (SocketAddr, PathBuf) = (flags.need("--to")?, flags.need("--trust")?);
    let mut config = tls::client(&trust)?;
    config.resumption = Resumption::disabled();
    // 50 µs of slack would be added to every wait.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let ring = own::ring(&flags)?;
    let seen = ring.block_on(all(plan, to, Arc::new(config)));
    println!("{}", seen.to_json());
    Ok(())
}

/// Tells the parent how far it is.
fn say(word: &str) {
    println!("{word}");
    let _ = std::io::stdout().flush();
}

async fn all(plan: Plan, to: SocketAddr, config: Arc<rustls::ClientConfig>) -> Seen {
    let tally = Rc::new(RefCell::new(Tally::default()));
    let begun = ring::now();
    let mut tasks = Vec::new();
    for number in 0..plan.connections {
        ring::sleep_until(begun + Duration::from_secs_f64(number as f64 / plan.open_rate)).await;
        tasks.push(client::start(number, to, Arc::clone(&config), Rc::clone(&tally)));
    }
    let until = ring::now() + GRACE;
    while tally.borrow().settled() < plan.connections && ring::now() < until {
        ring::sleep(Duration::from_millis(20)).await;
    }
    let period = Duration::from_secs_f64(1.0 / plan.rate);
    let begin = ring::now() + PAUSE;
    let end = begin + Duration::from_secs(plan.seconds);
    ring::sleep_until(begin - Duration::from_millis(10)).await;
    say("open");
    tally.borrow_mut().schedule = Some(Schedule { begin, end, period, connections: plan.connections });
    tasks.iter().for_each(|task| ring::wake(*task));
    ring::sleep_until(end).await;
    say("sent");
    let until = end + GRACE;
    while !tally.borrow().is_answered() && ring::now() < until {
        ring::sleep(Duration::from_millis(20)).await;
    }
    tally.borrow_mut().finish(plan.connections)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads() {
        let mut values: Vec<u32> = (1..=1_000).rev().collect();
        assert_eq!(Spread::of(&mut values), Spread { p50: 500.0, p99: 990.0, p999: 999.0, max: 1_000.0 });
        assert_eq!(Spread::of(&mut []), Spread::default());
    }

    #[test]
    fn what_was_seen_is_read_back() {
        let spread = Spread { p50: 1.0, p99: 2.5, p999: 3.0, max: 4.0 };
        let seen = Seen {
            opened: 5,
            failed: 1,
            lost: 2,
            sent: 9,
            answered: 8,
            opening: spread,
            delivery: spread,
            late: spread,
        };
        assert_eq!(Seen::from_json(&seen.to_json()), Some(seen));
        assert_eq!(Seen::from_json(&json!({"opened": 1})), None);
    }
}
