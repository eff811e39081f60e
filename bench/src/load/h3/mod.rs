//! `bench h3-load`: a closed loop over HTTP/3, one thread, a connection a task. Every answer is read for its status and the length of its body.
//!
//! QUIC is quinn's machine on our ring, with GSO and GRO where the kernel has them; HTTP/3 is what little of it a client needs. Each connection has
//! a port of its own, as a client has, so that nothing of two clients arrives joined.

pub(crate) mod link;
pub(crate) mod message;
mod steady;
mod talk;

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use xtask::Outcome;

use self::link::Client;
pub(crate) use self::steady::steadily;
use self::talk::{Asked, Tally};
use super::{Plan, Seen, own};
use crate::flags::Flags;
use crate::process::{myself, pinned_command, words};
use crate::scenario::{C64, Over};

/// How long requests that are under way when the time is over may take to be answered: a path that loses takes its time.
const GRACE: Duration = Duration::from_secs(15);

/// Runs `bench h3-load` as a process of its own and reads what it prints.
pub(crate) fn run(plan: &Plan, cpu: usize) -> Outcome<Seen> {
    told(plan, cpu).map(|(seen, _)| seen)
}

/// One request, which must be answered.
pub(crate) fn check(to: SocketAddr, trust: &Path, cpu: usize) -> Outcome {
    let plan = Plan {
        to,
        over: Over::H3,
        path: C64.path.to_owned(),
        connections: 1,
        streams: 1,
        seconds: 0,
        body: C64.body,
        close: true,
        browser: false,
        resumed: false,
        rate: None,
        trust: Some(trust.to_owned()),
        message: None,
    };
    match told(&plan, cpu)? {
        (seen, _) if seen.requests > 0 && seen.errors == 0 => Ok(()),
        (seen, why) => Err(format!("{} requests of {} failed: {why}", seen.errors, seen.requests + seen.errors)),
    }
}

/// What a run saw, and what was wrong with the first request that failed.
fn told(plan: &Plan, cpu: usize) -> Outcome<(Seen, String)> {
    let trust = plan.trust.as_ref().ok_or("HTTP/3 without a certificate to expect")?;
    let mut line = words([&myself()?, &"h3-load", &"--to", &plan.to.to_string(), &"--path", &plan.path]);
    line.extend(words([&"--connections", &plan.connections.to_string(), &"--streams", &plan.streams.to_string()]));
    line.extend(words([&"--seconds", &plan.seconds.to_string(), &"--body", &plan.body.to_string(), &"--trust", trust]));
    if plan.close {
        line.extend(words([&"--close"]));
    }
    let output = pinned_command(&cpu.into(), &line)?.output().map_err(|error| format!("bench h3-load: {error}"))?;
    let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match serde_json::from_slice(&output.stdout).ok().and_then(|value| Seen::from_json(&value)) {
        Some(seen) => Ok((seen, error)),
        None => Err(format!("bench h3-load told no result ({}): {error}", output.status)),
    }
}

/// `bench h3-load --to ADDRESS --path PATH --body BYTES --connections N --streams N --seconds N --trust FILE [--close] [--driver uring|epoll]`:
/// prints what it saw, and on standard error what was wrong with the first request that failed.
pub(crate) fn main(arguments: &[String]) -> Outcome {
    let valued = ["--to", "--path", "--body", "--connections", "--streams", "--seconds", "--trust", "--driver"];
    let flags = Flags::parse(arguments, &valued, &["--close"])?;
    let to: SocketAddr = flags.need("--to")?;
    let (path, trust): (String, String) = (flags.need("--path")?, flags.need("--trust")?);
    let asked = Asked {
        client: Client::new(to, Path::new(&trust))?,
        request: message::request(&to.to_string(), &path),
        body: flags.need("--body")?,
        streams: flags.need("--streams")?,
        close: flags.has("--close"),
    };
    let (connections, seconds) = (flags.need("--connections")?, Duration::from_secs(flags.need("--seconds")?));
    let tally = own::ring(&flags)?.block_on(all(asked, connections, seconds));
    if let Some(why) = &tally.why {
        eprintln!("{why}");
    }
    println!("{}", Seen::of(tally.times, tally.errors, tally.seconds).to_json());
    Ok(())
}

/// All connections, until the time is over and what is under way has been answered.
async fn all(asked: Asked, connections: usize, span: Duration) -> Tally {
    let (asked, tally) = (Rc::new(asked), Rc::new(RefCell::new(Tally::default())));
    let (main, begun) = (ring::current_task(), ring::precise_now());
    let until = begun + span;
    tally.borrow_mut().busy = connections;
    for _ in 0..connections {
        let (asked, tally) = (Rc::clone(&asked), Rc::clone(&tally));
        ring::spawn(async move {
            talk::until(until, &asked, &tally).await;
            tally.borrow_mut().busy -= 1;
            ring::wake(main);
        });
    }
    let idle = poll_fn(|_| if tally.borrow().busy == 0 { Poll::Ready(()) } else { Poll::Pending });
    let ended = ring::until(until + GRACE, idle).await;
    let mut tally = tally.take();
    tally.seconds = ring::precise_now().since(begun).as_secs_f64();
    if ended.is_none() {
        tally.failed("no answer in time");
    }
    tally
}
