//! `bench l4-load`: clients that send a message when the last one has come back. A process of its own.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdout, Stdio};
use std::rc::Rc;
use std::str::FromStr;
use std::task::Poll;
use std::time::Duration;

use ring::{Address, Buf, Stream, Timer, Transmit, UdpOptions, UdpSocket};
use serde_json::{Value, json};
use xtask::Outcome;

use super::Scenario;
use crate::flags::Flags;
use crate::load::own;
use crate::process::{myself, pinned_command, words};

/// After so long without any, what is under way is taken for lost.
const LOST_AFTER: Duration = Duration::from_millis(200);

/// What messages go over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl FromStr for Transport {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        [Self::Tcp, Self::Udp].into_iter().find(|one| one.name() == name).ok_or(())
    }
}

/// What a round saw.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Seen {
    /// Messages that came back.
    pub(crate) answered: u64,
    pub(super) lost: u64,
    pub(crate) seconds: f64,
}

impl Seen {
    fn to_json(self) -> Value {
        json!({"answered": self.answered, "lost": self.lost, "seconds": self.seconds})
    }

    fn from_json(value: &Value) -> Option<Self> {
        let count = |name: &str| value.get(name)?.as_u64();
        Some(Self { answered: count("answered")?, lost: count("lost")?, seconds: value.get("seconds")?.as_f64()? })
    }
}

/// One that runs.
pub(crate) struct Process {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Process {
    /// Starts one, and waits until its clients have been answered once.
    pub(crate) fn start(scenario: &Scenario, to: SocketAddr, seconds: u64, cpu: usize) -> Outcome<Self> {
        let Scenario { transport, clients, window, bytes, .. } = scenario;
        let mut line = words([&myself()?, &"l4-load", &"--to", &to.to_string(), &"--transport", &transport.name()]);
        line.extend(words([&"--clients", &clients.to_string(), &"--window", &window.to_string()]));
        line.extend(words([&"--bytes", &bytes.to_string(), &"--seconds", &seconds.to_string()]));
        let mut command = pinned_command(&cpu.into(), &line)?;
        let mut child = command.stdout(Stdio::piped()).spawn().map_err(|error| format!("bench l4-load: {error}"))?;
        let said = child.stdout.take().ok_or("bench l4-load has no output")?;
        let mut process = Self { child, said: BufReader::new(said) };
        match process.line()?.as_str() {
            "open" => Ok(process),
            other => Err(format!("bench l4-load said `{other}`")),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it saw, and what `measure` finds at the moment when its time is over.
    pub(crate) fn finish<T>(mut self, measure: impl FnOnce(&Self) -> T) -> Outcome<(Seen, T)> {
        let line = self.line()?;
        let measured = measure(&self);
        let seen = serde_json::from_str(&line).ok().and_then(|value| Seen::from_json(&value));
        Ok((seen.ok_or_else(|| format!("bench l4-load told no result: `{line}`"))?, measured))
    }

    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        match self.said.read_line(&mut line) {
            Ok(1..) => Ok(line.trim_end().to_owned()),
            Ok(0) => Err("bench l4-load ended before its time".to_owned()),
            Err(error) => Err(format!("bench l4-load: {error}")),
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

/// What all clients have in common.
#[derive(Default)]
struct Tally {
    ready: Cell<usize>,
    answered: Cell<u64>,
    lost: Cell<u64>,
}

/// `bench l4-load --to ADDRESS --transport tcp|udp --clients N --window N --bytes N --seconds N`: says `open`, and then what it saw.
pub(crate) fn main(arguments: &[String]) -> Outcome {
    let valued = &["--to", "--transport", "--clients", "--window", "--bytes", "--seconds", "--driver"];
    let flags = Flags::parse(arguments, valued, &[])?;
    let (to, clients): (SocketAddr, usize) = (flags.need("--to")?, flags.need("--clients")?);
    let (window, bytes, seconds): (usize, usize, u64) =
        (flags.need("--window")?, flags.need("--bytes")?, flags.need("--seconds")?);
    let transport = flags.text("--transport").and_then(|name| name.parse().ok()).ok_or("--transport tcp|udp")?;
    let ring = own::ring(&flags)?;
    let seen = ring.block_on(async move {
        let tally = Rc::<Tally>::default();
        for _ in 0..clients {
            let tally = Rc::clone(&tally);
            ring::spawn(async move {
                let ended = match transport {
                    Transport::Tcp => talk(to, window, bytes, &tally).await,
                    Transport::Udp => exchange(to, window, bytes, &tally).await,
                };
                if let Err(error) = ended {
                    eprintln!("a client: {error}");
                }
            });
        }
        while tally.ready.get() < clients {
            ring::sleep(Duration::from_millis(5)).await;
        }
        println!("open");
        let (begun, answered, lost) = (ring::precise_now(), tally.answered.get(), tally.lost.get());
        ring::sleep(Duration::from_secs(seconds)).await;
        Seen {
            answered: tally.answered.get() - answered,
            lost: tally.lost.get() - lost,
            seconds: ring::precise_now().since(begun).as_secs_f64(),
        }
    });
    println!("{}", seen.to_json());
    Ok(())
}

impl Tally {
    fn count(&self, answered: u64, first: &mut bool) {
        self.answered.set(self.answered.get() + answered);
        if answered > 0 && std::mem::take(first) {
            self.ready.set(self.ready.get() + 1);
        }
    }
}

async fn talk(to: SocketAddr, window: usize, bytes: usize, tally: &Tally) -> io::Result<()> {
    let mut stream = Stream::connect(&Address::Inet(to)).await?;
    let (message, piece) = (vec![b'x'; bytes], 64 << 10);
    let (mut here, mut first) = (0, true);
    let say = |stream: &mut Stream| message.chunks(piece).for_each(|part| stream.send(Buf::copy_of(part)));
    (0..window).for_each(|_| say(&mut stream));
    loop {
        let Some(more) = stream.recv().await? else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        here += more.len();
        while here >= bytes {
            here -= bytes;
            tally.count(1, &mut first);
            say(&mut stream);
        }
    }
}

async fn exchange(to: SocketAddr, window: usize, bytes: usize, tally: &Tally) -> io::Result<()> {
    let options = UdpOptions { reuse_port: false, ..UdpOptions::default() };
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0).into(), &options)?;
    let message = vec![b'x'; bytes];
    let say = |count: usize| {
        for _ in 0..count {
            let _ = socket.send(&Transmit { to, from: None, ecn: 0, segment: None, bytes: &message });
        }
    };
    let (mut timer, mut first, mut heard) = (Timer::new(), true, ring::now());
    say(window);
    poll_fn(|cx| {
        loop {
            let mut came = 0;
            let received =
                socket.poll_receive(cx, &mut |received| came += received.bytes.len().div_ceil(received.stride));
            match received {
                Poll::Ready(Ok(_)) => {
                    heard = ring::now();
                    tally.count(came as u64, &mut first);
                    say(came.min(window));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                // A few that are missing leave a smaller window, and the other clients go on; where none is left, all are sent again.
                Poll::Pending if ring::now().since(heard) >= LOST_AFTER => {
                    tally.lost.set(tally.lost.get() + window as u64);
                    heard = ring::now();
                    say(window);
                }
                Poll::Pending => {
                    timer.set(ring::now() + LOST_AFTER);
                    if !timer.poll_expired() {
                        return Poll::Pending;
                    }
                }
            }
        }
    })
    .await
}
