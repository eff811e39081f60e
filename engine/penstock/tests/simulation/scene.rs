//! A scene: an engine of one worker, its clients and origins; played to the end, and swept afterwards.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use penstock::exchange::Splicing;
use penstock::limits;
use penstock::snapshot::{self, Diff, EndpointLimits, PoolId, Snapshot};
use penstock::telemetry::WorkerCells;
use penstock::tls::Originations;
use penstock::upstream::{Finding, Found, Members, Roster};
use penstock::worker::{Answer, Draft, Generation, Message, Plan, Worker};
use ring::sim::{Faults, Script, World};
use ring::{Address, DriverChoice, Options, Ring, Sender};

use crate::ledger::Ledger;
use crate::websocket::Town;
use crate::{client, datagrams, h2_client, h2_origin, h3_client, origin, tunnel, websocket};

pub(crate) const WEB: &str = "10.0.0.1:80";
pub(crate) const RAW: &str = "10.0.0.1:90";
pub(crate) const DATAGRAMS: &str = "10.0.0.1:53";
pub(crate) const DATAGRAMS_ORIGIN: &str = "10.3.0.9:53";
pub(crate) const QUIC: &str = "10.0.0.1:443";

const CONFIGURATION: &str = r#"
[[listen]]
name = "web"
addr = "10.0.0.1:80"

[[listen]]
name = "raw"
addr = "10.0.0.1:90"
protocol = "tcp"
pool = "raw"

[[pool]]
name = "app"
endpoints = ["10.2.0.1:8000", "10.2.0.2:8000", "10.2.0.3:8000"]
timeout = { head = "20s" }

[[pool]]
name = "raw"
endpoints = ["10.3.0.1:7000", "10.3.0.2:7000"]

[[route]]
pool = "app"
"#;

/// For clients of HTTP/3. Its files only have to be there: what they would hold is made in the scene.
const QUIC_LISTENER: &str = r#"
[[listen]]
name = "quic"
addr = "10.0.0.1:443"
tls = { cert = "certificate.pem", key = "key.pem" }
"#;

/// For datagrams, which keep to a pace.
const DATAGRAMS_LISTENER: &str = r#"
[[listen]]
name = "datagrams"
addr = "10.0.0.1:53"
protocol = "udp"
pool = "datagrams"
class = "slow"

[[pool]]
name = "datagrams"
endpoints = ["10.3.0.9:53"]
"#;

/// For WebSockets.
const SOCKETS: &str = r#"
[[pool]]
name = "socket"
endpoints = ["10.4.0.1:9000", "10.4.0.2:9000"]
timeout = { head = "20s" }

[[route]]
path = "/socket"
pool = "socket"
"#;

/// For the pool of a scene that hedges: as many second copies as there can be.
const HEDGE: &str = "timeout = { head = \"20s\" }\nhedge = { after = \"20ms\", budget = \"100%\" }";

/// A class whose bytes take their time, and whose connections wait for one another.
const SLOW: &str = "[classes.slow]\nbandwidth = \"200kB/s\"\nrate = \"20/s\"\nper_client.bandwidth = \"150kB/s\"\n";

/// Comes and goes where configurations change.
const PASSING_LISTENER: &str = "[[listen]]\nname = \"passing\"\naddr = \"10.0.0.1:81\"\n";

/// The same origins, as two pools that the route chooses from.
const CHOOSING: &str = r#"
[[pool]]
name = "spare"
endpoints = ["10.2.0.3:8000"]
timeout = { head = "20s" }

[[route]]
candidates = ["app", "spare cost=1.5"]
adaptive = { hold = "50ms", ramp = "100ms", explore = "20%" }
"#;

pub(crate) struct Scene {
    pub(crate) faults: Faults,
    pub(crate) web: bool,
    pub(crate) tunnels: bool,
    /// They keep to a pace.
    pub(crate) shaped: bool,
    /// There is one, and it carries all that it may.
    pub(crate) steady: bool,
    /// There is a door for datagrams, which keep to a pace.
    pub(crate) datagrams: bool,
    /// Requests become WebSockets.
    pub(crate) websockets: bool,
    pub(crate) rude_clients: bool,
    pub(crate) rude_origins: bool,
    /// Endpoints come and go all the time.
    pub(crate) moves: bool,
    /// New configurations hold all the time: of one the pools are met in another way, one has another listener.
    pub(crate) reloads: bool,
    /// What is slow is sent to another endpoint too.
    pub(crate) hedges: bool,
    /// The route chooses between two pools.
    pub(crate) candidates: bool,
    /// Most clients speak HTTP/2.
    pub(crate) h2_clients: bool,
    /// Most clients speak HTTP/3.
    pub(crate) h3_clients: bool,
    /// Those move to other addresses while they are served.
    pub(crate) wandering: bool,
    /// The endpoints speak HTTP/2.
    pub(crate) h2_origins: bool,
    /// The worker has nearly as many requests under way as it may, of people who are not in the scene.
    pub(crate) crowded: bool,
    /// The engine is told to end after this time, while everybody is at work.
    pub(crate) drain: Option<Duration>,
}

impl Default for Scene {
    fn default() -> Self {
        Self {
            faults: Faults::none(),
            web: true,
            tunnels: false,
            shaped: false,
            steady: false,
            datagrams: false,
            websockets: false,
            rude_clients: false,
            rude_origins: false,
            moves: false,
            reloads: false,
            hedges: false,
            candidates: false,
            h2_clients: false,
            h3_clients: false,
            wandering: false,
            h2_origins: false,
            crowded: false,
            drain: None,
        }
    }
}

/// What a well-behaved client must put up with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strict {
    /// Answers that are our own, and those that origins broke off.
    pub(crate) may_refuse: bool,
    /// Connections that break.
    pub(crate) may_break: bool,
    /// Datagrams are lost, so that a handshake may take too long.
    pub(crate) may_fail: bool,
}

pub(crate) fn address(text: &str) -> Address {
    Address::Inet(text.parse::<SocketAddr>().expect("written here"))
}

/// One of three configurations that serve the same.
fn snapshot(scene: &Scene, variant: usize) -> Arc<Snapshot> {
    static SNAPSHOTS: [OnceLock<Arc<Snapshot>>; 384] = [const { OnceLock::new() }; 384];
    let compile = || {
        let mut text = CONFIGURATION.to_owned();
        if scene.candidates {
            text = text.replace(", \"10.2.0.3:8000\"", "").replace("[[route]]\npool = \"app\"\n", CHOOSING);
        }
        if scene.hedges {
            text = text.replacen("timeout = { head = \"20s\" }", HEDGE, 1);
        }
        if scene.websockets {
            text.push_str(SOCKETS);
        }
        if scene.h2_origins {
            text = text.replace("name = \"socket\"\n", "name = \"socket\"\nprotocol = \"h2\"\n");
            text = text.replace("name = \"app\"\n", "name = \"app\"\nprotocol = \"h2\"\n");
            text = text.replace("name = \"spare\"\n", "name = \"spare\"\nprotocol = \"h2\"\n");
        }
        if scene.shaped {
            text = text.replace("pool = \"raw\"\n", "pool = \"raw\"\nclass = \"slow\"\n") + SLOW;
        }
        if scene.h3_clients {
            text.push_str(QUIC_LISTENER);
        }
        if scene.datagrams {
            text.push_str(DATAGRAMS_LISTENER);
        }
        match variant {
            1 => text = text.replace("name = \"app\"\n", "name = \"app\"\nreuse.idle = \"40s\"\n"),
            2 => text.insert_str(0, PASSING_LISTENER),
            _ => {}
        }
        match snapshot::read_with("simulation", &text, &|_| Ok(Vec::new())) {
            Ok(compiled) => Arc::new(compiled.snapshot),
            Err(report) => panic!("{}", report.render()),
        }
    };
    let Scene { hedges, candidates, h2_origins, h3_clients, shaped, datagrams, websockets, .. } = *scene;
    let kinds = [hedges, candidates, h2_origins, h3_clients, shaped, datagrams, websockets];
    let which = kinds.into_iter().enumerate().map(|(at, kind)| usize::from(kind) << at).sum::<usize>();
    Arc::clone(SNAPSHOTS[variant * 128 + which].get_or_init(compile))
}

/// Tunnels of all scenes so far, and how many bytes of theirs were spliced.
pub(crate) fn spliced() -> (u64, u64) {
    (TUNNELS.load(Ordering::Relaxed), SPLICED.load(Ordering::Relaxed))
}

/// Requests of all crowded scenes so far, and how many were refused for that.
pub(crate) fn refused() -> (u64, u64) {
    (CROWDED.load(Ordering::Relaxed), REFUSED.load(Ordering::Relaxed))
}

/// Requests that a crowded worker has room for.
const ROOM: u64 = 2;

static CROWDED: AtomicU64 = AtomicU64::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// Scenes so far whose configuration changes, and configurations that were adopted in them.
pub(crate) fn adopted() -> (u64, u64) {
    (CHANGING.load(Ordering::Relaxed), ADOPTED.load(Ordering::Relaxed))
}

static CHANGING: AtomicU64 = AtomicU64::new(0);
static ADOPTED: AtomicU64 = AtomicU64::new(0);
static TUNNELS: AtomicU64 = AtomicU64::new(0);
static SPLICED: AtomicU64 = AtomicU64::new(0);

/// Plays a scene and sweeps up behind it.
///
/// # Errors
/// What was left behind. What goes wrong before panics in the script that sees it.
pub(crate) fn play(seed: u64, scene: &Scene) -> Result<(), String> {
    let world = World::new(seed, scene.faults.clone());
    world.limit(Duration::from_secs(48 * 3600));
    // Narrow pipes carry less, in about the same number of events.
    let size_max = if scene.faults.buffer.0 < 2_048 { 12_000 } else { 200_000 };
    let ledger = Ledger::new(seed, size_max, scene.hedges);
    let clients = people(&world, scene, &ledger, size_max);
    let ring = Ring::new(Options { driver: DriverChoice::Sim(world.node()), ..Options::default() })
        .map_err(|error| error.to_string())?;
    let snapshot = snapshot(scene, 0);
    let cells: Arc<WorkerCells> = Arc::default();
    let others = if scene.crowded { limits::EXCHANGES_MAX - ROOM } else { 0 };
    cells.counters.requests_open.add(others);
    let roster = Roster::new(&snapshot, 1, policy::Now::ZERO);
    let tls = snapshot.listeners.iter().map(|one| one.tls.as_ref().map(|_| h3_client::server())).collect();
    let members = roster.pools().cloned().collect();
    let generation = Arc::new(Generation::first(&snapshot, 1, members, tls, Originations::default()));
    let plan = Plan {
        generation: Arc::clone(&generation),
        quic: penstock::quic::Keys::new(&snapshot.engine.quic).expect("there is randomness").repeatable(seed),
        afxdp: None,
        owners: None,
        // Soon and often: of what passes through a simulated tunnel, most is spliced.
        splicing: Some(Splicing { after: 2_000, large: 200, pipes: 1 }),
        cells: Arc::clone(&cells),
        log: None,
        qlog: None,
        places: Vec::new(),
        hands_over: false,
        index: 0,
        count: 1,
        seed,
    };
    let seen = roster.pools().cloned().collect();
    let snapshots = [0, 1, 2].map(|at| self::snapshot(scene, at));
    let lists = Rc::new(RefCell::new(Lists { seen, roster, generation, snapshots, coming: None }));
    let changes = Changes { moves: scene.moves, reloads: scene.reloads };
    let counts = ring.block_on(work(plan, ledger, clients, changes, scene.drain, Rc::clone(&lists)));
    cells.counters.requests_open.sub(others);
    if scene.crowded {
        CROWDED.fetch_add(cells.counters.requests_total.get(), Ordering::Relaxed);
        REFUSED.fetch_add(cells.counters.requests_refused_total.get(), Ordering::Relaxed);
    }
    let mut wrong = gauges(&cells, &lists.borrow().seen);
    if counts.panics > 0 || counts.streams > 0 {
        wrong.push(format!("the ring: {counts:?}"));
    }
    drop(ring);
    let lent = ring::buf::pool_counts().lent;
    if lent > 0 {
        wrong.push(format!("{lent} bytes of buffers were never given back"));
    }
    if let Err(verdict) = world.verdict() {
        wrong.push(verdict);
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// What the control thread has to say meanwhile.
struct Changes {
    moves: bool,
    reloads: bool,
}

/// Runs the worker until everybody has done, or for a while; then drains it.
async fn work(
    plan: Plan,
    ledger: Rc<Ledger>,
    clients: Vec<Script<()>>,
    changes: Changes,
    drain: Option<Duration>,
    lists: Rc<RefCell<Lists>>,
) -> ring::Counts {
    let worker = Worker::open(plan).expect("the world's addresses are free");
    let (sender, receiver) = ring::mailbox(16);
    let sender = Rc::new(RefCell::new(sender));
    if changes.reloads {
        CHANGING.fetch_add(1, Ordering::Relaxed);
        let (sender, lists) = (Rc::clone(&sender), Rc::clone(&lists));
        ring::spawn(async move {
            for number in 0..60 {
                ring::sleep(Duration::from_millis(number * 11 % 43)).await;
                let Ok(bound) = lists.borrow_mut().prepare(number as usize, &mut sender.borrow_mut()) else { return };
                let bound = loop {
                    match bound.try_recv() {
                        Err(TryRecvError::Empty) => ring::sleep(Duration::from_micros(10)).await,
                        answered => break answered,
                    }
                };
                let adopts = matches!(bound, Ok((_, Ok(_))));
                if lists.borrow_mut().decide(adopts, &mut sender.borrow_mut()).is_err() {
                    return;
                }
            }
        });
    }
    if changes.moves {
        let sender = Rc::clone(&sender);
        ring::spawn(async move {
            for number in 0..200 {
                ring::sleep(Duration::from_millis(number * 7 % 31)).await;
                if lists.borrow_mut().shuffle(number, &mut sender.borrow_mut()).is_err() {
                    return;
                }
            }
        });
    }
    let clients = Rc::new(RefCell::new(clients));
    let waiting = Rc::clone(&clients);
    ring::spawn(async move {
        match drain {
            Some(after) => {
                ring::sleep(after).await;
                ledger.drain_at(ring::now().as_nanos());
            }
            None => all(&waiting).await,
        }
        sender.borrow_mut().send(Message::Drain(Duration::from_secs(24 * 3600))).expect("there is room");
    });
    worker.run(receiver).await;
    all(&clients).await;
    // What was closed last leaves the ring.
    ring::sleep(Duration::from_secs(5)).await;
    ring::counts()
}

/// What the worker has been told of who is there.
struct Lists {
    roster: Roster,
    seen: Vec<Members>,
    generation: Arc<Generation>,
    snapshots: [Arc<Snapshot>; 3],
    /// What the worker is binding sockets for.
    coming: Option<Arc<Draft>>,
}

impl Lists {
    /// Another configuration is to hold, as the control thread would have it.
    fn prepare(&mut self, number: usize, mail: &mut Sender<Message>) -> Result<Receiver<Answer>, Message> {
        let (before, after) = (&self.generation, &self.snapshots[(number + 1 + number / 7) % 3]);
        let diff = Diff::of(&before.snapshot, after).expect("nothing that stays is another");
        let tls = after.listeners.iter().map(|one| one.tls.as_ref().map(|_| h3_client::server())).collect();
        let draft = Arc::new(before.draft(after, diff, tls, vec![Vec::new(); after.listeners.len()]));
        let (bound, answer) = channel();
        mail.send(Message::Prepare { draft: Arc::clone(&draft), bound })?;
        self.coming = Some(draft);
        Ok(answer)
    }

    /// It holds, or what the worker could not bind is not to be: in this world an address is nobody else's until its socket is closed.
    fn decide(&mut self, adopts: bool, mail: &mut Sender<Message>) -> Result<(), Message> {
        let Some(draft) = self.coming.take().filter(|_| adopts) else { return mail.send(Message::Abandon) };
        let (before, after, kin) = (&self.generation, &draft.snapshot, &draft.diff.pools);
        let roster = self.roster.succeed(&before.snapshot, after, kin, policy::Now::ZERO);
        let members: Vec<_> = roster.pools().cloned().collect();
        self.seen.extend(members.iter().cloned());
        let generation = Arc::new(before.succeed(&draft, members, Vec::new(), Originations::default()));
        (self.roster, self.generation) = (roster, Arc::clone(&generation));
        ADOPTED.fetch_add(1, Ordering::Relaxed);
        mail.send(Message::Adopt { generation, done: channel().0 })
    }

    /// An entry of the pool `app` stands for another one of its three endpoints: of one to three, some leave, some join.
    fn shuffle(&mut self, number: u64, mail: &mut Sender<Message>) -> Result<(), Message> {
        let (pool, name) = (PoolId(0), format!("10.2.0.{}:8000", 1 + number * number % 11 % 3));
        let (addresses, name): (_, Box<str>) = ([address(&name)].into(), name.into());
        let found = Found {
            authority: name.clone(),
            name,
            addresses,
            weight: 1,
            tier: 0,
            limits: EndpointLimits::default(),
            server: None,
        };
        let finding = Finding { pool, source: (number % 3) as usize, found: vec![found] };
        if !self.roster.take(finding, policy::Now::ZERO) {
            return Ok(());
        }
        let members = self.roster.members(pool);
        self.seen.push(members.clone());
        mail.send(Message::Members { pool, members })
    }
}

async fn all(clients: &RefCell<Vec<Script<()>>>) {
    let mut clients = std::mem::take(&mut *clients.borrow_mut());
    for client in clients.drain(..) {
        client.await;
    }
}

/// Everybody around the engine. Returns those whose end is waited for.
fn people(world: &World, scene: &Scene, ledger: &Rc<Ledger>, size_max: usize) -> Vec<Script<()>> {
    let broken = scene.faults != scene.faults.clone().harmless();
    let may_fail = scene.faults.datagram_loss > 0.0 || scene.faults.datagram_full > 0.0;
    let strict = Strict { may_refuse: scene.rude_origins || scene.crowded || broken, may_break: broken, may_fail };
    let mut clients = Vec::new();
    if scene.web {
        for number in 1..=3 {
            let listening = world.listen(&address(&format!("10.2.0.{number}:8000"))).expect("free");
            let (ledger, rude) = (Rc::clone(ledger), scene.rude_origins);
            if rude && number == 3 {
                // Nobody is there: connections are refused.
                continue;
            }
            if scene.h2_origins {
                world.spawn("h2 origin", move |host| h2_origin::serve(host, listening, ledger, rude));
            } else {
                world.spawn("origin", move |host| origin::serve(host, listening, ledger, rude));
            }
        }
        for number in 0..4 {
            let (ledger, wanders) = (Rc::clone(ledger), scene.wandering);
            let rude = scene.rude_clients && number > 1;
            if scene.h3_clients && number > 0 {
                let run = move |host| h3_client::run(host, ledger, strict, rude, wanders);
                clients.push(world.spawn("h3 client", run));
                continue;
            }
            if scene.h2_clients && number > 0 {
                clients.push(world.spawn("h2 client", move |host| h2_client::run(host, ledger, strict, rude)));
                continue;
            }
            clients.push(world.spawn("client", move |host| client::run(host, ledger, strict)));
        }
        for _ in 0..if scene.rude_clients { 3 } else { 0 } {
            let ledger = Rc::clone(ledger);
            clients.push(world.spawn("rude client", move |host| client::rude(host, ledger)));
        }
    }
    if scene.steady {
        let listening = world.listen(&address("10.3.0.1:7000")).expect("free");
        world.spawn("steady end", move |host| tunnel::steady_origin(host, listening));
        clients.push(world.spawn("steady tunnel", tunnel::steady));
    }
    if scene.datagrams {
        world.spawn("datagrams' origin", datagrams::origin);
        clients.push(world.spawn("datagrams' client", datagrams::client));
    }
    if scene.websockets {
        let town = Town::new(ledger, size_max, strict);
        for number in 1..=2 {
            let listening = world.listen(&address(&format!("10.4.0.{number}:9000"))).expect("free");
            let (town, h2, rude) = (town.clone(), scene.h2_origins, scene.rude_origins);
            world.spawn("WebSockets' origin", move |host| websocket::origin(host, listening, town, h2, rude));
        }
        for number in 0..3 {
            let town = town.clone();
            clients.push(match scene.h2_clients && number > 0 {
                true => world.spawn("WebSockets over h2", move |host| websocket::h2_client(host, town)),
                false => world.spawn("WebSockets", move |host| websocket::client(host, town)),
            });
        }
    }
    if scene.tunnels {
        for number in 1..=2 {
            let listening = world.listen(&address(&format!("10.3.0.{number}:7000"))).expect("free");
            let ledger = Rc::clone(ledger);
            world.spawn("far end", move |host| tunnel::origin(host, listening, ledger, size_max, strict));
        }
        for _ in 0..3 {
            let ledger = Rc::clone(ledger);
            clients.push(world.spawn("tunnel", move |host| tunnel::client(host, ledger, size_max, strict)));
        }
    }
    clients
}

/// What should be zero when everybody has left, and is not.
fn gauges(cells: &WorkerCells, lists: &[Members]) -> Vec<String> {
    let counters = &cells.counters;
    let mut wrong = Vec::new();
    let mut expect_zero = |what: &str, value: u64| {
        if value != 0 {
            wrong.push(format!("{what} is {value} at the end"));
        }
    };
    expect_zero("connections_open", counters.connections_open.get());
    expect_zero("requests_open", counters.requests_open.get());
    expect_zero("tunnels_open", counters.tunnels_open.get());
    TUNNELS.fetch_add(counters.tunnels_total.get(), Ordering::Relaxed);
    let spliced = counters.tunnel_spliced_in_bytes_total.get() + counters.tunnel_spliced_out_bytes_total.get();
    SPLICED.fetch_add(spliced, Ordering::Relaxed);
    expect_zero("upstream_idle", counters.upstream_idle.get());
    expect_zero("upstream_shared", counters.upstream_shared.get());
    for member in lists.iter().flat_map(|members| members.iter()) {
        expect_zero("an endpoint's in_flight", member.shared.sums().in_flight);
    }
    wrong
}
