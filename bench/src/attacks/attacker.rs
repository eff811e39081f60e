//! `bench attacker`: one attack over several connections, each of which comes back when it is cut off.
//!
//! It yields to whoever else is on its CPU, so that what a victim beside it notices is the proxy and not the attacker.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::h2::frame::Kind;
use rustls::ClientConfig;
use serde_json::{Value, json};
use xtask::Outcome;

use super::h3;
use super::mischief::{self, Attack, How};
use super::wire::{Heard, Line};
use crate::flags::Flags;
use crate::process::{myself, pinned_command, words};
use crate::tls;

pub(super) const TICK: Duration = Duration::from_millis(5);
/// Who was cut off comes back after this: handshakes are another attack.
pub(super) const AWAY: Duration = Duration::from_millis(50);

/// What an attack came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Said, by all connections together.
    pub(super) units: u64,
    /// Connections that the other side has ended.
    pub(super) cut_off: u64,
    /// How long it went on.
    pub(super) millis: u64,
    /// The codes with which it did so, and how many had each.
    pub(super) codes: BTreeMap<u64, u64>,
    /// Bytes of datagrams to and from addresses that have proved nothing; of attacks that count them.
    pub(super) sent: u64,
    pub(super) heard: u64,
}

impl Tally {
    pub(super) fn to_json(&self) -> Value {
        let codes: Vec<_> = self.codes.iter().map(|(code, count)| json!([code, count])).collect();
        json!({"units": self.units, "cut_off": self.cut_off, "millis": self.millis, "codes": codes, "sent": self.sent, "heard": self.heard})
    }

    fn from_json(value: &Value) -> Option<Self> {
        let pair = |pair: &Value| Some((pair[0].as_u64()?, pair[1].as_u64()?));
        Some(Self {
            units: value["units"].as_u64()?,
            cut_off: value["cut_off"].as_u64()?,
            millis: value["millis"].as_u64()?,
            codes: value["codes"].as_array()?.iter().map(pair).collect::<Option<_>>()?,
            sent: value["sent"].as_u64()?,
            heard: value["heard"].as_u64()?,
        })
    }

    pub(super) fn seconds(&self) -> f64 {
        self.millis as f64 / 1e3
    }

    /// The code that most of them had.
    pub(super) fn code(&self) -> Option<u64> {
        self.codes.iter().max_by_key(|(_, count)| **count).map(|(code, _)| *code)
    }

    /// Bytes that came back for each that was sent.
    pub(super) fn amplified(&self) -> Option<f64> {
        (self.sent > 0).then(|| self.heard as f64 / self.sent as f64)
    }
}

/// The attacker's process.
pub(super) struct Process(Child);

impl Process {
    pub(super) fn start(attack: &Attack, to: SocketAddr, trust: &Path, time: Duration, cpu: usize) -> Outcome<Self> {
        // It has what its CPU has left: clients somewhere else would not wait for who attacks to give way either.
        let mut line = words([&"chrt", &"--idle", &"0", &myself()?, &"attacker", &"--attack", &attack.name]);
        line.extend(words([&"--to", &to.to_string()]));
        line.extend(words([&"--trust", &trust, &"--millis", &time.as_millis().to_string()]));
        let mut command = pinned_command(&cpu.into(), &line)?;
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        child.map(Self).map_err(|error| format!("bench attacker: {error}"))
    }

    /// Waits for its end.
    pub(super) fn finish(self) -> Outcome<Tally> {
        let output = self.0.wait_with_output().map_err(|error| format!("bench attacker: {error}"))?;
        serde_json::from_slice(&output.stdout).ok().and_then(|value| Tally::from_json(&value)).ok_or_else(|| {
            let error = String::from_utf8_lossy(&output.stderr);
            format!("bench attacker told no result ({}): {}", output.status, error.trim())
        })
    }
}

/// `bench attacker --attack NAME --to ADDRESS --trust FILE --millis N`.
pub(crate) fn main(arguments: &[String]) -> Outcome {
    let flags = Flags::parse(arguments, &["--attack", "--to", "--trust", "--millis"], &[])?;
    let (name, trust): (String, String) = (flags.need("--attack")?, flags.need("--trust")?);
    let attack = mischief::all().find(|attack| attack.name == name).ok_or_else(|| format!("no attack `{name}`"))?;
    let time = Duration::from_millis(flags.need("--millis")?);
    let (to, trust) = (flags.need("--to")?, Path::new(&trust));
    let tally = match attack.how {
        How::Frames { settings, unit } => {
            let config = Arc::new(tls::h2_client(trust)?);
            run(attack, Frames { settings, unit }, to, &config, time)
        }
        How::Initials => h3::initials::run(attack, to, trust, time)?,
        How::Streams(_) | How::Handshakes => h3::seats::run(attack, to, trust, time)?,
    };
    println!("{}", tally.to_json());
    Ok(())
}

/// As [`How::Frames`].
#[derive(Clone, Copy)]
struct Frames {
    settings: &'static [(u16, u32)],
    unit: fn(u32) -> Vec<u8>,
}

fn run(attack: &Attack, frames: Frames, to: SocketAddr, config: &Arc<ClientConfig>, time: Duration) -> Tally {
    let (mut tally, begun) = (Tally::default(), Instant::now());
    let mut seats: Vec<Seat> = (0..attack.connections).map(|_| Seat::default()).collect();
    while begun.elapsed() < time {
        for seat in &mut seats {
            if let Err(code) = seat.go_on(attack.units, frames, to, config, &mut tally.units) {
                tally.cut_off += 1;
                if let Some(code) = code {
                    *tally.codes.entry(code).or_default() += 1;
                }
                *seat = Seat { back: Some(Instant::now() + AWAY), ..Seat::default() };
            }
        }
        std::thread::sleep(TICK);
    }
    tally.millis = begun.elapsed().as_millis() as u64;
    tally
}

/// The place of one connection.
#[derive(Default)]
struct Seat {
    line: Option<Line>,
    said: u32,
    /// The last that a GOAWAY said.
    code: Option<u64>,
    back: Option<Instant>,
}

impl Seat {
    /// One tick.
    ///
    /// # Errors
    /// The connection has ended; with what code, if it said one.
    fn go_on(
        &mut self,
        a_tick: u32,
        frames: Frames,
        to: SocketAddr,
        config: &Arc<ClientConfig>,
        units: &mut u64,
    ) -> Result<(), Option<u64>> {
        if self.back.is_some_and(|back| Instant::now() < back) {
            return Ok(());
        }
        let mut line = match self.line.take() {
            Some(line) => line,
            None => Line::connect(config, to, frames.settings, false).map_err(|_| None)?,
        };
        let outcome = self.speak(&mut line, a_tick, frames.unit, units);
        let heard = self.listen(&mut line);
        match (outcome, heard) {
            (Ok(()), Ok(Heard::Open)) => self.line = Some(line),
            _ => return Err(self.code),
        }
        Ok(())
    }

    fn speak(&mut self, line: &mut Line, a_tick: u32, unit: fn(u32) -> Vec<u8>, units: &mut u64) -> io::Result<()> {
        if !line.has_room() {
            return Ok(());
        }
        let count = if self.said == 0 { 1 } else { a_tick };
        let batch: Vec<u8> = (self.said..self.said + count).flat_map(unit).collect();
        self.said += count;
        *units += u64::from(count);
        line.say(&batch)
    }

    fn listen(&mut self, line: &mut Line) -> io::Result<Heard> {
        let heard = line.hear();
        while let Some((head, payload)) = line.frame()? {
            if let (Kind::GoAway, Some(&[a, b, c, d])) = (head.kind, payload.get(4..8)) {
                self.code = Some(u32::from_be_bytes([a, b, c, d]).into());
            }
        }
        heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_read_back() {
        let codes = [(1, 1), (11, 2)].into();
        let tally = Tally { units: 7, cut_off: 3, millis: 9, codes, sent: 1_200, heard: 3_000 };
        assert_eq!(Tally::from_json(&tally.to_json()), Some(tally.clone()));
        assert_eq!((tally.code(), tally.amplified()), (Some(11), Some(2.5)));
        assert_eq!((Tally::default().code(), Tally::default().amplified()), (None, None));
    }
}
