//! `bench flood-clients`: a thread for each client, and blocking calls.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;
use xtask::Outcome;

use crate::flags::Flags;
use crate::load::Seen;

/// Who is not served by then was not served: a SYN is sent thrice in this time (RFC 6298 §2.1, §5.5).
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Clients that keep their connection, and those that do not.
const STANDING: usize = 16;
const NEWCOMERS: usize = 8;
/// What a client waits after an answer.
const PAUSE: Duration = Duration::from_millis(20);

/// `bench flood-clients --to ADDRESS --seconds N`: prints what both kinds saw.
pub(crate) fn main(arguments: &[String]) -> Outcome {
    let flags = Flags::parse(arguments, &["--to", "--seconds"], &[])?;
    let (to, seconds): (SocketAddr, u64) = (flags.need("--to")?, flags.need("--seconds")?);
    let until = Instant::now() + Duration::from_secs(seconds);
    let (standing, newcomers) = std::thread::scope(|scope| {
        let start = |keeps: bool| scope.spawn(move || work(to, until, keeps));
        let standing: Vec<_> = (0..STANDING).map(|_| start(true)).collect();
        let newcomers: Vec<_> = (0..NEWCOMERS).map(|_| start(false)).collect();
        let all = |threads: Vec<std::thread::ScopedJoinHandle<'_, Tally>>| {
            threads.into_iter().filter_map(|thread| thread.join().ok()).fold(Tally::default(), Tally::and)
        };
        (all(standing), all(newcomers))
    });
    let seen = |tally: Tally| Seen::of(tally.micros, tally.errors, seconds as f64).to_json();
    println!("{}", json!({"standing": seen(standing), "newcomers": seen(newcomers)}));
    Ok(())
}

#[derive(Default)]
struct Tally {
    micros: Vec<f64>,
    errors: u64,
}

impl Tally {
    fn and(mut self, other: Self) -> Self {
        self.micros.extend(other.micros);
        self.errors += other.errors;
        self
    }
}

/// One client, to the end of its time. A connection is not counted with the exchanges of who keeps it.
fn work(to: SocketAddr, until: Instant, keeps: bool) -> Tally {
    let mut tally = Tally::default();
    let mut kept = None;
    while Instant::now() < until {
        let begun = Instant::now();
        let reached = match kept.take() {
            Some(stream) => Ok((stream, begun)),
            None => connect(to, PATIENCE).map(|stream| (stream, if keeps { Instant::now() } else { begun })),
        };
        match reached.and_then(|(stream, begun)| ask(stream).map(|stream| (stream, begun))) {
            Ok((stream, begun)) => {
                tally.micros.push(begun.elapsed().as_secs_f64() * 1e6);
                kept = keeps.then_some(stream);
            }
            Err(_) => tally.errors += 1,
        }
        std::thread::sleep(PAUSE);
    }
    tally
}

pub(super) fn connect(to: SocketAddr, patience: Duration) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, patience)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    Ok(stream)
}

/// A GET of 100 bytes, which come with their head.
fn ask(mut stream: TcpStream) -> std::io::Result<TcpStream> {
    stream.write_all(b"GET /100 HTTP/1.1\r\nHost: flood.test\r\n\r\n")?;
    let (mut answer, mut here) = ([0; 2_048], 0);
    loop {
        let more = stream.read(&mut answer[here..])?;
        here += more;
        let head = answer[..here].windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        if more == 0 || !answer.starts_with(&b"HTTP/1.1 200"[..here.min(12)]) {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        if head.is_some_and(|head| here >= head + 100) {
            return Ok(stream);
        }
    }
}
