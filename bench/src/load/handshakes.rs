//! `bench handshakes`: a connection per request over TLS, with full handshakes or resumed ones, and nothing else.
//!
//! Threads that block, each with a session of its own: what the client costs is not measured. A handshake of the other kind is an error.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::{ClientConfig, HandshakeKind};
use xtask::Outcome;

use super::{Plan, Seen};
use crate::flags::Flags;
use crate::process::{self, myself, pinned_command, words};
use crate::tls;

/// Runs `bench handshakes` as a process of its own and reads what it prints.
pub(crate) fn run(plan: &Plan, cpu: usize) -> Outcome<Seen> {
    let trust = plan.trust.as_ref().ok_or("handshakes without a certificate to expect")?;
    let mut line = words([&myself()?, &"handshakes", &"--to", &plan.to.to_string(), &"--path", &plan.path]);
    line.extend(words([&"--connections", &plan.connections.to_string(), &"--seconds", &plan.seconds.to_string()]));
    line.extend(words([&"--trust", trust]));
    if plan.resumed {
        line.extend(words([&"--resume"]));
    }
    let output = pinned_command(&cpu.into(), &line)?.output().map_err(|error| format!("bench handshakes: {error}"))?;
    serde_json::from_slice(&output.stdout).ok().and_then(|value| Seen::from_json(&value)).ok_or_else(|| {
        let error = String::from_utf8_lossy(&output.stderr);
        format!("bench handshakes told no result ({}): {}", output.status, error.trim())
    })
}

/// `bench handshakes --to ADDRESS --path PATH --connections N --seconds N --trust FILE [--resume]`.
pub(crate) fn main(arguments: &[String]) -> Outcome {
    let flags = Flags::parse(arguments, &["--to", "--path", "--connections", "--seconds", "--trust"], &["--resume"])?;
    let (to, connections): (SocketAddr, usize) = (flags.need("--to")?, flags.need("--connections")?);
    let (path, trust): (String, String) = (flags.need("--path")?, flags.need("--trust")?);
    let wanted = if flags.has("--resume") { HandshakeKind::Resumed } else { HandshakeKind::Full };
    let begun = Instant::now();
    let until = begun + Duration::from_secs(flags.need("--seconds")?);
    let one = || Loop::new(to, &path, wanted, Path::new(&trust)).map(|client| client.until(until));
    let seen: Vec<Outcome<(Vec<f64>, u64)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..connections).map(|_| scope.spawn(one)).collect();
        let ended = |_| Err("a thread panicked".to_owned());
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(ended)).collect()
    });
    let (mut times, mut errors) = (Vec::new(), 0);
    for one in seen {
        let (more, failed) = one?;
        times.extend(more);
        errors += failed;
    }
    println!("{}", Seen::of(times, errors, begun.elapsed().as_secs_f64()).to_json());
    Ok(())
}

/// What a thread does, over and over.
struct Loop<'a> {
    to: SocketAddr,
    path: &'a str,
    wanted: HandshakeKind,
    config: Arc<ClientConfig>,
}

impl<'a> Loop<'a> {
    fn new(to: SocketAddr, path: &'a str, wanted: HandshakeKind, trust: &Path) -> Outcome<Self> {
        let mut config = tls::client(trust)?;
        if wanted == HandshakeKind::Full {
            config.resumption = Resumption::disabled();
        }
        let client = Self { to, path, wanted, config: Arc::new(config) };
        if wanted == HandshakeKind::Resumed {
            // The first one has nothing to resume.
            client.once().map_err(|error| error.to_string())?;
        }
        Ok(client)
    }

    /// Microseconds of each, and how many failed.
    fn until(&self, until: Instant) -> (Vec<f64>, u64) {
        let (mut times, mut errors) = (Vec::new(), 0);
        loop {
            let begun = Instant::now();
            if begun >= until {
                return (times, errors);
            }
            match self.once() {
                Ok(kind) if kind == self.wanted => times.push(begun.elapsed().as_secs_f64() * 1e6),
                _ => errors += 1,
            }
        }
    }

    fn once(&self) -> std::io::Result<HandshakeKind> {
        let stream = tls::connect(&self.config, self.to)?;
        let kind = stream.conn.handshake_kind();
        let response = process::get_over(stream, self.to, self.path)?;
        let fine = response.starts_with("HTTP/1.1 200");
        kind.filter(|_| fine).ok_or_else(|| std::io::Error::other("no answer"))
    }
}
