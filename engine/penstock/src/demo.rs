//! `penstock demo`: origins, the engine and a bounded load in one process, and a live table of what happens.
//!
//! Three origins: a fast one, a slow one, and one that resets every hundredth connection instead of answering. The engine
//! must keep the slow one's share small and the resets away from the clients.

use std::cell::RefCell;
use std::io::{self, IsTerminal, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use ring::{Address, Options, Ring, Signals};
use traffic::{Extent, Failure, Live, Load, Mode, Origin, Report, Snapshot as Seen};

use crate::admin;
use crate::engine::Engine;
use crate::snapshot::{self, Snapshot};
use crate::telemetry::{Counters, Summary};
use crate::upstream::EndpointSums;

/// What `demo` was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demo {
    /// `None`: until Ctrl-C.
    pub run_for: Option<Duration>,
    /// Workers; `None`: one for each allowed CPU.
    pub cores: Option<usize>,
}

/// Requests a second: enough to fill the table, and a small part of what one core can do.
const RATE: f64 = 2_000.0;
const CONNECTIONS: usize = 32;

/// Runs the demonstration.
#[must_use]
pub fn run(demo: &Demo) -> ExitCode {
    match demonstrate(demo) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("penstock: demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn demonstrate(demo: &Demo) -> io::Result<bool> {
    let signals = Signals::block(&[2, 15])?;
    // The load ends first: an origin that is gone before it would be a failure that means nothing.
    let (stop, stop_origins) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (origins, addresses) = start_origins(Arc::clone(&stop_origins))?;
    let identity = Identity::make()?;
    let (front, secure, admin) = (free_port()?, free_port()?, free_port()?);
    let snapshot = configure((front, secure, admin), &identity, &addresses, demo.cores)?;
    let engine = Engine::start(&snapshot)?;
    introduce(&engine, (front, secure, admin));
    let (load, seen) = start_load(front, Arc::clone(&stop))?;
    let ring = Ring::new(Options::default())?;
    let run_for = demo.run_for;
    let shared = Rc::new(RefCell::new(engine));
    ring.block_on(show(Rc::clone(&shared), signals, seen, run_for))?;
    stop.store(true, Ordering::Relaxed);
    let report = load.join().map_err(|_| io::Error::other("the load's thread panicked"))?;
    drop(ring);
    let ended_well = conclude(&shared.borrow(), &report);
    drop(shared);
    stop_origins.store(true, Ordering::Relaxed);
    origins.join().map_err(|_| io::Error::other("the origins' thread panicked"))?;
    Ok(ended_well)
}

/// The configuration that the demonstration stands for.
fn configure(
    (front, secure, admin): (u16, u16, u16),
    identity: &Identity,
    origins: &[SocketAddr],
    workers: Option<usize>,
) -> io::Result<Arc<Snapshot>> {
    let mut cpus = ring::allowed_cpus()?;
    cpus.truncate(workers.unwrap_or(usize::MAX).max(1));
    let endpoints: Vec<String> = origins.iter().map(|origin| format!("\"{origin}\"")).collect();
    let text = format!(
        "[engine]\ncores = \"{}\"\nadmin = \"127.0.0.1:{admin}\"\n\n[[listen]]\nname = \"demo\"\naddr = \"127.0.0.1:{front}\"\n\n\
         [[listen]]\nname = \"secure\"\naddr = \"127.0.0.1:{secure}\"\ntls = {{ cert = {:?}, key = {:?} }}\n\n[[pool]]\nname = \"demo\"\nendpoints = [{}]\n",
        snapshot::cpu_list(&cpus),
        identity.folder.join(CERTIFICATE),
        identity.folder.join(KEY),
        endpoints.join(", ")
    );
    let compiled = snapshot::read_with("demo", &text, &|path| std::fs::read(path))
        .map_err(|report| io::Error::other(report.render()))?;
    Ok(Arc::new(compiled.snapshot))
}

/// A certificate that nobody has signed, for as long as the demonstration lasts.
struct Identity {
    folder: PathBuf,
}

const CERTIFICATE: &str = "demo.pem";
const KEY: &str = "demo.key";

impl Identity {
    fn make() -> io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("penstock-demo-{}", std::process::id()));
        // Nobody else's: the key is in it.
        std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let identity = Self { folder };
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
        std::fs::write(identity.folder.join(CERTIFICATE), made.cert.pem())?;
        std::fs::write(identity.folder.join(KEY), made.signing_key.serialize_pem())?;
        Ok(identity)
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn start_origins(stop: Arc<AtomicBool>) -> io::Result<(JoinHandle<()>, Vec<SocketAddr>)> {
    let (ready, addresses) = channel();
    let thread = std::thread::Builder::new().name("demo-origins".into()).spawn(move || {
        let Ok(ring) = Ring::new(Options::default()) else { return };
        ring.block_on(async move {
            let listen = || Address::Inet(SocketAddr::from(([127, 0, 0, 1], 0)));
            let mut fast = Origin::new(listen());
            let mut slow = Origin::new(listen());
            let mut flaky = Origin::new(listen());
            fast.name = "fast".into();
            (slow.name, slow.delay, slow.jitter) =
                ("slow".into(), Some(Duration::from_millis(20)), Duration::from_millis(10));
            (flaky.name, flaky.fail_every, flaky.failure) = ("flaky".into(), Some(100), Failure::Reset);
            for origin in [fast, slow, flaky] {
                let Ok((address, serving)) = origin.bind() else { return };
                let _ = ready.send(address);
                ring::spawn(async move { drop(serving.await) });
            }
            drop(ready);
            while !stop.load(Ordering::Relaxed) {
                ring::sleep(Duration::from_millis(50)).await;
            }
        });
    })?;
    let addresses: Vec<SocketAddr> = addresses.iter().filter_map(|address: Address| address.inet()).collect();
    if addresses.len() == 3 { Ok((thread, addresses)) } else { Err(io::Error::other("the origins could not start")) }
}

fn start_load(front: u16, stop: Arc<AtomicBool>) -> io::Result<(JoinHandle<Option<Report>>, Receiver<Seen>)> {
    let (sender, seen) = channel();
    let thread = std::thread::Builder::new().name("demo-load".into());
    Ok((thread.spawn(move || put_load(front, &stop, sender))?, seen))
}

fn put_load(front: u16, stop: &Arc<AtomicBool>, sender: Sender<Seen>) -> Option<Report> {
    let ring = Ring::new(Options::default()).ok()?;
    let stop = Arc::clone(stop);
    Some(ring.block_on(async move {
        let mut load = Load::new(Address::Inet(SocketAddr::from(([127, 0, 0, 1], front))));
        load.connections = CONNECTIONS;
        load.mode = Mode::Open { rate: RATE };
        load.extent = Extent::Time(Duration::from_secs(365 * 86_400));
        let live = Live::new();
        let watch = live.clone();
        ring::spawn(async move {
            let mut since = 0;
            while !stop.load(Ordering::Relaxed) {
                ring::sleep(Duration::from_millis(100)).await;
                since += 1;
                if since % 10 == 0 && sender.send(watch.snapshot()).is_err() {
                    break;
                }
            }
            watch.stop();
        });
        load.run_live(&live).await
    }))
}

fn introduce(engine: &Engine, (front, secure, admin): (u16, u16, u16)) {
    for line in engine.lines() {
        println!("{line}");
    }
    println!("\n  try:  curl -v http://127.0.0.1:{front}/16k");
    println!(
        "        curl -kv https://localhost:{secure}/16k      (TLS and HTTP/2, and HTTP/3 with --http3-only; nobody has signed the certificate, hence -k)"
    );
    println!("        curl -v --http2-prior-knowledge http://127.0.0.1:{front}/16k");
    println!("        curl http://127.0.0.1:{admin}/metrics        (or: penstock status --admin 127.0.0.1:{admin})");
    println!(
        "  load: {RATE} requests/s over {CONNECTIONS} connections to three origins: fast, slow (20-30 ms), flaky (resets 1 %)\n"
    );
}

/// Prints a table each second until it is time to end; then drains the engine.
async fn show(
    engine: Rc<RefCell<Engine>>,
    mut signals: Signals,
    seen: Receiver<Seen>,
    run_for: Option<Duration>,
) -> io::Result<()> {
    let snapshot = Arc::clone(engine.borrow().snapshot());
    admin::serve(&snapshot.engine.admin, &engine, None)?;
    let end = run_for.map(|span| ring::now() + span);
    let live = io::stdout().is_terminal();
    let mut printed = 0;
    loop {
        let tick = ring::now() + Duration::from_millis(100);
        let until = end.map_or(tick, |end| end.min(tick));
        if ring::until(until, signals.next()).await.is_some() || end.is_some_and(|end| ring::now() >= end) {
            break;
        }
        if let Some(seen) = seen.try_iter().last() {
            engine.borrow_mut().ask_to_publish();
            ring::sleep(Duration::from_millis(5)).await;
            let table = table(&engine.borrow(), &seen);
            if live && printed > 0 {
                print!("\x1b[{printed}A\x1b[J");
            }
            print!("{table}");
            if !live {
                println!();
            }
            io::stdout().flush()?;
            printed = table.lines().count();
        }
    }
    // The load is still on: what it has sent will be answered.
    drop(seen);
    engine.borrow_mut().ask_to_publish();
    ring::sleep(Duration::from_millis(20)).await;
    Ok(())
}

fn table(engine: &Engine, seen: &Seen) -> String {
    let sum = |value: fn(&Counters) -> u64| engine.cells().iter().map(|cells| value(&cells.counters)).sum::<u64>();
    let total = sum(|counters| counters.requests_total.get()).max(1);
    let shares: Vec<String> = engine
        .cpus()
        .iter()
        .zip(engine.cells())
        .map(|(cpu, cells)| format!("CPU {cpu} {:.0} %", percent(cells.counters.requests_total.get(), total)))
        .collect();
    let mut text = format!(
        "{:>9} {:>9} {:>9} {:>9} {:>7} {:>7} {:>8}   {}\n{:>9.0} {:>9} {:>9} {:>9} {:>7} {:>6.1}% {:>8}   {}\n",
        "req/s",
        "p50",
        "p99",
        "p99.9",
        "errors",
        "reuse",
        "retries",
        "shares",
        seen.rate,
        shown(seen.p50),
        shown(seen.p99),
        shown(seen.p999),
        seen.errors.total(),
        reuse(engine),
        sum(|counters| counters.retries_total.get()),
        shares.join(", "),
    );
    for (name, address, sums) in endpoints(engine) {
        text += &format!(
            "    {name:<6} {address:<21} {:>8} requests ({:>4.1} %)  ewma {:>8}  failures {:>5}  breaker {}\n",
            sums.requests,
            percent(sums.requests, total),
            shown(Duration::from_nanos(sums.latency_nanos)),
            sums.failures,
            breaker(&sums),
        );
    }
    text
}

fn endpoints(engine: &Engine) -> impl Iterator<Item = (&'static str, &str, EndpointSums)> {
    let names = ["fast", "slow", "flaky"];
    let members = engine.roster().pools().next().into_iter().flat_map(|members| members.iter());
    names.into_iter().zip(members).map(|(name, member)| (name, &*member.name, member.shared.sums()))
}

fn breaker(sums: &EndpointSums) -> &'static str {
    match (sums.open, sums.half_open) {
        (0, 0) => "closed",
        (0, _) => "half-open",
        _ => "open",
    }
}

fn reuse(engine: &Engine) -> f64 {
    let sum = |value: fn(&Counters) -> u64| engine.cells().iter().map(|cells| value(&cells.counters)).sum::<u64>();
    let reused = sum(|counters| counters.upstream_reused_total.get());
    percent(reused, (reused + sum(|counters| counters.upstream_connects_total.get())).max(1))
}

fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole as f64
}

fn shown(span: Duration) -> String {
    match span.as_micros() {
        micros @ 0..10_000 => format!("{micros} µs"),
        micros => format!("{:.1} ms", micros as f64 / 1_000.0),
    }
}

/// Prints the summary; false when something went wrong that should not have.
fn conclude(engine: &Engine, report: &Option<Report>) -> bool {
    let Some(report) = report else {
        eprintln!("penstock: demo: the load could not start");
        return false;
    };
    let mut latency = Summary::default();
    engine.cells().iter().for_each(|cells| latency.add(&cells.latency));
    let sum = |value: fn(&Counters) -> u64| engine.cells().iter().map(|cells| value(&cells.counters)).sum::<u64>();
    let requests = sum(|counters| counters.requests_total.get());
    println!("\nsummary");
    println!("  client: {} answered, {} failed, {:.0} req/s", report.requests, report.errors.total(), report.rate());
    if report.errors.total() > 0 {
        println!("          {:?}", report.errors);
    }
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        println!(
            "  {name:<6} client {:>9}   engine {:>9}",
            shown(report.quantile(share)),
            shown(Duration::from_nanos(latency.quantile(share)))
        );
    }
    println!(
        "  engine: {requests} requests, {} retries hid {} failed tries, {:.2} % of tries on reused connections",
        sum(|counters| counters.retries_total.get()),
        endpoints(engine).map(|(_, _, sums)| sums.failures).sum::<u64>(),
        reuse(engine),
    );
    println!(
        "  ring:   {:.2} enters, {:.2} sends, {:.2} allocations a request",
        sum(|counters| counters.ring_enters_total.get()) as f64 / requests.max(1) as f64,
        sum(|counters| counters.ring_sends_total.get()) as f64 / requests.max(1) as f64,
        sum(|counters| counters.allocations_total.get()) as f64 / requests.max(1) as f64,
    );
    report.errors.total() == 0 && report.requests > 0
}
