//! What it costs a request that workers share what they know of endpoints (`upstream::EndpointShared`).
//!
//! `cargo xtask bench sharing [µs]`, or `cargo run --release -p penstock --example sharing_cost`. Two threads, a CPU each, choose endpoints by
//! `adaptive` and record how their tries went, as a worker does once a request, and do nothing else: each finds the lines that it reads changed by
//! the other, as it does under load. Beside them the same two threads with endpoints of their own, which is what silos would be; and as two of
//! eight workers, of which six are silent.
//!
//! Rounds take turns, and one in which either thread was not on its CPU nearly all the time does not count: where others work on the machine, `chrt -f
//! 10` before the command lets them count. Told are medians, and the difference as a
//! share of the CPU time that a request takes in all: the number given, from `bench h1`.

#![forbid(unsafe_code)]

use std::hint::spin_loop;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use penstock::snapshot::{self, Pool, PoolId, Snapshot};
use penstock::telemetry::Counters;
use penstock::upstream::{Affinity, Choice, Cluster, Endpoint, Members, Roster, Tried};
use policy::{Now, Outcome};

const ENDPOINTS: usize = 5;
const ROUNDS: usize = 400;
/// Requests of a round, and how many of them a worker has under way at a time.
const REQUESTS: usize = 10_000;
const UNDER_WAY: usize = 32;
/// CPU time of a request with 64 connections, µs: docs/perf/2026-11-23-http1.md, the least of its rounds.
const REQUEST_US: f64 = 8.3;
/// Of its time a thread was on its CPU, in a round that counts.
const PRESENT: f64 = 0.97;

/// Whose endpoints they are.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    workers: usize,
    together: bool,
}

const KINDS: [Kind; 3] = [
    Kind { name: "each its own", workers: 1, together: false },
    Kind { name: "two workers", workers: 2, together: true },
    Kind { name: "two of eight", workers: 8, together: true },
];

fn main() {
    let request_us = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(REQUEST_US);
    let snapshot = snapshot();
    let mut seen = [const { Vec::new() }; KINDS.len()];
    for _ in 0..ROUNDS {
        for (kind, seen) in KINDS.iter().zip(&mut seen) {
            seen.extend(round(&snapshot, *kind));
        }
    }
    println!("choosing one of {ENDPOINTS} endpoints and recording what became of it, ns of CPU time a request, median");
    let medians = seen.map(|mut seen| {
        seen.sort_by(f64::total_cmp);
        (seen.get(seen.len() / 2).copied().unwrap_or(f64::NAN), seen.len())
    });
    let alone = medians[0].0;
    for (Kind { name, .. }, (median, rounds)) in KINDS.iter().zip(medians) {
        let more = median - alone;
        let share = more / (10.0 * request_us);
        println!(
            "  {name:<14} {median:>7.1}   +{more:>6.1} = {share:>5.2} % of {request_us} µs   ({rounds} of {ROUNDS} rounds)"
        );
    }
}

fn snapshot() -> Snapshot {
    let endpoints: Vec<String> = (1..=ENDPOINTS).map(|number| format!("\"10.0.0.{number}:80\"")).collect();
    let text = format!(
        "[[listen]]\nname = \"l\"\naddr = \":1\"\n[[pool]]\nname = \"p\"\nendpoints = [{}]\n",
        endpoints.join(", ")
    );
    match snapshot::read("sharing", &text) {
        Ok(compiled) => compiled.snapshot,
        Err(report) => panic!("{}", report.render()),
    }
}

/// CPU time of a request, ns, the mean of both threads; `None` when one of them was sent away.
fn round(snapshot: &Snapshot, kind: Kind) -> Option<f64> {
    let members = || Roster::new(snapshot, kind.workers, Now::ZERO).members(PoolId(0));
    let first = members();
    let second = if kind.together { first.clone() } else { members() };
    let here = AtomicUsize::new(0);
    let took: Vec<_> = std::thread::scope(|scope| {
        let start = |(cpu, members): (usize, Members)| {
            let (here, worker) = (&here, if kind.together { cpu } else { 0 });
            scope.spawn(move || work(&snapshot.pools[0], &members, (worker, kind.workers), cpu, here))
        };
        let threads = [(0, first), (1, second)].map(start);
        threads.into_iter().map(|thread| thread.join().expect("it only counts")).collect()
    });
    let present = |(cpu, wall): &(Duration, Duration)| cpu.as_secs_f64() >= PRESENT * wall.as_secs_f64();
    let sum: f64 = took.iter().map(|(cpu, _)| cpu.as_nanos() as f64).sum();
    took.iter().all(present).then_some(sum / (took.len() * REQUESTS) as f64)
}

/// A worker's choices: CPU time and time.
fn work(
    pool: &Pool,
    members: &Members,
    (worker, workers): (usize, usize),
    cpu: usize,
    here: &AtomicUsize,
) -> (Duration, Duration) {
    ring::pin_to(cpu).expect("there are two CPUs");
    let cluster = Cluster::new(pool, None, members, (worker, workers), cpu as u64 + 1);
    let (counters, affinity, tried) = (Counters::default(), Affinity::default(), Tried::default());
    let choice = Choice { tried: &tried, affinity: &affinity, repeatable: true, once: false };
    let answered = Outcome::answered(Duration::from_millis(1), 200);
    let mut under_way: Vec<Option<Rc<Endpoint>>> = vec![None; UNDER_WAY];
    here.fetch_add(1, Ordering::SeqCst);
    while here.load(Ordering::SeqCst) < 2 {
        spin_loop();
    }
    let (begun, before) = (ring::monotonic(), cpu_time());
    for number in 0..REQUESTS {
        let now = Now::from_nanos(1_000_000_000 + number as u64 * 10_000);
        let place = &mut under_way[number % UNDER_WAY];
        if let Some(endpoint) = place.take() {
            cluster.record(&endpoint, now, &answered);
        }
        *place = cluster.pick(&choice, now, &counters).ok();
    }
    (cpu_time() - before, ring::monotonic().since(begun))
}

/// This thread's time on a CPU until now. What `/proc` tells of it is as of the last tick, which is longer ago than a round takes.
fn cpu_time() -> Duration {
    Duration::from_nanos(ring::thread_cpu_nanos())
}
