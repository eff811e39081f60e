//! Two workers' clusters on one simulated ring, before an origin that says each line again. Letters go between them as they do between threads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use policy::{NoPick, Now, Outcome};
use ring::sim::{Faults, Host, World, check};
use ring::{Buf, DriverChoice, Options, Ring, Timer};

use super::super::list::Maker;
use super::super::{Affinity, Choice, DialError, Lease, Member, Tried, Wanted};
use super::*;
use crate::snapshot;

const ORIGIN: &str = "10.2.0.1:9000";

/// Two workers at an endpoint that takes two connections.
struct Pair {
    clusters: [Rc<Cluster>; 2],
    cells: [Arc<WorkerCells>; 2],
    snapshot: Arc<Snapshot>,
    shared: Arc<EndpointShared>,
}

impl Pair {
    /// On the ring of this thread.
    fn new() -> Self {
        let text = format!(
            "[[listen]]\nname = \"l\"\naddr = \":1\"\n[[pool]]\nname = \"p\"\nendpoints = [\"{ORIGIN}\"]\nlimits = {{ connections = 2 }}\n"
        );
        let snapshot = snapshot::read("test", &text).unwrap_or_else(|report| panic!("{}", report.render())).snapshot;
        let snapshot = Arc::new(snapshot);
        let shared = Arc::new(EndpointShared::new(2, Now::ZERO));
        let member = Member {
            name: ORIGIN.into(),
            authority: ORIGIN.into(),
            addresses: [ring::Address::Inet(ORIGIN.parse().unwrap())].into(),
            weight: 1,
            tier: 0,
            limits: snapshot::EndpointLimits::default(),
            server: None,
            shared: Arc::clone(&shared),
        };
        let pool = &snapshot.pools[0];
        let members = Maker::new(pool, 2).make(vec![member]);
        let lending = Lending::new(2);
        let cells = [0, 1].map(|_| Arc::new(WorkerCells::default()));
        let clusters = [0, 1].map(|worker| Rc::new(Cluster::new(pool, None, &members, (worker, 2), 1)));
        for (worker, cluster) in clusters.iter().enumerate() {
            let one: Rc<[_]> = [Rc::clone(cluster)].into();
            join(&lending, worker, &one, &snapshot, &cells[worker], |_| {});
        }
        Self { clusters, cells, snapshot, shared }
    }

    fn pick(&self, worker: usize) -> Result<Rc<Endpoint>, NoPick> {
        let choice = Choice { tried: &Tried::default(), affinity: &Affinity::default(), repeatable: true, once: false };
        self.clusters[worker].pick(&choice, now(), &self.cells[worker].counters)
    }

    async fn lease(&self, worker: usize, endpoint: &Rc<Endpoint>) -> Result<Lease, DialError> {
        let (pool, connect) = (&self.snapshot.pools[0], Duration::from_secs(5));
        let wanted = Wanted { endpoint, pool, connect, fresh: false, upgrade: false, short: false, path: None };
        self.clusters[worker].lease(wanted, &mut Timer::new(), &self.cells[worker]).await
    }

    fn give_back(&self, worker: usize, lease: Lease) {
        self.clusters[worker].record(&lease.endpoint, now(), &Outcome::answered(Duration::from_millis(1), 200));
        self.clusters[worker].give_back(lease, &self.snapshot.pools[0], 0, &self.cells[worker].counters);
    }

    /// A connection for a worker, as soon as there is one: as the queue does it.
    async fn wait_for_one(&self, worker: usize) -> Lease {
        let end = ring::now() + Duration::from_secs(60);
        loop {
            assert!(ring::now() < end, "worker {worker} waits for ever");
            if let Ok(endpoint) = self.pick(worker) {
                match self.lease(worker, &endpoint).await {
                    Ok(lease) => return lease,
                    Err(_) => self.clusters[worker].record(
                        &endpoint,
                        now(),
                        &Outcome::new(Duration::ZERO, policy::Class::Shed),
                    ),
                }
            }
            ring::sleep(limits::PLACES_LOOK).await;
        }
    }

    fn counted(&self, worker: usize) -> (u64, u64) {
        let counters = &self.cells[worker].counters;
        (counters.upstream_lent_total.get(), counters.upstream_borrowed_total.get())
    }

    fn connects(&self) -> u64 {
        self.cells.iter().map(|cells| cells.counters.upstream_connects_total.get()).sum()
    }
}

fn now() -> Now {
    super::super::policy_now(ring::now())
}

/// Says `line` over a leased connection, and hears it said again; `None`: the connection ended.
async fn say(lease: &mut Lease, line: &str) -> Option<String> {
    let super::super::lease::Wire::Own(own) = &mut lease.wire else { unreachable!("HTTP/1 has nothing else") };
    own.conn.stream.send(Buf::copy_of(line.as_bytes()));
    let mut heard = String::new();
    while heard.len() < line.len() {
        let received = std::future::poll_fn(|cx| own.conn.stream.poll_recv(cx)).await;
        heard.push_str(std::str::from_utf8(received.ok()??.bytes()).unwrap());
    }
    Some(heard)
}

/// Says each line again, after a while; with `tires`, it closes connections now and then.
fn echoes(world: &World, tires: bool) {
    let listening = world.listen(&ring::Address::Inet(ORIGIN.parse().unwrap())).unwrap();
    drop(world.spawn("origin", async move |host: Host| {
        loop {
            let socket = listening.accept().await;
            drop(host.spawn("connection", async move |host: Host| {
                while let Ok(line) = socket.recv_until(b"\n").await {
                    host.dawdle(Duration::from_millis(3)).await;
                    if socket.send(&line).await.is_err() || tires && host.chance(0.05) {
                        break;
                    }
                }
                socket.close();
            }));
        }
    }));
}

fn on_a_ring(world: &World, body: impl AsyncFnOnce() + 'static) {
    let ring = Ring::new(Options { driver: DriverChoice::Sim(world.node()), ..Options::default() }).unwrap();
    ring.block_on(async move {
        body().await;
        // What was let go of comes to its end.
        ring::sleep(Duration::from_secs(1)).await;
        assert_eq!(ring::counts().panics, 0);
    });
}

#[test]
fn what_lies_idle_at_a_neighbour_is_borrowed_at_once() {
    let world = World::new(1, Faults::none());
    echoes(&world, false);
    on_a_ring(&world, async || {
        let pair = Pair::new();
        let mut all = [pair.wait_for_one(0).await, pair.wait_for_one(0).await];
        assert_eq!(pair.pick(1).unwrap_err(), NoPick::Full, "they are at work");
        for lease in &mut all {
            assert_eq!(say(lease, "hello\n").await.as_deref(), Some("hello\n"));
        }
        pair.clusters[1].endpoints()[0].shared.wants_no_more(1);
        all.into_iter().for_each(|lease| pair.give_back(0, lease));
        let asked = ring::now();
        let mut lease = pair.wait_for_one(1).await;
        assert!(ring::now().since(asked) < Duration::from_millis(10), "{:?}", ring::now().since(asked));
        assert!(lease.reused);
        assert_eq!(say(&mut lease, "from the other one\n").await.as_deref(), Some("from the other one\n"));
        pair.give_back(1, lease);
        assert_eq!((pair.counted(0), pair.counted(1), pair.connects()), ((1, 0), (0, 1), 2));
        let sums = pair.shared.sums();
        assert_eq!((sums.idle, sums.borrowed, pair.shared.connections()), (2, 1, 2));
    });
    world.verdict().unwrap();
}

#[test]
fn one_that_is_used_while_it_is_asked_for_comes_when_it_is_free() {
    let world = World::new(1, Faults::none());
    echoes(&world, false);
    on_a_ring(&world, async || {
        let pair = Pair::new();
        let all = [pair.wait_for_one(0).await, pair.wait_for_one(0).await];
        all.into_iter().for_each(|lease| pair.give_back(0, lease));
        // The letter is on its way when its receiver takes both itself.
        assert_eq!(pair.pick(1).unwrap_err(), NoPick::Full);
        let [mut one, mut two] = [pair.wait_for_one(0).await, pair.wait_for_one(0).await];
        assert!(one.reused && two.reused);
        ring::sleep(Duration::from_millis(20)).await;
        assert_eq!((pair.counted(0).0, pair.clusters[1].endpoints()[0].asked.get()), (0, None), "it was told so");
        assert!(say(&mut one, "still mine\n").await.is_some() && say(&mut two, "this too\n").await.is_some());
        assert_eq!(pair.pick(1).unwrap_err(), NoPick::Full);
        pair.give_back(0, one);
        let mut lease = pair.wait_for_one(1).await;
        assert_eq!(say(&mut lease, "and now ours\n").await.as_deref(), Some("and now ours\n"));
        pair.give_back(0, two);
        pair.give_back(1, lease);
        assert_eq!((pair.counted(0).0, pair.connects()), (1, 2));
    });
    world.verdict().unwrap();
}

/// Clients on both workers, an origin that closes connections, and every harmless fault: each line is answered by itself, nobody starves,
/// and places are never lost or made.
#[test]
fn connections_go_back_and_forth_and_nothing_is_mixed_up() {
    let borrowed = AtomicU64::new(0);
    check("connections_go_back_and_forth_and_nothing_is_mixed_up", 80, |seed| {
        let world = World::new(seed, Faults::from_seed(seed).harmless());
        echoes(&world, true);
        let counted = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&counted);
        on_a_ring(&world, async move || {
            let pair = Rc::new(Pair::new());
            let done = Rc::new(std::cell::Cell::new(0));
            for client in 0..6_usize {
                let (pair, done) = (Rc::clone(&pair), Rc::clone(&done));
                ring::spawn(async move {
                    for round in 0..8 {
                        let line = format!("{client} asks {round}\n");
                        loop {
                            let mut lease = pair.wait_for_one(client % 2).await;
                            assert!(pair.shared.connections() <= 2);
                            let heard = say(&mut lease, &line).await;
                            let served = heard.is_some();
                            assert!(heard.is_none_or(|heard| heard == line));
                            pair.give_back(client % 2, lease);
                            if served {
                                break;
                            }
                        }
                        ring::sleep(Duration::from_micros((seed * 7 + client as u64 * 131) % 4_000)).await;
                    }
                    done.set(done.get() + 1);
                });
            }
            let end = ring::now() + Duration::from_secs(60);
            while done.get() < 6 {
                assert!(ring::now() < end, "{} of 6 are done", done.get());
                ring::sleep(Duration::from_millis(1)).await;
            }
            ring::sleep(Duration::from_secs(1)).await;
            let (zero, one) = (pair.counted(0), pair.counted(1));
            count.store(zero.1 + one.1, Ordering::Relaxed);
            pair.clusters.iter().zip(&pair.cells).for_each(|(cluster, cells)| cluster.close_idle(&cells.counters));
            assert_eq!((pair.shared.connections(), pair.shared.sums().idle), (0, 0));
            assert!(pair.cells.iter().all(|cells| cells.counters.upstream_idle.get() == 0));
        });
        borrowed.fetch_add(counted.load(Ordering::Relaxed), Ordering::Relaxed);
        world.verdict()
    });
    assert!(borrowed.into_inner() > 300);
}
